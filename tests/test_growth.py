"""Rows, vocabularies, feature tables and parameters that grow, by oracles of dicts and names."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from growth_rig import column_names
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn import FeatureTable, FMParams, Interactions
from fmknn.data.blocks import design_of_interactions
from fmknn.data.columns import Context
from fmknn.data.encoders import SideEncoder
from fmknn.data.growth import extended, with_entities
from fmknn.data.ids import IdMap
from fmknn.errors import UnknownIdError
from fmknn.model.growth import grown
from fmknn.model.posterior import Posterior
from fmknn.serving.catalog import Catalog
from fmknn.serving.growth import columns_in, vocabulary_of

SIDES = {"user": "users", "item": "items"}
CITIES, TAGS = ["Bonn", "Oslo", "Rome"], list("abcd")
persons = st.tuples(
    st.integers(0, 99), st.sampled_from(CITIES), st.lists(st.sampled_from(TAGS), unique=True)
)
DAYS = ["fri", "mon", "sun"]
rows_of_log = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 5), st.integers(1, 5), st.sampled_from(DAYS)),
    min_size=1,
    max_size=12,
)


@st.composite
def logs(draw, spelled=False):
    """Rows with a context, users that are described and items with histories or without."""
    rows = draw(rows_of_log)
    more = draw(st.sets(st.integers(0, 7), max_size=3))
    users = draw(st.permutations(sorted({user for user, *_ in rows} | more)))
    table = {user: draw(persons) for user in users}
    return build(rows, table, spelled)


def build(rows, table, spelled=False):
    users, items, values, days = zip(*rows, strict=True)
    name = (lambda id_: f"u{id_}") if spelled else (lambda id_: id_)
    columns = zip(*table.values(), strict=True)
    return Interactions.from_arrays(
        [name(user) for user in users],
        list(items),
        list(values),
        context={"day": list(days)},
        user_features=FeatureTable(
            [name(user) for user in table],
            dict(zip(("age", "city", "tags"), map(list, columns), strict=True)),
            features=["age", "city", "tags"],
        ),
    )


def read(data):
    """The rows, by external ids."""
    days = data.context["day"]
    return list(
        zip(
            data.user_ids.tolist(),
            data.item_ids.tolist(),
            data.values.tolist(),
            days.ids.ids[days.index].tolist(),
            strict=True,
        )
    )


def described(table):
    """{id: its columns}, histories left out."""
    return {
        id_: {name: v for name, v in table.row(id_).items() if name not in ("items", "users")}
        for id_ in table.ids.tolist()
    }


def behind(known, new):
    return known.ids.tolist() + sorted(set(new) - set(known.ids.tolist()))


def standardised(table, known):
    """The column of ages, by the mean and deviation of those known."""
    ages = [float(age) for age in known["age"]]
    deviation = np.std(ages)
    own = np.array([float(age) for age in table["age"]])
    return (own - np.mean(ages)) / deviation if deviation else np.zeros(len(own))


def encoded_ages(table):
    rows, names = table.encode()
    return rows.to_scipy().toarray()[:, names.index("age")]


def met_by(data, side):
    other = "item" if side == "user" else "user"
    met = {id_: set() for id_ in getattr(data, SIDES[side]).ids.tolist()}
    for own, partner in zip(
        getattr(data, f"{side}_ids").tolist(), getattr(data, f"{other}_ids").tolist(), strict=True
    ):
        met[own].add(partner)
    return met


# --- extended ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.booleans().flatmap(lambda s: st.tuples(logs(s), logs(s))), st.booleans())
def test_extended_has_all_rows_and_nothing_moves(pair, history):
    known, new = pair
    known = known.with_history() if history else known
    data = extended(known, new)
    assert read(data) == read(known) + read(new)
    assert data.users.ids.tolist() == behind(known.users, new.users.ids.tolist())
    assert data.items.ids.tolist() == behind(known.items, new.items.ids.tolist())
    days = known.context["day"].ids
    assert data.context["day"].ids.ids.tolist() == behind(days, new.context["day"].ids.ids.tolist())
    for name in ("user_index", "item_index"):
        assert getattr(data, name)[: len(known)].tolist() == getattr(known, name).tolist()
    table = data.user_features
    assert table.ids.tolist() == data.users.ids.tolist()
    assert described(table) == {**described(known.user_features), **described(new.user_features)}
    np.testing.assert_allclose(
        encoded_ages(table), standardised(table, known.user_features), rtol=1e-5, atol=1e-6
    )
    again = extended(data, new.take([]))
    assert read(again) == read(data) and again.users == data.users
    np.testing.assert_array_equal(encoded_ages(again.user_features), encoded_ages(table))
    for side, partners in (("user", "items"), ("item", "users")):
        own = getattr(data, f"{side}_features")
        if not history:
            assert own is None or partners not in own.columns
            continue
        got = {id_: set(own.row(id_)[partners]) for id_ in own.ids.tolist()}
        assert got == met_by(data, side)


@settings(max_examples=30)
@given(logs(), logs(), logs())
def test_in_two_steps_or_in_one(first, second, third):
    one_by_one = extended(extended(first, second), third)
    at_once = extended(first, extended(second, third))
    assert read(one_by_one) == read(at_once)
    assert described(one_by_one.user_features) == described(at_once.user_features)
    assert set(one_by_one.users.ids.tolist()) == set(at_once.users.ids.tolist())
    places = one_by_one.users.positions(at_once.users.ids)
    np.testing.assert_array_equal(
        encoded_ages(one_by_one.user_features)[places], encoded_ages(at_once.user_features)
    )


def simple(n=2, **changes):
    ids = np.arange(n)
    return Interactions.from_arrays(ids, ids, np.ones(n), **changes)


@pytest.mark.parametrize("known_has", [False, True])
@pytest.mark.parametrize("new_has", [False, True])
def test_weights_are_1_where_they_were_not_given_and_times_are_of_all_or_none(known_has, new_has):
    extra = {"weights": [2.0, 3.0], "timestamps": [5, 6]}
    known, new = (simple(**(extra if has else {})) for has in (known_has, new_has))
    data = extended(known, new)
    if not known_has and not new_has:
        assert data.weights is None
    else:
        expected = [w for has in (known_has, new_has) for w in ([2, 3] if has else [1, 1])]
        assert data.weights.tolist() == expected
    both = known_has and new_has
    assert (data.timestamps is not None) == both
    assert not both or data.timestamps.tolist() == [5, 6, 5, 6]


def test_what_is_not_the_same_on_both_sides_is_refused():
    known = simple(context={"day": ["fri", "mon"]})
    with refused(ValueError, "contexts", "day", "none"):
        extended(known, simple())
    with refused(ValueError, "contexts", "day", "hour"):
        extended(known, simple(context={"hour": ["fri", "mon"]}))
    with refused(ValueError, "values", "new"):
        extended(known, known.replace(values=None))
    with refused(ValueError, "values", "known"):
        extended(known.replace(values=None), known)
    with refused(TypeError, "day", "strings", "integers"):
        extended(known, simple(context={"day": [1, 2]}))
    with refused(TypeError, "user", "integers", "strings"):
        extended(simple(), Interactions.from_arrays(["a"], [1], [1.0]))
    with refused(TypeError, "item", "integers", "strings"):
        extended(simple(), Interactions.from_arrays([1], ["a"], [1.0]))
    table = {"id": [0, 1], "age": [20, 30]}
    with refused(ValueError, "no user_features"):
        extended(simple(), simple(user_features=table))
    described_ = simple(user_features=table)
    with refused(ValueError, "user", "no row", "2"):
        extended(described_, simple(3))
    with refused(ValueError, "'age'", "height"):
        extended(described_, simple(user_features={"id": [0, 1], "height": [1, 2]}))
    spelled = Interactions.from_arrays([2], [0], [1.0], user_features={"id": [2], "age": ["x"]})
    with refused(TypeError, "age"):
        extended(described_, spelled)


def test_known_ids_need_no_row_and_labels_need_none_at_all():
    known = simple(user_features={"id": [0, 1], "age": [20, 30]})
    assert extended(known, simple()).user_features["age"].tolist() == [20, 30]
    labelled = simple(
        user_features=FeatureTable([0, 1], {"title": ["Mr", "Ms"]}, features=[]),
    )
    data = extended(labelled, simple(4))
    assert data.user_features["title"].tolist() == ["Mr", "Ms", None, None]


def test_what_was_given_is_as_it_was():
    known, new = simple(weights=[1.0, 2.0]), simple(3)
    before = [known.users.ids.copy(), known.user_index.copy(), known.weights.copy()]
    extended(known, new)
    for own, copy in zip([known.users.ids, known.user_index, known.weights], before, strict=True):
        np.testing.assert_array_equal(own, copy)


# --- in the vocabulary of a model -----------------------------------------------------------------


def in_vocabulary(known, ids, encoders):
    return extended(known, known.take([]), ids, encoders or None)


def encoders_of(data):
    catalog = Catalog.of(data, design_of_interactions(data))
    return catalog.encoders


@settings(max_examples=50)
@given(logs(), logs(), st.data())
def test_a_vocabulary_begins_with_the_ids_that_are_given(known, other, data):
    ids = {
        name: IdMap(data.draw(st.permutations(id_map.ids.tolist())), name)
        for name, id_map in (
            ("user", known.users),
            ("item", other.items),
            ("day", other.context["day"].ids),
        )
    }
    moved = in_vocabulary(known, ids, encoders_of(other))
    assert read(moved) == read(known)
    assert moved.users.ids.tolist() == behind(ids["user"], known.users.ids.tolist())
    assert moved.items.ids.tolist() == behind(ids["item"], known.items.ids.tolist())
    days = moved.context["day"].ids.ids.tolist()
    assert days == behind(ids["day"], known.context["day"].ids.ids.tolist())


@settings(max_examples=50)
@given(logs(), logs(), st.data())
def test_numbers_are_standardised_as_the_encoders_say(known, other, data):
    order = data.draw(st.permutations(known.users.ids.tolist()))
    ids = {"user": IdMap(order, "user"), "item": known.items, "day": known.context["day"].ids}
    moved = in_vocabulary(known, ids, encoders_of(other))
    assert moved.user_features.ids.tolist() == order
    assert described(moved.user_features) == described(known.user_features)
    np.testing.assert_allclose(
        encoded_ages(moved.user_features),
        standardised(moved.user_features, other.user_features),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_vocabulary_that_does_not_fit_is_refused():
    data = simple(context={"day": ["fri", "mon"]}, user_features={"id": [0, 1], "age": [1, 2]})
    ids = {"user": data.users, "item": data.items, "day": data.context["day"].ids}
    with refused(ValueError, "contexts", "day", "none"):
        in_vocabulary(data, {"user": data.users, "item": data.items}, {})
    with refused(TypeError, "user", "strings"):
        in_vocabulary(data, ids | {"user": IdMap(["a"], "user")}, {})
    with refused(ValueError, "user", "7", "no row"):
        in_vocabulary(data, ids | {"user": IdMap([7, 1, 0], "user")}, {})


# --- with_entities -------------------------------------------------------------------------------


@settings(max_examples=50)
@given(logs(), st.dictionaries(st.integers(0, 12), persons, max_size=5), st.booleans())
def test_more_users_have_no_row_and_an_empty_history(known, more, history):
    known = known.with_history() if history else known
    columns = zip(*more.values(), strict=True) if more else ([], [], [])
    table = FeatureTable(
        list(more), dict(zip(("age", "city", "tags"), map(list, columns), strict=True))
    )
    data = with_entities(known, "user", np.array(list(more), np.int64), table if more else None)
    assert read(data) == read(known)
    assert data.users.ids.tolist() == behind(known.users, list(more))
    assert data.items == known.items
    assert described(data.user_features) == {**described(known.user_features), **described(table)}
    np.testing.assert_allclose(
        encoded_ages(data.user_features),
        standardised(data.user_features, known.user_features),
        rtol=1e-5,
        atol=1e-6,
    )
    if history:
        for side, partners in (("user", "items"), ("item", "users")):
            own = getattr(data, f"{side}_features")
            got = {id_: set(own.row(id_)[partners]) for id_ in own.ids.tolist()}
            assert got == met_by(data, side)


def test_entities_without_the_features_of_the_others_are_refused():
    known = simple(item_features={"id": [0, 1], "price": [1, 2]})
    with refused(ValueError, "item", "no row", 9):
        with_entities(known, "item", np.array([9]), None)
    with refused(ValueError, "'price'"):
        with_entities(known, "item", np.array([9]), FeatureTable([9], {"colour": ["red"]}))
    with refused(TypeError, "user", "strings"):
        with_entities(known, "user", np.array(["a"], object), None)


# --- tables --------------------------------------------------------------------------------------


def test_a_table_takes_further_levels_and_keeps_the_meaning_of_the_others():
    table = FeatureTable([2, 1], {"age": [10, 20], "city": ["Rome", "Bonn"], "year": [1999, 2001]})
    table = FeatureTable(
        table.ids, table.columns, features=["age", "city", "year"], categorical=["year"]
    )
    more = FeatureTable([3, 2], {"age": [15, 40], "city": ["Oslo", "Rome"], "year": [2000, 2001]})
    rows, names = table.extended(more).encode()
    assert names == ["age", "city=Bonn", "city=Oslo", "city=Rome", "year=2000", "year=2001"]
    got = dict(
        zip(table.extended(more).ids.tolist(), rows.to_scipy().toarray().tolist(), strict=True)
    )
    assert got == {
        1: [1, 1, 0, 0, 0, 1],
        3: [0, 0, 1, 0, 1, 0],
        2: [5, 0, 0, 1, 0, 1],
    }
    assert table["age"].tolist() == [10, 20]


def test_labels_that_are_missing_are_none_and_features_are_not():
    table = FeatureTable([1], {"title": ["Alien"], "year": [1979]}, features=["year"])
    more = table.extended(FeatureTable([2], {"year": [1986]}))
    assert more["title"].tolist() == ["Alien", None] and more["year"].tolist() == [1979, 1986]
    with refused(ValueError, "'year'", "title"):
        table.extended(FeatureTable([2], {"title": ["Aliens"]}))
    with refused(TypeError, "integers", "strings"):
        table.extended(FeatureTable(["x"], {"year": [1986]}))


def test_a_scale_is_kept_through_what_is_made_of_a_table():
    table = FeatureTable([1, 2, 3], {"age": [10, 20, 30]}).extended(
        FeatureTable([4], {"age": [60]})
    )
    expected = [-np.sqrt(1.5), 0, np.sqrt(1.5), 4 * np.sqrt(1.5)]
    for made in (
        table,
        table.with_features("age", id_feature=False),
        table.align(IdMap([1, 2, 3, 4])),
        table.without_histories(),
        table.extended(FeatureTable([4], {"age": [60]})),
    ):
        np.testing.assert_allclose(encoded_ages(made), expected, rtol=1e-6, atol=1e-7)
    fresh = FeatureTable([1, 2, 3, 4], {"age": [10, 20, 30, 60]})
    assert not table.encodes_like(fresh) and table.encodes_like(table.with_features("age"))


# --- where columns went --------------------------------------------------------------------------


def catalog_of(data):
    return Catalog.of(data, design_of_interactions(data))


@settings(max_examples=60)
@given(st.booleans().flatmap(lambda s: st.tuples(logs(s), logs(s))), st.data())
def test_every_column_is_found_by_its_name(pair, data):
    before, new = pair
    before = before.with_history() if data.draw(st.booleans()) else before
    now = extended(before, new)
    if data.draw(st.booleans()):  # in any order of ids
        ids = {
            name: IdMap(data.draw(st.permutations(id_map.ids.tolist())), name)
            for name, id_map in (
                ("user", now.users),
                ("item", now.items),
                ("day", now.context["day"].ids),
            )
        }
        now = in_vocabulary(now, ids, {})
    names, names_now = column_names(before), column_names(now)
    places = columns_in(catalog_of(before), catalog_of(now))
    assert places.dtype == np.int64 and len(places) == len(names)
    for name, place in zip(names, places.tolist(), strict=True):
        if name in names_now:
            assert names_now[place] == name
        else:  # the last one of that level is of another by now
            assert place == -1 and ":" in name


def test_a_side_may_have_no_ids():
    table = FeatureTable([0, 1], {"city": ["Rome", "Bonn"]}, id_feature=False)
    before = simple(user_features=table)
    more = FeatureTable([2], {"city": ["Oslo"]})
    now = extended(before, Interactions.from_arrays([2], [1], [1.0], user_features=more))
    names, names_now = column_names(before), column_names(now)
    assert names == ["user:city=Bonn", "user:city=Rome", "item=0", "item=1"]
    places = columns_in(catalog_of(before), catalog_of(now))
    assert [names_now[place] for place in places] == names


def test_columns_of_another_model_are_refused():
    before = simple(context={"day": ["fri", "mon"]}, user_features={"id": [0, 1], "age": [1, 2]})
    catalog = catalog_of(before)

    def refuse(error, data, *words):
        with refused(error, *words):
            columns_in(catalog, catalog_of(data))

    refuse(ValueError, before.replace(context={}), "contexts", "day", "none")
    refuse(ValueError, before.replace(user_features=None), "user", "age", "feature table")
    table = before.user_features
    refuse(
        ValueError,
        before.replace(user_features=FeatureTable([0, 1], {"age": ["x", "y"]})),
        "age",
        "categorical",
        "numeric",
    )
    refuse(ValueError, before.replace(user_features=table.with_features()), "user", "age")
    refuse(
        ValueError,
        before.replace(user_features=table.with_features("age", id_feature=False)),
        "user",
    )
    other = simple(
        3, context={"day": ["fri", "sun", "sun"]}, user_features={"id": [0, 1, 2], "age": [1, 2, 3]}
    )
    refuse(UnknownIdError, other, "day", "'mon'")


def test_what_a_catalog_knows_is_a_vocabulary():
    data = simple(3, context={"day": ["fri", "mon", "fri"]})
    known = vocabulary_of(catalog_of(data))
    assert len(known) == 0 and known.users == data.users and known.items == data.items
    assert known.context["day"].ids == data.context["day"].ids
    with refused(ValueError, "user", "features", "known="):
        vocabulary_of(catalog_of(simple(user_features={"id": [0, 1], "age": [1, 2]})))


# --- parameters ----------------------------------------------------------------------------------

floats = st.floats(-9, 9, width=32)


@st.composite
def models(draw):
    """FMParams, or a posterior of up to three."""
    n, k = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    samples = [
        FMParams(
            draw(floats),
            np.array(draw(st.lists(floats, min_size=n, max_size=n)), np.float32),
            np.array(draw(st.lists(floats, min_size=n * k, max_size=n * k)), np.float32).reshape(
                n, k
            ),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    if len(samples) == 1:
        return samples[0]
    return Posterior(*(np.stack([getattr(s, name) for s in samples]) for name in ("w0", "w", "V")))


@settings(max_examples=80)
@given(models(), st.data())
def test_columns_are_themselves_at_other_places(model, data):
    n_features = model.n_features + data.draw(st.integers(0, 4))
    places = np.array(data.draw(st.permutations(range(n_features)))[: model.n_features])
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places))))
    places = np.where(gone, -1, places)
    free = sorted(set(range(n_features)) - set(places.tolist()))
    new = np.array(free[: data.draw(st.integers(0, len(free)))], np.int64)
    samples = list(model.samples())
    k = samples[0].n_factors
    theta = [
        np.array(
            data.draw(st.lists(floats, min_size=len(new) * (k + 1), max_size=len(new) * (k + 1)))
        ).reshape(len(new), k + 1)
        for _ in samples
    ]
    larger = grown(model, places, n_features, new, theta)
    assert type(larger) is type(model) and larger.n_features == n_features
    for sample, now, own in zip(samples, larger.samples(), theta, strict=True):
        assert now.w0 == sample.w0
        w, V = np.zeros(n_features, np.float32), np.zeros((n_features, k), np.float32)
        for p, place in enumerate(places.tolist()):
            if place >= 0:
                w[place], V[place] = sample.w[p], sample.V[p]
        for row, place in zip(own, new.tolist(), strict=True):
            w[place], V[place] = row[-1], row[:-1]
        np.testing.assert_array_equal(now.w, w)
        np.testing.assert_array_equal(now.V, V)


@given(models(), st.data())
def test_a_row_keeps_its_score(model, data):
    n_features = model.n_features + 3
    places = np.array(data.draw(st.permutations(range(n_features)))[: model.n_features])
    row = [(p, data.draw(floats)) for p in range(model.n_features)]
    moved = [(int(places[p]), x) for p, x in row]
    for sample, now in zip(
        model.samples(), grown(model, places, n_features).samples(), strict=True
    ):
        before = naive.sparse_score(sample.w0, sample.w, sample.V, row)
        assert naive.sparse_score(now.w0, now.w, now.V, moved) == pytest.approx(before, rel=1e-9)


def test_cutpoints_stay():
    model = FMParams(0.0, [1.0], [[2.0]], cutpoints=[0.0, 1.5])
    larger = grown(model, np.array([1]), 2)
    assert larger.cutpoints.tolist() == [0.0, 1.5] and larger.w.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_parameters_that_are_not_finite_are_refused(value):
    model = FMParams(0.0, [1.0], [[2.0]])
    with pytest.raises(ValueError) as caught:
        grown(model, np.array([0]), 2, np.array([1]), [np.array([[value, 0.0]])])
    assert "\n" not in str(caught.value)
    assert model.w.tolist() == [1.0]


# --- a context column for SideEncoder and Context to be what they are documented to be ------------


def test_encoders_stand_where_the_names_say():
    data = simple(user_features={"id": [0, 1], "age": [1, 2], "city": ["Rome", "Bonn"]})
    user, item = (encoders_of(data)[side] for side in ("user", "item"))
    assert isinstance(user, SideEncoder)
    names = column_names(data)
    assert [names[user.first], names[user.stop - 1]] == ["user:age", "user:city=Rome"]
    assert item.first == item.stop == len(names)
    assert isinstance(simple(context={"a": [1, 2]}).context["a"], Context)
