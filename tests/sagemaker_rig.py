"""What tests of the SageMaker backend share: an emulator, quick backends, what must not be left."""

from __future__ import annotations

import numpy as np
from sagemaker_emulator import Emulator

import fmknn


def backend_of(emulator: Emulator, **settings) -> fmknn.SageMakerBackend:
    """A backend that asks the emulator, and asks it often."""
    settings = {"poll_seconds": 0.01, "clients": emulator.clients, **settings}
    return fmknn.SageMakerBackend(emulator.role, emulator.bucket, **settings)


def ratings(n_ratings: int = 600, **settings):
    """A few generated ratings, ids only."""
    settings = {
        "n_users": 40,
        "n_items": 30,
        "random_state": 0,
        "user_features": False,
        "item_features": False,
        **settings,
    }
    return fmknn.datasets.make_interactions(n_ratings=n_ratings, **settings)[0]


def estimator(epochs: int = 3, n_factors: int = 4, kind=fmknn.FMRegressor, **settings):
    """SageMaker's rule at rates that move something in a few epochs."""
    settings = {"mini_batch_size": 50, "factors_lr": 0.01, "factors_init_sigma": 0.1, **settings}
    return kind(n_factors, solver=fmknn.Adam.sagemaker(epochs=epochs, **settings), random_state=0)


def start_values(n_features: int, n_factors: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Initial parameters, to be handed to both sides."""
    generator = np.random.default_rng(seed)
    return {
        "w0": np.float32(generator.normal(0, 0.01)),
        "w": generator.normal(0, 0.01, n_features).astype(np.float32),
        "V": generator.normal(0, 0.1, (n_features, n_factors)).astype(np.float32),
    }


class LocalFrom:
    """A backend of this machine whose solver starts from given values."""

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self.values = values

    def solver(self, spec):
        solver = fmknn.Local().solver(spec)
        return _From(solver, self.values)

    def index(self, spec):
        return fmknn.Local().index(spec)


class _From:
    def __init__(self, solver, values) -> None:
        self.solver, self.values = solver, values

    def train(self, design, y, *, start=None, callbacks=()):
        zeros = {
            f"{moment}_{name}": np.zeros(np.shape(self.values[name]) or (1,), np.float32)
            for moment in ("m", "s")
            for name in ("w0", "w", "V")
        }
        state = {
            **zeros,
            "w0": np.array([self.values["w0"]], np.float32),
            "w": self.values["w"],
            "V": self.values["V"],
            "units": np.array([0.0, 1.0]),
            "loss": np.array({"squared": 0, "logistic": 1}[self.solver.spec.loss]),
            "iteration": np.array(0),
            "n_batches": np.array(0),
            "words": np.zeros(4, np.uint32),
        }
        return self.solver.train(design, y, start=state, callbacks=callbacks)


def require_nothing_running(emulator: Emulator) -> None:
    """No orphaned job, no model, no unfinished upload."""
    running = [job for job in emulator.jobs() if job[2] in ("InProgress", "Stopping")]
    assert running == []
    assert emulator.models() == []
    uploads = emulator.s3.list_multipart_uploads(Bucket=emulator.bucket)
    assert uploads.get("Uploads", []) == []


def keys(emulator: Emulator, prefix: str = "") -> list[str]:
    """All objects below a prefix."""
    found = emulator.s3.list_objects_v2(Bucket=emulator.bucket, Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", ())]
