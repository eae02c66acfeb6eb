"""One run: deterministic replicates agree, noise replays, arms free their stream, an interrupted run ends the same."""

from __future__ import annotations

import copy
import csv
import fcntl
import io
import json
import os
import platform
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from twinrun.study.errors import BusyError, InputError, OutOfMemoryError, ResourceError
from twinrun.study.layout import CHECKPOINT, COMPUTED_FILES, LOCK, RECORD, Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import Record, read_measured, read_record
from twinrun.training import loop
from twinrun.training.checkpoint import peek_checkpoint
from twinrun.training.loop import Options, begin_epoch, identify, train_run, train_step
from twinrun.training.metrics import evaluate_metrics
from twinrun.training.setup import NoiseKind, adapt, assemble, set_conditions
from twinrun.training.workspace import Workspace

CODE = "c" * 64
CPU = Options(device="cpu")


def train(params: Params, layout: Layout, run_id: str, options: Options = CPU) -> Record:
    return train_run(params, params.find(run_id), layout, CODE, options)


def with_grid(layout: Layout, old: str, new: str) -> Params:
    text = (layout.root / "params.yaml").read_text()
    assert old in text
    (layout.root / "params.yaml").write_text(text.replace(old, new))
    return read_params(layout.root / "params.yaml")


def test_deterministic_replicates_are_equal_byte_by_byte(params: Params, study: Layout) -> None:
    for cell in ("shapes/sgd/0", "cuts/adam/7"):
        one, two = train(params, study, f"{cell}/det_1"), train(params, study, f"{cell}/det_2")
        assert one.fingerprints == two.fingerprints
        for name in COMPUTED_FILES:
            files = [study.run(params.find(f"{cell}/{label}")) / name for label in ("det_1", "det_2")]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_a_rerun_writes_the_same_record(params: Params, study: Layout) -> None:
    train(params, study, "shapes/adam/0/det_1")
    file = study.run(params.find("shapes/adam/0/det_1")) / RECORD
    first = file.read_bytes()
    train(params, study, "shapes/adam/0/det_1")
    assert file.read_bytes() == first


def test_the_record_holds_what_it_should(params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/7/det_1")
    record = train(params, study, run.id)
    folder = study.run(run)
    assert read_record(folder, check_files=True) == record
    assert record.params_digest == params.run_digest(run)
    rows = list(csv.DictReader(io.StringIO((folder / "curve.csv").read_text())))
    assert [row["fingerprint"] for row in rows] == record.fingerprints
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["accuracy"]) == record.metrics.accuracy
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        probabilities, labels = arrays["probabilities"], arrays["labels"]
    assert probabilities.shape == (64, 4)
    again = evaluate_metrics(probabilities, labels, np.log(probabilities.astype(np.float64)))
    assert (again.accuracy, again.f1, again.auc) == (record.metrics.accuracy, record.metrics.f1, record.metrics.auc)
    assert again.loss == pytest.approx(record.metrics.loss, rel=1e-5)
    weights = load_file(folder / "weights.safetensors")
    assert {key.partition("/")[0] for key in weights} == {f"{epoch:05d}" for epoch in (0, 2, 4)}
    measured = read_measured(folder)
    assert measured.train_seconds > 0
    assert measured.energy_joules is None or measured.energy_joules > 0
    assert not measured.resumed
    assert not study.work(run).exists()


def test_reorder_noise_differs_and_replays(params: Params, study: Layout) -> None:
    for cell in ("shapes/sgd/0", "cuts/sgd/0"):  # the second has dropout, whose masks must follow the examples
        one, two = train(params, study, f"{cell}/nd_1"), train(params, study, f"{cell}/nd_2")
        assert one.noise.kind == "reorder"
        assert one.noise.entropy != two.noise.entropy
        assert one.initial_fingerprint == two.initial_fingerprint
        assert one.fingerprints[0] != two.fingerprints[0]
        assert abs(one.metrics.loss - two.metrics.loss) < 0.2
        replayed = train(params, study, f"{cell}/nd_2", Options(device="cpu", replay=one.noise))
        assert replayed.fingerprints == one.fingerprints


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("task", ["shapes", "cuts"])
def test_reorder_noise_is_rounding_alone(task: str, optimizer: str, params: Params, study: Layout) -> None:
    """In double precision an epoch with it ends where one without it ends: the mathematics is the same."""
    run = params.find(f"{task}/{optimizer}/0/nd_1")
    conditions = set_conditions(params, run, study, "cpu")

    def weights(kind: NoiseKind, dtype: torch.dtype) -> torch.Tensor:
        setup = assemble(replace(conditions, noise_kind=kind), "7")
        setup.model.to(dtype)
        begin_epoch(setup, 0)
        for batch in setup.batches.train(0):
            train_step(setup, replace(batch, images=batch.images.to(dtype)))
        return torch.cat([weight.detach().flatten().double() for weight in setup.model.parameters()])

    apart = {}
    for dtype in (torch.float32, torch.float64):
        plain, disturbed = weights("none", dtype), weights("reorder", dtype)
        apart[dtype] = float((plain - disturbed).norm() / plain.norm())
    assert 0 < apart[torch.float64] < 1e-10
    assert apart[torch.float32] > 1e4 * apart[torch.float64]


