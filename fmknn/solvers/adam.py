"""Adam: mini-batch gradient descent on the entities of a design; SageMaker's own rule among it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._checks import require_bool, require_count
from ..data.blocks import Design
from .adam_run import GROUPS, LOSSES, AdamRun
from .base import Callback, Fit, SolverSpec, Start, iterate
from .settings import Settings

__all__ = ["Adam", "AdamSolver"]


@dataclasses.dataclass(frozen=True)
class Adam(Settings):
    """Settings of the Adam solver, under the names that SageMaker gives them.

    ``Adam()`` has fmknn's own defaults, ``Adam.sagemaker()`` those of SageMaker.

    Parameters
    ----------
    epochs : int
        Passes over the rows.
    mini_batch_size : int, optional
        Rows per update. None: 1/128 of the rows, between 16 and 500.
    bias_lr, linear_lr, factors_lr : float
        Learning rates of w0, w and V.
    lr_schedule : {"linear", "constant"}
        "linear" lowers the learning rates epoch by epoch, in equal steps down to 1 / epochs.
    bias_wd, linear_wd, factors_wd : float
        Weight decay, added to the gradient as wd·θ before it is clipped. None (linear and
        factors): a ridge penalty of 1 on w and of 4 on V (logistic loss: half of both), spread
        over the rows in which a typical feature occurs, wd = penalty / (mini_batch_size ·
        geometric mean of rows per feature).
    bias_init_method, linear_init_method, factors_init_method : str
        "normal" (standard deviation ``*_init_sigma``), "uniform" (within ± ``*_init_scale``) or
        "constant" (``*_init_value``); for the bias also "mean", the best constant prediction.
    clip_gradient : float, optional
        Gradients are clipped to ± this.
    eps : float, optional
        Added to the root of the second moment; None: 1e-8, as in SageMaker.
    rescale_grad : float, optional
        Factor on the summed gradient of a batch; default 1 / mini_batch_size.
    shuffle : bool
        Draw a new order of the rows for each epoch.
    lazy : bool
        Update, in a batch, only the features that occur in it (moments and decay included).
    damp_above : float, optional
        A feature that occurs in more rows of a mean batch than this (and more often than is
        typical) moves at rates lowered in proportion; None: never. Adam's step does not shrink
        with the gradient, so a feature that is everywhere (a gender, a genre) would walk about as
        far as its noise carries it.
    standardize : bool
        Squared loss: train on (y - mean) / std and put the scale back into the parameters, so
        that the settings fit targets of any scale.
    zero_unseen : bool
        Leave the parameters of features without a row at 0, instead of at their random start.

    Raises
    ------
    ValueError
        Naming the setting that is out of range.

    Notes
    -----
    For each batch, t counting from 1 (Kingma & Ba, "Adam", ICLR 2015, in MXNet's lazy form)::

        g = rescale_grad · Σ_batch ∂L/∂θ + wd·θ
        m = 0.9 m + 0.1 g;  s = 0.999 s + 0.001 g²
        θ -= lr · √(1 - 0.999^t) / (1 - 0.9^t) · m / (√s + eps)

    One thread does the work, whatever ``n_jobs``: batches depend on one another.

    Examples
    --------
    >>> Adam(epochs=5).mini_batch_size is None
    True
    >>> Adam.sagemaker(epochs=30, mini_batch_size=200).factors_lr
    0.0001
    """

    losses: ClassVar[tuple[str, ...]] = ("squared", "logistic")
    needs_all_rows: ClassVar[bool] = False
    n_warm: ClassVar[int] = 2

    epochs: int = 20
    mini_batch_size: int | None = None
    bias_lr: float = 0.01
    linear_lr: float = 0.006
    factors_lr: float = 0.004
    lr_schedule: str = "linear"
    bias_wd: float = 0.0
    linear_wd: float | None = None
    factors_wd: float | None = None
    bias_init_method: str = "mean"
    bias_init_scale: float | None = None
    bias_init_sigma: float = 0.01
    bias_init_value: float | None = None
    linear_init_method: str = "constant"
    linear_init_scale: float | None = None
    linear_init_sigma: float = 0.01
    linear_init_value: float | None = 0.0
    factors_init_method: str = "normal"
    factors_init_scale: float | None = None
    factors_init_sigma: float = 0.03
    factors_init_value: float | None = None
    clip_gradient: float | None = None
    eps: float | None = 1e-8
    rescale_grad: float | None = None
    shuffle: bool = True
    lazy: bool = True
    damp_above: float | None = 3.0
    standardize: bool = True
    zero_unseen: bool = True

    def __post_init__(self) -> None:
        require_count("epochs", self.epochs)
        if self.mini_batch_size is not None:
            require_count("mini_batch_size", self.mini_batch_size)
        for group in GROUPS:
            for name in (f"{group}_lr", f"{group}_init_sigma"):
                _require_not_negative(name, getattr(self, name))
            if getattr(self, f"{group}_wd") is not None or group == "bias":
                _require_not_negative(f"{group}_wd", getattr(self, f"{group}_wd"))
            self._check_init(group)
        for name in ("shuffle", "lazy", "standardize", "zero_unseen"):
            require_bool(name, getattr(self, name))
        if self.lr_schedule not in ("linear", "constant"):
            raise ValueError(
                f"lr_schedule must be 'linear' or 'constant', got {self.lr_schedule!r}"
            )
        for name in ("eps", "clip_gradient", "rescale_grad", "damp_above"):
            if getattr(self, name) is not None:
                _require_not_negative(name, getattr(self, name))
        if self.damp_above == 0:
            raise ValueError("damp_above must be above 0, or None")

    def _check_init(self, group: str) -> None:
        method = getattr(self, f"{group}_init_method")
        methods = ("normal", "uniform", "constant") + (("mean",) if group == "bias" else ())
        if method not in methods:
            raise ValueError(
                f"{group}_init_method must be one of {', '.join(methods)}, got {method!r}"
            )
        needed = {"uniform": f"{group}_init_scale", "constant": f"{group}_init_value"}.get(method)
        if needed is not None:
            value = getattr(self, needed)
            number = isinstance(value, (int, float, np.number)) and math.isfinite(value)
            if not number or (method == "uniform" and value < 0):
                raise ValueError(f"{group}_init_method={method!r} needs {needed}, got {value!r}")

    @classmethod
    def sagemaker(cls, **settings: Any) -> Adam:
        """Return SageMaker's rule and defaults (rows in file order, nothing standardised).

        Parameters
        ----------
        **settings
            Any of the hyperparameters, to override.

        Returns
        -------
        Adam
        """
        defaults: dict[str, Any] = {
            "epochs": 1,
            "mini_batch_size": 1000,
            "bias_lr": 0.1,
            "linear_lr": 0.001,
            "factors_lr": 0.0001,
            "lr_schedule": "constant",
            "bias_wd": 0.01,
            "linear_wd": 0.001,
            "factors_wd": 0.00001,
            "bias_init_method": "normal",
            "linear_init_method": "normal",
            "factors_init_method": "normal",
            "bias_init_sigma": 0.01,
            "linear_init_sigma": 0.01,
            "factors_init_sigma": 0.001,
            "linear_init_value": None,
            "shuffle": False,
            "damp_above": None,
            "standardize": False,
            "zero_unseen": False,
        }
        return cls(**{**defaults, **settings})

    def n_iter(self) -> int:
        """The number of passes."""
        return self.epochs

    def with_n_iter(self, n_iter: int) -> Adam:
        """Return the same settings with another number of passes.

        Parameters
        ----------
        n_iter : int

        Returns
        -------
        Adam

        Raises
        ------
        ValueError
            If it is no integer of at least 1.

        Examples
        --------
        >>> Adam().with_n_iter(3).epochs
        3
        """
        return dataclasses.replace(self, epochs=n_iter)

    def going_on(self, n_iter: int | None = None, alone: bool = False) -> Adam:
        """Return the settings with which a training goes on from a model.

        With new rows alone, penalties that were to be found by themselves are 0: what the model
        knows has borne them, and spread over few rows they would pull down what many before had
        raised.

        Parameters
        ----------
        n_iter : int, optional
            Number of passes; default ``n_warm``. With new rows alone, the more, the more is
            forgotten.
        alone : bool
            Whether it goes on with the new rows alone.

        Returns
        -------
        Adam

        Examples
        --------
        >>> settings = Adam(linear_wd=0.01).going_on(5, alone=True)
        >>> settings.epochs, settings.linear_wd, settings.factors_wd
        (5, 0.01, 0.0)
        """
        settings = self
        if alone:
            linear, factors = self.linear_wd or 0.0, self.factors_wd or 0.0
            settings = dataclasses.replace(self, linear_wd=linear, factors_wd=factors)
        return settings.with_n_iter(self.n_warm if n_iter is None else n_iter)

    def solver(self, spec: SolverSpec) -> AdamSolver:
        """Return the solver for what an estimator asks.

        Parameters
        ----------
        spec : SolverSpec

        Returns
        -------
        AdamSolver

        Raises
        ------
        ValueError
            If the loss is one that Adam does not know.
        """
        return AdamSolver(self, spec)


def _require_not_negative(name: str, value: Any) -> None:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


class AdamSolver:
    """Trains an FM by Adam; see :class:`Adam` for the settings.

    Parameters
    ----------
    config : Adam
    spec : SolverSpec

    Raises
    ------
    ValueError
        If the loss is one that Adam does not know.
    """

    def __init__(self, config: Adam, spec: SolverSpec) -> None:
        if spec.loss not in LOSSES:
            raise ValueError(f"Adam knows the losses {', '.join(LOSSES)}, not {spec.loss!r}")
        self.config = config
        self.spec = spec

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch, or go on from ``start``; see :class:`fmknn.solvers.base.Solver`."""
        run = AdamRun(self.config, self.spec, design, y, start)
        rates = ", ".join(f"{g}_lr={getattr(self.config, g + '_lr'):g}" for g in GROUPS)
        return iterate(
            run,
            first=run.first,
            n_iter=self.config.epochs,
            callbacks=callbacks,
            progress=self.spec.progress,
            advice=f"lower the learning rates ({rates}) or set clip_gradient",
            start=start,
        )
