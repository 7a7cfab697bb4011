"""The sweep over one-hot entities: given the rest, each is a small regression of its own.

With q_p and b_p of the entities p of the other blocks in a row n, let o_n = Σ_p q_p. The row's
score is linear in the entity's own [v, w]: <v, o_n> + w + what does not depend on it. Each entity
gathers its rows' o_n once, works on its own residuals in cache, goes through its k + 1 coordinates
and writes its own parameters only, so that entities can be shared out to threads at will.

A coordinate θ_f with the regressor h, residuals e, noise precision α and a Gaussian prior of
precision matrix Λ and mean μ has the conditional (Rendle, "Factorization Machines with libFM", ACM
TIST 2012, section 4; the prior as in Salakhutdinov & Mnih, "Bayesian Probabilistic Matrix
Factorization using MCMC", ICML 2008)::

    precision  Λ_ff + α Σ h²
    mean       θ_f + (α Σ h e - Σ_g Λ_fg (θ_g - μ_g)) / precision

ALS takes the mean, Gibbs sampling adds noise / √precision.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["sweep_one_hot"]


@kernel
def _gather(
    first_row, others, y, root_weights, w0, q, b, own_q, own_b, total, regressors, residuals
):
    """Write the regressors and the residuals of an entity's rows, both times √weight."""
    n_factors = q.shape[1]
    for at in range(len(residuals)):
        row = first_row + at
        score = w0 + own_b
        for f in range(n_factors):
            total[f] = np.float32(0.0)
        for column in range(others.shape[1]):
            other = np.uint32(others[row, column])
            other_q = q[other]
            score += b[other]
            if column > 0:  # pairs between the other blocks
                dot = np.float32(0.0)
                for f in range(n_factors):
                    dot += total[f] * other_q[f]
                score += dot
            for f in range(n_factors):
                total[f] += other_q[f]
        dot = np.float32(0.0)
        for f in range(n_factors):
            dot += total[f] * own_q[f]
        root = root_weights[row] if len(root_weights) > 0 else np.float32(1.0)
        for f in range(n_factors):
            regressors[f, at] = root * total[f]
        regressors[n_factors, at] = root
        residuals[at] = (y[row] - score - dot) * root


@kernel
def _gather_pair(first_row, n_rows, others, y, w0, q, b, own_q, own_b, regressors, residuals):
    """The same for all rows of an entity where there are two blocks and no weights."""
    n_factors = q.shape[1]
    for at in range(n_rows):
        other = others[first_row + at, 0]
        dot = np.float32(0.0)
        for f in range(n_factors):
            value = q[other, f]
            regressors[f, at] = value
            dot += value * own_q[f]
        regressors[n_factors, at] = np.float32(1.0)
        residuals[at] = y[first_row + at] - w0 - b[other] - own_b - dot


@kernel
def sweep_one_hot(
    indptr,
    others,
    y,
    root_weights,
    first_entity,
    w0,
    q,
    b,
    precision,
    mean,
    is_correlated,
    noise_precision,
    noise,
    squares,
    sums,
    start,
    stop,
):
    """Sweep the entities start..stop of a block; see the module's text.

    ``precision`` (k + 1, k + 1) and ``mean`` (k + 1,) are the prior's; ``noise`` (n_entities,
    k + 1) standard normals, or empty for none; ``squares`` and ``sums`` get each entity's Σ w e²
    and Σ w e after its update. An entity without rows takes the prior's mean.
    """
    n_factors = q.shape[1]
    longest = 0
    for entity in range(start, stop):
        longest = max(longest, indptr[entity + 1] - indptr[entity])
    regressors = np.empty((n_factors + 1, longest), np.float32)
    residuals = np.empty(longest, np.float32)
    away = np.empty(n_factors + 1, np.float32)  # θ - μ
    other_qs = np.empty(n_factors, np.float32)
    is_pair = others.shape[1] == 1 and len(root_weights) == 0
    for entity in range(start, stop):
        first, n_rows = indptr[entity], indptr[entity + 1] - indptr[entity]
        own_q = q[first_entity + entity]
        squares[entity] = 0.0
        sums[entity] = 0.0
        if n_rows == 0:
            own_q[:] = mean[:n_factors]
            b[first_entity + entity] = mean[n_factors]
            continue
        own_b = b[first_entity + entity]
        if is_pair:
            _gather_pair(first, n_rows, others, y, w0, q, b, own_q, own_b, regressors, residuals)
        else:
            _gather(
                first,
                others,
                y,
                root_weights,
                w0,
                q,
                b,
                own_q,
                own_b,
                other_qs,
                regressors,
                residuals[:n_rows],
            )
        for f in range(n_factors):
            away[f] = own_q[f] - mean[f]
        away[n_factors] = own_b - mean[n_factors]
        step = np.float32(0.0)
        for f in range(n_factors + 1):
            h = regressors[f]
            before = regressors[f - 1] if f > 0 else h
            he = np.float32(0.0)
            hh = np.float32(0.0)
            for at in range(n_rows):
                residual = residuals[at] - before[at] * step  # of the coordinate before
                residuals[at] = residual
                he += h[at] * residual
                hh += h[at] * h[at]
            pull = precision[f, f] * away[f]
            if is_correlated:
                pull = np.float32(0.0)
                for g in range(n_factors + 1):
                    pull += precision[f, g] * away[g]
            total = precision[f, f] + noise_precision * hh
            step = np.float32(0.0)
            if total > 0:
                step = (noise_precision * he - pull) / total
                if len(noise) > 0:
                    step += noise[entity, f] / np.sqrt(total)
            away[f] += step
            if f < n_factors:
                own_q[f] += step
            else:
                b[first_entity + entity] = own_b + step
        last = regressors[n_factors]
        square = np.float32(0.0)
        total_residual = np.float32(0.0)
        for at in range(n_rows):
            residual = residuals[at] - last[at] * step
            square += residual * residual
            total_residual += last[at] * residual
        squares[entity] = square
        sums[entity] = total_residual
