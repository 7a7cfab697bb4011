"""Plots of training, of search and of the popularity dial; each returns matplotlib's Axes.

Nothing here touches pyplot. Without ``ax=`` a plot gets a figure of its own, ``axes.figure``, of
which pyplot does not know, so that ``plt.show()`` does not show it:
``axes.figure.savefig("plot.png")`` writes it. To draw on pyplot's current figure pass
``ax=plt.gca()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._checks import require_number
from ._sklearn import not_fitted
from .errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["popularity_dial", "recall_against_speed", "training_curve"]

_MARKERS = "osD^v<>*"
_DIALS = {"coverage": "coverage: share of the catalogue listed", "novelty": "novelty (bits)"}
_VALIDATION = "validation_"


def training_curve(runs: Any, *, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot a metric of the training against iterations.

    Parameters
    ----------
    runs : estimator, Recommender, its ``history_``, or a mapping of str to those
        One line each.
    metric : str, optional
        One of those in ``history_``. Default: "train_rmse" where all runs have it, or else "loss",
        and beside it, dashed, what an :class:`fmknn.EarlyStopping` measured on validation rows.
    ax : Axes, optional
        Where to draw. Default: the only one of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Before fit, for a model that was loaded and so has no history, or for a metric that a run
        has not.
    TypeError
        For anything else than runs.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import fmknn
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=20, n_items=10, n_ratings=100)
    >>> fm = fmknn.FMRegressor(n_factors=2, solver="als", n_iter=4, random_state=0).fit(ratings)
    >>> axes = training_curve(fm)
    >>> axes.get_ylabel(), axes.lines[0].get_xdata().tolist()
    ('train_rmse', [1, 2, 3, 4])
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    if not named:
        raise ValueError("runs is empty: there is nothing to plot")
    histories = {str(name): _history(run) for name, run in named.items()}
    drawn = _default_metric(histories.values()) if metric is None else metric
    for name, history in histories.items():
        _require_metric(name, history, drawn)
    axes, lines = _axes(ax), []
    for name, history in histories.items():
        (line,) = axes.plot(*_curve(history, drawn), label=name or drawn)
        lines.append(line)
        beside = sorted({key for entry in history for key in entry if key.startswith(_VALIDATION)})
        for key in beside if metric is None else ():
            label = f"{name}, {key}" if name else key
            colour = line.get_color()
            lines += axes.plot(*_curve(history, key), linestyle="--", color=colour, label=label)
    axes.set(xlabel="iteration", ylabel=drawn)
    return _finished(axes, lines)


def recall_against_speed(points: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Plot what approximate indexes find against how fast they are.

    Parameters
    ----------
    points : mapping of str to points
        A line each: a sequence of (users per second, recall), or an index that was tuned to a
        ``target_recall`` (or its ``tuning_``), or a sequence of those.
    ax : Axes, optional
        Where to draw. Default: the only one of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the speed on a logarithmic scale.

    Raises
    ------
    ValueError
        For no points, a speed that is not above 0, or a recall outside 0 to 1.
    TypeError
        For anything else than points.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> axes = recall_against_speed({"IVF": [(900, 0.99), (4000, 0.9)], "exact": [(500, 1.0)]})
    >>> axes.lines[0].get_xydata().tolist()
    [[900.0, 0.99], [4000.0, 0.9]]
    """
    if not isinstance(points, Mapping):
        raise TypeError(f"points must map names to points, got {type(points).__name__}")
    if not points:
        raise ValueError("points is empty: there is nothing to plot")
    curves = {str(name): _points(str(name), given) for name, given in points.items()}
    axes = _axes(ax)
    lines: list[Line2D] = []
    for place, (name, curve) in enumerate(curves.items()):
        lines += axes.plot(*curve.T, marker=_MARKERS[place % len(_MARKERS)], label=name)
    axes.set(xscale="log", xlabel="users per second", ylabel="recall")
    return _finished(axes, lines)


def popularity_dial(
    results: Mapping[float, Mapping[str, float]], *, ax: Axes | None = None
) -> Axes:
    """Plot coverage and novelty of lists against the dial ``popularity`` that they were made with.

    Parameters
    ----------
    results : mapping of float to Evaluation, or to mapping of metric to float
        By the ``popularity`` of the lists: what was measured of "coverage@k" and "novelty@k", of
        one k or more. Other metrics are left out.
    ax : Axes, optional
        Where to draw. Default: the only one of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        That of coverage. If there is novelty too, it has a scale of its own to the right, on a
        second Axes of the same figure.

    Raises
    ------
    ValueError
        For no results, none of these metrics, one that some results lack, or a dial outside 0 to 1.
    TypeError
        For anything else.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> few, many = {"coverage@10": 0.4, "novelty@10": 7.0}, {"coverage@10": 0.1, "novelty@10": 5.0}
    >>> axes = popularity_dial({1.0: many, 0.0: few})
    >>> axes.lines[0].get_xydata().tolist()
    [[0.0, 0.4], [1.0, 0.1]]
    """
    dials = _dials(results)
    names = _dial_metrics(results)
    kinds = [kind for kind in _DIALS if any(_is_of(name, kind) for name in names)]
    axes = _axes(ax)
    sides = dict(zip(kinds, (axes, axes.twinx()) if len(kinds) > 1 else (axes,), strict=True))
    lines: list[Line2D] = []
    for kind, side in sides.items():
        side.set_ylabel(_DIALS[kind])
        for name in filter(lambda name: _is_of(name, kind), names):
            values = [float(results[dial][name]) for dial in dials]
            colour, marker = f"C{len(lines)}", _MARKERS[len(lines) % len(_MARKERS)]
            lines += side.plot(dials, values, color=colour, marker=marker, label=name)
    axes.set_xlabel("popularity")
    axes.grid(alpha=0.3)
    axes.legend(handles=lines)
    return axes


