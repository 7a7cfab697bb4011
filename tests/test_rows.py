"""SparseRows and as_rows: any matrix in, one layout out, the caller's own left as it was."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import refused

from fmknn.data.rows import SparseRows, as_rows, read_only

FORMATS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"]
DENSE = [[0.0, 2.0, 0.0], [1.5, 0.0, -1.0], [0.0, 0.0, 0.0]]
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 5)),
    elements=st.sampled_from([0.0, 0.0, 1.0, -2.5]),
)


def dense(rows):
    """The matrix, entry by entry, after a look at the promised layout."""
    assert rows.indptr.dtype == np.int64 and rows.indptr[0] == 0
    assert rows.indices.dtype == np.int32 and rows.values.dtype == np.float32
    assert len(rows.indices) == len(rows.values) == rows.indptr[-1]
    table = np.zeros(rows.shape)
    for row in range(len(rows)):
        columns = rows.indices[rows.indptr[row] : rows.indptr[row + 1]].tolist()
        assert columns == sorted(set(columns)), "ascending and distinct"
        for place, column in enumerate(columns, start=rows.indptr[row]):
            table[row, column] = rows.values[place]
    return table.tolist()


def arrays_of(rows):
    return rows.indptr, rows.indices, rows.values


def bits(matrix):
    return [array.tobytes() for array in (matrix.indptr, matrix.indices, matrix.data)]


# --- what goes in ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format_", FORMATS)
@given(X=MATRICES)
@settings(max_examples=10)
def test_every_scipy_format_gives_the_same_rows(format_, kind, X):
    matrix = getattr(sp, f"{format_}_{kind}")(X)
    rows = as_rows(matrix)
    assert dense(rows) == X.tolist() and rows.shape == X.shape


@given(X=MATRICES)
@settings(max_examples=25)
def test_a_dense_matrix_keeps_its_entries_and_stores_no_zero(X):
    rows = as_rows(X)
    assert dense(rows) == X.tolist() and rows.shape == X.shape
    assert np.all(rows.values != 0)


@pytest.mark.parametrize(
    "X",
    [
        DENSE,
        np.array(DENSE, dtype=np.float64),
        np.array(DENSE, dtype=np.float16),
        np.array(DENSE, dtype=">f4"),
        np.array(DENSE, dtype=object),
        np.asfortranarray(DENSE),
        np.array(DENSE)[::-1][::-1],
        pd.DataFrame(DENSE),
    ],
    ids=lambda X: f"{type(X).__name__}-{getattr(X, 'dtype', '')}",
)
def test_dense_input_of_any_real_type(X):
    assert dense(as_rows(X)) == DENSE


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float64"])
@pytest.mark.parametrize("make", [np.array, sp.csr_array], ids=["dense", "csr"])
def test_values_of_any_real_dtype_become_float32(make, dtype):
    assert dense(as_rows(make(np.array([[0, 1], [1, 1]], dtype=dtype)))) == [[0, 1], [1, 1]]


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_unsorted_and_repeated_indices_are_sorted_and_summed(index_dtype):
    indices = np.array([2, 0, 2, 1], dtype=index_dtype)
    indptr = np.array([0, 3, 4], dtype=index_dtype)
    X = sp.csr_array((np.array([1.0, 5.0, 2.0, 7.0]), indices, indptr), shape=(2, 3))
    before = bits(X)
    assert dense(as_rows(X)) == [[5, 0, 3], [0, 7, 0]]
    assert bits(X) == before, "the caller's own matrix has been sorted"


def test_int64_indices_are_taken():
    X = sp.csr_array(np.array(DENSE))
    X.indptr, X.indices = X.indptr.astype(np.int64), X.indices.astype(np.int64)
    assert dense(as_rows(X)) == DENSE


def test_read_only_input_is_taken():
    X = sp.csr_array(np.array(DENSE, dtype=np.float32))
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = False
    assert dense(as_rows(X)) == DENSE
    fixed = np.array(DENSE)
    fixed.flags.writeable = False
    assert dense(as_rows(fixed)) == DENSE


def test_memory_mapped_input_is_taken(tmp_path):
    X = sp.csr_array(np.array(DENSE, dtype=np.float32))
    parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "dense": np.array(DENSE)}
    mapped = {}
    for name, array in parts.items():
        np.save(tmp_path / f"{name}.npy", array)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    assert dense(as_rows(mapped["dense"])) == DENSE
    csr = sp.csr_array((mapped["data"], mapped["indices"], mapped["indptr"]), shape=X.shape)
    assert dense(as_rows(csr)) == DENSE


def test_arrays_longer_than_the_matrix_are_cut():
    X = sp.csr_array(np.array(DENSE))
    X.indices = np.append(X.indices, 99).astype(X.indices.dtype)
    X.data = np.append(X.data, np.nan)
    assert dense(as_rows(X)) == DENSE


def test_rows_pass_as_they_are():
    rows = as_rows(DENSE)
    assert as_rows(rows) is rows


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.csc_array], ids=lambda f: f.__name__)
def test_empty_matrices_have_a_shape(make, shape):
    assert as_rows(make(np.zeros(shape))).shape == shape


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make",
    [np.array, sp.csr_array, sp.csc_array, sp.coo_array, pd.DataFrame],
    ids=lambda f: f.__name__,
)
def test_what_is_not_finite_is_named_by_row_and_column(make, value):
    X = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, value]])
    with refused(ValueError, "features", "row 2", "column 2", value):
        as_rows(make(X), name="features")


@pytest.mark.parametrize("make", [np.array, sp.csr_array], ids=["dense", "csr"])
def test_what_float32_cannot_hold_is_infinite_and_no_warning_is_left(make):
    with warnings.catch_warnings(), refused(ValueError, "row 0", "column 1"):
        warnings.simplefilter("error")
        as_rows(make(np.array([[1.0, 1e300]])))


def test_none_is_a_missing_value():
    with refused(ValueError, "row 1", "column 0"):
        as_rows([[1.0, 2.0], [None, 1.0]])


def bad_csr(indices, shape=(2, 3)):
    X = sp.csr_array(np.array([[1.0, 0, 0], [0, 1.0, 1.0]]))
    X.indices = np.array(indices, dtype=np.int32)
    return X


@pytest.mark.parametrize(
    ("indices", "row", "culprit"), [([0, -1, 2], 1, -1), ([0, 1, 3], 1, 3), ([3, 1, 2], 0, 3)]
)
def test_an_index_out_of_range_is_named_by_its_row(indices, row, culprit):
    with refused(ValueError, "X", f"index {culprit} ", f"row {row}", "0..2"):
        as_rows(bad_csr(indices))


def test_an_int64_index_that_int32_would_wrap_is_refused():
    X = sp.csr_array(np.array([[1.0, 0.0]]))
    X.indices = np.array([2**32], dtype=np.int64)
    with refused(ValueError, str(2**32), "row 0"):
        as_rows(X)


def test_a_column_index_out_of_range_in_csc_kills_nobody():
    # in a process of its own: scipy's conversion writes wherever such an index points to
    code = """
