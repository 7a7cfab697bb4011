"""Models that SageMaker trained, by whomever: their archive, and the ids of their columns."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..._checks import require_count
from ...data.ids import as_ids
from ...errors import JobFailedError, JobStoppedError, ModelFileError, SageMakerError
from ...model.params import FMParams
from .artifact import read_artifact
from .clients import Clients
from .jobs import TRAINING, Jobs
from .run import artifact_uri
from .s3 import read_object
from .solver import require_shape

__all__ = ["SageMakerModel", "load_sagemaker_model"]

_JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_LOSSES = {"regressor": "squared", "binary_classifier": "logistic"}


@dataclass(frozen=True)
class SageMakerModel:
    """A factorization machine that SageMaker trained.

    Attributes
    ----------
    params : FMParams
    loss : {"squared", "logistic"} or None
        None where neither the archive nor the job tells.
    columns : dict of str to slice
        The feature columns of each block.
    ids : dict of str to ndarray
        The ids of the blocks that were given with ids, one per column, in their order.
    """

    params: FMParams
    loss: str | None
    columns: dict[str, slice]
    ids: dict[str, np.ndarray]


def load_sagemaker_model(
    source: Any,
    *,
    blocks: Mapping[str, Any] | None = None,
    session: Any = None,
    region: str | None = None,
    clients: Mapping[str, Any] | None = None,
    max_bytes: int = 4 * 2**30,
) -> SageMakerModel:
    """Read a factorization machine that SageMaker trained; neither MXNet nor its SDK is needed.

    Parameters
    ----------
    source : path, s3:// address, or name of a training job
        A path is that of the job's model.tar.gz, or of what is in it: model_algo-1 or params.
    blocks : mapping of str to ids, int or slice, optional
        What the columns stand for, in their order: the ids of a block ({"user": user_ids,
        "item": item_ids}) or their number, each behind the one before; a slice says where. Every
        column is named once. The archive itself says nothing about this.
    session, region, clients
        As for :class:`fmknn.SageMakerBackend`, where the source is in AWS.
    max_bytes : int
        The largest archive, and the largest content, that is read into memory.

    Returns
    -------
    SageMakerModel
        ``params`` has the numbers, ``columns`` and ``ids`` what was said of the blocks.

    Raises
    ------
    FileNotFoundError
        If there is neither such a file nor could it be the name of a job.
    ModelFileError
        If the archive is damaged, or not of a factorization machine, or of other blocks.
    DivergenceError
        If its parameters are NaN or infinite: the training diverged.
    JobFailedError, SageMakerError
        If the job did not complete, or AWS can't be asked.

    Examples
    --------
    >>> import tempfile
    >>> import fmknn
    >>> from fmknn.backends.sagemaker.artifact import write_artifact
    >>> params = fmknn.FMParams(3.5, [0.1, 0.2, 0.3], [[1.0], [2.0], [3.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_artifact(f"{folder}/model.tar.gz", params, "squared")
    ...     blocks = {"user": ["ann"], "item": [50, 22]}
    ...     model = load_sagemaker_model(f"{folder}/model.tar.gz", blocks=blocks)
    >>> fmknn.item_matrix(model.params, model.columns["item"])
    array([[2. , 0.2],
           [3. , 0.3]], dtype=float32)
    >>> top = fmknn.Recommender.from_params(
    ...     model.params, users=model.ids["user"], items=model.ids["item"], loss=model.loss
    ... )
    >>> top.recommend(["ann"], n=1).items
    array([[22]])
    """
    loss: str | None = None
    shape: tuple[int, int] | None = None
    where = str(source)
    if isinstance(source, os.PathLike) or (isinstance(source, str) and os.path.exists(source)):
        artifact = read_artifact(Path(source), max_bytes=max_bytes)
    elif isinstance(source, str):
        reach = Clients(session, region, clients)
        if not source.startswith("s3://"):
            where, loss, shape = _of_job(reach, source)
        data = read_object(reach, where, max_bytes)
        artifact = read_artifact(data, max_bytes=max_bytes, where=where)
    else:
        raise TypeError(f"source must be a path, an s3:// address or a job's name, got {source!r}")
    if shape is not None:
        require_shape(artifact.params, *shape, where)
    columns, ids = _layout(blocks or {}, artifact.params.n_features, where)
    return SageMakerModel(artifact.params, loss or artifact.loss, columns, ids)


def _of_job(clients: Clients, name: str) -> tuple[str, str | None, tuple[int, int]]:
    """Return where a job's archive is, its loss, and its numbers of features and factors."""
    if not _JOB_NAME.fullmatch(name):
        raise FileNotFoundError(2, "no such file, and no name of a training job", name)
    jobs = Jobs(clients, poll_seconds=1.0, deadline=None, progress=False)
    description = jobs.describe(TRAINING, name)
    if description is None:
        raise SageMakerError(f"there is no training job {name}, and no such file: check the name")
    status = description["TrainingJobStatus"]
    if status != "Completed":
        reason = " ".join(str(description.get("FailureReason", "")).split())
        kinds = {"Failed": JobFailedError, "Stopped": JobStoppedError}
        raise kinds.get(status, SageMakerError)(
            f"training job {name} is {status}{': ' + reason if reason else ''}: only a completed "
            "one has a model"
        )
    settings = description.get("HyperParameters", {})
    try:
        shape = int(settings["feature_dim"]), int(settings["num_factors"])
    except (KeyError, ValueError):
        raise ModelFileError(f"training job {name} is none of factorization machines") from None
    return artifact_uri(description), _LOSSES.get(settings.get("predictor_type", "")), shape


def _layout(
    blocks: Mapping[str, Any], n_features: int, where: str
) -> tuple[dict[str, slice], dict[str, np.ndarray]]:
    columns: dict[str, slice] = {}
    ids: dict[str, np.ndarray] = {}
    owners = np.zeros(n_features, np.int64)
    at = 0
    for name, block in blocks.items():
        if isinstance(block, slice):
            start, stop, step = block.indices(n_features)
            if step != 1 or stop <= start:
                raise ValueError(f"block {name!r} has no columns within 0..{n_features - 1}")
        else:
            if isinstance(block, (int, np.integer)) and not isinstance(block, bool):
                size = require_count(f"the size of block {name!r}", block)
            else:
                ids[name] = as_ids(block, name)
                size = len(ids[name])
                if len(np.unique(ids[name])) < size:
                    raise ValueError(f"block {name!r} repeats an id: give one id per column")
            start, stop = at, at + size
        columns[name] = slice(start, stop)
        owners[start:stop] += 1
        at = stop
    if at > n_features or (blocks and (owners != 1).any()):
        named = sum(part.stop - part.start for part in columns.values())
        raise ModelFileError(
            f"{where} has {n_features} features, the blocks name {named}: "
            "name each column once, in their order"
        )
    return columns, ids
