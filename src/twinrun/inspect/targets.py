"""What is audited: a task of the study, or whatever a user's own function makes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.nn import functional

from twinrun.inspect.audit import Audit, audit
from twinrun.study.errors import InputError
from twinrun.study.flags import flags_for
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.loop import begin_epoch
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
    return audit(setup.model, functional.cross_entropy, setup.optimizer, (batch.images, batch.labels), repeats=repeats)


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
    chosen = getattr(module, function, None)
    if not callable(chosen):
        raise InputError(f"{name}: {where} has no function {function}", hint)
    return chosen
