"""Commands about the cost of determinism: the measurement, and one process of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinrun.cli.options import (
    DEFAULT_PARAMS,
    MOST_COUNT,
    MOST_SECONDS,
    Device,
    Link,
    ParamsFile,
    enter_clean_environment,
    json_file,
    load_params,
    program_command,
    refuse_given,
)
from twinrun.study.errors import InputError, plural
from twinrun.study.layout import Layout

if TYPE_CHECKING:
    from twinrun.inspect.ladder import Ladder
    from twinrun.stats.cost import CostEstimate
    from twinrun.study.schema import Execution

BatchSize = Annotated[int | None, typer.Option(min=2, max=MOST_COUNT, help="Instead of the recipe's.")]
Seconds = Annotated[
    float, typer.Option(min=0, max=MOST_SECONDS, help="Seconds of training that are measured, each time.")
]
Warmup = Annotated[float, typer.Option(min=0, max=MOST_SECONDS, help="Seconds of training before them.")]


def cost(
    context: typer.Context,
    task: Annotated[str | None, typer.Argument(help="A task of the study.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Default: the first of the grid.")] = None,
    batch_size: BatchSize = None,
    blocks: Annotated[int, typer.Option(min=1, max=MOST_COUNT, help="Blocks; a 95 % interval needs six.")] = 6,
    seconds: Seconds = 1.0,
    warmup: Warmup = 1.0,
    out: Annotated[
        Path | None,
        json_file("--json", ("identity", "blocks"), "Of a program: keep what is measured here, and go on from it"),
    ] = None,
    link: Link = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Measure what the same bits cost, one flag at a time, in alternating fresh processes with a control.

    On a GPU from free to deterministic mode; on a CPU from ordinary PyTorch to the same bits on every x86-64. Of a task
    of the study, or of any PyTorch program, from how it is: `twinrun cost -- python train.py`.
    """
    if command := program_command(context):
        if task:
            raise InputError(f"{task} and a program", "give a task, or a program after `--`")
        of_task = ("optimizer", "batch_size", "device", "params_file")
        refuse_given(context, of_task, "a program", "a program chooses these itself")
        _cost_of_program(command, link, out, blocks, seconds, warmup)
        return
    if task is None:
        raise InputError("what is to be measured?", "a task of the study, or a program: -- python train.py")
    refuse_given(context, ("out", "link"), "a task", "it is for a program after `--`")
    params = load_params(params_file)
    runs = [run for run in params.runs if run.task == task and optimizer in (None, run.optimizer)]
    if not runs:
        chosen = f"task {task!r}" + (f" with optimizer {optimizer!r}" if optimizer else "")
        allowed = f"tasks: {', '.join(params.grid.tasks)}; optimizers: {', '.join(params.grid.optimizers)}"
        raise InputError(f"{chosen} is not in the grid of {params_file}", allowed)
    from twinrun.inspect.cost import measure_blocks, served
    from twinrun.inspect.ladder import ladder_for
    from twinrun.launch.progress import Progress, say
    from twinrun.study.records import current_code_digest
    from twinrun.training.setup import choose_device

    run, precision = runs[0], params.execution.precision
    where = choose_device(device or params.execution.device)
    ladder = ladder_for(where, tf32=precision == "tf32")
    size = batch_size or params.tasks[task].recipe.batch_size
    settings = {"run": run.id, "params": params.run_digest(run), "code": current_code_digest(), "seconds": seconds,
                "warmup": warmup, "batch_size": size, "device": where}  # fmt: skip
    options = ["--params", str(params_file), "--seconds", str(seconds), "--warmup", str(warmup), "--device", where]
    options += ["--batch-size", str(size)]
    path = Layout().cost(f"{task}_{run.optimizer}_{precision}_{size}" + ("_cpu" if where == "cpu" else ""))
    say(_plan(ladder, where, blocks, seconds, warmup))
    with Progress("cost", 2 * len(ladder.rungs) * blocks) as progress:
        measured = measure_blocks(
            path, settings, ladder, blocks,
            lambda: served(Path(), run.id, ladder, options, lambda: say(f"{len(ladder.rungs)} processes are ready")),
            progress.advance,
        )  # fmt: skip
    counted = plural(blocks, "block")
    print(f"{task} {run.optimizer} {precision} batch {size}: step time over that of {ladder.base}, {counted}")
    _print_table(ladder, measured, path)


