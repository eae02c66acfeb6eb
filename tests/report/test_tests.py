"""Tables of tests from synthetic studies: complete, defined for degenerate ones, the same each time."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.collect.synthetic import Synthetic
from tests.conftest import TINY
from tests.report.drafts import draft_of, study_of
from typer.testing import CliRunner

from twinrun.collect.study import Study
from twinrun.report.names import positive_words
from twinrun.report.sections import determinism, intervals, seeds, tests
from twinrun.report.table import Table, missing
from twinrun.stats import hypothesis, variance
from twinrun.study.errors import InputError
from twinrun.study.files import read_json, write_json
from twinrun.study.params import read_params

pytestmark = pytest.mark.filterwarnings("error")

NUMBERS = ("p_valid", "p_paired", "p_tost", "f", "h", "p_welch", "icc", "sd_low", "p_shapiro", "boot_low")
STUDIES = {
    "sample": Synthetic(n_test=40, epochs=2, diverged=frozenset({"cracks/adam/42/nd_2"})),
    "five runs": Synthetic(
        n_test=40, epochs=2, tasks=("digits",), runs=("det_1", "nd_1", "nd_2", "nd_3", "nd_4", "nd_5"), spread=0.4
    ),
    "ties": Synthetic(n_test=40, epochs=2, ties=True, tasks=("digits",)),
    "one run": Synthetic(n_test=40, epochs=2, runs=("det_1", "nd_1"), tasks=("digits",)),
    "one seed": Synthetic(n_test=40, epochs=2, seeds=(0,), tasks=("digits",)),
    "one optimizer": Synthetic(n_test=40, epochs=2, optimizers=("sgd",), tasks=("digits",)),
    "no det": Synthetic(n_test=40, epochs=2, runs=("nd_1", "nd_2", "nd_3"), tasks=("digits",)),
    "no nd": Synthetic(n_test=40, epochs=2, runs=("det_1", "det_2"), tasks=("digits",)),
    "no auc": Synthetic(n_test=40, epochs=2, tasks=("mammograms",), no_auc=True),
    "all diverged": Synthetic(
        n_test=40, epochs=2, tasks=("digits",), seeds=(0,), optimizers=("sgd",),
        diverged=frozenset({f"digits/sgd/0/{label}" for label in ("det_1", "nd_1", "nd_2", "nd_3")}),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    found = {}
    for name, spec in STUDIES.items():
        found[name] = study_of(tmp_path_factory.mktemp("study"), spec)
    return found


def tables(study: Study) -> dict[str, Table]:
    return draft_of(study, tests.SECTION, seeds.SECTION, intervals.SECTION).tables


@pytest.mark.parametrize("name", STUDIES)
def test_every_missing_number_has_a_remark(studies: dict[str, Study], name: str) -> None:
    for table in tables(studies[name]).values():
        for _, row in table.frame.iterrows():
            for column in set(NUMBERS) & set(table.frame):
                assert not missing(row[column]) or row["remark"], (table.name, column)


@pytest.mark.parametrize("name", ["sample", "five runs"])
def test_the_same_each_time(studies: dict[str, Study], name: str) -> None:
    for first, second in zip(tables(studies[name]).values(), tables(studies[name]).values(), strict=True):
        pd.testing.assert_frame_equal(first.frame, second.frame, check_exact=True)


def test_numbers_are_those_of_the_functions(studies: dict[str, Study]) -> None:
    study = studies["five runs"]
    found = tables(study)
    cell = next(study.cells("digits"))
    free = study.group(cell, "nd").known("accuracy")
    det = float(study.group(cell, "det").values("accuracy")[0])
    row = found["det_test"].frame.iloc[0]
    assert row["p_valid"] == hypothesis.prediction_test(free, det).p
    assert row["p_thesis"] == hypothesis.one_sample_t(free, det).p
    assert row["p_holm_task"] >= row["p_valid"]
    several = study.settings("digits")[0].samples("nd", "accuracy")
    row = found["seed_groups"].frame.iloc[0]
    assert row["f"] == hypothesis.anova(several).statistic
    assert row["n_groups"] == "5, 5, 5"
    means = [[np.mean(runs) for runs in setting.samples("nd", "accuracy")] for setting in study.settings("digits")]
    row = found["optimizers"].frame.iloc[0]
    above = sum((b > a) + (b == a) / 2 for a in means[0] for b in means[1])
    assert (row["u"], row["superiority"]) == pytest.approx((above, above / 9))
    assert row["superiority_low"] < row["superiority"] <= row["superiority_high"]
    assert not found["seed_groups"].frame["remark"].str.contains("left out").any()
    parts = variance.components(several)
    row = found["variance"].frame.iloc[0]
    assert row["icc"] == parts.icc
    assert row["sd_noise"] == pytest.approx(100 * math.sqrt(parts.within))


def test_two_runs_are_enough_to_start_alike(studies: dict[str, Study]) -> None:
    frame = draft_of(studies["one run"], determinism.SECTION).tables["determinism"].frame
    assert set(frame["same_start"]) == {"yes"}


def test_cells_whose_runs_are_equal_are_counted(studies: dict[str, Study]) -> None:
    frame = draft_of(studies["no nd"], determinism.SECTION).tables["determinism_arms"].frame
    (row,) = frame[frame["arm"] == "det"].to_dict("records")
    assert (row["cells"], row["cells_equal"], row["cells_distinct"]) == (6, 6, 0)


def test_two_classes_have_a_positive_one_and_more_a_mean(studies: dict[str, Study]) -> None:
    two, ten = (positive_words(studies[name]).removeprefix("F1 and AUC: ") for name in ("no auc", "one seed"))
    assert two == "the positive class is class 1 (Mammograms (procedural images))."
    assert ten == "of three classes or more they are the mean over the classes."


def test_thesis_names(studies: dict[str, Study]) -> None:
    names = {table.thesis_name: table for table in tables(studies["sample"]).values()}
    assert names["Table 5.5"].name == "det_test"
    assert names["Table 5.6"].name == "seed_groups"
    assert "52 %" not in names["Table 5.5"].caption
    assert "at n = 3" in names["Table 5.5"].caption


def test_margin_comes_from_the_params(studies: dict[str, Study], tmp_path: Path) -> None:
    study = studies["five runs"]
    assert study.info["analysis"] == {"equivalence_margin_points": 0.5, "alpha": 0.05}
    verdicts = {}
    for margin in (0.5, 90.0):
        info = {**study.info, "analysis": {"equivalence_margin_points": margin}}
        altered = Study(study.folder, info, study.results, study.curves, study.measured)
        verdicts[margin] = set(tables(altered)["equivalence"].frame["equivalence"])
    assert "equivalent" not in verdicts[0.5]
    assert verdicts[90.0] == {"equivalent"}


def test_a_study_collected_without_the_block_has_the_defaults(studies: dict[str, Study], tmp_path: Path) -> None:
    study = studies["one seed"]
    info = {key: value for key, value in read_json(study.folder / "study.json").items() if key != "analysis"}
    write_json(tmp_path / "study.json", info)
    old = Study(tmp_path, info, study.results, study.curves, study.measured)
    assert old.assumptions == study.assumptions


def test_the_analysis_block_is_checked_and_read_by_no_run(tmp_path: Path) -> None:
    plain = read_params(TINY)
    file = tmp_path / "params.yaml"
    file.write_text(TINY.read_text() + "analysis: {equivalence_margin_points: 2.0, alpha: 0.01}\n")
    params = read_params(file)
    assert params.analysis.equivalence_margin_points == 2.0
    assert params.grid_digest == plain.grid_digest
    for line, words in (
        ("analysis: {equivalence_margin_points: 0}", "analysis.equivalence_margin_points"),
        ("analysis: {alpha: 0.7}", "less than 0.5"),
        ("analysis: {margin_points: 1.0}", "allowed here: equivalence_margin_points, alpha"),
    ):
        file.write_text(TINY.read_text() + line + "\n")
        with pytest.raises(InputError, match=words):
            read_params(file)


def test_variance_of_one_way_effects() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 1)) * 2 + rng.normal(size=(400, 5))
    found = variance.components(list(data))
    assert found.between == pytest.approx(4, rel=0.15)
    assert found.within == pytest.approx(1, rel=0.1)
    same = variance.components([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert same.truncated
    assert (same.between, same.icc) == (0.0, 0.0)
    assert same.between_raw < 0
    assert variance.components([[1.0, 1.0], [1.0, 1.0]]).reason == "not defined: all values are equal"
    assert variance.components([[1.0], [2.0]]).reason == "not defined: one value per group"
    apart = variance.components([[1.0, 1.0], [2.0, 2.0]])
    assert (apart.icc, apart.icc_low) == (1.0, None)


def test_commands(studies: dict[str, Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from twinrun.cli.app import app

    runner = CliRunner()
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["reanalyze", "thesis", "--out", "out"])
    assert "it is 3; after Holm 0, after Benjamini-Hochberg 0" in done.output
    assert (tmp_path / "out" / "reanalysis.md").exists()
