"""Commands that examine a training step for operations that may give other bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, Device, ParamsFile, enter_clean_environment, load_params
from twinrun.study.errors import MismatchError
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.inspect.audit import Audit


def audit(
    subject: Annotated[str, typer.Argument(help="A task, or module:function or file.py:function.")],
    repeats: Annotated[int, typer.Option(min=2, help="How often each operation is done.")] = 5,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the findings to this file.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
) -> None:
    """Find the operations of a training step that may give other bits; exit 4 when one may from run to run.

    A function returns (model, loss, optimizer, (inputs, targets)), on the device on which it trains.
    """
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
