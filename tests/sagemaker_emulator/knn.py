"""The k-NN container: an index of labelled vectors, and its answers.

Source: AWS documentation, "K-Nearest Neighbors": "How it works", "Hyperparameters" and "Request and
response formats". The verbose answer lists distances "sorted from smallest to largest"; under
INNER_PRODUCT they are the inner products themselves, so that the best item comes last. ``nprobe``
of an IVF index is faiss's own default of 1 (the container's is not public).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import faiss
import numpy as np

from .faults import Faults
from .hyperparameters import ContainerError
from .recordio import BadDataError, Rows

METRICS = {
    "L2": faiss.METRIC_L2,
    "INNER_PRODUCT": faiss.METRIC_INNER_PRODUCT,
    "COSINE": faiss.METRIC_INNER_PRODUCT,
}
KINDS = ("float32_tensor", "float64_tensor", "int32_tensor")


def _dense(rows: Rows, width: int) -> np.ndarray:
    X = rows.X if rows.dense else rows.X.toarray()
    if X.shape[1] != width:
        raise BadDataError(
            f"cannot copy sequence with size {X.shape[1]} to array axis with dimension {width}"
        )
    return np.ascontiguousarray(X, np.float32)


def _normalised(X: np.ndarray) -> np.ndarray:
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def train(settings: dict, rows: Rows, rng: np.random.Generator) -> dict[str, bytes]:
    """The members of the container's model.tar.gz."""
    kind, metric = settings["index_type"], settings["index_metric"]
    if "dimension_reduction_type" in settings:
        raise ContainerError("AlgorithmError: the emulator has no dimension reduction")
    if kind == "faiss.IVFPQ" and metric != "L2":
        raise ContainerError(
            f"ClientError: index_type faiss.IVFPQ does not support index_metric {metric}"
        )
    if rows.y is None:
        raise BadDataError("the records have no labels")
    X, y = _dense(rows, settings["feature_dim"]), rows.y
    if settings["sample_size"] < len(X):  # the container samples: the other items are gone
        kept = np.sort(rng.choice(len(X), settings["sample_size"], replace=False))
        X, y = X[kept], y[kept]
    if metric == "COSINE":
        X = _normalised(X)
    index = _index(settings, X, METRICS[metric])
    about = {
        "k": settings["k"],
        "predictor_type": settings["predictor_type"],
        "dimension_reduction": None,
        "normalize": metric == "COSINE",
        "version": "1.0",
    }
    return {
        "model_algo-1": faiss.serialize_index(index).tobytes(),
        "model_algo-1.labels": y.astype(np.float32).tobytes(),
        "model_algo-1.json": json.dumps(about).encode(),
    }


def _index(settings: dict, X: np.ndarray, metric: int) -> faiss.Index:
    kind, width = settings["index_type"], X.shape[1]
    quantizer = faiss.IndexFlat(width, metric)
    n_lists = settings["faiss_index_ivf_nlists"]
    if n_lists == "auto":
        n_lists = max(1, int(np.sqrt(settings["sample_size"])))
    if kind == "faiss.Flat":
        index = faiss.IndexFlat(width, metric)
    elif kind == "faiss.IVFFlat":
        index = faiss.IndexIVFFlat(quantizer, width, n_lists, metric)
    else:
        if width % settings.get("faiss_index_pq_m", 1):
            raise ContainerError(
                "AlgorithmError: the emulator does not pad vectors for faiss.IVFPQ"
            )
        m = settings.get("faiss_index_pq_m", 1)
        index = faiss.IndexIVFPQ(quantizer, width, n_lists, m, 8)
    try:
        index.train(X)
        index.add(X)
    except RuntimeError as error:
        raise ContainerError(f"AlgorithmError: {str(error).splitlines()[0]}") from None
    return index


@dataclass
class Model:
    """A k-NN model as the inference container holds it."""

    index: faiss.Index
    labels: np.ndarray
    about: dict

    @classmethod
    def of(cls, members: dict[str, bytes]) -> Model:
        index = faiss.deserialize_index(np.frombuffer(members["model_algo-1"], np.uint8))
        labels = np.frombuffer(members["model_algo-1.labels"], "<f4")
        return cls(index, labels, json.loads(members["model_algo-1.json"]))

    def answers(self, rows: Rows, faults: Faults) -> list[dict]:
        """A verbose answer per record."""
        X = _dense(rows, self.index.d)
        if self.about["normalize"]:
            X = _normalised(X)
        k = min(self.about["k"], self.index.ntotal)
        values, places = self.index.search(X, k)
        if faults.l2:
            vectors = self.index.reconstruct_n(0, self.index.ntotal)
            flat = faiss.IndexFlatL2(self.index.d)
            flat.add(vectors)
            values, places = flat.search(X, k)
        found = zip(values, places, strict=True)
        return [self._answer(v[p >= 0], p[p >= 0], faults) for v, p in found]

    def _answer(self, values: np.ndarray, places: np.ndarray, faults: Faults) -> dict:
        if faults.negated:
            values = -values
        order = np.argsort(values, kind="stable")
        if faults.descending:
            order = order[::-1]
        labels = self.labels[places[order]]
        return {
            "predicted_label": self._predicted(labels),
            "distances": [float(v) for v in values[order]],
            "labels": [float(label) for label in labels],
        }

    def _predicted(self, labels: np.ndarray) -> float:
        if not len(labels):
            return 0.0
        if self.about["predictor_type"] == "regressor":
            return float(labels.mean())
        names, votes = np.unique(labels, return_counts=True)
        return float(names[votes.argmax()])
