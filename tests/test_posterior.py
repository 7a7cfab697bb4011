"""A posterior stands wherever one FM does: its score is the mean of the textbook's."""

from __future__ import annotations

import functools
import math
import pickle
import statistics
import tracemalloc
import warnings

import naive
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import FLAVOURS, clicks, interactions, same_answers, some_context
from refusals import refused
from textbook import Textbook, assert_same_list

import fmknn
from fmknn import FMClassifier, FMParams, FMRegressor, Posterior, Recommender
from fmknn.backends.sagemaker.artifact import write_artifact
from fmknn.data.blocks import design_of_interactions, design_of_rows
from fmknn.data.rows import SparseRows, as_rows
from fmknn.errors import ModelFileError
from fmknn.model import storage
from fmknn.model.base import Model, expectation
from fmknn.model.posterior import model_of_state
from fmknn.model.projection import item_matrix, query_matrix, user_matrix
from fmknn.solvers.base import Fit, iterate

EPSILON = float(np.finfo(np.float32).eps)
SEEDS = st.integers(0, 2**32 - 1)
every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


def random_posterior(seed, n_samples, n_features, n_factors, bias=0.0, sigma=1.0):
    rng = np.random.default_rng(seed)
    return Posterior(
        bias + rng.normal(size=n_samples),
        sigma * rng.normal(size=(n_samples, n_features)),
        sigma * rng.normal(size=(n_samples, n_features, n_factors)),
    )


def random_matrix(seed, n_rows, n_columns):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.5)
    return X.astype(np.float32)


def mean_score(posterior, x):
    """The mean of the textbook scores of one row, and the size of its terms."""
    samples = [(fm.w0, fm.w, fm.V) for fm in posterior.samples()]
    scores = [naive.fm_score(w0, w, V, x) for w0, w, V in samples]
    sizes = [naive.fm_score(abs(w0), abs(w), abs(V), np.abs(x)) for w0, w, V in samples]
    return math.fsum(scores) / len(scores), max(sizes)


def require_mean_score(scores, posterior, X):
    assert scores.dtype == np.float64 and scores.shape == (len(X),)
    for score, x in zip(scores, X, strict=True):
        expected, size = mean_score(posterior, x)
        assert score == pytest.approx(expected, rel=0, abs=6 * EPSILON * size + 1e-30)


def clip(scores, sample=None):
    return np.clip(scores, 1.0, 5.0)


def unchanged(scores, sample=None):
    return scores


# --- the score ---------------------------------------------------------------------------------


@given(
    seed=SEEDS,
    n_samples=st.integers(1, 5),
    n_columns=st.integers(1, 8),
    n_factors=st.integers(0, 4),
    n_blocks=st.integers(0, 3),
)
@settings(max_examples=50)
def test_score_is_the_mean_of_the_textbooks(seed, n_samples, n_columns, n_factors, n_blocks):
    X = random_matrix(seed, 4, n_columns)
    posterior = random_posterior(seed, n_samples, n_columns, n_factors)
    owner = np.random.default_rng(seed).integers(n_blocks + 1, size=n_columns)
    blocks = {str(b): np.flatnonzero(owner == b) for b in range(n_blocks) if np.any(owner == b)}
    for rows in (X, sp.csr_array(X), as_rows(X), design_of_rows(as_rows(X), blocks)):
        require_mean_score(posterior.score(rows), posterior, X)


@given(
    seed=SEEDS,
    n_samples=st.integers(1, 5),
    n_blocks=st.integers(2, 4),
    n_factors=st.integers(0, 4),
)
@settings(max_examples=40)
def test_offset_plus_inner_product_is_the_mean_score(seed, n_samples, n_blocks, n_factors):
    X = random_matrix(seed, 3, 2 * n_blocks)
    posterior = random_posterior(seed, n_samples, 2 * n_blocks, n_factors)
    owner = np.random.default_rng(seed).permutation(np.arange(2 * n_blocks) % n_blocks)
    item, *others = (np.where(owner == block, X, np.float32(0)) for block in range(n_blocks))
    items = item_matrix(posterior, item)
    queries, offsets = query_matrix(posterior, [posterior.project(part) for part in others])
    assert items.dtype == queries.dtype == np.float32 and offsets.dtype == np.float64
    assert items.shape == queries.shape == (3, n_samples * n_factors + 1)
    products = np.einsum("rd,rd->r", queries.astype(np.float64), items.astype(np.float64))
    require_mean_score(offsets + products, posterior, X)


