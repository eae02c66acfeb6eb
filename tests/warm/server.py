"""Starts our own commands by a fork of a process that has imported all that is not ours.

A process that imports torch, pandas and Matplotlib takes four seconds for it, and the suite starts hundreds. A child of
this server begins where a real interpreter is after those imports: twinrun itself is imported afresh, from the path
that the caller's environment names. What the interpreter or a library has read at its own start cannot be put right
afterwards: with other values of it, or in another mount namespace, the client is told to start the real one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

# Read by the interpreter, or by a library that is imported here, when it starts: names and beginnings of names.
AT_START = ("PYTHON", "LD_", "MPL", "LANG", "LC_", *sys.argv[3:])
# Of these, what is read later, or set by `main`. cuBLAS reads its variable with the first product on a GPU.
PUT_RIGHT = ("PYTHON", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "CUBLAS_WORKSPACE_CONFIG")
SLOW = (
    "torch", "torch._dynamo", "torchvision.models", "scipy.stats", "pandas", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "sklearn.metrics", "pydantic", "typer",
    "rich.console", "rich.progress", "jinja2", "safetensors.numpy", "PIL.Image", "lightning", "dvc.cli", "dvc.repo",
    "dvc.commands.repro", "dvc.commands.status",
)  # fmt: skip


def main() -> None:
    """Serve until standard input ends; in a child, be the process that was asked for."""
    request = serve()
    if request is None:
        return
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if entry:
            sys.path.insert(0, entry)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.executable = sys.argv[1]
    os._exit(execute(*request["words"]))


def execute(first: str, *others: str) -> int:
    """Do what `python FIRST OTHERS` does; its exit code. All that ends an interpreter is done, but nothing is freed.

    Freeing what the server has imported would write to every page of it, and so copy it: a second and a half.
    """
    code = 0
    try:
        if first in ("-m", "-c"):
            sys.argv = [first, *others[1:]]
            if first == "-m":
                runpy.run_module(others[0], run_name="__main__", alter_sys=True)
            else:
                exec(others[0], {"__name__": "__main__"})
        else:
            sys.argv = [first, *others]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def relevant(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name not in PUT_RIGHT}


def serve() -> dict | None:
    """The request, in the child that is to do it; None when the suite has ended."""
    listener = socket.socket(fileno=int(sys.argv[2]))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, "new")
    selector.register(0, selectors.EVENT_READ, "end")
    world = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "user")]
    own, loaded = relevant(dict(os.environ)), False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process
    while True:
        for key, _ in selector.select():
            if key.data == "end":
                for child, _ in children.values():
                    os.kill(child, signal.SIGKILL)
                return None
            if key.data == "new":
                channel = listener.accept()[0]
                header, descriptors, _, _ = socket.recv_fds(channel, 8, 4)
                request = json.loads(receive(channel, int.from_bytes(header, "little")))
                if request["world"] != world or relevant(request["environment"]) != own:
                    channel.sendall(bytes(8))
                    channel.close()
                    for descriptor in descriptors:
                        os.close(descriptor)
                    continue
                if not loaded:
                    for module in SLOW:
                        with suppress(ModuleNotFoundError):  # the core has no torchvision
                            importlib.import_module(module)
                    gc.freeze()  # the collector would copy the pages of all that it looks at
                    loaded = True
                child = os.fork()
                if not child:
                    for other in (listener, channel, selector, *(theirs for _, theirs in children.values())):
                        other.close()
                    become(request, descriptors)
                    return request
                for descriptor in descriptors:
                    os.close(descriptor)
                channel.sendall(child.to_bytes(8, "little"))
                handle = os.pidfd_open(child)
                children[handle] = child, channel
                selector.register(handle, selectors.EVENT_READ, handle)
                selector.register(channel, selectors.EVENT_READ, handle)
            elif key.data in children:  # the child ended, or whoever asked for it is gone
                handle = key.data
                child, channel = children.pop(handle)
                if key.fileobj is channel:
                    os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                selector.unregister(handle)
                selector.unregister(channel)
                os.close(handle)
                with suppress(OSError):  # nobody may be there any more
                    channel.sendall(code.to_bytes(8, "little", signed=True))
                channel.close()


def receive(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += channel.recv(count - len(data))
    return data


def become(request: dict, descriptors: list[int]) -> None:
    """Take over what a process has from the one that starts it."""
    numbers = (0, 1, 2, int(request["words"][2])) if len(descriptors) == 4 else (0, 1, 2)
    for number, descriptor in zip(numbers, descriptors, strict=True):
        if number != descriptor:
            os.dup2(descriptor, number)
            os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])


if __name__ == "__main__":
    main()
