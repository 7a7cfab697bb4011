"""search: the parameters of an estimator that are best on rows held out of the training rows."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import splits
from .._checks import require_count
from .._random import child_generator, entropy_words
from ..data.interactions import Interactions
from ..errors import DivergenceError, MissingExtraError
from ..estimators.solver_choice import config_of
from ..evaluation.base import ITEM_METRICS, parse_metrics
from ..evaluation.result import aligned
from ..recommender import Recommender
from .comparison import LOWER_IS_BETTER
from .space import Range

__all__ = ["SearchResult", "search"]

_STUDY = "fmknn"
_SPLIT, _FIT, _SAMPLER = range(3)  # streams of one random_state


@dataclass(frozen=True)
class SearchResult:
    """What :func:`search` found: ``print(result)`` is a table, the best trial first.

    Attributes
    ----------
    best_params : dict of str to object
    best_score : float
        The metric on the validation rows. It is the best of several, so better than a test's.
    best_estimator : estimator
        Not fitted; fit it on all training rows.
    metric : str
    trials : list of dict
        In the order in which they ran: "number", "params", "score" (NaN if it failed),
        "fit_seconds" (CPU seconds) and "error" (None, or why it failed).
    """

    best_params: dict[str, Any]
    best_score: float
    best_estimator: Any
    metric: str
    trials: list[dict[str, Any]]

    def __str__(self) -> str:
        names = list(self.best_params)
        sign = 1 if self.metric in LOWER_IS_BETTER else -1
        ranked = sorted(self.trials, key=lambda t: (t["error"] is not None, sign * t["score"]))
        table = [("trial", self.metric, *names, "fit CPU s")]
        for trial in ranked:
            cells = [_shown(trial["params"][name]) for name in names]
            score = "failed" if trial["error"] else f"{trial['score']:.4f}"
            table.append((str(trial["number"]), score, *cells, f"{trial['fit_seconds']:.1f}"))
        return "\n".join(aligned(table))


def search(
    estimator: Any,
    space: Mapping[str, Range],
    train: Interactions,
    validation: Interactions | float | None = None,
    *,
    metric: str = "ndcg@10",
    n_trials: int = 20,
    random_state: int | np.random.Generator | np.random.SeedSequence | None = 0,
    storage: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> SearchResult:
    """Try parameters and keep those that are best on validation rows.

    Parameters
    ----------
    estimator : FMRegressor, FMClassifier or FMRanker
        Its other parameters stay as they are. It is not changed.
    space : mapping of str to Range
        Parameters by name, ``solver__nu`` for one of the solver's: where `solver` is a name or is
        left open, the default settings of that solver are where the others come from.
    train : Interactions
        Training rows only: test rows have no part in a search.
    validation : Interactions or float, optional
        Rows to measure on that are none of `train`, or the share of each user's rows that is drawn
        from `train`. Default: each user's last row where there are timestamps, else 0.1.
    metric : str
        One metric of :func:`fmknn.evaluate`; "rmse" and "mae" are made small, others large.
    n_trials : int
        How many to try in all, those of a resumed search included.
    random_state : int, numpy Generator, SeedSequence or None
        Of the split, of the trials, and of an estimator whose own is None.
    storage : path-like, optional
        A file that keeps the trials, so that a search that was interrupted, or is to go further, is
        called again with the same arguments. One process at a time may write to it.
    progress : bool
        Show a progress bar.
    **options
        As of :func:`fmknn.evaluate`, ``exclude_seen=False`` for instance.

    Returns
    -------
    SearchResult

    Raises
    ------
    MissingExtraError
        If optuna is not installed.
    ValueError
        For an empty space, an unknown parameter, a metric without a better direction, a storage
        that holds another search, and all that fitting and evaluating refuse.
    DivergenceError
        If every trial diverged. One that did is kept as failed, with no score.

    Notes
    -----
    Trials come from the tree-structured Parzen estimator (Bergstra et al., "Algorithms for
    hyper-parameter optimization", NeurIPS 2011) of optuna (Akiba et al., KDD 2019), the first ten
    at random. Its random numbers are drawn anew for each trial, from `random_state` and the number
    of trials before it. So a search with an int for a random_state gives the same trials whether
    it ran at once or was stopped, between trials or within one, and resumed, given the same version
    of optuna; a trial that was stopped is run again. The estimator must have such a random_state
    too, or None.

    Examples
    --------
    >>> import fmknn
    >>> from fmknn.selection import choice, log_uniform, search
    >>> ratings, _ = fmknn.datasets.make_interactions(n_users=30, n_items=20, n_ratings=300)
    >>> found = search(
    ...     fmknn.FMRegressor(solver="als", n_iter=2),
    ...     {"n_factors": choice([2, 4]), "solver__l2_factors": log_uniform(1, 100)},
    ...     ratings,
    ...     metric="rmse",
    ...     n_trials=3,
    ...     random_state=0,
    ...     progress=False,
    ... )
    >>> len(found.trials), sorted(found.best_params)
    (3, ['n_factors', 'solver__l2_factors'])
    """
    optuna = _optuna()
    from tqdm import tqdm

    n_trials = require_count("n_trials", n_trials)
    if storage is not None and random_state is None:
        raise ValueError("a search with a storage needs a random_state: without, none is resumed")
    _check_space(estimator, space)
    words = entropy_words(random_state)
    fit_rows, held_out = _parts(train, validation, child_generator(words, _SPLIT))
    (wanted,) = parse_metrics(metric, held_out.values is not None)
    if wanted.kind in ITEM_METRICS:
        raise ValueError(f"{metric} is neither better large nor small: search for another metric")
    about = _description(estimator, space, metric, options)
    about["random_state"] = words.tolist()
    about["rows"] = [_fingerprint(fit_rows), _fingerprint(held_out)]
    study = _study(optuna, storage, metric, about)
    seed = int(child_generator(words, _FIT).integers(2**31))
    options = {"random_state": seed, **options}

    done = _finished(study)
    with tqdm(total=n_trials, initial=len(done), desc="searching", disable=not progress) as bar:
        while len(done) < n_trials:
            # a sampler anew for each trial knows nothing that a resumed search would not
            sampler_seed = int(child_generator(words, _SAMPLER, len(done)).integers(2**32))
            study.sampler = optuna.samplers.TPESampler(seed=sampler_seed)
            trial = study.ask()
            params = {name: one.value(one.suggest(trial, name)) for name, one in space.items()}
            candidate = _with_params(estimator, params)
            if candidate.random_state is None:
                candidate.set_params(random_state=seed)
            try:
                model = _timed_fit(candidate, fit_rows, trial)
            except DivergenceError as error:
                trial.set_user_attr("error", str(error))
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, _score(model, held_out, metric, options))
            done = _finished(study)
            bar.update()
    return _result(estimator, space, metric, done)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("a search needs optuna: pip install 'fmknn[search]'") from error
    return optuna


def _check_space(estimator: Any, space: Any) -> None:
    if isinstance(estimator, type) or not hasattr(estimator, "solver_spec"):
        raise TypeError(f"estimator must be an FMRegressor or its like, got {estimator!r}")
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"space must map names of parameters to ranges, got {space!r}")
    for name, parameter in space.items():
        if not isinstance(parameter, Range):
            raise TypeError(
                f"space[{name!r}] must be a range such as log_uniform(1e-4, 1), got {parameter!r}"
            )
    if "solver__n_iter" in space and estimator.n_iter is not None:
        raise ValueError(
            "solver__n_iter has no effect: the estimator's own n_iter overrides it, search that"
        )
    lowest = {name: one.options[0] if one.options else one.low for name, one in space.items()}
    solvers = space["solver"].options if "solver" in space else (estimator.solver,)
    for solver in solvers:
        _with_params(estimator, {**lowest, "solver": solver}).solver_spec()


def _description(
    estimator: Any, space: Mapping[str, Range], metric: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes one search another, as JSON values; how it is run and watched does not."""
    settings = estimator.get_params(deep=False)
    return {
        "estimator": type(estimator).__name__,
        "parameters": {
            name: repr(value)
            for name, value in settings.items()
            if name not in ("n_jobs", "callbacks", "progress", *space)
        },
        "space": {name: repr(parameter) for name, parameter in space.items()},
        "metric": metric,
        "options": {name: repr(value) for name, value in options.items()},
    }


def _timed_fit(estimator: Any, rows: Interactions, trial: Any) -> Recommender:
    start = time.process_time()
    try:
        return Recommender(estimator).fit(rows)
    finally:
        trial.set_user_attr("fit_seconds", time.process_time() - start)


def _score(
    model: Recommender, held_out: Interactions, metric: str, options: Mapping[str, Any]
) -> float:
    numbers = [*model.evaluate(held_out, metric, **options).values()]
    if not numbers or not np.isfinite(numbers[0]):
        raise ValueError(f"the validation rows give no {metric}: no user in them can be measured")
    return numbers[0]


def _with_params(estimator: Any, params: Mapping[str, Any]) -> Any:
    """A copy of an estimator with parameters, those of a solver that is a name too."""
    copied = type(estimator)(**estimator.get_params(deep=False))
    copied.set_params(**{name: value for name, value in params.items() if "__" not in name})
    nested = {name: value for name, value in params.items() if "__" in name}
    if any(name.startswith("solver__") for name in nested):
        config = config_of(copied.resolved()[0])
        known = config.get_params()
        for name in nested:
            inner = name.removeprefix("solver__")
            if inner != name and inner not in known:
                raise ValueError(
                    f"{name}: {type(config).__name__} has no {inner!r}, there are "
                    f"{', '.join(known)}"
                )
        copied.set_params(solver=config)
    return copied.set_params(**nested)


def _parts(
    train: Interactions, validation: Any, generator: np.random.Generator
) -> tuple[Interactions, Interactions]:
    if isinstance(validation, Interactions):
        return train, validation
    if validation is None and train.timestamps is not None:
        return splits.leave_last(train)
    share = 0.1 if validation is None else validation
    return splits.random(train, test=share, random_state=generator, per_user=True)


def _fingerprint(rows: Interactions) -> int:
    code = 0
    contexts = (column.index for column in rows.context.values())
    for column in (rows.user_index, rows.item_index, rows.values, rows.weights, *contexts):
        code = zlib.crc32(b"" if column is None else column.tobytes(), code)
    return code


def _study(optuna: Any, storage: Any, metric: str, about: dict[str, Any]) -> Any:
    """The study of a new search, or the one that a storage holds of the same."""
    direction = "minimize" if metric in LOWER_IS_BETTER else "maximize"
    kept = None if storage is None else _journal(optuna, storage)
    with _quiet(optuna):
        study = optuna.create_study(
            storage=kept, study_name=_STUDY, direction=direction, load_if_exists=True
        )
    before = study.user_attrs.get("search")
    if before is None:
        study.set_user_attr("search", about)
        return study
    changed = [name for name in about if before.get(name) != about[name]]
    if changed:
        raise ValueError(
            f"{storage} holds another search, of another {', '.join(changed)}: name another file"
        )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # stopped: it is run again
    return study


def _journal(optuna: Any, storage: str | os.PathLike[str]) -> Any:
    path = Path(storage)
    if path.exists():
        with path.open("rb") as file:
            first = file.readline()
        if first and not first.startswith(b'{"op_code"'):  # optuna would write to it all the same
            raise ValueError(f"{storage} holds no search: name another file")
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.storages.JournalStorage(backend)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """No lines of optuna's log meanwhile; its verbosity is one for the whole process."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _finished(study: Any) -> list[Any]:
    """The trials with a score, and those that failed by themselves."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.value is not None or "error" in trial.user_attrs
    ]


def _result(
    estimator: Any, space: Mapping[str, Range], metric: str, finished: list[Any]
) -> SearchResult:
    trials = [
        {
            "number": number,
            "params": {name: one.value(trial.params[name]) for name, one in space.items()},
            "score": np.nan if trial.value is None else float(trial.value),
            "fit_seconds": trial.user_attrs["fit_seconds"],
            "error": trial.user_attrs.get("error"),
        }
        for number, trial in enumerate(finished)
    ]
    scored = [trial for trial in trials if trial["error"] is None]
    if not scored:
        raise DivergenceError(
            f"all {len(trials)} trials failed, the last one: {trials[-1]['error']}"
        )
    better = min if metric in LOWER_IS_BETTER else max
    best = better(scored, key=lambda trial: trial["score"])
    estimator = _with_params(estimator, best["params"])
    return SearchResult(best["params"], best["score"], estimator, metric, trials)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
