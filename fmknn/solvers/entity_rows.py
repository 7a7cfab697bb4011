"""The rows of a design in the order of one block's entities: what a sweep over them reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._numba import kernel
from ..data.blocks import Block, Design
from ..data.rows import SparseRows, read_only

__all__ = ["EntityRows", "rows_by_entity"]

_NOTHING = np.empty(0, np.float32)
_NOTHING.flags.writeable = False


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
        weights = np.square(self.root_weights, dtype=np.float64)
        if not len(weights):
            return read_only(np.diff(self.indptr), np.float64)
        entity = np.repeat(np.arange(self.n_entities), np.diff(self.indptr))
        return read_only(np.bincount(entity, weights, self.n_entities), np.float64)

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Return float32 numbers of the rows, given in the order of the design, in this one."""
        sorted_values = np.empty((len(values), 1), np.int32)
        bits = read_only(values, np.float32).view(np.int32)
        place_rows(self.codes, self.indptr[:-1].copy(), bits, 0, sorted_values, 0)
        return read_only(sorted_values.view(np.float32)[:, 0], np.float32)


def rows_by_entity(design: Design) -> list[EntityRows]:
    """Return the rows of a design once for each block, sorted by its entities."""
    return [_sorted_rows(design, number) for number in range(len(design.blocks))]


def _sorted_rows(design: Design, number: int) -> EntityRows:
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
        _NOTHING,
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
