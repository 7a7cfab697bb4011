"""Repeated rows as one row with a count."""

from __future__ import annotations

import dataclasses

import numpy as np

from .columns import Context, frozen
from .interactions import Interactions

__all__ = ["counted"]


def counted(interactions: Interactions) -> Interactions:
    """Return the distinct (user, item, context …) rows, with how often each occurs as weights.

    Parameters
    ----------
    interactions : Interactions

    Returns
    -------
    Interactions
        In ascending order of user, item and contexts; without values and timestamps. Weights are
        the sums of those of the repeated rows, each 1 where there are none; None if all sums are
        1. Rows of weight 0 are left out.

    Raises
    ------
    ValueError
        If weights of repeated rows add up to more than float32 holds.

    Examples
    --------
    >>> log = Interactions.from_arrays(["ann", "bob", "ann"], [3, 9, 3])
    >>> rows = counted(log)
    >>> rows.user_ids.tolist(), rows.item_ids.tolist(), rows.weights.tolist()
    (['ann', 'bob'], [3, 9], [2.0, 1.0])
    """
    columns = [
        interactions.user_index,
        interactions.item_index,
        *(column.index for column in interactions.context.values()),
    ]
    sizes = [
        len(interactions.users),
        len(interactions.items),
        *(len(column.ids) for column in interactions.context.values()),
    ]
    key = np.zeros(len(interactions), np.int64)
    n_keys = 1
    for column, size in zip(columns, sizes, strict=True):
        if n_keys * size > np.iinfo(np.int64).max:
            key, n_keys = np.unique(key, return_inverse=True)[1], len(interactions)
        key, n_keys = key * size + column, n_keys * size
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    counts = np.bincount(place, interactions.weights, len(first))
    kept = counts > 0
    first, counts = first[kept], counts[kept]
    if counts.max(initial=0) > np.finfo(np.float32).max:
        user, item = (column[first[[counts.argmax()]]] for column in columns[:2])
        raise ValueError(
            f"the weights of user {interactions.users.ids[user].tolist()[0]!r} and item "
            f"{interactions.items.ids[item].tolist()[0]!r} add up to more than float32 holds: "
            "scale weights down"
        )
    context = {
        name: Context(column.ids, frozen(column.index[first]))
        for name, column in interactions.context.items()
    }
    return dataclasses.replace(
        interactions,
        user_index=frozen(interactions.user_index[first]),
        item_index=frozen(interactions.item_index[first]),
        values=None,
        weights=None if (counts == 1).all() else frozen(counts.astype(np.float32)),
        timestamps=None,
        context=context,
    )
