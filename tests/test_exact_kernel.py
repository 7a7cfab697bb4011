"""The kernels that select for exact search, compiled and as plain Python, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import as_compiled, as_python

from fmknn import ExactIndex, ItemLists
from fmknn.index import exact_kernel
from fmknn.index.exact_kernel import NOTHING_YET, TILE, list_room, scan_batch, scan_one
from fmknn.index.norm_tiles import NormTiles

N = 7


@pytest.fixture(params=[as_compiled, as_python], ids=["jit", "python"])
def impl(request, monkeypatch):
    if request.param is as_python:  # the helpers as well
        for name in dir(exact_kernel):
            helper = getattr(exact_kernel, name)
            if name.startswith("_") and hasattr(helper, "py_func"):
                monkeypatch.setattr(exact_kernel, name, helper.py_func)
    return request.param


def layout(n_prefix, n_items=TILE + 90, dim=21, seed=0):
    """Items with norms apart and axes of falling weight, so that bounds and stops take part."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_items, dim)) * 0.8 ** np.arange(dim)
    vectors = (rows * np.exp(0.5 * rng.standard_normal((n_items, 1)))).astype(np.float32)
    queries = (rng.standard_normal((5, dim)) * 0.9 ** np.arange(dim)).astype(np.float32)
    tiles = NormTiles._laid_out(vectors, np.eye(dim, dtype=np.float32), n_prefix)
    excluded = ItemLists.from_pairs(
        np.repeat(np.arange(5), 40), rng.integers(0, n_items, 200), len(queries)
    )
    return vectors, queries, tiles, excluded


def arguments(tiles, queries, excluded, mask):
    asked = tiles.prepare(queries)
    own = asked.heads, asked.rests, asked.errors
    of_items = tiles.tiles, tiles.rest, tiles.norms, tiles.item_of, tiles.place_of, mask
    return (*own, *of_items, excluded.indptr, excluded.indices, N)


def alone_too(vectors, queries, tiles):
    return queries, tiles.prepare(queries).scales, vectors, tiles.coarse, tiles.steps


