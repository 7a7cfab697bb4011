"""Rows per CPU second of training by Adam, against the same model in PyTorch.

Both sides train w0 + w_u + w_i + <V_u, V_i> on the same 90 % of MovieLens 1M (from $FMKNN_DATA or
the cache folder; planted ratings of the same shape otherwise), shuffled anew in each epoch, on one
thread, with the same batch size, learning rates and initial spread, and no decay. Epochs of all
sides alternate, so that what else the machine does falls on all alike; the first epoch of each is
not counted. CPU time is the whole process's, all threads included; compile time is measured apart.
Denormal numbers are flushed to zero, or Adam on all rows would crawl through the moments of the
rare ones.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

import numpy as np
from _report import environment, parser, print_environment, print_table, spread, write_json, yes_no
from threadpoolctl import threadpool_limits

import fmknn

try:
    import torch
    from _torch_fm import COMPILED, PEERS, Ratings, Settings
except ImportError:
    torch = None

OURS = "fmknn"
WARM_UP_ROWS = 20_000
TARGET = 4.0  # times the rows per CPU second of PyTorch's module and optimizer
RATES = {"bias_lr": 0.01, "linear_lr": 0.003, "factors_lr": 0.003}
INIT_SIGMA = 0.05


class Run(NamedTuple):
    """What one side did: CPU and wall seconds of each counted epoch, and the error at the end."""

    cpu: list[float]
    wall: list[float]
    rmse: float


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=6, help="epochs, one of them not counted")
    options.add_argument("--k", type=int, nargs="+", default=[8, 32], help="numbers of factors")
    options.add_argument("--batch", type=int, nargs="+", default=[500, 4096], help="batch sizes")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--compile", action="store_true", help="PyTorch compiled too: needs a C++ compiler"
    )
    arguments = options.parse_args()
    if arguments.epochs < 2:
        options.error("--epochs must be at least 2: the first one is not counted")
    if arguments.quick:
        arguments.epochs = min(arguments.epochs, 4)
    facts = environment()
    print_environment(facts)
    ratings, source = load(arguments.quick)
    train, test = fmknn.splits.random(ratings, test=0.1, random_state=arguments.seed)
    print(f"{source}: {len(train)} training rows, {len(test)} test rows; 1 thread")
    if torch is None:
        print("PyTorch is not installed: its side is skipped (pip install 'fmknn[bench]')")
    else:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)

    results = []
    with threadpool_limits(limits=1):
        seconds = warm_up(train)
        print(
            f"first epoch of {WARM_UP_ROWS} rows, compiling: {seconds['first']:.2f} s; "
            f"again, compiled: {seconds['again']:.3f} s\n",
            flush=True,
        )
        for k in arguments.k:
            for batch in arguments.batch:
                results.append(compare(train, test, k, batch, arguments))
    write_json(
        arguments.json,
        facts,
        source=source,
        rows=len(train),
        compile_seconds=seconds,
        target=TARGET,
        results=results,
    )


def load(quick: bool) -> tuple[fmknn.Interactions, str]:
    """Return ids and ratings alone, and where they are from."""
    if not quick:
        try:
            ratings = fmknn.datasets.load_movielens("1m", download=False)
            return ratings.without_features(), "MovieLens 1M"
        except fmknn.errors.DataNotFoundError:
            pass
    n = 200_000 if quick else 1_000_209
    ratings = fmknn.datasets.make_interactions(
        6040,
        3883,
        n,
        user_features=False,
        item_features=False,
        rating_scale=(1, 5),
        random_state=0,
        return_truth=False,
    )
    why = "--quick" if quick else "MovieLens 1M was not found"
    return ratings, f"planted ratings of the shape of MovieLens 1M ({why})"


def estimator(k: int, batch: int, epochs: int, seed: int, callbacks: Any = ()) -> Any:
    """Our side."""
    solver = fmknn.Adam(
        epochs=epochs,
        mini_batch_size=batch,
        **RATES,
        lr_schedule="constant",
        linear_wd=0.0,
        factors_wd=0.0,
        factors_init_sigma=INIT_SIGMA,
        damp_above=None,
    )
    return fmknn.FMRegressor(k, solver=solver, random_state=seed, callbacks=callbacks)


def warm_up(train: fmknn.Interactions) -> dict[str, float]:
    """Seconds of a short training, the first time, which compiles or loads code, and again."""
    few = train.take(np.arange(min(len(train), WARM_UP_ROWS)))
    seconds = {}
    for name in ("first", "again"):
        start = time.perf_counter()
        estimator(8, 500, 1, 0).fit(few)
        seconds[name] = time.perf_counter() - start
    return seconds


def compare(
    train: fmknn.Interactions,
    test: fmknn.Interactions,
    k: int,
    batch: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train all sides, epoch by epoch in turn; print the table and return it."""
    runs = alternate(train, test, k, batch, arguments)
    ours = runs[OURS]
    rows = []
    for name, run in runs.items():
        ratios = [b / a for a, b in zip(ours.cpu, run.cpu, strict=True)]
        rates = spread([len(train) / seconds for seconds in run.cpu])
        rows.append(
            {
                "side": name if name == OURS else f"torch: {name}",
                "rows/CPU s": round(rates["median"]),
                "min": round(rates["min"]),
                "max": round(rates["max"]),
                "ns/row": 1e9 / rates["median"],
                "CPU/wall": sum(run.cpu) / sum(run.wall),
                "fmknn faster by": statistics.median(ratios),
                "test RMSE": run.rmse,
            }
        )
    print(f"k={k}, batch={batch}, {arguments.epochs} epochs, {len(ours.cpu)} of them counted")
    print_table(rows)
    verdict = best_peers(rows)
    for what, (side, ratio) in verdict.items():
        at_least = f"at least {TARGET:g} x: {yes_no(ratio >= TARGET)}"
        print(f"against the fastest {what} ({side}): {ratio:.2f} x; {at_least}")
    limit = floor(train, k, batch)
    print(
        f"floor: {limit['entities per row']:.2f} distinct entities per row; "
        f"{limit['bytes per row']:.0f} bytes and {limit['flops per row']:.0f} flops per row; "
        f"copying as many bytes takes {limit['copy ns per row']:.0f} ns, "
        f"fmknn {rows[0]['ns/row']:.0f} ns\n",
        flush=True,
    )
    return {
        "k": k,
        "batch": batch,
        "table": rows,
        "best": verdict,
        "floor": limit,
        "runs": {name: run._asdict() for name, run in runs.items()},
    }


