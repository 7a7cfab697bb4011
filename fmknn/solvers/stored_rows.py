"""The rows of a design by entity: in memory, or on disk and read a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from ..data.blocks import Block, Design
from ..data.rows import SparseRows, read_only
from ..data.stored import SortedRows
from .entity_rows import NOTHING, EntityRows, Shard, sorted_rows
from .targets import Targets

__all__ = ["StoredRows", "rows_by_entity"]

_SHARD_BYTES = 1 << 26  # enough to read at full speed; up to three of them are in memory


class StoredRows(EntityRows):
    """Rows of stored interactions, sorted by their entity of one block.

    Parameters
    ----------
    block : Block
    features : SparseRows
    codes : ndarray of int32, shape (n_rows,)
    rows : SortedRows
        The files.
    values : ndarray of float32, shape (n_rows,), or None
        The targets that are among them, in the order of the design.
    """

    def __init__(
        self,
        block: Block,
        features: SparseRows,
        codes: np.ndarray,
        rows: SortedRows,
        values: np.ndarray | None,
    ) -> None:
        weights = NOTHING if rows.root_weights is None else rows.root_weights.map()
        super().__init__(block, features, codes, rows.indptr, rows.others.map(), weights)
        self._rows, self._values = rows, values

    def targets(self, y: np.ndarray | Targets) -> np.ndarray | Targets:
        """Return targets as :meth:`shards` takes them: those on disk stay there."""
        if isinstance(y, Targets) and y.values is self._values:
            return y
        return super().targets(y)

    def shards(self, y: np.ndarray | Targets | None = None) -> Iterator[Shard]:
        """Give the rows of some entities after the other; the next ones are read meanwhile."""
        edges = list(pairwise(self._edges()))
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._shard, *edge, y) for edge in edges[:1]]
            for edge in edges[1:]:
                shard = ahead.pop().result()
                ahead.append(pool.submit(self._shard, *edge, y))
                yield shard
                del shard  # before the one after the next is read
            for last in ahead:
                yield last.result()

    def _edges(self) -> list[int]:
        """Return where to cut the entities, so that the rows between are about a shard."""
        row_bytes = 4 * (self.others.shape[1] + 1 + (len(self.root_weights) > 0))
        n_rows = max(_SHARD_BYTES // row_bytes, 1)
        edges = [0]
        while edges[-1] < self.n_entities:
            enough = self.indptr[edges[-1]] + n_rows
            stop = int(np.searchsorted(self.indptr, enough, side="right")) - 1
            edges.append(max(stop, edges[-1] + 1))
        return edges

    def _shard(self, start: int, stop: int, y: np.ndarray | Targets | None) -> Shard:
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indptr = np.empty_like(self.indptr)  # what lies outside is never touched
        np.subtract(self.indptr[start : stop + 1], first, out=indptr[start : stop + 1])
        rows, roots, targets = self._rows, NOTHING, NOTHING
        if rows.root_weights is not None:
            roots = rows.root_weights.read(first, last)
        if isinstance(y, Targets):
            assert rows.values is not None
            targets = y.scaled(rows.values.read(first, last))
        elif y is not None:
            targets = y[first:last]
        return Shard(
            start,
            stop,
            slice(first, last),
            read_only(indptr, np.int64),
            read_only(rows.read_others(first, last), np.int32),
            read_only(targets, np.float32),
            read_only(roots, np.float32),
        )


def rows_by_entity(design: Design) -> list[EntityRows]:
    """Return the rows of a design once for each block, sorted by its entities."""
    copies = design.sorted_copies
    is_same = copies is not None and (
        design.n_rows == len(copies.codes[0]) and design.weights is copies.weights
    )
    if copies is None or not is_same:
        return [sorted_rows(design, number) for number in range(len(design.blocks))]
    return [
        StoredRows(
            block, design.entities.slice(block.start, block.stop), codes, rows, copies.values
        )
        for block, codes, rows in zip(design.blocks, design.codes, copies.rows, strict=True)
    ]
