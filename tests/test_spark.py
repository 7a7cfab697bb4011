"""What the Spark backend does without a cluster: settings, tables, tasks, refusals. No JVM."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

import fmknn
from fmknn.backends.spark.search import ItemSide, Request, Search
from fmknn.backends.spark.sinks import JDBC, ParquetOfSpark, sink_for
from fmknn.backends.spark.users import LeftOut, strangers, user_tables
from fmknn.errors import MissingExtraError, UnknownIdError


@pytest.fixture(scope="module")
def model():
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=60, n_items=200, n_ratings=900, context=4, random_state=0
    )
    estimator = fmknn.FMRegressor(3, solver="mcmc", n_iter=3, random_state=0)
    return fmknn.Recommender(estimator, index=fmknn.ExactIndex(n_jobs=1)).fit(ratings)


def request(**settings) -> Request:
    default = {
        "n": 7,
        "candidates": None,
        "exclude_items": None,
        "levels": {},
        "unknown": "raise",
        "context_default": "mean",
        "popularity": 1.0,
    }
    return Request(**{**default, **settings})


def task(model, asked: Request):
    """A task as an executor gets it: pickled, with what a broadcast has."""
    side = pickle.loads(pickle.dumps(ItemSide.of(model._service, 1)))
    return Search(SimpleNamespace(value=side), asked)


def tables(model, users, chunk=16, levels=None, unknown="raise", seen=True, more=None):
    left_out = LeftOut(seen, more)
    return user_tables(
        model._service, users, chunk, levels=levels or {}, unknown=unknown, left_out=left_out
    )


def rows_of(search, tables) -> list[tuple]:
    batches = [batch for table in tables for batch in table.to_batches()]
    lists = [batch.to_pylist() for batch in search.lists(iter(batches))]
    return [tuple(row.values()) for part in lists for row in part]


def rows_here(model, users, n=7, **options) -> list[tuple]:
    options = {"context_default": "mean", **options}
    return [
        (user, item, score, rank)
        for user, pairs in model.recommend(users, n, **options)
        for rank, (item, score) in enumerate(pairs, 1)
    ]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_task_gives_the_bits_of_this_machine(model, chunk):
    users = model.users.ids
    got = rows_of(task(model, request()), tables(model, users, chunk))
    assert got == rows_here(model, users)


def test_a_task_reads_parts_of_batches(model):
    [table] = tables(model, model.users.ids, 1000)
    parts = [table.slice(start, 11) for start in range(0, len(table), 11)]
    assert rows_of(task(model, request()), parts) == rows_here(model, model.users.ids)


def test_levels_travel_with_the_users(model):
    users = model.users.ids[:20]
    levels = {"context": np.resize(model.contexts["context"].ids, 20)}
    got = rows_of(task(model, request()), tables(model, users, levels=levels))
    assert got == rows_here(model, users, context=levels)


@pytest.mark.parametrize("popularity", [0.0, 0.5])
def test_popularity_fades(model, popularity):
    got = rows_of(task(model, request(popularity=popularity)), tables(model, model.users.ids))
    assert got == rows_here(model, model.users.ids, popularity=popularity)


@pytest.mark.parametrize("unknown", ["cold", "skip"])
def test_strangers_are_cold_or_left_out(model, unknown):
    users = np.array([3, -5, 4, -6])
    more = {-5: model.items.ids[:100], 4: model.items.ids[50:]}
    search = task(model, request(unknown=unknown))
    got = rows_of(search, tables(model, users, unknown=unknown, more=more))
    assert got == rows_here(model, users, unknown=unknown, exclude=more)
    assert strangers(model._service, LeftOut(True, more)).tolist() == [-5]


def test_a_stranger_in_a_task_is_named(model):
    search = task(model, request(unknown="raise"))
    with refused(UnknownIdError, "-5", "skip"):
        rows_of(search, tables(model, np.array([3, -5]), unknown="cold"))


def test_a_user_without_an_id_is_refused(model):
    [table] = tables(model, model.users.ids[:2])
    table = table.set_column(0, "user", pa.array([3, None], pa.int64()))
    with refused(TypeError, "user ids", "none"):
        rows_of(task(model, request()), [table])


def test_lists_of_a_frame_are_left_out_too(model):
    users = model.users.ids[:3]
    [table] = tables(model, users)
    ids = model.items.ids
    given = [ids[:50].tolist(), None, ids[60:150].tolist()]
    table = table.append_column("exclude", pa.array(given, pa.list_(pa.int64())))
    exclude = {user: items or [] for user, items in zip(users.tolist(), given, strict=True)}
    got = rows_of(task(model, request()), [table])
    assert got == rows_here(model, users, exclude=exclude)
    strange = table.set_column(
        table.schema.get_field_index("exclude"),
        "exclude",
        pa.array([[-1], [], []], pa.list_(pa.int64())),
    )
    with refused(UnknownIdError, "-1"):
        rows_of(task(model, request()), [strange])
    got = rows_of(task(model, request(unknown="cold")), [strange])
    assert got == rows_here(model, users)


def test_the_items_side_has_no_users(model):
    side = ItemSide.of(model._service, 2)
    assert side.model.n_features == 0
    assert side.settings["n_jobs"] == 2
    size = len(pickle.dumps(side))
    assert size < 2 * side.vectors.nbytes + 20_000


def test_an_index_that_can_not_travel_is_refused(model):
    class Own:
        vectors = model.index_.vectors

    other = fmknn.Recommender(model.estimator)
    other.estimator_, other.catalog_, other.index_ = model.estimator_, model.catalog_, Own()
    with refused(TypeError, "Own", "to_state"):
        ItemSide.of(other._service, 1)


def test_sinks_by_name(tmp_path):
    assert sink_for(tmp_path / "recs.parquet") == ParquetOfSpark(str(tmp_path / "recs.parquet"))
    assert sink_for("s3a://lake/recs/") == ParquetOfSpark("s3a://lake/recs")
    assert sink_for("jdbc:derby:shop") == JDBC("jdbc:derby:shop")
    own = JDBC("jdbc:derby:shop", "lists", {"password": "secret"})
    assert sink_for(own) is own
    assert "secret" not in repr(own)
    for name in ("recs.jsonl", "sqlite:///recs.db"):
        with refused(ValueError, name, "with_backend(None)"):
            sink_for(name)
    with refused(TypeError, "int"):
        sink_for(3)


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"max_iter": 0}, "max_iter"),
        ({"reg_param": -1}, "reg_param"),
        ({"step_size": 0}, "step_size"),
        ({"mini_batch_fraction": 1.5}, "mini_batch_fraction"),
        ({"init_std": float("nan")}, "init_std"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_settings_out_of_range(settings, word):
    with refused(ValueError, word):
        fmknn.SparkFM(**settings)


def test_spark_fm_needs_spark(model):
    ratings = fmknn.Interactions.from_arrays([1, 2], [1, 2], [1.0, 2.0])
    estimator = fmknn.FMRegressor(2, solver=fmknn.SparkFM(), n_iter=7)
    assert estimator.solver_spec().config.max_iter == 7
    with refused(ValueError, "SparkBackend"):
        fmknn.Recommender(estimator).fit(ratings)
    with refused(ValueError, "SparkFM does not learn"):
        fmknn.FMRegressor(2, solver=fmknn.SparkFM(), loss="ordinal").solver_spec()
    with refused(ValueError, "SparkFM does not learn"):
        fmknn.FMRanker(2, solver=fmknn.SparkFM()).solver_spec()


@pytest.mark.parametrize("spark", [None, "local[2]", object()])
def test_another_thing_than_a_session(spark):
    pytest.importorskip("pyspark")
    with refused(TypeError, "SparkSession"):
        fmknn.SparkBackend(spark)


def test_without_pyspark_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with refused(MissingExtraError, "fmknn[spark]"):
        fmknn.SparkBackend(None)


def test_a_model_of_spark_loads_without_pyspark(model, tmp_path):
    import copy

    other = copy.copy(model)
    other.estimator_ = copy.copy(model.estimator_)
    other.estimator_.solver = fmknn.SparkFM(max_iter=9)
    other.save(tmp_path / "model.fmknn")
    code = (
        "import sys; sys.modules['pyspark'] = None; import fmknn; "
        f"model = fmknn.load({str(tmp_path / 'model.fmknn')!r}); "
        "print(model.estimator.solver.max_iter, model.recommend([3], 2, context_default='mean'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("9 TopN(")
