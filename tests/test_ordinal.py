"""Graded ratings by the ordinal loss: samples with their cutpoints, from the chain to the lists."""

from __future__ import annotations

import functools
import math
import pickle
import statistics
import warnings
from itertools import pairwise

import naive
import numpy as np
import pytest
from planted import interactions, same_answers, some_context
from realdata import movielens
from refusals import refused
from textbook import Textbook, assert_same_list

import fmknn
from fmknn import FMClassifier, FMParams, FMRegressor, Gibbs, Posterior, Recommender
from fmknn.errors import ModelFileError
from fmknn.model import storage
from fmknn.model.posterior import model_of_state

GRADES = [1.0, 2.0, 3.0, 4.0, 5.0]


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def grade_chances(score, cutpoints):
    """P(y = c) = Φ(γ_c - score) - Φ(γ_{c-1} - score) of each grade, in plain Python."""
    below = [0.0, *(phi(cutpoint - score) for cutpoint in cutpoints.tolist()), 1.0]
    return [high - low for low, high in pairwise(below)]


def expected_grade(score, cutpoints, grades=GRADES):
    return naive.dot(grade_chances(score, cutpoints), grades)


def same_bits(one, other):
    a, b = one.to_state(), other.to_state()
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def matrix():
    """X and grades that follow it, all five among them."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 4)).astype(np.float32)
    y = np.digitize(X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=80), [-2, -0.7, 0.5, 2])
    return X, y + 1.0


def ordinal(k=3, n_iter=6, **settings):
    return FMRegressor(k, loss="ordinal", n_iter=n_iter, random_state=0, **settings)


@functools.cache
def recommender(flavour="ids", index="exact"):
    return Recommender(ordinal(solver=Gibbs(burn_in=1)), index=index).fit(interactions(flavour))


@functools.cache
def books(flavour="ids"):
    """The textbook of each sample."""
    samples = recommender(flavour).params_.samples()
    return [Textbook(interactions(flavour), sample) for sample in samples]


def item_predictions(flavour, **ids):
    """What is predicted of all items, by the formula."""
    each = [
        [expected_grade(score, book.params.cutpoints) for score in book.item_scores(**ids)]
        for book in books(flavour)
    ]
    return np.mean(each, axis=0)


# --- what is learned ---------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["correlated", "independent"])
def test_samples_have_cutpoints_and_no_bias(prior):
    X, y = matrix()
    model = ordinal(solver=Gibbs(burn_in=2, prior=prior)).fit(X, y)
    posterior = model.params_
    assert repr(posterior) == "Posterior(4 samples, 4 features, 3 factors)"
    assert model.grades_.tolist() == GRADES and model.grades_.dtype == np.float64
    assert model.target_range_ == (1.0, 5.0)
    assert posterior.cutpoints.shape == (4, 4) and posterior.cutpoints.dtype == np.float64
    assert not posterior.cutpoints.flags.writeable and posterior.w0 == 0.0
    for sample, cutpoints in zip(posterior.samples(), posterior.cutpoints, strict=True):
        assert np.array_equal(sample.cutpoints, cutpoints) and (np.diff(cutpoints) > 0).all()
        assert not sample.cutpoints.flags.writeable and sample.w0 == 0.0
    assert len(np.unique(posterior.cutpoints[:, 0])) > 1  # they are sampled, not estimated


def test_other_losses_have_none():
    X, y = matrix()
    for model in (
        FMRegressor(2, solver="mcmc", n_iter=2).fit(X, y),
        FMRegressor(2, solver="als", n_iter=2).fit(X, y),
        FMClassifier(2, solver="mcmc", n_iter=2).fit(X, y > 3),
    ):
        assert (
            model.params_.cutpoints.shape[-1] == 0 and "cutpoints" not in model.params_.to_state()
        )
        assert not hasattr(model, "grades_") and "kept_cutpoints" not in model.state_


def test_only_the_order_of_the_grades_matters():
    X, y = matrix()
    one, other = ordinal().fit(X, y), ordinal().fit(X, -10.0 + 2.0**y)
    assert same_bits(one.params_, other.params_)
    assert other.grades_.tolist() == [-8.0, -6.0, -2.0, 6.0, 22.0]
    assert one.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()
    assert other.predict(X) == pytest.approx(other.predict_proba(X) @ other.grades_, abs=1e-12)


def test_predictions_are_those_of_each_sample_with_its_own_cutpoints():
    X, y = matrix()
    model = ordinal(solver=Gibbs(burn_in=2)).fit(X, y)
    mean, deviation = model.predict(X, return_std=True)
    chances, deviations = model.predict_proba(X, return_std=True)
    assert chances.shape == deviations.shape == (80, 5)
    for row, x in enumerate(X):
        each = [
            grade_chances(naive.fm_score(fm.w0, fm.w, fm.V, x), fm.cutpoints)
            for fm in model.params_.samples()
        ]
        grades = [naive.dot(chance, GRADES) for chance in each]
        assert mean[row] == pytest.approx(statistics.fmean(grades), abs=1e-5)
        assert deviation[row] == pytest.approx(statistics.pstdev(grades), abs=1e-5)
        assert chances[row] == pytest.approx(np.mean(each, axis=0), abs=1e-5)
        assert deviations[row] == pytest.approx(np.std(each, axis=0), abs=1e-5)
    assert model.predict(X).tobytes() == mean.tobytes()
    assert model.predict_proba(X).tobytes() == chances.tobytes()
    assert (
        np.ptp(model.params_.cutpoints, axis=0).min() > 0.05
    )  # those of another sample would not do


def test_probabilities_sum_to_1_and_give_the_prediction():
    data = interactions("everything")
    model = ordinal().fit(data)
    chances = model.predict_proba(data)
    assert (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(chances @ model.grades_, model.predict(data), rtol=0, atol=1e-12)


def test_it_learns():
    X, y = matrix()
    model = ordinal(n_iter=60).fit(X, y)
    assert model.score(X, y) > 0.7
    assert (model.grades_[model.predict_proba(X).argmax(axis=1)] == y).mean() > 0.6
    assert np.corrcoef(model.linear_predictor(X), y)[0, 1] > 0.8


def test_two_grades_have_the_probabilities_of_the_probit():
    """The first cutpoint is minus the global bias; what differs is its prior."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    y = (X @ [1.0, -0.5, 0.0] + 0.4 + rng.normal(size=400) > 0).astype(float)
    settings = {"solver": Gibbs(n_iter=1000, burn_in=50, n_kept_samples=950), "random_state": 0}
    grades = FMRegressor(0, loss="ordinal", **settings).fit(X, y)
    classes = FMClassifier(0, loss="probit", **settings).fit(X, y)
    one, other = (model.predict_proba(X, return_std=True) for model in (grades, classes))
    np.testing.assert_allclose(one[0], other[0], atol=0.02)
    np.testing.assert_allclose(one[1], other[1], atol=0.01)
    np.testing.assert_allclose(grades.predict(X), one[0][:, 1], atol=1e-12)
    bias = [sample.w0 for sample in classes.params_.samples()]
    cutpoint = grades.params_.cutpoints[:, 0]
    assert -cutpoint.mean() == pytest.approx(np.mean(bias), abs=0.03)
    assert cutpoint.std() == pytest.approx(np.std(bias), rel=0.2)


