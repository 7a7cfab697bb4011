"""The factorization machine container's arithmetic: MXNet's Adam in numpy.

Per mini-batch, in file order, without shuffling:

    lr_t = lr · sqrt(1 - 0.999^t) / (1 - 0.9^t)
    g    = clip(rescale_grad · Σ_batch ∂L/∂θ + wd · θ)
    m    = 0.9 m + 0.1 g;   s = 0.999 s + 0.001 g²;   θ -= lr_t · m / (sqrt(s) + eps)

For sparse records only the rows of ``w`` and ``V`` whose features are in the batch move (weights
and moments); for dense records all do, as does the bias. Sources: MXNet 1.1.0,
``python/mxnet/optimizer.py`` (Adam) and ``src/operator/optimizer_op-inl.h``.

With several hosts and ``ShardedByS3Key`` the real container trains asynchronously on the shards
and gives other numbers every time; here the objects are simply read one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from .recordio import Rows

INIT_SIGMA = {"bias": 0.01, "linear": 0.01, "factors": 0.001}
MXNET_UNIFORM_SCALE = 0.07


@dataclass
class Batch:
    """A mini-batch over the features it holds: designs (rows × those features) and labels."""

    features: np.ndarray | slice
    X: np.ndarray | scipy.sparse.csr_matrix
    X2: np.ndarray | scipy.sparse.csr_matrix
    y: np.ndarray


def batches_of(rows: Rows, size: int) -> list[Batch]:
    """Cut the rows into mini-batches; the last one may be short."""
    y = rows.y if rows.y is not None else np.zeros(len(rows), np.float32)
    result = []
    for start in range(0, len(rows), size):
        X, labels = rows.X[start : start + size], y[start : start + size]
        if rows.dense:
            result.append(Batch(slice(None), X, X * X, labels))
            continue
        features, places = np.unique(X.indices, return_inverse=True)
        shape = (X.shape[0], len(features))
        compact = scipy.sparse.csr_matrix((X.data, places.astype(np.int32), X.indptr), shape=shape)
        squares = scipy.sparse.csr_matrix((X.data**2, compact.indices, X.indptr), shape=shape)
        result.append(Batch(features, compact, squares, labels))
    return result


def initial_values(settings: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the bias, the linear weights and the factors as the init hyperparameters say."""
    n, k = settings["feature_dim"], settings["num_factors"]
    drawn = {}
    for group, name, shape in [
        ("bias", "w0", (1,)),
        ("linear", "w", (n,)),
        ("factors", "V", (n, k)),
    ]:
        method = settings.get(f"{group}_init_method", "normal")
        if method == "constant":
            values = np.full(shape, settings.get(f"{group}_init_value", 0.0))
        elif method == "uniform":
            scale = settings.get(f"{group}_init_scale", MXNET_UNIFORM_SCALE)
            values = rng.uniform(-scale, scale, shape)
        else:
            values = rng.normal(0.0, settings.get(f"{group}_init_sigma", INIT_SIGMA[group]), shape)
        drawn[name] = values.astype(np.float32)
    return drawn


