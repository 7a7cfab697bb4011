"""The whole road on small data: ids in, the lists and numbers of the textbook formula out."""

from __future__ import annotations

import json
import math
import os

import naive
import numpy as np
import pytest
from planted import (
    DAYS,
    FLAVOURS,
    classifier,
    clicks,
    interactions,
    regressor,
    same_answers,
    some_context,
    textbook,
    trained,
)
from refusals import refused
from textbook import assert_same_list

import fmknn
from fmknn import ExactIndex, FaissIndex, FMRegressor, Interactions, Recommender
from fmknn.errors import ModelFileError, UnknownIdError

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


def all_users(flavour="ids"):
    return interactions(flavour).users.ids.tolist()


def positions_of(items, flavour="ids"):
    places = {item: place for place, item in enumerate(interactions(flavour).items.ids.tolist())}
    return [places[item] for item in items]


def lists_of(top):
    return [top.positions[row, :count].tolist() for row, count in enumerate(top.counts)]


# --- recommend is the textbook, ranked ---------------------------------------------------------


@every_flavour
@pytest.mark.parametrize("n", [1, 10, 100])
def test_everybodys_list_is_the_textbooks(flavour, n):
    book, users, context = textbook(flavour), all_users(flavour), some_context(flavour)
    top = trained(flavour).recommend(users, n, context=context)
    assert top.users.tolist() == users
    for row, user in enumerate(users):
        count = top.counts[row]
        scores = book.item_scores(user=user, **context)
        assert_same_list(
            top.positions[row, :count], top.scores[row, :count], scores, n, book.seen(user)
        )
        assert (
            top.items[row, :count].tolist()
            == book.data.items.ids[top.positions[row, :count]].tolist()
        )


@every_flavour
def test_scores_of_all_pairs_are_the_textbooks(flavour):
    book, users, context = textbook(flavour), all_users(flavour), some_context(flavour)
    items = book.data.items.ids.tolist()
    pairs = [(user, item) for user in users for item in items]
    got = trained(flavour).scores(*map(list, zip(*pairs, strict=True)), context=context)
    expected = [book.score(user=user, item=item, **context) for user, item in pairs]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("day", DAYS)
def test_the_context_counts(day):
    users = all_users("context")
    top = trained("context").recommend(users, 5, context={"day": day})
    for row, user in enumerate(users):
        scores = textbook("context").item_scores(user=user, day=day)
        assert_same_list(
            top.positions[row], top.scores[row], scores, 5, textbook("context").seen(user)
        )


def test_a_context_for_each_user():
    model, users = trained("everything"), all_users("everything")[:6]
    days, hours = ["sun", "mon", "fri", "fri", "sun", "mon"], np.array([0, 1, 2, 3, 0, 1])
    together = model.recommend(users, 4, context={"day": days, "hour": hours})
    for row, user in enumerate(users):
        alone = model.recommend([user], 4, context={"day": days[row], "hour": int(hours[row])})
        assert together.positions[row].tolist() == alone.positions[0].tolist()
        assert together.scores[row].tobytes() == alone.scores[0].tobytes()


def test_a_single_id_is_a_list_of_one():
    user = all_users()[3]
    assert same_answers(trained().recommend(user, 5), trained().recommend([user], 5))
    name = all_users("strings")[3]
    assert same_answers(
        trained("strings").recommend(name, 5), trained("strings").recommend([name], 5)
    )


def test_users_may_repeat_and_come_in_any_order():
    users = all_users()
    asked = [users[4], users[1], users[4]]
    top = trained().recommend(asked, 5)
    assert top.users.tolist() == asked
    assert top.positions[0].tolist() == top.positions[2].tolist()
    assert lists_of(trained().recommend(users[4], 5))[0] == lists_of(top)[0]


def test_nobody_asks():
    top = trained().recommend([], 5)
    assert len(top) == 0
    assert list(top) == []


def test_string_ids_come_back_as_strings():
    model = trained("strings")
    top = model.recommend(all_users("strings")[:2], 3)
    for user, pairs in top:
        assert type(user) is str and user.startswith("user ")
        assert all(type(item) is str and item.startswith("item ") for item, _ in pairs)
    similar = model.similar_items(model.items.ids[:1], 2)
    assert similar.users.tolist() == model.items.ids[:1].tolist()


