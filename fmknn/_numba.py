"""The one decorator that every compiled kernel uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["SAFE_FASTMATH", "kernel"]

# Everything of fastmath except "nnan" and "ninf", which would make isfinite(nan) true and so
# switch off every check for divergence.
SAFE_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel: no GIL, no bounds checks, cached on disk where that is possible.

    A kernel takes arrays and writes arrays. It may call helpers of its own file only, since the
    cache of a caller does not notice that a helper in another file has changed.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": SAFE_FASTMATH, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in (a read-only container): compile each time
        return numba.njit(**options)(function)
