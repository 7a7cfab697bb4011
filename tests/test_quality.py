"""Quality floors on real data, with the defaults: what a change must not lose."""

from __future__ import annotations

import numpy as np
import pytest
from realdata import movielens

import fmknn

FOLDS = ("u1", "u2", "u3", "u4", "u5")


def fold_rmse(fold: str, *, features: bool, seed: int = 0) -> float:
    parts = movielens(fold=fold)
    train, test = parts if features else (part.without_features() for part in parts)
    model = fmknn.FMRegressor(random_state=seed).fit(train)
    return fmknn.metrics.rmse(test.values, model.predict(test))


def test_ml_100k_u1():
    assert fold_rmse("u1", features=False) <= 0.919


def test_ml_100k_side_features_do_not_hurt():
    assert fold_rmse("u3", features=True) <= fold_rmse("u3", features=False) + 0.001


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("features", "floor"), [(False, 0.911), (True, 0.911)])
def test_ml_100k_all_folds(seed, features, floor):
    assert np.mean([fold_rmse(fold, features=features, seed=seed) for fold in FOLDS]) <= floor


@pytest.mark.slow
def test_ml_1m():
    ratings = movielens("1m").without_features()
    train, test = fmknn.splits.random(ratings, test=0.1, random_state=0)
    model = fmknn.FMRegressor(random_state=0).fit(train)
    assert fmknn.metrics.rmse(test.values, model.predict(test)) <= 0.850


@pytest.mark.slow
def test_ml_1m_liked_or_not():
    ratings = movielens("1m").without_features()
    labels = ratings.replace(values=(ratings.values >= 4).astype(np.float32))
    train, test = fmknn.splits.random(labels, test=0.1, random_state=0)
    assert fmknn.FMClassifier(random_state=0).fit(train).score(test) >= 0.742


@pytest.mark.slow
def test_the_classical_one_hot_matrix_gives_the_same_quality_on_ml_1m():
    """A plain matrix takes the path of the entity blocks by itself."""
    import scipy.sparse as sp

    ratings = movielens("1m").without_features()
    n = len(ratings)
    width = len(ratings.users), len(ratings.items)
    sides = [
        sp.csr_array((np.ones(n, np.float32), (np.arange(n), index)), shape=(n, columns))
        for index, columns in zip((ratings.user_index, ratings.item_index), width, strict=True)
    ]
    X = sp.hstack(sides, format="csr")
    one = fmknn.FMRegressor(random_state=0, n_iter=2).fit(X, ratings.values)
    two = fmknn.FMRegressor(random_state=0, n_iter=2).fit(ratings)
    np.testing.assert_array_equal(one.params_.V, two.params_.V)
