"""The rows of a design in the order of one block's entities: what a sweep over them reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._numba import kernel
from ..data.blocks import Block, Design
from ..data.rows import SparseRows, read_only
from .targets import Targets

__all__ = ["NOTHING", "EntityRows", "Shard", "sorted_rows"]

NOTHING = np.empty(0, np.float32)
NOTHING.flags.writeable = False


@dataclass(frozen=True)
class Shard:
    """The rows of the entities ``start`` to ``stop`` - 1, as kernels take them.

    Attributes
    ----------
    start, stop : int
    rows : slice
        Which rows they are, in the order of all.
    indptr : ndarray of int64, shape (n_entities + 1,)
        Where each entity's rows begin in the arrays below; only of these entities.
    others : ndarray of int32, shape (n, n_blocks - 1)
    y : ndarray of float32, shape (n,), or (0,) if it was not asked for
    root_weights : ndarray of float32, shape (n,) or (0,)
    """

    start: int
    stop: int
    rows: slice
    indptr: np.ndarray
    others: np.ndarray
    y: np.ndarray
    root_weights: np.ndarray


@dataclass
class EntityRows:
    """Rows sorted by their entity of one block; in their own order within an entity.

    What order that is is not kept, to save its memory: numbers of rows are sorted anew.

    Attributes
    ----------
    block : Block
    features : SparseRows
        Of the block's entities, over all columns.
    codes : ndarray of int32, shape (n_rows,)
        The entity of each row, counted within the block, in the order of the design.
    indptr : ndarray of int64, shape (n_entities + 1,)
        The rows of the block's e-th entity are ``indptr[e]`` to ``indptr[e + 1]`` - 1.
    others : ndarray of int32, shape (n_rows, n_blocks - 1)
        Entities of the other blocks, counted over all blocks.
    root_weights : ndarray of float32, shape (n_rows,) or (0,)
        Square roots of the rows' weights, empty where all are 1.
    """

    block: Block
    features: SparseRows
    codes: np.ndarray
    indptr: np.ndarray
    others: np.ndarray
    root_weights: np.ndarray

    @property
    def n_entities(self) -> int:
        """Number of entities, those without a row among them."""
        return len(self.indptr) - 1

    @property
    def is_one_hot(self) -> bool:
        """Whether each entity has one feature, of value 1, that is nobody else's."""
        one_each = np.diff(self.features.indptr) == 1
        return bool(
            one_each.all()
            and (self.features.values == 1).all()
            and len(np.unique(self.features.indices)) == len(self.features.indices)
        )

    def weight_sums(self) -> np.ndarray:
        """Return Σ w over the rows of each entity, float64."""
        lengths = np.diff(self.indptr)
        if not len(self.root_weights):
            return read_only(lengths, np.float64)
        sums = np.zeros(self.n_entities)
        for shard in self.shards():
            weights = np.square(shard.root_weights, dtype=np.float64)
            n, own = shard.stop - shard.start, slice(shard.start, shard.stop)
            sums[own] = np.bincount(np.repeat(np.arange(n), lengths[own]), weights, n)
        return read_only(sums, np.float64)

    def targets(self, y: np.ndarray | Targets) -> np.ndarray | Targets:
        """Return targets, given in the order of the design, as :meth:`shards` takes them."""
        return self.in_order(np.asarray(y))

    def shards(self, y: np.ndarray | Targets | None = None) -> Iterator[Shard]:
        """Give all rows, those of each entity in one of the shards: here there is a single one."""
        yield Shard(
            0,
            self.n_entities,
            slice(0, len(self.others)),
            self.indptr,
            self.others,
            NOTHING if y is None else read_only(y, np.float32),
            self.root_weights,
        )

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Return float32 numbers of the rows, given in the order of the design, in this one."""
        sorted_values = np.empty((len(values), 1), np.int32)
        bits = read_only(values, np.float32).view(np.int32)
        place_rows(self.codes, self.indptr[:-1].copy(), bits, 0, sorted_values, 0)
        return read_only(sorted_values.view(np.float32)[:, 0], np.float32)


def sorted_rows(design: Design, number: int) -> EntityRows:
    """Return the rows of a design sorted by the entities of one of its blocks."""
    block, codes = design.blocks[number], design.codes[number]
    counts = np.zeros(block.stop - block.start, np.int64)
    count_rows(codes, counts)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    rest = [other for other in range(len(design.blocks)) if other != number]
    others = np.empty((design.n_rows, len(rest)), np.int32)
    for column, other in enumerate(rest):
        first = design.blocks[other].start
        place_rows(codes, indptr[:-1].copy(), design.codes[other], first, others, column)
    rows = EntityRows(
        block,
        design.entities.slice(block.start, block.stop),
        codes,
        read_only(indptr, np.int64),
        read_only(others, np.int32),
        NOTHING,
    )
    if design.weights is not None:
        rows.root_weights = rows.in_order(np.sqrt(design.weights))
    return rows


@kernel
def count_rows(codes, counts):
    """Count the rows of each entity."""
    for row in range(len(codes)):
        counts[codes[row]] += 1


@kernel
def place_rows(codes, places, values, add, out, column):
    """Write values, plus ``add``, into a column of ``out``, sorted by their rows' codes.

    ``places`` (n_entities,) is where each entity's rows begin; it is used up.
    """
    for row in range(len(codes)):
        code = codes[row]
        out[places[code], column] = values[row] + add
        places[code] += 1
