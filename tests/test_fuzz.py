"""Mutated files of every kind: each is read, or refused in one line by a type that is documented.

What fuzzing found once is kept here as the smallest input that shows it.
"""

from __future__ import annotations

import struct
import tracemalloc
import warnings

import fuzz
import numpy as np
import pytest
from planted import trained
from refusals import refused

import fmknn
from fmknn.backends.sagemaker import recordio
from fmknn.backends.sagemaker.answers import parse_answers
from fmknn.backends.sagemaker.artifact import read_artifact
from fmknn.backends.sagemaker.logs import training_history
from fmknn.backends.sagemaker.mxnet_params import write_params
from fmknn.errors import AnswerError, DivergenceError, ModelFileError
from fmknn.model import storage
from fmknn.model.params import FMParams

CASES, SEED = 5_000, 0
CANARIES = {
    "crash": "the process ended with -6",
    "hang": "hang: Timeout",
    "memory": "4,19",
    "type": "KeyError: \"'x'\"",
    "lines": "not in one line",
    "warning": "RuntimeWarning",
    "bounds": "IndexError",
}


@pytest.fixture(scope="module")
def reports():
    return {report.reader: report for report in fuzz.run(CASES, SEED)}


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.WEIGHTS)
def test_mutated_files_are_read_or_refused(reports, name):
    report = reports[name]
    refusals = {outcome for outcome in report.outcomes if outcome not in ("accepted", "fault")}
    assert report.cases > 100
    assert report.outcomes["accepted"] > report.cases // 20  # else all stop at the door
    assert refusals or name == "training_history"
    assert not report.faults, "\n".join(map(str, report.faults[:5]))


# --- the harness itself --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", CANARIES)
def test_a_fault_is_noticed(what):
    name = f"canary-{what}"
    (report,) = fuzz.run(12, names=[name], hang=2.0 if what == "hang" else fuzz.HANG_SECONDS)
    bad = [n for n in range(12) if fuzz.one_case(fuzz.READERS[name], [], 0, n) == b"!"]
    assert bad and len(bad) < 12
    assert [fault.case for fault in report.faults] == bad
    assert all(CANARIES[what] in fault.what for fault in report.faults), report.faults[0]
    assert report.cases == 12 and report.outcomes == {"accepted": 12 - len(bad), "fault": len(bad)}


@pytest.mark.parametrize("name", [name for name in fuzz.WEIGHTS if name != "fmknn.load"])
def test_a_case_depends_on_reader_seed_and_number_alone(name):
    reader = fuzz.READERS[name]
    corpus = reader.corpus()
    first = [fuzz.one_case(reader, corpus, 0, case) for case in range(40)]
    assert first[::-1] == [fuzz.one_case(reader, reader.corpus(), 0, n) for n in range(39, -1, -1)]
    assert len(set(first)) > 30
    assert first != [fuzz.one_case(reader, corpus, 1, case) for case in range(40)]


# --- what it found -------------------------------------------------------------------------------


def framed(payload):
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)


def row(label=b""):
    """A dense row of one column, with a float64 label or none."""
    features = b"\x0a\x12\x0a\x06values\x12\x08\x12\x06\x0a\x04" + struct.pack("<f", 1.0)
    payload = features + (label and b"\x12\x16\x0a\x06values\x12\x0c\x1a\x0a\x0a\x08" + label)
    return framed(payload)


LABELLED, UNLABELLED = row(struct.pack("<d", 5.0)), row()


@pytest.mark.parametrize("data", [LABELLED + UNLABELLED, UNLABELLED + LABELLED], ids="01")
def test_rows_with_and_without_a_float64_label(data):
    with refused(recordio.RecordIOError, "record 1", "label"):
        recordio.read_matrix(data)


@pytest.mark.parametrize(
    "data, labels", [(LABELLED * 2, [5.0, 5.0]), (UNLABELLED * 2, None)], ids="01"
)
def test_rows_that_all_have_a_float64_label_or_none(data, labels):
    matrix, read = recordio.read_matrix(data)
    assert matrix.tolist() == [[1.0], [1.0]]
    assert read is labels or read.tolist() == labels


@pytest.mark.parametrize("label", ["1e19", "-1e300"])
def test_a_label_beyond_every_integer_is_refused_without_a_warning(label):
    data = b'{"labels": [%s], "distances": [0.5]}' % label.encode()
    with warnings.catch_warnings(), refused(AnswerError, "answer 1", "label"):
        warnings.simplefilter("error")
        parse_answers(data, 1, 1, 10, "a.out")


LINE = "#quality_metric: host=algo-1, epoch={}, train {} <loss>=0.5"


def test_an_epoch_of_more_digits_than_python_converts():
    lines = [LINE.format("9" * 5_000, "rmse"), LINE.format(1, "rmse")]
    assert training_history(lines) == [{"iteration": 2, "rmse": 0.5}]


def test_a_metric_that_is_called_iteration():
    assert training_history([LINE.format(0, "iteration")])[0]["iteration"] == 1


SIGNALLING_NAN = np.array([0x7FF0000000000001], np.uint64).view(np.float64)  # rare, not forbidden


def test_a_row_with_a_signalling_nan_is_refused_without_a_warning():
    data = framed(b"\x0a\x16\x0a\x06values\x12\x0c\x1a\x0a\x0a\x08" + SIGNALLING_NAN.tobytes())
    with warnings.catch_warnings(), refused(recordio.RecordIOError, "record 0", "NaN"):
        warnings.simplefilter("error")
        recordio.read_matrix(data)


