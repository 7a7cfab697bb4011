"""Which items and users are alike, and whom an item is for: by index, as by brute force."""

from __future__ import annotations

import copy
import functools
import gc
import math
import pickle
import threading
import weakref

import naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted import (
    FLAVOURS,
    classifier,
    clicks,
    interactions,
    regressor,
    same_answers,
    some_context,
    trained,
)
from refusals import refused
from textbook import Textbook, assert_same_list

import fmknn
from fmknn import ExactIndex, FaissIndex, FMParams, FMRanker, FMRegressor, Posterior, Recommender
from fmknn.errors import UnknownIdError

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@functools.cache
def posterior(flavour):
    estimator = FMRegressor(3, solver=fmknn.Gibbs(n_iter=6, burn_in=2), random_state=0)
    return Recommender(estimator).fit(interactions(flavour))


@functools.cache
def ranker(flavour):
    data = interactions(flavour).replace(values=None)
    return Recommender(FMRanker(3, n_iter=3, random_state=0)).fit(data)


every_model = pytest.mark.parametrize(
    "of", [trained, posterior, ranker], ids=["fm", "posterior", "ranker"]
)


def takers(data, item):
    """Positions of the users who have the item."""
    return set(data.user_index[data.item_ids == item].tolist())


def brute_lists(model, items, n, *, excluded, allowed=None, **options):
    """The n best users by the model's own scores, ties by position; a list per item."""
    users = model.users.ids
    lists = []
    for row, item in enumerate(items):
        own = {
            **options,
            "context": {
                name: levels[row] if np.ndim(levels) else levels
                for name, levels in (options.get("context") or {}).items()
            },
        }
        scores = model.scores(users, [item] * len(users), **own)
        lists.append(naive.brute_top_n(scores, n, excluded[row], allowed))
    return lists


def require_lists(top, expected):
    """The same users and the same scores, to the bit."""
    assert top.counts.tolist() == [len(best) for best in expected]
    for row, best in enumerate(expected):
        assert top.positions[row, : len(best)].tolist() == [position for position, _ in best]
        assert top.scores[row, : len(best)].tolist() == [score for _, score in best]
        assert (top.positions[row, len(best) :] == -1).all()


# --- whom an item is for -----------------------------------------------------------------------


@every_flavour
@every_model
def test_users_for_every_item(of, flavour):
    model, data = of(flavour), interactions(flavour)
    items, context = data.items.ids, some_context(flavour)
    top = model.users_for_item(items, 5, context=context)
    assert top.users.tolist() == items.tolist()
    assert top.items.tolist() == data.users.ids[top.positions].tolist()
    excluded = [takers(data, item) for item in items]
    require_lists(top, brute_lists(model, items, 5, excluded=excluded, context=context))
    flat = top.items.ravel(), np.repeat(items, 5)
    assert top.scores.ravel().tolist() == model.scores(*flat, context).tolist()
    assert top.predictions.ravel().tolist() == model.predict(*flat, context).tolist()


@every_flavour
def test_users_for_an_item_by_the_textbook(flavour):
    model, data, context = trained(flavour), interactions(flavour), some_context(flavour)
    book = Textbook(data, model.params_)
    for item in data.items.ids[[0, 20, 59]].tolist():
        scores = [book.score(user=user, item=item, **context) for user in data.users.ids.tolist()]
        top = model.users_for_item(item, 9, context=context)
        assert_same_list(top.positions[0], top.scores[0], scores, 9, takers(data, item))


@every_model
def test_contexts(of):
    model, data = of("everything"), interactions("everything")
    items = data.items.ids[:12]
    excluded = [takers(data, item) for item in items]
    days = np.array(["fri", "mon", "sun"])[np.arange(12) % 3]
    for options in (
        {"context_default": "mean"},
        {"context_default": "zero"},
        {"context": {"day": days}, "context_default": "mean"},
        {"context": {"day": days, "hour": 3}, "context_default": "raise"},
    ):
        top = model.users_for_item(items, 8, **options)
        require_lists(top, brute_lists(model, items, 8, excluded=excluded, **options))
    assert same_answers(
        model.users_for_item(items, 8), model.users_for_item(items, 8, context_default="mean")
    )


