"""Tensors to the last bit: their digests, and how two of them differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

_ORDERED = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32,
            torch.float64: torch.int64}  # fmt: skip


def tensors_in(value: Any, label: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested lists, tuples and dicts, with where it stands, such as `grads[3]`."""
    if isinstance(value, torch.Tensor):
        yield label, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{label}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, f"{label}[{key!r}]")


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes (n,) uint8 of a tensor's values in row order, on the CPU, wherever and however it is stored."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    return tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8)


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hex SHA-256 over dtype, shape and bytes: -0.0 is not 0.0, and two NaNs may differ."""
    total = hashlib.sha256(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    total.update(raw(tensor).numpy().data)
    return total.hexdigest()


def rows_digest(tensor: torch.Tensor, axis: int = 0) -> str:
    """Hex SHA-256 that forgets the order along `axis`: equal when two tensors have the same rows."""
    moved = tensor.detach().movedim(axis, 0)
    rows = raw(moved).reshape(moved.shape[0], -1).numpy()
    parts = sorted(hashlib.sha256(row.data).digest() for row in rows)
    return hashlib.sha256(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode() + b"".join(parts)).hexdigest()


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

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def difference(first: torch.Tensor, second: torch.Tensor) -> Difference | None:
    """How `second` differs from `first` to the last bit; None when it does not."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return Difference("shape", first.numel(), first.numel(), 0)
    width = first.element_size()
    one, other = (raw(tensor).reshape(-1, width) for tensor in (first, second))
    where = (one != other).any(1)
    count = int(where.sum())
    if not count:
        return None
    a, b = (tensor.detach().cpu().reshape(-1)[where] for tensor in (first, second))
    facts: dict[str, Any] = {"elements": first.numel(), "differ": count, "first_index": int(where.nonzero()[0])}
    finite = torch.isfinite(a) & torch.isfinite(b)
    facts["not_finite"] = count - int(finite.sum())
    ulps = ulp_distance(a[finite], b[finite]) if first.dtype in _ORDERED else None
    if ulps is not None and len(ulps):
        facts |= {"ulps_max": int(ulps.max()), "ulps_median": float(ulps.double().median())}
    return Difference(_kind(first, second, one[where], other[where], a, b), **facts)


def _kind(
    first: torch.Tensor, second: torch.Tensor, one: torch.Tensor, other: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> str:
    if first.dtype != torch.bool and torch.equal(a, -b) and bool((a != b).any()):
        return "sign"
    if first.dim() > 1 and rows_digest(first) == rows_digest(second):
        return "rows in another order"
    if sorted(map(bytes, one.numpy())) == sorted(map(bytes, other.numpy())):
        return "elements in another order"
    return "values"


def ulp_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Units in the last place between two floating-point tensors (n,), element by element, as int64.

    The number of representable values from one to the other: -0.0 and 0.0 are one value here, and for float64
    distances that int64 does not hold are cut off at its end.
    """
    whole = _ORDERED[first.dtype]
    one, other = (_rank(tensor.view(whole).long(), torch.iinfo(whole).max) for tensor in (first, second))
    distance = torch.maximum(one, other) - torch.minimum(one, other)
    # Far apart in float64 the difference wraps around, once at most: to a negative number.
    return torch.where(distance < 0, torch.iinfo(torch.int64).max, distance)


def _rank(bits: torch.Tensor, largest: int) -> torch.Tensor:
    # Floats are ordered as their bits, but negative ones the other way round.
    return torch.where(bits < 0, -(bits & largest), bits)
