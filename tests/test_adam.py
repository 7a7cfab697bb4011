"""The Adam solver against MXNet's own trajectories, against the plain-Python rule, and alone."""

from __future__ import annotations

import json
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmknn
from fmknn.data.blocks import design_of_rows
from fmknn.data.rows import as_rows
from fmknn.solvers.adam import Adam
from fmknn.solvers.base import SolverSpec

GOLDEN = Path(__file__).parent / "fixtures" / "golden_fm_adam.mxnet-1.2.1.npz"
SETTINGS = [
    "big_lr", "big_wd", "clip", "clip_regressor", "default", "dense_standard", "eps", "no_wd",
    "real_values", "regressor", "rescale_one",
]  # fmt: skip


def solver(config: Adam, loss: str = "squared", n_factors: int = 3, seed: int = 0):
    return config.solver(SolverSpec(config, loss, n_factors, seed))


def start_state(w0, w, V, loss: str = "squared") -> dict[str, np.ndarray]:
    """A state as a training leaves it, but before the first batch."""
    parameters = {
        "w0": np.array([w0], np.float32),
        "w": np.asarray(w, np.float32),
        "V": np.asarray(V, np.float32),
    }
    moments = {f"{m}_{name}": np.zeros_like(a) for m in "ms" for name, a in parameters.items()}
    return {
        **parameters,
        **moments,
        "words": np.arange(4, dtype=np.uint32),
        "units": np.array([0.0, 1.0]),
        "loss": np.array(["squared", "logistic"].index(loss)),
        "iteration": np.array(0),
        "n_batches": np.array(0),
    }


@pytest.mark.parametrize("by_hand", [False, True], ids=["one-block", "two-blocks"])
@pytest.mark.parametrize("name", SETTINGS)
def test_follows_mxnet(name, by_hand):
    golden = np.load(GOLDEN, allow_pickle=False)
    meta = json.loads(str(golden["meta"]))
    data = {key.split("/")[1]: golden[key] for key in golden.files if key.startswith(name + "/")}
    config = dict(meta["cfg"][name])
    loss = "squared" if config.pop("kind", None) == "regressor" else "logistic"
    config["lazy"] = not config.pop("dense", False)
    config.pop("real", None)
    n_rows, n_features = len(data["y"]), len(data["V0"])
    X = np.zeros((n_rows, n_features), np.float32)
    np.put_along_axis(X, data["cols"], data["vals"], axis=1)
    border = int(data["cols"][:, 0].max()) + 1
    assert border <= data["cols"][:, 1].min()
    blocks = {"left": slice(0, border), "right": slice(border, n_features)} if by_hand else {}
    design = design_of_rows(as_rows(X), blocks)
    state = start_state(float(data["b0"][0, 0]), data["w0"][:, 0], data["V0"], loss)
    for epoch in range(meta["epochs"]):
        adam = Adam.sagemaker(epochs=epoch + 1, mini_batch_size=meta["batch"], **config)
        fit = solver(adam, loss, data["V0"].shape[1]).train(design, data["y"], start=state)
        state = fit.state
        # tighter than 2e-5 where the learning rate lets V move by no more than 2e-3 in all
        np.testing.assert_allclose(fit.model.V, data["V"][epoch], rtol=0, atol=2e-6)
        np.testing.assert_allclose(fit.model.w, data["w"][epoch][:, 0], rtol=0, atol=4e-6)
        assert fit.model.w0 == pytest.approx(data["b"][epoch][0, 0], abs=2e-5)


