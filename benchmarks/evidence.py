"""A study of real images in full for a GPU: five seeds, two optimizers, two deterministic and five free runs of each.

python benchmarks/evidence.py TASK DATA FOLDER [--epochs N] [--device cuda]      # TASK: cifar10, cracks or breast

DATA holds cifar10-jpeg.tar.xz, cracks.tar.xz or breastmnist.npz (results/cpu-real-subset/README.md says where they are
from). The networks are whole and begin at random weights; batches are those of studies/thesis.yaml (breast: 32), rates
are the usual ones for these networks, not tuned on these images; the schedules are as long as the run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

EPOCHS = {"cifar10": 6, "cracks": 10, "breast": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=EPOCHS)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, help="Default: 6, 10 and 20.")
    parser.add_argument("--optimizers", nargs="+", default=["adam", "sgd"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 42, 314, 3407, 180698])
    parser.add_argument("--runs", nargs="+", default=["det_1", "det_2", "nd_1", "nd_2", "nd_3", "nd_4", "nd_5"])
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    small = arguments.device == "cpu"  # for trying the script only
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / "params.yaml"
    if file.exists():  # runs of another length would all be trained again
        begun = yaml.safe_load(file.read_text())["tasks"][arguments.task]["recipe"]["epochs"]
        if arguments.epochs not in (None, begun):
            sys.exit(f"evidence.py: {arguments.folder} holds a study with epochs: {begun}; ask for these, or remove it")
        arguments.epochs = begun
    epochs = arguments.epochs or (1 if small else EPOCHS[arguments.task])
    task = TASKS[arguments.task](arguments.data.resolve(), arguments.folder, epochs)
    if small and arguments.task == "cifar10":
        few(arguments.folder / "data" / "few.csv")
        task["data"]["table"] = "data/few.csv"
    task["model"]["width"] = 0.125 if small else 1.0
    task["recipe"] |= {"epochs": epochs, "heads_every": max(1, epochs // 5), "features": 256}
    study = {
        "schema": 1,
        "study": f"evidence_{arguments.task}",
        "grid": {
            "tasks": [arguments.task],
            "optimizers": arguments.optimizers[:1] if small else arguments.optimizers,
            "seeds": arguments.seeds[:1] if small else arguments.seeds,
            "runs": [label for label in arguments.runs if not small or label[-1] in "12"],
        },
        "execution": {"device": arguments.device, "noise": "auto", "precision": "tf32",
                      "channels_last": not small, "fill_uninitialized_memory": False},
        "tasks": {arguments.task: task},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(study, sort_keys=False))


def optimizers(adam: float, sgd: float, epochs: int) -> dict[str, Any]:
    """Adam whose rate halves six times in a run, as that of the thesis does; SGD along one cosine."""
    return {
        "adam": {"lr": adam, "schedule": {"kind": "exponential", "factor": 0.5, "period_epochs": epochs / 6.0}},
        "sgd": {"lr": sgd, "momentum": 0.9, "weight_decay": 0.0005,
                "schedule": {"kind": "cosine", "t_max_epochs": epochs}},
    }  # fmt: skip


# Of the files as they are described beside results/cpu-real-subset/make.sh.
SHA256 = {
    "cifar10-jpeg.tar.xz": "402906567b28e08236939113b1f8888f7b5d306dba9f386cd9ebd49fe4279898",
    "cracks.tar.xz": "a13d8405f2bb9be17280ea6b63fcd15f4119425d69b865b9006ba84a4aceec78",
}


def linked(data: Path, folder: Path, name: str) -> str:
    """The file `name` of `data` under the study's data/."""
    if not (data / name).exists():
        sys.exit(f"evidence.py: {data} holds no {name}")
    (folder / "data").mkdir(exist_ok=True)
    link = folder / "data" / name
    link.unlink(missing_ok=True)
    link.symlink_to(data / name)
    return f"data/{name}"


def few(table: Path) -> None:
    """Writes the first 30 training and 10 test images of each class of CIFAR-10."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    rows = [f"{split}/{name}/{number:04d}.jpg,{name},{split}" for name in names
            for split, count in (("train", 30), ("test", 10)) for number in range(count)]  # fmt: skip
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")


def cifar10(data: Path, folder: Path, epochs: int) -> dict[str, Any]:
    return {
        "title": "CIFAR-10 (JPEG copy)",
        "data": {"reader": "image_folder", "source": linked(data, folder, "cifar10-jpeg.tar.xz"),
                 "sha256": SHA256["cifar10-jpeg.tar.xz"], "image_size": 32},
        "model": {"name": "preactresnet18"},
        "recipe": {"batch_size": 128, "metric": "accuracy", "augment": {"crop_padding": 4, "horizontal_flip": True}},
        "optimizers": optimizers(0.001, 0.1, epochs),
    }  # fmt: skip


def cracks(data: Path, folder: Path, epochs: int) -> dict[str, Any]:
    return {
        "title": "SDNET2018 (bridge decks, 6,000 tiles)",
        "data": {"reader": "sdnet2018", "source": linked(data, folder, "cracks.tar.xz"),
                 "sha256": SHA256["cracks.tar.xz"], "image_size": 256,
                 "test_share": 0.25, "split_seed": 0},
        "model": {"name": "mobilenet_v3_large", "norm_momentum": 0.1},
        "recipe": {"batch_size": 64, "metric": "f1", "augment": {"horizontal_flip": True, "vertical_flip": True}},
        "optimizers": optimizers(0.001, 0.05, epochs),
    }  # fmt: skip


def breast(data: Path, folder: Path, epochs: int) -> dict[str, Any]:
    source = linked(data, folder, "breastmnist.npz")
    converter = Path(__file__).parents[1] / "examples" / "npz_to_folder.py"
    classes = ["malignant", "benign"]  # of its labels 0 and 1; benign: normal or benign
    command = [sys.executable, converter, folder / source, folder / "data" / "breast", *classes]
    subprocess.run(command, check=True)
    return {
        "title": "BreastMNIST (ultrasound)",
        "data": {"reader": "image_folder", "source": "data/breast", "image_size": 28, "color": "gray",
                 "classes": classes[::-1]},
        "model": {"name": "resnet18"},
        "recipe": {"batch_size": 32, "metric": "auc", "augment": {"crop_padding": 2, "horizontal_flip": True}},
        "optimizers": optimizers(0.001, 0.02, epochs),
    }  # fmt: skip


TASKS = {"cifar10": cifar10, "cracks": cracks, "breast": breast}


if __name__ == "__main__":
    main()
