"""One suite for every index: what the protocol promises, against brute force."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import refused
from threadpoolctl import threadpool_limits

from fmknn.backends.base import Local
from fmknn.index.base import Hits, ItemLists, as_vectors
from fmknn.index.faiss_index import FaissIndex
from fmknn.model import storage

OWN = ["Flat", "IVF"]  # faiss only scans for them; the others are built by it as well
OTHERS = ["IVFPQ", "HNSW", "SQ8", "PCA5,IVF4,SQ8", "PQ4x4fs"]  # the last one knows no filters
KINDS = [*OWN, *OTHERS[:3]]
EXACT = {"Flat"}
TOP = 2**20  # whole numbers below it: float32 rounds their products, float64 sums them exactly

every_index = pytest.mark.parametrize("kind", KINDS)


def build(kind, vectors, **settings):
    """An index; an IVF gets cells even where there are few items, and looks into few of them."""
    if kind == "IVF" and not settings:
        settings = {"nlist": max(1, len(vectors) // 10), "nprobe": 2}
    return FaissIndex(kind, **settings).build(vectors)


def some(rng, shape, style, exponent=0):
    """float32 numbers whose sums of products have no rounding in float64."""
    whole = {
        "many ties": lambda: rng.integers(-2, 3, size=shape),
        "large": lambda: rng.integers(-TOP, TOP + 1, size=shape),
        "near ties": lambda: TOP + rng.integers(-2, 3, size=shape),
        "mixed norms": lambda: (
            rng.integers(-TOP, TOP + 1, size=shape) >> rng.integers(0, 21, size=(shape[0], 1))
        ),
        "zero": lambda: np.zeros(shape, int),
    }[style]()
    return np.ldexp(whole.astype(np.float64), exponent).astype(np.float32)


def exact_scores(queries, vectors):
    return np.asarray(queries, np.float64) @ np.asarray(vectors, np.float64).T


def lists_of(sets):
    pairs = [(query, item) for query, items in enumerate(sets) for item in items]
    query, item = np.array(pairs, np.int64).reshape(-1, 2).T
    return ItemLists.from_pairs(query, item, len(sets))


def assert_hits(kind, hits, scores, n, excluded=None, candidates=None):
    """The laws of a search; `scores` are the exact ones of every query and item."""
    n_queries, n_items = scores.shape
    assert hits.positions.dtype == hits.counts.dtype == np.int32
    assert hits.scores.dtype == np.float64
    assert len(hits.positions) == len(hits.scores) == len(hits.counts) == n_queries
    for q in range(n_queries):
        count = int(hits.counts[q])
        left_out = set() if excluded is None else set(excluded[q])
        allowed = set(range(n_items) if candidates is None else candidates) - left_out
        assert count == min(n, len(allowed))
        assert (hits.positions[q, count:] == -1).all()
        assert np.isneginf(hits.scores[q, count:]).all()
        positions = hits.positions[q, :count].tolist()
        got = list(zip(positions, hits.scores[q, :count].tolist(), strict=True))
        assert len(set(positions)) == count
        assert set(positions) <= allowed
        assert got == [(p, float(scores[q, p])) for p in positions]
        assert got == sorted(got, key=lambda hit: (-hit[1], hit[0]))
        if kind in EXACT:
            assert got == naive.brute_top_n(scores[q], n, left_out, candidates)


# --- laws 2 and 3: the right answer ------------------------------------------------------------

styles = st.sampled_from(["many ties", "large", "near ties", "mixed norms", "zero"])


some_search = given(
    seed=st.integers(0, 2**32 - 1),
    n_items=st.integers(1, 400),
    dim=st.integers(1, 9),
    n_queries=st.integers(1, 5),
    n=st.integers(1, 60) | st.just(1000),
    vector_style=styles,
    query_style=styles,
    exponents=st.sampled_from([(0, 0), (-85, -85), (-140, -120), (30, 30), (-85, 30), (70, 80)]),
    excluded_share=st.sampled_from([0, 0, 0.05, 0.5, 0.99, 1]),
    candidate_share=st.sampled_from([None, None, 0, 0.02, 0.6, 1]),
    barred_share=st.sampled_from([None, None, 0, 0.1, 0.9, 1]),
)


@pytest.mark.parametrize("kind", OWN)
@some_search
@settings(max_examples=100)
def test_the_laws_of_a_search(kind, **drawn):
    check_the_laws(kind, **drawn)


@pytest.mark.parametrize("kind", ["IVFPQ", "HNSW", "SQ8"])
@some_search
@settings(max_examples=20)
def test_the_laws_of_a_search_in_what_faiss_builds(kind, **drawn):
    check_the_laws(kind, **drawn)


def check_the_laws(
    kind,
    seed,
    n_items,
    dim,
    n_queries,
    n,
    vector_style,
    query_style,
    exponents,
    excluded_share,
    candidate_share,
    barred_share,
):
    rng = np.random.default_rng(seed)
    vectors = some(rng, (n_items, dim), vector_style, exponents[0])
    queries = some(rng, (n_queries, dim), query_style, exponents[1])
    excluded = [
        np.flatnonzero(rng.random(n_items) < excluded_share).tolist() for _ in range(n_queries)
    ]
    allowed, options = set(range(n_items)), {}
    if candidate_share is not None:
        candidates = rng.permutation(np.flatnonzero(rng.random(n_items) < candidate_share)).tolist()
        options["candidates"] = candidates
        allowed &= set(candidates)
    if barred_share is not None:
        barred = rng.permutation(np.flatnonzero(rng.random(n_items) < barred_share)).tolist()
        options["exclude_items"] = barred
        allowed -= set(barred)
    hits = build(kind, vectors).search(queries, n, exclude=lists_of(excluded), **options)
    assert_hits(kind, hits, exact_scores(queries, vectors), n, excluded, sorted(allowed))


@every_index
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1.0, 1e15, 1e18, 1e25, 3e38])
def test_any_magnitude(kind, scale):
    rng = np.random.default_rng(0)
    vectors = (scale * rng.uniform(0.2, 1, size=(1500, 2))).astype(np.float32)
    queries = (scale * rng.uniform(-1, 1, size=(3, 2))).astype(np.float32)
    hits = build(kind, vectors).search(queries, 10)
    # two products, so one rounding: the order of the sum plays no part
    assert_hits(kind, hits, exact_scores(queries, vectors), 10)


@every_index
def test_a_product_that_overflows_float32_is_not_lost(kind):
    rng = np.random.default_rng(0)
    vectors = np.zeros((2000, 2), np.float32)
    vectors[:, 1] = 1e16 * rng.normal(size=2000)
    vectors[1999] = 1e20  # times the query: -1e40 + 2e40, minus infinity in float32 on the way
    queries = np.array([[-1e20, 2e20]], np.float32)
    hits = build(kind, vectors, **({} if kind == "Flat" else {"nlist": 4, "nprobe": 4})).search(
        queries, 5
    )
    assert_hits(kind, hits, exact_scores(queries, vectors), 5)
    assert hits.positions[0, 0] == 1999


@every_index
@pytest.mark.parametrize("dim", [1, 8])
def test_thousands_of_items_one_ulp_apart(kind, dim):
    rng = np.random.default_rng(0)
    vectors = (1 + rng.integers(0, 4, size=(4000, dim)) * 2.0**-23).astype(np.float32)
    queries = (1 + rng.integers(0, 4, size=(3, dim)) * 2.0**-20).astype(np.float32)
    hits = build(kind, vectors).search(queries, 20)
    assert_hits(kind, hits, exact_scores(queries, vectors), 20)


@every_index
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_thousands_of_equal_items_come_by_position(kind, value):
    vectors = np.full((5000, 3), value, np.float32)
    excluded = [[0, 2, 4999], []]
    hits = build(kind, vectors).search(np.ones((2, 3)), 8, exclude=lists_of(excluded))
    assert_hits(kind, hits, np.full((2, 5000), 3 * value), 8, excluded)
    if kind in EXACT:
        assert hits.positions.tolist() == [[1, 3, 4, 5, 6, 7, 8, 9], list(range(8))]


@every_index
def test_a_tie_across_the_last_place_goes_to_the_smaller_position(kind):
    vectors = np.ones((300, 1), np.float32)
    vectors[200:205] = 2  # five certain places, then 295 equal ones for three more
    hits = build(kind, vectors, **({} if kind == "Flat" else {"nlist": 2, "nprobe": 2})).search(
        [[1.0]], 8
    )
    assert hits.positions[0, :5].tolist() == [200, 201, 202, 203, 204]
    if kind in EXACT:
        assert hits.positions[0, 5:].tolist() == [0, 1, 2]


@every_index
@pytest.mark.parametrize("zero", ["items", "query"])
def test_zero_vectors(kind, zero):
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (500, 4), "large"), some(rng, (1, 4), "large")
    if zero == "items":
        vectors[::2] = 0
    else:
        queries[:] = 0
    hits = build(kind, vectors).search(queries, 30)
    assert_hits(kind, hits, exact_scores(queries, vectors), 30)


@every_index
def test_no_dimensions_at_all(kind):
    hits = build(kind, np.empty((3, 0))).search(np.empty((2, 0)), 2)
    assert hits.positions.tolist() == [[0, 1], [0, 1]]
    assert hits.scores.tolist() == [[0, 0], [0, 0]]


# --- full lists, exclusions, candidates --------------------------------------------------------


@every_index
@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_query_that_excludes_nearly_everything(kind, left):
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (2000, 4), "large"), some(rng, (2, 4), "large")
    excluded = [rng.permutation(2000)[left:].tolist(), []]
    hits = build(kind, vectors).search(queries, 7, exclude=lists_of(excluded))
    assert_hits(kind, hits, exact_scores(queries, vectors), 7, excluded)
    assert hits.counts.tolist() == [left, 7]


@every_index
def test_more_than_there_are(kind):
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (90, 4), "large"), some(rng, (2, 4), "large")
    hits = build(kind, vectors).search(queries, 10**12, exclude=lists_of([[3, 4], []]))
    assert_hits(kind, hits, exact_scores(queries, vectors), 10**12, [[3, 4], []])
    assert hits.counts.tolist() == [88, 90]


def test_lists_are_full_though_the_cells_looked_into_are_not():
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (3000, 4), "large"), some(rng, (3, 4), "large")
    index = FaissIndex("IVF", nlist=300, nprobe=1).build(vectors)
    excluded = [np.argsort(-row)[:200].tolist() for row in exact_scores(queries, vectors)]
    hits = index.search(queries, 400, exclude=lists_of(excluded))
    assert_hits("IVF", hits, exact_scores(queries, vectors), 400, excluded)


@every_index
@pytest.mark.parametrize("size", [0, 1, 3, 200, 1500])
def test_candidates_with_exclusions_inside_and_outside(kind, size):
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (2000, 4), "mixed norms"), some(rng, (3, 4), "large")
    candidates = rng.permutation(2000)[:size].tolist()
    others = sorted(set(range(2000)) - set(candidates))
    excluded = [candidates[: size // 2] + others[:100], candidates, others]
    index = build(kind, vectors)
    hits = index.search(queries, 20, exclude=lists_of(excluded), candidates=candidates)
    assert_hits(kind, hits, exact_scores(queries, vectors), 20, excluded, candidates)
    assert hits.counts[1] == 0
    twice = index.search(queries, 20, exclude=lists_of(excluded), candidates=sorted(candidates * 2))
    assert twice.positions.tobytes() == hits.positions.tobytes()


@every_index
def test_no_queries(kind):
    hits = build(kind, np.ones((200, 3))).search(np.empty((0, 3)), 5)
    assert len(hits.counts) == len(hits.positions) == len(hits.scores) == 0


# --- law 4: the same bits however the work is cut ----------------------------------------------


def bits(hits):
    return hits.positions.tobytes(), hits.scores.tobytes(), hits.counts.tobytes()


@every_index
@given(
    seed=st.integers(0, 2**32 - 1),
    n_items=st.integers(1, 800),
    dim=st.integers(1, 40),
    n=st.integers(1, 50),
    excluded_share=st.sampled_from([0, 0.1, 0.9]),
)
@settings(max_examples=30)
def test_a_batch_equals_its_rows(kind, seed, n_items, dim, n, excluded_share):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n_items, dim)).astype(np.float32)
    queries = rng.normal(size=(7, dim)).astype(np.float32)
    exclude = lists_of([np.flatnonzero(rng.random(n_items) < excluded_share) for _ in queries])
    index = build(kind, vectors)
    batch = index.search(queries, n, exclude=exclude)
    for q in range(len(queries)):
        alone = index.search(queries[q : q + 1], n, exclude=exclude.take(np.array([q])))
        assert bits(alone) == (
            batch.positions[q].tobytes(),
            batch.scores[q].tobytes(),
            batch.counts[q].tobytes(),
        )


@every_index
def test_a_large_batch_equals_its_parts(kind):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 16)).astype(np.float32)
    many = 9000 if kind in OWN else 900  # more than one call of faiss
    queries = rng.normal(size=(many, 16)).astype(np.float32)
    index = build(kind, vectors, **({} if kind == "Flat" else {"nlist": 20}))
    whole = index.search(queries, 10)
    for cuts in ([1], [many // 2], [13, many // 3, many - 1]):
        parts = [index.search(part, 10) for part in np.split(queries, cuts)]
        for name in ("positions", "scores", "counts"):
            together = np.concatenate([getattr(part, name) for part in parts])
            assert together.tobytes() == getattr(whole, name).tobytes()


@every_index
def test_threads_change_nothing(kind):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 12)).astype(np.float32)
    queries = rng.normal(size=(1000, 12)).astype(np.float32)
    answers = {
        n_jobs: FaissIndex(kind, n_jobs=n_jobs).build(vectors).search(queries, 15)
        for n_jobs in (1, 2, -1, None)
    }
    assert len({bits(hits) for hits in answers.values()}) == 1


@every_index
def test_where_an_item_stands_changes_nothing_else(kind):
    """Ties apart, the order of the items is no input. (All cells of the IVF are searched.)"""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 5)).astype(np.float32)
    queries = rng.normal(size=(4, 5)).astype(np.float32)
    order = rng.permutation(700)
    settings_ = {} if kind == "Flat" else {"nlist": 7, "nprobe": 7}
    one = build(kind, vectors, **settings_).search(queries, 20)
    other = build(kind, vectors[order], **settings_).search(queries, 20)
    np.testing.assert_array_equal(order[other.positions], one.positions)


# --- approximate search ------------------------------------------------------------------------


def recall(index, vectors, queries, n):
    exact = FaissIndex("Flat").build(vectors).search(queries, n).positions
    got = index.search(queries, n).positions
    return np.mean(
        [len(set(a) & set(b)) / n for a, b in zip(got.tolist(), exact.tolist(), strict=True)]
    )


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_ivf_finds_nearly_all_though_norms_and_biases_differ(scale):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(8000, 8)) * rng.lognormal(sigma=0.7, size=(8000, 1))
    vectors = scale * np.column_stack([factors, 2 * rng.normal(size=8000)])
    queries = np.column_stack([rng.normal(size=(200, 8)), np.ones(200)])
    assert recall(FaissIndex("IVF").build(vectors), vectors, queries, 20) >= 0.95


def test_ivf_that_looks_into_all_cells_is_exact():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(3000, 6)), rng.normal(size=(100, 6))
    index = FaissIndex("IVF", nlist=40, nprobe=40).build(vectors)
    assert recall(index, vectors, queries, 20) == 1.0


def test_ivf_finds_more_in_more_cells():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(3000, 8)), rng.normal(size=(100, 8))
    found = [
        recall(FaissIndex("IVF", nlist=60, nprobe=p).build(vectors), vectors, queries, 10)
        for p in (1, 8, 60)
    ]
    assert found[0] < found[1] < found[2] == 1.0


def test_ivf_with_a_filter_still_looks_into_all_its_cells():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(4000, 6)), rng.normal(size=(60, 6))
    candidates = np.arange(0, 4000, 2)
    index = FaissIndex("IVF", nlist=50, nprobe=50).build(vectors)
    exact = FaissIndex("Flat").build(vectors).search(queries, 20, candidates=candidates)
    assert bits(index.search(queries, 20, candidates=candidates)) == bits(exact)


@pytest.mark.parametrize("n_items, nlist", [(1, None), (1, 1), (5, 5), (39, None), (100, 100)])
def test_ivf_of_few_items(n_items, nlist):
    rng = np.random.default_rng(0)
    vectors, queries = some(rng, (n_items, 3), "large"), some(rng, (2, 3), "large")
    hits = FaissIndex("IVF", nlist=nlist).build(vectors).search(queries, 200)
    assert_hits("IVF", hits, exact_scores(queries, vectors), 200)


def test_ivf_is_built_the_same_each_time_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(6000, 24)), rng.normal(size=(50, 24))
    answers = []
    for n_threads in (1, 1, 2, 3):
        with threadpool_limits(n_threads):
            answers.append(bits(FaissIndex("IVF", nprobe=1).build(vectors).search(queries, 10)))
    assert len(set(answers)) == 1


# --- what faiss builds -------------------------------------------------------------------------

every_other = pytest.mark.parametrize("kind", OTHERS)


def grown(kind, rng, **settings):
    """An index that was added to, its vectors, and queries."""
    vectors, queries = some(rng, (1500, 6), "large"), some(rng, (60, 6), "large")
    index = FaissIndex(kind, **settings).build(vectors[:1300], queries)
    return index.add(vectors[1300:1310]).add(vectors[1310:]), vectors, queries


@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
def test_added_items_are_found_like_old_ones(kind):
    rng = np.random.default_rng(0)
    index, vectors, queries = grown(kind, rng)
    excluded = [rng.permutation(1500)[: 3 * q].tolist() for q in range(60)]
    barred = rng.permutation(1500)[:40].tolist()
    hits = index.search(queries, 30, exclude=lists_of(excluded), exclude_items=barred)
    allowed = sorted(set(range(1500)) - set(barred))
    assert_hits(kind, hits, exact_scores(queries, vectors), 30, excluded, allowed)
    assert (hits.positions >= 1300).mean() == pytest.approx(200 / 1500, abs=0.02)
    assert index.recall_against(FaissIndex("Flat").build(vectors), queries) > 0.8


@pytest.mark.parametrize("compress", [None, 4])
@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
def test_what_was_added_to_is_saved_and_loaded_to_the_same_bits(kind, compress, tmp_path):
    index, vectors, queries = grown(kind, np.random.default_rng(0), compress=compress)
    storage.save(tmp_path / "index.fmknn", *index.to_state())
    loaded = FaissIndex.from_state(vectors, *storage.load(tmp_path / "index.fmknn"))
    for options in ({}, {"candidates": np.arange(0, 1500, 3)}, {"exclude_items": [1, 1400]}):
        assert bits(loaded.search(queries, 9, **options)) == bits(
            index.search(queries, 9, **options)
        )
    more = np.random.default_rng(1).normal(size=(20, 6))
    assert bits(loaded.add(more).search(queries, 9)) == bits(index.add(more).search(queries, 9))


@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
def test_adding_leaves_the_receiver_as_it_was(kind):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(900, 6)), rng.normal(size=(9, 6))
    index = FaissIndex(kind).build(vectors)
    before, state = bits(index.search(queries, 8)), index.to_state()[1]
    more = index.add(vectors[:50])
    assert (index.n_items, more.n_items) == (900, 950)
    assert bits(index.search(queries, 8)) == before and index.to_state()[1] == state
    assert index.add(np.empty((0, 6))).n_items == 900
    np.testing.assert_array_equal(more.vectors, np.vstack([vectors, vectors[:50]]).astype("f4"))


@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e10])
def test_much_longer_items_can_be_added(kind, scale):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(900, 6)), rng.normal(size=(9, 6))
    longer = np.concatenate([vectors, 20 * vectors[:100]]).astype(np.float32) * np.float32(scale)
    index = FaissIndex(kind).build(longer[:900]).add(longer[900:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits = index.search(queries, 10)
    assert (hits.counts == 10).all()
    if kind == "IVF":  # all cells are looked into
        assert (hits.positions >= 900).mean() > 0.9


@pytest.mark.parametrize(
    "vectors, words",
    [
        (np.ones((2, 5)), ["vectors", "(n, 6)"]),
        (np.ones(6), ["vectors", "(6,)"]),
        ([[0, 0, 0, 0, 0, np.nan]], ["vectors", "row 0"]),
    ],
)
def test_items_that_can_not_be_added(vectors, words):
    with refused(ValueError, *words):
        FaissIndex("HNSW").build(np.ones((5, 6))).add(vectors)
    with refused(ValueError, "build"):
        FaissIndex("HNSW").add(np.ones((5, 6)))


@every_other
def test_a_batch_equals_its_rows_in_what_faiss_builds(kind):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(1500, 20)), rng.normal(size=(40, 20))
    index = FaissIndex(kind, n_jobs=2).build(vectors)
    for options in ({}, {"candidates": np.arange(0, 1500, 2)}):
        batch = index.search(queries, 10, **options)
        for q in range(40):
            alone = index.search(queries[q : q + 1], 10, **options)
            assert alone.positions[0].tolist() == batch.positions[q].tolist()
            assert alone.scores[0].tolist() == batch.scores[q].tolist()


@every_other
def test_it_is_built_the_same_each_time_on_any_number_of_threads(kind):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(1500, 12)), rng.normal(size=(50, 12))
    answers = []
    for n_threads in (1, 2, 3):
        with threadpool_limits(n_threads):
            index = FaissIndex(kind, nprobe=1, ef_search=1).build(vectors)
            answers.append(bits(index.search(queries, 10)))
    assert len(set(answers)) == 1


@every_other
def test_python_threads_ask_at_once(kind):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(1500, 8)), rng.normal(size=(80, 8))
    index = FaissIndex(kind, n_jobs=2).build(vectors)
    whole = index.search(queries, 10)
    with ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(lambda q: index.search(queries[q : q + 1], 10), range(80)))
    assert [part.positions[0].tolist() for part in parts] == whole.positions.tolist()


FORKED = """
import os, sys
import numpy as np
from fmknn import FaissIndex

