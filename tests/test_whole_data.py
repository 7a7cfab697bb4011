"""The whole-data loss: sums, steps and optima against brute force, textbook iALS, limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from whole_data_oracle import WholeData as Oracle
from whole_data_oracle import ials_half

import fmknn
from fmknn import FeatureTable, Interactions, WholeData
from fmknn.data.blocks import design_of_interactions
from fmknn.data.counts import counted
from fmknn.errors import DivergenceError
from fmknn.solvers import all_pairs as all_pairs_module
from fmknn.solvers import pair_block as pair_block_module
from fmknn.solvers.all_pairs import AllPairs
from fmknn.solvers.base import SolverSpec
from fmknn.solvers.sweep import Chain, column_groups

# --- data: a handful of users, items and contexts, of which brute force sees every pair ------

FEATURES = {  # of one side: its columns, and whether the id is one
    "ids": ((), True),
    "tags": (("tags",), True),
    "number": (("number",), True),
    "both": (("number", "tags"), True),
    "no ids": (("number", "tags"), False),
}


def table(rng, n, kind):
    """A feature table of n ids; the last two share all they have."""
    columns, with_id = FEATURES[kind]
    tags = [tuple(rng.choice(list("abc"), rng.integers(0, 4), replace=False)) for _ in range(n)]
    number = rng.normal(size=n)
    if n > 2:
        tags[-1], number[-1] = tags[-2], number[-2]
    return FeatureTable(
        np.arange(n),
        {"number": number, "tags": tags},
        features=list(columns),
        id_feature=with_id,
    )


def make(
    seed=0, n_users=5, n_items=6, n_rows=14, users="ids", items="ids", contexts=0, weights=False
):
    """Repeated rows and, as the last id of each side, a user and an item without one."""
    rng = np.random.default_rng(seed)
    user = np.r_[0, rng.integers(max(1, n_users - 1), size=n_rows - 1)]
    item = np.r_[0, rng.integers(max(1, n_items - 1), size=n_rows - 1)]
    return Interactions.from_arrays(
        user,
        item,
        weights=rng.choice([0.5, 1.0, 3.0], n_rows) if weights else None,
        context={f"c{i}": rng.integers(3, size=n_rows) for i in range(contexts)},
        user_features=table(rng, n_users, users),
        item_features=table(rng, n_items, items),
    )


KINDS = {
    "ids": {},
    "weighted ids": {"weights": True},
    "users with features": {"users": "both"},
    "items with features": {"items": "both", "weights": True},
    "features without ids": {"users": "no ids", "items": "no ids"},
    "one context": {"contexts": 1},
    "two contexts": {"contexts": 2, "n_rows": 25, "weights": True},
    "everything": {"users": "both", "items": "tags", "contexts": 2, "n_rows": 25},
}

SETTINGS = {
    "alpha0": 0.3,
    "l2_factors": 0.1,
    "l2_linear": 0.2,
    "nu": 0.5,
    "count_power": 0.7,
}


def oracle_of(data, config):
    names = ("alpha0", "l2_factors", "l2_linear", "nu", "count_power")
    return Oracle(data, **{name: getattr(config, name) for name in names})


def parameters(params):
    return params.w0, params.w.astype(float), params.V.astype(float)


def solver_of(config, k, n_jobs=1, random_state=0):
    return config.solver(SolverSpec(config, "whole-data", k, random_state, n_jobs))


def train(data, config, k, start=None, callbacks=(), **how):
    """What FMRanker does, with the solver at hand."""
    design = design_of_interactions(counted(data))
    y = np.ones(design.n_rows, np.float32)
    return solver_of(config, k, **how).train(design, y, start=start, callbacks=callbacks)


def state_at(oracle, w0, w, V):
    """A state from which to start anywhere."""
    assert w0 == 0
    return {
        "theta": np.vstack([V.T, w]).astype(np.float32),
        "alpha0": np.array(oracle.alpha0),
        "iteration": np.array(0),
    }


def somewhere(oracle, k, seed=1, biases=True):
    """Parameters of which those without a row are 0, as a float32 state holds them."""
    rng = np.random.default_rng(seed)
    n = oracle.X.shape[1]
    V = (0.4 * rng.normal(size=(n, k))).astype(np.float32).astype(float)
    w = (0.2 * rng.normal(size=n) * biases).astype(np.float32).astype(float)
    V[~oracle.seen], w[~oracle.seen] = 0.0, 0.0
    return 0.0, w, V


def by_column(data, oracle):
    """Which blocks are swept column by column: ids alone, if nothing else is in their queries."""
    alone = {"item": True, "user": not data.context}
    return {
        name: alone.get(name, False) and np.array_equal(rows, np.eye(len(rows)))
        for name, rows in oracle.tables.items()
    }


def seen_only(oracle, w, V):
    return w[oracle.seen], V[oracle.seen]


# --- the oracle itself ------------------------------------------------------------------------


def test_the_oracle_has_the_slope_and_the_minimum_of_its_own_loss():
    data = make(users="both", items="tags", contexts=1, weights=True)
    oracle = Oracle(data, **SETTINGS)
    w0, w, V = somewhere(oracle, 2)
    g0, gw, gV = oracle.gradient(w0, w, V)
    step = 1e-5

    def slope(name, place=()):
        """Of the loss along one parameter, and along it from its own minimum."""
        losses = []
        for by in (step, -step):
            theta = {"w0": np.array(w0), "w": w.copy(), "V": V.copy()}
            theta[name][place] += by
            losses.append(oracle.loss(*theta.values()))
        return (losses[0] - losses[1]) / (2 * step)

    assert g0 == pytest.approx(slope("w0"), rel=1e-6)
    for p in range(len(w)):
        assert gw[p] == pytest.approx(slope("w", p), abs=1e-6)
        for f in range(3):
            best = oracle.best(w0, w, V, p, f)
            there = w.copy(), V.copy()
            if f < 2:
                assert gV[p, f] == pytest.approx(slope("V", (p, f)), abs=1e-6)
                there[1][p, f] = best
            else:
                there[0][p] = best
            at_best = np.column_stack([*oracle.gradient(w0, *there)[:0:-1]])
            assert best is None or at_best[p, f] == pytest.approx(0, abs=1e-9)


# --- the history tells the objective's parts --------------------------------------------------


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_history_has_the_three_sums(kind, biases):
    data = make(**KINDS[kind])
    config = WholeData(n_iter=4, biases=biases, init_sigma=0.5, **SETTINGS)
    oracle = oracle_of(data, config)
    models = []
    fit = train(data, config, 2, callbacks=[lambda step: models.append(step.model())])
    for entry, model in zip(fit.history, models, strict=True):
        w0, w, V = parameters(model)
        parts = np.array(oracle.parts(w0, w, V)) / oracle.weight
        got = [entry[name] for name in ("observed", "all_pairs", "penalty")]
        np.testing.assert_allclose(got, parts, rtol=1e-5, atol=1e-6)
        assert entry["loss"] == pytest.approx(parts.sum(), rel=1e-5)
        assert w0 == 0 and (biases or not w.any())


def test_by_default_all_pairs_weigh_12_times_as_much_as_the_observed():
    data = make(weights=True)
    oracle = oracle_of(data, WholeData())
    fit = train(data, WholeData(n_iter=2), 2)
    w0, w, V = parameters(fit.model)
    assert fit.state["alpha0"] == pytest.approx(12 * oracle.weight / (4 * 5), rel=1e-6)
    parts = np.array(oracle.parts(w0, w, V)) / oracle.weight
    assert fit.history[-1]["all_pairs"] == pytest.approx(parts[1], rel=1e-5)


# --- one sweep is the textbook's --------------------------------------------------------------


@pytest.fixture
def kernels(monkeypatch, impl):
    """The sweep over entities compiled, and as plain Python."""
    monkeypatch.setattr(pair_block_module, "sweep_pairs", impl(pair_block_module.sweep_pairs))


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("n_passes", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_is_the_textbooks(kernels, kind, n_passes, biases):
    data = make(**KINDS[kind])
    config = WholeData(n_iter=1, n_passes=n_passes, biases=biases, **SETTINGS)
    oracle = oracle_of(data, config)
    start = somewhere(oracle, 3, biases=biases)
    fit = train(data, config, 3, start=state_at(oracle, *start))
    order = by_column(data, oracle)
    w0, w, V = oracle.sweep(*start, order, biases=biases, n_passes=n_passes)
    got_w0, got_w, got_V = parameters(fit.model)
    assert got_w0 == pytest.approx(w0, abs=1e-5)
    assert np.abs(V - start[2]).max() > 0.1
    for got, expected in zip(seen_only(oracle, got_w, got_V), seen_only(oracle, w, V), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def assert_a_sweep_is_the_textbooks(kind, k):
    data = make(**KINDS[kind])
    config = WholeData(n_iter=1, n_passes=1, **SETTINGS)
    oracle = oracle_of(data, config)
    start = somewhere(oracle, k)
    fit = train(data, config, k, start=state_at(oracle, *start))
    _, w, V = oracle.sweep(*start, by_column(data, oracle))
    assert fit.model.V.shape == (len(w), k)
    for got, expected in zip(
        seen_only(oracle, fit.model.w, fit.model.V), seen_only(oracle, w, V), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [1, 12, 25])
@pytest.mark.parametrize("kind", ["weighted ids", "users with features", "two contexts"])
def test_a_sweep_with_any_number_of_factors_is_the_textbooks(kernels, kind, k):
    """Features look at their rows for some factors at a time, more than 10 in several goes."""
    assert_a_sweep_is_the_textbooks(kind, k)


@pytest.mark.parametrize("kind", ["weighted ids", "users with features", "two contexts"])
def test_linear_weights_without_factors_see_all_pairs(kernels, kind):
    assert_a_sweep_is_the_textbooks(kind, 0)


@pytest.mark.parametrize("k", [71, 72, 73, 150])
def test_coordinates_in_several_parts_are_still_one_sweep(k):
    """One pass through all coordinates has one order, however many are gathered at a time."""
    data = make(seed=3, weights=True)
    config = WholeData(n_iter=1, n_passes=1, **SETTINGS)
    oracle = oracle_of(data, config)
    w0, w, V = somewhere(oracle, k)
    V /= 8
    V = V.astype(np.float32).astype(float)
    fit = train(data, config, k, start=state_at(oracle, w0, w, V))
    # part by part all users, then part by part all items: coordinates of other users don't matter
    _, w, V = oracle.sweep(w0, w, V, by_column(data, oracle))
    for got, expected in zip(
        seen_only(oracle, fit.model.w, fit.model.V), seen_only(oracle, w, V), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


# --- descent, and where it ends ---------------------------------------------------------------

kinds = st.sampled_from(list(FEATURES))


@given(
    seed=st.integers(0, 2**31),
    n_users=st.integers(2, 7),
    n_items=st.integers(2, 7),
    n_rows=st.integers(1, 30),
    users=kinds,
    items=kinds,
    contexts=st.integers(0, 2),
    weights=st.booleans(),
    k=st.integers(0, 4),
    alpha0=st.sampled_from([None, 0.0, 0.01, 1.0]),
    l2=st.sampled_from([0.0, 1e-3, 0.3]),
    nu=st.sampled_from([0.0, 0.4, 1.0]),
    n_passes=st.integers(1, 3),
    biases=st.booleans(),
    init_sigma=st.sampled_from([0.1, 2.0]),
)
@settings(max_examples=60)
def test_no_iteration_makes_the_loss_larger(
    seed, n_users, n_items, n_rows, users, items, contexts, weights, k, **options
):
    shape = {"n_users": n_users, "n_items": n_items, "n_rows": n_rows, "contexts": contexts}
    data = make(seed, users=users, items=items, weights=weights, **shape)
    l2 = options.pop("l2")
    config = WholeData(n_iter=6, l2_factors=l2, l2_linear=2 * l2, **options)
    oracle = oracle_of(data, config)
    models = []
    fit = train(data, config, k, callbacks=[lambda step: models.append(step.model())])
    exact = np.array([oracle.loss(*parameters(model)) for model in models]) / oracle.weight
    told = np.array([entry["loss"] for entry in fit.history])
    # sums of terms that cancel are no more exact than the terms are
    terms = max(oracle.magnitude(*parameters(model)) for model in models) / oracle.weight
    np.testing.assert_allclose(told, exact, rtol=1e-4, atol=2e-6 * terms)
    assert np.diff(exact).max() < 1e-5 * exact[0] + 2e-6 * terms
    w, V = models[-1].w, models[-1].V
    unseen_items = [p for p in oracle.columns["item"] if not oracle.seen[p]]
    unseen = ~oracle.seen
    unseen[unseen_items] = False
    assert not w[unseen].any() and not V[unseen].any()


ENDS = [
    kind if kind in ("ids", "features without ids") else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
]


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("kind", ENDS)
def test_it_ends_where_no_parameter_can_improve(kind, biases):
    """The gradient is 0: each parameter is at its own minimum, up to roundings."""
    data = make(**KINDS[kind])
    settings = SETTINGS | {"l2_factors": 0.02, "alpha0": 0.1}
    n_iter = 1500 if "contexts" in KINDS[kind] else 300
    config = WholeData(n_iter=n_iter, biases=biases, init_sigma=0.5, **settings)
    oracle = oracle_of(data, config)
    theta = parameters(train(data, config, 2).model)
    assert np.linalg.norm(theta[2]) > 0.5  # not the model without factors
    (_, gw, gV), (_, cw, cV) = oracle.gradient(*theta), oracle.curvature(*theta)
    seen = oracle.seen
    assert np.abs(gV).max() < 5e-3
    assert np.abs(gV[seen] / cV[seen]).max() < 1e-3
    if biases:
        assert np.abs(gw).max() < 5e-3
        assert np.abs(gw[seen] / cw[seen]).max() < 1e-3


# --- what has no row --------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("kind", ["weighted ids", "users with features", "one context"])
def test_an_item_without_a_row_is_one_that_nobody_took(kind, biases):
    data = make(**KINDS[kind])
    # the levels of contexts move after the items: there it holds in the end
    n_iter = 150 if "contexts" in KINDS[kind] else 2
    config = WholeData(n_iter=n_iter, n_passes=200, biases=biases, init_sigma=0.7, **SETTINGS)
    oracle = oracle_of(data, config)
    w0, w, V = parameters(train(data, config, 2).model)
    nobody = [p for p in oracle.columns["item"] if not oracle.seen[p]]
    assert nobody
    w_best, v_best = oracle.of_nobody(w0, w, V, biases)
    for p in nobody:
        np.testing.assert_allclose(V[p], v_best, atol=2e-4)
        assert w[p] == pytest.approx(w_best, abs=2e-4)
    if biases or "ids" not in kind:
        assert np.abs([w_best, *v_best]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_users_levels_and_features_without_a_row_stay_at_0(kind):
    data = make(**KINDS[kind])
    oracle = oracle_of(data, WholeData(**SETTINGS))
    model = train(data, WholeData(n_iter=3, **SETTINGS), 2).model
    unseen = ~oracle.seen
    assert unseen.any() or "without ids" in kind
    if np.array_equal(oracle.tables["item"], np.eye(len(oracle.tables["item"]))):
        unseen[list(oracle.columns["item"])] = False
    assert not model.w[unseen].any()
    assert not model.V[unseen].any()


# --- ids alone are iALS -----------------------------------------------------------------------


def by_entity(own, other, weights, n):
    """[(other, weight), ...] of each of n entities."""
    rows = [[] for _ in range(n)]
    for entity, partner, weight in zip(own, other, weights, strict=True):
        rows[entity].append((int(partner), float(weight)))
    return rows


@pytest.mark.parametrize("weights", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
def test_exact_row_solves_of_ids_are_textbook_ials(nu, weights):
    """From the same start: after one sweep, and after five."""
    k, l2, alpha0 = 6, 0.05, 0.2
    data = counted(make(2, n_users=12, n_items=9, n_rows=50, weights=weights))
    n_users, n_items = len(data.users), len(data.items)
    given = np.ones(len(data)) if data.weights is None else data.weights.astype(float) ** 0.5
    of_users = by_entity(data.user_index, data.item_index, given, n_users)
    of_items = by_entity(data.item_index, data.user_index, given, n_items)
    users_seen = np.array([len(rows) > 0 for rows in of_users])
    items_seen = np.array([len(rows) > 0 for rows in of_items])
    assert not users_seen.all() and not items_seen.all()

    def penalties(rows, n_partners):
        weight = np.array([sum(w for _, w in pairs) for pairs in rows])
        return l2 * (weight + alpha0 * n_partners) ** nu

    start = np.random.default_rng(0).normal(size=(n_users + n_items, k)).astype(np.float32)
    start[:n_users][~users_seen], start[n_users:][~items_seen] = 0, 0
    U, H = start[:n_users].astype(float), start[n_users:].astype(float)
    config = WholeData(n_iter=5, alpha0=alpha0, l2_factors=l2, nu=nu, biases=False, n_passes=2000)
    oracle = oracle_of(data, config)
    state = state_at(oracle, 0.0, np.zeros(len(start)), start.astype(float))
    models = []
    train(data, config, k, start=state, callbacks=[lambda step: models.append(step.model())])
    for model in models:
        U = ials_half(U, H, of_users, alpha0, penalties(of_users, items_seen.sum()))
        H = ials_half(H, U, of_items, alpha0, penalties(of_items, users_seen.sum()))
        np.testing.assert_allclose(model.V[:n_users], U, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.V[n_users:], H, rtol=1e-3, atol=1e-4)
        assert not model.w.any() and model.w0 == 0.0


# --- the same bits: on any number of threads, from one seed, resumed --------------------------


def planted(features=False, contexts=0, n_users=2500, n_items=2300, n_ratings=6000):
    """Enough of everything for three threads, and for several products of a Gram matrix."""
    data, _ = fmknn.datasets.make_interactions(
        n_users,
        n_items,
        n_ratings,
        context=contexts or None,
        user_features=features,
        item_features=features,
        random_state=0,
    )
    return data.replace(values=None)


def same_bits(one, other):
    return one.w0 == other.w0 and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("w", "V")
    )


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        ({}, 5),
        ({}, 80),
        ({"features": True}, 5),
        ({"contexts": 3}, 5),
        ({"features": True, "contexts": 3}, 5),
    ],
    ids=["ids", "ids in parts", "features", "contexts", "everything"],
)
def test_threads_do_not_change_a_bit(shape, k):
    data = planted(**shape)
    one, two, three = (
        train(data, WholeData(n_iter=2), k, n_jobs=n_jobs).model for n_jobs in (1, 2, 3)
    )
    assert same_bits(one, two) and same_bits(one, three)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_one_result(kind):
    data = make(**KINDS[kind])
    config = WholeData(n_iter=3)
    one, other, third = (train(data, config, 3, random_state=s).model for s in (5, 5, 6))
    assert same_bits(one, other)
    assert not same_bits(one, third)


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_after_any_iteration_gives_the_same_bits(kind, biases):
    data = make(n_users=20, n_items=15, **{"n_rows": 60, **KINDS[kind]})
    config = WholeData(n_iter=5, biases=biases)
    states = {}
    callbacks = [lambda step: states.update({step.iteration: step.state()})]
    whole = train(data, config, 3, callbacks=callbacks)
    assert sorted(states) == [1, 2, 3, 4, 5]
    for iteration, state in states.items():
        again = train(data, config, 3, start=state, random_state=99)
        assert same_bits(again.model, whole.model), iteration
        assert [entry["iteration"] for entry in again.history] == list(range(iteration + 1, 6))
        for mine, theirs in zip(again.history, whole.history[iteration:], strict=True):
            assert mine["loss"] == theirs["loss"]
        assert again.state.keys() == whole.state.keys()
        for name, array in whole.state.items():
            assert np.array_equal(again.state[name], array), (iteration, name)


def test_states_that_do_not_fit_are_refused():
    data = make()
    state = train(data, WholeData(n_iter=2), 2).state
    for change, words in [
        ({"theta": state["theta"][:, 1:]}, ("theta", "shape")),
        ({"theta": state["theta"] * np.nan}, ("theta", "NaN")),
        ({"iteration": np.array(-1)}, ("iteration",)),
        ({"iteration": np.array(9)}, ("9 iterations already", "n_iter=2")),
    ]:
        with refused(ValueError, *words):
            train(data, WholeData(n_iter=2), 2, start={**state, **change})
    for name in ("theta", "alpha0", "iteration"):
        with refused(ValueError, name):
            without = {key: array for key, array in state.items() if key != name}
            train(data, WholeData(n_iter=2), 2, start=without)
    with refused(ValueError, "theta"):
        train(data, WholeData(n_iter=3), 3, start=state)


# --- small, large and strange data ------------------------------------------------------------

SMALL = {
    "one user": ([7, 7, 7], [1, 2, 3]),
    "one item": ([1, 2, 3], [7, 7, 7]),
    "one pair": ([1], [2]),
    "everybody has it": ([1, 2, 3, 1], [5, 5, 5, 6]),
    "all pairs": ([1, 1, 2, 2], [5, 6, 5, 6]),
}


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("small", SMALL)
def test_small_data_give_what_the_loss_says(kernels, small, k, biases):
    data = Interactions.from_arrays(*SMALL[small])
    config = WholeData(n_iter=5, biases=biases, **SETTINGS)
    oracle = oracle_of(data, config)
    fit = train(data, config, k)
    exact = oracle.loss(*parameters(fit.model)) / oracle.weight
    assert fit.history[-1]["loss"] == pytest.approx(exact, rel=1e-5)
    if k == 0 and not biases:
        assert exact == 1.0 and not fit.model.score(np.eye(fit.model.n_features)).any()


@pytest.mark.parametrize("contexts", [0, 1])
@pytest.mark.parametrize("users", ["ids", "both"])
def test_without_penalties_and_other_pairs_all_that_is_observed_is_explained(users, contexts):
    """α0 = 0 and l2 = 0: nothing is divided by 0, and a model that says 1 of all is found."""
    data = make(users=users, contexts=contexts)
    config = WholeData(n_iter=30, alpha0=0.0, l2_factors=0.0, l2_linear=0.0)
    fit = train(data, config, 2)
    assert fit.history[-1]["loss"] < 1e-3
    assert np.isfinite(fit.model.V).all() and np.isfinite(fit.model.w).all()


@pytest.mark.parametrize("alpha0", [0.0, None, 1e30])
@pytest.mark.parametrize("weight", [1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("kind", ["ids", "users with features", "two contexts"])
def test_extreme_weights_give_a_finite_model_or_a_divergence(kind, weight, alpha0):
    data = make(**KINDS[kind])
    weights = np.full(len(data), weight, np.float32)
    config = WholeData(n_iter=3, alpha0=alpha0, count_power=1.0)
    design = design_of_interactions(data.replace(weights=weights))
    try:
        fit = solver_of(config, 3).train(design, np.ones(len(data), np.float32))
    except DivergenceError as error:
        assert "iteration" in str(error) and "\n" not in str(error)
    else:
        assert np.isfinite([entry["loss"] for entry in fit.history]).all()
        assert np.isfinite(fit.model.V).all() and np.isfinite(fit.model.w0)


@pytest.mark.parametrize("kind", ["ids", "users with features", "two contexts"])
def test_a_factor_common_to_all_weights_says_nothing_if_penalties_grow_with_them(kind):
    """α0 follows the weights by default, and with ν = 1 so do the penalties."""
    data = make(**KINDS[kind]).replace(weights=None)
    config = WholeData(n_iter=4, count_power=1.0)
    one, other = (
        train(data.replace(weights=np.full(len(data), scale)), config, 3)
        for scale in (1.0, 2.0**20)
    )
    np.testing.assert_allclose(one.model.V, other.model.V, rtol=1e-3, atol=1e-5)
    assert one.history[-1]["loss"] == pytest.approx(other.history[-1]["loss"], rel=1e-5)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha0", -0.1),
        ("alpha0", np.nan),
        ("alpha0", np.inf),
        ("alpha0", "1"),
        ("l2_factors", -1),
        ("l2_factors", None),
        ("l2_linear", True),
        ("nu", 1.5),
        ("count_power", 2),
        ("init_sigma", -1.0),
        ("n_iter", 0),
        ("n_passes", 0),
        ("n_passes", 1.5),
        ("biases", 1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with refused((TypeError, ValueError), name):
        WholeData(**{name: value})


def test_settings_are_kept_and_another_loss_is_refused():
    config = WholeData(alpha0=0.5, n_passes=3)
    assert WholeData(**config.get_params()) == config
    assert config.with_n_iter(7) == dataclasses.replace(config, n_iter=7)
    with refused(ValueError, "WholeData", "squared"):
        config.solver(SolverSpec(config, "squared", 2))


def test_the_gram_of_the_queries_is_summed_part_by_part(monkeypatch):
    rng = np.random.default_rng(0)
    users, items, days = (rng.integers(n, size=300) for n in (12, 9, 5))
    log = counted(Interactions.from_arrays(users, items, context={"day": days}))
    design = design_of_interactions(log)
    chain = Chain(design, 3, column_groups(design), 2)
    chain.q[:], chain.b[:] = rng.normal(size=chain.q.shape), rng.normal(size=len(chain.b))
    q, b = chain.q.astype(np.float64), chain.b.astype(np.float64)
    expected = np.zeros((5, 5))
    first_of_day = design.block("day").start
    for user, day in set(zip(log.user_index, log.context["day"].index, strict=True)):
        s, t = q[user], q[first_of_day + day]
        x = np.array([*(s + t), 1.0, b[user] + b[first_of_day + day] + s @ t])
        expected += np.outer(x, x)
    monkeypatch.setattr(all_pairs_module, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(all_pairs_module, "_PARTS_AT_ONCE", 3)
    np.testing.assert_allclose(AllPairs(design, 1.0).query_gram(chain), expected, rtol=1e-5)
