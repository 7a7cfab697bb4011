"""Training from disk: 100 million ratings, 32 factors, at most 6 GB of memory.

Planted ratings are written as Parquet files, prepared by ``Interactions.from_parquet``, and trained
on by ALS and by Gibbs sampling. Each step is a process of its own: peaks are those of the step,
its anonymous memory (what it holds itself) apart from the total, which counts mapped files that the
system may take back at any time. No step may hold more than the limit, which the system enforces.
The same is measured at a size that fits, where training in memory is beside it: the fingerprints of
the parameters must agree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _report import environment, parser, print_environment, print_table, write_json

HERE = Path(__file__).parent
BOTH = ("als from disk", "als in memory", "mcmc from disk", "mcmc in memory")
LARGE = ("als from disk", "mcmc from disk", "Recommender from disk")
SIZES = ("parquet GB", "disk GB")
COLUMNS = (
    "seconds",
    "CPU seconds",
    "seconds per iteration",
    "CPU seconds per iteration",
    "anonymous GB",
    "total GB",
    "training RMSE",
    "RMSE",
)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--ratings", type=int, default=100_000_000)
    options.add_argument("--compared", type=int, default=10_000_000, help="ratings that fit")
    options.add_argument("--users", type=int, default=500_000)
    options.add_argument("--items", type=int, default=50_000)
    options.add_argument("--factors", type=int, default=32)
    options.add_argument("--iterations", type=int, default=10)
    options.add_argument("--n-jobs", type=int, default=-1)
    options.add_argument("--memory-limit", default="2GB", help="of sorting")
    options.add_argument("--limit", type=float, default=6.0, help="GB of each step; 0: none")
    options.add_argument("--folder", help="where to work; 30 bytes of room for each rating")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.ratings, arguments.compared = 400_000, 200_000
        arguments.users, arguments.items, arguments.factors = 5_000, 1_000, 8
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    said = {**environment(), "settings": settings}
    print_environment(said)
    results = []
    for n, steps in ((arguments.compared, BOTH), (arguments.ratings, LARGE)):
        folder = Path(tempfile.mkdtemp(prefix="bench_disk-", dir=arguments.folder))
        try:
            results += measure(folder, {**settings, "ratings": n}, steps)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    require_same(results)
    write_json(arguments.json, said, results=results)


def measure(folder: Path, options: dict[str, Any], steps: tuple[str, ...]) -> list[dict[str, Any]]:
    """Run all steps on data of one size, and print what they took."""
    found = []
    for step in ("generate", "prepare", "open", *steps):
        command = [sys.executable, str(HERE / "_disk_steps.py"), step, str(folder)]
        done = subprocess.run([*command, json.dumps(options)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{step}: {done.stderr}")
        found.append({"ratings": options["ratings"], **json.loads(done.stdout.splitlines()[-1])})
    sizes = [f"{name} {step[name]:.2f}" for step in found for name in SIZES if name in step]
    print(f"{options['ratings']:,} ratings, {options['factors']} factors; {', '.join(sizes)}")
    print_table(
        [{"step": step["step"]} | {name: step.get(name) for name in COLUMNS} for step in found]
    )
    return found


def require_same(results: list[dict[str, Any]]) -> None:
    """Say how training from disk compares, and stop if its bits are others."""
    by_step = {
        step["step"]: step for step in reversed(results) if "fingerprint" in step
    }  # those of the size that fits
    for solver in ("als", "mcmc"):
        disk, memory = by_step[f"{solver} from disk"], by_step[f"{solver} in memory"]
        if disk["fingerprint"] != memory["fingerprint"]:
            sys.exit(f"{solver}: training from disk gave other parameters")
        name = "CPU seconds per iteration"
        print(f"{solver}: the same bits; from disk {disk[name] / memory[name]:.2f} times the CPU")


if __name__ == "__main__":
    main()
