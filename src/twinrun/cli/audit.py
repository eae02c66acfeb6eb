"""Commands that examine a training step for operations that may give other bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.cli.options import (
    DEFAULT_PARAMS,
    MOST_COUNT,
    Device,
    Link,
    ParamsFile,
    Seconds,
    enter_clean_environment,
    json_file,
    load_params,
    program_command,
    refuse_given,
)
from twinrun.study.errors import InputError, MismatchError, plural
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.inspect.audit import Audit


def audit(
    context: typer.Context,
    subject: Annotated[str | None, typer.Argument(help="A task, or module:function or file.py:function.")] = None,
    repeats: Annotated[int, typer.Option(min=2, max=MOST_COUNT, help="How often each operation is done.")] = 5,
    out: Annotated[Path | None, json_file("--json", ("findings", "ok"), "Also write the findings to this file")] = None,
    steps: Annotated[int, typer.Option(min=1, max=MOST_COUNT, help="Of a program: optimizer steps looked at.")] = 2,
    seconds: Seconds = None,
    link: Link = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Find the operations of a training step that may give other bits; exit 4 when one may from run to run.

    A function returns (model, loss, optimizer, (inputs, targets)), on the device on which it trains. Of any program
    the operations of its own first steps are looked at, without repeating them: `twinrun audit -- python train.py`.
    """
    if command := program_command(context):
        if subject:
            raise InputError(f"{subject} and a program", "give a task, a function, or a program after `--`")
        refuse_given(context, ("repeats", "params_file", "device"), "a program", "it is for a task or a function")
        _audit_program(command, steps, out, seconds, link)
        return
    if not subject:
        raise InputError("what is to be audited?", "a task, file.py:function, or a program: -- python train.py")
    if subject.endswith(".py"):
        hint = f"a function of it is {subject}:make, and a program comes after `--`: twinrun audit -- python {subject}"
        raise InputError(f"{subject} is neither a task nor a function", hint)
    refuse_given(context, ("steps", "seconds", "link"), subject, "it is for a program after `--`")
    if ":" in subject:
        refuse_given(
            context, ("params_file", "device"), subject, "it is for a task; a function chooses its device itself"
        )
    enter_clean_environment()
    from twinrun.inspect.targets import audit_function, audit_task
    from twinrun.study.files import write_json
    from twinrun.training.torch_errors import named_torch_errors

    with named_torch_errors(f"audit of {subject}"):
        if ":" in subject:
            result = audit_function(subject, Path(), repeats)
        else:
            params = load_params(params_file)
            result = audit_task(params, subject, Layout(), device or params.execution.device, repeats)
    bad = sum(finding.level == "bad" for finding in result.findings)
    operations = f"operation{'' if bad == 1 else 's'} that may give other bits from run to run"
    print(f"{subject}: {bad or 'no'} {operations}, of {result.operations} in a training step")
    _print(result)
    if out:
        write_json(out, result.facts())
    if bad:
        raise MismatchError(f"{subject}: {bad} {operations}")


def _audit_program(
    command: list[str], steps: int, out: Path | None, seconds: float | None, link: list[str] | None
) -> None:
    from twinrun.inspect.audit import audit_calls
    from twinrun.study.files import write_json
    from twinrun.twins.tracing import Program, operations_of

    heard = operations_of(Program(tuple(command), Path(), tuple(link or ()), seconds), steps)
    result = audit_calls(heard.reports[0], heard.torch, heard.same_draws)
    bad = sum(finding.level == "bad" for finding in result.findings)
    kinds = f"{bad} kind{'' if bad == 1 else 's'} of call that may give other bits from run to run on CUDA"
    if bad:
        print(kinds)
    else:
        print("none of its operations is documented as one that may give other bits from run to run on CUDA")
    _print(result)
    if out:
        write_json(out, result.facts())
    print("\n".join([*heard.remarks, result.scope()]))
    if result.convolutions:
        where = f"twinrun forecast {out}" if out else "--json FILE.json writes them for twinrun forecast FILE.json"
        print(f"{plural(len(result.convolutions), 'convolution')} of a step, whose algorithms cuDNN chooses: {where}")
    if bad:
        raise MismatchError(kinds)


def _print(result: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("level", "phase", "operation", "modules", "finding", "instead"):
        table.add_column(name, overflow="fold")
    rows: dict[tuple[str, str, str, str, str], list[str]] = {}
    for finding in result.findings:
        modules = rows.setdefault((finding.level, finding.phase, finding.operation, finding.what, finding.instead), [])
        modules += [finding.module] if finding.module and finding.module not in modules else []
    for (level, phase, operation, what, instead), modules in rows.items():
        shown = ", ".join(modules[:4]) + (f" and {len(modules) - 4} more" if len(modules) > 4 else "")
        table.add_row(level, phase, operation, shown, what, instead)
    if rows:
        console = Console()
        # In a log file nothing needs to be folded.
        Console(width=console.width if console.is_terminal else 240, soft_wrap=True).print(table)


def repeat_calls(folder: Path) -> None:
    """Do the saved operations again in this process, for `twinrun audit`."""
    from twinrun.inspect.repeat import repeat_saved

    print(json.dumps(repeat_saved(folder)))
