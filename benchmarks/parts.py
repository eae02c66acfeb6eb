"""Where a run's processor time goes, from the start of its process to its end: parts, and their share of the whole.

python benchmarks/parts.py STUDY RUN [--rounds 3] [--server]     # STUDY: a folder whose task is prepared

Each round is a fresh process in the pinned environment that trains the run into a temporary folder. A part is what its
functions took without those of another part that they called; `other` is the rest. Processor time, so that other work
on the machine hardly matters. With --server, the process is forked from one that has loaded what a run needs, as a
sweep does it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = {
    "training": ["loop.train_epoch"],
    "evaluation": ["loop.evaluate"],
    "metrics": ["loop.evaluate_metrics"],
    "features of images": ["loop.features_of"],
    "fingerprints": ["loop.fingerprint", "setup.fingerprint"],
    "recorded weights": ["loop.recorded_weights", "loop.describe_weights"],
    "checkpoints": ["loop.save_checkpoint", "loop.load_checkpoint"],
    "data: reading and checking": ["setup.load_packed"],
    "flags, device, energy": ["loop.set_conditions", "loop.energy_meter", "loop.refuse_hidden_shortage"],
    "model, optimizer, data to the device": ["loop.assemble"],
    "record": ["outcome.publish"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", action="store_true", help="fork the run's process from one that has the imports")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.run, forked=options.server)
        return
    from twinrun.study.pins import clean_environment

    rounds: list[dict[str, float]] = []
    command = [sys.executable, str(Path(__file__).resolve()), str(options.study), options.run, "--child"]
    command += ["--server"] if options.server else []
    for _ in range(options.rounds):
        done = subprocess.run(
            command, cwd=options.study, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{options.run}: processor time, median of {len(rounds)} (min to max), load {os.getloadavg()[0]:.1f}")
    for part in rounds[0]:
        values = [taken[part] for taken in rounds]
        share = statistics.median(taken[part] / taken["whole"] for taken in rounds)
        print(f"{part:38} {statistics.median(values):7.3f} s ({min(values):.3f} to {max(values):.3f}) {share:6.1%}")


def child(run_id: str, *, forked: bool) -> None:
    """Train the run and print the parts as JSON."""
    taken: defaultdict[str, float] = defaultdict(float)
    started = time.process_time()
    import torch  # noqa: F401

    taken["import torch"] = time.process_time() - started
    from twinrun.study.layout import Layout
    from twinrun.study.params import read_params
    from twinrun.study.records import current_code_digest
    from twinrun.training import loop, outcome, setup

    taken["interpreter and other imports"] = time.process_time() - taken["import torch"]
    if forked and (process := os.fork()):
        os.waitpid(process, 0)
        return
    if forked:
        taken.clear()
    first: list[float] = []  # when the first update was done
    nested = [0.0]  # seconds of the parts inside each part that is open

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def measured(*arguments: Any, **options: Any) -> Any:
            nested.append(0.0)
            begin = time.process_time()
            try:
                return call(*arguments, **options)
            finally:
                spent = time.process_time() - begin
                taken[part] += spent - nested.pop()
                nested[-1] += spent

        return measured

    original = loop.updates

    def updates(*arguments: Any) -> Iterator[Any]:
        for update in original(*arguments):
            first.append(time.process_time())
            loop.updates = original
            yield update

    loop.updates = updates
    modules = {"loop": loop, "setup": setup, "outcome": outcome}
    for part, names in PARTS.items():
        for name in names:
            module, function = name.split(".")
            setattr(modules[module], function, timed(part, getattr(modules[module], function)))
    params = read_params(Path("params.yaml"))
    run = params.find(run_id)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(), Path(folder))
        loop.train_run(params, run, layout, current_code_digest(), loop.Options(device=params.execution.device))
    whole = time.process_time()
    taken["other"] = whole - sum(taken.values())
    print(
        json.dumps(
            dict(sorted(taken.items(), key=lambda item: -item[1]))
            | {"whole": whole, "up to the first update": first[0]}
        )
    )


if __name__ == "__main__":
    main()
