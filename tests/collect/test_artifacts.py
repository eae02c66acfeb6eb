"""The files beside a record: what is read, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from twinrun.collect.artifacts import read_curve, read_features, read_predictions, read_weights
from twinrun.study.errors import MismatchError, ResourceError
from twinrun.study.layout import CURVE, CURVE_COLUMNS, PREDICTIONS, WEIGHTS


def curve(folder: Path, *rows: str, header: str = ",".join(CURVE_COLUMNS)) -> Path:
    (folder / "curve.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def row(epoch: int, **cells: str) -> str:
    values = dict.fromkeys(CURVE_COLUMNS, "0.5") | {"epoch": str(epoch), CURVE_COLUMNS[-1]: "f" * 64} | cells
    return ",".join(values.values())


def test_a_curve_is_read_as_it_is_written(tmp_path: Path) -> None:
    rows = [row(1), row(2, auc="", train_loss="nan", loss="inf")]
    assert read_curve(curve(tmp_path, *rows)) == [text.split(",") for text in rows]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(1), row(3)], "row 2 is not that of epoch 2"),
        ([row(1) + ",1"], "row 1 is not that of epoch 1"),
        ([row(1), row(2, loss="low")], "epoch 2 holds something that is no number"),
        ([row(1, learning_rate="fast")], "epoch 1 holds something that is no number"),
    ],
)
def test_a_curve_that_is_none(rows: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=words):
        read_curve(curve(tmp_path, *rows))
    with pytest.raises(MismatchError, match="its header is not epoch,"):
        read_curve(curve(tmp_path, row(1), header="epoch,loss"))


def test_predictions_of_other_shapes_or_types_are_refused(tmp_path: Path) -> None:
    good = {"probabilities": np.ones((3, 2), np.float32), "labels": np.zeros(3, np.int64)}

    def read(**changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        np.savez(tmp_path / "predictions.npz", **(good | changed))  # type: ignore[arg-type]
        return read_predictions(tmp_path)

    assert np.array_equal(read()[0], good["probabilities"])
    flat = np.ones(3, np.float32)
    for changed in ({"probabilities": np.ones((3, 2))}, {"probabilities": flat}, {"labels": np.zeros(3, np.int32)}):
        with pytest.raises(MismatchError, match="probabilities are float32"):
            read(**changed)
    for labels in (np.zeros(2, np.int64), np.zeros((3, 1), np.int64)):
        with pytest.raises(MismatchError, match=f"3 predictions for {labels.size} labels"):
            read(labels=labels)
    for features in (np.ones((3, 4)), np.ones(3, np.float32)):
        read(features=features)
        with pytest.raises(MismatchError, match="features are float32"):
            read_features(tmp_path)


def weights(folder: Path, tensors: dict[str, np.ndarray], shapes: dict[str, list[int]]) -> Path:
    described = {"head": ["last.weight", "last.bias"], "shapes": shapes}
    save_file(tensors, folder / "weights.safetensors", {"parameters": json.dumps(described)})
    return folder


def test_weights_are_laid_out_by_epoch_and_in_the_networks_order(tmp_path: Path) -> None:
    shapes = {"a": [5], "last.bias": [2], "last.weight": [2, 3], "z": [9]}
    kept = {"a": 5, "last.bias": 2, "last.weight": (2, 3), "z": 4}  # of the last one a sample
    tensors = {
        f"{epoch:05d}/{name}": np.random.default_rng(epoch).random(shape, np.float32)
        for epoch in (10, 2) for name, shape in kept.items()
    }  # fmt: skip
    found = read_weights(weights(tmp_path, tensors, shapes))
    assert found.epochs == (2, 10)
    assert found.layers == {"a": {"shape": [5], "recorded": 5}, "z": {"shape": [9], "recorded": 4}}
    assert list(found.layers) == ["a", "z"]
    assert found.head_shapes == {"weight": [2, 3], "bias": [2]}
    for place, epoch in enumerate(("00002", "00010")):
        head = [tensors[f"{epoch}/last.weight"].ravel(), tensors[f"{epoch}/last.bias"]]
        assert np.array_equal(found.heads[place], np.concatenate(head))
        assert np.array_equal(found.samples[place], np.concatenate([tensors[f"{epoch}/a"], tensors[f"{epoch}/z"]]))
    empty = read_weights(weights(tmp_path, {}, shapes))
    assert (empty.epochs, empty.heads.shape, empty.samples.shape) == ((), (0, 0), (0, 0))
    assert empty.layers["z"]["recorded"] == 0


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"00001/other": np.zeros(2, np.float32)}, "'00001/other' is not <epoch>/<parameter>"),
        ({"one/last.bias": np.zeros(2, np.float32)}, "'one/last.bias' is not"),
        ({"00001/last.bias": np.zeros(2)}, "in float32"),
        ({"00001/last.bias": np.zeros(2, np.float32)}, "epoch 1 has not every parameter"),
        (
            {"00001/last.bias": np.zeros(3, np.float32), "00001/last.weight": np.zeros((2, 3), np.float32)},
            "the head has another shape in epoch 1",
        ),
    ],
)
def test_weights_that_are_none(tensors: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=words):
        read_weights(weights(tmp_path, tensors, {"last.bias": [2], "last.weight": [2, 3]}))


@pytest.mark.parametrize("read", [read_curve, read_predictions, read_features, read_weights])
def test_a_fault_of_the_disk_is_none_of_the_file(read: Callable[[Path], object], tmp_path: Path) -> None:
    """A folder in the file's place is what any user can make; the kernel's EIO comes by the same way."""
    for name in (CURVE, PREDICTIONS, WEIGHTS):
        (tmp_path / name).mkdir()
    with pytest.raises(ResourceError):
        read(tmp_path)
