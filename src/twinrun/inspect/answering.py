"""A process that does what it is asked and answers with JSON, a line an answer."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class Answering:
    """The process, whose other words are kept in a file: it would stop when a pipe that nobody reads is full."""

    def __init__(self, command: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        self.words = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed at the end
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words,
        )  # fmt: skip

    def ask(self, line: str) -> None:
        """Write a line; whether it was heard is seen in the answer."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """Its next answer; None when it has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit code, and what it said."""
        code = self.process.wait()
        self.words.seek(0)
        return code, self.words.read().strip()

    def close(self) -> None:
        """Let go of it: the end of what it is asked is its end."""
        self.process.communicate()
        self.words.close()
