"""RecordIO-protobuf: SageMaker's own bytes, an independent parser, and files that lie."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.backends.sagemaker import recordio, recordio_kernel, records
from fmknn.backends.sagemaker.recordio import (
    Bytes,
    RecordIOError,
    Tensor,
    encode_dense,
    encode_sparse,
    read_matrix,
    read_records,
)
from fmknn.backends.sagemaker.recordio_frames import frame_starts, read_payloads, split_at_magic
from fmknn.backends.sagemaker.records import ContentError, parse_record
from fmknn.data.rows import SparseRows, as_rows

FIXTURES = Path(__file__).parent / "fixtures" / "sagemaker" / "recordio"
EXPECTED = json.loads((FIXTURES / "MANIFEST.json").read_text())["expected"]
MATRICES = sorted(name for name in EXPECTED if (FIXTURES / f"{name}.expected.npz").exists())
MAGIC = b"\x0a\x23\xd7\xce"
MAGIC_FLOAT = struct.unpack("<f", MAGIC)[0]
MAGIC_COLUMNS = [5, 6, 10, 35, 26455]  # whose keys, as varints, hold the magic number

law = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fixture(name):
    return (FIXTURES / name).read_bytes()


def expected_arrays(name):
    with np.load(FIXTURES / f"{name}.expected.npz") as arrays:
        return arrays["X"], arrays.get("y")


def sparse_rows(rows, n_columns):
    """SparseRows of [[(column, value), ...], ...], as they stand."""
    entries = [entry for row in rows for entry in row]
    return SparseRows(
        np.cumsum([0, *map(len, rows)]),
        np.array([column for column, _ in entries], np.int32),
        np.array([value for _, value in entries], np.float64),
        n_columns,
    )


@pytest.fixture
def kernels(impl, monkeypatch):
    """The codec, its kernels compiled or as plain Python."""
    monkeypatch.setattr(recordio, "payload_sizes", impl(recordio_kernel.payload_sizes))
    monkeypatch.setattr(recordio, "write_frames", impl(recordio_kernel.write_frames))
    monkeypatch.setattr(records, "read_varints", impl(recordio_kernel.read_varints))


# --- the format in plain Python -------------------------------------------------------------


def varint(number):
    head = b""
    while number >= 128:
        head += bytes([number % 128 + 128])
        number //= 128
    return head + bytes([number])


def message(tag, content):
    return bytes([tag]) + varint(len(content)) + content


def naive_record(values, keys, shape, label):
    """The Record of a row, as SageMaker's SDK has it serialized."""
    tensor = b""
    if values:
        tensor += message(0x0A, struct.pack(f"<{len(values)}f", *values))
    if keys:
        tensor += message(0x12, b"".join(map(varint, keys)))
    if shape is not None:
        tensor += message(0x1A, varint(shape))
    record = message(0x0A, message(0x0A, b"values") + message(0x12, message(0x12, tensor)))
    if label is not None:
        tensor = message(0x0A, struct.pack("<f", label))
        record += message(0x12, message(0x0A, b"values") + message(0x12, message(0x12, tensor)))
    return record


