"""recommend_all: everybody's lists in chunks, so that memory does not grow with the users."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._checks import require_bool, require_count
from .manifest import fingerprint, options_given
from .queries import id_list, levels_given
from .sinks import Run, Sink, sink_for
from .topn import TopN

__all__ = ["recommend_all"]

_log = logging.getLogger("fmknn")
_Lists = Callable[[int], TopN]


def recommend_all(
    recommend: Callable[..., TopN],
    users: np.ndarray,
    n: int,
    *,
    to: Any = None,
    chunk: int = 8192,
    resume: bool = False,
    append: bool = False,
    run_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    progress: bool = False,
    facts: Callable[[], Mapping[str, Any]] = dict,
    **options: Any,
) -> Iterator[TopN] | int:
    """Return an iterator over the chunks, or write them and return the number of users written.

    Parameters
    ----------
    recommend : callable
        ``recommend(users, n, context=…, **options) -> TopN``.
    users : ndarray of ids
    n : int
    to : path-like, str or Sink, optional
        As :func:`fmknn.serving.sinks.sink_for` reads it.
    chunk : int
        Users per call.
    resume : bool
        Go on after the last complete chunk of an unfinished run, if it was to have these rows.
    append : bool
        Keep what other runs wrote.
    run_id : str, optional
    context : mapping of str to a level or to one level per user, optional
    progress : bool
        Show a progress bar.
    facts : callable
        Returns what of the model decides on its answers, as JSON values.
    **options
        Handed on to ``recommend``.

    Returns
    -------
    iterator of TopN, or int
        Of a run that is gone on with, the users written before are counted too.

    Raises
    ------
    ValueError, TypeError
        At once, for arguments that can't be used, or a run of that ``run_id`` with other rows.
    """
    chunk = require_count("chunk", chunk)
    resume, append = require_bool("resume", resume), require_bool("append", append)
    _require_run_id(run_id)
    levels = levels_given(context, len(users))
    for name in ("candidates", "exclude_items"):
        if options.get(name) is not None:  # an iterator would be used up by the first chunk
            options[name] = id_list(options[name], "item")
    if isinstance(options.get("exclude"), Mapping):
        given = options["exclude"].items()
        options["exclude"] = {user: id_list(items, "item") for user, items in given}

    def lists(rows: slice) -> TopN:
        part = {
            name: values if len(values) == 1 else values[rows] for name, values in levels.items()
        }
        return recommend(users[rows], n, context=part, **options)

    def lists_of(number: int) -> TopN:
        return lists(slice(number * chunk, (number + 1) * chunk))

    def describe() -> dict[str, Any]:
        asked = {"count": len(users), "sha256": fingerprint({"users": users})}
        given = options_given({**options, "context": levels})
        return {**facts(), "users": asked, "n": int(n), "chunk": chunk, "append": append, **given}

    lists(slice(0, 0))  # for nobody: an argument that can't be used is an error now, not later
    run = Run(users, -(-len(users) // chunk), describe, run_id, resume, append)
    if to is not None:
        return _write(sink_for(to), run, lists_of, chunk, progress)
    if resume or append or run_id is not None:
        raise ValueError("resume, append and run_id are for what is written: say where, by to=…")
    return _chunks(run, lists_of, progress)


def _require_run_id(run_id: Any) -> None:
    if run_id is not None and not (isinstance(run_id, str) and run_id.strip()):
        raise ValueError(f"run_id must be a text that is not empty, got {run_id!r}")


def _chunks(run: Run, lists_of: _Lists, progress: bool) -> Iterator[TopN]:
    with _bar(len(run.users), progress) as advance:
        for number in range(run.n_chunks):
            top = lists_of(number)
            yield top
            advance(len(top))


def _write(sink: Sink, run: Run, lists_of: _Lists, chunk: int, progress: bool) -> int:
    with sink.open(run) as writer, _bar(len(run.users), progress) as advance:
        if writer.n_chunks:
            _log.info("%d of %d chunks are there already", writer.n_chunks, run.n_chunks)
            advance(min(writer.n_chunks * chunk, len(run.users)))
        since = time.perf_counter()
        for number in range(writer.n_chunks, run.n_chunks):
            top = lists_of(number)
            now = time.perf_counter()
            writer.write(top, now - since)  # writing counts with the next chunk
            _tell(number, run, top, now - since)
            since = now
            advance(min(chunk, len(run.users) - number * chunk))
    return writer.n_users


def _tell(number: int, run: Run, top: TopN, seconds: float) -> None:
    _log.info(
        "chunk %d of %d: %d users, %d recommendations, %.1f s",
        number + 1,
        run.n_chunks,
        len(top),
        top.counts.sum(),
        seconds,
    )


@contextmanager
def _bar(n_users: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    with tqdm(total=n_users, desc="recommending", unit="user", disable=not progress) as bar:
        yield bar.update
