# ruff: noqa: F401, F811 - fixtures are imported
"""What jobs leave may be damaged, missing or untrue: it is told so, and never used."""

from __future__ import annotations

import json

import pytest
from refusals import refused

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

from sagemaker_emulator import transform
from sagemaker_rig import backend_of, estimator
from sagemaker_trial import (
    DATA,
    FOR_EVER,
    RUN_IDS,
    emulator,
    expected,
    server,
    settle,
    switch,
    trial,
)

import fmknn
from fmknn.errors import (
    AccessDeniedError,
    AnswerError,
    CredentialsError,
    DivergenceError,
    JobFailedError,
    JobStoppedError,
    ModelFileError,
    SageMakerError,
    ThrottledError,
    TransferError,
)

pytestmark = pytest.mark.server

each_damage = pytest.mark.parametrize("damage", ["cut", "noise", "empty", "foreign"])
each_address = pytest.mark.parametrize("by", ["job", "address"])


class TestTrainedModel:
    def test_nan(self, emulator, trial):
        switch(emulator, nan_weights=True)
        one = trial("fm")
        one.fails(DivergenceError, "NaN", "lower learning rates", "clip_gradient")
        one.leaves_nothing()

    @pytest.mark.parametrize(
        "damage, word",
        [("cut", "damaged"), ("noise", "damaged"), ("empty", ""), ("foreign", "archive")],
    )
    def test_damaged(self, emulator, trial, damage, word):
        switch(emulator, damaged_model={"fm": damage})
        one = trial("fm")
        one.fails(ModelFileError, word)
        one.leaves_nothing()

    @pytest.mark.parametrize("fault", ["cut", "noise", "empty", "foreign", "nan"])
    def test_the_object_is_named(self, emulator, trial, fault):
        nan = fault == "nan"
        switch(emulator, **({"nan_weights": True} if nan else {"damaged_model": {"fm": fault}}))
        one = trial("fm")
        one.fails(DivergenceError if nan else ModelFileError, one.place(), "model.tar.gz")

    def test_missing(self, emulator, trial):
        switch(emulator, missing_model={"fm"})
        one = trial("fm")
        one.fails(TransferError, f"reading s3://{emulator.bucket}/fmknn/", "NoSuchKey", "check")
        one.recovers()
        assert one.statuses() == ["Completed", "Completed"]

    @each_damage
    def test_of_the_search_damaged(self, emulator, trial, damage):
        switch(emulator, damaged_model={"knn": damage})
        one = trial("transform")
        one.fails(JobFailedError, "transform job fmknn-", "See job logs for more information")
        one.leaves_nothing()

    def test_of_the_search_missing(self, emulator, trial):
        switch(emulator, missing_model={"knn"})
        one = trial("transform")
        one.fails(SageMakerError, "creating model fmknn-", "Could not find model data at s3://")
        one.recovers()


class TestAnswers:
    def lies(self, trial, *words):
        one = trial("transform")
        one.fails(AnswerError, f"s3://emulated-bucket/fmknn/{one.run_id}/users-", *words)
        return one

    def test_garbage(self, emulator, trial):
        switch(emulator, garbage_line=True)
        one = self.lies(trial, "answer ", "part-00000.pbr.out is not JSON: '<html>502 Bad")
        one.leaves_nothing()

    def test_garbage_says_what_to_do(self, emulator, trial):
        switch(emulator, garbage_line=True)
        self.lies(trial, "is not JSON", "another run_id")

    def test_missing(self, emulator, trial):
        switch(emulator, missing_out=True)
        one = self.lies(trial, "left no answers to part-00000.pbr", "run it again")
        one.recovers()
        assert one.statuses() == ["Completed", "Completed"]

    def test_short(self, emulator, trial):
        switch(emulator, short_out=True)
        self.lies(trial, "has 19 answers for 20 queries", "another run_id").leaves_nothing()

    def test_too_many(self, emulator, trial, monkeypatch):
        monkeypatch.setattr(transform, "spoiled", lambda out, *_: out + out.splitlines()[0])
        one = self.lies(trial, "has more than 20 answers for 20 queries", "another run_id")
        one.leaves_nothing()

    def test_of_the_last_of_several_objects_missing(self, emulator, trial):
        switch(emulator, missing_out=True)
        one = trial("transform", instance_count=2)
        one.fails(AnswerError, "left no answers to part-00001.pbr")
        one.recovers()

    def test_without_the_best(self, emulator, trial, monkeypatch):
        def spoiled(out: str, *_) -> str:
            answers = [json.loads(line) for line in out.splitlines()]
            for answer in answers:
                answer["labels"].pop(), answer["distances"].pop()  # the best come last
            return "\n".join(json.dumps(answer) for answer in answers)

        monkeypatch.setattr(transform, "spoiled", spoiled)
        self.lies(trial, "fewer than the 15 neighbours", "another run_id").leaves_nothing()

    def test_a_file_of_lists_is_whole_or_as_it_was(self, emulator, trial, tmp_path):
        one, path = trial("transform"), tmp_path / "lists.jsonl"
        path.write_text("old")
        switch(emulator, short_out=True)
        with refused(AnswerError, "another run_id"):
            one.model.recommend_all(5, to=path)
        one.require_unharmed()
        assert [file.name for file in tmp_path.iterdir()] == ["lists.jsonl"]
        assert path.read_text() == "old"

    @pytest.mark.parametrize("lie", ["negated", "l2"])
    def test_no_inner_products(self, emulator, trial, lie):
        switch(emulator, **{lie: True})
        one = self.lies(trial, "are not inner products", "item ", "search='local'")
        one.leaves_nothing()

    def test_descending(self, emulator, trial):
        switch(emulator, descending=True)
        trial("transform").succeeds()


