"""SageMaker's model archives: what MXNet predicted is what we score, and no archive does harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from fmknn import FMParams
from fmknn.backends.sagemaker.archive import unwrap
from fmknn.backends.sagemaker.artifact import FMArtifact, read_artifact, write_artifact
from fmknn.backends.sagemaker.mxnet_params import write_params
from fmknn.errors import DivergenceError, ModelFileError

FIXTURES = Path(__file__).parent / "fixtures" / "sagemaker"
MODELS = sorted(path.parent for path in FIXTURES.glob("mxnet-*/fm_*/expected.npz"))
SYMBOL = (MODELS[0] / "model-symbol.json").read_bytes()
PARAMS = write_params(
    {
        "arg:w1_weight": np.array([[0.5], [0.25]], np.float32),
        "arg:w0_weight": np.array([[1.0]], np.float32),
        "arg:v": np.array([[1.0], [2.0]], np.float32),
    }
)


def shown(path):
    return str(path.relative_to(FIXTURES))


def in_words(value):
    """An id for bytes, and for the words of an error."""
    return (
        " ".join(map(str, value))
        if isinstance(value, list)
        else str(value if isinstance(value, int) else len(value))
    )


# ---- archives by the standard library, which the reader's tar part does not use ----


def zipped(method=zipfile.ZIP_DEFLATED, **members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return packed.getvalue()


def tarred(members, format=tarfile.GNU_FORMAT):
    """A tar of (name or TarInfo, bytes)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as tar:
        for name, content in members:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def artifact(members, **options):
    return gzip.compress(tarred(members, **options))


ZIP = zipped(symbol__json=SYMBOL, params=PARAMS)
MODEL = artifact([("model_algo-1", ZIP)])


def is_the_model(found):
    return found.params.score([[1.0, 1.0]]) == 1 + 0.75 + 2


# ---- what MXNet wrote, packed as SageMaker packs it ----


def predicted(found, expected, folder):
    score = found.params.score(expected["X"])
    return 1 / (1 + np.exp(-score)) if "classifier" in folder.name else score


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (folder, name)
        for name in ["model.tar.gz", "model-0000.params", "both", "zip"]
        for folder in MODELS
        # MXNet before 1.0 is older than SageMaker: there are no such archives
        if "mxnet-0" not in str(folder) or name != "model.tar.gz"
    ],
    ids=lambda value: value if isinstance(value, str) else shown(value),
)
def test_the_score_is_what_mxnet_predicts(folder, name):
    params, symbol = (folder / n for n in ("model-0000.params", "model-symbol.json"))
    if name == "both":
        source = artifact([(f"./a/{path.name}", path.read_bytes()) for path in (symbol, params)])
    elif name == "zip":
        source = zipped(symbol__json=symbol.read_bytes(), params=params.read_bytes())
    else:
        source = folder / name
    found = read_artifact(source)
    loss = "logistic" if "classifier" in folder.name else "squared"
    assert found.loss == (None if name == "model-0000.params" else loss)
    with np.load(folder / "expected.npz") as expected:
        np.testing.assert_array_equal(found.params.V, expected["V"])
        np.testing.assert_array_equal(found.params.w, expected["w"].ravel())
        assert found.params.w0 == expected["b"].item()
        if "pred" in expected:
            ours = predicted(found, expected, folder)
            np.testing.assert_allclose(ours, expected["pred"].ravel(), rtol=1e-5, atol=1e-5)


def test_there_are_predictions_of_four_versions():
    folders = [path for path in MODELS if "pred" in np.load(path / "expected.npz")]
    assert len(folders) >= 12 and len({path.parent for path in folders}) == 4


@pytest.mark.parametrize("path", sorted((FIXTURES / "packaging").iterdir()), ids=shown)
def test_other_ways_to_pack_it(path):
    folder = FIXTURES / "mxnet-1.2.1" / "fm_regressor_row_sparse"
    with np.load(folder / "expected.npz") as expected:
        ours = predicted(read_artifact(path), expected, folder)
        np.testing.assert_allclose(ours, expected["pred"].ravel(), rtol=1e-5, atol=1e-5)


