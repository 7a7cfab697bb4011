"""The gate for columns of rows: positions, numbers and times in the types of the kernels.

What comes out is read-only, so that it stays as it was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import refuse_masked
from .frames import as_array, is_missing
from .ids import IdMap

__all__ = [
    "Context",
    "columns_at",
    "contexts_in",
    "floats",
    "frozen",
    "named",
    "positions_in",
    "rows_in",
    "times_in",
    "weights_in",
]

_RESERVED = ("user", "item")
_AT_ONCE = 1 << 20  # rows: what is checked may be mapped, and larger than memory
_FIRST_DATE, _LAST_DATE = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")  # in int64 ns


@dataclass(frozen=True, eq=False)
class Context:
    """One context column: its levels and the level of each row."""

    ids: IdMap
    index: np.ndarray


def frozen(own: np.ndarray) -> np.ndarray:
    """Make an array of one's own read-only, and return it."""
    own.flags.writeable = False
    return own


def _column(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a read-only array of that type: a column of other interactions, or a copy."""
    if array.dtype == dtype and array.flags.c_contiguous and not array.flags.writeable:
        return array
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return frozen(array.astype(dtype))


def _first(array: np.ndarray, is_wrong: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Return the first row that is wrong, or None."""
    for start in range(0, len(array), _AT_ONCE):
        wrong = is_wrong(array[start : start + _AT_ONCE])
        if wrong.any():
            return start + int(np.argmax(wrong))
    return None


def _is_not_finite(part: np.ndarray) -> np.ndarray:
    return ~np.isfinite(part)


def _require_length(array: np.ndarray, n: int, name: str) -> None:
    if array.shape != (n,):
        raise ValueError(
            f"{name} must have one entry per row: got shape {array.shape} for {n} rows"
        )


def positions_in(index: Any, ids: Any, n: int, name: str) -> np.ndarray:
    """Return `n` positions in a vocabulary as int32; an error calls them `name`."""
    if not isinstance(ids, IdMap):
        raise TypeError(f"{name} must come with an IdMap, got {type(ids).__name__}")
    array = np.asarray(index)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: positions must be integers, got {array.dtype}")
    _require_length(array, n, name)
    row = _first(array, lambda part: (part < 0) | (part >= len(ids)))
    if row is not None:
        raise ValueError(f"{name}: row {row} has position {array[row]}, outside 0..{len(ids) - 1}")
    return _column(array, np.int32)


def _numbers(values: Any, name: str) -> np.ndarray:
    """Return an array of what the values are; None among them is an error, never NaN."""
    refuse_masked(name, values)
    array = as_array(values)
    if array.dtype != object:
        return array
    for row, value in enumerate(array):
        if is_missing(value):
            raise ValueError(f"{name} is missing (null) in row {row}: fill it or leave the row out")
    array = np.asarray(array.tolist())
    try:
        return array if array.dtype != object else array.astype(np.float64)  # decimals
    except TypeError:
        return array


def floats(values: Any, n: int, name: str) -> np.ndarray | None:
    """Return `n` finite numbers as float32, or None for None."""
    if values is None:
        return None
    array = _numbers(values, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    _require_length(array, n, name)
    array = _column(array, np.float32)
    row = _first(array, _is_not_finite)
    if row is not None:
        raise ValueError(f"{name} contains NaN or infinity: row {row} is {array[row]}")
    return array


def weights_in(weights: Any, n: int) -> np.ndarray | None:
    """Return `n` weights, not negative and not all zero, as float32, or None for None."""
    array = floats(weights, n, "weights")
    if array is None or not n:
        return array
    row = _first(array, lambda part: part < 0)
    if row is not None:
        raise ValueError(f"weights must not be negative: row {row} is {array[row]}")
    if not array.any():
        raise ValueError("weights are all zero: no row would count")
    return array


def times_in(timestamps: Any, n: int, first: int = 0) -> np.ndarray | None:
    """Return `n` times as int64 (datetimes in nanoseconds) or float64, or None for None.

    An error counts rows from `first`.
    """
    if timestamps is None:
        return None
    array = _numbers(timestamps, "timestamps")
    _require_length(array, n, "timestamps")
    if array.dtype.kind == "M":
        return frozen(_nanoseconds(array, first))
    if array.dtype.kind in "iu":
        row = _first(array, lambda part: part > np.iinfo(np.int64).max)
        if row is not None:
            raise ValueError(
                f"timestamps beyond the range of int64: row {first + row} is {array[row]}"
            )
        return _column(array, np.int64)
    if array.dtype.kind != "f":
        raise TypeError(f"timestamps must be numbers or datetime64, got {array.dtype}")
    row = _first(array, _is_not_finite)
    if row is not None:
        raise ValueError(f"timestamps contains NaN or infinity: row {first + row} is {array[row]}")
    return _column(array, np.float64)


def _nanoseconds(times: np.ndarray, first: int) -> np.ndarray:
    row = _first(times, np.isnat)
    if row is not None:
        raise ValueError(f"timestamps has no time in row {first + row}")
    row = _first(times, lambda part: (part < _FIRST_DATE) | (part > _LAST_DATE))
    if row is not None:
        raise ValueError(
            f"timestamps must lie between {_FIRST_DATE} and {_LAST_DATE}: row {first + row} is "
            f"{times[row]}"
        )
    return times.astype("datetime64[ns]").astype(np.int64)


def named(context: Any) -> Mapping[str, Any]:
    """Return context columns as they are, if they go by names that a context may have."""
    if not isinstance(context, Mapping):
        raise TypeError(f"context must map names to columns, got {type(context).__name__}")
    for name in context:
        if not isinstance(name, str):
            raise TypeError(f"the name of a context column must be a string, got {name!r}")
        if name in _RESERVED:
            raise ValueError(f"a context column can't be called {name!r}: rename it")
    return context


def contexts_in(context: Any, n: int) -> dict[str, Context]:
    """Return context columns with the level of each of `n` rows."""
    contexts = {}
    for name, column in named(context).items():
        if not isinstance(column, Context):
            raise TypeError(f"context {name!r} must be a Context, got {type(column).__name__}")
        index = positions_in(column.index, column.ids, n, f"context {name!r}")
        contexts[name] = Context(column.ids, index)
    return contexts


def rows_in(rows: Any, n: int) -> np.ndarray:
    """Return positions or a mask that may pick from `n` rows, as an array."""
    rows = np.asarray(rows)
    if rows.ndim != 1:
        raise IndexError(f"rows must be one-dimensional, got shape {rows.shape}")
    if rows.dtype == bool and len(rows) != n:
        raise IndexError(f"a mask of shape {rows.shape} can't pick from {n} rows")
    return rows.astype(np.int64) if rows.size == 0 else rows


def columns_at(interactions: Any, rows: np.ndarray) -> dict[str, Any]:
    """Return the columns of interactions, by name, in some of their rows."""

    def pick(name: str) -> np.ndarray | None:
        column: np.ndarray | None = getattr(interactions, name)
        return None if column is None else frozen(column[rows])

    names = ("user_index", "item_index", "values", "weights", "timestamps")
    context = {
        name: Context(column.ids, frozen(column.index[rows]))
        for name, column in interactions.context.items()
    }
    return {**{name: pick(name) for name in names}, "context": context}
