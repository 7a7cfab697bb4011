"""popularity: the last column of a query fades the biases of items, wherever it is searched."""

from __future__ import annotations

import functools
import json

import naive
import numpy as np
import pytest
from planted import FLAVOURS, interactions, some_context, trained
from refusals import refused
from textbook import Textbook, assert_same_list

import fmknn
from fmknn import ExactIndex, FaissIndex, FMRanker, FMRegressor, Recommender
from fmknn.cli import main
from fmknn.serving.sinks import SQLite

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@functools.cache
def posterior(flavour):
    estimator = FMRegressor(3, solver=fmknn.Gibbs(n_iter=6, burn_in=2), random_state=0)
    return Recommender(estimator).fit(interactions(flavour))


@functools.cache
def ranker():
    data = interactions().replace(values=None)
    return Recommender(FMRanker(3, n_iter=3, random_state=0)).fit(data)


def faded_scores(data, params, popularity, **ids):
    """w0 + b_u + b_c + <q_u, q_c> + <q_u + q_c, q_i> + popularity · b_i of every item."""
    found = []
    samples = list(params.samples())
    books = [Textbook(data, fm) for fm in samples]
    for place, item in enumerate(data.items.ids.tolist()):
        of_samples = []
        for fm, book in zip(samples, books, strict=True):
            columns, x = zip(*book.rows["item"][place], strict=True)
            w, V = fm.w[list(columns)], fm.V[list(columns)]
            _, bias = naive.entity_vector(w, V, x, range(len(x)))
            of_samples.append(book.score(item=item, **ids) - (1 - popularity) * bias)
        found.append(sum(of_samples) / len(samples))
    return found


@every_flavour
@pytest.mark.parametrize("popularity", [0, 0.3, np.float32(0.75), 1])
@pytest.mark.parametrize("of", [trained, posterior], ids=["fm", "posterior"])
def test_lists_are_the_textbooks(of, flavour, popularity):
    model, data, context = of(flavour), interactions(flavour), some_context(flavour)
    users = data.users.ids[[0, 11, 25]]
    top = model.recommend(users, 9, context=context, popularity=popularity)
    book = Textbook(data, next(model.params_.samples()))
    for row, user in enumerate(users.tolist()):
        scores = faded_scores(data, model.params_, float(popularity), user=user, **context)
        assert_same_list(top.positions[row], top.scores[row], scores, 9, book.seen(user))
    predicted = model.predict(np.repeat(users, 9), top.items.ravel(), context)
    assert top.predictions.ravel().tolist() == predicted.tolist()


def test_one_is_the_model_and_0_leaves_the_biases_out():
    model = trained()
    users = model.users.ids
    whole, none = (model.recommend(users, 60, popularity=a, exclude_seen=False) for a in (1, 0))
    default = model.recommend(users, 60, exclude_seen=False)
    assert whole.scores.tobytes() == default.scores.tobytes()
    assert whole.positions.tobytes() == default.positions.tobytes()
    biases = model.params_.w[len(users) :].astype(np.float64)
    score = np.empty((len(users), 60))
    np.put_along_axis(score, none.positions, none.scores, axis=1)
    scores = model.scores(np.repeat(users, 60), np.tile(model.items.ids, len(users)))
    np.testing.assert_allclose(score + biases, scores.reshape(score.shape), atol=1e-6)


@pytest.mark.parametrize(
    "index",
    [
        "exact",
        "flat",
        FaissIndex("IVF", nlist=6, nprobe=6),
        FaissIndex("IVF", nlist=6, target_recall=1.0),
        ExactIndex(compress=13),
        FaissIndex("Flat", compress=13),
    ],
    ids=["exact", "flat", "ivf", "tuned", "compress", "faiss compress"],
)
@pytest.mark.parametrize("popularity", [0.0, 0.4])
def test_an_index_that_looks_everywhere_honours_it(index, popularity):
    model = posterior("features")
    users = model.users.ids
    expected = model.recommend(users, 10, popularity=popularity)
    assert (expected.positions != model.recommend(users, 10).positions).any()
    found = model.with_index(index).recommend(users, 10, popularity=popularity)
    assert found.positions.tolist() == expected.positions.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("popularity", [0.0, 0.4])
