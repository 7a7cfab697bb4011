"""Service: a trained model, its catalog and its index answer what users ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .._checks import require_bool
from ..index.base import Index
from ..model.base import Link, Model
from .catalog import Catalog
from .pairs import PairPredictor, linear_predictors
from .queries import (
    QueryDesign,
    design_queries,
    exclusions,
    faded,
    id_list,
    known_positions,
    make_queries,
)
from .topn import TopN

__all__ = ["Service"]


@dataclass(frozen=True)
class Service:
    """All that is needed to answer, and how; see :class:`fmknn.Recommender` for the arguments.

    Attributes
    ----------
    model : FMParams or Posterior
    catalog : Catalog
    index : Index
        Over the item matrix of the model.
    link : callable
        From the scores of a sample, and the sample, to predictions.
    n_jobs : int or None
    """

    model: Model
    catalog: Catalog
    index: Index
    link: Link
    n_jobs: int | None = 1

    @property
    def predictor(self) -> PairPredictor:
        """What predicts (query, item) pairs."""
        return PairPredictor(self.model, self.catalog.item_rows, self.link, self.n_jobs)

    def recommend(
        self,
        users: Any,
        n: int,
        *,
        exclude_seen: bool,
        exclude: Mapping[Any, Any] | None,
        exclude_items: Any,
        candidates: Any,
        context: Mapping[str, Any] | None,
        unknown: str,
        context_default: str,
        popularity: float,
    ) -> TopN:
        """Return the n best items for each user."""
        catalog, users = self.catalog, id_list(users, "user")
        exclude_seen = require_bool("exclude_seen", exclude_seen)
        queries = make_queries(
            self.model,
            catalog,
            users,
            context,
            unknown=unknown,
            context_default=context_default,
            n_jobs=self.n_jobs,
        )
        allowed = None
        if candidates is not None:
            allowed = known_positions(catalog.items, candidates, unknown)
        blocked = {}  # an index of somebody's own need not know of it
        if exclude_items is not None:
            blocked["exclude_items"] = known_positions(catalog.items, exclude_items, unknown)
        barred = exclusions(catalog, users, queries, exclude_seen, exclude, unknown)
        rows = faded(queries.rows, popularity)
        hits = self.index.search(rows, n, exclude=barred, candidates=allowed, **blocked)
        predict = partial(self.predictor.of_lists, queries.design)
        who, library = users[queries.kept], catalog.frame_library
        return TopN.of(who, hits, queries.offsets, catalog.items, predict, library)

    def scores(
        self,
        users: Any,
        items: Any,
        context: Mapping[str, Any] | None,
        *,
        unknown: str,
        context_default: str,
    ) -> np.ndarray:
        """Return the linear predictor of (user, item) pairs."""
        pairs = self._pairs(users, items, context, unknown, context_default)
        design, which, positions = pairs
        return linear_predictors(
            self.model, design, self.index.vectors, which, positions, self.n_jobs
        )

    def predict(
        self,
        users: Any,
        items: Any,
        context: Mapping[str, Any] | None,
        *,
        unknown: str,
        context_default: str,
    ) -> np.ndarray:
        """Return what the model predicts of (user, item) pairs."""
        return self.predictor.of_pairs(
            *self._pairs(users, items, context, unknown, context_default)
        )

    def _pairs(
        self,
        users: Any,
        items: Any,
        context: Mapping[str, Any] | None,
        unknown: str,
        context_default: str,
    ) -> tuple[QueryDesign, np.ndarray, np.ndarray]:
        """Return distinct queries, and the query and the item position (or -1) of each pair."""
        users, items = id_list(users, "user"), id_list(items, "item")
        if len(users) != len(items):
            raise ValueError(
                f"{len(users)} users for {len(items)} items: one item per user is scored"
            )
        if unknown == "skip":
            raise ValueError('unknown="skip" would lose rows: use "raise" or "cold"')
        design = design_queries(
            self.catalog, users, context, unknown=unknown, context_default=context_default
        )
        policy = "raise" if unknown == "raise" else "mark"
        positions = self.catalog.items.positions(items, unknown=policy)
        return *design.distinct(), positions
