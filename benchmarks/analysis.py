"""How long analysis and report take, and how much memory: a made-up study of R runs, as `collect` writes it.

    python benchmarks/analysis.py --runs 180 --folder /tmp/bench

Each size is generated in one process, then analysed and reported in another: a child's peak memory begins at what its
parent holds, so the parent holds nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap

OPTIMIZERS, SEEDS = ("adam", "sgd"), (0, 42, 314, 3407, 180698)
SAMPLED, LAYER_RUNS, FEATURES = 1024, 16, 512  # as `twinrun train` records and `twinrun collect` keeps
READERS = {"one": "cifar10", "two": "sdnet2018", "three": "cbis_ddsm"}


def generate(
    folder: Path, runs: int, examples: int, classes: int, checkpoints: int, head: int, layers: int, images: int
) -> int:
    """Write a collected study of about `runs` runs into `folder`; returns their true number.

    Up to 180 runs have the thesis's three tasks; more are replicates of one task.
    """
    tasks = list(READERS)[: 3 if runs <= 180 else 1]
    cells = len(tasks) * len(OPTIMIZERS) * len(SEEDS)
    labels = ["det_1", *(f"nd_{number}" for number in range(1, max(2, runs // cells)))]
    ids = [f"{t}/{o}/{s}/{label}" for t in tasks for o in OPTIMIZERS for s in SEEDS for label in labels]
    rng = np.random.default_rng(0)
    epochs = list(range(0, checkpoints))
    rows, curves = [], []
    for task in tasks:
        (folder / task).mkdir(parents=True)
        per_task = len(OPTIMIZERS) * len(SEEDS) * len(labels)
        truth = rng.integers(0, classes, examples)
        np.save(folder / task / "labels.npy", truth)
        shape = (per_task, examples, classes)
        probabilities = open_memmap(folder / task / "probabilities.npy", mode="w+", dtype=np.float32, shape=shape)
        heads = open_memmap(
            folder / task / "heads.npy", mode="w+", dtype=np.float32, shape=(per_task, checkpoints, head)
        )
        kept = [row for row in range(per_task) if row % len(labels) <= LAYER_RUNS]
        shape = (len(kept), checkpoints, layers * SAMPLED)
        samples = open_memmap(folder / task / "layers.npy", mode="w+", dtype=np.float32, shape=shape)
        features = rng.normal(size=(len(kept), images, FEATURES)).astype(np.float32)
        np.save(folder / task / "features.npy", features)
        row = 0
        for optimizer in OPTIMIZERS:
            for seed in SEEDS:
                shared = rng.normal(size=(examples, classes)).astype(np.float32)
                shared[np.arange(examples), truth] += 3.5
                start = rng.normal(size=head).astype(np.float32)
                begin = rng.normal(size=layers * SAMPLED).astype(np.float32)
                drift = np.linspace(0, 0.3, checkpoints, dtype=np.float32)[:, None]
                for label in labels:
                    moved = rng.choice(examples, examples // 10, replace=False)
                    logits = shared.copy()
                    logits[moved] += rng.normal(size=(len(moved), classes)).astype(np.float32)
                    exponents = np.exp(logits)
                    probabilities[row] = exponents / exponents.sum(axis=1, keepdims=True)
                    steps = rng.normal(size=(checkpoints, head)).astype(np.float32) * 0.01
                    steps[0] = 0
                    heads[row] = start + steps.cumsum(axis=0)
                    if row in kept:
                        samples[kept.index(row)] = begin + drift * rng.normal(size=begin.size).astype(np.float32)
                    accuracy = float((probabilities[row].argmax(axis=1) == truth).mean())
                    mark = f"{row:064x}"
                    rows.append(_row(task, optimizer, seed, label, accuracy, mark))
                    run = rows[-1]["id"]
                    curves += [
                        (run, epoch, 0.001, 1.0, accuracy, accuracy, accuracy, 1.0, f"{mark}{epoch}")
                        for epoch in epochs[1:]
                    ]
                    row += 1
        del probabilities, heads, samples
    columns = ["id", "epoch", "learning_rate", "train_loss", "accuracy", "f1", "auc", "loss", "fingerprint"]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    pd.DataFrame(curves, columns=columns).to_csv(folder / "curves.csv", index=False)
    measured = pd.DataFrame({"id": ids, "train_seconds": rng.normal(100, 2, len(ids)), "total_seconds": 105.0})
    measured = measured.assign(energy_joules=1e5, energy_note=None, resumed=False, attempts=1, shared=False)
    measured["host.gpu"] = "NVIDIA RTX A6000"
    measured.to_csv(folder / "measured.csv", index=False)
    (folder / "study.json").write_text(
        json.dumps(_info(tasks, labels, ids, examples, classes, epochs, head, layers, images))
    )
    return len(ids)


def _row(task: str, optimizer: str, seed: int, label: str, accuracy: float, mark: str) -> dict[str, object]:
    arm, _, replicate = label.partition("_")
    return {
        "id": f"{task}/{optimizer}/{seed}/{label}", "task": task, "optimizer": optimizer, "seed": seed, "arm": arm,
        "replicate": int(replicate), "label": label, "status": "complete", "device": "cuda",
        "noise": "none" if arm == "det" else "native", "entropy": None, "epochs": 1, "accuracy": accuracy,
        "f1": accuracy, "auc": accuracy, "loss": 1 - accuracy, "initial_fingerprint": "0" * 64, "fingerprint": mark,
        "params_digest": "0" * 64,
    }  # fmt: skip


def _info(
    tasks: list[str],
    labels: list[str],
    ids: list[str],
    examples: int,
    classes: int,
    epochs: list[int],
    head: int,
    layers: int,
    images: int,
) -> dict[str, object]:
    params = {
        task: {
            "title": f"Task {task}", "data": {"reader": READERS[task]}, "model": {"name": "resnet18", "width": 1.0},
            "recipe": {"metric": "accuracy", "epochs": epochs[-1]},
        }
        for task in tasks
    }  # fmt: skip
    described = {
        task: {
            "classes": [f"class {index}" for index in range(classes)], "n_train": 50_000, "n_test": examples,
            "counts": None, "procedural": False, "data_digest": "0" * 64, "head_epochs": epochs,
            "head_shapes": {"weight": [head]}, "head_size": head,
            "layers": [
                {"name": f"block.{number}.weight", "shape": [512, 512, 3, 3], "recorded": SAMPLED}
                for number in range(layers)
            ],
            "layer_rows": [row for row in range(len(ids) // len(tasks)) if row % len(labels) <= LAYER_RUNS],
            "features_shape": [images, FEATURES],
        }
        for task in tasks
    }  # fmt: skip
    return {
        "schema": 1, "study": "benchmark", "code_digest": "0" * 64, "grid_digest": "0" * 64, "runs": ids,
        "grid": {"tasks": tasks, "optimizers": list(OPTIMIZERS), "seeds": list(SEEDS), "runs": labels},
        "execution": {}, "params": params, "tasks": described, "diverged": {}, "flags": {},
        "parameter_counts": dict.fromkeys(tasks, 1),
    }  # fmt: skip


def measure(folder: Path) -> None:
    """Analyse and report the study in `folder`/collected; prints seconds and peak memory as JSON."""
    from twinrun.report.build import analyze
    from twinrun.report.page import write_report

    begin = time.perf_counter()
    analyze(folder / "collected", folder / "analysis")
    analysed = time.perf_counter()
    write_report(folder / "analysis", folder / "collected", folder / "report")
    # Mapped files count while they are mapped: the peak is not flattered.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = {"analyze_seconds": analysed - begin, "report_seconds": time.perf_counter() - analysed, "peak_gib": peak}
    print(json.dumps(times))


def main() -> None:
    """Generate and measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[180, 1000])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--checkpoints", type=int, default=40)
    parser.add_argument("--head", type=int, default=650, help="parameters of the head; the sample study's has 650")
    parser.add_argument("--layers", type=int, default=28, help="of 1,024 coordinates; PreActResNet18 has 28,298")
    parser.add_argument("--images", type=int, default=256, help="whose features are recorded")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/twinrun-bench-analysis"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return
    for wanted in given.runs:
        shutil.rmtree(given.folder, ignore_errors=True)
        shape = (wanted, given.examples, given.classes, given.checkpoints, given.head, given.layers, given.images)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            runs = pool.submit(generate, given.folder / "collected", *shape).result()
        for _ in range(given.repeats):
            command = [sys.executable, __file__, "--measure", str(given.folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            print(f"{runs} runs: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
