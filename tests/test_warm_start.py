"""Training that begins from a model: what it keeps, how near it is, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fmknn
from fmknn import ALS, BPR, Adam, FMClassifier, FMParams, FMRanker, FMRegressor, Gibbs, WholeData
from fmknn.data.blocks import design_of_interactions
from fmknn.model.posterior import Posterior
from fmknn.solvers.chain_state import Units
from fmknn.solvers.warm import words_of

K = 3
MAKERS = {
    "adam": lambda **how: FMRegressor(K, solver="adam", **how),
    "logistic": lambda **how: FMClassifier(K, solver="adam", **how),
    "als": lambda **how: FMRegressor(K, solver="als", **how),
    "mcmc": lambda **how: FMRegressor(K, solver="mcmc", **how),
    "ordinal": lambda **how: FMRegressor(K, solver="mcmc", loss="ordinal", **how),
    "probit": lambda **how: FMClassifier(K, solver="mcmc", **how),
    "whole-data": lambda **how: FMRanker(K, solver="whole-data", **how),
    "bpr": lambda **how: FMRanker(K, solver="bpr", **how),
}


def ratings(features=False, seed=0, **settings):
    settings = {"n_users": 40, "n_items": 25, "n_ratings": 500, "context": 3} | settings
    return fmknn.datasets.make_interactions(
        random_state=seed, user_features=features, item_features=features, **settings
    )[0]


def data_for(name, features=False, **settings):
    data = ratings(features, **settings)
    if name in ("logistic", "probit"):
        return data.replace(values=(data.values > np.median(data.values)).astype(float))
    if name == "ordinal":
        return data.replace(values=np.digitize(data.values, np.quantile(data.values, [0.3, 0.7])))
    return data.replace(values=None) if name in ("whole-data", "bpr") else data


def has_row(data):
    """Which columns are not zero in all rows."""
    design = design_of_interactions(data)
    return np.asarray(abs(design.expand(0, design.n_rows).to_scipy()).sum(axis=0)).ravel() > 0


def users_below(data, limit):
    return data.take(np.flatnonzero(data.user_index < limit))


def users_from(data, limit):
    return data.take(np.flatnonzero(data.user_index >= limit))


def same_bits(one, other):
    a, b = one.to_state(), other.to_state()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def with_zeros(model, columns):
    """The same model, the parameters of some columns 0: they are new."""
    state = {name: array.copy() for name, array in model.to_state().items()}
    state["w"][..., columns] = 0.0
    state["V"][..., columns, :] = 0.0
    return type(model).from_state(state)


# --- all solvers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_one_random_state_gives_one_result_whatever_the_threads(name, features):
    data = data_for(name, features)
    make = MAKERS[name]
    model = make(n_iter=4, random_state=0).fit(data).params_
    new = np.arange(0, model.n_features, 5)
    start = with_zeros(model, new)
    one, again, threads = (
        make(n_iter=2, random_state=1, n_jobs=n_jobs).fit(data, start=start).params_
        for n_jobs in (1, 1, 2)
    )
    assert same_bits(one, again) and same_bits(one, threads)
    other = make(n_iter=2, random_state=2).fit(data, start=start).params_
    assert not same_bits(one, other)
    *_, last = one.samples()
    assert last.V[new[has_row(data)[new]]].any(axis=1).all()  # zeros would have stayed


@pytest.mark.parametrize("name", MAKERS)
def test_a_posterior_is_its_last_sample(name):
    data = data_for(name)
    make = MAKERS[name]
    rng = np.random.default_rng(0)
    n = design_of_interactions(data).n_features
    cutpoints = np.array([[-0.5, 0.5], [-0.4, 0.8]]) if name == "ordinal" else np.empty((2, 0))
    w, V = rng.normal(0, 0.1, (2, n)), rng.normal(0, 0.1, (2, n, K))
    posterior = Posterior([0.1, 0.2], w, V, cutpoints)
    sample = FMParams(0.2, w[1], V[1], cutpoints[1])
    one, two = (
        make(n_iter=2, random_state=0).fit(data, start=start).params_
        for start in (posterior, sample)
    )
    assert same_bits(one, two)


@pytest.mark.parametrize("name", MAKERS)
def test_a_start_counts_its_passes_from_the_first(name):
    data = data_for(name)
    first = MAKERS[name](n_iter=3, random_state=0).fit(data)
    second = MAKERS[name](n_iter=2, random_state=0).fit(data, start=first.params_)
    assert second.n_iter_ == 2 and [entry["iteration"] for entry in second.history_] == [1, 2]


@pytest.mark.parametrize("name", MAKERS)
def test_what_begins_from_a_model_can_be_stopped_and_resumed(name, tmp_path):
    data = data_for(name)
    start = MAKERS[name](n_iter=3, random_state=0).fit(data).params_
    whole = MAKERS[name](n_iter=4, random_state=1).fit(data, start=start)
    stop = [fmknn.Checkpoint(tmp_path / "c"), lambda step: step.iteration == 2]
    MAKERS[name](n_iter=4, random_state=1, callbacks=stop).fit(data, start=start)
    resumed = MAKERS[name](n_iter=4, random_state=1).fit(data, start=tmp_path / "c")
    assert same_bits(whole.params_, resumed.params_)


@pytest.mark.parametrize("name", MAKERS)
def test_what_does_not_fit_is_refused(name):
    data = data_for(name)
    make = MAKERS[name]
    good = make(n_iter=1, random_state=0).fit(data).params_
    *_, good = good.samples()
    w0, w, V, cutpoints = good.w0, good.w, good.V, good.cutpoints
    with refused(ValueError, "start", f"{len(w) - 1} features", len(w)):
        make().fit(data, start=FMParams(w0, w[1:], V[1:], cutpoints))
    with refused(ValueError, "start", "2 factors", K):
        make().fit(data, start=FMParams(w0, w, V[:, 1:], cutpoints))
    with refused(ValueError, "start", "4 cutpoints", make().resolved()[1]):
        make().fit(data, start=FMParams(w0, w, V, [1, 2, 3, 4]))
    for strange in (3, FMParams, [w, V]):
        with refused(TypeError, "start must be", "model", type(strange).__name__):
            make().fit(data, start=strange)


def test_an_ordinal_training_needs_cutpoints():
    data = data_for("ordinal")
    start = FMRegressor(K, solver="als", n_iter=1).fit(data).params_
    with refused(ValueError, "0 cutpoints", "ordinal", 2):
        MAKERS["ordinal"]().fit(data, start=start)


def test_trainings_that_begin_elsewhere_meet_other_noise():
    one, other = FMParams(0.0, [1.0], [[1.0]]), FMParams(0.0, [1.0], [[1.5]])
    words = [tuple(words_of(7, params)) for params in (None, one, other, one)]
    assert len(set(words)) == 3 and words[1] == words[3]


def test_a_recommender_begins_from_a_model():
    data = ratings()
    model = fmknn.Recommender(FMRegressor(K, solver="als", random_state=0)).fit(data)
    start = model.estimator_.params_
    again = fmknn.Recommender(FMRegressor(K, solver="als", n_iter=1)).fit(data, start=start)
    np.testing.assert_allclose(again.estimator_.params_.V, start.V, atol=0.05)


# --- ALS and the whole-data loss: all rows, to the optimum ---------------------------------------


def test_parameters_go_inward_as_targets_do():
    """The score of a row by the parameters inward is its score less the centre, over the scale."""
    rng = np.random.default_rng(0)
    params = FMParams(3.0, rng.normal(size=6), rng.normal(size=(6, 2)))
    X = rng.normal(size=(5, 6))
    inward = FMParams(*Units(2.5, 1.7).parameters_inward(params))
    np.testing.assert_allclose(inward.score(X), (params.score(X) - 2.5) / 1.7, rtol=1e-4, atol=1e-5)


def als_objective(params, data, config):
    """½ Σ (y - ŷ)² + ½ l2_linear ‖w‖² + ½ l2_factors ‖V‖², targets and parameters in deviations."""
    design = design_of_interactions(data)
    X = design.expand(0, design.n_rows).to_scipy().toarray().astype(float)
    scale = data.values.std(dtype=float)
    w, V = params.w.astype(float), params.V.astype(float)
    score = params.w0 + X @ w + 0.5 * ((X @ V) ** 2 - X**2 @ V**2).sum(axis=1)
    value = 0.5 * ((data.values - score) ** 2).sum() / scale**2
    value += 0.5 * config.l2_linear * (w**2).sum() / scale**2
    return value + 0.5 * config.l2_factors * (V**2).sum() / scale


@pytest.mark.parametrize("features", [False, True])
def test_als_stays_at_its_optimum(features):
    data = ratings(features)
    config = ALS(n_iter=1500, l2_linear=1.0, l2_factors=2.0)
    model = FMRegressor(K, solver=config, random_state=0).fit(data).params_
    assert np.linalg.norm(model.V) > 0.5
    again = FMRegressor(K, solver=config.with_n_iter(3)).fit(data, start=model).params_
    before, after = (als_objective(params, data, config) for params in (model, again))
    assert after <= before * (1 + 1e-6)
    for name in ("w0", "w", "V"):
        np.testing.assert_allclose(getattr(again, name), getattr(model, name), atol=3e-3)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", ["als", "whole-data"])
def test_a_sweep_from_a_model_is_one_from_the_state(name, features):
    data = data_for(name, features)
    first = MAKERS[name](n_iter=4, random_state=0).fit(data)
    resumed = MAKERS[name](n_iter=5).fit(data, start=first.state_).params_
    warm = MAKERS[name](n_iter=1).fit(data, start=first.params_).params_
    assert np.abs(resumed.V - first.params_.V).max() > 0.01
    for part in ("w0", "w", "V"):
        np.testing.assert_allclose(getattr(warm, part), getattr(resumed, part), atol=1e-4)


def test_the_whole_data_loss_does_not_rise():
    data = data_for("whole-data", features=True)
    config = WholeData(n_iter=300)
    first = FMRanker(K, solver=config, random_state=0).fit(data)
    again = FMRanker(K, solver=config.with_n_iter(2)).fit(data, start=first.params_)
    losses = [first.history_[-1]["loss"], *(entry["loss"] for entry in again.history_)]
    assert np.diff(losses).max() <= 1e-5 * losses[0]
    np.testing.assert_allclose(again.params_.V, first.params_.V, atol=0.01)


def test_the_whole_data_loss_without_biases_has_none():
    data = data_for("whole-data")
    start = MAKERS["whole-data"](n_iter=2, random_state=0).fit(data).params_
    assert start.w.any()
    config = WholeData(n_iter=1, biases=False)
    assert not FMRanker(K, solver=config).fit(data, start=start).params_.w.any()


# --- Gibbs: the chain goes on --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mcmc", "ordinal", "probit"])
def test_a_chain_that_goes_on_is_as_good_as_the_end_of_a_long_one(name):
    """Eight samples each: after a model, after 60 sweeps from nothing, and from nothing."""
    data = data_for(name, n_users=120, n_items=80, n_ratings=2000)

    def fit(burn_in, seed, start=None):
        config = Gibbs(n_iter=burn_in + 8, burn_in=burn_in)
        made = MAKERS[name](random_state=seed).set_params(solver=config)
        return made.fit(data, start=start)

    def error(made):
        got = made.predict_proba(data)[:, 1] if name == "probit" else made.predict(data)
        return np.sqrt(np.mean((got - data.values) ** 2))

    long = [fit(60, seed) for seed in range(4)]
    end = np.mean([error(made) for made in long])
    on = np.mean([error(fit(0, 0, made.params_)) for made in long])
    cold = np.mean([error(fit(0, seed)) for seed in range(4)])
    assert cold > end * 1.03
    assert abs(on - end) < 0.3 * (cold - end)


def test_samples_of_before_are_not_kept():
    data = ratings()
    start = MAKERS["mcmc"](n_iter=20, random_state=0).fit(data).params_
    config = Gibbs(n_iter=6, burn_in=2)
    warm = FMRegressor(K, solver=config, random_state=0).fit(data, start=start).params_
    assert warm.n_samples == 4


# --- Adam and BPR: new rows alone ----------------------------------------------------------------


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", ["adam", "logistic"])
@pytest.mark.parametrize("scale", [1.0, 7.3, 0.011])
def test_by_adam_columns_without_a_row_keep_their_parameters_to_the_bit(name, features, scale):
    data = data_for(name, features)
    if name == "adam":
        data = data.replace(values=data.values * scale)
    model = MAKERS[name](n_iter=5, random_state=0).fit(users_below(data, 30)).params_
    new = users_from(data, 25)
    unseen = ~has_row(new)
    assert unseen[:25].all() and not unseen[30:40].any()
    after = MAKERS[name](n_iter=2, random_state=0).fit(new, start=model).params_
    assert np.array_equal(after.w[unseen], model.w[unseen])
    assert np.array_equal(after.V[unseen], model.V[unseen])
    assert (after.V[~unseen] != model.V[~unseen]).any(axis=1).all()
    assert after.V[30:40].any(axis=1).all()


def test_only_decay_of_all_features_moves_those_without_a_row():
    data = ratings()
    model = MAKERS["adam"](n_iter=5, random_state=0).fit(data).params_
    new = users_from(data, 25)
    config = Adam(lazy=False, epochs=1)
    decayed, kept = (
        FMRegressor(K, solver=given, random_state=0).fit(new, start=model).params_
        for given in (config, config.going_on(alone=True))
    )
    assert (decayed.V[:25] != model.V[:25]).any()
    assert np.array_equal(kept.V[:25], model.V[:25])
    assert np.array_equal(kept.w[:25], model.w[:25])


def test_adam_that_stands_still_gives_the_model_back():
    data = ratings()
    model = MAKERS["adam"](n_iter=3, random_state=0).fit(data).params_
    still = Adam(epochs=1, bias_lr=0.0, linear_lr=0.0, factors_lr=0.0)
    start = with_zeros(model, [4])
    other = data.replace(values=data.values * 3.0)
    after = FMRegressor(K, solver=still, random_state=0).fit(other, start=start).params_
    assert after.w0 == pytest.approx(model.w0, rel=1e-6)
    known = np.arange(len(model.V)) != 4
    assert np.array_equal(after.w, start.w)
    assert np.array_equal(after.V[known], model.V[known])
    assert after.V[4].any() and np.abs(after.V[4]).max() < 1.0


def test_new_rows_pull_less_on_what_is_known_when_training_goes_on():
    alone = Adam().going_on(alone=True)
    assert alone == Adam(epochs=Adam.n_warm, linear_wd=0.0, factors_wd=0.0)
    assert Adam().going_on() == Adam(epochs=Adam.n_warm)
    given = Adam(factors_wd=0.5).going_on(7, alone=True)
    assert given == Adam(epochs=7, linear_wd=0.0, factors_wd=0.5)
    assert BPR().going_on(alone=True) == BPR(n_iter=3, learning_rate=BPR.learning_rate / 2)
    assert BPR().going_on(9) == BPR(n_iter=9)
    assert Gibbs(burn_in=1).going_on(9) == Gibbs(n_iter=9, burn_in=1)
    assert Gibbs().going_on() == Gibbs(n_iter=Gibbs.n_warm, burn_in=2)
    assert ALS(l2_factors=3.0).going_on() == ALS(n_iter=ALS.n_warm, l2_factors=3.0)


@pytest.mark.parametrize("features", [False, True])
def test_by_bpr_queries_without_a_row_keep_their_parameters_to_the_bit(features):
    data = data_for("bpr", features)
    model = MAKERS["bpr"](n_iter=5, random_state=0).fit(users_below(data, 30)).params_
    new = users_from(data, 25)
    after = MAKERS["bpr"](n_iter=3, random_state=0).fit(new, start=model).params_
    assert np.array_equal(after.w[:25], model.w[:25])
    assert np.array_equal(after.V[:25], model.V[:25])
    assert (after.V[25:40] != model.V[25:40]).any(axis=1).all()


def test_bpr_draws_the_items_that_have_a_row_or_parameters():
    """Five items: rows now, rows before, both, neither. What is neither is never drawn."""
    log = fmknn.Interactions.from_arrays([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 3, 4])
    model = MAKERS["bpr"](n_iter=3, random_state=0).fit(log.take([0, 1, 2])).params_
    new = log.take([3])
    config = BPR(n_iter=20, n_negatives=2)
    after = FMRanker(K, solver=config, random_state=0).fit(new, start=model).params_
    items = after.V[3:]
    assert not items[[3, 4]].any() and not after.w[3:][[3, 4]].any()
    before = model.V[3:]
    assert (items[[0, 1, 2]] != before[[0, 1, 2]]).any(axis=1).all()