def _cost_of_program(
    command: list[str], link: list[str] | None, out: Path | None, blocks: int, seconds: float, warmup: float
) -> None:
    import shlex
    import tempfile

    from twinrun.launch.progress import Progress, say
    from twinrun.stats.footprint import duration
    from twinrun.twins.costing import Costs, program_costs
    from twinrun.twins.tracing import Program

    def ready(costs: Costs) -> Callable[[str], None]:
        names, device = list(costs.ladder.rungs), costs.seen.device
        each = costs.seen.seconds + warmup + seconds
        say(f"cost on {device} with torch {costs.seen.torch}: {', '.join(names)}")
        for remark in costs.seen.remarks:
            say(remark)
        if costs.seen.ranks > 1:
            say(f"of {costs.seen.ranks} ranks the steps of rank 0 are timed, and its weights compared")
        for rung, why in costs.left_out.items():
            say(f"left out: {rung}: {why}")
        block = 2 * len(names) * each
        say(
            f"each block starts {2 * len(names)} processes, one after the other, each for about {each:.0f} s: "
            f"{duration(blocks * block)} for {plural(blocks, 'block')}"
        )
        if blocks > 1:
            say(
                f"a first look, without intervals, takes {duration(block)}: --blocks 1 --json FILE; the same command "
                "without --blocks 1 goes on from it"
            )
        return stack.enter_context(Progress("cost", 2 * len(names) * blocks)).advance

    with ExitStack() as stack:
        path = out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cost.json"
        program = Program(tuple(command), Path(), tuple(link or ()))
        costs = program_costs(program, path, blocks, seconds, warmup, ready=ready)
    print(f"{shlex.join(command)}: step time over that of {costs.ladder.base}, {plural(blocks, 'block')}")
    ended = [item["ended_after"] for block in costs.blocks for item in block if item.get("ended_after")]
    if ended:
        print(
            f"it ends after {plural(min(ended), 'step')}, within the warm-up of {warmup:g} s or too soon after it: the "
            "second half of its steps is measured"
        )
    _print_table(costs.ladder, costs.blocks, out)


def _print_table(ladder: Ladder[Any], measured: list[Any], path: Path | None) -> None:
    *lines, answer = table_lines(ladder, measured)
    rows = [line.split("\t") for line in lines]
    widths = [max(map(len, column)) for column in zip(*(row for row in rows if len(row) > 1), strict=True)]
    shown = ["  ".join(map(str.ljust, row, widths)).rstrip() if len(row) > 1 else row[0] for row in rows]
    print("\n".join([*shown, *([f"measurements in {path}"] if path else []), answer]))


def table_lines(ladder: Ladder[Any], measured: list[Any]) -> list[str]:
    """A line for each rung, what the columns mean, and last the answer."""
    from twinrun.inspect.cost import bits, say_bits, times
    from twinrun.stats.cost import CHEAPER, DEARER, increments, judge, without_verdicts

    estimates = judge(times(measured), ladder.base, ladder.control)
    own, prints = increments(times(measured), ladder.rung_before()), bits(measured)
    if estimates[ladder.control].verdict in (DEARER, CHEAPER):
        own = without_verdicts(own)
    lines = [
        "flags\tratio\tinterval\tverdict\town ratio\tinterval\tverdict\tbits after the same steps",
        f"{ladder.base}{7 * chr(9)}{say_bits(prints[ladder.base])}",
    ]
    for rung in [rung for rung in ladder.rungs if rung != ladder.base]:
        shown = [*_columns(estimates[rung]), *(_columns(own[rung]) if rung in own else ["", "", ""])]
        lines.append("\t".join([rung, *shown, say_bits(prints[rung])]))
    ratio, interval, _ = _columns(estimates[ladder.lean])
    verdict = estimates[ladder.lean].verdict.removeprefix("not defined: ")
    between = f" ({interval})" if interval else ""
    return [
        *lines,
        "ratio: all flags down to this one; own ratio: this flag over the rung before it"
        + (f" ({', '.join(f'{rung} over {lower}' for rung, lower in ladder.below.items())})" if ladder.below else "")
        + "; intervals of one ratio at 95 %, verdicts corrected over all rungs; bits: fingerprint of the weights of "
        "each block's process",
        f"a step with {ladder.lean} takes {ratio} times as long as {ladder.base}{between}: {verdict}",
    ]


