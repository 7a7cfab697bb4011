"""Chain: the parameters of a factorization machine, and the sweeps over blocks that move them.

One sweep serves alternating least squares (each coordinate goes to its conditional mean) and Gibbs
sampling (noise is added); what differs is the prior and the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..data.blocks import Design
from .chain_block import Prior
from .entity_rows import EntityRows
from .id_block import IdBlock, is_id_block
from .shared_block import SharedBlock
from .stored_rows import rows_by_entity
from .targets import Targets

__all__ = ["Chain", "Prior", "column_groups"]


def column_groups(design: Design) -> np.ndarray:
    """Return the group of each feature column: what shares a prior. Each block is one, unless
    the design says more."""
    if design.groups is not None:
        return design.groups
    groups = np.zeros(design.n_features, np.int32)
    for number, block in enumerate(design.blocks):
        groups[block.columns] = number
    return groups


def block_of(groups: np.ndarray, n_factors: int, rows: EntityRows) -> IdBlock | SharedBlock:
    """Return the block that sweeps over these entities as fast as can be."""
    if is_id_block(rows, groups, n_factors):
        return IdBlock(rows)
    return SharedBlock(rows, groups)


class Chain:
    """Parameters in the making.

    Parameters
    ----------
    design : Design
    n_factors : int
    groups : ndarray of int32, shape (n_features,)
        As :func:`column_groups` gives them.
    n_jobs : int or None
        Threads; no result depends on them.
    make_block : callable, optional
        Makes a block of its rows by entity.

    Attributes
    ----------
    w0 : float
    theta : ndarray of float32, shape (k + 1, n_features)
        Factors, and in the last row linear weights.
    q : ndarray of float32, shape (n_entities, k)
    b : ndarray of float32, shape (n_entities,)
    """

    def __init__(
        self,
        design: Design,
        n_factors: int,
        groups: np.ndarray,
        n_jobs: int | None,
        make_block: Callable[[EntityRows], Any] | None = None,
    ) -> None:
        self.design, self.groups, self.n_jobs = design, groups, n_jobs
        self.w0 = 0.0
        self.theta = np.zeros((n_factors + 1, design.n_features), np.float32)
        self.q = np.zeros((len(design.entities), n_factors), np.float32)
        self.b = np.zeros(len(design.entities), np.float32)
        if make_block is None:
            make_block = partial(block_of, groups, n_factors)
        self.blocks = [make_block(rows) for rows in rows_by_entity(design)]
        self.seen = np.zeros(design.n_features, bool)
        for block in self.blocks:
            self.seen[block.columns_seen] = True

    @property
    def n_factors(self) -> int:
        """Number of factors k."""
        return self.q.shape[1]

    def start(self, theta: np.ndarray, w0: float) -> None:
        """Begin with given parameters, shape (k + 1, n_features)."""
        self.theta[:] = theta
        self.w0 = float(w0)
        for block in self.blocks:
            block.place(self)

    def set_targets(self, y: np.ndarray | Targets) -> None:
        """Take the targets, in the order of the design's rows."""
        for block in self.blocks:
            block.y = block.rows.targets(y)

    def parameters(self, priors: dict[int, Prior] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of w, shape (p,), and V, shape (p, k).

        Features without a row are at their prior's mean: they are integrated out of the chain.
        """
        theta = self.theta.copy()
        for block in self.blocks:
            if isinstance(block, IdBlock):
                own = slice(block.first, block.first + block.rows.n_entities)
                theta[:-1, block.columns] = self.q[own].T
                theta[-1, block.columns] = self.b[own]
        for group, prior in (priors or {}).items():
            unseen = ~self.seen & (self.groups == group)
            theta[:, unseen] = prior.mean.astype(np.float32)[:, None]
        return theta[-1].copy(), np.ascontiguousarray(theta[:-1].T)

    def of_group(self, group: int) -> np.ndarray:
        """Return the parameters of a group's seen features, shape (n, k + 1); n may be 0."""
        parts = [np.empty((0, len(self.theta)), np.float32)]
        for block in self.blocks:
            own = block.of_group(self, group)
            parts += [] if own is None else [own]
        return np.concatenate(parts)

    def sweep(
        self,
        priors: dict[int, Prior],
        noise_precision: float,
        generator: np.random.Generator | None,
    ) -> tuple[float, float]:
        """Go once through all blocks; return Σ w e² and Σ w e of the residuals e after it.

        Parameters
        ----------
        priors : dict of int to Prior
            By group.
        noise_precision : float
            α, of the residuals.
        generator : Generator or None
            None: every coordinate goes to its conditional mean.
        """
        squares = sums = np.zeros(1)
        for block in self.blocks:
            is_last = block is self.blocks[-1]
            squares, sums = block.sweep(self, priors, noise_precision, generator, is_last)
        return float(squares.sum()), float(sums.sum())

    def residuals(self) -> tuple[float, float]:
        """Return Σ w e² and Σ w e as things stand."""
        _, squares, sums = self.blocks[0].residuals(self, of_rows=False)
        return float(squares.sum()), float(sums.sum())