def naive_frames(content):
    """What dmlc-core writes: the parts between the magic numbers at multiples of 4."""
    parts, begin = [], 0
    for place in range(0, len(content) // 4 * 4, 4):
        if content[place : place + 4] == MAGIC:
            parts.append(content[begin:place])
            begin = place + 4
    parts.append(content[begin:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(
        MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


def naive_sparse(rows, n_columns, labels=None):
    return b"".join(
        naive_frames(
            naive_record(
                [value for _, value in row],
                [column for column, _ in row],
                n_columns,
                None if labels is None else labels[i],
            )
        )
        for i, row in enumerate(rows)
    )


def framed(*contents):
    return b"".join(map(naive_frames, contents))


# --- SageMaker's own files ------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MATRICES if name.startswith("sparse_f32")])
def test_sparse_rows_are_written_as_the_sdk_writes_them(kernels, name):
    X, y = expected_arrays(name)
    assert encode_sparse(as_rows(X), y) == fixture(name)


@pytest.mark.parametrize("name", [name for name in MATRICES if name.startswith("dense_f32")])
def test_dense_rows_are_written_as_the_sdk_writes_them(name):
    X, y = expected_arrays(name)
    assert encode_dense(X, y) == fixture(name)


def test_the_widest_rows_are_written_as_the_sdk_writes_them(kernels):
    facts = EXPECTED["sparse_f32_wide.pbr"]
    rows = [[(c, v) for r, c, v in facts["triples"] if r == row] for row in range(facts["rows"])]
    written = encode_sparse(sparse_rows(rows, facts["cols"]), facts["labels"])
    assert written == fixture("sparse_f32_wide.pbr")


def test_unsorted_and_repeated_keys_are_written_as_they_stand(kernels):
    facts = EXPECTED["sparse_f32_unsorted_duplicate_keys.pbr"]
    row = list(zip(facts["keys_as_written"], facts["values_as_written"], strict=True))
    written = encode_sparse(sparse_rows([row], facts["cols"]), facts["labels"])
    assert written == fixture("sparse_f32_unsorted_duplicate_keys.pbr")


@pytest.mark.parametrize("name", MATRICES)
def test_records_of_the_sdk_are_read(kernels, name):
    X, y = expected_arrays(name)
    dtype = np.int32 if X.dtype.kind == "i" else X.dtype
    found = list(read_records(fixture(name)))
    assert len(found) == len(X)
    for i, record in enumerate(found):
        tensor = record.features["values"]
        assert tensor.values.dtype == dtype and not tensor.values.flags.writeable
        if EXPECTED[name]["sparse"]:
            row = np.zeros(X.shape[1], dtype)
            row[tensor.keys if tensor.keys is not None else []] = tensor.values
            assert tensor.shape == (X.shape[1],)
        else:
            row = tensor.values
            assert tensor.keys is None and tensor.shape is None
        np.testing.assert_array_equal(row, X[i])
        if y is None:
            assert record.label == {}
        else:
            assert record.label["values"].values.tolist() == [y[i]]
        assert (record.uid, record.metadata, record.configuration) == (None, None, None)


@pytest.mark.parametrize("name", [name for name in MATRICES if name != "dense_f64_special.pbr"])
def test_files_of_the_sdk_are_read_as_a_matrix(name):
    X, y = expected_arrays(name)
    matrix, labels = read_matrix(fixture(name), n_columns=X.shape[1])
    if EXPECTED[name]["sparse"]:
        assert isinstance(matrix, SparseRows)
        matrix = matrix.to_scipy().toarray()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, X.astype(np.float32))
    if y is None:
        assert labels is None
    else:
        assert labels.dtype == (np.int32 if y.dtype.kind == "i" else y.dtype)
        np.testing.assert_array_equal(labels, y)


def test_nan_and_infinity_are_read_as_records_and_refused_as_a_matrix():
    data = fixture("dense_f64_special.pbr")
    (record,) = read_records(data)
    expected, _ = expected_arrays("dense_f64_special.pbr")
    np.testing.assert_array_equal(record.features["values"].values, expected[0])
    with refused(RecordIOError, "record 0", "byte 0", "NaN"):
        read_matrix(data)


def test_repeated_keys_are_summed_in_a_matrix():
    rows, labels = read_matrix(fixture("sparse_f32_unsorted_duplicate_keys.pbr"))
    assert rows.to_scipy().toarray().tolist() == [[2, 0, 4, 0]]
    assert labels.tolist() == [1]


def test_the_widest_rows_are_read():
    rows, _ = read_matrix(fixture("sparse_f32_wide.pbr"))
    assert rows.n_columns == 2**31 - 1
    assert rows.indices.tolist() == [3, 2**31 - 2, 300]
    assert rows.values.tolist() == [1.5, -2.5, 4]


def test_a_record_with_all_fields():
    (record,) = read_records(fixture("record_all_fields.pbr"))
    assert record.features["values"].values.tolist() == [1, 2]
    assert record.features["image"] == Bytes((b"\x00\xff",), "x")
    assert record.label["values"].values.tolist() == [3]
    assert (record.uid, record.metadata, record.configuration) == ("row-1", '{"a":1}', "{}")


def test_answers_of_the_algorithms():
    found = list(read_records(fixture("response_fm_classifier.pbr")))
    assert [record.label["predicted_label"].values.tolist() for record in found] == [[0], [1]]
    scores = [record.label["score"].values[0] for record in found]
    assert scores == [np.float32(0.4), np.float32(1.4)]
    facts = EXPECTED["response_knn_verbose.pbr"]
    (record,) = read_records(fixture("response_knn_verbose.pbr"))
    for name, values in facts.items():
        assert record.label[name].values.tolist() == np.float32(values).tolist()


# --- records in parts -----------------------------------------------------------------------


def test_records_in_parts_are_joined_as_dmlc_wrote_them():
    payloads = list(map(bytes.fromhex, EXPECTED["dmlc_multipart.rec"]["payloads_hex"]))
    data = fixture("dmlc_multipart.rec")
    assert [payload for _, payload in read_payloads(io.BytesIO(data), 2**20)] == payloads
    assert framed(*payloads) == data


def unsplit(payloads):
    """Frames as split_at_magic wants them."""
    sizes = np.array([len(payload) for payload in payloads])
    whole = b"".join(
        MAGIC + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)
        for payload in payloads
    )
    return np.frombuffer(bytearray(whole), np.uint8), frame_starts(sizes)[:-1], sizes


def test_records_are_cut_as_dmlc_cuts_them():
    payloads = list(map(bytes.fromhex, EXPECTED["dmlc_multipart.rec"]["payloads_hex"]))
    assert split_at_magic(*unsplit(payloads)) == fixture("dmlc_multipart.rec")


@given(
    st.lists(
        st.lists(st.sampled_from([MAGIC, b"x", b"yz", b"1234", MAGIC[:3]]), max_size=8).map(
            b"".join
        ),
        min_size=1,
        max_size=5,
    )
)
def test_cut_and_joined_is_what_it_was(payloads):
    data = split_at_magic(*unsplit(payloads))
    assert data == framed(*payloads)
    assert [payload for _, payload in read_payloads(io.BytesIO(data), 2**20)] == payloads


def test_a_value_that_is_the_magic_number(kernels):
    row = [(column, MAGIC_FLOAT) for column in range(5)]
    rows = sparse_rows([row, [(0, 1.0)], row], 7)
    data = encode_sparse(rows, [0.0, MAGIC_FLOAT, 1.0])
    assert data == naive_sparse([row, [(0, 1.0)], row], 7, [0.0, MAGIC_FLOAT, 1.0])
    assert data.count(MAGIC) > 3
    found, labels = read_matrix(data)
    assert (found.to_scipy() != rows.to_scipy()).nnz == 0
    assert labels.tolist() == [0, MAGIC_FLOAT, 1]


def test_keys_that_are_the_magic_number(kernels):
    row = [(column, 1.0) for column in MAGIC_COLUMNS]
    data = encode_sparse(sparse_rows([row], 30000))
    assert data == naive_sparse([row], 30000)
    assert struct.unpack_from("<I", data, 4)[0] >> 29 == 1
    assert read_matrix(data)[0].indices.tolist() == MAGIC_COLUMNS


@pytest.mark.parametrize("n_columns", range(1, 9))
def test_dense_values_that_are_the_magic_number(n_columns):
    matrix = np.full((3, n_columns), MAGIC_FLOAT, np.float32)
    labels = [MAGIC_FLOAT, 1.0, MAGIC_FLOAT]
    data = encode_dense(matrix, labels)
    contents = [naive_record(matrix[0].tolist(), [], None, label) for label in labels]
    assert data == framed(*contents)
    np.testing.assert_array_equal(read_matrix(data)[0], matrix)


# --- random rows, against plain Python ------------------------------------------------------

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    """[[(column, value), ...], ...], a width of 1 to 5 bytes as a varint, and labels or None."""
    n_columns = draw(st.sampled_from([1, 127, 128, 129, 2**14, 2**14 + 1, 2**21 + 1, 2**31 - 1]))
    edges = [2**7 - 1, 2**7, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**31 - 2]
    columns = st.integers(0, n_columns - 1) | st.sampled_from(
        [edge for edge in edges if edge < n_columns] or [0]
    )
    numbers = float32s | st.just(MAGIC_FLOAT)
    row = st.dictionaries(columns, numbers, max_size=40).map(lambda row: sorted(row.items()))
    rows = draw(st.lists(row, max_size=6))
    labels = draw(st.none() | st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    return rows, n_columns, labels


@given(table=tables())
@law
def test_sparse_rows_are_written_byte_for_byte(kernels, table):
    rows, n_columns, labels = table
    assert encode_sparse(sparse_rows(rows, n_columns), labels) == naive_sparse(*table)


@given(table=tables())
@law
def test_sparse_rows_come_back(table):
    rows, n_columns, labels = table
    data = encode_sparse(sparse_rows(rows, n_columns), labels)
    found = list(read_records(data))
    assert len(found) == len(rows)
    for i, (record, row) in enumerate(zip(found, rows, strict=True)):
        tensor = record.features["values"]
        assert tensor.shape == (n_columns,)
        keys = [] if tensor.keys is None else tensor.keys.tolist()
        assert keys == [column for column, _ in row]
        assert tensor.values.tobytes() == np.float32([value for _, value in row]).tobytes()
        if labels is not None:
            assert record.label["values"].values[0] == labels[i]
    if rows:
        matrix, targets = read_matrix(data)
        canonical = as_rows(sparse_rows(rows, n_columns).to_scipy())
        for name in ("indptr", "indices", "values", "n_columns"):
            np.testing.assert_array_equal(getattr(matrix, name), getattr(canonical, name))
        assert (targets is None) == (labels is None)


def test_a_value_of_every_length_of_length(kernels):
    # the lengths of tensor, Value, entry and fields take 1, 2 or 3 bytes
    for n in [0, 1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 127, 128, 3300, 4096]:
        row = [(column, 0.5) for column in range(n)]
        assert encode_sparse(sparse_rows([row], 5000), [1.0]) == naive_sparse([row], 5000, [1.0])
        if n:
            values = [0.5] * n
            assert encode_dense([values]) == framed(naive_record(values, [], None, None))


def test_pieces_are_joined_by_writing_one_after_the_other():
    rng = np.random.default_rng(0)
    rows = as_rows(rng.integers(2, size=(20, 300)))
    labels = rng.random(20)
    pieces = [encode_sparse(rows.slice(a, a + 5), labels[a : a + 5]) for a in range(0, 20, 5)]
    assert b"".join(pieces) == encode_sparse(rows, labels)


def test_no_rows_are_no_bytes():
    assert encode_sparse(sparse_rows([], 3)) == encode_sparse(sparse_rows([], 3), []) == b""
    assert encode_dense(np.zeros((0, 3)), []) == b""
    assert list(read_records(b"")) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i1", "u8", "i8", "?"])
def test_real_numbers_of_any_type_are_written_as_float32(dtype):
    matrix = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    matrix.flags.writeable = False
    labels = np.array([1, 0]).astype(dtype)
    data = encode_dense(matrix, labels)
    assert data == encode_dense(matrix.astype("f4"), labels.astype("f4"))
    assert encode_sparse(as_rows(matrix), labels) == encode_sparse(as_rows(matrix), [1, 0])


def test_strided_input_is_read_where_it_lies():
    big = np.arange(48, dtype=np.float32).reshape(6, 8)
    labels = np.arange(12, dtype=np.float32)
    straight = encode_dense(big[::2, ::-2].copy(), labels[::4].copy())
    assert encode_dense(big[::2, ::-2], labels[::4]) == straight
    assert encode_dense(np.asfortranarray(big)) == encode_dense(big)
    assert encode_dense(big.tolist()) == encode_dense(big)


# --- what is not written --------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_float32_are_refused(bad):
    matrix = np.ones((4, 3))
    matrix[2, 1] = bad
    with refused(ValueError, "the matrix", "row 2"):
        encode_dense(matrix)
    with refused(ValueError, "labels", "row 1"):
        encode_dense(np.ones((3, 1)), [0, bad, 0])
    with refused(ValueError, "labels", "row 1"):
        encode_sparse(sparse_rows([[], [], []], 1), [0, bad, 0])
    with refused(ValueError, "row 2", "NaN"):
        encode_sparse(sparse_rows([[], [(0, 1.0)], [(0, 1.0), (1, bad)], []], 3))


@pytest.mark.parametrize("label", [2**24 + 1, -(2**24) - 1, 2**63 - 1, -(2**63)])
def test_an_integer_label_that_float32_would_change_is_refused(label):
    with refused(ValueError, "row 1", label, "2**24"):
        encode_dense(np.ones((2, 1)), np.array([2**24, label]))


@pytest.mark.parametrize(
    "labels", [[1.0], [1.0, 2.0, 3.0], [[1.0], [2.0]], 1.0], ids=["few", "many", "table", "scalar"]
)
def test_labels_must_be_one_per_row(labels):
    with refused(ValueError, "labels must be one per row", 2):
        encode_sparse(sparse_rows([[], []], 1), labels)
    with refused(ValueError, "labels must be one per row", 2):
        encode_dense(np.ones((2, 1)), labels)


@pytest.mark.parametrize(
    "bad", [["a", "b"], [1j, 2], [None, 1], np.array(["2020", "2021"], "M8[Y]")]
)
def test_what_is_no_number_is_refused(bad):
    with refused(TypeError, "labels must be real numbers"):
        encode_sparse(sparse_rows([[], []], 1), bad)
    with refused(TypeError, "the matrix must be real numbers"):
        encode_dense([bad])


@pytest.mark.parametrize("shape", [(3,), (), (2, 0), (1, 1, 1)])
def test_a_matrix_must_have_rows_and_columns(shape):
    with refused(ValueError, "the matrix must be two-dimensional", shape):
        encode_dense(np.ones(shape))


def test_masked_numbers_are_refused():
    masked = np.ma.array([[1.0, 2.0]], mask=[[False, True]])
    with refused(ValueError, "masked"):
        encode_dense(masked)
    with refused(ValueError, "masked"):
        encode_dense(np.ones((2, 1)), masked[0])


def test_a_row_too_large_for_a_frame_is_refused_before_it_is_made():
    with refused(ValueError, "row 0", 2**29 - 1):
        encode_dense(np.broadcast_to(np.float32(0), (1, 2**27)))
    with refused(ValueError, "row 1", 2**29):
        frame_starts(np.array([2**29 - 1, 2**29]))


# --- an independent parser: Google's --------------------------------------------------------

TENSORS = {  # name: (field in Value, type of its values)
    "float32_tensor": (2, "TYPE_FLOAT"),
    "float64_tensor": (3, "TYPE_DOUBLE"),
    "int32_tensor": (7, "TYPE_INT32"),
}


def google_record(packed):
    """The class of the message Record, its numbers written packed or not."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    package = f"aialgs.data.{'packed' if packed else 'unpacked'}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    file.syntax = "proto2"

    def add(owner, name, number, kind, label="LABEL_OPTIONAL", type_name=None, oneof=None):
        made = owner.field.add(name=name, number=number)
        made.type, made.label = getattr(kinds, kind), getattr(kinds, label)
        if type_name:
            made.type_name = f".{package}.{type_name}"
        if oneof is not None:
            made.oneof_index = oneof
        if label == "LABEL_REPEATED" and kind not in ("TYPE_BYTES", "TYPE_MESSAGE"):
            made.options.packed = packed

    value = descriptor_pb2.DescriptorProto(name="Value")
    value.oneof_decl.add(name="value")
    for name, (number, kind) in TENSORS.items():
        tensor = file.message_type.add(name=name)
        add(tensor, "values", 1, kind, "LABEL_REPEATED")
        add(tensor, "keys", 2, "TYPE_UINT64", "LABEL_REPEATED")
        add(tensor, "shape", 3, "TYPE_UINT64", "LABEL_REPEATED")
        add(value, name, number, "TYPE_MESSAGE", type_name=name, oneof=0)
    blob = file.message_type.add(name="Bytes")
    add(blob, "value", 1, "TYPE_BYTES", "LABEL_REPEATED")
    add(blob, "content_type", 2, "TYPE_STRING")
    add(value, "bytes", 9, "TYPE_MESSAGE", type_name="Bytes", oneof=0)
    file.message_type.append(value)
    record = file.message_type.add(name="Record")
    for number, name in enumerate(("features", "label"), 1):
        entry = record.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        add(entry, "key", 1, "TYPE_STRING")
        add(entry, "value", 2, "TYPE_MESSAGE", type_name="Value")
        inner = f"Record.{entry.name}"
        add(record, name, number, "TYPE_MESSAGE", "LABEL_REPEATED", inner)
    for number, name in enumerate(("uid", "metadata", "configuration"), 3):
        add(record, name, number, "TYPE_STRING")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Record"))


@pytest.fixture(scope="module")
def google():
    return {packed: google_record(packed) for packed in (True, False)}


def said_by_google(record):
    """A record of Google's as plain values."""

    def value(found):
        kind = found.WhichOneof("value")
        if kind is None:
            return None
        held = getattr(found, kind)
        if kind == "bytes":
            content_type = held.content_type if held.HasField("content_type") else None
            return tuple(held.value), content_type
        dtype = {"float32_tensor": "<f4", "float64_tensor": "<f8", "int32_tensor": "<i4"}[kind]
        numbers = np.array(list(held.values), dtype)
        return dtype, numbers.tobytes(), list(held.keys), list(held.shape)

    texts = ("uid", "metadata", "configuration")
    return (
        {name: value(record.features[name]) for name in record.features},
        {name: value(record.label[name]) for name in record.label},
        *(getattr(record, name) if record.HasField(name) else None for name in texts),
    )


def said_by_us(record):
    """A record of ours as the same plain values."""

    def value(held):
        if isinstance(held, Bytes):
            return held.values, held.content_type
        if isinstance(held, Tensor):
            keys = [] if held.keys is None else held.keys.tolist()
            return held.values.dtype.str, held.values.tobytes(), keys, list(held.shape or ())
        return held

    return (
        {name: value(held) for name, held in record.features.items()},
        {name: value(held) for name, held in record.label.items()},
        record.uid,
        record.metadata,
        record.configuration,
    )


@given(table=tables())
@law
def test_google_reads_what_we_write(google, table):
    rows, n_columns, labels = table
    data = encode_sparse(sparse_rows(rows, n_columns), labels)
    payloads = [payload for _, payload in read_payloads(io.BytesIO(data), 2**20)]
    for i, (payload, row) in enumerate(zip(payloads, rows, strict=True)):
        record = google[True].FromString(payload)
        tensor = record.features["values"].float32_tensor
        assert list(tensor.keys) == [column for column, _ in row]
        assert list(tensor.values) == [value for _, value in row]
        assert list(tensor.shape) == [n_columns]
        if labels is None:
            assert not record.label
        else:
            assert list(record.label["values"].float32_tensor.values) == [labels[i]]
        # to the byte, but for the order of maps, which is not defined
        assert record.ByteSize() == len(payload)


positions = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300), max_size=4)
values_of = {
    "float32_tensor": float32s,
    "float64_tensor": st.floats(allow_nan=False),
    "int32_tensor": st.integers(-(2**31), 2**31 - 1),
}
tensors = st.sampled_from(list(values_of)).flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.lists(values_of[kind], max_size=5), positions, positions
    )
)
blobs = st.tuples(
    st.just("bytes"), st.lists(st.binary(max_size=5), max_size=3), st.text(max_size=3)
)
maps = st.dictionaries(st.text(max_size=4), tensors | blobs | st.none(), max_size=3)
google_contents = st.tuples(maps, maps, st.none() | st.text(max_size=5), st.booleans())


