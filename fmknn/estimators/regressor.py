"""FMRegressor: ratings and other numeric targets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .._checks import require_bool
from .._sklearn import available_if
from ..data.blocks import Design
from ..data.rows import read_only
from ..model.base import Model
from ..model.params import FMParams
from ..solvers.als import ALS
from ..solvers.base import Fit, SolverSpec
from ..solvers.chain_state import Units
from ..solvers.links import expected_grade, probabilities_of_grades
from ..solvers.row_rules import SquaredRow
from .base import PARAMETERS, FMEstimator
from .inputs import finite_floats, given_targets, require_same_length

__all__ = ["FMRegressor"]

_MOST_RESIDUALS = 1_000_000  # enough for a variance, and no more memory than that takes
_LEAST_NOISE = 1e-12  # of the variance of the targets


class FMRegressor(FMEstimator):
    __doc__ = (
        "Factorization machine for ratings and other numeric targets.\n"
        + PARAMETERS.format(
            solvers='{"mcmc", "als", "adam"}',
            configs=":class:`fmknn.Gibbs`, :class:`fmknn.ALS` and :class:`fmknn.Adam`",
            losses='{"squared", "ordinal"}',
        )
        + """
    Attributes
    ----------
    params_ : FMParams or Posterior
    history_ : tuple of dict
        Metrics of each iteration.
    state_ : dict of str to ndarray
        What a later ``fit(…, start=state_)`` goes on from.
    target_range_ : tuple of float
        Smallest and largest target: ``predict`` stays within.
    grades_ : ndarray of float64, shape (n_grades,)
        The distinct targets, ascending; only with loss="ordinal".
    n_features_in_ : int

    Notes
    -----
    y(x) = w0 + Σ_p w_p x_p + Σ_{p<q} <v_p, v_q> x_p x_q (Rendle, "Factorization Machines", ICDM
    2010), with the squared loss ½(y(x) - y)². The ordinal loss, for at most 256 grades, makes no
    assumption on how far apart they are: P(grade ≤ c | x) = Φ(γ_c - y(x)) with cutpoints γ that are
    learned too (Albert and Chib, "Bayesian analysis of binary and polychotomous response data",
    JASA 1993); ``predict`` gives the expected grade. It takes no row weights.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    >>> y = np.array([5.0, 1.0, 4.0, 1.0])
    >>> model = FMRegressor(n_factors=2, n_iter=100, random_state=0)
    >>> model = model.fit(np.tile(X, (50, 1)), np.tile(y, 50))
    >>> model.predict(X).round()
    array([5., 1., 4., 1.])

    By Gibbs sampling there is nothing to tune, and predictions come with a deviation:

    >>> model = FMRegressor(n_factors=2, solver="mcmc", random_state=0)
    >>> model = model.fit(np.tile(X, (50, 1)), np.tile(y, 50))
    >>> model.params_
    Posterior(50 samples, 4 features, 2 factors)
    >>> mean, deviation = model.predict(X, return_std=True)
    >>> mean.round()
    array([5., 1., 4., 1.])
    >>> bool((deviation < 0.1).all())
    True

    Grades that are only ordered have probabilities as well:

    >>> model = FMRegressor(n_factors=2, loss="ordinal", random_state=0)
    >>> model = model.fit(np.tile(X, (50, 1)), np.tile(y, 50))
    >>> model.grades_
    array([1., 4., 5.])
    >>> model.predict_proba(X).shape
    (4, 3)
    >>> model.predict(X).round()
    array([5., 1., 4., 1.])
    """
    )

    _losses = ("squared", "ordinal")
    _solvers = ("mcmc", "als", "adam")

    def _learn_link(self, y: np.ndarray) -> dict[str, Any]:
        targets = finite_floats(y)
        state: dict[str, Any] = {"target_range": [float(targets.min()), float(targets.max())]}
        if self.resolved()[1] == "ordinal":
            state["grades"] = np.unique(targets).tolist()
        return state

    def _joined_link(self, past: dict[str, Any], y: np.ndarray) -> dict[str, Any]:
        state = self._learn_link(y)
        both = np.array([past["target_range"], state["target_range"]])
        state["target_range"] = [float(both[:, 0].min()), float(both[:, 1].max())]
        if "grades" in past:
            new = sorted(set(state["grades"]) - set(past["grades"]))
            if new:
                raise ValueError(f"the grade {new[0]:g} is new: fit again to learn its cutpoint")
            state["grades"] = past["grades"]
        return state

    def _encode(self, y: np.ndarray, link_state: dict[str, Any]) -> np.ndarray:
        return finite_floats(y)

    def _learn_row_rule(
        self, spec: SolverSpec, design: Design, targets: np.ndarray, fit: Fit
    ) -> SquaredRow | None:
        if spec.loss != "squared":
            return None
        config = spec.config
        if isinstance(config, ALS):  # its penalties are on the scale of the chain
            scale = Units.of(targets, design.weights).scale
            return SquaredRow(1.0, float(config.l2_factors) * scale, float(config.l2_linear))
        return SquaredRow(_noise_variance(fit.model, design, targets))

    def link(self, scores: np.ndarray, sample: FMParams | None = None) -> np.ndarray:
        """Return predictions for scores: within the range of the training targets.

        They are clipped to it, or with the ordinal loss expected grades.

        Parameters
        ----------
        scores : ndarray of float64, any shape
        sample : FMParams, optional
            The one that gives these scores: an ordinal model needs its cutpoints.

        Returns
        -------
        ndarray of float64, of the same shape

        Raises
        ------
        ValueError
            If there must be cutpoints and are none, or those of another number of grades.
        """
        if not hasattr(self, "grades_"):
            return np.clip(scores, *self.target_range_)
        return expected_grade(scores, self._cutpoints(sample), self.grades_, self.n_jobs)

    def _cutpoints(self, sample: FMParams | None) -> np.ndarray:
        n_cutpoints = 0 if sample is None else len(sample.cutpoints)
        if sample is None or n_cutpoints != len(self.grades_) - 1:
            raise ValueError(
                f"{len(self.grades_)} grades need the {len(self.grades_) - 1} cutpoints of the "
                f"sample that the scores are of: there are {n_cutpoints}"
            )
        return sample.cutpoints

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predicted target of each row, within the range seen in training.

        Of a posterior it is the mean of what its samples predict, each within that range: clipped,
        or with the ordinal loss the expected grade.

        Parameters
        ----------
        X : Interactions or matrix
        return_std : bool
            Also return how much the samples of a posterior differ; 0 for a single model. The
            noise of the targets is not in it.

        Returns
        -------
        predictions : ndarray of float64, shape (n_rows,)
        deviations : ndarray of float64, shape (n_rows,)
            Standard deviations; only if asked for.

        Raises
        ------
        ValueError, TypeError
            As :meth:`linear_predictor`, and for a ``return_std`` that is no bool.
        """
        return_std = require_bool("return_std", return_std)
        design = self._design(X)
        return self.params_.predict(design, self.link, n_jobs=self.n_jobs, return_std=return_std)

    def _knows_grades(self) -> bool:
        return hasattr(self, "grades_") if hasattr(self, "params_") else self.loss == "ordinal"

    @available_if(_knows_grades, 'loss="ordinal": another one has no probabilities')
    def predict_proba(self, X: Any, return_std: bool = False) -> Any:
        """Return the probability of each of ``grades_``; only with loss="ordinal".

        Of a posterior they are the means over its samples. ``predict`` is their sum times the
        grades.

        Parameters
        ----------
        X : Interactions or matrix
        return_std : bool
            Also return how much the samples of a posterior differ; 0 for a single model.

        Returns
        -------
        probabilities : ndarray of float64, shape (n_rows, n_grades)
        deviations : ndarray of float64, shape (n_rows, n_grades)
            Standard deviations; only if asked for.

        Raises
        ------
        AttributeError
            With another loss.
        ValueError, TypeError
            As :meth:`predict`.
        """
        return_std = require_bool("return_std", return_std)
        design = self._design(X)
        return self.params_.predict(
            design, self._probabilities, n_jobs=self.n_jobs, return_std=return_std
        )

    def _probabilities(self, scores: np.ndarray, sample: FMParams) -> np.ndarray:
        return probabilities_of_grades(scores, self._cutpoints(sample), self.n_jobs)

    def score(self, X: Any, y: Any = None) -> float:
        """Return R², the share of the targets' variance that is explained.

        Parameters
        ----------
        X : Interactions or matrix
        y : array-like of shape (n_rows,), optional
            Targets, where X is a matrix.

        Returns
        -------
        float
        """
        targets = finite_floats(given_targets(X, y)).astype(np.float64)
        predicted = self.predict(X)
        require_same_length(predicted, targets)
        residual = ((targets - predicted) ** 2).sum()
        total = ((targets - targets.mean()) ** 2).sum()
        return float(1.0 - residual / total) if total > 0 else float(residual == 0)

    def link_state(self) -> dict[str, Any]:
        """Return what :meth:`link` needs, as JSON values."""
        state: dict[str, Any] = {"target_range": list(self.target_range_)}
        return {**state, "grades": self.grades_.tolist()} if hasattr(self, "grades_") else state

    def set_link_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`link_state` gave."""
        low, high = state["target_range"]
        self.target_range_ = (float(low), float(high))
        if "grades" in state:
            self.grades_ = np.array(state["grades"], np.float64)
        elif hasattr(self, "grades_"):
            del self.grades_

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        return tags


def _noise_variance(model: Model, design: Design, targets: np.ndarray) -> float:
    """Return the mean square of the residuals of the last sample, on up to a million rows."""
    *_, sample = model.samples()
    rows = np.linspace(0, design.n_rows - 1, min(design.n_rows, _MOST_RESIDUALS)).astype(np.int64)
    part = dataclasses.replace(
        design,
        codes=tuple(read_only(codes[rows], np.int32) for codes in design.codes),
        sorted_copies=None,
    )
    squares = (targets[rows] - sample.score(part)) ** 2
    counts = np.ones(len(rows)) if design.weights is None else design.weights[rows]
    noise = (counts * squares).sum() / max(np.count_nonzero(counts), 1)
    return float(max(noise, _LEAST_NOISE * targets[rows].var(dtype=np.float64))) or 1.0