@dataclass
class Trainer:
    """Weights on their way. ``settings`` are hyperparameters already read into numbers."""

    settings: dict
    w0: np.ndarray
    w: np.ndarray
    V: np.ndarray
    t: int = 0
    moments: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.w0 = np.array(self.w0, np.float32).reshape(1)
        self.w = np.array(self.w, np.float32).reshape(-1)
        self.V = np.array(self.V, np.float32)
        for name in ("w0", "w", "V"):
            self.moments[f"m_{name}"] = np.zeros_like(getattr(self, name))
            self.moments[f"s_{name}"] = np.zeros_like(getattr(self, name))
        self.regressor = self.settings["predictor_type"] == "regressor"

    def scores(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the rows and their summed factors XV."""
        V = self.V[batch.features]
        sums = batch.X @ V
        pairs = (sums * sums).sum(axis=1) - batch.X2 @ (V * V).sum(axis=1)
        return self.w0[0] + batch.X @ self.w[batch.features] + np.float32(0.5) * pairs, sums

    def predictions(self, batch: Batch) -> np.ndarray:
        """Scores of a regressor, probabilities of a classifier."""
        scores, _ = self.scores(batch)
        return scores if self.regressor else _sigmoid(scores)

    def step(self, batch: Batch) -> np.ndarray:
        """Move the weights once; return the predictions from before."""
        scores, sums = self.scores(batch)
        predictions = scores if self.regressor else _sigmoid(scores)
        errors = (predictions - batch.y).astype(np.float32)
        V = self.V[batch.features]
        weighted = batch.X.T @ (errors[:, None] * sums)
        gradient = weighted - (batch.X2.T @ errors)[:, None] * V
        self.t += 1
        self._update("V", "factors", batch.features, gradient)
        self._update("w", "linear", batch.features, batch.X.T @ errors)
        self._update("w0", "bias", slice(None), errors.sum(keepdims=True))
        return predictions

    def _update(self, name: str, group: str, where, gradient: np.ndarray) -> None:
        s, theta = self.settings, getattr(self, name)
        lr, wd = s.get(f"{group}_lr", _LR[group]), s.get(f"{group}_wd", _WD[group])
        rescale = s.get("rescale_grad", 1.0 / s["mini_batch_size"])
        old = theta[where]
        g = np.float32(rescale) * gradient + np.float32(wd) * old
        if "clip_gradient" in s:
            g = np.clip(g, np.float32(-s["clip_gradient"]), np.float32(s["clip_gradient"]))
        first, second = self.moments[f"m_{name}"], self.moments[f"s_{name}"]
        m = np.float32(0.9) * first[where] + np.float32(0.1) * g
        v = np.float32(0.999) * second[where] + np.float32(0.001) * g * g
        first[where], second[where] = m, v
        lr_t = np.float32(lr * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t))
        theta[where] = old - lr_t * m / (np.sqrt(v) + np.float32(s.get("eps", 1e-8)))


_LR = {"bias": 0.1, "linear": 0.001, "factors": 0.0001}
_WD = {"bias": 0.01, "linear": 0.001, "factors": 0.00001}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-x))


@dataclass
class Metrics:
    """Sums over predictions, turned into the container's metrics."""

    regressor: bool
    n: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(5))

    def add(self, y: np.ndarray, p: np.ndarray) -> None:
        y, p = np.asarray(y, np.float64), np.asarray(p, np.float64)
        self.n += len(y)
        if self.regressor:
            self.sums[:2] += ((p - y) ** 2).sum(), np.abs(p - y).sum()
            return
        said = p >= 0.5
        chance = np.clip(np.where(y >= 0.5, p, 1 - p), 1e-12, None)
        hits = (said == (y >= 0.5)).sum(), -np.log(chance).sum()
        true_positive = (said & (y >= 0.5)).sum()
        self.sums += *hits, true_positive, said.sum(), (y >= 0.5).sum()

    def values(self) -> dict[str, float]:
        """Metrics by the name they have in the log."""
        n = max(self.n, 1)
        if self.regressor:
            # the public logs show classifiers only: these names and forms are by analogy
            mse = self.sums[0] / n
            return {"rmse": mse**0.5, "mse": mse, "absolute_loss": self.sums[1] / n}
        right, loss, true_positive, said, positive = self.sums
        f1 = 2 * true_positive / (said + positive) if said + positive else 0.0
        return {
            "binary_classification_accuracy": right / n,
            "binary_classification_cross_entropy": loss / n,
            "binary_f_1.000": f1,
        }


def epoch_metrics(trainer: Trainer, batches: list[Batch]) -> Iterator[tuple[int, Metrics]]:
    """Train one epoch; after each batch yield its number and the running metrics."""
    metrics = Metrics(trainer.regressor)
    for number, batch in enumerate(batches):
        metrics.add(batch.y, trainer.step(batch))
        yield number, metrics


def metrics_of(predict: Callable, batches: list[Batch], regressor: bool) -> Metrics:
    """The metrics of weights that stand still."""
    metrics = Metrics(regressor)
    for batch in batches:
        metrics.add(batch.y, predict(batch))
    return metrics
