"""The block of a chain whose entities share features: swept factor by factor, on sums over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from ..model.kernels import entity_vectors
from .chain_block import NO_NOISE, ChainBlock, Prior
from .entity_rows import EntityRows
from .feature_kernel import (
    finish_factor,
    start_factor,
    sum_rows,
    sweep_factor,
    sweep_linear,
)

if TYPE_CHECKING:
    from .sweep import Chain

__all__ = ["SharedBlock"]

_FACTORS_AT_ONCE = 8  # rows are looked at once for so many


class SharedBlock(ChainBlock):
    """A block whose entities share features: swept factor by factor, on sums over rows."""

    def __init__(self, rows: EntityRows, groups: np.ndarray) -> None:
        super().__init__(rows)
        table = rows.features.to_scipy().copy()  # what is eliminated from must be its own
        table.data[~np.repeat(self.has_rows, np.diff(table.indptr))] = 0
        table.eliminate_zeros()  # what has no row says nothing
        by_feature = table.tocsc()
        by_feature.sort_indices()
        counts = np.diff(by_feature.indptr)
        self.columns_seen = np.flatnonzero(counts)
        self.columns = read_only(self.columns_seen, np.int64)
        self.indptr = read_only(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[self.columns_seen])]), np.int64
        )
        self.entities = read_only(by_feature.indices, np.uint32)  # no sign to look at
        self.values = read_only(by_feature.data, np.float32)
        self.counts = rows.weight_sums()
        squared = by_feature.power(2).astype(np.float64)[:, self.columns_seen]
        self.seconds = squared.T @ self.counts
        self.fourths = squared.power(2).T @ self.counts
        own = groups[self.columns_seen]
        self.members = {int(group): _places(own == group) for group in np.unique(own)}

    def place(self, chain: Chain) -> None:
        """Compute the entities' q and b from the features' parameters."""
        features = self.rows.features
        w = read_only(chain.theta[-1], np.float32)
        V = read_only(chain.theta[:-1].T, np.float32)
        n = self.rows.n_entities
        q, b = np.empty((n, chain.n_factors), np.float32), np.empty(n, np.float64)

        def task(start: int, stop: int) -> None:
            entity_vectors(
                features.indptr, features.indices, features.values, w, V, q, b, start, stop
            )

        run_ranges(task, n, chain.n_jobs)
        chain.q[self.first : self.first + n] = q
        chain.b[self.first : self.first + n] = b

    def of_group(self, chain: Chain, group: int) -> np.ndarray | None:
        if group not in self.members:
            return None
        return chain.theta[:, self.columns[self.members[group]]].T

    def sweep(
        self,
        chain: Chain,
        priors: dict[int, Prior],
        noise_precision: float,
        generator: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go once through all features; return Σ w ε² and Σ w ε of each entity's rows."""
        k = chain.n_factors
        noise = NO_NOISE
        if generator is not None:
            noise = generator.standard_normal((k + 1, len(self.columns)), dtype=np.float32)

        def step(kernel: Any, f: int, powers: np.ndarray) -> None:
            kernel(
                self.columns,
                self.indptr,
                self.entities,
                self.values,
                self.counts,
                powers,
                rows.records,
                chain.theta[f],
                *conditionals.of(f),
                noise_precision,
                noise[f] if len(noise) else NO_NOISE.ravel(),
            )

        rows, conditionals = _Rows(self, chain), _Conditionals(self, chain, priors)
        for first in range(0, k, _FACTORS_AT_ONCE):
            now = np.ascontiguousarray(chain.q[:, first : first + _FACTORS_AT_ONCE])
            products = rows.look(now)
            for f in range(now.shape[1]):
                common = f, self.counts, products, now[self.own, f].copy(), rows.records
                start_factor(*common)
                step(sweep_factor, first + f, self.fourths)
                finish_factor(*common, rows.moves)
        before = rows.records[:, 3].copy()
        step(sweep_linear, k, self.seconds)
        change = before - rows.records[:, 3]
        rows.moves[:, -1] += np.divide(
            change, self.counts, out=np.zeros_like(change), where=self.counts > 0
        )
        rows.look(rows.now[:, :0])
        self.place(chain)
        return rows.squares, rows.records[:, 3].copy()


def _places(chosen: np.ndarray) -> Any:
    """Return where it is true, as a slice if that is in one piece."""
    places = np.flatnonzero(chosen)
    first, stop = int(places[0]), int(places[-1]) + 1
    return slice(first, stop) if stop - first == len(places) else places


class _Conditionals:
    """The prior of each feature's coordinates, one after the other, given its other ones."""

    def __init__(self, block: SharedBlock, chain: Chain, priors: dict[int, Prior]) -> None:
        self.block, self.chain, self.priors = block, chain, priors
        self.away = {  # θ - μ
            group: self._theta(group, slice(None)) - priors[group].mean[:, None]
            for group in block.members
            if priors[group].is_correlated
        }

    def _theta(self, group: int, coordinates: Any) -> np.ndarray:
        columns = self.block.columns[self.block.members[group]]
        return self.chain.theta[coordinates, columns].astype(np.float64)

    def of(self, f: int) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and mean of each feature's f-th coordinate; those before have moved."""
        n_features = len(self.block.columns)
        precision, mean = np.empty(n_features, np.float32), np.empty(n_features, np.float32)
        for group, places in self.block.members.items():
            prior = self.priors[group]
            precision[places] = prior.precision[f, f]
            mean[places] = prior.mean[f]
            if prior.is_correlated:
                away = self.away[group]
                if f > 0:
                    away[f - 1] = self._theta(group, f - 1) - prior.mean[f - 1]
                pull = np.zeros(away.shape[1])
                for g in range(len(away)):  # in a fixed order, which BLAS does not promise
                    if g != f:
                        pull += prior.precision[f, g] * away[g]
                mean[places] -= pull / prior.precision[f, f]
        return precision, mean


class _Rows:
    """What the block's rows say, and how far their residuals are behind the entities.

    Attributes
    ----------
    records : ndarray of float64, shape (n_entities, 5)
        See :mod:`fmknn.solvers.feature_kernel`.
    squares : ndarray of float64, shape (n_entities,)
    now : ndarray of float32, shape (all entities, m)
        q in the factors that were last looked at.
    moves : ndarray of float32, shape (n_entities, m + 1)
        How far q in these factors, and b, have moved since.
    """

    def __init__(self, block: SharedBlock, chain: Chain) -> None:
        self.block, self.chain = block, chain
        n = block.rows.n_entities
        self.residuals, self.squares, sums = block.residuals(chain)
        self.records = np.zeros((n, 5))
        self.records[:, 3] = sums
        self.now = np.empty((len(chain.q), 0), np.float32)
        self.moves = np.zeros((n, 1), np.float32)

    def look(self, now: np.ndarray) -> np.ndarray:
        """Let the residuals follow, and return the sums that the steps in other factors need."""
        rows, n = self.block.rows, self.block.rows.n_entities
        sums = np.empty((n, now.shape[1] + 2, now.shape[1]), np.float32)
        self.block.run(
            self.chain,
            sum_rows,
            rows.indptr,
            rows.others,
            rows.root_weights,
            read_only(self.now, np.float32),
            self.moves,
            read_only(now, np.float32),
            self.residuals,
            sums,
            self.records,
            self.squares,
        )
        self.now, self.moves = now, np.zeros((n, now.shape[1] + 1), np.float32)
        return sums