@every_model
def test_seen_excluded_and_candidates(of):
    model, data = of("features"), interactions("features")
    items, users = data.items.ids[:20], data.users.ids
    seen, nobody = [takers(data, item) for item in items], [set()] * 20
    require_lists(
        model.users_for_item(items, 99, exclude_seen=False),
        brute_lists(model, items, 99, excluded=nobody),
    )
    require_lists(model.users_for_item(items, 99), brute_lists(model, items, 99, excluded=seen))
    top = model.users_for_item(items, 4, candidates=users[5:15], exclude=users[[7, 20]])
    barred = [own | {7, 20} for own in seen]
    require_lists(top, brute_lists(model, items, 4, excluded=barred, allowed=range(5, 15)))
    top = model.users_for_item(items, 30, exclude=users[3:])
    require_lists(
        top, brute_lists(model, items, 30, excluded=[own | set(range(3, 26)) for own in seen])
    )
    for none in ({"candidates": []}, {"exclude": users}):
        top = model.users_for_item(items, 4, **none)
        assert top.counts.tolist() == [0] * 20
        assert top.positions.shape == (20, 0) and list(top) == [(item, []) for item in items]
    assert len(model.users_for_item([], 4)) == 0


def test_frames_name_what_they_hold():
    pytest.importorskip("polars")
    model = trained("features")
    item, user = model.items.ids[3], model.users.ids[2]
    for top, asked, listed in (
        (model.users_for_item(item, 2), "item", "user"),
        (model.users_for(history={user: 3.0}, n=2), "item", "user"),
        (model.similar_items(item, 2), "item", "similar_item"),
        (model.similar_users(user, 2), "user", "similar_user"),
    ):
        frame = top.to_frame("polars")
        assert frame.columns == [asked, listed, "score", "rank"]
        assert frame[listed].to_list() == top.items[0].tolist()
        assert frame[asked].to_list() == top.users.tolist() * 2


def test_a_batch_is_its_items_one_by_one():
    model, data = posterior("everything"), interactions("everything")
    items = data.items.ids
    whole = model.users_for_item(items, 6)
    for row, item in enumerate(items.tolist()):
        alone = model.users_for_item(item, 6)
        assert alone.scores.tobytes() == whole.scores[[row]].tobytes()
        assert alone.positions.tobytes() == whole.positions[[row]].tobytes()


def test_chunks_change_nothing(monkeypatch):
    model, data = trained("everything"), interactions("everything")
    whole = model.users_for_item(data.items.ids, 6)
    monkeypatch.setattr("fmknn.serving.by_index._ENTRIES_AT_ONCE", 50)
    monkeypatch.setattr("fmknn.serving.pairs._CHUNK", 7)
    assert same_answers(model.users_for_item(data.items.ids, 6), whole)


@pytest.mark.parametrize("spare", [0, 1, 16])
def test_users_who_tie_come_in_the_order_of_their_positions(monkeypatch, spare):
    monkeypatch.setattr("fmknn.serving.by_index._SPARE", spare)
    w = [0.0] * 40 + [0.0, 1.0, 2.0]
    params = FMParams(1.0, w, [[1.0]] * 40 + [[1.0], [1.0], [2.0]])
    model = Recommender.from_params(params, users=range(40), items=[7, 8, 9])
    top = model.users_for_item([7, 8, 9], 5)
    assert top.positions.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert top.scores.tolist() == [[2.0] * 5, [3.0] * 5, [5.0] * 5]


