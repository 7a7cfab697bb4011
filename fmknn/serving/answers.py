"""Answers: what a fitted model is asked, with every argument explained and defaulted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .._sklearn import not_fitted
from ..data.ids import IdMap
from ..index.base import Index
from ..model.base import Model
from .batch import recommend_all
from .catalog import Catalog
from .foldin import FoldIn
from .manifest import model_facts
from .newcomers import Newcomers
from .queries import id_list
from .relations import Relations
from .service import Service
from .topn import TopN

__all__ = ["Answers"]


class Answers(Newcomers, Relations):
    """The part of a :class:`fmknn.Recommender` that answers, however it came to be fitted.

    Attributes
    ----------
    estimator_ : FMRegressor, FMClassifier or FMRanker
        The fitted one: it has the parameters, and says what scores stand for.
    catalog_ : Catalog
        The ids, features and seen items of training.
    index_ : Index
        The index over the item matrix [q_i, b_i].
    """

    estimator_: Any
    catalog_: Catalog
    index_: Index

    @property
    def _fold_in(self) -> FoldIn:
        own = vars(self)  # what is learned replaces it as a whole: nobody sees half of a change
        if "catalog_" not in own:
            raise not_fitted(self)
        estimator = own["estimator_"]
        model, catalog, index = estimator.params_, own["catalog_"], own["index_"]
        service = Service(model, catalog, index, estimator.link, estimator.n_jobs)
        return FoldIn(service, estimator.row_rule)

    @property
    def _service(self) -> Service:
        return self._fold_in.service

    def _elsewhere(self) -> Callable[..., Any] | None:
        """Return what recommends for everybody instead, where it is not done on this machine."""
        return None

    @property
    def params_(self) -> Model:
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

    @property
    def contexts(self) -> dict[str, IdMap]:
        """The levels of each context column of training, by its name."""
        return {name: side.ids for name, side in self._service.catalog.contexts.items()}

    @property
    def predicts_values(self) -> bool:
        """Whether :meth:`predict` gives what values are, or scores that rank only."""
        return self.estimator_.predicts_values

    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Mapping[Any, Any] | None = None,
        exclude_items: Any = None,
        candidates: Any = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "raise",
        popularity: float = 1.0,
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
        exclude_items : array-like of item ids, optional
            Items to leave out for all users: what is sold out.
        candidates : array-like of item ids, optional
            The only items that may come back.
        context : mapping of str to a level or to one level per user, optional
        unknown : {"raise", "skip", "cold"}
            What to do with ids never seen: an error, leave them out, or (users and context) go by
            what is known.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.
        popularity : float
            How much the biases of items count, from 0 to 1. They hold what is liked by all: below
            1, lists are more of the user's own, and longer in the tail. ``TopN.scores`` are then
            offset + <q_u, q_i> + popularity · b_i, no longer the model's, as :meth:`scores` gives
            them; ``TopN.predictions`` stay what :meth:`predict` says. It changes little in a
            whole-data FMRanker, whose vectors hold most of what is popular. An approximate index
            with a ``target_recall`` is tuned for 1, and may find less below.

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
            exclude_items=exclude_items,
            candidates=candidates,
            context=context,
            unknown=unknown,
            context_default=context_default,
            popularity=popularity,
        )

    def recommend_all(
        self,
        n: int = 10,
        *,
        users: Any = None,
        to: Any = None,
        chunk: int | None = None,
        resume: bool = False,
        append: bool = False,
        run_id: str | None = None,
        exclude_seen: bool = True,
        exclude: Mapping[Any, Any] | None = None,
        exclude_items: Any = None,
        candidates: Any = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "raise",
        popularity: float = 1.0,
        progress: bool = False,
    ) -> Any:
        """Recommend for everybody, chunk by chunk, in constant memory.

        A line for each chunk goes to the logger "fmknn", at level INFO.

        Parameters
        ----------
        n : int
            List length; fewer come back where fewer are available.
        users : array-like of ids, optional
            Default: all users of the vocabulary, those that are in the feature table only too.
        to : path-like, address or sink, optional
            A file of JSON lines, one user a line (``JsonLines``). A name that ends in .parquet, or
            a folder: a Parquet file per chunk (``ParquetFolder``). ``sqlite:///recs.db``, or a
            name that ends in .db or .sqlite: an SQLite database (``SQLite``). Any other
            ``dialect://`` address: a database by SQLAlchemy (``SQL``). What was there before is
            there until the new run is complete.
        chunk : int, optional
            Users per chunk: 8192, or what suits the index. Answers don't depend on it.
        resume : bool
            Go on after the last complete chunk of an unfinished run, with the same rows as of a
            run that was never interrupted; a complete run of the same rows is left as it is. Runs
            of another model or with other arguments are not gone on with: a new one begins.
            Without it an unfinished run is given up and started anew.
        append : bool
            In a database, keep the runs that have another ``run_id``.
        run_id : str, optional
            Name of the run, in a database or a Parquet folder; default: the time it begins.
        exclude_seen, exclude, exclude_items, candidates, context
            As in :meth:`recommend`.
        unknown, context_default, popularity
            Likewise.
        progress : bool
            Show a progress bar.

        Returns
        -------
        iterator of TopN, or int
            The number of users that the run has written, where ``to`` is given.

        Raises
        ------
        ValueError, TypeError
            At once, for arguments that can't be used, a place that holds something else, or a run
            to resume, of this ``run_id``, that was of another model or with other arguments.
        UnknownIdError
            For an unknown id under ``unknown="raise"``, when its chunk is reached.
        MissingExtraError
            If pyarrow or SQLAlchemy is needed and not installed.
        FileNotFoundError
            If the folder of ``to`` does not exist.
        OSError
            For a full disk, or a database that fails; complete chunks can be resumed after.
        """
        options: dict[str, Any] = {
            "resume": resume,
            "append": append,
            "run_id": run_id,
            "exclude_seen": exclude_seen,
            "exclude": exclude,
            "exclude_items": exclude_items,
            "candidates": candidates,
            "context": context,
            "unknown": unknown,
            "context_default": context_default,
            "popularity": popularity,
            "progress": progress,
        }
        now = copy.copy(self)  # all lists of a run are of one model, though this one may grow
        service, elsewhere = now._service, self._elsewhere()
        if elsewhere is not None:
            return elsewhere(service, n, users=users, to=to, chunk=chunk, **options)
        everybody = now.users.ids if users is None else id_list(users, "user")
        if chunk is None:
            chunk = getattr(service.index, "preferred_chunk", 8192)
        facts = partial(model_facts, service)
        return recommend_all(
            now.recommend, everybody, n, to=to, chunk=chunk, facts=facts, **options
        )

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
        self,
        users: Any,
        items: Any,
        context: Mapping[str, Any] | None = None,
        *,
        unknown: str = "raise",
        context_default: str = "raise",
    ) -> np.ndarray:
        """Return predictions for (user, item) pairs: clipped ratings, or probabilities.

        Of a posterior it is the mean of what its samples predict.

        Parameters
        ----------
        users, items : array-like of ids, shape (n,)
        context, unknown, context_default
            As in :meth:`scores`.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        return self._service.predict(
            users, items, context, unknown=unknown, context_default=context_default
        )

    def targets(self, values: Any) -> np.ndarray:
        """Return values in the terms of :meth:`predict`: ratings as they are, classes as 0 or 1.

        Parameters
        ----------
        values : array-like, shape (n,)
            Ratings, or the two classes of training; 1 stands for the second of them.

        Returns
        -------
        ndarray of float32, shape (n,)

        Raises
        ------
        ValueError
            For a value that is no finite number, or none of the classes.
        """
        if not hasattr(self, "catalog_"):
            raise not_fitted(self)
        return self.estimator_.encode_targets(np.asarray(values))

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
