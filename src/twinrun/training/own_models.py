"""Networks from outside: a function of the user's own in models/, or one of timm's by its name."""

from __future__ import annotations

import copy
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from twinrun.study.errors import InputError, TwinrunError
from twinrun.study.layout import Layout
from twinrun.study.schema_model import ModelSpec, factory_file
from twinrun.training.torch_errors import short_of_memory

HEAD = "twinrun_head"  # attribute of a model from outside: the name of its head


def call_factory(factory: str, root: Path, classes: int, arguments: dict[str, Any]) -> nn.Module:
    """The model of `models.net:build`: what the function `build(classes, **arguments)` in models/net.py returns.

    The contract of such a function and its model:

    - It returns an nn.Module that maps float32 images (n, 3, size, size) to logits (n, classes), in training as in
      evaluation. Images have zero mean and unit variance per channel over the train set; gray ones come as three equal
      channels.
    - Its head is the last nn.Linear, or the one that `model.head` names; it must have `classes` outputs.
    - Weights are initialized from the global generators of torch, numpy or Python and from nothing else: these are
      seeded before the call from the `init` stream. Its whole state is in parameters and buffers: a run that was
      interrupted goes on from them.
    - Every nn.Dropout gets its masks from the `dropout` stream, example by example: the first axis of its input is the
      batch, neither (sequence, batch, width) nor windows folded into it. Whatever else draws while training
      (functional.dropout, stochastic depth) draws from the global generators, seeded anew each epoch from that stream:
      the same in every replicate on a CPU, but by place in the batch, so that `reorder` noise moves it, too.
    - It reads no clock, file or network, is not compiled (torch.compile), and uses operations that have a deterministic
      form on CUDA. A model that does not shows as `det` runs with different fingerprints, or as torch's error in
      deterministic mode.
    - It may import its neighbours in models/ (`from .blocks import Block`) and installed packages. Every .py file in
      models/ is part of the digest of a run with a factory, and models/ is a dependency in dvc.yaml: an edit there
      trains those runs again. Installed packages are fixed by the environment's lock alone.

    Raises InputError naming file and line of what goes wrong in the user's code.
    """
    path = factory_file(factory, root)
    module_name, _, function_name = factory.partition(":")
    with blame(f"model.factory {factory}", Layout(root).models):
        module = _import(module_name, Layout(root).models)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"model.factory {factory}: {path} has no function {function_name}")
    with blame(f"model.factory {factory}", Layout(root).models):
        model = function(classes, **arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"model.factory {factory}: it returned {type(model).__name__}", "it must return an nn.Module")
    # What torch.compile leaves in a module: itself in place of it, or compiled code in it.
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl for part in model.modules()):
        hint = "return the plain module: which kernels a compiler picks is not under twinrun's control"
        raise InputError(f"model.factory {factory}: it returned a model compiled by torch.compile", hint)
    return model


def _import(name: str, folder: Path) -> ModuleType:
    """Import from `folder` as the package `models`, whatever is installed under that name; no byte code is left."""
    for loaded in [key for key in sys.modules if key.split(".")[0] == folder.name]:
        del sys.modules[loaded]
    package = ModuleType(folder.name)
    package.__path__ = [str(folder.resolve())]
    sys.modules[folder.name] = package
    # DVC watches the folder: byte code in it would be a change.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = before


def create_timm(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    """timm's model of that name, without pretrained weights; InputError when timm or the model is not there."""
    try:
        import timm
    except ImportError as error:
        hint = "pip install timm, and keep it in requirements.in; it is not among the project's own requirements"
        raise InputError(f"model.name timm:{name}: timm is not installed", hint) from error
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"near: {', '.join(near)}" if near else "timm.list_models() lists them"
        raise InputError(f"model.name timm:{name}: timm {timm.__version__} has no such model", hint)
    with blame(f"model.name timm:{name}", Path(timm.__file__).parent):
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **arguments)
    return model


def check_model(model: nn.Module, spec: ModelSpec, classes: int, image_size: int, root: Path) -> str:
    """The name of the model's head; InputError unless the model is as `call_factory` says, tried on two images.

    Both in evaluation and in training, where a model may return something else.
    """
    where = f"model.factory {spec.factory}" if spec.factory else f"model.name {spec.name}"
    images, said = torch.zeros(2, 3, image_size, image_size), f"{where}: two images of {image_size} pixels gave"
    with blame(where, Layout(root).models), torch.no_grad():
        logits = model.eval()(images)
    model.train()
    if (given := _what(logits)) != (2, classes):
        raise InputError(f"{said} {given}, not logits (2, {classes})")
    with blame(f"{where}, in training", Layout(root).models), torch.no_grad():
        logits = copy.deepcopy(model)(images)  # of a copy: its batch statistics are not the run's
    if (given := _what(logits)) != (2, classes):
        hint = "return the logits alone in training, too (torchvision's GoogLeNet, Inception v3: aux_logits=False)"
        raise InputError(f"{said}, in training, {given}, not logits (2, {classes})", hint)
    if uneven := {parameter.dtype for parameter in model.parameters()} - {torch.float32}:
        raise InputError(f"{where}: parameters of {', '.join(map(str, uneven))}", "they must be float32")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    name = spec.head if spec.head is not None else next(reversed(linear), None)
    if name is None or name not in linear or linear[name].out_features != classes:
        outputs = ", ".join(f"{key} ({layer.out_features})" for key, layer in linear.items()) or "none"
        said = f"model.head {spec.head}" if spec.head is not None else f"its last linear layer ({name})"
        hint = f"model.head names the one that gives the logits; linear layers and their outputs: {outputs}"
        raise InputError(f"{where}: {said} is no linear layer with {classes} outputs", hint)
    return name


def _what(output: Any) -> tuple[int, ...] | str:
    return tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__


@contextmanager
def blame(where: str, folder: Path) -> Iterator[None]:
    """Turn what goes wrong in code from `folder` into one sentence with its file and line."""
    try:
        yield
    except Exception as error:
        # The machine's faults are not the code's: `named_torch_errors` names them.
        if isinstance(error, TwinrunError | torch.AcceleratorError) or short_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if _is_in(Path(frame.filename), folder.resolve())]
        place = f"{inside[-1].filename}, line {inside[-1].lineno}: " if inside else ""
        raise InputError(f"{where}: {place}{type(error).__name__}: {error}", "correct it there") from error


def _is_in(file: Path, folder: Path) -> bool:
    """Whether the code is the folder's own: no environment in it, and not this package, which is in a checkout."""
    if not file.is_relative_to(folder) or file.is_relative_to(Path(__file__).parents[1]):
        return False
    return "site-packages" not in file.relative_to(folder).parts
