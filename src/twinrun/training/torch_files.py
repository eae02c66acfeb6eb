"""Files of `torch.save`, read without executing anything in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

# How numpy's numbers are pickled: many trainers store the mean of a metric beside the weights. None of these runs code.
_SCALAR = np.float64(0).__reduce__()[0]  # numpy keeps it in a private module
_NUMPY_SCALARS: list[Any] = [np.dtype, _SCALAR, *{type(np.dtype(code)) for code in "?bhilqBHILQefdFD"}]


def load_tensors(path: Path, harmless: Sequence[Any] = ()) -> Any:
    """The tensors, numbers, texts and `harmless` kinds of a file, on the CPU; ValueError if it holds anything else."""
    try:
        with torch.serialization.safe_globals([*_NUMPY_SCALARS, *harmless]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file fails in many ways
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
