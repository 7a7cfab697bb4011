"""Spark's own factorization machines: our scores are those of its transform()."""

from __future__ import annotations

import numpy as np
import pytest
import spark_rig
from refusals import refused

import fmknn
from fmknn.backends.spark import training
from fmknn.data.blocks import design_of_interactions

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def spark(request, tmp_path_factory):
    return spark_rig.session(request.config, tmp_path_factory.mktemp("spark"))


@pytest.fixture
def models(monkeypatch):
    """The models that Spark trained, as it has them itself."""
    from pyspark.ml.classification import FMClassifier
    from pyspark.ml.regression import FMRegressor

    kept = []
    for kind in (FMRegressor, FMClassifier):

        def fit(self, dataset, own=kind.fit):
            kept.append((own(self, dataset), dataset))
            return kept[-1][0]

        monkeypatch.setattr(kind, "fit", fit)
    return kept


def ratings(**settings):
    data, _ = fmknn.datasets.make_interactions(
        n_users=40, n_items=30, n_ratings=600, random_state=0, **settings
    )
    return data


def classes(data):
    return data.replace(values=(data.values > np.median(data.values)).astype(np.float32))


@pytest.mark.parametrize("kind", [fmknn.FMRegressor, fmknn.FMClassifier])
def test_scores_are_those_of_spark(spark, models, kind):
    data = ratings(context=3)  # with features of users and items
    data = classes(data) if kind is fmknn.FMClassifier else data
    solver = fmknn.SparkFM(max_iter=4, init_std=0.1, step_size=0.1)
    estimator = kind(3, solver=solver, random_state=0)
    model = fmknn.Recommender(estimator, backend=fmknn.SparkBackend(spark)).fit(data)
    [(trained, rows)] = models
    told = trained.transform(rows).toPandas()
    theirs = told["prediction"] if kind is fmknn.FMRegressor else told["rawPrediction"].str[1]
    np.testing.assert_array_equal(told["label"], data.values)  # the rows are in their order
    np.testing.assert_allclose(model.estimator_.linear_predictor(data), theirs, atol=1e-5)
    if kind is fmknn.FMClassifier:
        probabilities = model.estimator_.predict_proba(data)[:, 1]
        np.testing.assert_allclose(probabilities, told["probability"].str[1], atol=1e-5)
    [entry] = model.estimator_.history_
    assert entry["iteration"] == model.estimator_.n_iter_ == 4
    assert np.abs(model.params_.V).max() > 0.05


def test_vectors_are_the_rows_of_the_design(spark):
    data = ratings(context=3).take(np.arange(7))
    design = design_of_interactions(data)
    table = training._table_of(design, data.values)
    shape = training.replace(design, codes=(), groups=None)
    rows = training._vectors(spark, spark.createDataFrame(table).coalesce(1), shape).collect()
    want = design.expand(0, 7).to_scipy().toarray()
    np.testing.assert_array_equal([row.features.toArray() for row in rows], want)
    np.testing.assert_array_equal([row.label for row in rows], data.values)


def test_one_seed_one_start(spark):
    data, backend = ratings(), fmknn.SparkBackend(spark, partitions=2)
    solver = fmknn.SparkFM(max_iter=1)

    def factors(seed):
        estimator = fmknn.FMRegressor(3, solver=solver, random_state=seed)
        return fmknn.Recommender(estimator, backend=backend).fit(data).params_.V

    one, again, other = factors(1), factors(1), factors(2)
    np.testing.assert_allclose(one, again, atol=1e-9)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("kind", [fmknn.FMRegressor, fmknn.FMClassifier])
def test_trains_on_rows_that_are_in_spark(spark, models, kind):
    data = ratings(user_features=False, item_features=False)
    data = classes(data) if kind is fmknn.FMClassifier else data
    rows = zip(data.user_ids.tolist(), map(str, data.item_ids), data.values.tolist(), strict=True)
    frame = spark.createDataFrame(list(rows), "who int, what string, stars float")
    backend = fmknn.SparkBackend(spark)
    estimator = kind(3, solver=fmknn.SparkFM(max_iter=2, init_std=0.1), random_state=0)
    trained = backend.train(frame, estimator, user="who", item="what", value="stars")
    model = fmknn.Recommender.from_params(
        trained.params,
        users=trained.users,
        items=trained.items,
        loss=trained.loss,
        backend=backend,
    )
    [(own, rows)] = models
    told = own.transform(rows).toPandas()
    theirs = told["prediction"] if kind is fmknn.FMRegressor else told["rawPrediction"].str[1]
    collected = frame.collect()  # the rows and their vectors are in one order
    ours = model.scores([row.who for row in collected], [row.what for row in collected])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert model.users == data.users


def test_what_spark_can_not_train_is_refused(spark):
    data, backend = ratings(), fmknn.SparkBackend(spark)

    def fit(data=data, start=None, **settings):
        settings = {"n_factors": 2, "solver": fmknn.SparkFM(max_iter=1), **settings}
        return fmknn.Recommender(fmknn.FMRegressor(**settings), backend=backend).fit(data, start)

    with refused(ValueError, "one factor"):
        fit(n_factors=0)
    with refused(ValueError, "callbacks"):
        fit(callbacks=[print])
    with refused(ValueError, "weights"):
        fit(data.replace(weights=np.ones(len(data), np.float32)))
    with refused(ValueError, "start"):
        fit(start={"iteration": np.array(1)})


def test_ratings_that_can_not_be_learned_are_refused(spark):
    backend, solver = fmknn.SparkBackend(spark), fmknn.SparkFM(max_iter=1)
    schema = "user string, item string, value double"
    frame = spark.createDataFrame([("a", "x", 1.0), ("b", "y", None)], schema)
    regressor, classifier = (
        kind(2, solver=solver) for kind in (fmknn.FMRegressor, fmknn.FMClassifier)
    )
    with refused(ValueError, "'value'", "1 rows", "finite"):
        backend.train(frame, regressor)
    with refused(ValueError, "'value'", "classes 0 and 1"):
        backend.train(frame.fillna(2.0), classifier)
    with refused(ValueError, "no column 'stars'", "value"):
        backend.train(frame, regressor, value="stars")
    with refused(TypeError, "user ids", "none"):
        backend.train(spark.createDataFrame([(None, "x", 1.0)], schema), regressor)
    with refused(ValueError, "data is empty"):
        backend.train(frame.limit(0), regressor)
    with refused(ValueError, "ALS", "SparkFM"):
        backend.train(frame, fmknn.FMRegressor(2, solver="als"))
    with refused(TypeError, "DataFrame of Spark"):
        backend.train([1], regressor)
    with refused(TypeError, "estimator"):
        backend.train(frame, fmknn.FMRegressor)


def test_other_solvers_train_on_this_machine(spark):
    data = ratings()
    estimator = fmknn.FMRegressor(2, solver="als", n_iter=1, random_state=0)
    there = fmknn.Recommender(estimator, backend=fmknn.SparkBackend(spark)).fit(data)
    here = fmknn.Recommender(estimator).fit(data)
    np.testing.assert_array_equal(there.params_.V, here.params_.V)
