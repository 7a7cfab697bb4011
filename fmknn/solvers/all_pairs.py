"""All pairs of a query and an item, by sums: what the whole-data loss says beside the rows.

A query is a distinct tuple of entities of all blocks but the items': a user, or a user on a Friday.
With s and φ the vector and bias of a query, t and b those of an item, a score is <s, t> + φ + b,
the inner product of [s, 1, φ] and [t, b, 1]: so that sums over all pairs are those of products of
two Gram matrices (Bayer et al., "A Generic Coordinate Descent Framework for Learning from Implicit
Feedback", WWW 2017, section 4), and the queries never meet the items one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from .._threads import run_ranges
from ..data.blocks import Design
from ..data.rows import read_only
from .chain_block import ChainBlock
from .entity_rows import EntityRows
from .feature_kernel import sum_rows
from .stored_rows import rows_by_entity

if TYPE_CHECKING:
    from .sweep import Chain

__all__ = ["AllPairs", "OwnQueries", "SharedPartners"]

_ROWS_AT_ONCE = 2048  # a product of so many has the same bits however many threads there are
_PARTS_AT_ONCE = 64  # whose products are in memory together

_Rows = Callable[[slice], tuple[np.ndarray, np.ndarray]]  # their vectors and biases


class AllPairs:
    """The queries and items of a design, and sums over all their pairs.

    Parameters
    ----------
    design : Design
        One of its blocks is called "item".
    alpha0 : float
        Weight of a pair.

    Attributes
    ----------
    names : list of str
        Of the design's blocks.
    item_block : int
        Which of them holds the items.
    queries : Design
        Of the distinct queries that have a row; without the item block.
    items : ndarray of int64
        The items that have a row, among all entities.
    """

    def __init__(self, design: Design, alpha0: float) -> None:
        self.alpha0 = alpha0
        item = design.block("item")
        self.names = [block.name for block in design.blocks]
        self.item_block = self.names.index("item")
        rest = [number for number in range(len(design.blocks)) if number != self.item_block]
        self.items = item.start + np.unique(design.codes[self.item_block]).astype(np.int64)
        codes = [design.codes[number] for number in rest]
        self.queries = Design(
            _distinct(codes), design.entities, tuple(design.blocks[number] for number in rest)
        )
        self._rows: list[EntityRows] = []
        if len(rest) > 1:
            self._rows = rows_by_entity(self.queries)

    @property
    def n_pairs(self) -> int:
        """Number of pairs of a query and an item."""
        return self.queries.n_rows * len(self.items)

    def partners(self, number: int) -> int | np.ndarray:
        """Return how many pairs each entity of a block is in: one number if all are alike."""
        if number == self.item_block:
            return self.queries.n_rows
        place = self._place(number)
        block = self.queries.blocks[place]
        counts = np.bincount(self.queries.codes[place], minlength=block.stop - block.start)
        return counts * len(self.items)

    def _place(self, number: int) -> int:
        """Return which of the queries' blocks is a block of the design."""
        return number - (number > self.item_block)

    def background(self, chain: Chain, number: int) -> SharedPartners | OwnQueries:
        """Return what all pairs say of the entities of a block, as things stand."""
        if number == self.item_block:
            return SharedPartners(self.alpha0, self.query_gram(chain), chain, number)
        if not self._rows:
            return SharedPartners(self.alpha0, self.item_gram(chain), chain, number)
        rows = self._rows[self._place(number)]
        return OwnQueries(self.alpha0, self.item_gram(chain), rows, len(chain.q))

    def item_gram(self, chain: Chain) -> np.ndarray:
        """Return Σ over the items of ΨΨᵀ, Ψ = [t, 1, b]; float64 (k + 2, k + 2)."""

        def rows(part: slice) -> tuple[np.ndarray, np.ndarray]:
            return chain.q[self.items[part]], chain.b[self.items[part]]

        return _gram(rows, len(self.items), chain.n_factors, chain.n_jobs)

    def query_gram(self, chain: Chain) -> np.ndarray:
        """Return Σ over the queries of ΦΦᵀ, Φ = [s, 1, φ]; float64 (k + 2, k + 2)."""
        index = self.queries.index

        def rows(part: slice) -> tuple[np.ndarray, np.ndarray]:
            first, *others = index[part].T
            s, phi = chain.q[first], chain.b[first]
            for entities in others:
                q = chain.q[entities]
                phi = phi + chain.b[entities] + np.einsum("cf,cf->c", s, q)
                s = s + q
            return s, phi

        return _gram(rows, self.queries.n_rows, chain.n_factors, chain.n_jobs)

    def loss(self, chain: Chain) -> float:
        """Return α0 Σ ŷ² over all pairs."""
        query, item = self.query_gram(chain), self.item_gram(chain)
        k = chain.n_factors
        swapped = [*range(k), k + 1, k]  # <[s, 1, φ], [t, b, 1]>
        return self.alpha0 * float(np.einsum("fg,fg->", query, item[np.ix_(swapped, swapped)]))


