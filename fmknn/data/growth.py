"""Rows, people and items that come later: interactions grow, and nothing that was there moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .columns import Context
from .encoders import SideEncoder
from .features import FeatureTable
from .history import History
from .ids import IdMap
from .interactions import Interactions

__all__ = ["extended", "with_entities"]

_IDS = {"user": "users", "item": "items"}


def extended(
    known: Interactions,
    new: Interactions,
    ids: Mapping[str, IdMap] | None = None,
    encoders: Mapping[str, SideEncoder] | None = None,
) -> Interactions:
    """Return what was known with new rows behind it, in one vocabulary.

    Parameters
    ----------
    known, new : Interactions
        With the same contexts. Ids of ``new`` that ``known`` has not go behind the others. A
        feature table of ``new`` has rows for its new ids, and may have other values for known ones.
    ids : mapping of str to IdMap, optional
        Of "user", "item" and the contexts: ids that come first, in their order. Default: those of
        ``known``.
    encoders : mapping of str to SideEncoder, optional
        Of "user" and "item": numeric features are to be standardised as they say. Default: as the
        table of ``known`` does.

    Returns
    -------
    Interactions
        All rows, those of ``known`` first. Histories are made anew from all of them.

    Raises
    ------
    ValueError
        For other contexts, values on one side only, or features that are missing.
    TypeError
        For ids, levels or features of another kind.

    Examples
    --------
    >>> known = Interactions.from_arrays(["bob"], [7], [4.0])
    >>> rows = extended(known, Interactions.from_arrays(["ann", "bob"], [9, 8], [1.0, 2.0]))
    >>> rows.users.ids.tolist(), rows.items.ids.tolist(), rows.item_ids.tolist()
    (['bob', 'ann'], [7, 8, 9], [7, 9, 8])
    """
    ids = _vocabulary(known) if ids is None else ids
    names = list(ids)[len(_IDS) :]
    for rows, which in ((new, "new"), (known, "known")):
        if list(rows.context) != names:
            raise ValueError(
                f"the {which} rows have the contexts {', '.join(rows.context) or 'none'}, the "
                f"model has {', '.join(names) or 'none'}"
            )
    if (known.values is None) != (new.values is None) and len(known) and len(new):
        has, lacks = ("new", "known") if known.values is None else ("known", "new")
        raise ValueError(f"the {has} rows have values and the {lacks} ones have none")
    changes: dict[str, Any] = {name: _both(known, new, name) for name in ("values", "timestamps")}
    changes["weights"] = _weights(known, new)
    for what, name in _IDS.items():
        larger = ids[what].extended(getattr(known, name).ids).extended(getattr(new, name).ids)
        table = _table(known, what)
        if table is not None and encoders is not None:
            table = table.standardized_as(encoders[what].columns)
        changes[name] = larger
        changes[f"{what}_features"] = _extended(what, table, _table(new, what), larger)
        changes[f"{what}_index"] = np.concatenate(
            [
                larger.positions(getattr(rows, name).ids)[getattr(rows, f"{what}_index")]
                for rows in (known, new)
            ]
        )
    changes["context"] = {name: _context(ids[name], name, known, new) for name in names}
    return _with_histories_of(known, known.replace(**changes))


def with_entities(
    known: Interactions, what: str, ids: np.ndarray, table: FeatureTable | None
) -> Interactions:
    """Return the same rows with more users or items in the vocabulary.

    Parameters
    ----------
    known : Interactions
    what : {"user", "item"}
    ids : ndarray
        Known ones among them are no news.
    table : FeatureTable, optional
        Their features.

    Returns
    -------
    Interactions
        Those that are new have no row, and an empty history.

    Raises
    ------
    ValueError, TypeError
        As :func:`extended`.
    """
    other = next(side for side in _IDS if side != what)
    larger: IdMap = getattr(known, _IDS[what]).extended(ids)
    changes: dict[str, Any] = {
        _IDS[what]: larger,
        f"{what}_features": _extended(what, _table(known, what), table, larger),
        f"{other}_features": _table(known, other),
    }
    return _with_histories_of(known, known.replace(**changes))


def _vocabulary(rows: Interactions) -> dict[str, IdMap]:
    ids = {what: getattr(rows, name) for what, name in _IDS.items()}
    return ids | {name: column.ids for name, column in rows.context.items()}


def _table(rows: Interactions, what: str) -> FeatureTable | None:
    table: FeatureTable | None = getattr(rows, f"{what}_features")
    return None if table is None else table.without_histories()


def _extended(
    what: str, table: FeatureTable | None, new: FeatureTable | None, ids: IdMap
) -> FeatureTable | None:
    """Return a feature table with the rows of a new one, for all ids."""
    if table is None and new is not None and new.features:
        raise ValueError(
            f"the known rows have no {what}_features, so that those of the new ones can't be used"
        )
    if table is None:
        return None
    if new is not None:
        table = table.extended(new)
    nameless = np.setdiff1d(ids.ids, table.ids)
    if len(nameless) and not table.features:  # labels at most: who has none goes without
        table = table.extended(FeatureTable(nameless, {}))
    elif len(nameless):
        raise ValueError(
            f"{len(nameless)} {what} id(s) have no row in a feature table, the first is "
            f"{nameless.tolist()[0]!r}: give {what}_features with the new or the known rows"
        )
    return table


def _with_histories_of(known: Interactions, rows: Interactions) -> Interactions:
    has = {
        f"{what}s": table is not None
        and any(isinstance(table[name], History) for name in table.features)
        for what, table in (("user", known.user_features), ("item", known.item_features))
    }
    return rows.with_history(**has) if any(has.values()) else rows


def _both(known: Interactions, new: Interactions, name: str) -> np.ndarray | None:
    """Return a column of all rows, if all have it."""
    parts = [getattr(rows, name) for rows in (known, new) if len(rows)]
    return None if not parts or any(part is None for part in parts) else np.concatenate(parts)


def _weights(known: Interactions, new: Interactions) -> np.ndarray | None:
    if known.weights is None and new.weights is None:
        return None
    parts = [
        np.ones(len(rows), np.float32) if rows.weights is None else rows.weights
        for rows in (known, new)
    ]
    return np.concatenate(parts)


def _context(ids: IdMap, name: str, *parts: Interactions) -> Context:
    columns = [rows.context[name] for rows in parts]
    for column in columns:
        ids = ids.extended(column.ids.ids)
    places = [ids.positions(column.ids.ids)[column.index] for column in columns]
    return Context(ids, np.concatenate(places))
