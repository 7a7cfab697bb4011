"""Metrics against hand-computed values and plain-Python oracles; evaluate() on a made-up model."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from fmknn import evaluation as ev
from fmknn import metrics
from fmknn.data.ids import IdMap
from fmknn.data.interactions import Interactions
from fmknn.errors import UnknownIdError
from fmknn.evaluation.bootstrap import paired_bootstrap
from fmknn.index.base import ItemLists

# --- rating metrics ---------------------------------------------------------------------------


def test_rmse_and_mae_by_hand():
    assert metrics.rmse([1, 2, 3], [1, 4, 1]) == pytest.approx(math.sqrt(8 / 3))
    assert metrics.mae([1, 2, 3], [1, 4, 1]) == pytest.approx(4 / 3)


def test_rmse_adds_up_in_double_precision():
    true = np.full(100_000, 4096.0, dtype=np.float32)
    assert metrics.rmse(true, true - np.float32(0.25)) == 0.25


@pytest.mark.parametrize("true, predicted", [([], []), ([1, 2], [1]), ([1, 2], [[1], [2]])])
def test_rating_metrics_refuse_arrays_that_do_not_match(true, predicted):
    with pytest.raises(ValueError, match="as long as each other and not empty"):
        metrics.rmse(true, predicted)


# --- ranking metrics --------------------------------------------------------------------------


def naive_precision(items, relevant, k):
    return sum(item in relevant for item in items[:k]) / k


def naive_recall(items, relevant, k):
    return sum(item in relevant for item in items[:k]) / len(relevant)


def naive_ndcg(items, relevant, k):
    gain = sum(1 / math.log2(r + 2) for r, item in enumerate(items[:k]) if item in relevant)
    return gain / sum(1 / math.log2(r + 2) for r in range(min(k, len(relevant))))


def naive_average_precision(items, relevant, k):
    found, total = 0, 0.0
    for rank, item in enumerate(items[:k], start=1):
        if item in relevant:
            found += 1
            total += found / rank
    return total / min(k, len(relevant))


def naive_reciprocal_rank(items, relevant, k):
    for rank, item in enumerate(items[:k], start=1):
        if item in relevant:
            return 1 / rank
    return 0.0


def naive_hit_rate(items, relevant, k):
    return float(any(item in relevant for item in items[:k]))


METRICS = [
    (metrics.precision_at, naive_precision),
    (metrics.recall_at, naive_recall),
    (metrics.ndcg_at, naive_ndcg),
    (metrics.average_precision_at, naive_average_precision),
    (metrics.mrr, naive_reciprocal_rank),
    (metrics.hit_rate_at, naive_hit_rate),
]
N_ITEMS = 9
LISTS = st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=6)
RELEVANT = st.lists(st.integers(0, N_ITEMS - 1), unique=True, min_size=1)
USERS = st.lists(st.tuples(LISTS, RELEVANT), min_size=1, max_size=5)


def padded(lists, width=6):
    return np.array([[*items, *[-1] * (width - len(items))] for items in lists], dtype=np.int32)


def csr(relevant):
    return np.cumsum([0, *map(len, relevant)]), np.array([i for row in relevant for i in row], int)


@pytest.mark.parametrize("metric, oracle", METRICS, ids=lambda f: f.__name__)
@given(users=USERS, k=st.integers(1, 8))
def test_a_metric_is_what_a_loop_gives(metric, oracle, users, k):
    lists, relevant = zip(*users, strict=True)
    indptr, indices = csr(relevant)
    hits = metrics.hit_matrix(padded(lists), indptr, indices)
    expected = [oracle(items, wanted, k) for items, wanted in users]
    np.testing.assert_allclose(metric(hits, np.diff(indptr), k), expected, rtol=1e-12)


@pytest.mark.parametrize("metric, oracle", METRICS, ids=lambda f: f.__name__)
def test_a_perfect_list_scores_1(metric, oracle):
    hits = metrics.hit_matrix(np.array([[4, 2, 0]]), *csr([[0, 2, 4]]))
    assert metric(hits, np.array([3]), 3) == [1.0]


# the list A B C D, of which B and D are relevant and so is E, which was not found
@pytest.mark.parametrize(
    "metric, expected",
    [
        (metrics.precision_at, 2 / 4),
        (metrics.recall_at, 2 / 3),
        (metrics.ndcg_at, (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)),
        (metrics.average_precision_at, (1 / 2 + 2 / 4) / 3),
        (metrics.mrr, 1 / 2),
        (metrics.hit_rate_at, 1.0),
    ],
)
def test_a_metric_by_hand(metric, expected):
    hits = np.array([[False, True, False, True]])
    assert metric(hits, np.array([3]), 4) == pytest.approx([expected])


@pytest.mark.parametrize("metric", [metrics.ndcg_at, metrics.average_precision_at])
def test_more_relevant_items_than_places_can_still_be_perfect(metric):
    assert metric(np.array([[True, True]]), np.array([50]), 2) == [1.0]


def test_recall_counts_relevant_items_beyond_k_as_missed():
    assert metrics.recall_at(np.array([[True, True]]), np.array([50]), 2) == [2 / 50]


def test_precision_counts_places_that_could_not_be_filled_as_missed():
    assert metrics.precision_at(np.array([[True, True]]), np.array([2]), 10) == [0.2]


@pytest.mark.parametrize(
    "metric", [metrics.recall_at, metrics.ndcg_at, metrics.average_precision_at]
)
def test_without_relevant_items_there_is_nothing_to_recall(metric):
    assert np.isnan(metric(np.array([[False, False]]), np.array([0]), 2)).all()


@pytest.mark.parametrize("metric, oracle", METRICS, ids=lambda f: f.__name__)
def test_lists_without_any_place_score_0(metric, oracle):
    assert metric(np.zeros((1, 0), dtype=bool), np.array([2]), 3) == [0.0]


def test_mrr_without_k_looks_at_the_whole_list():
    assert metrics.mrr(np.array([[False, False, True]]), np.array([1])) == [1 / 3]


def test_padding_is_never_a_hit():
    # -1 of the second list must not reach the last item of the first one
    hits = metrics.hit_matrix(np.array([[0, 1], [-1, -1]]), *csr([[N_ITEMS - 1], [0]]))
    assert not hits.any()


def test_a_list_is_only_compared_with_its_own_users_items():
    hits = metrics.hit_matrix(np.array([[0, 1], [0, 1]]), *csr([[0], [1]]))
    assert hits.tolist() == [[True, False], [False, True]]


def test_hit_matrix_needs_one_row_of_relevant_items_per_list():
    with pytest.raises(ValueError, match="2 lists need 3 indptr entries"):
        metrics.hit_matrix(np.array([[0], [1]]), np.array([0, 1]), np.array([0]))


@given(lists=st.lists(LISTS, min_size=1, max_size=5), k=st.integers(1, 8))
def test_coverage_is_what_a_set_gives(lists, k):
    expected = len({item for items in lists for item in items[:k]}) / N_ITEMS
    assert metrics.coverage(padded(lists), N_ITEMS, k) == pytest.approx(expected)


@given(
    lists=st.lists(LISTS, min_size=1, max_size=5),
    counts=st.lists(st.integers(0, 20), min_size=N_ITEMS, max_size=N_ITEMS),
    k=st.integers(1, 8),
)
def test_metrics_of_popularity_are_what_loops_give(lists, counts, k):
    popularity, novelty = [], []
    for items in lists:
        here = items[:k]
        if not here:
            popularity.append(math.nan)
            novelty.append(math.nan)
            continue
        popularity.append(sum(counts[i] for i in here) / len(here))
        novelty.append(sum(-math.log2(max(counts[i], 1) / 20) for i in here) / len(here))
    counts = np.array(counts)
    np.testing.assert_allclose(metrics.popularity_at(padded(lists), counts, k), popularity)
    np.testing.assert_allclose(
        metrics.novelty_at(padded(lists), counts, 20, k), novelty, atol=1e-12
    )


# --- evaluate ---------------------------------------------------------------------------------


class Fake:
    """Scores from a table {user: {item: score}}; context "shift" adds to item 10's score."""

    def __init__(self, scores, train=()):
        self.users = IdMap.build(list(scores), what="user")
        self.items = IdMap.build([item for row in scores.values() for item in row], what="item")
        self.table, self.train, self.calls = scores, list(train), []
        items = self.items.ids.tolist()
        known = [(list(scores).index(user), item) for user, item in self.train if item in items]
        seen = ItemLists.from_pairs(
            [user for user, _ in known], [items.index(item) for _, item in known], len(self.users)
        )
        self.catalog_ = SimpleNamespace(seen=seen)

    def _score(self, user, item, shift):
        return self.table[user].get(item, 0.0) + (float(shift) if item == 10 else 0.0)

    def _shifts(self, context, n):
        return [0] * n if context is None else context["shift"].tolist()

    def targets(self, values):
        return values

    def predict(self, users, items, context=None):
        shifts = self._shifts(context, len(users))
        rows = zip(users.tolist(), items.tolist(), shifts, strict=True)
        return np.array([self._score(*row) for row in rows])

    def scores(self, users, items, context=None):
        self.calls.append(len(users))
        return self.predict(users, items, context)

    def recommend(self, users, n=10, *, exclude_seen=True, context=None):
        self.calls.append(len(users))
        positions = np.full((len(users), n), -1, dtype=np.int32)
        shifts = self._shifts(context, len(users))
        for row, (user, shift) in enumerate(zip(users.tolist(), shifts, strict=True)):
            allowed = [
                (-self._score(user, item, shift), position)
                for position, item in enumerate(self.items.ids.tolist())
                if not (exclude_seen and (user, item) in self.train)
            ]
            best = [position for _, position in sorted(allowed)[:n]]
            positions[row, : len(best)] = best
        return SimpleNamespace(positions=positions)

    def n_training_rows(self, users):
        return np.array([sum(u == user for u, _ in self.train) for user in users.tolist()])

    def seen_pairs(self, users, items):
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([pair in self.train for pair in pairs], dtype=bool)


