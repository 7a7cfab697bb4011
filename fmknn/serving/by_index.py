"""By index: which items and which users are alike, and whom an item is for, all by index.

With the item and its context on one side and the user on the other, an FM is an inner product too:
score = w0 + b_i + b_c + scale · <q_i, q_c> + <[scale · (q_i + q_c), 1], [q_u, b_u]>, where scale is
1, or 1/S of a posterior. So one index over the users' rows [q_u, b_u] answers in every context.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._checks import require_bool, require_count
from ..data.ids import IdMap
from ..data.rows import SparseRows
from ..index.base import Hits, Index, ItemLists
from ..index.exact import ExactIndex
from ..model.projection import query_matrix
from .pairs import score_in_chunks
from .queries import (
    Block,
    Entities,
    QueryDesign,
    context_blocks,
    evenly,
    id_list,
    known_positions,
    require_choice,
)
from .service import Service
from .topn import TopN

__all__ = ["Related"]

_SPARE = 16  # users fetched beyond n: those at the end that rounding may have put in another order
_ENTRIES_AT_ONCE = 4_000_000  # of the lists that a search returns
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_UNIT_ROUNDOFF_OF_SUMS = 2.0**-53  # of float64

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Users:
    """All users of the training, to be searched."""

    index: Index  # over [q_u, b_u]
    biases: np.ndarray  # b_u in float64
    largest_norm: float  # of the q_u
    largest_bias: float


@dataclass(frozen=True)
class _Asked:
    """Items that users are wanted for, each in its context."""

    items: np.ndarray
    contexts: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.items)

    def take(self, which: np.ndarray) -> _Asked:
        return _Asked(self.items[which], tuple(block.take(which) for block in self.contexts))


@dataclass(frozen=True, eq=False)
class Related:
    """What a fitted model says of its own users and items; see :mod:`fmknn.serving.relations`.

    Indexes are built when they are first needed, once, and kept as long as this object. They are of
    the kind of the model's own: exact where that is. If there are fewer rows than items, so that
    settings made for the items may not fit, or the model's searches elsewhere, they are exact.

    Attributes
    ----------
    service : Service
    """

    service: Service
    _lock: Any = field(default_factory=threading.RLock, repr=False)
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def is_of(self, service: Service) -> bool:
        """Whether this is of the same model, catalog and index, and not of what they were."""
        own = self.service
        return (
            own.model is service.model
            and own.catalog is service.catalog
            and own.index is service.index
            and own.link == service.link
            and own.n_jobs == service.n_jobs
        )

    def similar(self, id_map: IdMap, rows: SparseRows, ids: Any, n: int, unknown: str) -> TopN:
        """Return the n entities of a side with the largest cosine to each, itself left out."""
        n = require_count("n", n)
        asked = known_positions(id_map, id_list(ids, id_map.what), unknown)
        index = self._once(f"alike {id_map.what}", partial(self._index_of_directions, rows))
        itself = ItemLists.from_pairs(np.arange(len(asked)), asked, len(asked))
        hits = index.search(index.vectors[asked], n, exclude=itself)
        nothing = np.zeros(len(asked))
        return TopN.of(
            id_map.ids[asked],
            hits,
            nothing,
            id_map,
            lambda top: top.scores,
            self.service.catalog.frame_library,
            (id_map.what, f"similar_{id_map.what}"),
        )

    def users_for_item(
        self,
        items: Any,
        n: int,
        *,
        exclude_seen: bool,
        exclude: Any,
        candidates: Any,
        context: Mapping[str, Any] | None,
        context_default: str,
        unknown: str,
    ) -> TopN:
        """Return the n users who score highest for each item."""
        catalog = self.service.catalog
        n, exclude_seen = require_count("n", n), require_bool("exclude_seen", exclude_seen)
        require_choice("unknown", unknown, ("raise", "skip"))
        items = id_list(items, "item")
        policy = "raise" if unknown == "raise" else "mark"
        positions = catalog.items.positions(items, unknown=policy).astype(np.int64)
        blocks = context_blocks(catalog, context, len(items), context_default)
        known = np.flatnonzero(positions >= 0)
        asked = _Asked(positions, tuple(blocks.values())).take(known)
        barred = ItemLists.empty(len(asked))
        if exclude_seen:
            barred = self._once("takers", self._takers).take(asked.items)
        hits = self._search(asked, n, barred, self._allowed(exclude, candidates, unknown))
        nothing, predict = np.zeros(len(asked)), partial(self._predictions, asked)
        library, names = catalog.frame_library, ("item", "user")
        return TopN.of(items[known], hits, nothing, catalog.users, predict, library, names)

    def _once(self, name: str, make: Callable[[], _T]) -> _T:
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            made: _T = self._kept[name]
            return made

    def _built(self, rows: np.ndarray, sample: Callable[[], np.ndarray]) -> Index:
        index = self.service.index
        if len(rows) < index.n_items or hasattr(index, "local"):
            index = ExactIndex(n_jobs=self.service.n_jobs)
        if not getattr(index, "tunes_on_queries", False):
            return index.build(rows)
        return index.build(rows, sample())

    def _index_of_directions(self, rows: SparseRows) -> Index:
        q, _ = self.service.model.project(rows, n_jobs=self.service.n_jobs)
        vectors = q.astype(np.float64)
        norms = np.sqrt((vectors**2).sum(axis=1))
        unit = np.zeros((len(q), q.shape[1] + 1), np.float32)  # as wide as the model's own rows
        unit[:, :-1] = vectors / np.where(norms > 0, norms, 1.0)[:, None]
        return self._built(unit, lambda: unit[evenly(len(unit))])

    def _index_of_users(self) -> _Users:
        model, catalog = self.service.model, self.service.catalog
        q, b = model.project(catalog.user_rows, n_jobs=self.service.n_jobs)
        rows = np.column_stack([q, b.astype(np.float32)])

        def sample() -> np.ndarray:
            items = evenly(len(catalog.items))
            blocks = context_blocks(catalog, None, len(items), "mean")
            parts = self._parts(_Asked(items, tuple(blocks.values())))
            return query_matrix(model, parts, n_jobs=self.service.n_jobs)[0]

        index = self._built(rows, sample)
        return _Users(index, b, float(_norms(q).max()), float(np.abs(b).max()))

    def _takers(self) -> ItemLists:
        """Return the users who have each item in training."""
        users, items = self.service.catalog.seen.pairs()
        return ItemLists.from_pairs(items, users, len(self.service.catalog.items))

    def _allowed(self, exclude: Any, candidates: Any, unknown: str) -> np.ndarray | None:
        users = self.service.catalog.users
        if candidates is None and exclude is None:
            return None
        allowed = np.arange(len(users))
        if candidates is not None:
            allowed = np.unique(known_positions(users, candidates, unknown))
        if exclude is not None:
            allowed = np.setdiff1d(allowed, known_positions(users, exclude, unknown))
        return allowed

    def _parts(self, asked: _Asked) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (q, b) of each item, and of each of its contexts: what queries are made of."""
        rows = self.service.index.vectors[asked.items]
        return [(rows[:, :-1], rows[:, -1].astype(np.float64)), *self._contexts(asked)]

    def _contexts(self, asked: _Asked) -> list[tuple[np.ndarray, np.ndarray]]:
        return [block.project(self.service.model, self.service.n_jobs) for block in asked.contexts]

    def _search(self, asked: _Asked, n: int, barred: ItemLists, allowed: np.ndarray | None) -> Hits:
        """Fetch a few more than n by index, rank them as the model does, and again if unsure."""
        n_users = len(self.service.catalog.users) if allowed is None else len(allowed)
        hits = Hits.empty(len(asked), min(n, n_users))
        n_fetched = min(n + _SPARE, n_users)
        rest = np.arange(len(asked)) if n_users else np.empty(0, np.int64)
        while len(rest):
            unsure = []
            step = max(1, _ENTRIES_AT_ONCE // n_fetched)
            for start in range(0, len(rest), step):
                part = rest[start : start + step]
                lists = asked.take(part), barred.take(part), allowed
                found, certain = self._fetch(*lists, hits.positions.shape[1], n_fetched)
                hits.put(part, found)
                unsure.append(part[~certain])
            if n_fetched == n_users:
                break
            rest, n_fetched = np.concatenate(unsure), min(4 * n_fetched, n_users)
        return hits

    def _fetch(
        self,
        asked: _Asked,
        barred: ItemLists,
        allowed: np.ndarray | None,
        n: int,
        n_fetched: int,
    ) -> tuple[Hits, np.ndarray]:
        """Return the n best of those that the index finds, and for which items it is certain."""
        users = self._once("users", self._index_of_users)
        parts = self._parts(asked)
        queries, offsets = query_matrix(self.service.model, parts, n_jobs=self.service.n_jobs)
        found = users.index.search(queries, n_fetched, exclude=barred, candidates=allowed)
        which, place = np.nonzero(found.positions >= 0)
        scores = np.full(found.positions.shape, -np.inf)
        scores[which, place] = self._scores(users, asked, which, found.positions[which, place])
        best = np.lexsort((found.positions, -scores), axis=1)[:, :n]
        hits = Hits(
            np.take_along_axis(found.positions, best, axis=1),
            np.take_along_axis(scores, best, axis=1),
            np.minimum(found.counts, n),
        )
        certain = found.counts < n_fetched  # those were all
        full = np.flatnonzero(~certain)
        highest = found.scores[full, -1] + offsets[full]  # of those that were not fetched
        highest += self._rounding(users, parts, queries)[full]
        certain[full] = hits.scores[full, -1] > highest
        return hits, certain

    def _rounding(
        self, users: _Users, parts: list[tuple[np.ndarray, np.ndarray]], queries: np.ndarray
    ) -> np.ndarray:
        """Return how far a score of the index may be from the model's.

        In both rows are float32, and biases are added up in float64, in another order.
        """
        scale = self.service.model.query_scale
        item = _norms(parts[0][0])
        query = _norms(queries[:, :-1])  # scale · (q_i + q_c), so that scale · q_c is within
        context = query + scale * item
        of_index = users.largest_bias + query * users.largest_norm
        of_model = (scale * users.largest_norm + context) * item
        terms = abs(self.service.model.w0) + users.largest_bias + of_index + of_model
        terms += sum(np.abs(b) for _, b in parts)
        of_sums = 4 * (len(parts) + 1) * _UNIT_ROUNDOFF_OF_SUMS * terms
        return 2 * _UNIT_ROUNDOFF * (of_index + of_model) + of_sums

    def _scores(
        self, users: _Users, asked: _Asked, which: np.ndarray, positions: np.ndarray
    ) -> np.ndarray:
        """Return the model's score of (item asked, user) pairs, the same bits as anywhere."""
        model, n_jobs = self.service.model, self.service.n_jobs

        def queries(part: slice) -> tuple[np.ndarray, np.ndarray]:
            user = positions[part]
            known = users.index.vectors[user, :-1], users.biases[user]
            parts = [known, *self._contexts(asked.take(which[part]))]
            return query_matrix(model, parts, n_jobs=n_jobs)

        return score_in_chunks(queries, self.service.index.vectors, asked.items[which], n_jobs)

    def _predictions(self, asked: _Asked, top: TopN) -> np.ndarray:
        """Return what the model predicts of the users in the lists of items."""
        n, width = top.positions.shape
        pairs = asked.take(np.repeat(np.arange(n), width))
        users = np.maximum(top.positions.ravel(), 0)
        blocks = Entities(self.service.catalog.user_rows, users), *pairs.contexts
        design, which = QueryDesign(np.arange(n * width), users, blocks).distinct()
        predicted = self.service.predictor.of_pairs(design, which, pairs.items)
        return predicted.reshape(n, width)


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
