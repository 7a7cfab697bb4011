"""Batch runs into Parquet folders and databases: whole, resumable, in the place of the last one."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
from batch_rig import CHUNK, Alchemy, Lite, N, Parquet, rows_of, run, trained
from refusals import refused

import fmknn
from fmknn.errors import MissingExtraError, UnknownIdError
from fmknn.serving.manifest import fingerprint, model_facts, options_given
from fmknn.serving.sinks import SQL, JsonLines, ParquetFolder, SQLite, sink_for

ROOT = Path(__file__).parent.parent
PLACES = [Parquet(), Lite(), Alchemy()]
every_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
databases = pytest.mark.parametrize("place", PLACES[1:], ids=lambda place: type(place).__name__)
parquet_and_sqlite = pytest.mark.parametrize("place", PLACES[:2], ids=["Parquet", "Lite"])


@pytest.fixture
def go(tmp_path, monkeypatch):
    """``go(model, place, …)`` runs recommend_all into the test's folder; see batch_rig.run."""

    def call(model, place, table=None, **options):
        named = {} if table is None else {"table": table}
        return run(model, place.sink(tmp_path, **named), monkeypatch, **options)

    return call


# --- the rows ---------------------------------------------------------------------------------


@every_place
@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("chunk", [CHUNK, 60, 1000])
def test_rows_are_those_of_recommend_to_the_bit(tmp_path, go, place, kind, chunk):
    go(trained(kind), place, chunk=chunk)
    assert place.rows(tmp_path) == rows_of(trained(kind))


@every_place
@pytest.mark.parametrize("kind", [int, str])
def test_short_and_empty_lists(tmp_path, go, place, kind):
    model = trained(kind)
    options = {"candidates": model.items.ids[:12]}
    assert len(set(np.diff(np.unique(model.recommend(model.users.ids, N, **options).counts)))) > 0
    go(model, place, **options)
    assert place.rows(tmp_path) == rows_of(model, **options)
    go(model, place, candidates=model.items.ids[:0])
    assert place.rows(tmp_path) == []


@every_place
def test_nobody(tmp_path, go, place):
    go(trained(), place, users=[])
    assert place.rows(tmp_path) == []


def test_nobodys_folder_has_columns(tmp_path, go):
    go(trained(str), Parquet(), users=[])
    schema = pyarrow.dataset.dataset(tmp_path / "recs.parquet").schema
    assert [str(field.type) for field in schema] == ["string", "string", "double", "int32"]


@every_place
def test_options_reach_recommend(tmp_path, go, place):
    model = trained()
    users = model.users.ids[::-2]
    options = {"exclude_seen": False, "exclude": {users[0]: model.items.ids[:30]}}
    go(model, place, users=users, **options)
    expected = rows_of(model, users=users, **options)
    if place.name.endswith(".db"):  # which has no order but that of the key
        expected.sort(key=lambda row: (row[0], row[3]))
    assert place.rows(tmp_path) == expected


def test_items_that_are_left_out_for_all(tmp_path, go):
    model = trained()
    best = model.recommend(model.users.ids, 3)
    sold_out = np.unique(best.items)[:20]
    options = {"exclude_items": iter(sold_out.tolist()), "exclude": {5: [39]}}
    go(model, Lite(), **options)
    found = Lite().rows(tmp_path)
    allowed = sorted(set(model.items.ids.tolist()) - set(sold_out.tolist()))
    assert found == rows_of(model, candidates=allowed, exclude={5: [39]})
    for options in ({"exclude_items": [999]}, {"exclude_items": ["a"]}):
        with refused((UnknownIdError, TypeError), "item"):
            model.recommend([5], **options)
    assert model.recommend([5], 2, exclude_items=[999], unknown="skip").items.shape == (1, 2)


def test_exclusions_may_be_iterators(tmp_path, go):
    model = trained()
    best = model.recommend(model.users.ids, 3)
    barred = {
        user: items.tolist() for user, items in zip(best.users.tolist(), best.items, strict=True)
    }
    go(model, Lite(), exclude={user: iter(items) for user, items in barred.items()})
    assert Lite().rows(tmp_path) == rows_of(model, exclude=barred)


