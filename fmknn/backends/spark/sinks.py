"""Where Spark writes lists to: a Parquet folder, or a table of a database by JDBC."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ...errors import UnknownIdError

__all__ = ["JDBC", "ParquetOfSpark", "sink_for"]

_OURS = re.compile(r"part-.*\.parquet|_SUCCESS|_manifest\.json|_temporary|\..*")
_UNKNOWN = re.compile(r"UnknownIdError: (.+)")
_COLUMNS = ("user_id", "item_id", "score", "rank")


@dataclass(frozen=True)
class JDBC:
    """A table of a database, written by Spark.

    The columns are user_id, item_id, score and rank. The table is replaced, if it was one of
    these. That is not done at one stroke, as no statement for it is common to all databases: read
    it when the run is over. Ask for each user once: lists that are there twice are an error, since
    a task that is repeated after it had written leaves them, too.

    Parameters
    ----------
    url : str
        As the driver has it: ``jdbc:postgresql://host/shop``.
    table : str
    properties : mapping of str to str
        Of the connection: user, password, driver (its class, where Spark does not find it).

    Examples
    --------
    >>> JDBC("jdbc:postgresql://host/shop", properties={"user": "me", "password": "secret"})
    JDBC(url='jdbc:postgresql://host/shop', table='recommendations')
    """

    url: str
    table: str = "recommendations"
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    def write(self, spark: Any, lists: Any) -> int:
        """Replace the table by these lists; return the number of users that have one."""
        old = self._columns(spark)
        if old is not None and old != [*_COLUMNS]:
            raise ValueError(
                f"the table {self.table} has the columns {', '.join(old)}, it is not one of "
                "recommendations: name another one"
            )
        renamed = lists.toDF(*_COLUMNS)
        with_errors(
            lambda: renamed.write.jdbc(
                self.url, self.table, mode="overwrite", properties=dict(self.properties)
            )
        )
        n_lists, n_users = _counts(self._read(spark, self.table), "user_id")
        if n_lists != n_users:
            raise OSError(
                f"the table {self.table} has {n_lists - n_users} lists twice: a user was asked for "
                "twice, or a task was repeated after it had written; run it again"
            )
        return n_users

    def _columns(self, spark: Any) -> list[str] | None:
        """Return the columns of the table, None where there is none, or no connection."""
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        try:
            return [name.lower() for name in self._read(spark, self.table).columns]
        except (PySparkException, Py4JJavaError):
            return None  # to write will say what is wrong, if it is more than that

    def _read(self, spark: Any, table: str) -> Any:
        return spark.read.jdbc(self.url, table, properties=dict(self.properties))


@dataclass(frozen=True)
class ParquetOfSpark:
    """A folder of Parquet files in any file system that Spark knows.

    The columns are user, item, score and rank. It is written beside, as ``NAME.unfinished``, and
    takes the place of an earlier one when it is complete: by deleting that and renaming, which an
    object store does file by file.
    """

    path: str

    def write(self, spark: Any, lists: Any) -> int:
        """Put these lists into the folder's place; return the number of users that have one."""
        target, unfinished = (_Folder.of(spark, self.path + end) for end in ("", ".unfinished"))
        for folder in (target, unfinished):
            folder.require_ours()
        target.require_lists(spark)
        with_errors(lambda: lists.write.mode("overwrite").parquet(unfinished.name))
        target.require_ours()
        target.replace_by(unfinished)
        return _counts(spark.read.parquet(self.path), "user")[0]


@dataclass(frozen=True)
class _Folder:
    name: str
    path: Any
    system: Any

    @classmethod
    def of(cls, spark: Any, name: str) -> _Folder:
        from py4j.protocol import Py4JJavaError

        context = spark.sparkContext
        path = context._jvm.org.apache.hadoop.fs.Path(name)
        try:
            system = path.getFileSystem(context._jsc.hadoopConfiguration())
        except Py4JJavaError as error:
            why = str(error.java_exception).splitlines()[0]
            raise ValueError(f"Spark can't write to {name}: {why}") from None
        return cls(name, path, system)

    def require_ours(self) -> None:
        """Refuse a folder that holds anything a run did not write: it would be removed."""
        if not self.system.exists(self.path):
            return
        if not self.system.getFileStatus(self.path).isDirectory():
            raise ValueError(f"{self.name} is no folder: name another one for the Parquet files")
        names = sorted(entry.getPath().getName() for entry in self.system.listStatus(self.path))
        others = [name for name in names if not _OURS.fullmatch(name)]
        if others:
            raise ValueError(
                f"{self.name} holds {others[0]!r}, which no run has written: name another folder"
            )

    def require_lists(self, spark: Any) -> None:
        """Refuse Parquet files of something else, which Spark names in the same way."""
        if not self.system.exists(self.path):
            return
        names = [entry.getPath().getName() for entry in self.system.listStatus(self.path)]
        if not any(name.endswith(".parquet") for name in names):
            return
        columns = spark.read.parquet(self.name).columns
        if columns != ["user", "item", "score", "rank"]:
            raise ValueError(
                f"{self.name} has the columns {', '.join(columns)}, it is not one of "
                "recommendations: name another folder"
            )

    def replace_by(self, other: _Folder) -> None:
        self.system.delete(self.path, True)
        if not self.system.rename(other.path, self.path):
            raise OSError(f"{other.name} is complete, but could not be renamed to {self.name}")


def sink_for(to: Any) -> Any:
    """Return the sink that a path or an address stands for; a sink is returned as it is.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        For a name that promises another kind of file, or a database without JDBC.

    Examples
    --------
    >>> sink_for("hdfs://lake/recs.parquet")
    ParquetOfSpark(path='hdfs://lake/recs.parquet')
    >>> sink_for("jdbc:postgresql://host/shop")
    JDBC(url='jdbc:postgresql://host/shop', table='recommendations')
    """
    if isinstance(to, (JDBC, ParquetOfSpark)):
        return to
    try:
        name = os.fsdecode(to)
    except TypeError:
        raise TypeError(
            f"to must be a path, a jdbc: address or a JDBC sink on Spark, got {type(to).__name__}"
        ) from None
    if name.startswith("jdbc:"):
        return JDBC(name)
    if PurePosixPath(name).suffix not in ("", ".parquet"):
        raise ValueError(
            f"Spark writes Parquet folders (….parquet) and databases (jdbc:…), not {name!r}: "
            "write that from one machine, with_backend(None)"
        )
    return ParquetOfSpark(name.rstrip("/"))


def _counts(written: Any, user: str) -> tuple[int, int]:
    """Return how many lists there are, and of how many users, by their first rows alone.

    Read back rather than observed on the way: Spark 4.0 can't run some jobs of its own, the
    transform() of a classifier among them, in a session in which a data frame was observed.
    """
    from pyspark.sql import functions

    first = written.where("rank = 1")
    counted = first.select(functions.count(user), functions.count_distinct(user)).first()
    return int(counted[0]), int(counted[1])


def with_errors(work: Any) -> None:
    """Run a job; what a task said of an id becomes an error of one line."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        work()
    except (PySparkException, Py4JJavaError) as error:
        told = _UNKNOWN.search(str(error))
        if told is None:
            raise
        raise UnknownIdError(told.group(1).strip()) from None
