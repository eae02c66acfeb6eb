"""What docs/twins.md, resume.md, notice.md and cost.md show is what the commands answer; the Action ends as they do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import REPOSITORY
from tests.twins.conftest import Twins, warm
from tests.twins.test_tracing import START

from twinrun.cli.cost import table_lines
from twinrun.inspect.ladder import cpu_ladder, program_ladder
from twinrun.study.files import read_json
from twinrun.twins.tracing import Program, locate_program

WITH_TORCH = ("resumable.py", "examples/plain_pytorch.py")


def sessions(page: str, program: str) -> list[tuple[str, list[str]]]:
    """The command lines of a page that begin with `$ program`, and the shown pieces of their answers."""
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", (REPOSITORY / "docs" / page).read_text(), re.M)
    parts = [part for block in blocks for part in block.split("    $ ")[1:] if part.startswith(program)]
    lines = [part.partition("\n") for part in parts]
    return [(command, [plain(piece) for piece in text.split("    ...\n")]) for command, _, text in lines]


def plain(text: str) -> str:
    return re.sub(r"\d+\.\d s\b", "N s", " ".join(text.split()))


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name in ("resumable.py", "class_order.py", "test_training.py"):
        shutil.copy(REPOSITORY / "examples" / name, tmp_path)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "place", "code"),
    [("twins.md", 0, 4), ("resume.md", 0, 0), ("resume.md", 1, 4), ("notice.md", 0, 0), ("../README.md", 0, 0)],
)
def test_twins_are_shown_as_they_are_answered(
    examples: Path, run_twins: Twins, monkeypatch: pytest.MonkeyPatch, page: str, place: int, code: int
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED") if page == "twins.md" else None
    command, pieces = sessions(page, "twinrun twins")[place]
    options, _, shown = command.removeprefix("twinrun twins ").partition(" -- ")
    _, script, *words = shlex.split(shown)
    used = warm(script, *words) if script in WITH_TORCH else [sys.executable, script, *words]
    given, said = run_twins(options, used)
    assert given == code, said
    said = plain(said.replace(shlex.join(used), shown))
    for piece in pieces:
        assert piece in said


def test_the_first_difference_is_shown_as_it_is_answered(tmp_path: Path) -> None:
    """But for its numbers, which the program draws anew each time."""
    shutil.copy(REPOSITORY / "examples" / "forgets_numpy.py", tmp_path)
    # A warm process has the generators of the server that it comes from.
    start = "import random, numpy; random.seed(); numpy.random.seed(); " + START.replace("train.py", "forgets_numpy.py")
    said = " ".join(locate_program(Program((sys.executable, "-c", start), tmp_path)).sentences())
    for page in ("locate.md", "../README.md"):
        (pieces,) = (shown for command, shown in sessions(page, "twinrun locate --"))
        for piece in " ".join(pieces).split(", ...)"):
            assert numberless(piece) in numberless(said)


def numberless(text: str) -> str:
    return re.sub(r"\d[\d.e+]*", "N", plain(text))


def test_tests_are_shown_as_they_end(examples: Path) -> None:
    shown = sessions("notice.md", "pytest")
    assert len(shown) == 2
    for command, pieces in shown:
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *shlex.split(command)[1:]]
        environment = os.environ | {"COLUMNS": "120"}
        done = subprocess.run(words, cwd=examples, env=environment, capture_output=True, text=True, check=False)
        for piece in pieces:
            assert piece in plain(done.stdout), done.stdout
    assert [path.name for path in (examples / "fingerprints").iterdir()] == ["test_training.json"]


@pytest.mark.parametrize(
    ("script", "inputs", "code", "verdict"),
    [
        ("open('a b', 'w').write('x')", {"OUTPUTS": "a b\n", "ARM": "nd"}, 0, "identical"),
        ("import os; open('a', 'w').write(os.urandom(4).hex())", {}, 4, "different"),
    ],
)
def test_the_action_ends_as_the_twins_do(
    tmp_path: Path, script: str, inputs: dict[str, str], code: int, verdict: str
) -> None:
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    assert action["outputs"]["result"]["value"] == f"${{{{ steps.{step['id']}.outputs.result }}}}"
    values = {name: action["inputs"][text[11:-3]].get("default", "") for name, text in step["env"].items()}
    values |= {"COMMAND": f'{sys.executable} -c "{script}"', "COUNT": "2", **inputs}
    out = tmp_path / "github"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | values | {"GITHUB_OUTPUT": str(out), "PATH": path}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert json.loads(out.read_text().removeprefix("result="))["verdict"] == verdict


def test_the_cost_that_is_shown_is_what_was_measured() -> None:
    """On results/program-cost/: measuring it anew takes minutes, and gives other times."""
    content = read_json(REPOSITORY / "results" / "program-cost" / "attention.json")
    off = {"cpu_threads": 2, "deterministic_algorithms": False, "fill_uninitialized_memory": False}
    ladder, left_out = program_ladder("cpu", off, {}, attention=True, compiled=False)
    (_, (shown,)), *others = sessions("cost.md", "twinrun cost -- python attention.py")
    assert not others
    lines = [f"left out: {rung}: {why}" for rung, why in left_out.items()]
    lines += [f"python attention.py: step time over that of as_it_is, {len(content['blocks'])} blocks"]
    for line in [*lines, *table_lines(ladder, content["blocks"])]:
        assert plain(line) in shown


def test_what_the_same_bits_cost_is_what_was_measured() -> None:
    """results/cpu-cost/: its tables, the factors in its page, and those that docs/cost.md takes from there."""
    folder, ladder = REPOSITORY / "results" / "cpu-cost", cpu_ladder()
    page = (folder / "README.md").read_text()
    docs = " ".join((REPOSITORY / "docs" / "cost.md").read_text().split())
    texts = sorted(folder.glob("*/*_cpu.json"))
    assert len(texts) == 4
    for path in texts:
        name = path.name.partition("_")[0]
        lines = table_lines(ladder, read_json(path)["blocks"])
        printed = plain(path.with_name(f"{name}.txt").read_text())
        assert all(plain(line) in printed for line in lines)
        rungs = {row[0]: row for line in lines if len(row := line.split("\t")) > 1}
        (shown,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        own = [f"{row[4]} ({row[5]})" for row in rungs.values() if row[4:6] != ["", ""] and row[0] != "flags"]
        whole = f"{rungs['fingerprints'][1]} ({rungs['fingerprints'][2]})"
        assert shown == f"| `{name}` | {' | '.join([*own, whole])} |"
        assert whole in docs
