"""What the blocks of a chain have in common, and the prior that their parameters are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._threads import run_ranges
from .entity_rows import EntityRows, Shard
from .feature_kernel import start_rows
from .targets import Targets

if TYPE_CHECKING:
    from .sweep import Chain

__all__ = ["ChainBlock", "Prior"]


@dataclass(frozen=True)
class Prior:
    """A Gaussian prior of the parameters [v, w] of a group's features.

    Attributes
    ----------
    precision : ndarray of float64, shape (k + 1, k + 1)
    mean : ndarray of float64, shape (k + 1,)
    is_correlated : bool
        Whether the precision is more than a diagonal.
    """

    precision: np.ndarray
    mean: np.ndarray
    is_correlated: bool


class ChainBlock:
    """One block of a design, its rows sorted by entity.

    Attributes
    ----------
    rows : EntityRows
    first : int
        The first of its entities among all.
    has_rows : ndarray of bool, shape (n_entities,)
    y : ndarray of float32, shape (n_rows,), or Targets
        Targets in the order of ``rows``, or as they are on disk in that order.
    """

    def __init__(self, rows: EntityRows) -> None:
        self.rows = rows
        self.first = rows.block.start
        self.has_rows = np.diff(rows.indptr) > 0
        self.y: np.ndarray | Targets = np.empty(0, np.float32)

    @property
    def own(self) -> slice:
        """Where its entities are among all."""
        return slice(self.first, self.first + self.rows.n_entities)

    def common(self, chain: Chain, shard: Shard) -> tuple[Any, ...]:
        """The arguments with which kernels begin that compute residuals."""
        return (
            shard.indptr,
            shard.others,
            shard.y,
            shard.root_weights,
            self.first,
            np.float32(chain.w0),
            chain.q,
            chain.b,
        )

    def residuals(
        self, chain: Chain, of_rows: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return √w ε of each row, if wanted, and Σ w ε² and Σ w ε of each entity."""
        residuals = np.empty(len(self.rows.others) if of_rows else 0, np.float32)
        squares, sums = np.zeros(self.rows.n_entities), np.zeros(self.rows.n_entities)

        def arguments(shard: Shard) -> tuple[Any, ...]:
            return (*self.common(chain, shard), residuals[shard.rows], squares, sums)

        self.run_shards(chain, start_rows, arguments, self.y)
        return residuals, squares, sums

    def run_shards(
        self,
        chain: Chain,
        kernel: Any,
        arguments: Callable[[Shard], tuple[Any, ...]],
        y: np.ndarray | Targets | None = None,
    ) -> None:
        """Run a kernel over the entities, shard by shard, each shared out to the chain's threads.

        An entity's rows are in one shard, and no result depends on how shards are cut.
        """
        for shard in self.rows.shards(y):
            arrays, first = arguments(shard), shard.start

            def task(
                start: int, stop: int, arrays: tuple[Any, ...] = arrays, first: int = first
            ) -> None:
                kernel(*arrays, first + start, first + stop)

            run_ranges(task, shard.stop - first, chain.n_jobs)

    def run(self, chain: Chain, kernel: Any, *arrays: Any) -> None:
        """Run a kernel over the entities, shared out to the chain's threads."""

        def task(start: int, stop: int) -> None:
            kernel(*arrays, start, stop)

        run_ranges(task, self.rows.n_entities, chain.n_jobs)
