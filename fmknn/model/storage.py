"""Named arrays and JSON metadata in one file: every bit checked, no pickle, replaced atomically.

The file, all numbers little-endian::

    8 bytes   magic
    uint32    format version
    uint64    length of the manifest
    32 bytes  sha256 of the manifest
    manifest  UTF-8 JSON: format_version, arrays [name, dtype, shape, offset, nbytes, sha256],
              metadata, fmknn_version
    zeros up to a multiple of 64 bytes: here the data begin, and offsets count from here
    the arrays, C order, zeros between them so that each begins at a multiple of 64 bytes

Nothing in it is free to vary: the arrays lie in the order of the manifest, as tightly as the
alignment allows, and the last one ends the file.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import io
import json
import math
import os
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._files import replacing
from ..errors import ModelFileError

__all__ = ["FORMAT_VERSION", "load", "save"]

FORMAT_VERSION = 1

_MAGIC = b"\x89fmknn\r\n"  # not text, and broken by anything that rewrites line ends
_HEADER = struct.Struct("<8sIQ32s")
_ALIGNMENT = 64
_CHUNK = 1 << 20  # bytes: stays in cache between the hash and the write
_MAX_NDIM = 32  # numpy 1 has no more
_MAX_DEPTH = 64  # of metadata: far below the recursion limit of any JSON reader
_FOREIGN = "is not a model saved by fmknn: check the path"
_STRINGS = "strings"
_DTYPES = {
    np.dtype(code).name: np.dtype(f"<{code}")
    for code in ["?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d"]
}
_INT64 = _DTYPES["int64"]
_MANIFEST = {"format_version": int, "arrays": list, "metadata": dict, "fmknn_version": str}
_ENTRY = {"name": str, "dtype": str, "shape": list, "offset": int, "nbytes": int, "sha256": str}


def save(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write arrays and metadata to one file, entirely or not at all.

    Parameters
    ----------
    path : str or path-like
        An existing file is replaced in the last step only: a crash or a full disk leaves it whole.
    arrays : mapping of str to array
        Bool, integer, float16, float32, float64 or strings; any shape, strides and byte order.
    metadata : mapping of str to JSON values
        None, bool, int, finite float, str, and lists and str-keyed mappings of these. A tuple
        comes back as a list.

    Raises
    ------
    TypeError
        For an array or a piece of metadata that the format cannot hold.
    ValueError
        For NaN, infinity or too deep nesting in the metadata, or invalid Unicode in an array.
    FileNotFoundError, IsADirectoryError
        When the folder of `path` does not exist, or `path` is a folder itself.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model.fmknn", {"w": np.array([0.5, -1.0])}, {"n_factors": 8})
    ...     load(f"{folder}/model.fmknn")
    ({'w': array([ 0.5, -1. ])}, {'n_factors': 8})
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is of type {type(metadata).__name__}: make it a dict")
    stored = {name: _encode(name, array) for name, array in arrays.items()}
    manifest = _manifest(arrays, stored, _checked_json(metadata, "metadata"))
    with replacing(path) as file:
        _write(file, manifest, [array for _, array in stored.values()])


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read back what `save` wrote, or refuse the file.

    Parameters
    ----------
    path : str or path-like
        A file written by `save`.

    Returns
    -------
    arrays : dict of str to array
        Read-only and in C order; strings come as object arrays of str.
    metadata : dict

    Raises
    ------
    FileNotFoundError
        When there is nothing at `path`.
    ModelFileError
        When as much as one bit differs from what was saved, or the file is foreign or newer.

    Notes
    -----
    The checksums find damage; they do not authenticate, a forger writes them too. So the layout
    is checked before memory is set aside, and nothing in the file is ever run.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/ids.fmknn", {"ids": np.array(["a", "bé"], dtype=object)}, {})
    ...     arrays, metadata = load(f"{folder}/ids.fmknn")
    >>> arrays["ids"]
    array(['a', 'bé'], dtype=object)
    """
    if not (path := Path(path)).exists():
        raise FileNotFoundError(errno.ENOENT, "no saved model here, check the path", str(path))
    try:
        if not path.is_file():  # a pipe or a device would block or never end
            raise ModelFileError(_FOREIGN)
        with open(path, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except ModelFileError as error:
        raise ModelFileError(f"{str(path)!r} {error}") from None


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _dump(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("utf-8")


# --- saving ---------------------------------------------------------------------------------


def _checked_json(value: Any, where: str, depth: int = 0) -> Any:
    """Copy JSON values, refusing what json.dumps would silently change or write as not JSON."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"metadata is nested more than {_MAX_DEPTH} deep: flatten it")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: make it a str")
        return {k: _checked_json(v, f"{where}[{k!r}]", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked_json(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which JSON cannot hold: use None or a str")
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"{where} is of type {type(value).__name__}: convert it to a JSON value")
    return value


def _encode(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the dtype as the manifest names it, and the array that is written."""
    if not isinstance(name, str):
        raise TypeError(f"an array is named {name!r}: make the name a str")
    if not isinstance(array, (np.ndarray, np.generic)) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"array {name!r} is a {type(array).__name__}: make it a numpy array")
    if array.ndim > _MAX_NDIM:
        raise TypeError(f"array {name!r} has {array.ndim} dimensions: at most {_MAX_NDIM} fit")
    if array.dtype.kind in "OUT":  # object, fixed-width and numpy 2's variable-width strings
        return _STRINGS, _encode_strings(name, np.asarray(array, dtype=object))
    if array.dtype.name not in _DTYPES:
        allowed = ", ".join([*_DTYPES, _STRINGS])
        raise TypeError(f"array {name!r} has dtype {array.dtype}: convert it to one of {allowed}")
    return array.dtype.name, np.asarray(array)


def _encode_strings(name: str, array: np.ndarray) -> np.ndarray:
    """Return the bytes of int64 offsets, one more than there are strings, and of the text."""
    encoded = []
    for position, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, str):
            what = f"holds a {type(value).__name__} at position {position}: make it a str"
            raise TypeError(f"array {name!r} {what}")
        try:
            encoded.append(value.encode("utf-8"))
        except UnicodeEncodeError:
            what = f"holds invalid Unicode, {value!r}, at position {position}: clean the text"
            raise ValueError(f"array {name!r} {what}") from None
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64).astype(_INT64)
    return np.frombuffer(offsets.tobytes() + b"".join(encoded), dtype=np.uint8)


