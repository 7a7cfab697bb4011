"""Batch runs into PostgreSQL, on a server that is started for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import postgres
import pytest
from batch_rig import CHUNK, N, rows_of, run, trained
from refusals import refused

from fmknn.cli import main
from fmknn.serving.sinks import SQL

pytestmark = pytest.mark.server
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def socket():
    with postgres.server() as folder:
        yield folder


@pytest.fixture
def database(socket):
    """A fresh database: its address, and a function that asks it."""
    import psycopg

    name = f"db{time.monotonic_ns()}"
    login = {"host": socket, "user": "tester", "password": postgres.PASSWORD}
    with psycopg.connect(**login, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")

    def ask(statement, *values):
        with psycopg.connect(**login, dbname=name) as connection:
            return connection.execute(statement, values).fetchall()

    ask.url = f"postgresql://tester:{quote(postgres.PASSWORD, safe='')}@/{name}?host={socket}"
    return ask


CURRENT = (
    'SELECT user_id, item_id, score, rank FROM recommendations ORDER BY user_id COLLATE "C", rank'
)


def current(ask, kind=int):
    return ask(CURRENT if kind is str else CURRENT.replace(' COLLATE "C"', ""))


@pytest.mark.parametrize("kind", [int, str])
def test_rows_are_those_of_recommend_to_the_bit(database, monkeypatch, kind):
    model = trained(kind)
    run(model, SQL(database.url), monkeypatch, breaks_in=4)
    assert current(database, kind) == []
    assert run(model, SQL(database.url), monkeypatch, resume=True) == 3
    assert current(database, kind) == rows_of(model)


def test_the_driver_that_has_no_copy(database, monkeypatch):
    pytest.importorskip("psycopg2")
    model = trained(str)
    run(model, SQL(database.url.replace("://", "+psycopg2://", 1)), monkeypatch)
    assert current(database, str) == rows_of(model)


def test_scores_of_any_size_keep_every_bit(database):
    from fmknn.data.ids import IdMap
    from fmknn.index.base import Hits
    from fmknn.serving.batch import recommend_all
    from fmknn.serving.topn import TopN

    scores = np.array([[1e308, np.nextafter(0.1, 1), 5e-324, -0.0, -1e-300]])
    ids = np.array([-(2**63), -1, 0, 1, 2**63 - 1])

    def recommend(users, n, **options):
        k = len(users)
        hits = Hits(np.arange(5, dtype=np.int32)[None].repeat(k, 0), scores[:k], np.full(k, 5))
        return TopN.of(users, hits, np.zeros(k), IdMap(ids), lambda top: top.scores)

    facts = {"model": "", "user_ids": "integer", "item_ids": "integer"}
    recommend_all(recommend, ids[-1:], 5, to=SQL(database.url), facts=lambda: facts)
    found = current(database)
    assert [row[1] for row in found] == ids.tolist()
    np.testing.assert_array_equal([row[2] for row in found], scores[0])


def test_the_last_run_is_there_until_the_next_is_complete(database, monkeypatch):
    model, seen = trained(), []
    run(model, SQL(database.url), monkeypatch, n=3)
    recommend = model.recommend

    def watched(users, n, **options):
        seen.append(database("SELECT COUNT(*) FROM recommendations"))
        return recommend(users, n, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "recommend", watched)
        model.recommend_all(N, to=SQL(database.url), chunk=CHUNK)
    assert seen == [[(180,)]] * 8
    assert current(database) == rows_of(model)
    run(model, SQL(database.url), monkeypatch, n=2, run_id="more", append=True)
    assert database("SELECT COUNT(*) FROM recommendations") == [(60 * N + 120,)]
    assert database("SELECT COUNT(DISTINCT run) FROM recommendations_rows") == [(2,)]


def test_two_writers_of_one_run(database, monkeypatch):
    model = trained()
    recommend, calls = model.recommend, []

    def interrupted(users, n, **options):
        calls.append(len(users))
        if len(calls) == 4:  # two chunks are written; now somebody goes on with the same run
            with monkeypatch.context() as patch:
                patch.setattr(model, "recommend", recommend)
                model.recommend_all(N, to=SQL(database.url), chunk=CHUNK, resume=True)
        return recommend(users, n, **options)

    with monkeypatch.context() as patch, refused(ValueError, "another process"):
        patch.setattr(model, "recommend", interrupted)
        model.recommend_all(N, to=SQL(database.url), chunk=CHUNK)
    assert current(database) == rows_of(model)


def test_a_connection_that_is_cut_is_one_line_and_loses_nothing(database, monkeypatch):
    model = trained()
    recommend, calls = model.recommend, []

    def cut(users, n, **options):
        calls.append(len(users))
        if len(calls) == 4:
            database(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return recommend(users, n, **options)

    with monkeypatch.context() as patch, refused(OSError, "postgresql+psycopg://"):
        patch.setattr(model, "recommend", cut)
        model.recommend_all(N, to=SQL(database.url), chunk=CHUNK)
    assert run(model, SQL(database.url), monkeypatch, resume=True) == 5
    assert current(database) == rows_of(model)


def test_a_text_that_postgres_does_not_have(database):
    import fmknn

    log = fmknn.Interactions.from_arrays(["a\0b", "c"], ["x", "y"], [1.0, 2.0])
    model = fmknn.Recommender(fmknn.FMRegressor(2, n_iter=1, random_state=0)).fit(log)
    with refused(OSError, "postgresql"):
        model.recommend_all(1, to=SQL(database.url), exclude_seen=False)


def test_the_command_line_tells_no_password(database, tmp_path, capsys):
    model, path = trained(), str(tmp_path / "m.fmknn")
    model.save(path)
    argv = ["recommend", path, "--all", "-n", str(N), "--to", database.url, "--chunk", "9"]
    assert main([*argv, "--run-id", "monday"]) == 0
    said = capsys.readouterr()
    assert "chunk 7 of 7" in said.err and said.out == ""
    assert current(database) == rows_of(model)
    assert main([*argv, "--table", "no good"]) == 1
    assert main([part.replace("/db", "/no_db") for part in argv]) == 1
    wrong = database.url.replace(quote(postgres.PASSWORD, safe=""), "wr0ng")
    assert main([*argv[:-3], wrong]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("fmknn: error: ") for line in errors)
    told = said.err + "".join(errors) + json.dumps(database("SELECT * FROM recommendations_runs"))
    for secret in (postgres.PASSWORD, quote(postgres.PASSWORD, safe=""), "wr0ng"):
        assert secret not in told


def test_kill_and_resume(database, tmp_path):
    model, path = trained(), str(tmp_path / "m.fmknn")
    model.save(path)
    argv = ["recommend", path, "--all", "-n", str(N), "--to", database.url, "--chunk", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for chunks in (3, 11, 25):
        process = subprocess.Popen(
            [sys.executable, "-m", "fmknn", *argv], stderr=subprocess.PIPE, text=True, env=env
        )
        while f"chunk {chunks} of 30" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert main([*argv, "--resume"]) == 0
        assert current(database) == rows_of(model)
        assert database("SELECT COUNT(*) FROM recommendations_rows") == [(60 * N,)]
