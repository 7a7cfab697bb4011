"""Whatever goes wrong with AWS: one typed line says it, nothing runs on, nothing is lost."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest
from refusals import refused

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

from botocore.awsrequest import AWSResponse  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from sagemaker_emulator import Emulator, transform  # noqa: E402
from sagemaker_rig import (  # noqa: E402
    backend_of,
    estimator,
    keys,
    ratings,
    require_nothing_running,
)

import fmknn  # noqa: E402
from fmknn.backends.sagemaker import jobs as jobs_module  # noqa: E402
from fmknn.backends.sagemaker import s3 as s3_module  # noqa: E402
from fmknn.backends.sagemaker.artifact import write_artifact  # noqa: E402
from fmknn.errors import (  # noqa: E402
    AccessDeniedError,
    AnswerError,
    CredentialsError,
    DivergenceError,
    JobFailedError,
    JobStoppedError,
    JobTimeoutError,
    MissingExtraError,
    ModelFileError,
    QuotaError,
    SageMakerError,
    ThrottledError,
    TransferError,
)

pytestmark = pytest.mark.server

STAGES = ("fm", "knn", "transform")
FOR_EVER = 10**6
DATA = ratings(150, n_users=20, n_items=15)
RUN_IDS = (f"f{number}" for number in itertools.count())
WAS_CREATED = "after-call.sagemaker."  # boto3's event once a call has been answered


def job_of(stage: str) -> str:
    """ "TrainingJob" or "TransformJob", as operations are called."""
    return "TransformJob" if stage == "transform" else "TrainingJob"


def on_this_machine(index="exact") -> fmknn.Recommender:
    return fmknn.Recommender(estimator(epochs=1, factors_lr=0.05), index=index).fit(DATA)


def lists(model: fmknn.Recommender):
    return model.recommend(model.users.ids, 5)


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server, monkeypatch):
    # boto3's pauses between attempts are not what is tested
    monkeypatch.setattr("botocore.endpoint.time", types.SimpleNamespace(sleep=lambda _: None))
    server.faults.clear()
    yield server
    server.faults.clear()
    settle(server)
    require_nothing_running(server)


@pytest.fixture(scope="module")
def expected(server):
    """The lists of an exhaustive search on this machine, over the model that every trial has."""
    return lists(on_this_machine())


@pytest.fixture
def when(emulator):
    """Do something once, when a client's event comes: ``when("sagemaker", event, action)``."""
    registered = []

    def register(service: str, event: str, action) -> None:
        done = []

        def handler(**given) -> None:
            if not done:
                done.append(True)
                action(given)

        events = emulator.clients[service].meta.events
        events.register(event, handler)
        registered.append((events, event, handler))

    yield register
    for events, event, handler in registered:
        events.unregister(event, handler)


@pytest.fixture
def once_created(emulator, when):
    """Switch faults on as soon as a job of this stage has been created."""

    def switch_on(stage: str, **faults) -> None:
        def action(_) -> None:
            switch(emulator, **faults)

        when("sagemaker", f"{WAS_CREATED}Create{job_of(stage)}", action)

    return switch_on


def switch(emulator, **faults) -> None:
    for name, value in faults.items():
        assert hasattr(emulator.faults, name)
        setattr(emulator.faults, name, value)


def settle(emulator) -> None:
    """A job that was told to stop takes a moment."""
    until = time.monotonic() + 10
    while time.monotonic() < until and any(status == "Stopping" for *_, status in emulator.jobs()):
        time.sleep(0.005)


def spoil_sleep(monkeypatch, action) -> None:
    """Do something else where the backend waits for its next look at a job."""
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: action())
    monkeypatch.setattr(jobs_module, "time", clock)


class Trial:
    """A fitted recommender that trains anew ("fm") or searches ("knn", "transform") on AWS."""

    def __init__(self, emulator, stage: str, expected=None, **settings) -> None:
        self.emulator, self.stage, self.expected = emulator, stage, expected
        self.settings = {"run_id": next(RUN_IDS), **settings}
        self.run_id = self.settings["run_id"]
        self.backend = backend_of(emulator, **self.settings, search="sagemaker")
        self.model = on_this_machine("exact" if stage == "fm" else self.backend.index("exact"))
        self.state = self.state_now()

    def state_now(self):
        model = self.model
        parts = [model.params_.w0, model.params_.w.tobytes(), model.params_.V.tobytes()]
        parts += [model.index_.vectors.tobytes(), id(model.estimator_), id(model.index_)]
        return parts + ([lists(model).items.tobytes()] if self.stage == "fm" else [])

    def run(self):
        if self.stage == "fm":
            self.model.backend = self.backend
            return self.model.fit(DATA)
        return lists(self.model)

    def require_unharmed(self) -> None:
        settle(self.emulator)
        require_nothing_running(self.emulator)
        assert self.state_now() == self.state

    def fails(self, error, *words) -> str:
        with refused(error, *words) as caught:
            self.run()
        assert caught.type is error
        self.require_unharmed()
        return str(caught.value)

    def succeeds(self) -> None:
        """The run comes to its end, is right, and can be removed without a trace."""
        result = self.run()
        if self.stage == "fm":
            assert np.isfinite(self.model.params_.V).all()
            assert self.state_now() != self.state
        else:
            assert (result.items == self.expected.items).all()
            assert (result.counts == self.expected.counts).all()
            np.testing.assert_allclose(result.scores, self.expected.scores, atol=1e-5)
        self.leaves_nothing()

    def leaves_nothing(self) -> None:
        settle(self.emulator)
        require_nothing_running(self.emulator)
        self.backend.cleanup()
        assert self.objects() == []

    def recovers(self) -> None:
        """Without the fault, the same run id does it: as another process would."""
        self.emulator.faults.clear()
        self.backend = backend_of(self.emulator, **self.settings, search="sagemaker")
        if self.stage != "fm":
            self.model.index_ = self.backend.index("exact").build(self.model.index_.vectors)
        self.succeeds()

    def objects(self) -> list[str]:
        return keys(self.emulator, f"fmknn/{self.run_id}/")

    def jobs(self) -> list[tuple[str, str]]:
        """(name, status) of the jobs of this trial's own stage."""
        start = "users" if self.stage == "transform" else self.stage
        start = f"fmknn-{self.run_id}-{start}-"
        return [(name, status) for _, name, status in self.emulator.jobs() if start in name]


