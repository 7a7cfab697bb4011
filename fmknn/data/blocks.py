"""Design: rows as tuples of entities, one per block; from Interactions or from any matrix X.

A block is a set of columns, an entity of it one distinct sparse row over those columns: a user
with id and features, an item, a weekday. Training and scoring work on entities, never on the
width of the expanded row (Rendle, "Scaling Factorization Machines to Relational Data", VLDB 2013).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from .features import FeatureTable
from .ids import IdMap
from .interactions import Interactions
from .rows import SparseRows, read_only
from .stored import SortedCopies

__all__ = ["Block", "Design", "design_of_interactions", "design_of_rows", "find_one_hot_blocks"]

logger = logging.getLogger("fmknn")

Columns = Mapping[str, "slice | np.ndarray"]


@dataclass(frozen=True)
class Block:
    """One block: which entities of the design are its own.

    Attributes
    ----------
    name : str
    start, stop : int
        Its entities are ``start`` to ``stop`` - 1 of the design's.
    columns : ndarray of int64
        The feature columns it consists of.
    """

    name: str
    start: int
    stop: int
    columns: np.ndarray


@dataclass(frozen=True)
class Design:
    """What a solver learns from: an entity of each block per row, and the entities' features.

    Attributes
    ----------
    codes : tuple of ndarray of int32, shape (n_rows,) each
        The entity of each row, one array per block, counted within the block.
    entities : SparseRows, shape (n_entities, n_features)
        The features of each entity, all blocks one under the other.
    blocks : tuple of Block
    weights : ndarray of float32, shape (n_rows,), or None
    groups : ndarray of int32, shape (n_features,), or None
        Columns of one group are alike, and may share a prior; None: each block is a group.
    met : tuple of ndarray of int, shape (n_pairs,) each, or None
        Users and items, as they are counted in their blocks, that had a row before these ones.
    sorted_copies : SortedCopies or None
        The same rows on disk, sorted by the entities of each block.
    """

    codes: tuple[np.ndarray, ...]
    entities: SparseRows
    blocks: tuple[Block, ...]
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    sorted_copies: SortedCopies | None = None
    met: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.codes[0])

    @cached_property
    def index(self) -> np.ndarray:
        """The entities of each row, int32 (n_rows, n_blocks), counted over all blocks.

        It takes as much memory as the codes: made for those who need it.
        """
        index = np.empty((self.n_rows, len(self.blocks)), np.int32)
        for number, (code, block) in enumerate(zip(self.codes, self.blocks, strict=True)):
            np.add(code, np.int32(block.start), out=index[:, number])
        return read_only(index, np.int32)

    @property
    def n_features(self) -> int:
        """Number of feature columns, over all blocks."""
        return self.entities.n_columns

    def block(self, name: str) -> Block:
        """Return the block of that name."""
        for block in self.blocks:
            if block.name == name:
                return block
        names = ", ".join(block.name for block in self.blocks)
        raise ValueError(f"no block {name!r}: there are {names}")

    def rows_of(self, name: str) -> SparseRows:
        """Return the features of all entities of a block."""
        block = self.block(name)
        return self.entities.slice(block.start, block.stop)

    def expand(self, start: int, stop: int) -> SparseRows:
        """Return some rows over all feature columns, as a matrix without blocks has them."""
        index = self.index[start:stop]
        n_rows, n_blocks = index.shape
        chosen = sp.csr_array(
            (
                np.ones(index.size, np.float32),
                index.ravel(),
                np.arange(n_rows + 1, dtype=np.int64) * n_blocks,
            ),
            shape=(n_rows, len(self.entities)),
        )
        rows = (chosen @ self.entities.to_scipy()).tocsr()
        rows.sort_indices()
        return SparseRows(rows.indptr, rows.indices, rows.data, self.n_features)

    @property
    def column_sets(self) -> dict[str, np.ndarray]:
        """The columns of each block, by name."""
        return {block.name: block.columns for block in self.blocks}


def design_of_interactions(interactions: Interactions) -> Design:
    """Return the design of interactions: blocks "user", "item" and one per context column.

    Columns: the users' ids and features, then the items', then each context's levels. All known
    entities are part of it, those without a row in ``interactions`` too.
    """
    sides = [
        ("user", interactions.users, interactions.user_index, interactions.user_features),
        ("item", interactions.items, interactions.item_index, interactions.item_features),
        *((name, c.ids, c.index, None) for name, c in interactions.context.items()),
    ]
    made = [_entity_table(ids, table) for _, ids, _, table in sides]
    tables = [table for table, _ in made]
    widths = [width for _, widths in made for width in widths]  # of each group of columns
    n_features = sum(table.n_columns for table in tables)
    blocks, parts = [], []
    column = entity = 0
    for (name, ids, _, _), table in zip(sides, tables, strict=True):
        columns = np.arange(column, column + table.n_columns)
        blocks.append(Block(name, entity, entity + len(ids), columns))
        parts.append(table.shift(column, n_features))
        column += table.n_columns
        entity += len(ids)
    codes = tuple(read_only(index, np.int32) for _, _, index, _ in sides)
    groups = read_only(np.repeat(np.arange(len(widths)), np.array(widths, np.int64)), np.int32)
    return Design(
        codes,
        SparseRows.concatenate(parts),
        tuple(blocks),
        interactions.weights,
        groups,
        interactions.sorted_copies,
    )


def _entity_table(ids: IdMap, table: FeatureTable | None) -> tuple[SparseRows, list[int]]:
    """Features of every entity of one side: the id (unless switched off), then the columns.

    The second answer is the number of features of the id and of each column.
    """
    if table is None:
        return SparseRows.one_hot(len(ids), 0, len(ids)), [len(ids)]
    side, names = table.encode_columns()
    widths = [len(part) for part in names]
    if not table.id_feature:
        return side, widths
    width = len(ids) + sum(widths)
    indptr = side.indptr + np.arange(len(ids) + 1)  # one id in front of each row
    at_id = indptr[:-1]
    indices = np.empty(indptr[-1], np.int32)
    values = np.ones(indptr[-1], np.float32)
    others = np.ones(indptr[-1], bool)
    others[at_id] = False
    indices[at_id] = np.arange(len(ids))
    indices[others] = side.indices + len(ids)
    values[others] = side.values
    return SparseRows(indptr, indices, values, width), [len(ids), *widths]


def design_of_rows(
    rows: SparseRows, blocks: Columns | None = None, weights: np.ndarray | None = None
) -> Design:
    """Return the design of a matrix.

    Parameters
    ----------
    rows : SparseRows, shape (n_rows, n_features)
    blocks : mapping of name to slice or array of columns, optional
        Disjoint. Columns that are in none of them make up a block "rest". None finds one-hot
        blocks by itself (:func:`find_one_hot_blocks`).
    weights : ndarray of float32, shape (n_rows,), optional

    Raises
    ------
    ValueError
        If blocks overlap, are empty or name a column out of range.
    TypeError
        If ``blocks`` is no mapping, or a name no string.
    """
    column_sets = find_one_hot_blocks(rows) if blocks is None else _column_sets(blocks, rows)
    owner = np.full(rows.n_columns, -1, np.int32)
    for number, columns in enumerate(column_sets.values()):
        owner[columns] = number
    rest = np.flatnonzero(owner < 0)
    if not column_sets or np.any(owner[rows.indices] < 0):
        name = "rest"
        while name in column_sets:
            name += "_"
        owner[rest] = len(column_sets)
        column_sets = {**column_sets, name: rest}
    made, parts, codes = [], [], []
    entity = 0
    for number, (name, columns) in enumerate(column_sets.items()):
        table, code = _entities_of(rows, owner, number, columns)
        made.append(Block(name, entity, entity + len(table), columns))
        parts.append(table)
        codes.append(read_only(code, np.int32))
        entity += len(table)
    return Design(tuple(codes), SparseRows.concatenate(parts), tuple(made), weights)


def _column_sets(blocks: Columns, rows: SparseRows) -> dict[str, np.ndarray]:
    if not isinstance(blocks, Mapping):
        raise TypeError(f"blocks must map names to columns, got {type(blocks).__name__}")
    sets: dict[str, np.ndarray] = {}
    taken = np.zeros(rows.n_columns, dtype=bool)
    for name, columns in blocks.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a block must be a string, got {name!r}")
        if isinstance(columns, slice):
            for end in (columns.start, columns.stop):
                if end is not None and abs(end) > rows.n_columns:  # numpy would cut it in silence
                    raise ValueError(
                        f"block {name!r} goes to column {end}, X has {rows.n_columns} columns"
                    )
            columns = np.arange(rows.n_columns)[columns]
        columns = np.asarray(columns)
        if columns.dtype.kind not in "iu" or columns.ndim != 1 or len(columns) == 0:
            raise ValueError(
                f"block {name!r} must be a slice or a non-empty array of column numbers"
            )
        outside = columns[(columns < 0) | (columns >= rows.n_columns)]
        if len(outside):
            raise ValueError(
                f"block {name!r} has column {int(outside[0])}, outside 0..{rows.n_columns - 1}"
            )
        if taken[columns].any() or len(np.unique(columns)) < len(columns):
            raise ValueError(f"block {name!r} shares a column with another block or repeats one")
        taken[columns] = True
        sets[name] = np.sort(columns).astype(np.int64)
    return sets


def _entities_of(
    rows: SparseRows, owner: np.ndarray, number: int, columns: np.ndarray
) -> tuple[SparseRows, np.ndarray]:
    """Return the entity table of one block and the entity of each row."""
    part = _restrict(rows, owner, number)
    if np.all(np.diff(part.indptr) == 1) and np.all(part.values == 1):
        one_hot = SparseRows(
            np.arange(len(columns) + 1), columns, np.ones(len(columns)), rows.n_columns
        )
        return one_hot, np.searchsorted(columns, part.indices)
    return _distinct_rows(part)


def _restrict(rows: SparseRows, owner: np.ndarray, number: int) -> SparseRows:
    """Keep the entries whose column belongs to one block."""
    keep = owner[rows.indices] == number
    if keep.all():
        return rows
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    return SparseRows(before[rows.indptr], rows.indices[keep], rows.values[keep], rows.n_columns)


def _distinct_rows(rows: SparseRows) -> tuple[SparseRows, np.ndarray]:
    """Return the distinct rows and which of them each row is."""
    n = len(rows)
    bits = rows.values.view(np.uint32).astype(np.uint64)
    entry = _mix(rows.indices.astype(np.uint64) << np.uint64(32) | bits)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(entry, dtype=np.uint64)])
    row_hash = total[rows.indptr[1:]] - total[rows.indptr[:-1]]  # wraps, and may
    _, first, which = np.unique(row_hash, return_index=True, return_inverse=True)
    representative = first[which]
    same = rows.take(representative)
    exact = (
        np.array_equal(same.indptr, rows.indptr)
        and np.array_equal(same.indices, rows.indices)
        and np.array_equal(same.values, rows.values)
    )
    if not exact:  # two different rows with one hash: as good as never, and harmless
        return rows, np.arange(n)
    return rows.take(first), which


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def find_one_hot_blocks(rows: SparseRows) -> dict[str, np.ndarray]:
    """Find contiguous column ranges that hold exactly one non-zero, a 1, in every row.

    Returns
    -------
    dict of str to ndarray
        "block0", "block1", … with their columns, from left to right. Ranges one column wide are
        left out: they are the same in every row.

    Notes
    -----
    Give each row a random 64-bit number and each column the sum of its rows' numbers. A range is
    one-hot exactly if its columns sum to the sum over all rows (but for a collision of
    probability 2**-64), so two equal prefix sums find it in one pass over the matrix.

    Examples
    --------
    >>> from fmknn.data.rows import as_rows
    >>> find_one_hot_blocks(as_rows([[1, 0, 0, 1], [0, 1, 1, 0]]))
    {'block0': array([0, 1]), 'block1': array([2, 3])}
    """
    n_rows, n_columns = rows.shape
    if n_rows < 2 or n_columns < 2 or len(rows.indices) < n_rows:
        return {}
    generator = np.random.default_rng(0)
    for_one, for_other = generator.integers(2**63, size=(2, n_rows), dtype=np.uint64)
    csc = rows.to_scipy().tocsc()
    numbers = np.where(csc.data == 1, for_one[csc.indices], for_other[csc.indices])
    numbers[csc.data == 0] = 0  # zeros that are stored are no entries
    prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers, dtype=np.uint64)])
    prefix = prefix[csc.indptr]
    known, first = np.unique(prefix, return_index=True)
    wanted = prefix + for_one.sum(dtype=np.uint64)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    ends = np.where(known[place] == wanted, first[place], -1)
    starts = np.flatnonzero(ends > np.arange(len(ends)) + 1)
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < len(starts):
        start = int(starts[at])
        ranges.append((start, int(ends[start])))
        at = int(np.searchsorted(starts, ranges[-1][1]))
    if ranges and prefix[ranges[-1][1]] == prefix[-1]:  # unused columns at the end
        ranges[-1] = (ranges[-1][0], n_columns)
    for start, stop in ranges:
        logger.info("columns %d..%d are one-hot: used as a block", start, stop - 1)
    return {f"block{i}": np.arange(start, stop) for i, (start, stop) in enumerate(ranges)}
