"""Negatives drawn for a classifier: never what a user has, as many as asked for, by one seed."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

import fmknn
from fmknn import Interactions
from fmknn.data import negatives_kernel
from fmknn.data.negatives import items_of_users

from_arrays = Interactions.from_arrays

EVENTS = st.lists(st.tuples(st.integers(-3, 4), st.sampled_from("uvwxyz")), min_size=1, max_size=40)
RATIOS = st.sampled_from([0, 0.3, 0.5, 1, 1.5, 4, 1000.0])


def pairs(part):
    return list(zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True))


def split(both, n):
    return both.take(range(n)), both.take(range(n, len(both)))


# --- which pairs ----------------------------------------------------------------------------


@given(events=EVENTS, ratio=RATIOS, seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_each_user_gets_as_many_others_as_asked_for(events, ratio, seed):
    log = from_arrays(*zip(*events, strict=True))
    both = log.with_negatives(ratio, random_state=seed)
    rows, negatives = split(both, len(log))
    assert pairs(rows) == events
    assert rows.values.tolist() == [1] * len(log)
    assert negatives.values.tolist() == [0] * len(negatives)
    drawn = pairs(negatives)
    assert len(set(drawn)) == len(drawn)
    assert not set(drawn) & set(events)
    occurring = {item for _, item in events}
    assert {item for _, item in drawn} <= occurring
    counts = Counter(user for user, _ in drawn)
    for user, n_rows in Counter(user for user, _ in events).items():
        n_others = len(occurring - {item for owner, item in events if owner == user})
        assert counts[user] == min(round(ratio * n_rows), n_others)


@given(events=EVENTS, ratio=RATIOS)
@settings(max_examples=40, deadline=None)
def test_one_seed_one_draw(events, ratio):
    log = from_arrays(*zip(*events, strict=True))
    one, two = (log.with_negatives(ratio, random_state=3) for _ in range(2))
    assert pairs(one) == pairs(two)
    generator = log.with_negatives(ratio, random_state=np.random.default_rng(5))
    assert pairs(generator) == pairs(
        log.with_negatives(ratio, random_state=np.random.default_rng(5))
    )


def test_another_seed_another_draw():
    log, _ = fmknn.datasets.make_interactions(n_users=30, n_items=40, n_ratings=200)
    one, two = (set(pairs(split(log.with_negatives(random_state=s), 200)[1])) for s in (0, 1))
    assert len(one) == len(two) == 200
    assert len(one & two) < 100


def test_each_set_of_others_is_as_likely():
    """Of 4 others 2 are drawn, 4000 times over: 6 sets, and 4 of them come first."""
    users = np.repeat(np.arange(4001), 2)
    items = np.tile([0, 1], 4001)
    items[-2:] = [2, 3]
    extra = from_arrays([*users, 5000, 5000], [*items, 4, 5])
    _, negatives = split(extra.with_negatives(random_state=0), len(extra))
    own = negatives.user_index < 4000
    drawn = negatives.item_index[own].reshape(-1, 2)
    sets = Counter(tuple(sorted(pair)) for pair in drawn.tolist())
    assert sorted(sets) == [(2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5)]
    spread = math.sqrt(4000 * (1 / 6) * (5 / 6))
    assert max(abs(count - 4000 / 6) for count in sets.values()) < 4.5 * spread
    first = np.bincount(drawn[:, 0], minlength=6)[2:]
    assert np.abs(first - 1000).max() < 4.5 * math.sqrt(4000 * 0.25 * 0.75)


def test_who_has_everything_gets_nothing():
    log = from_arrays([1, 1, 1, 2, 2], ["a", "b", "c", "a", "a"])
    _, negatives = split(log.with_negatives(9.0, random_state=0), 5)
    assert sorted(pairs(negatives)) == [(2, "b"), (2, "c")]
    everything = from_arrays([1, 2], ["a", "a"]).with_negatives(random_state=0)
    assert everything.values.tolist() == [1, 1]


def test_items_of_the_other_part_are_not_drawn():
    log = from_arrays([1, 2, 3], ["a", "b", "c"]).take([0, 1])
    _, negatives = split(log.with_negatives(5, random_state=0), 2)
    assert sorted(pairs(negatives)) == [(1, "b"), (2, "a")]
    assert negatives.items is log.items


def test_no_rows_no_negatives():
    nobody = from_arrays([1], ["a"]).take([]).with_negatives()
    assert len(nobody) == 0
    assert nobody.values.dtype == np.float32


# --- what else they have --------------------------------------------------------------------


def test_the_rest_is_that_of_a_row_of_the_user_and_rows_take_turns():
    rng = np.random.default_rng(0)
    n, users = 300, np.repeat(np.arange(30), 10)
    log = from_arrays(
        users,
        rng.integers(0, 200, n),
        rng.normal(size=n),
        weights=np.arange(n) + 1.0,
        timestamps=np.arange(n) + 7,
        context={"day": np.arange(n) % 7, "hour": np.arange(n)},
        user_features=fmknn.FeatureTable(np.arange(30), {"age": rng.normal(size=30)}),
    )
    both = log.with_negatives(2.5, random_state=0)
    rows, negatives = split(both, n)
    for name in ("user_index", "item_index", "weights", "timestamps"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(log, name))
    of = negatives.context["hour"].index  # the row that each was drawn for
    assert len(of) == 750
    assert np.all(np.diff(of) >= 0)
    np.testing.assert_array_equal(negatives.user_index, log.user_index[of])
    np.testing.assert_array_equal(negatives.weights, log.weights[of])
    np.testing.assert_array_equal(negatives.timestamps, log.timestamps[of])
    np.testing.assert_array_equal(negatives.context["day"].index, of % 7)
    times = np.bincount(of, minlength=n).reshape(30, 10)
    assert set(times.ravel().tolist()) == {2, 3}
    assert np.all(times.sum(axis=1) == 25)
    assert len({tuple(row) for row in times.tolist()}) > 20  # not always the first ones
    assert both.user_features is log.user_features


def test_columns_are_read_only_and_plain_ones_stay_away():
    both = from_arrays([1, 2], ["a", "b"]).with_negatives(random_state=0)
    assert both.weights is None and both.timestamps is None and not both.context
    for name in ("user_index", "item_index", "values"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(both, name)[0] = 1
    assert both.item_index.dtype == np.int32


def test_a_classifier_learns_from_them():
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.arange(40 * 30), 30)
    has = (users % 2 == items % 2) & (rng.random(len(users)) < 0.6)
    both = from_arrays(users[has], items[has]).with_negatives(2.0, random_state=0)
    model = fmknn.FMClassifier(4, random_state=0).fit(both)
    hidden = ~has & (users % 2 == items % 2)
    never = users % 2 != items % 2
    known = [Interactions(both.users, both.items, users[w], items[w]) for w in (hidden, never)]
    likely, unlikely = (model.predict_proba(part)[:, 1] for part in known)
    assert np.median(likely) > np.median(unlikely) + 0.2


# --- parts ----------------------------------------------------------------------------------


@given(events=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=30))
def test_items_of_users(events):
    users, items = np.array(events, np.int32).reshape(-1, 2).T
    indptr, indices = items_of_users(users, items, 6, 8)
    assert (indptr.dtype, indices.dtype) == (np.int64, np.int32)
    for user in range(6):
        own = indices[indptr[user] : indptr[user + 1]].tolist()
        assert own == sorted({item for owner, item in events if owner == user})


def test_kernel_equals_its_python_source():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 8, 60), rng.integers(0, 12, 60)
    indptr, positives = items_of_users(users, items, 8, 12)
    wanted = np.minimum(rng.integers(0, 8, 8), 12 - np.diff(indptr))
    first = np.concatenate([[0], np.cumsum(wanted)])
    draws = rng.integers(2**32, size=first[-1], dtype=np.uint32)
    drawn = [np.empty(len(draws), np.int32) for _ in range(2)]
    draw = negatives_kernel.draw_others
    for way, out in zip((draw, draw.py_func), drawn, strict=True):
        way(indptr, positives, first, draws, 12, out)
    np.testing.assert_array_equal(*drawn)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [-1, math.nan, math.inf, "2", None, True])
def test_a_ratio_that_is_none_is_refused(ratio):
    with refused(ValueError, "ratio", "at least 0", repr(ratio)):
        from_arrays([1, 2], ["a", "b"]).with_negatives(ratio)


def test_a_seed_that_is_none_is_refused():
    with refused(TypeError, "random_state", "float"):
        from_arrays([1, 2], ["a", "b"]).with_negatives(random_state=0.5)
