"""The sections of ``bench_topn.py`` about approximate search: recall, and when it pays.

Half of the users tune an index and the other half are asked. Recall is the share of the exact
list that is found, by :class:`ExactIndex` over the same vectors. faiss is held to one thread.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from _report import yes_no
from _topn_data import Work, gowalla, made, planted
from _topn_exact import Line, Scale
from _topn_measure import take_turns, trial
from _topn_sides import ExactIndex, Side, one_by_one, one_thread, peers_for, searching

import fmknn

TARGET = 0.95
_TUNED_ON = 2048
_LENGTHS = (10, 100)
_JUDGED = 1000  # users whose recall is measured
_SIZES = (20_000, 62_000, 200_000, 500_000)  # and the largest
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_EFFORTS = (16, 32, 64, 128, 256, 512)


class Measured(NamedTuple):
    """An index beside the exact one, for the same users.

    Attributes
    ----------
    recalls : dict of int to float
        By the length of the lists.
    rates : dict of str to float
        Users per CPU second, "exact", "approximate" and "faiss"; many queries a call.
    single : dict of str to float
        The same of one query a call.
    """

    recalls: dict[int, float]
    rates: dict[str, float]
    single: dict[str, float]


def tuned(run: Scale) -> Iterator[Line]:
    """FaissIndex("IVF", target_recall=0.95): planted items, more and more, and Gowalla's model."""
    lines = []
    for n_items in (*(size for size in _SIZES if size < run.large), run.large):
        lines.append(_tuned_line(made("planted", planted, n_items, 65, run.users), run))
        yield lines[-1]
    for key, name in (("ratio", "many queries a call"), ("single ratio", "one query a call")):
        pays = _pays_from(lines, key)
        said = "at none of these sizes" if pays is None else f"from {pays:,} items"
        yield _no_line(f"tuned IVF on planted items is faster, {name}: {said}")
    if run.effort.rounds > 1:
        yield _tuned_line(gowalla("Gowalla's model, seen left out"), run)


def _pays_from(lines: list[Line], key: str) -> int | None:
    """Return the size from which the ratio stays above 1."""
    pays = None
    for line in reversed(lines):
        if line.met == "no" or line.details[key] <= 1:
            break
        pays = line.details["planted"]
    return pays


def settings(run: Scale) -> Iterator[Line]:
    """Recall and speed of faiss's kinds over their settings: what the first plot shows."""
    n_items = min(200_000, run.large)
    tuning, work = _halves(made("planted", planted, n_items, 65, run.users))
    exact = ExactIndex(n_jobs=1).build(work.vectors)
    for kind, name, values in (
        ("IVF", "nprobe", _PROBES),
        ("IVFPQ", "nprobe", _PROBES),
        ("HNSW", "ef_search", _EFFORTS),
        ("SQ8", None, (None,)),
        ("IVF", "target_recall", (0.9, TARGET, 0.99)),
    ):
        built = None
        for value in values:
            chosen = {} if name is None else {name: value}
            with one_thread(run.peers):
                if built is None or name == "target_recall":
                    built = _build(kind, tuning, **chosen)
                measured = _measure(_with(built, chosen), exact, work, run)
            label = f"{kind}{'' if name is None else f' {name}={value}'}"
            yield _line(f"{label}: {n_items:,} x 65 planted, top 100", work, measured, None, "")


def _with(built: Any, chosen: dict[str, Any]) -> Any:
    """Return the index searched with another setting, without training it again."""
    if not chosen or "target_recall" in chosen:
        return built
    state, kept = built.to_state()
    return fmknn.FaissIndex.from_state(built.vectors, state, {**kept, **chosen})


def _tuned_line(work: Work, run: Scale) -> Line:
    tuning, asked = _halves(work)
    with one_thread(run.peers):
        start = time.perf_counter()
        index = _build("IVF", tuning, target_recall=TARGET)
        built = time.perf_counter() - start
        exact = ExactIndex(n_jobs=1).build(work.vectors)
        measured = _measure(index, exact, asked, run)
    found = ", ".join(f"{key} {value}" for key, value in index.tuning_.parameters.items())
    shape = f"{len(work.vectors):,} x {work.vectors.shape[1]}"
    name = f"tuned IVF: {work.name}, {shape}, top {work.n}"
    beside = f"{found}; built in {built:.0f} s"
    return _line(name, asked, measured, TARGET, beside)


def _line(name: str, work: Work, measured: Measured, target: float | None, beside: str) -> Line:
    recalls, rates, single = measured
    recall = min(recalls.values())
    ratio, single_ratio = (given["approximate"] / given["exact"] for given in (rates, single))
    notes = [
        "recall " + ", ".join(f"{recalls[n]:.3f} of top {n}" for n in recalls),
        f"{ratio:.2f} x ExactIndex ({rates['exact']:,.0f}/s)",
        f"one query a call {single_ratio:.2f} x ({single['exact']:,.0f}/s)",
        beside,
    ]
    shown = {"fmknn": rates["approximate"]}
    if "faiss" in rates:
        shown["faiss"] = rates["faiss"]
    details = {
        **({"planted": len(work.vectors)} if work.exclude is None else {}),
        "ratio": ratio,
        "single ratio": single_ratio,
        **measured._asdict(),
    }
    wanted = "" if target is None else f"recall {target:g}"
    met = "-" if target is None else yes_no(recall >= target)
    return Line(name, shown, ratio, wanted, met, "-", "; ".join(filter(None, notes)), details)


def _no_line(text: str) -> Line:
    return Line(text, {}, None, "", "-", "-", "", {})


def _halves(work: Work) -> tuple[Work, Work]:
    """Users to tune on, and other users to ask."""
    half = len(work.queries) // 2
    return work.part(slice(0, min(half, _TUNED_ON))), work.part(slice(half, None))


def _build(kind: str, tuning: Work, **chosen: Any) -> Any:
    with warnings.catch_warnings(record=True):  # that it falls short is in the table
        warnings.simplefilter("always")
        return fmknn.FaissIndex(kind, n_jobs=1, **chosen).build(
            tuning.vectors, queries=tuning.queries
        )


def _measure(index: Any, exact: Any, work: Work, run: Scale) -> Measured:
    sides = {
        "exact": searching(exact, "exact", ""),
        "approximate": searching(index, "approximate", ""),
    }
    some = work.part(slice(0, 512))
    single = {name: one_by_one(side) for name, side in sides.items()}
    for side in peers_for(work, {"faiss"})[:1]:
        sides[side.name] = side
    return Measured(
        {n: _recall(index, exact, work._replace(n=n)) for n in _LENGTHS},
        _rates(work, sides, run),
        _rates(some, single, run),
    )


def _rates(work: Work, sides: dict[str, Side], run: Scale) -> dict[str, float]:
    """Return users per CPU second of each side, measured in turn."""
    calls = {name: trial(work, side, run.effort)[0] for name, side in sides.items()}
    rates = take_turns(calls, run.effort)
    return {name: statistics.median(rates[name]) for name in rates}


def _recall(index: Any, exact: Any, whole: Work) -> float:
    work = whole.part(slice(0, _JUDGED))
    found, wanted = (
        one.search(work.queries, work.n, exclude=work.exclude).positions for one in (index, exact)
    )
    shares = [
        len(np.intersect1d(a, b[b >= 0])) / max(1, (b >= 0).sum())
        for a, b in zip(found, wanted, strict=True)
    ]
    return float(np.mean(shares))
