"""AWS's services as a run uses them: objects in S3, and failures told in the caller's words.

boto3 is the real one. Its requests are answered in this process, by moto for S3 and else by bytes
as AWS sends them, so that the errors are those that botocore makes of them.
"""

from __future__ import annotations

import builtins
import functools
import io
import json
import re
import socket
import subprocess
import sys
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

from botocore import exceptions as aws  # noqa: E402
from botocore.awsrequest import AWSResponse  # noqa: E402
from botocore.config import Config  # noqa: E402

from fmknn.backends.sagemaker.clients import Clients, attempt, translated  # noqa: E402
from fmknn.backends.sagemaker.s3 import Store, _Stream, read_object, split_uri  # noqa: E402
from fmknn.errors import (  # noqa: E402
    AccessDeniedError,
    CredentialsError,
    MissingExtraError,
    QuotaError,
    SageMakerError,
    ThrottledError,
    TransferError,
)

PART = 16 * 2**20  # bytes of one part of a large upload
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@functools.cache
def session():
    """One for all: it reads the description of a service once."""
    return boto3.Session(region_name="us-east-1", **KEYS)


def client(service, **options):
    return session().client(service, config=ONCE, **options)


class Raw(io.BytesIO):
    """A body as urllib3 would stream it."""

    def stream(self, amount=1024, decode_content=None):
        while chunk := self.read(amount):
            yield chunk


def answered(service, status, body, headers=()):
    """A client whose every request gets this answer."""
    made = client(service)

    def answer(request, **_):
        return AWSResponse(request.url, status, dict(headers), Raw(body))

    made.meta.events.register("before-send", answer)
    return made


def sagemaker_fails(code, message, status=400):
    body = json.dumps({"__type": code, "message": message}).encode()
    made = answered("sagemaker", status, body, [("content-type", "application/x-amz-json-1.1")])
    made.describe_training_job(TrainingJobName="monday")


def s3_fails(code, message, status=400):
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    answered("s3", status, body).get_object(Bucket="bucket", Key="key")


# --- failures, told ---------------------------------------------------------------------------


SAGEMAKER = [  # code, message of AWS's, what it becomes, words of the advice
    (
        "ResourceLimitExceeded",
        "The account-level service limit 'ml.p3.2xlarge for training job usage' is 0 Instances, "
        "with current utilization of 0 Instances and a request delta of 1 Instances. Please "
        "contact AWS support to request an increase for this limit.",
        QuotaError,
        ["ml.p3.2xlarge", "0 Instances", "instance_type"],
    ),
    (
        "AccessDeniedException",
        "User: arn:aws:iam::123456789012:user/me is not authorized to perform: "
        "sagemaker:CreateTrainingJob on resource: arn:aws:sagemaker:us-east-1:…",
        AccessDeniedError,
        ["sagemaker:CreateTrainingJob"],
    ),
    (
        "ValidationException",
        'No S3 objects found under S3 URL "s3://b/job/" given in input data source. Please ensure '
        "that the bucket exists in the selected region (us-east-1), that objects exist under that "
        'S3 prefix, and that the role "arn…" has "s3:ListBucket" permissions on bucket "b".',
        TransferError,
        ["s3://b/job/"],
    ),
    ("ValidationException", "1 validation error detected: …", SageMakerError, ["validation error"]),
    ("ValidationException", "Requested resource not found.", SageMakerError, ["not found"]),
    ("ResourceInUse", "Training job names must be unique", SageMakerError, ["unique"]),
    ("ExpiredTokenException", "The security token … is expired", CredentialsError, ["expired"]),
    ("UnrecognizedClientException", "The security token … is invalid", CredentialsError, []),
    ("InvalidClientTokenId", "The security token is invalid", CredentialsError, []),
    ("ThrottlingException", "Rate exceeded", ThrottledError, ["Rate exceeded"]),
    ("InternalFailure", "", SageMakerError, []),
]


@pytest.mark.parametrize(("code", "message", "kind", "words"), SAGEMAKER)
def test_what_sagemaker_answers_is_an_error_of_its_kind(code, message, kind, words):
    with (
        refused(kind, "describing monday", code, *words) as caught,
        translated("describing monday"),
    ):
        sagemaker_fails(code, message)
    assert caught.type is kind
    assert str(caught.value).startswith("describing monday")
    assert caught.value.__cause__.response["Error"]["Code"] == code, "what boto3 raised is kept"


