"""Which GPUs a launcher's processes may use, without torch, and how many processes that makes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from twinrun.launch.processes import usable_cores


def places(device: str, jobs: int | None, gpus: Sequence[str] = ()) -> tuple[int, list[str]]:
    """How many processes at a time, and the GPUs that they take turns on: `jobs` and `gpus` where they are given.

    Else every visible GPU gets one process: two would slow each other down, and neither's time could be used. On a
    `device` of `cpu`, and of `auto` where there is no GPU, every core does.
    """
    visible = list(gpus) or ([] if device == "cpu" else visible_gpus())
    return jobs or len(visible) or (1 if device == "cuda" else usable_cores()), visible


def visible_gpus() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES for each GPU, or MIG slice, that a process started here would see."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    there = [] if done.returncode else listed(done.stdout)
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None or not there:
        return there
    names = []
    for name in map(str.strip, allowed.split(",")):
        if not name or name.startswith("-"):  # CUDA reads no further
            break
        names.append(name)
    return names


def listed(text: str) -> list[str]:
    """The UUIDs in what `nvidia-smi -L` prints: of the cards, and of its slices in place of a card that is cut.

    >>> listed("GPU 0: A100 (UUID: GPU-1)\\n  MIG 3g.20gb Device 0: (UUID: MIG-2)\\nGPU 1: A100 (UUID: GPU-3)\\n")
    ['MIG-2', 'GPU-3']
    """
    names: list[str] = []
    card = ""
    for line in text.splitlines():
        match = re.search(r"\(UUID: ([^)]+)\)", line)
        if not match:
            continue
        if line.startswith("GPU "):
            card = match[1]
        elif names[-1:] == [card]:
            names.pop()
        names.append(match[1])
    return names