rng = np.random.default_rng(0)
vectors, queries = rng.normal(size=(1500, 8)), rng.normal(size=(80, 8))
for kind in ("IVFPQ", "HNSW", "SQ8", "PCA5,IVF4,SQ8", "PQ4x4fs"):
    index = FaissIndex(kind, n_jobs=2).build(vectors)
    answer = index.search(queries, 10).positions.tobytes()
    child = os.fork()
    if child == 0:
        same = index.search(queries, 10).positions.tobytes() == answer
        index.add(vectors[:5]).search(queries, 10)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, kind
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_searches_and_adds():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""  # faiss prints no warning of few training rows


@pytest.mark.parametrize(
    "kind, words",
    [
        ("IVF99,Flat", ["99", "60 items"]),
        ("PQ4x10", ["10 bits", "60 items"]),
        ("LSH", ["LSH", "4 columns"]),
        ("OPQ16_1024,PQ16", ["OPQ16_1024", "4 columns", "longer"]),
        ("IDMap,Flat", ["IDMap,Flat", "60 rows"]),
    ],
)
def test_what_faiss_can_not_build_of_the_vectors(kind, words):
    with refused(ValueError, *words):
        FaissIndex(kind).build(np.random.default_rng(0).normal(size=(60, 4)))


@pytest.mark.parametrize("name", ["HNSW", "IVFPQ", "SQ8"])
def test_parameters_that_are_given_are_used(name):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(3000, 16)), rng.normal(size=(50, 16))
    exact = FaissIndex("Flat").build(vectors)
    few = FaissIndex(name, nprobe=1, ef_search=1).build(vectors)
    many = FaissIndex(name, nprobe=500, ef_search=3000).build(vectors)
    worse, better = (index.recall_against(exact, queries, 10) for index in (few, many))
    assert worse == better if name == "SQ8" else worse < 0.9 < better


