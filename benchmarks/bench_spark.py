"""Lists for everybody by Spark: users per second against one machine, and what it costs beside.

Two executors of one core each (``local-cluster``) stand for a cluster; the same users and items on
this machine by two threads are what they are held against. Vectors are generated as
in ``bench_topn.py`` (FM-like, in topics). From what is measured it works out 100 million users ×
top-100 of 1 million items on 100 cores.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _report import environment, parser, print_environment, print_table, write_json
from _spark_measure import cost, memory, session, shuffle_bytes, workers
from _topn_data import flat, fm_like, made, planted

import fmknn
from fmknn.errors import MissingExtraError

N = 100
PARTITIONS = (4, 16, 64)
ROWS = {"planted": planted, "fm-like": fm_like, "flat": flat}
MANY_USERS, CORES = 100_000_000, 100


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--items", type=int, help="instead of 1,000,000")
    options.add_argument("--users", type=int, help="instead of 65,536")
    options.add_argument("--factors", type=int, default=64)
    options.add_argument("--rows", choices=ROWS, default="planted", help="how vectors are made")
    arguments = options.parse_args()
    n_items = arguments.items or (20_000 if arguments.quick else 1_000_000)
    n_users = arguments.users or (2_000 if arguments.quick else 65_536)
    facts = environment()
    print_environment(facts)
    model = _model(n_items, n_users, arguments.factors, arguments.rows)
    here = _here(model, n_users)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with session("local-cluster[2,1,2048]", folder) as spark:
            figures = {**here, **_there(spark, model, n_users, folder)}
        figures["shuffle bytes per user"] = shuffle_bytes(folder, "joined") / n_users
    print_table([{"figure": name, "value": value} for name, value in figures.items()])
    projected = _projected(figures)
    print(f"{MANY_USERS:,} users × top-{N} of {n_items:,} items on {CORES} cores:")
    print_table([{"figure": name, "value": value} for name, value in projected.items()])
    write_json(arguments.json, facts, results=figures, projected=projected)


def _model(n_items: int, n_users: int, n_factors: int, rows: str) -> fmknn.Recommender:
    """Return a model of generated vectors, with 50 items seen by a user on average."""
    work = made("spark", ROWS[rows], n_items, n_factors + 1, n_users, N, seen=50)
    users, items = np.arange(n_users), np.arange(n_items)
    assert work.exclude is not None
    params = fmknn.FMParams(
        0.0,
        np.concatenate([np.zeros(n_users, np.float32), work.vectors[:, -1]]),
        np.concatenate([work.queries[:, :-1], work.vectors[:, :-1]]),
    )
    return fmknn.Recommender.from_params(
        params, users=users, items=items, seen=work.exclude.pairs()
    )


def _here(model: fmknn.Recommender, n_users: int) -> dict[str, float]:
    service = fmknn.Recommender(model.estimator, index=fmknn.ExactIndex(n_jobs=2))
    service.estimator_, service.catalog_ = model.estimator_, model.catalog_
    service.index_ = model.index_
    service.recommend(model.users.ids[:64], N)  # compiled, and in the caches
    since, cpu = time.perf_counter(), time.process_time()
    for _ in service.recommend_all(N):
        pass
    seconds, cpu = time.perf_counter() - since, time.process_time() - cpu
    return {
        "here: users per second, 2 threads": n_users / seconds,
        "here: CPU ms per user": 1e3 * cpu / n_users,
    }


def _there(spark: Any, model: fmknn.Recommender, n_users: int, folder: Path) -> dict[str, float]:
    backend = fmknn.SparkBackend(spark)
    there = model.with_backend(backend)
    few = model.users.ids[: min(512, n_users)]
    first = cost(lambda: _written(there.recommend_all(N, users=few)))
    second = cost(lambda: _written(there.recommend_all(N, users=few)))
    run = cost(lambda: _written(there.recommend_all(N)))
    used = memory()
    assert backend._sent is not None
    size = Path(backend._sent[1]._path).stat().st_size
    spark.sparkContext.setJobGroup("joined", "joined")
    users = spark.range(n_users).withColumnRenamed("id", "user")
    joined = cost(lambda: _written(there.recommend_all(N, users=users)))
    spark.sparkContext.setJobGroup("other", "other")
    target = folder / "recs.parquet"
    to_parquet = cost(lambda: there.recommend_all(N, to=target))
    n_bytes = sum(path.stat().st_size for path in target.glob("*.parquet"))
    return {
        "Spark: users per second, 2 executors of 1 core": n_users / run.seconds,
        "Spark: CPU ms of Python workers per user": 1e3 * run.worker_seconds / n_users,
        "Spark: all users of a DataFrame, joined": n_users / joined.seconds,
        "Spark: all users, written to Parquet": n_users / to_parquet.seconds,
        "Parquet bytes per recommendation": n_bytes / n_users / N,
        "first run of a worker, seconds more": first.seconds - second.seconds,
        "executor seconds per partition": _per_partition(spark),
        "broadcast MB": size / 1e6,
        "workers": float(len(workers())),
        "worker RSS MB, largest": max(one["rss"] for one in used),
        "worker PSS MB, largest": max(one["pss"] for one in used),
    }


def _written(lists: Any) -> None:
    lists.write.format("noop").mode("overwrite").save()  # computed, and given to nobody


def _per_partition(spark: Any) -> float:
    """Return what a partition costs whatever is in it, by the slope over their number."""
    model = _model(1000, 2000, 8, "planted")
    seconds = []
    for n_partitions in PARTITIONS:
        there = model.with_backend(fmknn.SparkBackend(spark, partitions=n_partitions))
        write = partial(_written, there.recommend_all(1))
        write()
        seconds.append(min(cost(write).seconds for _ in range(3)))
    return 2 * float(np.polyfit(PARTITIONS, seconds, 1)[0])  # two of them run side by side


def _projected(figures: dict[str, float]) -> dict[str, float]:
    search = MANY_USERS * 2 / figures["Spark: all users, written to Parquet"]
    n_partitions = MANY_USERS / 8192
    overhead = n_partitions * figures["executor seconds per partition"]
    first = CORES * max(figures["first run of a worker, seconds more"], 0.0)
    return {
        "core hours of searching and writing": search / 3600,
        "core hours of partitions": overhead / 3600,
        "core hours of first runs": first / 3600,
        "hours": (search + overhead + first) / CORES / 3600,
        "shuffle GB, users in a DataFrame": MANY_USERS * figures["shuffle bytes per user"] / 1e9,
        "rows written, billions": MANY_USERS * N / 1e9,
        "Parquet GB": MANY_USERS * N * figures["Parquet bytes per recommendation"] / 1e9,
    }


if __name__ == "__main__":
    try:
        main()
    except MissingExtraError as error:
        raise SystemExit(str(error)) from None
