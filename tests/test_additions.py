"""add_users and add_items: newcomers get what fold-in solves, and nobody else notices."""

from __future__ import annotations

import copy

import naive
import numpy as np
import pandas
import polars
import pyarrow
import pytest
from growth_rig import (
    CLOSED_FORM,
    ESTIMATORS,
    FEATURES,
    FLAVOURS,
    SIDES,
    add,
    added,
    answers,
    bits,
    column_names,
    everything_of,
    features_of,
    fitted,
    fresh,
    histories_of,
    in_order,
    late_ids,
    models,
    newcomers,
    parts,
    some_levels,
    takes_history,
    whole,
)

import fmknn
from fmknn import FeatureTable, Recommender

every_model = models(ESTIMATORS)
closed_forms = models(CLOSED_FORM)


# --- what newcomers get --------------------------------------------------------------------------


@every_model
def test_an_added_user_gets_the_lists_of_fold_in(which, flavour):
    before, model = fitted(which, flavour), added(which, flavour, "user")
    ids, _ = newcomers(flavour, "user")
    context = some_levels(parts(flavour, which)[0])
    histories = histories_of(which, flavour, "user", ids)
    assert len(histories) == len(ids)
    n = len(before.items)
    for id_ in ids:
        history = histories[id_] if takes_history(which, flavour, "user") else None
        ask = {"features": features_of(flavour, "user", id_), "context": context, "n": n}
        expected = before.recommend_for(history=history, exclude_seen=False, **ask)
        got = model.recommend([id_], n, context=context, exclude_seen=False)
        items, scores, predictions = in_order(got)
        items_expected, scores_expected, predictions_expected = in_order(expected)
        assert items == items_expected
        np.testing.assert_allclose(scores, scores_expected, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(predictions, predictions_expected, rtol=1e-5, atol=2e-6)
        unseen = model.recommend([id_], n, context=context)
        assert set(unseen.items[0, : unseen.counts[0]].tolist()) == set(items) - set(history or ())
        assert model.n_training_rows([id_])[0] == len(history or ())


@every_model
def test_an_added_item_gets_the_scores_of_fold_in(which, flavour):
    before, model = fitted(which, flavour), added(which, flavour, "item")
    ids, _ = newcomers(flavour, "item")
    context = some_levels(parts(flavour, which)[0])
    histories = histories_of(which, flavour, "item", ids)
    users = before.users.ids.tolist()
    for id_ in ids:
        history = histories.get(id_) if takes_history(which, flavour, "item") else None
        expected = before.users_for(
            history=history,
            features=features_of(flavour, "item", id_),
            context=context,
            n=len(users),
            exclude_seen=False,
        )
        own, scores, predictions = in_order(expected)
        assert own == sorted(users)
        got = model.scores(own, [id_] * len(own), context)
        np.testing.assert_allclose(got, scores, rtol=1e-5, atol=2e-6)
        got = model.predict(own, [id_] * len(own), context)
        np.testing.assert_allclose(got, predictions, rtol=1e-5, atol=2e-6)
        seen = model.seen_pairs(own, [id_] * len(own))
        assert [user for user, met in zip(own, seen, strict=True) if met] == sorted(history or ())
        top = model.recommend(own, n=1, candidates=[id_], context=context)
        assert (top.counts == 1 - seen).all()


@models(["als", "mcmc", "adam", "whole-data", "bpr"], [f for f in FLAVOURS if f != "histories"])
def test_scores_are_the_textbooks_on_rows_written_out(which, flavour):
    model = copy.copy(added(which, flavour, "user"))
    add(model, "item", newcomers(flavour, "item")[1])
    old = parts(flavour, which)[0]
    tables = {}
    for side in SIDES:
        ids = getattr(model, f"{side}s").ids.tolist()
        features = [features_of(flavour, side, id_) for id_ in ids]
        tables[side] = ids, features
    names = names_of(old, tables)
    place = {name: column for column, name in enumerate(names)}
    assert model.params_.n_features == len(names)
    context = some_levels(old)
    late = [(u, i) for u in late_ids(flavour)["user"] for i in late_ids(flavour)["item"]]
    for user, item in late[:8]:
        row = [(place[name], value) for name, value in row_of(old, user, item, context)]
        expected = np.mean(
            [naive.sparse_score(s.w0, s.w, s.V, row) for s in model.params_.samples()]
        )
        got = model.scores([user], [item], context)[0]
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)


