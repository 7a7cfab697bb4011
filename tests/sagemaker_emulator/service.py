"""The operations of the API: state, AWS's rules beyond the service model, refusals."""

from __future__ import annotations

import threading
import time
from typing import Any

from .faults import Faults, applies
from .jobs import ENDED, Job
from .play import Player
from .s3io import S3, split_uri
from .validation import ApiError, check

ACCOUNT, REGION = "123456789012", "us-east-1"
OPERATIONS = (
    "CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob",
    "CreateModel", "DescribeModel", "DeleteModel",
    "CreateTransformJob", "DescribeTransformJob", "StopTransformJob",
    "ListTrainingJobs", "ListModels", "ListTransformJobs",
)  # fmt: skip
QUOTA = (
    "The account-level service limit '{instance} for {usage} usage' is 0 Instances, with current "
    "utilization of 0 Instances and a request delta of {n} Instances. Please use AWS Service "
    "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact "
    "AWS support to request an increase for this quota."
)


def arn(resource: str, name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{resource}/{name}"


class Service:
    """SageMaker, as far as it is emulated."""

    def __init__(self, s3: S3, player: Player, faults: Faults):
        self.s3, self.player, self.faults = s3, player, faults
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.jobs: dict[tuple[str, str], Job] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.lock = threading.RLock()

    def call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Answer a request or raise an :class:`ApiError`."""
        with self.lock:
            self.requests.append((operation, params))
            if operation not in OPERATIONS:
                raise ApiError("UnknownOperationException", "")
            self._faults(operation, params)
            check(operation, params)
            verb, noun = _split(operation)
            if verb == "List":
                return self._list(noun.removesuffix("s"), params)
            if noun == "Model":
                return getattr(self, f"_{verb.lower()}_model")(params)
            family = noun.removesuffix("Job")
            return getattr(self, f"_{verb.lower()}_job")(family, params)

    # --- refusals by switch

    def _faults(self, operation: str, params: dict[str, Any]) -> None:
        faults = self.faults
        if faults.expired_from is not None and faults.count("requests") >= faults.expired_from:
            expired = "The security token included in the request is expired"
            raise ApiError("ExpiredTokenException", expired)
        if faults.throttled.get(operation, 0) > 0:
            faults.throttled[operation] -= 1
            raise ApiError("ThrottlingException", "Rate exceeded")
        if operation in faults.errors:
            raise ApiError(*faults.errors[operation])
        if applies(faults.access_denied, operation):
            self._deny(f"sagemaker:{operation}", _resource(operation, params))
        role = params.get("RoleArn") or params.get("ExecutionRoleArn")
        if role and faults.access_denied and applies(faults.access_denied, "iam:PassRole"):
            self._deny("iam:PassRole", role)
        resources = params.get("ResourceConfig") or params.get("TransformResources")
        if resources and applies(faults.quota, operation):
            usage = "training job" if "ResourceConfig" in params else "transform job"
            kind, n = resources.get("InstanceType"), resources.get("InstanceCount")
            text = QUOTA.format(instance=kind, usage=usage, n=n)
            raise ApiError("ResourceLimitExceeded", text)

    def _deny(self, action: str, resource: str) -> None:
        raise ApiError(
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/tester is not authorized to perform: {action} on "
            f"resource: {resource} because no identity-based policy allows the {action} action",
        )

    # --- lists

    def _list(self, noun: str, params: dict[str, Any]) -> dict[str, Any]:
        """A page of what is there, two entries long so that pages are really turned."""
        names = list(self.models) if noun == "Model" else []
        family = noun.removesuffix("Job")
        jobs = {name: job for (kind, name), job in self.jobs.items() if kind == family}
        names = sorted(n for n in [*names, *jobs] if params.get("NameContains", "") in n)
        start = int(params.get("NextToken", 0))
        entries = []
        for name in names[start : start + 2]:
            kind = {"Model": "model"}.get(noun, f"{family.lower()}-job")
            entry = {f"{noun}Name": name, f"{noun}Arn": arn(kind, name), "CreationTime": 0.0}
            if name in jobs:
                entry[f"{noun}Status"] = jobs[name].status
            entries.append(entry)
        page: dict[str, Any] = {"Models" if noun == "Model" else f"{noun}Summaries": entries}
        if start + 2 < len(names):
            page["NextToken"] = str(start + 2)
        return page

    # --- models

    def _create_model(self, params: dict[str, Any]) -> dict[str, Any]:
        name = params["ModelName"]
        if name in self.models:
            taken = f'Cannot create already existing model "{arn("model", name)}".'
            raise ApiError("ValidationException", taken)
        data = params.get("PrimaryContainer", {}).get("ModelDataUrl")
        if data and not self.s3.exists(data):
            raise ApiError("ValidationException", f"Could not find model data at {data}.")
        self.models[name] = params | {"CreationTime": time.time()}
        return {"ModelArn": arn("model", name)}

    def _model(self, name: str) -> dict[str, Any]:
        if name not in self.models:
            unknown = f'Could not find model "{arn("model", name)}".'
            raise ApiError("ValidationException", unknown)
        return self.models[name]

    def _describe_model(self, params: dict[str, Any]) -> dict[str, Any]:
        model = self._model(params["ModelName"])
        described = {k: v for k, v in model.items() if k != "Tags"}
        return described | {"ModelArn": arn("model", params["ModelName"])}

    def _delete_model(self, params: dict[str, Any]) -> dict[str, Any]:
        self._model(params["ModelName"])
        del self.models[params["ModelName"]]
        return {}

    # --- jobs

    def _create_job(self, family: str, params: dict[str, Any]) -> dict[str, Any]:
        name = params[f"{family}JobName"]
        job_arn = arn(f"{family.lower()}-job", name)
        if (family, name) in self.jobs:
            raise ApiError(
                "ResourceInUse",
                f"{family} job names must be unique within an AWS account and region, and a "
                f"{family.lower()} job with this name already exists ({job_arn})",
            )
        if family == "Transform":
            self._check_transform(params)
        else:
            self._check_training(params)
        job = self.jobs[family, name] = Job(family, params, job_arn)
        job.model = self.models.get(params.get("ModelName", ""), {})
        job.start(self.player.train if family == "Training" else self.player.transform)
        return {f"{family}JobArn": job_arn}

    def _check_training(self, params: dict[str, Any]) -> None:
        if "TrainingImage" not in params["AlgorithmSpecification"]:
            text = "You must provide either TrainingImage or AlgorithmName"
            raise ApiError("ValidationException", f"{text} in AlgorithmSpecification.")
        if params.get("EnableManagedSpotTraining"):
            condition = params.get("StoppingCondition", {})
            longest = condition.get("MaxWaitTimeInSeconds", 0)
            if longest < condition.get("MaxRuntimeInSeconds", 86400):
                raise ApiError(
                    "ValidationException",
                    "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal "
                    "to MaxRuntimeInSeconds",
                )
        channels = params.get("InputDataConfig", [])
        names = [channel["ChannelName"] for channel in channels]
        if len(set(names)) < len(names):
            raise ApiError("ValidationException", f"Duplicate channel names found: {names}")
        for channel in channels:
            self._find(channel["DataSource"]["S3DataSource"]["S3Uri"], params["RoleArn"])

    def _check_transform(self, params: dict[str, Any]) -> None:
        model = self._model(params["ModelName"])
        concurrent = params.get("MaxConcurrentTransforms", 1)
        if params.get("MaxPayloadInMB", 6) * max(1, concurrent) > 100:
            raise ApiError(
                "ValidationException",
                "MaxPayloadInMB * MaxConcurrentTransforms must not exceed 100 MB",
            )
        source = params["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        self._find(source, model.get("ExecutionRoleArn", ""))

    def _find(self, uri: str, role: str) -> None:
        bucket, _ = split_uri(uri)
        if self.faults.no_data or not self.s3.keys(uri):
            raise ApiError(
                "ValidationException",
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please '
                f"ensure that the bucket exists in the selected region ({REGION}), that objects "
                f'exist under that S3 prefix, and that the role "{role}" has "s3:ListBucket" '
                f'permissions on bucket "{bucket}".',
            )

    def _job(self, family: str, params: dict[str, Any]) -> Job:
        job = self.jobs.get((family, params[f"{family}JobName"]))
        if job is None:
            raise ApiError("ValidationException", "Requested resource not found.")
        return job

    def _describe_job(self, family: str, params: dict[str, Any]) -> dict[str, Any]:
        return self._job(family, params).describe()

    def _stop_job(self, family: str, params: dict[str, Any]) -> dict[str, Any]:
        job = self._job(family, params)
        if job.status in ENDED:
            raise ApiError(
                "ValidationException",
                f"The request was rejected because the {family.lower()} job is in status "
                f"{job.status}.",
            )
        job.stop()
        return {}


def _split(operation: str) -> tuple[str, str]:
    verb = next(
        v for v in ("Create", "Describe", "Stop", "Delete", "List") if operation.startswith(v)
    )
    return verb, operation.removeprefix(verb)


def _resource(operation: str, params: dict[str, Any]) -> str:
    noun = _split(operation)[1].removesuffix("s")
    kinds = {"TrainingJob": "training-job", "TransformJob": "transform-job", "Model": "model"}
    return arn(kinds[noun], params.get(f"{noun}Name", "*"))
