"""A checkpoint brings back all that a fingerprint covers, and optimizer state in the memory format of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from twinrun.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from twinrun.training.fingerprint import fingerprint

PROGRESS = Progress("this run", 1, [], {}, {"train": 0.0})


def channels_last() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Conv2d(8, 8, 3)
    return model.to(memory_format=torch.channels_last)


def step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
    optimizer.step()


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_channels_last_goes_on_as_if_it_had_not_been_interrupted(kind: str, tmp_path: Path) -> None:
    def optimizer_of(model: nn.Module) -> Optimizer:
        if kind == "adam":
            return Adam(model.parameters(), fused=True)
        return SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)

    model = channels_last()
    optimizer = optimizer_of(model)
    step(model, optimizer, 1)
    save_checkpoint(tmp_path / "c", PROGRESS, model, optimizer)
    step(model, optimizer, 2)
    resumed = channels_last()
    resumed_optimizer = optimizer_of(resumed)
    assert load_checkpoint(tmp_path / "c", "this run", resumed, resumed_optimizer) == PROGRESS
    step(resumed, resumed_optimizer, 2)
    assert resumed.weight.stride() == model.weight.stride() != torch.empty(8, 8, 3, 3).stride()
    assert fingerprint(resumed) == fingerprint(model)


def test_buffers_that_no_state_dict_holds_and_shared_weights(tmp_path: Path) -> None:
    def build(value: float) -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = model[0].weight
        model.register_buffer("average", torch.tensor([value]), persistent=False)
        return model

    model, other = build(0.5), build(0.0)
    assert "average" not in model.state_dict()
    save_checkpoint(tmp_path / "c", PROGRESS, model, SGD(model.parameters(), lr=0.1))
    load_checkpoint(tmp_path / "c", "this run", other, SGD(other.parameters(), lr=0.1))
    assert fingerprint(other) == fingerprint(model)
    assert other[1].weight is other[0].weight
