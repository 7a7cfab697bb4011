"""Time and memory of ``bench_ranking.py``: seconds to a given quality, and the most of a fit.

After each iteration the factors are noted, with the CPU time spent since the training began; what
the noting takes is not counted, and the lists are measured when all is over. Sides take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _ranking_ours
import numpy as np
from _ranking_data import Task, counts, load, part_of
from _ranking_ours import ranker, scores_of, training_rows
from _ranking_peers import ImplicitALS
from _ranking_quality import QUICK_USERS, Section
from _ranking_score import Scores, by_scores, measure
from _ranking_settings import OURS, PEER_SETTINGS
from _report import Target, at_most, skipped

METRIC = "ndcg@10"
ROUNDS = 5
OUR_SWEEPS = 15
MIB = 2**20


class Notes:
    """CPU seconds and model after each iteration; what is done in here is not counted."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.models: list[Scores] = []
        self._start = time.process_time()

    def note(self, scores_as_they_stand: Callable[[], Scores]) -> None:
        """Take down the time, then the model."""
        now = time.process_time()
        self.seconds.append(now - self._start)
        self.models.append(scores_as_they_stand())
        self._start += time.process_time() - now


class Curve(NamedTuple):
    """What one side reached, iteration by iteration."""

    seconds: np.ndarray  # medians of the rounds
    quality: np.ndarray

    def first_reaching(self, quality: float) -> float | None:
        """Return the seconds after which lists are at least as good; None: they never are."""
        reached = self.quality >= quality
        return float(self.seconds[np.argmax(reached)]) if reached.any() else None


def race(peers: set[str], quick: bool) -> Section:
    """CPU seconds to the quality that implicit's ALS ends with, on MovieLens 1M with 64 factors."""
    task = load("ml1m")
    figure = f"CPU s to implicit ALS's own {METRIC}, ml1m, k=64: fmknn / implicit"
    if "implicit" not in peers:
        return Section([], [skipped(figure, "<= 0.5", "implicit is not installed")])
    if quick:
        task = part_of(task, QUICK_USERS)
    sides = {"fmknn": _our_run, "implicit": _implicit_run}
    curves = _in_turn(task, sides, rounds=1 if quick else ROUNDS)
    goal = float(curves["implicit"].quality[-1])
    lines = _iterations(curves)
    if quick:
        return Section(lines, [])
    return Section(lines, [_race_target(figure, goal, curves)])


def _race_target(figure: str, goal: float, curves: dict[str, Curve]) -> Target:
    ours, theirs = (curves[name].first_reaching(goal) for name in ("fmknn", "implicit"))
    if ours is None or theirs is None:
        best = curves["fmknn"].quality.max()
        return Target(figure, "<= 0.5", None, "no", f"{goal:.4f} was not reached: {best:.4f}")
    return at_most(figure, 0.5, ours / theirs, f"{ours:.2f} s, {theirs:.2f} s to {goal:.4f}")


def _iterations(curves: dict[str, Curve]) -> list[dict[str, Any]]:
    lines = []
    for i in range(max(len(curve.seconds) for curve in curves.values())):
        line: dict[str, Any] = {"iteration": i + 1}
        for name, curve in curves.items():
            there = i < len(curve.seconds)
            line[f"{name} CPU s"] = float(curve.seconds[i]) if there else None
            line[f"{name} {METRIC}"] = float(curve.quality[i]) if there else None
        lines.append(line)
    return lines


def _in_turn(
    task: Task, sides: dict[str, Callable[[Task], Notes]], rounds: int
) -> dict[str, Curve]:
    for run in sides.values():  # not counted: compiles or loads code
        run(part_of(task, 50))
    notes: dict[str, list[Notes]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            notes[name].append(run(task))
    return {name: _curve(task, runs) for name, runs in notes.items()}


def _curve(task: Task, runs: Sequence[Notes]) -> Curve:
    """The quality is that of one run: each is seeded, and runs on one thread."""
    seconds = [
        statistics.median(times) for times in zip(*(run.seconds for run in runs), strict=True)
    ]
    quality = [measure(task, by_scores(task, scores))[METRIC] for scores in runs[0].models]
    return Curve(np.array(seconds), np.array(quality))


def _our_run(task: Task) -> Notes:
    settings = OURS["ml1m"]["FMRanker"]
    ours = settings._replace(solver={**settings.solver, "n_iter": OUR_SWEEPS})
    rows = training_rows(task, ours)
    notes = Notes()

    def callback(step: Any) -> None:
        notes.note(lambda: scores_of(task, step.model()))

    ranker(ours, [callback]).fit(rows)
    return notes


def _implicit_run(task: Task) -> Notes:
    train = counts(task.train)
    notes = Notes()

    def factors(peer: ImplicitALS) -> Scores:
        users, items = peer.model.user_factors.copy(), peer.model.item_factors.copy()
        return lambda asked: users[asked] @ items.T

    settings = PEER_SETTINGS["ml1m"]["implicit ALS"]
    ImplicitALS(**settings, on_iteration=lambda peer: notes.note(lambda: factors(peer))).fit(train)
    return notes


def memory(peers: set[str], quick: bool) -> Section:
    """The most memory that a fit on Gowalla takes beside what was there, each in a process."""
    load("gowalla")  # says if it is not there
    if not Path("/proc/self/clear_refs").exists():
        why = "only Linux tells the peak of a part of a run"
        return Section([], [skipped("MiB at the peak of fit, gowalla", "see above", why)])
    sides = [*OURS["gowalla"], *(["implicit ALS"] if "implicit" in peers else [])]
    return Section([_memory_of(model) for model in sides], [])


def _memory_of(model: str) -> dict[str, Any]:
    command = [sys.executable, __file__, model]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"model": model, **json.loads(done.stdout.splitlines()[-1])}


def print_memory(model: str) -> None:
    """Train on Gowalla and print, as JSON, sizes in MiB and CPU seconds of the fit."""
    task = load("gowalla")
    few = part_of(task, 50)
    if model in OURS["gowalla"]:
        ours = OURS["gowalla"][model]
        _ranking_ours.fit(few, ours)  # compiles
        k, fit = ours.n_factors, lambda: _ranking_ours.fit(task, ours)
    else:
        settings, train = PEER_SETTINGS["gowalla"][model], counts(task.train)
        ImplicitALS(**settings).fit(counts(few.train))
        k, fit = settings["factors"], lambda: ImplicitALS(**settings).fit(train)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is taken from here on: proc(5)
    before, start = _status("VmRSS"), time.process_time()
    fit()
    seconds, after = time.process_time() - start, _status("VmHWM")
    parameters = 4 * (k + 1) * (len(task.train.users) + len(task.train.items)) / MIB
    print(
        json.dumps(
            {
                "k": k,
                "MiB at the peak": round(after),
                "MiB before": round(before),
                "MiB of parameters": round(parameters),
                "CPU s": round(seconds, 1),
            }
        )
    )


def _status(name: str) -> float:
    """A line of this process's status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    print_memory(sys.argv[1])
