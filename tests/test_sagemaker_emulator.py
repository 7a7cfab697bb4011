"""The SageMaker emulator of the tests: its arithmetic and bytes, and what boto3 sees of it."""

from __future__ import annotations

import ast
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("google.protobuf")

import scipy.sparse
from botocore.exceptions import ClientError
from sagemaker_emulator import Emulator, fm, params, recordio, transform
from sagemaker_emulator.bench import FM, KNN, Bench, answers, fm_settings, knn_settings, records

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
GENUINE = HERE / "fixtures" / "sagemaker" / "emulator"
GOLDEN = HERE / "fixtures" / "golden_fm_adam.mxnet-1.2.1.npz"
SETTINGS = [
    "big_lr", "big_wd", "clip", "clip_regressor", "default", "dense_standard", "eps", "no_wd",
    "real_values", "regressor", "rescale_one",
]  # fmt: skip


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def bench(emulator):
    emulator.initial = None
    emulator.faults.clear()
    return Bench(emulator)


# --- bytes and arithmetic -------------------------------------------------------------------------


def test_imports_nothing_from_the_package_under_test():
    for path in (HERE / "sagemaker_emulator").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            assert not any("fmknn" in name for name in [*names, getattr(node, "module", "") or ""])
    code = "import sys, sagemaker_emulator; assert 'fmknn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True)


@pytest.mark.parametrize(
    "name", ["sparse_f32_fm_onehot", "sparse_f32_empty_row", "dense_f32_labels_f32"]
)
def test_reads_what_the_sdk_wrote(name):
    rows = read(name)
    expected = np.load(GENUINE / f"{name}.pbr.expected.npz")
    X = rows.X if rows.dense else rows.X.toarray()
    assert rows.dense == name.startswith("dense")
    np.testing.assert_array_equal(X, expected["X"])
    np.testing.assert_array_equal(rows.y, expected["y"])


def test_reads_records_that_dmlc_split():
    payloads = [p for _, p in recordio.frames((GENUINE / "dmlc_multipart.rec").read_bytes())]
    magic = struct.pack("<I", recordio.MAGIC)
    assert payloads[:10] == [
        b"", b"a", b"ab", b"abc", b"abcd", magic, b"1234" + magic + b"5678", magic * 3,
        b"xx" + magic + b"y", b"1234" + magic,
    ]  # fmt: skip
    assert set(payloads[10]) == set(b"z") and len(payloads) == 11


def test_refuses_other_tensors_and_broken_frames():
    with pytest.raises(recordio.BadDataError, match="float64_tensor, expected float32_tensor"):
        read("sparse_f64")
    data = (GENUINE / "dense_f32_labels_f32.pbr").read_bytes()
    for broken, words in [(data[:-1], "passes the end"), (b"\0" * 8, "no RecordIO magic")]:
        with pytest.raises(recordio.BadDataError, match=words):
            list(recordio.frames(broken))


@pytest.mark.parametrize("name", SETTINGS)
def test_trains_as_mxnet_does(name):
    data, settings, dense, meta = golden(name)
    X = np.zeros((len(data["y"]), len(data["V0"])), np.float32)
    np.put_along_axis(X, data["cols"], data["vals"], axis=1)
    rows = recordio.Rows(X if dense else scipy.sparse.csr_matrix(X), data["y"])
    trainer = fm.Trainer(settings, data["b0"], data["w0"], data["V0"])
    batches = fm.batches_of(rows, meta["batch"])
    for epoch in range(meta["epochs"]):
        for _ in fm.epoch_metrics(trainer, batches):
            pass
        np.testing.assert_allclose(trainer.V, data["V"][epoch], rtol=0, atol=2e-6)
        np.testing.assert_allclose(trainer.w, data["w"][epoch][:, 0], rtol=0, atol=4e-6)
        np.testing.assert_allclose(trainer.w0, data["b"][epoch][0], rtol=0, atol=2e-5)


