"""Whole-data squared loss for implicit feedback: all pairs count, none is sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, cast

import numpy as np

from .._checks import require_bool, require_count, require_number
from .._random import child_generator
from .._threads import blas_threads
from ..data.blocks import Design
from ..data.rows import read_only
from ..model.params import FMParams
from .all_pairs import AllPairs
from .base import Callback, Fit, SolverSpec, Start, iterate
from .chain_state import Units, array_of_state, iterations_done, require_loss, spec_weight
from .pair_block import PairIdBlock, PairSharedBlock, Penalty, pair_block
from .settings import Settings
from .sweep import Chain, column_groups
from .warm import first_theta, model_to_start_from, words_of

__all__ = ["WholeData", "WholeDataSolver"]

_ALL_TO_OBSERVED = 12.0  # weight of all pairs together, in that of the observed ones
_LARGEST = 1e30  # far below what float32 holds


@dataclasses.dataclass(frozen=True)
class WholeData(Settings):
    """Settings of the whole-data loss, minimised by coordinate descent.

    Parameters
    ----------
    n_iter : int
        Sweeps over all parameters.
    alpha0 : float, optional
        Weight of each pair of a query and an item, observed or not. The sparser the data, the
        smaller it must be; by default all pairs together weigh 12 times as much as the observed.
    l2_factors, l2_linear : float
        Penalties λ of V and of w.
    nu : float
        How penalties grow with the weight that a parameter is seen with: 0 not, 1 in proportion.
    biases : bool
        Whether there are linear weights w. They rank the items for those of whom nothing is known.
    count_power : float
        A pair that occurs n times has the weight n ** count_power: 0 counts it once.
    n_passes : int
        Times that an entity's coordinates are gone through while its rows are in the cache: many
        solve its row exactly. Features that entities share are gone through once.
    init_sigma : float
        Standard deviation of a factor at the start, times √n_factors.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    With S the observed (query, item) pairs, C the distinct queries (user, or user and context), I
    the items that have a row, and w the weight of a pair, it minimises::

        Σ_S w (ŷ - 1)² + α0 Σ_{C×I} ŷ² + Σ_p λ_p θ_p²,    λ_p = λ (Σ_S w x_p² + α0 Σ_{C×I} x_p²)^ν

    one parameter at a time, each to its minimum given the rest [1]_ [2]_, those of ids some at a
    time [3]_. For ids alone, and without biases, that is the loss of iALS [4]_ [5]_. w0 is 0, which
    is where all pairs are drawn to. An item without features and without a row is one that nobody
    took; of users and features without a row nothing is learned.

    References
    ----------
    .. [1] I. Bayer, X. He, B. Kanagal, S. Rendle. A Generic Coordinate Descent Framework for
       Learning from Implicit Feedback. WWW 2017.
    .. [2] C. Chen et al. Efficient Non-Sampling Factorization Machines for Optimal Context-Aware
       Recommendation. WWW 2020.
    .. [3] S. Rendle, W. Krichene, L. Zhang, Y. Koren. iALS++: Speeding up Matrix Factorization with
       Subspace Optimization. 2021.
    .. [4] Y. Hu, Y. Koren, C. Volinsky. Collaborative Filtering for Implicit Feedback Datasets.
       ICDM 2008.
    .. [5] S. Rendle, W. Krichene, L. Zhang, Y. Koren. Revisiting the Performance of iALS on Item
       Recommendation Benchmarks. RecSys 2022.

    Examples
    --------
    >>> WholeData(alpha0=0.1).nu
    1.0
    """

    losses: ClassVar[tuple[str, ...]] = ("whole-data",)

    n_iter: int = 16
    alpha0: float | None = None
    l2_factors: float = 0.007
    l2_linear: float = 10.0
    nu: float = 1.0
    biases: bool = True
    count_power: float = 0.5
    n_passes: int = 2
    init_sigma: float = 0.1

    def __post_init__(self) -> None:
        require_count("n_iter", self.n_iter)
        require_count("n_passes", self.n_passes)
        require_bool("biases", self.biases)
        for name in ("alpha0", "l2_factors", "l2_linear", "nu", "count_power", "init_sigma"):
            value = getattr(self, name)
            if name == "alpha0" and value is None:
                continue
            require_number(name, value, 1.0 if name in ("nu", "count_power") else _LARGEST)

    def solver(self, spec: SolverSpec) -> WholeDataSolver:
        """Return the solver for what an estimator asks."""
        return WholeDataSolver(self, spec)

    def weights_of(self, counts: np.ndarray) -> np.ndarray:
        """Return the weights of observed pairs that occur so often; float32, of the same shape."""
        return np.power(counts, np.float32(self.count_power), dtype=np.float32)

    def alpha0_of(self, weight: float, n_pairs: int) -> float:
        """Return α0 for observed pairs that weigh so much together, out of so many pairs."""
        return _ALL_TO_OBSERVED * weight / n_pairs if self.alpha0 is None else self.alpha0


class WholeDataSolver:
    """Trains an FM on all pairs; see :class:`WholeData` for the settings.

    Parameters
    ----------
    config : WholeData
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is another one.
    """

    def __init__(self, config: WholeData, spec: SolverSpec) -> None:
        require_loss(spec, config.losses, "WholeData")
        self.config, self.spec = config, spec

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from ``start``; see :class:`fmknn.solvers.base.Solver`.

        Rows are distinct pairs, their weights how often each occurs; one block is called "item".
        """
        run = _Run(self.config, self.spec, design, y, start)
        return iterate(
            run,
            first=run.first,
            n_iter=self.config.n_iter,
            callbacks=callbacks,
            progress=self.spec.progress,
            advice="raise l2_factors",
            start=start,
        )


