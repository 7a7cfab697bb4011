"""The oracles checked in turn: by hand examples, laws, and trajectories of MXNet itself."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FIXTURE = Path(__file__).parent / "fixtures" / "golden_fm_adam.mxnet-1.2.1.npz"
LOSSES = ["squared", "logistic"]

# --- the score ------------------------------------------------------------------------------


def test_fm_score_of_two_columns_by_hand():
    # 1 + (2*10 + 3*100) + <(1,2), (3,4)> * 10 * 100 = 321 + 11 * 1000
    assert naive.fm_score(1, [2, 3], [[1, 2], [3, 4]], [10, 100]) == 11321


def test_fm_score_counts_each_of_three_pairs_once():
    # pairs: 1*2*1 + 1*3*1 + 2*3*1 = 11, no linear part
    assert naive.fm_score(0, [0, 0, 0], [[1], [2], [3]], [1, 1, 1]) == 11


def test_fm_scores_go_row_by_row():
    assert naive.fm_scores(0.5, [1, 2], [[1], [1]], [[0, 0], [1, 0], [1, 1]]) == [0.5, 1.5, 4.5]


def test_float32_inputs_are_computed_in_float64():
    w0, w, V, x = 0.0, np.float32([1e8, 1.0]), np.zeros((2, 1), np.float32), np.float32([1, 1])
    assert naive.fm_score(w0, w, V, x) == 100_000_001  # float32 would lose the 1


def test_canonical_one_hot():
    X = naive.canonical_one_hot([0, 2], [1, 0], n_users=3, n_items=2)
    assert X.tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 1, 0]]


# --- entities and the projection ------------------------------------------------------------


def test_entity_vector_by_hand():
    w, V, x = [10, 20, 40], [[1, 0], [0, 2], [5, 3]], [1, 3, 2]
    # block {1, 2}: q = 3 (0,2) + 2 (5,3); b = 20*3 + 40*2 + <(0,2),(5,3)> * 3 * 2
    assert naive.entity_vector(w, V, x, [1, 2]) == ([10, 12], 176)


def models(n_columns=6, n_factors=2):
    number = st.floats(-2, 2, allow_subnormal=False)
    row = st.lists(number, min_size=n_columns, max_size=n_columns)
    factors = st.lists(number, min_size=n_factors, max_size=n_factors)
    V = st.lists(factors, min_size=n_columns, max_size=n_columns)
    block_of_column = st.lists(st.integers(0, 3), min_size=n_columns, max_size=n_columns)
    return st.tuples(number, row, V, row, block_of_column)


def blocks_of(block_of_column):
    return [[p for p, g in enumerate(block_of_column) if g == h] for h in range(4)]


@settings(max_examples=60, deadline=None)
@given(models())
def test_score_is_the_sum_over_blocks_and_pairs_of_blocks(model):
    w0, w, V, x, block_of_column = model
    parts = [naive.entity_vector(w, V, x, columns) for columns in blocks_of(block_of_column)]
    total = w0 + sum(b for _, b in parts)
    total += sum(naive.dot(parts[g][0], parts[h][0]) for g in range(4) for h in range(g + 1, 4))
    assert total == pytest.approx(naive.fm_score(w0, w, V, x), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(models())
def test_entity_bias_equals_the_squared_form(model):
    _, w, V, x, _ = model
    columns = [0, 2, 3, 5]
    q, b = naive.entity_vector(w, V, x, columns)
    own = sum(x[p] ** 2 * naive.dot(V[p], V[p]) for p in columns)
    linear = sum(w[p] * x[p] for p in columns)
    assert b == pytest.approx(linear + 0.5 * (naive.dot(q, q) - own), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(models())
def test_score_is_offset_plus_query_row_times_item_row(model):
    w0, w, V, x, block_of_column = model
    *query_blocks, item_block = blocks_of(block_of_column)
    [item] = naive.item_rows(w, V, [x], item_block)
    [query], [offset] = naive.query_rows(w0, w, V, [x], query_blocks)
    score = naive.fm_score(w0, w, V, x)
    assert offset + naive.dot(query, item) == pytest.approx(score, abs=1e-9)


def test_for_ids_alone_the_rows_are_the_parameters():
    w0, w, V = 0.5, [1, 2, 3, 4], [[1, 2], [3, 4], [5, 6], [7, 8]]
    X = naive.canonical_one_hot([0, 1], [0, 1], 2, 2)
    assert naive.item_rows(w, V, X, [2, 3]) == [[5, 6, 3], [7, 8, 4]]
    assert naive.query_rows(w0, w, V, X, [[0, 1]]) == ([[1, 2, 1], [3, 4, 1]], [1.5, 2.5])


# --- the search -----------------------------------------------------------------------------


def test_brute_top_n_sorts_by_score():
    assert naive.brute_top_n([1, 3, 2], 2) == [(1, 3), (2, 2)]


def test_brute_top_n_breaks_ties_by_position():
    assert naive.brute_top_n([0.0, 5.0, -0.0, 5.0, 0.0], 4) == [(1, 5), (3, 5), (0, 0), (2, 0)]


def test_brute_top_n_leaves_out_the_excluded():
    assert naive.brute_top_n([4, 3, 2, 1], 2, excluded=[0, 2]) == [(1, 3), (3, 1)]


def test_brute_top_n_takes_candidates_only_and_exclusion_wins():
    hits = naive.brute_top_n([4, 3, 2, 1], 3, excluded=[1], candidates=[1, 2, 2, 3])
    assert hits == [(2, 2), (3, 1)]


def test_brute_top_n_is_short_when_few_are_left():
    assert naive.brute_top_n([1, 2], 5) == [(1, 2), (0, 1)]
    assert naive.brute_top_n([1, 2], 5, excluded=[0, 1]) == []


# --- losses and gradients -------------------------------------------------------------------


def test_loss_values_by_hand():
    assert naive.loss_value(3.0, 1.0, "squared") == 2.0
    assert naive.loss_value(0.0, 1, "logistic") == pytest.approx(math.log(2))
    assert naive.loss_value(1.5, 1, "logistic") == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert naive.loss_value(1.5, 0, "logistic") == pytest.approx(math.log(1 + math.exp(1.5)))


def test_logistic_loss_does_not_overflow():
    assert naive.loss_value(-2000.0, 1, "logistic") == 2000.0
    assert naive.loss_slope(-2000.0, 1, "logistic") == -1.0


def test_an_unknown_loss_is_refused():
    for function in (naive.loss_value, naive.loss_slope):
        with pytest.raises(ValueError, match="hinge"):
            function(0.0, 1.0, "hinge")


def small_problem(seed=0, n_rows=6, n_columns=5, n_factors=2, scale=1.0):
    """w0, w, V, rows with 1 to 4 real-valued columns, labels 0 or 1; column 4 is never stored."""
    rng = random.Random(seed)
    w0, w = rng.gauss(0, scale), [rng.gauss(0, scale) for _ in range(n_columns)]
    V = [[rng.gauss(0, scale) for _ in range(n_factors)] for _ in range(n_columns)]
    rows = [
        [(p, rng.gauss(0, 1)) for p in rng.sample(range(n_columns - 1), rng.randint(1, 4))]
        for _ in range(n_rows)
    ]
    return w0, w, V, rows, [rng.randint(0, 1) for _ in range(n_rows)]


def test_sparse_score_equals_the_dense_one():
    w0, w, V, rows, _ = small_problem()
    for row in rows:
        x = [dict(row).get(p, 0.0) for p in range(5)]
        assert naive.sparse_score(w0, w, V, row) == pytest.approx(naive.fm_score(w0, w, V, x))


def test_sparse_score_refuses_a_column_stored_twice():
    with pytest.raises(ValueError, match="twice"):
        naive.sparse_score(0, [1], [[1]], [(0, 1.0), (0, 2.0)])


def test_numeric_gradient_of_a_known_function():
    slopes = naive.numeric_gradient(lambda t: t[0] ** 2 + 3 * t[0] * t[1], [2.0, 5.0])
    assert slopes == pytest.approx([19.0, 6.0])


def test_unflatten_undoes_flatten():
    w0, w, V, _, _ = small_problem()
    assert naive.unflatten(naive.flatten(w0, w, V), 5, 2) == (w0, w, V)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_central_differences(loss, seed):
    problem = small_problem(seed)
    exact = naive.flatten(*naive.gradient(*problem, loss))
    numeric = naive.flatten(*naive.numeric_loss_gradient(*problem, loss))
    assert exact == pytest.approx(numeric, rel=1e-6, abs=1e-7)


# --- Adam -----------------------------------------------------------------------------------

NO_DECAY = {"bias_wd": 0.0, "linear_wd": 0.0, "factors_wd": 0.0}


def run(problem, loss="squared", moments=None, order=None, lazy=True, **options):
    w0, w, V, rows, y = problem
    moments = moments or naive.no_moments(len(w), len(V[0]))
    return naive.adam_epoch(w0, w, V, moments, rows, y, loss, order, options, lazy)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_first_step_is_the_learning_rate_against_the_gradients_sign(loss):
    problem = small_problem()
    g0, gw, gV = naive.gradient(*problem, loss)
    w0, w, V, _ = run(problem, loss, batch_size=6, eps=1e-30, linear_lr=0.02, **NO_DECAY)
    assert w0 - problem[0] == pytest.approx(-math.copysign(0.1, g0))
    for p in range(4):
        assert w[p] - problem[1][p] == pytest.approx(-math.copysign(0.02, gw[p]))
        for f in range(2):
            assert V[p][f] - problem[2][p][f] == pytest.approx(-math.copysign(1e-4, gV[p][f]))


def test_two_steps_of_the_bias_by_hand():
    # no columns: score = w0. Batch 1: g = -1, batch 2: g = w0 - 3, worked out with the formulas.
    w0, _, _, state = run((0.0, [0.0], [[0.0]], [[], []], [1.0, 3.0]), batch_size=1, bias_wd=0.0)
    first = 0.1 * math.sqrt(0.001) / 0.1 * 0.1 / (math.sqrt(0.001) + 1e-8)
    g = first - 3
    m, s = 0.9 * -0.1 + 0.1 * g, 0.999 * 0.001 + 0.001 * g * g
    second = first - 0.1 * math.sqrt(1 - 0.999**2) / (1 - 0.81) * m / (math.sqrt(s) + 1e-8)
    assert (w0, state["m"]["w0"], state["s"]["w0"]) == pytest.approx((second, m, s))
    assert state["t"] == 2


def test_the_partial_batch_is_used_as_it_is_and_rescaled_by_the_full_size():
    # 3 rows in batches of 2, zero learning rate: gradients are -1, -2 | -4, each over 2
    still = {"bias_lr": 0.0, "bias_wd": 0.0, "batch_size": 2}
    *_, state = run((0.0, [0.0], [[0.0]], [[], [], []], [1.0, 2.0, 4.0]), **still)
    assert state["m"]["w0"] == pytest.approx(0.9 * 0.1 * -1.5 + 0.1 * -2.0)


def test_the_gradient_is_clipped_after_the_decay_is_added():
    # loss gradient -3 (clipped alone: -1), decay +5: clip(-3 + 5) = 1, not clip(-3) + 5 = 4
    problem = 10.0, [0.0], [[0.0]], [[]], [13.0]
    *_, state = run(problem, batch_size=1, bias_wd=0.5, clip_gradient=1.0)
    assert state["m"]["w0"] == pytest.approx(0.1)


def test_lazy_leaves_the_columns_of_no_row_alone_and_standard_decays_them():
    problem = small_problem()
    _, w, V, state = run(problem, batch_size=6)
    assert (w[4], V[4], state["m"]["w"][4]) == (problem[1][4], problem[2][4], 0.0)
    _, w, V, state = run(problem, batch_size=6, lazy=False)
    assert abs(w[4]) < abs(problem[1][4])
    assert all(abs(V[4][f]) < abs(problem[2][4][f]) for f in range(2))


def test_lazy_and_standard_agree_when_every_batch_stores_every_column():
    w0, w, V, _, y = small_problem()
    rows = [[(p, 0.0 if p == r else 1.0) for p in range(5)] for r in range(6)]  # a stored zero
    problem = w0, w, V, rows, y
    assert run(problem, batch_size=2) == run(problem, batch_size=2, lazy=False)


def test_order_is_the_order_of_the_rows():
    w0, w, V, rows, y = small_problem()
    order = [3, 0, 5, 1, 4, 2]
    shuffled = w0, w, V, [rows[r] for r in order], [y[r] for r in order]
    assert run((w0, w, V, rows, y), order=order, batch_size=2) == run(shuffled, batch_size=2)


def test_the_state_carries_over_to_the_next_epoch():
    w0, w, V, rows, y = small_problem()
    *once, moments = run((w0, w, V, rows, y), batch_size=2)
    twice = run((*once, rows, y), moments=moments, batch_size=2)
    assert twice == run((w0, w, V, rows + rows, y + y), batch_size=2)


def test_the_arguments_are_not_changed():
    problem, moments = small_problem(), naive.no_moments(5, 2)
    run(problem, moments=moments)
    assert problem == small_problem()
    assert moments == naive.no_moments(5, 2)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="factor_lr"):
        run(small_problem(), factor_lr=0.1)


GOLDEN = dict(np.load(FIXTURE))
META = json.loads(str(GOLDEN["meta"]))


def golden_errors(name):
    """Largest |ours - MXNet's| of V, w and w0 over the epochs of one setting."""
    config = {"kind": "classifier", "dense": False, "real": False, **META["cfg"][name]}
    loss = {"classifier": "logistic", "regressor": "squared"}[config.pop("kind")]
    lazy = not config.pop("dense")
    config.pop("real")  # says of the values that they are not all 1; they are read either way
    data = {key: GOLDEN[f"{name}/{key}"] for key in ("V0", "w0", "b0", "cols", "vals", "y")}
    rows = [list(zip(c, v, strict=True)) for c, v in zip(data["cols"], data["vals"], strict=True)]
    w0, w, V = data["b0"].item(), data["w0"][:, 0], data["V0"]
    moments = naive.no_moments(*V.shape)
    errors = [0.0, 0.0, 0.0]
    for epoch in range(META["epochs"]):
        w0, w, V, moments = naive.adam_epoch(
            w0, w, V, moments, rows, data["y"], loss,
            settings={"batch_size": META["batch"], **config}, lazy=lazy,
        )  # fmt: skip
        theirs = [GOLDEN[f"{name}/{key}"][epoch] for key in ("V", "w", "b")]
        for i, (mine, golden) in enumerate(zip((V, w, w0), theirs, strict=True)):
            golden = golden.reshape(np.shape(mine))
            errors[i] = max(errors[i], float(np.max(np.abs(np.subtract(mine, golden)))))
    return errors


