"""ALS and Gibbs sampling as solvers: optima, resuming, threads, seeds, and small data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from refusals import refused
from scipy.optimize import minimize

import fmknn
from fmknn import ALS, FMClassifier, FMRegressor, Gibbs
from fmknn.data.blocks import design_of_interactions, design_of_rows
from fmknn.data.rows import as_rows
from fmknn.solvers import id_block
from fmknn.solvers.base import SolverSpec
from fmknn.solvers.sweep import Chain, column_groups


def ratings(seed=0, **settings):
    settings = {"n_users": 25, "n_items": 15, "n_ratings": 200, "context": 3} | settings
    return fmknn.datasets.make_interactions(random_state=seed, **settings)[0]


def ids_only(**settings):
    return ratings(user_features=False, item_features=False, **settings)


def expanded(interactions):
    design = design_of_interactions(interactions)
    return design.expand(0, design.n_rows).to_scipy().tocsr()


def as_arrays(model):
    return [np.asarray(model.w0), model.w, model.V]


def same_bits(one, other):
    samples = list(zip(one.samples(), other.samples(), strict=True))
    assert samples
    return all(
        np.array_equal(a, b)
        for pair in samples
        for a, b in zip(as_arrays(pair[0]), as_arrays(pair[1]), strict=True)
    )


# --- ALS: the optimum of the textbook's objective -------------------------------------------


class Objective:
    """½ Σ w_n (y_n - ŷ_n)² + ½ l2_linear ‖w‖² + ½ l2_factors ‖V‖² and its gradient, in float64.

    ŷ = w0 + X w + ½ Σ_f ((X v_f)² - X² v_f²) (Rendle, ICDM 2010); targets less their mean, over
    their deviation.
    """

    def __init__(self, X, y, weights, config, n_factors):
        self.X, self.config, self.k = sp.csr_array(X, dtype=np.float64), config, n_factors
        self.weights = np.ones(len(y)) if weights is None else np.asarray(weights, float)
        self.center = np.average(y, weights=self.weights)
        self.scale = np.sqrt(np.average((y - self.center) ** 2, weights=self.weights))
        self.y = (y - self.center) / self.scale

    def position(self, params):
        """The parameters of a model as one vector, in units of the deviation."""
        w0 = (params.w0 - self.center) / self.scale
        V = params.V.astype(float) / np.sqrt(self.scale)
        return np.concatenate([[w0], params.w.astype(float) / self.scale, V.ravel()])

    def __call__(self, position):
        X, p = self.X, self.X.shape[1]
        w, V = position[1 : p + 1], position[p + 1 :].reshape(p, self.k)
        sums, squares = X @ V, X.multiply(X).tocsr()
        errors = position[0] + X @ w + 0.5 * (sums**2 - squares @ V**2).sum(axis=1) - self.y
        value = 0.5 * (self.weights * errors**2).sum()
        value += 0.5 * self.config.l2_linear * (w**2).sum()
        value += 0.5 * self.config.l2_factors * (V**2).sum()
        slope = self.weights * errors
        to_V = X.T @ (slope[:, None] * sums) - (squares.T @ slope)[:, None] * V
        to_V += self.config.l2_factors * V
        to_w = X.T @ slope + self.config.l2_linear * w
        return value, np.concatenate([[slope.sum()], to_w, to_V.ravel()])


def data_of(kind):
    """X, y, blocks, weights."""
    rng = np.random.default_rng(1)
    if kind == "matrix":
        X = rng.normal(size=(60, 6)) * (rng.random((60, 6)) < 0.6)
        y = X[:, 0] * X[:, 1] + X[:, 2] + 0.1 * rng.normal(size=60)
        return X, y, None, None
    data = ids_only() if kind == "ids" else ratings()
    weights = rng.choice([0.5, 1.0, 2.0], len(data)) if kind == "weighted features" else None
    return expanded(data), data.values, design_of_interactions(data).column_sets, weights


@pytest.mark.parametrize("kind", ["ids", "features", "weighted features", "matrix"])
def test_als_ends_where_no_optimiser_can_improve(kind):
    X, y, blocks, weights = data_of(kind)
    config = ALS(n_iter=2000, l2_linear=0.5, l2_factors=1.0, init_sigma=0.3)
    objective = Objective(X, y, weights, config, 2)
    values = []
    model = FMRegressor(
        2,
        solver=config,
        random_state=3,
        callbacks=[lambda step: values.append(objective(objective.position(step.model()))[0])],
    ).fit(X, y, blocks, weights=weights)
    assert np.linalg.norm(model.params_.V) > 0.5  # not the model without factors
    assert np.diff(values).max() <= 1e-5 * values[0]
    reached = objective.position(model.params_)
    value, slope = objective(reached)
    assert np.abs(slope).max() < 5e-3
    better = minimize(objective, reached, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    assert value - better.fun < 1e-4


def test_als_without_factors_is_the_ridge():
    """With k = 0: (XᵀX + l2 I) w = Xᵀ (y - w0), w0 without a penalty."""
    data = ratings()
    X = expanded(data).toarray().astype(float)
    y = data.values.astype(float)
    fitted = FMRegressor(0, solver=ALS(n_iter=1000, l2_linear=2.0)).fit(data)
    design = np.column_stack([np.ones(len(X)), X])
    penalty = 2.0 * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    w0, *w = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    assert abs(fitted.params_.w0 - w0) < 1e-3
    np.testing.assert_allclose(fitted.params_.w, w, atol=1e-3)
    assert fitted.params_.V.shape == (X.shape[1], 0)


def test_a_weight_of_2_is_the_row_twice():
    X, y, blocks, _ = data_of("features")
    twice = np.arange(len(y)) % 3 == 0
    rows = np.concatenate([np.arange(len(y)), np.flatnonzero(twice)])
    settings = {"solver": ALS(n_iter=30), "random_state": 0}
    weighted = FMRegressor(3, **settings).fit(X, y, blocks, weights=1.0 + twice)
    repeated = FMRegressor(3, **settings).fit(X[rows], y[rows], blocks)
    for one, other in zip(as_arrays(weighted.params_), as_arrays(repeated.params_), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)
    one, other = (fit.history_[-1]["train_rmse"] for fit in (weighted, repeated))
    assert abs(one - other) < 1e-4


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_a_factor_common_to_all_weights_says_nothing_to_the_sampler(scale):
    data = ids_only(n_users=60, n_items=40, n_ratings=2000)
    train, test = fmknn.splits.random(data, test=0.2, random_state=0)
    errors = []
    for weight in (1.0, scale):
        weighted = train.replace(weights=np.full(len(train), weight))
        model = FMRegressor(3, n_iter=60, random_state=0).fit(weighted)
        errors.append(np.sqrt(np.mean((model.predict(test) - test.values) ** 2)))
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


@pytest.mark.parametrize("solver", [ALS(n_iter=5), Gibbs(n_iter=5)])
def test_the_history_tells_the_error_of_the_model(solver):
    data = ratings()
    errors = []

    def record(step):
        model = step.model()
        if isinstance(solver, Gibbs):  # the last sample is this iteration's
            model = list(model.samples())[-1]
        errors.append(np.sqrt(np.mean((model.score(X) - data.values) ** 2)))

    X = expanded(data)
    solver = Gibbs(n_iter=5, burn_in=0) if isinstance(solver, Gibbs) else solver
    fitted = FMRegressor(3, solver=solver, random_state=0, callbacks=[record]).fit(data)
    np.testing.assert_allclose(
        [entry["train_rmse"] for entry in fitted.history_], errors, rtol=1e-4
    )


# --- the same bits: resumed, on any number of threads, from one seed ------------------------

TRAININGS = {
    "als": (ALS(n_iter=6), "squared"),
    "mcmc": (Gibbs(n_iter=6, burn_in=1, n_kept_samples=3), "squared"),
    "mcmc independent": (Gibbs(n_iter=6, burn_in=1, prior="independent"), "squared"),
    "probit": (Gibbs(n_iter=6, burn_in=1, n_kept_samples=4), "probit"),
}


def training(name, data, n_jobs=1, random_state=5):
    """The solver, with the design and targets that it is to train on."""
    config, loss = TRAININGS[name]
    spec = SolverSpec(config, loss, 3, random_state, n_jobs)
    y = data.values
    targets = (y > np.median(y)).astype(np.float32) if loss == "probit" else y
    return config.solver(spec), design_of_interactions(data), targets


@pytest.mark.parametrize("data", [ids_only(), ratings(n_items=30)], ids=["ids", "features"])
@pytest.mark.parametrize("name", TRAININGS)
def test_resuming_after_any_iteration_gives_the_same_bits(name, data):
    states = {}
    solver, design, y = training(name, data)
    whole = solver.train(
        design, y, callbacks=[lambda step: states.update({step.iteration: step.state()})]
    )
    assert sorted(states) == list(range(1, 7))
    for iteration, state in states.items():
        # another seed: the state has its own
        solver, design, y = training(name, data, random_state=99)
        again = solver.train(design, y, start=state)
        assert same_bits(again.model, whole.model), iteration
        assert [entry["iteration"] for entry in again.history] == list(range(iteration + 1, 7))
        for mine, theirs in zip(again.history, whole.history[iteration:], strict=True):
            assert mine["loss"] == theirs["loss"]
        assert again.state.keys() == whole.state.keys()
        for key, array in whole.state.items():
            assert np.array_equal(again.state[key], array), (iteration, key)


@pytest.fixture(scope="module", params=[False, True], ids=["ids", "features"])
def many(request):
    """Enough entities for three threads."""
    sizes = {"n_users": 900, "n_items": 800, "n_ratings": 4000}
    return ratings(user_features=request.param, item_features=request.param, **sizes)


@pytest.mark.parametrize("name", TRAININGS)
def test_threads_do_not_change_a_bit(name, many):
    models = []
    for n_jobs in (1, 2, 3):
        solver, design, y = training(name, many, n_jobs)
        models.append(solver.train(design, y).model)
    assert same_bits(models[0], models[1])
    assert same_bits(models[0], models[2])


@pytest.mark.parametrize("name", TRAININGS)
def test_one_seed_one_result(name):
    data = ratings()
    one, other, third = (
        solver.train(design, y).model
        for solver, design, y in (training(name, data, random_state=seed) for seed in (5, 5, 6))
    )
    assert same_bits(one, other)
    assert not same_bits(one, third)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_matrix_with_blocks_found_is_the_interactions(name):
    """The same columns in the same order: the same model, bit by bit."""
    data = ids_only()
    solver, design, y = training(name, data)
    found = design_of_rows(as_rows(expanded(data)))
    assert len(found.blocks) == 3
    assert same_bits(solver.train(design, y).model, solver.train(found, y).model)


def test_a_matrix_with_blocks_is_the_interactions_where_there_are_features():
    data = ratings()
    X, settings = expanded(data), {"solver": ALS(n_iter=10), "random_state": 0}
    expected = FMRegressor(3, **settings).fit(data).params_
    blocks = design_of_interactions(data).column_sets
    fitted = FMRegressor(3, **settings).fit(X, data.values, blocks).params_
    for one, other in zip(as_arrays(fitted), as_arrays(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


# --- small and strange data -----------------------------------------------------------------

SOLVERS = [ALS(n_iter=30), Gibbs(n_iter=30, burn_in=10)]


@pytest.mark.parametrize("factors", [0, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_constant_targets_are_predicted(solver, factors):
    X = expanded(ratings())
    fitted = FMRegressor(factors, solver=solver, random_state=0).fit(X, np.full(X.shape[0], 4.0))
    assert np.abs(fitted.predict(X) - 4).max() < 0.5
    assert fitted.history_[-1]["train_rmse"] < 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_size_of_the_targets_does_not_count(solver):
    X, y, blocks, _ = data_of("ids")
    whole, tiny = (
        FMRegressor(2, solver=solver, random_state=0).fit(X, scale * y, blocks).history_[-1]
        for scale in (1.0, 2.0**-40)
    )
    assert tiny["train_rmse"] == pytest.approx(2.0**-40 * whole["train_rmse"], rel=1e-4)


@pytest.mark.parametrize("prior", ["correlated", "independent"])
def test_a_group_of_which_no_row_has_a_feature_follows_its_prior(prior):
    table = fmknn.FeatureTable([1, 2], {"constant": [7.0, 7.0]})  # which is 0, as any constant
    log = fmknn.Interactions.from_arrays([1, 2, 2], [5, 5, 6], [1.0, 2.0, 4.0], user_features=table)
    solver = Gibbs(n_iter=5, prior=prior)
    model = FMRegressor(2, solver=solver, random_state=0).fit(log)
    assert np.isfinite(model.params_.V).all() and np.isfinite(model.predict(log)).all()


@pytest.mark.parametrize("factors", [0, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_single_row_is_enough(solver, factors):
    fitted = FMRegressor(factors, solver=solver, random_state=0).fit([[1.0, 0.0, 2.0]], [3.0])
    assert np.isfinite(fitted.predict([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])).all()
    assert fitted.params_.n_factors == factors


def test_als_without_rows_of_an_entity_ends_at_0():
    """Ids without a row, and features that only such ids have: at the mean of the ridge."""
    data = ratings(n_users=120, n_items=60, n_ratings=80)
    unseen = expanded(data).toarray().any(axis=0) == 0
    assert 20 < unseen.sum() < len(unseen)
    params = FMRegressor(3, solver=ALS(n_iter=3), random_state=0).fit(data).params_
    assert not params.w[unseen].any()
    assert not params.V[unseen].any()
    assert params.V[~unseen].all()


def test_samples_without_rows_of_an_id_are_at_the_mean_of_its_prior():
    """All ids of a side without a row are the same vector in each sample, near its other ids'."""
    data = ids_only(n_users=120, n_items=60, n_ratings=80)
    unseen = expanded(data).toarray().any(axis=0) == 0
    posterior = FMRegressor(3, solver=Gibbs(n_iter=20), random_state=0).fit(data).params_
    for columns in design_of_interactions(data).column_sets.values():
        own = columns[unseen[columns]]
        for sample in posterior.samples():
            assert (sample.V[own] == sample.V[own[:1]]).all()
            assert (sample.w[own] == sample.w[own[:1]]).all()
            assert len(own) == 0 or sample.V[own[0]].any()


