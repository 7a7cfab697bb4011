"""Users and items that join a trained model: vocabulary, parameters and index grow, nothing moves.

Their own parameters are those that :mod:`fmknn.serving.foldin` solves, so that an added user gets
the lists that :meth:`fmknn.Recommender.recommend_for` gives somebody with this history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import plain
from ..data.features import FeatureTable
from ..data.ids import IdMap
from ..data.rows import SparseRows
from ..index.base import Index
from ..model.base import Model
from ..model.growth import grown
from ..model.projection import item_matrix
from .catalog import Catalog
from .foldin import FoldIn
from .growth import with_entities
from .queries import id_list
from .row_solver import Meetings

__all__ = ["Addition", "add"]


@dataclass(frozen=True)
class Addition:
    """What a model is after users or items were added.

    Attributes
    ----------
    model : Model
    catalog : Catalog
    index : Index
    table : FeatureTable
        The new ids and what was said of them.
    """

    model: Model
    catalog: Catalog
    index: Index
    table: FeatureTable


def add(
    fold_in: FoldIn,
    what: str,
    given: Any,
    histories: Mapping[Any, Any] | None,
    context: Mapping[str, Any] | None,
    *,
    unknown: str,
    context_default: str,
) -> Addition:
    """Return a model with more users or items; see :class:`fmknn.growing.Growing`.

    Parameters
    ----------
    fold_in : FoldIn
    what : {"user", "item"}
    given : FeatureTable, data frame, mapping of columns, ids, or None
    histories : mapping of id to history, optional
    context : mapping of str to a level, optional
    unknown : {"raise", "skip"}
    context_default : {"raise", "zero", "mean"}
    """
    service = fold_in.service
    catalog = service.catalog
    table = _sorted(_table(what, given, histories))
    histories = _checked_histories(what, histories, table, catalog)
    features = {name: table[name] for name in table.features}
    newcomers = fold_in.newcomers(
        what,
        [histories.get(plain(id_)) for id_ in table.ids],
        features,
        context,
        unknown=unknown,
        context_default=context_default,
    )
    thetas = newcomers.thetas(service.model, service.n_jobs)
    larger, columns, own = with_entities(
        catalog, what, table.ids, newcomers.rows, _pairs(what, newcomers.meetings, catalog)
    )
    theirs = None if thetas is None or not len(own) else own
    model = grown(service.model, columns, larger.user_rows.n_columns, theirs, thetas or ())
    index = service.index
    if what == "item":
        index = _appended(index, model, larger, len(table), service.n_jobs)
    return Addition(model, larger, index, table)


def _table(what: str, given: Any, histories: Any) -> FeatureTable:
    if given is None and isinstance(histories, Mapping):
        given = list(histories)
    if given is None:
        raise TypeError(f"there is nobody to add: give {what}s, or their histories")
    is_table = isinstance(given, (FeatureTable, Mapping)) or hasattr(given, "columns")
    if is_table or hasattr(given, "column_names"):  # a pyarrow table has these
        return FeatureTable.from_any(given, what)
    ids = id_list(given, what)
    repeated = len(ids) - len(IdMap.build(ids))
    if repeated:
        raise ValueError(f"{repeated} {what} ids are repeated: give each once")
    return FeatureTable(ids, {})


def _sorted(table: FeatureTable) -> FeatureTable:
    """Return the table in the order of its ids, in which a vocabulary takes them."""
    return table.align(IdMap.build(table.ids))


def _checked_histories(
    what: str, histories: Any, table: FeatureTable, catalog: Catalog
) -> Mapping[Any, Any]:
    known = catalog.users if what == "user" else catalog.items
    positions = known.positions(table.ids, unknown="mark")
    if len(positions) and positions.max() >= 0:
        id_ = plain(table.ids[int(np.argmax(positions >= 0))])
        raise ValueError(
            f"{what} {id_!r} is known already: partial_fit learns what is new of those who are"
        )
    if histories is None:
        return {}
    if not isinstance(histories, Mapping):
        raise TypeError(
            f"histories must be a mapping from {what} id to history, got {type(histories).__name__}"
        )
    added = set(table.ids.tolist())
    for id_ in histories:
        if plain(id_) not in added:
            raise ValueError(f"there is a history of {what} {plain(id_)!r}, who is not added")
    return {plain(id_): history for id_, history in histories.items()}


def _pairs(what: str, meetings: Meetings, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Return user and item of what is seen by now: the newcomers come after all others."""
    new = np.repeat(np.arange(len(meetings)), meetings.lengths)
    partners = meetings.partners.astype(np.int64)
    if what == "user":
        return len(catalog.users) + new, partners
    return partners, len(catalog.items) + new


def _appended(index: Index, model: Model, catalog: Catalog, n: int, n_jobs: int | None) -> Index:
    rows: SparseRows = catalog.item_rows.slice(len(catalog.items) - n, len(catalog.items))
    vectors = item_matrix(model, rows, n_jobs=n_jobs)
    if hasattr(index, "add"):
        return index.add(vectors)
    return index.build(np.concatenate([index.vectors, vectors]))
