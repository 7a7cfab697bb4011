"""Training that begins from a model instead of from nothing."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._random import entropy_words
from ..data.blocks import Design
from ..model.base import Model
from ..model.params import FMParams
from .base import SolverSpec, Start
from .callbacks import load_checkpoint
from .chain_state import Units, start_theta

__all__ = ["begun", "first_theta", "model_to_start_from", "start_of", "words_of"]


def start_of(start: Any) -> Start | None:
    """Return a state or a model as it is, and a checkpoint loaded.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the checkpoint can't be read.
    """
    if isinstance(start, (str, bytes)) or hasattr(start, "__fspath__"):
        return load_checkpoint(start)
    is_model = isinstance(start, Model) and not isinstance(start, type)
    if start is None or isinstance(start, Mapping) or is_model:
        return start
    raise TypeError(
        "start must be a checkpoint or a state, or a model to begin from, "
        f"got {type(start).__name__}"
    )


def model_to_start_from(
    start: Start | None, design: Design, spec: SolverSpec, n_cutpoints: int = 0
) -> FMParams | None:
    """Return the parameters that a model gives to begin from: its last sample, checked.

    Parameters
    ----------
    start : FMParams, Posterior, state or None
    design : Design
    spec : SolverSpec
    n_cutpoints : int
        As many as the loss has.

    Returns
    -------
    FMParams or None
        None where ``start`` is no model.

    Raises
    ------
    ValueError
        For another number of features, factors or cutpoints.
    TypeError
        If ``start`` is none of these.
    """
    start = start_of(start)
    if start is None or isinstance(start, Mapping):
        return None
    *_, params = start.samples()
    for given, expected, what in (
        (params.n_features, design.n_features, "features, the rows"),
        (params.n_factors, spec.n_factors, "factors, this training"),
        (len(params.cutpoints), n_cutpoints, f"cutpoints, the loss {spec.loss!r} with these rows"),
    ):
        if given != expected:
            raise ValueError(f"start does not fit: the model has {given} {what} {expected}")
    return params


def words_of(random_state: object, params: FMParams | None) -> np.ndarray:
    """Return the words that name the random streams of a training.

    Where it begins from parameters they name its streams too: trainings that begin from one
    another, each a few sweeps of a chain say, must not meet the same noise again and again.
    """
    words = entropy_words(random_state)
    if params is None:
        return words
    arrays = np.array([params.w0]), params.w, params.V
    begins = [zlib.crc32(np.ascontiguousarray(array).data) for array in arrays]
    return np.random.SeedSequence([*words.tolist(), *begins]).generate_state(4)


def begun(
    params: FMParams, units: Units, factors: np.ndarray, occurs: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return w0, w and V of parameters in the units of a training, with factors for new features.

    Parameters
    ----------
    params : FMParams
    units : Units
    factors : ndarray of float32, shape (n_features, k)
        Random ones: zeros would stay zero. They are for the features whose factors are all 0.
    occurs : ndarray of bool, shape (n_features,)
        Whether a feature has a row. One that has none keeps its zeros.
    """
    w0, w, V = units.parameters_inward(params)
    is_new = occurs & ~V.any(axis=1)
    V[is_new] = factors[is_new]
    return w0, w, V


def first_theta(
    design: Design,
    n_factors: int,
    sigma: float,
    generator: np.random.Generator,
    params: FMParams | None,
    units: Units,
    seen: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return theta, shape (k + 1, n_features), and w0 of a chain's start: random, or of a model."""
    theta = start_theta(design, n_factors, sigma, generator)
    if params is None:
        return theta, 0.0
    w0, w, V = begun(params, units, theta[:-1].T, seen)
    return np.vstack([V.T, w]), w0