@pytest.fixture
def trial(emulator, expected):
    return lambda stage, **settings: Trial(emulator, stage, expected, **settings)


each_stage = pytest.mark.parametrize("stage", STAGES)


# --- refused calls --------------------------------------------------------------------------------


@each_stage
class TestRefusedCreation:
    def refuses(self, trial, stage, error, *words):
        one = trial(stage)
        message = one.fails(error, *words)
        assert one.jobs() == []
        one.recovers()
        return message

    def test_quota(self, emulator, trial, stage):
        switch(emulator, quota=f"Create{job_of(stage)}")
        kind = "transform" if stage == "transform" else "training"
        words = f"ml.m5.large for {kind} job usage", "is 0 Instances", "ask AWS for a higher limit"
        self.refuses(trial, stage, QuotaError, f"creating {kind} job fmknn-", *words)

    def test_right_of_the_caller(self, emulator, trial, stage):
        switch(emulator, access_denied=f"Create{job_of(stage)}")
        action = f"perform: sagemaker:Create{job_of(stage)} on resource"
        self.refuses(trial, stage, AccessDeniedError, action, "ask for this right")

    def test_right_to_pass_the_role(self, emulator, trial, stage, once_created):
        if stage == "transform":  # asked for with the model, after the k-NN training
            once_created("knn", access_denied={"iam:PassRole"})
        else:
            switch(emulator, access_denied={"iam:PassRole"})
        words = "perform: iam:PassRole on resource", emulator.role, "ask for this right"
        self.refuses(trial, stage, AccessDeniedError, *words)

    def test_no_data(self, emulator, trial, stage, when):
        if stage == "transform":
            event = f"{WAS_CREATED}CreateModel"
            when("sagemaker", event, lambda _: switch(emulator, no_data=True))
        else:
            switch(emulator, no_data=True)
        words = "No S3 objects found", "s3://emulated-bucket/fmknn/", "check that the role may list"
        self.refuses(trial, stage, TransferError, *words)

    def test_throttled_for_ever(self, emulator, trial, stage):
        switch(emulator, throttled={f"Create{job_of(stage)}": FOR_EVER})
        self.refuses(trial, stage, ThrottledError, "Rate exceeded", "wait a little and try again")

    def test_any_other_in_one_line(self, emulator, trial, stage):
        told = "2 errors:\n  a wrong field\r\n\tand another."
        switch(emulator, errors={f"Create{job_of(stage)}": ("ValidationException", told)})
        words = "ValidationException: 2 errors: a wrong field and another"
        self.refuses(trial, stage, SageMakerError, words)

    def test_expired_credentials(self, emulator, trial, stage, when):
        before = f"before-call.sagemaker.Create{job_of(stage)}"
        when("sagemaker", before, lambda _: switch(emulator, expired_from=1))
        words = "ExpiredTokenException", "token included in the request is expired", "log in anew"
        one = trial(stage)
        if stage == "transform":  # the model that was made for it can't be deleted either
            with refused(CredentialsError, *words):
                one.run()
            assert len(emulator.models()) == 1
            emulator.faults.clear()
            one.backend.cleanup()
            one.require_unharmed()
        else:
            one.fails(CredentialsError, *words)
        assert one.jobs() == []
        one.recovers()

    def test_a_job_that_was_never_created_is_not_said_to_run(self, emulator, trial, stage, when):
        before = f"before-call.sagemaker.Create{job_of(stage)}"
        when("sagemaker", before, lambda _: switch(emulator, expired_from=1))
        one = trial(stage)
        with refused(CredentialsError, "log in anew") as caught:
            one.run()
        emulator.faults.clear()
        one.backend.cleanup()
        assert one.jobs() == []
        assert "may still be running" not in str(caught.value)


@each_stage
def test_throttled_a_few_times(emulator, trial, stage):
    job, few = job_of(stage), 2
    operations = f"Create{job}", f"Describe{job}", "CreateModel", "DeleteModel"
    switch(emulator, throttled=dict.fromkeys(operations, few))
    trial(stage).succeeds()
    left = emulator.faults.throttled
    assert left[f"Create{job}"] == left[f"Describe{job}"] == 0


@each_stage
def test_a_request_that_boto3_refuses_in_several_lines(emulator, trial, stage, when):
    event = f"before-parameter-build.sagemaker.Create{job_of(stage)}"
    when("sagemaker", event, lambda given: given["params"].update(Tags=3, Other="x"))
    one = trial(stage)
    one.fails(SageMakerError, "creating ", "Parameter validation failed: ", '"Other"', "Tags")
    assert one.jobs() == []
    one.recovers()


