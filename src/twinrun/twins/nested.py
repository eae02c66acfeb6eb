"""Nested values compared to the last bit, and the assertion that tests make of it."""

from __future__ import annotations

import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from twinrun.inspect.bits import Bits, bits_of, unequal

SHOWN = 5  # differences in a message
MOST_ULPS = 1_000_000  # that are shown: of unrelated numbers the count of steps between them says nothing


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


def assert_same_bits(first: Any, second: Any) -> None:
    """Raise AssertionError that names every place where the two values differ in a bit.

    For tensors, numpy arrays, modules (parameters and buffers), numbers, bytes, and mappings and sequences of them and
    of texts. Type and shape count, and so do the bits of a NaN and the sign of a zero; the device does not.
    Raises TypeError for an object that has no bits of its own, and for a text: it may be meant as the name of a file.

    >>> assert_same_bits({"w": np.float32([1, 2])}, {"w": np.float32([1, 2])})
    >>> assert_same_bits(np.float32(0.0), np.float32(-0.0))
    Traceback (most recent call last):
    AssertionError: not the same bits: 1 of 1 elements differ, by at most 0 ulps or 0: 0.0 against -0.0; \
1 are 0.0 in one and -0.0 in the other
    """
    __tracebackhide__ = True
    texts = [value for value in (first, second) if isinstance(value, str | os.PathLike)]
    if texts:
        raise TypeError(
            f"assert_same_bits: {str(texts[0])!r} is a text, and no file is opened: give tensors, arrays, modules, "
            "numbers or bytes, or mappings and sequences of them; `twinrun twins` compares files"
        )
    places = list(differences(first, second))
    if not places:
        return
    more = [f"and {len(places) - SHOWN} more places"] if len(places) > SHOWN else []
    lines = [*map(str, places[:SHOWN]), *more]
    raise AssertionError("not the same bits: " + (lines[0] if len(lines) == 1 else "\n  ".join(["", *lines])))


def differences(first: Any, second: Any, path: str = "") -> Iterator[Difference]:
    """Every place where two values differ, in order; TypeError for an object that cannot be compared."""
    first, second = _opened(first), _opened(second)
    arrays = bits_of(first), bits_of(second)
    if arrays[0] is not None and arrays[1] is not None:
        difference = compare_bits(path, arrays[0], arrays[1])
        yield from [difference] if difference else []
    elif isinstance(first, Mapping) and isinstance(second, Mapping):
        yield from _mappings(first, second, path)
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        yield from _sequences(first, second, path)
    else:
        yield from _scalars(first, second, path)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values that `differences` would compare in it, each with its path."""
    value = _opened(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def snapshot(value: Any) -> Any:
    """A copy of the bits, which stays as it is when the value's tensors and arrays are changed in place."""
    value = _opened(value)
    if isinstance(value, Mapping):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(snapshot, value))
    bits = bits_of(value)
    return value if bits is None else Bits(bits.dtype, bits.shape, bits.data.copy())


def digest(value: Any) -> str:
    """Hex SHA-256 over path, type, shape and bits of all that `assert_same_bits` compares; TypeError as there."""
    total = hashlib.sha256()
    for path, leaf in sorted(leaves(value), key=lambda item: item[0]):
        bits = bits_of(leaf)
        if bits is None:
            list(_scalars(leaf, leaf, path))  # refuses what has no bits
            total.update(f"{path}\0{type(leaf).__name__}\0{_exact(leaf)}\0".encode())
        else:
            total.update(f"{path}\0{bits.dtype}\0{bits.shape}\0".encode())
            total.update(bits.data.tobytes())
    return total.hexdigest()


def _exact(value: Any) -> str:
    return value.hex() if isinstance(value, float | bytes) else repr(value)


