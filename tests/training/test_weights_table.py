"""The weights that `twinrun data fetch weights` knows are torchvision's own, by address and name."""

from __future__ import annotations

from torchvision.models import (
    MobileNet_V3_Large_Weights,
    MobileNet_V3_Small_Weights,
    ResNet18_Weights,
    ResNet50_Weights,
)

from twinrun.fetch.publishers import WEIGHTS


def test_the_table_is_torchvisions() -> None:
    kinds = (ResNet18_Weights, ResNet50_Weights, MobileNet_V3_Small_Weights, MobileNet_V3_Large_Weights)
    assert [remote.url for remote in WEIGHTS] == [kind.IMAGENET1K_V1.url for kind in kinds]
    for remote in WEIGHTS:
        assert remote.digest is not None
        assert remote.name == f"weights/{remote.url.rsplit('/', 1)[1]}"
        assert remote.name.endswith(f"-{remote.digest.hexadecimal}.pth")
