"""The frames of RecordIO: where a record begins and ends.

::

    u32 magic = 0xCED7230A | u32 flag << 29 | length | content | zeros up to a multiple of 4

Numbers are little-endian. Flag 0 is a whole record. A record whose content holds the magic number
at a multiple of 4 is cut there, so that whoever finds the magic number has found a frame: 1, 2 and
3 are its first, middle and last parts, and the magic numbers between them are left out (dmlc-core,
``include/dmlc/recordio.h``). There is neither head nor foot: files one after the other are a file.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

__all__ = [
    "HEADER",
    "MAGIC",
    "MAX_RECORD_BYTES",
    "RecordIOError",
    "fault",
    "frame_starts",
    "open_stream",
    "read_payloads",
    "split_at_magic",
]

MAGIC = 0xCED7230A
MAX_RECORD_BYTES = 2**29 - 1  # what fits in the 29 bits of a length
HEADER = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_CHUNK_BYTES = 1 << 20  # what is asked of a file at once, whatever length a frame claims


class RecordIOError(ValueError):
    """Data that is not RecordIO-protobuf, or is damaged: names the record and its first byte."""


def frame_starts(sizes: np.ndarray) -> np.ndarray:
    """Return where frames with contents of those sizes begin, one after the other, and the end.

    Parameters
    ----------
    sizes : ndarray of int64, shape (n_records,)
        Bytes.

    Returns
    -------
    ndarray of int64, shape (n_records + 1,)

    Raises
    ------
    ValueError
        If a record is too large for a frame.

    Examples
    --------
    >>> frame_starts(np.array([4, 5, 0]))
    array([ 0, 12, 28, 36])
    """
    too_large = sizes > MAX_RECORD_BYTES
    if too_large.any():
        row = int(np.argmax(too_large))
        raise ValueError(
            f"row {row} takes {sizes[row]} bytes, a record holds at most {MAX_RECORD_BYTES}"
        )
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(HEADER.size + sizes + -sizes % 4)])


def split_at_magic(frames: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> bytes:
    """Cut records whose content holds the magic number at a multiple of 4.

    All frames begin at multiples of 4, so the magic number in the content is already where that
    of the next part belongs: only flag and length are missing after it.
    """
    words = frames.view("<u4")
    heads = np.flatnonzero(words == MAGIC)
    if len(heads) == len(starts):
        return frames.tobytes()
    is_first = np.zeros(len(heads), bool)
    is_first[np.searchsorted(heads, starts // 4)] = True
    is_last = np.append(is_first[1:], True)
    record = np.cumsum(is_first) - 1
    ends = np.where(is_last, starts[record] + HEADER.size + sizes[record], 4 * np.roll(heads, -1))
    flags = np.where(is_first, np.where(is_last, _WHOLE, _FIRST), np.where(is_last, _LAST, _MIDDLE))
    lengths = ends - 4 * (heads + 1 + is_first)
    flagged = (flags << 29 | lengths).astype(words.dtype)
    words[heads[is_first] + 1] = flagged[is_first]
    return np.insert(words, heads[~is_first] + 1, flagged[~is_first]).tobytes()


def open_stream(data: Any) -> BinaryIO:
    """Return a binary file as it is, bytes as one; anything else is a TypeError."""
    if hasattr(data, "read"):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"data must be bytes or an open binary file, got {kind}") from None
    return io.BytesIO(data if isinstance(data, bytes) else view.tobytes())


def fault(number: int, offset: int, what: str) -> RecordIOError:
    """An error about a record."""
    return RecordIOError(f"record {number}, which begins at byte {offset}: {what}")


def read_payloads(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the content of each record, its parts joined, with the offset of its first byte."""
    offset = 0
    for number in itertools.count():
        begin = offset
        parts: list[bytes] = []
        size = 0
        flag = _FIRST
        while flag in (_FIRST, _MIDDLE):
            header = _read(stream, HEADER.size)
            if not header and not parts:
                return
            if len(header) < HEADER.size:
                raise fault(number, begin, "the data ends in it: cut off?")
            magic, flag_and_length = HEADER.unpack(header)
            flag, length = flag_and_length >> 29, flag_and_length & MAX_RECORD_BYTES
            if magic != MAGIC:
                raise fault(
                    number,
                    begin,
                    f"no magic number at byte {offset}: compressed, or another format?",
                )
            if flag not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
                raise fault(number, begin, f"flag {flag} at byte {offset} is out of turn")
            size += length + (len(_MAGIC_BYTES) if parts else 0)
            if size > max_bytes:
                raise fault(number, begin, f"it takes more than {max_bytes} bytes")
            padded = length + -length % 4
            content = _read(stream, padded)
            if len(content) < padded:
                raise fault(number, begin, "the data ends in it: cut off?")
            parts.append(content[:length])
            offset += HEADER.size + padded
        yield begin, _MAGIC_BYTES.join(parts)


def _read(stream: BinaryIO, n_bytes: int) -> bytes:
    """Read so many bytes, or fewer at the end, never asking for more than a chunk at once."""
    chunks: list[bytes] = []
    while n_bytes > 0:
        chunk = stream.read(min(n_bytes, _CHUNK_BYTES))
        if not isinstance(chunk, bytes):
            raise TypeError(f"data must be a binary file, its read() gave {type(chunk).__name__}")
        if not chunk:
            break
        chunks.append(chunk)
        n_bytes -= len(chunk)
    return b"".join(chunks)
