"""What a record says: the protocol buffer ``aialgs.data.Record`` of SageMaker's algorithms.

::

    Record  { map<string, Value> features = 1; map<string, Value> label = 2;
              string uid = 3; string metadata = 4; string configuration = 5; }
    Value   { oneof { Float32Tensor = 2; Float64Tensor = 3; Int32Tensor = 7; Bytes = 9; } }
    Tensor  { repeated values = 1; repeated uint64 keys = 2; repeated uint64 shape = 3; }
    Bytes   { repeated bytes value = 1; string content_type = 2; }

(AWS, "Common data formats for training"; record.proto of the SageMaker Python SDK 2.x.) The wire
format is that of the protobuf documentation, "Encoding": numbers packed or not, fields in any
order, unknown fields skipped, a repeated map key or oneof replaced, a repeated message merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .recordio_kernel import read_varints

__all__ = [
    "Bytes",
    "ContentError",
    "Record",
    "RowLayout",
    "Tensor",
    "parse_record",
    "row_layout",
]

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_LONGEST_VARINT = 10
_BYTES = 9
# field of the oneof in Value: type of the numbers, and their wire type where they are not packed
_TENSORS: dict[int, tuple[np.dtype[Any], int]] = {
    2: (np.dtype("<f4"), _FIXED32),
    3: (np.dtype("<f8"), _FIXED64),
    7: (np.dtype("<i4"), _VARINT),
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """Numbers of a record, all of them or, with keys, those that are not zero.

    Parameters
    ----------
    values : ndarray of float32, float64 or int32, shape (n,)
    keys : ndarray of int64, shape (n,), or None
        Positions of the values. A sparse row of zeros has neither values nor keys, only a shape.
    shape : tuple of int, or None
    """

    values: np.ndarray
    keys: np.ndarray | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Bytes:
    """Byte strings of a record, an encoded image say.

    Parameters
    ----------
    values : tuple of bytes
    content_type : str, optional
    """

    values: tuple[bytes, ...] = ()
    content_type: str | None = None


Value: TypeAlias = Tensor | Bytes | None


@dataclass(frozen=True, eq=False)
class Record:
    """One record: named tensors or byte strings, and what is said about them.

    Parameters
    ----------
    features, label : dict of str to Tensor, Bytes or None
        None where the record names a value and leaves it empty.
    uid, metadata, configuration : str, optional
    """

    features: dict[str, Value] = field(default_factory=dict)
    label: dict[str, Value] = field(default_factory=dict)
    uid: str | None = None
    metadata: str | None = None
    configuration: str | None = None


class ContentError(ValueError):
    """What is wrong with one record: which one it is must be added."""


def _malformed(position: int, reason: str) -> ContentError:
    return ContentError(f"byte {position} of its content: {reason}")


def parse_record(payload: bytes) -> Record:
    """Read one serialized Record.

    Parameters
    ----------
    payload : bytes

    Returns
    -------
    Record
        Its arrays are read-only.

    Raises
    ------
    ContentError
        If the bytes are no such message.

    Examples
    --------
    >>> entry = b"\\n\\x06values" + b"\\x12\\x08" + b"\\x12\\x06" + b"\\n\\x04" + b"\\0\\0\\x80?"
    >>> parse_record(b"\\n\\x12" + entry).features["values"].values
    array([1.], dtype=float32)
    """
    features: dict[str, Value] = {}
    label: dict[str, Value] = {}
    texts: dict[int, str] = {}
    for number, wire, start, stop in _fields(payload, 0, len(payload)):
        if wire == _LENGTH and number <= 2:
            name, value = _map_entry(payload, start, stop)
            (features if number == 1 else label)[name] = value
        elif wire == _LENGTH and number <= 5:
            texts[number] = _text(payload, start, stop)
    return Record(features, label, texts.get(3), texts.get(4), texts.get(5))


class RowLayout(NamedTuple):
    """What a record must have in common with the others of a matrix."""

    is_sparse: bool
    n_columns: int
    dtype: np.dtype[Any]
    label_dtype: np.dtype[Any] | None

    def __str__(self) -> str:
        kind = "sparse" if self.is_sparse else "dense"
        label = self.label_dtype or "no"
        return f"{kind} {self.dtype}, {self.n_columns} columns, {label} label"


def row_layout(record: Record, n_columns: int | None = None) -> RowLayout:
    """Return the layout of a record that is a row: a tensor and a label, both named "values".

    Parameters
    ----------
    record : Record
    n_columns : int, optional
        The width to assume for a sparse row without a shape.

    Raises
    ------
    ContentError
        If it is no such row, or contradicts itself.

    Examples
    --------
    >>> str(row_layout(Record({"values": Tensor(np.array([1.5]), np.array([2]), (4,))})))
    'sparse float64, 4 columns, no label'
    """
    tensor, label = record.features.get("values"), record.label.get("values")
    if not isinstance(tensor, Tensor):
        raise ContentError('its features hold no tensor "values"')
    label_dtype = None
    if label is not None:
        if not isinstance(label, Tensor) or len(label.values) != 1:
            raise ContentError("its label is not a single number")
        label_dtype = label.values.dtype
    n_values, keys, shape = len(tensor.values), tensor.keys, tensor.shape
    if shape is not None and len(shape) != 1:
        raise ContentError(f"its shape {list(shape)} is not that of a row")
    is_sparse = keys is not None or (n_values == 0 and shape is not None)
    if shape is not None:
        n_columns = shape[0]
    elif not is_sparse:
        n_columns = n_values
    if n_columns is None:
        raise ContentError("it is sparse and has no shape: pass n_columns")
    if not is_sparse and n_values != n_columns:
        raise ContentError(f"it has {n_values} values, but its shape is [{n_columns}]")
    if keys is not None and len(keys) != n_values:
        raise ContentError(f"it has {n_values} values, but {len(keys)} keys")
    return RowLayout(is_sparse, n_columns, tensor.values.dtype, label_dtype)


def _map_entry(payload: bytes, start: int, stop: int) -> tuple[str, Value]:
    name, value = "", _Value()
    for number, wire, first, last in _fields(payload, start, stop):
        if wire == _LENGTH and number == 1:
            name = _text(payload, first, last)
        elif wire == _LENGTH and number == 2:
            value.merge(payload, first, last)
    return name, value.build(start)


class _Value:
    """A Value in the making. Numbers stay in their wire format until all have been seen."""

    __slots__ = ("blobs", "content_type", "keys", "kind", "shape", "values")

    def __init__(self) -> None:
        self._become(0)

    def _become(self, kind: int) -> None:
        """Begin anew as that member of the oneof."""
        self.kind = kind
        self.values, self.keys, self.shape = bytearray(), bytearray(), bytearray()
        self.blobs: list[bytes] = []
        self.content_type: str | None = None

    def merge(self, payload: bytes, start: int, stop: int) -> None:
        """Take in a serialized Value: another member replaces what was there, the same adds."""
        for kind, wire, first, last in _fields(payload, start, stop):
            if wire != _LENGTH or (kind not in _TENSORS and kind != _BYTES):
                continue
            if kind != self.kind:
                self._become(kind)
            if kind == _BYTES:
                self._merge_bytes(payload, first, last)
            else:
                self._merge_tensor(payload, first, last)

    def _merge_bytes(self, payload: bytes, start: int, stop: int) -> None:
        for number, wire, first, last in _fields(payload, start, stop):
            if wire == _LENGTH and number == 1:
                self.blobs.append(payload[first:last])
            elif wire == _LENGTH and number == 2:
                self.content_type = _text(payload, first, last)

    def _merge_tensor(self, payload: bytes, start: int, stop: int) -> None:
        dtype, item_wire = _TENSORS[self.kind]
        for number, wire, first, last in _fields(payload, start, stop):
            if number == 1 and wire in (_LENGTH, item_wire):
                if item_wire == _VARINT:
                    _require_whole_varints(payload, first, last)
                elif (last - first) % dtype.itemsize:
                    raise _malformed(first, f"{last - first} bytes are no whole {dtype.name}s")
                self.values += payload[first:last]
            elif number in (2, 3) and wire in (_LENGTH, _VARINT):
                _require_whole_varints(payload, first, last)
                target = self.keys if number == 2 else self.shape
                target += payload[first:last]

    def build(self, position: int) -> Value:
        """Return what has been collected; errors name the position where it began."""
        if self.kind == 0:
            return None
        if self.kind == _BYTES:
            return Bytes(tuple(self.blobs), self.content_type)
        dtype, item_wire = _TENSORS[self.kind]
        if item_wire == _VARINT:  # an int32 is the lower half of what is written
            values = _numbers(self.values, position).astype(np.int32)
            values.flags.writeable = False
        else:
            values = np.frombuffer(bytes(self.values), dtype)
        keys = _positions(self.keys, position, "a key") if self.keys else None
        shape = _positions(self.shape, position, "the shape") if self.shape else None
        return Tensor(values, keys, None if shape is None else tuple(shape.tolist()))


def _numbers(raw: bytearray, position: int) -> np.ndarray:
    """Decode varints, as int64."""
    numbers = np.empty(len(raw), np.int64)
    n_numbers = read_varints(np.frombuffer(bytes(raw), np.uint8), numbers)
    if n_numbers < 0:
        raise _malformed(position, "a number in this entry takes more than 64 bits")
    return numbers[:n_numbers].copy()


def _positions(raw: bytearray, position: int, what: str) -> np.ndarray:
    numbers = _numbers(raw, position)
    if numbers.min() < 0:  # a uint64 of 2**63 or more
        raise _malformed(position, f"{what} in this entry is above 2**63 - 1")
    numbers.flags.writeable = False
    return numbers


def _require_whole_varints(payload: bytes, start: int, stop: int) -> None:
    if stop > start and payload[stop - 1] >= 0x80:
        raise _malformed(stop - 1, "a number goes on beyond the end of its field")


def _text(payload: bytes, start: int, stop: int) -> str:
    try:
        return payload[start:stop].decode()
    except UnicodeDecodeError:
        raise _malformed(start, "text that is not UTF-8") from None


def _fields(payload: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield field number, wire type, and where the content begins and ends; groups are skipped."""
    groups = []  # the numbers of those that are open
    while at < end:
        position = at
        tag, at = _varint(payload, at, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _malformed(position, f"there is no field number {number}")
        start = at
        if wire == _LENGTH:
            size, start = _varint(payload, at, end)
            at = start + size
        elif wire == _VARINT:
            _, at = _varint(payload, at, end)
        elif wire == _FIXED32:
            at += 4
        elif wire == _FIXED64:
            at += 8
        elif wire == _GROUP:
            groups.append(number)
            continue
        elif wire == _END_GROUP:
            if not groups or groups.pop() != number:
                raise _malformed(position, f"the end of a group {number} that is not open")
            continue
        else:
            raise _malformed(position, f"there is no wire type {wire}")
        if at > end:
            raise _malformed(position, f"field {number} ends {at - end} bytes too late")
        if not groups:
            yield number, wire, start, at
    if groups:
        raise _malformed(end, f"group {groups[-1]} does not end")


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and where the next thing begins."""
    if at < end and payload[at] < 0x80:
        return payload[at], at + 1
    number = 0
    for i, byte in enumerate(payload[at : min(end, at + _LONGEST_VARINT)]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if number >> 64:
                break
            return number, at + i + 1
    raise _malformed(at, "a number that does not end, or takes more than 64 bits")
