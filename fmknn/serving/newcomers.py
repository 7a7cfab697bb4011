"""Newcomers: what a fitted model is asked about people and items that it was not trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from .foldin import FoldIn, one
from .queries import id_list
from .topn import TopN

__all__ = ["Newcomers"]


class Newcomers(ABC):
    """The part of :class:`fmknn.serving.answers.Answers` that is about newcomers.

    Notes
    -----
    Nothing is trained. What is known of somebody, features and the history column, becomes a row
    as in training, and the parameters of their own id are those that a training would give them if
    all others stayed as they are: the closed form of a row update in alternating least squares
    [1]_. So a person who was in a training that has converged, and whose history is theirs of the
    training, gets the answers that :meth:`recommend` gives.

    * FMRanker with the whole-data loss: the same weights, α0 and penalties.
    * FMRegressor with solver="als": a ridge regression with the same penalties.
    * FMRegressor with solver="mcmc": for each sample the conditional mean, under a Normal prior
      with mean and covariance of that sample's ids in place of the drawn hyperparameters, and with
      the noise of the training's residuals. Scores are means over the samples.
    * FMRegressor with solver="adam": likewise, with its one set of parameters.

    Other losses have no closed form: their models go by features alone. So do sides without an id
    (``FeatureTable(…, id_feature=False)``), whatever the loss.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky. Collaborative Filtering for Implicit Feedback Datasets.
       ICDM 2008, section 4.
    """

    @property
    @abstractmethod
    def _fold_in(self) -> FoldIn:
        """Return what answers."""

    def recommend_for(
        self,
        *,
        history: Any = None,
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        n: int = 10,
        exclude_seen: bool = True,
        exclude: Any = None,
        candidates: Any = None,
        unknown: str = "raise",
        context_default: str = "raise",
        popularity: float = 1.0,
    ) -> TopN:
        """Return the n best items for one person whom the training never saw.

        Parameters
        ----------
        history : array-like of item ids, or mapping of item id to value, optional
            What the person took. Values are ratings for an FMRegressor, which needs them, and
            counts for an FMRanker; a list counts how often it names an item.
        features : mapping of column to value, optional
            As in the row of a user in the training's feature table. What is left out adds nothing.
        context : mapping of str to a level, optional
            Of the list, and of the history.
        n : int
            List length; fewer come back where fewer are available.
        exclude_seen : bool
            Leave out the items of the history.
        exclude : array-like of item ids, optional
            More items to leave out.
        candidates : array-like of item ids, optional
            The only items that may come back.
        unknown : {"raise", "skip"}
            What to do with item ids never seen: an error, or leave them out.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.
        popularity : float
            How much the biases of items count, from 0 to 1; see :meth:`recommend`.

        Returns
        -------
        TopN
            Of one list; its ``users`` are ``[None]``.

        Raises
        ------
        UnknownIdError
            For an unknown item under "raise", or an unknown level of a context.
        TypeError
            For ids of another type than in training, or a feature of another kind.
        ValueError
            For an unknown feature or a level of one, a history where the loss has no closed form,
            or a value out of range.

        Examples
        --------
        >>> import numpy as np
        >>> import fmknn
        >>> users, items = np.divmod(np.arange(400), 20)
        >>> bought = (users % 2 == items % 2) & (users != items)  # one's own kind, but not all
        >>> log = fmknn.Interactions.from_arrays(users[bought], items[bought])
        >>> model = fmknn.Recommender(fmknn.FMRanker(4, random_state=0)).fit(log)
        >>> top = model.recommend_for(history=[1, 3, 5, 7], n=3)
        >>> bool((top.items % 2 == 1).all())
        True
        """
        return self._fold_in.recommend(
            one(),
            [history],
            n,
            features=features,
            context=context,
            exclude_seen=exclude_seen,
            exclude=exclude,
            candidates=candidates,
            unknown=unknown,
            context_default=context_default,
            popularity=popularity,
        )

    def recommend_for_many(
        self,
        histories: Mapping[Any, Any],
        n: int = 10,
        *,
        context: Mapping[str, Any] | None = None,
        exclude_seen: bool = True,
        candidates: Any = None,
        unknown: str = "raise",
        context_default: str = "raise",
        popularity: float = 1.0,
    ) -> TopN:
        """Return the n best items for each of many people whom the training never saw.

        Parameters
        ----------
        histories : mapping of name to history
            Names are integers or strings, the training's users or others: they only come back.
            Histories are as in :meth:`recommend_for`.
        n, exclude_seen, candidates, unknown, context_default, popularity
            As in :meth:`recommend_for`.
        context : mapping of str to a level, or to one level per person, optional

        Returns
        -------
        TopN
            Its ``users`` are the names, in their order. A list is the same to the bit whoever else
            is asked for.

        Raises
        ------
        UnknownIdError, TypeError, ValueError
            As :meth:`recommend_for`.
        """
        if not isinstance(histories, Mapping):
            raise TypeError(
                f"histories must be a mapping from name to history, got {type(histories).__name__}"
            )
        return self._fold_in.recommend(
            id_list(list(histories), "name"),
            list(histories.values()),
            n,
            features=None,
            context=context,
            exclude_seen=exclude_seen,
            exclude=None,
            candidates=candidates,
            unknown=unknown,
            context_default=context_default,
            popularity=popularity,
        )

    def users_for(
        self,
        *,
        history: Any = None,
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        n: int = 10,
        exclude_seen: bool = True,
        exclude: Any = None,
        candidates: Any = None,
        unknown: str = "raise",
        context_default: str = "mean",
    ) -> TopN:
        """Return the n users to whom to offer an item that the training never saw.

        For items of the training there is :meth:`users_for_item`.

        Parameters
        ----------
        history : array-like of user ids, or mapping of user id to value, optional
            Who took it; values as in :meth:`recommend_for`. A whole-data model with contexts
            takes none.
        features : mapping of column to value, optional
            As in the row of an item in the training's feature table.
        context : mapping of str to a level, optional
        n : int
            List length; fewer come back where fewer are available.
        exclude_seen : bool
            Leave out the users of the history.
        exclude, candidates : array-like of user ids, optional
            Users to leave out, and the only ones that may come back.
        unknown : {"raise", "skip"}
            What to do with user ids never seen: an error, or leave them out.
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.

        Returns
        -------
        TopN
            Of one list, best first: its ``users`` are ``[None]``, the item, and its ``items`` the
            ids of users. Scores compare users here, as they are all of one item.

        Raises
        ------
        UnknownIdError, TypeError, ValueError
            As :meth:`recommend_for`.
        """
        return self._fold_in.users_for(
            history,
            n,
            features=features,
            context=context,
            exclude_seen=exclude_seen,
            exclude=exclude,
            candidates=candidates,
            unknown=unknown,
            context_default=context_default,
        )
