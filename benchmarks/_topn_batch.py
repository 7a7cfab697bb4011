"""The section of ``bench_topn.py`` about everybody's lists: time and memory in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _report import yes_no
from _topn_data import Work, fm_like
from _topn_exact import Line, Scale
from _topn_measure import Oracle

import fmknn

MIB = 2**20
_LIMIT = 600  # MiB
_MEAN_SEEN = 20
_CHECKED = 32


def batch(run: Scale) -> Iterator[Line]:
    """recommend_all into a Parquet folder: seconds, and memory above that of the loaded model."""
    name = f"recommend_all: {run.batch_users:,} users x top 100, {run.middle:,} items x 33, Parquet"
    missing = "pyarrow is not installed" if find_spec("pyarrow") is None else None
    if not Path("/proc/self/status").exists():
        missing = "only Linux tells the resident memory"
    if missing:
        yield Line(name, {}, None, f"<= {_LIMIT} MiB", "-", "-", f"skipped: {missing}", {})
        return
    with tempfile.TemporaryDirectory() as folder:
        asked = _save_model(run, Path(folder) / "model.fmknn")
        command = [sys.executable, __file__, folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        wrong = _check(Path(folder) / "lists", asked, run.batch_users)
    above = facts["MiB at the peak"] - facts["MiB of the model"]
    beside = "; ".join(
        [
            f"{above:.0f} MiB above the loaded model's {facts['MiB of the model']:.0f}",
            f"{facts['s']:.0f} s wall, {facts['CPU s']:.0f} s CPU",
            f"{facts['MiB on disk']:.0f} MiB on disk",
        ]
    )
    rates = {"fmknn": run.batch_users / facts["CPU s"]}
    met = yes_no(above <= _LIMIT and wrong is None)
    exact = "yes" if wrong is None else f"no: {wrong}"
    yield Line(name, rates, None, f"<= {_LIMIT} MiB", met, exact, beside, facts)


def _save_model(run: Scale, path: Path) -> tuple[np.ndarray, Work]:
    """Write a model of random parameters; return some users, and what their lists are made of."""
    n_users, n_items = run.batch_users, run.middle
    items, users = fm_like(n_items, 33, n_users)
    random = np.random.default_rng(0)
    user = random.integers(n_users, size=_MEAN_SEEN * n_users)
    item = (n_items * random.random(len(user)) ** 2).astype(np.int64)
    weights = np.concatenate([np.zeros(n_users, np.float32), items[:, -1]])
    params = fmknn.FMParams(0.0, weights, np.concatenate([users, items])[:, :-1])
    fmknn.Recommender.from_params(
        params,
        users=np.arange(n_users),
        items=np.arange(n_items),
        seen=(user, item),
        loss="whole-data",
    ).save(path)
    some = np.linspace(0, n_users - 1, _CHECKED).astype(np.int64)
    lists = fmknn.ItemLists.from_pairs(user, item, n_users).take(some)
    return some, Work("lists", items, users[some], 100, lists)


def _check(folder: Path, asked: tuple[np.ndarray, Work], n_users: int) -> str | None:
    """Return what is wrong with the rows that were written, or None."""
    import pyarrow.dataset

    parts = [str(path) for path in sorted(folder.glob("**/*.parquet"))]
    rows = pyarrow.dataset.dataset(parts)
    if rows.count_rows() != 100 * n_users:
        return f"{rows.count_rows():,} rows"
    users, work = asked
    of_these = rows.to_table(filter=pyarrow.dataset.field("user").isin(users.tolist()))
    user, item, score, rank = (
        of_these[name].to_numpy() for name in ("user", "item", "score", "rank")
    )
    if len(user) != 100 * len(users):
        return "the users of the rows"
    order = np.lexsort((rank, user))
    found = item[order].reshape(-1, 100), score[order].reshape(-1, 100)
    return None if Oracle(work, len(users)).agrees(found) else "lists"


def run_batch(folder: Path) -> None:
    """Load the model, write all lists, and print seconds and memory as JSON."""
    model = fmknn.load(folder / "model.fmknn")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is taken from here on: proc(5)
    before, wall, cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
    model.recommend_all(100, to=f"{folder / 'lists'}/")
    facts = {
        "s": time.perf_counter() - wall,
        "CPU s": time.process_time() - cpu,
        "MiB of the model": before,
        "MiB at the peak": _status("VmHWM"),
        "MiB on disk": sum(p.stat().st_size for p in (folder / "lists").glob("**/*.parquet")) / MIB,
    }
    print(json.dumps(facts))


def _status(name: str) -> float:
    """A line of this process's status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    run_batch(Path(sys.argv[1]))
