"""Interactions: from arrays and frames of any kind, by id and back, parts with one vocabulary."""

from __future__ import annotations

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
from fmknn.data.interactions import Context, Interactions

FRAMES = {"dict": dict, "pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
frame_kinds = pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
from_arrays = Interactions.from_arrays

EVENTS = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from("xyz"), st.integers(1, 5)),
    min_size=1,
    max_size=12,
)


def some(n=4, **options):
    """A few rows of everything."""
    columns = {
        "values": np.arange(n) + 0.5,
        "weights": np.arange(n) + 1.0,
        "timestamps": np.arange(n) * 10,
        "context": {"day": ["fri", "sat"] * (n // 2), "shop": list(range(n))},
    }
    return from_arrays(["b", "a"] * (n // 2), range(100, 100 + n), **{**columns, **options})


# --- from arrays ----------------------------------------------------------------------------


@given(events=EVENTS)
@settings(max_examples=30)
def test_ids_and_values_come_back_row_by_row(events):
    users, items, values = (list(column) for column in zip(*events, strict=True))
    log = from_arrays(users, items, values)
    assert log.user_ids.tolist() == users and log.item_ids.tolist() == items
    assert log.values.tolist() == values
    assert log.users.ids.tolist() == sorted(set(users))
    assert log.items.ids.tolist() == sorted(set(items))
    assert len(log) == len(events)


def test_dtypes_are_those_of_the_kernels():
    log = some()
    assert log.user_index.dtype == log.item_index.dtype == np.int32
    assert log.values.dtype == log.weights.dtype == np.float32
    assert log.timestamps.dtype == np.int64
    assert log.context["day"].index.dtype == np.int32


def test_what_is_not_given_is_none():
    log = from_arrays([1], [2])
    assert log.values is log.weights is log.timestamps is None
    assert log.user_features is log.item_features is None and not log.context


def test_duplicates_are_kept():
    assert from_arrays([1, 1], [2, 2], [3, 4]).values.tolist() == [3, 4]


def test_context_columns_are_vocabularies_of_their_own():
    log = from_arrays([1, 2, 3], [1, 2, 3], context={"day": ["b", "a", "b"], "hour": [9, 8, 7]})
    assert list(log.context) == ["day", "hour"]
    day, hour = log.context["day"], log.context["hour"]
    assert day.ids.ids.tolist() == ["a", "b"] and day.index.tolist() == [1, 0, 1]
    assert hour.ids.ids.tolist() == [7, 8, 9] and hour.index.tolist() == [2, 1, 0]


def test_the_callers_arrays_are_copied():
    users, items, values = np.array([2, 1]), np.array([3, 4]), np.array([1, 2], np.float32)
    times, weights = np.array([5, 6]), np.array([1, 1], np.float32)
    log = from_arrays(users, items, values, weights=weights, timestamps=times)
    for array in (users, items, values, times, weights):
        array[:] = 0  # still writable, too
    assert log.user_ids.tolist() == [2, 1] and log.item_ids.tolist() == [3, 4]
    assert log.values.tolist() == [1, 2] and log.weights.tolist() == [1, 1]
    assert log.timestamps.tolist() == [5, 6]


def test_ids_only_in_a_feature_table_are_part_of_the_vocabulary():
    log = from_arrays(
        ["b"],
        [10],
        user_features={"id": ["c", "b", "a"], "age": [3, 2, 1]},
        item_features=FeatureTable([30, 10, 20], {"name": ["n30", "n10", "n20"]}),
    )
    assert log.users.ids.tolist() == ["a", "b", "c"] and log.user_index.tolist() == [1]
    assert log.items.ids.tolist() == [10, 20, 30] and log.item_index.tolist() == [0]
    assert log.user_features["age"].tolist() == [1, 2, 3], "rows in the order of users.ids"
    assert log.item_features["name"].tolist() == ["n10", "n20", "n30"]


def test_an_id_without_a_row_in_its_table_is_named():
    with refused(ValueError, "user", "7"):
        from_arrays([1, 7], [1, 1], user_features={"id": [1], "age": [30]})


def test_a_table_with_ids_of_another_type_is_refused():
    with refused(TypeError, "item", "integers", "strings"):
        from_arrays([1], [1], item_features={"id": ["1"], "age": [30]})


@pytest.mark.parametrize("name", ["user", "item"])
def test_a_context_cannot_have_the_name_of_a_side(name):
    with refused(ValueError, repr(name)):
        from_arrays([1], [1], context={name: [1]})


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("context", [["day"], "day", {5: [1]}], ids=str)
def test_contexts_are_columns_by_name(context):
    with refused(TypeError, "context"):
        from_arrays([1], [1], context=context)


def test_no_rows_are_refused():
    with refused(ValueError, "empty"):
        from_arrays([], [])
    with refused(ValueError, "empty"):
        from_arrays([], [], item_features={"id": [1], "age": [2]})


@pytest.mark.parametrize("name", ["values", "weights", "timestamps"])
def test_a_column_of_another_length_is_named(name):
    with refused(ValueError, name, "3", "2"):
        from_arrays([1, 2], [1, 2], **{name: [1, 2, 3]})


def test_items_or_contexts_of_another_length_are_named():
    with refused(ValueError, "items"):
        from_arrays([1, 2], [1, 2, 3])
    with refused(ValueError, "'day'"):
        from_arrays([1, 2], [1, 2], context={"day": ["fri"]})


@pytest.mark.parametrize("name", ["values", "weights", "timestamps"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_by_column_and_row(name, value):
    with refused(ValueError, name, "row 1"):
        from_arrays([1, 2, 3], [1, 2, 3], **{name: [1.0, value, np.nan]})


@pytest.mark.parametrize("name", ["values", "weights"])
@pytest.mark.parametrize("gap", [None, pd.NA], ids=str)
def test_a_missing_number_is_named_by_column_and_row(name, gap):
    with refused(ValueError, name, "row 1"):
        from_arrays([1, 2], [1, 2], **{name: [1.0, gap]})


def test_a_value_that_float32_cannot_hold_is_refused_without_a_warning():
    with warnings.catch_warnings(), refused(ValueError, "values", "row 1"):
        warnings.simplefilter("error")
        from_arrays([1, 2], [1, 2], [1.0, 1e300])


@pytest.mark.parametrize("column", [["3.5"], ["good"], [1j], [b"1"], [{}]], ids=str)
@pytest.mark.parametrize("name", ["values", "weights"])
def test_what_is_no_number_is_refused_never_parsed(name, column):
    with refused(TypeError, name):
        from_arrays([1], [1], **{name: column})


def test_a_negative_weight_is_named_by_its_row():
    with refused(ValueError, "weights", "row 2", "-0.5"):
        from_arrays([1, 2, 3], [1, 2, 3], weights=[1.0, 0.0, -0.5])


def test_a_weight_of_zero_is_allowed_but_not_weights_of_nothing_else():
    assert from_arrays([1, 2], [1, 2], weights=[0, 1]).weights.tolist() == [0, 1]
    with refused(ValueError, "weights", "zero"):
        from_arrays([1, 2], [1, 2], weights=[0, 0])


@pytest.mark.parametrize(
    "ids", [[1.5, 2.5], [True, False], [1, "a"], [None, 1], [1, float("nan")]], ids=str
)
def test_an_id_of_the_wrong_type_is_refused_by_side(ids):
    with refused(TypeError, "user"):
        from_arrays(ids, [1, 2])
    with refused(TypeError, "item"):
        from_arrays([1, 2], ids)
    with refused(TypeError, "day"):
        from_arrays([1, 2], [1, 2], context={"day": ids})


# --- timestamps -----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_datetimes_become_nanoseconds(unit):
    times = np.array(["1970-01-02", "1969-12-31"], dtype=f"datetime64[{unit}]")
    assert from_arrays([1, 2], [1, 2], timestamps=times).timestamps.tolist() == [
        86400 * 10**9,
        -86400 * 10**9,
    ]


def test_numbers_stay_what_they_are():
    assert from_arrays([1], [1], timestamps=[1.5]).timestamps.tolist() == [1.5]
    log = from_arrays([1], [1], timestamps=np.array([2**40], dtype=np.uint64))
    assert log.timestamps.dtype == np.int64 and log.timestamps.tolist() == [2**40]


def test_no_time_is_named_by_its_row():
    with refused(ValueError, "timestamps", "row 1"):
        from_arrays(
            [1, 2], [1, 2], timestamps=np.array(["2020-01-01", "NaT"], dtype="datetime64[s]")
        )
    with refused(ValueError, "timestamps", "row 1"):
        from_arrays([1, 2], [1, 2], timestamps=[5, None])


def test_a_date_that_nanoseconds_cannot_hold_is_refused_not_wrapped():
    with refused(ValueError, "timestamps", "row 1"):
        from_arrays(
            [1, 2], [1, 2], timestamps=np.array(["2020-01-01", "3000-01-01"], "datetime64[D]")
        )


def test_an_integer_that_int64_cannot_hold_is_refused_not_wrapped():
    with refused(ValueError, "timestamps", "row 1"):
        from_arrays([1, 2], [1, 2], timestamps=np.array([1, 2**63], dtype=np.uint64))


@pytest.mark.parametrize("times", [["2020-01-01"], [True], [{}]], ids=str)
def test_what_is_no_time_is_refused(times):
    with refused(TypeError, "timestamps"):
        from_arrays([1], [1], timestamps=times)


# --- from frames ----------------------------------------------------------------------------


@frame_kinds
def test_every_frame_gives_the_same_interactions(make):
    frame = make(
        {
            "who": ["b", "a", "b"],
            "what": [3, 1, 2],
            "stars": [5.0, 3.0, 4.0],
            "how": [1.0, 2.0, 0.5],
            "when": [30, 10, 20],
            "day": ["fri", "sat", "fri"],
        }
    )
    names = {"user": "who", "item": "what", "value": "stars", "weight": "how", "timestamp": "when"}
    log = Interactions.from_frame(frame, **names, context=["day"])
    assert log.user_ids.tolist() == ["b", "a", "b"] and log.item_ids.tolist() == [3, 1, 2]
    assert log.values.tolist() == [5, 3, 4] and log.weights.tolist() == [1, 2, 0.5]
    assert log.timestamps.tolist() == [30, 10, 20]
    assert log.context["day"].ids.ids[log.context["day"].index].tolist() == ["fri", "sat", "fri"]


@frame_kinds
def test_a_table_may_call_its_id_column_as_the_frame_does(make):
    log = Interactions.from_frame(
        make({"u": [1, 2], "film": [10, 20]}),
        user="u",
        item="film",
        item_features=make({"film": [20, 10, 30], "id": ["x", "y", "z"]}),
    )
    assert log.items.ids.tolist() == [10, 20, 30]
    assert log.item_features["id"].tolist() == ["y", "x", "z"]


@frame_kinds
def test_the_name_of_a_single_context_column_will_do(make):
    log = Interactions.from_frame(
        make({"u": [1], "i": [1], "day": ["fri"]}), user="u", item="i", context="day"
    )
    assert list(log.context) == ["day"]


@frame_kinds
@pytest.mark.parametrize("role", ["user", "item", "value", "weight", "timestamp", "context"])
def test_a_column_that_does_not_exist_is_named(make, role):
    names = {"user": "u", "item": "i", role: "typo"}
    with refused(ValueError, "'typo'", "u, i"):
        Interactions.from_frame(make({"u": [1], "i": [1]}), **names)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"u": pd.array([2, 1], "Int64"), "i": pd.Categorical(["b", "a"])}),
        pd.DataFrame({"u": np.array([2, 1], np.uint8), "i": pd.array(["b", "a"], "string")}),
        pl.DataFrame({"u": [2, 1], "i": pl.Series(["b", "a"], dtype=pl.Categorical)}),
        pl.DataFrame(
            {
                "u": pl.Series([2, 1], dtype=pl.UInt16),
                "i": pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])),
            }
        ),
        pa.table({"u": pa.array([2, 1], pa.int8()), "i": pa.array(["b", "a"]).dictionary_encode()}),
        pa.table(
            {"u": pa.array([2, 1], pa.uint64()), "i": pa.array(["b", "a"], pa.large_string())}
        ),
    ],
    ids=lambda frame: type(frame).__module__,
)
def test_column_types_of_ids(frame):
    log = Interactions.from_frame(frame, user="u", item="i")
    assert log.user_ids.tolist() == [2, 1] and log.users.ids.dtype == np.int64
    assert log.item_ids.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"u": pd.array([1, None], "Int64"), "i": [1, 1]}),
        pd.DataFrame({"u": [1, None], "i": [1, 1]}),
        pd.DataFrame({"u": ["a", None], "i": [1, 1]}),
        pd.DataFrame({"u": pd.array(["a", None], "string"), "i": [1, 1]}),
        pd.DataFrame({"u": pd.Categorical(["a", None]), "i": [1, 1]}),
        pl.DataFrame({"u": [1, None], "i": [1, 1]}),
        pl.DataFrame({"u": ["a", None], "i": [1, 1]}),
        pa.table({"u": [1, None], "i": [1, 1]}),
        pa.table({"u": ["a", None], "i": [1, 1]}),
        {"u": [1, None], "i": [1, 1]},
    ],
    ids=lambda frame: type(frame).__module__,
)
def test_a_missing_id_of_a_frame_is_named_by_its_row(frame):
    with refused(TypeError, "user", "row 1"):
        Interactions.from_frame(frame, user="u", item="i")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"u": [1, 2], "x": pd.array([1, None], "Int64")}),
        pd.DataFrame({"u": [1, 2], "x": pd.array([1.5, None], "Float64")}),
        pd.DataFrame({"u": [1, 2], "x": [1.5, None]}),
        pl.DataFrame({"u": [1, 2], "x": [1, None]}),
        pl.DataFrame({"u": [1, 2], "x": [1.5, None]}),
        pa.table({"u": [1, 2], "x": [1, None]}),
        pa.table({"u": [1, 2], "x": [1.5, None]}),
        {"u": [1, 2], "x": [1, None]},
        {"u": [1, 2], "x": pd.Series([1, None], dtype="Int64")},
    ],
    ids=lambda frame: type(frame).__module__,
)
@pytest.mark.parametrize("role", ["value", "weight", "timestamp"])
def test_a_missing_number_of_a_frame_is_named_by_its_row(frame, role):
    with refused(ValueError, role, "row 1"):
        Interactions.from_frame(frame, user="u", item="u", **{role: "x"})


