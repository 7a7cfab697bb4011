"""Who searches in ``bench_topn.py``: fmknn's exact index and its peers, all exact, on one thread.

A side is made for one work and prepares each call, so that what a library needs to be given in
its own form is not counted. Each peer comes with several settings, of which the fastest counts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy.sparse as sp
from _topn_data import Work
from threadpoolctl import threadpool_limits

from fmknn.index.exact import ExactIndex

Found = tuple[np.ndarray, np.ndarray]  # positions and scores, best first
Call = Callable[[], Found]

PEERS = {"faiss": "faiss-cpu", "implicit": "implicit", "torch": "torch", "numpy": "numpy"}
_MOST_SCORES = 2**26  # at once: 256 MiB
_CALLS = (64, 256, 1024)


class Side(NamedTuple):
    """A way to search.

    Attributes
    ----------
    name, setting : str
    prepare : callable
        Takes work with the vectors that the side was made for; returns the call that is timed.
    step : int
        Users of one call.
    """

    name: str
    setting: str
    prepare: Callable[[Work], Call]
    step: int = 1


def find_peers() -> dict[str, str | None]:
    """Return the version of each peer; None for one that is not installed or can't be imported."""
    found: dict[str, str | None] = {}
    for name, package in PEERS.items():
        try:
            importlib.import_module(name)
            found[name] = importlib.metadata.version(package)
        except ImportError:
            found[name] = None
    return found


@contextmanager
def one_thread(peers: set[str]) -> Iterator[None]:
    """Hold BLAS, OpenMP, torch and faiss to one thread."""
    if "torch" in peers:
        import torch

        torch.set_num_threads(1)
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        faiss.omp_set_num_threads(before)


