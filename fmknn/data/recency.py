"""Weights that fall with the age of a row."""

from __future__ import annotations

import numpy as np

__all__ = ["recency_weights", "times_later"]


def times_later(users: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Return at how many distinct later times each row's user was there.

    Parameters
    ----------
    users : ndarray of int, shape (n,)
    timestamps : ndarray, shape (n,)

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> times_later(np.array([0, 0, 0, 1]), np.array([5, 9, 9, 7]))
    array([1, 0, 0, 0])
    """
    order = np.lexsort((timestamps, users))
    user, time = users[order], timestamps[order]
    is_new_user = np.r_[True, user[1:] != user[:-1]]
    rank = np.cumsum(is_new_user | np.r_[True, time[1:] != time[:-1]])  # of (user, time) pairs
    last = rank[np.r_[is_new_user[1:], True]]  # each user's latest
    later = np.empty(len(users), np.int64)
    later[order] = last[np.cumsum(is_new_user) - 1] - rank
    return later


def recency_weights(
    users: np.ndarray, timestamps: np.ndarray, weights: np.ndarray | None, power: float
) -> np.ndarray:
    """Return weights over (1 + times later) ** power, with a mean of 1; float32 (n,)."""
    fallen = (1.0 + times_later(users, timestamps)) ** -power
    if weights is not None:
        fallen *= weights
    return (fallen / fallen.mean()).astype(np.float32)
