"""Fold-in: what newcomers get is what least squares over spelled-out rows gives them."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import clicks, interactions, same_answers
from refusals import refused
from textbook import entities

import fmknn
from fmknn import (
    ALS,
    Adam,
    FMClassifier,
    FMRanker,
    FMRegressor,
    Interactions,
    Recommender,
    WholeData,
)
from fmknn.data.counts import counted
from fmknn.data.encoders import encode_column
from fmknn.data.features import FeatureTable
from fmknn.errors import ModelFileError, UnknownIdError
from fmknn.evaluation.fold_in import evaluate_fold_in
from fmknn.model import storage
from fmknn.serving.row_solver import Meetings, Partners, solve_rows
from fmknn.solvers.row_rules import SquaredRow, WholeDataRow, rule_of_state

WHOLE = WholeData(n_iter=4, alpha0=0.2, l2_factors=0.3, l2_linear=0.7, nu=0.8, count_power=0.5)
ESTIMATORS = {
    "whole-data": FMRanker(3, solver=WHOLE, random_state=0),
    "whole-data without biases": FMRanker(
        3, solver=WholeData(n_iter=4, biases=False, nu=0.0, l2_factors=2.0), random_state=0
    ),
    "als": FMRegressor(3, solver=ALS(n_iter=4, l2_factors=3.0, l2_linear=2.0), random_state=0),
    "adam": FMRegressor(3, solver=Adam(epochs=6, factors_init_sigma=0.5), random_state=0),
    "mcmc": FMRegressor(3, solver="mcmc", n_iter=14, random_state=0),
}
FLAVOURS = ["ids", "features", "context", "everything", "strings"]
HISTORIES = [[7], [0, 3, 11, 20, 31, 44], list(range(2, 40, 3))]  # positions in the catalogue


@functools.cache
def model(which="whole-data", flavour="ids"):
    return Recommender(ESTIMATORS[which]).fit(interactions(flavour))


# --- the oracle: one more column, and every row written out --------------------------------------


class Rows:
    """Dense rows over all columns of a model, without any encoding of fmknn's own."""

    def __init__(self, data):
        self.data = data
        tables = {
            "user": entities(data.users, data.user_features),
            "item": entities(data.items, data.item_features),
            **{name: entities(column.ids, None) for name, column in data.context.items()},
        }
        width = sum(table.shape[1] for table in tables.values())
        self.of, first = {}, 0
        for name, table in tables.items():
            rows = np.zeros((len(table), width))
            rows[:, first : first + table.shape[1]] = table
            self.of[name] = rows
            first += table.shape[1]

    def known(self, side, place):
        """What an entity of the training has but for its id."""
        row = self.of[side][place].copy()
        first = 0 if side == "user" else np.flatnonzero(self.of["item"].any(axis=0))[0]
        row[first : first + len(self.of[side])] = 0
        return row

    def context(self, levels):
        """The columns of a context, or those of the mean one."""
        total = np.zeros(self.of["user"].shape[1])
        for name, column in self.data.context.items():
            rows = self.of[name]
            total += rows[column.ids.ids.tolist().index(levels[name])]
        return total


def scores_of(sample, rows, theta):
    """Scores of rows and a last column of 1, whose parameters are θ; by the formula."""
    X = np.column_stack([rows, np.ones(len(rows))])
    V = np.vstack([sample.V.astype(float), theta[:-1]])
    w = np.append(sample.w.astype(float), theta[-1])
    return sample.w0 + X @ w + 0.5 * ((X @ V) ** 2 - X**2 @ V**2).sum(axis=1)


def least_squares(sample, rows, met, everybody, weights, targets, alpha0, prior, biases=True):
    """θ of the last column, by numpy's lstsq on all rows and the roots of the prior."""
    mean, precision = prior
    dim = len(mean)
    f = scores_of(sample, rows, np.zeros(dim))
    H = np.column_stack([scores_of(sample, rows, e) - f for e in np.eye(dim)])  # affine in θ
    root = np.linalg.cholesky(precision).T
    A = np.vstack([np.sqrt(weights)[:, None] * H[met], math.sqrt(alpha0) * H[everybody], root])
    b = np.concatenate(
        [np.sqrt(weights) * (targets - f[met]), -math.sqrt(alpha0) * f[everybody], root @ mean]
    )
    dim -= not biases
    return np.append(np.linalg.lstsq(A[:, :dim], b, rcond=None)[0], np.zeros(int(not biases)))


def noise_variance(fitted, data):
    """Mean square of the last sample's residuals on the training."""
    rows = Rows(data)
    X = rows.of["user"][data.user_index] + rows.of["item"][data.item_index]
    for name, column in data.context.items():
        X = X + rows.of[name][column.index]
    *_, sample = fitted.params_.samples()
    theta = np.zeros(sample.n_factors + 1)
    return float(((data.values - scores_of(sample, X, theta)) ** 2).mean())


