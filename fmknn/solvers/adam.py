"""Adam: mini-batch gradient descent on the entities of a design; SageMaker's own rule among it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._random import child_generator, entropy_words
from ..data.blocks import Design
from ..model.params import FMParams
from .adam_kernel import LOGISTIC, SQUARED, adam_epoch
from .base import Callback, Fit, SolverSpec, State, iterate

__all__ = ["Adam", "AdamSolver"]

_GROUPS = ("bias", "linear", "factors")
_LOSSES = {"squared": SQUARED, "logistic": LOGISTIC}
_INIT_STREAM, _ORDER_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class Adam:
    """Settings of the Adam solver, under the names that SageMaker gives them.

    ``Adam()`` has fmknn's own defaults, ``Adam.sagemaker()`` those of SageMaker.

    Parameters
    ----------
    epochs : int
        Passes over the rows.
    mini_batch_size : int, optional
        Rows per update. None: a two-hundredth of the rows, between 16 and 500.
    bias_lr, linear_lr, factors_lr : float
        Learning rates of w0, w and V.
    bias_wd, linear_wd, factors_wd : float
        Weight decay, added to the gradient as wd·θ before it is clipped.
    bias_init_method, linear_init_method, factors_init_method : str
        "normal" (standard deviation ``*_init_sigma``), "uniform" (within ± ``*_init_scale``) or
        "constant" (``*_init_value``); for the bias also "mean", the best constant prediction.
    clip_gradient : float, optional
        Gradients are clipped to ± this.
    eps : float
        Added to the root of the second moment.
    rescale_grad : float, optional
        Factor on the summed gradient of a batch; default 1 / mini_batch_size.
    shuffle : bool
        Draw a new order of the rows for each epoch.
    lazy : bool
        Update, in a batch, only the features that occur in it (moments and decay included).
    standardize : bool
        Squared loss: train on (y - mean) / std and put the scale back into the parameters, so
        that the settings fit targets of any scale.
    zero_unseen : bool
        Leave the parameters of features without a row at 0, instead of at their random start.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    For each batch, t counting from 1 (Kingma & Ba, "Adam", ICLR 2015, in MXNet's lazy form)::

        g = rescale_grad · Σ_batch ∂L/∂θ + wd·θ
        m = 0.9 m + 0.1 g;  s = 0.999 s + 0.001 g²
        θ -= lr · √(1 - 0.999^t) / (1 - 0.9^t) · m / (√s + eps)

    One thread does the work, whatever ``n_jobs``: batches depend on one another.

    Examples
    --------
    >>> Adam(epochs=5).mini_batch_size is None
    True
    >>> Adam.sagemaker(epochs=30, mini_batch_size=200).factors_lr
    0.0001
    """

    epochs: int = 24
    mini_batch_size: int | None = None
    bias_lr: float = 0.01
    linear_lr: float = 0.003
    factors_lr: float = 0.003
    bias_wd: float = 0.0
    linear_wd: float = 3e-4
    factors_wd: float = 3e-4
    bias_init_method: str = "mean"
    bias_init_scale: float | None = None
    bias_init_sigma: float = 0.01
    bias_init_value: float | None = None
    linear_init_method: str = "constant"
    linear_init_scale: float | None = None
    linear_init_sigma: float = 0.01
    linear_init_value: float | None = 0.0
    factors_init_method: str = "normal"
    factors_init_scale: float | None = None
    factors_init_sigma: float = 0.05
    factors_init_value: float | None = None
    clip_gradient: float | None = None
    eps: float = 1e-8
    rescale_grad: float | None = None
    shuffle: bool = True
    lazy: bool = True
    standardize: bool = True
    zero_unseen: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "mini_batch_size"):
            value = getattr(self, name)
            if value is None and name == "mini_batch_size":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        for group in _GROUPS:
            for name in (f"{group}_lr", f"{group}_wd", f"{group}_init_sigma"):
                _require_not_negative(name, getattr(self, name))
            self._check_init(group)
        _require_not_negative("eps", self.eps)
        for name in ("clip_gradient", "rescale_grad"):
            if getattr(self, name) is not None:
                _require_not_negative(name, getattr(self, name))

    def _check_init(self, group: str) -> None:
        method = getattr(self, f"{group}_init_method")
        methods = ("normal", "uniform", "constant") + (("mean",) if group == "bias" else ())
        if method not in methods:
            raise ValueError(
                f"{group}_init_method must be one of {', '.join(methods)}, got {method!r}"
            )
        needed = {"uniform": f"{group}_init_scale", "constant": f"{group}_init_value"}.get(method)
        if needed is not None:
            value = getattr(self, needed)
            if value is None or not math.isfinite(value):
                raise ValueError(f"{group}_init_method={method!r} needs {needed}, got {value!r}")

    @classmethod
    def sagemaker(cls, **settings: Any) -> Adam:
        """Return SageMaker's rule and defaults (rows in file order, nothing standardised).

        Parameters
        ----------
        **settings
            Any of the hyperparameters, to override.
        """
        defaults: dict[str, Any] = {
            "epochs": 1,
            "mini_batch_size": 1000,
            "bias_lr": 0.1,
            "linear_lr": 0.001,
            "factors_lr": 0.0001,
            "bias_wd": 0.01,
            "linear_wd": 0.001,
            "factors_wd": 0.00001,
            "bias_init_method": "normal",
            "linear_init_method": "normal",
            "factors_init_method": "normal",
            "bias_init_sigma": 0.01,
            "linear_init_sigma": 0.01,
            "factors_init_sigma": 0.001,
            "linear_init_value": None,
            "shuffle": False,
            "standardize": False,
            "zero_unseen": False,
        }
        return cls(**{**defaults, **settings})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as scikit-learn asks for them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def n_iter(self) -> int:
        """The number of passes."""
        return self.epochs

    def with_n_iter(self, n_iter: int) -> Adam:
        """Return the same settings with another number of passes."""
        return dataclasses.replace(self, epochs=n_iter)

    def solver(self, spec: SolverSpec) -> AdamSolver:
        """Return the solver for what an estimator asks."""
        return AdamSolver(self, spec)


def _require_not_negative(name: str, value: Any) -> None:
    if not isinstance(value, (int, float, np.number)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


class AdamSolver:
    """Trains an FM by Adam; see :class:`Adam` for the settings.

    Parameters
    ----------
    config : Adam
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is one that Adam does not know.
    """

    def __init__(self, config: Adam, spec: SolverSpec) -> None:
        if spec.loss not in _LOSSES:
            raise ValueError(f"Adam knows the losses {', '.join(_LOSSES)}, not {spec.loss!r}")
        self.config = config
        self.spec = spec

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: State | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from ``start``; see :class:`fmknn.solvers.base.Solver`."""
        run = _AdamRun(self.config, self.spec, design, y, start)
        rates = ", ".join(f"{g}_lr={getattr(self.config, g + '_lr'):g}" for g in _GROUPS)
        return iterate(
            run,
            first=run.first,
            n_iter=self.config.epochs,
            callbacks=callbacks,
            progress=self.spec.progress,
            advice=f"lower the learning rates ({rates}) or set clip_gradient",
        )


class _AdamRun:
    """The parameters, their moments and the working memory of one training."""

    def __init__(
        self, config: Adam, spec: SolverSpec, design: Design, y: np.ndarray, start: State | None
    ) -> None:
        self.config, self.spec, self.design = config, spec, design
        self.loss = _LOSSES[spec.loss]
        self.batch_size = _batch_size(config, design.n_rows)
        self.center, self.scale = _target_scale(config, self.loss, y, design.weights)
        self.y = ((y.astype(np.float64) - self.center) / self.scale).astype(np.float32)
        if start is None:
            self._start_afresh()
        else:
            self._start_from(start)
        self.work = _Work(design, self.batch_size, spec.n_factors, config.lazy)

    def _start_afresh(self) -> None:
        n_features, n_factors = self.design.n_features, self.spec.n_factors
        self.first = 0
        self.words = entropy_words(self.spec.random_state)
        generator = child_generator(self.words, _INIT_STREAM)
        self.w0 = self._initial("bias", (1,), generator)
        self.w = self._initial("linear", (n_features,), generator)
        self.V = self._initial("factors", (n_features, n_factors), generator)
        if self.config.zero_unseen:
            used = _used_features(self.design)
            self.w[~used] = 0.0
            self.V[~used] = 0.0
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
        shape = (self.design.n_features, self.spec.n_factors)
        if "V" not in state or "words" not in state:
            raise ValueError("start is not the state of an Adam training")
        if state["V"].shape != shape:
            raise ValueError(
                f"start has {state['V'].shape[0]} features and {state['V'].shape[1]} factors, "
                f"this training {shape[0]} and {shape[1]}"
            )
        self.first = int(state["iteration"])
        self.words = np.array(state["words"])
        self.n_batches = int(state["n_batches"])
        # copies: training must not change the checkpoint it began with
        self.w0, self.w, self.V = (np.array(state[name]) for name in ("w0", "w", "V"))
        self.moments = {
            name: np.array(state[name]) for name in ("m_w0", "m_w", "m_V", "s_w0", "s_w", "s_V")
        }

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
            np.array([getattr(config, f"{group}_lr") for group in _GROUPS], np.float64),
            np.array([getattr(config, f"{group}_wd") for group in _GROUPS], np.float32),
            np.float32(rescale),
            np.float32(np.inf if config.clip_gradient is None else config.clip_gradient),
            np.float32(config.eps),
            self.batch_size,
            self.n_batches,
            config.lazy,
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
        self.slot_of_entity = np.full(n_entities, -1, np.int32)
        self.entity_of_slot = np.empty(entity_slots, np.int32)
        self.q = np.empty((entity_slots, n_factors), np.float32)
        self.b = np.empty(entity_slots, np.float32)
        self.q_gradient = np.empty((entity_slots, n_factors), np.float32)
        self.b_gradient = np.empty(entity_slots, np.float32)
        self.slot_of_feature = np.full(n_features, -1, np.int32)
        self.feature_of_slot = np.empty(feature_slots, np.int32)
        self.V_gradient = np.empty((feature_slots, n_factors), np.float32)
        self.w_gradient = np.empty(feature_slots, np.float32)
        weights = design.weights
        self.weights = np.ones(0, np.float32) if weights is None else weights
        self.total_weight = design.n_rows if weights is None else float(weights.sum(dtype=float))


def _batch_size(config: Adam, n_rows: int) -> int:
    if config.mini_batch_size is not None:
        return int(config.mini_batch_size)
    return int(min(500, max(16, n_rows // 200)))


def _target_scale(
    config: Adam, loss: int, y: np.ndarray, weights: np.ndarray | None
) -> tuple[float, float]:
    if loss != SQUARED or not config.standardize:
        return 0.0, 1.0
    center = float(np.average(y.astype(np.float64), weights=weights))
    spread = float(np.sqrt(np.average((y.astype(np.float64) - center) ** 2, weights=weights)))
    return center, spread if spread > 0 else 1.0


def _best_constant(loss: int, y: np.ndarray, weights: np.ndarray | None) -> float:
    mean = float(np.average(y.astype(np.float64), weights=weights))
    if loss == SQUARED:
        return mean
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    return math.log(mean / (1 - mean))


def _used_features(design: Design) -> np.ndarray:
    """Which features occur in at least one row."""
    entity_used = np.zeros(len(design.entities), bool)
    entity_used[design.index.ravel()] = True
    entries = np.repeat(entity_used, np.diff(design.entities.indptr))
    used = np.zeros(design.n_features, bool)
    used[design.entities.indices[entries]] = True
    return used
