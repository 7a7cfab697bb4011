"""make_interactions: data drawn from a factorization machine whose parameters are returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
from scipy import sparse

from .._random import seed_sequence
from ..data.features import FeatureTable
from ..data.ids import IdMap
from ..data.interactions import Context, Interactions
from .pairs import draw_pairs

__all__ = ["PlantedFM", "make_interactions"]

_BIAS_SD = 0.4  # of an entity's linear part
_PAIR_SD = 0.7  # of <user vector, item vector>
_W0 = 0.5
_CONTEXT_SHARE = 0.5  # contexts matter less than users and items
_N_GROUPS = 8
_N_TAGS = 12
_CHUNK = 1 << 18  # rows scored at a time, so that their vectors stay in the cache


@dataclass(frozen=True)
class PlantedFM:
    """The factorization machine behind the data of :func:`make_interactions`.

    Attributes
    ----------
    w0 : float
    w, V : dict of str to ndarray
        Parameters of "user", "item" and "context" ids, of "user_features" and "item_features":
        shapes (n,) and (n, n_factors).
    feature_names : dict of str to list of str
        What the rows of ``w["user_features"]`` and ``w["item_features"]`` stand for, in the words
        of :meth:`FeatureTable.encode`.
    bias, vectors : dict of str to ndarray
        The same model seen by entity, for "user", "item" and "context":
        y = w0 + Σ_g bias_g + Σ_{g<h} <vectors_g, vectors_h>.
    row_scores : ndarray of float64, shape (n_ratings,)
        The score of each row of the data, before noise and rounding.

    Examples
    --------
    >>> ratings, truth = make_interactions(10, 7, 20, n_factors=3)
    >>> truth.vectors["item"].shape, truth.V["item_features"].shape[1]
    ((7, 3), 3)
    >>> bool((truth.scores(ratings.user_index, ratings.item_index) == truth.row_scores).all())
    True
    """

    w0: float
    w: Mapping[str, np.ndarray]
    V: Mapping[str, np.ndarray]
    feature_names: Mapping[str, list[str]]
    bias: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    row_scores: np.ndarray

    def scores(
        self, user_positions: Any, item_positions: Any, context_positions: Any = None
    ) -> np.ndarray:
        """Return the noise-free score of any pairs.

        Parameters
        ----------
        user_positions, item_positions : array-like of int
            Positions in the vocabularies, which are also the ids; broadcast against each other.
        context_positions : array-like of int, optional
            Needed if and only if the data has a context.

        Returns
        -------
        ndarray of float64
            Of the shape that the positions have together.

        Raises
        ------
        ValueError
            For a position out of range, or a context missing or not foreseen.

        Examples
        --------
        >>> _, truth = make_interactions(10, 7, 20)
        >>> truth.scores(np.arange(10)[:, None], np.arange(7)).shape
        (10, 7)
        """
        asked = {"user": user_positions, "item": item_positions, "context": context_positions}
        if context_positions is None:
            del asked["context"]
        if asked.keys() != self.bias.keys():
            state = "needs" if "context" in self.bias else "has no"
            raise ValueError(f"this model {state} context: check context_positions")
        index = {name: np.asarray(positions) for name, positions in asked.items()}
        for name, positions in index.items():
            n = len(self.bias[name])
            if positions.size and (positions.min() < 0 or positions.max() >= n):
                raise ValueError(f"{name} position outside 0..{n - 1}")
        return _score(self.w0, self.bias, self.vectors, index)


@overload
def make_interactions(
    n_users: int = ...,
    n_items: int = ...,
    n_ratings: int = ...,
    n_factors: int = ...,
    *,
    zipf: float = ...,
    user_features: bool = ...,
    item_features: bool = ...,
    context: int | None = ...,
    noise: float = ...,
    rating_scale: tuple[float, float] | None = ...,
    random_state: Any = ...,
    return_truth: Literal[True] = ...,
) -> tuple[Interactions, PlantedFM]: ...


@overload
def make_interactions(
    n_users: int = ...,
    n_items: int = ...,
    n_ratings: int = ...,
    n_factors: int = ...,
    *,
    zipf: float = ...,
    user_features: bool = ...,
    item_features: bool = ...,
    context: int | None = ...,
    noise: float = ...,
    rating_scale: tuple[float, float] | None = ...,
    random_state: Any = ...,
    return_truth: Literal[False],
) -> Interactions: ...


def make_interactions(
    n_users: int = 1000,
    n_items: int = 500,
    n_ratings: int = 20_000,
    n_factors: int = 8,
    *,
    zipf: float = 1.0,
    user_features: bool = True,
    item_features: bool = True,
    context: int | None = None,
    noise: float = 0.3,
    rating_scale: tuple[float, float] | None = None,
    random_state: Any = 0,
    return_truth: bool = True,
) -> tuple[Interactions, PlantedFM] | Interactions:
    """Draw interactions from a factorization machine and return it as well.

    Parameters
    ----------
    n_users, n_items : int
        Ids are 0 to n - 1; all are in the vocabulary, rated or not.
    n_ratings : int
        Rows. Each pair of user and item occurs at most once.
    n_factors : int
    zipf : float
        The item of popularity rank r is drawn with probability proportional to r^-zipf; 0 makes
        all items alike. Which item has which rank is drawn too.
    user_features : bool
        Give users a categorical column "group" and a numeric column "taste".
    item_features : bool
        Give items a multi-valued column "tags" of one to three values.
    context : int, optional
        Give rows a context column "context" of that many levels, 0 to ``context`` - 1.
    noise : float
        Standard deviation of the Gaussian noise added to the scores.
    rating_scale : tuple of float, optional
        Lowest and highest rating, (1, 5) say: scores are centred on the middle of it with about a
        quarter of its width as standard deviation, and the values are rounded to whole steps.
    random_state : int, numpy Generator, SeedSequence or None
    return_truth : bool

    Returns
    -------
    interactions : Interactions
        Rows in random order.
    truth : PlantedFM
        If ``return_truth``.

    Raises
    ------
    ValueError
        For a size below 1, more ratings than pairs, negative noise or popularity exponent, or an
        empty rating scale.

    Notes
    -----
    Each (user, item) pair has an exponential clock whose rate is the popularity of the item, and
    the pairs whose clocks ring before a common time are rated. This is weighted sampling without
    replacement (Efraimidis & Spirakis 2006): popularity falls as r^-zipf and levels off where an
    item has been rated by everybody.

    For implicit feedback that follows the planted taste, keep the rows with a high score:
    ``ratings.take(truth.row_scores > truth.w0).replace(values=None)``.

    Examples
    --------
    >>> ratings, truth = make_interactions(100, 50, 1000, noise=0)
    >>> ratings
    Interactions(1000 rows, 100 users, 50 items, values)
    >>> scores = truth.scores(ratings.user_index, ratings.item_index)
    >>> bool(np.allclose(ratings.values, scores, atol=1e-6))
    True
    """
    sizes = {"n_users": n_users, "n_items": n_items, "n_ratings": n_ratings, "n_factors": n_factors}
    if context is not None:
        sizes["context"] = context
    _check(sizes, zipf, noise, rating_scale)
    rng = np.random.default_rng(seed_sequence(random_state))
    tables = {
        "user": _user_table(n_users, rng) if user_features else None,
        "item": _item_table(n_items, rng) if item_features else None,
    }
    low, high = rating_scale if rating_scale is not None else (0.0, 4.0)
    model = _Model(n_factors, unit=(high - low) / 4, rng=rng)
    model.add("user", n_users, tables["user"])
    model.add("item", n_items, tables["item"])
    if context is not None:
        model.add("context", context, None, share=_CONTEXT_SHARE)
    w0 = _W0 if rating_scale is None else (low + high) / 2

    users, items = draw_pairs(n_users, n_items, n_ratings, zipf, rng)
    index = {"user": users, "item": items}
    if context is not None:
        index["context"] = rng.integers(context, size=n_ratings, dtype=np.int32)
    scores = _score(w0, model.bias, model.vectors, index)
    values = rng.standard_normal(n_ratings)
    values *= noise
    values += scores
    if rating_scale is not None:
        values = np.clip(low + np.rint(values - low), low, high)
    interactions = Interactions(
        users=IdMap(np.arange(n_users), "user"),
        items=IdMap(np.arange(n_items), "item"),
        user_index=index["user"],
        item_index=index["item"],
        values=values.astype(np.float32),
        context={}
        if context is None
        else {"context": Context(IdMap(np.arange(context), "context"), index["context"])},
        user_features=tables["user"],
        item_features=tables["item"],
    )
    if not return_truth:
        return interactions
    truth = PlantedFM(w0, model.w, model.V, model.feature_names, model.bias, model.vectors, scores)
    return interactions, truth


def _check(sizes: Mapping[str, Any], zipf: Any, noise: Any, rating_scale: Any) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= int(size) < 2**31:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {size!r}")
    if sizes["n_ratings"] > sizes["n_users"] * sizes["n_items"]:
        raise ValueError(
            f"n_ratings={sizes['n_ratings']} is more than the "
            f"{sizes['n_users'] * sizes['n_items']} pairs of n_users x n_items"
        )
    for name, number in (("zipf", zipf), ("noise", noise)):
        if not isinstance(number, Real) or not 0 <= float(number) < np.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more, got {number!r}")
    if rating_scale is not None:
        try:
            low, high = (float(end) for end in rating_scale)
        except (TypeError, ValueError):
            raise ValueError(
                f"rating_scale must be (lowest, highest), got {rating_scale!r}"
            ) from None
        if not (low < high and np.isfinite(high - low)):
            raise ValueError(f"rating_scale must ascend, got {rating_scale!r}")


def _user_table(n: int, rng: np.random.Generator) -> FeatureTable:
    groups = np.array([f"group {level}" for level in range(_N_GROUPS)], dtype=object)
    columns = {"group": groups[rng.integers(_N_GROUPS, size=n)], "taste": rng.standard_normal(n)}
    return FeatureTable(np.arange(n), columns)


def _item_table(n: int, rng: np.random.Generator) -> FeatureTable:
    drawn = np.argsort(rng.random((n, _N_TAGS)), axis=1)[:, :3]
    counts = rng.integers(1, 4, size=n)
    tags = np.empty(n, dtype=object)
    for item, (row, count) in enumerate(zip(drawn.tolist(), counts.tolist(), strict=True)):
        tags[item] = tuple(f"tag {tag}" for tag in row[:count])
    return FeatureTable(np.arange(n), {"tags": tags})


class _Model:
    """Draws the parameters of one block after the other, and projects them on its entities."""

    def __init__(self, n_factors: int, unit: float, rng: np.random.Generator) -> None:
        self.n_factors, self.unit, self.rng = n_factors, unit, rng
        self.w: dict[str, np.ndarray] = {}
        self.V: dict[str, np.ndarray] = {}
        self.feature_names: dict[str, list[str]] = {}
        self.bias: dict[str, np.ndarray] = {}
        self.vectors: dict[str, np.ndarray] = {}

    def add(self, block: str, n: int, table: FeatureTable | None, share: float = 1.0) -> None:
        # every column adds to an entity's bias and vector alike; pairs of vectors are to have
        # _PAIR_SD, which is the square root of n_factors times the variance of one coordinate
        share /= np.sqrt(1 + (0 if table is None else len(table.features)))
        w, V = self._draw(block, n, share)
        if table is None:
            self.bias[block], self.vectors[block] = w, V
            return
        rows, names = table.encode()
        name = f"{block}_features"
        self.feature_names[name] = names
        w_side, V_side = self._draw(name, len(names), share)
        X = sparse.csr_matrix(
            (rows.values.astype(np.float64), rows.indices, rows.indptr), (n, len(names))
        )
        q = V + X @ V_side
        # pairs inside the block: ½(‖q‖² - Σ x²‖v‖²)
        own = (V**2).sum(axis=1) + X.multiply(X) @ (V_side**2).sum(axis=1)
        self.vectors[block] = q
        self.bias[block] = w + X @ w_side + 0.5 * ((q**2).sum(axis=1) - own)

    def _draw(self, name: str, n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        factor_sd = np.sqrt(self.unit * _PAIR_SD / np.sqrt(self.n_factors))
        self.w[name] = share * self.unit * _BIAS_SD * self.rng.standard_normal(n)
        self.V[name] = share * factor_sd * self.rng.standard_normal((n, self.n_factors))
        return self.w[name], self.V[name]


def _score(
    w0: float,
    bias: Mapping[str, np.ndarray],
    vectors: Mapping[str, np.ndarray],
    index: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Textbook y = w0 + Σ b + Σ <q_g, q_h> by entities, a chunk of rows at a time."""
    arrays = dict(zip(index, np.broadcast_arrays(*index.values()), strict=True))
    shape = next(iter(arrays.values())).shape
    flat = {name: array.reshape(-1) for name, array in arrays.items()}
    scores = np.empty(int(np.prod(shape)))
    for start in range(0, len(scores), _CHUNK):
        part = scores[start : start + _CHUNK]
        part[:] = w0
        total = np.zeros((len(part), next(iter(vectors.values())).shape[1]))
        for name, positions in flat.items():
            at = positions[start : start + _CHUNK]
            own = vectors[name][at]
            part += bias[name][at] + np.einsum("rk,rk->r", total, own)
            total += own
    return scores.reshape(shape)
