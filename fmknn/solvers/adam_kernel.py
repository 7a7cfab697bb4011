"""The compiled epoch of the Adam solver.

A batch is done in passes, each a loop over plain arrays. (1) Its rows are copied together, and
their entities numbered as they come: the slots. (2) Each slot gets its entity's vector and bias.
(3) Over the rows: score each from its slots and collect the gradient per slot,
dL/dq_e = Σ err (s - q_e) and dL/db_e = Σ err, with s the sum of the row's vectors. (4) Over the
slots: the chain rule down to features, dL/dv_p = x_p dL/dq_e + dL/db_e x_p (q_e - x_p v_p).
(5) Over the features touched: the update. So a feature that many rows share costs once per entity,
not once per row; and where each entity is one feature of its own, (4) has nothing to do.

A pass is called once per batch, not once per row: a call that is not inlined counts references to
each array it is handed, which costs more than the arithmetic of a row.
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
def _gather(rows, index, y, slots, targets):
    """Copy the batch's rows together: nothing else in the loop, so that cache misses overlap."""
    for i in range(len(rows)):
        row = rows[i]
        targets[i] = y[row]
        for g in range(index.shape[1]):
            slots[i, g] = index[row, g]


@kernel
def _number(n_rows, slots, slot_of_entity, entity_of_slot):
    """Replace entities by slots, numbered as they come; returns how many there are.

    Without a branch, since whether an entity is new can't be predicted: an old one is written
    behind the end of the list, where the next new one overwrites it.
    """
    n_slots = 0
    for i in range(n_rows):
        for g in range(slots.shape[1]):
            e = slots[i, g]
            slot = slot_of_entity[e]
            is_new = slot < 0
            slot = n_slots if is_new else slot
            entity_of_slot[n_slots] = e
            n_slots += is_new
            slot_of_entity[e] = slot
            slots[i, g] = slot
    for slot in range(n_slots):
        slot_of_entity[entity_of_slot[slot]] = -1
    return n_slots


@kernel
def _load_features(n_slots, entity_of_slot, indices, w, V, q, b, feature_of_slot):
    """Write vector and bias of each slot, where each entity is one feature of its own."""
    n_factors = V.shape[1]
    for slot in range(n_slots):
        j = indices[entity_of_slot[slot]]
        feature_of_slot[slot] = j
        b[slot] = w[j]
        for f in range(n_factors):
            q[slot, f] = V[j, f]


@kernel
def _load_entities(n_slots, entity_of_slot, indptr, indices, values, w, V, q, b):
    """Write vector and bias of each slot, for entities of any number of features."""
    n_factors = V.shape[1]
    squares = np.empty(n_factors, np.float32)
    for slot in range(n_slots):
        e = entity_of_slot[slot]
        first, last = indptr[e], indptr[e + 1]
        bias = np.float32(0.0)
        for f in range(n_factors):
            q[slot, f] = 0.0
            squares[f] = 0.0
        for p in range(first, last):
            j, x = indices[p], values[p]
            bias += x * w[j]
            for f in range(n_factors):
                xv = x * V[j, f]
                q[slot, f] += xv
                squares[f] += xv * xv
        if last - first > 1:  # a single feature has no pair
            pairs = np.float32(0.0)
            for f in range(n_factors):
                pairs += q[slot, f] * q[slot, f] - squares[f]
            bias += np.float32(0.5) * pairs
        b[slot] = bias


@kernel
def _slot_gradients(rows, slots, targets, weights, loss, w0, q, b, q_gradient, b_gradient):
    """Score the rows and sum the gradient per slot; returns loss and gradient of w0."""
    n_blocks, n_factors = slots.shape[1], q.shape[1]
    weighted = len(weights) > 0
    total_loss = 0.0
    total_slope = np.float32(0.0)
    s_row = np.empty(n_factors, np.float32)
    for i in range(len(rows)):
        slot = slots[i, 0]
        score = w0 + b[slot]
        for f in range(n_factors):
            s_row[f] = q[slot, f]
        for g in range(1, n_blocks):
            slot = slots[i, g]
            pairs = np.float32(0.0)
            for f in range(n_factors):
                pairs += q[slot, f] * s_row[f]
                s_row[f] += q[slot, f]
            score += b[slot] + pairs
        value, error = _loss_and_slope(loss, score, targets[i])
        if weighted:
            value *= weights[rows[i]]
            error *= weights[rows[i]]
        total_loss += value
        slope = np.float32(error)
        total_slope += slope
        for g in range(n_blocks):
            slot = slots[i, g]
            b_gradient[slot] += slope
            for f in range(n_factors):
                q_gradient[slot, f] += slope * (s_row[f] - q[slot, f])
    return total_loss, total_slope


