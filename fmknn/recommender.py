"""Recommender: how a model comes to be and is kept; what it answers is in serving/answers.py."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from . import _model_file
from .backends.base import Backend, Local
from .data.blocks import design_of_interactions
from .data.interactions import Interactions
from .estimators import FMClassifier, FMRanker, FMRegressor
from .evaluation import Evaluation, evaluate
from .growing import Growing, built
from .index.base import Index
from .model.base import Model
from .model.projection import item_matrix
from .serving.catalog import Catalog

__all__ = ["Recommender", "load"]

_ESTIMATORS: dict[str, Any] = {  # by the loss that a model was trained with
    "squared": FMRegressor,
    "ordinal": partial(FMRegressor, loss="ordinal"),
    "logistic": FMClassifier,
    "probit": partial(FMClassifier, loss="probit"),
    "whole-data": FMRanker,
    "bpr": partial(FMRanker, loss="bpr"),
}
_UNBOUNDED = (-sys.float_info.max, sys.float_info.max)  # a range that JSON can hold


class Recommender(Growing):
    """A factorization machine behind an index: fit on interactions, recommend by id.

    Parameters
    ----------
    estimator : FMRegressor, FMClassifier or FMRanker, optional
        Default: ``FMRegressor()`` where the interactions have values, ``FMRanker()`` where they
        have none. It is copied, never changed.
    index : {"exact", "flat", "ivf"} or Index
    compress : int, optional
        Let the index choose its candidates among rows of only so many numbers: for models with
        long rows, as those of solver="mcmc" are. Scores stay exact, but a list may miss an item;
        see :class:`fmknn.FaissIndex`, whose option it is.
    backend : Backend, optional
        Where training and search run; default :class:`fmknn.Local`, this machine.

    Attributes
    ----------
    estimator_ : FMRegressor, FMClassifier or FMRanker
        The fitted copy.
    users, items : IdMap
    contexts : dict of str to IdMap
        The levels of each context column.
    index_ : Index
        The index over the item matrix [q_i, b_i].

    Examples
    --------
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=50, n_items=30, n_ratings=600)
    >>> train, test = fmknn.splits.random(ratings, test=0.1, random_state=0)
    >>> model = Recommender(FMRegressor(n_factors=4, random_state=0)).fit(train)
    >>> model.recommend([3, 8], n=5).items.shape
    (2, 5)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        index: str | Index = "exact",
        compress: int | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.estimator = estimator
        self.index = index
        self.compress = compress
        self.backend = backend

    def __repr__(self) -> str:
        estimator = "" if self.estimator is None else f"{self.estimator!r}, "
        compress = "" if self.compress is None else f", compress={self.compress!r}"
        return f"Recommender({estimator}index={self.index!r}{compress})"

    def fit(self, interactions: Interactions, start: Any = None) -> Recommender:
        """Train, project and index.

        Parameters
        ----------
        interactions : Interactions
            With values: ratings, or two classes for an FMClassifier. Without: things taken, for an
            FMRanker, which makes nothing of values.
        start : path, state or model, optional
            A checkpoint to go on from, or parameters to begin from: as in
            :meth:`fmknn.FMRegressor.fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For input, a start, an estimator, an index or a backend that can't be used.
        DivergenceError
            If training produced NaN or infinity.
        """
        if not isinstance(interactions, Interactions):
            raise TypeError(
                f"fit takes Interactions, got {type(interactions).__name__}: build them with "
                "Interactions.from_frame or from_arrays"
            )
        given = self.estimator
        if given is None:
            given = FMRanker() if interactions.values is None else FMRegressor()
        if isinstance(given, type) or not hasattr(given, "solver_spec"):
            raise TypeError(
                f"estimator must be an FMRegressor, FMClassifier or FMRanker, got {given!r}"
            )
        backend = self._backend()
        empty_index = self._empty_index()
        estimator = _copy(given)
        solver = backend.solver(estimator.solver_spec())
        estimator.fit(interactions, start=start, solver=solver)
        catalog = Catalog.of(interactions, design_of_interactions(interactions))
        vectors = item_matrix(estimator.params_, catalog.item_rows, n_jobs=estimator.n_jobs)
        index = built(empty_index, vectors, estimator, catalog)
        return self._become(estimator, catalog, index, interactions)

    @classmethod
    def from_params(
        cls,
        params: Model,
        *,
        users: Any,
        items: Any,
        seen: Interactions | tuple[Any, Any] | None = None,
        loss: str = "squared",
        index: str | Index = "exact",
        compress: int | None = None,
        backend: Backend | None = None,
    ) -> Recommender:
        """Return a Recommender of a model that was trained elsewhere.

        Parameters
        ----------
        params : FMParams or Posterior
            Of one-hot columns: those of the users, then those of the items, and no others.
        users, items : array-like of ids
            What the columns stand for, one id each, in their order.
        seen : Interactions or (users, items), optional
            Pairs that are left out of recommendations. Ratings also give the range to which
            predictions are clipped (without it they are not), and the grades of an ordinal model.
        loss : {"squared", "ordinal", "logistic", "probit", "whole-data", "bpr"}
            What it was trained with: scores stand for ratings, for grades by way of the cutpoints
            in ``params``, for the log odds or the probit of a class 1, or for a rank alone.
        index, compress, backend
            As of the constructor.

        Returns
        -------
        Recommender

        Raises
        ------
        ValueError, TypeError
            For another number of ids than of columns, repeated or unknown ids, another loss, or
            cutpoints without a rating of each grade in ``seen``.

        Examples
        --------
        >>> import fmknn
        >>> params = fmknn.FMParams(3.0, [0.0, 0.5, 0.1, 0.2], [[1.0], [2.0], [1.0], [-1.0]])
        >>> model = Recommender.from_params(params, users=["bob", "ann"], items=[50, 22])
        >>> model.recommend(["ann"], n=2).items
        array([[50, 22]])
        """
        if isinstance(params, type) or not isinstance(params, Model):
            raise TypeError(f"params must be FMParams or Posterior, got {type(params).__name__}")
        if loss not in _ESTIMATORS:
            raise ValueError(f"loss must be one of {', '.join(_ESTIMATORS)}, got {loss!r}")
        values = None
        if isinstance(seen, Interactions):
            values = seen.values
            seen = seen.users.ids[seen.user_index], seen.items.ids[seen.item_index]
        catalog = Catalog.of_columns(users, items, seen)
        if params.n_features != catalog.item_rows.n_columns:
            raise ValueError(
                f"the model has {params.n_features} features, but there are {len(catalog.users)} "
                f"users and {len(catalog.items)} items: name all columns"
            )
        estimator = _ESTIMATORS[loss](params.n_factors)
        estimator.adopt(params)
        estimator.set_link_state(_link_state(params, loss, values))
        model = cls(_copy(estimator), index=index, compress=compress, backend=backend)
        vectors = item_matrix(params, catalog.item_rows)
        index = built(model._empty_index(), vectors, estimator, catalog)
        return model._become(estimator, catalog, index, None)

    def _backend(self) -> Backend:
        backend = Local() if self.backend is None else self.backend
        if isinstance(backend, type) or not (
            hasattr(backend, "solver") and hasattr(backend, "index")
        ):
            raise TypeError(f"backend must be a backend object such as Local(), got {backend!r}")
        return backend

    def _elsewhere(self) -> Callable[..., Any] | None:
        return getattr(self._backend(), "recommend_all", None)

    def _empty_index(self) -> Index:
        index = self._backend().index(self.index)
        if self.compress is None:
            return index
        if not hasattr(index, "compressed"):
            raise TypeError(
                f"compress={self.compress!r} is not for an index of type {type(index).__name__}: "
                'use index="exact", "ivf" or a FaissIndex, searched on this machine'
            )
        return index.compressed(self.compress)

    def evaluate(
        self, test: Interactions, metrics: str | Iterable[str] | None = None, **options: Any
    ) -> Evaluation:
        """Measure on held-out interactions.

        Parameters
        ----------
        test : Interactions
        metrics : str or iterable of str, optional
        **options
            As in :func:`fmknn.evaluate`, where all of them are explained.

        Returns
        -------
        Evaluation

        Raises
        ------
        ValueError
            For an unknown metric, test rows that were trained on, or nothing left to measure.
        """
        return evaluate(copy.copy(self), test, metrics, **options)  # though this one may grow

    def with_index(self, index: str | Index, *, compress: int | None = None) -> Recommender:
        """Return the same model behind another index; this one stays as it was.

        Parameters
        ----------
        index : {"exact", "flat", "ivf"} or Index
        compress : int, optional
            As of the constructor.

        Returns
        -------
        Recommender

        Raises
        ------
        ValueError, TypeError
            For an unknown index, or one that can't compress.
        """
        now = copy.copy(self)
        service, estimator = now._service, now.estimator_
        other = Recommender(self.estimator, index=index, compress=compress, backend=self.backend)
        built_index = built(other._empty_index(), service.index.vectors, estimator, service.catalog)
        return other._become(estimator, service.catalog, built_index, now._training)

    def with_backend(self, backend: Backend | None) -> Recommender:
        """Return the same model on another backend; this one stays as it was.

        Its index searches where the backend says, and so do lists for everybody: by
        :class:`fmknn.SparkBackend` over the partitions of a Spark cluster.

        Parameters
        ----------
        backend : Backend or None
            None: this machine.

        Returns
        -------
        Recommender

        Raises
        ------
        TypeError
            For what is no backend.

        Examples
        --------
        >>> import fmknn
        >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
        >>> model = Recommender(fmknn.FMRegressor(n_iter=1, random_state=0)).fit(ratings)
        >>> model.with_backend(fmknn.Local()).recommend([3], n=2).items.shape
        (1, 2)
        """
        now = copy.copy(self)
        service, estimator = now._service, now.estimator_
        other = Recommender(
            self.estimator, index=self.index, compress=self.compress, backend=backend
        )
        index = service.index
        if type(other._backend().index(self.index)) is not type(index):  # else it is there already
            index = built(other._empty_index(), index.vectors, estimator, service.catalog)
        return other._become(estimator, service.catalog, index, now._training)

    def save(self, path: Any) -> None:
        """Write the model to one file; :func:`fmknn.load` gives the same answers.

        It holds the parameters, ids, features, seen items and the settings of estimator and index.
        Not kept are the estimator's callbacks, its ``history_`` and ``state_``, and a
        ``random_state`` that is no int.

        Parameters
        ----------
        path : path-like
            The file is written beside and renamed: it is there as a whole or not at all.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        TypeError
            For an estimator or a solver that is not fmknn's own.
        ValueError
            For a model that could not be loaded: vectors that are not finite, or far larger than
            its parameters.
        """
        now = copy.copy(self)
        service = now._service
        _model_file.write(path, now.estimator_, service.catalog, service.index)


