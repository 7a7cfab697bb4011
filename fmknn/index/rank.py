"""The one kernel in which every search ends: exact scores in a fixed order, the n best of them.

An index may choose candidates as it likes, by BLAS or approximately: what is returned is scored
and ranked here, so that a batch gives the same bits as its rows one by one.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel
from .._threads import run_ranges
from ..data.rows import read_only
from .base import Hits, ItemLists

__all__ = ["pair_scores", "rank", "rank_candidates", "rounding_error", "score_pairs"]

_UNIT_ROUNDOFF, _UNDERFLOW, _OVERFLOW = 2.0**-24, 2.0**-126, 2.0**127  # of float32
_FEW = 256  # candidates that are sorted without a heap


def rank(
    queries: np.ndarray,
    vectors: np.ndarray,
    candidates: np.ndarray,
    floors: np.ndarray | None,
    n: int,
    *,
    exclude: ItemLists | None = None,
    n_jobs: int | None = 1,
) -> tuple[Hits, np.ndarray]:
    """Return the n best candidates of each query by exact score, ties by position.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, dim)
    vectors : ndarray of float32, shape (n_items, dim)
    candidates : ndarray of int64, shape (n_queries, m) or (1, m)
        -1 where there is none; a single row is shared by all queries.
    floors : ndarray of float64, shape (n_queries,), or None
        What an item that is no candidate can score at most. -inf, and None: nothing is promised.
    exclude : ItemLists, optional
        Candidates to pass over, per query.

    Returns
    -------
    hits : Hits
    certain : ndarray of bool, shape (n_queries,)
        Whether no better item can have been missed (true where nothing was promised).

    Raises
    ------
    ValueError
        If queries and vectors differ in width.
    """
    _require_same_width(queries, vectors)
    n_queries = len(queries)
    exclude = ItemLists.empty(n_queries) if exclude is None else exclude
    floors = np.full(n_queries, -np.inf) if floors is None else floors
    hits = Hits.empty(n_queries, n)
    certain = np.zeros(n_queries, bool)
    own_queries, vectors = read_only(queries, np.float32), read_only(vectors, np.float32)
    stride = 0 if len(candidates) == 1 else 1

    def task(start: int, stop: int) -> None:
        rank_candidates(
            own_queries,
            vectors,
            candidates,
            stride,
            exclude.indptr,
            exclude.indices,
            floors,
            hits.positions,
            hits.scores,
            hits.counts,
            certain,
            start,
            stop,
        )

    run_ranges(task, n_queries, n_jobs)
    return hits, certain | np.isneginf(floors)


def pair_scores(
    queries: np.ndarray, vectors: np.ndarray, items: np.ndarray, n_jobs: int | None = 1
) -> np.ndarray:
    """Return the inner product of each query with one item, exactly as a search scores it.

    Parameters
    ----------
    queries : ndarray of float32, shape (n, dim)
    vectors : ndarray of float32, shape (n_items, dim)
    items : ndarray of int32, shape (n,)

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    ValueError
        If queries and vectors differ in width.
    """
    _require_same_width(queries, vectors)
    out = np.empty(len(queries))
    queries, vectors = read_only(queries, np.float32), read_only(vectors, np.float32)
    items = read_only(items, np.int32)

    def task(start: int, stop: int) -> None:
        score_pairs(queries, vectors, items, out, start, stop)

    run_ranges(task, len(queries), n_jobs)
    return out


def rounding_error(queries: np.ndarray, largest_norm: float) -> np.ndarray:
    """Return how far two float32 inner products may be from their order in exact arithmetic.

    Parameters
    ----------
    queries : ndarray of float32, shape (n, dim)
    largest_norm : float
        Of the item rows.

    Returns
    -------
    ndarray of float64, shape (n,)
        Infinite where float32 may overflow.

    Notes
    -----
    Twice the bound of a dot product of this length in any order of summation (Higham, "Accuracy
    and Stability of Numerical Algorithms", section 3.1).
    """
    largest = largest_norm * np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1))
    error = 2.0 * (queries.shape[1] + 1) * (_UNIT_ROUNDOFF * largest + _UNDERFLOW)
    return np.where(largest < _OVERFLOW, error, np.inf)


def _require_same_width(queries: np.ndarray, vectors: np.ndarray) -> None:
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} columns, vectors {vectors.shape[1]}")


@kernel
def _dot(query, item):
    total = 0.0
    for d in range(query.shape[0]):
        total += np.float64(query[d]) * np.float64(item[d])
    return total


@kernel
def _worse(score_a, item_a, score_b, item_b):
    """Whether a ranks after b: by score, then by position."""
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@kernel
def _sift_down(scores, items, size, at):
    """Restore the heap whose root is the worst entry kept, from position ``at`` downwards."""
    score, item = scores[at], items[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _worse(scores[other], items[other], scores[child], items[child]):
            child = other
        if not _worse(scores[child], items[child], score, item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item


@kernel
def _sift_up(scores, items, at):
    score, item = scores[at], items[at]
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(score, item, scores[parent], items[parent]):
            break
        scores[at], items[at] = scores[parent], items[parent]
        at = parent
    scores[at], items[at] = score, item


@kernel
def _contains(sorted_items, first, last, item):
    while first < last:
        middle = (first + last) // 2
        if sorted_items[middle] < item:
            first = middle + 1
        elif sorted_items[middle] > item:
            last = middle
        else:
            return True
    return False


@kernel
def _sort_few(scores, items, size, best_scores, best_items):
    """Write the best entries in their order, placed by how many come before each.

    All against all is quadratic, but for few it is faster than branches predicted wrongly.
    """
    n = min(size, best_scores.shape[0])
    scores = scores[:size]
    best_items[:n] = -1
    for i in range(size):
        before = -1  # itself
        for j in range(size):
            before += scores[j] >= scores[i]
        if before < n:
            best_scores[before], best_items[before] = scores[i], items[i]
    for place in range(n):
        if best_items[place] < 0:  # equal scores went to one place
            _sort_ties(scores, items, size, best_scores, best_items)
            break
    return n


@kernel
def _sort_ties(scores, items, size, best_scores, best_items):
    for i in range(size):
        before = 0
        for j in range(size):
            before += _worse(scores[i], items[i], scores[j], items[j])
        if before < best_scores.shape[0]:
            best_scores[before], best_items[before] = scores[i], items[i]


@kernel
def _heap_sort(scores, items, size):
    for end in range(size - 1, 0, -1):  # the worst goes to the end
        scores[0], scores[end] = scores[end], scores[0]
        items[0], items[end] = items[end], items[0]
        _sift_down(scores, items, end, 0)


@kernel
def rank_candidates(
    queries,
    vectors,
    candidates,
    stride,
    excluded_indptr,
    excluded,
    floors,
    positions,
    scores,
    counts,
    certain,
    start,
    stop,
):
    """Rank the candidates of the queries start..stop into positions, scores and counts.

    ``candidates[query * stride]`` are a query's candidates (stride 0: one list for all), -1 where
    there is none. An item that is no candidate scores at most ``floors[query]``; ``certain`` says
    whether the n-th score lies above that, so that nothing can have been missed.
    """
    n = positions.shape[1]
    few_scores, few_items = np.empty(_FEW), np.empty(_FEW, np.int32)
    for query in range(start, stop):
        own, best_scores, best_items = queries[query], scores[query], positions[query]
        first, last = excluded_indptr[query], excluded_indptr[query + 1]
        row = query * stride
        few = candidates.shape[1] <= _FEW
        size = 0
        for c in range(candidates.shape[1]):
            item = candidates[row, c]
            if item < 0 or (first < last and _contains(excluded, first, last, item)):
                continue
            score = _dot(own, vectors[item])
            if few:
                few_scores[size], few_items[size] = score, item
                size += 1
            elif size < n:
                best_scores[size], best_items[size] = score, item
                _sift_up(best_scores, best_items, size)
                size += 1
            elif _worse(best_scores[0], best_items[0], score, item):
                best_scores[0], best_items[0] = score, item
                _sift_down(best_scores, best_items, size, 0)
        if few:
            size = _sort_few(few_scores, few_items, size, best_scores, best_items)
        else:
            _heap_sort(best_scores, best_items, size)
        counts[query] = size
        certain[query] = size == n and n > 0 and best_scores[n - 1] > floors[query]


@kernel
def score_pairs(queries, vectors, items, out, start, stop):
    """Write the inner product of each query with one item, exactly as a search scores it."""
    for row in range(start, stop):
        out[row] = _dot(queries[row], vectors[items[row]])