@kernel
def _feature_gradients(
    n_slots,
    entity_of_slot,
    indptr,
    indices,
    values,
    V,
    q,
    q_gradient,
    b_gradient,
    lazy,
    slot_of_feature,
    feature_of_slot,
    V_gradient,
    w_gradient,
):
    """Take the gradient from slots to their features; returns how many features there are."""
    n_features, n_factors = V.shape
    n_touched = 0
    if not lazy:
        for j in range(n_features):
            slot_of_feature[j] = j
            feature_of_slot[j] = j
        V_gradient[:] = 0.0
        w_gradient[:] = 0.0
        n_touched = n_features
    for slot in range(n_slots):
        e = entity_of_slot[slot]
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
                V_gradient[touched, f] += x * q_gradient[slot, f] + xb * (q[slot, f] - x * V[j, f])
    for touched in range(n_touched):
        slot_of_feature[feature_of_slot[touched]] = -1
    return n_touched


@kernel
def _adam_step(theta, gradient, m, s, wd, clip, eps, lr):
    """Update one parameter; returns its new value and moments."""
    g = gradient + wd * theta
    g = min(max(g, -clip), clip)
    m = np.float32(0.9) * m + np.float32(0.1) * g
    s = np.float32(0.999) * s + np.float32(0.001) * g * g
    return theta - lr * m / (math.sqrt(s) + eps), m, s


@kernel
def _update(
    n_touched,
    feature_of_slot,
    w_gradient,
    V_gradient,
    w,
    V,
    m_w,
    s_w,
    m_V,
    s_V,
    lr_linear,
    lr_factors,
    decays,
    damping,
    rescale,
    clip,
    eps,
):
    """Move the features of the batch."""
    for touched in range(n_touched):
        j = feature_of_slot[touched]
        lr = lr_linear * damping[j]
        w[j], m_w[j], s_w[j] = _adam_step(
            w[j], rescale * w_gradient[touched], m_w[j], s_w[j], decays[1], clip, eps, lr
        )
        lr = lr_factors * damping[j]
        wd = decays[2]
        for f in range(V.shape[1]):
            V[j, f], m_V[j, f], s_V[j, f] = _adam_step(
                V[j, f], rescale * V_gradient[touched, f], m_V[j, f], s_V[j, f], wd, clip, eps, lr
            )


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
    one_to_one,
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
    """Go once over the rows in the given order; returns the summed loss.

    ``one_to_one`` says that each entity is one feature of its own, with the value 1.
    ``entity_of_slot`` has room for one more than the slots of a batch.
    """
    n_rows, n_blocks = index.shape
    longest_batch = min(batch_size, n_rows)
    slots = np.empty((longest_batch, n_blocks), np.int32)
    targets = np.empty(longest_batch, np.float32)
    direct = one_to_one and lazy
    total_loss = 0.0
    t = n_batches
    for start in range(0, n_rows, batch_size):
        rows = order[start : start + batch_size]
        t += 1
        correction = math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
        lr_bias = np.float32(rates[0] * correction)
        lr_linear = np.float32(rates[1] * correction)
        lr_factors = np.float32(rates[2] * correction)

        _gather(rows, index, y, slots, targets)
        n_slots = _number(len(rows), slots, slot_of_entity, entity_of_slot)
        if direct:
            _load_features(n_slots, entity_of_slot, indices, w, V, q, b, feature_of_slot)
        else:
            _load_entities(n_slots, entity_of_slot, indptr, indices, values, w, V, q, b)
        q_gradient[:n_slots] = 0.0
        b_gradient[:n_slots] = 0.0
        batch_loss, bias_gradient = _slot_gradients(
            rows, slots, targets, weights, loss, w0[0], q, b, q_gradient, b_gradient
        )
        total_loss += batch_loss
        n_touched, w_part, V_part = n_slots, b_gradient, q_gradient
        if not direct:
            n_touched = _feature_gradients(
                n_slots,
                entity_of_slot,
                indptr,
                indices,
                values,
                V,
                q,
                q_gradient,
                b_gradient,
                lazy,
                slot_of_feature,
                feature_of_slot,
                V_gradient,
                w_gradient,
            )
            w_part, V_part = w_gradient, V_gradient
        _update(
            n_touched,
            feature_of_slot,
            w_part,
            V_part,
            w,
            V,
            m_w,
            s_w,
            m_V,
            s_V,
            lr_linear,
            lr_factors,
            decays,
            damping,
            rescale,
            clip,
            eps,
        )
        w0[0], m_w0[0], s_w0[0] = _adam_step(
            w0[0], rescale * bias_gradient, m_w0[0], s_w0[0], decays[0], clip, eps, lr_bias
        )
    return total_loss
