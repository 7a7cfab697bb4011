"""Where recommendations are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._files import replacing
from .topn import TopN

__all__ = ["write_json_lines"]

_OTHER_KINDS = {".arrow", ".csv", ".db", ".feather", ".parquet", ".sqlite", ".tsv", ".xlsx"}


def write_json_lines(chunks: Iterable[TopN], path: Any) -> int:
    """Write one line per user: ``{"user": 196, "items": [50, …], "scores": [4.9, …]}``.

    The file is written beside and renamed: it is there as a whole or not at all.

    Parameters
    ----------
    chunks : iterable of TopN
    path : path-like

    Returns
    -------
    int
        Number of users written.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        For a name that promises another kind of file, or a database.
    """
    name = os.fspath(path)
    if "://" in name or Path(name).suffix.lower() in _OTHER_KINDS:
        raise ValueError(f"only JSON lines can be written: name the file .jsonl, not {name!r}")
    written = 0
    with replacing(path) as file:
        for top in chunks:
            for user, pairs in top:
                record = {
                    "user": user,
                    "items": [item for item, _ in pairs],
                    "scores": [score for _, score in pairs],
                }
                file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
                written += 1
    return written