def names_of(old, tables):
    """Columns by their names: those of the old rows, more ids behind the ids of either side."""
    names = column_names(old)
    for side in SIDES:
        known = len(getattr(old, f"{side}s"))
        more = [f"{side}={id_}" for id_ in tables[side][0][known:]]
        at = names.index(f"{side}={tables[side][0][known - 1]}") + 1
        names[at:at] = more
    return names


def row_of(old, user, item, context):
    """A row by the names of its columns, without any encoding of fmknn's own."""
    entries = []
    for side, id_ in (("user", user), ("item", item)):
        entries.append((f"{side}={id_}", 1.0))
        table = getattr(old, f"{side}_features")
        features = getattr(whole_of(old), f"{side}_features").row(id_)
        for name in table.features:
            value = features[name]
            if isinstance(value, tuple):
                entries += [(f"{side}:{name}={v}", len(value) ** -0.5) for v in value]
            elif isinstance(value, str):
                entries.append((f"{side}:{name}={value}", 1.0))
            else:
                known = [int(v) for v in table[name]]
                entries.append((f"{side}:{name}", (value - np.mean(known)) / np.std(known)))
    return entries + [(f"{name}={level}", 1.0) for name, level in context.items()]


def whole_of(old):
    for flavour in FLAVOURS:
        for which in ESTIMATORS:
            if parts(flavour, which)[0] is old:
                return whole(flavour)
    raise AssertionError("not one of the parts")


@every_model
def test_nobody_of_whom_nothing_is_known_is_the_mean_of_the_prior(which, flavour):
    user, item = (late_ids(flavour)[side][0] for side in SIDES)
    model = fresh(which, flavour).add_users([user])
    context = some_levels(parts(flavour, which)[0])
    n = len(model.items)
    expected = fitted(which, flavour).recommend_for(n=n, context=context)
    got = model.recommend([user], n, context=context)
    assert in_order(got)[0] == in_order(expected)[0]
    np.testing.assert_allclose(in_order(got)[1], in_order(expected)[1], rtol=1e-5, atol=2e-6)
    model.add_items([item])
    users = fitted(which, flavour).users.ids.tolist()
    expected = fitted(which, flavour).users_for(n=len(users), context=context)
    own, scores, _ = in_order(expected)
    got = model.scores(own, [item] * len(own), context)
    np.testing.assert_allclose(got, scores, rtol=1e-5, atol=2e-6)


# --- what others get -----------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("side", SIDES)
def test_no_other_answer_changes(side, which, flavour):
    before, old = fitted(which, flavour), parts(flavour, which)[0]
    expected = everything_of(before, old)
    model = add(fresh(which, flavour), side, newcomers(flavour, side)[1])
    users, items, context = old.users.ids.tolist(), old.items.ids.tolist(), some_levels(old)
    assert answers(model, users, items, context) == answers(before, users, items, context)
    history = {items[3]: 4.0, items[9]: 1.0}
    if which in CLOSED_FORM:
        tops = [
            m.recommend_for(history=history, n=9, candidates=items, context=context)
            for m in (before, model)
        ]
        assert tops[0].scores.tobytes() == tops[1].scores.tobytes()
    for item in items[:3]:
        tops = [
            m.users_for_item(item, n=9, candidates=users, context=context) for m in (before, model)
        ]
        assert tops[0].scores.tobytes() == tops[1].scores.tobytes()
    explained = [m.explain(users[0], items[0], context=context).to_dict() for m in (before, model)]
    assert explained[0] == explained[1]
    n_old = len(getattr(before, f"{side}s"))
    assert (
        getattr(model, f"{side}s").ids[:n_old].tolist() == getattr(before, f"{side}s").ids.tolist()
    )
    assert getattr(model, f"{side}s").ids[n_old:].tolist() == late_ids(flavour)[side]
    assert everything_of(before, old) == expected  # whom the copy was made of


