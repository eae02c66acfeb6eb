"""Commands about the cost of determinism: the measurement, and one process of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, Device, ParamsFile, enter_clean_environment, load_params
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout

BatchSize = Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps measured in each process.")]
Warmup = Annotated[int, typer.Option(min=0, help="Steps before them.")]


def cost(
    task: Annotated[str, typer.Argument(help="A task of the study.")],
    optimizer: Annotated[str | None, typer.Option(help="Default: the first of the grid.")] = None,
    batch_size: BatchSize = None,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks; a 95 % interval needs six.")] = 6,
    steps: Steps = 50,
    warmup: Warmup = 20,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Measure what determinism costs, one flag at a time, in alternating fresh processes with a control."""
    from twinrun.inspect.cost import measure_blocks, probe_process, times
    from twinrun.inspect.ladder import BASE, CONTROL, ladder, rung_before
    from twinrun.launch.progress import Progress
    from twinrun.stats.cost import increments, judge
    from twinrun.study.records import current_code_digest

    params = load_params(params_file)
    runs = [run for run in params.runs if run.task == task and optimizer in (None, run.optimizer)]
    if not runs:
        chosen = f"task {task!r}" + (f" with optimizer {optimizer!r}" if optimizer else "")
        allowed = f"tasks: {', '.join(params.grid.tasks)}; optimizers: {', '.join(params.grid.optimizers)}"
        raise InputError(f"{chosen} is not in the grid of {params_file}", allowed)
    run, precision = runs[0], params.execution.precision
    settings = {"run": run.id, "params": params.run_digest(run), "code": current_code_digest(), "steps": steps,
                "warmup": warmup, "batch_size": batch_size, "device": device or params.execution.device}  # fmt: skip
    options = ["--params", str(params_file), "--steps", str(steps), "--warmup", str(warmup)]
    options += ["--device", device] if device else []
    options += ["--batch-size", str(batch_size)] if batch_size else []
    size = batch_size or params.tasks[task].recipe.batch_size
    path = Layout().cost(f"{task}_{run.optimizer}_{precision}_{size}")
    rungs = list(ladder(tf32=precision == "tf32"))
    with Progress("cost", 2 * len(rungs) * blocks) as progress:
        measure = probe_process(Path(), run.id, options)
        measured = times(measure_blocks(path, settings, rungs, blocks, measure, progress.advance))
    counted = f"{blocks} block{'' if blocks == 1 else 's'}"
    print(f"{task} {run.optimizer} {precision} batch {size}: step time over that of {BASE}, {counted}")
    print("flags\tratio\tinterval\tverdict\town ratio\tinterval\tverdict")
    estimates, own = judge(measured, BASE, CONTROL), increments(measured, rung_before(rungs))
    for rung in rungs[1:]:
        shown = [estimates[rung], *([own[rung]] if rung in own else [])]
        columns = [rung]
        for item in shown:
            interval = "" if item.low is None else f"{item.low:.3f} to {item.high:.3f}"
            columns += [f"{item.ratio:.3f}", interval, item.verdict]
        print("\t".join(columns))
    print("ratio: all flags down to this one; own ratio: this flag over the rung before it; intervals of one ratio at "
          "95 %, verdicts corrected over all rungs")  # fmt: skip
    print(f"measurements in {path}")


def probe(
    run_id: Annotated[str, typer.Argument()],
    rung: Annotated[str | None, typer.Option(help="A rung of `twinrun cost`; default: the run's own flags.")] = None,
    batch_size: BatchSize = None,
    steps: Steps = 50,
    warmup: Warmup = 20,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Time training steps in this process and print them as JSON; `twinrun cost` and `plan --estimate` start it."""
    params = load_params(params_file)
    run = params.find(run_id)
    enter_clean_environment()
    import json

    from twinrun.inspect.probe import probe as run_probe
    from twinrun.training.torch_errors import named_torch_errors

    with named_torch_errors(f"probe of {run.id}", batch_size or params.tasks[run.task].recipe.batch_size):
        found = run_probe(
            params, run, Layout(), rung=rung, batch_size=batch_size, steps=steps, warmup=warmup,
            device=device or params.execution.device,
        )  # fmt: skip
    print(json.dumps(found, sort_keys=True))
