"""Frames in and out of any library."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from refusals import refused

from fmknn.data.frames import categories_of, columns_of, frame_from, library_of
from fmknn.errors import MissingExtraError

COLUMNS = {
    "user": np.array(["b", "a"], dtype=object),
    "rank": np.array([1, 2]),
    "score": np.array([0.5, 0.25]),
}
LIBRARIES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_goes_out_and_comes_back(library):
    frame = frame_from(COLUMNS, library)
    assert isinstance(frame, LIBRARIES[library])
    back = columns_of(frame)
    assert list(back) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert back[name].tolist() == column.tolist()
        assert isinstance(back[name], np.ndarray)


def test_a_mapping_is_a_frame():
    assert columns_of({"a": [1, 2], "b": ("x", "y")})["b"].tolist() == ["x", "y"]


def test_the_default_is_the_first_library_that_is_installed(monkeypatch):
    installed = {"polars", "pyarrow"}
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (
            find_spec(name, *rest) if name in installed or name not in LIBRARIES else None
        ),
    )
    assert isinstance(frame_from(COLUMNS), pl.DataFrame)
    with refused(MissingExtraError, "pandas", "pip install"):
        frame_from(COLUMNS, "pandas")
    installed.clear()
    with refused(MissingExtraError, "pandas", "polars", "pyarrow"):
        frame_from(COLUMNS)


def test_a_library_that_is_not_known_is_refused():
    with refused(ValueError, "library", "'excel'", "polars"):
        frame_from(COLUMNS, "excel")


@pytest.mark.parametrize("frame", [5, "abc", [1], np.zeros((2, 2)), pl.Series([1])], ids=str)
def test_what_is_no_frame_is_refused_by_type(frame):
    with refused(TypeError, "user_features", type(frame).__name__):
        columns_of(frame, "user_features")


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["a", "a"], ValueError, ["same name", "'a' 2 times"]),
        (pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]), TypeError, ["('a', 'b')", "text"]),
        ([0, 1], TypeError, ["column 0", "text"]),
        (["a", 1], TypeError, ["column 1", "text"]),
    ],
)
@pytest.mark.parametrize("read", [columns_of, categories_of, library_of])
def test_columns_must_have_names_of_their_own(read, names, error, words):
    with refused(error, "frame", *words):
        read(pd.DataFrame([[1, 2]], columns=names))


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"x": pl.Series([["a"], ["b", "c"]])}),
        pl.DataFrame({"x": pl.Series([["a", "b"], ["c", "d"]], dtype=pl.Array(pl.String, 2))}),
        pa.table({"x": [["a"], ["b"]]}),
        pd.DataFrame({"x": [np.array(["a"]), np.array(["b"])]}),
        {"x": [{"b", "a"}, {"c"}]},
    ],
    ids=lambda frame: type(frame).__module__,
)
def test_lists_come_as_tuples(frame):
    column = columns_of(frame)["x"]
    assert column.dtype == object and column.shape == (2,)
    assert all(isinstance(value, tuple) and list(value) == sorted(value) for value in column)


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table], ids=["polars", "pyarrow"])
def test_integers_with_gaps_stay_integers(make):
    values = columns_of(make({"year": [1999, None]}))["year"].tolist()
    assert values == [1999, None] and isinstance(values[0], int)
