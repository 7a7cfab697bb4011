"""A Spark session of this machine, and what its Python workers and its event log tell."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).parent.parent


class Cost(NamedTuple):
    """What a run took: seconds by the clock, and CPU seconds of the Python workers."""

    seconds: float
    worker_seconds: float


@contextmanager
def session(master: str, folder: Path) -> Iterator[Any]:
    """Start Spark, with an event log in the folder, and stop it."""
    import pyspark
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.driver.memory": "4g",
        "spark.local.dir": str(folder),
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.sql.autoBroadcastJoinThreshold": "-1",  # joins as of large tables
    }
    builder = SparkSession.builder.master(master).appName("fmknn benchmark")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        application = spark.sparkContext.applicationId
        spark.stop()
        # executors of a local-cluster leave their folder in the package
        work = Path(pyspark.__file__).parent / "work" / application
        shutil.rmtree(work, ignore_errors=True)


def workers() -> list[psutil.Process]:
    """Return the Python workers of all executors: those that a daemon has forked."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            parent = process.parent()
            if _is_daemon(process) and parent is not None and _is_daemon(parent):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _is_daemon(process: psutil.Process) -> bool:
    return "pyspark.daemon" in " ".join(process.cmdline())


def cost(work: Callable[[], Any]) -> Cost:
    """Run something that starts no worker, and say what it took."""
    before, since = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - since
    return Cost(seconds, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    return sum(sum(process.cpu_times()[:2]) for process in workers())


def memory() -> list[dict[str, float]]:
    """Return resident and proportional memory of each worker in MB."""
    infos = [process.memory_full_info() for process in workers()]
    return [{"rss": info.rss / 1e6, "pss": info.pss / 1e6} for info in infos]


def shuffle_bytes(folder: Path, group: str) -> int:
    """Return what the tasks of a group of jobs wrote to be shuffled."""
    [log] = [path for path in folder.iterdir() if path.is_file() and path.name.startswith("app-")]
    stages: set[int] = set()
    total = 0
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["Event"] == "SparkListenerJobStart":
            if event.get("Properties", {}).get("spark.jobGroup.id") == group:
                stages |= set(event["Stage IDs"])
        elif event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages:
            metrics = event.get("Task Metrics", {}).get("Shuffle Write Metrics", {})
            total += metrics.get("Shuffle Bytes Written", 0)
    return total
