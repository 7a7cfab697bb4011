"""FMParams: the parameters of a factorization machine, and the score they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._threads import run_ranges
from ..data.blocks import Design, design_of_rows
from ..data.rows import SparseRows, as_rows, read_only
from .base import Link, expectation
from .kernels import entity_vectors, score_rows

__all__ = ["FMParams"]


class FMParams:
    """Parameters of a factorization machine of order 2.

    Parameters
    ----------
    w0 : float
        Global bias.
    w : array-like of float, shape (n_features,)
        Linear weights.
    V : array-like of float, shape (n_features, n_factors)
        Factors.
    cutpoints : array-like of float, shape (n_grades - 1,), optional
        Of an ordinal model, increasing: where the score passes one, the next grade is the likelier.

    Raises
    ------
    ValueError
        If shapes do not fit, a parameter is NaN or infinite, or cutpoints do not increase.

    Notes
    -----
    y(x) = w0 + Σ_p w_p x_p + Σ_{p<q} <v_p, v_q> x_p x_q (Rendle, "Factorization Machines",
    ICDM 2010, eq. 1). All arrays are read-only, w and V float32, cutpoints float64.

    Examples
    --------
    >>> params = FMParams(1.0, [0.5, 0.25], [[1.0], [2.0]])
    >>> params.score([[1.0, 1.0], [1.0, 0.0]])
    array([3.75, 1.5 ])
    """

    __slots__ = ("V", "cutpoints", "w", "w0")

    def __init__(self, w0: float, w: Any, V: Any, cutpoints: Any = ()) -> None:
        self.w0 = float(w0)
        self.w = read_only(w, np.float32)
        self.V = read_only(V, np.float32)
        if self.w.ndim != 1 or self.V.ndim != 2 or len(self.w) != len(self.V):
            raise ValueError(
                "expected w of shape (n_features,) and V of shape (n_features, n_factors), got "
                f"{self.w.shape} and {self.V.shape}"
            )
        for name, values in (("w0", np.array([self.w0])), ("w", self.w), ("V", self.V)):
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise ValueError(f"parameter {name} contains NaN or infinity at feature {row}")
        self.cutpoints = read_only(cutpoints, np.float64)
        if self.cutpoints.ndim != 1 or not _is_increasing(self.cutpoints):
            raise ValueError(
                "cutpoints must be finite numbers in increasing order, got an array of shape "
                f"{self.cutpoints.shape} that is not"
            )

    @property
    def n_features(self) -> int:
        """Number of feature columns."""
        return len(self.w)

    @property
    def n_factors(self) -> int:
        """Number of factors k."""
        return self.V.shape[1]

    @property
    def query_scale(self) -> float:
        """1.0: inner products of projected vectors are part of the score as they are."""
        return 1.0

    def __reduce__(self) -> tuple[Any, ...]:
        # unpickled arrays are read-only again
        return FMParams, (self.w0, self.w, self.V, self.cutpoints)

    def __repr__(self) -> str:
        return f"FMParams({self.n_features} features, {self.n_factors} factors)"

    def samples(self) -> Iterator[FMParams]:
        """Iterate over the FMs whose scores are averaged: this one."""
        return iter((self,))

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
        q : ndarray of float32, shape (n, n_factors)
        b : ndarray of float64, shape (n,)

        Raises
        ------
        ValueError, TypeError
            For rows of another width, or with NaN or infinity.

        Notes
        -----
        q_e = Σ_p x_p v_p and b_e = Σ_p w_p x_p + ½(‖q_e‖² − Σ_p x_p² ‖v_p‖²), the second term
        being the pairs inside the entity. For any number of blocks
        y = w0 + Σ_g b_g + Σ_{g<h} <q_g, q_h>, exactly.

        Examples
        --------
        >>> FMParams(1.0, [0.5, 0.25], [[1.0], [2.0]]).project([[1.0, 1.0]])
        (array([[3.]], dtype=float32), array([2.75]))
        """
        rows = as_rows(rows, n_columns=self.n_features, name="features")
        q = np.empty((len(rows), self.n_factors), np.float32)
        b = np.empty(len(rows), np.float64)

        def task(start: int, stop: int) -> None:
            entity_vectors(
                rows.indptr, rows.indices, rows.values, self.w, self.V, q, b, start, stop
            )

        run_ranges(task, len(rows), n_jobs)
        return q, b

    def score(self, X: Any, *, n_jobs: int | None = 1) -> np.ndarray:
        """Return the linear predictor of each row, the number that ranks.

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
        >>> FMParams(1.0, [0.5, 0.25], [[1.0], [2.0]]).score([[1.0, 0.0]])
        array([1.5])
        """
        design = design_of(X, self.n_features)
        q, b = self.project(design.entities, n_jobs=n_jobs)
        scores = np.empty(design.n_rows, np.float64)

        def task(start: int, stop: int) -> None:
            score_rows(design.index, q, b, self.w0, scores, start, stop)

        run_ranges(task, design.n_rows, n_jobs)
        return scores

    def predict(
        self, X: Any, link: Link, *, n_jobs: int | None = 1, return_std: bool = False
    ) -> Any:
        """Return what the scores of the rows stand for.

        Parameters
        ----------
        X : Design, or matrix of shape (n_rows, n_features)
        link : callable
            From scores, and the parameters that they are of, to predictions.
        n_jobs : int or None
            Threads (-1 or None: all cores). The result does not depend on it.
        return_std : bool
            Also return the standard deviation over the samples, which is 0 for a single one.

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
        >>> params = FMParams(1.0, [0.5, 0.25], [[1.0], [2.0]])
        >>> params.predict([[1.0, 1.0], [1.0, 0.0]], lambda scores, fm: np.clip(scores, 1, 3))
        array([3. , 1.5])
        """
        mean, deviation = expectation(self, lambda fm: fm.score(X, n_jobs=n_jobs), link)
        return (mean, deviation) if return_std else mean

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`from_state` needs."""
        state = {"w0": np.array(self.w0), "w": self.w, "V": self.V}
        return {**state, "cutpoints": self.cutpoints} if len(self.cutpoints) else state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> FMParams:
        """Rebuild the parameters from the arrays of :meth:`to_state`.

        Raises
        ------
        ValueError
            If an array is not one of floating-point numbers in the right shape, all finite.
        """
        w0, *arrays = arrays_of_state(state)
        if w0.ndim != 0:
            raise ValueError(f"the parameter w0 must be a number, not of shape {w0.shape}")
        return cls(float(w0), *arrays)


def arrays_of_state(state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return w0, w, V and, where there are any, the cutpoints, all of floating-point numbers.

    Raises
    ------
    ValueError
        If one is of another type.
    """
    names = [*("w0", "w", "V"), *(name for name in ("cutpoints",) if name in state)]
    for name in names:
        if state[name].dtype.kind != "f":
            raise ValueError(f"the parameter {name} must be of float numbers")
    return [state[name] for name in names]


def _is_increasing(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values[1:] > values[:-1]).all())


def design_of(X: Any, n_features: int) -> Design:
    """Return a design as it is, and a matrix as one whose entities are its rows.

    Raises
    ------
    ValueError, TypeError
        For another number of features, or rows with NaN or infinity.
    """
    if not isinstance(X, Design):
        return design_of_rows(as_rows(X, n_columns=n_features), {})
    if X.n_features != n_features:
        raise ValueError(f"the design has {X.n_features} features, the model {n_features}")
    return X


def rows_of_columns(features: Any, n_features: int) -> SparseRows:
    """Return one-hot rows for a slice of id columns, or the given rows as they are."""
    if not isinstance(features, slice):
        return as_rows(features, n_columns=n_features, name="features")
    start, stop, step = features.indices(n_features)
    outside = any(abs(end or 0) > n_features for end in (features.start, features.stop))
    if step != 1 or stop <= start or outside:
        raise ValueError(
            f"features must be a slice of columns within 0..{n_features - 1}, got {features}"
        )
    return SparseRows.one_hot(stop - start, start, n_features)