def test_ulp_noise(study: Layout) -> None:
    params = with_grid(study, "noise: auto", "noise: ulp")
    one, two = (train(params, study, f"shapes/sgd/0/nd_{i}") for i in (1, 2))
    assert one.noise.kind == "ulp"
    assert one.initial_fingerprint != two.initial_fingerprint
    assert train(params, study, "shapes/sgd/0/nd_1", Options(device="cpu", replay=two.noise)).fingerprints \
        == two.fingerprints  # fmt: skip


def test_the_ulp_arm_stands_beside_the_other_noise(study: Layout) -> None:
    params = with_grid(study, "[det_1, det_2, nd_1, nd_2]", "[det_1, nd_1, ulp_1, ulp_2]")
    fixed, free, one, two = (train(params, study, f"shapes/sgd/0/{label}") for label in params.grid.runs)
    assert [record.noise.kind for record in (fixed, free, one, two)] == ["none", "reorder", "ulp", "ulp"]
    assert len({record.initial_fingerprint for record in (fixed, one, two)}) == 3
    assert free.initial_fingerprint == fixed.initial_fingerprint
    again = train(params, study, "shapes/sgd/0/ulp_2", Options(device="cpu", replay=one.noise))
    assert again.fingerprints == one.fingerprints


def test_each_arm_frees_what_it_names(study: Layout) -> None:
    params = with_grid(study, "[det_1, det_2, nd_1, nd_2]", "[det_1, init_1, shuffle_1, augment_1, dropout_1]")
    records = {label: train(params, study, f"cuts/sgd/0/{label}") for label in params.grid.runs}
    initial = {label: record.initial_fingerprint for label, record in records.items()}
    assert initial.pop("init_1") not in initial.values()
    assert len(set(initial.values())) == 1
    assert len({record.final_fingerprint for record in records.values()}) == 5
    # Reproducible all the same: a freed stream has its own seed.
    again = train(params, study, "cuts/sgd/0/dropout_1")
    assert again.fingerprints == records["dropout_1"].fingerprints


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_learns(optimizer: str, study: Layout) -> None:
    params = with_grid(study, "epochs: 4, batch_size: 32", "epochs: 16, batch_size: 8")
    record = train(params, study, f"shapes/{optimizer}/0/det_1")
    assert record.metrics.accuracy > 0.5  # chance is a quarter


def test_divergence_is_recorded(study: Layout) -> None:
    params = with_grid(
        study, "sgd: {lr: 0.05, momentum: 0.9, weight_decay", "sgd: {lr: 1.0e+30, momentum: 0.9, weight_decay"
    )
    record = train(params, study, "shapes/sgd/0/det_1")
    assert record.status == "diverged"
    assert record.metrics is None
    assert record.note == "the loss was not finite in epoch 1"
    assert read_record(study.run(params.find("shapes/sgd/0/det_1")), check_files=True) == record


def test_replay_of_what_is_not_there_is_refused(params: Params, study: Layout) -> None:
    one = train(params, study, "shapes/sgd/0/nd_1")
    with pytest.raises(InputError, match="its noise here is none, which cannot replay a record with reorder noise"):
        train(params, study, "shapes/sgd/0/det_1", Options(device="cpu", replay=one.noise))
    for kind in ("ulp", "native", "none"):
        other = one.noise.model_copy(update={"kind": kind})
        with pytest.raises(InputError, match=f"cannot replay a record with {kind} noise"):
            train(params, study, "shapes/sgd/0/nd_1", Options(device="cpu", replay=other))


def test_emulated_noise_is_free_in_an_otherwise_deterministic_run(params: Params, study: Layout) -> None:
    free, fixed = train(params, study, "shapes/sgd/0/nd_1"), train(params, study, "shapes/sgd/0/det_1")
    assert free.flags == fixed.flags
    assert free.flags["deterministic_algorithms"]


def test_data_prepared_for_other_params_are_refused(study: Layout) -> None:
    params = with_grid(study, "image_size: 8}", "image_size: 12}")
    with pytest.raises(InputError, match="prepared for other params"):
        train(params, study, "shapes/sgd/0/det_1")


