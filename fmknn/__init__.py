"""Factorization machines, projected exactly into vectors and searched for top-N recommendations.

Names are loaded when they are first used, so that ``import fmknn`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ALS": "fmknn.solvers.als",
    "Adam": "fmknn.solvers.adam",
    "BPR": "fmknn.solvers.bpr",
    "Checkpoint": "fmknn.solvers.callbacks",
    "EarlyStopping": "fmknn.solvers.callbacks",
    "ExactIndex": "fmknn.index.exact",
    "Explanation": "fmknn.serving.explain",
    "FMClassifier": "fmknn.estimators",
    "FMParams": "fmknn.model.params",
    "FMRanker": "fmknn.estimators",
    "FMRegressor": "fmknn.estimators",
    "FaissIndex": "fmknn.index.faiss_index",
    "FeatureTable": "fmknn.data.features",
    "Gibbs": "fmknn.solvers.gibbs",
    "Hits": "fmknn.index.base",
    "IdMap": "fmknn.data.ids",
    "Interactions": "fmknn.data.interactions",
    "ItemLists": "fmknn.index.base",
    "JsonLines": "fmknn.serving.sinks",
    "Local": "fmknn.backends.base",
    "ParquetFolder": "fmknn.serving.sinks",
    "Posterior": "fmknn.model.posterior",
    "Recommender": "fmknn.recommender",
    "SQL": "fmknn.serving.sinks",
    "SQLite": "fmknn.serving.sinks",
    "SageMakerBackend": "fmknn.backends.sagemaker.backend",
    "SparkBackend": "fmknn.backends.spark.backend",
    "SparkFM": "fmknn.backends.spark.config",
    "TopN": "fmknn.serving.topn",
    "WholeData": "fmknn.solvers.whole_data",
    "compare": "fmknn.selection",
    "evaluate": "fmknn.evaluation",
    "evaluate_fold_in": "fmknn.evaluation",
    "item_matrix": "fmknn.model.projection",
    "load": "fmknn.recommender",
    "load_sagemaker_model": "fmknn.backends.sagemaker.trained",
    "user_matrix": "fmknn.model.projection",
}
_MODULES = (
    "baselines",
    "datasets",
    "errors",
    "evaluation",
    "metrics",
    "plot",
    "selection",
    "splits",
)

__all__ = ["__version__", *_HOMES, *_MODULES]

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from . import (
        baselines as baselines,
    )
    from . import (
        datasets as datasets,
    )
    from . import (
        errors as errors,
    )
    from . import (
        evaluation as evaluation,
    )
    from . import (
        metrics as metrics,
    )
    from . import (
        plot as plot,
    )
    from . import (
        selection as selection,
    )
    from . import (
        splits as splits,
    )
    from .backends.base import Local as Local
    from .backends.sagemaker.backend import SageMakerBackend as SageMakerBackend
    from .backends.sagemaker.trained import load_sagemaker_model as load_sagemaker_model
    from .backends.spark.backend import SparkBackend as SparkBackend
    from .backends.spark.config import SparkFM as SparkFM
    from .data.features import FeatureTable as FeatureTable
    from .data.ids import IdMap as IdMap
    from .data.interactions import Interactions as Interactions
    from .estimators import FMClassifier as FMClassifier
    from .estimators import FMRanker as FMRanker
    from .estimators import FMRegressor as FMRegressor
    from .evaluation import evaluate as evaluate
    from .evaluation import evaluate_fold_in as evaluate_fold_in
    from .index.base import Hits as Hits
    from .index.base import ItemLists as ItemLists
    from .index.exact import ExactIndex as ExactIndex
    from .index.faiss_index import FaissIndex as FaissIndex
    from .model.params import FMParams as FMParams
    from .model.posterior import Posterior as Posterior
    from .model.projection import item_matrix as item_matrix
    from .model.projection import user_matrix as user_matrix
    from .recommender import Recommender as Recommender
    from .recommender import load as load
    from .selection import compare as compare
    from .serving.explain import Explanation as Explanation
    from .serving.sinks import SQL as SQL
    from .serving.sinks import JsonLines as JsonLines
    from .serving.sinks import ParquetFolder as ParquetFolder
    from .serving.sinks import SQLite as SQLite
    from .serving.topn import TopN as TopN
    from .solvers.adam import Adam as Adam
    from .solvers.als import ALS as ALS
    from .solvers.bpr import BPR as BPR
    from .solvers.callbacks import Checkpoint as Checkpoint
    from .solvers.callbacks import EarlyStopping as EarlyStopping
    from .solvers.gibbs import Gibbs as Gibbs
    from .solvers.whole_data import WholeData as WholeData


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fmknn.{name}")
    else:
        raise AttributeError(f"module 'fmknn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
