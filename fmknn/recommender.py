"""Recommender: ids in, top-N out; a facade over the rooms below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import _model_file
from ._sklearn import not_fitted
from .backends.base import Backend, Local
from .data.blocks import design_of_interactions
from .data.ids import IdMap
from .data.interactions import Interactions
from .estimators import FMRegressor
from .evaluation import DEFAULT_METRICS, Evaluation, evaluate
from .index.base import Index
from .model.params import FMParams
from .model.projection import item_matrix
from .serving.batch import recommend_all
from .serving.catalog import Catalog
from .serving.queries import id_list
from .serving.service import Service
from .serving.topn import TopN

__all__ = ["Recommender", "load"]


class Recommender:
    """A factorization machine behind an index: fit on interactions, recommend by id.

    Parameters
    ----------
    estimator : FMRegressor or FMClassifier, optional
        Default: ``FMRegressor()``. It is copied, never changed.
    index : {"exact", "flat", "ivf"} or Index
    backend : Backend, optional
        Where training and search run; default :class:`fmknn.Local`, this machine.

    Attributes
    ----------
    estimator_ : FMRegressor or FMClassifier
        The fitted copy.
    users, items : IdMap
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
        backend: Backend | None = None,
    ) -> None:
        self.estimator = estimator
        self.index = index
        self.backend = backend

    def __repr__(self) -> str:
        estimator = "FMRegressor()" if self.estimator is None else repr(self.estimator)
        return f"Recommender({estimator}, index={self.index!r})"

    def fit(self, interactions: Interactions) -> Recommender:
        """Train, project and index.

        Parameters
        ----------
        interactions : Interactions
            With values: ratings, or two classes for an FMClassifier.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For input, an estimator or an index that can't be used.
        DivergenceError
            If training produced NaN or infinity.
        """
        given = FMRegressor() if self.estimator is None else self.estimator
        if isinstance(given, type) or not hasattr(given, "solver_spec"):
            raise TypeError(f"estimator must be an FMRegressor or FMClassifier, got {given!r}")
        if not isinstance(interactions, Interactions):
            raise TypeError(
                f"fit takes Interactions, got {type(interactions).__name__}: build them with "
                "Interactions.from_frame or from_arrays"
            )
        backend = self.backend or Local()
        empty_index = backend.index(self.index)
        estimator = _copy(given)
        estimator.fit(interactions, solver=backend.solver(estimator.solver_spec()))
        catalog = Catalog.of(interactions, design_of_interactions(interactions))
        vectors = item_matrix(estimator.params_, catalog.item_rows, n_jobs=estimator.n_jobs)
        self.index_ = empty_index.build(vectors)
        self.estimator_, self.catalog_ = estimator, catalog
        return self

    @property
    def _service(self) -> Service:
        if not hasattr(self, "catalog_"):
            raise not_fitted(self)
        estimator = self.estimator_
        return Service(
            estimator.params_, self.catalog_, self.index_, estimator.link, estimator.n_jobs
        )

    @property
    def params_(self) -> FMParams:
        """The parameters of the fitted model."""
        return self._service.model

    @property
    def users(self) -> IdMap:
        """The user ids of training."""
        return self._service.catalog.users

    @property
    def items(self) -> IdMap:
        """The item ids of training: the catalogue."""
        return self._service.catalog.items

    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Mapping[Any, Any] | None = None,
        candidates: Any = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "raise",
    ) -> TopN:
        """Return the n best items for each user. Items rated in training are left out.

        Parameters
        ----------
        users : array-like of ids, or a single id
        n : int
            List length; fewer come back where fewer are available, ``counts`` says how many.
        exclude_seen : bool
            Leave out the items of the user's training rows.
        exclude : mapping of user id to item ids, optional
            More items to leave out, per user. Users that are not asked for may be in it.
        candidates : array-like of item ids, optional
            The only items that may come back.
        context : mapping of str to a level or to one level per user, optional
        unknown : {"raise", "skip", "cold"}
            What to do with ids never seen: an error, leave them out, or (users and context) go by
            what is known.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.

        Returns
        -------
        TopN

        Raises
        ------
        UnknownIdError
            For an unknown id under "raise".
        TypeError
            For ids of another type than in training.
        ValueError
            For a missing or unknown context, or a value out of range.
        """
        return self._service.recommend(
            users,
            n,
            exclude_seen=exclude_seen,
            exclude=exclude,
            candidates=candidates,
            context=context,
            unknown=unknown,
            context_default=context_default,
        )

    def recommend_all(
        self, n: int = 10, *, users: Any = None, to: Any = None, chunk: int = 8192, **options: Any
    ) -> Any:
        """Recommend for everybody, chunk by chunk, in constant memory.

        Parameters
        ----------
        n : int
            List length; fewer come back where fewer are available.
        users : array-like of ids, optional
            Default: all users of the vocabulary, those that are in the feature table only too.
        to : path-like, optional
            A file of JSON lines, one user a line; it appears only once it is complete.
        chunk : int
            Users per chunk. Answers don't depend on it.
        **options
            As in :meth:`recommend`, and ``progress=True`` for a progress bar.

        Returns
        -------
        iterator of TopN, or int
            The number of users written, where ``to`` is given.

        Raises
        ------
        ValueError, TypeError
            At once, for arguments that can't be used.
        UnknownIdError
            For an unknown id under ``unknown="raise"``, when its chunk is reached.
        FileNotFoundError
            If the folder of ``to`` does not exist.
        """
        everybody = self.users.ids if users is None else id_list(users, "user")
        return recommend_all(self.recommend, everybody, n, to=to, chunk=chunk, **options)

    def scores(
        self,
        users: Any,
        items: Any,
        context: Mapping[str, Any] | None = None,
        *,
        unknown: str = "raise",
        context_default: str = "raise",
    ) -> np.ndarray:
        """Return the linear predictor of (user, item) pairs: the number that ranks.

        Parameters
        ----------
        users, items : array-like of ids, shape (n,)
        context : mapping of str to a level or to one level per pair, optional
        unknown : {"raise", "cold"}
            Under "cold" an unknown id contributes nothing.
        context_default : {"raise", "zero", "mean"}

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        return self._service.scores(
            users, items, context, unknown=unknown, context_default=context_default
        )

    def predict(
        self, users: Any, items: Any, context: Mapping[str, Any] | None = None, **options: Any
    ) -> np.ndarray:
        """Return predictions for (user, item) pairs: clipped ratings, or probabilities.

        Parameters
        ----------
        users, items : array-like of ids, shape (n,)
        context, **options
            As in :meth:`scores`.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        return self._service.link(self.scores(users, items, context, **options))

    def similar_items(self, items: Any, n: int = 10, *, unknown: str = "raise") -> TopN:
        """Return the n items most like each given one, by the cosine of their vectors q_i.

        The item itself is left out; biases play no part.

        Parameters
        ----------
        items : array-like of ids, or a single id
        n : int
            List length; at most all other items come back.
        unknown : {"raise", "skip", "cold"}
            What to do with ids never seen: an error, or (both others) leave them out.

        Returns
        -------
        TopN
            Its ``users`` are the items asked for.

        Raises
        ------
        UnknownIdError
            For an unknown id under "raise".
        TypeError
            For ids of another type than in training.
        ValueError
            For n below 1.
        """
        return self._service.similar_items(items, n, unknown)

    def targets(self, values: Any) -> np.ndarray:
        """Return values, shape (n,), in the terms of :meth:`predict`: of two classes, 0 or 1."""
        if not hasattr(self, "catalog_"):
            raise not_fitted(self)
        return self.estimator_.encode_targets(np.asarray(values))

    def evaluate(
        self, test: Interactions, metrics: str | Iterable[str] = DEFAULT_METRICS, **options: Any
    ) -> Evaluation:
        """Measure on held-out interactions.

        Parameters
        ----------
        test : Interactions
        metrics : str or iterable of str
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
        return evaluate(self, test, metrics, **options)

    def n_training_rows(self, users: Any) -> np.ndarray:
        """Return how many training rows each user had.

        Parameters
        ----------
        users : array-like of ids, or a single id

        Returns
        -------
        ndarray of int64, shape (n_users,)
            0 for an unknown user.

        Raises
        ------
        TypeError
            For ids of another type than in training.
        """
        return self._service.catalog.n_training_rows(id_list(users, "user"))

    def seen_pairs(self, users: Any, items: Any) -> np.ndarray:
        """Return whether each (user, item) pair occurred in training.

        Parameters
        ----------
        users, items : array-like of ids, shape (n,)

        Returns
        -------
        ndarray of bool, shape (n,)
            False for an unknown user or item.

        Raises
        ------
        TypeError
            For ids of another type than in training.
        """
        return self._service.catalog.seen_pairs(id_list(users, "user"), id_list(items, "item"))

    def with_index(self, index: str | Index) -> Recommender:
        """Return the same model behind another index; this one stays as it was.

        Parameters
        ----------
        index : {"exact", "flat", "ivf"} or Index

        Returns
        -------
        Recommender

        Raises
        ------
        ValueError, TypeError
            For an unknown index.
        """
        service = self._service
        other = Recommender(self.estimator, index=index, backend=self.backend)
        other.estimator_, other.catalog_ = self.estimator_, service.catalog
        other.index_ = (self.backend or Local()).index(index).build(service.index.vectors)
        return other

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
        """
        service = self._service
        _model_file.write(path, self.estimator_, service.catalog, service.index)


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
    >>> loaded.estimator_.get_params() == model.estimator_.get_params()
    True
    """
    estimator, catalog, index = _model_file.read(path)
    model = Recommender(_copy(estimator), index=index)
    model.estimator_, model.catalog_, model.index_ = estimator, catalog, index
    return model


def _copy(estimator: Any) -> Any:
    return type(estimator)(**estimator.get_params(deep=False))
