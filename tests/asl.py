"""An interpreter of the Amazon States Language, as far as it is used here; it waits for nothing.

Written from https://states-language.net/spec.html. Pass, Task, Choice by StringEquals, Succeed,
Fail; Parameters, ResultSelector, ResultPath; reference paths, the context object and intrinsic
functions; Retry and Catch. What it doesn't know is a KeyError or a NotImplementedError, never
passed over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 256 * 1024  # of a state's input or output, as Step Functions has it
_STEPS = r"(?:\.\w+|\[\d+\])*"
_FIELDS = {
    "Pass": {"Parameters", "ResultPath"},
    "Task": {"Resource", "Parameters", "ResultSelector", "ResultPath", "Retry", "Catch"},
    "Choice": {"Choices"},
    "Succeed": set(),
    "Fail": {"ErrorPath", "CausePath"},
}


class TaskError(Exception):
    """What a task reports: an error's name and its cause."""

    def __init__(self, name: str, cause: str = "") -> None:
        super().__init__(f"{name}: {cause}")
        self.name, self.cause = name, cause


@dataclass
class Execution:
    """How it went."""

    status: str = "RUNNING"
    output: Any = None
    error: str | None = None
    cause: str | None = None
    path: list[str] = field(default_factory=list)  # the states, a retried one as often
    waits: list[float] = field(default_factory=list)  # seconds before each retry


def execute(
    definition: Mapping[str, Any],
    tasks: Mapping[str, Callable[[dict[str, Any]], Any]],
    *,
    name: str = "c0ffee00-0000-4000-8000-000000000000",
    most_states: int = 100,
) -> Execution:
    """Run a state machine; ``tasks`` do the work, by resource."""
    context = {"Execution": {"Id": f"arn:aws:states:::execution:test:{name}", "Name": name}}
    run, data, state_name = Execution(), {}, definition["StartAt"]
    while len(run.path) < most_states:
        state = definition["States"][state_name]
        unknown = state.keys() - {"Type", "Next", "Comment"} - _FIELDS[state["Type"]]
        if unknown:
            raise NotImplementedError(f"{state_name}: {unknown}")
        run.path.append(state_name)
        if state["Type"] == "Succeed":
            run.status, run.output = "SUCCEEDED", data
            return run
        if state["Type"] == "Fail":
            run.status = "FAILED"
            run.error, run.cause = (reference(data, state[f]) for f in ("ErrorPath", "CausePath"))
            return run
        if state["Type"] == "Choice":
            state_name = _chosen(state, data)
            if state_name is None:
                run.status, run.error = "FAILED", "States.NoChoiceMatched"
                return run
        elif state["Type"] == "Pass":
            data = _put(data, state.get("ResultPath", "$"), _made(state, data, context))
            state_name = state["Next"]
        else:
            try:
                result = _attempted(run, state, state_name, tasks, data, context)
            except TaskError as error:
                catcher = _matching(state.get("Catch", []), error.name)
                if catcher is None:
                    run.status, run.error, run.cause = "FAILED", error.name, error.cause
                    return run
                told = {"Error": error.name, "Cause": error.cause}
                data = _put(data, catcher.get("ResultPath", "$"), told)
                state_name = catcher["Next"]
            else:
                if "ResultSelector" in state:
                    result = filled(state["ResultSelector"], result, context)
                data = _put(data, state.get("ResultPath", "$"), result)
                state_name = state["Next"]
        if len(json.dumps(data).encode()) > MOST_BYTES:
            run.status, run.error = "FAILED", "States.DataLimitExceeded"
            return run
    raise AssertionError(f"still running after {most_states} states: {run.path}")


def _attempted(run, state, state_name, tasks, data, context):
    failures = [0] * len(state.get("Retry", []))
    while True:
        try:
            return tasks[state["Resource"]](_made(state, data, context))
        except TaskError as error:
            retrier = _matching(state.get("Retry", []), error.name)
            if retrier is None:
                raise
            number = state["Retry"].index(retrier)
            if failures[number] >= retrier.get("MaxAttempts", 3):
                raise
            rate = retrier.get("BackoffRate", 2.0) ** failures[number]
            run.waits.append(retrier.get("IntervalSeconds", 1) * rate)
            failures[number] += 1
            run.path.append(state_name)


