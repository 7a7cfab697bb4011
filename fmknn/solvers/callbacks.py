"""Callbacks: what may be done after each iteration of a training, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from itertools import chain, count
from typing import Any

import numpy as np

from .._checks import require_count
from ..data.blocks import Design
from ..errors import ModelFileError
from ..model import storage
from ..model.base import Link, Model
from ..model.posterior import model_of_state
from .base import Fit, State, Step

__all__ = ["Checkpoint", "EarlyStopping", "load_checkpoint"]

_OF_TWO_CLASSES = ("logistic", "probit")
_OF_RANKINGS = ("whole-data", "bpr")


class Checkpoint:
    """Callback: save the state of the training to a file, from which it can go on.

    A training that goes on under the same settings and callbacks gives the same bits as one that
    was never interrupted: what an EarlyStopping knows is saved too, wherever it is in the list.

    Parameters
    ----------
    path : path-like
        Written beside and renamed: what is there is always a whole checkpoint.
    every : int
        Save after every so many iterations, and at the end. A state of solver="mcmc" has all
        samples kept so far: with many or large ones, save less often.

    Examples
    --------
    >>> import tempfile
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
    >>> whole = fmknn.FMRegressor(n_iter=6, random_state=0).fit(ratings)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/half.fmknn"
    ...     stop = [Checkpoint(path), lambda step: step.iteration == 3]
    ...     half = fmknn.FMRegressor(n_iter=6, random_state=0, callbacks=stop).fit(ratings)
    ...     resumed = fmknn.FMRegressor(n_iter=6).fit(ratings, start=path)
    >>> bool((resumed.params_.V == whole.params_.V).all())
    True
    """

    def __init__(self, path: Any, every: int = 1) -> None:
        self.path = path
        self.every = require_count("every", every)

    def __call__(self, step: Step) -> None:
        if step.iteration % self.every == 0:
            storage.save(self.path, step.state(), {"kind": "checkpoint"})

    def finish(self, fit: Fit) -> Fit:
        """Save the last state, wherever the training ended."""
        storage.save(self.path, fit.state, {"kind": "checkpoint"})
        return fit


def load_checkpoint(path: Any) -> dict[str, np.ndarray]:
    """Return the state that :class:`Checkpoint` saved.

    Raises
    ------
    ModelFileError
        If the file is damaged or not a checkpoint.
    """
    arrays, metadata = storage.load(path)
    if metadata.get("kind") != "checkpoint":
        raise ModelFileError(f"{path} is a saved {metadata.get('kind')}, not a checkpoint")
    return arrays


class EarlyStopping:
    """Callback: end the training when the validation score no longer improves.

    The model of the best iteration is the one that is kept.

    Parameters
    ----------
    X : Interactions or matrix
        Validation rows. Interactions share the vocabulary of the training rows (a split does).
    y : array-like, optional
        Targets, where X is a matrix.
    patience : int
        Iterations, of Gibbs sampling kept samples, without improvement before the end.

    Attributes
    ----------
    scores_ : list of float
        After each iteration, of Gibbs sampling each kept sample, the root mean squared error of the
        predictions, or the mean log loss of the probabilities of two classes.

    Raises
    ------
    ValueError
        When the training begins, if the rows do not fit those of the training, or what is learned
        is a ranking.

    Notes
    -----
    ``history_`` of the estimator has the scores too, as "validation_rmse" or "validation_log_loss";
    those of a second one are called "validation_rmse_2", and so on.

    Examples
    --------
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=50, n_items=30, n_ratings=900)
    >>> train, validation = fmknn.splits.random(ratings, test=0.2, random_state=0)
    >>> stopping = EarlyStopping(validation, patience=3)
    >>> config = fmknn.Adam(factors_lr=0.1, factors_wd=0.0)  # too fast: it overfits
    >>> model = fmknn.FMRegressor(n_iter=100, solver=config, random_state=0, callbacks=[stopping])
    >>> model.fit(train).n_iter_ == len(stopping.scores_) < 100
    True
    """

    def __init__(self, X: Any, y: Any = None, *, patience: int = 2) -> None:
        self.X = X
        self.y = y
        self.patience = require_count("patience", patience)
        self._bound: tuple[Design, np.ndarray, str, Link] | None = None
        self.begin()

    def bind(
        self, prepare: Callable[[Any, Any], tuple[Design, np.ndarray]], loss: str, link: Link
    ) -> None:
        """Take from an estimator how its rows and targets are encoded, its loss and its link."""
        if loss in _OF_RANKINGS:
            raise ValueError(
                f"EarlyStopping measures predictions, loss={loss!r} learns a ranking: set n_iter"
            )
        design, targets = prepare(self.X, self.y)
        self._bound = design, targets.astype(np.float64), loss, link

    def begin(self) -> None:
        """Forget an earlier training."""
        self.scores_: list[float] = []
        self._score_in: dict[float, float] = {}  # by iteration of this training
        self._best: Model | None = None

    def __call__(self, step: Step) -> bool:
        if not step.has_new_model:  # else patience would end while Gibbs sampling burns in
            return False
        model = step.model()
        score = self._score(model)
        if self._best is None or score < min(self.scores_):
            self._best = model
        self.scores_.append(score)
        self._score_in[step.iteration] = score
        return self._is_over()

    def _score(self, model: Model) -> float:
        if self._bound is None:
            raise ValueError("EarlyStopping needs an estimator's fit: it encodes the rows")
        design, targets, loss, link = self._bound
        predicted = model.predict(design, link)
        if loss in _OF_TWO_CLASSES:
            chance = np.where(targets > 0, predicted, 1.0 - predicted)
            losses = -np.log(np.maximum(chance, np.finfo(np.float64).eps))  # none is infinite
            return float(np.average(losses, weights=design.weights))
        return float(np.sqrt(np.average((predicted - targets) ** 2, weights=design.weights)))

    def _is_over(self) -> bool:
        return len(self.scores_) - 1 - int(np.argmin(self.scores_)) >= self.patience

    def state(self) -> dict[str, np.ndarray]:
        """Return the scores so far and the best model, for a checkpoint."""
        return (
            {}
            if self._best is None
            else {"scores": np.array(self.scores_), **self._best.to_state()}
        )

    def restore(self, state: State, model: Model) -> bool:
        """Go on from what :meth:`state` returned; return whether the training had ended.

        Parameters
        ----------
        state : mapping of str to ndarray
        model : FMParams or Posterior
            The model that the training goes on from: the best one must be of its shape.

        Raises
        ------
        ValueError
            For a state that is none, or of other validation rows.
        """
        try:
            best, scores = _best_and_scores(state, model)
        except ValueError as error:
            raise ValueError(f"start has an EarlyStopping that does not fit: {error}") from None
        if not np.isclose(self._score(best), scores.min(), rtol=1e-6, atol=0.0):
            raise ValueError(
                "start has an EarlyStopping whose scores are of other validation rows: "
                "pass the same rows, or leave it out of callbacks"
            )
        self.scores_, self._best = scores.tolist(), best
        return self._is_over()

    def finish(self, fit: Fit) -> Fit:
        """Return the fit with the model of the best iteration in it, and all scores."""
        if self._best is None or self._bound is None:
            return fit
        kind = "validation_" + ("log_loss" if self._bound[2] in _OF_TWO_CLASSES else "rmse")
        name = _free_name(kind, {key for entry in fit.history for key in entry})
        history = tuple(
            {**entry, name: self._score_in[entry["iteration"]]}
            if entry["iteration"] in self._score_in
            else entry
            for entry in fit.history
        )
        return dataclasses.replace(fit, model=self._best, history=history)


def _free_name(kind: str, taken: Container[str]) -> str:
    """Return the name itself, or with the first number that makes it one's own."""
    names = chain([kind], (f"{kind}_{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _best_and_scores(state: State, model: Model) -> tuple[Model, np.ndarray]:
    """Return what :meth:`EarlyStopping.state` had, checked against the model of the training."""
    names = {"scores", *model.to_state()}
    if state.keys() != names:
        raise ValueError(f"{min(state.keys() ^ names)!r} is missing or too much")
    scores = state["scores"]
    if scores.ndim != 1 or not len(scores) or scores.dtype.kind != "f":
        raise ValueError("scores must be numbers, one per iteration")
    if not np.isfinite(scores).all():
        raise ValueError("scores holds NaN or infinity")
    best = model_of_state(state)
    got, wanted = (next(one.samples()).to_state() for one in (best, model))
    for name, array in wanted.items():  # how many samples there are may differ
        if got[name].shape != array.shape:
            raise ValueError(f"{name} of shape {got[name].shape}, in this training {array.shape}")
    return best, scores
