"""The benchmarks run from a clean checkout, without their peers; one needs MovieLens 100K."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from realdata import movielens

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["bench_first_call.py", "bench_fm_solvers.py", "bench_recordio.py", "bench_train.py"],
)
def test_quick_run(name, tmp_path):
    if name == "bench_fm_solvers.py":
        movielens("100k")  # skips where it can't be had
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), "--quick", "--json", "out.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "numba" in run.stdout
    assert json.loads((tmp_path / "out.json").read_text())
