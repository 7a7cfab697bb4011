"""The whole-data loss by brute force: every (query, item) pair is a dense row, in float64.

Nothing here imports fmknn: rows are spelled out by textbook.entities, from the ids and feature
tables of Interactions alone. A parameter is (p, f): column p, factor f, or its linear weight if
f = k; θ is (w0, w, V).
"""

from __future__ import annotations

import numpy as np
from textbook import entities


class WholeData:
    """Σ_S w (ŷ - 1)² + α0 Σ_{C×I} ŷ² + Σ_p λ_p θ_p², λ_p = λ (Σ_S w x_p² + α0 Σ_{C×I} x_p²)^ν.

    S are the distinct (query, item) pairs with a row, w = count^count_power; C the distinct queries
    (user, contexts) with a row, I the items with a row. w0 is 0 in training.

    Attributes: X the expanded rows of C×I, item by item within a query; `weights` of all these
    pairs, 0 for those without a row; `columns` of each block; `seen` columns, not 0 in some row.
    """

    def __init__(
        self, data, *, alpha0=None, l2_factors=0.0, l2_linear=0.0, nu=1.0, count_power=1.0
    ):
        tables = {
            "user": entities(data.users, data.user_features),
            "item": entities(data.items, data.item_features),
            **{name: entities(column.ids, None) for name, column in data.context.items()},
        }
        self.tables, first = tables, 0
        self.columns = {}
        for name, table in tables.items():
            self.columns[name] = range(first, first + table.shape[1])
            first += table.shape[1]
        contexts = [column.index.tolist() for column in data.context.values()]
        queries = list(zip(data.user_index.tolist(), *contexts, strict=True))
        counts = {}
        given = [1.0] * len(data) if data.weights is None else data.weights.tolist()
        for query, item, weight in zip(queries, data.item_index.tolist(), given, strict=True):
            if weight > 0:
                counts[query, item] = counts.get((query, item), 0.0) + weight
        self.queries = sorted({query for query, _ in counts})
        self.items = sorted({item for _, item in counts})
        self.X = np.array([self.row(query, item) for query in self.queries for item in self.items])
        self.weights = np.array(
            [
                counts[query, item] ** count_power if (query, item) in counts else 0.0
                for query in self.queries
                for item in self.items
            ]
        )
        self.weight = self.weights.sum()
        self.alpha0 = 12 * self.weight / len(self.X) if alpha0 is None else alpha0
        self.seen = (self.X != 0).any(axis=0)
        mass = (self.weights + self.alpha0) @ self.X**2
        self.nu, self.l2 = nu, (l2_factors, l2_linear)
        growth = np.where(self.seen, mass**nu, 0.0)
        self.l2_factors, self.l2_linear = l2_factors * growth, l2_linear * growth

    def row(self, query, item):
        """The expanded row of a (user, level …) with an item."""
        user, *levels = query
        names = list(self.tables)
        places = dict(zip(names, [user, item, *levels], strict=True))
        return np.concatenate([self.tables[name][places[name]] for name in names])

    def scores(self, w0, w, V, X=None):
        """ŷ = w0 + X w + ½ Σ_f ((X v_f)² - X² v_f²) (Rendle, ICDM 2010, lemma 3.1)."""
        X = self.X if X is None else X
        return w0 + X @ w + 0.5 * ((X @ V) ** 2 - X**2 @ V**2).sum(axis=1)

    def parts(self, w0, w, V):
        """(observed, all pairs, penalty), the sums."""
        score = self.scores(w0, w, V)
        penalty = (self.l2_linear * w**2).sum() + (self.l2_factors[:, None] * V**2).sum()
        return (
            (self.weights * (score - 1) ** 2).sum(),
            self.alpha0 * (score**2).sum(),
            penalty,
        )

    def loss(self, w0, w, V):
        """The objective."""
        return sum(self.parts(w0, w, V))

    def magnitude(self, w0, w, V):
        """The loss of scores whose terms are all taken without their signs: what rounds."""
        terms = self.scores(abs(w0), np.abs(w), np.abs(V), np.abs(self.X))
        return (self.weights + self.alpha0) @ (1 + terms) ** 2

    def gradient(self, w0, w, V):
        """(g0, gw, gV) of the objective."""
        X, score = self.X, self.scores(w0, w, V)
        slope = 2 * (self.weights * (score - 1) + self.alpha0 * score)
        to_V = X.T @ (slope[:, None] * (X @ V)) - (X**2).T @ slope[:, None] * V
        return (
            slope.sum(),
            X.T @ slope + 2 * self.l2_linear * w,
            to_V + 2 * self.l2_factors[:, None] * V,
        )

    def curvature(self, w0, w, V):
        """The second derivatives of the objective, each parameter by itself: (c0, cw, cV)."""
        both = 2 * (self.weights + self.alpha0)
        cV = [
            self._regressor(V, p, f) ** 2 @ both for p in range(len(V)) for f in range(V.shape[1])
        ]
        return (
            both.sum(),
            both @ self.X**2 + 2 * self.l2_linear,
            np.reshape(cV, V.shape) + 2 * self.l2_factors[:, None],
        )

    def _regressor(self, V, p, f):
        x = self.X[:, p]
        return x if f == V.shape[1] else x * (self.X @ V[:, f] - x * V[p, f])

    def best(self, w0, w, V, p, f):
        """The value of parameter (p, f) at the minimum, all else as it is; None if any value is."""
        k = V.shape[1]
        h = self._regressor(V, p, f)
        both = self.weights + self.alpha0
        theta, penalty = (w[p], self.l2_linear[p]) if f == k else (V[p, f], self.l2_factors[p])
        rest = self.scores(w0, w, V) - h * theta
        total = both @ h**2 + penalty
        return None if total == 0 else (h @ (self.weights - both * rest)) / total

    def sweep(self, w0, w, V, by_column, *, biases=True, n_passes=1):
        """(w0, w, V) after, block by block, all of the parameters, once or some passes.

        `by_column` says of each block, by name, whether it goes column by column, each through all
        its factors and its linear weight n_passes times; else it goes factor by factor, then
        through the linear weights, once.
        """
        w, V = np.array(w, float), np.array(V, float)
        k = V.shape[1]
        coordinates = range(k + biases)
        for name, columns in self.columns.items():
            seen = [p for p in columns if self.seen[p]]
            if by_column[name]:
                order = [(p, f) for p in seen for _ in range(n_passes) for f in coordinates]
            else:
                order = [(p, f) for f in coordinates for p in seen]
            for p, f in order:
                value = self.best(w0, w, V, p, f)
                if value is not None and f == k:
                    w[p] = value
                elif value is not None:
                    V[p, f] = value
        return w0, w, V

    def of_nobody(self, w0, w, V, biases=True):
        """(w, v) of an item of one column of its own that nobody took, all queries as they are.

        It minimises α0 Σ_C ŷ² + λ θ², λ = l2 (α0 |C|)^ν: ŷ = <s, v> + b + φ of a query with the
        vector s and the bias φ, w0 in it.
        """
        anything = np.array([self.row(query, self.items[0]) for query in self.queries])
        anything[:, self.columns["item"]] = 0
        H, phi = anything @ V, self.scores(w0, w, V, anything)
        if biases:
            H = np.column_stack([H, np.ones(len(H))])
        scale = (self.alpha0 * len(H)) ** self.nu
        penalty = scale * np.repeat([self.l2[0], self.l2[1]], [V.shape[1], biases])
        theta = np.linalg.solve(self.alpha0 * H.T @ H + np.diag(penalty), -self.alpha0 * H.T @ phi)
        return (theta[-1] if biases else 0.0), theta[: V.shape[1]]


def ials_half(own, other, rows, alpha0, penalties):
    """Textbook iALS, one side: (Σ w h hᵀ + α0 Hᵀ H + λ I)⁻¹ Σ w h of each row of `own`.

    `rows` has [(position in other, weight), ...] of each; Hu, Koren, Volinsky, ICDM 2008, with the
    weights of Rendle et al., RecSys 2022. H are all rows of `other`.
    """
    gram = alpha0 * other.T @ other
    solved = np.zeros_like(own)
    for number, (pairs, penalty) in enumerate(zip(rows, penalties, strict=True)):
        H = other[[position for position, _ in pairs]]
        w = np.array([weight for _, weight in pairs])
        A = gram + (H.T * w) @ H + penalty * np.eye(own.shape[1])
        solved[number] = np.linalg.solve(A, H.T @ w)
    return solved