class _Run:
    def __init__(
        self,
        config: WholeData,
        spec: SolverSpec,
        design: Design,
        y: np.ndarray,
        start: Start | None,
    ) -> None:
        self.config = config
        if design.weights is not None:
            weights = read_only(config.weights_of(design.weights), np.float32)
            design = dataclasses.replace(design, weights=weights)
        self.weight = spec_weight(design)
        self.pairs = AllPairs(design, 0.0)
        self.pairs.alpha0 = config.alpha0_of(self.weight, self.pairs.n_pairs)
        groups = column_groups(design)
        penalty = Penalty(config.l2_factors, config.l2_linear, config.nu)
        make_block = partial(
            pair_block, self.pairs, groups, spec.n_factors, penalty, config.n_passes, config.biases
        )
        self.chain = Chain(design, spec.n_factors, groups, spec.n_jobs, make_block)
        shape = self.chain.theta.shape
        self.first = 0
        params = model_to_start_from(start, design, spec)
        if not isinstance(start, Mapping):
            generator = child_generator(words_of(spec.random_state, params), 0)
            sigma = config.init_sigma / np.sqrt(max(spec.n_factors, 1))
            theta, _ = first_theta(
                design, spec.n_factors, sigma, generator, params, Units(0.0, 1.0), self.chain.seen
            )
            theta[:, ~self.chain.seen] = 0.0
            if not config.biases:
                theta[-1] = 0.0
        else:
            theta = array_of_state(start, "theta", shape)
            array_of_state(start, "alpha0", (), np.float64)  # no other solver has it
            self.first = iterations_done(start, config.n_iter)
        self.chain.start(theta, 0.0)
        self.chain.set_targets(y)

    def step(self, iteration: int) -> dict[str, float]:
        # several threads may round differently; what is infinite makes the loss so
        with blas_threads(1), np.errstate(over="ignore", invalid="ignore"):
            return self._step()

    def _step(self) -> dict[str, float]:
        chain, pairs = self.chain, self.pairs
        observed, blocks = 0.0, cast("list[PairIdBlock | PairSharedBlock]", chain.blocks)
        for block in blocks:
            observed = block.step(chain)
        penalty = sum(block.penalty(chain) for block in blocks)
        parts = {"observed": observed, "all_pairs": pairs.loss(chain), "penalty": penalty}
        parts = {name: part / self.weight for name, part in parts.items()}
        return {"loss": sum(parts.values()), **parts}

    def model(self) -> FMParams:
        w, V = self.chain.parameters()
        return FMParams(0.0, w, V)

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        w, V = self.chain.parameters()
        return {
            "theta": np.vstack([V.T, w]),
            "alpha0": np.array(self.pairs.alpha0),
            "iteration": np.array(iteration),
        }