def test_every_kind_of_index_gives_exact_scores():
    users = all_users()
    exact = trained().recommend(users, 10)
    for index in ("flat", FaissIndex("Flat"), FaissIndex("IVF", nlist=2, nprobe=2)):
        other = trained().with_index(index)
        assert isinstance(other.index_, FaissIndex)
        assert same_answers(other.recommend(users, 10), exact)
    narrow = trained().with_index(FaissIndex("IVF", nlist=6, nprobe=1)).recommend(users, 10)
    assert narrow.counts.tolist() == exact.counts.tolist()
    scores = trained().scores(np.repeat(users, 10), narrow.items.ravel())
    assert scores.tobytes() == narrow.scores.tobytes()


def test_with_index_leaves_the_model_as_it_was():
    model = Recommender(regressor()).fit(interactions())
    before = model.index_
    other = model.with_index(FaissIndex("IVF", nlist=2))
    assert model.index_ is before
    assert (type(before), other.index_.kind) == (ExactIndex, "IVF")


@pytest.mark.parametrize("name, kind", [("exact", None), ("flat", "Flat"), ("ivf", "IVF")])
def test_an_index_by_name_from_the_start(name, kind):
    model = Recommender(regressor(), index=name).fit(interactions())
    assert getattr(model.index_, "kind", None) == kind
    top = model.recommend(all_users(), 4)
    assert (
        top.scores.tobytes() == model.scores(np.repeat(all_users(), 4), top.items.ravel()).tobytes()
    )


# --- what may not be in a list -----------------------------------------------------------------


def test_seen_items_may_come_back_when_wished():
    users = all_users()
    top = trained().recommend(users, 100, exclude_seen=False)
    assert top.counts.tolist() == [60] * len(users)
    for row, user in enumerate(users):
        assert_same_list(
            top.positions[row], top.scores[row], textbook().item_scores(user=user), 100
        )


def test_a_long_list_has_all_that_is_left():
    users = all_users()
    top = trained().recommend(users, 1000)
    assert top.counts.tolist() == [60 - len(textbook().seen(user)) for user in users]
    for positions, user in zip(lists_of(top), users, strict=True):
        assert set(positions) == set(range(60)) - textbook().seen(user)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_exclude(exclude_seen):
    users, items = all_users()[:4], interactions().items.ids
    exclude = {
        users[0]: items[:30],
        users[2]: [int(items[5])],
        users[3]: int(items[6]),
        all_users()[9]: items,
    }
    top = trained().recommend(users, 12, exclude=exclude, exclude_seen=exclude_seen)
    for row, user in enumerate(users):
        out = set(positions_of(np.atleast_1d(exclude.get(user, [])).tolist()))
        out |= textbook().seen(user) if exclude_seen else set()
        scores = textbook().item_scores(user=user)
        count = top.counts[row]
        assert_same_list(top.positions[row, :count], top.scores[row, :count], scores, 12, out)


@pytest.mark.parametrize("size", [0, 1, 5, 40, 60])
def test_candidates(size):
    users = all_users()
    chosen = np.random.default_rng(size).permutation(interactions().items.ids)[:size].tolist()
    top = trained().recommend(users, 8, candidates=chosen)
    for row, user in enumerate(users):
        count = top.counts[row]
        scores = textbook().item_scores(user=user)
        assert_same_list(
            top.positions[row, :count],
            top.scores[row, :count],
            scores,
            8,
            textbook().seen(user),
            positions_of(chosen),
        )


def test_all_candidates_excluded():
    user, items = all_users()[0], interactions().items.ids[:5].tolist()
    top = trained().recommend([user], 8, candidates=items, exclude={user: items})
    assert list(top) == [(user, [])]


# --- predict and scores ------------------------------------------------------------------------


@every_flavour
def test_predict_says_what_the_list_says_to_the_bit(flavour):
    model, users, context = trained(flavour), all_users(flavour), some_context(flavour)
    top = model.recommend(users, 10, context=context)
    pairs = np.repeat(users, 10), top.items.ravel()
    assert model.predict(*pairs, context=context).tobytes() == top.predictions.tobytes()
    assert model.scores(*pairs, context=context).tobytes() == top.scores.tobytes()


def test_predictions_stay_in_the_range_of_the_ratings():
    data = interactions()
    top = trained().recommend(all_users(), 60, exclude_seen=False)
    assert top.scores.min() < 1 and top.scores.max() > 5  # else there is nothing to clip
    np.testing.assert_array_equal(top.predictions, np.clip(top.scores, 1, 5))
    assert (data.values.min(), data.values.max()) == (1, 5)


def test_predict_agrees_with_the_estimator():
    data = interactions("everything")
    model = trained("everything")
    context = {name: column.ids.ids[column.index] for name, column in data.context.items()}
    got = model.predict(data.user_ids, data.item_ids, context=context)
    np.testing.assert_allclose(got, model.estimator_.predict(data), atol=1e-5)