def test_the_projection_is_that_of_the_samples_side_by_side():
    X = random_matrix(0, 6, 5)
    posterior = random_posterior(1, 3, 5, 2)
    parts = [fm.project(X) for fm in posterior.samples()]
    q, b = posterior.project(X)
    assert np.array_equal(q, np.hstack([part[0] for part in parts]))
    assert b == pytest.approx(np.mean([part[1] for part in parts], axis=0), rel=1e-12)
    queries, offsets = user_matrix(posterior, X, return_offset=True)
    assert np.array_equal(queries[:, :-1], (q.astype(np.float64) * (1 / 3)).astype(np.float32))
    assert (queries[:, -1] == 1).all()
    assert offsets == pytest.approx(posterior.w0 + b, rel=1e-12)
    items = item_matrix(posterior, X)
    assert np.array_equal(items, np.column_stack([q, b.astype(np.float32)]))


def test_of_ids_alone_the_matrices_are_the_parameters():
    posterior = random_posterior(3, 4, 7, 2)
    items = item_matrix(posterior, slice(3, 7))
    assert np.array_equal(items[:, :-1], np.hstack(list(posterior.V[:, 3:])))
    assert items[:, -1] == pytest.approx(posterior.w[:, 3:].mean(axis=0, dtype=float), rel=1e-6)
    users = user_matrix(posterior, slice(0, 3))
    assert np.array_equal(users[:, :-1], np.hstack(list(posterior.V[:, :3])) / np.float32(4))


def test_pairs_within_an_entity_count_in_each_sample():
    # <1, 2> = 2 in one sample, <3, -1> = -3 in the other, w0 1 and 3
    posterior = Posterior([1, 3], np.zeros((2, 2)), [[[1], [2]], [[3], [-1]]])
    assert posterior.score([[1.0, 1.0]]).tolist() == [(1 + 2 + 3 - 3) / 2]


def test_without_factors_and_without_rows():
    posterior = random_posterior(0, 3, 2, 0)
    assert posterior.n_factors == 0
    require_mean_score(posterior.score(np.ones((1, 2))), posterior, np.ones((1, 2)))
    assert posterior.score(np.empty((0, 2))).shape == (0,)
    assert [part.shape for part in posterior.project(np.empty((0, 2)))] == [(0, 0), (0,)]


# --- predictions -------------------------------------------------------------------------------


def test_each_sample_is_clipped_before_the_mean_is_taken():
    # scores 9 and 2 for the first row, 0 and 4 for the second
    posterior = Posterior([0, 0], [[9, 0], [2, 4]], np.zeros((2, 2, 1)))
    mean, deviation = posterior.predict(np.eye(2), clip, return_std=True)
    assert mean.tolist() == [(5 + 2) / 2, (1 + 4) / 2]
    assert deviation.tolist() == [1.5, 1.5]
    assert posterior.score(np.eye(2)).tolist() == [5.5, 2.0]


@given(seed=SEEDS, n_samples=st.integers(1, 6), shift=st.sampled_from([0.0, 3.0, 1e6]))
@settings(max_examples=40)
def test_predictions_and_deviations_are_those_of_the_samples(seed, n_samples, shift):
    X = random_matrix(seed, 5, 4)
    posterior = random_posterior(seed, n_samples, 4, 2, bias=shift)
    link = clip if shift < 10 else unchanged
    mean, deviation = posterior.predict(X, link, return_std=True)
    each = np.array([link(fm.score(X)) for fm in posterior.samples()]).T.tolist()
    assert mean == pytest.approx([statistics.fmean(row) for row in each], rel=1e-12)
    expected = [statistics.pstdev(row) for row in each]
    assert deviation == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert posterior.predict(X, link).tobytes() == mean.tobytes()


