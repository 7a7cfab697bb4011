"""Every example runs by itself, in a folder of its own, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import realdata
import spark_rig

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
JVM = {"spark_topn.py"}
PROMISES = {
    "batch_to_json_lines.py": ["10,000 users in", "chunk 3: 2500 users, 50,000 recommendations"],
    "classical_one_hot.py": [
        "X: 100000 x 2625, 200000 ones",
        "item matrix (1682, 9), user matrix (943, 9)",
        "same item in 100.00% of 94,300 places",
    ],
    "explain_and_diversify.py": [
        "user 196 may like",
        "item:genres=",
        "terms add up to it: True",
        "users to tell of it:",
        "popularity 0.2: ndcg@10",
    ],
    "features_and_context.py": ["601 users, 300 items", "user 7 on Monday", "somebody unknown"],
    "from_libfm.py": ["2400 rows, 180 features, 4800 entries", "test rmse", "user 17: film"],
    "plots_and_frames.py": [
        "three plots: training.png",
        "polars ['user', 'item', 'score', 'rank'] 4 rows",
    ],
    "grow_a_model.py": [
        "new films for user 1: ['Twilight'",
        "for user 9001: [",
        "944 users, 1682 films",
        " after learning them",
    ],
    "sagemaker_topn.py": ["100 films for each of 943 users", " 1. Casablanca", "Schindler's List"],
    "next_purchases.py": ["popularity", "FMRanker", "customer 2: product", "somebody new: product"],
    "nightly_batch.py": ["778 customers: 15560 rows in 2 chunks", "customer1@example.com: product"],
    "sklearn_pipeline.py": ["best: {'fm__n_factors': 4", "stars", "counting more: R² 0."],
    "train_from_parquet.py": ["55000 rows, 2000 users", "rmse 0.5", "the same bits"],
    "spark_topn.py": [
        "1500 customers, 30000 recommendations",
        "the same bits: True",
        "trained by Spark: FMParams(2500 features, 4 factors)",
    ],
    "quickstart.py": ["rmse", "user 196", "user 22", "saved and loaded"],
}


def runs(path: Path):
    """Those that start a JVM run with the tests of servers."""
    return pytest.param(path, marks=pytest.mark.server) if path.name in JVM else path


@pytest.mark.parametrize("path", [runs(path) for path in EXAMPLES], ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    if path.name in JVM:
        spark_rig.require_java()
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
    assert run.stderr == "" or path.name in JVM  # which tells what it does


def test_every_example_promises_something():
    assert sorted(PROMISES) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
