"""Localisation, proven by disturbances that the tests put in: each is named exactly, and nothing in nothing."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.inspect.driven import NATIVE, Harness, at, before, drive, flip_sign, one_ulp, record_of, redraw, swap
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture
from torch.utils._python_dispatch import TorchDispatchMode

from twinrun.cli.locate import _locate_all, follow_run
from twinrun.collect.first_difference import FirstDifference, described, read_first_difference, sentences
from twinrun.inspect import lockstep
from twinrun.inspect import replay as replaying
from twinrun.inspect.first_difference import PREDICT_EVERY, check_pair, differing_epoch, first_pairs, resolve
from twinrun.inspect.lockstep import Pair, Processes, ProcessSide
from twinrun.inspect.replay import Replay
from twinrun.inspect.trace import Tracer
from twinrun.study import records
from twinrun.study.errors import DeviceError, IncompleteError, InputError, MismatchError, OutOfMemoryError
from twinrun.study.files import read_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.records import Noise, current_code_digest, read_measured, read_record, write_record
from twinrun.training.loop import Options, train_run

CELLS = {"preactresnet18": "shapes/sgd/0", "mobilenet_v3_small": "cuts/adam/7", "resnet18": "shapes/adam/0"}
EPOCH, STEP = 2, 2


@pytest.fixture
def harness(study: Layout, tmp_path: Path) -> Harness:
    return Harness(read_params(study.root / "params.yaml"), study, tmp_path)


@pytest.fixture(params=CELLS)
def model(request: pytest.FixtureRequest, harness: Harness) -> SimpleNamespace:
    """One of the three architectures, with its convolutions in the order in which they are computed."""
    file = harness.study.root / "params.yaml"
    if request.param == "resnet18":
        file.write_text(file.read_text().replace("{name: preactresnet18, width", "{name: resnet18, width"))
    harness.params = read_params(file)
    replay = Replay(harness.params, harness.params.find(f"{CELLS[request.param]}/det_1"), harness.study,
                    Noise(kind="none", entropy=None), "cpu")  # fmt: skip
    order: list[str] = []
    for path, module in replay.setup.model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *_, path=path: order.append(path))
    replay.next_step()
    optimizer = "sgd" if "sgd" in CELLS[request.param] else "adam"
    first = next(name for name, _ in replay.setup.model.named_parameters())
    return SimpleNamespace(
        harness=harness, cell=CELLS[request.param], convolutions=order, optimizer=optimizer, first=first
    )


@pytest.mark.parametrize(
    ("model", "change", "kind", "differ", "ulps"),
    [
        ("preactresnet18", one_ulp, "values", 1, 1),
        ("mobilenet_v3_small", swap, "elements in another order", 2, None),
        ("resnet18", flip_sign, "sign", 1, None),
    ],
    indirect=["model"],
)
def test_forward(model: SimpleNamespace, change: Callable[..., None], kind: str, differ: int, ulps: int | None) -> None:
    which = len(model.convolutions) // 2
    found = drive(model.harness, at(EPOCH, STEP, "aten.convolution.default", which, 0, change), cell=model.cell)
    one = found.parting
    assert (found.outcome, found.epoch, found.step) == ("located", EPOCH, STEP)
    assert (one.phase, one.operation, one.side) == ("forward", "aten.convolution.default", "output")
    assert (one.module, one.module_type) == (model.convolutions[which], "Conv2d")
    assert (one.tensor, one.kind, one.differ, one.opaque) == ("output 0", kind, differ, False)
    assert ulps is None or one.ulps_max == ulps == one.ulps_median
    assert found.arithmetic == one


@pytest.mark.parametrize(
    ("model", "change", "kind"),
    [
        ("preactresnet18", flip_sign, "sign"),
        ("mobilenet_v3_small", one_ulp, "values"),
        ("resnet18", one_ulp, "values"),
    ],
    indirect=["model"],
)
def test_backward(model: SimpleNamespace, change: Callable[..., None], kind: str) -> None:
    disturbance = at(EPOCH, STEP, "aten.convolution_backward.default", 3, 1, change)  # output 1: that of the weight
    one = drive(model.harness, disturbance, cell=model.cell).parting
    module = model.convolutions[::-1][3]  # autograd goes back in the order of the forward pass
    assert (one.phase, one.operation, one.module) == ("backward", "aten.convolution_backward.default", module)
    assert (one.tensor, one.kind, one.differ) == (f"gradient of {module}.weight", kind, 1)


OF_EACH_OPTIMIZER = pytest.mark.parametrize("model", ["preactresnet18", "mobilenet_v3_small"], indirect=True)


@OF_EACH_OPTIMIZER
def test_optimizer(model: SimpleNamespace) -> None:
    operation = f"aten._fused_{model.optimizer}_.default"
    found = drive(model.harness, at(EPOCH, STEP, operation, 0, 0, one_ulp), cell=model.cell, follow=2)
    one = found.parting
    assert (one.phase, one.operation) == ("optimizer", operation)
    assert (one.tensor, one.differ, one.ulps_max) == (f"parameter {model.first}", 1, 1)
    assert found.steps_before == found.step - 1 + (2 if "cuts" in model.cell else 3)
    first, *later = found.growth
    assert (first.weights_differ, first.ulps_max, first.ulps_median) == (1, 1, 1.0)
    assert first.relative_l2 > 0
    assert [row.step for row in later] == ([] if "cuts" in model.cell else [1, 2])  # training ends before


@OF_EACH_OPTIMIZER
def test_optimizer_state(model: SimpleNamespace) -> None:
    key = {"sgd": "momentum_buffer", "adam": "exp_avg_sq"}[model.optimizer]

    def work(replay: Replay) -> None:
        parameter = next(replay.setup.model.parameters())
        swap(replay.setup.optimizer.state[parameter][key].view(-1))

    one = drive(model.harness, before(EPOCH, STEP, work), cell=model.cell).parting
    assert (one.phase, one.tensor, one.differ) == ("optimizer", f"{key} of {model.first}", 2)


def test_native_noise_may_part_a_pair_sooner_than_in_its_records(harness: Harness) -> None:
    found = drive(harness, at(2, 1, "aten.convolution.default", 0, 0, one_ulp), epoch=4)
    assert (found.epoch, found.step) == (2, 1)
    assert found.parting.operation == "aten.convolution.default"


def test_batch_order(harness: Harness) -> None:
    found = drive(harness, redraw(EPOCH, STEP, 0, swap))
    one = found.parting
    assert (found.epoch, found.step) == (EPOCH, STEP)
    assert (one.phase, one.tensor, one.kind, one.differ) == (
        "batch", "order of the examples", "elements in another order", 2,
    )  # fmt: skip
    assert "order of the examples: 2 of 32 elements differ" in described(one)


def test_augmentation(harness: Harness) -> None:
    def change(row: torch.Tensor) -> None:
        row[5] = 1 - row[5].clamp(max=1)

    one = drive(harness, redraw(EPOCH, STEP, 2, change)).parting
    assert (one.phase, one.tensor, one.differ, one.first_index) == ("augmentation", "column of the crop", 1, 5)


def test_nothing_is_found_in_nothing(model: SimpleNamespace) -> None:
    found = drive(model.harness, lambda replay: None, cell=model.cell)
    assert (found.outcome, found.parting, found.epoch) == ("none", None, None)
    assert ": none: " in sentences(found)[0]


def test_dropout_mask(harness: Harness) -> None:
    def disturb(replay: Replay) -> None:
        [dropout] = replay.setup.dropouts

        @contextmanager
        def around(epoch: int, step: int) -> Iterator[None]:
            kept = dropout.parts
            if (epoch, step) == (EPOCH, STEP):
                dropout.parts = (*kept, "another")
            yield
            dropout.parts = kept

        replay.around = around

    one = drive(harness, disturb, cell="cuts/sgd/0").parting
    assert (one.phase, one.module, one.module_type) == ("forward", "classifier.2", "StreamDropout")
    assert (one.side, one.tensor, one.dtype) == ("input", "dropout mask", "torch.bool")


def test_running_statistics(harness: Harness) -> None:
    """Batch normalization writes them, and its schema does not say so."""

    def work(replay: Replay) -> None:
        one_ulp(replay.setup.model.get_buffer("blocks.0.bn1.running_mean").view(-1))

    one = drive(harness, before(EPOCH, STEP, work)).parting
    assert (one.phase, one.tensor) == ("between steps", "buffer blocks.0.bn1.running_mean")


def test_running_statistics_belong_to_the_operation_that_writes_them(harness: Harness) -> None:
    class Written(TorchDispatchMode):
        done = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if str(func) == "aten.native_batch_norm.default" and not self.done:
                one_ulp(args[3].view(-1))
                self.done = True
            return result

    def disturb(replay: Replay) -> None:
        replay.around = lambda e, s: Written() if (e, s) == (EPOCH, STEP) else nullcontext()

    one = drive(harness, disturb).parting
    assert (one.phase, one.operation, one.module) == ("forward", "aten.native_batch_norm.default", "blocks.0.bn1")
    assert (one.tensor, one.differ, one.opaque) == ("buffer blocks.0.bn1.running_mean", 1, False)


def test_another_operation_in_the_same_place(harness: Harness) -> None:
    def work(replay: Replay) -> None:
        replay.setup.model.blocks[1].bn1.register_forward_hook(lambda module, inputs, output: output.neg())

    one = drive(harness, before(EPOCH, STEP, work)).parting
    assert (one.kind, one.phase, one.module) == ("other operation", "forward", "blocks.1.bn1")
    assert one.other_operation == "aten.neg.default"


def test_another_operation_that_gives_the_same_bits(tmp_path: Path) -> None:
    class Idle:
        def send(self, message: dict[str, Any]) -> None: ...

        def receive(self) -> dict[str, Any]:
            return {}

    event = {"phase": "forward", "module": "a", "module_type": "B", "opaque": False,
             "inputs": [["self", "1", None]], "outputs": [["output 0", "1", None]]}  # fmt: skip
    events = [event | {"operation": name} for name in ("aten.relu.default", "aten.abs.default")]
    found, only_order = Pair(Idle(), Idle(), tmp_path)._compare(*events, order_seen=False)
    assert found
    assert (found.kind, found.operation, found.other_operation, only_order) == ("other operation", *[
        one["operation"] for one in events], False)  # fmt: skip
    assert Pair(Idle(), Idle(), tmp_path)._compare(events[0], events[0], order_seen=False) == (None, False)


def test_a_kernel_that_the_dispatcher_does_not_show_is_named_opaque(harness: Harness) -> None:
    def disturb(replay: Replay) -> None:
        module = replay.setup.model.blocks[2]
        plain = module.forward

        def forward(x: torch.Tensor) -> torch.Tensor:
            result = plain(x)
            if (replay.epoch + 1, replay.step) == (EPOCH, STEP):
                ctypes.c_float.from_address(result.data_ptr() + 4 * 7).value += 0.5  # as a foreign kernel would
            return result

        module.forward = forward

    one = drive(harness, disturb).parting
    assert (one.phase, one.operation, one.module, one.opaque) == ("forward", "(module)", "blocks.2", True)
    assert one.differ == 1
    assert "opaque" in described(one)


def test_a_custom_operation_is_named_opaque(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    library = torch.library.Library("twinrun_test", "FRAGMENT")
    library.define("twice(Tensor x, float by) -> Tensor")
    library.impl("twice", lambda x, by: x * by, "CPU")

    def wrap(replay: Replay, by: float) -> None:
        module = replay.setup.model.linear
        plain = type(module).forward
        module.forward = lambda x: plain(module, torch.ops.twinrun_test.twice(x.detach(), by))

    plain = Replay.__init__

    def both(self: Replay, *arguments: object) -> None:
        plain(self, *arguments)
        wrap(self, 2.0)

    monkeypatch.setattr(Replay, "__init__", both)
    one = drive(harness, lambda replay: wrap(replay, 2.0 + 2**-20)).parting
    assert (one.operation, one.module, one.opaque) == ("twinrun_test.twice.default", "linear", True)


def test_reorder_noise_parts_in_the_batch_and_then_in_a_sum(harness: Harness) -> None:
    noises = (Noise(kind="none", entropy=None), Noise(kind="reorder", entropy="5" * 32))
    found = drive(harness, lambda replay: None, labels=("det_1", "nd_1"), noises=noises, follow=3)
    assert (found.epoch, found.step, found.parting.phase) == (1, 1, "batch")
    assert found.parting.kind == "elements in another order"
    other = found.arithmetic
    assert other.phase in ("forward", "backward")
    assert not other.opaque
    assert 0 < other.ulps_median < 1000  # rounding, once the examples are put beside each other
    assert found.growth[0].relative_l2 < 1e-3


def test_hashing_is_done_in_the_step_in_question_only(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    plain = Tracer.__enter__
    monkeypatch.setattr(Tracer, "__enter__", lambda self: entered.append(1) or plain(self))
    drive(harness, at(EPOCH, STEP, "aten.convolution.default", 1, 0, one_ulp), follow=3)
    assert len(entered) == 2  # once in each run


def test_the_disk_is_looked_at_first(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="a copy of the weights takes 0 MB, and 0 MB are free"):
        drive(harness, lambda replay: None)


def trained(harness: Harness, *ids: str, options: Options = Options(device="cpu")) -> None:  # noqa: B008
    for run_id in ids:
        train_run(harness.params, harness.params.find(run_id), harness.study, current_code_digest(), options)


@pytest.mark.slow
def test_the_command(harness: Harness, cli: Cli) -> None:  # noqa: F811
    trained(harness, "shapes/sgd/0/det_1", "shapes/sgd/0/det_2", "shapes/sgd/0/nd_1")
    code, out, _ = cli("locate", "shapes/sgd/0/det_1", "det_2")
    assert code == 0
    assert "none: no difference was found" in out
    code, out, err = cli("locate", "shapes/sgd/0/nd_1", "det_1", "--follow", "3")
    assert code == 4
    assert "part in epoch 1, step 1, after 0 equal steps" in out
    assert "fingerprints of their records up to the end of epoch 1" in out
    assert "shapes/sgd/0/nd_1 and shapes/sgd/0/det_1 part in epoch 1, step 1" in err
    stem = harness.study.root / "work/located/shapes/sgd/0/nd_1-shapes_sgd_0_det_1"
    found = read_first_difference(stem.with_name(stem.name + ".json"))
    assert len(found.growth) == 4
    assert stem.with_name(stem.name + ".csv").read_text().count("\n") == 5
    for kind in ("svg", "png", "txt"):
        assert stem.with_name(f"{stem.name}.{kind}").stat().st_size > 100


def test_words_for_runs_that_are_not_there(harness: Harness, cli: Cli) -> None:  # noqa: F811
    trained(harness, "shapes/adam/0/det_1")
    for words, expected, said in (
        (("shapes/adam/0/det_1", "nd_9"), 2, "'shapes/adam/0/nd_9' is not in the grid"),
        (("det_1", "nd_1"), 3, "shapes/adam/0/nd_1 is not trained yet"),
        (("det_1",), 2, "det_1, and which other run?"),
        (("--all", "det_1"), 2, "--all takes no runs"),
    ):
        code, _, err = cli("locate", *words)
        assert (code, said in err) == (expected, True), err


def test_a_later_epoch(harness: Harness) -> None:
    """The epochs that are equal by the records are trained whole and held against them."""
    trained(harness, "shapes/sgd/0/det_1")
    record = read_record(harness.study.run(harness.params.find("shapes/sgd/0/det_1")))
    disturbance = at(3, 2, "aten.convolution.default", 9, 0, one_ulp)
    found = drive(harness, disturbance, epoch=3, record=record)
    assert (found.epoch, found.step, found.steps_before) == (3, 2, 7)
    assert found.how[0] == "shapes/sgd/0/det_1 was trained again to the end of epoch 2."
    other = record.model_copy(update={"fingerprints": [record.fingerprints[0], "0" * 64, *record.fingerprints[2:]]})
    with pytest.raises(MismatchError, match="trained again is after epoch 2 not what its record says"):
        drive(harness, disturbance, epoch=3, record=other)


def test_resuming_from_a_checkpoint_of_the_record(harness: Harness) -> None:
    run = harness.params.find("shapes/sgd/0/det_1")
    trained(harness, run.id)
    noted = read_json(harness.study.run(run) / "record.json")["fingerprints"]

    def stop(row: dict[str, object], epochs: int) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(harness, run.id, options=Options(device="cpu", checkpoint_seconds=0.0, progress=stop))

    def fresh() -> Replay:
        return Replay(harness.params, run, harness.study, Noise(kind="none", entropy=None), "cpu")

    assert fresh().resume(current_code_digest(), noted[:2]) == 0  # the checkpoint is of epoch 3
    replay = fresh()
    assert replay.resume(current_code_digest(), noted[:3]) == 3
    assert replay.whole_epoch() == noted[3]
    assert fresh().resume("0" * 64, noted[:3]) == 0
    assert fresh().resume(current_code_digest(), [*noted[:2], "0" * 64]) == 0


def test_bad_pairs_are_refused_before_any_work(harness: Harness) -> None:
    params, study = harness.params, harness.study
    trained(harness, "shapes/sgd/0/det_1", "shapes/sgd/0/nd_1", "shapes/adam/0/det_1", "cuts/sgd/0/det_1")
    first, second = resolve(params, study, "shapes/sgd/0/det_1", "nd_1")
    check_pair(params, study, first, second)
    assert differing_epoch(first.record, second.record) == 1
    for other, words in (
        ("shapes/adam/0/det_1", "different optimizer .*params"),
        ("cuts/sgd/0/det_1", "different task .*data"),
    ):
        with pytest.raises(MismatchError, match=words):
            check_pair(params, study, *resolve(params, study, "shapes/sgd/0/det_1", other))
    for key in ("code_digest", "data_digest", "params_digest"):
        changed = [replace(one, record=one.record.model_copy(update={key: "0" * 64})) for one in (first, second)]
        word = key.removesuffix("_digest")
        with pytest.raises(MismatchError, match=f"of different {word}"):
            check_pair(params, study, first, changed[1])
        with pytest.raises(MismatchError, match=f"were trained with other {word} .000000000000, now"):
            check_pair(params, study, *changed)
    folder = study.run(first.run)
    assert resolve(params, study, str(folder), "nd_1")[1].run.id == "shapes/sgd/0/nd_1"
    (study.prepared("shapes") / "manifest.json").unlink()
    with pytest.raises(IncompleteError, match="task shapes is not prepared"):
        check_pair(params, study, first, second)


def test_initialization(harness: Harness) -> None:
    file = harness.study.root / "params.yaml"
    file.write_text(file.read_text().replace("noise: auto", "noise: ulp"))
    harness.params = read_params(file)
    noises = (Noise(kind="none", entropy=None), Noise(kind="ulp", entropy="7" * 32))
    found = drive(harness, lambda replay: None, labels=("det_1", "nd_1"), noises=noises)
    one = found.parting
    assert (one.phase, one.differ, one.ulps_max) == ("initialization", 1, 1)
    assert one.tensor.startswith("parameter ")


def test_diverged_runs(harness: Harness) -> None:
    file = harness.study.root / "params.yaml"
    file.write_text(file.read_text().replace("lr: 0.05, momentum: 0.9, weight", "lr: 1.0e+30, momentum: 0.9, weight"))
    harness.params = read_params(file)
    found = drive(harness, at(1, 2, "aten.convolution.default", 1, 0, lambda v: v.fill_(1.0)), follow=4)
    assert (found.epoch, found.step, found.parting.phase) == (1, 2, "forward")
    assert found.growth[-1].relative_l2 is None
    json.dumps(found.model_dump(), allow_nan=False)


def test_growth_ends_where_the_record_does(harness: Harness) -> None:
    run = harness.params.find("shapes/sgd/0/det_1")
    record = record_of(harness.params, run.id, Replay(harness.params, run, harness.study, NATIVE, "cpu"))
    short = record.model_copy(update={"fingerprints": record.fingerprints[:1]})
    found = drive(harness, at(1, 2, "aten.convolution.default", 1, 0, one_ulp), record=short, follow=50)
    assert {row.epoch for row in found.growth} == {1, 2}
    ends = [row.step for row, after in pairwise([*found.growth, None]) if not after or after.epoch > row.epoch]
    predicted = {row.step for row in found.growth if row.flipped is not None}
    assert predicted == {0, *ends, *range(0, len(found.growth), PREDICT_EVERY)}


def test_going_back_draws_the_same_dropout_masks(harness: Harness) -> None:
    replay = Replay(harness.params, harness.params.find("cuts/sgd/0/det_1"), harness.study, NATIVE, "cpu")
    replay.next_step()
    first = replay.step_digests()
    replay.rewind()
    replay.traced_step(lambda event, tracer: None)
    assert replay.step_digests() == first


def test_going_back_restores_buffers_that_no_state_dict_holds(harness: Harness) -> None:
    run = harness.params.find("shapes/sgd/0/det_1")
    replay = Replay(harness.params, run, harness.study, NATIVE, "cpu")
    count = torch.zeros(1)
    replay.setup.model.register_buffer("calls", count, persistent=False)
    replay.setup.model.register_forward_pre_hook(lambda *_: count.add_(1.0) and None)
    before = replay.fingerprint()
    replay.next_step()
    assert (count.item(), replay.fingerprint() != before) == (1.0, True)
    replay.rewind()
    assert replay.fingerprint() == before


@pytest.mark.slow
def test_a_task_whose_device_is_absent_is_left_out(
    harness: Harness,
    cli: Cli,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a job that finishes a study without the GPU: the others are located all the same."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    trained(harness, *(f"{task}/adam/0/{run}" for task in ("shapes", "cuts") for run in ("det_1", "nd_1")))
    for label in ("det_1", "nd_1"):
        folder = harness.study.run(harness.params.find(f"cuts/adam/0/{label}"))
        write_record(folder, read_record(folder).model_copy(update={"device": "cuda"}), read_measured(folder))
    code, out, err = cli("locate", "--all", "--follow", "1")
    assert code == 0, err
    assert "cuts: not located: device cuda: torch sees no CUDA device; `dvc repro -sf locate` where it is" in err
    assert "shapes/adam/0/det_1 and shapes/adam/0/nd_1" in out
    assert [file.name for file in harness.study.located.glob("*.json")] == ["shapes.json"]


@pytest.mark.parametrize("begins_later", [False, True])
def test_when_one_pair_fails_the_others_are_ended(begins_later: bool, tmp_path: Path) -> None:
    """As when the command is interrupted: their processes would train on for nobody, also those still to begin."""
    begun, started, failed = list[Processes](), threading.Event(), threading.Event()

    def locate_pair(first: str, second: str) -> FirstDifference:
        if first == "bad":
            started.wait()
            while not (begins_later or (begun and len(begun[0].sides) == 2)):
                time.sleep(0.01)
            failed.set()
            raise InputError("no such run")
        started.set()
        if begins_later:
            failed.wait()
            time.sleep(0.3)
        begun.append(Processes(lambda index: ["sleep", "20"], tmp_path))
        with begun[0] as sides:
            sides[0].receive()
        raise AssertionError

    pairs = {"a": ("bad", "x"), "b": ("good", "x")}
    with pytest.raises(InputError, match="no such run"):
        _locate_all(pairs, Layout(tmp_path), locate_pair, begun, at_once=2)
    assert [side.process.poll() for side in begun[0].sides] == [-signal.SIGTERM] * 2


def test_another_gpu_than_the_records_is_a_device_that_is_absent(harness: Harness) -> None:
    run = harness.params.find("shapes/adam/0/det_1")
    trained(harness, run.id)
    script = (
        "import torch; import twinrun.training.environment as e; e.gpu_name = lambda device: 'GPU B'\n"
        "from twinrun.cli.app import main; main()"
    )
    command = [sys.executable, "-c", script, "follow-run", run.id, "--record", harness.study.run(run)]
    done = subprocess.run(command, cwd=harness.study.root, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["kind"] == "DeviceError"
    assert answer["error"] == "shapes/adam/0/det_1 was trained on None, and here is GPU B"
    folder = harness.study.run(run)
    theirs = read_record(folder).flags | {"instruction_set": "AVX512 Intel"}
    write_record(folder, read_record(folder).model_copy(update={"flags": theirs}), read_measured(folder))
    command = [sys.executable, "-m", "twinrun", "follow-run", run.id, "--record", folder]
    done = subprocess.run(command, cwd=harness.study.root, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["kind"] == "DeviceError"
    assert "was trained on another processor (AVX512 Intel), and here is" in answer["error"]


def test_the_pairs_of_the_report(harness: Harness) -> None:
    assert first_pairs(harness.params) == {
        "shapes": ("shapes/adam/0/det_1", "shapes/adam/0/nd_1"),
        "cuts": ("cuts/adam/0/det_1", "cuts/adam/0/nd_1"),
    }


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "shapes/sgd/0/det_1: out of memory: CUDA", OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: launch failure"), "det_1: the GPU failed: CUDA error", DeviceError),
    ],
)
def test_a_fault_on_one_side_is_its_answer(
    error: Exception,
    said: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(replaying, "Replay", fail)
    monkeypatch.setattr(records, "read_record", lambda path: SimpleNamespace(noise=NATIVE))
    follow_run("shapes/sgd/0/det_1", Path("record.json"), Path("params.yaml"), "cpu")
    line = capfd.readouterr().out
    assert said in json.loads(line)["error"]
    # The other end raises it again, by its own name.
    side = ProcessSide([sys.executable, "-c", f"print({line!r})"], Path(), os.environ)
    with pytest.raises(kind, match=said):
        side.receive()
    side.close()
