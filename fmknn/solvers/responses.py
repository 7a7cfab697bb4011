"""What is observed, given the linear predictor: squared, probit and ordered probit responses.

The Gibbs sampler knows normal targets only. A label or a grade becomes one by data augmentation
(Albert and Chib, 1993, "Bayesian analysis of binary and polychotomous response data"): a latent
target z ~ N(score, 1), above 0 for label 1 and below for 0, between two cutpoints for a grade.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from .._checks import refuse_masked
from .._threads import run_ranges
from ..data.rows import read_only
from ..errors import DivergenceError
from .cutpoints import GradeLikelihood, cutpoints_of, draw_position, first_position
from .links import grade_bounds
from .response_kernel import latent_targets

__all__ = [
    "OrdinalResponse",
    "ProbitResponse",
    "Response",
    "SquaredResponse",
    "response_of",
]

_MAX_GRADES = 256
_NO_CUTPOINTS = read_only(np.empty(0), np.float64)
_PROBIT_CUTPOINTS = np.zeros(1)


class Response(Protocol):
    """What the Gibbs sampler asks of a loss.

    Attributes
    ----------
    fixed_precision : float or None
        Of the noise around the score; None where it is to be sampled.
    cutpoints : ndarray of float64
        As they stand, increasing. Where there are any, the first stands for the global bias.
    """

    fixed_precision: float | None

    @property
    def cutpoints(self) -> np.ndarray: ...

    def draw(
        self, scores: np.ndarray, generator: np.random.Generator, n_jobs: int | None = 1
    ) -> np.ndarray:
        """Return normal targets, float32 of shape (n,), given the scores, float64 of shape (n,)."""

    def state(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint must keep."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""


class SquaredResponse:
    """y ~ N(score, 1 / (precision · weight)): the targets are what was observed.

    Parameters
    ----------
    y : array-like of float, shape (n,)

    Examples
    --------
    >>> SquaredResponse([1.0, 2.5]).draw(np.zeros(2), np.random.default_rng(0)).tolist()
    [1.0, 2.5]
    """

    fixed_precision: float | None = None
    cutpoints = _NO_CUTPOINTS

    def __init__(self, y: Any) -> None:
        self.targets = read_only(_targets(y), np.float32)

    def draw(
        self, scores: np.ndarray, generator: np.random.Generator, n_jobs: int | None = 1
    ) -> np.ndarray:
        """Return y itself, read-only."""
        return self.targets

    def state(self) -> dict[str, np.ndarray]:
        """Return an empty dict: nothing changes from sweep to sweep."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Do nothing."""


class ProbitResponse:
    """P(y = 1) = Φ(score).

    Parameters
    ----------
    y : array-like of 0 and 1, shape (n,)

    Raises
    ------
    ValueError
        If y holds anything else.

    Examples
    --------
    >>> z = ProbitResponse([0, 1]).draw(np.array([30.0, -30.0]), np.random.default_rng(0))
    >>> (z < 0).tolist()
    [True, False]
    """

    fixed_precision: float | None = 1.0
    cutpoints = _NO_CUTPOINTS

    def __init__(self, y: Any) -> None:
        y = _targets(y)
        strange = np.flatnonzero((y != 0) & (y != 1))
        if strange.size:
            row = int(strange[0])
            raise ValueError(f"probit needs labels 0 and 1, row {row} has {y[row]:g}")
        self._codes = read_only(y, np.uint8)

    def draw(
        self, scores: np.ndarray, generator: np.random.Generator, n_jobs: int | None = 1
    ) -> np.ndarray:
        """Draw the latent targets given the scores.

        Parameters
        ----------
        scores : ndarray of float64, shape (n,)
        generator : numpy Generator
        n_jobs : int or None
            Threads; the targets do not depend on their number.

        Returns
        -------
        ndarray of float32, shape (n,)

        Raises
        ------
        DivergenceError
            If a score is not finite.
        """
        _require_finite(scores)
        return _draw_latent(scores, self._codes, _PROBIT_CUTPOINTS, generator, n_jobs)

    def state(self) -> dict[str, np.ndarray]:
        """Return an empty dict: the targets follow from the scores, nothing else changes."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Do nothing."""


