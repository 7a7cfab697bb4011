"""How long the first call takes: import, first fit and recommend, with and without compiled code.

Each measurement is a fresh process. *Cold* means that numba's cache folder is empty, so that
everything is compiled; *warm* that an earlier process has filled it. The second fit and recommend
of the same process compile nothing: the difference is what compiling, loading and importing cost.
The exit code is 0 whether or not the budgets are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import environment, parser, print_environment, print_table, spread, write_json, yes_no

import fmknn

BUDGETS = {"import": 0.5, "warm": 3.0, "cold": 25.0}  # seconds

IMPORTS = {
    "python -c pass": "pass",
    "import numpy": "import numpy",
    "import fmknn": "import fmknn",
}

# What a newcomer's first script does, timed step by step. numpy reads the arrays, so it is loaded
# before the clock of "data" starts; fmknn imports the rest of what it needs where it needs it.
CHILD = """
import json, sys, time
begin = time.perf_counter()
import fmknn
imported = time.perf_counter()
import numpy as np
arrays = np.load(sys.argv[1])
users, items, values = (arrays[name] for name in ("users", "items", "values"))
steps = {"import": imported - begin}

def timed(name, work):
    start = time.perf_counter()
    result = work()
    steps[name] = time.perf_counter() - start
    return result

ratings = timed("data", lambda: fmknn.Interactions.from_arrays(users, items, values))
def model():
    return fmknn.Recommender(fmknn.FMRegressor(random_state=0))
first = timed("fit", lambda: model().fit(ratings))
timed("recommend", lambda: first.recommend(first.users.ids, n=10))
again = timed("second fit", lambda: model().fit(ratings))
timed("second recommend", lambda: again.recommend(again.users.ids, n=10))
print(json.dumps(steps))
"""


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--imports", type=int, default=7, help="processes per import")
    options.add_argument("--warm", type=int, default=5, help="processes with a warm cache")
    options.add_argument("--cold", type=int, default=2, help="processes with an empty cache")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.imports, arguments.warm, arguments.cold = 3, 2, 1
    facts = environment()
    print_environment(facts)

    imports = measure_imports(arguments.imports)
    print_table([{"process": name, **seconds} for name, seconds in imports.items()])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "ratings.npz"
        print(save_ratings(data))
        cold = [first_call(data, Path(folder) / f"cache{i}") for i in range(arguments.cold)]
        warm = [first_call(data, Path(folder) / "cache0") for _ in range(arguments.warm)]
    calls = {"cold": summary(cold), "warm": summary(warm)}
    print("seconds, medians; process: from start to end of it, less the second fit and recommend")
    print_table(
        [
            {"cache": name, "processes": len(runs), **medians}
            for (name, medians), runs in zip(calls.items(), (cold, warm), strict=True)
        ]
    )
    print(f"compiling: {calls['cold']['process'] - calls['warm']['process']:.2f} s (cold - warm)\n")

    # what fmknn adds to a bare interpreter, numpy included
    bare = imports["python -c pass"]["median"]
    seconds = {
        "import": imports["import fmknn"]["median"] - bare,
        "warm": calls["warm"]["process"],
        "cold": calls["cold"]["process"],
    }
    for name, limit in BUDGETS.items():
        kept = yes_no(seconds[name] < limit)
        print(f"{name:>6}: {seconds[name]:.3f} s, budget {limit:g} s; within budget: {kept}")
    write_json(
        arguments.json,
        facts,
        imports=imports,
        calls=calls,
        budgets=BUDGETS,
        measured=seconds,
        runs={"cold": cold, "warm": warm},
    )


def measure_imports(repeats: int) -> dict[str, dict[str, float]]:
    """Seconds that fresh processes take, one kind after the other, round by round."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for code in IMPORTS.values():  # not counted: files come into the system's cache
        process_seconds([sys.executable, "-c", code])
    for _ in range(repeats):
        for name, code in IMPORTS.items():
            times[name].append(process_seconds([sys.executable, "-c", code])[0])
    return {name: spread(seconds) for name, seconds in times.items()}


def save_ratings(path: Path) -> str:
    """Write a small planted data set as plain arrays; returns what it is."""
    import numpy as np

    ratings = fmknn.datasets.make_interactions(
        1000,
        500,
        20_000,
        user_features=False,
        item_features=False,
        rating_scale=(1, 5),
        random_state=0,
        return_truth=False,
    )
    np.savez(path, users=ratings.user_ids, items=ratings.item_ids, values=ratings.values)
    return f"first call: {ratings!r}, default FMRegressor, top 10 for all users"


def first_call(data: Path, cache: Path) -> dict[str, float]:
    """Seconds of each step in a fresh process that keeps compiled code in ``cache``."""
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    total, output = process_seconds([sys.executable, "-c", CHILD, str(data)], environ)
    steps: dict[str, float] = json.loads(output)
    return {**steps, "process": total - steps["second fit"] - steps["second recommend"]}


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each step over the runs."""
    return {step: spread([run[step] for run in runs])["median"] for step in runs[0]}


def process_seconds(command: list[str], environ: Any = None) -> tuple[float, str]:
    """Run a process; returns how long it took and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
