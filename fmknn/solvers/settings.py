"""What the settings of all solvers can do."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

__all__ = ["Settings"]

_S = TypeVar("_S", bound="Settings")


class Settings:
    """Base of the solvers' settings, which are frozen dataclasses."""

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

    def with_n_iter(self: _S, n_iter: int) -> _S:
        """Return the same settings with another number of passes over the data."""
        return dataclasses.replace(self, n_iter=n_iter)  # type: ignore[type-var]
