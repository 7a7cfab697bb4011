"""Interactions: who met what, when, how much, in which context; the one data object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .features import FeatureTable
from .frames import columns_of, is_missing
from .ids import IdMap

__all__ = ["Context", "Interactions"]

_RESERVED = ("user", "item")
_FIRST_DATE, _LAST_DATE = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")  # in int64 ns


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """One context column: its levels and the level of each row."""

    ids: IdMap
    index: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Events between users and items, with their vocabularies and feature tables.

    Build one with :meth:`from_arrays` or :meth:`from_frame`; the parts of a split share the
    vocabularies of the whole.

    Attributes
    ----------
    users, items : IdMap
        All known ids, those of the feature tables included.
    user_index, item_index : ndarray of int32, shape (n,)
        Position of each row's user and item.
    values, weights : ndarray of float32, shape (n,), or None
    timestamps : ndarray of int64 or float64, shape (n,), or None
    context : dict of str to Context
    user_features, item_features : FeatureTable or None
        Rows in the order of ``users.ids`` and ``items.ids``.

    Examples
    --------
    >>> ratings = Interactions.from_arrays(["ann", "bob"], [3, 9], [5.0, 2.0])
    >>> ratings
    Interactions(2 rows, 2 users, 2 items, values)
    >>> ratings.take([1]).user_ids
    array(['bob'], dtype=object)
    """

    users: IdMap
    items: IdMap
    user_index: np.ndarray
    item_index: np.ndarray
    values: np.ndarray | None = None
    weights: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    context: Mapping[str, Context] = dataclasses.field(default_factory=dict)
    user_features: FeatureTable | None = None
    item_features: FeatureTable | None = None

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        values: Any = None,
        *,
        weights: Any = None,
        timestamps: Any = None,
        context: Mapping[str, Any] | None = None,
        user_features: Any = None,
        item_features: Any = None,
    ) -> Interactions:
        """Build interactions from one array per column.

        Parameters
        ----------
        users, items : array-like of int or str, shape (n,)
            External ids; they keep their type and come back in every answer.
        values : array-like of float, shape (n,), optional
            Ratings, counts or 0/1 targets. Without them the events are implicit feedback.
        weights : array-like of float, shape (n,), optional
            Not negative. They multiply the precision of the squared loss and scale other losses.
        timestamps : array-like of int, float or datetime64, shape (n,), optional
        context : mapping of str to array-like of int or str, shape (n,), optional
            Any number of columns tied to the event: weekday, device, shop.
        user_features, item_features : FeatureTable, data frame or mapping of columns, optional
            A frame or mapping needs a column "id" (or "user" / "user_id", "item" / "item_id").
            Ids that occur here only are part of the vocabulary too.

        Raises
        ------
        ValueError
            For columns of different length, no rows, NaN or infinity (the row is named).
        TypeError
            For ids that are neither integers nor strings.
        """
        user_table = _table(user_features, "user")
        item_table = _table(item_features, "item")
        user_map, user_index = _index(users, "user", user_table)
        item_map, item_index = _index(items, "item", item_table)
        n = len(user_index)
        if n == 0:
            raise ValueError("there are no interactions: the data is empty")
        _require_length(item_index, n, "items")
        contexts = {}
        for name, column in (context or {}).items():
            if name in _RESERVED:
                raise ValueError(f"a context column can't be called {name!r}: rename it")
            level_map, index = _index(column, name, None)
            _require_length(index, n, f"context {name!r}")
            contexts[name] = Context(level_map, index)
        return cls(
            users=user_map,
            items=item_map,
            user_index=user_index,
            item_index=item_index,
            values=_floats(values, n, "values"),
            weights=_weights(weights, n),
            timestamps=_times(timestamps, n),
            context=contexts,
            user_features=user_table.align(user_map) if user_table is not None else None,
            item_features=item_table.align(item_map) if item_table is not None else None,
        )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str,
        item: str,
        value: str | None = None,
        weight: str | None = None,
        timestamp: str | None = None,
        context: Sequence[str] = (),
        user_features: Any = None,
        item_features: Any = None,
    ) -> Interactions:
        """Build interactions from a data frame (pandas, polars, pyarrow) or a mapping of columns.

        Parameters
        ----------
        frame : data frame
        user, item, value, weight, timestamp : str
            Names of its columns.
        context : sequence of str
            Names of the context columns.
        user_features, item_features : FeatureTable, data frame or mapping, optional
            As in :meth:`from_arrays`; the id column may also be called as in ``frame``.

        Raises
        ------
        ValueError
            If a named column does not exist, and as in :meth:`from_arrays`.
        """
        columns = columns_of(frame)
        context = [context] if isinstance(context, str) else list(context)
        for name in (user, item, value, weight, timestamp, *context):
            if name is not None and name not in columns:
                raise ValueError(f"no column {name!r}: there are {', '.join(columns)}")

        def column(name: str | None) -> Any:
            return None if name is None else columns[name]

        return cls.from_arrays(
            columns[user],
            columns[item],
            column(value),
            weights=column(weight),
            timestamps=column(timestamp),
            context={name: columns[name] for name in context},
            user_features=_table(user_features, "user", user),
            item_features=_table(item_features, "item", item),
        )

    def __len__(self) -> int:
        return len(self.user_index)

    def __repr__(self) -> str:
        parts = [f"{len(self)} rows, {len(self.users)} users, {len(self.items)} items"]
        parts += [
            name for name in ("values", "weights", "timestamps") if getattr(self, name) is not None
        ]
        parts += [f"context {name}" for name in self.context]
        return f"Interactions({', '.join(parts)})"

    @property
    def user_ids(self) -> np.ndarray:
        """The external user id of each row."""
        return self.users.ids[self.user_index]

    @property
    def item_ids(self) -> np.ndarray:
        """The external item id of each row."""
        return self.items.ids[self.item_index]

    def replace(self, **changes: Any) -> Interactions:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def without_features(self) -> Interactions:
        """Return the same rows with ids (and contexts) as the only features.

        The tables stay as labels: titles are still at hand.
        """
        changes = {
            name: table.with_features()
            for name in ("user_features", "item_features")
            if (table := getattr(self, name)) is not None
        }
        return self.replace(**changes)

    def take(self, rows: Any) -> Interactions:
        """Return the given rows (positions or a boolean mask) with the same vocabularies.

        Raises
        ------
        IndexError
            For positions out of range or a mask of another length.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise IndexError(f"a mask of shape {rows.shape} can't pick from {len(self)} rows")
        if rows.size == 0:
            rows = rows.astype(np.int64)

        def pick(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return self.replace(
            user_index=self.user_index[rows],
            item_index=self.item_index[rows],
            values=pick(self.values),
            weights=pick(self.weights),
            timestamps=pick(self.timestamps),
            context={
                name: Context(column.ids, column.index[rows])
                for name, column in self.context.items()
            },
        )


def _table(table: Any, what: str, id_column: str | None = None) -> FeatureTable | None:
    return None if table is None else FeatureTable.from_any(table, what, id_column)


def _index(ids: Any, what: str, table: FeatureTable | None) -> tuple[IdMap, np.ndarray]:
    extra = () if table is None else (table.ids,)
    id_map = IdMap.build(ids, *extra, what=what)
    return id_map, id_map.positions(ids)


def _require_length(array: np.ndarray, n: int, name: str) -> None:
    if array.shape != (n,):
        raise ValueError(
            f"{name} must have one entry per row: got shape {array.shape} for {n} rows"
        )


def _numbers(values: Any, name: str) -> np.ndarray:
    """Return an array of what the values are; None among them is an error, never NaN."""
    array = np.asarray(values)
    if array.dtype != object:
        return array
    for row, value in enumerate(array):
        if is_missing(value):
            raise ValueError(f"{name} has no value in row {row}: fill it or leave the row out")
    array = np.asarray(array.tolist())
    try:
        return array if array.dtype != object else array.astype(np.float64)  # decimals
    except TypeError:
        return array


def _floats(values: Any, n: int, name: str) -> np.ndarray | None:
    if values is None:
        return None
    array = _numbers(values, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    _require_length(array, n, name)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"{name} contains NaN or infinity: row {row} is {array[row]}")
    return array


def _weights(weights: Any, n: int) -> np.ndarray | None:
    array = _floats(weights, n, "weights")
    if array is not None and array.min() < 0:
        row = int(np.argmax(array < 0))
        raise ValueError(f"weights must not be negative: row {row} is {array[row]}")
    return array


def _times(timestamps: Any, n: int) -> np.ndarray | None:
    if timestamps is None:
        return None
    array = _numbers(timestamps, "timestamps")
    if array.dtype.kind == "M":
        array = _nanoseconds(array)
    elif array.dtype.kind in "iu":
        too_large = array > np.iinfo(np.int64).max
        if too_large.any():
            row = int(np.argmax(too_large))
            raise ValueError(f"timestamps beyond the range of int64: row {row} is {array[row]}")
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise ValueError(f"timestamps contains NaN or infinity: row {row} is {array[row]}")
        array = array.astype(np.float64)
    else:
        raise TypeError(f"timestamps must be numbers or datetime64, got {array.dtype}")
    _require_length(array, n, "timestamps")
    return array


def _nanoseconds(times: np.ndarray) -> np.ndarray:
    if np.isnat(times).any():
        raise ValueError(f"timestamps has no time in row {int(np.argmax(np.isnat(times)))}")
    outside = (times < _FIRST_DATE) | (times > _LAST_DATE)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"timestamps must lie between {_FIRST_DATE} and {_LAST_DATE}: row {row} is {times[row]}"
        )
    return times.astype("datetime64[ns]").astype(np.int64)
