"""Rows per CPU second of writing and reading RecordIO-protobuf, SageMaker's training format.

The rows are those of a factorization machine: two ones, a user and an item, and a label. Writing is
timed in one piece, on one thread, several times over; the first call, which compiles or loads code,
apart. With ``--sdk-python``, an interpreter that has the SageMaker Python SDK 2.x, the same is
written by its ``write_spmatrix_to_sparse_tensor``, fewer rows of it, and the bytes of both are
compared.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _report import environment, parser, print_environment, print_table, spread, write_json, yes_no

from fmknn.backends.sagemaker.recordio import encode_sparse, read_matrix, read_records
from fmknn.data.rows import SparseRows

N_USERS, N_ITEMS = 6040, 3883
TARGET = 100_000  # rows written per CPU second: 1 million rows in 10 CPU seconds
PEER = "SageMaker SDK"
SDK_SCRIPT = """
import hashlib, importlib.metadata, io, json, sys, time
import numpy as np, scipy.sparse as sp
from sagemaker.amazon.common import write_spmatrix_to_sparse_tensor

rows = np.load(sys.argv[1])
n = len(rows["labels"])
X = sp.csr_matrix((np.ones(2 * n, np.float32), rows["indices"], 2 * np.arange(n + 1)),
                  shape=(n, int(rows["n_columns"])))
seconds = []
for repeat in range(int(sys.argv[2])):
    file, start = io.BytesIO(), time.process_time()
    write_spmatrix_to_sparse_tensor(file, X, rows["labels"])
    seconds.append(time.process_time() - start)
print(json.dumps({"seconds": seconds, "version": importlib.metadata.version("sagemaker"),
                  "sha256": hashlib.sha256(file.getvalue()).hexdigest()}))
"""


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="rows written by fmknn")
    options.add_argument("--slow-rows", type=int, default=20_000, help="rows of the slower sides")
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--sdk-python", metavar="PATH", help="interpreter that has sagemaker<3")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.rows, arguments.slow_rows, arguments.repeat = 200_000, 5_000, 3
    facts = environment()
    print_environment(facts)
    rows, labels = one_hot_rows(arguments.rows)
    first = cpu_seconds(lambda: encode_sparse(rows.slice(0, 10), labels[:10]), 1)[0]
    print(f"first call, compiling or loading: {first:.2f} CPU s\n", flush=True)

    few, few_labels = rows.slice(0, arguments.slow_rows), labels[: arguments.slow_rows]
    data = encode_sparse(few, few_labels)
    matrix, targets = read_matrix(data)
    comes_back = (
        np.array_equal(matrix.indices, few.indices)
        and np.array_equal(matrix.values, few.values)
        and np.array_equal(targets, few_labels)
    )
    sides = {
        "write: encode_sparse": (len(rows), lambda: encode_sparse(rows, labels)),
        "read: read_matrix": (len(few), lambda: read_matrix(data)),
        "read: read_records": (len(few), lambda: sum(1 for _ in read_records(data))),
    }
    results = [
        side(f"fmknn, {name}", n, cpu_seconds(work, arguments.repeat))
        for name, (n, work) in sides.items()
    ]
    verdict: dict[str, Any] = {"what is written comes back": comes_back}
    if arguments.sdk_python is None:
        print(f"{PEER}: not measured (--sdk-python)")
    else:
        peer = run_sdk(arguments.sdk_python, few, few_labels, arguments.repeat)
        name = f"{PEER} {peer['version']}, write"
        results.append(side(name, len(few), peer["seconds"]))
        verdict["bytes are the SDK's"] = hashlib.sha256(data).hexdigest() == peer["sha256"]
        ratio = results[0]["rows/CPU s"] / results[-1]["rows/CPU s"]
        print(f"fmknn writes {ratio:.0f} x the rows of {name}, per CPU second")
    print_table(results)
    verdict[f"at least {TARGET} rows written per CPU s"] = results[0]["rows/CPU s"] >= TARGET
    for what, fulfilled in verdict.items():
        print(f"{what}: {yes_no(fulfilled)}")
    write_json(
        arguments.json, facts, first_call_cpu_seconds=first, results=results, verdict=verdict
    )


def one_hot_rows(n: int) -> tuple[SparseRows, np.ndarray]:
    """Return rows with a user and an item each, and labels from 1 to 5."""
    rng = np.random.default_rng(0)
    columns = np.stack([rng.integers(N_USERS, size=n), N_USERS + rng.integers(N_ITEMS, size=n)], 1)
    ones = np.ones(2 * n, np.float32)
    rows = SparseRows(2 * np.arange(n + 1), columns.reshape(-1), ones, N_USERS + N_ITEMS)
    return rows, rng.integers(1, 6, size=n).astype(np.float32)


def cpu_seconds(work: Callable[[], Any], repeat: int) -> list[float]:
    """CPU seconds of the process, each time the work is done."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return seconds


def side(name: str, n_rows: int, seconds: list[float]) -> dict[str, Any]:
    """A row of the table."""
    rates = spread([n_rows / second for second in seconds])
    return {
        "side": name,
        "rows": n_rows,
        "CPU s": statistics.median(seconds),
        "rows/CPU s": round(rates["median"]),
        "min": round(rates["min"]),
        "max": round(rates["max"]),
    }


def run_sdk(python: str, rows: SparseRows, labels: np.ndarray, repeat: int) -> dict[str, Any]:
    """Let the SDK write the rows in a process of its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, indices=rows.indices, labels=labels, n_columns=rows.n_columns)
        command = [python, "-c", SDK_SCRIPT, str(path), str(repeat)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if ran.returncode:
        raise SystemExit(f"{python} could not run the SDK:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
