"""Plots: their lines are the numbers that were given, and pyplot never hears of them."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from refusals import refused

import fmknn
from fmknn.plot import popularity_dial, recall_against_speed, training_curve

RATINGS = fmknn.datasets.make_interactions(30, 20, 300, random_state=0)[0]
HISTORY = ({"iteration": 1, "loss": 3.0, "auc": 0.5}, {"iteration": 2, "loss": 2.0, "auc": 0.7})


def drawn(axes):
    """The points of each line, by its label."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


@pytest.fixture
def axes():
    return Figure().add_subplot()


@pytest.fixture(scope="module")
def als():
    return fmknn.FMRegressor(2, solver="als", n_iter=4, random_state=0).fit(RATINGS)


ALL = {
    "training_curve": lambda **options: training_curve(HISTORY, **options),
    "recall_against_speed": lambda **options: recall_against_speed({"a": [(9, 0.5)]}, **options),
    "popularity_dial": lambda **options: popularity_dial({0.5: {"coverage@3": 0.1}}, **options),
}


@pytest.mark.parametrize("plot", ALL.values(), ids=ALL)
def test_the_axes_given_are_drawn_on_and_returned(plot, axes):
    assert plot(ax=axes) is axes
    assert len(axes.lines) == 1 and axes.get_legend() is not None
    plot(ax=axes)
    assert len(axes.lines) == 2


@pytest.mark.parametrize("plot", ALL.values(), ids=ALL)
def test_without_axes_there_is_a_new_figure_each_time(plot, tmp_path):
    first, second = plot(), plot()
    assert isinstance(first, Axes) and first.figure is not second.figure
    assert first.figure.axes == [first]
    first.figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("plot", ALL.values(), ids=ALL)
def test_only_axes_are_axes(plot):
    with refused(TypeError, "ax", "Figure"):
        plot(ax=Figure())


def test_nothing_global_is_touched():
    code = (
        "import sys, fmknn, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "fmknn.plot.training_curve([{'iteration': 1, 'loss': 2.0}])\n"
        "fmknn.plot.recall_against_speed({'a': [(9, 0.5)]})\n"
        "fmknn.plot.popularity_dial({0: {'coverage@3': 0.1, 'novelty@3': 4.0}})\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with refused(fmknn.errors.MissingExtraError, "matplotlib", "pip install 'fmknn[plot]'"):
        training_curve(HISTORY)


def test_a_training_is_a_line(als):
    for run in (als, als.history_):
        axes = training_curve(run)
        points = [[entry["iteration"], entry["train_rmse"]] for entry in als.history_]
        assert drawn(axes) == {"train_rmse": points} and len(points) == 4
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "train_rmse")
    axes = training_curve(als, metric="loss")
    assert drawn(axes)["loss"] == [[e["iteration"], e["loss"]] for e in als.history_]


def test_several_trainings_are_as_many_lines(als):
    model = fmknn.Recommender(als).fit(RATINGS)
    axes = training_curve({"ALS": model, "by hand": HISTORY, "again": list(HISTORY)})
    assert list(drawn(axes)) == ["ALS", "by hand", "again"]
    assert axes.get_ylabel() == "loss"  # what all of them have
    assert drawn(axes)["by hand"] == [[1, 3.0], [2, 2.0]]
    assert len({line.get_color() for line in axes.lines}) == 3


@pytest.mark.filterwarnings("error")
def test_runs_may_be_called_anything(axes):
    axes.plot([1, 2], [3, 4])  # has no name
    axes.plot([1, 2], [3, 4], label="mine")
    training_curve({"_first": HISTORY, "b": HISTORY}, ax=axes)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["mine", "_first", "b"]
    legend = recall_against_speed({"_ivf": [(9, 0.5)]}).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_ivf"]


