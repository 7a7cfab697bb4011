"""The arguments of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import fmknn

from . import commands
from .batch import recommend
from .sagemaker import sagemaker

__all__ = ["make_parser"]


_SAGEMAKER = "Train on Amazon SageMaker, and write the best items of all users."


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``args.run(args)`` does what was asked."""
    parser = argparse.ArgumentParser(
        prog="fmknn",
        description="Factorization machines: ratings in, exact top-N recommendations out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fmknn {fmknn.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, arguments, says in (
        ("fit", commands.fit, _fit_arguments, "Train a model and save it."),
        ("recommend", recommend, _recommend_arguments, "Write users' best items."),
        ("evaluate", commands.evaluate, _evaluate_arguments, "Measure a model on test rows."),
        ("sagemaker", sagemaker, _sagemaker_arguments, _SAGEMAKER),
        ("demo", commands.demo, _demo_arguments, "See all of it work on MovieLens 100K."),
    ):
        command = subparsers.add_parser(name, help=says, description=says, allow_abbrev=False)
        arguments(command)
        command.add_argument("--debug", action="store_true", help="show an error's traceback")
        command.set_defaults(run=run)
    return parser


def _fit_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("ratings", metavar="RATINGS", help="csv or Parquet file with a row per rating or purchase")
    add("--model", required=True, metavar="FILE", help="where the model goes")
    _column_arguments(command)
    add("--weight", metavar="COL", help="how much each row counts; of purchases, how many it is")
    add("--timestamp", metavar="COL", help="checked; training does not depend on it")
    _feature_arguments(command)
    add(
        "--loss",
        choices=["squared", "ordinal", "logistic", "probit", "whole-data", "bpr"],
        help="squared for ratings, ordinal for those that are grades; for two classes logistic, or "
        "probit with --solver mcmc; whole-data or bpr for purchases and clicks, without values "
        "(default: squared, and whole-data where there is no column of values)",
    )
    add(
        "--solver",
        choices=["adam", "als", "mcmc", "whole-data", "bpr"],
        help="mcmc is the most accurate, als the quickest, adam the one that learns the logistic "
        "loss; whole-data and bpr learn the losses of their names "
        "(default: mcmc where it learns the loss, else adam; whole-data without values)",
    )
    add("--n-factors", type=_at_least(0), metavar="K", help="length of the vectors")
    add("--n-iter", type=_at_least(1), metavar="N", help="passes over the rows")
    add("--seed", type=_at_least(0), default=0, help="of the training (default: %(default)s)")
    _index_argument(command)
    add("--quiet", action="store_true", help="no progress bar, no closing line")


def _recommend_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help="what fit wrote")
    whom = command.add_mutually_exclusive_group(required=True)
    whom.add_argument("--users", type=_listed, metavar="ID,ID...", help="these users")
    whom.add_argument("--users-file", metavar="FILE", help="users in a text file, an id per line")
    whom.add_argument("--all", action="store_true", help="all users of the training")
    add("-n", type=_at_least(1), default=10, help="items per user (default: %(default)s)")
    _place_arguments(command.add_argument_group("the place"))
    add("--include-seen", action="store_true", help="also what the user has in training")
    add("--candidates", metavar="FILE", help="only these items: a text file, an id per line")
    add("--exclude-items", metavar="FILE", help="not these items: a text file, an id per line")
    add(
        "--popularity",
        type=float,
        default=1.0,
        metavar="A",
        help="how much it counts that an item is liked by all, from 0 to 1: less of it means less "
        "of the same for everybody (default: %(default)s, the model)",
    )
    add(
        "--context",
        nargs="+",
        action="extend",
        default=[],
        type=_level,
        metavar="COL=LEVEL",
        help="the situation, for a model with context columns",
    )
    add(
        "--context-default",
        choices=["raise", "zero", "mean"],
        default="raise",
        help="a context column that is not given: an error, no influence, or the training's mean",
    )
    add(
        "--unknown",
        choices=["raise", "skip", "cold"],
        default="raise",
        help="ids the model doesn't know: an error, left out, or recommended for as a newcomer",
    )