def test_readers_of_parquet_folders_see_the_rows_alone(tmp_path, go):
    go(trained(), Parquet())
    table = pyarrow.dataset.dataset(tmp_path / "recs.parquet").to_table()
    assert table.column_names == ["user", "item", "score", "rank"]
    assert table.num_rows == len(rows_of(trained()))
    names = [f"part-{part:06}.parquet" for part in range(7)]
    assert sorted(os.listdir(tmp_path / "recs.parquet")) == ["_manifest.json", *names]
    assert os.listdir(tmp_path) == ["recs.parquet"]


def test_what_is_asked_of_one_user_goes_by_the_key(tmp_path, go):
    place = Lite()
    go(trained(), place)
    plan = place.ask(tmp_path, "EXPLAIN QUERY PLAN SELECT * FROM recommendations WHERE user_id = 3")
    assert any("run=? AND user_id=?" in step[-1] for step in plan)


@databases
def test_users_that_are_repeated_are_refused(tmp_path, place):
    with refused(ValueError, "user id 3 ", "twice", "append=True"):
        trained().recommend_all(N, to=place.sink(tmp_path), users=[5, 3, 1, 3])


def test_users_may_be_repeated_in_a_folder(tmp_path, go):
    go(trained(), Parquet(), users=[5, 3, 5], chunk=2)
    assert Parquet().rows(tmp_path) == rows_of(trained(), users=[5, 3, 5])


# --- going on ---------------------------------------------------------------------------------


@every_place
@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("breaks_in", [0, 4, 6])
def test_going_on_after_an_error(tmp_path, go, place, kind, breaks_in):
    model = trained(kind)
    go(model, place, breaks_in=breaks_in)
    assert not place.rows(tmp_path)
    same = {"n": np.int64(N), "chunk": np.int64(CHUNK), "exclude_seen": np.True_}
    assert go(model, place, resume=True, **same) == 7 - breaks_in  # no chunk is computed again
    assert place.rows(tmp_path) == rows_of(model)


@every_place
def test_going_on_twice(tmp_path, go, place):
    go(trained(), place, breaks_in=2)
    assert go(trained(), place, breaks_in=3, resume=True) == 4
    assert go(trained(), place, resume=True) == 2
    assert place.rows(tmp_path) == rows_of(trained())


@every_place
def test_without_resume_an_unfinished_run_is_started_anew(tmp_path, go, place):
    go(trained(), place, breaks_in=3)
    assert go(trained(), place, n=3) == 7
    assert place.rows(tmp_path) == rows_of(trained(), 3)


@every_place
def test_resuming_what_is_complete_computes_nothing(tmp_path, go, place):
    assert go(trained(), place, resume=True) == 7
    assert go(trained(), place, resume=True) == 0
    assert go(trained(), place, resume=True, n=3) == 7  # of other rows: a new run
    assert place.rows(tmp_path) == rows_of(trained(), 3)


MISFITS = {
    "n": ({"n": 3}, "another n (7 then, 3 now)"),
    "chunk": ({"chunk": 4}, "another chunk (9 then, 4 now)"),
    "users": ({"users": np.arange(59)}, "another users"),
    "order": ({"users": np.arange(60)[::-1]}, "another users"),
    "exclude_seen": ({"exclude_seen": False}, "another exclude_seen (True then, False now)"),
    "exclude": ({"exclude": {3: [4]}}, "another exclude"),
    "candidates": ({"candidates": range(39)}, "another candidates"),
    "exclude_items": ({"exclude_items": [3]}, "another exclude_items"),
    "unknown": ({"unknown": "skip"}, "another unknown ('raise' then, 'skip' now)"),
}


@every_place
@pytest.mark.parametrize("options, words", MISFITS.values(), ids=MISFITS)
def test_a_named_run_of_other_rows_is_refused(tmp_path, go, place, options, words):
    go(trained(), place, breaks_in=3, run_id="monday")
    asked = {"n": N, "chunk": CHUNK, "run_id": "monday", "resume": True, **options}
    with refused(ValueError, f"'monday' has {words}: leave out resume=True"):
        trained().recommend_all(to=place.sink(tmp_path), **asked)
    assert go(trained(), place, run_id="monday", resume=True) == 4  # and is still there
    assert place.rows(tmp_path) == rows_of(trained())


