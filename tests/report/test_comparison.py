"""`twinrun compare`: what it reads, the verdict in its first line, exit codes, and mistakes with names."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from typer.testing import CliRunner

from twinrun.cli.app import app
from twinrun.report.compare_page import draw, write_page
from twinrun.report.comparison import compare_runs, published_verdict
from twinrun.report.csv_runs import table_runs
from twinrun.report.evidence import Runs, unit_notes
from twinrun.stats.intervals import PooledSd
from twinrun.stats.published import published

LONG = """model,seed,f1,lr
sgd,1,0.900,x
sgd,2,0.910,x
sgd,3,0.905,x
adam,1,0.950,x
adam,2,0.962,x
adam,3,0.955,x
lion,1,0.951,x
lion,2,0.960,x
lion,3,0.953,x
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "results.csv").write_text(LONG)
    return str(tmp_path / "results.csv")


def said(*words: str) -> str:
    found = CliRunner().invoke(app, ["compare", *words])
    assert found.exit_code == 0, found.exception
    return found.output


def refused(*words: str) -> str:
    found = CliRunner().invoke(app, ["compare", *words])
    assert getattr(found.exception, "exit_code", None) == 2, found.output
    return str(found.exception)


BY = ("--metric", "f1", "--by", "model")


def test_the_first_line_is_the_verdict(table: str) -> None:
    lines = said(table, "sgd", "adam", *BY, "--pair", "seed").splitlines()
    assert lines[0].startswith("adam is better than sgd: adam - sgd = +0.0507, 95 % interval +0.04")
    assert "p = 0.25 by sign permutation; with 3 pairs it cannot be below 0.25" in lines
    text = said(table, "sgd", "adam", *BY)
    assert "p = 0.10 by permutation; with 3 against 3 runs it cannot be below 0.10" in text
    assert "P(adam > sgd) = 1.00, 95 % interval" in text
    assert "(Mann-Whitney U = 9 of 9)" in text
    assert said(table, "sgd", "adam", *BY, "--lower-is-better").startswith("sgd is better than adam")


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("model,val_loss\n" + "".join(f"a,0.3{n}\nb,0.6{n}\n" for n in range(4)))
    text = said(str(path), "--metric", "val_loss", "--by", "model")
    assert text.startswith("a is better than b: b - a = +0.3")
    assert "val_loss: lower is better" in text


def test_more_than_two_groups_are_corrected(table: str) -> None:
    text = said(table, *BY)
    assert "not told apart: adam and lion (3 pairs, Holm's correction)" in text
    told = json.loads(said(table, *BY, "--json"))
    assert [pair["verdict"] for pair in told["pairs"]] == ["better", "better", "cannot tell"]
    assert told["pairs"][0]["p_holm"] == pytest.approx(3 * min(pair["test"]["p"] for pair in told["pairs"]), rel=0.6)
    assert told["groups"]["sgd"] == [0.9, 0.91, 0.905]


def test_each_pair_of_groups_has_the_seeds_that_it_shares(tmp_path: Path) -> None:
    """A third group with other seeds takes none from the first two."""
    values = {"a": {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.62}, "b": {4: 0.64, 3: 0.72, 2: 0.63, 1: 0.51}, "c": {4: 0.7, 3: 0.9}}
    rows = [f"{name},{seed},{value}\n" for name, group in values.items() for seed, value in group.items()]
    path = tmp_path / "seeds.csv"
    path.write_text("model,seed,f1\n" + "".join(rows))
    options = (str(path), "--metric", "f1", "--by", "model", "--pair", "seed", "--json")
    three, two = json.loads(said(*options)), json.loads(said(str(path), "a", "b", *options[1:]))
    assert [tuple(pair["n"]) for pair in three["pairs"]] == [(4, 4), (2, 2), (2, 2)]
    assert three["pairs"][0]["interval"] == two["pairs"][0]["interval"]
    assert three["pairs"][0]["interval"]["value"] == pytest.approx(np.mean([0.01, 0.03, 0.02, 0.02]))
    assert three["pairs"][1]["interval"]["value"] == pytest.approx(np.mean([0.2, 0.08]))
    assert three["keys"]["b"] == ["4", "3", "2", "1"]
    assert three["notes"] == [
        "pairs are of the values of seed that both groups have: a and c share 2 of 4, b and c share 2 of 4"
    ]
    path.write_text(path.read_text() + "d,9,0.5\n")
    assert "no seed is in both a and d, so they make no pairs" in refused(*options)


