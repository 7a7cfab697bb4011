"""What Gibbs sampling and ALS share: units of the targets, the start, states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..data.blocks import Design
from ..model.params import FMParams
from .base import SolverSpec, State
from .sweep import Chain, Prior
from .targets import Targets

__all__ = ["Units", "array_of_state", "count_of_state", "iterations_done", "start_theta"]


_ROWS_AT_ONCE = 1_000_000  # float64 copies of all rows would be the most memory that training takes


def _parts(y: np.ndarray) -> Iterator[slice]:
    for start in range(0, len(y), _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, len(y)))


class Units:
    """The scale on which a chain works: targets less their mean, over their deviation.

    A score is linear in w0 and w and quadratic in V, so that the scale goes into V by its root.
    """

    def __init__(self, center: float, scale: float) -> None:
        self.center, self.scale = center, scale

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray | None) -> Units:
        """Return those of the targets; constant ones have the deviation 1."""
        weight = total = square = 0.0
        for part in _parts(y):
            share = np.ones(len(y[part])) if weights is None else weights[part].astype(np.float64)
            weight += share.sum()
            total += (share * y[part]).sum()
        center = float(total / weight)
        for part in _parts(y):
            away = (y[part].astype(np.float64) - center) ** 2
            square += (away if weights is None else away * weights[part]).sum()
        scale = math.sqrt(square / weight)
        return cls(center, scale if scale > 1e-6 * abs(center) else 1.0)

    def inward(self, y: np.ndarray) -> Targets:
        """Return targets on the chain's scale."""
        return Targets(y, self.center, self.scale)

    def outward(self, chain: Chain, priors: Mapping[int, Prior], cutpoints: Any = ()) -> FMParams:
        """Return the chain's parameters on the targets' own scale."""
        w, V = chain.parameters(dict(priors))
        root = np.float32(math.sqrt(self.scale))
        w0 = self.center + self.scale * chain.w0
        return FMParams(w0, w * np.float32(self.scale), V * root, cutpoints)

    def parameters_inward(self, params: FMParams) -> tuple[float, np.ndarray, np.ndarray]:
        """Return w0, w and V on the chain's scale, copies: what :meth:`outward` undoes."""
        root = np.float32(math.sqrt(self.scale))
        w0 = (params.w0 - self.center) / self.scale
        return w0, params.w / np.float32(self.scale), params.V / root


def start_theta(
    design: Design, n_factors: int, sigma: float, generator: np.random.Generator
) -> np.ndarray:
    """Return random factors and linear weights of 0, shape (k + 1, n_features)."""
    theta = generator.standard_normal((n_factors + 1, design.n_features), dtype=np.float32)
    theta *= np.float32(sigma)
    theta[-1] = 0.0
    return theta


def array_of_state(
    state: State, name: str, shape: tuple[int, ...], dtype: Any = np.float32
) -> np.ndarray:
    """Return an array of a checkpoint, checked.

    Raises
    ------
    ValueError
        If it is missing, of another shape, or not finite.
    """
    if name not in state:
        raise ValueError(f"start is no state of this solver: it has no {name!r}")
    array = np.asarray(state[name])
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ValueError(
            f"start does not fit the data and settings: {name} has shape {array.shape}, "
            f"expected {shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"start has NaN or infinity in {name!r}")
    return array.astype(dtype)


def iterations_done(state: State, n_iter: int) -> int:
    """Return how many iterations a checkpoint has behind it; all of them if it was over.

    Raises
    ------
    ValueError
        If it has done more than there are to be.
    """
    done = count_of_state(state, "iteration")
    if done > n_iter:
        raise ValueError(f"start has done {done} iterations already: raise n_iter={n_iter}")
    return done


def count_of_state(state: State, name: str) -> int:
    """Return a whole number of a checkpoint, at least 0."""
    value = int(array_of_state(state, name, (), np.int64))
    if value < 0:
        raise ValueError(f"start has a negative {name!r}")
    return value


def spec_weight(design: Design) -> float:
    """Return Σ w over the rows."""
    return float(design.n_rows if design.weights is None else design.weights.sum(dtype=np.float64))


def require_loss(spec: SolverSpec, losses: tuple[str, ...], solver: str) -> None:
    """Refuse a loss that a solver does not know.

    Raises
    ------
    ValueError
    """
    if spec.loss not in losses:
        raise ValueError(f"{solver} knows the losses {', '.join(losses)}, not {spec.loss!r}")