def test_a_figure_of_pyplot_is_drawn_on_when_it_is_given():
    code = (
        "import matplotlib\n"
        "matplotlib.use('Agg')\n"
        "import matplotlib.pyplot as plt, fmknn\n"
        "run = [{'iteration': 1, 'loss': 2.0}]\n"
        "fmknn.plot.training_curve(run)\n"
        "assert plt.get_fignums() == []\n"
        "axes = fmknn.plot.training_curve(run, ax=plt.gca())\n"
        "print(axes.figure is plt.gcf(), len(plt.gca().lines))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True 1\n"


def test_a_history_without_numbers_is_counted():
    assert drawn(training_curve([{"loss": 2.0}, {"loss": 1.0}])) == {"loss": [[1, 2.0], [2, 1.0]]}


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (fmknn.FMRegressor(2, solver="als", n_iter=5, random_state=0), "validation_rmse"),
        (fmknn.FMRegressor(2, solver="mcmc", n_iter=30, random_state=0), "validation_rmse"),
        (fmknn.FMRegressor(2, loss="ordinal", n_iter=30, random_state=0), "validation_rmse"),
        (fmknn.FMClassifier(2, n_iter=5, random_state=0), "validation_log_loss"),
    ],
    ids=["als", "mcmc", "ordinal", "logistic"],
)
def test_what_early_stopping_measured_is_drawn_beside_it(estimator, name):
    ratings = RATINGS
    if isinstance(estimator, fmknn.FMClassifier):
        ratings = RATINGS.replace(values=(RATINGS.values > np.median(RATINGS.values)))
    elif estimator.loss == "ordinal":
        ratings = RATINGS.replace(values=np.clip(np.round(RATINGS.values), 0, 3))
    train, validation = fmknn.splits.random(ratings, test=0.3, random_state=0)
    stopping = fmknn.EarlyStopping(validation, patience=40)
    estimator.set_params(callbacks=[stopping]).fit(train)
    kept = [entry for entry in estimator.history_ if name in entry]
    assert [entry[name] for entry in kept] == stopping.scores_ and kept
    axes = training_curve({"FM": estimator})
    points = [[entry["iteration"], entry[name]] for entry in kept]
    assert drawn(axes)[f"FM, {name}"] == points
    one, beside = axes.lines
    assert beside.get_linestyle() == "--" and beside.get_color() == one.get_color()
    assert list(drawn(training_curve(estimator))) == [axes.get_ylabel(), name]
    assert list(drawn(training_curve(estimator, metric=name))) == [name]
    assert len(training_curve(estimator, metric="loss").lines) == 1


@pytest.mark.parametrize(
    ("runs", "options", "error", "words"),
    [
        ({}, {}, ValueError, ["empty"]),
        ({"a": ()}, {}, ValueError, ["no history", "loaded"]),
        (fmknn.FMRegressor(), {}, ValueError, ["FMRegressor", "not fitted"]),
        (fmknn.Recommender(), {}, ValueError, ["Recommender", "not fitted"]),
        (5, {}, TypeError, ["history_", "int"]),
        ("loss", {}, TypeError, ["history_", "str"]),
        ([1.0, 2.0], {}, TypeError, ["history_", "list"]),
        (HISTORY, {"metric": "rmse"}, ValueError, ["'rmse'", "iteration, loss, auc"]),
        ({"a": HISTORY, "b": [{"loss": 1.0}]}, {"metric": "auc"}, ValueError, ["'auc'", "'b'"]),
    ],
)
def test_what_is_no_training_is_refused(runs, options, error, words):
    with refused(error, *words):
        training_curve(runs, **options)


def test_a_loaded_model_has_no_history(als, tmp_path):
    fmknn.Recommender(als).fit(RATINGS).save(tmp_path / "model.fmknn")
    with refused(ValueError, "no history", "loaded"):
        training_curve(fmknn.load(tmp_path / "model.fmknn"))


def test_recall_against_speed_is_what_was_given():
    points = {"IVF": [(4000, 0.9), (900, 0.99)], "HNSW": np.array([[50.0, 1.0]])}
    axes = recall_against_speed(points)
    assert drawn(axes) == {"IVF": [[900, 0.99], [4000, 0.9]], "HNSW": [[50, 1]]}  # slowest first
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("users per second", "recall")


