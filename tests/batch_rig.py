"""What tests of batch runs share: a small model, places, and how to read them back by hand."""

from __future__ import annotations

import functools
import sqlite3

import numpy as np
import pyarrow.parquet

import fmknn
from fmknn.serving.sinks import SQL, ParquetFolder, SQLite

N, CHUNK = 7, 9  # 60 users are seven chunks, the last one shorter


@functools.cache
def trained(kind=int, seed=0):
    """A model of 60 users and 40 items, with integers or texts as ids."""
    drawn = fmknn.datasets.make_interactions(
        60, 40, 900, random_state=0, return_truth=False
    ).without_features()
    users, items = drawn.user_ids, drawn.item_ids
    if kind is str:  # what a format might trip over
        users = [f"ü\t{id:03}\\n'" for id in users]
        items = [f'item "{id}"\n%s\\.' for id in items]
    log = fmknn.Interactions.from_arrays(users, items, drawn.values)
    return fmknn.Recommender(fmknn.FMRegressor(4, n_iter=1, random_state=seed)).fit(log)


def rows_of(model, n=N, users=None, **options):
    """The rows that should be written, in their order, by plain Python."""
    users = model.users.ids if users is None else users
    return [
        (user, item, score, rank)
        for user, pairs in model.recommend(users, n, **options)
        for rank, (item, score) in enumerate(pairs, start=1)
    ]


def in_order(table):
    columns = [table.column(name).to_pylist() for name in ("user", "item", "score", "rank")]
    return list(zip(*columns, strict=True))


class Parquet:
    name = "recs.parquet"

    def sink(self, folder, **options):
        return ParquetFolder(folder / self.name, **options)

    def rows(self, folder):
        """The rows of the place, or None where nothing is."""
        if not (folder / self.name).is_dir():
            return None
        parts = sorted((folder / self.name).glob("*.parquet"))
        return [row for part in parts for row in in_order(pyarrow.parquet.read_table(part))]


class Database:
    name = "recs.db"
    view = "SELECT user_id, item_id, score, rank FROM {} ORDER BY run_id, user_id, rank"

    def rows(self, folder, table="recommendations"):
        if not (folder / self.name).exists():
            return None
        found = self.ask(folder, "SELECT 1 FROM sqlite_master WHERE name = ?", table.strip('"'))
        return self.ask(folder, self.view.format(table)) if found else None

    def ask(self, folder, statement, *values):
        connection = sqlite3.connect(folder / self.name)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()


class Lite(Database):
    def sink(self, folder, **options):
        return SQLite(folder / self.name, **options)


class Alchemy(Database):
    """SQLAlchemy on SQLite: the statements that go to a server, without one."""

    def sink(self, folder, **options):
        return SQL(f"sqlite+pysqlite:///{folder / self.name}", **options)


class Breaking:
    """recommend, until the power goes in the given call."""

    def __init__(self, recommend, last):
        self.recommend, self.left, self.calls = recommend, last, 0

    def __call__(self, users, n, **options):
        if len(users):
            self.calls += 1
            if self.left == 0:
                raise OSError("no more power")
            self.left -= 1
        return self.recommend(users, n, **options)


def run(model, sink, monkeypatch, n=N, breaks_in=None, chunk=CHUNK, **options):
    """recommend_all; it breaks in chunk ``breaks_in``. Return how many chunks were computed."""
    breaking = Breaking(model.recommend, np.inf if breaks_in is None else breaks_in)
    with monkeypatch.context() as patch:
        patch.setattr(model, "recommend", breaking)
        try:
            n_users = model.recommend_all(n, to=sink, chunk=chunk, **options)
        except OSError as error:
            assert breaks_in is not None and str(error) == "no more power"
        else:
            assert breaks_in is None and n_users == len(options.get("users", model.users.ids))
    return breaking.calls