def test_two_tables_are_two_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, values in (("a", "0.5 0.52 0.51"), ("b", "0.61 0.6 0.63")):
        rows = "".join(f"{seed},{value}\n" for seed, value in enumerate(values.split()))
        Path(f"{name}.csv").write_text("seed,acc\n" + rows)
    tables = ("a.csv", "b.csv")
    assert said(*tables, "--metric", "acc").startswith("b.csv is better than a.csv: b.csv - a.csv = +0.103")
    assert "smallest true difference that 3 pairs show" in said(*tables, "--metric", "acc", "--pair", "seed")
    assert "which column holds the numbers? seed, acc" in refused(*tables)
    assert "b.csv: no column 'f1'" in refused("b.csv", "a.csv", "--metric", "f1")
    for more in ([], ["--expect", "better"], ["--sequential"]):
        assert "a.csv is named twice" in refused("a.csv", "./a.csv", "--metric", "acc", *more)
    assert "a.csv is named twice" in refused("a.csv", str(tmp_path / "a.csv"), "--metric", "acc")
    assert "--by with several tables" in refused(*tables, "--metric", "acc", "--by", "seed")


def test_columns_of_a_wide_table(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("seed,a,b\n1,0.5,0.7\n2,0.6,0.8\n3,0.55,0.74\n")
    wide = str(tmp_path / "wide.csv")
    assert said(wide, "a", "b").startswith("b is better than a")
    assert "3 pairs" in said(wide, "a", "b", "--pair", "seed")
    assert "name two columns, or --metric and --by; columns: seed, a, b" in refused(wide)


def test_runs_without_spread_cannot_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "same.csv").write_text("a,b\n0.5,0.6\n0.5,0.6\n")
    same = (str(tmp_path / "same.csv"), "a", "b", "--margin", "0.2")
    assert "what was free changed nothing" in said(*same).splitlines()[0]
    pair = json.loads(said(*same, "--json"))["pairs"][0]
    assert (pair["verdict"], pair["equivalence"]["p"], pair["equivalence"]["df"]) == ("cannot tell", None, None)


def test_a_margin_in_points_beside_shares_is_named(table: str) -> None:
    note = "note: a margin of 0.5 is 50 points of shares in [0, 1]; 0.5 points are 0.005"
    assert note in said(table, "sgd", "adam", *BY, "--margin", "0.5").splitlines()
    assert note[6:] in json.loads(said(table, "sgd", "adam", *BY, "--margin", "0.5", "--json"))["notes"]
    for options in (["0.05"], ["0.5", "--lower-is-better"]):
        assert "points of shares" not in said(table, "sgd", "adam", *BY, "--margin", *options)


def test_a_model_that_is_compared_with_itself_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("model,seed,f1\n" + "".join(f"{m},{n},0.9{n}\n" for m in "AB" for n in (1, 2, 3)))
    text = said(str(tmp_path / "r.csv"), *BY, "--pair", "seed")
    assert text.startswith("cannot tell A and B apart: their numbers are the same; are they different models?")
    assert "pairing made the interval" not in text
    (tmp_path / "r.csv").write_text("a,b\n1,2\n2,1\n3,3\n")
    text = said(str(tmp_path / "r.csv"), "a", "b", "--sequential")
    assert text.startswith("cannot tell a and b apart: not defined: 3 of the 5 pairs that it needs")