@each_stage
def test_right_to_describe(emulator, trial, stage):
    switch(emulator, access_denied=f"Describe{job_of(stage)}")
    one = trial(stage)
    one.fails(AccessDeniedError, f"sagemaker:Describe{job_of(stage)}", "ask for this right")
    assert one.jobs() == []
    one.recovers()


@pytest.mark.parametrize(
    "operation, error, words",
    [
        ("CreateModel", AccessDeniedError, ["creating model", "sagemaker:CreateModel"]),
        ("CreateModel", ThrottledError, ["creating model", "Rate exceeded"]),
    ],
)
def test_a_model_that_is_refused(emulator, trial, operation, error, words):
    if error is ThrottledError:
        switch(emulator, throttled={operation: FOR_EVER})
    else:
        switch(emulator, access_denied=operation)
    one = trial("transform")
    one.fails(error, *words)
    assert one.jobs() == []
    one.recovers()


class TestModelThatCannotBeDeleted:
    def test_the_answers_stand(self, emulator, trial, caplog):
        switch(emulator, access_denied="DeleteModel")
        one = trial("transform")
        assert (one.run().items == one.expected.items).all()
        assert len(emulator.models()) == 1 and "is left behind" in caplog.text
        emulator.faults.clear()
        one.backend.cleanup()
        one.leaves_nothing()

    def test_cleanup_says_so(self, emulator, trial):
        switch(emulator, access_denied="DeleteModel")
        one = trial("transform")
        one.run()
        try:
            with refused(AccessDeniedError, "sagemaker:DeleteModel"):
                one.backend.cleanup()
        finally:
            emulator.faults.clear()
            one.backend.cleanup()


@pytest.mark.parametrize(
    "code, error, words",
    [
        ("UnrecognizedClientException", CredentialsError, ["log in anew"]),
        ("InvalidClientTokenId", CredentialsError, ["log in anew"]),
        ("RequestLimitExceeded", ThrottledError, ["wait a little"]),
        ("InternalFailure", SageMakerError, ["InternalFailure"]),
        pytest.param(
            "InvalidSignatureException",
            CredentialsError,
            ["log in anew"],
        ),
    ],
)
def test_codes(emulator, trial, code, error, words):
    switch(emulator, errors={"CreateTrainingJob": (code, "so it is")})
    trial("fm").fails(error, code, "so it is", *words)


class TestNameThatIsTaken:
    def test_by_nothing_that_can_be_seen(self, emulator, trial):
        switch(emulator, errors={"CreateTrainingJob": ("ResourceInUse", "names must be unique")})
        one = trial("fm")
        one.fails(SageMakerError, "training job fmknn-", "is gone")
        one.recovers()

    @each_stage
    def test_by_a_creation_whose_answer_was_lost(self, emulator, trial, stage, when):
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        other = boto3.client(
            "sagemaker",
            endpoint_url=emulator.endpoints["sagemaker"],
            region_name=emulator.region,
            **keys,
        )

        def earlier(given) -> None:
            call = "transform" if stage == "transform" else "training"
            getattr(other, f"create_{call}_job")(**given["params"])

        event = f"before-parameter-build.sagemaker.Create{job_of(stage)}"
        when("sagemaker", event, earlier)
        one = trial(stage)
        one.succeeds()
        assert len(one.jobs()) == 1

    def test_by_a_foreign_job_whose_model_is_another(self, emulator, trial):
        one = trial("fm")
        one.model.backend = one.backend
        wanted = one.backend.next_job(lambda: one.model.fit(DATA))
        foreign = {**wanted.request["HyperParameters"], "num_factors": "9"}
        create = emulator.clients["sagemaker"].create_training_job
        create(**{**wanted.request, "HyperParameters": foreign})
        words = "has 35 features and 9 factors, expected 35 and 4", "is it the model of other data?"
        one.fails(ModelFileError, f"s3://{emulator.bucket}/fmknn/{one.run_id}/", *words)
        one.leaves_nothing()


# --- fates of jobs --------------------------------------------------------------------------------


