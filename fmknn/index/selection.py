"""Which items may be among the n best of each query, by the kernels of exact_kernel.py."""

from __future__ import annotations

import numpy as np

from .base import ItemLists
from .exact_kernel import GEMM_PRODUCTS, NOTHING_YET, TILE, list_room, scan_batch, scan_one
from .norm_tiles import NormTiles

__all__ = ["select"]

_BLOCK = 512  # queries that share a tile while it is in the cache
_BLOCK_ENTRIES = 4_000_000  # and no more than so many entries in all their lists
_MOST_ROWS = 64  # of a product of matrices


def select(
    tiles: NormTiles,
    queries: np.ndarray,
    vectors: np.ndarray,
    n: int,
    exclude: ItemLists,
    mask: np.ndarray,
    *,
    alone: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the items that may be among the n best, and for which queries these are all.

    Parameters
    ----------
    tiles : NormTiles
    queries : ndarray of float32, shape (n_queries, dim)
    vectors : ndarray of float32, shape (n_items, dim)
        All items, as they were given.
    n : int
    exclude : ItemLists
        One list per query.
    mask : ndarray of float32
        As of :meth:`NormTiles.mask`; empty for all items.
    alone : bool
        Search for each query by itself: faster for a few.

    Returns
    -------
    selected : ndarray of int64, shape (n_queries, width)
        -1 follows the last of each query.
    complete : ndarray of bool, shape (n_queries,)
        False where more items tie than there is room for.
    """
    asked = tiles.prepare(queries)
    selected = np.empty((len(queries), n + n // 2 + 64), np.int64)
    counts = np.empty(len(queries), np.int64)
    layout = tiles.tiles, tiles.rest, tiles.norms, tiles.item_of, tiles.place_of, mask
    if alone:
        scan_one(
            queries,
            asked.scales,
            vectors,
            tiles.coarse,
            tiles.steps,
            asked.heads,
            asked.rests,
            asked.errors,
            *layout,
            exclude.indptr,
            exclude.indices,
            n,
            selected,
            counts,
        )
        return selected, counts >= 0
    room = list_room(n)
    block = max(_MOST_ROWS, min(_BLOCK, _BLOCK_ENTRIES // room))
    scores, places = np.empty((block, room), np.float32), np.empty((block, room), np.int32)
    n_rows = max(8, min(_MOST_ROWS, GEMM_PRODUCTS // (TILE * tiles.tiles.shape[1]) // 8 * 8))

    def scan(which: np.ndarray, begin: float) -> np.ndarray:
        """Search for some queries, from a scaled score on; return what they ended with."""
        found = np.empty(len(which), np.int64)
        cuts = np.full(len(which), begin, np.float32)
        own = np.empty((len(which), selected.shape[1]), np.int64)
        rows = asked.heads[which], asked.rests[which], asked.errors[which]
        lists = exclude.take(which)
        scan_batch(
            *rows, *layout, lists.indptr, lists.indices, n, scores, places, cuts, own, found, n_rows
        )
        selected[which], counts[which] = own, found
        return cuts

    # Where others end is a good place to begin. A cut that has risen from there is its query's own,
    # below n scores by what they may be off; whoever's has not begins anew.
    begin = float(NOTHING_YET)
    for first in range(0, len(queries), block):
        which = np.arange(first, min(first + block, len(queries)))
        cuts = scan(which, begin)
        unsure = which[(counts[which] >= 0) & (cuts <= begin)]
        if begin > NOTHING_YET and len(unsure):
            cuts = np.append(cuts, scan(unsure, float(NOTHING_YET)))
        # not for lists to be right, but for equal queries not to be unsure
        begin = max(float(cuts.min() - 4 * asked.errors.max()), float(NOTHING_YET))
    return selected, counts >= 0
