"""Split interactions into a training and a test part that share one id vocabulary.

A random split of rows lets a model learn from a person's future to predict their past, so prefer
:func:`leave_last` or :func:`temporal` wherever there are timestamps.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from ._random import seed_sequence

if TYPE_CHECKING:
    from .data.interactions import Interactions

__all__ = ["leave_last", "random", "temporal"]


def leave_last(interactions: Interactions, n: int = 1) -> tuple[Interactions, Interactions]:
    """Put each user's last `n` rows into the test part.

    Parameters
    ----------
    interactions : Interactions
        With timestamps. Equal timestamps of one user count in row order.
    n : int, default 1
        Test rows per user. A user with `n` rows or fewer keeps all of them in training, so that
        nobody in the test part is without training rows.

    Returns
    -------
    train, test : Interactions
        Rows in their old order, ids in the same vocabulary.

    Raises
    ------
    ValueError
        Without timestamps, for an `n` below 1, or if no user has more than `n` rows.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 1], [7, 8, 7, 9], timestamps=[30, 10, 5, 20])
    >>> train, test = leave_last(log)
    >>> train.item_ids.tolist(), test.item_ids.tolist()
    ([8, 7, 9], [7])
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a whole number of rows, at least 1, not {n!r}")
    timestamps = _timestamps(interactions, "leave_last")
    order = np.lexsort((timestamps, interactions.user_index))  # stable: ties stay in row order
    from_end, n_rows = _rank_from_end(interactions.user_index[order])
    in_test = np.empty(len(interactions), dtype=bool)
    in_test[order] = (from_end < n) & (n_rows > n)
    return _parts(interactions, in_test, f"leave_last needs a user with more than n={n} rows")


def temporal(
    interactions: Interactions, *, test: float | None = None, at: float | None = None
) -> tuple[Interactions, Interactions]:
    """Put the latest rows of all users into the test part.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    test : float, optional
        The share of the rows, between 0 and 1, that are tested: the latest ones, equal timestamps
        in row order. 0.2 unless `at` is given.
    at : number, optional
        Test the rows with a timestamp of `at` or later, instead of a share. In the unit of
        ``interactions.timestamps``: nanoseconds since 1970 if they were given as datetimes.

    Returns
    -------
    train, test : Interactions
        Rows in their old order, ids in the same vocabulary. No training row is later than any
        test row. Users who arrive late have no training rows; `evaluate` reports them apart.

    Raises
    ------
    ValueError
        Without timestamps, for a share outside (0, 1), for both `test` and `at`, or if one part
        would be empty.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 7, 9], timestamps=[30, 10, 20, 40])
    >>> train, test = temporal(log, at=25)
    >>> train.item_ids.tolist(), test.item_ids.tolist()
    ([8, 7], [7, 9])
    """
    timestamps = _timestamps(interactions, "temporal")
    if at is not None:
        if test is not None:
            raise ValueError("temporal takes test= or at=, not both")
        if isinstance(at, bool) or not isinstance(at, Real):
            raise TypeError(f"at must be a number like the timestamps, not {at!r}")
        return _parts(interactions, timestamps >= at, f"the timestamps do not lie around at={at}")
    share = 0.2 if test is None else _share(test)
    n_rows = len(interactions)
    in_test = np.zeros(n_rows, dtype=bool)
    in_test[np.argsort(timestamps, kind="stable")[n_rows - round(share * n_rows) :]] = True
    return _parts(interactions, in_test, f"{n_rows} rows are too few for test={share}")


def random(
    interactions: Interactions,
    *,
    test: float = 0.1,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = None,
    per_user: bool = False,
) -> tuple[Interactions, Interactions]:
    """Put rows drawn at random into the test part.

    Parameters
    ----------
    interactions : Interactions
    test : float, default 0.1
        The share of the rows, between 0 and 1, that are tested.
    random_state : int, numpy Generator, SeedSequence or None
        The same int gives the same split.
    per_user : bool, default False
        Draw the share from each user's rows, rounded to the nearest number that leaves the user
        at least one training row, rather than from all rows together.

    Returns
    -------
    train, test : Interactions
        Rows in their old order, ids in the same vocabulary.

    Raises
    ------
    ValueError
        For a share outside (0, 1), or if one part would be empty.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 7, 9])
    >>> train, test = random(log, test=0.25, random_state=0)
    >>> len(train), len(test)
    (3, 1)
    """
    share = _share(test)
    n_rows = len(interactions)
    shuffled = np.random.default_rng(seed_sequence(random_state)).permutation(n_rows)
    in_test = np.zeros(n_rows, dtype=bool)
    if per_user:
        order = shuffled[np.argsort(interactions.user_index[shuffled], kind="stable")]
        from_end, n_of_user = _rank_from_end(interactions.user_index[order])
        in_test[order] = from_end < np.minimum(np.rint(share * n_of_user), n_of_user - 1)
    else:
        in_test[shuffled[: round(share * n_rows)]] = True
    return _parts(interactions, in_test, f"{n_rows} rows are too few for test={share}")


def _rank_from_end(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For ascending group numbers: rows of its group that follow each row, and the group's size."""
    sizes = np.bincount(groups)
    return np.cumsum(sizes)[groups] - 1 - np.arange(len(groups)), sizes[groups]


def _timestamps(interactions: Interactions, split: str) -> np.ndarray:
    if interactions.timestamps is None:
        raise ValueError(f"{split} needs timestamps; these interactions have none (try random)")
    return interactions.timestamps


def _share(test: float) -> float:
    if isinstance(test, bool) or not isinstance(test, Real) or not 0 < test < 1:
        raise ValueError(f"test must be a share of the rows between 0 and 1, not {test!r}")
    return float(test)


def _parts(
    interactions: Interactions, in_test: np.ndarray, why_empty: str
) -> tuple[Interactions, Interactions]:
    if in_test.all() or not in_test.any():
        part = "test" if not in_test.any() else "training"
        raise ValueError(f"the {part} part would be empty: {why_empty}")
    return interactions.take(~in_test), interactions.take(in_test)
