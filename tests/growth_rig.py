"""Models that grow: small data in an old and a new part, every solver, every column by its name."""

from __future__ import annotations

import copy
import functools

import numpy as np
import planted
import pytest

from fmknn import (
    ALS,
    Adam,
    FeatureTable,
    FMClassifier,
    FMRanker,
    FMRegressor,
    Interactions,
    Recommender,
    WholeData,
)
from fmknn.data.growth import extended
from fmknn.data.history import History

ESTIMATORS = {
    "als": FMRegressor(3, solver=ALS(n_iter=4, l2_factors=3.0, l2_linear=2.0), random_state=0),
    "mcmc": FMRegressor(3, solver="mcmc", n_iter=8, random_state=0),
    "adam": FMRegressor(3, solver=Adam(epochs=6, factors_init_sigma=0.5), random_state=0),
    "ordinal": FMRegressor(3, loss="ordinal", n_iter=6, random_state=0),
    "logistic": FMClassifier(3, loss="logistic", n_iter=4, random_state=0),
    "probit": FMClassifier(3, loss="probit", n_iter=6, random_state=0),
    "whole-data": FMRanker(3, solver=WholeData(n_iter=4, alpha0=0.2), random_state=0),
    "bpr": FMRanker(3, loss="bpr", n_iter=4, random_state=0),
}
CLASSIFIERS, RANKERS = ("logistic", "probit"), ("whole-data", "bpr")
CLOSED_FORM = ("als", "mcmc", "adam", "whole-data")  # of somebody's row
ALONE = ("adam", "logistic", "bpr")  # who learn from new rows without the old ones
FLAVOURS = ("ids", "features", "context", "everything", "strings", "histories")
N_LATE = {"user": 4, "item": 8}


def models(solvers, flavours=FLAVOURS):
    """Each solver with each flavour, to parametrize by; the fast part of them has no mark."""
    return pytest.mark.parametrize(
        ("which", "flavour"),
        [
            pytest.param(which, flavour, marks=[] if fast else [pytest.mark.slow])
            for which in solvers
            for flavour in flavours
            for fast in [which in ("als", "adam") or flavour in ("everything", "histories")]
        ],
    )


def late_ids(flavour):
    """Some users and items that come later, between the others in the order of ids."""
    data = whole(flavour)
    return {
        "user": sorted(np.unique(data.user_ids)[2 : 6 * N_LATE["user"] : 6].tolist()),
        "item": sorted(np.unique(data.item_ids)[1 : 7 * N_LATE["item"] : 7].tolist()),
    }


@functools.cache
def whole(flavour):
    return planted.interactions("features" if flavour == "histories" else flavour)


def table_of(table, ids, **others):
    """The rows of some ids, a few values other than they were: {column: {id: value}}."""
    rows = [table.row(id_) for id_ in ids]
    columns = {
        name: [others.get(name, {}).get(id_, row[name]) for id_, row in zip(ids, rows, strict=True)]
        for name in table.columns
    }
    return FeatureTable(ids, columns, features=list(table.features))


def rows_of(data, which, tables):
    return Interactions.from_arrays(
        data.user_ids[which],
        data.item_ids[which],
        data.values[which],
        context={
            name: column.ids.ids[column.index][which] for name, column in data.context.items()
        },
        **tables,
    )


@functools.cache
def parts(flavour="ids", which="als"):
    """(old, new): new users, items, levels of contexts and of features come with the new rows."""
    data, late = whole(flavour), late_ids(flavour)
    is_late = np.isin(data.user_ids, late["user"]) | np.isin(data.item_ids, late["item"])
    is_late[::20] = True  # of people and items that are known
    if "hour" in data.context:
        is_late |= data.context["hour"].ids.ids[data.context["hour"].index] == 3
    first, later = late["user"][0], late["item"][0]
    changes = {"user": {"job": {first: "pilot"}}, "item": {"tags": {later: ("aa", "z")}}}
    halves = []
    for rows, known in ((~is_late, True), (is_late, False)):
        tables = {}
        for side, name in (("user", "users"), ("item", "items")):
            everybody, met = getattr(data, name).ids, getattr(data, f"{side}_ids")[rows]
            own = ~np.isin(everybody, late[side]) if known else np.isin(everybody, met)
            table = getattr(data, f"{side}_features")
            tables[f"{side}_features"] = table_of(table, everybody[own].tolist(), **changes[side])
        halves.append(rows_of(data, rows, tables))
    old, new = (typed(half, which) for half in halves)
    return (old.with_history(), new) if flavour == "histories" else (old, new)


def typed(data, which):
    """The rows with the values that an estimator takes."""
    if which in CLASSIFIERS:
        return data.replace(values=(data.values > 3).astype(np.float32))
    return data.replace(values=None) if which in RANKERS else data


@functools.cache
def fitted(which="als", flavour="ids"):
    """A model of the old part. Not to be changed: see :func:`fresh`."""
    return Recommender(ESTIMATORS[which]).fit(parts(flavour, which)[0])


def fresh(which="als", flavour="ids"):
    """The same model, which may grow."""
    return copy.copy(fitted(which, flavour))


@functools.cache
def went_on(which="als", flavour="ids"):
    """The model after the new part. Not to be changed."""
    return fresh(which, flavour).partial_fit(parts(flavour, which)[1])


@functools.cache
def went_on_alone(which, flavour="ids"):
    """The model after the new part without the old rows. Not to be changed."""
    old, new = parts(flavour, which)
    return fresh(which, flavour).partial_fit(new, known=old.take([]))


