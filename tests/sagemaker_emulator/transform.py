"""Batch transform: input objects cut into requests, answers put together into ``.out`` objects.

Source: AWS documentation, "Use Batch Transform" and the API reference of CreateTransformJob.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from .faults import Faults
from .knn import KINDS, Model
from .recordio import BadDataError, frames, read_rows
from .s3io import split_uri

MEBIBYTE = 1024 * 1024
DEFAULT_MEBIBYTES = 6


class TransformError(Exception):
    """What the data log says about a job that fails."""


def requests_of(data: bytes, split: str, batch: str, most: int) -> Iterator[list[bytes]]:
    """Cut an object into requests: lists of payloads, framed no longer than ``most`` bytes."""
    records = list(frames(data))
    if split == "None":
        _fits(len(data), most)
        yield [payload for _, payload in records]
        return
    waiting: list[bytes] = []
    size = 0
    for framed, payload in records:
        _fits(len(framed), most)
        if waiting and (batch == "SingleRecord" or size + len(framed) > most):
            yield waiting
            waiting, size = [], 0
        waiting.append(payload)
        size += len(framed)
    if waiting:
        yield waiting


def _fits(size: int, most: int) -> None:
    if size > most:
        raise TransformError(
            f"Too much data for max payload size: {size} bytes in a request of at most {most}"
        )


def body_of(answers: list[dict], accept: str) -> str:
    """The container's response: JSON lines or one JSON document, without a newline at the end."""
    form, _, options = accept.partition(";")
    if "verbose=true" not in options.replace(" ", ""):
        answers = [{"predicted_label": answer["predicted_label"]} for answer in answers]
    if form.strip() == "application/jsonlines":
        return "\n".join(json.dumps(answer) for answer in answers)
    if form.strip() in ("application/json", ""):
        return json.dumps({"predictions": answers})
    raise TransformError(f"415 Unsupported Accept type {form.strip()}")


def transform(job: dict, model: Model, data: bytes, faults: Faults) -> tuple[str, int]:
    """The ``.out`` object of an input object, and the number of requests it took."""
    source, output = job["TransformInput"], job["TransformOutput"]
    if source.get("ContentType") != "application/x-recordio-protobuf":
        raise TransformError(f"415 Unsupported content type {source.get('ContentType')}")
    split, batch = source.get("SplitType", "None"), job.get("BatchStrategy", "MultiRecord")
    if split not in ("None", "RecordIO"):
        raise TransformError(f"cannot split RecordIO by {split}")
    most = job.get("MaxPayloadInMB", DEFAULT_MEBIBYTES) * MEBIBYTE
    bodies = []
    try:
        for payloads in requests_of(data, split, batch, most):
            answers = model.answers(read_rows(payloads, KINDS), faults)
            bodies.append(body_of(answers, output.get("Accept", "application/json")))
    except BadDataError as error:
        raise TransformError(str(error)) from None
    if output.get("AssembleWith", "None") == "Line":
        return "".join(body + "\n" for body in bodies), len(bodies)
    return "".join(bodies), len(bodies)


def out_uri(job: dict, key: str) -> str:
    """Where the answers to an input object go."""
    _, prefix = split_uri(job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
    name = key[prefix.rfind("/") + 1 :]
    return job["TransformOutput"]["S3OutputPath"].rstrip("/") + f"/{name}.out"


def spoiled(out: str, first: bool, last: bool, faults: Faults) -> str | None:
    """The ``.out`` object as the switched-on faults leave it; None: not written."""
    if faults.missing_out and last:
        return None
    if faults.short_out and last:
        out = out.rstrip("\n")
        out = out[: out.rfind("{") if "\n" not in out else out.rfind("\n") + 1]
    if faults.garbage_line and first:
        middle = out.find("\n", len(out) // 2) + 1
        out = out[:middle] + "<html>502 Bad Gateway</html>\n" + out[middle:]
    return out
