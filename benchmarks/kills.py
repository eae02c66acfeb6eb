"""A run killed at random moments and started again: does it end with the same record, and is nothing else left?

python benchmarks/kills.py [--kills 20] [--run ID] [--seed 0]       # in a study folder after `twinrun prepare`

Each try begins without a record or checkpoint; every epoch leaves a checkpoint. Exit 1 at the first other record.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from twinrun.study.pins import clean_environment, leaks

if leaks(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())

from twinrun.study.layout import RECORD, Layout
from twinrun.study.params import read_params
from twinrun.study.records import current_code_digest, read_measured
from twinrun.training.loop import Options, train_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--run", help="default: the first of the study")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    params, code = read_params(Path("params.yaml")), current_code_digest()
    run = params.find(arguments.run) if arguments.run else params.runs[0]
    chance, resumed, before = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="twinrun-kills-") as name:
        layout = Layout(Path(), Path(name))
        folder = layout.run(run)

        def train() -> bytes:
            train_run(params, run, layout, code, Options(device=params.execution.device, checkpoint_seconds=0.0))
            return (folder / RECORD).read_bytes()

        train()  # the first loads what the later ones find
        shutil.rmtree(folder)
        begin = time.perf_counter()
        reference = train()
        duration = time.perf_counter() - begin
        for number in range(1, arguments.kills + 1):
            shutil.rmtree(folder)
            child = os.fork()
            if not child:
                train()
                os._exit(0)
            time.sleep(chance.uniform(0, 1.1) * duration)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            before += folder.exists()
            same = train() == reference
            left = sorted(path.name for path in folder.parent.iterdir())
            if not same or left != [folder.name]:
                sys.exit(f"kill {number}: {'another record' if not same else f'left behind: {left}'}")
            resumed += read_measured(folder).resumed
    print(f"{run.id}: {arguments.kills} kills, the same record each time")
    print(f"{resumed} went on from a checkpoint, {before} had ended before the kill")


if __name__ == "__main__":
    main()
