"""The four answers of the first screen: the right values, and a reason where there are none."""

import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.collect.synthetic import Synthetic
from tests.report.drafts import study_of

from twinrun.collect.study import Study
from twinrun.report.section import Answer, Draft
from twinrun.report.sections.answers import answers
from twinrun.study.files import write_text

CELL: dict[str, Any] = {"tasks": ("digits",), "optimizers": ("sgd",), "seeds": (0, 1, 2), "n_test": 40, "epochs": 2}


def of(root: Path, **changes: Any) -> Study:
    return study_of(root, Synthetic(**{**CELL, **changes}))


def answer(study: Study, name: str) -> Answer:
    return next(answer for answer in answers(Draft(study)) if answer.name == name)


def set_accuracy(study: Study, arm: str, values: list[list[float]]) -> None:
    """Give the runs of an arm these accuracies, seed by seed."""
    for seed, accuracies in zip(study.seeds, values, strict=True):
        rows = (study.results["arm"] == arm) & (study.results["seed"] == seed)
        study.results.loc[rows, "accuracy"] = accuracies


def test_deterministic_when_all_cells_are_equal(tmp_path: Path) -> None:
    given = answer(of(tmp_path, runs=("det_1", "det_2", "nd_1")), "deterministic")
    assert given.value == "Yes: 3 of 3 cells"
    assert given.words == "6 deterministic runs: within each cell all weights are equal to the last bit."
    assert [row.note for row in given.rows] == ["3 of 3 equal"]
    assert re.findall(r'class="full" x="(\d+)"', given.rows[0].svg) == ["1", "16", "31"]


def test_the_cell_that_differs_is_named(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("det_1", "det_2", "nd_1"))
    study.results.loc[study.results["id"] == "digits/sgd/1/det_2", "fingerprint"] = "f" * 64
    given = answer(study, "deterministic")
    assert given.value == "No: 1 of 3 cells differs"
    assert "different bits in `digits/sgd/1`." in given.words
    assert "`twinrun locate digits/sgd/1/det_1 det_2`" in given.words
    assert given.rows[0].svg.count('class="cross"') == 1
    assert given.rows[0].svg.count('class="full"') == 2


@pytest.mark.parametrize(
    ("runs", "seeds", "words"),
    [
        (("nd_1", "nd_2"), (0, 1), "no deterministic runs: add `det_1` and `det_2`"),
        (
            ("det_1", "nd_1"),
            (0, 1),
            "Each cell has one deterministic run, and it takes two. `twinrun verify`",
        ),
        (("det_1",), (0,), "The cell has one deterministic run"),
    ],
)
def test_what_was_not_tested_names_the_command(
    tmp_path: Path, runs: tuple[str, ...], seeds: tuple[int, ...], words: str
) -> None:
    given = answer(of(tmp_path, runs=runs, seeds=seeds), "deterministic")
    assert given.value == "Not tested"
    assert words in given.words


def test_the_spread_of_identical_runs(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("det_1", "nd_1", "nd_2", "nd_3"))
    set_accuracy(study, "nd", [[0.80, 0.81, 0.82], [0.80, 0.81, 0.82], [0.80, 0.81, 0.82]])
    given = answer(study, "identical")
    # SD 0.01 in each of three cells: 6 degrees of freedom; the ends by chi-square are 0.644 and 2.202 of it.
    assert given.value == "SD 1.0 points"
    assert "of accuracy, 95 % interval 0.64 to 2.2, over runs that share the seed" in given.words
    assert "arm nd, 3 cells" in given.words
    assert "reorder noise" in given.words
    predicted = study.probabilities("digits").argmax(axis=2)
    cells = [study.group(cell, "nd").rows for cell in study.cells()]
    pairs = [np.mean(predicted[a] != predicted[b]) for rows in cells for a, b in combinations(rows, 2)]
    errors = [np.mean(predicted[row] != study.labels("digits")) for rows in cells for row in rows]
    assert f"for {100 * np.mean(pairs):.1f} % of the test images" in given.words
    assert f"an error of {100 * np.mean(errors):.1f} %" in given.words
    assert given.rows[0].svg.count("<circle") == 9
    assert 'cx="95.5%"' in given.rows[0].svg, "1 point from its cell's mean, on an axis that ends at 1.1"
    assert given.scale == ("\N{MINUS SIGN}1.1", "a dot a run, from its cell's mean", "+1.1 points")


def test_the_widest_task_comes_first(tmp_path: Path) -> None:
    study = of(tmp_path, tasks=("digits", "cracks"), runs=("nd_1", "nd_2"))
    for task, metric, gap in (("digits", "accuracy", 0.01), ("cracks", "f1", 0.03)):
        rows = study.results["task"] == task
        study.results.loc[rows, metric] = 0.5 + gap * (study.results.loc[rows, "label"] == "nd_2")
    given = answer(study, "identical")
    assert [row.label for row in given.rows] == ["Concrete cracks (procedural)", "Handwritten digits"]
    assert given.value == "SD 2.1 points"  # 3 points / sqrt(2)
    assert "of F1 on Concrete cracks (procedural)," in given.words
    assert given.rows[1].note.startswith("SD 0.71 ")


