"""From synthetic runs to the page: complete, byte-stable, and defined for degenerate studies."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.collect.synthetic import Synthetic, as_an_older_version_collected, snapshot
from tests.report.drafts import collected as build

from twinrun.collect.study import load_study
from twinrun.report import style as drawing
from twinrun.report.build import analyze, build_tables
from twinrun.report.page import write_report
from twinrun.study.errors import InputError, MismatchError, TwinrunError
from twinrun.study.layout import Layout

# A layout that collapsed, a deprecated call or a mean of nothing would show as a warning only.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def copy(reported: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(reported.collected, tmp_path / "collected")
    return Layout(tmp_path)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "img":
            self.images.append(found)
        self.links += [str(found[key]) for key in ("href", "src") if found.get(key)]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_self_contained(reported: Layout) -> None:
    text = (reported.report / "index.html").read_text()
    page = Page(text)
    index = json.loads((reported.analysis / "analysis.json").read_text())
    assert {f"figure-{entry['name']}" for entry in index["figures"]} <= set(page.ids)
    one_line = {name for section in index["sections"] if section["filled_by"] for name in section["tables"]}
    assert one_line == {"parting", "sources", "footprint"}
    shown = [entry["name"] for entry in index["tables"] if not entry["for_programs"]]
    assert {f"table-{name}" for name in shown} - set(page.ids) == {f"table-{name}" for name in one_line}
    assert len(shown) == len(index["tables"]) - 1
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(len(image["alt"] or "") > 30 for image in page.images)
    words = ("Procedural data.", "remark on cracks.", "1 diverged run", "cracks/adam/42/nd_2", "Not verified")
    for word in (*words, "is not CUDA noise"):
        assert word in page.text
    for word in ("% of the distance of two fresh seeds in the median of 12 layers", "have a debiased CKA of 0."):
        assert word in page.text
    assert not re.search(r"\bnan\b(?! in epoch)|\bNone\b", re.sub("<style>.*?</style>|<script>.*?</script>", "", text))
    assert "# Report of the study" in (reported.report / "report.md").read_text()


def test_every_table_and_figure_of_f1_or_auc_names_the_positive_class(reported: Layout) -> None:
    index = json.loads((reported.analysis / "analysis.json").read_text())
    named = {
        entry["name"]
        for entry in (*index["tables"], *index["figures"])
        if "F1 and AUC: the positive class is " in " ".join([entry["caption"], *entry.get("notes", [])])
    }
    of_classes = {
        entry["name"]
        for entry in index["tables"]
        if re.search(r"\b(f1|auc)\b", (reported.analysis / entry["file"]).read_text(), re.IGNORECASE)
    }
    figures = {entry["name"] for entry in index["figures"] if entry["name"].startswith(("difference_", "sd_"))}
    assert len(of_classes) > 10
    assert named == of_classes | figures | {"normality"}


def test_sentences_name_tables_by_titles_that_there_are(reported: Layout) -> None:
    index = json.loads((reported.analysis / "analysis.json").read_text())
    words = [*(entry["caption"] for entry in index["figures"]), (reported.report / "report.md").read_text()]
    lists = re.findall(r'\btables? ((?:"[^"]+"(?:, )?)+)', "\n".join(words))
    named = {title for one in lists for title in re.findall(r'"([^"]+)"', one)}
    assert {"What accuracy hides", "Churn of identical runs", "Runtime of whole runs"} <= named
    assert named <= {entry["title"] for entry in index["tables"]}
    names = "|".join(entry["name"] for entry in index["tables"])
    assert not re.search(rf"\btables? ({names})\b", "\n".join(words))


def test_the_thesis_comes_last_in_its_order(reported: Layout) -> None:
    ids = Page((reported.report / "index.html").read_text()).ids
    last = ids[ids.index("thesis") + 1 :]
    tables = ["performance_digits", "performance_cracks", "performance_mammograms", "thesis", "summary"]
    assert [name for name in last if name.startswith("table-")][:5] == [f"table-{name}" for name in tables]
    # Figures of the thesis: CIFAR-10, CBIS-DDSM, SDNET2018.
    order = ("digits", "mammograms", "cracks")
    figures = [f"figure-{kind}_{task}" for kind in ("sd", "difference", "runtime") for task in order]
    figures += ["figure-head_sd", "figure-cosine_adam", "figure-cosine_sgd"]
    assert [name for name in last if name.startswith("figure-")] == figures


def test_the_arm_all_alone_is_a_study_and_the_thesis_is_left_out(tmp_path: Path) -> None:
    """SD, churn, comparison and figures from `all`; what needs other runs says so in a line; no name of the thesis."""
    spec = Synthetic(tasks=("own",), runs=("all_1", "all_2", "all_3"), seeds=(1, 2), n_test=40, epochs=2)
    layout = build(tmp_path, spec)
    analyze(layout.collected, layout.analysis)
    write_report(layout.analysis, layout.collected, layout.report)
    index = json.loads((layout.analysis / "analysis.json").read_text())
    sections = {section["name"]: section for section in index["sections"]}
    answers = {answer["name"]: answer for answer in sections["answers"]["answers"]}
    assert answers["identical"]["question"] == "How far apart are runs in which everything is free?"
    assert answers["identical"]["value"].startswith("SD ")
    assert answers["difference"]["value"].startswith("More than ")
    for name in ("compared", "spread", "predictions", "hidden", "weights", "layers", "features", "intervals"):
        assert not sections[name]["filled_by"], name
    figures = [entry["name"] for entry in index["figures"]]
    assert figures == [
        "sd_own", "normality", "churn_error", "class_flips", "head_sd", "cosine_adam", "cosine_sgd", "layers",
    ]  # fmt: skip
    assert {entry["thesis_name"] for entry in (*index["figures"], *index["tables"])} == {""}
    page = Page((layout.report / "index.html").read_text()).text
    assert "Deterministic against free: what holds. Needs deterministic and identical free runs of a cell" in page
    assert "The thesis's tables and figures. Needs a task that is read as one of the thesis's is" in page
    assert not re.search(r"(mean|SD|of|its|the) nd\b|Spread of identical", page)
    assert ": runs differ in accuracy: pooled total SD" in page


def test_dollars_and_chinese_are_text_in_figures(tmp_path: Path) -> None:
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(1,), runs=("nd_1", "nd_2"), epochs=1)
    layout = build(tmp_path, spec)
    as_an_older_version_collected(layout.collected)
    info = json.loads((layout.collected / "study.json").read_text())
    info["params"]["digits"]["title"] = "Sneakers at $5 and $9"
    info["tasks"]["digits"]["classes"][0] = "\N{CJK UNIFIED IDEOGRAPH-732B}"
    (layout.collected / "study.json").write_text(json.dumps(info))
    analyze(layout.collected, layout.analysis)  # a warning of a missing glyph would be an error here
    study = load_study(layout.collected)
    assert drawing.title_of(study, "digits") == "Sneakers at $5 and $9"
    with drawing.style():
        _, grid = drawing.new_figure(1.0)
        assert not grid[0][0].set_title("$5 and $9").get_parse_math()
    assert drawing.drawable("\N{CJK UNIFIED IDEOGRAPH-732B}", "class 0") == "class 0"


def test_every_thesis_output_is_there(reported: Layout) -> None:
    index = json.loads((reported.analysis / "analysis.json").read_text())
    names = {entry["thesis_name"] for entry in index["tables"] + index["figures"]}
    assert {f"Table 5.{number}" for number in range(1, 7)} | {"Table 6.1"} <= names
    assert {f"Figure 5.{number}" for number in range(1, 13)} <= names
    main = {entry["name"] for entry in index["tables"] if entry["main"]}
    assert {"summary", "determinism_arms", "churn_arms", "compared", "performance_digits"} <= main
    for entry in index["tables"]:
        assert all((reported.analysis / name).stat().st_size > 0 for name in entry["files"])
        forms = {".csv"} if entry["for_programs"] else {".csv", ".tex", ".md"}
        assert {Path(name).suffix for name in entry["files"]} == forms
        assert entry["command"] == "twinrun analyze"
    for entry in index["figures"]:
        assert "n = " in entry["caption"]
        assert all((reported.analysis / name).stat().st_size > 1000 for name in entry["files"])


def test_same_bytes_again_whatever_the_order_of_rows(reported: Layout, copy: Layout) -> None:
    as_an_older_version_collected(copy.collected)
    for name in ("results", "curves", "measured"):
        path = copy.collected / f"{name}.csv"
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    steps: list[tuple[int, int]] = []
    analyze(copy.collected, copy.analysis, lambda *step: steps.append(step))
    assert (steps, steps[-1][0]) == (sorted(steps), steps[-1][1])
    assert snapshot(copy.analysis) == snapshot(reported.analysis)
    write_report(copy.analysis, copy.collected, copy.report)
    assert snapshot(copy.report) == snapshot(reported.report)


def test_somebody_elses_analysis_is_not_replaced(reported: Layout, tmp_path: Path) -> None:
    file = tmp_path / "analysis" / "tables" / "mine.csv"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(InputError, match=r"analysis: holds tables and no analysis\.json"):
        analyze(reported.collected, tmp_path / "analysis")
    assert file.exists()


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_somebody_elses_page_is_not_replaced(name: str, reported: Layout, tmp_path: Path) -> None:
    (tmp_path / name).write_text("my own")
    with pytest.raises(InputError, match=rf"{name}: is no report of twinrun's"):
        write_report(reported.analysis, reported.collected, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "my own")]
    shutil.copy(reported.report / name, tmp_path)
    write_report(reported.analysis, reported.collected, tmp_path)
    assert snapshot(tmp_path) == snapshot(reported.report)


def test_a_file_that_is_not_the_one_of_the_analysis_is_refused(reported: Layout, copy: Layout) -> None:
    shutil.copytree(reported.analysis, copy.analysis)
    index = copy.analysis / "analysis.json"
    content = index.read_text()
    index.write_text(content.replace("identical", "different"))
    with pytest.raises(MismatchError, match=r"analysis.json: was changed after it was written"):
        write_report(copy.analysis, copy.collected, copy.report)
    index.write_text(content)
    name = "tables/churn.csv"
    path = copy.analysis / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(MismatchError, match=rf"{name}: missing, or not the file"):
        write_report(copy.analysis, copy.collected, copy.report)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=rf"{name}: a pipe"):
        write_report(copy.analysis, copy.collected, copy.report)


def test_numbers_are_those_of_the_runs(reported: Layout) -> None:
    results = pd.read_csv(reported.collected / "results.csv")
    cell = results[(results["task"] == "digits") & (results["optimizer"] == "sgd") & (results["seed"] == 314)]
    free, det = cell.loc[cell["arm"] == "nd", "f1"], cell.loc[cell["arm"] == "det", "f1"].item()
    table = pd.read_csv(reported.analysis / "tables/performance_digits.csv")
    row = table[(table["metric"] == "f1") & (table["optimizer"] == "sgd") & (table["seed"] == 314)].iloc[0]
    assert row["mean_nd"] == pytest.approx(free.mean())
    assert row["sd_nd"] == pytest.approx(free.std())
    assert row["difference_percent"] == pytest.approx(100 * (det - free.mean()) / free.mean())
    ids = results[results["task"] == "digits"].reset_index(drop=True)
    rows = ids.index[(ids["optimizer"] == "sgd") & (ids["seed"] == 314) & (ids["arm"] == "nd")]
    predicted = np.load(reported.collected / "digits/probabilities.npy")[rows].argmax(axis=2)
    pairs = [np.mean(predicted[a] != predicted[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    churn = pd.read_csv(reported.analysis / "tables/churn.csv")
    found = churn[(churn["task"] == "digits") & (churn["optimizer"] == "sgd") & (churn["seed"] == 314)]
    assert found["churn"].item() == pytest.approx(np.mean(pairs))


DEGENERATE: dict[str, dict[str, Any]] = {
    "one replicate": {"runs": ("det_1", "nd_1")},
    "no deterministic arm": {"runs": ("nd_1", "nd_2")},
    "only the deterministic arm": {"runs": ("det_1", "det_2")},
    "one run": {"runs": ("det_1",), "tasks": ("digits",), "optimizers": ("sgd",), "seeds": (7,)},
    "other arms": {"runs": ("det_1", "init_1", "init_2", "all_1", "all_2")},
    "one class": {"classes": 1, "no_auc": True},
    "ties": {"ties": True},
    "all runs of a task diverged": {"diverged": frozenset(f"digits/adam/3/{run}" for run in ("det_1", "nd_1", "nd_2"))},
    "five seeds": {"seeds": (0, 42, 314, 3407, 180698), "optimizers": ("adam", "sgd")},
    "CUDA": {"noise": "native"},
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_studies_have_defined_results(name: str, tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "tasks": ("digits",), "optimizers": ("adam",), "seeds": (3,), "runs": ("det_1", "nd_1", "nd_2"), "epochs": 2,
        "n_test": 12,
    }  # fmt: skip
    layout = build(tmp_path, Synthetic(**{**plain, **DEGENERATE[name]}))
    analyze(layout.collected, layout.analysis)
    write_report(layout.analysis, layout.collected, layout.report)
    for path in (layout.analysis / "tables").glob("*.csv"):
        for row in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"):
            absent = [key for key, value in row.items() if value == "" and key != "remark"]
            assert not absent or row["remark"], f"{path.name}: {absent} without a reason in {row}"
    text = Page((layout.report / "index.html").read_text()).text
    assert not re.search(r"\bnan\b(?! in epoch)|\bNone\b|\binf\b", text.split("// Paper")[0])
    assert ("CUDA's own order" in text) == (name == "CUDA")


def test_deterministic_twins_are_verified_or_not(tmp_path: Path) -> None:
    layout = build(tmp_path, Synthetic(tasks=("digits",), runs=("det_1", "det_2", "nd_1"), n_test=12, epochs=1))
    analyze(layout.collected, layout.analysis)
    page = write_report(layout.analysis, layout.collected, layout.report)
    assert "Yes: in all 6 cells the deterministic runs agree to the last bit." in Page(page.read_text()).text
    as_an_older_version_collected(layout.collected)
    frame = load_study(layout.collected).results
    frame.loc[frame["label"] == "det_2", "fingerprint"] = "f" * 64
    frame.drop(columns="row").to_csv(layout.collected / "results.csv", index=False)
    analyze(layout.collected, layout.analysis)
    page = write_report(layout.analysis, layout.collected, layout.report)
    assert "No: in 6 of 6 cells" in Page(page.read_text()).text


def _replace(name: str, old: str, new: str) -> Any:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return spoil


def _cell(name: str, column: str, value: object) -> Any:
    def spoil(folder: Path) -> None:
        frame = pd.read_csv(folder / f"{name}.csv", dtype=str)
        frame.loc[0, column] = str(value)
        frame.to_csv(folder / f"{name}.csv", index=False)

    return spoil


def _cut(name: str, keep: float) -> Any:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def _doubled(folder: Path) -> None:
    lines = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")


def _pickled(folder: Path) -> None:
    np.save(folder / "cracks/labels.npy", np.array([{"not": "loaded"}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_replace("study.json", '"schema": 1', '"schema": 7'), "study.json: schema 7"),
        (_cut("study.json", 0.5), "study.json"),
        (_cut("results.csv", 0.5), "results.csv"),
        (_doubled, "results.csv: more than one row for mammograms/sgd/314/nd_3"),
        (_cut("cracks/probabilities.npy", 0.9), "probabilities.npy"),
        (_cut("cracks/heads.npy", 0.001), "heads.npy"),
        (_pickled, "labels.npy"),
        (lambda folder: (folder / "digits/labels.npy").unlink(), "labels.npy: no such file"),
        (lambda folder: np.save(folder / "digits/heads.npy", np.zeros((2, 2))), "heads.npy: shape"),
        (_replace("results.csv", "accuracy", "precision"), "accuracy"),
        (_cell("results", "f1", "high"), "results.csv: the column f1 holds something that is no number"),
        (_cell("results", "accuracy", 1.5), "results.csv: digits/adam/0/det_1 has accuracy 1.5"),
        (_cell("results", "loss", "inf"), "results.csv: digits/adam/0/det_1 has loss inf"),
        (_cell("results", "loss", 0.25), "results.csv: was changed after it was collected"),
        (_cell("curves", "epoch", 9), "curves.csv: was changed after it was collected"),
        (
            _replace("study.json", '"study": "synthetic"', '"study": "another"'),
            "study.json: was changed after it was collected",
        ),
        (_cell("results", "status", "done"), "has the status 'done'"),
        (_cell("results", "seed", 7), "digits/adam/0/det_1 is not the run that its row describes"),
        (_cell("measured", "train_seconds", "long"), "measured.csv: the column train_seconds"),
        (_cell("measured", "energy_joules", -1), "measured.csv: the column energy_joules holds something negative"),
        (
            _replace("study.json", '"head_size"', '"size"'),
            "study: tasks.digits.head_size is missing",
        ),
        (
            _replace("study.json", '"optimizers": [', '"optimisers": ['),
            "study: grid.optimizers is missing",
        ),
        (lambda folder: np.save(folder / "digits/labels.npy", np.full(80, 10)), "labels.npy: labels that are none of"),
    ],
)
def test_damaged_collections_are_named(copy: Layout, spoil: Any, named: str) -> None:
    spoil(copy.collected)
    with pytest.raises(TwinrunError, match=re.escape(named)):
        analyze(copy.collected, copy.analysis)
    assert not copy.analysis.exists()


@pytest.mark.parametrize("text", ["", "nan"])
def test_a_metric_that_is_missing_is_said_to_be(copy: Layout, text: str) -> None:
    as_an_older_version_collected(copy.collected)
    frame = pd.read_csv(copy.collected / "results.csv", dtype=str, keep_default_na=False)
    frame.loc[frame["id"] == "digits/adam/42/nd_2", "accuracy"] = text
    frame.to_csv(copy.collected / "results.csv", index=False)
    table = build_tables(load_study(copy.collected))["performance_digits"].frame
    row = table[(table["metric"] == "accuracy") & (table["optimizer"] == "adam") & (table["seed"] == 42)].iloc[0]
    assert np.isnan(row["mean_nd"])
    assert "accuracy not defined" in row["remark"]


def test_the_analysis_of_another_study_is_refused(reported: Layout, copy: Layout) -> None:
    as_an_older_version_collected(copy.collected)
    _replace("study.json", '"study": "synthetic"', '"study": "another"')(copy.collected)
    with pytest.raises(TwinrunError, match="made from another study"):
        write_report(reported.analysis, copy.collected, copy.report)
