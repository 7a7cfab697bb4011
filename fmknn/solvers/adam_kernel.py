"""The compiled epoch of the Adam solver.

A batch is done in three passes. (1) Over its rows: score each from its entities' vectors and
collect the gradient per entity, dL/dq_e = Σ err (s - q_e) and dL/db_e = Σ err, with s the sum of
the row's entity vectors. (2) Over the entities touched: the chain rule down to features,
dL/dv_p = x_p dL/dq_e + dL/db_e x_p (q_e - x_p v_p). (3) Over the features touched: the update.
So a feature that many rows share costs once per entity, not once per row.
"""

from __future__ import annotations

import math

import numpy as np

from .._numba import kernel

__all__ = ["LOGISTIC", "SQUARED", "adam_epoch"]

SQUARED = 0
LOGISTIC = 1


@kernel
def _loss_and_slope(loss, score, y):
    """Loss of a row and its derivative by the score."""
    if loss == SQUARED:
        error = score - y
        return 0.5 * error * error, error
    # log(1 + exp(score)) - y score, without overflow on either side
    small = math.exp(-abs(score))
    value = max(score, 0.0) + math.log1p(small) - y * score
    probability = 1.0 / (1.0 + small) if score >= 0 else small / (1.0 + small)
    return value, probability - y


@kernel
def _load_entity(e, slot, indptr, indices, values, w, V, q, b):
    """Write the vector and bias of entity e into its slot."""
    n_factors = V.shape[1]
    first, last = indptr[e], indptr[e + 1]
    bias = np.float32(0.0)
    squares = np.float32(0.0)
    for f in range(n_factors):
        q[slot, f] = 0.0
    for p in range(first, last):
        j, x = indices[p], values[p]
        bias += x * w[j]
        for f in range(n_factors):
            xv = x * V[j, f]
            q[slot, f] += xv
            squares += xv * xv
    if last - first > 1:
        norm = np.float32(0.0)
        for f in range(n_factors):
            norm += q[slot, f] * q[slot, f]
        bias += np.float32(0.5) * (norm - squares)
    b[slot] = bias


@kernel
def _adam_step(theta, gradient, m, s, wd, clip, eps, lr):
    """Update one parameter; returns its new value and moments."""
    g = gradient + wd * theta
    g = min(max(g, -clip), clip)
    m = np.float32(0.9) * m + np.float32(0.1) * g
    s = np.float32(0.999) * s + np.float32(0.001) * g * g
    return theta - lr * m / (math.sqrt(s) + eps), m, s


@kernel
def adam_epoch(
    order,
    index,
    y,
    weights,
    loss,
    indptr,
    indices,
    values,
    w0,
    w,
    V,
    m_w0,
    s_w0,
    m_w,
    s_w,
    m_V,
    s_V,
    rates,
    decays,
    damping,
    rescale,
    clip,
    eps,
    batch_size,
    n_batches,
    lazy,
    slot_of_entity,
    entity_of_slot,
    q,
    b,
    q_gradient,
    b_gradient,
    slot_of_feature,
    feature_of_slot,
    V_gradient,
    w_gradient,
):
    """Go once over the rows in the given order; returns the summed loss."""
    n_rows, n_blocks = index.shape
    n_features, n_factors = V.shape
    weighted = len(weights) > 0
    total_loss = 0.0
    s_row = np.empty(n_factors, np.float32)
    t = n_batches
    for batch_start in range(0, n_rows, batch_size):
        batch_stop = min(batch_start + batch_size, n_rows)
        t += 1
        correction = math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
        n_slots = 0
        bias_gradient = np.float32(0.0)

        for position in range(batch_start, batch_stop):
            row = order[position]
            score = w0[0]
            s_row[:] = 0.0
            for g in range(n_blocks):
                e = index[row, g]
                slot = slot_of_entity[e]
                if slot < 0:
                    slot = n_slots
                    n_slots += 1
                    slot_of_entity[e] = slot
                    entity_of_slot[slot] = e
                    _load_entity(e, slot, indptr, indices, values, w, V, q, b)
                    b_gradient[slot] = 0.0
                    for f in range(n_factors):
                        q_gradient[slot, f] = 0.0
                pairs = np.float32(0.0)
                for f in range(n_factors):
                    pairs += q[slot, f] * s_row[f]
                    s_row[f] += q[slot, f]
                score += b[slot] + pairs
            value, error = _loss_and_slope(loss, score, y[row])
            if weighted:
                value *= weights[row]
                error *= weights[row]
            total_loss += value
            slope = np.float32(error)
            bias_gradient += slope
            for g in range(n_blocks):
                slot = slot_of_entity[index[row, g]]
                b_gradient[slot] += slope
                for f in range(n_factors):
                    q_gradient[slot, f] += slope * (s_row[f] - q[slot, f])

        n_touched = 0
        if not lazy:
            for j in range(n_features):
                slot_of_feature[j] = j
                feature_of_slot[j] = j
                w_gradient[j] = 0.0
                for f in range(n_factors):
                    V_gradient[j, f] = 0.0
            n_touched = n_features
        for slot in range(n_slots):
            e = entity_of_slot[slot]
            slot_of_entity[e] = -1
            first, last = indptr[e], indptr[e + 1]
            for p in range(first, last):
                j, x = indices[p], values[p]
                touched = slot_of_feature[j]
                if touched < 0:
                    touched = n_touched
                    n_touched += 1
                    slot_of_feature[j] = touched
                    feature_of_slot[touched] = j
                    w_gradient[touched] = 0.0
                    for f in range(n_factors):
                        V_gradient[touched, f] = 0.0
                w_gradient[touched] += x * b_gradient[slot]
                xb = x * b_gradient[slot] if last - first > 1 else np.float32(0.0)
                for f in range(n_factors):
                    V_gradient[touched, f] += x * q_gradient[slot, f] + xb * (
                        q[slot, f] - x * V[j, f]
                    )

        lr_linear = np.float32(rates[1] * correction)
        lr_factors = np.float32(rates[2] * correction)
        for touched in range(n_touched):
            j = feature_of_slot[touched]
            slot_of_feature[j] = -1
            w[j], m_w[j], s_w[j] = _adam_step(
                w[j],
                rescale * w_gradient[touched],
                m_w[j],
                s_w[j],
                decays[1],
                clip,
                eps,
                lr_linear * damping[j],
            )
            for f in range(n_factors):
                V[j, f], m_V[j, f], s_V[j, f] = _adam_step(
                    V[j, f],
                    rescale * V_gradient[touched, f],
                    m_V[j, f],
                    s_V[j, f],
                    decays[2],
                    clip,
                    eps,
                    lr_factors * damping[j],
                )
        w0[0], m_w0[0], s_w0[0] = _adam_step(
            w0[0],
            rescale * bias_gradient,
            m_w0[0],
            s_w0[0],
            decays[0],
            clip,
            eps,
            np.float32(rates[0] * correction),
        )
    return total_loss
