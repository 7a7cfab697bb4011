"""Candidates chosen among short rows: exact scores always, and hardly ever another item."""

from __future__ import annotations

import copy
import functools
import warnings

import naive
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import interactions, regressor, same_answers, trained
from realdata import movielens
from refusals import refused
from threadpoolctl import threadpool_info, threadpool_limits

import fmknn
from fmknn import FaissIndex, FMParams, FMRegressor, Interactions, Recommender
from fmknn.errors import ModelFileError
from fmknn.index.base import ItemLists
from fmknn.index.compression import Compression
from fmknn.model import storage
from fmknn.serving.queries import make_queries, sample_of_queries

KINDS = ["Flat", "IVF"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def decaying(rng, n_queries, n_items, dim, decay=0.6):
    """Queries and items whose inner products have singular values that fall geometrically."""
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    spread = decay ** np.arange(dim)
    queries = (rng.normal(size=(n_queries, dim)) * spread) @ turn.T
    items = (rng.normal(size=(n_items, dim)) * spread) @ turn.T
    return queries.astype(np.float32), items.astype(np.float32)


def overlap(found, exact):
    """Mean share of an exact list that the other one has as well."""
    shares = [
        len(set(a[:count]) & set(b[:count])) / count
        for a, b, count in zip(
            found.positions.tolist(), exact.positions.tolist(), exact.counts.tolist(), strict=True
        )
        if count
    ]
    return np.mean(shares)


def same_hits(a, b):
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("positions", "scores", "counts")
    )


def error_of(maps, queries, items):
    """Frobenius norm of what the maps lose."""
    wide = queries.astype(np.float64) @ items.astype(np.float64).T
    short = queries.astype(np.float64) @ maps.query_map.astype(np.float64)
    return np.linalg.norm(wide - short @ (items @ maps.item_map.astype(np.float64)).T)


# --- the maps: numpy's singular value decomposition is the oracle --------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(*[st.integers(1, 30)] * 3),
    r=st.integers(1, 12),
)
@settings(max_examples=60)
def test_no_rank_loses_less(seed, sizes, r):
    queries, items = decaying(np.random.default_rng(seed), *sizes)
    maps = Compression.fit(items, queries, r)
    singular = np.linalg.svd(queries.astype(float) @ items.astype(float).T, compute_uv=False)
    optimum = np.sqrt((singular[r:] ** 2).sum())
    lost = error_of(maps, queries, items)
    assert lost >= optimum - 1e-5 * singular[0]
    # the share of queries of all directions costs a little of what is asked
    total = np.linalg.norm(queries.astype(float)) * np.linalg.norm(items.astype(float))
    assert lost**2 <= optimum**2 + (1e-4 / items.shape[1]) * total**2 + (1e-5 * singular[0]) ** 2


@pytest.mark.parametrize("r", [1, 3, 5])
def test_the_error_is_that_of_the_truncated_decomposition(r):
    queries, items = decaying(np.random.default_rng(0), 200, 90, 12)
    lost = error_of(Compression.fit(items, queries, r), queries, items)
    singular = np.linalg.svd(queries.astype(float) @ items.astype(float).T, compute_uv=False)
    assert lost == pytest.approx(np.sqrt((singular[r:] ** 2).sum()), rel=1e-4)


def test_without_queries_it_is_a_principal_component_analysis():
    _, items = decaying(np.random.default_rng(1), 1, 80, 9)
    everything = np.eye(9, dtype=np.float32)
    lost = error_of(Compression.fit(items, None, 4), everything, items)
    singular = np.linalg.svd(items.astype(float), compute_uv=False)
    assert lost == pytest.approx(np.sqrt((singular[4:] ** 2).sum()), rel=1e-5)


def test_queries_decide_what_is_kept():
    items = np.diag([9.0, 1.0]).astype(np.float32)  # the large coordinate is never asked for
    asked = np.array([[0.0, 2.0]], np.float32)
    maps = Compression.fit(items, asked, 1)
    np.testing.assert_allclose((asked @ maps.query_map) @ (items @ maps.item_map).T, [[0, 2]])
    blind = Compression.fit(items, None, 1)
    np.testing.assert_allclose((asked @ blind.query_map) @ (items @ blind.item_map).T, [[0, 0]])