def alternate(
    train: fmknn.Interactions,
    test: fmknn.Interactions,
    k: int,
    batch: int,
    arguments: argparse.Namespace,
) -> dict[str, Run]:
    """Train on both sides: after each epoch of ours, one of each peer."""
    low, high = float(train.values.min()), float(train.values.max())
    mean, deviation = float(train.values.mean()), float(train.values.std())
    peers = {}
    if torch is not None:
        shape = len(train.users), len(train.items)
        settings = Settings(
            k, batch, RATES["bias_lr"], RATES["factors_lr"], INIT_SIGMA, arguments.seed
        )
        targets = (train.values - mean) / deviation
        data = Ratings.of(train.user_index, train.item_index, targets, shape)
        makers = {**PEERS, **COMPILED} if arguments.compile else PEERS
        for make in makers.values():
            make(data.head(WARM_UP_ROWS), settings).epoch()
        peers = {name: make(data, settings) for name, make in makers.items()}
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in (OURS, *peers)}
    began = now()

    def after_epoch(step: Any) -> None:
        nonlocal began
        clocks[OURS].append(since(began))
        for name, peer in peers.items():
            start = now()
            peer.epoch()
            clocks[name].append(since(start))
        began = now()

    model = estimator(k, batch, arguments.epochs, arguments.seed, [after_epoch]).fit(train)
    predictions = {OURS: model.predict(test)}
    if peers:
        data = Ratings.of(test.user_index, test.item_index, test.values, shape)
        for name, peer in peers.items():
            predictions[name] = np.clip(
                mean + deviation * peer.scores(data.pairs).numpy(), low, high
            )
    return {
        name: Run(
            [cpu for cpu, _ in clocks[name][1:]],
            [wall for _, wall in clocks[name][1:]],
            float(np.sqrt(np.mean((predicted - test.values) ** 2))),
        )
        for name, predicted in predictions.items()
    }


def now() -> tuple[float, float]:
    """CPU seconds of this process, all threads, and wall seconds."""
    return time.process_time(), time.perf_counter()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """CPU and wall seconds since ``start``."""
    cpu, wall = now()
    return cpu - start[0], wall - start[1]


def best_peers(rows: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """The fastest peer of each way of writing it: name, and how much faster we are."""
    best = {}
    ways = ("autograd", "closed form", "compiled autograd", "compiled closed form")
    for what in ways:
        sides = [row for row in rows if row["side"].startswith(f"torch: {what}")]
        if sides:
            fastest = max(sides, key=lambda row: row["rows/CPU s"])
            best[what] = (fastest["side"], fastest["fmknn faster by"])
    return best


def floor(train: fmknn.Interactions, k: int, batch: int) -> dict[str, float]:
    """What training has to move and compute per row at the least, and how long a copy takes.

    Per row: its number, two entities and a target are read (20 bytes); the score takes about 2k
    operations, the gradients of two vectors 4k. Per distinct entity of the batch: k + 1 parameters
    and their two moments are read and written (24 bytes each), with about 14 operations, a root
    and a division among them. The copy is one of as many bytes as all parameters and moments take,
    from end to end; training reads and writes them in random order.
    """
    order = np.random.default_rng(0).permutation(len(train))
    n_entities = 0
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        n_entities += len(np.unique(train.user_index[rows])) + len(
            np.unique(train.item_index[rows])
        )
    per_row = n_entities / len(order)
    n_bytes = 20 + per_row * 24 * (k + 1)
    source = np.zeros(3 * (len(train.users) + len(train.items)) * (k + 1), np.float32)
    target = np.empty_like(source)
    seconds = []
    for _ in range(50):
        start_time = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start_time)
    copied = source.nbytes + target.nbytes  # read and written
    return {
        "entities per row": per_row,
        "bytes per row": n_bytes,
        "flops per row": 6 * k + per_row * 14 * (k + 1),
        "copy ns per row": 1e9 * n_bytes * statistics.median(seconds) / copied,
    }


if __name__ == "__main__":
    main()
