"""Service: a trained model, its catalog and its index answer what users ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import require_bool, require_count
from ..index.base import Index, ItemLists
from ..index.rank import pair_scores, rank
from ..model.params import FMParams
from .catalog import Catalog
from .queries import exclusions, id_list, item_positions, make_queries
from .topn import TopN

__all__ = ["Service"]


@dataclass(frozen=True)
class Service:
    """All that is needed to answer, and how; see :class:`fmknn.Recommender` for the arguments.

    Attributes
    ----------
    model : FMParams
    catalog : Catalog
    index : Index
        Over the item matrix of the model.
    link : callable
        From scores to predictions.
    n_jobs : int or None
    """

    model: FMParams
    catalog: Catalog
    index: Index
    link: Callable[[np.ndarray], np.ndarray]
    n_jobs: int | None = 1

    def recommend(
        self,
        users: Any,
        n: int,
        *,
        exclude_seen: bool,
        exclude: Mapping[Any, Any] | None,
        candidates: Any,
        context: Mapping[str, Any] | None,
        unknown: str,
        context_default: str,
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
            allowed = item_positions(catalog.items, candidates, unknown)
        barred = exclusions(catalog, users, queries, exclude_seen, exclude, unknown)
        hits = self.index.search(queries.rows, n, exclude=barred, candidates=allowed)
        return TopN.of(users[queries.kept], hits, queries.offsets, catalog.items, self.link)

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
        users, items = id_list(users, "user"), id_list(items, "item")
        if len(users) != len(items):
            raise ValueError(
                f"{len(users)} users for {len(items)} items: one item per user is scored"
            )
        if unknown == "skip":
            raise ValueError('unknown="skip" would lose rows: use "raise" or "cold"')
        queries = make_queries(
            self.model,
            self.catalog,
            users,
            context,
            unknown=unknown,
            context_default=context_default,
            n_jobs=self.n_jobs,
        )
        policy = "raise" if unknown == "raise" else "mark"
        positions = self.catalog.items.positions(items, unknown=policy)
        known = np.maximum(positions, 0)
        products = pair_scores(queries.rows, self.index.vectors, known, self.n_jobs)
        return queries.offsets + np.where(positions >= 0, products, 0.0)

    def similar_items(self, items: Any, n: int, unknown: str) -> TopN:
        """Return the n items with the largest cosine to each given one, itself left out."""
        n, catalog = require_count("n", n), self.catalog
        positions = item_positions(catalog.items, id_list(items, "item"), unknown)
        factors = self.index.vectors[:, :-1].astype(np.float64)
        norms = np.sqrt((factors**2).sum(axis=1))
        unit = (factors / np.where(norms > 0, norms, 1.0)[:, None]).astype(np.float32)
        n_asked, n_items = len(positions), len(catalog.items)
        hits, _ = rank(
            unit[positions],
            unit,
            np.arange(n_items)[None, :],
            np.full(n_asked, -np.inf),
            min(n, n_items),
            exclude=ItemLists.from_pairs(np.arange(n_asked), positions, n_asked),
            n_jobs=self.n_jobs,
        )
        asked = catalog.items.ids[positions]
        return TopN.of(asked, hits, np.zeros(n_asked), catalog.items, lambda scores: scores)
