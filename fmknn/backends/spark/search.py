"""What a Spark task does: the items come with a broadcast, the users with the partition.

The items' side (vectors, index, contexts) is sent to each executor once, and made into an index
once by each Python worker, which goes on from task to task. Lists are those of this machine, to
the bit: whatever index selects, scores are summed in one fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..._checks import plain
from ...data.ids import IdMap, as_ids
from ...errors import UnknownIdError
from ...index.base import Index, ItemLists
from ...model.base import Model
from ...model.posterior import model_of_state
from ...model.projection import query_matrix
from ...serving.catalog import Catalog, ContextSide
from ...serving.queries import context_blocks, faded
from ...serving.service import Service
from ...serving.topn import TopN
from .users import BARRED, BIAS, USER, VECTOR, level_name

__all__ = ["EXCLUDE", "ItemSide", "Request", "Search"]

EXCLUDE = "exclude"
_ROWS = 1 << 18  # that are given back to Spark at a time

_Part = tuple[np.ndarray, np.ndarray]  # vector and bias of each query


@dataclass(frozen=True)
class Levels:
    """The levels of one context, projected, and their mean over the training rows."""

    ids: IdMap
    vectors: np.ndarray
    biases: np.ndarray
    mean: _Part

    @classmethod
    def of(cls, service: Service, name: str, side: ContextSide) -> Levels:
        """Project all levels: they are as few as their columns."""
        alone: Catalog = replace(service.catalog, contexts={name: side})
        mean = context_blocks(alone, None, 1, "mean")[name]
        vectors, biases = service.model.project(side.rows, n_jobs=service.n_jobs)
        ids = IdMap(side.ids.ids, name)
        return cls(ids, vectors, biases, mean.project(service.model, service.n_jobs))

    def take(self, places: np.ndarray) -> _Part:
        """Return the part of each query; -1 stands for no level."""
        known = places >= 0
        return (
            np.where(known[:, None], self.vectors[places], np.float32(0)),
            np.where(known, self.biases[places], 0.0),
        )


@dataclass(frozen=True)
class ItemSide:
    """All that is the same for every user: items, index and contexts.

    Attributes
    ----------
    model : FMParams or Posterior
        Without columns: what remains is the global bias and the scale of queries.
    items : IdMap
    vectors : ndarray of float32, shape (n_items, dim)
    kind : type
        Of the index.
    state, settings
        What the index is made of, beside the vectors.
    contexts : dict of str to Levels
    """

    model: Model
    items: IdMap
    vectors: np.ndarray
    kind: Any
    state: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    contexts: Mapping[str, Levels]

    @classmethod
    def of(cls, service: Service, n_jobs: int) -> ItemSide:
        """Take from a service what tasks need, to be searched by ``n_jobs`` threads.

        Raises
        ------
        TypeError
            For an index that can't be taken elsewhere.
        """
        index: Any = service.index
        if hasattr(index, "local"):  # it searches elsewhere: its twin on this machine
            index = index.local()
        if not (hasattr(index, "to_state") and hasattr(index, "from_state")):
            raise TypeError(
                f"an index of type {type(index).__name__} has no to_state and from_state, by which "
                'it would get to Spark: take with_index("exact")'
            )
        state, settings = index.to_state()
        if "n_jobs" in settings:
            settings = {**settings, "n_jobs": n_jobs}
        return cls(
            _without_columns(service.model),
            IdMap(service.catalog.items.ids, "item"),
            index.vectors,
            type(index),
            state,
            settings,
            {
                name: Levels.of(service, name, side)
                for name, side in service.catalog.contexts.items()
            },
        )

    @cached_property
    def index(self) -> Index:
        """The index, made where and when it is needed."""
        return self.kind.from_state(self.vectors, self.state, self.settings)


@dataclass(frozen=True)
class Request:
    """What is asked of every user alike.

    Attributes
    ----------
    n : int
    candidates, exclude_items : ndarray of int, or None
        Positions.
    levels : dict of str to id
        Contexts that are the same for all.
    unknown, context_default : str
    popularity : float
    """

    n: int
    candidates: np.ndarray | None
    exclude_items: np.ndarray | None
    levels: Mapping[str, Any]
    unknown: str
    context_default: str
    popularity: float


@dataclass(frozen=True)
class Search:
    """From record batches of users to those of recommendations.

    Attributes
    ----------
    items : Broadcast of ItemSide
    request : Request
    """

    items: Any
    request: Request

    def lists(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield rows (user, item, score, rank) of one partition's users, in their order."""
        import pyarrow as pa

        side: ItemSide = self.items.value  # a worker reads it once, and keeps it
        kinds = {"i": pa.int64(), "O": pa.string()}
        for batch in batches:
            if not batch.num_rows:
                continue
            user = pa.int64() if pa.types.is_integer(batch.column(USER).type) else pa.string()
            schema = pa.schema(
                [
                    ("user", user),
                    ("item", kinds[side.items.ids.dtype.kind]),
                    ("score", pa.float64()),
                    ("rank", pa.int32()),
                ]
            )
            top = _top(side, self.request, batch)
            yield from top.to_frame("pyarrow").cast(schema).to_batches(max_chunksize=_ROWS)


