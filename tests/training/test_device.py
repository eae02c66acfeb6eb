"""The training loop on a CUDA device, without one: fake tensors have a device and a shape, but no numbers.

They refuse what mixes devices and what asks for a number; copies between devices are noted here. Left out are the
backward pass and the fused SGD step, which ask the driver: `test_cuda.py` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_cuda import ARCHITECTURES, SETTINGS, write_study
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from twinrun.study.params import read_params
from twinrun.training import batches, setup
from twinrun.training.loop import begin_epoch, evaluate, train_step
from twinrun.training.setup import Setup, assemble, set_conditions

STEPS = 16  # 1,024 images by 64


class Copies(TorchDispatchMode):
    """Every operation that has tensors on two devices: (operation, from, to)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given, made = (
            {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
            for tree in ((args, kwargs), result)
        )
        if len(given | made) > 1:
            self.seen.append((str(function), "+".join(sorted(given)), "+".join(sorted(made))))
        return result


def move(module: nn.Module, device: Any = None, memory_format: Any = torch.preserve_format) -> nn.Module:
    """nn.Module.to, which would exchange a parameter's contents: fake tensors cannot."""
    for part in module.modules():
        for name, value in part._parameters.items():
            layout = memory_format if value is not None and value.dim() == 4 else torch.preserve_format
            if value is not None:
                part._parameters[name] = nn.Parameter(value.to(device or value.device, memory_format=layout, copy=True))
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else value.to(device or value.device, copy=True)
    return module


@pytest.fixture
def fake() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def on_cuda(
    root: Path, architecture: str, setting: str, fake: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> tuple[Setup, list[int]]:
    """A run ready on a device that is not there, and how many bytes were pinned each time."""
    layout = write_study(root, architecture, SETTINGS[setting])
    params = read_params(root / "params.yaml")
    with monkeypatch.context() as there:
        there.setattr(torch.cuda, "is_available", lambda: True)
        conditions = set_conditions(params, params.find("drawn/adam/0/det_1"), layout, "cuda")
    adapt, pinned = setup.adapt, []

    def begin(*arguments: Any) -> None:
        # The weights are drawn and fingerprinted by then; from here on nothing has numbers.
        fake.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        adapt(*arguments)

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(setup, "adapt", begin)
    monkeypatch.setattr(batches, "fits", lambda size, device: True)
    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    made = assemble(conditions)

    def backward(loss: torch.Tensor) -> None:
        for parameter in made.model.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    return made, pinned


@pytest.mark.parametrize(
    ("architecture", "setting"),
    [*((architecture, "fp32") for architecture in ARCHITECTURES), ("preactresnet18", "fp32 channels_last")],
)
def test_an_epoch_is_sent_at_its_start_and_nothing_comes_back(
    architecture: str, setting: str, tmp_path: Path, fake: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pinned = on_cuda(tmp_path, architecture, setting, fake, monkeypatch)
    copies = fake.enter_context(Copies())
    begin_epoch(made, 0)
    losses = []
    for batch in made.batches.train(0):
        assert batch.images.is_contiguous(memory_format=torch.channels_last) == ("channels_last" in setting)
        losses.append(train_step(made, batch))
    assert len(losses) == STEPS
    assert {(loss.device.type, loss.dtype) for loss in losses} == {("cuda", torch.float32)}
    # What was drawn for the epoch; and the masks of MobileNet's dropout, whose shape is known at each step only: from
    # pinned memory, so that nothing waits.
    masks = STEPS * len(made.dropouts)
    assert copies.seen == [("aten._to_copy.default", "cpu", "cuda")] * (1 + masks)
    assert len(pinned) == masks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_evaluation_waits_at_its_end_only(
    architecture: str, tmp_path: Path, fake: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "EVALUATION_BATCH", 64)  # four batches
    made, _ = on_cuda(tmp_path, architecture, "fp32", fake, monkeypatch)
    copies = fake.enter_context(Copies())
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: tensor)
    predictions = evaluate(made.model, made.batches)
    assert [tuple(part.shape) for part in predictions] == [(256, 10), (256,), (256, 10)]
    assert copies.seen == [("aten._to_copy.default", "cuda", "cpu")] * 3


def test_a_fake_device_notices_what_it_should(fake: ExitStack) -> None:
    fake.enter_context(FakeTensorMode())
    there = torch.empty(2, device="cuda")
    with pytest.raises(RuntimeError, match="device"):
        there + torch.empty(2)
    with pytest.raises(RuntimeError, match=r"_local_scalar_dense|[Dd]ata"):
        there.sum().item()