def test_a_single_model_has_no_deviation():
    params = FMParams(4.0, [3.0, -9.0], np.zeros((2, 1)))
    mean, deviation = params.predict(np.eye(2), clip, return_std=True)
    assert mean.tolist() == params.predict(np.eye(2), clip).tolist() == [5.0, 1.0]
    assert deviation.tolist() == [0.0, 0.0]


def test_a_link_that_returns_its_own_array_keeps_it():
    own = np.array([1.0, 2.0])
    posterior = random_posterior(0, 3, 2, 1)
    assert posterior.predict(np.eye(2), lambda scores, sample: own).tolist() == [1.0, 2.0]
    assert own.tolist() == [1.0, 2.0]


def test_expectation_takes_each_sample_once():
    posterior = random_posterior(0, 4, 2, 1)
    asked = []
    linked = []
    expectation(
        posterior,
        lambda fm: asked.append(fm) or np.zeros(1),
        lambda scores, fm: linked.append(fm) or scores,
    )
    assert asked == linked == list(posterior.samples())  # the objects themselves


# --- one sample is the FM itself ---------------------------------------------------------------


@given(seed=SEEDS, n_factors=st.integers(0, 4))
@settings(max_examples=30)
def test_one_sample_has_the_bits_of_its_fm(seed, n_factors):
    X = random_matrix(seed, 5, 6)
    one = random_posterior(seed, 1, 6, n_factors)
    fm = FMParams(one.w0, one.w[0], one.V[0])
    assert one.w0 == fm.w0 and one.query_scale == fm.query_scale == 1.0
    pairs = [
        (one.score(X), fm.score(X)),
        (one.predict(X, clip), fm.predict(X, clip)),
        *zip(one.project(X), fm.project(X), strict=True),
        (item_matrix(one, X), item_matrix(fm, X)),
        *zip(*(user_matrix(model, X, return_offset=True) for model in (one, fm)), strict=True),
    ]
    for a, b in pairs:
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


class Given:
    """A backend whose training gives the model it was made with, in the shape of the design."""

    def __init__(self, make):
        self.make = make

    def index(self, spec):
        return fmknn.Local().index(spec)

    def solver(self, spec):
        return self

    def train(self, design, y, *, start=None, callbacks=()):
        return Fit(self.make(design.n_features), (), {})


@functools.cache
def posterior_of(n_features, n_samples=4):
    return random_posterior(5, n_samples, n_features, 3, bias=3.0, sigma=0.7)


def one_fm(n_features):
    return next(posterior_of(n_features, 1).samples())


@functools.cache
def recommender(flavour="ids", make=posterior_of, index="exact", n_jobs=1):
    estimator = FMRegressor(3, n_jobs=n_jobs)
    return Recommender(estimator, backend=Given(make), index=index).fit(interactions(flavour))


@functools.cache
def books(flavour="ids"):
    """The textbook of each sample."""
    samples = recommender(flavour).params_.samples()
    return [Textbook(interactions(flavour), sample) for sample in samples]


def mean_item_scores(flavour, **ids):
    return np.mean([book.item_scores(**ids) for book in books(flavour)], axis=0).tolist()


@every_flavour
def test_one_sample_gives_the_answers_of_its_fm(flavour):
    one = recommender(flavour, functools.partial(posterior_of, n_samples=1))
    fm = recommender(flavour, one_fm)
    assert isinstance(one.params_, Posterior) and isinstance(fm.params_, FMParams)
    users, context = one.users.ids, some_context(flavour)
    a, b = (model.recommend(users, 9, context=context) for model in (one, fm))
    assert same_answers(a, b) and a.predictions.tobytes() == b.predictions.tobytes()
    items = one.items.ids[: len(users)]
    for ask in ("scores", "predict"):
        a, b = (getattr(model, ask)(users, items, context) for model in (one, fm))
        assert a.tobytes() == b.tobytes()
    assert same_answers(one.similar_items(items, 5), fm.similar_items(items, 5))
    clipped = one.estimator_.link(one.scores(users, items, context))
    assert one.predict(users, items, context).tobytes() == clipped.tobytes()


# --- lists -------------------------------------------------------------------------------------


