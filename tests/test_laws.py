"""The laws of the house where they hold for whole models: on planted data, and on real ratings."""

from __future__ import annotations

import functools
import json
import multiprocessing
import pickle
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import realdata
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import classifier, clicks, same_answers, trained
from refusals import refused
from textbook import entities

import fmknn
from fmknn import FaissIndex, FMRegressor, Recommender
from fmknn.errors import ModelFileError
from fmknn.model import storage
from fmknn.serving.queries import make_queries

INDEXES = {
    "exact": FaissIndex("Flat"),
    "narrow": FaissIndex("IVF", nlist=40, nprobe=1),
    "default": FaissIndex("IVF"),
}
every_index = pytest.mark.parametrize("index", INDEXES)


@functools.cache
def model_of(index="exact"):
    """300 users, 2,000 items: enough items for an index to choose from. Not to be changed."""
    if index != "exact":
        return model_of().with_index(INDEXES[index])
    data, _ = fmknn.datasets.make_interactions(300, 2000, 9000, context=3)
    return Recommender(FMRegressor(8, n_iter=3, random_state=0), index=INDEXES["exact"]).fit(data)


def available(model, user, exclude, candidates):
    allowed = set(model.items.ids.tolist() if candidates is None else candidates)
    seen = model.seen_pairs(np.full(len(model.items), user), model.items.ids)
    return allowed - set(model.items.ids[seen].tolist()) - set(exclude.get(user, ()))


# --- laws 2 and 3: what a list may hold --------------------------------------------------------


@every_index
@given(
    users=st.lists(st.integers(0, 299), min_size=1, max_size=4),
    n=st.sampled_from([1, 3, 20, 300, 1990, 5000]),
    context=st.integers(0, 2),
    excluded=st.sampled_from([0, 10, 1900, 2000]),
    offered=st.sampled_from([None, None, 1, 50, 1500]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25)
def test_lists_are_full_of_what_is_allowed_with_exact_scores(
    index, users, n, context, excluded, offered, seed
):
    model, rng = model_of(index), np.random.default_rng(seed)
    exclude = {users[0]: rng.permutation(2000)[:excluded].tolist()}
    candidates = None if offered is None else rng.permutation(2000)[:offered].tolist()
    top = model.recommend(
        users, n, context={"context": context}, exclude=exclude, candidates=candidates
    )
    assert top.users.tolist() == users
    for row, (user, pairs) in enumerate(top):
        allowed = available(model, user, exclude, candidates)
        items, scores = [item for item, _ in pairs], [score for _, score in pairs]
        assert len(items) == top.counts[row] == min(n, len(allowed))
        assert len(set(items)) == len(items)
        assert set(items) <= allowed
        assert scores == model.scores([user] * len(items), items, {"context": context}).tolist()
        order = sorted(zip(scores, items, strict=True), key=lambda pair: (-pair[0], pair[1]))
        assert items == [item for _, item in order]
        if index == "exact":
            others = sorted(allowed - set(items))
            best_left = model.scores([user] * len(others), others, {"context": context}).max(
                initial=-np.inf
            )
            assert best_left <= min(scores, default=np.inf)


# --- law 4: the same bits however the work is cut ----------------------------------------------


@every_index
@given(chunk=st.integers(1, 400), n=st.integers(1, 40), seed=st.integers(0, 2**16))
@settings(max_examples=6)
def test_any_chunk_size_gives_the_same_lists(index, chunk, n, seed):
    model = model_of(index)
    users = np.random.default_rng(seed).permutation(300)[:60]
    levels = users % 3
    chunks = model.recommend_all(n, users=users, chunk=chunk, context={"context": levels})
    together = model.recommend(users, n, context={"context": levels})
    assert [pair for top in chunks for pair in top] == list(together)


@every_index
def test_a_batch_equals_its_rows(index):
    model = model_of(index)
    batch = model.recommend(model.users.ids, 15, context={"context": 1})
    for user in (0, 17, 299):
        alone = model.recommend(user, 15, context={"context": 1})
        for name in ("positions", "scores", "counts"):
            assert getattr(alone, name)[0].tobytes() == getattr(batch, name)[user].tobytes()


@every_index
def test_no_number_of_threads_changes_a_bit(index):
    kind = INDEXES[index]
    answers = []
    for n_jobs in (1, 2, None):
        other = FaissIndex(kind.kind, nlist=kind.nlist, nprobe=kind.nprobe, n_jobs=n_jobs)
        top = (
            model_of().with_index(other).recommend(model_of().users.ids, 15, context={"context": 1})
        )
        answers.append((top.positions.tobytes(), top.scores.tobytes()))
    assert len(set(answers)) == 1


@every_index
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_python_threads_get_what_they_get_alone(index, n_jobs):
    kind = INDEXES[index]
    model = model_of().with_index(
        FaissIndex(kind.kind, nlist=kind.nlist, nprobe=kind.nprobe, n_jobs=n_jobs)
    )
    parts = [np.arange(start, start + 60) for start in range(0, 240, 10)]

    def ask(users):
        return model.recommend(users, 12, context={"context": 2}, candidates=range(0, 2000, 2))

    alone = [ask(users) for users in parts]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(ask, parts * 3))
    assert all(same_answers(a, b) for a, b in zip(at_once, alone * 3, strict=True))


