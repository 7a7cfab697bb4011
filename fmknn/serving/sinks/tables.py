"""Runs in the tables of a database: what SQLite and all other databases have in common.

There are three tables and a view, named after it::

    recommendations         view of complete runs: run_id, user_id, item_id, score, rank
    recommendations_rows    run, user_id, rank, item_id, score
    recommendations_chunks  run, chunk, n_users, n_rows, seconds
    recommendations_runs    run, run_id, state, model, parameters, counts, times

A chunk's rows, its row in the table of chunks and the counts of its run are one transaction. So is
the change from one run to the next: whoever reads the view sees the last complete run until then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..._checks import plain
from ..manifest import fmknn_version, new_run_id, utc_now
from ..topn import TopN
from .base import Run, fits

__all__ = ["COLUMNS", "KEYS", "VIEW", "Database", "Tables", "recording"]

# kinds of columns; "user" and "item" are as the ids are, "integer" or "text"
COLUMNS = {
    "rows": {
        "run": "small",
        "user_id": "user",
        "rank": "small",
        "item_id": "item",
        "score": "number",
    },
    "chunks": {
        "run": "small",
        "chunk": "small",
        "n_users": "integer",
        "n_rows": "integer",
        "seconds": "number",
    },
    "runs": {
        "run": "small",
        "run_id": "text",
        "state": "text",
        "model": "text",
        "parameters": "text",
        "fmknn_version": "text",
        "started": "text",
        "finished": "text",
        "seconds": "number",
        "n_users": "integer",
        "n_rows": "integer",
        "n_chunks": "small",
    },
}
KEYS = {"rows": ("run", "user_id", "rank"), "chunks": ("run", "chunk"), "runs": ("run",)}
VIEW = ("run_id", "user_id", "item_id", "score", "rank")


@dataclass(frozen=True)
class Tables:
    """Names of the tables and of the view.

    Parameters
    ----------
    view : str

    Raises
    ------
    ValueError
        For a name that would need quotes.
    """

    view: str

    def __post_init__(self) -> None:
        if not isinstance(self.view, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,49}", self.view):
            raise ValueError(
                f"table must be a name of small letters, digits and underscores, got {self.view!r}"
            )

    @property
    def rows(self) -> str:
        """The recommendations of all runs."""
        return f"{self.view}_rows"

    @property
    def chunks(self) -> str:
        """The chunks that are written."""
        return f"{self.view}_chunks"

    @property
    def runs(self) -> str:
        """The runs."""
        return f"{self.view}_runs"


class Database(Protocol):
    """A connection; statements have ``:name`` for values."""

    def columns(self, name: str) -> dict[str, str] | None:
        """Return the kinds of a table's columns by their names, None if there is no such table."""
        ...

    def create(self, tables: Tables, user_ids: str, item_ids: str) -> None:
        """Create what is not there of the tables and the view, for "integer" or "text" ids."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Do what is done within entirely or not at all."""
        ...

    def select(self, statement: str, **values: Any) -> Sequence[Sequence[Any]]:
        """Return the rows that a statement selects."""
        ...

    def change(self, statement: str, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    def insert_rows(self, tables: Tables, run: int, top: TopN) -> None:
        """Insert the recommendations of a chunk."""
        ...


@contextmanager
def recording(database: Database, tables: Tables, run: Run, place: str) -> Iterator[_Recorder]:
    """Begin a run or go on with it; when the context ends without an error it is the current one.

    Raises
    ------
    ValueError
        For tables of somebody else, ids of another type, users that are repeated, or a run that
        does not fit.
    """
    _require_distinct(run.users)
    _require_ours(database, tables, run.parameters, place)
    database.create(tables, run.parameters["user_ids"], run.parameters["item_ids"])
    recorder = _Recorder.begin(database, tables, run, place)
    yield recorder
    recorder.finish()


class _Recorder:
    """Writes the chunks of one run."""

    def __init__(
        self, database: Database, tables: Tables, run: Run, place: str, state: Mapping[str, Any]
    ) -> None:
        self.n_chunks: int = state["n_chunks"]
        self.n_users: int = state["n_users"]
        self._number, self._run_id, self._state = state["run"], state["run_id"], state["state"]
        self._database, self._tables, self._place = database, tables, place
        self._append = run.append

    @classmethod
    def begin(cls, database: Database, tables: Tables, run: Run, place: str) -> _Recorder:
        with database.transaction():
            state = _to_go_on_with(_runs(database, tables), run, place) if run.resume else None
            if state is None:
                state = _begun(database, tables, run)
        recorder = cls(database, tables, run, place, state)
        recorder._sweep()
        return recorder

    def write(self, top: TopN, seconds: float) -> None:
        counts = {"n_users": len(top), "n_rows": int(top.counts.sum()), "seconds": seconds}
        with self._database.transaction():
            self._count(counts)
            self._database.insert_rows(self._tables, self._number, top)
            self._database.change(
                f"INSERT INTO {self._tables.chunks} (run, chunk, n_users, n_rows, seconds) "
                "VALUES (:run, :chunk, :n_users, :n_rows, :seconds)",
                run=self._number,
                chunk=self.n_chunks,
                **counts,
            )
        self.n_chunks += 1
        self.n_users += len(top)

    def _count(self, counts: Mapping[str, Any]) -> None:
        """Add to the counts of the run; that locks it, and shows if it is still ours."""
        changed = self._database.change(
            f"UPDATE {self._tables.runs} SET n_chunks = n_chunks + 1, "
            "n_users = n_users + :n_users, n_rows = n_rows + :n_rows, "
            "seconds = seconds + :seconds "
            "WHERE run = :run AND state = 'unfinished' AND n_chunks = :n_chunks",
            run=self._number,
            n_chunks=self.n_chunks,
            **counts,
        )
        self._require_ours(changed)

    def _require_ours(self, changed: int) -> None:
        if changed != 1:
            raise ValueError(
                f"{self._place}: another process has begun a run or gone on with run "
                f"{self._run_id!r}: let only one write to a place"
            )

    def finish(self) -> None:
        if self._state == "complete":  # it was before
            return
        replaced = "state = 'complete'" + (" AND run_id = :run_id" if self._append else "")
        values = {"run_id": self._run_id} if self._append else {}
        with self._database.transaction():
            self._database.change(
                f"UPDATE {self._tables.runs} SET state = 'replaced' WHERE {replaced}", **values
            )
            changed = self._database.change(
                f"UPDATE {self._tables.runs} SET state = 'complete', finished = :finished "
                "WHERE run = :run AND state = 'unfinished'",
                finished=utc_now(),
                run=self._number,
            )
            self._require_ours(changed)
        self._sweep()

    def _sweep(self) -> None:
        """Remove runs that others have replaced: nobody sees them any more."""
        with self._database.transaction():
            gone = self._database.select(
                f"SELECT run FROM {self._tables.runs} WHERE state = 'replaced'"
            )
            for (run,) in gone:
                for table in (self._tables.rows, self._tables.chunks, self._tables.runs):
                    self._database.change(f"DELETE FROM {table} WHERE run = :run", run=run)


def _runs(database: Database, tables: Tables) -> list[dict[str, Any]]:
    names = ("run", "run_id", "state", "parameters", "n_chunks", "n_users")
    found = database.select(
        f"SELECT {', '.join(names)} FROM {tables.runs} WHERE state <> 'replaced' ORDER BY run"
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def _to_go_on_with(runs: list[dict[str, Any]], run: Run, place: str) -> dict[str, Any] | None:
    """Return an unfinished run, or a complete one that this run would repeat, or None."""
    own = [one for one in reversed(runs) if run.run_id in (None, one["run_id"])]
    for one in sorted(own, key=lambda one: one["state"], reverse=True):  # unfinished, complete
        parameters, complete = json.loads(one["parameters"]), one["state"] == "complete"
        if fits(run, one["run_id"], parameters, place, complete=complete):
            return one
    return None


def _begun(database: Database, tables: Tables, run: Run) -> dict[str, Any]:
    """Start anew; unfinished runs that this one makes void are given up."""
    run_id = run.run_id or new_run_id()
    void = "state = 'unfinished'" + (" AND run_id = :run_id" if run.append else "")
    database.change(
        f"UPDATE {tables.runs} SET state = 'replaced' WHERE {void}",
        **({"run_id": run_id} if run.append else {}),
    )
    [[last]] = database.select(f"SELECT MAX(run) FROM {tables.runs}")
    state = {
        "run": 1 if last is None else last + 1,
        "run_id": run_id,
        "state": "unfinished",
        "model": run.parameters["model"],
        "parameters": json.dumps(run.parameters),
        "fmknn_version": fmknn_version(),
        "started": utc_now(),
        "finished": None,
        "seconds": 0.0,
        "n_users": 0,
        "n_rows": 0,
        "n_chunks": 0,
    }
    values = ", ".join(f":{name}" for name in state)
    database.change(f"INSERT INTO {tables.runs} ({', '.join(state)}) VALUES ({values})", **state)
    return state


def _require_ours(
    database: Database, tables: Tables, parameters: Mapping[str, Any], place: str
) -> None:
    """Refuse tables of these names that hold something else."""
    wanted: dict[str, Any] = {getattr(tables, name): columns for name, columns in COLUMNS.items()}
    for name, columns in (*wanted.items(), (tables.view, VIEW)):
        found = database.columns(name)
        if found is not None and set(found) != set(columns):
            raise ValueError(
                f"{place} has a table {name} that is not of fmknn: choose other names by table=…"
            )
    found = database.columns(tables.rows) or {}
    for what in ("user", "item"):
        kind = parameters[f"{what}_ids"]
        if found and found[f"{what}_id"] != kind:
            raise ValueError(
                f"{place}: {what} ids in table {tables.rows} are of another type than {kind}: "
                "choose other names by table=…"
            )


def _require_distinct(users: np.ndarray) -> None:
    """Refuse users that are asked for twice: a run has one list for each."""
    if np.all(users[1:] > users[:-1]):  # as a vocabulary is, without the work of sorting
        return
    ids, counts = np.unique(users, return_counts=True)
    if counts.max(initial=1) > 1:
        culprit = plain(ids[int(np.argmax(counts > 1))])
        raise ValueError(
            f"user id {culprit!r} is asked for twice, and a run has one list per user in a "
            "database: make a run of its own for each situation, with append=True"
        )