@every_flavour
@pytest.mark.parametrize("n", [1, 10, 100])
def test_everybodys_list_is_brute_force_on_the_mean_score(flavour, n):
    model, context = recommender(flavour), some_context(flavour)
    top = model.recommend(model.users.ids, n, context=context)
    for row, user in enumerate(model.users.ids.tolist()):
        count, scores = top.counts[row], mean_item_scores(flavour, user=user, **context)
        found = top.positions[row, :count], top.scores[row, :count]
        assert_same_list(*found, scores, n, books(flavour)[0].seen(user))


@every_flavour
def test_scores_of_pairs_and_their_lists_are_the_same_numbers(flavour):
    model, context = recommender(flavour), some_context(flavour)
    top = model.recommend(model.users.ids, 7, context=context)
    users, items = np.repeat(top.users, 7), top.items.ravel()
    assert model.scores(users, items, context).tobytes() == top.scores.tobytes()
    assert model.predict(users, items, context).tobytes() == top.predictions.tobytes()


@every_flavour
def test_predictions_are_means_of_clipped_textbook_scores(flavour):
    model, context = recommender(flavour), some_context(flavour)
    users = model.users.ids[:8]
    top = model.recommend(users, 60, context=context)
    assert (top.counts < 60).any()
    for row, user in enumerate(users.tolist()):
        each = [book.item_scores(user=user, **context) for book in books(flavour)]
        expected = np.mean(np.clip(each, 1.0, 5.0), axis=0)
        count = top.counts[row]
        places = top.positions[row, :count]
        assert top.predictions[row, :count] == pytest.approx(expected[places], abs=1e-5)
        assert np.isnan(top.predictions[row, count:]).all()
    real = top.predictions[top.positions >= 0]
    assert np.abs(real - clip(top.scores[top.positions >= 0])).max() > 0.1  # it makes a difference


@every_flavour
def test_recommender_and_estimator_predict_the_same(flavour):
    model, data = recommender(flavour), interactions(flavour)
    context = {name: column.ids.ids[column.index] for name, column in data.context.items()}
    predicted = model.predict(data.user_ids, data.item_ids, context)
    assert predicted == pytest.approx(model.estimator_.predict(data), abs=1e-5)
    scores = model.scores(data.user_ids, data.item_ids, context)
    assert scores == pytest.approx(model.estimator_.linear_predictor(data), abs=1e-5)


def test_a_context_left_out():
    model, data = recommender("everything"), interactions("everything")
    user, item = model.users.ids[3], model.items.ids[5]
    options = {"context": {"hour": 2}}
    zero = model.scores([user], [item], **options, context_default="zero")
    expected = np.mean([book.score(user=user, item=item, hour=2) for book in books("everything")])
    assert zero == pytest.approx([expected], abs=1e-5)
    days = data.context["day"].ids.ids[data.context["day"].index].tolist()
    each = [
        statistics.fmean(book.score(user=user, item=item, hour=2, day=day) for day in days)
        for book in books("everything")
    ]
    mean = model.scores([user], [item], **options, context_default="mean")
    assert mean == pytest.approx([statistics.fmean(each)], abs=1e-5)
    predicted = model.predict([user], [item], **options, context_default="mean")
    assert predicted == pytest.approx([np.mean(np.clip(each, 1, 5))], abs=1e-5)


def test_unknown_users_and_items_add_nothing():
    model = recommender("features")
    user, item = model.users.ids[3], model.items.ids[5]
    users, items = [user, -1, -1, user], [-1, item, -1, item]
    asked = [{"user": user}, {"item": item}, {}, {"user": user, "item": item}]
    each = [[book.score(**ids) for ids in asked] for book in books("features")]
    scores = model.scores(users, items, unknown="cold")
    assert scores == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    predicted = model.predict(users, items, unknown="cold")
    assert predicted == pytest.approx(np.mean(np.clip(each, 1, 5), axis=0), abs=1e-5)
    with refused(fmknn.errors.UnknownIdError, "-1"):
        model.predict([-1], [item])
    with refused(ValueError, "skip"):
        model.predict([-1], [item], unknown="skip")


