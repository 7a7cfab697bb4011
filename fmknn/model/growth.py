"""Models with more columns than they were trained on: nothing that was learned moves."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Model
from .posterior import model_of_state

__all__ = ["grown"]


def grown(
    model: Model,
    columns: np.ndarray,
    n_features: int,
    new: np.ndarray | None = None,
    theta: Any = (),
) -> Model:
    """Return the model with its columns at other places, and others between them.

    Parameters
    ----------
    model : FMParams or Posterior
    columns : ndarray of int, shape (model.n_features,)
        The column that each one is by now, below ``n_features``; -1 for one that is gone.
    n_features : int
        Columns that are new have parameters of 0, unless they are given.
    new : ndarray of int, shape (n_new,), optional
        Columns whose parameters are given.
    theta : sequence of ndarray, shape (n_new, n_factors + 1) each
        Factors and linear weight of each, for each sample of the model.

    Returns
    -------
    FMParams or Posterior
        As the model is.

    Raises
    ------
    ValueError
        For parameters that are not finite in float32.

    Examples
    --------
    >>> from fmknn import FMParams
    >>> larger = grown(FMParams(1.0, [0.5, 0.25], [[1.0], [2.0]]), np.array([0, 2]), 3)
    >>> larger.w, larger.V.ravel()
    (array([0.5 , 0.  , 0.25], dtype=float32), array([1., 0., 2.], dtype=float32))
    """
    state = dict(model.to_state())
    kept = np.flatnonzero(columns >= 0)
    w, V = state["w"], state["V"]  # of a posterior: of all samples
    state["w"] = np.zeros((*w.shape[:-1], n_features), np.float32)
    state["V"] = np.zeros((*V.shape[:-2], n_features, V.shape[-1]), np.float32)
    state["w"][..., columns[kept]] = w[..., kept]
    state["V"][..., columns[kept], :] = V[..., kept, :]
    if new is not None and len(new):
        of_samples = np.stack(theta).reshape(*w.shape[:-1], len(new), V.shape[-1] + 1)
        with np.errstate(over="ignore"):  # what is infinite is refused
            state["w"][..., new] = of_samples[..., -1]
            state["V"][..., new, :] = of_samples[..., :-1]
    return model_of_state(state)
