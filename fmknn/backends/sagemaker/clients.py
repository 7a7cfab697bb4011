"""AWS's services through boto3, and their failures as errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import (
    AccessDeniedError,
    CredentialsError,
    MissingExtraError,
    QuotaError,
    SageMakerError,
    ThrottledError,
    TransferError,
)

__all__ = ["Clients", "attempt", "listed", "translated"]

_ATTEMPTS = 8  # of each call, with growing pauses between them

_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_DENIED = {"403", "AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"}
_THROTTLED = {
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_MISSING = {"404", "NoSuchBucket", "NoSuchKey"}


class Clients:
    """The clients of S3, SageMaker and CloudWatch Logs, made when they are first used.

    Parameters
    ----------
    session : boto3.Session, optional
        Default: boto3's own, from environment and configuration files.
    region : str, optional
    given : mapping of str to client, optional
        Clients to use as they are, under the names "s3", "sagemaker" and "logs".
    """

    def __init__(
        self, session: Any = None, region: str | None = None, given: Mapping[str, Any] | None = None
    ) -> None:
        self._session = session
        self._region = region
        self._clients: dict[str, Any] = dict(given or {})
        unknown = set(self._clients) - {"s3", "sagemaker", "logs"}
        if unknown:
            raise ValueError(f"unknown client {min(unknown)!r}: there are s3, sagemaker and logs")

    def __getitem__(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._make(service)
        return self._clients[service]

    def _make(self, service: str) -> Any:
        with translated(f"connecting to {service}"):
            import boto3
            from botocore.config import Config

            retries = Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS})
            if self._session is None:
                self._session = boto3.Session()
            return self._session.client(service, region_name=self._region, config=retries)

    @property
    def region(self) -> str:
        """The region that jobs run in."""
        return str(self._region or self["sagemaker"].meta.region_name)


def attempt(
    what: str, call: Callable[..., Any], *, expected: Callable[[str, str], bool], **arguments: Any
) -> Any:
    """Call AWS and return its answer, or None where it refuses in an expected way.

    Parameters
    ----------
    what : str
        What is being done, for errors.
    call : callable
        A method of a client.
    expected : callable
        Whether a refusal, by its code and its message in lower case, is one.
    **arguments
        Of the call.

    Raises
    ------
    SageMakerError
        For any other refusal or failure, as :func:`translated`.
    """
    with translated(what):
        try:
            return call(**arguments)
        except Exception as error:
            code = _code(error)
            if code and expected(code, str(error).lower()):
                return None
            raise


def listed(clients: Clients, operation: str, field: str, beginning: str) -> list[dict[str, Any]]:
    """Return what SageMaker lists under names with this beginning.

    Parameters
    ----------
    clients : Clients
    operation : str
        A list call, like "list_models".
    field : str
        Where the answer has the entries.
    beginning : str
    """
    name = {"TrainingJobSummaries": "TrainingJobName", "TransformJobSummaries": "TransformJobName"}
    with translated(f"listing what begins with {beginning}"):
        pages = clients["sagemaker"].get_paginator(operation).paginate(NameContains=beginning)
        entries = [entry for page in pages for entry in page[field]]
    key = name.get(field, "ModelName")
    return [entry for entry in entries if entry[key].startswith(beginning)]


def _code(error: BaseException) -> str:
    """Return the code that AWS gave an error, or "" where it is none of AWS's."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return ""
    return str(response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise errors of boto3 as fmknn's own, in one line that begins with what was being done.

    Raises
    ------
    CredentialsError, AccessDeniedError, QuotaError, ThrottledError, TransferError, SageMakerError
    MissingExtraError
        If boto3 is not installed.
    """
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    except ImportError as error:
        raise MissingExtraError("SageMaker needs boto3: pip install 'fmknn[sagemaker]'") from error

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, HTTPClientError) as error:
        raise _translation(what, error) from error


def _translation(what: str, error: BaseException) -> SageMakerError:
    wrapped = error.__cause__ or error.__context__
    if wrapped is not None and type(error).__name__ == "S3UploadFailedError":
        error = wrapped  # boto3's own wrapping of what failed in an upload
    kind, advice = _kind(error)
    code = _code(error)
    message = getattr(error, "response", {})["Error"].get("Message", "") if code else str(error)
    message = " ".join(str(message).split()).rstrip(".")
    told = f"{code}: {message}" if code else message
    return kind(f"{what} failed: {told}{': ' if advice else ''}{advice}")


def _kind(error: BaseException) -> tuple[type[SageMakerError], str]:
    """Return the type of error and the advice for what boto3 raised."""
    names = {kind.__name__ for kind in type(error).__mro__}
    code = _code(error)
    if code in _CREDENTIALS or names & {
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }:
        return CredentialsError, "log in anew (aws configure, aws sso login) and try again"
    if "NoRegionError" in names:
        return CredentialsError, "pass region=…"
    if code in _DENIED:
        return AccessDeniedError, "ask for this right, for yourself or for the role of the job"
    if code == "ResourceLimitExceeded":
        return QuotaError, "ask AWS for a higher limit, or take another instance_type"
    if code in _THROTTLED:
        return ThrottledError, "wait a little and try again"
    if code in _MISSING:
        return TransferError, "check the bucket and the key"
    if names & {
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "RetriesExceededError",
        "S3UploadFailedError",
    }:
        return TransferError, "check the connection and try again"
    if code == "ValidationException" and "No S3 objects found" in str(error):
        return (
            TransferError,
            "check that the role may list the bucket and that both are in one region",
        )
    return SageMakerError, ""
