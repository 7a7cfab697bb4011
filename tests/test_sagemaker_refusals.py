# ruff: noqa: F401, F811 - fixtures are imported
"""Whatever this machine or AWS refuses: one typed line says it, and nothing was done."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from refusals import refused

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

from botocore.exceptions import ClientError
from sagemaker_rig import backend_of, estimator, keys
from sagemaker_trial import (
    DATA,
    FOR_EVER,
    RUN_IDS,
    WAS_CREATED,
    each_stage,
    emulator,
    expected,
    job_of,
    kind_of,
    lists,
    on_this_machine,
    once_created,
    server,
    switch,
    trial,
    when,
)

import fmknn
from fmknn.backends.sagemaker.artifact import write_artifact
from fmknn.errors import (
    AccessDeniedError,
    CredentialsError,
    MissingExtraError,
    QuotaError,
    SageMakerError,
    ThrottledError,
    TransferError,
)

pytestmark = pytest.mark.server


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
        kind = kind_of(stage)
        words = f"ml.m5.large for {kind} usage", "is 0 Instances", "ask AWS for a higher limit"
        self.refuses(trial, stage, QuotaError, f"creating {kind} fmknn-", *words)

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
        ("InvalidSignatureException", CredentialsError, ["log in anew"]),
    ],
)
def test_codes(emulator, trial, code, error, words):
    switch(emulator, errors={"CreateTrainingJob": (code, "so it is")})
    trial("fm").fails(error, code, "so it is", *words)


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
        with refused(TransferError, "s3://", "check the connection"):
            fmknn.Recommender(estimator(1), backend=backend).fit(DATA)


# --- before anything is sent ----------------------------------------------------------------------


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
