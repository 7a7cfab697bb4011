"""The compiled draw of items that users do not have."""

from __future__ import annotations

import numpy as np

from .._numba import kernel

__all__ = ["draw_others"]


@kernel
def draw_others(indptr, positives, first_draw, draws, n_items, negatives):
    """Write different items for each user u, none of them in positives[indptr[u]:indptr[u + 1]].

    ``draws`` are uniform below 2^32; user u has those from first_draw[u] to first_draw[u + 1], no
    more than there are other items, and gets the items in the same places of ``negatives``.
    """
    ranks = np.arange(n_items)
    picked = np.empty(n_items, np.int64)
    for u in range(len(indptr) - 1):
        first, last = indptr[u], indptr[u + 1]
        n_others = n_items - (last - first)
        start = first_draw[u]
        n_wanted = first_draw[u + 1] - start
        for t in range(n_wanted):  # the first steps of a shuffle: any set, in any order
            pick = t + ((np.int64(draws[start + t]) * np.int64(n_others - t)) >> np.int64(32))
            ranks[t], ranks[pick] = ranks[pick], ranks[t]
            picked[t] = pick
            # k - first less than positives[k] of the others come before the k-th positive
            low, high = first, last
            while low < high:
                middle = (low + high) // 2
                if positives[middle] - (middle - first) <= ranks[t]:
                    low = middle + 1
                else:
                    high = middle
            negatives[start + t] = ranks[t] + (low - first)
        for t in range(n_wanted - 1, -1, -1):  # back in order for the next user
            pick = picked[t]
            ranks[t], ranks[pick] = ranks[pick], ranks[t]
