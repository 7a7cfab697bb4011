"""History: with whom each entity met, as a feature column; sparse from the rows to the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp

from .columns import frozen
from .ids import IdMap
from .rows import SparseRows

__all__ = ["History"]


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """A column that holds many levels per row: the distinct partners of each entity.

    It is to a column of tuples what a sparse matrix is to lists: no object per value.

    Attributes
    ----------
    rows : SparseRows, shape (n, n_levels)
        1/√m in each of the m levels of a row.
    levels : ndarray, shape (n_levels,)
        The external id that each column of ``rows`` stands for, in order.

    Examples
    --------
    >>> history = History.of(np.array([0, 0, 0]), 2, np.array([2, 1, 2]), IdMap([7, 8, 9]))
    >>> history[0], history[1]
    ((8, 9), ())
    >>> history.rows.to_scipy().toarray().round(3)
    array([[0.707, 0.707],
           [0.   , 0.   ]], dtype=float32)
    """

    rows: SparseRows
    levels: np.ndarray

    @classmethod
    def of(cls, entities: np.ndarray, n: int, partners: np.ndarray, ids: IdMap) -> History:
        """Return the history of `n` entities.

        Parameters
        ----------
        entities, partners : ndarray of int, shape (n_rows,)
            Who met whom, as positions: below `n`, and in `ids`. A pair counts once.
        n : int
        ids : IdMap
            Of the partners; those that nobody met are no levels.

        Returns
        -------
        History
            Of length `n`.
        """
        met = np.ones(len(entities), bool)  # not read: all that counts is which pairs there are
        pairs = sp.coo_array((met, (entities, partners)), shape=(n, len(ids))).tocsr()
        occurs = np.bincount(pairs.indices, minlength=len(ids)) > 0
        order = np.argsort(ids.ids[occurs], kind="stable")  # ids that came later go behind
        level = np.zeros(len(ids), np.int32)
        level[np.flatnonzero(occurs)[order]] = np.arange(len(order))
        counts = np.diff(pairs.indptr)
        value = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        entries = np.repeat(value, counts), level[pairs.indices], pairs.indptr
        rows = sp.csr_array(entries, shape=(n, len(order)))
        rows.sort_indices()
        return cls(
            SparseRows(rows.indptr, rows.indices, rows.data, len(order)),
            frozen(ids.ids[occurs][order]),
        )

    @property
    def shape(self) -> tuple[int]:
        """The shape of a column."""
        return (len(self.rows),)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> Any:
        """Return the ids of one row as a tuple, or the History of an array of rows."""
        if isinstance(places, Integral):
            own = range(len(self))[int(places)]  # counts from the end too, and ends
            start, stop = self.rows.indptr[own : own + 2]
            return tuple(self.levels[self.rows.indices[start:stop]].tolist())
        return History(self.rows.take(np.arange(len(self))[places]), self.levels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and all(
            one is another or np.array_equal(one, another)
            for one, another in (
                (self.levels, other.levels),
                (self.rows.indptr, other.rows.indptr),
                (self.rows.indices, other.rows.indices),
                (self.rows.values, other.rows.values),
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({len(self)} rows, {len(self.levels)} levels)"
