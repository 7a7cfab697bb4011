"""Split interactions into parts that share one id vocabulary: training and test, or held-out users.

A random split of rows lets a model learn from a person's future to predict their past, so prefer
:func:`leave_last` or :func:`temporal` wherever there are timestamps.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ._random import seed_sequence
from .data.ids import as_ids

if TYPE_CHECKING:
    from .data.interactions import Interactions

__all__ = ["fixed", "hold_out_users", "leave_last", "leave_one_out", "random", "temporal"]


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


def leave_one_out(
    interactions: Interactions,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = None,
) -> tuple[Interactions, Interactions]:
    """Put one row of each user, drawn at random, into the test part.

    Parameters
    ----------
    interactions : Interactions
        Where there are timestamps, :func:`leave_last` does not test the past by the future.
    random_state : int, numpy Generator, SeedSequence or None
        The same int gives the same split.

    Returns
    -------
    train, test : Interactions
        Rows in their old order, ids in the same vocabulary. A user with a single row keeps it in
        training.

    Raises
    ------
    ValueError
        If no user has more than one row.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 2, 3], [7, 8, 7, 9, 9])
    >>> train, test = leave_one_out(log, random_state=0)
    >>> train.user_ids.tolist(), test.user_ids.tolist()
    ([1, 2, 3], [1, 2])
    """
    in_test = np.zeros(len(interactions), dtype=bool)
    order, from_end, n_rows = _shuffled_by_user(interactions, random_state)
    in_test[order] = (from_end == 0) & (n_rows > 1)
    return _parts(interactions, in_test, "leave_one_out needs a user with more than one row")


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
    in_test = np.zeros(n_rows, dtype=bool)
    if per_user:
        order, from_end, n_of_user = _shuffled_by_user(interactions, random_state)
        in_test[order] = from_end < np.minimum(np.rint(share * n_of_user), n_of_user - 1)
    else:
        shuffled = np.random.default_rng(seed_sequence(random_state)).permutation(n_rows)
        in_test[shuffled[: round(share * n_rows)]] = True
    return _parts(interactions, in_test, f"{n_rows} rows are too few for test={share}")


def fixed(
    interactions: Interactions, test_users: Any, test_items: Any
) -> tuple[Interactions, Interactions]:
    """Put the rows of given pairs into the test part: a split that somebody published.

    Parameters
    ----------
    interactions : Interactions
        Training and test rows together.
    test_users, test_items : array-like of ids, shape (n,)
        Distinct pairs, each of which has a row, or several, all of which are tested.

    Returns
    -------
    train, test : Interactions
        Training rows in their old order, test rows in that of the pairs, so that what was published
        beside them, negatives for instance, goes with them. Ids in the same vocabulary.

    Raises
    ------
    ValueError
        For pairs without a row or given twice, the first of which is named, arrays of different
        lengths, or if one part would be empty.
    TypeError
        For ids of another type.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 7, 9])
    >>> train, test = fixed(log, [2, 1], [7, 8])
    >>> train.item_ids.tolist(), test.item_ids.tolist()
    ([7, 9], [7, 8])
    """
    user_ids, item_ids = as_ids(test_users, "user"), as_ids(test_items, "item")
    if len(user_ids) != len(item_ids):
        raise ValueError(f"{len(user_ids)} test users for {len(item_ids)} test items: give pairs")
    n_items = len(interactions.items)
    users = interactions.users.positions(user_ids, unknown="mark").astype(np.int64)
    items = interactions.items.positions(item_ids, unknown="mark")
    pairs = np.where((users < 0) | (items < 0), -1, users * n_items + items)
    rows = interactions.user_index.astype(np.int64) * n_items + interactions.item_index
    order = np.argsort(rows, kind="stable")
    first = np.searchsorted(rows[order], pairs)
    counts = np.searchsorted(rows[order], pairs, side="right") - first
    repeated = np.ones(len(pairs), dtype=bool)
    repeated[np.unique(pairs, return_index=True)[1]] = False
    for culprits, what in ((counts == 0, "have no row"), (repeated, "are given twice")):
        if culprits.any():
            pair = user_ids[culprits].tolist()[0], item_ids[culprits].tolist()[0]
            raise ValueError(
                f"{culprits.sum()} of {len(pairs)} test pairs {what} (first: user {pair[0]!r}, "
                f"item {pair[1]!r})"
            )
    before = np.cumsum(counts) - counts
    places = np.repeat(first - before, counts) + np.arange(counts.sum())
    in_test = np.isin(rows, pairs)
    train, _ = _parts(interactions, in_test, "the pairs are none or all of the rows")
    return train, interactions.take(order[places])


def hold_out_users(
    interactions: Interactions,
    *,
    test: float = 0.1,
    fold_in: float = 0.8,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = None,
) -> tuple[Interactions, Interactions, Interactions]:
    """Hold all rows of some users out of training: strong generalisation.

    Parameters
    ----------
    interactions : Interactions
    test : float or int, default 0.1
        The share of the users, between 0 and 1, or their number. They are drawn from those with two
        rows or more.
    fold_in : float, default 0.8
        The share of each held-out user's rows, drawn at random, that a model is told about when
        it is asked for a list; at least one row is, and one is not.
    random_state : int, numpy Generator, SeedSequence or None
        The same int gives the same split.

    Returns
    -------
    train, fold_in, test : Interactions
        Rows in their old order, ids in the same vocabulary. The users of the last two have no row
        in training; :func:`fmknn.evaluation.evaluate_fold_in` takes both. Validation users are
        those of the same split of ``train``.

    Raises
    ------
    ValueError
        For a share outside (0, 1), or if too few users have two rows.

    Notes
    -----
    The protocol is that of Liang et al., "Variational autoencoders for collaborative filtering",
    WWW 2018, section 4.

    Examples
    --------
    >>> from fmknn.data.interactions import Interactions
    >>> log = Interactions.from_arrays([1, 1, 2, 2, 3, 3], [7, 8, 7, 9, 8, 9])
    >>> train, fold_in, test = hold_out_users(log, test=1, random_state=0)
    >>> len(train), len(fold_in), len(test)
    (4, 1, 1)
    """
    generator = np.random.default_rng(seed_sequence(random_state))
    n_rows = np.bincount(interactions.user_index, minlength=len(interactions.users))
    n_users = int((n_rows > 0).sum())
    able = np.flatnonzero(n_rows > 1)
    whole = isinstance(test, Integral) and not isinstance(test, bool)
    n_wanted = int(test) if whole else max(1, round(_share(test, "users") * n_users))
    if not 0 < n_wanted <= len(able) or n_wanted == n_users:
        raise ValueError(
            f"test={test!r} holds {n_wanted} users out: {len(able)} of {n_users} have two rows or "
            "more, and one user at least must be trained on"
        )
    is_held = np.zeros(len(interactions.users), dtype=bool)
    is_held[generator.choice(able, n_wanted, replace=False)] = True
    held = is_held[interactions.user_index]
    told_share = _share(fold_in, "rows", "fold_in")
    order, from_end, n_of_user = _shuffled_by_user(interactions, generator)
    told = np.zeros(len(interactions), dtype=bool)
    told[order] = from_end < np.clip(np.rint(told_share * n_of_user), 1, n_of_user - 1)
    take = interactions.take
    return take(~held), take(held & told), take(held & ~told)


def _shuffled_by_user(
    interactions: Interactions, random_state: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by user, shuffled within each: the order, rows of its user that follow, all of them."""
    generator = np.random.default_rng(seed_sequence(random_state))
    shuffled = generator.permutation(len(interactions))
    order = shuffled[np.argsort(interactions.user_index[shuffled], kind="stable")]
    return order, *_rank_from_end(interactions.user_index[order])


def _rank_from_end(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For ascending group numbers: rows of its group that follow each row, and the group's size."""
    sizes = np.bincount(groups)
    return np.cumsum(sizes)[groups] - 1 - np.arange(len(groups)), sizes[groups]


def _timestamps(interactions: Interactions, split: str) -> np.ndarray:
    if interactions.timestamps is None:
        raise ValueError(f"{split} needs timestamps; these interactions have none (try random)")
    return interactions.timestamps


def _share(share: float, of: str = "rows", name: str = "test") -> float:
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share < 1:
        raise ValueError(f"{name} must be a share of the {of} between 0 and 1, not {share!r}")
    return float(share)


def _parts(
    interactions: Interactions, in_test: np.ndarray, why_empty: str
) -> tuple[Interactions, Interactions]:
    if in_test.all() or not in_test.any():
        part = "test" if not in_test.any() else "training"
        raise ValueError(f"the {part} part would be empty: {why_empty}")
    return interactions.take(~in_test), interactions.take(in_test)
