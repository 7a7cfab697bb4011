"""How side columns become features: those of a whole table, and of somebody new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import plain
from .frames import as_column, is_missing
from .history import History
from .rows import SparseRows

__all__ = ["ColumnEncoder", "SideEncoder", "encode_column", "kind_of"]

_KINDS = ("numeric", "categorical", "multi", "history")
_EXPECTED = {
    "numeric": "it is a number",
    "categorical": "it is one level",
    "multi": "it is a list of strings",
    "history": "it is filled from history=, leave it out",
}
_MOST_NAMED = 8  # levels in an error message


@dataclass(frozen=True)
class ColumnEncoder:
    """What a column of the training's feature table says of values to come.

    Attributes
    ----------
    name : str
    kind : {"numeric", "categorical", "multi", "history"}
    levels : ndarray, shape (n_levels,), or None
        What each feature stands for, ascending; None for a numeric column.
    scale : tuple of float
        Of a numeric column: the largest absolute value, and what the values have when divided by
        it: minimum, then mean and standard deviation of what is above that. A deviation of 0
        stands for a constant column, which is no feature.
    """

    name: str
    kind: str
    levels: np.ndarray | None = None
    scale: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)

    @property
    def width(self) -> int:
        """Number of features."""
        return 1 if self.levels is None else len(self.levels)

    @property
    def feature_names(self) -> list[str]:
        """ "column" for a numeric feature, "column=level" for the others."""
        if self.levels is None:
            return [self.name]
        return [f"{self.name}={level}" for level in self.levels]

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return numbers as the standardised feature, float64."""
        largest, least, mean, deviation = self.scale
        if deviation == 0:
            return np.zeros(len(values))
        return (values.astype(np.float64) / largest - least - mean) / deviation

    def encode(self, values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the features of values, encoded exactly as in training.

        Parameters
        ----------
        values : array-like, shape (n,)

        Returns
        -------
        owners, places, values : ndarray, shape (n_entries,)
            Which value each feature is of, the feature, counted within the column, and what it is.

        Raises
        ------
        ValueError
            For a missing value, NaN or infinity, or naming a level that the training did not have.
        TypeError
            For values of another kind than the column's.
        """
        column = as_column(values)
        if not len(column):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        kind = kind_of(self.name, column, self.kind == "categorical")
        if kind != self.kind:
            first = plain(column[0])
            raise TypeError(f"feature {self.name!r} can't be {first!r}: {_EXPECTED[self.kind]}")
        if kind == "numeric":
            with np.errstate(over="ignore"):  # what is infinite is refused
                scaled = self.scaled(column)
            far = np.abs(scaled) > np.finfo(np.float32).max
            if far.any():
                value = plain(column[int(np.argmax(far))])
                raise ValueError(f"feature {self.name!r} is {value!r}: that is far out of range")
            scaled = scaled.astype(np.float32)
            own = np.flatnonzero(scaled)
            return own, np.zeros(len(own), np.int64), scaled[own]
        if kind == "multi":
            sets = [sorted(set(value)) for value in column]
            counts = np.array([len(levels) for levels in sets])
            flat = np.array([level for levels in sets for level in levels], object)
        else:
            counts, flat = np.ones(len(column), np.int64), column
        places = self.places(flat)
        if len(places) and places.min() < 0:
            level = plain(flat[int(np.argmin(places))])
            raise ValueError(f"feature {self.name!r} was never {level!r}: {self._known()}")
        value = 1.0 / np.sqrt(np.repeat(counts, counts))
        return np.repeat(np.arange(len(column)), counts), places, value.astype(np.float32)

    def _known(self) -> str:
        assert self.levels is not None
        some = ", ".join(map(repr, self.levels[:_MOST_NAMED].tolist()))
        return f"leave it out, the training had {some or 'nothing'}" + (
            ", …" if len(self.levels) > _MOST_NAMED else ""
        )

    def places(self, values: Any) -> np.ndarray:
        """Return which levels values are, -1 for one that the training did not have."""
        asked, levels = np.asarray(values), self.levels
        if asked.dtype.kind == "U":
            asked = asked.astype(object)
        nothing = np.full(len(asked), -1, np.int64)
        if levels is None or not len(levels) or (asked.dtype == object) != (levels.dtype == object):
            return nothing
        found = np.minimum(np.searchsorted(levels, asked), len(levels) - 1)
        return np.where(levels[found] == asked, found, nothing)

    def to_state(self, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays, their names beginning with prefix, and JSON settings."""
        settings = {"name": self.name, "kind": self.kind, "scale": list(self.scale)}
        return {} if self.levels is None else {f"{prefix}/levels": self.levels}, settings

    @classmethod
    def from_state(
        cls, state: Mapping[str, np.ndarray], prefix: str, settings: Mapping[str, Any]
    ) -> ColumnEncoder:
        """Rebuild the encoder, trusting nothing.

        Raises
        ------
        ValueError
            Naming the column whose parts do not fit.
        """
        name, kind, scale = settings["name"], settings["kind"], settings["scale"]
        if not isinstance(name, str) or kind not in _KINDS:
            raise ValueError(f"there is a feature {name!r} of the unknown kind {kind!r}")
        numbers = isinstance(scale, list) and all(type(number) is float for number in scale)
        if not numbers or len(scale) != 4 or not np.isfinite(scale).all() or scale[0] == 0:
            raise ValueError(f"feature {name!r} has no valid scale")
        if kind == "numeric":
            return cls(name, kind, None, tuple(scale))
        levels = state[f"{prefix}/levels"]
        kinds = "iubfO" if kind != "multi" else "O"
        if levels.ndim != 1 or (len(levels) and levels.dtype.kind not in kinds):
            raise ValueError(f"the levels of feature {name!r} are no list of names or numbers")
        if not np.all(levels[1:] > levels[:-1]):
            raise ValueError(f"the levels of feature {name!r} are not distinct and ascending")
        return cls(name, kind, levels)


@dataclass(frozen=True)
class SideEncoder:
    """How what is known of a new user or item becomes a row of features.

    Attributes
    ----------
    what : {"user", "item"}
    has_id : bool
        Whether the first feature of each entity of the training is its own id.
    first : int
        The first feature of the columns, which follow on one another.
    n_features : int
        Of the model.
    columns : tuple of ColumnEncoder
    """

    what: str
    has_id: bool
    first: int
    n_features: int
    columns: tuple[ColumnEncoder, ...]

    @property
    def stop(self) -> int:
        """One more than the last feature of the columns."""
        return self.first + sum(column.width for column in self.columns)

    def rows(
        self,
        features: Mapping[str, Any] | None,
        indptr: np.ndarray,
        partners: np.ndarray,
        partner_ids: np.ndarray,
        ids: np.ndarray | None = None,
    ) -> SparseRows:
        """Return the features of new entities.

        Parameters
        ----------
        features : mapping of column to array-like of n values, optional
            What is left out adds nothing.
        indptr, partners : ndarray of int
            The distinct partners of each entity, as positions in ``partner_ids``: what a history
            column holds. Those that met nobody in training do not count.
        partner_ids : ndarray
        ids : ndarray of int, shape (n,), optional
            The feature of each one's own id; default: they have none of yet.

        Returns
        -------
        SparseRows, shape (n, n_features)

        Raises
        ------
        ValueError, TypeError
            For a column, a level or a value that can't be used; it is named.
        """
        given = self._given(features)
        n = len(indptr) - 1
        entity = np.repeat(np.arange(n), np.diff(indptr))
        owners, indices, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
        if ids is not None:
            owners, indices, values = [np.arange(n)], [ids], [np.ones(n)]
        first = self.first
        for column in self.columns:
            if column.kind == "history":
                level = column.places(partner_ids)[partners]
                owner, place = entity[level >= 0], level[level >= 0]
                value = (1 / np.sqrt(np.bincount(owner, minlength=n)[owner])).astype(np.float32)
            elif column.name not in given:
                owner, place, value = _NONE
            else:
                owner, place, value = column.encode(given[column.name])
            owners.append(owner)
            indices.append(first + place)
            values.append(value)
            first += column.width
        owner, index, value = (np.concatenate(parts) for parts in (owners, indices, values))
        order = np.lexsort((index, owner))
        counts = np.bincount(owner, minlength=n)
        return SparseRows(_indptr(counts), index[order], value[order], self.n_features)

    def _given(self, features: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if features is None:
            return {}
        if not isinstance(features, Mapping):
            raise TypeError(
                f"features must be a mapping from column to value, got {type(features).__name__}"
            )
        kinds = {column.name: column.kind for column in self.columns}
        for name in features:
            if name not in kinds:
                known = ", ".join(kinds) or "none"
                raise ValueError(
                    f"the model has no {self.what} feature {name!r}: there are {known}"
                )
            if kinds[name] == "history":
                raise ValueError(f"feature {name!r} {_EXPECTED['history'].removeprefix('it ')}")
        return features


_NONE = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


def encode_column(
    name: str,
    column: np.ndarray | History,
    categorical: bool,
    scale: tuple[float, float, float, float] | None = None,
) -> tuple[SparseRows, ColumnEncoder]:
    """Return the features of a column of the training, and how those of others are made.

    Parameters
    ----------
    name : str
    column : ndarray or History
    categorical : bool
        Whether numbers are categories.
    scale : tuple of float, optional
        Of a numeric column, where an earlier training had one; default: what its values say.

    Raises
    ------
    ValueError, TypeError
        As :func:`kind_of`.
    """
    kind = kind_of(name, column, categorical)
    if isinstance(column, History):
        return column.rows, ColumnEncoder(name, kind, column.levels)
    if kind == "numeric":
        encoder = ColumnEncoder(name, kind, None, scale or _scale(column))
        scaled = encoder.scaled(column)
        own = scaled != 0
        return SparseRows(_indptr(own), np.zeros(own.sum()), scaled[own], 1), encoder
    encode = _encode_categorical if kind == "categorical" else _encode_multi
    rows, levels = encode(column)
    return rows, ColumnEncoder(name, kind, levels)


def _scale(column: np.ndarray) -> tuple[float, float, float, float]:
    values = column.astype(np.float64)
    if not len(values) or values.min() == values.max():  # rounding gives it a deviation too
        return ColumnEncoder.scale
    largest = np.abs(values).max()
    values /= largest  # no overflow below, and no offset that swamps the rest
    least = values.min()
    values -= least
    return float(largest), float(least), float(values.mean()), float(values.std())


def _encode_categorical(column: np.ndarray) -> tuple[SparseRows, np.ndarray]:
    levels, feature = np.unique(column, return_inverse=True)
    ones = np.ones(len(column))
    return SparseRows(np.arange(len(column) + 1), feature, ones, len(levels)), _names(levels)


def _encode_multi(column: np.ndarray) -> tuple[SparseRows, np.ndarray]:
    distinct = [sorted(set(values)) for values in column]
    counts = np.array([len(values) for values in distinct], dtype=np.int64)
    flat = np.array([value for values in distinct for value in values], dtype=object)
    levels, feature = np.unique(flat, return_inverse=True) if len(flat) else (flat, counts[:0])
    values = 1.0 / np.sqrt(np.repeat(counts, counts))
    return SparseRows(_indptr(counts), feature, values, len(levels)), levels


def _names(levels: np.ndarray) -> np.ndarray:
    """Strings of any kind as the objects that a file gives back."""
    return levels.astype(object) if levels.dtype.kind in "UT" else levels


def _indptr(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def kind_of(name: str, column: np.ndarray | History, categorical: bool) -> str:
    """Return what kind of features a column makes, refusing what can't be used.

    Raises
    ------
    ValueError
        For a missing value, NaN or infinity: column and row are named.
    TypeError
        For a column of dates, bytes or mixed types.
    """
    if isinstance(column, History):
        return "history"
    if column.dtype.kind in "fiub":
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column)))
            raise ValueError(
                f"column {name!r} contains NaN or infinity: row {row} is {column[row]}"
            )
        return "categorical" if categorical else "numeric"
    if column.dtype.kind in "UT":
        return "categorical"
    if column.dtype.kind != "O":
        raise TypeError(f"column {name!r} of type {column.dtype} can't be a feature: encode it")
    return _kind_of_objects(name, column)


def _kind_of_objects(name: str, column: np.ndarray) -> str:
    for row, value in enumerate(column):
        if is_missing(value):
            raise ValueError(
                f"column {name!r} has no value in row {row}: give missing ones a level of their own"
            )
    if all(isinstance(value, str) for value in column):
        return "categorical"
    if all(isinstance(value, tuple) for value in column):
        for row, value in enumerate(column):
            if not all(isinstance(one, str) for one in value):
                raise TypeError(f"column {name!r}, row {row}: its values must all be strings")
        return "multi"
    raise TypeError(
        f"column {name!r} mixes types: use strings, numbers, or a list of strings in every row"
    )
