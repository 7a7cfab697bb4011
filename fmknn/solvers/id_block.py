"""The block of a chain whose entities are one feature each: ids without features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.rows import read_only
from .chain_block import ChainBlock, Prior
from .entity_rows import EntityRows, Shard
from .sweep_kernel import sweep_one_hot

if TYPE_CHECKING:
    from .sweep import Chain

__all__ = ["IdBlock", "is_id_block"]


_MOST_GATHERED = 2**24  # regressors of one entity: 64 MB for each thread


def is_id_block(rows: EntityRows, groups: np.ndarray, n_factors: int) -> bool:
    """Return whether each entity is one feature of its own, and all have one prior.

    A few levels with millions of rows each are better off by sums over them: those take no more
    memory the more rows there are.
    """
    longest = int(np.diff(rows.indptr).max(initial=0))
    is_short = longest * (n_factors + 1) <= _MOST_GATHERED
    return is_short and rows.is_one_hot and len(np.unique(groups[rows.features.indices])) <= 1


class IdBlock(ChainBlock):
    """A block whose entities are one feature each: its parameters are the entities' q and b."""

    def __init__(self, rows: EntityRows) -> None:
        super().__init__(rows)
        self.columns = rows.features.indices
        self.columns_seen = self.columns[self.has_rows]

    def place(self, chain: Chain) -> None:
        chain.q[self.own] = chain.theta[:-1, self.columns].T
        chain.b[self.own] = chain.theta[-1, self.columns]

    def of_group(self, chain: Chain, group: int) -> np.ndarray | None:
        if not len(self.columns) or chain.groups[self.columns[0]] != group:
            return None
        return np.column_stack([chain.q[self.own][self.has_rows], chain.b[self.own][self.has_rows]])

    def sweep(
        self,
        chain: Chain,
        priors: dict[int, Prior],
        noise_precision: float,
        generator: np.random.Generator | None,
        is_last: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        n = self.rows.n_entities
        squares, sums = np.zeros(n), np.zeros(n)
        if n == 0:
            return squares, sums
        prior = priors[int(chain.groups[self.columns[0]])]
        noise = np.empty((0, 0), np.float32)
        if generator is not None:
            noise = generator.standard_normal((n, chain.n_factors + 1), dtype=np.float32)
        update = (
            read_only(prior.precision, np.float32),
            read_only(prior.mean, np.float32),
            prior.is_correlated,
            np.float32(noise_precision),
            noise,
            squares,
            sums,
        )

        def arguments(shard: Shard) -> tuple[Any, ...]:
            return *self.common(chain, shard), *update

        self.run_shards(chain, sweep_one_hot, arguments, self.y)
        return squares, sums
