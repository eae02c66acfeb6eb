"""What README and docs/compare.md show of an answer is what the command answers; numbers are those of files."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from tests.conftest import REPOSITORY
from typer.testing import CliRunner

from twinrun.cli.app import app
from twinrun.cli.cost import _plan
from twinrun.collect.first_difference import read_first_difference, sentences
from twinrun.collect.pictures import flipping_places
from twinrun.inspect.ladder import ladder_for
from twinrun.study.params import read_params

PAGES = ("README.md", "docs/compare.md")
# Numbers in sentences that are no results: versions, names, codes, licences; sizes and times of the named machine.
# fmt: off
NO_RESULTS = {
    "README.md": (
        r"exit 4", r"SHA-256", r"x86-64", r"2023", r"2410\.02806", r"Debian 12", r"Python 3\.11", r"8 GB",
        r"exit code:\s+2 bad input, 3 something is incomplete, 4 things differ that must be equal, 5 another\s+"
        r"process is at work, 6 memory ran out,\s+130", r"1,797 handwritten digits", r"CC BY 4\.0",
    ),
    "ARTIFACT.md": (
        r"[CPF]\d\b", r"x86-64", r"SHA-256", r"exit [04]", r"Debian 12", r"6 GB", r"5\.7 GB", r"CIFAR-10",
        r"\| [\d.]+( idle)? \|",
        r"step 1 of epoch 1", r"[\d.]+ minutes", r"p < 0\.05", r"95 % of", r"what 10 runs",
        r"factor of 1\.5\b", r"8 degrees",
    ),
}
# fmt: on
TABLES = REPOSITORY / "src" / "twinrun" / "report" / "thesis" / "data" / "tables_5_1_to_5_3_and_5_5.csv"
SUBSET = REPOSITORY / "results" / "cpu-real-subset"
STUDY = "cifar10/"  # read in the folder of results/cpu-real-subset


def sessions(page: str) -> list[tuple[list[str], list[str]]]:
    """The arguments and the shown pieces of every `$ twinrun compare` and `power`; `...` leaves lines out."""
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", (REPOSITORY / page).read_text(), re.M)
    shown = [part for block in blocks for part in block.split("    $ twinrun ")[1:]]
    answers = []
    for part in shown:
        command, _, text = part.partition("\n")
        if command.startswith(("compare ", "power ")):
            answers.append((shlex.split(command), [" ".join(piece.split()) for piece in text.split("    ...\n")]))
    return answers


@pytest.mark.parametrize("page", PAGES)
def test_answers_are_shown_as_they_are_given(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = sessions(page)
    assert len(shown) >= 2
    for words, pieces in shown:
        study = STUDY in words[1] or (words[0] == "power" and "--sd" not in words)
        monkeypatch.chdir(REPOSITORY / "results" / "cpu-real-subset" if study else REPOSITORY)
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.exception
        for piece in pieces:
            assert piece in " ".join(answer.output.split())


def test_an_import_is_shown_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    page = (REPOSITORY / "docs" / "import.md").read_text()
    shown = re.findall(r"^    \$ (.*)\n((?:    (?!\$).*\n)*)", page, re.M)
    assert [line.split()[1] for line, _ in shown] == ["import", "mine", "compare", "import", "import"]
    folder = tmp_path
    for line, answer in shown:
        for command in line.split(" && "):
            if command.startswith("cd "):
                folder = tmp_path / command.split()[1]
                continue
            monkeypatch.chdir(folder if not command.startswith("twinrun import") else tmp_path)
            done = CliRunner().invoke(app, shlex.split(command)[1:])
            said = done.output + ("" if done.exception is None else f"twinrun: {done.exception}")
        for piece in re.split(r"    \.\.\.\n|; \.\.\.\n", answer):
            assert " ".join(piece.split()) in " ".join(said.split())


def test_cost_is_shown_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrun.launch.processes.usable_cores", lambda: 2)
    (shown,) = re.findall(
        r"^    \$ twinrun cost digits\n    \.\.\.\n    (.*), \.\.\.$",
        (REPOSITORY / "docs" / "cost.md").read_text(),
        re.M,
    )
    assert shown in _plan(ladder_for("cpu", tf32=False), "cpu", 6, 1.0, 1.0)


def test_verify_is_shown_with_the_epochs_that_it_compares() -> None:
    run, epochs = re.findall(
        r"^    (\S+)  expected  (\d+) epochs  equal$", (REPOSITORY / "README.md").read_text(), re.M
    )[0]
    expected = json.loads((REPOSITORY / "expected" / "fingerprints.json").read_text())["runs"][run]["epochs"]
    assert len(expected) == int(epochs)


@cache
def photographs() -> dict[str, dict[str, float]]:
    """Of each task of `results/cpu-real-subset`, what its README says: shares in percent, SDs in points."""
    folder, found = SUBSET / "collected", {}
    twins = pd.read_csv(folder / "results.csv")
    for task, metric in (("cifar10", "accuracy"), ("cracks", "f1"), ("breast", "auc")):
        predicted, labels = (
            np.load(folder / task / "probabilities.npy").argmax(2),
            np.load(folder / task / "labels.npy"),
        )
        free = twins[twins["task"] == task].reset_index(drop=True).query("arm == 'nd'")
        cells = {key: list(rows.index) for key, rows in free.groupby(["optimizer", "seed"])}
        variance = float(np.mean([free.loc[rows, metric].var(ddof=1) for rows in cells.values()]))
        sd, df = 100 * math.sqrt(variance), sum(len(rows) - 1 for rows in cells.values())
        same = [pair for rows in cells.values() for pair in itertools.combinations(rows, 2)]
        other = [pair for name in ("adam", "sgd") for pair in itertools.product(cells[name, 0], cells[name, 42])]
        churn, seeds = (
            100 * np.mean([(predicted[i] != predicted[j]).mean() for i, j in pairs]) for pairs in (same, other)
        )
        wrong = predicted[free.index] != labels
        flips = np.any([(predicted[rows] != predicted[rows[0]]).any(0) for rows in cells.values()], axis=0)
        found[task] = {
            "metric": float(free[metric].mean()), "sd": sd, "low": sd * math.sqrt(df / scipy.stats.chi2.ppf(0.975, df)),
            "high": sd * math.sqrt(df / scipy.stats.chi2.ppf(0.025, df)), "churn": float(churn), "images": len(labels),
            "seeds": float(seeds), "error": 100 * float(wrong.mean()),
            "largest": 100 * (1 - float(np.bincount(labels).max()) / len(labels)), "flip": 100 * float(flips.mean()),
            "error_flips": 100 * float(wrong[:, flips].mean()), "error_others": 100 * float(wrong[:, ~flips].mean()),
            "always": int(wrong.all(0).sum()),
        }  # fmt: skip
    return found


@cache
def claims() -> dict[str, tuple[float, ...]]:
    """What README.md and ARTIFACT.md claim of committed results, as words around numbers, and what these files say."""
    sources = REPOSITORY / "results" / "cpu-sources"
    twins, shown = pd.read_csv(SUBSET / "collected" / "results.csv"), photographs()
    churns, errors = ([row[name] for row in shown.values()] for name in ("churn", "error"))
    det = twins[twins["arm"] == "det"].groupby(["task", "optimizer", "seed"])["fingerprint"].nunique()
    # | task | optimizer | churn | arm | cells | n | churn, low, high | to all, low, high | to nd, low, high |
    ratios = {
        (row[0], row[3]): [float(cell) for cell in row[6:15]]
        for row in (line.strip("| \n").split(" | ") for line in (sources / "report" / "report.md").open())
        if row[2:3] == ["churn"] and row[3] in ("ulp", "nd") and len(row) > 14
    }
    digits = ratios["digits", "ulp"]
    ulp = [ratios[task, "ulp"] for task in ("digits", "cracks", "mammograms")]
    ended = pd.read_csv(sources / "collected" / "results.csv")
    fixed = int(ended["arm"].isin(["det", "init", "shuffle", "augment", "dropout"]).sum())
    thesis = CliRunner().invoke(app, ["reanalyze", "thesis"]).output
    below = re.search(
        r"Of (30) cells (12) are below 0.05 .* it is (3); after Holm 0, after Benjamini-Hochberg 0", thesis
    )
    assert below
    published = pd.read_csv(TABLES).query("task == 'cifar10' and metric == 'accuracy_percent'")
    accuracy = published.groupby("optimizer")["nondeterministic_mean"].mean()
    grids = {name: len(read_params(REPOSITORY / name).runs) for name in ("params.yaml", "studies/thesis.yaml")}
    return {
        r"breast images, (\d+) runs on a CPU": (len(twins),),
        r"deterministic twins are equal in (\d+) of (\d+) cells": (int((det == 1).sum()), len(det)),
        r"rounding of sums alone disagree on (\d+) %, (\d+) % and (\d+) %": tuple(churns),
        r"one at a time, (\d+) runs on a CPU": (len(ended),),
        r"\(ratios ([\d.]+), ([\d.]+) and ([\d.]+);": tuple(row[6] for row in ulp),
        r"95 % intervals within ([\d.]+) to ([\d.]+)\);": (min(row[7] for row in ulp), max(row[8] for row in ulp)),
        r"of everything together \(([\d.]+) to ([\d.]+)\)": (digits[4], digits[5]),
        r"both make ([\d.]+) of the churn": (digits[3],),
        r"the same fingerprints in the (\d+) runs without fresh noise": (fixed,),
        r"within a factor of ([\d.]+) of those in its README": (math.sqrt(scipy.stats.f.ppf(0.975, 8, 8)),),
        r"of the test images, at errors of (\d+) %, (\d+) % and (\d+) %": tuple(errors),
        r"published tables: (\d+) of (\d+) cells": (int(below[3]), int(below[1])),
        r"prediction test instead of (\d+)": (int(below[2]),),
        r"accuracy about ([\d.]+) % \(SGD\) and ([\d.]+) % \(Adam\)": (accuracy["sgd"], accuracy["adam"]),
        r"report, (\d+) small runs": (grids["params.yaml"],),
        r"environment, data, (\d+) small runs": (grids["params.yaml"],),
        r"the thesis's (\d+) runs": (grids["studies/thesis.yaml"],),
        r"whole sample study, (\d+) runs": (grids["params.yaml"],),
        r"The thesis's study, (\d+) runs": (grids["studies/thesis.yaml"],),
    }


def test_what_readme_and_artifact_claim_is_what_the_committed_files_say() -> None:
    text = "".join((REPOSITORY / page).read_text() for page in NO_RESULTS)
    for words, values in claims().items():
        (found,) = re.findall(words, text)
        shown = (found,) if isinstance(found, str) else found
        for number, value in zip(shown, values, strict=True):
            decimals = len(number.partition(".")[2])
            assert abs(float(number) - value) <= 0.5 * 10**-decimals + 1e-9, (words, value)


def test_no_number_of_a_result_is_left_unchecked() -> None:
    """A number in ARTIFACT.md's claims or README's sentences is one of those above, or of a kind that is no result."""
    for page in ("README.md", "ARTIFACT.md"):
        text = re.sub(r"^    .*$|`[^`]*`|\]\([^)]*\)|https?://\S+", " ", (REPOSITORY / page).read_text(), flags=re.M)
        for words in (*claims(), *NO_RESULTS[page]):
            text = re.sub(words, " ", text)
        left = re.findall(r".{0,30}(?<![\w.])\d[\d.,]*.{0,20}", text)
        assert not left, (page, left)


def agree(said: tuple[str, ...], values: list[float]) -> bool:
    """Whether each number is the value, rounded to as many decimals."""
    decimals = [len(number.partition(".")[2]) for number in said]
    return len(said) == len(values) and all(
        abs(float(number) - value) <= 0.5 * 10**-places + 1e-9
        for number, value, places in zip(said, values, decimals, strict=True)
    )


@pytest.mark.parametrize("task", ["cifar10", "cracks", "breast"])
def test_the_tables_of_real_photographs_are_what_their_files_say(task: str) -> None:
    text = (SUBSET / "README.md").read_text()
    row = rf"^\| `{task}` \| "
    percent = r" \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$"
    scores = r"\w+ \| ([\d.]+) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \| ([\d.]+) % of ([\d,]+)[ a-z]*" + percent
    flips = r"(\d+) % \| (\d+) % \| (\d+) % \| (\d+)[ a-z]* \|$"
    names = ["metric", "sd", "low", "high", "churn", "images", "seeds", "error", "largest"]
    for words, wanted in ((scores, names), (flips, ["flip", "error_flips", "error_others", "always"])):
        (said,) = re.findall(row + words, text, re.MULTILINE)
        values = [photographs()[task][name] for name in wanted]
        assert agree(tuple(number.replace(",", "") for number in said), values), (said, values)
    (said,) = re.findall(row + r"([\d,]+) train, ([\d,]+) test;.*? (\d+)x\d+ \|", text, re.MULTILINE)
    described = json.loads((SUBSET / "collected" / "study.json").read_text())["tasks"][task]
    params = yaml.safe_load((SUBSET / "params.yaml").read_text())["tasks"][task]
    assert agree(
        tuple(number.replace(",", "") for number in said),
        [described["n_train"], described["n_test"], params["data"]["image_size"]],
    )


def test_the_minutes_of_the_photographs_study_are_those_of_its_runs() -> None:
    measured = pd.read_csv(SUBSET / "collected" / "measured.csv")
    text = " ".join((SUBSET / "README.md").read_text().split())
    words = r"in (\d+) minutes on .* \((\d+) runs, (\d+) minutes of their own together\)"
    ((whole, runs, own),) = re.findall(words, text)
    assert agree((own, runs), [measured["total_seconds"].sum() / 60, len(measured)])
    trained = pd.to_datetime(measured["finished"]).max() - pd.to_datetime(measured["started"]).min()
    assert trained.total_seconds() / 60 < float(whole) < 60
    assert f"| {whole} minutes on two cores" in (REPOSITORY / "ARTIFACT.md").read_text()


def test_minutes_of_the_claims_are_those_that_were_measured() -> None:
    """Rounded up, and a minute at most for each claim that is looked at alone."""
    text = (REPOSITORY / "ARTIFACT.md").read_text()
    measured = pd.read_csv(REPOSITORY / "benchmarks" / "artifact.csv").set_index("claim")["seconds"]
    assert {*("C1", "C2", "C3", "C4"), *("P1", "P3", "P4", "P5", "P6", "P7")} <= set(measured.index)
    for claim, seconds in measured.items():
        (row,) = re.findall(rf"^\| {claim}\. .*$", text, re.MULTILINE)
        if claim.startswith("C"):
            assert seconds <= 60, claim
        else:
            shown = row.split(" | ")[2]
            step = 0.1 if "." in shown else 1
            assert shown == f"{math.ceil(seconds / 60 / step) * step:g}", (claim, seconds)


def test_where_two_runs_part_is_shown_as_it_was_found_once() -> None:
    page = (REPOSITORY / "README.md").read_text()
    (shown,) = re.findall(r"^    \$ twinrun locate digits/sgd/42/det_1 nd_1\n((?:    .*\n)+?)    \.\.\.$", page, re.M)
    found = read_first_difference(REPOSITORY / "examples" / "first_difference.json")
    assert " ".join(shown.split()) == " ".join(sentences(found)[:3])


def test_verify_compares_as_often_as_is_shown() -> None:
    """With expected/ and with the record, for each task and optimizer."""
    grid = read_params(REPOSITORY / "params.yaml").grid
    (shown,) = re.findall(r"^    (\d+) comparisons, all equal", (REPOSITORY / "README.md").read_text(), re.M)
    assert int(shown) == 2 * len(grid.tasks) * len(grid.optimizers)


@pytest.mark.parametrize("task", ["cifar10", "cracks"])
def test_the_images_that_were_looked_at_are_those_that_flip_most(task: str) -> None:
    folder = SUBSET / "collected" / task
    described = json.loads((SUBSET / "collected" / "study.json").read_text())["tasks"][task]
    labels, ids = np.load(folder / "labels.npy"), list(pd.read_csv(folder / "ids.csv")["id"])
    twins = pd.read_csv(SUBSET / "collected" / "results.csv").query("task == @task").reset_index(drop=True)
    cells = [list(rows.index) for _, rows in twins.query("arm == 'nd'").groupby(["optimizer", "seed"])]
    places = flipping_places(np.load(folder / "probabilities.npy"), cells, 20)
    seen = pd.read_csv(SUBSET / "by_eye.csv").query("task == @task")
    assert list(seen["image"]) == [ids[place] for place in places]
    assert list(seen["label"]) == [described["classes"][labels[place]] for place in places]
    text = " ".join((SUBSET / "README.md").read_text().split())
    (doubtful,) = re.findall(rf"On `{task}` (\d+) of the 20 labels", text)
    assert int(doubtful) == (seen["in_doubt"] == "yes").sum()
