"""What tests of the Spark backend share: one session of a small cluster, and tasks that fail."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MASTER = "local-cluster[2,1,1024]"  # two executors of one core and 1024 MB
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.task.maxFailures": "2",
    "spark.sql.shuffle.partitions": "3",
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}
_sessions: dict[str, object] = {}


def session(config: pytest.Config, folder: Path):
    """Return the one session of the whole run of the tests; it ends with them."""
    if "spark" not in _sessions:
        require_java()
        _sessions["spark"] = new_session(MASTER, folder)
        config.add_cleanup(_stop)
    return _sessions["spark"]


def require_java() -> None:
    """Skip the test where no JVM can be started."""
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("needs Java 17 or later: neither `java` nor JAVA_HOME is there")
    pytest.importorskip("pyspark", reason="needs pyspark: pip install 'fmknn[spark]'")


def new_session(master: str, folder: Path, **settings: str):
    """Start a session whose workers run this Python, with this checkout of fmknn."""
    from pyspark.sql import SparkSession

    logging.getLogger("py4j").setLevel(logging.ERROR)
    own = {"spark.local.dir": str(folder), "spark.sql.warehouse.dir": str(folder / "warehouse")}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pyspark, about pandas
        patch.setenv("PYSPARK_PYTHON", sys.executable)  # read when the context starts
        patch.delenv("SPARK_HOME", raising=False)
        builder = SparkSession.builder.master(master).appName("fmknn tests")
        for name, value in {**_SETTINGS, **own, **settings}.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()


def _stop() -> None:
    import pyspark

    spark = _sessions.pop("spark")
    application = spark.sparkContext.applicationId
    spark.stop()
    # executors of a local-cluster leave their folder in the package
    shutil.rmtree(Path(pyspark.__file__).parent / "work" / application, ignore_errors=True)


def fails_first(folder: str, batches):
    """Break off the first attempt at each partition once its rows are on their way.

    The first partition's process is killed, the others raise.
    """
    from pyspark import TaskContext

    task = TaskContext.get()
    yield from batches
    if task.attemptNumber() == 0:
        Path(folder, f"failed-{task.partitionId()}").touch()
        if task.partitionId() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("the machine has gone")
