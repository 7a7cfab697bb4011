"""Long vectors made short: two linear maps that keep inner products, for choosing candidates.

A posterior of S samples with k factors has rows of S·k + 1 numbers, though its mean scores have
few large singular values. Candidates are chosen among short rows, and ranked over the long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .._threads import blas_threads, run_ranges
from ..data.rows import read_only
from .base import Hits, ItemLists, as_vectors
from .rank import pair_scores, rank

__all__ = ["Compression", "search_compressed", "second_moment"]

_ISOTROPIC_SHARE = 1e-4  # of all directions alike, in the queries that a fit is made for
_LEAST_SINGULAR_VALUE = 1e-6  # of the largest: what is smaller is rounding of float32 vectors
_GRAM_ROWS = 4096  # added up at a time, in float64
_ROWS_AT_ONCE = 512  # mapped at a time, so that they stay in the cache
_CHUNK_ENTRIES = 4_000_000  # candidates that are held at a time (48 MB)

ShortSearch = Callable[[np.ndarray, int, ItemLists, "np.ndarray | None"], Hits]


@dataclass(frozen=True)
class Compression:
    """Linear maps of queries and items to r numbers: <a M_q, b M_i> ≈ <a, b>.

    Attributes
    ----------
    query_map, item_map : ndarray of float32, shape (dim, r)
        M_q and M_i.

    Notes
    -----
    Let A hold queries and B items as rows. No matrix of rank r is nearer to A Bᵀ, by the sum of
    squares, than its truncated singular value decomposition U S Vᵀ (Eckart and Young, "The
    approximation of one matrix by another of lower rank", Psychometrika 1936). It follows from
    two Gram matrices; neither A Bᵀ nor U and V are formed:

    F Fᵀ = AᵀA (Cholesky), Fᵀ BᵀB F = W S² Wᵀ (the r largest eigenvalues),
    M_i = F W S^(-1/2), M_q = BᵀB F W S^(-3/2).

    Then A M_q = U S^(1/2) and B M_i = V S^(1/2). M_q is a regression of all item coordinates on
    the r that are kept: it serves any query, not only those in A. So that it is defined where
    there are fewer queries than coordinates, AᵀA / tr(AᵀA) gets 10⁻⁴ I / dim added. Coordinates
    whose singular value is below 10⁻⁶ of the largest are left out: r may be less than asked for.

    Of 50 samples with 16 factors, 801 numbers a row, trained on MovieLens 100K (fold u1), top 10s
    share with the exact ones, users' own and in contexts (rating day and weekday; at a random
    level, or left out with "zero"):

    ======== ======= ============ ============
    compress users   random level context left
    ======== ======= ============ ============
    8        0.9999  0.998        0.995
    16       1.0000  0.9999       0.998
    32       1.0000  1.0000       0.9994
    64       1.0000  1.0000       0.9999
    ======== ======= ============ ============
    """

    query_map: np.ndarray
    item_map: np.ndarray

    @classmethod
    def fit(cls, items: np.ndarray, queries: np.ndarray | None, r: int) -> Compression:
        """Find the maps for what will be asked.

        Parameters
        ----------
        items : ndarray of float32, shape (n_items, dim)
        queries : ndarray of float32, shape (n_queries, dim), or None
            A sample of what will be asked. None: all directions alike, which makes this a
            principal component analysis (about the origin) of the items.
        r : int
            The most numbers to keep.

        Returns
        -------
        Compression
            The same to the last bit however many threads there are. It takes memory for a few
            matrices of dim × dim float64, and time of n · dim² + dim³.

        Examples
        --------
        >>> items = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [3.0, 0.0, 6.0]], np.float32)
        >>> maps = Compression.fit(items, None, r=2)
        >>> query = np.array([[1.0, 5.0, 1.0]], np.float32)
        >>> np.round(query @ maps.query_map @ (items @ maps.item_map).T, 3)
        array([[3., 5., 9.]], dtype=float32)
        """
        import scipy.linalg  # here: before BLAS is limited, and not with `import fmknn`

        dim = items.shape[1]
        with blas_threads(1):  # several threads may round differently
            of_queries = np.zeros((dim, dim)) if queries is None else second_moment(queries)
            of_queries += np.eye(dim) * (_ISOTROPIC_SHARE / dim)
            of_items = second_moment(items)
            factor = np.linalg.cholesky(of_queries)
            squares, vectors = scipy.linalg.eigh(
                factor.T @ of_items @ factor, subset_by_index=[max(0, dim - r), dim - 1]
            )
            squares, vectors = squares[::-1], vectors[:, ::-1]  # largest first
            least = _LEAST_SINGULAR_VALUE**2 * (squares[0] if squares[0] > 0 else 1.0)
            n_kept = max(1, int((squares >= least).sum()))
            values = np.sqrt(np.maximum(squares[:n_kept], least))
            kept = factor @ vectors[:, :n_kept]
            largest = np.abs(kept).argmax(axis=0)  # its sign: an eigenvector has two
            kept *= np.where(kept[largest, np.arange(n_kept)] < 0, -1.0, 1.0)
            return cls(
                read_only(of_items @ kept * values**-1.5, np.float32),
                read_only(kept * values**-0.5, np.float32),
            )

    @property
    def width(self) -> int:
        """The number r of coordinates that are kept."""
        return self.query_map.shape[1]

    def compress_items(
        self, items: np.ndarray, n_jobs: int | None = 1, n_first: int | None = None
    ) -> np.ndarray:
        """Return B M_i up to a common factor; no number of the first ``n_first`` is above 1.

        Parameters
        ----------
        items : ndarray of float32, shape (n_items, dim)
        n_jobs : int or None
        n_first : int, optional
            Default all. The rows after these do not change what becomes of them.

        Returns
        -------
        ndarray of float32, shape (n_items, r)
        """
        mapped = _mapped(items, self.item_map, n_jobs)
        mapped /= np.abs(mapped[:n_first]).max(initial=0.0) or 1.0
        largest = np.finfo(np.float32).max
        return read_only(np.clip(mapped, -largest, largest), np.float32)

    def compress_queries(self, queries: np.ndarray, n_jobs: int | None = 1) -> np.ndarray:
        """Return A M_q up to a factor for each row, which leaves its order of items as it is.

        Parameters
        ----------
        queries : ndarray of float32, shape (n_queries, dim)

        Returns
        -------
        ndarray of float32, shape (n_queries, r)
            Each row depends on its own query only, to the last bit.
        """
        mapped = _mapped(queries, self.query_map, n_jobs)
        largest = np.abs(mapped).max(axis=1, keepdims=True, initial=0.0)
        return read_only(mapped / np.where(largest > 0, largest, 1.0), np.float32)

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`from_state` needs."""
        return {"query_map": self.query_map, "item_map": self.item_map}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], dim: int, r: int) -> Compression:
        """Take back the maps of :meth:`to_state`, for vectors of that width.

        Raises
        ------
        ValueError
            If they are no finite matrices of dim rows and of the same 1 to r columns.
        """
        maps = [as_vectors(state[name], name) for name in ("query_map", "item_map")]
        (rows, width), other = maps[0].shape, maps[1].shape
        if (rows, width) != other or rows != dim or not 1 <= width <= min(r, dim):
            raise ValueError(
                f"the saved maps have shapes {(rows, width)} and {other}, where {dim} rows and at "
                f"most {r} columns are wanted"
            )
        return cls(*maps)


