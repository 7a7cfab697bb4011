# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""The compiled loops of the RecordIO-protobuf codec: one framed record per sparse row.

A record is, from the outside inwards (each with its tag and length before it): the frame, the
entry of the features map, the Value, the Float32Tensor, and in that values, keys and shape. So the
sizes are needed before the first byte is written: one pass to measure, one to write.
"""

from __future__ import annotations

import numpy as np

from ..._numba import kernel

__all__ = ["LABEL_PREFIX", "payload_sizes", "read_varints", "write_frames"]

_MAGIC = 0xCED7230A
# all of a label but its number: entry, key "values", Value, Float32Tensor, packed values
LABEL_PREFIX = np.frombuffer(b"\x12\x12\x0a\x06values\x12\x08\x12\x06\x0a\x04", np.uint8)
_KEY_BYTES = np.frombuffer(b"\x0a\x06values", np.uint8)  # key "values" of a map entry
_VALUES, _KEYS, _SHAPE = 0x0A, 0x12, 0x1A  # tags of a tensor's fields, all packed
_FEATURES = 0x0A  # tag in Record
_SECOND = 0x12  # tag of the value in a map entry, and of float32_tensor in Value
_SIGN = np.int64(-(2**63))
_LONGEST_VARINT = 10


@kernel
def _varint_size(number):
    size = 1
    while number >= 0x80:
        number >>= 7
        size += 1
    return size


@kernel
def _sized(size):
    """Bytes of a field with that content: a tag, the length, the content."""
    return 1 + _varint_size(size) + size


@kernel
def _keys_size(indices, start, stop):
    size = 0
    for i in range(start, stop):
        size += _varint_size(indices[i])
    return size


@kernel
def _tensor_size(n_values, keys_size, n_columns):
    size = _sized(_varint_size(n_columns))
    if n_values > 0:  # an empty packed field is left out
        size += _sized(4 * n_values) + _sized(keys_size)
    return size


@kernel
def _put_varint(out, at, number):
    while number >= 0x80:
        out[at] = number & 0x7F | 0x80
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@kernel
def _put_header(out, at, tag, size):
    out[at] = tag
    return _put_varint(out, at + 1, size)


@kernel
def _put_word(out, at, word):
    for i in range(4):
        out[at + i] = (word >> (8 * i)) & 0xFF
    return at + 4


@kernel
def _put_bytes(out, at, content):
    for i in range(len(content)):
        out[at + i] = content[i]
    return at + len(content)


@kernel
def payload_sizes(indptr, indices, n_columns, has_labels, sizes):
    """Write the number of bytes that each row's record takes, frame and padding apart."""
    label_size = len(LABEL_PREFIX) + 4 if has_labels else 0
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        keys_size = _keys_size(indices, start, stop)
        value_size = _sized(_tensor_size(stop - start, keys_size, n_columns))
        sizes[row] = _sized(len(_KEY_BYTES) + _sized(value_size)) + label_size


@kernel
def write_frames(indptr, indices, bits, n_columns, label_bits, sizes, starts, out):
    """Write the framed record of each row, unsplit, from its place in ``starts`` on.

    ``bits`` and ``label_bits`` are float32 numbers seen as uint32; no labels: no bits. ``out`` is
    zero where a record is padded.
    """
    has_labels = len(label_bits) > 0
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        keys_size = _keys_size(indices, start, stop)
        tensor_size = _tensor_size(stop - start, keys_size, n_columns)
        value_size = _sized(tensor_size)
        at = _put_word(out, starts[row], _MAGIC)
        at = _put_word(out, at, sizes[row])
        at = _put_header(out, at, _FEATURES, len(_KEY_BYTES) + _sized(value_size))
        at = _put_bytes(out, at, _KEY_BYTES)
        at = _put_header(out, at, _SECOND, value_size)
        at = _put_header(out, at, _SECOND, tensor_size)
        if stop > start:
            at = _put_header(out, at, _VALUES, 4 * (stop - start))
            for i in range(start, stop):
                at = _put_word(out, at, bits[i])
            at = _put_header(out, at, _KEYS, keys_size)
            for i in range(start, stop):
                at = _put_varint(out, at, indices[i])
        at = _put_header(out, at, _SHAPE, _varint_size(n_columns))
        at = _put_varint(out, at, n_columns)
        if has_labels:
            at = _put_bytes(out, at, LABEL_PREFIX)
            at = _put_word(out, at, label_bits[row])


@kernel
def read_varints(raw, numbers):
    """Write the 64-bit numbers that ``raw`` holds, as two's complement; return how many.

    -1 if one takes more than ten bytes or more than 64 bits, or the last one does not end.
    """
    n_numbers, number, n_bytes = 0, 0, 0
    for i in range(len(raw)):
        byte = np.int64(raw[i])
        n_bytes += 1
        if n_bytes < _LONGEST_VARINT:
            number |= (byte & 0x7F) << (7 * (n_bytes - 1))
        elif byte > 1:
            return -1
        elif byte == 1:
            number += _SIGN
        if byte < 0x80:
            numbers[n_numbers] = number
            n_numbers += 1
            number, n_bytes = 0, 0
    return n_numbers if n_bytes == 0 else -1
