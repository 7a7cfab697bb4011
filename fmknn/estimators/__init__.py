"""Estimators in scikit-learn's manner: X or Interactions in, a factorization machine out."""

from __future__ import annotations

from .classifier import FMClassifier
from .ranker import FMRanker
from .regressor import FMRegressor

__all__ = ["FMClassifier", "FMRanker", "FMRegressor"]
