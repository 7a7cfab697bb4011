"""Scores and predictions of (query, item) pairs, exactly as a search scores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.rows import SparseRows
from ..index.rank import pair_scores
from ..model.base import Link, Model, expectation
from ..model.params import FMParams
from ..model.projection import item_matrix
from .queries import QueryDesign

if TYPE_CHECKING:
    from .topn import TopN

__all__ = ["PairPredictor", "linear_predictors", "score_in_chunks"]

_CHUNK = 8192  # pairs whose query rows are laid out at a time: those of a posterior are long


def linear_predictors(
    model: Model,
    design: QueryDesign,
    vectors: np.ndarray,
    which: np.ndarray,
    positions: np.ndarray,
    n_jobs: int | None = 1,
) -> np.ndarray:
    """Return offset + <query row, item row> of pairs.

    Parameters
    ----------
    model : Model
    design : QueryDesign
    vectors : ndarray of float32
        The item rows.
    which, positions : ndarray of int, shape (n,)
        The query and the item row of each pair; an item at -1 adds nothing.
    n_jobs : int or None

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    rows, offsets = design.project(model, n_jobs=n_jobs)

    def queries(part: slice) -> tuple[np.ndarray, np.ndarray]:
        return rows[which[part]], offsets[which[part]]

    return score_in_chunks(queries, vectors, positions, n_jobs)


def score_in_chunks(
    queries: Callable[[slice], tuple[np.ndarray, np.ndarray]],
    vectors: np.ndarray,
    positions: np.ndarray,
    n_jobs: int | None = 1,
) -> np.ndarray:
    """Return offset + <query row, item row> of pairs, whose query rows are made when needed.

    Parameters
    ----------
    queries : callable
        From a range of the pairs to their query rows and offsets.
    vectors : ndarray of float32
        The item rows.
    positions : ndarray of int, shape (n,)
        The item row of each pair; an item at -1 adds nothing.
    n_jobs : int or None

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    scores = np.empty(len(positions))
    for start in range(0, len(positions), _CHUNK):
        part = slice(start, start + _CHUNK)
        rows, offsets = queries(part)
        products = pair_scores(rows, vectors, np.maximum(positions[part], 0), n_jobs)
        scores[part] = offsets + np.where(positions[part] >= 0, products, 0.0)
    return scores


@dataclass(frozen=True)
class PairPredictor:
    """What a model predicts of pairs: the mean over its samples of what each one's score means.

    Attributes
    ----------
    model : Model
    item_rows : SparseRows
        Features of every item.
    link : callable
        From the scores of a sample, and the sample, to predictions.
    n_jobs : int or None
    """

    model: Model
    item_rows: SparseRows
    link: Link
    n_jobs: int | None = 1

    def of_pairs(self, design: QueryDesign, which: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the predictions of (query, item) pairs.

        Parameters
        ----------
        design : QueryDesign
        which, positions : ndarray of int, shape (n,)
            The query and the item of each pair; an item at -1 adds nothing.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        items, places = np.unique(np.maximum(positions, 0), return_inverse=True)
        rows = self.item_rows.take(items)
        places = np.where(positions >= 0, places, -1)

        def score(sample: FMParams) -> np.ndarray:
            vectors = item_matrix(sample, rows, n_jobs=self.n_jobs)
            return linear_predictors(sample, design, vectors, which, places, self.n_jobs)

        return expectation(self.model, score, self.link)[0]

    def of_lists(self, design: QueryDesign, top: TopN) -> np.ndarray:
        """Return the predictions of the items of lists, one list per query.

        Parameters
        ----------
        design : QueryDesign
        top : TopN

        Returns
        -------
        ndarray of float64, shape (n_queries, width)
            Anything where a row has no more items.
        """
        n, width = top.positions.shape
        which = np.repeat(np.arange(n), width)
        return self.of_pairs(design, which, top.positions.ravel()).reshape(n, width)
