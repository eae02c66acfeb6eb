"""On a GPU: deterministic runs agree in fresh processes, free ones as forecast, draws are those of the CPU.

pytest -m cuda tests/training/test_cuda.py -k preactresnet18        # one architecture; left out where there is no GPU
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import draw, write_packed

from twinrun.data.packed import load_packed
from twinrun.inspect.cudnn.devices import find_card
from twinrun.inspect.cudnn.forecast import Setting, forecast, verdict
from twinrun.inspect.targets import step_of_task
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.pins import clean_environment
from twinrun.study.records import Record, read_measured, read_record
from twinrun.training.batches import Batches
from twinrun.training.loop import begin_epoch, train_step
from twinrun.training.randomness import Noise, Streams
from twinrun.training.setup import assemble, set_conditions

pytestmark = pytest.mark.cuda

ARCHITECTURES = {"preactresnet18": 0.5, "mobilenet_v3_small": 1.0, "resnet18": 0.5}
SETTINGS = {
    "fp32": "precision: fp32",
    "tf32": "precision: tf32",
    "bf16": "precision: bf16",
    "fp32 channels_last": "precision: fp32, channels_last: true",
    "tf32 channels_last": "precision: tf32, channels_last: true",
    "bf16 channels_last": "precision: bf16, channels_last: true",
}
OPTIMIZERS = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0005, "schedule": {"kind": "cosine", "t_max_epochs": 2}},
    "adam": {"lr": 0.002, "schedule": {"kind": "exponential", "factor": 0.5}},
}


def write_study(root: Path, architecture: str, setting: str, epochs: int = 2) -> Layout:
    """A study of one architecture on 1,024 images of 32 x 32 pixels."""
    task = {
        "title": "Drawn", "data": {"reader": "cifar10", "source": "made/by/a/test", "image_size": 32},
        "model": {"name": architecture, "width": ARCHITECTURES[architecture]},
        "recipe": {"epochs": epochs, "batch_size": 64, "heads_every": 1, "metric": "accuracy",
                   "augment": {"crop_padding": 4, "horizontal_flip": True}},
        "optimizers": OPTIMIZERS,
    }  # fmt: skip
    params = {
        "schema": 1, "study": "cuda",
        "grid": {"tasks": ["drawn"], "optimizers": ["sgd", "adam"], "seeds": [0],
                 "runs": ["det_1", "det_2", "nd_1", "nd_2"]},
        "execution": {"device": "cuda", "noise": "native", "fill_uninitialized_memory": False}
        | yaml.safe_load(f"{{{setting}}}"),
        "tasks": {"drawn": task},
    }  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    images, labels = draw(1280, 10, 3, 32, 5)
    digest = read_params(root / "params.yaml").data_params_digest("drawn")
    write_packed(root / "prepared" / "drawn", images, labels, 1024, list("abcdefghij"), params_digest=digest)
    return Layout(root)


def train(layout: Layout, run_id: str, *options: str) -> Record:
    """Train a run in a process of its own."""
    command = [sys.executable, "-m", "twinrun", "train", run_id, *options]
    done = subprocess.run(
        command, cwd=layout.root, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return read_record(layout.run(read_params(layout.root / "params.yaml").find(run_id)), check_files=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_deterministic_runs_agree_in_fresh_processes(
    architecture: str, setting: str, optimizer: str, tmp_path: Path
) -> None:
    layout = write_study(tmp_path, architecture, SETTINGS[setting])
    one, two = (train(layout, f"drawn/{optimizer}/0/{label}") for label in ("det_1", "det_2"))
    assert one.device == "cuda"
    assert one.fingerprints == two.fingerprints
    assert one.flags["deterministic_algorithms"] is True
    measured = read_measured(layout.run(read_params(layout.root / "params.yaml").find(one.run)))
    assert measured.host["gpu"]
    assert measured.energy_joules is None or measured.energy_joules > 0
    assert measured.energy_note


@pytest.mark.parametrize("setting", ["tf32", "fp32", "bf16 channels_last"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bits_differ_without_autotuning_where_the_forecast_says_so(
    architecture: str, setting: str, tmp_path: Path
) -> None:
    """Three fresh processes in free mode, autotuning off: what they do then is the forecast's alone to say."""
    layout = write_study(tmp_path, architecture, SETTINGS[setting])
    params = read_params(layout.root / "params.yaml")
    options = ["--rung", "benchmark_off", "--seconds", "0", "--warmup", "0"]
    facts = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "twinrun", "probe", "drawn/sgd/0/det_1", *options],
                cwd=layout.root, env=clean_environment(), capture_output=True, text=True, check=True,
            ).stdout
        )
        for _ in range(3)
    ]  # fmt: skip
    assert not any(fact["flags"]["cudnn_benchmark"] or fact["flags"]["cudnn_deterministic"] for fact in facts)
    step = step_of_task(params, "drawn", layout, None, None)
    precision, memory = params.execution.precision, "NHWC" if params.execution.channels_last else "NCHW"
    result = forecast(step, find_card("here"), Setting(precision, memory))
    nondeterministic = result.nondeterministic_calls() + len(step.others)
    different = len({fact["fingerprint"] for fact in facts})
    assert (different > 1) == (nondeterministic > 0), f"{different} of 3 differ; {verdict(step, result)}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_free_runs_begin_alike(architecture: str, tmp_path: Path) -> None:
    """With CUDA's own noise. Whether they end alike may rest on autotuning alone, and is not asserted."""
    layout = write_study(tmp_path, architecture, SETTINGS["tf32"])
    one, two = (train(layout, f"drawn/sgd/0/{label}") for label in ("nd_1", "nd_2"))
    assert one.noise.kind == two.noise.kind == "native"
    assert one.flags["cudnn_benchmark"] is True
    assert one.initial_fingerprint == two.initial_fingerprint


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_start_is_that_of_the_cpu(architecture: str, tmp_path: Path) -> None:
    layout = write_study(tmp_path, architecture, SETTINGS["fp32"], epochs=1)
    on_gpu = train(layout, "drawn/sgd/0/det_1")
    shutil.rmtree(layout.root / "runs")
    text = (layout.root / "params.yaml").read_text()
    (layout.root / "params.yaml").write_text(text.replace("device: cuda", "device: cpu").replace("native", "auto"))
    on_cpu = train(layout, "drawn/sgd/0/det_1")
    assert on_gpu.initial_fingerprint == on_cpu.initial_fingerprint
    assert on_gpu.device != on_cpu.device