@pytest.mark.parametrize("numbers", [[1.5, None], [1, None], [None, float("nan")]], ids=str)
@pytest.mark.parametrize("as_frame", [True, False])
@pytest.mark.parametrize(
    "column",
    [pl.Series, lambda numbers: pa.chunked_array([numbers])],
    ids=["polars", "pyarrow"],
)
def test_a_null_is_not_said_to_be_nan(column, numbers, as_frame):
    values = column(numbers)
    kind = pl.DataFrame if isinstance(values, pl.Series) else pa.table
    with refused(ValueError, "values", "missing", "row") as caught:
        if as_frame:
            frame = kind({"u": [1, 2], "x": values})
            Interactions.from_frame(frame, user="u", item="u", value="x")
        else:
            Interactions.from_arrays([1, 2], [1, 2], values)
    assert "NaN" not in str(caught.value)


@pytest.mark.parametrize(
    "frame",
    [kind({"u": [1, 2], "x": [1.5, float("nan")]}) for kind in (pd.DataFrame, pl.DataFrame)],
    ids=["pandas", "polars"],
)
def test_nan_is_said_to_be_nan(frame):
    with refused(ValueError, "values", "NaN", "row 1"):
        Interactions.from_frame(frame, user="u", item="u", value="x")


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    "make",
    [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas],
    ids=["pandas", "polars", "pyarrow"],
)
def test_datetime_columns_are_instants(make, zone):
    times = pd.Series(pd.to_datetime(["2020-06-01 12:00", "2020-06-02 00:00"], utc=True))
    frame = make(pd.DataFrame({"u": [1, 2], "t": times.dt.tz_convert(zone)}))
    log = Interactions.from_frame(frame, user="u", item="u", timestamp="t")
    assert log.timestamps.tolist() == [1_591_012_800 * 10**9, 1_591_056_000 * 10**9]


