"""What the emulator's own tests do again and again: make data, requests, and wait."""

from __future__ import annotations

import io
import itertools
import json
import struct
import tarfile
import time
from typing import Any

import numpy as np

from . import recordio
from .emulator import Emulator

IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/{}:1"
FM, KNN = IMAGE.format("factorization-machines"), IMAGE.format("knn")
RECORDIO = "application/x-recordio-protobuf"
ENDED = ("Completed", "Failed", "Stopped")


def records(X, y, sparse: bool = False) -> bytes:
    """RecordIO of float32 rows, with a float32 label each unless ``y`` is None."""
    framed = []
    for number, row in enumerate(np.asarray(X, np.float32)):
        record = recordio.Record()
        tensor = record.features["values"].float32_tensor
        kept = np.flatnonzero(row) if sparse else np.arange(len(row))
        tensor.values.extend(row[kept].tolist())
        if sparse:
            tensor.keys.extend(kept.tolist())
            tensor.shape.append(len(row))
        if y is not None:
            record.label["values"].float32_tensor.values.append(float(y[number]))
        payload = record.SerializeToString()
        head = struct.pack("<II", recordio.MAGIC, len(payload))
        framed.append(head + payload + b"\0" * (-len(payload) % 4))
    return b"".join(framed)


def fm_settings(n: int, k: int, **others: str) -> dict[str, str]:
    required = {"feature_dim": str(n), "num_factors": str(k), "predictor_type": "regressor"}
    return {**required, "mini_batch_size": "5", **others}


def knn_settings(width: int, k: int, n: int, **others: str) -> dict[str, str]:
    required = {"feature_dim": str(width), "k": str(k), "sample_size": str(n)}
    return {**required, "predictor_type": "classifier", "index_metric": "INNER_PRODUCT", **others}


def answers(out: bytes) -> list[dict]:
    """The objects of a ``.out`` assembled by lines."""
    return [json.loads(line) for line in out.decode().splitlines()]


class Bench:
    """One test's place in a bucket, with requests that would run anywhere."""

    numbers = itertools.count()

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.s3, self.sagemaker, self.logs = (
            emulator.clients[name] for name in ("s3", "sagemaker", "logs")
        )
        self.prefix = f"bench-{next(self.numbers)}"

    def name(self) -> str:
        return f"job-{next(self.numbers)}"

    def uri(self, key: str) -> str:
        return f"s3://{self.emulator.bucket}/{self.prefix}/{key}"

    def place(self, key: str, data: bytes) -> str:
        """Put an object past all faults; return its location."""
        self.emulator.s3.put_object(
            Bucket=self.emulator.bucket, Key=f"{self.prefix}/{key}", Body=data
        )
        return self.uri(key)

    def fetch(self, uri: str) -> bytes:
        """Get an object past all faults."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return self.emulator.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, prefix: str) -> list[str]:
        """Where there are objects under a prefix."""
        found = self.emulator.s3.list_objects_v2(
            Bucket=self.emulator.bucket, Prefix=f"{self.prefix}/{prefix}"
        )
        return [item["Key"].removeprefix(self.prefix + "/") for item in found.get("Contents", [])]

    # --- training

    def request(self, image: str, settings: dict[str, str], **channels: str) -> dict[str, Any]:
        """A CreateTrainingJob request; ``channels`` are S3 prefixes by name."""
        return {
            "TrainingJobName": self.name(),
            "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
            "RoleArn": self.emulator.role,
            "HyperParameters": settings,
            "InputDataConfig": [
                {
                    "ChannelName": name,
                    "ContentType": RECORDIO,
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": uri,
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
                for name, uri in channels.items()
            ],
            "OutputDataConfig": {"S3OutputPath": self.uri("models/")},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 10,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }

    def train(self, image: str, settings: dict[str, str], **channels: str) -> dict[str, Any]:
        """Train to the end, whatever it is; return the description."""
        request = self.request(image, settings, **channels)
        self.sagemaker.create_training_job(**request)
        return self.wait("Training", request["TrainingJobName"])

    def wait(self, family: str, name: str) -> dict[str, Any]:
        describe = getattr(self.sagemaker, f"describe_{family.lower()}_job")
        for _ in range(6000):
            job = describe(**{f"{family}JobName": name})
            if job[f"{family}JobStatus"] in ENDED:
                return job
            time.sleep(0.01)
        raise TimeoutError(name)

    def artifact(self, job: dict[str, Any]) -> dict[str, bytes]:
        """The members of a job's model.tar.gz."""
        data = self.fetch(job["ModelArtifacts"]["S3ModelArtifacts"])
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            return {member.name: archive.extractfile(member).read() for member in archive}

    def log(self, job: dict[str, Any]) -> list[str]:
        """The lines of a training job's log."""
        group = {"logGroupName": "/aws/sagemaker/TrainingJobs"}
        streams = self.logs.describe_log_streams(
            **group, logStreamNamePrefix=f"{job['TrainingJobName']}/"
        )["logStreams"]
        assert len(streams) == 1
        name = streams[0]["logStreamName"]
        events = self.logs.get_log_events(**group, logStreamName=name, startFromHead=True)
        return [event["message"] for event in events["events"]]

    # --- transform

    def transform_request(self, model: str, uri: str, **others: Any) -> dict[str, Any]:
        """A CreateTransformJob request; ``others`` replace members at any level."""

        def given(members: dict[str, Any]) -> dict[str, Any]:
            return {name: others.get(name, value) for name, value in members.items()}

        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
        content = {"ContentType": RECORDIO, "SplitType": "RecordIO"}
        answer = {"Accept": "application/jsonlines; verbose=true", "AssembleWith": "Line"}
        return {
            "TransformJobName": self.name(),
            "ModelName": model,
            **given({"BatchStrategy": "MultiRecord", "MaxPayloadInMB": 6}),
            "TransformInput": {"DataSource": source, **given(content)},
            "TransformOutput": {"S3OutputPath": self.uri("answers/"), **given(answer)},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }

    def transform(self, model: str, uri: str, **others: Any) -> dict[str, Any]:
        """Transform to the end, whatever it is; return the description."""
        request = self.transform_request(model, uri, **others)
        self.sagemaker.create_transform_job(**request)
        return self.wait("Transform", request["TransformJobName"])

    def model(self, items, k: int, **settings: str) -> str:
        """Train a k-NN index of these items, labelled 0, 1, …; return the name of its model."""
        uri = self.place(f"items-{self.name()}", records(items, np.arange(len(items))))
        hyper = knn_settings(items.shape[1], k, len(items)) | settings
        job = self.train(KNN, hyper, train=uri)
        name = job["TrainingJobName"]
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.emulator.role,
            PrimaryContainer={
                "Image": KNN,
                "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
            },
        )
        return name

    def neighbours(self, model: str, users, **others: Any) -> bytes | None:
        """The ``.out`` object for these users; None if there is none."""
        name = f"users-{self.name()}.pbr"
        job = self.transform(model, self.place(name, records(users, None)), **others)
        assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
        there = f"answers/{name}.out" in self.keys("answers/")
        return self.fetch(self.uri(f"answers/{name}.out")) if there else None
