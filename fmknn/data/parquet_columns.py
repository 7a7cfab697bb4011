"""The columns of Parquet files as those of interactions, some rows at a time."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .array_files import ArrayWriter
from .columns import times_in
from .ids import IdMap
from .stored import write_ids
from .stored_manifest import Manifest

__all__ = ["ParquetRows", "parquet_files", "write_columns"]

_AT_ONCE = 1 << 20  # rows


def parquet_files(path: Any) -> list[Path]:
    """Return the files that a path, a folder, a pattern or a list of paths stands for, in order.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    if isinstance(path, (list, tuple)):
        return [file for one in path for file in parquet_files(one)]
    one = Path(path)
    if one.is_dir():
        found = sorted(one.glob("*.parquet"))
    elif one.exists():
        found = [one]
    else:
        found = sorted(Path(name) for name in glob.glob(os.fspath(path)))
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no Parquet files here", os.fspath(path))
    return found


@dataclass
class ParquetRows:
    """The named columns of Parquet files, one file after the other.

    Attributes
    ----------
    files : sequence of Path
    ids : sequence of (str, str)
        What the ids stand for ("user", "item", each context), and the columns that hold them.
    numbers : dict of str to str
        "values", "weights" and "timestamps", as far as there are any, and their columns.
    whats, columns : dict of str to str
        What ids stand for, and all columns, by the names that they have in a folder.
    """

    files: Sequence[Path]
    ids: Sequence[tuple[str, str]]
    numbers: Mapping[str, str]
    whats: dict[str, str] = field(init=False)
    columns: dict[str, str] = field(init=False)
    kinds: dict[str, Any] = field(init=False, default_factory=dict)  # arrow types of ids
    n_rows: int = field(init=False, default=0)
    _time_type: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.whats = {f"codes{number}": what for number, (what, _) in enumerate(self.ids)}
        own = {f"codes{number}": column for number, (_, column) in enumerate(self.ids)}
        self.columns = {**own, **self.numbers}
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        for file in self.files:
            try:
                parquet = pq.ParquetFile(file)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{file} is no Parquet file: {error}".splitlines()[0]) from error
            with parquet:
                self._check(file, parquet.schema_arrow)
                self.n_rows += parquet.metadata.num_rows
        if not self.n_rows:
            raise ValueError("there are no interactions: the data is empty")

    def _check(self, file: Path, schema: Any) -> None:
        for key, name in self.columns.items():
            if name not in schema.names:
                there = ", ".join(schema.names)
                raise ValueError(f"no column {name!r} in {file}: there are {there}")
            if key not in self.whats:
                continue
            kind = self._id_type(schema.field(name).type, self.whats[key])
            if self.kinds.setdefault(key, kind) != kind:
                raise TypeError(
                    f"{self.whats[key]} ids are integers in one file and strings in another: "
                    f"{name!r} is {kind} in {file}"
                )

    def _id_type(self, own: Any, what: str) -> Any:
        types = self._pa.types
        if types.is_dictionary(own):
            own = own.value_type
        if types.is_integer(own):
            return self._pa.int64()
        is_view = getattr(types, "is_string_view", lambda _: False)
        if types.is_string(own) or types.is_large_string(own) or is_view(own):
            return self._pa.large_string()
        raise TypeError(f"{what} ids must be integers or strings, got {own}: convert them")

    def batches(self, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Give the next rows: ids as arrow arrays, numbers as numpy's; about a million at once."""
        import pyarrow.parquet as pq

        names = list(dict.fromkeys(self.columns[key] for key in wanted))
        held: dict[str, list[Any]] = {key: [] for key in wanted}
        first = n_held = 0
        for file in self.files:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_AT_ONCE, columns=names):
                    for key in wanted:
                        column = batch.column(self.columns[key])
                        held[key].append(self._converted(key, column, first))
                    first += len(batch)
                    n_held += len(batch)
                    if n_held >= _AT_ONCE:  # files may come in small pieces
                        yield {key: self._joined(parts) for key, parts in held.items()}
                        held, n_held = {key: [] for key in wanted}, 0
        if n_held:
            yield {key: self._joined(parts) for key, parts in held.items()}

    def _joined(self, parts: list[Any]) -> Any:
        is_numpy = isinstance(parts[0], np.ndarray)
        return np.concatenate(parts) if is_numpy else self._pa.concat_arrays(parts)

    def _converted(self, key: str, column: Any, first: int) -> Any:
        """Return ids as arrow has them and numbers as numpy does; ``first`` is their first row."""
        pa, what = self._pa, self.whats.get(key, key)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            if key in self.whats:
                raise TypeError(f"{what} ids must be integers or strings: row {row} has none")
            raise ValueError(f"{what} is missing (null) in row {row}: fill it or leave the row out")
        if key in self.whats:
            try:
                return column.cast(self.kinds[key])
            except pa.ArrowInvalid:
                raise ValueError(
                    f"{what} ids beyond the range of int64: turn them into strings"
                ) from None
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        array = column.to_numpy(zero_copy_only=False)
        if key == "timestamps":
            times = times_in(array, len(array), first)
            assert times is not None  # as the array is not
            if self._time_type not in (None, times.dtype):
                raise TypeError("timestamps are whole numbers in one file and not in another")
            self._time_type = times.dtype
            return times
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{what} must be numbers, got {column.type}")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, refused as such
            return array.astype(np.float32)

    def vocabularies(self) -> dict[str, IdMap]:
        """Return the distinct ids of each column of ids: goes through all rows once."""
        pa, found = self._pa, {}
        known = {key: pa.array([], kind) for key, kind in self.kinds.items()}
        fresh: dict[str, list[Any]] = {key: [] for key in known}
        for batch in self.batches(list(known)):
            for key, column in batch.items():
                fresh[key].append(column.unique())
                if sum(map(len, fresh[key])) > len(known[key]) + _AT_ONCE:
                    known[key] = pa.concat_arrays([known[key], *fresh[key]]).unique()
                    fresh[key] = []
        for key, what in self.whats.items():
            ids = pa.concat_arrays([known.pop(key), *fresh.pop(key)]).unique()
            found[key] = IdMap.build(ids.to_numpy(zero_copy_only=False), what=what)
        return found


