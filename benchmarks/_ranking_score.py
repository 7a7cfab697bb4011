"""One measure for everybody: ranked lists against the rows to find, by the package's metrics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _ranking_data import Task, counts

from fmknn.metrics import hit_matrix, hit_rate_at, ndcg_at, recall_at

Rank = Callable[[np.ndarray, int], np.ndarray]
"""From user positions and a length to item positions, best first, -1 where there are no more."""
Scores = Callable[[np.ndarray], np.ndarray]
"""From user positions to a score of every item."""

MEASURES = {"ndcg": ndcg_at, "recall": recall_at, "hit_rate": hit_rate_at}
_CHUNK = 1024


def measure(task: Task, rank: Rank) -> dict[str, float]:
    """Return the task's metrics, each the mean over the users with a row to find."""
    relevant = counts(task.test)
    users = np.flatnonzero(np.diff(relevant.indptr))
    names = {metric: metric.split("@") for metric in task.metrics}
    longest = max(int(k) for _, k in names.values())
    found: dict[str, list[np.ndarray]] = {metric: [] for metric in names}
    for start in range(0, len(users), _CHUNK):
        asked = users[start : start + _CHUNK]
        wanted = relevant[asked]
        hits = hit_matrix(rank(asked, longest), wanted.indptr, wanted.indices)
        for metric, (kind, k) in names.items():
            found[metric].append(MEASURES[kind](hits, np.diff(wanted.indptr), int(k)))
    return {metric: float(np.concatenate(values).mean()) for metric, values in found.items()}


def by_scores(task: Task, scores: Scores) -> Rank:
    """Return the ranking by scores, without what a user has in training if the task says so."""
    seen = counts(task.train)

    def rank(users: np.ndarray, n: int) -> np.ndarray:
        values = np.array(scores(users), np.float32)
        if task.exclude_seen:
            rows = seen[users]
            values[np.repeat(np.arange(len(users)), np.diff(rows.indptr)), rows.indices] = -np.inf
        best = np.sort(np.argpartition(values, -n, axis=1)[:, -n:], axis=1)
        offered = np.take_along_axis(values, best, axis=1)
        order = np.argsort(-offered, axis=1, kind="stable")  # of equal scores the first item
        ranked = np.take_along_axis(best, order, axis=1)
        return np.where(np.take_along_axis(offered, order, axis=1) > -np.inf, ranked, -1)

    return rank
