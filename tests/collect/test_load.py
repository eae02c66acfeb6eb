"""Collected files on their way in: what passes, and what is refused with the file, the run and the column."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import collected

from twinrun.collect.load import check_labels, check_measured, check_values
from twinrun.collect.study import load_study
from twinrun.study.errors import InputError, MismatchError

PATH = Path("x.csv")


def results(**changed: object) -> pd.DataFrame:
    row = {"id": "t/sgd/0/nd_1", "task": "t", "optimizer": "sgd", "seed": 0, "label": "nd_1", "status": "complete",
           "accuracy": 1.0, "f1": 0.0, "auc": "nan", "loss": 7.5}  # fmt: skip
    return pd.DataFrame([row | changed])


def test_metrics_are_shares_and_a_loss_may_be_large() -> None:
    frame = results()
    check_values(frame, PATH)
    assert frame.loc[0, ["accuracy", "f1", "loss"]].tolist() == [1.0, 0.0, 7.5]
    assert math.isnan(frame.loc[0, "auc"])
    for changed, words in (
        ({"accuracy": 1.01}, r"t/sgd/0/nd_1 has accuracy 1\.01"), ({"f1": -0.1}, r"has f1 -0\.1"),
        ({"loss": -1.0}, r"has loss -1\.0"), ({"loss": math.inf}, "has loss inf"),
        ({"auc": "high"}, "the column auc holds something that is no number"), ({"status": "lost"}, "status 'lost'"),
        ({"label": "nd_2"}, "t/sgd/0/nd_1 is not the run that its row describes"),
    ):  # fmt: skip
        with pytest.raises(MismatchError, match=rf"x\.csv: .*{words}"):
            check_values(results(**changed), PATH)


def test_measured_numbers_are_not_negative() -> None:
    frame = pd.DataFrame({"eval_seconds": [0.0, "nan"], "attempts": ["1", "2"]})
    check_measured(frame, PATH)
    assert frame["attempts"].tolist() == [1.0, 2.0]
    with pytest.raises(MismatchError, match="the column energy_joules holds something negative"):
        check_measured(pd.DataFrame({"energy_joules": [1.0, -0.5]}), PATH)
    with pytest.raises(MismatchError, match="the column train_seconds holds something negative or infinite"):
        check_measured(pd.DataFrame({"train_seconds": [1.0, math.inf]}), PATH)


def test_labels_are_classes_or_unknown_throughout() -> None:
    for labels in ([0, 2, 1], [-1, -1], []):
        check_labels(np.array(labels, np.int64), 3, PATH)
    for wrong in (np.array([0, 3]), np.array([-1, 0]), np.array([0.0, 1.0])):
        with pytest.raises(MismatchError, match="labels that are none of the 3 classes"):
            check_labels(wrong, 3, PATH)


def test_a_study_with_damaged_arrays_or_curves_is_refused(tmp_path: Path) -> None:
    folder = collected(tmp_path, Synthetic(tasks=("digits", "cracks"), seeds=(0,), n_test=5, epochs=1)).collected
    path = folder / "cracks" / "probabilities.npy"
    probabilities = np.load(path)
    probabilities[2, 0, 0] = math.nan
    np.save(path, probabilities)
    with pytest.raises(MismatchError, match=r"cracks/probabilities\.npy: cracks/adam/0/nd_2 is complete, but has"):
        load_study(folder)
    probabilities[2, 0, 0] = 1.5
    np.save(path, probabilities)
    with pytest.raises(MismatchError, match=r"cracks/adam/0/nd_2 is complete, but has probabilities outside of 0 to 1"):
        load_study(folder)
    labels = np.load(folder / "digits" / "labels.npy")
    np.save(folder / "digits" / "labels.npy", np.full_like(labels, -1))
    with pytest.raises(MismatchError, match=r"digits/labels\.npy: no labels, though digits/adam/0/det_1 is complete"):
        load_study(folder)
    np.save(folder / "digits" / "labels.npy", labels[::-1].copy())
    with pytest.raises(MismatchError, match=r"results\.csv: digits/adam/0/det_1 has accuracy .* by its predictions"):
        load_study(folder)
    np.save(folder / "digits" / "labels.npy", labels)
    curves = (folder / "curves.csv").read_text()
    (folder / "curves.csv").write_text(curves + curves.splitlines()[-1] + "\n")
    with pytest.raises(MismatchError, match=r"collected/curves\.csv: duplicated epochs or runs"):
        load_study(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = collected(tmp_path, Synthetic(tasks=("digits",), seeds=(0,), n_test=5, epochs=1)).collected
    for name in ("digits/labels.npy", "results.csv"):
        kept = (folder / name).rename(tmp_path / "kept")
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match=f"{name}: a pipe"):
            load_study(folder)
        (folder / name).unlink()
        kept.rename(folder / name)
    load_study(folder)
