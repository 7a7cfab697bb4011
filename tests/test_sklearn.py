"""FMRegressor and FMClassifier behave as scikit-learn's tools expect."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor, StackingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler
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


RATINGS = fmknn.datasets.make_interactions(40, 25, 600, random_state=0)[0]
FRAME = pd.DataFrame(
    {
        "user": RATINGS.user_ids,
        "item": RATINGS.item_ids,
        "hour": np.random.default_rng(0).uniform(0, 24, len(RATINGS)),
    }
)
IDS = FRAME[["user", "item"]]
ONE_HOT = OneHotEncoder().fit_transform(IDS)
Y = RATINGS.values
CLASSES = np.where(np.median(Y) < Y, "liked", "left")
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2.0, len(Y))
FOLDS = KFold(3, shuffle=True, random_state=0)
REGRESSOR = fmknn.FMRegressor(4, solver=fmknn.ALS(n_iter=3), random_state=0)
CLASSIFIER = fmknn.FMClassifier(4, solver=fmknn.Adam(epochs=3), random_state=0)

quiet = pytest.mark.filterwarnings("error")


def encoded(estimator, **options):
    return Pipeline(
        [("onehot", OneHotEncoder(handle_unknown="ignore", **options)), ("fm", clone(estimator))]
    )


def with_hours(estimator, **options):
    columns = ColumnTransformer(
        [
            ("ids", OneHotEncoder(handle_unknown="ignore", **options), ["user", "item"]),
            ("hours", StandardScaler(), ["hour"]),
        ]
    )
    return make_pipeline(columns, clone(estimator))


def by_hand(estimator, X, y, weights=None):
    """R² or accuracy in each fold, as cross-validation is defined."""
    scores = []
    for train, test in FOLDS.split(X):
        options = {} if weights is None else {"weights": weights[train]}
        scores.append(clone(estimator).fit(X[train], y[train], **options).score(X[test], y[test]))
    return scores


@quiet
@pytest.mark.parametrize(
    ("estimator", "y", "grid"),
    [
        (REGRESSOR, Y, {"n_factors": [0, 4], "solver__l2_factors": [1.0, 10.0]}),
        (REGRESSOR, Y, {"solver": ["als", fmknn.ALS(n_iter=2), fmknn.Adam(epochs=2)]}),
        (CLASSIFIER, CLASSES, {"n_factors": [2, 4], "solver__epochs": [1, 3]}),
    ],
    ids=["regressor", "solvers", "classifier"],
)
def test_a_grid_search_is_cross_validation_of_each_setting(estimator, y, grid):
    search = GridSearchCV(estimator, grid, cv=FOLDS).fit(ONE_HOT, y)
    found = search.cv_results_
    for params, mean in zip(found["params"], found["mean_test_score"], strict=True):
        wanted = by_hand(clone(estimator).set_params(**params), ONE_HOT, y)
        assert mean == pytest.approx(np.mean(wanted), rel=1e-12)
    best = clone(estimator).set_params(**search.best_params_).fit(ONE_HOT, y)
    np.testing.assert_array_equal(search.predict(ONE_HOT), best.predict(ONE_HOT))


@quiet
def test_scorers_find_what_they_need():
    scoring = ["roc_auc", "accuracy", "neg_log_loss", "neg_brier_score"]
    liked = (CLASSES == "liked").astype(int)  # some of them want to know which class is meant
    found = cross_validate(CLASSIFIER, ONE_HOT, liked, cv=3, scoring=scoring)
    assert all(np.isfinite(found[f"test_{name}"]).all() for name in scoring)
    chances = cross_val_predict(CLASSIFIER, ONE_HOT, CLASSES, cv=3, method="predict_proba")
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    rmse = -cross_val_score(REGRESSOR, ONE_HOT, Y, cv=3, scoring="neg_root_mean_squared_error")
    assert (rmse < Y.std()).all()


@quiet
def test_a_frame_goes_through_a_pipeline():
    pipeline = encoded(REGRESSOR).fit(IDS, pd.Series(Y, index=IDS.index[::-1]))
    wanted = clone(REGRESSOR).fit(ONE_HOT, Y)
    np.testing.assert_array_equal(pipeline.predict(IDS), wanted.predict(ONE_HOT))
    stranger = pd.DataFrame({"user": [10**6], "item": [IDS["item"][0]]})
    assert np.isfinite(pipeline.predict(stranger)).all()  # of no column: only the item counts
    grid = {"fm__n_factors": [2, 4], "fm__solver__n_iter": [1, 3]}
    search = GridSearchCV(pipeline, grid, cv=FOLDS).fit(IDS, Y)
    assert search.best_params_["fm__solver__n_iter"] == search.best_estimator_["fm"].n_iter_


@quiet
def test_columns_of_all_kinds_go_through_a_pipeline():
    sparse = with_hours(REGRESSOR).fit(FRAME, Y)
    for library in ("pandas", "polars"):
        dense = with_hours(REGRESSOR, sparse_output=False).set_output(transform=library)
        dense.fit(FRAME, pl.Series(Y))
        np.testing.assert_array_equal(dense.predict(FRAME), sparse.predict(FRAME))
        assert "hours__hour" in dense[-1].feature_names_in_
    assert len(cross_val_score(sparse, FRAME, Y, cv=3)) == 3
    assert clone(sparse).fit(FRAME, Y).score(FRAME, Y) == sparse.score(FRAME, Y)


@quiet
def test_weights_are_cut_into_folds():
    found = cross_val_score(REGRESSOR, ONE_HOT, Y, cv=FOLDS, params={"weights": WEIGHTS})
    assert found.tolist() == by_hand(REGRESSOR, ONE_HOT, Y, WEIGHTS)
    assert found.tolist() != by_hand(REGRESSOR, ONE_HOT, Y)
    search = GridSearchCV(REGRESSOR, {"n_factors": [4]}, cv=FOLDS).fit(ONE_HOT, Y, weights=WEIGHTS)
    assert search.best_score_ == pytest.approx(found.mean())
    pipeline = encoded(REGRESSOR).fit(IDS, Y, fm__weights=WEIGHTS)
    wanted = clone(REGRESSOR).fit(ONE_HOT, Y, weights=WEIGHTS)
    np.testing.assert_array_equal(pipeline.predict(IDS), wanted.predict(ONE_HOT))


@quiet
@pytest.mark.parametrize(
    "meta",
    [
        BaggingRegressor(REGRESSOR, n_estimators=2, random_state=0),
        StackingRegressor([("fm", REGRESSOR), ("ridge", Ridge())], cv=2),
        TransformedTargetRegressor(REGRESSOR, transformer=StandardScaler()),
        CalibratedClassifierCV(CLASSIFIER, cv=2),
    ],
    ids=lambda meta: type(meta).__name__,
)
def test_they_are_parts_of_other_estimators(meta):
    y = CLASSES if is_classifier(meta) else Y
    assert meta.fit(ONE_HOT, y).score(ONE_HOT, y) > 0.3


@quiet
def test_callbacks_are_copied_into_each_fold():
    stopping = fmknn.EarlyStopping(ONE_HOT, Y, patience=1)
    model = clone(REGRESSOR).set_params(callbacks=[stopping])
    search = GridSearchCV(model, {"n_factors": [2, 4]}, cv=3).fit(ONE_HOT, Y)
    assert stopping.scores_ == []
    (own,) = search.best_estimator_.callbacks
    assert own is not stopping and own.scores_


@quiet
@pytest.mark.parametrize("solver", ["als", "mcmc", "adam"])
def test_a_fitted_pipeline_is_pickled(solver):
    pipeline = with_hours(fmknn.FMRegressor(2, solver=solver, n_iter=25, random_state=0))
    again = pickle.loads(pickle.dumps(pipeline.fit(FRAME, Y)))
    np.testing.assert_array_equal(again.predict(FRAME), pipeline.predict(FRAME))
    again.fit(FRAME, Y)
    np.testing.assert_array_equal(again.predict(FRAME), pipeline.predict(FRAME))


@quiet
@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_folds_in_parallel_are_the_same(backend):
    alone = cross_val_score(with_hours(REGRESSOR), FRAME, Y, cv=3)
    with joblib.parallel_config(backend):
        both = cross_val_score(with_hours(REGRESSOR), FRAME, Y, cv=3, n_jobs=2)
    assert both.tolist() == alone.tolist()


@quiet
def test_they_are_shown_in_a_notebook():
    page = encoded(REGRESSOR)._repr_html_()
    assert "FMRegressor" in page and "OneHotEncoder" in page