ITEMS = [10, 11, 12, 13, 14]
SCORES = {
    1: dict(zip(ITEMS, [5.0, 4.0, 3.0, 2.0, 1.0], strict=True)),
    2: dict(zip(ITEMS, [1.0, 2.0, 3.0, 4.0, 5.0], strict=True)),
    3: dict(zip(ITEMS, [3.0, 3.0, 3.0, 3.0, 3.0], strict=True)),
}
TRAIN = [(1, 10), (2, 13)]


@pytest.fixture
def model():
    return Fake(SCORES, TRAIN)


def interactions(rows, **columns):
    users, items, values = zip(*rows, strict=True)
    return Interactions.from_arrays(users, items, values, **columns)


def test_warm_metrics_by_hand(model):
    # lists without what was seen: user 1 gets 11 12 13 14, user 2 gets 14 12 11 10
    test = interactions([(1, 12, 4.0), (1, 14, 1.0), (2, 14, 3.0)])
    names = ["rmse", "mae", "precision@2", "recall@2", "hit_rate@1", "mrr", "map@2", "coverage@1"]
    result = ev.evaluate(model, test, names)
    assert dict(result) == pytest.approx(
        {
            "rmse": math.sqrt((1 + 0 + 4) / 3),
            "mae": (1 + 0 + 2) / 3,
            "precision@2": (1 / 2 + 1 / 2) / 2,
            "recall@2": (1 / 2 + 1) / 2,
            "hit_rate@1": (0 + 1) / 2,
            "mrr": (1 / 2 + 1) / 2,
            "map@2": ((1 / 2) / 2 + 1) / 2,
            "coverage@1": 2 / 5,
        }
    )
    assert (result.n_users, result.n_rows) == (2, 3)


