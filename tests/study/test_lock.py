"""The lock: one holder at a time, named to the others; a look stops nobody; a kill and a removed folder free it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from twinrun.study.errors import BusyError, ResourceError
from twinrun.study.lock import hold, is_held


def test_one_holder_who_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    lock = tmp_path / "deep" / "lock"
    assert not is_held(lock)
    with hold(lock, "busy"):
        assert is_held(lock)
        words = f"busy: {platform.node()}, process {os.getpid()}, SLURM job 7\n  stop it"
        with pytest.raises(BusyError, match=re.escape(words)), hold(lock, "busy", "stop it", patience=0):
            pass
        assert is_held(lock)
    assert not is_held(lock)
    with hold(lock, "busy", patience=0):
        pass


def test_patience_is_as_long_as_it_says(tmp_path: Path) -> None:
    lock, begin = tmp_path / "lock", time.monotonic()
    with hold(lock, "busy"), pytest.raises(BusyError), hold(lock, "busy", patience=0.4):
        pass
    assert 0.4 <= time.monotonic() - begin < 5
    held = hold(lock, "busy")
    held.__enter__()
    threading.Timer(0.2, held.__exit__, (None, None, None)).start()
    with hold(lock, "busy", patience=30):
        assert is_held(lock)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    child = os.fork()
    if not child:
        with hold(lock, "busy"):
            time.sleep(60)
        os._exit(0)
    while not is_held(lock):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with hold(lock, "busy", patience=0):
        pass


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path: Path) -> None:
    """Who waited while the holder removed the folder gets a new lock, which all others see."""
    folder = tmp_path / "work"
    with hold(folder / "lock", "busy"):
        shutil.rmtree(folder)
        with hold(folder / "lock", "busy", patience=0):
            assert is_held(folder / "lock")
    assert (folder / "lock").is_file()


def test_a_file_that_is_removed_before_it_is_locked_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder goes, and the file with it, between our opening and our locking: nobody else would see that lock."""
    path, real, opened = tmp_path / "work" / "lock", os.open, []

    def removed_once(name: Path, flags: int) -> int:
        file = real(name, flags)
        if not opened:
            path.unlink()
        opened.append(file)
        return file

    monkeypatch.setattr("twinrun.study.lock.os.open", removed_once)
    with hold(path, "busy", patience=5):
        monkeypatch.undo()
        assert is_held(path)
    assert len(opened) == 2


def test_a_folder_that_the_block_emptied_is_gone(tmp_path: Path) -> None:
    with hold(tmp_path / "work" / "lock", "busy"):
        (tmp_path / "work" / "lock").unlink()
    assert not (tmp_path / "work").exists()


def test_a_folder_that_cannot_be_made_is_not_called_busy() -> None:
    with pytest.raises(ResourceError, match="no such file or folder"), hold(Path("/proc/none/lock"), "busy"):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResourceError, match="file: a file stands where a folder should be"),
        hold(tmp_path / "file" / "lock", "busy"),
    ):
        pass