def test_exact_search_is_exact_among_many_items(popularity):
    """More than the exact index scores one by one, so that its bounds are at work."""
    rng = np.random.default_rng(0)
    V, w = rng.normal(size=(20_060, 8)), rng.normal(size=20_060)
    w[60:] *= 5
    model = Recommender.from_params(fmknn.FMParams(0.0, w, V), users=range(60), items=range(20_000))
    top = model.recommend(range(60), 10, popularity=popularity)
    items = model.index_.vectors.astype(np.float64)
    queries = np.column_stack([V[:60].astype(np.float32), np.full(60, np.float32(popularity))])
    scores = queries.astype(np.float64) @ items.T + model.params_.w[:60, None]
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert (top.positions == expected).mean() > 0.99  # but for near ties
    best = np.take_along_axis(scores, expected, axis=1)
    np.testing.assert_allclose(top.scores, best, rtol=1e-12, atol=1e-12)
    for row in (0, 59):
        alone = model.recommend([row], 10, popularity=popularity)
        assert alone.scores.tobytes() == top.scores[[row]].tobytes()


@pytest.mark.parametrize(
    "index",
    ["ivf", FaissIndex("IVF", nlist=9, nprobe=1), FaissIndex("HNSW"), ExactIndex(compress=2)],
    ids=["ivf", "one cell", "hnsw", "compress"],
)
@pytest.mark.parametrize("popularity", [0.0, 0.4])
def test_an_approximate_index_gives_full_lists_of_right_scores(index, popularity):
    model = posterior("features").with_index(index)
    users, seen = model.users.ids, model.catalog_.seen
    top = model.recommend(users, 10, popularity=popularity)
    exact = posterior("features").recommend(users, 60, popularity=popularity, exclude_seen=False)
    score = np.empty((len(users), 60))
    np.put_along_axis(score, exact.positions, exact.scores, axis=1)
    assert (top.counts == 10).all()
    for row, positions in enumerate(top.positions.tolist()):
        assert len(set(positions)) == 10
        assert not {*positions} & {*seen.indices[seen.indptr[row] : seen.indptr[row + 1]].tolist()}
        assert top.scores[row].tolist() == score[row, positions].tolist()
        assert (np.diff(top.scores[row]) <= 0).all()


# --- every way to a list -----------------------------------------------------------------------


def test_recommend_all():
    model = trained()
    parts = list(model.recommend_all(4, popularity=0.2, chunk=7))
    expected = model.recommend(model.users.ids, 4, popularity=0.2)
    assert np.concatenate([top.items for top in parts]).tolist() == expected.items.tolist()
    assert np.concatenate([top.scores for top in parts]).tolist() == expected.scores.tolist()


