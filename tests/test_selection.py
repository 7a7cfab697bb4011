"""Comparisons in one table, and searches that stop and go on."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
from refusals import refused

import fmknn
from fmknn import selection
from fmknn.baselines import ItemCosine, Popularity
from fmknn.data.ids import IdMap
from fmknn.data.interactions import Context, Interactions
from fmknn.errors import DivergenceError, MissingExtraError
from fmknn.selection import choice, compare, integers, log_uniform, search, uniform

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def parts():
    ratings, _ = fmknn.datasets.make_interactions(n_users=60, n_items=30, n_ratings=900)
    return fmknn.splits.random(ratings, test=0.2, random_state=0, per_user=True)


def als(n_factors=2, **settings):
    defaults = {"solver": "als", "n_iter": 2, "random_state": 0}
    return fmknn.FMRegressor(n_factors, **{**defaults, **settings})


# --- compare ----------------------------------------------------------------------------------


def test_all_models_are_fitted_on_the_same_rows_and_measured_on_the_same_test(parts):
    train, test = parts
    fitted = fmknn.Recommender(als(n_iter=1)).fit(train)
    models = {
        "popular": Popularity(),
        "estimator": als(),
        "recommender": fmknn.Recommender(als()),
        "fitted": fitted,
    }
    result = compare(models, train, test, ["ndcg@5", "coverage@5"])
    alone = fmknn.Recommender(als()).fit(train).evaluate(test, ["ndcg@5", "coverage@5"])
    assert result["estimator"] == result["recommender"] == alone
    assert result["fitted"] == fitted.evaluate(test, ["ndcg@5", "coverage@5"])
    assert result.models["fitted"] is fitted and result.fit_seconds["fitted"] is None
    assert all(result.fit_seconds[name] > 0 for name in ("popular", "estimator", "recommender"))
    assert not hasattr(models["recommender"], "catalog_")  # copies were fitted
    assert not hasattr(models["popular"], "catalog_") and not hasattr(
        models["estimator"], "params_"
    )


def test_a_comparison_prints_one_aligned_table(parts):
    train, test = parts
    result = compare({"popularity": Popularity(), "als": als()}, train, test, ["ndcg@5", "mrr"])
    header, first, second, about = str(result).splitlines()
    assert header.split() == ["ndcg@5", "mrr", "fit", "CPU", "s"]
    assert first.split()[:2] == ["popularity", f"{result['popularity']['ndcg@5']:.4f}"]
    assert second.split()[0] == "als" and len(header) == len(first) == len(second)
    assert about == f"{result['als'].n_users} users, {result['als'].n_rows} rows"


def test_a_comparison_comes_as_rows_as_json_and_as_a_frame(parts):
    train, test = parts
    given = fmknn.Recommender(als()).fit(train)
    result = compare({"p": Popularity(), "given": given}, train, test, "ndcg@5", intervals=0.9)
    told = json.loads(json.dumps(result.to_dict()))
    assert told["results"]["p"]["metrics"] == result["p"].metrics
    assert result.rows()[1] == {
        "model": "given",
        "ndcg@5": result["given"]["ndcg@5"],
        "fit CPU s": None,
    }
    frame = result.to_frame("pandas")
    assert frame["model"].tolist() == ["p", "given"]
    assert frame["ndcg@5"].tolist() == [r["ndcg@5"] for r in result.rows()]
    assert math.isnan(frame["fit CPU s"][1])


@pytest.mark.parametrize("metric, best", [("mae", min), ("ndcg@5", max)])
def test_the_best_by_the_first_metric_is_what_others_differ_from(parts, metric, best):
    train, test = parts
    models = {"one": als(n_iter=1), "ten": als(n_iter=10), "none": als(n_factors=0)}
    result = compare(models, train, test, [metric, "mrr"], intervals=0.95, random_state=0)
    assert result.baseline == best(models, key=lambda name: result[name][metric])
    assert {*result.differences} == {*models} - {result.baseline}
    named = compare(models, train, test, metric, baseline="one", intervals=0.95, random_state=0)
    assert named.baseline == "one"
    for name, found in named.differences.items():
        low, high = found[metric]
        assert low <= named[name][metric] - named["one"][metric] <= high


def test_a_model_that_is_surely_worse_is_marked(parts):
    train, test = parts
    worst = als(0, solver=fmknn.ALS(l2_linear=1e6))
    models = {"good": als(n_iter=20), "same": als(n_iter=20), "bad": worst}
    result = compare(models, train, test, "mae", intervals=0.95, random_state=0)
    lines = {line.split()[0]: line for line in str(result).splitlines()[1:4]}
    assert result.differences["same"]["mae"] == (0.0, 0.0)
    assert result.differences["bad"]["mae"][0] > 0
    assert "*" in lines["bad"] and "*" not in lines["same"] and "±" in lines["good"]


def test_all_models_meet_the_same_drawings(parts):
    train, test = parts
    models = {"one": als(), "same": als()}
    state = np.random.default_rng(0)  # a generator would give each evaluation its own
    result = compare(models, train, test, "mrr", sampled=9, intervals=0.9, random_state=state)
    assert result["one"] == result["same"]
    assert list(result["one"]) == ["sampled mrr (9 negatives)"]


def test_a_model_that_knows_fewer_of_the_rows_is_pointed_out(parts):
    train, test = parts
    few = train.take(train.user_index < 20)
    few = Interactions.from_arrays(few.user_ids, few.item_ids, few.values)
    models = {"all": Popularity(), "few": Popularity().fit(few)}
    result = compare(models, train, test, "ndcg@5", intervals=0.9, baseline="all")
    assert str(result).splitlines()[-1].endswith("other ids were known: few")
    assert "ndcg@5" in result.differences["few"]  # over the users of both


@pytest.mark.parametrize(
    "models, kind, words",
    [
        ({}, TypeError, ["mapping"]),
        ([als()], TypeError, ["mapping", "FMRegressor"]),
        ({"a": Popularity}, TypeError, ["'a'", "class", "Popularity()"]),
        ({"a": 3}, TypeError, ["'a'", "3"]),
    ],
)
def test_what_can_not_be_compared_is_refused(parts, models, kind, words):
    with refused(kind, *words):
        compare(models, *parts)


def test_metrics_may_come_from_a_generator(parts):
    names = ["ndcg@5", "mrr"]
    result = compare({"a": Popularity(), "b": ItemCosine()}, *parts, (name for name in names))
    assert list(result["a"]) == list(result["b"]) == names


def test_an_unknown_baseline_is_refused(parts):
    with refused(ValueError, "'b'", "there are a"):
        compare({"a": Popularity()}, *parts, baseline="b")


# --- search -----------------------------------------------------------------------------------

SPACE = {
    "n_factors": integers(1, 4),
    "solver__l2_factors": log_uniform(0.1, 100),
    "solver__init_sigma": uniform(0.05, 0.2),
}


def quick(train, space=SPACE, estimator=None, **options):
    estimator = als() if estimator is None else estimator
    defaults = {"metric": "rmse", "n_trials": 4, "random_state": 0, "progress": False}
    return search(estimator, space, train, **{**defaults, **options})


def outcome(result):
    return [(trial["params"], trial["score"]) for trial in result.trials]


def test_the_best_of_the_trials_is_what_comes_back(parts):
    result = quick(parts[0])
    assert [trial["number"] for trial in result.trials] == [0, 1, 2, 3]
    best = min(result.trials, key=lambda trial: trial["score"])
    assert (result.best_params, result.best_score) == (best["params"], best["score"])
    highest = quick(parts[0], metric="ndcg@5")
    assert highest.best_score == max(trial["score"] for trial in highest.trials)


def test_a_trial_scores_what_its_parameters_do_on_the_validation_rows(parts):
    train, validation = fmknn.splits.random(parts[0], test=0.2, random_state=9)
    result = quick(train, validation=validation, n_trials=2)
    for trial in result.trials:
        config = fmknn.ALS(
            l2_factors=trial["params"]["solver__l2_factors"],
            init_sigma=trial["params"]["solver__init_sigma"],
        )
        one = fmknn.FMRegressor(
            trial["params"]["n_factors"], solver=config, n_iter=2, random_state=0
        )
        model = fmknn.Recommender(one).fit(train)
        assert trial["score"] == model.evaluate(validation, "rmse")["rmse"]
    best = result.best_estimator
    assert not hasattr(best, "params_")
    assert best.n_factors == result.best_params["n_factors"] and best.n_iter == 2
    assert best.solver.l2_factors == result.best_params["solver__l2_factors"]


def test_values_lie_in_their_ranges(parts):
    space = {**SPACE, "solver__l2_linear": choice([1.0, 3.0])}
    for trial in quick(parts[0], space, n_trials=12).trials:
        assert trial["params"]["n_factors"] in (1, 2, 3, 4)
        assert 0.1 <= trial["params"]["solver__l2_factors"] <= 100
        assert 0.05 <= trial["params"]["solver__init_sigma"] <= 0.2
        assert trial["params"]["solver__l2_linear"] in (1.0, 3.0)


def test_a_search_is_resumed_on_the_same_rows_alone(parts, tmp_path):
    train, storage = parts[0], tmp_path / "trials"
    quick(train, n_trials=1, storage=storage)
    days = np.arange(len(train)) % 7
    for other in (
        train.replace(weights=np.linspace(1, 2, len(train))),
        train.replace(context={"day": Context(IdMap(list(range(7)), "day"), days)}),
    ):
        with refused(ValueError, "another search", "rows"):
            quick(other, n_trials=1, storage=storage)


def test_one_random_state_one_search(parts):
    estimator = als(random_state=None)  # it takes part in the one random state
    one, same, other = (
        outcome(quick(parts[0], estimator=estimator, random_state=seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_a_search_learns_from_its_trials(parts):
    # what is best is known: beyond the random trials the parzen estimator comes closer to it
    space = {"solver__l2_factors": log_uniform(1e-3, 1e6), "n_factors": choice([2])}
    scores = [score for _, score in outcome(quick(parts[0], space, n_trials=25))]
    assert np.mean(scores[10:]) < np.mean(scores[:10])


@pytest.mark.parametrize("stops", [[2], [10, 11], [3, 3, 12]])
def test_a_resumed_search_is_one_that_never_stopped(parts, tmp_path, stops):
    whole = quick(parts[0], n_trials=14)  # past the ten that are drawn at random
    for n_trials in stops:
        quick(parts[0], n_trials=n_trials, storage=tmp_path / "search.log")
    resumed = quick(parts[0], n_trials=14, storage=tmp_path / "search.log")
    assert outcome(resumed) == outcome(whole)
    assert outcome(quick(parts[0], n_trials=5, storage=tmp_path / "search.log")) == outcome(whole)


class StopError(Exception):
    pass


def test_a_trial_that_was_stopped_is_run_again(parts, tmp_path):
    whole = quick(parts[0], n_trials=12)
    fits = []

    def stopping(step):
        fits.append(step)
        if len(fits) in (5, 23):  # within the third trial, and past the random ones
            raise StopError

    estimator = als(callbacks=[stopping])
    for _ in range(2):
        with pytest.raises(StopError):
            quick(parts[0], estimator=estimator, n_trials=12, storage=tmp_path / "search.log")
    resumed = quick(parts[0], n_trials=12, storage=tmp_path / "search.log")
    assert outcome(resumed) == outcome(whole)
    assert len(fits) == 23


def test_a_storage_of_another_search_is_refused(parts, tmp_path):
    storage = tmp_path / "search.log"
    quick(parts[0], n_trials=1, storage=storage)
    for options, word in (
        ({"metric": "mae"}, "metric"),
        ({"random_state": 1}, "random_state"),
        ({"space": {"n_factors": integers(1, 3)}}, "space"),
        ({"estimator": als(n_iter=3)}, "parameters"),
        ({"validation": 0.3}, "rows"),
        ({"exclude_seen": False}, "options"),
    ):
        with refused(ValueError, "search.log", word):
            quick(parts[0], storage=storage, **options)
    with refused(ValueError, "storage", "random_state"):
        quick(parts[0], storage=storage, random_state=None)


def test_a_file_that_is_no_storage_is_refused(parts, tmp_path):
    storage = tmp_path / "notes.txt"
    storage.write_text("milk\n")
    with refused(ValueError, "notes.txt", "no search"):
        quick(parts[0], storage=storage)
    assert storage.read_text() == "milk\n"


def test_the_last_row_of_each_user_validates_where_there_are_timestamps(parts):
    timed = parts[0].replace(timestamps=np.arange(len(parts[0])))
    inner, validation = fmknn.splits.leave_last(timed)
    assert outcome(quick(timed)) == outcome(quick(inner, validation=validation))
    assert outcome(quick(timed, validation=0.1)) == outcome(quick(parts[0]))


def test_options_reach_the_evaluation(parts):
    one = quick(parts[0], metric="recall@3", n_trials=1)
    other = quick(parts[0], metric="recall@3", n_trials=1, exclude_seen=False)
    assert one.best_params == other.best_params and one.best_score != other.best_score
    sampled = quick(parts[0], metric="recall@3", n_trials=1, sampled=5)
    assert sampled.best_score > one.best_score


def test_solvers_can_be_options_by_name_and_as_objects(parts):
    objects = [fmknn.ALS(l2_factors=1.0), fmknn.Adam(epochs=1)]
    result = quick(parts[0], {"solver": choice(objects)}, n_trials=6)
    assert {id(trial["params"]["solver"]) for trial in result.trials} == {*map(id, objects)}
    space = {"solver": choice(["als", "mcmc"]), "solver__init_sigma": uniform(0.05, 0.2)}
    result = quick(parts[0], space, n_trials=2)
    assert type(result.best_estimator.solver) in (fmknn.ALS, fmknn.Gibbs)


def test_trials_that_diverge_are_kept_as_failed(parts):
    rates = choice([1e30, 0.01])
    space = {"solver__factors_lr": rates}
    adam = als(solver="adam")
    result = quick(parts[0], space, estimator=adam, n_trials=8)
    failed = [trial for trial in result.trials if trial["error"]]
    assert failed and len(failed) < 8
    assert all("diverged" in trial["error"] and math.isnan(trial["score"]) for trial in failed)
    assert result.best_params == {"solver__factors_lr": 0.01}
    assert str(result).splitlines()[-1].split()[1] == "failed"
    with refused(DivergenceError, "all 2 trials failed", "diverged"):
        quick(parts[0], {"solver__factors_lr": choice([1e30])}, estimator=adam, n_trials=2)


def test_a_result_is_a_table_with_the_best_first(parts):
    result = quick(parts[0])
    header, *lines = str(result).splitlines()
    assert header.split()[:3] == ["trial", "rmse", "n_factors"]
    scores = [float(line.split()[1]) for line in lines]
    assert len(lines) == 4 and scores == sorted(scores)


def test_optuna_stays_as_quiet_or_as_loud_as_it_was(parts, capfd):
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(logging.INFO)
        quick(parts[0], n_trials=2)
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_how_many_trials_are_over(parts, capfd):
    quick(parts[0], n_trials=2, progress=True)
    assert "2/2" in capfd.readouterr().err


def test_numpys_global_random_numbers_stay_as_they_were(parts):
    before = np.random.get_state()[1].copy()
    quick(parts[0], n_trials=12)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_search_does_not_change_the_estimator(parts):
    estimator = als()
    quick(parts[0], estimator=estimator)
    assert repr(estimator) == repr(als()) and not hasattr(estimator, "params_")


@pytest.mark.parametrize(
    "space, options, kind, words",
    [
        ({}, {}, ValueError, ["space", "names of parameters"]),
        ({"n_factors": [1, 2]}, {}, TypeError, ["n_factors", "log_uniform", "[1, 2]"]),
        ({"factors": integers(1, 2)}, {}, ValueError, ["factors", "n_factors"]),
        ({"solver__l3": uniform(0, 1)}, {}, ValueError, ["solver__l3", "ALS", "l2_factors"]),
        ({"n_jobs__l3": uniform(0, 1)}, {}, ValueError, ["n_jobs", "no parameters"]),
        ({"solver": choice(["als", "als2"])}, {}, ValueError, ["als2", "mcmc"]),
        ({"loss": choice(["squared", "ordinal"])}, {}, ValueError, ["ALS", "ordinal"]),
        ({"solver__n_iter": integers(1, 2)}, {}, ValueError, ["solver__n_iter", "no effect"]),
        (SPACE, {"metric": "coverage@5"}, ValueError, ["coverage@5", "neither"]),
        (SPACE, {"metric": "recall"}, ValueError, ["recall", "recall@k"]),
        (SPACE, {"n_trials": 0}, ValueError, ["n_trials", "at least 1"]),
        (SPACE, {"validation": 1.5}, ValueError, ["test", "between 0 and 1"]),
        (SPACE, {"estimator": fmknn.FMRegressor}, TypeError, ["estimator", "FMRegressor"]),
    ],
)
def test_a_search_that_can_not_be_is_refused_at_once(parts, space, options, kind, words):
    with refused(kind, *words):
        quick(parts[0], space, **options)


def test_validation_rows_that_measure_nothing_are_refused(parts):
    train, _ = parts
    lone = train.take(train.user_index != 0)
    nobody = train.take(train.user_index == 0)
    with refused(ValueError, "validation", "ndcg@5"):
        quick(lone, validation=nobody, metric="ndcg@5")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: uniform(1, 1), ["uniform", "1"]),
        (lambda: uniform(0, math.inf), ["uniform", "finite"]),
        (lambda: log_uniform(0, 1), ["log_uniform", "above 0"]),
        (lambda: integers(3, 2), ["high", "at least 3"]),
        (lambda: integers(0.5, 2), ["low", "integer"]),
        (lambda: choice([]), ["choice", "list of options"]),
        (lambda: choice("als"), ["choice", "'als'"]),
    ],
)
def test_ranges_that_are_none_are_refused(make, words):
    with refused(ValueError, *words):
        make()


def test_without_optuna_the_extra_is_named(parts, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with refused(MissingExtraError, "optuna", "fmknn[search]"):
        quick(parts[0])


def test_comparing_needs_no_optuna(parts, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert selection.compare({"cosine": ItemCosine()}, *parts, "ndcg@5")["cosine"]
