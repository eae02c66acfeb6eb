"""What README and docs/compare.md show of an answer is what the command answers."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from tests.conftest import REPOSITORY
from typer.testing import CliRunner

from twinrun.cli.app import app

PAGES = ("README.md", "docs/compare.md")
STUDY = "cifar10/"  # read in the folder of results/cpu-real-subset


def sessions(page: str) -> list[tuple[list[str], list[str]]]:
    """The arguments and the shown pieces of every `$ twinrun compare` of a page; `...` leaves lines out."""
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", (REPOSITORY / page).read_text(), re.M)
    shown = [part for block in blocks for part in block.split("    $ twinrun ")[1:]]
    answers = []
    for part in shown:
        command, _, text = part.partition("\n")
        if command.startswith("compare "):
            answers.append((shlex.split(command), [" ".join(piece.split()) for piece in text.split("    ...\n")]))
    return answers


@pytest.mark.parametrize("page", PAGES)
def test_answers_are_shown_as_they_are_given(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = sessions(page)
    assert len(shown) >= 2
    for words, pieces in shown:
        study = words[1].startswith(STUDY)
        monkeypatch.chdir(REPOSITORY / "results" / "cpu-real-subset" if study else REPOSITORY)
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.exception
        for piece in pieces:
            assert piece in " ".join(answer.output.split())


def test_verify_is_shown_with_the_epochs_that_it_compares() -> None:
    run, epochs = re.findall(
        r"^    (\S+)  expected  (\d+) epochs  equal$", (REPOSITORY / "README.md").read_text(), re.M
    )[0]
    expected = json.loads((REPOSITORY / "expected" / "fingerprints.json").read_text())["runs"][run]["epochs"]
    assert len(expected) == int(epochs)
