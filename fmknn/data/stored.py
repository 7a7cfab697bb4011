"""Interactions in a folder: columns as memory maps, and copies sorted for training from disk.

A folder holds, for n rows and the blocks 0 (users), 1 (items), 2, … (contexts)::

    manifest.json     what there is
    ids0.npy …        the vocabulary of a block: int64, or UTF-8 with ends0.npy
    codes0.npy …      int32 (n,): the position of each row's id
    values.npy, weights.npy, timestamps.npy
    sorted0/          the rows in the order of a block's entities, within one in their own:
        indptr.npy    int64 (n_entities + 1,): where the rows of each entity begin
        others.npy    int32 (n, n_blocks - 1): entities of the other blocks, counted over all
        values.npy, root_weights.npy

It is made under another name and renamed when it is whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .array_files import ArrayFile, ArrayWriter, save_array
from .columns import Context, frozen
from .external_sort import sorted_by
from .ids import IdMap
from .stored_manifest import Manifest

__all__ = [
    "SortedCopies",
    "SortedRows",
    "finish",
    "new_folder",
    "open_folder",
    "store",
    "write_ids",
]

_AT_ONCE = 1 << 20  # rows
_SORTED = {"values": "values", "weights": "root_weights"}  # what sorted columns are called


@dataclass(frozen=True)
class SortedRows:
    """All rows in the order of one block's entities, in files.

    Attributes
    ----------
    indptr : ndarray of int64, shape (n_entities + 1,)
    others : ArrayFile of int32, shape (n_rows, n_blocks - 1)
        Entities of the other blocks, counted over all blocks.
    ranges : tuple of (int, int)
        What each column of ``others`` lies between.
    values, root_weights : ArrayFile of float32, shape (n_rows,), or None
    """

    indptr: np.ndarray
    others: ArrayFile
    ranges: tuple[tuple[int, int], ...]
    values: ArrayFile | None
    root_weights: ArrayFile | None

    def read_others(self, start: int, stop: int) -> np.ndarray:
        """Return some of ``others``, each an entity that exists: kernels follow them blindly.

        Raises
        ------
        ValueError
            If one does not.
        """
        others = self.others.read(start, stop)
        for column, (first, end) in zip(others.T, self.ranges, strict=True):
            if len(column) and (column.min() < first or column.max() >= end):
                raise ValueError(
                    f"{self.others.path} is damaged: a row has an entity outside {first}..{end - 1}"
                )
        return others


@dataclass(frozen=True)
class SortedCopies:
    """The sorted copies that go with the columns of interactions, as long as these are theirs.

    Attributes
    ----------
    codes : tuple of ndarray of int32, shape (n_rows,) each
    sizes : tuple of int
        Number of ids of each block: entities are counted over all.
    values, weights : ndarray of float32, shape (n_rows,), or None
    rows : tuple of SortedRows
        One per block.
    """

    codes: tuple[np.ndarray, ...]
    sizes: tuple[int, ...]
    values: np.ndarray | None
    weights: np.ndarray | None
    rows: tuple[SortedRows, ...]

    def are_of(self, interactions: Any) -> bool:
        """Whether these interactions still have the very columns that were sorted."""
        if tuple(len(ids) for _, ids in _vocabularies(interactions)) != self.sizes:
            return False
        columns = [*_codes(interactions), interactions.values, interactions.weights]
        own = [*self.codes, self.values, self.weights]
        return len(columns) == len(own) and all(a is b for a, b in zip(columns, own, strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # elsewhere there may be no such files: the columns go, and do


def _codes(interactions: Any) -> list[np.ndarray]:
    contexts = (column.index for column in interactions.context.values())
    return [interactions.user_index, interactions.item_index, *contexts]


def _vocabularies(interactions: Any) -> list[tuple[str, IdMap]]:
    contexts = ((name, column.ids) for name, column in interactions.context.items())
    return [("user", interactions.users), ("item", interactions.items), *contexts]


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a folder to fill, which gets its name if all goes well, and goes if not.

    Raises
    ------
    FileExistsError
        If there is something of that name.
    FileNotFoundError
        If the folder that it is to be in does not exist.
    """
    target = Path(folder).absolute()
    if target.exists():
        raise FileExistsError(
            errno.EEXIST, "open it with Interactions.open, or remove it first", str(target)
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder, create it first", str(target.parent))
    part = target.with_name(f".fmknn-{secrets.token_hex(8)}.tmp")
    part.mkdir()
    try:
        yield part
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_ids(folder: Path, number: int, ids: IdMap) -> None:
    """Write the vocabulary of a block."""
    if ids.ids.dtype != object:
        save_array(folder / f"ids{number}.npy", ids.ids)
        return
    texts = [text.encode("utf-8", "surrogatepass") for text in ids.ids]
    save_array(
        folder / f"ends{number}.npy", np.cumsum([len(text) for text in texts], dtype=np.int64)
    )
    save_array(folder / f"ids{number}.npy", np.frombuffer(b"".join(texts), np.uint8))


def _read_ids(folder: Path, number: int, name: str, n: int) -> IdMap:
    path, ends_path = folder / f"ids{number}.npy", folder / f"ends{number}.npy"
    if not ends_path.exists():
        return IdMap(ArrayFile.of(path, np.int64, (n,)).read_all(), name)
    ends = ArrayFile.of(ends_path, np.int64, (n,)).read_all()
    if ends[0] < 0 or np.any(ends[1:] < ends[:-1]):
        raise ValueError(f"{ends_path} is damaged: its ends do not ascend")
    text = ArrayFile.of(path, np.uint8, (int(ends[-1]),)).read_all().tobytes()
    ids = np.empty(n, object)
    try:
        ids[:] = [
            text[start:stop].decode("utf-8", "surrogatepass")
            for start, stop in pairwise([0, *ends.tolist()])
        ]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is no UTF-8") from error
    return IdMap(ids, name)


def store(interactions: Any, folder: str | os.PathLike[str], memory_limit: str) -> None:
    """Write interactions, but for their feature tables, to a new folder."""
    vocabularies = _vocabularies(interactions)
    times = interactions.timestamps
    manifest = Manifest(
        len(interactions),
        tuple((name, len(ids)) for name, ids in vocabularies),
        interactions.values is not None,
        interactions.weights is not None,
        None if times is None else times.dtype.name,
    )
    with new_folder(folder) as part:
        for number, (code, (_, ids)) in enumerate(
            zip(_codes(interactions), vocabularies, strict=True)
        ):
            write_ids(part, number, ids)
            save_array(part / f"codes{number}.npy", code)
        for name in ("values", "weights", "timestamps"):
            column = getattr(interactions, name)
            if column is not None:
                save_array(part / f"{name}.npy", column)
        finish(type(interactions), part, manifest, memory_limit)


def finish(kind: Any, folder: Path, manifest: Manifest, memory_limit: str) -> None:
    """Check the columns of a folder, sort them, and write the manifest.

    Raises
    ------
    ValueError
        For a value that interactions refuse: the row is named.
    """
    interactions = _interactions_in(kind, folder, manifest)
    for number in range(len(manifest.blocks)):
        _sort(interactions, folder, number, manifest, memory_limit)
    shutil.rmtree(folder / "spill", ignore_errors=True)
    manifest.write(folder)


def _interactions_in(kind: Any, folder: Path, manifest: Manifest) -> Any:
    """Return the interactions whose columns a folder holds, as memory maps, checked."""
    rows = (manifest.n_rows,)

    def column(name: str, dtype: Any) -> np.ndarray:
        return ArrayFile.of(folder / f"{name}.npy", dtype, rows).map()

    ids = [_read_ids(folder, number, *block) for number, block in enumerate(manifest.blocks)]
    codes = [column(f"codes{number}", np.int32) for number in range(len(ids))]
    names = [name for name, _ in manifest.blocks]
    return kind(
        users=ids[0],
        items=ids[1],
        user_index=codes[0],
        item_index=codes[1],
        values=column("values", np.float32) if manifest.values else None,
        weights=column("weights", np.float32) if manifest.weights else None,
        timestamps=column("timestamps", manifest.timestamps) if manifest.timestamps else None,
        context={
            name: Context(own, code)
            for name, own, code in zip(names[2:], ids[2:], codes[2:], strict=True)
        },
    )


def _sort(
    interactions: Any, folder: Path, number: int, manifest: Manifest, memory_limit: str
) -> None:
    """Write the rows in the order of one block's entities."""
    codes, n = _codes(interactions), manifest.n_rows
    target = folder / f"sorted{number}"
    target.mkdir()
    counts = np.zeros(manifest.blocks[number][1], np.int64)
    for start in range(0, n, _AT_ONCE):
        counts += np.bincount(codes[number][start : start + _AT_ONCE], minlength=len(counts))
    save_array(target / "indptr.npy", np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))
    rest = [other for other in range(len(codes)) if other != number]
    firsts = np.array([manifest.firsts[other] for other in rest], np.int32)
    columns = [codes[other] for other in rest]
    names = [name for name in ("values", "weights") if getattr(interactions, name) is not None]
    columns += [getattr(interactions, name) for name in names]
    with _sorted_files(target, n, len(rest), names) as files:
        for part in sorted_by(codes[number], columns, folder / "spill", memory_limit):
            files[0].append(np.column_stack(part[: len(rest)]) + firsts)
            for name, file, numbers in zip(names, files[1:], part[len(rest) :], strict=True):
                file.append(np.sqrt(numbers) if name == "weights" else numbers)


