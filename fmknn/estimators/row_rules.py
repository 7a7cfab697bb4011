"""RowRules: how a fitted estimator solves the rows of ids that it was not trained on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..data.blocks import Design
from ..solvers.base import Fit, SolverSpec
from ..solvers.row_rules import SquaredRow, WholeDataRow

__all__ = ["RowRules"]

_Rule = WholeDataRow | SquaredRow


class RowRules:
    """The part of an estimator that keeps what its training says of rows to come."""

    _row_rule: _Rule | None = None

    def _learn_row_rule(
        self, spec: SolverSpec, design: Design, targets: np.ndarray, fit: Fit
    ) -> _Rule | None:
        """Return how rows of new ids are solved; None where there is no closed form."""
        return None

    def row_rule(self) -> _Rule:
        """Return how the rows of ids that the training never saw are solved.

        Raises
        ------
        ValueError
            If the loss has no closed form, or it is not known how the model was trained.
        """
        if self._row_rule is not None:
            return self._row_rule
        _, loss = self.resolved()
        if loss not in ("squared", "whole-data"):
            raise ValueError(
                f"a history can't be folded into a model with loss={loss!r}, squared and "
                "whole-data losses have a closed form: leave it out to go by features alone"
            )
        raise ValueError(
            "this model does not say how it was trained, as one of from_params or of an older "
            "file: fit it again to fold a history in"
        )

    @abstractmethod
    def resolved(self) -> tuple[Any, str]:
        """Return the solver and the loss that the settings amount to."""

    def row_rule_state(self) -> dict[str, Any] | None:
        """Return the rule of new rows as JSON values; None if there is none."""
        return None if self._row_rule is None else self._row_rule.to_state()

    def set_row_rule(self, rule: _Rule | None) -> None:
        """Take back the rule of a saved model.

        Raises
        ------
        ValueError
            If it is of another loss than the model.
        """
        losses = {WholeDataRow: "whole-data", SquaredRow: "squared"}
        if rule is not None and losses[type(rule)] != self.resolved()[1]:
            raise ValueError("the rule of new rows is that of another loss")
        self._row_rule = rule
