"""The networks of a study by name, with a width factor; initialized from whatever the global generators hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from twinrun.study.errors import InputError
from twinrun.study.files import sha256_file
from twinrun.study.schema_model import TIMM, ModelSpec
from twinrun.training.own_models import HEAD, call_factory, check_model, create_timm
from twinrun.training.torch_files import load_tensors

NO_STATE = "it must be a state_dict, written by torch.save or safetensors"


def build_model(spec: ModelSpec, classes: int, root: Path = Path(), image_size: int = 64) -> nn.Module:
    """The network for (n, 3, image_size, image_size) images; `root` is the study folder, for models/ and weights.

    Raises InputError for a model from outside that cannot be made or is not what `own_models.call_factory` says.
    """
    model = _architecture(spec, classes, root)
    if spec.factory or str(spec.name).startswith(TIMM):
        setattr(model, HEAD, check_model(model, spec, classes, image_size, root))
    if spec.norm_momentum is not None:
        # MobileNetV3's own 0.01 averages over hundreds of steps: too slow for a run that has but a hundred.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = spec.norm_momentum
    if spec.pretrained:
        _load_body(model, root / spec.pretrained, spec.pretrained_sha256 or "")
    return model


def _architecture(spec: ModelSpec, classes: int, root: Path) -> nn.Module:
    if spec.factory:
        return call_factory(spec.factory, root, classes, spec.arguments or {})
    assert spec.name is not None  # ModelSpec has one or the other
    if spec.name.startswith(TIMM):
        return create_timm(spec.name.removeprefix(TIMM), classes, spec.arguments or {})
    if spec.name == "preactresnet18":
        return PreActResNet18(classes, spec.width)
    # torchvision takes a second to import: only for runs that need it.
    import torchvision.models as zoo

    if spec.name.startswith("mobilenet"):
        mobilenet: nn.Module = getattr(zoo, spec.name)(width_mult=spec.width, num_classes=classes)
        return mobilenet
    block, depths = {
        "resnet18": (zoo.resnet.BasicBlock, (2, 2, 2, 2)),
        "resnet50": (zoo.resnet.Bottleneck, (3, 4, 6, 3)),
    }[spec.name]
    return ThinResNet(block, depths, classes, spec.width)


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
    """Images (n, 3, h, w) to logits (n, classes); `width` scales the channels of every layer.

    He et al. 2016, "Identity mappings in deep residual networks", in the form that CIFAR-10 studies use: a 3x3 stem
    without pooling, four stages of two blocks, no normalization after the last.
    """

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


class ThinResNet(nn.Module):
    """torchvision's ResNet with scaled channels: its blocks, its parameter names, and at width 1 its function."""

    def __init__(self, block: Any, depths: tuple[int, ...], classes: int, width: float) -> None:
        super().__init__()
        stem, *planes = (max(4, round(width * base)) for base in (64, 64, 128, 256, 512))
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        incoming = stem
        for stage, (plane, depth) in enumerate(zip(planes, depths, strict=True)):
            outgoing, layers = plane * block.expansion, []
            for position in range(depth):
                stride = 2 if stage and not position else 1
                adapt = None
                if stride != 1 or incoming != outgoing:
                    adapt = nn.Sequential(
                        nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing)
                    )
                layers.append(block(incoming, plane, stride, adapt))
                incoming = outgoing
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))  # as torchvision names them
        self.fc = nn.Linear(incoming, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def head(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the classification head: the linear layer that was named, else the last one."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    named = getattr(model, HEAD, None)
    linear = [(name, module) for name, module in linear if named in (None, name)]
    if not linear:
        raise InputError("the model has no linear layer, so its head cannot be recorded")
    return linear[-1]


def _load_body(model: nn.Module, path: Path, sha256: str) -> None:
    """Load every weight but the head's, whose number of classes is the study's own."""
    if not path.is_file():
        raise InputError(f"model.pretrained: {path}: no such file")
    if not (actual := sha256_file(path)).startswith(sha256):
        raise InputError(f"model.pretrained: {path}: its SHA-256 is {actual}, the params say {sha256}")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"model.pretrained: {path}: {error}", NO_STATE) from error
    if not isinstance(state, dict):
        raise InputError(f"model.pretrained: {path} holds a {type(state).__name__}", NO_STATE)
    own, (head_name, _) = model.state_dict(), head(model)
    own_head = {f"{head_name}.weight", f"{head_name}.bias"}
    wrong = sorted(k for k in own if k not in own_head and getattr(state.get(k), "shape", None) != own[k].shape)
    if wrong:
        raise InputError(
            f"model.pretrained: {path} does not fit the model: {', '.join(wrong[:5])}",
            "weights of the same architecture at width 1 are needed",
        )
    model.load_state_dict({k: own[k] if k in own_head else state[k] for k in own})
