"""The sections of ``bench_topn.py`` about exact answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from _report import yes_no
from _topn_data import Work, flat, fm_like, gowalla, made
from _topn_measure import Effort, Raced, gemm_ceiling, race, sgemm_rate, take_turns, trial
from _topn_sides import PEERS, one_by_one, one_thread, ours, peers_for, single_peers_for

from fmknn._threads import thread_count

QUICK = Effort(seconds=0.03, rounds=1, checked=8)
FULL = Effort(seconds=0.6, rounds=3, checked=32)
_MEAN_SEEN = 135  # of 62,000 items
_MEAN_SEEN_100K = 106  # of the 1,682 films of MovieLens 100K


class Scale(NamedTuple):
    """How large and how long: all of it, or a quick run."""

    effort: Effort
    small: int
    middle: int
    large: int
    users: int
    batch_users: int
    peers: set[str]


def scale(quick: bool, peers: set[str]) -> Scale:
    """Return the sizes of a run."""
    if quick:
        return Scale(QUICK, 500, 2000, 8000, 512, 20_000, peers)
    return Scale(FULL, 1682, 62_000, 1_000_000, 16_384, 1_000_000, peers)


class Line(NamedTuple):
    """A line of the table; rates are users per CPU second.

    Attributes
    ----------
    work : str
    rates : dict of str to float
        Of "fmknn" and its peers.
    ratio : float, optional
        What the target is about.
    target : str
        With its sign; "" where there is none.
    met, exact : str
        Whether the target is met; whether all sides gave the right answers, or who did not.
    beside : str
    details : dict
        Single measurements and settings, for the JSON file.
    """

    work: str
    rates: dict[str, float]
    ratio: float | None
    target: str
    met: str
    exact: str
    beside: str
    details: dict[str, Any]

    def summary(self) -> str:
        """Return work and figures in one line, for those who wait for the table."""
        cells = self.cells()
        figures = [f"{name} {cells[name]}" for name in self.rates]
        if self.ratio is not None:
            figures.append(f"ratio {self.ratio:.3g}")
        return f"{self.work}: {', '.join(figures)}"

    def cells(self) -> dict[str, Any]:
        """Return what is printed."""
        rates = {name: self.rates.get(name) for name in ("fmknn", *PEERS)}
        rounded = {name: None if rate is None else f"{rate:,.3g}" for name, rate in rates.items()}
        if any(rate is not None and rate >= 1000 for rate in rates.values()):
            rounded = {
                name: None if rate is None else f"{rate:,.0f}" for name, rate in rates.items()
            }
        return {
            "work": self.work,
            **rounded,
            "ratio": self.ratio,
            "target": self.target or "-",
            "met": self.met,
            "exact": self.exact,
            "beside": self.beside,
        }


def compared(work: str, raced: dict[str, Raced], at_least: float | None, beside: str = "") -> Line:
    """Return the line of fmknn against the best of its peers that answered rightly."""
    rates = {name: side.rate for name, side in raced.items()}
    peers = {name: rate for name, rate in rates.items() if name != "fmknn" and raced[name].exact}
    best = max(peers, key=peers.__getitem__, default=None)
    ratio = None if best is None else rates["fmknn"] / peers[best]
    wrong = [name for name, side in raced.items() if not side.exact]
    met = "-" if ratio is None or at_least is None else yes_no(ratio >= at_least)
    notes = [beside, "" if best is None else f"best peer: {best} {raced[best].setting}".rstrip()]
    return Line(
        work,
        rates,
        ratio,
        "" if at_least is None else f">= {at_least:g}",
        met,
        f"no: {', '.join(wrong)}" if wrong else "yes",
        "; ".join(filter(None, notes)),
        {name: side._asdict() for name, side in raced.items()},
    )


def _race(work: Work, run: Scale) -> dict[str, Raced]:
    return race(work, [ours(work), *peers_for(work, run.peers)], run.effort)


def small(run: Scale) -> Iterator[Line]:
    """A catalogue as small as that of MovieLens 100K."""
    name = f"{run.small:,} x 33, seen left out, top 100"
    work = made(name, flat, run.small, 33, min(8192, run.users), seen=_MEAN_SEEN_100K)
    with one_thread(run.peers):
        yield compared(name, _race(work, run), 1.0)


def middle(run: Scale) -> Iterator[Line]:
    """62,000 items with and without what was seen, and what leaving that out costs."""
    for kind, like in ((flat, ""), (fm_like, ", FM-like")):
        for d in (33, 65) if kind is flat else (65,):
            name = f"{run.middle:,} x {d}{like}"
            work = made(
                name, kind, run.middle, d, run.users, seen=min(_MEAN_SEEN, run.middle // 20)
            )
            with one_thread(run.peers):
                beside = f"GEMM alone {gemm_ceiling(work, run.effort):,.0f}/s"
                for asked, label, target in (
                    (work, "seen left out", 2.5),
                    (work._replace(exclude=None), "no filter", 1.2),
                ):
                    at_least = target if kind is flat else None
                    full_name = f"{name}, {label}, top 100"
                    yield compared(full_name, _race(asked, run), at_least, beside)
                yield _cost(work, run)


def _cost(work: Work, run: Scale) -> Line:
    """Our time with what was seen left out over our time without a filter, in turn."""
    side = ours(work)
    asked = {"free": work._replace(exclude=None), "seen": work}
    calls = {name: trial(one, side, run.effort)[0] for name, one in asked.items()}
    rates = take_turns(calls, run.effort._replace(rounds=2 * run.effort.rounds + 1))
    ratios = [free / seen for free, seen in zip(rates["free"], rates["seen"], strict=True)]
    ratio = statistics.median(ratios)
    name = f"{work.name}: time with seen left out over time without a filter"
    return Line(name, {}, ratio, "<= 1.15", yes_no(ratio <= 1.15), "-", "", {"ratios": ratios})


def large(run: Scale) -> Iterator[Line]:
    """A million items of equal norms, beside what scoring alone takes."""
    for d in (33, 65):
        name = f"{run.large:,} x {d}, flat norms, no filter, top 100"
        work = made(name, flat, run.large, d, min(8192, run.users))
        with one_thread(run.peers):
            ceiling = gemm_ceiling(work, run.effort)
            raced = _race(work, run)
        yield compared(name, raced, 1.0, f"GEMM alone {ceiling:,.0f}/s")


def dispersed(run: Scale) -> Iterator[Line]:
    """A million items as factorization machines have them."""
    work = made("", fm_like, run.large, 65, min(8192, run.users))
    for n in (10, 100):
        name = f"{run.large:,} x 65, FM-like, no filter, top {n}"
        with one_thread(run.peers):
            yield compared(name, _race(work._replace(n=n), run), 5.0)


def trained(run: Scale) -> Iterator[Line]:
    """A model trained on Gowalla, users' own places left out."""
    work = gowalla("gowalla")
    shape = f"{len(work.vectors):,} x {work.vectors.shape[1]}"
    with one_thread(run.peers):
        name = f"Gowalla's model, {shape}, seen left out, top 100"
        yield compared(name, _race(work, run), 4.0)