@pytest.mark.parametrize("kind, dim", [("OPQ8,PQ8", 320), ("OPQ8_16,IVF2,PQ8", 3)])
def test_rotations_of_few_items_do_not_leave_their_memory(kind, dim):
    vectors = np.random.default_rng(0).normal(size=(90, dim))
    assert (FaissIndex(kind).build(vectors).search(vectors, 3).counts == 3).all()


def test_a_refinement_by_faiss_is_left_to_the_ranking():
    vectors = np.random.default_rng(0).normal(size=(700, 5))
    plain, refined = (FaissIndex(k).build(vectors) for k in ("SQ4", "SQ4,RFlat"))
    assert bits(plain.search(vectors, 5)) == bits(refined.search(vectors, 5))


# --- building, saving --------------------------------------------------------------------------


@every_index
def test_build_leaves_the_receiver_as_it_was(kind):
    empty = FaissIndex(kind)
    first = empty.build(np.ones((3, 2)))
    second = first.build(np.ones((5, 2)))
    assert (first.n_items, second.n_items) == (3, 5)
    assert first.search([[1, 1]], 9).counts.tolist() == [3]
    with refused(ValueError, "build"):
        empty.search([[1, 1]], 1)


@every_index
def test_the_callers_arrays_are_neither_changed_nor_kept_open(kind):
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.normal(size=(400, 3)).astype(np.float32),
        rng.normal(size=(5, 3)).astype(np.float32),
    )
    before = vectors.copy(), queries.copy()
    index = build(kind, vectors)
    answer = index.search(queries, 5)
    np.testing.assert_array_equal(vectors, before[0])
    np.testing.assert_array_equal(queries, before[1])
    assert vectors.flags.writeable and queries.flags.writeable
    assert not index.vectors.flags.writeable
    assert bits(index.search(queries, 5)) == bits(answer)