def _axes(ax: Axes | None) -> Axes:
    """Return the Axes to draw on, if need be of a new figure that pyplot does not know of."""
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'fmknn[plot]'") from error
    if ax is None:
        return Figure(layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be an Axes of matplotlib, got {type(ax).__name__}")
    return ax


def _finished(axes: Axes, lines: list[Line2D]) -> Axes:
    """Name the lines, and what was there before."""
    axes.grid(alpha=0.3)
    before = [handle for handle in axes.get_legend_handles_labels()[0] if handle not in lines]
    named = [*before, *lines]
    legend = axes.legend(named, [str(place) for place in range(len(named))])
    for text, handle in zip(legend.get_texts(), named, strict=True):
        text.set_text(str(handle.get_label()))  # given to it, it may leave out "_first"
    return axes


def _history(run: Any) -> Sequence[Mapping[str, float]]:
    """Return what each iteration of a training said."""
    history = run
    if hasattr(run, "fit"):
        fitted = getattr(run, "estimator_", run)
        if not hasattr(fitted, "params_"):
            raise not_fitted(run)
        history = getattr(fitted, "history_", ())
    is_sequence = isinstance(history, Sequence)
    if not is_sequence or not all(isinstance(entry, Mapping) for entry in history):
        raise TypeError(
            "runs must be an estimator, a Recommender, a history_, or a mapping of names to them, "
            f"got {type(run).__name__}"
        )
    if not history:
        raise ValueError(
            "there is no history to plot: a model that was loaded or trained elsewhere has none"
        )
    return history


def _default_metric(histories: Iterable[Sequence[Mapping[str, float]]]) -> str:
    have_it = all(any("train_rmse" in entry for entry in history) for history in histories)
    return "train_rmse" if have_it else "loss"


def _require_metric(name: str, history: Sequence[Mapping[str, float]], metric: str) -> None:
    known = list(dict.fromkeys(key for entry in history for key in entry))
    if metric not in known:
        of = f" of {name!r}" if name else ""
        raise ValueError(f"there is no {metric!r} in the history{of}: it has {', '.join(known)}")


def _curve(history: Sequence[Mapping[str, float]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the iterations that have a metric, and the metric."""
    has = [(place, entry) for place, entry in enumerate(history, 1) if metric in entry]
    iterations = np.array([entry.get("iteration", place) for place, entry in has])
    return iterations, np.array([entry[metric] for _, entry in has], np.float64)


def _points(name: str, given: Any) -> np.ndarray:
    """Return points as rows of (users per second, recall), the slowest first."""
    several = given if isinstance(given, (Sequence, np.ndarray)) else [given]
    pairs = [_pair(one) for one in several]
    try:
        array = np.array(pairs, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if not pairs or array.shape != (len(pairs), 2):
        raise TypeError(
            f"points of {name!r} must be pairs of users per second and recall, or tuned indexes"
        )
    wrong = ~(
        (array[:, 0] > 0) & np.isfinite(array[:, 0]) & (array[:, 1] >= 0) & (array[:, 1] <= 1)
    )
    if wrong.any():
        speed, recall = array[int(np.argmax(wrong))].tolist()
        raise ValueError(
            f"points of {name!r} have {speed:g} users per second at a recall of {recall:g}: the "
            "speed must be above 0, the recall from 0 to 1"
        )
    return array[np.lexsort((-array[:, 1], array[:, 0]))]


def _pair(point: Any) -> Any:
    """Return the point that a tuned index, or its tuning, is; a pair is one already."""
    tuning = getattr(point, "tuning_", point)
    is_tuning = hasattr(tuning, "users_per_second") and hasattr(tuning, "recall")
    return (tuning.users_per_second, tuning.recall) if is_tuning else point


def _dials(results: Any) -> list[float]:
    if not isinstance(results, Mapping):
        raise TypeError(f"results must map popularity to metrics, got {type(results).__name__}")
    if not results:
        raise ValueError("results is empty: there is nothing to plot")
    for dial, metrics in results.items():
        require_number("popularity", dial, 1)
        if not isinstance(metrics, Mapping):
            raise TypeError(
                f"results of popularity {dial:g} must be an Evaluation or a mapping of metrics, "
                f"got {type(metrics).__name__}"
            )
    return sorted(results)


def _dial_metrics(results: Mapping[float, Mapping[str, float]]) -> list[str]:
    """Return the metrics to plot, which all results must have."""
    named = dict.fromkeys(name for metrics in results.values() for name in metrics)
    names = [name for name in named if any(_is_of(name, kind) for kind in _DIALS)]
    if not names:
        raise ValueError("there is no coverage@k or novelty@k to plot: pass them to evaluate")
    for dial, metrics in results.items():
        for name in names:
            if name not in metrics:
                raise ValueError(f"the result of popularity {dial:g} has no {name!r}")
    return names


def _is_of(name: str, kind: str) -> bool:
    return name.partition("@")[0] == kind