def test_deviations_of_a_classifier():
    X, y = matrix()
    model = FMClassifier(2, solver="mcmc", n_iter=6, random_state=0).fit(X, y > 2)
    chances, deviations = model.predict_proba(X, return_std=True)
    each = [[phi(score) for score in fm.score(X)] for fm in model.params_.samples()]
    assert chances[:, 1] == pytest.approx(np.mean(each, axis=0), abs=1e-9)
    for column in deviations.T:
        assert column == pytest.approx(np.std(each, axis=0), abs=1e-9)
    assert model.predict_proba(X).tobytes() == chances.tobytes()
    with refused(ValueError, "return_std", "'yes'"):
        model.predict_proba(X, return_std="yes")


# --- the same bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_going_on_from_a_checkpoint_gives_the_same_bits(stop, tmp_path):
    data, path = interactions("everything"), tmp_path / "half.fmknn"
    settings = {"solver": Gibbs(burn_in=2, n_kept_samples=3)}
    whole = ordinal(**settings).fit(data)
    callbacks = [fmknn.Checkpoint(path), lambda step: step.iteration == stop]
    ordinal(**settings, callbacks=callbacks).fit(data)
    resumed = ordinal(**settings).fit(data, start=path)
    assert same_bits(resumed.params_, whole.params_)
    assert resumed.state_.keys() == whole.state_.keys()
    assert all(np.array_equal(resumed.state_[name], whole.state_[name]) for name in whole.state_)


