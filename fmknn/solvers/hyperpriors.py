"""Priors that are drawn from the parameters they are the priors of: the hierarchy of Bayesian FMs.

Two kinds, for the n vectors θ = [v, w] of a column group's features:

* independent, as in libFM (Rendle, "Factorization Machines with libFM", ACM TIST 2012, section
  4.4): μ_f | λ_f ~ N(0, 1/λ_f), λ_f ~ Γ(½, ½) for each coordinate;
* with full covariance, the Normal-Wishart of Bayesian matrix factorization (Salakhutdinov & Mnih,
  ICML 2008, section 3.2) with W0 = I, ν0 = k + 1, β0 = 2, μ0 = 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.rows import read_only
from .chain_block import Prior
from .hyperprior_kernel import add_products

__all__ = ["draw_noise_precision", "draw_prior", "fixed_prior"]

_BETA0 = 2.0
_ROWS_AT_ONCE = 65536


def draw_noise_precision(square: float, n_rows: int, generator: np.random.Generator) -> float:
    """Draw α ~ Γ((1 + n)/2, (1 + Σ w e²)/2), whose prior is Γ(½, ½).

    Each of the n rows has the precision α w: a factor common to all weights goes into α.
    """
    return float(generator.gamma(0.5 * (1.0 + n_rows)) / (0.5 * (1.0 + square)))


def draw_prior(
    theta: np.ndarray, correlated: bool, before: Prior, generator: np.random.Generator
) -> Prior:
    """Draw the prior of a group from its conditional, given its features' parameters.

    Parameters
    ----------
    theta : ndarray of float32 or float64, shape (n, k + 1)
    correlated : bool
        Whether coordinates may be correlated.
    before : Prior
        The one it replaces: λ is drawn given its mean.
    generator : Generator
    """
    if correlated:
        return _draw_normal_wishart(theta, generator)
    n, dim = theta.shape
    away = before.mean**2
    for part in _parts(theta):
        away = away + ((part - before.mean) ** 2).sum(axis=0)
    precision = generator.gamma(0.5 * (n + 2.0), size=dim) / (0.5 * (1.0 + away))
    spread = 1.0 / np.sqrt((n + 1.0) * precision)
    mean = _total(theta) / (n + 1.0) + generator.standard_normal(dim) * spread
    return Prior(np.diag(precision), mean, False)


def _draw_normal_wishart(theta: np.ndarray, generator: np.random.Generator) -> Prior:
    n, dim = theta.shape
    mean = _total(theta) / max(n, 1)
    scatter = np.zeros((dim, dim))  # not by BLAS, whose order depends on its threads
    add_products(read_only(theta, np.float32), mean, scatter)
    scatter += np.tril(scatter, -1).T
    scale = np.eye(dim) + scatter + _BETA0 * n / (_BETA0 + n) * np.outer(mean, mean)
    precision = _draw_wishart(scale, dim + n, generator)
    spread = _lower((_BETA0 + n) * precision)
    noise = np.linalg.solve(spread.T, generator.standard_normal(dim))
    return Prior(precision, n / (_BETA0 + n) * mean + noise, True)


def _draw_wishart(
    inverse_scale: np.ndarray, degrees: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw from W(inverse_scale⁻¹, degrees) by Bartlett's decomposition."""
    dim = len(inverse_scale)
    # Λ = T⁻ᵀ A Aᵀ T⁻¹ with T Tᵀ = W⁻¹: no inverse is formed
    bartlett = np.tril(generator.standard_normal((dim, dim)), -1)
    bartlett[np.diag_indices(dim)] = np.sqrt(generator.chisquare(degrees - np.arange(dim)))
    root = np.linalg.solve(_lower(inverse_scale).T, bartlett)
    return root @ root.T


def _parts(theta: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows in float64, some at a time: there may be little memory for all of them."""
    for start in range(0, len(theta), _ROWS_AT_ONCE):
        yield theta[start : start + _ROWS_AT_ONCE].astype(np.float64)


def _total(theta: np.ndarray) -> np.ndarray:
    total = np.zeros(theta.shape[1])
    for part in _parts(theta):
        total += part.sum(axis=0)
    return total


def _lower(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.cholesky(0.5 * (matrix + matrix.T))


def fixed_prior(l2_linear: float, l2_factors: float, n_factors: int) -> Prior:
    """Return the prior that ridge penalties l2 / 2 · θ² amount to, at noise precision 1."""
    ridge = np.append(np.full(n_factors, l2_factors), l2_linear)
    return Prior(np.diag(ridge), np.zeros(n_factors + 1), False)
