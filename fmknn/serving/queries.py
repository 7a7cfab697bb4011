"""Users and context in, query rows, offsets and exclusion lists out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.ids import IdMap, as_ids
from ..index.base import ItemLists
from ..model.params import FMParams
from ..model.projection import query_matrix
from .catalog import Catalog, ContextSide

__all__ = [
    "Queries",
    "exclusions",
    "id_list",
    "item_positions",
    "levels_given",
    "make_queries",
]

_UNKNOWN = ("raise", "skip", "cold")
_CONTEXT_DEFAULTS = ("raise", "zero", "mean")


@dataclass(frozen=True)
class Queries:
    """Query rows, ready to be searched.

    Attributes
    ----------
    kept : ndarray of int64, shape (n,)
        Which of the asked users they are ("skip" leaves some out).
    user_positions : ndarray of int32, shape (n,)
        -1 for a cold user.
    rows : ndarray of float32, shape (n, n_factors + 1)
    offsets : ndarray of float64, shape (n,)
        score = offset + <row, item row>.
    """

    kept: np.ndarray
    user_positions: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray


def id_list(ids: Any, what: str) -> np.ndarray:
    """Return ids as an array; a single id stands for a list of one."""
    if isinstance(ids, Mapping) or ids is None:
        raise TypeError(f"{what} ids must be a list of ids, got {type(ids).__name__}")
    if isinstance(ids, (str, int, np.integer)) and not isinstance(ids, bool):
        ids = [ids]
    return as_ids(ids, what)


def levels_given(context: Mapping[str, Any] | None, n: int) -> dict[str, np.ndarray]:
    """Return the levels of each context column that is given: one for all queries, or n of them.

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
            raise ValueError(f"context {name!r} has {len(values)} values for {n} users")
    return levels


def make_queries(
    model: FMParams,
    catalog: Catalog,
    users: np.ndarray,
    context: Mapping[str, Any] | None,
    *,
    unknown: str = "raise",
    context_default: str = "raise",
    n_jobs: int | None = 1,
) -> Queries:
    """Build query rows for users in a context.

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
    _require_choice("unknown", unknown, _UNKNOWN)
    _require_choice("context_default", context_default, _CONTEXT_DEFAULTS)
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
    parts = [model.project(catalog.user_rows.take(positions), n_jobs=n_jobs)]
    for name, side in catalog.contexts.items():
        if name in levels:
            parts.append(model.project(side.rows.take(levels[name][kept]), n_jobs=n_jobs))
        elif context_default == "mean":
            parts.append(_mean_part(model, side, len(kept)))
    rows, offsets = query_matrix(model, parts, n_jobs=n_jobs)
    return Queries(kept, positions, rows, offsets)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
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


def _mean_part(model: FMParams, side: ContextSide, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean over training rows: scores are linear in a context's vector and bias."""
    q, b = model.project(side.rows)
    share = side.counts / side.counts.sum()
    mean_q = (share[:, None] * q).sum(axis=0).astype(np.float32)
    return np.tile(mean_q, (n, 1)), np.full(n, (share * b).sum())


def item_positions(items: IdMap, ids: Any, unknown: str) -> np.ndarray:
    """Return positions of item ids; unknown ones raise, or are left out under another policy."""
    _require_choice("unknown", unknown, _UNKNOWN)
    positions = items.positions(
        id_list(ids, "item"), unknown="raise" if unknown == "raise" else "mark"
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
            positions = item_positions(catalog.items, exclude[user], unknown)
            more_queries.append(np.full(len(positions), place))
            more_items.append(positions)
    return ItemLists.from_pairs(np.concatenate(more_queries), np.concatenate(more_items), n)