@given(
    seed=st.integers(0, 2**32 - 1),
    n_samples=st.integers(0, 3),
    bias=st.sampled_from([0.0, 1.0, 1e5]),
    step=st.sampled_from([1e-9, 1e-7, 1.0]),
    spare=st.sampled_from([0, 1, 16]),
    w0=st.sampled_from([0.0, -3.0, 1e5, 1e8]),
)
@example(seed=0, n_samples=2, bias=1.0, step=1e-7, spare=0, w0=0.0)
@example(seed=0, n_samples=0, bias=0.0, step=1e-9, spare=1, w0=1e8)
@settings(max_examples=40, deadline=None)
def test_rounding_puts_nobody_in_another_place(seed, n_samples, bias, step, spare, w0):
    """Users who are nearly the same, far from 0: the index can't tell them apart, scores can."""
    rng = np.random.default_rng(seed)
    shape = (n_samples,) if n_samples else ()
    w = rng.normal(size=(*shape, 65))
    w[..., :60] = bias + step * rng.integers(0, 3, size=(*shape, 60))
    V = rng.normal(size=(*shape, 65, 3))
    V[..., 1:60, :] = V[..., :1, :] + step * rng.integers(0, 3, size=(*shape, 59, 3))
    made = Posterior if n_samples else FMParams
    model = Recommender.from_params(
        made(np.full(shape, w0) if n_samples else w0, w, V), users=range(60), items=range(5)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmknn.serving.by_index._SPARE", spare)
        top = model.users_for_item(range(5), 4)
    require_lists(top, brute_lists(model, range(5), 4, excluded=[set()] * 5))


def test_an_intercept_that_dwarfs_the_differences():
    rng = np.random.default_rng(10)
    w = np.r_[1e-5 + rng.normal(size=300) * 1e-12, rng.normal() * 1e-5]
    params = FMParams(1e5, w, np.zeros((301, 1)))
    model = Recommender.from_params(params, users=range(300), items=[0])
    assert model.users_for_item(0, 3).positions.tolist() == [[0, 1, 2]]  # to the bit they tie
    require_lists(model.users_for_item(0, 3), brute_lists(model, [0], 3, excluded=[set()]))


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n": 0}, ValueError, ["n must", "0"]),
        ({"exclude_seen": "no"}, ValueError, ["exclude_seen", "'no'"]),
        ({"unknown": "cold"}, ValueError, ["unknown", "'cold'"]),
        ({"candidates": [-1]}, UnknownIdError, ["user", "-1"]),
        ({"exclude": [-1]}, UnknownIdError, ["user", "-1"]),
        ({"exclude": ["a"]}, TypeError, ["user ids"]),
        ({"items": [-1]}, UnknownIdError, ["item", "-1"]),
        ({"items": None}, TypeError, ["item ids"]),
        ({"context": {"month": 3}}, ValueError, ["month"]),
        ({"context": {"day": "tue"}}, UnknownIdError, ["day", "'tue'"]),
        ({"context": {"day": ["fri", "sun"]}}, ValueError, ["day", "2"]),
        ({"context_default": "raise"}, ValueError, ["day", "missing"]),
        ({"context_default": "none"}, ValueError, ["context_default", "'none'"]),
    ],
)
def test_refusals(options, error, words):
    data = interactions("everything")
    with refused(error, *words):
        trained("everything").users_for_item(**{"items": data.items.ids[:3], **options})


def test_unknown_ids_are_left_out_when_asked_to():
    model, data = trained("everything"), interactions("everything")
    items, users = data.items.ids[:3].tolist(), data.users.ids[:9].tolist()
    days = ["fri", "mon", "sun"]
    top = model.users_for_item(
        [-1, *items, -2],
        4,
        context={"day": ["fri", *days, "sun"]},
        candidates=[-5, *users],
        exclude=[-6, users[2]],
        unknown="skip",
    )
    expected = model.users_for_item(
        items, 4, context={"day": days}, candidates=users, exclude=users[2:3]
    )
    assert same_answers(top, expected)


def test_predictions_of_a_classifier_and_of_short_lists():
    model = Recommender(classifier()).fit(clicks())
    items = model.items.ids[:8]
    top = model.users_for_item(items, 99)
    assert len(set(top.counts.tolist())) > 1
    for row, (item, count) in enumerate(zip(items, top.counts, strict=True)):
        expected = model.predict(top.items[row, :count].astype(int), [item] * count)
        assert top.predictions[row, :count].tolist() == expected.tolist()
        assert np.isnan(top.predictions[row, count:]).all()


# --- which are alike ---------------------------------------------------------------------------


def vectors_of(data, params, block):
    """The vectors of all samples side by side, by the formula."""
    rows = Textbook(data, next(params.samples())).rows[block]
    return [
        [
            sum(x * float(fm.V[column, f]) for column, x in row)
            for fm in params.samples()
            for f in range(fm.n_factors)
        ]
        for row in rows
    ]


