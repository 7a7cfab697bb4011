"""The command line, mostly through main([...]): the library's answers, one-line errors, codes."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import realdata

import fmknn
from fmknn.cli import main
from fmknn.datasets import make_interactions
from fmknn.evaluation import DEFAULT_RANKING

ROOT = Path(__file__).parent.parent
FIT = ["--n-iter", "3", "--n-factors", "4", "--quiet"]
DRAWN = make_interactions(
    60, 40, 900, context=3, random_state=0, return_truth=False
).without_features()
TRAIN, TEST = fmknn.splits.random(DRAWN, test=0.2, random_state=0)


def columns_of(rows, kind=int):
    """The columns of a ratings file; as strings, ids look like u007."""
    columns = {"user": rows.user_ids, "item": rows.item_ids}
    if kind is str:
        columns = {name: [f"{name[0]}{id:03}" for id in ids] for name, ids in columns.items()}
    return {**columns, "rating": rows.values, "day": rows.context["context"].index}


def write(path, columns):
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(table, path)
    return str(path)


def regressor(**settings):
    return fmknn.FMRegressor(4, n_iter=3, random_state=0, **settings)


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def answers(chunks):
    """TopN or chunks of them as the records of a JSON-lines file."""
    return [
        {"user": user, "items": [i for i, _ in best], "scores": [s for _, s in best]}
        for top in chunks
        for user, best in top
    ]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty folder, and return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        capsys.readouterr()
        code = main([str(part) for part in argv])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def succeed(run):
    """Run a command line that must succeed, and return its stdout."""

    def call(*argv):
        code, out, err = run(*argv)
        assert code == 0, err
        return out

    return call


# --- the library's answers --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_fit_recommend_evaluate_as_the_library(succeed, tmp_path, ending, kind):
    columns, test_columns = columns_of(TRAIN, kind), columns_of(TEST, kind)
    names = {"user": "user", "item": "item", "value": "rating"}
    model = fmknn.Recommender(regressor())
    model.fit(fmknn.Interactions.from_frame(columns, **names))
    test = fmknn.Interactions.from_frame(test_columns, **names)

    succeed("fit", write(tmp_path / f"train{ending}", columns), "--model", "m.fmknn", *FIT)
    succeed("recommend", "m.fmknn", "--all", "-n", 5, "--to", "out.jsonl")
    assert lines_of(Path("out.jsonl").read_text()) == answers(model.recommend_all(5))

    path = write(tmp_path / f"test{ending}", test_columns)
    found = json.loads(succeed("evaluate", "m.fmknn", path, "--json"))
    assert found == model.evaluate(test, ["rmse", "ndcg@10", "recall@20"]).to_dict()
    assert succeed("evaluate", "m.fmknn", path, "--metrics", "rmse").startswith(
        str(model.evaluate(test, ["rmse"]))
    )


def test_users_are_written_to_stdout_and_nothing_else_is(run, tmp_path):
    path = write(tmp_path / "train.csv", columns_of(TRAIN))
    assert run("fit", path, "--model", "m.fmknn", *FIT) == (0, "", "")
    model = fmknn.load("m.fmknn")
    code, out, err = run("recommend", "m.fmknn", "--users", "7,3", "-n", 2, "--to", "-")
    assert (code, err) == (0, "")
    assert lines_of(out) == answers([model.recommend([7, 3], 2)])


@pytest.fixture
def trained(succeed, tmp_path):
    """A model file with ids only."""
    succeed("fit", write(tmp_path / "train.csv", columns_of(TRAIN)), "--model", "m.fmknn", *FIT)
    return fmknn.load("m.fmknn")


def test_users_and_candidates_from_files(succeed, trained):
    Path("users.txt").write_text("5\n\n 2 \n")
    Path("items.txt").write_text("\ufeff1\n2\n30\n", encoding="utf-8")
    out = succeed(
        *("recommend", "m.fmknn", "--users-file", "users.txt"),
        *("--candidates", "items.txt", "--include-seen"),
    )
    expected = trained.recommend([5, 2], candidates=[1, 2, 30], exclude_seen=False)
    assert lines_of(out) == answers([expected])
    out = succeed(
        *("recommend", "m.fmknn", "--users-file", "users.txt"), *("--exclude-items", "items.txt")
    )
    expected = trained.recommend([5, 2], exclude_items=[1, 2, 30])
    assert lines_of(out) == answers([expected])


# --- batch runs -------------------------------------------------------------------------------


def of_database(path, table="recommendations"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        connection.close()


def rows_of(run_id, chunks):
    return [
        (run_id, user, item, score, rank)
        for top in chunks
        for user, best in top
        for rank, (item, score) in enumerate(best, start=1)
    ]


def test_a_run_into_sqlite(run, trained):
    argv = ("recommend", "m.fmknn", "--all", "-n", 5, "--to", "sqlite:///r.db", "--chunk", 25)
    code, out, err = run(*argv, "--run-id", "monday")
    assert (code, out) == (0, "")
    said = [re.sub(r"^\S+ \S+ fmknn: |, [0-9.]+ s$", "", line) for line in err.splitlines()]
    assert said == [
        "chunk 1 of 3: 25 users, 125 recommendations",
        "chunk 2 of 3: 25 users, 125 recommendations",
        "chunk 3 of 3: 10 users, 50 recommendations",
        "sqlite:///r.db: recommended to 60 users",
    ]
    assert of_database("r.db") == rows_of("monday", trained.recommend_all(5))
    code, _, err = run(*argv, "--run-id", "tuesday", "--append", "--include-seen")
    assert code == 0
    more = rows_of("tuesday", trained.recommend_all(5, exclude_seen=False))
    assert of_database("r.db") == [*rows_of("monday", trained.recommend_all(5)), *more]
    code, _, err = run(*argv, "--run-id", "monday", "--append", "--resume")
    refusal = "another append (False then, True now): leave out --resume to start anew"
    assert code == 1 and refusal in err and err.count("\n") == 1


def test_nothing_is_said_of_chunks_by_the_library_afterwards(run, trained, caplog):
    level = logging.getLogger("fmknn").level
    run("recommend", "m.fmknn", "--all", "--to", "r.parquet")
    assert logging.getLogger("fmknn").level == level
    assert not logging.getLogger("fmknn").handlers


def test_a_run_into_parquet_and_one_with_other_tables(succeed, trained):
    succeed("recommend", "m.fmknn", "--users", "7,3", "--to", "r/", "--resume")
    table = pa.parquet.read_table("r")
    assert table.column("user").to_pylist() == [7] * 10 + [3] * 10
    succeed("recommend", "m.fmknn", "--users", "3,7", "--to", "r.db", "--table", "best")
    assert of_database("r.db", "best")[0][1:] == (
        3,
        *trained.recommend(3).items[0][:1].tolist(),
        trained.recommend(3).scores[0, 0],
        1,
    )


def test_the_form_of_sagemaker(succeed, trained):
    out = succeed("recommend", "m.fmknn", "--users", "7,3", "-n", 2, "--form", "sagemaker")
    top = trained.recommend([7, 3], 2)
    assert [line["labels"] for line in lines_of(out)] == top.items[:, ::-1].tolist()
    succeed("recommend", "m.fmknn", "--all", "--form", "sagemaker", "--to", "r.jsonl")
    assert len(lines_of(Path("r.jsonl").read_text())) == 60


@pytest.mark.parametrize("policy", ["skip", "cold"])
def test_unknown_users(succeed, trained, policy):
    out = succeed("recommend", "m.fmknn", "--users", "5,999", "--unknown", policy)
    assert lines_of(out) == answers([trained.recommend([5, 999], unknown=policy)])


def test_settings_reach_the_model(succeed, tmp_path):
    path = write(tmp_path / "train.csv", columns_of(TRAIN))
    fit = ("fit", path, "--quiet", "--model")
    succeed(*fit, "m", "--n-factors", 3, "--n-iter", 2, "--seed", 5, "--index", "ivf")
    expected = fmknn.FMRegressor(3, n_iter=2, random_state=5).fit(
        TRAIN.replace(context={}).without_features()
    )
    loaded = fmknn.load("m")
    np.testing.assert_array_equal(loaded.params_.V[:60], expected.params_.V[:60])
    assert loaded.index_.kind == "IVF"


def test_columns_by_other_names_and_weights(succeed, tmp_path):
    columns = dict(
        zip(["who", "what", "stars", "day"], columns_of(TRAIN).values(), strict=True),
        trust=np.arange(len(TRAIN)) % 3,
        at=np.arange(len(TRAIN)).astype("datetime64[s]"),
    )
    names = ("--user", "who", "--item", "what", "--value", "stars")
    path = write(tmp_path / "train.csv", columns)
    succeed(*("fit", path, *names, "--weight", "trust", "--timestamp", "at", "--model", "m", *FIT))
    interactions = fmknn.Interactions.from_frame(
        columns, user="who", item="what", value="stars", weight="trust"
    )
    expected = fmknn.Recommender(regressor()).fit(interactions)
    np.testing.assert_array_equal(fmknn.load("m").params_.V, expected.params_.V)
    test = write(
        tmp_path / "test.csv",
        {"who": TEST.user_ids, "what": TEST.item_ids, "stars": TEST.values},
    )
    assert "rmse" in succeed("evaluate", "m", test, *names)


def test_logistic_loss_learns_two_classes(succeed, tmp_path):
    columns = columns_of(TRAIN)
    columns["clicked"] = (columns.pop("rating") > 0.5).astype(int)
    path = write(tmp_path / "log.csv", columns)
    succeed("fit", path, "--value", "clicked", "--loss", "logistic", "--model", "m", *FIT)
    predictions = fmknn.load("m").predict(columns["user"][:50], columns["item"][:50])
    assert 0 < predictions.min() < predictions.max() < 1


@pytest.mark.parametrize(
    "options", [(), ("--loss", "bpr"), ("--solver", "whole-data", "--weight", "n")]
)
def test_purchases_are_ranked(succeed, run, tmp_path, options):
    columns = columns_of(TRAIN)
    ratings = columns.pop("rating")
    if options:  # what is there is not read
        columns |= {"rating": ratings, "n": np.arange(len(TRAIN)) % 3 + 1}
    path = write(tmp_path / "purchases.csv", columns)
    succeed("fit", path, "--model", "m", *FIT, *options)
    loss = "bpr" if "bpr" in options else "whole-data"
    weight = "n" if "n" in options else None
    rows = fmknn.Interactions.from_frame(columns, user="user", item="item", weight=weight)
    model = fmknn.Recommender(fmknn.FMRanker(4, loss=loss, n_iter=3, random_state=0)).fit(rows)
    succeed("recommend", "m", "--all", "-n", 5, "--to", "out.jsonl")
    assert lines_of(Path("out.jsonl").read_text()) == answers(model.recommend_all(5))
    test = write(tmp_path / "test.csv", columns_of(TEST))
    assert list(json.loads(succeed("evaluate", "m", test, "--json"))["metrics"]) == [
        *DEFAULT_RANKING
    ]
    code, _, err = run("evaluate", "m", test, "--metrics", "rmse")
    assert code == 1 and "predicts no values" in err and err.count("\n") == 1


@pytest.mark.parametrize("rating", ["", "good"])
def test_a_ranker_does_not_read_ratings(succeed, rating):
    Path("r.csv").write_text(f"user,item,rating\n1,1,{rating}\n2,2,5\n2,1,3\n")
    succeed("fit", "r.csv", "--solver", "whole-data", "--model", "m", *FIT)
    assert len(fmknn.load("m").users) == 2


def test_purchases_that_are_repeated_are_one_with_a_count(run, succeed):
    Path("once.csv").write_text("user,item,n\n1,1,2\n1,2,1\n2,2,3\n")
    Path("log.csv").write_text("user,item\n1,1\n2,2\n1,1\n2,2\n1,2\n2,2\n")
    succeed("fit", "once.csv", "--weight", "n", "--model", "once", *FIT)
    code, _, err = run("fit", "log.csv", "--model", "log", *FIT[:-1])
    assert (code, err) == (0, "log: FMRanker trained on 6 rows, 2 users, 2 items\n")
    once, log = fmknn.load("once").params_, fmknn.load("log").params_
    np.testing.assert_array_equal(once.V, log.V)


def test_what_is_bought_again_is_measured(succeed, run):
    Path("r.csv").write_text("user,item\n1,1\n1,2\n2,2\n2,3\n")
    succeed("fit", "r.csv", "--model", "m", *FIT)
    argv = ("evaluate", "m", "r.csv", "--allow-overlap", "--metrics", "recall@3", "--json")
    for options, recall in (((), 0.0), (("--include-seen",), 1.0)):
        assert json.loads(succeed(*argv, *options))["metrics"] == {"recall@3": recall}


def test_a_loss_of_values_needs_them(run, tmp_path):
    columns = columns_of(TRAIN)
    del columns["rating"]
    path = write(tmp_path / "purchases.csv", columns)
    for option in (("--loss", "ordinal"), ("--solver", "als")):
        code, _, err = run("fit", path, "--model", "m", *FIT, *option)
        assert code == 1 and "no column 'rating' to learn" in err and err.count("\n") == 1
    code, _, err = run("fit", path, "--model", "m", "--loss", "bpr", "--solver", "als")
    assert code == 1 and "does not learn" in err and not (tmp_path / "m").exists()


def test_ordinal_loss_learns_grades(succeed, tmp_path):
    columns = columns_of(TRAIN)
    columns["rating"] = np.clip(np.rint(columns["rating"]), 1, 3).astype(int)
    path = write(tmp_path / "log.csv", columns)
    succeed("fit", path, "--loss", "ordinal", "--solver", "mcmc", "--model", "m", *FIT)
    model = fmknn.load("m")
    assert model.estimator_.grades_.tolist() == [1.0, 2.0, 3.0]
    predictions = model.predict(columns["user"][:50], columns["item"][:50])
    assert 1 < predictions.min() < predictions.max() < 3


def test_lists_are_measured_on_events_without_ratings(succeed, trained, tmp_path):
    columns = {name: columns_of(TEST)[name] for name in ("user", "item")}
    path = write(tmp_path / "test.csv", columns)
    found = json.loads(succeed("evaluate", "m.fmknn", path, "--metrics", "recall@5", "--json"))
    test = fmknn.Interactions.from_frame(columns, user="user", item="item")
    assert found["metrics"] == trained.evaluate(test, ["recall@5"]).to_dict()["metrics"]


def test_relevant_from_and_overlap(succeed, trained, tmp_path):
    path = write(tmp_path / "test.csv", columns_of(TRAIN))
    options = ("--allow-overlap", "--relevant-from", "1.0", "--json")
    found = json.loads(succeed("evaluate", "m.fmknn", path, *options))
    assert (found["n_overlap_rows"], found["relevant_from"]) == (len(TRAIN), 1.0)


def test_json_has_null_where_there_is_no_number(succeed, trained, tmp_path):
    path = write(tmp_path / "test.csv", {"user": [0], "item": [39], "rating": [1.0]})
    options = ("--allow-overlap", "--metrics", "rmse,ndcg@2", "--json")
    assert "NaN" not in succeed("evaluate", "m.fmknn", path, *options)


# --- features, contexts, the types of ids -----------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_features_speak_for_users_without_ratings(succeed, tmp_path, ending):
    columns = columns_of(TRAIN)
    users = {"user": np.arange(61), "group": [f"g{id % 4}" for id in range(61)]}
    users["age"] = np.linspace(20, 60, 61)
    items = {"id": np.arange(40), "kind": [f"k{id % 3}" for id in range(40)]}
    succeed(
        *("fit", write(tmp_path / f"train{ending}", columns), "--model", "m", *FIT),
        *("--user-features", write(tmp_path / f"users{ending}", users)),
        *("--item-features", write(tmp_path / f"items{ending}", items)),
    )
    interactions = fmknn.Interactions.from_frame(
        columns, user="user", item="item", value="rating", user_features=users, item_features=items
    )
    expected = fmknn.Recommender(regressor()).fit(interactions)
    newcomer = 60
    out = succeed("recommend", "m", "--users", newcomer)
    assert lines_of(out) == answers([expected.recommend([newcomer])])


def test_lists_in_parquet_are_features_of_several_values(succeed, tmp_path):
    path = write(tmp_path / "train.parquet", columns_of(TRAIN))
    items = {"item": np.arange(40), "tags": [["a", "b"] if id % 2 else ["c"] for id in range(40)]}
    features = write(tmp_path / "items.parquet", items)
    succeed("fit", path, "--item-features", features, "--model", "m", *FIT)
    model = fmknn.load("m")
    assert model.params_.n_features == len(model.users) + 40 + 3


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", [int, str])
def test_context_column(succeed, tmp_path, ending, kind):
    columns, test_columns = columns_of(TRAIN), columns_of(TEST)
    for part in (columns, test_columns):
        part["day"] = [kind(day) if kind is int else f"day {day}" for day in part["day"]]
    level = 1 if kind is int else "day 1"
    names = {"user": "user", "item": "item", "value": "rating", "context": ["day"]}
    model = fmknn.Recommender(regressor())
    model.fit(fmknn.Interactions.from_frame(columns, **names))

    path = write(tmp_path / f"train{ending}", columns)
    succeed("fit", path, "--context", "day", "--model", "m", *FIT)
    out = succeed("recommend", "m", "--users", "5", "--context", f"day={level}")
    assert lines_of(out) == answers([model.recommend([5], context={"day": level})])
    out = succeed("recommend", "m", "--users", "5", "--context-default", "mean")
    assert lines_of(out) == answers([model.recommend([5], context_default="mean")])

    path = write(tmp_path / f"test{ending}", test_columns)
    found = json.loads(succeed("evaluate", "m", path, "--json"))
    test = fmknn.Interactions.from_frame(test_columns, **names)
    assert found["metrics"] == dict(model.evaluate(test, ["rmse", "ndcg@10", "recall@20"]))


def test_leading_zeros_keep_ids_apart(succeed):
    Path("r.csv").write_text("user,item,rating\n007,1,5\n7,2,3\n8,1,1\n8,3,2\n")
    succeed("fit", "r.csv", "--model", "m", *FIT)
    model = fmknn.load("m")
    assert model.users.ids.tolist() == ["007", "7", "8"]
    assert model.items.ids.tolist() == [1, 2, 3]
    assert lines_of(succeed("recommend", "m", "--users", "007"))[0]["items"] != []
    Path("t.csv").write_text("user,item,rating\n8,2,4\n")  # by itself, 8 would be an integer
    assert "rmse" in succeed("evaluate", "m", "t.csv", "--metrics", "rmse")


def test_numbers_beyond_64_bits_are_strings(succeed):
    Path("r.csv").write_text("user,item,rating\n99999999999999999999,1,5\n7,2,3\n")
    succeed("fit", "r.csv", "--model", "m", *FIT)
    assert fmknn.load("m").users.ids.tolist() == ["7", "99999999999999999999"]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_ratings_and_features_settle_on_one_type(succeed, tmp_path, ending):
    Path("r.csv").write_text("user,item,rating\n1,1,5\n2,2,3\n")
    features = write(tmp_path / f"f{ending}", {"user_id": ["1", "2", "x3"], "group": ["a"] * 3})
    succeed("fit", "r.csv", "--user-features", features, "--model", "m", *FIT)
    assert fmknn.load("m").users.ids.tolist() == ["1", "2", "x3"]


# --- errors -----------------------------------------------------------------------------------

BAD_RATINGS = {
    "empty.csv": ("", r"empty\.csv: Empty CSV"),
    "header.csv": ("user,item,rating\n", r"header\.csv: .*data is empty"),
    "nan.csv": ("user,item,rating\n1,1,5\n2,2,nan\n", r"nan\.csv: .*NaN.*row 1"),
    "missing.csv": (
        "user,item,rating\n1,1,5\n2,2,\n",
        r"missing\.csv: column 'rating' is empty in row 3",
    ),
    "infinite.csv": ("user,item,rating\n1,1,inf\n2,2,3\n", r"infinite\.csv: .*infinity.*row 0"),
    "text.csv": ("user,item,rating\n1,1,5\n2,2,good\n", r"text\.csv: .*Row #3.*'good'"),
    "no-user.csv": ("user,item,rating\n1,1,5\n,2,3\n", r"no-user\.csv: user ids .*row 1.*None"),
    "no-item.csv": ("user,item,rating\na,,5\n", r"no-item\.csv: item ids .*row 0.*None"),
    "short.csv": ("user,item,rating\n1,1,5\n2,2\n", r"short\.csv: .*Row #3.*3 columns, got 2"),
    "twice.csv": ("user,user,item,rating\n1,1,1,5\n", r"twice\.csv: .*'user' 2 times"),
    "values.csv": ("user,item,rating,rating\n1,1,5,\n", r"values\.csv: .*'rating' 2 times"),
    "column.csv": ("user,film,rating\n1,1,5\n", r"column\.csv: no column 'item'.*user, film"),
    "latin.csv": (b"user,item,rating\n\xe9,1,5\n", r"latin\.csv: .*UTF8"),
    "bad.parquet": ("PAR1 and then nothing", r"bad\.parquet: .*Parquet"),
    "ratings.txt": ("1\t1\t5\n", r"ratings\.txt: .*\.csv or \.parquet"),
}


def assert_one_line_and_nothing_written(run, argv, pattern):
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    code, out, err = run(*argv)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"fmknn: error: [^\n]*{pattern}[^\n]*\n", err), err
    assert before == {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", BAD_RATINGS)
def test_bad_ratings(run, name):
    content, pattern = BAD_RATINGS[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_line_and_nothing_written(run, ("fit", name, "--model", "m"), pattern)


def test_an_empty_weight_is_named_by_column_and_row(run):
    Path("r.csv").write_text("user,item,rating,w\n1,1,5,1\n2,2,3,1\n3,1,,\n4,1,4,\n")
    argv = ("fit", "r.csv", "--weight", "w", "--model", "m")
    assert_one_line_and_nothing_written(run, argv, r"r\.csv: column 'rating' is empty in row 4")
    Path("r.csv").write_text("user,item,rating,w\n1,1,5,1\n2,2,3,\n")
    assert_one_line_and_nothing_written(run, argv, r"r\.csv: column 'w' is empty in row 3")


def test_an_empty_rating_of_a_test_is_named_by_column_and_row(run, trained):
    Path("r.csv").write_text("user,item,rating\n0,39,5\n1,38,\n")
    assert_one_line_and_nothing_written(
        run, ("evaluate", "m.fmknn", "r.csv"), r"r\.csv: column 'rating' is empty in row 3"
    )


def test_ids_of_a_wrong_type_in_parquet(run, tmp_path):
    path = write(tmp_path / "r.parquet", {"user": [1.5, 2.5], "item": [1, 2], "rating": [1, 2]})
    assert_one_line_and_nothing_written(
        run, ("fit", path, "--model", "m"), r"r\.parquet: user ids must be integers or strings"
    )


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("id,age\n1,30\n1,40\n2,50\n", r"f\.csv: .*more than one row"),
        ("id,age\n1,30\n2,\n", r"f\.csv: .*'age'.*row 1"),
        ("who,age\n1,30\n", r"f\.csv: .*needs a column"),
        ("id,age\n1,30\n", r"r\.csv: .*no row in the feature table.*2"),
        ("id,age\n1,30\nx,50\n", r"r\.csv: .*no row in the feature table.*'2'"),
    ],
)
def test_bad_features(run, content, pattern):
    Path("r.csv").write_text("user,item,rating\n1,1,5\n2,2,3\n")
    Path("f.csv").write_text(content)
    argv = ("fit", "r.csv", "--user-features", "f.csv", "--model", "m")
    assert_one_line_and_nothing_written(run, argv, pattern)


def test_one_class_only(run):
    Path("r.csv").write_text("user,item,rating\n1,1,1\n2,2,1\n")
    argv = ("fit", "r.csv", "--loss", "logistic", "--model", "m")
    assert_one_line_and_nothing_written(run, argv, "two classes, got 1")


FIT_R = ("fit", "r.csv", "--model")
RECOMMEND = ("recommend", "m.fmknn")


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (("fit", "nothing.csv", "--model", "m"), r"nothing\.csv: No such file"),
        ((*FIT_R, "nowhere/m"), r"nowhere: no such folder"),
        ((*FIT_R, "."), r"\.: this is no ordinary file"),
        ((*FIT_R, "m", "--context", "hour"), r"r\.csv: no column 'hour'"),
        ((*FIT_R, "m", "--value", "stars"), r"r\.csv: no column 'stars'"),
        ((*FIT_R, "m", "--loss", "bpr", "--value", "stars"), r"--value stars: .* --weight"),
        (("recommend", "nothing.fmknn", "--all"), r"nothing\.fmknn: no saved model"),
        (("recommend", "r.csv", "--all"), r"r\.csv.* is not a model"),
        (("recommend", "cut.fmknn", "--all"), r"cut\.fmknn.* is damaged"),
        ((*RECOMMEND, "--users", "5,999"), r"unknown user id 999"),
        ((*RECOMMEND, "--users", "ann"), r"user id 'ann' .*not an integer"),
        ((*RECOMMEND, "--users", "007"), r"user id '007' .*not an integer"),
        ((*RECOMMEND, "--users-file", "nothing.txt"), r"nothing\.txt: No such file"),
        ((*RECOMMEND, "--users-file", "blank.txt"), r"blank\.txt: there are no ids"),
        ((*RECOMMEND, "--all", "--candidates", "users.txt"), r"unknown item id 999"),
        ((*RECOMMEND, "--all", "--context", "day=1"), r"no context 'day'"),
        ((*RECOMMEND, "--all", "--context", "a=1", "a=2"), r"context 'a' is given twice"),
        ((*RECOMMEND, "--all", "--to", "nowhere/out.jsonl"), r"nowhere: no such folder"),
        ((*RECOMMEND, "--all", "--to", "pipe"), r"pipe: this is no ordinary file"),
        ((*RECOMMEND, "--users", "5,999", "--to", "users.txt"), r"unknown user id 999"),
        ((*RECOMMEND, "--all", "--resume"), r"--resume is for databases and Parquet folders"),
        ((*RECOMMEND, "--all", "--append", "--to", "r.jsonl"), r"--append is for databases"),
        ((*RECOMMEND, "--all", "--append", "--to", "r.parquet"), r"--append is for databases"),
        ((*RECOMMEND, "--all", "--run-id", "a"), r"--run-id is for databases"),
        ((*RECOMMEND, "--all", "--table", "a", "--to", "r/"), r"--table is for databases"),
        ((*RECOMMEND, "--all", "--table", "a b", "--to", "r.db"), r"table must be a name"),
        ((*RECOMMEND, "--all", "--form", "sagemaker", "--to", "r.db"), r"--form sagemaker is for"),
        ((*RECOMMEND, "--all", "--to", "."), r"holds .* not of a run of fmknn"),
        ((*RECOMMEND, "--all", "--to", "r.csv"), r"only JSON lines"),
        ((*RECOMMEND, "--all", "--to", "sqlite:///m.fmknn"), r"m\.fmknn: this file is read too"),
        ((*RECOMMEND, "--all", "--to", "sqlite:///r.csv"), r"r\.csv is not an SQLite database"),
        ((*RECOMMEND, "--all", "--to", "sqlite:///nowhere/r.db"), r"nowhere: no such folder"),
        ((*RECOMMEND, "--all", "--to", "nowhere/r.parquet"), r"nowhere: no such folder"),
        ((*RECOMMEND, "--all", "--to", "s3://bucket/r"), r"no kind of database 's3'"),
        (("evaluate", "m.fmknn", "train.csv"), r"test rows were trained on.* pass --allow-overlap"),
        (
            ("evaluate", "m.fmknn", "r.csv", "--relevant-from", "9", "--allow-overlap"),
            r"--relevant-from 9\.0: no test row",
        ),
        (("evaluate", "m.fmknn", "r.csv", "--metrics", "rsme"), r"unknown metric 'rsme'"),
        (("evaluate", "m.fmknn", "r.csv", "--context", "day"), r"r\.csv: no column 'day'"),
        (("evaluate", "m.fmknn", "names.csv"), r"names\.csv: user id 'ann' .*not an integer"),
        (("evaluate", "m.fmknn", "log.csv", "--metrics", "rmse"), r"rmse needs values"),
        (
            ("evaluate", "m.fmknn", "log.csv", "--metrics", "mrr", "--relevant-from", "4"),
            r"--relevant-from needs values",
        ),
        (("evaluate", "m.fmknn", "log.csv", "--value", "stars"), r"no column 'stars'"),
        (("demo", "--out", "nowhere/out.jsonl"), r"nowhere: no such folder"),
        ((*FIT_R, "r.csv"), r"r\.csv: this file is read too"),
        ((*FIT_R, "link.csv"), r"link\.csv: this file is read too"),
        ((*FIT_R, "f.csv", "--user-features", "f.csv"), r"f\.csv: this file is read too"),
        ((*FIT_R, "f.csv", "--item-features", "./f.csv"), r"f\.csv: this file is read too"),
        ((*RECOMMEND, "--all", "--to", "m.fmknn"), r"m\.fmknn: this file is read too"),
        ((*RECOMMEND, "--users-file", "u.txt", "--to", "u.txt"), r"u\.txt: this file is read too"),
        (
            (*RECOMMEND, "--all", "--candidates", "u.txt", "--to", "u.txt"),
            r"u\.txt: this file is read too",
        ),
        ((*FIT_R, "m", "--user", "item"), r"column 'item' is named twice, by --user and --item"),
        ((*FIT_R, "m", "--value", "user"), r"'user' is named twice, by --user and --value"),
        ((*FIT_R, "m", "--context", "a", "a"), r"'a' is named twice, by --context and --context"),
        (
            ("evaluate", "m.fmknn", "r.csv", "--user", "x", "--item", "x"),
            r"column 'x' is named twice, by --user and --item",
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_every_error_is_one_line(run, trained, argv, pattern):
    Path("r.csv").write_text("user,item,rating\n0,0,5\n1,1,3\n")
    Path("names.csv").write_text("user,item,rating\nann,0,5\n")
    Path("log.csv").write_text("user,item\n0,39\n1,38\n")
    Path("blank.txt").write_text("\n\n")
    Path("users.txt").write_text("999\n")
    Path("u.txt").write_text("5\n")
    Path("f.csv").write_text("id,age\n0,30\n1,40\n")
    Path("link.csv").symlink_to("r.csv")
    Path("cut.fmknn").write_bytes(Path("m.fmknn").read_bytes()[:-100])
    os.mkfifo("pipe")
    assert_one_line_and_nothing_written(run, argv, pattern)


def test_a_context_that_is_missing_is_asked_for_by_option(run, tmp_path):
    path = write(tmp_path / "r.csv", columns_of(TRAIN))
    assert run("fit", path, "--model", "m.fmknn", "--context", "day", *FIT)[0] == 0
    assert_one_line_and_nothing_written(
        run,
        ("recommend", "m.fmknn", "--users", "5"),
        r"pass --context day=LEVEL, or --context-default mean or zero",
    )


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("train",),
        ("fit", "r.csv"),
        ("fit", "r.csv", "--model", "m", "--loss", "hinge"),
        ("fit", "r.csv", "--model", "m", "--n-iter", "0"),
        ("fit", "r.csv", "--model", "m", "--n-factors", "many"),
        ("fit", "r.csv", "--model", "m", "--quie"),
        ("recommend", "m"),
        ("recommend", "m", "--all", "--users", "1"),
        ("recommend", "m", "--users", "1,,2"),
        ("recommend", "m", "--all", "-n", "0"),
        ("recommend", "m", "--all", "--context", "day"),
        ("recommend", "m", "--all", "--unknown", "ignore"),
        ("recommend", "m", "--all", "--chunk", "0"),
        ("recommend", "m", "--all", "--form", "csv"),
        ("evaluate", "m"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_2(run, argv):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("usage: fmknn")
    assert list(Path.cwd().iterdir()) == []


def test_debug_shows_the_traceback(run):
    code, _, err = run("recommend", "nothing.fmknn", "--all", "--debug")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("fmknn: error: nothing.fmknn: no saved model")


def test_without_pyarrow_the_extra_is_named(run, monkeypatch):
    Path("r.csv").write_text("user,item,rating\n1,1,5\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    argv = ("fit", "r.csv", "--model", "m")
    assert_one_line_and_nothing_written(run, argv, r"pip install 'fmknn\[arrow\]'")


def test_interrupted_is_130(run, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("fmknn.recommender.load", interrupt)
    assert run("recommend", "m", "--all") == (130, "", "fmknn: interrupted\n")


# --- as a process -----------------------------------------------------------------------------


def popen(*argv, **options):
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "fmknn", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search_path},
        **options,
    )


def test_a_reader_who_leaves_is_no_error(trained):
    Path("users.txt").write_text("5\n" * 3000)  # far more than a pipe holds
    process = popen("recommend", "m.fmknn", "--users-file", "users.txt")
    assert json.loads(process.stdout.readline())["user"] == 5
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


def test_the_default_metrics_are_those_of_the_library(run, succeed, trained, tmp_path):
    assert f"(default: {','.join(['rmse', *DEFAULT_RANKING])}, without rmse" in " ".join(
        run("evaluate", "--help")[1].split()
    )
    test = write(tmp_path / "test.csv", columns_of(TEST))
    [result] = lines_of(succeed("evaluate", "m.fmknn", test, "--json"))
    assert tuple(result["metrics"]) == ("rmse", *DEFAULT_RANKING)


def test_help_loads_none_of_the_heavy_libraries():
    code = (
        "import sys; from fmknn.cli import main; code = main(['--version']); "
        "sys.exit(code or bool({'numpy', 'numba', 'faiss', 'pyarrow'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"fmknn {fmknn.__version__}\n"), run.stderr


# --- the demo ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def u1():
    return realdata.movielens(fold="u1")


def test_demo(u1, run):
    train, _ = u1
    code, out, err = run("demo", "--out", "recs.jsonl")
    assert code == 0, err
    assert "training: 100%" in err

    assert float(re.search(r"test RMSE: ([0-9.]+)", out)[1]) <= 0.912
    assert "50 samples" in out
    assert "item matrix [V_i, w_i]: (1682, 801)" in out
    assert "user matrix [V_u / 50, 1]: (943, 801)" in out
    steps = re.findall(r"^(get|train|predict|project|index|find|write) .*? +[0-9.]+$", out, re.M)
    assert steps == ["get", "train", "predict", "project", "index", "find", "write"]
    assert max(map(len, out.splitlines())) <= 100

    records = lines_of(Path("recs.jsonl").read_text())
    model = fmknn.Recommender(fmknn.FMRegressor(random_state=0)).fit(train.without_features())
    assert records == answers(model.recommend_all(n=100))  # the steps add up to the facade
    assert len(records) == 943
    assert {len(record["items"]) for record in records} == {100}

    titles = [train.item_features.row(item)["title"] for item in records[0]["items"][:10]]
    shown = out[out.index("user 1 rated best") :].splitlines()[1:11]
    for title, score, line in zip(titles, records[0]["scores"], shown, strict=False):
        assert title[:30] in line
        assert line.endswith(f"{score:.2f}")
    own = train.take((train.user_ids == 1) & (train.values == 5))
    five_stars = tuple(train.item_features.row(item)["title"][:30] for item in own.item_ids)
    assert all(line.startswith(five_stars) for line in shown)
    assert "GroupLens" in out


def test_demo_names_a_damaged_file(u1, run, tmp_path):
    home = tmp_path / "ml-100k"
    home.mkdir()
    for name in ("u.data", "u.item", "u.user"):
        (home / name).write_text("something else")
    argv = ("demo", "--data-home", tmp_path, "--out", "recs.jsonl")
    assert_one_line_and_nothing_written(run, argv, r"u\.data has 14 bytes")
