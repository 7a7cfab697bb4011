"""BPR: pairs of an item that a user has and one that the user has not, put in order by SGD."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from .._checks import require_count, require_number
from .._random import child_generator
from ..data.blocks import Design
from ..data.negatives import items_of_users
from ..model.params import FMParams
from .base import Callback, Fit, SolverSpec, Start, State, iterate
from .bpr_kernel import bpr_epoch
from .chain_state import array_of_state, iterations_done, require_loss
from .settings import Settings
from .warm import model_to_start_from, words_of

__all__ = ["BPR", "BPRSolver", "continued", "grown"]

_LARGEST = 1e6
_INIT_STREAM, _ORDER_STREAM, _ITEM_STREAM, _NEXT_STREAM = range(4)
_ALONE = 3  # passes over new rows without those of before
_ROWS_AT_ONCE = 1 << 18  # their draws are in memory together


@dataclasses.dataclass(frozen=True)
class BPR(Settings):
    """Settings of Bayesian personalised ranking.

    Parameters
    ----------
    n_iter : int
        Passes over the rows (epochs).
    learning_rate : float
        Length of the steps in the first epoch; it falls in equal parts down to 1 / n_iter of that.
    l2_linear, l2_factors : float
        Ridge penalties of w and V in each step, on the parameters that the step is about.
    n_negatives : int
        How many items are drawn for a row; the one of them that scores highest is held against
        the row's item. 1 is the sampling of [1]_, more is that of [2]_.
    init_sigma : float
        Standard deviation of the factors at the start, times the root of their number.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    For a row with item i, and an item j that its user has in no row, a step of gradient descent on

        -ln σ(ŷ_i - ŷ_j) + ½ l2_linear ‖w‖² + ½ l2_factors ‖V‖²

    is done ([1]_, section 4), with ŷ the score of the factorization machine [3]_ for the row's
    query entities and that item: contexts and features of all sides are part of it. What the query
    side has by itself is in both scores and is not learned: its w and w0 stay 0. Rows are drawn as
    often as their weights say, each once per epoch if they are alike; j is drawn from the items
    that occur in a row, all alike. One thread does the work, whatever ``n_jobs``: steps depend on
    one another. A step takes time in proportion to the features of its ``n_negatives`` + 1 items,
    which is much for items with long histories.

    The defaults were found on parts of the training rows of MovieLens 100K and 1M, by NDCG@10.

    References
    ----------
    .. [1] S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme. BPR: Bayesian Personalized
       Ranking from Implicit Feedback. UAI 2009.
    .. [2] W. Zhang, T. Chen, J. Wang, Y. Yu. Optimizing Top-N Collaborative Filtering via Dynamic
       Negative Item Sampling. SIGIR 2013.
    .. [3] S. Rendle. Factorization Machines. ICDM 2010.

    Examples
    --------
    >>> BPR(n_iter=10).learning_rate
    0.1
    """

    losses: ClassVar[tuple[str, ...]] = ("bpr",)
    needs_all_rows: ClassVar[bool] = False
    n_warm: ClassVar[int] = 5

    n_iter: int = 30
    learning_rate: float = 0.1
    l2_linear: float = 0.01
    l2_factors: float = 0.03
    n_negatives: int = 6
    init_sigma: float = 0.1

    def __post_init__(self) -> None:
        require_count("n_iter", self.n_iter)
        require_count("n_negatives", self.n_negatives)
        for name in ("learning_rate", "l2_linear", "l2_factors", "init_sigma"):
            require_number(name, getattr(self, name), _LARGEST)

    def going_on(self, n_iter: int | None = None, alone: bool = False) -> BPR:
        """Return the settings with which a training goes on from a model.

        With new rows alone, passes are fewer and steps half as long: items that are not in these
        rows are only drawn against those that are, and go down. The longer the way, the more is
        forgotten.

        Parameters
        ----------
        n_iter : int, optional
            Number of passes; default ``n_warm``, or 3 with new rows alone.
        alone : bool
            Whether it goes on with the new rows alone.

        Returns
        -------
        BPR

        Examples
        --------
        >>> BPR(learning_rate=0.1).going_on(alone=True).learning_rate
        0.05
        """
        if n_iter is None:
            n_iter = _ALONE if alone else self.n_warm
        rate = self.learning_rate / 2 if alone else self.learning_rate
        return dataclasses.replace(self, n_iter=n_iter, learning_rate=rate)

    def solver(self, spec: SolverSpec) -> BPRSolver:
        """Return the solver for what an estimator asks."""
        return BPRSolver(self, spec)


class BPRSolver:
    """Trains an FM by Bayesian personalised ranking; see :class:`BPR` for the settings.

    Parameters
    ----------
    config : BPR
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is not "bpr".
    """

    def __init__(self, config: BPR, spec: SolverSpec) -> None:
        require_loss(spec, config.losses, "BPR")
        self.config, self.spec = config, spec

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from ``start``; see :class:`fmknn.solvers.base.Solver`.

        Parameters
        ----------
        design : Design
            With blocks "user" and "item"; all blocks but "item" are the query.
        y : ndarray
            Not read: each row says that its query has its item.
        start : mapping of str to ndarray, or FMParams, optional
            The state of a training that was stopped; to go on with other rows after the end of
            one, see :func:`continued`. Or a model, from whose w and V it begins: an item is drawn
            if it has a row, or an id with parameters other than 0.
        callbacks : sequence of callable

        Returns
        -------
        Fit
            The metrics of an epoch are "loss", the mean of -ln σ over its pairs, and "auc", the
            share of them in which the row's item scored above the first one drawn.

        Raises
        ------
        ValueError
            If there is no pair to learn from, since each user has all items, or if ``start`` does
            not fit.
        DivergenceError
            If the loss is not finite.
        """
        run = _Run(self.config, self.spec, design, start)
        return iterate(
            run,
            first=run.first,
            n_iter=self.config.n_iter,
            callbacks=callbacks,
            progress=self.spec.progress,
            advice=f"lower learning_rate={self.config.learning_rate:g}",
            start=start,
        )


