"""Metrics user by user, and how far they can be trusted: the bootstrap over users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._random import seed_sequence

__all__ = ["Entries", "PerUser", "bootstrap", "confidence_level", "paired_bootstrap"]

N_RESAMPLES = 2000


class Entries(NamedTuple):
    """A metric as Σ values / Σ weights over entries (lists, rows), each of which is a user's."""

    owners: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    root: bool = False  # whether the metric is the square root of that

    def overall(self) -> float:
        """The metric over all entries, NaN where they weigh nothing."""
        return float(_ratio(self.values.sum(), self.weights.sum(), self.root))


@dataclass(frozen=True, eq=False)
class PerUser(Mapping[str, np.ndarray]):
    """Metrics of each user: ``result.per_user["ndcg@10"]`` has one number per entry of `users`.

    NaN stands where a metric has nothing of a user: no relevant item, for instance. With context
    columns a user's number is the mean over their queries; rmse is that of the user's own rows.

    Attributes
    ----------
    users : ndarray, shape (n_users,)
        External ids, ascending.
    sums, weights : dict of str to ndarray of float64, shape (n_users,)
        The metric over several users is Σ sums / Σ weights of theirs.
    roots : frozenset of str
        The metrics that are the square root of that.
    """

    users: np.ndarray
    sums: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    roots: frozenset[str]

    @classmethod
    def of(cls, ids: np.ndarray, entries: Mapping[str, Entries]) -> PerUser:
        """Add up the entries of each user; their owners are positions in `ids`."""
        everybody = [entry.owners for entry in entries.values()]
        present = np.unique(np.concatenate(everybody)) if everybody else np.empty(0, np.int64)

        def added(name: str, numbers: np.ndarray) -> np.ndarray:
            place = np.searchsorted(present, entries[name].owners)
            return np.bincount(place, weights=numbers, minlength=len(present))

        return cls(
            users=ids[present],
            sums={name: added(name, entry.values) for name, entry in entries.items()},
            weights={name: added(name, entry.weights) for name, entry in entries.items()},
            roots=frozenset(name for name, entry in entries.items() if entry.root),
        )

    def __getitem__(self, name: str) -> np.ndarray:
        return _ratio(self.sums[name], self.weights[name], name in self.roots)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)

    def take(self, places: np.ndarray) -> PerUser:
        """Return the same of some of the users."""
        sums = {name: numbers[places] for name, numbers in self.sums.items()}
        weights = {name: numbers[places] for name, numbers in self.weights.items()}
        return PerUser(self.users[places], sums, weights, self.roots)


def confidence_level(level: Any) -> float:
    """Return the share of an interval, checked.

    Raises
    ------
    ValueError
        If it is no number between 0 and 1.
    """
    if not isinstance(level, (float, np.floating)) or not 0 < level < 1:
        raise ValueError(f"intervals must be a share between 0 and 1 such as 0.95, not {level!r}")
    return float(level)


def bootstrap(
    per_user: PerUser, level: float, random_state: Any = None
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each metric over resamples of the users.

    Parameters
    ----------
    per_user : PerUser
    level : float
        The share of the resamples that lies within.
    random_state : int, Generator, SeedSequence or None

    Returns
    -------
    dict of str to (low, high)
        NaN where a metric is NaN.

    Notes
    -----
    Users are drawn with replacement, as many as there are, 2000 times, and each takes all their
    lists and rows along (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters
    13 and 8.5). The users of a resample are held at a time, not the resamples.
    """
    (metrics,) = _resampled([per_user], random_state)
    return {name: _percentiles(numbers, level) for name, numbers in metrics.items()}


def paired_bootstrap(
    first: PerUser, second: PerUser, level: float, random_state: Any = None
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of first - second, by metric, over the users of both.

    Each resample is of the same users for both, so that what makes a user hard for either
    cancels out.
    """
    _, in_first, in_second = np.intersect1d(
        first.users, second.users, assume_unique=True, return_indices=True
    )
    one, other = _resampled([first.take(in_first), second.take(in_second)], random_state)
    return {name: _percentiles(one[name] - other[name], level) for name in one if name in other}


def _resampled(tables: Sequence[PerUser], random_state: Any) -> list[dict[str, np.ndarray]]:
    """Each table's metrics over each resample of the users, which all tables share."""
    n_users = len(tables[0].users)
    columns = [
        numbers
        for table in tables
        for name in table
        for numbers in (table.sums[name], table.weights[name])
    ]
    matrix = np.stack(columns, axis=1) if columns else np.empty((n_users, 0))
    totals = np.full((N_RESAMPLES, matrix.shape[1]), np.nan)
    generator = np.random.default_rng(seed_sequence(random_state))
    for total in totals if n_users else ():
        total[:] = matrix[generator.integers(n_users, size=n_users)].sum(axis=0)
    sums, weights = iter(totals.T[::2]), iter(totals.T[1::2])
    return [
        {name: _ratio(next(sums), next(weights), name in table.roots) for name in table}
        for table in tables
    ]


def _percentiles(numbers: np.ndarray, level: float) -> tuple[float, float]:
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(sums: Any, weights: Any, root: bool) -> np.ndarray:
    nan = np.full(np.shape(sums), np.nan)
    ratio = np.divide(sums, weights, out=nan, where=np.asarray(weights) > 0)
    return np.sqrt(ratio) if root else ratio
