# ruff: noqa: F401, F811 - fixtures are imported
"""Jobs on AWS fail, stop, vanish or are interrupted: nothing runs on, nothing is lost."""

from __future__ import annotations

import math

import pytest
from refusals import refused

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

import boto3
from sagemaker_trial import (
    DATA,
    FOR_EVER,
    WAS_CREATED,
    each_stage,
    emulator,
    expected,
    interrupt,
    job_of,
    kind_of,
    once_created,
    server,
    spoil_sleep,
    switch,
    trial,
    when,
)

from fmknn.errors import (
    AccessDeniedError,
    CredentialsError,
    JobFailedError,
    JobStoppedError,
    JobTimeoutError,
    ModelFileError,
    SageMakerError,
    ThrottledError,
)

pytestmark = pytest.mark.server


# --- names ----------------------------------------------------------------------------------------


class TestNameThatIsTaken:
    def test_by_nothing_that_can_be_seen(self, emulator, trial):
        switch(emulator, errors={"CreateTrainingJob": ("ResourceInUse", "names must be unique")})
        one = trial("fm")
        one.fails(SageMakerError, "training job fmknn-", "is gone")
        one.recovers()

    @each_stage
    def test_by_a_creation_whose_answer_was_lost(self, emulator, trial, stage, when):
        other = boto3.client(
            "sagemaker",
            endpoint_url=emulator.endpoints["sagemaker"],
            region_name=emulator.region,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

        def earlier(given) -> None:
            call = kind_of(stage).replace(" ", "_")
            getattr(other, f"create_{call}")(**given["params"])

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
        one.fails(ModelFileError, one.place(), *words)
        one.leaves_nothing()


# --- fates ----------------------------------------------------------------------------------------


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
        one.fails(JobFailedError, f"{kind_of(stage)} fmknn-{one.run_id}-", " failed: ", *words)
        assert one.statuses() == ["Failed"]
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
        with_model = with_model and stage != "transform"
        switch(emulator, max_runtime={stage}, stopped_with_model=with_model)
        one = trial(stage)
        words = ("time limit", "raise max_runtime") if stage != "transform" else ("was stopped",)
        one.fails(JobStoppedError, *words, "what it left is not used")
        if with_model:
            assert any("/output/model.tar.gz" in key for key in one.objects())
        one.recovers()  # never from what was left
        assert one.statuses() == ["Stopped", "Completed"]

    @pytest.mark.parametrize("with_model", [False, True])
    def test_stopped_by_somebody(self, emulator, trial, stage, with_model, monkeypatch):
        with_model = with_model and stage != "transform"
        switch(emulator, slow={stage: math.inf}, stopped_with_model=with_model)
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
        assert one.statuses() == ["Stopped", "Completed"]

    def test_deadline(self, emulator, trial, stage):
        switch(emulator, slow={stage: math.inf})
        one = trial(stage, deadline=0.3)
        one.fails(JobTimeoutError, "was still ", "after 0.3 s", "is stopped", "raise deadline")
        assert issubclass(JobTimeoutError, TimeoutError)
        assert one.statuses() == ["Stopped"]
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
        one.fails(error, f"describing {kind_of(stage)}")
        assert one.statuses() == ["Stopped"]
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
        assert one.statuses() == ["InProgress"]  # nobody could stop it
        one.recovers()
        assert one.statuses() == ["Completed"]  # it was not created twice

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
        assert one.statuses() == ["Stopped"]

    @each_stage
    def test_interrupted(self, emulator, trial, stage, monkeypatch):
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)

        spoil_sleep(monkeypatch, lambda: one.jobs() and interrupt())
        with pytest.raises(KeyboardInterrupt):
            one.run()
        one.require_unharmed()
        assert one.statuses() == ["Stopped"]
        monkeypatch.undo()
        one.recovers()

    @each_stage
    def test_interrupted_while_the_job_is_created(self, emulator, trial, stage, when):
        when("sagemaker", f"{WAS_CREATED}Create{job_of(stage)}", interrupt)
        switch(emulator, slow={stage: math.inf})
        one = trial(stage)
        with pytest.raises(KeyboardInterrupt):
            one.run()
        one.require_unharmed()
        assert one.statuses() == ["Stopped"]

    def test_interrupted_once_the_model_is_created(self, emulator, trial, when):
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
        spoil_sleep(monkeypatch, interrupt)
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