@every_place
@pytest.mark.parametrize(
    "seed, n, words", [(1, N, "another model:"), (0, 3, "another n (7 then, 3 now):")]
)
def test_a_job_that_was_killed_runs_the_next_night(tmp_path, go, place, caplog, seed, n, words):
    go(trained(), place, n=2, resume=True)
    go(trained(), place, breaks_in=3, resume=True)
    assert go(trained(seed=seed), place, n=n, resume=True) == 7
    [told] = caplog.messages  # of the run that is given up, not of the one that is replaced
    assert caplog.records[0].levelname == "WARNING" and words in told and "\n" not in told
    assert place.rows(tmp_path) == rows_of(trained(seed=seed), n)
    if place.name.endswith(".db"):
        assert place.ask(tmp_path, "SELECT state FROM recommendations_runs") == [("complete",)]
    assert not list(tmp_path.glob("*.unfinished"))


@every_place
def test_how_many_threads_there_are_is_no_other_run(tmp_path, go, place):
    model = trained()
    go(model, place, breaks_in=3)
    other = model.with_index(type(model.index_)(n_jobs=2))
    other.estimator_ = model.estimator_
    assert go(other, place, resume=True) == 4


def test_how_exact_search_lays_out_items_is_no_other_run():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(5000, 24)) * 0.8 ** np.arange(24)).astype(np.float32)
    indexes = [
        fmknn.ExactIndex().build(vectors, rng.normal(size=(50, 24)) * 0.9 ** np.arange(24) ** power)
        for power in (0.0, 1.0)
    ]
    states = [index.to_state() for index in indexes]
    assert fingerprint(states[0][0]) != fingerprint(states[1][0])
    facts = [model_facts(replace(trained()._service, index=index)) for index in indexes]
    assert facts[0] == facts[1]


def test_the_order_of_what_has_none_is_no_other_run():
    first = options_given({"exclude": {1: [3, 2], 2: {5}}, "context": {"a": [1], "b": [2, 1]}})
    assert first == options_given(
        {"context": {"b": [2, 1], "a": 1}, "exclude": {2: [5], 1: {2, 3}}}
    )
    assert first != options_given(
        {"exclude": {1: [3, 2], 2: {6}}, "context": {"a": [1], "b": [2, 1]}}
    )


def test_a_fingerprint_sees_every_bit():
    arrays = {"a": np.arange(6.0), "b": np.array(["x", "yz"], object)}
    changed = [
        {**arrays, "a": np.nextafter(arrays["a"], np.inf)},
        {**arrays, "a": arrays["a"].astype(np.float32)},
        {**arrays, "a": arrays["a"].reshape(2, 3)},
        {**arrays, "b": np.array(["xy", "z"], object)},
        {"a": arrays["a"], "c": arrays["b"]},
    ]
    assert len({fingerprint(arrays), *map(fingerprint, changed)}) == 6
    same = {"b": arrays["b"].copy(), "a": arrays["a"].astype(">f8")}
    assert fingerprint(same | {"a": same["a"].astype("<f8")}) == fingerprint(arrays)


# --- the last complete run --------------------------------------------------------------------


@every_place
def test_the_last_run_is_there_until_the_next_is_complete(tmp_path, go, place):
    go(trained(), place, n=3)
    go(trained(), place, breaks_in=6)
    assert place.rows(tmp_path) == rows_of(trained(), 3)
    go(trained(), place, resume=True)
    assert place.rows(tmp_path) == rows_of(trained())


@databases
def test_readers_see_the_last_run_meanwhile_and_are_not_kept_waiting(tmp_path, go, place):
    model, seen = trained(), []
    go(model, place, n=3)
    reader = sqlite3.connect(tmp_path / place.name, timeout=0)
    recommend = model.recommend

    class Watched:
        def __call__(self, users, n, **options):
            seen.append(reader.execute("SELECT COUNT(*) FROM recommendations").fetchone()[0])
            return recommend(users, n, **options)

    model.recommend = Watched()
    try:
        model.recommend_all(N, to=place.sink(tmp_path), chunk=CHUNK)
    finally:
        del model.recommend
    assert seen == [60 * 3] * 8
    assert reader.execute("SELECT COUNT(*) FROM recommendations").fetchone() == (60 * N,)
    reader.close()


