"""A run: one name under which data, jobs and models are found again, and are removed."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from ...errors import SageMakerError
from .clients import Clients, attempt, listed, translated
from .jobs import TRAINING, Description, Jobs
from .requests import Resources, training_request
from .s3 import Store, read_object, split_uri

__all__ = ["Run", "artifact_uri", "fingerprint", "part_name", "require_run_id"]

logger = logging.getLogger("fmknn")

_RUN_ID = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}")


def require_run_id(run_id: Any) -> str:
    """Return a run id that can be part of the names of jobs.

    Raises
    ------
    ValueError
    """
    if not isinstance(run_id, str) or len(run_id) > 32 or not _RUN_ID.fullmatch(run_id):
        raise ValueError(
            "run_id must be 1 to 32 letters, digits and hyphens, beginning and ending with a "
            f"letter or digit, got {run_id!r}"
        )
    return run_id


def fingerprint(*parts: Any) -> str:
    """Return a short name for exactly these arrays and settings.

    Examples
    --------
    >>> fingerprint(np.arange(3), {"k": 5}) == fingerprint(np.arange(3), {"k": 5})
    True
    >>> len(fingerprint("a"))
    12
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(
                repr(sorted(part.items()) if isinstance(part, Mapping) else part).encode()
            )
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def part_name(number: int) -> str:
    """Return the name of one of several objects with data, in the order of their numbers."""
    return f"part-{number:05d}.pbr"


class Run:
    """Names, storage and jobs of one run.

    Names hold a fingerprint of what goes in: the same input under the same run id finds the job
    that is running or done, and another input never meets a foreign result.

    Parameters
    ----------
    run_id : str
    clients : Clients
    store : Store
        The run's own place in S3.
    resources : Resources
    jobs : Jobs
    images : callable
        From the name of an algorithm to the address of its image.
    max_bytes : int
        The largest object that is read back.
    """

    def __init__(
        self,
        run_id: str,
        clients: Clients,
        store: Store,
        resources: Resources,
        jobs: Jobs,
        images: Callable[[str], str],
        max_bytes: int,
    ) -> None:
        self.run_id, self.clients, self.store = run_id, clients, store
        self.resources, self.jobs, self.image, self.max_bytes = resources, jobs, images, max_bytes

    def train(
        self,
        step: str,
        algorithm: str,
        hyperparameters: Mapping[str, str],
        data_key: str,
        shards: Iterable[Iterable[bytes]],
        instance_count: int,
        salt: Any = None,
    ) -> Description:
        """Run a training job on shards of RecordIO, or pick up the one that did.

        Parameters
        ----------
        step : str
            What the job's name begins with.
        algorithm : {"factorization-machines", "knn"}
        hyperparameters : mapping of str to str
        data_key : str
            Fingerprint of the data alone.
        shards : iterable of iterables of bytes
            One object each; made only if the job is to be created.
        instance_count : int
        salt : object
            Tells trainings of the same input apart.

        Returns
        -------
        mapping
            The description of the completed job.
        """
        train_key = f"{data_key}/train/"
        image = self.image(algorithm)
        request = training_request(
            self.resources,
            image=image,
            hyperparameters=hyperparameters,
            train_uri=self.store.uri(train_key),
            output_uri=self.store.uri(f"{data_key}/output/"),
            instance_count=instance_count,
        )

        def prepare() -> None:
            there = set(self.store.keys(train_key))  # each as a whole, or not at all
            for number, chunks in enumerate(shards):
                key = train_key + part_name(number)
                if key not in there:
                    self.store.upload(key, chunks)

        # another image or another place in S3 is another job, too
        made_of = fingerprint(data_key, hyperparameters, image, self.store.uri(""), salt)
        return self.jobs.run(
            TRAINING, self.job_name(f"{step}-{made_of}"), request, prepare, self._has_artifact
        )

    def job_name(self, step: str) -> str:
        """Return the name of a job or a model of this run."""
        return f"fmknn-{self.run_id}-{step}"

    def _has_artifact(self, description: Description) -> bool:
        bucket, key = split_uri(artifact_uri(description))
        with translated(f"looking for s3://{bucket}/{key}"):
            # by a list: a refused HEAD has no body that would say why
            found = self.clients["s3"].list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        return any(entry["Key"] == key for entry in found.get("Contents", ()))

    def read_artifact(self, description: Description) -> bytes:
        """Return the model.tar.gz that a training job left."""
        return read_object(self.clients, artifact_uri(description), self.max_bytes)

    def create_model(self, name: str, request: Mapping[str, Any]) -> None:
        """Create a model; one of that name, left by an earlier run of the same, is as good."""
        attempt(
            f"creating model {name}",
            self.clients["sagemaker"].create_model,
            expected=lambda code, message: "already exist" in message,
            ModelName=name,
            **request,
        )

    def delete_model(self, name: str) -> None:
        """Delete a model; that it is gone already is no error."""
        attempt(
            f"deleting model {name}",
            self.clients["sagemaker"].delete_model,
            expected=lambda code, message: "could not find" in message,
            ModelName=name,
        )

    def delete_model_quietly(self, name: str) -> None:
        """Delete a model while another error may be on its way up."""
        try:
            self.delete_model(name)
        except SageMakerError as error:
            logger.warning("model %s is left behind: %s", name, error)

    def cleanup(self, keep: Iterable[str] = ()) -> None:
        """Stop the run's jobs, delete its models and its objects in S3, whoever made them.

        Parameters
        ----------
        keep : iterable of str
            Addresses of objects that stay.
        """
        names = f"fmknn-{self.run_id}-"
        with ExitStack() as steps:  # the last first, and each whatever happens to the others
            steps.callback(self.store.remove, keep)
            steps.callback(self._delete_models, names)
            steps.callback(self.jobs.stop_all, names)

    def _delete_models(self, names: str) -> None:
        for model in listed(self.clients, "list_models", "Models", names):
            self.delete_model(model["ModelName"])


def artifact_uri(description: Description) -> str:
    """Return the address of what a training job left."""
    return str(description["ModelArtifacts"]["S3ModelArtifacts"])
