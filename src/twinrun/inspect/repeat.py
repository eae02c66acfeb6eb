"""One call of an operation, to be done again: with copies of its arguments, and in another process without pickle."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch.utils._pytree import tree_map

from twinrun.inspect.bits import bits_digest
from twinrun.inspect.injected.twinrun_operations import SCRATCH, tensors_in
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.files import has_room, read_json, write_bytes, write_json
from twinrun.training.numerics import set_flags

# Instruction sets of the processor, from the oldest on, and the features without which there is nothing to compare.
INSTRUCTION_SETS: dict[str, tuple[Mapping[str, str], frozenset[str]]] = {
    "SSE": ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, frozenset()),
    "AVX2": ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, frozenset({"avx2"})),
    "AVX-512": (
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ),
}
_KINDS = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


def copied(value: Any) -> Any:
    """Nested arguments with every tensor cloned, so that a call that writes into them leaves the first as they are."""
    return tree_map(lambda item: item.detach().clone() if isinstance(item, torch.Tensor) else item, value)


def call_digests(function: Any, args: Any, kwargs: Any) -> list[str]:
    """Call with copies; digests of what it returns, then of its arguments, which it may have written."""
    args, kwargs = copied(args), copied(kwargs)
    result = function(*args, **kwargs)
    if (scratch := SCRATCH.get(function._schema.name)) is not None:
        result = result[:scratch] + result[scratch + 1 :]
    return [bits_digest(tensor) for _, tensor in [*tensors_in(result), *tensors_in(args), *tensors_in(kwargs)]]


def save_call(folder: Path, number: int, function: Any, args: Any, kwargs: Any) -> bool:
    """Write the call as `<number>.json` and `.safetensors`; False, and nothing written, where JSON cannot say it.

    Raises InputError when the disk has no room for the tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        body = json.loads(json.dumps(_plain([list(args), dict(kwargs)], tensors)))
    except TypeError:
        return False
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if not has_room(folder, size):
        raise InputError(
            f"{folder}: no room for {size / 1e6:.0f} MB of an operation's inputs",
            "set TMPDIR to a folder on another disk, or audit with a smaller batch",
        )
    write_bytes(folder / f"{number}.safetensors", save(tensors))
    write_json(
        folder / f"{number}.json", {"name": function._schema.name, "overload": function._overloadname, "call": body}
    )
    return True


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().clone(memory_format=torch.contiguous_format)
        # Strides are part of the call: a transposed matrix takes another way through the library.
        strides = None if value.is_contiguous() else list(value.stride())
        return {"kind": "tensor", "value": key, "strides": strides}
    if isinstance(value, (list, tuple)):
        return [_plain(item, tensors) for item in value]
    if isinstance(value, dict):
        return {"kind": "dict", "value": {key: _plain(item, tensors) for key, item in value.items()}}
    if isinstance(value, torch.device):
        return {"kind": "device", "value": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"kind": "float", "value": str(value)}
    for kind, type_ in _KINDS.items():
        if isinstance(value, type_):
            return {"kind": kind, "value": str(value).removeprefix("torch.")}
    return value


def _restored(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    content = value["value"]
    match value["kind"]:
        case "tensor":
            tensor = tensors[content]
            if value["strides"] and 0 not in value["strides"]:
                tensor = torch.empty_strided(tensor.shape, value["strides"], dtype=tensor.dtype).copy_(tensor)
            return tensor
        case "dict":
            return {key: _restored(item, tensors) for key, item in content.items()}
        case "device":
            return torch.device(content)
        case "float":
            return float(content)
    return getattr(torch, content)


def repeat_saved(folder: Path) -> dict[str, list[str]]:
    """Do every call in `folder` again in this process; digests by its number."""
    digests = {}
    set_flags({"cpu_threads": 1})
    for path in sorted(folder.glob("*.json")):
        call = read_json(path)
        namespace, _, name = call["name"].partition("::")
        function = getattr(getattr(getattr(torch.ops, namespace), name), call["overload"] or "default")
        tensors = load_file(path.with_suffix(".safetensors"))
        args, kwargs = (_restored(part, tensors) for part in call["call"])
        digests[path.stem] = call_digests(function, args, kwargs)
    return digests


def repeat_elsewhere(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The saved calls in a fresh process for each instruction set that this processor has; digests by its name."""
    results = {}
    for name, (variables, needed) in INSTRUCTION_SETS.items():
        if not needed <= _features():
            continue
        done = subprocess.run(
            [sys.executable, "-m", "twinrun", "repeat-calls", str(folder)],
            env=dict(os.environ) | dict(variables), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise IncompleteError(f"operations could not be repeated with {name}: {done.stderr.strip()[-800:]}")
        results[name] = json.loads(done.stdout)
    return results


def _features() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), ":")
    return frozenset(line.split(":", 1)[1].split())
