"""What the estimators share: settings, validation, fit, the linear predictor."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .._checks import require_count
from .._sklearn import ParamsMixin, not_fitted
from .._threads import thread_count
from ..data.blocks import Columns, Design, design_of_interactions, design_of_rows
from ..data.interactions import Interactions
from ..model.base import Link, Model
from ..model.params import FMParams
from ..solvers.base import Solver, SolverSpec
from ..solvers.warm import start_of
from .inputs import (
    check_columns,
    column_groups,
    column_names,
    column_vector,
    matrix_rows,
    row_weights,
)
from .row_rules import RowRules
from .solver_choice import config_of, resolve
from .vocabulary import Vocabulary, same_vocabulary, vocabulary_of

__all__ = ["PARAMETERS", "FMEstimator"]

PARAMETERS = """
    Parameters
    ----------
    n_factors : int
        Number of factors k; 0 gives a linear model.
    solver : {solvers} or a config object, optional
        A name means the defaults of that solver: see {configs}.
        By default the first of them that learns the loss.
    loss : {losses}, optional
        By default the first of them that the solver learns.
    n_iter : int, optional
        Number of passes; overrides the solver's own.
    random_state : int, Generator, SeedSequence or None
    n_jobs : int or None
        Threads (-1 or None: all cores). No result depends on it.
    callbacks : sequence of callables
        Called after each iteration with a :class:`fmknn.solvers.base.Step`; True ends the training.
    progress : bool
        Show a progress bar.
