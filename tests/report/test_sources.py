"""The table by source of randomness: values, intervals that cover, ratios, and studies without such arms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import draft_of, replace_frame, study_of

from twinrun.collect.study import Study
from twinrun.report.section import Draft
from twinrun.report.sections import sources
from twinrun.report.table import Table
from twinrun.stats.intervals import Interval, PooledSd
from twinrun.stats.pairs import PairMean, _interval, pair_mean
from twinrun.stats.weights import mean_relative_distance

ARMS = ("init", "shuffle", "nd", "all")


def sources_table(study: Study) -> Table:
    return sources.tables(Draft(study))[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    runs = ("det_1", *(f"{arm}_{number}" for arm in ARMS for number in (1, 2, 3)))
    return study_of(tmp_path_factory.mktemp("sources"), Synthetic(runs=runs, epochs=2))


def test_every_mark_is_within_its_panel(study: Study) -> None:
    """Panels of a row share their scale, whichever task is drawn first."""
    draft = Draft(study, tables={"sources": sources_table(study)})
    (drawn,) = sources.figures(draft)
    panels = drawn.figure.axes
    assert len(panels) == 9
    for axes in panels:
        assert 0 < axes.dataLim.ymax <= axes.get_ylim()[1]


def test_the_values_are_those_of_the_runs(study: Study) -> None:
    frame = sources_table(study).frame
    assert list(frame["source"].unique()) == list(ARMS)
    assert len(frame) == 3 * 2 * 3 * len(ARMS)
    cells = [cell for cell in study.cells("digits") if cell.optimizer == "sgd"]
    mine = frame[(frame["task"] == "digits") & (frame["optimizer"] == "sgd") & (frame["source"] == "init")]
    row = mine.set_index("quantity")["value"]
    variances, churns, distances = [], [], []
    for cell in cells:
        runs = study.group(cell, "init")
        variances.append(np.var(runs.values("accuracy"), ddof=1))
        classes = [p.argmax(axis=1) for p in study.stream("digits", runs.rows)]
        churns.append(np.mean([(classes[i] != classes[j]).mean() for i in range(3) for j in range(i)]))
        distances.append(mean_relative_distance(np.array(study.heads("digits")[runs.rows, -1])).value)
    assert row["SD of accuracy"] == pytest.approx(math.sqrt(np.mean(variances)))
    assert row["churn"] == pytest.approx(np.mean(churns))
    assert row["head distance"] == pytest.approx(np.mean(distances))
    known = frame[frame["value"] > 0]
    assert (known["value_low"] < known["value"]).all()
    assert (known["value"] < known["value_high"]).all()


def test_ratios_are_those_of_the_values(study: Study) -> None:
    frame = sources_table(study).frame
    for _, group in frame.groupby(["task", "optimizer", "quantity"]):
        values = group.set_index("source")["value"]
        for arm, row in group.set_index("source").iterrows():
            assert row["over_all"] == pytest.approx(values[arm] / values["all"])
            assert row["over_nd"] == pytest.approx(values[arm] / values["nd"])
            if arm not in ("nd", "all"):
                assert row["over_all_low"] < row["over_all"] < row["over_all_high"]
    own = frame[frame["source"] == "all"]
    assert (own["over_all"] == 1).all()
    assert (own["over_all_low"] == 1).all()


def test_intervals_cover_in_simulation() -> None:
    """300 studies of three cells: of five normal runs, and of five head vectors around a common start."""
    rng = np.random.default_rng(0)
    hits = {"sd": 0, "sd ratio": 0, "distance": 0, "ratio": 0}
    truth = float(np.mean([_distance(rng) for _ in range(2000)]))
    for _ in range(300):
        one, other = (PooledSd.of(rng.normal(size=(3, 5)) * scale) for scale in (1.0, 2.0))
        sd, ratio = one.interval(), other.ratio(one)
        hits["sd"] += sd.low < 1 < sd.high
        hits["sd ratio"] += ratio.low < 2 < ratio.high
        means = [_pair_mean(_heads(rng)) for _ in range(2)]
        found, quotient = means[0].interval(), means[0].ratio(means[1])
        hits["distance"] += found.low < truth < found.high
        hits["ratio"] += quotient.low < 1 < quotient.high
    assert all(0.91 <= count / 300 <= 0.995 for count in hits.values()), hits


def _heads(rng: np.random.Generator, cells: int = 3, runs: int = 5) -> np.ndarray:
    # Runs differ in how far they go, which is what makes the mean over pairs vary.
    far = rng.gamma(8, 1 / 8, size=(cells, runs, 1))
    return 1 + 0.1 * far * rng.normal(size=(cells, runs, 40))


def _pair_mean(heads: np.ndarray) -> PairMean:
    return pair_mean([5] * 3, lambda cell, runs: mean_relative_distance(heads[cell][runs]).value)


def _distance(rng: np.random.Generator) -> float:
    return mean_relative_distance(_heads(rng, 1, 2)[0]).value


def test_churn_varies_with_the_images_too(study: Study) -> None:
    churn = sources.churn_of(study.settings("digits")[0].groups("all"))
    assert len(churn.images) == 60
    assert churn.images.mean() == pytest.approx(1)
    alone = _interval(churn.value, churn.over_runs, churn.df, np.empty(0))
    both = churn.interval()
    assert both.high - both.low > alone.high - alone.low or churn.over_runs > 0


def test_too_few_or_equal_runs_have_a_defined_result(tmp_path: Path) -> None:
    runs = ("init_1", "init_2", "all_1")
    pooled = sources_table(study_of(tmp_path / "pooled", Synthetic(tasks=("digits",), runs=runs, epochs=2))).frame
    assert pooled["value_low"].notna().all()  # three seeds of two runs
    study = study_of(tmp_path / "a", Synthetic(runs=runs, seeds=(0, 42), epochs=2))
    frame = sources_table(study).frame
    assert set(frame["source"]) == {"init"}
    assert frame["over_all"].isna().all()
    assert frame["remark"].str.contains("no all arm with two runs").all()
    assert frame.loc[frame["quantity"] == "churn", "remark"].str.contains("fewer than three runs").all()
    ties = study_of(tmp_path / "b", Synthetic(runs=("init_1", "init_2", "init_3"), epochs=2, ties=True))
    frame = sources_table(ties).frame
    assert (frame["value"] == 0).all()
    assert frame["value_low"].isna().all()
    assert frame["remark"].str.contains("all runs are alike").all()
    lost = frozenset(f"digits/adam/{seed}/init_{number}" for seed in (0, 42, 314) for number in (1, 2, 3))
    study = study_of(tmp_path / "c", Synthetic(runs=("init_1", "init_2", "init_3"), epochs=2, diverged=lost))
    frame = sources_table(study).frame
    gone = frame[(frame["task"] == "digits") & (frame["optimizer"] == "adam")]
    assert gone["remark"].str.contains("no cell with two complete runs").all()


def test_a_study_without_single_sources_says_so(tmp_path: Path) -> None:
    table = sources_table(study_of(tmp_path, Synthetic(epochs=2)))
    assert table.frame.empty
    assert not table.filled
    assert "studies/sources.yaml" in sources.SECTION.filled_by


def test_literature_names_its_sources(study: Study) -> None:
    frame = sources.SECTION.tables(Draft(study))[1].frame
    assert set(frame["publication"]) == {"Summers and Dinneen 2021", "Zhuang et al. 2022", "Chen et al. 2022"}
    assert frame["reference"].notna().all()


def test_no_figure_without_rows(study: Study) -> None:
    draft = draft_of(study, sources.SECTION)
    assert len(sources.figures(draft)) == 1
    replace_frame(draft, "sources", draft.frame("sources").iloc[:0])
    assert sources.figures(draft) == []


def test_a_ratio_that_has_no_value_says_why_and_one_that_has_says_nothing() -> None:
    whole, none = Interval(1.5, 1.0, 2.0, 3, ""), Interval(None, None, None, 3, "")
    said = sources._remark(whole, {"nd": none, "all": whole, "init": none}, {"nd": 1, "all": 1})
    assert said == "no init arm with two runs; no ratio: the nd runs are alike or incomplete"
