"""Two arrays compared to the last bit: how many elements differ, by how much, and which is the first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Name, width in bytes, and the bits of infinity: above them, without the sign, lie the NaNs.
_FLOATS = {
    "float16": (2, 0x7C00),
    "bfloat16": (2, 0x7F80),
    "float32": (4, 0x7F80_0000),
    "float64": (8, 0x7FF0_0000_0000_0000),
}
MOST_ULPS = 1_000_000  # that are shown
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Bits:
    """An array as bytes in C order, with what they mean; also of types that numpy has not, such as bfloat16."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]  # (bytes,)


@dataclass(frozen=True)
class Difference:
    """One place where two values are not the same bits; numbers are None where they have no meaning."""

    path: str
    what: str
    elements: int | None = None  # that differ
    of: int | None = None
    ulps: int | None = None  # largest distance, in units in the last place; numbers only
    absolute: float | None = None  # largest distance

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


def bits_of(value: Any) -> Bits | None:
    """The bits of a numpy array or scalar, or of a torch tensor; None for anything else, arrays of objects too."""
    if isinstance(value, Bits):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return None
        little = array.astype(array.dtype.newbyteorder("="), copy=False)
        data = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
        return Bits(little.dtype.name, array.shape, data)
    # Whoever holds a tensor has imported torch; this package never does, for it takes seconds.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    tensor = value.detach()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    return Bits(
        str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.view(-1).view(torch.uint8).numpy()
    )


def compare_bits(path: str, first: Bits, second: Bits) -> Difference | None:
    """What differs between two arrays, or None: they have the same type, shape and bits."""
    if first.dtype != second.dtype:
        return Difference(path, f"type {first.dtype} against {second.dtype}")
    if first.shape != second.shape:
        return Difference(path, f"shape {list(first.shape)} against {list(second.shape)}")
    if np.array_equal(first.data, second.data):
        return None
    count = prod(first.shape)
    differs = (first.data.reshape(count, -1) != second.data.reshape(count, -1)).any(axis=1)
    elements, place = int(differs.sum()), int(differs.argmax())
    where = ", ".join(str(int(index)) for index in np.unravel_index(place, first.shape))
    ulps, absolute, notes = _distance(first, second, differs)
    by = f", by at most {_ulp_words(ulps)}{absolute:.3g}" if absolute is not None else ""
    values = f"{_element(first, place)} against {_element(second, place)}"
    first_place = f", first at [{where}]: {values}" if first.shape else f": {values}"
    what = "; ".join([f"{elements} of {count} elements differ{by}{first_place}", *notes])
    return Difference(path, what, elements, count, ulps, absolute)


def _ulp_words(ulps: int | None) -> str:
    # Of unrelated numbers the count of steps between them says nothing.
    return "" if ulps is None or ulps > MOST_ULPS else f"{ulps} ulp{'' if ulps == 1 else 's'} or "


def _distance(first: Bits, second: Bits, differs: NDArray[np.bool_]) -> tuple[int | None, float | None, Sequence[str]]:
    """Largest distance in ulps and in value over the elements that differ, and what has none."""
    name = _COMPLEX.get(first.dtype, first.dtype)
    if name not in _FLOATS:
        return None, _integer_distance(first, second, differs), []
    width, infinity = _FLOATS[name]
    unsigned, sign = _UNSIGNED[width], 1 << (8 * width - 1)
    parts = [one.data.view(unsigned).reshape(len(differs), -1)[differs].ravel() for one in (first, second)]
    left, right = (part.astype(np.uint64) for part in parts)
    magnitudes = [part & np.uint64(sign - 1) for part in (left, right)]
    negative = [(part & np.uint64(sign)) != 0 for part in (left, right)]
    nan = [magnitude > infinity for magnitude in magnitudes]
    number = ~(nan[0] | nan[1])
    # As in training/tensors.py: between a number and an infinity there are no steps.
    finite = number & (magnitudes[0] < infinity) & (magnitudes[1] < infinity)
    low, high = np.minimum(*magnitudes), np.maximum(*magnitudes)
    steps = np.where(negative[0] == negative[1], high - low, high + low)
    notes = []
    both = int((nan[0] & nan[1] & (left != right)).sum())
    one_side = int((nan[0] ^ nan[1]).sum())
    zeros = int(((steps == 0) & (left != right) & number).sum())
    notes += [f"{both} are NaN in both, with other bits"] if both else []
    notes += [f"{one_side} are NaN in one of them"] if one_side else []
    notes += [f"{zeros} are 0.0 in one and -0.0 in the other"] if zeros else []
    if not number.any():
        return None, None, notes
    values = [_floats(part[number], name) for part in parts]
    with np.errstate(invalid="ignore"):
        gaps = np.abs(values[0] - values[1])
    gaps = gaps[~np.isnan(gaps)]  # of two infinities
    return int(steps[finite].max()) if finite.any() else None, float(gaps.max(initial=0.0)), notes


def _integer_distance(first: Bits, second: Bits, differs: NDArray[np.bool_]) -> float | None:
    try:
        kind = np.dtype(first.dtype)
    except TypeError:  # such as float8_e4m3fn
        return None
    if kind.kind not in "iu":
        return None
    left, right = (one.data.view(kind)[differs] for one in (first, second))
    # Modulo 2^64, so that the distance of the two ends of int64 does not overflow.
    gap = np.maximum(left, right).astype(np.uint64) - np.minimum(left, right).astype(np.uint64)
    return float(gap.max())


def _floats(raw: NDArray[Any], name: str) -> NDArray[np.float64]:
    if name == "bfloat16":  # the upper half of a float32
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return raw.view(np.dtype(name)).astype(np.float64)


def _element(array: Bits, place: int) -> str:
    width = array.data.size // prod(array.shape)
    raw = array.data[place * width : (place + 1) * width]
    if array.dtype == "bfloat16":
        return str(_floats(raw.view(np.uint16), "bfloat16")[0])
    try:
        kind = np.dtype(array.dtype)
    except TypeError:
        return f"0x{raw.tobytes()[::-1].hex()}"
    return str(raw.view(kind)[0]) if kind.itemsize == width else f"0x{raw.tobytes()[::-1].hex()}"
