"""Tables as LaTeX and Markdown, guidelines, the interface for notebooks, and every docstring example."""

import doctest
import importlib
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.collect.synthetic import Synthetic
from tests.report.drafts import collected, draft_of, study_of

import twinrun
from twinrun.collect.study import load_study
from twinrun.report.build import build_tables
from twinrun.report.sections.guidelines import guidelines
from twinrun.report.sections.seeds import OPTIMIZER_COLUMNS
from twinrun.report.sections.tests import EQUIVALENCE_COLUMNS
from twinrun.report.table import (
    P_VALUE,
    REMARK,
    TASK,
    TWO_DIGITS,
    Column,
    N,
    Table,
    cells,
    columns_shown,
    latex,
    latex_text,
    markdown,
    markdown_table,
)
from twinrun.stats.intervals import PooledSd
from twinrun.stats.variance import total_sd
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout

MODULES = (
    "stats.agreement", "stats.footprint", "collect.pictures", "report.table",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"twinrun.{name}")
    done = doctest.testmod(module, extraglobs={"np": np, "pd": pd})
    assert done.attempted > 0
    assert done.failed == 0


NASTY = r"50 % & $x_1^2$ #3 {a} \b ~ <c> | [d] `code_1`"


def nasty_table() -> Table:
    columns = (TASK, N, Column("difference_percent", "Difference %", "+.2f", "100 (det - nd) / nd"))
    rows = [{"task": NASTY, "n": 3, "difference_percent": -0.5}, {"task": "[first]", "n": 4}]
    return Table("nasty", "What?", NASTY, columns, rows, thesis_name="table 9.9", notes=("A note_1.",))


def test_latex_is_escaped() -> None:
    text = latex(nasty_table())
    body = text.split(r"\endlastfoot")[1]
    assert r"50 \% \& \$x\_1\textasciicircum{}2\$ \#3 \{a\} \textbackslash{}b \textasciitilde{}" in body
    assert r"\texttt{code\_1}" in body
    assert r"{}[first]" in body
    assert "$-$0.50" in body
    assert r"\caption[{What?}]{Table 9.9. What? 50" in text
    assert text.count(r"\toprule") == 2
    assert text.count(r"\begin{longtable}{p{16.0em}rr}") == 1
    # What is left of special characters is a command or escaped: braces balance, no bare % or &.
    for line in body.splitlines()[1:-2]:
        assert line.replace(r"\{", "").replace(r"\}", "").count("{") == line.replace(r"\{", "").replace(
            r"\}", ""
        ).count("}")
        assert line.replace(r"\&", "").count("&") == 2
        assert "%" not in line.replace(r"\%", "")
    assert latex_text("") == ""


def test_an_empty_remark_is_not_shown() -> None:
    frame = pd.DataFrame({"n": [1, 2], "remark": ["", ""]})
    assert columns_shown((N, REMARK), frame) == [N]
    frame.loc[1, "remark"] = "why"
    assert columns_shown((N, REMARK), frame) == [N, REMARK]


def test_a_frame_holds_whole_numbers_points_and_what_is_missing() -> None:
    points = Column("points", "Points", ".1f", "of 100", factor=100)
    columns = (N, points, Column("share", "Share", ".2f", ""), REMARK)
    rows = [
        {"n": 2**60 + 1, "points": 0.25, "share": 1},
        {"n": None, "points": None, "share": math.nan, "remark": "no"},
    ]
    frame = Table("t", "T", "C", columns, rows).frame
    assert frame["n"].tolist() == [2**60 + 1, pd.NA]
    assert frame.to_csv(index=False).splitlines()[1:] == ["1152921504606846977,25.0,1.0,", ",,,no"]
    assert [column.shown(value) for column, value in zip(columns, frame.iloc[1], strict=True)] == ["n/a"] * 3 + ["no"]


