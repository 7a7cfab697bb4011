"""Item rows laid out for exact search: in balanced coordinates, sorted by norm, cut into tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.rows import read_only
from .base import as_vectors
from .compression import second_moment
from .exact_kernel import TILE

__all__ = ["NormTiles", "PreparedQueries"]

_UNIT_ROUNDOFF = 2.0**-24  # of float32
_ISOTROPIC_SHARE = 1e-4  # of all directions alike, in what is asked
_LEAST_EIGENVALUE = 1e-9  # of the largest: coordinates are stretched no further
_ROWS_AT_ONCE = 16384  # mapped at a time, in float64
_SMALL = 4096  # so many items are searched as fast in the coordinates they have
_SAMPLE_QUERIES, _SAMPLE_ITEMS = 32, 32768
_LIST_LENGTH = 100  # that the number of leading coordinates is chosen for
_REST = 16  # coordinates that a processor multiplies at once
_PAIR_COST = 500  # of scoring a pair, in products within a tile
_LEAST_STEP = 1e-30  # where a coordinate is zero
_WORTH_IT = 0.75  # of the cost without a bound


@dataclass(frozen=True)
class PreparedQueries:
    """Queries in the coordinates of the tiles.

    Attributes
    ----------
    heads : ndarray of float32, shape (n_queries, n_head)
    rests : ndarray of float32, shape (n_queries, n_rest)
        Scaled so that a whole query has norm 1.
    scales : ndarray of float64, shape (n_queries,)
        Inner products of rows as they were given, times this, are those of scaled ones.
    errors : ndarray of float32, shape (n_queries,)
        What an inner product with a scaled item can be off when float32 is used.
    """

    heads: np.ndarray
    rests: np.ndarray
    scales: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class NormTiles:
    """Items in a basis and an order in which a search can stop early.

    Attributes
    ----------
    tiles : ndarray of float32, shape (n_tiles, n_head, TILE)
        Each item is a column, scaled so that the largest norm is 1; zeros follow the last. They
        are all coordinates, or ``n_prefix`` leading ones and the norm of the rest.
    rest : ndarray of float32, shape (n_tiles * TILE, n_rest)
        The rest of the coordinates, an item a row, and zeros that make n_rest a multiple of 16.
    coarse : ndarray of int8, shape (n_tiles, dim, TILE)
    steps : ndarray of float32, shape (n_tiles, dim)
        The tiles in whole numbers of steps, to half of one; none of either where there is a rest.
    norms : ndarray of float32, shape (n_tiles,)
        The largest norm in each tile, descending.
    item_of : ndarray of int32, shape (n_items,)
        The item at each place.
    place_of : ndarray of int32
        The place of each item of the index, -1 for one that is not here.
    n_prefix : int
        Number of leading coordinates by which a score is bounded; 0: none.
    item_map : ndarray of float32, shape (dim, dim)
    query_map : ndarray of float64, shape (dim, dim)
    largest : tuple of float
        The largest norm in these coordinates, that all were divided by, and in the given ones.

    Notes
    -----
    With A Bᵀ = I, <a, b> = <a A, b B>, and no score is above ‖a A‖ ‖b B‖ (Cauchy-Schwarz). The
    bound is the tighter the more both sides fill the same directions: with the second moments
    Q = F Fᵀ of queries and P of items, Fᵀ P F = U S² Uᵀ, it is B = F U S^(-1/2) that gives both
    the same second moments S, along the same axes, largest first.
    """

    tiles: np.ndarray
    rest: np.ndarray
    coarse: np.ndarray
    steps: np.ndarray
    norms: np.ndarray
    item_of: np.ndarray
    place_of: np.ndarray
    n_prefix: int
    item_map: np.ndarray
    query_map: np.ndarray
    largest: tuple[float, float]

    @classmethod
    def build(cls, vectors: np.ndarray, queries: np.ndarray | None) -> NormTiles:
        """Lay out items for what will be asked.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n_items, dim)
        queries : ndarray of float32, shape (n_queries, dim), or None
            A sample. None: all directions alike.
        """
        item_map = _balanced_map(vectors, queries)
        if queries is None or len(queries) == 0:
            shape = _SAMPLE_QUERIES, vectors.shape[1]
            queries = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        plain = cls._laid_out(vectors, item_map, 0)
        n_prefix = plain._best_prefix(queries)
        return cls._laid_out(vectors, item_map, n_prefix) if n_prefix else plain

    @classmethod
    def _laid_out(cls, vectors: np.ndarray, item_map: np.ndarray, n_prefix: int) -> NormTiles:
        n_items, dim = vectors.shape
        norms, given = np.empty(n_items), 0.0
        for rows in _parts(n_items):
            part = vectors[rows].astype(np.float64)
            given = max(given, float(_norms(part).max()))
            norms[rows] = _norms(part @ item_map)
        largest = float(norms.max()) or 1.0
        item_of = np.argsort(-norms, kind="stable").astype(np.int32)
        place_of = np.empty(n_items, np.int32)
        place_of[item_of] = np.arange(n_items, dtype=np.int32)
        n_places = -(-n_items // TILE) * TILE
        n_head = n_prefix + 1 if n_prefix else dim
        tiles = np.zeros((n_places // TILE, n_head, TILE), np.float32)
        rest = np.zeros((n_places, _rest_width(dim, n_prefix)), np.float32)
        for rows in _parts(n_items, _ROWS_AT_ONCE // TILE * TILE):
            part = vectors[item_of[rows]].astype(np.float64) @ item_map / largest
            heads, rest[rows] = _split(part, n_prefix)
            for at in range(0, len(heads), TILE):
                one = heads[at : at + TILE]
                tiles[(rows.start + at) // TILE, :, : len(one)] = one.T
        coarse, steps = _in_steps(tiles, 0 if n_prefix else len(tiles))
        return cls(
            tiles=tiles,
            rest=rest,
            coarse=coarse,
            steps=steps,
            norms=(norms[item_of[::TILE]] / largest).astype(np.float32),
            item_of=item_of,
            place_of=place_of,
            n_prefix=n_prefix,
            item_map=item_map,
            query_map=np.linalg.inv(item_map.astype(np.float64)).T,
            largest=(largest, given),
        )

    def over(self, vectors: np.ndarray) -> NormTiles:
        """Lay out other items in the same coordinates."""
        return self._laid_out(vectors, self.item_map, self.n_prefix)

    def of_items(self, items: np.ndarray) -> NormTiles:
        """Return tiles of some of the items, given by their positions."""
        places = np.sort(self.place_of[items])
        n_places = -(-len(places) // TILE) * TILE
        heads = np.zeros((n_places, self.tiles.shape[1]), np.float32)
        heads[: len(places)] = self.tiles[places // TILE, :, places % TILE]
        rest = np.zeros((n_places, self.rest.shape[1]), np.float32)
        rest[: len(places)] = self.rest[places]
        place_of = np.full(len(self.place_of), -1, np.int32)
        place_of[self.item_of[places]] = np.arange(len(places), dtype=np.int32)
        tiles = np.ascontiguousarray(heads.reshape(-1, TILE, heads.shape[1]).transpose(0, 2, 1))
        return NormTiles(
            tiles,
            rest,
            *_in_steps(tiles, 0 if self.n_prefix else len(tiles)),
            self.norms[places[::TILE] // TILE],
            self.item_of[places],
            place_of,
            self.n_prefix,
            self.item_map,
            self.query_map,
            self.largest,
        )

    def mask(self, items: np.ndarray) -> np.ndarray:
        """Return inf at the places of the given items and -inf at all others, float32."""
        mask = np.full(len(self.tiles) * TILE, -np.inf, np.float32)
        mask[self.place_of[items]] = np.inf
        return mask

    def prepare(self, queries: np.ndarray) -> PreparedQueries:
        """Put queries, float32 of shape (n_queries, dim), into the coordinates of the tiles.

        Notes
        -----
        The error of an inner product of d numbers in float32 is at most d u ‖a‖ ‖b‖, in any order
        of summation (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1), plus
        what A Bᵀ differs from I; a few more u are for the rounding of all that goes into it.
        """
        given = queries.astype(np.float64)
        mapped = given @ self.query_map
        norms = _norms(mapped)
        norms[norms == 0] = 1.0
        mapped /= norms[:, None]
        relative = _norms(given) / norms * (self._map_error * self.largest[1] / self.largest[0])
        errors = relative + (queries.shape[1] + 8) * _UNIT_ROUNDOFF
        heads, rests = _split(mapped, self.n_prefix)
        return PreparedQueries(
            heads.astype(np.float32),
            rests.astype(np.float32),
            1.0 / (norms * self.largest[0]),
            np.minimum(errors, 10.0).astype(np.float32),  # what is above 2 rules out nothing
        )

    @cached_property
    def _map_error(self) -> float:
        """What A Bᵀ differs from I, and what float64 may add to that."""
        item_map, dim = self.item_map.astype(np.float64), len(self.item_map)
        product = np.linalg.norm(self.query_map @ item_map.T - np.eye(dim))
        size = np.linalg.norm(self.query_map) * np.linalg.norm(item_map)
        return float(product + 4 * dim * np.finfo(np.float64).eps * size)

    def _best_prefix(self, queries: np.ndarray) -> int:
        """Return how many leading coordinates make the cheapest bound; 0 if none is worth it."""
        n_items, dim = len(self.item_of), len(self.item_map)
        if n_items <= _SMALL:
            return 0
        asked = self.prepare(queries[:: -(-len(queries) // _SAMPLE_QUERIES)]).heads
        places = np.arange(0, n_items, -(-n_items // _SAMPLE_ITEMS))
        items = self.tiles[places // TILE, :, places % TILE]
        n = max(2, _LIST_LENGTH * len(items) // n_items)
        cuts = np.partition(asked @ items.T, -n, axis=1)[:, -n, None]
        reached = _norms(items.astype(np.float64)) >= cuts  # what the norms rule out costs nothing
        costs = {0: _WORTH_IT}
        for r in range(dim % _REST, dim, _REST):
            if r > 0:
                bounds = _split(asked, r)[0] @ _split(items, r)[0].T
                passing = float(((bounds >= cuts) & reached).sum() / reached.sum())
                costs[r] = (r + 1 + _PAIR_COST * passing) / dim
        return min(costs, key=lambda r: costs[r])

    def to_state(self) -> dict[str, np.ndarray]:
        """Return the array that :meth:`from_state` needs; none where items stay as they are."""
        is_plain = np.array_equal(self.item_map, np.eye(len(self.item_map)))
        return {} if is_plain else {"coordinates": self.item_map}

    @classmethod
    def from_state(
        cls, vectors: np.ndarray, state: Mapping[str, np.ndarray], n_prefix: int
    ) -> NormTiles:
        """Lay out items again as they were.

        Raises
        ------
        ValueError
            If the coordinates are no invertible matrix that fits the vectors.
        """
        dim = vectors.shape[1]
        item_map = np.eye(dim, dtype=np.float32)
        if "coordinates" in state:
            item_map = as_vectors(state["coordinates"], "coordinates", dim)
        try:
            is_basis = len(item_map) == dim and bool(np.isfinite(np.linalg.inv(item_map)).all())
        except np.linalg.LinAlgError:
            is_basis = False
        if not is_basis or not n_prefix < dim:
            raise ValueError(f"the saved coordinates are no basis of {dim} dimensions")
        return cls._laid_out(vectors, item_map, n_prefix)


def _balanced_map(items: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
    """Return B of NormTiles' Notes, as float32."""
    dim = items.shape[1]
    if len(items) <= _SMALL or dim == 0:
        return np.eye(dim, dtype=np.float32)
    asked = np.zeros((dim, dim)) if queries is None else second_moment(queries)
    factor = np.linalg.cholesky(asked + np.eye(dim) * (_ISOTROPIC_SHARE / dim))
    squares, vectors = np.linalg.eigh(factor.T @ second_moment(items) @ factor)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    squares = np.maximum(squares, (squares[0] if squares[0] > 0 else 1.0) * _LEAST_EIGENVALUE)
    return read_only(factor @ vectors * squares**-0.25, np.float32)


