"""Our side of ``bench_ranking.py``: FMRanker as its settings say, behind a Recommender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _ranking_data import Task
from _ranking_score import Rank, Scores
from _ranking_settings import Ours

import fmknn


def ranker(ours: Ours, callbacks: Sequence[Callable[[Any], Any]] = ()) -> Any:
    """Return the estimator, not yet fitted."""
    solver = {"solver": fmknn.WholeData(**ours.solver)} if ours.solver else {}
    return fmknn.FMRanker(ours.n_factors, random_state=0, callbacks=callbacks, **solver)


def training_rows(task: Task, ours: Ours) -> fmknn.Interactions:
    """Return what is learned from: ids alone, or features, histories and the age of rows too."""
    rows = task.train if ours.side_features else task.train.without_features()
    rows = rows.with_history() if ours.history else rows
    return rows.with_recency(ours.recency) if ours.recency else rows


def fit(task: Task, ours: Ours) -> fmknn.Recommender:
    """Train, and build the index."""
    return fmknn.Recommender(ranker(ours)).fit(training_rows(task, ours))


def by_lists(task: Task, model: fmknn.Recommender) -> Rank:
    """Return the ranking that the model's own index finds."""

    def rank(users: np.ndarray, n: int) -> np.ndarray:
        ids = task.train.users.ids[users]
        return model.recommend(ids, n, exclude_seen=task.exclude_seen).positions

    return rank


def scores_of(task: Task, params: Any) -> Scores:
    """Return the scores of a model of ids alone, up to what all items of a user have in common."""
    n_users = len(task.train.users)
    factors, biases = np.array(params.V), np.array(params.w[n_users:])  # training may go on
    users, items = factors[:n_users], factors[n_users:]

    def scores(asked: np.ndarray) -> np.ndarray:
        return users[asked] @ items.T + biases

    return scores
