"""Does a worker server grow with the runs that it starts? Its memory and files after 20 and after 200 children."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psutil

from twinrun.launch.workers import OF_EVERY_RUN, Workers


def main() -> None:
    """Start 200 children one after the other and print what the server holds."""
    with tempfile.TemporaryDirectory() as folder, Workers(Path(folder), OF_EVERY_RUN) as workers:
        for number in range(201):
            begin = time.perf_counter()
            workers.run(["--version"])
            if number in (0, 20, 200):
                (server,) = (p for p in psutil.Process().children() if "twinrun.launch.worker_server" in p.cmdline())
                memory, seconds = server.memory_full_info(), time.perf_counter() - begin
                print(
                    f"{number} children: {memory.rss / 2**20:.2f} MiB, {memory.uss / 2**20:.2f} of its own, "
                    f"{server.num_fds()} files, the last child took {seconds:.2f} s"
                )


if __name__ == "__main__":
    main()