def both(flavour, which):
    return extended(*parts(flavour, which))


def error_on(model, data):
    """Mean square of the residuals; of a classifier, mean log loss."""
    got = model.predict(data.user_ids, data.item_ids, context_of(data), unknown="cold")
    wanted = model.targets(data.values)
    if isinstance(model.estimator_, FMClassifier):
        return float(-np.log(np.where(wanted == 1, got, 1 - got)).mean())
    return float(((got - wanted) ** 2).mean())


def context_of(data):
    return {name: column.ids.ids[column.index] for name, column in data.context.items()}


def levels_of(values):
    return sorted({level for held in values for level in held})


def column_names(data):
    """What each column of a model of these rows is, by the order that the README gives."""
    names = []
    for side, ids, table in (
        ("user", data.users, data.user_features),
        ("item", data.items, data.item_features),
    ):
        if table is None or table.id_feature:
            names += [f"{side}={id_}" for id_ in ids.ids.tolist()]
        for name in () if table is None else table.features:
            column = [table[name][place] for place in range(len(table))]
            if isinstance(table[name], History) or isinstance(column[0], (tuple, list)):
                names += [f"{side}:{name}={level}" for level in levels_of(column)]
            elif isinstance(column[0], str) or name in table.categorical:
                names += [f"{side}:{name}={level}" for level in sorted(set(column))]
            else:
                names.append(f"{side}:{name}")
    for name, context in data.context.items():
        names += [f"{name}={level}" for level in context.ids.ids.tolist()]
    return names


def by_name(model, names):
    """{column: its parameters, of all samples} as bytes."""
    assert model.n_features == len(names) == len(set(names))
    return {
        name: b"".join(s.w[p].tobytes() + s.V[p].tobytes() for s in model.samples())
        for p, name in enumerate(names)
    }


def bits(model):
    """All parameters, to compare."""
    return {name: array.tobytes() for name, array in model.params_.to_state().items()}


def some_levels(data):
    """A context that every call takes."""
    return {name: column.ids.ids.tolist()[0] for name, column in data.context.items()}


def answers(model, users, items, context):
    """What a model says of these users and items, to the last bit."""
    pairs = [list(side) for side in zip(*[(u, i) for u in users for i in items], strict=True)]
    top = model.recommend(users, n=len(items), candidates=items, context=context)
    everything = [
        model.scores(*pairs, context),
        model.predict(*pairs, context),
        top.scores,
        top.counts,
        model.n_training_rows(users),
        model.seen_pairs(*pairs),
        model.users_for(candidates=users, n=9, context=context).scores,
        model.recommend_for(n=9, candidates=items, context=context).scores,
    ]
    return [np.asarray(a).tobytes() for a in everything] + [top.items.tolist()]


def everything_of(model, data):
    """Answers about all users and items of some rows, and what the model knows."""
    own = answers(model, data.users.ids.tolist(), data.items.ids.tolist(), some_levels(data))
    known = [model.users.ids.tolist(), model.items.ids.tolist()]
    return [*own, *known, {name: ids.ids.tolist() for name, ids in model.contexts.items()}]


# --- newcomers

SIDES = ("user", "item")
OTHER = {"user": "item", "item": "user"}
FEATURES = {"user": ("age", "job"), "item": ("tags",)}
HAS_FEATURES = ("features", "everything", "histories")


def features_of(flavour, side, id_):
    """What is said of somebody: the numbers and levels that the training had."""
    if flavour not in HAS_FEATURES:
        return {}
    row = getattr(whole(flavour), f"{side}_features").row(id_)
    return {name: row[name] for name in FEATURES[side]}


def newcomers(flavour, side):
    """The ids that come, in descending order, and their feature table."""
    ids = late_ids(flavour)[side][::-1]
    rows = [features_of(flavour, side, id_) for id_ in ids]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return ids, {side: ids, **columns}


def histories_of(which, flavour, side, ids):
    """{id: {partner: value}}: the rows of the new part with partners that are known."""
    old, new = parts(flavour, which)
    known = getattr(old, f"{OTHER[side]}s").ids.tolist()
    values = np.ones(len(new)) if new.values is None else new.values
    histories = {}
    for own, partner, value in zip(
        getattr(new, f"{side}_ids").tolist(),
        getattr(new, f"{OTHER[side]}_ids").tolist(),
        values.tolist(),
        strict=True,
    ):
        if own in ids and partner in known:
            histories.setdefault(own, {})[partner] = value
    return histories


def add(model, side, given=None, **options):
    return getattr(model, f"add_{side}s")(given, **options)


def takes_history(which, flavour, side):
    """Whether the documentation says that a history can be used."""
    if which == "whole-data" and side == "item" and parts(flavour, which)[0].context:
        return False
    return which in CLOSED_FORM


@functools.cache
def added(which="als", flavour="ids", side="user"):
    """A model with all newcomers, with a history wherever that can be used. Not to be changed."""
    ids, table = newcomers(flavour, side)
    histories = histories_of(which, flavour, side, ids)
    context = some_levels(parts(flavour, which)[0])
    if not takes_history(which, flavour, side):
        histories = None
    return add(fresh(which, flavour), side, table, histories=histories, context=context)


def in_order(top):
    order = np.argsort(top.items[0])
    return top.items[0][order].tolist(), top.scores[0][order], top.predictions[0][order]


def untouched(which, flavour):
    model, old = fresh(which, flavour), parts(flavour, which)[0]
    before = everything_of(model, old)
    return (
        model,
        lambda: everything_of(model, old) == before and bits(model) == bits(fitted(which, flavour)),
    )
