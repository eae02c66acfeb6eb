"""The study's record in DVC: one process commits what was trained in parallel, and then has the report made."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from twinrun.launch.progress import said as said_something
from twinrun.launch.status import Watch
from twinrun.launch.up_to_date import is_up_to_date, look, note_up_to_date
from twinrun.study.errors import BusyError, IncompleteError, InputError, TwinrunError
from twinrun.study.files import write_bytes
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.lock import hold
from twinrun.study.params import Params
from twinrun.study.records import FINISHED


def is_dvc_study(root: Path) -> bool:
    """Whether `root` is under DVC with this project's pipeline."""
    return (root / ".dvc").is_dir() and (root / "dvc.yaml").is_file()


def commit_stages(root: Path, stages: Sequence[str], *, every: bool, new: bool = False) -> None:
    """Record the outs of those completed `stages`, as they are, that DVC does not have yet.

    `every` says that these are all the train stages there are; `new`, that DVC need not be asked which it has. An
    interrupted commit leaves dvc.lock as it was: DVC itself writes it in place, and would leave it empty.
    """
    lock, kept = root / "dvc.lock", root / ".dvc" / "tmp" / "dvc.lock.kept"
    if lock.is_file() and not lock.stat().st_size:  # by a process that was killed
        if kept.is_file():
            kept.replace(lock)
        else:
            lock.unlink()
    if not stages:
        return
    # The group and not its stages: DVC looks through the whole pipeline again for each name that it is given.
    status = stages if new else json.loads(_dvc(root, "status", "--json", "train") or "{}")
    changed = [stage for stage in stages if stage in status]
    if changed:
        before = lock.read_bytes() if lock.is_file() else b""
        write_bytes(kept, before)
        try:
            _dvc(root, "commit", "--quiet", "--force", *(["train"] if every else changed))
        except BusyError:
            raise  # nothing was written, and what is there by now is the other process's
        except BaseException:
            if before:
                write_bytes(lock, before)
            else:
                lock.unlink(missing_ok=True)
            raise
        finally:
            kept.unlink(missing_ok=True)


def track(root: Path, path: Path) -> str:
    """Put a file or folder below data/ under DVC; the sentence says what was done, or why it was not."""
    if not is_dvc_study(root):
        return f"{path} is not put under DVC: this is no study folder with a pipeline"
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    if size > shutil.disk_usage(root).free:
        return (
            f"{path} is not put under DVC: its cache needs {size / 1e9:.0f} GB more; say `dvc config cache.type "
            f"hardlink` or point `dvc cache dir` at another disk, then `dvc add {path}`"
        )
    hint = f"the data are there; when it is mended, say `dvc add {path}`"
    _dvc(root, "add", "--quiet", str(path), hint=hint, busy=f"wait for it; then say `dvc add {path}`")
    return f"under DVC: {path}.dvc; commit it with the study"


def bring_sample(root: Path, source: str) -> None:
    """Have DVC bring the sample data where `source` is one of them and not there, as in a fresh clone."""
    if is_dvc_study(root) and not (root / source).exists() and Path(source).is_relative_to("data/sample"):
        _dvc(
            root,
            "pull",
            "--quiet",
            "--remote",
            "datastore",
            "data.dvc",
            hint="the sample data are in datastore/ of the repository",
        )


# What DVC says of itself while it works, and nobody can act on.
_OWN_WORDS = re.compile(
    r"(?:Stage )?'.*' didn't change, skipping|Verifying data sources|Running stage|> |Generating lock|Updating lock|"
    r"To track the changes|To enable auto staging|\tgit add|\tdvc config|Use `dvc push`|WARNING: .* is empty|\s*$"
)
_PROGRESS = re.compile(r"\w+ \d+/\d+$")  # of launch.progress, in a pipe
_SECONDS = 5.0  # between two lines of progress


def reproduce(root: Path) -> None:
    """Run the stages that are not up to date: what they say, a line of progress now and then, and not DVC's own words.

    Raises what `_dvc` raises.
    """
    shown, said = time.monotonic(), list[str]()
    command, environment = _command(root, "repro")
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,  # in a group of its own it would be stopped where it reads from the terminal
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # which ends with its stages: DVC leaves them at work when it is ended
    ) as process:
        try:
            for line in process.stdout or ():
                said = [*said[-200:], line]
                if _OWN_WORDS.match(line) or (_PROGRESS.match(line) and time.monotonic() - shown < _SECONDS):
                    continue
                shown = time.monotonic()
                print(line, end="", flush=True)
                said_something()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode:
        raise _failed("repro", "".join(said), _HINT, _WAIT)


