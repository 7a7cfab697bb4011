"""The fused kernels of exact search: score a tile of items, keep what may be among the n best.

Everything here only selects. Queries and items are scaled to norms of at most 1, scores are float32
with a known error, and whatever lies within it of the n-th best is kept, for the exact kernel of
rank.py to settle. A query that keeps more than there is room for (ties over the whole catalogue)
gets a count of -1, and has to be searched in another way.
"""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["GEMM_PRODUCTS", "NOTHING_YET", "TILE", "list_room", "scan_batch", "scan_one"]

TILE = 448  # items, so that a tile of 66 coordinates stays in the second-level cache
GEMM_PRODUCTS = 1_000_000  # OpenBLAS multiplies up to so many without packing: twice as fast
_SPAN = 64  # scores that are looked at together
_PAIR_COST, _PAIR_COST_ALONE = 400, 100  # of scoring a pair, in products within a tile
NOTHING_YET = np.float32(-3.0e38)  # below all scores, above the -inf of what is left out
_BEYOND = np.float32(1.1)  # no scaled score is above 1, but for rounding


@kernel
def _count(scores, cut):
    """Return how many are at least ``cut``; a float, which is what vectorizes."""
    total = np.float32(0.0)
    for j in range(scores.shape[0]):
        total += np.float32(1.0) if scores[j] >= cut else np.float32(0.0)
    return total


@kernel
def _threshold(scores, n, low, slack):
    """Return a value that n of the scores, but few more than n + slack, are at least."""
    low, high = max(low, -_BEYOND), _BEYOND
    while True:
        middle = np.float32(0.5) * (low + high)
        if not low < middle < high:
            return low
        count = _count(scores, middle)
        if count < n:
            high = middle
        else:
            low = middle
            if count <= n + slack:
                return low


