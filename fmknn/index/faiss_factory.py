"""Any structure that faiss makes of a string: HNSW graphs, quantized codes, cells of codes.

Each query is searched by itself: some of these structures round differently in a batch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._threads import blas_threads, run_ranges
from .faiss_selectors import (
    Settings,
    Tunable,
    augmented,
    bitmap,
    default_nlist,
    default_nprobe,
    largest_norm,
    load_faiss,
    one_thread,
    unit_rows,
)

__all__ = ["Factory", "require_factory_string"]

_DEFAULT_EF_SEARCH = 128
_DEFAULT_OVERFETCH = 4  # codes tell near neighbours from far ones, not the nearest
_MOST_OVERFETCH = 32
_MOST_EF_SEARCH = 4096
_MOST_CODES = 64  # per row: two numbers a code, more in longer rows
_LEAST_TRAINED = 256  # rows: as many as a code of 8 bits has values
_RANGES = {  # of the numbers in a string,
    "IVF": (1, 10**9),
    "HNSW": (2, 256),
    "NSG": (2, 256),
    **dict.fromkeys(("RQ", "LSQ", "PRQ", "PLSQ"), (1, 64)),
    "x": (1, 12),  # bits
}
_ANY_NUMBER = (1, 1024)  # so that one in a file can't ask for all memory
_LEAST_WIDTHS = 64  # that are tried at least for a quantizer
_SIMD_WIDTH = 8  # numbers of a byte that faiss scores at a time, if all rows are whole multiples
_ROWS_PER_CODE = 64  # to train a quantizer on: more would change little, and take minutes
_ITERATIONS = 10  # as for cells
_QUERIES_PER_TASK = 16
_RANKING_COST = 4  # a row that is ranked is read at random and summed in float64


def require_factory_string(text: str) -> None:
    """Refuse a string that faiss does not know, or with a number that no index needs.

    Raises
    ------
    ValueError
    """
    unknown = (
        f"unknown faiss index {text[:80]!r}: there are Flat, IVF, IVFPQ, HNSW, SQ8 and faiss's "
        'factory strings, as "OPQ16,IVF256,PQ16"'
    )
    if re.search(r"IMI|Panorama|_2\+", text) or not re.fullmatch(r"[ -~]{1,80}", text):
        raise ValueError(unknown)
    for word, digits in re.findall(r"([A-Za-z]*)(\d+)", text):
        least, most = _RANGES.get(word, _ANY_NUMBER)
        if len(digits) > len(str(most)) or not least <= int(digits) <= most:
            raise ValueError(
                f"faiss index {text!r}: {word}{digits} is out of range, {least} to {most}"
            )
    try:  # with one cell: whether there are items for all is seen when they are there
        load_faiss().index_factory(_LEAST_WIDTHS, re.sub(r"IVF\d+", "IVF1", text), _metric(text))
    except RuntimeError as error:
        if "could not parse" in str(error):
            raise ValueError(unknown) from error


class Factory(Tunable):
    """A faiss structure, trained on the first batch of rows and filled with all.

    Rows are divided by the largest norm, and put on the sphere where there are cells. Columns of
    zeros are added where a quantizer wants another width.
    """

    def __init__(self, rows: np.ndarray, settings: Settings, batches: list[int]) -> None:
        trained = rows[: batches[0]]
        text = _factory_string(settings, *trained.shape)
        _require_enough(text, len(trained))
        self._settings = settings
        self._on_sphere = _has_cells(text)
        self._radius = largest_norm(trained)
        self._dim = rows.shape[1]
        self._index = _empty(text, max(1, self._dim + self._on_sphere))
        points = self._prepared(trained)
        with _quick_training(self._index):
            # faiss's OPQ writes beyond its memory where there are fewer rows than columns
            least = max(_LEAST_TRAINED, self._index.d)
            self._run("train", np.tile(points, (max(1, -(-least // len(points))), 1)))
        at = 0
        for size in batches:
            self._run("add", self._prepared(rows[at : at + size]))
            at += size
        self.parameters = self._default_parameters(settings)
        self._filters = self._takes_filters()

    @classmethod
    def train(cls, rows: np.ndarray, settings: Settings) -> Factory:
        return cls(rows, settings, [len(rows)])

    @classmethod
    def from_state(
        cls,
        rows: np.ndarray,
        settings: Settings,
        state: Mapping[str, np.ndarray],
        batches: list[int],
    ) -> Factory:
        return cls(rows, settings, batches)

    def to_state(self) -> dict[str, np.ndarray]:
        return {}  # building it again, in the same batches, gives the same structure

    def add(self, rows: np.ndarray, batches: list[int]) -> Factory:
        other = copy.copy(self)
        try:
            other._index = load_faiss().clone_index(self._index)
        except RuntimeError:  # what faiss can't copy is made again
            return Factory(rows, self._settings, batches).with_parameters(self.parameters)
        other._run("add", other._prepared(rows[-batches[-1] :]))
        return other

    def limits(self) -> dict[str, int]:
        limits = {}
        if not _is_lossless(self._index):
            limits["overfetch"] = _MOST_OVERFETCH
        if self._cells() is not None:
            limits["nprobe"] = self._cells().nlist
        if self._is_graph():
            limits["ef_search"] = _MOST_EF_SEARCH
        return limits

    def work(self, parameters: Mapping[str, int], m: int) -> float:
        ranked = m * parameters.get("overfetch", 1) * _RANKING_COST * 4 * self._dim
        if self._is_graph():
            return parameters["ef_search"] * 4.0 * self._dim + ranked
        cells = self._cells()
        share = 1.0 if cells is None else parameters["nprobe"] / cells.nlist
        return share * self._index.ntotal * self._structure().sa_code_size() + ranked

    def fetch(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = unit_rows(queries, self._index.d)
        selector = bitmap(allowed, self._index.ntotal) if self._filters else None
        params = self._search_parameters(effort, allowed, selector)
        candidates = np.empty((len(rows), m), np.int64)
        values = np.empty((len(rows), m), np.float32)
        pointer = load_faiss().swig_ptr

        def task(start: int, stop: int) -> None:
            with one_thread():
                for row in range(start, stop):
                    self._index.search_c(
                        1,
                        pointer(rows[row]),
                        m,
                        pointer(values[row]),
                        pointer(candidates[row]),
                        params,
                    )

        run_ranges(task, len(rows), self._settings.n_jobs, smallest=_QUERIES_PER_TASK)
        if allowed is not None and selector is None:
            candidates[~np.isin(candidates, allowed)] = -1
        return candidates, np.full(len(rows), -np.inf)

    def _prepared(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows as faiss gets them."""
        scaled = augmented(rows, self._radius)
        prepared = np.zeros((len(rows), self._index.d), np.float32)
        width = self._dim + self._on_sphere
        prepared[:, :width] = scaled[:, :width]
        return prepared

    def _run(self, what: str, points: np.ndarray) -> None:
        try:
            with blas_threads(1), one_thread():  # several threads may build another structure
                getattr(self._index, what)(points)
        except RuntimeError as error:
            raise ValueError(
                f"faiss can't {what} {len(points)} rows with index {self._settings.kind!r}: "
                f"{_reason(error)}"
            ) from error

    def _structure(self) -> Any:
        """Return the structure behind the transforms."""
        faiss = load_faiss()
        index = self._index
        while isinstance(index, faiss.IndexPreTransform):
            index = faiss.downcast_index(index.index)
        return index

    def _cells(self) -> Any:
        structure = self._structure()
        return structure if isinstance(structure, load_faiss().IndexIVF) else None

    def _is_graph(self) -> bool:
        return isinstance(self._structure(), load_faiss().IndexHNSW)

    def _default_parameters(self, settings: Settings) -> dict[str, int]:
        limits = self.limits()
        nprobe = settings.nprobe or default_nprobe(limits.get("nprobe", 1))
        ef_search = settings.ef_search or _DEFAULT_EF_SEARCH
        wanted = {"overfetch": _DEFAULT_OVERFETCH, "nprobe": nprobe, "ef_search": ef_search}
        return {name: min(most, wanted[name]) for name, most in limits.items()}

    def _search_parameters(self, effort: int, allowed: np.ndarray | None, selector: Any) -> Any:
        faiss = load_faiss()
        n_items, effort = self._index.ntotal, min(effort, 30)
        if self._cells() is not None:
            nprobe = min(self._cells().nlist, self.parameters["nprobe"] << effort)
            params = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        elif self._is_graph():
            # a graph walks by way of items that are not allowed: as many more are to be seen
            rarity = 1 if allowed is None else n_items // max(1, len(allowed))
            ef_search = min(n_items, (self.parameters["ef_search"] << effort) * max(1, rarity))
            params = faiss.SearchParametersHNSW(efSearch=ef_search, sel=selector)
        elif selector is None:
            return None
        else:
            params = faiss.SearchParameters(sel=selector)
        index = self._index
        while isinstance(index, faiss.IndexPreTransform):
            params = faiss.SearchParametersPreTransform(index_params=params)
            index = faiss.downcast_index(index.index)
        return params

    def _takes_filters(self) -> bool:
        """Whether faiss can leave items out while it searches; else it is done afterwards."""
        everything = bitmap(np.arange(self._index.ntotal), self._index.ntotal)
        params = self._search_parameters(0, None, everything)
        try:
            with one_thread():
                self._index.search(np.zeros((1, self._index.d), np.float32), 1, params=params)
        except RuntimeError:
            return False
        return True