@each_stage
class TestJobs:
    @pytest.mark.parametrize(
        "reason, words",
        [
            (
                "ClientError: SageMaker was unable to assume the role 'arn:aws:iam::1:role/X'",
                ["unable to assume the role 'arn:aws:iam::1:role/X'", "service-role/"],
            ),
            ("AlgorithmError: out of memory", ["take an instance_type with more memory"]),
            ("ClientError: exceeds the maximum payload size", ["lower max_payload_mb"]),
            ("Unable to get response from algorithm", ["max_payload_mb", "larger instance_type"]),
            ("CapacityError: no instances", ["try later or take another"]),
            ("InternalServerError: sorry", ["try again"]),
            ("AlgorithmError: u'abc' is not valid", ["failed: AlgorithmError: u'abc' is not val"]),
            ("AlgorithmError: cause\n  Traceback:\r\n\tx", ["AlgorithmError: cause Traceback: x"]),
            ("", ["no reason given"]),
        ],
        ids=[
            "role",
            "memory",
            "payload",
            "response",
            "capacity",
            "internal",
            "algorithm",
            "lines",
            "none",
        ],
    )
    def test_fails(self, emulator, trial, stage, reason, words):
        switch(emulator, failed={stage: reason})
        one = trial(stage)
        kind = "transform job" if stage == "transform" else "training job"
        one.fails(JobFailedError, f"{kind} fmknn-{one.run_id}-", " failed: ", *words)
        assert [status for _, status in one.jobs()] == ["Failed"]
        if not reason:
            one.recovers()
            (first, _), (second, status) = one.jobs()
            assert second == f"{first}-2" and status == "Completed"

    def test_the_log_of_a_failed_job_is_told(self, emulator, trial, stage, caplog):
        switch(emulator, failed={stage: "AlgorithmError: told in the log"})
        trial(stage).fails(JobFailedError, "told in the log")
        if stage != "transform":
            told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
            assert any("AlgorithmError: told in the log" in line for line in told)

    @pytest.mark.parametrize("with_model", [False, True])
    def test_time_limit(self, emulator, trial, stage, with_model):
        switch(
            emulator, max_runtime={stage}, stopped_with_model=with_model and stage != "transform"
        )
        one = trial(stage)
        words = ("time limit", "raise max_runtime") if stage != "transform" else ("was stopped",)
        one.fails(JobStoppedError, *words, "what it left is not used")
        if with_model and stage != "transform":
            assert any("/output/model.tar.gz" in key for key in one.objects())
        one.recovers()  # never from what was left
        assert [status for _, status in one.jobs()] == ["Stopped", "Completed"]

    @pytest.mark.parametrize("with_model", [False, True])
    def test_stopped_by_somebody(self, emulator, trial, stage, with_model, monkeypatch):
        switch(
            emulator,
            slow={stage: math.inf},
            stopped_with_model=with_model and stage != "transform",
        )
        one = trial(stage)

        def stop() -> None:
            for (family, name), job in list(emulator.service.jobs.items()):
                if family + "Job" == job_of(stage) and job.status == "InProgress":
                    assert f"-{one.run_id}-" in name
                    if stage == "transform" or (job.kind == stage and job.partial):
                        job.stop()

        spoil_sleep(monkeypatch, stop)
        one.fails(JobStoppedError, "was stopped by somebody", "what it left is not used")
        monkeypatch.undo()
        one.recovers()
        assert [status for _, status in one.jobs()] == ["Stopped", "Completed"]

    def test_deadline(self, emulator, trial, stage):
        switch(emulator, slow={stage: math.inf})
        one = trial(stage, deadline=0.3)
        one.fails(JobTimeoutError, "was still ", "after 0.3 s", "is stopped", "raise deadline")
        assert issubclass(JobTimeoutError, TimeoutError)
        assert [status for _, status in one.jobs()] == ["Stopped"]
        one.settings.pop("deadline")
        one.recovers()

    def test_deadline_of_a_job_that_cannot_be_stopped(self, emulator, trial, stage):
        switch(emulator, slow={stage: math.inf}, access_denied=f"Stop{job_of(stage)}")
        one = trial(stage, deadline=0.3)
        try:
            with refused(JobTimeoutError, "may still be running"):
                one.run()
        finally:
            emulator.faults.clear()
            one.backend.cleanup()

    def test_gone(self, emulator, trial, stage, monkeypatch):
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)
        hidden = []

        def hide() -> None:
            for place, job in list(emulator.service.jobs.items()):
                if job.kind == stage and f"-{one.run_id}-" in place[1]:
                    hidden.append(emulator.service.jobs.pop(place))

        spoil_sleep(monkeypatch, hide)
        one.fails(SageMakerError, "is gone: was it deleted?")
        for job in hidden:
            job.stop()


