"""The peers of ``bench_ranking.py``: other libraries where they are installed, and plain NumPy.

Each is made with its settings, learns from a matrix of counts, and scores all items for users.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

PACKAGES = {"implicit": "implicit", "lightfm": "lightfm-next"}  # module: package


class Peer(Protocol):
    """What the benchmark asks of a peer."""

    def fit(self, counts: sp.csr_matrix) -> Any:
        """Learn from how often each user met each item."""

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return a score of every item for each of the users."""


def find_peers() -> dict[str, str | None]:
    """Return the version of each library; None for one that can't be imported."""
    found: dict[str, str | None] = {}
    for module, package in PACKAGES.items():
        try:
            with _quiet():
                importlib.import_module(module)
            found[module] = importlib.metadata.version(package)
        except ImportError:
            found[module] = None
    return found


@contextlib.contextmanager
def _quiet() -> Any:
    """Without advice about the threads of BLAS, of which there is one here, and deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weighted(counts: sp.csr_matrix, values: str) -> sp.csr_matrix:
    """Return counts as they are ("counts"), all as 1 ("binary") or as 1 + log ("log")."""
    made = counts.copy()
    made.data = {
        "counts": lambda data: data,
        "binary": np.ones_like,
        "log": lambda data: 1 + np.log(data),
    }[values](made.data)
    return made


class Popularity:
    """Items by the number of their users."""

    def fit(self, counts: sp.csr_matrix) -> Popularity:
        """Count."""
        self.n_users = np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.float32)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return the same scores for everybody."""
        return np.broadcast_to(self.n_users, (len(users), len(self.n_users)))


class OwnItems(Popularity):
    """A user's own items by how often they were met, then the others by popularity."""

    def fit(self, counts: sp.csr_matrix) -> OwnItems:
        """Count."""
        super().fit(counts)
        self.counts = counts
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return own counts plus a popularity below 1."""
        return self.counts[users].toarray() + self.n_users / (1 + self.n_users.max())


class ItemCosine:
    """Nearest neighbours by the cosine of the items' columns, by implicit."""

    def __init__(self, neighbours: int, values: str = "binary") -> None:
        self.neighbours, self.values = neighbours, values

    def fit(self, counts: sp.csr_matrix) -> ItemCosine:
        """Find each item's neighbours, itself among them."""
        from implicit.nearest_neighbours import CosineRecommender

        self.history = weighted(counts, self.values)
        model = CosineRecommender(K=self.neighbours, num_threads=1)
        with _quiet():
            model.fit(self.history, show_progress=False)
        self.similarity = sp.csr_matrix(model.similarity, dtype=np.float32)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return the sums of similarities with a user's items."""
        return (self.history[users] @ self.similarity).toarray()


class ImplicitALS:
    """Weighted matrix factorization by implicit: conjugate gradients, its default."""

    def __init__(
        self,
        factors: int,
        regularization: float,
        alpha: float,
        iterations: int = 15,
        values: str = "binary",
        seed: int = 0,
        on_iteration: Callable[[ImplicitALS], Any] | None = None,
    ) -> None:
        from implicit.als import AlternatingLeastSquares

        self.values, self.on_iteration = values, on_iteration
        self.model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            iterations=iterations,
            num_threads=1,
            random_state=seed,
        )

    def fit(self, counts: sp.csr_matrix) -> ImplicitALS:
        """Train; ``on_iteration`` is called with this object after each iteration."""

        def callback(*_: Any) -> None:
            if self.on_iteration is not None:
                self.on_iteration(self)

        with _quiet():
            self.model.fit(weighted(counts, self.values), show_progress=False, callback=callback)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return the products of factors."""
        return self.model.user_factors[users] @ self.model.item_factors.T


class ImplicitBPR(ImplicitALS):
    """Bayesian personalised ranking by implicit."""

    def __init__(
        self, factors: int, learning_rate: float, regularization: float, iterations: int
    ) -> None:
        from implicit.bpr import BayesianPersonalizedRanking

        self.values, self.on_iteration = "binary", None
        self.model = BayesianPersonalizedRanking(
            factors=factors,
            learning_rate=learning_rate,
            regularization=regularization,
            iterations=iterations,
            num_threads=1,
            random_state=0,
        )


class LightFM:
    """LightFM with the WARP loss, ids alone."""

    def __init__(
        self, factors: int, epochs: int, learning_rate: float = 0.05, item_alpha: float = 0.0
    ) -> None:
        import lightfm

        self.epochs = epochs
        self.model = lightfm.LightFM(
            no_components=factors,
            loss="warp",
            learning_rate=learning_rate,
            item_alpha=item_alpha,
            random_state=0,
        )

    def fit(self, counts: sp.csr_matrix) -> LightFM:
        """Train on one thread."""
        self.model.fit(weighted(counts, "binary"), epochs=self.epochs, num_threads=1)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return the products of embeddings plus the items' biases."""
        model = self.model
        return model.user_embeddings[users] @ model.item_embeddings.T + model.item_biases


class EASE:
    """The closed-form item-item regression of Steck (WWW 2019, equation 8), items x items."""

    def __init__(self, l2: float) -> None:
        self.l2 = l2

    def fit(self, counts: sp.csr_matrix) -> EASE:
        """Invert the items' Gram matrix."""
        self.history = weighted(counts, "binary")
        gram = (self.history.T @ self.history).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.l2
        factor = scipy.linalg.cho_factor(gram, overwrite_a=True)
        inverse = scipy.linalg.cho_solve(factor, np.eye(len(gram)))
        self.weights = (-inverse / np.diag(inverse)).astype(np.float32)
        self.weights[np.diag_indices_from(inverse)] = 0
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Return the regression of every item on a user's items."""
        return self.history[users] @ self.weights


PEERS: dict[str, type[Any]] = {
    "popularity": Popularity,
    "own items, then popularity": OwnItems,
    "item cosine": ItemCosine,
    "implicit ALS": ImplicitALS,
    "implicit BPR": ImplicitBPR,
    "LightFM WARP": LightFM,
    "EASE": EASE,
}
NEEDS = {
    "item cosine": "implicit",
    "implicit ALS": "implicit",
    "implicit BPR": "implicit",
    "LightFM WARP": "lightfm",
}


def of_task(names: dict[str, Any], installed: set[str]) -> dict[str, Any]:
    """Return the settings of those peers that are there."""
    return {
        name: settings
        for name, settings in names.items()
        if NEEDS.get(name) is None or NEEDS[name] in installed
    }
