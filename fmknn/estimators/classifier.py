"""FMClassifier: two classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import require_bool
from ..model.params import FMParams
from ..solvers.links import probability_above
from .base import PARAMETERS, FMEstimator
from .inputs import finite_floats, given_targets, require_same_length

__all__ = ["FMClassifier"]


class FMClassifier(FMEstimator):
    __doc__ = (
        "Factorization machine for two classes: clicked or not, bought or not.\n"
        + PARAMETERS.format(
            solvers='{"adam", "mcmc"}',
            configs=":class:`fmknn.Adam` and :class:`fmknn.Gibbs`",
            losses='{"logistic", "probit"}',
        )
        + """
    Attributes
    ----------
    params_ : FMParams or Posterior
    classes_ : ndarray, shape (2,)
        The two targets in ascending order; the second is the positive one.
    history_, state_, n_features_in_
        As in :class:`fmknn.FMRegressor`.

    Notes
    -----
    P(positive | x) is 1 / (1 + exp(-y(x))) for the logistic and Φ(y(x)) for the probit loss (that
    of solver="mcmc"), y(x) as in :class:`fmknn.FMRegressor`. The probit loss takes no row weights.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    >>> y = ["yes", "no", "no", "yes"]
    >>> model = FMClassifier(n_factors=2, n_iter=100, random_state=0)
    >>> model = model.fit(np.tile(X, (50, 1)), np.tile(y, 50))
    >>> model.predict(X).tolist()
    ['yes', 'no', 'no', 'yes']

    Without anything to tune, by Gibbs sampling:

    >>> model = FMClassifier(n_factors=2, solver="mcmc", random_state=0)
    >>> model = model.fit(np.tile(X, (50, 1)), np.tile(y, 50))
    >>> model.predict(X).tolist()
    ['yes', 'no', 'no', 'yes']
    """
    )

    _losses = ("logistic", "probit")
    _solvers = ("adam", "mcmc")

    def _learn_link(self, y: np.ndarray) -> dict[str, Any]:
        y = np.asarray(y)
        if y.dtype.kind in "fc":
            finite_floats(y)
        try:
            classes = np.unique(y)
        except TypeError:
            kinds = ", ".join(sorted({type(value).__name__ for value in y.tolist()}))
            raise TypeError(f"y mixes types: {kinds}") from None
        if len(classes) > 2 and y.dtype.kind == "f" and np.any(y != np.floor(y)):
            raise ValueError("Unknown label type: continuous. FMClassifier needs two classes")
        if len(classes) > 2:
            raise ValueError(
                "Only binary classification is supported. FMClassifier needs two classes, "
                f"got {len(classes)}"
            )
        if len(classes) < 2:
            raise ValueError(
                "FMClassifier needs two classes, got 1 class: "
                f"all targets are {classes.tolist()[0]!r}"
            )
        return {"classes": classes.tolist(), "loss": self.resolved()[1]}

    def _joined_link(self, past: dict[str, Any], y: np.ndarray) -> dict[str, Any]:
        return past  # new rows may all be of one class, and another one is refused

    def _encode(self, y: np.ndarray, link_state: dict[str, Any]) -> np.ndarray:
        negative, positive = link_state["classes"]
        y = np.asarray(y)
        neither = (y != negative) & (y != positive)
        if neither.any():
            row = int(np.argmax(neither))
            raise ValueError(
                f"y holds {y.tolist()[row]!r} in row {row}: "
                f"the classes are {negative!r} and {positive!r}"
            )
        return (y == positive).astype(np.float32)

    def link(self, scores: np.ndarray, sample: FMParams | None = None) -> np.ndarray:
        """Return the probability of the positive class for scores.

        That is 1 / (1 + exp(-score)) for the logistic and Φ(score) for the probit loss.

        Parameters
        ----------
        scores : ndarray of float64, any shape
        sample : FMParams, optional
            Not needed.

        Returns
        -------
        ndarray of float64, of the same shape
        """
        if self._learned_loss == "logistic":
            return _sigmoid(scores)
        return probability_above(scores, n_jobs=self.n_jobs)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the linear predictor of each row: the number that ranks.

        Where it is above 0 a single model predicts the second class. A posterior goes by the mean
        of its samples' probabilities, which may be on the other side where it is near 0.

        Parameters
        ----------
        X : Interactions or matrix

        Returns
        -------
        ndarray of float64, shape (n_rows,)
        """
        return self.linear_predictor(X)

    def predict_proba(self, X: Any, return_std: bool = False) -> Any:
        """Return the probabilities of both classes; of a posterior the means over its samples.

        Parameters
        ----------
        X : Interactions or matrix
        return_std : bool
            Also return how much the samples of a posterior differ; 0 for a single model.

        Returns
        -------
        probabilities : ndarray of float64, shape (n_rows, 2)
        deviations : ndarray of float64, shape (n_rows, 2)
            Standard deviations; only if asked for.

        Raises
        ------
        ValueError, TypeError
            As :meth:`linear_predictor`, and for a ``return_std`` that is no bool.
        """
        return_std = require_bool("return_std", return_std)
        positive, deviation = self._probability(X)
        chances = np.column_stack([1.0 - positive, positive])
        return (chances, np.column_stack([deviation, deviation])) if return_std else chances

    def _probability(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        design = self._design(X)
        return self.params_.predict(design, self.link, n_jobs=self.n_jobs, return_std=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the more probable class of each row.

        Parameters
        ----------
        X : Interactions or matrix

        Returns
        -------
        ndarray of shape (n_rows,), of the classes' type
        """
        positive = self._probability(X)[0] > 0.5
        return self.classes_[positive.astype(np.int64)]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy, the share of rows whose class is predicted right.

        Parameters
        ----------
        X : Interactions or matrix
        y : array-like of shape (n_rows,), optional
            Targets, where X is a matrix.

        Returns
        -------
        float
        """
        targets, predicted = given_targets(X, y), self.predict(X)
        require_same_length(predicted, targets)
        return float(np.mean(predicted == targets))

    def link_state(self) -> dict[str, Any]:
        """Return the classes and the loss that was learned, as JSON values."""
        return {"classes": self.classes_.tolist(), "loss": self._learned_loss}

    def set_link_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`link_state` gave."""
        self.classes_ = np.array(state["classes"])
        # not what the settings say by now; older files do not have it
        self._learned_loss = state.get("loss") or self.resolved()[1]

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(scores)))  # no overflow on either side