def test_a_probit_learns_from_its_labels():
    data = ratings(n_ratings=300)
    y = np.where(data.values > np.median(data.values), "good", "bad")
    X = expanded(data)
    fitted = FMClassifier(2, solver="mcmc", loss="probit", n_iter=60, random_state=0).fit(X, y)
    chances = fitted.predict_proba(X)
    assert (fitted.predict(X) == y).mean() > 0.8
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)


def test_a_probit_stays_one_whatever_is_set_later(tmp_path):
    data = ids_only()
    data = data.replace(values=(data.values > data.values.mean()).astype(float))
    given = FMClassifier(3, solver="mcmc", n_iter=5, random_state=0)
    model = fmknn.Recommender(given).fit(data)
    pairs = data.users.ids[data.user_index], data.items.ids[data.item_index]
    days = {name: column.ids.ids[column.index] for name, column in data.context.items()}
    before = model.predict(*pairs, days)
    model.estimator_.set_params(solver="adam")
    assert np.array_equal(model.predict(*pairs, days), before)
    model.save(tmp_path / "m")
    assert np.array_equal(fmknn.load(tmp_path / "m").predict(*pairs, days), before)


def test_a_start_of_another_loss_is_refused():
    data = ids_only()
    labels = data.replace(values=(data.values > data.values.mean()).astype(float))
    probit = FMClassifier(2, solver="mcmc", n_iter=2).fit(labels).state_
    squared = FMRegressor(2, n_iter=2).fit(data).state_
    with refused(ValueError, "another loss"):
        FMRegressor(2).fit(data, start=probit)
    with refused(ValueError, "another loss"):
        FMClassifier(2, solver="mcmc").fit(labels, start=squared)
    with refused(TypeError, "start must be a checkpoint or a state", "int"):
        FMRegressor(2).fit(data, start=3)


