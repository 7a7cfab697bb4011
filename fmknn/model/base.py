"""The model protocol: what one FM and a posterior of several have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from .params import FMParams

__all__ = ["Link", "Model", "expectation"]

Link = Callable[[np.ndarray, "FMParams"], np.ndarray]  # scores, and the sample that they are of


@runtime_checkable
class Model(Protocol):
    """What was learned: one :class:`FMParams`, or samples of it whose scores are averaged."""

    @property
    def w0(self) -> float:
        """Global bias."""
        ...

    @property
    def n_features(self) -> int:
        """Number of feature columns."""
        ...

    @property
    def n_factors(self) -> int:
        """Number of factors k of one FM; the vectors of :meth:`project` may be longer."""
        ...

    @property
    def query_scale(self) -> float:
        """What inner products of projected vectors are multiplied with to give scores."""
        ...

    def samples(self) -> Iterator[FMParams]:
        """Iterate over the FMs whose scores are averaged."""
        ...

    def project(self, rows: Any, *, n_jobs: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return vector q and bias b of entities: float32 (n, width) and float64 (n,).

        score = w0 + Σ_g b_g + query_scale · Σ_{g<h} <q_g, q_h>.
        """
        ...

    def score(self, X: Any, *, n_jobs: int | None = 1) -> np.ndarray:
        """Return the linear predictor of each row, the number that ranks; float64 (n_rows,)."""
        ...

    def predict(
        self, X: Any, link: Link, *, n_jobs: int | None = 1, return_std: bool = False
    ) -> Any:
        """Return what the scores stand for, and its standard deviation if asked for."""
        ...

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that the model is saved as."""
        ...


def expectation(
    model: Model, score: Callable[[FMParams], np.ndarray], link: Link
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over a model's samples of what their scores stand for.

    Parameters
    ----------
    model : Model
    score : callable
        From one sample to the scores of some rows, shape (n,).
    link : callable
        ``link(score(sample), sample)`` is what the scores stand for, an array with an entry or a
        row for each.

    Returns
    -------
    mean, deviation : ndarray of float64, shape (n,) or (n, …)
        The deviation is that of the samples themselves: the mean square is divided by their
        number.

    Notes
    -----
    One pass, holding no sample's values (Welford, "Note on a method for calculating corrected sums
    of squares and products", Technometrics 1962).

    Examples
    --------
    >>> from fmknn.model.posterior import Posterior
    >>> posterior = Posterior([1.0, 5.0], [[0.0], [0.0]], np.empty((2, 1, 0)))
    >>> at_most_4 = lambda scores, sample: np.minimum(scores, 4.0)
    >>> expectation(posterior, lambda sample: sample.score([[1.0]]), at_most_4)
    (array([2.5]), array([1.5]))
    """
    mean = squares = np.empty(0)
    count = 0
    for count, sample in enumerate(model.samples(), 1):
        values = np.asarray(link(score(sample), sample), np.float64)
        if count == 1:
            mean, squares = values.copy(), np.zeros(values.shape)
            continue
        difference = values - mean
        mean += difference / count
        squares += difference * (values - mean)
    return mean, np.sqrt(squares / count)
