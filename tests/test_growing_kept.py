"""Models that go on: again, from a file, behind an index; and what partial_fit refuses."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from growth_rig import (
    ALONE,
    CLASSIFIERS,
    ESTIMATORS,
    RANKERS,
    bits,
    both,
    context_of,
    error_on,
    everything_of,
    fitted,
    fresh,
    late_ids,
    models,
    parts,
    some_levels,
    untouched,
    went_on,
    went_on_alone,
)
from refusals import refused

import fmknn
from fmknn import Adam, FeatureTable, FMRanker, FMRegressor, Interactions, Recommender
from fmknn.data.blocks import design_of_interactions
from fmknn.data.growth import extended
from fmknn.data.ids import IdMap
from fmknn.errors import DivergenceError
from fmknn.serving.catalog import Catalog

every_solver = pytest.mark.parametrize("which", ESTIMATORS)
every_model = models(ESTIMATORS)
NEEDS_ALL = [which for which in ESTIMATORS if which not in ALONE]


def catalog_of(data):
    return Catalog.of(data, design_of_interactions(data))


# --- again, and from a file ----------------------------------------------------------------------


def halves(new):
    places = np.arange(len(new))
    return new.take(places[::2]), new.take(places[1::2])


@every_model
def test_it_goes_on_as_often_as_one_likes(which, flavour):
    old, new = parts(flavour, which)
    model = fresh(which, flavour)
    for part in halves(new):
        model.partial_fit(part)
    assert model.n_training_rows(model.users.ids).sum() == len(old) + len(new)
    user = late_ids(flavour)["user"][0]
    seen = set(new.item_ids[new.user_ids == user].tolist())
    top = model.recommend([user], n=len(model.items), context=some_levels(old))
    assert set(top.items[0][: top.counts[0]].tolist()) == set(model.items.ids.tolist()) - seen


@every_model
def test_it_remembers_all_rows(which, flavour):
    old, new = parts(flavour, which)
    first, second = halves(new)
    model = fresh(which, flavour).partial_fit(first)
    told = copy.copy(model).partial_fit(second, known=extended(old, first))
    assert bits(model.partial_fit(second)) == bits(told)


@every_model
def test_a_grown_model_is_the_same_from_its_file(which, flavour, tmp_path):
    model, data = went_on(which, flavour), both(flavour, which)
    model.save(tmp_path / "model")
    loaded = fmknn.load(tmp_path / "model")
    assert bits(loaded) == bits(model)
    assert everything_of(loaded, data) == everything_of(model, data)


def shuffled(data):
    """The same rows, with another vocabulary: ids in an order of their own, one more of each."""
    rng = np.random.default_rng(2)
    changes = {}
    for what, name in (("user", "users"), ("item", "items")):
        ids = getattr(data, name).ids
        order = rng.permutation(len(ids))
        changes[name] = IdMap(ids[order], what)
        changes[f"{what}_index"] = np.argsort(order)[getattr(data, f"{what}_index")]
    return data.replace(**changes)


@every_model
def test_a_loaded_model_goes_on_when_told_what_it_knew(which, flavour, tmp_path):
    old, new = parts(flavour, which)
    fitted(which, flavour).save(tmp_path / "model")
    for known in (old, shuffled(old)):
        model = fmknn.load(tmp_path / "model").partial_fit(new, known=known)
        assert bits(model) == bits(went_on(which, flavour))
        assert everything_of(model, new) == everything_of(went_on(which, flavour), new)


@pytest.mark.parametrize("flavour", ["ids", "context", "strings"])
@pytest.mark.parametrize("which", ALONE)
def test_who_learns_alone_goes_on_from_a_file_without_the_old_rows(which, flavour, tmp_path):
    old, new = parts(flavour, which)
    fitted(which, flavour).save(tmp_path / "model")
    model = fmknn.load(tmp_path / "model").partial_fit(new)
    alone = copy.copy(went_on_alone(which, flavour))
    assert bits(model) == bits(alone)
    assert everything_of(model, old) == everything_of(alone, old)
    later = parts(flavour, which)[0].take([0, 1, 2])
    alone.partial_fit(later, known=old.take([]))
    assert bits(model.partial_fit(later)) == bits(alone)


@pytest.mark.parametrize("which", NEEDS_ALL)
def test_who_learns_from_all_rows_says_that_it_lacks_them(which, tmp_path):
    fitted(which).save(tmp_path / "model")
    model = fmknn.load(tmp_path / "model")
    with refused(ValueError, "known="):
        model.partial_fit(parts("ids", which)[1])
    assert everything_of(model, parts("ids", which)[0]) == everything_of(
        fitted(which), parts("ids", which)[0]
    )


@pytest.mark.parametrize("which", ALONE)
def test_features_are_not_known_from_a_file(which, tmp_path):
    fitted(which, "features").save(tmp_path / "model")
    model = fmknn.load(tmp_path / "model")
    with refused(ValueError, "feature", "known="):
        model.partial_fit(parts("features", which)[1])


@pytest.mark.parametrize("which", ["als", "bpr"])
def test_another_index_knows_the_rows_too(which):
    model = fitted(which).with_index("flat").partial_fit(parts("ids", which)[1])
    data = both("ids", which)
    users = data.users.ids.tolist()
    top, exact = model.recommend(users, n=9), went_on(which).recommend(users, n=9)
    assert bits(model) == bits(went_on(which))
    assert top.items.tolist() == exact.items.tolist()
    assert top.scores.tobytes() == exact.scores.tobytes()


def test_parameters_from_elsewhere_go_on():
    old, new = parts("ids")
    elsewhere = Recommender.from_params(
        fitted("als").params_, users=old.users.ids, items=old.items.ids, seen=old
    )
    elsewhere.partial_fit(new, known=old)
    assert set(late_ids("ids")["user"]) < set(elsewhere.users.ids.tolist())
    assert error_on(elsewhere, new) < error_on(fresh("als").partial_fit(new.take([])), new)


def test_parameters_in_another_order_of_columns_go_on():
    old, new = parts("ids", "bpr")
    rng, params = np.random.default_rng(0), fitted("bpr").params_
    users, items = rng.permutation(len(old.users)), rng.permutation(len(old.items))
    columns = np.concatenate([users, len(users) + items])
    mixed = fmknn.FMParams(params.w0, params.w[columns], params.V[columns])
    model = Recommender.from_params(
        mixed, users=old.users.ids[users], items=old.items.ids[items], seen=old, loss="bpr"
    )
    pairs = old.user_ids, old.item_ids
    scores = fitted("bpr").scores(*pairs)
    np.testing.assert_array_equal(model.scores(*pairs), scores)
    model.partial_fit(new.take([]))
    np.testing.assert_array_equal(model.scores(*pairs), scores)


@every_solver
def test_new_people_are_measured(which):
    train, test = halves(parts("ids", which)[1])
    before, after = fitted(which), fresh(which).partial_fit(train)
    known = [set(model.users.ids.tolist()) for model in (before, after)]
    items = [set(model.items.ids.tolist()) for model in (before, after)]
    pairs = list(zip(test.user_ids.tolist(), test.item_ids.tolist(), strict=True))
    for model, users, items_known in zip((before, after), known, items, strict=True):
        result = model.evaluate(test, ["recall@5"], allow_overlap=True)
        own = [user for user, item in pairs if user in users and item in items_known]
        warm = [user for user in own if model.n_training_rows([user])[0]]
        assert result.n_rows == len(warm)
        assert result.n_cold_rows == len(own) - len(warm)
        assert result.n_unknown_rows == len(pairs) - len(own)
    assert set(late_ids("ids")["user"]) & {user for user, _ in pairs}


# --- what is refused -----------------------------------------------------------------------------


@every_solver
def test_rows_that_do_not_fit_leave_the_model_as_it_was(which):
    model, same = untouched(which, "context")
    new = parts("context", which)[1]
    values = None if which in RANKERS else np.ones(2)
    with refused(ValueError, "contexts", "day", "none"):
        model.partial_fit(parts("ids", which)[1])
    with refused(ValueError, "contexts", "day", "hour"):
        model.partial_fit(parts("everything", which)[1])
    with refused(TypeError, "user", "integers", "strings"):
        model.partial_fit(
            Interactions.from_arrays(["a", "b"], [5, 6], values, context={"day": ["fri", "sun"]})
        )
    with refused(TypeError, "item", "integers", "strings"):
        model.partial_fit(
            Interactions.from_arrays([1, 2], ["a", "b"], values, context={"day": ["fri", "sun"]})
        )
    with refused(TypeError, "day", "integers", "strings"):
        model.partial_fit(Interactions.from_arrays([1, 2], [5, 6], values, context={"day": [1, 2]}))
    with refused(TypeError, "Interactions", "dict"):
        model.partial_fit({"user": [1], "item": [2]})
    with refused(TypeError, "known", "Interactions", "list"):
        model.partial_fit(new, known=[])
    if which not in RANKERS:
        with refused(ValueError, "values"):
            model.partial_fit(new.replace(values=None))
    with refused(ValueError, "contexts"):
        model.partial_fit(new, known=parts("ids", which)[0])
    for n_iter in (0, -1, 2.5):
        with pytest.raises((ValueError, TypeError), match="n_iter"):
            model.partial_fit(new, n_iter=n_iter)
    assert same()


def test_rankers_make_nothing_of_values():
    for which in RANKERS:
        new = parts("ids", which)[1]
        with_values = new.replace(values=np.ones(len(new)))
        assert bits(fresh(which).partial_fit(with_values)) == bits(went_on(which))


@every_solver
def test_features_that_are_missing_leave_the_model_as_it_was(which):
    model, same = untouched(which, "features")
    new = parts("features", which)[1]
    without = rows_without(new, "user_features")
    with refused(ValueError, "user", "feature table", late_ids("features")["user"][0]):
        model.partial_fit(without)
    jobs = new.user_features["job"].tolist()
    for columns, words in (
        ({"job": jobs}, ("'age'", "feature")),
        ({"age": ["old"] * len(jobs), "job": jobs}, ("age",)),
        ({"age": new.user_features["age"], "job": [("cook",)] * len(jobs)}, ("job",)),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            model.partial_fit(new.replace(user_features=FeatureTable(new.users.ids, columns)))
        assert "\n" not in str(caught.value)
        assert all(word in str(caught.value) for word in words)
    assert same()


def rows_without(data, table):
    tables = {name: getattr(data, name) for name in ("user_features", "item_features")}
    del tables[table]
    return Interactions.from_arrays(
        data.user_ids, data.item_ids, data.values, context=context_of(data), **tables
    )


def test_features_that_the_model_has_not_are_refused():
    model = Recommender(ESTIMATORS["als"]).fit(Interactions.from_arrays([1, 2], [3, 4], [1.0, 2.0]))
    before = bits(model)
    with refused(ValueError, "user", "features"):
        model.partial_fit(
            Interactions.from_arrays([1], [3], [1.0], user_features={"id": [1], "age": [3]})
        )
    assert bits(model) == before


@pytest.mark.parametrize("which", CLASSIFIERS)
def test_another_class_leaves_a_classifier_as_it_was(which):
    model, same = untouched(which, "ids")
    new = parts("ids", which)[1]
    with refused(ValueError, "class"):
        model.partial_fit(new.replace(values=np.full(len(new), 2.0)))
    with refused(ValueError, "class"):
        model.partial_fit(new.replace(values=np.arange(len(new)) % 3))
    assert same()


def test_divergence_leaves_the_model_as_it_was():
    old, new = parts("ids")
    calm = Adam(epochs=2, factors_init_sigma=0.5)
    model = Recommender(FMRegressor(3, solver=calm, random_state=0)).fit(old)
    before, parameters = everything_of(model, old), bits(model)
    wild = Adam(epochs=2, linear_lr=1e30, factors_lr=1e30, bias_lr=1e30)
    model.estimator_ = copy.copy(model.estimator_).set_params(solver=wild)
    with pytest.raises(DivergenceError):
        model.partial_fit(new, n_iter=8)
    assert everything_of(model, old) == before and bits(model) == parameters


@pytest.mark.parametrize("which", ["als", "adam"])
def test_known_rows_of_another_vocabulary_are_refused(which):
    model, same = untouched(which, "ids")
    new = parts("ids", which)[1]
    with refused(TypeError, "user", "strings"):
        model.partial_fit(new, known=parts("strings", which)[0])
    model_with, same_with = untouched(which, "features")
    with pytest.raises(ValueError, match="feature"):
        model_with.partial_fit(
            parts("features", which)[1],
            known=rows_without(parts("features", which)[0], "item_features"),
        )
    assert same() and same_with()


# --- while others ask ----------------------------------------------------------------------------


def test_answers_are_of_one_model_or_the_other_while_it_grows():
    old, new = parts("ids")
    model, users = fresh("als"), old.users.ids.tolist()
    expected = {fitted("als").recommend(users, n=9).scores.tobytes()}
    seen, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            seen.append(model.recommend(users, n=9).scores.tobytes())

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(3):
        model.partial_fit(new)
        expected.add(model.recommend(users, n=9).scores.tobytes())
    stop.set()
    thread.join()
    assert seen and set(seen) <= expected


@pytest.mark.parametrize("which", ["als", "whole-data"])
def test_a_grown_model_may_be_fitted_anew(which):
    old = parts("ids", which)[0]
    model = copy.copy(went_on(which)).fit(old)
    assert bits(model) == bits(fitted(which))
    assert everything_of(model, old) == everything_of(fitted(which), old)


def test_what_a_user_had_before_is_no_negative_of_theirs():
    """Warm epochs over new rows alone leave a user's earlier items where they were, not lower."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.arange(30 * 40), 40)
    taken = (users % 2 == items % 2) & (rng.random(len(users)) < 0.6)
    log = Interactions.from_arrays(users[taken], items[taken])
    model = fmknn.Recommender(FMRanker(8, solver="bpr", random_state=0)).fit(log)

    def auc():
        own = set(items[taken & (users == 0)].tolist())
        scores = model.scores([0] * 40, list(range(40)))
        mine = np.array([item in own for item in range(40)])
        return (scores[mine][:, None] > scores[~mine][None]).mean()

    before = auc()
    free = items[~taken & (users == 0) & (items % 2 == 0)][:2].tolist()
    for _ in range(5):
        model.partial_fit(Interactions.from_arrays([0] * len(free), free))
    assert auc() > before - 0.05