def _place_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--to",
        default="-",
        metavar="PLACE",
        help="a file of JSON lines, one per user; a folder or NAME.parquet: Parquet files; NAME.db "
        "or sqlite:///NAME.db: SQLite; dialect://user:password@host/name: another database "
        "(default: -, JSON lines on stdout)",
    )
    add(
        "--form",
        choices=["plain", "sagemaker"],
        default="plain",
        help="of JSON lines: users with items and scores, or the verbose answers of SageMaker's "
        "k-NN (default: %(default)s)",
    )
    add(
        "--table",
        metavar="NAME",
        help="in a database, the view to read (default: recommendations); NAME_rows, NAME_chunks "
        "and NAME_runs are its tables",
    )
    add("--run-id", metavar="ID", help="name of the run (default: the time it begins)")
    add(
        "--resume",
        action="store_true",
        help="go on after the last complete chunk of an unfinished run; without it, that run is "
        "started anew",
    )
    add(
        "--append",
        action="store_true",
        help="in a database, keep the runs of another --run-id (default: they are replaced when "
        "this one is complete)",
    )
    add("--chunk", type=_at_least(1), metavar="N", help="users per chunk (default: 8192)")


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help="what fit wrote")
    add("test", metavar="TEST", help="csv or Parquet file with a row per rating or purchase")
    _column_arguments(command)
    add(
        "--metrics",
        type=_listed,
        metavar="NAME,NAME...",
        help="of rmse, mae, mrr, ndcg@k, recall@k, precision@k, map@k, hit_rate@k, coverage@k "
        # a test holds it to the library's
        "(default: rmse,ndcg@10,recall@20, without rmse where no values are predicted)",
    )
    add(
        "--relevant-from",
        type=float,
        metavar="VALUE",
        help="relevant are rows of this value or more",
    )
    add("--allow-overlap", action="store_true", help="accept rows that were trained on")
    add(
        "--include-seen",
        action="store_true",
        help="rank also what the user has in training: for what is bought again",
    )
    add("--json", action="store_true", help="all numbers, for programs")


def _column_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--user", default="user", metavar="COL", help="column of user ids (default: %(default)s)")
    add("--item", default="item", metavar="COL", help="column of item ids (default: %(default)s)")
    add("--value", default="rating", metavar="COL", help="what is learned (default: %(default)s)")
    add(
        "--context",
        nargs="+",
        action="extend",
        default=[],
        metavar="COL",
        help="columns that belong to the event itself: weekday, device",
    )


def _feature_arguments(command: argparse.ArgumentParser) -> None:
    for what in ("user", "item"):
        command.add_argument(
            f"--{what}-features",
            metavar="FILE",
            help=f"csv or Parquet file with a row per {what}: the id, and columns of text "
            "(categories), numbers, or lists of text (in Parquet)",
        )


def _index_argument(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--index",
        choices=["exact", "flat", "ivf"],
        default="exact",
        help="exact and flat (faiss) find the best items, ivf may miss some (default: %(default)s)",
    )


def _sagemaker_arguments(command: argparse.ArgumentParser) -> None:
    command.epilog = "Every FILE, and RATINGS, may be an address in S3: s3://bucket/key."
    add = command.add_argument
    add("ratings", metavar="RATINGS", help="csv or Parquet file with a row per rating")
    add("--to", required=True, metavar="FILE", help="JSON lines, one per user")
    add("--model", metavar="FILE", help="where the model goes, for recommend and evaluate")
    _column_arguments(command)
    _feature_arguments(command)
    add("-n", type=_at_least(1), default=10, help="items per user (default: %(default)s)")
    add("--include-seen", action="store_true", help="also what the user has in training")
    add(
        "--context-default",
        choices=["zero", "mean"],
        default="mean",
        help="what context columns stand for in the lists: no influence, or the training's mean "
        "(default: %(default)s)",
    )
    _learning_arguments(command.add_argument_group("learning"))
    _job_arguments(command.add_argument_group("jobs"))
    _run_arguments(command.add_argument_group("the run"))