def _distinct(codes: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return the distinct tuples among rows, in ascending order."""
    key = np.zeros(len(codes[0]), np.int64)
    for code in codes:
        key = np.unique(key * (int(code.max(initial=0)) + 1) + code, return_inverse=True)[1]
    _, first = np.unique(key, return_index=True)
    return tuple(read_only(code[first], np.int32) for code in codes)


def _gram(rows: _Rows, n: int, n_factors: int, n_jobs: int | None) -> np.ndarray:
    """Return Σ xxᵀ of x = [vector, 1, bias] over n rows, float64."""
    total = np.zeros((n_factors + 2,) * 2)
    for first in range(0, n, _ROWS_AT_ONCE * _PARTS_AT_ONCE):
        stop = min(first + _ROWS_AT_ONCE * _PARTS_AT_ONCE, n)
        starts = range(first, stop, _ROWS_AT_ONCE)
        products = np.empty((len(starts), *total.shape), np.float32)

        def task(low: int, high: int, starts: range, stop: int, products: np.ndarray) -> None:
            for place in range(low, high):
                vectors, biases = rows(
                    slice(starts[place], min(starts[place] + _ROWS_AT_ONCE, stop))
                )
                x = np.column_stack([vectors, np.ones_like(biases), biases])
                np.matmul(x.T, x, out=products[place])

        run_ranges(
            partial(task, starts=starts, stop=stop, products=products),
            len(starts),
            n_jobs,
            smallest=1,
        )
        for product in products:
            total += product
    return total


class SharedPartners:
    """The background of a block whose entities all have the same partners.

    Attributes
    ----------
    gram : ndarray of float64, shape (k + 1, k + 1)
        α0 Σ hhᵀ over the partners, h = [o, 1].
    constant : ndarray of float64, shape (k + 1,)
        α0 Σ β h, β being the part of the score that is the partner's own.
    """

    def __init__(self, alpha0: float, gram: np.ndarray, chain: Chain, number: int) -> None:
        self.gram, self.constant = alpha0 * gram[:-1, :-1], alpha0 * gram[:-1, -1]
        self.block = chain.blocks[number]

    def part(self, chain: Chain, coordinates: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the Gram matrix of some coordinates, and each entity's gradients, float32."""
        gram = np.ascontiguousarray(self.gram[coordinates, coordinates], np.float32)
        return gram, self.gradients(chain, coordinates)

    def gradients(self, chain: Chain, coordinates: slice) -> np.ndarray:
        """Return α0 Σ ŷ h_f of each entity and some coordinates f, float32 (n_entities, m)."""
        own = self.block.own
        theta = np.column_stack([chain.q[own], chain.b[own]])
        gram = self.gram[coordinates].astype(np.float32).T  # it is symmetric
        gradients = np.empty((len(theta), gram.shape[1]), np.float32)
        parts = range(0, len(theta), _ROWS_AT_ONCE)

        def task(start: int, stop: int) -> None:
            for first in parts[start:stop]:
                rows = slice(first, first + _ROWS_AT_ONCE)
                gradients[rows] = theta[rows] @ gram

        run_ranges(task, len(parts), chain.n_jobs, smallest=1)
        gradients += self.constant[coordinates].astype(np.float32)
        return gradients

    def add(self, chain: Chain, first: int, sums: np.ndarray, records: np.ndarray) -> None:
        """Add to the sums over rows; see :class:`fmknn.solvers.shared_block.Background`."""
        m, k = sums.shape[2], chain.n_factors
        now, has_rows = slice(first, first + m), self.block.has_rows
        sums[has_rows, :m] += self.gram[now, now].astype(np.float32)
        sums[has_rows, m] += self.gram[k, now].astype(np.float32)
        sums[has_rows, m + 1] -= self.gradients(chain, now)[has_rows]
        records[has_rows, 3] -= self.gradients(chain, slice(k, k + 1))[has_rows, 0]


class OwnQueries:
    """The background of a block of queries that have other blocks too: each entity has its own.

    In a query with the sum o of the other blocks' vectors, the regressor of the pair with an item
    is t + o, so that sums over pairs are made of sums over the items and over the entity's queries.
    """

    def __init__(self, alpha0: float, gram: np.ndarray, rows: EntityRows, n_entities: int) -> None:
        self.alpha0, self.gram = alpha0, gram
        self.queries = ChainBlock(rows)
        self.queries.y = read_only(np.zeros(len(rows.others)), np.float32)
        self.entity = np.repeat(np.arange(rows.n_entities), np.diff(rows.indptr))
        # of all blocks in each query, and how often an entity's queries have each
        self.members = np.column_stack([rows.block.start + self.entity, rows.others])
        ones, indptr = np.ones(self.members.size), rows.indptr * self.members.shape[1]
        shape = rows.n_entities, n_entities
        self.counts = sp.csr_array((ones, self.members.ravel(), indptr), shape=shape)

    def add(self, chain: Chain, first: int, sums: np.ndarray, records: np.ndarray) -> None:
        """Add to the sums over rows; see :class:`fmknn.solvers.shared_block.Background`."""
        m, k, n = sums.shape[2], chain.n_factors, len(sums)
        now = slice(first, first + m)
        n_items, t, tt = self.gram[k, k], self.gram[k, :k], self.gram[:k, :k]
        bias, bias_t = self.gram[k, k + 1], self.gram[:k, k + 1]
        q = chain.q.astype(np.float64)
        scores = -self.queries.residuals(chain)[0].astype(np.float64)  # of a query, without an item
        item_sums = n_items * scores + bias + (q @ t)[self.members].sum(axis=1)
        of_queries, totals = self._sum_rows(chain, now, -item_sums)
        count = np.bincount(self.entity, minlength=n).astype(np.float64)[:, None]
        o = of_queries[:, m].astype(np.float64)
        products = n_items * of_queries[:, :m] + count[:, :, None] * tt[now, now]
        products += t[now, None] * o[:, None, :] + o[:, :, None] * t[now]
        # Σ ŷ t, of each entity's pairs
        explained = np.bincount(self.entity, scores, n)[:, None] * t[now]
        explained += count * bias_t[now] + (self.counts @ q) @ tt[:, now]
        sums[:, :m] += self.alpha0 * products
        sums[:, m] += self.alpha0 * (count * t[now] + n_items * o)
        sums[:, m + 1] += self.alpha0 * (of_queries[:, m + 1] - explained)
        records[:, 3] += self.alpha0 * totals

    def _sum_rows(
        self, chain: Chain, now: slice, residuals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what :func:`sum_rows` makes of the queries, and the sums of their residuals."""
        rows, n = self.queries.rows, self.queries.rows.n_entities
        q = read_only(np.ascontiguousarray(chain.q[:, now]), np.float32)
        sums = np.empty((n, q.shape[1] + 2, q.shape[1]), np.float32)
        records = np.zeros((n, 4))
        self.queries.run(
            chain,
            sum_rows,
            rows.indptr,
            rows.others,
            rows.root_weights,
            read_only(np.empty((len(q), 0)), np.float32),  # nothing has moved
            np.zeros((n, 1), np.float32),
            q,
            residuals.astype(np.float32),
            sums,
            records,
            np.zeros(n),
        )
        return sums, records[:, 3]