@pytest.mark.parametrize("solver", ["adam", "bpr"])
def test_counts_add_up_call_after_call_of_a_loaded_model(solver, tmp_path):
    kind = FMRanker if solver == "bpr" else fmknn.FMRegressor
    values = {} if solver == "bpr" else {"values": np.ones(200)}
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 15, 200), rng.integers(0, 15, 200)
    log = Interactions.from_arrays(*rows, **values, context={"day": np.arange(200) % 3})
    fmknn.Recommender(kind(2, solver=solver, n_iter=1, random_state=0)).fit(log).save(
        tmp_path / "m"
    )
    model, counts = fmknn.load(tmp_path / "m"), np.bincount(rows[0], minlength=15)
    new = log.take([0, 1])
    for times in (1, 2, 3):
        model.partial_fit(new)
        expected = counts + times * np.bincount(rows[0][:2], minlength=15)
        assert model.n_training_rows(np.arange(15)).tolist() == expected.tolist()
        assert model.catalog_.contexts["day"].counts.sum() == 200 + 2 * times


def test_items_without_an_id_of_their_own_are_ranked_on():
    table = fmknn.FeatureTable([1, 2, 3], {"kind": ["a", "b", "a"]}, id_feature=False)
    log = Interactions.from_arrays([1, 1, 2], [1, 2, 3], item_features=table)
    model = fmknn.Recommender(FMRanker(2, solver="bpr", n_iter=3, random_state=0)).fit(log)
    model.partial_fit(log.take([0]))
    assert model.recommend([2], n=3).counts.tolist() == [2]