@pytest.mark.parametrize("name", ["v", "w1_weight", "w0_weight"])
def test_an_artifact_with_a_signalling_nan_is_refused_without_a_warning(name):
    arrays = {"v": np.ones((1, 1)), "w1_weight": np.ones(1), "w0_weight": np.ones(1)}
    arrays[name] = SIGNALLING_NAN.reshape(arrays[name].shape)
    data = write_params({f"arg:{key}": array for key, array in arrays.items()})
    with warnings.catch_warnings(), refused(DivergenceError, name, "NaN"):
        warnings.simplefilter("error")
        read_artifact(data)


@pytest.mark.parametrize(
    "name", ["model/w", "model/V", "catalog/item_rows/values", "index/centroids"]
)
def test_a_saved_model_with_a_signalling_nan_is_refused_without_a_warning(tmp_path, name):
    path = tmp_path / "model.fmknn"
    trained("ids").with_index(fmknn.FaissIndex("IVF", nlist=3)).save(path)
    arrays, metadata = storage.load(path)
    bits = arrays[name].astype(np.float64).view(np.uint64)
    bits.flat[0] = SIGNALLING_NAN.view(np.uint64)[0]
    storage.save(path, {**arrays, name: bits.view(np.float64)}, metadata)
    with warnings.catch_warnings(), refused(ModelFileError, path, "NaN"):
        warnings.simplefilter("error")
        fmknn.load(path)


@pytest.mark.parametrize("kind", ["a\nb", "long" * 1000, ["list"] * 1000, None])
def test_a_saved_thing_of_another_kind_is_refused_in_one_short_line(tmp_path, kind):
    path = tmp_path / "model.fmknn"
    storage.save(path, {}, {"kind": kind})
    with refused(ModelFileError, path, "not a recommender") as caught:
        fmknn.load(path)
    assert len(str(caught.value)) < len(str(path)) + 80


def with_large_vectors(path, sides, number):
    """Save a model in which vectors of these sides hold this number."""
    trained("everything").save(path)
    arrays, metadata = storage.load(path)
    arrays["model/V"] = np.full_like(arrays["model/V"], 2.0)
    for side in sides:
        most = np.diff(arrays[f"catalog/{side}/indptr"]).max()
        values = arrays[f"catalog/{side}/values"]
        arrays[f"catalog/{side}/values"] = np.full_like(values, number / 2 / most)
    storage.save(path, arrays, metadata)


@pytest.mark.parametrize(
    "sides, number",
    [(["user_rows"], 6e38), (["context0/rows"], 6e38), (["user_rows", "context0/rows"], 2e38)],
    ids=["user", "context", "sum"],
)
def test_a_saved_model_whose_queries_would_overflow_is_refused(tmp_path, sides, number):
    path = tmp_path / "model.fmknn"
    with_large_vectors(path, sides, number)
    with refused(ModelFileError, path, "users", "float32"):
        fmknn.load(path)


@pytest.mark.parametrize("side", ["user_rows", "context0/rows"])
def test_a_saved_model_whose_queries_almost_overflow_is_served(tmp_path, side):
    path = tmp_path / "model.fmknn"
    with_large_vectors(path, [side], 3e38)
    model = fmknn.load(path)
    context = {name: column.ids.ids[0] for name, column in model.catalog_.contexts.items()}
    top = model.recommend(model.users.ids[:3], 2, context=context)
    assert np.isfinite(top.scores).all() and (top.positions >= 0).all()


def model_of_one_feature(path, n_items, n_factors):
    """Save a model whose one feature no user and no item has, and return its size."""
    trained("ids").save(path)
    arrays, metadata = storage.load(path)
    for side, rows in (("user", len(arrays["catalog/users"])), ("item", n_items)):
        arrays[f"catalog/{side}_rows/indptr"] = np.zeros(rows + 1, np.int64)
        arrays[f"catalog/{side}_rows/indices"] = np.zeros(0, np.int32)
        arrays[f"catalog/{side}_rows/values"] = np.zeros(0, np.float32)
    arrays["catalog/items"] = np.arange(n_items)
    arrays |= {"model/w": np.zeros(1, "f4"), "model/V": np.zeros((1, n_factors), "f4")}
    metadata["catalog"]["n_features"] = 1
    del metadata["catalog"]["sides"]  # as in older files: there are no ids among the features
    metadata["estimator"]["params"]["n_factors"] = n_factors
    storage.save(path, arrays, metadata)
    return path.stat().st_size


def test_a_saved_model_whose_item_vectors_would_be_far_larger_than_its_file(tmp_path):
    path = tmp_path / "model.fmknn"
    size = model_of_one_feature(path, 4096, 4096)  # 100 kB of file for 67 MB of vectors
    tracemalloc.start()
    try:
        with refused(ModelFileError, path, "4096 items", "4097 numbers"):
            fmknn.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * size + (1 << 20)


@pytest.mark.parametrize("n_items, n_factors", [(3000, 1023), (200, 5000)])
def test_a_saved_model_whose_item_vectors_are_larger_than_its_file(tmp_path, n_items, n_factors):
    path = tmp_path / "model.fmknn"
    size = model_of_one_feature(path, n_items, n_factors)
    model = fmknn.load(path)
    assert model.index_.vectors.nbytes > 50 * size
    model.save(path)
    assert fmknn.load(path).index_.vectors.shape == (n_items, n_factors + 1)


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "model.fmknn"
    model_of_one_feature(path, 3000, 1023)
    saved, model = path.read_bytes(), fmknn.load(path)
    arrays = model.estimator_.params_.to_state() | {"V": np.zeros((1, 2000), np.float32)}
    model.estimator_.params_ = FMParams.from_state(arrays)
    with refused(ValueError, "3000 items", "2001 numbers"):
        model.save(path)
    assert path.read_bytes() == saved
