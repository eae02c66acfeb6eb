"""The report of imported results: every section that the data allow, and one line for each of the others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from tests.report.browser import Browser

from twinrun.api import load
from twinrun.collect.importing import Source, import_results
from twinrun.collect.study import load_study
from twinrun.report.build import analyze, build_tables
from twinrun.report.evidence import study_runs
from twinrun.report.page import write_report
from twinrun.report.planning import study_sources
from twinrun.report.section import Draft
from twinrun.report.sections import design
from twinrun.report.sections.statement import statement
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout

EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_RECORDED = {
    "determinism": "the weights of the runs", "weights": "the weights of the runs", "layers": "the weights of the runs",
    "features": "the weights of the runs", "first_difference": "the weights of the runs",
    "runtime": "seconds and joules", "energy": "seconds and joules",
    "tests": "deterministic runs to hold the others against",
}  # fmt: skip
PREDICTIONS = dict.fromkeys(("predictions", "hidden", "statement"), "what the runs predict for each test example")


def reported(root: Path, table: Path, **options: str) -> Layout:
    layout = Layout(root)
    import_results([Source(table)], layout.collected, study="mine", **options)
    analyze(layout.collected, layout.analysis)
    write_report(layout.analysis, layout.collected, layout.report)
    return layout


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return reported(tmp_path_factory.mktemp("predictions"), EXAMPLES / "predictions.csv")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return reported(tmp_path_factory.mktemp("metrics"), EXAMPLES / "results.csv", metric="f1")


def sections(layout: Layout) -> dict[str, list[str]]:
    index = json.loads((layout.analysis / "analysis.json").read_text())
    return {section["name"]: section["sentences"] for section in index["sections"]}


def test_what_was_not_recorded_is_said_in_one_line(predictions: Layout, metrics: Layout) -> None:
    for layout, absent in ((predictions, NOT_RECORDED), (metrics, NOT_RECORDED | PREDICTIONS)):
        said = sections(layout)
        assert {name: lines for name, lines in said.items() if "Not recorded" in " ".join(lines)} == {
            name: [f"Not recorded: {what}."] for name, what in absent.items()
        }
        assert "thesis" not in said


def test_what_is_there_is_worked_out(predictions: Layout, metrics: Layout) -> None:
    tables = build_tables(load_study(predictions.collected))
    table = pd.read_csv(EXAMPLES / "predictions.csv")
    right = (table["label"] == table["prediction"]).groupby([table["model"], table["seed"]]).mean()
    performance = tables["performance_mine"].frame
    means = performance[performance["metric"] == "accuracy"].set_index("optimizer")["mean_nd"]
    assert means.to_dict() == pytest.approx(right.groupby("model").mean().to_dict())
    optimizers = tables["optimizers"].frame.iloc[0]
    assert (optimizers["n_first"], optimizers["n_second"]) == (5, 5)
    assert set(tables["churn"].frame["n"]) == {5}
    assert len(tables["flips"].frame) == 10
    assert set(tables["hidden"].frame["remark"]) == {"probabilities are not recorded"}
    assert tables["hidden"].frame["js_distance"].isna().all()
    figures = {path.name for path in (predictions.analysis / "figures").glob("*.svg")}
    assert figures == {"sd_mine.svg", "normality.svg", "churn_error.svg", "class_flips.svg"}
    spread = build_tables(load_study(metrics.collected))["spread"].frame
    assert spread["sd_sample"].tolist() == pytest.approx([0.003209, 0.004472], abs=1e-6)


def test_the_page_speaks_of_models_and_of_nothing_that_the_table_has_not(predictions: Layout) -> None:
    page = (predictions.report / "index.html").read_text()
    heads = set(re.findall(r'<th scope="col"[^>]*><button type="button">([^<]*)', page))
    assert {"Model", "Mean", "SD"} <= heads
    assert not heads & {"Optimizer", "Mean nd", "Det", "n det"}
    assert "Models against each other" in page
    assert not re.search(r"Table 5\.|Figure 5\.|identical runs differ\?|optimizer's|recipes|Spread of identical", page)
    with Browser() as browser:
        browser.show(predictions.report / "index.html", 1000)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.problems == []


def test_the_other_doors_are_open(predictions: Layout, metrics: Layout) -> None:
    runs, lines = study_runs(predictions.collected, ["mine/forest", "mine/network"], None)
    assert {name: len(values) for name, values in runs.values.items()} == {"mine/forest": 5, "mine/network": 5}
    assert lines[-1].startswith("churn of two runs: mine/forest")
    assert study_runs(metrics.collected, ["mine/A", "mine/B"], None)[1] == []
    total, same_seed = study_sources(load_study(metrics.collected))
    assert (total.sd.pooled.df, same_seed.sd.pooled.df) == (8, 0)
    loaded = load(predictions.collected)
    assert loaded.probabilities("mine/forest/any/all_1").sum() == 100
    with pytest.raises(InputError, match="weights are not recorded"):
        loaded.heads("mine/forest/any/all_1")


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "model,seed,loss\n" + "".join(f"a,{n},0.3{n}\nb,{n},0.6{n}\n" for n in range(4))
    )
    import_results([Source(tmp_path / "table.csv")], tmp_path / "collected", study="mine", metric="loss")
    assert build_tables(load_study(tmp_path / "collected"))["compared"].frame["verdict"].tolist() == ["worse"]


def test_a_paper_says_nothing_that_the_table_has_not(metrics: Layout) -> None:
    draft = Draft(load_study(metrics.collected))
    (bars,) = statement(draft, "neurips")
    assert "f1 is that on test images whose number was not recorded. " in bars.replace("F1", "f1")
    assert "variability from everything in which the trainings differed, which was not recorded" in bars
    assert "10 trainings of 2 models." in statement(draft, "claim")[1]


def test_seeds_with_several_runs_have_their_sections(tmp_path: Path) -> None:
    rows = ["model,seed,run,accuracy"]
    rows += [
        f"{m},{s},{r},{0.8 + 0.01 * s + 0.003 * r + (m == 'b') * 0.02:.3f}"
        for m in "ab"
        for s in (1, 2, 3)
        for r in (1, 2)
    ]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    import_results([Source(tmp_path / "table.csv")], tmp_path / "collected", study="mine")
    tables = build_tables(load_study(tmp_path / "collected"))
    assert tables["seed_groups"].frame["groups"].tolist() == [3, 3]
    assert tables["variance"].frame["sd_seeds"].notna().all()


def test_a_model_may_be_missing_in_a_task(tmp_path: Path) -> None:
    rows = ["task,model,seed,accuracy"]
    rows += [f"{name},{seed},0.{80 + seed}" for name in ("A,a", "A,b", "B,b") for seed in range(1, 5)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    layout = reported(tmp_path, tmp_path / "table.csv")
    assert (layout.analysis / "figures" / "normality.png").is_file()
    runs, _ = study_runs(layout.collected, ["A/b", "B/b"], None)
    assert "A and B are different tasks: their images may differ, and not the models alone" in runs.notes
    runs, _ = study_runs(layout.collected, ["A/a", "A/b"], None)
    assert not any("different tasks" in note for note in runs.notes)


def test_seeds_that_are_not_told_apart_are_named(tmp_path: Path) -> None:
    tables = {
        True: "model,accuracy\na,0.5\na,0.6\nb,0.7\nb,0.8\n",
        False: "model,seed,run,accuracy\na,1,1,0.5\na,1,2,0.6\nb,1,1,0.7\nb,1,2,0.8\n",
    }
    for told, table in tables.items():
        (tmp_path / "table.csv").write_text(table)
        import_results([Source(tmp_path / "table.csv")], tmp_path / "collected", study="mine")
        lines = design.SECTION.sentences(Draft(load_study(tmp_path / "collected")))
        assert any("seeds are not told apart" in line for line in lines) == told
