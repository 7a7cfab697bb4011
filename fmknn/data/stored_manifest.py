"""Manifest: what a folder of interactions says of itself."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

__all__ = ["Manifest"]

_FORMAT, _VERSION = "fmknn interactions", 1
_MANIFEST = "manifest.json"
_TIMES = ("int64", "float64")
_MOST_IDS = 2**31 - 1


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes
    ----------
    n_rows : int
    blocks : tuple of (str, int)
        Name and number of ids: "user", "item", and each context.
    values, weights : bool
    timestamps : {"int64", "float64"} or None
    """

    n_rows: int
    blocks: tuple[tuple[str, int], ...]
    values: bool
    weights: bool
    timestamps: str | None

    @property
    def firsts(self) -> list[int]:
        """The number of each block's first entity, counted over all blocks; then of all."""
        return list(accumulate((n for _, n in self.blocks), initial=0))

    def write(self, folder: Path) -> None:
        """Write it: the last file of a folder that is whole."""
        said = {"format": _FORMAT, "version": _VERSION, **vars(self)}
        (folder / _MANIFEST).write_text(json.dumps(said, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it, trusting nothing.

        Raises
        ------
        FileNotFoundError
            If there is no folder.
        ValueError
            If it is something else, damaged, or of a newer format.
        """
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder of interactions", str(folder))
        try:
            said = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or said.pop("format", None) != _FORMAT:
            raise ValueError(f"{folder} holds no interactions: make it with Interactions.store")
        if said.pop("version", None) != _VERSION:
            raise ValueError(f"{folder} is of another version of fmknn: prepare it anew")
        if set(said) != set(cls.__annotations__) or not _is_right(said):
            raise ValueError(f"{folder}: its {_MANIFEST} is damaged: prepare it anew")
        return cls(**{**said, "blocks": tuple((name, n) for name, n in said["blocks"])})


def _is_right(said: Mapping[str, Any]) -> bool:
    blocks = said["blocks"]
    if not isinstance(blocks, list) or not all(
        isinstance(block, list)
        and len(block) == 2
        and isinstance(block[0], str)
        and _is_count(block[1], _MOST_IDS)
        for block in blocks
    ):
        return False
    names = [name for name, _ in blocks]
    return (
        names[:2] == ["user", "item"]
        and len(set(names)) == len(names)
        and _is_count(said["n_rows"], 2**32 - 1)
        and isinstance(said["values"], bool)
        and isinstance(said["weights"], bool)
        and said["timestamps"] in (None, *_TIMES)
    )


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
