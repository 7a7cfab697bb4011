"""explain: every term is the textbook's, and they add up to the score."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import FLAVOURS, interactions, some_context, trained
from refusals import refused
from textbook import Textbook

import fmknn
from fmknn import FMParams, FMRanker, FMRegressor, Posterior, Recommender
from fmknn.errors import UnknownIdError

EPSILON = float(np.finfo(np.float32).eps)
every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@functools.cache
def posterior(flavour):
    estimator = FMRegressor(3, solver=fmknn.Gibbs(n_iter=6, burn_in=2), random_state=0)
    return Recommender(estimator).fit(interactions(flavour))


@functools.cache
def with_history():
    data = interactions("features").with_history()
    return data, Recommender(FMRegressor(3, solver="als", n_iter=3, random_state=0)).fit(data)


def names_of_columns(data):
    """What each column of the textbook's rows stands for, its field and its block."""
    names = []
    for what, ids, table in (
        ("user", data.users.ids, data.user_features),
        ("item", data.items.ids, data.item_features),
    ):
        names += [(f"{what}={id_}", what, what) for id_ in ids.tolist()]
        for feature in () if table is None else table.features:
            values = [table[feature][place] for place in range(len(ids))]
            field = f"{what}:{feature}"
            if isinstance(values[0], tuple):
                levels = sorted(set().union(*values))
            elif isinstance(values[0], str):
                levels = sorted(set(values))
            else:
                names.append((field, field, what))
                continue
            names += [(f"{field}={level}", field, what) for level in levels]
    for name, column in data.context.items():
        names += [(f"{name}={level}", name, name) for level in column.ids.ids.tolist()]
    return names


def expected_terms(data, params, **ids):
    """{name: (kind, fields, blocks, value)}, each the mean over the samples, by the formula."""
    samples = list(params.samples())
    names = names_of_columns(data)
    book = Textbook(data, samples[0])
    row = [
        entry
        for block, id_ in ids.items()
        if id_ is not None
        for entry in book.rows[block][book.place(block, id_)]
    ]

    def mean(value):
        return math.fsum(value(sample) for sample in samples) / len(samples)

    terms = {"global": ("global", (), (), mean(lambda fm: fm.w0))}
    for place, (p, x) in enumerate(row):
        name, field, block = names[p]
        linear = mean(lambda fm, p=p, x=x: float(fm.w[p]) * x)
        terms[name] = "linear", (field,), (block,), linear
        for q, z in row[place + 1 :]:
            other, its_field, its_block = names[q]
            product = mean(
                lambda fm, p=p, q=q, xz=x * z: (
                    naive.dot(naive.plain(fm.V[p]), naive.plain(fm.V[q])) * xz
                )
            )
            fields, blocks = (field, its_field), (block, its_block)
            terms[f"{name} × {other}"] = "pair", fields, blocks, product
    return terms


def grouped(terms, of):
    """Sums of expected terms by their fields (1) or blocks (2)."""
    found = {}
    for term in terms.values():
        labels = term[of]
        name = " × ".join(labels) or "global"
        if len(labels) == 2 and labels[0] == labels[1]:
            name = f"within {labels[0]}"
        found[name] = found.get(name, 0.0) + term[3]
    return found


