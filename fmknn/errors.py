"""Exceptions that have no built-in name. All are one line: what was wrong, what to do."""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "AnswerError",
    "CredentialsError",
    "DataNotFoundError",
    "DivergenceError",
    "JobFailedError",
    "JobStoppedError",
    "JobTimeoutError",
    "MissingExtraError",
    "ModelFileError",
    "QuotaError",
    "SageMakerError",
    "ThrottledError",
    "TransferError",
    "UnknownIdError",
]


class UnknownIdError(KeyError, ValueError):
    """A user, item or context id that the model has never seen.

    Examples
    --------
    >>> raise UnknownIdError("user 7 is unknown")
    Traceback (most recent call last):
    ...
    fmknn.errors.UnknownIdError: user 7 is unknown
    """

    def __str__(self) -> str:  # KeyError would show the repr, quotes and all
        return str(self.args[0]) if self.args else ""


class ModelFileError(ValueError):
    """A saved file that is damaged, not fmknn's, or of a newer format."""


class DivergenceError(ArithmeticError):
    """Training produced NaN or infinity: names the iteration and what to change."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed: names the extra that brings it."""


class DataNotFoundError(OSError):
    """A data set could not be had: says what was tried and where to put the file."""


class SageMakerError(RuntimeError):
    """Amazon SageMaker refused or failed: says what was asked, why, and what to do."""


class CredentialsError(SageMakerError):
    """AWS credentials or region are missing, wrong or expired."""


class AccessDeniedError(SageMakerError):
    """The caller or the role lacks a right: names it."""


class QuotaError(SageMakerError):
    """The account's limit does not allow the job."""


class ThrottledError(SageMakerError):
    """AWS went on refusing calls for their rate, whatever the retries."""


class TransferError(SageMakerError):
    """An object could not be written to S3 or read from it."""


class JobFailedError(SageMakerError):
    """A job ended as Failed: carries SageMaker's reason."""


class JobStoppedError(SageMakerError):
    """A job was stopped, by its time limit or by somebody; what it left is not a result."""


class JobTimeoutError(SageMakerError, TimeoutError):
    """A job did not end before the deadline and was stopped."""


class AnswerError(SageMakerError, ValueError):
    """Answers that are incomplete, not readable, or not what was asked for."""
