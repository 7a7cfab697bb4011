"""What all solvers share: the protocol, and the loop over iterations that calls back."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..data.blocks import Design
from ..errors import DivergenceError
from ..model.base import Model

__all__ = [
    "Callback",
    "Fit",
    "Solver",
    "SolverSpec",
    "Start",
    "State",
    "Step",
    "iterate",
]

logger = logging.getLogger("fmknn")

State = Mapping[str, np.ndarray]
Start = State | Model

_CALLBACKS = "callbacks/"  # what the states of callbacks are called in a checkpoint begins so


@dataclasses.dataclass(frozen=True)
class SolverSpec:
    """What an estimator asks a backend for.

    Attributes
    ----------
    config : object
        The solver's own settings, an :class:`fmknn.Adam` for instance.
    loss : {"squared", "ordinal", "logistic", "probit"}
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
    model : FMParams or Posterior
    history : tuple of dict
        One entry per iteration: "iteration", "seconds" and the solver's metrics.
    state : dict of str to ndarray
        All that the solver needs to go on from here with the same bits.
    n_iter : int, optional
        Iterations done, where the history does not tell of each.
    """

    model: Model
    history: tuple[dict[str, float], ...]
    state: dict[str, np.ndarray]
    n_iter: int | None = None


class Solver(Protocol):
    """Learns a model from a design."""

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from the ``state`` of an earlier :class:`Fit`.

        Where ``start`` is a model, a whole training begins from its parameters, with random numbers
        that depend on them too. Features without a row keep them if the solver may be given new
        rows alone (``needs_all_rows``), and else are as after a training from scratch.
        """
        ...


class Run(Protocol):
    """A training in progress, as a solver hands it to :func:`iterate`."""

    def step(self, iteration: int) -> dict[str, float]:
        """Do one iteration and return its metrics; "loss" is the one shown."""
        ...

    def model(self) -> Model:
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
        Returns the state as it stands, that of callbacks included.
    has_new_model : bool
        Whether the iteration is part of the model: Gibbs sampling does not keep each sample.
    """

    iteration: int
    n_iter: int
    metrics: Mapping[str, float]
    model: Callable[[], Model]
    state: Callable[[], dict[str, np.ndarray]]
    has_new_model: bool = True


Callback = Callable[[Step], Any]


def iterate(
    run: Run,
    *,
    first: int,
    n_iter: int,
    callbacks: Sequence[Any],
    progress: bool,
    advice: str,
    start: Start | None = None,
) -> Fit:
    """Run the iterations first..n_iter - 1, with progress bar, callbacks and divergence check.

    A callback that returns True ends the training after its iteration. If it has a method
    ``begin()``, that is called first; ``finish(fit)`` is called last and returns the fit to keep.
    One that remembers has ``state()``, which returns arrays by name, and ``restore(state, model)``,
    which takes them back where ``start`` has them and returns True if the training had ended.
    Several of one class are told apart by their order.

    Raises
    ------
    DivergenceError
        If the loss is not finite: names the iteration, and ``advice`` says what to change.
    """
    from tqdm import tqdm

    # those that remember come first: a checkpoint then has all that belongs to its iteration
    callbacks = sorted(callbacks, key=lambda callback: not _remembers(callback))
    for callback in callbacks:
        if hasattr(callback, "begin"):
            callback.begin()
    ended = isinstance(start, Mapping) and _restore(callbacks, start, run.model())

    def state(iteration: int) -> dict[str, np.ndarray]:
        return {**run.state(iteration), **_states_of(callbacks)}

    history: list[dict[str, float]] = []
    done = first
    with tqdm(total=n_iter, initial=first, desc="training", disable=not progress) as bar:
        for iteration in range(first, first if ended else n_iter):
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
            is_new = getattr(run, "has_new_model", True)
            step = Step(done, n_iter, metrics, run.model, partial(state, done), is_new)
            verdicts = [
                callback(step) for callback in callbacks
            ]  # each is called, whatever one says
            if any(map(_is_true, verdicts)):
                break
    fit = Fit(run.model(), tuple(history), state(done))
    for callback in callbacks:
        if hasattr(callback, "finish"):
            fit = callback.finish(fit)
    # a checkpoint goes on with the same training; what starts from the fit is another one
    own = {name: array for name, array in fit.state.items() if not name.startswith(_CALLBACKS)}
    return dataclasses.replace(fit, state=own)


def _is_true(verdict: Any) -> bool:
    return isinstance(verdict, (bool, np.bool_)) and bool(verdict)


def _remembers(callback: Any) -> bool:
    return all(callable(getattr(callback, name, None)) for name in ("state", "restore"))


def _prefixes(callbacks: Sequence[Any]) -> list[tuple[str, Any]]:
    """Name each callback that remembers by its class, and by its place among those of the class."""
    names = [type(callback).__name__ for callback in callbacks]
    return [
        (f"{_CALLBACKS}{names[place]}{names[:place].count(names[place])}/", callback)
        for place, callback in enumerate(callbacks)
        if _remembers(callback)
    ]


def _states_of(callbacks: Sequence[Any]) -> dict[str, np.ndarray]:
    return {
        prefix + name: array
        for prefix, callback in _prefixes(callbacks)
        for name, array in callback.state().items()
    }


def _restore(callbacks: Sequence[Any], start: State, model: Model) -> bool:
    """Give the callbacks back what ``start`` has of them; return whether one had ended it all."""
    ended = False
    for prefix, callback in _prefixes(callbacks):
        part = {
            name.removeprefix(prefix): np.asarray(array)
            for name, array in start.items()
            if name.startswith(prefix)
        }
        if part and _is_true(callback.restore(part, model)):
            ended = True
    return ended
