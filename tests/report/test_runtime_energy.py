"""Runtime, energy and carbon: what is counted, what is set aside, what is said not to be known."""

import math
from pathlib import Path

import pandas as pd
import pytest
from tests.collect.synthetic import CODE, Synthetic, write_study
from tests.report.drafts import study_of

from twinrun.collect.collect import collect
from twinrun.collect.study import Study, load_study
from twinrun.report.section import Draft
from twinrun.report.sections import energy, runtime
from twinrun.report.table import Table
from twinrun.report.thesis.tables import footprint_notes, thesis_frame
from twinrun.stats import footprint
from twinrun.study.errors import MismatchError


@pytest.fixture
def study(tmp_path: Path) -> Study:
    spec = Synthetic(tasks=("digits", "cracks"), optimizers=("sgd",), seeds=(0, 1), n_test=20, epochs=1, noise="native")
    return study_of(tmp_path, spec)


def runtime_table(study: Study) -> Table:
    return runtime.tables(Draft(study))[0]


def footprint_table(study: Study) -> Table:
    return energy.tables(Draft(study))[0]


def measure(study: Study, **values: object) -> None:
    for name, value in values.items():
        study.measured[name.replace("__", ".")] = value


def test_runtime_is_that_of_the_runs(study: Study) -> None:
    measure(study, train_seconds=[100.0 + 3 * place for place in range(16)], shared=False, resumed=False)
    row = runtime_table(study).frame.iloc[1]
    assert (row["n_nd"], row["n_det"]) == (3, 1)
    assert row["seconds_det"] == 112
    assert row["seconds_nd"] == 118
    assert row["seconds_sd_nd"] == 3
    assert row["overhead_percent"] == pytest.approx(100 * (112 - 118) / 118)
    assert row["cost_claim"] == "no: confounded"


def test_resumed_and_shared_runs_are_set_aside_and_counted(study: Study) -> None:
    resumed = [place in (0, 5) for place in range(16)]
    measure(study, train_seconds=[math.nan if one else 10.0 for one in resumed], resumed=resumed, shared=True)
    table = runtime_table(study)
    first, second = table.frame.iloc[0], table.frame.iloc[1]
    assert math.isnan(first["overhead_percent"])
    assert "no det run has a time of its own" in first["remark"]
    assert (second["n_nd"], second["resumed"], second["shared"]) == (2, 1, 4)
    assert second["cost_claim"] == "no: shared"
    assert any("2 resumed runs" in note for note in table.notes)
    assert any("16 runs shared" in note for note in table.notes)


def test_what_was_collected_before_sharing_was_noted_is_not_called_shared(study: Study) -> None:
    measure(study, train_seconds=10.0, resumed=[place == 5 for place in range(16)])
    del study.measured["shared"]
    second = runtime_table(study).frame.iloc[1]
    assert (second["resumed"], second["shared"], second["cost_claim"]) == (1, 0, "no: resumed")


def rows(study: Study) -> pd.DataFrame:
    return footprint_table(study).frame.set_index(["task", "scope", "way"])


def test_energy_is_summed_where_it_is_known(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(study, energy_joules=3.6e5, attempts=[2, *[1] * 15], total_seconds=36.0, host__gpu="NVIDIA H200")
    monkeypatch.setattr(footprint, "PUE", 1.5)
    table = rows(study)
    measured = table.loc[("all tasks", "experiment", "measured")]
    assert measured["kwh"] == pytest.approx(16 * 0.1 * 1.5)
    assert measured["co2_kg"] == pytest.approx(16 * 0.1 * 1.5 * 0.385)
    assert table.loc[("all tasks", "experiment", "formula"), "kwh"] == pytest.approx(16 * 0.7 * 36 / 3600 * 1.5)
    assert table.loc[("all tasks", "all, at most", "measured"), "kwh"] == pytest.approx(17 * 0.1 * 1.5)
    assert table.loc[("cracks", "all, at most", "measured"), "runs"] == 8


def test_a_part_is_never_shown_as_the_whole(study: Study) -> None:
    measure(study, energy_joules=[math.nan, *[1.0] * 15], host__gpu="Some Card", total_seconds=1.0)
    measure(study, energy_note=["not measured: other runs shared the GPU", *[None] * 15])
    table = rows(study)
    row = table.loc[("digits", "experiment", "measured")]
    assert math.isnan(row["kwh"])
    assert "other runs shared the GPU" in row["remark"]
    assert "known of 7 of 8 runs" in row["remark"]
    assert table.loc[("cracks", "experiment", "measured"), "kwh"] > 0
    assert "power of Some Card is not known" in table.loc[("cracks", "experiment", "formula"), "remark"]


def test_table_6_1_of_the_thesis() -> None:
    printed = thesis_frame("table_6_1").set_index("runs")
    intensity = float(printed.loc["all", "carbon_intensity_kg_per_kwh"])
    assert intensity == footprint.KG_PER_KWH
    assert footprint.carbon_kg(float(printed.loc["experiment", "sum_kwh"]), intensity) == pytest.approx(
        29.91, abs=0.005
    )
    assert footprint.carbon_kg(float(printed.loc["all", "sum_kwh"]), intensity) == pytest.approx(89.76, abs=0.005)
    assert footprint.kwh(300 * 3600 * 1000) == pytest.approx(300)
    assert footprint_notes()[0].endswith("29.91 kg CO2 as printed.")
    assert footprint_notes()[1].endswith("89.86 kg CO2 as printed; 233.141 x 0.385 is 89.76 kg.")


def test_attempts_left_in_work_are_counted(tmp_path: Path) -> None:
    """An attempt that was killed left no time and no energy: it is counted as a whole run, and said to be lost."""
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0,), n_test=20, epochs=1, noise="native")
    params, layout = write_study(tmp_path, spec)
    for run, note in (
        ("digits/sgd/0/nd_9", '{"number": 3, "entropy": null, "identity": "x"}'),
        ("other/sgd/0/nd_1", "{cut"),
    ):
        (tmp_path / "work" / run).mkdir(parents=True)
        (tmp_path / "work" / run / "attempt.json").write_text(note)
    collect(params, layout, code_digest=CODE)
    study = load_study(layout.collected)
    measure(study, energy_joules=3.6e6, attempts=[2, 1, 1, 1])
    found = rows(study)
    assert found.loc[("digits", "experiment", "measured"), ["runs", "lost"]].tolist() == [4, 0]
    assert found.loc[("digits", "all, at most", "measured"), ["runs", "lost"]].tolist() == [8, 4]
    assert found.loc[("digits", "all, at most", "measured"), "kwh"] == pytest.approx(8.0)
    assert footprint_table(study).notes[-1] == "Attempts in work/ at tasks that this study has not: other."
    (layout.collected / "unfinished.csv").write_text("id,task,attempts\na,digits,many\n")
    with pytest.raises(MismatchError, match=r"unfinished\.csv: the column attempts"):
        footprint_table(study)