def test_the_result_keeps_the_order_and_the_spelling_of_the_metrics(model):
    names = ("recall@2", "rmse", "mrr", "mrr@1", "ndcg@3")
    assert tuple(ev.evaluate(model, interactions([(1, 12, 4.0)]), names)) == names


def test_one_metric_may_be_given_as_a_string(model):
    assert ev.evaluate(model, interactions([(1, 12, 4.0)]), "rmse")["rmse"] == 1.0


def test_exclude_seen_is_passed_on_and_recorded(model):
    test = interactions([(1, 11, 4.0)])
    without = ev.evaluate(model, test, ["hit_rate@1"], exclude_seen=True)
    with_seen = ev.evaluate(model, test, ["hit_rate@1"], exclude_seen=False)
    assert (without["hit_rate@1"], without.exclude_seen) == (1.0, True)
    assert (with_seen["hit_rate@1"], with_seen.exclude_seen) == (0.0, False)


def test_cold_users_are_reported_apart(model):
    warm = [(1, 12, 4.0), (2, 14, 3.0)]
    result = ev.evaluate(model, interactions([*warm, (3, 12, 5.0)]), ["rmse", "recall@2"])
    alone = ev.evaluate(model, interactions(warm), ["rmse", "recall@2"])
    assert result.metrics == alone.metrics
    assert result.cold == {"rmse": 2.0, "recall@2": 0.0}  # ties by position: 10 and 11
    assert (result.n_users, result.n_rows) == (2, 2)
    assert (result.n_cold_users, result.n_cold_rows) == (1, 1)
    assert alone.cold == {} and alone.n_cold_users == 0


def test_a_test_of_cold_users_only_has_no_warm_metrics(model):
    result = ev.evaluate(model, interactions([(3, 12, 5.0)]), ["rmse"])
    assert (result.metrics, result.cold) == ({}, {"rmse": 2.0})


def test_overlap_with_training_is_refused_with_a_count_and_the_first_pair(model):
    test = interactions([(1, 12, 4.0), (2, 13, 4.0), (1, 10, 4.0)])
    with pytest.raises(ValueError, match=r"2 of 3 test rows.*row 1, user 2, item 13") as error:
        ev.evaluate(model, test, ["rmse"])
    assert "\n" not in str(error.value)


def test_overlap_rows_are_numbered_as_the_caller_numbers_them(model):
    test = interactions([(99, 12, 4.0), (1, 10, 4.0)])  # row 0 is left out as unknown
    with pytest.raises(ValueError, match=r"1 of 2 test rows.*row 1, user 1, item 10"):
        ev.evaluate(model, test, ["rmse"])


def test_overlap_can_be_allowed_and_is_counted(model):
    test = interactions([(1, 10, 3.0), (1, 12, 3.0)])
    result = ev.evaluate(model, test, ["rmse", "recall@4"], allow_overlap=True)
    assert result.n_overlap_rows == 1
    assert result["rmse"] == pytest.approx(math.sqrt(2))
    assert result["recall@4"] == 0.5  # item 10 was seen, so it cannot be in the list


def test_unknown_users_and_items_are_left_out_and_counted(model):
    known = [(1, 12, 4.0), (2, 14, 3.0)]
    test = interactions([(99, 12, 1.0), *known, (1, 77, 1.0)])
    result = ev.evaluate(model, test, ["rmse", "recall@2"])
    assert result.n_unknown_rows == 2
    assert result.metrics == ev.evaluate(model, interactions(known), ["rmse", "recall@2"]).metrics


def test_a_test_without_a_known_row_is_refused(model):
    with pytest.raises(ValueError, match="none of the 2 rows"):
        ev.evaluate(model, interactions([(99, 12, 1.0), (1, 77, 1.0)]), ["rmse"])


def test_ids_of_the_wrong_type_are_refused(model):
    with pytest.raises(TypeError, match="user ids are integers here"):
        ev.evaluate(model, interactions([("1", 12, 1.0)]), ["rmse"])


def test_relevant_from_keeps_high_values_and_counts_users_left_without(model):
    test = interactions([(1, 12, 4.0), (1, 14, 3.0), (2, 14, 3.9)])
    result = ev.evaluate(model, test, ["rmse", "recall@2", "coverage@1"], relevant_from=4)
    assert result["recall@2"] == 1.0  # user 1's item 12 only
    assert result["coverage@1"] == 1 / 5
    assert result["rmse"] == ev.evaluate(model, test, ["rmse"])["rmse"]  # over all rows still
    assert (result.n_users, result.n_users_without_relevant) == (2, 1)
    assert result.relevant_from == 4


def test_ranking_is_nan_where_no_warm_user_has_a_relevant_item(model):
    test = interactions([(1, 12, 1.0), (3, 12, 5.0)])
    result = ev.evaluate(model, test, ["recall@5", "coverage@1"], relevant_from=4)
    assert math.isnan(result["recall@5"]) and math.isnan(result["coverage@1"])
    assert result.cold["recall@5"] == 1.0
    assert result.n_users_without_relevant == 1


def test_cold_users_without_a_relevant_item_are_counted_too(model):
    test = interactions([(1, 12, 5.0), (3, 12, 1.0)])
    result = ev.evaluate(model, test, ["recall@5"], relevant_from=4)
    assert result.n_users_without_relevant == 1
    assert math.isnan(result.cold["recall@5"])


