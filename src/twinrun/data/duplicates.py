"""Images that a packed task holds more than once: same pixels under two names, across the split, with two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinrun.data.example import Example
from twinrun.study.files import sha256_bytes

LISTED = 200  # groups that a manifest lists; all are counted


def find_duplicates(
    moments: NDArray[np.int64], pixels: Callable[[int], bytes], examples: Sequence[Example], classes: Sequence[str]
) -> dict[str, Any]:
    """Groups of images with equal packed pixels, worst first, as the manifest holds them.

    `moments` has one row of numbers an image, equal where images are equal; `pixels` gives an image's packed bytes,
    asked for only where rows are equal.
    """
    rows = np.ascontiguousarray(moments.reshape(len(moments), -1))
    _, first, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[first.reshape(-1)] > 1)
    groups: dict[str, list[int]] = defaultdict(list)
    for position in suspects.tolist():
        groups[sha256_bytes(pixels(position))].append(position)
    repeated: list[dict[str, Any]] = []
    for members in groups.values():
        if len(members) > 1:
            chosen = [examples[position] for position in members]
            repeated.append(
                {
                    "ids": [example.id for example in chosen],
                    "splits": sorted({example.split for example in chosen}, reverse=True),
                    "classes": [classes[label] for label in sorted({example.label for example in chosen})],
                }
            )
    repeated.sort(key=lambda group: (-len(group["classes"]), -len(group["splits"]), group["ids"]))
    return {
        "groups": len(repeated),
        "images": sum(len(group["ids"]) for group in repeated),
        "across_split": sum(len(group["splits"]) > 1 for group in repeated),
        "contradictory": sum(len(group["classes"]) > 1 for group in repeated),
        "listed": repeated[:LISTED],
    }