def test_groups_of_a_matrix_are_those_of_the_interactions():
    data = ratings(n_items=30)
    design = design_of_interactions(data)
    X = design.expand(0, design.n_rows).to_scipy()
    settings = {"n_factors": 3, "solver": Gibbs(n_iter=1, burn_in=0), "random_state": 0}
    ours = FMRegressor(**settings).fit(data)
    matrix = FMRegressor(**settings)
    # other numbers that say the same
    groups = 100 + 7 * design.groups.astype(np.int64)
    matrix.fit(X, data.values, blocks=design.column_sets, groups=groups)
    np.testing.assert_allclose(
        matrix.linear_predictor(X), ours.linear_predictor(data), rtol=1e-3, atol=1e-3
    )
    one = FMRegressor(**settings).fit(X, data.values, blocks=design.column_sets)
    assert len([name for name in one.state_ if name.startswith("prior_mean")]) == len(design.blocks)
    count = len(np.unique(design.groups))
    assert (
        len([name for name in matrix.state_ if name.startswith("prior_mean")])
        == count
        > len(design.blocks)
    )


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ([0, 1], ValueError, ("groups", "2", "6 columns")),
        (np.zeros((6, 1), int), ValueError, ("groups", "6 columns")),
        ([0.5] * 6, TypeError, ("groups", "whole numbers", "float64")),
        (["a"] * 6, TypeError, ("groups", "whole numbers")),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, error, words):
    with refused(error, *words):
        FMRegressor(2).fit(np.eye(6), np.arange(6.0), groups=groups)
    with refused(ValueError, "Interactions", "groups"):
        FMRegressor(2).fit(ids_only(), groups=[0])