@contextmanager
def _sorted_files(
    folder: Path, n: int, n_others: int, names: Sequence[str]
) -> Iterator[list[ArrayWriter]]:
    with ExitStack() as stack:
        files = [ArrayWriter(folder / "others.npy", np.int32, (n, n_others))]
        files += [ArrayWriter(folder / f"{_SORTED[name]}.npy", np.float32, (n,)) for name in names]
        for file in files:
            stack.enter_context(file)
        yield files


def open_folder(kind: Any, folder: str | os.PathLike[str]) -> tuple[Any, SortedCopies]:
    """Return the interactions of a folder, and their sorted copies.

    Raises
    ------
    FileNotFoundError
        If there is no folder.
    ValueError
        If it holds something else, is of another format, or damaged.
    """
    folder = Path(folder).absolute()
    manifest = Manifest.read(folder)
    interactions = _interactions_in(kind, folder, manifest)
    rows = tuple(_sorted_rows(folder, number, manifest) for number in range(len(manifest.blocks)))
    copies = SortedCopies(
        tuple(_codes(interactions)),
        tuple(n for _, n in manifest.blocks),
        interactions.values,
        interactions.weights,
        rows,
    )
    return interactions, copies


def _sorted_rows(folder: Path, number: int, manifest: Manifest) -> SortedRows:
    folder, n, firsts = folder / f"sorted{number}", manifest.n_rows, manifest.firsts
    n_blocks = len(manifest.blocks)
    path = folder / "indptr.npy"
    indptr = ArrayFile.of(path, np.int64, (manifest.blocks[number][1] + 1,)).read_all()
    if indptr[0] != 0 or indptr[-1] != n or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(f"{path} is damaged: it does not ascend from 0 to {n}")

    def numbers(name: str) -> ArrayFile:
        return ArrayFile.of(folder / f"{name}.npy", np.float32, (n,))

    return SortedRows(
        frozen(indptr),
        ArrayFile.of(folder / "others.npy", np.int32, (n, n_blocks - 1)),
        tuple((firsts[b], firsts[b + 1]) for b in range(n_blocks) if b != number),
        numbers("values") if manifest.values else None,
        numbers("root_weights") if manifest.weights else None,
    )
