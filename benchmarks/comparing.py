"""How long `twinrun compare` takes on 2 x 1,000 runs, in fresh processes: `python benchmarks/comparing.py [TIMES]`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main(times: int) -> None:
    rng, wall, processor = np.random.default_rng(0), [], []
    rows = [f"{name},{rng.normal():.6f}" for name in "ab" for _ in range(1000)]
    command = [sys.executable, "-m", "twinrun", "compare", "runs.csv", "--metric", "score", "--by", "model"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs.csv").write_text("\n".join(["model,score", *rows]))
        for _ in range(times):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall.append(time.perf_counter() - start)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for name, seconds in (("wall", wall), ("processor", processor)):
        print(f"{name}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}, n {times}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
