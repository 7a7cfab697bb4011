"""ExactIndex: the best items exactly, by kernels of our own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import require_count
from .._threads import blas_threads, run_ranges, thread_count
from .base import HasVectors, Hits, ItemLists, as_vectors, search_arguments
from .compression import Compression, search_compressed
from .norm_tiles import NormTiles
from .rank import rank
from .recall import MeasuresRecall
from .selection import select

__all__ = ["ExactIndex"]

_ONE_BY_ONE = 3  # queries: for up to so many, loops are faster than products of matrices
_FEW_PAIRS = 16_384  # of queries and items: scored directly, as are lists of most items
_FEW_ITEMS = 128
_GATHER_SHARE = 8  # an allow-list of less than an eighth of the items gets tiles of its own
_QUERIES_AT_ONCE = 8192  # prepared together


class ExactIndex(HasVectors, MeasuresRecall):
    """Exact inner-product search: fast in batches, for single queries, and with items left out.

    Parameters
    ----------
    n_jobs : int, optional
        Threads; default all cores. Answers don't depend on it.
    compress : int, optional
        Choose candidates (2 n + 30 for a list of n) among rows of only so many numbers, and rank
        these over the full rows: it may miss items, but never returns a wrong score. For the long
        rows of a posterior, of which 32 are enough; see the Notes of :class:`fmknn.FaissIndex`.

    Raises
    ------
    ValueError
        For a number that is no integer of at least 1.

    Notes
    -----
    Items are sorted by norm and cut into tiles. Queries are multiplied with a tile at a time, and
    while its scores are in the cache, excluded ones are struck out and those too low for a list are
    passed over: leaving items out costs next to nothing. A query is done at the first tile whose
    norms say that nothing in it, or behind it, can enter its list (the Cauchy-Schwarz inequality;
    Teflioudi and Gemulla, "Exact and Approximate Maximum Inner Product Search with LEMP", ACM TODS
    2016). Where that pays, leading coordinates bound the score, and few items need the others.
    Both work the better the more :meth:`build` knows of what will be asked.

    All this selects, in float32 and with a margin for its rounding. What is selected is ranked as
    by every index, by inner products that are summed in float64 and in a fixed order.

    Examples
    --------
    >>> index = ExactIndex().build([[1.0, 0.0], [0.0, 2.0]])
    >>> hits = index.search([[1.0, 1.0]], n=1)
    >>> hits.positions, hits.scores
    (array([[1]], dtype=int32), array([[2.]]))
    """

    tunes_on_queries = True

    def __init__(self, *, n_jobs: int | None = None, compress: int | None = None) -> None:
        thread_count(n_jobs)
        self.n_jobs = None if n_jobs is None else int(n_jobs)
        self.compress = None if compress is None else require_count("compress", compress)
        self._tiles: Any = None  # of the vectors, or
        self._compression: Compression | None = None
        self._short: Any = None  # an index over compressed rows

    def __repr__(self) -> str:
        size = "not built" if self._vectors is None else f"{self.n_items} items"
        compress = "" if self.compress is None else f"compress={self.compress}, "
        return f"ExactIndex({compress}{size})"

    def compressed(self, compress: int) -> ExactIndex:
        """Return an index of the same settings, still empty, that compresses to so many numbers.

        Examples
        --------
        >>> ExactIndex().compressed(32)
        ExactIndex(compress=32, not built)
        """
        return ExactIndex(n_jobs=self.n_jobs, compress=compress)

    def build(self, vectors: Any, queries: Any = None) -> ExactIndex:
        """Return an index over the rows of a matrix; this object stays as it was.

        Parameters
        ----------
        vectors : array-like of float, shape (n_items, dim)
        queries : array-like of float, shape (n_queries, dim), optional
            A sample of what will be asked, which makes searching faster; default all directions
            alike. (Under ``compress``, candidates are chosen for it.)

        Returns
        -------
        ExactIndex
            Of the same settings. With the vectors it takes 2.3 times the memory of these.

        Raises
        ------
        ValueError
            If there is no row, a row holds NaN or infinity, or queries are of another width.
        TypeError
            For anything that is no matrix of real numbers.
        """
        matrix = as_vectors(vectors, "vectors")
        if len(matrix) == 0:
            raise ValueError("vectors has no rows: there is nothing to search")
        asked = None if queries is None else as_vectors(queries, "queries", matrix.shape[1])
        if self.compress is None:
            with blas_threads(thread_count(self.n_jobs)):
                return self._with(matrix, NormTiles.build(matrix, asked))
        maps = Compression.fit(matrix, asked, self.compress)
        short = None if asked is None else maps.compress_queries(asked, self.n_jobs)
        rows = maps.compress_items(matrix, self.n_jobs)
        return self._with(matrix, None, maps, ExactIndex(n_jobs=self.n_jobs).build(rows, short))

    def _with(
        self,
        matrix: np.ndarray,
        tiles: NormTiles | None,
        compression: Compression | None = None,
        short: ExactIndex | None = None,
    ) -> ExactIndex:
        built = copy.copy(self)
        built._vectors, built._tiles = matrix, tiles
        built._compression, built._short = compression, short
        return built

    def add(self, vectors: Any) -> ExactIndex:
        """Return an index over the old rows and these after them; this object stays as it was.

        All rows are laid out anew, in the coordinates that :meth:`build` found.

        Parameters
        ----------
        vectors : array-like of float, shape (n_new, dim)

        Returns
        -------
        ExactIndex

        Raises
        ------
        ValueError
            For rows of another width, or with NaN or infinity.
        TypeError
            For anything that is no matrix of real numbers.

        Examples
        --------
        >>> index = ExactIndex().build([[1.0], [3.0]]).add([[2.0]])
        >>> index.search([[1.0]], n=2).positions
        array([[1, 2]], dtype=int32)
        """
        new = as_vectors(vectors, "vectors", self.vectors.shape[1])
        matrix = as_vectors(np.concatenate([self.vectors, new]), "vectors")
        if self._compression is None:
            with blas_threads(thread_count(self.n_jobs)):
                return self._with(matrix, self._tiles.over(matrix))
        rows = self._compression.compress_items(matrix, self.n_jobs)
        # all of them: they are divided by the largest number of any
        with blas_threads(thread_count(self.n_jobs)):
            short = self._short._with(rows, self._short._tiles.over(rows))
        return self._with(matrix, None, self._compression, short)

    def search(
        self,
        queries: Any,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Any = None,
        exclude_items: Any = None,
    ) -> Hits:
        """Return the n items with the largest inner product for each query.

        Parameters
        ----------
        queries : array-like of float, shape (n_queries, dim)
        n : int
            List length; fewer come back where fewer are available. Ties go by position.
        exclude : ItemLists, optional
            Items that must not come back, a list per query.
        candidates : array-like of int, shape (n_candidates,), optional
            Positions of the only items that may come back, the same for all queries.
        exclude_items : array-like of int, optional
            Positions of items that must not come back for any query.

        Returns
        -------
        Hits

        Raises
        ------
        ValueError
            For n below 1, queries of another width or with NaN, positions out of range, or
            another number of lists than of queries.
        TypeError
            If ``exclude`` is no ItemLists, or ``candidates`` or ``exclude_items`` are no integers.

        Examples
        --------
        >>> index = ExactIndex().build([[1.0], [3.0], [2.0]])
        >>> index.search([[1.0], [-1.0]], n=2, exclude_items=[0]).positions
        array([[1, 2],
               [2, 1]], dtype=int32)
        """
        arguments = search_arguments(queries, n, exclude, candidates, self.vectors, exclude_items)
        if self._compression is None:
            return self._search(*arguments)
        return search_compressed(
            self._short._search, self._compression, self.vectors, *arguments, self.n_jobs
        )

    def _search(
        self, queries: np.ndarray, n: int, exclude: ItemLists, allowed: np.ndarray | None
    ) -> Hits:
        n_queries = len(queries)
        n_available = self.n_items if allowed is None else len(allowed)
        n = min(n, n_available)
        few = n_available <= max(_FEW_ITEMS, 2 * n) or n_queries * n_available <= _FEW_PAIRS
        if few:
            return self._rank_all(queries, n, exclude, allowed)
        tiles, mask = self._tiles, np.empty(0, np.float32)
        if allowed is not None and n_available * _GATHER_SHARE <= self.n_items:
            tiles = tiles.of_items(allowed)
        elif allowed is not None:
            mask = tiles.mask(allowed)
        if n_queries <= _ONE_BY_ONE:
            hits, complete = self._ranked(tiles, queries, n, exclude, mask, alone=True)
        else:
            hits, complete = Hits.empty(n_queries, n), np.zeros(n_queries, bool)

            def task(start: int, stop: int) -> None:
                for first in range(start, stop, _QUERIES_AT_ONCE):
                    rows = slice(first, min(first + _QUERIES_AT_ONCE, stop))
                    part = queries[rows], n, exclude.part(rows), mask
                    ranked, complete[rows] = self._ranked(tiles, *part, alone=False)
                    hits.put(rows, ranked)

            with blas_threads(1):  # each of the threads here has work of its own
                run_ranges(task, n_queries, self.n_jobs)
        if not complete.all():
            rest = np.flatnonzero(~complete)
            hits.put(rest, self._rank_all(queries[rest], n, exclude.take(rest), allowed))
        return hits

    def _ranked(
        self,
        tiles: NormTiles,
        queries: np.ndarray,
        n: int,
        exclude: ItemLists,
        mask: np.ndarray,
        *,
        alone: bool,
    ) -> tuple[Hits, np.ndarray]:
        """Select and rank; return also for which queries the selection was complete."""
        selected, complete = select(tiles, queries, self.vectors, n, exclude, mask, alone=alone)
        ranked, _ = rank(queries, self.vectors, selected, None, n)
        return ranked, complete

    def _rank_all(
        self, queries: np.ndarray, n: int, exclude: ItemLists, allowed: np.ndarray | None
    ) -> Hits:
        everything = np.arange(self.n_items) if allowed is None else allowed
        arguments = queries, self.vectors, everything[None, :], None, n
        ranked, _ = rank(*arguments, exclude=exclude, n_jobs=self.n_jobs)
        return ranked

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what :meth:`from_state` needs beyond the vectors: coordinates, and settings."""
        _ = self.vectors  # which says so where there are none
        settings = {"n_jobs": self.n_jobs, "compress": self.compress}
        if self._compression is None:
            return self._tiles.to_state(), settings | {"n_prefix": self._tiles.n_prefix}
        state = {**self._compression.to_state(), **self._short._tiles.to_state()}
        return state, settings | {"n_prefix": self._short._tiles.n_prefix}

    @classmethod
    def from_state(
        cls, vectors: Any, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> ExactIndex:
        """Rebuild, over the same vectors, an index that gives the same answers.

        Raises
        ------
        ValueError
            If the state does not fit the vectors, or a setting is out of range.
        """
        index = cls(n_jobs=settings["n_jobs"], compress=settings["compress"])
        matrix = as_vectors(vectors, "vectors")
        n_prefix = require_count("n_prefix", settings["n_prefix"], 0)
        with blas_threads(thread_count(index.n_jobs)):
            if index.compress is None:
                return index._with(matrix, NormTiles.from_state(matrix, state, n_prefix))
            maps = Compression.from_state(state, matrix.shape[1], index.compress)
            rows = maps.compress_items(matrix, index.n_jobs)
            short = cls(n_jobs=index.n_jobs)
            short = short._with(rows, NormTiles.from_state(rows, state, n_prefix))
            return index._with(matrix, None, maps, short)