def test_datetime_series_in_a_mapping_are_taken_too():
    frame = {"u": [1], "t": pd.Series(pd.to_datetime(["1970-01-02"]))}
    log = Interactions.from_frame(frame, user="u", item="u", timestamp="t")
    assert log.timestamps.tolist() == [86400 * 10**9]


def test_a_missing_datetime_of_a_frame_is_named_by_its_row():
    frame = pd.DataFrame({"u": [1, 2], "t": pd.to_datetime(["2020-06-01", None])})
    for made in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame), dict(frame)):
        with refused(ValueError, "timestamps", "row 1"):
            Interactions.from_frame(made, user="u", item="u", timestamp="t")


@frame_kinds
def test_an_empty_frame_is_refused(make):
    with refused(ValueError, "empty"):
        Interactions.from_frame(make({"u": [], "i": []}), user="u", item="i")


@pytest.mark.parametrize(
    "frame", [5, [1, 2], np.zeros((2, 2)), pl.Series([1]), pl.LazyFrame({"u": [1]})], ids=str
)
def test_what_is_no_frame_is_refused(frame):
    with refused(TypeError, "frame", type(frame).__name__):
        Interactions.from_frame(frame, user="u", item="i")


# --- parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [[2, 0], np.array([2, 0], np.int32), np.array([2, 0], np.uint8), pd.Series([2, 0])],
    ids=lambda rows: type(rows).__name__,
)
def test_take_gives_those_rows_of_every_column_with_the_same_vocabulary(rows):
    whole = some()
    part = whole.take(rows)
    assert part.user_ids.tolist() == ["b", "b"] and part.item_ids.tolist() == [102, 100]
    assert part.values.tolist() == [2.5, 0.5] and part.weights.tolist() == [3, 1]
    assert part.timestamps.tolist() == [20, 0]
    assert part.context["shop"].index.tolist() == [2, 0]
    assert part.users is whole.users and part.items is whole.items
    assert part.context["day"].ids is whole.context["day"].ids


