"""What tests of ``fmknn sagemaker`` share: ratings in a csv file, a command line, its answers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import sagemaker_rig
from sagemaker_emulator import Emulator

LEARNING = ["--n-factors", "4", "--set", "epochs=2", "mini_batch_size=50", "factors_lr=0.05"]
LEARNING += ["factors_init_sigma=0.1"]


def ratings_csv(**settings) -> bytes:
    """Generated ratings as a csv file."""
    rows = sagemaker_rig.ratings(**settings)
    columns = {"user": rows.user_ids, "item": rows.item_ids, "rating": np.asarray(rows.values)}
    columns |= {name: column.index for name, column in rows.context.items()}
    file = io.BytesIO()
    pa.csv.write_csv(pa.table({n: pa.array(list(values)) for n, values in columns.items()}), file)
    return file.getvalue()


def put(emulator: Emulator, key: str, data: bytes) -> str:
    """Place an object; return its address."""
    emulator.s3.put_object(Bucket=emulator.bucket, Key=key, Body=data)
    return f"s3://{emulator.bucket}/{key}"


def get(emulator: Emulator, key: str) -> bytes:
    """The bytes of an object."""
    return emulator.s3.get_object(Bucket=emulator.bucket, Key=key)["Body"].read()


def argv(emulator: Emulator, ratings: str | Path, to: str | Path, *more: str) -> list[str]:
    """A command line for the emulator."""
    place = ["--role", emulator.role, "--bucket", emulator.bucket, "--poll-seconds", "0.01"]
    return ["sagemaker", str(ratings), "--to", str(to), *place, *LEARNING, "--quiet", *more]


def lines(data: bytes) -> list[dict]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in data.splitlines()]