class TestWatching:
    """What happens to calls while a job runs."""

    @each_stage
    def test_transient_failures(self, emulator, trial, stage, once_created):
        # three attempts each: four looks in a row fail, the fifth succeeds
        once_created(stage, throttled={f"Describe{job_of(stage)}": 3 * 4})
        one = trial(stage)
        one.succeeds()
        assert emulator.faults.throttled == {f"Describe{job_of(stage)}": 0}

    @each_stage
    @pytest.mark.parametrize("how", ["throttled", "denied", "failing"])
    def test_looks_that_go_on_failing(self, emulator, trial, stage, once_created, how):
        describe = f"Describe{job_of(stage)}"
        switches, error = {
            "throttled": ({"throttled": {describe: FOR_EVER}}, ThrottledError),
            "denied": ({"access_denied": describe}, AccessDeniedError),
            "failing": ({"errors": {describe: ("InternalFailure", "sorry")}}, SageMakerError),
        }[how]
        switch(emulator, slow={stage: math.inf})
        once_created(stage, **switches)
        one = trial(stage)
        one.fails(error, f"describing {'transform' if stage == 'transform' else 'training'} job")
        assert [status for _, status in one.jobs()] == ["Stopped"]
        one.recovers()

    @each_stage
    def test_credentials_that_expire(self, emulator, trial, stage, once_created):
        switch(emulator, slow={stage: 25})
        once_created(stage, expired_from=1)
        one = trial(stage)
        words = "ExpiredTokenException", "log in anew", "may still be running", "same run_id picks"
        with refused(CredentialsError, *words):
            one.run()
        assert one.state_now() == one.state
        assert [status for _, status in one.jobs()] == ["InProgress"]  # nobody could stop it
        one.recovers()
        assert [status for _, status in one.jobs()] == ["Completed"]  # it was not created twice

    @each_stage
    def test_cleanup_after_credentials_expired(self, emulator, trial, stage, once_created):
        switch(emulator, slow={stage: math.inf})
        once_created(stage, expired_from=1)
        one = trial(stage)
        with refused(CredentialsError, "may still be running"):
            one.run()
        emulator.faults.expired_from = None  # the job goes on being slow
        one.backend.cleanup()
        one.require_unharmed()
        assert one.objects() == []
        assert [status for _, status in one.jobs()] == ["Stopped"]

    @each_stage
    def test_interrupted(self, emulator, trial, stage, monkeypatch):
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)

        def interrupt() -> None:
            if one.jobs():
                signal.raise_signal(signal.SIGINT)

        spoil_sleep(monkeypatch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            one.run()
        one.require_unharmed()
        assert [status for _, status in one.jobs()] == ["Stopped"]
        monkeypatch.undo()
        one.recovers()

    @each_stage
    def test_interrupted_while_the_job_is_created(self, emulator, trial, stage, when):
        def interrupt(_) -> None:
            signal.raise_signal(signal.SIGINT)

        when("sagemaker", f"{WAS_CREATED}Create{job_of(stage)}", interrupt)
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)
        with pytest.raises(KeyboardInterrupt):
            one.run()
        one.require_unharmed()
        assert [status for _, status in one.jobs()] == ["Stopped"]

    def test_interrupted_once_the_model_is_created(self, emulator, trial, when):
        def interrupt(_) -> None:
            signal.raise_signal(signal.SIGINT)

        when("sagemaker", f"{WAS_CREATED}CreateModel", interrupt)
        one = trial("transform")
        with pytest.raises(KeyboardInterrupt):
            one.run()
        one.require_unharmed()
        assert one.jobs() == []
        one.recovers()

    def test_interrupted_but_the_job_cannot_be_stopped(self, emulator, trial, monkeypatch, caplog):
        switch(emulator, slow={"fm": 30}, access_denied="StopTrainingJob")
        one = trial("fm")
        spoil_sleep(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            one.run()
        ((name, status),) = one.jobs()
        assert status == "InProgress" and f"{name} may still be running" in caplog.text
        monkeypatch.undo()
        one.recovers()  # the same job, which ran on
        assert one.jobs() == [(name, "Completed")]

    @each_stage
    @pytest.mark.parametrize("error", [SystemExit, RuntimeError])
    def test_ended_otherwise(self, emulator, trial, stage, error, monkeypatch):
        """A handler of SIGTERM raises SystemExit, a notebook's or a test's time limit others."""
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)

        def end() -> None:
            if one.jobs():
                raise error("ended")

        spoil_sleep(monkeypatch, end)
        with pytest.raises(error, match="ended"):
            one.run()
        try:
            one.require_unharmed()
        finally:
            monkeypatch.undo()
            emulator.faults.clear()
            one.backend.cleanup()


# --- results that lie -----------------------------------------------------------------------------


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
        if fault == "nan":
            switch(emulator, nan_weights=True)
        else:
            switch(emulator, damaged_model={"fm": fault})
        one = trial("fm")
        where = f"s3://{emulator.bucket}/fmknn/{one.run_id}/"
        one.fails(DivergenceError if fault == "nan" else ModelFileError, where, "model.tar.gz")

    def test_missing(self, emulator, trial):
        switch(emulator, missing_model={"fm"})
        one = trial("fm")
        one.fails(TransferError, f"reading s3://{emulator.bucket}/fmknn/", "NoSuchKey", "check")
        one.recovers()
        assert [status for _, status in one.jobs()] == ["Completed", "Completed"]

    @pytest.mark.parametrize("damage", ["cut", "noise", "empty", "foreign"])
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
        self.lies(
            trial, "answer ", "part-00000.pbr.out is not JSON: '<html>502 Bad"
        ).leaves_nothing()

    def test_garbage_says_what_to_do(self, emulator, trial):
        switch(emulator, garbage_line=True)
        self.lies(trial, "is not JSON", "another run_id")

    def test_missing(self, emulator, trial):
        switch(emulator, missing_out=True)
        one = self.lies(trial, "left no answers to part-00000.pbr", "run it again")
        one.recovers()
        assert [status for _, status in one.jobs()] == ["Completed", "Completed"]

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
        self.lies(trial, "misses item ", "search='local'").leaves_nothing()

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
        one = self.lies(trial, "are not inner products", "query ", "item ", "search='local'")
        one.leaves_nothing()

    def test_descending(self, emulator, trial):
        switch(emulator, descending=True)
        trial("transform").succeeds()


# --- S3, the logs ---------------------------------------------------------------------------------


