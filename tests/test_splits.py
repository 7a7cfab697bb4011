"""Splits: nothing lost, nothing twice, nothing out of order, one vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from fmknn import splits
from fmknn.data.interactions import Interactions

EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 8)), min_size=12, max_size=40
)


def log_of(events):
    """Interactions whose values number the rows, so that a part says where its rows came from."""
    users, items, times = zip(*events, strict=True)
    return Interactions.from_arrays(users, items, np.arange(len(events)), timestamps=times)


def rows_of(part):
    return part.values.astype(int).tolist()


def users_beyond(events, n):
    return [user for user, _, _ in events if sum(u == user for u, _, _ in events) > n]


SPLITS = {
    "leave_last": lambda log: splits.leave_last(log, 1),
    "leave_one_out": lambda log: splits.leave_one_out(log, 0),
    "temporal": lambda log: splits.temporal(log, test=0.3),
    "random": lambda log: splits.random(log, test=0.3, random_state=0),
    "random per user": lambda log: splits.random(log, test=0.5, random_state=0, per_user=True),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@given(events=EVENTS)
def test_parts_are_disjoint_and_complete_and_in_row_order(split, events):
    train, test = split(log_of(events))
    assert sorted(rows_of(train) + rows_of(test)) == list(range(len(events)))
    assert rows_of(train) == sorted(rows_of(train))
    assert rows_of(test) == sorted(rows_of(test))


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_parts_share_the_vocabulary(split):
    log = log_of([(user, user * 10 + item, item) for user in range(4) for item in range(5)])
    train, test = split(log)
    assert train.users is log.users and test.users is log.users
    assert train.items is log.items and test.items is log.items


@given(events=EVENTS, n=st.integers(1, 3))
def test_leave_last_is_what_a_loop_over_users_gives(events, n):
    if not users_beyond(events, n):
        return
    expected = []
    for user in {user for user, _, _ in events}:
        rows = [row for row, event in enumerate(events) if event[0] == user]
        rows.sort(key=lambda row: events[row][2])  # stable, so ties stay in row order
        expected += rows[-n:] if len(rows) > n else []
    _, test = splits.leave_last(log_of(events), n)
    assert rows_of(test) == sorted(expected)


def test_leave_last_takes_the_later_row_of_a_tie():
    _, test = splits.leave_last(log_of([(1, 7, 5), (1, 8, 5), (1, 9, 3)]))
    assert rows_of(test) == [1]


def test_leave_last_keeps_short_histories_in_training():
    train, test = splits.leave_last(log_of([(1, 7, 1), (1, 8, 2), (1, 9, 3), (2, 7, 9)]), n=2)
    assert rows_of(train) == [0, 3]
    assert rows_of(test) == [1, 2]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "1"])
def test_leave_last_refuses_an_odd_number_of_rows(n):
    with pytest.raises(ValueError, match="n must be a whole number"):
        splits.leave_last(log_of([(1, 7, 1), (1, 8, 2)]), n)


def test_leave_last_says_when_nobody_has_enough_rows():
    with pytest.raises(ValueError, match=r"test part would be empty.*more than n=2 rows"):
        splits.leave_last(log_of([(1, 7, 1), (1, 8, 2), (2, 7, 1)]), n=2)


@pytest.mark.parametrize("split", [splits.leave_last, splits.temporal])
def test_time_splits_need_timestamps(split):
    with pytest.raises(ValueError, match=f"{split.__name__} needs timestamps"):
        split(Interactions.from_arrays([1, 1], [7, 8]))


@given(events=EVENTS, share=st.sampled_from([0.1, 0.25, 0.5, 0.8]))
def test_temporal_never_trains_on_the_future(events, share):
    train, test = splits.temporal(log_of(events), test=share)
    assert train.timestamps.max() <= test.timestamps.min()
    assert len(test) == round(share * len(events))


def test_temporal_takes_the_later_rows_of_a_tie():
    _, test = splits.temporal(log_of([(1, 7, 5), (2, 8, 5), (3, 9, 5), (4, 9, 1)]), test=0.5)
    assert rows_of(test) == [1, 2]


def test_temporal_tests_a_fifth_by_default():
    _, test = splits.temporal(log_of([(1, item, 10 - item) for item in range(10)]))
    assert rows_of(test) == [0, 1]


def test_temporal_at_a_time_includes_that_time():
    train, test = splits.temporal(log_of([(1, 7, 10), (1, 8, 20), (1, 9, 30)]), at=20)
    assert rows_of(train) == [0]
    assert rows_of(test) == [1, 2]


@pytest.mark.parametrize("at, part", [(5, "training"), (99, "test")])
def test_temporal_refuses_a_time_outside_the_log(at, part):
    with pytest.raises(ValueError, match=f"{part} part would be empty.*at={at}"):
        splits.temporal(log_of([(1, 7, 10), (1, 8, 20)]), at=at)


def test_temporal_refuses_a_share_and_a_time():
    with pytest.raises(ValueError, match="not both"):
        splits.temporal(log_of([(1, 7, 10), (1, 8, 20)]), test=0.5, at=15)


def test_temporal_refuses_a_time_that_is_no_number():
    with pytest.raises(TypeError, match=r"at must be a number.*'2020-01-01'"):
        splits.temporal(log_of([(1, 7, 10), (1, 8, 20)]), at="2020-01-01")


@pytest.mark.parametrize("split", [splits.temporal, splits.random])
@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), True, "half"])
def test_a_share_lies_between_0_and_1(split, share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(log_of([(1, 7, 10), (1, 8, 20)]), test=share)


@pytest.mark.parametrize("split", [splits.temporal, splits.random])
def test_a_share_too_small_for_a_row_is_refused(split):
    with pytest.raises(ValueError, match="test part would be empty: 2 rows are too few"):
        split(log_of([(1, 7, 10), (1, 8, 20)]), test=0.1)


def test_random_draws_the_share_and_repeats_with_the_seed():
    log = log_of([(1, item, 0) for item in range(50)])
    drawn = [rows_of(splits.random(log, test=0.2, random_state=seed)[1]) for seed in (3, 3, 4)]
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "state", [np.random.default_rng(1), np.random.SeedSequence(1), None], ids=type
)
def test_random_takes_every_kind_of_random_state(state):
    _, test = splits.random(log_of([(1, item, 0) for item in range(10)]), random_state=state)
    assert len(test) == 1


def test_random_leaves_numpys_global_state_alone():
    before = np.random.get_state()[1].copy()
    splits.random(log_of([(1, item, 0) for item in range(10)]), random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_random_picks_every_row_about_equally_often():
    log = log_of([(1, item, 0) for item in range(4)])
    counts = np.zeros(4)
    for seed in range(400):
        counts[rows_of(splits.random(log, test=0.25, random_state=seed)[1])] += 1
    assert counts.min() > 60  # 100 expected, standard deviation 8.7


@given(events=EVENTS, share=st.sampled_from([0.2, 0.5, 0.9]))
def test_random_per_user_draws_from_each_user_and_leaves_one_row(events, share):
    train, test = splits.random(log_of(events), test=share, random_state=1, per_user=True)
    for user in {user for user, _, _ in events}:
        n_rows = sum(u == user for u, _, _ in events)
        assert (test.user_ids == user).sum() == min(round(share * n_rows), n_rows - 1)
        assert (train.user_ids == user).sum() >= 1


# --- leave one out ----------------------------------------------------------------------------


@given(events=EVENTS)
def test_leave_one_out_takes_one_row_of_each_user_with_two(events):
    _, test = splits.leave_one_out(log_of(events), random_state=5)
    assert sorted(test.user_ids.tolist()) == sorted({*users_beyond(events, 1)})


def test_leave_one_out_picks_every_row_about_equally_often():
    log = log_of([(1, item, 0) for item in range(4)] + [(2, 7, 0)])
    counts = np.zeros(5)
    for seed in range(400):
        counts[rows_of(splits.leave_one_out(log, seed)[1])] += 1
    assert counts[:4].min() > 60 and counts[4] == 0  # 100 expected, standard deviation 8.7


def test_leave_one_out_repeats_with_the_seed():
    log = log_of([(user, item, 0) for user in range(9) for item in range(9)])
    one, same, other = (rows_of(splits.leave_one_out(log, seed)[1]) for seed in (3, 3, 4))
    assert one == same != other


def test_leave_one_out_needs_a_user_with_two_rows():
    with refused(ValueError, "test part would be empty", "more than one row"):
        splits.leave_one_out(log_of([(1, 7, 1), (2, 7, 1)]))


# --- published splits -------------------------------------------------------------------------


@given(events=EVENTS, seed=st.integers(0, 99))
def test_fixed_tests_the_rows_of_the_pairs_in_their_order(events, seed):
    pairs = sorted({(user, item) for user, item, _ in events})
    generator = np.random.default_rng(seed)
    generator.shuffle(pairs)
    pairs = [tuple(pair) for pair in pairs[: max(1, len(pairs) // 3)]]
    expected = [
        row for pair in pairs for row, event in enumerate(events) if event[:2] == tuple(pair)
    ]
    if len(expected) == len(events):
        return
    train, test = splits.fixed(log_of(events), *zip(*pairs, strict=True))
    assert rows_of(test) == expected
    assert rows_of(train) == sorted({*range(len(events))} - {*expected})


EVENTS_OF_TWO = [(1, 7, 0), (1, 8, 0), (2, 7, 0)]


@pytest.mark.parametrize(
    "users, items, words",
    [
        ([1, 2, 2], [7, 8, 9], ["2 of 3 test pairs have no row", "user 2", "item 8"]),
        ([99], [7], ["1 of 1", "no row", "user 99", "item 7"]),
        ([1, 2, 1], [7, 7, 7], ["1 of 3", "twice", "user 1", "item 7"]),
        ([1, 2], [7], ["2 test users for 1 test items"]),
        ([1, 1, 2], [7, 8, 7], ["training part would be empty"]),
        ([], [], ["test part would be empty"]),
    ],
)
def test_fixed_refuses_pairs_that_are_not_a_split_of_these_rows(users, items, words):
    with refused(ValueError, *words):
        splits.fixed(log_of(EVENTS_OF_TWO), users, items)


def test_fixed_refuses_ids_of_another_type():
    with refused(TypeError, "user ids", "integers", "strings"):
        splits.fixed(log_of(EVENTS_OF_TWO), ["1"], [7])


# --- held-out users ---------------------------------------------------------------------------


@given(events=EVENTS, fold_in=st.sampled_from([0.2, 0.5, 0.8]), seed=st.integers(0, 9))
def test_held_out_users_are_in_the_last_two_parts_alone(events, fold_in, seed):
    able, everybody = {*users_beyond(events, 1)}, {user for user, _, _ in events}
    if not able or len(everybody) < 2:
        return
    log = log_of(events)
    train, told, test = splits.hold_out_users(log, test=1, fold_in=fold_in, random_state=seed)
    assert sorted(rows_of(train) + rows_of(told) + rows_of(test)) == list(range(len(events)))
    (user,) = {*test.user_ids.tolist()}
    assert user in able
    assert {*told.user_ids.tolist()} == {user} and user not in train.user_ids
    n_rows = len(told) + len(test)
    assert len(told) == min(max(round(fold_in * n_rows), 1), n_rows - 1)
    assert train.users is told.users is test.users and train.items is test.items


def test_the_share_of_the_users_is_rounded_and_at_least_one():
    log = log_of([(user, item, 0) for user in range(20) for item in range(3)])
    for share, n_users in ((0.25, 5), (0.01, 1), (7, 7)):
        _, _, test = splits.hold_out_users(log, test=share, random_state=0)
        assert len({*test.user_ids.tolist()}) == n_users


def test_held_out_users_are_drawn_about_equally_often_and_repeat_with_the_seed():
    log = log_of([(user, item, 0) for user in range(4) for item in range(2)])

    def held(seed):
        return splits.hold_out_users(log, test=1, random_state=seed)[2].user_ids.tolist()[0]

    counts = np.bincount([held(seed) for seed in range(400)])
    assert counts.min() > 60 and held(3) == held(3)


@pytest.mark.parametrize("test", [0, 3, 1.5, -1, True, "half"])
def test_users_that_can_not_be_held_out_are_refused(test):
    log = log_of([(1, 7, 0), (1, 8, 0), (2, 7, 0), (2, 8, 0), (3, 7, 0)])
    with refused(ValueError, "test"):
        splits.hold_out_users(log, test=test)


@pytest.mark.parametrize("fold_in", [0, 1, 2, None, True])
def test_a_share_of_the_fold_in_rows_lies_between_0_and_1(fold_in):
    log = log_of([(1, 7, 0), (1, 8, 0), (2, 7, 0), (2, 8, 0)])
    with refused(ValueError, "fold_in", "between 0 and 1"):
        splits.hold_out_users(log, test=1, fold_in=fold_in)
