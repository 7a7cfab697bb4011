"""What users pass to the estimators, and what must not go through."""

from __future__ import annotations

import numpy as np
import pytest

import fmknn

X = np.eye(4)
Y = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"solver": fmknn.Adam}, TypeError, r"such as Adam\(\)"),
        ({"solver": "sgd"}, ValueError, "unknown solver 'sgd'"),
        ({"solver": 3}, TypeError, "solver must be a name or a config object"),
        ({"callbacks": print}, TypeError, "callbacks must be a list"),
        ({"callbacks": None}, TypeError, "callbacks must be a list"),
        ({"callbacks": [print, 3]}, TypeError, "callbacks must be a list of callables.*3"),
        ({"callbacks": "print"}, TypeError, "callbacks must be a list of callables.*'p'"),
        (
            {"callbacks": [fmknn.Checkpoint]},
            TypeError,
            "callbacks must be .*class .*Checkpoint.*is none",
        ),
        ({"n_factors": -1}, ValueError, "n_factors must be an integer of at least 0"),
        ({"n_factors": 2.0}, ValueError, "n_factors must be an integer"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be"),
        ({"n_jobs": "a"}, ValueError, "n_jobs must be"),
        ({"n_iter": 0}, ValueError, "n_iter must be an integer of at least 1"),
        ({"loss": "logistic"}, ValueError, "loss must be one of squared"),
        ({"random_state": "x"}, TypeError, "random_state must be"),
        ({"random_state": -1}, ValueError, "random_state must not be negative"),
    ],
)
def test_bad_settings(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        fmknn.FMRegressor(**arguments).fit(X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array(["2020-01-01"] * 4, "M8[s]"), ValueError, "y must be numbers, got datetime64"),
        (["1", "2", "3", "4"], ValueError, "y must be numbers"),
        ([1, 2, np.nan, 4], ValueError, "row 2 is nan"),
        ([1, 2, 3], ValueError, "4 rows, but y has 3"),
        (None, ValueError, "y is missing"),
    ],
)
def test_bad_targets_of_a_regressor(y, error, message):
    with pytest.raises(error, match=message):
        fmknn.FMRegressor().fit(X, y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([1, 1, 1, 1], ValueError, "two classes, got 1 class: all targets are 1"),
        ([1, 2, 3, 1], ValueError, "Only binary classification"),
        (["a", None, "b", "a"], TypeError, "y mixes types: NoneType, str"),
        ([0, 1, np.inf, 1], ValueError, "NaN or infinity"),
    ],
)
def test_bad_targets_of_a_classifier(y, error, message):
    with pytest.raises(error, match=message):
        fmknn.FMClassifier().fit(X, np.array(y, dtype=object if None in y else None))


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("labels", [(-1, 1), (False, True), ("no", "yes"), (1.0, 2.0)])
def test_labels_come_back_as_they_are(labels):
    rows = np.tile(np.eye(2), (60, 1))
    y = np.tile(np.array(labels), 60)
    model = fmknn.FMClassifier(random_state=0).fit(rows, y)
    assert model.classes_.tolist() == list(labels)
    assert model.predict(np.eye(2)).tolist() == list(labels)
    assert model.score(rows, y) == 1.0
    assert model.score(rows, y[:, None]) == 1.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["a"] * 4, "weights must be numbers"),
        ([1, 2], "one entry per row"),
        ([1, -1, 1, 1], "row 1"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fmknn.FMRegressor().fit(X, Y, weights=weights)


def test_score_takes_one_target_per_row():
    ratings = fmknn.Interactions.from_arrays([1, 1, 2, 2], [1, 2, 1, 2], [1.0, 0, 0, 1])
    for kind in (fmknn.FMRegressor, fmknn.FMClassifier):
        model = kind(n_iter=1).fit(ratings)
        with pytest.raises(ValueError, match="pass X only"):
            model.score(ratings, [1, 2])
        with pytest.raises(ValueError, match="no values"):
            model.score(ratings.replace(values=None))
        other = kind(n_iter=1).fit(np.eye(2), [0, 1])
        with pytest.raises(ValueError, match="2 rows, but y has 3"):
            other.score(np.eye(2), [0, 1, 1])
        with pytest.raises(ValueError, match="y is missing"):
            other.score(np.eye(2))


@pytest.mark.parametrize("n_factors", [0, 1, 5])
def test_a_single_row_and_constant_targets(n_factors):
    one = fmknn.FMRegressor(n_factors, random_state=0).fit([[1.0, 1.0]], [3.0])
    assert one.predict([[1.0, 1.0]]).tolist() == [3.0]
    constant = fmknn.FMRegressor(n_factors, random_state=0).fit(X, [7.0] * 4)
    np.testing.assert_allclose(constant.predict(X), 7.0)


def test_the_projection_wants_parameters():
    model = fmknn.FMRegressor(n_iter=1).fit(X, Y)
    with pytest.raises(TypeError, match="params_"):
        fmknn.item_matrix(model, slice(0, 2))
