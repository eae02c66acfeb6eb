"""Images a second on one device: this loop, the classic loop with DataLoader workers, and no data work at all.

python benchmarks/throughput.py [--device cuda] [--seconds 5] [--out FILE]     # needs no data: they are drawn

CIFAR-10's shape, PreActResNet18, batch 128, SGD; the rivals alternate in this process, medians of ratios are printed.
On a GPU the ceiling is a CUDA graph of the step on a constant batch: the same kernels, none launched by itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twinrun.study.pins import clean_environment, leaks

if leaks(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from twinrun.data.packed import PACKED_SCHEMA, chunk_digests, data_digest, load_packed
from twinrun.study.files import sha256_file, write_json
from twinrun.study.flags import flags_for
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.training.batches import Batch
from twinrun.training.environment import host_facts, versions
from twinrun.training.loop import begin_epoch, train_step
from twinrun.training.setup import Setup, assemble, set_conditions

BATCH = 128
GRAPH = "constant batch, graph"
PARAMS = """
schema: 1
study: throughput
grid: {{tasks: [drawn], optimizers: [sgd], seeds: [0], runs: [det_1, nd_1]}}
execution: {{device: {device}, noise: auto, precision: {precision}, channels_last: {channels_last},
            fill_uninitialized_memory: false}}
tasks:
  drawn:
    title: Drawn
    data: {{reader: cifar10, source: data/drawn_by_the_benchmark, image_size: 32}}
    model: {{name: preactresnet18, width: {width}}}
    recipe: {{epochs: 1, batch_size: 128, heads_every: 1, metric: accuracy,
             augment: {{crop_padding: 4, horizontal_flip: true}}}}
    optimizers:
      sgd: {{lr: 0.01, momentum: 0.9, weight_decay: 0.0005, schedule: {{kind: cosine, t_max_epochs: 200}}}}
"""


class Classic(Dataset[tuple[torch.Tensor, int]]):
    """What tutorials do: a PIL image for each example, torchvision's transforms in worker processes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images.transpose(0, 2, 3, 1), labels
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def study(folder: Path, images: int, arguments: argparse.Namespace) -> tuple[Params, Layout]:
    """A study folder with drawn images, packed as `twinrun prepare` does."""
    (folder / "params.yaml").write_text(PARAMS.format(
        device=arguments.device, precision=arguments.precision, width=arguments.width,
        channels_last=str(arguments.channels_last).lower(),
    ))  # fmt: skip
    params, layout = read_params(folder / "params.yaml"), Layout(folder)
    packed, rng = layout.prepared("drawn"), np.random.default_rng(0)
    packed.mkdir(parents=True)
    np.save(packed / "images.npy", rng.integers(0, 256, (images + BATCH, 3, 32, 32), np.uint8))
    np.save(packed / "labels.npy", rng.integers(0, 10, images + BATCH))
    (packed / "ids.csv").write_text("index,id,split,label,class,group\n")
    manifest: dict[str, Any] = {
        "schema": PACKED_SCHEMA, "task": "drawn", "classes": [str(i) for i in range(10)], "n_train": images,
        "n_test": BATCH, "channels": 3, "image_size": 32, "channel_mean": [0.5] * 3, "channel_std": [0.25] * 3,
        "params_digest": params.data_params_digest("drawn"),
        "chunks": chunk_digests(packed / "images.npy", 3 * 32 * 32, images + BATCH),
        "files": {name: sha256_file(packed / name) for name in ("labels.npy", "ids.csv")},
    }  # fmt: skip
    write_json(packed / "manifest.json", manifest | {"digest": data_digest(manifest)})
    return params, layout


def setup_of(params: Params, layout: Layout, device: torch.device) -> Setup:
    """A free run of the study, ready."""
    tf32 = params.execution.precision == "tf32"
    free = flags_for(deterministic=False, tf32=tf32, fill_uninitialized_memory=False)
    return assemble(set_conditions(params, params.runs[0], layout, device.type, instead=free))


def ours(setup: Setup) -> Iterator[None]:
    """Steps as a run makes them."""
    epoch = 0
    while True:
        begin_epoch(setup, epoch)
        for batch in setup.batches.train(epoch):
            train_step(setup, batch)
            yield
        epoch += 1


def constant(setup: Setup) -> Iterator[None]:
    """The same model, optimizer and step on one batch that is on the device already."""
    begin_epoch(setup, 0)
    batch = next(setup.batches.train(0))
    batch = Batch(batch.images.clone(), batch.labels.clone(), None)
    while True:
        train_step(setup, batch)
        yield


def graph(setup: Setup) -> Iterator[None]:
    """The step on a constant batch, captured once and replayed: a ceiling that no launches hold up."""
    begin_epoch(setup, 0)
    batch = next(setup.batches.train(0))
    batch = Batch(batch.images.clone(), batch.labels.clone(), None)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # autotuning and the optimizer's state come before the capture
        for _ in range(3):
            train_step(setup, batch)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        train_step(setup, batch)
    while True:
        captured.replay()
        yield


