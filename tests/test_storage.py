"""The model file: what goes in comes out, and every other file is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import stat
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmknn.errors import ModelFileError
from fmknn.model.storage import FORMAT_VERSION, load, save

NUMBERS = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
ARRAYS = {
    "w": np.array([0.5, -1.0], dtype=np.float32),
    "ids": np.array(["a", "bé", ""], dtype=object),
    "seen": np.array([True, False]),
}
METADATA = {"n_factors": 8, "loss": "squared"}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path for tests that write it again and again."""
    return tmp_path_factory.mktemp("storage") / "scratch.fmknn"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.fmknn"
    save(path, ARRAYS, METADATA)
    return path


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if expected.dtype == object:
        assert got.tolist() == expected.tolist()
    else:  # as bytes, so that NaN equals itself and -0.0 is not 0.0
        assert got.tobytes() == expected.tobytes()


def assert_refused(path, match=None):
    """One line that begins with the name of the file."""
    with pytest.raises(ModelFileError, match=match) as caught:
        load(path)
    message = str(caught.value)
    assert type(caught.value) is ModelFileError
    assert message.startswith(repr(str(path)))
    assert "\n" not in message


# --- round trips ----------------------------------------------------------------------------

numeric_arrays = hnp.arrays(
    st.sampled_from(NUMBERS), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
string_arrays = hnp.arrays(
    object, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=unicode_text
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unicode_text, inner, max_size=3),
    max_leaves=8,
)


@given(
    arrays=st.dictionaries(unicode_text, numeric_arrays | string_arrays, max_size=4),
    metadata=st.dictionaries(unicode_text, json_values, max_size=3),
)
def test_what_is_saved_is_loaded(scratch, arrays, metadata):
    save(scratch, arrays, metadata)
    got, got_metadata = load(scratch)
    assert list(got) == list(arrays)
    for name in arrays:
        assert_same(got[name], arrays[name])
    # as JSON text, in which 1, 1.0 and true differ
    assert json.dumps(got_metadata) == json.dumps(metadata)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_dtype_keeps_its_extremes(scratch, dtype):
    kind = np.dtype(dtype).kind
    info = np.finfo(dtype) if kind == "f" else None if kind == "b" else np.iinfo(dtype)
    array = np.array([False, True] if info is None else [info.min, 0, info.max], dtype=dtype)
    save(scratch, {"a": array}, {})
    assert_same(load(scratch)[0]["a"], array)


def test_the_payload_of_nan_and_the_sign_of_zero_survive(scratch):
    array = np.array([0x7FF8000000000123, 0x8000000000000000], dtype=np.uint64).view(np.float64)
    save(scratch, {"a": array}, {})
    assert_same(load(scratch)[0]["a"], array)


@pytest.mark.parametrize("dtype", [">i2", ">i8", ">u4", ">f2", ">f4", ">f8"])
def test_big_endian_arrays_come_back_native(scratch, dtype):
    array = np.array([[1, 2, 300], [4, 5, 6]], dtype=dtype)
    save(scratch, {"a": array}, {})
    assert_same(load(scratch)[0]["a"], array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, 1:4:2],
        lambda a: a.T,
        np.asfortranarray,
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
    ids=["rows", "reversed", "columns", "transposed", "fortran", "broadcast"],
)
def test_non_contiguous_arrays_come_back_in_c_order(scratch, view):
    array = view(np.arange(24, dtype=np.int32).reshape(4, 6))
    save(scratch, {"a": array}, {})
    got = load(scratch)[0]["a"]
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, array)


def test_arrays_longer_than_one_chunk_round_trip(scratch):
    array = np.arange(2 * (1 << 20) // 8 + 12345, dtype=np.float64)
    save(scratch, {"straight": array, "step": array[::3]}, {})
    got = load(scratch)[0]
    assert_same(got["straight"], array)
    assert_same(got["step"], array[::3].copy())


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "bé", ""]), np.array("alone"), np.array([["x"], ["yy"]]), np.str_("scalar")],
    ids=["1-d", "0-d", "2-d", "numpy scalar"],
)
def test_fixed_width_strings_come_back_as_objects(scratch, array):
    save(scratch, {"ids": array}, {})
    assert_same(load(scratch)[0]["ids"], np.asarray(array, dtype=object))


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 1 has no such strings")
def test_variable_width_strings_come_back_as_objects(scratch):
    save(scratch, {"ids": np.array(["a", "long" * 9], dtype=np.dtypes.StringDType())}, {})
    assert_same(load(scratch)[0]["ids"], np.array(["a", "long" * 9], dtype=object))


