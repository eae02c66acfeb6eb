"""`twinrun slurm`: the scripts of the missing runs, an array and the job after it; and what an array task does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twinrun.launch.progress import say
from twinrun.launch.status import missing_runs
from twinrun.launch.workers import Workers, modules_of
from twinrun.study.errors import BusyError, InputError, MismatchError, plural
from twinrun.study.files import explain_os_error, refuse_pipe, write_text
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params

SCRIPTS = Path(__file__).parent / "scripts"
BUSY, OTHER_GRID = BusyError.exit_code, MismatchError.exit_code
PAUSE_SECONDS, PAUSES = 40, 3
OURS = {"--array": "-a", "--dependency": "-d", "--chdir": "-D", "--wrap": ""}  # what a site may not set


@dataclass(frozen=True)
class Jobs:
    """What is to be submitted; the scripts are a pure function of it.

    `chunks` are the run ids of each array task. Without an `image`, `python` runs the project. `site` and
    `site_finish` are whole `#SBATCH` lines, which win over the ones here.
    """

    study: str
    grid_digest: str
    chunks: tuple[tuple[str, ...], ...]
    python: str
    image: str | None = None
    gpu: bool = False
    at_once: int | None = None
    scratch: bool = False
    site: tuple[str, ...] = ()
    site_finish: tuple[str, ...] = ()
    chunk: int = 1

    @property
    def again(self) -> list[str]:
        """The arguments of `twinrun slurm` that made this."""
        options = ["--chunk", str(self.chunk)]
        options += ["--at-once", str(self.at_once)] if self.at_once else []
        options += ["--image", self.image] if self.image else []
        return options + (["--scratch"] if self.scratch else [])


def chunked(ids: Sequence[str], size: int) -> tuple[tuple[str, ...], ...]:
    """`ids` in pieces of `size`, the last one as long as it comes."""
    return tuple(tuple(ids[start : start + size]) for start in range(0, len(ids), size))


def site_lines(path: Path, text: str) -> tuple[str, ...]:
    """The `#SBATCH` lines of a site file; InputError for what sbatch would not read, or would break the array."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (line.startswith("#") and not line.startswith("#SBATCH")):
            continue
        if not re.match(r"#SBATCH\s+-", line):
            raise InputError(f"{path}, line {number}: {line!r}", "every line is `#SBATCH --option=value`, or a comment")
        option = re.split(r"[=\s]", line.split(None, 1)[1], maxsplit=1)[0]
        for long, short in OURS.items():
            if option == long or (short and not option.startswith("--") and option.startswith(short)):
                raise InputError(f"{path}, line {number}: {long} is set by twinrun", "leave it out")
        lines.append(line.rstrip())
    return tuple(lines)


def array_script(jobs: Jobs) -> str:
    """The job array: task n trains the runs of chunk n, one after the other."""
    throttle = f"%{jobs.at_once}" if jobs.at_once else ""
    directives = [
        f"--job-name=twinrun-{jobs.study}",
        f"--array=0-{len(jobs.chunks) - 1}{throttle}",
        "--output=logs/%A_%a.out",
        "--open-mode=append",  # a requeued task goes on in its log
        "--requeue",
        "--signal=B:USR1@120",  # seconds before the time is up
    ]
    exclusive = any(re.match(r"#SBATCH\s+--exclusive\b(?!=)", line) for line in jobs.site)
    runs = "\n".join(f"  '{' '.join(chunk)}'" for chunk in jobs.chunks)
    count = sum(map(len, jobs.chunks))
    return _script(
        f"{plural(count, 'run')} of the study {jobs.study} in {plural(len(jobs.chunks), 'array task')}; "
        "written by `twinrun slurm`.",
        directives,
        jobs.site,
        _variables(jobs)
        + f"grid={jobs.grid_digest}\n"
        + f"use_scratch={'yes' if jobs.scratch else 'no'}\n"
        # Only --exclusive promises that no other run is on the machine: else the timings are marked.
        + f"options=({'' if exclusive else '--shared'})\n"
        + f"runs=(\n{runs}\n)\n",
        "array.sh",
    )


def finish_script(jobs: Jobs) -> str:
    """The job after the array: records what was trained, makes the report, or says what is missing."""
    return _script(
        f"What comes after the runs of the study {jobs.study}; written by `twinrun slurm`.",
        [f"--job-name=twinrun-{jobs.study}-finish", "--output=logs/finish_%j.out"],
        jobs.site_finish,
        f"{_variables(jobs)}grid={jobs.grid_digest}\n",
        "finish.sh",
    )


