"""What the settings of all solvers can do."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeVar

__all__ = ["Settings"]

_S = TypeVar("_S", bound="Settings")


class Settings:
    """Base of the solvers' settings, which are frozen dataclasses.

    Attributes
    ----------
    needs_all_rows : bool
        Whether training that goes on needs the rows of before too, or can do with new ones alone.
    n_warm : int
        Passes that are enough when it begins from a model.
    """

    needs_all_rows: ClassVar[bool] = True
    n_warm: ClassVar[int] = 2

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as scikit-learn asks for them.

        Parameters
        ----------
        deep : bool
            Without effect: no setting has settings of its own.

        Returns
        -------
        dict of str to object
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def going_on(self: _S, n_iter: int | None = None, alone: bool = False) -> _S:
        """Return the settings with which a training goes on from a model, where rows are added.

        Parameters
        ----------
        n_iter : int, optional
            Number of passes; default ``n_warm``.
        alone : bool
            Whether it goes on with the new rows alone.
        """
        return self.with_n_iter(self.n_warm if n_iter is None else n_iter)

    def with_n_iter(self: _S, n_iter: int) -> _S:
        """Return the same settings with another number of passes over the data."""
        return dataclasses.replace(self, n_iter=n_iter)  # type: ignore[type-var]
