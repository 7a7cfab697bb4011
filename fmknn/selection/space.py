"""The ranges that a search draws parameters from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._checks import require_count

__all__ = ["Range", "choice", "integers", "log_uniform", "uniform"]


@dataclass(frozen=True)
class Range:
    """What one parameter may be: made by :func:`uniform`, :func:`choice` and their like."""

    kind: str
    low: float = 0
    high: float = 0
    options: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        inside = list(self.options) if self.kind == "choice" else f"{self.low!r}, {self.high!r}"
        return f"{self.kind}({inside})"

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask an optuna trial for a value.

        Options are asked for by their place: they may be any objects.
        """
        if self.kind == "choice":
            return trial.suggest_categorical(name, list(range(len(self.options))))
        if self.kind == "integers":
            return trial.suggest_int(name, int(self.low), int(self.high))
        return trial.suggest_float(name, self.low, self.high, log=self.kind == "log_uniform")

    def value(self, suggested: Any) -> Any:
        """Return the parameter that a suggested value stands for."""
        return self.options[suggested] if self.kind == "choice" else suggested


def uniform(low: float, high: float) -> Range:
    """Real numbers from `low` to `high`, each as likely.

    Parameters
    ----------
    low, high : float

    Returns
    -------
    Range

    Raises
    ------
    ValueError
        Unless both are finite and low is below high.

    Examples
    --------
    >>> uniform(0, 0.5)
    uniform(0.0, 0.5)
    """
    return _between("uniform", low, high)


def log_uniform(low: float, high: float) -> Range:
    """Real numbers from `low` to `high`, each order of magnitude as likely.

    Parameters
    ----------
    low, high : float
        Above 0.

    Returns
    -------
    Range

    Raises
    ------
    ValueError
        Unless both are finite and above 0, and low is below high.

    Examples
    --------
    >>> log_uniform(1e-4, 1)
    log_uniform(0.0001, 1.0)
    """
    if low <= 0:
        raise ValueError(f"log_uniform needs a low above 0, got {low!r}")
    return _between("log_uniform", low, high)


def integers(low: int, high: int) -> Range:
    """Whole numbers from `low` to `high`, both included, each as likely.

    Parameters
    ----------
    low, high : int
        Not negative.

    Returns
    -------
    Range

    Raises
    ------
    ValueError
        Unless both are integers and high is low or above.

    Examples
    --------
    >>> integers(8, 64)
    integers(8, 64)
    """
    low = require_count("low", low, least=0)
    return Range("integers", low, require_count("high", high, least=low))


def choice(options: Iterable[Any]) -> Range:
    """One of the options, each as likely.

    Parameters
    ----------
    options : iterable
        Any objects: names, numbers, solver configs.

    Returns
    -------
    Range

    Raises
    ------
    ValueError
        If there are none, or it is a string.

    Examples
    --------
    >>> choice(["als", "adam"])
    choice(['als', 'adam'])
    """
    several = () if isinstance(options, str) else tuple(options)
    if not several:
        raise ValueError(f"choice takes a list of options, got {options!r}")
    return Range("choice", options=several)


def _between(kind: str, low: float, high: float) -> Range:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{kind} needs finite numbers, the lower one first: got {low!r}, {high!r}")
    return Range(kind, float(low), float(high))
