"""The index protocol: vectors in, the n best positions per query out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..data.rows import read_only

__all__ = ["Hits", "Index", "ItemLists", "as_vectors"]


@dataclass(frozen=True)
class Hits:
    """What a search found, best first.

    Attributes
    ----------
    positions : ndarray of int32, shape (n_queries, n)
        Positions in the built matrix. Row r holds ``counts[r]`` of them, then -1 as padding.
    scores : ndarray of float64, shape (n_queries, n)
        Inner products of query and item row, -inf as padding.
    counts : ndarray of int32, shape (n_queries,)
    """

    positions: np.ndarray
    scores: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, n_queries: int, n: int) -> Hits:
        """Nothing found yet: padding only."""
        return cls(
            np.full((n_queries, n), -1, np.int32),
            np.full((n_queries, n), -np.inf),
            np.zeros(n_queries, np.int32),
        )


class ItemLists:
    """A sorted list of item positions for each query, in CSR form.

    Parameters
    ----------
    indptr : ndarray of int64, shape (n_queries + 1,)
    indices : ndarray of int32, shape (total,)
        Ascending and distinct within each list.
    """

    __slots__ = ("indices", "indptr")

    def __init__(self, indptr: np.ndarray, indices: np.ndarray) -> None:
        self.indptr = read_only(indptr, np.int64)
        self.indices = read_only(indices, np.int32)

    @classmethod
    def empty(cls, n_queries: int) -> ItemLists:
        """No items for any query."""
        return cls(np.zeros(n_queries + 1, np.int64), np.empty(0, np.int32))

    @classmethod
    def from_pairs(cls, queries: np.ndarray, items: np.ndarray, n_queries: int) -> ItemLists:
        """Build the lists from (query, item) pairs in any order; repeated pairs count once."""
        order = np.lexsort((items, queries))
        queries, items = np.asarray(queries)[order], np.asarray(items)[order]
        if len(queries):
            new = np.ones(len(queries), bool)
            new[1:] = (queries[1:] != queries[:-1]) | (items[1:] != items[:-1])
            queries, items = queries[new], items[new]
        counts = np.bincount(queries, minlength=n_queries)
        return cls(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), items)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of items per query."""
        return np.diff(self.indptr)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (query, item) of every entry."""
        return np.repeat(np.arange(len(self)), self.lengths), self.indices

    def take(self, queries: np.ndarray) -> ItemLists:
        """Return the lists of the given queries; -1 gives an empty list."""
        queries = np.asarray(queries, np.int64)
        lengths = np.where(queries < 0, 0, self.lengths[queries] if len(self) else 0)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        starts = np.where(lengths > 0, self.indptr[queries], 0)
        places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return ItemLists(indptr, self.indices[places])


class Index(Protocol):
    """Searches item rows by inner product."""

    @property
    def n_items(self) -> int:
        """Number of item rows."""
        ...

    @property
    def vectors(self) -> np.ndarray:
        """The item rows, float32, shape (n_items, dim)."""
        ...

    def build(self, vectors: np.ndarray) -> Index:
        """Return an index over the rows of ``vectors``; the receiver stays as it was."""
        ...

    def search(
        self,
        queries: np.ndarray,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: np.ndarray | None = None,
    ) -> Hits:
        """Return the n items with the largest inner product for each query.

        Parameters
        ----------
        queries : ndarray of float32, shape (n_queries, dim)
        n : int
            A row holds min(n, available) items, ties in the order of their positions.
        exclude : ItemLists, optional
            Items that must not be returned, per query.
        candidates : ndarray of int, optional
            The only items that may be returned, the same for all queries.
        """
        ...

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and JSON settings from which :meth:`from_state` rebuilds the index."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Index:
        """Rebuild an index that gives the same answers."""
        ...


def as_vectors(array: Any, name: str, dim: int | None = None) -> np.ndarray:
    """Return a read-only float32 matrix, checked for shape and finiteness.

    Raises
    ------
    ValueError
        For a wrong shape, or naming the row that holds NaN or infinity.
    """
    matrix = np.asarray(array)
    if matrix.ndim != 2 or (dim is not None and matrix.shape[1] != dim):
        wanted = "(n, dim)" if dim is None else f"(n, {dim})"
        raise ValueError(f"{name} must have shape {wanted}, got {matrix.shape}")
    matrix = read_only(matrix, np.float32)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} contains NaN or infinity in row {int(np.argmin(finite))}")
    return matrix
