"""The trained network of a run: a file of its record, which is read back ready to predict. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from twinrun.study.errors import IncompleteError, MismatchError
from twinrun.study.files import canonical_json, sha256_file
from twinrun.study.layout import MODEL
from twinrun.study.records import read_record
from twinrun.study.schema_model import ModelSpec, models_digest
from twinrun.training.batches import normalized, scale_and_shift
from twinrun.training.checkpoint import model_state, restore_model
from twinrun.training.fingerprint import fingerprint
from twinrun.training.models import build_model
from twinrun.training.setup import Setup, adapt_precision

AGAIN = "remove the folder of the run and train it again, or bring back the file that was there: `dvc checkout`"


class TrainedModel(nn.Module):
    """The network of a run, in evaluation mode: bytes (n, channels, size, size), as prepared, to logits (n, classes).

    `network` is the network itself, for images of zero mean and unit variance, (n, 3, size, size) float32.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, classes: tuple[str, ...], mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network, self.classes = network, classes
        for name, values in zip(("scale", "shift"), scale_and_shift(mean, std), strict=True):
            self.register_buffer(name, values)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of images in bytes, a tensor or an array."""
        logits: torch.Tensor = self.network(normalized(torch.as_tensor(images), self.scale, self.shift))
        return logits


def model_file(setup: Setup) -> bytes:
    """The network as safetensors: all that a fingerprint covers, and in the metadata how to build it and to feed it."""
    conditions = setup.conditions
    run, packed = conditions.run, conditions.packed
    facts = {
        "run": run.id,
        "model": conditions.params.tasks[run.task].model.model_dump(exclude_defaults=True),
        "precision": conditions.params.execution.precision,
        "classes": packed.classes,
        "image_size": packed.image_size,
        "channel_mean": packed.channel_mean,
        "channel_std": packed.channel_std,
    }
    if conditions.params.tasks[run.task].model.factory:
        facts["models"] = conditions.params.models_digest
    # Copies, for two names must not share memory in the file. One entry of metadata: several come in any order.
    tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in model_state(setup.model).items()}
    return save(tensors, metadata={"twinrun": canonical_json(facts)})


def load_model(folder: Path, root: Path) -> TrainedModel:
    """The network of the run whose record is in `folder`, on the CPU; `root` is the study folder, for models/.

    Raises IncompleteError where none was kept, MismatchError for a file that is damaged or is not that of the record.
    """
    record, path = read_record(folder), folder / MODEL
    if MODEL not in record.files:
        hint = f"`keep_model: {{{record.arm}: final}}` for its task and `twinrun sweep` train it again and keep it"
        raise IncompleteError(f"{record.run}: its trained network was not kept", hint)
    if not path.is_file():
        hint = "`dvc pull` brings what was pushed, `twinrun sweep` makes it again"
        raise IncompleteError(f"{path}: no such file", hint)
    of_run, facts, tensors = _read(path)
    if of_run != record.run:
        raise MismatchError(f"{path}: it is the network of {of_run}, not of {record.run}", AGAIN)
    if sha256_file(path) != record.files[MODEL]:
        raise MismatchError(f"{path}: it was changed after it was written", AGAIN)
    network = _build(path, facts, root)
    own = {name: (tensor.dtype, tensor.shape) for name, tensor in model_state(network).items()}
    kept = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if different := sorted(name for name in own.keys() | kept.keys() if own.get(name) != kept.get(name)):
        raise MismatchError(
            f"{path}: the network that is built for it now has another architecture: {different[0]} differs",
            "go back to the code that the run was trained with, that in models/ included",
        )
    restore_model(network, tensors)
    if (now := fingerprint(network)) != record.final_fingerprint:
        wanted = record.final_fingerprint
        raise MismatchError(f"{path}: its fingerprint is {now[:16]}..., that of the record {wanted[:16]}...", AGAIN)
    return TrainedModel(network, tuple(facts["classes"]), facts["channel_mean"], facts["channel_std"])


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})["twinrun"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return str(facts["run"]), facts, tensors
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = "it lacks what a run writes" if isinstance(error, KeyError | TypeError) else str(error)
        raise MismatchError(f"{path}: not the trained network of a run: {reason}", AGAIN) from error


def _build(path: Path, facts: dict[str, Any], root: Path) -> nn.Module:
    try:
        # The weights that it began with are not needed, and need not be there.
        spec = ModelSpec.model_validate(facts["model"] | {"pretrained": None, "pretrained_sha256": None})
    except ValidationError as error:
        raise MismatchError(f"{path}: its model is not one of this version", AGAIN) from error
    if spec.factory and "models" not in facts:
        raise MismatchError(f"{path}: it does not say with which code in models/ it was trained", AGAIN)
    if spec.factory and facts["models"] != models_digest(root):
        raise MismatchError(
            f"{path}: the code in {root / 'models'} is not that with which it was trained",
            "go back to it: the same weights in another network would predict something else",
        )
    with torch.random.fork_rng(devices=[]):  # a caller's own random numbers stay as they are
        network = build_model(spec, len(facts["classes"]), root, facts["image_size"])
    adapt_precision(network, "cpu", facts["precision"])
    return network.requires_grad_(False)
