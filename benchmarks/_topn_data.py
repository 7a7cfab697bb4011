"""The workloads of ``bench_topn.py``: item vectors, query vectors, and what each user has seen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _ranking_data import load

import fmknn
from fmknn.datasets.fetch import cache_dir

_PAIRS_AT_ONCE = 500_000


class Work(NamedTuple):
    """What is searched, by whom, and without which items.

    Attributes
    ----------
    name : str
    vectors, queries : ndarray of float32, shapes (n_items, d) and (n_users, d)
    n : int
        List length.
    exclude : ItemLists, optional
        One list per query.
    """

    name: str
    vectors: np.ndarray
    queries: np.ndarray
    n: int
    exclude: fmknn.ItemLists | None = None

    def part(self, users: slice) -> Work:
        """Return the same for some of the users."""
        some = np.arange(len(self.queries))[users]
        lists = None if self.exclude is None else self.exclude.take(some)
        return self._replace(queries=self.queries[users], exclude=lists)


def flat(n_items: int, d: int, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Isotropic rows of norm 1 and isotropic queries: no bound tells items apart."""
    random = np.random.default_rng(n_items + d)
    vectors = random.standard_normal((n_items, d), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, random.standard_normal((n_users, d), np.float32)


def fm_like(n_items: int, d: int, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as factorization machines have them: [q_i, b_i] and [q_u, 1].

    Factor j has the spread j^-1/2 on both sides, the norms of the factors of items are lognormal
    with σ = 0.5, and the bias of an item goes with its popularity (correlation 0.8).
    """
    random = np.random.default_rng(n_items + d)
    spread = (np.arange(1, d, dtype=np.float32)) ** -0.5

    def factors(n: int, sigma: float) -> np.ndarray:
        rows = random.standard_normal((n, d - 1), np.float32) * spread
        norms = np.exp(sigma * random.standard_normal((n, 1), np.float32))
        return rows * (norms / np.linalg.norm(rows, axis=1, keepdims=True))

    popularity = -np.log(1 + random.permutation(n_items))  # of a Zipf law, as are real catalogues
    popularity = (popularity - popularity.mean()) / popularity.std()
    bias = 0.5 * (0.8 * popularity + 0.6 * random.standard_normal(n_items))
    items = np.column_stack([factors(n_items, 0.5), bias]).astype(np.float32)
    return items, np.column_stack([2 * factors(n_users, 0.3), np.ones(n_users, np.float32)])


def planted(n_items: int, d: int, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """FM-like rows in topics: a query is near one topic, and most of its list comes from it."""
    random = np.random.default_rng(n_items + d)
    items, queries = fm_like(n_items, d, n_users)
    n_topics = max(8, round(n_items**0.5))
    topics = fm_like(n_topics, d, 1)[0][:, :-1]
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    for rows, share in ((items, 1.5), (queries, 3.0)):
        norms = np.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
        rows[:, :-1] += share * norms * topics[random.integers(n_topics, size=len(rows))]
        rows[:, :-1] *= norms / np.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
    return items, queries


def seen_lists(
    vectors: np.ndarray, queries: np.ndarray, mean: float, least: int = 5
) -> fmknn.ItemLists:
    """Draw what users have seen: long-tailed counts; popular and high-scoring items more often.

    Counts are lognormal (σ = 1). Of three times as many items, drawn by popularity (Zipf), a user
    takes those of the highest score, up to noise as large as the scores' own spread.
    """
    n_users, n_items = len(queries), len(vectors)
    random = np.random.default_rng(n_items)
    counts = np.exp(random.standard_normal(n_users))
    counts = np.clip(counts * mean / counts.mean(), least, min(n_items // 3, 20 * mean))
    counts = np.rint(counts).astype(np.int64)
    weights = np.cumsum(1 / (10 + random.permutation(n_items)) ** 0.8)
    user = np.repeat(np.arange(n_users), 3 * counts)
    item = np.searchsorted(weights, random.random(len(user)) * weights[-1])
    item = np.minimum(item, n_items - 1)
    pairs = np.unique(user * n_items + item)
    user, item = pairs // n_items, pairs % n_items
    scores = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        scores[rows] = np.einsum("ij,ij->i", queries[user[rows]], vectors[item[rows]])
    order = np.lexsort((-scores - scores.std() * random.gumbel(size=len(scores)), user))
    starts = np.searchsorted(user, np.arange(n_users))
    taken = order[np.arange(len(pairs)) - starts[user] < counts[user]]
    return fmknn.ItemLists.from_pairs(user[taken], item[taken], n_users)


def made(
    name: str,
    kind: Callable[[int, int, int], tuple[np.ndarray, np.ndarray]],
    n_items: int,
    d: int,
    n_users: int,
    n: int = 100,
    seen: float = 0.0,
) -> Work:
    """Return generated work; ``seen`` is the mean number of items that a user has seen."""
    vectors, queries = kind(n_items, d, n_users)
    lists = seen_lists(vectors, queries, seen) if seen else None
    return Work(name, vectors, queries, n, lists)


def gowalla(name: str, n: int = 100) -> Work:
    """Return a trained model of Gowalla (LightGCN's split); it is kept in the cache folder."""
    train = load("gowalla").train
    model = fmknn.FMRanker(n_factors=64, random_state=0)
    path = cache_dir() / "benchmarks" / f"gowalla-{model!r}-{fmknn.__version__}.npz"
    if not path.is_file():
        _train_gowalla(model, train, path)
    with np.load(path, allow_pickle=False) as arrays:
        vectors, queries = arrays["vectors"], arrays["queries"]
    seen = fmknn.ItemLists.from_pairs(train.user_index, train.item_index, len(queries))
    order = np.random.default_rng(0).permutation(len(queries))  # so that any part is like all
    return Work(name, vectors, queries[order], n, seen.take(order))


def _train_gowalla(model: fmknn.FMRanker, train: fmknn.Interactions, path: Path) -> None:
    params = model.fit(train).params_
    n_users = len(train.users)
    vectors = fmknn.item_matrix(params, slice(n_users, params.n_features))
    queries = fmknn.user_matrix(params, slice(0, n_users))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        np.savez(whole, vectors=vectors, queries=queries)
        os.replace(whole, path)