def test_calls_that_say_nothing_or_too_much():
    log = Interactions.from_arrays([1, 1, 2], [7, 8, 8], [5.0, 1.0, 2.0])
    unfitted = fmknn.Recommender(fmknn.FMRegressor(2, n_iter=2, random_state=0))
    with refused(ValueError, "not fitted", "known"):
        unfitted.partial_fit(log, known=log)
    model = unfitted.partial_fit(log)
    with refused(ValueError, "n_iter"):
        model.partial_fit(log.take([]), n_iter=-1)
    with refused(TypeError, "users", "histories"):
        model.add_users()
    with refused(ValueError, "user", "repeated"):
        model.add_users([5, 5])


def test_another_value_of_a_feature_without_rows_counts():
    log = Interactions.from_arrays(
        [1, 1, 2], [7, 8, 8], [5.0, 1.0, 2.0], item_features={"item": [7, 8], "size": [1.0, 3.0]}
    )
    model = fmknn.Recommender(fmknn.FMRegressor(2, n_iter=9, random_state=0)).fit(log)
    score = model.scores([1], [7])
    news = log.replace(item_features={"item": [7, 8], "size": [2.0, 3.0]}).take([])
    assert model.partial_fit(news).scores([1], [7]) != score
    with refused(ValueError, "colour", "new"):
        model.partial_fit(
            log.replace(item_features={"item": [7, 8], "size": [2.0, 3.0], "colour": ["a", "b"]})
        )


