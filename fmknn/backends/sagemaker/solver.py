"""A solver that is a training job: rows go to S3, parameters come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..._random import entropy_words
from ...data.blocks import Design
from ...errors import ModelFileError
from ...model.params import FMParams
from ...solvers.base import Callback, Fit, SolverSpec, Start
from .artifact import read_artifact
from .hyperparameters import fm_hyperparameters
from .jobs import TRAINING, Description
from .logs import JobLog, training_history
from .recordio import encode_sparse
from .run import Run, artifact_uri, fingerprint

__all__ = ["SageMakerSolver", "require_shape"]

_CHUNK = 1 << 16  # rows that are expanded and encoded at a time


class SageMakerSolver:
    """Trains an FM as a SageMaker training job.

    Parameters
    ----------
    run : Run
    spec : SolverSpec
        Its config is an :class:`fmknn.Adam` by SageMaker's rule.

    Raises
    ------
    ValueError
        If SageMaker can't train what is asked.
    """

    def __init__(self, run: Run, spec: SolverSpec) -> None:
        self.run, self.spec = run, spec
        self._hyperparameters(1)  # refused before the data is looked at

    def _hyperparameters(self, n_features: int) -> dict[str, str]:
        spec = self.spec
        return fm_hyperparameters(
            spec.config, loss=spec.loss, n_factors=spec.n_factors, n_features=n_features
        )

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Start | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch; see :class:`fmknn.solvers.base.Solver`.

        Rows go out in their order, expanded to one sparse vector each. ``history`` has the
        metrics of each epoch where the job's log can be read, with an equal share of the job's
        seconds, and else one entry for all. ``state`` is empty: nothing can go on from it.

        Raises
        ------
        ValueError
            For row weights, callbacks or a start, which SageMaker does not take.
        SageMakerError
            If the job did not complete; its subclasses say how.
        DivergenceError
            If the trained parameters are NaN or infinite.
        """
        if start is not None:
            raise ValueError("SageMaker's training can't go on from a checkpoint: leave start out")
        if callbacks:
            raise ValueError(
                "SageMaker calls nothing back between epochs: leave callbacks out, or train on "
                "this machine (backend=Local())"
            )
        if design.weights is not None:
            raise ValueError(
                "SageMaker's factorization machines know no row weights: leave them out, or train "
                "on this machine (backend=Local())"
            )
        hyperparameters = self._hyperparameters(design.n_features)
        n_instances = self.run.resources.instance_count
        if design.n_rows < n_instances:
            raise ValueError(f"{design.n_rows} rows can't be shared by {n_instances} instances")
        seed = self.spec.random_state
        data = fingerprint(
            design.n_features,
            design.index,
            design.entities.indptr,
            design.entities.indices,
            design.entities.values,
            y,
            n_instances,
        )
        description = self.run.train(
            "fm",
            "factorization-machines",
            hyperparameters,
            f"fm-{data}",
            _shards(design, y, n_instances),
            n_instances,
            # SageMaker has no seed: another random_state is another training all the same
            salt=None if seed is None else entropy_words(seed).tolist(),
        )
        where = artifact_uri(description)
        archive = self.run.read_artifact(description)
        params = read_artifact(archive, max_bytes=self.run.max_bytes, where=where).params
        require_shape(params, design.n_features, self.spec.n_factors, where)
        return Fit(params, self._history(description), {}, int(self.spec.config.epochs))

    def _history(self, description: Description) -> tuple[dict[str, float], ...]:
        """Return the log's metrics by epoch, or one entry for all where it does not tell them."""
        n_epochs, seconds = int(self.spec.config.epochs), _seconds(description)
        name = str(description["TrainingJobName"])
        for _ in range(2):  # CloudWatch may lag behind
            log = JobLog(self.run.clients, TRAINING.log_group, name)
            told = training_history(log.new_lines())
            if len(told) == n_epochs:
                return tuple({**_metrics(entry), "seconds": seconds / n_epochs} for entry in told)
            if not told:
                break
            time.sleep(self.run.jobs.poll_seconds)
        return ({"iteration": n_epochs, "seconds": seconds},)


def _metrics(entry: dict[str, float]) -> dict[str, float]:
    """Return the log's metrics under the names of the solvers of this package."""
    metrics = {"iteration": entry["iteration"]}
    if "mse" in entry:
        metrics["loss"] = entry["mse"] / 2
    for logged, ours in (
        ("binary_classification_cross_entropy", "loss"),
        ("binary_classification_accuracy", "accuracy"),
        ("rmse", "train_rmse"),
    ):
        if logged in entry:
            metrics[ours] = entry[logged]
    return metrics


def require_shape(params: FMParams, n_features: int, n_factors: int, where: str) -> None:
    """Refuse a model that is not of the columns and factors that were asked for.

    Raises
    ------
    ModelFileError
    """
    if (params.n_features, params.n_factors) != (n_features, n_factors):
        raise ModelFileError(
            f"{where} has {params.n_features} features and {params.n_factors} factors, expected "
            f"{n_features} and {n_factors}: is it the model of other data?"
        )


def _shards(design: Design, y: np.ndarray, n_shards: int) -> Iterator[Iterator[bytes]]:
    """Cut the rows into as many runs of them as there are instances."""
    bounds = np.linspace(0, design.n_rows, n_shards + 1).astype(np.int64)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield _encoded(design, y, start, stop)


def _encoded(design: Design, y: np.ndarray, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, _CHUNK):
        end = min(at + _CHUNK, stop)
        yield encode_sparse(design.expand(at, end), y[at:end])


def _seconds(description: Any) -> float:
    began, ended = description.get("TrainingStartTime"), description.get("TrainingEndTime")
    return float((ended - began).total_seconds()) if began and ended else float("nan")