def test_the_golden_file_has_eleven_settings_and_no_partial_batch():
    assert len(META["cfg"]) == 11
    assert all(len(GOLDEN[f"{name}/y"]) % META["batch"] == 0 for name in META["cfg"])


@pytest.mark.parametrize("name", META["cfg"])
def test_adam_epoch_follows_mxnet(name):
    V_error, w_error, w0_error = golden_errors(name)  # MXNet rounds to float32
    assert V_error < 2e-6
    assert w_error < 4e-6
    assert w0_error < 2e-5


# --- metrics --------------------------------------------------------------------------------


def test_rmse_by_hand():
    assert naive.rmse([1, 2, 5], [1, 4, 1]) == pytest.approx(math.sqrt(20 / 3))


def test_recall_by_hand():
    assert naive.recall([7, 8, 9], relevant=[8, 9, 1, 2], n=2) == 0.25
    assert naive.recall([7, 8, 9], relevant=[8, 9, 1, 2], n=3) == 0.5


def test_ndcg_by_hand():
    # relevant at ranks 1 and 3 of 3, two relevant: (1 + 1/2) / (1 + 1/log2(3))
    value = naive.ndcg([5, 6, 7], relevant=[5, 7], n=3)
    assert value == pytest.approx(1.5 / (1 + 1 / math.log2(3)))


def test_ndcg_is_one_for_a_full_list_of_relevant_items_even_if_more_exist():
    assert naive.ndcg([5, 6], relevant=[5, 6, 7], n=2) == 1.0