def test_loaded_strings_are_plain_str(scratch):
    save(scratch, {"ids": np.array([np.str_("a")], dtype=object)}, {})
    assert type(load(scratch)[0]["ids"][0]) is str


def test_numpy_scalars_come_back_as_0d_arrays(scratch):
    save(scratch, {"w0": np.float32(1.5)}, {})
    assert_same(load(scratch)[0]["w0"], np.array(1.5, dtype=np.float32))


def test_loaded_arrays_are_read_only(saved):
    arrays, _ = load(saved)
    assert not any(array.flags.writeable for array in arrays.values())


def test_no_arrays_and_no_metadata_is_a_file_too(scratch):
    save(scratch, {}, {})
    assert load(scratch) == ({}, {})


def test_tuples_in_metadata_come_back_as_lists(scratch):
    save(scratch, {}, {"betas": (0.9, 0.999)})
    assert load(scratch)[1] == {"betas": [0.9, 0.999]}


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    save(tmp_path / "again", ARRAYS, METADATA)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    save(tmp_path / "again", *load(saved))
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_the_file_is_laid_out_as_documented(saved):
    content = saved.read_bytes()
    magic, version, length, digest = struct.unpack_from("<8sIQ32s", content)
    raw = content[52 : 52 + length]
    manifest = json.loads(raw)
    assert (magic, version) == (b"\x89fmknn\r\n", FORMAT_VERSION)
    assert digest == hashlib.sha256(raw).digest()
    assert list(manifest) == ["format_version", "arrays", "metadata", "fmknn_version"]
    assert manifest["metadata"] == METADATA
    start = 64 * -(-(52 + length) // 64)
    data = [content[start + e["offset"] :][: e["nbytes"]] for e in manifest["arrays"]]
    assert data[0] == struct.pack("<ff", 0.5, -1.0)
    assert data[1] == struct.pack("<4q", 0, 1, 4, 4) + b"ab\xc3\xa9"
    assert data[2] == b"\x01\x00"
    assert [e["offset"] for e in manifest["arrays"]] == [0, 64, 128]
    assert [e["sha256"] for e in manifest["arrays"]] == [
        hashlib.sha256(part).hexdigest() for part in data
    ]
    assert len(content) == start + 128 + 2


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T, lambda a: a.astype(">f8")])
def test_saving_holds_no_second_copy(scratch, view):
    array = view(np.zeros((1000, 2000)))
    tracemalloc.start()
    save(scratch, {"a": array}, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 4


def test_loading_holds_one_copy(scratch):
    array = np.zeros((1000, 2000))
    save(scratch, {"a": array}, {})
    tracemalloc.start()
    load(scratch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * array.nbytes


# --- what save refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.array(["a", 1], dtype=object), "'ids' holds a int at position 1"),
        (np.array([None], dtype=object), "'ids' holds a NoneType at position 0"),
        (np.array([b"a"], dtype=object), "'ids' holds a bytes at position 0"),
        (np.array([b"a"]), "'ids' has dtype"),
        (np.array([1j]), "'ids' has dtype complex128"),
        (np.array(["2020-01-01"], dtype="M8[s]"), "'ids' has dtype datetime64"),
        (np.zeros(2, dtype="i4,f8"), "'ids' has dtype"),
        (np.ma.masked_array([1, 2], [True, False]), "'ids' is a MaskedArray"),
        ([1, 2], "'ids' is a list"),
        (None, "'ids' is a NoneType"),
    ],
)
def test_other_arrays_are_a_type_error_and_write_nothing(tmp_path, array, match):
    with pytest.raises(TypeError, match=match) as caught:
        save(tmp_path / "m", {"fine": np.zeros(3), "ids": array}, {})
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_long_double_is_refused_where_it_is_longer(tmp_path):
    if np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("long double is float64 here")
    with pytest.raises(TypeError, match="'a' has dtype"):
        save(tmp_path / "m", {"a": np.zeros(1, dtype=np.longdouble)}, {})


