"""Stop and resume with callbacks that remember: the same bits as never having stopped."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fmknn
from fmknn import Adam
from fmknn.solvers.callbacks import load_checkpoint


@pytest.fixture(scope="module")
def ratings():
    return fmknn.datasets.make_interactions(
        n_users=60, n_items=40, n_ratings=1200, context=3, random_state=1
    )[0]


def same_model(a, b) -> bool:
    return a.w0 == b.w0 and np.array_equal(a.w, b.w) and np.array_equal(a.V, b.V)


def stop_at(iteration):
    return lambda step: step.iteration == iteration


@pytest.fixture(scope="module")
def overfitting(ratings):
    """Settings, training and validation rows: the best epoch is the fourth, the end the seventh."""
    train, validation = fmknn.splits.random(ratings, test=0.2, random_state=0)
    config = Adam(epochs=40, factors_lr=0.03, linear_lr=0.03, factors_wd=0.0)
    return {"solver": config, "random_state": 0}, train, validation


@pytest.mark.parametrize("saver_first", [False, True])
@pytest.mark.parametrize("resumed_saver_first", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_stop_and_resume_with_early_stopping_give_the_same_bits(
    overfitting, tmp_path, stop, saver_first, resumed_saver_first
):
    options, train, validation = overfitting
    stopping = fmknn.EarlyStopping(validation, patience=3)
    whole = fmknn.FMRegressor(callbacks=[stopping], **options).fit(train)
    assert whole.n_iter_ == 7 and np.argmin(stopping.scores_) == 3  # stops fall on both sides

    def callbacks(stopping, saver_first):
        pair = [stopping, fmknn.Checkpoint(tmp_path / "c")]
        return pair[::-1] if saver_first else pair

    half = callbacks(fmknn.EarlyStopping(validation, patience=3), saver_first)
    fmknn.FMRegressor(callbacks=[*half, stop_at(stop)], **options).fit(train)
    again = fmknn.EarlyStopping(validation, patience=3)
    resumed = fmknn.FMRegressor(callbacks=callbacks(again, resumed_saver_first), **options)
    resumed.fit(train, start=tmp_path / "c")
    assert resumed.n_iter_ == whole.n_iter_ - stop
    assert again.scores_ == stopping.scores_
    assert same_model(resumed.params_, whole.params_)


def test_a_checkpoint_between_its_saves_holds_the_early_stopping_of_its_epoch(
    overfitting, tmp_path
):
    """A training that dies leaves the checkpoint of an earlier epoch, with all that was then."""
    options, train, validation = overfitting

    def die(step):
        if step.iteration == 5:
            raise KeyboardInterrupt

    first = fmknn.EarlyStopping(validation, patience=3)
    callbacks = [fmknn.Checkpoint(tmp_path / "c", every=4), die, first]
    with pytest.raises(KeyboardInterrupt):
        fmknn.FMRegressor(callbacks=callbacks, **options).fit(train)
    again = fmknn.EarlyStopping(validation, patience=3)
    resumed = fmknn.FMRegressor(callbacks=[again], **options).fit(train, start=tmp_path / "c")
    whole_stopping = fmknn.EarlyStopping(validation, patience=3)
    whole = fmknn.FMRegressor(callbacks=[whole_stopping], **options).fit(train)
    assert again.scores_ == whole_stopping.scores_
    assert same_model(resumed.params_, whole.params_)


def test_a_training_that_early_stopping_ended_stays_ended(overfitting, tmp_path):
    options, train, validation = overfitting
    path = tmp_path / "c"
    callbacks = [fmknn.EarlyStopping(validation, patience=3), fmknn.Checkpoint(path)]
    whole = fmknn.FMRegressor(callbacks=callbacks, **options).fit(train)
    ended = path.read_bytes()
    again = fmknn.FMRegressor(callbacks=callbacks, **options).fit(train, start=path)
    assert again.n_iter_ == 0
    assert same_model(again.params_, whole.params_)
    assert path.read_bytes() == ended
    patient = fmknn.EarlyStopping(validation, patience=5)
    longer = fmknn.FMRegressor(callbacks=[patient], **options).fit(train, start=path)
    assert longer.n_iter_ == 2 and len(patient.scores_) == 9


def test_early_stopping_begins_anew_from_a_checkpoint_without_it(overfitting, tmp_path):
    options, train, validation = overfitting
    callbacks = [fmknn.Checkpoint(tmp_path / "c"), stop_at(2)]
    fmknn.FMRegressor(callbacks=callbacks, **options).fit(train)
    stopping = fmknn.EarlyStopping(validation, patience=3)
    model = fmknn.FMRegressor(callbacks=[stopping], **options).fit(train, start=tmp_path / "c")
    assert model.n_iter_ == len(stopping.scores_) == 5  # epochs 3 to 7


def test_a_checkpoint_with_early_stopping_resumes_without_it(overfitting, tmp_path):
    options, train, validation = overfitting
    options, path = {**options, "n_iter": 4}, tmp_path / "c"
    callbacks = [fmknn.EarlyStopping(validation), fmknn.Checkpoint(path), stop_at(2)]
    fmknn.FMRegressor(callbacks=callbacks, **options).fit(train)
    whole = fmknn.FMRegressor(**options).fit(train)
    assert same_model(fmknn.FMRegressor(**options).fit(train, start=path).params_, whole.params_)


def checkpoint_with_early_stopping(overfitting, path):
    options, train, validation = overfitting
    callbacks = [fmknn.EarlyStopping(validation), fmknn.Checkpoint(path), stop_at(2)]
    fmknn.FMRegressor(callbacks=callbacks, **options).fit(train)
    return load_checkpoint(path)


def test_the_scores_of_other_validation_rows_are_refused(overfitting, tmp_path):
    options, train, validation = overfitting
    start = checkpoint_with_early_stopping(overfitting, tmp_path / "c")
    stopping = fmknn.EarlyStopping(validation.take(np.arange(50)))
    with refused(ValueError, "EarlyStopping", "other validation rows"):
        fmknn.FMRegressor(callbacks=[stopping], **options).fit(train, start=start)


PREFIX = "callbacks/EarlyStopping0/"


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("scores", None, "scores"),
        ("V", None, "V"),
        ("scores", lambda old: np.array([]), "scores"),
        ("scores", lambda old: old[:, None], "scores"),
        ("scores", lambda old: np.array([old.min(), np.nan]), "scores"),
        ("scores", lambda old: np.array([old.min(), np.inf]), "scores"),
        ("scores", lambda old: old.astype(str).astype(object), "scores"),
        ("scores", lambda old: old + 1.0, "other validation rows"),
        ("w0", lambda old: np.array(np.nan), "w0"),
        ("w0", lambda old: np.zeros(2), "w0"),
        ("w", lambda old: old[1:], "w of shape"),
        ("V", lambda old: old[:, :-1], "V of shape"),
        ("V", lambda old: old * np.nan, "NaN"),
        ("V", lambda old: old + 1.0, "other validation rows"),
        ("w", lambda old: old.astype(int), "float"),
        ("more", lambda old: np.zeros(1), "more"),
    ],
)
def test_an_early_stopping_that_does_not_fit_is_refused(overfitting, tmp_path, name, change, word):
    options, train, validation = overfitting
    start = checkpoint_with_early_stopping(overfitting, tmp_path / "c")
    old = start.pop(PREFIX + name, None)
    if change is not None:
        start[PREFIX + name] = change(old)
    model = fmknn.FMRegressor(callbacks=[fmknn.EarlyStopping(validation)], **options)
    with refused(ValueError, "EarlyStopping", word):
        model.fit(train, start=start)
    assert not hasattr(model, "params_")


def test_any_callback_with_state_and_restore_is_part_of_a_checkpoint(ratings, tmp_path):
    class Counter:
        def __init__(self):
            self.n = 0

        def __call__(self, step):
            self.n += 1

        def state(self):
            return {"n": np.array(self.n)}

        def restore(self, state, model):
            self.n = int(state["n"])

    def fit(*callbacks, **how):
        return fmknn.FMRegressor(n_iter=5, random_state=0, callbacks=callbacks).fit(ratings, **how)

    one, other, path = Counter(), Counter(), tmp_path / "c"
    other.n = 10
    fit(fmknn.Checkpoint(path), one, other, stop_at(3))
    one, other = Counter(), Counter()
    model = fit(one, other, start=path)
    assert (one.n, other.n) == (5, 15)
    assert not any(name.startswith("callbacks/") for name in model.state_)


def test_a_callback_may_have_a_state_of_its_own_kind(ratings, tmp_path):
    class Named:
        state = "running"

        def __call__(self, step):
            pass

    callbacks = [Named(), fmknn.Checkpoint(tmp_path / "c")]
    fmknn.FMRegressor(n_iter=1, callbacks=callbacks).fit(ratings)
    assert (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", [fmknn.FMRegressor, fmknn.FMClassifier])
def test_early_stopping_weighs_the_validation_rows(ratings, kind):
    """A row of weight 2 is the row twice, one of weight 0 no row."""
    if kind is fmknn.FMClassifier:
        ratings = ratings.replace(values=ratings.values > np.median(ratings.values))
    train, validation = fmknn.splits.random(ratings, test=0.2, random_state=0)
    copies = np.random.default_rng(0).integers(0, 3, len(validation))
    weighted = fmknn.EarlyStopping(validation.replace(weights=copies.astype(np.float32)))
    repeated = fmknn.EarlyStopping(validation.take(np.repeat(np.arange(len(validation)), copies)))
    plain = fmknn.EarlyStopping(validation)
    kind(n_iter=3, random_state=0, callbacks=[weighted, repeated, plain]).fit(train)
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-12)
    assert abs(weighted.scores_[0] - plain.scores_[0]) > 1e-6