def test_similar_items_by_the_cosine_of_all_samples_vectors():
    model = recommender("features")
    rows = [books("features")[0].rows["item"]] * model.params_.n_samples
    vectors = [
        [
            sum(x * float(sample.V[column, f]) for column, x in entity)
            for sample, rows_ in zip(model.params_.samples(), rows, strict=True)
            for entity in [rows_[place]]
            for f in range(3)
        ]
        for place in range(len(model.items))
    ]
    norms = [math.hypot(*vector) for vector in vectors]
    top = model.similar_items(model.items.ids[:6], 10)
    for place in range(6):
        cosines = [
            naive.dot(vectors[place], other) / (norms[place] * norm)
            for other, norm in zip(vectors, norms, strict=True)
        ]
        assert_same_list(top.positions[place], top.scores[place], cosines, 10, {place})
    assert top.predictions.tobytes() == top.scores.tobytes()


def test_evaluation_measures_the_mean_predictions():
    model, data = recommender(), interactions()
    result = model.evaluate(data, ["rmse", "ndcg@5"], allow_overlap=True, exclude_seen=False)
    pairs = zip(data.user_ids.tolist(), data.item_ids.tolist(), strict=True)
    predicted = [
        np.mean(np.clip([book.score(user=user, item=item) for book in books()], 1, 5))
        for user, item in pairs
    ]
    assert result["rmse"] == pytest.approx(naive.rmse(predicted, data.values.tolist()), abs=1e-5)
    assert 0 <= result["ndcg@5"] <= 1


# --- the same bits however the work is cut -----------------------------------------------------


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_a_batch_has_the_bits_of_its_rows(index):
    model, context = recommender("everything", index=index), some_context("everything")
    users = np.tile(model.users.ids, 2)
    batch = model.recommend(users, 8, context=context)
    for row in (0, 5, 30):
        alone = model.recommend(users[row], 8, context=context)
        for name in ("positions", "scores", "predictions"):
            assert getattr(alone, name)[0].tobytes() == getattr(batch, name)[row].tobytes()
    chunks = model.recommend_all(8, chunk=7, context=context, users=users)
    assert [pair for top in chunks for pair in top] == list(batch)


def test_scores_of_many_pairs_have_the_bits_of_each():
    model = recommender("features")
    rng = np.random.default_rng(0)
    users, items = (rng.choice(side.ids, 20_000) for side in (model.users, model.items))
    for ask in (model.scores, model.predict):
        batch = ask(users, items)
        for row in (0, 8191, 8192, 19_999):
            alone = ask(users[row : row + 1], items[row : row + 1])
            assert alone.tobytes() == batch[row].tobytes()


def test_no_number_of_threads_changes_a_bit():
    X = random_matrix(0, 1500, 9)
    posterior = random_posterior(1, 3, 9, 5)
    one = (
        posterior.score(X),
        *user_matrix(posterior, X, return_offset=True),
        item_matrix(posterior, X),
    )
    for n_jobs in (2, 3, None):
        again = (
            posterior.score(X, n_jobs=n_jobs),
            *user_matrix(posterior, X, return_offset=True, n_jobs=n_jobs),
            item_matrix(posterior, X, n_jobs=n_jobs),
        )
        assert [a.tobytes() for a in again] == [a.tobytes() for a in one]
    alone = user_matrix(posterior, X[1300:1301], return_offset=True)
    assert alone[0].tobytes() == one[1][1300].tobytes() and alone[1][0] == one[2][1300]
    a, b = (recommender("everything", n_jobs=n) for n in (1, 2))
    users = np.tile(a.users.ids, 40)
    tops = [model.recommend(users, 5, context=some_context("everything")) for model in (a, b)]
    assert same_answers(*tops) and tops[0].predictions.tobytes() == tops[1].predictions.tobytes()


# --- estimators --------------------------------------------------------------------------------


def fitted(estimator, posterior, X, y):
    return estimator.fit(X, y, solver=Given(lambda n_features: posterior))