class TestUploads:
    @each_stage
    def test_denied(self, emulator, trial, stage, once_created):
        if stage == "transform":
            once_created("knn", s3_denied=["PUT /"])
        else:
            switch(emulator, s3_denied=["PUT /"])
        one = trial(stage)
        one.fails(AccessDeniedError, "writing s3://emulated-bucket/fmknn/", "ask for this right")
        assert one.jobs() == []
        one.recovers()

    @each_stage
    def test_expired(self, emulator, trial, stage, once_created):
        if stage == "transform":
            once_created("knn", s3_expired=True)
        else:
            switch(emulator, s3_expired=True)
        one = trial(stage)
        one.fails(CredentialsError, "s3://emulated-bucket/fmknn/", "ExpiredToken", "log in anew")
        assert one.jobs() == []
        one.recovers()

    @each_stage
    def test_cut_once(self, emulator, trial, stage, once_created):
        if stage == "transform":
            once_created("knn", cut_uploads=[1])
        else:
            switch(emulator, cut_uploads=[1])
        one = trial(stage)
        one.succeeds()
        assert emulator.faults._uploads >= 2  # one that was cut, and one that came through

    @each_stage
    def test_cut_always(self, emulator, trial, stage, once_created):
        if stage == "transform":
            once_created("knn", cut_uploads=range(1, FOR_EVER))
        else:
            switch(emulator, cut_uploads=range(1, FOR_EVER))
        one = trial(stage)
        where = f"writing s3://emulated-bucket/fmknn/{one.run_id}/"
        one.fails(TransferError, where, "check the connection and try again")
        assert one.jobs() == []
        assert [key for key in one.objects() if key.endswith(".pbr") and stage in key] == []
        one.recovers()

    @pytest.mark.parametrize("cut", [[2], [1, 2, 3, 4]])
    def test_of_several_parts_cut_once(self, emulator, trial, cut, monkeypatch):
        monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 2**20)
        switch(emulator, cut_uploads=cut)
        one = trial("fm")
        content = np.random.default_rng(0).bytes(12 * 2**20)
        chunks = (content[at : at + 300_001] for at in range(0, len(content), 300_001))
        one.backend.run.store.upload("big", chunks)
        assert one.backend.run.store.read("big", 2**30) == content
        one.leaves_nothing()

    def test_of_several_parts_cut_always(self, emulator, trial, monkeypatch):
        monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 2**20)
        switch(emulator, cut_uploads=range(2, FOR_EVER))
        one = trial("fm")
        chunks = (bytes(2**20) for _ in range(12))
        with refused(TransferError, "writing s3://", "/big failed", "check the connection"):
            one.backend.run.store.upload("big", chunks)
        require_nothing_running(emulator)  # no unfinished upload either
        assert one.objects() == []

    @pytest.mark.parametrize("parts", [1, 3])
    def test_interrupted(self, emulator, trial, when, parts, monkeypatch):
        monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 2**20)
        one = trial("fm")

        def interrupt(_) -> None:  # in a thread of boto3's, while the main one waits for it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)  # until that has given up

        operation = "PutObject" if parts == 1 else "UploadPart"
        when("s3", f"before-call.s3.{operation}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            if parts == 1:
                one.run()
            else:
                one.backend.run.store.upload("big", (bytes(2**20) for _ in range(12)))
        one.require_unharmed()
        assert one.jobs() == []
        assert "big" not in str(one.objects())
        if parts == 1:
            one.recovers()

    def test_data_that_ends_in_an_error(self, emulator, trial, monkeypatch):
        monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 2**20)
        one = trial("fm")

        def chunks():
            for _ in range(11):
                yield bytes(2**20)
            raise ValueError("row 7 is no good")

        with refused(ValueError, "row 7 is no good"):
            one.backend.run.store.upload("big", chunks())
        require_nothing_running(emulator)
        assert one.objects() == []

    def test_of_the_last_of_several_objects_cut(self, emulator, trial):
        switch(emulator, cut_uploads=range(3, FOR_EVER))
        one = trial("fm", instance_count=3)
        one.fails(TransferError, "/part-00002.pbr failed", "check the connection")
        assert [key.rpartition("/")[2] for key in one.objects()] == [
            "part-00000.pbr",
            "part-00001.pbr",
        ]
        assert one.jobs() == []
        one.recovers()

    def test_for_their_rate(self, emulator, trial, when):
        body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>"

        class Answer(io.BytesIO):
            def stream(self):
                yield self.read()

        def refuse(request, **_):
            return AWSResponse(request.url, 503, {}, Answer(f"{body}</Error>".encode()))

        events = emulator.clients["s3"].meta.events
        events.register("before-send.s3.PutObject", refuse)
        one = trial("fm")
        try:
            one.fails(ThrottledError, "writing s3://", "SlowDown", "reduce your", "wait a little")
        finally:
            events.unregister("before-send.s3.PutObject", refuse)
        assert one.jobs() == []
        one.recovers()

    def test_no_such_bucket(self, emulator):
        backend = fmknn.SageMakerBackend(
            emulator.role, "no-such-bucket", clients=emulator.clients, run_id=next(RUN_IDS)
        )
        before = len(emulator.jobs())
        with refused(TransferError, "writing s3://no-such-bucket/", "check the bucket"):
            fmknn.Recommender(estimator(1), backend=backend).fit(DATA)
        assert len(emulator.jobs()) == before


