"""The SageMaker backend through real boto3: from the same start, the answers of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sagemaker_emulator import Emulator
from sagemaker_rig import (
    LocalFrom,
    backend_of,
    estimator,
    keys,
    ratings,
    require_nothing_running,
    start_values,
)

import fmknn
from fmknn.data.blocks import design_of_interactions
from fmknn.errors import JobFailedError, ModelFileError, SageMakerError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server):
    server.faults.clear()
    server.initial = None
    yield server
    server.faults.clear()
    require_nothing_running(server)


def both(emulator, data, model, index="exact", **settings):
    """The same fit here and there, from the same initial values."""
    n_features = design_of_interactions(data).n_features
    emulator.initial = start_values(n_features, model.n_factors)
    backend = backend_of(emulator, **settings)
    there = fmknn.Recommender(model, index=index, backend=backend).fit(data)
    here = fmknn.Recommender(model, backend=LocalFrom(emulator.initial)).fit(data)
    return there, here


@pytest.mark.parametrize("kind", [fmknn.FMRegressor, fmknn.FMClassifier])
def test_trains_the_same_model(emulator, kind):
    data = ratings()
    if kind is fmknn.FMClassifier:
        data = data.replace(values=(data.values > np.median(data.values)).astype(np.float32))
    there, here = both(emulator, data, estimator(kind=kind))
    np.testing.assert_allclose(there.params_.V, here.params_.V, atol=1e-5)
    np.testing.assert_allclose(there.params_.w, here.params_.w, atol=1e-5)
    assert there.params_.w0 == pytest.approx(here.params_.w0, abs=1e-5)
    a, b = (model.recommend(model.users.ids, 10) for model in (there, here))
    assert (a.items == b.items).all()
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    np.testing.assert_allclose(a.predictions, b.predictions, atol=1e-4)


@pytest.mark.parametrize("index, nlists", [("exact", None), ("ivf", 5)])
def test_searches_the_same_lists(emulator, index, nlists):
    data = ratings()
    model = estimator(factors_lr=0.05)
    there, here = both(emulator, data, model, index, search="sagemaker", nlists=nlists)
    a, b = (one.recommend(one.users.ids, 10) for one in (there, here))
    assert (a.counts == b.counts).all()
    same = a.items == b.items
    assert same.all() if index == "exact" else same.mean() > 0.3  # few cells are looked into
    np.testing.assert_allclose(a.scores[same], b.scores[same], atol=1e-4)


def test_candidates_and_exclusions_hold(emulator):
    data = ratings()
    there, here = both(emulator, data, estimator(), search="sagemaker")
    some, barred = there.items.ids[::3], {0: there.items.ids[:9], 3: there.items.ids}
    for options in ({"candidates": some}, {"exclude": barred}, {"exclude_seen": False}):
        a, b = (one.recommend(one.users.ids, 8, **options) for one in (there, here))
        assert (a.items == b.items).all()
        assert (a.counts == b.counts).all()


def test_queries_beyond_the_limit_are_searched_here(emulator):
    there, here = both(emulator, ratings(), estimator(), search="sagemaker", max_k=20)
    a, b = (one.recommend(one.users.ids, 5) for one in (there, here))
    assert (a.items == b.items).all()
    asked = [request for name, request in emulator.requests if name == "CreateTrainingJob"]
    assert int(asked[-1]["HyperParameters"]["k"]) <= 20


def test_needs_that_differ_much_are_asked_in_groups(emulator, monkeypatch):
    monkeypatch.setattr("fmknn.backends.sagemaker.knn._WORTH_A_JOB", 50)
    monkeypatch.setattr("fmknn.backends.sagemaker.knn._ANSWERS_PER_OBJECT", 100)  # several objects
    there, here = both(emulator, ratings(), estimator(), search="sagemaker", instance_count=2)
    before = emulator.count("CreateTransformJob")
    a, b = (one.recommend(one.users.ids, 5) for one in (there, here))
    assert (a.items == b.items).all()
    assert emulator.count("CreateTransformJob") - before > 1


def test_features_and_context_go_out_too(emulator):
    data = ratings(context=7, user_features=True, item_features=True)
    there, here = both(emulator, data, estimator())
    context = {name: column.ids.ids[0] for name, column in data.context.items()}
    a, b = (model.recommend(model.users.ids, 5, context=context) for model in (there, here))
    assert (a.items == b.items).all()
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_any_matrix_can_be_trained(emulator):
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(80, 6)).astype(np.float32), generator.normal(size=80)
    model, backend = estimator(mini_batch_size=80), backend_of(emulator)
    emulator.initial = start_values(6, 4)
    there = model.fit(X, y, solver=backend.solver(model.solver_spec())).predict(X)
    here = model.fit(X, y, solver=LocalFrom(emulator.initial).solver(model.solver_spec()))
    np.testing.assert_allclose(there, here.predict(X), atol=1e-5)


def test_several_instances_get_a_shard_each(emulator):
    data = ratings()
    there, here = both(emulator, data, estimator(), instance_count=3)
    request = (
        emulator.requests[-1][1]
        if emulator.requests[-1][0] == "CreateTrainingJob"
        else next(
            params for name, params in reversed(emulator.requests) if name == "CreateTrainingJob"
        )
    )
    source = request["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert source["S3DataDistributionType"] == "ShardedByS3Key"
    prefix = source["S3Uri"].removeprefix(f"s3://{emulator.bucket}/")
    names = [key.removeprefix(prefix) for key in keys(emulator, prefix)]
    assert names == ["part-00000.pbr", "part-00001.pbr", "part-00002.pbr"]
    np.testing.assert_allclose(there.params_.V, here.params_.V, atol=1e-5)


def test_history_is_that_of_the_log(emulator):
    there, here = both(emulator, ratings(), estimator(epochs=4))
    history, ours = there.estimator_.history_, here.estimator_.history_
    assert [entry["iteration"] for entry in history] == [1, 2, 3, 4]
    assert there.estimator_.n_iter_ == 4
    for entry, own in zip(history, ours, strict=True):
        assert entry["train_rmse"] == pytest.approx(own["train_rmse"], abs=1e-3)


class TestRunId:
    def test_a_job_that_is_done_is_picked_up(self, emulator):
        data, model = ratings(), estimator()
        first = fmknn.Recommender(model, backend=backend_of(emulator, run_id="again")).fit(data)
        before = emulator.count("CreateTrainingJob")
        other = fmknn.Recommender(model, backend=backend_of(emulator, run_id="again")).fit(data)
        assert emulator.count("CreateTrainingJob") == before
        assert (first.params_.V == other.params_.V).all()

    def test_a_job_that_runs_is_picked_up(self, emulator):
        data, model = ratings(n_ratings=500), estimator()
        emulator.faults.slow = {"fm": 3}
        backend = backend_of(emulator, run_id="still")
        wanted = backend.next_job(lambda: fmknn.Recommender(model, backend=backend).fit(data))
        emulator.clients["sagemaker"].create_training_job(**wanted.request)
        before = emulator.count("CreateTrainingJob")
        fmknn.Recommender(model, backend=backend_of(emulator, run_id="still")).fit(data)
        assert emulator.count("CreateTrainingJob") == before

    @pytest.mark.parametrize("change", ["data", "settings", "random_state"])
    def test_another_input_is_another_job(self, emulator, change):
        data, model = ratings(), estimator()
        fmknn.Recommender(model, backend=backend_of(emulator, run_id="other")).fit(data)
        if change == "data":
            data = data.replace(values=data.values + 1)
        else:
            model.set_params(**({"n_factors": 5} if change == "settings" else {"random_state": 1}))
        before = emulator.count("CreateTrainingJob")
        fmknn.Recommender(model, backend=backend_of(emulator, run_id="other")).fit(data)
        assert emulator.count("CreateTrainingJob") == before + 1

    def test_a_failed_job_is_tried_again_under_another_name(self, emulator):
        data, model = ratings(), estimator()
        emulator.faults.failed = {"fm": "InternalServerError: please retry"}
        with refused(JobFailedError, "InternalServerError", "try again"):
            fmknn.Recommender(model, backend=backend_of(emulator, run_id="retry")).fit(data)
        emulator.faults.clear()
        fmknn.Recommender(model, backend=backend_of(emulator, run_id="retry")).fit(data)
        names = [name for _, name, _ in emulator.jobs() if name.startswith("fmknn-retry-")]
        assert len(names) == 2 and names[1] == f"{names[0]}-2"

    def test_a_search_that_is_done_is_picked_up(self, emulator):
        data, model = ratings(), estimator()
        first = backend_of(emulator, run_id="lists", search="sagemaker")
        top = fmknn.Recommender(model, backend=first).fit(data).recommend([1, 2], 5)
        before = len(emulator.jobs())
        other = backend_of(emulator, run_id="lists", search="sagemaker")
        again = fmknn.Recommender(model, backend=other).fit(data).recommend([1, 2], 5)
        assert len(emulator.jobs()) == before
        assert (top.items == again.items).all() and (top.scores == again.scores).all()

    def test_after_cleanup_it_trains_anew(self, emulator):
        data, model = ratings(), estimator()
        with backend_of(emulator, run_id="clean") as backend:
            fmknn.Recommender(model, backend=backend).fit(data)
            assert keys(emulator, "fmknn/clean/") != []
        assert keys(emulator, "fmknn/clean/") == []
        fmknn.Recommender(model, backend=backend_of(emulator, run_id="clean")).fit(data)


def test_everything_is_tagged(emulator):
    backend = backend_of(emulator, run_id="tags", search="sagemaker", tags={"team": "films"})
    model = fmknn.Recommender(estimator(), backend=backend).fit(ratings())
    before = len(emulator.requests)
    model.recommend([1], 3)
    created = [
        request
        for name, request in emulator.requests
        if name.startswith("Create") and "fmknn-tags-" in str(request)
    ]
    assert len(created) == 4 and before  # two training jobs, a model, a transform
    for request in created:
        tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        assert tags == {"team": "films", "fmknn:run": "tags"}
    for key in keys(emulator, "fmknn/tags/"):
        if "/out/" in key or "/output/" in key:
            continue  # the jobs wrote these
        tag_set = emulator.s3.get_object_tagging(Bucket=emulator.bucket, Key=key)["TagSet"]
        assert {tag["Key"] for tag in tag_set} == {"team", "fmknn:run"}


def test_cleanup_stops_what_runs(emulator):
    emulator.faults.slow = {"fm": float("inf")}
    backend = backend_of(emulator, run_id="halt", deadline=0.2)
    with refused(SageMakerError, "deadline"):
        fmknn.Recommender(estimator(), backend=backend).fit(ratings())
    backend.cleanup()
    assert keys(emulator, "fmknn/halt/") == []


def test_saved_models_search_on_the_machine_they_are_loaded_on(emulator, tmp_path):
    there, _ = both(emulator, ratings(), estimator(), search="sagemaker")
    top = there.recommend(there.users.ids, 5)
    there.save(tmp_path / "model.fmknn")
    before = len(emulator.jobs())
    again = fmknn.load(tmp_path / "model.fmknn").recommend(there.users.ids, 5)
    assert (again.items == top.items).all() and (again.scores == top.scores).all()
    assert len(emulator.jobs()) == before


class TestLoadSageMakerModel:
    @pytest.fixture
    def trained(self, emulator):
        data, backend = ratings(), backend_of(emulator)
        model = fmknn.Recommender(estimator(), backend=backend).fit(data)
        name = [name for family, name, _ in emulator.jobs() if family == "Training"][-1]
        where = emulator.clients["sagemaker"].describe_training_job(TrainingJobName=name)
        return model, name, where["ModelArtifacts"]["S3ModelArtifacts"]

    @pytest.mark.parametrize("source", ["job", "uri", "file"])
    def test_by_job_address_and_file(self, emulator, trained, tmp_path, source):
        model, name, uri = trained
        if source == "file":
            name = tmp_path / "model.tar.gz"
            emulator.s3.download_file(emulator.bucket, uri.split("/", 3)[3], str(name))
        blocks = {"user": model.users.ids, "item": model.items.ids}
        loaded = fmknn.load_sagemaker_model(
            uri if source == "uri" else name, blocks=blocks, clients=emulator.clients
        )
        assert (loaded.params.V == model.params_.V).all()
        assert loaded.loss == "squared"
        assert (loaded.ids["item"] == model.items.ids).all()
        vectors = fmknn.item_matrix(loaded.params, loaded.columns["item"])
        assert (vectors == model.index_.vectors).all()

    def test_a_job_that_did_not_complete_has_no_model(self, emulator):
        emulator.faults.failed = {"fm": "AlgorithmError: no"}
        with refused(JobFailedError, "AlgorithmError: no"):
            fmknn.Recommender(estimator(), backend=backend_of(emulator)).fit(ratings())
        name = [name for family, name, _ in emulator.jobs() if family == "Training"][-1]
        with refused(JobFailedError, name, "Failed", "AlgorithmError: no"):
            fmknn.load_sagemaker_model(name, clients=emulator.clients)

    def test_a_job_that_is_not_there(self, emulator):
        with refused(SageMakerError, "no training job nothing-here"):
            fmknn.load_sagemaker_model("nothing-here", clients=emulator.clients)

    def test_blocks_must_make_up_the_model(self, emulator, trained):
        model, name, _ = trained
        with refused(ModelFileError, "70 features", "the blocks name 69"):
            fmknn.load_sagemaker_model(
                name, blocks={"user": 40, "item": model.items.ids[1:]}, clients=emulator.clients
            )
