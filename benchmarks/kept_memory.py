"""What a run on a CPU gains by keeping freed memory, and what that takes: steps in alternating fresh processes.

    python benchmarks/kept_memory.py [--pairs 5] [--steps 12]

Each process makes steps of a network, one thread, as its allocator is or after `keep_freed_memory`, and tells the
processor time of all but the first three and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

# Model, side of the images, batch.
CASES = [("preactresnet18", 32, 32), ("resnet18", 64, 32), ("resnet18", 128, 32), ("mobilenet_v3_large", 256, 32)]
WARM_UP = 3


def child(name: str, side: int, batch: int, steps: int, kept: bool) -> None:
    """Print the processor seconds of the steps, which share of them is the system's, and the peak memory."""
    import torch

    from twinrun.study.schema_model import ModelSpec
    from twinrun.training.models import build_model
    from twinrun.training.setup import keep_freed_memory

    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    model = build_model(ModelSpec(name=name), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % 2
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            began, system = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.process_time() - began
    print(json.dumps([seconds, (usage.ru_stime - system) / seconds, usage.ru_maxrss / 2**20]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, side, batch, kept = arguments.child
        child(name, int(side), int(batch), arguments.steps, kept == "kept")
        return
    print("| network, images | kept / plain: processor time | peak memory | the system's share: plain, kept |")
    print("|---|---|---|---|")
    for name, side, batch in CASES:
        seen: dict[str, list[list[float]]] = {"plain": [], "kept": []}
        for pair in range(arguments.pairs):
            for way in ("plain", "kept") if pair % 2 else ("kept", "plain"):
                call = [sys.executable, __file__, "--steps", str(arguments.steps)]
                words = [*call, "--child", name, str(side), str(batch), way]
                seen[way].append(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
        pairs = list(zip(seen["kept"], seen["plain"], strict=True))
        times, memory = (spread([kept[place] / plain[place] for kept, plain in pairs]) for place in (0, 2))
        shares = ", ".join(f"{100 * statistics.median(row[1] for row in seen[way]):.0f} %" for way in ("plain", "kept"))
        print(f"| {name}, {batch} x {side} x {side} | {times} | {memory} | {shares} |", flush=True)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