def test_writes_mxnets_bytes():
    rows = np.array([[1, 2], [-3, 4]], np.float32)
    written = params.ndarray_list({"arg:v": params.row_sparse(np.array([1, 4]), rows, (6, 2))})
    assert written == (GENUINE / "row_sparse_f32.params").read_bytes()
    genuine = np.load(GENUINE / "fm_regressor_row_sparse.expected.npz")
    written = params.fm_params(genuine["b"][0, 0], genuine["w"][:, 0], genuine["V"])
    assert written == (GENUINE / "fm_regressor_row_sparse.params").read_bytes()


def test_the_graph_has_mxnets_operators():
    genuine = json.loads((GENUINE / "fm_regressor_row_sparse.symbol.json").read_text())
    ours = json.loads(params.fm_symbol(12, 4, regressor=True))
    assert sorted(n["op"] for n in ours["nodes"]) == sorted(n["op"] for n in genuine["nodes"])
    assert ours["nodes"][-1]["op"] == "LinearRegressionOutput"
    assert all(i < at for at, n in enumerate(ours["nodes"]) for i, *_ in n["inputs"])


# --- with boto3: training -------------------------------------------------------------------------


def test_a_model_that_stands_still_is_mxnets_file(bench):
    """With no learning rate the artifact is the genuine one, and the test score MXNet's."""
    genuine = np.load(GENUINE / "fm_regressor_row_sparse.expected.npz")
    bench.emulator.initial = {"w0": genuine["b"], "w": genuine["w"], "V": genuine["V"]}
    uri = bench.place("train", records(genuine["X"], genuine["y"][:, 0], sparse=True))
    still = dict.fromkeys(("bias_lr", "linear_lr", "factors_lr"), "0")
    job = bench.train(FM, fm_settings(12, 4, **still), train=uri, test=uri)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    members = bench.artifact(job)
    assert list(members) == ["model_algo-1"]
    inner = zipfile.ZipFile(io.BytesIO(members["model_algo-1"]))
    assert sorted(inner.namelist()) == ["params", "symbol.json"]
    assert inner.read("params") == (GENUINE / "fm_regressor_row_sparse.params").read_bytes()
    (metric,) = job["FinalMetricDataList"]
    rmse = np.sqrt(np.mean((genuine["pred"] - genuine["y"]) ** 2))
    assert metric["MetricName"] == "test:rmse" and metric["Value"] == pytest.approx(rmse, 1e-4)


def test_trains_what_is_in_s3(bench):
    data, settings, _, meta = golden("default")
    bench.emulator.initial = {"w0": data["b0"], "w": data["w0"], "V": data["V0"]}
    X = np.zeros((len(data["y"]), len(data["V0"])), np.float32)
    np.put_along_axis(X, data["cols"], data["vals"], axis=1)
    first = bench.place("train/a", records(X[:25], data["y"][:25], sparse=True))
    bench.place("train/b", records(X[25:], data["y"][25:], sparse=True))
    hyper = {**settings, "feature_dim": len(X.T), "num_factors": 3, "epochs": meta["epochs"]}
    job = bench.train(FM, {k: str(v) for k, v in hyper.items()}, train=first.removesuffix("a"))
    inner = zipfile.ZipFile(io.BytesIO(bench.artifact(job)["model_algo-1"])).read("params")
    V = np.frombuffer(inner[: -8 - 2 * (8 + 13) - (8 + 5) - 8 * len(X.T)][-12 * len(X.T) :], "<f4")
    np.testing.assert_allclose(V.reshape(-1, 3), data["V"][-1], rtol=0, atol=2e-6)

    steps = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert steps == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["BillableTimeInSeconds"] == 1 and "FailureReason" not in job
    log = bench.log(job)
    for epoch in range(meta["epochs"]):
        head = f"#quality_metric: host=algo-1, epoch={epoch}, train binary_"
        for metric in ["classification_accuracy <score>", "f_1.000 <score>"]:
            assert any(f"{head}{metric}=0." in line for line in log)
    assert any("completed 50.0 % of epochs" in line for line in log)
    assert any(
        "epoch=0, batch=0 train binary_classification_cross_entropy <loss>=" in x for x in log
    )


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"mini_batch_siz": "5"}, "(u'mini_batch_siz' was unexpected)"),
        ({"epochs": "abc"}, "AlgorithmError: u'abc' is not valid under any of the given schemas"),
        ({"epochs": "0"}, "u'0' is not valid"),
        ({"factors_lr": "-1"}, "u'-1' is not valid"),
        ({"num_factors": None}, "No value(s) were specified for 'num_factors' which are required"),
        ({"feature_dim": "13"}, "size 12 to array axis with dimension 13"),
        ({"predictor_type": "binary_classifier"}, "must be 0 or 1"),
    ],
)
def test_the_container_refuses_hyperparameters(bench, changed, reason):
    uri = bench.place("train", (GENUINE / "sparse_f32_fm_onehot.pbr").read_bytes())
    hyper = {k: v for k, v in (fm_settings(12, 2) | changed).items() if v is not None}
    job = bench.train(FM, hyper, train=uri)
    assert job["TrainingJobStatus"] == "Failed" and reason in job["FailureReason"]
    assert job["ModelArtifacts"] == {}
    assert any(reason in line for line in bench.log(job))


