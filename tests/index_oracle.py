"""What every index must answer, by brute force, and the indexes that are asked."""

from __future__ import annotations

import numpy as np

from fmknn.index.base import ItemLists
from fmknn.index.exact import ExactIndex
from fmknn.index.faiss_index import FaissIndex

ROUNDING = 1e-12  # of the sum of the terms' magnitudes: a float64 sum in any order


def _cells(n_items):
    return max(1, n_items // 40)


# each makes an unbuilt index for so many items
EXACT = {
    "exact": lambda n_items: ExactIndex(),
    "exact on two threads": lambda n_items: ExactIndex(n_jobs=2),
    "flat": lambda n_items: FaissIndex("Flat"),
}
APPROXIMATE = {
    "exact among short rows": lambda n_items: ExactIndex(compress=2),
    "flat among short rows": lambda n_items: FaissIndex("Flat", compress=2),
    "ivf": lambda n_items: FaissIndex("IVF", nlist=_cells(n_items), nprobe=2),
    "ivfpq": lambda n_items: FaissIndex("IVFPQ", nlist=_cells(n_items), nprobe=2),
    "hnsw": lambda n_items: FaissIndex("HNSW", ef_search=16),
    "sq8": lambda n_items: FaissIndex("SQ8"),
    "factory string": lambda n_items: FaissIndex(f"IVF{_cells(n_items)},SQ4", nprobe=1),
}
MAKERS = EXACT | APPROXIMATE


def build(kind, vectors):
    """Return an index over the rows; one that may miss items looks at few of them."""
    return MAKERS[kind](len(vectors)).build(vectors)


def inner_products(queries, vectors):
    """Return the float64 inner products of the float32 rows, and how far rounding may move them."""
    queries, vectors = (
        np.asarray(rows, np.float32).astype(np.float64) for rows in (queries, vectors)
    )
    return queries @ vectors.T, ROUNDING * (np.abs(queries) @ np.abs(vectors).T)


def best(scores, n, available):
    """Return the positions of the n largest scores among those available, ties by position."""
    return sorted(available, key=lambda position: (-scores[position], position))[:n]


def lists_of(sets):
    """Return the item lists of one collection of positions per query."""
    pairs = [(query, item) for query, items in enumerate(sets) for item in items]
    query, item = np.array(pairs, np.int64).reshape(-1, 2).T
    return ItemLists.from_pairs(query, item, len(sets))


def shared_positions(n_items, candidates=None, exclude_items=None):
    """Return the positions that the lists for all queries leave."""
    allowed = set(range(n_items)) if candidates is None else {int(item) for item in candidates}
    return allowed - ({int(item) for item in exclude_items} if exclude_items is not None else set())


def bits(hits):
    """Return the answer as bytes, which differ where any bit does."""
    return hits.positions.tobytes(), hits.scores.tobytes(), hits.counts.tobytes()


def row_of(hits, row):
    """Return the bytes of one row, as :func:`bits` gives them for that query alone."""
    part = slice(row, row + 1)
    return tuple(array[part].tobytes() for array in (hits.positions, hits.scores, hits.counts))


def all_scores(index, queries):
    """Return the scores of all pairs in the index's own bits, checked against brute force.

    Every item is asked for, so every item must be there.
    """
    hits = index.search(queries, index.n_items)
    n_queries, n_items = len(hits.counts), index.n_items
    assert hits.counts.tolist() == [n_items] * n_queries
    assert (np.sort(hits.positions, axis=1) == np.arange(n_items)).all()
    scores = np.empty((n_queries, n_items))
    np.put_along_axis(scores, hits.positions.astype(np.int64), hits.scores, axis=1)
    wanted, margin = inner_products(queries, index.vectors)
    assert (np.abs(scores - wanted) <= margin).all()
    order = np.argsort(-scores, axis=1, kind="stable")
    assert (hits.positions == order).all(), "not by score, ties by position"
    return scores


def assert_answers(hits, scores, n, *, exact, exclude=None, candidates=None, exclude_items=None):
    """Assert that the hits are right, given the scores of all pairs, to the bit.

    ``exclude`` holds a collection of positions per query. Where the index is exact, the hits must
    be those of brute force.
    """
    n_queries, n_items = scores.shape
    shared = shared_positions(n_items, candidates, exclude_items)
    assert (hits.positions.dtype, hits.scores.dtype, hits.counts.dtype) == (
        np.int32,
        np.float64,
        np.int32,
    )
    width = min(n, len(shared))
    assert hits.positions.shape == hits.scores.shape == (n_queries, width)
    assert hits.counts.shape == (n_queries,)
    for q in range(n_queries):
        available = shared if exclude is None else shared.difference(map(int, exclude[q]))
        count = int(hits.counts[q])
        positions = hits.positions[q, :count].tolist()
        assert count == min(n, len(available))
        assert (hits.positions[q, count:] == -1).all()
        assert np.isneginf(hits.scores[q, count:]).all()
        assert len(set(positions)) == count, "an item twice"
        assert available.issuperset(positions), "an item that must not be there"
        assert hits.scores[q, :count].tobytes() == scores[q, positions].tobytes()
        assert positions == best(scores[q], n, available if exact else positions)


def assert_exact_at_scale(hits, scores, margin, n, left_out=None):
    """Assert the same of exact hits at large, where ``scores`` are brute force within ``margin``.

    ``left_out`` is a mask of the pairs that must not come back. With a margin of zero the hits must
    be those of brute force; otherwise none that is missing may be better by more than rounding.
    """
    if left_out is not None:
        scores = np.where(left_out, -np.inf, scores)
    available = np.isfinite(scores).sum(axis=1)
    assert (hits.counts == np.minimum(n, available)).all()
    rows = np.arange(len(scores))[:, None]
    within = np.arange(hits.positions.shape[1]) < hits.counts[:, None]
    assert (hits.positions[~within] == -1).all() and np.isneginf(hits.scores[~within]).all()
    if not np.any(margin):
        order = np.argsort(-scores, axis=1, kind="stable")[:, : hits.positions.shape[1]]
        assert (hits.positions[within] == order[within]).all()
        assert (hits.scores[within] == scores[rows, order][within]).all()
        return
    row, place = np.nonzero(within)
    positions, got = hits.positions[row, place], hits.scores[row, place]
    assert (np.abs(got - scores[row, positions]) <= margin[row, positions]).all()
    missing = scores - margin
    for row, count in enumerate(hits.counts):
        positions, got = hits.positions[row, :count], hits.scores[row, :count]
        assert len(set(positions.tolist())) == count
        assert (np.lexsort((positions, -got)) == np.arange(count)).all()
        missing[row, positions] = -np.inf
        assert count == 0 or (missing[row] <= got[-1]).all(), "a better item is missing"