class TestDownloads:
    """The jobs are done and paid for: the same run id needs no other."""

    def comes_back(self, one):
        before = one.jobs()
        one.recovers()
        assert len(before) == 1 and one.jobs() == before

    @pytest.mark.parametrize("stage", ["fm", "transform"])
    @pytest.mark.parametrize("fault", ["cut", "denied", "expired"])
    def test_of_results(self, emulator, trial, stage, fault, once_created):
        what = "model.tar.gz" if stage == "fm" else ".out"
        switches, error, word = {
            "cut": ({"cut_downloads": range(1, FOR_EVER)}, TransferError, "try again"),
            "denied": ({"s3_denied": ["GET /"]}, AccessDeniedError, "ask for this right"),
            "expired": ({"s3_expired": True}, CredentialsError, "log in anew"),
        }[fault]
        once_created(stage, **switches)
        one = trial(stage)
        where = what if fault == "cut" or stage == "fm" else f"{one.run_id}/users-"
        one.fails(error, f"s3://emulated-bucket/fmknn/{one.run_id}/", where, word)
        self.comes_back(one)

    def test_larger_than_allowed(self, emulator, trial):
        one = trial("fm", max_bytes=100)
        one.fails(TransferError, "model.tar.gz has ", "more than the 100 allowed: raise max_bytes")
        one.settings.pop("max_bytes")
        self.comes_back(one)

    @pytest.mark.parametrize(
        "fault, error, word",
        [
            ({"s3_denied": ["HEAD /", "?list-type=2"]}, AccessDeniedError, "ask for this right"),
            pytest.param(
                {"s3_expired": True},
                CredentialsError,
                "log in anew",
            ),
        ],
        ids=["denied", "expired"],
    )
    def test_looking_for_a_model_that_is_done(self, emulator, trial, fault, error, word):
        first = trial("fm")
        first.run()
        one = trial("fm", run_id=first.run_id)
        switch(emulator, **fault)
        one.fails(error, "s3://emulated-bucket/fmknn/", word)
        self.comes_back(one)


def test_logs_denied(emulator, trial):
    switch(emulator, logs_denied=True)
    one = trial("fm")
    one.run()
    (entry,) = one.model.estimator_.history_
    assert entry["iteration"] == 1 and entry["seconds"] >= 0
    one.leaves_nothing()


@each_stage
def test_logs_denied_and_the_job_failed(emulator, trial, stage):
    switch(emulator, logs_denied=True, failed={stage: "AlgorithmError: it is"})
    trial(stage).fails(JobFailedError, "AlgorithmError: it is")


# --- this machine: region, credentials, boto3, connection -----------------------------------------


class TestThisMachine:
    @pytest.fixture
    def environment(self, emulator, monkeypatch, tmp_path):
        """Only what leads to the emulator; no credentials, no region."""
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in emulator.env().items():
            if "KEY" not in name and name != "AWS_DEFAULT_REGION":
                monkeypatch.setenv(name, value)
        return monkeypatch

    @pytest.fixture
    def keyed(self, environment, emulator):
        for name, value in emulator.env().items():
            environment.setenv(name, value)
        return environment

    def backend(self, emulator, **settings):
        settings = {"poll_seconds": 0.01, "run_id": next(RUN_IDS), **settings}
        return fmknn.SageMakerBackend(emulator.role, emulator.bucket, **settings)

    def fails(self, emulator, error, *words, **settings):
        """At every entrance, before anything reaches AWS."""
        before = len(emulator.requests), keys(emulator)
        model = on_this_machine()
        model.backend = self.backend(emulator, **settings)
        reach = {name: settings[name] for name in ("region", "session") if name in settings}
        with refused(error, *words):
            model.fit(DATA)
        with refused(error, *words):
            self.backend(emulator, search="sagemaker", **settings).index("exact").build(
                model.index_.vectors
            ).search(model.index_.vectors, 3)
        with refused(error, *words):
            fmknn.load_sagemaker_model("some-job", **reach)
        assert (len(emulator.requests), keys(emulator)) == before
        assert lists(model).items.shape == (20, 5)

    def test_works_with_both(self, emulator, keyed):
        backend = self.backend(emulator)
        fmknn.Recommender(estimator(1), backend=backend).fit(DATA)
        backend.cleanup()

    def test_no_region(self, emulator, keyed):
        keyed.delenv("AWS_DEFAULT_REGION")
        self.fails(emulator, CredentialsError, "region", "pass region=")

    def test_no_credentials(self, emulator, environment):
        words = "Unable to locate credentials", "log in anew (aws configure"
        self.fails(emulator, CredentialsError, *words, region="us-east-1")

    def test_while_another_error_is_handled(self, emulator, environment):
        try:
            emulator.s3.get_object(Bucket=emulator.bucket, Key="nothing-here")
        except ClientError:
            with refused(CredentialsError, "Unable to locate credentials"):
                fmknn.load_sagemaker_model("some-job", region="us-east-1")

    def test_half_of_the_credentials(self, emulator, environment):
        environment.setenv("AWS_ACCESS_KEY_ID", "half")
        self.fails(emulator, CredentialsError, "AWS_SECRET_ACCESS_KEY", region="us-east-1")

    def test_no_such_profile(self, emulator, environment):
        environment.setenv("AWS_PROFILE", "nobody")
        self.fails(emulator, CredentialsError, "profile (nobody)", region="us-east-1")

    def test_no_boto3(self, emulator, monkeypatch, tmp_path):
        names = [name for name in sys.modules if name.split(".")[0] in ("boto3", "botocore")]
        for name in {"boto3", "botocore", *names}:
            monkeypatch.setitem(sys.modules, name, None)
        backend = self.backend(emulator, region="us-east-1")  # needs none yet
        model = on_this_machine()
        model.backend = backend
        with refused(MissingExtraError, "pip install 'fmknn[sagemaker]'"):
            model.fit(DATA)
        with refused(MissingExtraError, "pip install 'fmknn[sagemaker]'"):
            fmknn.load_sagemaker_model("some-job", region="us-east-1")
        write_artifact(tmp_path / "model.tar.gz", model.params_, "squared")
        loaded = fmknn.load_sagemaker_model(tmp_path / "model.tar.gz")  # a file needs none
        assert (loaded.params.V == model.params_.V).all()
        assert lists(model).items.shape == (20, 5)

    def test_nobody_answers(self, emulator, keyed):
        keyed.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:1")
        self.fails(emulator, SageMakerError, "Could not connect to the endpoint URL")

    def test_nobody_answers_for_s3(self, emulator, keyed):
        keyed.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        backend = self.backend(emulator)
        with refused(TransferError, "writing s3://", "check the connection"):
            fmknn.Recommender(estimator(1), backend=backend).fit(DATA)