def test_a_batch_of_pairs_equals_its_pairs():
    users, items = interactions().user_ids[:50], interactions().item_ids[:50]
    alone = [trained().predict([u], [i])[0] for u, i in zip(users, items, strict=True)]
    assert np.array(alone).tobytes() == trained().predict(users, items).tobytes()


def test_no_pairs():
    assert trained().predict([], []).shape == (0,)


def test_cold_pairs_score_by_what_is_known():
    model, book = trained("context"), textbook("context")
    user, item = all_users("context")[0], int(book.data.items.ids[0])
    got = model.scores(
        [user, 1, 1, user],
        [2, item, 2, item],
        {"day": ["mon", "mon", "sun", "new"]},
        unknown="cold",
    )
    expected = [
        book.score(user=user, day="mon"),
        book.score(item=item, day="mon"),
        book.score(day="sun"),
        book.score(user=user, item=item),
    ]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_unknown_pairs_raise():
    user, item = all_users()[0], int(interactions().items.ids[0])
    with refused(UnknownIdError, "user", "1"):
        trained().predict([1], [item])
    with refused(UnknownIdError, "item", "2"):
        trained().predict([user], [2])


@pytest.mark.parametrize("method", ["predict", "scores"])
def test_bad_pairs_are_refused(method):
    call = getattr(trained(), method)
    user, item = all_users()[0], int(interactions().items.ids[0])
    with refused(ValueError, "2 users", "1 items"):
        call([user, user], [item])
    with refused(ValueError, "skip"):
        call([user], [item], unknown="skip")
    with refused(ValueError, "unknown", "'bogus'"):
        call([user], [item], unknown="bogus")
    with refused(TypeError, "item"):
        call([user], [str(item)])
    with refused(TypeError, "user"):
        call([1.5], [item])


def test_a_classifier_gives_probabilities():
    model = Recommender(classifier()).fit(clicks())
    users = all_users()
    top = model.recommend(users, 10)
    assert ((top.predictions > 0) & (top.predictions < 1)).all()
    for score, probability in zip(top.scores.ravel(), top.predictions.ravel(), strict=True):
        assert probability == pytest.approx(naive.sigmoid(score), abs=1e-12)
    pairs = np.repeat(users, 10), top.items.ravel()
    assert model.predict(*pairs).tobytes() == top.predictions.tobytes()
    data = clicks()
    np.testing.assert_allclose(
        model.predict(data.user_ids, data.item_ids),
        model.estimator_.predict_proba(data)[:, 1],
        atol=1e-6,
    )


# --- unknown users, contexts left out ----------------------------------------------------------


def test_unknown_users_raise_by_default():
    with refused(UnknownIdError, "user", "1", "1 more"):
        trained().recommend([all_users()[0], 1, 2], 5)


def test_unknown_users_can_be_skipped():
    users = all_users()[:3]
    top = trained().recommend([1, users[0], 2, users[1], users[2]], 5, unknown="skip")
    assert same_answers(top, trained().recommend(users, 5))
    assert len(trained().recommend([1, 2], 5, unknown="skip")) == 0


def test_unknown_users_can_be_served_cold():
    top = trained("context").recommend(
        [1, all_users("context")[0]], 60, context={"day": "mon"}, unknown="cold"
    )
    assert top.users.tolist() == [1, all_users("context")[0]]
    assert_same_list(
        top.positions[0], top.scores[0], textbook("context").item_scores(day="mon"), 60
    )
    known = trained("context").recommend(all_users("context")[0], 60, context={"day": "mon"})
    assert lists_of(top)[1] == lists_of(known)[0]


