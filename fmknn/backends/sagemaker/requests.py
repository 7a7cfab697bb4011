"""What a run asks of SageMaker: the requests of its jobs, as boto3 takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Resources", "model_request", "training_request", "transform_request"]

RUN_TAG = "fmknn:run"  # on everything that a run creates
_MOST_TAGS = 9  # an object in S3 may have ten, and one is ours
RECORDIO = "application/x-recordio-protobuf"
VERBOSE_LINES = "application/jsonlines; verbose=true"

_ROLE = re.compile(r"arn:aws[a-z\-]*:iam::[0-9]{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
_BUCKET = re.compile(r"[a-z0-9]([a-z0-9\-]|\.(?![.\-])){1,61}[a-z0-9]")
_ADDRESS = re.compile(r"([0-9]+\.){3}[0-9]+")
_INSTANCE = re.compile(r"ml\.[a-z0-9\-]+\.[a-z0-9\-]+")
_TAG = re.compile(r"[\w .:/=+\-@]*")  # letters and digits of any script
_VPC_CONFIG = {"SecurityGroupIds", "Subnets"}


@dataclass(frozen=True)
class Resources:
    """What every job of a run is given.

    Attributes
    ----------
    role : str
        ARN of the role that the containers take on.
    instance_type : str
    instance_count : int
        Instances of the FM's training and of batch transforms; k-NN trains on one.
    volume_size_gb : int
    max_runtime : int
        Seconds after which SageMaker stops a training job.
    tags : dict of str to str
    kms_key : str or None
    vpc_config : dict or None
        As SageMaker's VpcConfig: SecurityGroupIds and Subnets.
    """

    role: str
    instance_type: str
    instance_count: int
    volume_size_gb: int
    max_runtime: int
    tags: Mapping[str, str]
    kms_key: str | None = None
    vpc_config: Mapping[str, Any] | None = None

    def tag_list(self) -> list[dict[str, str]]:
        """Return the tags as AWS takes them."""
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


def require_role(role: Any) -> str:
    """Return the ARN of a role, or say what one looks like.

    Raises
    ------
    ValueError
    """
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ValueError(
            "role must be the whole ARN of a role, like "
            f"arn:aws:iam::123456789012:role/service-role/MyRole, got {role!r}"
        )
    return role


def require_bucket(bucket: Any) -> str:
    """Return the name of a bucket; an s3:// address is none.

    Raises
    ------
    ValueError
    """
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket) or _ADDRESS.fullmatch(bucket):
        raise ValueError(f"bucket must be the name of an S3 bucket, without s3://, got {bucket!r}")
    return bucket


def require_instance_type(instance_type: Any) -> str:
    """Return an instance type of SageMaker's.

    Raises
    ------
    ValueError
    """
    if not isinstance(instance_type, str) or not _INSTANCE.fullmatch(instance_type):
        raise ValueError(f"instance_type must be like ml.m5.large, got {instance_type!r}")
    return instance_type


def require_tags(tags: Any) -> dict[str, str]:
    """Return tags that AWS takes.

    Raises
    ------
    ValueError
        Naming the tag that it doesn't.
    """
    if not isinstance(tags, Mapping):
        raise ValueError(f"tags must map texts to texts, got {tags!r}")
    if len(tags) > _MOST_TAGS:
        raise ValueError(f"at most {_MOST_TAGS} tags are possible, got {len(tags)}")
    for key, value in tags.items():
        texts = isinstance(key, str) and isinstance(value, str)
        if not texts or not 1 <= len(key) <= 128 or len(value) > 256:
            raise ValueError(
                f"a tag is a text of 1 to 128 characters with one of at most 256, got {key!r}: "
                f"{value!r}"
            )
        if not (_TAG.fullmatch(key) and _TAG.fullmatch(value)):
            raise ValueError(
                f"a tag has letters, digits and _.:/=+-@ in it, got {key!r}: {value!r}"
            )
        if key.lower().startswith("aws:") or key == RUN_TAG:
            raise ValueError(f"the tag {key!r} is reserved: take another name")
    return dict(tags)


def require_vpc_config(vpc_config: Any) -> Mapping[str, Any] | None:
    """Return what SageMaker takes as a VpcConfig, or None.

    Raises
    ------
    ValueError
    """
    if vpc_config is None:
        return None
    if not isinstance(vpc_config, Mapping) or set(vpc_config) != _VPC_CONFIG:
        raise ValueError(
            f"vpc_config must have SecurityGroupIds and Subnets, and no more, got {vpc_config!r}"
        )
    for name, ids in vpc_config.items():
        if isinstance(ids, str) or not ids or not all(isinstance(one, str) for one in ids):
            raise ValueError(f"{name} of vpc_config must be a list of ids, got {ids!r}")
    return vpc_config


def training_request(
    resources: Resources,
    *,
    image: str,
    hyperparameters: Mapping[str, str],
    train_uri: str,
    output_uri: str,
    instance_count: int,
) -> dict[str, Any]:
    """Return the arguments of create_training_job but for the name.

    With several instances each gets its share of the objects, by S3 key.
    """
    sharded = "ShardedByS3Key" if instance_count > 1 else "FullyReplicated"
    request: dict[str, Any] = {
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "RoleArn": resources.role,
        "HyperParameters": dict(hyperparameters),
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "ContentType": RECORDIO,
                "InputMode": "File",
                "CompressionType": "None",
                "RecordWrapperType": "None",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": train_uri,
                        "S3DataDistributionType": sharded,
                    }
                },
            }
        ],
        "OutputDataConfig": _with_key({"S3OutputPath": output_uri}, "KmsKeyId", resources),
        "ResourceConfig": _with_key(
            {
                "InstanceType": resources.instance_type,
                "InstanceCount": instance_count,
                "VolumeSizeInGB": resources.volume_size_gb,
            },
            "VolumeKmsKeyId",
            resources,
        ),
        "StoppingCondition": {"MaxRuntimeInSeconds": resources.max_runtime},
        "Tags": resources.tag_list(),
    }
    if resources.vpc_config is not None:
        request["VpcConfig"] = dict(resources.vpc_config)
    return request


def model_request(resources: Resources, *, image: str, artifact_uri: str) -> dict[str, Any]:
    """Return the arguments of create_model but for the name."""
    request: dict[str, Any] = {
        "ExecutionRoleArn": resources.role,
        "PrimaryContainer": {"Image": image, "ModelDataUrl": artifact_uri},
        "Tags": resources.tag_list(),
    }
    if resources.vpc_config is not None:
        request["VpcConfig"] = dict(resources.vpc_config)
    return request


def transform_request(
    resources: Resources,
    *,
    model_name: str,
    input_uri: str,
    output_uri: str,
    instance_count: int,
    max_payload_mb: int,
) -> dict[str, Any]:
    """Return the arguments of create_transform_job but for the name."""
    output = {"S3OutputPath": output_uri, "Accept": VERBOSE_LINES, "AssembleWith": "Line"}
    return {
        "ModelName": model_name,
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": max_payload_mb,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_uri}},
            "ContentType": RECORDIO,
            "SplitType": "RecordIO",
            "CompressionType": "None",
        },
        "TransformOutput": _with_key(output, "KmsKeyId", resources),
        "TransformResources": _with_key(
            {"InstanceType": resources.instance_type, "InstanceCount": instance_count},
            "VolumeKmsKeyId",
            resources,
        ),
        "Tags": resources.tag_list(),
    }


def _with_key(part: dict[str, Any], name: str, resources: Resources) -> dict[str, Any]:
    return part if resources.kms_key is None else {**part, name: resources.kms_key}
