"""The selectors that are ours but for the scan: exact, and cells of items on a sphere.

The only file that imports faiss, at the first build.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .._checks import require_count
from .._threads import blas_threads
from ..data.rows import read_only
from .base import as_positions, as_vectors
from .overfetch import Selector
from .rank import rank, rounding_error

__all__ = [
    "IVF",
    "FaissSelector",
    "Flat",
    "Settings",
    "augmented",
    "bitmap",
    "default_nlist",
    "default_nprobe",
    "largest_norm",
    "load_faiss",
    "one_thread",
    "unit_rows",
]

_CELLS_PER_ROOT = 4  # nlist = 4 √n
_ROWS_PER_CELL = 39  # fewer would not fix a centroid
_LEAST_NPROBE = 32
_SHARE_OF_CELLS = 4  # a quarter

_loaded: dict[str, Any] = {}


def load_faiss() -> Any:
    """Return faiss, single-threaded in a forked child, where its thread pool would hang."""
    if not _loaded:
        import faiss

        _loaded.update(module=faiss, pid=os.getpid())
    if _loaded["pid"] != os.getpid():  # each time: somebody may have raised it since
        _loaded["module"].omp_set_num_threads(1)
    return _loaded["module"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep faiss to the calling thread inside the block; OpenMP counts by thread."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Settings(Protocol):
    """What a selector is told of a :class:`fmknn.FaissIndex`."""

    kind: str
    nlist: int | None
    nprobe: int | None
    ef_search: int | None
    n_jobs: int | None


class FaissSelector(Selector, Protocol):
    """A selector over item rows. ``batches`` are the row counts of the build and of each add."""

    def limits(self) -> dict[str, int]:
        """Return the parameters that can be tuned, each with the largest value of any use."""
        ...

    def work(self, parameters: Mapping[str, int], m: int) -> float:
        """Return the cost of fetching for a list of m, in bytes read, to compare parameters by."""
        ...

    def with_parameters(self, parameters: Mapping[str, Any]) -> FaissSelector:
        """Return the same selector with other parameters.

        Raises
        ------
        ValueError
            If they are not those of :meth:`limits`, or out of range.
        """
        ...

    def add(self, rows: np.ndarray, batches: list[int]) -> FaissSelector:
        """Return a selector over all ``rows``, of which the last batch is new."""
        ...

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that rebuild it, beside the rows and the batches."""
        ...


class Tunable:
    """Parameters within limits."""

    parameters: Mapping[str, int]

    def limits(self) -> dict[str, int]:
        return {}

    def with_parameters(self, parameters: Mapping[str, Any]) -> Any:
        limits = self.limits()
        if not isinstance(parameters, Mapping) or set(parameters) != set(limits):
            raise ValueError(f"the tuned parameters are not {', '.join(limits) or 'empty'}")
        for name, most in limits.items():
            if require_count(name, parameters[name]) > most:
                raise ValueError(f"{name} must be at most {most}, got {parameters[name]}")
        other = copy.copy(self)
        other.parameters = dict(parameters)
        return other


class Flat(Tunable):
    """Brute force by BLAS, which rounds: a candidate's bound says what may have been missed."""

    def __init__(self, rows: np.ndarray) -> None:
        self.parameters = {}
        self._largest_norm = largest_norm(rows)
        self._index = load_faiss().IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    @classmethod
    def train(cls, rows: np.ndarray, settings: Settings) -> Flat:
        return cls(rows)

    @classmethod
    def from_state(
        cls,
        rows: np.ndarray,
        settings: Settings,
        state: Mapping[str, np.ndarray],
        batches: list[int],
    ) -> Flat:
        return cls(rows)

    def to_state(self) -> dict[str, np.ndarray]:
        return {}

    def work(self, parameters: Mapping[str, int], m: int) -> float:
        return 0.0

    def add(self, rows: np.ndarray, batches: list[int]) -> Flat:
        return Flat(rows)

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = load_faiss()
        selector = bitmap(allowed, self._index.ntotal)
        params = None if selector is None else faiss.SearchParameters(sel=selector)
        values, candidates = self._index.search(np.ascontiguousarray(queries), m, params=params)
        # the worst fetched bounds the rest, but for rounding
        return candidates, values[:, -1] + rounding_error(queries, self._largest_norm)


