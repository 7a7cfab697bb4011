"""X, y and weights as users pass them, checked; in the words that scikit-learn's tools expect."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from .._checks import refuse_masked
from ..data.interactions import Interactions
from ..data.rows import SparseRows, as_rows

__all__ = [
    "check_columns",
    "column_groups",
    "column_names",
    "column_vector",
    "finite_floats",
    "given_targets",
    "matrix_rows",
    "require_same_length",
    "row_weights",
]


def matrix_rows(X: Any) -> SparseRows:
    """Return the rows of a matrix that has at least one row and one column."""
    rows = as_rows(X)
    for axis, what in enumerate(("sample", "feature")):
        if rows.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={rows.shape}) "
                "while a minimum of 1 is required."
            )
    return rows


def column_vector(y: Any, n_rows: int | None) -> np.ndarray:
    if y is None:
        raise ValueError("y is missing: requires y to be passed, but the target y is None")
    refuse_masked("y", y)
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples,)",
            _conversion_warning(),
            stacklevel=4,
        )
        y = y.ravel()
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
    if n_rows is not None and len(y) != n_rows:
        raise ValueError(f"X has {n_rows} rows, but y has {len(y)}")
    return y


def given_targets(X: Any, y: Any) -> np.ndarray:
    """Return the targets that belong to X: its own values where X is Interactions."""
    if not isinstance(X, Interactions):
        return column_vector(y, None)
    if y is not None:
        raise ValueError("Interactions bring their own values: pass X only")
    if X.values is None:
        raise ValueError("the interactions have no values to compare with")
    return X.values


def require_same_length(predicted: np.ndarray, targets: np.ndarray) -> None:
    """Refuse targets that are not one per row."""
    if len(targets) != len(predicted):
        raise ValueError(f"X has {len(predicted)} rows, but y has {len(targets)}")


def finite_floats(y: np.ndarray) -> np.ndarray:
    kind = np.asarray(y).dtype.kind
    if kind == "c":
        raise ValueError("Complex data not supported: y is complex")
    try:
        if kind not in "biufO":  # text and dates would be turned into numbers without a word
            raise TypeError
        targets = np.asarray(y).astype(np.float32, copy=False)
    except (TypeError, ValueError):
        raise ValueError(f"y must be numbers, got {np.asarray(y).dtype}") from None
    if not np.isfinite(targets).all():
        row = int(np.argmin(np.isfinite(targets)))
        raise ValueError(f"y contains NaN or infinity: row {row} is {targets[row]}")
    return targets


def row_weights(weights: Any, n_rows: int) -> np.ndarray:
    try:
        array = np.asarray(weights, np.float32)
    except (TypeError, ValueError):
        raise TypeError("weights must be numbers") from None
    if array.shape != (n_rows,):
        raise ValueError(
            f"weights must have one entry per row: got {array.shape} for {n_rows} rows"
        )
    if not np.isfinite(array).all() or array.min() < 0:
        row = int(np.argmin(np.isfinite(array) & (array >= 0)))
        raise ValueError(f"weights must be finite and not negative: row {row} is {array[row]}")
    if not array.any():
        raise ValueError("weights are all zero: no row would count")
    return array


def column_groups(groups: Any, n_features: int) -> np.ndarray:
    """Return the group of each column, counted from 0, whatever numbers were given."""
    array = np.asarray(groups)
    if array.shape != (n_features,):
        raise ValueError(
            f"groups must have one number per column: got {array.shape} for {n_features} columns"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"groups must be whole numbers, got {array.dtype}")
    return np.unique(array, return_inverse=True)[1].astype(np.int32)


def column_names(X: Any) -> np.ndarray | None:
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(columns, "__len__"):
        return None
    names = np.array([*columns], dtype=object)
    return names if len(names) and all(isinstance(name, str) for name in names) else None


def _require_same_names(names: np.ndarray, own: np.ndarray) -> None:
    if np.array_equal(names, own):
        return
    parts = ["The feature names should match those that were passed during fit."]
    unseen = [name for name in names if name not in set(own)]
    missing = [name for name in own if name not in set(names)]
    if unseen:
        parts.append(
            "Feature names unseen at fit time:\n" + "".join(f"- {n}\n" for n in sorted(unseen))
        )
    if missing:
        parts.append(
            "Feature names seen at fit time, yet now missing:\n"
            + "".join(f"- {n}\n" for n in sorted(missing))
        )
    if not unseen and not missing:
        parts.append("Feature names must be in the same order as they were in fit.\n")
    raise ValueError("\n".join(parts))


def check_columns(estimator: Any, X: Any) -> None:
    """Warn or refuse where the columns of X are not those that the estimator was fitted on."""
    names = column_names(X)
    own = getattr(estimator, "feature_names_in_", None)
    kind = type(estimator).__name__
    if names is not None and own is None:
        _warn(f"X has feature names, but {kind} was fitted without feature names")
    elif names is None and own is not None:
        _warn(f"X does not have valid feature names, but {kind} was fitted with feature names")
    elif names is not None and own is not None:
        _require_same_names(names, own)
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 2 and shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {shape[1]} features, but {kind} is expecting {estimator.n_features_in_} "
            "features as input"
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)


def _conversion_warning() -> type[Warning]:
    exceptions = sys.modules.get("sklearn.exceptions")
    return exceptions.DataConversionWarning if exceptions else UserWarning
