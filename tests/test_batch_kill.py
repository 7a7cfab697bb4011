"""kill -9 at any moment of a batch run, then --resume: the rows of a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_rig import Lite, Parquet, rows_of

import fmknn
from fmknn.cli import main

ROOT = Path(__file__).parent.parent
N, MOMENTS = 20, 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of 400 users, its file, and the rows of two runs."""
    drawn = fmknn.datasets.make_interactions(
        400, 60, 8000, random_state=0, return_truth=False
    ).without_features()
    model = fmknn.Recommender(fmknn.FMRegressor(4, n_iter=1, random_state=0)).fit(drawn)
    path = tmp_path_factory.mktemp("model") / "m.fmknn"
    model.save(path)
    return path, rows_of(model, N), rows_of(model, 3)


class Job:
    """``fmknn recommend --all`` as a process, from the moment on that it begins to write."""

    def __init__(self, argv, trace):
        search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fmknn", *argv],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": search_path},
        )
        while not trace.exists() and self.process.poll() is None:
            time.sleep(0.001)
        self.began = time.monotonic()

    def seconds(self):
        """Wait for its end, and return how long it took to write."""
        self.process.stderr.read()
        taken = time.monotonic() - self.began
        assert self.process.wait() == 0
        return taken

    def kill(self, after):
        """Kill it, and return whether it was still there."""
        time.sleep(max(0.0, self.began + after - time.monotonic()))
        self.process.kill()
        self.process.stderr.read()
        return self.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "place, trace",
    [(Parquet(), "recs.parquet.unfinished"), (Lite(), "recs.db-wal")],
    ids=["Parquet", "SQLite"],
)
def test_killed_at_random_moments_and_resumed(tmp_path, saved, place, trace):
    path, expected, before = saved
    job = ["recommend", str(path), "--all", "--chunk", "16", "--to"]

    def argv(folder, n=N):
        return [*job, str(folder / place.name), "-n", str(n)]

    (tmp_path / "alone").mkdir()
    assert main(argv(tmp_path / "alone", 3)) == 0
    length = Job(argv(tmp_path / "alone"), tmp_path / "alone" / trace).seconds()
    assert place.rows(tmp_path / "alone") == expected

    chance, killed = random.Random(place.name), 0
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        assert main(argv(folder, 3)) == 0
        killed += Job(argv(folder), folder / trace).kill(chance.uniform(0, length))
        if moment % 4 == 0:  # the one that goes on is not safe either
            Job([*argv(folder), "--resume"], folder / trace).kill(chance.uniform(0, length))
        # whoever reads now sees a complete run; between two folders' names there is none
        assert place.rows(folder) in (before, expected, None)
        assert main([*argv(folder), "--resume"]) == 0
        assert place.rows(folder) == expected
        left = {name.removesuffix("-wal").removesuffix("-shm") for name in os.listdir(folder)}
        assert left == {place.name}
    assert killed > MOMENTS // 2