def test_als_stops_early_and_keeps_its_best():
    data = ids_only(n_users=50, n_items=30, n_ratings=900)
    train, validation = fmknn.splits.random(data, test=0.2, random_state=0)
    stopping = fmknn.EarlyStopping(validation, patience=3)
    config = ALS(n_iter=200, l2_factors=0.1, l2_linear=1.0)  # too free: it overfits
    model = FMRegressor(8, solver=config, random_state=0, callbacks=[stopping]).fit(train)
    assert model.n_iter_ == len(stopping.scores_) == int(np.argmin(stopping.scores_)) + 4 < 200
    error = np.sqrt(np.mean((model.predict(validation) - validation.values) ** 2))
    assert error == pytest.approx(min(stopping.scores_), rel=1e-6)


def test_early_stopping_judges_samples_as_they_are_kept():
    train, validation = fmknn.splits.random(ids_only(), test=0.3, random_state=0)
    stopping = fmknn.EarlyStopping(validation, patience=100)
    config = Gibbs(n_iter=20, burn_in=8, n_kept_samples=4)
    models = []
    callbacks = [stopping, lambda step: models.append((step.has_new_model, step.model()))]
    fitted = FMRegressor(3, solver=config, random_state=0, callbacks=callbacks).fit(train)
    kept = [number for number, (is_new, _) in enumerate(models) if is_new]
    assert kept == config.kept_iterations().tolist() == [10, 13, 16, 19]
    error = np.sqrt(np.mean((fitted.predict(validation) - validation.values) ** 2))
    assert len(stopping.scores_) == len(kept) and min(stopping.scores_) == pytest.approx(error)


