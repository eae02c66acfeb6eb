"""The fingerprint: SHA-256 over everything that makes two models the same to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain

import torch
from torch import nn

from twinrun.study.errors import InputError


def fingerprint(model: nn.Module | Mapping[str, torch.Tensor]) -> str:
    """Hex SHA-256 over all parameters and buffers, sorted by name: name, dtype, shape and bytes of each.

    `model` is a module or a mapping of names to tensors, such as its state_dict; the two agree unless the module has
    buffers that are not saved or parameters that it shares under two names. InputError for anything else.
    """
    if not isinstance(model, nn.Module | Mapping):
        raise InputError(
            f"fingerprint: a {type(model).__name__} is neither a module nor a mapping of names to tensors",
            "give a module or its state_dict; one tensor: {'name': tensor}",
        )
    named = chain(model.named_parameters(), model.named_buffers()) if isinstance(model, nn.Module) else model.items()
    total = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"fingerprint: {name!r} is a {type(tensor).__name__}, no tensor", "give a module or its state_dict"
            )
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # As raw bytes: two NaNs of other bits, or -0.0 and 0.0, are different.
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        total.update(data.data)
    return total.hexdigest()
