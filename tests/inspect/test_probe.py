"""Probing a run: its own flags where no rung is named, and what an estimate needs beside the steps."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from twinrun.inspect import probe as probing
from twinrun.inspect.probe import mean_watts, probe
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.training.setup import noise_kind, own_flags


def with_execution(params: Params, **changed: Any) -> Params:
    return params.model_copy(update={"execution": params.execution.model_copy(update=changed)})


@pytest.mark.parametrize(
    ("label", "noise", "device", "kind"),
    [
        ("det_1", "auto", "cuda", "none"),
        ("nd_1", "auto", "cuda", "native"),
        ("nd_1", "auto", "cpu", "reorder"),
        ("nd_1", "reorder", "cuda", "reorder"),
        ("nd_1", "ulp", "cuda", "ulp"),
        ("ulp_1", "auto", "cuda", "ulp"),
    ],
)
def test_only_native_noise_is_without_the_deterministic_flags(
    label: str, noise: str, device: str, kind: str, study: Layout
) -> None:
    file = study.root / "params.yaml"
    file.write_text(file.read_text().replace("[det_1, det_2, nd_1, nd_2]", "[det_1, nd_1, ulp_1]"))
    params = with_execution(read_params(file), noise=noise, fill_uninitialized_memory=True, precision="tf32")
    found = noise_kind(params, params.find(f"shapes/sgd/0/{label}"), device)
    flags = own_flags(params, found)
    assert found == kind
    assert flags.deterministic_algorithms == (kind != "native")
    assert (flags.tf32, flags.fill_uninitialized_memory) == (True, True)


def test_an_estimate_is_of_the_runs_own_flags_and_of_a_second_evaluation(
    params: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()  # a second passes between any two looks
    monkeypatch.setattr(probing.time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(probing, "evaluate", lambda model, batches: [next(clock) for _ in range(sleeps.pop(0))])
    sleeps = [100, 5]
    run = params.find("shapes/sgd/0/nd_1")
    params = with_execution(params, fill_uninitialized_memory=True)
    options: dict[str, Any] = {"batch_size": None, "steps": 2, "warmup": 1, "device": "cpu"}
    own = probe(params, run, study, rung=None, **options)
    assert own["flags"]["deterministic_algorithms"] is True
    assert own["flags"]["fill_uninitialized_memory"] is True
    assert own["evaluation_seconds"] == 6.0
    assert own["watts"] is None
    free = probe(params, run, study, rung="free", **options)  # evaluates nothing
    assert free["flags"]["deterministic_algorithms"] is False
    assert len(free["data"]) == 64


@pytest.mark.parametrize("counter", [True, False])
def test_power_is_that_of_seconds_of_steps(counter: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []
    monkeypatch.setattr(probing, "train_step", lambda setup, batch: steps.append(batch))
    monkeypatch.setattr(probing, "synchronized", lambda device: len(steps) / 20)  # twenty steps a second
    gpu: Any = SimpleNamespace(
        energy_millijoules=lambda: 15_000 * len(steps) if counter else None, power_watts=lambda: len(steps)
    )
    setup: Any = None
    watts = mean_watts(setup, iter(range(10**6)), gpu, torch.device("cuda"))  # type: ignore[arg-type]
    assert len(steps) == 40
    assert watts == (300.0 if counter else 40)  # 15 J a step; else the reading after all of them
    assert mean_watts(setup, iter(()), None, torch.device("cpu")) is None