def continued(state: State) -> dict[str, np.ndarray]:
    """Return a start for n_iter more epochs, on other rows if need be, from the end of a training.

    Parameters
    ----------
    state : mapping of str to ndarray
        That of a :class:`fmknn.solvers.base.Fit`. If there are more features or items by now, see
        :func:`grown`.

    Returns
    -------
    dict of str to ndarray
        The same parameters, before the first epoch, and with other random numbers to come.

    Notes
    -----
    Items that had a row before may still be drawn, but which users had them is not known any
    more: only what a user has in the new rows is never drawn for that user. To keep a user's
    earlier items up, train on all rows of the users who have new ones. Learning rates start anew:
    a lower ``learning_rate`` changes less of what was learned.

    Examples
    --------
    >>> state = {"words": np.zeros(4, np.uint32), "iteration": np.array(30), "w": np.ones(2)}
    >>> going_on = continued(state)
    >>> int(going_on["iteration"]), going_on["w"], bool((going_on["words"] == 0).all())
    (0, array([1., 1.]), False)
    """
    words = child_generator(_words_of(state), _NEXT_STREAM).integers(2**32, size=4, dtype=np.uint32)
    return {**state, "words": words, "iteration": np.array(0)}


def grown(
    state: State, columns: np.ndarray, n_features: int, items: np.ndarray, n_items: int
) -> dict[str, np.ndarray]:
    """Return the state with room for features and items that came later.

    Parameters
    ----------
    state : mapping of str to ndarray
    columns : ndarray of int, shape (features so far,)
        The column that each feature has by now, below `n_features`.
    n_features : int
    items : ndarray of int, shape (items so far,)
        The place that each item has by now, below `n_items`.
    n_items : int

    Returns
    -------
    dict of str to ndarray
        New features have parameters of 0; those that occur in the rows of the next training get
        random factors at its start.
    """
    larger = dict(state)
    for name, places, size in (
        ("w", columns, n_features),
        ("V", columns, n_features),
        ("drawn", items, n_items),
    ):
        array = np.asarray(state[name])
        larger[name] = np.zeros((size, *array.shape[1:]), array.dtype)
        larger[name][places] = array
    return larger