def made_by_google(classes, content):
    features, label, uid, packed = content
    record = classes[packed]()
    for target, held in ((record.features, features), (record.label, label)):
        for name, value in held.items():
            made = target[name]
            if value is None:
                continue
            if value[0] == "bytes":
                made.bytes.value.extend(value[1])
                made.bytes.content_type = value[2]
                continue
            kind, values, keys, shape = value
            tensor = getattr(made, kind)
            tensor.SetInParent()
            tensor.values.extend(values)
            tensor.keys.extend(keys)
            tensor.shape.extend(shape)
    if uid is not None:
        record.uid = record.configuration = uid
    return record


@given(content=google_contents)
@law
def test_we_read_what_google_writes(google, kernels, content):
    record = made_by_google(google, content)
    (found,) = read_records(framed(record.SerializeToString()))
    assert said_by_us(found) == said_by_google(record)


@given(contents=st.lists(google_contents, min_size=2, max_size=4))
@law
def test_records_written_one_into_the_other_are_merged_as_google_merges_them(google, contents):
    payload = b"".join(made_by_google(google, c).SerializeToString() for c in contents)
    assert said_by_us(parse_record(payload)) == said_by_google(google[True].FromString(payload))


@given(contents=st.lists(tensors | blobs, min_size=2, max_size=4))
@law
def test_values_written_one_into_the_other_are_merged_as_google_merges_them(google, contents):
    entry = message(0x0A, b"x")
    for packed, content in enumerate(contents):
        record = made_by_google(google, ({}, {"x": content}, None, bool(packed % 2)))
        entry += message(0x12, record.label["x"].SerializeToString())
    payload = message(0x12, entry)
    assert said_by_us(parse_record(payload)) == said_by_google(google[True].FromString(payload))


