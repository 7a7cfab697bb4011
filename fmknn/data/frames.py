"""Data frames of any kind in and out, through narwhals. Nothing else imports it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import refuse_masked
from ..errors import MissingExtraError

__all__ = [
    "FRAME_LIBRARIES",
    "as_array",
    "as_column",
    "as_library",
    "categories_of",
    "columns_of",
    "frame_from",
    "is_missing",
    "library_of",
]

FRAME_LIBRARIES = ("pandas", "polars", "pyarrow")
_MULTI_VALUED = (list, tuple, set, frozenset, np.ndarray)


def columns_of(frame: Any, what: str = "frame") -> dict[str, np.ndarray]:
    """Return the columns of a data frame (pandas, polars, pyarrow, …) or mapping as arrays.

    Parameters
    ----------
    frame : data frame or mapping
        A mapping goes from column names to sequences.
    what : str
        How error messages call it.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    TypeError
        If it is neither, or a column is named by a number or a tuple.
    ValueError
        If two columns have the same name.
    """
    if isinstance(frame, Mapping):
        return {str(name): as_column(values) for name, values in frame.items()}
    native = _narwhals(frame, what)
    return {series.name: _column_of_frame(series) for series in native.iter_columns()}


def categories_of(frame: Any) -> list[str]:
    """Return the names of the columns that the frame itself declares as categories.

    Parameters
    ----------
    frame : data frame or mapping
        As for :func:`columns_of`. A mapping declares none.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(frame, Mapping):
        return []
    import narwhals as nw

    schema = _narwhals(frame, "frame").schema
    return [name for name, dtype in schema.items() if isinstance(dtype, (nw.Categorical, nw.Enum))]


def library_of(frame: Any) -> str | None:
    """Return which library a data frame is of, if :func:`frame_from` can build one of its kind.

    Parameters
    ----------
    frame : data frame or mapping
        As for :func:`columns_of`.

    Returns
    -------
    {"pandas", "polars", "pyarrow"} or None

    Raises
    ------
    TypeError
        If it is neither.

    Examples
    --------
    >>> import polars
    >>> library_of(polars.DataFrame({"user": [1]}))
    'polars'
    """
    if isinstance(frame, Mapping):
        return None
    name: str = _narwhals(frame, "frame").implementation.value
    return name if name in FRAME_LIBRARIES else None


def as_library(name: Any) -> str | None:
    """Return the name of a library that :func:`frame_from` can build frames of, or None for None.

    Raises
    ------
    ValueError
        For anything else.
    """
    if name is not None and name not in FRAME_LIBRARIES:
        raise ValueError(f"library must be one of {', '.join(FRAME_LIBRARIES)}, got {name!r}")
    return name


def _narwhals(frame: Any, what: str) -> Any:
    import narwhals as nw

    try:
        native = nw.from_native(frame, eager_only=True)
        names = list(native.columns)
    except nw.exceptions.DuplicateError as error:
        which = ", ".join(str(error).split("\n- ")[1:])
        raise ValueError(f"{what} has columns of the same name, {which}: rename them") from None
    except TypeError:
        raise TypeError(
            f"{what} must be a data frame (pandas, polars, pyarrow) or a mapping of columns, "
            f"got {type(frame).__name__}"
        ) from None
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} has a column {name!r}: columns must be named by text")
    return native


def as_column(values: Any) -> np.ndarray:
    """Return a one-dimensional array; multi-valued rows become an object array of tuples.

    Columns of pandas, polars and pyarrow are taken as well as sequences.
    """
    refuse_masked("a column", values)
    if hasattr(values, "__array__"):
        array = as_array(values)
        if array.dtype != object or array.ndim != 1:
            return array
        values = array
    values = list(values)
    if not any(isinstance(value, (str, *_MULTI_VALUED)) for value in values):
        return np.asarray(values)
    # np.asarray would make a table of lists of one length, and strings of everything beside one
    return np.fromiter((_value(value) for value in values), object, len(values))


def as_array(values: Any) -> np.ndarray:
    """Return values as numpy has them, but where a column of numbers has gaps, None among them.

    numpy's own way makes NaN of them, which a column may hold as well.

    Parameters
    ----------
    values : array-like

    Returns
    -------
    ndarray
    """
    if isinstance(values, np.ndarray) or not hasattr(values, "__array__"):
        return np.asarray(values)
    import narwhals as nw

    series = nw.from_native(values, series_only=True, pass_through=True)
    gappy = _numbers_with_gaps(series) if isinstance(series, nw.Series) else None
    return np.asarray(values) if gappy is None else gappy


def _numbers_with_gaps(series: Any) -> np.ndarray | None:
    """Return a column of numbers with None in it as objects; NaN alone, pandas' gap, is none."""
    if not series.dtype.is_numeric() or not series.null_count():
        return None
    array = np.array(series.to_list(), dtype=object)
    return None if all(isinstance(value, float) for value in array) else array


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (set, frozenset)):  # no order of its own
        value = sorted(value, key=str)
    return tuple(value) if isinstance(value, _MULTI_VALUED) else value


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, or pandas' NA and NaT."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _column_of_frame(series: Any) -> np.ndarray:
    import narwhals as nw

    if isinstance(series.dtype, (nw.List, nw.Array, nw.Object, nw.String, nw.Categorical, nw.Enum)):
        return as_column(series.to_list())
    gappy = _numbers_with_gaps(series)
    return series.to_numpy() if gappy is None else as_column(gappy)


def frame_from(
    columns: Mapping[str, Any], library: str | None = None, *, preferred: str | None = None
) -> Any:
    """Build a data frame from columns.

    Parameters
    ----------
    columns : mapping of str to array
    library : {"pandas", "polars", "pyarrow"}, optional
        Default: the preferred one, or else the first of these that is installed.
    preferred : {"pandas", "polars", "pyarrow"}, optional
        What the data came in; it may not be installed any more.

    Raises
    ------
    MissingExtraError
        If none is installed, or the one asked for is not.
    ValueError
        For another library.
    """
    asked = as_library(library)
    names = [asked] if asked else sorted(FRAME_LIBRARIES, key=lambda name: name != preferred)
    for name in names:
        if importlib.util.find_spec(name) is not None:
            import narwhals as nw

            backend: Any = name
            return nw.from_dict(dict(columns), backend=backend).to_native()
    raise MissingExtraError(
        f"a data frame needs {' or '.join(names)}: pip install {names[0]} "
        "(or 'fmknn[arrow]' for pyarrow)"
    )
