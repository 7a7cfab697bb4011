"""Errors of ``bench_fm_solvers.py``: on the published folds of MovieLens 100K, on a split of 1M."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from _fm_data import FOLDS, NO_SPLIT_1M, Split, load_1m, load_100k, matrices, rmse
from _fm_peers import MyFM, cmfrec_rmse, surprise_rmse
from _report import Target, at_most, skipped

import fmknn

BURN_IN = 5
ALS_GRID = {"n_factors": (4, 8), "l2_factors": (7.0, 8.0, 10.0), "l2_linear": (2.0, 5.0)}
ALS_SWEEPS = 40
TEST_ROWS = 20_000  # of each of the folds


def mcmc(k: int, n_iter: int, init_sigma: float = 0.1, **settings: Any) -> fmknn.FMRegressor:
    """Return our sampler; all samples after the first few are kept, as myFM does."""
    solver = fmknn.Gibbs(
        n_iter=n_iter, burn_in=BURN_IN, n_kept_samples=n_iter, init_sigma=init_sigma
    )
    return fmknn.FMRegressor(k, solver=solver, random_state=0, **settings)


def our_rmse(split: Split, model: fmknn.FMRegressor) -> float:
    """Return the error on the test rows after training on the others."""
    return rmse(model.fit(split.train).predict(split.test), split.test)


def myfm_rmse(split: Split, k: int, n_iter: int) -> float:
    """Return myFM's error, on the same columns in the same groups."""
    blocks = matrices(split)
    model = MyFM(k, n_iter).fit_blocks(blocks, split.train.values)
    return rmse(model.predict_blocks(blocks), split.test)


def named(values: Mapping[str, float]) -> str:
    """Return figures with their names as text."""
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def quality_100k(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 100K, ids alone."""
    splits = {fold: load_100k(fold) for fold in FOLDS}
    ours = {fold: our_rmse(split, mcmc(8, 100)) for fold, split in splits.items()}
    sides: dict[str, tuple[str, Callable[[Split], float]]] = {
        "myFM": ("myFM", lambda split: myfm_rmse(split, 8, 100)),
        "Surprise SVD": ("Surprise", lambda split: surprise_rmse(split, "SVD")),
        "Surprise SVD++": ("Surprise", lambda split: surprise_rmse(split, "SVDpp")),
        "cmfrec": ("cmfrec", lambda split: cmfrec_rmse(split, 8)),
    }
    if quick:
        del sides["Surprise SVD++"]  # the slowest
    compared = ("u1",) if quick else FOLDS
    theirs = {
        name: statistics.mean(error(splits[fold]) for fold in compared)
        for name, (peer, error) in sides.items()
        if peer in peers
    }
    if quick:
        beside = f"u1 alone: {named({'fmknn': ours['u1'], **theirs})}"
    else:
        beside = named(theirs)
    als, settings = tuned_als(splits["u1"].train)
    return [
        at_most(
            "RMSE, 100K u1..u5, ids, mcmc k=8, 100 sweeps",
            0.900,
            statistics.mean(ours.values()),
            beside,
        ),
        at_most("RMSE, 100K u1, ids, als", 0.922, our_rmse(splits["u1"], als), settings),
    ]


def tuned_als(train: fmknn.Interactions) -> tuple[fmknn.FMRegressor, str]:
    """Return ALS as it does best on training rows of u1 that are held out, and its settings.

    Those rows are what u2 to u5 test, one fold after the other; each is held out in turn.
    """
    part = np.arange(len(train)) // TEST_ROWS
    held_out = [Split(train.take(part != i), train.take(part == i)) for i in range(4)]

    def model(values: Sequence[float]) -> fmknn.FMRegressor:
        k, l2_factors, l2_linear = values
        solver = fmknn.ALS(n_iter=ALS_SWEEPS, l2_factors=l2_factors, l2_linear=l2_linear)
        return fmknn.FMRegressor(int(k), solver=solver, random_state=0)

    def error(values: Sequence[float]) -> float:
        return statistics.mean(our_rmse(split, model(values)) for split in held_out)

    best = min(itertools.product(*ALS_GRID.values()), key=error)
    chosen = ", ".join(f"{name}={value:g}" for name, value in zip(ALS_GRID, best, strict=True))
    return model(best), f"{chosen} (by training rows)"


def quality_100k_features(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 100K with side features, histories and the day."""
    k, n_iter = 12, 300
    what = f"features, histories, day, k={k}, {n_iter} sweeps"
    ours, theirs = [], []
    for fold in FOLDS[:1] if quick else FOLDS:
        split = load_100k(fold, features=True)
        ours.append(our_rmse(split, mcmc(k, n_iter)))
        if "myFM" in peers and not quick:
            theirs.append(myfm_rmse(split, k, n_iter))
    first = {"myFM": theirs[0]} if theirs else {}
    lines = [at_most(f"RMSE, 100K u1, {what}", 0.881, ours[0], named(first))]
    if not quick:
        beside = {"aim": 0.875, **({"myFM": statistics.mean(theirs)} if theirs else {})}
        mean = statistics.mean(ours)
        lines.append(at_most(f"RMSE, 100K u1..u5, {what}", 0.877, mean, named(beside)))
    return lines


def quality_1m(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 1M, ids alone."""
    # a short chain with many factors is better off with a wider start
    settings = ((8, 100, 0.1, 0.841), (32, 100, 0.15, 0.833), (32, 300, 0.1, 0.830))
    split = load_1m()
    lines = []
    for k, n_iter, init_sigma, limit in settings:
        what = f"ids, mcmc k={k}, {n_iter} sweeps, init_sigma={init_sigma:g}"
        ours = mcmc(k, n_iter, init_sigma)
        lines.append(_line_1m(split, what, limit, ours, (k, n_iter), peers))
    return lines


def quality_1m_features(peers: set[str], quick: bool) -> list[Target]:
    """MovieLens 1M with side features and histories."""
    split, n_iter = load_1m(features=True), 250
    lines = []
    for k in (16, 32):
        what = f"features, histories, k={k}, {n_iter} sweeps"
        lines.append(_line_1m(split, what, 0.822, mcmc(k, n_iter), (k, n_iter), peers))
    return lines


def _line_1m(
    split: Split | None,
    what: str,
    limit: float,
    ours: fmknn.FMRegressor,
    myfm_settings: tuple[int, int],
    peers: set[str],
) -> Target:
    figure = f"RMSE, 1M r90, {what}"
    if split is None:
        return skipped(figure, f"<= {limit:g}", NO_SPLIT_1M)
    error = our_rmse(split, ours)
    theirs = {"myFM": myfm_rmse(split, *myfm_settings)} if "myFM" in peers else {}
    return at_most(figure, limit, error, named(theirs))
