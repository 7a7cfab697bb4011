"""scikit-learn's manners without scikit-learn: it is imported only where it already is.

It takes half a second to import, and nothing here needs it; but where somebody uses it, its own
exceptions and tags are what its tools look for.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["ParamsMixin", "available_if", "not_fitted"]


class _NotFittedError(ValueError, AttributeError):
    """The estimator has not been fitted yet."""


def not_fitted(estimator: Any) -> Exception:
    """Return the error for an estimator that is used before fit."""
    exceptions = sys.modules.get("sklearn.exceptions")
    kind = exceptions.NotFittedError if exceptions else _NotFittedError
    return kind(f"this {type(estimator).__name__} is not fitted yet: call fit first")


class _Conditional:
    """A method that is no attribute where its condition does not hold."""

    def __init__(
        self, method: Callable[..., Any], condition: Callable[[Any], bool], needs: str
    ) -> None:
        self.method, self.condition, self.needs = method, condition, needs
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is not None and not self.condition(instance):
            name = f"{type(instance).__name__}.{self.method.__name__}"
            raise AttributeError(f"{name} needs {self.needs}")
        return self.method.__get__(instance, owner)


def available_if(
    condition: Callable[[Any], bool], needs: str
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator of methods that an estimator has under a condition only.

    Otherwise they are no attributes, which is how scikit-learn's tools tell what it can do.

    Parameters
    ----------
    condition : callable
        From the estimator to whether it has the method.
    needs : str
        What the error says that it takes.

    Returns
    -------
    callable

    Examples
    --------
    >>> class Loud:
    ...     volume = 3
    ...
    ...     @available_if(lambda self: self.volume > 2, "a volume above 2")
    ...     def shout(self):
    ...         return "HEY"
    >>> loud = Loud()
    >>> loud.shout()
    'HEY'
    >>> loud.volume = 1
    >>> hasattr(loud, "shout")
    False
    """
    return lambda method: _Conditional(method, condition, needs)


class ParamsMixin:
    """get_params and set_params by the names of the constructor's arguments."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        names = list(inspect.signature(cls.__init__).parameters)
        return [name for name in names if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments.

        Parameters
        ----------
        deep : bool
            Also those of a solver object, as ``solver__name``.

        Returns
        -------
        dict of str to object
        """
        params: dict[str, Any] = {}
        for name in self._parameter_names():
            value = getattr(self, name)
            params[name] = value
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                params.update({f"{name}__{k}": v for k, v in value.get_params().items()})
        return params

    def set_params(self, **params: Any) -> Any:
        """Set arguments of the constructor, or of a solver object as ``solver__name``.

        Parameters
        ----------
        **params
            New values by name. They are checked by ``fit``, those of a solver at once.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that does not exist, or a setting that the solver refuses.
        """
        nested: dict[str, dict[str, Any]] = {}
        names = self._parameter_names()
        for key, value in params.items():
            name, dot, inner = key.partition("__")
            if name not in names:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}: "
                    f"there are {', '.join(names)}"
                )
            if dot:
                nested.setdefault(name, {})[inner] = value
            else:
                setattr(self, name, value)
        for name, changes in nested.items():
            value = getattr(self, name)
            if not hasattr(value, "get_params"):
                raise ValueError(f"{name}={value!r} has no parameters of its own to set")
            setattr(self, name, type(value)(**{**value.get_params(), **changes}))
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if not _is_default(value, defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _is_default(value: Any, default: Any) -> bool:
    same = value is default
    return same or (
        type(value) is type(default) and not hasattr(value, "shape") and value == default
    )
