"""How much of an exact answer an approximate one holds."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from .base import Hits, Index, ItemLists

__all__ = ["MeasuresRecall", "recalls"]


def recalls(found: Hits, exact: Hits) -> np.ndarray:
    """Return for each query the share of its exact list that was found.

    Parameters
    ----------
    found, exact : Hits
        Of the same queries and list length, both with exact scores.

    Returns
    -------
    ndarray of float64, shape (n_queries,)
        An item of the same score as the last of an exact list is as good as that one. Of an empty
        list everything was found.

    Examples
    --------
    >>> import numpy as np
    >>> exact = Hits(np.array([[3, 1]]), np.array([[2.0, 1.0]]), np.array([2]))
    >>> found = Hits(np.array([[7, 4]]), np.array([[1.0, 0.5]]), np.array([2]))
    >>> recalls(found, exact)
    array([0.5])
    """
    counts = exact.counts
    rows = np.arange(len(counts))
    last = np.where(counts > 0, exact.scores[rows, counts - 1] if exact.scores.size else 0, np.inf)
    n_found = (found.scores >= last[:, None]).sum(axis=1)
    return np.where(counts > 0, np.minimum(n_found, counts) / np.maximum(counts, 1), 1.0)


class MeasuresRecall:
    """What an index gets that may miss items."""

    def recall_against(
        self,
        exact: Index,
        queries: Any,
        n: int = 10,
        *,
        exclude: ItemLists | None = None,
        candidates: Any = None,
        exclude_items: Any = None,
    ) -> float:
        """Return the mean share of the exact lists that this index finds.

        Parameters
        ----------
        exact : Index
            Over the same vectors.
        queries : array-like of float, shape (n_queries, dim)
        n : int
            List length.
        exclude, candidates, exclude_items : optional
            As in :meth:`search`.

        Returns
        -------
        float
            From 0 to 1. An item that scores as the last of an exact list counts as found: which of
            equal items are listed is no matter of recall.

        Raises
        ------
        ValueError
            If the other index has other vectors, or there are no queries.

        Examples
        --------
        >>> import numpy as np
        >>> items = np.random.default_rng(0).normal(size=(500, 4))
        >>> import fmknn
        >>> index = fmknn.FaissIndex("IVF", nlist=10, nprobe=10).build(items)
        >>> index.recall_against(fmknn.ExactIndex().build(items), items[:50])
        1.0
        """
        own = cast(Index, self)
        if exact.vectors is not own.vectors and not np.array_equal(exact.vectors, own.vectors):
            raise ValueError("the exact index is over other vectors: build both over the same")
        lists = [
            index.search(
                queries, n, exclude=exclude, candidates=candidates, exclude_items=exclude_items
            )
            for index in (own, exact)
        ]
        if len(lists[0].counts) == 0:
            raise ValueError("queries has no rows: there is no recall")
        return float(recalls(*lists).mean())