def test_expect_sets_the_exit_code(table: str) -> None:
    def code(*words: str) -> int:
        found = CliRunner().invoke(app, ["compare", table, *words, *BY])
        return found.exit_code if found.exception is None else getattr(found.exception, "exit_code", 1)

    (pair,) = json.loads(said(table, "sgd", "adam", *BY, "--margin", "0.1", "--json"))["pairs"]
    assert (pair["verdict"], pair["within_margin"], pair["not_worse"]) == ("better", True, True)
    assert code("sgd", "adam", "--expect", "better") == 0
    assert code("adam", "sgd", "--expect", "better") == 4
    assert code("adam", "lion", "--expect", "equivalent", "--margin", "0.05") == 0
    assert code("adam", "lion", "--expect", "equivalent", "--margin", "0.001") == 4
    assert code("sgd", "adam", "--expect", "equivalent", "--margin", "0.1") == 0  # better, by less than the margin
    published = ["compare", "0.90", "0.95", "--images", "5000", "--expect", "equivalent", "--margin"]
    codes = [CliRunner().invoke(app, [*published, margin]).exception for margin in ("0.1", "0.01")]
    assert [getattr(found, "exit_code", 0) for found in codes] == [0, 4]
    assert code("adam", "sgd", "--expect", "not-worse", "--margin", "0.01") == 4
    assert code("sgd", "adam", "--expect", "not-worse") == 0


def test_runs_may_be_added_until_it_decides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{name},{value:.4f}" for _ in range(12) for name, value in (("a", rng.normal()), ("b", rng.normal(3)))]
    (tmp_path / "runs.csv").write_text("\n".join(["model,score", *rows, "a,0.1"]))
    words = (str(tmp_path / "runs.csv"), "--metric", "score", "--by", "model", "--sequential")
    text = said(*words)
    assert text.startswith("b is better than a")
    assert "the interval holds however often you look" in text
    assert "note: 1 run left out: without a partner in order" in text


def test_two_published_numbers() -> None:
    text = said("0.912", "0.921", "--images", "2000")
    assert text.startswith("cannot tell: true difference B - A -0.008 to +0.026 with 95 %")
    assert "test images alone: 15.2 %" in text
    assert "training noise is not counted" in text
    assert "from both: " in said("0.912", "0.921", "--images", "2000", "--sd", "0.004")
    note = "note: runs with a mean of 0.912 or 0.921 have an SD of at most 0.28; 0.4 points are 0.004"
    assert note in said("0.912", "0.921", "--images", "2000", "--sd", "0.4")
    assert "note: runs" not in said("0.912", "0.921", "--images", "2000", "--sd", "0.1")
    assert json.loads(said("0.90", "0.95", "--images", "2000", "--json"))["verdict"] == "better"
    assert "B is better" in said("0.90", "0.95", "--images", "2000", "--expect", "better")
    assert "without --images" in refused("0.90", "0.95")
    assert "91.2 is no share" in refused("91.2", "92.1", "--images", "2000")


def test_two_folders_of_twins(tmp_path: Path) -> None:
    for name, values in (("a", (0.5, 0.51, 0.52)), ("b", (0.6, 0.61, 0.62))):
        (tmp_path / name).mkdir()
        metric = {"name": "m.json:acc", "values": {f"twin_{place}": value for place, value in enumerate(values)}}
        (tmp_path / name / "twins.json").write_text(json.dumps({"arm": "nd", "metrics": [metric]}))
    text = said(str(tmp_path / "a"), str(tmp_path / "b"))
    assert "b is better than" in text.splitlines()[0]
    assert "another seed may turn the result round" in text
    assert "no metric 'x'" in refused(str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sgd", "nope", *BY], "no row has model 'nope'\n  there are: adam, lion, sgd"),
        (["sgd", "adam", "--metric", "acc", "--by", "model"], "no column 'acc'\n  columns: model, seed, f1, lr"),
        (["sgd", "adam", "--metric", "lr", "--by", "model"], "line 2: lr is 'x', no number"),
        (["sgd", "adam", *BY, "--pair", "lr"], "sgd has two rows with lr 'x'"),
        (["sgd", *BY], "one group, model 'sgd'"),
        (["0.93", "0.94", "sgd", *BY], "two published numbers, 0.93 and 0.94, beside runs"),
        (["sgd", "0.94", *BY, "--pair", "seed"], "--pair with the published number 0.94"),
        (["sgd", "0.94", *BY, "--sequential"], "--sequential with one run"),
        (["--metric", "f1", "--by", "f1"], "f1 has another value in each row: 9 groups of one run each"),
        (["--by", "model"], "--by model without --metric"),
        (["sgd", "adam", "--metric", "f1"], "--metric without --by"),
        (["sgd", "adam", *BY, "--margin", "0"], "--margin is 0"),
        (["sgd", "adam", *BY, "--images", "5"], "--images is for two published numbers"),
        ([*BY, "--expect", "better"], "--expect with 3 groups"),
    ],
)
def test_mistakes_are_named(table: str, words: list[str], message: str) -> None:
    assert message in refused(table, *words)


