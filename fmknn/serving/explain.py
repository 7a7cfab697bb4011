"""explain: a score as an exact sum of named terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._checks import plain, require_count
from .._threads import blas_threads
from ..data.encoders import SideEncoder
from ..data.frames import frame_from
from ..data.rows import SparseRows
from ..model.base import Model
from .queries import Block, Entities, context_blocks, id_list, require_choice
from .service import Service

__all__ = ["Explanation", "Term", "explain"]

_MOST_FEATURES = 500  # whose pairs are all named unless asked for
_SHOWN = 10  # terms in a repr
_NONE = -1  # a linear term has one part where a pair has two, w0 none
_KINDS = ("global", "linear", "pair")


class Term(NamedTuple):
    """One addend of a score.

    Attributes
    ----------
    name : str
        "global", a feature such as "user=196", "user:age" or "item:genres=Drama", or a pair:
        "user=196 × item=50"; "within user:history" is the sum of the pairs inside a field.
    kind : {"global", "linear", "pair"}
    fields : tuple of str
        None, one or two of: "user" and "item", which are the ids, "user:age", "item:genres" and
        so on, and the names of the contexts.
    value : float
    """

    name: str
    kind: str
    fields: tuple[str, ...]
    value: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A score as a sum of terms: ``math.fsum(explanation.to_dict().values())`` is the score.

    Attributes
    ----------
    user, item : id
    score : float
        As :meth:`fmknn.Recommender.scores` gives it; the terms add up to it but for the rounding
        of vectors to float32 there.
    values : ndarray of float64, shape (n_terms,)
        The terms: w0, the linear ones, the pairs.

    Examples
    --------
    >>> import fmknn
    >>> params = fmknn.FMParams(3.0, [0.0, 0.5, 0.1, 0.2], [[1.0], [2.0], [1.0], [-1.0]])
    >>> model = fmknn.Recommender.from_params(params, users=["bob", "ann"], items=[50, 22])
    >>> why = model.explain("ann", 22)
    >>> why.top(1)
    [Term(name='global', kind='global', fields=(), value=3.0)]
    >>> {name: round(value, 3) for name, value in why.by_field().items()}
    {'global': 3.0, 'user': 0.5, 'item': 0.2, 'user × item': -2.0}
    """

    user: Any
    item: Any
    score: float
    values: np.ndarray
    _first: np.ndarray
    _second: np.ndarray
    _labels: dict[str, list[str]]  # of what terms are made of: name, field and block
    _library: str | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        lines = [f"Explanation(user {self.user!r}, item {self.item!r}: score {self.score:.4g})"]
        lines += [f"  {term.value:<+10.4g} {term.name}" for term in self.top(_SHOWN)]
        if len(self) > _SHOWN:
            rest = math.fsum(self.values[self._order[_SHOWN:]])
            lines.append(f"  {rest:<+10.4g} {len(self) - _SHOWN} more terms")
        return "\n".join(lines)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """All terms: w0, the linear ones, the pairs."""
        return tuple(self._terms(np.arange(len(self))))

    def top(self, n: int = 10) -> list[Term]:
        """Return the n terms of the largest absolute value."""
        return self._terms(self._order[: require_count("n", n)])

    def to_dict(self) -> dict[str, float]:
        """Return the value of each term by its name; they add up to the score."""
        return _added_up((term.name, term.value) for term in self.terms)

    def to_frame(self, library: str | None = None) -> Any:
        """Return a data frame with the columns term, kind, fields and value, largest terms first.

        Parameters
        ----------
        library : {"pandas", "polars", "pyarrow"}, optional
            Default: what the training data came in, or else the first of these that is installed.

        Returns
        -------
        data frame

        Raises
        ------
        MissingExtraError
            If none is installed, or the one asked for is not.
        ValueError
            For another library.
        """
        terms = self._terms(self._order)
        columns = {
            "term": [term.name for term in terms],
            "kind": [term.kind for term in terms],
            "fields": [" × ".join(term.fields) for term in terms],
            "value": self.values[self._order],
        }
        return frame_from(columns, library, preferred=self._library)

    def by_field(self) -> dict[str, float]:
        """Return sums over ids, columns of features, contexts, and their pairs.

        Returns
        -------
        dict of str to float
            "global", "user", "user:age", …, "user × item:genres", …, "within item:genres".
        """
        return self._sums(self._labels["field"])

    def by_block(self) -> dict[str, float]:
        """Return sums over users and items, each with all of its features, contexts, and pairs.

        Returns
        -------
        dict of str to float
            "global", "user", "item", "weekday", …, "user × item", …, "within item".
        """
        return self._sums(self._labels["block"])

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(-np.abs(self.values), kind="stable")

    def _terms(self, which: np.ndarray) -> list[Term]:
        parts = self._first[which].tolist(), self._second[which].tolist()
        names, fields = self._labels["name"], self._labels["field"]
        return [
            Term(
                _name(names, a, b),
                _KINDS[(a != _NONE) + (b != _NONE)],
                tuple(fields[part] for part in (a, b) if part != _NONE),
                value,
            )
            for a, b, value in zip(*parts, self.values[which].tolist(), strict=True)
        ]

    def _sums(self, labels: list[str]) -> dict[str, float]:
        """Add up the terms whose parts have the same labels."""
        codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
        code = np.array([*(codes[label] for label in labels), _NONE])  # the last is that of no part
        parts = np.column_stack([code[self._second], code[self._first]])
        groups, group = np.unique(parts, axis=0, return_inverse=True)
        sums = np.bincount(group.ravel(), self.values).tolist()
        names = [_name(list(codes), a, b) for b, a in groups.tolist()]
        return _added_up(zip(names, sums, strict=True))


