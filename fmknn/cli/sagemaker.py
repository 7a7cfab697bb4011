"""``fmknn sagemaker``: train on Amazon SageMaker and write everybody's recommendations."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import require_place_for, say

if TYPE_CHECKING:
    from ..backends.sagemaker.backend import SageMakerBackend
    from ..data.interactions import Interactions

__all__ = ["sagemaker"]

_INPUTS = ("ratings", "user_features", "item_features")
_PIECE = 1 << 20  # bytes of a file that are handed on at a time
_LONGEST_PLAN = 2**20  # bytes


def sagemaker(args: Namespace) -> None:
    """Do the whole work, or with --next as far as the jobs that are done allow it."""
    from ..recommender import Recommender

    estimator, backend = _estimator(args), _backend(args)
    _require_places(args, backend)
    interactions = _interactions(args, backend)
    progress = not args.quiet and sys.stderr.isatty()
    if not args.quiet:
        say(f"run {backend.run_id}: {len(interactions)} rows")

    def work() -> None:
        model = Recommender(estimator, index=args.index, backend=backend).fit(interactions)
        with _written(args.to, backend) as path:
            n_users = model.recommend_all(
                args.n,
                to=path,
                exclude_seen=not args.include_seen,
                context_default=args.context_default,
                progress=progress,
            )
        if args.model is not None:
            with _written(args.model, backend) as path:
                model.save(path)
        if not args.quiet:
            say(f"{args.to}: recommended to {n_users} users")

    if args.next is None:
        work()
        wanted = None
    elif _is_done(args.next, backend):  # an earlier call got so far, and its end was not heard of
        return
    else:
        wanted = backend.next_job(work)
        plan: dict[str, Any] = {"action": "done", "run": backend.run_id}
        if wanted is not None:
            plan = {"action": wanted.kind.operation, "request": wanted.request}
            if not args.quiet:
                say(f"{args.next}: {wanted}")
        with _written(args.next, backend) as path, open(path, "w", encoding="utf-8") as file:
            json.dump(plan, file)
    if wanted is None and args.cleanup:
        backend.cleanup(keep=[] if args.next is None else [args.next])


def _is_done(place: str, backend: SageMakerBackend) -> bool:
    """Whether the plan at a place says that this run is done."""
    from ..backends.sagemaker.s3 import read_object
    from ..errors import TransferError

    try:
        if _in_s3(place):
            text = read_object(backend.run.clients, place, _LONGEST_PLAN)
        else:
            text = Path(place).read_bytes()
        plan = json.loads(text)
    except (OSError, TransferError, ValueError):
        return False
    return isinstance(plan, dict) and plan.get("run") == backend.run_id


def _estimator(args: Namespace) -> Any:
    from ..estimators import FMClassifier, FMRegressor
    from ..solvers.adam import Adam

    kind = {"squared": FMRegressor, "logistic": FMClassifier}[args.loss]
    return kind(args.n_factors, solver=Adam.sagemaker(**_settings(args)))


def _settings(args: Namespace) -> dict[str, Any]:
    """Hyperparameters by name, of the types that Adam has them in."""
    from ..solvers.adam import Adam

    kinds = {"int": int, "float": float, "str": str}
    readers = {
        field.name: kinds[kind]
        for field in dataclasses.fields(Adam)
        if (kind := str(field.type).split(" ")[0]) in kinds
    }
    settings: dict[str, Any] = {}
    for name, text in args.set:
        if name not in readers:
            raise ValueError(
                f"--set {name}={text}: no such hyperparameter, there are {', '.join(readers)}"
            )
        if name in settings:
            raise ValueError(f"--set {name} is given twice: leave one out")
        try:
            settings[name] = readers[name](text)
        except ValueError:
            what = {int: "an integer", float: "a number"}[readers[name]]
            raise ValueError(f"--set {name}={text}: this must be {what}") from None
    return settings


def _backend(args: Namespace) -> SageMakerBackend:
    from ..backends.sagemaker.backend import SageMakerBackend

    if args.next is not None and args.run_id is None:
        raise ValueError("--next needs --run-id, by which the next call finds what this one did")
    if (args.subnets is None) != (args.security_groups is None):
        raise ValueError("--subnets and --security-groups go together: give both or none")
    vpc_config = None
    if args.subnets is not None:
        vpc_config = {"SecurityGroupIds": args.security_groups, "Subnets": args.subnets}
    return SageMakerBackend(
        args.role,
        args.bucket,
        prefix=args.prefix,
        region=args.region,
        instance_type=args.instance_type,
        instance_count=args.instance_count,
        search=args.search,
        run_id=args.run_id,
        image_uri=_once("--image-uri", args.image_uri),
        max_runtime=args.max_runtime,
        deadline=args.deadline,
        poll_seconds=args.poll_seconds,
        volume_size_gb=args.volume_size_gb,
        max_payload_mb=args.max_payload_mb,
        tags=_once("--tag", args.tag),
        kms_key=args.kms_key,
        vpc_config=vpc_config,
        progress=not args.quiet and sys.stderr.isatty(),
    )


def _once(option: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, value in pairs:
        if name in named:
            raise ValueError(f"{option} {name} is given twice: leave one out")
        named[name] = value
    return named


def _require_places(args: Namespace, backend: SageMakerBackend) -> None:
    """Say before the jobs, not after them, what can't be read, or written where it should be."""
    from ..backends.sagemaker.s3 import split_uri

    inputs = [path for name in _INPUTS if (path := getattr(args, name)) is not None]
    outputs = [path for path in (args.to, args.model, args.next) if path is not None]
    own = backend.run.store.uri("")
    for place in [*inputs, *outputs]:
        if place.startswith(own) and place != args.next:
            raise ValueError(f"{place} is among the run's own objects, which --cleanup removes")
        if _in_s3(place):
            split_uri(place)
    for number, place in enumerate(outputs):
        if place in outputs[:number]:
            raise ValueError(f"{place} is to be written twice: name another one")
        if _in_s3(place) and place in inputs:
            raise ValueError(f"{place} is read too: name another one for the result")
        if not _in_s3(place):
            require_place_for(place, *inputs)
    if Path(args.to).suffix.lower() in (".csv", ".parquet"):
        raise ValueError(f"{args.to}: only JSON lines can be written, name it .jsonl")


