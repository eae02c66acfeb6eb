"""What every reader gives, classes and examples in a stable order and a way to load one, and which reader it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twinrun.data.archives import Archive
from twinrun.study.schema import CbisDdsm, Cifar10, Sdnet2018

Split = Literal["train", "test"]
Image = NDArray[np.uint8]
DataBlock = Cifar10 | Sdnet2018 | CbisDdsm


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


def read_index(data: DataBlock, archive: Archive) -> Index:
    """The index of the data set in `archive`, by the reader that the params name."""
    # Imported here: pydicom is slow to import and only one reader needs it.
    if isinstance(data, Cifar10):
        from twinrun.data.cifar10 import index_cifar10

        return index_cifar10(archive)
    if isinstance(data, Sdnet2018):
        from twinrun.data.sdnet2018 import index_sdnet2018

        return index_sdnet2018(archive, data.test_share, data.split_seed)
    from twinrun.data.cbis_ddsm import index_cbis_ddsm

    skip = data.on_error == "skip"
    return index_cbis_ddsm(archive, data.view, breast_crop=data.breast_crop, skip_missing=skip)
