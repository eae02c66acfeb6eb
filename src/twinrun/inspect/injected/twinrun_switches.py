"""The switches of torch that `twinrun cost -- CMD` compares: set in a foreign program, and read back.

For runs training/numerics.py owns them; it is out of reach here, where the environment has torch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import deterministic as memory  # its one switch is a property that type checkers do not see


def switches() -> dict[str, bool | int]:
    """What is in force now; memory is filled in deterministic mode alone."""
    return {
        "cpu_threads": torch.get_num_threads(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "fill_uninitialized_memory": memory.fill_uninitialized_memory  # type: ignore[attr-defined]
        and torch.are_deterministic_algorithms_enabled(),
        "attention_math": not any(getattr(torch.backends.cuda, f"{name}_enabled")() for name in _fused()),
    }


def switch(wanted: dict[str, Any]) -> None:
    """Bring these in force."""
    for name, value in wanted.items():
        _SET[name](value)


def _fused() -> list[str]:
    """The attention kernels beside the one that is spelled out in plain operations."""
    return [n for n in ("flash_sdp", "mem_efficient_sdp", "cudnn_sdp") if hasattr(torch.backends.cuda, f"enable_{n}")]


def _set_attention(math: bool) -> None:
    for name in _fused():
        getattr(torch.backends.cuda, f"enable_{name}")(not math)


_SET: dict[str, Callable[[Any], None]] = {
    "cpu_threads": torch.set_num_threads,
    "cudnn_benchmark": lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    "cudnn_deterministic": lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    "deterministic_algorithms": torch.use_deterministic_algorithms,
    "fill_uninitialized_memory": lambda value: setattr(memory, "fill_uninitialized_memory", value),
    "attention_math": _set_attention,
}
