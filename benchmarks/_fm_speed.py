"""Time and memory of ``bench_fm_solvers.py``: whole sweeps, and the most that a fit takes.

A sweep's time is that from the end of the one before it to its own end: the first, before which
data are laid out, is not counted. Sides take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _fm_data import NO_SPLIT_1M, Split, generate, load_1m, load_100k, matrices, one_hot
from _fm_peers import MyFM
from _fm_quality import mcmc
from _report import Target, at_least, at_most, skipped

ROUNDS = 3
MIB = 2**20
RATINGS = 20_000_000


class Clock:
    """Called at the end of each sweep; notes CPU and wall time."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def __call__(self, *_: Any) -> None:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())


Side = Callable[[Clock], Any]


def ours(k: int, n_sweeps: int, *data: Any, n_jobs: int = 1) -> Side:
    """Return our side: on Interactions, or on a matrix and targets."""

    def train(clock: Clock) -> None:
        mcmc(k, n_sweeps, callbacks=[clock], n_jobs=n_jobs).fit(*data)

    return train


def in_turn(sides: dict[str, Side], wall: bool = False) -> dict[str, float]:
    """Return the median of each side's seconds per sweep."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, train in sides.items():
            clock = Clock()
            train(clock)
            seconds[name] += np.diff(clock.wall if wall else clock.cpu).tolist()
    return {name: statistics.median(values) for name, values in seconds.items()}


def against_myfm(
    what: str, limit: float, sides: dict[str, Side], peer: Side | None
) -> list[Target]:
    """Return a line for each of our sides: myFM's CPU seconds per sweep over ours."""
    for train in sides.values():  # not counted: compiles or loads code
        train(Clock())
    seconds = in_turn(sides if peer is None else {**sides, "myFM": peer})
    theirs = seconds.pop("myFM", None)
    lines = []
    for name, mine in seconds.items():
        beside = f"fmknn {mine:.4f} s" + ("" if theirs is None else f", myFM {theirs:.4f} s")
        ratio = None if theirs is None else theirs / mine
        lines.append(at_least(f"CPU per sweep, {what}, {name}: myFM / fmknn", limit, ratio, beside))
    return lines


def id_speed(
    split: Split, what: str, k: int, n_sweeps: int, limit: float, peers: set[str]
) -> list[Target]:
    """Return the lines for ids alone: through Interactions, and as one-hot columns."""
    train = split.train
    X, y = one_hot(train), train.values
    widths = len(train.users), len(train.items)
    sides = {
        "Interactions": ours(k, n_sweeps, train),
        "fit(X, y)": ours(k, n_sweeps, X, y),
    }

    def peer(clock: Clock) -> None:
        MyFM(k, n_sweeps, clock).fit_one_hot(X, y, widths)

    return against_myfm(f"{what}, ids, k={k}", limit, sides, peer if "myFM" in peers else None)


def feature_speed(
    split: Split, what: str, k: int, n_sweeps: int, limit: float, peers: set[str]
) -> list[Target]:
    """Return the line for features and histories, for myFM as relation blocks."""
    train = split.train
    blocks = matrices(split)

    def peer(clock: Clock) -> None:
        MyFM(k, n_sweeps, clock).fit_blocks(blocks, train.values)

    sides = {"Interactions": ours(k, n_sweeps, train)}
    return against_myfm(f"{what}, k={k}", limit, sides, peer if "myFM" in peers else None)


def speed_100k(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 100K with features and histories, one thread."""
    split = load_100k("u1", features=True)
    n_sweeps = 6 if quick else 20
    return feature_speed(split, "100K, features, histories, day", 10, n_sweeps, 5, peers)


def speed_1m(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 1M, ids alone and with features and histories, one thread."""
    split = load_1m()
    if split is None:
        return [skipped("CPU per sweep, 1M: myFM / fmknn", ">= 12, 15, 5", NO_SPLIT_1M)]
    lines = id_speed(split, "1M", 8, 9, 12, peers) + id_speed(split, "1M", 32, 6, 15, peers)
    with_features = load_1m(features=True)
    return lines + feature_speed(with_features, "1M, features, histories", 16, 5, 5, peers)


def threads(peers: set[str], quick: bool) -> list[Target]:
    """Two threads over one, wall time, on MovieLens 1M."""
    figure = "wall time per sweep, 1M, ids, k=32: one thread / two"
    split = load_1m()
    if split is None:
        return [skipped(figure, ">= 1.6", NO_SPLIT_1M)]
    sides = {str(n): ours(32, 9, split.train, n_jobs=n) for n in (1, 2)}
    for train in sides.values():
        train(Clock())
    seconds = in_turn(sides, wall=True)
    beside = f"{seconds['1']:.4f} s, {seconds['2']:.4f} s; cores: {os.cpu_count()}"
    return [at_least(figure, 1.6, seconds["1"] / seconds["2"], beside)]


def memory(peers: set[str], quick: bool) -> list[Target]:
    """The most memory that a fit takes beside what was there before it, in a process of its own."""
    figure = f"MiB at the peak of fit, {RATINGS // 10**6} million ratings, k=32, 5 sweeps"
    if not Path("/proc/self/clear_refs").exists():
        return [skipped(figure, "see beside", "only Linux tells the peak of a part of a run")]
    command = [sys.executable, __file__]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    parts = seen["ratings"], seen["parameters"], seen["samples"]
    beside = (
        "target: 2 x 12 bytes x ratings {:.0f} + parameters {:.0f} + kept samples {:.0f}; "
        "{:.0f} MiB before fit; {:.0f} CPU s".format(*parts, seen["before"], seen["seconds"])
    )
    return [at_most(figure, round(sum(parts)), seen["after"] - seen["before"], beside)]


def print_memory() -> None:
    """Train on generated ratings and print, as JSON, sizes in MiB and CPU seconds of the fit."""
    k, n_sweeps = 32, 5
    mcmc(k, 1).fit(generate(10_000, 500, 200))  # compiles
    data = generate(RATINGS, 200_000, 50_000)
    model = mcmc(k, n_sweeps)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is taken from here on: proc(5)
    before, start = _status("VmRSS"), time.process_time()
    model.fit(data)
    seconds, after = time.process_time() - start, _status("VmHWM")
    size = 4 * (k + 1) * (len(data.users) + len(data.items)) / MIB
    samples = size * model.params_.n_samples
    print(
        json.dumps(
            {
                "before": before,
                "after": after,
                "seconds": seconds,
                "ratings": 2 * 12 * len(data) / MIB,
                "parameters": size,
                "samples": samples,
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
    print_memory()
