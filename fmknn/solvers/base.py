"""What all solvers share: the protocol, the loop over iterations, callbacks, checkpoints."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from .._checks import require_count
from ..data.blocks import Design
from ..errors import DivergenceError, ModelFileError
from ..model import storage
from ..model.params import FMParams

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Fit",
    "Solver",
    "SolverSpec",
    "Step",
    "iterate",
    "load_checkpoint",
]

logger = logging.getLogger("fmknn")

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class SolverSpec:
    """What an estimator asks a backend for.

    Attributes
    ----------
    config : object
        The solver's own settings, an :class:`fmknn.Adam` for instance.
    loss : {"squared", "logistic"}
    n_factors : int
    random_state : int, Generator, SeedSequence or None
    n_jobs : int or None
    progress : bool
    """

    config: Any
    loss: str
    n_factors: int
    random_state: Any = None
    n_jobs: int | None = 1
    progress: bool = False


@dataclasses.dataclass(frozen=True)
class Fit:
    """The outcome of training.

    Attributes
    ----------
    model : FMParams
    history : tuple of dict
        One entry per iteration: "iteration", "seconds" and the solver's metrics.
    state : dict of str to ndarray
        All that is needed to go on from here with the same bits.
    """

    model: FMParams
    history: tuple[dict[str, float], ...]
    state: dict[str, np.ndarray]


class Solver(Protocol):
    """Learns a model from a design."""

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: State | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from the ``state`` of an earlier :class:`Fit`."""
        ...


class Run(Protocol):
    """A training in progress, as a solver hands it to :func:`iterate`."""

    def step(self, iteration: int) -> dict[str, float]:
        """Do one iteration and return its metrics; "loss" is the one shown."""
        ...

    def model(self) -> FMParams:
        """Return a copy of the model as it stands."""
        ...

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        """Return a copy of all that a later start needs."""
        ...


@dataclasses.dataclass(frozen=True)
class Step:
    """What a callback sees after an iteration.

    Attributes
    ----------
    iteration : int
        Iterations done so far.
    n_iter : int
        Iterations in all.
    metrics : dict of str to float
    model : callable
        Returns the model as it stands.
    state : callable
        Returns the state as it stands.
    """

    iteration: int
    n_iter: int
    metrics: Mapping[str, float]
    model: Callable[[], FMParams]
    state: Callable[[], dict[str, np.ndarray]]


Callback = Callable[[Step], Any]


def iterate(
    run: Run,
    *,
    first: int,
    n_iter: int,
    callbacks: Sequence[Any],
    progress: bool,
    advice: str,
) -> Fit:
    """Run the iterations first..n_iter - 1, with progress bar, callbacks and divergence check.

    A callback that returns True ends the training after its iteration. If it has a method
    ``begin()``, that is called first; ``finish(fit)`` is called last and returns the fit to keep.

    Raises
    ------
    DivergenceError
        If the loss is not finite: names the iteration, and ``advice`` says what to change.
    """
    from tqdm import tqdm

    for callback in callbacks:
        if hasattr(callback, "begin"):
            callback.begin()
    history: list[dict[str, float]] = []
    done = first
    with tqdm(total=n_iter, initial=first, desc="training", disable=not progress) as bar:
        for iteration in range(first, n_iter):
            began = time.perf_counter()
            metrics = run.step(iteration)
            if not np.isfinite(metrics["loss"]):
                raise DivergenceError(f"training diverged in iteration {iteration + 1}: {advice}")
            done = iteration + 1
            history.append({"iteration": done, **metrics, "seconds": time.perf_counter() - began})
            bar.set_postfix(
                {name: f"{value:.4f}" for name, value in metrics.items()}, refresh=False
            )
            bar.update()
            logger.debug("iteration %d of %d: %s", done, n_iter, metrics)
            step = Step(done, n_iter, metrics, run.model, partial(run.state, done))
            verdicts = [
                callback(step) for callback in callbacks
            ]  # each is called, whatever one says
            if any(isinstance(verdict, (bool, np.bool_)) and verdict for verdict in verdicts):
                break
    fit = Fit(run.model(), tuple(history), run.state(done))
    for callback in callbacks:
        if hasattr(callback, "finish"):
            fit = callback.finish(fit)
    return fit


class Checkpoint:
    """Callback: save the state of the training to a file, from which it can go on.

    A training that goes on under the same settings gives the same bits as one that was never
    interrupted. Other callbacks are not part of it: an EarlyStopping begins anew.

    Parameters
    ----------
    path : path-like
        Written beside and renamed: what is there is always a whole checkpoint.
    every : int
        Save after every so many iterations, and at the end.

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
        Iterations without improvement before the end.

    Attributes
    ----------
    scores_ : list of float
        After each iteration, the root mean squared error of the linear predictor (squared loss)
        or the mean log loss (logistic loss).

    Raises
    ------
    ValueError
        When the training begins, if the rows do not fit those of the training.

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
        self._bound: tuple[Design, np.ndarray, str] | None = None
        self.begin()

    def bind(self, prepare: Callable[[Any, Any], tuple[Design, np.ndarray]], loss: str) -> None:
        """Take from an estimator how its rows and targets are encoded, and its loss."""
        design, targets = prepare(self.X, self.y)
        self._bound = design, targets.astype(np.float64), loss

    def begin(self) -> None:
        """Forget an earlier training."""
        self.scores_: list[float] = []
        self._best: tuple[float, int, FMParams] | None = None

    def __call__(self, step: Step) -> bool:
        if self._bound is None:
            raise ValueError("EarlyStopping needs an estimator's fit: it encodes the rows")
        design, targets, loss = self._bound
        model = step.model()
        scores = model.score(design)
        if loss == "logistic":
            score = float(np.mean(np.logaddexp(0.0, scores) - targets * scores))
        else:
            score = float(np.sqrt(np.mean((scores - targets) ** 2)))
        self.scores_.append(score)
        if self._best is None or score < self._best[0]:
            self._best = (score, step.iteration, model)
        return step.iteration - self._best[1] >= self.patience

    def finish(self, fit: Fit) -> Fit:
        """Return the fit with the model of the best iteration in it."""
        return fit if self._best is None else dataclasses.replace(fit, model=self._best[2])
