"""Writing what the factorization machine container leaves behind: MXNet parameters in a tarball.

The parameters are an NDArray list of version 2 (MXNet's ``src/ndarray/ndarray.cc``,
``NDArray::Save``): ``v`` and ``w1_weight`` of storage type row_sparse, ``w0_weight`` dense. The
graph has MXNet's JSON form; the container's own graph is not public.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np

LIST_MAGIC, V2 = 0x112, 0xF993FAC9
DTYPES = {"float32": 0, "float64": 1, "int64": 6}
CPU = struct.pack("<ii", 1, 0)


def _shape(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f"<i{len(shape)}q", len(shape), *shape)


def dense(array: np.ndarray) -> bytes:
    """An array of storage type 0."""
    head = struct.pack("<Ii", V2, 0) + _shape(array.shape)
    return head + CPU + struct.pack("<i", DTYPES[array.dtype.name]) + array.tobytes()


def row_sparse(indices: np.ndarray, rows: np.ndarray, shape: tuple[int, ...]) -> bytes:
    """An array of storage type 1: these rows at these indices, all others zero."""
    indices = np.asarray(indices, np.int64)
    head = struct.pack("<Ii", V2, 1) + _shape(rows.shape) + _shape(shape)
    kinds = struct.pack("<i", DTYPES[rows.dtype.name]) + struct.pack("<i", DTYPES["int64"])
    return head + CPU + kinds + _shape(indices.shape) + rows.tobytes() + indices.tobytes()


def ndarray_list(arrays: dict[str, bytes]) -> bytes:
    """The file of these named, already encoded arrays."""
    names = b"".join(struct.pack("<Q", len(n.encode())) + n.encode() for n in arrays)
    head = struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))
    return head + b"".join(arrays.values()) + struct.pack("<Q", len(arrays)) + names


def fm_params(w0: float, w: np.ndarray, V: np.ndarray) -> bytes:
    """The parameters of a factorization machine, every row written."""
    rows = np.arange(len(w))
    w, V = np.ascontiguousarray(w[:, None], np.float32), np.ascontiguousarray(V, np.float32)
    return ndarray_list(
        {
            "arg:w1_weight": row_sparse(rows, w, w.shape),
            "arg:w0_weight": dense(np.array([[w0]], np.float32)),
            "arg:v": row_sparse(rows, V, V.shape),
        }
    )


def fm_symbol(n_features: int, n_factors: int, regressor: bool) -> bytes:
    """A graph of the factorization machine's score and its output operator."""
    nodes: list[dict] = []

    def node(op: str, name: str, *inputs: int, **attrs: str) -> int:
        described = {"op": op, "name": name, "inputs": [[i, 0, 0] for i in inputs]}
        nodes.append({**described, "attrs": attrs} if attrs else described)
        return len(nodes) - 1

    data = node("null", "data", __storage_type__="2")
    w = node("null", "w1_weight", __shape__=f"({n_features}, 1)", __storage_type__="1")
    linear = node("dot", "dot0", data, w)
    w0 = node("null", "w0_weight", __shape__="(1, 1)")
    affine = node("broadcast_add", "broadcast_add0", linear, w0)
    v = node("null", "v", __shape__=f"({n_features}, {n_factors})", __storage_type__="1")
    sums = node("square", "square0", node("dot", "dot1", data, v))
    halves = node("_mul_scalar", "_mulscalar0", sums, scalar="0.5")
    both = node("Concat", "concat0", affine, halves, dim="1", num_args="2")
    total = node("sum", "sum0", both, axis="1", keepdims="True")
    squares = node("square", "square1", data)
    norms = node("_square_sum", "_square_sum0", v, axis="1", keepdims="True")
    own = node("dot", "dot2", squares, norms)
    minus = node("_mul_scalar", "_mulscalar1", own, scalar="-0.5")
    score = node("elemwise_add", "_plus0", total, minus)
    label = node("null", "out_label")
    kind = "LinearRegressionOutput" if regressor else "LogisticRegressionOutput"
    out = node(kind, "out", score, label)
    graph = {
        "nodes": nodes,
        "arg_nodes": [i for i, n in enumerate(nodes) if n["op"] == "null"],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[out, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10100]},
    }
    return json.dumps(graph, indent=2).encode()


def zip_of(members: dict[str, bytes]) -> bytes:
    """A zip archive, deflated."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2019, 4, 4, 0, 0, 0)), content)
    return file.getvalue()


def tar_gz_of(members: dict[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0)


def read_tar_gz(data: bytes) -> dict[str, bytes]:
    """The regular members of a gzipped tar archive."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
