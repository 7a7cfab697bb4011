"""TopN: what a search found, with ids, scores and predictions; in every form it is handed out."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from refusals import refused

from fmknn.data.ids import IdMap
from fmknn.index.base import Hits
from fmknn.serving.topn import TopN

INF = np.inf


def halves(top):
    return top.scores / 2


def top_of(
    positions, scores, counts, users=(7, 3), items=(10, 20, 30), offsets=(0.5, -1.0), predict=halves
):
    hits = Hits(np.array(positions, np.int32), np.array(scores, float), np.array(counts, np.int32))
    users = np.array(users, dtype=None if isinstance(users[0], int) else object)
    return TopN.of(users, hits, np.array(offsets), IdMap(list(items), "item"), predict)


@pytest.fixture
def top():
    """Two items for user 7, one for user 3, of three asked for."""
    return top_of([[2, 0, -1], [1, -1, -1]], [[3, 1, -INF], [2, -INF, -INF]], [2, 1])


def test_ids_positions_counts_and_full_scores(top):
    assert len(top) == 2
    assert top.users.tolist() == [7, 3]
    assert top.counts.tolist() == [2, 1]
    assert top.positions.tolist() == [[2, 0], [1, -1]]
    assert top.items.tolist() == [[30, 10], [20, None]]
    assert top.scores.tolist() == [[3.5, 1.5], [1.0, -INF]]
    assert top.scores.dtype == np.float64


def test_full_lists_keep_the_type_of_the_ids():
    top = top_of([[2, 0], [1, 2]], [[3, 1], [2, 0]], [2, 2])
    assert top.items.dtype == np.int64
    assert top.items.tolist() == [[30, 10], [20, 30]]


def test_predictions_are_the_link_of_the_full_scores(top):
    assert top.predictions[0].tolist() == [1.75, 0.75]
    assert top.predictions[1, 0] == 0.5


def test_iteration_gives_plain_values_without_padding(top):
    assert list(top) == [(7, [(30, 3.5), (10, 1.5)]), (3, [(20, 1.0)])]
    user, pairs = next(iter(top))
    assert [type(value) for value in (user, *pairs[0])] == [int, int, float]


def test_it_shows_what_is_in_it_and_not_the_model(top):
    assert "scores" in repr(top) and "_items" not in repr(top) and "_predict" not in repr(top)


def test_string_ids():
    top = top_of(
        [[1, 0], [0, -1]], [[3, 1], [2, -INF]], [2, 1], users=("ann", "bob"), items=("x", "y")
    )
    assert list(top) == [("ann", [("y", 3.5), ("x", 1.5)]), ("bob", [("x", 1.0)])]
    assert top.items.tolist() == [["y", "x"], ["x", None]]


def test_nothing_was_found():
    top = top_of([[-1, -1], [-1, -1]], [[-INF] * 2] * 2, [0, 0])
    assert list(top) == [(7, []), (3, [])]
    assert top.items.shape == top.scores.shape == (2, 0)


def test_nobody_asked():
    hits = Hits.empty(0, 5)
    top = TopN.of(np.empty(0, np.int64), hits, np.empty(0), IdMap([1]), halves)
    assert list(top) == []
    assert len(top) == 0


def columns_of(frame, library):
    names = ("user", "item", "score", "rank")
    if library == "pyarrow":
        return {name: frame[name].to_pylist() for name in names}
    return {name: frame[name].to_list() for name in names}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("users", [(7, 3), ("ann", "bob")])
def test_to_frame(library, users):
    module = pytest.importorskip(library)
    kind = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}[library]
    top = top_of([[2, 0, -1], [1, -1, -1]], [[3, 1, -INF], [2, -INF, -INF]], [2, 1], users=users)
    frame = top.to_frame(library)
    assert isinstance(frame, getattr(module, kind))
    assert columns_of(frame, library) == {
        "user": [users[0], users[0], users[1]],
        "item": [30, 10, 20],
        "score": [3.5, 1.5, 1.0],
        "rank": [1, 2, 1],
    }


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("users", [(7, 3), ("ann", "bob")])
def test_to_frame_of_nothing_has_the_columns(library, users):
    pytest.importorskip(library)
    frame = top_of([[-1], [-1]], [[-INF]] * 2, [0, 0], users=users).to_frame(library)
    assert columns_of(frame, library) == {"user": [], "item": [], "score": [], "rank": []}


@pytest.mark.parametrize("names", [("item", "user"), ("item", "similar_item")])
def test_the_first_two_columns_are_called_by_what_they_hold(names):
    pl = pytest.importorskip("polars")
    hits = Hits(np.array([[1]], np.int32), np.array([[2.0]]), np.array([1], np.int32))
    asked = np.array([7]), hits, np.zeros(1), IdMap([10, 20]), halves
    frame = TopN.of(*asked, names=names).to_frame("polars")
    assert isinstance(frame, pl.DataFrame) and frame.columns == [*names, "score", "rank"]
    assert frame.rows() == [(7, 20, 2.0, 1)]


def test_to_frame_takes_the_first_library_that_is_installed(top):
    pandas = pytest.importorskip("pandas")
    assert isinstance(top.to_frame(), pandas.DataFrame)


def test_to_frame_without_a_library_names_what_to_install(top, monkeypatch):
    from fmknn.errors import MissingExtraError

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused(MissingExtraError, "pandas", "pip install"):
        top.to_frame()


def test_to_frame_refuses_another_library(top):
    with refused(ValueError, "library", "dask"):
        top.to_frame("dask")


def test_a_row_of_the_frame_is_a_step_of_the_iteration(top):
    pytest.importorskip("polars")
    rows = top.to_frame("polars").rows()
    flat = [(user, *pair, rank) for user, pairs in top for rank, pair in enumerate(pairs, 1)]
    assert rows == flat
    assert [len(list(group)) for _, group in itertools.groupby(rows, key=lambda row: row[0])] == [
        2,
        1,
    ]
