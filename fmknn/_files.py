"""Files are written beside and renamed: what is there is whole, or what was there before."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` if all goes well, and goes if not.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When the folder of ``path`` does not exist, or ``path`` is a folder itself.
    ValueError
        When ``path`` is a pipe or a device, which must not be replaced by a file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/note.txt") as file:
    ...         _ = file.write(b"whole")
    ...     Path(folder, "note.txt").read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder, create it first", str(target.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder, name a file in it", str(target))
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is not an ordinary file: name one, it would be replaced")
    # what is private stays private: the new file starts with the mode of the old one
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666
    temporary = target.with_name(f".fmknn-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
