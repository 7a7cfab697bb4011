"""The data of ``bench_ranking.py``: recorded interactions, each with its published protocol.

All rows of a task share one vocabulary, and every item in it is a candidate. What holds the
hyperparameters to account is :func:`validation`: a task of the training rows alone.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import fmknn
from fmknn.errors import DataNotFoundError

FILES = {
    "ml100k": "splits/ml100k.topn.npz",
    "ml1m": "splits/ml1m.topn.npz",
    "gowalla": "gowalla/gowalla.npz",
    "ensfm": "ensfm-ml-1m/ml-1m.npz",
    "retail": "online-retail/online_retail.csv.gz",
}  # below FMKNN_DATA


class Task(NamedTuple):
    """Rows to learn from, rows to find, and how finding them is measured.

    Attributes
    ----------
    name : str
    train, test : Interactions
        With side features where the data has them.
    metrics : tuple of str
        As fmknn.evaluate names them. The first one decides a search.
    exclude_seen : bool
        Whether a user's training items are left out of the lists.
    hold_out : callable
        How training rows are split in two once more, for the choice of hyperparameters.
    """

    name: str
    train: fmknn.Interactions
    test: fmknn.Interactions
    metrics: tuple[str, ...]
    exclude_seen: bool
    hold_out: Callable[[fmknn.Interactions], tuple[fmknn.Interactions, fmknn.Interactions]]


def load(name: str) -> Task:
    """Return a task by its name; those of one shop are "retail-new" and "retail-repeats"."""
    return _LOADERS[name]()


def validation(task: Task) -> Task:
    """Return the same task one step earlier, within the training rows."""
    train, test = task.hold_out(task.train)
    if task.exclude_seen:
        test = _unseen(train, test)
    return task._replace(train=train, test=test)


def part_of(task: Task, n_users: int) -> Task:
    """Return the task of its first users alone, with the whole vocabulary."""
    train, test = (rows.take(rows.user_index < n_users) for rows in (task.train, task.test))
    return task._replace(train=train, test=test)


def counts(rows: fmknn.Interactions) -> sp.csr_matrix:
    """Return how often each user met each item."""
    ones = np.ones(len(rows), np.float32)
    shape = len(rows.users), len(rows.items)
    return sp.csr_matrix((ones, (rows.user_index, rows.item_index)), shape)


def find(key: str) -> Path:
    """Return the path of a data file, or say where it was looked for."""
    path = Path(os.environ.get("FMKNN_DATA", ".")) / FILES[key]
    if not path.is_file():
        raise DataNotFoundError(f"there is no {FILES[key]} below FMKNN_DATA")
    return path


def _movielens(key: str, name: str) -> Task:
    """A fifth of each user's films held out; the ratings themselves are not looked at."""
    with np.load(find(key), allow_pickle=False) as arrays:
        users, items = (
            np.concatenate([arrays[f"{part}_{side}"] for part in ("train", "test")])
            for side in ("user", "item")
        )
        n_train = len(arrays["train_user"])
    try:
        whole = fmknn.datasets.load_movielens(name, download=False)
        features = _of_ids(whole.user_features, users), _of_ids(whole.item_features, items)
    except DataNotFoundError:
        features = None, None
    rows = fmknn.Interactions.from_arrays(
        users, items, user_features=features[0], item_features=features[1]
    )
    metrics = "ndcg@10", "recall@20"
    return Task(key, *_split_at(rows, n_train), metrics, True, _tenth_of_each_user)


def _of_ids(table: Any, ids: np.ndarray) -> fmknn.FeatureTable:
    """The rows of some ids: an item that nobody met would be one more candidate."""
    kept = np.isin(table.ids, ids)
    columns = {name: column[kept] for name, column in table.columns.items()}
    return fmknn.FeatureTable(
        table.ids[kept],
        columns,
        features=table.features,
        categorical=[name for name in ("age", "year") if name in columns],
    )


def _gowalla() -> Task:
    """Check-ins as LightGCN splits them; its validation rows are training rows, as in its paper."""
    with np.load(find("gowalla"), allow_pickle=False) as arrays:
        rows = fmknn.Interactions.from_arrays(arrays["user"], arrays["item"])
        in_test = arrays["split"] == 2
    train, test = rows.take(~in_test), rows.take(in_test)
    return Task("gowalla", train, test, ("recall@20", "ndcg@20"), True, _tenth_of_each_user)


