"""Counter-based streams: every random number is a function of (stream, seed, epoch), whatever was drawn before.

Philox (Salmon et al. 2011) with a key from SHA-256. Only raw 64-bit words are taken from numpy, whose bit generators
are stable between versions; what is made of them is defined here, so that a study draws the same forever.
"""

from __future__ import annotations

import copy
import hashlib
import random
import secrets
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from twinrun.study.errors import InputError
from twinrun.study.grid import STREAMS, Run

_PROBES = 8  # images


def _key(*parts: object) -> int:
    text = "/".join(("twinrun", *map(str, parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def words(count: int, *parts: object) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words of the stream named by `parts`."""
    return np.random.Philox(key=_key(*parts)).random_raw(count)


def permutation(count: int, *parts: object) -> NDArray[np.int64]:
    """A uniform order of range(count): the ranks of 64-bit words (two are equal with probability count^2 / 2^65)."""
    return np.argsort(words(count, *parts), kind="stable")


def fresh_entropy() -> str:
    """128 bits from the operating system, as 32 hex digits."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Streams:
    """The four algorithmic streams of one run, each with its own seed text."""

    init: str
    shuffle: str
    augment: str
    dropout: str

    @classmethod
    def of(cls, run: Run) -> Streams:
        """The cell's seed for every stream, but the run's own for those that its arm sets free."""
        own = f"{run.seed}/{run.label}"
        return cls(**{name: own if name in run.free_streams else str(run.seed) for name in STREAMS})

    def seed_initialization(self) -> None:
        """Seed the generators that a model's constructor draws from."""
        seed_global_generators("init", self.init)

    def order(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The order in which the training examples are seen in that epoch."""
        return permutation(count, "shuffle", self.shuffle, epoch)

    def augmentation(self, epoch: int, count: int) -> NDArray[np.uint64]:
        """One word per training example, by its place in the data set and not in the batch."""
        return words(count, "augment", self.augment, epoch)


def seed_global_generators(*parts: object) -> None:
    """Seed Python's, numpy's and torch's global generators: what a user's own code may draw from."""
    key = _key("global", *parts)
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002 - the legacy generator is the one a user's code may use
    torch.manual_seed(key % 2**63)


class StreamDropout(nn.Module):
    """Dropout whose masks come from the dropout stream, drawn on the CPU, so that CPU and GPU runs see the same."""

    def __init__(self, p: float, name: str) -> None:
        super().__init__()
        self.p, self.name = p, name
        self.parts: tuple[object, ...] = ()
        self.step = 0
        self.order: NDArray[np.int64] | None = None  # of the batch, where noise reordered it: masks go with examples

    def start_epoch(self, seed: str, epoch: int) -> None:
        """Begin an epoch's masks."""
        self.parts, self.step = ("dropout", seed, self.name, epoch), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        if self.p == 1:
            return x * 0
        drawn = words(-(-x.numel() // 2), *self.parts, self.step).view(np.uint32)[: x.numel()]
        self.step += 1
        keep = (drawn >= np.uint32(self.p * 2**32)).reshape(x.shape)
        if self.order is not None:
            if len(self.order) != len(x):
                given = f"its input is {tuple(x.shape)} in a batch of {len(self.order)} examples"
                hint = "the first axis of an nn.Dropout's input must be the batch: masks go with the examples"
                raise InputError(f"dropout layer {self.name}: {given}", hint)
            keep = keep[self.order]
        mask = torch.from_numpy(keep)
        if x.is_cuda:
            mask = mask.pin_memory()  # the device would be waited for otherwise
        return x * mask.to(x.device, non_blocking=True) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}, stream={self.name}"


def take_over_dropout(model: nn.Module) -> list[StreamDropout]:
    """Put a StreamDropout in place of every nn.Dropout of `model`, and return them."""
    taken = []
    for path, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            ours = StreamDropout(module.p, path)
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, ours)
            taken.append(ours)
    return taken


class Noise:
    """The implementation noise of a run: `none`, `native` (CUDA's own), or emulated and replayable.

    `reorder` puts the examples of each batch into another order: the same mathematics with other rounding.
    `ulp` changes one weight by one unit in the last place before training.
    """

    def __init__(self, kind: str, entropy: str | None) -> None:
        self.kind, self.entropy = kind, entropy

    def orders(self, epoch: int, sizes: list[int]) -> list[NDArray[np.int64] | None]:
        """For each batch of that epoch the order to put its examples into; None: as they are."""
        if self.kind != "reorder":
            return [None] * len(sizes)
        drawn = words(sum(sizes), "noise", self.entropy, epoch)
        return [np.argsort(part, kind="stable") for part in np.split(drawn, np.cumsum(sizes)[:-1])]

    @torch.no_grad()
    def disturb(self, model: nn.Module, image_size: int) -> None:
        """Change one weight by one ulp upwards, if this noise does so; the model is for images of that many pixels."""
        if self.kind != "ulp":
            return
        # Not a zero: its neighbour is so small that the first update swallows it.
        live = [
            (weight != 0) & reached
            for weight, reached in zip(model.parameters(), reaching(model, image_size), strict=True)
        ]
        candidates = [usable.view(-1).nonzero().view(-1) for usable in live]
        if not (count := sum(map(len, candidates))):
            hint = "are the weights of its last layer zeros at the start?"
            raise InputError("arm ulp: no weight of the model that is not zero changes its logits", hint)
        position = int(words(1, "noise", self.entropy)[0] % count)
        for parameter, indices in zip(model.parameters(), candidates, strict=True):
            if position < len(indices):
                weight = parameter.view(-1)[int(indices[position])]
                weight.copy_(torch.nextafter(weight, torch.full_like(weight, torch.inf)))
                return
            position -= len(indices)


@torch.enable_grad()
def reaching(model: nn.Module, image_size: int) -> list[torch.Tensor]:
    """For each parameter, as bool, the elements that the logits of (n, 3, image_size, image_size) images depend on.

    Seen by the gradient on a few drawn images. On small images most of a deep network's 3x3 kernels meet nothing but
    padding, and whatever is done to such a weight changes nothing; its gradient is exactly zero.
    """
    drawn = words(_PROBES * 3 * image_size**2, "noise", "probe").reshape(_PROBES, 3, image_size, image_size)
    images = torch.from_numpy((drawn >> np.uint64(40)).astype(np.float32) * 2.0**-23 - 1)  # uniform in [-1, 1)
    probe = copy.deepcopy(model).train()  # what it counts and averages, such as batch statistics, is not the run's
    logits = probe(images)
    (logits * torch.arange(1, logits.shape[1] + 1)).sum().backward()
    return [torch.zeros_like(weight, dtype=torch.bool) if weight.grad is None else weight.grad != 0
            for weight in probe.parameters()]  # fmt: skip