S3 = [
    ("NoSuchKey", "The specified key does not exist.", 404, TransferError),
    ("NoSuchBucket", "The specified bucket does not exist", 404, TransferError),
    ("AccessDenied", "Access Denied", 403, AccessDeniedError),
    ("SlowDown", "Please reduce your request rate.", 503, ThrottledError),
    ("ExpiredToken", "The provided token has expired.", 400, CredentialsError),
    ("InvalidAccessKeyId", "The key Id you provided does not exist", 403, CredentialsError),
    ("SignatureDoesNotMatch", "The request signature …", 403, CredentialsError),
    ("InternalError", "We encountered an internal error.", 500, SageMakerError),
]


@pytest.mark.parametrize(("code", "message", "status", "kind"), S3)
def test_what_s3_answers_is_an_error_of_its_kind(code, message, status, kind):
    with refused(kind, "reading it", code, message.rstrip(".")) as caught, translated("reading it"):
        s3_fails(code, message, status)
    assert caught.type is kind


@pytest.mark.parametrize(("status", "kind"), [(403, AccessDeniedError), (404, TransferError)])
def test_an_answer_without_a_body_is_told_by_its_status(status, kind):
    with refused(kind, "looking", str(status)), translated("looking"):
        answered("s3", status, b"").head_object(Bucket="bucket", Key="key")


def test_lines_and_blanks_of_a_message_become_one_line():
    with refused(SageMakerError, "first second third"), translated("trying"):
        sagemaker_fails("Whatever", "first\n  second\r\n\tthird\n")


