"""Popularity and item cosines against loops in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from fmknn import baselines, evaluate
from fmknn.baselines import ItemCosine, Popularity
from fmknn.data.interactions import Interactions
from fmknn.errors import UnknownIdError

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=4, max_size=50)


def log_of(pairs):
    users, items = zip(*pairs, strict=True)
    return Interactions.from_arrays(users, items)


def popularity(pairs, user, item):
    return float(len({u for u, i in pairs if i == item}))


def cosines(pairs, item):
    """{other item: cosine} of those that share a user with it."""
    of = {i: {u for u, other in pairs if other == i} for _, i in pairs}
    found = {}
    for other, users in of.items():
        both = len(users & of[item])
        if other != item and both:
            found[other] = both / math.sqrt(len(users) * len(of[item]))
    return found


def item_cosine(n_neighbors):
    def score(pairs, user, item):
        total = 0.0
        for owned in {i for u, i in pairs if u == user}:
            near = cosines(pairs, owned)
            neighbors = sorted(near, key=lambda i: (-round(near[i], 12), i))[:n_neighbors]
            total += near[item] if item in neighbors else 0.0
        return total

    return score


MODELS = [(Popularity(), popularity), (ItemCosine(), item_cosine(100))]


@pytest.mark.parametrize("model, oracle", MODELS, ids=["popularity", "cosine"])
@given(pairs=PAIRS, n=st.integers(1, 12), exclude_seen=st.booleans())
def test_lists_and_scores_are_what_loops_give(model, oracle, pairs, n, exclude_seen):
    log = log_of(pairs)
    model.fit(log)
    users = log.users.ids.tolist()
    top = model.recommend(users, n, exclude_seen=exclude_seen)
    for (user, ranked), count in zip(top, top.counts.tolist(), strict=True):
        allowed = [
            item
            for item in log.items.ids.tolist()
            if not (exclude_seen and (user, item) in {*pairs})
        ]
        scores = {item: oracle(pairs, user, item) for item in allowed}
        assert len(ranked) == count == min(n, len(allowed))
        assert [score for _, score in ranked] == pytest.approx(
            sorted(scores.values(), reverse=True)[:n]
        )
        items = [item for item, _ in ranked]
        assert len({*items}) == count
        assert model.scores([user] * count, items) == pytest.approx([scores[i] for i in items])


def test_ties_rank_by_position():
    model = Popularity().fit(log_of([(1, 30), (2, 20), (3, 10), (3, 40), (4, 40)]))
    assert model.recommend([1], 3).items.tolist() == [[40, 10, 20]]


def test_only_so_many_neighbors_of_an_item_count():
    # of item 0, item 1 is nearer than item 2
    pairs = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 2), (4, 0), (5, 2), (6, 2)]
    model = ItemCosine(n_neighbors=1).fit(log_of(pairs))
    oracle = item_cosine(1)
    assert model.scores([4, 4], [1, 2]) == pytest.approx([oracle(pairs, 4, 1), 0.0])
    assert oracle(pairs, 4, 1) > 0


@pytest.mark.parametrize("model", [Popularity(), ItemCosine()], ids=repr)
def test_small_parts_change_nothing(model, monkeypatch):
    generator = np.random.default_rng(0)
    log = log_of(list(zip(*generator.integers(0, 25, (2, 200)).tolist(), strict=True)))
    users, items = log.user_ids[:50], log.item_ids[50:100]
    whole = model.fit(log).recommend(users, 7), model.scores(users, items)
    monkeypatch.setattr(baselines, "_CELLS", 60)
    parts = model.fit(log).recommend(users, 7), model.scores(users, items)
    np.testing.assert_array_equal(whole[0].positions, parts[0].positions)
    np.testing.assert_array_equal(whole[1], parts[1])


@pytest.mark.parametrize("model", [Popularity(), ItemCosine()], ids=repr)
def test_a_baseline_is_evaluated_like_any_model(model):
    train = log_of([(u, i) for u in range(8) for i in range(6) if (u + i) % 3])
    test = Interactions(train.users, train.items, user_index=[0, 1], item_index=[3, 2])
    found = evaluate(model.fit(train), test, ["ndcg@5", "novelty@2", "coverage@2"])
    assert found.n_users == 2 and 0 < found["ndcg@5"] <= 1
    evaluate(model, test, "mrr", sampled=1, random_state=0)
    assert model.n_training_rows([0, 99]).tolist() == [4, 0]
    assert model.seen_pairs([0, 0], [1, 3]).tolist() == [True, False]


def test_baselines_predict_no_ratings():
    log = Interactions.from_arrays([1, 1, 2], [7, 8, 7], [3.0, 4.0, 5.0])
    test = Interactions.from_arrays([2], [8], [4.0])
    with refused(ValueError, "Popularity", "no values", "ranking metrics"):
        evaluate(Popularity().fit(log), test, "rmse")


def test_a_baseline_learns_from_interactions_alone():
    with refused(TypeError, "Interactions, got list"):
        Popularity().fit([(1, 2)])


def test_what_can_not_be_asked_for_is_refused():
    model = Popularity().fit(log_of([(1, 7), (2, 8)]))
    with refused(UnknownIdError, "user", "99"):
        model.recommend([1, 99])
    with refused(ValueError, "n must be", "0"):
        model.recommend([1], 0)
    with refused(ValueError, "ItemCosine", "not fitted"):
        ItemCosine().recommend([1])
    with refused(ValueError, "n_neighbors", "0"):
        ItemCosine(n_neighbors=0)
    with refused(ValueError, "exclude_seen"):
        model.recommend([1], exclude_seen="no")
