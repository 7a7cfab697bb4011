"""The files in a SageMaker model archive, from bytes that nobody vouches for.

Everything is read in memory, decompressed piece by piece and counted on the way. Of each member
only name, size and bytes are looked at: links and devices are nothing, a name is never a path.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from ...errors import ModelFileError
from .mxnet_params import LIST_MAGIC

__all__ = ["ARCHIVE", "PARAMS", "SYMBOL", "unwrap"]

ARCHIVE, PARAMS, SYMBOL = "model_algo-1", "params", "symbol.json"

_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"
_BEGINNINGS = {ARCHIVE: (_ZIP, LIST_MAGIC), PARAMS: (LIST_MAGIC,), SYMBOL: (b"",)}
_CHUNK = 1 << 20
_MAX_SYMBOL = 1 << 20  # bytes: the graph of an FM has 3,000
_MAX_MEMBERS = 1000
_MAX_NAME = 1 << 16
_BLOCK = 512  # bytes: a tar header, and what members are padded to
_FILES, _BODILESS = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6")

Content = TypeVar("Content")
Found = list[tuple[str | None, str, Content]]  # which of the files, its name, what is in it


def unwrap(data: bytes, limit: int) -> tuple[bytes, bytes | None]:
    """Return the parameter file in a model archive, and the graph if there is one.

    Parameters
    ----------
    data : bytes
        A tar, gzipped or not, of ``model_algo-1`` or of a checkpoint of MXNet's Module; the zip
        or the parameter file itself.
    limit : int
        The most bytes that the tar or any member may have once decompressed.

    Raises
    ------
    ModelFileError
        For a damaged archive, one of something else, or one beyond the limit.

    Examples
    --------
    >>> unwrap(LIST_MAGIC + bytes(24), limit=1000)[1] is None
    True
    """
    if data.startswith(LIST_MAGIC):
        return data, None
    if data.startswith(_ZIP):
        return _of_zip(data, limit)
    packed = io.BytesIO(data)
    file = gzip.GzipFile(fileobj=packed) if data.startswith(_GZIP) else packed
    with _damage_refused("the tar"):
        found = _tar_members(_Stream(file, limit))
    archive = _pick(found, ARCHIVE)
    if archive is None:
        return _params_and_symbol(found)
    if archive.startswith(LIST_MAGIC):
        return archive, _pick(found, SYMBOL)
    return _of_zip(archive, limit)


def _params_and_symbol(found: Found[Content]) -> tuple[Content, Content | None]:
    params = _pick(found, PARAMS)
    if params is None:
        raise ModelFileError(
            "the archive holds neither model_algo-1 nor params: it is no model of SageMaker's "
            "factorization machines"
        )
    return params, _pick(found, SYMBOL)


def _pick(found: Found[Content], role: str) -> Content | None:
    """Return the one member of that role, if need be the one that has the very name."""
    members = [(name, content) for what, name, content in found if what == role]
    exact = [member for member in members if member[0].rsplit("/", 1)[-1] == role]
    members = exact if len(members) > 1 and exact else members
    if len(members) > 1:
        names = ", ".join(repr(name[:60]) for name, _ in members[:5])
        raise ModelFileError(f"the archive has more than one {role}: {names}; keep one of them")
    return members[0][1] if members else None


def _role(name: str) -> str | None:
    """Return which of the three files a member is, in whatever folder, or None."""
    name = name.rsplit("/", 1)[-1]
    if name in _BEGINNINGS:
        return name
    if name.startswith("._"):  # macOS puts such a companion beside each file
        return None
    if name.endswith("-symbol.json"):
        return SYMBOL
    return PARAMS if re.search(r"-\d{4}\.params\Z", name) else None


class _Stream:
    """Bytes of an archive as they are decompressed: counted, and refused beyond the limit."""

    def __init__(self, file: gzip.GzipFile | BinaryIO, limit: int) -> None:
        self.file, self.limit, self.offset = file, limit, 0

    def read(self, n_bytes: int) -> bytes:
        """Return as many bytes, fewer only at the end."""
        data = self.file.read(n_bytes)
        self.offset += len(data)
        if self.offset > self.limit:
            raise _too_large("the tar", self.limit)
        return data

    def skip(self, n_bytes: int) -> None:
        while n_bytes > 0 and (data := self.read(min(n_bytes, _CHUNK))):
            n_bytes -= len(data)


def _tar_members(stream: _Stream) -> Found[bytes]:
    """Return the members that matter; tarfile would read headers of any size, and recurse."""
    found: Found[bytes] = []
    long_name = ""
    for _ in range(_MAX_MEMBERS):
        header = stream.read(_BLOCK)
        if stream.offset and not header.strip(b"\0"):  # the end, marked or not
            stream.skip(stream.limit + 1)  # to the checksum of gzip
            return found
        name, kind, size = _tar_header(header, stream.offset - len(header))
        size = 0 if kind in _BODILESS else size
        if kind in (b"L", b"x"):  # the name of the next member, where it is long
            long_name = _long_name(stream, kind, size) or long_name
        else:
            name, long_name = long_name or name, ""
            role = _role(name) if kind in _FILES else None
            if role is None:
                stream.skip(size)
            else:
                found.append((role, name, _content(stream.read, role, size, stream.limit)))
        stream.skip(-size % _BLOCK)
    raise ModelFileError(f"the tar has more than {_MAX_MEMBERS} members: it is no model")


def _tar_header(header: bytes, offset: int) -> tuple[str, bytes, int]:
    """Return name, kind and size of a member (POSIX ustar, and GNU's sizes beyond 8 GiB)."""
    if len(header) == _BLOCK:
        field = header[124:136]
        try:
            checksum = int(header[148:156].split(b"\0")[0], 8)
            size = int(field.split(b"\0")[0] or b"0", 8) if field[0] != 0x80 else -1
        except ValueError:
            checksum = size = -1
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else size
        if checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ") and size >= 0:
            name = header[:100].split(b"\0")[0].decode("utf-8", "replace")
            return name, header[156:157], size
    if offset:
        raise ModelFileError(f"the tar is damaged at byte {offset}: fetch it again")
    raise ModelFileError(
        "this is no SageMaker model: expected a model.tar.gz, the model_algo-1 in it, or an "
        "MXNet parameter file"
    )


def _long_name(stream: _Stream, kind: bytes, size: int) -> str:
    if size > _MAX_NAME:
        raise ModelFileError(f"the tar is damaged at byte {stream.offset}: a name of {size} bytes")
    # GNU's is the name alone, pax's one record among others
    name = re.search(rb"([^\0]*)" if kind == b"L" else rb"\d path=([^\n]*)\n", stream.read(size))
    return name[1].decode("utf-8", "replace") if name else ""


def _of_zip(data: bytes, limit: int) -> tuple[bytes, bytes | None]:
    if data.count(b"PK\x01\x02") > _MAX_MEMBERS:  # each entry of the directory begins with it
        raise ModelFileError(f"the zip has more than {_MAX_MEMBERS} members: it is no model")
    with _damage_refused("the zip model_algo-1"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [(_role(entry.filename), entry.filename, entry) for entry in archive.infolist()]
        params, symbol = _params_and_symbol(found)
        graph = None if symbol is None else _unzipped(archive, symbol, SYMBOL, limit)
        return _unzipped(archive, params, PARAMS, limit), graph


def _unzipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, role: str, limit: int) -> bytes:
    # the other methods decompress a whole chunk at once, whatever it grows to
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileError(f"{role} is compressed by a method other than deflate")
    with archive.open(entry) as file:
        return _content(file.read, role, entry.file_size, limit)


def _content(read: Callable[[int], bytes], role: str, size: int, limit: int) -> bytes:
    """Return the bytes of a member, refused as soon as they prove to be something else."""
    if role == SYMBOL and size > _MAX_SYMBOL:
        raise ModelFileError(f"{role} has {size} bytes, more than any graph: it is no model")
    if size > limit:
        raise _too_large(role, limit)
    content = io.BytesIO()
    while chunk := read(min(_CHUNK, size - content.tell())):
        if not content.tell() and not chunk.startswith(_BEGINNINGS[role]):
            raise ModelFileError(
                f"{role} is not that of a factorization machine, it begins with {chunk[:8]!r}: is "
                "this the model of another algorithm, such as k-NN?"
            )
        content.write(chunk)
    if content.tell() < size:
        raise ModelFileError(f"{role} is cut short: {content.tell()} of {size} bytes are there")
    return content.getvalue()


def _too_large(what: str, limit: int) -> ModelFileError:
    return ModelFileError(
        f"{what} has more than {limit} bytes once decompressed: pass a larger max_bytes if this "
        "is meant"
    )


@contextmanager
def _damage_refused(what: str) -> Iterator[None]:
    """Turn what zipfile, gzip and zlib make of damaged bytes into one type of error."""
    try:
        yield
    except ModelFileError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError,
        LookupError, OverflowError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{what} is damaged ({reason}): fetch it again") from None