@closed_forms
@pytest.mark.parametrize("side", SIDES)
def test_a_history_of_a_newcomer_changes_no_score_of_the_others(side, which, flavour):
    before, model = fitted(which, flavour), added(which, flavour, side)
    old = parts(flavour, which)[0]
    users, items, context = old.users.ids.tolist(), old.items.ids.tolist(), some_levels(old)
    ask = {"candidates": items, "context": context}
    tops = [m.recommend(users, len(items), **ask) for m in (before, model)]
    assert tops[0].scores.tobytes() == tops[1].scores.tobytes()
    assert tops[0].items.tolist() == tops[1].items.tolist()
    assert model.n_training_rows(users).tolist() >= before.n_training_rows(users).tolist()


@pytest.mark.parametrize("which", CLOSED_FORM)
@pytest.mark.parametrize("side", SIDES)
def test_a_history_of_a_newcomer_changes_no_fold_in(side, which):
    before, model = fitted(which, "features"), added(which, "features", side)
    old = parts("features", which)[0]
    users, items = old.users.ids.tolist(), old.items.ids.tolist()
    of_user = {items[3]: 4.0, items[9]: 1.0}
    of_item = {users[3]: 4.0, users[9]: 1.0}
    for name, history, candidates in (
        ("recommend_for", of_user, items),
        ("users_for", of_item, users),
    ):
        tops = [
            getattr(m, name)(history=history, n=60, candidates=candidates) for m in (before, model)
        ]
        assert tops[0].items.tolist() == tops[1].items.tolist()
        assert tops[0].scores.tobytes() == tops[1].scores.tobytes()


# --- in which steps, in which form ---------------------------------------------------------------


@every_model
@pytest.mark.parametrize("side", SIDES)
def test_one_by_one_is_all_at_once(side, which, flavour):
    ids, table = newcomers(flavour, side)
    context = some_levels(parts(flavour, which)[0])
    histories = {}
    if takes_history(which, flavour, side):
        histories = histories_of(which, flavour, side, ids)
    model = fresh(which, flavour)
    for place in np.argsort(ids):  # ascending, as they are put
        own = {name: [column[place]] for name, column in table.items()}
        history = {ids[place]: histories[ids[place]]} if ids[place] in histories else None
        add(model, side, own, histories=history, context=context)
    at_once = added(which, flavour, side)
    assert bits(model) == bits(at_once)
    assert model.users == at_once.users and model.items == at_once.items
    data = parts(flavour, which)[0]
    assert everything_of(model, data) == everything_of(at_once, data)


def forms_of(columns, side):
    table = {name: list(column) for name, column in columns.items()}
    yield table
    yield pandas.DataFrame(table)
    yield polars.DataFrame(table)
    yield pyarrow.table(table)
    yield {f"{side}_id": table.pop(side), **table}
    ids = columns[side]
    yield FeatureTable(ids, {name: columns[name] for name in columns if name != side})
    reversed_ = {name: list(column)[::-1] for name, column in columns.items()}
    yield pandas.DataFrame(reversed_, index=np.arange(len(ids)) * 3)


@pytest.mark.parametrize("flavour", ["features", "strings"])
@pytest.mark.parametrize("side", SIDES)
def test_any_form_of_a_table_is_the_same(side, flavour):
    columns = newcomers(flavour, side)[1]
    models_ = [add(fresh("als", flavour), side, form) for form in forms_of(columns, side)]
    own = everything_of(models_[0], parts(flavour)[0])
    assert all(bits(model) == bits(models_[0]) for model in models_)
    assert all(everything_of(model, parts(flavour)[0]) == own for model in models_)
    if flavour == "strings":
        for form in (columns[side], np.array(columns[side]), pandas.Series(columns[side])):
            model = add(fresh("als", flavour), side, form)
            assert everything_of(model, parts(flavour)[0]) == own


