"""Jobs: created or picked up, watched, stopped; anything but Completed is an error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import (
    CredentialsError,
    JobFailedError,
    JobStoppedError,
    JobTimeoutError,
    SageMakerError,
)
from .clients import Clients, attempt, listed
from .logs import JobLog

__all__ = ["TRAINING", "TRANSFORM", "JobKind", "Jobs", "NextJob"]

logger = logging.getLogger("fmknn")

Description = Mapping[str, Any]

_LIVE = ("InProgress", "Stopping")
_WRITING = ("InProgress", "Training", "Uploading")  # the container runs, and may write to its log
_LAST_LINES = 20
_MISSED_POLLS = 5  # in a row: each has been retried by boto3 already
_NAMES = 100  # tried for a job whose earlier runs failed or were stopped


@dataclass(frozen=True)
class JobKind:
    """The words in which SageMaker speaks of one kind of job."""

    word: str  # "training job"
    operation: str  # as in create_training_job
    field: str  # as in TrainingJobName, TrainingJobStatus
    log_group: str

    @property
    def name_field(self) -> str:
        """The field of requests and answers that holds the name."""
        return f"{self.field}Name"

    @property
    def status_field(self) -> str:
        """The field of answers that holds the status."""
        return f"{self.field}Status"


TRAINING = JobKind("training job", "training_job", "TrainingJob", "/aws/sagemaker/TrainingJobs")
TRANSFORM = JobKind(
    "transform job", "transform_job", "TransformJob", "/aws/sagemaker/TransformJobs"
)

_ADVICE = {  # what is in a failure's reason -> what to do
    "unable to assume the role": "check the role's ARN (with its path, as service-role/) and trust",
    "out of memory": "take an instance_type with more memory",
    "outofmemory": "take an instance_type with more memory",
    "unable to get response from algorithm": "lower max_payload_mb or take a larger instance_type",
    "maximum payload": "lower max_payload_mb",
    "no space left": "raise volume_size_gb",
    "capacityerror": "AWS is short of this instance_type: try later or take another",
    "no s3 objects found": "check that the role may read the bucket",
    "accessdenied": "give the role the right to read and write the bucket",
    "internalservererror": "an error of AWS's own: try again",
}


class NextJob(Exception):  # noqa: N818 - no error: what is wanted next
    """Under ``plan``: the job that is to be created, its input being in place.

    Attributes
    ----------
    kind : JobKind
    request : dict
        Arguments of the create call, the name among them.
    """

    def __init__(self, kind: JobKind, request: dict[str, Any]) -> None:
        super().__init__(f"{kind.word} {request[kind.name_field]} is to be created")
        self.kind, self.request = kind, request


def _is_missing(code: str, message: str) -> bool:
    """Whether a refusal says that there is no such job: SageMaker has no code of its own for it."""
    return code in ("ValidationException", "ResourceNotFound") and any(
        words in message for words in ("not found", "does not exist", "could not find")
    )


class Jobs:
    """Runs jobs to their end.

    Parameters
    ----------
    clients : Clients
    poll_seconds : float
        Between two looks at a job.
    deadline : float, optional
        Seconds after which a job that still runs is stopped.
    progress : bool
        Show the status of the job in a progress line.

    Attributes
    ----------
    poll_seconds : float
    plan : bool
        Raise :class:`NextJob` instead of creating a job: somebody else creates and watches it.
    """

    def __init__(
        self, clients: Clients, *, poll_seconds: float, deadline: float | None, progress: bool
    ) -> None:
        self.plan = False
        self._clients = clients
        self.poll_seconds = poll_seconds
        self._deadline = deadline
        self._progress = progress

    def run(
        self,
        kind: JobKind,
        base_name: str,
        request: Mapping[str, Any],
        prepare: Callable[[], None],
        has_result: Callable[[Description], bool],
    ) -> Description:
        """Run a job to its end, or pick up the one of that name that is running or done.

        Parameters
        ----------
        kind : JobKind
        base_name : str
            The name; "-2", "-3", … are added where earlier ones failed or were stopped.
        request : mapping
            Arguments of the create call but for the name.
        prepare : callable
            Puts the input in place, if the job is to be created.
        has_result : callable
            Whether what a completed job left is still there.

        Returns
        -------
        mapping
            The job's description; its status is Completed.

        Raises
        ------
        JobFailedError, JobStoppedError, JobTimeoutError
            If the job did not complete.
        SageMakerError
            If a call failed: its subclasses say how.
        KeyboardInterrupt
            After the job was told to stop.
        NextJob
            Under ``plan``, if the job is not there.
        """
        name, exists = self._free_or_usable(kind, base_name, has_result)
        if exists:
            logger.info("%s %s is picked up", kind.word, name)
        else:
            prepare()
            if self.plan:
                raise NextJob(kind, {kind.name_field: name, **request})
        created = exists
        try:
            if not exists:
                self._create(kind, name, request)
                created = True
            description = self._wait(kind, name)
        except SageMakerError as error:
            if not created and _is_refusal(error.__cause__):
                raise
            raise self._left_behind(kind, name, error) from error.__cause__
        except BaseException:  # Ctrl-C, a SystemExit of a signal's handler, a caller's time limit
            self._stop_quietly(kind, name)
            raise
        return self._require_completed(kind, name, description)

    def stop_all(self, beginning: str) -> None:
        """Stop every job of a name with this beginning that still runs, whoever started it."""
        for kind in (TRAINING, TRANSFORM):
            found = listed(
                self._clients, f"list_{kind.operation}s", f"{kind.field}Summaries", beginning
            )
            for entry in found:
                if entry[kind.status_field] == "InProgress":
                    self.stop(kind, entry[kind.name_field])

    def describe(self, kind: JobKind, name: str) -> Description | None:
        """Return the description of a job, None if there is none of that name."""
        answer = attempt(
            f"describing {kind.word} {name}",
            getattr(self._clients["sagemaker"], f"describe_{kind.operation}"),
            expected=_is_missing,
            **{kind.name_field: name},
        )
        return None if answer is None else dict(answer)

    def stop(self, kind: JobKind, name: str) -> None:
        """Tell a job to stop; one that has ended meanwhile is left as it is."""
        attempt(
            f"stopping {kind.word} {name}",
            getattr(self._clients["sagemaker"], f"stop_{kind.operation}"),
            expected=lambda code, message: code == "ValidationException",
            **{kind.name_field: name},
        )

    def _free_or_usable(
        self, kind: JobKind, base_name: str, has_result: Callable[[Description], bool]
    ) -> tuple[str, bool]:
        """Return a name and whether a job of it exists: one that runs or is done."""
        for number in range(1, _NAMES + 1):
            name = base_name if number == 1 else f"{base_name}-{number}"
            description = self.describe(kind, name)
            if description is None:
                return name, False
            status = description[kind.status_field]
            if status == "InProgress" or (status == "Completed" and has_result(description)):
                return name, True
        raise SageMakerError(f"{_NAMES} jobs {base_name} have left nothing: use another run_id")

    def _create(self, kind: JobKind, name: str, request: Mapping[str, Any]) -> None:
        # names are ours alone: one in use is that of a first attempt whose answer was lost
        attempt(
            f"creating {kind.word} {name}",
            getattr(self._clients["sagemaker"], f"create_{kind.operation}"),
            expected=lambda code, message: code == "ResourceInUse",
            **{kind.name_field: name, **request},
        )
        logger.info("%s %s is created", kind.word, name)

    def _wait(self, kind: JobKind, name: str) -> Description:
        from tqdm import tqdm

        began, missed, told = time.monotonic(), 0, ""
        log = JobLog(self._clients, kind.log_group, name)
        with tqdm(desc=kind.word, unit="poll", disable=not self._progress) as bar:
            while True:
                try:
                    description = self.describe(kind, name)
                    missed = 0
                except CredentialsError:
                    raise
                except SageMakerError:
                    missed += 1
                    if missed >= _MISSED_POLLS:
                        raise
                    description = {}
                if description is None:
                    raise SageMakerError(f"{kind.word} {name} is gone: was it deleted?")
                status = str(description.get(kind.status_field, "unknown"))
                detail = str(description.get("SecondaryStatus", status))
                if description and detail != told:
                    told = detail
                    logger.info("%s %s: %s", kind.word, name, detail)
                if detail in _WRITING or (description and status not in _LIVE):
                    for line in log.new_lines():
                        logger.info("%s: %s", name, line)
                bar.set_postfix_str(detail)
                bar.update()
                if description and status not in _LIVE:
                    return description
                if self._deadline is not None and time.monotonic() - began > self._deadline:
                    raise JobTimeoutError(
                        f"{kind.word} {name} was still {detail} after {self._deadline:g} s: "
                        "raise deadline"
                    )
                time.sleep(self.poll_seconds)

    def _require_completed(self, kind: JobKind, name: str, description: Description) -> Description:
        status = description[kind.status_field]
        if status == "Completed":
            return description
        for line in JobLog(self._clients, kind.log_group, name).last_lines(_LAST_LINES):
            logger.error("%s: %s", name, line)
        reason = " ".join(str(description.get("FailureReason", "")).split())
        if status == "Failed":
            advice = [what for sign, what in _ADVICE.items() if sign in reason.lower()]
            told = f"{reason or 'no reason given'}{': ' + advice[0] if advice else ''}"
            raise JobFailedError(f"{kind.word} {name} failed: {told}")
        if description.get("SecondaryStatus") == "MaxRuntimeExceeded":
            why = "reached its time limit: raise max_runtime"
        else:
            why = f"was stopped by somebody{': ' + reason if reason else ''}"
        raise JobStoppedError(f"{kind.word} {name} {why}; what it left is not used")

    def _stop_quietly(self, kind: JobKind, name: str) -> None:
        try:
            self.stop(kind, name)
        except SageMakerError as error:
            logger.warning("%s %s may still be running: %s", kind.word, name, error)

    def _left_behind(self, kind: JobKind, name: str, error: SageMakerError) -> SageMakerError:
        """Stop what can no longer be watched, and say so in the error."""
        with suppress(SageMakerError):
            description = self.describe(kind, name)
            if description is None or description[kind.status_field] not in _LIVE:
                return error
        try:
            self.stop(kind, name)
        except SageMakerError:
            what = f"{kind.word} {name} may still be running: the same run_id picks it up"
        else:
            what = f"{kind.word} {name} is stopped"
        return type(error)(f"{error} ({what})")


def _is_refusal(error: BaseException | None) -> bool:
    """Whether AWS said no: nothing was created, as it may have been after a 5xx or no answer."""
    response = getattr(error, "response", None) or {}  # None in those of the connection
    return 400 <= int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)) < 500