def _split(rows: np.ndarray, n_prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """Return leading coordinates with the norm of the rest, and the rest; 0: all, and nothing."""
    if n_prefix == 0:
        return rows, rows[:, :0]
    rest = np.zeros((len(rows), _rest_width(rows.shape[1], n_prefix)), rows.dtype)
    rest[:, : rows.shape[1] - n_prefix] = rows[:, n_prefix:]
    return np.column_stack([rows[:, :n_prefix], _norms(rest.astype(np.float64))]), rest


def _in_steps(tiles: np.ndarray, n_tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first tiles as bytes, and the steps that these count."""
    coarse = np.empty((n_tiles, *tiles.shape[1:]), np.int8)
    steps = np.empty((n_tiles, tiles.shape[1]), np.float32)
    for t in range(n_tiles):
        steps[t] = np.maximum(np.abs(tiles[t]).max(axis=1), _LEAST_STEP) / 127
        coarse[t] = np.rint(tiles[t] / steps[t][:, None])
    return coarse, steps


def _rest_width(dim: int, n_prefix: int) -> int:
    return -(-(dim - n_prefix) // _REST) * _REST if n_prefix else 0


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def _parts(n: int, size: int = _ROWS_AT_ONCE) -> Iterator[slice]:
    for at in range(0, n, size):
        yield slice(at, min(at + size, n))
