"""The settings of ``bench_ranking.py``: what each model is trained with, and what was tried.

``bench_ranking.py --search TASK`` measures a grid on held-out training rows. What is below is what
was best there; no test row had a part in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Ours(NamedTuple):
    """One of our models.

    Attributes
    ----------
    n_factors : int
    solver : dict
        Settings of fmknn.WholeData; without any, FMRanker is left as it comes.
    side_features, history : bool
        What is learned from beside the ids.
    recency : float
        Power of Interactions.with_recency; 0: all rows weigh alike.
    """

    n_factors: int
    solver: Mapping[str, Any]
    side_features: bool = False
    history: bool = False
    recency: float = 0.0


OURS: dict[str, dict[str, Ours]] = {
    "ml100k": {
        "FMRanker": Ours(64, {"alpha0": 0.58, "l2_factors": 0.011}),
        "FMRanker, defaults": Ours(64, {}),
    },
    "ml1m": {
        "FMRanker": Ours(64, {"alpha0": 0.42, "l2_factors": 0.006}),
        "FMRanker, defaults": Ours(64, {}),
        "FMRanker, larger": Ours(192, {"alpha0": 0.42, "l2_factors": 0.0065}),
        "FMRanker, features": Ours(
            128, {"alpha0": 0.42, "l2_factors": 0.007, "n_iter": 12}, side_features=True
        ),
    },
    "gowalla": {
        "FMRanker": Ours(256, {"alpha0": 0.008, "l2_factors": 0.006, "n_iter": 12}),
        "FMRanker, larger": Ours(512, {"alpha0": 0.008, "l2_factors": 0.005, "n_iter": 12}),
        "FMRanker, largest": Ours(1024, {"alpha0": 0.008, "l2_factors": 0.004, "n_iter": 10}),
    },
    "ensfm": {
        "FMRanker": Ours(64, {"alpha0": 2.4, "l2_factors": 0.0008, "n_iter": 8}),
        "FMRanker, attributes": Ours(
            64, {"alpha0": 1.0, "l2_factors": 0.0015, "n_iter": 20}, side_features=True
        ),
        "FMRanker, attributes, recency": Ours(
            64,
            {"alpha0": 2.4, "l2_factors": 0.0008, "n_iter": 12, "count_power": 1.0},
            side_features=True,
            recency=1.0,
        ),
    },
    "retail-new": {
        "FMRanker": Ours(256, {"alpha0": 0.62, "l2_factors": 0.0045, "n_iter": 8}, recency=0.8),
    },
    "retail-repeats": {
        "FMRanker": Ours(
            512,
            {"alpha0": 0.8, "l2_factors": 0.0018, "n_iter": 8, "count_power": 1.0},
            recency=0.5,
        ),
    },
}

PEER_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ml100k": {
        "popularity": {},
        "item cosine": {"neighbours": 10},
        "implicit ALS": {"factors": 32, "alpha": 4.0, "regularization": 30.0},
        "LightFM WARP": {"factors": 64, "epochs": 40, "learning_rate": 0.02},
        "EASE": {"l2": 500.0},
    },
    "ml1m": {
        "popularity": {},
        "item cosine": {"neighbours": 10},
        "implicit ALS": {"factors": 64, "alpha": 4.0, "regularization": 60.0},
        "LightFM WARP": {"factors": 64, "epochs": 40, "learning_rate": 0.02},
        "EASE": {"l2": 1000.0},
    },
    "gowalla": {
        "popularity": {},
        "implicit ALS": {"factors": 256, "alpha": 100.0, "regularization": 100.0},
    },
    "ensfm": {
        "popularity": {},
        "item cosine": {"neighbours": 10},
        "implicit ALS": {"factors": 64, "alpha": 4.0, "regularization": 30.0},
        "EASE": {"l2": 200.0},
    },
    "retail-new": {
        "popularity": {},
        "item cosine": {"neighbours": 20},
        "implicit ALS": {
            "factors": 256,
            "alpha": 1.5,
            "regularization": 20.0,
            "values": "log",
        },
        "EASE": {"l2": 400.0},
    },
    "retail-repeats": {
        "popularity": {},
        "own items, then popularity": {},
        "item cosine": {"neighbours": 10, "values": "log"},
        "implicit ALS": {
            "factors": 256,
            "alpha": 2.0,
            "regularization": 20.0,
            "values": "counts",
        },
        "EASE": {"l2": 100.0},
    },
}

Grid = Mapping[str, Sequence[Any]]

_COUNTED: Grid = {"values": ("binary", "log", "counts")}
_EASE: Grid = {"l2": (100.0, 200.0, 500.0, 1000.0, 2000.0)}
_COSINE: Grid = {"neighbours": (10, 20, 50, 100, 200)}
_ALS: Grid = {
    "factors": (64,),
    "alpha": (2.0, 4.0, 6.0, 8.0),
    "regularization": (3.0, 10.0, 30.0, 60.0, 100.0, 150.0),
}
_SPARSE_ALS: Grid = {
    "factors": (64,),
    "alpha": (30.0, 100.0),
    "regularization": (30.0, 100.0, 300.0),
}
_WARP: Grid = {"factors": (64,), "epochs": (10, 20, 40), "learning_rate": (0.02, 0.05)}
_MOVIELENS_PEERS: dict[str, Grid] = {
    "item cosine": _COSINE,
    "implicit ALS": _ALS,
    "LightFM WARP": _WARP,
    "EASE": _EASE,
}
_RETAIL_PEERS: dict[str, Grid] = {
    "item cosine": {**_COSINE, **_COUNTED},
    "implicit ALS": {
        "factors": (64, 128, 256),
        "alpha": (1.5, 2.0, 4.0),
        "regularization": (10.0, 20.0, 30.0, 50.0),
        **_COUNTED,
    },
    "EASE": {"l2": (50.0, 100.0, 200.0, 400.0, 800.0)},
}

PEER_GRIDS: dict[str, dict[str, Grid]] = {
    "ml100k": {**_MOVIELENS_PEERS, "implicit ALS": {**_ALS, "factors": (32, 64)}},
    "ml1m": _MOVIELENS_PEERS,
    "gowalla": {"implicit ALS": _SPARSE_ALS},
    "ensfm": {"item cosine": _COSINE, "implicit ALS": _ALS, "EASE": _EASE},
    "retail-new": _RETAIL_PEERS,
    "retail-repeats": _RETAIL_PEERS,
}

_OUR_GRID: Grid = {
    "n_factors": (64,),
    "alpha0": (0.3, 0.42, 0.58, 1.0),
    "l2_factors": (0.004, 0.006, 0.008, 0.011, 0.015),
}
_OUR_RETAIL_GRID: Grid = {
    "n_factors": (256, 512),
    "alpha0": (0.1, 0.3, 0.9, 1.8),
    "l2_factors": (0.0015, 0.0025, 0.005),
    "count_power": (0.5, 1.0),
    "recency": (0.0, 0.5, 0.8),
    "n_iter": (8,),
}
OUR_GRIDS: dict[str, Grid] = {
    "ml100k": _OUR_GRID,
    "ml1m": {**_OUR_GRID, "n_factors": (64, 128)},
    "gowalla": {
        "n_factors": (256, 512),
        "alpha0": (0.0025, 0.005, 0.008),
        "l2_factors": (0.004, 0.006, 0.008, 0.012),
        "n_iter": (12,),
    },
    "ensfm": {
        **_OUR_GRID,
        "alpha0": (0.3, 1.0, 2.4),
        "l2_factors": (0.0008, 0.0015, 0.004, 0.007),
        "n_iter": (8,),
    },
    "retail-new": _OUR_RETAIL_GRID,
    "retail-repeats": _OUR_RETAIL_GRID,
}


def combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """Return every choice of one value of each setting."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def as_text(settings: Mapping[str, Any]) -> str:
    """Return settings as one line."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
