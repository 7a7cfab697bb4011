"""Negatives: pairs of users and items without a row, drawn to stand for what was not chosen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from .negatives_kernel import draw_others

__all__ = ["draw_negatives", "items_of_users", "ratio_in"]


def ratio_in(ratio: Any) -> float:
    """Return how many negatives there are to be per row, as a float."""
    number = isinstance(ratio, (int, float, np.number)) and not isinstance(ratio, bool)
    if not number or not 0 <= ratio < math.inf:
        raise ValueError(f"ratio must be a number of negatives per row, at least 0, got {ratio!r}")
    return float(ratio)


def items_of_users(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct items of each user.

    Parameters
    ----------
    users, items : ndarray of int, shape (n_rows,)
        Positions, below `n_users` and `n_items`.
    n_users, n_items : int

    Returns
    -------
    indptr : ndarray of int64, shape (n_users + 1,)
    indices : ndarray of int32
        Ascending within ``indices[indptr[u] : indptr[u + 1]]``.

    Examples
    --------
    >>> items_of_users(np.array([0, 2, 0, 0]), np.array([4, 1, 3, 4]), 3, 5)
    (array([0, 2, 2, 3]), array([3, 4, 1], dtype=int32))
    """
    met = np.ones(len(users), bool)  # not read: all that counts is which pairs there are
    pairs = sp.coo_array((met, (users, items)), shape=(n_users, n_items)).tocsr()
    pairs.sort_indices()
    return pairs.indptr.astype(np.int64), pairs.indices.astype(np.int32)


def draw_negatives(
    users: np.ndarray, items: np.ndarray, ratio: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw items that the users of rows have in none of them.

    Parameters
    ----------
    users, items : ndarray of int, shape (n_rows,)
        Positions.
    ratio : float
        A user with m rows gets round(ratio m) items, all different, or all there are if they are
        fewer. An item that occurs in no row is not drawn.
    generator : numpy Generator

    Returns
    -------
    rows : ndarray of int64, shape (n_negatives,)
        The row that each is drawn for, ascending: the user's rows share them evenly.
    negatives : ndarray of int32, shape (n_negatives,)
    """
    n_users = int(users.max(initial=-1)) + 1
    occurring, places = np.unique(items, return_inverse=True)
    indptr, positives = items_of_users(users, places, n_users, len(occurring))
    n_rows = np.bincount(users, minlength=n_users)
    others = np.where(n_rows > 0, len(occurring) - np.diff(indptr), 0)
    wanted = np.minimum(np.rint(ratio * n_rows), others).astype(np.int64)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(wanted)])
    draws = generator.integers(2**32, size=first[-1], dtype=np.uint32)
    negatives = np.empty(len(draws), np.int32)
    draw_others(indptr, positives, first, draws, len(occurring), negatives)
    rows = _rows_in_turn(wanted, users, n_rows, generator)
    order = np.argsort(rows, kind="stable")
    return rows[order], occurring[negatives[order]].astype(np.int32)


def _rows_in_turn(
    wanted: np.ndarray, users: np.ndarray, n_rows: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return as many rows of each user as wanted, in turn from the user's rows in random order."""
    order = generator.permutation(len(users))
    rows = order[np.argsort(users[order], kind="stable")]
    owners = np.repeat(np.arange(len(wanted)), wanted)
    turn = np.arange(len(owners)) - (np.cumsum(wanted) - wanted)[owners]
    return rows[(np.cumsum(n_rows) - n_rows)[owners] + turn % n_rows[owners]]
