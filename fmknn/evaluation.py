"""How good is a model: one call for a whole test, over the metrics of :mod:`fmknn.metrics`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ._checks import require_bool
from ._evaluation import Evaluation
from .metrics import (
    average_precision_at,
    hit_matrix,
    hit_rate_at,
    mae,
    mrr,
    ndcg_at,
    none_offered,
    precision_at,
    recall_at,
    rmse,
    share_offered,
)

if TYPE_CHECKING:
    from .data.ids import IdMap
    from .data.interactions import Interactions
    from .serving.topn import TopN

__all__ = ["DEFAULT_METRICS", "Evaluable", "Evaluation", "evaluate"]

DEFAULT_METRICS = ("rmse", "ndcg@10", "recall@20")


class Evaluable(Protocol):
    """What :func:`evaluate` asks of a model. All ids are external ones.

    A model may also have ``contexts``, a mapping from the name of a context column to the IdMap of
    the levels that it knows; one that has none is asked in whatever context the test has.
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


_RATING = {"rmse": rmse, "mae": mae}
_RANKING: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "ndcg": ndcg_at,
    "recall": recall_at,
    "precision": precision_at,
    "map": average_precision_at,
    "mrr": mrr,
    "hit_rate": hit_rate_at,
}
_VALID = (*_RATING, "mrr", *(f"{kind}@k" for kind in _RANKING), "coverage@k")
_DEFAULT_LENGTH = 100


def evaluate(
    model: Evaluable,
    test: Interactions,
    metrics: str | Iterable[str] = DEFAULT_METRICS,
    *,
    exclude_seen: bool = True,
    relevant_from: float | None = None,
    allow_overlap: bool = False,
    chunk: int | None = None,
) -> Evaluation:
    """Measure a model on rows it was not trained on.

    Parameters
    ----------
    model : Evaluable
        A fitted Recommender, or anything that answers like one.
    test : Interactions
        Context columns are passed on to the model. Weights are not used.
    metrics : str or iterable of str
        "rmse", "mae", "ndcg@k", "recall@k", "precision@k", "map@k", "hit_rate@k", "coverage@k",
        "mrr@k", or "mrr" for as long a list as the longest asked for (100 if there is none).
    exclude_seen : bool, default True
        Leave out of the lists what the user has in training. It changes every ranking metric, also
        where training and test are disjoint, so the result says which it was.
    relevant_from : float, optional
        Only test rows with this value or a higher one are relevant; None: all of them are.
    allow_overlap : bool, default False
        Accept test rows whose (user, item) was trained on. With `exclude_seen` they cannot be
        recommended and count as misses.
    chunk : int, optional
        Lists asked for at a time: 4096, or what suits the index. It bounds the memory, and changes
        nothing else.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        For an unknown metric, test rows that were trained on, rating metrics or `relevant_from`
        without values, a choice that is no bool, and if nothing is left to measure.

    Notes
    -----
    A ranking metric is the mean over users with a relevant item, each user once. With context
    columns a list belongs to a (user, context): each such pair in the test is one query, its
    relevant items are those of its rows, and the mean is over queries. The catalogue of
    "coverage@k" is ``model.items``, and the lists are those of the users (queries) averaged over.

    Users without training rows are no failure of the ranking and no success either: they are
    reported apart, in ``Evaluation.cold``. Rows with an id or a level of a context that the model
    does not know are left out and counted. Scores rank within a user; nothing here compares scores
    between users.

    Examples
    --------
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
    >>> train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    >>> model = fmknn.Recommender(fmknn.FMRegressor(n_iter=1, random_state=0)).fit(train)
    >>> result = evaluate(model, test, ["rmse", "ndcg@5"])
    >>> list(result), result.n_rows + result.n_cold_rows
    (['rmse', 'ndcg@5'], 20)
    """
    if len(test) == 0:
        raise ValueError("the test has no rows")
    if chunk is None:
        chunk = getattr(getattr(model, "index_", None), "preferred_chunk", 4096)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    exclude_seen = require_bool("exclude_seen", exclude_seen)
    allow_overlap = require_bool("allow_overlap", allow_overlap)
    wanted = _parse(metrics, has_values=test.values is not None)
    relevant = _relevant_rows(test, relevant_from)
    known = _known_rows(model, test)
    n_unknown_rows = int((~known).sum())
    known &= _rows_in_known_context(model, test)
    if not known.any():
        raise ValueError("the model knows the context of none of the rows that it could measure")
    n_overlap = _overlap(model, test, known, allow_overlap)
    warm = known.copy()
    warm[known] = np.asarray(model.n_training_rows(test.user_ids[known])) > 0
    cold = known & ~warm

    def measure(rows: np.ndarray) -> tuple[dict[str, float], int]:
        if not rows.any():
            return {}, 0
        part = test.take(rows)
        queries, n_without = _queries(model, part, np.flatnonzero(relevant[rows]))
        found = _rate(model, part, wanted)
        found |= _rank(model, part, queries, wanted, exclude_seen, chunk)
        return {metric.name: found[metric.name] for metric in wanted}, n_without

    warm_metrics, n_without = measure(warm)
    cold_metrics, n_cold_without = measure(cold)
    return Evaluation(
        metrics=warm_metrics,
        cold=cold_metrics,
        n_users=len(np.unique(test.user_index[warm])),
        n_rows=int(warm.sum()),
        n_cold_users=len(np.unique(test.user_index[cold])),
        n_cold_rows=int(cold.sum()),
        n_unknown_rows=n_unknown_rows,
        n_unknown_context_rows=int((~known).sum()) - n_unknown_rows,
        n_users_without_relevant=n_without + n_cold_without,
        n_overlap_rows=n_overlap,
        exclude_seen=exclude_seen,
        relevant_from=relevant_from,
    )


