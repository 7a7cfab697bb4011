"""JSON lines: one object per user, in one file that appears when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..._files import replacing
from ..topn import TopN
from .base import Run, require_folder

__all__ = ["JsonLines", "write_json_lines"]

_OTHER_KINDS = {".arrow", ".csv", ".db", ".feather", ".parquet", ".sqlite", ".tsv", ".xlsx"}
_EXACT = 2**53  # above, not every integer is a float


@dataclass(frozen=True)
class JsonLines:
    """A file with one JSON object per user.

    Parameters
    ----------
    path : path-like
        The file is written beside and renamed: it is there as a whole or not at all.
    form : {"plain", "sagemaker"}
        ``{"user": 196, "items": [50, …], "scores": [4.9, …]}``, best first; or the verbose answer
        of SageMaker's k-NN, ``{"predicted_label": 50.0, "distances": [3.1, …, 4.9], "labels":
        [181.0, …, 50.0]}``, which has no users (its lines are in their order), item ids as
        floats, and the best item last ("k-NN Request and Response Formats", Amazon SageMaker
        Developer Guide). The distances are the scores; ``predicted_label`` is the best item, null
        where there is none.

    Raises
    ------
    ValueError
        For another form, or a name that promises another kind of file.

    Examples
    --------
    >>> JsonLines("recs.jsonl", form="sagemaker")
    JsonLines(path='recs.jsonl', form='sagemaker')
    """

    path: Any
    form: str = "plain"

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise ValueError(f"form must be one of {', '.join(_FORMS)}, got {self.form!r}")
        name = os.fspath(self.path)
        if "://" in name or Path(name).suffix.lower() in _OTHER_KINDS:
            shown = "an address" if "://" in name else repr(name)  # which may hold a password
            raise ValueError(f"only JSON lines can be written: name the file .jsonl, not {shown}")

    def check(self) -> None:
        """Refuse a folder that is not there or must not be written to.

        Raises
        ------
        FileNotFoundError, PermissionError
        """
        require_folder(Path(os.path.realpath(self.path)).parent)

    @contextmanager
    def open(self, run: Run) -> Iterator[_Lines]:
        """Begin a file; nothing stays where the run fails.

        Raises
        ------
        ValueError
            For a run that is resumed, appended or named: a file is written in one go.
        """
        for name, given in (
            ("resume=True", run.resume),
            ("append=True", run.append),
            ("run_id", run.run_id is not None),
        ):
            if given:
                raise ValueError(
                    f"{name} is for databases and Parquet folders: a file of JSON lines is "
                    "written in one go"
                )
        with replacing(self.path) as file:
            yield _Lines(file, self.form)


class _Lines:
    """Writes the lines of one file."""

    def __init__(self, file: BinaryIO, form: str) -> None:
        self.n_chunks = 0
        self.n_users = 0
        self._file = file
        self._record = _FORMS[form]

    def write(self, top: TopN, seconds: float) -> None:
        for user, pairs in top:
            record = self._record(user, pairs)
            self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.n_chunks += 1
        self.n_users += len(top)


def write_json_lines(chunks: Iterable[TopN], path: Any) -> int:
    """Write one line per user, as :class:`JsonLines` does.

    Parameters
    ----------
    chunks : iterable of TopN
    path : path-like

    Returns
    -------
    int
        Number of users written.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        For a name that promises another kind of file, or a database.
    """
    sink = JsonLines(path)
    with replacing(sink.path) as file:
        lines = _Lines(file, sink.form)
        for top in chunks:
            lines.write(top, 0.0)
    return lines.n_users


def _plain(user: Any, pairs: list[tuple[Any, float]]) -> dict[str, Any]:
    items, scores = [item for item, _ in pairs], [score for _, score in pairs]
    return {"user": user, "items": items, "scores": scores}


def _sagemaker(user: Any, pairs: list[tuple[Any, float]]) -> dict[str, Any]:
    for item, _ in pairs:
        if isinstance(item, str) or abs(item) > _EXACT:
            raise ValueError(
                f"item id {item!r} can't be a label of SageMaker's form, which are floats: "
                'write the form "plain"'
            )
    labels = [float(item) for item, _ in reversed(pairs)]
    return {
        "predicted_label": labels[-1] if labels else None,
        "distances": [score for _, score in reversed(pairs)],
        "labels": labels,
    }


_FORMS = {"plain": _plain, "sagemaker": _sagemaker}
