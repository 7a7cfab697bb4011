"""Growing: how a fitted recommender takes in new rows, new people and new items."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ._checks import require_count
from .backends.base import Backend
from .data.blocks import design_of_interactions
from .data.growth import extended, with_entities
from .data.interactions import Interactions
from .index.base import Index
from .model.growth import grown
from .model.projection import item_matrix
from .serving.additions import add
from .serving.answers import Answers
from .serving.catalog import Catalog
from .serving.growth import columns_in, same_entities, vocabulary_of, with_past
from .serving.queries import sample_of_queries

__all__ = ["Growing", "built"]

_G = TypeVar("_G", bound="Growing")


class Growing(Answers):
    """The part of a :class:`fmknn.Recommender` that goes on after its first fit."""

    _training: Interactions | None = None  # what it was fitted on, where it was so in this process

    @abstractmethod
    def fit(self: _G, interactions: Interactions, start: Any = None) -> _G:
        """Train anew."""

    @abstractmethod
    def _backend(self) -> Backend:
        """Return where training and search run."""

    @abstractmethod
    def _empty_index(self) -> Index:
        """Return the index, not built yet."""

    def partial_fit(
        self: _G,
        interactions: Interactions,
        *,
        known: Interactions | None = None,
        n_iter: int | None = None,
    ) -> _G:
        """Learn from new rows; new users, items and levels get parameters of their own.

        Parameters
        ----------
        interactions : Interactions
            The new rows, with the contexts of training, and values if training had them. Where
            training had feature tables they have the rows of ids that are new, and may have new
            values of known ones.
        known : Interactions, optional
            All rows that the model has learned from; default: those that it remembers, which it
            does until it is saved and loaded. What is not among them is unlearned. "adam" and
            "bpr" can go without, if there are no feature tables, and learn from the new rows alone
            if there are none (``known=log.take([])``).
        n_iter : int, optional
            Passes; default: the few that the solver's ``n_warm`` says. Callbacks are not called.

        Returns
        -------
        self
            Fitted, if it was not. Where there are neither new rows nor new ids it stays as it is.

        Raises
        ------
        ValueError, TypeError
            For rows that don't go with those of training, or rows that are missing. The model is
            then as it was.
        DivergenceError
            If training produced NaN or infinity.

        Notes
        -----
        Training begins from the parameters as they are, and makes a few passes over all rows, known
        and new. The chain of "mcmc" goes on from its last sample; the samples kept before, which
        are those of another posterior, go. With new rows alone, "adam" and "bpr" take less time
        and forget some of what they knew: users who are not in them keep their parameters, but
        what is new rises above the rest.

        Numeric features are standardised as in the first fit. Histories are made anew from all
        rows. The index is built anew, as every item vector may have moved. Who was added by
        :meth:`add_users` or :meth:`add_items`, and is in no row by then, goes by features alone.

        While it learns, other threads get the answers of before. One thread at a time may make a
        model grow: what two of them learn from the same state is not put together.

        Examples
        --------
        >>> import fmknn
        >>> monday = fmknn.Interactions.from_arrays([1, 1, 2], [7, 8, 7], [5.0, 1.0, 4.0])
        >>> model = fmknn.Recommender(fmknn.FMRegressor(2, random_state=0)).fit(monday)
        >>> tuesday = fmknn.Interactions.from_arrays([3, 2], [9, 8], [2.0, 1.0])
        >>> model = model.partial_fit(tuesday)
        >>> model.users.ids, model.items.ids, model.recommend([3], n=2).counts
        (array([1, 2, 3]), array([7, 8, 9]), array([2], dtype=int32))
        """
        if not isinstance(interactions, Interactions):
            raise TypeError(
                f"partial_fit takes Interactions, got {type(interactions).__name__}: build them "
                "with Interactions.from_frame or from_arrays"
            )
        n_iter = None if n_iter is None else require_count("n_iter", n_iter)
        if not hasattr(self, "catalog_"):
            if known is not None or n_iter is not None:
                raise ValueError("the model is not fitted yet: known and n_iter are for later rows")
            return self.fit(interactions)
        now = copy.copy(self)
        service, before, estimator = now._service, now.catalog_, now.estimator_
        config = estimator.solver_spec().config
        past = now._past(known, getattr(config, "needs_all_rows", True))
        training = now._training
        if not estimator.predicts_values:  # it makes nothing of them
            past, interactions = past.replace(values=None), interactions.replace(values=None)
            training = None if training is None else training.replace(values=None)
        ids = {"user": before.users, "item": before.items}
        ids |= {name: side.ids for name, side in before.contexts.items()}
        rows = extended(past, interactions, ids, before.encoders)
        catalog = Catalog.of(rows, design_of_interactions(rows))
        catalog = with_past(catalog, before, is_news=not len(past))
        start = grown(service.model, columns_in(before, catalog), catalog.user_rows.n_columns)
        if len(interactions):
            solver_of, met = self._backend().solver, before.seen.pairs()
            alone = not len(past)
            estimator = estimator.continued(rows, start, n_iter, solver_of, met, alone)
        elif same_entities(catalog, before):
            return self  # no news
        else:
            estimator = estimator.with_params(start)
        vectors = item_matrix(estimator.params_, catalog.item_rows, n_jobs=estimator.n_jobs)
        index = built(self._empty_index(), vectors, estimator, catalog)
        if len(past):
            training = rows
        elif training is not None:  # what was known before is still so
            training = extended(training, interactions, ids, before.encoders)
        return self._become(estimator, catalog, index, training)

    def add_items(
        self: _G,
        items: Any = None,
        *,
        histories: Mapping[Any, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "mean",
    ) -> _G:
        """Add items that the training never saw; nothing is trained, and no other answer changes.

        Parameters
        ----------
        items : data frame, mapping of columns, FeatureTable or array-like of ids, optional
            A column of new ids, called as in a feature table, and features: those of training,
            some of them, or none. What is left out adds nothing. Default: those of ``histories``.
        histories : mapping of item id to history, optional
            Who took it, as in :meth:`users_for`. These users are not recommended it.
        context : mapping of str to a level, optional
            In which it was taken.
        unknown : {"raise", "skip"}
            What to do with user ids never seen: an error, or leave them out.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.

        Returns
        -------
        self
            With the items behind the others, in ascending order of their ids.

        Raises
        ------
        UnknownIdError, TypeError, ValueError
            As :meth:`users_for`, and for ids that are known or repeated. The model is then as it
            was.

        Notes
        -----
        Parameters of the features are those of training, so that an item that is described has
        its exact score. Those of its id are what :meth:`users_for` would solve from the history;
        without one they are 0, or where the squared loss was learned by "mcmc" or "adam" the mean
        of the ids. The vectors are appended to the index.

        A later :meth:`partial_fit` knows of the history only if its rows are among the new ones,
        and of an item without features only if its row of them comes with these.

        Examples
        --------
        >>> import fmknn
        >>> log = fmknn.Interactions.from_arrays(
        ...     [1, 1, 1, 2, 2],
        ...     [5, 6, 7, 5, 8],
        ...     [5.0, 4.0, 1.0, 4.0, 1.0],
        ...     item_features={"item": [5, 6, 7, 8], "genre": ["war", "war", "love", "love"]},
        ... )
        >>> estimator = fmknn.FMRegressor(2, solver="als", random_state=0)
        >>> model = fmknn.Recommender(estimator).fit(log)
        >>> model = model.add_items({"item": [9], "genre": ["war"]})
        >>> model.recommend([1], n=1).items  # neither 8, which is love
        array([[9]])
        """
        return self._add("item", items, histories, context, unknown, context_default)

    def add_users(
        self: _G,
        users: Any = None,
        *,
        histories: Mapping[Any, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "mean",
    ) -> _G:
        """Add users that the training never saw; nothing is trained, and no other answer changes.

        Parameters
        ----------
        users : data frame, mapping of columns, FeatureTable or array-like of ids, optional
            As the items of :meth:`add_items`.
        histories : mapping of user id to history, optional
            What each took, as in :meth:`recommend_for`. It is left out of their lists.
        context : mapping of str to a level, or to one level per user, optional
            In which it was taken.
        unknown : {"raise", "skip"}
            What to do with item ids never seen: an error, or leave them out.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.

        Returns
        -------
        self
            With the users behind the others, in ascending order of their ids.

        Raises
        ------
        UnknownIdError, TypeError, ValueError
            As :meth:`recommend_for`, and for ids that are known or repeated. The model is then as
            it was.

        Notes
        -----
        They get the lists that :meth:`recommend_for` gives somebody of these features and this
        history: see :meth:`add_items`. A later :meth:`partial_fit` learns from rows alone: give it
        those of the history, or their parameters go by the features again.

        Examples
        --------
        >>> import fmknn
        >>> log = fmknn.Interactions.from_arrays([1, 1, 2, 2, 3], [7, 8, 8, 9, 7])
        >>> model = fmknn.Recommender(fmknn.FMRanker(2, random_state=0)).fit(log)
        >>> model = model.add_users(histories={4: [9]})
        >>> model.recommend([4], n=1).items  # as 2, who took 9 too
        array([[8]])
        """
        return self._add("user", users, histories, context, unknown, context_default)

    def _add(
        self: _G,
        what: str,
        given: Any,
        histories: Mapping[Any, Any] | None,
        context: Mapping[str, Any] | None,
        unknown: str,
        context_default: str,
    ) -> _G:
        now = copy.copy(self)
        new = add(
            now._fold_in,
            what,
            given,
            histories,
            context,
            unknown=unknown,
            context_default=context_default,
        )
        training, features = now._training, new.table.columns
        encoder = (new.catalog.encoders or {})[what]
        needed = [column.name for column in encoder.columns if column.kind != "history"]
        if training is not None and all(name in features for name in needed):
            table = new.table if needed else None
            training = with_entities(training, what, new.table.ids, table)
        estimator = now.estimator_.with_params(new.model)
        return self._become(estimator, new.catalog, new.index, training)

    def _become(
        self: _G, estimator: Any, catalog: Catalog, index: Index, training: Interactions | None
    ) -> _G:
        """Take over what was learned, all at once: other threads see it all or nothing of it."""
        self.__dict__ = {
            **{name: value for name, value in vars(self).items() if name != "_related_kept"},
            "estimator_": estimator,
            "catalog_": catalog,
            "index_": index,
            "_training": training,
        }
        return self

    def _past(self, known: Interactions | None, needs_all_rows: bool) -> Interactions:
        """Return the rows known; none where the solver can do without."""
        if known is not None and not isinstance(known, Interactions):
            raise TypeError(f"known must be Interactions, got {type(known).__name__}")
        known = self._training if known is None else known
        if needs_all_rows and (known is None or not len(known)):
            raise ValueError(
                "this model's solver learns from all rows, and what it was trained on is not "
                "remembered in a file or in parameters: pass all earlier rows as known="
            )
        encoders = (self.catalog_.encoders or {}).values()
        histories = any(column.kind == "history" for side in encoders for column in side.columns)
        if histories and not (known is not None and len(known)):
            raise ValueError("histories are made of all rows: pass all earlier ones as known=")
        return vocabulary_of(self.catalog_) if known is None else known


def built(index: Index, vectors: np.ndarray, estimator: Any, catalog: Catalog) -> Index:
    """Build the index; only one that tunes itself on queries is worth projecting the users for."""
    if not getattr(index, "tunes_on_queries", False):
        return index.build(vectors)
    queries = sample_of_queries(estimator.params_, catalog, n_jobs=estimator.n_jobs)
    return index.build(vectors, queries)