class _Metric(NamedTuple):
    name: str  # as the caller wrote it
    kind: str
    k: int  # list length; no meaning for a rating metric


class _Queries(NamedTuple):
    row: np.ndarray  # one test row of each query: it holds the user and the context
    indptr: np.ndarray  # the query's relevant items, as positions in model.items
    indices: np.ndarray


def _parse(metrics: str | Iterable[str], has_values: bool) -> list[_Metric]:
    parsed = []
    for name in [metrics] if isinstance(metrics, str) else metrics:
        match = re.fullmatch(r"(\w+)(?:@([1-9][0-9]*))?", str(name))
        kind, k = match.groups(default="") if match else ("", "")
        if (f"{kind}@k" if k else kind) not in _VALID:
            raise ValueError(
                f"unknown metric {name!r}: choose from {', '.join(_VALID)}, k being a list length"
            )
        if kind in _RATING and not has_values:
            raise ValueError(f"{name} needs values, and the test has none: ask for ranking metrics")
        parsed.append(_Metric(name, kind, int(k or 0)))
    if not parsed:
        raise ValueError("metrics is empty: name at least one, such as 'ndcg@10'")
    longest = max(metric.k for metric in parsed) or _DEFAULT_LENGTH
    return [metric._replace(k=metric.k or longest) for metric in parsed]


def _relevant_rows(test: Interactions, relevant_from: float | None) -> np.ndarray:
    if relevant_from is None:
        return np.ones(len(test), dtype=bool)
    if test.values is None:
        raise ValueError("relevant_from needs values, and the test has none")
    relevant = test.values >= relevant_from
    if not relevant.any():
        raise ValueError(f"relevant_from={relevant_from}: no test row has such a value")
    return relevant


def _known_rows(model: Evaluable, test: Interactions) -> np.ndarray:
    known = model.users.positions(test.user_ids, unknown="mark") >= 0
    known &= model.items.positions(test.item_ids, unknown="mark") >= 0
    if not known.any():
        raise ValueError(f"the model knows the user and the item of none of the {len(test)} rows")
    return known


