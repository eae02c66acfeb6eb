"""Runs an hour of `twinrun sweep --jobs N` on one device, N against one at a time, and whether the bits are the same.

python benchmarks/sweeping.py [--device cuda] [--jobs 2 4] [--out FILE]      # needs no data: they are drawn

Every round sweeps the same deterministic runs once for each N, beginning with one at a time in even rounds and with the
largest N in odd ones; ratios are taken within a round. Start and end of the processes are part of what is timed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twinrun.study.files import write_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.pins import clean_environment
from twinrun.study.records import read_measured, read_record

STUDY = Path(__file__).with_name("gpu_study.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ways, fingerprints, seconds = sorted({1, *arguments.jobs}), set(), []
    with tempfile.TemporaryDirectory(prefix="twinrun-sweeping-") as name:
        layout = Layout(Path(name))
        options = ["--device", arguments.device, "--task", "preactresnet18"]
        options += ["--runs", str(arguments.runs), "--epochs", str(arguments.epochs)]
        subprocess.run([sys.executable, STUDY, name, *options], check=True)
        for round_ in range(arguments.rounds):
            taken = {}
            for jobs in ways if round_ % 2 == 0 else ways[::-1]:
                taken[jobs], found = sweep(layout, jobs)
                fingerprints |= found
            seconds.append(taken)
    report: dict[str, Any] = {
        "device": arguments.device, "runs": arguments.runs, "epochs": arguments.epochs,
        "seconds": [{str(jobs): taken[jobs] for jobs in ways} for taken in seconds],
        "same_bits": len(fingerprints) == 1,
    }  # fmt: skip
    for jobs in ways:
        ratios = [taken[1] / taken[jobs] for taken in seconds]
        hourly = [3600 * arguments.runs / taken[jobs] for taken in seconds]
        report[f"jobs_{jobs}"] = {"runs_per_hour": statistics.median(hourly), "to_one": ratios}
        print(
            f"--jobs {jobs}: {statistics.median(hourly):.0f} runs an hour; over one at a time "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)"
        )
    print(f"{len(ways) * len(seconds) * arguments.runs} deterministic runs, {len(fingerprints)} different fingerprints")
    if arguments.out:
        write_json(arguments.out, report)
    sys.exit(0 if report["same_bits"] else 4)


def sweep(layout: Layout, jobs: int) -> tuple[float, set[str]]:
    """Seconds of one sweep over all runs, and the fingerprints they end with."""
    shutil.rmtree(layout.root / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "twinrun", "sweep", "--no-record", "--jobs", str(jobs)]
    begin = time.monotonic()
    done = subprocess.run(
        command, cwd=layout.root, env=clean_environment(), check=False, capture_output=True, text=True
    )
    taken = time.monotonic() - begin
    if done.returncode or "memory ran out" in done.stderr:  # then fewer at a time were tried
        sys.exit(f"sweeping.py: --jobs {jobs} failed:\n{done.stderr}")
    params = read_params(layout.root / "params.yaml")
    folders = [layout.run(run) for run in params.runs]
    for folder in folders:
        assert read_measured(folder).shared == (min(jobs, len(folders)) > 1), (
            "a sweep says which of its runs shared the device"
        )
    return taken, {read_record(folder, check_files=True).fingerprints[-1] for folder in folders}


if __name__ == "__main__":
    main()
