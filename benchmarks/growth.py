"""How what comes after training grows with the number of runs: seconds, processor time and peak memory of each step.

python -m benchmarks.growth [--runs 72 720] [--folder FOLDER]

Made-up records of the sample study's size, written by the code that writes real ones, with more replicates in each
cell. Every step is a fresh process: `status` (what `twinrun sweep` looks at before and after), `collect`, `analyze`,
`report`; and by itself what DVC takes: `dvc commit` records all runs, as a sweep does at its end, `dvc again` finds
that all are recorded already.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tests.collect.synthetic import CODE, Synthetic, make_params, write_study

from twinrun.launch.dvc import commit_stages
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params

REPOSITORY = Path(__file__).parents[1]
STEPS = ("status", "collect", "analyze", "report", "dvc commit", "dvc again")
CELLS = 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[72, 720])
    parser.add_argument("--folder", type=Path, help="where the study is made; default: a temporary folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        measure(options.step[0], Path(options.step[1]))
        return
    for runs in options.runs:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            root = Path(name)
            write(root, runs)
            for step in options.steps:
                command = [sys.executable, "-m", "benchmarks.growth", "--step", step, str(root)]
                done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
                print(f"{runs} runs, {step}: {done.stdout.splitlines()[-1]}, load {os.getloadavg()[0]:.1f}", flush=True)


def write(root: Path, runs: int) -> None:
    """A study of so many finished runs under DVC."""
    labels = ("det_1", *(f"nd_{number}" for number in range(1, runs // CELLS)))
    spec = Synthetic(runs=labels, n_test=300)
    content = make_params(spec).model_dump(mode="json", exclude_defaults=True, by_alias=True)
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    write_study(root, spec)
    for name in ("data", "models"):
        (root / name).mkdir()
        (root / name / "none").touch()
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")


def measure(step: str, root: Path) -> None:
    """Do the step and print what it took, its children included."""
    params, layout = read_params(root / "params.yaml"), Layout(root)
    begin, used = time.monotonic(), processor_seconds()
    do(step, params, layout)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    taken = time.monotonic() - begin, processor_seconds() - used
    print(f"{taken[0]:.1f} s, processor {taken[1]:.1f} s, peak {peak / 2**20:.2f} GiB")


def do(step: str, params: Params, layout: Layout) -> None:
    """One step of what comes after training."""
    if step == "status":
        from twinrun.launch.status import count
        from twinrun.study.records import prepared_digest

        data = {task: prepared_digest(layout, task) for task in params.grid.tasks}
        states = {run: params.state_of(run, layout, data[run.task], CODE) for run in params.runs}
        assert count(states) == f"{len(params.runs)} runs: {len(params.runs)} complete", count(states)
    elif step == "collect":
        from twinrun.collect.collect import collect

        collect(params, layout, code_digest=CODE)
    elif step == "analyze":
        from twinrun.report.build import analyze

        analyze(layout.collected, layout.analysis)
    elif step == "report":
        from twinrun.report.page import write_report

        write_report(layout.analysis, layout.collected, layout.report)
    else:
        lock = layout.root / "dvc.lock"
        before = lock.read_bytes() if lock.exists() else b""
        # As a sweep that trained them all does, and as one that finds all there.
        commit_stages(layout.root, [run.stage for run in params.runs], every=True, new=step == "dvc commit")
        assert (lock.read_bytes() == before) == (step == "dvc again")
        assert lock.read_bytes().count(b"train@") == len(params.runs)


def processor_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