def single(run: Scale) -> Iterator[Line]:
    """One query at a time."""
    for n_items in (run.middle, run.large):
        for kind, label in ((flat, "flat norms"), (fm_like, "FM-like")):
            work = made("", kind, n_items, 65, 512)
            with one_thread(run.peers):
                sides = [ours(work), *single_peers_for(work, run.peers)]
                for n in (10, 100):
                    name = f"one query at a time, {n_items:,} x 65, {label}, top {n}"
                    asked = work._replace(n=n)
                    raced = race(asked, [one_by_one(side) for side in sides], run.effort)
                    yield compared(name, raced, 1.0)


def threads(run: Scale) -> Iterator[Line]:
    """Wall time of big calls, one thread over two, in turn."""
    name = f"{run.middle:,} x 65, no filter: wall time of one thread / two"
    if thread_count(None) < 2:
        yield Line(name, {}, None, ">= 1.7", "-", "-", "skipped: this machine grants one core", {})
        return
    work = made(name, flat, run.middle, 65, run.users)
    calls = [ours(work, n_jobs).prepare(work) for n_jobs in (1, 2)]
    for call in calls:
        call()
    ratios = []
    for _ in range(2 * run.effort.rounds + 1):
        seconds = []
        for call in calls:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    ratio = statistics.median(ratios)
    yield Line(name, {}, ratio, ">= 1.7", yes_no(ratio >= 1.7), "-", "", {"ratios": ratios})


def share(run: Scale) -> Iterator[Line]:
    """How much of the machine's rate for matrix products the exact search reaches."""
    name = f"{run.middle:,} x 65, flat norms: share of the rate of a large SGEMM"
    work = made(name, flat, run.middle, 65, run.users)
    with one_thread(run.peers):
        calls = {"fmknn": trial(work, ours(work), run.effort)[0]}
        shares, rates = [], []
        effort = run.effort._replace(rounds=1)
        for _ in range(2 * run.effort.rounds + 1):
            rate = take_turns(calls, effort)["fmknn"][0]
            rates.append(sgemm_rate(effort))
            shares.append(2.0 * work.vectors.size * rate / rates[-1])
    value = statistics.median(shares)
    beside = f"SGEMM {statistics.median(rates) / 1e9:.0f} GFLOP/s"
    details = {"shares": shares, "SGEMM": rates}
    yield Line(name, {}, value, ">= 0.7", yes_no(value >= 0.7), "-", beside, details)
