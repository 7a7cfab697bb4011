"""Going on with later rows, against training anew: what is gained, and for how much of the time.

MovieLens by time: a model is trained on the first 90 % of the rows, then goes on with the last
10 %, some of whose users and items are new. Half of the late rows, drawn at random, are for
testing; of the early ones 2 % are, to see what is forgotten. Where a data set has no timestamps,
a tenth of the users and items come at random times, and rows some time after both. Training goes on
with the solver's settings for that, with old and new rows together, and by Adam and BPR with the
new ones alone as well. "refit" is a training from nothing on all rows; "partial_fit" is a
recommender's, with the passes that are its default, and the time it takes includes that of the
tables and the index. CPU seconds are of one thread, as a share of those
of the refit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _report import environment, parser, print_environment, print_table, write_json
from threadpoolctl import threadpool_limits

import fmknn
from fmknn import ALS, BPR, Adam, FMRanker, FMRegressor, Gibbs, WholeData
from fmknn.model.growth import grown

PASSES = (1, 2, 5, 10, 20)
RATINGS = {
    "adam": (FMRegressor(16, solver=Adam(), random_state=0), True),
    "adam, new rows alone": (FMRegressor(16, solver=Adam(), random_state=0), False),
    "als": (FMRegressor(8, solver=ALS(), random_state=0), True),
    "mcmc": (FMRegressor(8, solver=Gibbs(), random_state=0), True),
}
RANKINGS = {
    "whole-data": (FMRanker(32, solver=WholeData(), random_state=0), True),
    "bpr": (FMRanker(32, solver=BPR(), random_state=0), True),
    "bpr, new rows alone": (FMRanker(32, solver=BPR(), random_state=0), False),
}


class Rows(NamedTuple):
    """The parts of a data set, in one vocabulary."""

    old: fmknn.Interactions
    new: fmknn.Interactions
    both: fmknn.Interactions
    late_test: fmknn.Interactions
    early_test: fmknn.Interactions


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=["100k", "1m"], choices=["100k", "1m"])
    options.add_argument("--solver", nargs="+", default=[*RATINGS, *RANKINGS])
    options.add_argument("--passes", type=int, nargs="+", default=PASSES)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.data, arguments.passes = ["100k"], [1, 2]
    facts = environment()
    print_environment(facts)
    results = []
    with threadpool_limits(limits=1):
        for name in arguments.data:
            rows = by_time(fmknn.datasets.load_movielens(name).without_features())
            print(f"MovieLens {name}: {describe(rows)}\n", flush=True)
            warm_up(rows, arguments.solver)
            for solver in arguments.solver:
                lines = measure(rows, solver, arguments.passes)
                print_table(lines)
                results += [{"data": name, **line} for line in lines]
    write_json(arguments.json, facts, results=results)


def by_time(ratings: fmknn.Interactions) -> Rows:
    """Return the parts of the ratings."""
    rng = np.random.default_rng(0)
    times = ratings.timestamps
    if times is None:
        came = [
            np.maximum(0.0, rng.uniform(-9.0, 1.0, len(ids)))
            for ids in (ratings.users, ratings.items)
        ]
        both = np.maximum(came[0][ratings.user_index], came[1][ratings.item_index])
        times = rng.uniform(both, 1.0)
    order = np.argsort(times, kind="stable")
    early, late = np.split(order, [int(0.9 * len(order))])
    early, late = rng.permutation(early), rng.permutation(late)
    early_test, old = np.split(early, [len(early) // 50])
    late_test, new = np.split(late, [len(late) // 2])
    return Rows(
        *(
            ratings.take(part)
            for part in (old, new, np.concatenate([old, new]), late_test, early_test)
        )
    )


def describe(rows: Rows) -> str:
    """Return how many rows there are, and how many users and items are new."""
    new = [
        len(np.setdiff1d(getattr(rows.new, index), getattr(rows.old, index)))
        for index in ("user_index", "item_index")
    ]
    n_test = f"{len(rows.late_test)} + {len(rows.early_test)} for testing"
    return (
        f"{len(rows.old)} old rows, {len(rows.new)} new ones, {n_test}; "
        f"{new[0]} new users, {new[1]} new items"
    )


def warm_up(rows: Rows, solvers: list[str]) -> None:
    """Compile all that is measured."""
    few = rows.old.take(np.arange(2_000))
    for solver in solvers:
        estimator, _ = {**RATINGS, **RANKINGS}[solver]
        config = estimator.solver.with_n_iter(1)
        first = fit(estimator, few, config)[0]
        fit(estimator, few, config, first)


def fit(
    estimator: Any, rows: fmknn.Interactions, config: Any, start: Any = None
) -> tuple[Any, float]:
    """Return the model that a training ends with, and its CPU seconds."""
    copy = type(estimator)(**{**estimator.get_params(deep=False), "solver": config})
    began = time.process_time()
    copy.fit(rows, start=start)
    return copy.params_, time.process_time() - began


def measure(rows: Rows, solver: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return a line for the old model, one for each number of passes, and one for the refit."""
    estimator, takes_all = {**RATINGS, **RANKINGS}[solver]
    old, _ = fit(estimator, rows.old, estimator.solver)
    refit, full = fit(estimator, rows.both, estimator.solver)
    lines = [line_of(solver, "old", old, rows, 0.0, full)]
    for passes in numbers:
        config = estimator.solver.going_on(passes, alone=not takes_all)
        model, seconds = fit(estimator, rows.both if takes_all else rows.new, config, old)
        lines.append(line_of(solver, f"{passes} passes", model, rows, seconds, full))
    model, seconds = partial_fit(estimator, rows, takes_all)
    lines.append(line_of(solver, "partial_fit", model, rows, seconds, full))
    return [*lines, line_of(solver, "refit", refit, rows, full, full)]


def partial_fit(estimator: Any, rows: Rows, takes_all: bool) -> tuple[Any, float]:
    """Return what a recommender of the old rows knows after the new ones, and the CPU seconds."""
    old, new = (
        fmknn.Interactions.from_arrays(part.user_ids, part.item_ids, part.values)
        for part in (rows.old, rows.new)
    )
    model = fmknn.Recommender(estimator).fit(old)
    began = time.process_time()
    model.partial_fit(new, known=old if takes_all else old.take([]))
    seconds = time.process_time() - began
    users, items = rows.both.users, rows.both.items
    places = users.positions(model.users.ids), len(users) + items.positions(model.items.ids)
    n_features = len(users) + len(items)
    return grown(model.estimator_.params_, np.concatenate(places), n_features), seconds


def line_of(
    solver: str, name: str, model: Any, rows: Rows, seconds: float, full: float
) -> dict[str, Any]:
    """Return the figures of a model as a line of the table."""
    ranks = solver in RANKINGS
    served = fmknn.Recommender.from_params(
        model,
        users=rows.both.users.ids,
        items=rows.both.items.ids,
        seen=rows.both,
        loss="bpr" if ranks else "squared",
    )
    if ranks:
        parts = {"ndcg@10": rows.late_test, "ndcg@10, early": rows.early_test}
        quality = {
            name: served.evaluate(part, "ndcg@10")["ndcg@10"] for name, part in parts.items()
        }
    else:
        parts = {"RMSE": rows.late_test, "RMSE, early": rows.early_test}
        quality = {name: served.evaluate(part, "rmse")["rmse"] for name, part in parts.items()}
    return {
        "solver": solver,
        "model": name,
        **{name: f"{value:.4f}" for name, value in quality.items()},
        "CPU s": f"{seconds:.2f}",
        "of a refit": f"{seconds / full:.1%}",
    }


if __name__ == "__main__":
    main()
