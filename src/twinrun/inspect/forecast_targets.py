"""Whose training step is forecast: a task of the study, a built-in or timm model, or what a user's function makes."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torch.nn import functional

from twinrun.inspect.step_operations import Step, step_of
from twinrun.inspect.targets import find_function
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import read_manifest
from twinrun.study.schema_model import NAMES, TIMM, ModelSpec
from twinrun.training.models import build_model
from twinrun.training.own_models import blame

BATCH, SIDE, CLASSES = 128, 32, 10  # of a model alone


def step_of_model(spec: ModelSpec, classes: int, batch_size: int, side: int, root: Path) -> Step:
    """The step of a model on `batch_size` images (3, side, side) with cross-entropy; its weights are not read."""
    spec = spec.model_copy(update={"pretrained": None, "pretrained_sha256": None})
    batch = (
        torch.empty(batch_size, 3, side, side, device="meta"),
        torch.empty(batch_size, dtype=torch.long, device="meta"),
    )
    try:
        with torch.device("meta"):
            model = build_model(spec, classes, root, side)
    except Exception:  # a user's own model may look at its weights
        model = build_model(spec, classes, root, side)
        batch = torch.zeros(batch_size, 3, side, side), torch.zeros(batch_size, dtype=torch.long)
    return step_of(model, functional.cross_entropy, batch)


def step_of_task(params: Params, task: str, layout: Layout, batch_size: int | None, side: int | None) -> Step:
    """The step of the task's model on a full batch; the data need not be prepared."""
    settings, manifest = params.tasks[task], layout.prepared(task) / "manifest.json"
    classes = len(read_manifest(manifest).classes) if manifest.is_file() else CLASSES  # of the last layer alone
    return step_of_model(
        settings.model, classes, batch_size or settings.recipe.batch_size, side or settings.data.image_size, layout.root
    )


def step_of_function(name: str, root: Path) -> Step:
    """The step of what `package.module:function` or `file.py:function` returns, as for `twinrun audit`."""
    function = find_function(name, root)
    with blame(name, root):
        made = function()
    try:
        model, loss, _, (inputs, targets) = made
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not return what a forecast needs", "it is (model, loss, optimizer, (inputs, targets))"
        ) from error
    return step_of(model, loss, (inputs, targets))


def is_model(target: str) -> bool:
    """Whether it is the name of a model and not of a task."""
    return target in NAMES or target.startswith(TIMM)


def no_such_target(target: str, tasks: list[str]) -> InputError:
    """The error for what is neither a task nor a model."""
    near = get_close_matches(target, [*tasks, *NAMES], n=1)
    start = f"did you mean {near[0]!r}? " if near else ""
    hint = f"{start}tasks: {', '.join(tasks) or 'none here'}; models: {', '.join(NAMES)}, {TIMM}NAME, file.py:function"
    return InputError(f"{target!r} is neither a task of this study nor a model", hint)
