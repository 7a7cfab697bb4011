"""FMRegressor: ratings and other numeric targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import require_bool
from .base import PARAMETERS, FMEstimator
from .inputs import finite_floats, given_targets, require_same_length

__all__ = ["FMRegressor"]


class FMRegressor(FMEstimator):
    __doc__ = (
        "Factorization machine for ratings and other numeric targets.\n"
        + PARAMETERS.format(solvers='{"adam", "als", "mcmc"}', losses='Only "squared".')
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
    n_features_in_ : int

    Notes
    -----
    y(x) = w0 + Σ_p w_p x_p + Σ_{p<q} <v_p, v_q> x_p x_q (Rendle, "Factorization Machines", ICDM
    2010), with the squared loss ½(y(x) - y)².

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
    """
    )

    _losses = ("squared",)

    def _learn_link(self, y: np.ndarray) -> dict[str, Any]:
        targets = finite_floats(y)
        return {"target_range": [float(targets.min()), float(targets.max())]}

    def _encode(self, y: np.ndarray, link_state: dict[str, Any]) -> np.ndarray:
        return finite_floats(y)

    def link(self, scores: np.ndarray) -> np.ndarray:
        """Return predictions for scores: clipped to the range of the training targets.

        Parameters
        ----------
        scores : ndarray of float64, any shape

        Returns
        -------
        ndarray of float64, of the same shape
        """
        return np.clip(scores, *self.target_range_)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predicted target of each row, within the range seen in training.

        Of a posterior it is the mean of what its samples predict, each within that range.

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
        return {"target_range": list(self.target_range_)}

    def set_link_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`link_state` gave."""
        low, high = state["target_range"]
        self.target_range_ = (float(low), float(high))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        return tags
