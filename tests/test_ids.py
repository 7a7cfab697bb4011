"""IdMap and as_ids: ids keep their type, find their place and come back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.data.ids import IdMap, as_ids
from fmknn.errors import UnknownIdError

# numpy 2 has strings of variable width; for numpy 1 the objects are tried twice
VARIABLE_WIDTH = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else object

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30)
STRINGS = st.lists(st.text(max_size=5), min_size=1, max_size=30)
IDS = INTEGERS | STRINGS


# --- what counts as an id -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_every_integer_type_becomes_int64(dtype):
    ids = as_ids(np.array([3, 1, 2], dtype=dtype))
    assert ids.dtype == np.int64 and ids.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    "ids",
    [
        [-5, 7],
        (-5, 7),
        range(-5, 8, 12),
        [np.int8(-5), np.int64(7)],
        np.array([-5, 7], dtype=object),
        pd.Series([-5, 7]),
        pd.Series([-5, 7], dtype="Int64"),
        pd.Series(pd.Categorical([-5, 7])),
        pd.Index([-5, 7]),
        pl.Series([-5, 7]),
        pa.array([-5, 7]),
        pa.chunked_array([[-5], [7]]),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_integers_of_any_container_are_int64(ids):
    assert as_ids(ids).dtype == np.int64
    assert as_ids(ids).tolist() == [-5, 7]


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "a"],
        np.array(["b", "a"]),
        [np.str_("b"), np.str_("a")],
        np.array(["b", "a"], dtype=object),
        np.array(["b", "a"], dtype=VARIABLE_WIDTH),
        pd.Series(["b", "a"]),
        pd.Series(["b", "a"], dtype="string"),
        pd.Series(pd.Categorical(["b", "a"])),
        pl.Series(["b", "a"]),
        pa.array(["b", "a"]),
    ],
    ids=lambda ids: f"{type(ids).__name__}-{getattr(ids, 'dtype', '')}",
)
def test_strings_of_any_container_are_an_object_array_of_str(ids):
    array = as_ids(ids)
    assert array.dtype == object and array.tolist() == ["b", "a"]
    assert all(isinstance(value, str) for value in array)


def test_the_largest_int64_fits_in_uint64_too():
    assert as_ids(np.array([2**63 - 1], dtype=np.uint64)).tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    "ids",
    [
        np.array([1, 2**63], dtype=np.uint64),
        [1, 2**63],
        [np.uint64(2**63)],
        [-(2**63) - 1],
        [10**30],
    ],
    ids=str,
)
def test_integers_beyond_int64_are_refused(ids):
    with refused(ValueError, "user", "int64", "strings"):
        as_ids(ids, "user")


def test_no_ids_are_no_ids_whatever_the_dtype():
    assert len(as_ids([])) == 0
    assert len(as_ids(np.empty(0))) == 0


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (np.array([1.0, 2.0]), "float64"),
        (np.array([True, False]), "bool"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
        (np.array([b"a"]), "S1"),
        (np.array([1 + 2j]), "complex128"),
        (pd.Series([1.5, 2.0]), "float64"),
    ],
    ids=str,
)
def test_an_array_of_another_type_is_refused_by_its_type(ids, dtype):
    with refused(TypeError, "item", dtype):
        as_ids(ids, "item")


@pytest.mark.parametrize(
    ("ids", "row", "type_name"),
    [
        ([1, "a"], 1, "str"),
        (["a", "b", 1], 2, "int"),
        ([1, 2.0], 1, "float"),
        ([1.0, 2], 0, "float"),
        (["a", None], 1, "NoneType"),
        ([None, "a"], 0, "NoneType"),
        ([1, True], 1, "bool"),
        ([False, 1], 0, "bool"),
        ([1, np.bool_(True)], 1, "bool"),
        (["a", b"b"], 1, "bytes"),
        (["a", float("nan")], 1, "float"),
        ([[1, 2], [3, 4]], 0, "list"),
        ([(1,)], 0, "tuple"),
        (pd.Series(["a", None], dtype="string"), 1, "NAType"),
    ],
    ids=str,
)
def test_the_first_row_of_a_wrong_type_is_named(ids, row, type_name):
    with refused(TypeError, "user", f"row {row} ", type_name):
        as_ids(ids, "user")


@pytest.mark.parametrize(
    "ids",
    [
        np.array([1.0, np.nan, 3.0]),
        pd.Series([1, None, 3]),
        pd.Series([1, None, 3], dtype="Int64"),
        pl.Series([1, None, 3]),
        pa.array([1, None, 3]),
    ],
    ids=lambda ids: f"{type(ids).__module__}-{ids.dtype if hasattr(ids, 'dtype') else ids.type}",
)
def test_a_missing_integer_id_is_named_by_its_row(ids):
    with refused(TypeError, "user", "row 1"):
        as_ids(ids, "user")


@pytest.mark.parametrize("shape", [(), (2, 2), (1, 1)])
def test_an_array_that_is_not_one_dimensional_is_refused_by_its_shape(shape):
    with refused(ValueError, "user", "one-dimensional", str(shape)):
        as_ids(np.zeros(shape, dtype=np.int64), "user")


@pytest.mark.parametrize("single", ["ann", b"ann", 5], ids=repr)
def test_a_single_id_is_not_taken_apart(single):
    with refused(TypeError, repr(single)):
        as_ids(single)


# --- building -------------------------------------------------------------------------------


@given(
    arrays=st.lists(INTEGERS, min_size=1, max_size=3) | st.lists(STRINGS, min_size=1, max_size=3)
)
@settings(max_examples=50)
def test_build_gives_the_sorted_union(arrays):
    assert IdMap.build(*arrays).ids.tolist() == sorted({i for array in arrays for i in array})


def test_build_of_nothing_is_empty():
    assert len(IdMap.build()) == 0
    assert len(IdMap.build([], [])) == 0


def test_an_empty_array_has_no_type_to_quarrel_with():
    assert IdMap.build([], ["a"]).ids.tolist() == ["a"]


def test_integers_here_and_strings_there_are_refused():
    with refused(TypeError, "item", "integers", "strings"):
        IdMap.build([1], ["a"], what="item")


@pytest.mark.parametrize("ids", [[1, 1], [2, 1, 2], ["a", "a"], ["b", "a", "b"]], ids=str)
def test_the_constructor_takes_distinct_ids_only(ids):
    with refused(ValueError, "user", "distinct", "repeated"):
        IdMap(ids, "user")


@pytest.mark.parametrize("ids", [[5, 1, 3], ["b", "c", "a"]], ids=str)
def test_ids_in_any_order_are_found_at_their_places(ids):
    id_map = IdMap(ids)
    assert id_map.positions(ids).tolist() == [0, 1, 2]
    assert id_map.positions(ids[::-1]).tolist() == [2, 1, 0]
    other = [0, 2, 9] if isinstance(ids[0], int) else ["", "bb", "z"]
    assert id_map.positions(other, unknown="mark").tolist() == [-1, -1, -1]


@given(st.lists(st.integers(-9, 9)), st.lists(st.integers(-9, 9)))
def test_extended_keeps_the_positions_of_what_was_there(first, second):
    before = IdMap.build(first)
    after = before.extended(second)
    assert after.ids.tolist() == before.ids.tolist() + sorted(set(second) - set(first))
    assert (after.positions(before.ids) == np.arange(len(before))).all()
    assert (after.extended(first)) is after
    again = IdMap.from_state(after.to_state("ids"), "ids")
    assert again == after and (again.positions(after.ids) == np.arange(len(after))).all()


def test_the_ids_of_a_map_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        IdMap([1, 2]).ids[0] = 0


def test_the_callers_array_stays_writable():
    own = np.array([1, 2])
    IdMap(own)
    own[0] = 0


def test_maps_are_equal_when_their_ids_are():
    assert IdMap.build([2, 1], what="user") == IdMap([1, 2], "item")
    assert IdMap([1, 2]) != IdMap([1, 3])
    assert IdMap([1]) != IdMap(["1"])


# --- positions ------------------------------------------------------------------------------


@given(ids=IDS)
@settings(max_examples=50)
def test_ids_to_positions_and_back(ids):
    id_map = IdMap.build(ids)
    positions = id_map.positions(ids)
    assert positions.dtype == np.int32
    assert id_map.ids[positions].tolist() == ids


@given(known=INTEGERS, asked=INTEGERS)
@settings(max_examples=50)
def test_integer_positions_are_ranks_and_minus_one_where_unknown(known, asked):
    ranks = {value: rank for rank, value in enumerate(sorted(set(known)))}
    found = IdMap.build(known).positions(asked + known, unknown="mark")
    assert found.tolist() == [ranks.get(value, -1) for value in asked + known]


@given(known=STRINGS, asked=STRINGS)
@settings(max_examples=50)
def test_string_positions_are_ranks_and_minus_one_where_unknown(known, asked):
    ranks = {value: rank for rank, value in enumerate(sorted(set(known)))}
    found = IdMap.build(known).positions(asked + known, unknown="mark")
    assert found.tolist() == [ranks.get(value, -1) for value in asked + known]


def test_numpy_strings_are_the_same_ids_as_strings():
    assert IdMap(["a", "b"]).positions(np.array(["b", "a"])).tolist() == [1, 0]


def test_an_unknown_id_is_named_and_the_others_counted():
    with refused(UnknownIdError, "user", "7", "2 more"):
        IdMap([1, 2], "user").positions([1, 7, 8, 9])
    with refused(UnknownIdError, "item", "'z'"):
        IdMap(["a"], "item").positions(["z"])


def test_ids_of_nothing_in_particular_are_called_ids():
    with pytest.raises(UnknownIdError, match=r"^unknown id 3$"):
        IdMap([1]).positions([3])
    with pytest.raises(TypeError, match=r"^ids must be integers or strings, got float64"):
        IdMap(np.array([1.5]))
    assert repr(IdMap([1])) == "IdMap(1 ids, int)"


def test_nothing_is_known_to_an_empty_map():
    assert IdMap([]).positions([3, 4], unknown="mark").tolist() == [-1, -1]
    assert IdMap([]).positions(["a"], unknown="mark").tolist() == [-1]
    with pytest.raises(UnknownIdError):
        IdMap([]).positions([3])


def test_no_ids_have_no_positions():
    assert IdMap(["a"]).positions([]).tolist() == []


@pytest.mark.parametrize(
    ("known", "asked"), [([1, 2], ["1"]), (["1", "2"], [1])], ids=["str for int", "int for str"]
)
def test_an_id_of_the_other_type_is_refused_never_converted(known, asked):
    for policy in ("raise", "mark"):
        with refused(TypeError, "user", "integers", "strings", repr(asked[0])):
            IdMap(known, "user").positions(asked, unknown=policy)


@pytest.mark.parametrize(
    "call",
    [
        lambda: IdMap(["a"], "user").positions([3]),
        lambda: IdMap(["a"], "user").positions(np.array([3])),
        lambda: as_ids(["a", np.int64(3)], "user"),
        lambda: as_ids(np.int64(3), "user"),
    ],
)
def test_a_number_is_shown_plainly(call):
    with refused(TypeError, "3") as caught:
        call()
    assert "np." not in str(caught.value) and "int64" not in str(caught.value)


def test_an_unknown_policy_is_refused():
    with refused(ValueError, "skip", "mark"):
        IdMap([1]).positions([2], unknown="skip")


@given(ids=IDS)
@settings(max_examples=25)
def test_state_round_trip(ids):
    id_map = IdMap.build(ids, what="user")
    state = id_map.to_state("users")
    assert all(name.startswith("users") for name in state)
    again = IdMap.from_state(state, "users", "user")
    assert again == id_map and again.ids.dtype == id_map.ids.dtype and again.what == "user"


def test_states_of_two_maps_do_not_collide():
    state = {**IdMap([1]).to_state("users"), **IdMap(["a"]).to_state("items")}
    assert IdMap.from_state(state, "users").ids.tolist() == [1]
    assert IdMap.from_state(state, "items").ids.tolist() == ["a"]
