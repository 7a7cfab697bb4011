"""Where training and search run: a backend makes solvers and indexes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..index.base import Index
from ..index.exact import ExactIndex
from ..index.faiss_index import FaissIndex
from ..solvers.base import Solver, SolverSpec

__all__ = ["Backend", "Local"]

_INDEXES: dict[str, Callable[[], Index]] = {
    "exact": ExactIndex,
    "flat": partial(FaissIndex, "Flat"),
    "ivf": partial(FaissIndex, "IVF"),
}


class Backend(Protocol):
    """A factory of solvers and indexes."""

    def solver(self, spec: SolverSpec) -> Solver:
        """Return the solver for what an estimator asks."""
        ...

    def index(self, spec: str | Index) -> Index:
        """Return the index, still empty, for a short name or an index object."""
        ...


class Local:
    """This machine: the solvers and indexes of this package.

    Examples
    --------
    >>> Local().index("ivf")
    FaissIndex('IVF', not built)
    """

    def solver(self, spec: SolverSpec) -> Solver:
        """Return the solver for what an estimator asks."""
        return spec.config.solver(spec)

    def index(self, spec: str | Index) -> Index:
        """Return the index, still empty, for "exact", "flat", "ivf" or an index object.

        Raises
        ------
        ValueError
            For another name.
        TypeError
            For anything that is neither a name nor an index.
        """
        if not isinstance(spec, str):
            if isinstance(spec, type) or not (hasattr(spec, "build") and hasattr(spec, "search")):
                raise TypeError(
                    f"index must be one of {', '.join(_INDEXES)} or an index object, got {spec!r}"
                )
            return spec
        if spec not in _INDEXES:
            raise ValueError(f"unknown index {spec!r}: there are {', '.join(_INDEXES)}")
        return _INDEXES[spec]()

    def __repr__(self) -> str:
        return "Local()"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Local)

    __hash__ = None  # type: ignore[assignment]
