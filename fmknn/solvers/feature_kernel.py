"""The sweep over features that entities share: factor by factor, on sums over each entity's rows.

For a feature l of entities e with value x, r = q_e - x v_l and o_n the sum over the other blocks'
q in row n, the row's regressor for v_l is h = x (r + o_n). So all that a step needs of the rows of
an entity are five sums, for one factor at a time (Rendle, "Scaling Factorization Machines to
Relational Data", VLDB 2013, section 4)::

    n = Σ w    c = Σ w o    C = Σ w o²    E = Σ w e    F = Σ w e o
    Σ w h²  = Σ_e x² (n r² + 2 c r + C)        Σ w h e = Σ_e x (r E + F)

and they follow a step Δ without looking at rows: E -= xΔ (r n + c), F -= xΔ (r c + C). Pairs
inside an entity are part of r, so that b_e moves by xΔ r. The rows' residuals follow once per
factor.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["advance_rows", "start_rows", "sweep_factor", "sweep_linear"]


@kernel
def start_rows(
    indptr, others, y, root_weights, first_entity, w0, q, b, residuals, squares, sums, start, stop
):
    """Write the residuals of the rows of the entities start..stop, and their Σ w e² and Σ w e."""
    n_factors = q.shape[1]
    total = np.empty(n_factors, np.float32)
    for entity in range(start, stop):
        square, summed = 0.0, 0.0
        own_q, own_b = q[first_entity + entity], b[first_entity + entity]
        for row in range(indptr[entity], indptr[entity + 1]):
            score = w0 + own_b
            for f in range(n_factors):
                total[f] = own_q[f]
            for column in range(others.shape[1]):
                other = others[row, column]
                score += b[other]
                for f in range(n_factors):
                    score += total[f] * q[other, f]
                    total[f] += q[other, f]
            residual = y[row] - score
            residuals[row] = residual
            weight = root_weights[row] ** 2 if len(root_weights) > 0 else np.float32(1.0)
            square += weight * residual * residual
            summed += weight * residual
        squares[entity] = square
        sums[entity] = summed


@kernel
def advance_rows(
    indptr, others, root_weights, q_before, q_now, own_q, residuals, records, squares, start, stop
):
    """Let residuals follow the last factor's changes, and gather what the next one's steps need.

    ``records`` (n_entities, 8) has an entity's n, c, C, E, F, its q in the factor, the change of
    its q, and of its b; the changes are read and made 0 again. ``q_before`` (all entities,) is the
    last factor of the other blocks, ``q_now`` the next one and ``own_q`` (n_entities,) the block's
    own; ``squares`` (n_entities,) gets Σ w e².
    """
    for entity in range(start, stop):
        record = records[entity]
        dq, db = record[6], record[7]
        n, c, cc, e, eo, ee = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(indptr[entity], indptr[entity + 1]):
            before, now = np.float32(0.0), np.float32(0.0)
            for column in range(others.shape[1]):
                before += q_before[others[row, column]]
                now += q_now[others[row, column]]
            residual = residuals[row] - db - dq * before
            residuals[row] = residual
            weight = root_weights[row] ** 2 if len(root_weights) > 0 else np.float32(1.0)
            n += weight
            c += weight * now
            cc += weight * now * now
            e += weight * residual
            eo += weight * residual * now
            ee += weight * residual * residual
        record[0] = n
        record[1] = c
        record[2] = cc
        record[3] = e
        record[4] = eo
        record[5] = own_q[entity]
        record[6] = 0.0
        record[7] = 0.0
        squares[entity] = ee


@kernel
def sweep_factor(
    columns, indptr, entities, values, records, factor, precision, mean, noise_precision, noise
):
    """Step through the features of a block in one factor.

    ``columns`` (m,) are where ``factor`` (p,) holds the features' parameters; ``indptr``,
    ``entities`` and ``values`` the block's entity table by feature. ``records`` are those of
    :func:`advance_rows`; ``precision`` and ``mean`` (m,) the prior's.
    """
    for place in range(len(columns)):
        old = factor[columns[place]]
        hh, he = 0.0, 0.0
        for at in range(indptr[place], indptr[place + 1]):
            record, x = records[entities[at]], values[at]
            r = record[5] - x * old
            hh += x * x * ((record[0] * r + np.float32(2.0) * record[1]) * r + record[2])
            he += x * (r * record[3] + record[4])
        total = precision[place] + noise_precision * hh
        if not total > 0:
            continue
        step = (noise_precision * he - precision[place] * (old - mean[place])) / total
        if len(noise) > 0:
            step += noise[place] / np.sqrt(total)
        step = np.float32(step)
        factor[columns[place]] = old + step
        for at in range(indptr[place], indptr[place + 1]):
            record, x = records[entities[at]], values[at]
            r = record[5] - x * old
            move = x * step
            record[3] -= move * (r * record[0] + record[1])
            record[4] -= move * (r * record[1] + record[2])
            record[5] += move
            record[6] += move
            record[7] += move * r


@kernel
def sweep_linear(
    columns, indptr, entities, values, records, linear, precision, mean, noise_precision, noise
):
    """Step through the features of a block in their linear weights; as :func:`sweep_factor`."""
    for place in range(len(columns)):
        old = linear[columns[place]]
        hh, he = 0.0, 0.0
        for at in range(indptr[place], indptr[place + 1]):
            record, x = records[entities[at]], values[at]
            hh += x * x * record[0]
            he += x * record[3]
        total = precision[place] + noise_precision * hh
        if not total > 0:
            continue
        step = (noise_precision * he - precision[place] * (old - mean[place])) / total
        if len(noise) > 0:
            step += noise[place] / np.sqrt(total)
        step = np.float32(step)
        linear[columns[place]] = old + step
        for at in range(indptr[place], indptr[place + 1]):
            record, x = records[entities[at]], values[at]
            record[3] -= x * step * record[0]
            record[7] += x * step
