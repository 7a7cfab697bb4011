"""Rows sorted on disk, by DuckDB: more of them than fit in memory. Nothing else imports it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._threads import thread_count
from ..errors import MissingExtraError

__all__ = ["require_sort", "sorted_by"]

_AT_ONCE = 1 << 20  # rows
_MOST_THREADS = 8  # each wants memory of its own
_SIZE = re.compile(r"\s*\d+(\.\d+)?\s*([KMGT]i?B)\s*", re.IGNORECASE)


def require_sort(memory_limit: Any) -> str:
    """Return a memory limit such as "2GB" as it is, if there can be a sort within it.

    Raises
    ------
    ValueError
        For anything that is no size.
    MissingExtraError
        If DuckDB or pyarrow is not installed.
    """
    if not isinstance(memory_limit, str) or not _SIZE.fullmatch(memory_limit):
        raise ValueError(
            f'memory_limit must be a size such as "2GB" or "500MB", got {memory_limit!r}'
        )
    _libraries()
    return memory_limit


def _libraries() -> tuple[Any, Any]:
    try:
        import duckdb
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(
            "to train from disk needs DuckDB and pyarrow: pip install 'fmknn[disk]'"
        ) from error
    return duckdb, pyarrow


def sorted_by(
    codes: np.ndarray, columns: Sequence[np.ndarray], spill: Path, memory_limit: str
) -> Iterator[list[np.ndarray]]:
    """Sort rows by their codes; those of one code stay in their own order.

    Parameters
    ----------
    codes : ndarray of int32, shape (n,)
        Not negative.
    columns : sequence of ndarray, shape (n,) each
        What is sorted; memory maps are gone through once.
    spill : Path
        A folder for what does not fit in memory.
    memory_limit : str
        Of the sort itself.

    Yields
    ------
    list of ndarray
        The next rows of all columns.

    Raises
    ------
    OSError
        If the sort fails, for want of memory or of room on disk.
    """
    duckdb, pa = _libraries()
    names = [f"column{number}" for number in range(len(columns))]
    types = [pa.from_numpy_dtype(column.dtype) for column in columns]
    schema = pa.schema([("key", pa.int64()), *zip(names, types, strict=True)])

    def batches() -> Iterator[Any]:
        for start in range(0, len(codes), _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, len(codes)))
            # one number that says both: codes and numbers of rows are below 2**31 and 2**32
            key = codes[part].astype(np.int64) * len(codes) + np.arange(part.start, part.stop)
            arrays = [pa.array(array) for array in (key, *(column[part] for column in columns))]
            yield pa.record_batch(arrays, schema=schema)

    settings: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(spill),
        "threads": min(thread_count(None), _MOST_THREADS),
    }
    try:
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.register("source", pa.RecordBatchReader.from_batches(schema, batches()))
            found = connection.sql(f"SELECT {', '.join(names)} FROM source ORDER BY key")
            # the older name is that of DuckDB 1
            reader = getattr(found, "to_arrow_reader", None) or found.fetch_arrow_reader
            for batch in reader(_AT_ONCE):
                yield [column.to_numpy() for column in batch.columns]
    except duckdb.Error as error:
        raise OSError(
            f"sorting on disk failed, with memory_limit={memory_limit!r} and room for what does "
            f"not fit in {spill}: {str(error).splitlines()[0]}"
        ) from error