def _factory_string(settings: Settings, n_items: int, dim: int) -> str:
    """Write out a short name for so many items."""
    if settings.kind == "HNSW":
        return "HNSW32,Flat"
    if settings.kind == "IVFPQ":
        numbers_per_code = max(2, -(-(dim + 1) // _MOST_CODES))
        nlist = settings.nlist or default_nlist(n_items)
        return f"IVF{nlist},PQ{-(-(dim + 1) // numbers_per_code)}"
    return re.sub(r",(RFlat|Refine\(.*\))$", "", settings.kind)  # the ranking here is exact


def _has_cells(text: str) -> bool:
    return any(part.strip("( ").startswith("IVF") for part in text.split(","))


def _metric(text: str) -> int:
    faiss = load_faiss()
    return int(faiss.METRIC_L2 if _has_cells(text) else faiss.METRIC_INNER_PRODUCT)


def _require_enough(text: str, n_items: int) -> None:
    for nlist in re.findall(r"IVF(\d+)", text):
        if int(nlist) > n_items:
            raise ValueError(f"nlist={nlist} is more than the {n_items} items: lower it")
    for bits in re.findall(r"\d+x(\d+)", text):
        if 2 ** int(bits) > max(_LEAST_TRAINED, n_items):
            raise ValueError(
                f"codes of {bits} bits in {text!r} have more values than the {n_items} items"
            )


def _empty(text: str, width: int) -> Any:
    """Return the structure for rows of that width, or of the next one that faiss accepts."""
    faiss = load_faiss()
    refusal = ""
    step = _SIMD_WIDTH if "SQ" in text else 1
    for padded in range(-(-width // step) * step, 2 * width + _LEAST_WIDTHS, step):
        try:
            index = faiss.index_factory(padded, text, _metric(text))
        except RuntimeError as error:
            refusal = refusal or _reason(error)
            continue
        # as it does where OPQ is to make rows longer
        if all(rotation.d_out <= padded for rotation in _rotations(index)):
            return index
        refusal = refusal or "OPQ can't make rows longer"
    raise ValueError(f"faiss can't make index {text!r} for {width} columns: {refusal}")


@contextmanager
def _quick_training(index: Any) -> Iterator[None]:
    """Let faiss cluster few rows without printing a warning, and many without taking all."""
    faiss = load_faiss()
    rotations = _rotations(index)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexHNSW):
        index = faiss.downcast_index(index.storage)
    # faiss does not own the quantizer that a rotation is trained with
    quantizers = [faiss.ProductQuantizer(one.d_out, one.M, 8) for one in rotations]
    for rotation, quantizer in zip(rotations, quantizers, strict=True):
        rotation.pq = quantizer
    if isinstance(getattr(index, "pq", None), faiss.ProductQuantizer):
        quantizers.append(index.pq)
        if hasattr(index, "do_polysemous_training"):  # minutes, for a filter not used here
            index.do_polysemous_training = False
    for quantizer in quantizers:
        quantizer.cp.max_points_per_centroid = _ROWS_PER_CODE
        quantizer.cp.niter = _ITERATIONS
    for clustering in [one.cp for one in (index, *quantizers) if hasattr(one, "cp")]:
        clustering.min_points_per_centroid = 1
    try:
        yield
    finally:
        for rotation in rotations:
            rotation.pq = None


def _rotations(index: Any) -> list[Any]:
    """Return the transforms that are trained with a product quantizer."""
    faiss = load_faiss()
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain = [index.chain.at(place) for place in range(index.chain.size())]
    transforms = [faiss.downcast_VectorTransform(transform) for transform in chain]
    return [transform for transform in transforms if isinstance(transform, faiss.OPQMatrix)]


def _is_lossless(structure: Any) -> bool:
    faiss = load_faiss()
    if isinstance(structure, faiss.IndexHNSW):
        structure = faiss.downcast_index(structure.storage)
    return isinstance(structure, (faiss.IndexFlat, faiss.IndexIVFFlat))


def _reason(error: RuntimeError) -> str:
    """Return what faiss says, without the place in its source."""
    return " ".join(str(error).split(".cpp:")[-1].split(": ", 1)[-1].split())[:200]