def test_more_than_32_dimensions_are_refused(tmp_path):
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("numpy 1 cannot make such an array")
    with pytest.raises(TypeError, match="'a' has 33 dimensions"):
        save(tmp_path / "m", {"a": np.zeros((1,) * 33)}, {})
    save(tmp_path / "m", {"a": np.zeros((1,) * 32)}, {})
    assert load(tmp_path / "m")[0]["a"].ndim == 32


def test_a_lone_surrogate_in_an_array_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'ids' holds invalid Unicode, '\\ud800', at position 1"):
        save(tmp_path / "m", {"ids": np.array(["a", "\ud800"], dtype=object)}, {})
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_no_str_is_refused(tmp_path):
    with pytest.raises(TypeError, match="named 3"):
        save(tmp_path / "m", {3: np.zeros(1)}, {})


@pytest.mark.parametrize(
    ("metadata", "error", "match"),
    [
        ({"a": [1.0, float("nan")]}, ValueError, r"metadata\['a'\]\[1\] is nan"),
        ({"a": float("inf")}, ValueError, r"metadata\['a'\] is inf"),
        ({1: "a"}, TypeError, "metadata has the key 1"),
        ({"a": {"b": {None: 1}}}, TypeError, r"metadata\['a'\]\['b'\] has the key None"),
        ({"a": {1, 2}}, TypeError, r"metadata\['a'\] is of type set"),
        ({"a": np.int64(3)}, TypeError, r"metadata\['a'\] is of type int64"),
        ({"a": b"b"}, TypeError, r"metadata\['a'\] is of type bytes"),
        ([1], TypeError, "metadata is of type list"),
        (None, TypeError, "metadata is of type NoneType"),
    ],
)
def test_metadata_that_is_not_json_is_refused_where_it_stands(tmp_path, metadata, error, match):
    with pytest.raises(error, match=match):
        save(tmp_path / "m", {}, metadata)
    assert os.listdir(tmp_path) == []


def test_metadata_that_contains_itself_is_refused(tmp_path):
    metadata = {}
    metadata["self"] = metadata
    with pytest.raises(ValueError, match="nested"):
        save(tmp_path / "m", {}, metadata)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nowhere"))) as caught:
        save(tmp_path / "nowhere" / "m", ARRAYS, METADATA)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_saved_over(tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file"):
        save(tmp_path, ARRAYS, METADATA)
    assert os.listdir(tmp_path) == []


# --- all or nothing -------------------------------------------------------------------------


class Crash(BaseException):
    """Not an Exception: like an interrupt, it passes most handlers."""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("crash", [OSError, Crash])
def test_a_crash_leaves_the_old_file_and_nothing_else(saved, monkeypatch, step, crash):
    def fail(*args):
        raise crash("no space left")

    before = saved.read_bytes()
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(crash, match="no space left"):
        save(saved, {"w": np.zeros(100)}, {})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_crash_while_writing_arrays_leaves_no_file(tmp_path, monkeypatch):
    class FailingHash:
        def __init__(self, *args):
            pass

        def update(self, data):
            raise OSError("disk")

    monkeypatch.setattr(hashlib, "sha256", FailingHash)
    with pytest.raises(OSError, match="disk"):
        save(tmp_path / "m", ARRAYS, METADATA)
    assert os.listdir(tmp_path) == []


def test_the_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), events.append(os.fstat(fd).st_size)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    save(tmp_path / "m", ARRAYS, METADATA)
    assert events == [(tmp_path / "m").stat().st_size, "replace"]


def test_saving_replaces_the_old_file(saved):
    save(saved, {"w": np.zeros(1)}, {})
    assert list(load(saved)[0]) == ["w"]
    assert os.listdir(saved.parent) == [saved.name]


