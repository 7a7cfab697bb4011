"""CloudWatch log streams of jobs: put in batches, in the containers' form."""

from __future__ import annotations

import contextlib
import time
from typing import Any

MOST_EVENTS = 1000
EVERY_SECONDS = 0.2


class LogStream:
    """A stream that is written to now and then and at the end."""

    def __init__(self, client: Any, group: str, stream: str):
        self.client, self.group, self.stream = client, group, stream
        self.waiting: list[dict] = []
        self.written = 0.0
        self.made = False

    def raw(self, text: str) -> None:
        """Write a line as it is."""
        self.waiting.append({"timestamp": int(time.time() * 1000), "message": text})
        if time.monotonic() - self.written > EVERY_SECONDS or len(self.waiting) >= MOST_EVENTS:
            self.flush()

    def line(self, text: str, level: str = "INFO") -> None:
        """Write a line behind the containers' usual prefix of time, level and thread."""
        stamp = time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime())
        self.raw(f"[{stamp} {level} 139924546529088] {text}")

    def flush(self) -> None:
        """Put what waits."""
        if not self.made:
            self._make()
        waiting, self.waiting, self.written = self.waiting, [], time.monotonic()
        for start in range(0, len(waiting), MOST_EVENTS):
            self.client.put_log_events(
                logGroupName=self.group,
                logStreamName=self.stream,
                logEvents=waiting[start : start + MOST_EVENTS],
            )

    def _make(self) -> None:
        taken = self.client.exceptions.ResourceAlreadyExistsException
        for create, names in [
            (self.client.create_log_group, {"logGroupName": self.group}),
            (
                self.client.create_log_stream,
                {"logGroupName": self.group, "logStreamName": self.stream},
            ),
        ]:
            with contextlib.suppress(taken):
                create(**names)
        self.made = True
