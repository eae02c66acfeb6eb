"""The thesis's tables read again: what is known to be wrong is found, and what is right passes."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from tests.collect.synthetic import snapshot

from twinrun.report.sections import thesis
from twinrun.report.thesis import checks as thesis_checks
from twinrun.report.thesis import reanalysis
from twinrun.report.thesis import tables as thesis_tables
from twinrun.study.errors import InputError

FOUND = reanalysis.reanalyze_thesis()


def test_corrected_table_5_5() -> None:
    cells = FOUND.cells
    assert len(cells) == 30
    below = {name: int((cells[name] < 0.05).sum()) for name in ("p_thesis", "p_valid", "p_holm", "p_bh")}
    assert below == {"p_thesis": 12, "p_valid": 3, "p_holm": 0, "p_bh": 0}


def test_implied_sd_gives_back_the_printed_p() -> None:
    from twinrun.stats.hypothesis import one_sample_t, prediction_test

    for row in FOUND.cells.to_dict("records"):
        # Five values with that mean and SD.
        shape = pd.Series([-2.0, -1.0, 0.0, 1.0, 2.0])
        values = row["mean_nd"] + row["sd_implied"] * shape / shape.std()
        assert one_sample_t(values, row["det"]).p == pytest.approx(row["p_thesis"], rel=1e-6)
        valid = prediction_test(values, row["det"])
        assert (valid.statistic, valid.p) == pytest.approx((row["t_valid"], row["p_valid"]), rel=1e-6)
        assert row["sd_implied_from"] <= row["sd_implied"] <= row["sd_implied_to"]


def test_what_settles_the_matter() -> None:
    """Table 5.5's twelve of thirty are what chance gives, and no data set goes one way."""
    # The size of the thesis's test, P(|T_4| > 2.776 / sqrt(6)), and the binomial, each from their definitions.
    size = 2 * stats.t.sf(stats.t.isf(0.025, 4) / math.sqrt(6), 4)
    chance = sum(math.comb(30, k) * size**k * (1 - size) ** (30 - k) for k in range(12, 31))
    assert FOUND.chance_of_as_many == pytest.approx(chance)
    assert FOUND.chance_of_as_many == pytest.approx(0.23, abs=0.005)
    assert FOUND.uniform.p == pytest.approx(0.34, abs=0.005)
    assert FOUND.paired[["cells", "above", "below"]].to_numpy().tolist() == [[10, 5, 5]] * 3
    assert FOUND.paired["p"].tolist() == pytest.approx([0.44, 0.76, 0.68], abs=0.005)
    for _, cells in FOUND.cells.groupby("task", sort=False):
        p = stats.ttest_rel(cells["det"], cells["mean_nd"]).pvalue
        assert p == pytest.approx(FOUND.paired.set_index("task").loc[cells["task"].iloc[0], "p"])
    said = " ".join(FOUND.summary)
    assert "12 or more of 30 cells would be below 0.05 in Table 5.5 with probability 0.23" in said
    assert "The valid p values look uniform, as without an effect they are (Kolmogorov-Smirnov, p = 0.34)" in said
    assert "SDNET2018 5 above and 5 below, p = 0.76" in said
    assert "No data set shows a shift." in said


def test_tables_of_another_result_are_not_called_chance() -> None:
    """The sentences follow the numbers: an effect of one direction in every cell is not explained away."""
    cells = FOUND.cells.assign(det=FOUND.cells["mean_nd"] + FOUND.cells["sd_implied"], p_thesis=0.001, p_valid=0.01)
    other = reanalysis.Reanalysis(cells, FOUND.checks)
    assert other.chance_of_as_many < 1e-10
    assert other.paired["below"].tolist() == [0, 0, 0]
    said = " ".join(other.summary)
    assert "no sign of an effect" not in said
    assert "The valid p values do not look uniform" in said
    assert "No data set shows a shift" not in said


@pytest.mark.parametrize(
    ("where", "what", "recomputed"),
    [
        ("Table 5.6", "CIFAR-10 adam: p of F", 0.03316),
        ("Table 6.1", "all runs: CO2", 89.76),
        ("Table 5.4", "CIFAR-10: mean", 93.67),
        ("Table 5.4", "CBIS-DDSM: mean", 0.778),
        ("Table 4.2", "images by lesion", 2886),
        ("Table 5.6", "groups compared", 5),
        ("Sec. 5.1", "highest accuracy with SGD", 94.96),
        ("Sec. 5.2.2", "seed 314", 2.073),
        ("Sec. 5.2.2", "seed 0", -1.376),
    ],
)
def test_known_mistakes_are_found(where: str, what: str, recomputed: float) -> None:
    mistakes = FOUND.mistakes
    hits = mistakes[mistakes["where"].str.startswith(where) & mistakes["what"].str.contains(what, regex=False)]
    assert len(hits) == 1
    assert hits["recomputed"].iloc[0] == pytest.approx(recomputed, rel=5e-4)


