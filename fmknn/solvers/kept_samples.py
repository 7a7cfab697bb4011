"""The samples that a chain has kept so far, in arrays made once."""

from __future__ import annotations

import numpy as np

from ..data.rows import read_only
from ..model.params import FMParams
from ..model.posterior import Posterior
from .base import State
from .chain_state import array_of_state, count_of_state

__all__ = ["KeptSamples"]


class KeptSamples:
    """Models and states share these arrays: a sample that is kept does not change any more.

    Parameters
    ----------
    n_samples : int
        Still to come, at most.
    n_features, n_factors, n_cutpoints : int
    start : mapping of str to ndarray, optional
        A state with samples that were kept before.

    Raises
    ------
    ValueError
        If ``start`` does not fit.
    """

    def __init__(
        self,
        n_samples: int,
        n_features: int,
        n_factors: int,
        n_cutpoints: int,
        start: State | None = None,
    ) -> None:
        shapes = {
            "w0": ((), np.float64),
            "w": ((n_features,), np.float32),
            "V": ((n_features, n_factors), np.float32),
        }
        if n_cutpoints:
            shapes["cutpoints"] = ((n_cutpoints,), np.float64)
        self._n = 0 if start is None else count_of_state(start, "n_kept")
        room = self._n + n_samples
        self._arrays = {
            name: np.zeros((room, *shape), dtype) for name, (shape, dtype) in shapes.items()
        }
        if start is not None and self._n:
            for name, (shape, dtype) in shapes.items():
                kept = array_of_state(start, f"kept_{name}", (self._n, *shape), dtype)
                self._arrays[name][: self._n] = kept
            self.posterior()  # refuses cutpoints that do not increase

    def __len__(self) -> int:
        return self._n

    def add(self, sample: FMParams) -> None:
        """Keep one more."""
        for name, array in self._arrays.items():
            array[self._n] = getattr(sample, name)
        self._n += 1

    def _kept(self) -> dict[str, np.ndarray]:
        return {
            name: read_only(array[: self._n], array.dtype) for name, array in self._arrays.items()
        }

    def posterior(self) -> Posterior:
        """Return the samples as a model."""
        return Posterior(**self._kept())

    def state(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint must keep of them."""
        kept = self._kept() if self._n else {}
        named = {f"kept_{name}": array for name, array in kept.items()}
        return {"n_kept": np.array(self._n), **named}