def empirical(sample, columns):
    """The documented prior: the ids' mean, and covariance drawn towards its diagonal."""
    theta = np.column_stack([sample.V, sample.w]).astype(float)[columns]
    n, dim = theta.shape
    covariance = np.cov(theta.T, bias=True)
    diagonal = np.maximum(np.diag(covariance), 1e-6 * np.diag(covariance).max())
    return theta.mean(axis=0), np.linalg.inv((n * covariance + dim * np.diag(diagonal)) / (n + dim))


def expected(which, flavour, side, known, partners, met, values):
    """Scores of a newcomer with each partner: the mean over samples of what θ gives."""
    fitted, data = model(which, flavour), interactions(flavour)
    other = "item" if side == "user" else "user"
    index = {"user": data.user_index, "item": data.item_index}
    everybody, own = np.unique(index[other]), np.unique(index[side])
    first = 0 if side == "user" else Rows(data).of["user"].any(axis=0).nonzero()[0].max() + 1
    total = []
    for sample in fitted.params_.samples():
        ridge = np.zeros(4), np.diag([1.0, 1.0, 1.0, 1.0])
        task = {"weights": np.ones(len(met)), "targets": values, "alpha0": 0.0}
        if which.startswith("whole-data"):
            config = ESTIMATORS[which].solver
            weights = values**config.count_power
            alpha0 = float(fitted.estimator_.state_["alpha0"])
            growth = (weights.sum() + alpha0 * len(everybody)) ** config.nu
            l2 = [config.l2_factors] * 3 + [config.l2_linear]
            ridge = np.zeros(4), growth * np.diag(l2)
            task = {"weights": weights, "targets": np.ones(len(met)), "alpha0": alpha0}
            task["biases"] = config.biases
        elif which == "als":
            config, scale = ESTIMATORS[which].solver, data.values.astype(float).std()
            ridge = np.zeros(4), np.diag([config.l2_factors * scale] * 3 + [config.l2_linear])
        else:
            task["weights"] = task["weights"] / noise_variance(fitted, data)
            ridge = empirical(sample, first + own)
        rows = partners + known
        theta = least_squares(sample, rows, met, everybody, prior=ridge, **task)
        total.append(scores_of(sample, rows, theta))
    return np.mean(total, axis=0), total


def in_order(top):
    """Scores and predictions of one list by position."""
    order = np.argsort(top.positions[0])
    return top.scores[0][order], top.predictions[0][order]


def some_levels(flavour):
    return {"context": {"day": "mon"}, "everything": {"day": "sun", "hour": 2}}.get(flavour, {})


def features_of(flavour, side, place):
    table = getattr(interactions(flavour), f"{side}_features")
    ids = getattr(interactions(flavour), f"{side}s").ids.tolist()
    return {name: table.row(ids[place])[name] for name in table.features} or None


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("which", ESTIMATORS)
def test_a_new_user_gets_the_least_squares_row(which, flavour):
    fitted, data, rows = model(which, flavour), interactions(flavour), Rows(interactions(flavour))
    items = data.items.ids
    for place, met in enumerate(HISTORIES):
        values = np.random.default_rng(place).integers(1, 6, len(met)).astype(float)
        top = fitted.recommend_for(
            history=dict(zip(items[met].tolist(), values, strict=True)),
            features=features_of(flavour, "user", place),
            context=some_levels(flavour),
            n=len(items),
            exclude_seen=False,
        )
        known = rows.known("user", place) + rows.context(some_levels(flavour))
        scores, samples = expected(which, flavour, "user", known, rows.of["item"], met, values)
        ours, predictions = in_order(top)
        np.testing.assert_allclose(ours, scores, atol=2e-5)
        if not which.startswith("whole-data"):
            samples = np.mean(np.clip(samples, 1, 5), axis=0)
            np.testing.assert_allclose(predictions, samples, atol=2e-5)
        assert top.users.tolist() == [None] and top.counts.tolist() == [len(items)]
        assert (np.diff(top.scores[0]) <= 0).all()


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("which", ESTIMATORS)
def test_a_new_item_gets_the_least_squares_row(which, flavour):
    fitted, data, rows = model(which, flavour), interactions(flavour), Rows(interactions(flavour))
    levels = some_levels(flavour)
    if which.startswith("whole-data") and levels:
        return  # refused below
    users = data.users.ids
    for place, met in enumerate([[4], [0, 1, 5, 9, 22], list(range(0, 25, 2))]):
        values = np.random.default_rng(place).integers(1, 6, len(met)).astype(float)
        top = fitted.users_for(
            history=dict(zip(users[met].tolist(), values, strict=True)),
            features=features_of(flavour, "item", place),
            context=levels,
            n=len(users),
            exclude_seen=False,
        )
        partners = rows.of["user"] + rows.context(levels)
        known = rows.known("item", place)
        scores, samples = expected(which, flavour, "item", known, partners, met, values)
        ours, predictions = in_order(top)
        np.testing.assert_allclose(ours, scores, atol=2e-5)
        if not which.startswith("whole-data"):
            samples = np.mean(np.clip(samples, 1, 5), axis=0)
            np.testing.assert_allclose(predictions, samples, atol=2e-5)
        assert top.users.tolist() == [None]
        assert sorted(top.items[0].tolist()) == users.tolist()


