"""Catalog: all that serving needs to know of the training data, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._checks import require_bool, require_count
from ..data.blocks import Design
from ..data.encoders import ColumnEncoder, SideEncoder
from ..data.features import FeatureTable
from ..data.frames import as_library
from ..data.ids import IdMap, as_ids
from ..data.interactions import Interactions
from ..data.rows import SparseRows
from ..index.base import ItemLists, as_positions

__all__ = ["Catalog", "ContextSide"]

_MOST_ROWS = 2**53  # as whole numbers in float64


@dataclass(frozen=True)
class ContextSide:
    """One context column: its levels, their features, and how often each occurred."""

    ids: IdMap
    rows: SparseRows
    counts: np.ndarray


@dataclass(frozen=True)
class Catalog:
    """Vocabularies, entity features and the items each user has seen.

    Attributes
    ----------
    users, items : IdMap
    user_rows, item_rows : SparseRows
        Features of every user and item, over all columns of the model.
    contexts : dict of str to ContextSide
    seen : ItemLists
        The items of each user's training rows.
    row_counts : ndarray of int64, shape (n_users,)
        Training rows of each user.
    encoders : dict of str to SideEncoder, or None
        How a new "user" or "item" becomes a row of features; older files do not say.
    frame_library : {"pandas", "polars", "pyarrow"} or None
        What the training data came in.
    n_trained : tuple of int, optional
        How many users and items there were at the training. Those that were added since come after
        them, and say nothing about others. None: nobody was.
    """

    users: IdMap
    items: IdMap
    user_rows: SparseRows
    item_rows: SparseRows
    contexts: Mapping[str, ContextSide]
    seen: ItemLists
    row_counts: np.ndarray
    encoders: Mapping[str, SideEncoder] | None = None
    frame_library: str | None = None
    n_trained: tuple[int, int] | None = None

    @classmethod
    def of(cls, interactions: Interactions, design: Design) -> Catalog:
        """Take from the training data what serving needs."""
        n_users = len(interactions.users)
        contexts = {
            name: ContextSide(
                column.ids,
                design.rows_of(name),
                np.bincount(column.index, minlength=len(column.ids)),
            )
            for name, column in interactions.context.items()
        }
        return cls(
            users=interactions.users,
            items=interactions.items,
            user_rows=design.rows_of("user"),
            item_rows=design.rows_of("item"),
            contexts=contexts,
            seen=ItemLists.from_pairs(interactions.user_index, interactions.item_index, n_users),
            row_counts=np.bincount(interactions.user_index, minlength=n_users),
            encoders=_encoders(
                (n_users, *_columns(interactions.user_features)),
                (len(interactions.items), *_columns(interactions.item_features)),
                design.n_features,
            ),
            frame_library=interactions.frame_library,
        )

    @classmethod
    def of_columns(cls, users: Any, items: Any, seen: tuple[Any, Any] | None) -> Catalog:
        """Say what one-hot columns stand for: those of the users, then those of the items.

        Parameters
        ----------
        users, items : array-like of ids
            One per column, in any order.
        seen : tuple of (users, items), array-likes of ids of one length, or None
            Pairs of known ids.

        Raises
        ------
        ValueError
            If an id is repeated, or ``seen`` names an unknown one.
        """
        columns = {"user": as_ids(users, "user"), "item": as_ids(items, "item")}
        maps = {name: IdMap.build(ids, what=name) for name, ids in columns.items()}
        n_features = sum(len(ids) for ids in columns.values())
        rows, first = {}, 0
        for name, ids in columns.items():
            if len(maps[name]) < len(ids):
                raise ValueError(f"{name} ids are repeated: give one id per column")
            # a map is in the order of ids, the columns need not be
            own = first + np.argsort(maps[name].positions(ids))
            rows[name] = SparseRows(
                np.arange(len(ids) + 1), own, np.ones(len(ids), np.float32), n_features
            )
            first += len(ids)
        seen_users, seen_items = (
            maps[name].positions(as_ids(ids, name), unknown="raise")
            for name, ids in zip(columns, seen or ((), ()), strict=True)
        )
        return cls(
            users=maps["user"],
            items=maps["item"],
            user_rows=rows["user"],
            item_rows=rows["item"],
            contexts={},
            seen=ItemLists.from_pairs(seen_users, seen_items, len(maps["user"])),
            row_counts=np.bincount(seen_users, minlength=len(maps["user"])),
            encoders=_encoders(
                (len(maps["user"]), *_columns(None)),
                (len(maps["item"]), *_columns(None)),
                n_features,
            ),
        )

    @cached_property
    def users_with_rows(self) -> np.ndarray:
        """The users that have training rows, as positions."""
        return np.unique(self._trained_pairs[0])

    @cached_property
    def items_with_rows(self) -> np.ndarray:
        """The items that have training rows, as positions."""
        return np.unique(self._trained_pairs[1])

    @property
    def _trained_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        users, items = self.seen.pairs()
        if self.n_trained is None:
            return users, items
        trained = (users < self.n_trained[0]) & (items < self.n_trained[1])
        return users[trained], items[trained]

    def n_training_rows(self, users: np.ndarray) -> np.ndarray:
        """Return how many training rows each user had, 0 for an unknown one."""
        positions = self.users.positions(users, unknown="mark")
        return np.where(positions >= 0, self.row_counts[positions], 0)

    def seen_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return whether each (user, item) pair occurred in training."""
        user = self.users.positions(users, unknown="mark").astype(np.int64)
        item = self.items.positions(items, unknown="mark").astype(np.int64)
        seen_user, seen_item = self.seen.pairs()
        known = seen_user * len(self.items) + seen_item  # ascending, as the lists are
        asked = user * len(self.items) + item
        if not len(known):
            return np.zeros(len(asked), bool)
        place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        return (user >= 0) & (item >= 0) & (known[place] == asked)

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and JSON settings for :meth:`from_state`."""
        arrays = {
            **self.users.to_state("users"),
            **self.items.to_state("items"),
            **self.user_rows.to_state("user_rows"),
            **self.item_rows.to_state("item_rows"),
            "seen/indptr": self.seen.indptr,
            "seen/indices": self.seen.indices,
            "row_counts": self.row_counts,
        }
        for place, side in enumerate(self.contexts.values()):
            arrays.update(side.ids.to_state(f"context{place}/ids"))
            arrays.update(side.rows.to_state(f"context{place}/rows"))
            arrays[f"context{place}/counts"] = side.counts
        settings: dict[str, Any] = {
            "contexts": list(self.contexts),
            "n_features": self.user_rows.n_columns,
        }
        if self.frame_library is not None:
            settings["frame_library"] = self.frame_library
        if self.n_trained is not None:
            settings["n_trained"] = list(self.n_trained)
        if self.encoders is not None:
            sides = {}
            for what, encoder in self.encoders.items():
                columns = []
                for place, column in enumerate(encoder.columns):
                    levels, setting = column.to_state(f"{what}_columns{place}")
                    arrays.update(levels)
                    columns.append(setting)
                sides[what] = {"has_id": encoder.has_id, "columns": columns}
            settings["sides"] = sides
        return arrays, settings

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Catalog:
        """Rebuild the catalog, trusting nothing: all parts have to fit each other.

        Raises
        ------
        ValueError, TypeError
            Naming the part that does not fit.
        """
        n_features, names = settings["n_features"], settings["contexts"]
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not is_list or len(set(names)) < len(names):
            raise ValueError("the names of the contexts are not a list of distinct strings")
        users = IdMap.from_state(state, "users", "user")
        items = IdMap.from_state(state, "items", "item")
        row_counts = _counts(state, "row_counts", len(users))
        seen = ItemLists(state["seen/indptr"], state["seen/indices"])
        as_positions(seen.indices, len(items), "seen")
        _require_length("seen", len(seen), len(users))
        if np.any(row_counts < seen.lengths) or np.any((row_counts > 0) & (seen.lengths == 0)):
            raise ValueError("row_counts and seen are not of the same training rows")
        contexts = {}
        for place, name in enumerate(names):
            ids = IdMap.from_state(state, f"context{place}/ids", name)
            rows = _rows(state, f"context{place}/rows", len(ids), n_features)
            counts = _counts(state, f"context{place}/counts", len(ids))
            if counts.sum() > row_counts.sum():  # those of a history that came later have none
                raise ValueError(f"context {name!r} has more rows than there are")
            contexts[name] = ContextSide(ids, rows, counts)
        catalog = cls(
            users=users,
            items=items,
            user_rows=_rows(state, "user_rows", len(users), n_features),
            item_rows=_rows(state, "item_rows", len(items), n_features),
            contexts=contexts,
            seen=seen,
            row_counts=row_counts,
            frame_library=as_library(settings.get("frame_library")),  # older files do not say
            n_trained=_n_trained(settings.get("n_trained"), len(users), len(items)),
        )
        if "sides" not in settings:
            return catalog
        return replace(catalog, encoders=_encoders_of_state(catalog, state, settings["sides"]))


_Side = tuple[int, bool, tuple[ColumnEncoder, ...]]  # entities, whether they have ids, columns


def _columns(table: FeatureTable | None) -> tuple[bool, tuple[ColumnEncoder, ...]]:
    return (True, ()) if table is None else (table.id_feature, table.encoders())


def _encoders(users: _Side, items: _Side, n_features: int) -> dict[str, SideEncoder]:
    """Lay out the features: the users' ids and columns, then the items'."""
    encoders, first = {}, 0
    for what, (n, has_id, columns) in (("user", users), ("item", items)):
        first += n * has_id
        encoders[what] = SideEncoder(what, has_id, first, n_features, columns)
        first = encoders[what].stop
    return encoders


def _encoders_of_state(
    catalog: Catalog, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> dict[str, SideEncoder]:
    sides = []
    for what, rows in (("user", catalog.user_rows), ("item", catalog.item_rows)):
        has_id = require_bool(f"has_id of {what}", settings[what]["has_id"])
        if has_id and np.any(np.diff(rows.indptr) < 1):
            raise ValueError(f"not every {what} has an id among its features")
        columns = tuple(
            ColumnEncoder.from_state(state, f"{what}_columns{place}", column)
            for place, column in enumerate(settings[what]["columns"])
        )
        sides.append((len(rows), has_id, columns))
    n_features = catalog.user_rows.n_columns
    users, items = sides
    encoders = _encoders(users, items, n_features)
    n_levels = sum(len(side.ids) for side in catalog.contexts.values())
    if encoders["item"].stop + n_levels != n_features:
        raise ValueError(
            f"ids, feature columns and contexts have {encoders['item'].stop + n_levels} features, "
            f"the catalog {n_features}"
        )
    return encoders


def _n_trained(given: Any, n_users: int, n_items: int) -> tuple[int, int] | None:
    if given is None:
        return None
    users, items = (require_count("n_trained", n) for n in given)
    if users > n_users or items > n_items:
        raise ValueError(f"n_trained is {users} of {n_users} users, {items} of {n_items} items")
    return users, items


def _require_length(name: str, length: int, wanted: int) -> None:
    if length != wanted:
        raise ValueError(f"{name} has {length} entries for {wanted} ids")


def _rows(state: Mapping[str, np.ndarray], name: str, n: int, n_features: int) -> SparseRows:
    rows = SparseRows.from_state(state, name, n_features)
    _require_length(name, len(rows), n)
    return rows


def _counts(state: Mapping[str, np.ndarray], name: str, n: int) -> np.ndarray:
    """Return how many training rows each id had: a level of a context had one at least."""
    counts = as_positions(state[name], _MOST_ROWS, name)
    _require_length(name, len(counts), n)
    if not (name != "row_counts") <= counts.sum(dtype=np.float64) < _MOST_ROWS:
        raise ValueError(f"{name} adds up to {counts.sum()} rows")
    return counts