def test_no_credentials_and_no_region(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_SESSION_TOKEN", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with refused(CredentialsError, "region=", "sagemaker"):
        Clients()["sagemaker"]
    with refused(CredentialsError, "region="):
        _ = Clients().region
    assert Clients(region="eu-west-1").region == "eu-west-1"
    with refused(CredentialsError, "listing", "aws configure"):
        Store(Clients(region="eu-west-1"), "bucket", "run", {}).keys()


def closed_port():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return reserved.getsockname()[1]


@pytest.mark.parametrize("what", ["upload", "read", "keys"])
def test_nobody_at_the_address_is_a_broken_connection(what):
    s3 = client("s3", endpoint_url=f"http://127.0.0.1:{closed_port()}")
    store = Store(Clients(given={"s3": s3}), "bucket", "run", {})
    calls = {
        "upload": lambda: store.upload("a", [b"x"]),
        "read": lambda: store.read("a", 10),
        "keys": lambda: store.keys(),
    }
    with refused(TransferError, "s3://bucket/run", "connection"):
        calls[what]()


@pytest.mark.parametrize("kind", ["ReadTimeoutError", "ConnectionClosedError"])
def test_a_connection_that_breaks_is_a_transfer_error(kind):
    def call():
        raise getattr(aws, kind)(endpoint_url="http://127.0.0.1")

    with refused(TransferError, "writing", "connection"), translated("writing"):
        call()
    with refused(TransferError, "writing", "connection"):
        attempt("writing", call, expected=lambda code, message: True)


def test_what_is_not_amazons_passes_as_it_is():
    for error in (ValueError("mine"), KeyError("k"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, translated("trying"):
            raise error
        assert caught.value is error
    told = QuotaError("told before")
    with pytest.raises(QuotaError) as caught, translated("outer"), translated("inner"):
        raise told
    assert caught.value is told


def test_an_error_is_not_mistaken_for_the_one_that_was_being_handled():
    with refused(SageMakerError, "127.0.0.1") as caught, translated("creating"):
        try:
            sagemaker_fails("AccessDeniedException", "not authorized to look")
        except aws.ClientError:
            raise aws.EndpointConnectionError(endpoint_url="http://127.0.0.1")  # noqa: B904
    assert caught.type is not AccessDeniedError


def test_a_refusal_that_is_expected_is_no_error():
    asked = []

    def missing(code, message):
        asked.append((code, message))
        return code == "ValidationException" and "could not find" in message

    def describe(answer):
        return attempt(
            "describing", sagemaker_fails, expected=missing, code=answer[0], message=answer[1]
        )

    assert describe(("ValidationException", "Could not find model.")) is None
    with refused(SageMakerError, "describing", "too long"):
        describe(("ValidationException", "Name too long"))
    with refused(AccessDeniedError, "describing", "Could not find"):
        describe(("AccessDeniedException", "Could not find out who you are"))
    assert [code for code, _ in asked] == ["ValidationException"] * 2 + ["AccessDeniedException"]
    assert all(message == message.lower() for _, message in asked)
    assert attempt("adding", lambda a, b: a + b, expected=missing, a=1, b=2) == 3


def test_an_attempt_passes_on_what_is_not_amazons():
    def fail():
        raise ValueError("could not find it")

    with pytest.raises(ValueError, match="could not find it"):
        attempt("trying", fail, expected=lambda code, message: True)


def test_a_request_that_botocore_itself_refuses_is_told_in_one_line():
    with refused(SageMakerError, "asking", "TrainingJobName"), translated("asking"):
        client("sagemaker").describe_training_job(TrainingJobName=7)


# --- clients ------------------------------------------------------------------------------------


def test_clients_that_are_given_are_used_as_they_are():
    s3, other = client("s3"), client("sagemaker")
    clients = Clients(given={"s3": s3, "sagemaker": other})
    assert clients["s3"] is s3 and clients["sagemaker"] is other
    assert clients.region == "us-east-1"
    with refused(ValueError, "dynamodb", "s3", "sagemaker", "logs"):
        Clients(given={"dynamodb": s3})


def test_clients_are_made_once_and_retry():
    own = boto3.Session(region_name="us-west-2", **KEYS)
    clients = Clients(own)
    for service in ("s3", "sagemaker", "logs"):
        made = clients[service]
        assert made is clients[service]
        assert made.meta.region_name == "us-west-2"
        retries = made.meta.config.retries
        assert retries["mode"] in ("standard", "adaptive")
        assert retries["total_max_attempts"] > 3
    assert clients.region == "us-west-2"
    assert Clients(own, "eu-west-3")["logs"].meta.region_name == "eu-west-3"


@pytest.mark.parametrize("hidden", ["boto3", "botocore"])
def test_without_boto3_the_extra_is_named(hidden, monkeypatch):
    real = builtins.__import__

    def hiding(name, *arguments, **named):
        if name == hidden or name.startswith(f"{hidden}."):
            raise ModuleNotFoundError(f"No module named {hidden!r}", name=hidden)
        return real(name, *arguments, **named)

    store = Store(Clients(region="us-east-1"), "bucket", "run", {})
    monkeypatch.setattr(builtins, "__import__", hiding)
    for call in (
        lambda: Clients(region="us-east-1")["s3"],
        lambda: store.upload("a", [b"x"]),
        lambda: store.keys(),
        lambda: store.read("a", 1),
        lambda: store.remove(),
    ):
        with refused(MissingExtraError, "boto3", "pip install", "fmknn[sagemaker]"):
            call()


def test_boto3_is_imported_when_it_is_needed_and_not_before():
    code = (
        "import sys; import fmknn; from fmknn.backends.sagemaker.backend import SageMakerBackend; "
        "SageMakerBackend('arn:aws:iam::123456789012:role/Train', 'bucket'); "
        "print([m for m in ('boto3', 'botocore') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# --- addresses ----------------------------------------------------------------------------------


def test_addresses_of_objects():
    assert split_uri("s3://b/k") == ("b", "k")
    assert split_uri("s3://b/a/b//c d?e#f%20/") == ("b", "a/b//c d?e#f%20/")
    for wrong in ("", "b/k", "s3:/b/k", "s3://", "s3://b", "s3://b/", "s3:///k", "S3://b/k",
                  "https://b.s3.amazonaws.com/k", "s4://b/k", "/tmp/k"):  # fmt: skip
        with refused(ValueError, "s3://bucket/key", repr(wrong)):
            split_uri(wrong)


# --- streams ------------------------------------------------------------------------------------


CHUNKS = st.lists(st.binary(max_size=12), max_size=8)


@given(chunks=CHUNKS, sizes=st.lists(st.integers(0, 15), max_size=20))
def test_a_stream_gives_what_was_asked_for_and_less_only_at_the_end(chunks, sizes):
    whole, stream, at = b"".join(chunks), _Stream(iter(chunks)), 0
    for size in sizes:
        got = stream.read(size)
        assert isinstance(got, bytes) and got == whole[at : at + size]
        at += len(got)
    assert stream.read() == whole[at:]
    assert stream.read() == b"" and stream.read(3) == b""


@given(chunks=CHUNKS, ask=st.sampled_from([(), (None,), (-1,)]))
def test_a_stream_is_read_whole(chunks, ask):
    assert _Stream(chunks).read(*ask) == b"".join(chunks)


def test_a_stream_takes_no_more_than_it_needs():
    taken = []

    def chunks():
        for number in range(10):
            taken.append(number)
            yield bytes([number]) * 4

    stream = _Stream(chunks())
    assert stream.readable() and not stream.seekable() and not stream.writable()
    assert taken == []
    assert stream.read(6) == b"\0\0\0\0\1\1"
    assert taken == [0, 1]


# --- objects in S3 --------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with moto.mock_aws():
        made = client("s3")
        for bucket in ("bucket", "other"):
            made.create_bucket(Bucket=bucket)
        yield made


@pytest.fixture
def store(s3):
    return Store(Clients(given={"s3": s3}), "bucket", "pre/run", {"fmknn:run": "r", "a": "b c=+"})


def stored(s3, bucket="bucket"):
    """Every object of a bucket by key."""
    return {
        entry["Key"]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", ())
    }


def unfinished(s3):
    return s3.list_multipart_uploads(Bucket="bucket").get("Uploads", [])


@pytest.mark.parametrize(
    "chunks",
    [[], [b""], [b"abc"], [b"", b"a", b"", b"bc", b""], [b"x" * 1000] * 50],
    ids=["none", "empty", "one", "with empty ones", "many"],
)
def test_small_objects_arrive_whole(store, s3, chunks):
    store.upload("in/part-00000.pbr", iter(chunks))
    assert stored(s3) == {"pre/run/in/part-00000.pbr": b"".join(chunks)}
    assert store.read("in/part-00000.pbr", 10**6) == b"".join(chunks)
    assert unfinished(s3) == []


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART + 12345])
def test_objects_around_the_size_of_a_part_arrive_whole(store, s3, size):
    pattern = bytes(range(251)) * (size // 251 + 1)
    data, step = pattern[:size], 3_000_017
    store.upload("big", (data[at : at + step] for at in range(0, size, step)))
    assert store.read("big", size) == data
    assert unfinished(s3) == []


def test_one_chunk_of_several_parts_arrives_whole(store):
    data = bytes(range(256)) * (2 * PART // 256 + 1)
    store.upload("big", [data])
    assert store.read("big", len(data)) == data


def test_a_large_object_is_tagged_too(store, s3):
    for key, size in (("small", 3), ("large", PART + 1)):
        store.upload(key, [bytes(size)])
        tags = s3.get_object_tagging(Bucket="bucket", Key=f"pre/run/{key}")["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"fmknn:run": "r", "a": "b c=+"}


def test_objects_are_encrypted_by_the_key_that_was_given(s3):
    store = Store(Clients(given={"s3": s3}), "bucket", "p", {}, "alias/mine")
    for key, size in (("small", 3), ("large", PART + 1)):
        store.upload(key, [bytes(size)])
        head = s3.head_object(Bucket="bucket", Key=f"p/{key}")
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"] == "alias/mine"


@pytest.mark.parametrize("sent", [0, 10, PART, PART + 10, 2 * PART + 10])
def test_chunks_that_break_off_leave_nothing(store, s3, sent):
    error = ValueError("row 7 is bad")

    def chunks():
        for at in range(0, sent, 2**20):
            yield bytes(min(2**20, sent - at))
        raise error

    with pytest.raises(ValueError) as caught:
        store.upload("in/part", chunks())
    assert caught.value is error
    assert stored(s3) == {}
    assert unfinished(s3) == []


def test_chunks_that_break_off_leave_the_former_object(store):
    def chunks():
        yield b"new"
        raise ValueError("no more")

    store.upload("a", [b"old"])
    with pytest.raises(ValueError, match="no more"):
        store.upload("a", chunks())
    assert store.read("a", 10) == b"old"


def test_writing_where_there_is_no_bucket_is_refused(s3):
    store = Store(Clients(given={"s3": s3}), "absent", "p", {})
    for size in (3, PART + 1):
        with refused(TransferError, "writing s3://absent/p/a", "NoSuchBucket", "bucket"):
            store.upload("a", [bytes(size)])
    with refused(TransferError, "s3://absent/p/", "NoSuchBucket"):
        store.keys()
    with refused(TransferError, "s3://absent/p/a", "NoSuchBucket"):
        store.read("a", 10)
    with refused(TransferError, "s3://absent/p/", "NoSuchBucket"):
        store.remove()


def test_keys_are_those_below_the_prefix_in_order(store, s3):
    s3.put_object(Bucket="other", Key="pre/run/in/x", Body=b"")
    for key in ("pre/run2/in/a", "pre/running", "pre/run", "run/in/a", "x/pre/run/in/a"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    for key in ("in/b", "in/a", "in2/a", "out/z y+ü%.out", "a"):
        store.upload(key, [b"1"])
    assert store.keys() == sorted(["in/b", "in/a", "in2/a", "out/z y+ü%.out", "a"])
    assert store.keys("in/") == ["in/a", "in/b"]
    assert store.keys("in") == ["in/a", "in/b", "in2/a"]
    assert store.keys("none/") == []
    assert store.read("out/z y+ü%.out", 1) == b"1"


def test_an_address_is_what_the_job_is_told(store):
    assert store.uri("in/") == "s3://bucket/pre/run/in/"
    store.upload("in/a", [b"1"])
    assert split_uri(store.uri("in/a")) == ("bucket", "pre/run/in/a")


def test_reading_keeps_to_its_bounds(store, s3):
    store.upload("a", [b"12345"])
    clients = Clients(given={"s3": s3})
    assert store.read("a", 5) == b"12345" == read_object(clients, store.uri("a"), 10**12)
    for bound in (4, 0):
        with refused(TransferError, store.uri("a"), 5, bound, "max_bytes"):
            store.read("a", bound)
    with refused(TransferError, store.uri("b"), "NoSuchKey"):
        store.read("b", 5)
    with refused(ValueError, "s3://"):
        read_object(clients, "https://bucket/a", 5)


def test_an_object_that_comes_in_part_is_refused():
    cut = answered("s3", 200, b"only this", [("content-length", "1000")])
    with refused(TransferError, "reading s3://bucket/run/a", "try again"):
        Store(Clients(given={"s3": cut}), "bucket", "run", {}).read("a", 10**6)


def test_removing_takes_what_lies_below_and_nothing_else(store, s3):
    s3.put_object(Bucket="other", Key="pre/run/a", Body=b"")
    for key in ("pre/run2/a", "pre/running", "pre/run"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    for key in ("in/a", "in/b", "in2/a", "c d+ü"):
        store.upload(key, [b"1"])
    store.remove(keep=[store.uri("in2/a"), store.uri("nothing")])
    assert store.keys() == ["in2/a"]
    store.remove()
    store.remove()
    assert store.keys() == []
    assert sorted(stored(s3)) == ["pre/run", "pre/run2/a", "pre/running"]
    assert list(stored(s3, "other")) == ["pre/run/a"]


def test_removing_ends_uploads_that_were_never_finished(store, s3):
    for key in ("pre/run/in/a", "pre/run/in/b", "pre/run2/a"):
        upload = s3.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
        s3.upload_part(Bucket="bucket", Key=key, UploadId=upload, PartNumber=1, Body=b"x")
    store.remove()
    assert [upload["Key"] for upload in unfinished(s3)] == ["pre/run2/a"]


@pytest.mark.slow
def test_more_objects_than_one_call_lists_or_deletes(store, s3):
    names = [f"{number:05d}" for number in range(2101)]
    for name in names:
        s3.put_object(Bucket="bucket", Key=f"pre/run/out/{name}", Body=b"")
    assert store.keys("out/") == [f"out/{name}" for name in names]
    store.remove()
    assert stored(s3) == {}


def test_what_could_not_be_deleted_is_told():
    listing = (
        "<ListBucketResult><Contents><Key>run/a</Key></Contents><IsTruncated>false</IsTruncated>"
        "</ListBucketResult>"
    )
    refusal = (
        "<DeleteResult><Error><Key>run/a</Key><Code>AccessDenied</Code>"
        "<Message>Access Denied</Message></Error></DeleteResult>"
    )
    made = client("s3")

    def answer(request, **_):
        body = refusal if "delete" in urllib.parse.urlsplit(request.url).query else listing
        return AWSResponse(request.url, 200, {}, Raw(body.encode()))

    made.meta.events.register("before-send", answer)
    with refused(SageMakerError, "s3://bucket/run/a", "AccessDenied"):
        Store(Clients(given={"s3": made}), "bucket", "run", {}).remove()


@given(tags=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=4))
@settings(max_examples=20)
def test_tags_are_sent_as_a_query(tags):
    sent = []
    made = client("s3")

    def answer(request, **_):
        header = request.headers["x-amz-tagging"]
        sent.append(header.decode() if isinstance(header, bytes) else header)
        return AWSResponse(request.url, 200, {}, Raw(b""))

    made.meta.events.register("before-send", answer)
    Store(Clients(given={"s3": made}), "bucket", "run", tags).upload("a", [b"1"])
    (header,) = sent
    assert re.fullmatch(r"[\x21-\x7e]*", header)
    assert dict(urllib.parse.parse_qsl(header, keep_blank_values=True)) == tags