def test_a_grade_that_is_new_is_named():
    log = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 8, 7], [1.0, 2.0, 3.0, 1.0])
    estimator = FMRegressor(2, loss="ordinal", n_iter=4, random_state=0)
    model = Recommender(estimator).fit(log)
    with refused(ValueError, "grade", "5", "new"):
        model.partial_fit(Interactions.from_arrays([2], [8], [5.0]))
    assert model.partial_fit(Interactions.from_arrays([1], [7], [1.0])).estimator_.grades_[-1] == 3


def test_histories_need_all_rows():
    log = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 8, 7], [1.0, 2.0, 3.0, 1.0]).with_history()
    model = Recommender(FMRegressor(2, solver="adam", n_iter=2, random_state=0)).fit(log)
    with refused(ValueError, "histories", "known="):
        model.partial_fit(Interactions.from_arrays([2], [8], [5.0]), known=log.take([]))
    model.partial_fit(Interactions.from_arrays([3], [8], [5.0]))
    assert model.catalog_.encoders["item"].columns[0].levels.tolist() == [1, 2, 3]


def test_a_ranker_of_ratings_remembers_all_rows_when_it_learns_from_new_ones_alone():
    log = Interactions.from_arrays([1, 1, 2, 3], [7, 8, 8, 9], [1.0, 2.0, 3.0, 1.0])
    model = Recommender(FMRanker(2, solver="bpr", n_iter=2, random_state=0)).fit(log)
    new = Interactions.from_arrays([3], [8], [5.0])
    model.partial_fit(new, known=log.take([])).partial_fit(new)
    assert model.n_training_rows([1, 2, 3]).tolist() == [2, 1, 3]
