"""What a batch run is, and what every place to write it to has to offer."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..topn import TopN

__all__ = ["Run", "Sink", "Writer", "columns_of_top", "fits", "require_folder"]

_log = logging.getLogger("fmknn")
_LONG = 40  # characters


@dataclass(frozen=True)
class Run:
    """One batch: users in chunks, and what decides on their lists.

    Attributes
    ----------
    users : ndarray of ids
    n_chunks : int
    describe : callable
        Returns the parameters; called by those who store them only, since that takes time.
    run_id : str or None
        None: it gets one.
    resume : bool
        Go on after the last complete chunk of an unfinished run.
    append : bool
        Keep what other runs wrote.
    """

    users: np.ndarray
    n_chunks: int
    describe: Callable[[], Mapping[str, Any]]
    run_id: str | None = None
    resume: bool = False
    append: bool = False

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What two runs must have in common to give the same rows, as JSON values."""
        return json.loads(json.dumps(dict(self.describe())))


class Writer(Protocol):
    """Takes the chunks of a run in their order."""

    @property
    def n_chunks(self) -> int:
        """Chunks that are written already."""
        ...

    @property
    def n_users(self) -> int:
        """Users of these chunks."""
        ...

    def write(self, top: TopN, seconds: float) -> None:
        """Write the next chunk, entirely or not at all; ``seconds`` is what it took so far."""
        ...


class Sink(Protocol):
    """A place where recommendations are written to."""

    def check(self) -> None:
        """Refuse a place that can't be written to, before anything is computed."""
        ...

    def open(self, run: Run) -> AbstractContextManager[Writer]:
        """Begin the run or go on with it; it is complete when the context ends without an error."""
        ...


def columns_of_top(top: TopN, n_rows: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of a chunk, users in their order and each one's items best first.

    Parameters
    ----------
    top : TopN
    n_rows : int, optional
        At most so many at a time; default: all at once.

    Yields
    ------
    dict
        "user", "item": ids; "score": float64; "rank": int32, from 1.
    """
    real = top.positions >= 0
    items = top.items[real]
    columns = {
        "user": np.repeat(top.users, top.counts),
        # padding made objects of integers
        "item": items.astype(np.int64, copy=False)
        if len(items) and not isinstance(items[0], str)
        else items,
        "score": top.scores[real],
        "rank": np.broadcast_to(np.arange(1, real.shape[1] + 1, dtype=np.int32), real.shape)[real],
    }
    total = len(items)
    step = total if n_rows is None else n_rows
    for start in range(0, total, max(step, 1)):
        yield {name: column[start : start + step] for name, column in columns.items()}


def fits(
    run: Run, run_id: str, parameters: Mapping[str, Any], place: str, *, complete: bool
) -> bool:
    """Return whether a run that is there has the rows of ``run``, so that this may go on with it.

    Raises
    ------
    ValueError
        If it has not, and was asked for by its name.
    """
    difference = _difference(parameters, run.parameters)
    if difference is None:
        return True
    if run.run_id is not None:
        raise ValueError(
            f"{place}: run {run_id!r} has {difference}: leave out resume=True to start anew"
        )
    if not complete:  # a complete one is yesterday's
        _log.warning("%s: unfinished run %r has %s: not gone on with", place, run_id, difference)
    return False


def _difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    for name in {**now, **was}:
        then, wanted = was.get(name), now.get(name)
        if then != wanted:
            values = f" ({then!r} then, {wanted!r} now)" if _is_short(then, wanted) else ""
            return f"another {name}{values}"
    return None


def _is_short(*values: Any) -> bool:
    # fingerprints and lists say nothing to anybody
    return all(
        value is None
        or isinstance(value, (bool, int))
        or (isinstance(value, str) and len(value) < _LONG)
        for value in values
    )


def require_folder(folder: Path) -> None:
    """Refuse a folder that is not there or must not be written to.

    Raises
    ------
    FileNotFoundError, PermissionError
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder, create it first", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no right to write in this folder", str(folder))