@given(content=google_contents, seed=st.integers(0, 2**32 - 1), n_changes=st.integers(1, 3))
@settings(law, max_examples=300)
def test_damaged_records_say_to_us_what_they_say_to_google(google, content, seed, n_changes):
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    rng = np.random.default_rng(seed)
    payload = bytearray(made_by_google(google, content).SerializeToString())
    for _ in range(n_changes if payload else 0):
        payload[rng.integers(len(payload))] = rng.integers(256)
    try:
        ours = said_by_us(parse_record(bytes(payload)))
    except ContentError:
        return  # we may be stricter: about text and numbers beyond 64 bits
    try:
        record = google[True].FromString(bytes(payload))
    except DecodeError:
        pytest.fail("read by us, refused by Google")
    # Google's C parser drops a map entry that holds an unknown field; elsewhere it is skipped
    if not {field.field_number for field in UnknownFieldSet(record)} & {1, 2}:
        assert ours == said_by_google(record)


# --- the wire, case by case -----------------------------------------------------------------

FLOATS = struct.pack("<2f", 1.0, 2.0)


def entry_of(value, key=b"values"):
    return message(0x0A, message(0x0A, key) + message(0x12, value))


def tensor_of(record):
    return record.features["values"]


def test_unknown_fields_are_skipped():
    strange = (
        varint(15 << 3) + varint(2**63)
        + varint(16 << 3 | 1) + bytes(8)
        + varint(17 << 3 | 2) + varint(3) + b"abc"
        + varint(18 << 3 | 5) + bytes(4)
        + varint(19 << 3 | 3) + b"\x08\x01" + varint(20 << 3 | 3) + varint(20 << 3 | 4)
        + varint(19 << 3 | 4)
    )  # fmt: skip
    tensor = strange + message(0x0A, FLOATS) + strange
    value = strange + message(0x12, tensor) + strange
    entry = strange + message(0x0A, b"values") + strange + message(0x12, value) + strange
    record = parse_record(strange + message(0x0A, entry) + strange)
    assert tensor_of(record).values.tolist() == [1, 2] and len(record.features) == 1


