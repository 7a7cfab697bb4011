"""Plain-Python oracles: what fmknn computes, written as slowly and as obviously as it can be.

Everything here is lists, loops and Python floats (float64), straight from the formula in each
docstring. numpy only holds inputs. Nothing here imports fmknn, so nothing can agree with it by
sharing its mistakes. Arguments may be lists or arrays; none of them is ever changed.

Names: `w0` a number, `w` of length p, `V` of shape (p, k), `x` a dense row of length p, `X` dense
rows, `columns` the column numbers of one block, `row` a sparse row [(column, value), ...].
"""

from __future__ import annotations

import copy
import math

import numpy as np


def plain(values):
    """Nested lists of Python floats (arithmetic on a float32 scalar would stay in float32)."""
    return np.asarray(values, dtype=np.float64).tolist()


def dot(a, b):
    """sum_f a_f b_f."""
    return sum(p * q for p, q in zip(a, b, strict=True))


# --- the score ------------------------------------------------------------------------------


def fm_score(w0, w, V, x):
    """y(x) = w0 + sum_p w_p x_p + sum_{p<q} <v_p, v_q> x_p x_q (Rendle, ICDM 2010, eq. 1)."""
    w, V, x = plain(w), plain(V), plain(x)
    score = float(w0) + dot(w, x)
    for p in range(len(x)):
        for q in range(p + 1, len(x)):
            score += dot(V[p], V[q]) * x[p] * x[q]
    return score


def fm_scores(w0, w, V, X):
    """fm_score of every row of X."""
    return [fm_score(w0, w, V, x) for x in plain(X)]


def canonical_one_hot(users, items, n_users, n_items):
    """Dense (n, n_users + n_items) matrix with x[user] = 1 and x[n_users + item] = 1."""
    X = np.zeros((len(users), n_users + n_items))
    for r, (user, item) in enumerate(zip(users, items, strict=True)):
        X[r, user] = 1.0
        X[r, n_users + item] = 1.0
    return X


# --- entities, and the projection into two matrices -----------------------------------------


def entity_vector(w, V, x, columns):
    """(q, b) of the part of x that lies in the columns of one block g.

    q = sum_{p in g} x_p v_p
    b = sum_{p in g} w_p x_p + sum_{p<q in g} <v_p, v_q> x_p x_q
    """
    w, V, x, columns = plain(w), plain(V), plain(x), list(columns)
    q = [sum(x[p] * V[p][f] for p in columns) for f in range(len(V[0]))]
    b = sum(w[p] * x[p] for p in columns)
    for i, p in enumerate(columns):
        for r in columns[i + 1 :]:
            b += dot(V[p], V[r]) * x[p] * x[r]
    return q, b


def item_rows(w, V, X, columns):
    """[q_i, b_i] for every row of X, where `columns` are those of the item block."""
    rows = []
    for x in plain(X):
        q, b = entity_vector(w, V, x, columns)
        rows.append(q + [b])
    return rows


def query_rows(w0, w, V, X, blocks):
    """(rows, offsets): [sum_g q_g, 1] and w0 + sum_g b_g + sum_{g<h} <q_g, q_h> for every row of X.

    `blocks` lists the columns of each block that is not the item block (user, context, ...), so
    score = offset + <query row, item row>.
    """
    rows, offsets = [], []
    for x in plain(X):
        entities = [entity_vector(w, V, x, columns) for columns in blocks]
        offset = float(w0) + sum(b for _, b in entities)
        for g in range(len(entities)):
            for h in range(g + 1, len(entities)):
                offset += dot(entities[g][0], entities[h][0])
        row = [sum(q[f] for q, _ in entities) for f in range(len(plain(V)[0]))]
        rows.append(row + [1.0])
        offsets.append(offset)
    return rows, offsets


# --- the search -----------------------------------------------------------------------------


def brute_top_n(scores_row, n, excluded=(), candidates=None):
    """The n best [(position, score), ...]: highest score first, ties by position.

    Only `candidates` may appear (None: every position), and never one that is `excluded`; the
    list is shorter than n when fewer are left.
    """
    scores = plain(scores_row)
    allowed = set(range(len(scores)) if candidates is None else candidates) - set(excluded)
    hits = [(int(position), scores[position]) for position in allowed]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:n]


