"""A small network of one's own, for twinrun: `model: {factory: "models.net:build", arguments: {channels: 16}}`."""

from torch import nn


def build(classes: int, channels: int = 16, dropout: float = 0.2) -> nn.Module:
    """Images (n, 3, h, w) to logits (n, classes): three convolutions, a mean over the picture, a linear head."""
    layers: list[nn.Module] = []
    incoming = 3
    for outgoing in (channels, 2 * channels, 4 * channels):
        layers += [nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU()]
        layers += [nn.AvgPool2d(2)]
        incoming = outgoing
    return nn.Sequential(*layers, GlobalMean(), nn.Dropout(dropout), nn.Linear(incoming, classes))


class GlobalMean(nn.Module):
    """The mean over both axes: its gradient is deterministic on CUDA, that of adaptive pooling is not."""

    def forward(self, x):
        """(n, c, h, w) to (n, c)."""
        return x.mean((2, 3))