@every_flavour
@every_model
@pytest.mark.parametrize("side", ["user", "item"])
def test_the_largest_cosines(of, flavour, side):
    model, data = of(flavour), interactions(flavour)
    ids = data.users.ids if side == "user" else data.items.ids
    vectors = vectors_of(data, model.params_, side)
    norms = [math.hypot(*vector) or 1.0 for vector in vectors]
    top = (model.similar_users if side == "user" else model.similar_items)(ids[:20], 7)
    assert top.users.tolist() == ids[:20].tolist()
    assert top.items.tolist() == ids[top.positions].tolist()
    for row in range(20):
        cosines = [
            naive.dot(vectors[row], other) / (norms[row] * norm)
            for other, norm in zip(vectors, norms, strict=True)
        ]
        assert_same_list(top.positions[row], top.scores[row], cosines, 7, [row])
    assert top.predictions.tobytes() == top.scores.tobytes()


def test_similar_users_of_one_and_of_unknown_ones():
    model = trained()
    user = int(model.users.ids[3])
    alone = model.similar_users([user], 4)
    assert same_answers(model.similar_users(user, 4), alone)
    assert same_answers(model.similar_users([-1, user], 4, unknown="skip"), alone)
    with refused(UnknownIdError, "user", "-1"):
        model.similar_users([user, -1])
    with refused(TypeError, "user"):
        model.similar_users([str(user)])
    with refused(ValueError, "n must", "0"):
        model.similar_users(user, 0)
    assert model.similar_users(model.users.ids, 1000).counts.tolist() == [25] * 26


def test_a_model_without_factors():
    model = Recommender(FMRegressor(0, solver="als", random_state=0)).fit(interactions())
    top = model.similar_users(model.users.ids[:2], 5)
    assert top.scores.tolist() == [[0.0] * 5] * 2
    items = model.items.ids
    lists = brute_lists(model, items, 5, excluded=[takers(interactions(), i) for i in items])
    require_lists(model.users_for_item(items, 5), lists)


def test_nobody_else():
    data = fmknn.Interactions.from_arrays([1, 1], [1, 2], [1.0, 2.0])
    model = Recommender(FMRegressor(2, n_iter=2, random_state=0)).fit(data)
    assert list(model.similar_users(1, 3)) == [(1, [])]
    assert list(model.users_for_item(1, 3)) == [(1, [])]


# --- by index ----------------------------------------------------------------------------------


@functools.cache
def many_users():
    """More users than items, so that an index of the model's kind is over them."""
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=400, n_items=60, n_ratings=4000, n_factors=4, context=3, random_state=0
    )
    estimator = FMRegressor(4, solver=fmknn.Gibbs(n_iter=8, burn_in=4), random_state=0)
    return Recommender(estimator).fit(ratings)


def asked_of(model):
    return (
        model.users_for_item(model.items.ids, 10),
        model.users_for_item(model.items.ids, 10, context_default="zero"),
        model.similar_items(model.items.ids, 5),
        model.similar_users(model.users.ids, 5),
    )


@pytest.mark.parametrize(
    "index",
    [
        "flat",
        FaissIndex("IVF", nlist=5, nprobe=5),
        ExactIndex(compress=17),
        FaissIndex("IVF", target_recall=1.0, nlist=5),
    ],
    ids=["flat", "ivf", "compress", "tuned"],
)
def test_an_index_that_looks_everywhere_gives_the_same_lists(index):
    other = many_users().with_index(index)
    for found, expected in zip(asked_of(other), asked_of(many_users()), strict=True):
        assert same_answers(found, expected)


