"""Checks of arguments that every room needs."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plain", "refuse_masked", "require_bool", "require_count", "require_number"]


def plain(value: Any) -> Any:
    """Return one of numpy's scalars as Python's own, and anything else as it is.

    Parameters
    ----------
    value : object

    Returns
    -------
    object

    Examples
    --------
    >>> plain(np.int64(3))
    3
    """
    return value.item() if isinstance(value, np.generic) else value


def refuse_masked(name: str, values: Any) -> None:
    """Refuse an array with masked entries: numpy would pass on what lies under the mask.

    Raises
    ------
    ValueError
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries: fill them or leave their rows out")


def require_bool(name: str, value: Any) -> bool:
    """Return True or False as it is, refusing anything else: "no" would be taken as true.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : bool
        numpy's own counts; 0 and 1 do not.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> require_bool("shuffle", False)
    False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def require_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number as an int, refusing anything else.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : int
        numpy's integers count; booleans, floats and text do not.
    least : int
        The smallest number allowed.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is no integer, or too small.

    Examples
    --------
    >>> require_count("n", 3)
    3
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def require_number(name: str, value: Any, most: float) -> None:
    """Refuse what is no number from 0 to ``most``, NaN among it.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : object
    most : float

    Raises
    ------
    ValueError
    """
    real = int, float, np.integer, np.floating
    is_number = isinstance(value, real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}, got {value!r}")
