"""Posterior: kept samples of a factorization machine, behind the interface of a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..data.rows import as_rows, read_only
from .base import Link, Model, expectation
from .params import FMParams, arrays_of_state, design_of

__all__ = ["Posterior", "model_of_state"]


class Posterior:
    """Kept samples of a factorization machine. Its score is the mean of theirs.

    Parameters
    ----------
    w0 : array-like of float, shape (n_samples,)
        Global biases.
    w : array-like of float, shape (n_samples, n_features)
        Linear weights.
    V : array-like of float, shape (n_samples, n_features, n_factors)
        Factors.
    cutpoints : array-like of float, shape (n_samples, n_grades - 1), optional
        Of an ordinal model, increasing in each sample.

    Attributes
    ----------
    w, V : ndarray of float32
        As given, read-only: 4 · n_samples · n_features · (n_factors + 1) bytes in all.
    cutpoints : ndarray of float64
        Likewise; of shape (n_samples, 0) where there are none.

    Raises
    ------
    ValueError
        If shapes do not fit, there is no sample, a parameter is NaN or infinite, or the cutpoints
        of a sample do not increase.

    Notes
    -----
    The samples of an entity lie side by side: q = [q¹ … q^S] and b = (1/S) Σ_s b^s, so that the
    mean score over S samples y_s is

    (1/S) Σ_s y_s = (1/S) Σ_s w0_s + Σ_g b_g + (1/S) Σ_{g<h} <q_g, q_h>, exactly.

    Factors are never averaged: samples may be rotated against each other.

    Examples
    --------
    >>> posterior = Posterior([1.0, 3.0], [[0.5, 0.0], [0.5, 0.0]], [[[1.0], [2.0]], [[0], [0]]])
    >>> posterior
    Posterior(2 samples, 2 features, 1 factors)
    >>> posterior.score([[1.0, 1.0], [1.0, 0.0]])
    array([3.5, 2.5])
    """

    __slots__ = ("V", "_samples", "_w0", "cutpoints", "w")

    def __init__(self, w0: Any, w: Any, V: Any, cutpoints: Any = None) -> None:
        self._w0 = read_only(w0, np.float64)  # as precise as that of FMParams
        self.w = read_only(w, np.float32)
        self.V = read_only(V, np.float32)
        shapes = self._w0.shape, self.w.shape, self.V.shape
        if [*map(len, shapes)] != [1, 2, 3] or not shapes[0] == shapes[1][:1] == shapes[2][:1]:
            raise ValueError(
                "expected w0 of shape (n_samples,), w of shape (n_samples, n_features) and V of "
                f"shape (n_samples, n_features, n_factors), got {', '.join(map(str, shapes))}"
            )
        if not len(self._w0):
            raise ValueError("a posterior needs one sample at least: keep more of them")
        cutpoints = np.empty((len(self._w0), 0)) if cutpoints is None else cutpoints
        self.cutpoints = read_only(cutpoints, np.float64)
        if self.cutpoints.ndim != 2 or len(self.cutpoints) != len(self._w0):
            raise ValueError(
                f"expected cutpoints of shape (n_samples, n_grades - 1) for {len(self._w0)} "
                f"samples, got {self.cutpoints.shape}"
            )
        self._samples = tuple(self._sample(s) for s in range(len(self._w0)))

    def _sample(self, s: int) -> FMParams:
        try:
            return FMParams(self._w0[s], self.w[s], self.V[s], self.cutpoints[s])
        except ValueError as error:
            raise ValueError(f"sample {s}: {error}") from None

    @property
    def w0(self) -> float:
        """The mean of the global biases."""
        return float(self._w0.mean())

    @property
    def n_samples(self) -> int:
        """Number of samples S."""
        return len(self._samples)

    @property
    def n_features(self) -> int:
        """Number of feature columns."""
        return self.w.shape[1]

    @property
    def n_factors(self) -> int:
        """Number of factors k of each sample."""
        return self.V.shape[2]

    @property
    def query_scale(self) -> float:
        """1/S, which makes the mean of an inner product over all samples."""
        return 1.0 / self.n_samples

    def __reduce__(self) -> tuple[Any, ...]:
        # unpickled arrays are read-only again
        return Posterior, (self._w0, self.w, self.V, self.cutpoints)

    def __repr__(self) -> str:
        return (
            f"Posterior({self.n_samples} samples, {self.n_features} features, "
            f"{self.n_factors} factors)"
        )

    def samples(self) -> Iterator[FMParams]:
        """Iterate over the samples; they are views, nothing is copied."""
        return iter(self._samples)

    def project(self, rows: Any, *, n_jobs: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return vector and bias of entities.

        Parameters
        ----------
        rows : SparseRows or matrix, shape (n, n_features)
            The features of each entity.
        n_jobs : int or None
            Threads (-1 or None: all cores). The result does not depend on it.

        Returns
        -------
        q : ndarray of float32, shape (n, n_samples * n_factors)
            The vectors of all samples side by side.
        b : ndarray of float64, shape (n,)
            The mean bias, with the pairs inside the entity.

        Raises
        ------
        ValueError, TypeError
            For rows of another width, or with NaN or infinity.

        Examples
        --------
        >>> posterior = Posterior([0.0, 0.0], [[0.5], [1.0]], [[[1.0]], [[2.0]]])
        >>> posterior.project([[1.0]])
        (array([[1., 2.]], dtype=float32), array([0.75]))
        """
        rows = as_rows(rows, n_columns=self.n_features, name="features")
        k = self.n_factors
        q = np.empty((len(rows), self.n_samples * k), np.float32)
        b = np.zeros(len(rows))
        for s, sample in enumerate(self._samples):
            q[:, s * k : (s + 1) * k], bias = sample.project(rows, n_jobs=n_jobs)
            b += bias
        return q, b / self.n_samples

    def score(self, X: Any, *, n_jobs: int | None = 1) -> np.ndarray:
        """Return the linear predictor of each row, its mean over the samples: what ranks.

        Parameters
        ----------
        X : Design, or matrix of shape (n_rows, n_features)
        n_jobs : int or None
            Threads (-1 or None: all cores). The result does not depend on it.

        Returns
        -------
        ndarray of float64, shape (n_rows,)

        Raises
        ------
        ValueError, TypeError
            For another number of features, or rows with NaN or infinity.

        Examples
        --------
        >>> Posterior([1.0, 2.0], [[0.5], [1.0]], [[[1.0]], [[2.0]]]).score([[2.0]])
        array([3.])
        """
        return self.predict(X, lambda scores, sample: scores, n_jobs=n_jobs)

    def predict(
        self, X: Any, link: Link, *, n_jobs: int | None = 1, return_std: bool = False
    ) -> Any:
        """Return the mean over the samples of what each one predicts.

        Parameters
        ----------
        X : Design, or matrix of shape (n_rows, n_features)
        link : callable
            From the scores of a sample, and the sample, to predictions: a mean of clipped ratings
            or of probabilities, not the clipped mean.
        n_jobs : int or None
            Threads (-1 or None: all cores). The result does not depend on it.
        return_std : bool
            Also return the standard deviation over the samples.

        Returns
        -------
        predictions : ndarray of float64, shape (n_rows,) or what the link makes of them
        deviations : ndarray of float64, of the same shape
            Only if asked for.

        Raises
        ------
        ValueError, TypeError
            For another number of features, or rows with NaN or infinity.

        Examples
        --------
        >>> posterior = Posterior([1.0, 2.0], [[0.5], [1.0]], [[[1.0]], [[2.0]]])
        >>> clipped = lambda scores, sample: np.clip(scores, 1, 3)
        >>> posterior.predict([[2.0]], clipped, return_std=True)
        (array([2.5]), array([0.5]))
        """
        design = design_of(X, self.n_features)
        mean, deviation = expectation(
            self, lambda sample: sample.score(design, n_jobs=n_jobs), link
        )
        return (mean, deviation) if return_std else mean

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`from_state` needs."""
        state = {"w0": self._w0, "w": self.w, "V": self.V}
        return {**state, "cutpoints": self.cutpoints} if self.cutpoints.size else state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Posterior:
        """Rebuild the samples from the arrays of :meth:`to_state`.

        Raises
        ------
        ValueError
            If an array is not one of floating-point numbers in the right shape, all finite.
        """
        return cls(*arrays_of_state(state))


def model_of_state(state: Mapping[str, np.ndarray]) -> Model:
    """Rebuild a model from its arrays: a posterior has one w0 per sample, an FM a single one.

    Raises
    ------
    ValueError
        If an array is not one of floating-point numbers in the right shape, all finite.

    Examples
    --------
    >>> model_of_state(FMParams(1.0, [0.5], [[1.0]]).to_state())
    FMParams(1 features, 1 factors)
    """
    return FMParams.from_state(state) if state["w0"].ndim == 0 else Posterior.from_state(state)
