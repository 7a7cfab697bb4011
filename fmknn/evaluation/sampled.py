"""Sampled metrics: each relevant test row ranked among a few other items, not the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._checks import plain, require_count
from ..data.ids import as_ids
from ..index.base import ItemLists
from .base import ITEM_METRICS, RANKING, RATING, Metric, training_lists
from .bootstrap import Entries
from .lists import context_of

if TYPE_CHECKING:
    from ..data.interactions import Interactions
    from .base import Evaluable

__all__ = ["Negatives", "n_negatives", "named", "negatives_for", "rank_sampled"]


class Negatives(Protocol):
    """The items that each test row is ranked among."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of the items of some test rows, shape (n_rows, n)."""
        ...


class _Drawn:
    """Items drawn uniformly, without repetition, from those that are no positives of the user."""

    def __init__(
        self, model: Evaluable, test: Interactions, n: int, generator: np.random.Generator
    ) -> None:
        seen_user, seen_item = training_lists(model, "sampled").pairs()
        users = model.users.positions(test.user_ids, unknown="mark")
        items = model.items.positions(test.item_ids, unknown="mark")
        known = (users >= 0) & (items >= 0)
        self._positives = ItemLists.from_pairs(
            np.concatenate([seen_user, users[known]]),
            np.concatenate([seen_item, items[known]]),
            len(model.users),
        )
        self._model, self._users, self._n, self._generator = model, users, n, generator

    def of(self, rows: np.ndarray) -> np.ndarray:
        n_items, drawn = len(self._model.items), np.empty((len(rows), self._n), np.int64)
        indptr, indices = self._positives.indptr, self._positives.indices
        for out, user in zip(drawn, self._users[rows], strict=True):
            positives = indices[indptr[user] : indptr[user + 1]]
            n_left = n_items - len(positives)
            if n_left < self._n:
                raise ValueError(
                    f"sampled={self._n}: user {plain(self._model.users.ids[user])!r} has only "
                    f"{n_left} items that are no positives"
                )
            ranks = self._generator.choice(n_left, self._n, replace=False, shuffle=False)
            # the item of a rank lies as many positions on as there are positives before it
            before = np.searchsorted(positives - np.arange(len(positives)), ranks, side="right")
            out[:] = ranks + before
        return drawn


class _Given:
    """Items that somebody published, row by row of the test."""

    def __init__(self, model: Evaluable, test: Interactions, negatives: Any) -> None:
        lists = [as_ids(row, "item") for row in negatives]
        if len(lists) != len(test):
            raise ValueError(
                f"sampled has {len(lists)} rows of negatives for {len(test)} test rows"
            )
        lengths = np.array([len(row) for row in lists])
        if (lengths != lengths[0]).any() or not lengths[0]:
            row = int(np.argmax(lengths != lengths[0]))
            raise ValueError(
                f"sampled must have as many negatives for each test row, at least 1: "
                f"row {row} has {lengths[row]}, row 0 has {lengths[0]}"
            )
        self._positions = model.items.positions(np.concatenate(lists)).reshape(len(lists), -1)
        own = model.items.positions(test.item_ids, unknown="mark")
        itself = (self._positions == own[:, None]).any(axis=1)
        if itself.any():
            row = int(np.argmax(itself))
            raise ValueError(
                f"test row {row} has its own item {plain(test.item_ids[row])!r} among its "
                "negatives: are they in the order of the test rows?"
            )
        self.n = int(lengths[0])

    def of(self, rows: np.ndarray) -> np.ndarray:
        return self._positions[rows]


def n_negatives(sampled: Any) -> int:
    """Return how many items a test row is ranked among.

    Raises
    ------
    ValueError
        For what is neither a count nor a list of lists.
    """
    if hasattr(sampled, "__len__") and not isinstance(sampled, (str, bytes, Mapping)):
        return len(sampled[0]) if len(sampled) and np.ndim(sampled[0]) else 0
    return require_count("sampled", sampled)


def negatives_for(
    model: Evaluable, test: Interactions, sampled: Any, generator: np.random.Generator
) -> Negatives:
    """Return the items that each test row is ranked among, drawn or as given.

    Raises
    ------
    ValueError, UnknownIdError, TypeError
        For given ones that do not fit the test, or too few items to draw from.
    """
    if hasattr(sampled, "__len__"):
        return _Given(model, test, sampled)
    return _Drawn(model, test, n_negatives(sampled), generator)


def named(wanted: list[Metric], sampled: Any) -> list[Metric]:
    """Return the metrics under names that say how they were sampled.

    Raises
    ------
    ValueError
        For a metric of whole lists, or a list so long that every model's score is the same.
    """
    n = n_negatives(sampled)
    what = f"{n} given negatives" if hasattr(sampled, "__len__") else f"{n} negatives"
    renamed = []
    for metric in wanted:
        if metric.kind in RATING:
            renamed.append(metric)
            continue
        if metric.kind in ITEM_METRICS:
            raise ValueError(f"{metric.name} is of whole lists: it can't be sampled")
        if metric.k > n + 1:
            raise ValueError(
                f"{metric.name} asks for more items than the {n + 1} that are ranked: "
                f"sampled={n} and the test row's own"
            )
        renamed.append(metric._replace(name=f"sampled {metric.name} ({what})"))
    return renamed


def rank_sampled(
    model: Evaluable,
    test: Interactions,
    rows: np.ndarray,
    negatives: Negatives,
    wanted: list[Metric],
    chunk: int,
) -> dict[str, Entries]:
    """Return the sampled metrics of some test rows, one entry each.

    Equal scores rank by item position, as in lists.

    Raises
    ------
    TypeError
        If the model has no ``scores``.
    """
    if not wanted:
        return {}
    if not hasattr(model, "scores"):
        raise TypeError(f"sampled needs a model with scores: this {type(model).__name__} has none")
    places = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        own = model.items.positions(test.item_ids[part])
        items = np.column_stack([own, negatives.of(part)])
        each = np.repeat(part, items.shape[1])
        scores = model.scores(
            test.user_ids[each], model.items.ids[items.ravel()], context_of(test, each)
        ).reshape(items.shape)
        better = scores > scores[:, :1]
        better |= (scores == scores[:, :1]) & (items < own[:, None])
        places[start : start + chunk] = better.sum(axis=1)
    found = {}
    for name, kind, k in wanted:
        hits = np.arange(k) == places[:, None]
        values = RANKING[kind](hits, np.ones(len(rows), np.int64), k)
        found[name] = Entries(test.user_index[rows], values, np.ones(len(rows)))
    return found
