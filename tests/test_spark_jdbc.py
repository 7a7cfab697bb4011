"""Lists by JDBC into Apache Derby, which comes with pyspark; in a process of its own, by itself
the executor, since an embedded database has one process only. This file is also what that runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.server


def test_lists_go_to_a_database_and_replace_those_of_before(tmp_path):
    import spark_rig

    spark_rig.require_java()
    paths = [spark_rig.ROOT, spark_rig.ROOT / "tests", os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths)))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all is well"


def play(folder: Path) -> None:
    import spark_rig
    from refusals import refused

    import fmknn
    from fmknn.backends.spark.sinks import JDBC

    spark = spark_rig.new_session("local[2]", folder)
    data, _ = fmknn.datasets.make_interactions(
        n_users=40, n_items=30, n_ratings=500, random_state=0
    )
    model = fmknn.Recommender(fmknn.FMRegressor(3, solver="als", n_iter=2, random_state=0))
    there = model.fit(data).with_backend(fmknn.SparkBackend(spark))
    address = "jdbc:derby:memory:shop;create=true"

    def rows(table="recommendations"):
        frame = spark.read.jdbc(address, table)
        assert [name.lower() for name in frame.columns] == ["user_id", "item_id", "score", "rank"]
        return sorted(tuple(row) for row in frame.collect())

    def here(users, n):
        return sorted(
            (user, item, score, rank)
            for user, pairs in model.recommend(users, n)
            for rank, (item, score) in enumerate(pairs, 1)
        )

    users = model.users.ids
    assert there.recommend_all(6, to=address) == 40
    assert rows() == here(users, 6)
    assert there.recommend_all(4, users=users[:9], to=address) == 9
    assert rows() == here(users[:9], 4)
    assert there.recommend_all(4, to=JDBC(address, "lists", {"user": "APP"})) == 40
    assert rows("lists") == here(users, 4)
    spark.createDataFrame([(1, "me")], "id int, name string").write.jdbc(address, "customers")
    with refused(ValueError, "customers", "id, name"):
        there.recommend_all(4, to=JDBC(address, "customers"))
    assert spark.read.jdbc(address, "customers").count() == 1
    spark.stop()


if __name__ == "__main__":
    play(Path(sys.argv[1]))
    print("all is well")
