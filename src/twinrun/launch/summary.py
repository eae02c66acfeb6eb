"""What a study is, in lines: its grid, and for each task the network, the data and the class that F1 and AUC are of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twinrun.data.packed import MANIFEST
from twinrun.study.errors import TwinrunError, plural
from twinrun.study.files import read_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.schema import Task


def summary(params: Params, layout: Layout) -> list[str]:
    """A header with the totals, then each task."""
    grid, execution = params.grid, params.execution
    product = " x ".join(
        f"{len(values)} {name if len(values) > 1 else name.removesuffix('s')}"
        for name, values in (
            ("tasks", grid.tasks), ("optimizers", grid.optimizers), ("seeds", grid.seeds), ("runs", grid.runs)
        )
    )  # fmt: skip
    lines = [
        f"study {params.study}: {plural(len(params.runs), 'run')} = {product} ({', '.join(grid.runs)})",
        f"optimizers {', '.join(grid.optimizers)}; seeds {', '.join(map(str, grid.seeds))}; "
        f"device {execution.device}, noise {execution.noise}, {execution.precision}"
        + (", bits of this processor's instructions alone" if execution.cpu_bits == "this_cpu" else ""),
    ]
    for name in grid.tasks:
        lines += ["", *_task(name, params.tasks[name], _manifest(params, layout, name), layout)]
    return [*lines, "", "`twinrun plan --ids` lists the runs with their index"]


def _manifest(params: Params, layout: Layout, task: str) -> dict[str, Any] | None:
    """The manifest of the task's prepared data; None where they are not prepared by this data block."""
    try:
        manifest: dict[str, Any] = read_json(layout.prepared(task) / MANIFEST)
        return manifest if manifest["params_digest"] == params.data_params_digest(task) else None
    except (TwinrunError, LookupError, TypeError):
        return None


def _task(name: str, task: Task, manifest: dict[str, Any] | None, layout: Layout) -> Iterator[str]:
    recipe, data = task.recipe, task.data
    epochs = plural(recipe.epochs, "epoch")
    yield f"{name}: {task.title}"
    yield f"  model    {task.model.words}; {epochs}, batches of {recipe.batch_size}; main metric {recipe.metric}"
    there = "" if (layout.root / data.source).exists() else ", which is not there"
    if manifest is None:
        yield f"  data     {data.source}{there}; not prepared yet: `twinrun prepare {name}`"
        return
    classes = manifest["classes"]
    yield (
        f"  data     {manifest['n_train']} train and {manifest['n_test']} test images of {data.image_size} x "
        f"{data.image_size} pixels, prepared from {data.source}{there}"
    )
    named = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    of = f"F1 and AUC of the class {classes[1]}" if len(classes) == 2 else "F1 and AUC are means over the classes"
    yield f"  classes  {len(classes)}: {named}; {of}"
