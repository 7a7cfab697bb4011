"""Cutpoints of the ordered probit, drawn with the latent targets integrated out.

Given the latent targets they would hardly move: each is wedged between the targets of two grades
(Cowles, 1996, "Accelerating Monte Carlo Markov chain convergence for cumulative-link generalized
linear models"). So the cutpoints are drawn first, and new latent targets follow from them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from .response_kernel import BLOCK, grade_sums

__all__ = [
    "Curve",
    "GradeLikelihood",
    "cutpoints_of",
    "draw_position",
    "first_position",
    "log_posterior",
    "position_of",
]

_DEGREES = 5.0  # of the t proposal: its tails are heavier than the posterior's
_FIRST_SD, _LOG_GAP_SD = 5.0, 2.0  # the normal priors of the first cutpoint and the log gaps
_LIMITS = (1e4, 20.0)  # where these priors end, so that no product overflows
_SETTLED = 3e-5  # of a Newton step, where noise has deviation 1: the next would move by its square
_MAX_STEPS = 100


class Curve(NamedTuple):
    """A function at a point.

    Attributes
    ----------
    value : float
    gradient : ndarray of float64, shape (d,)
    curvature : ndarray of float64, shape (d, d)
        Minus the matrix of second derivatives.
    """

    value: float
    gradient: np.ndarray
    curvature: np.ndarray


class GradeLikelihood:
    """log P(grades | scores, cutpoints) = Σ log(Φ(γ_y - score) - Φ(γ_{y-1} - score)).

    Parameters
    ----------
    codes : ndarray of uint8, shape (n,)
        Each row's grade, 0 the lowest.
    n_grades : int

    Examples
    --------
    >>> likelihood = GradeLikelihood(np.array([0, 1], np.uint8), 2)
    >>> round(likelihood.at(np.array([0.0])).value, 6)  # 2 log(1/2), before any scores are given
    -1.386294
    """

    def __init__(self, codes: np.ndarray, n_grades: int) -> None:
        self.counts = np.bincount(codes, minlength=n_grades)
        self._order = np.argsort(codes, kind="stable")
        edges = np.concatenate([[0], np.cumsum(self.counts)])
        starts = [np.arange(a, b, BLOCK) for a, b in pairwise(edges)]
        self._grades = np.repeat(np.arange(n_grades), [len(start) for start in starts])
        self._bounds = read_only(np.concatenate([*starts, [len(codes)]]), np.int64)
        self._scores = read_only(np.zeros(len(codes)), np.float64)

    def use(self, scores: np.ndarray) -> None:
        """Take the scores, float64 of shape (n,), at which the cutpoints are to be judged."""
        self._scores = read_only(scores[self._order], np.float64)

    def at(self, cutpoints: np.ndarray, n_jobs: int | None = 1) -> Curve:
        """Return the log-likelihood and its derivatives by the cutpoints, (n_grades - 1,)."""
        lows = np.concatenate([[-np.inf], cutpoints])
        highs = np.concatenate([cutpoints, [np.inf]])
        block_lows = read_only(lows[self._grades], np.float64)
        block_highs = read_only(highs[self._grades], np.float64)
        sums = np.empty((len(self._grades), 6))

        def task(start: int, stop: int) -> None:
            grade_sums(self._scores, self._bounds, block_lows, block_highs, sums, start, stop)

        run_ranges(task, len(sums), n_jobs)
        value, low, high, low_low, high_high, low_high = (
            np.bincount(self._grades, column, len(lows)) for column in sums.T
        )
        curvature = np.diag(-high_high[:-1] - low_low[1:])
        between = np.arange(len(cutpoints) - 1)
        curvature[between, between + 1] = curvature[between + 1, between] = -low_high[1:-1]
        return Curve(float(value.sum()), high[:-1] + low[1:], curvature)


def first_position(counts: np.ndarray) -> np.ndarray:
    """Return where to begin: cutpoints that explain the shares of the grades at scores of 0."""
    from scipy.special import ndtri

    below = np.cumsum(counts + 0.5)
    return position_of(ndtri(below[:-1] / below[-1]))


def position_of(cutpoints: np.ndarray) -> np.ndarray:
    """Return the position of cutpoints: the first one, and the logs of the gaps between them.

    Examples
    --------
    >>> position_of(cutpoints_of(np.array([-1.0, 0.5]))).tolist()
    [-1.0, 0.5]
    """
    return np.concatenate([cutpoints[:1], np.log(np.diff(cutpoints))])


def cutpoints_of(position: np.ndarray) -> np.ndarray:
    """Return the cutpoints γ_1, γ_1 + e^δ_2, γ_1 + e^δ_2 + e^δ_3 ... of (γ_1, δ_2, δ_3 ...).

    Examples
    --------
    >>> cutpoints_of(np.array([-1.0, 0.0, np.log(2.0)])).tolist()
    [-1.0, 0.0, 2.0]
    """
    return np.cumsum(np.concatenate([position[:1], np.exp(position[1:])]))


def log_posterior(
    likelihood: GradeLikelihood, position: np.ndarray, n_jobs: int | None = 1
) -> Curve:
    """Return the log posterior density of a position, up to a constant, and its derivatives.

    γ_1 is normal around 0 with deviation 5, each log gap with deviation 2. Where the curvature
    would not be positive definite, it leaves out what the gaps' own curvature adds.
    """
    by_cutpoint = likelihood.at(cutpoints_of(position), n_jobs)
    precision = np.full(len(position), _LOG_GAP_SD**-2)
    precision[0] = _FIRST_SD**-2
    jacobian = np.tril(np.ones((len(position), len(position))))
    jacobian[:, 1:] *= np.exp(position[1:])
    by_gap = jacobian.T @ by_cutpoint.gradient
    bend = np.diag(np.concatenate([[0.0], by_gap[1:]]))
    safe = jacobian.T @ by_cutpoint.curvature @ jacobian + np.diag(precision)
    return Curve(
        by_cutpoint.value - 0.5 * float(precision @ position**2),
        by_gap - precision * position,
        safe - bend if _is_definite(safe - bend) else safe,
    )


def draw_position(
    likelihood: GradeLikelihood,
    position: np.ndarray,
    generator: np.random.Generator,
    n_jobs: int | None = 1,
) -> np.ndarray:
    """Draw the next position by an independence step of Metropolis and Hastings.

    The proposal is a multivariate t with 5 degrees of freedom at the posterior's mode, shaped as
    the posterior is there; it depends on the scores alone, not on where the chain stands.
    """
    here = log_posterior(likelihood, position, n_jobs)
    mode, curvature = _find_mode(likelihood, position, here, n_jobs)
    factor = np.linalg.cholesky(curvature)
    normals = generator.standard_normal(len(position))
    stretch = np.sqrt(_DEGREES / generator.chisquare(_DEGREES))
    log_uniform = np.log1p(-generator.random())
    proposed = mode + stretch * np.linalg.solve(factor.T, normals)
    there = _within_limits(likelihood, proposed, n_jobs)
    if there is None:
        return position

    def log_proposal(point: np.ndarray) -> float:
        distance = np.square(factor.T @ (point - mode)).sum()
        return float(-0.5 * (_DEGREES + len(point)) * np.log1p(distance / _DEGREES))

    gain = there.value - here.value + log_proposal(position) - log_proposal(proposed)
    return proposed if log_uniform < gain else position


def _find_mode(
    likelihood: GradeLikelihood, position: np.ndarray, here: Curve, n_jobs: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Climb to the mode by Newton's method, halving steps that do not climb."""
    for _ in range(_MAX_STEPS):
        step = np.linalg.solve(here.curvature, here.gradient)
        if np.abs(step).max() <= _SETTLED:
            return position + step, here.curvature
        while True:
            there = _within_limits(likelihood, position + step, n_jobs)
            if there is not None and there.value >= here.value:
                break
            step = 0.5 * step
            if np.abs(step).max() <= _SETTLED:  # rounding hides the climb
                return position, here.curvature
        position, here = position + step, there
    return position, here.curvature


def _within_limits(
    likelihood: GradeLikelihood, position: np.ndarray, n_jobs: int | None
) -> Curve | None:
    if abs(position[0]) > _LIMITS[0] or (np.abs(position[1:]) > _LIMITS[1]).any():
        return None
    return log_posterior(likelihood, position, n_jobs)


def _is_definite(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