def test_take_by_a_mask():
    mask = [False, True, True, False]
    assert some().take(mask).item_ids.tolist() == [101, 102]
    assert some().take(np.array(mask)).item_ids.tolist() == [101, 102]


def test_take_of_nothing_is_empty_but_keeps_the_vocabulary():
    for nothing in ([], np.zeros(4, bool)):
        part = some().take(nothing)
        assert len(part) == 0 and len(part.items) == 4


def test_take_keeps_the_feature_tables():
    log = from_arrays([1, 2], [1, 2], user_features={"id": [1, 2], "age": [3, 4]})
    assert log.take([1]).user_features is log.user_features


@pytest.mark.parametrize(
    "rows",
    [[4], [-5], [True], np.ones(5, bool), np.zeros(0, bool), [0.5], 1, [[0, 1]], slice(2)],
    ids=str,
)
def test_take_out_of_range_is_refused(rows):
    with pytest.raises(IndexError):
        some().take(rows)


def test_replace_changes_one_thing_and_not_the_original():
    whole = some()
    other = whole.replace(values=None)
    assert other.values is None and whole.values is not None
    assert other.user_index is whole.user_index


N = np.iinfo(np.int32).max


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_index": [0, 1, 2, 0]}, ("users", "row 2", "2", "0..1")),
        ({"user_index": np.full(4, N, np.int32)}, ("users", "row 0", N)),
        ({"item_index": [0, -1, 2, 3]}, ("items", "row 1", "-1", "0..3")),
        ({"item_index": np.array([0, 2**32, 1, 1])}, ("items", "row 1", 2**32)),
        ({"item_index": [0, 1, 2]}, ("items", "3", "4")),
        ({"user_index": [[0, 1], [0, 1]]}, ("users", "(2, 2)")),
        ({"users": IdMap(["a"], "user")}, ("users", "row 0", "0..0")),
        ({"values": [1.0, 2.0, 3.0]}, ("values", "3", "4")),
        ({"values": [1.0, np.nan, 3.0, 4.0]}, ("values", "row 1")),
        ({"weights": np.float32([1, 1, -1, 1])}, ("weights", "row 2", "-1")),
        ({"weights": np.zeros(4, np.float32)}, ("weights", "zero")),
        ({"timestamps": [1.0, 2.0, 3.0, np.inf]}, ("timestamps", "row 3")),
        ({"context": {"c": Context(IdMap([7], "c"), np.int32([0, 0, 1, 0]))}}, ("'c'", "row 2")),
        ({"context": {"c": Context(IdMap([7], "c"), np.int32([0]))}}, ("'c'", "(1,)", "4")),
        ({"context": {"user": Context(IdMap([7]), np.zeros(4, np.int32))}}, ("'user'",)),
        ({"user_features": FeatureTable(["a"], {"age": [3]})}, ("user", "'b'")),
    ],
)
def test_replace_refuses_what_from_arrays_would(changes, words):
    with refused(ValueError, *words):
        some().replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"user_index": [0.0, 1.0, 0.0, 1.0]},
        {"user_index": None},
        {"items": [1, 2, 3, 4]},
        {"values": list("abcd")},
        {"context": [1]},
        {"context": {"c": [0, 0, 0, 0]}},
        {"item_features": 5},
        {"ratings": [1, 2, 3, 4]},
    ],
    ids=str,
)
def test_replace_refuses_what_is_of_another_type(changes):
    with refused(TypeError):
        some().replace(**changes)


