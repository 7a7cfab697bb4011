"""One model, asked the same on every backend: the same lists, and scores to 1e-5.

This machine, Amazon SageMaker's algorithms (its emulator) and Apache Spark (two executors).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import spark_rig
from sagemaker_emulator import Emulator
from sagemaker_rig import backend_of

import fmknn

pytestmark = pytest.mark.server

N = 6


def _ids() -> fmknn.Recommender:
    """Parameters from elsewhere, of ids alone, with what was seen."""
    rng = np.random.default_rng(0)
    users, items = [f"u{number}" for number in range(25)], np.arange(100, 140)
    params = fmknn.FMParams(3.0, rng.normal(0, 0.3, 65), rng.normal(0, 0.5, (65, 5)))
    seen = [users[user] for user in rng.integers(25, size=200)], rng.choice(items, 200)
    return fmknn.Recommender.from_params(params, users=users, items=items, seen=seen)


def _features() -> fmknn.Recommender:
    """Ids, features of users and items, and a context."""
    data, _ = fmknn.datasets.make_interactions(
        n_users=25, n_items=40, n_ratings=300, context=3, random_state=0
    )
    return fmknn.Recommender(fmknn.FMRegressor(4, solver="als", n_iter=2, random_state=0)).fit(data)


def _posterior() -> fmknn.Recommender:
    """Samples of a model, side by side."""
    data, _ = fmknn.datasets.make_interactions(
        n_users=25, n_items=40, n_ratings=300, context=3, random_state=1
    )
    estimator = fmknn.FMRegressor(3, solver="mcmc", n_iter=6, random_state=0)
    return fmknn.Recommender(estimator).fit(data)


MODELS = {"ids": _ids, "features": _features, "posterior": _posterior}


def _strangers(model) -> list:
    return ["nobody", "u3"] if model.users.ids.dtype == object else [-7, 3]


def _levels(model, users) -> dict:
    return {name: np.resize(ids.ids, len(users)) for name, ids in model.contexts.items()}


REQUESTS = {  # name -> from a model to users and options
    "plain": lambda m: (m.users.ids, {}),
    "seen": lambda m: (m.users.ids[:9], {"exclude_seen": False}),
    "exclude": lambda m: (
        m.users.ids[:9],
        {
            "exclude": {
                user: m.items.ids[place : 30 + place] for place, user in enumerate(m.users.ids)
            }
        },
    ),
    "candidates": lambda m: (m.users.ids[:9], {"candidates": m.items.ids[::4]}),
    "too few": lambda m: (
        m.users.ids[:9],
        {"candidates": m.items.ids[:9], "exclude_items": m.items.ids[4:]},
    ),
    "exclude_items": lambda m: (m.users.ids[:9], {"exclude_items": m.items.ids[::3]}),
    "levels": lambda m: (m.users.ids[:9], {"context": _levels(m, m.users.ids[:9])}),
    "a level": lambda m: (m.users.ids[:9], {"context": _levels(m, [0])}),
    "no level": lambda m: (m.users.ids[:9], {"context_default": "zero"}),
    "cold": lambda m: (_strangers(m), {"unknown": "cold"}),
    "skip": lambda m: (_strangers(m), {"unknown": "skip"}),
    "popularity": lambda m: (m.users.ids[:9], {"popularity": 0.25}),
}


@pytest.fixture(scope="module")
def models() -> dict:
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def elsewhere(request, models, tmp_path_factory):
    """The same models on another backend, each moved there once."""
    if request.param == "spark":
        spark = spark_rig.session(request.config, tmp_path_factory.mktemp("spark"))
        backend = fmknn.SparkBackend(spark)
        yield {name: model.with_backend(backend) for name, model in models.items()}
        return
    with Emulator() as emulator:
        yield {
            name: model.with_backend(backend_of(emulator, search="sagemaker", run_id=name))
            for name, model in models.items()
        }


def lists_of(model, users, options) -> dict:
    """The list of each user that has one, from whatever recommend_all gives."""
    answer = model.recommend_all(N, users=users, **options)
    if hasattr(answer, "collect"):
        found = defaultdict(list)
        for row in sorted(answer.collect(), key=lambda row: row["rank"]):
            found[row["user"]].append((row["item"], row["score"]))
        return dict(found)
    return {user: pairs for top in answer for user, pairs in top if pairs}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("elsewhere", ["sagemaker", "spark"], indirect=True)
def test_the_same_lists(models, elsewhere, model_name, request_name):
    users, options = REQUESTS[request_name](models[model_name])
    options = {"context_default": "mean", **options}
    here = lists_of(models[model_name], users, options)
    there = lists_of(elsewhere[model_name], users, options)
    assert here and there.keys() == here.keys()
    for user, pairs in here.items():
        assert [item for item, _ in there[user]] == [item for item, _ in pairs]
        scores, want = ([score for _, score in one] for one in (there[user], pairs))
        np.testing.assert_allclose(scores, want, atol=1e-5)


@pytest.mark.parametrize("elsewhere", ["sagemaker", "spark"], indirect=True)
def test_strangers_are_refused(models, elsewhere):
    for name, model in elsewhere.items():
        with pytest.raises(fmknn.errors.UnknownIdError, match=str(_strangers(models[name])[0])):
            lists_of(model, _strangers(model), {"context_default": "mean"})