def test_both_sides_get_half_of_the_singular_values():
    queries, items = decaying(np.random.default_rng(2), 300, 150, 10)
    maps = Compression.fit(items, queries, 5)
    short_queries, short_items = queries @ maps.query_map, items @ maps.item_map
    scale = np.linalg.norm(items) / np.linalg.norm(queries)  # both are made for rows of norm 1
    of_queries, of_items = short_queries.T @ short_queries, short_items.T @ short_items
    np.testing.assert_allclose(of_queries * scale**2, of_items, atol=1e-3 * of_items.max())
    np.testing.assert_allclose(of_items, np.diag(np.diag(of_items)), atol=1e-3 * of_items.max())


def test_a_query_that_was_not_in_the_sample_passes_through():
    rng = np.random.default_rng(3)
    asked = np.zeros((1, 6), np.float32)
    asked[0, 0] = 1.0
    items = rng.normal(size=(40, 2)).astype(np.float32) @ rng.normal(size=(2, 6)).astype("f4")
    maps = Compression.fit(items, asked, 2)  # the sample has rank 1, the items have rank 2
    other = rng.normal(size=(5, 6)).astype(np.float32)
    assert maps.width == 2
    np.testing.assert_allclose(
        (other @ maps.query_map) @ (items @ maps.item_map).T, other @ items.T, atol=1e-3
    )


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_no_more_is_kept_than_the_rank(rank):
    rng = np.random.default_rng(4)
    items = (rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 20))).astype(np.float32)
    maps = Compression.fit(items, rng.normal(size=(30, 20)).astype(np.float32), 16)
    assert maps.query_map.shape == maps.item_map.shape == (20, rank)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_the_scale_of_neither_side_matters(scale):
    queries, items = decaying(np.random.default_rng(5), 60, 300, 20)
    usual = FaissIndex(compress=6).build(items, queries).search(queries, 5)
    for q, i in [(scale, 1.0), (1.0, scale), (scale, 1 / scale)]:
        asked, rows = (queries * np.float32(q)), (items * np.float32(i))
        hits = FaissIndex(compress=6).build(rows, asked).search(asked, 5)
        assert overlap(hits, usual) == 1.0


def test_items_whose_short_rows_are_beyond_float32():
    queries, items = decaying(np.random.default_rng(5), 60, 300, 20)
    usual = FaissIndex(compress=6).build(items, queries).search(queries, 5)
    items *= np.float32(3.4e38) / np.abs(items).max()
    hits = FaissIndex(compress=6).build(items, queries).search(queries, 5)
    assert overlap(hits, usual) == 1.0


