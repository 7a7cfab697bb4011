"""Checking a request against botocore's service model, in the words of AWS.

boto3 checks types and required members itself but neither patterns nor most bounds; AWS answers
those with a ValidationException, as is done here.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate


class ApiError(Exception):
    """An answer with status 400."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


@functools.cache
def service() -> botocore.model.ServiceModel:
    """The description of SageMaker's API that boto3 works by."""
    description = botocore.loaders.Loader().load_service_model("sagemaker", "service-2")
    return botocore.model.ServiceModel(description, "sagemaker")


def check(operation: str, params: dict[str, Any]) -> None:
    """Raise an :class:`ApiError` unless the request satisfies the service model."""
    shape = service().operation_model(operation).input_shape
    report = botocore.validate.ParamValidator().validate(params, shape)
    for error in report._errors:  # (reason, name, details); the rest is told in AWS's words below
        if error[0] in ("invalid type", "unknown field"):
            raise ApiError("SerializationException", report._format_error(error))
    problems = list(_problems(params, shape, ""))
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        text = "; ".join(problems)
        raise ApiError("ValidationException", f"{len(problems)} validation {noun} detected: {text}")


def _member(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _problems(value, shape, path):
    """Yield the violated constraints in AWS's words, members in the model's order."""

    def violates(constraint: str, shown: Any = None) -> str:
        shown = value if shown is None else shown
        return f"Value '{shown}' at '{path}' failed to satisfy constraint: Member must {constraint}"

    kind, bounds = shape.type_name, shape.metadata
    if kind == "structure":
        for name, member in shape.members.items():
            if name in value:
                yield from _problems(value[name], member, _member(path, name))
            elif name in shape.required_members:
                yield (
                    f"Value null at '{_member(path, name)}' failed to satisfy constraint: "
                    "Member must not be null"
                )
    elif kind == "list":
        yield from _size(len(value), bounds, violates)
        for number, item in enumerate(value, 1):
            yield from _problems(item, shape.member, f"{path}.{number}.member")
    elif kind == "map":
        yield from _size(len(value), bounds, violates)
        for key, item in value.items():
            yield from _problems(key, shape.key, f"{path}.{key}.key")
            yield from _problems(item, shape.value, f"{path}.{key}.member")
    elif kind == "string":
        if shape.enum and value not in shape.enum:
            yield violates(f"satisfy enum value set: [{', '.join(shape.enum)}]")
        yield from _size(len(value), bounds, violates)
        if "pattern" in bounds and not re.fullmatch(_python(bounds["pattern"]), value):
            yield violates(f"satisfy regular expression pattern: {bounds['pattern']}")
    elif kind in ("integer", "long", "float", "double"):
        if value < bounds.get("min", value):
            yield violates(f"have value greater than or equal to {bounds['min']}")
        if value > bounds.get("max", value):
            yield violates(f"have value less than or equal to {bounds['max']}")


def _size(n: int, bounds: dict, violates):
    if n < bounds.get("min", n):
        yield violates(f"have length greater than or equal to {bounds['min']}")
    if n > bounds.get("max", n):
        yield violates(f"have length less than or equal to {bounds['max']}")


def _python(pattern: str) -> str:
    """Java's Unicode classes as Python's."""
    return pattern.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\d").replace(r"\p{Z}", r"\s")
