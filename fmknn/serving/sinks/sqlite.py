"""An SQLite database, by the standard library."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..topn import TopN
from .base import Run, Writer, columns_of_top, require_folder
from .tables import COLUMNS, KEYS, VIEW, Tables, recording

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLite"]

_MAGIC = b"SQLite format 3\0"
_TYPES = {"small": "INTEGER", "integer": "INTEGER", "text": "TEXT", "number": "REAL"}
_KINDS = {"INTEGER": "integer", "TEXT": "text"}
_PATIENCE = 60.0  # seconds to wait for somebody else's transaction
_ROWS = 50_000  # that are Python objects at a time


@dataclass(frozen=True)
class SQLite:
    """A database in one file; read what is complete from the view ``recommendations``.

    The view has the columns run_id, user_id, item_id, score and rank (from 1). A new run is seen
    when it is complete, in the place of the one before, or with ``append=True`` beside it. Readers
    are never kept waiting: the file is in WAL mode. ``recommendations_runs`` has the manifests:
    model, counts, parameters, times.

    Parameters
    ----------
    path : path-like
        A new file, or one with an SQLite database, in which other tables stay as they are.
    table : str
        Name of the view, with which the names of the tables begin.

    Examples
    --------
    >>> SQLite("recs.db")
    SQLite(path='recs.db', table='recommendations')
    """

    path: Any
    table: str = "recommendations"

    def __post_init__(self) -> None:
        Tables(self.table)

    def check(self) -> None:
        """Refuse a place that can't be written to, or a file that is something else.

        Raises
        ------
        FileNotFoundError, PermissionError, ValueError
        """
        if os.fspath(self.path) == ":memory:":
            raise ValueError("an SQLite database is a file here: name one, such as recs.db")
        path = Path(os.path.realpath(self.path))
        require_folder(path.parent)
        if not path.exists():
            return
        if not path.is_file():
            raise ValueError(f"{self.path} is no ordinary file: name another one")
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{self.path}: no right to write to this database")
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
        if start not in (b"", _MAGIC):
            raise ValueError(f"{self.path} is not an SQLite database: name another file")

    @contextmanager
    def open(self, run: Run) -> Iterator[Writer]:
        """Begin a run, or go on with it.

        Raises
        ------
        ValueError
            For tables of somebody else, repeated users, or a named run of other rows.
        OSError
            What the database fails with: a full disk, a damaged file, a lock that is not given up.
        """
        import sqlite3

        self.check()
        place = os.fspath(self.path)
        try:
            connection = sqlite3.connect(place, timeout=_PATIENCE, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                database = _Connection(connection)
                with recording(database, Tables(self.table), run, place) as recorder:
                    yield recorder
            finally:
                connection.close()
        except sqlite3.OperationalError as error:  # full, locked, read-only
            raise OSError(
                f"{place}: {error}: complete chunks are kept, resume=True goes on after them"
            ) from error
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{place}: {error}: restore it from a copy, or name another file"
            ) from error


class _Connection:
    """What recording needs of SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self, name: str) -> dict[str, str] | None:
        found = self.select("SELECT name, type FROM pragma_table_info(:name)", name=name)
        return {column: _KINDS.get(sql, sql) for column, sql in found} or None

    def create(self, tables: Tables, user_ids: str, item_ids: str) -> None:
        kinds = {**_TYPES, "user": _TYPES[user_ids], "item": _TYPES[item_ids]}
        with self.transaction():
            for name, columns in COLUMNS.items():
                described = [
                    f"{column} {kinds[kind]}{'' if column == 'finished' else ' NOT NULL'}"
                    for column, kind in columns.items()
                ]
                self.change(
                    f"CREATE TABLE IF NOT EXISTS {getattr(tables, name)} ({', '.join(described)}, "
                    f"PRIMARY KEY ({', '.join(KEYS[name])})) WITHOUT ROWID"
                )
            self.change(  # a cross join keeps its order: the few runs first, then by their key
                f'CREATE VIEW IF NOT EXISTS "{tables.view}" AS SELECT {", ".join(VIEW)} '
                f"FROM {tables.runs} CROSS JOIN {tables.rows} USING (run) WHERE state = 'complete'"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # some errors have ended it already
                self._connection.execute("ROLLBACK")
            raise

    def select(self, statement: str, **values: Any) -> Sequence[Sequence[Any]]:
        return self._connection.execute(statement, values).fetchall()

    def change(self, statement: str, **values: Any) -> int:
        return self._connection.execute(statement, values).rowcount

    def insert_rows(self, tables: Tables, run: int, top: TopN) -> None:
        statement = (
            f"INSERT INTO {tables.rows} (run, user_id, rank, item_id, score) VALUES (?, ?, ?, ?, ?)"
        )
        for part in columns_of_top(top, _ROWS):
            columns = (part[name].tolist() for name in ("user", "rank", "item", "score"))
            self._connection.executemany(statement, zip(repeat(run), *columns, strict=False))
