"""Features of a block that are swept in one go: neighbours whose values are of one kind."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..data.rows import read_only
from .feature_kernel import sweep_factor

__all__ = ["FeatureRun", "feature_runs"]


class FeatureRun:
    """Some features, all in one go; quicker where each entity has one value in all of them.

    Parameters
    ----------
    start, stop : int
        Which of the block's features, in its order by feature.
    columns, indptr, entities, values : ndarray
        The entity table by feature; see :func:`fmknn.solvers.feature_kernel.sweep_factor`.
    counts : ndarray of float64, shape (n_entities,)
        Σ w over each entity's rows.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        columns: np.ndarray,
        indptr: np.ndarray,
        entities: np.ndarray,
        values: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        self.places = slice(start, stop)
        self.columns, self.indptr = columns[start:stop], indptr[start : stop + 1]
        self.entities, self.values, self.counts = entities, values, counts
        own = slice(int(indptr[start]), int(indptr[stop]))
        feature = np.repeat(np.arange(stop - start), np.diff(self.indptr))
        x, of = values[own].astype(np.float64), entities[own]
        self.fourths = read_only(np.bincount(feature, x**4 * counts[of], stop - start), np.float64)
        self.powers: np.ndarray | None = None
        scale = np.ones(len(counts))
        scale[of] = x
        if (scale[of] == x).all():  # divided by it, all values are 1
            self.values = values[:0]
            if (x != 1).any():
                self.powers = np.column_stack([scale**2, scale**3, scale, scale**2])
                self.counts = read_only(scale**4 * counts, np.float64)

    def sweep(
        self,
        records: np.ndarray,
        theta: np.ndarray,
        precision: np.ndarray,
        mean: np.ndarray,
        noise_precision: float,
        noise: np.ndarray,
    ) -> None:
        """Step through the features in one factor; the arrays are those of the whole block."""
        if self.powers is not None:
            records *= self.powers
        sweep_factor(
            self.columns,
            self.indptr,
            self.entities,
            self.values,
            self.counts,
            self.fourths,
            records,
            theta,
            precision[self.places],
            mean[self.places],
            noise_precision,
            noise[self.places],
        )
        if self.powers is not None:
            records /= self.powers


def feature_runs(
    groups: np.ndarray,
    columns: np.ndarray,
    indptr: np.ndarray,
    entities: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
) -> list[FeatureRun]:
    """Cut the features of a block where the group changes, unless all values are 1 on both sides.

    Parameters
    ----------
    groups : ndarray of int, shape (m,)
        Of each feature.
    columns, indptr, entities, values, counts
        As of :class:`FeatureRun`.
    """
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    ones = [bool((values[indptr[a] : indptr[b]] == 1).all()) for a, b in pairwise(edges)]
    cuts = [edges[i + 1] for i, both in enumerate(pairwise(ones)) if not all(both)]
    ends = [0, *cuts, len(groups)]
    return [
        FeatureRun(start, stop, columns, indptr, entities, values, counts)
        for start, stop in pairwise(ends)
        if stop > start
    ]
