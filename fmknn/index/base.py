"""The index protocol: vectors in, the n best positions per query out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .._checks import require_count
from ..data.rows import read_only, require_csr

__all__ = [
    "HasVectors",
    "Hits",
    "Index",
    "ItemLists",
    "as_positions",
    "as_vectors",
    "search_arguments",
]

_N_POSITIONS = 2**31  # positions are int32
_LONG_RUN = 1024  # pairs in order, on average: they are merged rather than sorted
_PAIRS_AT_ONCE = 1 << 24  # at least so many: each part counts all queries


@dataclass(frozen=True)
class Hits:
    """What a search found, best first.

    Attributes
    ----------
    positions : ndarray of int32, shape (n_queries, width)
        Positions in the built matrix; the width is the n that was asked for, or less where fewer
        items may be returned at all. Row r holds ``counts[r]`` of them, then -1 as padding.
    scores : ndarray of float64, shape (n_queries, width)
        Inner products of query and item row, -inf as padding.
    counts : ndarray of int32, shape (n_queries,)

    Examples
    --------
    >>> import fmknn
    >>> index = fmknn.FaissIndex().build([[1.0, 0.0], [0.0, 2.0]])
    >>> hits = index.search([[1.0, 1.0]], n=10)
    >>> hits.positions, hits.counts
    (array([[1, 0]], dtype=int32), array([2], dtype=int32))
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

    def put(self, rows: np.ndarray | slice, hits: Hits) -> None:
        """Take over the hits of some of the queries, as wide as these."""
        self.positions[rows] = hits.positions
        self.scores[rows] = hits.scores
        self.counts[rows] = hits.counts


