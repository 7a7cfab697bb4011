"""ALS and Gibbs sampling through the estimators and the Recommender."""

from __future__ import annotations

import numpy as np
import pytest
from realdata import movielens
from refusals import refused

import fmknn


@pytest.fixture(scope="module")
def ratings():
    return fmknn.datasets.make_interactions(
        n_users=40, n_items=25, n_ratings=500, context=5, random_state=0
    )[0]


@pytest.mark.parametrize("solver", ["als", "mcmc", fmknn.ALS(n_iter=3), fmknn.Gibbs(n_iter=4)])
def test_lists_are_those_of_brute_force_and_survive_a_file(ratings, solver, tmp_path):
    estimator = fmknn.FMRegressor(3, solver=solver, random_state=0)
    model = fmknn.Recommender(estimator).fit(ratings)
    (name,) = ratings.context
    context = {name: ratings.context[name].ids.ids[0]}
    top = model.recommend(model.users.ids, 25, context=context, exclude_seen=False)
    items = np.tile(model.items.ids, len(model.users))
    users = np.repeat(model.users.ids, len(model.items))
    scores = model.scores(users, items, context).reshape(len(model.users), -1)
    np.testing.assert_allclose(top.scores, -np.sort(-scores, axis=1), atol=1e-5)
    assert (
        top.predictions
        == model.predict(np.repeat(top.users, 25), top.items.ravel(), context).reshape(
            top.scores.shape
        )
    ).all()
    model.save(tmp_path / "model.fmknn")
    again = fmknn.load(tmp_path / "model.fmknn")
    same = again.recommend(model.users.ids, 25, context=context, exclude_seen=False)
    assert (same.items == top.items).all() and (same.scores == top.scores).all()
    params = {**model.estimator_.get_params(), "loss": "squared"}
    assert again.estimator_.get_params() == params


@pytest.mark.parametrize("solver", ["als", "mcmc"])
@pytest.mark.parametrize("stop", [1, 3])
def test_going_on_gives_the_same_bits(ratings, solver, stop, tmp_path):
    whole = fmknn.FMRegressor(3, solver=solver, n_iter=5, random_state=0).fit(ratings)
    path = tmp_path / "half.fmknn"
    callbacks = [fmknn.Checkpoint(path), lambda step: step.iteration == stop]
    half = fmknn.FMRegressor(3, solver=solver, n_iter=5, random_state=0, callbacks=callbacks)
    half.fit(ratings)
    resumed = fmknn.FMRegressor(3, solver=solver, n_iter=5).fit(ratings, start=path)
    assert (resumed.params_.V == whole.params_.V).all()
    assert (resumed.params_.w == whole.params_.w).all()
    assert resumed.params_.w0 == whole.params_.w0


@pytest.mark.parametrize("solver", ["als", "mcmc"])
def test_no_result_depends_on_the_threads(ratings, solver):
    one, two = (
        fmknn.FMRegressor(3, solver=solver, n_iter=3, random_state=0, n_jobs=n).fit(ratings)
        for n in (1, 2)
    )
    assert (one.params_.V == two.params_.V).all()


def test_probit_learns_two_classes(ratings):
    liked = ratings.replace(values=(ratings.values > np.median(ratings.values)).astype("float32"))
    model = fmknn.FMClassifier(3, loss="probit", solver="mcmc", n_iter=40, random_state=0)
    assert model.fit(liked).score(liked) > 0.8
    chance = model.predict_proba(liked)
    np.testing.assert_allclose(chance.sum(axis=1), 1.0)


def test_deviations_are_those_of_the_samples(ratings):
    model = fmknn.FMRegressor(3, solver="mcmc", n_iter=20, random_state=0).fit(ratings)
    mean, deviation = model.predict(ratings, return_std=True)
    assert (mean == model.predict(ratings)).all()
    assert (deviation > 0).mean() > 0.9


def test_a_loss_that_a_solver_has_not_is_refused(ratings):
    with refused(ValueError, "Gibbs", "probit", "logistic"):
        fmknn.FMClassifier(3, solver="mcmc", loss="logistic").fit(
            ratings.replace(values=ratings.values > 0)
        )
    with refused(ValueError, "ALS", "logistic", "adam"):
        fmknn.FMClassifier(3, solver="als").fit(ratings.replace(values=ratings.values > 0))


@pytest.mark.slow
def test_quality_on_movielens():
    errors = []
    for fold in ("u1", "u2", "u3", "u4", "u5"):
        train, test = (part.without_features() for part in movielens(fold=fold))
        model = fmknn.FMRegressor(8, solver="mcmc", random_state=0).fit(train)
        errors.append(np.sqrt(np.mean((model.predict(test) - test.values) ** 2)))
    assert np.mean(errors) <= 0.900
    train, test = (part.without_features() for part in movielens(fold="u1"))
    model = fmknn.FMRegressor(8, solver="als", random_state=0).fit(train)
    assert np.sqrt(np.mean((model.predict(test) - test.values) ** 2)) <= 0.923
