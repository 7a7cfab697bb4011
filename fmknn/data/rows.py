"""SparseRows: the one sparse layout that kernels see, and the gate through which X enters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._checks import require_count

__all__ = ["SparseRows", "as_rows", "require_csr"]

_INT32_MAX = np.iinfo(np.int32).max


class SparseRows:
    """Sparse rows in the one layout of the kernels: indptr int64, indices int32, values float32.

    Column indices are ascending and distinct within a row. Arrays are read-only, so that fresh,
    fitted and memory-mapped rows are one and the same type to the compiler.

    Parameters
    ----------
    indptr : ndarray of int64, shape (n_rows + 1,)
    indices : ndarray of int32, shape (nnz,)
    values : ndarray of float32, shape (nnz,)
    n_columns : int
    """

    __slots__ = ("indices", "indptr", "n_columns", "values")

    def __init__(
        self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, n_columns: int
    ) -> None:
        self.indptr = read_only(indptr, np.int64)
        self.indices = read_only(indices, np.int32)
        self.values = read_only(values, np.float32)
        self.n_columns = int(n_columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.indptr) - 1, self.n_columns

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def one_hot(cls, n_rows: int, first_column: int, n_columns: int) -> SparseRows:
        """Row r has a single 1, in column ``first_column + r``."""
        return cls(
            np.arange(n_rows + 1, dtype=np.int64),
            np.arange(first_column, first_column + n_rows, dtype=np.int32),
            np.ones(n_rows, dtype=np.float32),
            n_columns,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """Stack rows of the same width, one part under the other."""
        offsets = np.cumsum([0, *(len(part.indices) for part in parts)])
        indptr = [part.indptr[1:] + offset for part, offset in zip(parts, offsets, strict=False)]
        return cls(
            np.concatenate([np.zeros(1, np.int64), *indptr]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.values for part in parts]),
            parts[0].n_columns,
        )

    def take(self, rows: np.ndarray) -> SparseRows:
        """Return the given rows, in that order; -1 gives an empty row."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = np.where(rows < 0, 0, self.indptr[rows])
        lengths = np.where(rows < 0, 0, self.indptr[rows + 1] - starts)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return SparseRows(indptr, self.indices[places], self.values[places], self.n_columns)

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return rows start..stop without copying what they hold."""
        first, last = self.indptr[start], self.indptr[stop]
        return SparseRows(
            self.indptr[start : stop + 1] - first,
            self.indices[first:last],
            self.values[first:last],
            self.n_columns,
        )

    def shift(self, first_column: int, n_columns: int) -> SparseRows:
        """Return the same rows with all columns moved to the right by ``first_column``."""
        return SparseRows(self.indptr, self.indices + first_column, self.values, n_columns)

    def to_scipy(self) -> sp.csr_array:
        """Return a scipy CSR array that shares the values."""
        return sp.csr_array((self.values, self.indices, self.indptr), shape=self.shape)

    def to_state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`from_state` needs, their names beginning with prefix."""
        return {f"{prefix}/{name}": getattr(self, name) for name in ("indptr", "indices", "values")}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], prefix: str, n_columns: int) -> SparseRows:
        """Rebuild the rows from the arrays that :meth:`to_state` gave, trusting none of them.

        Raises
        ------
        ValueError
            If the arrays contradict each other or the width, or a value is not finite.
        """
        indptr, indices, values = (
            state[f"{prefix}/{name}"] for name in ("indptr", "indices", "values")
        )
        if require_count("n_columns", n_columns, 0) > _INT32_MAX:
            raise ValueError(f"{prefix}: {n_columns} columns, at most 2**31 - 1 are supported")
        require_csr(indptr, indices, n_columns, prefix)
        if values.shape != indices.shape or values.dtype.kind != "f":
            raise ValueError(f"{prefix}: expected a floating-point value for each index")
        rows = cls(indptr, indices, values, n_columns)
        if not np.isfinite(rows.values).all():
            raise ValueError(f"{prefix}: the values contain NaN or infinity")
        return rows


def require_csr(indptr: np.ndarray, indices: np.ndarray, n_columns: int, name: str) -> None:
    """Refuse sparse rows whose arrays contradict each other: kernels follow them blindly.

    Raises
    ------
    ValueError
        If the arrays are not one-dimensional integers, ``indptr`` does not ascend from 0 to the
        number of indices, an index lies outside 0..n_columns - 1, or the indices of a row are not
        ascending and distinct.

    Examples
    --------
    >>> require_csr(np.array([0, 2]), np.array([1, 1]), 3, "rows")
    Traceback (most recent call last):
    ValueError: rows: the indices of row 0 are not ascending and distinct
    """
    for array in (indptr, indices):
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(f"{name}: indptr and indices must be one-dimensional integers")
    ends = (0, len(indices))
    if not len(indptr) or (indptr[0], indptr[-1]) != ends or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(f"{name}: indptr must ascend from 0 to {len(indices)}, one per index")
    outside = (indices < 0) | (indices >= n_columns)
    if outside.any():
        culprit = indices[int(np.argmax(outside))]
        raise ValueError(f"{name}: index {culprit} lies outside 0..{n_columns - 1}")
    begins = np.zeros(len(indices) + 1, bool)
    begins[indptr] = True
    wrong = ~begins[1:-1] & (indices[1:] <= indices[:-1])
    if wrong.any():
        row = int(np.searchsorted(indptr, int(np.argmax(wrong)), side="right")) - 1
        raise ValueError(f"{name}: the indices of row {row} are not ascending and distinct")


