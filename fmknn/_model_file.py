"""What is in the file of a saved recommender. Reading trusts no byte of it.

Checksums find damage, not intent: each part is therefore checked for itself and against the
others before a kernel, which looks at no bounds, follows it. The item vectors are not in the file,
they are projected again from the parameters, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ._checks import plain, require_bool, require_count
from .backends.spark.config import SparkFM
from .errors import ModelFileError
from .estimators import FMClassifier, FMRanker, FMRegressor
from .index.base import Index
from .index.exact import ExactIndex
from .index.faiss_index import FaissIndex
from .model import storage
from .model.base import Model
from .model.posterior import model_of_state
from .model.projection import item_matrix
from .serving.catalog import Catalog
from .solvers.adam import Adam
from .solvers.als import ALS
from .solvers.bpr import BPR
from .solvers.gibbs import Gibbs
from .solvers.row_rules import rule_of_state
from .solvers.whole_data import WholeData

__all__ = ["read", "write"]

_ESTIMATORS: dict[str, Any] = {
    "FMRegressor": FMRegressor,
    "FMClassifier": FMClassifier,
    "FMRanker": FMRanker,
}
_INDEXES: dict[str, Any] = {kind.__name__: kind for kind in (ExactIndex, FaissIndex)}
_MOST_TIMES = 256  # the bytes of the file's arrays: that much the item vectors may take
_SOLVERS: dict[str, Any] = {
    kind.__name__: kind for kind in (Adam, ALS, BPR, Gibbs, SparkFM, WholeData)
}
_SETTINGS = ("n_factors", "loss", "n_iter", "random_state", "n_jobs", "progress")


def write(path: Any, estimator: Any, catalog: Catalog, index: Index) -> None:
    """Write a fitted recommender to one file, entirely or not at all.

    Raises
    ------
    TypeError
        For an estimator, a solver or an index that :func:`read` would not know.
    ValueError
        If the vectors are too many or too large for :func:`read`.
    """
    if hasattr(index, "local"):  # it searches elsewhere: what is saved is its twin on this machine
        index = index.local()
    if type(index) is not _INDEXES.get(type(index).__name__):
        raise TypeError(
            f"an index of type {type(index).__name__} can't be saved: "
            'save with_index("exact") and set the index again after load'
        )
    metadata = {
        "kind": "recommender",
        "estimator": _estimator_state(estimator),
        "link": {**estimator.link_state(), "rows": estimator.row_rule_state()},
        "catalog": catalog.to_state()[1],
        "index": {"class": type(index).__name__, **index.to_state()[1]},
    }
    arrays = _arrays(estimator.params_, catalog, index)
    _require_proportion(estimator.params_, catalog, arrays)
    _require_finite_queries(estimator.params_, catalog)
    _require_as_fitted(estimator)
    storage.save(path, arrays, metadata)


def read(path: Any) -> tuple[Any, Catalog, Index]:
    """Return the estimator, the catalog and the index that :func:`write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is damaged, of a newer format, something else, or contradicts itself.
    """
    arrays, metadata = storage.load(path)
    if metadata.get("kind") != "recommender":
        kind = repr(metadata.get("kind"))[:40]  # whatever the file brings, in one short line
        raise ModelFileError(f"{path} is a saved {kind}, not a recommender")
    try:
        return _rebuild(arrays, metadata)
    except (
        AttributeError,  # of metadata that has another JSON type, as some of the others are
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:
        what = " ".join(str(error).split())  # in one line, whatever names the file brings
        raise ModelFileError(f"{path} is not a complete model: {what}") from error


def _rebuild(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> tuple[Any, Catalog, Index]:
    estimator = _estimator(metadata["estimator"])
    params = model_of_state(_part("model/", arrays))
    _set_link(estimator, metadata["link"], len(next(params.samples()).cutpoints))
    catalog = Catalog.from_state(_part("catalog/", arrays), metadata["catalog"])
    _require_equal("factors", params.n_factors, estimator.n_factors)
    _require_equal("features", params.n_features, catalog.item_rows.n_columns)
    _require_proportion(params, catalog, arrays)
    _require_finite_queries(params, catalog)
    with np.errstate(over="ignore"):  # what is too large is infinite, and the index refuses it
        vectors = item_matrix(params, catalog.item_rows, n_jobs=estimator.n_jobs)
    settings = metadata["index"]
    kind = _INDEXES[settings.get("class", "FaissIndex")]  # older files do not say
    index = kind.from_state(vectors, _part("index/", arrays), settings)
    spare = set(arrays) - set(_arrays(params, catalog, index))
    if spare:
        raise ValueError(f"nothing needs the array {min(spare)!r}")
    estimator.adopt(params)
    rule = metadata["link"].get("rows")  # older files do not have it
    estimator.set_row_rule(None if rule is None else rule_of_state(rule))
    return estimator, catalog, index


def _require_as_fitted(estimator: Any) -> None:
    """Refuse what :func:`read` would refuse: settings that were changed after the fit."""
    _require_equal("factors", estimator.params_.n_factors, estimator.n_factors)
    rule = estimator.row_rule_state()
    if rule is not None:
        estimator.set_row_rule(rule_of_state(rule))


def _require_equal(what: str, got: int, wanted: int) -> None:
    if got != wanted:
        raise ValueError(f"the parameters have {got} {what}, the rest of the model {wanted}")


def _require_proportion(params: Model, catalog: Catalog, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse item vectors out of all proportion to the file, before there is memory for them.

    In a file that :func:`write` wrote an item has 16 bytes at least, its id and where its features
    begin. So up to 1,023 numbers a vector always pass, and any number of them if there are no more
    than 256 items to a feature.
    """
    n_items, size = len(catalog.items), sum(array.nbytes for array in arrays.values())
    width = params.n_factors * sum(1 for _ in params.samples()) + 1
    needed = n_items * width * np.dtype(np.float32).itemsize
    if needed > _MOST_TIMES * size:
        raise ValueError(
            f"the vectors of {n_items} items with {width} numbers each would take {needed} "
            f"bytes, above {_MOST_TIMES} times the {size} bytes of everything else"
        )


def _require_finite_queries(params: Model, catalog: Catalog) -> None:
    """Refuse users and contexts that add up beyond float32, by a bound that needs no vectors.

    |Σ_p x_p v_pf| ≤ Σ_p |x_p| max_f |v_pf|, and a query adds a user and a level of each context.
    """
    largest = np.zeros(params.n_features)
    for sample in params.samples():
        np.maximum(largest, np.abs(sample.V).max(axis=1, initial=0.0), out=largest)
    sides = [catalog.user_rows, *(side.rows for side in catalog.contexts.values())]
    reach = sum((abs(rows.to_scipy()) @ largest).max(initial=0.0) for rows in sides)
    if reach > np.finfo(np.float32).max:
        raise ValueError("the vectors of users and contexts add up to numbers beyond float32")


def _estimator_state(estimator: Any) -> dict[str, Any]:
    """Return its settings as JSON values. A generator can't be one, and callbacks aren't kept."""
    name = type(estimator).__name__
    if type(estimator) is not _ESTIMATORS.get(name):
        raise TypeError(f"a {name} can't be saved: there are {', '.join(_ESTIMATORS)}")
    solver, loss = estimator.resolved()  # another version may choose otherwise by default
    params = {name: plain(getattr(estimator, name)) for name in _SETTINGS} | {"loss": loss}
    params["progress"] = bool(params["progress"])
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    return {"class": name, "params": params, "solver": _solver_state(solver)}


def _solver_state(solver: Any) -> str | dict[str, dict[str, Any]]:
    if isinstance(solver, str):
        return solver
    name = type(solver).__name__
    if type(solver) is not _SOLVERS.get(name):
        raise TypeError(
            f"a solver of type {type(solver).__name__} can't be saved: "
            "set solver='adam' on the fitted estimator to save the model without it"
        )
    return {name: {key: plain(value) for key, value in solver.get_params().items()}}


def _estimator(state: Mapping[str, Any]) -> Any:
    params, solver = state["params"], state["solver"]
    if set(params) != set(_SETTINGS):
        raise ValueError(f"the settings of the estimator are not {', '.join(_SETTINGS)}")
    if params["random_state"] is not None:
        require_count("random_state", params["random_state"], 0)
    require_bool("progress", params["progress"])
    if isinstance(solver, Mapping):
        ((name, settings),) = solver.items()
        solver = _SOLVERS[name](**settings)
    estimator = _ESTIMATORS[state["class"]](**params, solver=solver)
    estimator.solver_spec()  # refuses what is out of range
    return estimator


def _set_link(estimator: Any, state: Mapping[str, Any], n_cutpoints: int) -> None:
    """Give back what scores stand for: the range of the targets, all grades, or two classes."""
    if isinstance(estimator, FMRanker):
        _require_equal("cutpoints", n_cutpoints, 0)
        estimator.set_link_state(dict(state))
        return
    is_classifier = isinstance(estimator, FMClassifier)
    low, high = pair = state["classes" if is_classifier else "target_range"]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in pair):
        raise ValueError(f"the targets must be two numbers, got {low!r} and {high!r}")
    if float(low) > float(high) or (is_classifier and low == high):
        raise ValueError(f"the targets {low!r} and {high!r} are not in ascending order")
    if is_classifier and state.get("loss", "logistic") not in ("logistic", "probit"):
        raise ValueError("the classes are of an unknown loss")
    if not is_classifier and "grades" in state:
        _require_grades(state["grades"], low, high, n_cutpoints)
    elif n_cutpoints:
        raise ValueError(f"there are {n_cutpoints} cutpoints, but no grades")
    estimator.set_link_state(state)


def _require_grades(grades: Any, low: float, high: float, n_cutpoints: int) -> None:
    numbers = isinstance(grades, list) and all(type(grade) in (int, float) for grade in grades)
    if not numbers or not all(a < b for a, b in pairwise(grades)):
        raise ValueError("the grades are not numbers in ascending order")
    if not 2 <= len(grades) == n_cutpoints + 1:
        raise ValueError(f"there are {len(grades)} grades and {n_cutpoints} cutpoints")
    if [grades[0], grades[-1]] != [low, high]:
        raise ValueError(f"the grades are not those of targets from {low!r} to {high!r}")


def _arrays(params: Model, catalog: Catalog, index: Index) -> dict[str, np.ndarray]:
    parts = {
        "model/": params.to_state(),
        "catalog/": catalog.to_state()[0],
        "index/": index.to_state()[0],
    }
    return {prefix + name: array for prefix, part in parts.items() for name, array in part.items()}


def _part(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
