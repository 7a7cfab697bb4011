"""Training and transform jobs: their description, their statuses, the threads that play them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

MESSAGES = {
    "Starting": "Launching requested ML instances",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}
ENDED = ("Completed", "Failed", "Stopped")


class StopError(Exception):
    """The job is to end now: ``secondary`` says why."""

    def __init__(self, secondary: str):
        super().__init__(secondary)
        self.secondary = secondary


class Job:
    """A job of either kind; ``family`` is "Training" or "Transform"."""

    def __init__(self, family: str, request: dict[str, Any], arn: str):
        self.family, self.request, self.arn = family, request, arn
        self.name = request[f"{family}JobName"]
        self.kind = "transform"
        self.status, self.secondary = "InProgress", "Starting"
        self.created = self.modified = time.time()
        self.started: float | None = None
        self.ended: float | None = None
        self.reason: str | None = None
        self.artifacts: str | None = None
        self.metrics: dict[str, float] = {}
        self.transitions: list[dict[str, Any]] = []
        self.lock = threading.RLock()
        self.stop_asked = threading.Event()
        self.described = 0
        self.number = int(self.created)
        self.thread: threading.Thread | None = None
        #: the model of a transform job, as it was when the job was created
        self.model: dict[str, Any] = {}
        #: what a stopped job may leave as its model
        self.partial: Callable[[], dict[str, bytes]] | None = None
        self.enter("Starting")

    def start(self, play: Callable[[Job], None]) -> None:
        """Play the job in a thread of its own."""
        self.thread = threading.Thread(target=play, args=(self,), daemon=True)
        self.thread.start()

    def enter(self, secondary: str, status: str | None = None) -> None:
        """Move on to the next status."""
        with self.lock:
            now = self.modified = time.time()
            if self.transitions:
                self.transitions[-1].setdefault("EndTime", now)
            message = MESSAGES[secondary]
            step = {"Status": secondary, "StartTime": now, "StatusMessage": message}
            self.transitions.append(step)
            if secondary in ("Training", "Running"):
                self.started = now
            self.secondary = secondary
            if status:
                self.status, self.ended = status, now
                step["EndTime"] = now

    def stop(self) -> None:
        """What a stop call does."""
        with self.lock:
            if self.status == "InProgress":
                self.status = "Stopping"
                self.enter("Stopping")
                self.stop_asked.set()

    def end(self, status: str, secondary: str | None = None, reason: str | None = None) -> None:
        with self.lock:
            self.reason = reason
            self.enter(secondary or status, status)

    def check(self) -> None:
        """Raise if the job has been stopped or has run for too long."""
        if self.stop_asked.is_set():
            raise StopError("Stopped")
        most = self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", math.inf)
        if time.time() - (self.started or time.time()) > most:
            raise StopError("MaxRuntimeExceeded")

    def phase(self, secondary: str, seconds: float) -> None:
        """Go through a status that takes some time, unless stopped."""
        self.check()
        with self.lock:
            if self.status == "InProgress" and self.secondary != secondary:
                self.enter(secondary)
        self.stop_asked.wait(seconds)
        self.check()

    def linger(self, polls: float) -> None:
        """Stay until described so many times more, or stopped."""
        until = self.described + polls
        while self.described < until:
            self.stop_asked.wait(0.005)
            self.check()

    def describe(self) -> dict[str, Any]:
        """The answer of DescribeTrainingJob or DescribeTransformJob."""
        with self.lock:
            self.described += 1
            family = self.family
            answer = {key: value for key, value in self.request.items() if key != "Tags"}
            answer |= {f"{family}JobArn": self.arn, f"{family}JobStatus": self.status}
            answer["CreationTime"] = self.created
            if self.started:
                answer[f"{family}StartTime"] = self.started
            if self.ended:
                answer[f"{family}EndTime"] = self.ended
            if self.reason:
                answer["FailureReason"] = self.reason
            return answer | (self._training() if family == "Training" else {})

    def _training(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "SecondaryStatus": self.secondary,
            "SecondaryStatusTransitions": [dict(step) for step in self.transitions],
            "LastModifiedTime": self.modified,
            "EnableNetworkIsolation": self.request.get("EnableNetworkIsolation", False),
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": self.request.get("EnableManagedSpotTraining", False),
            # only once it exists
            "ModelArtifacts": {"S3ModelArtifacts": self.artifacts} if self.artifacts else {},
        }
        if self.ended and self.started:
            seconds = max(1, math.ceil(self.ended - self.started))
            answer |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        if self.metrics and self.ended:
            answer["FinalMetricDataList"] = [
                {"MetricName": name, "Value": value, "Timestamp": self.ended}
                for name, value in self.metrics.items()
            ]
        return answer