def test_a_user_without_training_rows_is_known():
    rated = set(interactions().user_ids.tolist())
    silent = [user for user in all_users() if user not in rated]
    assert len(silent) == 2
    assert trained().recommend(silent, 100).counts.tolist() == [60, 60]
    assert trained().n_training_rows([*silent, 1]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("option", ["candidates", "exclude"])
def test_unknown_items(option):
    user, items = all_users()[0], interactions().items.ids[:3].tolist()
    wrap = (lambda asked: asked) if option == "candidates" else (lambda asked: {user: asked})
    with refused(UnknownIdError, "item", "-4"):
        trained().recommend([user], 5, **{option: wrap([*items, -4])})
    lenient = trained().recommend([user], 5, **{option: wrap([*items, -4])}, unknown="skip")
    assert same_answers(lenient, trained().recommend([user], 5, **{option: wrap(items)}))


def test_a_context_left_out_is_an_error_that_names_it():
    for call in (
        lambda: trained("everything").recommend(
            all_users("everything")[:1], context={"day": "mon"}
        ),
        lambda: trained("everything").predict([all_users("everything")[0]], [5], {"day": "mon"}),
    ):
        with refused(ValueError, "'hour'", "missing"):
            call()


def test_a_context_left_out_as_zero():
    user = all_users("context")[2]
    top = trained("context").recommend([user], 60, context_default="zero", exclude_seen=False)
    assert_same_list(
        top.positions[0], top.scores[0], textbook("context").item_scores(user=user), 60
    )


@pytest.mark.parametrize("flavour, given", [("context", {}), ("everything", {"hour": 3})])
def test_a_context_left_out_as_mean_over_the_training_rows(flavour, given):
    user, book = all_users(flavour)[2], textbook(flavour)
    top = trained(flavour).recommend(
        [user], 60, context=given, context_default="mean", exclude_seen=False
    )
    column = book.data.context["day"]
    share = np.bincount(column.index) / len(column.index)
    by_day = [book.item_scores(user=user, day=day, **given) for day in column.ids.ids.tolist()]
    expected = (share[:, None] * np.array(by_day)).sum(axis=0).tolist()
    assert_same_list(top.positions[0], top.scores[0], expected, 60)
    item = int(book.data.items.ids[4])
    score = trained(flavour).scores([user], [item], given, context_default="mean")
    assert score[0] == pytest.approx(expected[4], abs=1e-5)


def test_an_unknown_context_column_or_level():
    user = all_users("context")[0]
    with refused(ValueError, "'weather'", "day"):
        trained("context").recommend([user], context={"day": "mon", "weather": "dry"})
    with refused(UnknownIdError, "day", "'tue'"):
        trained("context").recommend([user], context={"day": "tue"})
    with refused(TypeError, "day"):
        trained("context").recommend([user], context={"day": 1})


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"users": ["100"]}, TypeError, ["user", "integers", "strings", "'100'"]),
        ({"users": [100.0]}, TypeError, ["user"]),
        ({"users": 1.5}, TypeError, []),
        ({"users": None}, TypeError, []),
        ({"users": [None]}, TypeError, ["user"]),
        ({"n": 0}, ValueError, ["n must", "0"]),
        ({"n": 2.5}, ValueError, ["n must", "2.5"]),
        ({"candidates": ["5"]}, TypeError, ["item", "'5'"]),
        ({"exclude": [5]}, TypeError, ["exclude", "mapping"]),
        ({"exclude": {"100": [5]}}, TypeError, ["user"]),
        ({"unknown": "guess"}, ValueError, ["unknown", "'guess'"]),
        ({"context": {"day": "mon"}}, ValueError, ["'day'", "none"]),
        ({"context_default": "median"}, ValueError, ["context_default", "'median'"]),
        ({"exclude_seen": "no"}, ValueError, ["exclude_seen", "True or False", "'no'"]),
        ({"exclude_seen": 0}, ValueError, ["exclude_seen", "0"]),
        ({"exclude_seen": None}, ValueError, ["exclude_seen", "None"]),
    ],
)
def test_bad_requests_are_refused(options, error, words):
    call = {"users": all_users()[:1], **options}
    with refused(error, *words):
        trained().recommend(call.pop("users"), **call)


def test_numpys_own_bool_is_one():
    user = all_users()[:1]
    assert same_answers(
        trained().recommend(user, exclude_seen=np.bool_(False)),
        trained().recommend(user, exclude_seen=False),
    )


@pytest.mark.parametrize("option", ["exclude_seen", "allow_overlap"])
def test_evaluate_refuses_a_choice_that_is_no_bool(option):
    with refused(ValueError, option, "'no'"):
        trained().evaluate(interactions(), "ndcg@5", **{"allow_overlap": True, option: "no"})


def test_strings_are_asked_for_by_strings():
    with refused(TypeError, "user", "strings", "integers"):
        trained("strings").recommend([100])


@pytest.mark.parametrize("estimator", [3, "adam", FMRegressor, np.ones(3)])
def test_an_estimator_that_is_none_is_refused(estimator):
    with refused(TypeError, "estimator must be"):
        Recommender(estimator).fit(interactions())


@pytest.mark.parametrize("backend", [5, 0, "local", fmknn.Local])
def test_a_backend_that_is_none_is_refused(backend):
    with refused(TypeError, "backend must be", repr(backend)):
        Recommender(regressor(), backend=backend).fit(interactions())
    model = Recommender(regressor()).fit(interactions())
    model.backend = backend
    with refused(TypeError, "backend must be"):
        model.with_index("flat")


