"""What an evaluation asks of a model, and the metrics it can be asked for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .._checks import require_count, require_number
from ..metrics import (
    average_precision_at,
    hit_rate_at,
    mrr,
    ndcg_at,
    precision_at,
    recall_at,
)

if TYPE_CHECKING:
    from ..data.ids import IdMap
    from ..data.interactions import Interactions
    from ..index.base import ItemLists
    from ..serving.topn import TopN

__all__ = [
    "DEFAULT_RANKING",
    "ITEM_METRICS",
    "RANKING",
    "RATING",
    "Evaluable",
    "FoldsIn",
    "Metric",
    "default_metrics",
    "options_of_lists",
    "parse_metrics",
    "preferred_chunk",
    "training_lists",
]

DEFAULT_RANKING = ("ndcg@10", "recall@20")

RATING = ("rmse", "mae")
RANKING: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "ndcg": ndcg_at,
    "recall": recall_at,
    "precision": precision_at,
    "map": average_precision_at,
    "mrr": mrr,
    "hit_rate": hit_rate_at,
}
ITEM_METRICS = ("coverage", "novelty", "popularity", "popularity_lift")  # of whatever is listed
_VALID = (*RATING, "mrr", *(f"{kind}@k" for kind in (*RANKING, *ITEM_METRICS)))
_DEFAULT_LENGTH = 100


class Evaluable(Protocol):
    """What :func:`evaluate` asks of a model. All ids are external ones.

    A model may also have

    - ``contexts``, a mapping from the name of a context column to the IdMap of the levels that it
      knows; one that has none is asked in whatever context the test has,
    - ``scores(users, items, context)``, the numbers by which it ranks, for sampled metrics,
    - ``predicts_values``, which is False for one that ranks only, for the default metrics,
    - ``catalog_``, whose attribute ``seen`` is an :class:`fmknn.ItemLists`: the positions of the
      items in each user's training rows, for sampled metrics and those of popularity,
    - ``popularity``, a keyword of ``recommend``, for another one than 1.
    """

    @property
    def users(self) -> IdMap:
        """The users that the model knows, with or without training rows."""

    @property
    def items(self) -> IdMap:
        """The catalogue."""

    def predict(
        self, users: np.ndarray, items: np.ndarray, context: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Return the predicted value of each (user, item) row in its context."""

    def targets(self, values: np.ndarray) -> np.ndarray:
        """Return values in the terms of :meth:`predict`: of two classes, 1 for the positive one."""

    def recommend(
        self,
        users: np.ndarray,
        n: int,
        *,
        exclude_seen: bool,
        context: Mapping[str, np.ndarray] | None,
    ) -> TopN:
        """Return one list per entry of `users`; ``TopN.positions`` refer to :attr:`items`."""

    def n_training_rows(self, users: np.ndarray) -> np.ndarray:
        """Return how many training rows each user has."""

    def seen_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return whether each (user, item) was a training row."""


class FoldsIn(Protocol):
    """What :func:`evaluate_fold_in` asks of a model."""

    @property
    def items(self) -> IdMap:
        """The catalogue."""

    def n_training_rows(self, users: np.ndarray) -> np.ndarray:
        """Return how many training rows each user has, 0 for one that is not known."""

    def recommend_for_many(self, histories: Mapping[Any, Mapping[Any, float]], n: int) -> TopN:
        """Return one list per person, in the order of `histories`, without what is in theirs."""


class Metric(NamedTuple):
    """One metric that was asked for."""

    name: str  # as the caller wrote it
    kind: str
    k: int  # list length; no meaning for a rating metric


def default_metrics(model: Evaluable, test: Interactions) -> tuple[str, ...]:
    """Return what is measured where nothing is asked for."""
    has_values = test.values is not None and getattr(model, "predicts_values", True)
    return ("rmse", *DEFAULT_RANKING) if has_values else DEFAULT_RANKING


def parse_metrics(
    metrics: str | Iterable[str], has_values: bool, longest: int | None = None
) -> list[Metric]:
    """Return what the names of metrics ask for.

    Parameters
    ----------
    metrics : str or iterable of str
    has_values : bool
        Whether the test has values, without which there are no rating metrics.
    longest : int, optional
        The list length of a metric without one; default: the longest one asked for, or 100.

    Raises
    ------
    ValueError
        For a name that is no metric, or none at all.
    """
    parsed = []
    for name in [metrics] if isinstance(metrics, str) else metrics:
        match = re.fullmatch(r"(\w+)(?:@([1-9][0-9]*))?", str(name))
        kind, k = match.groups(default="") if match else ("", "")
        if (f"{kind}@k" if k else kind) not in _VALID:
            raise ValueError(
                f"unknown metric {name!r}: choose from {', '.join(_VALID)}, k being a list length"
            )
        if kind in RATING and not has_values:
            raise ValueError(f"{name} needs values, and the test has none: ask for ranking metrics")
        parsed.append(Metric(name, kind, int(k or 0)))
    if not parsed:
        raise ValueError("metrics is empty: name at least one, such as 'ndcg@10'")
    longest = longest or max(metric.k for metric in parsed) or _DEFAULT_LENGTH
    return [metric._replace(k=metric.k or longest) for metric in parsed]


def preferred_chunk(model: Any, chunk: int | None) -> int:
    """Return how many lists to ask for at a time.

    Raises
    ------
    ValueError
        For a chunk below 1.
    """
    if chunk is None:
        return getattr(getattr(model, "index_", None), "preferred_chunk", 4096)
    return require_count("chunk", chunk)


def options_of_lists(recommend: Callable[..., Any], popularity: float) -> dict[str, float]:
    """Return what to pass on to a model's method for lists made with that ``popularity``.

    Raises
    ------
    ValueError
        If it is no number from 0 to 1.
    TypeError
        If it is not 1, and the model has never heard of it.
    """
    require_number("popularity", popularity, 1)
    if popularity == 1:
        return {}
    parameters = inspect.signature(recommend).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if "popularity" not in parameters and not takes_any:
        model = type(getattr(recommend, "__self__", recommend)).__name__
        raise TypeError(
            f"popularity={popularity:g}: lists of this {model} have no such dial, leave it out"
        )
    return {"popularity": float(popularity)}


def training_lists(model: Any, purpose: str) -> ItemLists:
    """Return the positions of the items of each user's training rows.

    Raises
    ------
    TypeError
        If the model does not offer them.
    """
    seen = getattr(getattr(model, "catalog_", None), "seen", None)
    if seen is None:
        raise TypeError(
            f"{purpose} needs the items of each user's training rows: "
            f"this {type(model).__name__} has no catalog_.seen"
        )
    return seen