def search_compressed(
    search: ShortSearch,
    compression: Compression,
    vectors: np.ndarray,
    queries: np.ndarray,
    n: int,
    exclude: ItemLists,
    allowed: np.ndarray | None,
    n_jobs: int | None,
) -> Hits:
    """Search the short rows for 2 n + 30 candidates each, and rank those over the long ones.

    Parameters
    ----------
    search : callable
        ``search(short_queries, n, exclude, allowed)`` returns the Hits among the short rows.
    compression : Compression
    vectors, queries : ndarray of float32
        The long rows.
    n : int
    exclude : ItemLists
        One list per query; an excluded item is no candidate.
    allowed : ndarray of int64, ascending, or None for all items
    n_jobs : int or None

    Returns
    -------
    Hits
        Of exact scores, and as many as there are: only which items they are may differ from an
        exact search.
    """
    n_available = len(vectors) if allowed is None else len(allowed)
    n = min(n, n_available)
    hits = Hits.empty(len(queries), n)
    n_candidates = min(2 * n + 30, n_available)
    if n_candidates == 0:
        return hits
    step = max(1, _CHUNK_ENTRIES // n_candidates)
    for at in range(0, len(queries), step):
        part = np.arange(at, min(at + step, len(queries)))
        short = compression.compress_queries(queries[part], n_jobs)
        found = search(short, n_candidates, exclude.take(part), allowed)
        candidates = found.positions.astype(np.int64)
        ranked, _ = rank(queries[part], vectors, candidates, None, n, n_jobs=n_jobs)
        hits.put(part, ranked)
    return hits


def second_moment(rows: np.ndarray) -> np.ndarray:
    """Return XᵀX / tr(XᵀX), summed in a fixed order; zeros where X is zero."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for at in range(0, len(rows), _GRAM_ROWS):
        block = rows[at : at + _GRAM_ROWS].astype(np.float64)
        total += block.T @ block
    return total / (np.trace(total) or 1.0)


def _mapped(rows: np.ndarray, linear_map: np.ndarray, n_jobs: int | None) -> np.ndarray:
    """Return rows @ linear_map in float64, each number summed alone: BLAS looks at the batch."""
    columns = read_only(linear_map.T, np.float32)
    out = np.empty((len(rows), len(columns)))

    def task(start: int, stop: int) -> None:
        for first in range(start, stop, _ROWS_AT_ONCE):
            part = slice(first, min(first + _ROWS_AT_ONCE, stop))
            for column in range(len(columns)):
                which = np.full(part.stop - part.start, column, np.int32)
                out[part, column] = pair_scores(rows[part], columns, which)

    run_ranges(task, len(rows), n_jobs)
    return out