def test_relevant_from_above_every_value_is_refused(model):
    with pytest.raises(ValueError, match="relevant_from=6: no test row"):
        ev.evaluate(model, interactions([(1, 12, 4.0)]), ["recall@2"], relevant_from=6)


def test_a_pair_tested_twice_is_one_relevant_item(model):
    result = ev.evaluate(model, interactions([(1, 12, 4.0), (1, 12, 5.0)]), ["recall@2"])
    assert result["recall@2"] == 1.0


def test_k_beyond_the_catalogue(model):
    result = ev.evaluate(model, interactions([(1, 12, 4.0)]), ["recall@50", "precision@50"])
    assert dict(result) == {"recall@50": 1.0, "precision@50": 1 / 50}


@pytest.mark.parametrize("names, expected", [(["mrr", "recall@2"], 0.0), (["mrr"], 1 / 3)])
def test_mrr_without_k_takes_the_longest_list(model, names, expected):
    assert ev.evaluate(model, interactions([(1, 13, 4.0)]), names)["mrr"] == expected


def test_the_metrics_without_values_are_those_of_rankings(model):
    test = Interactions.from_arrays([1], [12])
    assert ev.evaluate(model, test, ["recall@2"])["recall@2"] == 1.0
    assert tuple(ev.evaluate(model, test)) == ev.DEFAULT_RANKING
    with pytest.raises(ValueError, match="rmse needs values"):
        ev.evaluate(model, test, "rmse")
    with pytest.raises(ValueError, match="relevant_from needs values"):
        ev.evaluate(model, test, ["recall@2"], relevant_from=4)


@pytest.mark.parametrize("name", ["auc", "ndcg", "rmse@3", "ndcg@0", "ndcg@-1", "@5", "coverage"])
def test_an_unknown_metric_is_refused_with_the_valid_ones(model, name):
    valid = "rmse, mae, mrr, ndcg@k, recall@k, precision@k, map@k, mrr@k, hit_rate@k, coverage@k"
    with pytest.raises(ValueError, match=f"unknown metric '{name}': choose from {valid}"):
        ev.evaluate(model, interactions([(1, 12, 4.0)]), [name])


def test_no_metric_no_row_and_no_chunk_are_refused(model):
    test = interactions([(1, 12, 4.0)])
    with pytest.raises(ValueError, match="metrics is empty"):
        ev.evaluate(model, test, [])
    with pytest.raises(ValueError, match="no rows"):
        ev.evaluate(model, test.take([]))
    with pytest.raises(ValueError, match="chunk must be an integer of at least 1"):
        ev.evaluate(model, test, chunk=0)


def test_a_context_makes_one_query_per_user_and_context(model):
    # in context 0 user 2 gets 14 12 11 10; in context 9 item 10 comes first
    rows = [(2, 10, 1.0), (2, 10, 10.0), (2, 14, 10.0)]
    test = interactions(rows, context={"shift": [0, 9, 9]})
    result = ev.evaluate(model, test, ["rmse", "mrr@4", "recall@1"])
    assert result["mrr@4"] == pytest.approx((1 / 4 + 1) / 2)
    assert result["recall@1"] == pytest.approx((0 + 1 / 2) / 2)
    assert result["rmse"] == pytest.approx(math.sqrt((0 + 0 + 25) / 3))
    assert (result.n_users, result.n_rows, model.calls) == (1, 3, [2])


def test_each_query_is_asked_in_its_own_context():
    model = Fake(SCORES, [(1, 11), (2, 11)])
    rows = [(2, 10, 1.0), (1, 10, 1.0), (1, 10, 1.0), (2, 10, 1.0)]
    test = interactions(rows, context={"shift": [9, 9, 0, 0]})
    result = ev.evaluate(model, test, ["mrr@5"], exclude_seen=False)
    assert result["mrr@5"] == pytest.approx((1 + 1 + 1 + 1 / 5) / 4)


def test_contexts_without_a_relevant_item_are_counted_as_queries(model):
    rows = [(2, 10, 1.0), (2, 10, 10.0), (2, 14, 10.0)]
    test = interactions(rows, context={"shift": [0, 9, 9], "shop": ["a", "b", "a"]})
    result = ev.evaluate(model, test, ["mrr@4"], relevant_from=4)
    assert (result.n_users_without_relevant, model.calls) == (1, [2])


def test_rows_in_an_unknown_context_are_left_out_and_counted(model):
    model.contexts = {"shift": IdMap([0, 9])}
    rows = [(2, 10, 1.0), (2, 14, 9.0), (99, 10, 1.0), (1, 12, 2.0), (2, 10, 5.0)]
    test = interactions(rows, context={"shift": [0, 7, 7, 9, 9]})
    result = ev.evaluate(model, test, ["rmse", "recall@2"])
    assert (result.n_unknown_rows, result.n_unknown_context_rows, result.n_rows) == (1, 1, 3)
    rest = ev.evaluate(model, test.take([0, 3, 4]), ["rmse", "recall@2"])
    assert rest.metrics == result.metrics and rest.n_unknown_context_rows == 0
    assert (
        "rows left out because the model does not know a level of their context: 1"
        in str(result).splitlines()
    )
    assert "level" not in str(rest)


def test_a_row_with_one_unknown_level_of_several_is_left_out(model):
    model.contexts = {"shift": IdMap([0, 9]), "shop": IdMap(["a"])}
    rows = [(2, 10, 1.0), (2, 14, 9.0), (2, 11, 1.0)]
    test = interactions(rows, context={"shift": [0, 0, 7], "shop": ["a", "b", "b"]})
    result = ev.evaluate(model, test, ["rmse"])
    assert (result.n_unknown_context_rows, result.n_rows) == (2, 1)