@pytest.mark.parametrize("solver", SOLVERS)
def test_divergence_names_the_iteration(solver):
    X = sp.csr_array(np.full((4, 2), 1e25, np.float32))
    with refused(fmknn.errors.DivergenceError, "iteration 1"):
        FMRegressor(2, solver=solver, random_state=0).fit(X, [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_longer_training_can_not_become_a_shorter_one(solver):
    data = ids_only()
    state = FMRegressor(2, solver=solver, n_iter=4, random_state=0).fit(data).state_
    with refused(ValueError, "4 iterations already", "n_iter=3"):
        FMRegressor(2, solver=solver, n_iter=3).fit(data, start=state)


def test_levels_with_many_rows_are_swept_by_sums_over_them(monkeypatch):
    data = ratings(user_features=False, item_features=False)
    plain = Chain(design_of_interactions(data), 3, column_groups(design_of_interactions(data)), 1)
    assert [type(block).__name__ for block in plain.blocks] == ["IdBlock"] * len(plain.blocks)
    model = FMRegressor(3, solver=ALS(n_iter=4), random_state=0).fit(data)
    monkeypatch.setattr(id_block, "_MOST_GATHERED", 100)  # 25 rows: fewer than each level has
    design = design_of_interactions(data)
    kinds = [type(block).__name__ for block in Chain(design, 3, column_groups(design), 1).blocks]
    assert kinds[-1] == "SharedBlock"
    again = FMRegressor(3, solver=ALS(n_iter=4), random_state=0).fit(data)
    np.testing.assert_allclose(
        again.linear_predictor(data), model.linear_predictor(data), rtol=0.02, atol=0.02
    )


def test_an_entity_with_more_rows_than_are_looked_at_at_once():
    """Sums in parts: a feature of all rows, over an entity with 10,000 of them."""
    rng = np.random.default_rng(0)
    user = np.where(rng.random(11_000) < 0.9, 0, rng.integers(1, 20, 11_000))
    item = rng.integers(8, size=11_000)
    X = sp.csr_array(np.hstack([np.eye(20)[user], np.eye(8)[item]]).astype(np.float32))
    y = rng.normal(size=20)[user] + rng.normal(size=8)[item]
    users = np.hstack([np.eye(20)[user], (user % 3 == 0)[:, None] * 0.5]).astype(np.float32)
    wide = sp.csr_array(np.hstack([users, np.eye(8)[item]]).astype(np.float32))
    blocks = {"user": np.arange(21), "item": np.arange(21, 29)}
    settings = {"n_factors": 2, "solver": ALS(n_iter=60, l2_factors=1.0, l2_linear=1e-3)}
    one = FMRegressor(random_state=0, **settings).fit(X, y)
    other = FMRegressor(random_state=0, **settings).fit(wide, y, blocks=blocks)
    np.testing.assert_allclose(other.predict(wide), one.predict(X), atol=0.02)
    np.testing.assert_allclose(other.predict(wide), y, atol=0.06)
