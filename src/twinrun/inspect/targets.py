"""What is audited or forecast: a task of the study, a model by its name, or whatever a user's own function makes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from twinrun.inspect.audit import Audit, audit
from twinrun.inspect.cudnn.operations import Step, step_of
from twinrun.study.errors import InputError
from twinrun.study.flags import flags_for
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import read_manifest
from twinrun.study.schema_model import NAMES, TIMM, ModelSpec
from twinrun.training.loop import begin_epoch
from twinrun.training.models import build_model
from twinrun.training.own_models import blame
from twinrun.training.setup import assemble, set_conditions


def audit_task(params: Params, task: str, layout: Layout, device: str, repeats: int) -> Audit:
    """Audit the first step of the task's first run, in ordinary (free) mode."""
    run = next((run for run in params.runs if run.task == task), None)
    if run is None:
        raise InputError(f"task {task!r} is not in the grid of this study", f"tasks: {', '.join(params.grid.tasks)}")
    free = flags_for(deterministic=False, tf32=params.execution.precision == "tf32", fill_uninitialized_memory=False)
    setup = assemble(set_conditions(params, run, layout, device, instead=free))
    begin_epoch(setup, 0)
    batch = next(iter(setup.batches.train(0)))
    return audit(setup.model, setup.loss, setup.optimizer, (batch.images, batch.labels), repeats=repeats)


def audit_function(name: str, root: Path, repeats: int) -> Audit:
    """Audit what `package.module:function` or `file.py:function` returns: (model, loss, optimizer, (inputs, targets)).

    The module is looked for in `root` first.
    """
    return audit(*_made(name, root, "an audit"), repeats=repeats)


def _made(name: str, root: Path, who: str) -> tuple[Any, Any, Any, tuple[Any, Any]]:
    """What a user's function returns; InputError when it is not what `who` needs."""
    function = find_function(name, root)
    with blame(name, root):
        made = function()
    try:
        model, loss, optimizer, (inputs, targets) = made
    except (TypeError, ValueError) as error:
        hint = "it is (model, loss, optimizer, (inputs, targets))"
        raise InputError(f"{name} does not return what {who} needs", hint) from error
    return model, loss, optimizer, (inputs, targets)


def find_function(name: str, root: Path) -> Callable[[], Any]:
    """The function of that name; InputError when there is none."""
    where, _, function = name.rpartition(":")
    hint = "give package.module:function or file.py:function"
    if not where or not function:
        raise InputError(f"{name}: a module and a function are needed", hint)
    path = root / where
    if where.endswith(".py") and not path.is_file():
        raise InputError(f"{path}: no such file")
    sys.path.insert(0, str(root.resolve()))  # the pinned environment leaves it out
    try:
        with blame(name, root):
            if where.endswith(".py"):
                spec = importlib.util.spec_from_file_location(path.stem, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[path.stem] = module
                spec.loader.exec_module(module)
            else:
                module = importlib.import_module(where)
    finally:
        sys.path.pop(0)
    chosen = getattr(module, function, None)
    if not callable(chosen):
        raise InputError(f"{name}: {where} has no function {function}", hint)
    return chosen


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
    model, loss, _, batch = _made(name, root, "a forecast")
    return step_of(model, loss, batch)


def is_model(target: str) -> bool:
    """Whether it is the name of a model and not of a task."""
    return target in NAMES or target.startswith(TIMM)


def no_such_target(target: str, tasks: list[str]) -> InputError:
    """The error for what is neither a task nor a model."""
    near = get_close_matches(target, [*tasks, *NAMES], n=1)
    start = f"did you mean {near[0]!r}? " if near else ""
    hint = f"{start}tasks: {', '.join(tasks) or 'none here'}; models: {', '.join(NAMES)}, {TIMM}NAME, file.py:function"
    return InputError(f"{target!r} is neither a task of this study nor a model", hint)
