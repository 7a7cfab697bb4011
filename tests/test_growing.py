"""Recommender.partial_fit: what grows, what is learned, what stays as it was to the last bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from growth_rig import (
    ALONE,
    CLASSIFIERS,
    ESTIMATORS,
    FLAVOURS,
    RANKERS,
    bits,
    both,
    by_name,
    column_names,
    error_on,
    everything_of,
    fitted,
    fresh,
    late_ids,
    models,
    parts,
    some_levels,
    went_on,
    went_on_alone,
)

import fmknn
from fmknn import FeatureTable, FMRanker, FMRegressor, Interactions, Recommender
from fmknn.data.blocks import design_of_interactions
from fmknn.data.growth import extended
from fmknn.model.growth import grown
from fmknn.model.posterior import Posterior
from fmknn.serving.catalog import Catalog
from fmknn.serving.growth import columns_in

every_solver = pytest.mark.parametrize("which", ESTIMATORS)
every_model = models(ESTIMATORS)


def catalog_of(data):
    return Catalog.of(data, design_of_interactions(data))


# --- the vocabulary ------------------------------------------------------------------------------


@every_model
def test_what_is_known_keeps_its_place_and_what_is_new_goes_behind(which, flavour):
    before, after, (_, new) = fitted(which, flavour), went_on(which, flavour), parts(flavour, which)
    ids = [
        (before.users, after.users, new.users),
        (before.items, after.items, new.items),
        *(
            (ids, after.contexts[name], new.context[name].ids)
            for name, ids in before.contexts.items()
        ),
    ]
    for old, now, of_new in ids:
        own = old.ids.tolist()
        assert now.ids.tolist() == own + sorted(set(of_new.ids.tolist()) - set(own))
    assert after.users.ids.tolist()[-4:] == late_ids(flavour)["user"]
    assert after.items.ids.tolist()[-8:] == late_ids(flavour)["item"]
    assert list(after.contexts) == list(before.contexts)
    n_columns = len(column_names(both(flavour, which)))
    assert after.params_.n_features == after.estimator_.n_features_in_ == n_columns


@every_model
def test_old_and_new_rows_are_seen_and_counted(which, flavour):
    after, (old, new) = went_on(which, flavour), parts(flavour, which)
    met, n_rows = {}, {}
    for user, item in [
        *zip(old.user_ids.tolist(), old.item_ids.tolist(), strict=True),
        *zip(new.user_ids.tolist(), new.item_ids.tolist(), strict=True),
    ]:
        met.setdefault(user, set()).add(item)
        n_rows[user] = n_rows.get(user, 0) + 1
    users, n = after.users.ids.tolist(), len(after.items)
    top = after.recommend(users, n=n, context=some_levels(new))
    for user, items, count in zip(users, top.items.tolist(), top.counts, strict=True):
        assert set(items[:count]) == set(after.items.ids.tolist()) - met.get(user, set())
    assert after.n_training_rows(users).tolist() == [n_rows.get(user, 0) for user in users]
    everything = after.recommend(users, n=n, context=some_levels(new), exclude_seen=False)
    assert (everything.counts == n).all()
    for name, context in both(flavour, which).context.items():
        counts = np.bincount(context.index, minlength=len(context.ids))
        assert after.catalog_.contexts[name].counts.tolist() == counts.tolist()


@models(["als", "mcmc", "ordinal"], [name for name in FLAVOURS if name != "histories"])
def test_before_any_sweep_every_old_column_is_itself_under_its_new_place(which, flavour):
    before, (old, new) = fitted(which, flavour), parts(flavour, which)
    data = extended(old, new)
    places = columns_in(catalog_of(old), catalog_of(data))
    names, names_now = column_names(old), column_names(data)
    assert [names_now[place] for place in places] == names
    model = grown(before.params_, places, len(names_now))
    own, now = by_name(before.params_, names), by_name(model, names_now)
    assert {name: now[name] for name in names} == own
    assert all(not any(now[name]) for name in set(names_now) - set(names))
    for side in ("user", "item"):  # and everybody has the features that they had
        rows, rows_now = (
            getattr(catalog_of(part), f"{side}_rows").to_scipy().toarray() for part in (old, data)
        )
        n = len(rows)
        np.testing.assert_array_equal(rows_now[:n, places], rows)
        others = np.setdiff1d(np.arange(len(names_now)), places)
        assert not rows_now[:n, others].any()


@every_model
def test_new_ids_without_a_row_change_no_score_of_the_others(which, flavour):
    before, (old, new) = fitted(which, flavour), parts(flavour, which)
    nothing = new.take([])
    after = fresh(which, flavour).partial_fit(nothing)
    assert set(late_ids(flavour)["item"]) < set(after.items.ids.tolist())
    assert everything_of(after, old)[:-3] == everything_of(before, old)[:-3]
    assert after.params_.n_features == len(column_names(extended(old, nothing)))
    user = late_ids(flavour)["user"][-1]
    assert np.isfinite(after.recommend([user], n=5, context=some_levels(old)).scores).all()


@every_model
def test_nothing_new_changes_nothing(which, flavour):
    old = parts(flavour, which)[0]
    model = fresh(which, flavour)
    parameters, index = model.params_, model.index_
    for news in (old.take([]), old.take([]).replace(values=None)):
        assert model.partial_fit(news) is model
        assert model.params_ is parameters and model.index_ is index
        assert everything_of(model, old) == everything_of(fitted(which, flavour), old)


def test_new_ids_that_are_no_features_are_known_all_the_same():
    old = parts("features")[0]
    of_features = {
        f"{side}_features": getattr(old, f"{side}_features").with_features(*names, id_feature=False)
        for side, names in (("user", ["age", "job"]), ("item", ["tags"]))
    }
    model = Recommender(ESTIMATORS["als"]).fit(old.replace(**of_features))
    late = late_ids("features")["user"][-1]  # of a job that there was
    table = FeatureTable([late], {"age": [40], "job": ["cook"]})
    row = Interactions.from_arrays([late], old.item_ids[:1], [3.0], user_features=table)
    model.partial_fit(row.take([]))
    assert late in model.users.ids.tolist()
    assert model.recommend([late], n=3).counts.tolist() == [3]


# --- what is learned -----------------------------------------------------------------------------


@models([name for name in ESTIMATORS if name not in RANKERS])
def test_new_rows_are_learned(which, flavour):
    _, new = parts(flavour, which)
    before = fresh(which, flavour).partial_fit(new.take([]))
    after = fresh(which, flavour).partial_fit(new, n_iter=30)
    assert error_on(after, new) < 0.9 * error_on(before, new)


@models(RANKERS)
def test_new_rows_rank_higher(which, flavour):
    _, new = parts(flavour, which)
    before = fresh(which, flavour).partial_fit(new.take([]))
    after = fresh(which, flavour).partial_fit(new, n_iter=20)

    def mean_rank(model):
        users = np.unique(new.user_ids)
        top = model.recommend(
            users, n=len(model.items), exclude_seen=False, context=some_levels(new)
        )
        places = [
            items.index(item)
            for user, items in zip(users.tolist(), top.items.tolist(), strict=True)
            for item in new.item_ids[new.user_ids == user].tolist()
        ]
        return np.mean(places)

    assert mean_rank(after) < 0.8 * mean_rank(before)


@models(ALONE, [name for name in FLAVOURS if name != "histories"])
def test_who_is_not_in_the_new_rows_keeps_their_parameters(which, flavour):
    (old, _), data = parts(flavour, which), both(flavour, which)
    places = np.arange(len(old), len(data))
    X = design_of_interactions(data.take(places))
    in_rows = np.asarray(abs(X.expand(0, X.n_rows).to_scipy()).sum(axis=0)).ravel() > 0
    before = by_name(fitted(which, flavour).params_, column_names(old))
    names = column_names(data)
    after = by_name(went_on_alone(which, flavour).params_, names)
    others = [
        name
        for name, used in zip(names, in_rows, strict=True)
        if name in before and not used and (which != "bpr" or name.startswith("user"))
    ]
    assert len(others) >= 1
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    moved = [name for name, used in zip(names, in_rows, strict=True) if used and name in before]
    assert sum(after[name] != before[name] for name in moved) > len(moved) / 2


@every_model
def test_one_random_state_is_one_result_for_any_number_of_threads(which, flavour):
    new = parts(flavour, which)[1]
    own = bits(went_on(which, flavour))
    assert bits(fresh(which, flavour).partial_fit(new)) == own
    model = fresh(which, flavour)
    model.estimator_ = copy.copy(model.estimator_).set_params(n_jobs=2)
    assert bits(model.partial_fit(new)) == own


@every_solver
def test_the_passes_are_those_asked_for(which):
    new = parts("ids", which)[1]
    one, two = (fresh(which).partial_fit(new, n_iter=n) for n in (1, 2))
    assert bits(one) != bits(two) and bits(one) != bits(fitted(which))
    assert len(two.estimator_.history_) == 2
    own = ESTIMATORS[which].get_params(deep=False)
    assert two.estimator_.get_params(deep=False) == own


@every_solver
def test_callbacks_are_those_of_the_first_fit_alone(which):
    old, new = parts("ids", which)
    calls = []
    estimator = copy.copy(ESTIMATORS[which]).set_params(callbacks=[lambda *a: calls.append(a)])
    model = Recommender(estimator).fit(old)
    n = len(calls)
    assert n
    model.partial_fit(new)
    assert len(calls) == n


def planted_parts(implicit, late):
    """Rows that can be learned: (old, new, test). Some users come late, and some items if said."""
    data = fmknn.datasets.make_interactions(
        n_users=150, n_items=80, n_ratings=5000, n_factors=3, random_state=1
    )[0]
    train, test = fmknn.splits.random(data, test=0.15, random_state=0)
    is_late = [side % 10 == 7 for side in (train.user_index, train.item_index)]
    new = is_late[0] | is_late[1] if late == "both" else is_late[0]
    old, new = (
        Interactions.from_arrays(
            train.user_ids[rows], train.item_ids[rows], None if implicit else train.values[rows]
        )
        for rows in (~new, new)
    )
    return old, new, test


@pytest.mark.parametrize(
    "solver, late, share",
    [("als", "both", 0.3), ("mcmc", "both", 0.2), ("adam", "users", 0.9)],
)
def test_going_on_is_about_as_good_as_beginning_anew(solver, late, share):
    old, new, test = planted_parts(implicit=False, late=late)
    test = test.take(np.flatnonzero(np.isin(test.user_ids, new.user_ids)))
    estimator = FMRegressor(3, solver=solver, random_state=0)
    model = Recommender(estimator).fit(old)

    def rmse(model):
        got = model.predict(test.user_ids, test.item_ids, unknown="cold")
        return float(np.sqrt(((got - test.values) ** 2).mean()))

    cold, anew = rmse(model), rmse(Recommender(estimator).fit(extended(old, new)))
    assert cold - anew > 0.05
    assert rmse(model.partial_fit(new)) < anew + share * (cold - anew)


@pytest.mark.parametrize("solver, share", [("whole-data", 0.9), ("bpr", 0.65)])
def test_late_users_get_lists_about_as_good_as_if_begun_anew(solver, share):
    old, new, test = planted_parts(implicit=True, late="users")
    test = test.take(np.flatnonzero(test.user_index % 10 == 7))
    estimator = FMRanker(3, solver=solver, random_state=0)
    models = [Recommender(estimator).fit(extended(old, new)), Recommender(estimator).fit(old)]
    anew, warm = (
        model.evaluate(test, "ndcg@20")["ndcg@20"]
        for model in (models[0], models[1].partial_fit(new))
    )
    assert anew > 0.3
    assert warm > share * anew


def test_the_samples_of_before_are_not_kept():
    before, after = fitted("mcmc"), went_on("mcmc")
    assert isinstance(after.params_, Posterior)
    old = [sample.w0 for sample in before.params_.samples()]
    assert not set(old) & {sample.w0 for sample in after.params_.samples()}


@every_solver
def test_the_first_one_is_a_fit(which):
    old = parts("ids", which)[0]
    model = Recommender(ESTIMATORS[which]).partial_fit(old)
    assert bits(model) == bits(fitted(which))
    assert model.partial_fit(parts("ids", which)[1]) is model
    assert bits(model) == bits(went_on(which))


# --- what values mean ----------------------------------------------------------------------------


def one_row(data, value):
    return data.take([0]).replace(values=np.array([value], np.float32))


@pytest.mark.parametrize("which", ["als", "mcmc", "adam"])
def test_the_range_of_predictions_holds_old_and_new_values(which):
    data = parts("ids", which)[0]
    model = fresh(which)
    users, items = (side.tolist() for side in (data.user_ids[:60], data.item_ids[:60]))
    for value, expected in ((9.0, (1, 9)), (3.0, (1, 9)), (-2.0, (-2, 9))):
        model.partial_fit(one_row(data, value))
        assert model.estimator_.target_range_ == expected
    again = fresh(which).partial_fit(one_row(data, 3.0))
    assert again.estimator_.target_range_ == (1, 5)
    got = again.predict(users, items)
    assert got.min() >= 1 and got.max() <= 5


def test_grades_that_are_known_stay():
    data = parts("ids")[0]
    model = fresh("ordinal").partial_fit(one_row(data, 4.0))
    assert model.estimator_.grades_.tolist() == [1, 2, 3, 4, 5]
    got = model.predict(data.user_ids, data.item_ids)
    assert got.min() >= 1 and got.max() <= 5


@pytest.mark.parametrize("which", CLASSIFIERS)
def test_rows_of_one_class_alone_go_on(which):
    old, new = parts("ids", which)
    likes = new.take(np.flatnonzero(new.values == 1))
    model = fresh(which).partial_fit(likes)
    assert model.estimator_.classes_.tolist() == [0, 1]
    got = model.predict(old.user_ids, old.item_ids)
    assert ((got >= 0) & (got <= 1)).all()
    nothing = fresh(which).partial_fit(likes.take([]))
    assert error_on(model, likes) < error_on(nothing, likes)


# --- features ------------------------------------------------------------------------------------


def test_numbers_keep_their_scale_and_new_categories_are_new_features():
    old = Interactions.from_arrays(
        [1, 2, 3, 1], [7, 8, 7, 8], [5.0, 1.0, 4.0, 2.0],
        user_features={"id": [1, 2, 3], "age": [20, 30, 40], "city": ["Rome", "Oslo", "Rome"]},
    )  # fmt: skip
    new = Interactions.from_arrays(
        [5, 4], [7, 9], [3.0, 1.0],
        user_features={"id": [4, 5], "age": [1000, 30], "city": ["Bonn", "Oslo"]},
    )  # fmt: skip
    model = Recommender(ESTIMATORS["als"]).fit(old).partial_fit(new)
    rows = model.catalog_.user_rows.to_scipy().toarray()
    deviation = np.std([20, 30, 40])
    assert model.params_.n_features == 5 + 1 + 3 + 3
    np.testing.assert_array_equal(rows[:, :5], np.eye(5))
    np.testing.assert_allclose(
        rows[:, 5], (np.array([20, 30, 40, 1000, 30]) - 30) / deviation, rtol=1e-6
    )
    assert rows[:, 6:9].tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert not rows[:, 9:].any()


@pytest.mark.parametrize("which", ["als", "adam", "whole-data"])
def test_known_people_may_have_other_features(which):
    old = parts("features", which)[0]
    user = int(old.user_ids[0])
    table = old.user_features
    row = {"age": 69, "job": "nurse", "title": None}
    changed = FeatureTable([user], {name: [row[name]] for name in table.features})
    news = Interactions.from_arrays(
        [user], old.item_ids[:1], None if which == "whole-data" else [4.0],
        user_features=changed,
        item_features=FeatureTable(old.item_ids[:1], {"tags": [("a",)]}),
    )  # fmt: skip
    before = fitted(which, "features").catalog_
    model = fresh(which, "features").partial_fit(news)
    names = column_names(old)
    place = model.users.ids.tolist().index(user)
    now = model.catalog_.user_rows.to_scipy().toarray()[place]
    ages = [table[name][p] for name in ("age",) for p in range(len(table))]
    expected = {f"user={user}": 1.0, "user:job=nurse": 1.0}
    expected["user:age"] = (69 - np.mean(ages)) / np.std(ages)
    got = {name: value for name, value in zip(names, now, strict=True) if value}
    assert got == pytest.approx(expected, rel=1e-6)
    others = np.arange(len(table)) != place
    np.testing.assert_array_equal(
        model.catalog_.user_rows.to_scipy().toarray()[others],
        before.user_rows.to_scipy().toarray()[others],
    )


@every_solver
def test_histories_are_made_anew_from_all_rows(which):
    old, new = parts("histories", which)
    model = went_on(which, "histories")
    data = extended(old, new)
    names = column_names(data)
    rows = model.catalog_.user_rows.to_scipy().toarray()
    met = {}
    for part in (old, new):
        for user, item in zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True):
            met.setdefault(user, set()).add(item)
    for user, row in zip(model.users.ids.tolist(), rows, strict=True):
        own = {
            name: value
            for name, value in zip(names, row, strict=True)
            if value and name.startswith("user:items=")
        }
        n = len(met.get(user, ()))
        expected = {f"user:items={item}": 1 / np.sqrt(n) for item in met.get(user, ())}
        assert own == pytest.approx(expected, rel=1e-6)
