"""What containers write to CloudWatch: read where that is allowed, missed without a fuss."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from ...errors import SageMakerError
from .clients import Clients, translated

__all__ = ["log_lines", "training_history"]

logger = logging.getLogger("fmknn")

_PAGE = 10_000  # events, the most that one call gives
_MAX_PAGES = 100
# #quality_metric: host=algo-1, epoch=0, train binary_classification_cross_entropy <loss>=0.6858
_QUALITY = re.compile(
    r"#quality_metric: host=algo-1, epoch=(?P<epoch>[0-9]{1,9}), "
    r"train (?P<name>[a-z][\w.]*) <\w+>=(?P<value>\S+)"
)


def log_lines(clients: Clients, group: str, job_name: str, last: int | None = None) -> list[str]:
    """Return the log of a job's first instance, or nothing where it can't be read.

    Parameters
    ----------
    clients : Clients
    group : str
    job_name : str
    last : int, optional
        Only so many lines, from the end.
    """
    try:
        return _read(clients, group, job_name, last)
    except SageMakerError as error:
        logger.info("the log of %s can't be read: %s", job_name, error)
        return []


def _read(clients: Clients, group: str, job_name: str, last: int | None) -> list[str]:
    lines: list[str] = []
    with translated(f"reading the log of {job_name}"):
        client = clients["logs"]
        streams = client.describe_log_streams(
            logGroupName=group, logStreamNamePrefix=f"{job_name}/"
        )["logStreams"]
        if not streams:
            return lines
        where = {"logGroupName": group, "logStreamName": streams[0]["logStreamName"]}
        if last is not None:
            events = client.get_log_events(**where, limit=last, startFromHead=False)["events"]
            return [event["message"] for event in events]
        token: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            page = client.get_log_events(**where, **token, limit=_PAGE, startFromHead=True)
            lines += [event["message"] for event in page["events"]]
            if page["nextForwardToken"] == token.get("nextToken"):
                break
            token = {"nextToken": page["nextForwardToken"]}
    return lines


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