def test_tuned_indexes_are_points():
    random = np.random.default_rng(0)
    items, users = random.normal(size=(300, 4)), random.normal(size=(50, 4))
    index = fmknn.FaissIndex("IVF", target_recall=0.9).build(items, users)
    point = [index.tuning_.users_per_second, index.tuning_.recall]
    axes = recall_against_speed({"a": index, "b": index.tuning_, "c": [index, (1e9, 0.5)]})
    assert drawn(axes) == {"a": [point], "b": [point], "c": [point, [1e9, 0.5]]}


@pytest.mark.parametrize(
    ("points", "error", "words"),
    [
        ([(1, 0.5)], TypeError, ["names", "list"]),
        ({}, ValueError, ["empty"]),
        ({"a": []}, TypeError, ["'a'", "pairs"]),
        ({"a": (900, 0.9)}, TypeError, ["'a'", "pairs"]),
        ({"a": [(1, 0.5), (2,)]}, TypeError, ["'a'", "pairs"]),
        ({"a": fmknn.ExactIndex()}, TypeError, ["'a'", "tuned"]),
        ({"a": [(1, 0.5), (0, 0.7)]}, ValueError, ["'a'", "0 users per second", "above 0"]),
        ({"a": [(1, 1.5)]}, ValueError, ["'a'", "recall of 1.5", "from 0 to 1"]),
        ({"a": [(1, np.nan)]}, ValueError, ["'a'", "nan"]),
        ({"a": [(np.inf, 0.5)]}, ValueError, ["'a'", "inf"]),
    ],
)
def test_what_is_no_point_is_refused(points, error, words):
    with refused(error, *words):
        recall_against_speed(points)


def test_the_dial_is_drawn_in_order_coverage_left_and_novelty_right():
    results = {
        1.0: {"ndcg@5": 0.3, "coverage@5": 0.1, "novelty@5": 4.0, "coverage@10": 0.2},
        0.0: {"ndcg@5": 0.1, "coverage@5": 0.5, "novelty@5": 9.0, "coverage@10": 0.7},
    }
    left = popularity_dial(results)
    assert drawn(left) == {
        "coverage@5": [[0, 0.5], [1, 0.1]],
        "coverage@10": [[0, 0.7], [1, 0.2]],
    }
    _, right = left.figure.axes
    assert drawn(right) == {"novelty@5": [[0, 9.0], [1, 4.0]]}
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == ["coverage@5", "coverage@10", "novelty@5"]
    assert len({line.get_color() for line in (*left.lines, *right.lines)}) == 3
    assert left.get_xlabel() == "popularity" and right.get_ylabel().startswith("novelty")


def test_evaluations_are_results_of_the_dial():
    train, test = fmknn.splits.random(RATINGS, test=0.3, random_state=0)
    model = fmknn.Recommender(fmknn.FMRegressor(2, solver="als", n_iter=2)).fit(train)
    result = model.evaluate(test, ["novelty@5"])
    axes = popularity_dial({0.5: result})
    assert drawn(axes) == {"novelty@5": [[0.5, result["novelty@5"]]]}
    assert axes.figure.axes == [axes]


@pytest.mark.parametrize(
    ("results", "error", "words"),
    [
        ([{}], TypeError, ["popularity", "list"]),
        ({}, ValueError, ["empty"]),
        ({0.5: {"ndcg@5": 0.1}}, ValueError, ["coverage@k", "novelty@k"]),
        ({0.5: 0.1}, TypeError, ["popularity 0.5", "float"]),
        ({1.5: {"coverage@5": 0.1}}, ValueError, ["0 to 1", "1.5"]),
        ({"high": {"coverage@5": 0.1}}, ValueError, ["0 to 1", "'high'"]),
        ({0: {"coverage@5": 0.1}, 1: {}}, ValueError, ["popularity 1", "'coverage@5'"]),
    ],
)
def test_what_is_no_result_of_a_dial_is_refused(results, error, words):
    with refused(error, *words):
        popularity_dial(results)


def test_the_backend_of_the_user_stays():
    before = matplotlib.get_backend(auto_select=False)
    training_curve(HISTORY)
    assert matplotlib.get_backend(auto_select=False) == before
