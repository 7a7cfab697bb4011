"""The data of ``bench_fm_solvers.py``: MovieLens, with and without features; generated ratings.

Both parts of a split share all vocabularies, whatever is in the training rows: an id or a day
without a training row is at its prior. Histories are of the training rows alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

import fmknn
from fmknn.data.blocks import design_of_interactions

FOLDS = ("u1", "u2", "u3", "u4", "u5")
SPLIT_1M = "splits/ml1m.r90.npz"  # below FMKNN_DATA
NO_SPLIT_1M = f"there is no {SPLIT_1M} below FMKNN_DATA"
_BAND_STARTS = (18, 25, 35, 45, 50, 56)
_BANDS = np.array(["under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+"], object)
_SECONDS_A_DAY = 86_400


class Split(NamedTuple):
    """Training and test rows."""

    train: fmknn.Interactions
    test: fmknn.Interactions


class Matrices(NamedTuple):
    """The columns of a split's blocks, as relation blocks take them.

    Attributes
    ----------
    tables : list of csr_matrix
        Of each block, the features of its entities.
    train, test : ndarray of int, shape (n, n_blocks)
        The entity of each block in each row.
    widths : list of list of int
        Of each block, the numbers of columns that share a prior.
    """

    tables: list[sp.csr_matrix]
    train: np.ndarray
    test: np.ndarray
    widths: list[list[int]]


def load_100k(fold: str, features: bool = False) -> Split:
    """Return a published fold of MovieLens 100K, with ids alone or with all features and days."""
    train, test = fmknn.datasets.load_movielens("100k", fold=fold)
    if not features:
        return Split(train.without_features(), test.without_features())
    stamps = np.concatenate([train.timestamps, test.timestamps])
    return _with_histories(_joined(train, test, days=stamps // _SECONDS_A_DAY))


def load_1m(features: bool = False) -> Split | None:
    """Return the fixed 90/10 split of MovieLens 1M; None where its file is not."""
    path = Path(os.environ.get("FMKNN_DATA", ".")) / SPLIT_1M
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        parts = [
            fmknn.Interactions.from_arrays(
                *(arrays[f"{part}_{name}"] for name in ("user", "item", "rating"))
            )
            for part in ("train", "test")
        ]
    if not features:
        return _joined(*parts)
    whole = fmknn.datasets.load_movielens("1m", download=False)
    return _with_histories(_joined(*parts, tables_of=whole))


def _joined(
    train: fmknn.Interactions,
    test: fmknn.Interactions,
    *,
    tables_of: fmknn.Interactions | None = None,
    days: np.ndarray | None = None,
) -> Split:
    """The same rows with common vocabularies, the side features of ``tables_of``, and days."""
    tables = train if tables_of is None else tables_of
    people = tables.user_features
    both = fmknn.Interactions.from_arrays(
        np.concatenate([train.user_ids, test.user_ids]),
        np.concatenate([train.item_ids, test.item_ids]),
        np.concatenate([train.values, test.values]),
        context=None if days is None else {"day": days},
        user_features=None if people is None else _with_age_bands(people),
        item_features=tables.item_features,
    )
    n = len(train)
    return Split(both.take(np.arange(n)), both.take(np.arange(n, len(both))))


def _with_age_bands(people: fmknn.FeatureTable) -> fmknn.FeatureTable:
    band = _BANDS[np.searchsorted(_BAND_STARTS, people["age"], side="right")]
    columns = {"age": band, "gender": people["gender"], "occupation": people["occupation"]}
    return fmknn.FeatureTable(people.ids, columns)


def _with_histories(split: Split) -> Split:
    train = split.train.with_history()
    return Split(train, split.test.with_features_of(train))


def one_hot(rows: fmknn.Interactions) -> sp.csr_matrix:
    """Return rows of ids as a matrix of one-hot columns: users, then items."""
    design = design_of_interactions(rows)
    return sp.csr_matrix(design.expand(0, design.n_rows).to_scipy())


def matrices(split: Split) -> Matrices:
    """Return a split's blocks as matrices, for a peer that takes relation blocks."""
    design = design_of_interactions(split.train)
    starts = np.array([block.start for block in design.blocks])
    tables, widths = [], []
    for block in design.blocks:
        rows = design.rows_of(block.name).to_scipy()
        tables.append(sp.csr_matrix(rows[:, block.columns], dtype=np.float64))
        widths.append(np.unique(design.groups[block.columns], return_counts=True)[1].tolist())
    test = design_of_interactions(split.test)
    return Matrices(tables, design.index - starts, test.index - starts, widths)


def rmse(predicted: np.ndarray, rows: fmknn.Interactions) -> float:
    """Return the error of predictions, each within the range of the ratings."""
    clipped = np.clip(predicted, 1.0, 5.0)
    return float(np.sqrt(np.mean((clipped - rows.values) ** 2)))


def generate(n: int, n_users: int, n_items: int, seed: int = 0) -> fmknn.Interactions:
    """Return n ratings whose users and items are as unequal as Zipf has them.

    The r-th user occurs about r^-½ times as often as the first, the r-th item r^-¾ times.
    """
    rng = np.random.default_rng(seed)
    user_bias, item_bias = rng.normal(0, 0.5, n_users), rng.normal(0, 0.5, n_items)
    users, items = np.empty(n, np.int32), np.empty(n, np.int32)
    values = np.empty(n, np.float32)
    for start in range(0, n, 1_000_000):  # in parts, so that little memory is needed beside
        part = slice(start, min(start + 1_000_000, n))
        m = part.stop - part.start
        users[part] = n_users * rng.random(m) ** 2
        items[part] = n_items * rng.random(m) ** 4
        score = 3.5 + user_bias[users[part]] + item_bias[items[part]] + rng.normal(0, 0.8, m)
        values[part] = np.clip(np.rint(score), 1, 5)
    return fmknn.Interactions.from_arrays(users, items, values)