def test_what_is_put_in_has_the_types_of_the_kernels_and_is_a_copy():
    index, values = np.array([1, 0, 1, 0]), np.float32([1, 2, 3, 4])
    log = some().replace(user_index=index, values=values, weights=[1, 2, 3, 4])
    index[:], values[:] = 7, 7
    assert log.user_index.tolist() == [1, 0, 1, 0] and log.user_index.dtype == np.int32
    assert log.values.tolist() == log.weights.tolist() == [1, 2, 3, 4]
    assert log.weights.dtype == np.float32


def test_a_table_that_is_put_in_is_brought_into_the_order_of_the_ids():
    log = some().replace(user_features=FeatureTable(["b", "a"], {"age": [2, 1]}))
    assert log.user_features["age"].tolist() == [1, 2]


@pytest.mark.parametrize("part", [lambda log: log, lambda log: log.take([2, 0])], ids="wp")
def test_what_was_checked_cannot_be_written_to(part):
    log = part(some())
    columns = [log.user_index, log.item_index, log.values, log.weights, log.timestamps]
    for column in [*columns, log.context["day"].index]:
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_parts_may_be_empty_or_of_rows_without_weight():
    whole = from_arrays([1, 2], [1, 2], weights=[0, 1])
    assert whole.take([0]).weights.tolist() == [0]
    assert len(whole.take([]).replace(values=[])) == 0


