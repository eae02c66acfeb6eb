"""The block of a task's network: one of the project's, one of timm's, or the user's own; and the own one's code."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from twinrun.study.documents import Block
from twinrun.study.errors import InputError
from twinrun.study.files import canonical_json, code_digest, digest
from twinrun.study.layout import Layout

NAMES = ("preactresnet18", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50")
TIMM = "timm:"  # before a name of timm's
_TIMM_NAME = re.compile(r"timm:[a-z0-9_]+(\.[a-z0-9_]+)*")  # nothing that timm would fetch from a hub


class ModelSpec(Block):
    """The network: `name` or `factory`."""

    name: str | None = None  # one of NAMES, or timm:<name>
    factory: Annotated[str, StringConstraints(pattern=r"^models(\.[A-Za-z_]\w*)+:[A-Za-z_]\w*$")] | None = None
    arguments: dict[str, JsonValue] | None = None  # of the factory, or of timm's constructor
    head: str | None = None  # the linear layer that gives the logits; null: the last one
    width: Annotated[float, Field(gt=0, le=64)] = 1.0  # factor on the channels of every layer; of NAMES only
    norm_momentum: Annotated[float, Field(gt=0, le=1)] | None = None  # of batch normalization; null: the model's own
    pretrained: str | None = None  # safetensors or torchvision .pth weights, relative to the params file; width 1 only
    pretrained_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None = None  # or its beginning

    @property
    def words(self) -> str:
        """The network's name and width, or the function that makes it with its arguments; and weights it starts from.

        >>> ModelSpec(factory="models.net:build", arguments={"width": 8}).words
        'models.net:build, width 8'
        >>> ModelSpec(name="resnet18", pretrained="data/imagenet.pth", pretrained_sha256="f37072fd").words
        'resnet18 (from imagenet.pth)'
        """
        given = [f"{key} {value}" for key, value in (self.arguments or {}).items()]
        if self.width != 1.0:
            given.append(f"width {self.width:g}")
        start = f" (from {Path(self.pretrained).name})" if self.pretrained else ""
        return ", ".join([self.name or self.factory or "", *given]) + start

    @field_validator("name")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is None or name in NAMES or _TIMM_NAME.fullmatch(name):
            return name
        near = get_close_matches(name, NAMES, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name!r} is not known; {suggestion}allowed: {', '.join(NAMES)}, timm:<a name of timm's>")

    @field_validator("arguments")
    @classmethod
    def _plain(cls, arguments: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        canonical_json(arguments)  # ValueError for what a digest cannot hold: infinity and NaN
        return arguments

    @model_validator(mode="after")
    def _fitting(self) -> ModelSpec:
        if (self.name is None) == (self.factory is None):
            raise ValueError("give either name or factory")
        own = self.name in NAMES
        if own and (self.arguments or self.head):
            raise ValueError(f"arguments and head are for a factory and for timm's models, not for {self.name}")
        if not own and self.width != 1.0:
            raise ValueError("width is for the project's own models: a factory takes its size from arguments")
        if bool(self.pretrained) != bool(self.pretrained_sha256):
            raise ValueError("pretrained and pretrained_sha256 go together: a run's digest covers the weights by it")
        if self.pretrained and self.width != 1.0:
            raise ValueError("pretrained weights fit width 1.0 only")
        if self.pretrained and self.name == "preactresnet18":
            raise ValueError("there are no pretrained weights for preactresnet18")
        return self


def factory_file(factory: str, root: Path) -> Path:
    """The file of `models.net:build` in the study folder `root`: models/net.py; InputError when it is not there."""
    parts = factory.partition(":")[0].split(".")[1:]
    path = Layout(root).models.joinpath(*parts).with_suffix(".py")
    if not path.is_file():
        hint = f"models.net:build is the function `build` of {Layout(root).models / 'net.py'}; put your file there"
        raise InputError(f"model.factory {factory}: {path}: no such file", hint)
    return path


def models_digest(root: Path) -> str:
    """SHA-256 over every Python file in `models/`: a factory may import its neighbours."""
    folder = Layout(root).models
    return code_digest(folder.parent, [folder.name]) if folder.is_dir() else digest([])
