"""The compiled epoch of BPR: one pair of items after the other.

A step is about the query entities of a row, its item i and another item j. With s the sum of the
query entities' vectors, the difference of the two scores is x = b_i - b_j + <s, q_i - q_j>; what
the query side has by itself is in both and cancels. A feature p of value x_p has the slopes

    query side        dx/dv_p = x_p (q_i - q_j)
    item i            dx/dv_p = x_p (s + q_i - x_p v_p)      dx/dw_p = x_p

and item j those of i with the other sign; a feature that both have gets the sum of the two, once.

Entities of one feature, ids above all, are dealt with in the loop over the rows itself: a call
that is not inlined counts references to each array it is handed, which would take longer than a
step of theirs.
"""

from __future__ import annotations

import math

import numpy as np

from .._numba import kernel

__all__ = ["bpr_epoch"]


@kernel
def _draw_items(row_draws, begin, end, positives, candidates, drawn):
    """Write an entity for each draw: one of the candidates whose place is none of the positives.

    Of the n that are left the one with number ⌊n draw / 2^32⌋ is meant, none is drawn in vain:
    k - begin fewer than positives[k] of them come before the k-th positive.
    """
    n_others = np.int64(len(candidates) - (end - begin))
    for c in range(len(row_draws)):
        rank = (np.int64(row_draws[c]) * n_others) >> np.int64(32)
        place, left = begin, end - begin
        while left > 0:  # no branch within: which half it is can't be predicted
            half = (left + 1) >> 1
            is_behind = positives[place + half - 1] - (place + half - 1 - begin) <= rank
            place += half if is_behind else 0
            left = left - half if is_behind else half - 1
        drawn[c + 1] = candidates[rank + (place - begin)]


@kernel
def _load(first, last, indices, values, w, V, q, at):
    """Write the vector of an entity to q[at] and return its bias, its own pairs included."""
    n_factors = V.shape[1]
    bias = np.float32(0.0)
    squares = np.float32(0.0)
    for f in range(n_factors):
        q[at, f] = 0.0
    for p in range(first, last):
        j, x = indices[p], values[p]
        bias += x * w[j]
        for f in range(n_factors):
            xv = x * V[j, f]
            q[at, f] += xv
            squares += xv * xv
    pairs = np.float32(0.0)
    for f in range(n_factors):
        pairs += q[at, f] * q[at, f]
    return bias + np.float32(0.5) * (pairs - squares)


@kernel
def _move_items(bounds, indices, values, w, V, move, q, shrink_w, shrink):
    """Move the features of both items; they ascend, so that common ones are met together."""
    a, a_end, b, b_end = bounds
    end = np.int32(2**31 - 1)
    while a < a_end or b < b_end:
        of_a = indices[a] if a < a_end else end
        of_b = indices[b] if b < b_end else end
        feature = min(of_a, of_b)
        x = values[a] if of_a == feature else np.float32(0.0)
        y = values[b] if of_b == feature else np.float32(0.0)
        a += of_a == feature
        b += of_b == feature
        w[feature] += move * (x - y) - shrink_w * w[feature]
        x, y, own, both = move * x, move * y, move * (x * x - y * y), move * (x - y)
        for f in range(V.shape[1]):
            v = V[feature, f]
            V[feature, f] += both * q[0, f] + x * q[1, f] - y * q[2, f] - (own + shrink) * v


@kernel
def bpr_epoch(
    order,
    index,
    item,
    users,
    indptr,
    indices,
    values,
    candidates,
    first_positive,
    positives,
    draws,
    w,
    V,
    rate,
    l2_linear,
    l2_factors,
):
    """Do one step for each row of ``order``; returns Σ -ln σ, pairs in the right order, pairs.

    ``item`` is the column of ``index`` that holds the items; ``candidates`` are the entities of
    the items that may be drawn, ascending, and ``positives`` those of each user as places in them,
    ascending too. ``draws`` has several numbers below 2^32 per row: of the items that they stand
    for, the one that scores highest is j. The right order is judged by the first of them, which is
    as likely to be one item as another. A user who has all items gets no step.
    """
    n_blocks, n_factors, n_items = index.shape[1], V.shape[1], len(candidates)
    shrink, shrink_w = rate * l2_factors, rate * l2_linear
    compared = np.empty(1 + draws.shape[1], np.int32)  # i, then what is drawn
    q = np.empty((4, n_factors), np.float32)  # s, q_i, q_j and scratch
    loss = 0.0
    n_right = n_pairs = 0
    for t in range(len(order)):
        row = order[t]
        begin, end = first_positive[users[row]], first_positive[users[row] + 1]
        if end - begin == n_items:
            continue
        _draw_items(draws[t], begin, end, positives, candidates, compared)
        compared[0] = index[row, item]
        for f in range(n_factors):
            q[0, f] = 0.0
        for g in range(n_blocks):
            if g != item:
                first, last = indptr[index[row, g]], indptr[index[row, g] + 1]
                if last - first == 1:
                    feature, value = indices[first], values[first]
                    for f in range(n_factors):
                        q[0, f] += value * V[feature, f]
                else:
                    _load(first, last, indices, values, w, V, q, 3)
                    for f in range(n_factors):
                        q[0, f] += q[3, f]
        score = highest = np.float32(0.0)
        best = 0
        for c in range(len(compared)):
            entity = compared[c]
            first, last = indptr[entity], indptr[entity + 1]
            its = np.float32(0.0)
            if last - first == 1:
                feature, value = indices[first], values[first]
                for f in range(n_factors):
                    its += V[feature, f] * q[0, f]
                its = value * (its + w[feature])
            else:
                bias = _load(first, last, indices, values, w, V, q, 3)
                for f in range(n_factors):
                    its += q[3, f] * q[0, f]
                its += bias
            if c == 0:
                score = its
            elif c == 1 or its > highest:
                n_right += c == 1 and score > its
                highest, best = its, c
        x = np.float64(score - highest)
        small = math.exp(-abs(x))
        loss += max(-x, 0.0) + math.log1p(small)
        n_pairs += 1
        move = np.float32(rate * (small / (1.0 + small) if x >= 0 else 1.0 / (1.0 + small)))

        liked, other = compared[0], compared[best]
        a, a_end, b, b_end = indptr[liked], indptr[liked + 1], indptr[other], indptr[other + 1]
        if a_end - a == 1 and b_end - b == 1 and indices[a] != indices[b]:
            of_i, of_j, x_i, x_j = indices[a], indices[b], values[a], values[b]
            w[of_i] += move * x_i - shrink_w * w[of_i]
            w[of_j] -= move * x_j + shrink_w * w[of_j]
            for f in range(n_factors):
                v_i, v_j = V[of_i, f], V[of_j, f]
                q[3, f] = x_i * v_i - x_j * v_j
                V[of_i, f] = v_i + move * x_i * q[0, f] - shrink * v_i
                V[of_j, f] = v_j - move * x_j * q[0, f] - shrink * v_j
        else:
            _load(a, a_end, indices, values, w, V, q, 1)
            _load(b, b_end, indices, values, w, V, q, 2)
            _move_items((a, a_end, b, b_end), indices, values, w, V, move, q, shrink_w, shrink)
            for f in range(n_factors):
                q[3, f] = q[1, f] - q[2, f]
        for g in range(n_blocks):
            if g != item:
                for p in range(indptr[index[row, g]], indptr[index[row, g] + 1]):
                    feature, step = indices[p], move * values[p]
                    for f in range(n_factors):
                        V[feature, f] += step * q[3, f] - shrink * V[feature, f]
    return loss, n_right, n_pairs