def test_a_test_without_a_known_context_is_refused(model):
    model.contexts = {"shift": IdMap([0, 9])}
    test = interactions([(2, 10, 1.0), (99, 10, 1.0)], context={"shift": [7, 0]})
    with refused(ValueError, "context", "none"):
        ev.evaluate(model, test, ["rmse"])


def test_levels_of_the_wrong_type_are_refused(model):
    model.contexts = {"shift": IdMap([0, 9], "shift")}
    test = interactions([(2, 10, 1.0)], context={"shift": ["0"]})
    with refused(TypeError, "shift", "integers", "strings"):
        ev.evaluate(model, test, ["rmse"])


@given(
    pairs=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(ITEMS)), min_size=1, unique=True),
    chunk=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_chunks_bound_the_call_and_change_nothing(pairs, chunk, seed):
    table = np.random.default_rng(seed).integers(0, 4, (21, len(ITEMS)))  # many ties
    scores = {u: dict(zip(ITEMS, row, strict=True)) for u, row in enumerate(table.tolist())}
    model = Fake(scores, [(user, 0) for user in range(0, 21, 2)])
    test = interactions([(user, item, 1.0) for user, item in pairs])
    names = ["rmse", "ndcg@3", "map@4", "mrr", "coverage@2"]
    whole = ev.evaluate(model, test, names)
    model.calls.clear()
    assert ev.evaluate(model, test, names, chunk=chunk) == whole
    assert max(model.calls) <= chunk


def test_the_answer_does_not_depend_on_the_order_of_test_rows(model):
    rows = [(2, 14, 3.0), (1, 12, 4.0), (1, 14, 1.0), (3, 10, 2.0), (2, 10, 5.0)]
    forward = ev.evaluate(model, interactions(rows), ["ndcg@3", "recall@2"])
    assert forward == ev.evaluate(model, interactions(rows[::-1]), ["ndcg@3", "recall@2"])


def test_the_printed_result_is_one_aligned_table_with_everything_left_out(model):
    rows = [(1, 12, 4.0), (2, 14, 3.0), (3, 12, 5.0), (9, 12, 5.0), (1, 10, 5.0)]
    result = ev.evaluate(
        model, interactions(rows), ["rmse", "recall@2"], relevant_from=4, allow_overlap=True
    )
    assert str(result).splitlines() == [
        "            warm    cold",
        "rmse      1.2910  2.0000",
        "recall@2  0.5000  0.0000",
        "users          2       1",
        "rows           3       1",
        "items seen in training: left out of the lists",
        "relevant: test rows with a value of 4 or more",
        "rows left out because the model does not know their user or item: 1",
        "users left out of the ranking because nothing is relevant to them: 1",
        "rows that were training rows too: 1",
    ]


def test_the_printed_result_says_nothing_of_what_did_not_happen(model):
    result = ev.evaluate(model, interactions([(1, 12, 4.0)]), ["rmse"], exclude_seen=False)
    assert str(result).splitlines() == [
        "         warm",
        "rmse   1.0000",
        "users       1",
        "rows        1",
        "items seen in training: kept in the lists",
    ]


def test_to_dict_survives_json(model):
    result = ev.evaluate(model, interactions([(1, 12, 4.0), (3, 12, 5.0)]), ["rmse", "recall@2"])
    told = json.loads(json.dumps(result.to_dict()))
    assert ev.Evaluation(**told) == result
    assert told["metrics"]["rmse"] == 1.0 and told["n_cold_rows"] == 1


# --- popularity -------------------------------------------------------------------------------


def test_the_popularity_of_lists_by_hand():
    # items 10 to 14 are had by 2, 1, 1, 0, 0 of three users; lists: 1 gets 12 13, 2 gets 14 13
    model = Fake(SCORES, [(1, 10), (1, 11), (2, 10), (3, 12)])
    test = interactions([(1, 13, 4.0), (2, 14, 3.0)])
    names = ["popularity@2", "novelty@2", "popularity_lift@2"]
    result = ev.evaluate(model, test, names)
    listed, owned = [(1 + 0) / 2, (0 + 0) / 2], [(2 + 1) / 2, 2]
    assert result["popularity@2"] == pytest.approx(sum(listed) / 2)
    assert result["novelty@2"] == pytest.approx(math.log2(3))  # those nobody has count as one
    assert result["popularity_lift@2"] == pytest.approx((sum(listed) - sum(owned)) / sum(owned))


def test_the_lift_of_cold_users_is_unknown(model):
    result = ev.evaluate(model, interactions([(3, 12, 5.0)]), ["popularity@1", "popularity_lift@1"])
    assert result.cold["popularity@1"] == 1.0
    assert math.isnan(result.cold["popularity_lift@1"])


def test_a_model_that_does_not_tell_who_has_what_has_no_popularity(model):
    del model.catalog_
    for options in ({"metrics": "novelty@3"}, {"metrics": "ndcg@1", "sampled": 1}):
        with refused(TypeError, "Fake", "catalog_.seen"):
            ev.evaluate(model, interactions([(1, 12, 4.0)]), **options)


# --- sampled metrics --------------------------------------------------------------------------

SAMPLED = ["ndcg@2", "recall@1", "precision@3", "map@3", "mrr", "hit_rate@2"]


