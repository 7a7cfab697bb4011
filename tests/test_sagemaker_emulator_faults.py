"""Each switch of the SageMaker emulator shows itself to boto3 as AWS's own trouble would."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    WaiterError,
)
from sagemaker_emulator import Emulator, Faults
from sagemaker_emulator.bench import FM, Bench, answers, fm_settings, records

pytestmark = pytest.mark.server

ONE_ATTEMPT = Config(retries={"total_max_attempts": 1, "mode": "standard"})
ITEMS = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
USERS = np.random.default_rng(6).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def emulator():
    with Emulator(config=ONE_ATTEMPT) as emulator:
        yield emulator


@pytest.fixture
def bench(emulator):
    emulator.faults.clear()
    yield Bench(emulator)
    emulator.faults.clear()


@pytest.fixture
def faults(bench):
    return bench.emulator.faults


@pytest.fixture
def training(bench):
    """A CreateTrainingJob request that would succeed."""
    X = np.tile(np.eye(4, dtype=np.float32), (3, 1))
    uri = bench.place("train/part", records(X, np.arange(12) % 3, sparse=True))
    return bench.request(FM, fm_settings(4, 2), train=uri)


def refusal(call, **request) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def params_of(bench, job: dict) -> bytes:
    inner = zipfile.ZipFile(io.BytesIO(bench.artifact(job)["model_algo-1"]))
    return inner.read("params")


def run(bench, request) -> dict:
    bench.sagemaker.create_training_job(**request)
    return bench.wait("Training", request["TrainingJobName"])


# --- the API --------------------------------------------------------------------------------------


def test_quota(bench, faults, training):
    faults.quota = "CreateTrainingJob"
    with pytest.raises(bench.sagemaker.exceptions.ResourceLimitExceeded) as caught:
        bench.sagemaker.create_training_job(**training)
    assert "'ml.m5.large for training job usage' is 0 Instances" in str(caught.value)
    assert training["TrainingJobName"] not in str(bench.emulator.jobs())
    faults.quota = True
    request = bench.transform_request("any", "s3://x/y")
    code, text = refusal(bench.sagemaker.create_transform_job, **request)
    assert code == "ResourceLimitExceeded" and "transform job usage" in text


def test_access_denied(bench, faults, training):
    create = bench.sagemaker.create_training_job
    faults.access_denied = "CreateTrainingJob"
    code, text = refusal(create, **training)
    assert code == "AccessDeniedException"
    assert "is not authorized to perform: sagemaker:CreateTrainingJob on resource: arn:aws" in text
    faults.access_denied = {"iam:PassRole"}
    code, text = refusal(create, **training)
    assert code == "AccessDeniedException" and "perform: iam:PassRole on resource:" in text
    assert bench.emulator.role in text


def test_no_data_and_any_other_refusal(bench, faults, training):
    faults.no_data = True
    code, text = refusal(bench.sagemaker.create_training_job, **training)
    assert code == "ValidationException" and text.startswith("No S3 objects found under S3 URL")
    faults.clear()
    faults.errors = {"CreateTrainingJob": ("InternalFailure", "sorry")}
    assert refusal(bench.sagemaker.create_training_job, **training) == ("InternalFailure", "sorry")


def test_throttling_passes(bench, faults):
    faults.throttled = {"DescribeTrainingJob": 2}
    describe = bench.sagemaker.describe_training_job
    codes = [refusal(describe, TrainingJobName="x")[0] for _ in range(3)]
    assert codes == ["ThrottlingException", "ThrottlingException", "ValidationException"]


def test_credentials_expire(bench, faults, training):
    faults.expired_from = 2
    bench.sagemaker.create_training_job(**training)
    for _ in range(2):
        name = training["TrainingJobName"]
        code, text = refusal(bench.sagemaker.describe_training_job, TrainingJobName=name)
        assert code == "ExpiredTokenException" and "expired" in text
    faults.s3_expired = True
    assert refusal(bench.s3.list_objects_v2, Bucket=bench.emulator.bucket)[0] == "ExpiredToken"
    assert refusal(bench.s3.put_object, Bucket="x", Key="y", Body=b"z")[0] == "ExpiredToken"


# --- jobs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fm", "knn", "transform"])
def test_jobs_fail_for_a_reason(bench, faults, training, kind):
    reason = "AlgorithmError: out of memory"
    model = bench.model(ITEMS, 2) if kind == "transform" else None
    faults.failed = {kind: reason}
    if kind == "transform":
        job = bench.transform(model, bench.place("users", records(USERS, None)))
        assert job["TransformJobStatus"] == "Failed"
        assert bench.keys("answers/") == []
    else:
        if kind == "knn":
            training["AlgorithmSpecification"]["TrainingImage"] = "x/knn:1"
        job = run(bench, training)
        assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
        assert job["SecondaryStatusTransitions"][-1]["Status"] == "Failed"
        with pytest.raises(WaiterError) as caught:
            bench.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
                TrainingJobName=job["TrainingJobName"]
            )
        assert caught.value.last_response["FailureReason"] == reason
    assert job["FailureReason"] == reason


@pytest.mark.parametrize("with_model", [False, True])
def test_the_longest_time_is_over(bench, faults, training, with_model):
    faults.max_runtime, faults.stopped_with_model = ["fm"], with_model
    job = run(bench, training)
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded" and "FailureReason" not in job
    assert bool(bench.keys("models/")) is bool(job["ModelArtifacts"]) is with_model


def test_the_requests_own_longest_time(bench, training):
    training["HyperParameters"]["epochs"] = "1000000"
    training["StoppingCondition"]["MaxRuntimeInSeconds"] = 1
    job = run(bench, training)
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"


@pytest.mark.parametrize("polls", [5, 50])
def test_slow_for_so_many_describes(bench, faults, training, polls):
    faults.slow = {"fm": polls}
    bench.sagemaker.create_training_job(**training)
    name = {"TrainingJobName": training["TrainingJobName"]}
    seen = []
    while not seen or seen[-1] == "InProgress":
        seen.append(bench.sagemaker.describe_training_job(**name)["TrainingJobStatus"])
    assert seen.count("InProgress") >= polls and seen[-1] == "Completed"


def test_slow_until_stopped(bench, faults, training):
    faults.slow = dict.fromkeys(["fm", "transform"], float("inf"))
    sm = bench.sagemaker
    sm.create_training_job(**training)
    name = {"TrainingJobName": training["TrainingJobName"]}
    assert sm.describe_training_job(**name)["TrainingJobStatus"] == "InProgress"
    sm.stop_training_job(**name)
    job = bench.wait("Training", training["TrainingJobName"])
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    steps = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert steps[-2:] == ["Stopping", "Stopped"]
    assert bench.keys("models/") == [] and job["ModelArtifacts"] == {}

    model, users = bench.model(ITEMS, 2), bench.place("users", records(USERS, None))
    request = bench.transform_request(model, users)
    sm.create_transform_job(**request)
    assert ("Transform", request["TransformJobName"], "InProgress") in bench.emulator.jobs()
    sm.delete_model(ModelName=model)  # a running job has its own
    sm.stop_transform_job(TransformJobName=request["TransformJobName"])
    job = bench.wait("Transform", request["TransformJobName"])
    assert job["TransformJobStatus"] == "Stopped"
    code, text = refusal(sm.stop_transform_job, TransformJobName=request["TransformJobName"])
    assert code == "ValidationException" and "transform job is in status Stopped" in text


# --- results that lie -----------------------------------------------------------------------------


def test_weights_that_are_no_numbers(bench, faults, training):
    faults.nan_weights = True
    assert np.full(8, np.nan, np.float32).tobytes() in params_of(bench, run(bench, training))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "foreign"])
def test_damaged_artifacts(bench, faults, training, damage):
    faults.damaged_model = {"fm": damage}
    job = run(bench, training)
    assert job["TrainingJobStatus"] == "Completed"
    if damage == "foreign":
        assert list(bench.artifact(job)) == ["model.pkl"]
    else:
        with pytest.raises((tarfile.TarError, EOFError, OSError, zlib.error)):
            bench.artifact(job)


def test_a_missing_artifact(bench, faults, training):
    faults.missing_model = ["fm"]
    job = run(bench, training)
    assert job["TrainingJobStatus"] == "Completed" and bench.keys("models/") == []
    faults.clear()
    faults.damaged_model = {"knn": "cut"}
    failed = bench.transform(bench.model(ITEMS, 2), bench.place("users", records(USERS, None)))
    assert failed["TransformJobStatus"] == "Failed"


def test_answers_that_lie(bench, faults):
    model = bench.model(ITEMS, 3)
    honest = answers(bench.neighbours(model, USERS))
    faults.descending = True
    for line, true in zip(answers(bench.neighbours(model, USERS)), honest, strict=True):
        assert line["distances"] == true["distances"][::-1]
        assert line["labels"] == true["labels"][::-1]
    faults.clear()
    faults.negated = True
    for line, true in zip(answers(bench.neighbours(model, USERS)), honest, strict=True):
        assert line["distances"] == [-d for d in true["distances"][::-1]]
        assert line["labels"] == true["labels"][::-1]
    faults.clear()
    faults.l2 = True
    for line, user in zip(answers(bench.neighbours(model, USERS)), USERS, strict=True):
        squared = np.sort(((ITEMS - user) ** 2).sum(axis=1))[:3]
        np.testing.assert_allclose(line["distances"], squared, rtol=1e-4)


def test_outs_that_lack_or_hold_something(bench, faults):
    model = bench.model(ITEMS, 3)
    honest = bench.neighbours(model, USERS).splitlines()
    faults.short_out = True
    assert bench.neighbours(model, USERS).splitlines() == honest[:-1]
    assert len(re.findall(b'"distances"', bench.neighbours(model, USERS, AssembleWith="None"))) == 3
    faults.clear()
    faults.garbage_line = True
    lines = bench.neighbours(model, USERS).splitlines()
    assert [line for line in lines if line in honest] == honest and len(lines) == 5
    faults.clear()
    faults.missing_out = True
    assert bench.neighbours(model, USERS) is None
    bench.place("many/a", records(USERS, None))
    uri = bench.place("many/b", records(USERS, None)).removesuffix("b")
    assert bench.transform(model, uri)["TransformJobStatus"] == "Completed"
    assert [key for key in bench.keys("answers/") if "users" not in key] == ["answers/a.out"]


# --- S3 and logs ----------------------------------------------------------------------------------


def test_an_upload_is_cut(bench, faults):
    body, bucket = bytes(range(256)) * 8192, bench.emulator.bucket
    put = bench.s3.put_object
    faults.cut_uploads = {2}
    put(Bucket=bucket, Key=f"{bench.prefix}/a", Body=body)
    with pytest.raises(HTTPClientError):
        put(Bucket=bucket, Key=f"{bench.prefix}/b", Body=body)
    assert bench.keys("") == ["a"]
    put(Bucket=bucket, Key=f"{bench.prefix}/b", Body=body)
    assert bench.fetch(bench.uri("b")) == body
    # a client that tries again gets through; so does a part of a multipart upload
    faults.cut_uploads = {1, 3}
    retrying = bench.emulator.client("s3", retries={"total_max_attempts": 3})
    retrying.put_object(Bucket=bucket, Key=f"{bench.prefix}/c", Body=body)
    many = TransferConfig(multipart_threshold=1, multipart_chunksize=5 * 2**20)
    file = io.BytesIO(body * 3)
    retrying.upload_fileobj(file, bucket, f"{bench.prefix}/d", Config=many)
    assert bench.fetch(bench.uri("c")) == body and bench.fetch(bench.uri("d")) == body * 3


def test_a_download_is_cut(bench, faults):
    bench.place("a", b"x" * 10**6)
    where = {"Bucket": bench.emulator.bucket, "Key": f"{bench.prefix}/a"}
    faults.cut_downloads = {1}
    bench.s3.list_objects_v2(Bucket=bench.emulator.bucket, Prefix="a/b/c")
    with pytest.raises((IncompleteReadError, HTTPClientError)):
        bench.s3.get_object(**where)["Body"].read()
    assert len(bench.s3.get_object(**where)["Body"].read()) == 10**6


def test_s3_and_logs_are_denied(bench, faults, training):
    bench.place("secret/a", b"x")
    faults.s3_denied = ["PUT ", "/secret/"]
    bucket = bench.emulator.bucket
    denied = "AccessDenied", "Access Denied"
    assert refusal(bench.s3.put_object, Bucket=bucket, Key="k", Body=b"x") == denied
    secret = {"Bucket": bucket, "Key": f"{bench.prefix}/secret/a"}
    assert refusal(bench.s3.get_object, **secret) == denied
    assert refusal(bench.s3.head_object, **secret)[0] == "403"
    assert run(bench, training)["TrainingJobStatus"] == "Completed"  # the role's rights are others
    faults.logs_denied = True
    assert refusal(bench.logs.describe_log_groups)[0] == "AccessDeniedException"
    faults.clear()
    bench.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert bench.logs.describe_log_groups()["logGroups"]


def test_every_switch_is_off_at_first(faults):
    faults.quota = True
    faults.clear()
    assert faults == Faults()
    with pytest.raises(AttributeError, match="no switch 'qouta'"):
        faults.qouta = True
