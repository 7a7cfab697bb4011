"""The selectors that faiss offers: the only file that knows it, imported at the first build."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from .._threads import blas_threads
from ..data.rows import read_only
from .base import as_positions, as_vectors
from .rank import rank, rounding_error

__all__ = ["SELECTORS", "Settings"]

_loaded: dict[str, Any] = {}


def _faiss() -> Any:
    """Return faiss, single-threaded in a forked child, where its thread pool would hang."""
    if not _loaded:
        import faiss

        _loaded.update(module=faiss, pid=os.getpid())
    if _loaded["pid"] != os.getpid():  # each time: somebody may have raised it since
        _loaded["module"].omp_set_num_threads(1)
    return _loaded["module"]


class Settings(Protocol):
    """What a selector is told of a :class:`fmknn.FaissIndex`."""

    nlist: int | None
    nprobe: int | None


def _bitmap(allowed: np.ndarray | None, n_items: int) -> Any:
    """Return faiss's selector for an allow-list; keep it alive, faiss holds a bare pointer."""
    if allowed is None:
        return None
    mask = np.zeros(n_items, bool)
    mask[allowed] = True
    return _faiss().IDSelectorBitmap(np.packbits(mask, bitorder="little"))


class Flat:
    """Brute force by BLAS, which rounds: a candidate's bound says what may have been missed."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._largest_norm = float(np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1)).max())
        self._index = _faiss().IndexFlatIP(matrix.shape[1])
        self._index.add(matrix)

    @classmethod
    def train(cls, matrix: np.ndarray, settings: Settings) -> Flat:
        return cls(matrix)

    @classmethod
    def from_state(
        cls, matrix: np.ndarray, settings: Settings, state: Mapping[str, np.ndarray]
    ) -> Flat:
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


class IVF:
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
    def train(cls, matrix: np.ndarray, settings: Settings) -> IVF:
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
        cls, matrix: np.ndarray, settings: Settings, state: Mapping[str, np.ndarray]
    ) -> IVF:
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


SELECTORS: dict[str, Any] = {"Flat": Flat, "IVF": IVF}
