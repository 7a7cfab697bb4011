"""The lists of ``bench_ranking.py``: every model of a task under one measure, and the search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import _ranking_ours
from _ranking_data import Task, counts, load, part_of, validation
from _ranking_ours import by_lists
from _ranking_peers import PEERS, of_task
from _ranking_score import Rank, by_scores, measure
from _ranking_settings import (
    OUR_GRIDS,
    OURS,
    PEER_GRIDS,
    PEER_SETTINGS,
    Ours,
    as_text,
    combinations,
)
from _report import Target, at_least

QUICK_USERS = 1_000  # of MovieLens 1M


class Section(NamedTuple):
    """What was measured, line by line, and the figures that are held against something."""

    lines: list[dict[str, Any]]
    targets: list[Target] = []  # noqa: RUF012


class Goal(NamedTuple):
    """A least value of a metric, for the best of some of our models (none named: of all)."""

    metric: str
    limit: float
    models: tuple[str, ...] = ()
    source: str = ""


GOALS = {
    "ml100k": [Goal("ndcg@10", 0.445, ("FMRanker",))],
    "ml1m": [
        Goal("ndcg@10", 0.426, ("FMRanker",)),
        Goal("recall@20", 0.276, ("FMRanker",)),
        Goal("ndcg@10", 0.4218, ("FMRanker, defaults",)),
        Goal("ndcg@10", 0.4354, source="EASE"),
    ],
    "gowalla": [
        Goal("recall@20", 0.172, ("FMRanker",)),
        Goal("recall@20", 0.1765, source="EASE, as BARS publishes it; LightGCN 0.182"),
        Goal("ndcg@20", 0.1467, source="EASE, as BARS publishes it; LightGCN 0.1554"),
    ],
    "ensfm": [
        Goal("hit_rate@5", 0.0601, source="ENSFM, as published"),
        Goal("hit_rate@10", 0.1024, source="ENSFM, as published"),
        Goal("hit_rate@20", 0.1690, source="ENSFM, as published"),
    ],
}
BEATEN = ("popularity", "item cosine", "implicit ALS")  # by ours, where purchases are ranked


def quality(name: str, peers: set[str], quick: bool) -> Section:
    """Measure all models of a task on its test rows."""
    task, theirs, ours = load(name), of_task(PEER_SETTINGS[name], peers), OURS[name]
    part = quick and name != "ml100k"
    if part:
        task = part_of(task, QUICK_USERS)
        theirs.pop("LightFM WARP", None)  # the slowest
        ours = dict(list(ours.items())[:1])
    lines = [
        _line(label, task, settings, _peer(task, label, settings))
        for label, settings in theirs.items()
    ]
    lines += [
        _line(label, task, _settings_of(one), _ours(task, one)) for label, one in ours.items()
    ]
    return Section(lines, [] if part else _targets(name, lines))


def search(name: str, peers: set[str]) -> list[dict[str, Any]]:
    """Measure the grids of a task on held-out training rows; of each model the best come first."""
    task = validation(load(name))
    lines: list[dict[str, Any]] = []

    def add(found: Iterable[dict[str, Any]]) -> None:
        lines.extend(sorted(found, key=lambda line: -line[task.metrics[0]]))

    for label, grid in of_task(PEER_GRIDS[name], peers).items():
        add(_line(label, task, one, _peer(task, label, one)) for one in combinations(grid))
    add(
        _line("FMRanker", task, settings, _ours(task, _from_settings(settings)))
        for settings in combinations(OUR_GRIDS[name])
    )
    return lines


def _from_settings(settings: dict[str, Any]) -> Ours:
    fields = {name: value for name, value in settings.items() if name in Ours._fields}
    solver = {name: value for name, value in settings.items() if name not in Ours._fields}
    return Ours(**fields, solver=solver)


def _settings_of(ours: Ours) -> dict[str, Any]:
    names = ("side_features", "history", "recency")
    beside = {name: getattr(ours, name) for name in names if getattr(ours, name)}
    return {"n_factors": ours.n_factors, **ours.solver, **beside}


def _line(
    label: str, task: Task, settings: dict[str, Any], fit: Callable[[], Rank]
) -> dict[str, Any]:
    start = time.process_time()
    rank = fit()
    seconds = time.process_time() - start
    return {
        "model": label,
        **measure(task, rank),
        "CPU s": seconds,
        "settings": as_text(settings),
    }


def _peer(task: Task, label: str, settings: dict[str, Any]) -> Callable[[], Rank]:
    train = counts(task.train)
    peer = PEERS[label](**settings)
    return lambda: by_scores(task, peer.fit(train).scores)


def _ours(task: Task, ours: Ours) -> Callable[[], Rank]:
    _ranking_ours.fit(part_of(task, 50), ours)  # not counted: compiles or loads code
    return lambda: by_lists(task, _ranking_ours.fit(task, ours))


def _targets(name: str, lines: list[dict[str, Any]]) -> list[Target]:
    of_model = {line["model"]: line for line in lines}
    made = [_target(name, goal, of_model) for goal in GOALS.get(name, [])]
    if name in GOALS:
        return made
    metric = "ndcg@20"
    limit = max(of_model[peer][metric] for peer in BEATEN if peer in of_model)
    return [_target(name, Goal(metric, round(limit, 4), source="the best peer"), of_model)]


def _target(name: str, goal: Goal, of_model: dict[str, dict[str, Any]]) -> Target:
    candidates = [model for model in goal.models or OURS[name] if model in of_model]
    best = max(candidates, key=lambda model: of_model[model][goal.metric], default=None)
    value = None if best is None else of_model[best][goal.metric]
    figure = f"{goal.metric}, {name}"
    if best is not None:
        figure += f", {best} ({of_model[best]['settings'].split(', ')[0]})"
    return at_least(figure, goal.limit, value, goal.source)
