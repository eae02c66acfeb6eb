"""Checkpoints of other people's programs, read without executing anything in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twinrun.training.torch_files import load_tensors

# What trainers keep beside tensors: numpy's generator state and arrays, and their own arguments. None of it runs code.
_HARMLESS: list[Any] = [np.ndarray, np.empty(0).__reduce__()[0], argparse.Namespace]


def load_checkpoint(path: Path) -> Any:
    """The tensors, arrays, numbers, texts and arguments of a file; ValueError when there is anything else."""
    with torch.serialization.safe_globals(_HARMLESS):
        return load_tensors(path)