def test_regressor_predicts_the_mean_and_how_far_samples_differ():
    posterior = Posterior([0, 0], [[9, 0], [2, 4]], np.zeros((2, 2, 1)))
    model = fitted(FMRegressor(1), posterior, np.eye(2), [1.0, 5.0])
    mean, deviation = model.predict(np.eye(2), return_std=True)
    assert mean.tolist() == model.predict(np.eye(2)).tolist() == [3.5, 2.5]
    assert deviation.tolist() == [1.5, 1.5]
    assert model.linear_predictor(np.eye(2)).tolist() == [5.5, 2.0]
    assert model.score(np.eye(2), [3.5, 2.5]) == 1.0
    with refused(ValueError, "return_std", "'yes'"):
        model.predict(np.eye(2), return_std="yes")
    single = fitted(FMRegressor(1), next(posterior.samples()), np.eye(2), [1.0, 5.0])
    assert single.predict(np.eye(2), return_std=True)[1].tolist() == [0.0, 0.0]


def test_classifier_takes_the_mean_of_the_probabilities():
    # scores 9 and -1, -1: the mean score is positive, yet two of three samples say no
    posterior = Posterior([9, -1, -1], np.zeros((3, 2)), np.zeros((3, 2, 1)))
    model = fitted(FMClassifier(1), posterior, np.eye(2), ["no", "yes"])
    probability = statistics.fmean(1 / (1 + math.exp(-score)) for score in (9, -1, -1))
    assert probability > 0.5
    assert model.predict_proba(np.eye(2))[0] == pytest.approx([1 - probability, probability])
    assert model.decision_function(np.eye(2)) == pytest.approx([7 / 3] * 2)
    assert model.predict(np.eye(2)).tolist() == ["yes", "yes"]
    posterior = Posterior([9, -2, -2], np.zeros((3, 2)), np.zeros((3, 2, 1)))
    model = fitted(FMClassifier(1), posterior, np.eye(2), ["no", "yes"])
    assert (model.decision_function(np.eye(2)) > 0).all()
    assert model.predict(np.eye(2)).tolist() == ["no", "no"]  # the more probable class


def test_classifier_behind_an_index():
    model = Recommender(FMClassifier(3), backend=Given(posterior_of)).fit(clicks())
    top = model.recommend(model.users.ids[:3], 4)
    for user, row, items in zip(top.users, top.predictions, top.items, strict=True):
        each = [
            [1 / (1 + math.exp(-book.score(user=user, item=item))) for item in items.tolist()]
            for book in books()
        ]
        assert row == pytest.approx(np.mean(each, axis=0), abs=1e-6)


# --- files and other Recommenders --------------------------------------------------------------


@every_flavour
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_save_and_load_give_the_same_bits(flavour, index, tmp_path):
    model, context = recommender(flavour, index=index), some_context(flavour)
    model.save(tmp_path / "model.fmknn")
    loaded = fmknn.load(tmp_path / "model.fmknn")
    assert repr(loaded.params_) == repr(model.params_)
    users, items = model.users.ids, model.items.ids[: len(model.users)]
    tops = [one.recommend(users, 9, context=context) for one in (model, loaded)]
    assert same_answers(*tops) and tops[0].predictions.tobytes() == tops[1].predictions.tobytes()
    for ask in ("scores", "predict"):
        a, b = (getattr(one, ask)(users, items, context) for one in (model, loaded))
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("w0", lambda old: old[:-1]),
        ("w0", lambda old: old[:0]),
        ("w0", lambda old: old[0]),
        ("w0", lambda old: old[:, None]),
        ("w0", lambda old: old.astype(int)),
        ("w0", lambda old: old * np.nan),
        ("w", lambda old: old[:-1]),
        ("w", lambda old: old[:, :-1]),
        ("w", lambda old: old[0]),
        ("w", lambda old: np.where(old == old.flat[-1], np.inf, old)),
        ("w", lambda old: old.astype(np.float64) * 1e300),
        ("V", lambda old: old[:, :-1]),
        ("V", lambda old: old[:-1]),
        ("V", lambda old: old[:, :, :-1]),
        ("V", lambda old: old[0]),
        ("V", lambda old: np.where(old == old.flat[-1], np.nan, old)),
        ("V", lambda old: np.full_like(old, 3e38)),
        ("V", lambda old: old.astype(str).astype(object)),
    ],
)
def test_a_file_whose_samples_do_not_fit_is_refused(name, change, tmp_path):
    path = tmp_path / "model.fmknn"
    recommender("everything").save(path)
    arrays, metadata = storage.load(path)
    with np.errstate(invalid="ignore"):
        changed = {**arrays, f"model/{name}": change(arrays[f"model/{name}"])}
    storage.save(path, changed, metadata)
    with warnings.catch_warnings(), refused(ModelFileError, path):
        warnings.simplefilter("error")
        fmknn.load(path)


