"""Users and context in, query rows, offsets and exclusion lists out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .._checks import require_number
from ..data.ids import IdMap, as_ids
from ..data.rows import SparseRows
from ..index.base import ItemLists
from ..model.base import Model
from ..model.projection import query_matrix
from .catalog import Catalog, ContextSide

__all__ = [
    "Block",
    "Entities",
    "Queries",
    "QueryDesign",
    "context_blocks",
    "design_queries",
    "evenly",
    "exclusions",
    "faded",
    "id_list",
    "known_positions",
    "levels_given",
    "make_queries",
    "require_choice",
    "sample_of_queries",
]

_UNKNOWN = ("raise", "skip", "cold")
_CONTEXT_DEFAULTS = ("raise", "zero", "mean")
_MOST_SAMPLED = 20_000  # they show what is asked, and more would show little else


class Block(Protocol):
    """What one block says of each query."""

    @property
    def places(self) -> np.ndarray:
        """Which of the block's entities each query has, shape (n,)."""

    def take(self, which: np.ndarray) -> Block:
        """Return the block of some of the queries."""

    def project(self, model: Model, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return vector and bias for each query."""


@dataclass(frozen=True)
class Entities:
    """Each query has its own entity, or none: -1."""

    rows: SparseRows
    places: np.ndarray

    def take(self, which: np.ndarray) -> Entities:
        return Entities(self.rows, self.places[which])

    def project(self, model: Model, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
        return model.project(self.rows.take(self.places), n_jobs=n_jobs)


@dataclass(frozen=True)
class _Mean:
    """All queries have the mean level over the training rows: scores are linear in q and b."""

    side: ContextSide
    places: np.ndarray  # all 0: there is one mean

    def take(self, which: np.ndarray) -> _Mean:
        return _Mean(self.side, self.places[which])

    def project(self, model: Model, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
        q, b = model.project(self.side.rows, n_jobs=n_jobs)
        share = self.side.counts / self.side.counts.sum()
        mean_q = (share[:, None] * q).sum(axis=0, keepdims=True).astype(np.float32)
        return mean_q[self.places], np.full(len(self.places), (share * b).sum())


@dataclass(frozen=True)
class QueryDesign:
    """What queries are made of, before any model has projected it.

    Attributes
    ----------
    kept : ndarray of int64, shape (n,)
        Which of the asked users they are ("skip" leaves some out).
    user_positions : ndarray of int32, shape (n,)
        -1 for a cold user.
    blocks : tuple
        The user and each context that counts.
    """

    kept: np.ndarray
    user_positions: np.ndarray
    blocks: tuple[Block, ...]

    def project(self, model: Model, *, n_jobs: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return query rows and offsets: score = offset + <row, item row>.

        Returns
        -------
        rows : ndarray of float32, shape (n, width + 1)
        offsets : ndarray of float64, shape (n,)
        """
        parts = [block.project(model, n_jobs) for block in self.blocks]
        return query_matrix(model, parts, n_jobs=n_jobs)

    def distinct(self) -> tuple[QueryDesign, np.ndarray]:
        """Return the queries without repetition, and the one that each of them is."""
        key = np.zeros(len(self.kept), np.int64)
        for block in self.blocks:
            places = block.places.astype(np.int64) + 1
            key = np.unique(key * (places.max(initial=0) + 1) + places, return_inverse=True)[1]
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        blocks = tuple(block.take(first) for block in self.blocks)
        return QueryDesign(self.kept[first], self.user_positions[first], blocks), which


@dataclass(frozen=True)
class Queries:
    """Query rows, ready to be searched.

    Attributes
    ----------
    design : QueryDesign
        What they are made of.
    rows : ndarray of float32, shape (n, width + 1)
    offsets : ndarray of float64, shape (n,)
        score = offset + <row, item row>.
    """

    design: QueryDesign
    rows: np.ndarray
    offsets: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Which of the asked users they are."""
        return self.design.kept

    @property
    def user_positions(self) -> np.ndarray:
        """Positions of their users, -1 for a cold one."""
        return self.design.user_positions


def id_list(ids: Any, what: str) -> np.ndarray:
    """Return ids as an array; a single id stands for a list of one."""
    if isinstance(ids, Mapping) or ids is None:
        raise TypeError(f"{what} ids must be a list of ids, got {type(ids).__name__}")
    if isinstance(ids, (str, int, np.integer)) and not isinstance(ids, bool):
        ids = [ids]
    return as_ids(ids, what)


def levels_given(context: Mapping[str, Any] | None, n: int) -> dict[str, np.ndarray]:
    """Return the levels of each context column that is given: one for all, or n of them.

    Raises
    ------
    TypeError
        If the context is no mapping, or a level no id.
    ValueError
        For another number of levels.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise TypeError(
            "context must be a mapping from column to level or levels, "
            f"got {type(context).__name__}"
        )
    levels = {name: id_list(given, name) for name, given in context.items()}
    for name, values in levels.items():
        if len(values) not in (1, n):
            raise ValueError(
                f"context {name!r} has {len(values)} levels where {n} are needed, or one for all"
            )
    return levels


def make_queries(
    model: Model,
    catalog: Catalog,
    users: np.ndarray,
    context: Mapping[str, Any] | None,
    *,
    unknown: str = "raise",
    context_default: str = "raise",
    n_jobs: int | None = 1,
) -> Queries:
    """Build query rows for users in a context, as :func:`design_queries` designs them."""
    design = design_queries(
        catalog, users, context, unknown=unknown, context_default=context_default
    )
    return Queries(design, *design.project(model, n_jobs=n_jobs))


def sample_of_queries(model: Model, catalog: Catalog, *, n_jobs: int | None = 1) -> np.ndarray:
    """Return what may be asked, for an index to tune itself on.

    Returns
    -------
    ndarray of float32, shape (n, width + 1)
        Query rows of users of training, evenly chosen; n is at most 20,000. If there are contexts
        each user occurs three times: in the mean context, in none, and in levels that go round.
    """
    users = catalog.users.ids[evenly(len(catalog.users), 3 if catalog.contexts else 1)]
    going_round = {
        name: side.ids.ids[np.arange(len(users)) % len(side.ids)]
        for name, side in catalog.contexts.items()
    }
    asked: list[tuple[Any, str]] = [(None, "mean")]
    if catalog.contexts:
        asked += [(None, "zero"), (going_round, "raise")]
    parts = [
        make_queries(model, catalog, users, context, context_default=default, n_jobs=n_jobs).rows
        for context, default in asked
    ]
    return np.concatenate(parts)


def evenly(n: int, times: int = 1) -> np.ndarray:
    """Return some of n places, evenly chosen, each to be asked about that many times.

    Returns
    -------
    ndarray of int64
        At most 20,000 / ``times`` of them.
    """
    return np.linspace(0, n - 1, min(n, _MOST_SAMPLED // times)).astype(np.int64)


def design_queries(
    catalog: Catalog,
    users: np.ndarray,
    context: Mapping[str, Any] | None,
    *,
    unknown: str = "raise",
    context_default: str = "raise",
) -> QueryDesign:
    """Say what queries are made of for users in a context.

    Parameters
    ----------
    users : ndarray of ids, shape (n,)
    context : mapping of str to a level, or to an array of n levels, optional
    unknown : {"raise", "skip", "cold"}
        What to do with ids never seen: an error, leave the query out, or go by what is known
        (nothing of the user, the rest of the context).
    context_default : {"raise", "zero", "mean"}
        What a context column that is left out stands for: an error, nothing, or the mean over the
        training rows (of each column by itself, where several are left out).

    Raises
    ------
    UnknownIdError, TypeError, ValueError
    """
    require_choice("unknown", unknown, _UNKNOWN)
    require_choice("context_default", context_default, _CONTEXT_DEFAULTS)
    policy = "raise" if unknown == "raise" else "mark"
    positions = catalog.users.positions(users, unknown=policy)
    levels = _context_positions(catalog, context, len(users), policy, context_default)
    kept = np.arange(len(users))
    if unknown == "skip":
        known = positions >= 0
        for level in levels.values():
            known &= level >= 0
        kept = np.flatnonzero(known)
    positions = positions[kept]
    blocks = _context_blocks(catalog, levels, kept, context_default).values()
    return QueryDesign(kept, positions, (Entities(catalog.user_rows, positions), *blocks))


def context_blocks(
    catalog: Catalog,
    context: Mapping[str, Any] | None,
    n: int,
    context_default: str,
    *,
    unknown: str = "raise",
) -> dict[str, Block]:
    """Return the blocks of n queries that are of the context, as :func:`design_queries` has them.

    Parameters
    ----------
    unknown : {"raise", "cold"}
        Under "cold" a level never seen adds nothing.

    Returns
    -------
    dict of str to Block
        By the names of the contexts, in the order of the catalog.

    Raises
    ------
    UnknownIdError, TypeError, ValueError
    """
    require_choice("context_default", context_default, _CONTEXT_DEFAULTS)
    policy = "raise" if unknown == "raise" else "mark"
    levels = _context_positions(catalog, context, n, policy, context_default)
    return _context_blocks(catalog, levels, np.arange(n), context_default)


def _context_blocks(
    catalog: Catalog, levels: Mapping[str, np.ndarray], kept: np.ndarray, default: str
) -> dict[str, Block]:
    blocks: dict[str, Block] = {}
    for name, side in catalog.contexts.items():
        if name in levels:
            blocks[name] = Entities(side.rows, levels[name][kept])
        elif default == "mean":
            blocks[name] = _Mean(side, np.zeros(len(kept), np.int64))
    return blocks


def faded(rows: np.ndarray, popularity: float) -> np.ndarray:
    """Return query rows to which the biases of items count less.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, width + 1)
        Their last column is 1, which meets b_i of the item row.
    popularity : float
        What it becomes: 1 is the model, 0 leaves the biases of items out.

    Returns
    -------
    ndarray of float32, shape (n, width + 1)

    Raises
    ------
    ValueError
        If it is no number from 0 to 1.
    """
    require_number("popularity", popularity, 1)
    if popularity == 1:
        return rows
    rows = rows.copy()
    rows[:, -1] = popularity
    return rows


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises
    ------
    ValueError
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _context_positions(
    catalog: Catalog, context: Mapping[str, Any] | None, n: int, policy: str, default: str
) -> dict[str, np.ndarray]:
    given = levels_given(context, n)
    for name in given:
        if name not in catalog.contexts:
            known = ", ".join(catalog.contexts) or "none"
            raise ValueError(f"the model has no context {name!r}: there are {known}")
    positions = {}
    for name, side in catalog.contexts.items():
        if name in given:
            found = side.ids.positions(given[name], unknown=policy)
            positions[name] = np.broadcast_to(found, n)
        elif default == "raise":
            raise ValueError(
                f"context {name!r} is missing: pass context={{{name!r}: …}}, "
                'or context_default="mean" or "zero"'
            )
    return positions


def known_positions(id_map: IdMap, ids: Any, unknown: str) -> np.ndarray:
    """Return positions of ids; unknown ones raise, or are left out under another policy."""
    require_choice("unknown", unknown, _UNKNOWN)
    positions = id_map.positions(
        id_list(ids, id_map.what), unknown="raise" if unknown == "raise" else "mark"
    )
    return positions[positions >= 0]


def exclusions(
    catalog: Catalog,
    users: np.ndarray,
    queries: Queries,
    exclude_seen: bool,
    exclude: Mapping[Any, Any] | None,
    unknown: str,
) -> ItemLists:
    """Return the items that must not be recommended, per query.

    Parameters
    ----------
    users : ndarray of ids
        As asked; ``queries.kept`` says which of them are queries.
    exclude : mapping of user id to item ids, optional
        Users that are not asked for may be in it.

    Raises
    ------
    UnknownIdError
        Under "raise", for a user or an item of ``exclude`` that the model does not know.
    TypeError
        For ids of another type, or if ``exclude`` is no mapping.
    """
    n = len(queries.kept)
    seen = catalog.seen.take(queries.user_positions) if exclude_seen else ItemLists.empty(n)
    if exclude is None:
        return seen
    if not isinstance(exclude, Mapping):
        raise TypeError("exclude must be a mapping from user id to item ids")
    catalog.users.positions(list(exclude), unknown="raise" if unknown == "raise" else "mark")
    query, item = seen.pairs()
    more_queries, more_items = [query], [item]
    for place, user in enumerate(users[queries.kept].tolist()):
        if user in exclude:
            positions = known_positions(catalog.items, exclude[user], unknown)
            more_queries.append(np.full(len(positions), place))
            more_items.append(positions)
    return ItemLists.from_pairs(np.concatenate(more_queries), np.concatenate(more_items), n)
