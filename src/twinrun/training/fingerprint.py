"""The fingerprint: SHA-256 over everything that makes two models the same to the last bit."""

from __future__ import annotations

import hashlib
from itertools import chain

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over all parameters and buffers, sorted by name: name, dtype, shape and bytes of each."""
    total = hashlib.sha256()
    for name, tensor in sorted(chain(model.named_parameters(), model.named_buffers()), key=lambda item: item[0]):
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # As raw bytes: two NaNs of other bits, or -0.0 and 0.0, are different.
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        total.update(data.data)
    return total.hexdigest()