# ---- written, and run by MXNet ----


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_bytes_are_those_that_mxnet_ran(loss, tmp_path):
    with np.load(FIXTURES / "written" / "artifact.mxnet-1.9.1.npz") as golden:
        params = FMParams(golden["w0"], golden["w"], golden["V"])
        score, expected = params.score(golden["X"]), golden[loss]
        sha256 = json.loads(golden["meta"].item())["sha256 of the tar"][loss]
    write_artifact(tmp_path / "model.tar.gz", params, loss)
    tar = gzip.decompress((tmp_path / "model.tar.gz").read_bytes())  # zlib's bytes may vary
    assert hashlib.sha256(tar).hexdigest() == sha256
    ours = 1 / (1 + np.exp(-score)) if loss == "logistic" else score
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_written_and_read_again(loss, tmp_path):
    rng = np.random.default_rng(3)
    params = FMParams(0.5, rng.normal(size=30), rng.normal(size=(30, 7)))
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"what was there before")
    write_artifact(path, params, loss)
    for source in (path, str(path), path.read_bytes(), gzip.decompress(path.read_bytes())):
        found = read_artifact(source)
        assert found.loss == loss and found.params.w0 == 0.5
        np.testing.assert_array_equal(found.params.V, params.V)
        np.testing.assert_array_equal(found.params.w, params.w)
    write_artifact(tmp_path / "again.tar.gz", params, loss)
    assert (tmp_path / "again.tar.gz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("params", "loss", "words"),
    [
        (FMParams(0, [1], [[1]]), "hinge", ["loss", "'hinge'"]),
        (FMParams(0, [1], [[1]], [0.5]), "squared", ["cutpoints", "ordinal"]),
        (FMParams(1e300, [1], [[1]]), "squared", ["w0", "float32"]),
        (FMParams(0, [1], np.zeros((1, 0))), "squared", ["arg:v", "(1, 0)"]),
    ],
)
def test_what_cannot_be_written_replaces_nothing(params, loss, words, tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"before")
    with refused(ValueError, *words):
        write_artifact(path, params, loss)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["model.tar.gz"]


# ---- where things may be, and what they are called ----

LONG = "a-folder-of=forty-characters-in-its-name/" * 4 + "model_algo-1"


@pytest.mark.parametrize(
    "source",
    [
        MODEL,
        tarred([("model_algo-1", ZIP)]),
        artifact([("./opt/ml/model/model_algo-1", ZIP)]),
        artifact([(LONG, ZIP)]),
        artifact([(LONG, ZIP)], format=tarfile.PAX_FORMAT),
        artifact([("é/model_algo-1", ZIP)], format=tarfile.PAX_FORMAT),
        artifact([("model_algo-1", ZIP)], format=tarfile.USTAR_FORMAT),
        artifact([("a" * 200, b"x" * 700), ("._model_algo-1", b"mac"), ("model_algo-1", ZIP)]),
        artifact([("model_algo-1", PARAMS)]),
        artifact([("state-0001.params", PARAMS), ("state-symbol.json", SYMBOL)]),
        artifact([("state-0001.params", b""), ("model_algo-1", ZIP)][1:]),
        artifact([("state-0001.params", PARAMS), ("model_algo-1", ZIP)]),
        ZIP,
        zipped(**{"x/params": PARAMS, "x/state-0001.params": PARAMS, "x/hyper__json": b"{"}),
        zipped(zipfile.ZIP_STORED, params=PARAMS),
        PARAMS,
        bytearray(MODEL),
    ],
    ids=in_words,
)
def test_every_place_it_may_be_in(source):
    assert is_the_model(read_artifact(source))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2), (1, 2, 1)])
@pytest.mark.parametrize("prefix", ["", "arg:"])
def test_shapes_dtypes_and_names(dtype, shape, prefix):
    arrays = {
        "v": np.array([[1], [2]], dtype),
        "w1_weight": np.array([0.5, 0.25], dtype).reshape(shape),
        "w0_weight": np.ones((1,) * len(shape), dtype),
        "aux:anything": np.zeros(3, np.int32),
    }
    named = {name if ":" in name else prefix + name: array for name, array in arrays.items()}
    assert is_the_model(read_artifact(write_params(named)))


@pytest.mark.parametrize(
    ("operators", "loss"),
    [
        (["null", "LogisticRegressionOutput"], "logistic"),
        (["LinearRegressionOutput", "LinearRegressionOutput"], "squared"),
        (["LinearRegressionOutput", "LogisticRegressionOutput"], None),
        (["MakeLoss"], None),
        ([], None),
    ],
)
def test_the_loss_is_what_the_graph_puts_out(operators, loss):
    symbol = json.dumps({"nodes": [{"op": name, "name": "out"} for name in operators]})
    assert read_artifact(zipped(params=PARAMS, symbol__json=symbol)).loss == loss


def test_a_frozen_result():
    found = read_artifact(PARAMS)
    assert isinstance(found, FMArtifact)
    with pytest.raises(AttributeError):
        found.loss = "squared"


# ---- what is no model, and says so ----


