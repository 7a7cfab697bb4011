"""Exceptions that have no built-in name. All are one line: what was wrong, what to do."""

from __future__ import annotations

__all__ = [
    "DataNotFoundError",
    "DivergenceError",
    "MissingExtraError",
    "ModelFileError",
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
