"""IdMap: from the user's own ids to positions 0..n-1 and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from .._checks import plain, refuse_masked
from ..errors import UnknownIdError

__all__ = ["IdMap", "as_ids"]


def as_ids(values: Any, what: str = "id") -> np.ndarray:
    """Return ids as an int64 array or as an object array of str, whichever they are.

    Parameters
    ----------
    values : array-like, one-dimensional
    what : str
        What the ids stand for, for error messages.

    Raises
    ------
    TypeError
        For floats, booleans, None or a mixture, naming the first row without an id or of another
        type.
    ValueError
        If the array is not one-dimensional, or an unsigned id exceeds the range of int64.

    Examples
    --------
    >>> as_ids([3, 1]).dtype.name, as_ids(["b", "a"]).dtype.name
    ('int64', 'object')
    """
    refuse_masked(_ids(what), values)
    array = values if isinstance(values, np.ndarray) else _to_array(values)
    if array.ndim != 1:
        raise ValueError(f"{_ids(what)} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{_ids(what)} beyond the range of int64: turn them into strings")
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "O" or array.dtype.kind == "T":
        return _from_objects(array.astype(object), what)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind == "f" and np.isnan(array).any():  # integers with gaps, most likely
        row = int(np.argmax(np.isnan(array)))
        raise TypeError(f"{_ids(what)} must be integers or strings: row {row} has none")
    raise TypeError(f"{_ids(what)} must be integers or strings, got {array.dtype}: convert them")


def _id(what: str) -> str:
    return what if what == "id" else f"{what} id"


def _ids(what: str) -> str:
    return f"{_id(what)}s"


def _to_array(values: Any) -> np.ndarray:
    if np.isscalar(values):
        raise TypeError(f"expected a sequence of ids, got the single id {plain(values)!r}")
    if hasattr(values, "__array__"):
        return np.asarray(values)
    # np.asarray would turn [1, "a"] into two strings: look at each id's own type instead
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    kinds = {type(value) for value in array}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return array
    if all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        try:
            return array.astype(np.int64)
        except OverflowError:
            raise ValueError(
                f"{_ids(what)} beyond the range of int64: turn them into strings"
            ) from None
    first = array[0]
    same = str if isinstance(first, str) else (int, np.integer)
    for row, value in enumerate(array):
        if not isinstance(value, same) or isinstance(value, bool):
            raise TypeError(
                f"{_ids(what)} must be all integers or all strings: row {row} holds "
                f"{plain(value)!r} of type {type(plain(value)).__name__}"
            )
    raise TypeError(f"{_ids(what)} must be integers or strings")  # pragma: no cover


class IdMap:
    """Distinct external ids; the position of an id is its place among them.

    :meth:`build` puts them in ascending order; those that come later go behind, so that the
    others keep their positions.

    Parameters
    ----------
    ids : array-like, shape (n,)
        Distinct ids, integers or strings.
    what : str
        What the ids stand for ("user", "item", …), for error messages.

    Raises
    ------
    ValueError
        If an id is repeated. Use :meth:`build` for raw ids.

    Examples
    --------
    >>> ids = IdMap.build([196, 22, 196])
    >>> ids.ids
    array([ 22, 196])
    >>> ids.positions([196])
    array([1], dtype=int32)
    """

    def __init__(self, ids: Any, what: str = "id") -> None:
        self.ids = as_ids(ids, what).view()  # the caller's own array stays writable
        self.what = what
        self._order: np.ndarray | None = None  # that sorts them, where they are not
        if len(self.ids) > 1 and not np.all(self.ids[1:] > self.ids[:-1]):
            self._order = np.argsort(self.ids, kind="stable")
            ascending = self.ids[self._order]
            repeated = ascending[1:] == ascending[:-1]
            if repeated.any():
                again = plain(ascending[int(np.argmax(repeated))])
                raise ValueError(
                    f"{_ids(what)} of an IdMap must be distinct: {again!r} is repeated"
                )
        self.ids.flags.writeable = False

    @classmethod
    def build(cls, *arrays: Any, what: str = "id") -> IdMap:
        """Return the map over the union of the given ids.

        Parameters
        ----------
        *arrays : array-like of int or str, shape (n,)
            In any order, repeated or not.
        what : str
            What the ids stand for, for error messages.

        Returns
        -------
        IdMap

        Raises
        ------
        TypeError
            If some are integers and others strings, or some are neither.

        Examples
        --------
        >>> IdMap.build(["b", "a"], ["a", "c"]).ids.tolist()
        ['a', 'b', 'c']
        """
        parts = [part for part in (as_ids(array, what) for array in arrays) if len(part)]
        if not parts:
            return cls(np.empty(0, dtype=np.int64), what)
        if len({part.dtype for part in parts}) > 1:
            raise TypeError(f"{_ids(what)} are integers in one place and strings in another")
        return cls(np.unique(np.concatenate([_distinct(part) for part in parts])), what)

    def extended(self, ids: Any) -> IdMap:
        """Return the map with more ids behind those that are there, which keep their positions.

        Parameters
        ----------
        ids : array-like of int or str, shape (n,)
            In any order, repeated or known or not.

        Returns
        -------
        IdMap
            New ids are in ascending order among themselves; this map where there are none.

        Raises
        ------
        TypeError
            If they are strings where the map has integers, or the other way round.

        Examples
        --------
        >>> IdMap.build([3, 7]).extended([5, 9, 3]).ids
        array([3, 7, 5, 9])
        """
        asked = IdMap.build(ids, what=self.what).ids
        new = asked[self.positions(asked, unknown="mark") < 0]
        return IdMap(np.concatenate([self.ids, new]), self.what) if len(new) else self

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and np.array_equal(self.ids, other.ids)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kind = "int" if self.ids.dtype.kind == "i" else "str"
        return f"IdMap({len(self)} {_ids(self.what)}, {kind})"

    @cached_property
    def _position_of(self) -> dict[Any, int]:
        return {value: position for position, value in enumerate(self.ids)}

    def positions(self, ids: Any, *, unknown: str = "raise") -> np.ndarray:
        """Return the positions of ids.

        Parameters
        ----------
        ids : array-like, shape (n,)
        unknown : {"raise", "mark"}
            "mark" gives -1 for an unknown id.

        Returns
        -------
        ndarray of int32, shape (n,)

        Raises
        ------
        UnknownIdError
            Naming the first unknown id and how many there are.
        TypeError
            If the ids are strings where the map has integers, or the other way round.
        ValueError
            For another value of ``unknown``.
        """
        if unknown not in ("raise", "mark"):
            raise ValueError(f'unknown must be "raise" or "mark", got {unknown!r}')
        asked = as_ids(ids, self.what)
        if len(asked) and len(self) and asked.dtype != self.ids.dtype:
            have, got = ("strings", "integers")
            if self.ids.dtype.kind == "i":
                have, got = got, have
            raise TypeError(
                f"{_ids(self.what)} are {have} here, got {got} (first: {plain(asked[0])!r}): "
                "pass ids of the type used in training"
            )
        found = self._search(asked)
        if unknown == "raise" and len(found) and found.min() < 0:
            missing = asked[found < 0]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UnknownIdError(f"unknown {_id(self.what)} {missing.tolist()[0]!r}{more}")
        return found

    def _search(self, asked: np.ndarray) -> np.ndarray:
        if len(self) == 0:
            return np.full(len(asked), -1, dtype=np.int32)
        if asked.dtype.kind == "i":
            places = np.searchsorted(self.ids, asked, sorter=self._order)
            places = np.minimum(places, len(self) - 1)
            if self._order is not None:
                places = self._order[places]
            return np.where(self.ids[places] == asked, places, -1).astype(np.int32)
        get = self._position_of.get
        return np.fromiter((get(value, -1) for value in asked), np.int32, len(asked))

    def to_state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`from_state` needs, their names beginning with prefix."""
        return {prefix: self.ids}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], prefix: str, what: str = "id") -> IdMap:
        """Rebuild the map from the arrays that :meth:`to_state` gave."""
        return cls(state[prefix], what)


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Sorted distinct ids; a set is far faster than sorting a long object array of strings."""
    if ids.dtype.kind == "i":
        return np.unique(ids)
    distinct = set(ids)
    array = np.empty(len(distinct), dtype=object)
    array[:] = sorted(distinct)
    return array
