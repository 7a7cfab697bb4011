"""The sweep over one-hot entities under the whole-data loss: some coordinates of each at a time.

An entity's score with a row n of another side is linear in its own θ = [v, w]: h_n = [o_n, 1] is
the regressor, o_n the sum of the other blocks' vectors. With the residuals e of the observed rows,
the Gram matrix J = α0 Σ h hᵀ over all pairs, g = α0 Σ ŷ h their gradient, and the penalty λ, the
exact minimiser of a coordinate given the rest is one step of::

    (Σ_observed w h_f e - g_f - λ θ_f) / (Σ_observed w h_f² + J_ff + λ)

after which e and g follow. All pairs cost nothing but J, which the entities share (Hu, Koren &
Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; by coordinates:
Bayer et al., "A Generic Coordinate Descent Framework for Learning from Implicit Feedback", WWW
2017; some at a time: Rendle et al., "iALS++", 2021). What takes time is to gather the rows: so the
coordinates are gone through more than once while they are in the cache, and soon solve the row.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["sweep_pairs"]


@kernel
def _gather(others, first, q, f0, regressors):
    """Write the sum of the others' q from the factor f0 on: a row for each factor."""
    n_factors, n_rows = regressors.shape
    at = 0
    while at + 8 <= n_rows:  # eight rows at once: a transposition goes by tiles
        row = first + at
        a, b = q[np.uint32(others[row, 0])], q[np.uint32(others[row + 1, 0])]
        c, d = q[np.uint32(others[row + 2, 0])], q[np.uint32(others[row + 3, 0])]
        e, g = q[np.uint32(others[row + 4, 0])], q[np.uint32(others[row + 5, 0])]
        h, i = q[np.uint32(others[row + 6, 0])], q[np.uint32(others[row + 7, 0])]
        for f in range(n_factors):
            out = regressors[f]
            out[at], out[at + 1] = a[f0 + f], b[f0 + f]
            out[at + 2], out[at + 3] = c[f0 + f], d[f0 + f]
            out[at + 4], out[at + 5] = e[f0 + f], g[f0 + f]
            out[at + 6], out[at + 7] = h[f0 + f], i[f0 + f]
        at += 8
    while at < n_rows:
        a = q[np.uint32(others[first + at, 0])]
        for f in range(n_factors):
            regressors[f, at] = a[f0 + f]
        at += 1
    for column in range(1, others.shape[1]):
        for at in range(n_rows):
            a = q[np.uint32(others[first + at, column])]
            for f in range(n_factors):
                regressors[f, at] += a[f0 + f]


@kernel
def sweep_pairs(
    indptr,
    others,
    root_weights,
    first_entity,
    q,
    b,
    f0,
    n_factors,
    has_bias,
    gram,
    gradients,
    penalties,
    n_passes,
    residuals,
    squares,
    start,
    stop,
):
    """Go ``n_passes`` times through the coordinates f0, f0 + 1, … of the entities start..stop.

    They are ``n_factors`` factors and, if ``has_bias``, the linear weight: m in all. ``gram``
    (m, m) is J and ``gradients`` (n_entities, m) g as they stand; ``penalties`` (2, n_entities)
    are those of factors and of the linear weight. ``residuals`` (n_rows,) √w e follow; ``squares``
    (n_entities,) gets Σ w e².
    """
    n = n_factors + 1 if has_bias else n_factors
    longest = 0
    for entity in range(start, stop):
        longest = max(longest, indptr[entity + 1] - indptr[entity])
    gathered = np.empty(n * longest, np.float32)
    moved = np.empty(n, np.float32)
    own_squares = np.empty(n, np.float32)
    for entity in range(start, stop):
        first, n_rows = indptr[entity], indptr[entity + 1] - indptr[entity]
        regressors = gathered[: n * n_rows].reshape(n, n_rows)
        _gather(others, first, q, f0, regressors[:n_factors])
        if has_bias:
            regressors[n_factors] = np.float32(1.0)
        if len(root_weights) > 0:
            for f in range(n):
                for at in range(n_rows):
                    regressors[f, at] *= root_weights[first + at]
        own = residuals[first : first + n_rows]
        own_q = q[first_entity + entity]
        moved[:] = np.float32(0.0)
        last, step = 0, np.float32(0.0)
        for number in range(n_passes):
            for f in range(n):
                h, before = regressors[f], regressors[last]
                he = np.float32(0.0)
                if number == 0:
                    hh = np.float32(0.0)
                    for at in range(n_rows):
                        residual = own[at] - before[at] * step  # of the coordinate before
                        own[at] = residual
                        he += h[at] * residual
                        hh += h[at] * h[at]
                    own_squares[f] = hh
                else:
                    for at in range(n_rows):
                        residual = own[at] - before[at] * step
                        own[at] = residual
                        he += h[at] * residual
                gradient = gradients[entity, f]
                for g in range(n):
                    gradient += gram[f, g] * moved[g]
                is_bias = f == n_factors
                old = b[first_entity + entity] if is_bias else own_q[f0 + f]
                penalty = penalties[1, entity] if is_bias else penalties[0, entity]
                total = own_squares[f] + gram[f, f] + penalty
                step = np.float32(0.0)
                if total > 0:
                    step = (he - gradient - penalty * old) / total
                moved[f] += step
                if is_bias:
                    b[first_entity + entity] = old + step
                else:
                    own_q[f0 + f] = old + step
                last = f
        square = np.float32(0.0)
        before = regressors[last]
        for at in range(n_rows):
            residual = own[at] - before[at] * step
            own[at] = residual
            square += residual * residual
        squares[entity] = square