def close(found, expected, size):
    """Two mappings of sums, the features of one being rounded to float32."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0, abs=4 * EPSILON * size)


def require_law(model, why, *pair, **context):
    """The terms add up to the score."""
    size = math.fsum(map(abs, why.to_dict().values()))
    score = model.scores([pair[0]], [pair[1]], **context)[0]
    assert why.score == score
    assert math.fsum(why.to_dict().values()) == pytest.approx(score, rel=0, abs=4 * EPSILON * size)
    return size


@every_flavour
@pytest.mark.parametrize("of", [trained, posterior], ids=["fm", "posterior"])
def test_every_term_is_the_textbooks(of, flavour):
    model, data, context = of(flavour), interactions(flavour), some_context(flavour)
    for place in (0, 7, 25):
        user, item = data.users.ids[place], data.items.ids[2 * place]
        why = model.explain(user, item, context=context)
        expected = expected_terms(data, model.params_, user=user, item=item, **context)
        size = require_law(model, why, user, item, context=context)
        close(why.to_dict(), {name: term[3] for name, term in expected.items()}, size)
        for term in why.terms:
            assert (term.kind, term.fields) == expected[term.name][:2]
        close(why.by_field(), grouped(expected, 1), size)
        close(why.by_block(), grouped(expected, 2), size)
        assert (why.user, why.item, len(why)) == (user, item, len(expected))


def test_histories():
    data, model = with_history()
    user, item = data.users.ids[3], data.items.ids[5]
    why = model.explain(user, item)
    expected = expected_terms(data, model.params_, user=user, item=item)
    size = require_law(model, why, user, item)
    close(why.to_dict(), {name: term[3] for name, term in expected.items()}, size)
    close(why.by_field(), grouped(expected, 1), size)
    column = f"user:{data.user_features.features[-1]}="
    history = [name for name in why.to_dict() if name.startswith(column)]
    assert len([name for name in history if " × " not in name]) == len(
        set(data.item_ids[data.user_ids == user].tolist())
    )


def test_pairs_of_fields(monkeypatch):
    data, model = with_history()
    user, item = data.users.ids[3], data.items.ids[5]
    expected = expected_terms(data, model.params_, user=user, item=item)
    why = model.explain(user, item, pairs="field")
    size = require_law(model, why, user, item)
    linear = {name: term[3] for name, term in expected.items() if term[0] != "pair"}
    pairs = grouped({name: term for name, term in expected.items() if term[0] == "pair"}, 1)
    close(why.to_dict(), {**linear, **pairs}, size)
    close(why.by_field(), grouped(expected, 1), size)
    close(why.by_block(), grouped(expected, 2), size)
    assert why.to_dict() == {term.name: term.value for term in why.terms}
    by_itself = model.explain(user, item)
    assert len(by_itself) == len(expected) > len(why)
    n_features = sum(term[0] == "linear" for term in expected.values())
    for most, fewer in ((n_features, False), (n_features - 1, True)):
        monkeypatch.setattr("fmknn.serving.explain._MOST_FEATURES", most)
        assert (len(model.explain(user, item)) == len(why)) is fewer
    assert len(model.explain(user, item, pairs="feature")) == len(expected)


@pytest.mark.parametrize("of", [trained, posterior], ids=["fm", "posterior"])
def test_a_context_that_is_left_out(of):
    model, data = of("everything"), interactions("everything")
    user, item, levels = data.users.ids[4], data.items.ids[9], data.context["day"].ids.ids
    zero = model.explain(user, item, context={"hour": 2}, context_default="zero")
    require_law(model, zero, user, item, context={"hour": 2}, context_default="zero")
    assert set(zero.by_block()) & {"day", "user × day"} == set()
    mean = model.explain(user, item, context={"hour": 2}, context_default="mean")
    size = require_law(model, mean, user, item, context={"hour": 2}, context_default="mean")
    shares = [(data.context["day"].index == place).mean() for place in range(3)]
    for name in ("day", "user × day", "item × day", "day × hour"):
        of_levels = [
            model.explain(user, item, context={"hour": 2, "day": day}).by_block()[name]
            for day in levels
        ]
        expected = naive.dot(shares, of_levels)
        assert mean.by_block()[name] == pytest.approx(expected, abs=4 * EPSILON * size)
    assert {"day (mean)", "day (mean) × hour=2"} <= mean.to_dict().keys()


def test_unknown_ids():
    model, data = trained("everything"), interactions("everything")
    user, item = data.users.ids[4], data.items.ids[9]
    context = {"day": "sun", "hour": 2}
    with refused(UnknownIdError, "user", "-1"):
        model.explain(-1, item, context=context)
    cold = model.explain(-1, item, context=context, unknown="cold")
    assert "user" not in cold.by_block()
    require_law(model, cold, -1, item, context=context, unknown="cold")
    context["day"] = "tue"
    cold = model.explain(user, -1, context=context, unknown="cold")
    assert cold.by_block().keys() == {
        *("global", "user", "hour", "within user", "user × hour"),
    }
    require_law(model, cold, user, -1, context=context, unknown="cold")


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"pairs": "every"}, ValueError, ["pairs", "'every'"]),
        ({"unknown": "skip"}, ValueError, ["skip"]),
        ({"context": None}, ValueError, ["day", "missing"]),
        ({"context": {"day": "sun", "hour": [1, 2]}}, ValueError, ["hour"]),
        ({"context_default": "none"}, ValueError, ["context_default", "'none'"]),
    ],
)
def test_refusals(options, error, words):
    model, data = trained("everything"), interactions("everything")
    options = {"context": {"day": "sun", "hour": 2}, **options}
    with refused(error, *words):
        model.explain(data.users.ids[0], data.items.ids[0], **options)


def test_one_pair_at_a_time():
    data = interactions()
    with refused(ValueError, "one user", "2"):
        trained().explain(data.users.ids[:2], data.items.ids[0])
    with refused(TypeError, "item ids"):
        trained().explain(data.users.ids[0], None)
    with refused(ValueError, "not fitted"):
        Recommender().explain(1, 2)
    with refused(ValueError, "n must be"):
        trained().explain(data.users.ids[0], data.items.ids[0]).top(0)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_as_a_table(library):
    pytest.importorskip(library)
    data = interactions("everything")
    why = trained("everything").explain(
        data.users.ids[4], data.items.ids[9], context={"day": "sun", "hour": 2}
    )
    frame = why.to_frame(library)
    columns = {
        name: frame[name].to_pylist() if library == "pyarrow" else frame[name].to_list()
        for name in ("term", "kind", "fields", "value")
    }
    assert columns["value"] == sorted(why.values.tolist(), key=lambda value: -abs(value))
    assert dict(zip(columns["term"], columns["value"], strict=True)) == why.to_dict()
    kinds = {term.name: (term.kind, " × ".join(term.fields)) for term in why.terms}
    rows = zip(columns["term"], columns["kind"], columns["fields"], strict=True)
    assert all(kinds[name] == (kind, fields) for name, kind, fields in rows)
    assert [term.name for term in why.top(3)] == columns["term"][:3]


def test_as_text():
    data = interactions("everything")
    context = {"day": "sun", "hour": 2}
    why = trained("everything").explain(data.users.ids[4], data.items.ids[9], context=context)
    first, *lines, last = repr(why).splitlines()
    assert first == (
        f"Explanation(user {data.users.ids[4]}, item {data.items.ids[9]}: score {why.score:.4g})"
    )
    assert [line.split(maxsplit=1)[1] for line in lines] == [term.name for term in why.top(10)]
    assert last.endswith(f"{len(why) - 10} more terms")
    shown = [float(line.split()[0]) for line in [*lines, last]]
    assert math.fsum(shown) == pytest.approx(why.score, abs=0.01)


@pytest.mark.parametrize("of", [trained, posterior], ids=["fm", "posterior"])
def test_saved_and_loaded(of, tmp_path):
    model, data = of("everything"), interactions("everything")
    model.save(tmp_path / "model.fmknn")
    asked = data.users.ids[4], data.items.ids[9]
    context = {"day": "sun", "hour": 2}
    loaded = fmknn.load(tmp_path / "model.fmknn").explain(*asked, context=context)
    assert loaded.terms == model.explain(*asked, context=context).terms


@pytest.mark.parametrize("flavour", ["ids", "everything"])
def test_a_file_that_does_not_say_what_features_are(flavour):
    model, data = trained(flavour), interactions(flavour)
    asked, context = (data.users.ids[4], data.items.ids[9]), some_context(flavour)
    older = Recommender()
    older.estimator_, older.index_ = model.estimator_, model.index_
    older.catalog_ = replace(model.catalog_, encoders=None)
    why, known = (m.explain(*asked, context=context) for m in (older, model))
    assert why.values.tobytes() == known.values.tobytes()
    if flavour == "ids":
        assert why.terms == known.terms
    else:
        number = int(model.catalog_.user_rows.indices[model.catalog_.user_rows.indptr[4]])
        assert f"user feature {number}" in why.to_dict()
    assert why.by_block() == known.by_block()


def test_a_ranker():
    data = interactions("features").replace(values=None)
    model = Recommender(FMRanker(3, n_iter=3, random_state=0)).fit(data)
    user, item = data.users.ids[4], data.items.ids[9]
    why = model.explain(user, item)
    size = require_law(model, why, user, item)
    expected = expected_terms(data, model.params_, user=user, item=item)
    close(why.to_dict(), {name: term[3] for name, term in expected.items()}, size)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_factors=st.integers(0, 4),
    n_samples=st.integers(0, 4),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
@settings(max_examples=30, deadline=None)
def test_terms_of_any_model_add_up(seed, n_factors, n_samples, scale):
    rng = np.random.default_rng(seed)
    shape = (n_samples,) if n_samples else ()
    made = Posterior if n_samples else FMParams
    params = made(
        rng.normal(size=shape) if n_samples else rng.normal(),
        scale * rng.normal(size=(*shape, 9)),
        scale * rng.normal(size=(*shape, 9, n_factors)),
    )
    users, items = rng.permutation(4), rng.permutation(5)
    model = Recommender.from_params(params, users=users, items=items)
    user, item = int(users[1]), int(items[2])
    why = model.explain(user, item)
    require_law(model, why, user, item)
    mean = [
        float(np.mean([fm.w[p] for fm in params.samples()], dtype=np.float64)) for p in (1, 4 + 2)
    ]
    linear = [term.value for term in why.terms if term.kind == "linear"]
    assert linear == pytest.approx(mean, rel=1e-6)
    assert [term.name for term in why.terms] == [
        *("global", f"user={user}", f"item={item}", f"user={user} × item={item}")
    ]


@pytest.mark.parametrize("name", ["global", "user × item", "within user"])
def test_contexts_that_are_called_like_a_term(name):
    context = {name: ["mon", "tue", "mon", "tue"]}
    data = fmknn.Interactions.from_arrays(
        [0, 0, 1, 1], [0, 1, 0, 1], [1, 2, 3, 5.0], context=context
    )
    model = Recommender(FMRegressor(2, solver="als", n_iter=2, random_state=0)).fit(data)
    why = model.explain(0, 1, context={name: "tue"})
    size = require_law(model, why, 0, 1, context={name: "tue"})
    for sums in (why.by_field(), why.by_block()):
        assert math.fsum(sums.values()) == pytest.approx(why.score, abs=4 * EPSILON * size)


def test_names_that_are_the_same_are_added_up():
    table = fmknn.FeatureTable([0, 1], {"x": ["1", "2"], "x=1": [0.5, 2.0]})
    data = fmknn.Interactions.from_arrays([0, 0, 1, 1], [0, 1, 0, 1], [1, 2, 3, 5.0])
    data = data.replace(user_features=table)
    model = Recommender(FMRegressor(2, solver="als", n_iter=2, random_state=0)).fit(data)
    why = model.explain(0, 1)
    assert len(why.to_dict()) < len(why)
    require_law(model, why, 0, 1)