def test_fit_goes_on_from_a_start(tmp_path):
    path = tmp_path / "half.fmknn"
    stop = [fmknn.Checkpoint(path), lambda step: step.iteration == 2]
    Recommender(FMRegressor(4, n_iter=5, random_state=0, callbacks=stop)).fit(interactions())
    whole = Recommender(FMRegressor(4, n_iter=5, random_state=0)).fit(interactions())
    resumed = Recommender(FMRegressor(4, n_iter=5)).fit(interactions(), start=path)
    assert resumed.estimator_.n_iter_ == 3
    users = all_users()
    assert same_answers(resumed.recommend(users, 5), whole.recommend(users, 5))


def test_a_start_that_does_not_fit_leaves_the_fitted_model():
    model = Recommender(regressor()).fit(interactions())
    before = model.recommend(all_users(), 5)
    with refused(TypeError, "start must be"):
        model.fit(interactions(), start=3)
    assert same_answers(model.recommend(all_users(), 5), before)


@pytest.mark.parametrize("data", [[[1, 2, 3.0]], np.ones((3, 3)), None])
def test_fit_takes_interactions_only(data):
    with refused(TypeError, "Interactions"):
        Recommender(regressor()).fit(data)


def test_fit_needs_values():
    with refused(ValueError, "values"):
        Recommender(regressor()).fit(interactions().replace(values=None))


def test_fit_needs_rows():
    with refused(ValueError, "empty"):
        Recommender(regressor()).fit(interactions().take([]))


def test_a_classifier_needs_two_classes():
    data = clicks()
    with refused(ValueError, "two classes", "1.0"):
        Recommender(classifier()).fit(data.replace(values=np.ones(len(data), np.float32)))


