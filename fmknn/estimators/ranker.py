"""FMRanker: items in the order in which they are likely to be taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.blocks import Design, design_of_interactions
from ..data.counts import counted
from ..data.interactions import Interactions
from ..model.params import FMParams
from ..solvers.base import Fit, SolverSpec
from ..solvers.row_rules import WholeDataRow
from ..solvers.whole_data import WholeData
from .base import PARAMETERS, FMEstimator

__all__ = ["FMRanker"]


class FMRanker(FMEstimator):
    __doc__ = (
        "Factorization machine for implicit feedback: purchases, clicks, plays.\n"
        + PARAMETERS.format(
            solvers='{"whole-data", "bpr"}', losses='{"whole-data", "bpr"}'
        ).replace("and\n        :class:`fmknn.Gibbs`", "")
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
