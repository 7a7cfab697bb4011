"""Runs of the SageMaker backend: what is picked up, what is not, what is removed; exact answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from refusals import refused
from sagemaker_emulator import Emulator
from sagemaker_rig import backend_of, estimator, keys, ratings, require_nothing_running

import fmknn
from fmknn.cli import main
from fmknn.errors import ModelFileError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server):
    server.faults.clear()
    yield server
    server.faults.clear()
    require_nothing_running(server)


@pytest.fixture(scope="module")
def tied():
    """Item rows that repeat, and differ in the last bit: the container's heap keeps any."""
    generator = np.random.default_rng(0)
    few = generator.normal(size=(12, 5))
    vectors = few[generator.integers(0, 12, 300)]
    vectors[::7] += generator.choice([0.0, 1e-7], (len(vectors[::7]), 5))
    return vectors.astype(np.float32), generator.normal(size=(40, 5)).astype(np.float32)


class TestExactAnswers:
    @pytest.mark.parametrize("n", [1, 10, 60, 300])
    def test_ties_at_the_end_of_a_list(self, emulator, tied, n):
        vectors, queries = tied
        there = backend_of(emulator, search="sagemaker").index("exact").build(vectors)
        here = fmknn.FaissIndex().build(vectors).search(queries, n)
        hits = there.search(queries, n)
        for name in ("positions", "scores", "counts"):
            assert (getattr(hits, name) == getattr(here, name)).all()

    @pytest.mark.parametrize("index", ["exact", "ivf"])
    def test_a_batch_equals_its_rows(self, emulator, tied, index):
        vectors, queries = tied
        there = backend_of(emulator, search="sagemaker", nlists=4 if index == "ivf" else None)
        built = there.index(index).build(vectors)
        seen = fmknn.ItemLists.from_pairs(np.repeat(np.arange(5), 9), np.tile(np.arange(9), 5), 8)
        whole = built.search(queries[:8], 20, exclude=seen)
        for row in (0, 4, 7):
            one = built.search(queries[row : row + 1], 20, exclude=seen.take([row]))
            assert (one.positions[0] == whole.positions[row]).all()
            assert (one.scores[0] == whole.scores[row]).all()

    def test_one_call_for_everybody(self, emulator):
        backend = backend_of(emulator, search="sagemaker")
        model = fmknn.Recommender(estimator(), backend=backend).fit(ratings())
        before = emulator.count("CreateTransformJob")
        assert sum(len(top) for top in model.recommend_all(5)) == 40
        assert emulator.count("CreateTransformJob") == before + 1


def trainings(emulator):
    return emulator.count("CreateTrainingJob")


class TestPickUp:
    @pytest.mark.parametrize("seeds", [np.arange(3), [None, 0, np.random.SeedSequence(0)]])
    def test_other_seeds_are_other_trainings(self, emulator, seeds):
        before, data, model = trainings(emulator), ratings(n_ratings=300), estimator()
        for seed in seeds:
            backend = backend_of(emulator, run_id=f"seeds-{len(seeds)}-{type(seeds).__name__}")
            model.set_params(random_state=seed)
            fmknn.Recommender(model, backend=backend).fit(data)
        different = 3 if isinstance(seeds, np.ndarray) else 2  # SeedSequence(0) is 0
        assert trainings(emulator) == before + different

    def test_the_same_seed_of_numpy_is_the_same_training(self, emulator):
        before, data, model = trainings(emulator), ratings(n_ratings=300), estimator()
        for seed in (1, np.int64(1)):
            model.set_params(random_state=seed)
            fmknn.Recommender(model, backend=backend_of(emulator, run_id="one")).fit(data)
        assert trainings(emulator) == before + 1

    def test_a_wider_matrix_is_other_data(self, emulator):
        X, y = np.eye(6, dtype=np.float32), np.arange(6.0)
        model = estimator(mini_batch_size=6)
        backend = backend_of(emulator, run_id="width")
        for wide in (X, np.hstack([X, np.zeros((6, 3), np.float32)])):
            model.fit(wide, y, solver=backend.solver(model.solver_spec()))
        folders = {key.split("/")[2] for key in keys(emulator, "fmknn/width/")}
        assert len(folders) == 2

    def test_data_that_is_there_is_not_sent_again(self, emulator):
        data = ratings()
        backend = backend_of(emulator, run_id="once")
        fmknn.Recommender(estimator(), backend=backend).fit(data)
        key = next(key for key in keys(emulator, "fmknn/once/") if key.endswith(".pbr"))
        sent = emulator.s3.head_object(Bucket=emulator.bucket, Key=key)["LastModified"]
        emulator.faults.s3_denied = [f"PUT /{emulator.bucket}/{key}"]
        fmknn.Recommender(estimator(n_factors=5), backend=backend).fit(data)
        assert sent == emulator.s3.head_object(Bucket=emulator.bucket, Key=key)["LastModified"]

    @pytest.mark.parametrize("change", ["image_uri", "prefix"])
    def test_another_image_or_place_is_another_job(self, emulator, change):
        image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:2"
        changed = {"image_uri": {"factorization-machines": image}, "prefix": "other/place"}[change]
        before, data = trainings(emulator), ratings()
        for settings in ({}, {change: changed}):
            backend = backend_of(emulator, run_id=f"by-{change[:5]}", **settings)
            fmknn.Recommender(estimator(), backend=backend).fit(data)
        assert trainings(emulator) == before + 2


