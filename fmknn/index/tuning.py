"""The cheapest search that finds what an exact one finds, by trial on a sample of queries.

Settings are compared by counted work and recall, never by the clock: the same sample gives the
same settings on every machine.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .._checks import require_bool, require_count, require_number
from .base import Hits
from .recall import recalls

__all__ = [
    "RecallWarning",
    "Tuning",
    "require_recall",
    "sampled",
    "tune",
    "warn_if_missed",
]

Parameters = Mapping[str, int]

_LENGTHS = (10, 100)  # of lists: the shorter one is found with fewer candidates
_MOST_QUERIES = 1000
_DEVIATIONS = 2.576  # of the mean: one sample in 200 promises too much
_STEPS_PER_DOUBLING = {"overfetch": 1, "nprobe": 4, "ef_search": 4}
_JSON_FIELDS = ("recall", "users_per_second", "parameters", "n_queries", "n", "reached")


class RecallWarning(UserWarning):
    """No setting of an approximate index finds as much as was asked for."""


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Attributes
    ----------
    recall : float
        Mean share of the exact lists that was found, the least over the lengths ``n``; if the
        target was missed, of lists of the length that missed it.
    users_per_second : float
        In searches of the longest lists, while it was tuned.
    parameters : dict of str to int
        "nprobe", "ef_search", "overfetch" (candidates ranked, as a multiple of what a list
        needs): those that the kind has.
    n_queries : int
        Size of the sample.
    n : tuple of int
        List lengths.
    reached : bool
        Whether the recall less 2.576 standard errors is at least what was asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import fmknn
    >>> random = np.random.default_rng(0)
    >>> items, users = random.normal(size=(500, 4)), random.normal(size=(200, 4))
    >>> index = fmknn.FaissIndex("IVF", target_recall=0.9).build(items, users)
    >>> index.tuning_.reached, index.tuning_.n, list(index.tuning_.parameters)
    (True, (10, 100), ['nprobe'])
    """

    recall: float
    users_per_second: float
    parameters: dict[str, int]
    n_queries: int
    n: tuple[int, ...]
    reached: bool

    def to_state(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "n": list(self.n)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tuning:
        """Take back what :meth:`to_state` gave; whether the parameters fit, an index has to see.

        Raises
        ------
        ValueError
            If it is anything else.
        """
        if not isinstance(state, Mapping) or set(state) != set(_JSON_FIELDS):
            raise ValueError(f"the saved tuning is not {', '.join(_JSON_FIELDS)}")
        lengths, parameters = state["n"], state["parameters"]
        if not isinstance(lengths, list) or not isinstance(parameters, Mapping):
            raise ValueError("the saved tuning has no list lengths or no parameters")
        require_number("recall", state["recall"], 1)
        require_number("users_per_second", state["users_per_second"], math.inf)
        return cls(
            float(state["recall"]),
            float(state["users_per_second"]),
            {name: require_count(name, value) for name, value in parameters.items()},
            require_count("n_queries", state["n_queries"]),
            tuple(require_count("n", n) for n in lengths),
            require_bool("reached", state["reached"]),
        )


def require_recall(target: Any) -> float:
    """Return a recall that can be asked for.

    Raises
    ------
    ValueError
        If it is no number above 0 and up to 1.
    """
    require_number("target_recall", target, 1)
    if target == 0:
        raise ValueError(f"target_recall must be above 0, got {target!r}")
    return float(target)


def sampled(queries: np.ndarray | None, target: float) -> np.ndarray:
    """Return the queries that are tried, evenly taken from all.

    Raises
    ------
    ValueError
        If there are none.
    """
    if queries is None or len(queries) == 0:
        raise ValueError(
            f"target_recall={target:g} is tuned on queries: pass a sample of them, "
            "build(vectors, queries)"
        )
    n = min(len(queries), _MOST_QUERIES)
    return queries[np.linspace(0, len(queries) - 1, n).astype(np.int64)]


def tune(
    search: Callable[[Parameters, int], Hits],
    exact: Callable[[int], Hits],
    limits: Mapping[str, int],
    work: Callable[[Parameters, int], float],
    target: float,
    n_items: int,
) -> Tuning:
    """Find the cheapest parameters that reach a recall, or those that come nearest.

    Parameters
    ----------
    search : callable
        ``search(parameters, n)`` returns the lists of the sample.
    exact : callable
        ``exact(n)`` returns what they should be.
    limits : mapping of str to int
        The parameters with their largest values. More of any finds more, and costs more.
    work : callable
        ``work(parameters, n)`` is what a list of n costs.
    target : float
    n_items : int
        No list is longer.

    Returns
    -------
    Tuning
    """
    lengths = sorted({min(n, n_items) for n in _LENGTHS}, reverse=True)
    wanted = {n: exact(n) for n in lengths}
    tried: dict[tuple[int, ...], _Trial] = {}

    def trial(values: tuple[int, ...]) -> _Trial:
        if values not in tried:
            parameters = dict(zip(limits, values, strict=True))
            found = _Trial(parameters, work(parameters, lengths[0]))
            for n in lengths:
                found = found.with_list(recalls(search(parameters, n), wanted[n]), target)
                if not found.reached:
                    break
            tried[values] = found
        return tried[values]

    *outer, inner = [_ladder(name, most) for name, most in limits.items()] or [[1]]
    for head in itertools.product(*outer):
        steps = [(*head, value)[: len(limits)] for value in inner]
        least = min((trial.work for trial in tried.values() if trial.reached), default=math.inf)
        cheaper = [s for s in steps if work(dict(zip(limits, s, strict=True)), lengths[0]) < least]
        _halve(trial, cheaper)
    chosen = _best(tried.values())
    started = time.perf_counter()
    n_queries = len(search(chosen.parameters, lengths[0]).counts)
    seconds = time.perf_counter() - started
    return Tuning(
        chosen.recall,
        n_queries / max(seconds, 1e-9),
        chosen.parameters,
        n_queries,
        tuple(reversed(lengths)),
        chosen.reached,
    )


def warn_if_missed(tuning: Tuning, target: float, what: str, stacklevel: int) -> None:
    """Say how far tuning came where it did not reach its target."""
    if tuning.reached:
        return
    settings = ", ".join(f"{name}={value}" for name, value in tuning.parameters.items())
    warnings.warn(
        f"{what} does not surely reach a recall of {target:g}: {tuning.recall:.4f} on "
        f'{tuning.n_queries} queries with {settings}; use "IVF" or an exact index, or ask for less',
        RecallWarning,
        stacklevel=stacklevel,
    )


@dataclass(frozen=True)
class _Trial:
    parameters: dict[str, int]
    work: float
    recall: float = 1.0
    reached: bool = True

    def with_list(self, shares: np.ndarray, target: float) -> _Trial:
        """Return what is known after lists of one more length."""
        recall = min(self.recall, float(shares.mean()))
        return replace(self, recall=recall, reached=_lower_bound(shares) >= target)


def _lower_bound(shares: np.ndarray) -> float:
    """Return what the mean over all users is above, but for one sample in 200."""
    if len(shares) < 2:
        return float(shares.mean())
    return float(shares.mean() - _DEVIATIONS * shares.std(ddof=1) / math.sqrt(len(shares)))


def _ladder(name: str, most: int) -> list[int]:
    """Return the values that are tried, in even ratios."""
    steps = _STEPS_PER_DOUBLING[name]
    powers = (round(2 ** (step / steps)) for step in range(steps * most.bit_length()))
    return sorted({min(most, power) for power in powers} | {most})


def _halve(trial: Callable[[tuple[int, ...]], _Trial], steps: Sequence[tuple[int, ...]]) -> None:
    """Try the first of ascending steps that reaches the target, or the last if none does."""
    first, last = 0, len(steps) - 1
    while first < last:
        middle = (first + last) // 2
        if trial(steps[middle]).reached:
            last = middle
        else:
            first = middle + 1
    if steps:
        trial(steps[last])


def _best(trials: Iterable[_Trial]) -> _Trial:
    """Return the cheapest that reaches the target, or else the one that finds most."""
    return min(trials, key=lambda t: (not t.reached, t.work if t.reached else -t.recall, t.work))
