"""`twinrun power`: which SD it plans with, in which unit, and the numbers that it gives."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import study_of
from typer.testing import CliRunner, Result

from twinrun.cli.app import app
from twinrun.collect.study import Study, load_study
from twinrun.report import planning
from twinrun.report.study_sd import study_same_seed_sd, study_total_sd
from twinrun.stats.variance import total_sd
from twinrun.study.errors import IncompleteError, InputError

SOURCES = Path(__file__).parents[2] / "results" / "cpu-sources" / "collected"
FIVE_SEEDS = [0.81, 0.93, 0.85, 0.96, 0.88]


def power(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["power", *arguments])


def counts(text: str, words: str) -> list[str]:
    """The numbers of the first row that begins with these words."""
    row = next(line for line in text.splitlines() if line.strip().startswith(words))
    return re.findall(r"\s([\d.,]+|none)(?=\s|$)", row.partition(": ")[2])


@pytest.fixture(scope="module")
def committed() -> Study:
    return load_study(SOURCES)


def test_the_committed_study_needs_126_runs_where_the_same_seed_sd_said_15(committed: Study) -> None:
    total, same = study_total_sd(committed, "digits", "accuracy"), study_same_seed_sd(committed, "digits", "accuracy")
    assert (100 * total.pooled.value, total.pooled.df) == (pytest.approx(1.4106, abs=1e-4), 9)
    assert (100 * same.pooled.value, same.pooled.df) == (pytest.approx(0.4546, abs=1e-4), 9)
    text = planning.plan_text(planning.study_sources(committed), planning.study_wanted(committed))
    assert "Handwritten digits, accuracy: total SD 1.4 points (95 % interval 0.97 to 2.6, 9 degrees of" in text
    assert counts(text, "two models, 0.5 points apart") == ["126", "61", "418"]
    # Nothing about two models rests on the SD of identical runs.
    same_seed = text[
        text.index("accuracy: same-seed SD") : text.rindex("Concrete cracks (procedural images), F1: total")
    ]
    assert "for two runs of one model only: they differ by less than 1.5 points 95 % of the time" in same_seed
    assert "two models" not in same_seed
    explained = [line for line in text.splitlines() if "lies below the same-seed SD" in line]
    assert [line.partition(" is chance")[0] for line in explained] == [
        "  That it lies below the same-seed SD (2.6 points)"
    ]


def test_what_n_runs_can_show(committed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SOURCES.parent)
    text = power("--n", "126", "--correlation", "0.3").output
    shown = float(counts(text, "126 runs of each: smallest difference that they show, points")[0])
    assert 0.495 < shown <= 0.5  # the way back: 126 runs were needed for 0.5 points
    pairs = float(counts(text, "126 pairs that correlate by 0.3")[0])
    assert pairs / shown == pytest.approx(math.sqrt(0.7), rel=0.01)
    assert counts(text, "the same in pairs that correlate by 0.3")[0] == "90"
    ends = [float(value) for value in counts(text, "126 runs of each: smallest difference that they show, points")[1:]]
    first = re.search(r"difference that they show: ([\d.]+) points \(([\d.]+) to ([\d.]+) at the ends", text)
    assert first
    assert [float(value) for value in first.groups()] == [shown, *ends]


def test_seeds_and_noise_together_where_no_arm_is_all(tmp_path: Path) -> None:
    study = study_of(tmp_path, Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0, 42, 314), epochs=1))
    total = study_total_sd(study, "digits", "accuracy")
    (setting,) = study.settings("digits")
    assert total.pooled == total_sd(setting.samples("nd", "accuracy"))
    assert total.source == "seeds and noise together, 1 optimizer"
    assert study_same_seed_sd(study, "digits", "accuracy").pooled.df == 6


def test_one_seed_without_all_has_no_plan_for_two_models(tmp_path: Path) -> None:
    study = study_of(tmp_path, Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0,), epochs=1))
    text = planning.plan_text(planning.study_sources(study), planning.study_wanted(study))
    assert "total SD not defined: no cell has two values (no arm all, no two seeds)" in text
    assert "train the arm `all`, or several seeds" in text
    assert "two models," not in text
    assert "one new run of the same model" in text


def test_a_task_without_spread_is_named_and_alone_no_ground(tmp_path: Path) -> None:
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0,), epochs=1, ties=True)
    flat = planning.study_sources(study_of(tmp_path, spec))
    with pytest.raises(IncompleteError, match="not planned: the same-seed SD is 0, no two runs differ"):
        planning.plan_text(flat, planning.Wanted(difference=0.5))
    text = planning.plan_text([*flat, *planning.given_sources([0.3])], planning.Wanted(difference=0.5))
    assert "not planned: the same-seed SD is 0, no two runs differ" in text
    assert counts(text, "two models, 0.5 apart") == ["7"]


def folder_of(root: Path, arm: str, values: list[float]) -> Path:
    metric = {"name": "m.json:acc", "values": {f"twin_{place}": value for place, value in enumerate(values)}}
    (root / "twins").mkdir()
    (root / "twins" / "twins.json").write_text(json.dumps({"arm": arm, "metrics": [metric]}))
    return root / "twins"


def test_twins_are_planned_in_their_own_unit(tmp_path: Path) -> None:
    """An SD of 0.06 in [0, 1] beside half a point takes over 2,000 runs; read as points it took 2."""
    folder = folder_of(tmp_path, "all", FIVE_SEEDS)
    found = power(str(folder), "--difference", "0.005")
    sd = np.std(FIVE_SEEDS, ddof=1)
    assert f"total SD {sd:.3f} (95 % interval" in found.output
    needed = int(counts(found.output, "two models, 0.005 apart")[0].replace(",", ""))
    assert needed == pytest.approx(2 * (sd / 0.005) ** 2 * 7.849, rel=0.002)
    assert needed > 2000


def test_twins_of_one_seed_say_nothing_of_two_models(tmp_path: Path) -> None:
    text = power(str(folder_of(tmp_path, "nd", FIVE_SEEDS)), "--difference", "0.5").output
    assert "same-seed SD" in text
    assert "two models" not in text
    assert int(counts(text, "one new run of the same model, 0.5 off")[0]) > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sd", "0.062"], "which difference, in the same unit?"),  # points or [0, 1]? Without one nobody knows
        (["--sd", "nan", "--difference", "1"], "--sd is nan"),
        (["--sd", "0.4", "--difference", "-1"], "--difference is -1"),
        (["--sd", "0.4", "--difference", "1", "--precision", "25"], "--precision is 25\n  it is a share, above 0"),
        (["--sd", "0.4", "--difference", "1", "--n", "1"], "--n is 1"),
        *((["--sd", "0.4", "--n", "5", "--difference", "1", "--power", p], "--power is") for p in ("0", "1", "80")),
        (["--sd", "0.4", "--difference", "1", "--power", "0.04"], "--power 0.04 at a level of 0.05"),
        (["--sd", "0.4", "--difference", "1", "--correlation", "1"], "--correlation is 1"),
        *((["--sd", "0.4", "--difference", "1", "--alpha", alpha], "--alpha is") for alpha in ("0", "0.5", "nan")),
        (["--sd", "1", "--margin", "1", "--true-difference", "nan"], "--true-difference is nan"),
        (["--sd", "1", "--margin", "1", "--metric", "f1"], "--metric f1 without a folder of twins"),
        (["no_folder"], "no_folder is no folder of `twinrun twins`\n  it holds no twins.json"),
        ([__file__], "`twinrun compare` tells the SD of a table's runs: give it as --sd"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: list[str], words: str) -> None:
    found = power(*arguments)
    assert isinstance(found.exception, InputError)
    assert words in str(found.exception)


def test_given_sds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = power("--sd", "0.2", "--difference", "0.1", "--alpha", "0.01", "--power", "0.9").output
    assert counts(given, "two models, 0.1 apart") == ["121"]
    for ratio, needed in (("1.5", 50), ("2", 19)):
        text = power("--sd", "1", "--sd-ratio", ratio).output
        assert f"{needed} runs of each show that one SD is {ratio} times the other" in text
    truly = power("--sd", "1", "--margin", "1", "--true-difference", "1").output
    assert counts(truly, "two models equal to within 1, truly 1 apart") == ["none"]
    assert "none: no number suffices: the true difference 1 is not within 1" in truly
    monkeypatch.chdir(tmp_path)
    assert isinstance(power().exception, IncompleteError)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ("--difference 0.000001", "SD 0.01: two models, 1e-06 apart: more than 1,000,000 replicates."),
        ("--n 3", "SD 0.01: 3 runs of each: smallest difference that they show: 0.031."),
    ],
)  # fmt: skip
def test_the_answer_comes_first(arguments: str, first: str) -> None:
    assert power("--sd", "0.01", *arguments.split()).output.splitlines()[0] == first