def test_known_fields_of_another_wire_type_are_skipped():
    record = parse_record(b"\x08\x05" + b"\x1d" + bytes(4) + entry_of(b"\x10\x05" + b"\x12\x00"))
    assert record.uid is None
    assert tensor_of(record).values.tolist() == []


def test_an_entry_without_key_or_value():
    record = parse_record(message(0x0A, b"") + message(0x12, message(0x0A, b"x")))
    assert record.features == {"": None} and record.label == {"x": None}


def test_the_last_of_a_repeated_key_counts():
    first = entry_of(message(0x12, message(0x0A, FLOATS)))
    record = parse_record(first + entry_of(message(0x3A, message(0x0A, b"\x07"))))
    assert tensor_of(record).values.tolist() == [7]
    assert tensor_of(record).values.dtype == np.int32


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**31 - 1, -1, -(2**31)])
def test_int32_numbers(kernels, number):
    written = varint(number % 2**64)
    assert len(written) == (10 if number < 0 else len(written))
    for content in (message(0x0A, written * 2), (b"\x08" + written) * 2):
        record = parse_record(entry_of(message(0x3A, content)))
        assert tensor_of(record).values.tolist() == [number, number]


@pytest.mark.parametrize(
    ("raw", "numbers"),
    [
        (b"", []),
        (b"\x00", [0]),
        (b"\x05\xac\x02\x80\x80\x00", [5, 300, 0]),
        (varint(2**63 - 1), [2**63 - 1]),
        (varint(2**64 - 1), [-1]),
        (varint(2**63), [-(2**63)]),
        (b"\x80" * 9 + b"\x00", [0]),
        (b"\x80" * 9 + b"\x02", None),
        (b"\x80" * 10 + b"\x00", None),
        (b"\xff" * 11, None),
        (b"\x05\x80", None),
    ],
)
def test_varints(impl, raw, numbers):
    out = np.zeros(len(raw), np.int64)
    count = impl(recordio_kernel.read_varints)(np.frombuffer(raw, np.uint8), out)
    assert count == (-1 if numbers is None else len(numbers))
    if numbers is not None:
        assert out[:count].tolist() == numbers


