"""Arms side by side: ratios and their intervals against closed forms and by coverage; studies with every arm."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic import CODE, Synthetic, write_study

from twinrun.analysis.analyze import build_figures, build_tables
from twinrun.analysis.collect import collect
from twinrun.analysis.table import Study, load_study
from twinrun.analysis.tables_arms import churn_ratio, sd_ratio
from twinrun.study.grid import ARMS


def test_sd_ratio_is_the_f_interval_and_covers() -> None:
    found = sd_ratio(3.0, 4, 2.0, 9)
    assert found.low == pytest.approx(1.5 / math.sqrt(stats.f.ppf(0.975, 4, 9)))
    assert found.high == pytest.approx(1.5 / math.sqrt(stats.f.ppf(0.025, 4, 9)))
    rng = np.random.default_rng(0)
    for n in (5, 30):
        sds = rng.normal(size=(3000, 2, n)).std(axis=2, ddof=1) * [3.0, 1.0]
        ratios = [sd_ratio(first, n - 1, second, n - 1) for first, second in sds]
        assert 0.93 <= np.mean([one.low <= 3 <= one.high for one in ratios]) <= 0.97
    assert sd_ratio(1.0, 0, 1.0, 3).reason == "not defined: no two runs in a cell"


def test_churn_ratio_is_paired_and_covers() -> None:
    rng = np.random.default_rng(1)
    for n in (5, 30):
        base = rng.uniform(0.05, 0.4, (2000, n))
        ratios = [churn_ratio(list(row * 2 * np.exp(0.2 * rng.normal(size=n))), list(row)) for row in base]
        assert 0.93 <= np.mean([one.low <= 2 <= one.high for one in ratios]) <= 0.97
    assert churn_ratio([0.0, 0.1], [0.1, 0.0]).reason == "not defined: no cell in which both arms flip"
    one = churn_ratio([0.2], [0.1])
    assert (one.value, one.low) == (pytest.approx(2.0), None)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    runs = tuple(f"{arm}_{number}" for arm in ARMS for number in (1, 2, 3))
    spec = Synthetic(tasks=("digits", "cracks"), seeds=(0, 42, 314), n_test=60, epochs=1, spread=0.3, runs=runs)
    params, layout = write_study(tmp_path_factory.mktemp("arms"), spec)
    collect(params, layout, code_digest=CODE)
    return load_study(layout.collected)


def test_every_arm_has_a_row_with_its_numbers(study: Study) -> None:
    tables = build_tables(study)
    frame = tables["arms"].frame
    assert list(frame["arm"].unique()) == [arm for arm in ARMS if arm != "det"]
    row = frame[(frame["task"] == "cracks") & (frame["optimizer"] == "sgd") & (frame["arm"] == "init")].iloc[0]
    results = study.results
    mine = results[(results["task"] == "cracks") & (results["optimizer"] == "sgd")]
    variance = {arm: mine[mine["arm"] == arm].groupby("seed")["f1"].var().mean() for arm in ("nd", "init")}
    assert row["sd_pooled"] == pytest.approx(100 * math.sqrt(variance["init"]))
    assert row["sd_ratio"] == pytest.approx(math.sqrt(variance["init"] / variance["nd"]))
    assert row["sd_ratio_low"] < row["sd_ratio"] < row["sd_ratio_high"]
    churn = tables["churn"].frame
    mine = churn[(churn["task"] == "cracks") & (churn["optimizer"] == "sgd")].set_index(["arm", "seed"])["churn"]
    assert row["churn"] == pytest.approx(mine["init"].mean())
    assert row["churn_ratio"] == pytest.approx(stats.gmean(mine["init"] / mine["nd"]))
    assert (row["cells"], row["runs"]) == (3, 9)
    figures = [figure.name for figure in build_figures(study, tables)]
    assert "arms" in figures


def test_without_nd_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    spec = Synthetic(tasks=("digits",), seeds=(0, 1), n_test=30, epochs=1, runs=("init_1", "init_2", "all_1"))
    params, layout = write_study(tmp_path, spec)
    collect(params, layout, code_digest=CODE)
    tables = build_tables(load_study(layout.collected))
    frame = tables["arms"].frame
    assert frame["sd_ratio"].isna().all()
    assert frame["remark"].str.contains("no nd runs to compare with").all()
    assert build_figures(load_study(layout.collected), tables)
