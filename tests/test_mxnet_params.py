"""MXNet's parameter files: genuine ones of every generation, the same bytes written, damage."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import refused

from fmknn.backends.sagemaker.mxnet_params import read_params, write_params
from fmknn.errors import ModelFileError

FIXTURES = Path(__file__).parent / "fixtures" / "sagemaker"
FILES = sorted(path for path in FIXTURES.glob("mxnet-*/**/*.params") if "race" not in str(path))
SMALL = [path for path in FILES if path.parent.parent == FIXTURES and path.stat().st_size < 260]


def shown(path):
    return str(path.relative_to(FIXTURES)) if isinstance(path, Path) else str(path)


def manifest_of(path):
    folder = FIXTURES / path.relative_to(FIXTURES).parts[0]
    return json.loads((folder / "MANIFEST.json").read_text())["expected"][
        str(path.relative_to(folder))
    ]


# ---- what MXNet wrote ----


def test_all_generations_are_there():
    assert {path.relative_to(FIXTURES).parts[0] for path in FILES} >= {
        "mxnet-0.9.5.post2",  # before V1
        "mxnet-0.11.0",  # V1
        "mxnet-1.2.1",  # V2
        "mxnet-1.9.1",  # V2 and V3
    }
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_genuine_files(path):
    arrays = read_params(path.read_bytes())
    expected = manifest_of(path)
    names = [entry[0] or str(number) for number, entry in enumerate(expected)]
    assert list(arrays) == names
    with np.load(f"{path}.expected.npz") as values:
        for number, (_, _, dtype, shape) in enumerate(expected):
            array = arrays[names[number]]
            assert array.dtype == np.dtype(dtype) and array.dtype.isnative
            assert array.shape == tuple(shape)
            assert array.flags.c_contiguous and array.flags.writeable
            np.testing.assert_array_equal(array, values[f"a{number}"])


@pytest.mark.parametrize("path", sorted((FIXTURES / "mxnet-race").iterdir()), ids=shown)
def test_an_outdated_stored_shape_is_overruled(path):
    arrays = read_params(path.read_bytes())
    (array,) = arrays.values()
    expected = np.zeros((6, 2), np.float32)
    expected[1], expected[4] = [1, 2], [-3, 4]
    np.testing.assert_array_equal(array, expected)


# ---- oracles: writers in plain Python ----


def listed(*arrays, names=None):
    names = [f"arg:{number}".encode() for number in range(len(arrays))] if names is None else names
    return (
        struct.pack("<QQQ", 0x112, 0, len(arrays))
        + b"".join(arrays)
        + struct.pack("<Q", len(names))
        + b"".join(struct.pack("<Q", len(name)) + name for name in names)
    )


def shape_of(*dims):
    return struct.pack(f"<i{len(dims)}q", len(dims), *dims)


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def int64s(*values):
    return struct.pack(f"<{len(values)}q", *values)


CPU = struct.pack("<ii", 1, 0)
F32, I64 = struct.pack("<i", 0), struct.pack("<i", 6)


def legacy(dims, data, dtype=0):
    head = struct.pack(f"<I{len(dims)}I", len(dims), *dims)
    return head + CPU + struct.pack("<i", dtype) + data


def v1(dims, data, dtype=0):
    return struct.pack("<I", 0xF993FAC8) + shape_of(*dims) + CPU + struct.pack("<i", dtype) + data


def v2(dims, data, dtype=0, magic=0xF993FAC9, stype=0, device=CPU):
    return (
        struct.pack("<Ii", magic, stype)
        + shape_of(*dims)
        + device
        + struct.pack("<i", dtype)
        + data
    )


def row_sparse(dims, rows, data, stored=None, index=I64, aux=None):
    aux = shape_of(len(rows)) if aux is None else aux
    stored = shape_of(len(rows), *dims[1:]) if stored is None else stored
    head = struct.pack("<Ii", 0xF993FAC9, 1) + stored + shape_of(*dims) + CPU + F32
    return head + index + aux + data + int64s(*rows)


def csr(dims, indptr, columns, data, rows=None):
    head = struct.pack("<Ii", 0xF993FAC9, 2) + shape_of(len(columns)) + shape_of(*dims) + CPU + F32
    head += I64 + shape_of(len(indptr) if rows is None else rows) + I64 + shape_of(len(columns))
    return head + data + int64s(*indptr) + int64s(*columns)


@pytest.mark.parametrize("write", [legacy, v1, v2])
def test_each_generation_by_hand(write):
    data = listed(write([2, 3], floats(*range(6))), write([1], floats(7)), names=[b"arg:v", b"b"])
    arrays = read_params(data)
    assert list(arrays) == ["arg:v", "b"]
    np.testing.assert_array_equal(arrays["arg:v"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["b"], [7])


@pytest.mark.parametrize(
    ("code", "kind", "values"),
    [
        (0, "f", [1.5]), (1, "d", [1.5]), (2, "e", [1.5]), (3, "B", [255]), (4, "i", [-5]),
        (5, "b", [-128]), (6, "q", [-(2**62)]), (8, "h", [-300]), (9, "H", [65535]),
        (10, "I", [2**32 - 1]), (11, "Q", [2**64 - 1]),
    ],
)  # fmt: skip
def test_every_dtype(code, kind, values):
    data = struct.pack(f"<{len(values)}{kind}", *values)
    (array,) = read_params(listed(v2([1], data, code))).values()
    assert array.dtype == np.dtype(kind) and array.tolist() == values


def test_booleans_and_bfloat16():
    data = listed(v2([3], b"\x00\x01\x02", 7), v2([3], bytes.fromhex("c03f 10c0 807f"), 12))
    flags, numbers = read_params(data).values()
    assert flags.tolist() == [False, True, True] and flags.view(np.uint8).max() == 1
    assert numbers.dtype == np.float32 and numbers.tolist() == [1.5, -2.25, np.inf]


@pytest.mark.parametrize("device", [(2, 3), (3, 0), (5, 0), (-7, 99)])
def test_the_device_does_not_matter(device):
    data = listed(v2([1], floats(2), device=struct.pack("<ii", *device)))
    assert read_params(data)["arg:0"] == 2


@pytest.mark.parametrize(
    "empty",
    [
        struct.pack("<I", 0),
        struct.pack("<Ii", 0xF993FAC8, 0),
        struct.pack("<Iii", 0xF993FAC9, 0, 0),
        struct.pack("<Iii", 0xF993FACA, 0, -1),
    ],
    ids=["legacy", "V1", "V2", "V3"],
)
def test_an_array_without_a_value_is_empty(empty):
    arrays = read_params(listed(empty, legacy([1], floats(3))))
    assert arrays["arg:0"].shape == (0,) and arrays["arg:0"].dtype == np.float32
    assert arrays["arg:1"] == 3


def test_rows_in_any_order_and_of_any_number_of_dimensions():
    data = listed(row_sparse([3, 1, 2], [2, 0], floats(1, 2, 3, 4), stored=shape_of(0, 2)))
    np.testing.assert_array_equal(read_params(data)["arg:0"], [[[3, 4]], [[0, 0]], [[1, 2]]])


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        hnp.arrays(
            st.sampled_from(["f2", "f4", "f8", "u1", "i1", "i4", "i8", ">f4", ">i8"]),
            hnp.array_shapes(max_dims=4, max_side=4),
        ),
        max_size=4,
    )
)
def test_written_and_read_again(arrays):
    back = read_params(write_params(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(back[name], array)


DENSE = [
    path
    for path in FILES
    if "mxnet-1" in str(path)
    and all(
        entry[0] and entry[1] == "default" and entry[2] != "bool" for entry in manifest_of(path)
    )
    and path.stem not in ("cpu_dev_id_1", "npshape_v3", "bf16")
]


@pytest.mark.parametrize("path", DENSE, ids=shown)
def test_written_as_mxnet_writes(path):
    names = [entry[0] for entry in manifest_of(path)]
    with np.load(f"{path}.expected.npz") as values:
        arrays = {name: values[f"a{number}"] for number, name in enumerate(names)}
    assert write_params(arrays) == path.read_bytes()


def test_there_are_files_to_compare_with():
    assert len(DENSE) >= 25


def test_views_are_written_by_their_values():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert write_params({"x": array.T[::2]}) == write_params({"x": array.T[::2].copy()})


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": np.float32(1)}, ValueError, ["'x'", "()"]),
        ({"x": np.zeros((0, 3), np.float32)}, ValueError, ["'x'", "(0, 3)"]),
        ({"x": np.zeros(2, bool)}, TypeError, ["'x'", "bool", "float32"]),
        ({"x": np.zeros(2, complex)}, TypeError, ["'x'", "complex"]),
        ({"x": np.zeros(2, np.uint16)}, TypeError, ["'x'", "uint16"]),
        ({"x": np.array(["a"])}, TypeError, ["'x'"]),
        ({3: np.zeros(2, np.float32)}, TypeError, ["3"]),
        ({"\ud800": np.zeros(2, np.float32)}, ValueError, ["utf-8"]),
    ],
)
def test_what_cannot_be_written(arrays, error, words):
    with refused(error, *words):
        write_params(arrays)


# ---- what nobody vouches for ----


def peak_of(call):
    tracemalloc.start()
    try:
        call()
    except ModelFileError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


V2_ARRAY = v2([2], floats(1, 2))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["no MXNet parameter file"]),
        (b"\x1f\x8b" + bytes(30), ["no MXNet parameter file"]),
        (listed(V2_ARRAY) + b"\0", ["1 bytes follow"]),
        (listed(V2_ARRAY, names=[b"a", b"b"]), ["2 names", "1 arrays"]),
        (listed(V2_ARRAY, V2_ARRAY, names=[b"a", b"a"]), ["two arrays", "'a'"]),
        (listed(V2_ARRAY, names=[b"\xff\xfe"]), ["name 0", "UTF-8"]),
        (struct.pack("<QQQ", 0x112, 0, 2**64 - 1), ["byte 16", "arrays"]),
        (struct.pack("<QQQQ", 0x112, 0, 0, 2**63), ["names for 0 arrays"]),
        (listed(struct.pack("<I", 33) + bytes(400)), ["array 0", "byte 24", "0x00000021"]),
        (listed(v2([2], b"", 13)), ["array 0", "dtype", "13"]),
        (listed(v2([2], b"", -1)), ["array 0", "dtype", "-1"]),
        (listed(v2([2**62], b"")), ["array 0", "shape"]),
        (listed(v2([2**40], b"")), ["array 0", "cut short", "byte 56", str(2**42)]),
        (listed(v2([2**31] * 32, b"")), ["array 0", "shape"]),
        (listed(v2([0, 2**62], b"")), ["array 0", "shape"]),
        (listed(v2([-2], b"")), ["array 0", "(-2,)"]),
        (listed(v2([1] * 33, floats(1))), ["33 dimensions"]),
        (listed(struct.pack("<Iii", 0xF993FAC9, 0, -2)), ["-2 dimensions"]),
        (listed(struct.pack("<Iii", 0xF993FAC9, 3, 0)), ["storage", "3"]),
        (listed(struct.pack("<Iii", 0xF993FACA, 1, 0)), ["storage", "1"]),
        (listed(row_sparse([3, 2], [1, 1], floats(*range(4)))), ["'arg:0'", "row twice"]),
        (listed(row_sparse([3, 2], [3], floats(1, 2))), ["'arg:0'", "index 3", "size 3"]),
        (listed(row_sparse([3, 2], [-1], floats(1, 2))), ["'arg:0'", "index -1"]),
        (listed(row_sparse([3, 2], [1], floats(1, 2), index=F32)), ["array 0", "integers"]),
        (
            listed(row_sparse([3, 2], [1], floats(1, 2), aux=shape_of(1, 1))),
            ["array 0", "list of integers"],
        ),
        (listed(csr([4], [0, 1], [0], floats(1))), ["array 0", "csr", "(4,)"]),
        (listed(csr([2, 2], [0, 1], [0], floats(1))), ["'arg:0'", "2 row limits", "2 rows"]),
        (listed(csr([2, 2], [0, 1, 0], [0], floats(1))), ["'arg:0'", "row limits"]),
        (listed(csr([2, 2], [0, 0, 0], [0], floats(1))), ["'arg:0'", "row limits"]),
        (listed(csr([2, 2], [1, 1, 1], [0], floats(1))), ["'arg:0'", "row limits"]),
        (listed(csr([2, 2], [0, 9, 1], [0], floats(1))), ["'arg:0'", "index 9"]),
        (listed(csr([2, 2], [0, 1, 1], [2], floats(1))), ["'arg:0'", "index 2", "size 2"]),
        (listed(csr([2, 2], [0, 2, 2], [1, 1], floats(1, 2))), ["'arg:0'", "column twice"]),
        (listed(V2_ARRAY, names=[b"n\n" * 500]) + b"x", ["follow"]),
        (listed(row_sparse([3, 2], [7], floats(1, 2)), names=[b"n\n" * 500]), ["index 7"]),
    ],
)  # fmt: skip
def test_damage_is_named_with_its_place(data, words):
    with refused(ModelFileError, *words) as caught:
        read_params(data)
    assert len(str(caught.value)) < 800


def test_a_sparse_array_may_not_grow_beyond_max_bytes():
    data = listed(row_sparse([10**6, 8], [5], floats(*range(8))))
    with refused(ModelFileError, "max_bytes=32000000", "1000000"):
        read_params(data, max_bytes=10**6)
    assert peak_of(lambda: read_params(data, max_bytes=10**6)) < 10**5
    assert read_params(data, max_bytes=32 * 10**6)["arg:0"].nbytes == 32 * 10**6
    both = listed(*[row_sparse([10**6, 8], [5], floats(*range(8)))] * 2)
    with refused(ModelFileError, "max_bytes=64000000"):
        read_params(both, max_bytes=32 * 10**6)


def test_a_sparse_array_beyond_all_memory_is_refused():
    data = listed(row_sparse([2**40, 2**18], [], b""))
    with refused(ModelFileError, "max_bytes"):
        read_params(data)


def test_four_times_the_file_is_always_allowed():
    data = listed(row_sparse([300, 2], range(100), floats(*range(200))))
    assert 1 < 300 * 2 * 4 <= 4 * len(data)
    assert read_params(data, max_bytes=1)["arg:0"].shape == (300, 2)


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "2", True])
def test_max_bytes_is_checked(max_bytes):
    with refused(ValueError, "max_bytes"):
        read_params(listed(), max_bytes=max_bytes)


def test_bytes_like_data():
    data = listed(V2_ARRAY)
    for other in (bytearray(data), memoryview(data)):
        assert read_params(other)["arg:0"].tolist() == [1, 2]
    with pytest.raises(TypeError):
        read_params(5)


@pytest.mark.parametrize("path", SMALL, ids=shown)
def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for end in range(len(data)):
        with refused(ModelFileError, "parameter file"):
            read_params(data[:end])


@pytest.mark.parametrize("name", ["row_sparse_f32", "csr_f32", "two_args_one_aux", "npshape_v3"])
def test_any_byte_changed_is_read_or_refused(name):
    data = bytearray((FIXTURES / "mxnet-1.9.1" / f"{name}.params").read_bytes())
    for place, right in enumerate(data):
        for wrong in {0x00, 0x01, 0x7F, 0x80, 0xFF, right ^ 1, right ^ 0x10} - {right}:
            data[place] = wrong
            try:
                arrays = read_params(bytes(data), max_bytes=10**6)
                assert sum(array.nbytes for array in arrays.values()) <= 10**6
            except ModelFileError as error:
                assert "\n" not in str(error)
        data[place] = right


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_are_read_or_refused(tail):
    try:
        read_params(struct.pack("<QQ", 0x112, 0) + tail, max_bytes=10**6)
    except ModelFileError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<QQQ", 0x112, 0, 2**12) + bytes(4 * 2**12 + 8),
        listed(v2([2**50], b"")),
        listed(V2_ARRAY, names=[]) [:-8] + struct.pack("<QQ", 1, 2**50),
        listed(row_sparse([2**40, 1], range(1000), floats(*range(1000)))),
    ],
)  # fmt: skip
def test_memory_stays_near_the_size_of_the_file(data):
    assert peak_of(lambda: read_params(data)) < 4 * len(data) + 2**25
