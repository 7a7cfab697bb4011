"""A file with valid checksums whose parts do not fit is refused: no byte of it is trusted."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest
from planted import classifier, clicks, interactions, regressor, same_answers, trained
from refusals import refused

import fmknn
from fmknn import Adam, FaissIndex, FMClassifier, FMRanker, FMRegressor, Recommender, WholeData
from fmknn.errors import ModelFileError
from fmknn.model import storage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.fmknn"


@functools.cache
def saved_model():
    """A model with all that one can have: features, two contexts, cells."""
    return trained("everything").with_index(FaissIndex("IVF", nlist=3, nprobe=2))


def contents(path):
    saved_model().save(path)
    arrays, metadata = storage.load(path)
    return dict(arrays), copy.deepcopy(metadata)


def assert_refused(path, arrays, metadata, *words):
    storage.save(path, arrays, metadata)
    with warnings.catch_warnings(), refused(ModelFileError, path, *words):
        warnings.simplefilter("error")
        fmknn.load(path)


def names(part):
    """The arrays of the file whose names begin like this, known before any test runs."""
    model = saved_model()
    state = {
        "model/": model.params_.to_state(),
        "catalog/": model.catalog_.to_state()[0],
        "index/": model.index_.to_state()[0],
    }
    return [prefix + name for prefix in state if prefix.startswith(part) for name in state[prefix]]


LONG = [name for name in names("") if name != "model/w0"]
IDS = ["catalog/users", "catalog/items", "catalog/context0/ids", "catalog/context1/ids"]
IDS += [name for name in names("") if name.endswith("levels")]
POSITIONS = [n for n in names("") if n.endswith(("indptr", "indices", "counts", "cell_of"))]
NUMBERS = [name for name in names("") if name not in POSITIONS + IDS]


def test_the_file_holds_no_item_vectors(path):
    arrays, _ = contents(path)
    assert set(arrays) == set(names(""))
    assert {name for name in arrays if name.startswith("index/")} == {
        "index/centroids",
        "index/cell_of",
    }


# --- any array that does not fit ---------------------------------------------------------------


@pytest.mark.parametrize("name", LONG)
def test_an_array_that_is_too_short_or_too_long(path, name):
    arrays, metadata = contents(path)
    array = arrays[name]
    for other in (array[:-1], array[:0], np.concatenate([array, array[-1:]])):
        assert_refused(path, {**arrays, name: other}, metadata)


@pytest.mark.parametrize("name", names(""))
def test_an_array_of_other_dimensions(path, name):
    arrays, metadata = contents(path)
    assert_refused(path, {**arrays, name: arrays[name][None]}, metadata)


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_and_counts_that_are_none(path, name):
    arrays, metadata = contents(path)
    array = arrays[name].astype(np.int64)
    others = [
        array.astype(np.float64),
        array > 0,
        np.full(len(array), np.nan),
        array + 2**31,
        array + 2**62,
        array - 2**31,
        array - 1000,
        -array - 1,
        np.full(len(array), 2**63, np.uint64),
        np.array([str(value) for value in array], object),
    ]
    for other in others:
        if not np.array_equal(other, array):
            assert_refused(path, {**arrays, name: other}, metadata)


@pytest.mark.parametrize("name", [name for name in names("") if name.endswith("counts")])
def test_counts_of_no_rows(path, name):
    arrays, metadata = contents(path)
    assert_refused(path, {**arrays, name: arrays[name] * 0}, metadata)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite(path, name, bad):
    arrays, metadata = contents(path)
    if name == "model/w0" and bad == 1e300:
        return  # a float64 that can hold it
    array = arrays[name].astype(np.float64).copy()
    array[(-1,) * array.ndim] = bad
    assert_refused(path, {**arrays, name: array}, metadata)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_text(path, name):
    arrays, metadata = contents(path)
    text = np.full(arrays[name].shape, "1.5", object)
    assert_refused(path, {**arrays, name: text}, metadata)


def test_parameters_whose_item_vectors_overflow(path):
    arrays, metadata = contents(path)
    V = np.full_like(arrays["model/V"], 3e38)
    assert_refused(path, {**arrays, "model/V": V}, metadata, "vectors")


@pytest.mark.parametrize("name", IDS)
def test_ids_that_are_not_distinct(path, name):
    arrays, metadata = contents(path)
    assert_refused(path, {**arrays, name: np.repeat(arrays[name][:1], len(arrays[name]))}, metadata)


@pytest.mark.parametrize("name", [n for n in names("") if n.endswith("indices")])
def test_lists_that_are_not_ascending(path, name):
    arrays, metadata = contents(path)
    indptr = arrays[name.replace("indices", "indptr")]
    long = np.flatnonzero(np.diff(indptr) > 1)
    if len(long) == 0:  # a context's levels have one feature each
        return
    indices = arrays[name].copy()
    first, last = indptr[long[0]], indptr[long[0] + 1]
    indices[first:last] = indices[first:last][::-1]
    assert_refused(path, {**arrays, name: indices}, metadata, "ascending")


def test_an_array_that_nothing_needs(path):
    arrays, metadata = contents(path)
    assert_refused(path, {**arrays, "index/vectors": np.ones(3)}, metadata, "index/vectors")


def test_fewer_factors_than_the_estimator_says(path):
    arrays, metadata = contents(path)
    V = arrays["model/V"][:, :3]
    assert_refused(path, {**arrays, "model/V": V}, metadata, "3 factors", "5")


def test_fewer_features_than_the_catalog_says(path):
    arrays, metadata = contents(path)
    short = {name: arrays[name][:-1] for name in ("model/w", "model/V")}
    assert_refused(path, {**arrays, **short}, metadata, "features")


def test_seen_items_of_users_without_training_rows(path):
    arrays, metadata = contents(path)
    counts = arrays["catalog/row_counts"].copy()
    assert (counts == 0).any()
    moved = counts + np.where(counts == 0, 1, 0)
    moved[np.argmax(counts)] -= (counts == 0).sum()
    assert_refused(path, {**arrays, "catalog/row_counts": moved}, metadata, "row_counts", "seen")


def test_a_context_that_occurs_in_other_rows_than_there_are(path):
    arrays, metadata = contents(path)
    counts = arrays["catalog/context1/counts"] * 2
    assert_refused(path, {**arrays, "catalog/context1/counts": counts}, metadata, "'hour'")


# --- any piece of the metadata that does not fit -----------------------------------------------


@pytest.mark.parametrize("key", ["estimator", "link", "catalog", "index"])
@pytest.mark.parametrize("value", [None, [], {}, "x", 3, True, [["kind", "Flat"]]])
def test_metadata_of_another_form(path, key, value):
    arrays, metadata = contents(path)
    assert_refused(path, arrays, {**metadata, key: value})


@pytest.mark.parametrize(
    "key, name, value",
    [
        ("link", "target_range", [5.0, 1.0]),
        ("link", "target_range", [5.0]),
        ("link", "target_range", [1.0, 3.0, 5.0]),
        ("link", "target_range", ["1", "5"]),
        ("link", "target_range", [False, True]),
        ("link", "target_range", [1, 10**400]),
        ("link", "target_range", "15"),
        ("catalog", "n_features", "96"),
        ("catalog", "n_features", 10**6),
        ("catalog", "n_features", 10**400),
        ("catalog", "n_features", -1),
        ("catalog", "n_features", 96.0),
        ("catalog", "contexts", []),
        ("catalog", "contexts", ["day", "day"]),
        ("catalog", "contexts", ["day", 3]),
        ("catalog", "contexts", ["day", "hour", "month"]),
        ("catalog", "contexts", "dh"),
        ("catalog", "contexts", None),
        ("index", "kind", "Flat"),
        ("index", "kind", "HNSW"),
        ("index", "kind", ["IVF"]),
        ("index", "kind", None),
        ("index", "nlist", 4),
        ("index", "nlist", "3"),
        ("index", "nlist", 3.0),
        ("index", "nlist", True),
        ("index", "nprobe", 2.5),
        ("index", "nprobe", 0),
        ("index", "nprobe", [2]),
        ("index", "n_jobs", 0),
        ("index", "n_jobs", "all"),
        ("index", "n_jobs", 1.5),
        ("index", "n_jobs", True),
        ("estimator", "class", "FMClassifier"),
        ("estimator", "class", "Recommender"),
        ("estimator", "class", ["FMRegressor"]),
        ("estimator", "solver", "lbfgs"),
        ("estimator", "solver", {"LBFGS": {}}),
        ("estimator", "solver", {"Adam": {"epoch": 3}}),
        ("estimator", "solver", {"Adam": {"epochs": 0}}),
        ("estimator", "solver", {"Adam": {"linear_lr": "fast"}}),
        ("estimator", "solver", {"Adam": {"a\nb": 1}}),
        ("estimator", "params", {}),
    ],
)
def test_a_setting_that_does_not_fit(path, key, name, value):
    arrays, metadata = contents(path)
    metadata[key][name] = value
    assert_refused(path, arrays, metadata)


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_factors", 4),
        ("n_factors", "5"),
        ("n_factors", 5.5),
        ("loss", "logistic"),
        ("n_iter", 0),
        ("n_iter", "3"),
        ("random_state", "0"),
        ("random_state", -1),
        ("random_state", 0.5),
        ("n_jobs", 0),
        ("n_jobs", "all"),
        ("progress", "no"),
        ("callbacks", []),
    ],
)
def test_a_setting_of_the_estimator_that_does_not_fit(path, name, value):
    arrays, metadata = contents(path)
    metadata["estimator"]["params"][name] = value
    assert_refused(path, arrays, metadata)


@pytest.mark.parametrize("classes", [[0], [0, 1, 2], [1, 0], [1, 1], ["a", "b"], [False, True], 2])
def test_classes_that_are_not_two(path, classes):
    Recommender(classifier()).fit(clicks()).save(path)
    arrays, metadata = storage.load(path)
    assert_refused(path, arrays, {**metadata, "link": {"classes": classes}})


@pytest.mark.parametrize("loss", ["squared", "", 1, None, []])
def test_classes_of_an_unknown_loss(path, loss):
    Recommender(classifier()).fit(clicks()).save(path)
    arrays, metadata = storage.load(path)
    assert_refused(path, arrays, {**metadata, "link": {**metadata["link"], "loss": loss}})


def test_what_is_left_as_it_was_still_loads(path):
    storage.save(path, *contents(path))
    ask = {"n": 5, "context": {"day": "mon", "hour": 1}}
    users = saved_model().users.ids
    assert same_answers(
        fmknn.load(path).recommend(users, **ask), saved_model().recommend(users, **ask)
    )


# --- the estimator is kept whole ---------------------------------------------------------------

ESTIMATORS = {
    "regressor": regressor(n_jobs=2, n_iter=3),
    "name": FMRegressor(3, n_iter=2, random_state=7),
    "defaults": FMRegressor(),
    "sagemaker": FMRegressor(2, solver=Adam.sagemaker(epochs=1), random_state=1),
    "numpy": FMRegressor(
        np.int64(3), solver=Adam(epochs=np.int32(2), linear_lr=np.float32(0.01)), n_iter=np.int64(1)
    ),
    "classifier": FMClassifier(2, n_iter=2, random_state=3),
    "ranker": FMRanker(2, solver=WholeData(alpha0=0.1, n_iter=2), random_state=3),
    "ranker of defaults": FMRanker(),
}


@pytest.mark.parametrize("which", ESTIMATORS)
def test_the_settings_of_the_estimator_come_back(path, which):
    estimator = ESTIMATORS[which]
    data = clicks() if which == "classifier" else interactions()
    Recommender(estimator).fit(data).save(path)
    loaded = fmknn.load(path)
    for other in (loaded.estimator, loaded.estimator_):
        assert type(other) is type(estimator)
        solver, loss = estimator.resolved()  # a default is written out
        assert other.get_params() == {**estimator.get_params(), "solver": solver, "loss": loss}
    assert loaded.estimator is not loaded.estimator_
    assert not hasattr(loaded.estimator, "params_")


def test_a_loaded_model_trains_like_the_saved_one(path):
    first = Recommender(regressor()).fit(interactions())
    first.save(path)
    loaded, users = fmknn.load(path), first.users.ids
    again = loaded.fit(interactions())
    assert same_answers(again.recommend(users, 10), first.recommend(users, 10))


def test_callbacks_and_a_generator_are_not_kept(path):
    generator = np.random.default_rng(0)
    estimator = FMRegressor(2, n_iter=1, random_state=generator, callbacks=[lambda step: None])
    Recommender(estimator).fit(interactions()).save(path)
    loaded = fmknn.load(path).estimator_
    assert loaded.random_state is None
    assert list(loaded.callbacks) == []


def test_a_loaded_estimator_scores_matrices(path):
    model = trained("everything")
    model.save(path)
    loaded = fmknn.load(path).estimator_
    X = np.random.default_rng(0).normal(size=(20, model.params_.n_features))
    assert loaded.n_features_in_ == model.params_.n_features
    np.testing.assert_allclose(loaded.predict(X), np.clip(model.params_.score(X), 1, 5))
    with refused(ValueError, "features"):
        loaded.predict(X[:, 1:])
    with refused(ValueError, "vocabulary", "loaded", "scores matrices", "Recommender"):
        loaded.predict(interactions("everything"))


class Other(FMRegressor):
    """Somebody's own estimator, which a file can't name."""


class OwnSolver(Adam):
    """Somebody's own settings."""


