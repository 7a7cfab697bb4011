"""What every benchmark says about itself: where it ran, on what, and its figures as a table."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fmknn

PACKAGES = ("numpy", "scipy", "numba", "faiss-cpu", "torch")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    made.add_argument("--json", metavar="OUT", help="write environment and figures to this file")
    return made


def environment() -> dict[str, Any]:
    """Return machine, load, versions and commit, as JSON values."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": _cpu_model(),
        "cores": _cores(),
        "load average": [round(load, 2) for load in _load_average()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "fmknn": fmknn.__version__,
        "commit": _commit(),
        **{name: _version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def _load_average() -> tuple[float, ...]:
    try:
        return os.getloadavg()
    except (AttributeError, OSError):  # Windows
        return ()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def print_environment(facts: Mapping[str, Any]) -> None:
    """Print what :func:`environment` returned, a fact a line."""
    for name, value in facts.items():
        print(f"{name:>13}: {value}")
    print(flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most, and how many there are."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same keys as a table: text to the left, numbers to the right."""
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    left = [isinstance(rows[0][name], str) for name in names]
    for line in (names, ["-" * width for width in widths], *cells):
        parts = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ]
        print("  ".join(parts).rstrip())
    print(flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Target(NamedTuple):
    """A figure, what it is held against, and what stands beside it: a line of a table."""

    figure: str
    target: str
    fmknn: float | None
    met: str
    beside: str


def at_most(figure: str, limit: float, value: float, beside: str = "") -> Target:
    """Return the line of a figure that should be small."""
    return Target(figure, f"<= {limit:g}", value, yes_no(value <= limit), beside)


def at_least(figure: str, limit: float, value: float | None, beside: str = "") -> Target:
    """Return the line of a figure that should be large; None: there was nothing to compare."""
    met = "-" if value is None else yes_no(value >= limit)
    return Target(figure, f">= {limit:g}", value, met, beside)


def skipped(figure: str, target: str, why: str) -> Target:
    """Return a line without its figure."""
    return Target(figure, target, None, "-", f"skipped: {why}")


def yes_no(fulfilled: bool) -> str:
    """Return "yes" or "no"."""
    return "yes" if fulfilled else "no"


def write_json(path: str | None, facts: Mapping[str, Any], **results: Any) -> None:
    """Write environment, command line and results, where a path is given."""
    if path is None:
        return
    content = {"environment": facts, "arguments": sys.argv[1:], **results}
    Path(path).write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {path}")
