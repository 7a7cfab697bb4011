"""What came in as a frame of one library goes out as one of the same."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from refusals import refused

import fmknn
from fmknn.data.frames import library_of
from fmknn.errors import MissingExtraError, ModelFileError
from fmknn.model import storage
from fmknn.serving.manifest import model_facts

KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
TYPES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}
COLUMNS = {
    "who": ["ann", "ann", "bob", "bob", "cat", "cat", "dan", "dan"],
    "what": [1, 2, 2, 3, 3, 1, 4, 2],
    "stars": [5.0, 3.0, 4.0, 1.0, 2.0, 5.0, 4.0, 3.0],
    "shop": ["a", "b", "a", "b", "a", "b", "a", "b"],
}
FM = fmknn.FMRegressor(2, solver="als", n_iter=2, random_state=0)


@pytest.fixture(params=KINDS)
def library(request):
    return request.param


def ratings_in(library):
    return fmknn.Interactions.from_frame(
        KINDS[library](COLUMNS), user="who", item="what", value="stars"
    )


@pytest.fixture
def without(monkeypatch):
    """``without(names)`` takes libraries away."""
    find_spec = importlib.util.find_spec

    def take_away(*names):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name in names else find_spec(name, *rest),
        )

    return take_away


def test_the_library_of_a_frame(library):
    assert library_of(KINDS[library](COLUMNS)) == library
    assert library_of(COLUMNS) is None
    with refused(TypeError, "data frame", "list"):
        library_of([1])


def test_interactions_remember_it_whatever_is_made_of_them(library):
    ratings = ratings_in(library)
    train, test = fmknn.splits.random(ratings, test=0.3, random_state=0)
    for some in (
        ratings,
        train,
        test,
        ratings.take([0]),
        ratings.replace(values=None),
        ratings.without_features(),
        ratings.with_history(),
        ratings.with_negatives(random_state=0),
    ):
        assert some.frame_library == library


def test_what_came_as_arrays_or_columns_has_none():
    columns = COLUMNS["who"], COLUMNS["what"], COLUMNS["stars"]
    assert fmknn.Interactions.from_arrays(*columns).frame_library is None
    ratings = fmknn.Interactions.from_frame(COLUMNS, user="who", item="what")
    assert ratings.frame_library is None
    top = fmknn.Recommender(fmknn.FMRanker(2, n_iter=1)).fit(ratings).recommend("ann", n=1)
    assert isinstance(top.to_frame(), pd.DataFrame)  # the first that is installed


def test_another_library_is_refused():
    with refused(ValueError, "library", "'dask'", "polars"):
        ratings_in("pandas").replace(frame_library="dask")


def test_answers_are_in_kind_also_after_save_and_load(library, tmp_path):
    model = fmknn.Recommender(FM).fit(ratings_in(library))
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    loaded.save(tmp_path / "again.fmknn")
    for one in (model, loaded, fmknn.load(tmp_path / "again.fmknn"), model.with_index("flat")):
        answers = [
            one.recommend(["ann", "dan"], n=2),
            one.recommend_for(history={1: 5.0}, n=2),
            one.recommend_for_many({"eve": {1: 5.0}}, n=2),
            one.users_for(history={"ann": 5.0}, n=2),
            one.similar_items([1], n=2),
            *one.recommend_all(n=2, chunk=3),
        ]
        assert {type(top.to_frame()) for top in answers} == {TYPES[library]}


def test_the_frame_is_that_of_an_explicit_library(library):
    top = fmknn.Recommender(FM).fit(ratings_in(library)).recommend(["ann", "dan"], n=2)
    for other, kind in TYPES.items():
        frame = top.to_frame(other)
        assert isinstance(frame, kind)
        if other == library:
            assert frame.equals(top.to_frame())


def test_a_library_that_is_gone_gives_way_to_the_first_that_is_there(without):
    top = fmknn.Recommender(FM).fit(ratings_in("pyarrow")).recommend("ann", n=2)
    without("pyarrow", "pandas")
    assert isinstance(top.to_frame(), pl.DataFrame)
    with refused(MissingExtraError, "pyarrow", "pip install"):
        top.to_frame("pyarrow")
    without(*KINDS)
    with refused(MissingExtraError, "pyarrow or pandas or polars"):
        top.to_frame()


def test_a_file_of_before_has_none_and_one_that_lies_is_refused(tmp_path):
    path = tmp_path / "model.fmknn"
    fmknn.Recommender(FM).fit(ratings_in("polars")).save(path)
    arrays, metadata = storage.load(path)
    for name in ("dask", 3, ["pandas"]):
        changed = json.loads(json.dumps(metadata))
        changed["catalog"]["frame_library"] = name
        storage.save(path, arrays, changed)
        with refused(ModelFileError, "library", repr(name)):
            fmknn.load(path)
    del metadata["catalog"]["frame_library"]
    storage.save(path, arrays, metadata)
    assert isinstance(fmknn.load(path).recommend("ann", n=1).to_frame(), pd.DataFrame)


def test_a_batch_run_goes_on_whatever_the_data_came_in():
    facts = [
        model_facts(fmknn.Recommender(FM).fit(ratings_in(library))._service) for library in KINDS
    ]
    assert facts[0] == facts[1] == facts[2]


def test_a_comparison_is_a_table_in_kind(library):
    train, test = fmknn.splits.random(ratings_in(library), test=0.3, random_state=0)
    models = {"FM": FM, "popularity": fmknn.baselines.Popularity()}
    result = fmknn.compare(models, train, test, "recall@2")
    assert isinstance(result.to_frame(), TYPES[library])
    assert isinstance(result.to_frame("polars"), pl.DataFrame)
    top = result.models["popularity"].recommend("ann", n=2)
    assert isinstance(top.to_frame(), TYPES[library])


SERIES = {
    "pandas": pd.Series,
    "pandas, text": lambda ids: pd.Series(ids, dtype="string"),
    "pandas, categories": lambda ids: pd.Series(ids, dtype="category"),
    "pandas, odd index": lambda ids: pd.Series(ids, index=[9, 7]),
    "pandas, Arrow": lambda ids: pd.Series(ids, dtype=pd.ArrowDtype(pa.string())),
    "polars": pl.Series,
    "polars, categories": lambda ids: pl.Series(ids, dtype=pl.Categorical),
    "pyarrow, chunked": lambda ids: pa.chunked_array([ids[:1], ids[1:]]),
    "pyarrow": pa.array,
    "an index": pd.Index,
}


@pytest.mark.parametrize("kind", SERIES)
def test_ids_may_be_a_column_of_a_frame(kind):
    ratings = fmknn.Interactions.from_frame(
        pd.DataFrame(COLUMNS), user="who", item="what", value="stars", context=["shop"]
    )
    model = fmknn.Recommender(FM).fit(ratings)
    users = SERIES[kind](["dan", "ann"])
    shops = {"shop": SERIES[kind](["b", "a"])}
    top = model.recommend(users, n=2, context=shops)
    wanted = model.recommend(["dan", "ann"], n=2, context={"shop": ["b", "a"]})
    assert top.users.tolist() == ["dan", "ann"]
    np.testing.assert_array_equal(top.positions, wanted.positions)
    (chunk,) = model.recommend_all(n=2, users=users, context={"shop": "a"})
    assert chunk.users.tolist() == ["dan", "ann"]
    predicted = model.predict(users, pa.array([4, 1]), shops)
    wanted = model.predict(["dan", "ann"], [4, 1], {"shop": ["b", "a"]})
    assert predicted.tolist() == wanted.tolist()
    assert model.n_training_rows(users).tolist() == [2, 2]


@pytest.mark.parametrize(
    "candidates",
    [pd.Series([1, 3]), pl.Series([1, 3]), pa.array([1, 3]), pd.Series([1, 3], dtype="Int64")],
    ids=["pandas", "polars", "pyarrow", "pandas, nullable"],
)
def test_candidates_may_be_a_column_of_a_frame(candidates):
    model = fmknn.Recommender(FM).fit(ratings_in("pandas"))
    top = model.recommend("dan", n=4, candidates=candidates)
    assert sorted(top.items[0].tolist()) == [1, 3]
    top = model.recommend("dan", n=4, exclude={"dan": candidates}, exclude_seen=False)
    assert sorted(top.items[0].tolist()) == [2, 4]
