"""A study whose model learned nothing must not read as a perfectly reproducible one."""

from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import draft_of, study_of

from twinrun.collect.study import Study, load_study
from twinrun.report.sections import spread
from twinrun.report.sections.results import SECTION, cautions


def made(root: Path, n_test: int = 120, **changes: object) -> Study:
    spec = Synthetic(tasks=("cracks",), optimizers=("sgd",), seeds=(0, 1), epochs=1, n_test=n_test, **changes)  # type: ignore[arg-type]
    return study_of(root, spec)


def predict(study: Study, classes: np.ndarray, runs: int) -> None:
    """Let the first `runs` runs predict `classes`."""
    values = np.array(study.probabilities("cracks"))
    values[:runs] = np.eye(2, dtype=np.float32)[classes]
    np.save(study.folder / "cracks/probabilities.npy", values)


def test_runs_that_learned_give_no_caution(tmp_path: Path) -> None:
    assert cautions(made(tmp_path), "cracks") == []


def test_runs_of_one_class_are_counted_and_not_above_the_majority(tmp_path: Path) -> None:
    study = made(tmp_path)
    labels = study.labels("cracks")
    largest = int(np.bincount(labels).argmax())
    predict(study, np.full(120, largest), 8)
    share = np.mean(labels == largest)
    nothing, constant = cautions(study, "cracks")
    assert f"the mean accuracy of 8 complete runs is {100 * share:.1f} %" in nothing
    assert f"of the 120 test images gives {100 * share:.1f} %" in nothing
    assert "8 of 8 complete runs name one and the same class for all of the 120 test images" in constant
    said = list(SECTION.sentences(draft_of(study, SECTION)))
    assert said[:2] == [nothing, constant]
    assert "identical nd runs differ in F1: pooled same-seed SD " in said[2]


def test_the_headline_is_the_pooled_sd_and_not_the_median_one(tmp_path: Path) -> None:
    study = made(tmp_path)
    cells = [[0.90, 0.92, 0.94], [0.90, 0.96, 1.02]]  # SDs of 2 and 6 points: pooled sqrt((4 + 36) / 2), median 4
    for group, values in zip(study.groups("nd"), cells, strict=True):
        study.results.loc[group.places, "f1"] = values
    (headline,) = SECTION.sentences(draft_of(study, SECTION))
    assert "pooled same-seed SD 4.5 points (95 % interval 2.7 to 13, 4 degrees of freedom; arm nd" in headline


def test_bad_runs_are_counted_beside_the_sd_that_they_make() -> None:
    """The arm all of the committed sources: two of ten runs found few cracks."""
    study = load_study(Path(__file__).parents[2] / "results/cpu-sources/collected")
    frame = draft_of(study, spread.SECTION).frame("spread")
    row = frame[(frame["task"] == "cracks") & (frame["arm"] == "all") & (frame["metric"] == "f1")].iloc[0]
    values = study.results.query("task == 'cracks' and arm == 'all'")["f1"]
    robust = 1.4826 * np.median(abs(values - np.median(values)))
    assert row["sd_sample"] == pytest.approx(0.2206, abs=1e-4)
    assert row["spread_robust"] == pytest.approx(robust, rel=1e-4)
    assert (row["beyond"], row["remark"]) == (2, "")


def test_runs_without_any_spread_are_not_said_to_differ(tmp_path: Path) -> None:
    study = made(tmp_path, ties=True)
    (headline,) = SECTION.sentences(draft_of(study, SECTION))
    assert "identical nd runs all have the same F1 (arm nd, 2 cells)" in headline


def test_a_single_run_of_one_class_is_said(tmp_path: Path) -> None:
    study = made(tmp_path)
    predict(study, np.zeros(120, int), 1)
    (found,) = cautions(study, "cracks")
    assert "caution, 1 of 8 complete runs names one and the same class" in found


@pytest.mark.parametrize(("above", "warned"), [(0.9, True), (1.2, False)])
def test_the_majority_is_exceeded_by_more_than_its_standard_error(tmp_path: Path, above: float, warned: bool) -> None:
    study = made(tmp_path)
    labels = study.labels("cracks")
    share = np.bincount(labels).max() / 120
    right = int(120 * share + above * np.sqrt(120 * share * (1 - share)))
    predict(study, np.where(np.arange(120) < right, labels, 1 - labels), 8)
    assert any("no sign of learning" in one for one in cautions(study, "cracks")) == warned


@pytest.mark.parametrize(("made_good", "warned"), [(0.25, False), (0.15, True)])
def test_little_above_the_majority_is_said(tmp_path: Path, made_good: float, warned: bool) -> None:
    study = made(tmp_path, n_test=1200)
    labels = study.labels("cracks")
    largest = np.bincount(labels).argmax()
    others = np.flatnonzero(labels != largest)
    right = others[: round(made_good * len(others))]
    predict(study, np.where(np.isin(np.arange(1200), right), labels, largest), 8)
    found = [one for one in cautions(study, "cracks") if "hardly better than naming one class" in one]
    assert len(found) == warned
    if warned:
        baseline = f"always naming the largest class of the 1200 test images gives {100 - len(others) / 12:.1f} %"
        assert baseline in found[0]


def test_a_tiny_test_set_says_what_one_image_is(tmp_path: Path) -> None:
    (found,) = cautions(made(tmp_path, n_test=80), "cracks")
    assert "80 test images: one image is 1.25 points of accuracy, and SDs below that say little" in found


def test_without_complete_runs_nothing_is_said(tmp_path: Path) -> None:
    ids = [f"cracks/sgd/{seed}/{run}" for seed in (0, 1) for run in ("det_1", "nd_1", "nd_2", "nd_3")]
    assert cautions(made(tmp_path, diverged=frozenset(ids)), "cracks") == []
