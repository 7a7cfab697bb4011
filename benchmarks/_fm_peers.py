"""The peers of ``bench_fm_solvers.py``, each imported where it is used, if it is installed.

- myFM: the same Bayesian factorization machine in C++, on the same columns with the same groups.
- Surprise: SVD and SVD++ by stochastic gradient, with its own settings.
- cmfrec: matrix factorization with biases by ALS, with its own settings.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from _fm_data import Matrices, Split, rmse

import fmknn

PEERS = {"myFM": "myfm", "Surprise": "scikit-surprise", "cmfrec": "cmfrec"}
_MODULES = {"myFM": "myfm", "Surprise": "surprise", "cmfrec": "cmfrec"}


def find_peers() -> dict[str, str | None]:
    """Return the version of each peer; None for one that is not installed or can't be imported."""
    found: dict[str, str | None] = {}
    for name, package in PEERS.items():
        try:
            with _quiet():
                importlib.import_module(_MODULES[name])
            found[name] = importlib.metadata.version(package)
        except ImportError:
            found[name] = None
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class MyFM:
    """Gibbs sampling by myFM; all samples after the first five are kept, as is its default.

    Parameters
    ----------
    k : int
    n_iter : int
    on_sweep : callable, optional
        Called after each sweep, without arguments.
    """

    def __init__(self, k: int, n_iter: int, on_sweep: Any = None) -> None:
        import myfm

        self.RelationBlock = myfm.RelationBlock
        self.n_iter, self.on_sweep = n_iter, on_sweep
        self.model = myfm.MyFMRegressor(rank=k, random_seed=0)

    def fit_one_hot(self, X: sp.csr_matrix, y: np.ndarray, widths: Sequence[int]) -> MyFM:
        """Train on a matrix; ``widths`` are the numbers of columns that share a prior."""
        return self._fit(X, y, [], list(widths))

    def fit_blocks(self, blocks: Matrices, y: np.ndarray) -> MyFM:
        """Train on users and items as relation blocks; a context is the matrix beside them."""
        (users, items), rest = blocks.widths[:2], blocks.widths[2:]
        widths = [width for group in (*rest, users, items) for width in group]
        return self._fit(*self._inputs(blocks, blocks.train, y), widths)

    def _inputs(self, blocks: Matrices, index: np.ndarray, y: Any = None) -> tuple[Any, Any, Any]:
        relations = [self.RelationBlock(index[:, b], blocks.tables[b]) for b in (0, 1)]
        contexts = [blocks.tables[b][index[:, b]] for b in range(2, index.shape[1])]
        return (sp.hstack(contexts, "csr") if contexts else None), y, relations

    def _fit(self, X: Any, y: np.ndarray, relations: list[Any], widths: list[int]) -> MyFM:
        def callback(*_: Any) -> tuple[bool, None]:
            if self.on_sweep is not None:
                self.on_sweep()
            return False, None

        with _quiet():
            self.model.fit(
                X,
                y,
                X_rel=relations,
                n_iter=self.n_iter,
                n_kept_samples=max(self.n_iter - 5, 1),
                group_shapes=widths,
                callback=callback,
            )
        return self

    def predict_one_hot(self, X: sp.csr_matrix) -> np.ndarray:
        """Return its predictions of a matrix."""
        return self.model.predict(X.astype(np.float64))

    def predict_blocks(self, blocks: Matrices) -> np.ndarray:
        """Return its predictions of the test rows."""
        X, _, relations = self._inputs(blocks, blocks.test)
        return self.model.predict(X, relations)


def surprise_rmse(split: Split, name: str) -> float:
    """Return the error of Surprise's "SVD" or "SVDpp" with the settings it comes with."""
    import surprise

    train, test = split
    rows = list(
        zip(train.user_index.tolist(), train.item_index.tolist(), _floats(train), strict=True)
    )
    data = surprise.Dataset(surprise.Reader(rating_scale=(1, 5)))
    trainset = data.construct_trainset([(*row, None) for row in rows])
    with _quiet():
        model = getattr(surprise, name)(random_state=0).fit(trainset)
    pairs = zip(test.user_index.tolist(), test.item_index.tolist(), strict=True)
    return rmse(np.array([model.predict(user, item).est for user, item in pairs]), test)


def cmfrec_rmse(split: Split, k: int) -> float:
    """Return the error of cmfrec's CMF with k factors and otherwise the settings it comes with."""
    import cmfrec

    train, test = split
    shape = len(train.users), len(train.items)
    ratings = sp.coo_matrix((_floats(train), (train.user_index, train.item_index)), shape)
    with _quiet():
        model = cmfrec.CMF(k=k, nthreads=1, verbose=False, random_state=0).fit(ratings)
        predicted = model.predict(test.user_index, test.item_index)
    return rmse(np.asarray(predicted), test)


def _floats(rows: fmknn.Interactions) -> list[float]:
    return rows.values.astype(np.float64).tolist()
