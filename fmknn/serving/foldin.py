"""People and items that the training never saw: features and histories in, rows out.

An entity's vector is p + v, where p is of its known features and v is what its own id would have
learned from the history, all else staying as it is; see :mod:`fmknn.serving.row_solver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._checks import plain, require_bool, require_count
from .._threads import blas_threads
from ..data.encoders import SideEncoder
from ..data.ids import IdMap
from ..data.rows import SparseRows
from ..index.base import Hits, ItemLists
from ..index.rank import pair_scores
from ..model.base import Model, expectation
from ..model.params import FMParams
from ..model.projection import query_matrix
from ..solvers.row_rules import RowRule
from .catalog import Catalog
from .queries import Block, Entities, QueryDesign, context_blocks, id_list, known_positions
from .row_solver import Meetings, Partners, solve_rows
from .service import Service
from .topn import TopN

__all__ = ["FoldIn", "one"]

_MOST_IDS = 10_000  # of the training, whose spread is that of somebody new
_USERS_AT_ONCE = 8192  # whose query rows are laid out: those of a posterior are long

_Part = tuple[np.ndarray, np.ndarray]  # vectors and biases
_N = TypeVar("_N", bound="_Newcomers")


@dataclass(frozen=True)
class _Newcomers(ABC):
    """New entities of one side: a block of queries, whatever model projects it.

    Attributes
    ----------
    catalog : Catalog
    rows : SparseRows
        Their known features.
    meetings : Meetings
    rule : RowRule or None
        How the rows of their ids are solved; None: they have none.
    contexts : tuple of Block
        Of the queries.
    """

    catalog: Catalog
    rows: SparseRows
    meetings: Meetings
    rule: RowRule | None
    contexts: tuple[Block, ...]

    @property
    def places(self) -> np.ndarray:
        """Which of them each query has: its own."""
        return np.arange(len(self.rows))

    def take(self: _N, which: np.ndarray) -> _N:
        """Return some of them."""
        return replace(
            self,
            rows=self.rows.take(which),
            meetings=self.meetings.take(which),
            contexts=tuple(block.take(which) for block in self.contexts),
        )

    def project(self, model: Model, n_jobs: int | None) -> _Part:
        """Return vector and bias of each, as :meth:`fmknn.model.base.Model.project` does."""
        with blas_threads(1):  # several may round differently
            parts = [self._project(sample, n_jobs) for sample in model.samples()]
        vectors, biases = zip(*parts, strict=True)
        return np.concatenate(vectors, axis=1), np.mean(biases, axis=0)

    def _project(self, sample: FMParams, n_jobs: int | None) -> _Part:
        part = vectors, biases = sample.project(self.rows, n_jobs=n_jobs)
        if self.rule is None:
            return part
        theta = self._theta(sample, part, self.rule, n_jobs)
        if np.abs(theta).max(initial=0.0) > np.finfo(np.float32).max:
            raise ValueError("the values of a history make a row beyond float32: they are too far")
        v, w = theta[:, :-1].astype(np.float32), theta[:, -1]
        inside = np.einsum("nf,nf->n", vectors, v, dtype=np.float64)  # pairs of id and features
        return vectors + v, biases + w + inside

    def _theta(
        self, sample: FMParams, part: _Part, rule: RowRule, n_jobs: int | None
    ) -> np.ndarray:
        meetings, everybody = self.meetings, None
        if rule.alpha0:
            everybody = self._everybody()
            which = np.arange(self._n_partners())
        else:
            which, places = np.unique(meetings.partners, return_inverse=True)
            meetings = replace(meetings, partners=places)
        partners = Partners(*self._partners(sample, which, n_jobs), everybody, n_jobs)
        prior = rule.prior(sample.n_factors, partial(self._ids, sample))
        return solve_rows(
            partners, *self._known(sample, part, n_jobs), meetings, rule, prior, n_jobs
        )

    def _ids(self, sample: FMParams) -> np.ndarray:
        """Return [v, w] of ids of this side that have rows, evenly chosen; float64 (n, k + 1)."""
        rows, seen = self._training()
        seen = seen[np.linspace(0, len(seen) - 1, min(len(seen), _MOST_IDS)).astype(np.int64)]
        columns = rows.indices[rows.indptr[seen]]  # the id comes first
        return np.column_stack([sample.V[columns], sample.w[columns]]).astype(np.float64)

    @abstractmethod
    def _training(self) -> tuple[SparseRows, np.ndarray]:
        """Return the features of this side's entities, and those that have rows."""

    @abstractmethod
    def _n_partners(self) -> int:
        """Return how many entities the other side has."""

    @abstractmethod
    def _everybody(self) -> np.ndarray:
        """Return those of them that have rows."""

    @abstractmethod
    def _partners(self, sample: FMParams, which: np.ndarray, n_jobs: int | None) -> _Part:
        """Return vectors t and biases β of some of them."""

    @abstractmethod
    def _known(self, sample: FMParams, part: _Part, n_jobs: int | None) -> _Part:
        """Return o and c of each newcomer, given vectors and biases of the known features."""


