"""FeatureTable: kinds of columns, what they become, and what is refused by column and row."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.data.features import FeatureTable
from fmknn.data.ids import IdMap
from fmknn.errors import UnknownIdError

# numpy 2 has strings of variable width; for numpy 1 the objects are tried twice
VARIABLE_WIDTH = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else object

TAGS = st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=8)


def encoded(columns, ids=None, **options):
    """A list of {feature name: value} without zeros, one per row."""
    n = len(next(iter(columns.values())))
    rows, names = FeatureTable(range(n) if ids is None else ids, columns, **options).encode()
    assert rows.shape == (n, len(names)) and len(set(names)) == len(names)
    table = rows.to_scipy().toarray()
    return [{name: x for name, x in zip(names, row, strict=True) if x} for row in table.tolist()]


# --- the kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        ["red", "blue", "red"],
        np.array(["red", "blue", "red"]),
        np.array(["red", "blue", "red"], dtype=object),
        np.array(["red", "blue", "red"], dtype=VARIABLE_WIDTH),
        pd.Series(["red", "blue", "red"]),
        pd.Series(["red", "blue", "red"], dtype="string"),
        pl.Series(["red", "blue", "red"]),
        pa.chunked_array([["red", "blue"], ["red"]]),
    ],
    ids=lambda column: type(column).__name__,
)
def test_strings_are_categorical_one_feature_per_level(column):
    assert encoded({"colour": column}) == [{"colour=red": 1}, {"colour=blue": 1}, {"colour=red": 1}]


def test_levels_are_in_order():
    assert FeatureTable([1, 2], {"c": ["b", "a"]}).encode()[1] == ["c=a", "c=b"]


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, 3, 6],
        [1.0, 2.0, 3.0, 6.0],
        np.array([1, 2, 3, 6], dtype=np.uint8),
        np.array([1, 2, 3, 6], dtype=np.float32),
        pd.Series([1, 2, 3, 6], dtype="Int64"),
        pl.Series([1, 2, 3, 6]),
        pa.array([1, 2, 3, 6]),
    ],
    ids=lambda column: f"{type(column).__name__}-{getattr(column, 'dtype', '')}",
)
def test_numbers_are_standardised(column):
    # mean 3, variance (4 + 1 + 0 + 9) / 4
    deviation = math.sqrt(3.5)
    got = [row.get("age", 0.0) for row in encoded({"age": column})]
    assert got == pytest.approx([-2 / deviation, -1 / deviation, 0, 3 / deviation], rel=1e-6)


def test_booleans_are_numbers():
    assert encoded({"new": [True, False]}) == [{"new": 1}, {"new": -1}]


@given(column=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20, unique=True))
@settings(max_examples=30)
def test_a_standardised_column_has_mean_0_and_deviation_1(column):
    column = [round(value) for value in column]  # no two closer than float64 can tell apart
    if len(set(column)) < 2:
        return
    got = np.array([row.get("x", 0.0) for row in encoded({"x": column})])
    assert got.mean() == pytest.approx(0, abs=1e-5) and got.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0, 5, 0.1, 0.7, -1e-3, 1e300], ids=str)
@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_constant_column_says_nothing(value, n):
    assert encoded({"x": [value] * n}) == [{}] * n


def test_huge_numbers_are_standardised_without_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoded({"x": [1e308, -1e308]}) == [{"x": 1}, {"x": -1}]


def test_a_numeric_column_named_categorical_is():
    got = encoded({"year": [1999, 2001, 1999]}, categorical=["year"])
    assert got == [{"year=1999": 1}, {"year=2001": 1}, {"year=1999": 1}]


@pytest.mark.parametrize(
    "column",
    [
        [("a", "b"), ("b",), ()],
        [["a", "b"], ["b"], []],
        [{"a", "b"}, {"b"}, set()],
        [("b", "a", "b"), ["b", "b"], frozenset()],
        [np.array(["a", "b"]), np.array(["b"]), np.array([], dtype=object)],
        pd.Series([["a", "b"], ["b"], []]),
        pd.Series([np.array(["a", "b"]), np.array(["b"]), np.array([], dtype=object)]),
        pl.Series([["a", "b"], ["b"], []]),
        pa.array([["a", "b"], ["b"], []]),
    ],
    ids=lambda column: f"{type(column).__name__}-{type(column[0]).__name__}",
)
def test_sets_of_strings_are_multi_valued_and_share_a_norm_of_1(column):
    half = pytest.approx(1 / math.sqrt(2))
    assert encoded({"tag": column}) == [{"tag=a": half, "tag=b": half}, {"tag=b": 1}, {}]


@given(tags=TAGS)
@settings(max_examples=40)
def test_m_distinct_values_get_one_over_root_m_each(tags):
    expected = [
        {f"tag={tag}": pytest.approx(1 / math.sqrt(len(set(row)))) for tag in row} for row in tags
    ]
    assert encoded({"tag": [tuple(row) for row in tags]}) == expected


def test_equally_long_lists_are_lists_not_a_table():
    assert encoded({"tag": [["a"], ["b"]]}) == [{"tag=a": 1}, {"tag=b": 1}]
    assert encoded({"tag": [np.array(["a"]), np.array(["b"])]}) == [{"tag=a": 1}, {"tag=b": 1}]


def test_a_column_in_which_no_row_has_a_value_has_no_features():
    assert encoded({"tag": [(), ()]}) == [{}, {}]


def test_columns_follow_one_another_in_their_order():
    table = FeatureTable([1, 2], {"z": ["q", "p"], "age": [3, 5], "tags": [("x",), ("y",)]})
    assert table.encode()[1] == ["z=p", "z=q", "age", "tags=x", "tags=y"]


def test_only_named_columns_enter_the_model():
    columns = {"title": ["Alien", "Big"], "age": [1, 3], "genre": ["h", "c"]}
    assert encoded(columns, features=["genre"]) == [{"genre=h": 1}, {"genre=c": 1}]
    assert encoded(columns, features=[]) == [{}, {}]


def test_a_label_may_hold_anything():
    labels = {"gap": [1.0, np.nan], "none": ["a", None], "when": np.zeros(2, "datetime64[D]")}
    table = FeatureTable([1, 2], {**labels, "age": [1, 3]}, features=["age"])
    assert table.row(2)["none"] is None


def test_an_empty_table_has_no_rows():
    assert FeatureTable([], {"age": [], "tag": []}).encode()[0].shape[0] == 0


# --- what is refused ------------------------------------------------------------------------

GAPS = {
    "None": ["a", None],
    "None first": [None, "a"],
    "None among numbers": [1, None],
    "nan among strings": ["a", float("nan")],
    "pandas string": pd.Series(["a", None], dtype="string"),
    "pandas str": pd.Series(["a", None]),
    "pandas Int64": pd.Series([1, None], dtype="Int64"),
    "pandas boolean": pd.Series([True, None], dtype="boolean"),
    "pandas NaT": pd.Series(["a", pd.NaT], dtype=object),
    "polars string": pl.Series(["a", None]),
    "polars int": pl.Series([1, None]),
    "polars bool": pl.Series([True, None]),
    "polars list": pl.Series([["a"], None]),
    "pyarrow string": pa.array(["a", None]),
    "pyarrow int": pa.array([1, None]),
    "pyarrow list": pa.array([["a"], None]),
    "NaN": [1.0, np.nan],
    "inf": [1.0, np.inf],
    "NaN first": [np.nan, 1.0],
}


def frame_of(column):
    if isinstance(column, pd.Series):
        return pd.DataFrame({"id": [7, 8], "gappy": column})
    if isinstance(column, pl.Series):
        return pl.DataFrame({"id": [7, 8], "gappy": column})
    return pa.table({"id": pa.array([7, 8]), "gappy": column})


@pytest.mark.parametrize("name", GAPS)
def test_a_missing_value_is_named_by_column_and_row(name):
    with refused(ValueError, "'gappy'", "row 0" if name.endswith("first") else "row 1"):
        FeatureTable([7, 8], {"gappy": GAPS[name]})


@pytest.mark.parametrize("name", [name for name in GAPS if name.startswith("p")])
def test_a_missing_value_of_a_frame_is_named_by_column_and_row(name):
    with refused(ValueError, "'gappy'", "row 1"):
        FeatureTable.from_any(frame_of(GAPS[name]), "user")


@pytest.mark.parametrize(
    "column",
    [
        np.zeros(2, "datetime64[D]"),
        np.array([b"a", b"b"]),
        [b"a", b"b"],
        ["a", 1],
        ["a", ("b",)],
        [{"a": 1}, {"a": 2}],
        np.array([1j, 2j]),
    ],
    ids=str,
)
def test_a_column_that_is_no_feature_is_refused_by_name(column):
    with refused(TypeError, "'odd'"):
        FeatureTable([1, 2], {"odd": column})


@pytest.mark.parametrize("value", [("b", None), ("b", 1), (1, 2)], ids=str)
def test_a_multi_valued_column_of_other_than_strings_is_named_by_row(value):
    with refused(TypeError, "'tags'", "row 1"):
        FeatureTable([1, 2], {"tags": [("a",), value]})


def test_a_repeated_id_is_named():
    with refused(ValueError, "7"):
        FeatureTable([3, 7, 7], {})
    with refused(ValueError, "'b'"):
        FeatureTable(["b", "a", "b"], {})


def test_a_column_of_another_length_is_named():
    with refused(ValueError, "'age'", "3"):
        FeatureTable([1, 2, 3], {"age": [1, 2]})
    with refused(ValueError, "'grid'"):
        FeatureTable([1, 2], {"grid": np.zeros((2, 2))})


def test_a_feature_that_is_no_column_is_named():
    for option in ("features", "categorical"):
        with refused(ValueError, "'colour'", "age"):
            FeatureTable([1, 2], {"age": [1, 2]}, **{option: ["colour"]})


def test_ids_of_another_type_are_refused():
    with refused(TypeError):
        FeatureTable([1.5, 2.5], {})


# --- rows, order, alignment -----------------------------------------------------------------


def table_of(ids):
    return FeatureTable(ids, {"name": [f"n{i}" for i in ids], "tags": [(f"t{i}",) for i in ids]})


@pytest.mark.parametrize("ids", [[30, 10, 20], ["c", "a", "b"]], ids=["int", "str"])
def test_row_finds_an_id_in_a_table_of_any_order(ids):
    for id_ in ids:
        assert table_of(ids).row(id_) == {"name": f"n{id_}", "tags": (f"t{id_}",)}


def test_row_of_an_unknown_id():
    with refused(UnknownIdError, "9"):
        table_of([3, 1]).row(9)


@given(ids=st.lists(st.integers(-9, 9), unique=True, min_size=1, max_size=8), data=st.data())
@settings(max_examples=30)
def test_align_gives_the_rows_of_a_map_in_its_order(ids, data):
    wanted = IdMap.build(data.draw(st.lists(st.sampled_from(ids), min_size=1)))
    aligned = table_of(ids).align(wanted)
    assert aligned.ids.tolist() == wanted.ids.tolist()
    assert aligned["name"].tolist() == [f"n{i}" for i in wanted.ids]
    assert aligned["tags"].tolist() == [(f"t{i}",) for i in wanted.ids]


def test_align_keeps_how_columns_are_used():
    table = FeatureTable(
        [2, 1],
        {"year": [3, 4], "x": [1, 2]},
        features=["year"],
        categorical=["year"],
        id_feature=False,
    )
    aligned = table.align(IdMap([1, 2]))
    assert (aligned.features, aligned.categorical, aligned.id_feature) == (
        ("year",),
        ("year",),
        False,
    )
    assert aligned.encode()[1] == ["year=3", "year=4"]


def test_align_names_the_first_id_without_a_row():
    with refused(ValueError, "item", "2 ", "5"):
        table_of([1, 2]).align(IdMap([1, 5, 6], "item"))


def test_with_features_changes_what_enters_and_nothing_else():
    table = FeatureTable([1, 2], {"a": ["x", "y"], "b": [7, 8]}, categorical=["b"])
    other = table.with_features("b", id_feature=False)
    assert other.encode()[1] == ["b=7", "b=8"] and not other.id_feature
    assert other["a"].tolist() == ["x", "y"]
    assert table.features == ("a", "b") and table.id_feature


# --- tables out of frames -------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [dict, pd.DataFrame, pl.DataFrame, pa.table], ids=lambda f: f.__module__
)
@pytest.mark.parametrize("id_column", ["id", "item", "item_id"])
def test_a_frame_gives_a_table_and_its_id_column_is_no_feature(make, id_column):
    frame = make({"age": [4, 2], id_column: [20, 10], "tags": [["a"], ["a", "b"]]})
    table = FeatureTable.from_any(frame, "item")
    assert table.ids.tolist() == [20, 10]
    assert table.encode()[1] == ["age", "tags=a", "tags=b"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"id": [1, 2], "zip": pd.Categorical([907, 12]), "age": [1, 2]}),
        pd.DataFrame({"id": pd.Categorical([1, 2]), "zip": pd.Categorical([907, 12]), "age": 3.0}),
        pa.table({"id": [1, 2], "zip": pa.array([907, 12]).dictionary_encode(), "age": [1, 2]}),
    ],
    ids=lambda frame: type(frame).__module__,
)
def test_numbers_that_a_frame_declares_as_categories_are_categorical(frame):
    table = FeatureTable.from_any(frame, "user")
    assert table.ids.tolist() == [1, 2] and table["zip"].tolist() == [907, 12]
    assert table.encode()[1] == ["zip=12", "zip=907", "age"]


def test_a_table_of_categories_is_the_same_from_every_frame():
    columns = {"id": [1, 2], "kind": ["a", "b"]}
    tables = [
        FeatureTable.from_any(frame, "user")
        for frame in (
            columns,
            pd.DataFrame(columns).astype({"kind": "category"}),
            pl.DataFrame(columns, schema_overrides={"kind": pl.Categorical}),
            pl.DataFrame(columns, schema_overrides={"kind": pl.Enum(["b", "a"])}),
        )
    ]
    assert all(table.encodes_like(tables[0]) for table in tables)


def test_a_gap_among_categories_that_are_numbers_is_named():
    for gap in (pd.DataFrame({"z": pd.Categorical([1, None])}), pl.DataFrame({"z": [1, None]})):
        with refused(ValueError, "'z'", "row 1"):
            FeatureTable.from_any({"id": [1, 2], "z": gap["z"]}, "user")
    with refused(ValueError, "'z'", "row 1"):
        FeatureTable.from_any(pd.DataFrame({"id": [1, 2], "z": pd.Categorical([1, None])}), "user")


def test_the_id_column_can_be_named():
    table = FeatureTable.from_any({"movie": [2, 1], "id": ["x", "y"]}, "item", "movie")
    assert table.ids.tolist() == [2, 1] and list(table.columns) == ["id"]


def test_a_frame_without_ids_is_refused_with_the_names_it_may_have():
    with refused(ValueError, "item", "id", "item_id", "movie", "age"):
        FeatureTable.from_any({"age": [1]}, "item", "movie")


def test_a_table_passes_as_it_is():
    table = table_of([1, 2])
    assert FeatureTable.from_any(table, "user") is table


@pytest.mark.parametrize("table", [5, "abc", [1, 2], np.zeros(3)], ids=str)
def test_what_is_no_table_is_refused(table):
    with refused(TypeError, "user_features", type(table).__name__):
        FeatureTable.from_any(table, "user")