def test_what_is_right_passes() -> None:
    counts = FOUND.checks["verdict"].value_counts()
    assert counts["FAIL"] == 11
    assert (FOUND.checks.loc[FOUND.checks["kind"] == "difference", "verdict"] == "pass").all()
    assert (FOUND.checks.loc[FOUND.checks["kind"] == "order", "verdict"] == "pass").all()


def test_the_checks_find_mistakes_that_are_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table with one number changed: the check of that number, and of no other, is what fails."""
    real = thesis_tables.thesis_frame
    before = {(check.where, check.what): check.verdict for check in thesis_checks.all_checks()}
    changes = [
        ("tables_5_1_to_5_3_and_5_5", 3, "difference_percent", "0.249", "CIFAR-10 sgd 180698: difference in %"),
        ("table_5_4", 2, "minimum", "0.930", "SDNET2018: minimum <= mean"),
        ("table_5_6", 3, "p", "0.8246", "CIFAR-10 sgd: p of H = 2.06, df 4"),
        ("table_6_1", 0, "sum_kwh", "78.69", "experiment runs: kWh"),
    ]
    for name, row, column, value, expected in changes:

        def altered(wanted: str, name=name, row=row, column=column, value=value) -> pd.DataFrame:
            frame = real(wanted)
            if wanted == name:
                frame.loc[row, column] = value
            return frame

        for module in (thesis_tables, thesis_checks):
            monkeypatch.setattr(module, "thesis_frame", altered)
        after = {(check.where, check.what): check.verdict for check in thesis_checks.all_checks()}
        newly = {what for (where, what), verdict in after.items() if verdict == "FAIL" != before.get((where, what))}
        assert expected in newly


def test_printed_numbers_are_known_to_half_a_digit() -> None:
    reported, recompute = thesis_tables.reported, thesis_checks.recompute
    number = reported("0.10")
    assert (number.low, number.high) == pytest.approx((0.095, 0.105))
    double = [reported("2.0"), lambda x: 2 * x]
    assert recompute("k", "w", "x", reported("4.1"), double[1], double[0]).verdict == "pass"
    assert recompute("k", "w", "x", reported("4.2"), double[1], double[0]).verdict == "cut off"
    assert recompute("k", "w", "x", reported("4.5"), double[1], double[0]).verdict == "FAIL"


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        reanalysis.write_reanalysis(reanalysis.reanalyze_thesis(), tmp_path / name)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert set(snapshot(tmp_path / "a")) == {"cells.csv", "checks.csv", "reanalysis.md"}
    page = (tmp_path / "a" / "reanalysis.md").read_text()
    assert "arXiv 2410.02806" in page
    assert "nan" not in page.lower().replace("finance", "")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        reanalysis.write_reanalysis(FOUND, tmp_path / "file" / "out")


def test_groups_are_those_whose_chi_square_gives_the_p_value() -> None:
    statistic, p = thesis_tables.Reported(5.991, 5.9905, 5.9915), thesis_tables.Reported(0.05, 0.045, 0.055)
    assert thesis_checks._implied_groups(statistic, p) == 3  # 2 degrees of freedom
    assert p.cut == thesis_tables.Reported(0.05, 0.045, pytest.approx(0.06))
    below = thesis_tables.Reported(-0.05, -0.055, -0.045).cut
    assert below == thesis_tables.Reported(-0.05, pytest.approx(-0.06), -0.045)


def test_one_intensity_is_that_of_a_sum_over_its_energy() -> None:
    (check, *_) = [check for check in thesis_checks.energy() if "kg/kWh" in check.what]
    assert 0.38 < check.recomputed < 0.39


def test_percent_of_the_thesis_are_shares_beside_ours() -> None:
    cell = next(cell for cell in thesis_tables.published_cells() if cell.metric == "accuracy_percent")
    row = thesis._row("cifar10", cell, {})
    assert (row["thesis_nd"], row["thesis_det"]) == (
        pytest.approx(cell.free_mean.value / 100), pytest.approx(cell.deterministic.value / 100),
    )  # fmt: skip
