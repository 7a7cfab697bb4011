"""The run of a backend as a definition for AWS Step Functions, in the Amazon States Language.

The language: https://states-language.net/spec.html. Integrations, their parameters and the names of
their errors: "Integrating services with Step Functions" in AWS's developer guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._checks import require_count
from .jobs import TRAINING, TRANSFORM, JobKind
from .requests import Resources, training_request, transform_request
from .s3 import split_uri

__all__ = ["state_machine"]

_LONGEST = 99_999_999  # seconds that Step Functions takes as a timeout

# throttling and errors of AWS's own; a job that failed is States.TaskFailed, and final
_BATCH_ERRORS = ["Batch.AWSBatchException", "Batch.ServerException"]
_S3_ERRORS = ["S3.S3Exception", "S3.SdkClientException"]
_SAGEMAKER_ERRORS = ["SageMaker.AmazonSageMakerException", "ThrottlingException"]
_NAME_TAKEN = "SageMaker.ResourceInUseException"


def state_machine(
    resources: Resources,
    place: str,
    *,
    command: Sequence[str],
    job_queue: str,
    job_definition: str,
    timeout_seconds: int,
) -> dict[str, Any]:
    """Return the definition; see :meth:`fmknn.SageMakerBackend.state_machine`.

    Parameters
    ----------
    resources : Resources
    place : str
        Address below which every execution has a folder of its own: s3://bucket/prefix/.
    command : sequence of str
    job_queue, job_definition : str
    timeout_seconds : int

    Returns
    -------
    dict

    Raises
    ------
    ValueError, TypeError
    """
    words = _checked_command(command, resources)
    for name, text in (("job_queue", job_queue), ("job_definition", job_definition)):
        if not isinstance(text, str) or not text:
            raise ValueError(f"{name} must be a name or an ARN of AWS Batch, got {text!r}")
    if require_count("timeout_seconds", timeout_seconds) > _LONGEST:
        raise ValueError(f"timeout_seconds must be at most {_LONGEST}, got {timeout_seconds}")
    arn = f"arn:{resources.role.split(':')[1]}:states:::"  # the partition: aws, aws-cn, …
    bucket, prefix = split_uri(place)
    key = f"States.Format('{prefix}{{}}/next.json', $.run_id)"
    uri = f"States.Format('{place}{{}}/next.json', $.run_id)"
    # by reference: within a function's arguments, words would have to be escaped
    argv = [f"$.command[{number}]" for number in range(len(words))]
    argv += ["'--run-id'", "$.run_id", "'--next'", uri]
    return {
        "Comment": "fmknn: run until a job is missing, create it, run again, until all is done",
        "StartAt": "Begin",
        "TimeoutSeconds": timeout_seconds,
        "States": {
            "Begin": {
                "Type": "Pass",
                "Parameters": {
                    # an execution's name may be too long for a run id; a redrive keeps the Id
                    "run_id.$": "States.Hash($$.Execution.Id, 'MD5')",
                    "command": words,
                },
                "Next": "Step",
            },
            "Step": _task(
                f"{arn}batch:submitJob.sync",
                {
                    "JobName": "fmknn-sagemaker",
                    "JobQueue": job_queue,
                    "JobDefinition": job_definition,
                    "ContainerOverrides": {"Command.$": f"States.Array({', '.join(argv)})"},
                },
                _BATCH_ERRORS,
                "ReadNext",
            ),
            "ReadNext": {
                **_task(
                    f"{arn}aws-sdk:s3:getObject",
                    {"Bucket": bucket, "Key.$": key},
                    _S3_ERRORS,
                    "Choose",
                ),
                "ResultSelector": {"plan.$": "States.StringToJson($.Body)"},
                "ResultPath": "$.next",
            },
            "Choose": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.next.plan.action", "StringEquals": action, "Next": state}
                    for action, state in (
                        (TRAINING.operation, "Train"),
                        (TRANSFORM.operation, "Transform"),
                        ("done", "Done"),
                    )
                ],
            },
            "Train": _job(f"{arn}sagemaker:createTrainingJob.sync", TRAINING, resources, "Failed"),
            "Transform": _job(
                f"{arn}sagemaker:createTransformJob.sync", TRANSFORM, resources, "DeleteModel"
            ),
            # the run that reads a transform's answers deletes its model; none does if it failed
            "DeleteModel": {
                **_task(
                    f"{arn}aws-sdk:sagemaker:deleteModel",
                    {"ModelName.$": "$.next.plan.request.ModelName"},
                    ["SageMaker.SageMakerException", "SageMaker.SdkClientException"],
                    "Failed",
                ),
                "Catch": [_caught("States.ALL", "Failed", "$.left_behind")],
            },
            "Done": {"Type": "Succeed"},
            "Failed": {"Type": "Fail", "ErrorPath": "$.error.Error", "CausePath": "$.error.Cause"},
        },
    }


def _task(
    resource: str, parameters: dict[str, Any], transient: list[str], then: str
) -> dict[str, Any]:
    """A task whose result is dropped: what counts is in S3 and in SageMaker."""
    return {
        "Type": "Task",
        "Resource": resource,
        "Parameters": parameters,
        "ResultPath": None,
        "Retry": [
            {
                "ErrorEquals": transient,
                "IntervalSeconds": 5,
                "MaxAttempts": 6,
                "BackoffRate": 2.0,
                "JitterStrategy": "FULL",
            }
        ],
        "Catch": [_caught("States.ALL", "Failed", "$.error")],
        "Next": then,
    }


def _job(resource: str, kind: JobKind, resources: Resources, failed: str) -> dict[str, Any]:
    """A job of SageMaker: every field of its request is a reference into what was planned."""
    fields = [kind.name_field, *_fields(kind, resources)]
    parameters = {f"{field}.$": f"$.next.plan.request.{field}" for field in fields}
    return {
        **_task(resource, parameters, _SAGEMAKER_ERRORS, "Step"),
        "Catch": [
            # a first attempt came through whose answer was lost: the step waits for that job
            _caught(_NAME_TAKEN, "Step", "$.error"),
            _caught("States.ALL", failed, "$.error"),
        ],
    }


def _fields(kind: JobKind, resources: Resources) -> list[str]:
    """The fields that a request of these resources has."""
    if kind is TRAINING:
        return list(
            training_request(
                resources,
                image="",
                hyperparameters={},
                train_uri="",
                output_uri="",
                instance_count=1,
            )
        )
    return list(
        transform_request(
            resources,
            model_name="",
            input_uri="",
            output_uri="",
            instance_count=1,
            max_payload_mb=1,
        )
    )


def _caught(error: str, state: str, path: str) -> dict[str, Any]:
    return {"ErrorEquals": [error], "ResultPath": path, "Next": state}


def _checked_command(command: Sequence[str], resources: Resources) -> list[str]:
    if isinstance(command, str) or not all(isinstance(word, str) for word in command):
        raise TypeError(f"command must be a list of texts, one per word, got {command!r}")
    if not command:
        raise ValueError('command is empty: it begins like ["fmknn", "sagemaker", …]')
    options = {word.split("=")[0] for word in command if word.startswith("--")}
    if given := options & {"--run-id", "--next"}:
        raise ValueError(f"leave {min(given)} out of command: every execution has its own")
    if "--subnets" in options and resources.vpc_config is None:
        raise ValueError(  # or the definition would drop what the command plans
            "command has --subnets: give the backend the same vpc_config"
        )
    return list(command)