@pytest.mark.parametrize("zero", ["items", "queries", "both"])
def test_zeros(zero):
    queries, items = decaying(np.random.default_rng(6), 4, 30, 5)
    if zero != "queries":
        items = np.zeros_like(items)
    if zero != "items":
        queries = np.zeros_like(queries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits = FaissIndex(compress=2).build(items, queries).search(queries, 3)
    assert hits.positions.tolist() == [[0, 1, 2]] * 4
    assert (hits.scores == 0).all()


def test_signs_are_settled():
    queries, items = decaying(np.random.default_rng(7), 60, 40, 9)
    item_map = Compression.fit(items, queries, 7).item_map
    assert (item_map[np.abs(item_map).argmax(axis=0), np.arange(7)] > 0).all()


def test_a_fit_has_one_thread_of_blas(monkeypatch):
    queries, items = decaying(np.random.default_rng(7), 60, 40, 9)
    threads, eigh = [], scipy.linalg.eigh

    def watched(*args, **options):
        threads.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")
        return eigh(*args, **options)

    monkeypatch.setattr(scipy.linalg, "eigh", watched)
    with threadpool_limits(2):
        Compression.fit(items, queries, 5)
    assert set(threads) == {1}


# --- searching -----------------------------------------------------------------------------------


@every_kind
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=40)
def test_scores_are_exact_and_lists_full(kind, seed, data):
    rng = np.random.default_rng(seed)
    n_items, dim, n = (data.draw(st.integers(1, top)) for top in (300, 12, 40))
    queries, items = (
        rng.integers(-3, 4, size=(size, dim)).astype(np.float32) for size in (3, n_items)
    )
    excluded = [set(rng.integers(0, n_items, rng.integers(0, n_items + 1))) for _ in range(3)]
    allowed = np.unique(rng.integers(0, n_items, 200)) if data.draw(st.booleans()) else None
    pairs = [(q, i) for q, barred in enumerate(excluded) for i in barred]
    query, item = np.array(pairs, np.int64).reshape(-1, 2).T
    cells = {"nlist": max(1, n_items // 20), "nprobe": 1} if kind == "IVF" else {}
    index = FaissIndex(kind, compress=data.draw(st.integers(1, 14)), **cells).build(items, queries)
    hits = index.search(
        queries, n, exclude=ItemLists.from_pairs(query, item, 3), candidates=allowed
    )
    scores = queries.astype(np.float64) @ items.astype(np.float64).T
    possible = set(range(n_items) if allowed is None else allowed.tolist())
    assert hits.positions.shape == (3, min(n, len(possible)))
    for q in range(3):
        count = hits.counts[q]
        available = possible - excluded[q]
        got = hits.positions[q, :count].tolist()
        assert count == min(n, len(available)) == len(set(got)) and set(got) <= available
        assert hits.scores[q, :count].tolist() == [scores[q, p] for p in got]
        assert got == sorted(got, key=lambda p: (-scores[q, p], p))
        assert (hits.positions[q, count:] == -1).all()
        if len(available) <= 2 * n + 30:  # then all of them are candidates
            best = naive.brute_top_n(scores[q], n, excluded[q], possible)
            assert got == [position for position, _ in best]


@pytest.mark.parametrize("r", [7, 8, 50])
def test_a_width_of_the_rank_gives_the_exact_lists(r):
    rng = np.random.default_rng(8)
    items = (rng.normal(size=(2000, 7)) @ rng.normal(size=(7, 40))).astype(np.float32)
    queries = rng.normal(size=(300, 40)).astype(np.float32)
    exact = FaissIndex().build(items).search(queries, 10)
    for sample in (queries, queries[:2], None):
        assert same_hits(FaissIndex(compress=r).build(items, sample).search(queries, 10), exact)


@every_kind
def test_most_items_are_found(kind):
    queries, items = decaying(np.random.default_rng(9), 500, 5000, 60, decay=0.7)
    exact = FaissIndex().build(items).search(queries, 10)
    shares = [
        overlap(FaissIndex(kind, compress=r).build(items, queries).search(queries, 10), exact)
        for r in (2, 8, 16)
    ]
    assert shares[0] < 0.9 < 0.97 < shares[1]
    assert shares[2] > (0.999 if kind == "Flat" else 0.98)


@every_kind
def test_a_batch_gives_the_bits_of_its_rows(kind):
    queries, items = decaying(np.random.default_rng(10), 90, 3000, 40)
    index = FaissIndex(kind, compress=3).build(items, queries)
    whole = index.search(queries, 4)
    for at, size in [(0, 1), (7, 2), (11, 40), (89, 1)]:
        part = index.search(queries[at : at + size], 4)
        assert part.positions.tolist() == whole.positions[at : at + size].tolist()
        assert part.scores.tolist() == whole.scores[at : at + size].tolist()


def test_many_queries_are_searched_in_parts(monkeypatch):
    queries, items = decaying(np.random.default_rng(11), 70, 900, 20)
    index = FaissIndex(compress=4).build(items, queries)
    exclude = ItemLists.from_pairs(np.arange(70), np.arange(70), 70)
    whole = index.search(queries, 6, exclude=exclude)
    monkeypatch.setattr("fmknn.index.compression._CHUNK_ENTRIES", 500)
    assert same_hits(index.search(queries, 6, exclude=exclude), whole)


@every_kind
def test_no_answer_depends_on_the_threads(kind):
    queries, items = decaying(np.random.default_rng(12), 700, 6000, 90)
    built = []
    for n in (1, 2):
        with threadpool_limits(n):
            built.append(FaissIndex(kind, compress=9, n_jobs=n).build(items, queries))
    one, two = (index.to_state()[0] for index in built)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert same_hits(*(index.search(queries, 10) for index in built))


@every_kind
def test_state_gives_the_same_answers(kind):
    queries, items = decaying(np.random.default_rng(13), 50, 2000, 30)
    index = FaissIndex(kind, compress=5).build(items, queries)
    arrays, metadata = index.to_state()
    again = FaissIndex.from_state(items, arrays, metadata)
    assert same_hits(again.search(queries, 8), index.search(queries, 8))
    assert repr(again) == repr(index) == f"FaissIndex({kind!r}, compress=5, 2000 items)"


def test_building_leaves_the_receiver_as_it_was():
    queries, items = decaying(np.random.default_rng(14), 5, 20, 4)
    empty = FaissIndex(compress=2)
    first = empty.build(items, queries)
    before = first.search(queries, 3)
    first.build(items[:4])
    assert repr(empty) == "FaissIndex('Flat', compress=2, not built)"
    assert same_hits(first.search(queries, 3), before)


# --- recommending --------------------------------------------------------------------------------


@functools.cache
def bayesian(context=False):
    """A posterior of 50 samples, small enough for a fast test and too wide for its users."""
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=80,
        n_items=600,
        n_ratings=6000,
        n_factors=4,
        context=5 if context else None,
        random_state=0,
    )
    return Recommender(FMRegressor(4, solver="mcmc", n_iter=60, random_state=0)).fit(ratings)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_posterior(exclude_seen):
    model = bayesian()
    exact = model.recommend(model.users.ids, 10, exclude_seen=exclude_seen)
    short = model.with_index("exact", compress=16)
    found = short.recommend(model.users.ids, 10, exclude_seen=exclude_seen)
    assert overlap(found, exact) >= 0.999
    cold = {"unknown": "cold", "exclude_seen": exclude_seen}
    assert overlap(short.recommend([-1], **cold), model.recommend([-1], **cold)) == 1.0


@pytest.mark.parametrize("asked", ["mean", "zero", "level", "cold"])
def test_contexts(asked):
    model = bayesian(context=True)
    (name,) = model.contexts
    levels = model.contexts[name].ids
    users = model.users.ids
    if asked == "cold":
        context, users = {"context": {name: levels}, "unknown": "cold"}, -1 - np.arange(len(levels))
    elif asked == "level":
        context = {"context": {name: levels[np.arange(len(users)) % len(levels)]}}
    else:
        context = {"context_default": asked}
    found = model.with_index("exact", compress=16).recommend(users, 10, **context)
    assert overlap(found, model.recommend(users, 10, **context)) >= 0.998


def test_what_is_sampled(monkeypatch):
    model = bayesian(context=True)
    n = len(model.users)
    (name,) = model.contexts
    levels = model.contexts[name].ids
    sample = sample_of_queries(model.params_, model.catalog_)
    assert sample.shape == (3 * n, 201)
    for part, context, default in [
        (0, None, "mean"),
        (1, None, "zero"),
        (2, {name: [levels[place % len(levels)] for place in range(n)]}, "raise"),
    ]:
        asked = make_queries(
            model.params_, model.catalog_, model.users.ids, context, context_default=default
        )
        assert (sample[part * n : (part + 1) * n] == asked.rows).all()
    few = bayesian()
    whole = sample_of_queries(few.params_, few.catalog_)
    assert len(whole) == len(few.users)
    monkeypatch.setattr("fmknn.serving.queries._MOST_SAMPLED", 9)
    chosen = sample_of_queries(few.params_, few.catalog_)
    last = len(few.users) - 1
    assert (chosen == whole[[last * i // 8 for i in range(9)]]).all()
    assert len(sample_of_queries(model.params_, model.catalog_)) == 9


def test_every_way_to_an_index_is_the_same():
    data = interactions("everything")
    ways = [
        Recommender(regressor(), compress=3).fit(data),
        Recommender(regressor(), index="exact", compress=3).fit(data),
        Recommender(regressor(), index=FaissIndex(compress=3)).fit(data),
        Recommender(regressor(), index=FaissIndex(), compress=3).fit(data),
        Recommender(regressor(), index=FaissIndex(compress=1), compress=3).fit(data),
        trained("everything").with_index("exact", compress=3),
        trained("everything").with_index(FaissIndex(compress=3)),
    ]
    users = data.users.ids
    answers = [way.recommend(users, 3, context={"day": "sun", "hour": 2}) for way in ways]
    assert all(way.index_.compress == 3 for way in ways)
    assert all(same_answers(answer, answers[0]) for answer in answers)
    assert ways[0].with_index("exact").index_.compress is None
    assert repr(ways[1]).endswith("index='exact', compress=3)")


def test_from_params():
    rng = np.random.default_rng(15)
    params = FMParams(0.0, rng.normal(size=400), rng.normal(size=(400, 12)))
    known = {
        "users": np.arange(50),
        "items": np.arange(350),
        "seen": (np.arange(50), np.arange(50)),
    }
    exact = Recommender.from_params(params, **known)
    short = Recommender.from_params(params, **known, compress=9)
    assert short.index_.compress == 9
    found, wanted = (model.recommend(np.arange(50), 5) for model in (short, exact))
    assert overlap(found, wanted) > 0.95
    full = Recommender.from_params(params, **known, compress=13)
    assert same_answers(full.recommend(np.arange(50), 5), wanted)


def test_candidates_and_exclusions():
    model = bayesian().with_index("ivf", compress=8)
    users, items = model.users.ids, model.items.ids
    exclude = {users[0]: items[:30].tolist()}
    top = model.recommend(users, 20, candidates=items[:60], exclude=exclude)
    assert set(top.items[0, : top.counts[0]]) <= set(items[30:60])
    seen = model.catalog_.seen
    for place, (positions, count) in enumerate(zip(top.positions, top.counts, strict=True)):
        barred = set(seen.indices[seen.indptr[place] : seen.indptr[place + 1]].tolist())
        barred |= set(range(30)) if place == 0 else set()
        available = set(range(60)) - barred
        assert count == min(20, len(available)) and set(positions[:count].tolist()) <= available


def test_scores_are_the_models():
    model = bayesian().with_index("exact", compress=2)
    top = model.recommend(model.users.ids, 7)
    users = np.repeat(model.users.ids, 7)
    assert (top.scores.ravel() == model.scores(users, top.items.ravel())).all()


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_a_saved_model_gives_the_same_answers(index, tmp_path):
    model = bayesian().with_index(index, compress=6)
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    assert repr(loaded.index_) == repr(model.index_)
    assert same_answers(loaded.recommend(model.users.ids), model.recommend(model.users.ids))


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, 1.5, "8", True, [8]])
def test_a_width_that_is_none(bad):
    with refused(ValueError, "compress", repr(bad)):
        FaissIndex(compress=bad)
    with refused(ValueError, "compress", repr(bad)):
        Recommender(regressor(callbacks=[unexpected]), compress=bad).fit(interactions())
    with refused(ValueError, "compress", repr(bad)):
        trained().with_index("exact", compress=bad)


def unexpected(step):
    raise AssertionError("trained although the settings can't be used")


class Another:
    """An index of somebody else's, as the protocol wants it."""

    def build(self, vectors):
        return self

    def search(self, queries, n, *, exclude=None, candidates=None):
        raise NotImplementedError


def test_an_index_that_cant():
    with refused(TypeError, "compress=4", "Another", "FaissIndex"):
        Recommender(regressor(callbacks=[unexpected]), index=Another(), compress=4).fit(
            interactions()
        )
    assert isinstance(trained().with_index(Another()).index_, Another)


@pytest.mark.parametrize(
    "queries, error, words",
    [
        (np.zeros((2, 3)), ValueError, ["queries", "(n, 4)"]),
        (np.zeros(4), ValueError, ["queries"]),
        ([[0.0, 0.0, np.nan, 0.0]], ValueError, ["queries", "row 0"]),
        ([["a", "b", "c", "d"]], TypeError, ["queries", "real numbers"]),
    ],
)
@pytest.mark.parametrize("compress", [None, 2])
def test_queries_that_do_not_fit(queries, error, words, compress):
    with refused(error, *words):
        FaissIndex(compress=compress).build(np.ones((5, 4)), queries)


def test_no_queries_at_all_are_all_directions():
    _, items = decaying(np.random.default_rng(16), 1, 30, 4)
    empty, none = (
        FaissIndex(compress=2).build(items, queries).to_state()[0]
        for queries in (np.empty((0, 4)), None)
    )
    assert all((empty[name] == none[name]).all() for name in none)


@functools.cache
def saved(path):
    bayesian().with_index("exact", compress=6).save(path)
    arrays, metadata = storage.load(path)
    return dict(arrays), metadata


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    arrays, metadata = saved(tmp_path_factory.mktemp("saved") / "model.fmknn")
    return dict(arrays), copy.deepcopy(metadata)


@pytest.mark.parametrize("name", ["index/query_map", "index/item_map"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a[:-1],
        lambda a: a[:, :-1],
        lambda a: a[:, :0],
        lambda a: np.hstack([a, a]),
        lambda a: a[None],
        lambda a: a[:, 0],
        lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a),
        lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.inf, a),
        lambda a: a.astype(np.float64) + 1e300,
        lambda a: np.full(a.shape, "1.5", object),
        None,
    ],
)
def test_maps_in_a_file_that_do_not_fit(contents, name, spoil, tmp_path):
    arrays, metadata = contents
    changed = {key: array for key, array in arrays.items() if key != name}
    if spoil is not None:
        changed[name] = spoil(arrays[name])
    storage.save(tmp_path / "bad.fmknn", changed, metadata)
    with warnings.catch_warnings(), refused(ModelFileError, "not a complete model"):
        warnings.simplefilter("error")
        fmknn.load(tmp_path / "bad.fmknn")