def _columns(estimate: CostEstimate) -> list[str]:
    from twinrun.stats.digits import with_ends

    if estimate.low is None or estimate.high is None:
        return [f"{estimate.ratio:.3f}", "", ""]  # why is said once, in the answer
    ratio, low, high = with_ends(estimate.ratio, estimate.low, estimate.high, neutral=(1,))
    return [ratio, f"{low} to {high}", estimate.verdict]


def _plan(ladder: Ladder[Any], device: str, blocks: int, seconds: float, warmup: float) -> str:
    """What will be done, and how long it takes at least."""
    from twinrun.launch.processes import usable_cores
    from twinrun.stats.footprint import duration

    count = len(ladder.rungs)
    start = 5 + 4 * count / usable_cores()  # a process takes some 4 s of a processor until it is ready
    block = start + count * (2 * seconds + warmup + 0.2)
    what = "from ordinary PyTorch to the same bits anywhere" if device == "cpu" else "from free to deterministic mode"
    idle = " on an otherwise idle machine" if device == "cpu" else ""
    return (
        f"cost on {device}, {what}: {', '.join(ladder.rungs)}\n"
        f"each block starts a process for each and measures each twice{idle}: about {block:.0f} s a block, "
        f"{duration(blocks * block)} for {plural(blocks, 'block')}, longer where a step takes more than a third of a "
        "second"
    )


def probe(
    run_id: Annotated[str, typer.Argument()],
    rung: Annotated[str | None, typer.Option(help="A rung of `twinrun cost`; default: the run's own flags.")] = None,
    batch_size: BatchSize = None,
    seconds: Seconds = 1.0,
    warmup: Warmup = 1.0,
    serve: Annotated[bool, typer.Option(help="Measure for each line of standard input, until it ends.")] = False,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Time training steps in this process and print them as JSON; `twinrun cost` and `plan --estimate` start it."""
    params = load_params(params_file)
    run, where = params.find(run_id), device or params.execution.device
    _enter_environment(rung, where, params.execution)
    answers = sys.stdout
    if serve:  # what a library prints is not an answer
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def answer(facts: dict[str, Any]) -> None:
        print(json.dumps(facts, sort_keys=True), file=answers, flush=True)

    from twinrun.inspect.probe import Probe
    from twinrun.training.torch_errors import named_torch_errors

    size = batch_size or params.tasks[run.task].recipe.batch_size
    # What a model prints is not an answer.
    with redirect_stdout(sys.stderr), named_torch_errors(f"probe of {run.id}", size):
        ready = Probe(params, run, Layout(), rung=rung, batch_size=batch_size, device=where)
        if serve:
            answer({"ready": ready.startup_seconds})
            for _ in sys.stdin:
                answer(ready.measure(seconds, warmup))
        else:
            answer(ready.measure(seconds, warmup) | (ready.estimate() if rung is None else {}))


def _enter_environment(rung: str | None, device: str, execution: Execution) -> None:
    """That of a run, or on a CPU that of the rung: before libraries are loaded, which read it."""
    from twinrun.inspect.ladder import ladder_for

    if rung is None or device != "cpu":
        enter_clean_environment(execution.cpu_bits)
    if rung is None:
        return
    if device == "auto":
        raise InputError(f"probe --rung {rung}: rungs are a device's", "add --device cpu or --device cuda")
    rungs = ladder_for(device, tf32=execution.precision == "tf32").rungs
    if rung not in rungs:
        raise InputError(f"--rung {rung}: not on the ladder of {device}", f"there are: {', '.join(rungs)}")
    if device == "cpu" and not rungs[rung].in_force():
        os.execve(sys.executable, [sys.executable, "-m", "twinrun", *sys.argv[1:]], rungs[rung].environment())
