"""BPR: steps against the slope of the loss in plain Python, the draws, seeds, what it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

import fmknn
from fmknn import FeatureTable, Interactions
from fmknn.data.blocks import design_of_interactions
from fmknn.data.negatives import items_of_users
from fmknn.solvers import bpr_kernel
from fmknn.solvers.base import SolverSpec
from fmknn.solvers.bpr import BPR, continued, grown

from_arrays = Interactions.from_arrays


def train(data, config=None, *, k=4, seed=0, n_jobs=1, start=None, callbacks=()):
    config = BPR(n_iter=3) if config is None else config
    solver = config.solver(SolverSpec(config, "bpr", k, seed, n_jobs))
    y = np.ones(len(data), np.float32)
    return solver.train(design_of_interactions(data), y, start=start, callbacks=callbacks)


def same_bits(one, two):
    return all(
        getattr(one.model, name).tobytes() == getattr(two.model, name).tobytes() for name in "wV"
    )


def log_of(kind, n_users=9, n_items=12, n_rows=40, seed=0):
    """Rows with ids, or with features on both sides (items share tags) and a context."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, n_rows), rng.integers(0, n_items, n_rows)
    if kind == "ids":
        return from_arrays(users, items)
    return from_arrays(
        users,
        items,
        context={"day": rng.integers(0, 3, n_rows)},
        user_features=FeatureTable(
            np.arange(n_users),
            {"age": rng.normal(size=n_users), "sex": rng.choice(["f", "m"], n_users)},
        ),
        item_features=FeatureTable(
            np.arange(n_items),
            {
                "tags": [
                    tuple(rng.choice(list("abc"), rng.integers(0, 4), False))
                    for _ in range(n_items)
                ],
                "price": rng.normal(size=n_items),
            },
        ),
    )


# --- the step -------------------------------------------------------------------------------


def problem(kind, n_negatives, seed=0):
    """What the kernel takes, with every draw there may be, and the same for the oracle."""
    data = log_of(kind, seed=seed)
    design = design_of_interactions(data)
    rng = np.random.default_rng(seed)
    n = len(data)
    occurring = np.unique(data.item_index)
    places = np.searchsorted(occurring, data.item_index)
    first, positives = items_of_users(data.user_index, places, len(data.users), len(occurring))
    block = design.block("item")
    k = 3
    return data, {
        "order": rng.permutation(n),
        "index": design.index,
        "item": 1,
        "users": design.codes[0],
        "indptr": design.entities.indptr,
        "indices": design.entities.indices,
        "values": design.entities.values,
        "candidates": (occurring + block.start).astype(np.int32),
        "first_positive": first,
        "positives": positives,
        "draws": rng.integers(2**32, size=(n, n_negatives), dtype=np.uint32),
        "w": rng.normal(size=design.n_features).astype(np.float32),
        "V": (rng.normal(size=(design.n_features, k)) * 0.5).astype(np.float32),
        "rate": np.float32(0.3),
        "l2_linear": np.float32(0.02),
        "l2_factors": np.float32(0.05),
    }


def expanded(data, row, item):
    """[(feature, value)] of a row in which the item is another one."""
    design = design_of_interactions(data)
    entities = list(design.index[row])
    entities[1] = design.block("item").start + item
    found = []
    for entity in entities:
        start, stop = design.entities.indptr[entity : entity + 2]
        values = design.entities.values[start:stop].tolist()
        found += zip(design.entities.indices[start:stop].tolist(), values, strict=True)
    return found


def score(w, V, row):
    """w0 is 0; Σ w x + Σ_{p<q} <v_p, v_q> x_p x_q, pair by pair."""
    total = sum(w[j] * x for j, x in row)
    for a, (p, x) in enumerate(row):
        for q, z in row[a + 1 :]:
            total += x * z * float(np.dot(V[p], V[q]))
    return total


def loss_of(w, V, liked, other):
    return math.log1p(math.exp(score(w, V, other) - score(w, V, liked)))


