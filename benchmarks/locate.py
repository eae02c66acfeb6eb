"""Cost of `twinrun locate` beside one training run: processor time, and peak memory of all its processes.

python benchmarks/locate.py            # in a study folder whose first cells are trained
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import psutil

from twinrun.inspect.first_difference import first_pairs
from twinrun.study.layout import Layout
from twinrun.study.params import read_params


def measure(*command: str) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and peak bytes (proportional set size) of a command with its children."""
    before, begin, peak = os.times(), time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "twinrun", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for one in [watched, *_children(watched)]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.05)
    if process.returncode not in (0, 4):  # 4: they part, which is what is looked for
        sys.exit(f"twinrun {' '.join(command)}: exit {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, used, peak


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    """Print a row for each task."""
    params = read_params(Layout().root / "params.yaml")
    print("| task | run: seconds, processor, memory | locate: seconds, processor, memory | memory, ratio |")
    print("|---|---|---|---|")
    for task, pair in first_pairs(params).items():
        if pair is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = measure("train", pair[0], "--out", folder)
        located = measure("locate", *pair)
        cells = [f"{wall:.1f} s, {used:.1f} s, {peak / 2**20:.0f} MiB" for wall, used, peak in (run, located)]
        print(f"| {task} | {cells[0]} | {cells[1]} | {located[2] / run[2]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
