"""Streams: functions of their names alone; noise that replays; dropout that follows its examples."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from twinrun.study.errors import InputError
from twinrun.study.grid import STREAMS, Run
from twinrun.training.randomness import (
    Noise,
    StreamDropout,
    Streams,
    permutation,
    reaching,
    seed_global_generators,
    take_over_dropout,
    words,
)


def test_words_are_these_for_ever() -> None:
    """Constants of this project: a change would make every study draw something else."""
    assert words(2, "shuffle", "42", 3).tolist() == [GOLDEN_FIRST, GOLDEN_SECOND]


GOLDEN_FIRST, GOLDEN_SECOND = 3798463192083859732, 8812545936012700432


@given(st.integers(0, 300), st.integers(0, 2**31))
def test_permutation_is_one(count: int, seed: int) -> None:
    assert sorted(permutation(count, "test", seed)) == list(range(count))


def test_permutations_are_uniform() -> None:
    """All six orders of three, 6,000 times: chi-square with 5 degrees of freedom, far below its 1e-6 quantile, 35.9."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(6000):
        order = tuple(permutation(3, "uniform", seed).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 35.9


def test_a_stream_depends_on_nothing_drawn_before() -> None:
    streams = Streams.of(Run("t", "sgd", 5, "det", 1))
    first = streams.order(2, 50)
    streams.augmentation(0, 1000)
    streams.order(1, 7)
    np.random.seed(0)  # noqa: NPY002
    assert (streams.order(2, 50) == first).all()
    assert (streams.order(3, 50) != first).any()


def test_an_arm_frees_its_stream_and_no_other() -> None:
    fixed = Streams.of(Run("t", "sgd", 5, "det", 1))
    assert Streams.of(Run("t", "sgd", 5, "nd", 3)) == fixed
    for arm in STREAMS:
        one, two = (Streams.of(Run("t", "sgd", 5, arm, replicate)) for replicate in (1, 2))
        changed = {name for name in STREAMS if getattr(one, name) != getattr(fixed, name)}
        assert changed == {arm}
        assert getattr(one, arm) != getattr(two, arm)
    assert all(getattr(Streams.of(Run("t", "sgd", 5, "all", 1)), n) != getattr(fixed, n) for n in STREAMS)


def test_noise_reorders_within_batches_and_replays() -> None:
    noise = Noise("reorder", "ab" * 16)
    orders = noise.orders(3, [4, 4, 3])
    assert [sorted(order) for order in orders if order is not None] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2]]
    again = Noise("reorder", "ab" * 16).orders(3, [4, 4, 3])
    assert all((a == b).all() for a, b in zip(orders, again, strict=True))
    assert any((a != b).any() for a, b in zip(orders, noise.orders(4, [4, 4, 3]), strict=True))
    for kind in ("none", "native", "ulp"):
        assert Noise(kind, "ab" * 16).orders(3, [4, 4]) == [None, None]


def test_ulp_noise_changes_one_weight_by_one_ulp() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3))
    before = torch.cat([p.detach().clone().view(-1) for p in model.parameters()])
    Noise("ulp", "01" * 16).disturb(model, 2)
    after = torch.cat([p.detach().view(-1) for p in model.parameters()])
    changed = (before != after).nonzero().view(-1)
    assert len(changed) == 1
    steps = after.view(torch.int32)[changed] - before.view(torch.int32)[changed]
    assert steps.abs().item() == 1
    assert after[changed] > before[changed]


@pytest.mark.parametrize("size", [2, 8])
def test_ulp_noise_passes_over_weights_that_change_nothing(size: int) -> None:
    torch.manual_seed(0)
    kernel = nn.Conv2d(3, 2, 3, stride=size, padding=1)  # one pixel is left: only a part of the kernel meets the image
    model = nn.Sequential(kernel, nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(2, 4))
    model.append(nn.Linear(4, 3))
    take_over_dropout(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    reached = reaching(model, size)
    met = torch.zeros(3, 3, dtype=torch.bool)
    met[1:, 1:] = True
    assert torch.equal(reached[0], met.expand(2, 3, 3, 3))
    assert all(one.all() for one in reached[4:])
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    for number in range(40):
        twin = copy.deepcopy(model)
        Noise("ulp", f"{number:032x}").disturb(twin, size)
        changed = [(p != q).nonzero() for p, q in zip(model.parameters(), twin.parameters(), strict=True)]
        assert sum(map(len, changed)) == 1
        assert all(met[tuple(place[2:])] for place in changed[0])


def test_ulp_noise_needs_a_weight_that_changes_something() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    with pytest.raises(InputError, match="arm ulp: no weight"):
        Noise("ulp", "01" * 16).disturb(model, 2)


def test_global_generators_are_seeded() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002

    seed_global_generators("init", "0")
    first = draw()
    assert draw() != first
    seed_global_generators("init", "0")
    assert draw() == first


def test_dropout_is_taken_over_and_follows_its_stream() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.25), nn.ReLU()))
    (dropout,) = take_over_dropout(model)
    assert not [m for m in model.modules() if type(m) is nn.Dropout]
    x = torch.ones(400, 50)
    dropout.start_epoch("7", 0)
    first, second = dropout(x), dropout(x)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # 20,000 draws: the share lies within 5 standard errors of a quarter.
    assert abs((first == 0).float().mean().item() - 0.25) < 5 * (0.25 * 0.75 / x.numel()) ** 0.5
    assert not torch.equal(first, second)
    dropout.start_epoch("7", 0)
    assert torch.equal(dropout(x), first)
    dropout.start_epoch("7", 1)
    assert not torch.equal(dropout(x), first)
    dropout.eval()
    assert torch.equal(dropout(x), x)


def test_dropout_masks_go_with_the_examples_when_noise_reorders_them() -> None:
    dropout = StreamDropout(0.5, "d")
    x = torch.arange(1.0, 9).view(8, 1).expand(8, 6)
    dropout.start_epoch("0", 0)
    plain = dropout(x)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    dropout.start_epoch("0", 0)
    dropout.order = order
    assert torch.equal(dropout(x[order]), plain[order])


@pytest.mark.parametrize("shape", [(2, 4, 3), (8, 4, 3)], ids=["sequence first", "windows"])
def test_dropout_whose_first_axis_is_not_the_batch_is_named(shape: tuple[int, ...]) -> None:
    (dropout,) = take_over_dropout(nn.ModuleDict({"drop": nn.Dropout(0.5)}))
    dropout.start_epoch("0", 0)
    dropout.order = np.array([1, 0, 3, 2])
    with pytest.raises(InputError, match=r"layer drop: its input is \(\d, 4, 3\) in a batch of 4") as caught:
        dropout(torch.ones(shape))
    assert "first axis" in caught.value.hint


def test_dropout_at_the_ends() -> None:
    x = torch.ones(4, 4)
    assert torch.equal(StreamDropout(0.0, "d")(x), x)
    assert torch.equal(StreamDropout(1.0, "d")(x), torch.zeros(4, 4))
