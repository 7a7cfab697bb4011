"""Designs: whatever the blocks, the entities of a row add up to the row that went in."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import refused

from fmknn.data.blocks import (
    design_of_interactions,
    design_of_rows,
    find_one_hot_blocks,
)
from fmknn.data.features import FeatureTable
from fmknn.data.interactions import Interactions
from fmknn.data.rows import as_rows

ENTRIES = st.sampled_from([0.0, 0.0, 1.0, 1.0, -2.0, 0.5])
MATRICES = hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=ENTRIES)


def expanded(design):
    """The dense rows that a design stands for: the sum of each row's entities."""
    entities = design.entities.to_scipy().toarray()
    return [sum(entities[e] for e in row).tolist() for row in design.index]


def require_promised_form(design):
    """Types, and that each entity lies in its own block and uses that block's columns only."""
    assert design.index.dtype == np.int32 and design.index.flags.c_contiguous
    assert not design.index.flags.writeable
    assert design.index.shape == (design.n_rows, len(design.blocks))
    stops = [0]
    for place, block in enumerate(design.blocks):
        assert block.start == stops[-1], "blocks follow one another"
        stops.append(block.stop)
        column = design.index[:, place]
        assert ((column >= block.start) & (column < block.stop)).all()
        rows = design.rows_of(block.name)
        assert len(rows) == block.stop - block.start
        assert set(rows.indices.tolist()) <= set(block.columns.tolist())
    assert stops[-1] == len(design.entities)
    used = [column for block in design.blocks for column in block.columns]
    assert len(used) == len(set(used)), "blocks share a column"


def one_hot(*columns, widths):
    """Dense one-hot matrix with one range per column of levels."""
    parts = [np.eye(width)[list(levels)] for levels, width in zip(columns, widths, strict=True)]
    return np.concatenate(parts, axis=1)


def found(X):
    return {name: columns.tolist() for name, columns in find_one_hot_blocks(as_rows(X)).items()}


# --- from a matrix --------------------------------------------------------------------------


@st.composite
def matrix_and_blocks(draw):
    X = draw(MATRICES)
    owner = draw(st.lists(st.integers(-1, 2), min_size=X.shape[1], max_size=X.shape[1]))
    blocks = {}
    for number in range(3):
        columns = [column for column, o in enumerate(owner) if o == number]
        if columns:
            blocks[f"b{number}"] = draw(st.permutations(columns))
    return X, blocks


@given(case=matrix_and_blocks())
@settings(max_examples=60)
def test_entities_add_up_to_the_rows_whatever_the_blocks(case):
    X, blocks = case
    design = design_of_rows(as_rows(X), blocks)
    require_promised_form(design)
    assert expanded(design) == X.tolist()
    assert design.n_features == X.shape[1]


@given(X=MATRICES)
@settings(max_examples=60)
def test_entities_add_up_to_the_rows_with_blocks_found_or_none(X):
    for blocks in (None, {}):
        design = design_of_rows(as_rows(X), blocks)
        require_promised_form(design)
        assert expanded(design) == X.tolist()


@given(X=hnp.arrays(np.int8, (6, 3), elements=st.integers(0, 1)), copies=st.integers(2, 4))
@settings(max_examples=25)
def test_equal_rows_are_one_entity(X, copies):
    X = np.concatenate([X] * copies)
    design = design_of_rows(as_rows(X), {"all": slice(None)})
    assert design.index[:, 0].tolist()[:6] == design.index[:, 0].tolist()[6:12]
    assert len(design.entities) <= max(len(np.unique(X, axis=0)), X.shape[1])


def test_slices_and_arrays_name_the_same_blocks():
    rows = as_rows(np.arange(8.0).reshape(2, 4))
    for blocks in (
        {"a": slice(0, 2), "b": slice(2, 4)},
        {"a": slice(None, -2), "b": slice(-2, None)},
        {"a": [1, 0], "b": (2, 3)},
        {"a": np.array([0, 1], np.uint8), "b": range(2, 4)},
    ):
        sets = design_of_rows(rows, blocks).column_sets
        assert {name: columns.tolist() for name, columns in sets.items()} == {
            "a": [0, 1],
            "b": [2, 3],
        }