def test_no_number_of_threads_changes_a_bit():
    sizes = {"n_users": 900, "n_items": 800, "n_ratings": 4000}
    data = fmknn.datasets.make_interactions(**sizes, random_state=0)[0]
    data = data.replace(values=np.clip(np.rint(data.values), 1, 5))
    one, two, three = (ordinal(n_jobs=n).fit(data) for n in (1, 2, 3))
    assert same_bits(one.params_, two.params_) and same_bits(one.params_, three.params_)
    for ask in ("predict", "predict_proba"):
        assert getattr(one, ask)(data).tobytes() == getattr(three, ask)(data).tobytes()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("cutpoint_position", None, ["no cutpoints"]),
        ("cutpoint_position", lambda old: old[:-1], ["4", "shape (3,)"]),
        ("cutpoint_position", lambda old: old * np.nan, ["finite"]),
        ("kept_cutpoints", None, ["kept_cutpoints"]),
        ("kept_cutpoints", lambda old: old[:, :-1], ["kept_cutpoints", "(2, 3)", "(2, 4)"]),
        ("kept_cutpoints", lambda old: old[:-1], ["kept_cutpoints", "(1, 4)"]),
        ("kept_cutpoints", lambda old: old * np.inf, ["kept_cutpoints", "infinity"]),
        ("kept_cutpoints", lambda old: old[:, ::-1], ["cutpoints", "increasing"]),
    ],
)
def test_a_start_that_does_not_fit_is_refused(name, change, words):
    X, y = matrix()
    settings = {"solver": Gibbs(burn_in=1)}
    start = dict(ordinal(**settings, n_iter=3).fit(X, y).state_)
    old = start.pop(name)
    if change is not None:
        start[name] = change(old)
    model = ordinal(**settings)
    with refused(ValueError, *words):
        model.fit(X, y, start=start)
    assert not hasattr(model, "params_") and not hasattr(model, "grades_")


def test_a_start_of_another_number_of_grades_or_another_loss_is_refused():
    X, y = matrix()
    start = ordinal(n_iter=3).fit(X, y).state_
    with refused(ValueError, "3 finite cutpoint positions", "(4,)"):
        ordinal().fit(X, np.minimum(y, 4), start=start)
    probit = FMClassifier(3, solver="mcmc", n_iter=3).fit(X, y > 2).state_
    with refused(ValueError, "another loss"):
        ordinal().fit(X, y, start=probit)


# --- lists and files ---------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["ids", "everything"])
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_lists_rank_by_the_mean_score_and_tell_expected_grades(flavour, index):
    model, context = recommender(flavour, index), some_context(flavour)
    users = model.users.ids[:6]
    top = model.recommend(users, 60, context=context)
    for row, user in enumerate(users.tolist()):
        count = top.counts[row]
        found = top.positions[row, :count], top.scores[row, :count]
        each = [book.item_scores(user=user, **context) for book in books(flavour)]
        if index == "exact":
            scores = np.mean(each, axis=0).tolist()
            assert_same_list(*found, scores, 60, books(flavour)[0].seen(user))
        expected = item_predictions(flavour, user=user, **context)
        assert top.predictions[row, :count] == pytest.approx(expected[found[0]], abs=1e-5)
        assert np.isnan(top.predictions[row, count:]).all()


def test_predictions_of_lists_pairs_and_rows_are_the_same():
    model, data = recommender("everything"), interactions("everything")
    context = {name: column.ids.ids[column.index] for name, column in data.context.items()}
    predicted = model.predict(data.user_ids, data.item_ids, context)
    assert predicted == pytest.approx(model.estimator_.predict(data), abs=1e-5)
    top = model.recommend(model.users.ids, 5, context=some_context("everything"))
    pairs = np.repeat(top.users, 5), top.items.ravel(), some_context("everything")
    assert model.predict(*pairs).tobytes() == top.predictions.tobytes()
    rmse = model.evaluate(data, ["rmse"], allow_overlap=True)["rmse"]
    assert rmse == pytest.approx(naive.rmse(predicted.tolist(), data.values.tolist()))


def test_a_grade_that_training_has_not_is_measured_as_any_other_number():
    data = interactions()
    train, test = data.take(data.values < 5), data.take(data.values == 5)
    model = Recommender(ordinal()).fit(train)
    assert model.estimator_.grades_.tolist() == [1.0, 2.0, 3.0, 4.0]
    predicted = model.predict(test.user_ids, test.item_ids)
    assert predicted.max() < 4
    rmse = model.evaluate(test, ["rmse"], allow_overlap=True)["rmse"]
    assert rmse == pytest.approx(naive.rmse(predicted.tolist(), test.values.tolist()))


