"""A folder is replaced whole or not at all, and never one that holds something else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from twinrun.study.errors import InputError
from twinrun.study.folders import foreign_content, replaced_folder


def test_what_we_made_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for content in ("old", "new"):
        with replaced_folder(target, ("record.json",)) as folder:
            (folder / "record.json").write_text(content)
    assert (target / "record.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "out", ("a",)) as folder:
        (folder / "a").write_text("old")

    def interrupted() -> None:
        with replaced_folder(tmp_path / "out", ("a",)) as folder:
            (folder / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_common_names_are_left_alone_without_what_marks_them_as_ours(tmp_path: Path) -> None:
    target = tmp_path / "tables"
    target.mkdir()
    (target / "mine.csv").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"tables: holds mine\.csv and no study\.json, so that it may be"),
        replaced_folder(target, ("study.json", "*.csv"), mark="study.json"),
    ):
        pytest.fail("the block must not be entered")
    assert (target / "mine.csv").read_text() == "years of work"
    (target / "study.json").touch()
    with replaced_folder(target, ("study.json", "*.csv"), mark="study.json") as folder:
        (folder / "study.json").touch()
    assert [path.name for path in target.iterdir()] == ["study.json"]


@pytest.mark.parametrize("name", ["thesis.docx", "src", ".git"])
def test_a_folder_with_anything_else_in_it_is_left_alone(name: str, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "record.json").write_text("{}")
    (target / name).write_text("years of work")
    said = rf"mine: holds {name}, which is not of what is to be written there"
    with pytest.raises(InputError, match=said), replaced_folder(target, ("record.json",)):
        pytest.fail("the block must not be entered")
    assert (target / name).read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_what_a_folder_may_hold(tmp_path: Path) -> None:
    assert foreign_content(tmp_path / "absent", ()) is None
    assert foreign_content(tmp_path, ()) is None
    (tmp_path / ".gitignore").write_text("/a\n")  # DVC leaves one beside its outputs
    (tmp_path / "task").mkdir()
    assert foreign_content(tmp_path, ("*/labels.npy",)) == "task"
    (tmp_path / "task" / "labels.npy").touch()
    assert foreign_content(tmp_path, ("*/labels.npy",)) is None
    assert foreign_content(tmp_path, ("labels.npy",)) == "task"


def _killed(target: Path, *, swapping: bool) -> int:
    """The number of a process that was killed while it wrote `target`, or while it put the new folder in its place."""
    child = os.fork()
    if not child:
        with replaced_folder(target, ("*",)) as building:
            (building / "new").touch()
            if swapping:
                target.rename(target.with_name(f".{target.name}.{os.getpid()}.old"))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return child


@pytest.mark.parametrize("swapping", [False, True])
def test_what_a_killed_process_left_is_removed_and_nothing_is_lost(tmp_path: Path, swapping: bool) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    child = _killed(target, swapping=swapping)
    assert (tmp_path / f".target.{child}.tmp" / "new").exists()
    with pytest.raises(RuntimeError, match="stop"), replaced_folder(target, ("*",)):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_folder_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with replaced_folder(target, ("*",)) as building:
        (building / "first").touch()
        other = tmp_path / f".target.{os.getpid() + 1}.tmp"
        building.rename(other)  # as if another process had it
        with replaced_folder(target, ("*",)) as mine:
            (mine / "second").touch()
        assert (other / "first").exists()
        other.rename(building)
    assert [path.name for path in target.iterdir()] == ["first"]


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    with pytest.raises(InputError), replaced_folder(tmp_path / "a" / "b" / "c", ("*",)):
        raise InputError("bad")
    assert not list(tmp_path.iterdir())
    with replaced_folder(tmp_path / "a" / "b" / "c", ("*",)):
        pass
    assert (tmp_path / "a" / "b" / "c").is_dir()
