"""The `twinrun` command: the list of commands, and how each ends; whatever is heavy is imported inside a command."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from twinrun import __version__
from twinrun.cli.audit import audit, repeat_calls
from twinrun.cli.cost import cost, probe
from twinrun.cli.data import data_app, prepare
from twinrun.cli.forecast import forecast
from twinrun.cli.launch import doctor, finish, slurm, status, sweep
from twinrun.cli.locate import follow_run, locate
from twinrun.cli.options import TakesProgram
from twinrun.cli.report import analyze, collect, export, report
from twinrun.cli.results import compare, import_results, power, reanalyze_app
from twinrun.cli.train import plan, train, train_chunk, verify
from twinrun.cli.twins import twins
from twinrun.launch.room import make_sure_of_room
from twinrun.study.errors import InputError, OutOfMemoryError, TwinrunError
from twinrun.twins import interrupts


class Doors(typer.core.TyperGroup):
    """The list of commands by what a user has, in plain text: a help that rich sets takes twice as long to show."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each door."""
        listed = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, command) for name, command in listed if command and not command.hidden]
        for door in DOORS:
            with formatter.section(door):
                ours = [(name, command) for name, command in shown if getattr(command, "rich_help_panel", None) == door]
                formatter.write_dl([(name, command.get_short_help_str(limit=400)) for name, command in ours])


app = typer.Typer(
    cls=Doors,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Say whether training results are real or noise: of a program, of numbers that you have, or of a whole study. "
    "The commands of a study run in its folder: the one that holds params.yaml.",
)
PROGRAM, RESULTS, STUDY = "Your program", "Your results", "A study of many runs"
DOORS = {
    PROGRAM: (twins, locate, audit, forecast, cost),
    RESULTS: (compare, import_results, power),
    STUDY: (plan, prepare, train, sweep, slurm, finish, status, verify, collect, analyze, report, export, doctor),
}
for panel, commands in DOORS.items():
    for command in commands:
        kind = TakesProgram if command in (locate, audit, cost) else None
        name = "import" if command is import_results else None
        app.command(name, rich_help_panel=panel, cls=kind)(command)