def test_a_file_gives_the_same_bits(tmp_path):
    model, context = recommender("everything"), some_context("everything")
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    assert same_bits(loaded.params_, model.params_)
    assert loaded.estimator_.link_state() == model.estimator_.link_state()
    assert loaded.estimator_.grades_.tolist() == GRADES
    users = model.users.ids
    tops = [one.recommend(users, 9, context=context) for one in (model, loaded)]
    assert same_answers(*tops) and tops[0].predictions.tobytes() == tops[1].predictions.tobytes()
    X = np.eye(model.params_.n_features)
    a, b = (one.estimator_.params_ for one in (model, loaded))
    chances = loaded.estimator_.predict_proba(X)
    assert chances.shape == (len(X), 5) and a.score(X).tobytes() == b.score(X).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda old: old[:, :-1],
        lambda old: old[:, :0],
        lambda old: old[:-1],
        lambda old: old[0],
        lambda old: old[:, ::-1],
        lambda old: old * 0.0,
        lambda old: np.where(old == old.max(), np.inf, old),
        lambda old: np.where(old == old.max(), np.nan, old),
        lambda old: old.astype(np.int64),
        lambda old: old.astype(str).astype(object),
        lambda old: np.concatenate([old, old[:, -1:] + 1.0], axis=1),
        None,
    ],
)
def test_a_file_with_damaged_cutpoints_is_refused(change, tmp_path):
    path = tmp_path / "model.fmknn"
    recommender().save(path)
    arrays, metadata = storage.load(path)
    arrays = dict(arrays)
    old = arrays.pop("model/cutpoints")
    if change is not None:
        arrays["model/cutpoints"] = change(old)
    storage.save(path, arrays, metadata)
    with warnings.catch_warnings(), refused(ModelFileError, path):
        warnings.simplefilter("error")
        fmknn.load(path)


@pytest.mark.parametrize(
    "link",
    [
        {"grades": [1.0, 2.0, 3.0, 4.0]},
        {"grades": [1.0, 2.0, 3.0, 4.0, 4.5, 5.0]},
        {"grades": [1.0, 3.0, 2.0, 4.0, 5.0]},
        {"grades": [1.0, 2.0, 2.0, 4.0, 5.0]},
        {"grades": [1.0, 2.0, 3.0, 4.0, 6.0]},
        {"grades": [0.0, 2.0, 3.0, 4.0, 5.0]},
        {"grades": [1.0, 2.0, "3", 4.0, 5.0]},
        {"grades": [1.0, 2.0, None, 4.0, 5.0]},
        {"grades": [True, 2.0, 3.0, 4.0, 5.0]},
        {"grades": [1.0, 2.0, [3.0], 4.0, 5.0]},
        {"grades": "12345"},
        {"grades": {"1": 2}},
        {"grades": []},
        {"grades": None},
        {"grades": 5},
        {"grades": [1.0, 2.0, 3.0, 4.0, 10**400], "target_range": [1.0, 10**400]},
        {"grades": GRADES, "target_range": [1.0, 4.0]},
        {},
    ],
    ids=str,
)
def test_a_file_with_damaged_grades_is_refused(link, tmp_path):
    path = tmp_path / "model.fmknn"
    recommender().save(path)
    arrays, metadata = storage.load(path)
    link = {"target_range": [1.0, 5.0], **link}
    storage.save(path, arrays, {**metadata, "link": link})
    with warnings.catch_warnings(), refused(ModelFileError, path):
        warnings.simplefilter("error")
        fmknn.load(path)


def test_a_file_of_classes_or_plain_ratings_has_no_cutpoints(tmp_path):
    path = tmp_path / "model.fmknn"
    X = interactions()
    classes = X.replace(values=(X.values > 3).astype(np.float32))
    for estimator, data in (
        (FMClassifier(2, solver="mcmc", n_iter=2), classes),
        (FMRegressor(2, solver="mcmc", n_iter=2), X),
    ):
        Recommender(estimator).fit(data).save(path)
        arrays, metadata = storage.load(path)
        assert "model/cutpoints" not in arrays
        for cutpoints in (np.zeros((1, 1)), np.zeros((1, 0))):
            storage.save(path, {**arrays, "model/cutpoints": cutpoints}, metadata)
            with refused(ModelFileError, path, "cutpoints"):
                fmknn.load(path)