@pytest.mark.parametrize("compress", [None, 5, 0, -1, 2.5, "6", True, [6]])
def test_a_width_in_a_file_that_does_not_fit(contents, compress, tmp_path):
    arrays, metadata = contents
    changed = {**metadata, "index": {**metadata["index"], "compress": compress}}
    storage.save(tmp_path / "bad.fmknn", arrays, changed)
    with refused(ModelFileError, "not a complete model"):
        fmknn.load(tmp_path / "bad.fmknn")


@pytest.mark.parametrize("exponents", [(110, 0), (0, 110), (110, 110), (-120, -120), (110, -110)])
def test_the_scale_of_maps_does_not_matter(contents, exponents, tmp_path):
    arrays, metadata = contents
    maps = {
        name: np.ldexp(arrays[name], exponent)
        for name, exponent in zip(("index/query_map", "index/item_map"), exponents, strict=True)
    }
    storage.save(tmp_path / "scaled.fmknn", {**arrays, **maps}, metadata)
    model = bayesian().with_index("exact", compress=6)
    other = fmknn.load(tmp_path / "scaled.fmknn")
    rows = np.ldexp(np.ones((1, 201), np.float32), 120)  # beyond float32 once they are mapped
    for exponent in (0, 100, -100):
        scaled = np.ldexp(sample_of_queries(model.params_, model.catalog_), exponent)
        asked = np.vstack([scaled, rows])
        assert same_hits(other.index_.search(asked, 5), model.index_.search(asked, 5))