class ItemLists:
    """A sorted list of item positions for each query, in CSR form.

    Parameters
    ----------
    indptr : array-like of int, shape (n_queries + 1,)
        The list of query q is ``indices[indptr[q]:indptr[q + 1]]``.
    indices : array-like of int, shape (total,)
        Ascending and distinct within each list.

    Raises
    ------
    ValueError
        If the arrays are not as described. :meth:`from_pairs` takes any order.

    Examples
    --------
    >>> lists = ItemLists.from_pairs([1, 1, 0], [7, 3, 5], n_queries=2)
    >>> lists.indptr, lists.indices
    (array([0, 1, 3]), array([5, 3, 7], dtype=int32))
    """

    __slots__ = ("indices", "indptr")

    def __init__(self, indptr: Any, indices: Any) -> None:
        indptr, indices = np.asarray(indptr), np.asarray(indices)
        require_csr(indptr, indices, _N_POSITIONS, "item lists")
        self._set(indptr, indices)

    def _set(self, indptr: np.ndarray, indices: np.ndarray) -> None:
        self.indptr = read_only(indptr, np.int64)
        self.indices = read_only(indices, np.int32)

    @classmethod
    def _trusted(cls, indptr: np.ndarray, indices: np.ndarray) -> ItemLists:
        """Made here from what is known to be right: searches make lists for every call."""
        lists = cls.__new__(cls)
        lists._set(indptr, indices)
        return lists

    @classmethod
    def empty(cls, n_queries: int) -> ItemLists:
        """No items for any query."""
        return cls._trusted(np.zeros(n_queries + 1, np.int64), np.empty(0, np.int32))

    @classmethod
    def from_pairs(cls, queries: Any, items: Any, n_queries: int) -> ItemLists:
        """Build the lists from (query, item) pairs in any order; repeated pairs count once.

        Parameters
        ----------
        queries, items : array-like of int, shape (n_pairs,)
            Positions of queries, below ``n_queries``, and of items.
        n_queries : int

        Returns
        -------
        ItemLists
            Of length ``n_queries``.

        Raises
        ------
        TypeError
            For positions that are no integers.
        ValueError
            For a position out of range, or arrays of different lengths.
        """
        queries = _checked_positions(queries, n_queries, "queries")
        items = _checked_positions(items, _N_POSITIONS, "items")
        if len(queries) != len(items):
            raise ValueError(f"{len(queries)} queries for {len(items)} items: pairs are wanted")
        # one number for a pair, sorted in place: there may be little memory for more than that
        pairs = queries.astype(np.int64)
        pairs *= _N_POSITIONS
        np.add(pairs, items, out=pairs, casting="unsafe")  # uint64 too
        n_falls = sum(
            np.count_nonzero(np.diff(pairs[start : start + _PAIRS_AT_ONCE + 1]) < 0)
            for start in range(0, len(pairs), _PAIRS_AT_ONCE)
        )
        if n_falls:  # lists with some more behind them are merged, which is far faster
            pairs.sort(kind="stable" if n_falls * _LONG_RUN < len(pairs) else None)
        n = 0
        counts = np.zeros(n_queries, np.int64)
        distinct = np.empty(len(pairs), np.int32)
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[start : start + _PAIRS_AT_ONCE]
            is_new = np.diff(part, prepend=pairs[start - 1] if start else -1) > 0
            query, item = np.divmod(part[is_new], _N_POSITIONS)
            distinct[n : n + len(item)] = item
            n += len(item)
            counts += np.bincount(query, minlength=n_queries)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return cls._trusted(indptr, distinct if n == len(pairs) else distinct[:n].copy())

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of items per query."""
        return np.diff(self.indptr)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (query, item) of every entry."""
        return np.repeat(np.arange(len(self)), self.lengths), self.indices

    def count_within(self, items: np.ndarray | None, n_items: int) -> np.ndarray:
        """Return how many of the given items each list holds.

        Parameters
        ----------
        items : ndarray of int, or None
            Positions; None: all items.
        n_items : int

        Returns
        -------
        ndarray of int64, shape (n_queries,)
        """
        if items is None:
            return self.lengths
        mask = np.zeros(n_items, bool)
        mask[items] = True
        query, item = self.pairs()
        return np.bincount(query[mask[item]], minlength=len(self))

    def part(self, queries: slice) -> ItemLists:
        """Return the lists from a start up to a stop, which shares the memory of all."""
        return ItemLists._trusted(
            self.indptr[queries.start : queries.stop + 1] - self.indptr[queries.start],
            self.indices[self.indptr[queries.start] : self.indptr[queries.stop]],
        )

    def take(self, queries: np.ndarray) -> ItemLists:
        """Return the lists of the given queries.

        Parameters
        ----------
        queries : array-like of int, shape (n,)
            Places of lists, in any order, repeated or not; -1 gives an empty list.

        Returns
        -------
        ItemLists
            Of length n.

        Examples
        --------
        >>> ItemLists.from_pairs([1, 1, 0], [7, 3, 5], n_queries=2).take([1, -1]).lengths
        array([2, 0])
        """
        queries = np.asarray(queries, np.int64)
        lengths = np.where(queries < 0, 0, self.lengths[queries] if len(self) else 0)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        starts = np.where(lengths > 0, self.indptr[queries], 0)
        places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return ItemLists._trusted(indptr, self.indices[places])


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

    def build(self, vectors: np.ndarray, queries: np.ndarray | None = None) -> Index:
        """Return an index over the rows of ``vectors``; the receiver stays as it was.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n_items, dim)
        queries : ndarray of float32, shape (n_queries, dim), optional
            A sample of what will be asked, on which an index may tune itself.
        """
        ...

    def search(
        self,
        queries: np.ndarray,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: np.ndarray | None = None,
        exclude_items: np.ndarray | None = None,
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
        exclude_items : ndarray of int, optional
            Items that must not be returned for any query.
        """
        ...

    def add(self, vectors: np.ndarray) -> Index:
        """Return an index over the old rows and these after them; the receiver stays as it was.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n_new, dim)
        """
        ...

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what :meth:`from_state` needs beyond the vectors: arrays, and JSON settings."""
        ...

    @classmethod
    def from_state(
        cls, vectors: np.ndarray, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> Index:
        """Rebuild, over the same vectors, an index that gives the same answers.

        Raises
        ------
        ValueError
            If the state does not fit the vectors.
        """
        ...


class HasVectors:
    """An index that holds its item rows, once it is built."""

    _vectors: np.ndarray | None = None

    @property
    def vectors(self) -> np.ndarray:
        """The item rows, float32, shape (n_items, dim)."""
        if self._vectors is None:
            raise ValueError("the index is empty: call build(vectors) first")
        return self._vectors

    @property
    def n_items(self) -> int:
        """Number of item rows."""
        return len(self.vectors)


def as_positions(positions: Any, n: int, name: str) -> np.ndarray:
    """Return positions as int64, checked for kind, shape and range.

    Raises
    ------
    TypeError
        For anything that is no integer.
    ValueError
        For another shape than one dimension, or naming the first position outside 0..n - 1.
    """
    return _checked_positions(positions, n, name).astype(np.int64, copy=False)


def _checked_positions(positions: Any, n: int, name: str) -> np.ndarray:
    """Return positions in the type that they have."""
    array = np.asarray(positions)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer positions, got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= n):
        culprit = int(array[int(np.argmax((array < 0) | (array >= n)))])
        raise ValueError(f"{name} holds position {culprit}, outside 0..{n - 1}")
    return array


