"""evaluate: one call for a whole test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import require_bool
from .._random import child_generator, entropy_words
from .base import (
    RATING,
    Evaluable,
    Metric,
    default_metrics,
    options_of_lists,
    parse_metrics,
    preferred_chunk,
    training_lists,
)
from .bootstrap import Entries, PerUser, bootstrap, confidence_level
from .lists import Popularity, context_of, queries_of, rank, recommended
from .result import Evaluation
from .sampled import n_negatives, named, negatives_for, rank_sampled

if TYPE_CHECKING:
    from ..data.ids import IdMap
    from ..data.interactions import Interactions

__all__ = ["evaluate", "overlap", "relevant_rows", "summary"]

_NEGATIVES, _RESAMPLES = range(2)  # streams of one random_state


def evaluate(
    model: Evaluable,
    test: Interactions,
    metrics: str | Iterable[str] | None = None,
    *,
    exclude_seen: bool = True,
    relevant_from: float | None = None,
    allow_overlap: bool = False,
    chunk: int | None = None,
    sampled: Any = None,
    intervals: float | None = None,
    popularity: float = 1.0,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = None,
) -> Evaluation:
    """Measure a model on rows it was not trained on.

    Parameters
    ----------
    model : Evaluable
        A fitted Recommender, or anything that answers like one.
    test : Interactions
        Context columns are passed on to the model. Weights are not used.
    metrics : str or iterable of str, optional
        By default "ndcg@10", "recall@20" and, of a model that predicts values that the test has,
        "rmse". There are also "mae", "precision@k", "map@k", "hit_rate@k", "mrr@k", "mrr" for as
        long a list as the longest asked for (100 if there is none), and, of the lists, whatever is
        relevant, "coverage@k", "novelty@k", "popularity@k", "popularity_lift@k".
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
    sampled : int, or array-like of item ids of shape (n_test_rows, n), optional
        Rank each relevant test row among so many items only, drawn uniformly from those that are in
        none of the user's training and test rows, or among those given, row by row of the test. The
        metrics are then called "sampled ndcg@10 (99 negatives)": see the warning in the notes.
    intervals : float, optional
        The confidence, such as 0.95, of a bootstrap interval for each metric but coverage.
    popularity : float, default 1.0
        How much the biases of items count in the lists; see :meth:`fmknn.Recommender.recommend`.
        Rating metrics do not depend on it, and sampled ones are of the model as it is.
    random_state : int, numpy Generator, SeedSequence or None
        For the drawing of `sampled` and `intervals`; the same int gives the same result.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        For an unknown metric, test rows that were trained on, rating metrics or `relevant_from`
        without values, a choice that is no bool, negatives that do not fit the test, another
        `popularity` than 1 for sampled metrics or rating metrics alone, and if nothing is left to
        measure.
    TypeError
        If the model does not offer what a metric, or `popularity`, needs; see :class:`Evaluable`.

    Notes
    -----
    A ranking metric is the mean over users with a relevant item, each user once. With context
    columns a list belongs to a (user, context): each such pair in the test is one query, its
    relevant items are those of its rows, and the mean is over queries. The catalogue of
    "coverage@k" is ``model.items``, and the lists are those of the users (queries) averaged over.

    Popularity is the number of users who have an item in training. "popularity@k" is its mean over
    a list (Yin et al., VLDB 2012), "novelty@k" the mean of -log2 of the share of users (Zhou et
    al., PNAS 2010), "popularity_lift@k" how much more popular the lists are than what the same
    users have in training, relative to the latter: 0 where neither is favoured (Abdollahpouri et
    al., "The connection between popularity bias, calibration, and fairness in recommendation",
    RecSys 2020).

    Sampled metrics are there for comparison with published figures (He et al., "Neural
    collaborative filtering", WWW 2017, rank one held-out item among 99 others). They mislead:
    which of two models is better can differ from the full ranking, and all of them come close to
    the area under the curve as the sample shrinks, which hardly looks at the top of the lists
    (Krichene and Rendle, "On sampled metrics for item recommendation", KDD 2020). Each relevant row
    is one entry of the mean, equal scores rank by item position, and `exclude_seen` plays no part.

    Intervals are percentiles over 2000 resamples of the users with training rows, each of whom
    takes all their lists and rows along. They say how much a figure depends on who was tested,
    not on how the model was trained.

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
    >>> list(evaluate(model, test, "hit_rate@1", sampled=2, random_state=0))
    ['sampled hit_rate@1 (2 negatives)']
    """
    if len(test) == 0:
        raise ValueError("the test has no rows")
    chunk = preferred_chunk(model, chunk)
    exclude_seen = require_bool("exclude_seen", exclude_seen)
    allow_overlap = require_bool("allow_overlap", allow_overlap)
    options = options_of_lists(model.recommend, popularity)
    if options and sampled is not None:
        raise ValueError("popularity is of lists: leave it out for sampled metrics")
    seed = entropy_words(random_state)
    longest = None if sampled is None else n_negatives(sampled) + 1
    if metrics is None:
        metrics = default_metrics(model, test)
    wanted = parse_metrics(metrics, test.values is not None, longest)
    if sampled is not None:
        wanted = named(wanted, sampled)
    ranking = [metric for metric in wanted if metric.kind not in RATING]
    if options and not ranking:
        raise ValueError("popularity is of lists: leave it out for rating metrics alone")
    relevant = relevant_rows(test, relevant_from)
    known = _known_rows(model, test)
    n_unknown_rows = int((~known).sum())
    known &= _rows_in_known_context(model, test)
    if not known.any():
        raise ValueError("the model knows the context of none of the rows that it could measure")
    seen = np.zeros(len(test), dtype=bool)
    seen[known] = model.seen_pairs(test.user_ids[known], test.item_ids[known])
    n_overlap = overlap(test, seen, allow_overlap)
    warm = known.copy()
    warm[known] = np.asarray(model.n_training_rows(test.user_ids[known])) > 0
    cold = known & ~warm
    counts = Popularity.of(model, len(model.items), ranking)
    negatives = None
    if sampled is not None:
        negatives = negatives_for(model, test, sampled, child_generator(seed, _NEGATIVES))

    def measure(rows: np.ndarray) -> tuple[dict[str, Entries | float], int]:
        if not rows.any():
            return {}, 0
        part = test.take(rows)
        queries, n_without = queries_of(model.items, part, np.flatnonzero(relevant[rows]))
        found: dict[str, Entries | float] = {**_rate(model, part, wanted)}
        if negatives is not None:
            numbers = np.flatnonzero(rows & relevant)
            found |= rank_sampled(model, test, numbers, negatives, ranking, chunk)
        else:
            histories = None
            if counts is not None:
                users = model.users.positions(part.user_ids[queries.row])
                histories = training_lists(model, "popularity").take(users)
            lists = recommended(model, part, queries, exclude_seen, options)
            n_items = len(model.items)
            found |= rank(lists, queries, n_items, ranking, chunk, counts, histories)
        return {metric.name: found[metric.name] for metric in wanted}, n_without

    warm_metrics, n_without = measure(warm)
    cold_metrics, n_cold_without = measure(cold)
    return Evaluation(
        **summary(test.users.ids, warm_metrics, intervals, child_generator(seed, _RESAMPLES)),
        cold=_overall(cold_metrics),
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
        sampled=None if sampled is None else n_negatives(sampled),
        popularity=float(popularity),
    )


def relevant_rows(test: Interactions, relevant_from: float | None) -> np.ndarray:
    """Return which test rows are relevant.

    Raises
    ------
    ValueError
        If there are no values to tell by, or no row is.
    """
    if relevant_from is None:
        return np.ones(len(test), dtype=bool)
    if test.values is None:
        raise ValueError("relevant_from needs values, and the test has none")
    relevant = test.values >= relevant_from
    if not relevant.any():
        raise ValueError(f"relevant_from={relevant_from}: no test row has such a value")
    return relevant


def overlap(
    test: Interactions, seen: np.ndarray, allow_overlap: bool, how: str = "trained on"
) -> int:
    """Return how many test rows are pairs that the model has seen.

    Raises
    ------
    ValueError
        If there are some and that is not allowed.
    """
    if seen.any() and not allow_overlap:
        row = int(np.argmax(seen))
        user, item = test.user_ids[[row]].tolist()[0], test.item_ids[[row]].tolist()[0]
        raise ValueError(
            f"{seen.sum()} of {len(test)} test rows were {how} (first: row {row}, "
            f"user {user!r}, item {item!r}): leave them out or pass allow_overlap=True"
        )
    return int(seen.sum())


def summary(
    ids: np.ndarray,
    found: Mapping[str, Entries | float],
    intervals: float | None,
    random_state: Any,
) -> dict[str, Any]:
    """Return what an Evaluation says of the metrics: overall, user by user, and how sure."""
    entries = {name: entry for name, entry in found.items() if isinstance(entry, Entries)}
    per_user = PerUser.of(ids, entries)
    about: dict[str, Any] = {"metrics": _overall(found), "per_user": per_user}
    if intervals is not None:
        level = confidence_level(intervals)
        about |= {"confidence": level, "intervals": bootstrap(per_user, level, random_state)}
    return about


def _overall(found: Mapping[str, Entries | float]) -> dict[str, float]:
    return {
        name: entry.overall() if isinstance(entry, Entries) else entry
        for name, entry in found.items()
    }


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


def _rate(model: Evaluable, rows: Interactions, wanted: list[Metric]) -> dict[str, Entries]:
    rating = [metric for metric in wanted if metric.kind in RATING]
    if not rating:
        return {}
    context = context_of(rows, np.arange(len(rows)))
    predicted = np.asarray(model.predict(rows.user_ids, rows.item_ids, context=context), np.float64)
    errors = np.asarray(model.targets(np.asarray(rows.values)), np.float64) - predicted
    sizes = {"rmse": np.square(errors), "mae": np.abs(errors)}
    weights = np.ones(len(rows))
    return {
        metric.name: Entries(rows.user_index, sizes[metric.kind], weights, metric.kind == "rmse")
        for metric in rating
    }
