"""What happens inside a job: data read from S3, an algorithm run, results and logs written."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import numpy as np

from . import fm, hyperparameters, knn, params, transform
from .faults import Faults
from .hyperparameters import ContainerError
from .jobs import Job, StopError
from .logs import LogStream
from .recordio import BadDataError, Rows, frames, read_rows
from .s3io import S3, split_uri

ALGORITHMS = {"factorization-machines": "fm", "knn": "knn"}
RECORDIO = "application/x-recordio-protobuf"
UNREADABLE = (
    "ClientError: Unable to read data channel '{name}'. Requested content-type is '{kind}'. Please "
    "verify the data matches the requested content-type. (caused by {error})"
)
BATCH_METRICS_EVERY = 500


def algorithm_of(image: str) -> str | None:
    """The algorithm of an image location, by its repository's name."""
    return ALGORITHMS.get(image.rpartition("/")[2].partition(":")[0])


class Player:
    """Plays jobs. ``owner`` is the emulator: its ``seed``, ``initial`` and ``speed`` count."""

    def __init__(self, owner: Any, s3: S3, logs: Any, faults: Faults):
        self.owner, self.s3, self.logs, self.faults = owner, s3, logs, faults

    # --- any job

    def _play(self, job: Job, log: LogStream, work: Callable[[], None]) -> None:
        status, secondary, reason = "Completed", None, None
        try:
            try:
                work()
            except StopError as stopped:
                status, secondary = "Stopped", stopped.secondary
                if self.faults.stopped_with_model and job.partial:
                    self._upload(job, job.partial())
        except (ContainerError, BadDataError) as error:
            log.line(str(error), "ERROR")
            status, reason = "Failed", str(error)
        except transform.TransformError as error:
            log.raw(str(error))
            status, reason = "Failed", "ClientError: See job logs for more information"
        except Exception as error:
            traceback.print_exc()  # an accident of the emulator: to be seen in the test's output
            status, reason = "Failed", f"InternalServerError: {type(error).__name__}: {error}"
        log.flush()  # before the end, so that whoever sees the end finds all lines
        job.end(status, secondary if status == "Stopped" else None, reason)

    def _doom(self, job: Job) -> None:
        """Fail if a switch says so."""
        if job.kind in self.faults.failed:
            raise ContainerError(self.faults.failed[job.kind])

    def _delay(self, job: Job) -> None:
        """Take longer, or too long, if a switch says so."""
        if job.kind in self.faults.slow:
            job.linger(self.faults.slow[job.kind])
        if job.kind in self.faults.max_runtime:
            raise StopError("MaxRuntimeExceeded")

    # --- training

    def train(self, job: Job) -> None:
        """Play a training job."""
        stream = f"{job.name}/algo-1-{job.number}"
        log = LogStream(self.logs, "/aws/sagemaker/TrainingJobs", stream)
        image = job.request["AlgorithmSpecification"]["TrainingImage"]
        job.kind = algorithm_of(image) or ""

        def work() -> None:
            wait = self.owner.speed
            job.phase("Starting", wait)
            if not job.kind:
                raise ContainerError(f"ClientError: Cannot pull the image {image}")
            job.phase("Downloading", wait)
            job.phase("Training", wait)
            log.raw("Docker entrypoint called with argument(s): train")
            self._doom(job)
            members = self._fm(job, log) if job.kind == "fm" else self._knn(job, log)
            job.partial = lambda: members
            self._delay(job)
            job.phase("Uploading", wait)
            self._upload(job, members)

        self._play(job, log, work)

    def _upload(self, job: Job, members: dict[str, bytes]) -> None:
        data = params.tar_gz_of(members)
        damage = self.faults.damaged_model.get(job.kind)
        if damage == "cut":
            data = data[: len(data) // 2]
        elif damage == "noise":
            data = data[:20] + bytes(b ^ 0xA5 for b in data[20:])
        elif damage == "empty":
            data = b""
        elif damage == "foreign":
            data = params.tar_gz_of({"model.pkl": b"something else"})
        output = job.request["OutputDataConfig"]
        place = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
        uri, files = f"{place}/model.tar.gz", {f"{place}/model.tar.gz": data}
        if output.get("CompressionType") == "NONE":
            uri, files = f"{place}/model/", {f"{place}/model/{n}": d for n, d in members.items()}
        if job.kind not in self.faults.missing_model:
            try:
                for where, content in files.items():
                    self.s3.write(where, content)
            except botocore.exceptions.ClientError as error:
                raise ContainerError(f"ClientError: Data upload failed: {error}") from None
        job.artifacts = uri

    def _channel(self, job: Job, name: str, kinds: tuple[str, ...]) -> Rows | None:
        for channel in job.request.get("InputDataConfig", []):
            if channel["ChannelName"] != name:
                continue
            kind = channel.get("ContentType", "")
            if kind != RECORDIO:
                raise BadDataError(UNREADABLE.format(name=name, kind=kind, error="ValueError"))
            source = channel["DataSource"]["S3DataSource"]
            objects = self.s3.objects(source["S3Uri"])
            hosts = job.request["ResourceConfig"]["InstanceCount"]
            sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
            if sharded and len(objects) < hosts:
                raise BadDataError(
                    UNREADABLE.format(name=name, kind=kind, error="a host without data")
                )
            payloads = (p for data in objects.values() for _, p in frames(data))
            try:
                return read_rows(payloads, kinds)
            except BadDataError as error:
                text = UNREADABLE.format(name=name, kind=kind, error="MXNetError")
                raise BadDataError(f"{text}\n\nCaused by: {error}") from None
        return None

    def _settings(self, job: Job, allowed: dict, required: tuple, defaults: dict) -> dict:
        given = job.request.get("HyperParameters", {})
        return hyperparameters.read(given, allowed, required, defaults)

    # --- factorization machine

    def _fm(self, job: Job, log: LogStream) -> dict[str, bytes]:
        names = hyperparameters.FM, hyperparameters.FM_REQUIRED, hyperparameters.FM_DEFAULTS
        settings = self._settings(job, *names)
        train = self._channel(job, "train", ("float32_tensor",))
        test = self._channel(job, "test", ("float32_tensor",))
        if train is None:
            raise BadDataError("ClientError: Channel 'train' is required")
        for rows in (train, test):
            self._check_fm(rows, settings)
        values = self.owner.initial or fm.initial_values(settings, self._rng())
        trainer = fm.Trainer(settings, **values)
        job.partial = lambda: self._fm_members(trainer, settings)
        if not train.dense:
            log.line("[Sparse network] Building a sparse network.")
        log.line(f"Create Store: {self._store(job)}")
        self._epochs(job, log, trainer, fm.batches_of(train, settings["mini_batch_size"]))
        log.line("Pulling entire model from kvstore to finalize")
        log.line('Saved checkpoint to "/tmp/tmpgkqaej8c/state-0001.params"')
        if test is not None:
            self._test(job, log, trainer, fm.batches_of(test, settings["mini_batch_size"]))
        if self.faults.nan_weights:
            trainer.V[:] = np.nan
        return self._fm_members(trainer, settings)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.owner.seed)

    @staticmethod
    def _store(job: Job) -> str:
        return "local" if job.request["ResourceConfig"]["InstanceCount"] == 1 else "dist_async"

    @staticmethod
    def _check_fm(rows: Rows | None, settings: dict) -> None:
        if rows is None:
            return
        n, width = settings["feature_dim"], rows.X.shape[1]
        if width != n:
            raise BadDataError(
                f"ClientError: cannot copy sequence with size {width} to array axis with "
                f"dimension {n}"
            )
        if rows.y is None:
            raise BadDataError("ClientError: the records have no labels")
        if settings["predictor_type"] != "regressor" and not np.isin(rows.y, (0, 1)).all():
            raise BadDataError("ClientError: the labels of a binary_classifier must be 0 or 1")

    def _epochs(self, job: Job, log: LogStream, trainer: fm.Trainer, batches: list) -> None:
        epochs = trainer.settings["epochs"]
        for epoch in range(epochs):
            head = f"#quality_metric: host=algo-1, epoch={epoch},"
            for number, metrics in fm.epoch_metrics(trainer, batches):
                if number % BATCH_METRICS_EVERY == 0:
                    for text in _metric_texts(metrics.values()):
                        log.line(f"{head} batch={number} train {text}")
                job.check()
            for text in _metric_texts(metrics.values()):
                log.line(f"{head} train {text}")
            done = 100.0 * (epoch + 1) / epochs
            log.line(f"#progress_metric: host=algo-1, completed {done} % of epochs")
            log.line("#throughput_metric: host=algo-1, train throughput=54648.4 records/second")

    def _test(self, job: Job, log: LogStream, trainer: fm.Trainer, batches: list) -> None:
        scored = fm.metrics_of(trainer.predictions, batches, trainer.regressor).values()
        for name, value in scored.items():
            log.line(f"#test_score (algo-1) : ('{name}', {float(value)!r})")
        for text in _metric_texts(scored):
            log.line(f"#quality_metric: host=algo-1, test {text}")
        final = {"binary_f_1.000": "binary_f_beta"}
        reported = scored if not trainer.regressor else {"rmse": scored["rmse"]}
        job.metrics = {f"test:{final.get(n, n)}": float(v) for n, v in reported.items()}

    @staticmethod
    def _fm_members(trainer: fm.Trainer, settings: dict) -> dict[str, bytes]:
        weights = params.fm_params(trainer.w0[0], trainer.w, trainer.V)
        n, k = trainer.V.shape
        symbol = params.fm_symbol(n, k, settings["predictor_type"] == "regressor")
        return {"model_algo-1": params.zip_of({"symbol.json": symbol, "params": weights})}

    # --- k-NN

    def _knn(self, job: Job, log: LogStream) -> dict[str, bytes]:
        names = hyperparameters.KNN, hyperparameters.KNN_REQUIRED, hyperparameters.KNN_DEFAULTS
        settings = self._settings(job, *names)
        rows = self._channel(job, "train", knn.KINDS)
        if rows is None:
            raise BadDataError("ClientError: Channel 'train' is required")
        try:
            members = knn.train(settings, rows, self._rng())
        except BadDataError as error:
            log.line(str(error), "ERROR")
            raise BadDataError(f"AlgorithmError: {error}") from None
        log.line(f"Create Store: {self._store(job)}")
        log.line("...model saved")
        return members

    # --- batch transform

    def transform(self, job: Job) -> None:
        """Play a transform job."""
        group = "/aws/sagemaker/TransformJobs"
        log = LogStream(self.logs, group, f"{job.name}/i-0123456789abcdef0-{job.number}/data-log")

        def work() -> None:
            job.phase("Starting", self.owner.speed)
            job.started = job.modified
            self._doom(job)
            self._delay(job)
            model = self._load(job)
            uri = job.request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
            objects = list(self.s3.objects(uri).items())
            failed: transform.TransformError | None = None
            for number, (key, data) in enumerate(objects):
                job.check()
                try:
                    out, _ = transform.transform(job.request, model, data, self.faults)
                except transform.TransformError as error:  # the other objects get their answers
                    failed = error
                    continue
                last = number == len(objects) - 1
                spoiled = transform.spoiled(out, number == 0, last, self.faults)
                if spoiled is not None:
                    self.s3.write(transform.out_uri(job.request, key), spoiled.encode())
            if failed:
                raise failed

        self._play(job, log, work)

    def _load(self, job: Job) -> knn.Model:
        container = job.model.get("PrimaryContainer", {})
        if algorithm_of(container.get("Image", "")) != "knn":
            raise transform.TransformError("the emulator transforms with k-NN models only")
        try:
            data = self.s3.read(*split_uri(container["ModelDataUrl"]))
            return knn.Model.of(params.read_tar_gz(data))
        except Exception as error:
            raise transform.TransformError(f"the model cannot be loaded: {error}") from None


def _metric_texts(values: dict[str, float]) -> list[str]:
    """``name <score>=value`` for what is better when higher, ``name <loss>=value`` for the rest."""
    losses = ("binary_classification_cross_entropy", "rmse", "mse", "absolute_loss")
    return [f"{n} <{'loss' if n in losses else 'score'}>={float(v)!r}" for n, v in values.items()]
