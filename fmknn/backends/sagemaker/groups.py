"""Queries in groups that ask for the same number of neighbours, few groups, little in vain."""

from __future__ import annotations

import numpy as np

__all__ = ["groups_by_k"]


def groups_by_k(needed: np.ndarray, max_k: int, worth: int) -> list[tuple[np.ndarray, int]]:
    """Group queries by the neighbours that they need.

    Parameters
    ----------
    needed : ndarray of int, shape (n_queries,)
        0 where a query needs none.
    max_k : int
        Queries that need more are in no group.
    worth : int
        A group is split as long as that saves at least so many answers.

    Returns
    -------
    list of (rows, k)
        Rows ascending within a group, k the largest need in it; groups by ascending k.

    Examples
    --------
    >>> groups_by_k(np.array([10, 900, 12, 0, 2000]), max_k=1024, worth=1000)
    [(array([0, 2]), 12), (array([1]), 900)]
    """
    asking = np.flatnonzero((needed > 0) & (needed <= max_k))
    if not len(asking):
        return []
    order = asking[np.argsort(needed[asking], kind="stable")]
    ends = _best_ends(needed[order], worth)
    starts = [0, *ends[:-1]]
    return [
        (np.sort(order[start:end]), int(needed[order[end - 1]]))
        for start, end in zip(starts, ends, strict=True)
    ]


def _best_ends(ascending: np.ndarray, worth: int) -> list[int]:
    """Return where groups end: split where most is saved, and again in both halves."""
    ends = [len(ascending)]
    pending = [(0, len(ascending))]
    while pending:
        start, end = pending.pop()
        at = np.arange(start + 1, end)
        # the queries before the cut no longer ask for as much as the last one of all
        saved = (at - start) * (ascending[end - 1] - ascending[at - 1])
        if len(saved) and saved.max() >= worth:
            cut = int(at[np.argmax(saved)])
            ends.append(cut)
            pending += [(start, cut), (cut, end)]
    return sorted(ends)
