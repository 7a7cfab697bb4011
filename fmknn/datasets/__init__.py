"""Data to try things on: MovieLens, planted factorization machines, files of libFM."""

from __future__ import annotations

from .libfm import interactions_from_one_hot, read_libfm, write_libfm
from .movielens import load_movielens
from .planted import PlantedFM, make_interactions

__all__ = [
    "PlantedFM",
    "interactions_from_one_hot",
    "load_movielens",
    "make_interactions",
    "read_libfm",
    "write_libfm",
]