def _manifest(
    arrays: Mapping[str, np.ndarray],
    stored: Mapping[str, tuple[str, np.ndarray]],
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Lay the arrays out. The checksums only hold their place until the arrays are written."""
    entries, end = [], 0
    for name, (dtype, data) in stored.items():
        entry: dict[str, Any] = {"name": name, "dtype": dtype, "shape": [*arrays[name].shape]}
        entry |= {"offset": _aligned(end), "nbytes": data.nbytes, "sha256": "0" * 64}
        entries.append(entry)
        end = entry["offset"] + data.nbytes
    try:
        version = importlib.metadata.version("fmknn")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"  # imported from a source tree that is not installed
    return {
        "format_version": FORMAT_VERSION,
        "arrays": entries,
        "metadata": metadata,
        "fmknn_version": version,
    }


def _write(file: BinaryIO, manifest: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write in one pass: the arrays, then, in the room left for it, the manifest with the sums."""
    start = _aligned(_HEADER.size + len(_dump(manifest)))
    file.write(bytes(start))
    for entry, array in zip(manifest["arrays"], arrays, strict=True):
        file.write(bytes(start + entry["offset"] - file.tell()))
        entry["sha256"] = _write_array(file, array)
    raw = _dump(manifest)
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, FORMAT_VERSION, len(raw), hashlib.sha256(raw).digest()) + raw)


def _write_array(file: BinaryIO, array: np.ndarray) -> str:
    """Write the array's bytes and return their sha256."""
    # Brings any strides and byte order into ours a chunk at a time, without a second array.
    chunks = np.nditer(
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[_DTYPES[array.dtype.name]],
        casting="equiv",
        order="C",
        buffersize=_CHUNK // array.itemsize,
    )
    digest = hashlib.sha256()
    for chunk in chunks:
        data = np.ascontiguousarray(chunk).data
        digest.update(data)
        file.write(data)
    return digest.hexdigest()


# --- loading: trust no byte; load puts the name of the file before what a helper says ----------


def _damaged(what: str) -> ModelFileError:
    return ModelFileError(f"is damaged ({what}): restore it from a copy or save the model again")


