"""The code that runs against the code of the folder: what is refused, and what says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from tests.conftest import REPOSITORY
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.study import checkout
from twinrun.study.checkout import image_revision, require_same_code
from twinrun.study.errors import MismatchError
from twinrun.study.files import code_digest, write_json
from twinrun.study.layout import Layout
from twinrun.study.records import current_code_digest

PACKAGE = REPOSITORY / "src" / "twinrun"


@pytest.fixture
def folder(tmp_path: Path) -> Layout:
    """A checkout whose code is a copy of ours."""
    shutil.copytree(PACKAGE, tmp_path / "src" / "twinrun", ignore=shutil.ignore_patterns("__pycache__"))
    return Layout(tmp_path)


def test_the_same_code_elsewhere_is_accepted(folder: Layout, tmp_path: Path) -> None:
    require_same_code(folder)
    (folder.source / "study" / "__pycache__").mkdir()
    (folder.source / "study" / "__pycache__" / "grid.cpython-311.pyc").touch()
    (folder.source / "cli.py").write_text("# a command line changes no result\n")
    require_same_code(folder)
    require_same_code(Layout(tmp_path / "study without code"))
    require_same_code(Layout(REPOSITORY))


def test_an_environment_that_was_copied_with_its_folder_is_refused(
    folder: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while the code is the same: whatever is changed in the copy would not be what runs."""
    require_same_code(folder)
    monkeypatch.setattr("sys.prefix", str(folder.root / ".venv"))
    with pytest.raises(MismatchError) as caught:
        require_same_code(folder)
    assert f"the environment of this folder, {folder.root}/.venv, runs the code of another checkout" in str(
        caught.value
    )
    require_same_code(folder, running=folder.source)


@pytest.mark.parametrize("change", ["edited", "removed", "added"])
def test_other_code_is_refused(change: str, folder: Layout) -> None:
    file = folder.source / "training" / "loop.py"
    if change == "edited":
        file.write_text(file.read_text() + "\n")
    elif change == "removed":
        file.unlink()
    else:
        file = file.with_name("mine.py")
        file.touch()
    with pytest.raises(MismatchError) as caught:
        require_same_code(folder)
    assert f"{file} differs" in caught.value.message
    assert "make environment" in caught.value.hint


@pytest.mark.parametrize("part", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()))
def test_a_comment_makes_other_code_of_a_run_where_it_can_change_its_bits_alone(part: str, folder: Layout) -> None:
    before = code_digest(folder.source, checkout.CODE_PARTS)
    assert before == current_code_digest()
    module = folder.source / part / "__init__.py"
    module.write_text(module.read_text() + "# a comment\n")
    changed = code_digest(folder.source, checkout.CODE_PARTS) != before
    assert changed == (part in ("study", "data", "training"))


def test_the_analysis_counts_where_it_is_asked_for(folder: Layout) -> None:
    (folder.source / "report" / "templates" / "report.html.j2").write_text("")
    require_same_code(folder)
    with pytest.raises(MismatchError, match=r"report\.html\.j2 differs"):
        require_same_code(folder, ("report",))


def test_in_an_image_the_commit_is_named(folder: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image_revision() is None
    facts = tmp_path / "image.json"
    write_json(facts, {"revision": "0123abc"})
    monkeypatch.setattr(checkout, "IMAGE_FACTS", facts)
    (folder.source / "study" / "grid.py").write_text("")
    (folder.source / "study" / "pins.py").write_text("")
    with pytest.raises(MismatchError) as caught:
        require_same_code(folder)
    assert "grid.py and 1 more files differ" in caught.value.message
    assert "build the image from this checkout again, or check out the commit of the image (0123abc)" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "command",
    [
        ["prepare"],
        ["train", "--index", "0"],
        ["sweep"],
        ["collect"],
        ["analyze"],
        ["report"],
        ["verify"],
        ["locate", "--all"],
    ],
)
def test_every_command_that_makes_results_refuses(command: list[str], cli: Cli, study: Layout) -> None:  # noqa: F811
    shutil.copytree(PACKAGE, study.root / "src" / "twinrun")
    (study.root / "src/twinrun/study/grid.py").write_text("")
    before = sorted(study.root.iterdir())
    code, _, err = cli(*command)
    assert code == 4
    assert "is not the code of this folder" in err
    assert sorted(study.root.iterdir()) == before


@pytest.mark.parametrize("stage", ["prepare", "train", "collect", "locate", "analyze", "report"])
def test_all_code_that_a_stage_depends_on_is_compared(stage: str, cli: Cli, study: Layout) -> None:  # noqa: F811
    """DVC would note a changed file as what the stage was run with."""
    pipeline = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"][stage]
    command = pipeline["cmd"].split()[1:]
    arguments = ["train", "--index", "0"] if stage == "train" else [command[0]] if stage == "prepare" else command
    shutil.copytree(PACKAGE, study.source)
    for dependency in (study.root / name for name in pipeline["deps"] if name.startswith("src/")):
        file = dependency if dependency.is_file() else dependency / "__init__.py"
        before = file.read_text()
        file.write_text(before + "# changed")
        code, _, err = cli(*arguments)
        assert (code, "is not the code of this folder" in err) == (4, True), dependency
        file.write_text(before)
