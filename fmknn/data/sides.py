"""What interactions are made of, checked; ids, feature tables and histories of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import contexts_in, floats, frozen, positions_in, times_in, weights_in
from .features import FeatureTable
from .frames import as_library
from .history import History
from .ids import IdMap

__all__ = ["Side", "checked_parts", "index_of", "table_in", "table_with_history"]

Side = tuple[IdMap, np.ndarray]


def checked_parts(given: Any) -> dict[str, Any]:
    """Return columns and tables of interactions, by name, checked and in the types of kernels."""
    n = np.size(given.user_index)
    return {
        "user_index": positions_in(given.user_index, given.users, n, "users"),
        "item_index": positions_in(given.item_index, given.items, n, "items"),
        "values": floats(given.values, n, "values"),
        "weights": weights_in(given.weights, n),
        "timestamps": times_in(given.timestamps, n),
        "context": contexts_in(given.context, n),
        "user_features": _aligned(given.user_features, given.users, "user"),
        "item_features": _aligned(given.item_features, given.items, "item"),
        "frame_library": as_library(given.frame_library),
    }


def table_in(table: Any, what: str, id_column: str | None = None) -> FeatureTable | None:
    """Return a feature table from what users pass as one, or None for None."""
    return None if table is None else FeatureTable.from_any(table, what, id_column)


def _aligned(table: Any, ids: IdMap, what: str) -> FeatureTable | None:
    table = table_in(table, what)
    return None if table is None else table.align(ids)


def index_of(ids: Any, what: str, table: FeatureTable | None) -> Side:
    """Return the vocabulary of a column of ids and of its table, and each row's place in it."""
    extra = () if table is None else (table.ids,)
    id_map = IdMap.build(ids, *extra, what=what)
    return id_map, frozen(id_map.positions(ids))


def table_with_history(
    table: FeatureTable | None, name: str, own: Side, partner: Side
) -> FeatureTable:
    """Return the feature table of one side with its history as the column `name`."""
    (ids, index), (partner_ids, partners) = own, partner
    history = History.of(index, len(ids), partners, partner_ids)
    return (FeatureTable(ids.ids, {}) if table is None else table).with_history(name, history)
