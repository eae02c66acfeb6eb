"""Commands that find the first difference of two runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinrun.cli.options import (
    DEFAULT_PARAMS,
    MOST_COUNT,
    Device,
    Link,
    ParamsFile,
    Seconds,
    json_file,
    load_params,
    program_command,
    refuse_given,
    require_same_locating,
)
from twinrun.study.errors import DeviceError, InputError, MismatchError, TwinrunError
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.collect.first_difference import FirstDifference
    from twinrun.inspect.lockstep import Processes

FOLLOW = 50  # steps after the one in which two runs part


def locate(
    context: typer.Context,
    first: Annotated[str | None, typer.Argument(help="A run: its id, its record folder, or its label.")] = None,
    second: Annotated[str | None, typer.Argument(help="The other; a label alone is of the first one's cell.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One pair for each task, into located/, for the report.")
    ] = False,
    follow: Annotated[
        int, typer.Option(min=0, max=MOST_COUNT, help="Steps to follow the difference after it is found.")
    ] = FOLLOW,
    out: Annotated[
        Path | None, json_file("--json", ("parting", "how"), "Also write a program's answer to this file")
    ] = None,
    seconds: Seconds = None,
    link: Link = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Find the first step and operation in which two runs differ; exit 4 when there is one, 0 when none.

    Two runs of a study: `twinrun locate digits/sgd/42/det_1 nd_1`. Two fresh starts of any PyTorch program:
    `twinrun locate -- python train.py`, which runs it twice at the same time, in copies of this folder.
    """
    if command := program_command(context):
        if first or every:
            raise InputError("runs and a program", "give two runs of a study, or a program after `--`")
        refuse_given(context, ("follow", "params_file"), "a program", "it is for two runs of a study")
        _locate_program(command, out, seconds, link)
        return
    if first and second and shutil.which(first) and Path(second).is_file():
        raise InputError(f"{first} is no run", f"a program comes after `--`: twinrun locate -- {first} {second}")
    refuse_given(context, ("out", "seconds", "link"), "two runs", "it is for a program after `--`")
    if not every and not (first and second):
        hint = "two runs of a study, such as digits/sgd/42/det_1 nd_1, --all, or a program: -- python train.py"
        raise InputError(f"{first}, and which other run?" if first else "what is to be located?", hint)
    from twinrun.inspect import first_difference as locating
    from twinrun.inspect.first_difference import first_pairs, resolve
    from twinrun.launch.processes import usable_cores
    from twinrun.launch.progress import say

    require_same_locating()
    params, layout = load_params(params_file), Layout()
    begun: list[Processes] = []

    def locate_pair(a: str, b: str) -> FirstDifference:
        chosen = resolve(params, layout, a, b)
        names = f"{chosen[0].run.id} and {chosen[1].run.id}"
        return locating.locate(
            params,
            layout,
            *chosen,
            params_file=params_file,
            follow=follow,
            say=lambda text: say(f"{names}: {text}"),
            begun=begun,
        )

    if every:
        if first or second:
            raise InputError("--all takes no runs", "it chooses a det and an nd run of the first cell of each task")
        cores = usable_cores()
        # A pair is two processes that wait for one another a third of the time, so that two pairs fill two cores. On a
        # GPU one pair after the other: its memory is not divided.
        at_once = max(min(2, cores), cores // 2) if params.execution.device == "cpu" else 1
        _locate_all(first_pairs(params), layout, locate_pair, begun, at_once)
        return
    assert first
    assert second
    _show(locate_pair(first, second), layout, resolve(params, layout, first, second))


def _locate_program(command: list[str], out: Path | None, seconds: float | None, link: list[str] | None) -> None:
    from dataclasses import asdict

    from twinrun.launch.progress import say
    from twinrun.study.files import write_json
    from twinrun.twins.tracing import Program, locate_program

    program = Program(tuple(command), Path(), tuple(link or ()), seconds)
    located = locate_program(program, lambda text: say(f"locate: {text}"))
    print("\n".join(located.sentences()))
    if out:
        facts = asdict(located)
        if located.parting and located.parting.operation:
            facts["parting"]["operation"] = located.parting.operation.model_dump()
        write_json(out, facts)
    if located.parting:
        raise MismatchError(f"the twins part in optimizer step {located.parting.step}")


def _locate_all(
    pairs: dict[str, tuple[str, str] | None],
    layout: Layout,
    locate_pair: Callable[[str, str], FirstDifference],
    begun: list[Processes],
    at_once: int,
) -> None:
    """Write the answer of each pair into located/; `at_once` pairs are at work at a time."""
    from twinrun.collect.first_difference import sentences, write_first_difference
    from twinrun.launch.progress import say
    from twinrun.study.folders import replaced_folder

    with replaced_folder(layout.located, ("*.json", "*.csv")) as folder, ThreadPoolExecutor(at_once) as pool:
        answers = {task: pool.submit(locate_pair, *pair) for task, pair in pairs.items() if pair}
        try:
            for task in pairs:
                if task not in answers:
                    print(f"{task}: its first cell has no det and nd run to compare")
                    continue
                try:
                    difference = answers[task].result()
                except DeviceError as error:
                    # A job that finishes a study need not have the GPU: the report is made all the same, and says so.
                    say(f"{task}: not located: {error.message}; `dvc repro -sf locate` where it is")
                    continue
                write_first_difference(folder / f"{task}.json", difference)
                print(sentences(difference)[0], flush=True)  # the rest is in the file and in the report
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(answer.done() for answer in answers.values()):  # one may only now be about to begin
                for processes in list(begun):
                    processes.stop()
                time.sleep(0.1)
            raise


def _show(difference: FirstDifference, layout: Layout, runs: Any) -> None:
    from twinrun.collect.first_difference import sentences, write_first_difference
    from twinrun.study.files import write_text

    text = "\n".join(sentences(difference))
    print(text)
    path = layout.first_difference(runs[0].run, runs[1].run)
    write_first_difference(path.with_name(f"{path.name}.json"), difference)
    write_text(path.with_name(f"{path.name}.txt"), text + "\n")
    if difference.growth:
        from twinrun.report.sections.first_difference import growth_figure
        from twinrun.report.style import save

        save(growth_figure(difference, path.name), path.parent)
    print(f"written: {path}.json, .csv, .txt" + (", .svg, .png" if difference.growth else ""))
    if difference.outcome != "none":
        raise MismatchError(
            f"{difference.first} and {difference.second} part in epoch {difference.epoch}, step {difference.step}"
        )


def follow_run(
    run_id: Annotated[str, typer.Argument()],
    record: Annotated[Path, typer.Option()],
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """One side of `twinrun locate`: reads requests and writes answers, a line each."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a model prints is not an answer

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    def receive() -> dict[str, Any]:
        line = sys.stdin.readline()
        request: dict[str, Any] = json.loads(line) if line else {"do": "quit"}
        return request

    try:
        from twinrun.inspect.replay import Replay
        from twinrun.inspect.worker import serve
        from twinrun.study.flags import INSTRUCTION_SET
        from twinrun.study.records import read_measured, read_record
        from twinrun.training.environment import gpu_name
        from twinrun.training.torch_errors import named_torch_errors

        params = load_params(params_file)
        run = params.find(run_id)
        with named_torch_errors(run_id, params.tasks[run.task].recipe.batch_size):
            recorded = read_record(record)
            replay = Replay(params, run, Layout(), recorded.noise, device or "auto")
            here, there = gpu_name(replay.device), read_measured(record).host.get("gpu")
            if here and here != there:
                raise DeviceError(f"{run_id} was trained on {there}, and here is {here}", "other GPUs give other bits")
            own, theirs = (flags.get(INSTRUCTION_SET) for flags in (replay.flags, recorded.flags))
            if own != theirs:
                raise DeviceError(
                    f"{run_id} was trained on another processor ({theirs}), and here is {own}",
                    "`cpu_bits: this_cpu` promises its bits there alone",
                )
            serve(replay, receive, send)
    except TwinrunError as error:
        send({"error": error.message, "hint": error.hint, "kind": type(error).__name__})