def test_all_samples_cut_to_fewer_features_are_refused(tmp_path):
    path = tmp_path / "model.fmknn"
    recommender().save(path)
    arrays, metadata = storage.load(path)
    cut = {name: arrays[f"model/{name}"][:, :-1] for name in ("w", "V")}
    storage.save(path, {**arrays, "model/w": cut["w"], "model/V": cut["V"]}, metadata)
    with refused(ModelFileError, path, "85 features", "86"):
        fmknn.load(path)


def test_state_round_trip():
    posterior = random_posterior(0, 3, 4, 2)
    for again in (
        Posterior.from_state(posterior.to_state()),
        model_of_state(posterior.to_state()),
        pickle.loads(pickle.dumps(posterior)),
    ):
        assert isinstance(again, Posterior) and again.w0 == posterior.w0
        for name, array in again.to_state().items():
            assert array.tobytes() == posterior.to_state()[name].tobytes()
            assert not array.flags.writeable
    assert isinstance(model_of_state(FMParams(0, [0], [[1]]).to_state()), FMParams)


def test_a_posterior_that_was_trained_elsewhere():
    ids = recommender()
    users, items = ids.users.ids, ids.items.ids
    data = interactions()
    model = Recommender.from_params(ids.params_, users=users, items=items, seen=data)
    a, b = (one.recommend(users, 9) for one in (ids, model))
    assert same_answers(a, b) and a.predictions.tobytes() == b.predictions.tobytes()
    with refused(ValueError, "86 features", "25 users"):
        Recommender.from_params(ids.params_, users=users[1:], items=items)
    for wrong in ({}, None, Posterior, ids):
        with refused(TypeError, "Posterior", type(wrong).__name__):
            Recommender.from_params(wrong, users=users, items=items)


def test_a_format_of_one_fm_refuses_a_posterior(tmp_path):
    with refused(TypeError, "FMParams", "Posterior"):
        write_artifact(tmp_path / "model.tar.gz", random_posterior(0, 2, 3, 1), "squared")
    assert not any(tmp_path.iterdir())


class Growing:
    """A training whose model has one sample more after each iteration."""

    def __init__(self, posterior, done):
        self.posterior, self.done = posterior, done

    def step(self, iteration):
        self.done = iteration + 1
        return {"loss": 1.0}

    def model(self):
        n = max(self.done, 1)
        state = self.posterior.to_state()
        return Posterior(*(state[name][:n] for name in ("w0", "w", "V")))

    def state(self, iteration):
        return {"iteration": np.array(iteration)}


def test_early_stopping_goes_on_from_a_best_posterior_of_fewer_samples():
    X = random_matrix(0, 8, 4)
    posterior = random_posterior(2, 9, 4, 1)
    good = posterior.to_state()
    first_two = Posterior(good["w0"][:2], good["w"][:2], good["V"][:2])
    y = first_two.score(X)  # the best are two samples

    def stopping():
        callback = fmknn.EarlyStopping(X, y, patience=5)
        callback.bind(lambda X, y: (design_of_rows(as_rows(X)), y), "squared", unchanged)
        return callback

    def run(first, callbacks, start=None):
        settings_ = {"n_iter": 9, "progress": False, "advice": ""}
        return iterate(
            Growing(posterior, first), first=first, callbacks=callbacks, start=start, **settings_
        )

    kept = []
    whole = run(0, [stopping(), lambda step: kept.append(step.state()) and None])
    assert repr(whole.model) == repr(first_two) and whole.history[-1]["iteration"] == 7
    resumed = run(4, [stopping()], kept[3])
    assert resumed.model.score(X).tobytes() == whole.model.score(X).tobytes()
    assert resumed.history[-1]["iteration"] == 7


