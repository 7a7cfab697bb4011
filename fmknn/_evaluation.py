"""What an evaluation found, as a mapping and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Evaluation"]


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
    exclude_seen, relevant_from
        As given to `evaluate`.

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

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain Python values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        names = list(self.metrics or self.cold)
        table = [["", *names, "users", "rows"]]
        for title, found, n_users, n_rows in (
            ("warm", self.metrics, self.n_users, self.n_rows),
            ("cold", self.cold, self.n_cold_users, self.n_cold_rows),
        ):
            if found:
                numbers = [f"{found[name]:.4f}" for name in names]
                table.append([title, *numbers, str(n_users), str(n_rows)])
        widths = [max(map(len, column)) for column in table]
        lines = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in zip(*table, strict=True)
        ]
        seen = "left out of" if self.exclude_seen else "kept in"
        lines.append(f"items seen in training: {seen} the lists")
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
        return "\n".join(lines)