class IVF(Tunable):
    """Cells of items on a sphere (see FaissIndex's Notes), within which inner products are taken.

    Which cells a query looks into is decided by our own exact kernel, so that it can't depend on
    how many queries come in one call.
    """

    def __init__(
        self,
        rows: np.ndarray,
        centroids: np.ndarray,
        cell_of: np.ndarray,
        n_trained: int,
        settings: Settings,
    ) -> None:
        faiss = load_faiss()
        n_cells, dim = len(centroids), rows.shape[1]
        self._settings = settings
        self._centroids = read_only(centroids, np.float32)
        self._cell_of = read_only(cell_of, np.int32)
        self._radius = largest_norm(rows[:n_trained])
        nprobe = settings.nprobe or default_nprobe(n_cells)
        self.parameters = {"nprobe": min(n_cells, nprobe)}
        half_norm = 0.5 * (self._centroids.astype(np.float64) ** 2).sum(axis=1)
        # <[q, 1], [c, -‖c‖²/2]> ranks cells by distance; q's own last column is 0
        self._cell_rows = read_only(
            np.column_stack([self._centroids[:, :-1], -half_norm]), np.float32
        )
        # faiss wants as many centroids as cells, and never looks at them: it is told the cells
        quantizer = faiss.IndexFlatL2(dim)
        quantizer.add(np.zeros((n_cells, dim), np.float32))
        self._quantizer = quantizer  # faiss holds a bare pointer to it
        self._index = faiss.IndexIVFFlat(quantizer, dim, n_cells, faiss.METRIC_INNER_PRODUCT)
        # by a power of two: products keep their order, and do not overflow
        scaled = np.ldexp(rows, -int(np.frexp(np.abs(rows).max(initial=0.0))[1]))
        ids = np.arange(len(rows), dtype=np.int64)
        cells = self._cell_of.astype(np.int64)
        pointer = faiss.swig_ptr
        self._index.add_core(len(rows), pointer(scaled), pointer(ids), pointer(cells))
        self._index.ntotal = len(rows)

    @classmethod
    def train(cls, rows: np.ndarray, settings: Settings) -> IVF:
        faiss = load_faiss()
        n_items = len(rows)
        nlist = settings.nlist or default_nlist(n_items)
        if nlist > n_items:
            raise ValueError(f"nlist={nlist} is more than the {n_items} items: lower it")
        on_sphere = augmented(rows, largest_norm(rows))
        clustering = faiss.Clustering(on_sphere.shape[1], nlist)
        clustering.min_points_per_centroid = 1  # faiss prints a warning where there are fewer
        clustering.niter = 10
        quantizer = faiss.IndexFlatL2(on_sphere.shape[1])
        with blas_threads(1):  # several threads may round differently
            clustering.train(on_sphere, quantizer)
            centroids = faiss.vector_to_array(clustering.centroids).reshape(nlist, -1)
            cell_of = quantizer.search(on_sphere, 1)[1][:, 0]
        return cls(rows, centroids, cell_of, n_items, settings)

    @classmethod
    def from_state(
        cls,
        rows: np.ndarray,
        settings: Settings,
        state: Mapping[str, np.ndarray],
        batches: list[int],
    ) -> IVF:
        centroids = as_vectors(state["centroids"], "centroids", rows.shape[1] + 1)
        cell_of = as_positions(state["cell_of"], len(centroids), "cell_of")
        if len(cell_of) != len(rows) or settings.nlist not in (None, len(centroids)):
            raise ValueError("the saved cells do not fit the vectors and settings")
        return cls(rows, centroids, cell_of, batches[0], settings)

    def to_state(self) -> dict[str, np.ndarray]:
        return {"centroids": self._centroids, "cell_of": self._cell_of}

    def limits(self) -> dict[str, int]:
        return {"nprobe": len(self._centroids)}

    def work(self, parameters: Mapping[str, int], m: int) -> float:
        return float(parameters["nprobe"])

    def add(self, rows: np.ndarray, batches: list[int]) -> IVF:
        quantizer = load_faiss().IndexFlatL2(self._centroids.shape[1])
        quantizer.add(self._centroids)
        with blas_threads(1):
            new = augmented(rows[len(self._cell_of) :], self._radius)
            cells = quantizer.search(new, 1)[1][:, 0]
        cell_of = np.concatenate([self._cell_of, np.maximum(cells, 0).astype(np.int32)])
        other = IVF(rows, self._centroids, cell_of, batches[0], self._settings)
        other.parameters = self.parameters
        return other

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = load_faiss()
        n_queries = len(queries)
        nprobe = min(len(self._centroids), self.parameters["nprobe"] << min(effort, 30))
        rows = unit_rows(queries, queries.shape[1])  # which leaves the order as it is
        cells = self._nearest_cells(rows, nprobe)
        selector = bitmap(allowed, self._index.ntotal)
        # a parameter object without nprobe would set it to 1
        params = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        unused = np.zeros((n_queries, nprobe), np.float32)  # by cells of raw vectors
        candidates = np.empty((n_queries, m), np.int64)
        values = np.empty((n_queries, m), np.float32)
        pointer = faiss.swig_ptr
        # the C++ call: faiss's Python one takes no parameters, and so no filter
        self._index.search_preassigned_c(
            n_queries,
            pointer(rows),
            m,
            pointer(cells),
            pointer(unused),
            pointer(values),
            pointer(candidates),
            False,
            params,
        )
        return candidates, np.full(n_queries, -np.inf)

    def _nearest_cells(self, unit_queries: np.ndarray, nprobe: int) -> np.ndarray:
        n_queries = len(unit_queries)
        rows = np.column_stack([unit_queries, np.ones(n_queries, np.float32)])
        everything = np.arange(len(self._centroids), dtype=np.int64)[None, :]
        floors = np.full(n_queries, -np.inf)
        n_jobs = self._settings.n_jobs
        hits, _ = rank(rows, self._cell_rows, everything, floors, nprobe, n_jobs=n_jobs)
        return hits.positions.astype(np.int64)