# --- files that lie -------------------------------------------------------------------------


def broken(data, *words, **options):
    """Reading it is refused in one line that says so."""
    with refused(RecordIOError, "record", "byte", *words):
        list(read_records(data, **options))


@pytest.mark.parametrize("name", ["sparse_int.pbr", "record_all_fields.pbr", "dmlc_multipart.rec"])
def test_a_file_cut_off_anywhere_is_refused(name):
    data = fixture(name)
    if name == "dmlc_multipart.rec":  # its contents are no Records
        data = framed(naive_record([MAGIC_FLOAT] * 5, [0, 1, 2, 3, 4], 7, MAGIC_FLOAT))
    whole = {0, len(data)}
    for end, (offset, _) in enumerate(read_payloads(io.BytesIO(data), 2**20)):
        whole.add(offset if end else 0)
    for stop in range(len(data) + 1):
        if stop in whole:
            list(read_records(data[:stop]))
        else:
            broken(data[:stop], "cut off")


def test_a_content_cut_off_anywhere_is_refused_or_a_shorter_record():
    content = naive_record([1.0, 2.0], [0, 300], 1000, 1.0)
    middle = len(naive_record([1.0, 2.0], [0, 300], 1000, None))
    for stop in range(len(content)):
        if stop in (0, middle):
            parse_record(content[:stop])
        else:
            broken(framed(content[:stop]), "record 0", "begins at byte 0")


