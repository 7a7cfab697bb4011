"""Which solver and which loss settings amount to, where one of them or both are left open."""

from __future__ import annotations

from typing import Any

from ..solvers.adam import Adam
from ..solvers.als import ALS
from ..solvers.bpr import BPR
from ..solvers.gibbs import Gibbs
from ..solvers.whole_data import WholeData

__all__ = ["config_of", "resolve"]

_SOLVERS: dict[str, Any] = {
    "adam": Adam,
    "als": ALS,
    "mcmc": Gibbs,
    "whole-data": WholeData,
    "bpr": BPR,
}


def resolve(
    estimator: str, solvers: tuple[str, ...], losses: tuple[str, ...], solver: Any, loss: str | None
) -> tuple[Any, str]:
    """Return solver and loss: what is given, else the first one that goes with it.

    Parameters
    ----------
    estimator : str
        Its name, for messages.
    solvers, losses : tuple of str
        What the estimator has, the preferred ones first.
    solver : str, config object or None
    loss : str or None

    Raises
    ------
    ValueError
        For an unknown name, or a loss that the solver does not learn.

    Examples
    --------
    >>> resolve("FMClassifier", ("adam", "mcmc"), ("logistic", "probit"), "mcmc", None)
    ('mcmc', 'probit')
    """
    if loss is not None and loss not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)} for {estimator}, got {loss!r}")
    if isinstance(solver, str) and solver not in _SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: there are {', '.join(_SOLVERS)}")
    pairs = [
        (name, known) for name in solvers for known in losses if known in _SOLVERS[name].losses
    ]
    if solver is None:
        return next(pair for pair in pairs if loss in (None, pair[1]))
    kind = _SOLVERS[solver] if isinstance(solver, str) else type(solver)
    if not hasattr(kind, "losses"):  # somebody's own
        return solver, losses[0] if loss is None else loss
    learned = [known for known in losses if known in kind.losses]
    if not learned or loss not in (None, *learned):
        what = "the loss of" if loss is None else f"the loss {loss!r} of"
        raise ValueError(
            f"{kind.__name__} does not learn {what} {estimator}: it has "
            + ", ".join(f"loss={known!r} with solver={name!r}" for name, known in pairs)
        )
    return solver, learned[0] if loss is None else loss


def config_of(solver: Any) -> Any:
    """Return the config object that a solver's name stands for, or the one that was given.

    Raises
    ------
    TypeError
        If it is none.
    """
    config = _SOLVERS[solver]() if isinstance(solver, str) else solver
    if not hasattr(config, "solver") or isinstance(config, type):
        raise TypeError(f"solver must be a name or a config object such as Adam(), got {config!r}")
    return config