def default_nlist(n_items: int) -> int:
    """Return min(4 √n, n / 39), at least 1."""
    return max(1, min(int(_CELLS_PER_ROOT * np.sqrt(n_items)), n_items // _ROWS_PER_CELL))


def default_nprobe(nlist: int) -> int:
    """Return a quarter of the cells, at least 32."""
    return max(_LEAST_NPROBE, -(-nlist // _SHARE_OF_CELLS))


def bitmap(allowed: np.ndarray | None, n_items: int) -> Any:
    """Return faiss's selector for an allow-list; keep it alive, faiss holds a bare pointer."""
    if allowed is None:
        return None
    mask = np.zeros(n_items, bool)
    mask[allowed] = True
    return load_faiss().IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def largest_norm(rows: np.ndarray) -> float:
    """Return the largest Euclidean norm of a row."""
    return float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0))


def augmented(rows: np.ndarray, radius: float) -> np.ndarray:
    """Divide by the radius and add the column that puts shorter rows on the unit sphere.

    faiss's squared distances then stay in the range of float32, whatever the items' scale.
    """
    unit = rows / np.float64(radius or 1.0)
    height = np.sqrt(np.maximum(0.0, 1.0 - (unit**2).sum(axis=1)))
    return np.column_stack([unit, height]).astype(np.float32)


def unit_rows(queries: np.ndarray, width: int) -> np.ndarray:
    """Return rows of norm 1 (zeros stay) with columns of zeros up to the width."""
    norms = np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1))
    rows = np.zeros((len(queries), width), np.float32)
    rows[:, : queries.shape[1]] = queries / np.where(norms > 0, norms, 1.0)[:, None]
    return rows
