"""Every example runs by itself, in a folder of its own, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import realdata

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROMISES = {
    "batch_to_json_lines.py": ["10,000 users in", "chunk 3: 2500 users, 50,000 recommendations"],
    "classical_one_hot.py": [
        "X: 100000 x 2625, 200000 ones",
        "item matrix (1682, 9), user matrix (943, 9)",
        "same item in 100.00% of 94,300 places",
    ],
    "features_and_context.py": ["601 users, 300 items", "user 7 on Monday", "somebody unknown"],
    "sagemaker_topn.py": ["100 films for each of 943 users", " 1. Casablanca", "Schindler's List"],
    "next_purchases.py": ["popularity", "FMRanker", "customer 2: product", "somebody new: product"],
    "nightly_batch.py": ["778 customers: 15560 rows in 2 chunks", "customer1@example.com: product"],
    "quickstart.py": ["rmse", "user 196", "user 22", "saved and loaded"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    if "load_movielens" in path.read_text(encoding="utf-8"):
        realdata.movielens()
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search_path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    for promise in PROMISES[path.name]:
        assert promise in run.stdout
    assert run.stderr == ""


def test_every_example_promises_something():
    assert sorted(PROMISES) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
