"""Sums over the parameters of a group, in a fixed order."""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["add_products"]


@kernel
def add_products(theta, center, products):
    """Add Σ_n (θ_nf - c_f)(θ_ng - c_g) to the lower triangle, in a fixed order."""
    dim = theta.shape[1]
    away = np.empty(dim, np.float64)
    for row in range(len(theta)):
        for f in range(dim):
            away[f] = theta[row, f] - center[f]
        for f in range(dim):
            for g in range(f + 1):
                products[f, g] += away[f] * away[g]
