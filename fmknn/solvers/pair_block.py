"""The blocks of a chain under the whole-data loss: beside their rows they have a background.

Penalties grow with what a parameter is seen in: λ_p = l2 (Σ w x²)^ν over observed rows of weight w
and all pairs of weight α0 (Rendle et al., "Revisiting the Performance of iALS on Item
Recommendation Benchmarks", RecSys 2022, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..data.rows import read_only
from .all_pairs import AllPairs, SharedPartners
from .entity_rows import EntityRows
from .id_block import IdBlock, is_id_block
from .pair_kernel import sweep_pairs
from .shared_block import SharedBlock
from .sweep import Chain

__all__ = ["PairIdBlock", "PairSharedBlock", "Penalty", "pair_block"]

_AT_ONCE = 72  # coordinates of an entity: what is gathered of them should stay in the cache


@dataclass(frozen=True)
class Penalty:
    """How parameters are kept small.

    Attributes
    ----------
    l2_factors, l2_linear : float
    nu : float
        0: all alike; 1: in proportion to the weight of what a parameter is seen in.
    """

    l2_factors: float
    l2_linear: float
    nu: float

    def of(self, seen: np.ndarray) -> np.ndarray:
        """Return the penalties of factors and of linear weights, shape (2, n), by that weight."""
        scales = np.array([[self.l2_factors], [self.l2_linear]])
        return scales * np.where(seen > 0, seen, 0.0) ** self.nu


def pair_block(
    pairs: AllPairs,
    groups: np.ndarray,
    n_factors: int,
    penalty: Penalty,
    n_passes: int,
    biases: bool,
    rows: EntityRows,
) -> PairIdBlock | PairSharedBlock:
    """Return the block that sweeps over these entities as fast as can be."""
    number = pairs.names.index(rows.block.name)
    is_alone = number == pairs.item_block or len(pairs.names) == 2
    if is_alone and is_id_block(rows, groups, min(n_factors, _AT_ONCE)):
        return PairIdBlock(rows, pairs, number, penalty, n_passes, biases)
    return PairSharedBlock(rows, groups, pairs, number, penalty, biases)


class PairIdBlock(IdBlock):
    """Entities of one feature each: some of their coordinates at a time, to their joint optimum.

    An item without a row is one that nobody took, though everybody could; a user without one is
    just unknown, and stays at 0.
    """

    def __init__(
        self,
        rows: EntityRows,
        pairs: AllPairs,
        number: int,
        penalty: Penalty,
        n_passes: int,
        biases: bool,
    ) -> None:
        super().__init__(rows)
        self.pairs, self.number = pairs, number
        self.n_passes, self.biases = n_passes, biases
        self.unknown = ~self.has_rows & (number != pairs.item_block)
        seen = rows.weight_sums() + pairs.alpha0 * pairs.partners(number)
        self.penalties = read_only(penalty.of(seen), np.float32)

    def step(self, chain: Chain) -> float:
        """Go once through all entities; return Σ w e² of the rows after it."""
        background = self.pairs.background(chain, self.number)
        assert isinstance(background, SharedPartners)
        residuals, squares, _ = self.residuals(chain)
        n_coordinates = chain.n_factors + self.biases
        n_parts = -(-n_coordinates // _AT_ONCE)  # none where nothing is learned
        edges = [n_coordinates * part // max(n_parts, 1) for part in range(n_parts + 1)]
        for first, stop in pairwise(edges):
            gram, gradients = background.part(chain, slice(first, stop))
            gradients[self.unknown] = 0.0
            self.run(
                chain,
                sweep_pairs,
                self.rows.indptr,
                self.rows.others,
                self.rows.root_weights,
                self.first,
                chain.q,
                chain.b,
                first,
                min(stop, chain.n_factors) - first,
                stop > chain.n_factors,
                gram,
                gradients,
                self.penalties,
                self.n_passes,
                residuals,
                squares,
            )
        return float(squares.sum())

    def penalty(self, chain: Chain) -> float:
        """Return Σ λ_p θ_p²."""
        # what has no row is in none of the pairs that the loss is of
        factors, linear = self.penalties.astype(np.float64) * self.has_rows
        squares = np.square(chain.q[self.own], dtype=np.float64).sum(axis=1)
        return float(factors @ squares + linear @ np.square(chain.b[self.own], dtype=np.float64))


class PairSharedBlock(SharedBlock):
    """Entities that share features: a feature at a time, each to its optimum."""

    def __init__(
        self,
        rows: EntityRows,
        groups: np.ndarray,
        pairs: AllPairs,
        number: int,
        penalty: Penalty,
        biases: bool,
    ) -> None:
        has_rows = np.diff(rows.indptr) > 0
        weight = pairs.alpha0 * pairs.partners(number)
        super().__init__(rows, groups, np.where(has_rows, weight, 0.0))
        self.pairs, self.number, self.biases = pairs, number, biases
        # both writable, as the kernels have them of other chains
        self.penalties = read_only(penalty.of(self.seconds), np.float32).copy()
        self._zeros = np.zeros(len(self.columns), np.float32)
        self._n_factors = 0

    def of(self, f: int) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and mean of each feature's f-th coordinate."""
        return self.penalties[int(f == self._n_factors)], self._zeros

    def step(self, chain: Chain) -> float:
        """Go once through all features; return Σ w e² of the rows after it."""
        self._n_factors = chain.n_factors
        squares, _ = self.step_through(
            chain,
            self,
            1.0,
            np.empty((chain.n_factors + 1, 0), np.float32),
            is_last=True,
            background=self.pairs.background(chain, self.number),
            with_linear=self.biases,
        )
        return float(squares.sum())

    def penalty(self, chain: Chain) -> float:
        """Return Σ λ_p θ_p²."""
        theta = chain.theta[:, self.columns].astype(np.float64)
        factors, linear = self.penalties.astype(np.float64)
        return float((theta[:-1] ** 2).sum(axis=0) @ factors + theta[-1] ** 2 @ linear)