def test_newcomers():
    model = ranker()
    history = model.items.ids[[3, 8, 20]].tolist()
    faded = model.recommend_for(history=history, n=60, popularity=0.25)
    whole = model.recommend_for(history=history, n=60)
    biases = model.params_.w[len(model.users) :].astype(np.float64)
    of_item = dict(zip(whole.items[0].tolist(), whole.scores[0].tolist(), strict=True))
    expected = {
        item: score - 0.75 * biases[model.items.positions([item])[0]]
        for item, score in of_item.items()
    }
    found = dict(zip(faded.items[0].tolist(), faded.scores[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
    assert (np.diff(faded.scores[0]) <= 0).all()
    many = model.recommend_for_many({"a": history, "b": []}, 60, popularity=0.25)
    assert many.items[0, :57].tolist() == faded.items[0].tolist()
    assert many.scores[0, :57].tolist() == faded.scores[0].tolist()


@pytest.mark.parametrize(
    "popularity",
    [-0.1, 1.5, float("nan"), float("inf"), "0.5", None, True, 0.5j, np.complex64(0.5)],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda model, **dial: model.recommend(model.users.ids, **dial),
        lambda model, **dial: model.recommend_all(**dial),
        lambda model, **dial: model.recommend_for(**dial),
        lambda model, **dial: model.recommend_for_many({"a": []}, **dial),
        lambda model, **dial: model.evaluate(interactions(), allow_overlap=True, **dial),
    ],
    ids=["recommend", "recommend_all", "recommend_for", "recommend_for_many", "evaluate"],
)
def test_refusals(ask, popularity):
    with refused(ValueError, "popularity must be a number from 0 to 1", repr(popularity)):
        ask(ranker(), popularity=popularity)


# --- evaluation --------------------------------------------------------------------------------

METRICS = ["ndcg@5", "coverage@5", "novelty@5", "popularity@5"]


def test_evaluation_is_of_the_faded_lists():
    data = interactions("context")
    rows = np.arange(len(data))
    train, test = data.take(rows % 4 != 0), data.take(rows % 4 == 0)
    model = Recommender(FMRegressor(3, solver="als", n_iter=3, random_state=0)).fit(train)

    class Faded:
        """The same model, asked for faded lists without the evaluation knowing it."""

        def __getattr__(self, name):
            return getattr(model, name)

        def recommend(self, users, n, **options):
            return model.recommend(users, n, popularity=0.3, **options)

    found = model.evaluate(test, [*METRICS, "rmse"], popularity=0.3, allow_overlap=True)
    expected = fmknn.evaluate(Faded(), test, [*METRICS, "rmse"], allow_overlap=True)
    assert found.metrics == expected.metrics
    whole = model.evaluate(test, [*METRICS, "rmse"], allow_overlap=True)
    assert found["rmse"] == whole["rmse"]
    assert found["novelty@5"] != whole["novelty@5"]
    assert (found.popularity, whole.popularity) == (0.3, 1.0)
    assert "biases of items in the lists: counted by 0.3" in str(found)
    assert "biases" not in str(whole)
    assert found.to_dict()["popularity"] == 0.3
    with refused(ValueError, "popularity", "sampled"):
        model.evaluate(test, "ndcg@5", popularity=0.3, sampled=5, allow_overlap=True)
    with refused(ValueError, "popularity", "rating metrics"):
        model.evaluate(test, ["rmse", "mae"], popularity=0.3, allow_overlap=True)


def test_a_model_without_a_dial_says_so():
    data = interactions()
    train, test = (
        data.take(np.arange(len(data) - 9)),
        data.take(np.arange(len(data) - 9, len(data))),
    )
    baseline = fmknn.baselines.Popularity().fit(train)
    with refused(TypeError, "popularity=0.5", "Popularity"):
        fmknn.evaluate(baseline, test, popularity=0.5, allow_overlap=True)
    with refused(ValueError, "popularity", "2"):
        fmknn.evaluate(baseline, test, popularity=2, allow_overlap=True)
    fmknn.evaluate(baseline, test, popularity=1, allow_overlap=True)


def test_fold_in_evaluation():
    train, fold_in, test = fmknn.splits.hold_out_users(interactions(), test=8, random_state=0)
    model = Recommender(FMRegressor(3, solver="als", n_iter=3, random_state=0)).fit(train)

    class Faded:
        """The same model, asked for faded lists without the evaluation knowing it."""

        def __getattr__(self, name):
            return getattr(model, name)

        def recommend_for_many(self, histories, n):
            return model.recommend_for_many(histories, n, popularity=0.0)

    asked = fold_in, test, METRICS
    faded = fmknn.evaluate_fold_in(model, *asked, popularity=0.0, allow_overlap=True)
    expected = fmknn.evaluate_fold_in(Faded(), *asked, allow_overlap=True)
    whole = fmknn.evaluate_fold_in(model, *asked, allow_overlap=True)
    assert faded.metrics == expected.metrics != whole.metrics
    assert (faded.popularity, whole.popularity) == (0.0, 1.0)
    with refused(ValueError, "popularity"):
        fmknn.evaluate_fold_in(model, *asked, popularity=2, allow_overlap=True)


# --- runs, and the command line ----------------------------------------------------------------


def test_a_run_with_another_dial_is_not_gone_on_with(tmp_path):
    model, place = trained(), SQLite(tmp_path / "lists.db")
    asked = {"to": place, "chunk": 5, "run_id": "monday"}
    model.recommend_all(3, popularity=0.4, **asked)
    assert model.recommend_all(3, popularity=0.4, resume=True, **asked) == 26
    with refused(ValueError, "another popularity"):
        model.recommend_all(3, resume=True, **asked)
    with refused(ValueError, "another popularity"):
        model.recommend_all(3, resume=True, popularity=np.float64(0.2), **asked)


def test_command_line(tmp_path, capsys):
    path = str(tmp_path / "model.fmknn")
    trained().save(path)
    users = trained().users.ids[[5, 2]]
    asked = ["recommend", path, "--users", ",".join(map(str, users)), "--popularity"]
    assert main([*asked, "0.25"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = trained().recommend(users, popularity=0.25)
    assert [line["items"] for line in lines] == expected.items.tolist()
    assert [line["scores"] for line in lines] == expected.scores.tolist()
    assert main([*asked, "1.5"]) != 0
    out, error = capsys.readouterr()
    assert out == "" and len(error.splitlines()) == 1
    assert "popularity must be a number from 0 to 1, got 1.5" in error
