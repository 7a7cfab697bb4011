"""SageMakerBackend: train on Amazon SageMaker, search here or there, behind the same interface."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..._checks import require_count
from ...index.base import Index
from ...solvers.base import SolverSpec
from ..base import Local
from .clients import Clients
from .hyperparameters import require_index_type
from .images import ALGORITHMS, image_uri
from .jobs import Jobs, NextJob
from .knn import SageMakerIndex
from .requests import (
    RUN_TAG,
    Resources,
    require_bucket,
    require_instance_type,
    require_role,
    require_tags,
    require_vpc_config,
)
from .run import Run, require_run_id
from .s3 import Store
from .solver import SageMakerSolver
from .state_machine import state_machine

__all__ = ["SageMakerBackend"]

_LONGEST_RUNTIME = 28 * 24 * 3600  # seconds, as SageMaker allows
_LONGEST_PREFIX = 512  # S3's keys have up to 1024 bytes, and a run's own need their part
_NAMES = {"exact": "faiss.Flat", "flat": "faiss.Flat", "ivf": "faiss.IVFFlat"}


class SageMakerBackend:
    """Runs training, and if wanted search, as jobs of Amazon SageMaker's built-in algorithms.

    The estimator needs ``solver=fmknn.Adam.sagemaker(…)``, SageMaker's own rule: with another one
    it is refused. A backend object is one run: the same data and settings under the same
    ``run_id`` pick up the job that is running or done, in this process or in a later one.

    Parameters
    ----------
    role : str
        ARN of the role that the jobs take on; it reads and writes the bucket.
    bucket : str
        S3 bucket, in the same region.
    prefix : str
        Everything goes below s3://bucket/prefix/run_id/.
    region : str, optional
        Default: that of the session.
    instance_type : str
        Of all jobs, like ml.m5.large. The data are sparse: an instance without GPU is right.
    instance_count : int
        Instances of the FM's training, each with its share of the rows, and of batch transforms.
        With more than one, the result is not reproducible: they update the model asynchronously.
    search : {"local", "sagemaker"}
        "local" searches on this machine: exact, filtered, no further job. "sagemaker" runs a
        k-NN training job and a batch transform, some minutes each, for every call that recommends
        (``recommend_all`` and ``evaluate`` make one call for a million users).
    index_type : {"faiss.Flat", "faiss.IVFFlat"}, optional
        Of the search on SageMaker; default: Flat, or IVFFlat where the Recommender says "ivf".
    nlists : int, optional
        Cells of faiss.IVFFlat.
    session : boto3.Session, optional
    clients : mapping of str to boto3 client, optional
        Instead of those that the session makes: "s3", "sagemaker", "logs". One that is not given
        is made by the session.
    run_id : str, optional
        1 to 32 letters, digits and hyphens; default: the time and a random number.
    image_uri : mapping of str to str, optional
        Addresses of the images of "factorization-machines" and "knn", where the region is not in
        the table.
    max_runtime : int
        Seconds after which SageMaker stops a training job.
    deadline : float, optional
        Seconds to wait for a job; then it is stopped, also if another process has started it.
        None: as long as it takes.
    poll_seconds : float
        Between two looks at a job.
    volume_size_gb : int
        Disk of an instance; the training rows must fit.
    max_k : int
        The most neighbours per query that SageMaker is asked for; queries that need more (the
        list and what the user has seen) are searched on this machine.
    max_payload_mb : int
        Size of a request of a batch transform, 1 to 100.
    tags : mapping of str to str, optional
        Put, beside our own, on everything that is created.
    kms_key : str, optional
        Key for what is stored.
    vpc_config : mapping, optional
        SageMaker's VpcConfig: SecurityGroupIds and Subnets.
    max_bytes : int
        The largest object that is read back into memory.
    progress : bool
        Show the status of jobs in a progress line.

    Attributes
    ----------
    run_id, bucket, search : str
        As given, or chosen.
    run : Run
        Clients, storage and jobs behind it.

    Raises
    ------
    ValueError
        For a setting that SageMaker would refuse.

    Notes
    -----
    Nothing is sent before the first fit. SageMaker has no seed: ``random_state`` only tells one
    training from another under one run id. Row weights, callbacks and a start from a checkpoint
    are refused, and ``state_`` is empty. The jobs need boto3 (``pip install
    'fmknn[sagemaker]'``); README, "SageMaker", has the rights that you and the role need.

    Examples
    --------
    >>> backend = SageMakerBackend(
    ...     "arn:aws:iam::123456789012:role/service-role/Train", "my-bucket", run_id="monday"
    ... )
    >>> backend
    SageMakerBackend(bucket='my-bucket', run_id='monday', search='local')
    >>> import fmknn
    >>> estimator = fmknn.FMRegressor(n_factors=64, solver=fmknn.Adam.sagemaker(epochs=30))
    >>> model = fmknn.Recommender(estimator, backend=backend)

    ``with backend: model.fit(ratings)`` then trains there, and removes what it made.
    """

    def __init__(
        self,
        role: str,
        bucket: str,
        *,
        prefix: str = "fmknn",
        region: str | None = None,
        instance_type: str = "ml.m5.large",
        instance_count: int = 1,
        search: str = "local",
        index_type: str | None = None,
        nlists: int | None = None,
        session: Any = None,
        clients: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        image_uri: Mapping[str, str] | None = None,
        max_runtime: int = 24 * 3600,
        deadline: float | None = None,
        poll_seconds: float = 15.0,
        volume_size_gb: int = 30,
        max_k: int = 1024,
        max_payload_mb: int = 1,
        tags: Mapping[str, str] | None = None,
        kms_key: str | None = None,
        vpc_config: Mapping[str, Any] | None = None,
        max_bytes: int = 4 * 2**30,
        progress: bool = False,
    ) -> None:
        if search not in ("local", "sagemaker"):
            raise ValueError(f"search must be 'local' or 'sagemaker', got {search!r}")
        if index_type is not None or nlists is not None:
            require_index_type(index_type or "faiss.IVFFlat", nlists)
            if search == "local":
                raise ValueError("index_type and nlists are of search='sagemaker'")
        _require_seconds("poll_seconds", poll_seconds)
        if deadline is not None:
            _require_seconds("deadline", deadline)
        if require_count("max_runtime", max_runtime) > _LONGEST_RUNTIME:
            raise ValueError(f"max_runtime must be at most {_LONGEST_RUNTIME}, got {max_runtime}")
        if not isinstance(kms_key, (str, type(None))):
            raise ValueError(f"kms_key must be the id or ARN of a key, got {kms_key!r}")
        if require_count("max_payload_mb", max_payload_mb) > 100:
            raise ValueError(f"max_payload_mb must be at most 100, got {max_payload_mb}")
        for name, uri in dict(image_uri or {}).items():
            if name not in ALGORITHMS or not isinstance(uri, str) or not uri:
                raise ValueError(
                    f"image_uri maps {' and '.join(ALGORITHMS)} to addresses, got {name!r}: {uri!r}"
                )
        self.run_id = require_run_id(_new_run_id() if run_id is None else run_id)
        self.bucket = require_bucket(bucket)
        self.search = search
        self.index_type, self.nlists = index_type, nlists
        self.max_k = require_count("max_k", max_k)
        self.max_payload_mb = max_payload_mb
        self._images = dict(image_uri or {})
        self._clients = Clients(session, region, clients)
        all_tags = {**require_tags({} if tags is None else tags), RUN_TAG: self.run_id}
        resources = Resources(
            role=require_role(role),
            instance_type=require_instance_type(instance_type),
            instance_count=require_count("instance_count", instance_count),
            volume_size_gb=require_count("volume_size_gb", volume_size_gb),
            max_runtime=int(max_runtime),
            tags=all_tags,
            kms_key=kms_key,
            vpc_config=require_vpc_config(vpc_config),
        )
        place = "/".join([*_checked_prefix(prefix), self.run_id])
        self.run = Run(
            self.run_id,
            self._clients,
            Store(self._clients, self.bucket, place, all_tags, kms_key),
            resources,
            Jobs(self._clients, poll_seconds=poll_seconds, deadline=deadline, progress=progress),
            self._image,
            require_count("max_bytes", max_bytes),
        )

    def __repr__(self) -> str:
        return (
            f"SageMakerBackend(bucket={self.bucket!r}, run_id={self.run_id!r}, "
            f"search={self.search!r})"
        )

    def __enter__(self) -> SageMakerBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def _image(self, algorithm: str) -> str:
        return self._images.get(algorithm) or image_uri(algorithm, self._clients.region)

    def solver(self, spec: SolverSpec) -> SageMakerSolver:
        """Return the solver for what an estimator asks: a training job.

        Raises
        ------
        ValueError
            For what SageMaker can't train: another solver than Adam by SageMaker's rule.
        """
        return SageMakerSolver(self.run, spec)

    def index(self, spec: str | Index) -> Index:
        """Return the index, still empty, for a short name or an index object.

        Parameters
        ----------
        spec : {"exact", "flat", "ivf"} or Index
            An index object is taken as it is, and searches where it is.

        Returns
        -------
        Index
            One of this machine under search="local", else a :class:`SageMakerIndex`.

        Raises
        ------
        ValueError, TypeError
            For another name, or what is no index.
        """
        local = Local().index(spec)  # refuses what is neither a name nor an index
        if self.search == "local" or not isinstance(spec, str):
            return local
        if spec == "ivf" and self.index_type == "faiss.Flat":
            raise ValueError("index='ivf' and index_type='faiss.Flat' contradict each other")
        return SageMakerIndex(
            self.run,
            index_type=self.index_type or _NAMES[spec],
            nlists=self.nlists,
            max_k=self.max_k,
            max_payload_mb=self.max_payload_mb,
        )

    def next_job(self, work: Callable[[], Any]) -> NextJob | None:
        """Run something as far as the jobs that are done allow it.

        For a scheduler that creates jobs and waits for them by itself, AWS Step Functions for
        instance: run this, create the job that it names, and run it again when that is done. The
        same ``run_id`` finds all that was done before.

        Parameters
        ----------
        work : callable
            Fits and searches with this backend.

        Returns
        -------
        NextJob or None
            The job that is wanted next, its input being in place; None when the work is done.

        Raises
        ------
        Whatever the work raises.
        """
        jobs = self.run.jobs
        jobs.plan = True
        try:
            work()
        except NextJob as wanted:
            return wanted
        finally:
            jobs.plan = False
        return None

    def state_machine(
        self,
        *,
        command: Sequence[str],
        job_queue: str,
        job_definition: str,
        timeout_seconds: int = 7 * 24 * 3600,
    ) -> dict[str, Any]:
        """Return a definition for AWS Step Functions that does the work, time after time.

        A small loop: an AWS Batch job runs the command as far as the jobs that are done allow it
        (:meth:`next_job`); Step Functions creates the job that it names and waits for it; and so
        on. Every execution is a run of its own, below the backend's prefix.

        Parameters
        ----------
        command : sequence of str
            The command line in the container, without --run-id and --next, which are added. Its
            settings are to be those of the backend.
        job_queue, job_definition : str
            Names or ARNs of AWS Batch; the definition's image has fmknn in it.
        timeout_seconds : int
            Of an execution.

        Returns
        -------
        dict
            To be written as JSON; the same for the same settings.

        Raises
        ------
        ValueError, TypeError
            For a command that can't work, or a number out of range.

        Notes
        -----
        The definition passes the Amazon States Language's linter, and an interpreter of the
        language executes it in the tests, against an emulator of SageMaker. It was never run on
        AWS.

        Examples
        --------
        >>> role = "arn:aws:iam::123456789012:role/service-role/Train"
        >>> definition = SageMakerBackend(role, "my-bucket").state_machine(
        ...     command=[
        ...         *("fmknn", "sagemaker", "s3://my-bucket/ratings.csv", "--role", role),
        ...         *("--bucket", "my-bucket", "--to", "s3://my-bucket/recommendations.jsonl"),
        ...     ],
        ...     job_queue="nightly",
        ...     job_definition="fmknn",
        ... )
        >>> print(*definition["States"])
        Begin Step ReadNext Choose Train Transform DeleteModel Done Failed
        """
        return state_machine(
            self.run.resources,
            self.run.store.uri("").removesuffix(f"{self.run_id}/"),
            command=command,
            job_queue=job_queue,
            job_definition=job_definition,
            timeout_seconds=timeout_seconds,
        )

    def cleanup(self, keep: Iterable[str] = ()) -> None:
        """Remove what this run created, in whatever process: jobs that run, models, objects in S3.

        Jobs that have ended stay in SageMaker's lists, which cost nothing. Models trained by this
        run, in memory or saved by :meth:`fmknn.Recommender.save`, are not affected.

        Parameters
        ----------
        keep : iterable of str
            Addresses (s3://…) of objects of the run that stay.

        Raises
        ------
        SageMakerError
            If something could not be removed.
        """
        self.run.cleanup(keep)


def _new_run_id() -> str:
    now = datetime.now(timezone.utc)
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _require_seconds(name: str, seconds: Any) -> None:
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0, got {seconds!r}")


def _checked_prefix(prefix: Any) -> list[str]:
    parts = prefix.strip("/").split("/") if isinstance(prefix, str) else [""]
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    named = all(parts) and all(set(part) <= allowed for part in parts)
    if not named or len(prefix) > _LONGEST_PREFIX:
        raise ValueError(
            f"prefix must be letters, digits and -_. between slashes, at most {_LONGEST_PREFIX} "
            f"in all, got {prefix!r}"
        )
    return parts
