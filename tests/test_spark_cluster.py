"""Lists by a cluster of two executors: the same rows, also where tasks fail and are repeated."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import spark_rig
from refusals import refused

import fmknn
from fmknn.errors import UnknownIdError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def spark(request, tmp_path_factory):
    return spark_rig.session(request.config, tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def model():
    data, _ = fmknn.datasets.make_interactions(
        n_users=600, n_items=300, n_ratings=6000, context=3, random_state=0
    )
    estimator = fmknn.FMRegressor(4, solver="als", n_iter=2, random_state=0)
    return fmknn.Recommender(estimator).fit(data)


@pytest.fixture(scope="module")
def named():
    """Ids that are strings, and none that is a context."""
    data, _ = fmknn.datasets.make_interactions(
        n_users=40, n_items=30, n_ratings=500, random_state=0
    )
    data = fmknn.Interactions.from_arrays(
        [f"user {user}" for user in data.user_ids],
        [f"ìtem {item}" for item in data.item_ids],
        data.values,
    )
    return fmknn.Recommender(fmknn.FMRegressor(4, solver="als", n_iter=2, random_state=0)).fit(data)


def by_user(rows) -> dict:
    """The list of each user: (item, score) in the order of the ranks, which are 1, 2, …"""
    lists = defaultdict(dict)
    for user, item, score, rank in rows:
        assert rank not in lists[user], "a row came twice"
        lists[user][rank] = (item, score)
    assert all(sorted(ranks) == list(range(1, len(ranks) + 1)) for ranks in lists.values())
    return {user: [ranks[rank] for rank in sorted(ranks)] for user, ranks in lists.items()}


def here(model, users, n=5, **options) -> dict:
    return {user: pairs for user, pairs in model.recommend(users, n, **options) if pairs}


def test_everybody_by_default(spark, named):
    lists = named.with_backend(fmknn.SparkBackend(spark)).recommend_all(n=5)
    assert lists.dtypes == [
        ("user", "string"),
        ("item", "string"),
        ("score", "double"),
        ("rank", "int"),
    ]
    assert by_user(lists.collect()) == here(named, named.users.ids)


def test_users_of_a_frame_with_all_that_it_can_say(spark, model):
    users, levels = model.users.ids[:200], model.contexts["context"].ids
    items = model.items.ids
    rows = [
        (
            int(user),
            int(levels[user % 3]),
            [int(item) for item in items[user % 7 : 200]] if user % 2 else None,
        )
        for user in users
    ]
    frame = spark.createDataFrame(rows, "user int, context short, exclude array<int>")
    backend = fmknn.SparkBackend(spark, partitions=3)
    more = {int(user): items[250:] for user in users[:50]}  # as in one list of exclusions
    lists = model.with_backend(backend).recommend_all(n=5, users=frame, exclude=more)
    exclude = {user: list(own or ()) + list(more.get(user, ())) for user, _, own in rows}
    context = {"context": [level for _, level, _ in rows]}
    assert by_user(lists.collect()) == here(model, users, exclude=exclude, context=context)
    assert lists.rdd.getNumPartitions() == 3


@pytest.mark.parametrize("unknown", ["cold", "skip", "raise"])
def test_strangers_in_a_frame(spark, named, unknown):
    users = ["user 3", "nobody", "user 4"]
    frame = spark.createDataFrame([(user,) for user in users], "who string")
    exclude = {"nobody": named.items.ids[:20]} if unknown == "cold" else None
    options = {"unknown": unknown, "exclude": exclude}
    there = named.with_backend(fmknn.SparkBackend(spark))
    recommend = partial(there.recommend_all, n=5, users=frame, **options)
    if unknown == "raise":
        with pytest.raises(Exception, match="user 'nobody' is unknown"):
            recommend().collect()
    else:
        assert by_user(recommend().collect()) == here(named, users, **options)


def test_a_folder_is_replaced_when_the_run_is_complete(spark, named, tmp_path):
    there = named.with_backend(fmknn.SparkBackend(spark))
    folder = tmp_path / "recs.parquet"
    assert there.recommend_all(n=7, to=folder) == 40
    assert there.recommend_all(users=named.users.ids[:9], n=5, to=folder) == 9
    rows = list(zip(*pq.read_table(folder).to_pydict().values(), strict=True))
    assert by_user(rows) == here(named, named.users.ids[:9])
    frame = spark.createDataFrame([("user 3",), ("nobody",)], "user string")
    with refused(UnknownIdError, "nobody"):
        there.recommend_all(users=frame, n=5, to=folder)
    assert pq.read_table(folder).num_rows == 45  # what was there is there
    assert there.recommend_all(users=[], n=5, to=folder) == 0
    spark.range(3).write.parquet(str(tmp_path / "customers.parquet"))
    with refused(ValueError, "customers.parquet", "columns id"):
        there.recommend_all(n=5, to=tmp_path / "customers.parquet")
    (folder / "mine.txt").touch()
    with refused(ValueError, "mine.txt"):
        there.recommend_all(n=5, to=folder)
    with refused(ValueError, "Spark can't write", "nofs"):
        there.recommend_all(n=5, to="nofs://place/recs.parquet")


def test_a_repeated_task_gives_the_same_rows(spark, named, tmp_path):
    backend = fmknn.SparkBackend(spark, partitions=4)
    lists = named.with_backend(backend).recommend_all(n=5)
    fails = partial(spark_rig.fails_first, str(tmp_path))
    lists.mapInArrow(fails, lists.schema).write.parquet(str(tmp_path / "recs.parquet"))
    failed = sorted(path.name for path in tmp_path.glob("failed-*"))
    assert failed == [f"failed-{number}" for number in range(4)]
    rows = list(zip(*pq.read_table(tmp_path / "recs.parquet").to_pydict().values(), strict=True))
    assert by_user(rows) == here(named, named.users.ids)


def test_the_users_may_be_written_and_not_held(spark, model, tmp_path):
    backend = fmknn.SparkBackend(spark, scratch=str(tmp_path))
    options = {"context_default": "mean", "exclude_items": model.items.ids[:9], "popularity": 0.5}
    lists = model.with_backend(backend).recommend_all(n=5, **options)
    assert by_user(lists.collect()) == here(model, model.users.ids, **options)
    assert len(list(tmp_path.glob("fmknn-users-*/part-*.parquet"))) == 3  # of 256 users at most


def test_items_are_sent_once(spark, model):
    backend = fmknn.SparkBackend(spark)
    there = model.with_backend(backend)
    there.recommend_all(n=5, context_default="mean")
    first = backend._sent[1]
    there.recommend_all(n=6, context_default="zero")
    assert backend._sent[1] is first
    lists = there.with_index("ivf").recommend_all(n=5, context_default="mean")
    assert backend._sent[1] is not first
    want = here(model.with_index("ivf"), model.users.ids, context_default="mean")
    assert by_user(lists.collect()) == want


@pytest.mark.parametrize("name", ["chunk", "resume", "append", "run_id", "progress"])
def test_what_is_of_one_machine_is_refused(spark, named, name):
    value = {"chunk": 100, "run_id": "monday"}.get(name, True)
    with refused(ValueError, name, "one machine"):
        named.with_backend(fmknn.SparkBackend(spark)).recommend_all(n=5, **{name: value})


def test_arguments_are_refused_at_once(spark, named, model):
    there = named.with_backend(fmknn.SparkBackend(spark))
    rows = [("user 3", 1.5, ["x"])]
    frame = spark.createDataFrame(rows, "user string, mail double, exclude array<string>")
    with refused(ValueError, "'mail'", "exclude"):
        there.recommend_all(users=frame)
    with refused(TypeError, "'mail'", "strings", "double"):
        there.recommend_all(users=frame.select("mail"))
    with refused(UnknownIdError, "nobody"):
        there.recommend_all(users=["nobody"])
    with refused(UnknownIdError, "no such"):
        there.recommend_all(candidates=["no such"])
    with refused(UnknownIdError, "context", "77"):
        context = {"context": [0, 77]}
        model.with_backend(fmknn.SparkBackend(spark)).recommend_all(users=[1, 2], context=context)
    with refused(ValueError, "n must be"):
        there.recommend_all(n=0)
    with refused(TypeError, "exclude"):
        there.recommend_all(exclude=["a"])
    there = model.with_backend(fmknn.SparkBackend(spark))
    with refused(ValueError, "context", "missing"):
        there.recommend_all()
    frame = spark.createDataFrame([(1, 1)], "user int, context int")
    with refused(ValueError, "context", "twice"):
        there.recommend_all(users=frame, context={"context": 1})
    with refused(ValueError, "2 levels"):
        there.recommend_all(users=frame.select("user"), context={"context": [1, 2]})


def test_users_come_as_often_as_they_are_asked_for(spark, named):
    users = np.array(["user 3", "user 4", "user 3"], object)
    lists = named.with_backend(fmknn.SparkBackend(spark, partitions=1)).recommend_all(
        2, users=users
    )
    rows = sorted(tuple(row) for row in lists.collect())
    want = [
        (user, item, score, rank)
        for user, pairs in named.recommend(users, 2)
        for rank, (item, score) in enumerate(pairs, 1)
    ]
    assert rows == sorted(want)
