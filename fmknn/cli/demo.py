"""``fmknn demo``: the whole road on MovieLens 100K, one library call per step, each one timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..data.interactions import Interactions
from ..datasets import load_movielens
from ..estimators import FMRegressor
from ..index.base import ItemLists
from ..index.exact import ExactIndex
from ..metrics import rmse
from ..model.projection import item_matrix, user_matrix
from ..serving.sinks import write_json_lines
from ..serving.topn import TopN

__all__ = ["run"]

_N = 100  # films per user
_USER, _SHOWN = 1, 10  # whose lists are printed, and how much of them
_COLUMN = 47  # characters; two columns side by side stay below 100
_LICENCE = """\
MovieLens 100K belongs to GroupLens, University of Minnesota: for research, not to be redistributed,
no commercial use without permission. To cite: F. M. Harper and J. A. Konstan, The MovieLens
Datasets, ACM TiiS 5(4), 2015, https://doi.org/10.1145/2827872"""


def run(
    out: str | os.PathLike[str],
    *,
    data_home: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> None:
    """Train on fold u1, project, index, recommend 100 films to everybody, and print how it went.

    Parameters
    ----------
    out : path-like
        Where the recommendations go: JSON lines, one per user.
    data_home : path-like, optional
        Where MovieLens is, see :func:`fmknn.datasets.load_movielens`.
    seed : int
        Of the training.

    Raises
    ------
    DataNotFoundError
        If MovieLens can't be had.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "get MovieLens 100K, fold u1"):
        train, test = load_movielens("100k", fold="u1", data_home=data_home)
    titles = _titles(train.item_features)
    # ids only: the matrices are then rows of the parameters themselves, [V_i, w_i] and [V_u, 1]
    train, test = train.without_features(), test.without_features()
    n_users, n_items, n_test = len(train.users), len(train.items), len(test)
    _say(
        f"{len(train):,} ratings by {n_users:,} users of {n_items:,} films, {n_test:,} more to test"
    )

    with _timed(seconds, "train a factorization machine"):
        model = FMRegressor(random_state=seed, progress=True).fit(train)
    with _timed(seconds, f"predict {n_test:,} test ratings"):
        error = rmse(test.values, model.predict(test))
    _say(f"test RMSE: {error:.4f}")

    with _timed(seconds, "project it into two matrices"):
        items = item_matrix(model.params_, slice(n_users, n_users + n_items))
        users, offsets = user_matrix(model.params_, slice(0, n_users), return_offset=True)
    n_samples = sum(1 for _ in model.params_.samples())
    _say(f"{n_samples} samples of V and w, those of a film or a user side by side")
    _say(
        f"item matrix [V_i, w_i]: {items.shape}, user matrix [V_u / {n_samples}, 1]: {users.shape}"
    )

    with _timed(seconds, "index the items"):
        index = ExactIndex().build(items)
    with _timed(seconds, f"find the top {_N} of {n_users:,} users"):
        seen = ItemLists.from_pairs(train.user_index, train.item_index, n_users)
        hits = index.search(users, _N, exclude=seen)
        top = TopN.of(train.users.ids, hits, offsets, train.items, lambda top: top.scores)
    with _timed(seconds, "write them as JSON lines"):
        write_json_lines([top], out)
    _say(f"recommendations: {os.fspath(out)}\n")

    _say(*_time_table(seconds))
    _say("Compilation, just in time and kept for later runs, counts in the step that needs it:")
    _say("in a first run it is most of training and search.\n")
    _say(*_side_by_side(_rated_best(train, titles), _recommended(top, titles)))
    _say(f"\n{_LICENCE}")


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # before what the progress bar says next


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - began


def _time_table(seconds: dict[str, float]) -> list[str]:
    rows = [*seconds.items(), ("in all", sum(seconds.values()))]
    width = max(len(step) for step, _ in rows)
    heading = f"{'step':<{width}}  seconds"
    return [heading, *(f"{step:<{width}}  {took:7.3f}" for step, took in rows)]


def _titles(films: Any) -> np.ndarray:
    pairs = zip(films["title"], films["year"], strict=True)
    return np.array([f"{title} ({year})" for title, year in pairs], dtype=object)


def _rated_best(train: Interactions, titles: np.ndarray) -> list[tuple[str, str]]:
    own = train.take(train.user_ids == _USER)
    stars = np.asarray(own.values)
    best = np.argsort(-stars, kind="stable")[:_SHOWN]
    lines = [(titles[own.item_index[row]], f"{stars[row]:.0f}") for row in best]
    return [(f"user {_USER} rated best", "stars"), *lines]


def _recommended(top: TopN, titles: np.ndarray) -> list[tuple[str, str]]:
    row = top.users.tolist().index(_USER)
    best = zip(top.positions[row, :_SHOWN], top.scores[row], strict=False)
    lines = [(titles[film], f"{score:.2f}") for film, score in best]
    return [(f"recommended to user {_USER}", "score"), *lines]


def _side_by_side(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> list[str]:
    return [f"{_cell(*a)}    {_cell(*b)}" for a, b in zip(left, right, strict=True)]


def _cell(text: str, number: str) -> str:
    room = _COLUMN - 7
    text = text if len(text) <= room else f"{text[: room - 1]}…"
    return f"{text:<{room}}  {number:>5}"
