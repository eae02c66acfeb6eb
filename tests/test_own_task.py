"""docs/own_task.md as a test: from images and a network of one's own to a report; real breast images, too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.conftest import REPOSITORY
from tests.test_pipeline import Checkout

from twinrun.data.prepare import prepare
from twinrun.study.schema import ImageFolder

EXAMPLE = REPOSITORY / "examples" / "own_task"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a study of 8 runs: a quarter of a minute, unless others use the machine
def test_from_a_folder_of_images_to_a_report(tmp_path: Path) -> None:
    study = Checkout(tmp_path / "clone")
    text = (EXAMPLE / "params.yaml").read_text()
    assert "seeds: [0, 1, 2]" in text
    study.write(text.replace("seeds: [0, 1, 2]", "seeds: [0]").replace("nd_1, nd_2, all_1, all_2]", "nd_1, nd_2]"))
    net = study.root / "models" / "net.py"
    shutil.copy(EXAMPLE / "net.py", net)
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:400], digits.target, strict=False)):
        folder = study.root / "data" / "tiles" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{number}.png")

    # What `make study` calls.
    study.run("dvc", "pull", "--quiet", "data.dvc")
    study.run("dvc", "repro", "--quiet", "prepare")
    assert study.run("twinrun", "sweep", "--jobs", "2").startswith("8 runs trained")
    study.run("twinrun", "finish")
    page = (study.root / "report" / "index.html").read_text()
    assert "My tiles, narrow network or My tiles, wide network? SGD" in page
    assert "net:build, channels 8" in page
    assert "net:build, channels 16" in page
    assert "class 3" in (study.root / "prepared" / "wide" / "manifest.json").read_text()
    records = {label: study.root / f"runs/narrow/sgd/0/{label}/record.json" for label in ("det_1", "det_2", "nd_1")}
    prints = {label: json.loads(path.read_text())["fingerprints"][-1] for label, path in records.items()}
    assert prints["det_1"] == prints["det_2"] != prints["nd_1"]
    assert study.changed() == set()

    # An edit of the network is seen by DVC and by twinrun, and trains its runs again.
    net.write_text(net.read_text().replace("AvgPool2d(2)", "MaxPool2d(2)"))
    assert {name.partition("@")[0] for name in study.changed()} == {"train"}
    assert "8 other params" in study.run("twinrun", "status", code=3)
    study.run("twinrun", "train", "narrow/sgd/0/det_1")
    assert json.loads(records["det_1"].read_text())["fingerprints"][-1] != prints["det_1"]

    # The network as it was: its other runs count again. A file of no use to it changes nothing that is computed.
    net.write_text((EXAMPLE / "net.py").read_text())
    (study.root / "models" / "README.md").write_text("notes")
    assert study.run("twinrun", "sweep").startswith("1 run trained, 7 were there already\n")
    assert json.loads(records["det_1"].read_text())["fingerprints"][-1] == prints["det_1"]
    assert study.changed() == {"collect", "locate"}, "the runs are recorded; what is made of them waits for `dvc repro`"


def test_medmnist(tmp_path: Path) -> None:
    """The converter on arrays of MedMNIST's form: every image in its class and part, its pixels untouched."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    manifest = convert(tmp_path / "x.npz", tmp_path)
    images = np.load(tmp_path / "out" / "images.npy")
    assert sorted(image.tobytes() for image in images) == sorted(
        image.tobytes() for part in ("train", "test") for image in arrays[f"{part}_images"]
    )
    assert manifest["extra"]["left_out"] == {"val": 4}
    assert manifest["counts"]["test"] == {"benign": 3, "malignant": 3}


def test_breastmnist(real_data: Path, tmp_path: Path) -> None:
    manifest = convert(real_data / "breastmnist.npz", tmp_path)
    assert manifest["counts"] == {
        "train": {"benign": 399, "malignant": 147}, "test": {"benign": 114, "malignant": 42},
    }  # fmt: skip
    assert manifest["extra"]["left_out"] == {"val": 78}


def convert(source: Path, root: Path) -> dict:
    script = REPOSITORY / "examples" / "npz_to_folder.py"
    subprocess.run([sys.executable, script, source, root / "breast", "malignant", "benign"], check=True)
    data = ImageFolder(
        reader="image_folder", source="breast", image_size=28, color="gray", classes=["benign", "malignant"]
    )
    return prepare("breast", data, root, root / "out")
