"""What DVC is asked to do, and how much of what it says is passed on."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from twinrun.launch import dvc
from twinrun.study.errors import BusyError, InputError

SAID = """'data.dvc' didn't change, skipping
Stage 'prepare@digits' didn't change, skipping
Running stage 'collect':
> twinrun collect
collect 9/90
collect 90/90
90 runs, all there and of one kind
Updating lock file 'dvc.lock'

To track the changes with git, run:

\tgit add dvc.lock
Use `dvc push` to send your updates to remote storage.
"""


def says(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    script = f"print({text!r}, end=''); raise SystemExit({code})"
    monkeypatch.setattr(dvc, "_command", lambda root, *words: ([sys.executable, "-c", script], None))


def test_only_what_the_stages_say_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    says(monkeypatch, SAID)
    dvc.reproduce(tmp_path)
    assert capsys.readouterr().out == "90 runs, all there and of one kind\n"


def test_progress_is_shown_after_a_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    says(monkeypatch, SAID)
    monkeypatch.setattr(dvc, "_SECONDS", 0.0)
    dvc.reproduce(tmp_path)
    assert capsys.readouterr().out == "collect 9/90\ncollect 90/90\n90 runs, all there and of one kind\n"


def test_stages_do_not_wait_for_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dvc, "_command", lambda root, *words: (["bash", "-c", "read -t 1 x; echo ended: $?"], None))
    reading, writing = os.pipe()  # nobody writes
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        dvc.reproduce(tmp_path)
    finally:
        os.dup2(before, 0)
        for descriptor in (reading, writing, before):
            os.close(descriptor)
    assert capsys.readouterr().out == "ended: 1\n"


def test_an_interrupt_ends_the_stages_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC ends without them."""
    script = "sleep 60 & echo $!; trap 'exit 0' TERM; wait"
    monkeypatch.setattr(dvc, "_command", lambda root, *words: (["bash", "-c", script], None))
    shown: list[str] = []

    def interrupt(line: str, **_: object) -> None:
        shown.append(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(dvc, "print", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        dvc.reproduce(tmp_path)
    end = time.monotonic() + 10
    while (alive := Path(f"/proc/{shown[0].strip()}/cmdline").exists()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive


def test_a_stage_that_fails_is_an_error_with_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, "ERROR: failed to reproduce 'collect'\n", code=255)
    with pytest.raises(InputError, match="dvc repro failed: ERROR: failed to reproduce 'collect'"):
        dvc.reproduce(tmp_path)
    says(monkeypatch, "ERROR: Unable to acquire lock\n", code=255)
    with pytest.raises(BusyError):
        dvc.reproduce(tmp_path)


def test_the_sample_is_brought_where_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(dvc, "_dvc", lambda root, *words, **options: asked.append(words))
    dvc.bring_sample(tmp_path, "data/sample/digits.tar.gz")
    assert asked == [], "no study under DVC"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").touch()
    dvc.bring_sample(tmp_path, "data/own.zip")
    assert asked == [], "none of the sample's"
    dvc.bring_sample(tmp_path, "data/sample/digits.tar.gz")
    assert asked == [("pull", "--quiet", "--remote", "datastore", "data.dvc")]
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "digits.tar.gz").touch()
    dvc.bring_sample(tmp_path, "data/sample/digits.tar.gz")
    assert len(asked) == 1, "it is there"