def test_numbers_have_the_digits_that_their_interval_carries() -> None:
    columns = [Column(name, name, ".4f", "") for name in ("churn", "churn_low", "churn_high", "recall", "recall_sd")]
    points = (
        Column("gap", "", "+.2f", "", 100),
        *(Column(f"gap_{end}", "", "+.2f", "", 100) for end in ("low", "high")),
    )
    columns += [*points, Column("mean", "", ".4f", "", digits_of="gap"), Column("sd", "", TWO_DIGITS, "")]
    first = {"churn": 0.12345, "churn_low": 0.1, "churn_high": 0.15, "recall": 0.98765, "recall_sd": 0.123,
             "gap": 1.234, "gap_low": -1.0, "gap_high": 3.0, "mean": 0.91234, "sd": 0.0032099}  # fmt: skip
    frame = pd.DataFrame([first, {**first, "churn_low": None, "recall_sd": 0.0, "gap_high": math.nan}])
    shown = ["0.123", "0.100", "0.150", "0.99", "0.1230", "+1.2", "-1.0", "+3.0", "0.912", "0.0032"]
    plain = ["0.1235", "n/a", "0.1500", "0.9877", "0.0000", "+1.23", "-1.00", "n/a", "0.9123", "0.0032"]
    assert cells(columns, frame) == [shown, plain]


def ends_shown(stem: str, form: str, row: tuple[float, float, float], **more: Any) -> list[str]:
    columns = [Column(f"{stem}{end}", "", form, "", **more) for end in ("", "_low", "_high")]
    names = [column.name for column in columns]
    margin = [Column("margin", "", ".3f", "")]
    return cells([*columns, *margin], pd.DataFrame([dict(zip([*names, "margin"], [*row, 0.5], strict=True))]))[0][:3]


def test_ends_of_an_interval_keep_their_side() -> None:
    assert ends_shown("gap", "+.2f", (2.0, 0.03, 3.97)) == ["+2.00", "+0.03", "+3.97"]
    assert ends_shown("ratio", ".2f", (0.42, 0.11, 25.0), neutral=1) == ["0.42", "0.11", "25"]
    assert ends_shown("ratio", ".2f", (1.35, 1.0047, 1.5), neutral=1) == ["1.350", "1.005", "1.500"]
    assert ends_shown("gap", "+.2f", (0.21, -0.08, 0.499), margin="margin") == ["+0.210", "-0.080", "+0.499"]
    points = next(column for column in EQUIVALENCE_COLUMNS if column.name == "difference_points")
    row = {"difference_points": -0.003, "difference_points_low": -0.0049, "difference_points_high": -0.0011}
    columns = [column for column in EQUIVALENCE_COLUMNS if column.name in {*row, "margin_points"}]
    frame = pd.DataFrame([{**row, "margin_points": 0.5}])
    assert cells(columns, frame)[0][1:] == ["-0.0030", "-0.0049", "-0.0011"]
    assert points.shown(-0.003) == "-0.003"


def test_a_p_value_does_not_read_as_the_bound_that_it_is_beside() -> None:
    column = Column("p", "", P_VALUE, "")
    assert [column.shown(p) for p in (0.0496, 0.0503, 0.05, 0.031)] == ["0.0496", "0.0503", "0.050", "0.031"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex: install Debian's `texlive-latex-recommended`")
def test_every_table_compiles_and_fits_the_page(layout: Layout, tmp_path: Path) -> None:
    tables = [*build_tables(load_study(layout.collected)).values(), nasty_table()]
    tables.append(Table("empty", "Empty", "None.", (TASK, N), []))
    for table in tables:
        (tmp_path / f"{table.name}.tex").write_text(latex(table))
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs, longtable, lscape}"
    body = "\n".join(rf"\input{{{table.name}}}\clearpage" for table in tables)
    page = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # longtable finds its widths in the second run
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-800:]
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")
    over = [
        float(points) for points in re.findall(r"Overfull \\hbox \(([0-9.]+)pt", (tmp_path / "all.log").read_text())
    ]
    assert max(over, default=0) < 12  # points: nothing reaches beyond the margin


def test_markdown_is_escaped() -> None:
    lines = markdown_table(nasty_table().columns, nasty_table().frame)
    assert lines[1] == "| --- | ---: | ---: |"
    assert all(line.replace(r"\|", "").count("|") == 4 for line in lines)
    assert "Made by `twinrun analyze`." in markdown(nasty_table())
    empty = Table("empty", "Empty", "None.", (TASK, N), [])
    assert "Not available: no rows." in markdown(empty)
    assert "Not available: no rows." in latex(empty)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    spec = Synthetic(
        tasks=("digits",), n_test=60, epochs=1, runs=("det_1", "det_2", "nd_1", "nd_2", "nd_3"), spread=0.3
    )
    return collected(tmp_path_factory.mktemp("study"), spec)


