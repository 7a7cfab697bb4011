"""Targets on the scale of a chain: worked out where they are needed, a part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Targets"]

_AT_ONCE = 1_000_000  # rows: float64 copies of all would be the most memory that training takes


@dataclass(frozen=True, eq=False)
class Targets:
    """What was observed, less a center, over a scale; ``np.asarray`` gives all of it, float32.

    Attributes
    ----------
    values : ndarray of float32, shape (n,)
        As they were given.
    center, scale : float
    """

    values: np.ndarray
    center: float
    scale: float

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return values that were given, in any order, on the chain's scale; float32."""
        targets = np.empty(len(values), np.float32)
        for start in range(0, len(values), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            targets[part] = (values[part].astype(np.float64) - self.center) / self.scale
        return targets

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.scaled(self.values).astype(dtype or np.float32, copy=False)
