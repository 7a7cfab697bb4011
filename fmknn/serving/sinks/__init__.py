"""Where recommendations are written to: files of JSON lines, Parquet folders, databases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .base import Run, Sink, Writer
from .json_lines import JsonLines, write_json_lines
from .parquet import ParquetFolder
from .sql import SQL
from .sqlite import SQLite

__all__ = [
    "SQL",
    "JsonLines",
    "ParquetFolder",
    "Run",
    "SQLite",
    "Sink",
    "Writer",
    "sink_for",
    "write_json_lines",
]

_SQLITE = "sqlite://"
_SQLITE_SUFFIXES = {".db", ".sqlite", ".sqlite3"}


def sink_for(to: Any) -> Sink:
    """Return the sink that a path or an address stands for; a sink is returned as it is.

    Parameters
    ----------
    to : path-like, str or Sink
        ``sqlite:///recs.db``, or a file .db, .sqlite or .sqlite3: :class:`SQLite`. Another
        ``dialect://`` address: :class:`SQL`. A folder, or a name that ends in .parquet or a
        slash: :class:`ParquetFolder`. Anything else: :class:`JsonLines`.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        For a name that promises another kind of file.

    Examples
    --------
    >>> sink_for("sqlite:///recs.db")
    SQLite(path='recs.db', table='recommendations')
    >>> sink_for("lists/")
    ParquetFolder(path='lists/')
    """
    if hasattr(to, "open") and hasattr(to, "check"):
        return to
    try:
        name = os.fsdecode(to)
    except TypeError:
        raise TypeError(
            f"to must be a path, the address of a database or a sink, got {type(to).__name__}"
        ) from None
    if name.startswith(_SQLITE):
        return SQLite(_file_of(name))
    if "://" in name:
        return SQL(name)
    suffix = Path(name).suffix.lower()
    if suffix in _SQLITE_SUFFIXES:
        return SQLite(name)
    if suffix == ".parquet" or name.endswith(("/", os.sep)) or os.path.isdir(name):
        return ParquetFolder(name)
    return JsonLines(name)


def _file_of(address: str) -> str:
    """Return the path in ``sqlite:///path``: relative, or absolute after a fourth slash."""
    path = address.removeprefix(_SQLITE)
    if not path.startswith("/") or path in ("/", "/:memory:") or "?" in path:
        raise ValueError(
            "an SQLite database is a file here: write sqlite:///recs.db, "
            "or sqlite:////folder/recs.db for an absolute path"
        )
    return path[1:]
