"""Files of `torch.save`, read without executing anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_tensors(path: Path) -> Any:
    """The tensors, numbers and texts of a file, on the CPU; ValueError when it holds anything else or is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file fails in many ways
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
