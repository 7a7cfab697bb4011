"""One training by Adam: parameters, moments, and what each feature's steps depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._random import child_generator
from ..data.blocks import Design
from ..data.rows import SparseRows, read_only
from ..model.params import FMParams
from .adam_kernel import LOGISTIC, SQUARED, adam_epoch
from .base import SolverSpec, Start, State
from .chain_state import Units
from .warm import begun, model_to_start_from, words_of

__all__ = ["GROUPS", "LOSSES", "AdamRun"]

GROUPS = ("bias", "linear", "factors")
LOSSES = {"squared": SQUARED, "logistic": LOGISTIC}
# ridge penalties that suit standardised ratings of few rows per id and of many alike
_PENALTIES = {
    SQUARED: {"linear": 1.0, "factors": 4.0},
    LOGISTIC: {"linear": 0.5, "factors": 2.0},  # its curvature is smaller
}
_INIT_STREAM, _ORDER_STREAM = 0, 1


class AdamRun:
    """The parameters, their moments and the working memory of one training."""

    def __init__(
        self, config: Any, spec: SolverSpec, design: Design, y: np.ndarray, start: Start | None
    ) -> None:
        self.config, self.spec, self.design = config, spec, design
        self.loss = LOSSES[spec.loss]
        self.batch_size = _batch_size(config, design.n_rows)
        self.feature_counts = _feature_counts(design)
        params = model_to_start_from(start, design, spec)
        if isinstance(start, Mapping):
            self._start_from(start)
        else:
            self.center, self.scale = _target_scale(config, self.loss, y, design.weights)
            if params is not None:
                self.scale = _power_of_four(self.scale)
        self.y = ((y.astype(np.float64) - self.center) / self.scale).astype(np.float32)
        if not isinstance(start, Mapping):
            self._start_afresh(params)
        weight = 1.0 if design.weights is None else float(design.weights[design.weights > 0].mean())
        self.decays = _decays(config, self.loss, self.feature_counts, self.batch_size, weight)
        batch_share = min(1.0, self.batch_size / design.n_rows)
        self.damping = _damping(config, self.feature_counts, batch_share)
        self.work = _Work(design, self.batch_size, spec.n_factors, config.lazy)

    def _start_afresh(self, params: FMParams | None) -> None:
        n_features, n_factors = self.design.n_features, self.spec.n_factors
        self.first = 0
        self.words = words_of(self.spec.random_state, params)
        generator = child_generator(self.words, _INIT_STREAM)
        self.w0 = self._initial("bias", (1,), generator)
        self.w = self._initial("linear", (n_features,), generator)
        self.V = self._initial("factors", (n_features, n_factors), generator)
        used = self.feature_counts > 0
        if self.config.zero_unseen:
            self.w[~used] = 0.0
            self.V[~used] = 0.0
        if params is not None:
            w0, self.w, self.V = begun(params, Units(self.center, self.scale), self.V, used)
            self.w0[0] = w0
        self.moments = {
            f"{moment}_{name}": np.zeros_like(getattr(self, name))
            for moment in ("m", "s")
            for name in ("w0", "w", "V")
        }
        self.n_batches = 0

    def _initial(
        self, group: str, shape: tuple[int, ...], generator: np.random.Generator
    ) -> np.ndarray:
        settings = self.config
        method = getattr(settings, f"{group}_init_method")
        if method == "mean":
            values = np.full(shape, _best_constant(self.loss, self.y, self.design.weights))
        elif method == "constant":
            values = np.full(shape, getattr(settings, f"{group}_init_value"), np.float64)
        elif method == "uniform":
            scale = getattr(settings, f"{group}_init_scale")
            values = generator.uniform(-scale, scale, shape)
        else:
            values = generator.standard_normal(shape, dtype=np.float32)
            values *= np.float32(getattr(settings, f"{group}_init_sigma"))
        return values.astype(np.float32)

    def _start_from(self, state: State) -> None:
        n_features, n_factors = self.design.n_features, self.spec.n_factors
        parameters = {"w0": (1,), "w": (n_features,), "V": (n_features, n_factors)}
        shapes: dict[str, tuple[int, ...]] = dict(parameters)
        for moment in ("m", "s"):
            shapes.update({f"{moment}_{name}": shape for name, shape in parameters.items()})
        arrays = {name: _array_of_state(state, name, shape) for name, shape in shapes.items()}
        self.w0, self.w, self.V = (arrays.pop(name) for name in parameters)
        self.moments = arrays
        loss, self.first, self.n_batches = (
            _count_of_state(state, name) for name in ("loss", "iteration", "n_batches")
        )
        if loss != self.loss:
            raise ValueError("start is of a training with another loss")
        if self.first >= self.config.epochs:
            raise ValueError(
                f"start has done {self.first} epochs already: raise epochs={self.config.epochs}"
            )
        # the parameters are in units of the targets they were trained on
        units = _array_of_state(state, "units", (2,), np.float64)
        self.center, self.scale = (float(unit) for unit in units)
        self.words = _array_of_state(state, "words", (4,), np.uint32)

    def step(self, iteration: int) -> dict[str, float]:
        config, n_rows = self.config, self.design.n_rows
        order = np.arange(n_rows, dtype=np.int64)
        if config.shuffle:
            order = child_generator(self.words, _ORDER_STREAM, iteration).permutation(n_rows)
        rescale = 1.0 / self.batch_size if config.rescale_grad is None else config.rescale_grad
        entities, work, moments = self.design.entities, self.work, self.moments
        total = adam_epoch(
            order,
            self.design.index,
            self.y,
            work.weights,
            self.loss,
            entities.indptr,
            entities.indices,
            entities.values,
            self.w0,
            self.w,
            self.V,
            *(moments[name] for name in ("m_w0", "s_w0", "m_w", "s_w", "m_V", "s_V")),
            self._rates(iteration),
            self.decays,
            self.damping,
            np.float32(rescale),
            np.float32(np.inf if config.clip_gradient is None else config.clip_gradient),
            np.float32(1e-8 if config.eps is None else config.eps),
            self.batch_size,
            self.n_batches,
            config.lazy,
            work.one_to_one,
            work.slot_of_entity,
            work.entity_of_slot,
            work.q,
            work.b,
            work.q_gradient,
            work.b_gradient,
            work.slot_of_feature,
            work.feature_of_slot,
            work.V_gradient,
            work.w_gradient,
        )
        self.n_batches += -(-n_rows // self.batch_size)
        finite = np.isfinite(self.w0[0]) and np.isfinite(self.w.sum() + self.V.sum())
        loss = total / work.total_weight if finite else np.nan
        if self.loss == SQUARED:
            return {"loss": loss * self.scale**2, "train_rmse": math.sqrt(2 * loss) * self.scale}
        return {"loss": loss}

    def _rates(self, iteration: int) -> np.ndarray:
        config = self.config
        share = 1.0 - iteration / config.epochs if config.lr_schedule == "linear" else 1.0
        return np.array([share * getattr(config, f"{group}_lr") for group in GROUPS])

    def model(self) -> FMParams:
        # a score is linear in w and quadratic in V: the scale goes into V by its root
        root = math.sqrt(self.scale)
        return FMParams(
            self.center + self.scale * float(self.w0[0]), self.w * self.scale, self.V * root
        )

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        parameters = {name: getattr(self, name).copy() for name in ("w0", "w", "V")}
        return {
            **parameters,
            **{name: moment.copy() for name, moment in self.moments.items()},
            "words": self.words.copy(),
            "units": np.array([self.center, self.scale]),
            "loss": np.array(self.loss),
            "iteration": np.array(iteration),
            "n_batches": np.array(self.n_batches),
        }


class _Work:
    """Scratch arrays of the kernel: slots for the entities and features that a batch touches."""

    def __init__(self, design: Design, batch_size: int, n_factors: int, lazy: bool) -> None:
        n_entities, n_features = design.entities.shape
        longest = int(np.diff(design.entities.indptr).max(initial=0))
        entity_slots = min(n_entities, batch_size * len(design.blocks))
        feature_slots = min(n_features, entity_slots * longest) if lazy else n_features
        self.one_to_one = _is_one_to_one(design.entities)
        self.slot_of_entity = np.full(n_entities, -1, np.int32)
        self.entity_of_slot = np.empty(entity_slots + 1, np.int32)  # one more: see the kernel
        self.q = np.empty((entity_slots, n_factors), np.float32)
        self.b = np.empty(entity_slots, np.float32)
        self.q_gradient = np.empty((entity_slots, n_factors), np.float32)
        self.b_gradient = np.empty(entity_slots, np.float32)
        self.slot_of_feature = np.full(n_features, -1, np.int32)
        self.feature_of_slot = np.empty(feature_slots, np.int32)
        self.V_gradient = np.empty((feature_slots, n_factors), np.float32)
        self.w_gradient = np.empty(feature_slots, np.float32)
        weights = design.weights
        self.weights = read_only([] if weights is None else weights, np.float32)
        self.total_weight = design.n_rows if weights is None else float(weights.sum(dtype=float))


def _is_one_to_one(entities: SparseRows) -> bool:
    """Whether each entity is one feature of its own, with the value 1: ids alone."""
    return bool(
        np.all(np.diff(entities.indptr) == 1)
        and np.all(entities.values == 1.0)
        and len(np.unique(entities.indices)) == len(entities)
    )


def _batch_size(config: Any, n_rows: int) -> int:
    if config.mini_batch_size is not None:
        return int(min(config.mini_batch_size, np.iinfo(np.int64).max))
    return int(min(500, max(16, n_rows // 128)))


def _decays(
    config: Any, loss: int, counts: np.ndarray, batch_size: int, weight: float
) -> np.ndarray:
    """Weight decay of w0, w and V per batch; ``weight`` is the mean weight of a row.

    The automatic penalty grows with the weights as the gradient does: their unit does not matter.
    """
    spread = weight / (batch_size * _typical(counts))
    given = {group: getattr(config, f"{group}_wd") for group in GROUPS}
    return np.array(
        [_PENALTIES[loss][g] * spread if wd is None else wd for g, wd in given.items()], np.float32
    )


def _damping(config: Any, counts: np.ndarray, batch_share: float) -> np.ndarray:
    """Factor on the learning rates of each feature; a batch holds ``batch_share`` of the rows."""
    if config.damp_above is None:
        return np.ones(len(counts), np.float32)
    above = max(config.damp_above, _typical(counts) * batch_share)
    return (above / np.maximum(above, counts * batch_share)).astype(np.float32)


def _typical(counts: np.ndarray) -> float:
    """Geometric mean: a few features that are in every row must not speak for all the ids."""
    counts = counts[counts > 0]
    return float(np.exp(np.log(counts).mean())) if len(counts) else 1.0


def _target_scale(
    config: Any, loss: int, y: np.ndarray, weights: np.ndarray | None
) -> tuple[float, float]:
    if loss != SQUARED or not config.standardize:
        return 0.0, 1.0
    center = float(np.average(y.astype(np.float64), weights=weights))
    spread = float(np.sqrt(np.average((y.astype(np.float64) - center) ** 2, weights=weights)))
    return center, spread if spread > 0 else 1.0


def _power_of_four(scale: float) -> float:
    """Return the one nearest to a scale: by it, parameters go in and out without being rounded.

    So a feature without a row keeps the parameters that a training begins from to the bit.
    """
    return 4.0 ** round(math.log(scale, 4.0))


def _best_constant(loss: int, y: np.ndarray, weights: np.ndarray | None) -> float:
    mean = float(np.average(y.astype(np.float64), weights=weights))
    if loss == SQUARED:
        return mean
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    return math.log(mean / (1 - mean))


def _feature_counts(design: Design) -> np.ndarray:
    """In how many rows each feature occurs; rows without weight do not count."""
    index = design.index if design.weights is None else design.index[design.weights > 0]
    entity_counts = np.bincount(index.ravel(), minlength=len(design.entities))
    entries = np.repeat(entity_counts, np.diff(design.entities.indptr))
    return np.bincount(design.entities.indices, entries, minlength=design.n_features)


def _array_of_state(
    state: State, name: str, shape: tuple[int, ...], dtype: Any = np.float32
) -> np.ndarray:
    """Return a copy of an array of a state, checked: the kernel trusts shapes and types."""
    array = _of_state(state, name)
    if array.shape != shape:
        raise ValueError(f"start has {name} of shape {array.shape}, this training {shape}")
    if array.dtype.kind not in ("u" if dtype is np.uint32 else "f"):
        raise ValueError(f"start has {name} of type {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"start has NaN or infinity in {name}")
    if name.startswith("s_") and array.size and array.min() < 0:
        raise ValueError(f"start has a negative second moment in {name}")
    return np.array(array, dtype)


def _count_of_state(state: State, name: str) -> int:
    array = _of_state(state, name)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"start has no valid {name!r}")
    return int(array)


def _of_state(state: State, name: str) -> np.ndarray:
    if name not in state:
        raise ValueError(f"start is not the state of an Adam training: it has no {name!r}")
    return np.asarray(state[name])