def test_what_is_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such file" in refused("absent.csv", "a", "b")
    assert "no CSV table, no folder of `twinrun twins` and no number" in refused("x", "y")
    (tmp_path / "empty.csv").write_text("a,b\n")
    assert "empty.csv: no rows" in refused("empty.csv", "a", "b")


def test_two_thousand_runs_need_nothing_heavy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{name},{rng.normal():.6f}" for name in "ab" for _ in range(1000)]
    (tmp_path / "many.csv").write_text("\n".join(["model,score", *lines]))
    code = (
        "import sys; sys.argv = ['twinrun', 'compare', 'many.csv', '--metric', 'score', '--by', 'model']\n"
        "from twinrun.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1000 against 1000 runs" in done.stdout


def test_looking_again_prints_nothing_that_holds_for_one_look_only(table: str) -> None:
    text = said(table, "sgd", "adam", *BY, "--sequential", "--margin", "0.001")
    assert "the interval holds however often you look" in text
    for fixed in ("p = ", "TOST", "smallest true difference"):
        assert fixed not in text
    content = json.loads(said(table, *BY, "--sequential", "--json"))
    assert [pair["p_holm"] for pair in content["pairs"]] == [None] * 3


def test_runs_of_two_counts_are_taken_in_their_order(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 4)):
        (tmp_path / name).mkdir()
        values = {f"twin {n}": 0.5 + n / 100 for n in range(count)}
        content = {"arm": "all", "metrics": [{"name": "m.json:acc", "values": values}]}
        (tmp_path / name / "twins.json").write_text(json.dumps(content))
    text = said(str(tmp_path / "a"), str(tmp_path / "b"), "--sequential")
    assert "1 run left out: without a partner in order" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0.31", "0.28", "--images", "100", "--lower-is-better"], "--lower-is-better with published numbers"),
        (["0.31", "0.28", "--images", "100", "--metric", "f1"], "--metric is for runs"),
        (["0.31", "0.28", "--images", "100", "--sequential"], "--sequential is for runs"),
        (["digits/sgd", "digits/sgd"], "digits/sgd is named twice"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words: list[str], message: str) -> None:
    assert message in refused(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model,seed,f1\nA,1,0.5\n"B,1,0.9\nC,1,0.8\n', "a quote that is never closed"),
        ('"model";"f1"\n"A";0,5\n"B";0,9\n', "its columns are parted by semicolons"),
        ("model,seed,f1\nA,1,0,512\nB,1,0,912\n", "line 2: more cells than the 3 columns of the first line"),
        ("model,f1,f1\nA,1,2\nB,3,4\n", "two columns are called 'f1'"),
        ("# mine\nmodel,f1\nA,1\n", "its first line is a comment\n  make the first line the column names"),
        ("model,f1\nA,90.5 %\nA,1\nB,1\n", "line 2: f1 is '90.5 %', no number\n  leave the percent sign out"),
        ("model,f1\nA,1\nA,1\nB,0.9 ± 0.1\n", "line 4: f1 is '0.9 ± 0.1', no number\n  each row is one run"),
        ("model,f1\nA,0.9\nB,0.8\n", "with means alone: twinrun compare 0.912 0.921 --images N"),
        ("model,seed,f1\nA,1,0.9\nA,2,0.8\nA,mean,0.85\nB,1,0.7\n", "line 4: seed is 'mean'"),
        ("model,f1\nA,0.9\nA,0.8\nB,91\nB,92\n", "A has a mean of 0.85, B one of 91.5: a share and percent?"),
    ],
)
def test_tables_that_would_be_misread_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text)
    assert message in refused(str(tmp_path / "results.csv"), *BY)


