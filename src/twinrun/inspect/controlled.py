"""`twinrun.controlled`: seeds and deterministic mode for a block of the user's own code, all put back at its end."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from twinrun.study.errors import InputError
from twinrun.study.pins import ARM, CUBLAS, CUBLAS_DETERMINISTIC, NCCL, PINNED, SEED
from twinrun.training.numerics import Flags, flags_kept, read_flags, set_flags

# Read once, when torch or a library below it starts; the other pinned ones are about Python and its packages.
_BEFORE_TORCH = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Control:
    """What is in force in the block."""

    seed: int
    deterministic: bool
    flags: Flags
    not_guaranteed: tuple[str, ...]  # variables that had to be set before torch was imported, as NAME=VALUE


@contextmanager
def controlled(seed: int | None = None, *, deterministic: bool | None = None) -> Iterator[Control]:
    """Seed Python, numpy and torch and choose deterministic or ordinary mode for a block; put all back at its end.

    Without `seed`, that of `twinrun twins` (TWINRUN_SEED), else 0; without `deterministic`, true unless the arm of
    `twinrun twins` (TWINRUN_ARM) is nd or all. Deterministic mode: torch's deterministic algorithms (an operation that
    has none raises), cuDNN deterministic and without autotuning, one CPU thread, the workspace of cuBLAS.

    Variables that libraries read when torch is imported cannot be set any more. Where they are not, the same bits are
    to be had on this machine only: a warning names them. Where CUDA is started in a deterministic block, the variable
    of cuBLAS's workspace stays set, as it stays in force. Raises InputError for a seed outside [0, 2^32), and in
    deterministic mode when CUDA was started without CUBLAS_WORKSPACE_CONFIG, which cannot be made good.
    """
    chosen = _seed() if seed is None else seed
    if not isinstance(chosen, int | np.integer) or not 0 <= chosen < 2**32:
        hint = "numpy's generator takes no other"
        raise InputError(f"controlled: seed {chosen!r} is not a whole number in [0, 2^32)", hint)
    chosen = int(chosen)
    fixed = os.environ.get(ARM) not in ("nd", "all") if deterministic is None else deterministic
    missing = _missing() if fixed else ()
    if fixed and torch.cuda.is_initialized() and os.environ.get(CUBLAS) not in (CUBLAS_DETERMINISTIC, ":16:8"):
        raise InputError(
            f"controlled: CUDA was started without {CUBLAS}: cuBLAS may give other bits each time",
            f"set {CUBLAS}={CUBLAS_DETERMINISTIC} before, or enter the block before anything uses CUDA",
        )
    if missing:
        warnings.warn(
            f"twinrun.controlled: the same bits are guaranteed on this kind of CPU only, because torch was started "
            f"without {' '.join(missing)}; `twinrun twins --arm det -- python ...` sets them, or your shell",
            stacklevel=3,
        )
    with flags_kept(), _generators_kept(), _set_variables(NCCL if fixed else {}):
        set_flags(_mode(fixed))
        torch.use_deterministic_algorithms(fixed)  # also what a user's block compiles
        random.seed(chosen)
        np.random.seed(chosen)  # noqa: NPY002 - the legacy generator is the one that a user's code may use
        torch.manual_seed(chosen)
        yield Control(chosen, fixed, read_flags(), missing)


def _seed() -> int:
    text = os.environ.get(SEED, "0")
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{SEED}={text!r} is no whole number") from error


def _missing() -> tuple[str, ...]:
    return tuple(f"{name}={PINNED[name]}" for name in _BEFORE_TORCH if os.environ.get(name) != PINNED[name])


def _mode(deterministic: bool) -> Flags:
    flags: Flags = {
        "deterministic_algorithms": deterministic,
        "cudnn_deterministic": deterministic,
        "cudnn_benchmark": not deterministic,
    }
    if deterministic:
        workspace = os.environ.get(CUBLAS, CUBLAS_DETERMINISTIC)
        flags |= {"cpu_threads": 1, "fill_uninitialized_memory": False, "cublas_workspace_config": workspace}
    return flags


@contextmanager
def _set_variables(wanted: Mapping[str, str]) -> Iterator[None]:
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put every global generator back at the end of the block as it was."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
