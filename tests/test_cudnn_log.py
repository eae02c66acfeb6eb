"""What cuDNN's log says was executed: real logs of plans handed over for execution, without a card."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import REPOSITORY
from torch import nn
from torch.nn import functional

from twinrun.inspect.cudnn.devices import find_card
from twinrun.inspect.cudnn.forecast import Forecast, Setting, forecast
from twinrun.inspect.cudnn.operations import Step, step_of
from twinrun.study.pins import clean_environment

spec = importlib.util.spec_from_file_location("cudnn_log", REPOSITORY / "benchmarks" / "cudnn_log.py")
assert spec
assert spec.loader
cudnn_log = sys.modules["cudnn_log"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cudnn_log)
# Without a handle nothing is executed, but the call is logged as on a card.
HAND_OVER = """import torch; import sys
from twinrun.inspect.cudnn.backend import *
from twinrun.inspect.cudnn.backend import _DESCRIPTOR, _PLAN
from twinrun.inspect.cudnn.devices import find_card
device = described_device(find_card("H100 SXM").description)
x, w = (8, 64, 16, 16), (96, 64, 3, 3)
for operation, stride, data_type, last, most in eval(sys.argv[1]):
    y = (8, 96, 16 // stride, 16 // stride)
    problem = Problem(operation, x, w, y, (stride,) * 2, (1, 1), (1, 1))
    engines = [e for e in proposals(build_graph(problem, data_type, channels_last=last), device)
               if e.workspace(device) is not None]
    for engine in engines[:most]:
        plan = Descriptor(_PLAN).put(407, _DESCRIPTOR, device).put(401, _DESCRIPTOR, engine.config).finish()
        library().cudnnBackendExecute(None, plan.pointer, None)
"""


@pytest.fixture(scope="module")
def step() -> Step:
    before = nn.Conv2d(3, 64, 1, bias=False)  # so that the next one has an input gradient
    model = nn.Sequential(before, nn.Conv2d(64, 96, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = torch.empty(8, 3, 16, 16, device="meta"), torch.empty(8, dtype=torch.long, device="meta")
    return step_of(model, functional.cross_entropy, batch)


def logged(tmp_path: Path, calls: list[tuple[object, ...]]) -> list[str]:
    """The lines that cuDNN writes when the first engines for these calls are executed."""
    file = tmp_path / "cudnn.log"
    command = [sys.executable, "-c", HAND_OVER, repr(calls)]
    environment = clean_environment() | cudnn_log.logging(file) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=environment, check=True)
    return file.read_text().splitlines()


def bf16_nhwc(step: Step) -> Forecast:
    return forecast(step, find_card("H100 SXM"), Setting("bf16", "NHWC"))


def test_engines_that_were_executed_are_held_against_the_forecast(tmp_path: Path, step: Step) -> None:
    bf16, last = 9, True
    calls = [("forward", 1, bf16, last, 1), ("input gradient", 1, bf16, last, 1), ("weight gradient", 1, bf16, last, 1),
             ("forward", 2, bf16, last, 1), ("forward", 1, 0, False, 1)]  # fmt: skip
    lines = logged(tmp_path, calls)
    seen = list(cudnn_log.executed(lines))
    assert [(item.problem.operation, item.problem.stride[0], item.data_type, item.channels_last) for item in seen] == [
        (operation, stride, data_type, channels_last) for operation, stride, data_type, channels_last, _ in calls
    ]
    assert seen[0].problem.x == (8, 64, 16, 16)
    assert seen[0].problem.w == (96, 64, 3, 3)
    result = bf16_nhwc(step)
    rows = [row for row in cudnn_log.against(result, seen, "free") if row["layers"] == ["1"]]
    assert [row["operation"] for row in rows] == ["forward", "input gradient", "weight gradient"]
    assert all(row["as_forecast"] and row["layout"] == ["NHWC"] for row in rows)
    other = [replace(item, engine=item.engine + 1000) for item in seen]
    assert not any(row["as_forecast"] for row in cudnn_log.against(result, other, "free"))
    of_another_type = cudnn_log.against(result, seen[4:], "free")
    assert not any(row["executed"] for row in of_another_type)


def test_autotuning_executes_several_and_keeps_the_last(tmp_path: Path, step: Step) -> None:
    tried = list(cudnn_log.executed(logged(tmp_path, [("weight gradient", 1, 9, True, 10)])))
    assert len({item.engine for item in tried}) > 1
    seen = [*tried, tried[0], tried[0]]
    [row] = [row for row in cudnn_log.against(bf16_nhwc(step), seen, "free") if row["executed"]]
    assert sorted(row["executed"]) == sorted({item.engine for item in tried})
    assert row["executed"][-1] == tried[0].engine
    assert not row["as_forecast"]