def test_the_container_refuses_other_data(bench):
    doubles = bench.place("f64", (GENUINE / "sparse_f64.pbr").read_bytes())
    reason = bench.train(FM, fm_settings(12, 2), train=doubles)["FailureReason"]
    assert reason.startswith("ClientError: Unable to read data channel 'train'. Requested content")
    # a prefix is the beginning of a string: this one matches both objects
    bench.place("train/a", (GENUINE / "sparse_f32_fm_onehot.pbr").read_bytes())
    both = bench.place("train_knn/a", (GENUINE / "dense_f32_labels_f32.pbr").read_bytes())
    reason = bench.train(FM, fm_settings(12, 2), train=both[: -len("_knn/a")])["FailureReason"]
    assert "another shape than the records before it" in reason
    request = bench.request(FM, fm_settings(12, 2), train=both)
    request["ResourceConfig"]["InstanceCount"] = 2  # and one object to share out
    where = request["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    where["S3DataDistributionType"] = "ShardedByS3Key"
    bench.sagemaker.create_training_job(**request)
    assert bench.wait("Training", request["TrainingJobName"])["TrainingJobStatus"] == "Failed"
    other = bench.train("x/pca:1", {}, train=doubles)
    assert other["TrainingJobStatus"] == "Failed"


# --- with boto3: k-NN -----------------------------------------------------------------------------


def test_the_best_neighbour_comes_last(bench):
    items, users = np.random.default_rng(1).normal(size=(2, 30, 5)).astype(np.float32)
    lines = answers(bench.neighbours(bench.model(items, k=4), users[:7]))
    products = users[:7] @ items.T
    assert len(lines) == 7
    for line, row in zip(lines, products, strict=True):
        best = np.argsort(-row)[:4][::-1]
        assert line["labels"] == [float(i) for i in best]
        np.testing.assert_allclose(line["distances"], row[best], rtol=1e-5)
        assert line["distances"] == sorted(line["distances"])


def test_more_neighbours_than_items_and_sampling(bench):
    items = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    (all_of_them,) = answers(bench.neighbours(bench.model(items, k=50), items[:1]))
    assert sorted(all_of_them["labels"]) == list(range(20))
    few = bench.model(items, k=50, sample_size="12")
    (sampled,) = answers(bench.neighbours(few, items[:1]))
    assert len(set(sampled["labels"])) == 12  # eight items are gone, without a word
    cells = {"index_type": "faiss.IVFFlat", "faiss_index_ivf_nlists": "4"}
    (cell,) = answers(bench.neighbours(bench.model(items, k=50, **cells), items[:1]))
    assert 0 < len(cell["labels"]) < 20 and min(cell["labels"]) >= 0


def test_knn_refusals(bench):
    uri = bench.place("items", records(np.ones((4, 3), np.float32), np.arange(4)))
    pq = bench.train(KNN, knn_settings(3, 2, 4, index_type="faiss.IVFPQ"), train=uri)
    assert "IVFPQ does not support index_metric INNER_PRODUCT" in pq["FailureReason"]
    width = bench.train(KNN, knn_settings(5, 2, 4), train=uri)
    assert "size 3 to array axis with dimension 5" in width["FailureReason"]


def test_objects_are_cut_into_requests():
    data = records(np.ones((100, 10), np.float32), None)
    size = len(data) // 100
    parts = list(transform.requests_of(data, "RecordIO", "MultiRecord", 8 * size))
    assert [len(part) for part in parts] == [8] * 12 + [4]
    assert [p for part in parts for p in part] == [p for _, p in recordio.frames(data)]
    assert len(list(transform.requests_of(data, "RecordIO", "SingleRecord", 8 * size))) == 100
    assert len(list(transform.requests_of(data, "None", "MultiRecord", len(data)))) == 1
    for split, most in [("None", len(data) - 1), ("RecordIO", size - 1)]:
        with pytest.raises(transform.TransformError, match="max payload size"):
            list(transform.requests_of(data, split, "MultiRecord", most))


def test_a_transform_over_several_requests(bench):
    items = np.random.default_rng(3).normal(size=(5, 2000)).astype(np.float32)
    users = np.random.default_rng(4).normal(size=(300, 2000)).astype(np.float32)
    model = bench.model(items, k=2)
    whole, parts = (bench.neighbours(model, users, MaxPayloadInMB=mb) for mb in (6, 1))
    assert len(answers(whole)) == len(answers(parts)) == 300
    for one, other in zip(answers(whole), answers(parts), strict=True):
        assert one["labels"] == other["labels"]
        np.testing.assert_allclose(one["distances"], other["distances"], rtol=1e-4)
    glued = bench.neighbours(model, users, MaxPayloadInMB=1, AssembleWith="None")
    assert b"}{" in glued and not glued.endswith(b"\n")
    terse = bench.neighbours(model, users[:2], Accept="application/jsonlines")
    assert [list(line) for line in answers(terse)] == [["predicted_label"]] * 2
    uri = bench.place("users", records(users, None))
    job = bench.transform(model, uri, MaxPayloadInMB=1, SplitType="None")
    assert job["TransformJobStatus"] == "Failed" and "job logs" in job["FailureReason"]
    assert bench.keys("answers/users.out") == []


# --- with boto3: refusals of the API --------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"TrainingJobName": "a_b"}, "Value 'a_b' at 'trainingJobName' failed to satisfy constrai"),
        ({"TrainingJobName": "a" * 64}, "length less than or equal to 63"),
        ({"RoleArn": "arn:aws:iam::1:user/somebody"}, "at 'roleArn' failed to satisfy constraint"),
        ({"HyperParameters": {"epochs": "1" * 2501}}, "at 'hyperParameters.epochs.member' failed"),
        ({"ResourceConfig": {"InstanceType": "ml.none"}}, "Member must satisfy enum value set: ["),
        ({"ResourceConfig": {"InstanceCount": -1}}, "value greater than or equal to"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
            "1 validation error detected: Value '0",
        ),
        ({"AlgorithmSpecification": {"TrainingInputMode": "file"}}, "enum value set"),
        (
            {"RoleArn": ...},
            "Value null at 'roleArn' failed to satisfy constraint: Member must not be nu",
        ),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
    ],
)
def test_what_the_api_does_not_accept(bench, changed, words):
    unchecked = bench.emulator.client("sagemaker", parameter_validation=False)
    request = bench.request(FM, fm_settings(12, 2), train=bench.place("train", b"x"))
    for name, value in changed.items():
        request[name] = request[name] | value if isinstance(value, dict) else value
    request = {name: value for name, value in request.items() if value is not ...}
    with pytest.raises(ClientError) as caught:
        unchecked.create_training_job(**request)
    assert code(caught) == "ValidationException" and words in str(caught.value)
    assert bench.emulator.requests[-1][0] == "CreateTrainingJob"


