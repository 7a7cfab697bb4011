"""``fmknn recommend``: the best items of some users or of all, to stdout or to a place."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .commands import require_place_for, say

if TYPE_CHECKING:
    from ..recommender import Recommender
    from ..serving.sinks import Sink

__all__ = ["recommend"]


def recommend(args: Namespace) -> None:
    """Write the best items of users."""
    from ..recommender import load

    sink = _sink(args)
    if sink is not None:
        sink.check()
    model = load(args.model)
    options = _options(args, model)
    if sink is None:
        _to_stdout(args, model, options)
        return
    run = {"resume": args.resume, "append": args.append, "run_id": args.run_id}
    with _told(not options["progress"]):
        n_users = model.recommend_all(args.n, to=sink, chunk=args.chunk, **run, **options)
    say(f"{_name_of(args.to)}: recommended to {n_users} users")


def _sink(args: Namespace) -> Sink | None:
    """The place that the arguments name; None is stdout."""
    from ..serving.sinks import SQL, JsonLines, SQLite, sink_for

    inputs = (args.model, args.users_file, args.candidates, args.exclude_items)
    sink = None if args.to == "-" else sink_for(args.to)
    is_lines = sink is None or isinstance(sink, JsonLines)
    for option, given in (
        ("--resume", args.resume),
        ("--append", args.append),
        ("--run-id", args.run_id is not None),
    ):
        if given and is_lines:
            raise ValueError(f"{option} is for databases and Parquet folders: name one by --to")
    if args.form != "plain" and not is_lines:
        raise ValueError(f"--form {args.form} is for JSON lines: name a file .jsonl by --to")
    if args.table is not None and not isinstance(sink, (SQL, SQLite)):
        raise ValueError("--table is for databases: name one by --to")
    if isinstance(sink, JsonLines):
        require_place_for(args.to, *inputs)
        return JsonLines(sink.path, args.form)
    if isinstance(sink, SQLite):
        require_place_for(os.fspath(sink.path), *inputs)
        return sink if args.table is None else SQLite(sink.path, args.table)
    if isinstance(sink, SQL) and args.table is not None:
        return SQL(sink.url, args.table)
    return sink


def _name_of(place: str) -> str:
    """The place as it may be shown: an address may hold a password."""
    dialect, separator, _ = place.partition("://")
    return f"{dialect} database" if separator and dialect != "sqlite" else place


def _options(args: Namespace, model: Recommender) -> dict[str, Any]:
    from .tables import ids_as_in, lines_of

    context: dict[str, Any] = {}
    for name, level in args.context:
        if name in context:
            raise ValueError(f"context {name!r} is given twice: leave one out")
        levels = model.contexts.get(name)
        context[name] = level if levels is None else ids_as_in(levels, [level])
    users = None if args.all else ids_as_in(model.users, args.users or lines_of(args.users_file))
    options = {
        "users": users,
        "exclude_seen": not args.include_seen,
        "context": context,
        "context_default": args.context_default,
        "unknown": args.unknown,
        "popularity": args.popularity,
        "progress": sys.stderr.isatty(),
    }
    for name in ("candidates", "exclude_items"):
        path = getattr(args, name)
        if path is not None:
            options[name] = ids_as_in(model.items, lines_of(path))
    return options


def _to_stdout(args: Namespace, model: Recommender, options: dict[str, Any]) -> None:
    """By way of a file: an error in the last user leaves stdout as empty as one in the first."""
    from ..serving.sinks import JsonLines

    with tempfile.TemporaryDirectory(prefix="fmknn-") as folder:
        path = os.path.join(folder, "recommendations.jsonl")
        lines = JsonLines(path, args.form)
        model.recommend_all(args.n, to=lines, chunk=args.chunk, **options)
        with open(path, "rb") as file:  # UTF-8, whatever the terminal's encoding
            shutil.copyfileobj(file, sys.stdout.buffer)


@contextmanager
def _told(wanted: bool) -> Iterator[None]:
    """Show on stderr what the library logs, a line per chunk; a progress bar says as much."""
    log = logging.getLogger("fmknn")
    level, handler = log.level, logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s fmknn: %(message)s"))
    if wanted:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