def _interactions(args: Namespace, backend: SageMakerBackend) -> Interactions:
    """Read the tables; those in S3 by way of a folder that is gone afterwards."""
    from ..backends.sagemaker.s3 import read_object
    from .tables import training_data

    with tempfile.TemporaryDirectory(prefix="fmknn-") as folder:
        paths: dict[str, str] = {}
        for name in _INPUTS:
            place = getattr(args, name)
            if place is not None and _in_s3(place):
                paths[name] = os.path.join(folder, name + Path(place).suffix)
                data = read_object(backend.run.clients, place, backend.run.max_bytes)
                Path(paths[name]).write_bytes(data)
        columns = {"weight": None, "timestamp": None}  # SageMaker knows neither
        try:
            return training_data(Namespace(**{**vars(args), **columns, **paths}))
        except ValueError as error:  # as the user knows the file
            raise ValueError(_renamed(str(error), args, paths)) from error


def _renamed(text: str, args: Namespace, paths: Mapping[str, str]) -> str:
    for name, path in paths.items():
        text = text.replace(path, getattr(args, name))
    return text


@contextmanager
def _written(place: str, backend: SageMakerBackend) -> Iterator[str]:
    """Give a file to write; it gets to its place once it is whole."""
    from .._files import replacing
    from ..backends.sagemaker.s3 import write_object

    with tempfile.TemporaryDirectory(prefix="fmknn-") as folder:
        path = os.path.join(folder, "result")
        yield path
        with open(path, "rb") as file:
            pieces = iter(lambda: file.read(_PIECE), b"")
            if _in_s3(place):
                options = dict(backend.run.store.options)
                write_object(backend.run.clients, place, pieces, options)
            else:
                with replacing(place) as target:
                    target.writelines(pieces)


def _in_s3(place: str) -> bool:
    return place.startswith("s3://")
