"""Top-N search: how fast, at which recall, and how much memory everybody's lists take.

One table: users per CPU second of fmknn and of its peers, each at its fastest setting on one
thread, and what they are held against. Answers are compared with those of an oracle in double
precision. Peers that are not installed are left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import _topn_approximate
import _topn_exact
from _report import environment, parser, print_environment, print_table, write_json
from _topn_batch import batch
from _topn_exact import Line, Scale, scale
from _topn_sides import PEERS, find_peers

from fmknn.errors import DataNotFoundError

SECTIONS: dict[str, Callable[[Scale], Iterator[Line]]] = {
    "small": _topn_exact.small,
    "middle": _topn_exact.middle,
    "large": _topn_exact.large,
    "dispersed": _topn_exact.dispersed,
    "trained": _topn_exact.trained,
    "single": _topn_exact.single,
    "threads": _topn_exact.threads,
    "share": _topn_exact.share,
    "approximate": _topn_approximate.tuned,
    "settings": _topn_approximate.settings,
    "batch": batch,
}
BY_NAME_ONLY = ("settings", "batch")  # long
NEEDS_DATA = ("trained",)  # no part of a quick run


def main() -> None:
    """Measure, print, and write JSON and plots if asked to."""
    options = parser(__doc__)
    options.add_argument(
        "--only", metavar="SECTION,…", help=f"some sections of: {', '.join(SECTIONS)}"
    )
    options.add_argument("--plots", metavar="FOLDER", help="draw what was measured into PNG files")
    arguments = options.parse_args()
    default = [name for name in SECTIONS if name not in BY_NAME_ONLY]
    if arguments.quick:
        default = [name for name in default if name not in NEEDS_DATA]
    chosen = default if arguments.only is None else arguments.only.split(",")
    for name in chosen:
        if name not in SECTIONS:
            options.error(f"no section {name!r}: there are {', '.join(SECTIONS)}")

    facts = environment()
    peers = find_peers()
    print_environment({**facts, "implicit": peers["implicit"] or "not installed"})
    absent = [PEERS[name] for name, version in peers.items() if version is None]
    if absent:
        print(f"not to be imported, and left out: {', '.join(absent)} (pip install 'fmknn[bench]')")
    run = scale(arguments.quick, {name for name, version in peers.items() if version is not None})

    lines: dict[str, list[Line]] = {name: [] for name in chosen}
    for name in chosen:
        start = time.perf_counter()
        try:
            for line in SECTIONS[name](run):
                lines[name].append(line)
                print(f"{line.summary()} ({time.perf_counter() - start:.0f} s)", flush=True)
                start = time.perf_counter()
        except DataNotFoundError as error:
            sys.exit(f"{name}: {error}")
    print()
    print_table([line.cells() for section in lines.values() for line in section])
    if arguments.plots:
        from _topn_plots import draw

        draw(arguments.plots, lines)
    results = {name: [line._asdict() for line in section] for name, section in lines.items()}
    write_json(arguments.json, facts, peers=peers, results=results)


if __name__ == "__main__":
    main()
