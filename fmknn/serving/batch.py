"""recommend_all: everybody's lists in chunks, so that memory does not grow with the users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .._checks import require_count
from .queries import id_list, levels_given
from .sinks import write_json_lines
from .topn import TopN

__all__ = ["recommend_all"]


def recommend_all(
    recommend: Callable[..., TopN],
    users: np.ndarray,
    n: int,
    *,
    to: Any = None,
    chunk: int = 8192,
    context: Mapping[str, Any] | None = None,
    progress: bool = False,
    **options: Any,
) -> Iterator[TopN] | int:
    """Return an iterator over the chunks, or write them and return the number of users written.

    Parameters
    ----------
    recommend : callable
        ``recommend(users, n, context=…, **options) -> TopN``.
    users : ndarray of ids
    n : int
    to : path-like, optional
        A file of JSON lines.
    chunk : int
        Users per call.
    context : mapping of str to a level or to one level per user, optional
    progress : bool
        Show a progress bar.
    **options
        Handed on to ``recommend``.

    Returns
    -------
    iterator of TopN, or int

    Raises
    ------
    ValueError, TypeError
        At once, for arguments that can't be used.
    """
    chunk = require_count("chunk", chunk)
    levels = levels_given(context, len(users))
    if options.get("candidates") is not None:  # an iterator would be used up by the first chunk
        options["candidates"] = id_list(options["candidates"], "item")

    def lists(rows: slice) -> TopN:
        part = {
            name: values if len(values) == 1 else values[rows] for name, values in levels.items()
        }
        return recommend(users[rows], n, context=part, **options)

    def chunks() -> Iterator[TopN]:
        from tqdm import tqdm

        with tqdm(total=len(users), desc="recommending", unit="user", disable=not progress) as bar:
            for start in range(0, len(users), chunk):
                rows = slice(start, start + chunk)
                yield lists(rows)
                bar.update(len(users[rows]))

    lists(slice(0, 0))  # for nobody: an argument that can't be used is an error now, not later
    return chunks() if to is None else write_json_lines(chunks(), to)