def submit_script(jobs: Jobs) -> str:
    """Plain bash that submits both; with --missing, after writing them anew."""
    again = " ".join(map(shlex.quote, jobs.again))
    return _script(
        "Submits slurm/array.sbatch and, after it, slurm/finish.sbatch; with --missing, what is missing by now.",
        [],
        (),
        f"{_variables(jobs)}tasks={len(jobs.chunks)}\nagain=({again})\n",
        "submit.sh",
    )


def _script(title: str, directives: Sequence[str], site: Sequence[str], variables: str, body: str) -> str:
    lines = ["#!/bin/bash", f"# {title}", *(f"#SBATCH {line}" for line in directives), *site, ""]
    return "\n".join(lines) + variables + (SCRIPTS / body).read_text(encoding="utf-8")


def _variables(jobs: Jobs) -> str:
    """How this script runs twinrun."""
    text = f"image={shlex.quote(jobs.image or '')}\n"
    if jobs.image:
        return text + f"gpu={'yes' if jobs.gpu else ''}\n" + (SCRIPTS / "apptainer.sh").read_text(encoding="utf-8")
    # A file in the study folder that has a package's name is not imported in its place.
    return text + f'twinrun() {{ PYTHONSAFEPATH=1 exec {shlex.quote(jobs.python)} -m twinrun "$@"; }}\n'


def write_scripts(
    params: Params, layout: Layout, *, chunk: int, at_once: int | None, image: str | None, scratch: bool
) -> list[str]:
    """Write array.sbatch, finish.sbatch and submit.sh into slurm/; the text of the two jobs.

    Where nothing is missing there is no array. Raises InputError for a site file that sbatch would not read, and
    IncompleteError when tasks are not prepared.
    """
    missing = missing_runs(params, layout)
    site = _site(layout.slurm / "site.sbatch")
    finish_site = layout.slurm / "site-finish.sbatch"
    jobs = Jobs(
        study=params.study,
        grid_digest=params.grid_digest,
        chunks=chunked([run.id for run in missing], chunk),
        python=sys.executable,
        image=image,
        gpu=params.execution.device != "cpu",
        at_once=at_once,
        scratch=scratch,
        site=site,
        site_finish=_site(finish_site) if finish_site.is_file() else site,
        chunk=chunk,
    )
    texts = {"finish.sbatch": finish_script(jobs), "submit.sh": submit_script(jobs)}
    if jobs.chunks:
        texts = {"array.sbatch": array_script(jobs)} | texts
    else:
        (layout.slurm / "array.sbatch").unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(layout.slurm / name, text)
    return [text for name, text in texts.items() if name != "submit.sh"]


def submit(layout: Layout) -> None:
    """Run slurm/submit.sh, which needs nothing but bash and sbatch; InputError when it fails."""
    done = subprocess.run(["bash", str(layout.slurm / "submit.sh")], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().replace("twinrun: ", "")
        raise InputError(f"submitting failed: {said}", "the scripts are in slurm/; `bash slurm/submit.sh` tries again")


def _site(path: Path) -> tuple[str, ...]:
    refuse_pipe(path)
    try:
        return site_lines(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise (
            explain_os_error(error, path) if isinstance(error, OSError) else InputError(f"{path}: not text")
        ) from error


def train_chunk(params: Params, runs: Sequence[Run], root: Path, options: Sequence[str], *, restarted: bool) -> int:
    """An array task: call `twinrun train ID` with `options` for each of `runs`; the last exit code that is not 0, or 0.

    Several runs are children of one worker server. What a run says is shown as it comes. One that another process has
    is left to it: of a task that SLURM started again (`restarted`) only after two minutes, for of a node that died, a
    file server may hold the locks a little longer. After params that were changed nothing more is tried.
    """
    code = 0
    modules = modules_of(params, {run.task for run in runs}) if len(runs) > 1 else ()
    with Workers(root, modules, cpu_bits=params.execution.cpu_bits) as workers:
        for run in runs:
            for _ in range(PAUSES if restarted else 0):
                if (ended := _train(workers, run, options)) != BUSY:
                    break
                time.sleep(PAUSE_SECONDS)
            else:
                ended = _train(workers, run, options)
            if ended == BUSY:
                print(f"{run.id} is left to the process that is training it", flush=True)
            elif ended:
                code = ended
                say(f"twinrun: {run.id} failed with exit code {code}")
            if ended == OTHER_GRID:
                break
    return code


def _train(workers: Workers, run: Run, options: Sequence[str]) -> int:
    """The exit code, as a shell gives it: 128 and the signal of one that a signal ended."""
    code = workers.run(["train", run.id, *options], shown=True).code
    return 128 - code if code < 0 else code