def test_a_long_file_name_leaves_room_for_the_temporary(tmp_path):
    path = tmp_path / ("m" * 250)
    save(path, ARRAYS, METADATA)
    assert load(path)[1] == METADATA


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits of POSIX")
def test_a_private_file_stays_private_and_a_new_one_follows_the_umask(tmp_path):
    umask = os.umask(0o022)
    try:
        save(tmp_path / "m", {}, {})
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o644
        (tmp_path / "m").chmod(0o600)
        save(tmp_path / "m", {}, {})
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600
    finally:
        os.umask(umask)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_saving_through_a_link_replaces_what_it_points_to(saved, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(saved)
    save(link, {}, {"new": True})
    assert link.is_symlink()
    assert load(saved)[1] == {"new": True}


# --- damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arrays", [ARRAYS, {}], ids=["arrays", "no arrays"])
def test_every_flipped_bit_is_found(scratch, arrays):
    save(scratch, arrays, METADATA)
    content = scratch.read_bytes()
    with open(scratch, "r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            for bit in range(8):
                file.seek(position)
                file.write(bytes([byte ^ 1 << bit]))
                assert_refused(scratch)
            file.seek(position)
            file.write(bytes([byte]))
    load(scratch)  # whole again


@pytest.mark.parametrize("arrays", [ARRAYS, {}], ids=["arrays", "no arrays"])
def test_every_truncation_is_found(scratch, arrays):
    save(scratch, arrays, METADATA)
    content = scratch.read_bytes()
    with open(scratch, "r+b") as file:
        for length in reversed(range(len(content))):
            file.truncate(length)
            assert_refused(scratch)


@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(64), bytes(100_000)])
@pytest.mark.parametrize("arrays", [ARRAYS, {}], ids=["arrays", "no arrays"])
def test_trailing_bytes_are_found(scratch, arrays, tail):
    save(scratch, arrays, METADATA)
    scratch.write_bytes(scratch.read_bytes() + tail)
    assert_refused(scratch, "damaged")


def test_a_damaged_array_is_named(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    assert_refused(saved, r"damaged \(array 'seen' does not match its checksum\).*save the model")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 2**32 - 1])
def test_a_newer_format_is_told_before_anything_else(tmp_path, version):
    path = tmp_path / "m"
    path.write_bytes(struct.pack("<8sIQ32s", b"\x89fmknn\r\n", version, 2**63, bytes(32)))
    assert_refused(path, f"written by a newer fmknn .*{version}.*: upgrade fmknn")


def test_format_0_never_was(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(struct.pack("<8sIQ32s", b"\x89fmknn\r\n", 0, 0, bytes(32)))
    assert_refused(path, "damaged")


# --- foreign --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"user,item,rating\r\n1,2,3\r\n" * 9, random.Random(0).randbytes(1000)],
    ids=["empty", "zeros", "text", "random"],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "m"
    path.write_bytes(content)
    assert_refused(path, "not a model saved by fmknn: check the path")


def test_a_zip_archive_of_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", a=np.zeros(3))
    assert zipfile.is_zipfile(tmp_path / "m.npz")
    assert_refused(tmp_path / "m.npz", "not a model")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in a model file was run')",)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    (tmp_path / "m").write_bytes(pickle.dumps(Evil()))
    assert_refused(tmp_path / "m", "not a model")


def test_a_folder_is_refused(tmp_path):
    assert_refused(tmp_path, "not a model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a model")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "m"))) as caught:
        load(tmp_path / "m")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_anything_after_a_good_magic_is_refused(scratch, tail):
    scratch.write_bytes(b"\x89fmknn\r\n" + struct.pack("<I", FORMAT_VERSION) + tail)
    assert_refused(scratch)


# --- hostile manifests: good checksums, bad intent --------------------------------------------


def forge(path, manifest, data=b""):
    """Write a file whose header agrees with the manifest, whatever that says."""
    raw = manifest if isinstance(manifest, bytes) else dumps(manifest)
    header = struct.pack(
        "<8sIQ32s", b"\x89fmknn\r\n", FORMAT_VERSION, len(raw), hashlib.sha256(raw).digest()
    )
    path.write_bytes(header + raw + bytes(-(len(header) + len(raw)) % 64) + data)


def dumps(value):
    return json.dumps(value, separators=(",", ":")).encode()


def entry(data=b"\1\2\3\4", **changes):
    good = {"name": "a", "dtype": "uint8", "shape": [4], "offset": 0, "nbytes": len(data)}
    return good | {"sha256": hashlib.sha256(data).hexdigest()} | changes


def manifest(*entries, **changes):
    good = {"format_version": FORMAT_VERSION, "arrays": list(entries), "metadata": {}}
    return good | {"fmknn_version": "0.1"} | changes


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


def test_the_forge_makes_good_files(scratch):
    forge(scratch, manifest(entry()), b"\1\2\3\4")
    assert load(scratch)[0]["a"].tolist() == [1, 2, 3, 4]


