"""Full ranking: the lists of a test's queries, and what the metrics make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..index.base import ItemLists
from ..metrics import hit_matrix, none_offered, novelty_at, popularity_at, share_offered
from .base import ITEM_METRICS, RANKING, Metric, training_lists
from .bootstrap import Entries

if TYPE_CHECKING:
    from ..data.ids import IdMap
    from ..data.interactions import Interactions
    from .base import Evaluable

__all__ = ["Popularity", "Queries", "context_of", "queries_of", "rank", "recommended"]

Lists = Callable[[slice, int], np.ndarray]  # queries, length -> positions of items, best first


class Queries(NamedTuple):
    """Who is asked for, in which context, and what is relevant."""

    row: np.ndarray  # one test row of each query: it holds the user and the context
    owner: np.ndarray  # the user of each, as a position in the test's vocabulary
    indptr: np.ndarray  # the query's relevant items, as positions in the catalogue
    indices: np.ndarray


@dataclass(frozen=True)
class Popularity:
    """How popular items are in training: users who have each, and the mean of a history."""

    counts: np.ndarray
    n_users: int

    @classmethod
    def of(cls, model: object, n_items: int, wanted: list[Metric]) -> Popularity | None:
        """Count the users of each item, if a metric asks for it."""
        asking = [metric.name for metric in wanted if metric.kind in ITEM_METRICS[1:]]
        if not asking:
            return None
        seen = training_lists(model, asking[0])
        return cls(np.bincount(seen.indices, minlength=n_items), int((seen.lengths > 0).sum()))

    def of_histories(self, histories: ItemLists) -> np.ndarray:
        """Return the mean popularity of the items of each history, 0 for an empty one."""
        owner, item = histories.pairs()
        total = np.bincount(owner, weights=self.counts[item], minlength=len(histories))
        return total / np.maximum(histories.lengths, 1)


def context_of(rows: Interactions, which: np.ndarray) -> dict[str, np.ndarray] | None:
    """Return the levels of some of the rows, None where there are no context columns."""
    if not rows.context:
        return None
    return {name: column.ids.ids[column.index[which]] for name, column in rows.context.items()}


def queries_of(items: IdMap, rows: Interactions, relevant: np.ndarray) -> tuple[Queries, int]:
    """Return the (user, context) queries with a relevant row, and how many there are without.

    Parameters
    ----------
    items : IdMap
        The catalogue; it has all items of the rows.
    rows : Interactions
    relevant : ndarray of int
        Places of the relevant rows.
    """
    query = rows.user_index.astype(np.int64)
    for column in rows.context.values():
        query = np.unique(query * len(column.ids) + column.index, return_inverse=True)[1]
    asked, first, number = np.unique(query[relevant], return_index=True, return_inverse=True)
    n_items = len(items)
    # a pair that the test holds twice is one relevant item
    pairs = np.unique(number * n_items + items.positions(rows.item_ids[relevant]))
    indptr = np.searchsorted(pairs, np.arange(len(asked) + 1) * n_items)
    row = relevant[first]
    queries = Queries(row, rows.user_index[row], indptr, pairs % n_items)
    return queries, len(np.unique(query)) - len(asked)


def recommended(
    model: Evaluable,
    rows: Interactions,
    queries: Queries,
    exclude_seen: bool,
    options: Mapping[str, Any],
) -> Lists:
    """Return how to get the lists that a model recommends, with further options if it has any."""
    users = rows.user_ids[queries.row]
    asked = {"exclude_seen": exclude_seen, **options}

    def lists(part: slice, length: int) -> np.ndarray:
        context = context_of(rows, queries.row[part])
        return model.recommend(users[part], length, context=context, **asked).positions

    return lists


def rank(
    lists: Lists,
    queries: Queries,
    n_items: int,
    wanted: list[Metric],
    chunk: int,
    popularity: Popularity | None,
    histories: ItemLists | None,
) -> dict[str, Entries | float]:
    """Return the ranking metrics: entry by entry, or one number of a metric of all lists.

    Parameters
    ----------
    lists : callable
    queries : Queries
    n_items : int
        Size of the catalogue.
    wanted : list of Metric
        None of them a rating metric.
    chunk : int
        Lists to ask for at a time.
    popularity : Popularity or None
    histories : ItemLists or None
        The training items of each query's user, for the metrics of popularity.
    """
    if not wanted:
        return {}
    n_queries = len(queries.row)
    length = min(max(metric.k for metric in wanted), n_items)
    values = {m.name: np.empty(n_queries) for m in wanted if m.kind != "coverage"}
    offered = {m.name: none_offered(n_items) for m in wanted if m.kind == "coverage"}
    for start in range(0, n_queries, chunk):
        part = slice(start, min(start + chunk, n_queries))
        positions = lists(part, length)
        indptr = queries.indptr[start : part.stop + 1]
        hits = hit_matrix(positions, indptr, queries.indices[indptr[0] : indptr[-1]])
        for metric in wanted:
            if metric.kind == "coverage":
                offered[metric.name][positions[:, : metric.k]] = True
            elif metric.kind in RANKING:
                of_list = RANKING[metric.kind](hits, np.diff(indptr), metric.k)
                values[metric.name][part] = of_list
            elif popularity is not None:
                values[metric.name][part] = _popularity_of(metric, positions, popularity)
    found: dict[str, Entries | float] = {
        name: share_offered(slots) if n_queries else np.nan for name, slots in offered.items()
    }
    for metric in wanted:
        if metric.kind == "popularity_lift" and popularity is not None and histories is not None:
            own = popularity.of_histories(histories)
            found[metric.name] = _lift(queries.owner, values[metric.name], own)
        elif metric.kind != "coverage":
            found[metric.name] = _means(queries.owner, values[metric.name])
    return found


def _popularity_of(metric: Metric, positions: np.ndarray, popularity: Popularity) -> np.ndarray:
    if metric.kind == "novelty":
        return novelty_at(positions, popularity.counts, popularity.n_users, metric.k)
    return popularity_at(positions, popularity.counts, metric.k)


def _means(owner: np.ndarray, values: np.ndarray) -> Entries:
    """Each list once; one that says nothing, as it is empty, not at all."""
    real = np.isfinite(values)
    return Entries(owner, np.where(real, values, 0.0), real.astype(np.float64))


def _lift(owner: np.ndarray, listed: np.ndarray, own: np.ndarray) -> Entries:
    """(mean popularity of lists - of histories) / of histories, over those that have both."""
    real = np.isfinite(listed) & (own > 0)
    return Entries(owner, np.where(real, listed - own, 0.0), np.where(real, own, 0.0))
