"""Rows of a factorization machine spelled out: what the columns are, without fmknn's own encoding.

The columns are the users' ids and features, the items' ids and features, then the levels of each
context. A numeric feature is standardised, a categorical one has a column per level (ascending),
m values of a multi-valued one are 1/√m each.
"""

from __future__ import annotations

import math

import naive
import numpy as np


def feature_columns(values, categorical=False):
    """The columns that one feature column becomes, as lists of one number per entity."""
    values = np.asarray(values, dtype=object).tolist()
    if all(isinstance(value, (int, float)) for value in values) and not categorical:
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        return [[(value - mean) / deviation for value in values]]
    sets = [set(value) if isinstance(value, (list, tuple)) else {value} for value in values]
    return [
        [1 / math.sqrt(len(held)) if level in held else 0.0 for held in sets]
        for level in sorted(set().union(*sets))
    ]


def entities(id_map, table):
    """Dense rows of all users, items or levels of a context: the id, then the features."""
    columns = np.eye(len(id_map)).tolist() if table is None or table.id_feature else []
    for name in () if table is None else table.features:
        columns += feature_columns(table[name], name in table.categorical)
    return np.array(columns, float).T


class Textbook:
    """Scores of a trained model by the formula, one pair at a time.

    `interactions` are those it was trained on, `params` what it learned.
    """

    def __init__(self, interactions, params):
        data = interactions
        self.data, self.params = data, params
        tables = {
            "user": entities(data.users, data.user_features),
            "item": entities(data.items, data.item_features),
            **{name: entities(column.ids, None) for name, column in data.context.items()},
        }
        self.rows, first = {}, 0
        for name, table in tables.items():
            self.rows[name] = [
                [(first + p, x) for p, x in enumerate(row) if x != 0] for row in table.tolist()
            ]
            first += table.shape[1]
        assert first == len(params.w)
        self.maps = {"user": data.users, "item": data.items}
        self.maps |= {name: column.ids for name, column in data.context.items()}

    def place(self, block, id_):
        return self.maps[block].ids.tolist().index(id_)

    def score(self, **ids):
        """The score of a row made of these: score(user=…, item=…, weekday=…); None adds nothing."""
        row = [
            entry
            for block, id_ in ids.items()
            if id_ is not None
            for entry in self.rows[block][self.place(block, id_)]
        ]
        return naive.sparse_score(self.params.w0, self.params.w, self.params.V, row)

    def item_scores(self, **ids):
        """The score of every item in its order."""
        return [self.score(item=item, **ids) for item in self.data.items.ids.tolist()]

    def seen(self, user):
        """The positions of the items of a user's rows."""
        return set(self.data.item_index[self.data.user_ids == user].tolist())


def assert_same_list(
    positions, scores, item_scores, n, excluded=(), candidates=None, tolerance=1e-5
):
    """A list is the textbook's; two items may change places only where they differ by rounding."""
    expected = naive.brute_top_n(item_scores, n, excluded, candidates)
    positions, scores = list(positions), list(scores)
    assert len(positions) == len(set(positions)) == len(expected)
    assert not set(positions) & set(excluded)
    assert candidates is None or set(positions) <= set(candidates)
    for got, score, (_, best) in zip(positions, scores, expected, strict=True):
        assert abs(item_scores[got] - best) < tolerance
        assert abs(score - item_scores[got]) < tolerance