# --- the law: the row that a training ends with ---------------------------------------------------


def pairs_once(features, history):
    """Distinct pairs with values and counts; some users and items have rows in tables only."""
    rng = np.random.default_rng(3)
    pairs = rng.choice(15 * 12, 90, replace=False)
    users, items = np.divmod(pairs, 12)
    tables = {}
    if features:
        tables["user_features"] = {"id": range(16), "job": rng.choice(list("abc"), 16)}
        tables["user_features"]["age"] = rng.integers(18, 70, 16)
        tags = [tuple(rng.choice(list("vwxyz"), n, replace=False)) for n in rng.integers(0, 4, 13)]
        tables["item_features"] = {"id": range(13), "tags": tags}
    data = Interactions.from_arrays(
        users, items, rng.integers(1, 6, 90), weights=rng.integers(1, 4, 90), **tables
    )
    return data.with_history() if history else data


def own_history(data, side, place, values):
    index, other = data.user_index, data.item_ids
    if side == "item":
        index, other = data.item_index, data.user_ids
    mine = index == place
    return dict(zip(other[mine].tolist(), values[mine].tolist(), strict=True))


CONVERGED = {
    "whole-data": FMRanker(
        3, solver=WholeData(n_iter=400, n_passes=4, l2_factors=0.3, alpha0=0.3), random_state=0
    ),
    "als": FMRegressor(3, solver=ALS(n_iter=300, l2_factors=6.0, l2_linear=3.0), random_state=0),
}


@pytest.mark.parametrize("which", CONVERGED)
@pytest.mark.parametrize("features, history", [(False, False), (True, False), (False, True)])
def test_a_trained_row_that_has_converged_is_that_of_its_history(which, features, history):
    data = pairs_once(features, history)
    if which == "als":
        data = data.replace(weights=None)
    fitted = Recommender(CONVERGED[which]).fit(data)
    values = data.weights if which == "whole-data" else data.values
    users, items = data.users.ids, data.items.ids
    for place in np.unique(data.user_index):
        row = data.user_features.row(users[place]) if features else {}
        top = fitted.recommend_for(
            history=own_history(data, "user", place, values),
            features={name: row[name] for name in ("job", "age") if name in row},
            n=len(items),
            exclude_seen=False,
        )
        trained = fitted.scores([users[place]] * len(items), items)
        np.testing.assert_allclose(in_order(top)[0], trained, atol=1e-4)
    for place in np.unique(data.item_index):
        row = data.item_features.row(items[place]) if features else {}
        top = fitted.users_for(
            history=own_history(data, "item", place, values),
            features={name: row[name] for name in ("tags",) if name in row},
            n=len(users),
            exclude_seen=False,
        )
        trained = fitted.scores(users, [items[place]] * len(users))
        np.testing.assert_allclose(in_order(top)[0], trained, atol=1e-4)


def test_a_new_users_context_is_of_the_list_and_of_the_history():
    fitted, data = model("als", "context"), interactions("context")
    ask = {"history": {int(data.items.ids[3]): 5.0}, "n": 60}
    days = [fitted.recommend_for(**ask, context={"day": day}) for day in ("fri", "sun")]
    assert not np.array_equal(*[in_order(top)[0] for top in days])
    fitted.recommend_for(**ask, context_default="mean")
    fitted.recommend_for(**ask, context_default="zero")
    with refused(ValueError, "context", "'day'", "missing"):
        fitted.recommend_for(**ask)
    with refused(UnknownIdError, "day", "'tue'"):
        fitted.recommend_for(**ask, context={"day": "tue"})
    many = fitted.recommend_for_many(
        {"a": ask["history"], "b": ask["history"]}, 60, context={"day": ["fri", "sun"]}
    )
    np.testing.assert_array_equal(many.scores, np.concatenate([top.scores for top in days]))


# --- features ------------------------------------------------------------------------------------