def test_a_slice_with_a_step_names_every_other_column():
    design = design_of_rows(as_rows(np.ones((2, 4))), {"even": slice(0, 4, 2)})
    assert design.block("even").columns.tolist() == [0, 2]


def test_columns_in_no_block_make_up_the_rest():
    design = design_of_rows(as_rows(np.ones((2, 4))), {"a": [1, 2]})
    assert [block.name for block in design.blocks] == ["a", "rest"]
    assert design.block("rest").columns.tolist() == [0, 3]


def test_a_block_may_be_called_rest():
    design = design_of_rows(as_rows(np.ones((2, 2))), {"rest": [0]})
    assert len({block.name for block in design.blocks}) == 2
    assert expanded(design) == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"a": slice(0, 2), "b": slice(1, 4)}, ("'b'",)),
        ({"a": [0, 1], "b": [3, 1]}, ("'b'",)),
        ({"a": [0, 0]}, ("'a'",)),
        ({"a": slice(0, 5)}, ("'a'", "5", "4")),
        ({"a": [0, 4]}, ("'a'", "4", "0..3")),
        ({"a": [-1]}, ("'a'", "-1", "0..3")),
        ({"a": slice(-5, 2)}, ("'a'", "-5", "4")),
        ({"a": slice(2, 2)}, ("'a'",)),
        ({"a": slice(4, None)}, ("'a'",)),
        ({"a": []}, ("'a'",)),
        ({"a": [0.0, 1.0]}, ("'a'",)),
        ({"a": np.array([True, False, True, False])}, ("'a'",)),
        ({"a": np.array([[0, 1]])}, ("'a'",)),
        ({"a": 2}, ("'a'",)),
        ({"a": "user"}, ("'a'",)),
    ],
    ids=str,
)
def test_blocks_that_overlap_or_leave_the_matrix_are_refused_by_name(blocks, words):
    with refused(ValueError, *words):
        design_of_rows(as_rows(np.ones((2, 4))), blocks)


@pytest.mark.parametrize("blocks", [[slice(0, 2)], (), "user", 5], ids=str)
def test_blocks_that_are_no_mapping_are_refused(blocks):
    with refused(TypeError, "blocks", type(blocks).__name__):
        design_of_rows(as_rows(np.ones((2, 4))), blocks)


@pytest.mark.parametrize("name", [0, None, ("a",)], ids=str)
def test_a_name_that_is_no_string_is_refused(name):
    with refused(TypeError, "name", repr(name)):
        design_of_rows(as_rows(np.ones((2, 4))), {name: [0, 1]})


def test_an_unknown_block_is_named_beside_the_known_ones():
    design = design_of_rows(as_rows(np.ones((2, 2))), {"a": [0], "b": [1]})
    with refused(ValueError, "'user'", "a, b"):
        design.block("user")


def test_weights_are_carried_along():
    weights = np.array([1, 2], np.float32)
    assert design_of_rows(as_rows(np.ones((2, 2))), None, weights).weights is weights


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
@pytest.mark.parametrize("blocks", [None, {}], ids=["found", "none"])
def test_matrices_of_next_to_nothing_have_a_design(shape, blocks):
    design = design_of_rows(as_rows(np.zeros(shape)), blocks)
    assert design.n_rows == shape[0] and design.n_features == shape[1]
    assert expanded(design) == np.zeros(shape).tolist()


# --- one-hot blocks found by themselves -----------------------------------------------------

USERS, ITEMS = [0, 1, 2, 0, 1], [3, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "make", [np.array, sp.csr_array, sp.csr_matrix, sp.coo_array, sp.csc_matrix]
)
def test_two_one_hot_ranges_are_found_in_any_format(make):
    X = make(one_hot(USERS, ITEMS, widths=[3, 4]))
    assert found(X) == {"block0": [0, 1, 2], "block1": [3, 4, 5, 6]}