@pytest.mark.parametrize("size", [3e38, 1e-45])
def test_maps_in_a_file_of_absurd_size_give_exact_scores_at_least(contents, size, tmp_path):
    arrays, metadata = contents
    maps = {
        f"index/{name}": arrays[f"index/{name}"] * 0 + size for name in ("query_map", "item_map")
    }
    storage.save(tmp_path / "odd.fmknn", {**arrays, **maps}, metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fmknn.load(tmp_path / "odd.fmknn")
        top = model.recommend(model.users.ids, 5)
    users = np.repeat(model.users.ids, 5)
    assert (top.counts == 5).all()
    assert (top.scores.ravel() == model.scores(users, top.items.ravel())).all()


# --- real data -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_movielens_100k():
    train, _ = movielens("100k", fold="u1")
    model = Recommender(FMRegressor(16, solver="mcmc", random_state=0)).fit(
        train.without_features()
    )
    short = model.with_index("exact", compress=32)
    for exclude_seen in (True, False):
        asked = {"n": 10, "exclude_seen": exclude_seen}
        found, exact = (m.recommend(model.users.ids, **asked) for m in (short, model))
        assert overlap(found, exact) >= 0.999
    cold = [m.recommend([-1], unknown="cold") for m in (short, model)]
    assert overlap(*cold) >= 0.999


@pytest.mark.slow
def test_movielens_100k_with_a_context():
    train, _ = movielens("100k", fold="u1")
    day = train.timestamps // 86400
    ratings = Interactions.from_arrays(
        train.user_ids, train.item_ids, train.values, context={"day": day}
    )
    model = Recommender(FMRegressor(16, solver="mcmc", random_state=0)).fit(ratings)
    short = model.with_index("exact", compress=32)
    users, days = model.users.ids, model.contexts["day"].ids
    some_days = np.random.default_rng(0).choice(days, len(users))
    cold = -1 - np.arange(len(days))
    for asked, context in [
        (users, {"context": {"day": some_days}}),
        (users, {"context_default": "mean"}),
        (users, {"context_default": "zero"}),
        (cold, {"context": {"day": days}, "unknown": "cold"}),
    ]:
        found, exact = (m.recommend(asked, 10, **context) for m in (short, model))
        assert overlap(found, exact) >= 0.999