@functools.cache
def without_ids():
    """A model that knows users and items by features and histories alone."""
    data = interactions("everything")
    data = data.replace(
        context={},
        user_features=data.user_features.with_features("age", "job", id_feature=False),
        item_features=data.item_features.with_features("tags", id_feature=False),
    )
    return data.with_history(), Recommender(FMRegressor(3, n_iter=5, random_state=0)).fit(
        data.with_history()
    )


def test_a_side_without_ids_is_its_features_and_history():
    data, fitted = without_ids()
    for place in (0, 4, 9):
        user, item = data.users.ids[place], data.items.ids[place]
        row, mine = data.user_features.row(user), data.user_index == place
        top = fitted.recommend_for(
            history=data.item_ids[mine].tolist(),
            features={name: row[name] for name in ("age", "job")},
            n=60,
        )
        assert same_lists(top, fitted.recommend([user], n=60))
        assert not set(top.items[0].tolist()) & set(data.item_ids[mine].tolist())
        assert top.predictions.tobytes() == fitted.recommend([user], n=60).predictions.tobytes()
        for_item = fitted.users_for(
            history=data.user_ids[data.item_index == place],
            features={"tags": data.item_features.row(item)["tags"]},
            n=26,
            exclude_seen=False,
        )
        users = for_item.items[0]
        np.testing.assert_array_equal(for_item.scores[0], fitted.scores(users, [item] * 26))
        np.testing.assert_allclose(for_item.predictions[0], fitted.predict(users, [item] * 26))


def same_lists(a, b):
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("positions", "scores", "counts")
    )


@pytest.mark.parametrize("loss", ["ordinal", "logistic", "probit", "bpr"])
def test_a_loss_without_a_closed_form_goes_by_features_alone(loss):
    data = interactions("features")
    if loss == "ordinal":
        estimator = FMRegressor(2, loss=loss, n_iter=3, random_state=0)
    elif loss == "bpr":
        estimator = FMRanker(2, loss=loss, n_iter=1, random_state=0)
    else:
        data = data.replace(values=clicks().values)
        estimator = FMClassifier(2, loss=loss, n_iter=3, random_state=0)
    fitted, item = Recommender(estimator).fit(data), int(data.items.ids[0])
    for history in ([item], {item: 1.0}):
        with refused(ValueError, f"'{loss}'", "squared", "whole-data", "features alone"):
            fitted.recommend_for(history=history, features={"age": 30, "job": "cook"})
    top = fitted.recommend_for(features={"age": 30, "job": "cook"}, n=5)
    assert top.items.shape == (1, 5)
    assert np.isfinite(top.predictions).all()


def test_nothing_known_is_the_mean_of_the_prior():
    fitted = model("whole-data", "features")
    item = fitted.index_.vectors[:, -1]
    top = fitted.recommend_for(n=5)
    np.testing.assert_array_equal(top.positions[0], np.argsort(-item, kind="stable")[:5])
    sampled = in_order(model("adam").recommend_for(n=60))[0]
    params, data = model("adam").params_, interactions()
    own = np.unique(data.user_index)
    v, w = params.V[own].astype(float).mean(axis=0), params.w[own].astype(float).mean()
    items = slice(len(data.users), None)
    by_hand = params.w0 + w + params.w[items] + params.V[items].astype(float) @ v
    np.testing.assert_allclose(sampled, by_hand, atol=1e-5)


def test_what_a_person_may_be_said_to_be():
    fitted = model("whole-data", "features")
    ask = fitted.recommend_for
    with refused(ValueError, "no user feature 'city'", "age, job"):
        ask(features={"city": "Rome"})
    with refused(ValueError, "'job'", "'pilot'", "'cook', 'nurse', 'smith'"):
        ask(features={"job": "pilot"})
    with refused(TypeError, "'age'", "'old'", "number"):
        ask(features={"age": "old"})
    with refused(ValueError, "'age'", "nan"):
        ask(features={"age": math.nan})
    with refused(ValueError, "'age'", "far out of range"):
        ask(features={"age": 1e300})
    with refused(TypeError, "'job'", "one level"):
        ask(features={"job": ("cook", "nurse")})
    with refused(ValueError, "'job'", "no value"):
        ask(features={"job": None})
    with refused(TypeError, "features", "mapping", "list"):
        ask(features=["cook"])
    with refused(ValueError, "no item feature 'age'", "tags"):
        fitted.users_for(features={"age": 30})
    with refused(TypeError, "'tags'", "list of strings"):
        fitted.users_for(features={"tags": "a"})
    with refused(ValueError, "'tags'", "'q'"):
        fitted.users_for(features={"tags": ["a", "q"]})
    with refused(ValueError, "no user feature 'age'", "none"):
        model().recommend_for(features={"age": 30})
    with refused(ValueError, "'items'", "history="):
        without_ids()[1].recommend_for(features={"items": (5,)})