@given(data=st.data(), n_blocks=st.integers(1, 4))
@settings(max_examples=40)
def test_ranges_where_every_column_is_used_are_found_exactly(data, n_blocks):
    # the levels of a range in random order, then once more: every column is used, none is constant
    n, widths, columns = 12, [], []
    for _ in range(n_blocks):
        width = data.draw(st.integers(2, 6))
        columns.append(data.draw(st.permutations([row % width for row in range(n)])))
        widths.append(width)
    X = one_hot(*columns, widths=widths)
    ranges = list(find_one_hot_blocks(as_rows(X)).values())
    assert np.concatenate(ranges).tolist() == list(range(X.shape[1]))
    for columns in ranges:
        assert (np.count_nonzero(X[:, columns], axis=1) == 1).all()
    assert len(ranges) == n_blocks


@given(X=MATRICES)
@settings(max_examples=80)
def test_a_range_that_is_found_holds_exactly_a_one_in_every_row(X):
    for columns in find_one_hot_blocks(as_rows(X)).values():
        assert columns.tolist() == list(range(columns[0], columns[-1] + 1)) and len(columns) > 1
        part = X[:, columns]
        assert (np.count_nonzero(part, axis=1) == 1).all() and (part.sum(axis=1) == 1).all()


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("between", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 2])
def test_unused_columns_before_between_and_after_do_no_harm(before, between, after):
    users, items = one_hot(USERS, widths=[3]), one_hot(ITEMS, widths=[4])
    gaps = [np.zeros((5, width)) for width in (before, between, after)]
    X = np.concatenate([gaps[0], users, gaps[1], items, gaps[2]], axis=1)
    ranges = list(found(X).values())
    assert len(ranges) == 2
    assert ranges[0] + ranges[1] == list(range(X.shape[1])), "unused columns are levels of a range"
    assert set(range(before, before + 3)) <= set(ranges[0])
    assert set(range(before + 3 + between, before + 7 + between)) <= set(ranges[1])


def test_an_unused_level_within_a_range_stays_in_it():
    assert found(one_hot([0, 4, 1, 0], [1, 0, 1, 1], widths=[5, 2])) == {
        "block0": [0, 1, 2, 3, 4],
        "block1": [5, 6],
    }


def test_columns_that_are_not_one_hot_stay_out():
    dense = np.array([[0.5], [1.5], [0.0], [2.0], [1.0]])
    X = np.concatenate([dense, one_hot(USERS, ITEMS, widths=[3, 4]), dense], axis=1)
    assert found(X) == {"block0": [1, 2, 3], "block1": [4, 5, 6, 7]}


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5])
def test_a_value_other_than_1_is_not_one_hot(value):
    X = one_hot(USERS, ITEMS, widths=[3, 4])
    X[2, :3] *= value
    assert found(X) == {"block0": [3, 4, 5, 6]}
    assert found(one_hot(USERS, widths=[3]) * value) == {}


def test_two_ones_or_none_in_a_row_are_not_one_hot():
    X = one_hot(USERS, ITEMS, widths=[3, 4])
    twice, never = X.copy(), X.copy()
    twice[1, 0] = 1
    never[0, 0] = 0
    for broken in (twice, never):
        assert found(broken) == {"block0": [3, 4, 5, 6]}


def test_a_constant_column_is_no_block():
    assert found(np.concatenate([np.ones((5, 1)), one_hot(USERS, widths=[3])], axis=1)) == {
        "block0": [1, 2, 3]
    }


def test_explicit_zeros_are_no_entries():
    X = one_hot(USERS, ITEMS, widths=[3, 4])
    stored = sp.coo_array(
        (X.ravel(), np.divmod(np.arange(X.size), X.shape[1])), shape=X.shape
    ).tocsr()
    assert stored.nnz == X.size, "every zero is stored"
    assert found(stored) == found(X)
    assert expanded(design_of_rows(as_rows(stored))) == X.tolist()