class _NewUsers(_Newcomers):
    def _training(self) -> tuple[SparseRows, np.ndarray]:
        return self.catalog.user_rows, self.catalog.users_with_rows

    def _n_partners(self) -> int:
        return len(self.catalog.items)

    def _everybody(self) -> np.ndarray:
        return self.catalog.items_with_rows

    def _partners(self, sample: FMParams, which: np.ndarray, n_jobs: int | None) -> _Part:
        return sample.project(self.catalog.item_rows.take(which), n_jobs=n_jobs)

    def _known(self, sample: FMParams, part: _Part, n_jobs: int | None) -> _Part:
        contexts = [block.project(sample, n_jobs) for block in self.contexts]
        rows, offsets = query_matrix(sample, [part, *contexts], n_jobs=n_jobs)
        return rows[:, :-1], offsets


class _NewItems(_Newcomers):
    def _training(self) -> tuple[SparseRows, np.ndarray]:
        return self.catalog.item_rows, self.catalog.items_with_rows

    def _n_partners(self) -> int:
        return len(self.catalog.users)

    def _everybody(self) -> np.ndarray:
        return self.catalog.users_with_rows

    def _partners(self, sample: FMParams, which: np.ndarray, n_jobs: int | None) -> _Part:
        rows, offsets = self.users(which).project(sample, n_jobs=n_jobs)
        return rows[:, :-1], offsets

    def _known(self, sample: FMParams, part: _Part, n_jobs: int | None) -> _Part:
        return part

    def users(self, positions: np.ndarray) -> QueryDesign:
        """Return the queries of users of the training, all in the one context."""
        same = np.zeros(len(positions), np.int64)
        contexts = (block.take(same) for block in self.contexts)
        users = Entities(self.catalog.user_rows, positions)
        return QueryDesign(np.arange(len(positions)), positions, (users, *contexts))


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
    ) -> TopN:
        """Return the n best items for each new user; all have the same ``features``."""
        service, catalog = self.service, self.service.catalog
        exclude_seen = require_bool("exclude_seen", exclude_seen)
        contexts = context_blocks(catalog, context, len(names), context_default)
        known = self._known("user", histories, catalog.items, unknown, features)
        block = _NewUsers(catalog, *known, contexts)
        nobody = np.full(len(names), -1, np.int32)
        design = QueryDesign(np.arange(len(names)), nobody, (block, *contexts))
        barred = _barred(block.meetings, exclude_seen, exclude, catalog.items, unknown)
        allowed = None
        if candidates is not None:
            allowed = known_positions(catalog.items, candidates, unknown)
        rows, offsets = design.project(service.model, n_jobs=service.n_jobs)
        hits = service.index.search(rows, n, exclude=barred, candidates=allowed)
        predict = partial(service.predictor.of_lists, design)
        return TopN.of(names, hits, offsets, catalog.items, predict)

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
        contexts = context_blocks(catalog, context, 1, context_default)
        known = _, meetings, rule = self._known("item", [history], catalog.users, unknown, features)
        if rule is not None and rule.alpha0 and catalog.contexts and len(meetings.partners):
            raise ValueError(
                "a whole-data model with contexts does not know which of them each user was in: "
                "leave history out to go by the item's features alone"
            )
        item = _NewItems(catalog, *known, contexts)
        barred = _barred(meetings, exclude_seen, exclude, catalog.users, unknown).indices
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
        return TopN.of(one(), hits, np.zeros(1), catalog.users, predict)

    def _scores(self, model: Model, item: _NewItems, users: np.ndarray) -> np.ndarray:
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

    def _predictions(self, item: _NewItems, top: TopN) -> np.ndarray:
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