def test_names_and_things_that_are_not_there(bench):
    uri = bench.place("items", records(np.ones((4, 3), np.float32), np.arange(4)))
    sm = bench.sagemaker
    request = bench.request(KNN, knn_settings(3, 2, 4), train=uri)
    sm.create_training_job(**request)
    with pytest.raises(sm.exceptions.ResourceInUse, match="must be unique"):
        sm.create_training_job(**request)
    job = bench.wait("Training", request["TrainingJobName"])
    model = {
        "ModelName": request["TrainingJobName"],
        "ExecutionRoleArn": bench.emulator.role,
        "PrimaryContainer": {"Image": KNN, "ModelDataUrl": uri + "-not"},
    }
    name = {"TrainingJobName": request["TrainingJobName"]}
    for call, arguments, words in [
        (sm.describe_training_job, {"TrainingJobName": "x"}, "Requested resource not found."),
        (sm.stop_training_job, {"TrainingJobName": "x"}, "Requested resource not found."),
        (sm.stop_training_job, name, "because the training job is in status Completed."),
        (sm.delete_model, {"ModelName": "x"}, "Could not find model"),
        (sm.describe_model, {"ModelName": "x"}, "Could not find model"),
        (sm.create_model, model, "Could not find model data at s3://"),
        (sm.create_transform_job, bench.transform_request("x", uri), "Could not find model"),
        (
            sm.create_training_job,
            bench.request(KNN, {}, train="s3://no-such-bucket/x"),
            'No S3 objects found under S3 URL "s3://no-such-bucket/x" given in input data source.',
        ),
    ]:
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        assert code(caught) == "ValidationException" and words in str(caught.value)
    model["PrimaryContainer"]["ModelDataUrl"] = job["ModelArtifacts"]["S3ModelArtifacts"]
    sm.create_model(**model)
    assert model["ModelName"] in bench.emulator.models()
    assert sm.describe_model(ModelName=model["ModelName"])["PrimaryContainer"]["Image"] == KNN
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        sm.create_model(**model)
    sm.delete_model(ModelName=model["ModelName"])
    assert model["ModelName"] not in bench.emulator.models()
    with pytest.raises(ClientError) as caught:
        sm.list_endpoints()
    assert code(caught) == "UnknownOperationException"


def test_clients_by_environment_and_a_fresh_start(bench):
    code = (
        "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name']);"
        "boto3.client('logs').describe_log_groups();"
        "boto3.client('sagemaker').describe_training_job(TrainingJobName='x')"
    )
    environment = os.environ | bench.emulator.env()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().strip() == bench.emulator.bucket
    assert b"Requested resource not found." in done.stderr


# --- helpers --------------------------------------------------------------------------------------


def read(name: str) -> recordio.Rows:
    data = (GENUINE / f"{name}.pbr").read_bytes()
    return recordio.read_rows(payload for _, payload in recordio.frames(data))


def golden(name: str):
    """Data, settings for the trainer, whether dense, and the file's description."""
    file = np.load(GOLDEN, allow_pickle=False)
    meta = json.loads(str(file["meta"]))
    config = dict(meta["cfg"][name])
    dense = config.pop("dense", False)
    config.pop("real", None)
    kind = config.pop("kind", "binary_classifier")
    data = {key.split("/")[1]: file[key] for key in file.files if key.startswith(name + "/")}
    return data, {"predictor_type": kind, "mini_batch_size": meta["batch"], **config}, dense, meta


def code(caught) -> str:
    return caught.value.response["Error"]["Code"]