def _opened(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return dict(chain(value.named_parameters(), value.named_buffers()))
    return vars(value) if isinstance(value, Namespace) else value


def _mappings(first: Mapping[Any, Any], second: Mapping[Any, Any], path: str) -> Iterator[Difference]:
    for key in chain(first, (key for key in second if key not in first)):
        inner = f"{path}[{key!r}]"
        if key not in first or key not in second:
            yield Difference(inner, f"only in the {'first' if key in first else 'second'}")
        else:
            yield from differences(first[key], second[key], inner)


def _sequences(first: Any, second: Any, path: str) -> Iterator[Difference]:
    if type(first) is not type(second):
        yield Difference(path, f"type {type(first).__name__} against {type(second).__name__}")
    if len(first) != len(second):
        yield Difference(path, f"{len(first)} items against {len(second)}")
    for index, (value, other) in enumerate(zip(first, second, strict=False)):
        yield from differences(value, other, f"{path}[{index}]")


def _scalars(first: Any, second: Any, path: str) -> Iterator[Difference]:
    for value in (first, second):
        if not isinstance(value, str | bytes | int | float | complex | type(None)) and bits_of(value) is None:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise TypeError(f"{path or 'the value'}: a {kind} has no bits to compare; give its arrays or numbers")
    if type(first) is not type(second):
        yield Difference(path, f"type {_kind(first)} against {_kind(second)}: {_short(first)} against {_short(second)}")
    elif isinstance(first, float | complex):
        difference = compare_bits(path, _number(first), _number(second))
        if difference:
            by = f", {difference.ulps} ulps" if difference.ulps and difference.ulps <= MOST_ULPS else ""
            yield Difference(path, f"{first!r} against {second!r}{by}", 1, 1, difference.ulps, difference.absolute)
    elif isinstance(first, bytes):
        yield from _bytes(first, second, path)
    elif first != second:
        gap = float(abs(first - second)) if isinstance(first, int) and max(abs(first), abs(second)) < 2**1000 else None
        yield Difference(path, f"{_short(first)} against {_short(second)}", 1, 1, None, gap)


def _number(value: complex) -> Any:
    return bits_of(np.complex128(value) if isinstance(value, complex) else np.float64(value))


def _kind(value: Any) -> str:
    bits = bits_of(value)
    return f"{bits.dtype} array" if bits else type(value).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bytes(first: bytes, second: bytes, path: str) -> Iterator[Difference]:
    if first == second:
        return
    length = min(len(first), len(second))
    unequal = np.frombuffer(first, np.uint8, length) != np.frombuffer(second, np.uint8, length)
    place = int(unequal.argmax()) if unequal.any() else length
    count = int(unequal.sum()) + abs(len(first) - len(second))
    sizes = f"{len(first)} bytes" if len(first) == len(second) else f"{len(first)} against {len(second)} bytes"
    yield Difference(path, f"{sizes}; {count} differ, the first at offset {place}", count, max(len(first), len(second)))


def compare_bits(path: str, first: Bits, second: Bits) -> Difference | None:
    """What differs between two arrays, in words, or None: they have the same type, shape and bits."""
    if first.dtype != second.dtype:
        return Difference(path, f"type {first.dtype} against {second.dtype}")
    if first.shape != second.shape:
        return Difference(path, f"shape {list(first.shape)} against {list(second.shape)}")
    apart = unequal(first, second)
    if apart is None:
        return None
    elements, place = len(apart.places), int(apart.places[0])
    ulps = int(apart.ulps.max()) if len(apart.ulps) else None
    steps = "" if ulps is None or ulps > MOST_ULPS else f"{ulps} ulp{'' if ulps == 1 else 's'} or "
    by = f", by at most {steps}{apart.absolute:.3g}" if apart.absolute is not None else ""
    index = ", ".join(str(int(index)) for index in np.unravel_index(place, first.shape))
    where = f", first at [{index}]: " if first.shape else ": "
    values = f"{_element(first, place)} against {_element(second, place)}"
    notes = {
        "NaN in both, with other bits": apart.nan_in_both,
        "NaN in one of them": apart.nan_in_one,
        "0.0 in one and -0.0 in the other": apart.signs_of_zero,
    }
    what = f"{elements} of {first.count} elements differ{by}{where}{values}"
    what = "; ".join([what, *(f"{count} are {words}" for words, count in notes.items() if count)])
    return Difference(path, what, elements, first.count, ulps, apart.absolute)


def _element(array: Bits, place: int) -> str:
    value = array.values([place])
    if value is None:
        return f"0x{array.elements[place].tobytes()[::-1].hex()}"
    return str(value[0])
