"""Which engines cuDNN executed, from its own log, against what was forecast for them.

A process that begins with `logging(FILE)` in its environment writes every call of cuDNN's backend to the file: plans
that were executed are there with their operation, shapes and engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinrun.inspect.cudnn.backend import (
    BFLOAT16,
    FLOAT,
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Problem,
    strides,
)
from twinrun.inspect.cudnn.forecast import CUDNN, Forecast, problem_of

_CALL = re.compile(r"^I! .* function (\w+)\(\) called:")
_FIELD = re.compile(r"^i!( +)(\w+): type=([^;:]+)(?:; val=(.*);|:)$")
_OPERATION = "CUDNN_BACKEND_OPERATION_CONVOLUTION_{}_DESCRIPTOR"
_OPERATIONS = {
    _OPERATION.format("FORWARD"): FORWARD,
    _OPERATION.format("BACKWARD_DATA"): INPUT_GRADIENT,
    _OPERATION.format("BACKWARD_FILTER"): WEIGHT_GRADIENT,
}
_ROLES = {"xDesc": "x", "dxDesc": "x", "wDesc": "w", "dwDesc": "w", "yDesc": "y", "dyDesc": "y"}
_NONDETERMINISTIC = "CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC"


@dataclass(frozen=True)
class Executed:
    """A convolution that cuDNN executed: what it was asked, and the engine that did it."""

    problem: Problem
    data_type: int
    channels_last: bool
    engine: int
    nondeterministic: bool


def logging(file: Path) -> dict[str, str]:
    """The environment variables under which cuDNN writes its calls to `file`."""
    return {"CUDNN_LOGLEVEL_DBG": "3", "CUDNN_LOGDEST_DBG": str(file)}


def executed(lines: Iterable[str]) -> Iterator[Executed]:
    """The convolutions that a log of cuDNN 9 says were executed, in order."""
    fields: list[tuple[list[str], str]] | None = None  # of the call that is being read: path of names, value
    path: list[tuple[int, str]] = []
    for line in lines:
        line = line.rstrip()
        if call := _CALL.match(line):
            fields, path = [] if call[1] == "cudnnBackendExecute" else None, []
        elif fields is not None and (field := _FIELD.match(line)):
            depth, name = len(field[1]), field[2]
            path = [*((d, n) for d, n in path if d < depth), (depth, name)]
            fields.append(([n for _, n in path], field[4] if field[4] is not None else field[3].strip()))
        elif fields is not None and not line.startswith("i!"):
            yield from _convolution(fields)
            fields = None


def _convolution(fields: Sequence[tuple[list[str], str]]) -> Iterator[Executed]:
    operations = [value for path, value in fields if path[-1] == "operation" and value in _OPERATIONS]
    if len(operations) != 1:
        return  # an answer of an earlier call, or a graph that is no single convolution
    tensors: dict[str, dict[str, str]] = {role: {} for role in "xwy"}
    convolution: dict[str, str] = {}
    engine = ""
    for path, value in fields:
        if path[-1] == "engine_id":
            engine = value
        elif len(path) > 1 and path[-2] in _ROLES:
            tensors[_ROLES[path[-2]]][path[-1]] = value
        elif len(path) > 1 and path[-2] == "convDesc":
            convolution[path[-1]] = value
    x, w, y = (_numbers(tensors[role]["dimA"]) for role in "xwy")
    problem = Problem(
        _OPERATIONS[operations[0]], x, w, y, _numbers(convolution["strideA"]), _numbers(convolution["lowerPadA"]),
        _numbers(convolution["dilationA"]),
    )  # fmt: skip
    large = max((("x", x), ("y", y)), key=lambda item: item[1][2:])  # a layout shows where there is more than a pixel
    last = _numbers(tensors[large[0]]["strideA"]) == strides(large[1], channels_last=True) and large[1][1] > 1
    notes = {path[-1] for path, value in fields if value == "true"}
    data_type = int(tensors["x"]["type"].rpartition("(")[2].rstrip(")"))
    yield Executed(problem, data_type, last, int(engine), _NONDETERMINISTIC in notes)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.strip("[]").split(","))


def against(result: Forecast, seen: Iterable[Executed], mode: str) -> list[dict[str, Any]]:
    """For each convolution that cuDNN does: the engine forecast for `mode` (free or deterministic) and those executed.

    One that was executed with several engines, as autotuning does, has them all, the last one last.
    """
    data_type = BFLOAT16 if result.setting.precision == "bf16" else FLOAT
    by_problem: dict[Problem, list[Executed]] = {}
    for item in seen:
        if item.data_type == data_type:
            by_problem.setdefault(item.problem, []).append(item)
    rows = []
    for row in result.rows:
        if row.answer.kernel != CUDNN:
            continue
        choice = getattr(row.answer, mode)
        ran = by_problem.get(problem_of(row.convolution), [])
        engines = list(dict.fromkeys(item.engine for item in reversed(ran)))[::-1]
        rows.append(
            {
                "operation": row.convolution.operation, "layers": list(row.layers), "mode": mode,
                "forecast": choice.engine if choice else None, "executed": engines,
                "layout": sorted({"NHWC" if item.channels_last else "NCHW" for item in ran}),
                "nondeterministic_forecast": bool(choice and choice.nondeterministic),
                "nondeterministic_executed": bool(ran and ran[-1].nondeterministic),
                "as_forecast": bool(choice) and engines == [choice.engine],
            }
        )  # fmt: skip
    return rows
