"""Data frames of Spark with the users' side of a search: of a list of users, or of a frame."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...serving.service import Service
from .search import EXCLUDE
from .users import USER, LeftOut, level_name, strangers, user_tables

__all__ = ["UserFrames", "columns_of", "schema_of_lists"]

_MOST_USERS = 8192  # of a table: as many queries as an index prepares together
_LEAST_USERS = 256  # of a partition: fewer cost more to send than to answer
_INTEGERS = ("byte", "short", "integer", "long")


@dataclass(frozen=True)
class UserFrames:
    """Makes data frames whose partitions are searched.

    Attributes
    ----------
    spark : SparkSession
    partitions : int or None
    scratch : str or None
        Where the users are written to, instead of being held in the driver.
    """

    spark: Any
    partitions: int | None
    scratch: str | None

    def listed(
        self,
        service: Service,
        users: np.ndarray,
        levels: Mapping[str, np.ndarray],
        unknown: str,
        left_out: LeftOut,
    ) -> Any:
        """Return the frame of some users of this machine, in their order."""
        import pyarrow as pa

        wanted = self.partitions or 2 * self.spark.sparkContext.defaultParallelism
        chunk = min(max(-(-len(users) // wanted), 1), _MOST_USERS)
        if self.partitions is None:
            chunk = max(chunk, _LEAST_USERS)
        tables = user_tables(
            service,
            users,
            chunk,
            levels=levels,
            unknown=unknown,
            left_out=left_out,
        )
        if self.scratch is not None:
            return self.spark.read.parquet(_written(tables, self.scratch))
        frame = self.spark.createDataFrame(pa.concat_tables(tables))
        # a few megabytes are cut by Spark's own measure, whatever the tables were
        if self.partitions in (None, frame.rdd.getNumPartitions()):
            return frame
        return frame.repartition(self.partitions)

    def joined(
        self,
        service: Service,
        frame: Any,
        columns: Mapping[str, str],
        unknown: str,
        left_out: LeftOut,
    ) -> Any:
        """Return the users of a data frame of Spark with their side of the model."""
        catalog = service.catalog
        known = np.concatenate([catalog.users.ids, strangers(service, left_out)])
        table = self.listed(service, known, {}, "cold", left_out)
        chosen = [_column(frame, columns[USER]).cast(_id_type(catalog.users.ids)).alias(USER)]
        for place, name in enumerate(catalog.contexts):
            if name in columns:
                chosen.append(_column(frame, columns[name]).alias(level_name(place)))
        if EXCLUDE in columns and EXCLUDE not in catalog.contexts:
            chosen.append(_column(frame, columns[EXCLUDE]).alias(EXCLUDE))
        asked = frame.select(*chosen)
        if self.partitions is not None:
            asked, table = (side.repartition(self.partitions, USER) for side in (asked, table))
        return asked.join(table, USER, "inner" if unknown == "skip" else "left")


def columns_of(frame: Any, service: Service) -> dict[str, str]:
    """Return which column has the users, the items left out and the levels of each context."""
    contexts, names = service.catalog.contexts, list(frame.columns)
    user = USER if USER in names else names[0]
    columns = {USER: user}
    kinds = {field.name: field.dataType for field in frame.schema.fields}
    _require_kind(kinds[user], service.catalog.users.ids, user)
    for name in names:
        if name == user:
            continue
        if name in contexts:
            _require_kind(kinds[name], contexts[name].ids.ids, name)
        elif name == EXCLUDE and kinds[name].typeName() == "array":
            _require_kind(kinds[name].elementType, service.catalog.items.ids, name)
        else:
            known = ", ".join([USER, *contexts, EXCLUDE])
            raise ValueError(
                f"column {name!r} of users is not one of {known} (which has arrays): select those "
                "that are meant"
            )
        columns[name] = name
    return columns


def _require_kind(kind: Any, ids: np.ndarray, column: str) -> None:
    integers = ids.dtype.kind == "i"
    if kind.typeName() not in (_INTEGERS if integers else ("string",)):
        have = "integers" if integers else "strings"
        raise TypeError(
            f"column {column!r} of users has {kind.simpleString()}, the model's ids are {have}"
        )


def _column(frame: Any, name: str) -> Any:
    return frame["`" + name.replace("`", "``") + "`"]


def _id_type(ids: np.ndarray) -> str:
    return "bigint" if ids.dtype.kind == "i" else "string"


def schema_of_lists(service: Service) -> str:
    user, item = (_id_type(side.ids) for side in (service.catalog.users, service.catalog.items))
    return f"user {user}, item {item}, score double, rank int"


def _written(tables: Any, scratch: str) -> str:
    """Write tables, one file each, into a new folder; return its address."""
    import pyarrow.fs
    import pyarrow.parquet

    name = f"{scratch.rstrip('/')}/fmknn-users-{secrets.token_hex(8)}.parquet"
    system, path = pyarrow.fs.FileSystem.from_uri(name)
    system.create_dir(path)
    for number, table in enumerate(tables):
        file = f"{path}/part-{number:06}.parquet"
        pyarrow.parquet.write_table(
            table, file, filesystem=system, use_dictionary=False, write_statistics=False
        )
    return name
