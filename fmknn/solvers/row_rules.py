"""What the own parameters of an id minimise, given all others: how somebody new is folded in.

With everything else held fixed a factorization machine is linear in the parameters θ = [v, w] of
one id, so that a squared loss has its minimum in closed form: the update of a row in alternating
least squares (Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM
2008, section 4). A rule says what is summed; see :mod:`fmknn.serving.row_solver` for the sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

__all__ = ["RowRule", "SquaredRow", "WholeDataRow", "rule_of_state"]

Ids = Callable[[], np.ndarray]

_LEAST_SPREAD = 1e-6  # of a factor's variance, relative to the largest one
_LARGEST = 1e100  # with numbers of float32 it makes none beyond float64
_LEAST_NOISE = 1e-150  # what float32 can tell apart has more


class RowRule(Protocol):
    """The minimum of Σ_observed w (y - ŷ)² + α0 Σ_all ŷ² + growth · (θ - μ)ᵀ Λ (θ - μ)."""

    @property
    def needs_values(self) -> bool:
        """Whether a history must say more than whom it is with."""

    @property
    def alpha0(self) -> float:
        """Weight of all pairs."""

    @property
    def biases(self) -> bool:
        """Whether θ has a w."""

    def observed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights w and targets y of what was observed, both float64 (n,)."""
        ...

    def prior(self, n_factors: int, ids: Ids) -> tuple[np.ndarray, np.ndarray]:
        """Return μ (k + 1,) and Λ (k + 1, k + 1); ``ids`` gives θ (n, k + 1) of training's ids."""
        ...

    def growth(self, weight: float, n_partners: int) -> float:
        """Return what Λ is multiplied with where so much was observed, among so many pairs."""
        ...

    def to_state(self) -> dict[str, Any]:
        """Return JSON values for :func:`rule_of_state`."""
        ...


@dataclasses.dataclass(frozen=True)
class WholeDataRow:
    """The rule of the whole-data loss: its settings are those of :class:`fmknn.WholeData`.

    Attributes
    ----------
    alpha0 : float
        The weight of each pair that the training had.
    l2_factors, l2_linear, nu, count_power : float
    biases : bool
    """

    needs_values: ClassVar[bool] = False  # counts, each 1 where none are given

    alpha0: float
    l2_factors: float
    l2_linear: float
    nu: float
    count_power: float
    biases: bool

    def observed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and targets of pairs that occur so often."""
        return values**self.count_power, np.ones(len(values))

    def prior(self, n_factors: int, ids: Ids) -> tuple[np.ndarray, np.ndarray]:
        """Return mean 0 and the penalties."""
        return _ridge(n_factors, self.l2_factors, self.l2_linear)

    def growth(self, weight: float, n_partners: int) -> float:
        """Return (Σ w + α0 · n_partners)^ν."""
        return float((weight + self.alpha0 * n_partners) ** self.nu)

    def to_state(self) -> dict[str, Any]:
        """Return JSON values for :func:`rule_of_state`."""
        return {"loss": "whole-data", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class SquaredRow:
    """The rule of the squared loss: a ridge regression on the values.

    Attributes
    ----------
    noise_variance : float
        Of the values; 1 where penalties are given.
    l2_factors, l2_linear : float or None
        Penalties on the values' own scale. None: the prior is Normal, with mean and covariance of
        the training's ids, in place of hyperparameters that were drawn.
    """

    needs_values: ClassVar[bool] = True
    alpha0: ClassVar[float] = 0.0
    biases: ClassVar[bool] = True

    noise_variance: float
    l2_factors: float | None = None
    l2_linear: float | None = None

    def observed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the precision of each value, and the values."""
        return np.full(len(values), 1.0 / self.noise_variance), values

    def prior(self, n_factors: int, ids: Ids) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and precision, those of the ids where no penalties are given."""
        if self.l2_factors is None or self.l2_linear is None:
            return _empirical(ids())
        return _ridge(n_factors, self.l2_factors, self.l2_linear)

    def growth(self, weight: float, n_partners: int) -> float:
        """Return 1: penalties do not grow with the rows."""
        return 1.0

    def to_state(self) -> dict[str, Any]:
        """Return JSON values for :func:`rule_of_state`."""
        return {"loss": "squared", **dataclasses.asdict(self)}


def rule_of_state(state: Mapping[str, Any]) -> WholeDataRow | SquaredRow:
    """Rebuild a rule, trusting nothing.

    Raises
    ------
    ValueError
        Naming what is out of range.

    Examples
    --------
    >>> rule_of_state(SquaredRow(0.5).to_state())
    SquaredRow(noise_variance=0.5, l2_factors=None, l2_linear=None)
    """
    rules: dict[str, Any] = {"whole-data": WholeDataRow, "squared": SquaredRow}
    settings = dict(state)
    rule = rules[settings.pop("loss")](**settings)
    optional = ("l2_factors", "l2_linear") if isinstance(rule, SquaredRow) else ()
    if sum(settings[name] is None for name in optional) == 1:
        raise ValueError("the rule of new rows has one penalty of two")
    for name, value in settings.items():
        if name == "biases":
            if not isinstance(value, bool):
                raise ValueError(f"biases of new rows must be True or False, got {value!r}")
            continue
        if value is None and name in optional:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        most = 1.0 if name in ("nu", "count_power") else _LARGEST
        if not number or not 0 <= value <= most:
            raise ValueError(
                f"{name} of new rows must be a number from 0 to {most:g}, got {value!r}"
            )
    if isinstance(rule, SquaredRow) and rule.noise_variance < _LEAST_NOISE:
        raise ValueError("the noise of new rows must have a variance above 0")
    return rule


def _ridge(n_factors: int, l2_factors: float, l2_linear: float) -> tuple[np.ndarray, np.ndarray]:
    penalties = np.append(np.full(n_factors, float(l2_factors)), l2_linear)
    return np.zeros(n_factors + 1), np.diag(penalties)


def _empirical(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and precision of ids.

    The covariance is drawn towards its diagonal as by as many ids as it has rows, so that few ids
    have one that can be inverted.
    """
    n, dim = theta.shape
    mean = theta.mean(axis=0)
    away = theta - mean
    covariance = away.T @ away / n
    variances = np.diag(covariance)
    of_factors = variances[:-1].max(initial=0.0)  # w has other units
    least = np.append(np.full(dim - 1, _LEAST_SPREAD * of_factors), 0.0)
    variances = np.maximum(variances, least)
    variances = np.where(variances > 0, variances, 1.0)
    shrunk = (n * covariance + dim * np.diag(variances)) / (n + dim)
    return mean, np.linalg.inv(shrunk)