def test_a_model_that_was_trained_elsewhere(tmp_path):
    ids, data = recommender(), interactions()
    users, items = ids.users.ids, ids.items.ids
    make = functools.partial(Recommender.from_params, ids.params_, users=users, items=items)
    model = make(seen=data, loss="ordinal")
    a, b = (one.recommend(users, 9) for one in (ids, model))
    assert same_answers(a, b) and a.predictions.tobytes() == b.predictions.tobytes()
    model.save(tmp_path / "model.fmknn")
    c = fmknn.load(tmp_path / "model.fmknn").recommend(users, 9)
    assert a.predictions.tobytes() == c.predictions.tobytes()
    for seen in (None, (data.user_ids, data.item_ids), data.replace(values=None)):
        with refused(ValueError, "5 grades", "seen", "0 found"):
            make(seen=seen, loss="ordinal")
    with refused(ValueError, "5 grades", "4 found"):
        make(seen=data.take(data.values < 5), loss="ordinal")
    for loss in ("squared", "logistic", "probit"):
        with refused(ValueError, "cutpoints", loss):
            make(seen=data, loss=loss)
    plain = FMParams(0.0, np.zeros(len(users) + len(items)), np.zeros((len(users) + len(items), 1)))
    with refused(ValueError, "no cutpoints", "ordinal"):
        Recommender.from_params(plain, users=users, items=items, seen=data, loss="ordinal")


# --- the parameters themselves -----------------------------------------------------------------


def test_cutpoints_survive_states_and_pickles():
    one = FMParams(0.0, [0.5], [[1.0]], [-1, 0.25])
    several = Posterior([0, 0], [[0.5], [1]], [[[1]], [[2]]], [[-1, 0.25], [0, 3]])
    for model in (one, several):
        for again in (model_of_state(model.to_state()), pickle.loads(pickle.dumps(model))):
            assert type(again) is type(model) and same_bits(again, model)
            assert again.cutpoints.dtype == np.float64 and not again.cutpoints.flags.writeable
    assert [sample.cutpoints.tolist() for sample in several.samples()] == [[-1, 0.25], [0, 3]]
    old = {name: array for name, array in several.to_state().items() if name != "cutpoints"}
    assert model_of_state(old).cutpoints.shape == (2, 0)
    assert FMParams(0.0, [0.5], [[1.0]]).cutpoints.shape == (0,)


@pytest.mark.parametrize(
    "cutpoints", [[0, 0], [1, 0], [0, np.nan], [np.inf], [[0, 1]], 3.0, [-np.inf, 0]], ids=str
)
def test_cutpoints_that_are_none_are_refused(cutpoints):
    with refused(ValueError, "cutpoints", "increasing"):
        FMParams(0.0, [0.5], [[1.0]], cutpoints)
    if np.shape(cutpoints) != (1, 2):
        with refused(ValueError, "cutpoints"):
            Posterior([0], [[0.5]], [[[1.0]]], [cutpoints] if np.ndim(cutpoints) else cutpoints)
    with refused(ValueError, "cutpoints of shape", "2 samples"):
        Posterior([0, 0], [[0.5], [1]], [[[1]], [[2]]], [[0, 1]])


# --- settings and refusals ---------------------------------------------------------------------


def test_only_an_ordinal_regressor_has_probabilities():
    X, y = matrix()
    assert hasattr(ordinal(), "predict_proba") and not hasattr(FMRegressor(), "predict_proba")
    with refused(AttributeError, "FMRegressor.predict_proba", 'loss="ordinal"'):
        FMRegressor(n_iter=1).fit(X, y).predict_proba(X)
    with refused(ValueError, "not fitted"):
        ordinal().predict_proba(X)
    model = ordinal().fit(X, y)
    with refused(ValueError, "return_std", "1"):
        model.predict_proba(X, return_std=1)
    # what was learned counts, not what the next fit is to learn
    model.loss = "squared"
    assert model.predict_proba(X).shape == (80, 5)
    model.fit(X, y)
    assert not hasattr(model, "predict_proba") and not hasattr(model, "grades_")
    model.loss = "ordinal"
    assert not hasattr(model, "predict_proba")


def test_the_link_asks_for_the_sample_of_the_scores():
    X, y = matrix()
    model = ordinal().fit(X, y)
    scores, sample = np.array([[-1.0, 0.0], [0.5, 30.0]]), next(model.params_.samples())
    linked = model.link(scores, sample)
    expected = [[expected_grade(s, sample.cutpoints) for s in row] for row in scores.tolist()]
    assert linked == pytest.approx(np.array(expected), abs=1e-12)
    for wrong in (None, FMParams(0, [0], [[0]]), FMParams(0, [0], [[0]], [0.0])):
        with refused(ValueError, "5 grades", "4 cutpoints"):
            model.link(scores, wrong)


