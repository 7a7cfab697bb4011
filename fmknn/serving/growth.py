"""Catalogs that grow: where their columns went, and what was counted before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.encoders import SideEncoder
from ..data.ids import IdMap
from ..data.interactions import Context, Interactions
from ..data.rows import SparseRows
from ..index.base import ItemLists
from .catalog import Catalog

__all__ = ["columns_in", "same_entities", "vocabulary_of", "with_entities", "with_past"]


def columns_in(before: Catalog, now: Catalog) -> np.ndarray:
    """Return the column that each one of a catalog is in a later one.

    Parameters
    ----------
    before, now : Catalog
        All ids of ``before`` are in ``now``.

    Returns
    -------
    ndarray of int64, shape (n_features,)
        -1 for a level of a feature that nobody has any more.

    Raises
    ------
    UnknownIdError
        If an id is missing.
    ValueError
        If users or items have other feature columns, or there are other contexts.
    """
    if list(before.contexts) != list(now.contexts):
        raise ValueError(
            f"the rows have the contexts {', '.join(now.contexts) or 'none'}, the model "
            f"{', '.join(before.contexts) or 'none'}"
        )
    columns = np.full(before.user_rows.n_columns, -1, np.int64)
    for what in ("user", "item"):
        own, there = _encoders(before)[what], _encoders(now)[what]
        _require_same_columns(own, there)
        if own.has_id:
            ids: IdMap = getattr(before, f"{what}s")
            places = getattr(now, f"{what}s").positions(ids.ids)
            own_rows, rows = (getattr(catalog, f"{what}_rows") for catalog in (before, now))
            columns[own_rows.indices[own_rows.indptr[:-1]]] = rows.indices[rows.indptr[places]]
        first, first_there = own.first, there.first
        for column, column_there in zip(own.columns, there.columns, strict=True):
            places = np.zeros(1, np.int64)
            if column.levels is not None:
                places = column_there.places(column.levels)
            stop = first + column.width
            columns[first:stop] = np.where(places >= 0, first_there + places, -1)
            first, first_there = stop, first_there + column_there.width
    for name, side in before.contexts.items():
        side_now = now.contexts[name]
        places = side_now.ids.positions(side.ids.ids)
        columns[side.rows.indices] = side_now.rows.indices[places]
    return columns


def _require_same_columns(before: SideEncoder, now: SideEncoder) -> None:
    kinds = [
        [f"{column.name} ({column.kind})" for column in side.columns] for side in (before, now)
    ]
    kinds = [["id"] * side.has_id + own for side, own in zip((before, now), kinds, strict=True)]
    if kinds[0] != kinds[1]:
        had, have = (", ".join(own) or "none" for own in kinds)
        raise ValueError(
            f"the model has the {before.what} features {had}, the rows {have}: give them the "
            "feature table of training"
        )


def _encoders(catalog: Catalog) -> Mapping[str, SideEncoder]:
    if catalog.encoders is None:
        raise ValueError(
            "this model is of an older file, which does not say how features are made: fit it again"
        )
    return catalog.encoders


def _first_id(encoder: SideEncoder, n_ids: int) -> int:
    return encoder.first - n_ids * encoder.has_id


def with_past(now: Catalog, before: Catalog, is_news: bool) -> Catalog:
    """Return a catalog with what was seen before as well, in histories that are no rows too.

    Parameters
    ----------
    now, before : Catalog
        The ids of ``before`` come first in ``now``, in the same order.
    is_news : bool
        Whether ``now`` is of new rows alone, so that counts add up.
    """
    pairs = [before.seen.pairs(), now.seen.pairs()]
    users, items = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    seen = ItemLists.from_pairs(users, items, len(now.users))
    if not is_news:
        row_counts = np.maximum(now.row_counts, seen.lengths)
        return replace(now, seen=seen, row_counts=row_counts)

    def total(counts: np.ndarray, earlier: np.ndarray) -> np.ndarray:
        return counts + np.pad(earlier, (0, len(counts) - len(earlier)))

    contexts = {
        name: replace(side, counts=total(side.counts, before.contexts[name].counts))
        for name, side in now.contexts.items()
    }
    row_counts = total(now.row_counts, before.row_counts)
    return replace(now, seen=seen, row_counts=row_counts, contexts=contexts)


def same_entities(catalog: Catalog, other: Catalog) -> bool:
    """Return whether two catalogs know the same users, items and levels by the same features."""
    tables = [
        [
            (len(rows), rows.indptr, rows.indices, rows.values)
            for rows in (own.user_rows, own.item_rows, *(c.rows for c in own.contexts.values()))
        ]
        for own in (catalog, other)
    ]
    return all(
        all(np.array_equal(a, b) for a, b in zip(one, another, strict=True))
        for one, another in zip(*tables, strict=True)
    )


def vocabulary_of(catalog: Catalog) -> Interactions:
    """Return what a catalog knows, as interactions without a row.

    Raises
    ------
    ValueError
        If there are features: a catalog has them encoded only.
    """
    for what, encoder in _encoders(catalog).items():
        if encoder.columns or not encoder.has_id:
            raise ValueError(
                f"the model has {what} features, whose table it does not keep: pass known=, the "
                "interactions that it was trained on"
            )
    nothing = np.empty(0, np.int32)
    return Interactions(
        catalog.users,
        catalog.items,
        nothing,
        nothing,
        context={name: Context(side.ids, nothing) for name, side in catalog.contexts.items()},
        frame_library=catalog.frame_library,
    )


def with_entities(
    catalog: Catalog,
    what: str,
    ids: np.ndarray,
    rows: SparseRows,
    pairs: tuple[np.ndarray, np.ndarray],
) -> tuple[Catalog, np.ndarray, np.ndarray]:
    """Return a catalog with more users or items.

    Parameters
    ----------
    catalog : Catalog
    what : {"user", "item"}
    ids : ndarray
        Ascending, none of them known.
    rows : SparseRows, shape (n_new, n_features)
        Their features, without an id, in the columns that there are.
    pairs : tuple of ndarray of int
        Which of the users that there will be has seen which item, once for each time.

    Returns
    -------
    catalog : Catalog
    columns : ndarray of int64, shape (n_features,)
        The column that each one of before is by now.
    own : ndarray of int64, shape (n_new,) or (0,)
        The columns of the new ids, if ids are features.
    """
    encoders, id_map = _encoders(catalog), getattr(catalog, f"{what}s")
    has_id = encoders[what].has_id
    own = (_first_id(encoders[what], len(id_map)) + len(id_map) + np.arange(len(ids)))[
        : len(ids) * has_id
    ]
    gap = own[0] if len(own) else rows.n_columns
    columns = np.arange(rows.n_columns)
    columns += len(own) * (columns >= gap)
    n_features = rows.n_columns + len(own)

    def moved(rows: SparseRows) -> SparseRows:
        return SparseRows(rows.indptr, columns[rows.indices], rows.values, n_features)

    def later(encoder: SideEncoder) -> SideEncoder:
        first = encoder.first + len(own) * (encoder.first >= gap)
        return replace(encoder, first=first, n_features=n_features)

    tables = {side: moved(getattr(catalog, f"{side}_rows")) for side in ("user", "item")}
    tables[what] = SparseRows.concatenate([tables[what], _with_ids(moved(rows), own)])
    n_users = len(tables["user"])
    users, items = (
        np.concatenate(parts) for parts in zip(catalog.seen.pairs(), pairs, strict=True)
    )
    counts = np.bincount(pairs[0], minlength=n_users)
    counts[: len(catalog.row_counts)] += catalog.row_counts
    changes: dict[str, Any] = {f"{what}s": id_map.extended(ids)}
    larger = replace(
        catalog,
        **changes,
        user_rows=tables["user"],
        item_rows=tables["item"],
        contexts={
            name: replace(side, rows=moved(side.rows)) for name, side in catalog.contexts.items()
        },
        seen=ItemLists.from_pairs(users, items, n_users),
        row_counts=counts,
        encoders={side: later(encoder) for side, encoder in encoders.items()},
        n_trained=catalog.n_trained or (len(catalog.users), len(catalog.items)),
    )
    return larger, columns, own


def _with_ids(rows: SparseRows, own: np.ndarray) -> SparseRows:
    """Put an id, which has a column before all features of its side, in front of each row."""
    if not len(own):
        return rows
    starts = rows.indptr[:-1]
    return SparseRows(
        rows.indptr + np.arange(len(rows) + 1),
        np.insert(rows.indices, starts, own),
        np.insert(rows.values, starts, 1.0),
        rows.n_columns,
    )
