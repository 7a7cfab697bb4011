"""Trials: a fitted recommender meets a fault on AWS, and is as it was or comes to its end.

Fixtures here are imported by the test files that ask for them.
"""

from __future__ import annotations

import itertools
import signal
import time
import types

import numpy as np
import pytest
from refusals import refused
from sagemaker_emulator import Emulator
from sagemaker_rig import backend_of, estimator, keys, ratings, require_nothing_running

import fmknn
from fmknn.backends.sagemaker import jobs as jobs_module

STAGES = ("fm", "knn", "transform")
FOR_EVER = 10**6
DATA = ratings(150, n_users=20, n_items=15)
RUN_IDS = (f"f{number}" for number in itertools.count())
WAS_CREATED = "after-call.sagemaker."  # boto3's event once a call has been answered

each_stage = pytest.mark.parametrize("stage", STAGES)


def job_of(stage: str) -> str:
    """ "TrainingJob" or "TransformJob", as operations are called."""
    return "TransformJob" if stage == "transform" else "TrainingJob"


def kind_of(stage: str) -> str:
    """ "training job" or "transform job", as messages say."""
    return "transform job" if stage == "transform" else "training job"


def on_this_machine(index="exact") -> fmknn.Recommender:
    return fmknn.Recommender(estimator(epochs=1, factors_lr=0.05), index=index).fit(DATA)


def lists(model: fmknn.Recommender):
    return model.recommend(model.users.ids, 5)


def switch(emulator, **faults) -> None:
    for name, value in faults.items():
        assert hasattr(emulator.faults, name)
        setattr(emulator.faults, name, value)


def settle(emulator) -> None:
    """A job that was told to stop takes a moment."""
    until = time.monotonic() + 10
    while time.monotonic() < until and any(status == "Stopping" for *_, status in emulator.jobs()):
        time.sleep(0.005)


def spoil_sleep(monkeypatch, action) -> None:
    """Do something else where the backend waits for its next look at a job."""
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: action())
    monkeypatch.setattr(jobs_module, "time", clock)


def interrupt(*_) -> None:
    # a shell starts what runs in the background with this signal ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


class Trial:
    """A fitted recommender that trains anew ("fm") or searches ("knn", "transform") on AWS."""

    def __init__(self, emulator, stage: str, expected=None, **settings) -> None:
        self.emulator, self.stage, self.expected = emulator, stage, expected
        self.settings = {"run_id": next(RUN_IDS), **settings}
        self.run_id = self.settings["run_id"]
        self.backend = backend_of(emulator, **self.settings, search="sagemaker")
        self.model = on_this_machine("exact" if stage == "fm" else self.backend.index("exact"))
        self.state = self.state_now()

    def state_now(self):
        model = self.model
        parts = [model.params_.w0, model.params_.w.tobytes(), model.params_.V.tobytes()]
        parts += [model.index_.vectors.tobytes(), id(model.estimator_), id(model.index_)]
        return parts + ([lists(model).items.tobytes()] if self.stage == "fm" else [])

    def run(self):
        if self.stage == "fm":
            self.model.backend = self.backend
            return self.model.fit(DATA)
        return lists(self.model)

    def require_unharmed(self) -> None:
        settle(self.emulator)
        require_nothing_running(self.emulator)
        assert self.state_now() == self.state

    def fails(self, error, *words) -> str:
        with refused(error, *words) as caught:
            self.run()
        assert caught.type is error
        self.require_unharmed()
        return str(caught.value)

    def succeeds(self) -> None:
        """The run comes to its end, is right, and can be removed without a trace."""
        result = self.run()
        if self.stage == "fm":
            assert np.isfinite(self.model.params_.V).all()
            assert self.state_now() != self.state
        else:
            assert (result.items == self.expected.items).all()
            assert (result.counts == self.expected.counts).all()
            np.testing.assert_allclose(result.scores, self.expected.scores, atol=1e-5)
        self.leaves_nothing()

    def leaves_nothing(self) -> None:
        settle(self.emulator)
        require_nothing_running(self.emulator)
        self.backend.cleanup()
        assert self.objects() == []

    def recovers(self) -> None:
        """Without the fault, the same run id does it: as another process would."""
        self.emulator.faults.clear()
        self.backend = backend_of(self.emulator, **self.settings, search="sagemaker")
        if self.stage != "fm":
            self.model.index_ = self.backend.index("exact").build(self.model.index_.vectors)
        self.succeeds()

    def objects(self) -> list[str]:
        return keys(self.emulator, f"fmknn/{self.run_id}/")

    def jobs(self) -> list[tuple[str, str]]:
        """(name, status) of the jobs of this trial's own stage."""
        start = "users" if self.stage == "transform" else self.stage
        start = f"fmknn-{self.run_id}-{start}-"
        return [(name, status) for _, name, status in self.emulator.jobs() if start in name]

    def statuses(self) -> list[str]:
        return [status for _, status in self.jobs()]

    def place(self) -> str:
        """The address of everything of this run."""
        return f"s3://{self.emulator.bucket}/fmknn/{self.run_id}/"


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server, monkeypatch):
    # boto3's pauses between attempts are not what is tested
    monkeypatch.setattr("botocore.endpoint.time", types.SimpleNamespace(sleep=lambda _: None))
    server.faults.clear()
    yield server
    server.faults.clear()
    settle(server)
    require_nothing_running(server)


@pytest.fixture(scope="module")
def expected(server):
    """The lists of an exhaustive search on this machine, over the model that every trial has."""
    return lists(on_this_machine())


@pytest.fixture
def trial(emulator, expected):
    return lambda stage, **settings: Trial(emulator, stage, expected, **settings)


@pytest.fixture
def when(emulator):
    """Do something once, when a client's event comes: ``when("sagemaker", event, action)``."""
    registered = []

    def register(service: str, event: str, action) -> None:
        done = []

        def handler(**given) -> None:
            if not done:
                done.append(True)
                action(given)

        events = emulator.clients[service].meta.events
        events.register(event, handler)
        registered.append((events, event, handler))

    yield register
    for events, event, handler in registered:
        events.unregister(event, handler)


@pytest.fixture
def once_created(emulator, when):
    """Switch faults on as soon as a job of this stage has been created."""

    def switch_on(stage: str, **faults) -> None:
        def action(_) -> None:
            switch(emulator, **faults)

        when("sagemaker", f"{WAS_CREATED}Create{job_of(stage)}", action)

    return switch_on


@pytest.fixture
def before_uploads(emulator, once_created):
    """Switch faults on before this stage's first upload: a transform's follows the training."""

    def switch_on(stage: str, **faults) -> None:
        if stage == "transform":
            once_created("knn", **faults)
        else:
            switch(emulator, **faults)

    return switch_on
