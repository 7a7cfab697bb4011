"""Train on Parquet files that need not fit in memory, and on the prepared folder once more."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fmknn


def write_log(folder: Path) -> None:
    """A year of ratings, a file a month: here few, elsewhere a hundred million."""
    ratings, _ = fmknn.datasets.make_interactions(
        n_users=2_000, n_items=300, n_ratings=60_000, rating_scale=(1, 5), random_state=0
    )
    months = np.array_split(np.random.default_rng(0).permutation(len(ratings)), 12)
    for number, rows in enumerate(months):
        month = ratings.take(rows)
        columns = {"user": month.user_ids, "item": month.item_ids, "stars": month.values}
        pq.write_table(pa.table(columns), folder / f"2024-{number + 1:02}.parquet")


with tempfile.TemporaryDirectory() as room:
    folder = Path(room)
    write_log(folder)

    # the last month is for the test; the others are sorted on disk, within 500 MB of memory
    *months, last = sorted(folder.glob("2024-*.parquet"))
    train = fmknn.Interactions.from_parquet(
        months, folder / "prepared", user="user", item="item", value="stars", memory_limit="500MB"
    )
    print(train)

    # the columns are memory maps, and each sweep reads the sorted rows a part at a time
    model = fmknn.Recommender(fmknn.FMRegressor(8, solver="als", random_state=0)).fit(train)
    test = fmknn.Interactions.from_frame(
        pq.read_table(last), user="user", item="item", value="stars"
    )
    rmse = model.evaluate(test, "rmse")["rmse"]
    print(f"rmse {rmse:.2f}")

    # another training opens the folder as it is, and has the same result as one in memory
    again = fmknn.Interactions.open(folder / "prepared")
    from_disk = fmknn.FMRegressor(8, solver="mcmc", n_iter=20, random_state=0).fit(again)
    in_memory = fmknn.FMRegressor(8, solver="mcmc", n_iter=20, random_state=0)
    in_memory.fit(again.take(np.arange(len(again))))
    same = np.array_equal(from_disk.predict(again), in_memory.predict(again))
    print("from disk and in memory:", "the same bits" if same else "different")
