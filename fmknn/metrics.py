"""Metrics of predictions and of ranked lists, on plain arrays.

:func:`rmse` and :func:`mae` compare values. :func:`hit_matrix` says which places of ranked lists
hold a relevant item; the ranking metrics turn it into one number per list. A list is one row, best
item first, -1 where it is padded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "average_precision_at",
    "coverage",
    "hit_matrix",
    "hit_rate_at",
    "mae",
    "mrr",
    "ndcg_at",
    "novelty_at",
    "popularity_at",
    "precision_at",
    "recall_at",
    "rmse",
]


def rmse(y_true: Any, y_pred: Any) -> float:
    """Root of the mean squared error.

    Parameters
    ----------
    y_true, y_pred : array-like of float, of one shape, not empty

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If they are empty or not of one shape.

    Examples
    --------
    >>> rmse([4, 2], [3, 5]) == 5**0.5
    True
    """
    return float(np.sqrt(np.mean(np.square(_errors(y_true, y_pred)))))


def mae(y_true: Any, y_pred: Any) -> float:
    """Mean absolute error.

    Parameters
    ----------
    y_true, y_pred : array-like of float, of one shape, not empty

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If they are empty or not of one shape.

    Examples
    --------
    >>> mae([4, 2], [3, 5])
    2.0
    """
    return float(np.mean(np.abs(_errors(y_true, y_pred))))


def _errors(y_true: Any, y_pred: Any) -> np.ndarray:
    true, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if true.shape != predicted.shape or true.size == 0:
        raise ValueError(
            f"y_true and y_pred must be as long as each other and not empty, "
            f"not {true.shape} and {predicted.shape}"
        )
    return predicted - true


def hit_matrix(positions: np.ndarray, indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Which places of the lists hold an item that is relevant to the list's user.

    Parameters
    ----------
    positions : int array, shape (n_users, n)
        Item positions, best first, such as ``TopN.positions``; -1 is padding and never a hit.
    indptr, indices : int arrays
        The relevant items as CSR rows: ``indices[indptr[r]:indptr[r + 1]]``, distinct, for list r.

    Returns
    -------
    ndarray of bool, shape (n_users, n)

    Raises
    ------
    ValueError
        If ``indptr`` does not have one entry more than there are lists.

    Examples
    --------
    >>> hit_matrix(np.array([[5, 3, 8], [2, -1, -1]]), np.array([0, 2, 3]), np.array([8, 5, 1]))
    array([[ True, False,  True],
           [False, False, False]])
    """
    positions, indices = np.asarray(positions, np.int64), np.asarray(indices, np.int64)
    if len(indptr) != len(positions) + 1:
        raise ValueError(f"{len(positions)} lists need {len(positions) + 1} indptr entries")
    # one number per (list, item) makes the question a single set membership
    width = max(positions.max(initial=0), indices.max(initial=0)) + 1
    relevant = np.repeat(np.arange(len(positions)) * width, np.diff(indptr)) + indices
    offered = np.arange(len(positions))[:, None] * width + positions
    return np.isin(offered, relevant) & (positions >= 0)


def precision_at(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of the first `k` places that hold a relevant item, for each list.

    A list shorter than `k` is still divided by `k`: places it could not fill are misses.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Not used: it is here for one and the same call of all ranking metrics.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)

    Examples
    --------
    >>> precision_at(np.array([[True, False, True]]), np.array([4]), 2)
    array([0.5])
    """
    return hits[:, :k].sum(axis=1) / k


def recall_at(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of a list's relevant items that are among its first `k`.

    The denominator is the number of relevant items, also where that exceeds `k`.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Number of relevant items of each list.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        NaN for a list without relevant items.

    Examples
    --------
    >>> recall_at(np.array([[True, False, True]]), np.array([4]), 3)
    array([0.5])
    """
    return _divide(hits[:, :k].sum(axis=1), n_relevant)