def _top(side: ItemSide, request: Request, batch: Any) -> TopN:
    users = _ids(batch, USER, "user")
    known = batch.column(VECTOR).is_valid().to_numpy(zero_copy_only=False)
    if request.unknown == "raise" and not known.all():
        stranger = plain(users[int(np.argmin(known))])
        raise UnknownIdError(
            f'user {stranger!r} is unknown to the model: use unknown="skip" or "cold"'
        )
    parts, complete = _parts(side, request, batch, known)
    kept = np.flatnonzero(complete) if request.unknown == "skip" else np.arange(len(users))
    rows, offsets = query_matrix(side.model, [(q[kept], b[kept]) for q, b in parts])
    hits = side.index.search(
        faded(rows, request.popularity),
        request.n,
        exclude=_exclude(side, request, batch).take(kept),
        candidates=request.candidates,
        **({} if request.exclude_items is None else {"exclude_items": request.exclude_items}),
    )
    return TopN.of(users[kept], hits, offsets, side.items, lambda top: top.scores)


def _parts(
    side: ItemSide, request: Request, batch: Any, known: np.ndarray
) -> tuple[list[_Part], np.ndarray]:
    """Return the blocks of each query, and whether all that is said of it is known."""
    policy = "raise" if request.unknown == "raise" else "mark"
    n, complete = len(known), known
    vectors = np.zeros((n, side.vectors.shape[1] - 1), np.float32)
    values, _ = _payload(batch.column(VECTOR).drop_null(), np.float32)
    vectors[known] = values.reshape(-1, vectors.shape[1])
    biases = batch.column(BIAS).fill_null(0.0).to_numpy(zero_copy_only=False)
    parts = [(vectors, biases)]
    for place, (name, context) in enumerate(side.contexts.items()):
        column = level_name(place)
        if column in batch.schema.names:
            places = context.ids.positions(_ids(batch, column, name), unknown=policy)
        elif name in request.levels:
            one = context.ids.positions([request.levels[name]], unknown=policy)
            places = np.repeat(one, n)
        else:
            if request.context_default == "mean":
                q, b = context.mean
                parts.append((np.repeat(q, n, axis=0), np.repeat(b, n)))
            continue
        complete = complete & (places >= 0)
        parts.append(context.take(places))
    return parts, complete


def _exclude(side: ItemSide, request: Request, batch: Any) -> ItemLists:
    """Return the items left out for each user: those of the driver, and those in the frame."""
    positions, lengths = _payload(batch.column(BARRED).fill_null(b""), np.int32)
    lists = ItemLists(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), positions)
    if EXCLUDE not in batch.schema.names:
        return lists
    column = batch.column(EXCLUDE)
    policy = "raise" if request.unknown == "raise" else "mark"
    more = side.items.positions(_id_array(column.flatten(), "item"), unknown=policy)
    counts = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    query, item = lists.pairs()
    return ItemLists.from_pairs(
        np.concatenate([query, np.repeat(np.arange(len(lists)), counts)[more >= 0]]),
        np.concatenate([item, more[more >= 0]]),
        len(lists),
    )


def _ids(batch: Any, column: str, what: str) -> np.ndarray:
    return _id_array(batch.column(column), what)


def _id_array(column: Any, what: str) -> np.ndarray:
    if column.null_count:
        raise TypeError(f"{what} ids must be integers or strings: there are rows that have none")
    return as_ids(column.to_numpy(zero_copy_only=False), what)


def _payload(column: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers in a column of bytes, one after another, and how many each row has."""
    import pyarrow as pa

    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    n = len(column)
    ends = np.frombuffer(offsets, np.int64, n + 1, 8 * column.offset)
    lengths = np.diff(ends) // np.dtype(dtype).itemsize
    if data is None or ends[0] == ends[-1]:
        return np.empty(0, dtype), lengths
    first, size = int(ends[0]), int(ends[-1] - ends[0])
    return np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, first), lengths


def _without_columns(model: Model) -> Model:
    state = dict(model.to_state())
    state["w"], state["V"] = state["w"][..., :0], state["V"][..., :0, :]
    return model_of_state(state)
