"""The pages of docs/: every link leads somewhere, and the notebook's cells run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from tests.conftest import REPOSITORY
from typer.main import get_command

from twinrun.cli.app import app


def test_the_notebook_runs_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "docs" / "notebook.md").read_text()
    cells: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(code, cells)
    assert f"`{cells['study']!r}`" in text
    assert cells["churn"]["churn"].between(0, 1).all()
    row = cells["churn"].query("task == 'cifar10' and optimizer == 'sgd' and seed == 0 and arm == 'nd'").iloc[0]
    assert cells["differ"] == pytest.approx(row["churn"], abs=0.1)
    assert cells["heads"].ndim == 2
    assert cells["wrong"] == pytest.approx(row["error"], abs=0.1)


def test_one_table_is_made_of_several_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    for seed in (0, 1):
        (tmp_path / "out" / f"resnet_18_{seed}.csv").write_text("example,label,prediction\nx,cat,dog\n")
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "import.md").read_text()
    (code,) = re.findall(r"take model and seed from their names:\n\n((?: {4}.*\n|\n)+)", text)
    exec(dedent(code), {})
    told = (tmp_path / "predictions.csv").read_text().splitlines()
    assert told == ["example,label,prediction,model,seed", "x,cat,dog,resnet_18,0", "x,cat,dog,resnet_18,1"]


@pytest.mark.parametrize("page", [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", page.read_text())
    missing = [link for link, _ in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
    for link, anchor in links:
        if anchor:
            heads = re.findall(r"^#+ (.*)$", (page.parent / link).read_text(), re.M)
            assert anchor[1:] in {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}


def commands(page: str, section: str) -> list[str]:
    """The command lines of a section, continued lines joined."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", (REPOSITORY / "docs" / page).read_text(), re.M | re.S)
    assert text, section
    lines = re.findall(r"^    (\S.*)$", text[1].replace("\\\n        ", ""), re.M)
    return [" ".join(line.split()) for line in lines]


def test_what_runs_in_a_container_is_run_by_the_engines_as_it_stands() -> None:
    """`.ci/engines` and `.ci/slurm-proof` take these commands from the pages; others are those of the recipes."""
    engines, proof = ((REPOSITORY / ".ci" / name).read_text() for name in ("engines", "slurm-proof"))
    assert '"## One run"' in engines
    one_run = commands("container.md", "One run")
    assert [line.split()[0] for line in one_run] == ["mkdir", "docker", "docker"]
    (flags,) = re.findall(r'docker_run\(\) \{ docker run --rm --label "\$label" (.*) "\$@"; \}', engines)
    assert all(flags in line for line in [*one_run[1:], *commands("container.md", "A whole study")])
    for section, count in (("Submit", 3), ("Look", 1), ("What is missing", 1)):
        assert section in proof
        assert len(commands("cluster.md", section)) == count
    recipe = (REPOSITORY / "apptainer.def").read_text()
    assert all(line in recipe for line in commands("container.md", "In Apptainer")[:2])
    page = (REPOSITORY / "README.md").read_text().replace("\\\n        ", "")
    shown = re.findall(r"^    ((?:docker|apptainer) .*?)(?:  +#.*)?$", page, re.M)
    known = {line for pages in ("container.md", "cluster.md") for line in _all_commands(pages)}
    assert set(shown) <= known


PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "ARTIFACT.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_exists_with_its_options(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    shown = [
        *re.findall(r"^    (?:\$ )?(.*\btwinrun .*)$", text, re.M),
        *re.findall(r"`(twinrun [^`]+)`", text.replace("--interrupt`", "--interrupt random`")),
    ]
    for line in shown:
        for part in re.split(r" && |\| ", re.sub(r"\s#.*$", "", line)):
            program, *words = shlex.split(part.replace("...", ""))
            if program == "twinrun" and words and not words[0].startswith("-"):
                parse(get_command(app), words[: words.index("--")] if "--" in words else words)


def parse(command: Any, words: list[str]) -> None:
    """As the command line does it: an unknown command or option is an error."""
    context = command.context_class(command)
    if hasattr(command, "commands"):
        assert words[0] in command.commands, words
        parse(command.commands[words[0]], words[1:])
    else:
        command.make_parser(context).parse_args(list(words))


def _all_commands(page: str) -> list[str]:
    sections = re.findall(r"^## (.*)$", (REPOSITORY / "docs" / page).read_text(), re.M)
    return [line for section in sections for line in commands(page, section)]


def test_readme_is_short_enough_to_be_read() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 160


def test_the_placeholder_of_the_repository_stands_once() -> None:
    assert [(REPOSITORY / name).read_text().count("<this repository>") for name in ("README.md", "CITATION.cff")] == [
        1,
        1,
    ]


def test_the_studies_that_are_shown_answer_all_of_the_first_screen() -> None:
    files = ("params.yaml", "examples/own_task/params.yaml")
    sample, own = (yaml.safe_load((REPOSITORY / name).read_text()) for name in files)
    for grid in (sample["grid"], own["grid"]):
        assert {"det_1", "det_2", "nd_1", "nd_2"} <= set(grid["runs"])
        assert len(grid["seeds"]) >= 3
    assert {"all_1", "all_2"} <= set(own["grid"]["runs"])
    narrow, wide = (own["tasks"][name] for name in own["grid"]["tasks"])
    assert narrow["data"] == wide["data"], "two models on the same data"
    assert narrow["model"] != wide["model"]
