"""What every reader gives: classes, examples in a stable order, and a way to load the pixels of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twinrun.study.files import sha256_bytes

Split = Literal["train", "test"]
Image = NDArray[np.uint8]


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