HUGE = 10**4000  # in JSON as well; no machine integer
GOOD = dumps(manifest(entry()))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1},
        {"name": None},
        {"dtype": "object"},
        {"dtype": "O"},
        {"dtype": "<u1"},
        {"dtype": "complex64", "nbytes": 32},
        {"dtype": "float128", "nbytes": 64},
        {"dtype": ["uint8"]},
        {"dtype": None},
        {"dtype": "uint16"},
        {"shape": 4},
        {"shape": "4"},
        {"shape": None},
        {"shape": {}},
        {"shape": [5]},
        {"shape": [3]},
        {"shape": [4.0]},
        {"shape": ["4"]},
        {"shape": [[4]]},
        {"shape": [4, True]},
        {"shape": [4, None]},
        {"shape": [-4]},
        {"shape": [-2, -2]},
        {"shape": [HUGE]},
        {"shape": [HUGE] * 40},
        {"shape": [2**32, 2**32, 4]},
        {"shape": [2**62 + 1, 4]},
        {"shape": [4] + [1] * 32},
        {"shape": [4] + [1] * 100_000},
        {"shape": [0, 2**63], "nbytes": 0},
        {"shape": [0, HUGE], "nbytes": 0},
        {"shape": [0, 2**62, 4], "nbytes": 0},
        {"shape": [2**62], "nbytes": 2**62},
        {"shape": [HUGE], "nbytes": HUGE},
        {"offset": 64},
        {"offset": 1},
        {"offset": -64},
        {"offset": False},
        {"offset": 0.0},
        {"offset": None},
        {"offset": 2**64},
        {"offset": HUGE},
        {"nbytes": 3},
        {"nbytes": 5},
        {"nbytes": -4},
        {"nbytes": 4.0},
        {"nbytes": 2**64 + 4},
        {"nbytes": HUGE},
        {"shape": [], "nbytes": True},
        {"sha256": ""},
        {"sha256": None},
        {"sha256": "0" * 64},
        {"extra": 1},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_a_hostile_entry_is_refused(scratch, changes):
    forge(scratch, manifest(entry(**changes)), b"\1\2\3\4")
    assert_refused(scratch, "damaged")


@pytest.mark.parametrize("dtype", ["object", "O", "complex64", "datetime64[s]", "float128", "V8"])
def test_a_dtype_that_save_never_writes_is_refused(scratch, dtype):
    forge(scratch, manifest(entry(bytes(8), dtype=dtype, shape=[1])), bytes(8))
    assert_refused(scratch, "entry for array number 0 is malformed")


@pytest.mark.parametrize("key", list(entry()))
def test_an_entry_without_a_key_is_refused(scratch, key):
    forge(scratch, manifest(without(entry(), key)), b"\1\2\3\4")
    assert_refused(scratch, "entry for array number 0 is malformed")


@pytest.mark.parametrize("bad", [None, 1, "a", [], ["name"], True])
def test_an_entry_that_is_no_object_is_refused(scratch, bad):
    forge(scratch, manifest(bad), b"\1\2\3\4")
    assert_refused(scratch, "entry for array number 0 is malformed")


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": FORMAT_VERSION + 1},
        {"format_version": True},
        {"format_version": 1.0},
        {"format_version": HUGE},
        {"arrays": {}},
        {"arrays": None},
        {"metadata": []},
        {"metadata": None},
        {"fmknn_version": 1},
        {"extra": 1},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_a_hostile_manifest_is_refused(scratch, changes):
    forge(scratch, manifest(entry(), **changes), b"\1\2\3\4")
    assert_refused(scratch, "manifest is not one that fmknn writes")


@pytest.mark.parametrize("key", list(manifest()))
def test_a_manifest_without_a_key_is_refused(scratch, key):
    forge(scratch, without(manifest(entry()), key), b"\1\2\3\4")
    assert_refused(scratch, "manifest is not one that fmknn writes")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD + b" ",
        GOOD + GOOD,
        b'{"format_version":1,' + GOOD[1:],
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":1,"a":2}'),
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":NaN}'),
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":-Infinity}'),
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":1e999}'),
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":' + b"9" * 10_000 + b"}"),
        GOOD.replace(b'"offset":0', b'"offset":-0'),
        GOOD.replace(b'"offset":0', b'"offset":' + b"9" * 10_000),
        b"[" * 200_000,
        b'{"a":' * 200_000,
        GOOD.replace(b'"metadata":{}', b'"metadata":{"a":' + b"[" * 99_999 + b"]" * 99_999 + b"}"),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_hostile_json_is_refused(scratch, raw):
    forge(scratch, raw, b"\1\2\3\4")
    assert_refused(scratch, "manifest is not one that fmknn writes")


