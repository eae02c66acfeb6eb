"""How long `twinrun import` takes and how much memory, for 100 runs of 100,000 examples and 10 classes.

    python benchmarks/importing.py [RUNS EXAMPLES CLASSES]

Writes a table of probabilities as CSV and as npz, and one of predicted classes as CSV, and imports each in a process of
its own; seconds are of that process, memory is the largest that it held.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd


def write_tables(folder: Path, runs: int, examples: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    soft = np.empty((runs, examples, classes), np.float32)
    names = [f"image_{n:06}" for n in range(examples)]
    for run in range(runs):
        logits = rng.normal(size=(examples, classes))
        logits[np.arange(examples), labels] += 2
        values = np.exp(logits)
        soft[run] = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
        first = {"model": f"model_{run % 4}", "seed": run // 4, "example": names, "label": labels}
        options = {"index": False, "mode": "a", "header": run == 0}
        frame = pd.DataFrame(soft[run].round(6), columns=[f"p_{n}" for n in range(classes)])
        pd.concat([pd.DataFrame(first), frame], axis=1).to_csv(folder / "probabilities.csv", **options)
        pd.DataFrame(first | {"prediction": soft[run].argmax(axis=1)}).to_csv(folder / "predictions.csv", **options)
    models = np.array([f"model_{run % 4}" for run in range(runs)])
    arrays = {"probabilities": soft, "labels": labels, "model": models, "seed": np.arange(runs) // 4}
    np.savez(folder / "probabilities.npz", **arrays)


def measure(path: Path) -> None:
    begun = time.monotonic()
    command = [sys.executable, "-m", "twinrun", "import", str(path), "--out", str(path.with_suffix(""))]
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    seconds, megabytes = time.monotonic() - begun, int(done.stdout) / 1024
    size = path.stat().st_size / 1e6
    print(f"{path.name:<20} {size:7.0f} MB  {seconds:6.1f} s  {megabytes:6.0f} MB at most", flush=True)


def main() -> None:
    runs, examples, classes = map(int, sys.argv[1:] or (100, 100_000, 10))
    with tempfile.TemporaryDirectory() as name:
        write_tables(Path(name), runs, examples, classes)
        print(f"{runs} runs of {examples:,} examples, {classes} classes")
        for file in ("probabilities.npz", "probabilities.csv", "predictions.csv"):
            measure(Path(name) / file)
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
