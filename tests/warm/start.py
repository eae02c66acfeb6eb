"""The warm interpreter of the suite: one server for all its processes, and a `python` that asks it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twinrun.study.pins import PINNED, REMOVED

REAL = sys.executable
BINARIES = "TWINRUN_TEST_BINARIES"  # environment variable: the folder of the warm commands, for xdist's workers


class Warm:
    """The server and its folder of commands; it imports nothing until it is asked for something."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="twinrun-warm-")
        self.binaries = Path(self._folder.name)
        client = Path(__file__).with_name("client.py").read_text()
        for name in ("python", "twinrun", "dvc"):
            command = self.binaries / name
            command.write_text(f"#!{REAL} -IS\n" + client.replace('REAL = ""', f"REAL = {REAL!r}"))
            command.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        server = Path(__file__).with_name("server.py")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.binaries / "socket"))
            listener.listen(64)
            self._server = subprocess.Popen(
                [REAL, server, self.binaries / "python", str(listener.fileno()), *PINNED, *REMOVED],
                stdin=subprocess.PIPE, env=environment, start_new_session=True, pass_fds=[listener.fileno()],
            )  # fmt: skip

    def stop(self) -> None:
        """End the server and what it has started."""
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(30)
        self._folder.cleanup()
