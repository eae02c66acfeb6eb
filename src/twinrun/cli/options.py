"""Options that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from twinrun.study.errors import InputError, MismatchError, ResourceError, TwinrunError
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.study.params import Params
    from twinrun.study.pins import CpuBits

MOST_COUNT = 1_000_000  # of anything that an option counts: what is more is a slip
MOST_SECONDS = 1e6  # of any option: what is no finite time is a mistake
ParamsFile = Annotated[Path, typer.Option("--params", help="The study's params file.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or auto; default: the study's execution.device.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_COUNT, help="Processes at a time; default: one for each GPU, on a CPU for each core."),
]
ExpectGrid = Annotated[str | None, typer.Option(help="Refuse to work when the study has another grid digest by now.")]
Seconds = Annotated[
    float | None, typer.Option(min=0.1, max=MOST_SECONDS, help="Time limit of a program after `--`, each time.")
]
Link = Annotated[
    list[str] | None, typer.Option(help="Folder or file that a program only reads: linked, not copied. Repeatable.")
]
DEFAULT_PARAMS = Path("params.yaml")
_PROGRAM = "twinrun.program"


class TakesProgram(TyperCommand):
    """A command whose words after `--` are a program and its arguments: `program_command` has them."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Take the program out, and parse what is before it."""
        if "--" in args:
            place = args.index("--")
            if not args[place + 1 :]:
                raise InputError("no program after `--`", "such as: twinrun locate -- python train.py")
            ctx.meta[_PROGRAM], args = args[place + 1 :], args[:place]
        return super().parse_args(ctx, args)


def program_command(context: typer.Context) -> list[str]:
    """The words after `--`; empty where there are none."""
    words: list[str] = context.meta.get(_PROGRAM, [])
    return words


def refuse_given(context: typer.Context, names: Sequence[str], what: str, hint: str) -> None:
    """InputError for one of these parameters that the user gave, where it would be passed over in silence."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"{parameter.opts[0]} and {what}", hint)


def json_file(option: str, keys: Sequence[str], about: str) -> Any:
    """An option that names a JSON file of these keys; anything else that is there is refused before hours of work."""

    def check(path: Path | None) -> Path | None:
        if path is None or not (path.is_symlink() or path.exists()):
            return path
        from twinrun.study.files import read_json

        hint = "nothing was changed; move it away, or name another file"
        if not path.is_file():
            raise InputError(f"{path}: a folder, a link to nothing, a pipe or a device", hint)
        if not path.stat().st_size:
            return path
        try:
            content = read_json(path)
        except ResourceError:
            raise
        except InputError as error:
            raise InputError(f"{path}: is there, and it is no JSON that could be replaced", hint) from error
        if not (isinstance(content, dict) and content.keys() >= set(keys)):
            raise InputError(f"{path}: is there, and it is no earlier answer of this command", hint)
        return path

    return typer.Option(option, callback=check, help=f"{about}; replaces only an earlier answer.")


def load_params(path: Path) -> Params:
    """Read and check the params file, in a folder whose code is the code that runs and whose inputs DVC can see.

    Imported late, for it is heavy.
    """
    from twinrun.launch.inputs import require_inputs_in_sight
    from twinrun.study.checkout import require_same_code
    from twinrun.study.params import read_params

    require_same_code(Layout())
    params = read_params(path)
    require_inputs_in_sight(params, Layout())
    return params


def enter_clean_environment(cpu_bits: CpuBits = "anywhere") -> None:
    """Start this process again with the pinned variables, unless they are so already: libraries read them once."""
    from twinrun.study.pins import clean_environment, leaks

    if leaks(os.environ, cpu_bits):
        command = [sys.executable, "-m", "twinrun", *sys.argv[1:]]
        os.execve(sys.executable, command, clean_environment(cpu_bits=cpu_bits))


def check_grid(params: Params, expected: str | None) -> None:
    """Refuse params that are not those a job was submitted with: MismatchError."""
    if expected and params.grid_digest != expected:
        raise MismatchError(
            "params.yaml was changed after this job was submitted (its grid digest is "
            f"{params.grid_digest[:12]}..., the job's {expected[:12]}...)",
            "submit again with `twinrun slurm`, or put params.yaml back; nothing was trained or recorded",
        )


def note_other_study() -> None:
    """Say so when what was collected is not the study of params.yaml."""
    layout = Layout()
    collected = layout.collected / "study.json"
    if not (DEFAULT_PARAMS.is_file() and collected.is_file()):
        return
    from twinrun.launch.progress import say
    from twinrun.study.files import read_json

    try:
        info, params = read_json(collected), load_params(DEFAULT_PARAMS)
    except TwinrunError:
        return  # whoever reads it names the fault
    if isinstance(info, dict) and info.get("grid_digest") not in (None, params.grid_digest):
        theirs, ours = info.get("study"), params.study
        if theirs != ours:
            why = f"{layout.collected}/ holds the study {theirs!r}, and {DEFAULT_PARAMS} describes the study {ours!r}"
        else:
            why = f"{DEFAULT_PARAMS} no longer has the params that {layout.collected}/ was collected with"
        say(f"twinrun: {why}: this shows what was collected; `twinrun collect` collects anew")


def require_same_analysis() -> None:
    """Refuse to analyze in a checkout whose code is not the code that runs."""
    from twinrun.study.checkout import CODE_PARTS, REPORT_PARTS, require_same_code

    require_same_code(Layout(), (*CODE_PARTS, *REPORT_PARTS))


def require_same_locating() -> None:
    """Refuse to locate differences in a checkout whose code is not the code that runs."""
    from twinrun.study.checkout import CODE_PARTS, LOCATE_PARTS, require_same_code

    require_same_code(Layout(), (*CODE_PARTS, *LOCATE_PARTS))
