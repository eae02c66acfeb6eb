"""Differences planted on purpose, so that a comparison shows that it can see one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinrun.inspect.bits import Bits, bits_of

Elements = NDArray[np.uint8]  # (elements, bytes of each), little-endian
Change = Callable[[Elements], Elements | None]  # None: there is nothing to change


def flip_lowest_bit(elements: Elements) -> Elements | None:
    """The first element moved by its last bit: of a number, one unit in the last place."""
    if not elements.size:
        return None
    changed = elements.copy()
    changed[0, 0] ^= 1
    return changed


def swap_two(elements: Elements) -> Elements | None:
    """The first element swapped with the first one that differs from it."""
    different = np.flatnonzero((elements != elements[:1]).any(axis=1)) if elements.size else np.empty(0, np.intp)
    if not different.size:
        return None
    changed = elements.copy()
    changed[[0, different[0]]] = changed[[different[0], 0]]
    return changed


def plant(value: Any, change: Change) -> Any | None:
    """A copy of nested contents with `change` made in the first place that takes it; None where none does."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            planted = plant(inner, change)
            if planted is not None:
                return {**value, key: planted}
        return None
    if isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            planted = plant(inner, change)
            if planted is not None:
                return type(value)([*value[:index], planted, *value[index + 1 :]])
        return None
    return _leaf(value, change)


def _leaf(value: Any, change: Change) -> Any | None:
    if isinstance(value, bytes):
        changed = change(np.frombuffer(value, np.uint8)[:, None])
        return None if changed is None else changed.tobytes()
    if isinstance(value, float):
        changed = change(np.array([value], np.float64).view(np.uint8).reshape(1, 8))
        return None if changed is None else float(changed.view(np.float64)[0, 0])
    array = bits_of(value)
    if array is None:
        return None
    count = int(np.prod(array.shape))
    changed = change(array.data.reshape(count, -1)) if count else None
    return None if changed is None else Bits(array.dtype, array.shape, changed.reshape(-1))