# --- models by themselves -------------------------------------------------------------------------


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

    @pytest.mark.parametrize("by", ["job", "address"])
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

    @pytest.mark.parametrize("by", ["job", "address"])
    @pytest.mark.parametrize("damage", ["cut", "noise", "empty", "foreign"])
    def test_damaged(self, emulator, trained, by, damage):
        source = trained(damaged_model={"fm": damage})[by == "address"]
        with refused(ModelFileError):
            self.load(emulator, source)

    @pytest.mark.parametrize("by", ["job", "address"])
    @pytest.mark.parametrize("damage", ["cut", "noise", "empty", "foreign"])
    def test_damaged_names_the_object(self, emulator, trained, by, damage):
        name, uri = trained(damaged_model={"fm": damage})
        with refused(ModelFileError, uri):
            self.load(emulator, uri if by == "address" else name)

    @pytest.mark.parametrize("by", ["job", "address"])
    def test_nan(self, emulator, trained, by):
        source = trained(nan_weights=True)[by == "address"]
        with refused(DivergenceError, "NaN", "lower learning rates"):
            self.load(emulator, source)

    @pytest.mark.parametrize("by", ["job", "address"])
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


# --- refused before anything is sent --------------------------------------------------------------


class Mcmc:
    """Settings of another solver than Adam."""

    solver = staticmethod(lambda spec: None)


class TestNothingIsSent:
    @pytest.fixture
    def untouched(self, emulator):
        before = len(emulator.requests), keys(emulator)
        yield emulator
        assert (len(emulator.requests), keys(emulator)) == before

    def refuses(self, emulator, model, *words, data=DATA, **settings):
        fitted = on_this_machine()
        before = lists(fitted)
        fitted.estimator, fitted.backend = model, backend_of(emulator, **settings)
        with refused(ValueError, *words):
            fitted.fit(data)
        assert (lists(fitted).items == before.items).all()

    def test_callbacks(self, untouched):
        model = estimator().set_params(callbacks=[lambda step: None])
        self.refuses(untouched, model, "leave callbacks out")

    def test_weights(self, untouched):
        data = DATA.replace(weights=np.linspace(0.5, 2, len(DATA)).astype(np.float32))
        self.refuses(untouched, estimator(), "no row weights", data=data)

    def test_start(self, untouched):
        model = estimator(epochs=1)
        state = model.fit(DATA).state_
        solver = backend_of(untouched).solver(model.solver_spec())
        before = model.params_.V.copy()
        with refused(ValueError, "leave start out"):
            model.fit(DATA, start=state, solver=solver)
        assert (before == model.params_.V).all()

    def test_another_solver(self, untouched):
        self.refuses(untouched, fmknn.FMRegressor(solver=Mcmc()), "by Adam only, not Mcmc")

    @pytest.mark.parametrize(
        "solver, words",
        [
            (fmknn.Adam(), ["SageMaker can't train with", "Adam.sagemaker("]),
            (fmknn.Adam.sagemaker(shuffle=True), ["shuffle=True"]),
            (fmknn.Adam.sagemaker(lazy=False), ["lazy=False"]),
            (fmknn.Adam.sagemaker(bias_init_method="mean"), ["bias_init_method='mean'"]),
        ],
        ids=["plain", "shuffle", "eager", "mean"],
    )
    def test_settings_that_sagemaker_has_not(self, untouched, solver, words):
        self.refuses(untouched, fmknn.FMRegressor(4, solver=solver), *words)

    def test_no_factors(self, untouched):
        self.refuses(untouched, estimator(n_factors=0), "n_factors of at least 1, got 0")

    def test_more_instances_than_rows(self, untouched):
        words = "150 rows can't be shared by 151 instances"
        self.refuses(untouched, estimator(), words, instance_count=151)

    def test_more_cells_than_items_are_as_many_as_there_are_items(self, emulator):
        settings = {"search": "sagemaker", "index_type": "faiss.IVFFlat", "nlists": 16}
        vectors = on_this_machine().index_.vectors
        backend_of(emulator, **settings).index("ivf").build(vectors).search(vectors[:2], 3)
        asked = [request for name, request in emulator.requests if name == "CreateTrainingJob"]
        assert asked[-1]["HyperParameters"]["faiss_index_ivf_nlists"] == str(len(vectors))

    def test_queries_that_are_none(self, untouched):
        backend = backend_of(untouched, search="sagemaker")
        vectors = on_this_machine().index_.vectors
        index = backend.index("exact").build(vectors)
        assert len(index.search(vectors[:0], 3).counts) == 0
        with refused(ValueError):
            index.search(np.full((1, vectors.shape[1]), np.nan), 3)
        with refused(ValueError):
            index.search(vectors, 0)
        with refused(ValueError):
            backend.index("exact").build(vectors[:0])