import numpy as np, scipy.sparse as sp
from fmknn.data.rows import as_rows
for bad in (2_000_000_000, -1):
    indices, indptr = np.array([0, bad, 1], np.int32), np.array([0, 2, 3])
    X = sp.csc_array((np.ones(3), indices, indptr), shape=(2, 2))
    try:
        as_rows(X)
    except ValueError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0 and len(lines) == 2
    assert "2000000000" in lines[0] and "column 0" in lines[0] and "-1" in lines[1]


@pytest.mark.parametrize("indptr", [[1, 1, 3], [0, 2, 1], [0, 1, 9]], ids=str)
def test_an_indptr_that_does_not_ascend_is_refused(indptr):
    X = sp.csr_array(np.array([[1.0, 0, 0], [0, 1.0, 1.0]]))
    X.indptr = np.array(indptr, dtype=np.int32)
    with refused(ValueError, "X", "indptr"):
        as_rows(X)


def test_another_width_than_expected_is_refused():
    with refused(ValueError, "features", "3", "5"):
        as_rows(DENSE, n_columns=5, name="features")
    with refused(ValueError, "3", "5"):
        as_rows(as_rows(DENSE), n_columns=5)
    assert as_rows(DENSE, n_columns=3).n_columns == 3


@pytest.mark.parametrize(
    "X", [[1.0, 2.0], 3.0, np.zeros((2, 2, 2)), sp.coo_array([1.0, 2.0])], ids=str
)
def test_other_than_two_dimensions_are_refused(X):
    with refused(ValueError, "two-dimensional", f"{np.ndim(X) if not sp.issparse(X) else X.ndim}"):
        as_rows(X)


