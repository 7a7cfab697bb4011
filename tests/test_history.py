"""Histories: whom each user and item met in the rows at hand, as features; never anybody else."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

import fmknn
from fmknn import Adam, FeatureTable, FMRegressor, Interactions, Recommender
from fmknn.data.blocks import design_of_interactions
from fmknn.data.history import History
from fmknn.data.ids import IdMap

from_arrays = Interactions.from_arrays

EVENTS = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from(["x", "y", "z", "ä"])), min_size=1, max_size=25
)


def split(events, extra=()):
    """Interactions that know the ids of all events, of which the first ones are the rows."""
    users, items = zip(*events, *extra, strict=True)
    return from_arrays(users, items).take(range(len(events)))


def encoded(table):
    """{id: {feature name: value}} without zeros."""
    rows, names = table.encode()
    assert rows.shape == (len(table), len(names)) and len(set(names)) == len(names)
    dense = rows.to_scipy().toarray().tolist()
    return {
        id_: {name: x for name, x in zip(names, row, strict=True) if x}
        for id_, row in zip(table.ids.tolist(), dense, strict=True)
    }


def histories(events, ids, column):
    """The oracle: {id: {feature name: value}}, from (entity, partner) pairs one by one."""
    expected = {id_: {} for id_ in ids}
    for id_ in ids:
        partners = {partner for entity, partner in events if entity == id_}
        for partner in partners:
            expected[id_][f"{column}={partner}"] = pytest.approx(1 / math.sqrt(len(partners)))
    return expected


# --- what they hold -------------------------------------------------------------------------


@given(events=EVENTS, extra=EVENTS)
@settings(max_examples=60)
def test_each_side_has_its_distinct_partners_of_these_rows(events, extra):
    log = split(events, extra).with_history()
    assert encoded(log.user_features) == histories(events, log.users.ids.tolist(), "items")
    turned = [(item, user) for user, item in events]
    assert encoded(log.item_features) == histories(turned, log.items.ids.tolist(), "users")


@given(events=EVENTS, extra=EVENTS)
@settings(max_examples=30)
def test_rows_are_canonical_and_have_the_types_of_the_kernels(events, extra):
    for table in vars(split(events, extra).with_history()).values():
        if isinstance(table, FeatureTable):
            rows, _ = table.encode()
            assert (rows.indptr.dtype, rows.indices.dtype) == (np.int64, np.int32)
            assert rows.values.dtype == np.float32
            for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
                assert np.all(np.diff(rows.indices[start:stop]) > 0)
            assert set(rows.indices.tolist()) == set(range(rows.n_columns))  # each level occurs


def test_more_of_the_same_pair_changes_nothing():
    once = from_arrays([1, 1, 2], ["a", "b", "b"]).with_history()
    often = from_arrays([1, 2, 1, 1] + [1] * 300, ["a", "b", "b", "a"] + ["b"] * 300)
    assert once.user_features.encodes_like(often.with_history().user_features)
    assert once.item_features.encodes_like(often.with_history().item_features)


def test_values_and_weights_do_not_count():
    plain = from_arrays([1, 1], [5, 6])
    graded = from_arrays([1, 1], [5, 6], [0.0, -3.0], weights=[0.0, 2.0])
    assert plain.with_history().user_features.encodes_like(graded.with_history().user_features)


def test_who_has_no_row_has_an_empty_history():
    log = from_arrays([1, 2, 3], [7, 8, 9]).take([0]).with_history()
    assert encoded(log.user_features) == {1: {"items=7": 1}, 2: {}, 3: {}}
    assert log.user_features.row(3) == {"items": ()}
    nobody = log.take([]).with_history()
    assert nobody.user_features.encode()[0].shape == (3, 0)


@given(events=EVENTS, extra=EVENTS, other=EVENTS)
@settings(max_examples=40)
def test_no_test_row_leaks_in(events, extra, other):
    """The same training rows have the same histories, whatever the other part is."""
    train, changed = (split(events, rest).with_history() for rest in (extra, other))
    for side in ("user_features", "item_features"):
        one, another = (encoded(getattr(part, side)) for part in (train, changed))
        assert getattr(train, side).encode()[1] == getattr(changed, side).encode()[1]
        assert all(one[id_] == another[id_] for id_ in one.keys() & another.keys())
        assert not any(one[id_] for id_ in one.keys() - another.keys())


def test_parts_of_a_split_have_their_own():
    ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=15, n_ratings=150)
    whole = ratings.with_history()
    train, test = fmknn.splits.random(whole, test=0.3, random_state=0)
    plain, _ = fmknn.splits.random(ratings, test=0.3, random_state=0)
    assert train.user_features is whole.user_features  # what a split takes over it takes as it is
    train, test, plain = (part.with_history() for part in (train, test, plain))
    for part in (train, test):
        pairs = list(zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True))
        for user in part.users.ids.tolist():
            met = {item for one, item in pairs if one == user}
            assert part.user_features.row(user)["items"] == tuple(sorted(met))
    assert train.user_features.encodes_like(plain.user_features)  # made anew, not added to


# --- where they stand -----------------------------------------------------------------------


def with_tables(**options):
    return from_arrays(
        ["a", "b", "b"],
        [1, 1, 2],
        [3.0, 4.0, 5.0],
        user_features=FeatureTable(
            ["c", "b", "a"],
            {"age": [30, 20, 10], "name": ["C", "B", "A"], "job": ["x", "y", "x"]},
            features=["age", "job"],
            **options,
        ),
        item_features={"id": [1, 2], "tags": [("p", "q"), ()]},
    )


def test_they_come_last_in_the_tables_that_are_there():
    plain, log = with_tables(), with_tables().with_history()
    assert log.user_features.features == ("age", "job", "items")
    assert log.user_features["name"].tolist() == ["A", "B", "C"]  # labels stay labels
    names = ["age", "job=x", "job=y", "items=1", "items=2"]
    assert log.user_features.encode()[1] == names
    before, after = (encoded(part.user_features) for part in (plain, log))
    for user, items in {"a": [1], "b": [1, 2], "c": []}.items():
        history = {f"items={i}": pytest.approx(1 / math.sqrt(len(items))) for i in items}
        assert after[user] == before[user] | history
    assert log.item_features.encode()[1] == ["tags=p", "tags=q", "users=a", "users=b"]
    assert plain.user_features.features == ("age", "job")  # the old ones are as they were


def test_settings_of_the_table_stay():
    log = with_tables(categorical=["age"], id_feature=False).with_history()
    assert not log.user_features.id_feature
    assert log.user_features.encode()[1][:3] == ["age=10", "age=20", "age=30"]


def test_without_tables_they_stand_beside_the_id():
    log = from_arrays([1, 2], ["a", "b"]).with_history()
    design = design_of_interactions(log)
    assert {name: len(columns) for name, columns in design.column_sets.items()} == {
        "user": 4,
        "item": 4,
    }
    row = design.expand(0, 1).to_scipy().toarray().tolist()
    assert row == [[1, 0, 1, 0, 1, 0, 1, 0]]  # user 1, items=a, item a, users=1


def test_a_side_can_be_left_out():
    plain = with_tables()
    users, items = plain.with_history(items=False), plain.with_history(users=False)
    assert users.item_features is plain.item_features and "items" in users.user_features.features
    assert items.user_features is plain.user_features and "users" in items.item_features.features


def test_rows_and_their_columns_stay():
    plain = with_tables()
    log = plain.with_history()
    for name in ("users", "items", "user_index", "item_index", "values", "context"):
        assert getattr(log, name) is getattr(plain, name)


def test_again_is_the_same():
    once = with_tables().with_history()
    twice = once.with_history()
    assert twice.user_features.features == ("age", "job", "items")
    assert twice.user_features.encodes_like(once.user_features)


def test_without_features_leaves_them_out():
    log = with_tables().with_history().without_features()
    assert design_of_interactions(log).n_features == 3 + 2
    assert log.user_features["items"][1] == (1, 2)  # still a label


# --- features of training for other rows ----------------------------------------------------


def test_test_rows_take_the_features_of_training():
    ratings, _ = fmknn.datasets.make_interactions(n_users=30, n_items=20, n_ratings=300)
    train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    train = train.with_history()
    ready = test.with_features_of(train)
    assert ready.user_features is train.user_features
    assert ready.item_features is train.item_features
    assert ready.user_index is test.user_index and ready.values is test.values
    model = FMRegressor(2, n_iter=1, random_state=0).fit(train)
    assert model.predict(ready).shape == (len(test),)
    for other in (test, test.with_history()):
        with refused(ValueError, "vocabulary"):
            model.predict(other)


def test_rows_of_another_vocabulary_take_them_by_id():
    train = from_arrays([3, 1, 2], ["b", "a", "b"]).with_history()
    ready = from_arrays([2, 1], ["b", "b"]).with_features_of(train)
    assert encoded(ready.user_features) == {1: {"items=a": 1}, 2: {"items=b": 1}}
    assert ready.item_features["users"][0] == (2, 3)


def test_without_features_there_are_none_to_take():
    assert with_tables().with_features_of(from_arrays(["a", "b"], [1, 2])).user_features is None


def test_features_of_strangers_are_refused():
    train = from_arrays([1, 2], [5, 6]).with_history()
    with refused(ValueError, "user", "9"):
        from_arrays([1, 9], [5, 6]).with_features_of(train)
    with refused(TypeError, "Interactions", "FeatureTable"):
        train.with_features_of(train.user_features)


# --- a model on them ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=40, n_items=25, n_ratings=400, user_features=False, item_features=False
    )
    train, test = fmknn.splits.random(ratings, test=0.2, random_state=1)
    solver = Adam(epochs=1, factors_init_sigma=0.5)
    model = Recommender(FMRegressor(3, solver=solver, random_state=0))
    return model.fit(train.with_history()), train.with_history(), test


def test_a_recommender_scores_by_the_histories_of_training(trained):
    """Against the definition of a factorization machine, pair of features by pair."""
    model, train, test = trained
    params = model.estimator_.params_
    users, items = train.users.ids.tolist(), train.items.ids.tolist()
    names = [("user", u) for u in users] + [("user", n) for n in train.user_features.encode()[1]]
    names += [("item", i) for i in items] + [("item", n) for n in train.item_features.encode()[1]]
    assert len(names) == params.n_features
    column = {name: place for place, name in enumerate(names)}
    of_user, of_item = encoded(train.user_features), encoded(train.item_features)
    for user, item in list(zip(test.user_ids.tolist(), test.item_ids.tolist(), strict=True))[:20]:
        x = {column["user", user]: 1.0, column["item", item]: 1.0}
        x |= {column["user", name]: value for name, value in of_user[user].items()}
        x |= {column["item", name]: value for name, value in of_item[item].items()}
        score = float(params.w0) + sum(float(params.w[p]) * x[p] for p in x)
        for p in x:
            for q in x:
                if p < q:
                    pair = sum(
                        float(a) * float(b) for a, b in zip(params.V[p], params.V[q], strict=True)
                    )
                    score += pair * x[p] * x[q]
        low, high = float(train.values.min()), float(train.values.max())
        assert model.predict([user], [item])[0] == pytest.approx(min(max(score, low), high), 1e-4)


def test_evaluate_goes_by_ids(trained):
    model, train, test = trained
    plain = model.evaluate(test, ["rmse", "ndcg@5"]).to_dict()
    assert plain["n_rows"] + plain["n_cold_rows"] == len(test)
    assert model.evaluate(test.with_features_of(train), ["rmse", "ndcg@5"]).to_dict() == plain


def test_a_saved_model_keeps_them(trained, tmp_path):
    model, train, test = trained
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    for name in ("indptr", "indices", "values"):
        for rows in ("user_rows", "item_rows"):
            one, another = (getattr(m.catalog_, rows) for m in (model, loaded))
            assert np.array_equal(getattr(one, name), getattr(another, name))
    lists, again = (m.recommend(train.users.ids, n=5) for m in (model, loaded))
    assert np.array_equal(lists.items, again.items) and np.array_equal(lists.scores, again.scores)
    pairs = test.user_ids, test.item_ids
    assert np.array_equal(model.predict(*pairs), loaded.predict(*pairs))


def test_validation_rows_take_them_too(trained):
    _, train, test = trained
    stopping = fmknn.EarlyStopping(test.with_features_of(train), patience=9)
    FMRegressor(2, n_iter=4, random_state=0, callbacks=[stopping]).fit(train)  # 2 are burnt in
    assert len(stopping.scores_) == 2 and all(map(math.isfinite, stopping.scores_))


# --- the column -----------------------------------------------------------------------------


def test_the_column_reads_like_one_of_tuples():
    history = from_arrays([1, 1, 2], ["b", "a", "b"]).with_history().user_features["items"]
    assert (len(history), history.shape) == (2, (2,))
    assert [history[0], history[1], history[-1]] == [("a", "b"), ("b",), ("b",)]
    assert list(history) == [("a", "b"), ("b",)]
    assert history[np.array([1, 0, 1])][2] == ("b",) and len(history[np.array([], int)]) == 0
    assert repr(history) == "History(2 rows, 2 levels)"
    with pytest.raises(IndexError):
        history[2]


def test_the_column_is_equal_to_its_like_only():
    first, same, other = (
        from_arrays([1, 1, 2], list(items)).with_history().user_features
        for items in ("aba", "baa", "abb")
    )
    assert first["items"] == same["items"] and first["items"] != other["items"]
    assert first.encodes_like(same) and not first.encodes_like(other)
    tuples = FeatureTable(first.ids, {"items": [("a", "b"), ("a",)]})
    assert encoded(tuples) == encoded(first)  # the same features, but not known to be the same
    assert not tuples.encodes_like(first) and not first.encodes_like(tuples)


def test_copies_are_whole():
    table = from_arrays([1, 1, 2], list("aba")).with_history().user_features
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert twin.encodes_like(table) and twin.row(1) == {"items": ("a", "b")}


def test_nothing_of_it_can_be_written_to():
    history = from_arrays([1, 1, 2], list("aba")).with_history().user_features["items"]
    for array in (history.levels, history.rows.indptr, history.rows.indices, history.rows.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


def test_a_million_rows():
    rng = np.random.default_rng(0)
    n, n_users, n_items = 1_000_000, 20_000, 3_000
    users, items = rng.integers(n_users, size=n), rng.integers(n_items, size=n)
    log = Interactions(IdMap(np.arange(n_users)), IdMap(np.arange(n_items)), users, items)
    rows, names = log.with_history().user_features.encode()
    pairs = np.unique(users * n_items + items)
    assert len(names) == n_items and np.array_equal(rows.indices, pairs % n_items)
    assert np.array_equal(np.diff(rows.indptr), np.bincount(pairs // n_items, minlength=n_users))
    squares = np.add.reduceat(rows.values.astype(float) ** 2, rows.indptr[:-1])
    np.testing.assert_allclose(squares, 1, rtol=1e-5)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_column_of_that_name_is_not_overwritten(side):
    name = {"user": "items", "item": "users"}[side]
    log = from_arrays(
        [1], [2], **{f"{side}_features": {"id": [1 if side == "user" else 2], name: [7]}}
    )
    with refused(ValueError, repr(name), "rename"):
        log.with_history()
    assert getattr(log, f"{side}_features")[name].tolist() == [7]


@pytest.mark.parametrize("choice", ["no", 0, 1, None])
@pytest.mark.parametrize("side", ["users", "items"])
def test_a_choice_that_is_no_bool_is_refused(side, choice):
    with refused(ValueError, side, "True or False", repr(choice)):
        from_arrays([1], [2]).with_history(**{side: choice})


def test_neither_side_is_refused():
    with refused(ValueError, "users", "items", "False"):
        from_arrays([1], [2]).with_history(users=False, items=False)


def test_a_history_of_another_length_is_refused():
    history = History.of(np.array([0]), 3, np.array([0]), IdMap([5]))
    with refused(ValueError, "items", "(3,)", "(2,)"):
        FeatureTable([1, 2], {"items": history})
