"""A folder of Parquet files, one per chunk, which takes its name when it is complete.

While the run goes on its parts are in a folder beside, ``NAME.unfinished``; each is written to a
temporary file and renamed. A part says itself which run it belongs to and how many users it has, so
that nothing else must be in step with it: whatever moment the process is killed at, the parts from
the first on that are whole are what has been done.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._files import replacing
from ...errors import MissingExtraError
from ..manifest import fmknn_version, new_run_id, utc_now
from ..topn import TopN
from .base import Run, columns_of_top, fits, require_folder

__all__ = ["ParquetFolder"]

_MANIFEST = "_manifest.json"  # readers of Parquet folders pass over names with an underscore
_OURS = re.compile(r"part-\d{6,}\.parquet|_manifest\.json|\.fmknn-[0-9a-f]{16}\.tmp")
_KEY = b"fmknn"  # of the metadata in each part
_KIND = "fmknn recommendations"


@dataclass(frozen=True)
class ParquetFolder:
    """A folder with one Parquet file per chunk, and a manifest.

    The columns are user, item, score (float64) and rank (int32, from 1); the files' names, in
    their order, and the rows within them, are in the order of the users. The folder takes the
    place of an earlier run's when the run is complete, so that nobody reads half of one.

    Parameters
    ----------
    path : path-like
        Of a folder that does not exist, is empty, or holds a run that this class wrote. Its
        parent has to be writable. ``_manifest.json`` in it has the run: model, counts,
        parameters, times.

    Examples
    --------
    >>> ParquetFolder("recs.parquet")
    ParquetFolder(path='recs.parquet')
    """

    path: Any

    def check(self) -> None:
        """Refuse a place that can't be written to, or that holds something else.

        Raises
        ------
        MissingExtraError
            Without pyarrow.
        FileNotFoundError, PermissionError, ValueError
        """
        _require_pyarrow()
        folders = _Folders.of(self.path)
        require_folder(folders.target.parent)
        for folder in folders:
            _require_ours(folder)

    @contextmanager
    def open(self, run: Run) -> Iterator[_Parts]:
        """Begin a run beside the folder, or go on with it, and put it there at the end.

        Raises
        ------
        MissingExtraError
            Without pyarrow.
        ValueError
            For a folder with other files, a named run of other rows, or ``append=True``.
        FileNotFoundError, PermissionError, OSError
        """
        if run.append:
            raise ValueError("append=True is for databases: name another folder for this run")
        self.check()
        folders = _Folders.of(self.path)
        folders.tidy()
        parts = _resumed(folders, run) if run.resume else None
        if parts is None:
            parts = _begun(folders, run)
        yield parts
        parts.finish()


@dataclass(frozen=True)
class _Folders:
    """Where a run is: unfinished, complete, or complete and about to be removed."""

    target: Path
    unfinished: Path
    replaced: Path

    @classmethod
    def of(cls, path: Any) -> _Folders:
        target = Path(os.path.realpath(path))  # a link stays a link
        unfinished = target.with_name(f"{target.name}.unfinished")
        return cls(target, unfinished, target.with_name(f"{target.name}.replaced"))

    def __iter__(self) -> Iterator[Path]:
        return iter((self.target, self.unfinished, self.replaced))

    def tidy(self) -> None:
        """End what a process that was killed had begun: to put a complete run into its place."""
        manifest = _manifest_of(self.unfinished)
        if manifest is not None and manifest["finished"] is not None:
            self.publish()
        elif self.replaced.exists() and not self.target.exists():
            os.rename(self.replaced, self.target)
        _remove(self.replaced)

    def publish(self) -> None:
        """Put the complete run into its place; in between there is none, but never a mixture."""
        _require_ours(self.target)
        if _manifest_of(self.target) is not None:
            _remove(self.replaced)
            os.rename(self.target, self.replaced)
        else:
            _remove(self.target)
        os.rename(self.unfinished, self.target)
        _remove(self.replaced)


class _Parts:
    """Writes the parts of one run."""

    def __init__(
        self, folders: _Folders, manifest: dict[str, Any], counts: list[dict[str, Any]]
    ) -> None:
        self.n_chunks = len(counts)
        self.n_users = sum(count["n_users"] for count in counts)
        self._n_rows = sum(count["n_rows"] for count in counts)
        self._seconds = sum(count["seconds"] for count in counts)
        self._folders, self._manifest = folders, manifest

    def write(self, top: TopN, seconds: float) -> None:
        self._require_own_folder()
        counts = {"n_users": len(top), "n_rows": int(top.counts.sum()), "seconds": seconds}
        self._write_part(top, counts)
        self.n_chunks += 1
        self.n_users += counts["n_users"]
        self._n_rows += counts["n_rows"]
        self._seconds += seconds

    def _write_part(self, top: TopN | None, counts: dict[str, Any]) -> None:
        import pyarrow.parquet

        key = {"key": self._manifest["key"], "chunk": self.n_chunks, **counts}
        path = self._folders.unfinished / _part_name(self.n_chunks)
        schema = self._schema().with_metadata({_KEY: json.dumps(key)})
        table = _table_of(top, schema)
        try:
            with replacing(path) as file:
                pyarrow.parquet.write_table(table, file, use_dictionary=["user", "item", "rank"])
        except OSError as error:  # a full disk has no name, and how to go on is worth saying
            said = error.strerror or str(error)
            raise OSError(
                f"{path}: {said}: complete parts are kept, resume=True goes on after them"
            ) from error

    def _schema(self) -> Any:
        import pyarrow as pa

        kinds = {"integer": pa.int64(), "text": pa.string()}
        parameters = self._manifest["parameters"]
        return pa.schema(
            [
                ("user", kinds[parameters["user_ids"]]),
                ("item", kinds[parameters["item_ids"]]),
                ("score", pa.float64()),
                ("rank", pa.int32()),
            ]
        )

    def _require_own_folder(self) -> None:
        manifest = _manifest_of(self._folders.unfinished)
        if manifest is None or manifest["key"] != self._manifest["key"]:
            raise ValueError(
                f"{self._folders.unfinished}: another process has begun a run there: "
                "let only one write to a place"
            )

    def finish(self) -> None:
        if self._manifest["finished"] is not None:  # it was complete before
            return
        self._require_own_folder()
        if self.n_chunks == 0:  # even nobody's lists have columns
            self._write_part(None, {"n_users": 0, "n_rows": 0, "seconds": 0.0})
        self._manifest |= {
            "finished": utc_now(),
            "seconds": round(self._seconds, 3),
            "n_users": self.n_users,
            "n_rows": self._n_rows,
            "n_chunks": self.n_chunks,
        }
        _write_manifest(self._folders.unfinished, self._manifest)
        self._folders.publish()


def _begun(folders: _Folders, run: Run) -> _Parts:
    """Start anew; what an unfinished run left is removed."""
    _remove(folders.unfinished)
    folders.unfinished.mkdir()
    manifest = {
        "kind": _KIND,
        "fmknn_version": fmknn_version(),
        "run_id": run.run_id or new_run_id(),
        "key": secrets.token_hex(8),
        "started": utc_now(),
        "finished": None,
        "parameters": run.parameters,
    }
    _write_manifest(folders.unfinished, manifest)
    return _Parts(folders, manifest, [])


def _resumed(folders: _Folders, run: Run) -> _Parts | None:
    """Return the run to go on with, None if there is none."""
    for folder in (folders.unfinished, folders.target):
        manifest = _manifest_of(folder)
        if manifest is None or run.run_id not in (None, manifest["run_id"]):
            continue
        run_id, complete = manifest["run_id"], manifest["finished"] is not None
        if not fits(run, run_id, manifest["parameters"], str(folder), complete=complete):
            continue
        counts = list(_counts_of(folder, manifest["key"]))
        if complete and sum(count["n_users"] for count in counts) != manifest["n_users"]:
            continue  # somebody has taken parts of it away
        for left in folder.glob(".fmknn-*.tmp"):  # of a part that was being written
            left.unlink()
        return _Parts(folders, manifest, counts)
    return None


def _counts_of(folder: Path, key: str) -> Iterator[dict[str, Any]]:
    """Yield what the parts of a run say of themselves, up to the first that is not whole."""
    import pyarrow as pa
    import pyarrow.parquet

    chunk = 0
    while (path := folder / _part_name(chunk)).is_file():
        try:
            metadata = pyarrow.parquet.read_metadata(path).metadata or {}
            counts = json.loads(metadata[_KEY])
            if (counts["key"], counts["chunk"]) != (key, chunk):
                return
        except (pa.ArrowInvalid, KeyError, ValueError):
            return
        yield counts
        chunk += 1


def _table_of(top: TopN | None, schema: Any) -> Any:
    import pyarrow as pa

    names = schema.names
    parts = [] if top is None else list(columns_of_top(top))
    if not parts:
        return schema.empty_table()
    [columns] = parts
    arrays = [pa.array(columns[name], schema.field(name).type) for name in names]
    return pa.Table.from_arrays(arrays, schema=schema)


def _part_name(chunk: int) -> str:
    return f"part-{chunk:06}.parquet"


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with replacing(folder / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a run that was written here, None where there is none."""
    with suppress(OSError, ValueError):
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and manifest.get("kind") == _KIND:
            return manifest
    return None


def _require_ours(folder: Path) -> None:
    """Refuse a folder that holds anything a run did not write: it would be removed later."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name another one for the Parquet files")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    if not foreign and names and _manifest_of(folder) is None:
        foreign = [name for name in names if not name.endswith(".tmp")]  # a start that was killed
    if foreign:
        raise ValueError(
            f"{folder} holds {foreign[0]!r}, which is not of a run of fmknn: "
            "name an empty folder or a new one"
        )


def _remove(folder: Path) -> None:
    """Remove a run's folder; files that are not ours make it fail, and stay."""
    if not folder.exists():
        return
    _require_ours(folder)
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == _MANIFEST)
    for name in names:  # the manifest last: without it the parts would be nobody's
        (folder / name).unlink()
    folder.rmdir()


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Parquet files need pyarrow: pip install 'fmknn[arrow]'") from error
