"""The command that says which operations of a training step would be nondeterministic on which card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, MOST_COUNT, ParamsFile, json_file, load_params
from twinrun.study.errors import InputError, plural
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.inspect.cudnn.forecast import Forecast
    from twinrun.inspect.cudnn.operations import Step


def forecast(
    target: Annotated[
        str,
        typer.Argument(help="A task, a model (timm:NAME, too), file.py:function, or an audit's file.json."),
    ],
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="A card: its name, `here`, or a .json file with its description; default: all known ones."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=MOST_COUNT, help="Images in a batch; default: the task's, else 128.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Pixels a side; default: the task's, else 32.")
    ] = None,
    out: Annotated[
        Path | None, json_file("--json", ("forecasts", "cudnn"), "Also write everything to this file")
    ] = None,
    save: Annotated[
        Path | None,
        json_file("--save", ("deviceName", "deviceVer"), "Write the description of the one card to this .json file"),
    ] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Ask cuDNN which operations of a training step are nondeterministic on a card that need not be here.

    For each precision and layout: convolutions whose first choice is nondeterministic, those where autotuning may
    take such an engine, what deterministic mode would use, and what to change. Only `--gpu here` looks at a device.
    """
    from twinrun.inspect.cudnn.backend import library
    from twinrun.inspect.cudnn.devices import find_card, known_cards
    from twinrun.inspect.cudnn.forecast import SETTINGS, facts
    from twinrun.inspect.cudnn.forecast import forecast as ask
    from twinrun.study.files import write_json
    from twinrun.training.torch_errors import named_torch_errors

    library()
    cards = [find_card(name) for name in gpu or known_cards()]
    if save:
        if len(cards) > 1:
            raise InputError("--save writes the description of one card", "give one --gpu, such as --gpu here")
        write_json(save, cards[0].description)
    with named_torch_errors(f"forecast of {target}"):
        step = _step(target, batch_size, image_size, params_file)
    results = [ask(step, card, setting) for card in cards for setting in SETTINGS]
    _print(target, step, results, details=len(cards) == 1)
    if out:
        write_json(out, facts(target, step, results))


def _step(target: str, batch_size: int | None, image_size: int | None, params_file: Path) -> Step:
    from twinrun.inspect.targets import (
        BATCH,
        CLASSES,
        SIDE,
        is_model,
        no_such_target,
        step_of_function,
        step_of_model,
        step_of_task,
    )
    from twinrun.study.schema_model import ModelSpec

    if target.endswith(".json"):
        from twinrun.inspect.audit import step_of_audit

        if batch_size or image_size:
            raise InputError(f"{target} has its own shapes", "leave --batch-size and --image-size out")
        return step_of_audit(Path(target))
    if is_model(target):
        return step_of_model(ModelSpec(name=target), CLASSES, batch_size or BATCH, image_size or SIDE, Path())
    if ":" in target:
        if batch_size or image_size:
            raise InputError(f"{target} makes its own batch", "leave --batch-size and --image-size out")
        return step_of_function(target, Path())
    if not params_file.is_file():
        raise no_such_target(target, [])
    params = load_params(params_file)
    if target not in params.tasks:
        raise no_such_target(target, list(params.tasks))
    return step_of_task(params, target, Layout(), batch_size, image_size)


def _print(target: str, step: Step, results: list[Forecast], *, details: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from twinrun.inspect.cudnn.backend import version_name
    from twinrun.inspect.cudnn.forecast import advice, verdict

    console = Console()
    console = Console(width=console.width if console.is_terminal else 240, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    columns = (
        "card",
        "precision, layout",
        "nondeterministic",
        "autotuning may",
        "workspace, MiB: free",
        "deterministic",
    )
    for name in (*columns, "verdict"):
        table.add_column(name, overflow="fold")
    for result in results:
        of = f" of {len(result.rows)}"
        numbers = ["", "", "", ""] if result.unsupported else [
            f"{result.count('nondeterministic')}{of}", f"{result.count('autotuned')}{of}",
            f"{result.workspace_bytes('free') / 2**20:.0f}", f"{result.workspace_bytes('deterministic') / 2**20:.0f}",
        ]  # fmt: skip
        table.add_row(result.card, str(result.setting), *numbers, verdict(step, result))
    calls = len(step.convolutions)
    distinct = max((len(result.rows) for result in results), default=0)
    console.print(
        f"{target}, {_batch(step)}; cuDNN {version_name()}; {plural(calls, 'convolution')} of a step, "
        f"{distinct} of them distinct"
        if calls
        else f"{target}: no convolution in this step: nothing to ask cuDNN; other operations are listed below"
    )
    console.print(table)
    if details:
        _print_layers(results, console)
    for card in dict.fromkeys(result.card for result in results):
        for line in advice(step, [result for result in results if result.card == card]):
            console.print(f"{card}: {line}")


def _batch(step: Step) -> str:
    """What the first convolution is given: the size of the batch and that of an image."""
    count, _, *sides = step.convolutions[0].x
    return f"batch {count}, {' x '.join(str(side) for side in sides)}"


def _print_layers(results: list[Forecast], console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(box=None, pad_edge=False)
    for name in ("setting", "operation", "layers", "engine of free mode", "of deterministic mode", "refused"):
        table.add_column(name, overflow="fold")
    for result in results:
        for row in result.rows:
            answer = row.answer
            if not (answer.reason or answer.nondeterministic):
                continue
            engines = [
                " ".join([f"engine {c.engine}", *([f"({', '.join(c.notes)})"] if c.notes else [])]) if c else ""
                for c in (answer.free, answer.deterministic)
            ]
            more = f" and {len(row.layers) - 3} more" if len(row.layers) > 3 else ""
            layers = ", ".join(row.layers[:3]) + more
            table.add_row(str(result.setting), row.convolution.operation, layers, *engines, answer.reason)
    if table.row_count:
        console.print(table)