class _Run:
    def __init__(self, config: BPR, spec: SolverSpec, design: Design, start: Start | None) -> None:
        self.config, self.design = config, design
        user, item = design.block("user"), design.block("item")
        names = [block.name for block in design.blocks]
        self.users = design.codes[names.index("user")]
        self.item = names.index("item")
        shape = (design.n_features, spec.n_factors)
        items = design.codes[self.item]
        self.drawn = np.bincount(items, minlength=item.stop - item.start) > 0
        if not isinstance(start, Mapping):
            params = model_to_start_from(start, design, spec)
            self.first, self.words = 0, words_of(spec.random_state, params)
            if params is None:
                params = FMParams(0.0, np.zeros(shape[0]), np.zeros(shape))
            self.w, self.V = params.w.copy(), params.V.copy()
            if design.met is None:
                vectors, biases = params.project(design.rows_of("item"))
                self.drawn |= vectors.any(axis=1) | (biases != 0)
            else:
                self.drawn[design.met[1]] = True
        else:
            self.first = iterations_done(start, config.n_iter)
            self.words = _words_of(start)
            self.w = array_of_state(start, "w", shape[:1])
            self.V = np.ascontiguousarray(array_of_state(start, "V", shape))
            self.drawn |= array_of_state(start, "drawn", self.drawn.shape, np.int8) > 0
        if self.first == 0:
            self._start_new_features()
        self.candidates = (np.flatnonzero(self.drawn) + item.start).astype(np.int32)
        users = self.users
        if design.met is not None:  # they are not drawn, though they have no row here
            users = np.concatenate([users, design.met[0]])
            items = np.concatenate([items, design.met[1]])
        places = (np.cumsum(self.drawn, dtype=np.int32) - 1)[items]
        self.first_positive, self.positives = items_of_users(
            users, places, user.stop - user.start, len(self.candidates)
        )
        self._require_pairs()

    def _start_new_features(self) -> None:
        """Give random factors to the features that occur in a row and have none yet."""
        entities, index = self.design.entities, self.design.index
        occurs = np.bincount(index.ravel(), minlength=len(entities)) > 0
        new = np.zeros(len(self.V), bool)
        new[entities.indices[np.repeat(occurs, np.diff(entities.indptr))]] = True
        new &= ~self.V.any(axis=1)
        generator = child_generator(self.words, _INIT_STREAM)
        factors = generator.standard_normal((int(new.sum()), self.V.shape[1]), dtype=np.float32)
        self.V[new] = factors * np.float32(
            self.config.init_sigma / math.sqrt(max(1, self.V.shape[1]))
        )

    def _require_pairs(self) -> None:
        has_all = np.diff(self.first_positive) == len(self.candidates)
        weights = self.design.weights
        if has_all[self.users if weights is None else self.users[weights > 0]].all():
            raise ValueError(
                "there is nothing to rank: each user has a row with each item that occurs"
            )

    def step(self, iteration: int) -> dict[str, float]:
        config, entities = self.config, self.design.entities
        rate = np.float32(config.learning_rate * (1.0 - iteration / config.n_iter))
        loss, n_right, n_pairs = 0.0, 0, 0
        for order, draws in self._rows(iteration):
            sums = bpr_epoch(
                order,
                self.design.index,
                self.item,
                self.users,
                entities.indptr,
                entities.indices,
                entities.values,
                self.candidates,
                self.first_positive,
                self.positives,
                draws,
                self.w,
                self.V,
                rate,
                np.float32(config.l2_linear),
                np.float32(config.l2_factors),
            )
            loss, n_right, n_pairs = loss + sums[0], n_right + sums[1], n_pairs + sums[2]
        if not (np.isfinite(self.w).all() and np.isfinite(self.V).all()):
            loss = np.nan
        return {"loss": loss / max(1, n_pairs), "auc": n_right / max(1, n_pairs)}

    def _rows(self, iteration: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of an epoch in their order, part by part, with what draws their items."""
        order = _drawn_rows(self.design, child_generator(self.words, _ORDER_STREAM, iteration))
        generator = child_generator(self.words, _ITEM_STREAM, iteration)
        for start in range(0, len(order), _ROWS_AT_ONCE):
            part = order[start : start + _ROWS_AT_ONCE]
            shape = len(part), self.config.n_negatives
            yield part, generator.integers(2**32, size=shape, dtype=np.uint32)

    def model(self) -> FMParams:
        return FMParams(0.0, self.w.copy(), self.V.copy())

    def state(self, iteration: int) -> dict[str, np.ndarray]:
        return {
            "w": self.w.copy(),
            "V": self.V.copy(),
            "drawn": self.drawn.astype(np.int8),
            "words": self.words.copy(),
            "iteration": np.array(iteration),
        }


def _drawn_rows(design: Design, generator: np.random.Generator) -> np.ndarray:
    """Return as many rows as there are, in random order, each as often as its weight says.

    At equal distances along the summed weights: a row whose share is 2.3 comes 2 or 3 times.
    """
    order = generator.permutation(design.n_rows)
    if design.weights is None:
        return order
    ends = np.cumsum(design.weights, dtype=np.float64)
    at = (order + generator.random()) * (ends[-1] / len(order))
    last = np.flatnonzero(design.weights)[-1]
    return np.minimum(np.searchsorted(ends, at, side="right"), last)


def _words_of(state: State) -> np.ndarray:
    return array_of_state(state, "words", (4,), np.uint32)
