"""The network of `cracks`: the first five of seven stages of EfficientNet-Lite0, with a head for lines."""

import timm
import torch
from torch import nn

STAGES, FROZEN = 5, 3
CHANNELS = 112  # that the fifth stage gives, on a 16th of the width and height


class CrackNet(nn.Module):
    """Images (n, 3, h, w) to logits (n, classes), from timm's EfficientNet-Lite0.

    Later stages know objects, and concrete has none. Of each channel the head gets the mean and the maximum over the
    tile: a hairline crack is in few places. The stem and the first three stages keep the weights they come with (their
    batch statistics follow the tiles): where the maps are large, nothing is calculated backwards.
    """

    def __init__(self, lite: nn.Module, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(lite.conv_stem, lite.bn1)
        self.stages = lite.blocks[:STAGES]
        self.norm = nn.BatchNorm1d(2 * CHANNELS, affine=False)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * CHANNELS, classes)
        for part in (self.stem, self.stages[:FROZEN]):
            part.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.stages(self.stem(images))
        return self.fc(self.dropout(self.norm(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))))


def build(classes: int) -> nn.Module:
    """What `model.factory` calls; the weights come after, from `model.pretrained`."""
    return CrackNet(timm.create_model("tf_efficientnet_lite0", num_classes=0), classes)