@databases
def test_a_run_replaces_all_others_or_those_of_its_id(tmp_path, go, place):
    model = trained()
    by_id = "SELECT run_id, COUNT(*) FROM recommendations GROUP BY run_id ORDER BY run_id"
    go(model, place, n=1, run_id="monday")
    go(model, place, n=2, run_id="tuesday", append=True)
    assert place.ask(tmp_path, by_id) == [("monday", 60), ("tuesday", 120)]
    go(model, place, n=3, run_id="monday", append=True)
    assert place.ask(tmp_path, by_id) == [("monday", 180), ("tuesday", 120)]
    go(model, place, n=4, run_id="friday", append=True, breaks_in=2)
    assert place.ask(tmp_path, by_id) == [("monday", 180), ("tuesday", 120)]
    go(model, place, n=1, run_id="saturday", append=True)  # the other one may be running
    assert go(model, place, n=4, run_id="friday", append=True, resume=True) == 5
    assert [count for _, count in place.ask(tmp_path, by_id)] == [240, 180, 60, 120]
    go(model, place, n=5, run_id="sunday")
    assert place.ask(tmp_path, by_id) == [("sunday", 300)]
    for table in ("rows", "chunks", "runs"):  # nothing is left of the others
        name = f"recommendations_{table}"
        assert place.ask(tmp_path, f"SELECT COUNT(DISTINCT run) FROM {name}") == [(1,)]


def test_runs_without_a_name_are_several(tmp_path, go):
    for n in (1, 2, 3):
        go(trained(), Lite(), n=n, append=True)
    by_id = "SELECT COUNT(*) FROM recommendations GROUP BY run_id ORDER BY run_id"
    assert Lite().ask(tmp_path, by_id) == [(60,), (120,), (180,)]


@every_place
def test_a_named_run_is_gone_on_with_under_its_name(tmp_path, go, place):
    go(trained(), place, breaks_in=2, run_id="monday")
    assert go(trained(), place, resume=True, run_id="monday") == 5
    assert go(trained(), place, resume=True, run_id="monday") == 0
    with refused(ValueError, "another n"):
        trained().recommend_all(
            3, chunk=CHUNK, to=place.sink(tmp_path), resume=True, run_id="monday"
        )
    assert go(trained(), place, n=3, resume=True, run_id="tuesday") == 7


@every_place
def test_a_run_that_another_has_taken_over_stops(tmp_path, go, place):
    model = trained()
    recommend, calls = model.recommend, []

    def interrupted(users, n, **options):
        calls.append(len(users))
        if len(calls) == 4:  # two chunks are written; now somebody starts the same job again
            del model.recommend
            model.recommend_all(3, to=place.sink(tmp_path), chunk=CHUNK)
        return recommend(users, n, **options)

    model.recommend = interrupted
    with refused(ValueError, "another process has begun a run"):
        model.recommend_all(N, to=place.sink(tmp_path), chunk=CHUNK)
    assert place.rows(tmp_path) == rows_of(model, 3)


class Crash(BaseException):
    """No handler of errors catches it."""


@pytest.mark.parametrize("resume", [True, False])
def test_a_crash_at_any_step_among_the_files_loses_nothing(tmp_path, monkeypatch, resume):
    model, place, step = trained(), Parquet(), 0
    before, expected = rows_of(model, 3), rows_of(model)
    steps = ("mkdir", "rename", "replace", "rmdir", "unlink")
    originals = {name: getattr(os, name) for name in steps}
    complete = False
    while not complete:
        folder, left = tmp_path / str(step), step
        folder.mkdir()
        run(model, place.sink(folder), monkeypatch, n=3, chunk=30)

        def crashing(name):
            def do(*args, **options):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Crash
                return originals[name](*args, **options)

            return do

        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(os, name, crashing(name))
            try:
                model.recommend_all(N, to=place.sink(folder), chunk=30)
                complete = True
            except Crash:
                pass
        assert place.rows(folder) in (before, expected, None)
        run(model, place.sink(folder), monkeypatch, chunk=30, resume=resume)
        assert place.rows(folder) == expected and os.listdir(folder) == [place.name]
        step += 1
    assert step > 15


# --- manifests --------------------------------------------------------------------------------


def manifest_of(place, folder):
    if place.name.endswith(".parquet"):
        return json.loads((folder / place.name / "_manifest.json").read_text())
    names = [name for _, name, *_ in place.ask(folder, "PRAGMA table_info(recommendations_runs)")]
    [row] = place.ask(folder, "SELECT * FROM recommendations_runs")
    found = dict(zip(names, row, strict=True))
    return {**found, "parameters": json.loads(found["parameters"])}