def _rows_in_known_context(model: Evaluable, test: Interactions) -> np.ndarray:
    levels: Mapping[str, IdMap] = getattr(model, "contexts", {})
    known = np.ones(len(test), dtype=bool)
    for name, column in test.context.items():
        if name in levels:  # if not, the model says so itself
            places = levels[name].positions(column.ids.ids, unknown="mark")
            known &= places[column.index] >= 0
    return known


def _overlap(model: Evaluable, test: Interactions, known: np.ndarray, allow_overlap: bool) -> int:
    user_ids, item_ids = test.user_ids, test.item_ids
    seen = np.zeros(len(test), dtype=bool)
    seen[known] = model.seen_pairs(user_ids[known], item_ids[known])
    if seen.any() and not allow_overlap:
        row = int(np.argmax(seen))
        user, item = user_ids[[row]].tolist()[0], item_ids[[row]].tolist()[0]
        raise ValueError(
            f"{seen.sum()} of {len(test)} test rows were trained on (first: row {row}, "
            f"user {user!r}, item {item!r}): leave them out or pass allow_overlap=True"
        )
    return int(seen.sum())


def _rate(model: Evaluable, rows: Interactions, wanted: list[_Metric]) -> dict[str, float]:
    rating = [metric for metric in wanted if metric.kind in _RATING]
    if not rating:
        return {}
    context = _context(rows, np.arange(len(rows)))
    predicted = model.predict(rows.user_ids, rows.item_ids, context=context)
    targets = model.targets(np.asarray(rows.values))
    return {metric.name: _RATING[metric.kind](targets, predicted) for metric in rating}


def _context(rows: Interactions, which: np.ndarray) -> dict[str, np.ndarray] | None:
    if not rows.context:
        return None
    return {name: column.ids.ids[column.index[which]] for name, column in rows.context.items()}


def _queries(model: Evaluable, rows: Interactions, relevant: np.ndarray) -> tuple[_Queries, int]:
    """The (user, context) queries with a relevant row, and how many there are without."""
    query = rows.user_index.astype(np.int64)
    for column in rows.context.values():
        query = np.unique(query * len(column.ids) + column.index, return_inverse=True)[1]
    asked, first, number = np.unique(query[relevant], return_index=True, return_inverse=True)
    n_items = len(model.items)
    # a pair that the test holds twice is one relevant item
    pairs = np.unique(number * n_items + model.items.positions(rows.item_ids[relevant]))
    indptr = np.searchsorted(pairs, np.arange(len(asked) + 1) * n_items)
    return _Queries(relevant[first], indptr, pairs % n_items), len(np.unique(query)) - len(asked)


def _rank(
    model: Evaluable,
    rows: Interactions,
    queries: _Queries,
    wanted: list[_Metric],
    exclude_seen: bool,
    chunk: int,
) -> dict[str, float]:
    wanted = [metric for metric in wanted if metric.kind not in _RATING]
    users, n_queries = rows.user_ids[queries.row], len(queries.row)
    if not wanted or n_queries == 0:
        return {metric.name: np.nan for metric in wanted}
    length = min(max(metric.k for metric in wanted), len(model.items))
    values = {m.name: np.empty(n_queries) for m in wanted if m.kind in _RANKING}
    offered = {m.name: none_offered(len(model.items)) for m in wanted if m.kind == "coverage"}
    for start in range(0, n_queries, chunk):
        part = slice(start, min(start + chunk, n_queries))
        context = _context(rows, queries.row[part])
        top = model.recommend(users[part], length, exclude_seen=exclude_seen, context=context)
        indptr = queries.indptr[start : part.stop + 1]
        relevant = queries.indices[indptr[0] : indptr[-1]]
        hits, n_relevant = hit_matrix(top.positions, indptr, relevant), np.diff(indptr)
        for name, kind, k in wanted:
            if kind == "coverage":
                offered[name][top.positions[:, :k]] = True
            else:
                values[name][part] = _RANKING[kind](hits, n_relevant, k)
    means = {name: float(per_query.mean()) for name, per_query in values.items()}
    return means | {name: share_offered(slots) for name, slots in offered.items()}
