"""Pairs of users and items, each at most once, popular items more often."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_pairs"]


def draw_pairs(
    n_users: int, n_items: int, n_ratings: int, zipf: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return users and items of ``n_ratings`` distinct pairs, in random order."""
    counts = rng.permutation(_popularity(n_users, n_items, n_ratings, zipf, rng))
    # where most users have rated an item, draw those who have not
    common = counts * 2 > n_users
    keys = _distinct_keys(np.where(common, n_users - counts, counts), n_users, rng)
    if common.any():
        everybody = np.flatnonzero(common)[:, None] * n_users + np.arange(n_users)
        drawn = common[keys // n_users]
        rated = ~_contains(keys[drawn], everybody.ravel())
        keys = np.concatenate((keys[~drawn], everybody.ravel()[rated]))
    rng.shuffle(keys)
    items, users = np.divmod(keys, n_users)
    return users.astype(np.int32), items.astype(np.int32)


def _popularity(
    n_users: int, n_items: int, n_ratings: int, zipf: float, rng: np.random.Generator
) -> np.ndarray:
    """How many users rate the item of each rank: n_users (1 - exp(-time r^-zipf)).

    The time is such that they are n_ratings in all. Logarithms keep steep exponents from underflow.
    """
    log_rate = -zipf * np.log(np.arange(1, n_items + 1))

    def expected(log_time: float) -> np.ndarray:
        times_rate = np.exp(np.minimum(log_rate + log_time, 10.0))
        mean: np.ndarray = -np.expm1(-times_rate) * n_users
        return mean

    low, high = -50.0, 10.0 - log_rate[-1]  # hardly a pair has been rated; every pair has
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle).sum() < n_ratings else (low, middle)
    mean = expected(high)
    counts: np.ndarray = np.floor(mean).astype(np.int64)
    rest = n_ratings - int(counts.sum())
    if rest > 0:  # round up as many as are missing, drawn by their fractions
        with np.errstate(divide="ignore"):
            order = np.log(mean - counts) + rng.gumbel(size=n_items)
        counts[np.argsort(-order)[:rest]] += 1
    return counts


def _distinct_keys(wanted: np.ndarray, n_users: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted keys item * n_users + user: for each item as many distinct users as wanted.

    At most half of the users are wanted, so that redrawing repeats ends soon.
    """
    first = np.arange(len(wanted), dtype=np.int64) * n_users
    keys = np.empty(0, dtype=np.int64)
    missing = wanted.copy()
    while missing.any():
        new = np.repeat(first, missing)
        new += rng.integers(n_users, size=len(new))
        new.sort()
        new = new[np.concatenate((np.ones(1, bool), new[1:] != new[:-1]))]
        new = new[~_contains(keys, new)]
        missing -= np.bincount(new // n_users, minlength=len(wanted))
        keys = np.sort(np.concatenate((keys, new)), kind="stable")  # merges two sorted runs
    return keys


def _contains(keys: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of the sorted ``asked`` are among the sorted ``keys``."""
    if len(keys) == 0:
        return np.zeros(len(asked), dtype=bool)
    places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    found: np.ndarray = keys[places] == asked
    return found
