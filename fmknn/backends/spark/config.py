"""SparkFM: the settings of Spark's factorization machines. It needs no pyspark."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..._checks import require_count, require_number
from ...solvers.base import SolverSpec
from ...solvers.settings import Settings

__all__ = ["OPTIMIZERS", "SparkFM"]

OPTIMIZERS = ("adamW", "gd")
_LARGEST = 1e30


@dataclasses.dataclass(frozen=True)
class SparkFM(Settings):
    """Settings of Spark's own factorization machines, with Spark's defaults.

    Parameters
    ----------
    max_iter : int
        Gradient steps, each over all rows or a sample of them. Spark may end earlier, see ``tol``.
    reg_param : float
        Ridge penalty of all parameters.
    step_size : float
        Of the first step.
    mini_batch_fraction : float
        Share of the rows that a step looks at, above 0 and at most 1.
    init_std : float
        Standard deviation of the factors at the start.
    tol : float
        Relative change of the parameters below which training ends.
    optimizer : {"adamW", "gd"}
        Spark's ``solver``.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    ``pyspark.ml`` has the squared and the logistic loss (FMRegressor, FMClassifier). A step adds
    up a dense gradient of n_features · (n_factors + 1) + 1 doubles over the machines, which the
    driver has to hold.

    Examples
    --------
    >>> SparkFM(max_iter=20)
    SparkFM(max_iter=20, reg_param=0.0, step_size=1.0, mini_batch_fraction=1.0, init_std=0.01, \
tol=1e-06, optimizer='adamW')
    """

    losses: ClassVar[tuple[str, ...]] = ("squared", "logistic")

    max_iter: int = 100
    reg_param: float = 0.0
    step_size: float = 1.0
    mini_batch_fraction: float = 1.0
    init_std: float = 0.01
    tol: float = 1e-6
    optimizer: str = "adamW"

    def __post_init__(self) -> None:
        require_count("max_iter", self.max_iter)
        for name in ("reg_param", "step_size", "init_std", "tol"):
            require_number(name, getattr(self, name), _LARGEST)
        require_number("mini_batch_fraction", self.mini_batch_fraction, 1)
        for name in ("step_size", "mini_batch_fraction"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be above 0")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}"
            )

    def with_n_iter(self, n_iter: int) -> SparkFM:
        """Return the same settings with another number of steps."""
        return dataclasses.replace(self, max_iter=n_iter)

    def solver(self, spec: SolverSpec) -> Any:
        """Refuse: this machine has no such solver.

        Raises
        ------
        ValueError
        """
        raise ValueError(
            "SparkFM trains on Spark: pass Recommender(…, backend=SparkBackend(spark)), or choose "
            "another solver"
        )
