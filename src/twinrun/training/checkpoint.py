"""The checkpoint of a run in progress: one safetensors file with every state in it, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from twinrun.study.files import write_bytes


@dataclass
class Progress:
    """What a run knows besides its model and optimizer; `identity` says which run it belongs to."""

    identity: str
    epoch: int  # epochs done
    rows: list[dict[str, Any]]  # of the curve
    weights: dict[str, torch.Tensor]  # recorded so far
    seconds: dict[str, float]


def save_checkpoint(path: Path, progress: Progress, model: nn.Module, optimizer: Optimizer) -> None:
    """Write everything that the next epoch depends on; the old checkpoint stays until the new one is whole."""
    tensors = {f"model/{name}": tensor for name, tensor in model_state(model).items()}
    tensors |= {f"weights/{name}": tensor for name, tensor in progress.weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    # Copies, for two names must not share memory in the file.
    ready = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    facts = {"identity": progress.identity, "epoch": progress.epoch, "rows": progress.rows, "seconds": progress.seconds}
    write_bytes(path, save(ready, metadata={"progress": json.dumps(facts)}))


def load_checkpoint(path: Path, identity: str, model: nn.Module, optimizer: Optimizer) -> Progress | None:
    """Put the states back and return the progress; None when there is no checkpoint of this very run.

    A damaged file or one of other code, data, params or noise is as good as none: the run starts afresh.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        progress = Progress(**facts, weights=_below(tensors, "weights/"))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, RecursionError):
        return None
    if progress.identity != identity:
        return None
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    restore_model(model, _below(tensors, "model/"))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, loaded in optimizer.state.items():
        for key, value in loaded.items():
            if value.shape == parameter.shape:
                # A fused optimizer pairs elements by their place in memory: channels_last weights, channels_last state.
                loaded[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
    return progress


def model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that a fingerprint covers: parameters and buffers, also those that a state_dict leaves out."""
    return {name: t.detach() for name, t in chain(model.named_parameters(), model.named_buffers())}


def restore_model(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put back what `model_state` gave."""
    for name, tensor in model_state(model).items():
        tensor.copy_(state[name])


def peek_checkpoint(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint (`identity`, `epoch`, `rows`, ...) without its tensors; empty when there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["progress"])
            return facts if isinstance(facts, dict) else {}
    except (SafetensorError, ValueError, KeyError, OSError, RecursionError):
        return {}


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