_HINT = "the runs are kept; when the cause is mended, run the same command again"
_WAIT = "wait for it; then `twinrun sweep` records what was trained"
_BUSY = ("it is being blocked by", "Unable to acquire lock")  # what DVC says where another of its processes is at work


def _dvc(root: Path, *arguments: str, hint: str = _HINT, busy: str = _WAIT) -> str:
    command, environment = _command(root, *arguments)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _failed(arguments[0], done.stderr, hint, busy)
    return done.stdout or ""


def _command(root: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str((root / ".dvc" / "tmp" / "site").resolve())}
    # The stages' commands are found beside this interpreter, whether or not its environment was activated; a file in
    # the study folder that has a package's name is not imported in its place.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ours = {"PATH": path, "PYTHONSAFEPATH": "1"}
    return [sys.executable, "-m", "dvc", *arguments], environment | dict(os.environ) | ours


def _failed(name: str, stderr: str, hint: str, busy: str) -> TwinrunError:
    """The error of a DVC command that said `stderr`."""
    if any(words in stderr for words in _BUSY):
        others = "".join(f"\n  {line}" for line in re.findall(r"\(PID \d+\): .+", stderr))
        return BusyError(f"DVC is at work in this study folder already{others}", busy)
    said = " ".join(stderr.split())[-800:]
    return InputError(f"dvc {name} failed: {said}", hint)


SHOWN = 20  # missing runs named in one error
PATIENCE_SECONDS = 600.0


def record_finished(root: Path, states: Mapping[Run, str], *, trained: bool = False) -> None:
    """Record in DVC what is finished by `states`, where the study is under it. Call it under `only_one`.

    `trained`: some of it is new for sure.
    """
    if is_dvc_study(root) and not is_up_to_date(root):
        stages = [run.stage for run, state in states.items() if state in FINISHED]
        every = len(stages) == len(states)
        commit_stages(root, stages, every=every, new=trained and every)


def finish(params: Params, root: Path, patience: float = PATIENCE_SECONDS) -> None:
    """Record what is finished and, when every run is, bring collected/, analysis/ and report/ up to date.

    Raises IncompleteError naming the runs that are missing, the others being recorded; BusyError when a sweep stays at
    work in this study folder for longer than `patience` seconds: the finishing jobs of two arrays may well meet.
    """
    if not is_dvc_study(root):
        raise InputError(f"{root.resolve()}: no .dvc and dvc.yaml here", "run in a checkout of the project")
    with only_one(Layout(root).sweep_lock, patience):
        if is_up_to_date(root):
            print("Data and pipelines are up to date.")
            return
        # One look decides all: a run that ends after it is not recorded, and DVC would remove and repeat it.
        states = Watch(params, Layout(root)).look()
        record_finished(root, states)
        missing = [f"{run.id} ({state})" for run, state in states.items() if state not in FINISHED]
        if missing:
            more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise IncompleteError(
                f"{len(missing)} of {len(states)} runs are not there:\n  " + "\n  ".join(missing[:SHOWN]) + more,
                "the others are kept and recorded; `twinrun slurm` or `twinrun sweep` trains only what is missing",
            )
        before = look(root)
        require_outs(before.stages, states)
        reproduce(root)
        note_up_to_date(root, before)


def require_outs(stages: Mapping[str, Any], runs: Iterable[Run]) -> None:
    """InputError for a run that is no output of its stage in DVC's lock: `dvc repro` would replace it by another."""
    layout = Layout(Path())
    for run in runs:
        path = layout.run(run).as_posix()
        if path not in (entry["path"] for entry in stages.get(run.stage, {}).get("outs", ())):
            raise InputError(
                f"dvc.yaml: {path} is no output of the stage {run.stage}, so that DVC would train it again",
                "restore dvc.yaml as the project has it; the runs are kept",
            )


def only_one(lock: Path, patience: float = 0.0) -> AbstractContextManager[None]:
    """Hold `lock` for the length of the block; BusyError when another process has it for longer than `patience`."""
    return hold(lock, "a sweep, or what comes after one, is at work in this study folder already", patience=patience)
