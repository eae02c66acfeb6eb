"""What every reader gives, classes and examples in a stable order and a way to load one, and which reader it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twinrun.data.archives import Archive
from twinrun.study.files import sha256_bytes
from twinrun.study.schema import CbisDdsm, Cifar10, ImageFolder, Sdnet2018

Split = Literal["train", "test"]
Image = NDArray[np.uint8]
DataBlock = Cifar10 | Sdnet2018 | CbisDdsm | ImageFolder


@dataclass(frozen=True)
class Example:
    """One image: a unique id, its side, the index of its class, and the group that must stay on one side."""

    id: str
    split: Split
    label: int
    group: str
    where: tuple[Any, ...]  # where its pixels are: the reader's own business


@dataclass(frozen=True)
class Index:
    """A data set: train examples first, then test; `load` gives uint8 (height, width, 1 or 3).

    `load` is called in forked processes; it raises DamagedError for an image that cannot be had.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    load: Callable[[Example], Image]
    extra: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # ids left out by `on_error: skip` already, and why


def in_order(examples: list[Example]) -> tuple[Example, ...]:
    """Train first, then test, each by id."""
    return tuple(sorted(examples, key=lambda example: (example.split != "train", example.id)))


def held_out(groups: Iterable[str], test_share: float, split_seed: int) -> set[str]:
    """The groups of the test side: the share, rounded, but of two or more at least one on each side."""
    # A hash gives the same order on every platform, and adding a group does not reorder the others.
    members = sorted((sha256_bytes(f"{split_seed}:{group}".encode()), group) for group in groups)
    count = min(max(int(test_share * len(members) + 0.5), 1), len(members) - 1)
    return {group for _, group in members[:count]}


def read_index(data: DataBlock, archive: Archive, root: Path) -> Index:
    """The index of the data set in `archive`, by the reader that the params name; `root` is the study folder."""
    # Imported here: pydicom is slow to import and only one reader needs it.
    if isinstance(data, Cifar10):
        from twinrun.data.cifar10 import index_cifar10

        return index_cifar10(archive)
    if isinstance(data, Sdnet2018):
        from twinrun.data.sdnet2018 import index_sdnet2018

        return index_sdnet2018(archive, data.test_share, data.split_seed)
    if isinstance(data, ImageFolder):
        from twinrun.data.image_folder import index_image_folder

        return index_image_folder(archive, data, root)
    from twinrun.data.cbis_ddsm import index_cbis_ddsm

    skip = data.on_error == "skip"
    return index_cbis_ddsm(archive, data.view, breast_crop=data.breast_crop, skip_missing=skip)
