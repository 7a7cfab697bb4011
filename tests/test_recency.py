"""Weights by age: against counting by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from fmknn import Interactions

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30)


def log_of(rows, weights=None):
    users, times = zip(*rows, strict=True)
    return Interactions.from_arrays(users, range(len(rows)), timestamps=times, weights=weights)


@given(ROWS, st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans())
def test_weights_fall_with_the_later_times_of_the_user(rows, power, weighted):
    before = np.arange(1.0, len(rows) + 1) if weighted else np.ones(len(rows))
    later = [len({t for u, t in rows if u == user and t > time}) for user, time in rows]
    wanted = [weight / (1 + m) ** power for weight, m in zip(before, later, strict=True)]
    got = log_of(rows, before if weighted else None).with_recency(power).weights
    np.testing.assert_allclose(got, np.array(wanted) / np.mean(wanted), rtol=1e-5)


def test_all_else_stays():
    log = log_of([(0, 3), (1, 2), (0, 1)])
    new = log.with_recency(0.5)
    assert log.weights is None
    assert (new.timestamps == log.timestamps).all() and (new.item_ids == log.item_ids).all()


def test_dates_have_an_order_too():
    times = np.array(["2026-01-02", "2026-01-01"], "datetime64[D]")
    log = Interactions.from_arrays(["ann", "ann"], [1, 2], timestamps=times).with_recency(1)
    assert log.weights[0] == pytest.approx(2 * log.weights[1])


def test_what_is_refused():
    with refused(ValueError, "timestamps"):
        Interactions.from_arrays([1], [2]).with_recency()
    for power in (-1, 11, np.nan, True, "1"):
        with refused(ValueError, "power", "0 to 10"):
            log_of([(0, 1)]).with_recency(power)
