"""FeatureTable: the side columns of users or items, and how they become features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from .encoders import ColumnEncoder, encode_column, kind_of
from .frames import as_column, categories_of, columns_of
from .history import History
from .ids import IdMap, as_ids
from .rows import SparseRows

__all__ = ["FeatureTable"]


class FeatureTable:
    """Side columns of one kind of entity, a row per entity.

    Parameters
    ----------
    ids : array-like, shape (n,)
        Distinct external ids, integers or strings.
    columns : mapping of str to array-like of length n
        Strings are categorical, numbers and booleans numeric, lists, tuples or sets of strings
        multi-valued.
    features : sequence of str, optional
        The columns that enter the model (default: all). The others, a title say, are carried along
        as labels.
    categorical : sequence of str
        Numeric columns whose values are categories (a postal code, a year).
    id_feature : bool
        Whether the id is a feature of its own beside the columns.

    Raises
    ------
    ValueError
        For repeated ids, a column of another length, a missing value, NaN or infinity: column and
        row are named.
    TypeError
        For a column of dates, bytes or mixed types.

    Notes
    -----
    A numeric column becomes one feature, standardised to mean 0 and standard deviation 1. A
    categorical column becomes one feature per level. A multi-valued column of m values becomes
    m features of value 1/√m each, so that every field has the same norm however many values it
    holds.

    Examples
    --------
    >>> table = FeatureTable(
    ...     [10, 20],
    ...     {"title": ["Alien", "Big"], "genres": [("Horror", "Sci-Fi"), ("Comedy",)]},
    ...     features=["genres"],
    ... )
    >>> table.row(10)["title"]
    'Alien'
    >>> rows, names = table.encode()
    >>> names
    ['genres=Comedy', 'genres=Horror', 'genres=Sci-Fi']
    """

    def __init__(
        self,
        ids: Any,
        columns: Mapping[str, Any],
        *,
        features: Sequence[str] | None = None,
        categorical: Sequence[str] = (),
        id_feature: bool = True,
    ) -> None:
        self.ids = as_ids(ids)
        self.columns: dict[str, np.ndarray | History] = {
            name: values if isinstance(values, History) else as_column(values)
            for name, values in columns.items()
        }
        self.features = tuple(self.columns) if features is None else tuple(features)
        self.categorical = tuple(categorical)
        self.id_feature = id_feature
        self._scales: dict[str, tuple[float, float, float, float]] = {}  # that are to be kept
        for name in (*self.features, *self.categorical):
            if name not in self.columns:
                raise ValueError(f"no column {name!r}: there are {', '.join(self.columns)}")
        for name, column in self.columns.items():
            if column.shape != (len(self.ids),):
                raise ValueError(
                    f"column {name!r} has shape {column.shape}, expected ({len(self.ids)},): "
                    "one value per id"
                )
        repeated = _first_repeated(self.ids)
        if repeated is not None:
            raise ValueError(f"id {repeated!r} has more than one row of features")
        for name in self.features:
            kind_of(
                name, self.columns[name], name in self.categorical
            )  # refuses what can't be used

    @classmethod
    def from_any(cls, table: Any, what: str, id_column: str | None = None) -> FeatureTable:
        """Return a table from a FeatureTable, a data frame or a mapping of columns.

        Parameters
        ----------
        table : FeatureTable, data frame or mapping
            A frame's columns of a category type are categorical, those of numbers too.
        what : str
            "user" or "item".
        id_column : str, optional
            The column that holds the ids, if there is one of that name; else it is the one called
            "user", "user_id" or "id" (likewise for items).

        Returns
        -------
        FeatureTable
            ``table`` itself if it is one.

        Raises
        ------
        ValueError
            If there is no column of ids, and as for :class:`FeatureTable`.
        TypeError
            If it is none of them, and as for :class:`FeatureTable`.
        """
        if isinstance(table, cls):
            return table
        columns = columns_of(table, f"{what}_features")
        # strings are so anyway: equal tables of them are to be equal, whatever they come from
        categorical = [name for name in categories_of(table) if columns[name].dtype != object]
        names = (what, f"{what}_id", "id")
        found = [id_column] if id_column in columns else [n for n in names if n in columns]
        if not found:
            called = dict.fromkeys([*filter(None, [id_column]), *names])
            raise ValueError(
                f"{what}_features needs a column with the {what} ids, called one of "
                f"{', '.join(called)}: there are {', '.join(columns)}"
            )
        if len(found) > 1:  # one of them is a row number, perhaps: do not guess which
            raise ValueError(
                f"{what}_features has the columns {' and '.join(found)}, either of which could "
                f"hold the {what} ids: drop or rename one, or pass FeatureTable(ids, columns)"
            )
        name = found[0]
        ids = columns.pop(name)
        return cls(ids, columns, categorical=[c for c in categorical if c != name])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> np.ndarray | History:
        return self.columns[name]

    def encodes_like(self, other: FeatureTable | None) -> bool:
        """Whether both tables give the same features: labels do not matter.

        Parameters
        ----------
        other : FeatureTable or None

        Returns
        -------
        bool
            False for None.
        """
        if other is None or (self.features, self.categorical, self.id_feature) != (
            other.features,
            other.categorical,
            other.id_feature,
        ):
            return False
        same_scales = self._scales == other._scales
        return (
            same_scales
            and _equal(self.ids, other.ids)
            and all(_equal(self.columns[name], other.columns[name]) for name in self.features)
        )

    def __repr__(self) -> str:
        return f"FeatureTable({len(self)} rows, columns {', '.join(self.columns)})"

    def row(self, id_: Any) -> dict[str, Any]:
        """Return the columns of one id.

        Parameters
        ----------
        id_ : int or str

        Returns
        -------
        dict of str to value
            By name of the column.

        Raises
        ------
        UnknownIdError
            If the table has no such id.
        TypeError
            For an id that is not of the type of the table's.
        """
        place = int(IdMap.build(self.ids).positions([id_])[0])
        place = int(np.argsort(self.ids, kind="stable")[place])
        return {name: column[place] for name, column in self.columns.items()}

    def with_features(self, *features: str, id_feature: bool = True) -> FeatureTable:
        """Return the same table with other columns entering the model.

        Parameters
        ----------
        *features : str
            Names of the columns; none leaves the id alone.
        id_feature : bool
            Whether the id is a feature too.

        Returns
        -------
        FeatureTable

        Raises
        ------
        ValueError
            If there is no such column, or it has a gap.
        TypeError
            For a column that can't be a feature.
        """
        return self._with(features=features, id_feature=id_feature)

    def with_history(self, name: str, history: History) -> FeatureTable:
        """Return the same table with a history as the last feature.

        Parameters
        ----------
        name : str
            Of the column. A history of that name is replaced.
        history : History
            Its rows in the order of ``ids``.

        Returns
        -------
        FeatureTable

        Raises
        ------
        ValueError
            If there is another column of that name, or for a history of another length.
        """
        if not isinstance(self.columns.get(name, history), History):
            raise ValueError(
                f"there is a column {name!r}, which a history would replace: rename it"
            )
        features = [*(feature for feature in self.features if feature != name), name]
        return self._with(columns={**self.columns, name: history}, features=features)

    def _with(self, **changes: Any) -> FeatureTable:
        names = ("ids", "columns", "features", "categorical", "id_feature")
        table = FeatureTable(**{name: getattr(self, name) for name in names} | changes)
        table._scales = self._scales
        return table

    def without_histories(self) -> FeatureTable:
        """Return the same table without the columns that hold whom each entity met."""
        columns = {
            name: column for name, column in self.columns.items() if not isinstance(column, History)
        }
        features = [name for name in self.features if name in columns]
        return self._with(columns=columns, features=features)

    def extended(self, other: FeatureTable) -> FeatureTable:
        """Return the table with the rows of another one, which replace those of the same ids.

        Numbers are standardised as they were, so that features keep their meaning; categories that
        come new are further features.

        Parameters
        ----------
        other : FeatureTable
            With all columns that are features here. Labels that it has not are None in its rows.

        Returns
        -------
        FeatureTable
            Without histories, which depend on all rows.

        Raises
        ------
        ValueError
            If a feature's column is missing in ``other``, or it has a feature that is not here.
        TypeError
            If ids or values are of another kind there.

        Examples
        --------
        >>> table = FeatureTable([1, 2], {"age": [30, 50]})
        >>> more = table.extended(FeatureTable([3, 1], {"age": [45, 35]}))
        >>> more.ids.tolist(), more["age"].tolist()
        ([2, 3, 1], [50, 45, 35])
        >>> more.encode()[0].values  # by mean and deviation of 30 and 50
        array([ 1. ,  0.5, -0.5], dtype=float32)
        """
        own, other = self.without_histories(), other.without_histories()
        for name in own.features:
            if name not in other.columns:
                there = ", ".join(other.columns) or "none"
                raise ValueError(
                    f"the new rows have no column {name!r}, which is a feature: there are {there}"
                )
        for name in other.features:
            if name not in own.columns:
                there = ", ".join(own.columns) or "none"
                raise ValueError(
                    f"the new rows have a feature {name!r}, which is new: there are {there}"
                )
        kept = np.flatnonzero(IdMap(other.ids).positions(own.ids, unknown="mark") < 0)
        nothing = np.full(len(other), None, object)
        columns = {
            name: _joined(column[kept], other.columns.get(name, nothing))
            for name, column in own.columns.items()
        }
        ids = np.concatenate([own.ids[kept], other.ids]) if len(kept) else other.ids
        return own._with(ids=ids, columns=columns).standardized_as(own.encoders())

    def standardized_as(self, encoders: Sequence[ColumnEncoder]) -> FeatureTable:
        """Return the same table with numbers to be standardised as others were.

        Parameters
        ----------
        encoders : sequence of ColumnEncoder
            Of the columns, by name.

        Returns
        -------
        FeatureTable
        """
        table = self._with()
        table._scales = {one.name: one.scale for one in encoders if one.kind == "numeric"}
        return table

    def align(self, id_map: IdMap) -> FeatureTable:
        """Return the table with one row per id of the map, in its order.

        Parameters
        ----------
        id_map : IdMap

        Returns
        -------
        FeatureTable
            Without the rows of other ids; this table itself where nothing changes.

        Raises
        ------
        ValueError
            If an id of the map has no row here.
        TypeError
            If the ids are strings here and integers there, or the other way round.
        """
        if np.array_equal(self.ids, id_map.ids):
            return self
        own = IdMap.build(self.ids, what=id_map.what)
        places = own.positions(id_map.ids, unknown="mark")
        if len(places) and places.min() < 0:
            missing = id_map.ids[places < 0]
            raise ValueError(
                f"{len(missing)} {id_map.what} id(s) have no row in the feature table, "
                f"the first is {missing.tolist()[0]!r}: add their rows"
            )
        rows = np.argsort(self.ids, kind="stable")[places]
        columns = {name: column[rows] for name, column in self.columns.items()}
        return self._with(ids=id_map.ids, columns=columns)

    def encode(self) -> tuple[SparseRows, list[str]]:
        """Return the features of all rows and the name of each feature.

        Returns
        -------
        rows : SparseRows, shape (n, n_features)
            Without the id.
        names : list of str
            "column" for a numeric feature, "column=level" for the others.
        """
        rows, parts = self.encode_columns()
        return rows, [name for part in parts for name in part]

    def encode_columns(self) -> tuple[SparseRows, list[list[str]]]:
        """Return the features of all rows, and the names of each column's features."""
        encoded = list(self._encoded())
        rows = _side_by_side([rows for rows, _ in encoded], len(self))
        return rows, [encoder.feature_names for _, encoder in encoded]

    def encoders(self) -> tuple[ColumnEncoder, ...]:
        """Return how the columns that enter the model become features."""
        return tuple(encoder for _, encoder in self._encoded())

    def _encoded(self) -> Iterator[tuple[SparseRows, ColumnEncoder]]:
        for name in self.features:
            column, scale = self.columns[name], self._scales.get(name)
            yield encode_column(name, column, name in self.categorical, scale)


def _equal(column: np.ndarray | History, other: np.ndarray | History) -> bool:
    if isinstance(column, History) or isinstance(other, History):
        return isinstance(column, History) and column == other
    return column is other or np.array_equal(column, other)


def _joined(*parts: Any) -> np.ndarray:
    """Return parts of a column as one; a mixture of text and numbers is refused later."""
    parts = tuple(part for part in parts if len(part)) or parts[:1]
    is_text = {part.dtype.kind in "OUT" for part in parts}
    return np.concatenate([part.astype(object) if len(is_text) > 1 else part for part in parts])


def _first_repeated(ids: np.ndarray) -> Any:
    values, counts = np.unique(ids, return_counts=True)
    return values[counts > 1].tolist()[0] if len(values) < len(ids) else None


def _side_by_side(parts: Sequence[SparseRows], n_rows: int) -> SparseRows:
    if not parts:
        return SparseRows(np.zeros(n_rows + 1, np.int64), np.empty(0), np.empty(0), 0)
    if len(parts) == 1:
        return parts[0]
    rows = sp.hstack([part.to_scipy() for part in parts], format="csr")
    return SparseRows(rows.indptr, rows.indices, rows.data, rows.shape[1])