"""


class FMEstimator(RowRules, ParamsMixin, ABC):
    """What the estimators share: validation, fit, scores."""

    predicts_values: ClassVar[bool] = True  # or ranks only
    _past_link: dict[str, Any] | None = None  # where training goes on
    _past_pairs: tuple[np.ndarray, np.ndarray] | None = None
    _losses: tuple[str, ...]  # both in the order in which they are chosen by default
    _solvers: tuple[str, ...]

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = None,
        loss: str | None = None,
        n_iter: int | None = None,
        random_state: Any = None,
        n_jobs: int | None = 1,
        callbacks: Sequence[Any] = (),
        progress: bool = False,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.loss = loss
        self.n_iter = n_iter
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.callbacks = callbacks
        self.progress = progress

    def solver_spec(self) -> SolverSpec:
        """Return what a backend needs to make the solver.

        Raises
        ------
        ValueError, TypeError
            For a setting that is out of range.
        """
        n_factors = require_count("n_factors", self.n_factors, least=0)
        thread_count(self.n_jobs)  # refuses what is no number of threads
        solver, loss = self.resolved()
        config = config_of(solver)
        if self.n_iter is not None:
            config = config.with_n_iter(require_count("n_iter", self.n_iter))
        return SolverSpec(
            config,
            loss,
            n_factors,
            self.random_state,
            self.n_jobs,
            bool(self.progress),
        )

    def resolved(self) -> tuple[Any, str]:
        """Return the solver and the loss that the settings amount to.

        Returns
        -------
        solver : str or config object
        loss : str

        Raises
        ------
        ValueError
            For an unknown name, or a loss that the solver does not learn.
        """
        return resolve(type(self).__name__, self._solvers, self._losses, self.solver, self.loss)

    def fit(
        self,
        X: Any,
        y: Any = None,
        blocks: Columns | None = None,
        *,
        weights: Any = None,
        groups: Any = None,
        start: Any = None,
        solver: Solver | None = None,
    ) -> Any:
        """Learn the parameters.

        Parameters
        ----------
        X : Interactions, or dense or scipy sparse matrix of shape (n_rows, n_features)
            Interactions bring their own targets (``values``), weights and blocks.
        y : array-like of shape (n_rows,), optional
            Targets, where X is a matrix.
        blocks : mapping of name to slice or column array, optional
            Column sets whose distinct sub-rows are the entities; with None, one-hot ranges are
            found by themselves. The model is the same, training is faster.
        weights : array-like of shape (n_rows,), optional
            Row weights, where X is a matrix.
        groups : array-like of int, shape (n_features,), optional
            Where X is a matrix: columns with the same number share a prior under solver="mcmc".
            Default: each block is a group. Interactions bring their own, one for the ids of a side
            and one for each feature column.
        start : path, state or model, optional
            A checkpoint to go on from; see :class:`fmknn.Checkpoint`. Or a model, an FMParams or a
            Posterior with these columns: a whole training begins from its parameters (a
            posterior's last sample), and features whose factors are all 0 get random ones if they
            have a row.
        solver : Solver, optional
            Train with this instead of the solver that the settings name (a backend's).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For input that can't be used: the row, column or setting is named.
        DivergenceError
            If training produced NaN or infinity.
        """
        spec = self.solver_spec()
        if solver is None:
            solver = spec.config.solver(spec)
        design, given = self._training_data(X, y, blocks, weights)
        if groups is not None:
            if isinstance(X, Interactions):
                raise ValueError("Interactions bring their own groups of columns: pass X only")
            groups = column_groups(groups, design.n_features)
            design = dataclasses.replace(design, groups=groups)
        if self._past_pairs is not None:
            design = dataclasses.replace(design, met=self._past_pairs)
        link_state = self._link_of_targets(given)
        start = start_of(start)
        callbacks = self._checked_callbacks()
        for callback in callbacks:
            if hasattr(callback, "bind"):
                prepare = partial(self._validation_data, X, design, link_state)
                callback.bind(prepare, spec.loss, self._link_of(link_state))
        targets = self._encode(given, link_state)
        fit = solver.train(design, targets, start=start, callbacks=callbacks)
        row_rule = self._learn_row_rule(spec, design, targets, fit)
        # nothing has changed so far: a training that failed leaves the old model whole
        self.set_link_state(link_state)
        self._past_link = self._past_pairs = None
        self._row_rule = row_rule
        self.params_ = fit.model
        self.history_ = fit.history
        self.state_ = fit.state
        self.n_iter_ = len(fit.history) if fit.n_iter is None else fit.n_iter
        self.n_features_in_ = design.n_features
        self._column_sets = design.column_sets
        self._remember_vocabulary(X)
        return self

    def _checked_callbacks(self) -> tuple[Any, ...]:
        if not isinstance(self.callbacks, Sequence):
            raise TypeError(f"callbacks must be a list of callables, got {self.callbacks!r}")
        for callback in self.callbacks:
            if not callable(callback) or isinstance(callback, type):
                raise TypeError(
                    f"callbacks must be a list of callables, {callback!r} in it is none"
                )
        return tuple(self.callbacks)

    def _training_data(
        self, X: Any, y: Any, blocks: Columns | None, weights: Any
    ) -> tuple[Design, np.ndarray]:
        if isinstance(X, Interactions):
            if y is not None or blocks is not None or weights is not None:
                raise ValueError(
                    "Interactions bring their own values, blocks and weights: pass X only"
                )
            if X.values is None:
                raise ValueError(
                    f"the interactions have no values: {type(self).__name__} needs a target per row"
                )
            if len(X) == 0:
                raise ValueError("there are no interactions: the data is empty")
            if X.weights is not None and not X.weights.any():
                raise ValueError("weights are all zero: no row would count")
            return design_of_interactions(X), X.values
        if y is None:
            raise ValueError("y is missing: requires y to be passed, but the target y is None")
        rows = matrix_rows(X)
        targets = column_vector(y, len(rows))
        weights = None if weights is None else row_weights(weights, len(rows))
        return design_of_rows(rows, blocks, weights), targets

    def _validation_data(
        self, training_X: Any, design: Design, link_state: dict[str, Any], X: Any, y: Any
    ) -> tuple[Design, np.ndarray]:
        """Return design and encoded targets of rows that must fit those of the training."""
        validation, given = self._training_data(X, y, None if y is None else {}, None)
        same_kind = isinstance(X, Interactions) == isinstance(training_X, Interactions)
        if not same_kind or validation.n_features != design.n_features:
            raise ValueError("the validation rows have other columns than the training rows")
        if isinstance(X, Interactions) and not same_vocabulary(
            vocabulary_of(X), vocabulary_of(training_X)
        ):
            raise ValueError(
                "the validation rows have another vocabulary than the training rows: "
                "take both from one Interactions"
            )
        return validation, self._encode(given, link_state)

    def _link_of(self, link_state: dict[str, Any]) -> Link:
        """Return the link of a training that is not over: until then this one keeps its own."""
        other = copy.copy(self)
        other.set_link_state(link_state)
        return other.link

    @abstractmethod
    def link(self, scores: np.ndarray, sample: FMParams | None = None) -> np.ndarray:
        """Return what scores stand for in terms of the targets.

        Parameters
        ----------
        scores : ndarray of float64, any shape
            Linear predictors.
        sample : FMParams, optional
            The one that gives these scores; only an ordinal model needs it, for its cutpoints.

        Returns
        -------
        ndarray of float64, of the same shape
        """

    @abstractmethod
    def link_state(self) -> dict[str, Any]:
        """Return what :meth:`link` needs, as JSON values."""

    @abstractmethod
    def set_link_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`link_state` gave."""

    @abstractmethod
    def _learn_link(self, y: np.ndarray) -> dict[str, Any]:
        """Check the training targets; return what :meth:`set_link_state` takes."""

    def _link_of_targets(self, y: np.ndarray) -> dict[str, Any]:
        """Return what is learned of the targets, and of those before if training goes on."""
        if self._past_link is None:
            return self._learn_link(y)
        return self._joined_link(self._past_link, y)

    def _joined_link(self, past: dict[str, Any], y: np.ndarray) -> dict[str, Any]:
        """Return what earlier targets and these say together."""
        return self._learn_link(y)

    @abstractmethod
    def _encode(self, y: np.ndarray, link_state: dict[str, Any]) -> np.ndarray:
        """Return targets as the float32 numbers that a solver learns."""

    def encode_targets(self, y: np.ndarray) -> np.ndarray:
        """Return targets as the numbers that were learned: ratings as they are, classes as 0 or 1.

        Parameters
        ----------
        y : ndarray, shape (n,)

        Returns
        -------
        ndarray of float32, shape (n,)

        Raises
        ------
        ValueError
            For a target that is neither of a classifier's classes.
        """
        return self._encode(y, self.link_state())

    def continued(
        self,
        rows: Interactions,
        start: Model,
        n_iter: int | None,
        solver_of: Callable[[SolverSpec], Solver],
        met: tuple[np.ndarray, np.ndarray],
        alone: bool,
    ) -> Any:
        """Return a copy that has learned from more rows, and means by scores what this one does.

        Parameters
        ----------
        rows : Interactions
        start : FMParams or Posterior
            To begin from, with the columns of ``rows``.
        n_iter : int, optional
        solver_of : callable
            What makes the solver: that of a backend. Callbacks are not called.
        met : tuple of ndarray of int
            Users and items, as positions, that had a row before.
        alone : bool
            Whether ``rows`` are the new ones only.
        """
        other = copy.copy(self)
        other.callbacks, other._past_link, other._past_pairs = (), self.link_state(), met
        spec = self.solver_spec()
        if hasattr(spec.config, "going_on"):
            spec = dataclasses.replace(spec, config=spec.config.going_on(n_iter, alone))
        elif n_iter is not None:
            spec = dataclasses.replace(spec, config=spec.config.with_n_iter(n_iter))
        other.fit(rows, start=start, solver=solver_of(spec))
        other.callbacks = self.callbacks
        return other

    def with_params(self, params: Model) -> Any:
        """Return a copy with other parameters, which means by scores what this one does.

        Parameters
        ----------
        params : FMParams or Posterior
        """
        other = copy.copy(self)
        other.adopt(params)
        other._row_rule = self._row_rule
        return other

    def adopt(self, params: Model) -> None:
        """Take parameters that were trained elsewhere: rows of a matrix can be scored then.

        Parameters
        ----------
        params : FMParams or Posterior
        """
        self.params_ = params
        self._row_rule = None
        self.n_features_in_ = params.n_features
        self.state_ = {}
        self._column_sets = {}  # any matrix, if slower than after a fit
        self._vocabulary: Vocabulary | None = None

    def _remember_vocabulary(self, X: Any) -> None:
        self._vocabulary = vocabulary_of(X) if isinstance(X, Interactions) else None
        names = column_names(X)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _shares_vocabulary(self, X: Interactions) -> bool:
        return self._vocabulary is not None and same_vocabulary(self._vocabulary, vocabulary_of(X))

    def linear_predictor(self, X: Any) -> np.ndarray:
        """Return the linear predictor of each row: the number that ranks.

        Parameters
        ----------
        X : Interactions or matrix
            Interactions must share the vocabulary of training (the parts of a split do).

        Returns
        -------
        ndarray of float64, shape (n_rows,)

        Raises
        ------
        ValueError
            Before fit; for rows of another width, or with text, NaN or infinity; for Interactions
            of another vocabulary, or where there is none: after a load or a training on a matrix.
        TypeError
            For rows of other things than numbers, dates for instance.
        """
        design = self._design(X)
        return self.params_.score(design, n_jobs=self.n_jobs)

    def _design(self, X: Any) -> Design:
        """Return the design of rows that are to be scored, checked against those of training."""
        if not hasattr(self, "params_"):
            raise not_fitted(self)
        if isinstance(X, Interactions):
            if self._vocabulary is None:
                raise ValueError(
                    "this estimator has no vocabulary, as it was loaded or trained on a matrix: "
                    "it scores matrices, Interactions go through a Recommender"
                )
            if not self._shares_vocabulary(X):
                raise ValueError(
                    "these interactions have another vocabulary than those of training: "
                    "take both from one Interactions, or use a Recommender, which goes by ids"
                )
            return design_of_interactions(X)
        check_columns(self, X)
        return design_of_rows(matrix_rows(X), self._column_sets)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=None,
            regressor_tags=None,
            input_tags=InputTags(sparse=True),
        )