def ndcg_at(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with binary relevance.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Number of relevant items of each list.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        NaN for a list without relevant items.

    Notes
    -----
    DCG = Σ 1 / log2(rank + 1) over the hits among the first `k`, divided by the DCG of a list that
    begins with min(k, number of relevant items) hits (Järvelin and Kekäläinen, "Cumulated
    gain-based evaluation of IR techniques", TOIS 2002).

    Examples
    --------
    >>> ndcg_at(np.array([[False, True]]), np.array([1]), 2).round(4)
    array([0.6309])
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.where(hits[:, :k], discounts[: hits.shape[1]], 0.0).sum(axis=1)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(n_relevant, k)]
    return _divide(gains, ideal)


def average_precision_at(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Average precision of the first `k` places. Its mean is map@k.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Number of relevant items of each list.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        NaN for a list without relevant items.

    Notes
    -----
    AP = Σ (precision at the rank of each hit) / min(k, number of relevant items), so that a perfect
    list scores 1 even where more than `k` items are relevant.

    Examples
    --------
    >>> average_precision_at(np.array([[True, False, True]]), np.array([2]), 3).round(4)
    array([0.8333])
    """
    hits = hits[:, :k]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _divide(np.where(hits, precision, 0.0).sum(axis=1), np.minimum(n_relevant, k))


def mrr(hits: np.ndarray, n_relevant: np.ndarray, k: int | None = None) -> np.ndarray:
    """Reciprocal rank of each list's first hit among its first `k`.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Not used: it is here for one and the same call of all ranking metrics.
    k : int, optional
        How many places of a list count; default: all.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        0 for a list without a hit.

    Examples
    --------
    >>> mrr(np.array([[False, True, True], [False, False, False]]), np.array([2, 1]))
    array([0.5, 0. ])
    """
    ranks = np.arange(1, hits[:, :k].shape[1] + 1)
    return np.where(hits[:, :k], 1 / ranks, 0.0).max(axis=1, initial=0.0)


def hit_rate_at(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Whether a list has a hit among its first `k`.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_lists, n)
        As :func:`hit_matrix` gives them.
    n_relevant : ndarray of int, shape (n_lists,)
        Not used: it is here for one and the same call of all ranking metrics.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        1 for each list with a hit, else 0.

    Examples
    --------
    >>> hit_rate_at(np.array([[False, True]]), np.array([3]), 2)
    array([1.])
    """
    return np.where(hits[:, :k].any(axis=1), 1.0, 0.0)


def coverage(positions: np.ndarray, n_items: int, k: int | None = None) -> float:
    """Share of the catalogue that is among the first `k` items of any list.

    Parameters
    ----------
    positions : int array, shape (n_lists, n)
        Item positions, best first; -1 is padding.
    n_items : int
        Size of the catalogue.
    k : int, optional
        How many places of a list count; default: all.

    Returns
    -------
    float

    Examples
    --------
    >>> coverage(np.array([[5, 3], [5, -1]]), n_items=8)
    0.25
    """
    offered = none_offered(n_items)
    offered[positions[:, :k]] = True
    return share_offered(offered)


def popularity_at(positions: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Mean popularity of the first `k` items of each list.

    Parameters
    ----------
    positions : int array, shape (n_lists, n)
        Item positions, best first; -1 is padding.
    counts : ndarray, shape (n_items,)
        The users who have each item in training.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        NaN for a list without items.

    Notes
    -----
    Its mean over lists is the average recommendation popularity (Yin et al., "Challenging the long
    tail recommendation", VLDB 2012).

    Examples
    --------
    >>> popularity_at(np.array([[0, 2], [1, -1]]), np.array([8, 5, 2]), 2)
    array([5., 5.])
    """
    return _mean_of_items(positions[:, :k], counts)


def novelty_at(positions: np.ndarray, counts: np.ndarray, n_users: int, k: int) -> np.ndarray:
    """Mean self-information of the first `k` items of each list, in bits.

    Parameters
    ----------
    positions : int array, shape (n_lists, n)
        Item positions, best first; -1 is padding.
    counts : ndarray, shape (n_items,)
        The users who have each item in training; one that nobody has counts as one that one has.
    n_users : int
        Users with training rows.
    k : int
        How many places of a list count.

    Returns
    -------
    ndarray of float64, shape (n_lists,)
        NaN for a list without items.

    Notes
    -----
    The mean of -log2(counts[i] / n_users) over the items i of a list (Zhou et al., "Solving the
    apparent diversity-accuracy dilemma of recommender systems", PNAS 2010).

    Examples
    --------
    >>> novelty_at(np.array([[0, 1]]), np.array([8, 2]), n_users=8, k=2)
    array([1.])
    """
    return _mean_of_items(positions[:, :k], np.log2(n_users / np.maximum(counts, 1)))


def none_offered(n_items: int) -> np.ndarray:
    """A mark per item, none set yet, and one more for padding."""
    return np.zeros(n_items + 1, dtype=bool)  # the last slot is where padding, -1, falls


def share_offered(offered: np.ndarray) -> float:
    """Share of the items that are marked."""
    return float(offered[:-1].mean())


def _mean_of_items(positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    real = positions >= 0
    return _divide(np.where(real, numbers[positions], 0.0).sum(axis=1), real.sum(axis=1))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    nan = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=nan, where=np.asarray(denominator) > 0)
