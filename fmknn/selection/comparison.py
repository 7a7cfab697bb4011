"""compare: several models on one test, in one table."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._random import entropy_words
from ..data.frames import frame_from
from ..evaluation import DEFAULT_RANKING, Evaluation, evaluate
from ..evaluation.bootstrap import paired_bootstrap
from ..evaluation.result import aligned
from ..recommender import Recommender

if TYPE_CHECKING:
    from ..data.interactions import Interactions

__all__ = ["LOWER_IS_BETTER", "Comparison", "compare"]

LOWER_IS_BETTER = ("rmse", "mae")
_FIT = "fit CPU s"


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found: ``print(result)``, ``result["name"]``, ``result.to_frame()``.

    Attributes
    ----------
    results : dict of str to Evaluation
        By the name of the model.
    models : dict of str to object
        The fitted models.
    fit_seconds : dict of str to float or None
        CPU seconds of all threads, compilation included; None for a model that came fitted.
    baseline : str
        The model that the others are compared with.
    differences : dict of str to dict of str to (low, high)
        By model and metric: the interval of (its metric - that of the baseline) over the same
        resamples of the users; empty if no intervals were asked for.
    frame_library : {"pandas", "polars", "pyarrow"} or None
        What the training rows came in.
    """

    results: dict[str, Evaluation]
    models: dict[str, Any]
    fit_seconds: dict[str, float | None]
    baseline: str
    differences: dict[str, dict[str, tuple[float, float]]]
    frame_library: str | None = None

    def __getitem__(self, name: str) -> Evaluation:
        return self.results[name]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the models as plain Python values, ready for JSON."""
        return {
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "fit_seconds": dict(self.fit_seconds),
            "baseline": self.baseline,
            "differences": {name: dict(found) for name, found in self.differences.items()},
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: a mapping per model, with "model", each metric and "fit CPU s"."""
        return [
            {"model": name, **result.metrics, _FIT: self.fit_seconds[name]}
            for name, result in self.results.items()
        ]

    def to_frame(self, library: str | None = None) -> Any:
        """Return the table as a data frame.

        Parameters
        ----------
        library : {"pandas", "polars", "pyarrow"}, optional
            Default: that of the training rows, or else the first of these that is installed.

        Returns
        -------
        data frame

        Raises
        ------
        MissingExtraError
            If none is installed, or the one asked for is not.
        """
        rows = self.rows()
        names = np.array([row.pop("model") for row in rows], object)
        numbers = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
        return frame_from({"model": names, **numbers}, library, preferred=self.frame_library)

    def __str__(self) -> str:
        names = list(self.results[self.baseline])
        table: list[tuple[str, ...]] = [("", *names, _FIT)]
        for model, seconds in self.fit_seconds.items():
            cells = [self._cell(model, name) for name in names]
            table.append((model, *cells, "" if seconds is None else f"{seconds:.1f}"))
        lines = aligned(table)
        about = self.results[self.baseline]
        lines.append(f"{about.n_users} users, {about.n_rows} rows")
        if about.confidence is not None:
            lines.append(
                f"± half of the {100 * about.confidence:g}% interval over users; * differs from "
                f"{self.baseline}: the interval of the difference, user by user, is without 0"
            )
        others = [
            model
            for model, result in self.results.items()
            if (result.n_users, result.n_rows) != (about.n_users, about.n_rows)
        ]
        if others:
            lines.append(f"measured on other rows, as other ids were known: {', '.join(others)}")
        return "\n".join(lines)

    def _cell(self, model: str, name: str) -> str:
        result = self.results[model]
        cell = f"{result.metrics.get(name, np.nan):.4f}"
        if name not in result.intervals:
            return cell
        low, high = result.intervals[name]
        below, above = self.differences.get(model, {}).get(name, (0.0, 0.0))
        mark = "*" if below > 0 or above < 0 else " "
        return f"{cell} ±{(high - low) / 2:.4f}{mark}"


