"""recommend_all: everybody's lists in chunks, so that memory does not grow with the users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

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
    context: Any = None,
    progress: bool = False,
    **options: Any,
) -> Iterator[TopN] | int:
    """Return an iterator over the chunks, or write them and return the number of users written.

    Parameters
    ----------
    recommend : callable
        ``recommend(users, n, context=…, **options) -> TopN``.
    users : ndarray of ids
    to : path-like, optional
        A file of JSON lines.
    context : mapping of str to a level or to one level per user, optional
    progress : bool
        Show a progress bar.
    """
    if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
        raise ValueError(f"chunk must be a positive integer, got {chunk!r}")
    context = {name: _per_user(name, level, len(users)) for name, level in (context or {}).items()}

    def chunks() -> Iterator[TopN]:
        from tqdm import tqdm

        with tqdm(total=len(users), desc="recommending", unit="user", disable=not progress) as bar:
            for start in range(0, len(users), chunk):
                rows = slice(start, start + chunk)
                part = {
                    name: level if fixed else level[rows]
                    for name, (fixed, level) in context.items()
                }
                yield recommend(users[rows], n, context=part, **options)
                bar.update(len(users[rows]))

    return chunks() if to is None else write_json_lines(chunks(), to)


def _per_user(name: str, level: Any, n_users: int) -> tuple[bool, Any]:
    """Return whether a context is the same for all, and its value or values."""
    if isinstance(level, (str, int, np.integer)):
        return True, level
    if len(level) == 1:
        return True, level
    if len(level) != n_users:
        raise ValueError(f"context {name!r} has {len(level)} values for {n_users} users")
    return False, level
