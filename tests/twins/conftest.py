"""`twinrun twins` in a folder of its own, and a command whose twins start warm."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twinrun.cli.app import main

Arguments = Callable[..., tuple[int, str, str]]
Twins = Callable[..., tuple[int, str]]


def warm(script: str = "train.py", *words: str) -> list[str]:
    """A command that runs a script that uses torch, by the warm interpreter where its environment is the suite's."""
    code = f"import torch; exec(compile(open({script!r}).read(), {script!r}, 'exec'))"
    return [sys.executable, "-c", code, *words]


@pytest.fixture
def call_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Arguments:
    """Calls `twinrun twins ARGUMENTS` in a folder of its own; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["twinrun", "twins", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def run_twins(call_twins: Arguments) -> Twins:
    """Calls `twinrun twins OPTIONS -- COMMAND`; returns the exit code and all that was printed."""

    def run(options: str, command: list[str]) -> tuple[int, str]:
        code, *said = call_twins(*shlex.split(options), "--", *command)
        return code, "".join(said)

    return run
