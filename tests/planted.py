"""Small data sets and trained recommenders that test files share; nothing here takes a second."""

from __future__ import annotations

import functools

import numpy as np
from textbook import Textbook

import fmknn
from fmknn import Adam, FeatureTable, FMRegressor, Interactions, Recommender

DAYS = ["fri", "mon", "sun"]
FLAVOURS = ["ids", "features", "context", "everything", "strings"]


def regressor(**settings):
    """A few strong factors: an FM whose pairs matter as much as its biases."""
    solver = Adam(
        epochs=6, factors_init_sigma=0.9, linear_lr=0.05, factors_lr=0.02, zero_unseen=False
    )
    return FMRegressor(5, solver=solver, random_state=0, **settings)


@functools.cache
def interactions(flavour="ids"):
    """26 users and 60 items in 400 rows; two users and three items occur in the tables only."""
    rng = np.random.default_rng(7)
    user_ids, item_ids = rng.permutation(26) * 3 + 100, rng.permutation(60) * 7 + 5
    users, items = rng.choice(user_ids[:24], 400), rng.choice(item_ids[:57], 400)
    name = (
        (lambda ids, what: [f"{what} {i}" for i in ids])
        if flavour == "strings"
        else (lambda ids, what: ids)
    )
    sides = {
        "user_features": FeatureTable(
            name(user_ids, "user"),
            {"age": rng.integers(18, 70, 26), "job": rng.choice(["cook", "nurse", "smith"], 26)},
            features=["age", "job"] if flavour in ("features", "everything") else [],
        ),
        "item_features": FeatureTable(
            name(item_ids, "item"),
            {
                "title": [f"title {i}" for i in item_ids],
                "tags": [
                    tuple(rng.choice(list("abcde"), rng.integers(0, 4), replace=False))
                    for _ in item_ids
                ],
            },
            features=["tags"] if flavour in ("features", "everything") else [],
        ),
    }
    context = {}
    if flavour in ("context", "everything"):
        context["day"] = rng.choice(DAYS, 400, p=[0.6, 0.3, 0.1])
    if flavour == "everything":
        context["hour"] = rng.integers(0, 4, 400)
    return Interactions.from_arrays(
        name(users, "user"), name(items, "item"), rng.integers(1, 6, 400), context=context, **sides
    )


@functools.cache
def trained(flavour="ids"):
    """The recommender of that flavour, behind the exact index. Not to be changed."""
    return Recommender(regressor()).fit(interactions(flavour))


@functools.cache
def textbook(flavour="ids"):
    """The same model by the formula."""
    return Textbook(interactions(flavour), trained(flavour).params_)


def some_context(flavour):
    """A context for every call on that flavour."""
    context = {"context": {"day": "mon"}, "everything": {"day": "sun", "hour": 2}}
    return context.get(flavour, {})


def same_answers(a, b):
    """Whether two TopN are the same to the last bit."""
    return (
        all(
            getattr(a, name).tobytes() == getattr(b, name).tobytes()
            for name in ("positions", "scores", "counts")
        )
        and a.users.tolist() == b.users.tolist()
        and a.items.tolist() == b.items.tolist()
    )


def clicks():
    """Two classes: whether the rating was above 3."""
    ratings = interactions("ids")
    return ratings.replace(values=(ratings.values > 3).astype(np.float32))


def classifier():
    return fmknn.FMClassifier(4, n_iter=8, random_state=0)
