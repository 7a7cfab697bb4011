"""The names of the structures that faiss searches, and who makes them."""

from __future__ import annotations

from typing import Any

from .faiss_factory import Factory, require_factory_string
from .faiss_selectors import IVF, Flat

__all__ = ["known_kind", "selector_type"]

_OWN: dict[str, Any] = {"Flat": Flat, "IVF": IVF}
_SHORT_NAMES = (*_OWN, "IVFPQ", "HNSW", "SQ8")
_SAGEMAKER_NAMES = {"faiss.Flat": "Flat", "faiss.IVFFlat": "IVF", "faiss.IVFPQ": "IVFPQ"}


def known_kind(kind: Any) -> str:
    """Return the short name or factory string that a kind is known by.

    Raises
    ------
    ValueError
        For one that neither is known here nor to faiss.

    Examples
    --------
    >>> known_kind("faiss.IVFFlat")
    'IVF'
    """
    if not isinstance(kind, str):
        raise ValueError(f"unknown faiss index {kind!r}: there are {', '.join(_SHORT_NAMES)}")
    kind = _SAGEMAKER_NAMES.get(kind, kind)
    if kind not in _SHORT_NAMES:
        require_factory_string(kind)
    return str(kind)


def selector_type(kind: str) -> Any:
    """Return the class of the selector of a known kind."""
    return _OWN.get(kind, Factory)