def params_with(**arrays):
    full = {"v": [[1], [2]], "w1_weight": [[0.5], [0.25]], "w0_weight": [1]} | arrays
    return write_params(
        {f"arg:{name}": np.asarray(a, getattr(a, "dtype", np.float32)) for name, a in full.items()}
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", ["no SageMaker model", "model.tar.gz"]),
        (b"hello" * 1000, ["no SageMaker model"]),
        (gzip.compress(b"hello" * 1000), ["no SageMaker model"]),
        (artifact([("readme.txt", b"?")]), ["neither model_algo-1 nor params"]),
        (artifact([]), ["neither"]),
        (zipped(readme=b"?"), ["neither"]),
        (artifact([("model_algo-1", b"IxFI" + bytes(99))]), ["model_algo-1", "IxFI", "k-NN"]),
        (artifact([("model_algo-1", b"")]), ["zip", "damaged"]),
        (artifact([("model_algo-1", ZIP[:-30])]), ["zip", "damaged"]),
        (artifact([("model_algo-1", ZIP), ("b/model_algo-1", ZIP)]), ["more than one", "b/model"]),
        (artifact([("a-0001.params", PARAMS), ("a-0002.params", PARAMS)]), ["more than one"]),
        (zipped(**{"a-0001__params": PARAMS, "a-0002__params": PARAMS}), ["more than one params"]),
        (zipped(params=b"PK\x03\x04" + bytes(30)), ["params", "begins with"]),
        (zipped(params=PARAMS, symbol__json=b"not JSON"), ["symbol.json", "damaged"]),
        (zipped(params=PARAMS, symbol__json=b"\xff\xfe\xfd"), ["symbol.json", "damaged"]),
        (zipped(params=PARAMS, symbol__json=b"[1]"), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b'{"nodes": 3}'), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b'{"nodes": [{"op": []}]}'), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b"[" * 10**6), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b'{"a":' * 10**5), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b"9" * 10**6), ["symbol.json"]),
        (zipped(params=PARAMS, symbol__json=b" " * (2**20 + 1)), ["symbol.json", "1048577"]),
        (zipped(zipfile.ZIP_BZIP2, params=PARAMS), ["params", "deflate"]),
        (zipped(zipfile.ZIP_LZMA, params=PARAMS), ["params", "deflate"]),
        (write_params({}), ["no factorization machine", "nothing"]),
        (write_params({"arg:fc1_weight": np.ones(2)}), ["v, w1_weight, w0_weight", "fc1_weight"]),
        (write_params({"aux:v": np.ones(2)}), ["no v,", "'aux:v'"]),
        (write_params({"v": np.ones(2), "arg:v": np.ones(2)}), ["'v'", "twice"]),
        (params_with(v=[1, 2]), ["(2,)"]),
        (params_with(v=[[1], [2], [3]]), ["(3, 1)", "(2, 1)"]),
        (params_with(w0_weight=[1, 2]), ["w0_weight", "(2,)"]),
        (params_with(v=np.array([[1], [2]])), ["v", "int64"]),
    ],
    ids=in_words,
)  # fmt: skip
def test_what_is_no_model(source, words):
    with refused(ModelFileError, *words):
        read_artifact(source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v": [[1], [np.nan]]}, ["v", "row 1"]),
        ({"v": [[1, 2], [np.inf, 1]]}, ["v", "row 1"]),
        ({"w1_weight": [[1], [-np.inf]]}, ["w1_weight", "row 1"]),
        ({"w0_weight": [np.nan]}, ["w0_weight", "row 0"]),
        ({"v": np.array([[1e300], [1]])}, ["v", "row 0"]),
    ],
)
def test_a_diverged_training_is_named(changes, words):
    with refused(DivergenceError, "diverged", "learning rates", "clip_gradient", *words):
        read_artifact(params_with(**changes))


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.tar\.gz"):
        read_artifact(tmp_path / "model.tar.gz")
    with refused(ModelFileError, tmp_path, "name the model.tar.gz itself"):
        read_artifact(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with refused(ModelFileError, "pipe"):
        read_artifact(tmp_path / "pipe")
    (tmp_path / "bad.tar.gz").write_bytes(MODEL[:50])
    with refused(ModelFileError, tmp_path / "bad.tar.gz"):
        read_artifact(tmp_path / "bad.tar.gz")
    (tmp_path / "nan.params").write_bytes(params_with(w0_weight=[np.nan]))
    with refused(DivergenceError, tmp_path / "nan.params", "diverged"):
        read_artifact(str(tmp_path / "nan.params"))
    for source in (3, None):
        with pytest.raises(TypeError):
            read_artifact(source)
    with refused(ValueError, "max_bytes"):
        read_artifact(MODEL, max_bytes=0)


# ---- archives that mean harm ----


def special(kind, target="/etc/passwd", name="model_algo-1"):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
     tarfile.DIRTYPE],
)  # fmt: skip
def test_links_and_devices_are_nothing(kind):
    with refused(ModelFileError, "neither"):
        read_artifact(artifact([(special(kind), b"")]))
    assert is_the_model(read_artifact(artifact([(special(kind), b""), ("model_algo-1", ZIP)])))