def test_order_and_crops_are_those_of_the_cpu(tmp_path: Path) -> None:
    layout = write_study(tmp_path, "resnet18", SETTINGS["fp32"])
    params = read_params(layout.root / "params.yaml")
    run, recipe = params.find("drawn/sgd/0/det_1"), params.tasks["drawn"].recipe
    packed = load_packed(layout.prepared("drawn"), params.data_params_digest("drawn"))
    both = [
        Batches(packed, recipe, Streams.of(run), Noise("none", None), torch.device(device))
        for device in ("cpu", "cuda")
    ]
    for cpu, cuda in zip(both[0].train(3), both[1].train(3), strict=True):
        assert torch.equal(cpu.labels, cuda.labels.cpu())
        # Normalized by one multiplication and one subtraction, which a GPU may fuse: one rounding less.
        np.testing.assert_allclose(cpu.images.numpy(), cuda.images.cpu().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_step_waits_for_the_device(architecture: str, optimizer: str, tmp_path: Path) -> None:
    layout = write_study(tmp_path, architecture, SETTINGS["bf16 channels_last"])
    params = read_params(layout.root / "params.yaml")
    run = params.find(f"drawn/{optimizer}/0/nd_1")
    setup = assemble(set_conditions(params, run, layout, "cuda"))
    begin_epoch(setup, 0)
    batches = setup.batches.train(0)
    train_step(setup, next(batches))  # libraries start, the optimizer makes its state
    try:
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.ones(1, device="cuda").item()
        for batch in batches:
            train_step(setup, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("setting", ["tf32", "tf32 channels_last"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_run_ends_the_same(architecture: str, setting: str, tmp_path: Path) -> None:
    epochs = 300  # the first checkpoint comes after five seconds, in which a fast card trains 60
    layout = write_study(tmp_path / "whole", architecture, SETTINGS[setting], epochs=epochs)
    whole = train(layout, "drawn/adam/0/det_1")
    broken = write_study(tmp_path / "broken", architecture, SETTINGS[setting], epochs=epochs)
    run = read_params(broken.root / "params.yaml").find("drawn/adam/0/det_1")
    command = [sys.executable, "-m", "twinrun", "train", run.id]
    process = subprocess.Popen(command, cwd=broken.root, env=clean_environment(), stderr=subprocess.DEVNULL)
    checkpoint = broken.work(run) / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert checkpoint.exists(), "the run ended before its first checkpoint: give it more epochs"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = train(broken, run.id)
    assert read_measured(broken.run(run)).resumed
    assert resumed.fingerprints == whole.fingerprints
