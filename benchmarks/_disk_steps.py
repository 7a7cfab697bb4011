"""The steps of bench_disk.py, each run in a process of its own, so that its memory is its own."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import fmknn

ROWS_PER_FILE = 10_000_000
AT_ONCE = 1_000_000
N_PLANTED = 8  # factors
NOISE = 0.5
N_TEST = 500_000


class Memory:
    """Samples what the process holds: anonymous memory (its own), and mapped files beside it."""

    def __init__(self) -> None:
        self.anonymous = self.total = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            said = memory_now()
            self.anonymous = max(self.anonymous, said["RssAnon"])
            self.total = max(self.total, said["VmRSS"])

    def peaks(self) -> dict[str, float]:
        """End the sampling, and return the peaks in GB."""
        self._over.set()
        self._thread.join()
        total = max(self.total, memory_now()["VmHWM"])
        return {"anonymous GB": self.anonymous / 1e9, "total GB": total / 1e9}


def memory_now() -> dict[str, int]:
    """Return what Linux says of this process, in bytes."""
    wanted = ("RssAnon", "VmRSS", "VmHWM")
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in wanted}


def planted(n_users: int, n_items: int) -> tuple[np.ndarray, ...]:
    """Return factors and biases of users and items."""
    generator = np.random.default_rng(0)
    scale = np.float32(0.35)
    p = generator.standard_normal((n_users, N_PLANTED), dtype=np.float32) * scale
    q = generator.standard_normal((n_items, N_PLANTED), dtype=np.float32)
    b = generator.standard_normal(n_users, dtype=np.float32) * scale
    c = generator.standard_normal(n_items, dtype=np.float32) * scale
    return p, q, b, c


def draw(truth: tuple[np.ndarray, ...], n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return n rows (users, items, ratings); some items are far more popular than others."""
    p, q, b, c = truth
    generator = np.random.default_rng([1, seed])
    user = generator.integers(0, len(p), n)
    item = (len(q) * generator.random(n) ** 2).astype(np.int64)
    score = 3.5 + b[user] + c[item] + np.einsum("nf,nf->n", p[user], q[item])
    noise = NOISE * generator.standard_normal(n, dtype=np.float32)
    return user, item, (score + noise).astype(np.float32)


def external(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids under which the files know them."""
    return user * 7 + 1_000_003, item * 3 + 17


def generate(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write the Parquet files, a million rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    truth = planted(options["users"], options["items"])
    log = folder / "log"
    log.mkdir()
    schema = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("rating", pa.float32())])
    for first in range(0, options["ratings"], ROWS_PER_FILE):
        stop = min(first + ROWS_PER_FILE, options["ratings"])
        with pq.ParquetWriter(log / f"part-{first // ROWS_PER_FILE:04}.parquet", schema) as file:
            for start in range(first, stop, AT_ONCE):
                n = min(AT_ONCE, stop - start)
                user, item, rating = draw(truth, n, start // AT_ONCE)
                columns = [pa.array(column) for column in (*external(user, item), rating)]
                file.write_table(pa.table(columns, schema=schema))
    return {"parquet GB": bytes_in(log) / 1e9}


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prepare(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    fmknn.Interactions.from_parquet(
        folder / "log",
        folder / "prepared",
        user="user",
        item="item",
        value="rating",
        memory_limit=options["memory_limit"],
    )
    return {"disk GB": bytes_in(folder / "prepared") / 1e9}


def reopen(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    fmknn.Interactions.open(folder / "prepared")
    return {}


def estimator(options: dict[str, Any], solver: str) -> Any:
    n_iter = options["iterations"]
    # so few sweeps want a wide start
    chain = fmknn.Gibbs(n_iter, burn_in=n_iter - 2, n_kept_samples=2, init_sigma=0.3)
    config = fmknn.ALS(n_iter=n_iter) if solver == "als" else chain
    return fmknn.FMRegressor(
        options["factors"],
        solver=config,
        random_state=0,
        n_jobs=options["n_jobs"],
        callbacks=[options["clock"]],
    )


class Clock:
    """A callback that takes the CPU seconds of each iteration."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self._last = time.process_time()

    def begin(self) -> None:
        self._last = time.process_time()

    def __call__(self, step: Any) -> None:
        now = time.process_time()
        self.cpu.append(now - self._last)
        self._last = now


def compile_kernels() -> None:
    """Let numba load what training needs: that is measured elsewhere."""
    rows, _ = fmknn.datasets.make_interactions(n_users=50, n_items=30, n_ratings=500)
    for solver in ("als", "mcmc"):
        fmknn.FMRegressor(2, solver=solver, n_iter=1).fit(rows.without_features())


def train(folder: Path, options: dict[str, Any], solver: str, in_memory: bool) -> dict[str, Any]:
    """Fit, and say how long an iteration takes and how far from the truth predictions are."""
    rows = fmknn.Interactions.open(folder / "prepared")
    if in_memory:
        rows = rows.take(np.arange(len(rows)))
    compile_kernels()
    options["clock"] = Clock()
    model = estimator(options, solver).fit(rows)
    user, item, rating = draw(planted(options["users"], options["items"]), N_TEST, 10**6)
    user, item = external(user, item)
    places = rows.users.positions(user, unknown="mark"), rows.items.positions(item, unknown="mark")
    known = (places[0] >= 0) & (places[1] >= 0)
    test = fmknn.Interactions(rows.users, rows.items, *(place[known] for place in places))
    error = model.linear_predictor(test) - rating[known]
    return {
        "seconds per iteration": float(np.median(_seconds(model))),
        "CPU seconds per iteration": float(np.median(options["clock"].cpu)),
        "training RMSE": model.history_[-1]["train_rmse"],
        "RMSE": float(np.sqrt((error**2).mean())),
        "fingerprint": _fingerprint(model),
    }


def _fingerprint(model: Any) -> str:
    import hashlib

    *_, last = model.params_.samples()
    return hashlib.sha256(last.w.tobytes() + last.V.tobytes()).hexdigest()[:16]


def recommend(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Fit a Recommender, and ask it."""
    compile_kernels()
    rows = fmknn.Interactions.open(folder / "prepared")
    options |= {"clock": Clock(), "iterations": 2}
    model = fmknn.Recommender(estimator(options, "als")).fit(rows)
    model.recommend(rows.users.ids[:1000], n=10)
    return {"seconds per iteration": float(np.median(_seconds(model.estimator_)))}


def _seconds(model: Any) -> list[float]:
    return [step["seconds"] for step in model.history_]


STEPS: dict[str, Any] = {
    "generate": generate,
    "prepare": prepare,
    "open": reopen,
    "als from disk": lambda folder, options: train(folder, options, "als", False),
    "als in memory": lambda folder, options: train(folder, options, "als", True),
    "mcmc from disk": lambda folder, options: train(folder, options, "mcmc", False),
    "mcmc in memory": lambda folder, options: train(folder, options, "mcmc", True),
    "Recommender from disk": recommend,
}


def main() -> None:
    """Run one step and print what was measured as JSON."""
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    limit = options["limit"]
    if limit:  # of memory that is no mapped file: what goes beyond it is refused
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9),) * 2)
    memory = Memory()
    began, cpu = time.perf_counter(), time.process_time()
    found = STEPS[name](folder, options)
    spent = {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - cpu}
    print(json.dumps({"step": name, **spent, **memory.peaks(), **found}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
