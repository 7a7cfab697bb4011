"""Training that goes on with rows of people and items that came later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data.blocks import Design
from ..data.columns import Context
from ..data.ids import IdMap
from ..data.interactions import Interactions

__all__ = ["columns_of", "joined"]


def joined(known: Mapping[str, IdMap], rows: Interactions) -> Interactions:
    """Return the rows in the vocabulary of what was known before and what they bring.

    Parameters
    ----------
    known : mapping of str to IdMap
        "user", "item" and the contexts.
    rows : Interactions
        Without feature tables.

    Raises
    ------
    ValueError
        For other contexts than before.
    TypeError
        For ids of another type than before.
    """
    own = {"user": rows.users, "item": rows.items}
    own |= {name: column.ids for name, column in rows.context.items()}
    if list(own) != list(known):
        raise ValueError(
            f"the contexts are {', '.join(rows.context) or 'none'}, "
            f"in training they were {', '.join(list(known)[2:]) or 'none'}"
        )
    larger = {name: IdMap.build(ids.ids, own[name].ids, what=name) for name, ids in known.items()}

    def placed(name: str, index: np.ndarray) -> np.ndarray:
        return larger[name].positions(own[name].ids)[index]

    return rows.replace(
        users=larger["user"],
        items=larger["item"],
        user_index=placed("user", rows.user_index),
        item_index=placed("item", rows.item_index),
        context={
            name: Context(larger[name], placed(name, column.index))
            for name, column in rows.context.items()
        },
        user_features=None,
        item_features=None,
    )


def columns_of(known: Mapping[str, IdMap], rows: Interactions, design: Design) -> np.ndarray:
    """Return the column of the design that each id known before has by now, block by block."""
    now = {"user": rows.users, "item": rows.items}
    now |= {name: column.ids for name, column in rows.context.items()}
    parts = [
        design.block(name).columns[now[name].positions(ids.ids)] for name, ids in known.items()
    ]
    return np.concatenate(parts)
