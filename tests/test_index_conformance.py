"""Every index through one suite: what the protocol promises, against brute force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from index_oracle import (
    EXACT,
    MAKERS,
    all_scores,
    assert_answers,
    assert_exact_at_scale,
    bits,
    build,
    inner_products,
    lists_of,
    row_of,
)
from refusals import refused

from fmknn.index.base import ItemLists
from fmknn.index.exact_kernel import TILE

every_index = pytest.mark.parametrize("kind", MAKERS)
every_exact_index = pytest.mark.parametrize("kind", EXACT)

MAGNITUDES = np.array([1e-30, 1e-20, 1.0, 1e18, 1e30])
TOP = 2**20  # whole numbers below it: float32 rounds their products, float64 sums them exactly

# --- rows of every shape -----------------------------------------------------------------------

STYLES = {
    "gaussian": lambda rng, shape: rng.normal(size=shape),
    "few whole numbers": lambda rng, shape: rng.integers(-2, 3, size=shape),
    "large whole numbers": lambda rng, shape: rng.integers(-TOP, TOP + 1, size=shape),
    "one apart": lambda rng, shape: TOP + rng.integers(-2, 3, size=shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "some zero": lambda rng, shape: rng.normal(size=shape) * rng.integers(0, 2, size=(shape[0], 1)),
    "identical": lambda rng, shape: np.repeat(rng.normal(size=(1, shape[1])), shape[0], axis=0),
    "duplicates": lambda rng, shape: rng.normal(size=(3, shape[1]))[rng.integers(0, 3, shape[0])],
    "magnitudes of rows": lambda rng, shape: (
        rng.normal(size=shape) * rng.choice(MAGNITUDES, size=(shape[0], 1))
    ),
    "magnitudes of numbers": lambda rng, shape: (
        rng.normal(size=shape) * rng.choice(MAGNITUDES, size=shape)
    ),
    "ascending norms": lambda rng, shape: (
        rng.normal(size=shape) * np.geomspace(1e-3, 1e3, shape[0])[:, None]
    ),
    "one giant": lambda rng, shape: (
        rng.normal(size=shape)
        * np.where(np.arange(shape[0]) == rng.integers(shape[0]), 1e12, 1.0)[:, None]
    ),
    "positive": lambda rng, shape: rng.uniform(0.1, 1, size=shape),
    "negative": lambda rng, shape: -rng.uniform(0.1, 1, size=shape),
}


def rows_of(rng, n, dim, style):
    return STYLES[style](rng, (n, dim)).astype(np.float32)


EXCLUDED = {
    "nothing": lambda rng, n: [],
    "one": lambda rng, n: rng.integers(0, n, 1),
    "half": lambda rng, n: np.flatnonzero(rng.random(n) < 0.5),
    "nearly all": lambda rng, n: np.delete(np.arange(n), rng.integers(n)),
    "all": lambda rng, n: np.arange(n),
}
SHARED = {
    "not given": lambda rng, n: None,
    "none": lambda rng, n: np.empty(0, int),
    "one": lambda rng, n: rng.integers(0, n, 1),
    "5%": lambda rng, n: np.flatnonzero(rng.random(n) < 0.05),
    "95%": lambda rng, n: rng.permutation(np.flatnonzero(rng.random(n) < 0.95)),
    "repeated": lambda rng, n: rng.integers(0, n, n),
}

seeds = st.integers(0, 2**32 - 1)
styles = st.sampled_from(sorted(STYLES))
widths = st.sampled_from([1, 1, 2, 3, 5, 8, 9, 17, 33, 65])
shared_lists = st.sampled_from(["not given"] * 4 + sorted(SHARED))


@st.composite
def work(draw):
    """Item rows, queries, a length and filters."""
    rng = np.random.default_rng(draw(seeds))
    n_items, dim = draw(st.integers(1, 300)), draw(widths)
    vectors = rows_of(rng, n_items, dim, draw(styles))
    queries = rows_of(rng, draw(st.integers(1, 6)), dim, draw(styles))
    n = draw(st.sampled_from([1, 2, 10, n_items, n_items + 7, 5000]))
    how = draw(st.lists(st.sampled_from(sorted(EXCLUDED)), min_size=1, max_size=3))
    filters = {
        "exclude": [EXCLUDED[how[q % len(how)]](rng, n_items) for q in range(len(queries))],
        "candidates": SHARED[draw(shared_lists)](rng, n_items),
        "exclude_items": SHARED[draw(shared_lists)](rng, n_items),
    }
    return vectors, queries, n, filters


def search(index, queries, n, exclude=None, **shared):
    lists = None if exclude is None else lists_of(exclude)
    return index.search(queries, n, exclude=lists, **shared)


# --- laws 2 and 3: the right items with the right scores, nothing that was left out ---------------


@every_index
@given(work=work())
@settings(max_examples=30)
def test_the_laws_of_a_search(kind, work):
    vectors, queries, n, filters = work
    index = build(kind, vectors)
    scores = all_scores(index, queries)
    exact = kind in EXACT
    assert_answers(search(index, queries, n), scores, n, exact=exact)
    assert_answers(search(index, queries, n, **filters), scores, n, exact=exact, **filters)


@every_index
@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_style_of_rows_under_every_filter(kind, style):
    rng = np.random.default_rng(7)
    n_items, dim = 300, 6
    index = build(kind, rows_of(rng, n_items, dim, style))
    queries = np.vstack([rows_of(rng, 2, dim, each) for each in ("gaussian", style, "zero")])
    scores = all_scores(index, queries)
    for candidates in SHARED:
        for block in ("not given", "95%"):
            filters = {
                "exclude": [EXCLUDED[each](rng, n_items) for each in [*EXCLUDED, "nothing"]],
                "candidates": SHARED[candidates](rng, n_items),
                "exclude_items": SHARED[block](rng, n_items),
            }
            hits = search(index, queries, 12, **filters)
            assert_answers(hits, scores, 12, exact=kind in EXACT, **filters)


@every_index
@pytest.mark.parametrize("query", [-3.0, 0.0, 2.0])
def test_one_number_a_row(kind, query):
    vectors = np.array([[4], [-1], [4], [0], [-7], [-7], [1]] * 20, np.float32)
    index = build(kind, vectors)
    hits = index.search([[query]], 5)
    scores = query * vectors.T.astype(float) + 0.0  # no sum begins at -0.0
    assert_answers(hits, scores, 5, exact=kind in EXACT)


@every_index
def test_a_tie_over_the_whole_catalogue_goes_by_position(kind):
    index = build(kind, np.ones((700, 4)))
    hits = index.search(np.full((3, 4), -0.5), 700)
    assert (hits.positions == np.arange(700)).all()
    assert (hits.scores == -2).all()


@every_exact_index
@pytest.mark.parametrize("n_items", [40, 700, 5000])
@pytest.mark.parametrize("n", [1, 10, 39])
def test_a_tie_across_the_last_place_goes_to_the_smaller_positions(kind, n_items, n):
    vectors = np.ones((n_items, 3), np.float32)
    vectors[-5:] = 2  # the best stand last, all others tie for the places that are left
    hits = build(kind, vectors).search([[1, 1, 1], [-1, -1, -1]], n)
    ahead = [*range(n_items - 5, n_items), *range(n_items)][:n]
    assert hits.positions.tolist() == [ahead, list(range(n))]


@every_exact_index
@pytest.mark.parametrize("n", [10, 300, 1000])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("n_queries", [2, 40])
def test_thousands_of_ties_on_every_level(kind, n_queries, dim, n):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, size=(5001, dim))
    queries = rng.integers(-2, 3, size=(n_queries, dim))
    scores, _ = inner_products(queries, vectors)
    assert_exact_at_scale(build(kind, vectors).search(queries, n), scores, 0, n)


@every_exact_index
@given(
    n=st.sampled_from([300, 600, 1000, 1500]),
    kept=st.lists(st.just(TILE) | st.integers(0, TILE), min_size=6, max_size=13),
)
@settings(max_examples=25)
@example(n=600, kept=[448, 232, 448, 13, 448, 448, 448, 448, 448, 57, 448, 80, 432])
@example(n=1000, kept=[448, 448, 448, 156, 130, 448, 448, 448, 448])
@example(n=1000, kept=[443, 448, 334, 448, 107, 448])
@example(n=1500, kept=[448, 448, 263, 448, 209, 448, 263, 448, 448, 448, 448, 448])
def test_ties_that_come_a_few_at_a_time(kind, n, kept):
    """Of every tile some items are left, all alike: lists grow to any length beyond n."""
    left_out = np.concatenate([np.arange(TILE) >= many for many in kept])
    scores = np.ones((20, len(left_out)))
    left_out = np.repeat(left_out[None, :], len(scores), axis=0)
    exclude = ItemLists.from_pairs(*np.nonzero(left_out), len(scores))
    index = build(kind, np.ones((scores.shape[1], 1)))
    hits = index.search(np.ones((len(scores), 1)), n, exclude=exclude)
    assert_exact_at_scale(hits, scores, 0, n, left_out)


@pytest.mark.slow
def test_no_kernel_reads_or_writes_outside_its_arrays(tmp_path):
    """The same searches with the bounds of every access checked: compiled code has none."""
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    some = "(ties or large_search) and (exact or ivf) and not short"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", some],
        env={**os.environ, **checked},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@every_exact_index
def test_scores_one_float64_rounding_apart_are_told_apart(kind):
    """BLAS in float32 sees one number in all of them."""
    vectors = np.full((4000, 2), 1, np.float32)
    vectors[:, 1] = 2.0**-40 * np.random.default_rng(0).permutation(4000)
    index = build(kind, vectors)
    hits = index.search([[1, 1], [1, -1]], 50)
    scores = np.array([[1, 1], [1, -1]]) @ vectors.astype(float).T
    assert_answers(hits, scores, 50, exact=True)


@every_exact_index
@pytest.mark.parametrize("big", [1e20, 1e30, 3e38])
def test_products_beyond_float32_are_ranked_all_the_same(kind, big):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1300, 5)).astype(np.float32)
    vectors[::3] *= np.float32(big / 10)
    queries = rng.normal(size=(17, 5)).astype(np.float32)
    queries[::2] *= np.float32(big / 10)
    vectors[10], queries[4] = big, [big, -big, 1, 0, -1]  # in float32 infinity less infinity
    index = build(kind, vectors)
    scores = all_scores(index, queries)
    exclude = [np.flatnonzero(rng.random(1300) < 0.3) for _ in queries]
    for n in (1, 40):
        assert_answers(index.search(queries, n), scores, n, exact=True)
        hits = search(index, queries, n, exclude=exclude)
        assert_answers(hits, scores, n, exact=True, exclude=exclude)
        hits = search(index, queries[4:5], n)
        assert_answers(hits, scores[4:5], n, exact=True)


@every_index
def test_the_best_is_found_where_all_the_rest_is_excluded(kind):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 6)).astype(np.float32)
    queries = rng.normal(size=(40, 6)).astype(np.float32)
    left = rng.integers(0, 3000, len(queries))
    exclude = [np.delete(np.arange(3000), item) if item % 2 else [] for item in left]
    hits = search(build(kind, vectors), queries, 3, exclude=exclude)
    odd = left % 2 == 1
    assert hits.counts.tolist() == np.where(odd, 1, 3).tolist()
    assert (hits.positions[odd, 0] == left[odd]).all()


@every_index
@pytest.mark.parametrize("n", [10**6, 2**31 - 1])
def test_a_length_far_beyond_the_items_costs_nothing(kind, n):
    index = build(kind, np.random.default_rng(0).normal(size=(50, 3)))
    index.search(np.ones((3, 3)), 50)
    tracemalloc.start()
    hits = index.search(np.ones((3, 3)), n)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert hits.counts.tolist() == [50] * 3
    assert peak < 1e6


@every_index
@pytest.mark.parametrize("n", [1, 500])
def test_no_queries(kind, n):
    index = build(kind, np.random.default_rng(0).normal(size=(60, 3)))
    hits = index.search(np.empty((0, 3), np.float32), n, candidates=[1, 2])
    assert len(hits.counts) == len(hits.positions) == len(hits.scores) == 0


# --- sizes beyond any tile or buffer --------------------------------------------------------------

SIZES = [  # items, width, queries, n
    (3000, 1, 300, 10),
    (3000, 300, 70, 100),
    (4096, 33, 64, 100),
    (5001, 2, 150, 1000),
    (8193, 65, 67, 10),
    (12_289, 17, 300, 100),
    (20_000, 33, 300, 10),
]


def catalogue(rng, style, n_items, dim):
    """Item rows: whole numbers have exact scores, the others differ in norm as those of FMs do."""
    if style == "ties":
        return rng.integers(-2, 3, size=(n_items, dim)).astype(np.float32)
    if style == "whole":
        return rng.integers(-TOP, TOP + 1, size=(n_items, dim)).astype(np.float32)
    spectrum, norms = 1 / np.arange(1, dim + 1), rng.lognormal(sigma=1, size=(n_items, 1))
    norms = np.sort(norms, axis=0) if style == "ascending" else norms
    return (rng.normal(size=(n_items, dim)) * spectrum * norms).astype(np.float32)


def check_at_scale(kind, style, n_items, dim, n_queries, n):
    rng = np.random.default_rng(n_items + dim)
    vectors = catalogue(rng, style, n_items, dim)
    queries = catalogue(rng, style, n_queries, dim)
    scores, margin = inner_products(queries, vectors)
    if style in ("ties", "whole"):
        margin = np.zeros(1)
    index = build(kind, vectors)
    assert_exact_at_scale(index.search(queries, n), scores, margin, n)
    alone = index.search(queries[:1], n)
    assert_exact_at_scale(alone, scores[:1], margin[:1], n)

    left_out = np.zeros(scores.shape, bool)
    left_out[::3] = rng.random(left_out[::3].shape) < 0.5  # heavy lists among empty ones
    left_out[1::7] = rng.random(left_out[1::7].shape) < 0.01
    left_out[min(5, n_queries - 1)] = True
    exclude = ItemLists.from_pairs(*np.nonzero(left_out), n_queries)
    hits = index.search(queries, n, exclude=exclude)
    assert_exact_at_scale(hits, scores, margin, n, left_out)
    for share in (0.05, 0.95):
        allowed = rng.random(n_items) < share
        blocked = rng.random(n_items) < 0.1
        hits = index.search(
            queries,
            n,
            exclude=exclude,
            candidates=np.flatnonzero(allowed),
            exclude_items=np.flatnonzero(blocked),
        )
        assert_exact_at_scale(hits, scores, margin, n, left_out | ~allowed | blocked)


@st.composite
def large_work(draw):
    """Item rows, queries, a length, a mask of the pairs to leave out, and shared masks or None."""
    rng = np.random.default_rng(draw(seeds))
    n_items, n_queries = draw(st.integers(300, 6000)), draw(st.sampled_from([1, 2, 9, 65, 150]))
    dim = draw(widths)
    vectors = rows_of(rng, n_items, dim, draw(styles))
    queries = rows_of(rng, n_queries, dim, draw(styles))
    n = draw(st.sampled_from([1, 10, 50, 300, 1000]))
    shares = draw(st.lists(st.sampled_from([0, 0.01, 0.5, 0.999, 1]), min_size=1, max_size=3))
    left_out = rng.random((n_queries, n_items)) < np.resize(shares, n_queries)[:, None]
    masks = [
        None if share is None else rng.random(n_items) < share
        for share in (
            draw(st.sampled_from([None, None, 0.002, 0.05, 0.5, 0.95])),
            draw(st.sampled_from([None, None, 0.01, 0.9])),
        )
    ]
    return vectors, queries, n, left_out, *masks


def check_large_work(kind, work):
    vectors, queries, n, left_out, allowed, blocked = work
    index = build(kind, vectors)
    scores = all_scores(index, queries)
    assert_exact_at_scale(index.search(queries, n), scores, 0, n)
    hits = index.search(
        queries,
        n,
        exclude=ItemLists.from_pairs(*np.nonzero(left_out), len(queries)),
        candidates=None if allowed is None else np.flatnonzero(allowed),
        exclude_items=None if blocked is None else np.flatnonzero(blocked),
    )
    if allowed is not None:
        left_out = left_out | ~allowed
    if blocked is not None:
        left_out = left_out | blocked
    assert_exact_at_scale(hits, scores, 0, n, left_out)


@every_exact_index
@given(work=large_work())
@settings(max_examples=20)
def test_the_laws_of_a_large_search(kind, work):
    check_large_work(kind, work)


@pytest.mark.slow
@every_exact_index
@given(work=large_work())
@settings(max_examples=400)
def test_the_laws_of_any_large_search(kind, work):
    check_large_work(kind, work)


@every_exact_index
@pytest.mark.parametrize("size", SIZES[1:5], ids=str)
@pytest.mark.parametrize("style", ["ties", "dispersed"])
def test_the_right_answer_at_scale(kind, style, size):
    check_at_scale(kind, style, *size)


@pytest.mark.slow
@every_exact_index
@pytest.mark.parametrize("size", [*SIZES, (20_000, 130, 300, 100), (20_000, 65, 50, 1000)], ids=str)
@pytest.mark.parametrize("style", ["ties", "whole", "dispersed", "ascending"])
def test_the_right_answer_at_any_scale(kind, style, size):
    check_at_scale(kind, style, *size)


# --- law 4: the same bits, however the work is cut ------------------------------------------------


@every_index
@given(work=work(), data=st.data())
@settings(max_examples=20)
def test_a_batch_equals_its_rows_and_its_parts(kind, work, data):
    vectors, queries, n, filters = work
    twice = np.concatenate([queries, queries[::-1]])
    lists = lists_of(filters["exclude"])
    rows = np.concatenate([np.arange(len(queries)), np.arange(len(queries))[::-1]])
    shared = {name: filters[name] for name in ("candidates", "exclude_items")}
    index = build(kind, vectors)
    whole = index.search(twice, n, exclude=lists.take(rows), **shared)
    for place, row in enumerate(rows):
        alone = index.search(
            queries[row : row + 1], n, exclude=lists.take(np.array([row])), **shared
        )
        assert bits(alone) == row_of(whole, place)
    cut = data.draw(st.integers(0, len(rows)))
    for part in (slice(0, cut), slice(cut, None)):
        hits = index.search(twice[part], n, exclude=lists.take(rows[part]), **shared)
        assert hits.positions.tobytes() == whole.positions[part].tobytes()
        assert hits.scores.tobytes() == whole.scores[part].tobytes()


@every_index
@pytest.mark.parametrize("dim", [7, 34])
def test_a_large_batch_equals_its_rows_and_its_parts(kind, dim):
    rng = np.random.default_rng(dim)
    vectors = catalogue(rng, "dispersed", 2000, dim)
    queries = rng.normal(size=(700, dim)).astype(np.float32)
    lists = lists_of([rng.integers(0, 2000, 900 if q % 5 == 0 else 0) for q in range(700)])
    index = build(kind, vectors)
    whole = index.search(queries, 20, exclude=lists)
    for size in (1, 64, 333):
        starts = range(0, 700, size) if size > 1 else range(0, 700, 35)
        for start in starts:
            rows = np.arange(start, min(start + size, 700))
            hits = index.search(queries[rows], 20, exclude=lists.take(rows))
            assert hits.positions.tobytes() == whole.positions[rows].tobytes()
            assert hits.scores.tobytes() == whole.scores[rows].tobytes()


@every_index
def test_a_shorter_list_and_a_filtered_one_have_the_same_scores(kind):
    rng = np.random.default_rng(3)
    vectors = catalogue(rng, "dispersed", 2500, 33)
    queries = rng.normal(size=(80, 33)).astype(np.float32)
    index = build(kind, vectors)
    scores = all_scores(index, queries)
    for n in (1, 10, 100, 1000):
        assert_answers(index.search(queries, n), scores, n, exact=kind in EXACT)
        candidates = rng.choice(2500, 40, replace=False)
        hits = index.search(queries, n, candidates=candidates)
        assert_answers(hits, scores, n, exact=kind in EXACT, candidates=candidates)


@every_index
@pytest.mark.parametrize("style", ["gaussian", "magnitudes of numbers", "one giant"])
def test_a_pair_has_one_score_in_every_index_and_place(kind, style):
    rng = np.random.default_rng(4)
    vectors, queries = rows_of(rng, 600, 33, style), rows_of(rng, 20, 33, style)
    order = rng.permutation(600)
    scores = all_scores(build(kind, vectors), queries)
    moved = all_scores(build(kind, vectors[order]), queries)
    assert moved.tobytes() == scores[:, order].tobytes()
    assert scores.tobytes() == all_scores(build("flat", vectors), queries).tobytes()


@pytest.mark.parametrize("other", list(EXACT))
def test_exact_indexes_agree_to_the_bit(other):
    rng = np.random.default_rng(5)
    vectors = catalogue(rng, "dispersed", 4000, 41)
    queries = catalogue(rng, "dispersed", 150, 41)
    exclude = lists_of([rng.integers(0, 4000, 100 * (q % 4)) for q in range(150)])
    answers = [
        build(each, vectors).search(queries, 30, exclude=exclude) for each in ("exact", other)
    ]
    assert bits(answers[0]) == bits(answers[1])


# --- building, adding, saving ---------------------------------------------------------------------


def some_work(n_items=900, dim=8, n_queries=50):
    rng = np.random.default_rng(n_items)
    vectors = catalogue(rng, "dispersed", n_items, dim)
    queries = rng.normal(size=(n_queries, dim)).astype(np.float32)
    filters = {
        "exclude": lists_of([rng.integers(0, n_items, q % 30) for q in range(n_queries)]),
        "candidates": rng.permutation(n_items)[: n_items // 2],
        "exclude_items": rng.integers(0, n_items, n_items // 10),
    }
    return vectors, queries, filters


def answers(index, queries, filters):
    return [bits(index.search(queries, 15)), bits(index.search(queries, 15, **filters))]


@every_index
def test_build_leaves_the_receiver_unbuilt(kind):
    vectors, queries, filters = some_work()
    empty = MAKERS[kind](len(vectors))
    first = empty.build(vectors)
    wanted = answers(first, queries, filters)
    with refused(ValueError, "build"):
        empty.search(queries, 1)
    second = first.build(vectors[:500])
    assert (first.n_items, second.n_items) == (900, 500)
    assert answers(first, queries, filters) == wanted


@every_index
def test_a_sample_of_queries_changes_no_right_answer(kind):
    vectors, queries, _ = some_work()
    index = MAKERS[kind](len(vectors)).build(vectors, queries)
    scores = all_scores(index, queries)
    assert_answers(index.search(queries, 15), scores, 15, exact=kind in EXACT)


@every_index
@pytest.mark.parametrize("sizes", [(1, 899), (600, 300), (899, 1)], ids=str)
def test_adding(kind, sizes):
    vectors, queries, filters = some_work()
    old, new = np.split(vectors, [sizes[0]])
    first = build(kind, old)
    before = bits(first.search(queries, 15))
    added = first.add(new)
    assert (first.n_items, added.n_items) == (len(old), len(vectors))
    assert bits(first.search(queries, 15)) == before
    np.testing.assert_array_equal(added.vectors, vectors)
    scores = all_scores(added, queries)
    assert_answers(added.search(queries, 15), scores, 15, exact=kind in EXACT)
    if kind in EXACT:
        assert answers(added, queries, filters) == answers(build(kind, vectors), queries, filters)


@every_index
def test_adding_what_does_not_fit_is_refused(kind):
    index = build(kind, np.ones((60, 3)))
    with refused(ValueError, "vectors", "(n, 3)", "(2, 4)"):
        index.add(np.ones((2, 4)))
    with refused(ValueError, "vectors", "row 1"):
        index.add([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]])
    assert index.n_items == 60


@every_index
@pytest.mark.parametrize("grown", [False, True], ids=["built", "added to"])
def test_an_index_from_its_state_gives_the_same_bits(kind, grown):
    vectors, queries, filters = some_work()
    index = build(kind, vectors[:700]).add(vectors[700:]) if grown else build(kind, vectors)
    arrays, options = index.to_state()
    arrays = {name: np.array(array) for name, array in arrays.items()}
    loaded = type(index).from_state(vectors, arrays, json.loads(json.dumps(options)))
    assert loaded.n_items == index.n_items
    assert answers(loaded, queries, filters) == answers(index, queries, filters)


@every_index
def test_the_callers_arrays_are_not_changed(kind):
    vectors, queries, filters = some_work()
    arguments = [
        vectors,
        queries,
        filters["exclude"].indices,
        filters["candidates"],
        filters["exclude_items"],
    ]
    before = [argument.copy() for argument in arguments]
    index = build(kind, vectors)
    answers(index.add(vectors), queries, filters)
    answers(index, queries, filters)
    for argument, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, copy)
    assert vectors.flags.writeable and not index.vectors.flags.writeable


FORMS = {
    "float64": lambda a: a.astype(np.float64),
    "lists": lambda a: a.tolist(),
    "columns first": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "big endian": lambda a: a.astype(">f4"),
}


@every_index
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_any_form_of_matrix(kind, form):
    vectors, queries, filters = some_work(n_items=300)
    filters = {**filters, "candidates": filters["candidates"].tolist()}
    wanted = answers(build(kind, vectors), queries, filters)
    assert answers(build(kind, form(vectors)), form(queries), filters) == wanted


@every_index
def test_read_only_arrays_and_positions_of_any_integers(kind):
    vectors, queries, filters = some_work(n_items=300)
    wanted = answers(build(kind, vectors), queries, filters)
    allowed = filters["candidates"].astype(np.uint16)
    for array in (vectors, queries, allowed):
        array.flags.writeable = False
    assert answers(build(kind, vectors), queries, {**filters, "candidates": allowed}) == wanted


# --- refusals -------------------------------------------------------------------------------------


@every_index
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_number_is_refused_by_row(kind, bad):
    rows = np.ones((60, 3))
    rows[3, 1] = bad
    with refused(ValueError, "vectors", "row 3"):
        build(kind, rows)
    with refused(ValueError, "queries", "row 3"):
        build(kind, np.ones((60, 3))).search(rows, 1)


@every_index
@pytest.mark.parametrize(
    "error, options, words",
    [
        (ValueError, {"queries": np.ones((2, 4))}, ["queries", "(n, 3)", "(2, 4)"]),
        (ValueError, {"queries": np.ones(3)}, ["queries", "(3,)"]),
        (ValueError, {"queries": np.ones((0, 4))}, ["queries", "(0, 4)"]),
        (TypeError, {"queries": [["1", "2", "3"]]}, ["queries", "numbers"]),
        (ValueError, {"n": 0}, ["n must", "0"]),
        (ValueError, {"n": 1.5}, ["n must", "1.5"]),
        (ValueError, {"exclude": ItemLists.empty(3)}, ["exclude", "3", "2"]),
        (ValueError, {"exclude": lists_of([[], [60]])}, ["exclude", "60", "0..59"]),
        (TypeError, {"exclude": [[1], [2]]}, ["exclude", "ItemLists.from_pairs"]),
        (ValueError, {"candidates": [0, 60]}, ["candidates", "60", "0..59"]),
        (ValueError, {"candidates": [[1, 2]]}, ["candidates", "(1, 2)"]),
        (TypeError, {"candidates": [1.0]}, ["candidates", "integer"]),
        (ValueError, {"exclude_items": [-1]}, ["exclude_items", "-1", "0..59"]),
        (TypeError, {"exclude_items": [True, False]}, ["exclude_items", "integer"]),
    ],
)
def test_a_bad_search_is_refused(kind, error, options, words):
    index = build(kind, np.ones((60, 3)))
    call = {"queries": np.ones((2, 3)), "n": 2, **options}
    with refused(error, *words):
        index.search(call.pop("queries"), call.pop("n"), **call)