class OrdinalResponse:
    """P(y ≤ grade c) = Φ(γ_c - score), the cutpoints γ sampled with the rest.

    Only differences of scores and cutpoints matter: leave the global bias at 0 (or give it a
    proper prior), since the first cutpoint stands for it.

    Parameters
    ----------
    y : array-like of float, shape (n,)
        Grades, ordered by their values.

    Attributes
    ----------
    values : ndarray of float64, shape (n_grades,)
    cutpoints : ndarray of float64, shape (n_grades - 1,)
        As last drawn.

    Raises
    ------
    ValueError
        If there are fewer than 2 grades or more than 256.

    Examples
    --------
    >>> response = OrdinalResponse([1, 2, 2, 5])
    >>> response.values.tolist()
    [1.0, 2.0, 5.0]
    >>> z = response.draw(np.zeros(4), np.random.default_rng(0))
    >>> bool((np.searchsorted(response.cutpoints, z) == [0, 1, 1, 2]).all())
    True
    """

    fixed_precision: float | None = 1.0

    def __init__(self, y: Any) -> None:
        values, codes = np.unique(_targets(y), return_inverse=True)
        self.values = values.astype(np.float64)
        if len(self.values) < 2:
            raise ValueError(
                f"an ordinal target needs at least 2 grades, y has only {self.values[0]:g}: "
                'use loss="squared"'
            )
        if len(self.values) > _MAX_GRADES:
            raise ValueError(
                f"an ordinal target has at most {_MAX_GRADES} grades, this one has "
                f'{len(self.values)}: use loss="squared", or round y'
            )
        self._codes = read_only(codes, np.uint8)
        self._likelihood = GradeLikelihood(self._codes, len(self.values))
        self._position = first_position(self._likelihood.counts)

    @property
    def cutpoints(self) -> np.ndarray:
        return cutpoints_of(self._position)

    def draw(
        self, scores: np.ndarray, generator: np.random.Generator, n_jobs: int | None = 1
    ) -> np.ndarray:
        """Draw the cutpoints given the scores, then the latent targets given both.

        Parameters
        ----------
        scores : ndarray of float64, shape (n,)
        generator : numpy Generator
        n_jobs : int or None
            Threads; what is drawn does not depend on their number.

        Returns
        -------
        ndarray of float32, shape (n,)

        Raises
        ------
        DivergenceError
            If a score is not finite.
        """
        _require_finite(scores)
        self._likelihood.use(scores)
        self._position = draw_position(self._likelihood, self._position, generator, n_jobs)
        return _draw_latent(scores, self._codes, self.cutpoints, generator, n_jobs)

    def state(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint must keep: the first cutpoint and the logs of the gaps."""
        return {"cutpoint_position": self._position.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        ValueError
            If its cutpoints are missing, not finite, or those of another number of grades.
        """
        position = state.get("cutpoint_position")
        if position is None:
            raise ValueError("the state has no cutpoints: it is not that of an ordinal training")
        position = np.array(position, np.float64)
        if position.shape != self._position.shape or not np.isfinite(position).all():
            raise ValueError(
                f"the state must have {len(self._position)} finite cutpoint positions, "
                f"it has shape {position.shape}"
            )
        self._position = position


def response_of(loss: str, y: Any, weights: Any = None) -> Response:
    """Return the response of a loss.

    Parameters
    ----------
    loss : {"squared", "probit", "ordinal"}
    y : array-like of float, shape (n,)
    weights : array-like of float, shape (n,), optional
        For "squared" only, whose solver multiplies the precision by them.

    Raises
    ------
    ValueError
        If the loss is unknown, does not fit y, or is given weights that it cannot use.

    Examples
    --------
    >>> response_of("probit", [0, 1, 1]).fixed_precision
    1.0
    """
    kinds: dict[str, Any] = {
        "squared": SquaredResponse,
        "probit": ProbitResponse,
        "ordinal": OrdinalResponse,
    }
    if loss not in kinds:
        raise ValueError(f"loss must be one of {', '.join(kinds)}, got {loss!r}")
    if weights is not None and loss != "squared":
        raise ValueError(f"weights need the squared loss: {loss} has no precision to multiply")
    return kinds[loss](y)


def _draw_latent(
    scores: np.ndarray,
    codes: np.ndarray,
    cutpoints: np.ndarray,
    generator: np.random.Generator,
    n_jobs: int | None,
) -> np.ndarray:
    lows, highs = grade_bounds(cutpoints)
    scores = read_only(scores, np.float64)
    uniforms = read_only(generator.random(len(scores)), np.float64)
    out = np.empty(len(scores), np.float32)

    def task(start: int, stop: int) -> None:
        latent_targets(scores, codes, lows, highs, uniforms, out, start, stop)

    run_ranges(task, len(scores), n_jobs)
    return out


def _require_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DivergenceError(f"training diverged: the score of row {row} is not finite")


def _targets(y: Any) -> np.ndarray:
    refuse_masked("y", y)
    y = np.asarray(y)
    if y.dtype != np.float32:  # which stays as it is: there may be little memory for another one
        y = y.astype(np.float64)
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"y must be a column of at least one target, it has shape {y.shape}")
    strange = np.flatnonzero(~np.isfinite(y))
    if strange.size:
        raise ValueError(f"y is not finite in row {strange[0]}: fill it or leave the row out")
    return y