def test_guidelines_carry_their_numbers(layout: Layout) -> None:
    draft = draft_of(load_study(layout.collected))
    found = guidelines(draft)
    assert any("to the last bit" in one.advice for one in found)
    spread = draft.frame("spread")
    mine = spread[(spread["metric"] == "accuracy") & (spread["arm"] == "nd")]
    pooled = PooledSd.of_sds(mine["sd_sample"], mine["n"])
    sd = pooled.value
    assert (round(sd**2, 12), pooled.df) == (round(float((mine["sd_sample"] ** 2).mean()), 12), 12)
    gap = next(one for one in found if "two runs of one model" in one.advice)
    assert f"{100 * stats.t.ppf(0.975, 12) * math.sqrt(2) * sd:.0f} points" in gap.advice
    # Two optimizers of three seeds with three runs each: the variance components of each, together.
    nd = draft.study.results.query("arm == 'nd'")
    total = PooledSd.together(
        total_sd([rows["accuracy"] for _, rows in of.groupby("seed")]) for _, of in nd.groupby("optimizer")
    )
    assert total.df > 5
    gap = next(one for one in found if "two models" in one.advice)
    assert f"for less than {100 * total.gap_of_two():.0f} points" in gap.advice
    assert all("table" in one.ground and one.rule.startswith("given when") for one in found)


def test_no_guideline_where_the_data_do_not_decide(tmp_path: Path) -> None:
    spec = Synthetic(tasks=("digits",), seeds=(0,), runs=("det_1", "nd_1"), n_test=20, epochs=1)
    assert guidelines(draft_of(study_of(tmp_path, spec))) == []


def test_a_study_is_loaded_from_any_of_its_folders(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (layout.root, layout.collected, layout.root / "runs", str(layout.root)):
        assert len(twinrun.load(folder).runs) == 30
    monkeypatch.chdir(layout.root)
    study = twinrun.load()
    assert "row" not in study.runs
    assert study.tables["churn"]["churn"].between(0, 1).any()
    run = "digits/sgd/42/nd_2"
    assert study.probabilities(run).shape == (60, 10)
    assert (study.probabilities(run).argmax(axis=1) == study.labels("digits")).mean() == pytest.approx(
        study.runs.set_index("id").loc[run, "accuracy"]
    )
    assert study.heads(run).shape[0] == 2
    assert set(study.curves["id"]) == set(study.measured["id"])


def test_what_cannot_be_loaded_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        twinrun.load(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no collected study"):
        twinrun.load(tmp_path / "other")
    with pytest.raises(InputError, match="no run of this study"):
        twinrun.load(layout.root).heads("digits/sgd/42/nd_9")
    with pytest.raises(InputError, match="tasks: digits"):
        twinrun.load(layout.root).labels("flowers")


def test_a_loaded_study_shows_itself_and_names_the_nearest_table(layout: Layout) -> None:
    study = twinrun.load(layout.root)
    assert repr(study) == "study synthetic: 30 runs (det 12, nd 18) of 1 task"
    page = study._repr_html_()
    assert page.count("<td>sgd</td>") == 2
    free = study.runs[(study.runs["arm"] == "nd") & (study.runs["optimizer"] == "sgd")]["accuracy"]
    assert f"<td>{free.mean():.4f}</td>" in page
    with pytest.raises(InputError, match="'chrn' is no table of this study\n  the nearest: churn"):
        _ = study.tables["chrn"]
    assert dir(twinrun) == ["__version__", *twinrun.__all__]


def test_importing_twinrun_stays_light() -> None:
    code = "import sys, twinrun, twinrun.cli; twinrun.load; print({'pandas', 'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_chance_of_being_above_shows_on_which_side_of_a_half_it_lies() -> None:
    columns = [column for column in OPTIMIZER_COLUMNS if column.name.startswith("superiority")]
    frame = pd.DataFrame([{"superiority": 0.71, "superiority_low": 0.4997, "superiority_high": 0.93}])
    assert cells(columns, frame) == [["0.7100", "0.4997", "0.9300"]]