@pytest.mark.parametrize(
    "index",
    ["ivf", FaissIndex("IVF", nlist=20, nprobe=1), FaissIndex("HNSW"), ExactIndex(compress=2)],
    ids=["ivf", "one cell", "hnsw", "compress"],
)
def test_an_approximate_index_gives_no_wrong_score(index):
    model = many_users().with_index(index)
    items, seen = model.items.ids, model.catalog_.seen.pairs()
    top = model.users_for_item(items, 10)
    pairs = top.items.ravel(), np.repeat(items, 10)
    assert top.counts.tolist() == [10] * len(items)
    assert top.scores.ravel().tolist() == model.scores(*pairs, context_default="mean").tolist()
    assert not model.seen_pairs(*pairs).any() and len(seen[0])
    assert (np.diff(top.scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in top.positions.tolist())
    exact = many_users().users_for_item(items, 10)
    shared = [len({*a} & {*b}) for a, b in zip(top.positions, exact.positions, strict=True)]
    assert np.mean(shared) > 5


class Counting(ExactIndex):
    """Says how often it was built, and by whom."""

    built: list = []  # noqa: RUF012 - shared by all copies, on purpose

    def build(self, vectors, queries=None):
        self.built.append(np.shape(vectors))
        return super().build(vectors, queries)


def test_indexes_are_built_once_and_when_they_are_needed(monkeypatch):
    monkeypatch.setattr(Counting, "built", [])
    model = Recommender(regressor(), index=Counting()).fit(interactions())
    model.recommend(model.users.ids[:3])
    assert Counting.built == [(60, 6)]
    first = []
    barrier = threading.Barrier(4)

    def ask():
        barrier.wait()
        first.append(model.similar_items(model.items.ids, 3))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counting.built == [(60, 6), (60, 6)]
    assert all(same_answers(top, first[0]) for top in first)
    assert len(first) == 4


def test_they_go_with_the_model(monkeypatch):
    monkeypatch.setattr(Counting, "built", [])
    model = Recommender(regressor(), index=Counting()).fit(interactions())
    before = asked_of(model)
    model.fit(interactions("features"))
    built = len(Counting.built)
    for found, expected in zip(asked_of(model), asked_of(trained("features")), strict=True):
        assert same_answers(found, expected)
    assert len(Counting.built) > built
    model.fit(interactions())
    for found, expected in zip(asked_of(model), before, strict=True):
        assert same_answers(found, expected)
    built = len(Counting.built)
    asked_of(model)
    assert len(Counting.built) == built
    other = model.with_index("exact")
    for found, expected in zip(asked_of(other), before, strict=True):
        assert same_answers(found, expected)


def test_indexes_do_not_outlive_their_model():
    model = Recommender(regressor()).fit(interactions())
    for change in (
        lambda: model.fit(interactions("features")),
        lambda: model.add_items([-1]),
        lambda: model.partial_fit(fmknn.Interactions.from_arrays([-1], [-2], [3.0])),
    ):
        model.fit(interactions())
        asked_of(model)
        kept = weakref.ref(model._related._once("users", lambda: None).index)
        assert kept() is not None
        change()
        gc.collect()
        assert kept() is None


def test_indexes_are_not_part_of_copies():
    model = Recommender(regressor()).fit(interactions())
    size = len(pickle.dumps(model))
    asked_of(model)
    assert len(pickle.dumps(model)) == size
    for other in (copy.copy(model), copy.deepcopy(model)):
        assert vars(other).keys() == vars(model).keys() - {"_related_kept"}


@pytest.mark.parametrize("how", ["pickle", "copy", "file"])
def test_a_copy_answers_the_same(how, tmp_path):
    model = posterior("features")
    expected = asked_of(model)
    if how == "file":
        model.save(tmp_path / "model.fmknn")
        other = fmknn.load(tmp_path / "model.fmknn")
    else:
        other = pickle.loads(pickle.dumps(model)) if how == "pickle" else copy.deepcopy(model)
    for found, same in zip(asked_of(other), expected, strict=True):
        assert same_answers(found, same)


def test_an_index_that_searches_elsewhere_is_not_asked(monkeypatch):
    class Elsewhere(Counting):
        def local(self):
            return self

    monkeypatch.setattr(Counting, "built", [])
    model = many_users()
    away = model.with_index(Elsewhere())
    for found, expected in zip(asked_of(away), asked_of(model), strict=True):
        assert same_answers(found, expected)
    assert len(Counting.built) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.users_for_item([1]),
        lambda model: model.similar_users([1]),
        lambda model: model.similar_items([1]),
    ],
)
def test_before_fit(call):
    with refused(ValueError, "not fitted"):
        call(Recommender())
