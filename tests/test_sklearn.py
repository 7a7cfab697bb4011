"""FMRegressor and FMClassifier behave as scikit-learn's tools expect."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fmknn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that they do not inherit from BaseEstimator is on purpose
    with_checks = parametrize_with_checks(
        [
            fmknn.FMRegressor(n_factors=4),
            fmknn.FMRegressor(n_factors=4, solver="als"),
            fmknn.FMRegressor(n_factors=4, solver="adam"),
            fmknn.FMClassifier(n_factors=4),
            fmknn.FMClassifier(n_factors=4, solver="mcmc"),
        ],
        expected_failed_checks=lambda estimator: (
            {"check_decision_proba_consistency": "mean probabilities rank unlike mean scores"}
            if estimator.solver == "mcmc"
            else {}
        ),
    )


@with_checks
@pytest.mark.filterwarnings("ignore")
def test_estimator_checks(estimator, check):
    check(estimator)


def test_clone_keeps_the_solver_and_its_settings():
    model = fmknn.FMRegressor(8, solver=fmknn.Adam(epochs=3), random_state=1)
    copy = clone(model).set_params(solver__epochs=5)
    assert model.solver.epochs == 3
    assert copy.solver.epochs == 5
    assert copy.get_params()["solver__epochs"] == 5


def test_set_params_names_the_unknown():
    with pytest.raises(ValueError, match="Invalid parameter 'n_factor'"):
        fmknn.FMRegressor().set_params(n_factor=3)
    with pytest.raises(ValueError, match="no parameters of its own"):
        fmknn.FMRegressor().set_params(solver__epochs=3)


def test_kinds():
    assert is_regressor(fmknn.FMRegressor())
    assert is_classifier(fmknn.FMClassifier())


def test_works_in_a_pipeline_and_a_grid_search():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)) * 100
    y = X[:, 0] / 100 + X[:, 1] * X[:, 2] / 10_000
    pipeline = make_pipeline(MaxAbsScaler(), fmknn.FMRegressor(random_state=0, n_iter=60))
    search = GridSearchCV(pipeline, {"fmregressor__n_factors": [0, 8]}, cv=3).fit(X, y)
    assert search.best_params_ == {"fmregressor__n_factors": 8}  # the product needs factors


def test_unfitted_without_scikit_learn():
    code = (
        "import sys, fmknn\n"
        "try: fmknn.FMRegressor().predict([[1.0]])\n"
        "except ValueError as error: print(isinstance(error, AttributeError), error)\n"
        "print('sklearn' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == ("True this FMRegressor is not fitted yet: call fit first\nFalse\n")
    with pytest.raises(NotFittedError):
        fmknn.FMRegressor().predict([[1.0]])


def test_repr_shows_what_was_changed():
    assert repr(fmknn.FMRegressor(8, random_state=1)) == "FMRegressor(n_factors=8, random_state=1)"
