"""Words for papers: every number is that of the study, by closed forms, and what is unknown is said to be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tests.collect.synthetic import Synthetic
from tests.report.drafts import study_of
from typer.testing import CliRunner

from twinrun.cli.app import app
from twinrun.collect.study import Study
from twinrun.report.section import Draft
from twinrun.report.sections.statement import statement
from twinrun.study.layout import Layout


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Study:
    runs = ("det_1", "det_2", "nd_1", "nd_2")
    return study_of(tmp_path_factory.mktemp("seeds"), Synthetic(tasks=("digits",), runs=runs, epochs=1))


def test_error_bars_are_over_the_means_of_seeds(seeds: Study) -> None:
    (text,) = statement(Draft(seeds), "neurips")
    means = [group.values("accuracy").mean() for group in seeds.groups("nd") if group.cell.optimizer == "sgd"]
    mean, sd = np.mean(means), np.std(means, ddof=1)
    half = stats.t.ppf(0.975, 2) * sd / np.sqrt(3)
    assert (
        f"digits, SGD: mean accuracy {100 * mean:.0f} %, SD {100 * sd:.1f} points, standard error of the mean "
        f"{100 * sd / np.sqrt(3):.2g} points, 95 % interval of the mean {100 * (mean - half):.0f} to "
        f"{100 * (mean + half):.0f} %, n = 3."
    ) in text  # half the interval is 12 points: no digit behind the point counts
    for part in (
        "error bars hold the variability from the seed (initialization, order of the examples, augmentation, dropout)",
        "implementation noise (emulated reorder noise)",
        "n counts seeds, each the mean of 2 trainings; accuracy is that on 60 test images",
        "suppose independent draws, the interval that their mean is normally distributed",
        "Not varied, and so not in the error bars: the split",
    ):
        assert part in text


def test_robustness_and_sample_size_are_the_studys(seeds: Study) -> None:
    draft = Draft(seeds)
    robustness, size = statement(draft, "claim")
    churn = [found.churn for group, found in draft.agreements if group.arm == "nd"]
    assert f"predict another class for {100 * np.mean(churn):.1f} % of the 60 test images" in robustness
    assert "equal weights, to the last bit, in 6 of 6 cells" in robustness
    variances = [group.values("accuracy").var(ddof=1) for group in seeds.groups("nd")]
    assert f"(emulated reorder noise): {100 * np.sqrt(np.mean(variances)):.1f} points (95 % interval" in robustness
    assert "60 test images and 24 trainings: 2 models by 3 seeds by 4 trainings." in size
    shown = re.search(r"accuracy, (\S+) points .*? 3 independent trainings .*? difference of (\S+) points", size)
    assert shown, size
    sd, gap = map(float, shown.groups())
    assert stats.nct.sf(stats.t.ppf(0.975, 4), 4, gap / (sd * np.sqrt(2 / 3))) == pytest.approx(0.8, abs=0.04)


def test_a_total_sd_below_the_same_seed_sd_is_explained(seeds: Study) -> None:
    assert not any("That the second lies" in text for text in statement(Draft(seeds), "claim"))
    study = replace(seeds, results=seeds.results.assign(accuracy=seeds.results["replicate"] / 100))
    robustness, _ = statement(Draft(study), "claim")
    assert "That the second lies below the same-seed SD (0.71 points) is chance" in robustness


def test_runs_with_everything_free_come_first_and_one_run_has_no_error_bar(tmp_path: Path) -> None:
    runs = ("det_1", "nd_1", "nd_2", "all_1", "all_2", "all_3")
    free = study_of(tmp_path / "a", Synthetic(tasks=("digits",), seeds=(0,), runs=runs, epochs=1))
    (text,) = statement(Draft(free), "neurips")
    assert "all free at once. n counts trainings;" in text
    assert text.count("n = 3.") == 2
    single = study_of(tmp_path / "b", Synthetic(tasks=("cracks",), seeds=(0,), runs=("det_1",), epochs=1))
    draft = Draft(single)
    assert "no error bars can be given, because no model was trained twice" in statement(draft, "neurips")[0]
    robustness, size = statement(draft, "claim")
    assert "so nothing is known of it" in robustness
    assert "The images are drawn by a program." in robustness
    assert "cannot be said: the total SD is not known" in size
    same = study_of(tmp_path / "c", Synthetic(tasks=("digits",), seeds=(7,), runs=("nd_1", "nd_2"), epochs=1))
    assert "other seeds are not in them" in statement(Draft(same), "neurips")[0]


def test_the_page_and_the_command_say_the_same(reported: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reported.collected.parent)
    page = reported.report.joinpath("report.md").read_text()
    for kind in ("neurips", "claim"):
        answer = CliRunner().invoke(app, ["report", "--statement", kind])
        assert answer.exit_code == 0, answer.exception
        paragraphs = answer.output.strip().split("\n\n")
        assert len(paragraphs) == (3 if kind == "neurips" else 6)
        for paragraph in paragraphs:
            assert paragraph in page