@pytest.mark.parametrize(
    "estimator, word",
    [(Other(2, n_iter=1), "Other"), (FMRegressor(2, solver=OwnSolver(epochs=1)), "OwnSolver")],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, estimator, word):
    model = Recommender(estimator).fit(interactions())
    with refused(TypeError, word):
        model.save(tmp_path / "model.fmknn")
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_load_would_not_know_leaves_the_good_file(tmp_path):
    class OwnIndex(fmknn.FaissIndex):
        pass

    seen = fmknn.Interactions.from_arrays([1, 1, 2], [1, 2, 1], [1.0, 2.0, 3.0])
    model = fmknn.Recommender(fmknn.FMRegressor(n_iter=1)).fit(seen)
    path = tmp_path / "m.fmknn"
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="OwnIndex can't be saved"):
        model.with_index(OwnIndex()).save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"solver": "bpr"}, {"n_factors": 9}])
def test_settings_that_are_not_those_of_the_fit_are_not_saved(tmp_path, change):
    log = fmknn.Interactions.from_arrays([1, 1, 2], [7, 8, 7])
    model = fmknn.Recommender(fmknn.FMRanker(2, n_iter=1)).fit(log)
    model.estimator_.set_params(**change)
    with pytest.raises(ValueError, match=r"another loss|9 factors|2 factors"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