def load(path: Any) -> Recommender:
    """Read a model that :meth:`Recommender.save` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Recommender
        It answers, and trains anew, as the saved one does.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is damaged, of a newer format, something else, or contradicts itself.

    Examples
    --------
    >>> import tempfile
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
    >>> model = Recommender(FMRegressor(n_iter=1, random_state=0)).fit(ratings)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.fmknn")
    ...     loaded = fmknn.load(f"{folder}/model.fmknn")
    >>> loaded.predict([3], [5]) == model.predict([3], [5])
    array([ True])
    """
    estimator, catalog, index = _model_file.read(path)
    model = Recommender(_copy(estimator), index=index)
    return model._become(estimator, catalog, index, None)


def _link_state(params: Model, loss: str, values: np.ndarray | None) -> dict[str, Any]:
    """Return what the scores of a model that was trained elsewhere stand for."""
    n_cutpoints = len(next(params.samples()).cutpoints)
    if bool(n_cutpoints) != (loss == "ordinal"):
        has = "have" if n_cutpoints else "have no"
        raise ValueError(f"params {has} cutpoints, which loss='ordinal' alone learns: got {loss!r}")
    if loss in ("logistic", "probit"):
        return {"classes": [0, 1]}
    if _ESTIMATORS[loss] is FMRanker:
        return {}
    if values is None or not len(values):
        values = np.empty(0) if n_cutpoints else np.array(_UNBOUNDED)
    grades = np.unique(values).tolist() if n_cutpoints else []
    if n_cutpoints and len(grades) != n_cutpoints + 1:
        raise ValueError(
            f"{n_cutpoints} cutpoints are between {n_cutpoints + 1} grades: pass seen as "
            f"Interactions with a rating of each, {len(grades)} found"
        )
    state = {"target_range": [float(values.min()), float(values.max())]}
    return {**state, "grades": grades} if grades else state


def _copy(estimator: Any) -> Any:
    return type(estimator)(**estimator.get_params(deep=False))
