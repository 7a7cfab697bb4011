"""The block of a chain whose entities share features: swept factor by factor, on sums over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from ..model.kernels import entity_vectors
from .chain_block import ChainBlock, Prior
from .entity_rows import EntityRows, Shard
from .feature_kernel import (
    finish_factor,
    start_factor,
    sum_rows,
    sweep_linear,
)
from .feature_run import feature_runs

if TYPE_CHECKING:
    from .sweep import Chain

__all__ = ["Background", "Conditionals", "SharedBlock"]

_MOST_AT_ONCE = 10  # factors: rows are looked at once for so many


class SharedBlock(ChainBlock):
    """A block whose entities share features: swept factor by factor, on sums over rows."""

    def __init__(
        self, rows: EntityRows, groups: np.ndarray, unobserved: np.ndarray | float = 0.0
    ) -> None:
        """Take the rows, and the weight that each entity has beside them."""
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
        self.counts = read_only(rows.weight_sums() + unobserved, np.float64)
        place = np.repeat(np.arange(len(self.columns)), np.diff(self.indptr))
        squares = self.values.astype(np.float64) ** 2 * self.counts[self.entities]
        self.seconds = read_only(np.bincount(place, squares, len(self.columns)), np.float64)
        own = groups[self.columns_seen]
        self.runs = feature_runs(
            own, self.columns, self.indptr, self.entities, self.values, self.counts
        )
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
        chain.q[self.own] = q
        with np.errstate(over="ignore"):  # what is infinite makes the loss so, and is reported
            chain.b[self.own] = b

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
        is_last: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go once through all features; return Σ w ε² and Σ w ε of each entity's rows.

        They are those after the sweep only if it is the last one: the next block computes its own.
        """
        noise = np.empty((chain.n_factors + 1, 0), np.float32)
        if generator is not None:
            shape = chain.n_factors + 1, len(self.columns)
            noise = generator.standard_normal(shape, dtype=np.float32)
        conditionals = _Conditionals(self, chain, priors)
        return self.step_through(chain, conditionals, noise_precision, noise, is_last)

    def step_through(
        self,
        chain: Chain,
        conditionals: Conditionals,
        noise_precision: float,
        noise: np.ndarray,
        is_last: bool,
        background: Background | None = None,
        with_linear: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go once through all features, as :meth:`sweep` does, under any conditionals.

        Parameters
        ----------
        chain : Chain
        conditionals : Conditionals
        noise_precision : float
        noise : ndarray of float32, shape (k + 1, n_columns), or (k + 1, 0) for none
        is_last : bool
        background : Background, optional
            What counts beside the rows.
        with_linear : bool
            Whether linear weights are learned too.
        """
        k = chain.n_factors
        rows = _Rows(self, chain, background)
        at_once = 1  # without other blocks each row may be an entity, and its sums are all 0
        if self.rows.others.shape[1] > 0 and k > 0:
            at_once = -(-k // -(-k // _MOST_AT_ONCE))  # as even as can be
        for first in range(0, k, at_once):
            products = rows.look(first, min(first + at_once, k))
            for f in range(products.shape[2]):
                own_q = rows.now[self.own, f].copy()
                common = f, self.counts, products, own_q, rows.records, rows.before
                start_factor(*common)
                theta, prior = chain.theta[first + f], conditionals.of(first + f)
                for run in self.runs:
                    run.sweep(rows.records, theta, *prior, noise_precision, noise[first + f])
                finish_factor(*common, rows.moves)
        if k == 0 and background is not None:  # no factor has looked beyond the rows
            nothing = np.empty((self.rows.n_entities, 2, 0), np.float32)
            background.add(chain, 0, nothing, rows.records)
        if with_linear:
            self._sweep_linear(chain, rows, conditionals, noise_precision, noise[k])
        if is_last:
            rows.look(k, k)
        squares, sums = rows.squares, rows.records[:, 3].copy()
        del rows  # its residuals: placing takes memory too
        self.place(chain)
        return squares, sums

    def _sweep_linear(
        self,
        chain: Chain,
        rows: _Rows,
        conditionals: Conditionals,
        noise_precision: float,
        noise: np.ndarray,
    ) -> None:
        before = rows.records[:, 3].copy()
        sweep_linear(
            self.columns,
            self.indptr,
            self.entities,
            self.values,
            self.counts,
            self.seconds,
            rows.records,
            chain.theta[-1],
            *conditionals.of(chain.n_factors),
            noise_precision,
            noise,
        )
        change = before - rows.records[:, 3]
        rows.moves[:, -1] += np.divide(
            change, self.counts, out=np.zeros_like(change), where=self.counts > 0
        )


def _places(chosen: np.ndarray) -> Any:
    """Return where it is true, as a slice if that is in one piece."""
    places = np.flatnonzero(chosen)
    first, stop = int(places[0]), int(places[-1]) + 1
    return slice(first, stop) if stop - first == len(places) else places


class Conditionals(Protocol):
    """The Gaussian that each feature's coordinate is drawn to, beside the rows."""

    def of(self, f: int) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and mean of each feature's f-th coordinate, float32."""
        ...


class Background(Protocol):
    """What counts beside the rows: sums of its own for each entity."""

    def add(self, chain: Chain, first: int, sums: np.ndarray, records: np.ndarray) -> None:
        """Add to what :func:`sum_rows` wrote of the factors ``first``, ``first`` + 1, …."""
        ...


class _Conditionals:
    """The prior of each feature's coordinates, one after the other, given its other ones."""

    def __init__(self, block: SharedBlock, chain: Chain, priors: dict[int, Prior]) -> None:
        shape = chain.n_factors + 1, len(block.columns)
        self.theta, self.columns = chain.theta, block.columns
        self.precision, self.mean = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.correlated = []  # places, prior, and θ - μ
        for group, places in block.members.items():
            prior = priors[group]
            self.precision[:, places] = np.diag(prior.precision)[:, None]
            self.mean[:, places] = prior.mean[:, None]
            if prior.is_correlated:
                away = chain.theta[:, block.columns[places]] - prior.mean[:, None]
                self.correlated.append((places, prior, away))

    def of(self, f: int) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and mean of each feature's f-th coordinate; those before have moved."""
        mean = self.mean[f]
        for places, prior, away in self.correlated:
            if f > 0:
                away[f - 1] = self.theta[f - 1, self.columns[places]] - prior.mean[f - 1]
            others = np.arange(len(away)) != f
            # einsum without optimize adds in a fixed order, which BLAS does not promise
            pull = np.einsum("g,gn->n", prior.precision[f] * others, away)
            mean[places] -= pull / prior.precision[f, f]
        return self.precision[f], mean


class _Rows:
    """What the block's rows say, and how far their residuals are behind the entities.

    Attributes
    ----------
    records : ndarray of float64, shape (n_entities, 4)
        P, R, G and E: see :mod:`fmknn.solvers.feature_kernel`.
    before : ndarray of float64, shape (n_entities,)
        E before the steps in a factor.
    squares : ndarray of float64, shape (n_entities,)
    now : ndarray of float32, shape (all entities, m)
        q in the factors that were last looked at.
    moves : ndarray of float32, shape (n_entities, m + 1)
        How far q in these factors, and b, have moved since.
    """

    def __init__(self, block: SharedBlock, chain: Chain, background: Background | None) -> None:
        self.block, self.chain, self.background = block, chain, background
        n = block.rows.n_entities
        self.residuals, self.squares, sums = block.residuals(chain)
        self.records, self.before = np.zeros((n, 4)), np.zeros(n)
        self.records[:, 3] = sums
        self.first, self.now = 0, np.empty((len(chain.q), 0), np.float32)
        self.moves = np.zeros((n, 1), np.float32)

    def look(self, first: int, stop: int) -> np.ndarray:
        """Let the residuals follow, and return the sums that steps in the factors
        first..stop - 1 need; without any, those of the rows alone are left in ``records``."""
        if self.background is not None:
            self._follow()
        n = self.block.rows.n_entities
        now = np.ascontiguousarray(self.chain.q[:, first:stop])
        sums = np.empty((n, now.shape[1] + 2, now.shape[1]), np.float32)
        behind, moves, ahead = (
            read_only(self.now, np.float32),
            self.moves,
            read_only(now, np.float32),
        )

        def arguments(shard: Shard) -> tuple[Any, ...]:
            return (
                shard.indptr,
                shard.others,
                shard.root_weights,
                behind,
                moves,
                ahead,
                self.residuals[shard.rows],
                sums,
                self.records,
                self.squares,
            )

        self.block.run_shards(self.chain, sum_rows, arguments)
        if self.background is not None and stop > first:
            self.background.add(self.chain, first, sums, self.records)
        self.first, self.now, self.moves = first, now, np.zeros((n, stop - first + 1), np.float32)
        return sums

    def _follow(self) -> None:
        """Move the entities: what the background adds depends on where they are."""
        own, stop = self.block.own, self.first + self.now.shape[1]
        self.chain.q[own, self.first : stop] += self.moves[:, :-1]
        self.chain.b[own] += self.moves[:, -1]
