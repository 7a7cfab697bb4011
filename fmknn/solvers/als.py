"""ALS: coordinate by coordinate to the optimum of the squared loss with ridge penalties."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from .._checks import require_count, require_number
from .._random import child_generator
from ..data.blocks import Design
from ..model.params import FMParams
from .base import Callback, Fit, SolverSpec, Start, iterate
from .chain_state import (
    Units,
    array_of_state,
    iterations_done,
    require_loss,
    spec_weight,
)
from .hyperpriors import fixed_prior
from .settings import Settings
from .sweep import Chain, column_groups
from .warm import first_theta, model_to_start_from, words_of

__all__ = ["ALS", "ALSSolver"]

_LARGEST = 1e30  # far below what float32 holds


@dataclasses.dataclass(frozen=True)
class ALS(Settings):
    """Settings of alternating least squares.

    Parameters
    ----------
    n_iter : int
        Sweeps over all parameters.
    l2_linear, l2_factors : float
        Ridge penalties of w and V.
    init_sigma : float
        Standard deviation of the factors at the start.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    It minimises ½ Σ_n weight_n (y_n - ŷ_n)² + ½ l2_linear ‖w‖² + ½ l2_factors ‖V‖², with targets in
    units of their deviation, one coordinate at a time, each to its optimum given the rest (Rendle,
    "Factorization Machines with libFM", ACM TIST 2012, section 3.2). The penalties do not grow with
    the number of rows.

    Examples
    --------
    >>> ALS(n_iter=10).l2_factors
    10.0
    """

    losses: ClassVar[tuple[str, ...]] = ("squared",)

    n_iter: int = 20
    l2_linear: float = 5.0
    l2_factors: float = 10.0
    init_sigma: float = 0.1

    def __post_init__(self) -> None:
        require_count("n_iter", self.n_iter)
        for name in ("l2_linear", "l2_factors", "init_sigma"):
            require_number(name, getattr(self, name), _LARGEST)

    def solver(self, spec: SolverSpec) -> ALSSolver:
        """Return the solver for what an estimator asks."""
        return ALSSolver(self, spec)


class ALSSolver:
    """Trains an FM by alternating least squares; see :class:`ALS` for the settings.

    Parameters
    ----------
    config : ALS
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is not the squared one.
    """

    def __init__(self, config: ALS, spec: SolverSpec) -> None:
        require_loss(spec, config.losses, "ALS")
        self.config, self.spec = config, spec

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from ``start``; see :class:`fmknn.solvers.base.Solver`."""
        run = _Run(self.config, self.spec, design, y, start)
        return iterate(
            run,
            first=run.first,
            n_iter=self.config.n_iter,
            callbacks=callbacks,
            progress=self.spec.progress,
            advice="raise l2_factors and l2_linear",
            start=start,
        )


class _Run:
    def __init__(
        self, config: ALS, spec: SolverSpec, design: Design, y: np.ndarray, start: Start | None
    ) -> None:
        groups = column_groups(design)
        self.chain = Chain(design, spec.n_factors, groups, spec.n_jobs)
        prior = fixed_prior(config.l2_linear, config.l2_factors, spec.n_factors)
        self.priors = {int(group): prior for group in np.unique(groups)}
        self.weight = spec_weight(design)
        shape = self.chain.theta.shape
        self.first = 0
        params = model_to_start_from(start, design, spec)
        if not isinstance(start, Mapping):
            self.units = Units.of(y, design.weights)
            generator = child_generator(words_of(spec.random_state, params), 0)
            theta, w0 = first_theta(
                design,
                spec.n_factors,
                config.init_sigma,
                generator,
                params,
                self.units,
                self.chain.seen,
            )
        else:
            self.units = Units(*array_of_state(start, "units", (2,), np.float64).tolist())
            theta = array_of_state(start, "theta", shape)
            w0 = float(array_of_state(start, "w0", (), np.float64))
            self.first = iterations_done(start, config.n_iter)
        self.chain.start(theta, w0)
        self.chain.set_targets(self.units.inward(y))
        self.sum = self.chain.residuals()[1]
        if isinstance(start, Mapping):
            self.sum = float(array_of_state(start, "sum", (), np.float64))

    def step(self, iteration: int) -> dict[str, float]:
        self.chain.w0 += self.sum / self.weight
        square, self.sum = self.chain.sweep(self.priors, 1.0, None)
        mean_square = square / self.weight * self.units.scale**2
        return {"loss": 0.5 * mean_square, "train_rmse": float(np.sqrt(mean_square))}

    def model(self) -> FMParams:
        return self.units.outward(self.chain, self.priors)

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        w, V = self.chain.parameters(self.priors)
        return {
            "theta": np.vstack([V.T, w]),
            "w0": np.array(self.chain.w0),
            "sum": np.array(self.sum),
            "units": np.array([self.units.center, self.units.scale]),
            "iteration": np.array(iteration),
        }
