# ruff: noqa: F401, F811 - fixtures are imported
"""S3 and the logs refuse or break off: one typed line says it, and it can be done again."""

from __future__ import annotations

import io
import signal
import threading
import time

import numpy as np
import pytest
from refusals import refused

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

from botocore.awsrequest import AWSResponse
from sagemaker_rig import estimator, require_nothing_running
from sagemaker_trial import (
    DATA,
    FOR_EVER,
    RUN_IDS,
    before_uploads,
    each_stage,
    emulator,
    expected,
    once_created,
    server,
    switch,
    trial,
    when,
)

import fmknn
from fmknn.backends.sagemaker import s3 as s3_module
from fmknn.errors import (
    AccessDeniedError,
    CredentialsError,
    JobFailedError,
    ThrottledError,
    TransferError,
)

pytestmark = pytest.mark.server


class TestUploads:
    @pytest.fixture
    def small_parts(self, monkeypatch):
        monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 2**20)

    @each_stage
    def test_denied(self, emulator, trial, stage, before_uploads):
        before_uploads(stage, s3_denied=["PUT /"])
        one = trial(stage)
        one.fails(AccessDeniedError, "writing s3://emulated-bucket/fmknn/", "ask for this right")
        assert one.jobs() == []
        one.recovers()

    @each_stage
    def test_expired(self, emulator, trial, stage, before_uploads):
        before_uploads(stage, s3_expired=True)
        one = trial(stage)
        one.fails(CredentialsError, "s3://emulated-bucket/fmknn/", "ExpiredToken", "log in anew")
        assert one.jobs() == []
        one.recovers()

    @each_stage
    def test_cut_once(self, emulator, trial, stage, before_uploads):
        before_uploads(stage, cut_uploads=[1])
        one = trial(stage)
        one.succeeds()
        assert emulator.faults._uploads >= 2  # one that was cut, and one that came through

    @each_stage
    def test_cut_always(self, emulator, trial, stage, before_uploads):
        before_uploads(stage, cut_uploads=range(1, FOR_EVER))
        one = trial(stage)
        where = f"writing {one.place()}"
        one.fails(TransferError, where, "check the connection and try again")
        assert one.jobs() == []
        assert [key for key in one.objects() if key.endswith(".pbr") and stage in key] == []
        one.recovers()

    # parts go side by side: all cuts may fall on one of them, and it is tried three times
    @pytest.mark.parametrize("cut", [[2], [1, 2]])
    def test_of_several_parts_cut_once(self, emulator, trial, cut, small_parts):
        switch(emulator, cut_uploads=cut)
        one = trial("fm")
        content = np.random.default_rng(0).bytes(12 * 2**20)
        chunks = (content[at : at + 300_001] for at in range(0, len(content), 300_001))
        one.backend.run.store.upload("big", chunks)
        assert one.backend.run.store.read("big", 2**30) == content
        one.leaves_nothing()

    def test_of_several_parts_cut_always(self, emulator, trial, small_parts):
        switch(emulator, cut_uploads=range(2, FOR_EVER))
        one = trial("fm")
        chunks = (bytes(2**20) for _ in range(12))
        with refused(TransferError, "writing s3://", "/big failed", "check the connection"):
            one.backend.run.store.upload("big", chunks)
        require_nothing_running(emulator)  # no unfinished upload either
        assert one.objects() == []

    @pytest.mark.parametrize("parts", [1, 3])
    def test_interrupted(self, emulator, trial, when, parts, small_parts):
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
        for key in one.objects():  # whole, should it have got through before the end
            if key.endswith("/big"):
                head = emulator.s3.head_object(Bucket=emulator.bucket, Key=key)
                assert head["ContentLength"] == 12 * 2**20
        if parts == 1:
            one.recovers()

    def test_data_that_ends_in_an_error(self, emulator, trial, small_parts):
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
        sent = [key.rpartition("/")[2] for key in one.objects()]
        assert sent == ["part-00000.pbr", "part-00001.pbr"]
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
        with refused(TransferError, "s3://no-such-bucket/", "check the bucket"):
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
        one.fails(error, one.place(), where, word)
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
            ({"s3_expired": True}, CredentialsError, "log in anew"),
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
