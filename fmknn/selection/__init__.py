"""Choose between models, by :func:`compare`, and between settings, by :func:`search`.

:func:`search` takes its validation rows from the training rows; a test is for :func:`compare`.
"""

from __future__ import annotations

from .comparison import Comparison, compare
from .hyperparameters import SearchResult, search
from .space import Range, choice, integers, log_uniform, uniform

__all__ = [
    "Comparison",
    "Range",
    "SearchResult",
    "choice",
    "compare",
    "integers",
    "log_uniform",
    "search",
    "uniform",
]