def write_columns(rows: ParquetRows, folder: Path, more_ids: Mapping[str, np.ndarray]) -> Manifest:
    """Write all columns, and the vocabularies with ids that are known besides, to a folder.

    Parameters
    ----------
    rows : ParquetRows
    folder : Path
    more_ids : mapping of str to ndarray
        By what they stand for: those of feature tables.

    Returns
    -------
    Manifest
    """
    vocabularies = {
        key: IdMap.build(ids.ids, more_ids.get(ids.what, ()), what=ids.what)
        for key, ids in rows.vocabularies().items()
    }
    for number, ids in enumerate(vocabularies.values()):
        write_ids(folder, number, ids)
    types = _write_rows(rows, folder, vocabularies)
    return Manifest(
        rows.n_rows,
        tuple((ids.what, len(ids)) for ids in vocabularies.values()),
        "values" in types,
        "weights" in types,
        types["timestamps"].name if "timestamps" in types else None,
    )


def _write_rows(
    rows: ParquetRows, folder: Path, vocabularies: Mapping[str, IdMap]
) -> dict[str, np.dtype]:
    """Write positions and numbers; return the type of each file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = {key: pa.array(ids.ids, rows.kinds[key]) for key, ids in vocabularies.items()}
    files: dict[str, ArrayWriter] = {}
    with ExitStack() as stack:
        for batch in rows.batches(list(rows.columns)):
            for key, column in batch.items():
                if key in known:
                    column = pc.index_in(column, known[key])
                    if column.null_count:
                        raise ValueError("the Parquet files were changed while they were read")
                    column = column.to_numpy()
                if key not in files:
                    writer = ArrayWriter(folder / f"{key}.npy", column.dtype, (rows.n_rows,))
                    files[key] = stack.enter_context(writer)
                files[key].append(column)
    return {key: file.dtype for key, file in files.items()}
