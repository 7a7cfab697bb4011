"""The sweep over features that entities share: factor by factor, on sums over each entity's rows.

For a feature l of entities e with value x, r = q_e - x v_l and o_n the sum over the other blocks'
q in row n, the row's regressor for v_l is h = x (r + o_n), so that all that a step needs of the
rows of an entity are sums (Rendle, "Scaling Factorization Machines to Relational Data", VLDB 2013,
section 4). With the row's weight w and residual ε::

    n = Σ w    c = Σ w o    C = Σ w o²    E = Σ w ε    F = Σ w ε o

It takes fewer steps to keep them as polynomials in q_e::

    P = n q² + 2 c q + C    R = n q + c    G = q E + F

    Σ w h²  = Σ_e x² P - 2 v_l x³ R + v_l² x⁴ n        Σ w h ε = Σ_e x G - v_l x² E

A step of v_l by Δ moves q_e by m = xΔ and b_e by m r, since pairs inside an entity are part of r;
with y = x v_l before it::

    E -= m (R - y n)    G -= m (P - y R) - m E    P += m (2 R + m n)    R += m n

where the E in G's step is the new one. Where an entity has the same x in all of its features, as
histories have, x can be 1: with x⁴ n, x² P, x³ R, x G and x² E in place of n, P, R, G and E.

Rows are looked at once for several factors: the sums of products of two factors say how F changes
by the steps of another one.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = [
    "finish_factor",
    "start_factor",
    "start_rows",
    "sum_rows",
    "sweep_factor",
    "sweep_linear",
]


# of an entity that has more: what is gathered of them stays in the cache. No power of 2, which
# would put all regressors into the same few places of it
_ROWS_AT_ONCE = 4000


@kernel
def start_rows(
    indptr, others, y, root_weights, first_entity, w0, q, b, residuals, squares, sums, start, stop
):
    """Write √w ε of the rows of the entities start..stop, and their Σ w ε² and Σ w ε.

    ``residuals`` (n_rows,) may be empty: then the sums alone are written.
    """
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
                other = np.uint32(others[row, column])
                other_q = q[other]
                dot = b[other]
                for f in range(n_factors):
                    dot += total[f] * other_q[f]
                score += dot
                if column + 1 < others.shape[1]:
                    for f in range(n_factors):
                        total[f] += other_q[f]
            root = root_weights[row] if len(root_weights) > 0 else np.float32(1.0)
            residual = root * (y[row] - score)
            if len(residuals) > 0:
                residuals[row] = residual
            square += residual * residual
            summed += root * residual
        squares[entity] = square
        sums[entity] = summed


@kernel
def _let_follow(first, others, root_weights, before, move, residuals):
    """Take from the residuals of an entity's rows what its own moves explain."""
    n_before = before.shape[1]
    for at in range(len(residuals)):
        drop = move[n_before]
        for column in range(others.shape[1]):
            other = before[np.uint32(others[first + at, column])]
            for f in range(n_before):
                drop += move[f] * other[f]
        if len(root_weights) > 0:
            drop *= root_weights[first + at]
        residuals[at] -= drop


@kernel
def _gather(first, others, root_weights, now, regressors, n_rows):
    """Write √w o_f of an entity's rows to ``regressors[f]``, and √w as the last one."""
    n_now = now.shape[1]
    for at in range(n_rows):
        regressors[n_now, at] = np.float32(1.0)
        other = now[np.uint32(others[first + at, 0])] if others.shape[1] > 0 else now[0]
        for f in range(n_now):
            regressors[f, at] = other[f] if others.shape[1] > 0 else np.float32(0.0)
    for column in range(1, others.shape[1]):
        for at in range(n_rows):
            other = now[np.uint32(others[first + at, column])]
            for f in range(n_now):
                regressors[f, at] += other[f]
    if len(root_weights) > 0:
        for f in range(n_now + 1):
            for at in range(n_rows):
                regressors[f, at] *= root_weights[first + at]