def test_unsorted_and_repeated_indices_are_seen_as_what_they_sum_to():
    # row 0 holds column 0 as 0.5 + 0.5 and its indices are in the wrong order
    X = sp.csr_array(
        (np.array([1.0, 0.5, 0.5, 1.0, 1.0]), np.array([2, 0, 0, 3, 1]), np.array([0, 3, 5])),
        shape=(2, 4),
    )
    assert found(X) == {"block0": [0, 1], "block1": [2, 3]}


def test_found_blocks_are_the_same_every_time_and_logged(caplog):
    X = one_hot(USERS, ITEMS, widths=[3, 4])
    with caplog.at_level(logging.INFO, logger="fmknn"):
        assert found(X) == found(X)
    assert len(caplog.records) == 4


def test_found_blocks_are_used_when_none_are_named():
    design = design_of_rows(as_rows(one_hot(USERS, ITEMS, widths=[3, 4])))
    assert [len(design.rows_of(block.name)) for block in design.blocks] == [3, 4]
    assert design.index.tolist() == [
        [user, 3 + item] for user, item in zip(USERS, ITEMS, strict=True)
    ]


# --- from interactions ----------------------------------------------------------------------


def test_ids_and_contexts_are_one_hot_blocks_side_by_side():
    log = Interactions.from_arrays(
        ["b", "a", "b"],
        [7, 7, 5],
        weights=[1, 2, 3],
        context={"day": ["s", "f", "f"], "n": [9, 8, 9]},
    )
    design = design_of_interactions(log)
    require_promised_form(design)
    assert [block.name for block in design.blocks] == ["user", "item", "day", "n"]
    assert [block.columns.tolist() for block in design.blocks] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert expanded(design) == [
        # a  b  5  7  f  s  8  9
        [0, 1, 0, 1, 0, 1, 0, 1],
        [1, 0, 0, 1, 1, 0, 1, 0],
        [0, 1, 1, 0, 1, 0, 0, 1],
    ]
    assert design.weights.tolist() == [1, 2, 3]


def with_features(**options):
    table = FeatureTable([3, 1, 2], {"g": ["x", "y", "x"], "n": [0, 4, 2]}, **options)
    return Interactions.from_arrays([1, 1], [1, 3], item_features=table)


def test_features_follow_the_ids_of_their_side():
    design = design_of_interactions(with_features())
    require_promised_form(design)
    high = np.sqrt(1.5)  # 0, 2, 4 standardised
    assert np.array(expanded(design)) == pytest.approx(
        np.array(
            [
                # u  1  2  3  x  y  n
                [1, 1, 0, 0, 0, 1, high],
                [1, 0, 0, 1, 1, 0, -high],
            ]
        )
    )


def test_the_id_can_be_switched_off():
    design = design_of_interactions(with_features(features=["g"], id_feature=False))
    require_promised_form(design)
    assert expanded(design) == [[1, 0, 1], [1, 1, 0]]


def test_labels_do_not_enter():
    design = design_of_interactions(with_features(features=[]))
    assert expanded(design) == [[1, 1, 0, 0], [1, 0, 0, 1]]


def test_a_side_without_any_feature_has_empty_entities():
    design = design_of_interactions(with_features(features=[], id_feature=False))
    require_promised_form(design)
    assert expanded(design) == [[1], [1]] and len(design.rows_of("item")) == 3


def test_entities_without_a_row_are_part_of_the_design():
    design = design_of_interactions(with_features())
    assert len(design.rows_of("item")) == 3
    part = design_of_interactions(with_features().take([0]))
    assert part.n_features == design.n_features
    assert expanded(part) == expanded(design)[:1]


def test_no_rows_are_a_design_too():
    design = design_of_interactions(with_features().take([]))
    assert design.index.shape == (0, 2) and len(design.rows_of("item")) == 3