@pytest.mark.parametrize(
    ("X", "error"),
    [
        ([["a", "b"]], ValueError),
        ([["1", "2"]], ValueError),
        ([[1.0, "b"]], ValueError),
        (np.array([["a", 1.0]], dtype=object), ValueError),
        (np.array([[b"1"]]), ValueError),
        (np.array([[1j]]), ValueError),
        (sp.csr_array(np.array([[1j]])), ValueError),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), TypeError),
        (np.array([[{}]], dtype=object), TypeError),
    ],
    ids=str,
)
def test_what_is_no_real_number_is_refused(X, error):
    with refused(error):
        as_rows(X)


# --- the layout, and what rows can do -------------------------------------------------------


def test_the_arrays_are_read_only_and_the_callers_are_not():
    X = sp.csr_array(np.array(DENSE, dtype=np.float32))
    rows = as_rows(X)
    assert not any(array.flags.writeable for array in arrays_of(rows))
    assert all(array.flags.writeable for array in (X.data, X.indices, X.indptr))


def test_read_only_copies_only_where_it_must():
    own = np.arange(3, dtype=np.float32)
    assert np.shares_memory(read_only(own, np.float32), own)
    assert not np.shares_memory(read_only(own, np.float64), own)
    assert own.flags.writeable


def test_read_only_gives_one_layout():
    unaligned = np.frombuffer(bytes(17), dtype=np.uint8)[1:].view(np.float32)
    for array in (unaligned, np.zeros((4, 4), np.float32)[:, 1], np.zeros(3, ">f4"), [1.0, 2.0]):
        view = read_only(array, np.float32)
        assert view.flags.aligned and view.flags.c_contiguous and not view.flags.writeable
        assert view.dtype == np.float32 and view.dtype.isnative
        assert view.tolist() == np.asarray(array).tolist()


def test_one_hot_rows():
    assert dense(SparseRows.one_hot(2, 1, 4)) == [[0, 1, 0, 0], [0, 0, 1, 0]]


@given(X=MATRICES, Y=MATRICES)
@settings(max_examples=25)
def test_concatenate_stacks(X, Y):
    Y = np.resize(Y, (len(Y), X.shape[1]))
    both = SparseRows.concatenate([as_rows(X), as_rows(Y), as_rows(X)])
    assert dense(both) == np.concatenate([X, Y, X]).tolist()


@given(X=MATRICES, data=st.data())
@settings(max_examples=40)
def test_take_gives_those_rows_and_an_empty_one_for_minus_one(X, data):
    order = data.draw(st.lists(st.integers(-1, len(X) - 1), max_size=8))
    expected = [[0.0] * X.shape[1] if row < 0 else X[row].tolist() for row in order]
    assert dense(as_rows(X).take(np.array(order, dtype=np.int32))) == expected