def test_runs_that_never_differ(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2"), seeds=(0,))
    set_accuracy(study, "nd", [[0.8, 0.8]])
    spread, difference = answer(study, "identical"), answer(study, "difference")
    assert spread.value == "SD 0 points"
    assert spread.rows == ()
    assert difference.value == "Not known"
    assert "same-seed SD of accuracy is 0, no two runs differ" in difference.words


def test_a_single_run_answers_nothing_and_says_what_would(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("det_1",), seeds=(7,))
    given = answers(Draft(study))
    assert [one.value for one in given] == ["Not tested", "Not measured", "Not known", "Not measured"]
    for entry, command in zip(given, ("twinrun verify", "nd_3", "all_5", "twinrun cost digits"), strict=True):
        assert command in entry.words
    assert all(entry.rows == () for entry in given[1:])


def test_two_models_are_judged_by_the_total_sd(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2"))
    set_accuracy(study, "nd", [[0.80, 0.82], [0.84, 0.86], [0.88, 0.90]])
    given = answer(study, "difference")
    # MSW 2e-4, MSB 32e-4, n0 2: total variance 17e-4 with 17^2 / (16^2 / 2 + 1 / 3) = 2.252 degrees of freedom.
    df, sd = 17**2 / (16**2 / 2 + 1 / 3), math.sqrt(17e-4)
    assert df == pytest.approx(2.252, abs=1e-3)

    gap = stats.t.ppf(0.975, df) * math.sqrt(2) * sd
    assert given.value == f"More than {100 * gap:.0f} points"
    assert "total SD 4.1" in given.words
    # 1 point at SD 4.12, power 80 %: about 16 (4.12)^2 = 267.
    assert "To see 1 point it takes 268 runs of each model" in given.words
    assert "seeds and noise together, 1 optimizer" in given.words


def test_a_total_sd_below_the_same_seed_sd_is_explained(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2"))
    set_accuracy(study, "nd", [[0.80, 0.82]] * 3)  # seeds that do not differ: MSW 2e-4, of which the total takes half
    words = answer(study, "difference").words
    assert "total SD 1.0" in words
    assert "That it lies below the same-seed SD (1.4 points) is chance, or the seeds tried scatter more" in words
    set_accuracy(study, "nd", [[0.80, 0.82], [0.84, 0.86], [0.88, 0.90]])
    assert "is chance" not in answer(study, "difference").words


def test_everything_free_counts_before_seeds_and_noise(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("all_1", "all_2", "all_3", "nd_1", "nd_2"))
    set_accuracy(study, "all", [[0.80, 0.81, 0.82]] * 3)
    given = answer(study, "difference")
    # Nine runs together, whatever their seed: sqrt(6 / 8) points.
    assert "total SD 0.87," in given.words
    assert "arm all, 1 optimizer" in given.words


def test_one_seed_gives_the_same_seed_sd_under_its_name(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2", "nd_3"), seeds=(0,))
    set_accuracy(study, "nd", [[0.80, 0.81, 0.82]])
    given = answer(study, "difference")
    assert given.value == "More than 6.1 points"  # t(2) = 4.303, times sqrt(2)
    assert "same-seed SD 1.0" in given.words
    assert "Other seeds were not tried" in given.words


def cost_file(study: Study, **changes: Any) -> None:
    """Six blocks in which deterministic steps take 1.20 of the free ones."""
    seconds = {"free": 1.0, "free_again": 1.0, "deterministic_algorithms": 1.2}
    order = [*seconds, *reversed(seconds)]
    blocks = [
        [{"rung": rung, "step_seconds": [seconds[rung] + 0.005 * (-1) ** n * (seconds[rung] > 1)],
          "host": {"gpu": "H100"}} for rung in order] for n in range(6)
    ]  # fmt: skip
    ladder = dict(zip(("base", "control", "deterministic"), seconds, strict=True))
    settings = {"run": "digits/sgd/0/det_1", "code": study.info["code_digest"]} | changes
    folder = study.folder.parent / "cost"
    folder.mkdir(exist_ok=True)
    write_text(
        folder / "digits_sgd_fp32_8.json", json.dumps({"settings": settings, "ladder": ladder, "blocks": blocks})
    )


def test_a_measured_cost_is_shown_if_it_is_of_this_code(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("det_1", "nd_1"))
    cost_file(study)
    given = answer(study, "cost")
    assert given.value == "+20.00 %"
    assert "a training step of digits, sgd on H100, 95 % interval +19.50 to +20.50 %; 6 blocks" in given.words
    assert "Verdict: dearer." in given.words
    cost_file(study, code="9" * 64)
    assert answer(study, "cost").value == "Not measured"


def test_a_metric_that_a_run_lacks_leaves_only_that_run_out(tmp_path: Path) -> None:
    study = of(tmp_path, runs=("nd_1", "nd_2", "nd_3"), seeds=(0,))
    set_accuracy(study, "nd", [[0.80, 0.82, math.nan]])
    given = answer(study, "identical")
    assert given.value == "SD 1.4 points"  # 2 points / sqrt(2)
    assert given.rows[0].svg.count("<circle") == 2
