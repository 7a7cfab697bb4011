"""faiss chooses the candidates; exact scores and full lists come from rank and overfetch.

The only file that knows faiss, and it imports it at the first build.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import require_count
from .._threads import blas_threads, thread_count
from ..data.rows import read_only
from .base import Hits, ItemLists, as_positions, as_vectors, search_arguments
from .overfetch import search_by_overfetch
from .rank import rank, rounding_error

__all__ = ["FaissIndex"]

_SAGEMAKER_NAMES = {"faiss.Flat": "Flat", "faiss.IVFFlat": "IVF"}
_loaded: dict[str, Any] = {}


def _faiss() -> Any:
    """Return faiss, single-threaded in a forked child, where its thread pool would hang."""
    if not _loaded:
        import faiss

        _loaded.update(module=faiss, pid=os.getpid())
    if _loaded["pid"] != os.getpid():  # each time: somebody may have raised it since
        _loaded["module"].omp_set_num_threads(1)
    return _loaded["module"]


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

    Examples
    --------
    >>> import numpy as np
    >>> index = FaissIndex("Flat").build(np.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> hits = index.search(np.array([[1.0, 1.0]]), n=1)
    >>> hits.positions, hits.scores
    (array([[1]], dtype=int32), array([[2.]]))
    """

    def __init__(
        self,
        kind: str = "Flat",
        *,
        nlist: int | None = None,
        nprobe: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        known = [*_SELECTORS, *_SAGEMAKER_NAMES]
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(f"unknown faiss index {kind!r}: there are {', '.join(known)}")
        thread_count(n_jobs)
        self.kind = _SAGEMAKER_NAMES.get(kind, kind)
        self.nlist = None if nlist is None else require_count("nlist", nlist)
        self.nprobe = None if nprobe is None else require_count("nprobe", nprobe)
        self.n_jobs = None if n_jobs is None else int(n_jobs)
        self._vectors: np.ndarray | None = None
        self._selector: Any = None

    def __repr__(self) -> str:
        size = "not built" if self._vectors is None else f"{self.n_items} items"
        return f"FaissIndex({self.kind!r}, {size})"

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

    def build(self, vectors: Any) -> FaissIndex:
        """Return an index over the rows of a matrix; this object stays as it was.

        Parameters
        ----------
        vectors : array-like of float, shape (n_items, dim)

        Returns
        -------
        FaissIndex
            Of the same settings.

        Raises
        ------
        ValueError
            If there is no row, a row holds NaN or infinity, or there are fewer rows than ``nlist``.
        TypeError
            For anything that is no matrix of real numbers.
        """
        matrix = as_vectors(vectors, "vectors")
        if len(matrix) == 0:
            raise ValueError("vectors has no rows: there is nothing to search")
        return self._with(matrix, _SELECTORS[self.kind].train(matrix, self))

    def _with(self, matrix: np.ndarray, selector: Any) -> FaissIndex:
        built = copy.copy(self)
        built._vectors = matrix
        built._selector = selector
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
        with blas_threads(None if self.n_jobs is None else thread_count(self.n_jobs)):
            return search_by_overfetch(
                self._selector, self.vectors, matrix, n, exclude, allowed, self.n_jobs
            )

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what :meth:`from_state` needs beyond the vectors; no bytes of faiss's own."""
        names = ("kind", "nlist", "nprobe", "n_jobs")
        return self._selector.to_state(), {name: getattr(self, name) for name in names}

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
        )
        matrix = as_vectors(vectors, "vectors")
        return index._with(matrix, _SELECTORS[index.kind].from_state(matrix, state, index))


def _bitmap(allowed: np.ndarray | None, n_items: int) -> Any:
    """Return faiss's selector for an allow-list; keep it alive, faiss holds a bare pointer."""
    if allowed is None:
        return None
    mask = np.zeros(n_items, bool)
    mask[allowed] = True
    return _faiss().IDSelectorBitmap(np.packbits(mask, bitorder="little"))


