"""The rows of somebody new, solved in closed form.

In a query or for an item that is new, let θ = [v, w] be the parameters of its own id, o what its
known features and, for a user, the context add to its vector, and c what they score alone. A
partner with vector t and bias β then has the score

    f + <θ, h>,    f = c + β + <o, t>,    h = [t + o, 1],

and θ solves (Σ w hhᵀ + α0 Σ_all hhᵀ + Λ) θ = Σ w (y - f) h - α0 Σ_all f h + Λ μ, the first and the
third sum going over the partners that were met, those of α0 over all partners that have a row.
BLAS is to run on one thread here: several may round differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._threads import run_ranges
from ..solvers.row_rules import RowRule

__all__ = ["Meetings", "Partners", "solve_rows"]

_PARTNERS_AT_ONCE = 4096  # a product of so many has the same bits however many threads there are
_ROWS_AT_ONCE = 256  # their matrices are solved together: few calls, little memory
_LEAST_RIDGE = 1e-10  # of the diagonal, whose units differ: where rows say nothing, θ is small


@dataclass(frozen=True)
class Meetings:
    """Whom each new entity met, and what came of it.

    Attributes
    ----------
    indptr : ndarray of int64, shape (n + 1,)
    partners : ndarray of int32, shape (n_meetings,)
        Ascending and distinct within each entity.
    values : ndarray of float64, shape (n_meetings,)
        Ratings or counts.
    """

    indptr: np.ndarray
    partners: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of partners of each entity."""
        return np.diff(self.indptr)

    def take(self, rows: np.ndarray) -> Meetings:
        """Return those of some entities, in that order."""
        lengths = self.lengths[rows]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Meetings(indptr, self.partners[places], self.values[places])


class Partners:
    """The entities of the other side, as the rows of new ones see them.

    Parameters
    ----------
    vectors : ndarray of float32, shape (m, k)
    biases : ndarray of float64, shape (m,)
    everybody : ndarray of int, optional
        Those of them that all pairs are made with; None: there is no loss on all pairs.
    n_jobs : int or None
    """

    def __init__(
        self,
        vectors: np.ndarray,
        biases: np.ndarray,
        everybody: np.ndarray | None,
        n_jobs: int | None = 1,
    ) -> None:
        self.vectors, self.biases = vectors, biases
        self.n, k = 0, vectors.shape[1]
        total = np.zeros((k + 2, k + 2))  # Σ xxᵀ of x = [t, 1, β]
        if everybody is not None:
            self.n = len(everybody)
            starts = range(0, self.n, _PARTNERS_AT_ONCE)
            products = np.zeros((len(starts), k + 2, k + 2))

            def task(first: int, stop: int) -> None:
                for place in range(first, stop):
                    own = everybody[starts[place] : starts[place] + _PARTNERS_AT_ONCE]
                    x = np.ones((len(own), k + 2))
                    x[:, :k], x[:, k + 1] = vectors[own], biases[own]
                    np.matmul(x.T, x, out=products[place])

            run_ranges(task, len(starts), n_jobs, smallest=1)
            total = products.sum(axis=0)
        self.vector_gram, self.vector_sum = total[:k, :k], total[:k, k]
        self.bias_products, self.bias_sum = total[:k, k + 1], float(total[k, k + 1])

    def background(self, own: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
        """Return Σ hhᵀ, shape (k + 1, k + 1), and Σ f h over everybody, for o and c of a row."""
        k = len(own)
        along = self.vector_gram @ own
        shift = np.outer(self.vector_sum, own)
        gram = np.empty((k + 1, k + 1))
        gram[:k, :k] = self.vector_gram + shift + shift.T + self.n * np.outer(own, own)
        gram[k, :k] = gram[:k, k] = self.vector_sum + self.n * own
        gram[k, k] = self.n
        total = self.n * score + self.bias_sum + own @ self.vector_sum
        of_vectors = score * self.vector_sum + self.bias_products + along + total * own
        return gram, np.append(of_vectors, total)


def solve_rows(
    partners: Partners,
    own: np.ndarray,
    scores: np.ndarray,
    meetings: Meetings,
    rule: RowRule,
    prior: tuple[np.ndarray, np.ndarray],
    n_jobs: int | None = 1,
) -> np.ndarray:
    """Return θ of new entities.

    Parameters
    ----------
    partners : Partners
    own : ndarray of float, shape (n, k)
        o: what is known of each entity's vector.
    scores : ndarray of float64, shape (n,)
        c: what each entity scores without its own parameters and a partner.
    meetings : Meetings
        An entity that met nobody is at the mean of the prior.
    rule : RowRule
    prior : tuple of ndarray
        μ and Λ.
    n_jobs : int or None
        Threads (-1 or None: all cores). The result does not depend on it, nor on the other rows.

    Returns
    -------
    ndarray of float64, shape (n, k + 1)
    """
    mean, precision = prior
    theta = np.tile(mean, (len(meetings), 1))
    dim = len(mean) if rule.biases else len(mean) - 1
    weights, targets = rule.observed(meetings.values)
    met = np.flatnonzero(meetings.lengths)
    if not dim or not len(met):
        return theta

    def equations(row: int) -> tuple[np.ndarray, np.ndarray]:
        which = slice(meetings.indptr[row], meetings.indptr[row + 1])
        o, w = own[row].astype(np.float64), weights[which]
        t = partners.vectors[meetings.partners[which]].astype(np.float64)
        f = scores[row] + partners.biases[meetings.partners[which]] + t @ o
        h = np.ones((len(t), len(mean)))
        np.add(t, o, out=h[:, :-1])
        weighted = w[:, None] * h
        gram, products = weighted.T @ h, (targets[which] - f) @ weighted
        if rule.alpha0:
            of_all, explained = partners.background(o, scores[row])
            gram += rule.alpha0 * of_all
            products -= rule.alpha0 * explained
        growth = rule.growth(float(w.sum()), partners.n)
        gram += growth * precision
        products += growth * (precision @ mean)
        gram = gram[:dim, :dim]
        diagonal = np.diag(gram)
        gram[np.diag_indices(dim)] += np.where(diagonal > 0, _LEAST_RIDGE * diagonal, 1.0)
        return gram, products[:dim]

    def task(start: int, stop: int) -> None:
        for first in range(start, stop, _ROWS_AT_ONCE):
            rows = met[first : min(first + _ROWS_AT_ONCE, stop)]
            grams, products = np.empty((len(rows), dim, dim)), np.empty((len(rows), dim, 1))
            for place, row in enumerate(rows):
                grams[place], products[place, :, 0] = equations(row)
            theta[rows, :dim] = np.linalg.solve(grams, products)[..., 0]

    run_ranges(task, len(met), n_jobs)
    return theta
