"""From a score to a prediction: the probit and the ordered probit link."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from .response_kernel import grade_probabilities, sums_of_tails

__all__ = ["expected_grade", "grade_bounds", "probabilities_of_grades", "probability_above"]


def probability_above(scores: Any, cutpoint: float = 0.0, n_jobs: int | None = 1) -> np.ndarray:
    """Return Φ(score - cutpoint): P(y = 1) of a probit, P(y > grade c) at an ordinal's cutpoint c.

    Parameters
    ----------
    scores : array-like of float, any shape
    cutpoint : float

    Returns
    -------
    ndarray of float64, of the same shape

    Examples
    --------
    >>> probability_above([0.0, 1.0]).round(4).tolist()
    [0.5, 0.8413]
    """
    return _sums_of_tails(scores, np.array([cutpoint]), np.ones(1), 0.0, n_jobs)


def expected_grade(scores: Any, cutpoints: Any, values: Any, n_jobs: int | None = 1) -> np.ndarray:
    """Return E[y] = values[0] + Σ_c (values[c + 1] - values[c]) Φ(score - cutpoints[c]).

    Parameters
    ----------
    scores : array-like of float, any shape
    cutpoints : array-like of float, shape (n_grades - 1,)
        Increasing.
    values : array-like of float, shape (n_grades,)

    Returns
    -------
    ndarray of float64, of the same shape
        From values[0] to values[-1], never falling as the score rises (but for rounding).

    Examples
    --------
    >>> expected_grade([-40.0, 0.0, 40.0], [-1.0, 1.0], [1.0, 2.0, 3.0]).round(3).tolist()
    [1.0, 2.0, 3.0]
    """
    values = np.asarray(values, np.float64)
    return _sums_of_tails(scores, cutpoints, np.diff(values), float(values[0]), n_jobs)


def probabilities_of_grades(scores: Any, cutpoints: Any, n_jobs: int | None = 1) -> np.ndarray:
    """Return P(y = grade c) = Φ(γ_c - score) - Φ(γ_{c-1} - score), each as exact as a large one.

    Parameters
    ----------
    scores : array-like of float, shape (n,)
    cutpoints : array-like of float, shape (n_grades - 1,)
        Increasing.

    Returns
    -------
    ndarray of float64, shape (n, n_grades)

    Examples
    --------
    >>> probabilities_of_grades([0.0], [-1.0, 1.0]).round(4).tolist()
    [[0.1587, 0.6827, 0.1587]]
    """
    scores = read_only(scores, np.float64)
    lows, highs = grade_bounds(np.asarray(cutpoints, np.float64))
    out = np.empty((len(scores), len(lows)))

    def task(start: int, stop: int) -> None:
        grade_probabilities(scores, lows, highs, out, start, stop)

    run_ranges(task, len(scores), n_jobs)
    return out


def grade_bounds(cutpoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper bound of each grade, infinite at the ends."""
    lows = np.concatenate([[-np.inf], cutpoints])
    highs = np.concatenate([cutpoints, [np.inf]])
    return read_only(lows, np.float64), read_only(highs, np.float64)


def _sums_of_tails(
    scores: Any, cutpoints: Any, weights: np.ndarray, base: float, n_jobs: int | None
) -> np.ndarray:
    scores, cutpoints = read_only(scores, np.float64), read_only(cutpoints, np.float64)
    weights, column = read_only(weights, np.float64), scores.reshape(-1)
    out = np.empty(scores.size)

    def task(start: int, stop: int) -> None:
        sums_of_tails(column, cutpoints, weights, base, out, start, stop)

    run_ranges(task, scores.size, n_jobs)
    return out.reshape(scores.shape)