def as_vectors(array: Any, name: str, dim: int | None = None) -> np.ndarray:
    """Return a read-only float32 matrix, checked for shape and finiteness.

    Raises
    ------
    ValueError
        For a wrong shape, or naming the row that holds NaN or infinity.
    TypeError
        For anything that is no real number; text is not parsed.
    """
    matrix = np.asarray(array)
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or (dim is not None and matrix.shape[1] != dim):
        wanted = "(n, dim)" if dim is None else f"(n, {dim})"
        raise ValueError(f"{name} must have shape {wanted}, got {matrix.shape}")
    matrix = read_only(matrix, np.float32)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} contains NaN or infinity in row {int(np.argmin(finite))}")
    return matrix


def search_arguments(
    queries: Any,
    n: Any,
    exclude: Any,
    candidates: Any,
    vectors: np.ndarray,
    exclude_items: Any = None,
) -> tuple[np.ndarray, int, ItemLists, np.ndarray | None]:
    """Return the arguments of a search as every index takes them, checked against the vectors.

    Returns
    -------
    queries : ndarray of float32, shape (n_queries, dim)
    n : int
    exclude : ItemLists
        One list per query, empty ones where none were given.
    allowed : ndarray of int64, ascending and distinct, or None
        The candidates without the items that are excluded for all; None: all items.

    Raises
    ------
    ValueError
        For n below 1, queries of another width or with NaN, positions out of range, or another
        number of lists than of queries.
    TypeError
        If ``exclude`` is no ItemLists, or ``candidates`` or ``exclude_items`` are no integers.
    """
    matrix = as_vectors(queries, "queries", vectors.shape[1])
    n = require_count("n", n)
    if exclude is None:
        exclude = ItemLists.empty(len(matrix))
    if not isinstance(exclude, ItemLists):
        raise TypeError(
            f"exclude must be an ItemLists, got {type(exclude).__name__}: "
            "make one with ItemLists.from_pairs(queries, items, n_queries)"
        )
    if len(exclude) != len(matrix):
        raise ValueError(f"exclude has {len(exclude)} lists for {len(matrix)} queries")
    as_positions(exclude.indices, len(vectors), "exclude")
    return matrix, n, exclude, _allowed(candidates, exclude_items, len(vectors))


def _allowed(candidates: Any, exclude_items: Any, n_items: int) -> np.ndarray | None:
    """Make one allow-list, ascending and distinct, of both lists; None where neither is given."""
    if candidates is None and exclude_items is None:
        return None
    mask = np.full(n_items, candidates is None)
    if candidates is not None:
        mask[as_positions(candidates, n_items, "candidates")] = True
    if exclude_items is not None:
        mask[as_positions(exclude_items, n_items, "exclude_items")] = False
    return np.flatnonzero(mask)