@given(X=MATRICES, data=st.data())
@settings(max_examples=25)
def test_slice_gives_a_range_of_rows(X, data):
    start = data.draw(st.integers(0, len(X)))
    stop = data.draw(st.integers(start, len(X)))
    part = as_rows(X).slice(start, stop)
    assert dense(part) == X[start:stop].tolist() and part.shape == (stop - start, X.shape[1])


def test_slice_copies_no_values():
    rows = as_rows(DENSE)
    assert np.shares_memory(rows.slice(1, 2).values, rows.values)


def test_shift_moves_all_columns_to_the_right():
    assert dense(as_rows([[0.0, 2.0], [1.0, 0.0]]).shift(2, 5)) == [
        [0, 0, 0, 2, 0],
        [0, 0, 1, 0, 0],
    ]


@given(X=MATRICES)
@settings(max_examples=15)
def test_to_scipy_is_the_same_matrix(X):
    back = as_rows(X).to_scipy()
    assert back.shape == X.shape and back.toarray().tolist() == X.tolist()


# --- rows from a file: nothing is trusted ------------------------------------------------------

STATE = as_rows([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]).to_state("rows")


def test_rows_survive_their_state():
    rows = SparseRows.from_state(STATE, "rows", 3)
    assert dense(rows) == [[0, 2, 1], [0, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize(
    "name, array, word",
    [
        ("indptr", [0, 2, 2], "indptr"),
        ("indptr", [0, 2, 1, 3], "indptr"),
        ("indptr", [1, 2, 2, 3], "indptr"),
        ("indptr", [0, 2, 2, 9], "indptr"),
        ("indptr", [0.0, 2.0, 2.0, 3.0], "integers"),
        ("indptr", [], "indptr"),
        ("indices", [1, 2, 3], "index 3"),
        ("indices", [1, -1, 0], "index -1"),
        ("indices", [1, 2**32 + 2, 0], str(2**32 + 2)),
        ("indices", [2, 1, 0], "row 0"),
        ("indices", [1, 1, 0], "row 0"),
        ("indices", [[1, 2, 0]], "one-dimensional"),
        ("indices", [1.0, 2.0, 0.0], "integers"),
        ("values", [1.0, 2.0], "value"),
        ("values", [[1.0, 2.0, 3.0]], "value"),
        ("values", [1, 2, 3], "floating-point"),
        ("values", [1.0, np.nan, 3.0], "NaN"),
        ("values", [1.0, 1e300, 3.0], "infinity"),
    ],
)
def test_state_that_contradicts_itself_is_refused(name, array, word):
    with refused(ValueError, "rows", word):
        SparseRows.from_state({**STATE, f"rows/{name}": np.array(array)}, "rows", 3)


@pytest.mark.parametrize("n_columns", [2, -1, 2**31, 3.0, True, "3"])
def test_a_width_that_does_not_fit_is_refused(n_columns):
    with refused(ValueError):
        SparseRows.from_state(STATE, "rows", n_columns)


@pytest.mark.parametrize(("row", "column"), [(400, 0), (-1, 0), (0, 9), (0, -5)])
def test_coordinates_outside_the_shape_are_refused(row, column):
    X = sp.coo_matrix((np.ones(2), ([0, 1], [0, 1])), shape=(2, 2))
    X.row[0], X.col[0] = row, column
    with refused(ValueError, "X", "entry 0"):
        as_rows(X)


def test_blocks_outside_the_shape_are_refused():
    X = sp.bsr_matrix(np.eye(4), blocksize=(2, 2))
    X.indices[0] = 7
    with refused(ValueError, "X", "7"):
        as_rows(X)
    X = sp.bsr_matrix(np.eye(4), blocksize=(2, 2))
    X.indptr[-1] = 10**6
    with refused(ValueError, "X", "indptr"):
        as_rows(X)


def test_stored_zeros_are_no_features():
    X = sp.csr_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    X.data[1] = 0
    rows = as_rows(X)
    assert rows.indices.tolist() == [0, 0, 1]
    assert X.nnz == 4  # the caller's matrix stays as it was