class TestLoadSageMakerModel:
    @pytest.fixture
    def trained(self, emulator):
        """Train with faults switched on; return the name of the job and its model's address."""

        def train(**faults):
            switch(emulator, **faults)
            backend = backend_of(emulator, run_id=next(RUN_IDS))
            try:
                fmknn.Recommender(estimator(1), backend=backend).fit(DATA)
            except (ArithmeticError, RuntimeError, ValueError):
                assert faults
            emulator.faults.clear()
            settle(emulator)
            name = list(emulator.service.jobs)[-1][1]
            return name, emulator.service.jobs["Training", name].artifacts

        return train

    def load(self, emulator, source):
        return fmknn.load_sagemaker_model(source, clients=emulator.clients)

    @each_address
    @pytest.mark.parametrize(
        "fault, error, words",
        [
            ({"s3_denied": ["GET /"]}, AccessDeniedError, ["reading s3://", "ask for this right"]),
            ({"s3_expired": True}, CredentialsError, ["reading s3://", "log in anew"]),
            ({"cut_downloads": range(1, FOR_EVER)}, TransferError, ["s3://", "try again"]),
        ],
        ids=["denied", "expired", "cut"],
    )
    def test_s3(self, emulator, trained, by, fault, error, words):
        source = trained()[by == "address"]
        switch(emulator, **fault)
        with refused(error, *words):
            self.load(emulator, source)
        emulator.faults.clear()
        assert self.load(emulator, source).params.n_features == 35

    @pytest.mark.parametrize(
        "fault, error, words",
        [
            ({"access_denied": "DescribeTrainingJob"}, AccessDeniedError, ["ask for this right"]),
            ({"expired_from": 1}, CredentialsError, ["log in anew"]),
            ({"throttled": {"DescribeTrainingJob": FOR_EVER}}, ThrottledError, ["wait a little"]),
        ],
        ids=["denied", "expired", "throttled"],
    )
    def test_describing(self, emulator, trained, fault, error, words):
        name, _ = trained()
        switch(emulator, **fault)
        with refused(error, f"describing training job {name}", *words):
            self.load(emulator, name)
        switch(emulator, throttled={"DescribeTrainingJob": 2}, access_denied=False)
        emulator.faults.expired_from = None
        assert self.load(emulator, name).params.n_features == 35

    @each_address
    @each_damage
    def test_damaged(self, emulator, trained, by, damage):
        source = trained(damaged_model={"fm": damage})[by == "address"]
        with refused(ModelFileError):
            self.load(emulator, source)

    @each_address
    @each_damage
    def test_damaged_names_the_object(self, emulator, trained, by, damage):
        name, uri = trained(damaged_model={"fm": damage})
        with refused(ModelFileError, uri):
            self.load(emulator, uri if by == "address" else name)

    @each_address
    def test_nan(self, emulator, trained, by):
        source = trained(nan_weights=True)[by == "address"]
        with refused(DivergenceError, "NaN", "lower learning rates"):
            self.load(emulator, source)

    @each_address
    def test_missing(self, emulator, trained, by):
        name, uri = trained(missing_model={"fm"})
        with refused(TransferError, f"reading {uri}", "NoSuchKey", "check the bucket and the key"):
            self.load(emulator, uri if by == "address" else name)

    def test_no_such_bucket(self, emulator):
        with refused(TransferError, "reading s3://no-such-bucket/m.tar.gz", "NoSuchBucket"):
            self.load(emulator, "s3://no-such-bucket/m.tar.gz")

    def test_failed_in_one_line(self, emulator, trained):
        name, _ = trained(failed={"fm": "AlgorithmError:\n\n  a\n  b"})
        with refused(JobFailedError, name, "is Failed: AlgorithmError: a b"):
            self.load(emulator, name)

    @pytest.mark.parametrize("with_model", [False, True])
    def test_stopped(self, emulator, trained, with_model):
        name, _ = trained(max_runtime={"fm"}, stopped_with_model=with_model)
        with refused(SageMakerError, name, "is Stopped", "only a completed one has a model"):
            self.load(emulator, name)

    def test_stopped_is_not_failed(self, emulator, trained):
        name, _ = trained(max_runtime={"fm"})
        with refused(JobStoppedError, name):
            self.load(emulator, name)

    def test_of_the_search(self, emulator, trial):
        one = trial("knn")
        one.run()
        ((name, _),) = one.jobs()
        with refused(ModelFileError, name, "is none of factorization machines"):
            self.load(emulator, name)
        with refused(ModelFileError):
            self.load(emulator, emulator.service.jobs["Training", name].artifacts)
