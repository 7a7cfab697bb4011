"""Newcomers of one side as a block: their features, and what their ids would have learned.

An entity's vector is p + v, where p is of its known features and v is what its own id would have
learned from the history, all else staying as it is; see :mod:`fmknn.serving.row_solver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from .._threads import blas_threads
from ..data.rows import SparseRows
from ..model.base import Model
from ..model.params import FMParams
from ..model.projection import query_matrix
from ..solvers.row_rules import RowRule
from .catalog import Catalog
from .queries import Block, Entities, QueryDesign
from .row_solver import Meetings, Partners, solve_rows

__all__ = ["NewItems", "NewUsers", "Newcomers"]

_MOST_IDS = 10_000  # of the training, whose spread is that of somebody new

_Part = tuple[np.ndarray, np.ndarray]  # vectors and biases
_N = TypeVar("_N", bound="Newcomers")


@dataclass(frozen=True)
class Newcomers(ABC):
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
        theta = self._theta(sample, part, n_jobs)
        if theta is None:
            return part
        v, w = theta[:, :-1].astype(np.float32), theta[:, -1]
        inside = np.einsum("nf,nf->n", vectors, v, dtype=np.float64)  # pairs of id and features
        return vectors + v, biases + w + inside

    def thetas(self, model: Model, n_jobs: int | None) -> list[np.ndarray] | None:
        """Return [v, w] of the newcomers' own ids for each sample of a model, (n, k + 1) each.

        None if ids have no parameters, or there is no rule for them.
        """
        if self.rule is None:
            return None
        thetas = []
        with blas_threads(1):  # several may round differently
            for sample in model.samples():
                theta = self._theta(sample, sample.project(self.rows, n_jobs=n_jobs), n_jobs)
                assert theta is not None
                thetas.append(theta)
        return thetas

    def _theta(self, sample: FMParams, part: _Part, n_jobs: int | None) -> np.ndarray | None:
        meetings, rule, everybody = self.meetings, self.rule, None
        if rule is None:
            return None
        if rule.alpha0:
            everybody = self._everybody()
            which = np.arange(self._n_partners())
        else:
            which, places = np.unique(meetings.partners, return_inverse=True)
            meetings = replace(meetings, partners=places)
        partners = Partners(*self._partners(sample, which, n_jobs), everybody, n_jobs)
        prior = rule.prior(sample.n_factors, partial(self._ids, sample))
        known = self._known(sample, part, n_jobs)
        theta = solve_rows(partners, *known, meetings, rule, prior, n_jobs)
        if np.abs(theta).max(initial=0.0) > np.finfo(np.float32).max:
            raise ValueError("the values of a history make a row beyond float32: they are too far")
        return theta

    def _ids(self, sample: FMParams) -> np.ndarray:
        """Return [v, w] of ids of this side that have rows, evenly chosen; float64 (n, k + 1)."""
        rows, seen = self._training()
        if not len(seen):  # it is not known who was trained on
            return np.zeros((1, sample.n_factors + 1))
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


class NewUsers(Newcomers):
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


class NewItems(Newcomers):
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