def oracle_epoch(data, given_):
    """Steps along the numeric slope, each feature of the rows decayed that is touched."""
    w, V = given_["w"].astype(np.float64), given_["V"].astype(np.float64)
    rate, l2w, l2 = (float(given_[name]) for name in ("rate", "l2_linear", "l2_factors"))
    item_columns = set(design_of_interactions(data).block("item").columns.tolist())
    occurring = sorted(set(data.item_index.tolist()))
    total, n_right, n_pairs = 0.0, 0, 0
    for t, row in enumerate(given_["order"]):
        user = data.user_index[row]
        own = set(data.item_index[data.user_index == user].tolist())
        others = [item for item in occurring if item not in own]
        if not others:
            continue
        liked = expanded(data, row, data.item_index[row])
        drawn = [
            expanded(data, row, others[int(draw) * len(others) // 2**32])
            for draw in given_["draws"][t]
        ]
        scores = [score(w, V, pair) for pair in drawn]
        other = drawn[int(np.argmax(scores))]
        n_right += score(w, V, liked) > scores[0]
        n_pairs += 1
        total += loss_of(w, V, liked, other)
        touched = sorted({j for j, _ in liked + other})
        slopes_w, slopes_v = {}, {}
        step = 1e-5
        for j in touched:
            for table, slopes, places in (
                (w, slopes_w, [()]),
                (V, slopes_v, np.ndindex(V.shape[1])),
            ):
                for place in places:
                    at = (j, *place)
                    old = table[at]
                    table[at] = old + step
                    up = loss_of(w, V, liked, other)
                    table[at] = old - step
                    slopes[at] = (up - loss_of(w, V, liked, other)) / (2 * step)
                    table[at] = old
        for at, slope in slopes_w.items():
            if at[0] in item_columns:
                w[at] -= rate * (slope + l2w * w[at])
            else:
                assert abs(slope) < 1e-8  # what the query side has by itself cancels
        for at, slope in slopes_v.items():
            V[at] -= rate * (slope + l2 * V[at])
    return w, V, (total, n_right, n_pairs)


@pytest.mark.parametrize("n_negatives", [1, 3])
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_steps_follow_the_slope_of_the_loss(kind, n_negatives):
    data, given_ = problem(kind, n_negatives)
    given_["order"] = given_["order"][:12]
    w, V, sums = oracle_epoch(data, given_)
    found = bpr_kernel.bpr_epoch(*given_.values())
    np.testing.assert_allclose(given_["w"], w, atol=2e-5)
    np.testing.assert_allclose(given_["V"], V, atol=2e-5)
    assert found[0] == pytest.approx(sums[0], rel=1e-5)
    assert found[1:] == sums[1:]


@pytest.mark.parametrize("kind", ["ids", "features"])
def test_kernel_equals_its_python_source(monkeypatch, kind):
    _, given_ = problem(kind, 2, seed=1)
    compiled = {
        name: np.array(value) if name in ("w", "V") else value for name, value in given_.items()
    }
    sums = bpr_kernel.bpr_epoch(*compiled.values())
    for name, kernel in vars(bpr_kernel).copy().items():
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(bpr_kernel, name, kernel.py_func)
    again = bpr_kernel.bpr_epoch(*given_.values())
    np.testing.assert_allclose(given_["w"], compiled["w"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(given_["V"], compiled["V"], rtol=1e-4, atol=1e-5)
    assert again[0] == pytest.approx(sums[0], rel=1e-5)
    assert again[1:] == sums[1:]


# --- the draws ------------------------------------------------------------------------------


@given(
    has=st.lists(st.booleans(), min_size=1, max_size=30).filter(lambda has: not all(has)),
    draws=st.lists(st.integers(0, 2**32 - 1), max_size=8),
    compiled=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_positive_is_never_drawn_and_the_others_share_the_numbers(has, draws, compiled):
    draw = bpr_kernel._draw_items if compiled else bpr_kernel._draw_items.py_func
    candidates = np.arange(len(has), dtype=np.int32) * 3 + 7
    positives = np.flatnonzero([True, *has]).astype(np.int32) - 1  # one of another user before
    others = [entity for entity, own in zip(candidates.tolist(), has, strict=True) if not own]
    borders = [-(-(2**32) * r // len(others)) for r in range(len(others))]  # the least of each
    wanted = [*draws, *borders, *(border - 1 for border in borders[1:]), 2**32 - 1]
    drawn = np.zeros(len(wanted) + 1, np.int32)
    draw(np.array(wanted, np.uint32), 1, len(positives), positives, candidates, drawn)
    assert drawn[1:].tolist() == [others[number * len(others) // 2**32] for number in wanted]


def test_rows_come_as_often_as_their_weights_say():
    from fmknn.solvers.bpr import _drawn_rows

    data = log_of("ids", n_rows=200)
    plain, even = (
        _drawn_rows(design_of_interactions(part), np.random.default_rng(0))
        for part in (data, data.replace(weights=np.full(200, 0.3)))
    )
    assert sorted(plain) == list(range(200))
    np.testing.assert_array_equal(plain, even)
    weights = np.random.default_rng(1).integers(0, 5, 200)
    drawn = _drawn_rows(
        design_of_interactions(data.replace(weights=weights)), np.random.default_rng(0)
    )
    assert len(drawn) == 200
    times, expected = np.bincount(drawn, minlength=200), weights * 200 / weights.sum()
    assert np.all(np.abs(times - expected) < 1)
    assert not times[weights == 0].any()


def test_who_has_all_items_gets_no_pair():
    full = from_arrays([1, 1, 1, 2], ["a", "b", "c", "a"])
    fit = train(full, BPR(n_iter=4, init_sigma=0.1))
    assert np.isfinite(fit.model.V).all()
    w = dict(zip(full.items.ids.tolist(), fit.model.w[2:], strict=True))
    assert w["a"] > 0 > max(w["b"], w["c"])  # user 2 alone has something to say
    for everything in (
        from_arrays([1, 1, 2, 2], ["a", "b", "a", "b"]),
        from_arrays([1, 2], [5, 5]),
    ):
        with refused(ValueError, "nothing to rank", "each item"):
            train(everything)
    unseen = full.replace(weights=[1, 1, 1, 0])  # the only pair has no weight
    with refused(ValueError, "nothing to rank"):
        train(unseen)


def test_items_without_a_row_are_not_drawn():
    data = log_of("ids")
    known = data.take(data.item_index != 3)
    fit = train(known, BPR(n_iter=5))
    first = design_of_interactions(known).block("item").columns[0]
    assert fit.model.w[first + 3] == 0
    assert not fit.model.V[first + 3].any()
    assert np.count_nonzero(fit.model.w) == len(np.unique(known.item_index))


# --- one seed, one result -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ids", "features"])
def test_one_seed_one_result(kind):
    data = log_of(kind)
    one, two, other = train(data), train(data, n_jobs=2), train(data, seed=1)
    assert same_bits(one, two)
    assert not same_bits(one, other)
    assert one.model.w0 == 0


@pytest.mark.parametrize("stop", [1, 4])
def test_stop_and_resume_give_the_same_bits(stop):
    data, config = log_of("features"), BPR(n_iter=6)
    whole = train(data, config)
    half = train(data, config, callbacks=[lambda step: step.iteration == stop])
    assert len(half.history) == stop
    resumed = train(data, config, seed=99, start=half.state)
    assert same_bits(resumed, whole)
    assert not same_bits(half, whole)
    assert [entry["loss"] for entry in half.history + resumed.history] == [
        entry["loss"] for entry in whole.history
    ]
    assert same_bits(train(data, config, start=whole.state), whole)  # there is nothing left to do


# --- what it learns -------------------------------------------------------------------------


def planted(n_users=80, n_items=60, seed=0):
    """Users have the fifth of the items that a low-rank model puts first for them."""
    rng = np.random.default_rng(seed)
    U, Q, b = rng.normal(size=(n_users, 3)), rng.normal(size=(n_items, 3)), rng.normal(size=n_items)
    U[:, 0] = np.where(np.arange(n_users) % 2, 1.5, -1.5)  # what a feature may tell
    liked = np.argsort(-(U @ Q.T + 0.5 * b), axis=1)[:, :12]
    users, items = np.repeat(np.arange(n_users), 12), liked.ravel()
    return from_arrays(users, items)


def held_out_auc(model, data, held_out):
    """Mean over held-out rows: the share of items without any row of the user that score less."""
    design = design_of_interactions(data)
    q, _ = model.project(design.rows_of("user"))
    t, b = model.project(design.rows_of("item"))
    scores = q @ t.T + b
    return auc_of(scores, data, held_out)


def auc_of(scores, data, held_out):
    has = np.zeros(scores.shape, bool)
    has[data.user_index, data.item_index] = True
    return np.mean(
        [
            np.mean(scores[u, i] > scores[u, ~has[u]])
            for u, i in zip(held_out.user_index, held_out.item_index, strict=True)
        ]
    )


LEARNS = BPR(n_iter=25, learning_rate=0.1, l2_factors=0.01, n_negatives=2)


def test_it_learns_what_was_planted():
    data = planted()
    known, held_out = fmknn.splits.random(data, test=0.2, random_state=0, per_user=True)
    popularity = np.bincount(known.item_index, minlength=len(data.items)).astype(float)
    base = auc_of(np.tile(popularity, (len(data.users), 1)), data, held_out)
    fit = train(known, LEARNS, k=8)
    assert held_out_auc(fit.model, data, held_out) > max(base + 0.15, 0.9)
    losses, aucs = ([entry[name] for entry in fit.history] for name in ("loss", "auc"))
    assert losses[-1] < losses[0] < 0.8
    assert 0.5 < aucs[0] < aucs[-1] <= 1


def test_features_of_every_row_do_no_harm_and_telling_ones_help():
    data = planted()
    known, held_out = fmknn.splits.random(data, test=0.2, random_state=0, per_user=True)
    few = known.take(known.user_index % 4 > 0)  # a quarter of the users is new
    tables = {
        "noise": {"one": np.full(80, "x"), "two": np.full(80, "y")},
        "telling": {"parity": np.arange(80) % 2 == 0},
    }
    aucs = {"ids": held_out_auc(train(known, LEARNS, k=8).model, data, held_out)}
    new = held_out.take(held_out.user_index % 4 == 0)
    cold = {"ids": held_out_auc(train(few, LEARNS, k=8).model, data, new)}
    for name, columns in tables.items():
        columns = {column: np.asarray(values).astype(str) for column, values in columns.items()}
        table = FeatureTable(np.arange(80), columns)
        with_features = data.replace(user_features=table)
        aucs[name] = held_out_auc(
            train(known.replace(user_features=table), LEARNS, k=8).model, with_features, held_out
        )
        cold[name] = held_out_auc(
            train(few.replace(user_features=table), LEARNS, k=8).model, with_features, new
        )
    assert min(aucs.values()) > aucs["ids"] - 0.02
    assert cold["telling"] > cold["ids"] + 0.05


# --- going on -------------------------------------------------------------------------------


def test_a_finished_training_goes_on_with_other_rows():
    data = planted()
    later = data.user_index >= 70
    first = train(data.take(~later), LEARNS, k=8)
    start = continued(first.state)
    assert start["iteration"] == 0
    assert not np.array_equal(start["words"], first.state["words"])
    known, held_out = fmknn.splits.random(data.take(later), test=0.3, random_state=0, per_user=True)
    second = train(known, BPR(n_iter=10, l2_factors=0.01), k=8, start=start)
    again = train(known, BPR(n_iter=10, l2_factors=0.01), k=8, seed=5, start=start)
    assert same_bits(second, again)
    before, after = (held_out_auc(fit.model, data, held_out) for fit in (first, second))
    alone = held_out_auc(train(known, BPR(n_iter=10), k=8).model, data, held_out)
    assert after > max(before, alone) + 0.05


def test_items_of_earlier_rows_are_still_drawn():
    """One new row, of an item with which there is nothing to rank by itself."""
    data = from_arrays([1, 1, 2, 3], ["a", "b", "b", "c"])
    first = train(data.take([0, 1, 2]), BPR(n_iter=3))
    with refused(ValueError, "nothing to rank"):
        train(data.take([3]))
    second = train(data.take([3]), BPR(n_iter=3), start=continued(first.state))
    w = second.model.w[3:] - first.model.w[3:]
    assert w[2] > 0 > w[:2].min()
    assert second.state["drawn"].tolist() == [1, 1, 1]


def test_growing_makes_room_and_new_features_start_at_random():
    small = from_arrays([1, 3], ["b", "d"])
    large = from_arrays([1, 2, 3, 3], ["d", "b", "a", "d"])
    first = train(small, k=3)
    columns, items = np.array([0, 2, 4, 5]), np.array([1, 2])
    start = grown(continued(first.state), columns, 6, items, 3)
    np.testing.assert_array_equal(start["V"][columns], first.state["V"])
    assert not start["V"][[1, 3]].any()
    assert start["drawn"].tolist() == [0, 1, 1]
    still = BPR(n_iter=1, learning_rate=0.0)
    after = train(large, still, k=3, start=start)
    np.testing.assert_array_equal(after.model.V[columns], first.state["V"])
    assert after.model.V[[1, 3]].all()
    assert after.state["drawn"].all()


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_iter", 0),
        ("n_negatives", 1.5),
        ("learning_rate", -0.1),
        ("l2_factors", math.nan),
        ("l2_linear", math.inf),
        ("init_sigma", "small"),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with refused(ValueError, name, repr(value)):
        BPR(**{name: value})


def test_settings_are_kept():
    assert BPR().with_n_iter(7).n_iter == 7
    assert BPR(**BPR(n_negatives=3).get_params()) == BPR(n_negatives=3)


def test_another_loss_is_refused():
    with refused(ValueError, "BPR", "bpr", "squared"):
        BPR().solver(SolverSpec(BPR(), "squared", 4))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("V", np.zeros((2, 2), np.float32), "V has shape"),
        ("w", None, "no 'w'"),
        ("words", np.zeros(3, np.uint32), "words has shape"),
        ("drawn", np.zeros(2, np.int8), "drawn has shape"),
        ("iteration", np.array(9), "done 9 iterations"),
        ("iteration", np.array(-1), "negative"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(name, value, words):
    state = dict(train(log_of("ids")).state)
    state[name] = value
    if value is None:
        del state[name]
    with refused(ValueError, words):
        train(log_of("ids"), start=state)


def test_divergence_says_what_to_lower():
    with refused(fmknn.errors.DivergenceError, "iteration 1", "learning_rate=1000"):
        train(log_of("ids", n_rows=400), BPR(learning_rate=1000.0, l2_factors=10.0), k=8)