def _ensfm() -> Task:
    """Leave-one-out on MovieLens 1M with three attributes of users and one of items."""
    with np.load(find("ensfm"), allow_pickle=False) as arrays:
        contexts, items = (
            np.concatenate([arrays[f"{part}_{side}"] for part in ("train", "test")])
            for side in ("context", "item")
        )
        n_train = len(arrays["train_item"])
    rows = fmknn.Interactions.from_arrays(
        contexts[:, 0],
        items[:, 0],
        user_features=_attributes(contexts),
        item_features=_attributes(items),
        timestamps=np.arange(len(items)),  # a user's rows are in the order of time: see the README
    )
    metrics = "hit_rate@10", "hit_rate@5", "hit_rate@20"
    return Task("ensfm", *_split_at(rows, n_train), metrics, True, _last_of_each_user)


def _attributes(ids: np.ndarray) -> fmknn.FeatureTable:
    """The columns after the first, as categories of the id in the first."""
    rows = np.unique(ids, axis=0)
    columns = {f"attribute {i}": rows[:, i].astype(str) for i in range(1, rows.shape[1])}
    return fmknn.FeatureTable(rows[:, 0], columns)


def _retail(repeats: bool) -> Task:
    """Each customer's last basket, whole or without what the customer had bought before."""
    train, test = _last_basket(_purchases(find("retail")))
    if not repeats:
        test = _unseen(train, test)
    name = "retail-repeats" if repeats else "retail-new"
    return Task(name, train, test, ("ndcg@20", "recall@20"), not repeats, _last_basket)


def _purchases(path: Path) -> fmknn.Interactions:
    """One row for each product in each basket of a known customer; the time is the basket's rank.

    Cancellations and returns are left out. Two lines of one basket about one product are one row.
    """
    baskets: dict[str, str] = {}  # when each was begun
    countries: dict[str, str] = {}
    bought: dict[tuple[str, str, str], None] = {}  # distinct, in the order of the file
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            customer, basket = line["CustomerID"], line["InvoiceNo"]
            if customer and int(line["Quantity"]) > 0 and not basket.startswith("C"):
                time = line["InvoiceDate"]
                baskets[basket] = min(time, baskets.get(basket, time))
                countries.setdefault(customer, line["Country"])
                bought[customer, basket, line["StockCode"]] = None
    customers, basket_of, products = map(np.array, zip(*bought, strict=True))
    in_order = sorted(baskets, key=lambda basket: (baskets[basket], basket))
    rank = {basket: i for i, basket in enumerate(in_order)}
    return fmknn.Interactions.from_arrays(
        customers,
        products,
        timestamps=np.array([rank[basket] for basket in basket_of]),
        user_features=fmknn.FeatureTable(
            list(countries), {"country": np.array(list(countries.values()))}
        ),
    )


def _last_basket(
    rows: fmknn.Interactions,
) -> tuple[fmknn.Interactions, fmknn.Interactions]:
    """Put each customer's last basket into the test part; a customer's only one stays."""
    times = np.asarray(rows.timestamps)
    first, last = np.full(len(rows.users), times.max()), np.full(len(rows.users), -1)
    np.minimum.at(first, rows.user_index, times)
    np.maximum.at(last, rows.user_index, times)
    in_test = (times == last[rows.user_index]) & (times > first[rows.user_index])
    return rows.take(~in_test), rows.take(in_test)


def _unseen(train: fmknn.Interactions, test: fmknn.Interactions) -> fmknn.Interactions:
    """The test rows whose user did not have their item in training."""
    width = len(train.items)
    pairs = (rows.user_index.astype(np.int64) * width + rows.item_index for rows in (test, train))
    return test.take(~np.isin(*pairs))


def _split_at(
    rows: fmknn.Interactions, n_train: int
) -> tuple[fmknn.Interactions, fmknn.Interactions]:
    return rows.take(np.arange(n_train)), rows.take(np.arange(n_train, len(rows)))


def _tenth_of_each_user(
    rows: fmknn.Interactions,
) -> tuple[fmknn.Interactions, fmknn.Interactions]:
    return fmknn.splits.random(rows, test=0.1, random_state=0, per_user=True)


def _last_of_each_user(
    rows: fmknn.Interactions,
) -> tuple[fmknn.Interactions, fmknn.Interactions]:
    """Hold out the last row: a user's rows are in the order of time, and the test is the last."""
    return fmknn.splits.leave_last(rows)


_LOADERS: dict[str, Callable[[], Task]] = {
    "ml100k": lambda: _movielens("ml100k", "100k"),
    "ml1m": lambda: _movielens("ml1m", "1m"),
    "gowalla": _gowalla,
    "ensfm": _ensfm,
    "retail-new": lambda: _retail(repeats=False),
    "retail-repeats": lambda: _retail(repeats=True),
}
TASKS = tuple(_LOADERS)
