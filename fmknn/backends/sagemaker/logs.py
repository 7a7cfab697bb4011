"""What containers write to CloudWatch: read where that is allowed, missed without a fuss."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import SageMakerError
from .clients import Clients, translated

__all__ = ["JobLog", "training_history"]

logger = logging.getLogger("fmknn")

_PAGE = 10_000  # events, the most that one call gives
_MAX_PAGES = 100
# #quality_metric: host=algo-1, epoch=0, train binary_classification_cross_entropy <loss>=0.6858
_QUALITY = re.compile(
    r"#quality_metric: host=algo-1, epoch=(?P<epoch>[0-9]{1,9}), "
    r"train (?P<name>[a-z][\w.]*) <\w+>=(?P<value>\S+)"
)


class JobLog:
    """The log of a job's first instance; where it can't be read it is empty.

    Parameters
    ----------
    clients : Clients
    group : str
        CloudWatch's name for the logs of jobs of this kind.
    job_name : str
    """

    def __init__(self, clients: Clients, group: str, job_name: str) -> None:
        self._clients, self._group, self._job_name = clients, group, job_name
        self._stream: dict[str, str] | None = None
        self._token: dict[str, str] = {}
        self._readable = True

    def new_lines(self) -> list[str]:
        """Return the lines since the last call. After a failure nothing is asked for any more."""
        return self._attempt(self._read_on)

    def last_lines(self, n: int) -> list[str]:
        """Return the last n lines."""
        return self._attempt(lambda: self._events(limit=n, startFromHead=False)["events"])

    def _attempt(self, read: Callable[[], list[dict[str, Any]]]) -> list[str]:
        if not self._readable:
            return []
        try:
            with translated(f"reading the log of {self._job_name}"):
                return [str(event["message"]) for event in read()]
        except SageMakerError as error:
            logger.info("%s", error)
            self._readable = False
            return []

    def _events(self, **options: Any) -> dict[str, Any]:
        client = self._clients["logs"]
        if self._stream is None:
            streams = client.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=f"{self._job_name}/"
            )["logStreams"]
            if not streams:
                return {"events": []}
            name = streams[0]["logStreamName"]
            self._stream = {"logGroupName": self._group, "logStreamName": name}
        return dict(client.get_log_events(**self._stream, **options))

    def _read_on(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for _ in range(_MAX_PAGES):
            page = self._events(**self._token, limit=_PAGE, startFromHead=True)
            events += page["events"]
            token = {"nextToken": page["nextForwardToken"]} if "nextForwardToken" in page else {}
            if token == self._token:
                break
            self._token = token
        return events


def training_history(lines: Iterable[str]) -> list[dict[str, float]]:
    """Return the metrics of each epoch that a factorization machines log tells.

    They are running means over the epoch, while the parameters move.

    Examples
    --------
    >>> training_history(["#quality_metric: host=algo-1, epoch=0, train rmse <loss>=0.9"])
    [{'iteration': 1, 'rmse': 0.9}]
    """
    epochs: dict[int, dict[str, float]] = {}
    for line in lines:
        found = _QUALITY.search(line)
        if found is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        epoch = int(found["epoch"])
        entry = epochs.setdefault(epoch, {"iteration": epoch + 1})
        if found["name"] != "iteration":
            entry[found["name"]] = value
    return [epochs[epoch] for epoch in sorted(epochs)]