def test_errors_name_record_and_byte():
    good = naive_record([1.0], [], None, None)
    begin = len(framed(good, good))
    broken(framed(good, good, b"\x0f"), "record 2", f"byte {begin}", "wire type 7")
    broken(framed(good, good) + b"id,rating,x", "record 2", f"byte {begin}", "no magic number")
    broken(b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "record 0", "byte 0", "compressed")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x00\x00", "field number 0"),
        (varint(2**29 << 3) + b"\x00", "field number"),
        (b"\x0f", "wire type 7"),
        (b"\x0e\x00", "wire type 6"),
        (b"\x0a\x05abc", "ends 2 bytes too late"),
        (b"\x0a" + varint(2**62), "too late"),
        (b"\x0a" + varint(2**64 - 1), "too late"),
        (b"\x0a" + b"\xff" * 10, "64 bits"),
        (b"\xff" * 20, "64 bits"),
        (b"\x80", "does not end"),
        (b"\x78" + b"\x80" * 9 + b"\x02", "64 bits"),
        (b"\x79\x00", "too late"),
        (b"\x7d\x00", "too late"),
        (b"\x7c", "not open"),
        (b"\x7b", "group 15 does not end"),
        (b"\x7b" + varint(16 << 3 | 4), "group 16 that is not open"),
        (message(0x1A, b"\xff"), "UTF-8"),
        (entry_of(b"", key=b"\xff"), "UTF-8"),
        (entry_of(message(0x4A, message(0x12, b"\xff"))), "UTF-8"),
        (entry_of(message(0x12, message(0x0A, b"abcde"))), "5 bytes are no whole float32s"),
        (entry_of(message(0x1A, message(0x0A, b"abcd"))), "4 bytes are no whole float64s"),
        (entry_of(message(0x12, message(0x12, b"\x80"))), "beyond the end"),
        (entry_of(message(0x3A, message(0x0A, b"\x05\x80"))), "beyond the end"),
        (
            entry_of(message(0x12, message(0x12, b"\x05" + varint(2**63)))),
            "a key in this entry is above 2**63 - 1",
        ),
        (
            entry_of(message(0x12, message(0x1A, varint(2**64 - 1)))),
            "the shape in this entry is above 2**63 - 1",
        ),
        (entry_of(message(0x12, message(0x12, b"\xff" * 10 + b"\x01"))), "64 bits"),
        (entry_of(message(0x3A, message(0x0A, b"\x80" * 9 + b"\x02"))), "64 bits"),
    ],
)
def test_a_content_that_is_no_record_is_refused(content, word):
    broken(framed(content), "record 0", word)


def test_groups_in_groups_take_no_recursion():
    depth = 100_000
    whole = b"\x7b" * depth + b"\x7c" * depth
    assert parse_record(whole).features == {}
    broken(framed(whole[:-1]), "does not end")


@pytest.mark.parametrize(
    ("flags", "word"),
    [([2], "flag 2"), ([3], "flag 3"), ([1, 0], "flag 0"), ([1, 1], "flag 1"), ([7], "flag 7")],
)
def test_parts_out_of_turn_are_refused(flags, word):
    data = b"".join(MAGIC + struct.pack("<I", flag << 29) for flag in flags)
    broken(data, "record 0", word, "out of turn")


def test_a_last_part_that_is_missing_is_refused():
    broken(MAGIC + struct.pack("<I", 1 << 29), "record 0", "cut off")


def test_a_record_longer_than_allowed_is_refused():
    content = naive_record([MAGIC_FLOAT] * 8, [], None, None)
    data = framed(content)
    assert len(list(read_records(data, max_record_bytes=len(content)))) == 1
    broken(data, f"more than {len(content) - 1} bytes", max_record_bytes=len(content) - 1)
    with refused(ValueError, "max_record_bytes"):
        read_records(data, max_record_bytes=0)


def test_a_claimed_length_is_not_believed(tmp_path):
    path = tmp_path / "lies.pbr"
    path.write_bytes(MAGIC + struct.pack("<I", 2**29 - 1) + bytes(100))
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            broken(file, "cut off")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_read(content):
    for data in (content, framed(content)):
        try:
            list(read_records(data))
        except RecordIOError as error:
            assert "\n" not in str(error)


# --- where the data comes from --------------------------------------------------------------


class Trickle(io.RawIOBase):
    """A file that gives few bytes at a time and counts them."""

    def __init__(self, data):
        self.data, self.n_read = data, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.data[self.n_read : self.n_read + min(5, len(buffer))]
        buffer[: len(piece)] = piece
        self.n_read += len(piece)
        return len(piece)


def test_bytes_of_any_kind_and_files_are_read_alike(tmp_path):
    data = fixture("sparse_f32_fm_onehot.pbr")
    path = tmp_path / "x.pbr"
    path.write_bytes(data)
    spread_out = np.zeros(2 * len(data), np.uint8)
    spread_out[::2] = np.frombuffer(data, np.uint8)
    expected = [said_by_us(record) for record in read_records(data)]
    with path.open("rb") as file:
        sources = [
            bytearray(data),
            memoryview(data),
            memoryview(spread_out)[::2],
            io.BytesIO(data),
            Trickle(data),
            file,
        ]
        for source in sources:
            assert [said_by_us(record) for record in read_records(source)] == expected


