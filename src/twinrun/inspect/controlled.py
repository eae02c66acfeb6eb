"""`twinrun.controlled`: seeds and deterministic mode for a block of the user's own code, all put back at its end."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic as memory

from twinrun.study.errors import InputError
from twinrun.study.pins import ARM, CUBLAS, CUBLAS_DETERMINISTIC, PINNED, SEED
from twinrun.training.numerics import Flags, read_flags

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
    if not 0 <= chosen < 2**32:
        raise InputError(f"controlled: seed {chosen} is not in [0, 2^32)", "numpy's generator takes no other")
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
    kept = _State.take()
    try:
        _set_mode(fixed)
        random.seed(chosen)
        np.random.seed(chosen)  # noqa: NPY002 - the legacy generator is the one that a user's code may use
        torch.manual_seed(chosen)
        yield Control(chosen, fixed, read_flags(), missing)
    finally:
        kept.put_back()


def _seed() -> int:
    text = os.environ.get(SEED, "0")
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{SEED}={text!r} is no whole number") from error


def _missing() -> tuple[str, ...]:
    return tuple(f"{name}={PINNED[name]}" for name in _BEFORE_TORCH if os.environ.get(name) != PINNED[name])


def _set_mode(deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault(CUBLAS, CUBLAS_DETERMINISTIC)
        torch.set_num_threads(1)  # the split of a sum among threads changes its rounding
        memory.fill_uninitialized_memory = False  # type: ignore[attr-defined] # slow, changes no bits


@dataclass(frozen=True)
class _State:
    """Everything that the block changes, as it was before."""

    python: Any
    numpy: Any
    torch_cpu: torch.Tensor
    cuda: list[torch.Tensor] | None  # None: CUDA had not been started
    algorithms: tuple[bool, bool]
    cudnn: tuple[bool, bool]
    fill: bool
    threads: int
    workspace: str | None

    @classmethod
    def take(cls) -> _State:
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),  # noqa: NPY002
            torch_cpu=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
            algorithms=(
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            cudnn=(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
            fill=memory.fill_uninitialized_memory,  # type: ignore[attr-defined]
            threads=torch.get_num_threads(),
            workspace=os.environ.get(CUBLAS),
        )

    def put_back(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch_cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        torch.use_deterministic_algorithms(self.algorithms[0], warn_only=self.algorithms[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.cudnn
        memory.fill_uninitialized_memory = self.fill  # type: ignore[attr-defined]
        torch.set_num_threads(self.threads)
        # cuBLAS reads it once: where CUDA was started in the block, it holds on, and the next block must see that.
        if self.workspace is None and (self.cuda is not None or not torch.cuda.is_initialized()):
            os.environ.pop(CUBLAS, None)
        elif self.workspace is not None:
            os.environ[CUBLAS] = self.workspace
