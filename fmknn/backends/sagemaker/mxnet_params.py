"""MXNet parameter files (``*.params``) to numpy arrays and back, without MXNet.

The file is a list of arrays, all numbers little-endian (MXNet's src/ndarray/ndarray.cc and
include/mxnet/tuple.h)::

    uint64 0x112 | uint64 0 | uint64 count | the arrays | uint64 names | the names
    name   uint64 length, then UTF-8: "arg:" or "aux:" and the name of the parameter

An array begins with a uint32 that tells the generation of the format::

    0xF993FAC9  V2, MXNet 0.12 on: int32 storage (0 dense, 1 row_sparse, 2 csr)
                | sparse: stored shape | shape | device | int32 dtype
                | sparse: int32 dtype and shape of each index array | data | index arrays
    0xF993FACA  V3, MXNet 1.5 on: as V2, always dense; no dimensions mean a scalar
    0xF993FAC8  V1, MXNet 0.11: shape | device | int32 dtype | data
    other       MXNet up to 0.10: this number is ndim; uint32 dimensions | device | dtype | data

    shape  int32 ndim, then ndim int64     device  int32 type, int32 number: both ignored

An array without a value ends after its shape (ndim 0, in V3 ndim -1).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..._checks import require_count
from ...errors import ModelFileError

__all__ = ["LIST_MAGIC", "read_params", "write_params"]

LIST_MAGIC = struct.pack("<Q", 0x112)

_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_STORAGES = ("dense", "row_sparse", "csr")  # by code; the position is the number of index arrays
_CPU = struct.pack("<ii", 1, 0)
_MAX_NDIM = 32  # numpy 1 has no more
_MAX_ARRAYS = 1 << 14  # an array takes 4 bytes in a file but hundreds in memory
_BOOL, _BFLOAT16 = 7, 12
_DTYPES = {
    code: np.dtype(f"<{kind}")
    for code, kind in enumerate(
        ["f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "i2", "u2", "u4", "u8", "u2"]
    )
}
_CODES = {dtype: code for code, dtype in reversed(_DTYPES.items())}


@dataclass(frozen=True)
class _Block:
    """A run of numbers in the file, known to lie within it."""

    offset: int
    shape: tuple[int, ...]
    code: int

    @property
    def dtype(self) -> np.dtype:
        return _DTYPES[self.code]

    def read(self, data: bytes) -> np.ndarray:
        """Return a copy in the byte order of this machine."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.offset)
        if self.code == _BFLOAT16:  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        elif self.code == _BOOL:  # any byte but 0 is true, numpy expects 1
            flat = flat.view(np.uint8) != 0
        return flat.astype(flat.dtype.newbyteorder("="), order="C").reshape(self.shape)


@dataclass(frozen=True)
class _Stored:
    """One array of the file; without values when its block is None."""

    offset: int
    storage: str
    shape: tuple[int, ...]
    values: _Block | None
    indices: list[_Block] = field(default_factory=list)

    @property
    def dense_nbytes(self) -> int:
        code = self.values.code if self.values else 0
        return math.prod(self.shape) * (4 if code == _BFLOAT16 else _DTYPES[code].itemsize)