def _read(file: io.BufferedReader, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    raw = _read_manifest(file, size)
    manifest, start = _parse_manifest(raw), _aligned(_HEADER.size + len(raw))
    _check_layout(manifest["arrays"], size - start)
    arrays = {}
    for entry in manifest["arrays"]:
        _read_padding(file, start + entry["offset"])
        arrays[entry["name"]] = _read_array(file, entry)
    _read_padding(file, size)  # of a file without arrays
    return arrays, manifest["metadata"]


def _read_manifest(file: io.BufferedReader, size: int) -> bytes:
    header = file.read(_HEADER.size)
    if not header.startswith(_MAGIC):
        raise ModelFileError(_FOREIGN)
    if len(header) < _HEADER.size:
        raise _damaged("it ends within the header")
    _, version, length, digest = _HEADER.unpack(header)
    if version > FORMAT_VERSION:
        what = f"file format {version}, this one reads {FORMAT_VERSION}"
        raise ModelFileError(f"was written by a newer fmknn ({what}): upgrade fmknn")
    if version != FORMAT_VERSION:
        raise _damaged(f"there is no file format {version}")
    if length > size - _HEADER.size:
        raise _damaged("it ends within the manifest")
    raw = file.read(length)
    if hashlib.sha256(raw).digest() != digest:
        raise _damaged("the manifest does not match its checksum")
    return raw


def _parse_manifest(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        manifest: dict[str, Any] = json.loads(raw.decode("utf-8"))
        # Being exactly what save writes excludes repeated keys, NaN, 1e999 and other oddities.
        canonical = _dump(manifest) == raw and _has_form(manifest, _MANIFEST)
        if canonical and manifest["format_version"] == FORMAT_VERSION:
            return manifest
    raise _damaged("the manifest is not one that fmknn writes")


def _has_form(value: Any, form: dict[str, type]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == form.keys()
        and all(type(value[key]) is kind for key, kind in form.items())  # a bool is not an int
    )


def _check_layout(entries: list[Any], available: int) -> None:
    """Check that the arrays, one after the other, fill what the file has to the byte."""
    names, end = set(), 0
    for position, entry in enumerate(entries):
        if not _has_form(entry, _ENTRY) or entry["dtype"] not in [*_DTYPES, _STRINGS]:
            raise _damaged(f"the manifest's entry for array number {position} is malformed")
        if entry["name"] in names:
            raise _damaged(f"there are two arrays named {entry['name']!r}")
        if entry["offset"] != _aligned(end) or not _fits_shape(entry):
            raise _damaged(f"the layout of array {entry['name']!r} is inconsistent")
        names.add(entry["name"])
        end = entry["offset"] + entry["nbytes"]
        if end > available:
            raise _damaged(f"it ends before or within array {entry['name']!r}")
    if end != available:
        raise _damaged("its length is not the one its manifest gives")


def _fits_shape(entry: dict[str, Any]) -> bool:
    shape, nbytes = entry["shape"], entry["nbytes"]
    if len(shape) > _MAX_NDIM or any(type(length) is not int or length < 0 for length in shape):
        return False
    itemsize = _DTYPES.get(entry["dtype"], np.dtype(object)).itemsize
    # numpy limits the product of the lengths of an empty array too, leaving the zeros out
    if math.prod(length or 1 for length in shape) * itemsize > sys.maxsize:
        return False
    if entry["dtype"] == _STRINGS:  # the text takes what the offsets leave
        return bool(nbytes >= _INT64.itemsize * (math.prod(shape) + 1))
    return bool(nbytes == itemsize * math.prod(shape))


def _read_padding(file: io.BufferedReader, end: int) -> None:
    if any(file.read(end - file.tell())):
        raise _damaged("the space between its parts is not zero")


def _read_array(file: io.BufferedReader, entry: dict[str, Any]) -> np.ndarray:
    name, dtype = entry["name"], entry["dtype"]
    raw = np.empty(entry["nbytes"], dtype=np.uint8)
    file.readinto(raw.data)
    if hashlib.sha256(raw.data).hexdigest() != entry["sha256"]:
        raise _damaged(f"array {name!r} does not match its checksum")
    if dtype == "bool" and raw.max(initial=0) > 1:
        raise _damaged(f"array {name!r} holds bytes that are neither true nor false")
    array = _decode_strings(entry, raw) if dtype == _STRINGS else raw.view(_DTYPES[dtype])
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # for big-endian machines
    array.setflags(write=False)
    return array.reshape(entry["shape"])


def _decode_strings(entry: dict[str, Any], raw: np.ndarray) -> np.ndarray:
    array = np.empty(math.prod(entry["shape"]), dtype=object)
    split = _INT64.itemsize * (len(array) + 1)
    offsets, text = raw[:split].view(_INT64).tolist(), raw[split:].tobytes()
    if offsets[0] != 0 or offsets[-1] != len(text) or offsets != sorted(offsets):
        raise _damaged(f"the string offsets of array {entry['name']!r} are inconsistent")
    try:
        array[:] = [text[a:b].decode("utf-8") for a, b in pairwise(offsets)]
    except UnicodeDecodeError:
        raise _damaged(f"array {entry['name']!r} holds text that is not UTF-8") from None
    return array