@kernel
def sum_rows(
    indptr, others, root_weights, before, moves, now, residuals, sums, records, squares, start, stop
):
    """Let residuals follow the moves of some factors, and sum up what the steps of others need.

    ``before`` (all entities, m) is q in the factors that have moved and ``moves`` (n_entities,
    m + 1) by how much that of the block's entities did, and their b. ``now`` (all entities, l) is
    q in the factors to come; ``sums`` (n_entities, l + 2, l) gets Σ w o_f o_g, Σ w o_f and
    Σ w ε o_f, ``records`` (n_entities, 4) E in column 3, and ``squares`` (n_entities,) Σ w ε².
    """
    n_now = now.shape[1]
    longest = 0
    for entity in range(start, stop):
        longest = max(longest, indptr[entity + 1] - indptr[entity])
    regressors = np.empty((n_now + 1, min(longest, _ROWS_AT_ONCE)), np.float32)
    for entity in range(start, stop):
        sums[entity] = np.float32(0.0)
        squares[entity] = 0.0
        records[entity, 3] = 0.0
        for first in range(indptr[entity], indptr[entity + 1], _ROWS_AT_ONCE):
            n_rows = min(_ROWS_AT_ONCE, indptr[entity + 1] - first)
            part = residuals[first : first + n_rows]
            _let_follow(first, others, root_weights, before, moves[entity], part)
            _gather(first, others, root_weights, now, regressors, n_rows)
            square, total = np.float32(0.0), np.float32(0.0)
            for at in range(n_rows):
                square += part[at] * part[at]
                total += part[at] * regressors[n_now, at]
            squares[entity] += square
            records[entity, 3] += total
            for f in range(n_now):
                own = regressors[f]
                for g in range(f, n_now + 1):
                    other_one = regressors[g]
                    product = np.float32(0.0)
                    for at in range(n_rows):
                        product += own[at] * other_one[at]
                    sums[entity, g, f] += product
                product = np.float32(0.0)
                for at in range(n_rows):
                    product += own[at] * part[at]
                sums[entity, n_now + 1, f] += product


@kernel
def start_factor(f, counts, sums, own_q, records, before):
    """Write P, R and G of the f-th of the factors that were summed up; ``own_q`` (n_entities,)."""
    n_now = sums.shape[2]
    for entity in range(len(records)):
        q, n = np.float64(own_q[entity]), counts[entity]
        c = np.float64(sums[entity, n_now, f])
        records[entity, 0] = (n * q + 2.0 * c) * q + sums[entity, f, f]
        records[entity, 1] = n * q + c
        records[entity, 2] = q * records[entity, 3] + sums[entity, n_now + 1, f]
        before[entity] = records[entity, 3]


@kernel
def finish_factor(f, counts, sums, own_q, records, before, moves):
    """Read off the records how far q and b have moved, and let the later factors' F follow."""
    n_now = sums.shape[2]
    for entity in range(len(records)):
        n = counts[entity]
        if n > 0:
            c = np.float64(sums[entity, n_now, f])
            dq = (records[entity, 1] - c) / n - own_q[entity]
            db = (before[entity] - records[entity, 3] - c * dq) / n
            moves[entity, f] = dq
            moves[entity, n_now] += db
            for g in range(f + 1, n_now):
                sums[entity, n_now + 1, g] -= sums[entity, n_now, g] * db + sums[entity, g, f] * dq


@kernel
def _sums(entities, values, records):
    """Return Σ x² P, Σ x³ R, Σ x G and Σ x² E of a feature."""
    p0, r0, g0, e0 = 0.0, 0.0, 0.0, 0.0
    p1, r1, g1, e1 = 0.0, 0.0, 0.0, 0.0
    at = 0
    while at + 1 < len(entities):  # two at a time: one sum alone would wait for itself
        record, x = records[entities[at]], np.float64(values[at])
        xx = x * x
        p0 += xx * record[0]
        r0 += xx * x * record[1]
        g0 += x * record[2]
        e0 += xx * record[3]
        record, x = records[entities[at + 1]], np.float64(values[at + 1])
        xx = x * x
        p1 += xx * record[0]
        r1 += xx * x * record[1]
        g1 += x * record[2]
        e1 += xx * record[3]
        at += 2
    if at < len(entities):
        record, x = records[entities[at]], np.float64(values[at])
        xx = x * x
        p0 += xx * record[0]
        r0 += xx * x * record[1]
        g0 += x * record[2]
        e0 += xx * record[3]
    return p0 + p1, r0 + r1, g0 + g1, e0 + e1


