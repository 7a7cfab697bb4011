"""Recommender.from_params: a model trained elsewhere, behind ids and an index."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fmknn


@pytest.fixture
def trained():
    """A fitted model on ids alone, and the same columns in another order."""
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=30, n_items=20, n_ratings=300, user_features=False, item_features=False
    )
    model = fmknn.Recommender(fmknn.FMRegressor(4, solver="adam", random_state=0)).fit(ratings)
    generator = np.random.default_rng(1)
    users, items = generator.permutation(30), generator.permutation(20)
    order = np.concatenate([users, 30 + items])
    params = model.params_
    shuffled = fmknn.FMParams(params.w0, params.w[order], params.V[order])
    return ratings, model, shuffled, model.users.ids[users], model.items.ids[items]


def test_a_model_of_which_nobody_has_seen_anything_is_saved_and_loaded(tmp_path):
    params = fmknn.FMParams(3.0, [0.0, 0.5, 0.1, 0.2], [[1.0], [2.0], [1.0], [-1.0]])
    model = fmknn.Recommender.from_params(params, users=["bob", "ann"], items=[50, 22])
    model.save(tmp_path / "model")
    loaded = fmknn.load(tmp_path / "model")
    assert loaded.recommend(["ann"], n=2).items.tolist() == [[50, 22]]
    assert loaded.n_training_rows(["ann"]).tolist() == [0]


def test_gives_the_answers_of_the_fitted_model(trained, tmp_path):
    ratings, model, params, users, items = trained
    same = fmknn.Recommender.from_params(params, users=users, items=items, seen=ratings)
    for n, options in ((5, {}), (20, {"exclude_seen": False}), (3, {"candidates": items[:6]})):
        a, b = (one.recommend(model.users.ids, n, **options) for one in (model, same))
        assert (a.items == b.items).all()
        assert (a.scores == b.scores).all()
        np.testing.assert_array_equal(a.predictions, b.predictions)
    assert (same.predict(users[:20], items) == model.predict(users[:20], items)).all()
    assert same.evaluate(ratings, ["rmse"], allow_overlap=True)["rmse"] == pytest.approx(
        model.evaluate(ratings, ["rmse"], allow_overlap=True)["rmse"]
    )
    same.save(tmp_path / "model.fmknn")
    again = fmknn.load(tmp_path / "model.fmknn")
    assert (again.recommend(users, 5).items == same.recommend(users, 5).items).all()


def test_without_seen_pairs_nothing_is_left_out_or_clipped(trained):
    _, _, params, users, items = trained
    same = fmknn.Recommender.from_params(params, users=users, items=items, index="ivf")
    assert (same.recommend(users, 20).counts == 20).all()
    assert not same.seen_pairs(users[:2], items[:2]).any()
    assert (same.predict(users[:20], items) == same.scores(users[:20], items)).all()


def test_classes_are_0_and_1(trained):
    _, _, params, users, items = trained
    model = fmknn.Recommender.from_params(params, users=users, items=items, loss="logistic")
    scores = model.scores(users[:3], items[:3])
    np.testing.assert_allclose(model.predict(users[:3], items[:3]), 1 / (1 + np.exp(-scores)))


def test_refuses_what_does_not_fit(trained):
    _, _, params, users, items = trained
    make = fmknn.Recommender.from_params
    with refused(ValueError, "50 features", "29 users", "20 items"):
        make(params, users=users[1:], items=items)
    with refused(ValueError, "user ids are repeated"):
        make(params, users=[users[0], *users[:-1]], items=items)
    with refused(ValueError, "loss", "hinge"):
        make(params, users=users, items=items, loss="hinge")
    with refused(TypeError, "FMParams", "dict"):
        make({}, users=users, items=items)
    with refused(ValueError, "999"):
        make(params, users=users, items=items, seen=([999], [items[0]]))
