"""How long `twinrun import` takes and how much memory, for 100 runs of 100,000 examples and 10 classes.

    python benchmarks/importing.py [RUNS EXAMPLES CLASSES]

Writes a table of probabilities as CSV and as npz, and one of predicted classes as CSV, and imports each in a process of
its own: its processor time, and the most memory that it held. Four runs are drawn, and come again under other names.
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

DRAWN = 4


def write_tables(folder: Path, runs: int, examples: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    names = [f"image_{n:06}" for n in range(examples)]
    soft, texts = [], []
    for _ in range(min(DRAWN, runs)):
        logits = rng.normal(size=(examples, classes))
        logits[np.arange(examples), labels] += 2
        values = np.exp(logits)
        soft.append((values / values.sum(axis=1, keepdims=True)).astype(np.float32))
        first = pd.DataFrame({"example": names, "label": labels})
        frame = pd.DataFrame(soft[-1].round(6), columns=[f"p_{n}" for n in range(classes)])
        tables = (pd.concat([first, frame], axis=1), first.assign(prediction=soft[-1].argmax(axis=1)))
        texts.append([table.to_csv(index=False).encode() for table in tables])
    for place, name in enumerate(("probabilities.csv", "predictions.csv")):
        with (folder / name).open("wb") as stream:
            for run in range(runs):
                header, _, body = texts[run % len(texts)][place].partition(b"\n")
                stream.write(header + b",model,seed\n" if run == 0 else b"")
                stream.write(body.replace(b"\n", f",model_{run % 4},{run // 4}\n".encode()))
    models = np.array([f"model_{run % 4}" for run in range(runs)])
    stacked = np.stack([soft[run % len(soft)] for run in range(runs)])
    np.savez(
        folder / "probabilities.npz", probabilities=stacked, labels=labels, model=models, seed=np.arange(runs) // 4
    )


def measure(path: Path) -> None:
    begun = time.monotonic()
    command = [sys.executable, "-m", "twinrun", "import", str(path), "--out", str(path.with_suffix(""))]
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_maxrss, used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    kilobytes, seconds = done.stdout.split()
    wall, size = time.monotonic() - begun, path.stat().st_size / 1e6
    print(
        f"{path.name:<20} {size:7.0f} MB  {float(seconds):6.1f} s of processor time, {wall:6.1f} s  "
        f"{int(kilobytes) / 1024:6.0f} MB at most",
        flush=True,
    )


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