def ours(work: Work, n_jobs: int = 1, step: int = 1) -> Side:
    """Return fmknn's exact index, built for a sample of the queries as Recommender builds it."""
    sample = work.queries[:: max(1, len(work.queries) // 2000)]
    return searching(ExactIndex(n_jobs=n_jobs).build(work.vectors, sample), "fmknn", "", step)


def searching(index: Any, name: str, setting: str, step: int = 1) -> Side:
    """Return a side of an index of fmknn that is built."""

    def prepare(work: Work) -> Call:
        def call() -> Found:
            hits = index.search(work.queries, work.n, exclude=work.exclude)
            return hits.positions, hits.scores

        return call

    return Side(name, setting, prepare, step)


def peers_for(work: Work, peers: set[str]) -> list[Side]:
    """Return all settings of all peers, for calls of many users."""
    sides: list[Side] = []
    if "faiss" in peers:
        sides += _faiss(work)
    if "implicit" in peers:
        sides.append(Side("implicit", "", _implicit))
    steps = [step for step in _CALLS if step * len(work.vectors) <= _MOST_SCORES] or _CALLS[:1]
    if "torch" in peers:
        sides += [Side("torch", f"calls of {step}", _bind(_torch, step), step) for step in steps]
    return sides + [
        Side("numpy", f"{select.__name__[1:]}, calls of {step}", _bind(_numpy, step, select), step)
        for select in (_argpartition, _partition)
        for step in steps[:2]
    ]


def single_peers_for(work: Work, peers: set[str]) -> list[Side]:
    """Return all settings of those that answer one query at a time."""
    sides: list[Side] = []
    if "faiss" in peers:
        sides.append(Side("faiss", "Flat", _bind(_faiss_calls, _flat_index(work.vectors), 1)))
        sides += _panoramas(work)
    if "torch" in peers:
        sides.append(Side("torch", "", _bind(_torch, 1)))
    return sides + [
        Side("numpy", select.__name__[1:], _bind(_numpy, 1, select))
        for select in (_argpartition, _partition)
    ]


def one_by_one(side: Side) -> Side:
    """Return a side whose calls are of one query each."""

    def prepare(work: Work) -> Call:
        calls = [side.prepare(work.part(slice(u, u + 1))) for u in range(len(work.queries))]

        def call() -> Found:
            positions, scores = zip(*(single() for single in calls), strict=True)
            return np.concatenate(positions), np.concatenate(scores)

        return call

    return side._replace(prepare=prepare)


def _bind(prepare: Callable[..., Found], *settings: Any) -> Callable[[Work], Call]:
    return lambda work: lambda: prepare(work, *settings)


def _flat_index(vectors: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _faiss(work: Work) -> list[Side]:
    """Big calls; where users exclude items, users of like counts together, and more is fetched.

    Fetching n and as many as a user excludes is always enough. Fetching half of these often is,
    and whoever is left with too few comes again.
    """
    index = _flat_index(work.vectors)
    if work.exclude is None:
        return [
            Side("faiss", f"calls of {step}", _bind(_faiss_calls, index, step), step)
            for step in (4096, 8192)
        ]
    return [
        Side("faiss", f"calls of {step}, {share:g} x", _excluding(index, step, share), 4096)
        for step, share in ((1024, 1.0), (1024, 0.5), (2048, 0.5))
    ]


def _faiss_calls(work: Work, index: Any, step: int) -> Found:
    parts = [
        index.search(work.queries[start : start + step], work.n)
        for start in range(0, len(work.queries), step)
    ]
    scores, positions = zip(*parts, strict=True)
    return np.concatenate(positions), np.concatenate(scores)


def _excluding(index: Any, step: int, share: float) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        lengths = work.exclude.lengths
        order = np.argsort(lengths, kind="stable")

        def call() -> Found:
            positions = np.full((len(order), work.n), -1, np.int64)
            scores = np.full((len(order), work.n), -np.inf, np.float32)
            rest = _fetch(index, work, order, share * lengths, step, positions, scores)
            if len(rest):
                _fetch(index, work, rest, lengths, step, positions, scores)
            return positions, scores

        return call

    return prepare


def _fetch(index, work, order, more, step, positions, scores):
    """Fill the rows of some users, and return those that did not become full."""
    short = []
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        m = min(index.ntotal, work.n + int(more[rows].max()))
        found = index.search(work.queries[rows], m)
        lists = work.exclude.indptr, work.exclude.indices
        full = np.empty(len(rows), np.bool_)
        _keep_unseen(*found, rows, *lists, positions, scores, full)
        short.append(rows[~full & (m < work.n + work.exclude.lengths[rows])])
    return np.concatenate(short)


@numba.njit(nogil=True, cache=True)
def _keep_unseen(found_scores, found, rows, indptr, indices, positions, scores, full):
    n = positions.shape[1]
    for r in range(len(rows)):
        row = rows[r]
        seen = indices[indptr[row] : indptr[row + 1]]
        kept = 0
        for j in range(found.shape[1]):
            item = found[r, j]
            if kept == n or item < 0:
                break
            at = np.searchsorted(seen, item)
            if at < len(seen) and seen[at] == item:
                continue
            positions[row, kept] = item
            scores[row, kept] = found_scores[r, j]
            kept += 1
        full[r] = kept == n


def _panoramas(work: Work) -> list[Side]:
    """faiss's pruning index over rotated rows: in their order, or by falling norm."""
    import faiss

    if not hasattr(faiss, "IndexFlatIPPanorama"):
        return []
    vectors = work.vectors
    rotation = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1]
    by_norm = np.argsort(-np.linalg.norm(vectors, axis=1), kind="stable")
    sides = []
    for width, levels in ((72, 9), (128, 8)):
        if width < vectors.shape[1]:
            continue
        padded = np.zeros((vectors.shape[1], width), np.float32)
        padded[:, : len(rotation)] = rotation
        for order, name in ((np.arange(len(vectors)), ""), (by_norm, ", by norm")):
            index = faiss.IndexFlatIPPanorama(width, levels)
            index.add(vectors[order] @ padded)
            setting = f"Panorama {width}/{levels}{name}"
            sides.append(Side("faiss", setting, _bind(_panorama, index, padded, order)))
    return sides


def _panorama(work: Work, index: Any, rotation: np.ndarray, order: np.ndarray) -> Found:
    scores, places = index.search(work.queries @ rotation, work.n)
    return order[places], scores


def _implicit(work: Work) -> Call:
    from implicit.cpu.topk import topk

    lists = work.exclude
    seen = None
    if lists is not None:
        shape = len(lists), len(work.vectors)
        ones = np.ones(len(lists.indices), np.float32)
        seen = sp.csr_matrix((ones, lists.indices, lists.indptr.astype(np.int32)), shape)

    def call() -> Found:
        return topk(
            work.vectors,
            work.queries,
            work.n,
            item_norms=None,
            filter_query_items=seen,
            filter_items=None,
            num_threads=1,
        )

    return call


def _chunks(work: Work, step: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Queries, and the entries of their scores that are excluded: rows and columns."""
    for start in range(0, len(work.queries), step):
        queries = work.queries[start : start + step]
        rows = columns = np.empty(0, np.int64)
        if work.exclude is not None:
            indptr = work.exclude.indptr[start : start + len(queries) + 1]
            rows = np.repeat(np.arange(len(queries)), np.diff(indptr))
            columns = work.exclude.indices[indptr[0] : indptr[-1]]
        yield queries, rows, columns


def _numpy(work: Work, step: int, select: Callable[[np.ndarray, int], np.ndarray]) -> Found:
    found, values = [], []
    scores = np.empty((min(step, len(work.queries)), len(work.vectors)), np.float32)
    for queries, rows, columns in _chunks(work, step):
        part = np.matmul(queries, work.vectors.T, out=scores[: len(queries)])
        part[rows, columns] = -np.inf
        best = select(part, work.n)
        value = np.take_along_axis(part, best, axis=1)
        order = np.argsort(-value, axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
        values.append(np.take_along_axis(value, order, axis=1))
    return np.concatenate(found), np.concatenate(values)


def _argpartition(scores: np.ndarray, n: int) -> np.ndarray:
    return np.argpartition(scores, scores.shape[1] - n, axis=1)[:, -n:]


def _partition(scores: np.ndarray, n: int) -> np.ndarray:
    """The same, faster, as long as no score ties with the last one of a list."""
    n_items = scores.shape[1]
    least = np.partition(scores, n_items - n, axis=1)[:, n_items - n, None]
    places = np.flatnonzero(scores >= least)
    tied = len(places) != n * len(scores)
    return _argpartition(scores, n) if tied else places.reshape(-1, n) % n_items


def _torch(work: Work, step: int) -> Found:
    import torch

    items = torch.from_numpy(work.vectors).T
    found, values = [], []
    with torch.inference_mode():
        for queries, rows, columns in _chunks(work, step):
            part = torch.matmul(torch.from_numpy(queries), items)
            if work.exclude is not None:
                part[
                    torch.from_numpy(rows), torch.from_numpy(columns.astype(np.int64))
                ] = -torch.inf
            best = torch.topk(part, work.n, dim=1, sorted=True)
            found.append(best.indices.numpy())
            values.append(best.values.numpy())
    return np.concatenate(found), np.concatenate(values)
