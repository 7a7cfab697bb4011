"""OnDisk: how interactions come to be in a folder, to train on more of them than memory holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .sides import table_in

if TYPE_CHECKING:
    from .interactions import Interactions
    from .stored import SortedCopies

__all__ = ["OnDisk"]

_MEMORY_LIMIT = "2GB"


class OnDisk:
    """Interactions that may be in a folder; they are what others are, but not in memory."""

    _sorted: SortedCopies | None = None

    @property
    def sorted_copies(self) -> SortedCopies | None:
        """The copies on disk for training, if these interactions have any."""
        copies = self._sorted
        return copies if copies is not None and copies.are_of(self) else None

    @classmethod
    def from_parquet(
        cls,
        path: Any,
        folder: str | os.PathLike[str],
        *,
        user: str,
        item: str,
        value: str | None = None,
        weight: str | None = None,
        timestamp: str | None = None,
        context: Sequence[str] = (),
        user_features: Any = None,
        item_features: Any = None,
        memory_limit: str = _MEMORY_LIMIT,
    ) -> Interactions:
        """Build interactions in a folder from Parquet files that may be larger than memory.

        Parameters
        ----------
        path : path-like, pattern, or list of these
            A file, a folder of ``*.parquet`` files, or a pattern such as "log/2024-*.parquet";
            files are taken in the order of their names, those of a list in its own.
        folder : path-like
            A folder that does not exist yet. With c columns of ids, and m of values and weights,
            it takes 4 (c + m) + 4 c (c - 1 + m) bytes a row: 28 for users, items and values.
        user, item, value, weight, timestamp : str
            Names of columns.
        context : sequence of str
            Names of the context columns.
        user_features, item_features : FeatureTable, data frame or mapping, optional
            As in :meth:`from_frame`. They stay in memory, the folder does not hold them.
        memory_limit : str
            How much memory sorting may take: "2GB", "500MB".

        Returns
        -------
        Interactions
            Read-only memory maps, which are taken wherever interactions are. By solver="als" and
            solver="mcmc" with the squared loss they are trained on a part at a time, with the same
            result, bit by bit, as in memory; other solvers read the columns as they need them.

        Raises
        ------
        MissingExtraError
            If DuckDB or pyarrow is not installed: the extra is ``fmknn[disk]``.
        FileExistsError
            If there is something at ``folder``: :meth:`open` it, or remove it first.
        FileNotFoundError
            If there are no files, or no folder for the folder.
        ValueError, TypeError
            For rows that :meth:`from_frame` refuses: the first such row is named, counted over
            all files.
        OSError
            If there is no room for sorting.

        Examples
        --------
        >>> import os, tempfile
        >>> import fmknn, pyarrow, pyarrow.parquet
        >>> table = pyarrow.table({"who": [1, 1, 2], "what": ["a", "b", "a"], "stars": [5, 3, 4]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = os.path.join(folder, "log.parquet")
        ...     pyarrow.parquet.write_table(table, log)
        ...     fmknn.Interactions.from_parquet(
        ...         log, os.path.join(folder, "prepared"), user="who", item="what", value="stars"
        ...     )
        Interactions(3 rows, 2 users, 2 items, values)
        """
        from .columns import named
        from .external_sort import require_sort
        from .parquet_columns import ParquetRows, parquet_files, write_columns
        from .stored import finish, new_folder

        contexts = [context] if isinstance(context, str) else list(context)
        named(dict.fromkeys(contexts))
        require_sort(memory_limit)
        tables = {
            "user": table_in(user_features, "user", user),
            "item": table_in(item_features, "item", item),
        }
        numbers = {"values": value, "weights": weight, "timestamps": timestamp}
        rows = ParquetRows(
            parquet_files(path),
            [("user", user), ("item", item), *((name, name) for name in contexts)],
            {name: column for name, column in numbers.items() if column is not None},
        )
        more_ids = {what: table.ids for what, table in tables.items() if table is not None}
        with new_folder(folder) as part:
            finish(cls, part, write_columns(rows, part, more_ids), memory_limit)
        return cls.open(folder).replace(user_features=tables["user"], item_features=tables["item"])

    def store(
        self, folder: str | os.PathLike[str], *, memory_limit: str = _MEMORY_LIMIT
    ) -> Interactions:
        """Write these interactions to a folder, to train on them from disk.

        Parameters
        ----------
        folder : path-like
            One that does not exist yet.
        memory_limit : str
            As of :meth:`from_parquet`.

        Returns
        -------
        Interactions
            The same rows, in the folder. Feature tables stay in memory and are not written.

        Raises
        ------
        MissingExtraError, FileExistsError, FileNotFoundError, OSError
            As :meth:`from_parquet`.
        ValueError
            If there are no rows.

        Examples
        --------
        >>> import os, tempfile
        >>> import fmknn
        >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
        >>> model = fmknn.FMRegressor(n_factors=2, solver="als", random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stored = ratings.store(os.path.join(folder, "ratings"))
        ...     from_disk = model.fit(stored).predict(ratings)
        >>> bool((from_disk == model.fit(ratings).predict(ratings)).all())
        True
        """
        from .external_sort import require_sort
        from .stored import store

        if not len(self):  # type: ignore[arg-type]
            raise ValueError("there are no interactions to store: the data is empty")
        store(self, folder, require_sort(memory_limit))
        kept = ("user_features", "item_features", "frame_library")
        return self.open(folder).replace(**{name: getattr(self, name) for name in kept})

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Interactions:
        """Return the interactions of a folder that :meth:`store` or :meth:`from_parquet` made.

        Parameters
        ----------
        folder : path-like

        Returns
        -------
        Interactions
            Without feature tables: ``.replace(user_features=…)`` adds them.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If it holds something else, is damaged, or was made by another version.
        """
        from .stored import open_folder

        interactions, copies = open_folder(cls, folder)
        vars(interactions)["_sorted"] = copies  # past the frozen __setattr__
        return interactions