def answers_of_a_child(model, path, pipe):
    """What a worker process does: search twice, index anew, load."""
    ask = {"n": 12, "context": {"context": 2}}
    tops = [model.recommend(model.users.ids, **ask) for _ in range(2)]
    tops.append(
        model.with_index(FaissIndex("IVF", nlist=40, nprobe=1, n_jobs=2)).recommend(
            model.users.ids, **ask
        )
    )
    tops.append(fmknn.load(path).recommend(model.users.ids, **ask))
    pipe.send([(top.positions.tobytes(), top.scores.tobytes()) for top in tops])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("n_jobs", [None, 1, 2])
@pytest.mark.parametrize("kind", ["Flat", "IVF"])
def test_a_forked_child_can_search(kind, n_jobs, tmp_path):
    settings_ = {} if kind == "Flat" else {"nlist": 40, "nprobe": 1}
    model = model_of().with_index(FaissIndex(kind, n_jobs=n_jobs, **settings_))
    model.save(tmp_path / "model.fmknn")
    expected = model.recommend(
        model.users.ids, 12, context={"context": 2}
    )  # starts faiss's threads
    narrow = model_of("narrow").recommend(model.users.ids, 12, context={"context": 2})
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=answers_of_a_child, args=(model, tmp_path / "model.fmknn", sender))
    child.start()
    sender.close()
    try:
        assert receiver.poll(60), "the child hangs"
        got = receiver.recv()
    finally:
        child.join(5)
        child.kill()
        child.join()
    assert got == [
        (top.positions.tobytes(), top.scores.tobytes())
        for top in (expected, expected, narrow, expected)
    ]


# --- law 5: a file is the model, or it is refused ----------------------------------------------