@pytest.mark.parametrize(("y", "word"), [(np.full(300, 3.0), "only 3"), (np.arange(300.0), "256")])
def test_too_few_grades_or_too_many(y, word):
    model = ordinal()
    with refused(ValueError, "grades", 'loss="squared"', word):
        model.fit(np.ones((300, 2)), y)
    assert not hasattr(model, "params_")


def test_weights_and_other_solvers_are_refused():
    X, y = matrix()
    with refused(ValueError, "weights", "squared", "ordinal"):
        ordinal().fit(X, y, weights=np.ones(80))
    for solver in ("als", "adam"):
        with refused(ValueError, "ordinal", "FMRegressor", "mcmc"):
            ordinal(solver=solver).fit(X, y)
    with refused(ValueError, "FMClassifier", "'ordinal'"):
        FMClassifier(loss="ordinal").fit(X, y > 2)


# --- early stopping ----------------------------------------------------------------------------


def test_early_stopping_measures_predictions():
    X, y = matrix()
    stopping = fmknn.EarlyStopping(X[60:], y[60:], patience=3)
    settings = {"solver": Gibbs(n_iter=60, burn_in=5), "random_state": 0, "callbacks": [stopping]}
    model = FMRegressor(2, loss="ordinal", **settings).fit(X[:60], y[:60])
    error = naive.rmse(model.predict(X[60:]).tolist(), y[60:].tolist())
    assert min(stopping.scores_) == pytest.approx(error, rel=1e-12)
    assert len(stopping.scores_) == np.argmin(stopping.scores_) + 4 < 60
    assert not any(hasattr(callback, "grades_") for callback in settings["callbacks"])

    labels = y > 2
    stopping = fmknn.EarlyStopping(X[60:], labels[60:], patience=3)
    settings["callbacks"] = [stopping]
    model = FMClassifier(2, loss="probit", **settings).fit(X[:60], labels[:60])
    chances = model.predict_proba(X[60:])[:, 1].tolist()
    loss = statistics.fmean(
        -math.log(chance if label else 1 - chance)
        for chance, label in zip(chances, labels[60:].tolist(), strict=True)
    )
    assert min(stopping.scores_) == pytest.approx(loss, rel=1e-9)


def test_early_stopping_goes_on_from_a_checkpoint(tmp_path):
    X, y = matrix()
    path = tmp_path / "half.fmknn"

    def fit(*callbacks, **how):
        stopping = fmknn.EarlyStopping(X[60:], y[60:], patience=6)
        model = ordinal(n_iter=12, callbacks=[stopping, *callbacks])
        return model.fit(X[:60], y[:60], **how), stopping

    whole, stopping = fit()
    fit(fmknn.Checkpoint(path), lambda step: step.iteration == 4)
    resumed, again = fit(start=path)
    assert again.scores_ == stopping.scores_ and same_bits(resumed.params_, whole.params_)


def test_a_log_loss_is_finite_where_a_class_is_certain_and_wrong():
    X = np.array([[1.0], [-1.0]] * 50)
    stopping = fmknn.EarlyStopping(1e6 * X[:2], [0, 1])
    FMClassifier(0, n_iter=2, random_state=0, callbacks=[stopping]).fit(X, X[:, 0] > 0)
    assert np.isfinite(stopping.scores_).all() and max(stopping.scores_) > 30


# --- real data ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_quality_on_movielens():
    train, test = (part.without_features() for part in movielens(fold="u1"))
    grades, numbers = (
        FMRegressor(8, solver="mcmc", loss=loss, n_iter=100, random_state=0).fit(train)
        for loss in ("ordinal", "squared")
    )
    errors = [fmknn.metrics.rmse(test.values, model.predict(test)) for model in (grades, numbers)]
    assert errors[0] <= errors[1] + 0.002
    # and the probabilities are of use: better than the shares of the grades
    places = np.searchsorted(grades.grades_, test.values)
    shares = np.bincount(np.searchsorted(grades.grades_, train.values)) / len(train)
    chances = grades.predict_proba(test)[np.arange(len(test)), places]
    assert -np.log(chances).mean() < -np.log(shares[places]).mean() - 0.1
