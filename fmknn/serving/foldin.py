"""People and items that the training never saw: features and histories in, lists out.

What their vectors are is said in :mod:`fmknn.serving.newcomer_blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .._checks import plain, require_bool, require_count
from ..data.encoders import SideEncoder
from ..data.ids import IdMap
from ..data.rows import SparseRows
from ..index.base import Hits, ItemLists
from ..index.rank import pair_scores
from ..model.base import Model, expectation
from ..solvers.row_rules import RowRule
from .newcomer_blocks import Newcomers, NewItems, NewUsers
from .queries import Block, QueryDesign, context_blocks, faded, id_list, known_positions
from .row_solver import Meetings
from .service import Service
from .topn import TopN

__all__ = ["FoldIn", "one"]

_USERS_AT_ONCE = 8192  # whose query rows are laid out: those of a posterior are long


@dataclass(frozen=True)
class FoldIn:
    """Answers about newcomers; see :class:`fmknn.serving.newcomers.Newcomers` for the arguments.

    Attributes
    ----------
    service : Service
    row_rule : callable
        Returns how the rows of new ids are solved, or raises where they can't be.
    """

    service: Service
    row_rule: Callable[[], RowRule]

    def recommend(
        self,
        names: np.ndarray,
        histories: Sequence[Any],
        n: int,
        *,
        features: Mapping[str, Any] | None,
        context: Mapping[str, Any] | None,
        exclude_seen: bool,
        exclude: Any,
        candidates: Any,
        unknown: str,
        context_default: str,
        popularity: float,
    ) -> TopN:
        """Return the n best items for each new user; all have the same ``features``."""
        service, catalog = self.service, self.service.catalog
        exclude_seen = require_bool("exclude_seen", exclude_seen)
        contexts = tuple(context_blocks(catalog, context, len(names), context_default).values())
        known = self._known("user", histories, catalog.items, unknown, _alike(features, names))
        block = NewUsers(catalog, *known, contexts)
        nobody = np.full(len(names), -1, np.int32)
        design = QueryDesign(np.arange(len(names)), nobody, (block, *contexts))
        barred = _barred(block.meetings, exclude_seen, exclude, catalog.items, unknown)
        allowed = None
        if candidates is not None:
            allowed = known_positions(catalog.items, candidates, unknown)
        rows, offsets = design.project(service.model, n_jobs=service.n_jobs)
        rows = faded(rows, popularity)
        hits = service.index.search(rows, n, exclude=barred, candidates=allowed)
        predict = partial(service.predictor.of_lists, design)
        return TopN.of(names, hits, offsets, catalog.items, predict, catalog.frame_library)

    def users_for(
        self,
        history: Any,
        n: int,
        *,
        features: Mapping[str, Any] | None,
        context: Mapping[str, Any] | None,
        exclude_seen: bool,
        exclude: Any,
        candidates: Any,
        unknown: str,
        context_default: str,
    ) -> TopN:
        """Return the n users who score highest for one new item."""
        service, catalog = self.service, self.service.catalog
        n, exclude_seen = require_count("n", n), require_bool("exclude_seen", exclude_seen)
        contexts = tuple(context_blocks(catalog, context, 1, context_default).values())
        item = self._new_items([history], _alike(features, one()), contexts, unknown)
        barred = _barred(item.meetings, exclude_seen, exclude, catalog.users, unknown).indices
        allowed = np.arange(len(catalog.users))
        if candidates is not None:
            allowed = np.unique(known_positions(catalog.users, candidates, unknown))
        allowed = np.setdiff1d(allowed, barred)
        scores = self._scores(service.model, item, allowed)
        best = np.lexsort((allowed, -scores))[:n]
        hits = Hits(
            allowed[best][None].astype(np.int32),
            scores[best][None],
            np.array([len(best)], np.int32),
        )
        predict = partial(self._predictions, item)
        library = catalog.frame_library
        names = "item", "user"
        return TopN.of(one(), hits, np.zeros(1), catalog.users, predict, library, names)

    def newcomers(
        self,
        what: str,
        histories: Sequence[Any],
        features: Mapping[str, Any],
        context: Mapping[str, Any] | None,
        *,
        unknown: str,
        context_default: str,
    ) -> Newcomers:
        """Return new users or items, each with its own history and values of the features."""
        catalog = self.service.catalog
        n = 1 if what == "item" else len(histories)
        contexts = tuple(context_blocks(catalog, context, n, context_default).values())
        if what == "item":
            return self._new_items(histories, features, contexts, unknown)
        known = self._known("user", histories, catalog.items, unknown, features)
        return NewUsers(catalog, *known, contexts)

    def _new_items(
        self,
        histories: Sequence[Any],
        features: Mapping[str, Any] | None,
        contexts: tuple[Block, ...],
        unknown: str,
    ) -> NewItems:
        catalog = self.service.catalog
        known = self._known("item", histories, catalog.users, unknown, features)
        _, meetings, rule = known
        if rule is not None and rule.alpha0 and catalog.contexts and len(meetings.partners):
            raise ValueError(
                "a whole-data model with contexts does not know which of them each user was in: "
                "leave history out to go by the item's features alone"
            )
        return NewItems(catalog, *known, contexts)

    def _scores(self, model: Model, item: NewItems, users: np.ndarray) -> np.ndarray:
        """Return what users score with the one new item, as a search would."""
        vectors, biases = item.project(model, self.service.n_jobs)
        row = np.column_stack([vectors, biases]).astype(np.float32)
        scores = np.empty(len(users))
        for start in range(0, len(users), _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            queries, offsets = item.users(users[part]).project(model, n_jobs=self.service.n_jobs)
            nought = np.zeros(len(queries), np.int32)
            scores[part] = offsets + pair_scores(queries, row, nought, self.service.n_jobs)
        return scores

    def _predictions(self, item: NewItems, top: TopN) -> np.ndarray:
        users = top.positions[0].astype(np.int64)
        model, link = self.service.model, self.service.link
        mean, _ = expectation(model, lambda sample: self._scores(sample, item, users), link)
        return mean[None]

    def _known(
        self,
        what: str,
        histories: Sequence[Any],
        partners: IdMap,
        unknown: str,
        features: Mapping[str, Any] | None,
    ) -> tuple[SparseRows, Meetings, RowRule | None]:
        """Return what is known of newcomers of a side: features, meetings, and the rule."""
        if self.service.catalog.encoders is None:
            raise ValueError(
                "this model is of an older file, which does not say how features are made: "
                "fit it again to ask for somebody new"
            )
        encoder = self.service.catalog.encoders[what]
        meetings = _meetings(histories, partners, unknown)
        rule = self._rule(encoder, histories, meetings) if encoder.has_id else None
        rows = encoder.rows(features, meetings.indptr, meetings.partners, partners.ids)
        return rows, meetings, rule

    def _rule(
        self, encoder: SideEncoder, histories: Sequence[Any], meetings: Meetings
    ) -> RowRule | None:
        try:
            rule = self.row_rule()
        except ValueError:
            if len(meetings.partners):
                raise
            return None  # features alone need none
        other = "item" if encoder.what == "user" else "user"
        if not rule.needs_values:
            if len(meetings.values) and meetings.values.min() <= 0:
                raise ValueError("the counts of a history must be above 0: leave out what was not")
        elif not all(history is None or isinstance(history, Mapping) for history in histories):
            raise ValueError(
                f"this model learned from values: give a history as {{{other} id: value}}"
            )
        return rule


def _alike(features: Any, names: np.ndarray) -> Any:
    """Return the features of each of some newcomers, which all have the same."""
    if not isinstance(features, Mapping):
        return features
    return {name: [value] * len(names) for name, value in features.items()}


def one() -> np.ndarray:
    """Return what stands for somebody new among ids: None."""
    return np.array([None], object)


def _meetings(histories: Sequence[Any], partners: IdMap, unknown: str) -> Meetings:
    """Return histories by position: a list counts how often it names each id."""
    if unknown not in ("raise", "skip"):
        raise ValueError(f"unknown must be one of raise, skip, got {unknown!r}")
    ids, values, lengths = [], [], []
    for history in histories:
        history = {} if history is None else history
        is_mapping = isinstance(history, Mapping)
        ids.append(id_list(list(history) if is_mapping else history, partners.what))
        lengths.append(len(ids[-1]))
        values.append(_values(history, partners.what) if is_mapping else np.ones(lengths[-1]))
    given = [part for part in ids if len(part)]
    positions = np.empty(0, np.int32)
    if given:
        policy = "raise" if unknown == "raise" else "mark"
        positions = partners.positions(np.concatenate(given), unknown=policy)
    known = positions >= 0
    owner = np.repeat(np.arange(len(histories)), lengths)[known]
    key, place = np.unique(
        owner * len(partners) + positions[known].astype(np.int64), return_inverse=True
    )
    weight = np.concatenate([np.empty(0), *values])[known]
    owner, position = np.divmod(key, max(len(partners), 1))
    counts = np.bincount(owner, minlength=len(histories))
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Meetings(indptr, position, np.bincount(place, weight, len(key)))


def _values(history: Mapping[Any, Any], what: str) -> np.ndarray:
    values = np.asarray(list(history.values()) or np.empty(0))
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise TypeError(f"a history must map each {what} id to a number")
    values = values.astype(np.float64)
    valid = np.abs(values) <= np.finfo(np.float32).max  # what the training takes
    if not valid.all():
        place = int(np.argmin(valid))
        raise ValueError(
            f"the history has {values[place]} for {what} {plain(list(history)[place])!r}: "
            "values must be finite float32 numbers"
        )
    return values


def _barred(
    meetings: Meetings, exclude_seen: bool, exclude: Any, partners: IdMap, unknown: str
) -> ItemLists:
    """Return what must not be listed: the history of each, and what else is named, for all."""
    n = len(meetings)
    owners, positions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if exclude_seen:
        owners.append(np.repeat(np.arange(n), meetings.lengths))
        positions.append(meetings.partners)
    if exclude is not None:
        more = known_positions(partners, exclude, unknown)
        owners.append(np.repeat(np.arange(n), len(more)))
        positions.append(np.tile(more, n))
    return ItemLists.from_pairs(np.concatenate(owners), np.concatenate(positions), n)
