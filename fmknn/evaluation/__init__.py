"""How good is a model: one call for a whole test, over the metrics of :mod:`fmknn.metrics`."""

from __future__ import annotations

from .base import DEFAULT_RANKING, Evaluable, FoldsIn
from .bootstrap import PerUser
from .fold_in import evaluate_fold_in
from .measure import evaluate
from .result import Evaluation

__all__ = [
    "DEFAULT_RANKING",
    "Evaluable",
    "Evaluation",
    "FoldsIn",
    "PerUser",
    "evaluate",
    "evaluate_fold_in",
]
