"""Compiled projection and scoring. Sums run in float64 and in a fixed order."""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["add_part", "entity_vectors", "score_rows"]


@kernel
def entity_vectors(indptr, indices, values, w, V, q_out, b_out, start, stop):
    """Write q_e and b_e of the entities start..stop (Notes of ``FMParams.project``)."""
    n_factors = V.shape[1]
    q = np.empty(n_factors, np.float64)
    pairs = np.empty(n_factors, np.float64)
    for e in range(start, stop):
        q[:] = 0.0
        pairs[:] = 0.0
        bias = 0.0
        for p in range(indptr[e], indptr[e + 1]):
            j = np.uint32(indices[p])
            x, v = np.float64(values[p]), V[j]
            bias += x * w[j]
            # <x v_j, sum of the features before>: no difference of squares, so nothing cancels
            for f in range(n_factors):
                pairs[f] += x * v[f] * q[f]
                q[f] += x * v[f]
        for f in range(n_factors):
            q_out[e, f] = q[f]
            bias += pairs[f]
        b_out[e] = bias


@kernel
def score_rows(index, q, b, w0, out, start, stop):
    """Write w0 + sum_g b_g + sum_{g<h} <q_g, q_h> of the rows start..stop."""
    n_blocks = index.shape[1]
    n_factors = q.shape[1]
    total = np.empty(n_factors, np.float64)
    for row in range(start, stop):
        total[:] = 0.0
        score = w0
        for g in range(n_blocks):
            e = index[row, g]
            score += b[e]
            # <q_g, sum of the blocks before>: no difference of squares, so nothing cancels
            for f in range(n_factors):
                score += q[e, f] * total[f]
                total[f] += q[e, f]
        out[row] = score


@kernel
def add_part(q, b, scale, total, offset, start, stop):
    """Add one block's entities to queries: offset += b + <total, q>, total += scale * q."""
    n_factors = q.shape[1]
    for row in range(start, stop):
        pair = 0.0
        for f in range(n_factors):
            pair += q[row, f] * total[row, f]
            total[row, f] += scale * q[row, f]
        offset[row] += b[row] + pair
