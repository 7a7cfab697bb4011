"""csv and Parquet files in, Interactions and ids of the right type out."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..data.features import FeatureTable
from ..data.frames import columns_of
from ..data.ids import IdMap
from ..data.interactions import Interactions
from ..errors import MissingExtraError
from ..recommender import Recommender

__all__ = ["evaluation_data", "ids_as_in", "lines_of", "training_data"]

# "007" and "+7" are not 7: they are text. 18 digits surely fit into 64 bits.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def training_data(args: Namespace, *, without_values: bool = False) -> Interactions:
    """Read the ratings and the feature files that the arguments of ``fit`` name."""
    _require_distinct_columns(args)
    columns = (args.user, args.item, *args.context)
    named = None if without_values else args.value
    ratings = _Table(args.ratings, ids=columns, numbers=(named, args.weight))
    value = None if without_values else _value_column(args, ratings)
    for name in args.context:
        _settle_types([(ratings, name)])
    features = {
        f"{what}_features": _features(ratings, what, getattr(args, what), path)
        for what, path in (("user", args.user_features), ("item", args.item_features))
    }
    return ratings.interactions(
        user=args.user,
        item=args.item,
        value=value,
        weight=args.weight,
        timestamp=args.timestamp,
        context=args.context,
        **features,
    )


def _require_distinct_columns(args: Namespace) -> None:
    roles = [("--user", args.user), ("--item", args.item), ("--value", args.value)]
    role_of: dict[str, str] = {}
    for role, name in [*roles, *(("--context", name) for name in args.context)]:
        if name in role_of:
            raise ValueError(f"column {name!r} is named twice, by {role_of[name]} and {role}")
        role_of[name] = role


def _features(ratings: _Table, what: str, id_column: str, path: str | None) -> FeatureTable | None:
    """Read one feature file, and settle the type of the ids it shares with the ratings."""
    if path is None:
        _settle_types([(ratings, id_column)])
        return None
    names = tuple(dict.fromkeys((id_column, "id", what, f"{what}_id")))  # as from_any knows them
    table = _Table(path, ids=names)
    _settle_types([(ratings, id_column), *((table, name) for name in names)])
    with _naming(path):
        return FeatureTable.from_any(table.columns, what, id_column)


def evaluation_data(args: Namespace, model: Recommender) -> Interactions:
    """Read the rows that the arguments of ``evaluate`` name; context columns are the model's."""
    _require_distinct_columns(args)
    context = args.context or list(model.contexts)
    table = _Table(args.test, ids=(args.user, args.item, *context), numbers=(args.value,))
    known = {args.user: model.users, args.item: model.items, **model.contexts}
    with _naming(args.test):
        for name in table.texts & known.keys():
            table.columns[name] = ids_as_in(known[name], table.columns[name].tolist())
    value = _value_column(args, table)
    return table.interactions(user=args.user, item=args.item, value=value, context=context)


def _value_column(args: Namespace, table: _Table) -> str | None:
    """Return what was named; events need no values, so that the default may be absent."""
    absent = args.value == "rating" and "rating" not in table.columns
    return None if absent else args.value


class _Table:
    """The columns of a csv or Parquet file.

    A csv file doesn't know the types of its ids: their columns, named in ``texts``, stay text until
    all that belongs together has been seen.
    """

    def __init__(
        self, path: str, *, ids: Sequence[str], numbers: Sequence[str | None] = ()
    ) -> None:
        readers = {".csv": _read_csv, ".parquet": _read_parquet}
        read = readers.get(Path(path).suffix.lower())
        if read is None:
            raise ValueError(f"{path}: name a file that ends in {' or '.join(readers)}")
        _require_arrow()
        with _naming(path), open(path, "rb") as file:
            self.columns = columns_of(read(file, ids, [name for name in numbers if name]))
        self.path = path
        self.texts = {name for name in ids if name in self.columns and read is _read_csv}

    def interactions(self, **columns: Any) -> Interactions:
        with _naming(self.path):
            return Interactions.from_frame(self.columns, **columns)


def _require_arrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "csv and Parquet files are read with pyarrow: pip install 'fmknn[arrow]'"
        ) from None


def _read_csv(file: Any, ids: Sequence[str], numbers: Sequence[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    types = dict.fromkeys(ids, pa.string()) | dict.fromkeys(numbers, pa.float64())
    table = csv.read_csv(
        file,
        csv.ReadOptions(use_threads=False),  # with threads, errors don't name the row
        convert_options=csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True
        ),
    )
    for name in numbers:
        once = table.column_names.count(name) == 1  # or somebody else refuses it
        if once and table[name].null_count:
            row = table[name].is_null().index(True).as_py() + 2
            raise ValueError(f"column {name!r} is empty in row {row} (the header is row 1)")
    return table


def _read_parquet(file: Any, ids: Sequence[str], numbers: Sequence[str]) -> Any:
    from pyarrow import parquet

    return parquet.read_table(file)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the name of the file before what is wrong with its content."""
    try:
        yield
    except Exception as error:
        if getattr(error, "filename", None) is not None:  # it could not even be opened
            raise
        raise ValueError(f"{path}: {error}") from error


def _settle_types(places: list[tuple[_Table, str]]) -> None:
    """Turn text into integers, if all of the ids that belong together are written as integers."""
    places = [(table, name) for table, name in places if name in table.columns]
    texts = [(table, name) for table, name in places if name in table.texts]
    typed = [table.columns[name] for table, name in places if name not in table.texts]
    if any(column.dtype.kind == "O" for column in typed):
        return
    if all(_first_text(table.columns[name]) is None for table, name in texts):
        for table, name in texts:
            table.columns[name] = table.columns[name].astype(np.int64)


def _first_text(ids: Sequence[Any] | np.ndarray) -> int | None:
    """The place of the first id that isn't an integer; None if all are."""
    for place, text in enumerate(ids):
        if text is None or not _INTEGER.fullmatch(text):
            return place
    return None


def ids_as_in(ids: IdMap, texts: Sequence[str | None]) -> np.ndarray:
    """Return ids that came as text, of the type that the model has them in.

    Raises
    ------
    TypeError
        For one that isn't an integer where the model's are.
    """
    column = np.array(texts, dtype=object)
    if ids.ids.dtype.kind != "i":
        return column
    place = _first_text(texts)
    if place is not None:
        raise TypeError(
            f"{ids.what} id {texts[place]!r} (number {place + 1}) is not an integer, "
            "as the model's are"
        )
    return column.astype(np.int64)


def lines_of(path: str) -> list[str]:
    """Return the ids in a text file, one per line.

    Raises
    ------
    ValueError
        If there are none.
    """
    with _naming(path), open(path, encoding="utf-8-sig") as file:
        ids = [line.strip() for line in file if line.strip()]
        if not ids:
            raise ValueError("there are no ids in it, write one per line")
    return ids