def random_problem(seed: int, n_rows: int, loss: str):
    """Rows over three blocks: an id with side features, an id, and real values."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 4, n_rows), rng.integers(0, 3, n_rows)
    side = rng.random((4, 3)) * (rng.random((4, 3)) < 0.7)
    X = np.hstack([np.eye(4)[users], side[users], np.eye(3)[items], rng.normal(size=(n_rows, 2))])
    y = rng.normal(size=n_rows) if loss == "squared" else rng.integers(0, 2, n_rows)
    blocks = {"user": slice(0, 7), "item": slice(7, 10), "rest": slice(10, 12)}
    n_features = X.shape[1]
    start = rng.normal(), rng.normal(size=n_features), rng.normal(size=(n_features, 2)) * 0.3
    return X.astype(np.float32), y.astype(np.float32), blocks, start


@given(
    seed=st.integers(0, 10**6),
    n_rows=st.integers(1, 12),
    batch=st.integers(1, 13),
    loss=st.sampled_from(["squared", "logistic"]),
    lazy=st.booleans(),
    clip=st.sampled_from([None, 0.05]),
)
@settings(max_examples=40, deadline=None)
def test_equals_the_rule_in_plain_python(seed, n_rows, batch, loss, lazy, clip):
    X, y, blocks, (w0, w, V) = random_problem(seed, n_rows, loss)
    rule = {"bias_lr": 0.03, "linear_lr": 0.02, "factors_lr": 0.01, "factors_wd": 0.02}
    rule |= {"clip_gradient": clip}
    config = Adam.sagemaker(epochs=2, mini_batch_size=batch, lazy=lazy, **rule)
    design = design_of_rows(as_rows(X), blocks)
    start = start_state(w0, w, V, loss)
    model = solver(config, loss, n_factors=2).train(design, y, start=start).model

    rows = [[(j, float(x)) for j, x in enumerate(row) if x != 0] for row in X]
    expected = (float(start["w0"][0]), start["w"], start["V"])
    moments = naive.no_moments(X.shape[1], 2)
    for _ in range(2):
        *expected, moments = naive.adam_epoch(
            *expected, moments, rows, y, loss, settings={"batch_size": batch, **rule}, lazy=lazy
        )
    # Adam divides by the root of the second moment: where a gradient is all rounding, so is the
    # step, which is never longer than the learning rate
    assert model.w0 == pytest.approx(expected[0], abs=2e-4)
    np.testing.assert_allclose(model.w, expected[1], rtol=0, atol=2e-4)
    np.testing.assert_allclose(model.V, expected[2], rtol=0, atol=2e-4)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_gradient_is_that_of_the_loss(loss):
    """One batch with a plain first step: m/(√s) hides size, so read the gradient off m."""
    X, y, blocks, (w0, w, V) = random_problem(3, 9, loss)
    config = Adam.sagemaker(
        mini_batch_size=9, rescale_grad=1.0, bias_wd=0.0, linear_wd=0.0, factors_wd=0.0, lazy=False
    )
    start = start_state(w0, w, V, loss)
    design = design_of_rows(as_rows(X), blocks)
    state = solver(config, loss, n_factors=2).train(design, y, start=start).state
    rows = [[(j, float(x)) for j, x in enumerate(row) if x != 0] for row in X]
    parameters = float(start["w0"][0]), start["w"].tolist(), start["V"].tolist()
    g0, gw, gV = naive.numeric_loss_gradient(*parameters, rows, y.tolist(), loss)
    np.testing.assert_allclose(state["m_w0"][0] / 0.1, g0, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state["m_w"] / 0.1, gw, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state["m_V"] / 0.1, gV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["shared", "one-hot"])
@pytest.mark.parametrize("weighted", [False, True])
def test_kernel_equals_its_python_source(monkeypatch, kind, weighted):
    from fmknn.solvers import adam_kernel, adam_run

    X, y, blocks, _ = random_problem(5, 30, "squared")
    if kind == "one-hot":
        X, blocks = np.hstack([X[:, :4], X[:, 7:10]]), {"u": slice(0, 4), "i": slice(4, 7)}
    weights = np.linspace(0.5, 2, 30, dtype=np.float32) if weighted else None
    design = design_of_rows(as_rows(X), blocks, weights)
    config = Adam(epochs=2, mini_batch_size=7, factors_init_sigma=0.3)
    compiled = solver(config, seed=1).train(design, y)
    for name, kernel in vars(adam_kernel).items():
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(adam_kernel, name, kernel.py_func)
    monkeypatch.setattr(adam_run, "adam_epoch", adam_kernel.adam_epoch)
    python = solver(config, seed=1).train(design, y)
    np.testing.assert_allclose(python.model.V, compiled.model.V, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(python.model.w, compiled.model.w, rtol=2e-4, atol=2e-5)
    assert python.history[-1]["loss"] == pytest.approx(compiled.history[-1]["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def ratings():
    return fmknn.datasets.make_interactions(
        n_users=60, n_items=40, n_ratings=1200, context=3, random_state=1
    )[0]


def same_model(a, b) -> bool:
    return a.w0 == b.w0 and np.array_equal(a.w, b.w) and np.array_equal(a.V, b.V)


def test_one_random_state_one_result(ratings):
    one, two, other = (
        fmknn.FMRegressor(solver="adam", n_iter=2, random_state=seed, n_jobs=jobs)
        .fit(ratings)
        .params_
        for seed, jobs in [(0, 1), (0, 2), (1, 1)]
    )
    assert same_model(one, two)
    assert not same_model(one, other)


@pytest.mark.parametrize("stop", [1, 3])
def test_stop_and_resume_give_the_same_bits(ratings, tmp_path, stop):
    path = tmp_path / "half.fmknn"
    whole = fmknn.FMRegressor(solver="adam", n_iter=5, random_state=0).fit(ratings)
    half = fmknn.FMRegressor(
        solver="adam",
        n_iter=5,
        random_state=0,
        callbacks=[fmknn.Checkpoint(path), lambda step: step.iteration == stop],
    ).fit(ratings)
    assert half.n_iter_ == stop
    resumed = fmknn.FMRegressor(solver="adam", n_iter=5, random_state=99).fit(ratings, start=path)
    assert resumed.n_iter_ == 5 - stop
    assert same_model(resumed.params_, whole.params_)
    assert not same_model(half.params_, whole.params_)


def test_a_start_of_another_shape_is_refused(ratings):
    state = fmknn.FMRegressor(solver="adam", n_factors=3, n_iter=1).fit(ratings).state_
    with pytest.raises(ValueError, match=r"start has V of shape .* 3\), this training .* 4\)"):
        fmknn.FMRegressor(solver="adam", n_factors=4, n_iter=2).fit(ratings, start=state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("w", np.zeros(3, np.float32), "w of shape"),
        ("m_V", np.zeros((2, 2), np.float32), "m_V of shape"),
        ("s_w0", np.array([-1], np.float32), "negative second moment"),
        ("V", None, "has no 'V'"),
        ("w0", np.array([np.nan], np.float32), "NaN or infinity in w0"),
        ("words", np.zeros(4), "words of type"),
        ("words", np.zeros(3, np.uint32), "words of shape"),
        ("iteration", np.array(-1), "no valid 'iteration'"),
        ("n_batches", np.array(0.5), "no valid 'n_batches'"),
        ("iteration", np.array(2), "done 2 epochs already"),
        ("loss", np.array(1), "another loss"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(ratings, name, value, message):
    state = dict(fmknn.FMRegressor(solver="adam", n_factors=3, n_iter=1).fit(ratings).state_)
    state[name] = value
    if value is None:
        del state[name]
    with pytest.raises(ValueError, match=message):
        fmknn.FMRegressor(solver="adam", n_factors=3, n_iter=2).fit(ratings, start=state)


def test_a_start_of_another_type_is_refused(ratings):
    with pytest.raises(TypeError, match="start must be a checkpoint or a state"):
        fmknn.FMRegressor(solver="adam", n_factors=3).fit(ratings, start=3)


def test_going_on_with_other_targets_keeps_the_units(ratings):
    """What was learned in one unit is not read in another."""
    first = fmknn.FMRegressor(solver="adam", n_iter=1, random_state=0).fit(ratings)
    config = Adam(epochs=2, bias_lr=0.0, linear_lr=0.0, factors_lr=0.0)
    other = ratings.replace(values=ratings.values * 10)
    second = fmknn.FMRegressor(solver=config).fit(other, start=first.state_)
    np.testing.assert_allclose(second.params_.V, first.params_.V)
    assert second.params_.w0 == pytest.approx(first.params_.w0)


def test_a_failed_training_leaves_the_old_model(ratings):
    model = fmknn.FMRegressor(solver="adam", n_iter=1, random_state=0).fit(ratings)
    before = model.predict(ratings)
    model.set_params(solver=Adam(factors_lr=1e30))
    with pytest.raises(fmknn.errors.DivergenceError):
        model.fit(ratings.replace(values=np.linspace(100, 200, len(ratings), dtype=np.float32)))
    np.testing.assert_array_equal(model.predict(ratings), before)


@pytest.mark.parametrize("verdict", [True, np.bool_(True)])
def test_a_callback_that_says_true_ends_the_training(ratings, verdict):
    callback = lambda step: verdict if step.iteration == 2 else None  # noqa: E731
    assert (
        fmknn.FMRegressor(solver="adam", n_iter=5, callbacks=[callback]).fit(ratings).n_iter_ == 2
    )


def test_a_checkpoint_holds_the_end_wherever_it_is(ratings, tmp_path):
    checkpoint = fmknn.Checkpoint(tmp_path / "c", every=2)
    callbacks = [checkpoint, lambda step: step.iteration == 3]
    model = fmknn.FMRegressor(solver="adam", n_iter=9, random_state=0, callbacks=callbacks).fit(
        ratings
    )
    again = fmknn.FMRegressor(solver="adam", n_iter=4, random_state=0).fit(
        ratings, start=tmp_path / "c"
    )
    assert model.n_iter_ == 3
    assert again.n_iter_ == 1


def test_a_model_is_not_a_checkpoint(ratings, tmp_path):
    path = tmp_path / "model.fmknn"
    fmknn.Recommender(fmknn.FMRegressor(solver="adam", n_iter=1)).fit(ratings).save(path)
    with pytest.raises(fmknn.errors.ModelFileError, match="not a checkpoint"):
        fmknn.FMRegressor(solver="adam").fit(ratings, start=path)


def test_divergence_names_iteration_and_rates(ratings):
    config = Adam(factors_lr=1e30, linear_lr=1e30)
    with pytest.raises(
        fmknn.errors.DivergenceError, match=r"iteration 1: lower .*factors_lr=1e\+30"
    ):
        fmknn.FMRegressor(solver=config).fit(ratings)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_targets_of_any_scale_give_the_same_model_scaled(ratings, scale):
    base = fmknn.FMRegressor(solver="adam", n_iter=3, random_state=0).fit(ratings)
    moved = ratings.replace(values=(ratings.values * scale + 7 * scale).astype(np.float32))
    other = fmknn.FMRegressor(solver="adam", n_iter=3, random_state=0).fit(moved)
    expected = (base.linear_predictor(ratings) + 7) * scale
    np.testing.assert_allclose(other.linear_predictor(moved), expected, rtol=2e-4)


def test_weight_two_is_a_row_twice_and_weight_zero_no_row(ratings):
    """With one batch per epoch the gradients are the same sums (but for their order)."""
    rule = {"linear_wd": 1e-3, "factors_wd": 2e-3, "damp_above": None, "shuffle": False}
    config = Adam(epochs=20, mini_batch_size=10**6, rescale_grad=1e-3, **rule)
    rng = np.random.default_rng(0)
    copies = rng.integers(0, 3, len(ratings))
    weighted = ratings.replace(weights=copies.astype(np.float32))
    repeated = ratings.take(np.repeat(np.arange(len(ratings)), copies))
    one, two = (
        fmknn.FMRegressor(solver=config, random_state=0).fit(part) for part in (weighted, repeated)
    )
    difference = one.linear_predictor(ratings) - two.linear_predictor(ratings)
    assert np.abs(difference).max() < 2e-3
    assert one.history_[-1]["loss"] == pytest.approx(two.history_[-1]["loss"], rel=1e-3)


@pytest.mark.parametrize("unit", [0.25, 4.0, 100.0])
@pytest.mark.parametrize("kind", [fmknn.FMRegressor, fmknn.FMClassifier])
def test_the_unit_of_the_weights_does_not_matter(ratings, kind, unit):
    labels = ratings.replace(values=(ratings.values > ratings.values.mean()).astype(np.float32))
    data = ratings if kind is fmknn.FMRegressor else labels
    plain = kind(solver="adam", random_state=0).fit(data)
    weights = np.full(len(data), unit, np.float32)
    scaled = kind(solver="adam", random_state=0).fit(data.replace(weights=weights))
    np.testing.assert_allclose(
        scaled.linear_predictor(data), plain.linear_predictor(data), rtol=0, atol=0.02
    )


def test_all_zero_weights_are_refused():
    with pytest.raises(ValueError, match="zero"):
        fmknn.FMRegressor(solver="adam").fit(np.eye(3), [1, 2, 3], weights=np.zeros(3))


def test_history_falls_and_counts(ratings):
    model = fmknn.FMRegressor(solver="adam", n_iter=10, random_state=0).fit(ratings)
    losses = [entry["loss"] for entry in model.history_]
    assert [entry["iteration"] for entry in model.history_] == list(range(1, 11))
    assert losses[-1] < 0.8 * losses[0]


def test_early_stopping_keeps_the_best(ratings):
    train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    stopping = fmknn.EarlyStopping(test, patience=3)
    config = Adam(factors_lr=0.05, linear_lr=0.05, factors_wd=0.0)
    model = fmknn.FMRegressor(n_iter=200, solver=config, random_state=0, callbacks=[stopping]).fit(
        train
    )
    assert model.n_iter_ < 200
    best = int(np.argmin(stopping.scores_))
    assert len(stopping.scores_) == best + 1 + 3
    error = model.linear_predictor(test) - test.values
    assert np.sqrt(np.mean(error**2)) == pytest.approx(stopping.scores_[best], rel=1e-9)


def test_early_stopping_begins_anew_with_each_training(ratings):
    train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    stopping = fmknn.EarlyStopping(test, patience=99)
    first = fmknn.FMRegressor(solver="adam", n_iter=3, random_state=0, callbacks=[stopping]).fit(
        train
    )
    estimator = fmknn.FMRegressor(solver="adam", n_iter=5, random_state=0, callbacks=[stopping])
    second = estimator.fit(train, start=first.state_)
    assert len(stopping.scores_) == 2
    assert not same_model(first.params_, second.params_)


def test_what_each_of_several_stoppings_measured_is_kept(ratings):
    train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    parts = [test.take(np.arange(len(test)) % 3 == part) for part in range(3)]
    stoppings = [fmknn.EarlyStopping(part, patience=99) for part in parts]
    model = fmknn.FMRegressor(solver="adam", n_iter=4, random_state=0, callbacks=stoppings)
    history = model.fit(train).history_
    names = "validation_rmse", "validation_rmse_2", "validation_rmse_3"
    for name, stopping in zip(names, stoppings, strict=True):
        assert [entry[name] for entry in history] == stopping.scores_


def test_early_stopping_of_a_classifier_with_named_classes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    y = np.where(X[:, 0] + 0.3 * rng.normal(size=400) > 0, "yes", "no")
    stopping = fmknn.EarlyStopping(X[300:], y[300:], patience=5)
    model = fmknn.FMClassifier(random_state=0, callbacks=[stopping]).fit(X[:300], y[:300])
    probability = model.predict_proba(X[300:])[:, 1]
    log_loss = -np.mean(np.log(np.where(y[300:] == "yes", probability, 1 - probability)))
    assert min(stopping.scores_) == pytest.approx(log_loss, rel=1e-6)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((2, 4)), [1.0, 2.0], "other columns"),
        (np.ones((2, 3)), None, "y is missing"),
        (np.ones((2, 3)), [1.0, np.nan], "NaN"),
        (np.ones((2, 3)), [1.0], "2 rows, but y has 1"),
    ],
)
def test_validation_rows_that_do_not_fit_are_refused(X, y, message):
    stopping = fmknn.EarlyStopping(X, y)
    with pytest.raises(ValueError, match=message):
        fmknn.FMRegressor(solver="adam", callbacks=[stopping]).fit(np.eye(3), [1.0, 2.0, 3.0])


def test_validation_rows_of_another_vocabulary_are_refused(ratings):
    plain = ratings.without_features()
    other = fmknn.Interactions.from_arrays(["a"], ["b"], [1.0])
    same_size = plain.replace(users=fmknn.IdMap(ratings.users.ids + 1, "user"), user_features=None)
    for validation in (other, same_size):
        stopping = fmknn.EarlyStopping(validation)
        with pytest.raises(ValueError, match=r"other columns|another vocabulary"):
            fmknn.FMRegressor(solver="adam", callbacks=[stopping]).fit(plain)


def test_unseen_features_stay_at_zero_unless_sagemaker(ratings):
    only = ratings.take(ratings.item_index < 20).without_features()
    n_users = len(only.users)
    ours = fmknn.FMRegressor(solver="adam", n_iter=1, random_state=0).fit(only).params_
    theirs = fmknn.FMRegressor(solver=Adam.sagemaker(), random_state=0).fit(only).params_
    unseen = slice(n_users + 20, n_users + 40)
    assert not ours.V[unseen].any()
    assert not ours.w[unseen].any()
    assert theirs.V[unseen].all()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"mini_batch_size": 2.5}, "mini_batch_size must be an integer of at least 1"),
        ({"bias_lr": True}, "bias_lr must be a number"),
        ({"shuffle": "no"}, "shuffle must be True or False"),
        ({"bias_init_method": "constant", "bias_init_value": "3"}, "needs bias_init_value"),
        (
            {"factors_init_method": "uniform", "factors_init_scale": -1.0},
            "needs factors_init_scale",
        ),
        ({"lr_schedule": "cosine"}, "lr_schedule must be"),
        ({"damp_above": 0.0}, "damp_above must be above 0"),
        ({"factors_lr": -1.0}, "factors_lr must be a number of at least 0"),
        ({"linear_wd": float("nan")}, "linear_wd must be a number of at least 0"),
        ({"bias_init_method": "zeros"}, "bias_init_method must be one of"),
        ({"factors_init_method": "mean"}, "factors_init_method must be one of"),
        ({"factors_init_method": "uniform"}, "needs factors_init_scale"),
        ({"linear_init_method": "constant", "linear_init_value": None}, "needs linear_init_value"),
        ({"clip_gradient": -0.1}, "clip_gradient must be a number of at least 0"),
    ],
)
def test_bad_settings_are_named(settings_, message):
    with pytest.raises(ValueError, match=message):
        Adam(**settings_)


@pytest.mark.parametrize(
    ("method", "settings_", "check"),
    [
        (
            "uniform",
            {"factors_init_scale": 0.5},
            lambda V: (np.abs(V) <= 0.5).all() and V.std() > 0.2,
        ),
        ("constant", {"factors_init_value": 0.25}, lambda V: (V == 0.25).all()),
        ("normal", {"factors_init_sigma": 2.0}, lambda V: 1.5 < V.std() < 2.5),
    ],
)
def test_init_methods(ratings, method, settings_, check):
    config = Adam.sagemaker(factors_init_method=method, factors_lr=0.0, **settings_)
    model = fmknn.FMRegressor(solver=config, random_state=0, n_factors=8).fit(ratings)
    assert check(model.params_.V)


def test_classifier_starts_at_the_log_odds(ratings):
    labels = (ratings.values > np.quantile(ratings.values, 0.8)).astype(np.float32)
    rates = {f"{group}_lr": 0.0 for group in ("bias", "linear", "factors")}
    config = Adam(factors_init_sigma=0.0, **rates)
    model = fmknn.FMClassifier(solver=config, n_iter=1).fit(ratings.replace(values=labels))
    probability = model.predict_proba(ratings)[:, 1]
    np.testing.assert_allclose(probability, labels.mean(), rtol=1e-5)
