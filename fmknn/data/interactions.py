"""Interactions: who met what, when, how much, in which context; the one data object."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._checks import require_bool, require_number
from .._random import seed_sequence
from .columns import Context, columns_at, frozen, named, rows_in
from .features import FeatureTable
from .frames import columns_of, library_of
from .ids import IdMap
from .negatives import draw_negatives, ratio_in
from .on_disk import OnDisk
from .recency import recency_weights
from .sides import checked_parts, index_of, table_in, table_with_history

__all__ = ["Context", "Interactions"]


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions(OnDisk):
    """Events between users and items, with their vocabularies and feature tables.

    Build one with :meth:`from_arrays` or :meth:`from_frame`; the parts of a split share the
    vocabularies of the whole. Whichever way it is made, its columns are checked, copied if they
    can be written to, and read-only from then on.

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
    frame_library : {"pandas", "polars", "pyarrow"} or None
        What :meth:`from_frame` was given; answers go out as frames of the same kind.

    Raises
    ------
    ValueError
        For columns of different length, positions outside the vocabulary, NaN or infinity,
        weights that are negative or all zero (the row is named), or a feature table without a row
        for some id.
    TypeError
        For a column of another type.

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
    frame_library: str | None = None

    def __post_init__(self) -> None:
        vars(self).update(checked_parts(self))  # past the frozen __setattr__

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

        Returns
        -------
        Interactions

        Raises
        ------
        ValueError
            If there are no rows, and as for :class:`Interactions`.
        TypeError
            For ids that are neither integers nor strings.
        """
        user_table = table_in(user_features, "user")
        item_table = table_in(item_features, "item")
        user_map, user_index = index_of(users, "user", user_table)
        item_map, item_index = index_of(items, "item", item_table)
        if len(user_index) == 0:
            raise ValueError("there are no interactions: the data is empty")
        return cls(
            users=user_map,
            items=item_map,
            user_index=user_index,
            item_index=item_index,
            values=values,
            weights=weights,
            timestamps=timestamps,
            context={
                name: Context(*index_of(column, name, None))
                for name, column in named({} if context is None else context).items()
            },
            user_features=user_table,
            item_features=item_table,
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

        Returns
        -------
        Interactions

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

        interactions = cls.from_arrays(
            columns[user],
            columns[item],
            column(value),
            weights=column(weight),
            timestamps=column(timestamp),
            context={name: columns[name] for name in context},
            user_features=table_in(user_features, "user", user),
            item_features=table_in(item_features, "item", item),
        )
        return interactions._with({"frame_library": library_of(frame)})

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
        """Return a copy with some attributes changed, checked like any other.

        Parameters
        ----------
        **changes
            New attributes, by name. A feature table may have its rows in any order; those of ids
            outside the vocabulary are left out.

        Returns
        -------
        Interactions

        Raises
        ------
        ValueError, TypeError
            As for :class:`Interactions`; TypeError for a name that is no attribute too.
        """
        changed = dataclasses.replace(self, **changes)
        vars(changed)["_sorted"] = self._sorted  # of use as long as the columns are the same
        return changed

    def without_features(self) -> Interactions:
        """Return the same rows with ids (and contexts) as the only features.

        Returns
        -------
        Interactions
            The tables stay as labels: titles are still at hand.
        """
        tables = {"user_features": self.user_features, "item_features": self.item_features}
        return self._with(
            {
                name: None if table is None else table.with_features()
                for name, table in tables.items()
            }
        )

    def with_history(self, *, users: bool = True, items: bool = True) -> Interactions:
        """Return the same rows with whom each user and item met as one more feature column.

        Call it on the training rows: only the rows at hand are in the histories. Test rows get the
        same features by ``test.with_features_of(train)``.

        Parameters
        ----------
        users : bool
            Whether users get a column "items": 1/√n for each of their n distinct items.
        items : bool
            Whether items get a column "users": 1/√n for each of their n distinct users.

        Returns
        -------
        Interactions
            The column is the last one of the feature table, which has only the id where there was
            none. Ids without a row have an empty history. A history that was there is made anew.

        Raises
        ------
        ValueError
            If a table has a column of that name which is no history, or for neither side.

        Notes
        -----
        Histories of users bring the terms of SVD++ [1]_ into a factorization machine [2]_ [3]_.
        As there, the history of a training row's user holds that row's own item.

        References
        ----------
        .. [1] Y. Koren. Factorization Meets the Neighborhood: A Multifaceted Collaborative
           Filtering Model. KDD 2008.
        .. [2] S. Rendle. Factorization Machines. ICDM 2010.
        .. [3] S. Rendle. Factorization Machines with libFM. ACM TIST 3(3), 2012.

        Examples
        --------
        >>> log = Interactions.from_arrays(["ann", "ann", "bob"], [3, 9, 9]).with_history()
        >>> log.user_features.row("ann"), log.item_features.row(9)
        ({'items': (3, 9)}, {'users': ('ann', 'bob')})
        """
        user, item = (self.users, self.user_index), (self.items, self.item_index)
        tables = {}
        if require_bool("users", users):
            tables["user_features"] = table_with_history(self.user_features, "items", user, item)
        if require_bool("items", items):
            tables["item_features"] = table_with_history(self.item_features, "users", item, user)
        if not tables:
            raise ValueError("users and items are both False: there is no history to add")
        return self._with(tables)

    def with_recency(self, power: float = 1.0) -> Interactions:
        """Return the same rows with weights that fall with age, user by user.

        Call it on the training rows, where what a user will take next is to be foreseen: what is
        recent says more of it.

        Parameters
        ----------
        power : float
            A row after which its user was there at m later times gets the weight (1 + m)**-power,
            times the weight it had; all are then scaled to a mean of 1. At 0 age does
            not count.

        Returns
        -------
        Interactions
            ``fmknn.WholeData(count_power=1.0)`` takes these weights as they are.

        Raises
        ------
        ValueError
            Without timestamps, or for a power that is no number from 0 to 10.

        Examples
        --------
        >>> log = Interactions.from_arrays([1, 1, 1], [7, 8, 9], timestamps=[10, 30, 30])
        >>> log.with_recency().weights
        array([0.6, 1.2, 1.2], dtype=float32)
        """
        if self.timestamps is None:
            raise ValueError("with_recency needs timestamps; these interactions have none")
        require_number("power", power, 10.0)
        weights = recency_weights(self.user_index, self.timestamps, self.weights, float(power))
        return self.replace(weights=weights)

    def with_features_of(self, other: Interactions) -> Interactions:
        """Return the same rows with the feature tables of others: those of training, for a test.

        Parameters
        ----------
        other : Interactions
            It knows all users and items that these know, as the parts of a split do.

        Returns
        -------
        Interactions

        Raises
        ------
        ValueError
            If a user or an item has no row in a table of ``other``.
        TypeError
            If it is something else.
        """
        if not isinstance(other, Interactions):
            raise TypeError(f"other must be Interactions, got {type(other).__name__}")
        return self.replace(user_features=other.user_features, item_features=other.item_features)

    def with_negatives(self, ratio: float = 1.0, *, random_state: Any = None) -> Interactions:
        """Return the rows with values of 1, and pairs without a row, drawn at random, with 0.

        They turn purchases and clicks into what a classifier learns from. Call it on the training
        rows: what is drawn depends on the rows at hand alone.

        Parameters
        ----------
        ratio : float
            Negatives per row. A user with m rows gets `ratio` m of them, rounded, all different
            items; fewer where that many other items do not occur.
        random_state : int, numpy Generator, SeedSequence or None

        Returns
        -------
        Interactions
            All rows in their order, then the negatives in the order of the rows that they were
            drawn for, whose contexts, weights and timestamps they have. The values that there
            were are gone: each row counts as a 1.

        Raises
        ------
        ValueError
            If `ratio` is no number of at least 0.

        Notes
        -----
        An item is drawn for a user from those that occur in some row, but in none of the user's,
        whatever its context; each set of them is as likely as any other.

        Examples
        --------
        >>> log = Interactions.from_arrays(["ann", "ann", "bob"], [3, 9, 9])
        >>> both = log.with_negatives(random_state=0)
        >>> both.user_ids.tolist(), both.item_ids.tolist(), both.values.tolist()
        (['ann', 'ann', 'bob', 'bob'], [3, 9, 9, 3], [1.0, 1.0, 1.0, 0.0])
        """
        generator = np.random.default_rng(seed_sequence(random_state))
        rows, items = draw_negatives(self.user_index, self.item_index, ratio_in(ratio), generator)
        n = len(self)
        return self.take(np.concatenate([np.arange(n), rows]))._with(
            {
                "item_index": frozen(np.concatenate([self.item_index, items])),
                "values": frozen(np.repeat(np.array([1, 0], np.float32), [n, len(rows)])),
            }
        )

    def take(self, rows: Any) -> Interactions:
        """Return some of the rows, with the same vocabularies.

        Parameters
        ----------
        rows : array-like of int or bool
            Positions, in the order wanted, or a mask of all rows.

        Returns
        -------
        Interactions
            Without any row too, if that is what ``rows`` says.

        Raises
        ------
        IndexError
            For positions out of range, a mask of another length, or what is neither.
        """
        return self._with(columns_at(self, rows_in(rows, len(self))))

    def _with(self, changes: Mapping[str, Any]) -> Interactions:
        """A copy with changes that were made from what has been checked already."""
        part = copy.copy(self)
        vars(part).update(changes)
        return part