def classic(setup: Setup, data: Classic, workers: int, device: torch.device) -> Iterator[None]:
    """The classic loop: DataLoader, one transfer a batch, loss.item() every 100 steps for the progress line."""
    model, optimizer = setup.model, setup.optimizer
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda",
                        persistent_workers=workers > 0)  # fmt: skip
    model.train()
    count = 0
    while True:
        for images, labels in loader:
            loss = functional.cross_entropy(model(images.to(device, non_blocking=True)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += 1
            if count % 100 == 0:
                loss.item()
            yield


def images_per_second(steps: Iterator[None], device: torch.device, seconds: float, ready: int) -> float:
    """Steps for about so many seconds, the device waited for at both ends; the first `ready` are not counted."""
    for _ in range(ready):
        next(steps)
    wait(device)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(steps)
        count += 1
        if device.type == "cuda" and count % 50 == 0:
            wait(device)  # else the queue runs ahead of the clock
    wait(device)
    return count * BATCH / (time.perf_counter() - begin)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product on the device, on a CPU on one thread.

    float32 with TF32 as it is set.
    """
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        wait(device)
        begin = time.perf_counter()
        for _ in range(10):
            a @ a
        wait(device)
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - begin))
    return best


def flops_unit(value: float) -> str:
    """`31.2 GFLOP/s`: with the prefix that leaves one to three digits before the point."""
    prefix, factor = next((p, f) for p, f in (("T", 1e12), ("G", 1e9), ("M", 1e6)) if value >= f or p == "M")
    return f"{value / factor:.1f} {prefix}FLOP/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="tf32", help="of this loop and the constant batch")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rival in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        params, layout = study(Path(folder), arguments.images, arguments)
        packed = load_packed(layout.prepared("drawn"), params.data_params_digest("drawn"))
        data = Classic(np.array(packed.images[: packed.n_train]), np.array(packed.labels[: packed.n_train]))
        flags = setup_of(params, layout, device).conditions.flags
        # While nothing else runs: the workers of the classic loop would take the processor from it.
        peak = peak_flops(device, torch.bfloat16 if arguments.precision == "bf16" else torch.float32)
        # The classic loop has PyTorch's default: TF32 in convolutions and not in matrix products, no mixed precision.
        plain = params.model_copy(update={"execution": params.execution.model_copy(
            update={"precision": "fp32", "channels_last": False})})  # fmt: skip
        rivals: dict[str, Callable[[], Iterator[None]]] = {
            "ours": lambda: ours(setup_of(params, layout, device)),
            "constant batch": lambda: constant(setup_of(params, layout, device)),
        }
        # Each worker makes two batches ahead, while the rivals run: those are not counted.
        workers = {"classic, 2 workers": 2, "classic, 8 workers": 8}
        for name, count in workers.items():
            rivals[name] = partial(lambda n: classic(setup_of(plain, layout, device), data, n, device), count)
        if device.type == "cuda":
            rivals[GRAPH] = lambda: graph(setup_of(params, layout, device))
        running = {name: make() for name, make in rivals.items()}

        def measure(name: str, seconds: float) -> float:
            torch.backends.cudnn.allow_tf32 = name.startswith("classic") or arguments.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = not name.startswith("classic") and arguments.precision == "tf32"
            return images_per_second(running[name], device, seconds, 2 * workers.get(name, 0))

        for name in list(running):
            try:
                measure(name, min(arguments.seconds, 3.0))  # warm-up: autotuning, worker processes
            except RuntimeError as error:
                if name != GRAPH:
                    raise
                print(f"{name}\tnot measured: {str(error).splitlines()[0]}")
                del running[name]
        rounds = []
        for number in range(arguments.rounds):
            order = list(running)[:: 1 if number % 2 else -1]
            rounds.append({name: measure(name, arguments.seconds) for name in order})
        counter = FlopCounterMode(display=False)
        setup = setup_of(params, layout, device)
        begin_epoch(setup, 0)
        with counter:
            train_step(setup, next(setup.batches.train(0)))
        flops = {"step": counter.get_total_flops(), "peak_per_second": peak}
    ratios = {name: statistics.median(r["ours"] / r[name] for r in rounds) for name in running if name != "ours"}
    speed = {name: statistics.median(r[name] for r in rounds) for name in running}
    share = speed["ours"] / BATCH * flops["step"] / flops["peak_per_second"]
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()}
    result = {"settings": settings, "flags": flags, "rounds": rounds, "images_per_second": speed,
              "ours_over": ratios, "flops": flops, "share_of_measured_peak": share,
              "host": host_facts(device), "versions": versions(device)}  # fmt: skip
    for name, value in speed.items():
        over = f"\tours over it {ratios[name]:.3f}" if name in ratios else ""
        print(f"{name}\t{value:,.0f} images/s{over}")
    of = "a large matrix product" + (" on one thread" if device.type == "cpu" else "")
    print(f"floating-point operations: {100 * share:.1f} % of the {flops_unit(peak)} of {of}")
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
