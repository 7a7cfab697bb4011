"""The kernel in which every search ends, compiled and as plain Python, against brute force."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.index import rank as module
from fmknn.index.base import ItemLists
from fmknn.index.rank import pair_scores, rank, rank_candidates, score_pairs

# `impl` is the same for all examples of a run
law = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def integers(rng, shape, top=3):
    """float32 numbers whose sums of products are exact: scores have one right answer, with ties."""
    return rng.integers(-top, top + 1, size=shape).astype(np.float32)


def run(kernel, queries, vectors, candidates, n, excluded=None, floors=None, rows=None):
    """Call the kernel for some rows of fresh outputs, which begin as marked."""
    n_queries = len(queries)
    lists = ItemLists.empty(n_queries) if excluded is None else excluded
    floors = np.full(n_queries, -np.inf) if floors is None else np.asarray(floors, np.float64)
    positions = np.full((n_queries, n), -7, np.int32)
    scores = np.full((n_queries, n), 77.0)
    counts = np.full(n_queries, -7, np.int32)
    certain = np.zeros(n_queries, bool)
    candidates = np.asarray(candidates, np.int64)
    start, stop = rows or (0, n_queries)
    kernel(
        queries,
        vectors,
        candidates,
        0 if len(candidates) == 1 else 1,
        lists.indptr,
        lists.indices,
        floors,
        positions,
        scores,
        counts,
        certain,
        start,
        stop,
    )
    return positions, scores, counts, certain


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@law
def test_the_n_best_candidates_ties_by_position(impl, seed, data):
    rng = np.random.default_rng(seed)
    n_items, dim, n = (
        data.draw(st.integers(1, top), name) for top, name in ((40, "items"), (5, "d"), (12, "n"))
    )
    n_queries = data.draw(st.integers(1, 4), "queries")
    queries, vectors = integers(rng, (n_queries, dim)), integers(rng, (n_items, dim))
    own_lists = data.draw(st.booleans(), "own candidates")
    candidates = np.array(
        [rng.permutation(n_items) for _ in range(n_queries if own_lists else 1)], np.int64
    )
    candidates[rng.random(candidates.shape) < 0.2] = -1
    pairs = np.argwhere(rng.random((n_queries, n_items)) < data.draw(st.sampled_from([0, 0.3, 1])))
    excluded = ItemLists.from_pairs(pairs[:, 0], pairs[:, 1], n_queries)
    positions, scores, counts, _ = run(
        impl(rank_candidates), queries, vectors, candidates, n, excluded
    )
    for q in range(n_queries):
        offered = [int(c) for c in candidates[q if len(candidates) > 1 else 0] if c >= 0]
        expected = naive.brute_top_n(
            [naive.dot(queries[q].tolist(), v) for v in vectors.tolist()],
            n,
            excluded=pairs[pairs[:, 0] == q, 1].tolist(),
            candidates=offered,
        )
        got = zip(positions[q, : counts[q]].tolist(), scores[q, : counts[q]].tolist(), strict=True)
        assert list(got) == expected


def test_what_lies_behind_the_count_is_not_touched(impl):
    vectors = np.ones((2, 1), np.float32)
    positions, scores, counts, _ = run(impl(rank_candidates), vectors[:1], vectors, [[0, 1]], 4)
    assert counts.tolist() == [2]
    assert positions[0, 2:].tolist() == [-7, -7]
    assert scores[0, 2:].tolist() == [77.0, 77.0]


def test_only_the_rows_of_the_range_are_written(impl):
    rng = np.random.default_rng(0)
    queries, vectors = integers(rng, (5, 2)), integers(rng, (6, 2))
    everything = np.arange(6)[None, :]
    kernel = impl(rank_candidates)
    whole = run(kernel, queries, vectors, everything, 3)
    part = run(kernel, queries, vectors, everything, 3, rows=(1, 3))
    for all_rows, some_rows in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[1:3], some_rows[1:3])
    assert part[2].tolist() == [-7, *whole[2][1:3].tolist(), -7, -7]


def test_scores_are_summed_in_double_precision(impl):
    # in float32, 2^24 + 1 is 2^24
    queries = np.array([[4096.0, 1.0]], np.float32)
    vectors = np.array([[4096.0, 0.0], [4096.0, 1.0]], np.float32)
    positions, scores, _, _ = run(impl(rank_candidates), queries, vectors, [[0, 1]], 2)
    assert positions.tolist() == [[1, 0]]
    assert scores.tolist() == [[2.0**24 + 1, 2.0**24]]


@pytest.mark.parametrize(
    "floor, certain",
    [(-math.inf, True), (1.5, True), (2.0, False), (2.5, False), (math.inf, False)],
)
def test_certain_means_that_the_last_score_lies_above_the_floor(impl, floor, certain):
    vectors = np.array([[3.0], [2.0], [1.0]], np.float32)
    *_, got = run(
        impl(rank_candidates), np.ones((1, 1), np.float32), vectors, [[0, 1, 2]], 2, floors=[floor]
    )
    assert got.tolist() == [certain]


def test_a_list_that_is_not_full_is_not_certain(impl):
    vectors = np.array([[3.0], [2.0], [1.0]], np.float32)
    query = np.ones((1, 1), np.float32)
    *_, counts, certain = run(impl(rank_candidates), query, vectors, [[0, -1, -1]], 2, floors=[0.0])
    assert (counts.tolist(), certain.tolist()) == ([1], [False])


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 8, 9, 16, 17, 33, 65])
def test_a_pair_scores_the_same_bits_alone_and_in_a_search(impl, dim):
    rng = np.random.default_rng(dim)
    queries = rng.normal(size=(4, dim)).astype(np.float32)
    vectors = rng.normal(size=(50, dim)).astype(np.float32)
    positions, scores, _, _ = run(
        impl(rank_candidates), queries, vectors, np.arange(50)[None, :], 50
    )
    for q in range(4):
        alone = np.empty(50)
        impl(score_pairs)(
            np.repeat(queries[q : q + 1], 50, axis=0), vectors, positions[q], alone, 0, 50
        )
        assert alone.tobytes() == scores[q].tobytes()


def test_a_pair_scores_the_sum_of_products(impl):
    rng = np.random.default_rng(1)
    queries, vectors = integers(rng, (6, 5)), integers(rng, (9, 5))
    items = np.array([0, 8, 3, 3, 1, 7], np.int32)
    out = np.full(6, 77.0)
    impl(score_pairs)(queries, vectors, items, out, 1, 5)
    expected = [
        naive.dot(q, vectors[i].tolist()) for q, i in zip(queries.tolist(), items, strict=True)
    ]
    assert out.tolist() == [77.0, *expected[1:5], 77.0]


# --- the helpers inside: callers see them only compiled ----------------------------------------


@given(st.lists(st.integers(0, 60), unique=True), st.integers(-1, 61), st.integers(0, 3))
@law
def test_contains_is_membership(impl, items, asked, border):
    stored = np.array([99] * border + sorted(items) + [99] * border, np.int32)
    found = impl(module._contains)(stored, border, border + len(items), asked)
    assert bool(found) == (asked in items)


@pytest.mark.parametrize(
    "a, b, worse",
    [
        ((1, 0), (2, 9), True),
        ((2, 9), (1, 0), False),
        ((1, 3), (1, 2), True),
        ((1, 2), (1, 3), False),
    ],
)
def test_worse_goes_by_score_then_by_position(impl, a, b, worse):
    assert bool(impl(module._worse)(float(a[0]), a[1], float(b[0]), b[1])) is worse


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
@law
def test_a_heap_has_its_worst_on_top(impl, values):
    scores, items = np.array(values, np.float64), np.arange(len(values), dtype=np.int32)
    for size in range(len(values)):
        impl(module._sift_up)(scores, items, size)
    left = []
    for size in range(len(values) - 1, -1, -1):
        left.append((scores[0], items[0]))
        scores[0], items[0] = scores[size], items[size]
        impl(module._sift_down)(scores, items, size, 0)
    assert left == sorted(
        ((float(v), i) for i, v in enumerate(values)), key=lambda e: (e[0], -e[1])
    )


# --- rank: the kernel behind a function --------------------------------------------------------


def test_rank_pads_and_says_what_is_certain():
    vectors = np.array([[1.0], [3.0], [2.0]], np.float32)
    queries = np.array([[1.0], [-1.0]], np.float32)
    hits, certain = rank(queries, vectors, np.arange(3)[None, :], np.array([1.5, -np.inf]), 2)
    assert hits.positions.tolist() == [[1, 2], [0, 2]]
    assert hits.scores.tolist() == [[3.0, 2.0], [-1.0, -2.0]]
    assert certain.tolist() == [True, True]
    hits, certain = rank(
        queries, vectors, np.array([[-1, 2], [0, -1]]), np.array([0.0, -np.inf]), 2
    )
    assert hits.positions.tolist() == [[2, -1], [0, -1]]
    assert hits.scores.tolist() == [[2.0, -np.inf], [-1.0, -np.inf]]
    assert hits.counts.tolist() == [1, 1]
    assert certain.tolist() == [False, True]  # nothing was promised of the second


def test_rank_is_the_same_on_several_threads():
    rng = np.random.default_rng(2)
    queries = rng.normal(size=(2000, 6)).astype(np.float32)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    everything, floors = np.arange(300)[None, :], np.full(2000, -np.inf)
    alone, _ = rank(queries, vectors, everything, floors, 7, n_jobs=1)
    together, _ = rank(queries, vectors, everything, floors, 7, n_jobs=3)
    assert alone.positions.tobytes() == together.positions.tobytes()
    assert alone.scores.tobytes() == together.scores.tobytes()


def test_queries_of_another_width_than_the_vectors_are_refused():
    queries, vectors = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
    with refused(ValueError, "3", "2"):
        rank(queries, vectors, np.arange(4)[None, :], np.full(2, -np.inf), 1)
    with refused(ValueError, "3", "2"):
        pair_scores(queries, vectors, np.zeros(2, np.int32))