def _matching(rules, name: str):
    for rule in rules:
        wanted = rule["ErrorEquals"]
        if name in wanted or "States.ALL" in wanted:
            return rule
        if "States.TaskFailed" in wanted and name != "States.Timeout":
            return rule
    return None


def _chosen(state, data) -> str | None:
    for rule in state["Choices"]:
        if rule.keys() != {"Variable", "StringEquals", "Next"}:
            raise NotImplementedError(f"choice rule {rule}")
        if reference(data, rule["Variable"]) == rule["StringEquals"]:
            return rule["Next"]
    return state.get("Default")


def _made(state, data, context):
    return filled(state["Parameters"], data, context) if "Parameters" in state else data


def filled(template: Any, data: Any, context: Any) -> Any:
    """A payload template with its references and functions replaced by what they mean."""
    if isinstance(template, list):
        return [filled(value, data, context) for value in template]
    if not isinstance(template, dict):
        return template
    done = {}
    for key, value in template.items():
        if key.endswith(".$"):
            done[key[:-2]] = evaluated(value, data, context)
        else:
            done[key] = filled(value, data, context)
    return done


def _put(data: Any, path: str | None, result: Any) -> Any:
    if path is None:
        return data
    if path == "$":
        return result
    name = path.removeprefix("$.")
    if not re.fullmatch(r"\w+", name):
        raise NotImplementedError(f"ResultPath {path}")
    return {**data, name: result}


def reference(data: Any, path: str) -> Any:
    """What is at ``$.a.b[2]``; that nothing is there is an error that fails the execution."""
    if not re.fullmatch(rf"\${_STEPS}", path):
        raise NotImplementedError(f"path {path}")
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        try:
            data = data[name] if name else data[int(number)]
        except (KeyError, IndexError, TypeError):
            raise TaskError("States.ParameterPathFailure", f"nothing at {path}") from None
    return data


# --- intrinsic functions


def evaluated(text: str, data: Any, context: Any) -> Any:
    """The value of a path or an intrinsic function."""
    value, rest = _expression(text, data, context)
    if rest:
        raise TaskError("States.IntrinsicFailure", f"{rest!r} is left over of {text!r}")
    return value


def _expression(text: str, data: Any, context: Any) -> tuple[Any, str]:
    text = text.lstrip()
    if path := re.match(rf"\$(\$?)({_STEPS})", text):
        source = context if path[1] else data
        return reference(source, f"${path[2]}"), text[path.end() :].lstrip()
    if quoted := re.match(r"'((?:[^'\\]|\\.)*)'", text):
        return _Quoted(quoted[1]), text[quoted.end() :].lstrip()
    called = re.match(r"(States\.\w+)\s*\(", text)
    if not called:
        raise TaskError("States.IntrinsicFailure", f"can't read {text!r}")
    arguments, rest = [], text[called.end() :].lstrip()
    while not rest.startswith(")"):
        value, rest = _expression(rest, data, context)
        arguments.append(value)
        if rest.startswith(","):
            rest = rest[1:].lstrip()
            assert not rest.startswith(")"), text
        elif not rest.startswith(")"):
            raise TaskError("States.IntrinsicFailure", f"can't read {rest!r}")
    return _FUNCTIONS[called[1]](*arguments), rest[1:].lstrip()


class _Quoted(str):
    """A literal, as written: only Format may look at its braces."""


def _plain(value: Any) -> Any:
    return re.sub(r"\\(.)", r"\1", value) if type(value) is _Quoted else value


def _format(template: str, *values: Any) -> str:
    parts = re.split(r"(?<!\\)\{\}", template)
    if len(parts) != len(values) + 1:
        raise TaskError("States.IntrinsicFailure", f"{len(values)} values for {template!r}")
    texts = [v if isinstance(v, str) else json.dumps(v) for v in map(_plain, values)]
    literals = [_plain(_Quoted(part)) for part in parts]
    return "".join(a + b for a, b in zip(literals, [*texts, ""], strict=True))


def _hash(value: Any, algorithm: str) -> str:
    text = _plain(value) if isinstance(value, str) else json.dumps(value)
    return hashlib.new(_plain(algorithm).replace("-", ""), text.encode()).hexdigest()


_FUNCTIONS = {
    "States.Array": lambda *values: [_plain(value) for value in values],
    "States.Format": _format,
    "States.Hash": _hash,
    "States.StringToJson": lambda text: json.loads(_plain(text)),
}
