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

__all__ = ["extended", "in_vocabulary", "with_entities"]

_IDS = {"user": "users", "item": "items"}


def extended(known: Interactions, new: Interactions) -> Interactions:
    """Return what was known with new rows behind it, in one vocabulary.

    Parameters
    ----------
    known, new : Interactions
        With the same contexts. Ids of ``new`` that ``known`` has not go behind the others. A
        feature table of ``new`` has rows for its new ids, and may have other values for known ones.

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
    if list(new.context) != list(known.context):
        raise ValueError(
            f"the new rows have the contexts {', '.join(new.context) or 'none'}, those known "
            f"{', '.join(known.context) or 'none'}: give them the same"
        )
    if (known.values is None) != (new.values is None) and len(known) and len(new):
        has, lacks = ("new", "known") if known.values is None else ("known", "new")
        raise ValueError(f"the {has} rows have values and the {lacks} ones have none")
    changes: dict[str, Any] = {name: _both(known, new, name) for name in ("values", "timestamps")}
    changes["weights"] = _weights(known, new)
    for what, ids in _IDS.items():
        more = getattr(new, ids)
        changes |= _side(known, what, more.ids, _table(new, what))
        places = changes[ids].positions(more.ids)[getattr(new, f"{what}_index")]
        changes[f"{what}_index"] = np.concatenate([getattr(known, f"{what}_index"), places])
    changes["context"] = {name: _context(known, new, name) for name in known.context}
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
    changes = {**_side(known, what, ids, table), f"{other}_features": _table(known, other)}
    return _with_histories_of(known, known.replace(**changes))


def in_vocabulary(
    known: Interactions, ids: Mapping[str, IdMap], encoders: Mapping[str, SideEncoder]
) -> Interactions:
    """Return the same rows in a vocabulary that begins with given ids, in their order.

    Parameters
    ----------
    known : Interactions
    ids : mapping of str to IdMap
        Of "user", "item" and the contexts of ``known``.
    encoders : mapping of str to SideEncoder
        Of "user" and "item": numeric features are to be standardised as they say.

    Raises
    ------
    ValueError
        For other contexts, or a feature table without a row for some id.
    TypeError
        For ids of another kind.
    """
    if list(known.context) != list(ids)[len(_IDS) :]:
        raise ValueError(
            f"the known rows have the contexts {', '.join(known.context) or 'none'}, the model "
            f"{', '.join(list(ids)[len(_IDS) :]) or 'none'}"
        )
    changes: dict[str, Any] = {}
    for what, name in _IDS.items():
        own: IdMap = getattr(known, name)
        changes[name] = ids[what].extended(own.ids)
        places = changes[name].positions(own.ids)
        changes[f"{what}_index"] = places[getattr(known, f"{what}_index")]
        table = getattr(known, f"{what}_features")
        if table is not None and what in encoders:
            changes[f"{what}_features"] = table.standardized_as(encoders[what].columns)
    contexts = {}
    for name, column in known.context.items():
        larger = ids[name].extended(column.ids.ids)
        contexts[name] = Context(larger, larger.positions(column.ids.ids)[column.index])
    return known.replace(**changes, context=contexts)


def _table(rows: Interactions, what: str) -> FeatureTable | None:
    table: FeatureTable | None = getattr(rows, f"{what}_features")
    return None if table is None else table.without_histories()


def _side(
    known: Interactions, what: str, more: np.ndarray, new: FeatureTable | None
) -> dict[str, Any]:
    """Return vocabulary and feature table of a side with more ids, by name."""
    ids: IdMap = getattr(known, _IDS[what]).extended(more)
    table = _table(known, what)
    if table is None and new is not None and new.features:
        raise ValueError(
            f"the known rows have no {what}_features, so that those of the new ones can't be used"
        )
    if table is not None and not table.features:  # labels at most: who has none goes without
        nameless = np.setdiff1d(ids.ids, table.ids)
        unnamed = FeatureTable(nameless, {}, id_feature=table.id_feature)
        table = table.extended(unnamed) if len(nameless) else table
    if table is not None and new is not None:
        table = table.extended(new)
    return {_IDS[what]: ids, f"{what}_features": table}


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


def _context(known: Interactions, new: Interactions, name: str) -> Context:
    own, more = known.context[name], new.context[name]
    ids = own.ids.extended(more.ids.ids)
    return Context(ids, np.concatenate([own.index, ids.positions(more.ids.ids)[more.index]]))