@pytest.mark.parametrize("index, error", [("annoy", ValueError), (3, TypeError), (None, TypeError)])
def test_an_unknown_index_is_refused_before_training(index, error):
    estimator = regressor(callbacks=[lambda step: pytest.fail("it trained")])
    with refused(error, repr(index)):
        Recommender(estimator, index=index).fit(interactions())


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.recommend([1]),
        lambda model: model.recommend_all(),
        lambda model: model.predict([1], [1]),
        lambda model: model.similar_items([1]),
        lambda model: model.with_index("flat"),
        lambda model: model.save("nothing.fmknn"),
        lambda model: model.params_,
        lambda model: model.users,
    ],
)
def test_before_fit_everything_says_so(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(ValueError, "Recommender", "not fitted"):
        call(Recommender(regressor()))
    assert os.listdir(tmp_path) == []


# --- the estimator that is handed over ---------------------------------------------------------


def test_the_estimator_that_is_passed_is_never_changed():
    estimator = regressor()
    before = dict(vars(estimator))
    model = Recommender(estimator).fit(interactions())
    model.recommend(all_users(), 5)
    model.with_index("ivf").predict([all_users()[0]], [5])
    assert vars(estimator) == before
    assert model.estimator is estimator
    assert model.estimator_ is not estimator


def test_the_default_is_a_regressor():
    model = Recommender().fit(interactions())
    assert type(model.estimator_) is FMRegressor
    assert model.estimator is None


def test_fitting_again_forgets_the_first_data():
    model = Recommender(regressor()).fit(interactions("strings"))
    model.fit(interactions("context"))
    again = model.recommend(all_users("context"), 5, context={"day": "mon"})
    assert same_answers(
        again, trained("context").recommend(all_users("context"), 5, context={"day": "mon"})
    )


def test_a_fit_that_fails_leaves_the_fitted_model():
    model = Recommender(regressor()).fit(interactions())
    before = model.recommend(all_users(), 5)
    with refused(ValueError, "values"):
        model.fit(interactions().replace(values=None))
    assert same_answers(model.recommend(all_users(), 5), before)


def test_one_seed_gives_one_model():
    again = Recommender(regressor()).fit(interactions())
    assert same_answers(again.recommend(all_users(), 10), trained().recommend(all_users(), 10))


@pytest.mark.parametrize("n_jobs", [2, None])
def test_threads_change_nothing(n_jobs):
    other = Recommender(regressor(n_jobs=n_jobs), index=FaissIndex(n_jobs=n_jobs)).fit(
        interactions("everything")
    )
    users, context = all_users("everything"), some_context("everything")
    expected = trained("everything").recommend(users, 10, context=context)
    assert same_answers(other.recommend(users, 10, context=context), expected)


def test_a_model_without_factors_ranks_by_the_biases():
    model = Recommender(FMRegressor(0, solver="als", random_state=0)).fit(interactions())
    top = model.recommend(all_users(), 60, exclude_seen=False)
    w = model.params_.w[len(all_users()) :]
    expected = [position for position, _ in naive.brute_top_n(w, 60)]
    assert top.positions.tolist() == [expected] * len(all_users())
    similar = model.similar_items(interactions().items.ids[:1], 5)
    assert similar.scores.tolist() == [[0.0] * 5]


# --- similar items -----------------------------------------------------------------------------


@every_flavour
def test_similar_items_are_those_with_the_largest_cosine(flavour):
    book = textbook(flavour)
    items = book.data.items.ids.tolist()
    params = book.params
    vectors = []
    for row in book.rows["item"]:
        vectors.append(
            [sum(x * float(params.V[c, f]) for c, x in row) for f in range(params.V.shape[1])]
        )
    norms = [math.sqrt(naive.dot(v, v)) for v in vectors]
    top = trained(flavour).similar_items(items, 7)
    assert top.users.tolist() == items
    for row in range(len(items)):
        cosines = [
            naive.dot(vectors[row], v) / (norms[row] * norm)
            for v, norm in zip(vectors, norms, strict=True)
        ]
        assert_same_list(top.positions[row], top.scores[row], cosines, 7, [row])


def test_similar_items_of_one_item_and_of_unknown_ones():
    item = int(interactions().items.ids[3])
    assert same_answers(trained().similar_items(item, 4), trained().similar_items([item], 4))
    with refused(UnknownIdError, "item", "-1"):
        trained().similar_items([item, -1])
    assert same_answers(
        trained().similar_items([-1, item], 4, unknown="skip"), trained().similar_items([item], 4)
    )
    with refused(TypeError, "item"):
        trained().similar_items([str(item)])
    with refused(ValueError, "unknown", "'guess'"):
        trained().similar_items([item], unknown="guess")


def test_similar_items_are_at_most_all_others():
    top = trained().similar_items(interactions().items.ids[:2], 1000)
    assert top.counts.tolist() == [59, 59]


# --- seen pairs --------------------------------------------------------------------------------


def test_what_training_knew():
    data = interactions()
    known = set(zip(data.user_ids.tolist(), data.item_ids.tolist(), strict=True))
    pairs = [(user, item) for user in [*all_users(), 1] for item in [*data.items.ids.tolist(), -1]]
    got = trained().seen_pairs(*map(list, zip(*pairs, strict=True)))
    assert got.tolist() == [pair in known for pair in pairs]
    users = [*all_users(), 1]
    assert trained().n_training_rows(users).tolist() == [
        int((data.user_ids == user).sum()) for user in users
    ]


# --- recommend_all -----------------------------------------------------------------------------


def joined(chunks):
    return [pair for top in chunks for pair in top]


@every_flavour
@pytest.mark.parametrize("chunk", [1, 7, 26, 8192])
def test_recommend_all_is_recommend_in_any_chunks(flavour, chunk):
    model, context = trained(flavour), some_context(flavour)
    expected = list(model.recommend(all_users(flavour), 10, context=context))
    assert joined(model.recommend_all(10, chunk=chunk, context=context)) == expected


def test_recommend_all_for_some_with_options():
    users, items = all_users()[3:9], interactions().items.ids
    options = {
        "exclude": {users[1]: items[:9].tolist()},
        "candidates": items[:25],
        "exclude_seen": False,
    }
    expected = list(trained().recommend(users, 6, **options))
    assert joined(trained().recommend_all(6, users=users, chunk=4, **options)) == expected
    assert [
        user for user, _ in joined(trained().recommend_all(2, users=[1, users[0]], unknown="skip"))
    ] == [users[0]]


def test_recommend_all_to_a_file(tmp_path):
    model = trained("strings")
    assert model.recommend_all(5, to=tmp_path / "recs.jsonl", chunk=10) == 26
    lines = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    expected = [
        {
            "user": user,
            "items": [item for item, _ in pairs],
            "scores": [score for _, score in pairs],
        }
        for user, pairs in model.recommend(all_users("strings"), 5)
    ]
    assert lines == expected
    assert os.listdir(tmp_path) == ["recs.jsonl"]


@pytest.mark.parametrize("old", [None, "the old one\n"])
def test_recommend_all_that_fails_in_the_middle_writes_nothing(tmp_path, old):
    path = tmp_path / "recs.jsonl"
    if old is not None:
        path.write_text(old)
    users = [*all_users()[:5], 1]  # the unknown one is in the last chunk
    with refused(UnknownIdError, "user", "1"):
        trained().recommend_all(3, users=users, to=path, chunk=2)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == (
        {} if old is None else {path.name: old}
    )


BAD_OPTIONS = [
    ({"n": 0}, ValueError),
    ({"n": 2.5}, ValueError),
    ({"chunk": 0}, ValueError),
    ({"context": {"day": "mon"}}, ValueError),
    ({"context": {"hour": "noon"}}, ValueError),
    ({"context": 1.0}, TypeError),
    ({"unknown": "guess"}, ValueError),
    ({"context_default": "guess"}, ValueError),
    ({"candidates": [-4]}, UnknownIdError),
    ({"candidates": ["a"]}, TypeError),
    ({"exclude": [5]}, TypeError),
    ({"exclude": {1: [5]}}, UnknownIdError),
    ({"exclude_sen": False}, TypeError),
    ({"users": [1.5]}, TypeError),
]


@pytest.mark.parametrize("options, error", BAD_OPTIONS)
def test_recommend_all_with_a_bad_option_writes_nothing(tmp_path, options, error):
    with refused(error):
        trained().recommend_all(to=tmp_path / "recs.jsonl", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options, error", BAD_OPTIONS)
def test_recommend_all_refuses_a_bad_option_at_once(options, error):
    with refused(error):
        trained().recommend_all(**options)


@pytest.mark.parametrize("levels", [["mon"] * 3, "tue", 1])
def test_recommend_all_refuses_a_bad_context_at_once(levels):
    with refused((ValueError, TypeError), "day"):
        trained("context").recommend_all(context={"day": levels})


def test_recommend_all_for_nobody(tmp_path):
    assert list(trained().recommend_all(users=[])) == []
    assert trained().recommend_all(users=[], to=tmp_path / "recs.jsonl") == 0


def test_recommend_all_into_a_missing_folder(tmp_path):
    with refused(FileNotFoundError, "nowhere"):
        trained().recommend_all(to=tmp_path / "nowhere" / "recs.jsonl")


# --- evaluate ----------------------------------------------------------------------------------


def test_evaluate_measures_the_same_by_default_in_both_forms():
    train, test = fmknn.splits.random(interactions(), test=0.2, random_state=0)
    model = Recommender(regressor()).fit(train)
    options = {"allow_overlap": True}
    result = model.evaluate(test, **options)
    assert tuple(result) == ("rmse", *fmknn.evaluation.DEFAULT_RANKING)
    assert result == fmknn.evaluate(model, test, **options)


# --- frames, saving ----------------------------------------------------------------------------


def test_evaluate_leaves_out_contexts_that_training_never_had():
    data = interactions("context")
    test = Interactions.from_arrays(
        data.user_ids[:6],
        data.item_ids[:6],
        data.values[:6],
        context={"day": [*DAYS[:2], "holiday", "holiday", *DAYS[:2]]},
    )
    model = trained("context")
    assert model.contexts["day"] == data.context["day"].ids
    result = model.evaluate(test, ["rmse", "ndcg@5"], allow_overlap=True)
    rest = model.evaluate(test.take([0, 1, 4, 5]), ["rmse", "ndcg@5"], allow_overlap=True)
    assert (result.n_unknown_context_rows, result.n_unknown_rows) == (2, 0)
    assert result.metrics == rest.metrics


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_to_frame(library):
    pytest.importorskip(library)
    top = trained("strings").recommend(all_users("strings"), 60)
    frame = top.to_frame(library)
    column = (
        (lambda name: frame[name].to_pylist())
        if library == "pyarrow"
        else (lambda name: frame[name].to_list())
    )
    rows = list(zip(*map(column, ("user", "item", "score", "rank")), strict=True))
    assert rows == [
        (user, item, score, rank)
        for user, pairs in top
        for rank, (item, score) in enumerate(pairs, 1)
    ]


@every_flavour
def test_save_and_load_give_the_same_answers(flavour, tmp_path):
    model, users, context = trained(flavour), all_users(flavour), some_context(flavour)
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    items = model.items.ids[:26]
    for ask in (
        lambda m: m.recommend(users, 10, context=context),
        lambda m: m.recommend(
            users, 60, context=context, candidates=items, exclude={users[0]: items[:3]}
        ),
        lambda m: m.recommend(users, 60, context_default="mean", exclude_seen=False),
        lambda m: m.similar_items(items, 5),
    ):
        assert same_answers(ask(loaded), ask(model))
    assert (
        loaded.predict(users, items, context).tobytes()
        == model.predict(users, items, context).tobytes()
    )
    assert loaded.n_training_rows(users).tolist() == model.n_training_rows(users).tolist()
    assert loaded.seen_pairs(users, items).tolist() == model.seen_pairs(users, items).tolist()
    assert (loaded.users, loaded.items) == (model.users, model.items)


def test_an_ivf_and_a_classifier_survive_saving(tmp_path):
    model = Recommender(classifier(), index=FaissIndex("IVF", nlist=9, nprobe=1)).fit(clicks())
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    before, after = model.recommend(all_users(), 10), loaded.recommend(all_users(), 10)
    assert same_answers(before, after)
    assert before.predictions.tobytes() == after.predictions.tobytes()
    assert loaded.estimator_.classes_.tolist() == [0, 1]
    assert repr(loaded.index_) == repr(model.index_)


def test_a_loaded_model_can_be_saved_refitted_and_searched_otherwise(tmp_path):
    trained().save(tmp_path / "one.fmknn")
    fmknn.load(tmp_path / "one.fmknn").save(tmp_path / "two.fmknn")
    assert (tmp_path / "one.fmknn").read_bytes() == (tmp_path / "two.fmknn").read_bytes()
    loaded = fmknn.load(tmp_path / "two.fmknn")
    other = loaded.with_index(FaissIndex("IVF", nlist=2, nprobe=2))
    assert same_answers(other.recommend(all_users(), 5), trained().recommend(all_users(), 5))
    loaded.fit(interactions("context"))
    assert (
        loaded.recommend(all_users("context"), 5, context={"day": "mon"}).counts.tolist()
        == [5] * 26
    )


def test_save_into_a_missing_folder(tmp_path):
    with refused(FileNotFoundError, "nowhere"):
        trained().save(tmp_path / "nowhere" / "model.fmknn")


def test_load_what_is_not_there(tmp_path):
    with refused(FileNotFoundError, "model.fmknn"):
        fmknn.load(tmp_path / "model.fmknn")


def test_a_checkpoint_is_not_a_model_and_a_model_no_checkpoint(tmp_path):
    FMRegressor(2, n_iter=1, callbacks=[fmknn.Checkpoint(tmp_path / "half.fmknn")]).fit(
        interactions()
    )
    with refused(ModelFileError, "half.fmknn", "checkpoint"):
        fmknn.load(tmp_path / "half.fmknn")
    trained().save(tmp_path / "model.fmknn")
    with refused(ModelFileError, "model.fmknn", "recommender"):
        FMRegressor(2, n_iter=1).fit(interactions(), start=tmp_path / "model.fmknn")


def test_data_frames_in():
    pd = pytest.importorskip("pandas")
    data = interactions("context")
    frame = pd.DataFrame(
        {
            "u": data.user_ids,
            "i": data.item_ids,
            "r": data.values,
            "day": data.context["day"].ids.ids[data.context["day"].index],
        }
    )
    from_frame = Interactions.from_frame(frame, user="u", item="i", value="r", context=["day"])
    model = Recommender(regressor()).fit(from_frame)
    users = model.users.ids
    top = model.recommend(users, 5, context={"day": ["mon"] * len(users)})
    assert top.counts.tolist() == [5] * len(users)
    user_frame = pd.Series(users[:3])
    assert (
        model.recommend(
            user_frame, 5, context={"day": pd.Series(["mon", "sun", "fri"])}
        ).users.tolist()
        == users[:3].tolist()
    )


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), (1, 2)])
def test_a_classifier_is_measured_in_its_own_terms(labels):
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=50, n_items=30, n_ratings=900, random_state=0
    )
    liked = ratings.values > ratings.values.mean()
    data = ratings.replace(values=np.where(liked, labels[1], labels[0]).astype(np.float32))
    train, test = fmknn.splits.random(data, test=0.2, random_state=0)
    model = fmknn.Recommender(fmknn.FMClassifier(random_state=0)).fit(train)
    probability = model.predict(test.user_ids, test.item_ids)
    expected = np.sqrt(np.mean((probability - (test.values == labels[1])) ** 2))
    assert model.evaluate(test, ["rmse"])["rmse"] == pytest.approx(expected)


def test_candidates_of_any_iterable_serve_every_chunk():
    ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=60)
    model = fmknn.Recommender(fmknn.FMRegressor(n_iter=1, random_state=0)).fit(ratings)
    chunks = model.recommend_all(3, chunk=7, candidates=(i for i in (1, 2)), exclude_seen=False)
    assert np.concatenate([top.counts for top in chunks]).tolist() == [2] * 20
    with pytest.raises(TypeError, match="item ids must be a list"):
        model.recommend([5], 3, candidates={5: [1]})


def test_padding_has_no_prediction():
    seen = fmknn.Interactions.from_arrays([1, 1, 2], [1, 2, 1], [1.0, 2.0, 3.0])
    top = fmknn.Recommender(fmknn.FMRegressor(n_iter=1)).fit(seen).recommend([1, 2], 2)
    assert np.isnan(top.predictions).tolist() == [[True], [False]]
