"""Stands in for the Python interpreter: what is `warm` goes to the server, all else to the real one.

`start.py` writes it under the names `python`, `twinrun` and `dvc` beside the server's socket, its first lines added:
the interpreter's path in the line that the kernel reads and in REAL. It must start fast: no site, few modules.
"""

import os
import signal
import sys

REAL = ""
WORKERS = "twinrun.launch.worker_server"  # is given a socket, whose number it is told
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    here, name = os.path.split(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - no pathlib: see above
    words = sys.argv[1:] if name == "python" else ["-m", name, *sys.argv[1:]]
    if warm(*words[:2]):
        ask(os.path.join(here, "socket"), words)  # noqa: PTH118
    os.execv(REAL, [REAL, *words])


def warm(first: str = "", second: str = "") -> bool:
    """Whether a command that begins so is our own, and not a program of a user's, whose processes may be looked at."""
    return (
        (first == "-m" and second in ("twinrun", "dvc", "pytest", WORKERS))
        or (first == "-c" and second.startswith("import torch;"))
        or os.path.basename(os.path.dirname(os.path.abspath(first))) == "benchmarks"  # noqa: PTH100, PTH119, PTH120
    )


def ask(path: str, words: list[str]) -> None:
    """Have the server do it and end as it ended; come back when it must not."""
    import json
    import socket

    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(path)
    except OSError:
        return
    request = json.dumps({
        "words": words, "environment": dict(os.environ), "folder": os.getcwd(),  # noqa: PTH109
        "world": [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")],  # noqa: PTH115
    }).encode()  # fmt: skip
    given = [int(words[2])] if words[1:2] == [WORKERS] else []
    socket.send_fds(channel, [len(request).to_bytes(8, "little")], [0, 1, 2, *given])
    channel.sendall(request)
    child = int.from_bytes(channel.recv(8), "little")
    if not child:
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os.kill(child, number))
    code = int.from_bytes(channel.recv(8), "little", signed=True)
    if code < 0:  # it was killed: so is this
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
