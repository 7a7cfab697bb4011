"""A model and entity features in, the matrices of the search out.

With the item block on one side and everything else on the other, an FM is an inner product:
score = offset + <[q_u + q_c + …, 1], [q_i, b_i]>. For ids alone the rows are [V_i, w_i] and
[V_u, 1]. Search by inner product therefore ranks exactly as the FM does. A posterior of S samples
has longer vectors, [q¹ … q^S], and 1/S before those of the query: its mean score is exact too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from .base import Model
from .kernels import add_part
from .params import rows_of_columns

__all__ = ["item_matrix", "query_matrix", "user_matrix"]

_ROWS_AT_ONCE = 1024  # sums are float64: those of all rows of a posterior would take much memory


def _project(model: Model, features: Any, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(model, "project"):
        raise TypeError(
            f"model must be FMParams or Posterior (a fitted estimator's params_), got {model!r}"
        )
    return model.project(rows_of_columns(features, model.n_features), n_jobs=n_jobs)


def item_matrix(model: Model, features: Any, *, n_jobs: int | None = 1) -> np.ndarray:
    """Return the item rows [q_i, b_i] that an inner-product index searches.

    Parameters
    ----------
    model : FMParams or Posterior
    features : slice, or matrix of shape (n_items, n_features)
        The columns of the item ids, or the full feature row of each item.
    n_jobs : int or None
        Threads (-1 or None: all cores).

    Returns
    -------
    ndarray of float32, shape (n_items, width + 1)
        The width is n_factors; of a Posterior n_samples * n_factors.

    Examples
    --------
    >>> from fmknn import FMParams
    >>> params = FMParams(1.0, [0.5, 0.25, 4.0], [[1.0], [2.0], [3.0]])
    >>> item_matrix(params, slice(1, 3))
    array([[2.  , 0.25],
           [3.  , 4.  ]], dtype=float32)
    """
    q, b = _project(model, features, n_jobs)
    return np.concatenate([q, b[:, None].astype(np.float32)], axis=1)


def user_matrix(
    model: Model, features: Any, return_offset: bool = False, *, n_jobs: int | None = 1
) -> Any:
    """Return the query rows [q_u, 1]; of a posterior [q_u / S, 1].

    Parameters
    ----------
    model : FMParams or Posterior
    features : slice, or matrix of shape (n_users, n_features)
        The columns of the user ids, or the full feature row (user and context) of each query.
    return_offset : bool
        Also return what is the same for all items of a query: w0 + b_u.
    n_jobs : int or None
        Threads (-1 or None: all cores).

    Returns
    -------
    queries : ndarray of float32, shape (n_users, width + 1)
    offsets : ndarray of float64, shape (n_users,)
        Only if asked for. score = offset + <query row, item row>.

    Examples
    --------
    >>> from fmknn import FMParams
    >>> params = FMParams(1.0, [0.5, 0.25, 4.0], [[1.0], [2.0], [3.0]])
    >>> queries, offsets = user_matrix(params, slice(0, 1), return_offset=True)
    >>> queries, offsets
    (array([[1., 1.]], dtype=float32), array([1.5]))
    >>> offsets + queries @ item_matrix(params, slice(1, 3)).T
    array([[3.75, 8.5 ]])
    """
    part = _project(model, features, n_jobs)
    queries, offsets = query_matrix(model, [part], n_jobs=n_jobs)
    return (queries, offsets) if return_offset else queries


def query_matrix(
    model: Model,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_jobs: int | None = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Combine the blocks of queries: user, and any number of contexts.

    Parameters
    ----------
    model : FMParams or Posterior
    parts : sequence of (q, b)
        For each block the vector and bias of each query's entity, as ``model.project`` gives them.

    Returns
    -------
    queries : ndarray of float32, shape (n, width + 1)
        [query_scale · Σ_g q_g, 1].
    offsets : ndarray of float64, shape (n,)
        w0 + Σ_g b_g + query_scale · Σ_{g<h} <q_g, q_h>.
    """
    n, width = parts[0][0].shape
    offsets = np.full(n, model.w0, np.float64)
    queries = np.ones((n, width + 1), np.float32)
    scale = model.query_scale
    checked = [(read_only(q, np.float32), read_only(b, np.float64)) for q, b in parts]

    def task(start: int, stop: int) -> None:
        for first in range(start, stop, _ROWS_AT_ONCE):
            rows = slice(first, min(first + _ROWS_AT_ONCE, stop))
            size = rows.stop - first
            total = np.zeros((size, width), np.float64)
            for q, b in checked:
                add_part(q[rows], b[rows], scale, total, offsets[rows], 0, size)
            queries[rows, :-1] = total

    run_ranges(task, n, n_jobs)
    return queries, offsets
