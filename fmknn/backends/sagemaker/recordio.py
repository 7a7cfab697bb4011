"""RecordIO-protobuf, the format in which SageMaker's algorithms take their data.

A file is a row of frames (:mod:`.recordio_frames`), each a protocol buffer (:mod:`.records`): the
features and the label of one row. SageMaker's factorization machines take float32 only, so that is
what is written; the other types are read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from ..._checks import refuse_masked, require_count
from ...data.rows import SparseRows, as_rows, read_only
from .recordio_frames import (
    HEADER,
    MAGIC,
    MAX_RECORD_BYTES,
    RecordIOError,
    fault,
    frame_starts,
    open_stream,
    read_payloads,
    split_at_magic,
)
from .recordio_kernel import LABEL_PREFIX, payload_sizes, write_frames
from .records import Bytes, ContentError, Record, RowLayout, Tensor, parse_record, row_layout

__all__ = [
    "MAX_RECORD_BYTES",
    "Bytes",
    "Record",
    "RecordIOError",
    "Tensor",
    "encode_dense",
    "encode_sparse",
    "read_matrix",
    "read_records",
]

_LAST_EXACT = 2**24  # the next integer is no float32
_INT32_MAX = 2**31 - 1


# --- writing --------------------------------------------------------------------------------


def encode_sparse(rows: SparseRows, labels: Any = None) -> bytes:
    """Write sparse rows: values, their columns as keys, and the width as shape.

    Parameters
    ----------
    rows : SparseRows
        Entries are written as they stand, stored zeros too.
    labels : array-like, shape (n_rows,), optional
        Taken as float32.

    Returns
    -------
    bytes
        One framed record per row: features ``{"values": Float32Tensor}`` and, with labels, label
        ``{"values": Float32Tensor}``. Files written in pieces may simply be joined.

    Raises
    ------
    ValueError
        For NaN or infinity, labels of another number, an integer label above 2**24, which float32
        would change, or a row that takes more than 2**29 - 1 bytes.
    TypeError
        If the labels are no real numbers.

    Examples
    --------
    >>> rows = as_rows([[1.0, 0.0, 1.0]])
    >>> len(encode_sparse(rows, [5.0]))
    60
    >>> next(read_records(encode_sparse(rows, [5.0]))).features["values"].keys
    array([0, 2])
    """
    bad = ~np.isfinite(rows.values)
    if bad.any():
        row = int(np.searchsorted(rows.indptr, int(np.argmax(bad)), side="right")) - 1
        raise ValueError(f"row {row} contains NaN or infinity")
    label_bits = _label_bits(labels, len(rows))
    has_labels = labels is not None
    sizes = np.empty(len(rows), np.int64)
    payload_sizes(rows.indptr, rows.indices, rows.n_columns, has_labels, sizes)
    starts = frame_starts(sizes)
    out = np.zeros(starts[-1], np.uint8)
    bits = rows.values.view(np.uint32)
    write_frames(rows.indptr, rows.indices, bits, rows.n_columns, label_bits, sizes, starts, out)
    return split_at_magic(out, starts[:-1], sizes)


def encode_dense(matrix: Any, labels: Any = None) -> bytes:
    """Write the rows of a dense matrix: values alone, without keys or shape.

    Parameters
    ----------
    matrix : array-like, shape (n_rows, n_columns)
        Taken as float32.
    labels : array-like, shape (n_rows,), optional
        Taken as float32.

    Returns
    -------
    bytes
        One framed record per row, as of :func:`encode_sparse`.

    Raises
    ------
    ValueError
        For NaN, infinity or a number beyond float32, a matrix that is not two-dimensional or has no
        columns, labels of another number, an integer label above 2**24, which float32 would
        change, or rows of more than 2**29 - 1 bytes.
    TypeError
        If matrix or labels are no real numbers.

    Examples
    --------
    >>> values, labels = read_matrix(encode_dense([[0.5, 2.0], [1.0, 0.0]], labels=[0, 1]))
    >>> values
    array([[0.5, 2. ],
           [1. , 0. ]], dtype=float32)
    """
    matrix = _real(matrix, "the matrix")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(
            f"the matrix must be two-dimensional and have columns, its shape is {matrix.shape}"
        )
    n_rows, n_columns = matrix.shape
    tensor = _field(0x0A, 4 * n_columns)
    value = _field(0x12, len(tensor) + 4 * n_columns) + tensor
    entry = b"\x0a\x06values" + _field(0x12, len(value) + 4 * n_columns) + value
    prefix = _field(0x0A, len(entry) + 4 * n_columns) + entry
    label_size = 0 if labels is None else len(LABEL_PREFIX) + 4
    size = len(prefix) + 4 * n_columns + label_size
    sizes = np.full(n_rows, size)
    starts = frame_starts(sizes)
    numbers = _float32(matrix, "the matrix")
    label_bits = _label_bits(labels, n_rows)

    out = np.zeros(starts[-1], np.uint8)
    frames = out.reshape(n_rows, HEADER.size + size + -size % 4)
    head = HEADER.pack(MAGIC, size) + prefix
    end = len(head) + 4 * n_columns
    frames[:, : len(head)] = np.frombuffer(head, np.uint8)
    frames[:, len(head) : end] = numbers.astype("<f4", copy=False).view(np.uint8)
    if labels is not None:
        frames[:, end : end + len(LABEL_PREFIX)] = LABEL_PREFIX
        end += len(LABEL_PREFIX)
        frames[:, end : end + 4] = label_bits.astype("<u4", copy=False)[:, None].view(np.uint8)
    return split_at_magic(out, starts[:-1], sizes)


def _field(tag: int, size: int) -> bytes:
    """Tag and length of a field with ``size`` bytes of content."""
    head = bytearray([tag])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _real(numbers: Any, name: str) -> np.ndarray:
    refuse_masked(name, numbers)
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {numbers.dtype}")
    return numbers


def _float32(numbers: np.ndarray, name: str) -> np.ndarray:
    """Return read-only float32 numbers, every one finite."""
    converted = read_only(numbers, np.float32)
    bad = ~np.isfinite(converted)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
        raise ValueError(f"{name} holds NaN, infinity or a number beyond float32 in row {row}")
    return converted


def _label_bits(labels: Any, n_rows: int) -> np.ndarray:
    """Return the labels as float32, seen as uint32; none: an empty array."""
    if labels is None:
        return read_only(np.zeros(0), np.uint32)
    labels = _real(labels, "labels")
    if labels.shape != (n_rows,):
        raise ValueError(f"labels must be one per row, {n_rows}; their shape is {labels.shape}")
    if labels.dtype.kind in "iu":
        inexact = (labels > _LAST_EXACT) | (labels < -_LAST_EXACT)
        if inexact.any():
            row = int(np.argmax(inexact))
            raise ValueError(
                f"the label of row {row} is {labels[row]}: float32 holds integers up to 2**24"
            )
    return _float32(labels, "labels").view(np.uint32)


# --- reading --------------------------------------------------------------------------------


def read_records(
    data: bytes | bytearray | memoryview | BinaryIO, *, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[Record]:
    """Read records one by one.

    Parameters
    ----------
    data : bytes-like or binary file
        A file is read as far as the records are asked for.
    max_record_bytes : int
        Longer records are refused. No more than that, and no more than there is, is in memory.

    Returns
    -------
    iterator of Record

    Raises
    ------
    RecordIOError
        When a record is reached that is damaged, too long or no such message.
    TypeError
        If the data is no bytes and no binary file.

    Examples
    --------
    >>> [record.label["values"].values for record in read_records(encode_dense([[1], [2]], [3, 4]))]
    [array([3.], dtype=float32), array([4.], dtype=float32)]
    """
    records = _records(open_stream(data), require_count("max_record_bytes", max_record_bytes))
    return (record for _, record in records)


def read_matrix(
    data: bytes | bytearray | memoryview | BinaryIO, *, n_columns: int | None = None
) -> tuple[SparseRows | np.ndarray, np.ndarray | None]:
    """Read all records as the rows of one matrix, with their labels.

    Parameters
    ----------
    data : bytes-like or binary file
    n_columns : int, optional
        The width that is expected. Needed where sparse records do not state their shape.

    Returns
    -------
    matrix : ndarray of float32, shape (n_rows, n_columns), or SparseRows
        The feature ``"values"``. SparseRows where records have keys: columns are sorted, the
        values of a repeated column summed, zeros dropped.
    labels : ndarray of float32, float64 or int32, shape (n_rows,), or None
        The label ``"values"``; None where no record has one.

    Raises
    ------
    RecordIOError
        For whatever :func:`read_records` refuses, no records, records of different kinds, types or
        widths, some with and some without label, NaN, infinity or numbers beyond float32, or a key
        outside the width.

    Examples
    --------
    >>> rows, labels = read_matrix(encode_sparse(as_rows([[0.0, 2.0], [0.0, 0.0]])))
    >>> rows.indptr, rows.indices, rows.n_columns, labels
    (array([0, 1, 1]), array([1], dtype=int32), 2, None)
    """
    if n_columns is not None:
        n_columns = require_count("n_columns", n_columns, 0)
    offsets, counts = array("q"), array("q")
    raw_values, raw_keys, raw_labels = bytearray(), bytearray(), bytearray()
    first: RowLayout | None = None
    for offset, record in _records(open_stream(data), MAX_RECORD_BYTES):
        layout = _row_layout(record, n_columns, first, len(offsets), offset)
        first = first or layout
        tensor, label = record.features["values"], record.label.get("values")
        assert isinstance(tensor, Tensor)  # or it would have no layout
        offsets.append(offset)
        counts.append(len(tensor.values))
        raw_values += tensor.values.tobytes()
        if tensor.keys is not None:
            raw_keys += tensor.keys.tobytes()
        if isinstance(label, Tensor):
            raw_labels += label.values.tobytes()
    if first is None:
        raise RecordIOError("the data holds no record, so the matrix has no width")
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    values = _finite_float32(np.frombuffer(raw_values, first.dtype), indptr, offsets)
    labels = None
    if first.label_dtype is not None:
        labels = np.frombuffer(raw_labels, first.label_dtype)
    if not first.is_sparse:
        return values.reshape(len(offsets), first.n_columns), labels
    keys = np.frombuffer(raw_keys, np.int64)
    _require_all(keys < first.n_columns, indptr, offsets, f"a key above {first.n_columns - 1}")
    matrix = sp.csr_array((values, keys, indptr), shape=(len(offsets), first.n_columns))
    return as_rows(matrix), labels


def _row_layout(
    record: Record, n_columns: int | None, first: RowLayout | None, number: int, offset: int
) -> RowLayout:
    """Return the layout of a record, which must be the expected one."""
    try:
        layout = row_layout(record, n_columns)
    except ContentError as error:
        raise fault(number, offset, str(error)) from None
    if first is not None and not _alike(layout, first):
        raise fault(number, offset, f"it is {layout}, but record 0 is {first}")
    if n_columns not in (None, layout.n_columns):
        raise fault(number, offset, f"it has {layout.n_columns} columns, expected {n_columns}")
    if layout.n_columns > _INT32_MAX:
        raise fault(number, offset, f"{layout.n_columns} columns, at most 2**31 - 1 are supported")
    return layout


def _alike(one: RowLayout, other: RowLayout) -> bool:
    # numpy takes None for float64, so == alone would not tell a label from none
    return one == other and (one.label_dtype is None) == (other.label_dtype is None)


def _finite_float32(values: np.ndarray, indptr: np.ndarray, offsets: array[int]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are refused below
        numbers = values.astype(np.float32, copy=False)
    what = "it contains NaN, infinity or a number beyond float32"
    _require_all(np.isfinite(numbers), indptr, offsets, what)
    return numbers


def _require_all(good: np.ndarray, indptr: np.ndarray, offsets: array[int], otherwise: str) -> None:
    if not good.all():
        place = int(np.argmin(good))
        number = int(np.searchsorted(indptr, place, side="right")) - 1
        raise fault(number, offsets[number], otherwise)


def _records(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, Record]]:
    """Yield each record with the offset of its first byte."""
    for number, (offset, payload) in enumerate(read_payloads(stream, max_bytes)):
        try:
            yield offset, parse_record(payload)
        except ContentError as error:
            raise fault(number, offset, str(error)) from None
