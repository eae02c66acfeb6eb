"""Probing a run: its own flags where no rung is named, and what an estimate needs beside the steps."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from twinrun.inspect import probe as probing
from twinrun.inspect.probe import FIXED_STEPS, Probe, mean_watts
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
    params = with_execution(params, fill_uninitialized_memory=True)
    run = params.find("shapes/sgd/0/nd_1")
    probe = Probe(params, run, study, rung=None, batch_size=None, device="cpu")
    own = probe.measure(0, 0) | probe.estimate()
    assert own["flags"]["deterministic_algorithms"] is True
    assert own["flags"]["fill_uninitialized_memory"] is True
    assert (own["clock"], own["step_seconds"], own["fingerprint"]) == ("processor time", [1.0] * 3, None)
    assert own["evaluation_seconds"] == 6.0
    assert own["watts"] is None


def test_measuring_is_by_time_and_begins_with_the_fingerprint_of_fixed_steps(
    params: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played seconds: every step takes an eighth."""
    now = [0.0]
    monkeypatch.setattr(probing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(probing, "fingerprint", lambda model: f"after {len(steps)}")
    probe = Probe(params, params.find("shapes/sgd/0/det_1"), study, rung="mkl_compatible", batch_size=8, device="cpu")
    steps: list[float] = []

    def step() -> None:
        now[0] += 0.125
        steps.append(now[0])

    monkeypatch.setattr(probe, "step", step)
    first = probe.measure(1.0, 2.0)
    assert first["fingerprint"] == f"after {FIXED_STEPS['cpu']}"
    assert (len(steps), len(first["step_seconds"])) == (16 + 8, 8)
    assert first["step_seconds"] == [0.125] * 8
    again = probe.measure(1.0, 2.0)  # warm from the first time: two steps are enough
    assert again["fingerprint"] == first["fingerprint"]
    assert len(steps) == 24 + 2 + 8
    assert (first["clock"], again["warmup_seconds"]) == ("wall time", 0.2)
    assert len(first["data"]) == 64
    slow = probe.measure(0.0, 0.0)  # however little time there is
    assert len(slow["step_seconds"]) == 3


def test_the_fingerprint_of_an_epoch_is_spread_over_its_steps(
    params: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(probing.time, "perf_counter", lambda: now[0])

    def slow(model: object) -> str:
        now[0] += 8.0
        return "x"

    monkeypatch.setattr(probing, "fingerprint", slow)
    seconds = {}
    for rung in ("deterministic_algorithms", "fingerprints"):
        probe = Probe(params, params.find("shapes/sgd/0/det_1"), study, rung=rung, batch_size=8, device="cpu")
        monkeypatch.setattr(probe, "step", lambda: now.__setitem__(0, now[0] + 0.5))
        seconds[rung] = probe.measure(0.0, 0.0)["step_seconds"]
        assert probe.conditions.flags["deterministic_algorithms"] is True
    assert seconds == {"deterministic_algorithms": [0.5] * 3, "fingerprints": [0.5 + 8.0 / 12] * 3}  # 96 images, by 8


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
