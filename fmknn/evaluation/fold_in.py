"""Strong generalisation: lists for people of whom the model has never seen a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .._checks import plain, require_bool
from .._random import seed_sequence
from ..index.base import ItemLists
from .base import RATING, FoldsIn, options_of_lists, parse_metrics, preferred_chunk
from .lists import Popularity, queries_of, rank
from .measure import overlap, relevant_rows, summary
from .result import Evaluation

if TYPE_CHECKING:
    from ..data.interactions import Interactions

__all__ = ["evaluate_fold_in"]


def evaluate_fold_in(
    model: FoldsIn,
    fold_in: Interactions,
    test: Interactions,
    metrics: str | Iterable[str] = ("ndcg@100", "recall@20", "recall@50"),
    *,
    relevant_from: float | None = None,
    allow_overlap: bool = False,
    chunk: int | None = None,
    intervals: float | None = None,
    popularity: float = 1.0,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = None,
) -> Evaluation:
    """Measure lists for held-out users, made from their fold-in rows alone.

    Parameters
    ----------
    model : FoldsIn
        A fitted Recommender that folds people in. It has no training row of the users.
    fold_in, test : Interactions
        Of the same users, as :func:`fmknn.splits.hold_out_users` gives them. A user's list never
        holds an item of their fold-in rows. There are no context columns.
    metrics : str or iterable of str
        As of :func:`fmknn.evaluate`, but for "rmse" and "mae".
    relevant_from : float, optional
        Only test rows with this value or a higher one are relevant; None: all of them are.
    allow_overlap : bool, default False
        Accept test rows whose (user, item) is a fold-in row too: they count as misses.
    chunk : int, optional
        Lists asked for at a time: 4096, or what suits the index.
    intervals, popularity, random_state
        As of :func:`fmknn.evaluate`.

    Returns
    -------
    Evaluation
        `metrics` is over the held-out users; there are no cold ones.

    Raises
    ------
    ValueError
        For users that the model was trained on or that have no fold-in row (the first is named),
        rows in both parts, context columns, and what :func:`fmknn.evaluate` refuses.

    Notes
    -----
    The protocol is that of Liang et al., "Variational autoencoders for collaborative filtering",
    WWW 2018, section 4.

    Fold-in rows with an item that the model does not know are left out of a user's history, test
    rows with one are left out and counted.
    """
    if len(test) == 0:
        raise ValueError("the test has no rows")
    chunk = preferred_chunk(model, chunk)
    allow_overlap = require_bool("allow_overlap", allow_overlap)
    options = options_of_lists(model.recommend_for_many, popularity)
    wanted = parse_metrics(metrics, test.values is not None)
    if rating := [metric.name for metric in wanted if metric.kind in RATING]:
        raise ValueError(f"{rating[0]} is of predictions: ask for ranking metrics")
    if test.context or fold_in.context:
        raise ValueError("lists of held-out users have no context: drop the context columns")
    relevant = relevant_rows(test, relevant_from)
    known = model.items.positions(test.item_ids, unknown="mark") >= 0
    if not known.any():
        raise ValueError(f"the model knows the item of none of the {len(test)} test rows")
    histories, numbers = _histories(model, fold_in, test)
    own_user, own_item = histories.pairs()
    n_items = len(model.items)
    pairs = test.user_index[known].astype(np.int64) * n_items
    pairs += model.items.positions(test.item_ids[known])
    seen = np.zeros(len(test), dtype=bool)
    seen[known] = np.isin(pairs, own_user * n_items + own_item)
    n_overlap = overlap(test, seen, allow_overlap, "folded in")
    part = test.take(known)
    queries, n_without = queries_of(model.items, part, np.flatnonzero(relevant[known]))

    def lists(which: slice, length: int) -> np.ndarray:
        owners, item_ids = queries.owner[which], model.items.ids
        asked = {}
        for owner in owners:
            own = slice(histories.indptr[owner], histories.indptr[owner + 1])
            items = item_ids[histories.indices[own]].tolist()
            history = dict(zip(items, numbers[own].tolist(), strict=True))
            asked[plain(test.users.ids[owner])] = history
        return model.recommend_for_many(asked, length, **options).positions

    counts = Popularity.of(model, n_items, wanted)
    of_queries = histories.take(queries.owner)
    generator = np.random.default_rng(seed_sequence(random_state))
    found = rank(lists, queries, n_items, wanted, chunk, counts, of_queries)
    return Evaluation(
        **summary(test.users.ids, found, intervals, generator),
        cold={},
        n_users=len(np.unique(part.user_index)),
        n_rows=len(part),
        n_cold_users=0,
        n_cold_rows=0,
        n_unknown_rows=int((~known).sum()),
        n_users_without_relevant=n_without,
        n_overlap_rows=n_overlap,
        exclude_seen=True,
        relevant_from=relevant_from,
        popularity=float(popularity),
    )


def _histories(
    model: FoldsIn, fold_in: Interactions, test: Interactions
) -> tuple[ItemLists, np.ndarray]:
    """The fold-in items of each of the test's users, as positions in the catalogue, and of each
    the mean value, where the model predicts values, or else how often it occurs."""
    user = test.users.positions(fold_in.user_ids, unknown="mark")
    item = model.items.positions(fold_in.item_ids, unknown="mark")
    known = (user >= 0) & (item >= 0)
    weights = np.ones(len(fold_in)) if fold_in.weights is None else np.asarray(fold_in.weights)
    known &= weights > 0
    key = user.astype(np.int64) * len(model.items) + item
    _, pair = np.unique(key[known], return_inverse=True)  # in the order of the lists
    numbers: np.ndarray = np.bincount(pair, weights[known])
    if fold_in.values is not None and getattr(model, "predicts_values", True):
        numbers = np.bincount(pair, weights[known] * fold_in.values[known]) / numbers
    histories = ItemLists.from_pairs(user[known], item[known], len(test.users))
    tested = np.unique(test.user_index)
    ids = test.users.ids[tested]
    trained = np.asarray(model.n_training_rows(ids)) > 0
    for culprits, what in (
        (trained, "has training rows: hold all rows of a user out"),
        (histories.lengths[tested] == 0, "has test rows, but no fold-in row that the model knows"),
    ):
        if culprits.any():
            first = plain(ids[int(np.argmax(culprits))])
            raise ValueError(f"user {first!r} {what} ({culprits.sum()} of {len(ids)} users)")
    return histories, numbers