def compare(
    models: Mapping[str, Any],
    train: Interactions,
    test: Interactions,
    metrics: str | Iterable[str] | None = None,
    *,
    baseline: str | None = None,
    random_state: Any = None,
    **options: Any,
) -> Comparison:
    """Fit models on the same rows and measure them on the same test.

    Parameters
    ----------
    models : mapping of str to estimator, Recommender or Evaluable
        An estimator is put into a Recommender. What is not fitted is fitted on `train`, in a copy;
        a fitted Recommender, and anything else that is fitted, is taken as it is.
    train, test : Interactions
    metrics : str or iterable of str, optional
        As of :func:`fmknn.evaluate`. Default: "ndcg@10" and "recall@20".
    baseline : str, optional
        The name of the model that the others are compared with, where `intervals` is among the
        options. Default: the one that is best by the first metric.
    random_state : int, numpy Generator, SeedSequence or None
        Of the evaluation: all models meet the same drawings. Estimators have their own.
    **options
        As of :func:`fmknn.evaluate`, ``intervals=0.95`` for instance.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError, TypeError
        For no models, an unknown baseline, a model that can't be measured, and all that
        :func:`fmknn.evaluate` refuses.

    Notes
    -----
    Two intervals may overlap though one model is better for nearly every user; so differences are
    taken user by user, over the same resamples for both. It is the settings chosen on other rows
    that make a comparison fair: see :func:`search`.

    Examples
    --------
    >>> import fmknn
    >>> from fmknn.baselines import Popularity
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=40, n_items=20, n_ratings=400)
    >>> train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
    >>> models = {
    ...     "popularity": Popularity(),
    ...     "FM": fmknn.FMRegressor(n_factors=2, solver="als", n_iter=2, random_state=0),
    ... }
    >>> result = compare(models, train, test, ["ndcg@5", "coverage@5"])
    >>> [row["model"] for row in result.rows()], list(result["FM"])
    (['popularity', 'FM'], ['ndcg@5', 'coverage@5'])
    """
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models must be a mapping from names to models, got {models!r}")
    if baseline is not None and baseline not in models:
        raise ValueError(f"no model {baseline!r} to compare with: there are {', '.join(models)}")
    if metrics is None:
        metrics = DEFAULT_RANKING
    metrics = metrics if isinstance(metrics, str) else list(metrics)  # read once per model
    seed = np.random.SeedSequence([int(word) for word in entropy_words(random_state)])
    fitted: dict[str, Any] = {}
    seconds: dict[str, float | None] = {}
    for name, model in models.items():
        fitted[name], seconds[name] = _fitted(name, model, train)
    results = {
        name: evaluate(model, test, metrics, random_state=seed, **options)
        for name, model in fitted.items()
    }
    best = _best(results) if baseline is None else baseline
    differences = {}
    if results[best].confidence is not None:
        differences = {
            name: _difference(result, results[best], seed)
            for name, result in results.items()
            if name != best
        }
    return Comparison(results, fitted, seconds, best, differences, train.frame_library)


def _fitted(name: str, model: Any, train: Interactions) -> tuple[Any, float | None]:
    """The model ready to answer, and the CPU seconds that took; the one given stays as it was."""
    if isinstance(model, type):
        raise TypeError(f"{name!r} is the class {model.__name__}: make one with {model.__name__}()")
    if hasattr(model, "solver_spec"):
        model = Recommender(model)
    elif hasattr(model, "catalog_") or not hasattr(model, "fit"):
        if not hasattr(model, "recommend"):
            raise TypeError(f"{name!r} is neither an estimator nor a model: {model!r}")
        return model, None
    model = copy.copy(model)
    start = time.process_time()
    model.fit(train)
    return model, time.process_time() - start


def _best(results: Mapping[str, Evaluation]) -> str:
    first = next(iter(next(iter(results.values()))), "")
    sign = -1 if first in LOWER_IS_BETTER else 1
    numbers = {name: sign * result.metrics.get(first, np.nan) for name, result in results.items()}
    return max(numbers, key=lambda name: np.nan_to_num(numbers[name], nan=-np.inf))


def _difference(
    result: Evaluation, other: Evaluation, seed: np.random.SeedSequence
) -> dict[str, tuple[float, float]]:
    if result.per_user is None or other.per_user is None or other.confidence is None:
        return {}
    return paired_bootstrap(result.per_user, other.per_user, other.confidence, seed)
