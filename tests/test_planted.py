"""make_interactions: the truth it returns, and the laws of the data it draws."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmknn.datasets import make_interactions
from fmknn.datasets.pairs import draw_pairs


def test_the_default_data():
    ratings, truth = make_interactions()
    assert repr(ratings) == "Interactions(20000 rows, 1000 users, 500 items, values)"
    assert ratings.values.dtype == np.float32
    assert ratings.user_index.dtype == ratings.item_index.dtype == np.int32
    assert ratings.user_features.features == ("group", "taste")
    assert ratings.item_features.features == ("tags",)
    assert {len(tags) for tags in ratings.item_features["tags"]} == {1, 2, 3}
    assert truth.row_scores.shape == (20_000,)
    assert 0.5 < truth.row_scores.std() < 1.5  # the noise of 0.3 is well below


@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("user_features", [True, False])
@pytest.mark.parametrize("item_features", [True, False])
def test_the_truth_is_a_textbook_fm(user_features, item_features, context):
    ratings, truth = make_interactions(
        9,
        7,
        12,
        n_factors=3,
        user_features=user_features,
        item_features=item_features,
        context=context,
        noise=0,
        random_state=1,
    )
    # one long row per rating: ids one-hot, then the features as the table encodes them
    sides = [("user", ratings.user_index, 9, ratings.user_features)]
    sides += [("item", ratings.item_index, 7, ratings.item_features)]
    sides += [("context", c.index, 3, None) for c in ratings.context.values()]
    X, w, V = [], [], []
    for name, index, n, table in sides:
        X.append(np.eye(n)[index])
        w.append(truth.w[name])
        V.append(truth.V[name])
        if table is not None:
            rows, names = table.encode()
            dense = np.zeros((n, len(names)))
            for entity in range(n):
                for at in range(rows.indptr[entity], rows.indptr[entity + 1]):
                    dense[entity, rows.indices[at]] = rows.values[at]
            X.append(dense[index])
            w.append(truth.w[f"{name}_features"])
            V.append(truth.V[f"{name}_features"])
            assert truth.feature_names[f"{name}_features"] == names
    expected = naive.fm_scores(truth.w0, np.concatenate(w), np.concatenate(V), np.hstack(X))
    np.testing.assert_allclose(truth.row_scores, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ratings.values, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("context", [None, 4])
def test_scores_of_any_pair(context):
    ratings, truth = make_interactions(30, 20, 100, context=context)
    index = [ratings.user_index, ratings.item_index]
    index += [column.index for column in ratings.context.values()]
    np.testing.assert_array_equal(truth.scores(*index), truth.row_scores)
    grid = truth.scores(np.arange(30)[:, None], np.arange(20), *([2] if context else []))
    assert grid.shape == (30, 20)
    one = truth.scores(7, 11, *([2] if context else []))
    assert one == pytest.approx(grid[7, 11], rel=1e-12)


def test_scoring_in_chunks_changes_nothing(monkeypatch):
    _, whole = make_interactions(30, 20, 100)
    monkeypatch.setattr("fmknn.datasets.planted._CHUNK", 7)
    _, chunked = make_interactions(30, 20, 100)
    np.testing.assert_array_equal(whole.row_scores, chunked.row_scores)


def test_scores_refuses_positions_out_of_range():
    _, truth = make_interactions(30, 20, 100)
    with pytest.raises(ValueError, match=r"user position outside 0\.\.29"):
        truth.scores([30], [0])
    with pytest.raises(ValueError, match=r"item position outside 0\.\.19"):
        truth.scores([0], [-1])


def test_scores_refuses_a_missing_or_unforeseen_context():
    _, truth = make_interactions(30, 20, 100)
    with pytest.raises(ValueError, match="has no context"):
        truth.scores([0], [0], [0])
    _, truth = make_interactions(30, 20, 100, context=2)
    with pytest.raises(ValueError, match="needs context"):
        truth.scores([0], [0])


def test_noise_is_what_was_asked():
    ratings, truth = make_interactions(noise=0.5)
    residuals = ratings.values - truth.row_scores
    assert residuals.std() == pytest.approx(0.5, rel=0.05)
    assert residuals.mean() == pytest.approx(0, abs=0.02)


def test_rating_scale():
    ratings, truth = make_interactions(rating_scale=(1, 5))
    assert np.unique(ratings.values).tolist() == [1, 2, 3, 4, 5]
    assert truth.w0 == 3
    inside = (truth.row_scores > 1) & (truth.row_scores < 5)
    assert np.abs(ratings.values - truth.row_scores)[inside].mean() < 0.5


def test_one_seed_one_result():
    one, truth = make_interactions(50, 40, 300, context=3, random_state=5)
    again, truth_again = make_interactions(50, 40, 300, context=3, random_state=5)
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.user_index, again.user_index)
    np.testing.assert_array_equal(one.context["context"].index, again.context["context"].index)
    np.testing.assert_array_equal(truth.V["user"], truth_again.V["user"])
    other = make_interactions(50, 40, 300, context=3, random_state=6, return_truth=False)
    assert not np.array_equal(one.values, other.values)


def test_return_truth_false_gives_the_same_data():
    ratings, _ = make_interactions(50, 40, 300)
    np.testing.assert_array_equal(
        ratings.values, make_interactions(50, 40, 300, return_truth=False).values
    )


def test_numpys_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    make_interactions(50, 40, 300)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_everybody_is_in_the_vocabulary_rated_or_not():
    ratings = make_interactions(
        50, 40, 2, user_features=False, item_features=False, context=9, return_truth=False
    )
    assert ratings.users.ids.tolist() == list(range(50))
    assert ratings.items.ids.tolist() == list(range(40))
    assert ratings.context["context"].ids.ids.tolist() == list(range(9))
    assert ratings.user_features is ratings.item_features is None


# --- pairs and popularity ---------------------------------------------------------------


@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, 0.7, 1, 3, 60]))
@settings(max_examples=60)
def test_pairs_are_distinct_in_range_and_as_many_as_asked(data, n_users, n_items, zipf):
    n = data.draw(st.integers(1, n_users * n_items))
    users, items = draw_pairs(n_users, n_items, n, zipf, np.random.default_rng(n))
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == len(users) == n
    assert 0 <= users.min() <= users.max() < n_users
    assert 0 <= items.min() <= items.max() < n_items


@pytest.mark.parametrize("zipf", [0.6, 1.0, 1.4])
def test_popularity_falls_as_a_power_of_the_rank(zipf):
    # users enough that hardly an item is rated by everybody
    _, items = draw_pairs(1_000_000, 2_000, 300_000, zipf, np.random.default_rng(0))
    counts = np.sort(np.bincount(items, minlength=2_000))[::-1]
    rank = np.arange(1, 201)
    slope = np.polyfit(np.log(rank), np.log(counts[:200]), 1)[0]
    assert slope == pytest.approx(-zipf, abs=0.06)


def test_without_zipf_all_items_are_alike():
    _, items = draw_pairs(1_000, 100, 20_000, 0, np.random.default_rng(0))
    counts = np.bincount(items, minlength=100)
    assert (counts.min(), counts.max()) == (200, 200)


def test_rank_is_not_the_id():
    _, items = draw_pairs(1_000, 200, 5_000, 1.0, np.random.default_rng(0))
    counts = np.bincount(items, minlength=200)
    assert abs(np.corrcoef(counts, np.arange(200))[0, 1]) < 0.3


def test_popularity_levels_off_where_everybody_has_rated():
    _, items = draw_pairs(200, 500, 30_000, 1.5, np.random.default_rng(0))
    counts = np.sort(np.bincount(items))[::-1]
    assert counts[:20].tolist() == [200] * 20
    assert counts[-1] < 60


def test_users_are_drawn_evenly_for_rare_and_for_common_items():
    users, items = draw_pairs(300, 200, 20_000, 1.0, np.random.default_rng(0))
    counts = np.bincount(items, minlength=200)
    for some in (counts[items] <= 150, counts[items] > 150):
        assert some.sum() > 3_000
        per_user = np.bincount(users[some], minlength=300)
        expected = some.sum() / 300
        assert per_user.min() > expected - 5 * np.sqrt(expected)
        assert per_user.max() < expected + 5 * np.sqrt(expected)


def test_rows_are_in_random_order():
    users, items = draw_pairs(300, 200, 20_000, 1.0, np.random.default_rng(0))
    position = np.arange(20_000)
    assert abs(np.corrcoef(users, position)[0, 1]) < 0.03
    assert abs(np.corrcoef(items, position)[0, 1]) < 0.03


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "n_users must be a whole number, 1 or more, got 0"),
        ({"n_items": 2.5}, r"n_items must be a whole number, 1 or more, got 2\.5"),
        ({"n_factors": True}, "n_factors must be a whole number"),
        ({"n_ratings": -1}, "n_ratings must be a whole number"),
        ({"context": 0}, "context must be a whole number"),
        (
            {"n_users": 3, "n_items": 4, "n_ratings": 13},
            "n_ratings=13 is more than the 12 pairs of n_users x n_items",
        ),
        ({"zipf": -0.1}, r"zipf must be a finite number, 0 or more, got -0\.1"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"noise": "loud"}, "noise must be a finite number"),
        ({"rating_scale": 5}, r"rating_scale must be \(lowest, highest\), got 5"),
        ({"rating_scale": (5, 1)}, r"rating_scale must ascend, got \(5, 1\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_interactions(**arguments)


def test_random_state_of_a_wrong_type():
    with pytest.raises(TypeError, match="random_state must be"):
        make_interactions(random_state="seed")