def outputs(n_queries, width=N + N // 2 + 64):
    return np.full((n_queries, width), -7, np.int64), np.full(n_queries, -7, np.int64)


def run_batch(kernel, tiles, queries, excluded, mask, begin=NOTHING_YET, n_rows=2):
    shape = len(queries), list_room(N)
    cuts = np.full(len(queries), begin, np.float32)
    found, counts = outputs(len(queries))
    lists = np.empty(shape, np.float32), np.empty(shape, np.int32)
    kernel(*arguments(tiles, queries, excluded, mask), *lists, cuts, found, counts, n_rows)
    return found, counts, cuts


def best(vectors, queries, excluded, allowed):
    """The items of the n best scores of each query, as sets, by brute force."""
    scores = vectors.astype(np.float64) @ queries.astype(np.float64).T
    barred = np.ones(len(vectors), bool)
    barred[allowed] = False
    lists = []
    for q in range(len(queries)):
        own = np.where(barred, -np.inf, scores[:, q])
        own[excluded.take([q]).indices] = -np.inf
        lists.append(set(np.argsort(-own)[:N].tolist()))
    return lists


@pytest.mark.parametrize("n_prefix", [0, 5])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("alone", [False, True], ids=["batch", "one"])
def test_the_best_are_among_few_that_are_selected(impl, n_prefix, share, alone):
    vectors, queries, tiles, excluded = layout(n_prefix)
    n_items = len(vectors)
    allowed = np.arange(0, n_items, round(1 / share))
    mask = tiles.mask(allowed) if share < 1 else np.empty(0, np.float32)
    if alone:
        found, counts = outputs(len(queries))
        impl(scan_one)(
            *alone_too(vectors, queries, tiles),
            *arguments(tiles, queries, excluded, mask),
            found,
            counts,
        )
    else:
        found, counts, _ = run_batch(impl(scan_batch), tiles, queries, excluded, mask)
    for q, wanted in enumerate(best(vectors, queries, excluded, allowed)):
        got = found[q, : counts[q]].tolist()
        assert wanted <= set(got)
        assert len(set(got)) == len(got) <= N + N // 16 + 6
        assert not set(got) & set(excluded.take([q]).indices.tolist())
        assert (found[q, counts[q] :] == -1).all()


def test_where_to_begin(impl):
    """From below the n-th score nothing is lost; from above, the count says so."""
    vectors, queries, tiles, excluded = layout(0)
    mask = np.empty(0, np.float32)
    _, _, ends = run_batch(impl(scan_batch), tiles, queries, excluded, mask)
    found, counts, _ = run_batch(impl(scan_batch), tiles, queries, excluded, mask, ends.min())
    for q, wanted in enumerate(best(vectors, queries, excluded, np.arange(len(vectors)))):
        assert wanted <= set(found[q, : counts[q]].tolist())
    _, counts, _ = run_batch(impl(scan_batch), tiles, queries, excluded, mask, 1.05)
    assert (counts == 0).all()


@pytest.mark.parametrize("alone", [False, True], ids=["batch", "one"])
def test_ties_without_end_are_reported(impl, alone):
    vectors = np.ones((4 * TILE, 3), np.float32)
    queries = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32)
    tiles = NormTiles._laid_out(vectors, np.eye(3, dtype=np.float32), 0)
    nothing, mask = ItemLists.empty(2), np.empty(0, np.float32)
    if alone:
        found, counts = outputs(2)
        impl(scan_one)(
            *alone_too(vectors, queries, tiles),
            *arguments(tiles, queries, nothing, mask),
            found,
            counts,
        )
    else:
        found, counts, _ = run_batch(impl(scan_batch), tiles, queries, nothing, mask)
    assert counts.tolist() == [-1, -1]
    assert (found == -1).all()
    positions = ExactIndex().build(vectors).search(queries, 3).positions
    assert positions.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_queries_that_begin_too_high_begin_anew():
    """Lists whose n-th scores differ widely, so that one block's are no place for the next."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((6000, 4)).astype(np.float32)
    near, far = np.ones((300, 4)), rng.standard_normal((300, 4))
    queries = np.concatenate([near, far * [1, 1e-3, 1e-3, 1e-3], far]).astype(np.float32)
    index = ExactIndex(n_jobs=1).build(vectors)
    together = index.search(queries, 50)
    scores = np.sort(queries.astype(np.float64) @ vectors.T.astype(np.float64), axis=1)[:, ::-1]
    assert np.allclose(together.scores, scores[:, :50], rtol=1e-12, atol=1e-12)
    for q in (0, 299, 300, 599, 899):
        alone = index.search(queries[q : q + 1], 50)
        assert alone.scores.tobytes() == together.scores[q].tobytes()
        assert alone.positions.tobytes() == together.positions[q].tobytes()


def test_near_ties_where_others_ended_are_not_lost():
    """Items that differ in last bits, for queries whose scores lie about where others end."""
    rng = np.random.default_rng(0)
    dim, n = 32, 10
    v, w, u = np.linalg.qr(rng.standard_normal((dim, 3)))[0].T
    cluster = 0.9 * v.astype(np.float32) * (1 + rng.integers(-1, 2, (20, dim)) * 2.0**-23)
    rest = rng.standard_normal((3000, dim))
    rest *= 0.3 / np.linalg.norm(rest, axis=1)[:, None]
    items = np.concatenate([cluster, rest, w[None]]).astype(np.float32)
    turned = 1 - np.linspace(0.0, 6 * (dim + 8) * 2.0**-24, 1024) / 0.9
    others = turned[:, None] * v + np.sqrt(np.maximum(0, 1 - turned**2))[:, None] * u
    queries = np.concatenate([np.tile(v, (256, 1)), others]).astype(np.float32)
    scores = queries.astype(np.float64) @ items.T.astype(np.float64)
    wanted = np.sort(scores, axis=1)[:, : -n - 1 : -1]
    found = ExactIndex(n_jobs=1).build(items).search(queries, n)
    assert np.abs(found.scores - wanted).max() < 1e-12


def test_bounds_are_made_for_what_is_asked():
    """Queries along few axes: with a sample of them, fewer items pass the first coordinates."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20_000, 40)).astype(np.float32)
    queries = (rng.standard_normal((200, 40)) * 0.6 ** np.arange(40)).astype(np.float32)
    plain, tuned = ExactIndex().build(vectors), ExactIndex().build(vectors, queries)
    assert plain.to_state()[1]["n_prefix"] == 0
    assert tuned.to_state()[1]["n_prefix"] > 0
    hits = tuned.search(queries, 10)
    assert hits.scores.tobytes() == plain.search(queries, 10).scores.tobytes()
    again = ExactIndex.from_state(vectors, *tuned.to_state())
    assert again.to_state()[1] == tuned.to_state()[1]
    assert again.search(queries, 10).positions.tobytes() == hits.positions.tobytes()
