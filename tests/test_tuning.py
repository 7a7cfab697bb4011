"""An index that tunes itself finds as much of other users' lists, or says that it does not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import same_answers, trained
from refusals import refused

import fmknn
from fmknn import FaissIndex, Recommender
from fmknn.index.base import Hits, ItemLists
from fmknn.index.recall import recalls
from fmknn.index.tuning import RecallWarning, Tuning, sampled, tune
from fmknn.model import storage

KINDS = ["IVF", "IVFPQ", "HNSW", "SQ8", "IVF40,SQ4", "HNSW16,SQ8"]


def topics(rng, n_rows, dim=12, n_topics=60):
    """Rows [q, 1] or [q, b] near some of the topics, of different lengths."""
    centres = np.random.default_rng(99).normal(size=(n_topics, dim))
    near = centres[rng.integers(0, n_topics, n_rows)] + 0.6 * rng.normal(size=(n_rows, dim))
    return near * rng.lognormal(sigma=0.3, size=(n_rows, 1))


def planted(n_items=4000, n_users=900):
    rng = np.random.default_rng(0)
    items = np.column_stack([topics(rng, n_items), rng.normal(size=n_items)])
    users = np.column_stack([topics(rng, n_users), np.ones(n_users)])
    return items.astype(np.float32), users[: n_users // 2], users[n_users // 2 :]


# --- the share that was found ------------------------------------------------------------------


def brute_recall(found, exact_scores, n):
    """By the definition: items found that score at least as much as the n-th best."""
    best = sorted(exact_scores, reverse=True)[:n]
    return sum(score >= best[-1] for score in found) / len(best) if best else 1.0


@given(
    scores=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    n=st.integers(1, 8),
    data=st.data(),
)
def test_recall_counts_equal_scores_as_found(scores, n, data):
    size = min(n, len(scores))
    order = data.draw(st.permutations(range(len(scores))))[:size]
    found = sorted((float(scores[item]) for item in order), reverse=True)
    exact = sorted(map(float, scores), reverse=True)[:size]
    hits = [
        Hits(np.zeros((1, size), np.int32), np.array([row]), np.array([size], np.int32))
        for row in (found, exact)
    ]
    assert recalls(*hits).tolist() == [brute_recall(found, scores, n)]


def test_of_an_empty_list_everything_was_found():
    assert recalls(Hits.empty(2, 3), Hits.empty(2, 3)).tolist() == [1.0, 1.0]
    assert recalls(Hits.empty(2, 0), Hits.empty(2, 0)).tolist() == [1.0, 1.0]


def test_recall_against_an_exact_index():
    items, users, _ = planted(800)
    exact = FaissIndex("Flat").build(items)
    index = FaissIndex("IVF", nlist=40, nprobe=2).build(items)
    exclude = ItemLists.from_pairs(np.arange(450), np.arange(450), 450)
    for options in ({}, {"exclude": exclude}, {"candidates": np.arange(0, 800, 2)}):
        found = index.search(users, 20, **options).positions.tolist()
        wanted = exact.search(users, 20, **options).positions.tolist()
        share = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found, wanted, strict=True)])
        assert index.recall_against(exact, users, 20, **options) == pytest.approx(share, abs=1e-12)
        assert 0.1 < share < 1
    assert exact.recall_against(exact, users) == 1.0
    assert (
        FaissIndex("Flat")
        .build(np.ones((9, 13)))
        .recall_against(FaissIndex("Flat").build(np.ones((9, 13))), users)
        == 1.0
    )


def test_recall_that_can_not_be_measured():
    items, users, _ = planted(200)
    index = FaissIndex("IVF").build(items)
    with refused(ValueError, "other vectors"):
        index.recall_against(FaissIndex("Flat").build(items[:-1]), users)
    with refused(ValueError, "other vectors"):
        index.recall_against(FaissIndex("Flat").build(items + 1), users)
    with refused(ValueError, "no rows"):
        index.recall_against(FaissIndex("Flat").build(items), users[:0])


# --- the target --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_other_users_get_what_was_asked_for(kind):
    items, users, others = planted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = FaissIndex(kind, target_recall=0.9, n_jobs=2).build(items, users)
    exact = FaissIndex("Flat").build(items)
    for n in (10, 100):
        assert index.recall_against(exact, others, n) >= 0.9
    tuning = index.tuning_
    assert tuning.reached and tuning.n == (10, 100) and tuning.n_queries == len(users)
    assert tuning.users_per_second > 0
    again = [index.recall_against(exact, users, n) for n in tuning.n]
    assert tuning.recall == pytest.approx(min(again), abs=1e-12)


@pytest.mark.parametrize("kind", ["IVF", "HNSW"])
def test_a_higher_target_costs_more(kind):
    items, users, _ = planted()
    (name,), found = {"IVF": ["nprobe"], "HNSW": ["ef_search"]}[kind], []
    for target in (0.3, 0.9, 0.99):
        tuning = FaissIndex(kind, target_recall=target).build(items, users).tuning_
        assert set(tuning.parameters) == {name} and tuning.recall >= target
        found.append(tuning.parameters[name])
    assert found[0] < found[2] and found == sorted(found)


def test_everything_is_found_in_all_cells():
    items, users, others = planted(1500)
    index = FaissIndex("IVF", nlist=20, target_recall=1.0).build(items, users)
    assert index.recall_against(FaissIndex("Flat").build(items), others, 50) > 0.99
    exact = FaissIndex("Flat", target_recall=1).build(items, users)
    assert exact.tuning_.parameters == {} and exact.tuning_.recall == 1.0


def test_the_same_sample_gives_the_same_parameters():
    items, users, _ = planted(2500)
    built = [
        FaissIndex("IVF", target_recall=0.9, n_jobs=n_jobs).build(items, users)
        for n_jobs in (1, 2, None)
    ]
    assert len({str(index.tuning_.parameters) for index in built}) == 1
    assert len({index.tuning_.recall for index in built}) == 1


def test_where_no_setting_reaches_it_one_is_told():
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(6000, 30)), rng.normal(size=(200, 30))
    spoiled = FaissIndex("PCA2,SQ8", target_recall=0.99)
    with pytest.warns(RecallWarning) as caught:
        index = spoiled.build(items, users)
    (warning,) = caught
    message = str(warning.message)
    assert warning.filename == __file__ and "\n" not in message
    for word in ("PCA2,SQ8", "0.99", f"{index.tuning_.recall:.4f}", "overfetch=", "200 queries"):
        assert word in message
    assert not index.tuning_.reached and index.tuning_.recall < 0.99
    assert (index.search(users, 10).counts == 10).all()


def test_the_margin_is_wider_for_fewer_queries():
    """Of the same shares: 0.96 on average is surely 0.95 for many queries, not for few."""
    shares = np.array([1.0, 0.92])

    def tuned(n_queries):
        def lists(found):
            scores = np.where(np.arange(100) < 100 * np.resize(found, n_queries)[:, None], 1.0, 0.0)
            return Hits(np.zeros((n_queries, 100), np.int32), scores, np.full(n_queries, 100))

        return tune(
            lambda parameters, n: lists(shares),
            lambda n: lists(np.ones(1)),
            {"nprobe": 3},
            lambda parameters, n: parameters["nprobe"],
            0.95,
            100,
        )

    assert tuned(1000).reached and tuned(1000).parameters == {"nprobe": 1}
    assert not tuned(10).reached


def test_the_cheapest_of_two_parameters_is_found():
    """Recall is the share of a·b in 100, so that the cheapest pair is known by trying all."""

    def lists(n_found):
        scores = (np.arange(100) < n_found).astype(np.float64)
        return Hits(np.zeros((4, 100), np.int32), np.tile(scores, (4, 1)), np.full(4, 100))

    def work(parameters, n):
        return 5.0 * parameters["overfetch"] + parameters["nprobe"]

    tuning = tune(
        lambda p, n: lists(min(100, p["overfetch"] * p["nprobe"])),
        lambda n: lists(100),
        {"overfetch": 8, "nprobe": 64},
        work,
        0.8,
        100,
    )
    # of the values tried: 1, 2, 4, 8 and nprobe in steps of a fourth of a doubling
    nprobes = sorted({round(2 ** (step / 4)) for step in range(25)})
    pairs = [(a, b) for a in (1, 2, 4, 8) for b in nprobes if a * b >= 80]
    assert tuple(tuning.parameters.values()) == min(pairs, key=lambda pair: 5 * pair[0] + pair[1])


def test_a_thousand_of_many_queries_are_tried_evenly():
    queries = np.arange(5000.0)[:, None]
    taken = sampled(queries, 0.9)[:, 0]
    assert len(taken) == 1000 and taken[0] == 0 and taken[-1] == 4999
    assert set(np.diff(taken)) <= {4, 5, 6}


@pytest.mark.parametrize("queries", [None, np.empty((0, 13))])
def test_a_target_needs_queries(queries):
    items, _, _ = planted(100)
    with refused(ValueError, "target_recall=0.95", "build(vectors, queries)"):
        FaissIndex("IVF", target_recall=0.95).build(items, queries)


# --- kept, added to, behind a recommender ------------------------------------------------------


@pytest.mark.parametrize("kind", ["IVF", "HNSW", "IVFPQ"])
def test_what_was_tuned_is_saved_and_survives_additions(kind, tmp_path):
    items, users, others = planted(1500)
    index = FaissIndex(kind, target_recall=0.8).build(items[:1400], users).add(items[1400:])
    storage.save(tmp_path / "index.fmknn", *index.to_state())
    loaded = FaissIndex.from_state(items, *storage.load(tmp_path / "index.fmknn"))
    assert loaded.tuning_ == index.tuning_ and loaded.target_recall == 0.8
    a, b = (one.search(others, 20) for one in (index, loaded))
    assert a.positions.tobytes() == b.positions.tobytes()
    assert a.scores.tobytes() == b.scores.tobytes()


def tuned_state():
    items, users, _ = planted(300)
    return items, *FaissIndex("IVF", target_recall=0.8).build(items, users).to_state()


@pytest.mark.parametrize(
    "name, value",
    [
        ("recall", 1.5),
        ("recall", "1"),
        ("recall", float("nan")),
        ("users_per_second", -1),
        ("users_per_second", None),
        ("parameters", {}),
        ("parameters", []),
        ("parameters", {"nprobe": 0}),
        ("parameters", {"nprobe": 10**9}),
        ("parameters", {"nprobe": 1.0}),
        ("parameters", {"nprobe": True}),
        ("parameters", {"nprobe": 1, "overfetch": 2}),
        ("parameters", {"ef_search": 5}),
        ("n_queries", 0),
        ("n", [10, "100"]),
        ("n", 10),
        ("reached", 1),
        ("another", 1),
    ],
)
def test_a_saved_tuning_that_does_not_fit_is_refused(name, value):
    items, arrays, metadata = tuned_state()
    with refused(ValueError):
        FaissIndex.from_state(
            items, arrays, {**metadata, "tuning": {**metadata["tuning"], name: value}}
        )


@pytest.mark.parametrize("tuning", [None, [], "x", 3, {}])
def test_a_target_and_what_was_tuned_go_together(tuning):
    items, arrays, metadata = tuned_state()
    with refused(ValueError, "tun"):
        FaissIndex.from_state(items, arrays, {**metadata, "tuning": tuning})
    with refused(ValueError, "target_recall"):
        FaissIndex.from_state(items, arrays, {**metadata, "target_recall": None})


def test_a_tuning_is_not_changed():
    tuning = Tuning(1.0, 5.0, {"nprobe": 3}, 9, (10,), True)
    assert Tuning.from_state(tuning.to_state()) == tuning
    with pytest.raises(AttributeError):
        tuning.recall = 0.5


def test_a_recommender_tunes_on_its_users(tmp_path):
    index = FaissIndex("IVF", nlist=6, target_recall=0.7)
    assert index.tunes_on_queries and not FaissIndex("IVF").tunes_on_queries
    model = trained("everything").with_index(index)
    assert model.index_.tuning_.n_queries == 3 * len(model.users)
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    assert loaded.index_.tuning_ == model.index_.tuning_
    asked = {"n": 5, "context": {"day": "mon", "hour": 1}}
    users = model.users.ids
    assert same_answers(loaded.recommend(users, **asked), model.recommend(users, **asked))
    assert isinstance(loaded, Recommender)
