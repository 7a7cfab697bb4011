"""Gibbs sampling and ALS on MovieLens: error, CPU time and memory, beside other libraries.

Each line has a figure, what it is held against, and what else was measured for it. Peers that are
not installed are left out; without MovieLens 1M and its fixed split, so are the lines about it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from _fm_data import generate
from _fm_peers import PEERS, find_peers
from _fm_quality import (
    mcmc,
    quality_1m,
    quality_1m_features,
    quality_100k,
    quality_100k_features,
)
from _fm_speed import memory, speed_1m, speed_100k, threads
from _report import Target, environment, parser, print_environment, print_table, write_json
from threadpoolctl import threadpool_limits

from fmknn.errors import DataNotFoundError

SECTIONS: dict[str, Callable[[set[str], bool], list[Target]]] = {
    "quality-100k": quality_100k,
    "quality-100k-features": quality_100k_features,
    "quality-1m": quality_1m,
    "quality-1m-features": quality_1m_features,
    "speed-100k": speed_100k,
    "speed-1m": speed_1m,
    "threads": threads,
    "memory": memory,
}
QUICK = ("quality-100k", "quality-100k-features", "speed-100k")


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument(
        "--only", metavar="SECTION,…", help=f"some sections of: {', '.join(SECTIONS)}"
    )
    arguments = options.parse_args()
    allowed = QUICK if arguments.quick else tuple(SECTIONS)
    chosen = allowed if arguments.only is None else tuple(arguments.only.split(","))
    for name in chosen:
        if name not in allowed:
            options.error(f"no section {name!r}: there are {', '.join(allowed)}")

    facts = environment()
    peers = find_peers()
    print_environment(
        {**facts, **{name: version or "not installed" for name, version in peers.items()}}
    )
    installed = {name for name, version in peers.items() if version is not None}
    absent = [PEERS[name] for name in peers if name not in installed]
    if absent:
        print(f"not to be imported, and left out: {', '.join(absent)} (pip install 'fmknn[bench]')")
    seconds = first_fit_seconds()
    print(f"first fits, compiling or loading code: {seconds:.2f} s\n", flush=True)

    tables: dict[str, list[Target]] = {}
    for name in chosen:
        start = time.perf_counter()
        try:
            with threadpool_limits(limits=1):
                tables[name] = SECTIONS[name](installed, arguments.quick)
        except DataNotFoundError as error:
            sys.exit(f"{name}: {error}")
        print(f"{name} ({time.perf_counter() - start:.0f} s)")
        print_table([line._asdict() for line in tables[name]])
    write_json(
        arguments.json,
        facts,
        peers=peers,
        compile_seconds=seconds,
        results={name: [line._asdict() for line in table] for name, table in tables.items()},
    )


def first_fit_seconds() -> float:
    """Return the wall seconds of two tiny trainings, with ids alone and with histories."""
    few = generate(2_000, 100, 50)
    start = time.perf_counter()
    for rows in (few, few.with_history()):
        mcmc(4, 1).fit(rows).predict(rows)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
