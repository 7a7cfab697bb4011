"""partial_fit of a ranker: what it keeps, what it learns, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fmknn
from fmknn import FMRanker, Interactions


def ranker(**settings):
    return FMRanker(4, solver="bpr", n_iter=8, random_state=0, **settings)


def log(seed=0, first=0, n=200, **columns):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(first, first + 20, n), rng.integers(first, first + 15, n)
    return Interactions.from_arrays(users, items, **columns)


def of_id(fitted, name, key):
    ids = fitted.ids_
    before = sum(len(ids[other]) for other in list(ids)[: list(ids).index(name)])
    place = before + int(ids[name].positions([key])[0])
    return fitted.params_.w[place], fitted.params_.V[place]


def test_the_first_one_is_a_fit():
    data = log()
    one, other = ranker().partial_fit(data), ranker().fit(data)
    assert (one.params_.V == other.params_.V).all()


@pytest.mark.parametrize("context", [False, True])
def test_who_is_not_in_the_new_rows_keeps_their_parameters(context):
    def with_context(data, levels):
        if not context:
            return data
        index = np.arange(len(data)) % len(levels)
        return Interactions.from_arrays(
            data.user_ids, data.item_ids, context={"day": np.array(levels)[index]}
        )

    fitted = ranker().fit(with_context(log(), ["fri", "sat"]))
    before = {user: of_id(fitted, "user", user) for user in (3, 17)}
    items = set(fitted.ids_["item"].ids.tolist())
    new = with_context(log(seed=1, first=18), ["sat", "sun"])
    fitted.partial_fit(new)
    for user, (w, v) in before.items():
        got_w, got_v = of_id(fitted, "user", user)
        assert got_w == w and (got_v == v).all()
    assert set(fitted.ids_["item"].ids.tolist()) == items | set(new.item_ids.tolist())
    assert of_id(fitted, "user", 30)[1].any()
    assert fitted.n_features_in_ == sum(map(len, fitted.ids_.values()))


def test_new_rows_are_learned_and_the_same_ones_give_the_same_bits():
    new = Interactions.from_arrays([100] * 6, [0, 1, 2, 3, 4, 5])
    fits = [ranker().fit(log()).partial_fit(new) for _ in range(2)]
    assert (fits[0].params_.V == fits[1].params_.V).all()
    ids = fits[0].ids_
    model = fmknn.Recommender.from_params(
        fits[0].params_, users=ids["user"].ids, items=ids["item"].ids, loss="bpr"
    )
    top = model.recommend([100], n=6).items[0].tolist()
    assert len(set(top) & {0, 1, 2, 3, 4, 5}) >= 4


def test_a_split_may_go_on_with_its_features():
    data = log().replace(user_features={"id": np.arange(20), "age": np.arange(20.0)})
    before, after = fmknn.splits.random(data, test=0.5, random_state=0)
    fitted = ranker().fit(before)
    V = fitted.params_.V
    assert (fitted.partial_fit(after).params_.V != V).any()


def test_what_is_refused():
    with refused(ValueError, "partial_fit", "bpr"):
        FMRanker().partial_fit(log())
    fitted = ranker().fit(log())
    V = fitted.params_.V
    with refused(TypeError, "Interactions"):
        fitted.partial_fit([[1, 2]])
    with refused(ValueError, "contexts", "day"):
        fitted.partial_fit(log(context={"day": np.arange(200) % 2}))
    with refused(ValueError, "feature tables"):
        fitted.partial_fit(log(user_features={"id": np.arange(40), "age": np.arange(40.0)}))
    with refused(TypeError, "user"):
        fitted.partial_fit(Interactions.from_arrays(["ann"], [1]))
    assert fitted.params_.V is V
    with refused(ValueError, "not fitted"):
        _ = ranker().ids_


def test_a_loaded_one_has_nothing_to_go_on_from(tmp_path):
    model = fmknn.Recommender(ranker()).fit(log())
    model.save(tmp_path / "model")
    with refused(ValueError, "loaded"):
        fmknn.load(tmp_path / "model").estimator_.partial_fit(log())