def _added_up(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sum of each name: columns and levels may be called so that two are the same."""
    sums: dict[str, float] = {}
    for name, value in values:
        sums[name] = sums.get(name, 0.0) + value
    return sums


def _name(names: list[str], a: int, b: int) -> str:
    """Return what a term of these two parts is called."""
    if a == _NONE:
        return "global"
    if b == _NONE:
        return names[a]
    return f"within {names[a]}" if a == b else f"{names[a]} × {names[b]}"


@dataclass(frozen=True, eq=False)
class _Features:
    """Features of one row: x_p w_p and, side by side for all samples, x_p v_p; float64."""

    names: list[str]
    fields: list[str]
    block: str
    linear: np.ndarray
    vectors: np.ndarray


def explain(
    service: Service,
    user: Any,
    item: Any,
    context: Mapping[str, Any] | None,
    *,
    context_default: str,
    unknown: str,
    pairs: str,
) -> Explanation:
    """Return the terms of a score; see :mod:`fmknn.serving.relations` for the arguments."""
    require_choice("pairs", pairs, ("auto", "feature", "field"))
    model, catalog = service.model, service.catalog
    users, items = _one(user, "user"), _one(item, "item")
    score = service.scores(users, items, context, unknown=unknown, context_default=context_default)
    contexts = context_blocks(catalog, context, 1, context_default, unknown=unknown)
    row = [
        _features_of_side(service, "user", users),
        _features_of_side(service, "item", items),
        *(_features_of_context(service, name, block) for name, block in contexts.items()),
    ]
    labels = {
        "name": [name for part in row for name in part.names],
        "field": [field for part in row for field in part.fields],
        "block": [part.block for part in row for _ in part.names],
    }
    linear = np.concatenate([part.linear for part in row])
    vectors = np.concatenate([part.vectors for part in row])
    if pairs == "feature" or (pairs == "auto" and len(linear) <= _MOST_FEATURES):
        first, second, products = _pairs_of_features(vectors)
    else:
        labels, (first, second, products) = _pairs_of_fields(vectors, labels)
    return Explanation(
        user=plain(users[0]),
        item=plain(items[0]),
        score=float(score[0]),
        values=np.concatenate([[model.w0], linear, model.query_scale * products]),
        _first=np.concatenate([[_NONE], np.arange(len(linear)), first]),
        _second=np.concatenate([np.full(1 + len(linear), _NONE), second]),
        _labels=labels,
        _library=catalog.frame_library,
    )


def _one(given: Any, what: str) -> np.ndarray:
    ids = id_list(given, what)
    if len(ids) != 1:
        raise ValueError(f"one {what} at a time is explained, got {len(ids)}")
    return ids


def _features_of_side(service: Service, what: str, ids: np.ndarray) -> _Features:
    catalog = service.catalog
    id_map, rows = (
        (catalog.users, catalog.user_rows) if what == "user" else (catalog.items, catalog.item_rows)
    )
    own = rows.take(id_map.positions(ids, unknown="mark"))
    id_name = f"{what}={ids[0]}"
    if catalog.encoders is not None:
        labels = [_label(catalog.encoders[what], p, id_name) for p in own.indices.tolist()]
    elif len(own.indices) == 1 and np.count_nonzero(rows.indices == own.indices) == 1:
        labels = [(id_name, what)]  # a single feature, and nobody else's
    else:
        labels = [(f"{what} feature {p}", what) for p in own.indices.tolist()]
    names, fields = [name for name, _ in labels], [field for _, field in labels]
    return _Features(names, fields, what, *_project(service.model, own))


def _label(encoder: SideEncoder, feature: int, id_name: str) -> tuple[str, str]:
    """Return the name of a feature, and that of its field."""
    first = encoder.first
    if not first <= feature < encoder.stop:
        return id_name, encoder.what
    for column in encoder.columns:
        if feature < first + column.width:
            break
        first += column.width
    field = f"{encoder.what}:{column.name}"
    return field if column.levels is None else f"{field}={column.levels[feature - first]}", field


def _features_of_context(service: Service, name: str, block: Block) -> _Features:
    if not isinstance(block, Entities):  # the mean of all levels
        q, b = block.project(service.model, service.n_jobs)
        return _Features([f"{name} (mean)"], [name], name, b, q.astype(np.float64))
    own, place = block.rows.take(block.places), int(block.places[0])
    level = service.catalog.contexts[name].ids.ids[place]
    n = len(own.indices)
    return _Features([f"{name}={level}"] * n, [name] * n, name, *_project(service.model, own))


def _project(model: Model, row: SparseRows) -> tuple[np.ndarray, np.ndarray]:
    x = row.values.astype(np.float64)
    samples = list(model.samples())
    linear = np.mean([sample.w[row.indices] * x for sample in samples], axis=0)
    vectors = [sample.V[row.indices] * x[:, None] for sample in samples]
    return linear, np.concatenate(vectors, axis=1)


_Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # one part, the other, inner product


def _pairs_of_features(vectors: np.ndarray) -> _Pairs:
    with blas_threads(1):  # several may round differently
        gram = vectors @ vectors.T
    first, second = np.triu_indices(len(vectors), 1)
    return first, second, gram[first, second]


def _pairs_of_fields(
    vectors: np.ndarray, labels: dict[str, list[str]]
) -> tuple[dict[str, list[str]], _Pairs]:
    """Return labels with the fields among them, their pairs, and those inside each."""
    n_features, blocks = len(vectors), dict(zip(labels["field"], labels["block"], strict=True))
    field = np.array(labels["field"], object)
    members = [vectors[field == name] for name in blocks]
    sums = np.array([own.sum(axis=0) for own in members]).reshape(len(blocks), vectors.shape[1])
    first, second, between = _pairs_of_features(sums)
    several = np.array([p for p, own in enumerate(members) if len(own) > 1], np.int64)
    # <x v_p, sum of the features before>: no difference of squares, so nothing cancels
    inside = [np.vdot(members[p][1:], members[p][:-1].cumsum(axis=0)) for p in several]
    own_labels = {"name": blocks, "field": blocks, "block": blocks.values()}
    return {kind: [*labels[kind], *more] for kind, more in own_labels.items()}, (
        n_features + np.concatenate([first, several]),
        n_features + np.concatenate([second, several]),
        np.concatenate([between, inside]),
    )