# --- the object itself -------------------------------------------------------------------------


def test_what_it_says_of_itself():
    posterior = random_posterior(0, 50, 30, 16)
    assert repr(posterior) == "Posterior(50 samples, 30 features, 16 factors)"
    assert (posterior.n_samples, posterior.n_features, posterior.n_factors) == (50, 30, 16)
    assert posterior.query_scale == 1 / 50
    assert isinstance(posterior, Model) and isinstance(next(posterior.samples()), Model)


def test_parameters_are_float32_and_read_only_and_samples_are_views():
    w = np.zeros((2, 3), np.float32)
    posterior = Posterior([1, 2], w, np.asfortranarray(np.zeros((2, 3, 2))))
    assert isinstance(posterior.w0, float) and posterior.w0 == 1.5
    for array in (posterior.w, posterior.V):
        assert array.dtype == np.float32 and array.flags.c_contiguous and not array.flags.writeable
    for sample in posterior.samples():
        assert np.shares_memory(sample.w, w) and np.shares_memory(sample.V, posterior.V)
        assert not sample.V.flags.writeable
    w[0] = 1  # the caller's array stays writable


@pytest.mark.parametrize(
    "shapes",
    [
        ((2,), (3, 4), (2, 4, 1)),
        ((2,), (2, 4), (3, 4, 1)),
        ((2,), (2, 4), (2, 4)),
        ((2,), (4,), (2, 4, 1)),
        ((), (2, 4), (2, 4, 1)),
        ((2, 1), (2, 4), (2, 4, 1)),
        ((2,), (2, 4), (2, 5, 1)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with refused(ValueError, "shape"):
        Posterior(*map(np.zeros, shapes))


def test_no_samples_are_refused():
    with refused(ValueError, "one sample"):
        Posterior(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 4, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_parameter_that_is_not_finite_is_named_with_its_sample(value, place):
    arrays = [np.zeros(3), np.zeros((3, 4)), np.zeros((3, 4, 1))]
    arrays[place][1] = value
    with refused(ValueError, "sample 1", ("w0", "w", "V")[place]):
        Posterior(*arrays)


def test_a_parameter_beyond_float32_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(ValueError, "sample 0", "V", "feature 2"):
            Posterior([0], np.zeros((1, 3)), [[[0], [0], [1e39]]])


def test_rows_that_do_not_fit_are_refused():
    posterior = random_posterior(3, 2, 7, 2)
    for use in (posterior.project, posterior.score, lambda X: posterior.predict(X, clip)):
        with refused(ValueError, "5", "7"):
            use(np.ones((2, 5)))
        with refused(ValueError, "row 1", "column 0", "nan"):
            use(np.vstack([np.ones(7), [np.nan, *np.ones(6)]]))
    with refused(ValueError, "5 features", "7"):
        posterior.score(design_of_rows(as_rows(np.ones((2, 5)))))
    for columns in (slice(3, 8), slice(3, 3), slice(0, 7, 2)):
        with refused(ValueError, "0..6"):
            item_matrix(posterior, columns)
    with refused(TypeError, "Posterior", "dict"):
        item_matrix(dict, slice(0, 1))


def test_projecting_holds_the_result_and_one_samples_arrays():
    n, n_samples, k = 100_000, 20, 4
    posterior = random_posterior(0, n_samples, 50, k)
    rows = SparseRows(np.arange(n + 1), np.arange(n) % 50, np.ones(n, np.float32), 50)
    posterior.project(rows.slice(0, 1))  # compiled
    tracemalloc.start()
    try:
        posterior.project(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = n * (4 * n_samples * k + 8)
    one_sample = n * (4 * k + 8)
    assert peak < result + one_sample + 8 * n + 1_000_000


def test_interactions_go_through_the_design():
    data = interactions("everything")
    design = design_of_interactions(data)
    posterior = posterior_of(design.n_features)
    X = design.expand(0, 20).to_scipy().toarray()
    require_mean_score(posterior.score(design)[:20], posterior, X)
