"""FMRanker: items in the order in which they are likely to be taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._sklearn import not_fitted
from ..data.blocks import Design, design_of_interactions
from ..data.counts import counted
from ..data.growth import extended
from ..data.ids import IdMap
from ..data.interactions import Interactions
from ..model.params import FMParams
from ..solvers.base import Fit, SolverSpec
from ..solvers.bpr import BPR, continued, grown
from ..solvers.row_rules import WholeDataRow
from ..solvers.whole_data import WholeData
from .base import PARAMETERS, FMEstimator
from .growth import columns_of
from .solver_choice import config_of

__all__ = ["FMRanker"]


class FMRanker(FMEstimator):
    __doc__ = (
        "Factorization machine for implicit feedback: purchases, clicks, plays.\n"
        + PARAMETERS.format(
            solvers='{"whole-data", "bpr"}',
            configs=":class:`fmknn.WholeData` and :class:`fmknn.BPR`",
            losses='{"whole-data", "bpr"}',
        )
        + """
    Attributes
    ----------
    params_ : FMParams
    history_ : tuple of dict
        One entry per pass, with the loss and its parts.
    state_ : dict of str to ndarray
        What ``fit(interactions, start=state_)`` goes on from.
    n_iter_ : int
    n_features_in_ : int

    Notes
    -----
    It learns from Interactions alone, and each row is one thing taken, whatever its value: leave
    out the rows that say no. Repeated rows are one pair with a count, the sum of their weights;
    what a count is worth, and what the losses are, is said in :class:`fmknn.WholeData` and
    :class:`fmknn.BPR`. Scores rank; they are no probabilities.

    Examples
    --------
    >>> from fmknn import Interactions
    >>> users, items = np.divmod(np.arange(400), 20)
    >>> bought = (users % 2 == items % 2) & (users != items)  # one's own kind, but not all of it
    >>> log = Interactions.from_arrays(users[bought], items[bought])
    >>> ranker = FMRanker(n_factors=4, random_state=0).fit(log)
    >>> likely, unlikely = ranker.linear_predictor(
    ...     Interactions(log.users, log.items, user_index=[4, 4], item_index=[4, 5])
    ... )
    >>> bool(likely > 0.1 > unlikely)
    True
    """
    )

    predicts_values = False
    _losses = ("whole-data", "bpr")
    _solvers = ("whole-data", "bpr")

    def __init__(
        self,
        n_factors: int = 64,
        *,
        solver: Any = None,
        loss: str | None = None,
        n_iter: int | None = None,
        random_state: Any = None,
        n_jobs: int | None = 1,
        callbacks: Sequence[Any] = (),
        progress: bool = False,
    ) -> None:
        super().__init__(
            n_factors,
            solver=solver,
            loss=loss,
            n_iter=n_iter,
            random_state=random_state,
            n_jobs=n_jobs,
            callbacks=callbacks,
            progress=progress,
        )

    def _training_data(
        self, X: Any, y: Any, blocks: Any, weights: Any
    ) -> tuple[Design, np.ndarray]:
        if not isinstance(X, Interactions):
            raise TypeError(
                f"FMRanker takes Interactions, got {type(X).__name__}: build them with "
                "Interactions.from_frame or from_arrays"
            )
        if y is not None or blocks is not None or weights is not None:
            raise ValueError("Interactions bring their own blocks and weights: pass X only")
        if len(X) == 0:
            raise ValueError("there are no interactions: the data is empty")
        design = design_of_interactions(counted(X))
        if design.n_rows == 0:
            raise ValueError("weights are all zero: no row would count")
        return design, np.ones(design.n_rows, np.float32)

    @property
    def ids_(self) -> dict[str, IdMap]:
        """What the columns stand for: the ids of "user", "item" and each context, in their order.

        Empty after a load.
        """
        if not hasattr(self, "params_"):
            raise not_fitted(self)
        return {} if self._vocabulary is None else dict(self._vocabulary[0])

    def partial_fit(self, interactions: Interactions) -> FMRanker:
        """Go on with new rows alone, for n_iter more epochs; with solver="bpr" only.

        Parameters
        ----------
        interactions : Interactions
            With the contexts of training, and any ids: those that are new get parameters of their
            own, all others keep theirs, and move where they are in the new rows. Where there are
            feature tables it must share the vocabulary of training, as the parts of a split do.

        Returns
        -------
        self
            Fitted, if it was not.

        Raises
        ------
        ValueError
            For another solver, or a vocabulary or contexts that do not go with those of training.

        Notes
        -----
        Which items a user had before is not known any more, so they may be drawn against the new
        ones: see :func:`fmknn.solvers.bpr.continued`. Behind an index it comes by
        ``Recommender.from_params``, with ``ids_``.

        Examples
        --------
        >>> from fmknn import Interactions
        >>> ranker = FMRanker(n_factors=4, solver="bpr", n_iter=5, random_state=0)
        >>> ranker = ranker.fit(Interactions.from_arrays([1, 1, 2], [7, 8, 9]))
        >>> ranker = ranker.partial_fit(Interactions.from_arrays([2, 3], [7, 9]))
        >>> ranker.ids_["user"].ids.tolist(), ranker.n_features_in_
        ([1, 2, 3], 6)
        """
        if not isinstance(config_of(self.resolved()[0]), BPR):
            raise ValueError(
                'partial_fit needs solver="bpr": the whole-data loss is about all rows'
            )
        if not hasattr(self, "params_"):
            return self.fit(interactions)
        if not isinstance(interactions, Interactions):
            raise TypeError(f"FMRanker takes Interactions, got {type(interactions).__name__}")
        if not self.ids_ or "drawn" not in self.state_:
            raise ValueError(
                "this ranker has no state to go on from, as it was loaded or grew: fit it anew, "
                "or go on by Recommender.partial_fit"
            )
        start = continued(self.state_)
        if not self._shares_vocabulary(interactions):
            _, tables = self._vocabulary or ({}, ())
            tables = (*tables, interactions.user_features, interactions.item_features)
            if any(table is not None for table in tables):
                raise ValueError(
                    "these interactions have another vocabulary than those of training, and with "
                    "feature tables it can't grow: take both from one Interactions"
                )
            interactions = extended(interactions.take([]), interactions, self.ids_)
            design = design_of_interactions(interactions)
            columns = columns_of(self.ids_, interactions, design)
            items = interactions.items.positions(self.ids_["item"].ids)
            start = grown(start, columns, design.n_features, items, len(interactions.items))
        return self.fit(interactions, start=start)

    def link(self, scores: np.ndarray, sample: FMParams | None = None) -> np.ndarray:
        """Return scores as they are: they rank, and stand for nothing else.

        Parameters
        ----------
        scores : ndarray of float64, any shape
        sample : FMParams, optional
            Not needed.

        Returns
        -------
        ndarray of float64, of the same shape
        """
        return scores

    def link_state(self) -> dict[str, Any]:
        """Return what :meth:`link` needs: nothing."""
        return {}

    def set_link_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`link_state` gave."""

    def _learn_link(self, y: np.ndarray) -> dict[str, Any]:
        return {}

    def _learn_row_rule(
        self, spec: SolverSpec, design: Design, targets: np.ndarray, fit: Fit
    ) -> WholeDataRow | None:
        config = spec.config
        if not isinstance(config, WholeData):
            return None
        return WholeDataRow(
            float(fit.state["alpha0"]),
            float(config.l2_factors),
            float(config.l2_linear),
            float(config.nu),
            float(config.count_power),
            bool(config.biases),
        )

    def _encode(self, y: np.ndarray, link_state: dict[str, Any]) -> np.ndarray:
        return y

    def encode_targets(self, y: np.ndarray) -> np.ndarray:
        """Refuse: a ranker predicts no values.

        Raises
        ------
        ValueError
        """
        raise ValueError("FMRanker ranks and predicts no values: ask for ranking metrics")
