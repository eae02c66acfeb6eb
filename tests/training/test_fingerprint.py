"""The fingerprint sees every bit, name, type and shape, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from twinrun.study.errors import InputError
from twinrun.training.fingerprint import fingerprint


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def flip_last_bit(model: nn.Module) -> None:
    model[0].weight.data.view(-1).view(torch.int32)[17] ^= 1


def swap_two(model: nn.Module) -> None:
    flat = model[0].weight.data.view(-1)
    flat[[3, 4]] = flat[[4, 3]]


def flip_sign_of_zero(model: nn.Module) -> None:
    model[1].bias.data[0] = -0.0


def count_a_batch(model: nn.Module) -> None:
    model[1].num_batches_tracked += 1


def reshape(model: nn.Module) -> None:
    model[0].weight = nn.Parameter(model[0].weight.detach().reshape(4, 3, 9, 1))


def retype(model: nn.Module) -> None:
    model[1].running_mean = model[1].running_mean.to(torch.float64)


def rename(model: nn.Module) -> None:
    model[0].kernel = model[0].weight
    del model[0].weight


@pytest.mark.parametrize("change", [flip_last_bit, swap_two, flip_sign_of_zero, count_a_batch, reshape, retype, rename])
def test_every_change_shows(change) -> None:
    model = build()
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) != before


def test_equal_models_are_equal() -> None:
    model = build()
    again = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert fingerprint(again) == fingerprint(model) == fingerprint(build())
    model.eval()
    assert fingerprint(model) == fingerprint(again)


def test_order_of_registration_does_not_matter() -> None:
    one, two = nn.Module(), nn.Module()
    one.a, one.b = nn.Linear(2, 2), nn.Linear(2, 2)
    two.b, two.a = one.b, one.a
    assert fingerprint(one) == fingerprint(two)


def test_what_has_no_names_is_refused() -> None:
    with pytest.raises(InputError, match="a Tensor is neither a module nor a mapping"):
        fingerprint(torch.ones(3))
