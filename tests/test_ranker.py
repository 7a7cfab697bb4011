"""FMRanker and the counting of repeated rows: implicit feedback, from rows to lists."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import same_answers
from refusals import refused
from sklearn.base import clone

import fmknn
from fmknn import FMClassifier, FMRanker, FMRegressor, Interactions, Recommender, WholeData
from fmknn.data.counts import counted
from fmknn.data.ids import IdMap
from fmknn.data.interactions import Context

# --- counts -----------------------------------------------------------------------------------

events = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1, 3])
    ),
    min_size=1,
    max_size=30,
)


def log_of(rows, weighted=True):
    users, items, days, weights = zip(*rows, strict=True)
    return Interactions.from_arrays(
        users,
        items,
        np.arange(len(rows)),
        weights=weights if weighted else None,
        timestamps=np.arange(len(rows)),
        context={"day": days},
    )


def as_counts(log):
    """{(user, item, day): weight} of rows that are all distinct."""
    days = log.context["day"]
    keys = zip(
        log.user_ids.tolist(), log.item_ids.tolist(), days.ids.ids[days.index].tolist(), strict=True
    )
    weights = [1.0] * len(log) if log.weights is None else log.weights.tolist()
    counts = dict(zip(keys, weights, strict=True))
    assert len(counts) == len(log)
    return counts


@given(rows=events, weighted=st.booleans(), seed=st.integers(0, 100))
def test_counts_are_sums_of_weights_in_any_order(rows, weighted, seed):
    if weighted and not any(row[-1] for row in rows):
        rows = [*rows, (0, 0, 0, 1.0)]
    expected = {}
    for *key, weight in rows:
        if weight or not weighted:
            key = tuple(key)
            expected[key] = expected.get(key, 0.0) + (weight if weighted else 1.0)
    log = log_of(rows, weighted)
    result = counted(log)
    assert as_counts(result) == expected
    assert list(as_counts(result)) == sorted(expected)
    assert result.values is None and result.timestamps is None
    assert (result.weights is None) == (set(expected.values()) == {1.0})
    assert (result.users, result.items) == (log.users, log.items)
    shuffled = counted(log.take(np.random.default_rng(seed).permutation(len(log))))
    assert list(as_counts(shuffled).items()) == list(as_counts(result).items())
    assert as_counts(counted(result)) == expected
    assert len(log) == len(rows) and log.values is not None  # what was given is as it was


def test_weights_that_add_up_beyond_float32_are_refused():
    log = Interactions.from_arrays(["a", "b", "b"], [1, 7, 7], weights=[1.0, 3e38, 3e38])
    with refused(ValueError, "user 'b'", "item 7", "float32"):
        counted(log)


def test_more_tuples_than_an_int64_can_tell_apart_are_counted():
    """Vocabularies of 5000 users, items and levels of four contexts: 5000⁶ > 2⁶³."""
    rng = np.random.default_rng(0)
    n, size = 3000, 5000
    vocabulary = IdMap.build(range(size))
    chosen = rng.integers(2, size=(n, 6)) * (size - 1)  # the corners: each at the end of its range
    log = Interactions(
        vocabulary,
        vocabulary,
        chosen[:, 0],
        chosen[:, 1],
        context={f"c{i}": Context(vocabulary, chosen[:, 2 + i]) for i in range(4)},
    )
    result = counted(log)
    expected = {}
    for key in map(tuple, chosen.tolist()):
        expected[key] = expected.get(key, 0) + 1
    found = zip(
        result.user_index.tolist(),
        result.item_index.tolist(),
        *(column.index.tolist() for column in result.context.values()),
        strict=True,
    )
    assert dict(zip(found, result.weights.tolist(), strict=True)) == expected
    assert len(expected) == 64


# --- what it takes ----------------------------------------------------------------------------


def purchases(context=None, features=False):
    data, _ = fmknn.datasets.make_interactions(
        n_users=60,
        n_items=40,
        n_ratings=700,
        context=context,
        user_features=features,
        item_features=features,
        random_state=0,
    )
    return data


def ranker(**settings):
    return FMRanker(**{"n_factors": 4, "n_iter": 4, "random_state": 0} | settings)


def same_parameters(one, other):
    return one.w0 == other.w0 and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("w", "V")
    )


def test_values_and_the_order_of_rows_say_nothing():
    data = purchases()
    params = ranker().fit(data).params_
    assert same_parameters(ranker().fit(data.replace(values=None)).params_, params)
    assert same_parameters(ranker().fit(data.replace(values=-data.values)).params_, params)
    order = np.random.default_rng(0).permutation(len(data))
    assert same_parameters(ranker().fit(data.take(order)).params_, params)


def test_repeated_rows_are_a_weight():
    data = purchases().replace(values=None)
    copies = np.random.default_rng(0).integers(0, 4, len(data))
    repeated = data.take(np.repeat(np.arange(len(data)), copies))
    weighted = data.replace(weights=copies.astype(float))
    assert same_parameters(ranker().fit(repeated).params_, ranker().fit(weighted).params_)
    once = ranker(solver=WholeData(count_power=0.0))
    counts = counted(repeated)
    assert same_parameters(
        once.fit(repeated).params_, clone(once).fit(counts.replace(weights=None)).params_
    )


def test_other_input_is_refused():
    data = purchases()
    nothing = data.take([])
    with refused(TypeError, "FMRanker takes Interactions", "ndarray"):
        ranker().fit(np.eye(3))
    with refused(TypeError, "FMRanker takes Interactions"):
        ranker().fit(np.eye(3), np.ones(3))
    for more in ({"y": data.values}, {"blocks": {}}, {"weights": data.values}):
        with refused(ValueError, "pass X only"):
            ranker().fit(data, **more)
    with refused(ValueError, "groups", "pass X only"):
        ranker().fit(data, groups=[0])
    with refused(ValueError, "data is empty"):
        ranker().fit(nothing)
    with refused(ValueError, "weights are all zero"):
        data = data.replace(weights=np.r_[np.zeros(len(data) - 1), 1.0])
        ranker().fit(data.take(np.arange(3)))
    with refused(ValueError, "EarlyStopping", "set n_iter"):
        ranker(callbacks=[fmknn.EarlyStopping(purchases())]).fit(purchases())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"solver": "adam"}, ValueError, ("Adam", "FMRanker")),
        ({"solver": fmknn.ALS()}, ValueError, ("ALS", "FMRanker")),
        ({"solver": "ials"}, ValueError, ("unknown solver 'ials'", "whole-data")),
        ({"loss": "squared"}, ValueError, ("loss", "'squared'", "whole-data")),
        ({"solver": 3}, TypeError, ("solver", "3")),
        ({"n_factors": -1}, ValueError, ("n_factors", "-1")),
        ({"n_iter": 0}, ValueError, ("n_iter",)),
        ({"n_jobs": 0}, ValueError, ("n_jobs",)),
    ],
)
def test_settings_that_do_not_go_are_refused(settings, error, words):
    with refused(error, *words):
        ranker(**settings).fit(purchases())


@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_other_estimators_do_not_learn_its_loss(kind):
    with refused(ValueError, "whole-data"):
        kind(loss="whole-data").fit(purchases())
    with refused(ValueError, "WholeData", kind.__name__):
        kind(solver=WholeData()).fit(purchases())


def test_what_failed_leaves_the_old_model():
    model = ranker().fit(purchases())
    params = model.params_
    with refused(TypeError, "Interactions"):
        model.fit(np.eye(3))
    assert model.params_ is params


# --- settings, as scikit-learn's tools handle them --------------------------------------------


def test_settings_are_kept_set_and_cloned():
    model = ranker(solver=WholeData(alpha0=0.5))
    assert model.get_params()["solver__alpha0"] == 0.5
    again = clone(model).set_params(solver__alpha0=0.25, n_factors=2)
    assert (model.solver.alpha0, again.solver.alpha0) == (0.5, 0.25)
    assert again.fit(purchases()).params_.V.shape[1] == 2
    with refused(ValueError, "n_factor"):
        model.set_params(n_factor=1)
    assert FMRanker().get_params()["n_factors"] == 64
    assert "solver" in repr(model) and "WholeData" in repr(model)


def test_a_fit_can_be_copied_and_pickled():
    data = purchases()
    model = ranker().fit(data)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same_parameters(other.params_, model.params_)
        assert np.array_equal(other.linear_predictor(data), model.linear_predictor(data))


def test_names_and_objects_of_the_solver_are_the_same():
    data = purchases()
    params = ranker().fit(data).params_
    others = [
        ranker(solver="whole-data"),
        ranker(solver=WholeData()),
        ranker(loss="whole-data"),
        ranker(n_iter=None, solver=WholeData(n_iter=4)),
    ]
    for other in others:
        assert same_parameters(other.fit(data).params_, params)
    assert len(FMRanker(2, random_state=0).fit(data).history_) == WholeData().n_iter


def test_the_history_tells_of_each_iteration():
    seen = []
    model = ranker(callbacks=[seen.append]).fit(purchases())
    assert model.n_iter_ == len(model.history_) == len(seen) == 4
    for number, entry in enumerate(model.history_, 1):
        assert entry["iteration"] == number
        parts = [entry[name] for name in ("observed", "all_pairs", "penalty")]
        assert entry["loss"] == pytest.approx(sum(parts))
        assert min(parts) >= 0
    losses = [entry["loss"] for entry in model.history_]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("features", [False, True])
def test_a_checkpoint_goes_on_with_the_same_bits(tmp_path, context, features):
    data, path = purchases(context, features), tmp_path / "half"
    whole = ranker().fit(data)
    stop = [fmknn.Checkpoint(path), lambda step: step.iteration == 2]
    assert ranker(callbacks=stop).fit(data).n_iter_ == 2
    resumed = ranker(random_state=7).fit(data, start=path)
    assert same_parameters(resumed.params_, whole.params_)
    assert [entry["iteration"] for entry in resumed.history_] == [3, 4]
    with refused(ValueError, "theta"):
        ranker(n_factors=5).fit(data, start=path)
    with refused(ValueError, "state"):
        ranker().fit(data, start=FMRegressor(4, n_iter=1).fit(data).state_)


# --- behind a recommender ---------------------------------------------------------------------


def test_without_an_estimator_the_values_decide():
    data = purchases().take(np.arange(60))
    assert isinstance(Recommender().fit(data).estimator_, FMRegressor)
    fitted = Recommender().fit(data.replace(values=None))
    assert isinstance(fitted.estimator_, FMRanker)
    assert fitted.estimator_.n_factors == 64


SHAPES = list(itertools.product([None, 3], [False, True]))


@pytest.mark.parametrize(("context", "features"), SHAPES)
def test_answers_are_the_models_and_a_file_gives_them_too(tmp_path, context, features):
    data = purchases(context, features)
    model = Recommender(ranker()).fit(data)
    days = {name: column.ids.ids[column.index] for name, column in data.context.items()}
    pairs = data.user_ids, data.item_ids
    scores = model.scores(*pairs, days)
    np.testing.assert_allclose(
        scores, model.estimator_.linear_predictor(data), rtol=1e-4, atol=1e-5
    )
    assert np.array_equal(model.predict(*pairs, days), scores)  # neither clipped nor a chance
    some = {name: column[0] for name, column in days.items()}
    path = tmp_path / "model.fmknn"
    model.save(path)
    loaded = fmknn.load(path)
    assert isinstance(loaded.estimator_, FMRanker)
    assert loaded.estimator_.get_params().keys() == model.estimator_.get_params().keys()
    assert np.array_equal(loaded.scores(*pairs, days), scores)
    ids = data.users.ids
    assert same_answers(
        loaded.recommend(ids, 7, context=some), model.recommend(ids, 7, context=some)
    )
    again = Recommender(loaded.estimator_).fit(data)  # it trains as the saved one does
    assert same_parameters(again.params_, model.params_)


@pytest.mark.parametrize("index", ["exact", "flat", "ivf"])
def test_lists_are_the_best_scores(index):
    data = purchases()
    model = Recommender(ranker(), index=index).fit(data)
    top = model.recommend(data.users.ids, 10)
    assert not model.seen_pairs(np.repeat(data.users.ids, 10), top.items.ravel()).any()
    if index != "ivf":
        scores = np.array([model.scores(np.full(40, u), data.items.ids) for u in data.users.ids])
        seen = np.zeros(scores.shape, bool)
        seen[data.user_index, data.item_index] = True
        best = -np.sort(-np.where(seen, -np.inf, scores), axis=1)[:, :10]
        np.testing.assert_allclose(top.scores, best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("context", "features"), SHAPES)
def test_a_batch_is_its_rows_and_threads_change_no_bit(context, features):
    data = purchases(context, features)
    one, two = (Recommender(ranker(n_jobs=n_jobs)).fit(data) for n_jobs in (1, 2))
    some = {name: column.ids.ids[0] for name, column in data.context.items()}
    batch = one.recommend(data.users.ids, 6, context=some)
    assert same_answers(batch, two.recommend(data.users.ids, 6, context=some))
    for place in (0, 31):
        alone = one.recommend(data.users.ids[place], 6, context=some)
        assert alone.positions[0].tolist() == batch.positions[place].tolist()
        assert alone.scores[0].tobytes() == batch.scores[place].tobytes()


def test_it_ranks_what_is_taken_above_chance():
    users, items = np.divmod(np.arange(3600), 60)
    kind = (users % 3 == items % 3) & (np.random.default_rng(0).random(3600) < 0.5)
    log = Interactions.from_arrays(users[kind], items[kind])
    train, test = fmknn.splits.random(log, test=0.2, random_state=0)
    model = Recommender(ranker(n_iter=10)).fit(train)
    found = model.evaluate(test, ["ndcg@10", "recall@10", "mrr@10"])
    assert found["recall@10"] > 0.7  # 10 of some 12 of the kind are left to recommend
    assert found["ndcg@10"] > 0.4
    taken = model.recommend(log.users.ids, 10).items
    assert (taken % 3 == log.users.ids[:, None] % 3).mean() > 0.95


def test_errors_of_predictions_are_not_for_a_ranker():
    train, test = fmknn.splits.random(purchases(), test=0.2, random_state=0)
    model = Recommender(ranker()).fit(train)
    with refused(ValueError, "FMRanker ranks and predicts no values"):
        model.evaluate(test, ["rmse"])
    with refused(ValueError, "FMRanker ranks"):
        model.estimator_.encode_targets(np.ones(3))


def test_parameters_trained_elsewhere_rank_too(tmp_path):
    data = purchases()
    model = Recommender(ranker()).fit(data)
    same = Recommender.from_params(
        model.params_, users=data.users.ids, items=data.items.ids, seen=data, loss="whole-data"
    )
    assert isinstance(same.estimator_, FMRanker)
    assert same_answers(same.recommend(data.users.ids, 5), model.recommend(data.users.ids, 5))
    pairs = data.user_ids, data.item_ids
    assert np.array_equal(same.predict(*pairs), model.scores(*pairs))  # not clipped to the ratings
    same.save(tmp_path / "m")
    assert np.array_equal(fmknn.load(tmp_path / "m").predict(*pairs), same.predict(*pairs))


def test_before_a_fit_there_is_nothing_to_ask():
    with refused(ValueError, "FMRanker"):
        FMRanker().linear_predictor(purchases())