@every_index
@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        lambda a: a.astype(np.float64),
        lambda a: a.tolist(),
        lambda a: np.repeat(a, 2, 0)[::2],
    ],
)
def test_any_form_of_matrix(kind, form):
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.normal(size=(200, 4)).astype(np.float32),
        rng.normal(size=(6, 4)).astype(np.float32),
    )
    assert bits(build(kind, form(vectors)).search(form(queries), 5)) == bits(
        build(kind, vectors).search(queries, 5)
    )


@every_index
def test_save_and_load_give_the_same_bits(kind, tmp_path):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(3000, 8)), rng.normal(size=(200, 8))
    index = FaissIndex(kind, **({} if kind == "Flat" else {"nlist": 70, "nprobe": 2})).build(
        vectors
    )
    arrays, settings_ = index.to_state()
    storage.save(tmp_path / "index.fmknn", arrays, settings_)
    loaded = FaissIndex.from_state(vectors, *storage.load(tmp_path / "index.fmknn"))
    exclude = lists_of([rng.permutation(3000)[: q % 50].tolist() for q in range(200)])
    candidates = rng.permutation(3000)[:1000]
    for options in ({}, {"exclude": exclude}, {"exclude": exclude, "candidates": candidates}):
        assert bits(loaded.search(queries, 20, **options)) == bits(
            index.search(queries, 20, **options)
        )
    assert bits(loaded.build(vectors[:500]).search(queries, 3)) == bits(
        index.build(vectors[:500]).search(queries, 3)
    )