@pytest.mark.parametrize("side", SIDES)
def test_features_may_be_some_of_them(side):
    ids, table = newcomers("features", side)
    name = FEATURES[side][0]
    model = add(fresh("als", "features"), side, {side: ids, name: table[name]})
    rows = getattr(model.catalog_, f"{side}_rows").to_scipy().toarray()[-len(ids) :]
    known = column_names(parts("features")[0])
    names = names_of(
        parts("features")[0],
        {s: (getattr(model, f"{s}s").ids.tolist(), None) for s in SIDES if s == side}
        | {s: (getattr(model, f"{s}s").ids.tolist(), None) for s in SIDES},
    )
    assert len(names) == len(known) + len(ids) == rows.shape[1]
    used = {names[column].split("=")[0] for column in np.flatnonzero(rows.any(axis=0))}
    assert used == {side, f"{side}:{name}"}


@pytest.mark.parametrize("which", ["als", "whole-data"])
def test_the_users_of_histories_need_no_list(which):
    ids = late_ids("ids")["user"]
    histories = histories_of(which, "ids", "user", ids)
    model = fresh(which).add_users(histories=histories)
    assert model.users.ids.tolist()[-len(ids) :] == ids
    assert bits(model) == bits(added(which, "ids", "user"))


def test_a_list_is_how_often_each_was_taken():
    items = parts("ids")[0].items.ids.tolist()
    lists, counts = (
        fresh("whole-data").add_users(histories={1: history})
        for history in ([items[2], items[5], items[2]], {items[2]: 2.0, items[5]: 1.0})
    )
    assert bits(lists) == bits(counts)
    top = lists.recommend([1], n=99)
    assert set(top.items[0].tolist()) & set(items[:6]) == set(items[:6]) - {items[2], items[5]}


@pytest.mark.parametrize("which", CLOSED_FORM)
def test_a_history_is_of_its_context(which):
    old = parts("context", which)[0]
    items, value = old.items.ids.tolist(), 1.0
    histories = {1: dict.fromkeys(items[:5], value), 2: dict.fromkeys(items[3:9], value)}
    model = fresh(which, "context").add_users(histories=histories, context={"day": ["fri", "sun"]})
    for user, day in ((1, "fri"), (2, "sun")):
        expected = fitted(which, "context").recommend_for(
            history=histories[user], context={"day": day}, n=60
        )
        got = model.recommend([user], 60, context={"day": day})
        assert in_order(got)[0] == in_order(expected)[0]
        np.testing.assert_allclose(in_order(got)[1], in_order(expected)[1], rtol=1e-5, atol=2e-6)
    for default in ("mean", "zero"):
        model = fresh(which, "context").add_users(histories=histories, context_default=default)
        expected = fitted(which, "context").recommend_for(
            history=histories[1], context_default=default, n=60
        )
        got = model.recommend([1], 60, context_default=default)
        np.testing.assert_allclose(in_order(got)[1], in_order(expected)[1], rtol=1e-5, atol=2e-6)


def without_ids():
    """A model that knows users and items by features and histories alone."""
    old = parts("features")[0]
    tables = {
        f"{side}_features": getattr(old, f"{side}_features").with_features(
            *FEATURES[side], id_feature=False
        )
        for side in SIDES
    }
    data = old.replace(**tables).with_history()
    return data, Recommender(ESTIMATORS["mcmc"]).fit(data)


def test_sides_without_ids_are_their_features_and_histories(tmp_path):
    data, before = without_ids()
    model = copy.copy(before)
    ids, table = newcomers("features", "user")
    histories = {
        id_: list(met) for id_, met in histories_of("mcmc", "features", "user", ids).items()
    }
    expected = {
        id_: before.recommend_for(
            history=histories[id_], features=features_of("features", "user", id_), n=60
        )
        for id_ in ids
    }
    model.add_users(table, histories=histories)
    assert model.params_.n_features == before.params_.n_features
    for id_ in ids:
        got = model.recommend([id_], 60)
        assert got.items.tolist() == expected[id_].items.tolist()
        assert got.scores.tobytes() == expected[id_].scores.tobytes()
    model.add_items(newcomers("features", "item")[1])
    assert len(model.items) == len(before.items) + len(late_ids("features")["item"])
    model.save(tmp_path / "model")
    loaded = fmknn.load(tmp_path / "model")
    assert everything_of(loaded, data) == everything_of(model, data)
