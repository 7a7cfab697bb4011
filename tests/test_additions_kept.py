"""Models with newcomers: their index, their file, training that goes on, and what is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from growth_rig import (
    CLOSED_FORM,
    ESTIMATORS,
    FEATURES,
    OTHER,
    RANKERS,
    SIDES,
    add,
    added,
    answers,
    bits,
    everything_of,
    fitted,
    fresh,
    histories_of,
    late_ids,
    models,
    newcomers,
    parts,
    some_levels,
    takes_history,
    untouched,
    went_on,
)
from refusals import refused

import fmknn
from fmknn import FaissIndex, Interactions, Recommender
from fmknn.errors import UnknownIdError
from fmknn.serving.catalog import Catalog

every_model = models(ESTIMATORS)


# --- the index -----------------------------------------------------------------------------------

INDEXES = {
    "exact": "exact",
    "flat": FaissIndex("Flat"),
    "ivf": FaissIndex("IVF", nlist=4, nprobe=4),
    "hnsw": FaissIndex("HNSW"),
}


@pytest.mark.parametrize("which", ["als", "mcmc", "whole-data"])
@pytest.mark.parametrize("kind", INDEXES)
def test_the_index_is_added_to(kind, which, tmp_path):
    before = fitted(which, "features").with_index(INDEXES[kind])
    vectors = before.index_.vectors.copy()
    n_old = before.index_.n_items
    old = parts("features", which)[0]
    ids, table = newcomers("features", "item")
    model = copy.copy(before).add_items(
        table, histories=histories_of(which, "features", "item", ids)
    )
    assert type(model.index_) is type(before.index_) and before.index_.n_items == n_old
    np.testing.assert_array_equal(before.index_.vectors, vectors)
    assert model.index_.n_items == n_old + len(ids) == len(model.items)
    np.testing.assert_array_equal(model.index_.vectors[:n_old], vectors)
    users, exact = old.users.ids.tolist(), model.with_index("exact")
    everybody = exact.recommend(users, n=60)
    for n in (1, 7, 60):
        top = model.recommend(users, n=n)
        for user, row, count in zip(users, top.items.tolist(), top.counts.tolist(), strict=True):
            seen = model.seen_pairs([user] * len(model.items), model.items.ids)
            assert len(set(row[:count])) == count == min(n, int((~seen).sum()))
            assert not set(row[:count]) & set(model.items.ids[seen].tolist())
        known = {
            (user, item): score
            for user, items, scores in zip(
                users, everybody.items.tolist(), everybody.scores.tolist(), strict=True
            )
            for item, score in zip(items, scores, strict=True)
        }
        for place, user in enumerate(users):
            for item, score in zip(
                top.items[place, : top.counts[place]].tolist(),
                top.scores[place].tolist(),
                strict=False,
            ):
                assert score == known[user, item]
        if kind != "hnsw":
            assert top.items.tolist() == everybody.items[:, :n].tolist()
    assert set(ids) & set(model.recommend(users, n=5, candidates=ids).items[0].tolist())
    model.save(tmp_path / "model")
    loaded = fmknn.load(tmp_path / "model")
    top, own = (m.recommend(users, n=9) for m in (loaded, model))
    assert top.items.tolist() == own.items.tolist()
    assert top.scores.tobytes() == own.scores.tobytes()


def test_a_compressed_index_is_added_to():
    before = fitted("mcmc", "features").with_index("exact", compress=8)
    model = copy.copy(before).add_items(newcomers("features", "item")[1])
    users = parts("features")[0].users.ids.tolist()
    assert model.index_.n_items == len(model.items)
    exact = model.with_index("exact").recommend(users, n=9)
    top = model.recommend(users, n=9)
    shared = [
        len(set(a) & set(b)) for a, b in zip(top.items.tolist(), exact.items.tolist(), strict=True)
    ]
    assert np.mean(shared) > 8


# --- from a file, and on from there --------------------------------------------------------------


@every_model
@pytest.mark.parametrize("side", SIDES)
def test_a_model_with_newcomers_is_the_same_from_its_file(side, which, flavour, tmp_path):
    model, data = added(which, flavour, side), parts(flavour, which)[0]
    model.save(tmp_path / "model")
    loaded = fmknn.load(tmp_path / "model")
    assert bits(loaded) == bits(model)
    assert everything_of(loaded, data) == everything_of(model, data)
    late = late_ids(flavour)[side]
    known = getattr(data, f"{OTHER[side]}s").ids.tolist()
    pairs = {side: late, OTHER[side]: known}
    own = [answers(m, pairs["user"], pairs["item"], some_levels(data)) for m in (model, loaded)]
    assert own[0] == own[1]
    fitted(which, flavour).save(tmp_path / "before")
    ids, table = newcomers(flavour, side)
    histories = None
    if takes_history(which, flavour, side):
        histories = histories_of(which, flavour, side, ids)
    after = add(
        fmknn.load(tmp_path / "before"),
        side,
        table,
        histories=histories,
        context=some_levels(data),
    )
    assert bits(after) == bits(model)
    assert everything_of(after, data) == everything_of(model, data)


@every_model
def test_a_catalog_with_newcomers_is_sound(which, flavour):
    model = copy.copy(added(which, flavour, "user"))
    add(model, "item", newcomers(flavour, "item")[1])
    arrays, settings = model.catalog_.to_state()
    again = Catalog.from_state(arrays, json.loads(json.dumps(settings)))
    assert again.users == model.users and again.items == model.items
    n_columns = model.params_.n_features
    assert model.catalog_.user_rows.n_columns == model.catalog_.item_rows.n_columns == n_columns
    assert {encoder.n_features for encoder in model.catalog_.encoders.values()} == {n_columns}
    assert all(side.rows.n_columns == n_columns for side in model.catalog_.contexts.values())
    used = [model.catalog_.user_rows, model.catalog_.item_rows]
    used += [side.rows for side in model.catalog_.contexts.values()]
    columns = [set(rows.indices.tolist()) for rows in used]
    assert sum(map(len, columns)) == len(set().union(*columns))  # no block has another's


@every_model
@pytest.mark.parametrize("side", SIDES)
def test_training_goes_on_with_newcomers(side, which, flavour):
    model = copy.copy(added(which, flavour, side))
    old, new = parts(flavour, which)
    model.partial_fit(new)
    assert set(new.users.ids.tolist()) <= set(model.users.ids.tolist())
    assert set(new.items.ids.tolist()) <= set(model.items.ids.tolist())
    late = late_ids(flavour)[side]
    n_known = len(getattr(old, f"{side}s"))
    assert getattr(model, f"{side}s").ids.tolist()[n_known : n_known + len(late)] == late
    assert model.params_.n_features == model.catalog_.user_rows.n_columns
    assert np.isfinite(model.scores(new.user_ids, new.item_ids, some_levels(old))).all()
    other = late_ids(flavour)[OTHER[side]][0]
    asked = {side: [late[0]] * 1, OTHER[side]: [other]}
    assert model.seen_pairs(new.user_ids, new.item_ids).all()
    assert np.isfinite(model.predict(asked["user"], asked["item"], some_levels(old))).all()


@pytest.mark.parametrize("which", ESTIMATORS)
def test_training_begins_from_what_newcomers_were_given(which):
    model = copy.copy(added(which, "ids", "user"))
    before = model.params_
    nothing = parts("ids", which)[1].take([])
    model.partial_fit(nothing)  # brings items without a row
    assert set(late_ids("ids")["item"]) < set(model.items.ids.tolist())
    n_users = len(model.users)
    for own, now in zip(before.samples(), model.params_.samples(), strict=True):
        assert own.V[:n_users].tobytes() == now.V[:n_users].tobytes()
        assert own.w[:n_users].tobytes() == now.w[:n_users].tobytes()


@pytest.mark.parametrize("which", CLOSED_FORM)
@pytest.mark.parametrize("side", SIDES)
def test_newcomers_come_one_by_one_through_files(side, which, tmp_path):
    ids, table = newcomers("features", side)
    histories = histories_of(which, "features", side, ids)
    model = fresh(which, "features")
    for place in np.argsort(ids):  # ascending, as they are put
        own = {name: [column[place]] for name, column in table.items()}
        add(model, side, own, histories={i: h for i, h in histories.items() if i == ids[place]})
        model.save(tmp_path / "model")
        model = fmknn.load(tmp_path / "model")
    assert bits(model) == bits(added(which, "features", side))


def went_through_a_file(model, path):
    model.save(path)
    return fmknn.load(path)


@pytest.mark.parametrize("which", ["als", "adam"])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_newcomers_may_be_described_later(side, loaded, which, tmp_path):
    old, new = parts("features", which)
    ids = sorted(newcomers("features", side)[0])
    model = add(fresh(which, "features"), side, ids)
    model = went_through_a_file(model, tmp_path / "model") if loaded else model
    model.partial_fit(new, known=old)
    n_known = len(getattr(old, f"{side}s"))
    assert getattr(model, f"{side}s").ids.tolist()[n_known:] == ids
    rows = getattr(model.catalog_, f"{side}_rows")
    expected = getattr(went_on(which, "features").catalog_, f"{side}_rows")
    np.testing.assert_array_equal(rows.to_scipy().toarray(), expected.to_scipy().toarray())


@pytest.mark.parametrize("which", ["als", "adam", "bpr"])
@pytest.mark.parametrize("loaded", [False, True])
def test_labels_need_not_name_newcomers(loaded, which, tmp_path):
    old, new = parts("ids", which)
    assert old.user_features is not None and not old.user_features.features
    model = fresh(which).add_users([1, 2])
    model = went_through_a_file(model, tmp_path / "model") if loaded else model
    model.partial_fit(new, known=old)
    assert {1, 2} < set(model.users.ids.tolist())
    assert model.recommend([1], n=3).counts.tolist() == [3]


@pytest.mark.parametrize("kind", ["FMParams", "Posterior"])
def test_a_model_from_parameters_takes_newcomers(kind):
    old = parts("ids")[0]
    source = fitted("als" if kind == "FMParams" else "mcmc")
    rng = np.random.default_rng(4)
    users, items = rng.permutation(len(old.users)), rng.permutation(len(old.items))
    columns = np.concatenate([users, len(users) + items])
    state = dict(source.params_.to_state())
    state["w"], state["V"] = state["w"][..., columns], state["V"][..., columns, :]
    params = type(source.params_).from_state(state)
    model = Recommender.from_params(
        params, users=old.users.ids[users], items=old.items.ids[items], seen=old
    )
    before = everything_of(model, old)
    model.add_users([1, 2]).add_items([1, 6])
    assert everything_of(model, old)[:-3] == before[:-3]
    assert model.users.ids.tolist()[-2:] == [1, 2] and model.items.ids.tolist()[-2:] == [1, 6]
    assert model.recommend([2], n=5).counts.tolist() == [5]


def test_the_original_knows_nothing_of_it():
    model, other = fresh("als"), fitted("als").with_index("exact")
    model.add_users([1])
    assert 1 not in other.users.ids and 1 not in fitted("als").users.ids
    with refused(UnknownIdError, 1):
        other.recommend([1])


def test_answers_that_began_before_an_addition_stay_of_one_model():
    model = fresh("als")
    chunks = model.recommend_all(n=3, chunk=5)
    first = next(chunks)
    expected = fitted("als").recommend(model.users.ids, n=3)
    model.add_items(late_ids("ids")["item"]).add_users([1])
    items = np.concatenate([first.items, *(chunk.items for chunk in chunks)])
    np.testing.assert_array_equal(items, expected.items)
    assert len(next(model.recommend_all(n=3, chunk=100)).users) == len(model.users)


def test_added_people_are_measured():
    new = parts("ids")[1]
    model = added("als", "ids", "user")
    late = late_ids("ids")["user"]
    test = new.take(np.flatnonzero(np.isin(new.user_ids, late)))
    known = np.isin(test.item_ids, model.items.ids)
    result = model.evaluate(test, ["rmse", "recall@5"], allow_overlap=True)
    assert result.n_users == len(late) and result.n_rows == known.sum()
    assert result.n_unknown_rows == (~known).sum()
    silent = fresh("als").add_users(late).evaluate(test, ["rmse"])
    assert silent.n_cold_users == len(late) and silent.n_cold_rows == known.sum()


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_what_can_not_be_added(side):
    model, same = untouched("als", "features")
    old = parts("features")[0]
    known = getattr(old, f"{side}s").ids.tolist()
    partners = getattr(old, f"{OTHER[side]}s").ids.tolist()
    with refused(ValueError, side, known[3], "known"):
        add(model, side, [1, known[3]])
    with refused(ValueError, side, known[3], "known"):
        add(model, side, histories={known[3]: {partners[0]: 3.0}})
    with refused(ValueError, "1", "repeated"):
        add(model, side, [1, 2, 1])
    with refused(ValueError, 1):
        add(model, side, {side: [1, 1], FEATURES[side][0]: [[], []] if side == "item" else [3, 4]})
    with refused(ValueError, f"no {side} feature 'city'", ", ".join(FEATURES[side])):
        add(model, side, {side: [1], "city": ["Rome"]})
    with refused(ValueError, "history", 2, "not added"):
        add(model, side, [1], histories={2: {partners[0]: 3.0}})
    with refused(TypeError, side, "integers", "strings"):
        add(model, side, ["ann"])
    with refused(TypeError, "histories", "mapping"):
        add(model, side, [1], histories=[{partners[0]: 3.0}])
    with refused(UnknownIdError, OTHER[side], 2):
        add(model, side, [1], histories={1: {partners[0]: 3.0, 2: 4.0}})
    with refused(ValueError, "values"):
        add(model, side, [1], histories={1: [partners[0]]})
    with refused(TypeError, OTHER[side], "strings"):
        add(model, side, [1], histories={1: {"ann": 3.0}})
    with refused(ValueError, "unknown", "cold"):
        add(model, side, [1], unknown="cold")
    with refused(ValueError, "context"):
        add(model, side, [1], context={"day": "fri"})
    with refused(ValueError, "context_default", "best"):
        add(model, side, [1], context_default="best")
    with refused(ValueError, side, "ids"):
        add(model, side, {"age": [3]})
    with pytest.raises((TypeError, ValueError)) as caught:
        add(model, side)
    assert "\n" not in str(caught.value)
    assert same()


def test_features_that_can_not_be_used():
    model, same = untouched("als", "features")
    for table, error, words in (
        ({"job": ["pilot"]}, ValueError, ("'job'", "'pilot'", "'cook'")),
        ({"age": ["old"]}, TypeError, ("'age'", "'old'")),
        ({"age": [np.nan]}, ValueError, ("'age'",)),
        ({"age": [1e300]}, ValueError, ("'age'", "far out of range")),
        ({"job": [("cook",)]}, TypeError, ("'job'", "one level")),
        ({"job": [None]}, ValueError, ("'job'",)),
    ):
        with refused(error, *words):
            model.add_users({"user": [1], **table})
    with refused(ValueError, "'tags'", "'q'"):
        model.add_items({"item": [1], "tags": [["a", "q"]]})
    assert same()


def test_partners_that_are_unknown_are_left_out_on_request():
    items = parts("ids")[0].items.ids.tolist()
    history = {items[0]: 3.0, items[1]: 5.0}
    with_unknown, without = (
        fresh("als").add_users(histories={1: own}, unknown="skip")
        for own in ({**history, 2: 4.0}, history)
    )
    assert bits(with_unknown) == bits(without)
    assert with_unknown.n_training_rows([1]).tolist() == [2]


@pytest.mark.parametrize("which", [name for name in ESTIMATORS if name not in CLOSED_FORM])
@pytest.mark.parametrize("side", SIDES)
def test_histories_need_a_closed_form(side, which):
    model, same = untouched(which, "features")
    loss = "bpr" if which == "bpr" else which
    ids, table = newcomers("features", side)
    histories = histories_of(which, "features", side, ids)
    with refused(ValueError, loss, "closed form"):
        add(model, side, table, histories=histories)
    assert same()


def test_contexts_that_can_not_be_used():
    model, same = untouched("als", "context")
    items = parts("context")[0].items.ids.tolist()
    ask = {"histories": {1: {items[0]: 3.0}}}
    with refused(UnknownIdError, "day", "'tue'"):
        model.add_users(**ask, context={"day": "tue"})
    with refused(ValueError, "hour"):
        model.add_users(**ask, context={"hour": 2})
    with refused(ValueError, "day", "missing"):
        model.add_users(**ask, context_default="raise")
    with refused(ValueError, "context"):
        model.add_users(**ask, context={"day": ["fri", "sun"]})
    assert same()
    whole_data, same = untouched("whole-data", "context")
    users = parts("context", "whole-data")[0].users.ids.tolist()
    with refused(ValueError, "context"):
        whole_data.add_items(histories={1: users[:3]})
    assert same()


def test_before_fit_there_is_nothing_to_add_to():
    for side in SIDES:
        with refused(ValueError, "not fitted"):
            add(Recommender(), side, [1])


@pytest.mark.parametrize("which", RANKERS)
def test_an_empty_addition_changes_nothing(which):
    model, same = untouched(which, "ids")
    model.add_users([], histories={})
    model.add_items(np.empty(0, np.int64))
    assert same()


def test_a_history_too_far_from_the_training_leaves_the_model_as_it_was():
    old = parts("ids")[0]
    model = Recommender(ESTIMATORS["als"]).fit(old.replace(values=old.values * 1e-12))
    before = everything_of(model, old)
    with refused(ValueError, "history", "beyond float32"):
        model.add_users(histories={1: {old.items.ids[0]: 3e38}})
    assert everything_of(model, old) == before


def test_interactions_without_tables_take_newcomers_and_go_on():
    log = Interactions.from_arrays([1, 1, 2, 3], [7, 8, 8, 9], [5.0, 1.0, 4.0, 2.0])
    model = Recommender(ESTIMATORS["als"]).fit(log)
    model.add_users(histories={9: {7: 5.0}}).add_items([4], histories={4: {9: 3.0}})
    assert model.users.ids.tolist() == [1, 2, 3, 9] and model.items.ids.tolist() == [7, 8, 9, 4]
    assert model.recommend([9], n=5).items[0].tolist().count(4) == 0
    model.partial_fit(Interactions.from_arrays([9, 5], [4, 7], [3.0, 2.0]))
    assert model.users.ids.tolist() == [1, 2, 3, 9, 5]
    assert model.seen_pairs([9, 9, 5, 5], [4, 7, 7, 8]).tolist() == [True, True, True, False]