app.add_typer(reanalyze_app, name="reanalyze", rich_help_panel=RESULTS)
app.add_typer(data_app, name="data", rich_help_panel=STUDY)
for part in (probe, follow_run, repeat_calls, train_chunk):  # what those above start afresh
    app.command(hidden=True)(part)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def show_version(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Say which version this is."""


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and an exit code, not in a traceback."""
    _open_what_is_closed()
    _write_every_character()
    make_sure_of_room()
    interrupts.take()  # children are stopped, files are put back
    try:
        try:
            _require_words(sys.argv[1:])
            with _sign_of_life(sys.argv[1:2]):
                app()
        finally:
            sys.stdout.flush()
    except TwinrunError as error:
        _fail(error)
    except BrokenPipeError:
        _end_unread()
    except ModuleNotFoundError as error:
        if (package := _STUDY_PACKAGES.get(error.name or "")) is None:
            raise
        _fail(InputError(f"this command needs {package}, which is not installed here", _INSTALL))
    except UnicodeEncodeError as error:  # of a library that a name is handed to
        if error.encoding != "utf-8":  # which takes all but bytes that are none
            raise
        _fail(InputError(f"{error.object!r}: a name that is not UTF-8", "rename it, or name another one"))
    except (ImportError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or _NO_ROOM.search(str(error))):
            raise
        what = f": {error}" if str(error) else ""
        hint = "raise the limit (`ulimit -v` or `-d`, the job's memory), or end what else runs"
        _fail(OutOfMemoryError(f"out of memory{what}", hint))
    except OSError as error:
        from twinrun.study.files import explain_os_error

        _fail(explain_os_error(error))
    except SystemExit as stop:  # typer makes it of a KeyboardInterrupt, and of a pipe that nobody reads
        if isinstance(stop.__context__, BrokenPipeError):
            _end_unread()
        if stop.code == 130:
            with suppress(OSError):  # of a terminal that was closed
                print(f"twinrun: interrupted{_GOES_ON if _goes_on(sys.argv[1:]) else ''}", file=sys.stderr)
                sys.stdout.flush()
            os._exit(130)  # a cluster stops a container's file system, too: nothing more can be imported from it
        raise


def _require_words(words: list[str]) -> None:
    """InputError for an empty word, as of a variable that is not set: it would be the folder `.`, or nothing."""
    own = words[: words.index("--")] if "--" in words else words
    for place, word in enumerate(own):
        if not word.strip() or re.fullmatch(r"--[\w-]+=", word):
            where = word.strip() or " ".join(own[max(0, place - 1) : place]) or "twinrun"
            hint = "is a variable not set? A program's own words come after `--`"
            raise InputError(f"an empty word after {where}", hint)


def _open_what_is_closed() -> None:
    """What was closed (`>&-`) leads nowhere: else a file would get its number, and what is printed would go there."""
    closed = [(number, name) for number, name in enumerate(("stdin", "stdout", "stderr")) if getattr(sys, name) is None]
    for number, _ in closed:
        try:
            os.fstat(number)
        except OSError:  # the lowest that is free is what is opened next
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in closed:
        setattr(sys, name, Path(os.devnull).open("w" if number else "r"))  # noqa: SIM115 - until the end


def _write_every_character() -> None:
    """What the encoding of a stream lacks (`PYTHONIOENCODING=ascii`) is written as an escape: no answer ends for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            with suppress(OSError):  # it asks for the place in a file that a worker server's child has no more
                stream.reconfigure(errors="backslashreplace")


def _end_unread() -> NoReturn:
    """Nobody reads any more, as of `| head -1`: what was finished is kept."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(141)


# Not what is told to wait and watch, nor the hidden ones, whose errors are read by what started them.
_WATCHED = {function for commands in DOORS.values() for function in commands} - {status}


def _sign_of_life(words: list[str]) -> AbstractContextManager[object]:
    """A line now and then from a command that says nothing for long; not in a process that another command started."""
    from twinrun.launch.progress import PART, Heartbeat

    names = {"data", "reanalyze"} | {
        "import" if function is import_results else function.__name__ for function in _WATCHED
    }
    if os.environ.get(PART) or not names.intersection(words):
        return nullcontext()
    return Heartbeat(f"twinrun {words[0]}")


# What Python says when no thread, and the loader when no library, gets memory.
_NO_ROOM = re.compile(
    "can't start new thread|failed to map segment|annot allocate|cannot map|cannot create shared object|out of memory"
)

# What the core leaves out, by the name that is imported.
_STUDY_PACKAGES = {
    "torch": "PyTorch", "torchvision": "torchvision", "dvc": "DVC", "pydicom": "pydicom", "pynvml": "nvidia-ml-py",
    "requests": "requests", "urllib3": "urllib3",
}  # fmt: skip
_INSTALL = (
    "`pip install '.[study]'` in a checkout of twinrun brings all that a study needs; an audit needs PyTorch alone"
)

_GOES_ON = "; what was finished is kept, and the same command goes on"


def _goes_on(words: list[str]) -> bool:
    """Whether the command of these words keeps what it finished."""
    if words[:1] == ["cost"] and "--" in words:
        return any(word.partition("=")[0] == "--json" for word in words[: words.index("--")])
    return words[:2] == ["data", "fetch"] or words[:1] in (
        ["prepare"], ["train"], ["train-chunk"], ["sweep"], ["slurm"], ["finish"], ["cost"], ["export"],
    )  # fmt: skip


_ENDLESS = re.compile(r"\S{1000,}")  # from a file or a command line, which hides the sentence around it


def _fail(error: TwinrunError) -> None:
    said = _ENDLESS.sub(lambda word: f"{word[0][:100]}... ({len(word[0])} characters)", str(error))
    with suppress(OSError):  # nobody can be told
        print(f"twinrun: {said}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)