@pytest.mark.parametrize(
    "values, categorical",
    [
        ([3, 1, 4, 1, 5], False),
        ([0.1, 1e9, -7.5, 3.0, 2.0], False),
        ([2, 2, 2, 2, 2], False),
        ([True, False, True, True, False], False),
        ([1990, 1985, 1990, 2001, 1985], True),
        (["b", "a", "b", "c", "a"], False),
        ([("x", "y"), (), ("y",), ("z", "x", "y"), ("x", "x")], False),
    ],
)
def test_a_value_of_the_training_is_encoded_to_the_same_bits(values, categorical):
    column = FeatureTable(range(5), {"it": values})["it"]
    rows, encoder = encode_column("it", column, categorical)
    owners, all_features, all_numbers = encoder.encode(values)
    assert (np.diff(owners) >= 0).all()
    for place, value in enumerate(values):
        _, feature, numbers = encoder.encode([value])
        assert feature.tolist() == all_features[owners == place].tolist()
        assert numbers.tobytes() == all_numbers[owners == place].tobytes()
        own = slice(rows.indptr[place], rows.indptr[place + 1])
        assert feature.tolist() == rows.indices[own].tolist()
        assert numbers.astype(np.float32).tobytes() == rows.values[own].tobytes()


# --- histories -----------------------------------------------------------------------------------


def random_histories(n, which="whole-data", seed=0):
    rng, items = np.random.default_rng(seed), interactions().items.ids
    chosen = {f"p{i}": rng.choice(items, rng.integers(0, 12), replace=False) for i in range(n)}
    if which == "whole-data":
        return chosen
    return {name: dict.fromkeys(ids.tolist(), 4.0) for name, ids in chosen.items()}


@pytest.mark.parametrize("which", ["whole-data", "als", "mcmc"])
def test_a_batch_is_its_people_one_by_one_whatever_the_threads(which):
    histories = random_histories(600, which)
    fitted = copy.copy(model(which))
    many = fitted.recommend_for_many(histories, 7)
    assert many.users.tolist() == list(histories)
    for place, name in list(enumerate(histories))[::37]:
        alone = fitted.recommend_for(history=histories[name], n=7)
        for attribute in ("positions", "scores", "counts"):
            part = getattr(many, attribute)[place : place + 1]
            assert part.tobytes() == getattr(alone, attribute).tobytes()
    fitted.estimator_ = copy.copy(fitted.estimator_)
    fitted.estimator_.n_jobs = 3
    assert same_answers(fitted.recommend_for_many(histories, 7), many)
    if which != "whole-data":
        assert (many.predictions >= 1).all() and (many.predictions <= 5).all()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 59), max_size=20), st.randoms())
def test_a_list_is_a_bag_of_ids(places, random):
    fitted, items = model(), interactions().items.ids.tolist()
    bag = [items[place] for place in places]
    shuffled = random.sample(bag, len(bag))
    top = fitted.recommend_for(history=bag, n=60)
    assert same_answers(top, fitted.recommend_for(history=shuffled, n=60))
    counts = {item: bag.count(item) for item in bag}
    assert same_answers(top, fitted.recommend_for(history=counts, n=60))
    assert set(top.items[0].tolist()) == set(items) - set(bag)


def test_what_comes_back():
    fitted, items = model(), interactions().items.ids.tolist()
    ask = {"history": items[:3], "n": 60}
    everything = fitted.recommend_for(**ask, exclude_seen=False)
    assert set(everything.items[0].tolist()) == set(items)
    assert fitted.recommend_for(history=items[:3]).items.shape == (1, 10)
    without = fitted.recommend_for(**ask, exclude=items[3:5])
    assert set(without.items[0].tolist()) == set(items[5:])
    only = fitted.recommend_for(**ask, candidates=items[2:6])
    assert set(only.items[0].tolist()) == set(items[3:6])
    users = interactions().users.ids.tolist()
    ask = {"history": users[:3], "n": 26}
    assert set(fitted.users_for(**ask).items[0].tolist()) == set(users[3:])
    assert fitted.users_for(history=users[:3], n=4).items.shape == (1, 4)
    seen = fitted.users_for(**ask, exclude_seen=False)
    assert set(seen.items[0].tolist()) == set(users)
    named = fitted.users_for(**ask, exclude=users[3:5], candidates=users[2:8])
    assert set(named.items[0].tolist()) == set(users[5:8])
    nobody = fitted.users_for(**ask, candidates=users[:2])
    assert nobody.items.shape == (1, 0) and nobody.predictions.shape == (1, 0)
    frame = fitted.recommend_for(history=items[:3], n=2).to_frame("pandas")
    assert frame["rank"].tolist() == [1, 2]