class _Cursor:
    """Reads one number after the other, never beyond the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def skip(self, n_bytes: int, what: str) -> int:
        """Pass over bytes that must be there, and return where they begin."""
        start, left = self.offset, len(self.data) - self.offset
        if n_bytes > left:
            raise ModelFileError(
                f"the parameter file is cut short: {what} at byte {start} needs {n_bytes} bytes, "
                f"{left} are left; fetch the file again"
            )
        self.offset += n_bytes
        return start

    def number(self, code: str, what: str) -> int:
        layout = struct.Struct(f"<{code}")
        return int(layout.unpack_from(self.data, self.skip(layout.size, what))[0])

    def shape(self, what: str, code: str = "q", ndim: int | None = None) -> tuple[int, ...] | None:
        """Return a shape, None for ndim -1, which is that of an array without a value."""
        start = self.offset
        ndim = self.number("i", f"the shape of {what}") if ndim is None else ndim
        if ndim == -1:
            return None
        if not 0 <= ndim <= _MAX_NDIM:
            raise _damage(start, f"{what} has {ndim} dimensions, at most {_MAX_NDIM} can be read")
        shape = tuple(self.number(code, f"the shape of {what}") for _ in range(ndim))
        # zeros do not count here: numpy refuses to shape such an array, empty as it is
        if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) >= 1 << 59:
            raise _damage(start, f"{what} has the impossible shape {shape}")
        return shape

    def dtype(self, what: str) -> int:
        start = self.offset
        code = self.number("i", f"the dtype of {what}")
        if code not in _DTYPES:
            raise _damage(start, f"{what} has the unknown dtype code {code}")
        return code

    def block(self, shape: tuple[int, ...], code: int, what: str) -> _Block:
        n_bytes = math.prod(shape) * _DTYPES[code].itemsize
        return _Block(self.skip(n_bytes, what), shape, code)


def read_params(data: bytes, *, max_bytes: int = 2**30) -> dict[str, np.ndarray]:
    """Read an MXNet parameter file of any generation, what ``mx.nd.load`` reads.

    Parameters
    ----------
    data : bytes
        The content of the file.
    max_bytes : int
        Sparse arrays come back dense and may need far more memory than the file has bytes. The
        arrays together may take this much, or four times the size of the file if that is more.

    Returns
    -------
    dict of str to ndarray
        By name ("arg:v", ...) in the order of the file, writable and C-contiguous; a list without
        names has "0", "1", ... Sparse arrays are dense here, bfloat16 is float32, and an array
        that was saved without a value is float32 of shape (0,).

    Raises
    ------
    ModelFileError
        For a file that is damaged, cut short, followed by other bytes or none of MXNet's, that
        names an array twice, or that needs more memory than `max_bytes`.

    Notes
    -----
    A sparse array can carry an outdated stored shape: MXNet writes it before it waits for the
    computation that fills the array. As in MXNet's own reader, the shape of the indices counts.
    Indices may come in any order but not twice.

    Examples
    --------
    >>> read_params(write_params({"arg:w0_weight": np.float32([[0.5]])}))
    {'arg:w0_weight': array([[0.5]], dtype=float32)}
    """
    if not isinstance(data, bytes):
        data = bytes(memoryview(data))
    return read_within(data, max(require_count("max_bytes", max_bytes), 4 * len(data)))


def read_within(data: bytes, limit: int) -> dict[str, np.ndarray]:
    """Read as `read_params`, where the arrays take at most `limit` bytes together."""
    stored = _layout(data)
    needed = sum(array.dense_nbytes for array in stored.values())
    if needed > limit:
        raise ModelFileError(
            f"the arrays of the parameter file take {needed} bytes in memory, more than the "
            f"{limit} allowed: pass max_bytes={needed} if this is meant"
        )
    return {name: _READERS[array.storage](data, name, array) for name, array in stored.items()}


def _layout(data: bytes) -> dict[str, _Stored]:
    """Return where everything is; values are read only when all are known to be there."""
    if not data.startswith(LIST_MAGIC):
        raise ModelFileError(
            "this is no MXNet parameter file, which begins with the bytes 12 01 00 00 00 00 00 00: "
            "check what was passed"
        )
    cursor = _Cursor(data)
    cursor.skip(16, "the header")
    n_arrays = cursor.number("Q", "the number of arrays")
    if n_arrays > _MAX_ARRAYS:
        raise _damage(16, f"it claims {n_arrays} arrays, at most {_MAX_ARRAYS} can be read")
    stored = [_array_layout(cursor, f"array {number}") for number in range(n_arrays)]
    names = _names(cursor, n_arrays)
    if cursor.offset < len(data):
        raise _damage(cursor.offset, f"{len(data) - cursor.offset} bytes follow its end")
    return dict(zip(names, stored, strict=True))


def _array_layout(cursor: _Cursor, what: str) -> _Stored:
    start = cursor.offset
    generation = cursor.number("I", what)
    storage, shape = "dense", None
    if generation in (_V2, _V3):
        storage = _storage(cursor, generation, what)
        if storage != "dense":
            cursor.shape(f"the stored part of {what}")  # may be outdated: see read_params
        shape = cursor.shape(what)
    elif generation == _V1:
        shape = cursor.shape(what)
    elif generation <= _MAX_NDIM:
        shape = cursor.shape(what, "I", generation)
    else:
        raise _damage(start, f"{what} begins with the unknown number {generation:#010x}")
    if shape is None or (shape == () and generation != _V3):
        return _Stored(start, "dense", (0,), None)
    cursor.skip(len(_CPU), f"the device of {what}")
    code = cursor.dtype(what)
    return _contents(cursor, what, _Stored(start, storage, shape, None), code)


def _storage(cursor: _Cursor, generation: int, what: str) -> str:
    start = cursor.offset
    code = cursor.number("i", f"the storage of {what}")
    if not 0 <= code < (1 if generation == _V3 else len(_STORAGES)):
        raise _damage(start, f"{what} has the unknown storage type {code}")
    return _STORAGES[code]


def _contents(cursor: _Cursor, what: str, array: _Stored, code: int) -> _Stored:
    """Return the array with its blocks of values and indices."""
    shape = array.shape
    if (array.storage == "csr" and len(shape) != 2) or (array.storage != "dense" and not shape):
        raise _damage(array.offset, f"{what} is stored as {array.storage} but of shape {shape}")
    heads = [_index_head(cursor, what) for _ in range(_STORAGES.index(array.storage))]
    if heads:  # one row for each index of row_sparse, one number for each column index of csr
        shape = heads[-1][0] + (shape[1:] if array.storage == "row_sparse" else ())
    values = cursor.block(shape, code, f"the data of {what}")
    indices = [cursor.block(*head, f"the indices of {what}") for head in heads]
    return _Stored(array.offset, array.storage, array.shape, values, indices)


def _index_head(cursor: _Cursor, what: str) -> tuple[tuple[int, ...], int]:
    start = cursor.offset
    code, shape = cursor.dtype(what), cursor.shape(f"the indices of {what}")
    if _DTYPES[code].kind not in "iu" or code == _BFLOAT16 or shape is None or len(shape) != 1:
        raise _damage(start, f"the indices of {what} are no list of integers")
    return shape, code


def _names(cursor: _Cursor, n_arrays: int) -> list[str]:
    start = cursor.offset
    n_names = cursor.number("Q", "the number of names")
    if n_names == 0:
        return [str(number) for number in range(n_arrays)]
    if n_names != n_arrays:
        raise _damage(start, f"there are {n_names} names for {n_arrays} arrays")
    names: dict[str, None] = {}
    for number in range(n_names):
        length = cursor.number("Q", f"name {number}")
        start = cursor.skip(length, f"name {number}")
        try:
            name = cursor.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise _damage(start, f"name {number} is not UTF-8") from None
        if name in names:
            raise _damage(start, f"two arrays are named {_shown(name)}")
        names[name] = None
    return list(names)


def _dense(data: bytes, name: str, array: _Stored) -> np.ndarray:
    return np.empty(0, np.float32) if array.values is None else array.values.read(data)


def _row_sparse(data: bytes, name: str, array: _Stored) -> np.ndarray:
    assert array.values is not None
    rows = _positions(data, name, array.indices[0], array.shape[0])
    if len(np.unique(rows)) < len(rows):
        raise _damage(array.indices[0].offset, f"{_shown(name)} has a row twice")
    values = array.values.read(data)
    dense = np.zeros(array.shape, values.dtype)
    dense[rows] = values
    return dense


def _csr(data: bytes, name: str, array: _Stored) -> np.ndarray:
    assert array.values is not None
    n_rows, n_columns = array.shape
    starts, columns_block = array.indices
    columns = _positions(data, name, columns_block, n_columns)
    if starts.shape != (n_rows + 1,):
        fault = f"{_shown(name)} has {starts.shape[0]} row limits for {n_rows} rows"
        raise _damage(starts.offset, fault)
    limits = _positions(data, name, starts, len(columns) + 1)
    if limits[0] != 0 or limits[-1] != len(columns) or (limits[1:] < limits[:-1]).any():
        raise _damage(starts.offset, f"the row limits of {_shown(name)} do not fit its values")
    cells = np.repeat(np.arange(n_rows) * n_columns, np.diff(limits)) + columns
    if len(np.unique(cells)) < len(cells):
        raise _damage(columns_block.offset, f"{_shown(name)} has a column twice in one row")
    values = array.values.read(data)
    dense = np.zeros(array.shape, values.dtype)
    dense.reshape(-1)[cells] = values
    return dense


_READERS: dict[str, Callable[[bytes, str, _Stored], np.ndarray]]
_READERS = {"dense": _dense, "row_sparse": _row_sparse, "csr": _csr}


def _positions(data: bytes, name: str, block: _Block, size: int) -> np.ndarray:
    """Return indices as int64, all in [0, size)."""
    indices = block.read(data)
    wrong = np.flatnonzero((indices < 0) | (indices >= size))
    if len(wrong):
        at = block.offset + int(wrong[0]) * block.dtype.itemsize
        raise _damage(at, f"{_shown(name)} has the index {indices[wrong[0]]}, but size {size}")
    return indices.astype(np.int64)


def _damage(offset: int, fault: str) -> ModelFileError:
    return ModelFileError(
        f"the parameter file is damaged, or newer than this reader, at byte {offset}: {fault}"
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "...")


def write_params(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Write arrays as ``mx.nd.save`` of MXNet 0.12 and later does, byte for byte.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Float16, float32, float64, uint8, int8, int32 or int64, with at least one element and one
        dimension. MXNet's Module expects names that begin with "arg:" or "aux:".

    Returns
    -------
    bytes
        The content of a ``.params`` file, all arrays dense (V2).

    Raises
    ------
    TypeError
        For a name that is no str, or a dtype that not every MXNet reads.
    ValueError
        For an array without elements or dimensions, which the format cannot hold.

    Examples
    --------
    >>> len(write_params({"arg:w": np.zeros((3, 1), np.float32)}))
    97
    """
    parts = [LIST_MAGIC, struct.pack("<QQ", 0, len(arrays))]
    for name, array in arrays.items():
        parts += _encoded(name, np.asarray(array))
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        text = name.encode()
        parts += [struct.pack("<Q", len(text)), text]
    return b"".join(parts)


def _encoded(name: str, array: np.ndarray) -> list[bytes]:
    if not isinstance(name, str):
        raise TypeError(f"the name {name!r} of an array is no str")
    code = _CODES.get(array.dtype.newbyteorder("<"), _BFLOAT16)
    if code > _CODES[np.dtype("<i8")]:
        raise TypeError(f"array {name!r} is of dtype {array.dtype}: convert it to float32")
    if not array.size or not array.ndim:
        raise ValueError(
            f"array {name!r} has shape {array.shape}: MXNet holds only arrays of at least one "
            "dimension and one element"
        )
    shape = struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
    head = struct.pack("<Ii", _V2, 0) + shape + _CPU + struct.pack("<i", code)
    return [head, array.astype(array.dtype.newbyteorder("<")).tobytes()]
