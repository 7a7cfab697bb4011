"""Data to try things on: MovieLens, and factorization machines whose truth is known."""

from __future__ import annotations

from .movielens import load_movielens
from .planted import PlantedFM, make_interactions

__all__ = ["PlantedFM", "load_movielens", "make_interactions"]