def test_a_run_that_another_process_finished_is_left_alone(params: Params, study: Layout) -> None:
    one = train(params, study, "shapes/sgd/0/nd_1")
    assert train(params, study, "shapes/sgd/0/nd_1", Options(device="cpu", unless_done=True)) == one
    assert train(params, study, "shapes/sgd/0/nd_1") != one


def test_leftovers_of_a_killed_process_of_the_same_number(params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/0/det_1")
    stale = study.run(run).with_name(f".det_1.{os.getpid()}.tmp")
    stale.mkdir(parents=True)
    (stale / RECORD).write_text("half")
    record = train(params, study, run.id)
    assert read_record(study.run(run), check_files=True) == record
    assert not stale.exists()


def test_a_second_process_on_the_same_run_leaves(params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/0/det_1")
    holder = f"another process is training this run: {platform.node()}, process {os.getpid()}"
    with Workspace(study.work(run)), pytest.raises(BusyError, match=re.escape(holder)):
        train(params, study, run.id)
    assert not study.run(run).exists()
    train(params, study, run.id)


def test_a_look_at_the_lock_stops_no_run(params: Params, study: Layout) -> None:
    """`twinrun status` holds it for a moment, shared."""
    folder = study.work(params.runs[0])
    folder.mkdir(parents=True)
    with (folder / LOCK).open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with Workspace(folder):
            pass


def test_cuda_asked_for_and_absent(params: Params, study: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        train(params, study, "shapes/sgd/0/det_1", Options(device="cuda"))
    assert train(params, study, "shapes/sgd/0/det_1", Options(device="auto")).device == "cpu"


def test_unprepared_task_is_named(params: Params, study: Layout) -> None:
    (study.prepared("shapes") / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"shapes/manifest\.json"):
        train(params, study, "shapes/sgd/0/det_1")
    assert not (study.root / "runs").exists()


def interrupt(params: Params, study: Layout, run_id: str, epoch: int) -> None:
    """Stop the run in that epoch: the progress is shown just before the checkpoint, so the one before is the last."""

    def stop(row: dict[str, object], epochs: int) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(params, study, run_id, Options(device="cpu", checkpoint_seconds=0.0, progress=stop))


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its process id."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_kill_at_five_random_moments(params: Params, study: Layout) -> None:
    """kill -9 anywhere, from the first file to the last rename, and again: the same fingerprint, and no rubbish.

    One moment in each fifth of a run and a tenth more, but the middle one as soon as there is a checkpoint, so that
    one is met on a busy machine, too; benchmarks/kills.py tries as many as it is told to.
    """
    run = params.find("shapes/adam/7/det_1")
    eager = Options(device="cpu", checkpoint_seconds=0.0)
    begin = time.perf_counter()
    reference = train(params, study, run.id, eager)
    duration = time.perf_counter() - begin
    folder, chance = study.run(run), random.Random(0)
    reference_bytes = (folder / RECORD).read_bytes()
    resumed = 0
    for fifth in range(5):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        child = in_child(lambda: train(params, study, run.id, eager))
        moment = (fifth + chance.random()) / 5 * 1.1 * duration
        if fifth == 2:
            begin = time.perf_counter()
            while not (study.work(run) / CHECKPOINT).exists() and time.perf_counter() - begin < 60:
                time.sleep(0.0005)
        else:
            time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not folder.exists() or read_record(folder, check_files=True) == reference
        assert train(params, study, run.id, eager) == reference
        assert [path.name for path in folder.parent.iterdir()] == ["det_1"]
        assert (folder / RECORD).read_bytes() == reference_bytes
        resumed += read_measured(folder).resumed
    assert resumed, "none of the kills hit a run with a checkpoint"


def test_an_interrupted_free_run_goes_on_with_its_noise(params: Params, study: Layout) -> None:
    run = params.find("cuts/sgd/0/nd_1")

    interrupt(params, study, run.id, epoch=2)
    attempt = json.loads((study.work(run) / "attempt.json").read_text())
    record = train(params, study, run.id)
    assert record.noise.entropy == attempt["entropy"]
    measured = read_measured(study.run(run))
    assert (measured.resumed, measured.attempts, measured.train_seconds) == (True, 2, None)
    whole = train(params, study, "cuts/sgd/0/nd_2", Options(device="cpu", replay=record.noise))
    assert whole.fingerprints == record.fingerprints


def test_an_attempt_whose_note_cannot_be_read_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(path: Path) -> None:
        raise ResourceError(f"{path}: Input/output error")

    with Workspace(tmp_path) as workspace:
        workspace.begin("mine", needs_entropy=False)
        workspace.checkpoint.write_text("hours of work")
        monkeypatch.setattr("twinrun.study.documents.read_json", fault)
        with pytest.raises(ResourceError):
            workspace.begin("mine", needs_entropy=False)
        assert workspace.checkpoint.read_text() == "hours of work"


def test_a_checkpoint_of_another_instruction_set_is_not_used(params: Params, study: Layout) -> None:
    conditions = set_conditions(params, params.find("shapes/sgd/0/det_1"), study, "cpu")
    own = [replace(conditions, flags=conditions.flags | {"instruction_set": name}) for name in ("AVX2", "AVX512")]
    assert len({identify(one, "0" * 64) for one in (conditions, *own)}) == 3


def test_a_checkpoint_of_other_params_or_code_is_not_used(params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/0/det_1")

    interrupt(params, study, run.id, epoch=3)
    changed = with_grid(study, "batch_size: 32, heads_every: 2", "batch_size: 16, heads_every: 2")
    record = train(changed, study, run.id)
    assert not read_measured(study.run(run)).resumed
    assert record.params_digest == changed.run_digest(run)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, b"\xff" * 9])
def test_a_damaged_checkpoint_starts_afresh(damage: bytes, params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/0/det_1")
    reference = train(params, study, run.id)

    interrupt(params, study, run.id, epoch=3)
    (study.work(run) / "checkpoint.safetensors").write_bytes(damage)
    assert train(params, study, run.id) == reference


def test_training_on_memory_mapped_data_leaves_the_files_as_they_are(params: Params, study: Layout) -> None:
    files = {file: file.read_bytes() for file in study.prepared("cuts").iterdir()}
    train(params, study, "cuts/adam/0/det_1")
    assert files == {file: file.read_bytes() for file in study.prepared("cuts").iterdir()}


def test_the_folder_of_a_single_experiment(params: Params, study: Layout, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    record = train_run(params, params.find("shapes/sgd/0/det_1"), Layout(study.root, out), CODE, CPU)
    assert read_record(out / "shapes/sgd/0/det_1") == record
    assert not (study.root / "runs").exists()
    assert not (study.root / "work").exists()


def test_mixed_precision_keeps_the_start_and_determinism(params: Params, study: Layout) -> None:
    plain = train(params, study, "shapes/sgd/0/det_1")
    mixed = with_grid(study, "precision: fp32", "precision: bf16")
    one, two = train(mixed, study, "shapes/sgd/0/det_1"), train(mixed, study, "shapes/sgd/0/det_2")
    assert one.fingerprints == two.fingerprints
    assert one.initial_fingerprint == plain.initial_fingerprint  # weights stay in float32
    assert one.fingerprints != plain.fingerprints
    assert one.params_digest != plain.params_digest
    assert one.metrics is not None
    assert plain.metrics is not None
    assert abs(one.metrics.loss - plain.metrics.loss) < 0.2  # the same training, more coarsely rounded


def test_a_copy_of_a_mixed_precision_model_computes_with_its_own_weights(params: Params) -> None:
    model = torch.nn.Linear(3, 2)
    adapt(model, torch.device("cpu"), params.execution.model_copy(update={"precision": "bf16"}))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert other(torch.ones(1, 3)).dtype == torch.bfloat16
    assert other(torch.ones(1, 3)).tolist() == [[0.0, 0.0]]
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        model(torch.ones(1, 4))
    assert not torch.is_autocast_enabled("cpu")


def test_channels_last_is_refused_on_a_cpu(study: Layout) -> None:
    settings = "precision: fp32, channels_last: true"
    params = with_grid(study, "device: cpu, noise: auto, precision: fp32", f"device: auto, noise: auto, {settings}")
    with pytest.raises(InputError, match="channels_last: true is for CUDA"):
        train(params, study, "shapes/sgd/0/det_1")
    with pytest.raises(InputError, match="channels_last: true is for CUDA"):
        with_grid(study, "device: auto", "device: cpu")


def test_epochs_after_an_allocation_that_failed_unheard_are_not_kept(
    params: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = params.find("shapes/sgd/0/det_1"), train(params, study, "shapes/sgd/0/det_2")
    seen: list[str] = []

    def refuse(what: str, device: torch.device, batch_size: int) -> None:
        seen.append(what)
        if len(seen) == 3:
            raise OutOfMemoryError(what)

    monkeypatch.setattr(loop, "refuse_hidden_shortage", refuse)
    with pytest.raises(OutOfMemoryError):
        train(params, study, run.id, Options(device="cpu", checkpoint_seconds=0.0))
    assert not study.run(run).exists()
    assert peek_checkpoint(study.work(run) / CHECKPOINT)["epoch"] == 2
    assert train(params, study, run.id).fingerprints == whole.fingerprints
    assert seen == [run.id] * 5
