"""The benchmarks run from a clean checkout, without their peers; two need recorded data."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from realdata import movielens

import fmknn

ROOT = Path(__file__).parent.parent


def needs_splits():
    """Skip where the fixed splits of MovieLens are not: they are not to be had by a download."""
    for name in ("splits/ml100k.topn.npz", "splits/ml1m.topn.npz"):
        if not (Path(os.environ.get("FMKNN_DATA", ".")) / name).is_file():
            pytest.skip(f"needs {name} below FMKNN_DATA")


@pytest.fixture
def helper(monkeypatch):
    """Return a module of the folder of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "bench_disk.py",
        "bench_first_call.py",
        "bench_fm_solvers.py",
        "bench_partial_fit.py",
        "bench_popularity.py",
        "bench_ranking.py",
        "bench_recordio.py",
        "bench_topn.py",
        "bench_train.py",
    ],
)
def test_quick_run(name, tmp_path):
    if name in ("bench_fm_solvers.py", "bench_partial_fit.py", "bench_popularity.py"):
        movielens("100k")  # skips where it can't be had
    if name == "bench_ranking.py":
        needs_splits()
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


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_rankings_are_measured_as_the_package_measures_them(helper, exclude_seen):
    data, score = helper("_ranking_data"), helper("_ranking_score")
    rows, _ = fmknn.datasets.make_interactions(n_users=60, n_items=40, n_ratings=900)
    train, test = fmknn.splits.random(rows.without_features(), test=0.2, random_state=0)
    metrics = ("ndcg@10", "recall@20", "hit_rate@5")
    task = data.Task("generated", train, test, metrics, exclude_seen, hold_out=None)
    model = fmknn.Recommender(fmknn.FMRegressor(4, solver="als", random_state=0)).fit(train)
    scores = helper("_ranking_ours").scores_of(task, model.params_)
    expected = model.evaluate(test, metrics, exclude_seen=exclude_seen)
    found = score.measure(task, score.by_scores(task, scores))
    assert found == pytest.approx(dict(expected))


RETAIL = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
3,pen,,1,2010-12-02 09:00:00,1,ann,Spain
1,ink,,2,2010-12-01 09:00:00,1,ann,Spain
1,ink,,5,2010-12-01 09:00:00,1,ann,Spain
3,ink,,1,2010-12-02 09:01:00,1,ann,Spain
C4,ink,,-1,2010-12-03 09:00:00,1,ann,Spain
5,ink,,-3,2010-12-04 09:00:00,1,ann,Spain
6,cup,,3,2010-12-05 09:00:00,1,,Spain
7,pen,,3,2010-12-05 09:00:00,1,bob,Italy
"""


def test_the_last_basket_is_held_out(helper, tmp_path, monkeypatch):
    data = helper("_ranking_data")
    monkeypatch.setenv("FMKNN_DATA", str(tmp_path))
    path = tmp_path / data.FILES["retail"]
    path.parent.mkdir()
    path.write_bytes(gzip.compress(RETAIL.encode()))

    def pairs(rows):
        return sorted(zip(rows.user_ids, rows.item_ids, strict=True))

    whole, new = data.load("retail-repeats"), data.load("retail-new")
    assert pairs(whole.train) == pairs(new.train) == [("ann", "ink"), ("bob", "pen")]
    assert pairs(whole.test) == [("ann", "ink"), ("ann", "pen")]
    assert pairs(new.test) == [("ann", "pen")]
    assert new.exclude_seen and not whole.exclude_seen
    assert np.array_equal(data.counts(whole.train).toarray(), [[1, 0], [0, 1]])
