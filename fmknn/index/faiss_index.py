"""faiss chooses the candidates; exact scores and full lists come from rank and overfetch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .._checks import require_count
from .._threads import blas_threads, thread_count
from .base import HasVectors, Hits, ItemLists, as_vectors, search_arguments
from .compression import Compression, search_compressed
from .faiss_kinds import known_kind, selector_type
from .faiss_selectors import FaissSelector
from .overfetch import search_by_overfetch
from .recall import MeasuresRecall
from .tuning import Tuning, require_recall, sampled, tune, warn_if_missed

__all__ = ["FaissIndex"]

_OPTIONS = ("nlist", "nprobe", "n_jobs", "compress", "target_recall", "ef_search")


class FaissIndex(HasVectors, MeasuresRecall):
    """Inner-product search by faiss.

    Parameters
    ----------
    kind : str
        "Flat" is exact. The others may miss items, but never return a wrong score:

        - "IVF" looks only into the ``nprobe`` cells nearest to the query, out of ``nlist``;
        - "IVFPQ" does so among codes of a byte for two numbers, for catalogues beyond memory;
        - "HNSW" walks a graph of near items, and sees at least ``ef_search`` of them;
        - "SQ8" scans all items, with a byte for each number;
        - any string of faiss's ``index_factory``, such as "OPQ16,IVF256,PQ16", "HNSW48,Flat" or
          "IVF100,SQ8".

        SageMaker's names "faiss.Flat", "faiss.IVFFlat" and "faiss.IVFPQ" mean the first three.
    nlist : int, optional
        Cells of "IVF" and "IVFPQ"; default min(4 √n, n / 39), at least 1.
    nprobe : int, optional
        Cells to look into; default a quarter of them, at least 32.
    n_jobs : int, optional
        Threads of faiss and of the exact ranking; default all cores. Answers don't depend on it.
    compress : int, optional
        Choose candidates (2 n + 30 for a list of n) among rows of only so many numbers, and rank
        these over the full rows: it may miss items, but never returns a wrong score. For the long
        rows of a posterior, of which 32 are enough; see the Notes.
    target_recall : float, optional
        The share of the exact lists to find, above 0 and up to 1. :meth:`build` then tries on its
        queries what is the least work that surely does; ``nprobe`` and ``ef_search`` are not given.
        It holds for queries like those: lists with another ``popularity`` than 1 may fall short.
    ef_search : int, optional
        Items that a graph's walk keeps in sight; default 128.

    Attributes
    ----------
    tuning_ : Tuning or None
        What ``target_recall`` led to: recall, users per second, parameters.

    Raises
    ------
    ValueError
        For an unknown kind, a number that is no integer of at least 1, or a recall out of range.

    Notes
    -----
    Item rows [q_i, b_i] differ much in norm, which spoils cells made for inner products. The IVF
    therefore divides by the largest norm M and adds a column √(1 - ‖x‖²/M²): all items then lie on
    a sphere, and the largest inner product is the smallest Euclidean distance (Bachrach et al.,
    "Speeding Up the Xbox Recommender System", RecSys 2014). The same is done for a factory string
    in which a part begins with "IVF". All others get the rows as they are, up to one factor, and
    search by inner product: a graph is better without the column, for long items are its hubs
    (Morozov and Babenko, "Non-metric Similarity Graphs for Maximum Inner Product Search",
    NeurIPS 2018). Where a quantizer wants another width, columns of zeros are added.

    Tuning asks for lists of 10 and of 100 without exclusions, for up to 1000 of the queries, and
    compares with exact answers. The recall less 2.576 of its standard errors has to be at least the
    target, so that other users of the same kind find as much. A sample should have a few hundred.

    What ``compress`` does, and what it misses, is told in
    :class:`fmknn.index.compression.Compression`.

    Examples
    --------
    >>> import numpy as np
    >>> index = FaissIndex("Flat").build(np.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> hits = index.search(np.array([[1.0, 1.0]]), n=1)
    >>> hits.positions, hits.scores
    (array([[1]], dtype=int32), array([[2.]]))

    Items that differ in one direction only need one number to be told apart:

    >>> rows = np.outer(np.arange(100.0), [1.0, 2.0, 3.0])
    >>> FaissIndex("Flat", compress=1).build(rows).search([[1.0, 0.0, 0.0]], n=3).scores
    array([[99., 98., 97.]])
    """

    def __init__(
        self,
        kind: str = "Flat",
        *,
        nlist: int | None = None,
        nprobe: int | None = None,
        n_jobs: int | None = None,
        compress: int | None = None,
        target_recall: float | None = None,
        ef_search: int | None = None,
    ) -> None:
        thread_count(n_jobs)
        self.kind = known_kind(kind)
        self.nlist = None if nlist is None else require_count("nlist", nlist)
        self.nprobe = None if nprobe is None else require_count("nprobe", nprobe)
        self.n_jobs = None if n_jobs is None else int(n_jobs)
        self.compress = None if compress is None else require_count("compress", compress)
        self.target_recall = None if target_recall is None else require_recall(target_recall)
        self.ef_search = None if ef_search is None else require_count("ef_search", ef_search)
        if target_recall is not None and not (nprobe is None and ef_search is None):
            raise ValueError(
                "target_recall finds nprobe and ef_search itself: give it or one of them"
            )
        self.tuning_: Tuning | None = None
        self._batches: list[int] = []  # rows of the build and of each add
        self._selector: Any = None
        self._compression: Compression | None = None
        self._rows: Any = None  # what the selector searches

    def __repr__(self) -> str:
        size = "not built" if self._vectors is None else f"{self.n_items} items"
        compress = "" if self.compress is None else f"compress={self.compress}, "
        return f"FaissIndex({self.kind!r}, {compress}{size})"

    @property
    def tunes_on_queries(self) -> bool:
        """Whether :meth:`build` makes use of queries."""
        return self.compress is not None or self.target_recall is not None

    def compressed(self, compress: int) -> FaissIndex:
        """Return an index of the same settings, still empty, that compresses to so many numbers.

        Examples
        --------
        >>> FaissIndex("IVF").compressed(32)
        FaissIndex('IVF', compress=32, not built)
        """
        settings = {**self._settings(), "compress": compress}
        return FaissIndex(settings.pop("kind"), **settings)

    def build(self, vectors: Any, queries: Any = None) -> FaissIndex:
        """Return an index over the rows of a matrix; this object stays as it was.

        Parameters
        ----------
        vectors : array-like of float, shape (n_items, dim)
        queries : array-like of float, shape (n_queries, dim), optional
            A sample of what will be asked. ``target_recall`` needs it; ``compress`` is made for it,
            or without it for all directions alike.

        Returns
        -------
        FaissIndex
            Of the same settings. The same at each build, however many threads there are.

        Raises
        ------
        ValueError
            If there is no row, a row holds NaN or infinity, there are fewer rows than ``nlist``,
            faiss can't make such an index of them, queries are of another width, or
            ``target_recall`` has none.
        TypeError
            For anything that is no matrix of real numbers.

        Warns
        -----
        RecallWarning
            If no parameters reach ``target_recall``: those that find most are kept.
        """
        matrix = as_vectors(vectors, "vectors")
        if len(matrix) == 0:
            raise ValueError("vectors has no rows: there is nothing to search")
        asked = None if queries is None else as_vectors(queries, "queries", matrix.shape[1])
        target, sample = self.target_recall, None
        if target is not None:
            sample = sampled(asked, target)
        maps = None if self.compress is None else Compression.fit(matrix, asked, self.compress)
        built = self._with(matrix, maps, [len(matrix)], selector_type(self.kind).train)
        return built if target is None or sample is None else built._tuned(sample, target)

    def _with(
        self, matrix: np.ndarray, maps: Compression | None, batches: list[int], selector: Any
    ) -> FaissIndex:
        built = copy.copy(self)
        built.tuning_ = None
        built._vectors, built._compression, built._batches = matrix, maps, batches
        built._rows = matrix
        if maps is not None:
            built._rows = maps.compress_items(matrix, self.n_jobs, n_first=batches[0])
        built._selector = selector(built._rows, self)
        return built

    def _tuned(self, queries: np.ndarray, target: float) -> FaissIndex:
        exact = FaissIndex("Flat", n_jobs=self.n_jobs).build(self.vectors)
        selector: FaissSelector = self._selector
        tuning = tune(
            lambda parameters, n: self._looking(parameters).search(queries, n),
            lambda n: exact.search(queries, n),
            selector.limits(),
            selector.work,
            target,
            self.n_items,
        )
        tuned = self._looking(tuning.parameters)
        tuned.tuning_ = tuning
        warn_if_missed(tuning, target, repr(self), stacklevel=4)
        return tuned

    def _looking(self, parameters: Mapping[str, int]) -> FaissIndex:
        other = copy.copy(self)
        other._selector = self._selector.with_parameters(parameters)
        return other

    def add(self, vectors: Any) -> FaissIndex:
        """Return an index over the old rows and these after them; this object stays as it was.

        Cells, codes and graph are kept, and the new rows find their places in them; so are the
        maps of ``compress`` and what was tuned. Build anew when a good part of the rows is new, a
        tenth say, or when new rows are much longer than all old ones or lie elsewhere: lists may
        miss more then, which :meth:`recall_against` shows.

        Parameters
        ----------
        vectors : array-like of float, shape (n_new, dim)

        Returns
        -------
        FaissIndex

        Raises
        ------
        ValueError
            If this index is not built, rows are of another width or hold NaN or infinity, or faiss
            can't add to such an index.

        Examples
        --------
        >>> index = FaissIndex("IVF").build([[1.0], [3.0]])
        >>> index.add([[2.0]]).search([[1.0]], n=3).positions
        array([[1, 2, 0]], dtype=int32)
        """
        old = self.vectors
        new = as_vectors(vectors, "vectors", old.shape[1])
        if len(new) == 0:
            return copy.copy(self)
        batches = [*self._batches, len(new)]
        matrix = as_vectors(np.concatenate([old, new]), "vectors")
        added = self._with(
            matrix, self._compression, batches, lambda rows, _: self._selector.add(rows, batches)
        )
        added.tuning_ = self.tuning_
        return added

    def search(
        self,
        queries: Any,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Any = None,
        exclude_items: Any = None,
    ) -> Hits:
        """Return the n items with the largest inner product for each query.

        Parameters
        ----------
        queries : array-like of float, shape (n_queries, dim)
        n : int
            List length; fewer come back where fewer are available. Ties go by position.
        exclude : ItemLists, optional
            Items that must not come back, a list per query.
        candidates : array-like of int, shape (n_candidates,), optional
            Positions of the only items that may come back, the same for all queries.
        exclude_items : array-like of int, shape (n_excluded,), optional
            Positions of items that must not come back, the same for all queries.

        Returns
        -------
        Hits

        Raises
        ------
        ValueError
            For n below 1, queries of another width or with NaN, positions out of range, or
            another number of lists than of queries.
        TypeError
            If ``exclude`` is no ItemLists, or ``candidates`` or ``exclude_items`` are no integers.

        Examples
        --------
        >>> index = FaissIndex().build([[1.0], [3.0], [2.0]])
        >>> index.search([[1.0], [1.0]], n=2).positions
        array([[1, 2],
               [1, 2]], dtype=int32)
        >>> index.search(
        ...     [[1.0], [1.0]], n=2, exclude=ItemLists.from_pairs([0], [1], n_queries=2)
        ... ).positions
        array([[2, 0],
               [1, 2]], dtype=int32)
        """
        matrix, n, exclude, allowed = search_arguments(
            queries, n, exclude, candidates, self.vectors, exclude_items
        )
        arguments = self.vectors, matrix, n, exclude, allowed, self.n_jobs
        with blas_threads(None if self.n_jobs is None else thread_count(self.n_jobs)):
            if self._compression is None:
                return search_by_overfetch(self._selector, *arguments)
            return search_compressed(self._search_rows, self._compression, *arguments)

    def _search_rows(
        self, rows: np.ndarray, n: int, exclude: ItemLists, allowed: np.ndarray | None
    ) -> Hits:
        return search_by_overfetch(
            self._selector, self._rows, rows, n, exclude, allowed, self.n_jobs
        )

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what :meth:`from_state` needs beyond the vectors; no bytes of faiss's own."""
        maps = {} if self._compression is None else self._compression.to_state()
        tuning = None if self.tuning_ is None else self.tuning_.to_state()
        settings = {**self._settings(), "batches": self._batches, "tuning": tuning}
        return {**self._selector.to_state(), **maps}, settings

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kind", *_OPTIONS)}

    @classmethod
    def from_state(
        cls, vectors: Any, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> FaissIndex:
        """Rebuild, over the same vectors, an index that gives the same answers.

        Codes and graphs are made again from the vectors: by another version of faiss, or on another
        processor, they may choose other candidates.

        Raises
        ------
        ValueError
            If the state does not fit the vectors, or a setting is out of range.
        """
        options = {name: settings.get(name) for name in _OPTIONS}  # older files have fewer
        index = cls(settings["kind"], **options)
        matrix = as_vectors(vectors, "vectors")
        batches = _batches(settings.get("batches"), len(matrix))
        maps = None
        if index.compress is not None:
            maps = Compression.from_state(state, matrix.shape[1], index.compress)
        selector = partial(selector_type(index.kind).from_state, state=state, batches=batches)
        built = index._with(matrix, maps, batches, selector)
        saved = settings.get("tuning")
        if (saved is None) != (index.target_recall is None):
            raise ValueError("target_recall goes with what was tuned for it, both or neither")
        if saved is None:
            return built
        tuning = Tuning.from_state(saved)
        built = built._looking(tuning.parameters)
        built.tuning_ = tuning
        return built


def _batches(saved: Any, n_items: int) -> list[int]:
    """Return the saved row counts of the build and of each add; older files have none."""
    if saved is None:
        return [n_items]
    if not isinstance(saved, list) or sum(require_count("batches", n) for n in saved) != n_items:
        raise ValueError(f"the saved batches do not add up to the {n_items} items")
    return list(saved)