class _Flat:
    """Brute force by BLAS, which rounds: a candidate's bound says what may have been missed."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._largest_norm = float(np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1)).max())
        self._index = _faiss().IndexFlatIP(matrix.shape[1])
        self._index.add(matrix)

    @classmethod
    def train(cls, matrix: np.ndarray, settings: FaissIndex) -> _Flat:
        return cls(matrix)

    @classmethod
    def from_state(
        cls, matrix: np.ndarray, state: Mapping[str, np.ndarray], settings: FaissIndex
    ) -> _Flat:
        return cls(matrix)

    def to_state(self) -> dict[str, np.ndarray]:
        return {}

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        selector = _bitmap(allowed, self._index.ntotal)
        params = None if selector is None else faiss.SearchParameters(sel=selector)
        values, candidates = self._index.search(np.ascontiguousarray(queries), m, params=params)
        # the worst fetched bounds the rest, but for rounding
        return candidates, values[:, -1] + rounding_error(queries, self._largest_norm)


class _IVF:
    """Cells of items on a sphere (see FaissIndex's Notes).

    Which cells a query looks into is decided by our own exact kernel, so that it can't depend on
    how many queries come in one call.
    """

    def __init__(
        self, matrix: np.ndarray, centroids: np.ndarray, cell_of: np.ndarray, nprobe: int | None
    ) -> None:
        faiss = _faiss()
        n_cells, dim = centroids.shape
        self._centroids = read_only(centroids, np.float32)
        self._cell_of = read_only(cell_of, np.int32)
        self._nprobe = min(n_cells, max(32, -(-n_cells // 4)) if nprobe is None else nprobe)
        half_norm = 0.5 * (self._centroids.astype(np.float64) ** 2).sum(axis=1)
        # <[q, 1], [c, -‖c‖²/2]> ranks cells by distance; q's own last column is 0
        self._cell_rows = read_only(
            np.column_stack([self._centroids[:, :-1], -half_norm]), np.float32
        )
        quantizer = faiss.IndexFlatL2(dim)
        quantizer.add(self._centroids)
        self._quantizer = quantizer  # faiss holds a bare pointer to it
        self._index = faiss.IndexIVFFlat(quantizer, dim, n_cells, faiss.METRIC_L2)
        augmented = _augment(matrix)
        ids = np.arange(len(matrix), dtype=np.int64)
        cells = self._cell_of.astype(np.int64)
        self._index.add_core(
            len(matrix),
            faiss.swig_ptr(augmented),
            faiss.swig_ptr(ids),
            faiss.swig_ptr(cells),
        )
        self._index.ntotal = len(matrix)

    @classmethod
    def train(cls, matrix: np.ndarray, settings: FaissIndex) -> _IVF:
        faiss = _faiss()
        n_items = len(matrix)
        nlist = settings.nlist or max(1, min(int(4 * np.sqrt(n_items)), n_items // 39))
        if nlist > n_items:
            raise ValueError(f"nlist={nlist} is more than the {n_items} items: lower it")
        augmented = _augment(matrix)
        clustering = faiss.Clustering(augmented.shape[1], nlist)
        clustering.min_points_per_centroid = 1  # faiss prints a warning where there are fewer
        clustering.niter = 10
        quantizer = faiss.IndexFlatL2(augmented.shape[1])
        with blas_threads(1):  # several threads may round differently
            clustering.train(augmented, quantizer)
            centroids = faiss.vector_to_array(clustering.centroids).reshape(nlist, -1)
            cell_of = quantizer.search(augmented, 1)[1][:, 0]
        return cls(matrix, centroids, cell_of, settings.nprobe)

    @classmethod
    def from_state(
        cls, matrix: np.ndarray, state: Mapping[str, np.ndarray], settings: FaissIndex
    ) -> _IVF:
        centroids = as_vectors(state["centroids"], "centroids", matrix.shape[1] + 1)
        cell_of = as_positions(state["cell_of"], len(centroids), "cell_of")
        if len(cell_of) != len(matrix) or settings.nlist not in (None, len(centroids)):
            raise ValueError("the saved cells do not fit the vectors and settings")
        return cls(matrix, centroids, cell_of, settings.nprobe)

    def to_state(self) -> dict[str, np.ndarray]:
        return {"centroids": self._centroids, "cell_of": self._cell_of}

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        n_queries = len(queries)
        nprobe = min(len(self._centroids), self._nprobe << min(effort, 30))
        norms = np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1))
        augmented = np.zeros((n_queries, queries.shape[1] + 1), np.float32)
        # of the items' size, which leaves the order as it is
        augmented[:, :-1] = queries / np.where(norms > 0, norms, 1.0)[:, None]
        cells = self._nearest_cells(augmented[:, :-1], nprobe)
        selector = _bitmap(allowed, self._index.ntotal)
        # a parameter object without nprobe would set it to 1
        params = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        distances = np.zeros((n_queries, nprobe), np.float32)  # not used by cells of raw vectors
        candidates = np.empty((n_queries, m), np.int64)
        values = np.empty((n_queries, m), np.float32)
        pointer = faiss.swig_ptr
        # the C++ call: faiss's Python one takes no parameters, and so no filter
        self._index.search_preassigned_c(
            n_queries,
            pointer(augmented),
            m,
            pointer(cells),
            pointer(distances),
            pointer(values),
            pointer(candidates),
            False,
            params,
        )
        return candidates, np.full(n_queries, -np.inf)

    def _nearest_cells(self, queries: np.ndarray, nprobe: int) -> np.ndarray:
        n_queries = len(queries)
        rows = np.ones((n_queries, queries.shape[1] + 1), np.float32)
        rows[:, :-1] = queries
        everything = np.arange(len(self._centroids), dtype=np.int64)[None, :]
        hits, _ = rank(rows, self._cell_rows, everything, np.full(n_queries, -np.inf), nprobe)
        return hits.positions.astype(np.int64)


def _augment(matrix: np.ndarray) -> np.ndarray:
    """Divide by the largest norm and add the column that puts all rows on the unit sphere.

    faiss's squared distances then stay in the range of float32, whatever the items' scale.
    """
    unit = matrix.astype(np.float64)
    unit /= np.sqrt((unit**2).sum(axis=1)).max() or 1.0
    height = np.sqrt(np.maximum(0.0, 1.0 - (unit**2).sum(axis=1)))
    return np.column_stack([unit, height]).astype(np.float32)


_SELECTORS: dict[str, Any] = {"Flat": _Flat, "IVF": _IVF}
