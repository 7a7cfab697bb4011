"""Rankings from implicit feedback: how good, how soon and in how much memory, beside others.

Each section has a table of models under one measure, then the figures that are held against
something. Peers that are not installed are left out. ``--search TASK`` prints what the settings
were chosen by: the same measure on held-out training rows.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

from _ranking_data import TASKS
from _ranking_peers import PACKAGES, find_peers
from _ranking_quality import Section, quality, search
from _ranking_speed import memory, race
from _report import environment, parser, print_environment, print_table, write_json
from threadpoolctl import threadpool_limits

from fmknn.errors import DataNotFoundError

SECTIONS: dict[str, Callable[[set[str], bool], Section]] = {
    **{name: functools.partial(quality, name) for name in TASKS},
    "seconds-to-quality": race,
    "memory": memory,
}
QUICK = ("ml100k", "ml1m", "seconds-to-quality")


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument(
        "--only", metavar="SECTION,…", help=f"some sections of: {', '.join(SECTIONS)}"
    )
    options.add_argument(
        "--search",
        metavar="TASK",
        choices=TASKS,
        help=f"settings on held-out training rows, instead of all else: {', '.join(TASKS)}",
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
    absent = [PACKAGES[name] for name in peers if name not in installed]
    if absent:
        print(f"not to be imported, and left out: {', '.join(absent)} (pip install 'fmknn[bench]')")

    sections: dict[str, Section] = {}
    try:
        with threadpool_limits(limits=1):
            if arguments.search:
                name = f"search on training rows, {arguments.search}"
                sections[name] = _shown(name, lambda: Section(search(arguments.search, installed)))
            else:
                for name in chosen:
                    run = functools.partial(SECTIONS[name], installed, arguments.quick)
                    sections[name] = _shown(name, run)
    except DataNotFoundError as error:
        sys.exit(f"{name}: {error}")
    write_json(
        arguments.json,
        facts,
        peers=peers,
        results={
            name: {
                "lines": section.lines,
                "targets": [line._asdict() for line in section.targets],
            }
            for name, section in sections.items()
        },
    )


def _shown(name: str, run: Callable[[], Section]) -> Section:
    """Run a section and print it."""
    start = time.perf_counter()
    section = run()
    print(f"{name} ({time.perf_counter() - start:.0f} s)")
    if section.lines:
        print_table(section.lines)
    if section.targets:
        print_table([line._asdict() for line in section.targets])
    return section


if __name__ == "__main__":
    main()