def test_ids_never_seen():
    fitted, items = model(), interactions().items.ids.tolist()
    with refused(UnknownIdError, "unknown item id 99999"):
        fitted.recommend_for(history=[items[0], 99999])
    with refused(UnknownIdError, "unknown user id 1"):
        fitted.users_for(history=[1])
    known = fitted.recommend_for(history=items[:2])
    assert same_answers(
        known, fitted.recommend_for(history=[*items[:2], 99999], unknown="skip", exclude=[88888])
    )
    with refused(ValueError, "unknown", "skip", "'cold'"):
        fitted.recommend_for(history=items, unknown="cold")
    with refused(TypeError, "item ids are integers"):
        fitted.recommend_for(history=["a"])
    with refused(TypeError, "item ids", "integers or all strings"):
        fitted.recommend_for(history=[1.5])
    with refused(TypeError, "mapping from name to history", "list"):
        fitted.recommend_for_many([[1]])


def test_values_of_a_history():
    items = interactions().items.ids.tolist()
    with refused(ValueError, "values", "{item id: value}"):
        model("als").recommend_for(history=items[:2])
    with refused(ValueError, "values", "{user id: value}"):
        model("als").users_for(history=interactions().users.ids[:2])
    for bad in (0, -1.0):
        with refused(ValueError, "counts", "above 0"):
            model().recommend_for(history={items[0]: bad})
    with refused(ValueError, "nan", f"item {items[1]}", "finite"):
        model("als").recommend_for(history={items[0]: 1.0, items[1]: math.nan})
    with refused(ValueError, "1e+300", f"item {items[1]}", "float32"):
        model("als").recommend_for(history={items[0]: 1.0, items[1]: 1e300})
    for bad in ("5", None, True, [1.0]):
        with refused(TypeError, "map each item id to a number"):
            model("als").recommend_for(history={items[0]: bad})


@pytest.mark.parametrize("which", ["als", "adam", "mcmc"])
def test_the_unit_of_the_values_does_not_matter(which):
    data = interactions()
    history = dict(zip(data.items.ids[:4].tolist(), [1.0, 4.0, 2.0, 5.0], strict=True))
    wanted = model(which).recommend_for(history=history, n=5)
    for unit in (1e-8, 1e8):
        values = data.values.astype(np.float64) * unit
        other = Recommender(ESTIMATORS[which]).fit(data.replace(values=values))
        given = {item: value * unit for item, value in history.items()}
        found = other.recommend_for(history=given, n=5)
        assert found.items.tolist() == wanted.items.tolist()
        np.testing.assert_allclose(found.scores / unit, wanted.scores, rtol=1e-3)


def test_a_history_too_far_from_the_training_is_refused():
    data = interactions()
    tiny = Recommender(ESTIMATORS["als"]).fit(data.replace(values=data.values * 1e-12))
    with refused(ValueError, "history", "beyond float32"):
        tiny.recommend_for(history={data.items.ids[0].item(): 3e38})


def test_whole_data_items_have_no_history_beside_contexts():
    data = interactions("context")
    fitted = model("whole-data", "context")
    with refused(ValueError, "contexts", "features alone"):
        fitted.users_for(history=data.users.ids[:3])
    assert fitted.users_for(n=3).items.shape == (1, 3)
    assert fitted.users_for(n=3, context={"day": "sun"}).items.shape == (1, 3)


def test_a_history_column_holds_the_items_that_the_training_knew():
    """An item that is in the catalogue, but in no training row, is no part of a history."""
    data = interactions().with_history()
    fitted = Recommender(FMRanker(3, n_iter=3, random_state=0)).fit(data)
    met = np.unique(data.item_index)
    never = sorted(set(range(len(data.items))) - set(met.tolist()))
    assert never
    items = data.items.ids
    rows = fitted.catalog_.encoders["user"].rows(
        None, np.array([0, 3]), np.array([met[0], met[5], never[0]]), items
    )
    first = len(data.users)
    assert rows.indices.tolist() == [first, first + 5]
    np.testing.assert_allclose(rows.values, 1 / math.sqrt(2))


# --- models that were kept, or come from elsewhere ------------------------------------------------


@pytest.mark.parametrize("which", ESTIMATORS)
def test_a_saved_model_folds_in_to_the_same_bits(which, tmp_path):
    fitted, data = model(which, "everything"), interactions("everything")
    fitted.save(tmp_path / "model")
    ask = {"context": {"day": "sun", "hour": 2}, "n": 20}
    history = {int(item): 3.0 for item in data.items.ids[:9]}
    features = {"age": 33, "job": "nurse"}
    for other in (fmknn.load(tmp_path / "model"), pickle.loads(pickle.dumps(fitted))):
        a, b = (m.recommend_for(history=history, features=features, **ask) for m in (fitted, other))
        assert same_answers(a, b)
        assert a.predictions.tobytes() == b.predictions.tobytes()
        a, b = (m.users_for(features={"tags": ["a", "b"]}, **ask) for m in (fitted, other))
        assert same_answers(a, b)