@pytest.mark.parametrize(
    ("first", "second", "options", "note"),
    [
        (("sgd_error", 0.02, 0.03), ("adam_error", 2.0, 3.0), ["--lower-is-better"], ""),
        (("sgd_loss", 0.02, 0.03), ("adam_loss", 2.0, 3.0), [], ""),
        (("sgd_acc", 0.9, 0.8), ("published", 91, 92), [], "sgd_acc has a mean of 0.85, published one of 91.5: if"),
        (
            ("a_seconds", 0.55, 0.5),
            ("b_seconds", 61, 60),
            [],
            "a_seconds has a mean of 0.525, b_seconds one of 60.5: if",
        ),
        (("a_acc", 1.0, 1.0), ("b_acc", 95, 94), [], "a_acc has a mean of 1, b_acc one of 94.5: if"),
        (("a_acc", 0.4, 0.3), ("b_acc", 35, 34), [], "a_acc has a mean of 0.35, b_acc one of 34.5: if"),
    ],
)
def test_what_may_be_a_share_beside_percent_is_compared(
    tmp_path: Path, first: tuple[str, float, float], second: tuple[str, float, float], options: list[str], note: str
) -> None:
    path, rows = tmp_path / "wide.csv", zip(first, second, strict=True)
    path.write_text("".join(f"{a},{b}\n" for a, b in rows))
    text = said(str(path), first[0], second[0], *options)
    assert (f"note: {note}" in text) if note else ("share and percent" not in text)


def test_columns_of_accuracy_in_two_units_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("a_acc,b_acc\n0.9,91\n0.8,92\n")
    assert "b_acc one of 91.5: a share and percent?\n  give both in one unit" in refused(str(path), "a_acc", "b_acc")
    assert "published 91 one of 91: a share and percent?" in refused(str(path), "a_acc", "91")


def test_a_header_that_begins_with_a_hash_names_columns(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("# a,b\n0.5,0.7\n0.6,0.8\n")  # by numpy.savetxt
    assert said(str(path), "a", "b").startswith("cannot tell a and b apart")
    path.write_text("#params,model,f1\n1,A,0.5\n2,A,0.6\n1,B,0.7\n2,B,0.8\n")
    assert "2 pairs" in said(str(path), *BY, "--pair", "#params")
    path.write_text("# f1\n0.5\n0.6\n")
    (tmp_path / "s.csv").write_text("f1\n0.7\n0.9\n")
    assert "Welch" in said(str(path), str(tmp_path / "s.csv"), "--metric", "f1")


def test_seeds_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    header, rows = " model , seed", ("A, 01 ,0.1", "A,2.0,0.2", "A,3,0.4", "B,1,0.2", "B,02,0.3", "B,3,0.5")
    (tmp_path / "r.csv").write_text("\n".join([f"{header}, f1", *rows]))
    pair = json.loads(said(str(tmp_path / "r.csv"), *BY, "--pair", "seed", "--json"))["pairs"][0]
    assert pair["n"] == [3, 3]
    (tmp_path / "r.csv").write_text("model,seed,f1\nA,x1,1\nA,x2,2\nB,y1,1\nB,y2,2\n")
    assert "A has x1, x2; B has y1, y2: name what belongs together alike" in refused(
        str(tmp_path / "r.csv"), *BY, "--pair", "seed"
    )


def test_rows_that_share_a_seed_are_not_taken_for_runs_in_silence(tmp_path: Path) -> None:
    rows = [f"{model},{seed},{epoch},0.{seed}{epoch}" for model in "AB" for seed in (1, 2, 3) for epoch in (1, 2)]
    (tmp_path / "r.csv").write_text("\n".join(["model,Random Seed,epoch,f1", *rows]))
    text = said(str(tmp_path / "r.csv"), *BY)
    assert "note: A has 6 rows of 3 values of Random Seed, which differ in epoch: rows that share a seed" in text
    assert "differ in epoch: keep those of one value" in refused(str(tmp_path / "r.csv"), *BY, "--pair", "Random Seed")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("model,data_seed,seed,f1\n{m},0,{n},0.{n}\n", BY, ""),
        ("model,data_seed,init_seed,f1\n{m},0,{n},0.{n}\n", BY, ""),
        (
            "model,data_seed,init_seed,f1\n{m},0,1,0.{n}\n",
            BY,
            "A has 3 rows of 1 value of data_seed and init_seed: rows",
        ),
        ("seed,f1\n{m},0.{n}\n", ("--metric", "f1", "--by", "seed"), ""),
        ("model,pool,f1\n{m},{p},0.{n}\n", (*BY, "--pair", "pool"), ""),
    ],
)
def test_a_seed_is_the_column_of_that_name_else_all_that_end_in_it(
    tmp_path: Path, text: str, options: tuple[str, ...], words: str
) -> None:
    header, row = text.split("\n", 1)
    rows = [row.format(m=m, n=n, p=p) for m in "AB" for n, p in ((1, "max"), (2, "mean"), (3, "attn"))]
    (tmp_path / "r.csv").write_text("".join([f"{header}\n", *rows]))
    told = said(str(tmp_path / "r.csv"), *options)
    assert (f"note: {words}" in told) if words else ("rows that share" not in told)


