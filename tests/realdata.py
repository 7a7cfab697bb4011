"""Real data for tests: $FMKNN_DATA or the user cache; only CI downloads what is not there."""

from __future__ import annotations

import os

import pytest

import fmknn
from fmknn.errors import DataNotFoundError

IN_CI = os.environ.get("CI") == "true"


def movielens(name: str = "100k", fold: str | None = None):
    """Return MovieLens; where it can't be had the test is skipped with a reason, in CI it fails."""
    try:
        return fmknn.datasets.load_movielens(name, fold=fold, download=IN_CI)
    except DataNotFoundError as error:
        if IN_CI:
            raise
        pytest.skip(f"needs MovieLens {name}: set FMKNN_DATA or run `fmknn demo` once ({error})")