def test_parts_do_not_look_at_the_tables_again(monkeypatch):
    log = from_arrays([1, 2], [1, 2], item_features={"id": [1, 2], "name": ["a", "b"]})
    monkeypatch.setattr(FeatureTable, "align", None)
    log.take([0]).without_features()


def test_without_features_keeps_the_tables_as_labels():
    log = from_arrays([1, 2], [1, 2], item_features={"id": [1, 2], "name": ["a", "b"]})
    plain = log.without_features()
    assert plain.item_features.encode()[1] == [] and plain.item_features.id_feature
    assert plain.item_features["name"].tolist() == ["a", "b"]
    assert plain.user_features is None


def test_without_features_of_an_empty_table_has_none():
    empty = FeatureTable([], {"age": []})
    log = from_arrays([1], [1]).take([]).replace(users=IdMap([]), user_features=empty)
    assert log.without_features().user_features.features == ()


def masked(values):
    return np.ma.MaskedArray(values, mask=[False, True, False])


@pytest.mark.parametrize("name", ["users", "items", "values", "weights", "timestamps"])
def test_masked_entries_are_refused_by_name(name):
    columns = {"users": [1, 2, 3], "items": [1, 2, 3], "values": [1.0, 2.0, 3.0]}
    columns[name] = masked([1, 2, 3])
    with refused(ValueError, name.removesuffix("s"), "masked"):
        Interactions.from_arrays(columns.pop("users"), columns.pop("items"), **columns)


def test_a_feature_table_with_two_columns_that_may_be_ids_is_refused():
    films = {"id": [1, 2, 3], "item": [3, 1, 2], "genre": ["x", "y", "z"]}
    with refused(ValueError, "item", "id"):
        Interactions.from_arrays([1, 2, 3], [1, 2, 3], [1.0, 2.0, 3.0], item_features=films)
    frame = {"user": [1, 2, 3], "film": [1, 2, 3]}
    named = Interactions.from_frame(
        frame, user="user", item="film", item_features={"film": [3, 1, 2], "genre": ["z", "x", "y"]}
    )
    assert named.item_features.row(3) == {"genre": "z"}
