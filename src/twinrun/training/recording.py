"""What a run keeps of its network: the head whole, a sample of every other tensor, features of some test images."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from twinrun.training.batches import Batches
from twinrun.training.models import head
from twinrun.training.randomness import permutation, words

# Of 1024 coordinates the standard error of a relative distance is about 1 / sqrt(2 * 1024) = 2 % of it (normal
# differences), that of a cosine c about (1 - c^2) / 32; and ResNet-50's body takes 0.4 MB a checkpoint, not 94.
SAMPLED = 1024


@lru_cache(maxsize=1024)
def positions(name: str, count: int) -> NDArray[np.int64] | None:
    """Where a flattened tensor of `count` numbers is sampled, ascending; None: everywhere, for it is small.

    One uniform position in each of SAMPLED equal parts, the same in every run: each number is expected equally often.
    """
    if count <= SAMPLED:
        return None
    shares = (words(SAMPLED, "coordinates", name) >> np.uint64(11)) * 2.0**-53
    places: NDArray[np.int64] = ((np.arange(SAMPLED) + shares) * (count / SAMPLED)).astype(np.int64)
    return np.minimum(places, count - 1)  # for a product that was rounded up


def _head_names(model: nn.Module) -> list[str]:
    name, layer = head(model)
    return [f"{name}.{part}".lstrip(".") for part, _ in layer.named_parameters(remove_duplicate=False)]


@torch.no_grad()
def recorded_weights(model: nn.Module, epoch: int) -> dict[str, torch.Tensor]:
    """The head's tensors and all small ones whole, SAMPLED numbers of each other one; on the CPU, named by epoch."""
    whole, parts, shapes = _head_names(model), [], {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places = None if name in whole else positions(name, parameter.numel())
        flat = parameter.reshape(-1)
        parts.append((flat if places is None else flat[torch.from_numpy(places).to(flat.device)]).float())
        shapes[name] = parameter.shape if places is None else (SAMPLED,)
    # One transfer for all of them; copies, for two names must not share memory in the file.
    kept = torch.cat(parts).cpu().split([part.numel() for part in parts])
    return {
        f"{epoch:05d}/{name}": part.view(shape).clone()
        for part, (name, shape) in zip(kept, shapes.items(), strict=True)
    }


def describe_weights(model: nn.Module) -> str:
    """The shapes of all parameters in the network's order and the names of the head's, as JSON."""
    shapes = {name: list(value.shape) for name, value in model.named_parameters(remove_duplicate=False)}
    return json.dumps({"head": _head_names(model), "shapes": shapes})


@torch.no_grad()
def features_of(model: nn.Module, batches: Batches, count: int) -> NDArray[np.float32]:
    """What the head is given for `count` test images (all where there are fewer), (images, features).

    The images are drawn once for all runs, and in the prepared order.
    """
    rows = torch.from_numpy(np.sort(permutation(len(batches.test_labels), "features")[:count]))
    seen: list[torch.Tensor] = []
    handle = head(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()
    kept, start = [], 0
    try:
        for batch in batches.test():
            model(batch.images)
            stop = start + len(batch.labels)
            wanted = rows[(rows >= start) & (rows < stop)] - start
            kept.append(seen.pop().flatten(1)[wanted.to(batch.images.device)].float().cpu())
            seen.clear()
            start = stop
    finally:
        handle.remove()
    return torch.cat(kept).numpy()