# --- losses and gradients -------------------------------------------------------------------


def sigmoid(score):
    """1 / (1 + exp(-score)), written so that exp never overflows."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    return math.exp(score) / (1.0 + math.exp(score))


def loss_value(score, y, loss):
    """squared: 1/2 (score - y)^2;  logistic: log(1 + exp(-y' score)), y' = 2y - 1, y in {0, 1}."""
    if loss == "squared":
        return 0.5 * (score - y) ** 2
    if loss == "logistic":
        z = -(2 * y - 1) * score
        return max(z, 0.0) + math.log1p(math.exp(-abs(z)))  # = log(1 + exp(z))
    raise ValueError(f"loss is {loss!r}, not 'squared' or 'logistic'")


def loss_slope(score, y, loss):
    """d loss / d score. squared: score - y;  logistic: sigmoid(score) - y."""
    if loss == "squared":
        return score - y
    if loss == "logistic":
        return sigmoid(score) - y
    raise ValueError(f"loss is {loss!r}, not 'squared' or 'logistic'")


def sparse_score(w0, w, V, row):
    """fm_score of a sparse row [(column, value), ...] with distinct columns."""
    columns = [p for p, _ in row]
    if len(set(columns)) != len(columns):
        raise ValueError(f"a column appears twice in the row {row}")
    values = [float(value) for _, value in row]
    V_row = [plain(V[p]) for p in columns]
    return fm_score(w0, [w[p] for p in columns], V_row, values)


def loss_sum(w0, w, V, rows, y, loss):
    """sum over the rows of loss(score, y), without regularisation."""
    return sum(
        loss_value(sparse_score(w0, w, V, row), float(target), loss)
        for row, target in zip(rows, y, strict=True)
    )


def gradient(w0, w, V, rows, y, loss):
    """(g0, gw, gV) of loss_sum, by the chain rule.

    d score / d w0 = 1,  d score / d w_p = x_p,  d score / d v_pf = x_p sum_{q != p} v_qf x_q
    """
    w, V = plain(w), plain(V)
    g0, gw, gV = 0.0, [0.0] * len(w), [[0.0] * len(v) for v in V]
    for row, target in zip(rows, y, strict=True):
        slope = loss_slope(sparse_score(w0, w, V, row), float(target), loss)
        g0 += slope
        for p, x_p in row:
            gw[p] += slope * float(x_p)
            for f in range(len(V[p])):
                others = sum(V[q][f] * float(x_q) for q, x_q in row if q != p)
                gV[p][f] += slope * float(x_p) * others
    return g0, gw, gV


def numeric_gradient(function, theta, step=1e-5):
    """[(function(theta + step e_i) - function(theta - step e_i)) / (2 step) for each i]."""
    theta = plain(theta)
    slopes = []
    for i in range(len(theta)):
        up = function(theta[:i] + [theta[i] + step] + theta[i + 1 :])
        down = function(theta[:i] + [theta[i] - step] + theta[i + 1 :])
        slopes.append((up - down) / (2 * step))
    return slopes


def flatten(w0, w, V):
    """[w0, w_1, ..., w_p, v_11, v_12, ..., v_pk]."""
    return [float(w0), *plain(w), *(value for v in plain(V) for value in v)]


def unflatten(theta, n_columns, n_factors):
    """The inverse of flatten: (w0, w, V)."""
    w, rest = theta[1 : 1 + n_columns], theta[1 + n_columns :]
    V = [rest[p * n_factors : (p + 1) * n_factors] for p in range(n_columns)]
    return theta[0], w, V


def numeric_loss_gradient(w0, w, V, rows, y, loss, step=1e-5):
    """(g0, gw, gV) of loss_sum, by central differences."""
    shape = len(w), len(V[0])
    slopes = numeric_gradient(
        lambda theta: loss_sum(*unflatten(theta, *shape), rows, y, loss), flatten(w0, w, V), step
    )
    return unflatten(slopes, *shape)


# --- Adam -----------------------------------------------------------------------------------

ADAM_DEFAULTS = {
    "batch_size": 1000,
    "bias_lr": 0.1,
    "linear_lr": 0.001,
    "factors_lr": 0.0001,
    "bias_wd": 0.01,
    "linear_wd": 0.001,
    "factors_wd": 0.00001,
    "clip_gradient": None,  # no clipping
    "eps": 1e-8,
    "rescale_grad": None,  # 1 / batch_size, for the last, partial batch too
}


def no_moments(n_columns, n_factors):
    """Adam's state before the first batch: t batches done, first moments m, second moments s."""
    zeros = {
        "w0": 0.0,
        "w": [0.0] * n_columns,
        "V": [[0.0] * n_factors for _ in range(n_columns)],
    }
    return {"t": 0, "m": copy.deepcopy(zeros), "s": copy.deepcopy(zeros)}


def adam_step(theta, loss_gradient, m, s, t, group, settings):
    """One parameter, one batch: (theta, m, s) after it. `group` is bias, linear or factors.

    lr_t = lr sqrt(1 - 0.999^t) / (1 - 0.9^t)
    g = rescale_grad * loss_gradient + wd * theta, then clipped to [-clip_gradient, clip_gradient]
    m = 0.9 m + 0.1 g;  s = 0.999 s + 0.001 g^2;  theta = theta - lr_t m / (sqrt(s) + eps)
    """
    rescale, clip = settings["rescale_grad"], settings["clip_gradient"]
    if rescale is None:
        rescale = 1.0 / settings["batch_size"]
    g = rescale * loss_gradient + settings[group + "_wd"] * theta
    if clip is not None:
        g = max(-clip, min(clip, g))
    m = 0.9 * m + 0.1 * g
    s = 0.999 * s + 0.001 * g**2
    lr_t = settings[group + "_lr"] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return theta - lr_t * m / (math.sqrt(s) + settings["eps"]), m, s


def adam_epoch(w0, w, V, moments, rows, y, loss, order=None, settings=None, lazy=True):
    """One pass of adam_step over the rows in batches: (w0, w, V, moments) after it.

    `rows` are sparse, `order` is the order to visit them in (None: as they stand), `settings`
    override ADAM_DEFAULTS. The last, partial batch is used as it is. lazy: w_p and v_p change
    (moments and decay too) only in batches where some row stores column p, whatever its value;
    not lazy: in every batch. The bias changes in every batch.
    """
    unknown = set(settings or {}) - set(ADAM_DEFAULTS)
    if unknown:
        raise ValueError(f"no such settings: {sorted(unknown)}")
    settings = {**ADAM_DEFAULTS, **(settings or {})}
    w0, w, V, state = float(w0), plain(w), plain(V), copy.deepcopy(moments)
    m, s = state["m"], state["s"]
    order = list(range(len(rows)) if order is None else order)
    for start in range(0, len(order), settings["batch_size"]):
        batch = order[start : start + settings["batch_size"]]
        batch_rows, batch_y = [rows[r] for r in batch], [y[r] for r in batch]
        g0, gw, gV = gradient(w0, w, V, batch_rows, batch_y, loss)
        state["t"] += 1
        t = state["t"]
        w0, m["w0"], s["w0"] = adam_step(w0, g0, m["w0"], s["w0"], t, "bias", settings)
        stored = {p for row in batch_rows for p, _ in row}
        for p in sorted(stored) if lazy else range(len(w)):
            w[p], m["w"][p], s["w"][p] = adam_step(
                w[p], gw[p], m["w"][p], s["w"][p], t, "linear", settings
            )
            for f in range(len(V[p])):
                V[p][f], m["V"][p][f], s["V"][p][f] = adam_step(
                    V[p][f], gV[p][f], m["V"][p][f], s["V"][p][f], t, "factors", settings
                )
    return w0, w, V, state


# --- one coordinate at a time ---------------------------------------------------------------


def coordinate_conditional(w0, w, V, rows, y, weights, p, f, alpha, precision, mean):
    """(mean, precision) of the conditional normal of v_pf, or of w_p if f = k, given all the rest.

    The score is linear in the coordinate: g_n + h_n theta, h = x_p sum_{q != p} v_qf x_q or x_p.
    y_n ~ N(score_n, 1 / (alpha weight_n)) and [v_p, w_p] ~ N(mean, precision^-1) make it normal,

    total = precision_ff + alpha sum_n weight_n h_n^2
    total * mean = alpha sum_n weight_n h_n (y_n - g_n)
                   + precision_ff mean_f - sum_{g != f} precision_fg (theta_g - mean_g)
    """
    k = len(V[p])
    theta = [*V[p], w[p]]
    total = precision[f][f]
    pull = precision[f][f] * mean[f]
    pull -= sum(precision[f][g] * (theta[g] - mean[g]) for g in range(k + 1) if g != f)
    for row, target, weight in zip(rows, y, weights, strict=True):
        x = dict(row)
        if p not in x:
            continue
        h = x[p]
        if f < k:
            h *= sum(V[q][f] * x_q for q, x_q in row if q != p)
        rest = sparse_score(w0, w, V, row) - h * theta[f]
        total += alpha * weight * h**2
        pull += alpha * weight * h * (target - rest)
    return pull / total, total


def coordinate_order(blocks, n_factors):
    """[(column, factor), ...] of one sweep; factor = n_factors stands for the linear weight.

    `blocks` has (columns, by_column) of each block: column by column with all its coordinates, or
    coordinate by coordinate with all its columns.
    """
    order = []
    for columns, by_column in blocks:
        if by_column:
            order += [(p, f) for p in columns for f in range(n_factors + 1)]
        else:
            order += [(p, f) for f in range(n_factors + 1) for p in columns]
    return order


def coordinate_sweep(w0, w, V, rows, y, weights, order, alpha, prior_of, choose=None):
    """(w, V) after going through `order`, each coordinate to the mean of its conditional.

    `prior_of(p)` is (precision, mean) of column p. `choose(p, f, mean, precision)`, if given, says
    the new value instead.
    """
    w, V = plain(w), plain(V)
    for p, f in order:
        mean, total = coordinate_conditional(w0, w, V, rows, y, weights, p, f, alpha, *prior_of(p))
        value = mean if choose is None else choose(p, f, mean, total)
        if f < len(V[p]):
            V[p][f] = value
        else:
            w[p] = value
    return w, V


def weighted_residuals(w0, w, V, rows, y, weights):
    """(sum_n weight_n e_n^2, sum_n weight_n e_n) of the residuals e = y - score."""
    errors = [t - sparse_score(w0, w, V, row) for row, t in zip(rows, y, strict=True)]
    return (
        sum(weight * e**2 for weight, e in zip(weights, errors, strict=True)),
        sum(weight * e for weight, e in zip(weights, errors, strict=True)),
    )


# --- metrics --------------------------------------------------------------------------------


def rmse(predictions, truths):
    """sqrt(mean (prediction - truth)^2)."""
    squares = [(p - t) ** 2 for p, t in zip(plain(predictions), plain(truths), strict=True)]
    return math.sqrt(sum(squares) / len(squares))


def recall(recommended, relevant, n):
    """|first n recommended, and relevant| / |relevant|; one list, undefined with none relevant."""
    relevant = set(relevant)
    return len(set(recommended[:n]) & relevant) / len(relevant)


def ndcg(recommended, relevant, n):
    """DCG / best possible DCG, one list, relevance 0 or 1; undefined with none relevant.

    DCG = sum over ranks r = 1..n with a relevant item of 1 / log2(r + 1); the best has its
    min(n, |relevant|) first ranks all relevant.
    """
    relevant = set(relevant)
    dcg = sum(1 / math.log2(r + 1) for r, i in enumerate(recommended[:n], 1) if i in relevant)
    return dcg / sum(1 / math.log2(r + 1) for r in range(1, min(n, len(relevant)) + 1))