@every_place
def test_the_manifest(tmp_path, go, place):
    model = trained()
    go(model, place, breaks_in=3, run_id="a run", candidates=range(30), chunk=CHUNK)
    go(model, place, resume=True, run_id="a run", candidates=range(30), chunk=CHUNK)
    found = manifest_of(place, tmp_path)
    counts = {name: found[name] for name in ("run_id", "n_users", "n_rows", "n_chunks")}
    n_rows = len(rows_of(model, candidates=range(30)))
    assert counts == {"run_id": "a run", "n_users": 60, "n_rows": n_rows, "n_chunks": 7}
    started, finished = (datetime.fromisoformat(found[name]) for name in ("started", "finished"))
    assert started <= finished and started.utcoffset().total_seconds() == 0
    assert 0 < found["seconds"] < 60
    asked = found["parameters"]
    assert (asked["n"], asked["chunk"], asked["users"]["count"]) == (N, CHUNK, 60)
    assert (asked["candidates"]["count"], asked["exclude"]) == (30, None)
    assert asked["index"]["type"] == type(model.index_).__name__ and len(asked["model"]) == 64


@databases
def test_the_table_of_chunks(tmp_path, go, place):
    go(trained(), place)
    found = place.ask(tmp_path, "SELECT chunk, n_users, n_rows FROM recommendations_chunks")
    sizes = [9] * 6 + [6]
    assert found == [(chunk, size, size * N) for chunk, size in enumerate(sizes)]


def test_one_line_a_chunk_is_logged(tmp_path, go, caplog):
    with caplog.at_level(logging.INFO, "fmknn"):
        go(trained(), Lite(), breaks_in=5)
        go(trained(), Lite(), resume=True)
    said = [record.message for record in caplog.records]
    assert said[0].startswith("chunk 1 of 7: 9 users, 63 recommendations, ")
    assert said[5] == "5 of 7 chunks are there already"
    assert len(said) == 5 + 1 + 2


# --- places that won't do ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "part-1.parquet", "old/part-000000.parquet"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, go, name):
    place = Parquet()
    path = tmp_path / place.name / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with refused(ValueError, "recs.parquet", Path(name).parts[0], "not of a run"):
        place.sink(tmp_path).check()
    with refused(ValueError, "recs.parquet"):
        trained().recommend_all(N, to=place.sink(tmp_path))
    assert path.read_text() == "mine" and os.listdir(tmp_path) == [place.name]


def test_parts_without_a_manifest_are_somebody_elses(tmp_path):
    (tmp_path / "recs.parquet").mkdir()
    (tmp_path / "recs.parquet" / "part-000000.parquet").write_text("mine")
    with refused(ValueError, "part-000000.parquet"):
        ParquetFolder(tmp_path / "recs.parquet").check()


def test_a_file_that_comes_meanwhile_is_not_removed(tmp_path, go):
    place, model = Parquet(), trained()
    go(model, place, n=3)
    go(model, place, breaks_in=5)
    (tmp_path / place.name / "notes.txt").write_text("mine")
    with refused(ValueError, "notes.txt"):
        model.recommend_all(N, to=place.sink(tmp_path), chunk=CHUNK, resume=True)
    (tmp_path / place.name / "notes.txt").unlink()
    assert go(model, place, resume=True) == 2


def test_a_complete_folder_that_lost_a_part_is_written_anew(tmp_path, go):
    go(trained(), Parquet(), run_id="monday")
    for part in (6, 2):
        (tmp_path / "recs.parquet" / f"part-{part:06}.parquet").unlink()
        assert go(trained(), Parquet(), run_id="monday", resume=True) == 7
        assert Parquet().rows(tmp_path) == rows_of(trained())


def test_what_a_killed_start_left_in_the_folder_is_in_nobodys_way(tmp_path, go):
    (tmp_path / "recs.parquet").mkdir()
    (tmp_path / "recs.parquet" / f".fmknn-{'0' * 16}.tmp").touch()
    go(trained(), Parquet())
    assert len(os.listdir(tmp_path / "recs.parquet")) == 8
    assert Parquet().rows(tmp_path) == rows_of(trained())


def test_an_empty_folder_and_a_link_will_do(tmp_path, go):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "recs.parquet").symlink_to(tmp_path / "elsewhere")
    go(trained(), Parquet())
    go(trained(), Parquet(), n=3)
    assert (tmp_path / "recs.parquet").is_symlink()
    assert Parquet().rows(tmp_path) == rows_of(trained(), 3)


@pytest.mark.parametrize("part", [0, 3])
def test_a_part_that_is_cut_is_written_again(tmp_path, go, part):
    go(trained(), Parquet(), breaks_in=5)
    path = tmp_path / "recs.parquet.unfinished" / f"part-{part:06}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert go(trained(), Parquet(), resume=True) == 7 - part
    assert Parquet().rows(tmp_path) == rows_of(trained())


