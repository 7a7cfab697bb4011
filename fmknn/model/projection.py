"""A model and entity features in, the matrices of the search out.

With the item block on one side and everything else on the other, an FM is an inner product:
score = offset + <[q_u + q_c + …, 1], [q_i, b_i]>. For ids alone the rows are [V_i, w_i] and
[V_u, 1]. Search by inner product therefore ranks exactly as the FM does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._threads import run_ranges
from ..data.rows import read_only
from .kernels import add_part
from .params import FMParams, rows_of_columns

__all__ = ["item_matrix", "query_matrix", "user_matrix"]


def _project(model: Any, features: Any, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(model, "project"):
        raise TypeError(f"model must be FMParams (a fitted estimator's params_), got {model!r}")
    return model.project(rows_of_columns(features, model.n_features), n_jobs=n_jobs)


def item_matrix(model: FMParams, features: Any, *, n_jobs: int | None = 1) -> np.ndarray:
    """Return the item rows [q_i, b_i] that an inner-product index searches.

    Parameters
    ----------
    model : FMParams
    features : slice, or matrix of shape (n_items, n_features)
        The columns of the item ids, or the full feature row of each item.
    n_jobs : int or None
        Threads (-1 or None: all cores).

    Returns
    -------
    ndarray of float32, shape (n_items, n_factors + 1)

    Examples
    --------
    >>> params = FMParams(1.0, [0.5, 0.25, 4.0], [[1.0], [2.0], [3.0]])
    >>> item_matrix(params, slice(1, 3))
    array([[2.  , 0.25],
           [3.  , 4.  ]], dtype=float32)
    """
    q, b = _project(model, features, n_jobs)
    return np.concatenate([q, b[:, None].astype(np.float32)], axis=1)


def user_matrix(
    model: FMParams, features: Any, return_offset: bool = False, *, n_jobs: int | None = 1
) -> Any:
    """Return the query rows [q_u, 1].

    Parameters
    ----------
    model : FMParams
    features : slice, or matrix of shape (n_users, n_features)
        The columns of the user ids, or the full feature row (user and context) of each query.
    return_offset : bool
        Also return what is the same for all items of a query: w0 + b_u.
    n_jobs : int or None
        Threads (-1 or None: all cores).

    Returns
    -------
    queries : ndarray of float32, shape (n_users, n_factors + 1)
    offsets : ndarray of float64, shape (n_users,)
        Only if asked for. score = offset + <query row, item row>.

    Examples
    --------
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
    model: FMParams,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_jobs: int | None = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Combine the blocks of queries: user, and any number of contexts.

    Parameters
    ----------
    model : FMParams
    parts : sequence of (q, b)
        For each block the vector and bias of each query's entity, as ``model.project`` gives them.

    Returns
    -------
    queries : ndarray of float32, shape (n, n_factors + 1)
        [Σ_g q_g, 1].
    offsets : ndarray of float64, shape (n,)
        w0 + Σ_g b_g + Σ_{g<h} <q_g, q_h>.
    """
    n = len(parts[0][0])
    total = np.zeros((n, model.n_factors), np.float64)
    offsets = np.full(n, model.w0, np.float64)
    for part_q, part_b in parts:
        q, b = read_only(part_q, np.float32), read_only(part_b, np.float64)

        def task(start: int, stop: int, q: np.ndarray = q, b: np.ndarray = b) -> None:
            add_part(q, b, total, offsets, start, stop)

        run_ranges(task, n, n_jobs)
    queries = np.empty((n, model.n_factors + 1), np.float32)
    queries[:, :-1] = total
    queries[:, -1] = 1.0
    return queries, offsets
