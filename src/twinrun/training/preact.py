"""PreActResNet18 for 32x32 images: residual blocks with normalization and activation before each convolution.

He et al. 2016, "Identity mappings in deep residual networks", in the form that CIFAR-10 studies use: a 3x3 stem
without pooling, four stages of two blocks, no normalization after the last. 11,171,146 parameters at width 1 with
ten classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after normalization and ReLU, around a shortcut taken after the first activation."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = functional.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        inner = self.conv1(activated)
        return self.conv2(functional.relu(self.bn2(inner))) + skip


class PreActResNet18(nn.Module):
    """Images (n, 3, h, w) to logits (n, classes); `width` scales the channels of every layer."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = [max(4, round(width * base)) for base in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        blocks, incoming = [], channels[0]
        for stage, outgoing in enumerate(channels):
            blocks.append(PreActBlock(incoming, outgoing, stride=1 if stage == 0 else 2))
            blocks.append(PreActBlock(outgoing, outgoing, stride=1))
            incoming = outgoing
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(incoming, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A mean over both axes, not adaptive pooling: its gradient is deterministic on CUDA.
        return self.linear(self.blocks(self.conv1(x)).mean((2, 3)))
