"""Gibbs sampling: Bayesian factorization machines, without a rate or a penalty to tune."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from .._checks import require_count
from .._random import child_generator
from ..data.blocks import Design
from ..model.params import FMParams
from ..model.posterior import Posterior
from .base import Callback, Fit, SolverSpec, Start, State, iterate
from .chain_state import (
    Units,
    array_of_state,
    count_of_state,
    iterations_done,
    require_loss,
    spec_weight,
)
from .cutpoints import position_of
from .hyperpriors import draw_noise_precision, draw_prior, fixed_prior
from .kept_samples import KeptSamples
from .responses import Response, response_of
from .settings import Settings
from .sweep import Chain, column_groups
from .warm import first_theta, model_to_start_from, words_of

__all__ = ["Gibbs", "GibbsSolver"]

_PRIORS = ("correlated", "independent")
_INIT_SIGMA, _LATENT_INIT_SIGMA = 0.1, 0.3
_INIT_STREAM, _SWEEP_STREAM = 0, 1
_WARM_BURN_IN = 2


@dataclasses.dataclass(frozen=True)
class Gibbs(Settings):
    """Settings of the Gibbs sampler.

    Parameters
    ----------
    n_iter : int
        Sweeps over all parameters.
    burn_in : int
        First sweeps that are not kept.
    n_kept_samples : int
        At most so many samples are kept, evenly thinned: the model takes 4 · n_kept_samples ·
        n_features · (n_factors + 1) bytes.
    prior : {"correlated", "independent"}
        Whether the coordinates of an id's parameters have a full covariance. Ids are the groups
        whose columns each belong to one entity: users, items, levels of a context. What entities
        share, features and histories, has independent ones.
    init_sigma : float, optional
        Standard deviation of the factors at the start: 0.1 for the squared loss, 0.3 for others.
        A short chain with many factors may do better from a wider start, one with features
        does not.
        Their latent targets follow the scores, so that small factors would grow slowly.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    Rendle, "Factorization Machines with libFM", ACM TIST 2012, section 4.4; see
    :mod:`fmknn.solvers.sweep_kernel` for the sweep and :mod:`fmknn.solvers.hyperpriors` for the
    priors. A row of weight w has the precision α w, so that a factor common to all weights changes
    nothing. Targets are in units of their deviation. The model is a :class:`fmknn.Posterior`:
    scores are means over the kept samples, never scores of mean parameters.

    Examples
    --------
    >>> Gibbs(n_iter=50).burn_in
    10
    """

    losses: ClassVar[tuple[str, ...]] = ("squared", "ordinal", "probit")  # states have their place

    n_warm: ClassVar[int] = 20

    n_iter: int = 100
    burn_in: int = 10
    n_kept_samples: int = 50
    prior: str = "correlated"
    init_sigma: float | None = None

    def __post_init__(self) -> None:
        require_count("n_iter", self.n_iter)
        require_count("burn_in", self.burn_in, 0)
        require_count("n_kept_samples", self.n_kept_samples)
        if self.prior not in _PRIORS:
            raise ValueError(f"prior must be one of {', '.join(_PRIORS)}, got {self.prior!r}")
        sigma = 0.0 if self.init_sigma is None else self.init_sigma
        number = isinstance(sigma, (int, float, np.number)) and not isinstance(sigma, bool)
        if not number or not 0 <= sigma < np.inf:
            raise ValueError(f"init_sigma must be a number of at least 0, got {sigma!r}")

    def solver(self, spec: SolverSpec) -> GibbsSolver:
        """Return the solver for what an estimator asks."""
        return GibbsSolver(self, spec)

    def going_on(self, n_iter: int | None = None, alone: bool = False) -> Gibbs:
        """Return the settings with which a chain goes on, where rows are added.

        It is close to where it has to be, so that two sweeps at most are burnt in.

        Parameters
        ----------
        n_iter : int, optional
            Number of sweeps; default ``n_warm``.
        alone : bool
            Without effect: a chain needs all rows.

        Returns
        -------
        Gibbs

        Examples
        --------
        >>> Gibbs().going_on().burn_in
        2
        """
        settings = dataclasses.replace(self, burn_in=min(self.burn_in, _WARM_BURN_IN))
        return settings.with_n_iter(self.n_warm if n_iter is None else n_iter)

    def kept_iterations(self) -> np.ndarray:
        """Return the iterations, counted from 0, whose samples are kept, in ascending order.

        Where all sweeps would be burnt in, the second half of them is not.
        """
        first = self.burn_in if self.burn_in < self.n_iter else self.n_iter // 2
        n = min(self.n_kept_samples, self.n_iter - first)
        # the last is always among them; n of the sweeps first..n_iter - 1, evenly
        steps = (np.arange(1, n + 1) * (self.n_iter - first)) // n
        return first + steps - 1


class GibbsSolver:
    """Trains a Bayesian FM; see :class:`Gibbs` for the settings.

    Parameters
    ----------
    config : Gibbs
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is not one of squared, ordinal and probit.
    """

    def __init__(self, config: Gibbs, spec: SolverSpec) -> None:
        require_loss(spec, config.losses, "mcmc")
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
            advice="look for extreme targets or feature values",
            start=start,
        )


class _Run:
    """One chain, its priors, and the samples kept so far."""

    def __init__(
        self, config: Gibbs, spec: SolverSpec, design: Design, y: np.ndarray, start: Start | None
    ) -> None:
        self.config, self.spec, self.design = config, spec, design
        self.groups = column_groups(design)
        self.chain = Chain(design, spec.n_factors, self.groups, spec.n_jobs)
        self.correlated = self._correlated_groups()
        self.weight = spec_weight(design)
        self.n_rows = design.n_rows  # that say something: those of weight 0 do not
        if design.weights is not None:
            self.n_rows = int(np.count_nonzero(design.weights))
        self.kept_at = set(config.kept_iterations().tolist())
        self.first = 0
        unit = fixed_prior(1.0, 1.0, spec.n_factors)
        self.priors = {int(group): unit for group in np.unique(self.groups)}
        is_squared = spec.loss == "squared"
        self.response: Response = response_of(spec.loss, y, design.weights)
        state = start if isinstance(start, Mapping) else None
        if state is None:
            self.units = Units.of(y, design.weights) if is_squared else Units(0.0, 1.0)
            theta, w0 = self._begin(start)
        else:
            theta, w0 = self._restore(state)
        self.chain.start(theta, w0)
        self.square = self.sum = 0.0
        if state is not None:
            self.response.restore(state)
            sums = array_of_state(state, "sums", (2,), np.float64)
            self.square, self.sum = sums.tolist()
        self.kept = KeptSamples(
            sum(iteration >= self.first for iteration in self.kept_at),
            design.n_features,
            spec.n_factors,
            self.response.cutpoints.size,
            state,
        )
        if is_squared:
            self.chain.set_targets(self.units.inward(y))
            if state is None:
                self.square, self.sum = self.chain.residuals()

    def _correlated_groups(self) -> set[int]:
        """The groups of ids: each of their features is one entity's own."""
        if self.config.prior == "independent":
            return set()
        counts = np.bincount(self.chain.design.entities.indices, minlength=self.design.n_features)
        shared = set(self.groups[counts > 1].tolist())
        return {int(group) for group in np.unique(self.groups)} - shared

    def _begin(self, start: Start | None) -> tuple[np.ndarray, float]:
        """Return theta and w0 of a new chain, which goes on from the last sample of a model."""
        spec, sigma = self.spec, self.config.init_sigma
        params = model_to_start_from(start, self.design, spec, self.response.cutpoints.size)
        if params is not None and len(params.cutpoints):
            self.response.restore({"cutpoint_position": position_of(params.cutpoints)})
        if sigma is None:
            sigma = _INIT_SIGMA if spec.loss == "squared" else _LATENT_INIT_SIGMA
        self.words = words_of(spec.random_state, params)
        generator = child_generator(self.words, _INIT_STREAM)
        return first_theta(
            self.design, spec.n_factors, sigma, generator, params, self.units, self.chain.seen
        )

    def _restore(self, start: State) -> tuple[np.ndarray, float]:
        if count_of_state(start, "loss") != self.config.losses.index(self.spec.loss):
            raise ValueError("start is of a training with another loss")
        shape = self.chain.theta.shape
        self.units = Units(*array_of_state(start, "units", (2,), np.float64).tolist())
        self.words = array_of_state(start, "words", (4,), np.uint32)
        self.first = iterations_done(start, self.config.n_iter)
        for group in self.priors:
            mean = array_of_state(start, f"prior_mean{group}", shape[:1], np.float64)
            self.priors[group] = dataclasses.replace(self.priors[group], mean=mean)
        return array_of_state(start, "theta", shape), float(
            array_of_state(start, "w0", (), np.float64)
        )

    def step(self, iteration: int) -> dict[str, float]:
        generator = child_generator(self.words, _SWEEP_STREAM, iteration)
        chain = self.chain
        precision = self.response.fixed_precision
        if precision is None:
            precision = draw_noise_precision(self.square, self.n_rows, generator)
        else:
            scores = self._scores()
            targets = self.response.draw(scores, generator, self.spec.n_jobs)
            chain.set_targets(targets)
            self.sum = float((targets - scores).sum())
        self._draw_priors(generator)
        if not self.response.cutpoints.size:
            # the conditional of w0 with the prior N(0, 1)
            total = 1.0 + precision * self.weight
            mean = precision * (self.sum + self.weight * chain.w0) / total
            chain.w0 = float(mean + generator.standard_normal() / np.sqrt(total))
        self.square, self.sum = chain.sweep(self.priors, precision, generator)
        self.has_new_model = iteration in self.kept_at
        if self.has_new_model:
            self.kept.add(self._sample())
        if self.spec.loss == "squared":
            rmse = float(np.sqrt(self.square / self.weight)) * self.units.scale
            return {"loss": 0.5 * rmse**2, "train_rmse": rmse}
        return {"loss": 0.5 * self.square / self.weight}

    def _draw_priors(self, generator: np.random.Generator) -> None:
        for group, before in self.priors.items():
            self.priors[group] = draw_prior(
                self.chain.of_group(group), group in self.correlated, before, generator
            )

    def _scores(self) -> np.ndarray:
        w, V = self.chain.parameters(self.priors)
        return FMParams(self.chain.w0, w, V).score(self.design, n_jobs=self.spec.n_jobs)

    def _sample(self) -> FMParams:
        return self.units.outward(self.chain, self.priors, self.response.cutpoints)

    def model(self) -> Posterior:
        if len(self.kept):
            return self.kept.posterior()
        now = self._sample()  # nothing is kept while the chain burns in
        return Posterior([now.w0], now.w[None], now.V[None], now.cutpoints[None])

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        w, V = self.chain.parameters(self.priors)
        return {
            "theta": np.vstack([V.T, w]),
            "w0": np.array(self.chain.w0),
            "units": np.array([self.units.center, self.units.scale]),
            "words": self.words.copy(),
            "iteration": np.array(iteration),
            "loss": np.array(self.config.losses.index(self.spec.loss)),
            "sums": np.array([self.square, self.sum]),
            **{f"prior_mean{group}": prior.mean for group, prior in self.priors.items()},
            **self.response.state(),
            **self.kept.state(),
        }
