"""What is audited: a task of the study, or whatever a user's own function makes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from twinrun.data.packed import load_packed
from twinrun.inspect.audit import Audit, audit
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.loop import begin_epoch, choose_device
from twinrun.training.numerics import set_numerics
from twinrun.training.own_models import blame
from twinrun.training.randomness import Noise
from twinrun.training.setup import assemble


def audit_task(params: Params, task: str, layout: Layout, device: str, repeats: int) -> Audit:
    """Audit the first step of the task's first run, in ordinary (free) mode."""
    run = next((run for run in params.runs if run.task == task), None)
    if run is None:
        raise InputError(f"task {task!r} is not in the grid of this study", f"tasks: {', '.join(params.grid.tasks)}")
    packed = load_packed(layout.prepared(task), params.data_params_digest(task))
    set_numerics(deterministic=False, precision=params.execution.precision, fill_uninitialized_memory=False)
    on = torch.device(choose_device(device))
    trainee = assemble(params, run, packed, Noise("none", None), on, layout.root)
    begin_epoch(trainee, 0)
    batch = next(iter(trainee.batches.train(0)))
    return audit(
        trainee.model, functional.cross_entropy, trainee.optimizer, (batch.images, batch.labels), repeats=repeats
    )


def audit_function(name: str, root: Path, repeats: int) -> Audit:
    """Audit what `package.module:function` or `file.py:function` returns: (model, loss, optimizer, (inputs, targets)).

    The module is looked for in `root` first.
    """
    function = find_function(name, root)
    with blame(name, root):
        made = function()
    try:
        model, loss, optimizer, batch = made
        inputs, targets = batch
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not return what an audit needs", "it is (model, loss, optimizer, (inputs, targets))"
        ) from error
    return audit(model, loss, optimizer, (inputs, targets), repeats=repeats)


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
    found = getattr(module, function, None)
    if not callable(found):
        raise InputError(f"{name}: {where} has no function {function}", hint)
    return found
