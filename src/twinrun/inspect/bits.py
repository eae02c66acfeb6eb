"""Arrays and tensors to the last bit: their bytes and digests, which elements differ, by how much and in what way.

numpy does the work. torch is never imported here: whoever holds a tensor has imported it.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Width in bytes, and the bits of infinity: above them, without the sign, lie the NaNs.
_FLOATS = {
    "float16": (2, 0x7C00),
    "bfloat16": (2, 0x7F80),
    "float32": (4, 0x7F80_0000),
    "float64": (8, 0x7FF0_0000_0000_0000),
}
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Bits:
    """An array as bytes in C order, with what they mean; also of types that numpy has not, such as bfloat16."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]  # (bytes,)

    @property
    def count(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def elements(self) -> NDArray[np.uint8]:
        """The bytes element by element, (count, width)."""
        return self.data.reshape(self.count, -1) if self.data.size else np.zeros((self.count, 0), np.uint8)

    def values(self, places: Any = slice(None)) -> NDArray[Any] | None:
        """The numbers at these flat places; None for types that numpy has not. bfloat16 comes as float64."""
        chosen = np.ascontiguousarray(self.elements[places])
        if self.dtype == "bfloat16":  # the upper half of a float32
            with np.errstate(invalid="ignore"):  # of a signaling NaN
                return (
                    (chosen.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32).ravel().astype(float)
                )
        try:
            kind = np.dtype(self.dtype)
        except TypeError:  # such as float8_e4m3fn
            return None
        return chosen.view(kind).reshape(-1) if kind.itemsize == chosen.shape[1] else None


def bits_of(value: Any) -> Bits | None:
    """The bits of a numpy array or scalar, or of a torch tensor; None for anything else, arrays of objects too."""
    if isinstance(value, Bits):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return None
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return Bits(native.dtype.name, array.shape, np.ascontiguousarray(native).reshape(-1).view(np.uint8))
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    tensor = value.detach()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dtype, tensor = tensor.dtype, tensor.int_repr() if tensor.is_quantized else tensor
    flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return Bits(str(dtype).removeprefix("torch."), tuple(tensor.shape), flat.view(torch.uint8).numpy())


def bits_digest(value: Any) -> str:
    """Hex SHA-256 over type, shape and bytes of an array or tensor."""
    bits = array_bits(value)
    total = hashlib.sha256(_header(bits))
    total.update(bits.data.data)
    return total.hexdigest()


def rows_digest(value: Any, axis: int = 0) -> str:
    """Hex SHA-256 that forgets the order along `axis`: equal when two arrays or tensors have the same rows."""
    bits = array_bits(value)
    moved = np.moveaxis(bits.elements.reshape(*bits.shape, -1), axis, 0) if bits.count else bits.elements[:0]
    rows = sorted(hashlib.sha256(row.tobytes()).digest() for row in moved)
    return hashlib.sha256(_header(bits) + b"".join(rows)).hexdigest()


def array_bits(value: Any) -> Bits:
    """`bits_of`, but TypeError for what is no array and no tensor."""
    bits = bits_of(value)
    if bits is None:
        raise TypeError(f"a {type(value).__qualname__} is no array and no tensor")
    return bits


def _header(bits: Bits) -> bytes:
    return f"{bits.dtype}\0{bits.shape}\0".encode()


@dataclass(frozen=True)
class Unequal:
    """The elements of two arrays of one type and shape that are not the same bits.

    Of complex numbers `ulps` and the three last counts are over real and imaginary parts.
    """

    places: NDArray[np.int64]  # flat, ascending
    ulps: NDArray[np.uint64]  # distances in units in the last place, of the numbers that are finite in both
    absolute: float | None  # largest distance; None where there are no two numbers
    not_finite: int  # elements that are not finite in one of them or in both
    nan_in_both: int
    nan_in_one: int
    signs_of_zero: int  # 0.0 in one and -0.0 in the other


def unequal(first: Bits, second: Bits) -> Unequal | None:
    """What differs between two arrays of one type and shape; None: nothing does.

    A distance in ulps is the number of steps from one representable value to the next: -0.0 and 0.0 are one value.
    """
    if np.array_equal(first.data, second.data):
        return None
    places = np.flatnonzero((first.elements != second.elements).any(axis=1))
    name = _COMPLEX.get(first.dtype, first.dtype)
    if name not in _FLOATS:
        return Unequal(places, np.empty(0, np.uint64), _whole_distance(first, second, places), 0, 0, 0, 0)
    width, infinity = _FLOATS[name]
    unsigned, sign = _UNSIGNED[width], 1 << (8 * width - 1)
    raw = [np.ascontiguousarray(array.elements[places]).view(unsigned) for array in (first, second)]  # (differ, parts)
    left, right = (part.astype(np.uint64) for part in raw)
    magnitudes = [part & np.uint64(sign - 1) for part in (left, right)]
    negative = [(part & np.uint64(sign)) != 0 for part in (left, right)]
    nan = [magnitude > infinity for magnitude in magnitudes]
    number = ~(nan[0] | nan[1])
    finite = (magnitudes[0] < infinity) & (magnitudes[1] < infinity)  # to an infinity there are no steps
    low, high = np.minimum(*magnitudes), np.maximum(*magnitudes)
    steps = np.where(negative[0] == negative[1], high - low, high + low)
    apart = left != right
    return Unequal(
        places,
        steps[finite & apart],
        _largest_gap(*(Bits(name, (int(number.sum()),), part[number].view(np.uint8)) for part in raw)),
        int((~finite).any(axis=1).sum()),
        int((nan[0] & nan[1] & apart).sum()),
        int((nan[0] ^ nan[1]).sum()),
        int(((steps == 0) & apart & number).sum()),
    )


def _largest_gap(first: Bits, second: Bits) -> float | None:
    if not first.count:
        return None
    left, right = (array.values() for array in (first, second))
    assert left is not None
    assert right is not None
    with np.errstate(invalid="ignore"):
        gaps = np.abs(left.astype(np.float64) - right.astype(np.float64))
    return float(gaps[~np.isnan(gaps)].max(initial=0.0))  # NaN: of two infinities


def _whole_distance(first: Bits, second: Bits, places: NDArray[np.int64]) -> float | None:
    left, right = first.values(places), second.values(places)
    if left is None or right is None or left.dtype.kind not in "iu":
        return None
    # Modulo 2^64, so that the distance of the two ends of int64 does not overflow.
    gap = np.maximum(left, right).astype(np.uint64) - np.minimum(left, right).astype(np.uint64)
    return float(gap.max())


@dataclass(frozen=True)
class Difference:
    """How two tensors differ; `ulps_*` over the elements that differ and are finite, None where there are none.

    `kind`: `shape`, `rows in another order`, `elements in another order`, `sign`, or `values`.
    """

    kind: str
    elements: int
    differ: int
    not_finite: int  # of those that differ, in either tensor
    ulps_max: int | None = None
    ulps_median: float | None = None
    first_index: int | None = None  # of the flattened tensor


def difference(first: Any, second: Any) -> Difference | None:
    """How `second` differs from `first`, both arrays or tensors, to the last bit; None when it does not."""
    left, right = array_bits(first), array_bits(second)
    if left.dtype != right.dtype or left.shape != right.shape:
        return Difference("shape", left.count, left.count, 0)
    apart = unequal(left, right)
    if apart is None:
        return None
    facts: dict[str, Any] = {"elements": left.count, "differ": len(apart.places), "not_finite": apart.not_finite}
    if len(apart.ulps):
        middle = np.sort(apart.ulps)[(len(apart.ulps) - 1) // 2]
        facts |= {"ulps_max": int(apart.ulps.max()), "ulps_median": float(middle)}
    return Difference(_kind(left, right, apart.places), **facts, first_index=int(apart.places[0]))


def _kind(first: Bits, second: Bits, places: NDArray[np.int64]) -> str:
    left, right = first.values(places), second.values(places)
    if left is not None and right is not None and left.dtype.kind in "iufc":
        with np.errstate(over="ignore"):
            if np.array_equal(left, -right) and (left != right).any():
                return "sign"
    if len(first.shape) > 1 and rows_digest(first) == rows_digest(second):
        return "rows in another order"
    if sorted(map(bytes, first.elements[places])) == sorted(map(bytes, second.elements[places])):
        return "elements in another order"
    return "values"