def test_what_cannot_be_expected_is_refused(table: str, tmp_path: Path) -> None:
    assert "--expect equivalent without --margin" in refused(table, "sgd", "adam", *BY, "--expect", "equivalent")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "twins.json").write_text("{}")
    assert "nowhere: no folder of `twinrun twins`" in refused(str(tmp_path / "a"), "nowhere")


def test_an_undecided_sequence_promises_no_number_of_runs(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("model,f1\n" + "".join(f"A,0.{n}\nB,0.{9 - n}\n" for n in range(2, 8)))
    text = said(str(tmp_path / "r.csv"), *BY, "--sequential")
    assert text.startswith("cannot tell A and B apart: add runs until it decides")
    assert "note: pairs are made in the order of the runs; --pair makes them by a column" in text


def test_runs_against_a_published_number(table: str) -> None:
    text = said(table, "sgd", "0.93", *BY)
    assert text.startswith(
        "published 0.93 is better than sgd: published 0.93 - sgd = +0.0250, 95 % interval +0.0002 to +0.0498"
    )
    assert "(one new run, t)" in text  # 0.005 sqrt(1 + 1/3) 4.303
    assert "note: the published number is taken for one run with the SD of the runs beside it" in text
    assert "0.92 is one run, and more of the other would hardly help" in said(table, "sgd", "0.92", *BY)


def test_a_wide_table_may_have_columns_of_unequal_length(tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text("seed,a,b\n1,0.5,0.7\n2,0.6,0.8\n3,0.55,\n")
    text = said(str(wide), "a", "b")
    assert "a  n 3" in text
    assert "b  n 2" in text
    assert "note: pairs are of the values of seed that both groups have: a and b share 2 of 3" in said(
        str(wide), "a", "b", "--pair", "seed"
    )
    wide.write_text("seed,a,b\n1,0.5,0.7\n2,,0.8\n3,0.55,0.9\n")
    assert "line 3: a is '', no number" in refused(str(wide), "a", "b")
    assert said(str(wide), "b", "0.9").startswith("cannot tell b and published 0.9 apart")


@pytest.mark.parametrize(("text", "mark"), [("a;b\n0,5;0,6\n", "semicolons"), ("a\tb\n0.5\t0.6\n", "tabs")])
def test_columns_that_are_not_parted_by_commas_are_named(tmp_path: Path, text: str, mark: str) -> None:
    (tmp_path / "runs.csv").write_text(text)
    message = refused(str(tmp_path / "runs.csv"), "a", "b")
    assert f"its columns are parted by {mark}" in message
    assert "save it with commas" in message


def test_many_groups_are_no_flood(tmp_path: Path) -> None:
    rows = [f"m{place % 40},{place}" for place in range(80)]
    (tmp_path / "runs.csv").write_text("\n".join(["model,f1", *rows]))
    message = refused(str(tmp_path / "runs.csv"), *BY)
    assert "40 groups make 780 pairs" in message
    assert "name up to 10 of them: m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, ..." in message
    assert said(str(tmp_path / "runs.csv"), "m1", "m3", *BY).startswith("cannot tell m1 and m3 apart")


def test_names_that_the_font_lacks_are_in_the_caption(tmp_path: Path) -> None:
    cat = "\N{CJK UNIFIED IDEOGRAPH-732B}"
    (tmp_path / "runs.csv").write_text(f"model,f1\n{cat},0.5\n{cat},0.6\n$a$ b$,0.7\n$a$ b$,0.8\n")
    drawn = draw(compare_runs(table_runs(tmp_path / "runs.csv", (), metric="f1", by="model", pair=None)))
    above, below = ([label.get_text() for label in axes.get_yticklabels()] for axes in drawn.figure.axes)
    assert (above, below) == (["group 1", "$a$ b$"], ["$a$ b$\n- group 1"])
    assert f"group 1 is {cat}" in drawn.caption


def test_the_page_shows_runs_differences_and_the_noise_floor(table: str, tmp_path: Path) -> None:
    runs = table_runs(Path(table), ["sgd", "adam"], metric="f1", by="model", pair=None)
    right = {name: np.tile([1.0, 0.0, 1.0], (3, 1)) for name in runs.values}
    right["adam"][0] = 1
    runs = replace(runs, floor=PooledSd(0.002, 4), right=right)
    compared = compare_runs(runs, margin=0.01)
    drawn = draw(compared)
    above, below = drawn.figure.axes
    dots = sorted(float(x) for line in above.lines if len(line.get_xdata()) == 3 for x in line.get_xdata())
    assert dots == sorted([0.900, 0.910, 0.905, 0.950, 0.962, 0.955])
    interval = compared.comparisons["sgd", "adam"].interval
    assert any(list(line.get_xdata()) == [interval.low, interval.high] for line in below.lines)
    band = below.patches[0].get_extents().transformed(below.transData.inverted())
    assert band.x1 == pytest.approx(PooledSd(0.002, 4).gap_of_two())
    wider = compared.over_images["sgd", "adam"]
    assert wider.low <= interval.low
    assert interval.high <= wider.high
    pages = [write_page(compared, tmp_path / name) for name in ("a", "b")]
    assert [p.read_bytes() for p in sorted(pages[0].parent.iterdir())] == [
        p.read_bytes() for p in sorted(pages[1].parent.iterdir())
    ]
    text = pages[0].read_text()
    assert "<h1>adam is better than sgd: adam - sgd = +0.051" in text
    assert "what two identical runs stay within" in text
    assert json.loads((pages[0].parent / "compare.json").read_text())["pairs"][0]["verdict"] == "better"


def test_out_writes_the_page_and_leaves_a_foreign_folder_alone(table: str, tmp_path: Path) -> None:
    out = tmp_path / "page"
    assert f"{out}/index.html" in said(table, "sgd", "adam", *BY, "--out", str(out))
    (out / "mine.txt").write_text("kept")
    assert "holds mine.txt" in refused(table, "sgd", "adam", *BY, "--out", str(out))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("my own")
    out_of_place = refused(table, "sgd", "adam", *BY, "--out", str(tmp_path / "site"))
    assert "site: holds index.html and no compare.json" in out_of_place
    assert "--out is for runs" in refused("0.91", "0.92", "--images", "100", "--out", str(out))


def test_a_run_that_got_nothing_right_is_a_share_too() -> None:
    (note,) = unit_notes(Runs({"a": [0.0, 1.0], "b": [76.0, 75.0]}, "acc"))
    assert note.startswith("a has a mean of 0.5, b one of 75.5")


def test_shares_and_percent_in_one_group_are_named() -> None:
    mixed = "a has 0.91 beside 90.3: a share and percent?"
    assert unit_notes(Runs({"a": [0.9, 0.91, 90.3], "b": [0.8, 0.82, 0.84]}, "accuracy")) == (mixed,)
    (note,) = unit_notes(Runs({"val_acc": [0.91, 90.3], "b": [80.0, 82.0]}, ""))
    assert note.startswith("val_acc has 0.91")
    assert unit_notes(Runs({"a": [1.0, 41.0], "b": [80.0, 82.0]}, "f1")) == ()
    assert unit_notes(Runs({"a": [0.98, 90.0], "b": [80.0, 82.0]}, "loss")) == ()


def test_published_numbers_are_equivalent_below_the_margin_and_not_at_it() -> None:
    item = published(0.9, 0.9, 1000)
    end = max(-item.low, item.high)
    assert published_verdict(item, end).value == "cannot tell"
    assert published_verdict(item, 1.01 * end).value == "equivalent"