@every_index
@pytest.mark.parametrize("n_jobs", [None, -1, 1, np.int64(2)])
def test_the_number_of_threads_is_kept(kind, n_jobs, tmp_path):
    index = FaissIndex(kind, n_jobs=n_jobs).build(np.ones((30, 2)))
    storage.save(tmp_path / "index.fmknn", *index.to_state())
    loaded = FaissIndex.from_state(np.ones((30, 2)), *storage.load(tmp_path / "index.fmknn"))
    assert loaded.n_jobs == n_jobs


@every_index
def test_a_state_of_an_older_version_is_read(kind):
    arrays, settings_ = build(kind, np.ones((30, 2))).to_state()
    old = {name: settings_[name] for name in ("kind", "nlist", "nprobe")}
    index = FaissIndex.from_state(np.ones((30, 2)), arrays, old)
    assert index.n_jobs is index.compress is index.target_recall is index.tuning_ is None
    assert index.add(np.ones((2, 2))).to_state()[1]["batches"] == [30, 2]


@pytest.mark.parametrize(
    "batches", [[], [29], [30, 1], [31, -1], [30, 0], [30.0], [True, 29], "30", 30, {"30": 30}]
)
@pytest.mark.parametrize("kind", ["IVF", "HNSW"])
def test_batches_that_do_not_fit_are_refused(kind, batches):
    arrays, settings_ = build(kind, np.ones((30, 2))).to_state()
    with refused(ValueError, "batches"):
        FaissIndex.from_state(np.ones((30, 2)), arrays, {**settings_, "batches": batches})