def read_only(array: Any, dtype: Any) -> np.ndarray:
    """Return a contiguous, aligned, read-only view of that type (a copy only where needed)."""
    flags = array.flags if type(array) is np.ndarray and array.dtype == dtype else None
    if flags is not None and flags.c_contiguous and flags.aligned:
        view = array.view()  # as it is, at no more cost: single queries come here several times
    else:
        # what is too large becomes infinite, a signalling NaN a quiet one: both are refused as such
        with np.errstate(over="ignore", invalid="ignore"):
            view = np.require(array, dtype, ["C", "ALIGNED"]).view()  # memory maps may be unaligned
    view.flags.writeable = False
    return view


def as_rows(X: Any, *, n_columns: int | None = None, name: str = "X") -> SparseRows:
    """Turn a dense or scipy sparse matrix of any format into :class:`SparseRows`.

    Parameters
    ----------
    X : array-like or scipy sparse matrix/array, shape (n_rows, n_columns)
        Any real dtype; values are taken as float32.
    n_columns : int, optional
        The width that is expected.
    name : str
        How error messages call it.

    Returns
    -------
    SparseRows

    Raises
    ------
    ValueError
        For NaN or infinity (row and column are named), an index out of range, a wrong width, a
        wrong number of dimensions, complex numbers or text.
    TypeError
        For anything else that is not a number, a date say.

    Examples
    --------
    >>> as_rows([[0.0, 2.0], [1.0, 0.0]]).indices
    array([1, 0], dtype=int32)
    """
    if isinstance(X, SparseRows):
        rows = X
    else:
        rows = _from_scipy(X, name) if sp.issparse(X) else _from_dense(X, name)
    if n_columns is not None and rows.n_columns != n_columns:
        raise ValueError(f"{name} has {rows.n_columns} columns, expected {n_columns}")
    return rows


def _from_dense(X: Any, name: str) -> SparseRows:
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be two-dimensional, got {array.ndim} dimension(s). Reshape your data: "
            "reshape(-1, 1) for a single feature, reshape(1, -1) for a single row"
        )
    is_text = array.dtype.kind in "SUT"
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except ValueError:
            is_text = True
    if is_text:  # "1.5" too, which numpy would read as a number
        raise ValueError(f"{name} holds text: encode it as numbers first")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numbers, got {array.dtype}: encode it")
    array = read_only(array, np.float32)
    _require_finite(array, name)
    row_index, column_index = np.nonzero(array)
    counts = np.bincount(row_index, minlength=array.shape[0])
    return SparseRows(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        column_index,
        array[row_index, column_index],
        array.shape[1],
    )


def _require_finite(array: np.ndarray, name: str) -> None:
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} contains NaN or infinity: row {row}, column {column} is {array[row, column]}"
        )


def _from_scipy(X: Any, name: str) -> SparseRows:
    if X.ndim != 2:
        raise ValueError(f"{name} must be two-dimensional, got {X.ndim} dimension(s)")
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {X.dtype}")
    # scipy converts these without a look at their indices, into any memory
    if X.format == "coo":
        _require_valid_coordinates(X, name)
    elif X.format in ("csc", "bsr"):
        _require_valid_indices(X, name)
    csr = X.tocsr()
    if csr.shape[1] > _INT32_MAX:
        raise ValueError(f"{name} has {csr.shape[1]} columns, at most 2**31 - 1 are supported")
    _require_valid_indices(csr, name)
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()  # never sort, sum or drop in the caller's own matrix
        csr.sum_duplicates()
        csr.eliminate_zeros()  # a stored zero is no feature, as it is none of a dense row
    n_entries = csr.indptr[-1]  # scipy's arrays may be longer than that
    rows = SparseRows(csr.indptr, csr.indices[:n_entries], csr.data[:n_entries], csr.shape[1])
    if not np.isfinite(rows.values).all():
        place = int(np.argmin(np.isfinite(rows.values)))
        row = int(np.searchsorted(rows.indptr, place, side="right")) - 1
        raise ValueError(
            f"{name} contains NaN or infinity: row {row}, column {int(rows.indices[place])} "
            f"is {rows.values[place]}"
        )
    return rows


def _require_valid_coordinates(X: Any, name: str) -> None:
    """Refuse a COO matrix with an entry outside its shape."""
    for axis, index in (("row", X.row), ("column", X.col)):
        size = X.shape[axis == "column"]
        outside = (index < 0) | (index >= size)
        if outside.any():
            entry = int(np.argmax(outside))
            raise ValueError(
                f"{name} has {axis} index {int(index[entry])} in entry {entry}, "
                f"outside 0..{size - 1}"
            )


def _require_valid_indices(X: Any, name: str) -> None:
    """Refuse a CSR, CSC or BSR matrix whose arrays contradict each other."""
    lines, across, size = ("row", "column", X.shape[1])
    if X.format == "bsr":
        lines, across, size = ("row of blocks", "block", X.shape[1] // X.blocksize[1])
    if X.format == "csc":
        lines, across, size = ("column", "row", X.shape[0])
    indptr, indices = X.indptr, X.indices
    if indptr[0] != 0 or np.any(np.diff(indptr) < 0) or indptr[-1] > len(indices):
        raise ValueError(
            f"{name} is not a valid {X.format.upper()} matrix: its indptr does not ascend from 0"
        )
    used = indices[: indptr[-1]]
    if used.size and (used.min() < 0 or used.max() >= size):
        place = int(np.argmax((used < 0) | (used >= size)))
        line = int(np.searchsorted(indptr, place, side="right")) - 1
        raise ValueError(
            f"{name} has {across} index {int(used[place])} in {lines} {line}, outside 0..{size - 1}"
        )
