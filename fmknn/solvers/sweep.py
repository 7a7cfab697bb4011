"""Chain: the parameters of a factorization machine, and the sweeps over blocks that move them.

One sweep serves alternating least squares (each coordinate goes to its conditional mean) and Gibbs
sampling (noise is added); what differs is the prior and the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._threads import run_ranges
from ..data.blocks import Design
from ..data.rows import read_only
from ..model.kernels import entity_vectors
from .entity_rows import EntityRows, rows_by_entity
from .feature_kernel import advance_rows, start_rows, sweep_factor, sweep_linear
from .sweep_kernel import sweep_one_hot

__all__ = ["Chain", "Prior", "column_groups"]

_NO_NOISE = np.empty((0, 0), np.float32)
_NO_NOISE_1D = np.empty(0, np.float32)


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


def column_groups(design: Design) -> np.ndarray:
    """Return the group of each feature column: what shares a prior. Each block is one, unless
    the design says more."""
    if design.groups is not None:
        return design.groups
    groups = np.zeros(design.n_features, np.int32)
    for number, block in enumerate(design.blocks):
        groups[block.columns] = number
    return groups


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

    Attributes
    ----------
    w0 : float
    theta : ndarray of float32, shape (k + 1, n_features)
        Factors, and in the last row linear weights.
    q : ndarray of float32, shape (n_entities, k)
    b : ndarray of float32, shape (n_entities,)
    """

    def __init__(
        self, design: Design, n_factors: int, groups: np.ndarray, n_jobs: int | None
    ) -> None:
        self.design, self.groups, self.n_jobs = design, groups, n_jobs
        self.w0 = 0.0
        self.theta = np.zeros((n_factors + 1, design.n_features), np.float32)
        self.q = np.zeros((len(design.entities), n_factors), np.float32)
        self.b = np.zeros(len(design.entities), np.float32)
        self.blocks: list[_OneHot | _Shared] = [
            _OneHot(rows) if _is_one_prior(rows, groups) else _Shared(rows, groups, n_factors)
            for rows in rows_by_entity(design)
        ]
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

    def set_targets(self, y: np.ndarray) -> None:
        """Take the targets, in the order of the design's rows."""
        for block in self.blocks:
            block.y = block.rows.targets(y)

    def parameters(self, priors: dict[int, Prior] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of w, shape (p,), and V, shape (p, k).

        Features without a row are at their prior's mean: they are integrated out of the chain.
        """
        theta = self.theta.copy()
        for block in self.blocks:
            if isinstance(block, _OneHot):
                own = slice(block.first, block.first + block.rows.n_entities)
                theta[:-1, block.columns] = self.q[own].T
                theta[-1, block.columns] = self.b[own]
        for group, prior in (priors or {}).items():
            unseen = ~self.seen & (self.groups == group)
            theta[:, unseen] = prior.mean.astype(np.float32)[:, None]
        return theta[-1].copy(), np.ascontiguousarray(theta[:-1].T)

    def of_group(self, group: int) -> np.ndarray:
        """Return the parameters of a group's seen features, float64, shape (n, k + 1)."""
        parts = [block.of_group(self, group) for block in self.blocks]
        return np.concatenate([part for part in parts if part is not None])

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
            squares, sums = block.sweep(self, priors, noise_precision, generator)
        return float(squares.sum()), float(sums.sum())

    def residuals(self) -> tuple[float, float]:
        """Return Σ w e² and Σ w e as things stand."""
        block = self.blocks[0]
        squares, sums = np.zeros(block.rows.n_entities), np.zeros(block.rows.n_entities)
        everything = np.empty(len(block.rows.others), np.float32)
        _run(block, self, start_rows, block.common(self), everything, squares, sums)
        return float(squares.sum()), float(sums.sum())


def _is_one_prior(rows: EntityRows, groups: np.ndarray) -> bool:
    return rows.is_one_hot and len(np.unique(groups[rows.features.indices])) <= 1


def _run(block: Any, chain: Chain, kernel: Any, common: tuple[Any, ...], *arrays: Any) -> None:
    """Run a kernel over the block's entities."""

    def task(start: int, stop: int) -> None:
        kernel(*common, *arrays, start, stop)

    run_ranges(task, block.rows.n_entities, chain.n_jobs)


class _Block:
    """What both kinds of block have."""

    def __init__(self, rows: EntityRows) -> None:
        self.rows = rows
        self.first = rows.block.start
        self.has_rows = np.diff(rows.indptr) > 0
        self.y = np.empty(0, np.float32)

    def common(self, chain: Chain) -> tuple[Any, ...]:
        """The arguments with which kernels begin that compute residuals."""
        rows = self.rows
        return (
            rows.indptr,
            rows.others,
            self.y,
            rows.root_weights,
            self.first,
            np.float32(chain.w0),
            chain.q,
            chain.b,
        )


class _OneHot(_Block):
    """A block whose entities are one feature each: its parameters are the entities' q and b."""

    def __init__(self, rows: EntityRows) -> None:
        super().__init__(rows)
        self.columns = rows.features.indices
        self.columns_seen = self.columns[self.has_rows]

    def place(self, chain: Chain) -> None:
        own = slice(self.first, self.first + self.rows.n_entities)
        chain.q[own] = chain.theta[:-1, self.columns].T
        chain.b[own] = chain.theta[-1, self.columns]

    def of_group(self, chain: Chain, group: int) -> np.ndarray | None:
        if not len(self.columns) or chain.groups[self.columns[0]] != group:
            return None
        own = slice(self.first, self.first + self.rows.n_entities)
        return np.column_stack([chain.q[own][self.has_rows], chain.b[own][self.has_rows]]).astype(
            np.float64
        )

    def sweep(
        self,
        chain: Chain,
        priors: dict[int, Prior],
        noise_precision: float,
        generator: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        n = self.rows.n_entities
        squares, sums = np.zeros(n), np.zeros(n)
        if n == 0:
            return squares, sums
        prior = priors[int(chain.groups[self.columns[0]])]
        noise = _NO_NOISE
        if generator is not None:
            noise = generator.standard_normal((n, chain.n_factors + 1), dtype=np.float32)
        _run(
            self,
            chain,
            sweep_one_hot,
            self.common(chain),
            read_only(prior.precision, np.float32),
            read_only(prior.mean, np.float32),
            prior.is_correlated,
            np.float32(noise_precision),
            noise,
            squares,
            sums,
        )
        return squares, sums


class _Shared(_Block):
    """A block whose entities share features: swept factor by factor, on sums over rows."""

    def __init__(self, rows: EntityRows, groups: np.ndarray, n_factors: int) -> None:
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
        self.entities = read_only(by_feature.indices, np.int32)
        self.values = read_only(by_feature.data, np.float32)
        own = groups[self.columns_seen]
        self.members = {int(group): np.flatnonzero(own == group) for group in np.unique(own)}

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
        return chain.theta[:, self.columns[self.members[group]]].T.astype(np.float64)

    def sweep(
        self,
        chain: Chain,
        priors: dict[int, Prior],
        noise_precision: float,
        generator: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        n, k = self.rows.n_entities, chain.n_factors
        own = slice(self.first, self.first + n)
        residuals = np.empty(len(self.rows.others), np.float32)
        squares, sums = np.zeros(n), np.zeros(n)
        _run(self, chain, start_rows, self.common(chain), residuals, squares, sums)
        noise = _NO_NOISE
        if generator is not None:
            noise = generator.standard_normal((k + 1, len(self.columns)), dtype=np.float32)
        records = np.zeros((n, 8), np.float32)
        nothing = np.zeros(len(chain.q), np.float32)
        before = nothing
        for f in range(k + 2):  # the last one only lets the residuals follow
            now = np.ascontiguousarray(chain.q[:, f]) if f < k else nothing
            rows = self.rows
            common = rows.indptr, rows.others, rows.root_weights, before, now, now[own]
            _run(self, chain, advance_rows, common, residuals, records, squares)
            if f > k:
                break
            kernel = sweep_factor if f < k else sweep_linear
            kernel(
                self.columns,
                self.indptr,
                self.entities,
                self.values,
                records,
                chain.theta[f],
                *self._conditional_prior(chain, priors, f),
                np.float32(noise_precision),
                noise[f] if len(noise) else _NO_NOISE_1D,
            )
            before = now
        self.place(chain)
        return squares, records[:, 3].astype(np.float64)

    def _conditional_prior(
        self, chain: Chain, priors: dict[int, Prior], f: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and mean of each feature's coordinate f, given its other ones."""
        precision = np.empty(len(self.columns), np.float32)
        mean = np.empty(len(self.columns), np.float32)
        for group, places in self.members.items():
            prior = priors[group]
            precision[places] = prior.precision[f, f]
            mean[places] = prior.mean[f]
            if prior.is_correlated:
                theta = chain.theta[:, self.columns[places]].astype(np.float64)
                pull = np.zeros(len(places))
                for g in range(len(prior.mean)):  # in a fixed order, which BLAS does not promise
                    if g != f:
                        pull += prior.precision[f, g] * (theta[g] - prior.mean[g])
                mean[places] -= pull / prior.precision[f, f]
        return precision, mean
