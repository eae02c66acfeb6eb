"""Stands in for the Python interpreter: `-m twinrun` and `-m dvc` go to the server, all else to the real one.

`start.py` writes it under the names `python`, `twinrun` and `dvc` beside the server's socket, its first lines added:
the interpreter's path in the line that the kernel reads and in REAL. It must start fast: no site, few modules.
"""

import os
import signal
import sys

REAL = ""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    here, name = os.path.split(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - no pathlib: see above
    words = sys.argv[1:] if name == "python" else ["-m", name, *sys.argv[1:]]
    if words[:1] == ["-m"] and words[1:2] in (["twinrun"], ["dvc"]):
        ask(os.path.join(here, "socket"), words)  # noqa: PTH118
    os.execv(REAL, [REAL, *words])


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
        "words": words[1:], "environment": dict(os.environ), "folder": os.getcwd(),  # noqa: PTH109
        "world": [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")],  # noqa: PTH115
    }).encode()  # fmt: skip
    socket.send_fds(channel, [len(request).to_bytes(8, "little")], [0, 1, 2])
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
