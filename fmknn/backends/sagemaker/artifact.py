"""The model.tar.gz of a SageMaker factorization machine: read without MXNet, and written.

What the training job leaves is a gzipped tar with one member, ``model_algo-1``: a zip of
``symbol.json``, MXNet's graph, and ``params``, its parameters ("Extending Amazon SageMaker
factorization machines algorithm to predict top x recommendations", AWS Machine Learning Blog).
Nothing is ever unpacked to disk, and no name in an archive is used as a path.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..._checks import require_count
from ..._files import replacing
from ...errors import DivergenceError, ModelFileError
from ...model.params import FMParams
from .archive import ARCHIVE, PARAMS, SYMBOL, unwrap
from .mxnet_params import read_within, write_params

__all__ = ["FMArtifact", "read_artifact", "write_artifact"]

Loss = Literal["squared", "logistic"]

_LOSSES: dict[str, Loss] = {
    "LinearRegressionOutput": "squared",
    "LogisticRegressionOutput": "logistic",
}


@dataclass(frozen=True)
class FMArtifact:
    """A factorization machine as it was read, and its loss where the archive tells.

    Attributes
    ----------
    params : FMParams
    loss : {"squared", "logistic"} or None
        From the output of the graph: a regressor or a binary classifier. None without a graph.
    """

    params: FMParams
    loss: Loss | None


def read_artifact(
    source: bytes | str | os.PathLike[str], *, max_bytes: int = 2**30, where: str = ""
) -> FMArtifact:
    """Read the factorization machine that a SageMaker training job left in S3.

    Parameters
    ----------
    source : bytes or path
        model.tar.gz (or the tar), the ``model_algo-1`` in it, the ``params`` in that, or a tar or
        zip of what MXNet's ``Module.save_checkpoint`` writes.
    max_bytes : int
        The most that anything in it may take once decompressed, or as arrays. Four times the
        size of the source is always allowed.

    Returns
    -------
    FMArtifact

    Raises
    ------
    FileNotFoundError
        When there is nothing at the path.
    ModelFileError
        When it is damaged, no factorization machine, or larger than `max_bytes`.
    DivergenceError
        When it holds NaN or infinity: the training diverged.

    Notes
    -----
    ``v`` (n_features, n_factors) are the factors, ``w1_weight`` the n_features linear weights,
    ``w0_weight`` is the global bias, as in MXNet's example/sparse/factorization_machine.

    Examples
    --------
    >>> import tempfile
    >>> params = FMParams(0.5, [1.0, 2.0], [[0.25], [4.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_artifact(f"{folder}/model.tar.gz", params, "logistic")
    ...     artifact = read_artifact(f"{folder}/model.tar.gz")
    >>> artifact
    FMArtifact(params=FMParams(2 features, 1 factors), loss='logistic')
    """
    require_count("max_bytes", max_bytes)
    if not isinstance(source, (str, os.PathLike)):
        with _naming(where):
            return _of_bytes(bytes(memoryview(source)), max_bytes)
    if not (path := Path(source)).exists():
        raise FileNotFoundError(errno.ENOENT, "no model archive here, check the path", str(path))
    with _naming(where or str(path)):
        if not path.is_file():  # a pipe or a device would block or never end
            raise ModelFileError("is no file: name the model.tar.gz itself")
        return _of_bytes(path.read_bytes(), max_bytes)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except (ModelFileError, DivergenceError) as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from None


def _of_bytes(data: bytes, max_bytes: int) -> FMArtifact:
    limit = max(max_bytes, 4 * len(data))
    params, symbol = unwrap(data, limit)
    loss = None if symbol is None else _loss_of(symbol)
    return FMArtifact(_fm_params(read_within(params, limit)), loss)


def _loss_of(symbol: bytes) -> Loss | None:
    """Return the loss that the graph's output stands for, None if it has another one."""
    try:  # a number of a million digits would take an int very long
        nodes = json.loads(symbol, parse_int=float)["nodes"]
        operators = {node["op"] for node in nodes}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ModelFileError("symbol.json is damaged: it is no graph of MXNet's") from None
    losses = {_LOSSES[operator] for operator in operators & _LOSSES.keys()}
    return losses.pop() if len(losses) == 1 else None


def _fm_params(arrays: dict[str, np.ndarray]) -> FMParams:
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        name = name.removeprefix("arg:")
        if name in found:
            raise ModelFileError(f"the parameter {name[:60]!r} is there twice, once as 'arg:'")
        found[name] = array
    if missing := [name for name in ("v", "w1_weight", "w0_weight") if name not in found]:
        present = ", ".join(repr(name[:60]) for name in list(arrays)[:10]) or "nothing"
        raise ModelFileError(
            f"this is no factorization machine: there is no {', '.join(missing)}, but {present}"
        )
    v, w, w0 = found["v"], found["w1_weight"], found["w0_weight"]
    if v.ndim != 2 or not v.size or w.size != len(v) or w0.size != 1:
        raise ModelFileError(
            "this is no factorization machine: expected v of shape (n, k), n numbers in w1_weight "
            f"and one in w0_weight, got shapes {v.shape}, {w.shape} and {w0.shape}"
        )
    V, w, w0 = _finite("v", v), _finite("w1_weight", w.ravel()), _finite("w0_weight", w0.ravel())
    return FMParams(w0.item(), w, V)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    """Return the values, rows of a parameter, as float32."""
    if values.dtype.kind != "f":
        raise ModelFileError(f"parameter {name} is of dtype {values.dtype}, expected floats")
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are refused below
        values = values.astype(np.float32, copy=False)
    if len(wrong := np.argwhere(~np.isfinite(values))):
        raise DivergenceError(
            f"parameter {name} has NaN or infinity, first in row {wrong[0][0]}: the training "
            "diverged; train again with lower learning rates or with clip_gradient"
        )
    return values


def write_artifact(path: str | os.PathLike[str], params: FMParams, loss: str) -> None:
    """Write a model.tar.gz as SageMaker leaves it, with a graph that MXNet runs.

    Parameters
    ----------
    path : str or path-like
        An existing file is replaced in the last step only.
    params : FMParams
    loss : {"squared", "logistic"}
        What the graph puts out: the score, or its sigmoid.

    Raises
    ------
    TypeError
        For anything but FMParams, a Posterior for instance.
    ValueError
        For another loss, cutpoints, a bias beyond float32, or a model without features or factors.
    FileNotFoundError, IsADirectoryError
        When the folder of `path` does not exist, or `path` is a folder itself.

    Notes
    -----
    The same model gives the same bytes. The graph was loaded and run by ``Module`` of MXNet 1.9.1
    and 1.2.1, on dense and on compressed rows.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_artifact(f"{folder}/model.tar.gz", FMParams(0.5, [1.0], [[0.25]]), "squared")
    ...     tarfile.open(f"{folder}/model.tar.gz").getnames()
    ['model_algo-1']
    """
    outputs = {value: operator for operator, value in _LOSSES.items()}
    if loss not in outputs:
        raise ValueError(f"loss must be 'squared' or 'logistic', got {loss!r}")
    if not isinstance(params, FMParams):
        raise TypeError(f"the format holds one FMParams, got {type(params).__name__}")
    if len(params.cutpoints):
        raise ValueError("the format holds no cutpoints, as those of an ordinal model are")
    if abs(params.w0) > float(np.finfo(np.float32).max):
        raise ValueError(f"w0 = {params.w0} is beyond float32, which the format holds")
    arrays = {
        "arg:w1_weight": params.w.reshape(-1, 1),
        "arg:w0_weight": np.array([[params.w0]], np.float32),
        "arg:v": params.V,
    }
    symbol = json.dumps(
        _graph(params.n_features, params.n_factors, outputs[loss]), indent=2
    ).encode()
    archive = _zipped({SYMBOL: symbol, PARAMS: write_params(arrays)})
    member = tarfile.TarInfo(ARCHIVE)
    member.size = len(archive)
    with (
        replacing(path) as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        tar.addfile(member, io.BytesIO(archive))


def _zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip without dates; stored, as gzip compresses it anyway."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, content)
    return packed.getvalue()


def _graph(n_features: int, n_factors: int, output: str) -> dict[str, Any]:
    """Return the FM as MXNet's graph: operators, each with the positions of its inputs.

    y = w0 + <w, x> + ½(‖Σ_p x_p v_p‖² − Σ_p x_p² ‖v_p‖²) (Rendle, ICDM 2010, lemma 3.1).
    """
    nodes: list[dict[str, Any]] = []

    def node(operator: str, name: str, *inputs: int, **attributes: str) -> int:
        entry = {"op": operator, "name": name, "inputs": [[place, 0, 0] for place in inputs]}
        nodes.append({**entry, "attrs": attributes} if attributes else entry)
        return len(nodes) - 1

    def row_sums(name: str, values: int) -> int:
        return node("sum", name, values, axis="1", keepdims="True")

    x = node("null", "data", __storage_type__="2")  # compressed rows: x is wide and almost empty
    w = node("null", "w1_weight", __shape__=f"({n_features}, 1)")
    w0 = node("null", "w0_weight", __shape__="(1, 1)")
    v = node("null", "v", __shape__=f"({n_features}, {n_factors})")
    linear = node("broadcast_add", "linear", node("dot", "weighted", x, w), w0)
    vector = node("dot", "vector", x, v)
    everything = row_sums("square_of_sum", node("square", "vector_squared", vector))
    norms = row_sums("norms", node("square", "v_squared", v))
    same = node("dot", "sum_of_squares", node("square", "data_squared", x), norms)
    twice = node("elemwise_sub", "pairs_twice", everything, same)
    pairs = node("_mul_scalar", "pairs", twice, scalar="0.5")
    score = node("elemwise_add", "score", linear, pairs)
    out = node(output, "out", score, node("null", "out_label"))
    return {
        "nodes": nodes,
        "arg_nodes": [place for place, entry in enumerate(nodes) if entry["op"] == "null"],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[out, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10100]},  # 1.1.0
    }