def _learning_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--loss",
        choices=["squared", "logistic"],
        default="squared",
        help="squared for ratings, logistic for two classes (default: %(default)s)",
    )
    group.add_argument(
        "--n-factors",
        type=_at_least(1),
        default=64,
        metavar="K",
        help="length of the vectors (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="hyperparameters of SageMaker's factorization machines: epochs=30 "
        "mini_batch_size=200 factors_lr=0.001 (default: SageMaker's own, 1 epoch among them)",
    )


def _job_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--role", required=True, metavar="ARN", help="role that the jobs take on")
    add("--bucket", required=True, help="S3 bucket for the jobs' data, in the same region")
    add("--prefix", default="fmknn", help="of all keys in it (default: %(default)s)")
    add("--region", help="default: that of the environment")
    add("--instance-type", default="ml.m5.large", metavar="TYPE", help="default: %(default)s")
    add("--instance-count", type=_at_least(1), default=1, metavar="N", help="default: %(default)s")
    add("--volume-size-gb", type=_at_least(1), default=30, metavar="N", help="default: %(default)s")
    add(
        "--search",
        choices=["local", "sagemaker"],
        default="local",
        help="where the best items are found: here, exactly, or by a k-NN job and a batch "
        "transform (default: %(default)s)",
    )
    _index_argument(group)
    add("--max-payload-mb", type=_at_least(1), default=1, metavar="N", help="default: %(default)s")
    add(
        "--max-runtime",
        type=_at_least(1),
        default=24 * 3600,
        metavar="SECONDS",
        help="after which SageMaker stops a training (default: %(default)s)",
    )
    for name, what in (
        ("--image-uri", "image of factorization-machines or knn, for a region that is not known"),
        ("--tag", "put on all that is created"),
    ):
        add(
            name,
            nargs="+",
            action="extend",
            default=[],
            type=_pair,
            metavar="NAME=VALUE",
            help=what,
        )
    add("--kms-key", metavar="KEY", help="encrypts what is stored")
    add("--subnets", type=_listed, metavar="ID,ID...", help="of a VPC that the jobs run in")
    add("--security-groups", type=_listed, metavar="ID,ID...", help="likewise")


def _run_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--run-id",
        metavar="ID",
        help="the same id, data and settings pick up the jobs that run or are done "
        "(default: a new one)",
    )
    add(
        "--next",
        metavar="FILE",
        help="don't create jobs: go as far as those that are done allow, and write which is "
        'wanted, as JSON: {"action": "training_job" or "transform_job", "request": …} or '
        '{"action": "done"}',
    )
    add("--deadline", type=float, metavar="SECONDS", help="to wait for a job; then it is stopped")
    add(
        "--poll-seconds",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="between two looks at a job (default: %(default)s)",
    )
    add("--cleanup", action="store_true", help="when done, remove the run's objects from S3")
    add("--quiet", action="store_true", help="no progress, no closing line")


def _demo_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data-home", metavar="DIR", help="where MovieLens is; without it, it is downloaded")
    add(
        "--out",
        default="recommendations.jsonl",
        metavar="FILE",
        help="where the recommendations go (default: %(default)s)",
    )
    add("--seed", type=_at_least(0), default=0, help="of the training (default: %(default)s)")


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise argparse.ArgumentTypeError(f"an empty entry in {text!r}")
    return parts


def _level(text: str) -> tuple[str, str]:
    name, equals, level = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"write COLUMN=LEVEL, got {text!r}")
    return name, level


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, got {text!r}")
    return name, value
