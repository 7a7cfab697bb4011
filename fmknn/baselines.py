"""What every recommender should beat: popularity, and the cosine of items. Both need no tuning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._checks import require_bool, require_count
from ._sklearn import not_fitted
from .data.blocks import design_of_interactions
from .data.ids import IdMap
from .data.interactions import Interactions
from .index.base import Hits
from .serving.catalog import Catalog
from .serving.queries import id_list
from .serving.topn import TopN

__all__ = ["ItemCosine", "Popularity"]

_CELLS = 2**23  # of the dense user × item scores that are held at a time


class _Baseline(ABC):
    """Answers as a Recommender does, from a score for each user and item."""

    catalog_: Catalog
    predicts_values = False

    def fit(self, interactions: Interactions) -> Any:
        """Learn from who met which item; values, contexts, features and weights play no part.

        Parameters
        ----------
        interactions : Interactions

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If they are not Interactions.
        """
        if not isinstance(interactions, Interactions):
            raise TypeError(
                f"fit takes Interactions, got {type(interactions).__name__}: build them with "
                "Interactions.from_frame or from_arrays"
            )
        self.catalog_ = Catalog.of(interactions, design_of_interactions(interactions))
        lists, n_items = self.catalog_.seen, len(self.catalog_.items)
        ones = np.ones(len(lists.indices))
        self._met = sp.csr_array((ones, lists.indices, lists.indptr), (len(lists), n_items))
        self._learn()
        return self

    @abstractmethod
    def _learn(self) -> None:
        """Take from the user × item matrix what scores are made of."""

    @abstractmethod
    def _scores(self, users: np.ndarray) -> np.ndarray:
        """Return the scores of all items for the users at these positions, to be written to."""

    @property
    def _catalog(self) -> Catalog:
        if not hasattr(self, "catalog_"):
            raise not_fitted(self)
        return self.catalog_

    @property
    def users(self) -> IdMap:
        """The user ids of training."""
        return self._catalog.users

    @property
    def items(self) -> IdMap:
        """The item ids of training: the catalogue."""
        return self._catalog.items

    def n_training_rows(self, users: Any) -> np.ndarray:
        """Return how many training rows each user had, 0 for an unknown one."""
        return self._catalog.n_training_rows(id_list(users, "user"))

    def seen_pairs(self, users: Any, items: Any) -> np.ndarray:
        """Return whether each (user, item) pair occurred in training."""
        return self._catalog.seen_pairs(id_list(users, "user"), id_list(items, "item"))

    def predict(self, users: Any, items: Any, context: Any = None) -> np.ndarray:
        """Refuse: there is no value to predict.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(f"{type(self).__name__} predicts no values: ask for ranking metrics")

    def targets(self, values: Any) -> np.ndarray:
        """Return values as they are."""
        return np.asarray(values)

    def scores(
        self, users: Any, items: Any, context: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Return the number that ranks each (user, item) pair.

        Parameters
        ----------
        users, items : array-like of ids, shape (n,)
        context : mapping, optional
            Makes no difference.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        asked, which = np.unique(self.users.positions(users), return_inverse=True)
        positions, found = self.items.positions(items), np.empty(len(which))
        for part in self._parts(len(asked)):
            here = (which >= part.start) & (which < part.stop)
            found[here] = self._scores(asked[part])[which[here] - part.start, positions[here]]
        return found

    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        context: Mapping[str, Any] | None = None,
    ) -> TopN:
        """Return the n best items for each user, ties by item position.

        Parameters
        ----------
        users : array-like of ids, or a single id
        n : int
            List length; fewer come back where fewer are available.
        exclude_seen : bool
            Leave out the items of the user's training rows.
        context : mapping, optional
            Makes no difference.

        Returns
        -------
        TopN

        Raises
        ------
        UnknownIdError
            For an unknown user.
        """
        n, ids = require_count("n", n), id_list(users, "user")
        exclude_seen = require_bool("exclude_seen", exclude_seen)
        positions = self.users.positions(ids)
        hits = Hits.empty(len(ids), min(n, len(self.items)))
        for part in self._parts(len(ids)):
            scores = self._scores(positions[part])
            if exclude_seen:
                scores[self._met[positions[part]].nonzero()] = -np.inf
            for row, of_user in enumerate(scores, part.start):
                best = _best(of_user, n)
                hits.positions[row, : len(best)] = best
                hits.scores[row, : len(best)] = of_user[best]
                hits.counts[row] = len(best)
        offsets, library = np.zeros(len(ids)), self._catalog.frame_library
        return TopN.of(ids, hits, offsets, self.items, lambda top: top.scores, library)

    def _parts(self, n_users: int) -> Iterator[slice]:
        step = max(1, _CELLS // len(self.items))
        return (slice(start, min(start + step, n_users)) for start in range(0, n_users, step))


class Popularity(_Baseline):
    """The items that most users have, the same for everybody.

    Examples
    --------
    >>> log = Interactions.from_arrays(["ann", "bob", "bob", "eve"], [3, 3, 9, 7])
    >>> Popularity().fit(log).recommend(["bob", "eve"], n=2).items
    array([[7, None],
           [3, 9]], dtype=object)
    """

    def __repr__(self) -> str:
        return "Popularity()"

    def _learn(self) -> None:
        self._counts = np.asarray(self._met.sum(axis=0), np.float64)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(self._counts, (len(users), 1))


class ItemCosine(_Baseline):
    """The items most like those that a user has: a sum of cosines over each item's neighbours.

    Parameters
    ----------
    n_neighbors : int
        The items that each item lends its cosine to, its most similar ones.

    Raises
    ------
    ValueError
        If it is no positive integer.

    Notes
    -----
    The cosine of items i and j is |U_i ∩ U_j| / √(|U_i| |U_j|), U_i being the users who have i in
    training; the score of an item is the sum of its cosines with the user's items that have it
    among their neighbours (Deshpande and Karypis, "Item-based top-N recommendation algorithms",
    ACM TOIS 2004, section 4).

    Examples
    --------
    >>> log = Interactions.from_arrays(["ann", "ann", "bob", "bob", "eve"], [3, 9, 3, 9, 3])
    >>> ItemCosine().fit(log).recommend(["eve"], n=1).items
    array([[9]])
    """

    def __init__(self, n_neighbors: int = 100) -> None:
        self.n_neighbors = require_count("n_neighbors", n_neighbors)

    def __repr__(self) -> str:
        return f"ItemCosine(n_neighbors={self.n_neighbors})"

    def _learn(self) -> None:
        norms = np.sqrt(np.asarray(self._met.sum(axis=0)))
        unit = (self._met @ sp.diags_array(1 / np.maximum(norms, 1))).tocsr()
        transposed, n_items = unit.T.tocsr(), len(self.items)
        rows = []
        for part in self._parts(n_items):
            cosines = (transposed[part] @ unit).toarray()
            cosines[np.arange(len(cosines)), np.arange(part.start, part.stop)] = 0  # itself
            for of_item in cosines:
                best = _best(of_item, self.n_neighbors)
                best = np.sort(best[of_item[best] > 0])
                rows.append((best, of_item[best]))
        indptr = np.cumsum([0, *(len(places) for places, _ in rows)])
        places, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        self._cosines = sp.csr_array((values, places, indptr), (n_items, n_items))

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return (self._met[users] @ self._cosines).toarray()


def _best(scores: np.ndarray, n: int) -> np.ndarray:
    """The places of the n largest numbers, ties in order, those of -inf left out."""
    places = np.flatnonzero(scores > -np.inf)
    if n < len(places):
        floor = np.partition(scores[places], len(places) - n)[len(places) - n]
        places = places[scores[places] >= floor]
    return places[np.argsort(-scores[places], kind="stable")][:n]
