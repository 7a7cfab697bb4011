"""Interactions on disk: the same rows, the same bits, and nothing taken for whole that is not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from realdata import movielens
from refusals import refused

import fmknn
from fmknn.data import columns as columns_module
from fmknn.data import external_sort, parquet_columns, stored
from fmknn.data.blocks import design_of_interactions
from fmknn.errors import DivergenceError, MissingExtraError
from fmknn.index import base as index_base
from fmknn.solvers import stored_rows
from fmknn.solvers.stored_rows import rows_by_entity


def table_of(n=600, seed=0):
    """Rows with all kinds of columns; some ids are rare, and some rows are there twice."""
    generator = np.random.default_rng(seed)
    names = np.array(["Ärzte", "zebra", "", "b", "a\n", "日本", "B"], object)
    return {
        "who": generator.integers(-20, 40, n) ** 3,
        "what": names[np.minimum(generator.geometric(0.4, n) - 1, 6)],
        "day": generator.integers(0, 7, n),
        "shop": names[generator.integers(0, 3, n)],
        "stars": generator.integers(1, 6, n).astype(np.float64),
        "count": generator.integers(0, 4, n) + 0.25,
        "when": generator.integers(10**9, 2 * 10**9, n),
    }


KEYS = {"user": "who", "item": "what", "value": "stars"}
ALL_KEYS = {**KEYS, "weight": "count", "timestamp": "when", "context": ["day", "shop"]}


def rows_of(keys=ALL_KEYS, **options):
    return fmknn.Interactions.from_frame(table_of(**options), **keys)


def write(folder, table, n_files=3, **options):
    """Write a table as several Parquet files, the rows in their order."""
    folder.mkdir()
    table = pa.table(table)
    edges = [len(table) * part // n_files for part in range(n_files + 1)]
    for part in range(n_files):
        piece = table.slice(edges[part], edges[part + 1] - edges[part])
        pq.write_table(piece, folder / f"part-{part}.parquet", **options)
    return folder


def same_rows(a, b):
    assert repr(a) == repr(b)
    assert list(a.context) == list(b.context)
    pairs = [(a.users, b.users), (a.items, b.items)]
    pairs += [(a.context[name].ids, b.context[name].ids) for name in a.context]
    for one, other in pairs:
        assert one.ids.dtype == other.ids.dtype
        assert one.ids.tolist() == other.ids.tolist()
    arrays = [("user_index", "item_index", "values", "weights", "timestamps")]
    columns = [(getattr(a, name), getattr(b, name)) for name in arrays[0]]
    columns += [(a.context[name].index, b.context[name].index) for name in a.context]
    for one, other in columns:
        if one is None:
            assert other is None
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def same_bits(one, other):
    """Both models have the very same parameters, history and state."""
    for a, b in zip(one.params_.samples(), other.params_.samples(), strict=True):
        assert a.w0 == b.w0
        np.testing.assert_array_equal(a.w, b.w)
        np.testing.assert_array_equal(a.V, b.V)
    assert sorted(one.state_) == sorted(other.state_)
    for name, array in one.state_.items():
        np.testing.assert_array_equal(array, other.state_[name])
    assert one.row_rule_state() == other.row_rule_state()
    timeless = [[{**step, "seconds": 0} for step in model.history_] for model in (one, other)]
    assert timeless[0] == timeless[1]


class TestSameBits:
    @pytest.mark.parametrize("solver", ["als", "mcmc"])
    @pytest.mark.parametrize("n_jobs", [1, 3])
    @pytest.mark.parametrize("shard_bytes", [1, 500, 1 << 26])
    @pytest.mark.parametrize("keys", [KEYS, ALL_KEYS], ids=["ids", "context and weights"])
    def test_as_in_memory(self, tmp_path, monkeypatch, solver, n_jobs, shard_bytes, keys):
        monkeypatch.setattr(stored_rows, "_SHARD_BYTES", shard_bytes)
        rows = rows_of(keys)
        on_disk = rows.store(tmp_path / "rows")
        assert on_disk.sorted_copies is not None
        assert on_disk.frame_library == rows.frame_library
        options = {"n_factors": 5, "solver": solver, "n_iter": 4, "random_state": 0}
        in_memory = fmknn.FMRegressor(**options).fit(rows)
        from_disk = fmknn.FMRegressor(**options, n_jobs=n_jobs).fit(on_disk)
        same_bits(in_memory, from_disk)
        same_bits(from_disk, fmknn.FMRegressor(**options).fit(on_disk, start=None))

    @pytest.mark.parametrize("solver", ["als", "mcmc"])
    def test_with_features(self, tmp_path, monkeypatch, solver):
        monkeypatch.setattr(stored_rows, "_SHARD_BYTES", 300)
        rows, _ = fmknn.datasets.make_interactions(40, 30, 800, context=5)
        on_disk = rows.store(tmp_path / "rows")
        assert on_disk.sorted_copies is not None
        assert on_disk.user_features is rows.user_features
        options = {"n_factors": 3, "solver": solver, "n_iter": 4, "random_state": 0}
        same_bits(fmknn.FMRegressor(**options).fit(rows), fmknn.FMRegressor(**options).fit(on_disk))

    @pytest.mark.parametrize("solver", ["als", "mcmc"])
    def test_movielens(self, tmp_path, solver):
        rows = movielens("100k").without_features()
        on_disk = rows.store(tmp_path / "rows")
        options = {"n_factors": 8, "solver": solver, "n_iter": 4, "random_state": 0, "n_jobs": 2}
        same_bits(fmknn.FMRegressor(**options).fit(rows), fmknn.FMRegressor(**options).fit(on_disk))

    def test_a_checkpoint_goes_on_from_disk(self, tmp_path):
        rows = rows_of()
        on_disk = rows.store(tmp_path / "rows")
        whole = fmknn.FMRegressor(3, solver="als", n_iter=6, random_state=0).fit(rows)
        half = fmknn.FMRegressor(3, solver="als", n_iter=3, random_state=0).fit(on_disk)
        again = fmknn.FMRegressor(3, solver="als", n_iter=6, random_state=0)
        again.fit(on_disk, start=half.state_)
        for name, array in whole.state_.items():
            np.testing.assert_array_equal(array, again.state_[name])

    @pytest.mark.parametrize(
        "estimator",
        [
            fmknn.FMRegressor(3, solver="adam", n_iter=2, random_state=0),
            fmknn.FMRegressor(3, loss="ordinal", n_iter=3, random_state=0),
            fmknn.FMClassifier(3, solver="mcmc", n_iter=3, random_state=0),
            fmknn.FMClassifier(3, solver="adam", n_iter=2, random_state=0),
            fmknn.FMRanker(3, n_iter=2, random_state=0),
            fmknn.FMRanker(3, loss="bpr", n_iter=2, random_state=0),
        ],
        ids=repr,
    )
    def test_other_solvers(self, tmp_path, estimator):
        rows = rows_of({**KEYS, "context": "day"})
        if isinstance(estimator, fmknn.FMClassifier):
            rows = rows.replace(values=(rows.values > 3).astype(np.float32))
        if isinstance(estimator, fmknn.FMRanker):
            rows = rows.replace(values=None)
        on_disk = rows.store(tmp_path / "rows")
        test = rows.take(np.arange(50))
        expected = estimator.fit(rows).linear_predictor(test)
        np.testing.assert_array_equal(estimator.fit(on_disk).linear_predictor(test), expected)

    def test_targets_that_are_not_those_on_disk(self, tmp_path):
        rows = rows_of()
        on_disk = rows.store(tmp_path / "rows")
        others = rows.values[::-1].copy()
        models = []
        for data in (rows, on_disk):
            spec = fmknn.FMRegressor(3, solver="als", n_iter=2, random_state=0).solver_spec()
            solver = spec.config.solver(spec)
            models.append(solver.train(design_of_interactions(data), others).model)
        np.testing.assert_array_equal(models[0].V, models[1].V)

    def test_a_recommender(self, tmp_path):
        rows = rows_of(KEYS)
        on_disk = rows.store(tmp_path / "rows")
        estimator = fmknn.FMRegressor(3, solver="als", random_state=0)
        tops = [
            fmknn.Recommender(estimator).fit(data).recommend(rows.users.ids, n=4)
            for data in (rows, on_disk)
        ]
        assert tops[0].items.tolist() == tops[1].items.tolist()
        np.testing.assert_array_equal(tops[0].scores, tops[1].scores)


class TestSortedCopies:
    def test_against_python(self, tmp_path):
        rows = rows_of()
        rows.store(tmp_path / "rows")
        codes = [rows.user_index, rows.item_index]
        codes += [column.index for column in rows.context.values()]
        sizes = [len(rows.users), len(rows.items)]
        sizes += [len(column.ids) for column in rows.context.values()]
        firsts = [sum(sizes[:block]) for block in range(4)]
        for block in range(4):
            order = sorted(range(len(rows)), key=lambda row: codes[block][row])
            folder = tmp_path / "rows" / f"sorted{block}"
            rest = [other for other in range(4) if other != block]
            expected = [[int(codes[o][row]) + firsts[o] for o in rest] for row in order]
            assert np.load(folder / "others.npy").tolist() == expected
            assert np.load(folder / "values.npy").tolist() == rows.values[order].tolist()
            roots = np.sqrt(rows.weights[order])
            assert np.load(folder / "root_weights.npy").tolist() == roots.tolist()
            counts = [int((codes[block] == entity).sum()) for entity in range(sizes[block])]
            assert np.diff(np.load(folder / "indptr.npy")).tolist() == counts

    @pytest.mark.parametrize("n_bytes", [1, 300, 10**6])
    def test_shards_hold_each_entity_once(self, tmp_path, monkeypatch, n_bytes):
        monkeypatch.setattr(stored_rows, "_SHARD_BYTES", n_bytes)
        on_disk = rows_of(KEYS).store(tmp_path / "rows")
        for rows in rows_by_entity(design_of_interactions(on_disk)):
            shards = list(rows.shards(np.arange(len(on_disk), dtype=np.float32)))
            assert [shard.start for shard in shards] == [0] + [s.stop for s in shards[:-1]]
            assert shards[-1].stop == rows.n_entities
            for shard in shards:
                own = slice(shard.start, shard.stop)
                lengths = np.diff(shard.indptr[shard.start : shard.stop + 1])
                assert lengths.tolist() == np.diff(rows.indptr)[own].tolist()
                n = shard.rows.stop - shard.rows.start
                assert len(shard.others) == len(shard.y) == lengths.sum() == n
                assert np.array_equal(shard.others, rows.others[shard.rows])
                assert shard.y.tolist() == list(range(shard.rows.start, shard.rows.stop))
                assert 8 * n <= n_bytes or np.count_nonzero(lengths) <= 1

    def test_go_with_the_columns_that_were_sorted(self, tmp_path):
        rows = rows_of()
        on_disk = rows.store(tmp_path / "rows")
        table = {"id": rows.users.ids, "age": np.arange(len(rows.users))}
        assert on_disk.replace(user_features=table).sorted_copies is not None
        assert on_disk.without_features().sorted_copies is not None
        assert on_disk.with_history().sorted_copies is not None
        for other in (
            on_disk.take(np.arange(10)),
            on_disk.take(np.arange(len(rows))),
            on_disk.replace(weights=None),
            on_disk.replace(values=rows.values[::-1]),
            on_disk.replace(context={}),
            on_disk.replace(users=on_disk.users.extended([10**9])),
            on_disk.with_recency(),
            on_disk.with_negatives(random_state=0),
        ):
            assert other.sorted_copies is None
        again = pickle.loads(pickle.dumps(on_disk))
        assert again.sorted_copies is None
        same_rows(again, rows)

    def test_columns_are_mapped_and_read_only(self, tmp_path):
        on_disk = rows_of().store(tmp_path / "rows")
        assert not on_disk.values.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            on_disk.values[0] = 9

    def test_of_memory_mapped_arrays(self, tmp_path):
        rows, names = rows_of(KEYS), ("user_index", "item_index", "values")
        columns = {}
        for name in names:
            np.save(tmp_path / f"{name}.npy", getattr(rows, name))
            columns[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        mapped = fmknn.Interactions(rows.users, rows.items, **columns)
        for name in names:  # checked, but not copied
            assert np.shares_memory(getattr(mapped, name), columns[name])
        on_disk = mapped.store(tmp_path / "rows")
        same_rows(on_disk, rows)
        options = {"n_factors": 3, "solver": "als", "n_iter": 2, "random_state": 0}
        same_bits(fmknn.FMRegressor(**options).fit(rows), fmknn.FMRegressor(**options).fit(on_disk))

    def test_parts_of_a_split(self, tmp_path):
        rows = rows_of(KEYS)
        both = [
            fmknn.splits.random(data, test=0.2, random_state=0)
            for data in (rows, rows.store(tmp_path / "rows"))
        ]
        for one, other in zip(*both, strict=True):
            same_rows(one, other)


class TestParquet:
    @pytest.mark.parametrize("keys", [KEYS, ALL_KEYS], ids=["ids", "all columns"])
    @pytest.mark.parametrize("at_once", [7, 1 << 20])
    def test_as_a_frame(self, tmp_path, monkeypatch, keys, at_once):
        for module in (parquet_columns, external_sort, stored, columns_module):
            monkeypatch.setattr(module, "_AT_ONCE", at_once)
        log = write(tmp_path / "log", table_of(), row_group_size=50)
        on_disk = fmknn.Interactions.from_parquet(log, tmp_path / "rows", **keys)
        same_rows(on_disk, rows_of(keys))
        same_rows(fmknn.Interactions.open(tmp_path / "rows"), on_disk)
        assert on_disk.sorted_copies is not None
        assert os.listdir(tmp_path) == ["log", "rows"] or os.listdir(tmp_path) == ["rows", "log"]

    def test_files_in_the_order_of_names_or_of_a_list(self, tmp_path):
        log, rows = write(tmp_path / "log", table_of()), rows_of(KEYS)
        pattern = str(log / "part-*.parquet")
        same_rows(fmknn.Interactions.from_parquet(pattern, tmp_path / "a", **KEYS), rows)
        files = [log / f"part-{part}.parquet" for part in (1, 0)]
        found = fmknn.Interactions.from_parquet(files, tmp_path / "b", **KEYS)
        both = rows.take(np.r_[200:400, 0:200])
        assert found.user_ids.tolist() == both.user_ids.tolist()
        assert found.values.tolist() == both.values.tolist()

    def test_kinds_of_columns(self, tmp_path):
        table = pa.table(
            {
                "who": pa.array(["b", "a", "b"]).dictionary_encode(),
                "what": pa.array([3, 1, 3], pa.uint8()),
                "stars": pa.array([1, 0, 1], pa.int8()),
                "count": pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)),
                "when": pa.array([5, 6, 7], pa.timestamp("s")),
                "day": pa.array(["x", "y", "y"], pa.large_string()),
            }
        )
        keys = {**ALL_KEYS, "context": "day"}
        log = write(tmp_path / "log", table, n_files=1)
        on_disk = fmknn.Interactions.from_parquet(log, tmp_path / "rows", **keys)
        same_rows(on_disk, fmknn.Interactions.from_frame(table, **keys))
        assert on_disk.user_ids.tolist() == ["b", "a", "b"]
        assert on_disk.timestamps.tolist() == [5 * 10**9, 6 * 10**9, 7 * 10**9]

    def test_ids_of_feature_tables_are_known_too(self, tmp_path):
        log = write(tmp_path / "log", table_of())
        tables = {"item_features": {"what": ["new", *np.unique(table_of()["what"])]}}
        on_disk = fmknn.Interactions.from_parquet(log, tmp_path / "rows", **KEYS, **tables)
        rows = fmknn.Interactions.from_frame(table_of(), **KEYS, **tables)
        same_rows(on_disk, rows)
        assert "new" in on_disk.items.ids.tolist()
        assert on_disk.item_features.ids.tolist() == rows.item_features.ids.tolist()
        assert on_disk.sorted_copies is not None

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"who": pa.array([1, 2, None, 4])}, TypeError, ["user ids", "row 2 has none"]),
            ({"who": [1.0, 2.0, 3.0, 4.0]}, TypeError, ["user ids", "double", "convert"]),
            ({"what": [True, False, True, True]}, TypeError, ["item ids", "bool"]),
            ({"who": np.array([1, 2, 3, 2**63], np.uint64)}, ValueError, ["int64", "strings"]),
            ({"stars": [1.0, 2.0, 3.0, np.nan]}, ValueError, ["values", "row 3 is nan"]),
            ({"stars": [1.0, 1e300, 3.0, 4.0]}, ValueError, ["values", "row 1 is inf"]),
            ({"stars": pa.array([1.0, None, 3.0, 4.0])}, ValueError, ["values", "row 1", "fill"]),
            ({"stars": ["1", "2", "3", "4"]}, TypeError, ["values must be numbers", "string"]),
            ({"count": [1.0, 2.0, 3.0, -1.0]}, ValueError, ["weights", "negative", "row 3"]),
            ({"count": [0, 0, 0, 0]}, ValueError, ["weights are all zero"]),
            ({"when": [1.0, 2.0, np.inf, 4.0]}, ValueError, ["timestamps", "row 2 is inf"]),
            ({"day": pa.array([None, "a", "b", "c"])}, TypeError, ["day ids", "row 0 has none"]),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, change, error, words):
        table = pa.table({name: column[:4] for name, column in table_of().items()})
        for name, column in change.items():
            table = table.set_column(table.schema.names.index(name), name, pa.array(column))
        log = write(tmp_path / "log", table, n_files=2)
        with refused(error, *words):
            fmknn.Interactions.from_parquet(log, tmp_path / "rows", **ALL_KEYS)
        assert os.listdir(tmp_path) == ["log"]

    def test_ids_of_two_types(self, tmp_path):
        log = write(tmp_path / "log", {"who": [1], "what": [1], "stars": [1.0]}, n_files=1)
        pq.write_table(pa.table({"who": ["a"], "what": [1], "stars": [1.0]}), log / "z.parquet")
        with refused(TypeError, "user ids", "integers in one file", "strings", "z.parquet"):
            fmknn.Interactions.from_parquet(log, tmp_path / "rows", **KEYS)

    def test_times_of_two_types(self, tmp_path):
        row = {"who": [1], "what": [1]}
        log = write(tmp_path / "log", {**row, "when": [1]}, n_files=1)
        pq.write_table(pa.table({**row, "when": [0.5]}), log / "z.parquet")
        with refused(TypeError, "timestamps", "one file"):
            fmknn.Interactions.from_parquet(
                log, tmp_path / "rows", user="who", item="what", timestamp="when"
            )

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"user": "whom"}, ValueError, ["no column 'whom'", "who, what"]),
            ({"context": ["user"]}, ValueError, ["context", "'user'"]),
            ({"memory_limit": "much"}, ValueError, ["memory_limit", "2GB", "'much'"]),
            ({"memory_limit": 2**31}, ValueError, ["memory_limit"]),
            ({"memory_limit": "1KB"}, OSError, ["sorting on disk failed", "memory_limit='1KB'"]),
            ({"path": "nothing/*.parquet"}, FileNotFoundError, ["no Parquet files"]),
            ({"folder": "log"}, FileExistsError, ["Interactions.open", "log"]),
            ({"folder": "no/rows"}, FileNotFoundError, ["create it first"]),
        ],
    )
    def test_refusals(self, tmp_path, monkeypatch, change, error, words):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "log", table_of(n=100_000))
        with refused(error, *words):
            fmknn.Interactions.from_parquet(**{"path": "log", "folder": "rows", **KEYS, **change})
        assert os.listdir(tmp_path) == ["log"]

    def test_what_is_no_parquet(self, tmp_path):
        (tmp_path / "log.parquet").write_text("who,what")
        with refused(ValueError, "log.parquet", "no Parquet file"):
            fmknn.Interactions.from_parquet(tmp_path / "log.parquet", tmp_path / "rows", **KEYS)
        empty = write(tmp_path / "log", {"who": [1], "what": [1], "stars": [1.0]}, n_files=1)
        pq.write_table(pq.read_table(empty).slice(0, 0), empty / "part-0.parquet")
        with refused(ValueError, "no interactions", "empty"):
            fmknn.Interactions.from_parquet(empty, tmp_path / "rows", **KEYS)

    @pytest.mark.parametrize("package", ["duckdb", "pyarrow"])
    def test_without_the_extra(self, tmp_path, monkeypatch, package):
        monkeypatch.setitem(sys.modules, package, None)
        with refused(MissingExtraError, "DuckDB", "pyarrow", "fmknn[disk]"):
            rows_of(KEYS).store(tmp_path / "rows")
        with refused(MissingExtraError, "DuckDB", "pyarrow", "fmknn[disk]"):
            fmknn.Interactions.from_parquet("log", tmp_path / "rows", **KEYS)
        assert os.listdir(tmp_path) == []


class TestWholeOrNotAtAll:
    def test_interrupted(self, tmp_path, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(stored, "sorted_by", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rows_of().store(tmp_path / "rows")
        assert os.listdir(tmp_path) == []

    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
    def test_killed(self, tmp_path):
        code = (
            "import os, signal, fmknn, fmknn.data.stored as stored\n"
            "stored.sorted_by = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "fmknn.Interactions.from_arrays([1, 2], [3, 4], [1.0, 2.0]).store('rows')\n"
        )
        path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
        )
        assert ran.returncode == -signal.SIGKILL
        (left,) = os.listdir(tmp_path)
        with refused(FileNotFoundError, "rows"):
            fmknn.Interactions.open(tmp_path / "rows")
        with refused(ValueError, "holds no interactions"):
            fmknn.Interactions.open(tmp_path / left)
        rows_of().store(tmp_path / "rows")  # what was left is in nobody's way

    def test_nothing_to_store(self, tmp_path):
        with refused(ValueError, "no interactions to store"):
            rows_of().take([]).store(tmp_path / "rows")
        rows_of().store(tmp_path / "rows")
        with refused(FileExistsError, "Interactions.open"):
            rows_of().store(tmp_path / "rows")


def damaged_manifest(**change):
    def damage(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return damage


def overwritten(name, place, value):
    def damage(folder):
        array = np.load(folder / name, mmap_mode="r+")
        array[place] = value
        array.flush()

    return damage


def replaced(name, array):
    return lambda folder: np.save(folder / name, array, allow_pickle=True)


def cut(name, n_bytes=-1):
    def damage(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])

    return damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "rows"
    rows_of(n=80).store(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "rows"))


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (damaged_manifest(format="something"), ["holds no interactions"]),
            (damaged_manifest(version=2), ["another version"]),
            (damaged_manifest(n_rows=81), ["damaged", "shape"]),
            (damaged_manifest(n_rows=True), ["manifest.json is damaged"]),
            (damaged_manifest(values="yes"), ["manifest.json is damaged"]),
            (damaged_manifest(timestamps="complex64"), ["manifest.json is damaged"]),
            (damaged_manifest(blocks=[["user", 3]]), ["manifest.json is damaged"]),
            (damaged_manifest(blocks=[["user", 3], ["item", 0]]), ["manifest.json is damaged"]),
            (damaged_manifest(more=1), ["manifest.json is damaged"]),
            (cut("manifest.json", 30), ["holds no interactions"]),
            (cut("codes0.npy"), ["codes0.npy", "damaged"]),
            (cut("sorted1/others.npy"), ["others.npy", "damaged"]),
            (cut("sorted1/values.npy", 5), ["values.npy", "damaged"]),
            (lambda folder: (folder / "values.npy").unlink(), ["values.npy is missing"]),
            (replaced("values.npy", np.zeros(80)), ["values.npy", "float32", "damaged"]),
            (replaced("ids0.npy", np.zeros(3, object)), ["ids0.npy", "damaged"]),
            (overwritten("codes0.npy", 7, 10**6), ["users: row 7", "1000000"]),
            (overwritten("codes1.npy", 7, -1), ["items: row 7"]),
            (overwritten("codes3.npy", 2, 99), ["context 'shop'", "row 2"]),
            (overwritten("values.npy", 3, np.nan), ["values", "row 3 is nan"]),
            (overwritten("weights.npy", 3, -1), ["weights", "row 3"]),
            (overwritten("ids0.npy", slice(None), 5), ["user ids", "distinct"]),
            (overwritten("ids1.npy", 0, 255), ["ids1.npy", "UTF-8"]),
            (overwritten("ends1.npy", 0, -1), ["ends1.npy", "ascend"]),
            (overwritten("sorted0/indptr.npy", 1, 10**6), ["indptr.npy", "ascend"]),
            (overwritten("sorted0/indptr.npy", -1, 79), ["indptr.npy", "ascend"]),
        ],
    )
    def test_is_refused_on_opening(self, folder, damage, words):
        damage(folder)
        with refused(ValueError, *words):
            fmknn.Interactions.open(folder)

    @pytest.mark.parametrize("value", [-1, 0, 10**6])
    def test_entities_that_do_not_exist(self, folder, value):
        overwritten("sorted0/others.npy", (3, 1), value)(folder)
        rows = fmknn.Interactions.open(folder)
        with refused(ValueError, "others.npy is damaged", "entity outside"):
            fmknn.FMRegressor(2, solver="als", n_iter=1).fit(rows)

    def test_files_that_change_later(self, folder):
        rows = fmknn.Interactions.open(folder)
        cut("sorted0/values.npy", 200)(folder)
        with refused(ValueError, "values.npy ends before"):
            fmknn.FMRegressor(2, solver="als", n_iter=1).fit(rows)

    @pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.slow)])
    def test_any_byte(self, folder, rounds):
        generator = np.random.default_rng(rounds)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for number, path in enumerate(files * rounds):
            content = path.read_bytes()
            changed = bytearray(content)
            place = generator.integers(
                128 if path.suffix == ".npy" and number % 2 else len(content)
            )
            changed[place] ^= 1 << generator.integers(8)
            path.write_bytes(changed)
            try:
                rows = fmknn.Interactions.open(folder)
                fmknn.FMRegressor(2, solver="als", n_iter=1, random_state=0).fit(rows)
            except (ValueError, TypeError, DivergenceError) as error:
                assert "\n" not in str(error)
            path.write_bytes(content)


def test_pairs_of_item_lists_in_parts(monkeypatch):
    generator = np.random.default_rng(0)
    queries, items = generator.integers(0, 30, 500), generator.integers(0, 20, 500)
    pairs = sorted({*zip(queries.tolist(), items.tolist(), strict=True)})
    for at_once in (1, 7, 499, 500, 1 << 24):
        monkeypatch.setattr(index_base, "_PAIRS_AT_ONCE", at_once)
        for kind in (np.int32, np.uint64, np.int64):
            lists = fmknn.ItemLists.from_pairs(queries.astype(kind), items.astype(kind), 31)
            found = [column.tolist() for column in lists.pairs()]
            assert [*zip(*found, strict=True)] == pairs
            assert len(lists) == 31