def test_names_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["../../model_algo-1", "/etc/model_algo-1"]
    for name in names:
        assert is_the_model(read_artifact(artifact([(name, ZIP)])))
        inner = zipped(**{name.replace("model_algo-1", "params"): PARAMS})
        assert is_the_model(read_artifact(inner))
    assert os.listdir(tmp_path) == []


def peak_of(source, words, **options):
    tracemalloc.start()
    with refused(ModelFileError, *words):
        read_artifact(source, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def deflated_zeros(n_bytes, start=b""):
    """The start and then zeros, compressed: after a full flush the same bytes come again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + chunk * (n_bytes >> 20) + packer.flush()


def zip_of(deflated, size, name=b"params"):
    """A zip of one member by hand, whatever size it claims."""
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 33, 0, len(deflated), size,
                        len(name), 0) + name  # fmt: skip
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 33, 0, len(deflated),
                        size, len(name), 0, 0, 0, 0, 0, 0) + name  # fmt: skip
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry),
                      len(local) + len(deflated), 0)  # fmt: skip
    return local + deflated + entry + end


def gzip_of(n_bytes, start=b""):
    checksum = zlib.crc32(start)
    for _ in range(n_bytes >> 20):
        checksum = zlib.crc32(MEGABYTE, checksum)
    tail = struct.pack("<II", checksum, len(start) + n_bytes)
    return b"\x1f\x8b\x08" + bytes(7) + deflated_zeros(n_bytes, start) + tail


MEGABYTE = bytes(1 << 20)
GIGABYTE = deflated_zeros(2**30)
LIST = struct.pack("<QQQ", 0x112, 0, 1)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (zip_of(GIGABYTE, 2**30), ["params", "begins with"]),
        (artifact([("model_algo-1", zip_of(GIGABYTE, 2**30))]), ["params", "begins with"]),
        (zip_of(GIGABYTE, 2**31), ["params", "max_bytes"]),
        (zip_of(GIGABYTE, 2**30, b"symbol.json"), ["neither"]),
        (gzip_of(2**26), ["neither"]),
    ],
    ids=["zip", "tar of zip", "large zip", "symbol", "gzip"],
)
def test_a_bomb_is_refused_before_it_goes_off(source, words):
    assert len(source) < 2**21
    assert peak_of(source, words) < 4 * len(source) + 2**24


@pytest.mark.parametrize("claim", [2**20, 2**25])
def test_a_bomb_with_the_right_beginning_stays_within_max_bytes(claim):
    source = zip_of(deflated_zeros(2**26, LIST), claim)
    limit = max(2**22, 4 * len(source))
    words = ["max_bytes"] if claim > limit else ["damaged"]
    assert peak_of(source, words, max_bytes=2**22) < 3 * limit


def tar_header(name, size, kind=b"0"):
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("n_bytes", "start", "words"),
    [
        (2**26, tar_header("other", 2**40), ["the tar", "max_bytes"]),
        (2**26, tar_header("model_algo-1", 2**62), ["model_algo-1", "max_bytes"]),
        (2**26, tar_header("model_algo-1", 2**21), ["begins with"]),
        (2**22, tar_header("model_algo-1", 2**21) + LIST, ["damaged"]),
        (2**26, tar_header("longname", 2**25, b"L"), ["name of 33554432"]),
        (2**26, tar_header("pax", 2**25, b"x"), ["name of 33554432"]),
        (0, tar_header("a", 0) * 1001, ["more than 1000 members"]),
        (0, tar_header("a", 0, b"L") * 1001, ["more than 1000 members"]),
        (0, tar_header("model_algo-1", 2**20), ["cut short"]),
    ],
    ids=in_words,
)
def test_a_tar_bomb_stays_within_max_bytes(n_bytes, start, words):
    assert peak_of(gzip_of(n_bytes, start), words, max_bytes=2**24) < 2**25


def test_a_zip_of_too_many_members():
    entry = zip_of(b"", 0)[36:-22]
    with refused(ModelFileError, "more than 1000 members"):
        read_artifact(b"PK\x03\x04" + entry * 1001)


@pytest.mark.parametrize("data", [MODEL, ZIP, PARAMS], ids=["tar", "zip", "params"])
def test_every_truncation_is_refused(data):
    for end in range(len(data)):
        with pytest.raises(ModelFileError, match=r"\A[^\n]+\Z"):
            read_artifact(data[:end])


@pytest.mark.parametrize("data", [ZIP, gzip.decompress(MODEL)[:2048], MODEL])
def test_any_byte_changed_is_read_or_refused(data):
    broken = bytearray(data)
    for place, right in enumerate(data):
        for wrong in {0x00, 0xFF, right ^ 1, right ^ 0x80} - {right}:
            broken[place] = wrong
            try:
                unwrap(bytes(broken), 10**7)
            except ModelFileError as error:
                assert "\n" not in str(error)
        broken[place] = right
