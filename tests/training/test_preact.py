"""The pre-activation network: its blocks by their definition, the whole by its blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from twinrun.training.preact import PreActBlock, PreActResNet18


def normalized(x: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the batch in each channel."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize(("incoming", "outgoing", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 8, 2)])
def test_a_block_adds_its_shortcut(incoming: int, outgoing: int, stride: int) -> None:
    block = PreActBlock(incoming, outgoing, stride)
    x = torch.rand(3, incoming, 8, 8, generator=torch.Generator().manual_seed(1))
    activated = normalized(x).relu()
    inner = functional.conv2d(activated, block.conv1.weight, stride=stride, padding=1)
    branch = functional.conv2d(normalized(inner).relu(), block.conv2.weight, padding=1)
    plain = incoming == outgoing and stride == 1
    skip = x if plain else functional.conv2d(activated, block.shortcut.weight, stride=stride)  # type: ignore[union-attr]
    torch.testing.assert_close(block(x), branch + skip)


def test_the_network_is_its_stem_blocks_mean_and_head() -> None:
    model = PreActResNet18(classes=5, width=0.125).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    seen = model.conv1(x)
    shapes = []
    for block in model.blocks:
        seen = block(seen)
        shapes.append(tuple(seen.shape[1:]))
    assert shapes == [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2 + [(64, 2, 2)] * 2
    torch.testing.assert_close(model(x), model.linear(seen.flatten(2).mean(2)))
    assert sum(p.numel() for p in PreActResNet18(classes=10).parameters()) == 11_171_146
