"""Switches for what goes wrong with AWS. Everything is off until set; set them at any time.

``kind`` below is ``"fm"``, ``"knn"`` or ``"transform"``; an ``operation`` is ``"CreateModel"`` etc.
A switch that takes operations also takes ``True`` for all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

Operations = bool | str | Collection[str]


@dataclass
class Faults:
    """See each field."""

    # --- answers of the API
    #: operations refused with ResourceLimitExceeded
    quota: Operations = False
    #: operations refused with AccessDeniedException; "iam:PassRole" refuses the role of a create
    access_denied: Operations = False
    #: CreateTrainingJob and CreateTransformJob find no objects, whatever there is
    no_data: bool = False
    #: operation -> how many of its calls are answered with ThrottlingException
    throttled: dict[str, int] = field(default_factory=dict)
    #: SageMaker requests from this one on (1 is the next to come, counted from the moment it is
    #: set) are answered with ExpiredTokenException
    expired_from: int | None = None
    #: operation -> (code, message): any other refusal
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)

    # --- fates of jobs
    #: kind -> FailureReason: the job fails instead of running
    failed: dict[str, str] = field(default_factory=dict)
    #: kinds that are stopped with MaxRuntimeExceeded while training (without a model)
    max_runtime: Collection[str] = ()
    #: a job stopped by MaxRuntimeExceeded or a stop call leaves a model all the same
    stopped_with_model: bool = False
    #: kind -> describes it stays InProgress for; float("inf"): until stopped
    slow: dict[str, float] = field(default_factory=dict)

    # --- results that lie
    #: FM weights become NaN
    nan_weights: bool = False
    #: kind -> how its model.tar.gz is damaged: "cut" (truncated), "noise", "empty", "foreign"
    damaged_model: dict[str, str] = field(default_factory=dict)
    #: kinds that complete without writing their model.tar.gz
    missing_model: Collection[str] = ()
    #: a line that is no JSON in the middle of the first .out
    garbage_line: bool = False
    #: the last input object gets no .out, although the job completes
    missing_out: bool = False
    #: the last record gets no line
    short_out: bool = False
    #: distances from largest to smallest, with their labels
    descending: bool = False
    #: distances multiplied by -1 (then ascending: the best is first)
    negated: bool = False
    #: squared L2 distances instead of the index's own
    l2: bool = False

    # --- S3 and logs (seen by ``emulator.clients`` and ``emulator.env()``; jobs are not hit)
    #: ordinal numbers of uploads (PutObject or UploadPart with a body; 1 is the next, counted from
    #: the moment it is set) whose connection is cut in the middle of the body
    cut_uploads: Collection[int] = ()
    #: likewise of downloads (GET of an object) whose connection is cut in the middle of the body
    cut_downloads: Collection[int] = ()
    #: S3 requests holding one of these in "METHOD /bucket/key?query" are refused: AccessDenied
    s3_denied: Collection[str] = ()
    #: every S3 request is refused with ExpiredToken
    s3_expired: bool = False
    #: every CloudWatch Logs request is refused with AccessDeniedException
    logs_denied: bool = False

    def __setattr__(self, name: str, value) -> None:
        if name not in FIELDS and not name.startswith("_"):
            raise AttributeError(f"there is no switch {name!r}")
        object.__setattr__(self, name, value)
        if name in COUNTED:  # setting a switch starts its count anew
            object.__setattr__(self, "_" + COUNTED[name], 0)

    def count(self, what: str) -> int:
        """The ordinal of this upload, download or request since its switch was set."""
        object.__setattr__(self, f"_{what}", getattr(self, f"_{what}") + 1)
        return getattr(self, f"_{what}")

    def clear(self) -> None:
        """Switch everything off."""
        for name in FIELDS:
            setattr(self, name, getattr(Faults(), name))


FIELDS = frozenset(Faults.__dataclass_fields__)
COUNTED = {"cut_uploads": "uploads", "cut_downloads": "downloads", "expired_from": "requests"}


def applies(switch: Operations, operation: str) -> bool:
    """Whether a switch that takes operations means this one."""
    if isinstance(switch, bool):
        return switch
    return operation == switch if isinstance(switch, str) else operation in switch
