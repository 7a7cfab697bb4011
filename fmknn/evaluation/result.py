"""What an evaluation found, as a mapping and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .bootstrap import PerUser

__all__ = ["Evaluation", "aligned"]

_Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluation(Mapping[str, float]):
    """What :func:`evaluate` found: ``result["rmse"]``, ``print(result)``, ``result.to_dict()``.

    Attributes
    ----------
    metrics : dict
        Over users with training rows; empty if the test has none. NaN where a ranking metric had
        no list to average over.
    cold : dict
        The same over users without training rows; empty if there are none.
    n_users, n_rows, n_cold_users, n_cold_rows : int
        What the two are about.
    n_unknown_rows : int
        Rows left out because the model does not know their user or their item.
    n_unknown_context_rows : int
        Rows left out because the model does not know a level of their context, though it knows
        the user and the item.
    n_users_without_relevant : int
        Users (with a context: queries), warm and cold, left out of the ranking metrics.
    n_overlap_rows : int
        Rows that were training rows too; 0 unless ``allow_overlap=True``.
    exclude_seen, relevant_from, popularity
        As given to `evaluate`.
    sampled : int or None
        Among how many other items each relevant row was ranked; None: the whole catalogue.
    intervals : dict of str to (low, high)
        Bootstrap intervals of `metrics`; empty if none were asked for. There is none of coverage.
    confidence : float or None
        The share of the resamples that an interval holds.
    per_user : PerUser or None
        `metrics` user by user, but for coverage. It is not part of :meth:`to_dict`.

    Examples
    --------
    >>> result = Evaluation(
    ...     metrics={"rmse": 0.9, "ndcg@10": 0.25},
    ...     cold={},
    ...     n_users=7,
    ...     n_rows=40,
    ...     n_cold_users=0,
    ...     n_cold_rows=0,
    ...     n_unknown_rows=2,
    ...     n_users_without_relevant=0,
    ...     n_overlap_rows=0,
    ...     exclude_seen=True,
    ...     relevant_from=None,
    ... )
    >>> result["rmse"], len(result)
    (0.9, 2)
    >>> print(result)
               warm
    rmse     0.9000
    ndcg@10  0.2500
    users         7
    rows         40
    items seen in training: left out of the lists
    rows left out because the model does not know their user or item: 2
    """

    metrics: dict[str, float]
    cold: dict[str, float]
    n_users: int
    n_rows: int
    n_cold_users: int
    n_cold_rows: int
    n_unknown_rows: int
    n_users_without_relevant: int
    n_overlap_rows: int
    exclude_seen: bool
    relevant_from: float | None
    n_unknown_context_rows: int = 0
    sampled: int | None = None
    popularity: float = 1.0
    intervals: dict[str, _Interval] = field(default_factory=dict)
    confidence: float | None = None
    per_user: PerUser | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        intervals = {name: (low, high) for name, (low, high) in self.intervals.items()}
        vars(self)["intervals"] = intervals  # JSON has made lists of them

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it but `per_user` as plain Python values, ready for JSON."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "per_user"}
        return {
            name: dict(value) if isinstance(value, dict) else value for name, value in told.items()
        }

    def __str__(self) -> str:
        names = list(self.metrics or self.cold)
        columns = [["", *names, "users", "rows"]]
        for title, found, n_users, n_rows in (
            ("warm", self.metrics, self.n_users, self.n_rows),
            ("cold", self.cold, self.n_cold_users, self.n_cold_rows),
        ):
            if found:
                numbers = [f"{found[name]:.4f}" for name in names]
                columns.append([title, *numbers, str(n_users), str(n_rows)])
            if found and found is self.metrics and self.intervals:
                ranges = [self._range(name) for name in names]
                columns.append([f"{100 * (self.confidence or 0):g}% interval", *ranges, "", ""])
        return "\n".join([*aligned(list(zip(*columns, strict=True))), *self._remarks()])

    def _range(self, name: str) -> str:
        if name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f"{low:.4f} to {high:.4f}"

    def _remarks(self) -> list[str]:
        lines = []
        if self.sampled is None:
            seen = "left out of" if self.exclude_seen else "kept in"
            lines.append(f"items seen in training: {seen} the lists")
            if self.popularity != 1:
                lines.append(f"biases of items in the lists: counted by {self.popularity:g}")
        else:
            lines.append(
                f"ranked among {self.sampled} other items, not the catalogue: not to be compared "
                "with full ranking"
            )
        if self.relevant_from is not None:
            lines.append(f"relevant: test rows with a value of {self.relevant_from:g} or more")
        for count, what in (
            (
                self.n_unknown_rows,
                "rows left out because the model does not know their user or item",
            ),
            (
                self.n_unknown_context_rows,
                "rows left out because the model does not know a level of their context",
            ),
            (
                self.n_users_without_relevant,
                "users left out of the ranking because nothing is relevant to them",
            ),
            (self.n_overlap_rows, "rows that were training rows too"),
        ):
            lines += [f"{what}: {count}"] if count else []
        return lines


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
