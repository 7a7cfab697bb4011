"""``fmknn sagemaker`` against the emulator: files here or in S3, plans, one-line errors, codes."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sagemaker_cli import LEARNING, argv, get, lines, put, ratings_csv
from sagemaker_emulator import Emulator
from sagemaker_rig import keys, ratings, require_nothing_running

import fmknn
from fmknn.cli import main

ROLE = "arn:aws:iam::123456789012:role/service-role/Train"
PLACE = ("--role", ROLE, "--bucket", "a-bucket")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in a folder with ratings, and return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_bytes(ratings_csv())

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server, monkeypatch):
    server.faults.clear()
    for key in keys(server):
        server.s3.delete_object(Bucket=server.bucket, Key=key)
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    yield server
    server.faults.clear()
    wait_for_stops(server)
    require_nothing_running(server)


def wait_for_stops(emulator):
    for _ in range(1000):
        if all(status != "Stopping" for _, _, status in emulator.jobs()):
            return
        time.sleep(0.01)


def answers(top):
    return [
        {"user": user, "items": [i for i, _ in best], "scores": [s for _, s in best]}
        for user, best in top
    ]


def requests(emulator, operation):
    return [parameters for name, parameters in emulator.requests if name == operation]


# --- what it does -----------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("search", ["local", "sagemaker"])
def test_lists_and_model_are_the_librarys(emulator, run, search):
    words = argv(emulator, "r.csv", "lists.jsonl", "--model", "m.fmknn", "--search", search)
    assert run(*words) == (0, "", "")
    model = fmknn.load("m.fmknn")
    assert model.estimator_.solver == fmknn.Adam.sagemaker(
        epochs=2, mini_batch_size=50, factors_lr=0.05, factors_init_sigma=0.1
    )
    assert lines(Path("lists.jsonl").read_bytes()) == answers(model.recommend(model.users.ids))
    code, out, _ = run("recommend", "m.fmknn", "--users", "3,5")
    assert (code, lines(out.encode())) == (0, answers(model.recommend([3, 5])))


@pytest.mark.server
def test_everything_may_be_in_s3(emulator, run):
    users = {"user": np.arange(40), "group": [f"g{id % 3}" for id in range(40)]}
    pa.parquet.write_table(pa.table({n: pa.array(list(v)) for n, v in users.items()}), "u.parquet")
    common = ("--run-id", "here", "-n", "5", "--include-seen", "--model")
    here = (*argv(emulator, "r.csv", "lists.jsonl", *common, "m.fmknn"), "--user-features")
    assert run(*here, "u.parquet")[0] == 0

    there = {
        "ratings": put(emulator, "in/ratings.csv", ratings_csv()),
        "users": put(emulator, "in/users.parquet", Path("u.parquet").read_bytes()),
        "lists": f"s3://{emulator.bucket}/out/lists.jsonl",
        "model": f"s3://{emulator.bucket}/out/m.fmknn",
    }
    words = argv(emulator, there["ratings"], there["lists"], *common, there["model"])
    before = emulator.count("CreateTrainingJob")
    assert run(*words, "--user-features", there["users"]) == (0, "", "")
    assert emulator.count("CreateTrainingJob") == before  # of the same run: the job is found
    assert get(emulator, "out/lists.jsonl") == Path("lists.jsonl").read_bytes()
    Path("there.fmknn").write_bytes(get(emulator, "out/m.fmknn"))
    same = [
        fmknn.load(path).recommend([1], 5).items.tolist() for path in ("m.fmknn", "there.fmknn")
    ]
    assert same[0] == same[1]
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        *("lists.jsonl", "m.fmknn", "r.csv", "there.fmknn", "u.parquet")
    ]


@pytest.mark.server
def test_settings_reach_the_jobs(emulator, run):
    options = (
        *("--loss", "logistic", "--value", "liked", "--max-runtime", "600", "--tag", "team=films"),
        *("--kms-key", "a-key", "--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1"),
        *("--instance-type", "ml.c5.xlarge", "--instance-count", "2", "--volume-size-gb", "7"),
        *("--prefix", "some/where", "--run-id", "the-run", "--set", "clip_gradient=5"),
    )
    rows = ratings()
    liked = np.asarray(rows.values) > np.median(rows.values)
    columns = {"user": rows.user_ids, "item": rows.item_ids, "liked": liked.astype(int)}
    pa.csv.write_csv(pa.table({n: pa.array(list(v)) for n, v in columns.items()}), "r.csv")
    to = f"s3://{emulator.bucket}/lists.jsonl"
    assert run(*argv(emulator, "r.csv", to, *options)) == (0, "", "")

    request = requests(emulator, "CreateTrainingJob")[-1]
    sent = request["HyperParameters"]
    assert (
        sent.items()
        >= {
            "predictor_type": "binary_classifier",
            "num_factors": "4",
            "epochs": "2",
            "clip_gradient": "5.0",
        }.items()
    )
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert request["VpcConfig"] == {
        "SecurityGroupIds": ["sg-1"],
        "Subnets": ["subnet-1", "subnet-2"],
    }
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.c5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 7,
        "VolumeKmsKeyId": "a-key",
    }
    assert {"Key": "team", "Value": "films"} in request["Tags"]
    assert all(key.startswith(("some/where/the-run/", "lists.jsonl")) for key in keys(emulator))
    head = emulator.s3.head_object(Bucket=emulator.bucket, Key="lists.jsonl")
    assert head["SSEKMSKeyId"] == "a-key"


@pytest.mark.server
def test_context_columns_are_averaged_in_the_lists(emulator, run):
    Path("r.csv").write_bytes(ratings_csv(context=3))
    columns = Path("r.csv").read_text().splitlines()[0].replace('"', "").split(",")
    [name] = set(columns) - {"user", "item", "rating"}
    words = argv(emulator, "r.csv", "lists.jsonl", "--context", name, "--model", "m.fmknn")
    assert run(*words)[0] == 0
    model = fmknn.load("m.fmknn")
    expected = model.recommend(model.users.ids, context_default="mean")
    assert lines(Path("lists.jsonl").read_bytes()) == answers(expected)


@pytest.mark.server
def test_it_says_what_it_does_unless_quiet(emulator, run):
    words = [w for w in argv(emulator, "r.csv", "lists.jsonl", "--run-id", "x") if w != "--quiet"]
    code, out, err = run(*words)
    assert (code, out) == (0, "")
    assert err.splitlines() == ["run x: 600 rows", "lists.jsonl: recommended to 40 users"]


@pytest.mark.server
@pytest.mark.parametrize("search", ["local", "sagemaker"])
def test_cleanup_leaves_nothing_below_the_prefix(emulator, run, search):
    to = f"s3://{emulator.bucket}/out/lists.jsonl"
    words = argv(emulator, "r.csv", to, "--search", search, "--cleanup", "--prefix", "mine")
    assert run(*words) == (0, "", "")
    assert keys(emulator) == ["out/lists.jsonl"]


@pytest.mark.server
def test_a_run_in_steps(emulator, run):
    """--next, with somebody else who creates the jobs: this test."""
    words = argv(emulator, "r.csv", "lists.jsonl", "--run-id", "steps", "--search", "sagemaker")
    plans = []
    while not plans or plans[-1]["action"] != "done":
        assert not Path("lists.jsonl").exists()
        assert run(*words, "--next", "next.json") == (0, "", "")
        plans.append(json.loads(Path("next.json").read_text()))
        if (action := plans[-1]["action"]) != "done":
            client = emulator.clients["sagemaker"]
            getattr(client, f"create_{action}")(**plans[-1]["request"])
    assert [plan["action"] for plan in plans] == [
        *("training_job", "training_job", "transform_job", "done")
    ]
    assert plans[-1] == {"action": "done", "run": "steps"}
    stepwise = Path("lists.jsonl").read_bytes()
    assert run(*words[:-4], "--run-id", "at-once", *words[-2:]) == (0, "", "")
    assert Path("lists.jsonl").read_bytes() == stepwise


# --- what goes wrong --------------------------------------------------------------------------


def assert_one_line_and_nothing_written(run, words, pattern):
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"fmknn: error: [^\n]*{pattern}[^\n]*\n", err), err
    assert before == {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}


COMMAND = ("sagemaker", "r.csv", "--to", "l.jsonl", "--quiet")


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("--role", "Train", "--bucket", "b-b-b"), r"role must be the whole ARN"),
        (("--role", ROLE, "--bucket", "s3://b"), r"bucket must be the name"),
        ((*PLACE, "--set", "epoch=3"), r"--set epoch=3: no such hyperparameter.* epochs, "),
        ((*PLACE, "--set", "epochs=many"), r"--set epochs=many: this must be an integer"),
        ((*PLACE, "--set", "eps=small"), r"--set eps=small: this must be a number"),
        ((*PLACE, "--set", "bias_lr=-1"), r"bias_lr must be a number of at least 0"),
        ((*PLACE, "--set", "bias_lr=nan"), r"bias_lr must be a number of at least 0"),
        ((*PLACE, "--set", "shuffle=True"), r"--set shuffle=True: no such hyperparameter"),
        ((*PLACE, "--set", "lr_schedule=linear"), r"SageMaker can't train with lr_schedule"),
        ((*PLACE, "--set", "epochs=3", "epochs=4"), r"--set epochs is given twice"),
        ((*PLACE, "--tag", "a=b", "a=c"), r"--tag a is given twice"),
        ((*PLACE, "--run-id", "a_b"), r"--run-id must be 1 to 32 letters"),
        ((*PLACE, "--next", "n.json"), r"--next needs --run-id"),
        ((*PLACE, "--subnets", "a"), r"--subnets and --security-groups go together"),
        ((*PLACE, "--image-uri", "pca=x"), r"image_uri maps factorization-machines and knn"),
        ((*PLACE, "--instance-type", "m5"), r"--instance-type must be like ml\.m5\.large"),
        ((*PLACE, "--deadline", "0"), r"deadline must be a number of seconds"),
        ((*PLACE, "--model", "l.jsonl"), r"l\.jsonl is to be written twice"),
        ((*PLACE, "--model", "r.csv"), r"r\.csv: this file is read too"),
        ((*PLACE, "--model", "s3://b"), r"expected an address like s3://bucket/key"),
        ((*PLACE, "--to", "l.csv"), r"l\.csv: only JSON lines can be written"),
        ((*PLACE, "--to", "nowhere/l.jsonl"), r"nowhere: no such folder"),
        (
            (*PLACE, "--run-id", "x", "--to", "s3://a-bucket/fmknn/x/l"),
            r"s3://a-bucket/fmknn/x/l is among the run's own objects",
        ),
        ((*PLACE, "--value", "stars"), r"r\.csv: no column 'stars'"),
    ],
    ids=lambda part: " ".join(part[-2:]) if isinstance(part, tuple) else "",
)
def test_every_error_before_the_first_request_is_one_line(run, words, pattern):
    assert_one_line_and_nothing_written(run, (*COMMAND, *words), pattern)


def test_a_result_in_place_of_its_input_is_refused(run):
    words = ("sagemaker", "s3://a-bucket/r.csv", "--to", "s3://a-bucket/r.csv", *PLACE)
    assert_one_line_and_nothing_written(run, words, r"s3://a-bucket/r\.csv is read too")


@pytest.mark.parametrize(
    "words",
    [
        COMMAND,
        (*COMMAND, "--bucket", "a-bucket"),
        (*COMMAND, *PLACE, "--search", "there"),
        (*COMMAND, *PLACE, "--set", "epochs"),
        (*COMMAND, *PLACE, "--n-factors", "0"),
        ("sagemaker", "r.csv", *PLACE),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_2(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("usage: fmknn sagemaker")


@pytest.mark.parametrize("source", ["r.csv", "s3://a-bucket/r.csv"])
def test_without_boto3_the_extra_is_named(run, monkeypatch, source):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", None)
    words = ("sagemaker", source, "--to", "l.jsonl", *PLACE, "--quiet")
    assert_one_line_and_nothing_written(run, words, r"pip install 'fmknn\[sagemaker\]'")


@pytest.mark.server
@pytest.mark.parametrize(
    ("faults", "words", "pattern"),
    [
        ({"failed": {"fm": "AlgorithmError: out of luck"}}, (), r"training job .* out of luck"),
        ({"max_runtime": ["fm"]}, (), r"time limit: raise --max-runtime"),
        ({"slow": {"fm": float("inf")}}, ("--deadline", "0.1"), r"raise --deadline"),
        ({"quota": True}, (), r"ResourceLimitExceeded.* another --instance-type"),
        ({"nan_weights": True}, (), r"NaN"),
        (
            {"failed": {"transform": "ClientError: payload"}},
            ("--search", "sagemaker"),
            r"transform job .* payload",
        ),
    ],
    ids=["failed", "max-runtime", "deadline", "quota", "nan", "transform"],
)
def test_a_job_that_goes_wrong_is_one_line(emulator, run, faults, words, pattern):
    for name, value in faults.items():
        setattr(emulator.faults, name, value)
    words = argv(emulator, "r.csv", "l.jsonl", "--model", "m.fmknn", *words)
    assert_one_line_and_nothing_written(run, words, pattern)


@pytest.mark.server
def test_what_is_wrong_with_a_file_in_s3_is_told_by_its_address(emulator, run):
    empty = put(emulator, "empty.csv", b"")
    assert_one_line_and_nothing_written(
        run, argv(emulator, empty, "l.jsonl"), rf"{empty}: Empty CSV"
    )
    missing = f"s3://{emulator.bucket}/missing.csv"
    assert_one_line_and_nothing_written(
        run, argv(emulator, missing, "l.jsonl"), rf"reading {missing} failed"
    )


@pytest.mark.server
def test_a_result_that_can_not_be_written_is_one_line(emulator, run):
    emulator.faults.s3_denied = ["/out/"]
    to = f"s3://{emulator.bucket}/out/l.jsonl"
    assert_one_line_and_nothing_written(run, argv(emulator, "r.csv", to), rf"writing {to} failed")


@pytest.mark.server
def test_interrupted_is_130_and_the_job_is_stopped(emulator, run, monkeypatch):
    emulator.faults.slow = {"fm": float("inf")}

    def interrupt(seconds):
        raise KeyboardInterrupt

    watch = SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)  # of the jobs alone
    monkeypatch.setattr("fmknn.backends.sagemaker.jobs.time", watch)
    words = argv(emulator, "r.csv", "l.jsonl")
    assert run(*words) == (130, "", "fmknn: interrupted\n")
    assert requests(emulator, "StopTrainingJob")


def test_the_help_names_the_hyperparameters_that_are_taken(run):
    code, out, _ = run("sagemaker", "--help")
    assert code == 0
    settings = LEARNING[LEARNING.index("--set") + 1 :]
    assert all(setting.split("=")[0] in vars(fmknn.Adam.sagemaker()) for setting in settings)
    shown = re.findall(r"\b([a-z_]+)=[\d.]+", out)
    assert shown
    assert all(name in vars(fmknn.Adam.sagemaker()) for name in shown)