def test_a_file_is_read_no_further_than_it_is_asked_for():
    data = fixture("sparse_f32_fm_onehot.pbr")
    file = Trickle(data)
    found = read_records(file)
    assert file.n_read == 0
    for i in range(1, 13):
        next(found)
        assert file.n_read == 60 * i


@pytest.mark.parametrize("data", ["text", 5, None, ["a"]])
def test_what_is_no_bytes_is_refused(data):
    with refused(TypeError, "data must be bytes or an open binary file", type(data).__name__):
        read_records(data)


def test_a_text_file_is_refused():
    with refused(TypeError, "binary file", "str"):
        list(read_records(io.StringIO("text")))


# --- as a matrix ----------------------------------------------------------------------------


def sparse(n_columns=4, label=1.0):
    return naive_record([1.0], [2], n_columns, label)


def dense(n_columns=4, label=1.0):
    return naive_record([1.0] * n_columns, [], None, label)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([], ["no record"]),
        ([sparse(), dense()], ["record 1", "dense float32, 4 columns", "record 0 is sparse"]),
        ([sparse(), sparse(5)], ["record 1", "5 columns", "4 columns"]),
        ([dense(), dense(), dense(3)], ["record 2", "3 columns", "4 columns"]),
        ([dense(), dense(label=None)], ["record 1", "no label", "float32 label"]),
        ([dense(label=None), dense()], ["record 1", "no label", "float32 label"]),
        ([message(0x1A, b"me")], ["record 0", 'no tensor "values"']),
        ([entry_of(message(0x4A, b""))], ["record 0", 'no tensor "values"']),
        ([entry_of(b"")], ["record 0", 'no tensor "values"']),
        ([naive_record([1.0], [0, 1], 4, None)], ["record 0", "1 values, but 2 keys"]),
        ([naive_record([1.0], [4], 4, None)], ["record 0", "a key above 3"]),
        ([naive_record([1.0], [2**40], 4, None)], ["record 0", "a key above 3"]),
        ([naive_record([1.0], [0], 2**31, None)], ["record 0", "2147483648 columns"]),
        ([naive_record([1.0], [0], None, None)], ["record 0", "pass n_columns"]),
        ([naive_record([1.0, 2.0], [], 3, None)], ["record 0", "2 values", "shape is [3]"]),
        ([naive_record([1.0, 2.0], [], None, None) + message(0x12, b"\x0a\x06values")], []),
        ([naive_record([np.inf], [0], 4, None)], ["record 0", "infinity"]),
        ([dense(), naive_record([1, 2, np.nan, 3], [], None, 1.0)], ["record 1", "NaN"]),
    ],
)
def test_records_that_are_no_matrix_are_refused(contents, words):
    data = framed(*contents)
    if words:
        with refused(RecordIOError, *words):
            read_matrix(data)
    else:  # a label that is named and left empty is no label
        assert read_matrix(data)[1] is None


@pytest.mark.parametrize(
    "label",
    [
        message(0x12, b""),
        message(0x12, message(0x0A, FLOATS)),
        message(0x4A, message(0x0A, b"1.0")),
    ],
)
def test_a_label_that_is_not_one_number_is_refused(label):
    label = message(0x12, message(0x0A, b"values") + message(0x12, label))
    with refused(RecordIOError, "record 1", "single number"):
        read_matrix(framed(dense(), dense(label=None) + label))


def test_a_shape_of_two_dimensions_is_refused():
    tensor = message(0x0A, FLOATS) + message(0x1A, b"\x01\x02")
    with refused(RecordIOError, "record 0", "[1, 2]"):
        read_matrix(framed(entry_of(message(0x12, tensor))))


def test_float64_beyond_float32_is_refused():
    content = entry_of(message(0x1A, message(0x0A, struct.pack("<d", 1e39))))
    with refused(RecordIOError, "record 0", "beyond float32"):
        read_matrix(framed(content))


def test_the_expected_width():
    with refused(RecordIOError, "record 0", "4 columns, expected 5"):
        read_matrix(framed(sparse()), n_columns=5)
    with refused(RecordIOError, "record 0", "4 columns, expected 5"):
        read_matrix(framed(dense()), n_columns=5)
    rows, _ = read_matrix(framed(naive_record([1.0], [3], None, None)), n_columns=9)
    assert rows.shape == (1, 9)
    with refused(ValueError, "n_columns"):
        read_matrix(framed(dense()), n_columns=-1)


def test_only_rows_of_zeros():
    rows, labels = read_matrix(encode_sparse(sparse_rows([[], []], 9)))
    assert isinstance(rows, SparseRows) and rows.shape == (2, 9) and labels is None


def test_a_matrix_takes_little_more_memory_than_its_file():
    rng = np.random.default_rng(0)
    rows = SparseRows.one_hot(5000, 0, 5000)
    data = encode_sparse(rows, rng.random(5000))
    tracemalloc.start()
    try:
        read_matrix(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data)
