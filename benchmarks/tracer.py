"""What `twinrun locate -- CMD` costs a program: processor seconds of a ResNet-18 step, plain and traced, alternating.

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
seconds = []
for step in range(steps):
    begin = time.process_time()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()
    seconds.append(time.process_time() - begin)
print(sorted(seconds[1:])[len(seconds[1:]) // 2])
"""


def step_seconds(batch: int, side: int, *, traced: bool) -> float:
    """The median step of one fresh process; the first, which loads kernels, is left out."""
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
    return float(done.stdout)


def main(pairs: int = 6, batch: int = 32, side: int = 112) -> None:
    """Print each pair, and the median ratio with its range."""
    ratios = []
    for number in range(pairs):
        order = (False, True) if number % 2 else (True, False)
        seconds = {traced: step_seconds(batch, side, traced=traced) for traced in order}
        ratios.append(seconds[True] / seconds[False])
        print(f"plain {seconds[False]:.4f} s, traced {seconds[True]:.4f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"ResNet-18, batch {batch}, {side} pixels, one thread: a traced step takes {statistics.median(ratios):.3f} "
        f"times the processor time of a plain one (n = {pairs} pairs, {min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
