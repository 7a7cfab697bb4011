"""The whole road of AWS's post on MovieLens 100K, through the SageMaker backend and here."""

from __future__ import annotations

import numpy as np
import pytest
import test_sagemaker_log as public_log
from realdata import movielens
from sagemaker_emulator import Emulator
from sagemaker_rig import LocalFrom, backend_of, require_nothing_running, start_values

import fmknn

pytestmark = [pytest.mark.server, pytest.mark.slow]

parts = public_log.parts
WELL_KNOWN = {
    "Casablanca", "Godfather, The", "One Flew Over the Cuckoo's Nest", "Schindler's List",
    "Shawshank Redemption, The", "Silence of the Lambs, The", "Star Wars", "Titanic",
    "To Kill a Mockingbird", "Vertigo", "Good Will Hunting", "Rear Window", "L.A. Confidential",
    "Third Man, The", "Lawrence of Arabia", "Citizen Kane", "North by Northwest",
}  # fmt: skip


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def models(emulator):
    """Fitted here, there, and there with its search, from the same initial values."""
    train, _ = movielens(fold="ua")
    train = train.without_features().replace(values=(train.values >= 4).astype(np.float32))
    model = fmknn.FMClassifier(64, solver=fmknn.Adam.sagemaker(epochs=30), random_state=0)
    emulator.initial = start_values(943 + 1682, 64)
    emulator.initial["V"] *= np.float32(0.01)
    here = fmknn.Recommender(model, backend=LocalFrom(emulator.initial)).fit(train)
    there = fmknn.Recommender(model, backend=backend_of(emulator, run_id="ml")).fit(train)
    searched = fmknn.Recommender(
        model, backend=backend_of(emulator, run_id="ml", search="sagemaker")
    ).fit(train)
    yield here, there, searched
    require_nothing_running(emulator)


def test_same_lists_and_scores_as_here(models):
    here, there, _ = models
    np.testing.assert_allclose(there.params_.V, here.params_.V, atol=1e-4)
    a, b = (model.recommend(model.users.ids, 100) for model in (here, there))
    assert a.items.shape == (943, 100)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    assert (a.items == b.items).all()


def test_search_there_gives_the_lists_of_search_here(models):
    _, there, searched = models
    a, b = (model.recommend(model.users.ids, 100) for model in (there, searched))
    assert (a.items == b.items).all()
    assert (a.scores == b.scores).all()


def test_user_1_gets_well_known_films(models):
    _, there, _ = models
    films = movielens("100k").item_features
    titles = [films.row(film)["title"] for film in there.recommend([1], 20).items[0]]
    assert len(WELL_KNOWN & set(titles)) >= 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_public_log_through_the_backend(emulator, parts, seed):
    train, test = parts
    emulator.initial, emulator.seed = None, seed
    config = fmknn.Adam.sagemaker(epochs=30, mini_batch_size=200)
    model = fmknn.FMClassifier(64, solver=config)
    backend = backend_of(emulator)
    model.fit(train, solver=backend.solver(model.solver_spec()))
    for epoch, logged in public_log.LOG.items():
        band = 0.0005 if epoch == 0 else 0.001
        assert model.history_[epoch]["loss"] == pytest.approx(logged, abs=band), epoch
    probability = model.predict_proba(test)[:, 1]
    cross_entropy = -np.mean(np.log(np.where(test.values == 1, probability, 1 - probability)))
    assert cross_entropy == pytest.approx(public_log.TEST_CROSS_ENTROPY, abs=0.0015)
    assert model.score(test) == pytest.approx(public_log.TEST_ACCURACY, abs=0.006)