def kept(path, which="whole-data", flavour="everything"):
    model(which, flavour).save(path)
    arrays, metadata = storage.load(path)
    return dict(arrays), copy.deepcopy(metadata)


def test_an_older_file_says_what_it_lacks(tmp_path):
    path = tmp_path / "model"
    arrays, metadata = kept(path, "als", "ids")
    del metadata["link"]["rows"], metadata["catalog"]["sides"]
    storage.save(path, arrays, metadata)
    older, user = fmknn.load(path), interactions().users.ids[:1]
    assert same_answers(older.recommend(user), model("als").recommend(user))
    for ask in (older.recommend_for, older.users_for):
        with refused(ValueError, "older file", "fit it again"):
            ask()
    arrays, metadata = kept(path, "als", "ids")
    del metadata["link"]["rows"]
    storage.save(path, arrays, metadata)
    with refused(ValueError, "does not say how it was trained", "fit it again"):
        fmknn.load(path).recommend_for(history={int(interactions().items.ids[0]): 3.0})


@pytest.mark.parametrize(
    "change",
    [
        {"alpha0": -1.0},
        {"alpha0": "1"},
        {"alpha0": True},
        {"alpha0": None},
        {"alpha0": 10**400},
        {"biases": 1},
        {"nu": [1.0]},
        {"nu": 1.5},
        {"count_power": 1e308},
        {"l2_factors": 1e300},
        {"loss": "squared"},
        {"loss": "bpr"},
        {"more": 1.0},
        [],
        "x",
        {"loss": "squared", **SquaredRow(1.0).to_state(), "drop": True},
    ],
)
def test_a_file_with_another_rule_is_refused(change, tmp_path):
    path = tmp_path / "model"
    arrays, metadata = kept(path)
    if isinstance(change, dict) and change.pop("drop", False):
        metadata["link"]["rows"] = change
    else:
        metadata["link"]["rows"] = (
            {**metadata["link"]["rows"], **change} if isinstance(change, dict) else change
        )
    storage.save(path, arrays, metadata)
    with refused(ModelFileError, path):
        fmknn.load(path)


def test_a_file_with_other_sides_is_refused(tmp_path):
    path = tmp_path / "model"
    arrays, metadata = kept(path)

    def changes(sides):
        age = sides["user"]["columns"][0]
        yield lambda: sides.pop("item")
        yield lambda: sides["user"].update(has_id=False)
        yield lambda: sides["user"].update(has_id=1)
        yield lambda: sides["user"].update(columns=[])
        yield lambda: sides["user"]["columns"].append(dict(age))
        for key, bad in (
            ("kind", "multi"),
            ("kind", "date"),
            ("kind", ["numeric"]),
            ("name", 3),
            ("scale", [1.0, 0.0]),
            ("scale", [0.0, 0.0, 0.0, 1.0]),
            ("scale", ["1", 0.0, 0.0, 1.0]),
            ("scale", None),
        ):
            yield lambda key=key, bad=bad: age.update({key: bad})

    n = sum(1 for _ in changes(metadata["catalog"]["sides"]))
    for which in range(n):
        other = copy.deepcopy(metadata)
        list(changes(other["catalog"]["sides"]))[which]()
        storage.save(path, arrays, other)
        with refused(ModelFileError, path):
            fmknn.load(path)


def test_parameters_from_elsewhere_have_no_rule():
    params = fmknn.FMParams(3.0, [0.0, 0.5, 0.1, 0.2], [[1.0], [2.0], [1.0], [-1.0]])
    for loss in ("squared", "whole-data"):
        other = Recommender.from_params(params, users=["bob", "ann"], items=[50, 22], loss=loss)
        with refused(ValueError, "from_params", "fit it again"):
            other.recommend_for(history={50: 1.0})
        assert other.recommend_for(n=2).items.tolist() == [[22, 50]]


def test_a_fitted_estimator_keeps_its_rule_only_as_long_as_its_parameters():
    solver = WholeData(n_iter=2, l2_factors=0.01, l2_linear=2, nu=0.5, count_power=1)
    estimator = FMRanker(2, solver=solver, random_state=0)
    with refused(ValueError, "does not say how it was trained"):
        estimator.row_rule()
    estimator.fit(interactions())
    rule = estimator.row_rule()
    assert rule == WholeDataRow(float(estimator.state_["alpha0"]), 0.01, 2.0, 0.5, 1.0, True)
    assert rule_of_state(rule.to_state()) == rule
    estimator.adopt(estimator.params_)
    with refused(ValueError, "does not say how it was trained"):
        estimator.row_rule()
    with refused(ValueError, "another loss"):
        estimator.set_row_rule(SquaredRow(1.0))