def big_fake(n_users=12, n_items=30, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.integers(0, 8, (n_users, n_items)).astype(float)  # with ties
    items = list(range(100, 100 + n_items))
    scores = {user: dict(zip(items, row, strict=True)) for user, row in enumerate(table.tolist())}
    pairs = [(user, items[p]) for user in range(n_users) for p in generator.permutation(n_items)]
    train = [pair for place, pair in enumerate(pairs) if place % n_items < 5]
    test = [(*pair, 1.0) for place, pair in enumerate(pairs) if 5 <= place % n_items < 8]
    return Fake(scores, train), test


def test_sampled_metrics_of_given_negatives_are_what_a_loop_gives():
    model, rows = big_fake()
    source = random.Random(0)
    others = model.items.ids.tolist()
    negatives = [source.sample([i for i in others if i != item], 4) for _, item, _ in rows]
    result = ev.evaluate(model, interactions(rows), SAMPLED, sampled=negatives)
    expected = {name: [] for name in SAMPLED}
    for (user, item, _), row in zip(rows, negatives, strict=True):
        ranked = sorted([item, *row], key=lambda i: (-model.table[user][i], i))
        for name in SAMPLED:
            kind, _, k = name.partition("@")
            naive = {
                "ndcg": naive_ndcg,
                "recall": naive_recall,
                "precision": naive_precision,
                "map": naive_average_precision,
                "mrr": naive_reciprocal_rank,
                "hit_rate": naive_hit_rate,
            }[kind]
            expected[name].append(naive(ranked, {item}, int(k or 5)))
    assert dict(result) == pytest.approx(
        {
            f"sampled {name} (4 given negatives)": sum(values) / len(values)
            for name, values in expected.items()
        }
    )
    assert result.sampled == 4


def test_sampled_among_all_that_are_left_is_the_full_ranking():
    model, rows = big_fake()
    rows = rows[::3]  # one row of each user
    full = ev.evaluate(model, interactions(rows), SAMPLED[:-2])
    every = ev.evaluate(model, interactions(rows), SAMPLED[:-2], sampled=24, random_state=0)
    assert list(every.values()) == pytest.approx(list(full.values()))


def test_negatives_are_drawn_uniformly_from_what_is_no_positive_of_the_user():
    model, rows = big_fake(n_users=2)
    test = interactions(rows)
    asked = []
    scores = model.scores

    def recording(users, items, context=None):
        asked.extend(zip(users.tolist(), items.tolist(), strict=True))
        return scores(users, items, context)

    model.scores = recording
    for seed in range(200):
        ev.evaluate(model, test, "hit_rate@1", sampled=5, random_state=seed)
    positives = {*model.train, *((user, item) for user, item, _ in rows)}
    counts = {}
    for start in range(0, len(asked), 6):
        own, *drawn = asked[start : start + 6]
        assert own in positives and not positives & set(drawn)
        assert len(set(drawn)) == 5 and {user for user, _ in drawn} == {own[0]}
        for pair in drawn:
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 2 * (30 - 8)
    expected = 200 * 3 * 5 / 22  # standard deviation 10.3
    assert all(expected - 50 < count < expected + 50 for count in counts.values())


def test_sampled_metrics_repeat_with_the_seed_whatever_the_chunk():
    model, rows = big_fake()
    test = interactions(rows)

    def of(seed, **options):
        return ev.evaluate(model, test, SAMPLED, sampled=7, random_state=seed, **options)

    assert of(1) == of(1) == of(1, chunk=5) != of(2)


def test_sampled_metrics_are_named_and_ratings_are_not_sampled(model):
    result = ev.evaluate(model, interactions([(1, 12, 4.0)]), ["rmse", "mrr"], sampled=2)
    assert list(result) == ["rmse", "sampled mrr (2 negatives)"]
    assert "ranked among 2 other items, not the catalogue" in str(result)
    assert "left out of the lists" not in str(result)


def test_a_context_is_part_of_sampled_scores(model):
    # in context 9 item 10 beats item 14 of user 2, in context 0 it does not
    test = interactions([(2, 10, 1.0), (2, 10, 10.0)], context={"shift": [0, 9]})
    result = ev.evaluate(model, test, "hit_rate@1", sampled=[[14], [14]])
    assert result["sampled hit_rate@1 (1 given negatives)"] == 0.5


def test_only_relevant_rows_are_ranked_in_samples(model):
    test = interactions([(1, 12, 4.0), (1, 14, 1.0)])
    result = ev.evaluate(model, test, "hit_rate@1", sampled=[[13], [11]], relevant_from=4)
    assert list(result.values()) == [1.0]


@pytest.mark.parametrize(
    "sampled, kind, words",
    [
        (4, ValueError, ["sampled=4", "user 1", "only 2 items"]),
        (0, ValueError, ["sampled", "at least 1"]),
        (True, ValueError, ["sampled", "integer"]),
        (1.5, ValueError, ["sampled", "integer"]),
        ("99", ValueError, ["sampled", "integer"]),
        ([[13]], ValueError, ["1 rows of negatives", "2 test rows"]),
        ([[13], [13, 10]], ValueError, ["row 1 has 2", "row 0 has 1"]),
        ([[13], [14]], ValueError, ["test row 1", "14", "order"]),
        ([[13], [77]], UnknownIdError, ["item", "77"]),
        ([["x"], ["y"]], TypeError, ["integers", "strings"]),
    ],
)
def test_negatives_that_can_not_be_used_are_refused(model, sampled, kind, words):
    test = interactions([(1, 12, 4.0), (1, 14, 1.0)])
    with refused(kind, *words):
        ev.evaluate(model, test, "mrr@1", sampled=sampled)


def test_metrics_that_samples_can_not_give_are_refused(model):
    test = interactions([(1, 12, 4.0)])
    with refused(ValueError, "coverage@2", "whole lists"):
        ev.evaluate(model, test, "coverage@2", sampled=2)
    with refused(ValueError, "recall@4", "more items than the 3"):
        ev.evaluate(model, test, "recall@4", sampled=2)
    bare = SimpleNamespace(**{name: getattr(model, name) for name in BARE})
    with refused(TypeError, "scores", "SimpleNamespace"):
        ev.evaluate(bare, test, "recall@1", sampled=2)


BARE = ("users", "items", "catalog_", "n_training_rows", "seen_pairs", "recommend")


# --- user by user -----------------------------------------------------------------------------


def test_metrics_user_by_user(model):
    test = interactions([(1, 12, 4.0), (1, 14, 1.0), (2, 14, 3.0)])
    result = ev.evaluate(model, test, ["rmse", "recall@2", "coverage@1"], relevant_from=3.5)
    assert result.per_user.users.tolist() == [1, 2]
    assert list(result.per_user) == ["rmse", "recall@2"]
    assert result.per_user["rmse"] == pytest.approx([math.sqrt((1 + 0) / 2), 2.0])
    np.testing.assert_array_equal(result.per_user["recall@2"], [1.0, math.nan])


def test_a_user_with_several_contexts_has_the_mean_of_their_lists(model):
    rows = [(2, 10, 1.0), (2, 10, 10.0), (2, 14, 10.0)]
    test = interactions(rows, context={"shift": [0, 9, 9]})
    per_user = ev.evaluate(model, test, "mrr@4").per_user
    assert per_user["mrr@4"] == pytest.approx([(1 / 4 + 1) / 2])


def noisy_fake(n_users=60, seed=3):
    """Users with 1 to 6 rows each, whose errors are alike within a user."""
    source = random.Random(seed)
    rows, scores = [], {}
    for user in range(n_users):
        scores[user] = {item: source.random() for item in ITEMS}
        bias = source.gauss(0, 1)
        for item in ITEMS[: source.randint(1, 5)]:
            rows.append((user, item, scores[user][item] + bias + source.gauss(0, 0.1)))
    return Fake(scores, [(user, 0) for user in range(n_users)]), rows


def quantiles(numbers, level):
    ordered = sorted(numbers)
    return [ordered[round(q * (len(ordered) - 1))] for q in ((1 - level) / 2, (1 + level) / 2)]


def test_intervals_are_those_of_a_bootstrap_over_users_in_plain_python():
    model, rows = noisy_fake()
    names = ["rmse", "mae", "recall@2"]
    result = ev.evaluate(model, interactions(rows), names, intervals=0.9, random_state=0)
    by_user = {}
    for user, item, value in rows:
        by_user.setdefault(user, []).append((item, value - model.table[user][item]))
    lists = {
        user: sorted(ITEMS, key=lambda item, user=user: -model.table[user][item])
        for user in by_user
    }
    source, drawn = random.Random(1), {name: [] for name in names}
    for _ in range(2000):
        users = source.choices(list(by_user), k=len(by_user))
        errors = [error for user in users for _, error in by_user[user]]
        recalls = [naive_recall(lists[u], {item for item, _ in by_user[u]}, 2) for u in users]
        drawn["rmse"].append(math.sqrt(sum(e * e for e in errors) / len(errors)))
        drawn["mae"].append(sum(map(abs, errors)) / len(errors))
        drawn["recall@2"].append(sum(recalls) / len(recalls))
    for name in names:
        low, high = quantiles(drawn[name], 0.9)
        assert result.intervals[name] == pytest.approx((low, high), abs=0.1 * (high - low))
        assert low < result[name] < high


def test_intervals_repeat_with_the_seed_and_widen_with_the_confidence():
    model, rows = noisy_fake()
    test = interactions(rows)

    def of(level, seed):
        return ev.evaluate(model, test, "rmse", intervals=level, random_state=seed).intervals

    assert of(0.9, 1) == of(0.9, 1) != of(0.9, 2)
    (narrow,), (wide,) = of(0.5, 1).values(), of(0.99, 1).values()
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_user_leaves_no_doubt_and_coverage_has_no_interval(model):
    test = interactions([(1, 12, 4.0), (1, 14, 1.0)])
    result = ev.evaluate(model, test, ["recall@2", "coverage@1"], intervals=0.95)
    assert result.intervals == {"recall@2": (0.5, 0.5)}


def test_where_there_is_nothing_to_measure_there_is_no_interval(model):
    test = interactions([(1, 12, 1.0), (3, 12, 5.0)])
    result = ev.evaluate(model, test, ["recall@5"], relevant_from=4, intervals=0.9)
    assert all(map(math.isnan, result.intervals["recall@5"]))
    cold = ev.evaluate(model, interactions([(3, 12, 5.0)]), ["recall@5"], intervals=0.9)
    assert cold.intervals == {}


@pytest.mark.parametrize("level", [0, 1, 95, 1.5, -0.1, True, "0.95", math.nan])
def test_a_confidence_is_a_share(model, level):
    with refused(ValueError, "intervals", "0.95"):
        ev.evaluate(model, interactions([(1, 12, 4.0)]), "rmse", intervals=level)


def test_the_interval_of_a_difference_is_user_by_user():
    model, rows = noisy_fake()
    worse = Fake({user: dict(row) for user, row in model.table.items()}, model.train)
    for user, item, value in rows:  # off by 0.25 more, everywhere
        worse.table[user][item] -= math.copysign(0.25, value - model.table[user][item])
    test = interactions(rows)
    one = ev.evaluate(model, test, "mae", intervals=0.95, random_state=0)
    other = ev.evaluate(worse, test, "mae", intervals=0.95, random_state=0)
    low, high = one.intervals["mae"]
    assert high - low > 0.2
    found = paired_bootstrap(other.per_user, one.per_user, 0.95, random_state=0)
    assert found["mae"] == pytest.approx((0.25, 0.25))


def test_intervals_are_printed_beside_the_metrics_and_survive_json(model):
    test = interactions([(1, 12, 4.0), (1, 14, 1.0), (3, 12, 5.0)])
    result = ev.evaluate(model, test, ["recall@2", "coverage@1"], intervals=0.95, random_state=0)
    assert str(result).splitlines()[:5] == [
        "              warm      95% interval    cold",
        "recall@2    0.5000  0.5000 to 0.5000  0.0000",
        "coverage@1  0.2000                    0.2000",
        "users            1                         1",
        "rows             2                         1",
    ]
    told = json.loads(json.dumps(result.to_dict()))
    assert ev.Evaluation(**told) == result


# --- held-out users ---------------------------------------------------------------------------


class Folding:
    """Lists for people from their histories: items far from the mean of the history come first."""

    def __init__(self, items, train=()):
        self.items, self.train, self.calls = IdMap(items), list(train), []
        seen = ItemLists.from_pairs(
            [user for user, _ in train], [items.index(item) for _, item in train], 100
        )
        self.catalog_ = SimpleNamespace(seen=seen)

    def n_training_rows(self, users):
        return np.array([sum(u == user for u, _ in self.train) for user in users.tolist()])

    def ranked(self, history):
        mean = sum(history) / len(history)
        left = [item for item in self.items.ids.tolist() if item not in history]
        return sorted(left, key=lambda item: (-abs(item - mean), item))

    def recommend_for_many(self, histories, n):
        self.calls.append(len(histories))
        lists = [self.ranked(list(items))[:n] for items in histories.values()]
        places = [[self.items.positions([item])[0] for item in row] for row in lists]
        return SimpleNamespace(positions=padded(places, n))


FOLD_IN = [(50, 10), (50, 11), (51, 14), (52, 12), (52, 77)]
HELD = [(50, 14), (50, 12), (51, 10), (52, 13), (52, 77)]


def pairs_of(pairs):
    users, items = zip(*pairs, strict=True)
    return Interactions.from_arrays(users, items)


@pytest.mark.parametrize("chunk", [None, 2])
def test_held_out_users_are_asked_for_by_their_fold_in_rows_alone(chunk):
    model = Folding(ITEMS, [(1, 10), (2, 10), (2, 11)])
    test = pairs_of(HELD)
    names = ["recall@1", "ndcg@2", "mrr", "popularity@1", "popularity_lift@1", "coverage@1"]
    result = ev.evaluate_fold_in(model, pairs_of(FOLD_IN), test, names, chunk=chunk)
    histories = {50: [10, 11], 51: [14], 52: [12]}
    relevant = {50: {14, 12}, 51: {10}, 52: {13}}
    lists = {user: model.ranked(history) for user, history in histories.items()}
    counts = {10: 2, 11: 1}

    def mean(numbers):
        numbers = list(numbers)
        return sum(numbers) / len(numbers)

    listed = [counts.get(lists[user][0], 0) for user in histories]
    owned = [mean(counts.get(i, 0) for i in histories[user]) for user in histories]
    gained = sum(a - b for a, b in zip(listed, owned, strict=True) if b > 0)
    assert dict(result) == pytest.approx(
        {
            "recall@1": mean(naive_recall(lists[u], relevant[u], 1) for u in histories),
            "ndcg@2": mean(naive_ndcg(lists[u], relevant[u], 2) for u in histories),
            "mrr": mean(naive_reciprocal_rank(lists[u], relevant[u], 2) for u in histories),
            "popularity@1": mean(listed),
            "popularity_lift@1": gained / sum(owned),
            "coverage@1": len({items[0] for items in lists.values()}) / 5,
        }
    )
    assert (result.n_users, result.n_rows, result.n_unknown_rows) == (3, 4, 1)
    assert model.calls == ([3] if chunk is None else [2, 1])


def test_held_out_users_have_intervals_too():
    result = ev.evaluate_fold_in(
        Folding(ITEMS), pairs_of(FOLD_IN), pairs_of(HELD), "mrr@3", intervals=0.9, random_state=0
    )
    low, high = result.intervals["mrr@3"]
    assert 0 <= low <= result["mrr@3"] <= high <= 1
    assert result.per_user.users.tolist() == [50, 51, 52]


@pytest.mark.parametrize(
    "train, fold_in, test, words",
    [
        ([(51, 10)], FOLD_IN, HELD, ["user 51", "training rows", "1 of 3 users"]),
        ([], FOLD_IN[:3], HELD, ["user 52", "no fold-in row"]),
        ([], FOLD_IN, [*HELD, (51, 14)], ["row 5", "user 51", "item 14", "folded in"]),
        ([], FOLD_IN, [(50, 77)], ["item of none of the 1 test rows"]),
    ],
)
def test_what_is_no_strong_generalisation_is_refused(train, fold_in, test, words):
    with refused(ValueError, *words):
        ev.evaluate_fold_in(Folding(ITEMS, train), pairs_of(fold_in), pairs_of(test), "mrr@2")


def test_rows_in_both_parts_can_be_allowed_and_count_as_misses():
    test = pairs_of([(51, 14), (51, 10)])
    result = ev.evaluate_fold_in(
        Folding(ITEMS), pairs_of(FOLD_IN), test, "recall@4", allow_overlap=True
    )
    assert (result["recall@4"], result.n_overlap_rows) == (0.5, 1)


def test_held_out_users_have_no_ratings_and_no_context():
    test = interactions([(50, 14, 3.0)])
    with refused(ValueError, "rmse", "ranking metrics"):
        ev.evaluate_fold_in(Folding(ITEMS), pairs_of(FOLD_IN), test, "rmse")
    there = interactions([(50, 14, 3.0)], context={"shop": ["a"]})
    with refused(ValueError, "context"):
        ev.evaluate_fold_in(Folding(ITEMS), pairs_of(FOLD_IN), there, "mrr@2")