@kernel
def _sums_of_ones(entities, records):
    """Return Σ P, Σ R, Σ G and Σ E of a feature whose values are 1."""
    p0, r0, g0, e0 = 0.0, 0.0, 0.0, 0.0
    p1, r1, g1, e1 = 0.0, 0.0, 0.0, 0.0
    at = 0
    while at + 3 < len(entities):
        a, b = records[entities[at]], records[entities[at + 1]]
        c, d = records[entities[at + 2]], records[entities[at + 3]]
        p0 += a[0] + b[0]
        r0 += a[1] + b[1]
        g0 += a[2] + b[2]
        e0 += a[3] + b[3]
        p1 += c[0] + d[0]
        r1 += c[1] + d[1]
        g1 += c[2] + d[2]
        e1 += c[3] + d[3]
        at += 4
    while at < len(entities):
        a = records[entities[at]]
        p0 += a[0]
        r0 += a[1]
        g0 += a[2]
        e0 += a[3]
        at += 1
    return p0 + p1, r0 + r1, g0 + g1, e0 + e1


@kernel
def _follow(entities, values, counts, records, old, step):
    """Let the records follow a feature's step."""
    for at in range(len(entities)):
        entity, x = entities[at], np.float64(values[at])
        record, n = records[entity], counts[entity]
        m, y = x * step, x * old
        p, r = record[0], record[1]
        e = record[3] - m * (r - y * n)
        record[0] = p + m * (r + r + m * n)
        record[1] = r + m * n
        record[2] += m * e - m * (p - y * r)
        record[3] = e


@kernel
def _follow_ones(entities, counts, records, old, step):
    """The same where all values are 1."""
    mm, my = step * step, step * old
    for at in range(len(entities)):
        entity = entities[at]
        record, n = records[entity], counts[entity]
        p, r = record[0], record[1]
        e = record[3] - step * r + my * n
        record[0] = p + 2.0 * step * r + mm * n
        record[1] = r + step * n
        record[2] += step * e - step * p + my * r
        record[3] = e


@kernel
def sweep_factor(
    columns,
    indptr,
    entities,
    values,
    counts,
    fourths,
    records,
    factor,
    precision,
    mean,
    noise_precision,
    noise,
):
    """Step through features of a block in one factor.

    ``columns`` (m,) are where ``factor`` (p,) holds the features' parameters; ``indptr`` (m + 1,),
    ``entities`` and ``values`` the block's entity table by feature, ``values`` empty where all are
    1; ``counts`` (n_entities,) is n and ``fourths`` (m,) Σ_e x⁴ n. ``records`` (n_entities, 4) has
    P, R, G and E; ``precision`` and ``mean`` (m,) are the prior's.
    """
    are_ones = len(values) == 0
    for place in range(len(columns)):
        first, stop = indptr[place], indptr[place + 1]
        own = entities[first:stop]
        if are_ones:
            p, r, g, e = _sums_of_ones(own, records)
        else:
            p, r, g, e = _sums(own, values[first:stop], records)
        old = np.float64(factor[columns[place]])
        total = precision[place] + noise_precision * (
            p - 2.0 * old * r + old * old * fourths[place]
        )
        if not total > 0:
            continue
        step = (noise_precision * (g - old * e) - precision[place] * (old - mean[place])) / total
        if len(noise) > 0:
            step += noise[place] / np.sqrt(total)
        factor[columns[place]] = old + step
        step = np.float64(factor[columns[place]]) - old  # as it was rounded
        if are_ones:
            _follow_ones(own, counts, records, old, step)
        else:
            _follow(own, values[first:stop], counts, records, old, step)


@kernel
def sweep_linear(
    columns,
    indptr,
    entities,
    values,
    counts,
    seconds,
    records,
    linear,
    precision,
    mean,
    noise_precision,
    noise,
):
    """Step through the features of a block in their linear weights: h = x.

    ``seconds`` (m,) is Σ_e x² n; the rest as in :func:`sweep_factor`.
    """
    for place in range(len(columns)):
        he = 0.0
        for at in range(indptr[place], indptr[place + 1]):
            he += values[at] * records[entities[at], 3]
        total = precision[place] + noise_precision * seconds[place]
        if not total > 0:
            continue
        old = np.float64(linear[columns[place]])
        step = (noise_precision * he - precision[place] * (old - mean[place])) / total
        if len(noise) > 0:
            step += noise[place] / np.sqrt(total)
        linear[columns[place]] = old + step
        step = np.float64(linear[columns[place]]) - old
        for at in range(indptr[place], indptr[place + 1]):
            records[entities[at], 3] -= values[at] * step * counts[entities[at]]
