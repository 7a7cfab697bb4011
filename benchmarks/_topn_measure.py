"""How ``bench_topn.py`` measures: sides in turn, CPU seconds, medians, answers held to an oracle.

The oracle computes all scores of some users in double precision. A side is exact where its sorted
scores equal the oracle's, and its items too unless a tie decides about them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from _topn_data import Work
from _topn_sides import Call, Found, Side

_ORACLE_ITEMS = 65_536  # per block
_TOLERANCE = 1e-5  # of the largest score of a list


class Effort(NamedTuple):
    """How long to measure.

    Attributes
    ----------
    seconds : float
        CPU seconds that one measurement should take; fewer than a third of it are never used.
    rounds : int
        Turns of the sides that are compared.
    checked : int
        Users whose answers are compared with the oracle's.
    """

    seconds: float
    rounds: int
    checked: int


class Raced(NamedTuple):
    """What became of one name: its fastest setting, measured in turn with the other names.

    Attributes
    ----------
    setting : str
    rates : list of float
        Users per CPU second, one for each turn.
    exact : bool
    tried : dict of str to float
        Users per CPU second of each setting, from the choice between them.
    """

    setting: str
    rates: list[float]
    exact: bool
    tried: dict[str, float]

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(self.rates)


def race(work: Work, sides: Sequence[Side], effort: Effort) -> dict[str, Raced]:
    """Choose the fastest setting of each name, then measure these in turn and check them."""
    tried: dict[str, dict[str, float]] = {}
    chosen: dict[str, Side] = {}
    calls: dict[str, Call] = {}
    for side in sides:
        call, rate = trial(work, side, effort)
        rates = tried.setdefault(side.name, {})
        if rate > max(rates.values(), default=0.0):
            chosen[side.name], calls[side.name] = side, call
        rates[side.setting] = rate
    rounds = take_turns(calls, effort)
    oracle = Oracle(work, effort.checked)
    return {
        name: Raced(side.setting, rounds[name], oracle.agrees(calls[name]()), tried[name])
        for name, side in chosen.items()
    }


def take_turns(calls: Mapping[str, Call], effort: Effort) -> dict[str, list[float]]:
    """Return users per CPU second of each call, one for each turn."""
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(effort.rounds):
        for name, call in calls.items():
            n_calls, seconds, found = _timed(call, effort)
            rounds[name].append(n_calls * len(found[0]) / seconds)
    return rounds


def trial(work: Work, side: Side, effort: Effort) -> tuple[Call, float]:
    """Return a call of about the right length, and its rate measured once."""
    n_users = len(work.queries)
    size = min(n_users, max(side.step, 8))
    call = side.prepare(work.part(slice(0, size)))
    call()  # not counted: compiles, loads, allocates
    while True:
        n_calls, seconds, _ = _timed(call, effort)
        rate = n_calls * size / seconds
        wanted = min(n_users, int(rate * effort.seconds))
        wanted -= wanted % side.step if wanted > side.step else 0
        if wanted < 2 * size:
            return call, rate
        size = min(wanted, 16 * size)
        call = side.prepare(work.part(slice(0, size)))
        call()  # another size may take another path, which has to be compiled too


def _timed(call: Callable[[], Any], effort: Effort) -> tuple[int, float, Any]:
    """Repeat a call until a third of the wanted time has passed; the clock is the CPU's."""
    n_calls, start = 0, time.process_time()
    while True:
        found = call()
        n_calls += 1
        seconds = time.process_time() - start
        if seconds >= effort.seconds / 3:
            return n_calls, seconds, found


class Oracle:
    """The exact lists of the first users of some work, in double precision."""

    def __init__(self, work: Work, n_users: int) -> None:
        part = work.part(slice(0, n_users))
        queries = part.queries.astype(np.float64)
        scores = np.empty((len(queries), len(work.vectors)))
        for start in range(0, len(work.vectors), _ORACLE_ITEMS):
            block = slice(start, start + _ORACLE_ITEMS)
            scores[:, block] = queries @ work.vectors[block].astype(np.float64).T
        if part.exclude is not None:
            scores[part.exclude.pairs()] = -np.inf
        self._scores, self._n = scores, work.n
        self.lists = np.argsort(-scores, axis=1, kind="stable")[:, : work.n + 1]

    def agrees(self, found: Found) -> bool:
        """Whether the lists of all users that both sides have are the oracle's."""
        positions, scores = found
        return all(
            self._is_list(u, positions[u], scores[u])
            for u in range(min(len(self.lists), len(positions)))
        )

    def _is_list(self, u: int, positions: np.ndarray, scores: np.ndarray) -> bool:
        best = self._scores[u, self.lists[u]]
        n = min(self._n, int(np.isfinite(best).sum()))
        if len(positions) < n or len(set(positions[:n].tolist())) < n or positions[:n].min() < 0:
            return False
        tolerance = _TOLERANCE * np.abs(best[:n]).max()
        own = self._scores[u, positions[:n]]  # of the items it names
        near = (np.abs(values - best[:n]) <= tolerance for values in (own, scores[:n]))
        if not all(values.all() for values in near):
            return False
        tied = n < len(best) and best[n - 1] - best[n] <= tolerance
        return tied or set(positions[:n].tolist()) == set(self.lists[u, :n].tolist())


def sgemm_rate(effort: Effort) -> float:
    """Return the best that a large numpy product reaches, in operations per CPU second."""
    rates = []
    for size in (1024, 2048):
        a, b = np.random.default_rng(0).random((2, size, size), np.float32)
        out = np.empty_like(a)
        rates.append(2.0 * size**3 / _seconds(lambda: np.matmul(a, b, out=out), effort))  # noqa: B023
    return max(rates)


def gemm_ceiling(work: Work, effort: Effort) -> float:
    """Return the users per CPU second that scoring alone allows, over the best size of a call."""
    rates = []
    for n_queries in (256, 1024, 4096):
        queries = np.resize(work.queries, (n_queries, work.queries.shape[1]))
        for n_rows in (1024, 4096, 16_384):
            rows = work.vectors[:n_rows].T
            out = np.empty((n_queries, rows.shape[1]), np.float32)
            seconds = _seconds(lambda: np.matmul(queries, rows, out=out), effort)  # noqa: B023
            rates.append(n_queries / seconds * rows.shape[1] / len(work.vectors))
    return max(rates)


def _seconds(call: Callable[[], Any], effort: Effort) -> float:
    """Return the median CPU seconds of a call."""
    call()
    times = []
    for _ in range(max(3, effort.rounds)):
        n_calls, seconds, _ = _timed(call, effort._replace(seconds=effort.seconds / 3))
        times.append(seconds / n_calls)
    return statistics.median(times)
