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

    Attributes
    ----------
    block : Block
    features : SparseRows
        Of the block's entities, over all columns.
    indptr : ndarray of int64, shape (n_entities + 1,)
        The rows of the block's e-th entity are ``indptr[e]`` to ``indptr[e + 1]`` - 1.
    others : ndarray of int32, shape (n_rows, n_blocks - 1)
        Entities of the other blocks.
    order : ndarray of int32, shape (n_rows,)
        Which row of the design each is.
    root_weights : ndarray of float32, shape (n_rows,) or (0,)
        Square roots of the rows' weights, empty where all are 1.
    """

    block: Block
    features: SparseRows
    indptr: np.ndarray
    others: np.ndarray
    order: np.ndarray
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

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Return targets, given in the order of the design, in this order."""
        return read_only(y[self.order], np.float32)


def rows_by_entity(design: Design) -> list[EntityRows]:
    """Return the rows of a design once for each block, sorted by its entities."""
    n_rows, n_blocks = design.index.shape
    sorted_rows = []
    for number, block in enumerate(design.blocks):
        own = np.ascontiguousarray(design.index[:, number])
        counts = np.bincount(own - block.start, minlength=block.stop - block.start)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        order = np.empty(n_rows, np.int32)
        counting_sort(own, block.start, indptr[:-1].copy(), order)
        rest = [other for other in range(n_blocks) if other != number]
        others = np.empty((n_rows, len(rest)), np.int32)
        for column, other in enumerate(rest):
            others[:, column] = design.index[:, other][order]
        roots = _NOTHING
        if design.weights is not None:
            roots = read_only(np.sqrt(design.weights)[order], np.float32)
        sorted_rows.append(
            EntityRows(
                block,
                design.entities.slice(block.start, block.stop),
                read_only(indptr, np.int64),
                read_only(others, np.int32),
                read_only(order, np.int32),
                roots,
            )
        )
    return sorted_rows


@kernel
def counting_sort(entities, first, places, order):
    """Write into ``order`` the rows sorted by entity; ``places`` is used up."""
    for row in range(len(entities)):
        entity = entities[row] - first
        order[places[entity]] = row
        places[entity] += 1
