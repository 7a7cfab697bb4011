"""What the commands do: a few lines each, around the library."""

from __future__ import annotations

import json
import math
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

__all__ = ["demo", "evaluate", "fit", "require_place_for", "say"]

# the library is imported inside the functions: --help and typing errors are answered at once


def fit(args: Namespace) -> None:
    """Train a model and save it."""
    from ..recommender import Recommender
    from .tables import training_data

    require_place_for(args.model, args.ratings, args.user_features, args.item_features)
    if _ranks(args) and args.value != "rating":
        raise ValueError(
            f"--value {args.value}: whole-data and bpr learn from which rows there are, not from "
            "values: leave it out, or name counts by --weight"
        )
    estimator = _estimator(args, is_ranked=_ranks(args))  # refused before the files are read
    interactions = training_data(args, without_values=_ranks(args))
    if interactions.values is None and not _ranks(args):
        if args.loss or args.solver:
            raise ValueError(
                f"{args.ratings}: no column {args.value!r} to learn: name one with --value, or "
                "leave out --loss and --solver to rank what was taken"
            )
        estimator = _estimator(args, is_ranked=True)
    model = Recommender(estimator, index=args.index).fit(interactions)
    model.save(args.model)
    if not args.quiet:
        n_rows, n_users, n_items = len(interactions), len(model.users), len(model.items)
        kind = type(estimator).__name__
        say(f"{args.model}: {kind} trained on {n_rows} rows, {n_users} users, {n_items} items")


def _ranks(args: Namespace) -> bool:
    return bool({args.loss, args.solver} & {"whole-data", "bpr"})


def _estimator(args: Namespace, *, is_ranked: bool) -> Any:
    from ..estimators import FMClassifier, FMRanker, FMRegressor

    kind = FMClassifier if args.loss in ("logistic", "probit") else FMRegressor
    settings = {
        "n_factors": args.n_factors,
        "n_iter": args.n_iter,
        "random_state": args.seed,
        "solver": args.solver,
        "loss": args.loss,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    progress = not args.quiet and sys.stderr.isatty()
    estimator: Any = (FMRanker if is_ranked else kind)(**settings, progress=progress)
    estimator.solver_spec()
    return estimator


def evaluate(args: Namespace) -> None:
    """Measure a model on a test file."""
    from ..recommender import load
    from .tables import evaluation_data

    model = load(args.model)
    result = model.evaluate(
        evaluation_data(args, model),
        args.metrics or None,
        exclude_seen=not args.include_seen,
        relevant_from=args.relevant_from,
        allow_overlap=args.allow_overlap,
    )
    print(json.dumps(_without_nan(result.to_dict())) if args.json else result)


def demo(args: Namespace) -> None:
    """Show the whole road on MovieLens."""
    from .demo import run

    require_place_for(args.out)
    run(args.out, data_home=args.data_home, seed=args.seed)


def say(message: str) -> None:
    """Tell something that is no data."""
    print(message, file=sys.stderr)


def require_place_for(path: str, *inputs: str | None) -> None:
    """Say before the work, not after it, that its result can't or mustn't be written there."""
    place = Path(path)
    if not place.parent.is_dir():
        raise FileNotFoundError(f"{place.parent}: no such folder, create it first")
    if place.exists() and not place.is_file():  # a folder; a device, which would be replaced
        raise ValueError(f"{path}: this is no ordinary file, name another one")
    for source in inputs:
        if source and place.exists() and os.path.exists(source) and place.samefile(source):
            raise ValueError(f"{path}: this file is read too, name another one for the result")


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON doesn't have."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
