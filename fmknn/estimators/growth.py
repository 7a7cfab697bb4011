"""Training that goes on with rows of people and items that came later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data.blocks import Design
from ..data.ids import IdMap
from ..data.interactions import Interactions

__all__ = ["columns_of"]


def columns_of(known: Mapping[str, IdMap], rows: Interactions, design: Design) -> np.ndarray:
    """Return the column of the design that each id known before has by now, block by block."""
    now = {"user": rows.users, "item": rows.items}
    now |= {name: column.ids for name, column in rows.context.items()}
    parts = [
        design.block(name).columns[now[name].positions(ids.ids)] for name, ids in known.items()
    ]
    return np.concatenate(parts)