class TestCleanup:
    def test_removes_what_another_process_left(self, emulator):
        emulator.faults.slow = {"fm": float("inf")}
        first, data = backend_of(emulator, run_id="crash"), ratings()
        work = fmknn.Recommender(estimator(), backend=first)
        wanted = first.next_job(lambda: work.fit(data))
        emulator.clients["sagemaker"].create_training_job(**wanted.request)
        similar = backend_of(emulator, run_id="crash-2")  # its name begins alike
        kept = similar.next_job(lambda: fmknn.Recommender(estimator(), backend=similar).fit(data))
        backend_of(emulator, run_id="crash").cleanup()
        status = {name: status for _, name, status in emulator.jobs()}
        assert status[wanted.request["TrainingJobName"]] != "InProgress"
        assert keys(emulator, "fmknn/crash/") == []
        assert keys(emulator, "fmknn/crash-2/") != [] and kept is not None
        wait_until_stopped(emulator)

    def test_a_model_that_was_planned(self, emulator):
        backend = backend_of(emulator, run_id="plan", search="sagemaker")
        model = fmknn.Recommender(estimator(), backend=backend).fit(ratings())

        def search():
            model.recommend([1], 3)

        wanted = backend.next_job(search)
        emulator.clients["sagemaker"].create_training_job(**wanted.request)
        while emulator.jobs()[-1][2] == "InProgress":
            pass
        assert backend.next_job(search).request["ModelName"] in emulator.models()
        backend_of(emulator, run_id="plan").cleanup()
        assert emulator.models() == []

    def test_a_done_that_was_not_heard_of(self, emulator, tmp_path, monkeypatch):
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        data = ratings()
        lines = ["user,item,rating"] + [
            f"{u},{i},{v}"
            for u, i, v in zip(data.user_index, data.item_index, data.values, strict=True)
        ]
        (tmp_path / "ratings.csv").write_text("\n".join(lines))
        plan = f"s3://{emulator.bucket}/fmknn/heard/next.json"
        command = [
            *("sagemaker", str(tmp_path / "ratings.csv"), "--role", emulator.role, "--quiet"),
            *("--bucket", emulator.bucket, "--run-id", "heard", "--poll-seconds", "0.01"),
            *("--n-factors", "2", "--to", str(tmp_path / "top.jsonl")),
        ]
        assert main(command) == 0
        before = trainings(emulator)
        for _ in range(2):
            assert main([*command, "--next", plan, "--cleanup"]) == 0
            body = emulator.s3.get_object(Bucket=emulator.bucket, Key="fmknn/heard/next.json")
            assert json.load(body["Body"]) == {"action": "done", "run": "heard"}
            assert keys(emulator, "fmknn/heard/") == ["fmknn/heard/next.json"]
        assert trainings(emulator) == before


def wait_until_stopped(emulator):
    while any(status == "Stopping" for _, _, status in emulator.jobs()):
        pass


def test_the_log_that_is_cut_gives_one_entry(emulator, monkeypatch):
    monkeypatch.setattr("fmknn.backends.sagemaker.solver.training_history", lambda lines: [{}] * 2)
    backend = backend_of(emulator, run_id="cut-log")
    model = fmknn.Recommender(estimator(epochs=4), backend=backend).fit(ratings()).estimator_
    assert model.n_iter_ == 4
    assert [entry["iteration"] for entry in model.history_] == [4]


@pytest.mark.parametrize(
    "blocks",
    [
        {"user": slice(0, 10), "item": slice(5, 25)},
        {"user": slice(0, 4), "item": slice(10, 25)},
        {"item": 20, "more": slice(0, 25)},
        {"a": 25, "b": 1},
    ],
)
def test_blocks_name_each_column_once(tmp_path, blocks):
    from fmknn.backends.sagemaker.artifact import write_artifact

    write_artifact(
        tmp_path / "m.tar.gz", fmknn.FMParams(0, np.zeros(25), np.ones((25, 2))), "squared"
    )
    with refused(ModelFileError, "25 features", "each column once"):
        fmknn.load_sagemaker_model(tmp_path / "m.tar.gz", blocks=blocks)


def test_slices_may_come_in_any_order(tmp_path):
    from fmknn.backends.sagemaker.artifact import write_artifact

    write_artifact(
        tmp_path / "m.tar.gz", fmknn.FMParams(0, np.zeros(25), np.ones((25, 2))), "squared"
    )
    blocks = {"item": slice(10, 25), "user": slice(0, 10)}
    assert fmknn.load_sagemaker_model(tmp_path / "m.tar.gz", blocks=blocks).columns == blocks
    with refused(ValueError, "size of block 'b'", "-5"):
        fmknn.load_sagemaker_model(tmp_path / "m.tar.gz", blocks={"a": 25, "b": -5})


def test_settings_that_contradict_each_other(emulator):
    with refused(ValueError, "index_type", "search='sagemaker'"):
        backend_of(emulator, index_type="faiss.Flat")
    with refused(ValueError, "ivf", "faiss.Flat"):
        backend_of(emulator, search="sagemaker", index_type="faiss.Flat").index("ivf")
