"""The users' side of a search, as Arrow tables: id, vector, bias, and the items left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...index.base import ItemLists
from ...serving.queries import Queries, design_queries, exclusions
from ...serving.service import Service

__all__ = [
    "BARRED",
    "BIAS",
    "USER",
    "VECTOR",
    "LeftOut",
    "level_name",
    "strangers",
    "user_tables",
]

USER, VECTOR, BIAS, BARRED = "user", "vector", "bias", "barred"


@dataclass(frozen=True)
class LeftOut:
    """What is left out of each user's list.

    Attributes
    ----------
    seen : bool
        The items of the user's training rows.
    more : mapping of user id to ndarray of item ids, or None
    """

    seen: bool
    more: Mapping[Any, Any] | None

    def of(self, users: np.ndarray) -> Mapping[Any, Any] | None:
        """Return what more is left out for these users: who is not asked for costs nothing."""
        if self.more is None:
            return None
        return {user: self.more[user] for user in users.tolist() if user in self.more}


def level_name(place: int) -> str:
    """Return the column that has the levels of a context, given by its place in the model."""
    return f"level{place}"


def user_tables(
    service: Service,
    users: np.ndarray,
    chunk: int,
    *,
    levels: Mapping[str, np.ndarray],
    unknown: str,
    left_out: LeftOut,
) -> Iterator[Any]:
    """Yield a pyarrow table for each chunk of the users, in their order; one at least.

    Parameters
    ----------
    service : Service
    users : ndarray of ids, shape (n,)
    chunk : int
        Users per table.
    levels : mapping of str to ndarray of ids, shape (n,)
        Of contexts that differ from user to user; they go along as they are.
    unknown : {"raise", "skip", "cold"}
        Users that are unknown have no vector under "cold".
    left_out : LeftOut

    Yields
    ------
    pyarrow.Table
        Columns user, vector (float32 bytes, null for an unknown user), bias, barred (ascending
        item positions, int32 bytes), and those of the levels.
    """
    for start in range(0, max(len(users), 1), chunk):
        part = slice(start, start + chunk)
        own = {name: ids[part] for name, ids in levels.items()}
        yield _table(service, users[part], own, unknown, left_out)


def strangers(service: Service, left_out: LeftOut) -> np.ndarray:
    """Return the users of whom it is said what is left out, but whom the model does not know."""
    known = service.catalog.users
    if not left_out.more:
        return known.ids[:0]
    users = np.array(list(left_out.more), known.ids.dtype)
    return users[known.positions(users, unknown="mark") < 0]


def _table(
    service: Service,
    users: np.ndarray,
    levels: Mapping[str, np.ndarray],
    unknown: str,
    left_out: LeftOut,
) -> Any:
    import pyarrow as pa

    catalog = replace(service.catalog, contexts={})
    design = design_queries(catalog, users, None, unknown=unknown)
    kept, positions = design.kept, design.user_positions
    vectors, biases = service.model.project(
        catalog.user_rows.take(positions), n_jobs=service.n_jobs
    )
    queries = Queries(design, np.empty((len(kept), 0), np.float32), np.empty(0))
    barred = exclusions(catalog, users, queries, left_out.seen, left_out.of(users), unknown)
    columns = {
        USER: _id_column(users[kept], catalog.users.ids),
        VECTOR: _vector_column(vectors, positions >= 0),
        BIAS: pa.array(biases),
        BARRED: _list_column(barred),
    }
    for place, (name, side) in enumerate(service.catalog.contexts.items()):
        if name in levels:
            side.ids.positions(levels[name], unknown="raise" if unknown == "raise" else "mark")
            columns[level_name(place)] = _id_column(levels[name][kept], side.ids.ids)
    return pa.table(columns)


def _id_column(ids: np.ndarray, like: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(ids if len(ids) else [], pa.int64() if like.dtype.kind == "i" else pa.string())


def _vector_column(vectors: np.ndarray, known: np.ndarray) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    n, width = vectors.shape
    offsets = np.arange(n + 1) * (width * vectors.itemsize)
    column = _binary(np.ascontiguousarray(vectors), offsets)
    return column if known.all() else pc.if_else(pa.array(known), column, None)


def _list_column(lists: ItemLists) -> Any:
    return _binary(np.ascontiguousarray(lists.indices), lists.indptr * lists.indices.itemsize)


def _binary(values: np.ndarray, offsets: np.ndarray) -> Any:
    """Make a column of bytes of an array's memory, which is not copied."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
