"""Reading protobuf RecordIO: dmlc-core's frames around SageMaker's ``aialgs.data.Record`` messages.

The messages are read by google.protobuf from a schema put together below, the frames by the loop
of :func:`frames`. Sources: dmlc-core ``include/dmlc/recordio.h``; AWS documentation, "Common data
formats for training" (the Record schema).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

MAGIC = 0xCED7230A
FIELD = descriptor_pb2.FieldDescriptorProto


class BadDataError(Exception):
    """What the container finds wrong with the data of a channel."""


# --- the schema -----------------------------------------------------------------------------------


def _field(message, name, number, kind, repeated=False, packed=False, message_type=None):
    field = message.field.add(name=name, number=number, type=kind)
    field.label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
    if packed:
        field.options.packed = True
    if message_type:
        field.type_name = f".aialgs.data.{message_type}"
    return field


def _record_class():
    file = descriptor_pb2.FileDescriptorProto(
        name="sagemaker_emulator_record.proto", package="aialgs.data", syntax="proto2"
    )
    for name, kind in [
        ("Float32Tensor", FIELD.TYPE_FLOAT),
        ("Float64Tensor", FIELD.TYPE_DOUBLE),
        ("Int32Tensor", FIELD.TYPE_INT32),
    ]:
        tensor = file.message_type.add(name=name)
        _field(tensor, "values", 1, kind, repeated=True, packed=True)
        _field(tensor, "keys", 2, FIELD.TYPE_UINT64, repeated=True, packed=True)
        _field(tensor, "shape", 3, FIELD.TYPE_UINT64, repeated=True, packed=True)
    octets = file.message_type.add(name="Bytes")
    _field(octets, "value", 1, FIELD.TYPE_BYTES, repeated=True)
    _field(octets, "content_type", 2, FIELD.TYPE_STRING)

    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="value")
    for name, number, message_type in [
        ("float32_tensor", 2, "Float32Tensor"),
        ("float64_tensor", 3, "Float64Tensor"),
        ("int32_tensor", 7, "Int32Tensor"),
        ("bytes", 9, "Bytes"),
    ]:
        field = _field(value, name, number, FIELD.TYPE_MESSAGE, message_type=message_type)
        field.oneof_index = 0

    record = file.message_type.add(name="Record")
    for name, number in [("features", 1), ("label", 2)]:
        entry = record.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _field(entry, "key", 1, FIELD.TYPE_STRING)
        _field(entry, "value", 2, FIELD.TYPE_MESSAGE, message_type="Value")
        entry_type = f"Record.{entry.name}"
        _field(record, name, number, FIELD.TYPE_MESSAGE, True, message_type=entry_type)
    for name, number in [("uid", 3), ("metadata", 4), ("configuration", 5)]:
        _field(record, name, number, FIELD.TYPE_STRING)

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("aialgs.data.Record"))


Record = _record_class()


# --- frames ---------------------------------------------------------------------------------------


def frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each record's framed bytes and its payload, the parts of a split record joined."""
    at, start, parts = 0, 0, []
    while at < len(data):
        if len(data) - at < 8:
            raise BadDataError(f"truncated record header at byte {at}")
        magic, word = struct.unpack_from("<II", data, at)
        if magic != MAGIC:
            raise BadDataError(f"no RecordIO magic at byte {at}")
        flag, length = word >> 29, word & 0x1FFFFFFF
        end = at + 8 + length
        if end > len(data):
            raise BadDataError(f"record of {length} bytes at byte {at} passes the end of the file")
        if flag > 3 or (flag in (0, 1)) == bool(parts):
            raise BadDataError(f"record part out of order at byte {at}")
        parts.append(data[at + 8 : end])
        at = end + -length % 4
        if flag in (0, 3):
            yield data[start:at], struct.pack("<I", MAGIC).join(parts)
            start, parts = at, []
    if parts:
        raise BadDataError("the last record lacks its last part")


# --- records --------------------------------------------------------------------------------------


@dataclass
class Rows:
    """The records of a channel: a dense array or a CSR matrix, and one label each or none."""

    X: np.ndarray | scipy.sparse.csr_matrix
    y: np.ndarray | None

    @property
    def dense(self) -> bool:
        return isinstance(self.X, np.ndarray)

    def __len__(self) -> int:
        return self.X.shape[0]


def _tensor(value, kinds: tuple[str, ...], what: str):
    kind = value.WhichOneof("value")
    if kind not in kinds:
        raise BadDataError(f"{what} is a {kind}, expected {' or '.join(kinds)}")
    return getattr(value, kind)


def read_rows(payloads, kinds: tuple[str, ...] = ("float32_tensor",)) -> Rows:
    """Read records whose features are all dense or all sparse, all of one width."""
    values, keys, labels, width, dense = [], [], [], None, None
    for number, payload in enumerate(payloads):
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError as error:
            raise BadDataError(f"record {number}: {error}") from None
        if list(record.features) != ["values"]:
            raise BadDataError(f"record {number} has the features {list(record.features)}")
        tensor = _tensor(record.features["values"], kinds, f"record {number}")
        numbers = np.array(tensor.values, np.float32)
        places = np.array(tensor.keys, np.int64)
        is_dense = not len(places) and not (len(tensor.shape) and not len(numbers))
        n = len(numbers) if is_dense else (tensor.shape[0] if len(tensor.shape) else None)
        width = n if width is None else width
        dense = is_dense if dense is None else dense
        if n is None or n != width or is_dense != dense:
            raise BadDataError(f"record {number} has another shape than the records before it")
        if not is_dense and len(places) != len(numbers):
            raise BadDataError(f"record {number} has {len(places)} keys, {len(numbers)} values")
        if len(places) and places.max() >= width:
            raise BadDataError(f"record {number} has the key {places.max()} in a shape of {width}")
        values.append(numbers)
        keys.append(places)
        if "values" in record.label:
            every = ("float32_tensor", "float64_tensor", "int32_tensor")
            label = _tensor(record.label["values"], every, f"the label of record {number}")
            if len(label.values) != 1:
                raise BadDataError(f"record {number} has {len(label.values)} labels")
            labels.append(np.float32(label.values[0]))
    if not values:
        raise BadDataError("there are no records")
    if labels and len(labels) != len(values):
        raise BadDataError("some records have labels and some have none")
    y = np.array(labels, np.float32) if labels else None
    if dense:
        return Rows(np.vstack(values), y)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in keys])])
    parts = np.concatenate(values), np.concatenate(keys), indptr
    return Rows(scipy.sparse.csr_matrix(parts, shape=(len(keys), int(width))), y)
