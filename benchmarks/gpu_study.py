"""A study folder with drawn images in the sizes of the thesis's three tasks, for measuring time.

python benchmarks/gpu_study.py FOLDER [--device cuda] [--precision tf32]      # then, in it, `twinrun cost TASK`
python benchmarks/gpu_study.py FOLDER --task preactresnet18 --runs 8 --epochs 10      # then `twinrun sweep --no-record`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from twinrun.data.packed import PACKED_SCHEMA, chunk_digests, data_digest
from twinrun.study.files import sha256_file, write_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params

# Images, channels, side, classes, batch size: as in studies/thesis.yaml, with fewer images.
TASKS = {
    "preactresnet18": (8192, 3, 32, 10, 128),
    "mobilenet_v3_large": (1024, 3, 256, 2, 64),
    "resnet18": (128, 1, 1024, 2, 16),
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005, "schedule": {"kind": "cosine", "t_max_epochs": 200}},
    "adam": {"lr": 0.001, "schedule": {"kind": "exponential", "factor": 0.5}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--task", choices=TASKS, help="Default: all of them.")
    parser.add_argument("--runs", type=int, default=1, help="Deterministic runs of each task.")
    parser.add_argument("--labels", nargs="+", help="Runs by their labels, instead of --runs.")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["sgd"])
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--side", type=int, help="Pixels a side, instead of the thesis's.")
    parser.add_argument("--images", type=int, help="Train images of each task.")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="The networks' own sizes on a CPU, too.")
    arguments = parser.parse_args()
    small = arguments.device == "cpu" and not arguments.full  # for trying the script only
    pixels = {name: arguments.side or (32 if small else sizes[2]) for name, sizes in TASKS.items()}
    chosen = {name: sizes for name, sizes in TASKS.items() if arguments.task in (None, name)}
    tasks: dict[str, Any] = {}
    for model, (_, _, side, _, batch) in chosen.items():
        tasks[model] = {
            "title": f"Drawn, for {model}",
            "data": {"reader": "cifar10", "source": "data/drawn_by_the_benchmark", "image_size": pixels[model]},
            "model": {"name": model, "width": 0.125 if small else 1.0},
            "recipe": {"epochs": arguments.epochs, "batch_size": 8 if small else batch,
                       "heads_every": arguments.epochs, "metric": "accuracy",
                       "augment": {"crop_padding": 0 if side > 32 else 4, "horizontal_flip": True}},
            "optimizers": {name: OPTIMIZERS[name] for name in arguments.optimizers},
        }  # fmt: skip
    execution = {"device": arguments.device, "noise": "auto", "precision": arguments.precision,
                 "channels_last": arguments.channels_last, "fill_uninitialized_memory": False}  # fmt: skip
    labels = arguments.labels or [f"det_{number}" for number in range(1, arguments.runs + 1)]
    grid = {"tasks": list(chosen), "optimizers": arguments.optimizers, "seeds": [0], "runs": labels}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"schema": 1, "study": "cost", "grid": grid, "execution": execution, "tasks": tasks})
    (arguments.folder / "params.yaml").write_text(text)
    params, rng = read_params(arguments.folder / "params.yaml"), np.random.default_rng(0)
    for model, (count, channels, _, classes, _) in chosen.items():
        folder, side = Layout(arguments.folder).prepared(model), params.tasks[model].data.image_size
        n_train, n_test = arguments.images or (64 if small else count), 16
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", rng.integers(0, 256, (n_train + n_test, channels, side, side), np.uint8))
        np.save(folder / "labels.npy", rng.integers(0, classes, n_train + n_test))
        (folder / "ids.csv").write_text("index,id,split,label,class,group\n")
        manifest: dict[str, Any] = {
            "schema": PACKED_SCHEMA, "task": model, "classes": [str(i) for i in range(classes)], "n_train": n_train,
            "n_test": n_test, "channels": channels, "image_size": side, "channel_mean": [0.5] * channels,
            "channel_std": [0.25] * channels, "params_digest": params.data_params_digest(model),
            "chunks": chunk_digests(folder / "images.npy", channels * side * side, n_train + n_test),
            "files": {name: sha256_file(folder / name) for name in ("labels.npy", "ids.csv")},
        }  # fmt: skip
        write_json(folder / "manifest.json", manifest | {"digest": data_digest(manifest)})


if __name__ == "__main__":
    main()