def test_two_arrays_of_one_name_are_refused(scratch):
    forge(scratch, manifest(entry(), entry(offset=64)), b"\1\2\3\4" + bytes(60) + b"\1\2\3\4")
    assert_refused(scratch, "two arrays named 'a'")


@pytest.mark.parametrize("offset", [0, 2, 4, 63, 128])
def test_overlapping_and_scattered_arrays_are_refused(scratch, offset):
    data = b"\1\2\3\4" + bytes(60) + b"\1\2\3\4" + bytes(60) + b"\1\2\3\4"
    forge(scratch, manifest(entry(), entry(name="b", offset=offset)), data)
    assert_refused(scratch, "layout of array 'b' is inconsistent")


@pytest.mark.parametrize("position", [4, 63])
def test_padding_that_is_not_zero_is_refused(scratch, position):
    data = bytearray(b"\1\2\3\4" + bytes(60) + b"\1\2\3\4")
    data[position] = 1
    forge(scratch, manifest(entry(), entry(name="b", offset=64)), bytes(data))
    assert_refused(scratch, "not zero")


def test_sizes_that_add_up_beyond_any_integer_text_are_refused(scratch):
    nines = int("9" * 4300)  # the longest that Python reads; the sum is longer
    strings = entry(dtype="strings", shape=[], nbytes=nines - nines % 64)
    forge(scratch, manifest(strings, entry(name="b", dtype="strings", nbytes=nines)))
    assert_refused(scratch, "ends before or within array 'a'")


def test_nothing_is_allocated_for_a_file_that_lies_about_its_size(scratch):
    forge(scratch, manifest(entry(shape=[2**40], nbytes=2**40)), b"\1\2\3\4")
    tracemalloc.start()
    assert_refused(scratch, "ends before or within array 'a'")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_no_manifest_is_read_that_the_file_cannot_hold(scratch):
    header = struct.pack("<8sIQ32s", b"\x89fmknn\r\n", FORMAT_VERSION, 2**64 - 1, bytes(32))
    scratch.write_bytes(header + b"{}")
    assert_refused(scratch, "ends within the manifest")


def test_a_bool_that_is_neither_true_nor_false_is_refused(scratch):
    forge(scratch, manifest(entry(b"\0\1\2\1", dtype="bool")), b"\0\1\2\1")
    assert_refused(scratch, "neither true nor false")


@pytest.mark.parametrize(
    ("offsets", "text"),
    [
        ([0, 1, 2], b"abc"),
        ([0, 1, 4], b"abc"),
        ([1, 2, 3], b"abc"),
        ([-1, 1, 3], b"abc"),
        ([0, 4, 3], b"abc"),
        ([0, -1, 3], b"abc"),
        ([0, -(2**63), 3], b"abc"),
        ([0, 2**63 - 1, 3], b"abc"),
        ([0, 0, 3], b"ab\xff"),
        ([0, 0, 3], b"\xed\xa0\x80"),  # a surrogate
        ([0, 1, 2], "é".encode()),  # cut in two
    ],
)
def test_hostile_strings_are_refused(scratch, offsets, text):
    data = struct.pack("<3q", *offsets) + text
    forge(scratch, manifest(entry(data, dtype="strings", shape=[2])), data)
    assert_refused(scratch, "string offsets of array 'a'|'a' holds text that is not UTF-8")


@pytest.mark.parametrize("shape", [[3], [2**40], [2**61], [2**64], [0, 2**61]])
def test_strings_without_room_for_their_offsets_are_refused(scratch, shape):
    data = struct.pack("<3q", 0, 1, 2) + b"ab"
    forge(scratch, manifest(entry(data, dtype="strings", shape=shape)), data)
    assert_refused(scratch, "layout of array 'a' is inconsistent")


@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 127))
def test_any_changed_character_of_a_manifest_is_harmless(scratch, position, value):
    changed = bytearray(GOOD)
    changed[position] = value
    forge(scratch, bytes(changed), b"\1\2\3\4")
    try:
        arrays, metadata = load(scratch)
    except ModelFileError:
        return
    # accepted: another name, a dtype as wide, another version text; never other bytes
    assert [array.tobytes() for array in arrays.values()] == [b"\1\2\3\4"]
    assert metadata == {}
