"""From free to deterministic execution, one flag at a time: the rungs that `twinrun cost` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twinrun.study.flags import NumericFlags

BASE = "free"
CONTROL = "free_again"  # the same as BASE: its ratio must not differ from 1, or the measurement is worth nothing
LEAN = "deterministic_algorithms"  # the first rung whose bits are the same each time: what det runs use


def ladder(*, tf32: bool) -> dict[str, NumericFlags]:
    """Each rung's flags, every one with those before it; the last turns TF32 off, where it is on."""
    free = NumericFlags(tf32=tf32)
    rungs = {BASE: free, CONTROL: free}
    steps: list[tuple[str, dict[str, bool]]] = [
        ("benchmark_off", {"cudnn_benchmark": False}),
        ("cudnn_deterministic", {"cudnn_deterministic": True}),
        ("cublas_workspace", {"cublas_workspace": True}),
        (LEAN, {"deterministic_algorithms": True}),
        ("memory_fill", {"fill_uninitialized_memory": True}),
    ]
    if tf32:
        # Without the memory fill again, whose cost would hide that of the precision.
        steps.append(("tf32_off", {"fill_uninitialized_memory": False, "tf32": False}))
    flags = free
    for name, change in steps:
        flags = replace(flags, **change)
        rungs[name] = flags
    return rungs


def rung_before(rungs: Sequence[str]) -> dict[str, str]:
    """The rung that each one adds a single flag to; the control adds none to the first.

    >>> rung_before(["free", "free_again", "benchmark_off"])
    {'benchmark_off': 'free'}
    """
    steps = [rung for rung in rungs if rung != CONTROL]
    before = dict(zip(steps[1:], steps, strict=False))
    return {rung: LEAN if rung == "tf32_off" else lower for rung, lower in before.items()}
