"""TopN: ranked items with the user's own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..data.frames import frame_from
from ..data.ids import IdMap
from ..index.base import Hits

__all__ = ["TopN"]

_ROWS = 1024  # that are turned into Python lists at a time


@dataclass(frozen=True)
class TopN:
    """Recommendations for a batch of users, best first.

    Attributes
    ----------
    users : ndarray, shape (n_users,)
        External ids.
    positions : ndarray of int32, shape (n_users, width)
        Positions of the items in the model's vocabulary; width is the n that was asked for, or
        the longest list where all are shorter. Row r holds ``counts[r]`` items; what
        follows is padding (position -1, score -inf, item None) and is never iterated over.
    scores : ndarray of float64, shape (n_users, width)
        The model's linear predictor. Scores rank within a user; do not compare users by them.
    counts : ndarray of int32, shape (n_users,)

    Examples
    --------
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
    >>> model = fmknn.Recommender(fmknn.FMRegressor(n_iter=1, random_state=0)).fit(ratings)
    >>> top = model.recommend(ratings.users.ids[:2], n=3)
    >>> top.items.shape, top.counts
    ((2, 3), array([3, 3], dtype=int32))
    >>> [(user, len(items)) for user, items in top]
    [(0, 3), (1, 3)]
    """

    users: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    _items: IdMap = field(repr=False)
    _predict: Callable[[TopN], np.ndarray] = field(repr=False)
    _library: str | None = field(default=None, repr=False)
    _names: tuple[str, str] = field(default=("user", "item"), repr=False)

    @classmethod
    def of(
        cls,
        users: np.ndarray,
        hits: Hits,
        offsets: np.ndarray,
        items: IdMap,
        predict: Callable[[TopN], np.ndarray],
        library: str | None = None,
        names: tuple[str, str] = ("user", "item"),
    ) -> TopN:
        """Put ids and full scores to the hits of a search, and how to predict when asked to.

        ``library`` is what the training data came in, and what :meth:`to_frame` prefers; ``names``
        are those of its first two columns: who was asked for, and what is listed.
        """
        width = int(hits.counts.max(initial=0))  # no column that is padding only
        scores = hits.scores[:, :width] + offsets[:, None]
        positions = hits.positions[:, :width]
        return cls(users, positions, scores, hits.counts, items, predict, library, names)

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def items(self) -> np.ndarray:
        """External item ids, shape (n_users, width); None where a row has no more items."""
        ids = self._items.ids[self.positions]
        padding = self.positions < 0
        if padding.any():
            ids = ids.astype(object)
            ids[padding] = None
        return ids

    @cached_property
    def predictions(self) -> np.ndarray:
        """What ``predict`` says of the listed items: ratings, or probabilities.

        NaN where a row has no more items.
        """
        return np.where(self.positions < 0, np.nan, self._predict(self))

    def __iter__(self) -> Iterator[tuple[Any, list[tuple[Any, float]]]]:
        everything = self.users, self.items, self.scores, self.counts
        for start in range(0, len(self.users), _ROWS):  # lists take several times the memory
            part = (array[start : start + _ROWS].tolist() for array in everything)
            for user, items, scores, count in zip(*part, strict=True):
                yield user, list(zip(items[:count], scores[:count], strict=True))

    def to_frame(self, library: str | None = None) -> Any:
        """Return a data frame with the columns user, item, score and rank (from 1).

        Where lists are not of items for users the first two are called by what they hold: item and
        user, item and similar_item, or user and similar_user.

        Parameters
        ----------
        library : {"pandas", "polars", "pyarrow"}, optional
            Default: that of the frame which the model was trained on, or else the first of these
            that is installed.

        Returns
        -------
        data frame
            One row per recommendation: users in their order, each one's items best first.

        Raises
        ------
        MissingExtraError
            If none is installed, or the one asked for is not.
        ValueError
            For another library.
        """
        real = self.positions >= 0
        asked, listed = self._names
        columns = {
            asked: np.repeat(self.users, self.counts),
            listed: self._items.ids[self.positions[real]],
            "score": self.scores[real],
            "rank": np.broadcast_to(np.arange(1, real.shape[1] + 1), real.shape)[real],
        }
        return frame_from(columns, library, preferred=self._library)
