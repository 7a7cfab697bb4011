"""Relations: what a fitted model says of its own users and items, apart from lists for users."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from .by_index import Related
from .explain import Explanation, explain
from .service import Service
from .topn import TopN

__all__ = ["Relations"]

_lock = threading.Lock()  # held while an object is looked up, not while its indexes are built


class Relations(ABC):
    """The part of :class:`fmknn.serving.answers.Answers` that is about users and items themselves.

    Notes
    -----
    Lists come from indexes of the kind of the model's own, built when they are first asked for.
    They take as much memory as the index of as many items, are dropped when the model changes, and
    are neither copied nor saved with it.
    """

    @property
    @abstractmethod
    def _service(self) -> Service:
        """Return what answers."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_related_kept"}

    @property
    def _related(self) -> Related:
        own = vars(self)  # before the service: what learning has replaced gets nothing old
        service = self._service
        with _lock:
            kept: Related | None = own.get("_related_kept")
            if kept is None or not kept.is_of(service):
                kept = own["_related_kept"] = Related(service)
            return kept

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
            Its ``users`` are the items asked for; in a frame they are called "item", those listed
            "similar_item". An item whose vector is 0 is like nothing: its
            scores are 0.

        Raises
        ------
        UnknownIdError
            For an unknown id under "raise".
        TypeError
            For ids of another type than in training.
        ValueError
            For n below 1.
        """
        related = self._related
        catalog = related.service.catalog
        return related.similar(catalog.items, catalog.item_rows, items, n, unknown)

    def similar_users(self, users: Any, n: int = 10, *, unknown: str = "raise") -> TopN:
        """Return the n users most like each given one, by the cosine of their vectors q_u.

        The user is left out; biases and contexts play no part.

        Parameters
        ----------
        users : array-like of ids, or a single id
        n : int
            List length; at most all other users come back.
        unknown : {"raise", "skip", "cold"}
            As in :meth:`similar_items`.

        Returns
        -------
        TopN
            Its ``items`` are ids of users; in a frame they are called "similar_user". A user
            whose vector is 0, as that of one without training rows and features may be, is like
            nobody: the scores are 0.

        Raises
        ------
        UnknownIdError, TypeError, ValueError
            As :meth:`similar_items`.
        """
        related = self._related
        catalog = related.service.catalog
        return related.similar(catalog.users, catalog.user_rows, users, n, unknown)

    def users_for_item(
        self,
        items: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Any = None,
        candidates: Any = None,
        context: Mapping[str, Any] | None = None,
        context_default: str = "mean",
        unknown: str = "raise",
    ) -> TopN:
        """Return the n users who score highest for each item: whom to send a newsletter about it.

        For an item that the training never saw there is :meth:`users_for`.

        Parameters
        ----------
        items : array-like of ids, or a single id
        n : int
            List length; fewer come back where fewer are available.
        exclude_seen : bool
            Leave out the users who have the item in training.
        exclude, candidates : array-like of user ids, optional
            Users to leave out, and the only ones that may come back, for all items.
        context : mapping of str to a level, or to one level per item, optional
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for.
        unknown : {"raise", "skip"}
            What to do with ids of items and users never seen: an error, or leave them out.

        Returns
        -------
        TopN
            Its ``users`` are the items asked for, its ``items`` ids of users, best first, ties in
            the order of their positions. Scores are those of :meth:`scores` to the bit: they
            compare users, as all of a list are of one item.

        Raises
        ------
        UnknownIdError
            For an unknown id under "raise", or an unknown level of a context.
        TypeError
            For ids of another type than in training.
        ValueError
            For an unknown context, or a value out of range.

        Examples
        --------
        >>> import fmknn
        >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
        >>> model = fmknn.Recommender(fmknn.FMRegressor(n_iter=1, random_state=0)).fit(ratings)
        >>> top = model.users_for_item([3, 7], n=2)
        >>> top.users, top.items.shape
        (array([3, 7]), (2, 2))
        >>> bool((top.scores[0] == model.scores(top.items[0], [3, 3])).all())
        True
        """
        return self._related.users_for_item(
            items,
            n,
            exclude_seen=exclude_seen,
            exclude=exclude,
            candidates=candidates,
            context=context,
            context_default=context_default,
            unknown=unknown,
        )

    def explain(
        self,
        user: Any,
        item: Any,
        *,
        context: Mapping[str, Any] | None = None,
        context_default: str = "raise",
        unknown: str = "raise",
        pairs: str = "auto",
    ) -> Explanation:
        """Return the score of a user and an item as a sum of named terms.

        Parameters
        ----------
        user, item : id
        context : mapping of str to a level, optional
        context_default : {"raise", "zero", "mean"}
            What a context column that is left out stands for. Under "mean" it is one term, named
            "weekday (mean)".
        unknown : {"raise", "cold"}
            Under "cold" an unknown id contributes nothing.
        pairs : {"auto", "feature", "field"}
            A term for each pair of features, or one for each pair of fields, where a field is an
            id, a column of features or a context. "auto" means fields if there are more than 500
            features, as histories have: n features make n (n - 1) / 2 pairs.

        Returns
        -------
        Explanation

        Raises
        ------
        UnknownIdError
            For an unknown id under "raise".
        TypeError
            For ids of another type than in training.
        ValueError
            For more than one id, a missing or unknown context, or a value out of range.

        Notes
        -----
        The terms are those of the equation of a factorization machine (Rendle, "Factorization
        Machines", ICDM 2010, eq. 1): w0, w_p x_p of each feature, and <v_p, v_q> x_p x_q of each
        pair; of a posterior, their means over its samples. They are float64 sums of the parameters,
        where :meth:`scores` rounds vectors to float32 in between: the two differ by that, about
        10⁻⁷ of the largest terms. Without :func:`fmknn.FeatureTable`'s columns, as in files of
        early versions, features go by their numbers.

        Examples
        --------
        >>> import fmknn
        >>> params = fmknn.FMParams(3.0, [0.0, 0.5, 0.1, 0.2], [[1.0], [2.0], [1.0], [-1.0]])
        >>> model = fmknn.Recommender.from_params(params, users=["bob", "ann"], items=[50, 22])
        >>> model.explain("ann", 50)
        Explanation(user 'ann', item 50: score 5.6)
          +3         global
          +2         user=ann × item=50
          +0.5       user=ann
          +0.1       item=50
        """
        return explain(
            self._service,
            user,
            item,
            context,
            context_default=context_default,
            unknown=unknown,
            pairs=pairs,
        )
