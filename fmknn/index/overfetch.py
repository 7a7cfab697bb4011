"""Full lists from a search that knows no per-query exclusion: fetch more, rank exactly, repeat.

Queries are bucketed by how many items they exclude, so that a heavy user does not make everybody
fetch as much. What a selector fetched is ranked by the exact kernel; a query whose list is not
full, or not certain to be right, comes again with twice as much, and in the end with all items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from .base import Hits, ItemLists
from .rank import rank

__all__ = ["Selector", "search_by_overfetch"]

_SLACK = 16  # fetched beyond what is needed: near-ties at the end are settled without a second try
_CHUNK = 8192  # queries per call: faiss is fast in big calls only
_CHUNK_ENTRIES = 4_000_000  # and no call holds more candidates than this (48 MB)
_DIRECT_SHARE = 4  # scoring everything exactly beats fetching more than a quarter of it


class Selector(Protocol):
    """Chooses candidates, exactly up to rounding or approximately.

    Attributes
    ----------
    parameters : mapping of str to int
        How far it looks. "overfetch", where it is there, multiplies the candidates that are ranked.
    """

    parameters: Mapping[str, int]

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return m candidates per query and a bound on the score of all others.

        ``effort`` counts the tries so far: an approximate selector looks further at each.

        Returns
        -------
        candidates : ndarray of int64, shape (n_queries, m), -1 where there is none
        floors : ndarray of float64, shape (n_queries,)
            -inf where the selector is approximate and does not promise anything.
        """
        ...


def search_by_overfetch(
    selector: Selector,
    vectors: np.ndarray,
    queries: np.ndarray,
    n: int,
    exclude: ItemLists,
    allowed: np.ndarray | None,
    n_jobs: int | None,
) -> Hits:
    """Search with exclusions; see the module's text.

    Parameters
    ----------
    selector : Selector
    vectors, queries : ndarray of float32
    n : int
    exclude : ItemLists
        One list per query.
    allowed : ndarray of int64, ascending, or None for all items
    n_jobs : int or None
    """
    n_queries, n_items = len(queries), len(vectors)
    everything = np.arange(n_items, dtype=np.int64) if allowed is None else allowed
    forbidden = exclude.count_within(allowed, n_items)
    n = min(n, len(everything))
    wanted = np.minimum(n, len(everything) - forbidden)
    hits = Hits.empty(n_queries, n)
    if n == 0:
        return hits
    overfetch = selector.parameters.get("overfetch", 1)
    budget = (n + _SLACK + _next_power_of_two(forbidden)) * overfetch
    pending = np.flatnonzero(wanted > 0)
    effort = 0
    while len(pending):
        unfinished = []
        for rows, m in _calls(pending, budget):
            complete = m * _DIRECT_SHARE >= len(everything)
            if complete:
                found = everything[None, :], np.full(len(rows), -np.inf)
            else:
                found = selector.fetch(queries[rows], m, effort, allowed)
            ranked, certain = rank(
                queries[rows], vectors, *found, n, exclude=exclude.take(rows), n_jobs=n_jobs
            )
            hits.put(rows, ranked)
            if not complete:
                unfinished.append(rows[~certain | (ranked.counts < wanted[rows])])
        pending = np.concatenate(unfinished) if unfinished else pending[:0]
        budget = budget * 2
        effort += 1
    return hits


def _calls(pending: np.ndarray, budget: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Cut the pending queries into calls of one budget and of bounded size."""
    for m in np.unique(budget[pending]).tolist():
        bucket = pending[budget[pending] == m]
        step = max(1, min(_CHUNK, _CHUNK_ENTRIES // m))
        for at in range(0, len(bucket), step):
            yield bucket[at : at + step], m


def _next_power_of_two(counts: np.ndarray) -> np.ndarray:
    """0 stays 0; else the least power of two that is no smaller."""
    exponent = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
    return np.where(counts > 0, 1 << exponent, 0)
