"""What `twinrun locate -- CMD` costs a program: processor seconds of a ResNet-18 step, plain and traced, alternating.

And, within each traced process, what of a step goes into the tracer's digests: on a busy machine the steadier figure.

python benchmarks/tracer.py [pairs] [batch] [side]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from twinrun.inspect.following import INJECTED, Follower

STEPS = 6
PROGRAM = """
import sys, time, torch
from torchvision.models import resnet18
batch, side, steps = map(int, sys.argv[1:])
torch.manual_seed(0)
net = resnet18(num_classes=10)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % 10
seconds, shares, spent = [], [], 0.0

def counted(work):
    def call(*args):
        global spent
        begin = time.process_time()
        result = work(*args)
        spent += time.process_time() - begin
        return result
    return call

if "twinrun_tracer" in sys.modules:
    program = sys.modules["twinrun_tracer"].Program
    program._record, program._outermost = counted(program._record), counted(program._outermost)
for step in range(steps):
    begin, spent = time.process_time(), 0.0
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()
    seconds.append(time.process_time() - begin)
    shares.append(spent / (seconds[-1] - spent))
middle = len(seconds[1:]) // 2
print(sorted(seconds[1:])[middle], sorted(shares[1:])[middle])
"""


def step_seconds(batch: int, side: int, *, traced: bool) -> tuple[float, float]:
    """The median step of one fresh process, and the digests over the rest of it; the first step is left out."""
    with tempfile.TemporaryDirectory() as folder, Follower(Path(folder), twins=1) as follower:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if traced:
            plan = {"mode": "steps", "socket": str(follower.path), "twin": 0}
            environment |= {"PYTHONPATH": str(INJECTED), "TWINRUN_TRACE": json.dumps(plan)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(batch), str(side), str(STEPS)],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seen = {key: counts[0] for key, counts in follower.finish().steps.items()}
        assert seen == ({(-1, 0): STEPS} if traced else {})
    seconds, share = map(float, done.stdout.split())
    return seconds, share


def main(pairs: int = 6, batch: int = 32, side: int = 112) -> None:
    """Print each pair, and the median ratio with its range."""
    ratios, shares = [], []
    for number in range(pairs):
        order = (False, True) if number % 2 else (True, False)
        measured = {traced: step_seconds(batch, side, traced=traced) for traced in order}
        (plain, _), (traced, share) = measured[False], measured[True]
        ratios.append(traced / plain)
        shares.append(share)
        print(f"plain {plain:.4f} s, traced {traced:.4f} s, ratio {ratios[-1]:.3f}, digests {share:.3f}", flush=True)
    print(
        f"ResNet-18, batch {batch}, {side} pixels, one thread: a traced step takes {statistics.median(ratios):.3f} "
        f"times the processor time of a plain one (n = {pairs} pairs, {min(ratios):.3f} to {max(ratios):.3f}); "
        f"digests over the rest of a step {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
