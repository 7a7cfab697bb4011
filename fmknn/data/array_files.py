"""Arrays in .npy files that may be larger than memory: written, mapped and read in parts."""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["ArrayFile", "ArrayWriter", "save_array"]

_HEADER_BYTES = 128


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return what an .npy file of that type and shape begins with; it is always as long."""
    said = repr({"descr": dtype.str, "fortran_order": False, "shape": shape}).encode()
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + said.ljust(_HEADER_BYTES - 11) + b"\n"


class ArrayWriter:
    """Writes an array part by part; a context manager, and only a full array leaves it in peace.

    Parameters
    ----------
    path : path-like
    dtype : dtype
    shape : tuple of int

    Raises
    ------
    ValueError
        On leaving, if the parts were not those of the whole.
    """

    def __init__(self, path: str | os.PathLike[str], dtype: Any, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = np.dtype(dtype), shape
        self._rows = 0
        self._file = open(path, "xb")  # noqa: SIM115 - closed on leaving
        self._file.write(_header(self.dtype, shape))

    def append(self, rows: Any) -> None:
        """Write the next rows."""
        part = np.ascontiguousarray(rows, self.dtype)
        self._rows += len(part)
        self._file.write(part.data)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None and self._rows != self.shape[0]:
            raise ValueError(f"{self._rows} rows were written where {self.shape[0]} are promised")


def save_array(path: str | os.PathLike[str], array: np.ndarray, at_once: int = 1 << 20) -> None:
    """Write a whole array, ``at_once`` rows at a time."""
    with ArrayWriter(path, array.dtype, array.shape) as file:
        for start in range(0, len(array), at_once):
            file.append(array[start : start + at_once])


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file, of which no more is in memory than was asked for.

    Attributes
    ----------
    path : Path
    dtype : dtype
    shape : tuple of int
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, dtype: Any, shape: tuple[int, ...]) -> ArrayFile:
        """Return the file, if :class:`ArrayWriter` made it for that type and shape.

        Raises
        ------
        ValueError
            If it is missing, or not as long or not of the kind that it must be.
        """
        dtype = np.dtype(dtype)
        try:
            with open(path, "rb") as file:
                header, size = file.read(_HEADER_BYTES), file.seek(0, os.SEEK_END)
        except OSError as error:
            raise ValueError(f"{path} is missing: prepare the folder anew") from error
        n_bytes = dtype.itemsize * math.prod(shape)
        if header != _header(dtype, shape) or size != _HEADER_BYTES + n_bytes:
            raise ValueError(
                f"{path} is damaged: it should hold {n_bytes} bytes of {dtype} in the shape {shape}"
            )
        return cls(path, dtype, shape)

    def map(self) -> np.ndarray:
        """Return the array as a read-only memory map."""
        with open(self.path, "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        n = math.prod(self.shape)
        return np.frombuffer(memory, self.dtype, n, _HEADER_BYTES).reshape(self.shape)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of some of the rows.

        Raises
        ------
        ValueError
            If the file has become shorter.
        """
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        free = rows.reshape(-1).view(np.uint8)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(_HEADER_BYTES + start * row_bytes)
            while len(free):
                n_bytes = file.readinto(free.data)
                if not n_bytes:
                    raise ValueError(f"{self.path} ends before its row {stop}: it was changed")
                free = free[n_bytes:]
        return rows

    def read_all(self) -> np.ndarray:
        """Return a copy of the whole array."""
        return self.read(0, self.shape[0])
