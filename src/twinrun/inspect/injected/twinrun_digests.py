"""Exact digests of tensors, computed on the device that they are on: 64 bits of a tensor's bytes, its type and shape.

A single changed word of 8 bytes always changes the digest; any other change (elements swapped, signs turned) is missed
with a probability of about 2^-31. Nothing is drawn, and no flag of the program is touched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

Mixed = tuple[torch.Tensor, str]  # a word on the device, and a digest of types and shapes

_Result = TypeVar("_Result")
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|ALLOC(ATION)?_FAILED")  # as training/torch_errors.py has it
_WORD = 8
_SHIFT = 33  # not half a word: or the changed signs of two float32 in one word would cancel
# Words at a time: on a CPU what stays in the cache, and on the near side of where torch starts threads for it.
_CPU_CHUNK, _CHUNK = 1 << 15, 1 << 22
_tables: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}


def digests(mixed: Iterable[Mixed]) -> list[str]:
    """The texts of what `mix` made, with one transfer from each device."""
    mixed = list(mixed)
    with torch.inference_mode(False), torch.no_grad():
        numbers: dict[int, int] = {}
        for device in {word.device for word, _ in mixed}:
            places = [place for place, (word, _) in enumerate(mixed) if word.device == device]
            numbers.update(zip(places, torch.stack([mixed[place][0] for place in places]).tolist(), strict=True))
    return [f"{numbers[place] % (1 << 64):016x}{header}" for place, (_, header) in enumerate(mixed)]


def digest(tensor: torch.Tensor) -> str:
    """The digest of one tensor."""
    return digests([mix([tensor])])[0]


def mix(tensors: list[torch.Tensor]) -> Mixed:
    """One digest of all these tensors in their order, still on their device."""
    with torch.inference_mode(False), torch.no_grad():
        by_device: dict[torch.device, list[torch.Tensor]] = {}
        for tensor in tensors:
            for words in _words(tensor):
                by_device.setdefault(words.device, []).append(words)
        sums = [_mixed(_joined(words)) for words in by_device.values()]
        if not sums:
            word = torch.zeros((), dtype=torch.int64, device="cpu")
        else:
            word = sums[0] if len(sums) == 1 else _mixed([torch.stack([each.cpu() for each in sums])])
    shapes = "".join(f"{tensor.dtype}{tuple(tensor.shape)}" for tensor in tensors)
    return word, hashlib.blake2b(shapes.encode(), digest_size=8).hexdigest()


def if_it_has_bytes(compute: Callable[[], _Result]) -> _Result | None:
    """What `compute` makes of a tensor; None for one without bytes to look at, such as one on the device `meta`."""
    try:
        return compute()
    except (NotImplementedError, RuntimeError) as error:  # what torch raises for a tensor without storage, by its kind
        # Memory that ran out is a RuntimeError, too, on a CPU told by its words alone: without digests two twins would
        # look equal.
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
            raise
        return None


def _words(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The bytes in C order as whole numbers of 64 bits, the last filled up with zeros."""
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):  # a shard of a distributed tensor
        tensor = tensor.to_local()
    if tensor.layout == torch.sparse_coo:
        return _words(tensor._indices()) + _words(tensor._values())
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.int_repr() if tensor.is_quantized else tensor
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    whole = flat.numel() - flat.numel() % _WORD
    if flat.storage_offset() % _WORD:
        flat = flat.clone()
    words = [flat[:whole].view(torch.int64)] if whole else []
    if whole < flat.numel():
        rest = torch.zeros(_WORD, dtype=torch.uint8, device=flat.device)
        rest[: flat.numel() - whole] = flat[whole:]
        words.append(rest.view(torch.int64))
    return words


def _joined(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same words in pieces of at most a chunk, small neighbours put together."""
    size = _CPU_CHUNK if parts[0].device.type == "cpu" else _CHUNK
    pieces: list[torch.Tensor] = []
    waiting: list[torch.Tensor] = []
    filled = 0
    for part in (piece for whole in parts for piece in whole.split(size)):
        if waiting and filled + part.numel() > size:
            pieces.append(torch.cat(waiting) if len(waiting) > 1 else waiting[0])
            waiting, filled = [], 0
        waiting.append(part)
        filled += part.numel()
    return [*pieces, torch.cat(waiting) if len(waiting) > 1 else waiting[0]]


def _mixed(pieces: list[torch.Tensor]) -> torch.Tensor:
    """The pieces as one word: of each the sum, modulo 2^64, of its words times odd numbers that depend on the place."""
    factors, room = _table(pieces[0].device)
    sums = []
    for piece in pieces:
        count = piece.numel()
        mixed = room[:count]
        # The upper bits are mixed into the lower (which can be undone), or a changed sign would stay in the last bit.
        torch.bitwise_right_shift(piece, _SHIFT, out=mixed)
        mixed.bitwise_and_((1 << (64 - _SHIFT)) - 1).bitwise_xor_(piece).mul_(factors[:count])
        sums.append(mixed.sum())
    return sums[0] if len(sums) == 1 else _mixed(_joined([torch.stack(sums)]))


def _table(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    if device not in _tables:
        generator = torch.Generator("cpu").manual_seed(1)
        size = _CPU_CHUNK if device.type == "cpu" else _CHUNK
        drawn = torch.randint(-(1 << 62), 1 << 62, (size,), generator=generator, dtype=torch.int64, device="cpu")
        factors = (2 * drawn + 1).to(device)
        _tables[device] = factors, torch.empty_like(factors)
    return _tables[device]