def test_before_fit():
    for ask in (Recommender().recommend_for, Recommender().users_for):
        with refused(ValueError, "not fitted"):
            ask(history=[1])


# --- the solver of rows --------------------------------------------------------------------------


def test_rows_that_too_little_is_known_of_are_small():
    """Without penalties one item leaves most of θ open: each coordinate explains as much, in its
    own units, and what the item says nothing of is 0."""
    partners = Partners(np.array([[3.0, 0.0], [0.0, 2.0]], np.float32), np.zeros(2), None)
    meetings = Meetings(np.array([0, 1]), np.array([0]), np.array([5.0]))
    rule = SquaredRow(1.0, 0.0, 0.0)
    theta = solve_rows(
        partners, np.zeros((1, 2)), np.zeros(1), meetings, rule, rule.prior(2, lambda: None)
    )
    np.testing.assert_allclose(theta, [[2.5 / 3, 0.0, 2.5]], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_a_prior_of_few_ids_can_be_inverted(n):
    theta = np.random.default_rng(0).normal(size=(n, 5))
    theta[:, 2] = 1.0
    mean, precision = SquaredRow(1.0).prior(4, lambda: theta)
    np.testing.assert_allclose(mean, theta.mean(axis=0))
    assert np.linalg.eigvalsh(precision).min() > 0


def test_no_factors_and_no_biases():
    for estimator in (
        FMRanker(0, n_iter=2, random_state=0),
        FMRanker(0, solver=WholeData(n_iter=2, biases=False), random_state=0),
        FMRegressor(0, solver="als", n_iter=2),
        FMRegressor(0, solver="mcmc", n_iter=2, random_state=0),
    ):
        fitted = Recommender(estimator).fit(interactions())
        top = fitted.recommend_for(history={int(interactions().items.ids[0]): 4.0})
        assert np.isfinite(top.scores).all()


def test_held_out_people_get_more_of_their_own_kind():
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.arange(1600), 40)
    likes = (users % 4 == items % 4) & (rng.random(1600) < 0.8)
    train = Interactions.from_arrays(users[likes & (users >= 8)], items[likes & (users >= 8)])
    fitted = Recommender(FMRanker(8, random_state=0)).fit(train)
    histories = {user: items[likes & (users == user)][::2] for user in range(8)}
    top = fitted.recommend_for_many(histories, 4)
    assert (top.items % 4 == top.users[:, None] % 4).all()


def test_the_protocol_of_strong_generalisation_takes_it():
    log = counted(interactions().replace(values=None))
    held_out = log.user_index < 6
    train = Interactions.from_arrays(log.user_ids[~held_out], log.item_ids[~held_out])
    fitted = Recommender(FMRanker(3, n_iter=3, random_state=0)).fit(train)
    known = np.isin(log.item_ids, train.items.ids)
    part = np.arange(len(log)) % 2 == 0
    measured = evaluate_fold_in(
        fitted, log.take(held_out & known & part), log.take(held_out & known & ~part), ["recall@20"]
    )
    assert 0 < measured.metrics["recall@20"] < 1


@pytest.mark.parametrize("estimator", [fmknn.FMRegressor(2, solver="als"), fmknn.FMRanker(2)])
def test_held_out_users_are_folded_in_with_all_that_their_rows_say(estimator):
    """Values of those who rate, repeats of those who take: as if asked one by one."""
    ratings, _ = fmknn.datasets.make_interactions(n_users=60, n_items=20, n_ratings=900)
    rows = np.r_[np.arange(len(ratings)), np.arange(0, len(ratings), 3)]
    train, fold_in, test = fmknn.splits.hold_out_users(ratings.take(rows), random_state=0)
    test = test.take(~np.isin(pair_keys(test), pair_keys(fold_in)))
    model = fmknn.Recommender(estimator).fit(train)
    got = fmknn.evaluate_fold_in(model, fold_in, test, "recall@5")["recall@5"]
    recalls = []
    for user in np.unique(test.user_ids).tolist():
        own, values = fold_in.item_ids[fold_in.user_ids == user], fold_in.values
        values = values[fold_in.user_ids == user]
        history = {
            item: float(values[own == item].mean())
            if model.predicts_values
            else float((own == item).sum())
            for item in np.unique(own).tolist()
        }
        top = set(model.recommend_for(history=history, n=5).items[0].tolist())
        wanted = set(test.item_ids[test.user_ids == user].tolist())
        recalls.append(len(top & wanted) / len(wanted))
    assert got == pytest.approx(np.mean(recalls))


def pair_keys(rows):
    return rows.user_index.astype(np.int64) * len(rows.items) + rows.item_index
