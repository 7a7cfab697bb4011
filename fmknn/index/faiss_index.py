"""faiss chooses the candidates; exact scores and full lists come from rank and overfetch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .._checks import require_count
from .._threads import blas_threads, thread_count
from .base import Hits, ItemLists, as_vectors, search_arguments
from .compression import Compression, search_compressed
from .faiss_selectors import SELECTORS
from .overfetch import search_by_overfetch

__all__ = ["FaissIndex"]

_SAGEMAKER_NAMES = {"faiss.Flat": "Flat", "faiss.IVFFlat": "IVF"}


class FaissIndex:
    """Inner-product search by faiss.

    Parameters
    ----------
    kind : {"Flat", "IVF"}
        "Flat" is exact. "IVF" looks only into the ``nprobe`` cells nearest to the query, out of
        ``nlist``: it may miss items, but never returns a wrong score. SageMaker's names
        "faiss.Flat" and "faiss.IVFFlat" mean the same.
    nlist : int, optional
        Cells of an IVF; default min(4 √n, n / 39), at least 1.
    nprobe : int, optional
        Cells to look into; default a quarter of them, at least 32.
    n_jobs : int, optional
        Threads of faiss and of the exact ranking; default all cores. Answers don't depend on it.
    compress : int, optional
        Choose candidates (2 n + 30 for a list of n) among rows of only so many numbers, and rank
        these over the full rows: it may miss items, but never returns a wrong score. For the long
        rows of a posterior, of which 32 are enough; see the Notes.

    Raises
    ------
    ValueError
        For an unknown kind, or a number that is no integer of at least 1.

    Notes
    -----
    Item rows [q_i, b_i] differ much in norm, which spoils cells made for inner products. The IVF
    therefore divides by the largest norm M and adds a column √(1 - ‖x‖²/M²): all items then lie on
    a sphere, and the largest inner product is the smallest Euclidean distance (Bachrach et al.,
    "Speeding Up the Xbox Recommender System", RecSys 2014).

    ``compress`` keeps of all inner products of queries and items what a matrix of that rank can
    (:class:`fmknn.index.compression.Compression`). Of 50 samples with 16 factors, 801 numbers a
    row, trained on MovieLens 100K (fold u1), top 10s share with the exact ones, users' own and
    in contexts (rating day and weekday; at a random level, or left out with "zero"):

    ======== ======= ============ ============
    compress users   random level context left
    ======== ======= ============ ============
    8        0.9999  0.998        0.995
    16       1.0000  0.9999       0.998
    32       1.0000  1.0000       0.9994
    64       1.0000  1.0000       0.9999
    ======== ======= ============ ============

    Examples
    --------
    >>> import numpy as np
    >>> index = FaissIndex("Flat").build(np.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> hits = index.search(np.array([[1.0, 1.0]]), n=1)
    >>> hits.positions, hits.scores
    (array([[1]], dtype=int32), array([[2.]]))

    Items that differ in one direction only need one number to be told apart:

    >>> rows = np.outer(np.arange(100.0), [1.0, 2.0, 3.0])
    >>> FaissIndex("Flat", compress=1).build(rows).search([[1.0, 0.0, 0.0]], n=3).scores
    array([[99., 98., 97.]])
    """

    def __init__(
        self,
        kind: str = "Flat",
        *,
        nlist: int | None = None,
        nprobe: int | None = None,
        n_jobs: int | None = None,
        compress: int | None = None,
    ) -> None:
        known = [*SELECTORS, *_SAGEMAKER_NAMES]
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(f"unknown faiss index {kind!r}: there are {', '.join(known)}")
        thread_count(n_jobs)
        self.kind = _SAGEMAKER_NAMES.get(kind, kind)
        self.nlist = None if nlist is None else require_count("nlist", nlist)
        self.nprobe = None if nprobe is None else require_count("nprobe", nprobe)
        self.n_jobs = None if n_jobs is None else int(n_jobs)
        self.compress = None if compress is None else require_count("compress", compress)
        self._vectors: np.ndarray | None = None
        self._selector: Any = None
        self._compression: Compression | None = None
        self._rows: Any = None  # what the selector searches

    def __repr__(self) -> str:
        size = "not built" if self._vectors is None else f"{self.n_items} items"
        compress = "" if self.compress is None else f"compress={self.compress}, "
        return f"FaissIndex({self.kind!r}, {compress}{size})"

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

    @property
    def tunes_on_queries(self) -> bool:
        """Whether :meth:`build` makes use of queries."""
        return self.compress is not None

    def compressed(self, compress: int) -> FaissIndex:
        """Return an index of the same settings, still empty, that compresses to so many numbers.

        Examples
        --------
        >>> FaissIndex("IVF").compressed(32)
        FaissIndex('IVF', compress=32, not built)
        """
        settings = {**self._settings(), "compress": compress}
        return FaissIndex(settings.pop("kind"), **settings)

    def build(self, vectors: Any, queries: Any = None) -> FaissIndex:
        """Return an index over the rows of a matrix; this object stays as it was.

        Parameters
        ----------
        vectors : array-like of float, shape (n_items, dim)
        queries : array-like of float, shape (n_queries, dim), optional
            A sample of what will be asked, which ``compress`` is made for; default all directions
            alike.

        Returns
        -------
        FaissIndex
            Of the same settings.

        Raises
        ------
        ValueError
            If there is no row, a row holds NaN or infinity, there are fewer rows than ``nlist``, or
            queries are of another width.
        TypeError
            For anything that is no matrix of real numbers.
        """
        matrix = as_vectors(vectors, "vectors")
        if len(matrix) == 0:
            raise ValueError("vectors has no rows: there is nothing to search")
        asked = None if queries is None else as_vectors(queries, "queries", matrix.shape[1])
        maps = None if self.compress is None else Compression.fit(matrix, asked, self.compress)
        return self._with(matrix, maps, SELECTORS[self.kind].train)

    def _with(self, matrix: np.ndarray, maps: Compression | None, selector: Any) -> FaissIndex:
        built = copy.copy(self)
        built._vectors, built._compression = matrix, maps
        built._rows = matrix if maps is None else maps.compress_items(matrix, self.n_jobs)
        built._selector = selector(built._rows, self)
        return built

    def search(
        self,
        queries: Any,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Any = None,
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

        Returns
        -------
        Hits

        Raises
        ------
        ValueError
            For n below 1, queries of another width or with NaN, positions out of range, or
            another number of lists than of queries.
        TypeError
            If ``exclude`` is no ItemLists or ``candidates`` are no integers.

        Examples
        --------
        >>> index = FaissIndex().build([[1.0], [3.0], [2.0]])
        >>> index.search([[1.0], [1.0]], n=2).positions
        array([[1, 2],
               [1, 2]], dtype=int32)
        >>> index.search(
        ...     [[1.0], [1.0]], n=2, exclude=ItemLists.from_pairs([0], [1], n_queries=2)
        ... ).positions
        array([[2, 0],
               [1, 2]], dtype=int32)
        """
        matrix, n, exclude, allowed = search_arguments(
            queries, n, exclude, candidates, self.vectors
        )
        arguments = self.vectors, matrix, n, exclude, allowed, self.n_jobs
        with blas_threads(None if self.n_jobs is None else thread_count(self.n_jobs)):
            if self._compression is None:
                return search_by_overfetch(self._selector, *arguments)
            return search_compressed(self._selector, self._compression, self._rows, *arguments)

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what :meth:`from_state` needs beyond the vectors; no bytes of faiss's own."""
        maps = {} if self._compression is None else self._compression.to_state()
        return {**self._selector.to_state(), **maps}, self._settings()

    def _settings(self) -> dict[str, Any]:
        names = ("kind", "nlist", "nprobe", "n_jobs", "compress")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(
        cls, vectors: Any, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> FaissIndex:
        """Rebuild, over the same vectors, an index that gives the same answers.

        Raises
        ------
        ValueError
            If the state does not fit the vectors, or a setting is out of range.
        """
        index = cls(
            settings["kind"],
            nlist=settings["nlist"],
            nprobe=settings["nprobe"],
            n_jobs=settings.get("n_jobs"),  # which older files do not have
            compress=settings.get("compress"),
        )
        matrix = as_vectors(vectors, "vectors")
        maps = None
        if index.compress is not None:
            maps = Compression.from_state(state, matrix.shape[1], index.compress)
        selector = partial(SELECTORS[index.kind].from_state, state=state)
        return index._with(matrix, maps, selector)