@every_index
def test_the_vectors_are_not_part_of_the_state(kind):
    arrays, _ = build(kind, np.ones((30, 2))).to_state()
    assert set(arrays) == ({"centroids", "cell_of"} if kind == "IVF" else set())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"cell_of": np.zeros(2, np.int32)}, ["cells", "fit"]),
        ({"cell_of": np.full(300, 99, np.int32)}, ["cell_of", "99", "0..3"]),
        ({"cell_of": np.full(300, -1, np.int32)}, ["cell_of", "-1"]),
        ({"centroids": np.zeros((4, 9), np.float32)}, ["centroids", "(4, 9)"]),
        ({"centroids": np.zeros(4, np.float32)}, ["centroids", "(4,)"]),
        ({"centroids": np.full((4, 4), np.nan)}, ["centroids", "NaN"]),
        ({"centroids": np.zeros((0, 4))}, ["cell_of"]),
        ({"cell_of": np.zeros(300, np.int32), "centroids": np.zeros((1, 4))}, ["cells", "fit"]),
    ],
)
def test_cells_that_do_not_fit_the_vectors_are_refused(change, words):
    vectors = np.random.default_rng(0).normal(size=(300, 3))
    arrays, settings_ = FaissIndex("IVF", nlist=4).build(vectors).to_state()
    with refused(ValueError, *words):
        FaissIndex.from_state(vectors, {**arrays, **change}, settings_)


def test_cells_are_whole_numbers():
    vectors = np.random.default_rng(0).normal(size=(300, 3))
    arrays, settings_ = FaissIndex("IVF", nlist=4).build(vectors).to_state()
    with refused(TypeError, "cell_of", "float64"):
        FaissIndex.from_state(vectors, {**arrays, "cell_of": np.zeros(300)}, settings_)


@pytest.mark.parametrize(
    "alias, kind", [("faiss.Flat", "Flat"), ("faiss.IVFFlat", "IVF"), ("faiss.IVFPQ", "IVFPQ")]
)
def test_sagemakers_names_mean_the_same(alias, kind):
    vectors = np.random.default_rng(0).normal(size=(300, 3))
    assert (
        FaissIndex(alias).build(vectors).to_state()[1]
        == FaissIndex(kind).build(vectors).to_state()[1]
    )


@pytest.mark.parametrize("name, kind", [("flat", "Flat"), ("ivf", "IVF")])
def test_the_short_names_of_the_local_backend(name, kind):
    assert Local().index(name).kind == kind


def test_the_local_backend_hands_on_an_index_and_refuses_other_names():
    index = FaissIndex("IVF", nlist=3)
    assert Local().index(index) is index
    with refused(ValueError, "hnsw", "exact", "flat", "ivf"):
        Local().index("hnsw")


@pytest.mark.parametrize("spec", [3, None, FaissIndex, ["exact"]])
def test_the_local_backend_refuses_what_is_no_index(spec):
    with refused(TypeError, "index must be", repr(spec)):
        Local().index(spec)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_index
def test_nan_and_infinity_are_refused_by_row(kind, bad):
    vectors = np.ones((5, 3))
    vectors[3, 1] = bad
    with refused(ValueError, "vectors", "row 3"):
        FaissIndex(kind).build(vectors)
    with refused(ValueError, "queries", "row 3"):
        FaissIndex(kind).build(np.ones((5, 3))).search(vectors, 1)