@kernel
def _cut_list(scores, places, size, cut, n, error):
    """Drop what can't be among the n best; return the new size and cut."""
    above = _threshold(scores[:size], n, cut, n // 32 + 2)
    cut = max(cut, np.float32(above - np.float32(2.0) * error))
    kept = 0
    for j in range(size):
        score = scores[j]
        scores[kept], places[kept] = score, places[j]
        kept += score >= cut
    return kept, cut


@kernel
def _limit(size, n):
    """Return how long a list may get before it is worth cutting again."""
    return max(size, n) + n // 4 + 8


def list_room(n: int) -> int:
    """Return how many entries a list needs room for: until it is cut, a tile, and as many ties."""
    return n + n // 4 + 8 + 2 * TILE


@kernel
def _append(row, base, cut, scores, places, size):
    """Take up the scores of a tile that are at least ``cut``; return the new size."""
    if _count(row, cut) > 0:
        for at in range(0, row.shape[0], _SPAN):
            span = row[at : at + _SPAN]
            if _count(span, cut) > 0:
                for j in range(span.shape[0]):
                    if span[j] >= cut:
                        scores[size], places[size] = span[j], base + at + j
                        size += 1
    return size


@kernel
def _dot(query, item):
    total = np.float32(0.0)
    for d in range(query.shape[0]):
        total += query[d] * item[d]
    return total


@kernel
def _append_passing(bounds, base, cut, scores, places, size, query, rest, beyond, norms):
    """Score the items whose bound is at least ``cut``, and take up those that still are."""
    if _count(bounds, cut) > 0:
        for at in range(0, bounds.shape[0], _SPAN):
            span = bounds[at : at + _SPAN]
            if _count(span, cut) > 0:
                for j in range(span.shape[0]):
                    if span[j] >= cut:
                        score = span[j] - beyond * norms[at + j] + _dot(query, rest[at + j])
                        if score >= cut:
                            scores[size], places[size] = score, base + at + j
                            size += 1
    return size


@kernel
def _exact(query, item):
    total = 0.0
    for d in range(query.shape[0]):
        total += np.float64(query[d]) * np.float64(item[d])
    return total


@kernel
def _append_exact(bounds, base, cut, low, scores, places, size, query, scale, vectors, item_of):
    """Score the items whose bound is at least ``low``, and take up those that reach ``cut``."""
    for at in range(0, bounds.shape[0], _SPAN):
        span = bounds[at : at + _SPAN]
        if _count(span, low) > 0:
            for j in range(span.shape[0]):
                if span[j] >= low:
                    place = base + at + j
                    score = np.float32(_exact(query, vectors[item_of[place]]) * scale)
                    if score >= cut:
                        scores[size], places[size] = score, place
                        size += 1
    return size


@kernel
def _hide(row, width, allowed):
    """Set to -inf what lies behind the last item, and what is not allowed."""
    row[width:] = -np.inf
    for j in range(allowed.shape[0]):
        row[j] = min(row[j], allowed[j])


@kernel
def _hide_in(row, width, allowed, excluded):
    """Hide these, and what one query excludes."""
    _hide(row, width, allowed)
    for e in range(excluded.shape[0]):
        row[excluded[e]] = -np.inf


@kernel
def _sort_by_tile(indptr, indices, place_of, ends, query_of, column_of):
    """Sort the excluded (query, item) pairs by tiles; those of tile t end at ``ends[t]``.

    Within a tile they stay in the order of the queries.
    """
    ends[:] = 0
    for e in range(indptr[0], indptr[-1]):
        place = place_of[indices[e]]
        if place >= 0:
            ends[place // TILE + 1] += 1
    for t in range(1, ends.shape[0]):
        ends[t] += ends[t - 1]
    for q in range(indptr.shape[0] - 1):
        for e in range(indptr[q], indptr[q + 1]):
            place = place_of[indices[e]]
            if place >= 0:
                t = place // TILE
                query_of[ends[t]], column_of[ends[t]] = q, place - t * TILE
                ends[t] += 1


@kernel
def _finish(places, size, item_of, candidates):
    """Write the items that may be among the n best, then -1; return their number, -1: too many."""
    if size < 0 or size > candidates.shape[0]:
        candidates[:] = -1
        return -1
    for j in range(size):
        candidates[j] = item_of[places[j]]
    candidates[size:] = -1
    return size


@kernel
def _keep_active(active, n_active, sizes, reach, errors, cuts):
    """Keep the queries for which an item of norm ``reach`` may still enter; return how many."""
    kept = 0
    for a in range(n_active):
        q = active[a]
        if sizes[q] >= 0 and reach + errors[q] >= cuts[q]:
            active[kept] = q
            kept += 1
    return kept


@kernel
def _gather(active, n_active, heads, rests, own_head, own_rest):
    for a in range(n_active):
        q = active[a]
        for d in range(heads.shape[1]):
            own_head[a, d] = heads[q, d]
        for d in range(rests.shape[1]):
            own_rest[a, d] = rests[q, d]


@kernel
def _hide_excluded(rows, active, query_of, column_of, entry, end):
    """Set to -inf what the queries exclude; return the first entry that is behind them."""
    a = 0
    while entry < end and query_of[entry] <= active[-1]:
        while active[a] < query_of[entry]:
            a += 1
        if active[a] == query_of[entry]:
            rows[a, column_of[entry]] = -np.inf
        entry += 1
    return entry


@kernel
def _bounds_to_scores(bounds, rest, beyond, norms):
    """Replace what bounds the rest of the products of a row by the products themselves."""
    for j in range(bounds.shape[0]):
        bounds[j] += rest[j] - beyond * norms[j]


@kernel
def scan_batch(
    heads,
    rests,
    errors,
    tiles,
    rest,
    norms,
    item_of,
    place_of,
    allowed,
    excluded_indptr,
    excluded,
    n,
    scores,
    places,
    cuts,
    candidates,
    counts,
    n_rows,
):
    """Select for a block of queries by products of matrices, ``n_rows`` queries at a time.

    ``heads`` and ``rests`` are the queries as NormTiles prepares them for ``tiles`` and ``rest``.
    If there is a rest, products of heads and tiles bound the scores: where few items pass, they
    are scored one by one. Where many do, the rest is multiplied too. ``cuts`` are scaled scores
    to begin with, and to end with: only if its cut has risen was a query right to begin there.
    """
    n_queries, (n_tiles, n_head, tile) = heads.shape[0], tiles.shape
    n_items, n_rest, room = item_of.shape[0], rest.shape[1], scores.shape[1]
    sizes, limits = np.zeros(n_queries, np.int64), np.full(n_queries, _limit(n, n))
    active = np.arange(n_queries)
    own_head = np.empty((n_queries, n_head), np.float32)
    own_rest = np.empty((n_queries, n_rest), np.float32)
    out, more = np.empty((n_rows, tile), np.float32), np.empty((n_rows, tile), np.float32)
    ends = np.empty(n_tiles + 1, np.int64)
    n_excluded = excluded_indptr[n_queries] - excluded_indptr[0]
    query_of, column_of = np.empty(n_excluded, np.int32), np.empty(n_excluded, np.int32)
    _sort_by_tile(excluded_indptr, excluded, place_of, ends, query_of, column_of)
    n_active, gathered, entry = n_queries, 0, 0
    for t in range(n_tiles):
        n_active = _keep_active(active, n_active, sizes, norms[t], errors, cuts)
        if n_active == 0:
            break
        if n_active != gathered:
            _gather(active, n_active, heads, rests, own_head, own_rest)
            gathered = n_active
        base = t * tile
        width, limit = min(tile, n_items - base), allowed[base : base + tile]
        own, rest_norms = rest[base : base + tile], tiles[t, n_head - 1]
        for at in range(0, n_active, n_rows):
            stop = min(at + n_rows, n_active)
            rows = out[: stop - at]
            np.dot(own_head[at:stop], tiles[t], rows)
            if width < tile or limit.shape[0]:
                for a in range(stop - at):
                    _hide(rows[a], width, limit)
            entry = _hide_excluded(rows, active[at:stop], query_of, column_of, entry, ends[t])
            few = False
            if n_rest:
                passing = np.float32(0.0)
                for a in range(at, stop):
                    passing += _count(rows[a - at], cuts[active[a]])
                few = passing * _PAIR_COST < (stop - at) * tile * n_rest
            if n_rest and not few:
                np.dot(own_rest[at:stop], own.T, more[: stop - at])
                for a in range(at, stop):
                    beyond = own_head[a, n_head - 1]
                    _bounds_to_scores(rows[a - at], more[a - at], beyond, rest_norms)
            for a in range(at, stop):
                q, row = active[a], rows[a - at]
                if few:
                    sizes[q] = _append_passing(
                        row,
                        base,
                        cuts[q],
                        scores[q],
                        places[q],
                        sizes[q],
                        own_rest[a],
                        own,
                        own_head[a, n_head - 1],
                        rest_norms,
                    )
                else:
                    sizes[q] = _append(row, base, cuts[q], scores[q], places[q], sizes[q])
                if sizes[q] > limits[q]:
                    sizes[q], cuts[q] = _cut_list(
                        scores[q], places[q], sizes[q], cuts[q], n, errors[q]
                    )
                    limits[q] = min(_limit(sizes[q], n), room - tile)
                    if sizes[q] > room - tile:
                        sizes[q] = -1
        entry = ends[t]
    for q in range(n_queries):
        if sizes[q] >= n:
            sizes[q], cuts[q] = _cut_list(scores[q], places[q], sizes[q], cuts[q], n, errors[q])
        counts[q] = _finish(places[q], sizes[q], item_of, candidates[q])


@kernel
def _add_products(tile, query, out):
    """Add the inner products of a query with a tile of items, in the order of its memory."""
    for d in range(tile.shape[0]):
        row, x = tile[d], query[d]
        for j in range(out.shape[0]):
            out[j] += x * row[j]


@kernel
def _coarse_products(coarse, steps, query, out):
    """Write products with a tile in whole numbers; return what they may be off for that."""
    out[:] = 0.0
    error = np.float32(0.0)
    for d in range(coarse.shape[0]):
        row, x = coarse[d], query[d] * steps[d]
        error += abs(x)
        for j in range(out.shape[0]):
            out[j] += x * np.float32(row[j])
    return np.float32(0.51) * error


@kernel
def scan_one(
    queries,
    scales,
    vectors,
    coarse,
    steps,
    heads,
    rests,
    errors,
    tiles,
    rest,
    norms,
    item_of,
    place_of,
    allowed,
    excluded_indptr,
    excluded,
    n,
    candidates,
    counts,
):
    """Select for each query alone, by loops over the tiles; as :func:`scan_batch` otherwise.

    Alone it is memory that takes the time. Where there is no rest, numbers of a byte, times the
    ``steps`` of their coordinates, come first: few items need more than these.
    """
    n_tiles, n_head, tile = tiles.shape
    n_items, n_rest = item_of.shape[0], rest.shape[1]
    room = _limit(n, n) + 2 * tile
    scores, places = np.empty(room, np.float32), np.empty(room, np.int32)
    row, more = np.empty(tile, np.float32), np.empty(tile, np.float32)
    ends = np.empty(n_tiles + 1, np.int64)
    for q in range(heads.shape[0]):
        n_excluded = excluded_indptr[q + 1] - excluded_indptr[q]
        query_of, column_of = np.empty(n_excluded, np.int32), np.empty(n_excluded, np.int32)
        _sort_by_tile(excluded_indptr[q : q + 2], excluded, place_of, ends, query_of, column_of)
        size, limit, cut, entry = 0, _limit(n, n), NOTHING_YET, 0
        beyond = heads[q, n_head - 1]
        for t in range(n_tiles):
            if norms[t] + errors[q] < cut:
                break
            base = t * tile
            own, rest_norms = rest[base : base + tile], tiles[t, n_head - 1]
            width, mask = min(tile, n_items - base), allowed[base : base + tile]
            few = False
            if n_rest == 0 and cut > NOTHING_YET:
                low = cut - _coarse_products(coarse[t], steps[t], heads[q], row) - errors[q]
                _hide_in(row, width, mask, column_of[entry : ends[t]])
                few = _count(row, low) * _PAIR_COST_ALONE < tile * n_head
            if not few:
                row[:] = 0.0
                _add_products(tiles[t], heads[q], row)
                _hide_in(row, width, mask, column_of[entry : ends[t]])
            entry = ends[t]
            if few:
                size = _append_exact(
                    row,
                    base,
                    cut,
                    low,
                    scores,
                    places,
                    size,
                    queries[q],
                    scales[q],
                    vectors,
                    item_of,
                )
            elif n_rest and _count(row, cut) * _PAIR_COST_ALONE < tile * n_rest:
                size = _append_passing(
                    row, base, cut, scores, places, size, rests[q], own, beyond, rest_norms
                )
            else:
                if n_rest:
                    for j in range(tile):
                        more[j] = _dot(rests[q], own[j])
                    _bounds_to_scores(row, more, beyond, rest_norms)
                size = _append(row, base, cut, scores, places, size)
            if size > limit:
                size, cut = _cut_list(scores, places, size, cut, n, errors[q])
                limit = min(_limit(size, n), room - tile)
                if size > room - tile:
                    size = -1
                    break
        if size > n + n // 16 + 4:
            size, cut = _cut_list(scores, places, size, cut, n, errors[q])
        counts[q] = _finish(places, size, item_of, candidates[q])
