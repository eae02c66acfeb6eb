"""Synthetic runs in the exact format of real ones, written through the real `write_record`."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from twinrun.collect.load import DIGESTS
from twinrun.study.files import digest, sha256_bytes, sha256_file, write_json, write_text
from twinrun.study.grid import Run
from twinrun.study.layout import COMPUTED_FILES, CURVE, PREDICTIONS, WEIGHTS, Layout
from twinrun.study.params import Params
from twinrun.study.records import Measured, Metrics, Noise, Record, write_record

CODE = "c" * 64

_READERS: dict[str, dict[str, Any]] = {
    "digits": {"reader": "cifar10"},
    "own": {"reader": "image_folder", "test_share": 0.25, "split_seed": 0},
    "cracks": {"reader": "sdnet2018", "test_share": 0.25, "split_seed": 0, "procedural": True},
    "mammograms": {"reader": "cbis_ddsm", "view": "full", "procedural": True},
}
_TITLES = {
    "digits": "Handwritten digits",
    "own": "A data set of one's own",
    "cracks": "Concrete cracks (procedural images)",
    "mammograms": "Mammograms (procedural images)",
}
_METRIC = {"digits": "accuracy", "own": "accuracy", "cracks": "f1", "mammograms": "auc"}
# All but the head: large, small, starting at one, at zero, and one that never moves.
LAYERS = {
    "conv1.weight": (16, 3, 3, 3), "norm.weight": (16,), "norm.bias": (16,), "deep.0.weight": (32, 16, 3, 3),
    "deep.0.bias": (32,), "deep.1.weight": (64, 32, 1, 1),
}  # fmt: skip
_CLASSES = {"digits": 10, "own": 3, "cracks": 2, "mammograms": 2}


@dataclass
class Synthetic:
    """What to write; the defaults are a small sample study."""

    tasks: tuple[str, ...] = ("digits", "cracks", "mammograms")
    optimizers: tuple[str, ...] = ("adam", "sgd")
    seeds: tuple[int, ...] = (0, 42, 314)
    runs: tuple[str, ...] = ("det_1", "nd_1", "nd_2", "nd_3")
    epochs: int = 5
    n_test: int = 60
    features: int = 8
    feature_images: int = 12  # whose features are recorded; 0: none
    frozen: bool = False  # nothing but the head ever moves
    noise: str = "reorder"
    classes: int | None = None  # of every task; None: those of the sample study
    spread: float = 0.06  # share of examples on which a twin draws anew
    ties: bool = False  # every run of a cell gives the same results
    diverged: frozenset[str] = field(default_factory=frozenset)
    no_auc: bool = False

    def class_count(self, task: str) -> int:
        return self.classes or _CLASSES[task]


def make_params(spec: Synthetic) -> Params:
    optimizer = {"lr": 0.001, "schedule": {"kind": "cosine", "t_max_epochs": spec.epochs}}
    tasks = {
        task: {
            "title": _TITLES[task],
            "data": {"source": f"data/{task}.zip", "image_size": 16, **_READERS[task]},
            "model": {"name": "resnet18", "width": 0.125},
            "recipe": {"epochs": spec.epochs, "batch_size": 8, "heads_every": 1, "metric": _METRIC[task]},
            "optimizers": dict.fromkeys(spec.optimizers, optimizer),
        }
        for task in spec.tasks
    }
    grid = {
        "tasks": list(spec.tasks),
        "optimizers": list(spec.optimizers),
        "seeds": list(spec.seeds),
        "runs": list(spec.runs),
    }
    device = "cuda" if spec.noise == "native" else "cpu"
    execution = {"device": device, "noise": "auto", "precision": "fp32", "fill_uninitialized_memory": False}
    return Params.model_validate(
        {"schema": 1, "study": "synthetic", "grid": grid, "execution": execution, "tasks": tasks}
    )


def write_study(root: Path, spec: Synthetic | None = None) -> tuple[Params, Layout]:
    """Write prepared/ and runs/ of a whole synthetic study below `root`."""
    spec = spec or Synthetic()
    params, layout = make_params(spec), Layout(root)
    for task in spec.tasks:
        write_manifest(layout, spec, task)
    for run in params.runs:
        write_run(params, layout, spec, run)
    return params, layout


def write_manifest(layout: Layout, spec: Synthetic, task: str) -> None:
    classes = [f"class {index}" for index in range(spec.class_count(task))]
    counts = {"train": [10] * len(classes), "test": np.bincount(_labels(spec, task), minlength=len(classes)).tolist()}
    write_json(
        layout.prepared(task) / "manifest.json",
        {
            "classes": classes,
            "n_train": 10 * len(classes),
            "n_test": spec.n_test,
            "procedural": bool(_READERS[task].get("procedural", False)),
            "counts": counts,
            "digest": digest(task),
            "params_digest": make_params(spec).data_params_digest(task),
            "remarks": [f"remark on {task}"],
        },
    )


def _rng(*keys: object) -> np.random.Generator:
    return np.random.default_rng(int(digest([str(key) for key in keys])[:15], 16))


def _labels(spec: Synthetic, task: str) -> np.ndarray:
    return _rng("labels", task).integers(0, spec.class_count(task), spec.n_test)


def write_run(params: Params, layout: Layout, spec: Synthetic, run: Run, **changes: Any) -> Record:
    """Write one run; `changes` replace fields of its record before it is sealed."""
    folder = layout.run(run)
    folder.mkdir(parents=True, exist_ok=True)
    label = run.cell if run.arm == "det" or spec.ties else run.id
    rng, shared = _rng("run", label), _rng("cell", run.cell)
    labels, n_classes = _labels(spec, run.task), spec.class_count(run.task)
    diverged = run.id in spec.diverged
    epochs = 2 if diverged else spec.epochs

    logits = shared.normal(size=(spec.n_test, n_classes))
    logits[np.arange(spec.n_test), labels] += 2.2
    moved = rng.random(spec.n_test) < spec.spread * (1.6 if run.optimizer == "adam" else 1.0)
    logits[moved] += 2.0 * rng.normal(size=(int(moved.sum()), n_classes))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    f1 = accuracy - 0.01 * float(rng.random())
    auc = None if spec.no_auc else min(1.0, 0.5 + accuracy / 2 + 0.01 * float(rng.random()))
    metrics = Metrics(accuracy=accuracy, f1=f1, auc=auc, loss=1.2 - accuracy)

    kept = slice(0, 0) if diverged else slice(None)
    head = shared.normal(size=(n_classes, spec.features)).astype(np.float32)
    tensors = {}
    for epoch in range(epochs + 1):
        step = rng.normal(size=head.shape).astype(np.float32) * np.float32(0.02 * epoch)
        tensors[f"{epoch:05d}/fc.weight"] = head + step
        tensors[f"{epoch:05d}/fc.bias"] = np.zeros(n_classes, np.float32)
    arrays = {}
    if spec.feature_images and not diverged:
        common = shared.normal(size=(spec.feature_images, spec.features))
        arrays["features"] = (common + 0.3 * rng.normal(size=common.shape)).astype(np.float32)
    np.savez(folder / PREDICTIONS, probabilities=probabilities[kept], labels=labels[kept], **arrays)
    for name, shape in LAYERS.items():
        recorded = (1024,) if math.prod(shape) > 1024 else shape
        if name == "norm.weight":
            start, scale = np.ones(recorded), 0.01
        elif name.endswith("bias"):
            start, scale = np.zeros(recorded), 0.01 * (name == "norm.bias")
        else:
            start, scale = shared.normal(size=recorded), 0.02
        for epoch in range(epochs + 1):
            step = 0 if spec.frozen else scale * epoch * rng.normal(size=recorded)
            tensors[f"{epoch:05d}/{name}"] = (start + step).astype(np.float32)
    shapes = {name: list(shape) for name, shape in LAYERS.items()}
    shapes |= {"fc.weight": list(head.shape), "fc.bias": [n_classes]}
    described = json.dumps({"head": ["fc.weight", "fc.bias"], "shapes": shapes})
    save_file(tensors, folder / WEIGHTS, metadata={"parameters": described})

    prints = [sha256_bytes(f"{label} {epoch}".encode()) for epoch in range(1, epochs + 1)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["epoch", "learning_rate", "train_loss", "accuracy", "f1", "auc", "loss", "fingerprint"])
    for epoch in range(1, epochs + 1):
        share = epoch / spec.epochs
        value = "" if auc is None else repr(auc * share)
        loss = "nan" if diverged and epoch == epochs else repr(1 / epoch)
        cells = [0.001, loss, accuracy * share, f1 * share, value, 1.2 - accuracy * share, prints[epoch - 1]]
        writer.writerow([epoch, *cells])
    write_text(folder / CURVE, stream.getvalue())

    free = run.free_noise
    record = Record(
        run=run.id,
        task=run.task,
        optimizer=run.optimizer,
        seed=run.seed,
        arm=run.arm,
        replicate=run.replicate,
        status="diverged" if diverged else "complete",
        params_digest=params.run_digest(run),
        code_digest=CODE,
        data_digest=digest(run.task),
        device="cuda" if spec.noise == "native" else "cpu",
        noise=Noise(
            kind=spec.noise if free else "none",  # type: ignore[arg-type]
            entropy=digest(run.id)[:32] if free and spec.noise != "native" else None,
        ),
        flags={"deterministic": not free},
        parameter_count=1000,
        initial_fingerprint=sha256_bytes(run.cell.encode()),
        fingerprints=prints,
        metrics=None if diverged else metrics,
        note="the loss was nan in epoch 2" if diverged else None,
        files={name: sha256_file(folder / name) for name in COMPUTED_FILES},
    )
    record = record.model_copy(update=changes)
    measured = Measured(
        run=run.id,
        record_sha256="0" * 64,
        started="2025-01-02T03:04:05Z",
        finished="2025-01-02T03:04:07Z",
        train_seconds=None if run.id.endswith("det_1") and run.seed == 42 else 1.25,
        eval_seconds=0.25,
        total_seconds=1.75,
        energy_joules=None,
        energy_note="no counter",
        resumed=run.id.endswith("det_1") and run.seed == 42,
        attempts=1,
        shared=False,
        host={"cpu": "Example CPU", "gpu": None, "cores": 2},
        versions={"torch": "2.11.0", "python": "3.11.2"},
        environment={"OMP_NUM_THREADS": "1"},
    )
    write_record(folder, record, measured)
    return record


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def as_an_older_version_collected(folder: Path) -> None:
    """Without digests, so that what a test changes in it is taken as it stands."""
    (folder / DIGESTS).unlink()
