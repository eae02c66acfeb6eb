"""What was compared: which pairs there are, and verdicts that are those of `twinrun compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.collect.synthetic import Synthetic
from tests.report.drafts import draft_of, study_of

from twinrun.collect.study import Study
from twinrun.report.comparison import compare_runs
from twinrun.report.evidence import runs_of
from twinrun.report.sections import compared
from twinrun.report.sections.compared import MOST_CARDS, SECTION, answers, sentences

SPEC: dict[str, Any] = {"tasks": ("digits",), "seeds": (0, 1, 2), "n_test": 40, "epochs": 1}


def of(root: Path, **changes: Any) -> Study:
    return study_of(root, Synthetic(**{**SPEC, **changes}))


def same_data(study: Study, *tasks: str) -> None:
    for task in tasks:
        study.info["tasks"][task]["data_digest"] = "d" * 64


def set_values(study: Study, task: str, optimizer: str, values: list[float], metric: str = "accuracy") -> None:
    rows = (study.results["task"] == task) & (study.results["optimizer"] == optimizer)
    study.results.loc[rows, metric] = values


def test_optimizers_are_recipes_and_tasks_on_one_data_digest_models(tmp_path: Path) -> None:
    study = of(tmp_path, tasks=("digits", "own", "cracks"), runs=("all_1", "all_2"), seeds=(1,))
    frame = draft_of(study, SECTION).frame("compared")
    assert list(frame["question"]) == ["recipes"] * 3
    same_data(study, "digits", "own")
    frame = draft_of(study, SECTION).frame("compared")
    assert list(frame["question"]) == ["models"] * 2 + ["recipes"] * 3
    models = frame[frame["question"] == "models"]
    assert list(models["on"]) == ["Adam", "SGD"]
    assert set(models["a"]) == {"Handwritten digits"}
    assert set(models["b"]) == {"A data set of one's own"}


def test_runs_of_the_arm_all_by_welch(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("all_1", "all_2"))
    adam, sgd = [0.80, 0.81, 0.82, 0.80, 0.81, 0.82], [0.90, 0.91, 0.93, 0.90, 0.91, 0.92]
    set_values(study, "digits", "adam", adam)
    set_values(study, "digits", "sgd", sgd)
    draft = draft_of(study, SECTION)
    row = draft.frame("compared").iloc[0]
    reference = stats.ttest_ind(sgd, adam, equal_var=False)
    low, high = reference.confidence_interval()
    assert row["difference"] == pytest.approx(100 * (np.mean(sgd) - np.mean(adam)))
    assert (row["difference_low"], row["difference_high"]) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert row["p"] == pytest.approx(reference.pvalue)
    assert (row["verdict"], row["n_a"]) == ("better", 6)
    (card,) = answers(draft)
    assert card.question == "Adam or SGD? Handwritten digits"
    assert card.value == "SGD is better"
    assert card.words == (
        f"SGD less Adam: +{row['difference']:.1f} points of accuracy, 95 % interval +{100 * low:.1f} to "
        f"+{100 * high:.1f} (6 and 6 runs)."
    )


def test_seeds_with_nd_runs_in_pairs_as_compare_says(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2"))
    set_values(study, "digits", "adam", [0.80, 0.82, 0.90, 0.92, 0.70, 0.72])
    set_values(study, "digits", "sgd", [0.81, 0.83, 0.90, 0.92, 0.72, 0.74])
    draft = draft_of(study, SECTION)
    row = draft.frame("compared").iloc[0]
    runs, _ = runs_of(study, ["digits/adam", "digits/sgd"])
    item = next(iter(compare_runs(runs, margin=0.005).comparisons.values()))
    assert (row["n_a"], row["difference_low"]) == (3, pytest.approx(100 * item.interval.low))
    (card,) = answers(draft)
    assert card.value == "Cannot tell"
    assert "3 seeds, paired). About " in card.words
    assert "more pairs would, if this difference and these SDs are the true ones." in card.words


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("det_1", "nd_1"), seeds=(5,))
    draft = draft_of(study, SECTION)
    (card,) = answers(draft)
    assert card.value == "Cannot tell"
    assert "No interval: not defined: 1 of the 2 runs of A that it needs." in card.words
    alone = draft_of(of(tmp_path / "one", optimizers=("sgd",), runs=("all_1", "all_2")), SECTION)
    assert alone.tables["compared"].frame.empty
    assert not alone.tables["compared"].filled
    assert answers(alone) == []


def test_many_pairs_are_corrected_and_counted(tmp_path: Path) -> None:
    study = of(tmp_path, tasks=("digits", "own", "cracks", "mammograms"), optimizers=("sgd",), runs=("all_1", "all_2"))
    same_data(study, *study.tasks)
    draft = draft_of(study, SECTION)
    frame = draft.frame("compared")
    assert len(frame) == 6
    assert (frame["p_holm"] >= frame["p"]).all()
    assert (frame["p_holm"] > frame["p"]).any()
    assert len(answers(draft)) == MOST_CARDS
    assert sentences(draft) == []


def test_an_interval_is_drawn_where_it_lies() -> None:
    assert 'x="25.0%" y="4" width="50.0%"' in compared._interval(-1.0, 1.0, 2.0)
    assert 'x="75.0%" y="4" width="25.0%"' in compared._interval(1.0, 2.0, 2.0)