@parquet_and_sqlite
def test_a_missing_folder_is_refused_before_the_work(tmp_path, place):
    for refuse in (
        lambda sink: sink.check(),
        lambda sink: trained().recommend_all(N, to=sink),
    ):
        with refused(FileNotFoundError, "nowhere"):
            refuse(place.sink(tmp_path / "nowhere"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
@parquet_and_sqlite
def test_a_folder_without_the_right_to_write_is_refused(tmp_path, place):
    os.chmod(tmp_path, 0o500)
    with pytest.raises(PermissionError):
        place.sink(tmp_path).check()
    os.chmod(tmp_path, 0o700)


@databases
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, place):
    path = tmp_path / place.name
    path.write_bytes(b"a diary, and a long one " * 100)
    with pytest.raises((ValueError, OSError), match=r"recs\.db.* not a"):
        trained().recommend_all(N, to=place.sink(tmp_path))
    assert path.read_bytes() == b"a diary, and a long one " * 100


@databases
def test_a_database_that_breaks_is_one_line(tmp_path, go, place):
    go(trained(), place, breaks_in=5)
    path = tmp_path / place.name
    spoiled = bytearray(path.read_bytes())
    spoiled[4096:] = b"\xa5" * len(spoiled[4096:])
    path.write_bytes(spoiled)
    with refused(OSError, "recs.db", "malformed"):
        trained().recommend_all(N, to=place.sink(tmp_path), chunk=CHUNK, resume=True)


@databases
@pytest.mark.parametrize(
    "name", ["recommendations_rows", "recommendations_runs", "recommendations"]
)
def test_tables_of_somebody_else_are_refused_and_left_alone(tmp_path, go, place, name):
    place_of_others = sqlite3.connect(tmp_path / place.name)
    place_of_others.executescript(f"CREATE TABLE {name} (a); INSERT INTO {name} VALUES (1)")
    place_of_others.close()
    with refused(ValueError, f"table {name} ", "table=…"):
        trained().recommend_all(N, to=place.sink(tmp_path))
    assert place.ask(tmp_path, f"SELECT * FROM {name}") == [(1,)]
    go(trained(), place, table="shop")
    assert place.rows(tmp_path, "shop") == rows_of(trained())


@databases
def test_ids_of_another_type_need_tables_of_their_own(tmp_path, go, place):
    go(trained(), place)
    with refused(ValueError, "user ids", "text", "table=…"):
        trained(str).recommend_all(N, to=place.sink(tmp_path))
    assert place.rows(tmp_path) == rows_of(trained())


@pytest.mark.parametrize("kind", [SQLite, SQL])
@pytest.mark.parametrize("table", ["", "a b", "A", "1a", "x;y", None, "a" * 51])
def test_a_table_is_a_plain_name(kind, table):
    with refused(ValueError, "table"):
        kind("sqlite+pysqlite:///recs.db", table)


@databases
@pytest.mark.parametrize("table", ["order", "select", "group", "table"])
def test_a_table_may_have_a_word_of_sql_as_its_name(tmp_path, go, place, table):
    for n in (2, 3):
        go(trained(), place, table=table, n=n)
    assert place.rows(tmp_path, f'"{table}"') == rows_of(trained(), 3)


def test_what_a_file_has_as_number_of_a_run_is_never_a_statement(tmp_path, go):
    place = Lite()  # whose columns take any text
    go(trained(), place, breaks_in=3)
    hostile = "(SELECT 7)"
    connection = sqlite3.connect(tmp_path / place.name)
    for table in ("runs", "chunks", "rows"):
        connection.execute(f"UPDATE recommendations_{table} SET run = ?", (hostile,))
    connection.commit()
    connection.close()
    assert go(trained(), place, resume=True) == 4
    found = place.ask(tmp_path, "SELECT DISTINCT run FROM recommendations_rows")
    assert found == [(hostile,)]


FULL = """
import resource, signal, sys
sys.path[:0] = sys.argv[1:3]
from batch_rig import *
model, place = trained(), dict(Parquet=Parquet, Lite=Lite, Alchemy=Alchemy)[sys.argv[3]]()
from pathlib import Path
model.recommend([3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)  # as of a disk that is full
try:
    model.recommend_all(N, to=place.sink(Path(".")), chunk=CHUNK)
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
@pytest.mark.parametrize("place, limit", [*zip(PLACES, [2000, 36_000, 36_000], strict=True)])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, go, place, limit):
    model = trained()
    go(model, place, n=2)
    argv = [str(ROOT), str(ROOT / "tests"), type(place).__name__, str(limit)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *argv], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and place.name in done.stdout, done.stdout
    assert place.rows(tmp_path) == rows_of(model, 2)
    assert go(model, place, resume=True) <= 7
    assert place.rows(tmp_path) == rows_of(model)


# --- what stands for which place --------------------------------------------------------------


@pytest.mark.parametrize(
    "to, expected",
    [
        ("recs.jsonl", JsonLines("recs.jsonl")),
        (Path("recs"), JsonLines("recs")),
        ("recs.parquet", ParquetFolder("recs.parquet")),
        ("recs/", ParquetFolder("recs/")),
        (Path("recs.DB"), SQLite("recs.DB")),
        (b"recs.db", SQLite("recs.db")),
        ("recs.sqlite", SQLite("recs.sqlite")),
        ("sqlite:///recs", SQLite("recs")),
        ("sqlite:////data/recs", SQLite("/data/recs")),
        ("postgresql://me@host/db", SQL("postgresql://me@host/db")),
        ("sqlite+pysqlite:///recs", SQL("sqlite+pysqlite:///recs")),
    ],
)
def test_what_stands_for_which_sink(to, expected):
    assert sink_for(to) == expected
    assert sink_for(expected) is expected


def test_a_folder_that_is_there_is_one_of_parquet(tmp_path):
    assert sink_for(tmp_path) == ParquetFolder(str(tmp_path))


@pytest.mark.parametrize("to", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?b=c"])
def test_a_database_in_memory_is_none(to):
    with refused(ValueError, "sqlite:///recs.db"):
        sink_for(to)


@pytest.mark.parametrize("path", [":memory:", Path(":memory:")])
def test_an_sqlite_database_is_a_file(path):
    with refused(ValueError, "a file", "recs.db"):
        SQLite(path).check()


@pytest.mark.parametrize("to", [3, [1], object()])
def test_what_is_no_place(to):
    with refused(TypeError, "path", type(to).__name__):
        trained().recommend_all(N, to=to)


BAD_RUNS = [
    {"resume": "yes"},
    {"append": 1},
    {"run_id": ""},
    {"run_id": 3},
    {"resume": True, "to": None},
    {"append": True, "to": None},
    {"run_id": "a", "to": None},
    {"resume": True, "to": "recs.jsonl"},
    {"append": True, "to": "recs.jsonl"},
    {"run_id": "a", "to": "recs.jsonl"},
    {"append": True, "to": "recs.parquet"},
    {"to": "recs.csv"},
]


@pytest.mark.parametrize("options", BAD_RUNS, ids=str)
def test_what_does_not_go_together(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    with refused(ValueError):
        trained().recommend_all(N, **{"to": "recs.db", **options})
    assert os.listdir(tmp_path) == []


@every_place
def test_an_unknown_user_is_no_run_but_an_error(tmp_path, place):
    with refused(UnknownIdError, "user id 999"):
        trained().recommend_all(N, users=[999, 3], to=place.sink(tmp_path), chunk=1)
    assert not place.rows(tmp_path)


@pytest.mark.parametrize(
    "module, to, extra", [("pyarrow.parquet", "r.parquet", "arrow"), ("sqlalchemy", "x://", "sql")]
)
def test_without_the_extra_it_is_named(monkeypatch, tmp_path, module, to, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with refused(MissingExtraError, f"fmknn[{extra}]"):
        trained().recommend_all(N, to=to)


@pytest.mark.parametrize(
    "url, words",
    [
        ("nonsense://me:hush@host/db", ["kind of database 'nonsense'"]),
        ("postgresql://me:hush@host:port/db", ["no address"]),
        ("mssql+pymssql://me:hush@host/db", ["the driver pymssql", "package that has it"]),
        ("postgresql+psycopg://me:hush@127.0.0.1:1/db?password=hush", ["127.0.0.1:1/db"]),
    ],
)
def test_a_password_is_never_told(url, words):
    sink = SQL(url)
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        sink.check()
    said = str(caught.value)
    assert "hush" not in said + repr(sink) and "\n" not in said
    assert all(word in said for word in words), said
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