@every_index
@pytest.mark.parametrize(
    "options, words",
    [
        ({"queries": np.ones((2, 3))}, ["queries", "(n, 2)", "(2, 3)"]),
        ({"queries": np.ones(2)}, ["queries", "(2,)"]),
        ({"n": 0}, ["n must", "0"]),
        ({"n": -4}, ["n must", "-4"]),
        ({"n": 2.0}, ["n must", "2.0"]),
        ({"n": True}, ["n must", "True"]),
        ({"n": "3"}, ["n must", "'3'"]),
        ({"exclude": ItemLists.empty(3)}, ["exclude", "3", "2"]),
        ({"exclude": lists_of([[], [6]])}, ["exclude", "6", "0..5"]),
        ({"candidates": [0, 6]}, ["candidates", "6", "0..5"]),
        ({"candidates": [-1]}, ["candidates", "-1", "0..5"]),
        ({"candidates": [2**32]}, ["candidates", str(2**32), "0..5"]),  # 0 as an int32
        ({"candidates": [[1, 2]]}, ["candidates", "(1, 2)"]),
        ({"candidates": 1}, ["candidates", "()"]),
        ({"exclude_items": [0, 6]}, ["exclude_items", "6", "0..5"]),
    ],
)
def test_a_bad_search_is_refused(kind, options, words):
    index = FaissIndex(kind).build(np.ones((6, 2)))
    call = {"queries": np.ones((2, 2)), "n": 2, **options}
    with refused(ValueError, *words):
        index.search(call.pop("queries"), call.pop("n"), **call)


@every_index
@pytest.mark.parametrize(
    "options, words",
    [
        ({"candidates": [1.0]}, ["candidates", "integer", "float64"]),
        ({"candidates": [True, False]}, ["candidates", "integer", "bool"]),
        ({"candidates": ["1"]}, ["candidates", "integer"]),
        ({"candidates": [2**70]}, ["candidates", "integer"]),
        ({"exclude": [[1], [2]]}, ["exclude", "list", "ItemLists.from_pairs"]),
        ({"exclude": np.zeros(2, int)}, ["exclude", "ndarray", "ItemLists.from_pairs"]),
    ],
)
def test_positions_of_the_wrong_type_are_refused(kind, options, words):
    index = FaissIndex(kind).build(np.ones((6, 2)))
    with refused(TypeError, *words):
        index.search(np.ones((2, 2)), 2, **options)


@every_index
@pytest.mark.parametrize(
    "vectors, word",
    [(np.ones((0, 3)), "no rows"), (np.ones(3), "(3,)"), (np.ones((2, 2, 2)), "(2, 2, 2)")],
)
def test_vectors_of_no_use_are_refused(kind, vectors, word):
    with refused(ValueError, "vectors", word):
        FaissIndex(kind).build(vectors)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"kind": "HNSV"}, ["unknown", "HNSV", "Flat", "IVF", "OPQ16,IVF256,PQ16"]),
        ({"kind": "hnsw"}, ["unknown", "hnsw", "HNSW"]),
        ({"kind": ""}, ["unknown", "''"]),
        ({"kind": "IVF9,HNSW"}, ["unknown", "IVF9,HNSW"]),
        ({"kind": "SQ8\nSQ8"}, ["unknown", "SQ8"]),
        ({"kind": "IMI2x8,Flat"}, ["unknown", "IMI2x8"]),
        ({"kind": "IVF0,Flat"}, ["IVF0", "out of range"]),
        ({"kind": "HNSW1,Flat"}, ["HNSW1", "out of range", "2 to 256"]),
        ({"kind": "HNSW999999999,Flat"}, ["HNSW999999999", "out of range"]),
        ({"kind": "PQ99999"}, ["PQ99999", "out of range"]),
        ({"kind": "PQ4x24"}, ["x24", "out of range", "1 to 12"]),
        ({"kind": "RQ512x8"}, ["RQ512", "out of range", "1 to 64"]),
        ({"ef_search": 0}, ["ef_search", "0"]),
        ({"target_recall": 0}, ["target_recall", "above 0", "0"]),
        ({"target_recall": 1.5}, ["target_recall", "from 0 to 1", "1.5"]),
        ({"target_recall": np.nan}, ["target_recall", "nan"]),
        ({"target_recall": "0.9"}, ["target_recall", "'0.9'"]),
        ({"target_recall": True}, ["target_recall", "True"]),
        ({"target_recall": 0.9, "nprobe": 3}, ["target_recall", "nprobe"]),
        ({"target_recall": 0.9, "ef_search": 3}, ["target_recall", "ef_search"]),
        ({"kind": "IVF", "nlist": 0}, ["nlist", "0"]),
        ({"kind": "IVF", "nprobe": -1}, ["nprobe", "-1"]),
        ({"kind": "IVF", "nlist": True}, ["nlist", "True"]),
        ({"kind": "IVF", "nlist": 2.5}, ["nlist", "2.5"]),
        ({"kind": "IVF", "nprobe": "3"}, ["nprobe", "'3'"]),
        ({"kind": ["IVF"]}, ["['IVF']", "Flat, IVF"]),
        ({"n_jobs": 0}, ["n_jobs", "0"]),
    ],
)
def test_bad_settings_are_refused(arguments, words):
    with refused(ValueError, *words):
        FaissIndex(**arguments)


def test_more_cells_than_items_are_refused():
    with refused(ValueError, "nlist=7", "6"):
        FaissIndex("IVF", nlist=7).build(np.ones((6, 2)))


# --- cost --------------------------------------------------------------------------------------