@every_index
def test_save_and_load_give_the_same_bits(index, tmp_path):
    model = model_of(index)
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    for options in (
        {},
        {"candidates": range(0, 2000, 3)},
        {"exclude": {5: range(1500)}, "exclude_seen": False},
    ):
        asked = {"n": 25, "context": {"context": model.users.ids % 3}, **options}
        assert same_answers(
            loaded.recommend(model.users.ids, **asked), model.recommend(model.users.ids, **asked)
        )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a model with all that one can have."""
    path = tmp_path_factory.mktemp("saved") / "model.fmknn"
    trained("everything").with_index(FaissIndex("IVF", nlist=3)).save(path)
    return path.read_bytes()


def assert_refused(folder, data, *words):
    """A file of these bytes is refused in one line with its name, and nothing is written."""
    path = folder / "model.fmknn"
    path.write_bytes(data)
    with refused(ModelFileError, path, *words):
        fmknn.load(path)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {path.name: data}


on_one_file = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@on_one_file
def test_a_changed_bit_is_noticed(tmp_path, saved, place, bit):
    changed = bytearray(saved)
    changed[int(place * len(saved))] ^= 1 << bit
    assert_refused(tmp_path, bytes(changed))


@given(length=st.floats(0, 1, exclude_max=True))
@on_one_file
def test_a_file_cut_short_is_noticed(tmp_path, saved, length):
    assert_refused(tmp_path, saved[: int(length * len(saved))])


@pytest.mark.parametrize("cut", [1, 2, 64])
def test_a_missing_end_and_a_longer_one_are_noticed(tmp_path, saved, cut):
    assert_refused(tmp_path, saved[:-cut])
    assert_refused(tmp_path, saved + b"\0" * cut)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(storage, "FORMAT_VERSION", storage.FORMAT_VERSION + 1)
        trained().save(tmp_path / "model.fmknn")
    assert_refused(tmp_path, (tmp_path / "model.fmknn").read_bytes(), "newer", "upgrade")


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"user,item\n1,2\n", pickle.dumps({"w0": 1.0}), bytes(4096)]
)
def test_foreign_files_are_refused(tmp_path, data):
    assert_refused(tmp_path, data)


def test_foreign_archives_are_refused(tmp_path):
    folder = tmp_path / "only"
    folder.mkdir()
    np.savez(tmp_path / "arrays.npz", w=np.ones(3))
    assert_refused(folder, (tmp_path / "arrays.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("model.json", json.dumps({"kind": "recommender"}))
    assert_refused(folder, (tmp_path / "archive.zip").read_bytes())


def test_a_file_that_is_ours_but_no_recommender_is_refused(tmp_path):
    storage.save(tmp_path / "model.fmknn", {"w": np.ones(2)}, {"kind": "something"})
    assert_refused(tmp_path, (tmp_path / "model.fmknn").read_bytes(), "something")
    storage.save(tmp_path / "model.fmknn", {"w": np.ones(2)}, {})
    assert_refused(tmp_path, (tmp_path / "model.fmknn").read_bytes())


def test_a_model_that_lacks_a_part_is_refused(tmp_path, saved):
    (tmp_path / "model.fmknn").write_bytes(saved)
    arrays, metadata = storage.load(tmp_path / "model.fmknn")
    assert len(arrays) > 15
    for missing in arrays:
        storage.save(
            tmp_path / "model.fmknn", {k: v for k, v in arrays.items() if k != missing}, metadata
        )
        assert_refused(tmp_path, (tmp_path / "model.fmknn").read_bytes())
    for missing in metadata:
        storage.save(
            tmp_path / "model.fmknn", arrays, {k: v for k, v in metadata.items() if k != missing}
        )
        assert_refused(tmp_path, (tmp_path / "model.fmknn").read_bytes())


def test_a_damaged_file_does_not_harm_the_model_in_memory(tmp_path):
    model = Recommender(classifier()).fit(clicks())
    before = model.recommend(model.users.ids, 5)
    model.save(tmp_path / "model.fmknn")
    (tmp_path / "model.fmknn").write_bytes(b"gone")
    assert same_answers(model.recommend(model.users.ids, 5), before)


# --- constant memory ---------------------------------------------------------------------------


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("to_file, n_users", [(False, 12_000), (True, 12_000)])
def test_recommend_all_needs_no_more_memory_for_more_users(tmp_path, to_file, n_users):
    data, _ = fmknn.datasets.make_interactions(12_000, 300, 30_000, user_features=False)
    model = Recommender(FMRegressor(4, n_iter=1, random_state=0)).fit(data)
    to = tmp_path / "recs.jsonl" if to_file else None

    def run(n):
        chunks = model.recommend_all(100, users=model.users.ids[:n], chunk=250, to=to)
        assert to_file or sum(len(top) for top in chunks) == n

    run(300)  # what is made once and kept
    few, many = peak_of(lambda: run(1000)), peak_of(lambda: run(n_users))
    assert many < 1.3 * few + 50_000
    assert many < n_users * 100 * 12 / 2  # half of what all positions and scores take


# --- real ratings ------------------------------------------------------------------------------

REAL = ["ids", "features", "context"]
WEEKDAYS = np.array(["thu", "fri", "sat", "sun", "mon", "tue", "wed"])  # 1970 began on a Thursday


@functools.cache
def real_data(flavour):
    ratings = realdata.movielens("100k")
    if flavour == "features":
        return ratings
    context = (
        {"weekday": WEEKDAYS[ratings.timestamps // 86_400 % 7]} if flavour == "context" else None
    )
    return fmknn.Interactions.from_arrays(
        ratings.user_ids, ratings.item_ids, ratings.values, context=context
    )


@functools.cache
def real_model(flavour):
    return Recommender(FMRegressor(solver="adam", random_state=0)).fit(real_data(flavour))


def brute_force(params, users, items):
    """y(x) of every user with every item, in float64, by Rendle's identity on the expanded rows.

    y = w0 + Σ_p w_p x_p + ½ Σ_f ((Σ_p v_pf x_p)² - Σ_p v_pf² x_p²)
    """
    w, V = params.w.astype(np.float64), params.V.astype(np.float64)
    scores = params.w0 + (users @ w)[:, None] + items @ w
    for f in range(V.shape[1]):
        scores += 0.5 * ((users @ V[:, f])[:, None] + items @ V[:, f]) ** 2
        scores -= 0.5 * ((users**2 @ V[:, f] ** 2)[:, None] + items**2 @ V[:, f] ** 2)
    return scores


def expanded_rows(data, weekday=None):
    """All users (in a context) and all items as rows over the columns of the model."""
    sides = [entities(data.users, data.user_features), entities(data.items, data.item_features)]
    sides += [entities(column.ids, None) for column in data.context.values()]
    first = np.cumsum([0, *(side.shape[1] for side in sides)])
    users, items = np.zeros((len(sides[0]), first[-1])), np.zeros((len(sides[1]), first[-1]))
    users[:, first[0] : first[1]], items[:, first[1] : first[2]] = sides[0], sides[1]
    if weekday is not None:
        users[:, first[2] + data.context["weekday"].ids.ids.tolist().index(weekday)] = 1
    return users, items


def assert_best(positions, scores, brute, forbidden):
    """Lists of 100: those of brute force, but for swaps between scores that differ by < 1e-5."""
    assert positions.shape == scores.shape == (943, 100)
    rows = np.arange(943)[:, None]
    assert not forbidden[rows, positions].any()
    assert all(len(set(row)) == 100 for row in positions.tolist())
    assert np.abs(scores - brute[rows, positions]).max() < 1e-5
    best = -np.sort(-np.where(forbidden, -np.inf, brute), axis=1)[:, :100]
    assert np.abs(brute[rows, positions] - best).max() < 1e-5


@pytest.mark.parametrize(
    "flavour, weekday", [("ids", None), ("features", None), ("context", "fri"), ("context", "tue")]
)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_top_100_of_all_films_for_all_943_users(flavour, weekday, exclude_seen):
    data, model = real_data(flavour), real_model(flavour)
    brute = brute_force(model.params_, *expanded_rows(data, weekday))
    assert brute.shape == (943, 1682)
    seen = np.zeros(brute.shape, bool)
    seen[data.user_index, data.item_index] = exclude_seen
    context = None if weekday is None else {"weekday": weekday}
    top = model.recommend(data.users.ids, 100, context=context, exclude_seen=exclude_seen)
    assert top.counts.tolist() == [100] * 943
    assert_best(top.positions, top.scores, brute, seen)


def test_the_steps_one_by_one():
    """Train on a sparse matrix, [V_i, w_i], [V_u, 1], an index, the top 100."""
    ratings = real_data("ids")
    one_hot = np.stack([ratings.user_index, 943 + ratings.item_index], axis=1).ravel()
    X = sp.csr_matrix(
        (np.ones(len(one_hot)), one_hot, np.arange(0, len(one_hot) + 1, 2)),
        shape=(len(ratings), 2625),
    )
    fm = FMRegressor(8, solver="adam", n_iter=8, random_state=0).fit(
        X, ratings.values, blocks={"user": slice(0, 943), "item": slice(943, 2625)}
    )
    items = fmknn.item_matrix(fm.params_, slice(943, 2625))
    users, offsets = fmknn.user_matrix(fm.params_, slice(0, 943), return_offset=True)
    np.testing.assert_array_equal(items, np.column_stack([fm.params_.V[943:], fm.params_.w[943:]]))
    np.testing.assert_array_equal(users, np.column_stack([fm.params_.V[:943], np.ones(943)]))
    hits = FaissIndex("Flat").build(items).search(users, 100)
    brute = brute_force(fm.params_, *expanded_rows(ratings))
    assert_best(hits.positions, hits.scores + offsets[:, None], brute, np.zeros(brute.shape, bool))


# --- IVF at its defaults -----------------------------------------------------------------------


def recall_at_20(vectors, queries):
    exact = FaissIndex("Flat").build(vectors).search(queries, 20)
    found = FaissIndex("IVF").build(vectors).search(queries, 20)
    where = np.arange(len(queries))[:, None]
    products = (
        np.asarray(queries, np.float32)[where].astype(np.float64)
        * np.asarray(vectors, np.float32)[found.positions]
    )
    np.testing.assert_allclose(found.scores, products.sum(axis=2), rtol=1e-12, atol=1e-12)
    assert found.counts.tolist() == [20] * len(queries)
    return np.mean(
        [
            len(set(a) & set(b)) / 20
            for a, b in zip(exact.positions.tolist(), found.positions.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("flavour", REAL)
def test_ivf_finds_the_films(flavour):
    model = real_model(flavour)
    queries = make_queries(
        model.params_, model.catalog_, model.users.ids, None, context_default="mean"
    )
    assert recall_at_20(model.index_.vectors, queries.rows) >= 0.95


@pytest.mark.parametrize("item_features", [True, False])
def test_ivf_finds_50_000_planted_items(item_features):
    _, truth = fmknn.datasets.make_interactions(
        500, 50_000, 50_000, n_factors=16, item_features=item_features
    )
    vectors = np.column_stack([truth.vectors["item"], truth.bias["item"]])
    queries = np.column_stack([truth.vectors["user"], np.ones(500)])
    assert recall_at_20(vectors, queries) >= 0.95
