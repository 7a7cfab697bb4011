"""What a batch run is made of, in a form that can be stored, shown and compared."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np

from .._checks import plain
from .queries import id_list
from .service import Service

__all__ = ["fingerprint", "fmknn_version", "model_facts", "new_run_id", "options_given", "utc_now"]

_TEXTS = 16_384  # ids that are encoded at a time
# of an index: they change no answer
_NOT_IN_ANSWERS = {"coordinates", "n_jobs", "n_prefix", "users_per_second"}


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of named arrays: of names, types, shapes and every bit.

    Parameters
    ----------
    arrays : mapping of str to ndarray of numbers or str

    Returns
    -------
    str
        64 hexadecimal digits; the order of the mapping and that of bytes in memory do not count.

    Examples
    --------
    >>> fingerprint({"ids": np.array([3, 1])})[:8] == fingerprint({"ids": np.array([3, 2])})[:8]
    False
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        for part in _bytes_of(array):
            digest.update(part)
    return digest.hexdigest()


def _bytes_of(array: np.ndarray) -> Iterator[Any]:
    if array.dtype.kind != "O":
        yield np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        return
    for start in range(0, len(array), _TEXTS):
        yield json.dumps(array[start : start + _TEXTS].tolist()).encode()


def model_facts(service: Service) -> dict[str, Any]:
    """Return what of a model decides on its answers.

    Parameters
    ----------
    service : Service

    Returns
    -------
    dict
        "model": the fingerprint of parameters, ids, features and seen items; "index": its type and
        settings; "user_ids" and "item_ids": "integer" or "text".
    """
    catalog, index = service.catalog, service.index
    arrays, settings = catalog.to_state()
    settings.pop("frame_library", None)  # the rows are the same, whatever the data came in
    parts = {f"catalog/{name}": array for name, array in arrays.items()}
    parts |= {f"model/{name}": array for name, array in service.model.to_state().items()}
    parts["settings"] = np.array([json.dumps(settings, sort_keys=True)], object)
    return {
        "model": fingerprint(parts),
        "index": _index_facts(index),
        "user_ids": _kind(catalog.users.ids),
        "item_ids": _kind(catalog.items.ids),
    }


def _index_facts(index: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type(index).__name__}
    if hasattr(index, "to_state"):  # one that searches elsewhere has none
        arrays, settings = map(_deciding, index.to_state())
        facts |= settings
        if arrays:
            facts["sha256"] = fingerprint(arrays)
    return facts


def _deciding(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _deciding(value) if isinstance(value, Mapping) else value
        for name, value in sorted(state.items())
        if name not in _NOT_IN_ANSWERS
    }


def _kind(ids: np.ndarray) -> str:
    return "integer" if ids.dtype.kind == "i" else "text"


def options_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``recommend`` as JSON values; of long lists, count and fingerprint.

    Parameters
    ----------
    options : mapping of str to object
        As checked by ``recommend``.

    Examples
    --------
    >>> options_given({"exclude_seen": True, "candidates": None, "context": {"day": ["fri"]}})
    {'candidates': None, 'context': {'day': 'fri'}, 'exclude_seen': True}
    """
    return {name: _as_json(name, options[name]) for name in sorted(options)}


def _as_json(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if name == "context":
        return {column: _levels(column, levels) for column, levels in sorted(value.items())}
    if name == "exclude":
        return _exclusions(value)
    if isinstance(value, (int, np.number, np.bool_)):
        return plain(value)
    ids = id_list(value, "item")
    return {"count": len(ids), "sha256": fingerprint({"ids": ids})}


def _levels(column: str, levels: Any) -> Any:
    ids = id_list(levels, column)
    if len(ids) == 1:
        return plain(ids[0])
    return {"count": len(ids), "sha256": fingerprint({"levels": ids})}


def _exclusions(exclude: Mapping[Any, Any]) -> dict[str, Any]:
    """In the order of users and items: a mapping and sets have none that lasts."""
    digest = hashlib.sha256()
    for user in sorted(exclude, key=lambda user: (str(user), type(user).__name__)):
        items = np.unique(id_list(exclude[user], "item"))
        digest.update(json.dumps([plain(user), items.tolist()]).encode())
    return {"count": len(exclude), "sha256": digest.hexdigest()}


def utc_now(timespec: str = "seconds") -> str:
    """Return the time, in ISO 8601 and UTC."""
    return datetime.now(timezone.utc).isoformat(timespec=timespec)


def new_run_id() -> str:
    """Return the time it is, to the microsecond: two runs of a loop are two."""
    return utc_now("microseconds")


def fmknn_version() -> str:
    """Return the version of the installed package."""
    try:
        return importlib.metadata.version("fmknn")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # imported from a source tree that is not installed