@every_index
def test_memory_is_not_queries_times_items(kind):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 4)).astype(np.float32)
    queries = rng.normal(size=(3000, 4)).astype(np.float32)
    index = build(kind, vectors, **({} if kind == "Flat" else {"nlist": 50, "nprobe": 4}))
    index.search(queries[:10], 10)
    tracemalloc.start()
    index.search(queries, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # one byte for each pair would be 60 MB


@every_index
def test_few_candidates_make_short_lists_whatever_was_asked_for(kind):
    index = build(kind, np.random.default_rng(0).normal(size=(500, 3)))
    assert index.search(np.ones((4, 3)), 500, candidates=[7]).positions.tolist() == [[7]] * 4
    assert index.search(np.ones((4, 3)), 500, candidates=[]).positions.shape == (4, 0)


ONE_SIGNATURE = """
import numpy as np, os, tempfile
from fmknn import FaissIndex
from fmknn.index.base import ItemLists
from fmknn.index.rank import rank_candidates
from fmknn.model import storage

rng = np.random.default_rng(0)
for kind in ("Flat", "IVF"):
    for dtype in (np.float32, np.float64):
        vectors, queries = (rng.normal(size=(rows, 3)).astype(dtype) for rows in (500, 4))
        built = FaissIndex(kind).build(vectors)
        with tempfile.TemporaryDirectory() as folder:
            storage.save(folder + "/index", *built.to_state())
            loaded = FaissIndex.from_state(vectors, *storage.load(folder + "/index"))
        exclude = ItemLists.from_pairs(np.array([0, 0]), np.array([1, 2]), 4)
        for index in (built, loaded):
            for n in (2, 400):
                index.search(queries, n)
                index.search(queries, n, exclude=exclude, candidates=np.arange(300))
                index.search(queries[:1], n, candidates=[3])
assert len(rank_candidates.signatures) == 1, rank_candidates.signatures
"""


def test_the_kernel_is_compiled_once_for_all_arrays():
    done = subprocess.run(
        [sys.executable, "-c", ONE_SIGNATURE], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


# --- the small things beside -------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=20),
    st.lists(st.integers(-1, 4), max_size=6),
)
@example([], [-1])
@settings(max_examples=50)
def test_item_lists_hold_sorted_distinct_items_per_query(pairs, wanted):
    query, item = np.array(pairs, np.int64).reshape(-1, 2).T
    lists = ItemLists.from_pairs(query, item, 5)
    expected = [sorted({i for q, i in pairs if q == which}) for which in range(5)]
    got = [lists.indices[lists.indptr[q] : lists.indptr[q + 1]].tolist() for q in range(len(lists))]
    assert got == expected
    assert lists.lengths.tolist() == [len(items) for items in expected]
    assert list(zip(*(part.tolist() for part in lists.pairs()), strict=True)) == sorted(set(pairs))
    taken = lists.take(np.array(wanted, np.int64))
    assert [
        taken.indices[taken.indptr[q] : taken.indptr[q + 1]].tolist() for q in range(len(taken))
    ] == [[] if q < 0 else expected[q] for q in wanted]


def test_item_lists_of_nobody():
    assert ItemLists.empty(0).take(np.array([-1, -1])).lengths.tolist() == [0, 0]
    assert ItemLists.empty(3).lengths.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "indptr, indices, word",
    [
        ([0, 3], [7, 3, 5], "row 0"),
        ([0, 1, 3], [7, 3, 3], "row 1"),
        ([0, 1], [-1], "-1"),
        ([0, 1], [2**31], str(2**31)),
        ([1, 2], [3, 4], "indptr"),
        ([0, 1], [3, 4], "indptr"),
        ([0, 9], [3, 4], "indptr"),
        ([0, 2, 1, 2], [3, 4], "indptr"),
        ([], [], "indptr"),
        ([[0, 1]], [3], "one-dimensional"),
        ([0, 1], [3.0], "integers"),
        ([0.0, 1.0], [3], "integers"),
    ],
)
def test_item_lists_that_are_not_as_described_are_refused(indptr, indices, word):
    with refused(ValueError, "item lists", word):
        ItemLists(np.array(indptr), np.array(indices))


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64])
def test_item_lists_of_any_integers(dtype):
    lists = ItemLists(np.array([0, 2, 2, 3], dtype), np.array([3, 5, 3], dtype))
    assert lists.lengths.tolist() == [2, 0, 1]
    assert (lists.indptr.dtype, lists.indices.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize(
    "queries, items, error, word",
    [
        ([2], [0], ValueError, "0..1"),
        ([-1], [0], ValueError, "-1"),
        ([0], [2**32 + 5], ValueError, str(2**32 + 5)),  # 5 as an int32
        ([0], [-1], ValueError, "-1"),
        ([0, 1], [3], ValueError, "2 queries for 1 items"),
        ([0.0], [3], TypeError, "queries"),
        ([0], [True], TypeError, "items"),
    ],
)
def test_pairs_that_are_no_positions_are_refused(queries, items, error, word):
    with refused(error, word):
        ItemLists.from_pairs(queries, items, 2)


def test_empty_hits_are_padding():
    hits = Hits.empty(2, 3)
    assert hits.positions.tolist() == [[-1] * 3] * 2
    assert hits.scores.tolist() == [[-np.inf] * 3] * 2
    assert hits.counts.tolist() == [0, 0]


def test_vectors_beyond_float32_are_refused_without_a_warning():
    with warnings.catch_warnings(), refused(ValueError, "vectors", "row 1"):
        warnings.simplefilter("error")
        as_vectors(np.array([[1.0], [1e300]]), "vectors")


@pytest.mark.parametrize("values", [[["1.5"]], [[1j]], [[None]], np.array([["2020"]], "M8[Y]")])
def test_vectors_that_are_no_numbers_are_refused(values):
    with refused(TypeError, "vectors", "numbers"):
        as_vectors(values, "vectors")
