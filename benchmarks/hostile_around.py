"""What is around a command, and what a program of the user's may do: cases of benchmarks/hostile.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile_cases import COMMANDS, READS, REFUSED, TOO_SLOW, Case, Fault

FULL = 'exec "$@" # on a full disk'

STREAMS = {
    "stdout is full": ('exec "$@" >/dev/full', REFUSED),
    "stderr is full": ('exec "$@" 2>/dev/full', frozenset({0, 4})),
    "nobody reads": ('set -o pipefail; "$@" | true', frozenset({0, 4, 141})),
    "stdin is closed": ('exec "$@" <&-', frozenset({0, 4})),
    "stdout is closed": ('exec "$@" >&-', frozenset({0, 4})),
    "stderr is closed": ('exec "$@" 2>&-', frozenset({0, 4})),
}
CLOSED = ("train", "sweep", "collect", "locate", "compare", "import npz", "power twins")  # from nothing: they are slow
LIMITED = ("train", "prepare", "collect", "analyze", "statement", "compare", "import npz", "sweep", "locate program",
           "audit program")  # fmt: skip
WRITERS = ("prepare", "train", "collect", "analyze", "report", "export", "crate", "import", "import npz", "slurm",
           "compare page", "reanalyze", "twins", "sweep", "sweep in DVC", "fetch")  # fmt: skip
# Root, without what lets it read and write what it may not.
ORDINARY = 'exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"'
TWICE = '"$@" >>first.out 2>>first.err & "$@"; code=$?; wait $!; other=$?; exit $((code > other ? code : other))'


def surroundings() -> Iterator[Case]:
    """Streams, memory, the disk, rights, and another process."""
    for name in COMMANDS.keys() - TOO_SLOW - {"power"}:  # whose study may have no SD to plan with
        for what, (shell, codes) in STREAMS.items():
            cold = "closed" in what
            if name in CLOSED or not cold:
                yield Case("stream", name, what, codes=codes, harmless=False, shell=shell, cold=cold)
    for name in LIMITED:
        codes = frozenset({3, 6} if name == "sweep" or "program" in name else {6})
        for mebibytes in (200, 350, 400, 600, 1000):
            shell = f'exec prlimit --as={mebibytes << 20} "$@"'
            yield Case("memory", name, f"{mebibytes} MiB", codes=codes, shell=shell, cold=True)
    small = 'exec prlimit --fsize=1000 "$@"'
    for name in WRITERS:
        fault = _one_run_less if "sweep" in name else _nothing
        yield Case("disk", name, "full", fault, shell=FULL)
        yield Case("disk", name, "files of at most 1,000 bytes", fault, shell=small, cold=True)
        yield Case("rights", name, "a folder that cannot be written", _read_only, shell=ORDINARY, cold=True)
    for pattern, reading in READS.items():
        name = reading.split(", ")[0]
        if name not in TOO_SLOW:
            fault = _unreadable(pattern)
            yield Case("rights", name, f"{pattern} cannot be read", fault, shell=ORDINARY, cold=True)
    for name in WRITERS[:8]:
        codes = frozenset({3, 5} | ({0} if name == "export" else set()))  # each says how many the other had added
        yield Case("two at once", name, "in one folder", codes=codes, shell=TWICE)


def _nothing(folder: Path) -> None:
    pass


def _one_run_less(folder: Path) -> None:
    shutil.rmtree(next(folder.glob("runs/*/*/*/nd_2")))


def _read_only(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)


def _unreadable(pattern: str) -> Fault:
    def fault(folder: Path) -> None:
        min(folder.glob(pattern)).chmod(0)
        if pattern.startswith("data/"):
            shutil.rmtree(folder / "prepared")

    return fault


# ---- what the user's program does

GOOD = """
import json, os, sys, torch
torch.manual_seed(int(os.environ.get("TWINRUN_SEED", "0")))
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(6):
    if step == 2:
        pass  # HERE
    loss = model(torch.randn(4, 8)).square().mean()
    optimizer.zero_grad(), loss.backward(), optimizer.step()
json.dump({"accuracy": 1 / (1 + loss.item())}, open("m.json", "w"))
with open("out.csv", "w") as out:
    out.write("example,label,prediction\\n" + "".join(f"e{i},{i % 2},{i % 3 % 2}\\n" for i in range(6)))
"""
DAEMON = "if not os.fork():\n    os.setsid()\n    time.sleep(600)"
NAMES = "out.npz out.json out.csv out.safetensors out.png out.pt out.npy out.zip"
GARBAGE = f"for name in '{NAMES}'.split():\n    open(name, 'wb')"
STARTS = "sys.exit(subprocess.run(['twinrun', 'twins', '-n', '2', '--', 'true']).returncode)"
FAILED, ENDED = frozenset({3}), frozenset({0, 2, 3, 4})
# What bad.py does, as a script of its own, and how `twins` and the three others may end.
SCRIPTS: dict[str, tuple[str, frozenset[int], frozenset[int]]] = {
    "exits 3": ("sys.exit(3)", FAILED, FAILED),
    "raises": ("raise ValueError('mine\\x1b[31m\\udcff')", FAILED, FAILED),
    "is no Python": ("this is (no", FAILED, FAILED),
    "crashes": ("os.kill(os.getpid(), 11)", FAILED, FAILED),
    "is killed": ("os.kill(os.getpid(), 9)", FAILED, FAILED),
    "prints no UTF-8 and fails": ("sys.stdout.buffer.write(bytes(range(256)) * 40)\nsys.exit(1)", FAILED, FAILED),
    "prints 200 MB and fails": ("[print('x' * 10**6) for _ in range(200)]\nsys.exit(1)", FAILED, FAILED),
    "reads its input": ("input()", FAILED, FAILED),
    "never ends": ("time.sleep(600)", FAILED, FAILED),
    "ignores signals": ("[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\ntime.sleep(600)", FAILED, FAILED),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", FAILED, FAILED),
    "trains nothing": ("print('ok')", ENDED, FAILED),
    "leaves a daemon": (DAEMON, ENDED, FAILED),
    "removes its folder": ("shutil.rmtree(os.getcwd())", FAILED, FAILED),
    "makes its folder read-only": ("open('x', 'w')\nos.chmod('.', 0o555)", ENDED, FAILED),
    "makes a folder 300 deep": ("for _ in range(300):\n    os.mkdir('d' * 50)\n    os.chdir('d' * 50)", ENDED, FAILED),
    "leaves a FIFO": ("os.mkfifo('fifo')", ENDED, FAILED),
    "leaves a link to /dev/zero": ("os.symlink('/dev/zero', 'zero.json')", ENDED, FAILED),
    "leaves a link to itself": ("os.symlink('loop', 'loop')", ENDED, FAILED),
    "leaves a socket": ("import socket; socket.socket(socket.AF_UNIX).bind('socket')", ENDED, FAILED),
    "leaves a name that is no UTF-8": ("open(b'\\xff\\n', 'w').write(str(time.time()))", frozenset({4}), FAILED),
    "leaves 2 GB of nothing": ("open('sparse', 'wb').truncate(2 << 30)", frozenset({0}), FAILED),
    "leaves the same garbage": (GARBAGE + ".write(bytes(range(256)) * 9)", frozenset({0}), FAILED),
    "leaves other garbage": (GARBAGE + ".write(os.urandom(99))", frozenset({4}), FAILED),
    "leaves other text": ("open('out.json', 'w').write('[' * 90000 + str(time.time()))", frozenset({4}), FAILED),
    "starts twinrun": (STARTS, ENDED, FAILED),
}  # fmt: skip
INSIDE = {  # in its third optimizer step
    "raises": "raise ValueError('mine')",
    "ends at once": "os._exit(0)",
    "crashes": "os.kill(os.getpid(), 11)",
    "closes its descriptors": "os.closerange(3, 200)",
    "never ends": "import time; time.sleep(600)",
    "is out of memory": "raise MemoryError",
    "fills its weights with NaN": "model.weight.data.fill_(float('nan'))",
}
NUMBER = '{"accuracy": 1' + "0" * 5000 + "}"
TEXTS = ("", "[]", "{}", '{"accuracy": "much"}', '{"accuracy": {}}', '{"accuracy": true}', "[" * 90000, NUMBER)
METRICS = {
    "missing": "",
    "a folder": "os.mkdir('m.json')",
    "a FIFO": "os.mkfifo('m.json')",
    "a link to /dev/zero": "os.symlink('/dev/zero', 'm.json')",
    "no UTF-8": "open('m.json', 'wb').write(bytes(range(256)))",
    **{f"{text[:24]!r}": f"open('m.json', 'w').write({text!r})" for text in TEXTS},
}
START = "import os, shutil, signal, subprocess, sys, time\n"


WORDS = ("", ".", "nowhere", "./bad.py", "\udcff", "x" * 5000, "a\nb", "/dev/zero")


def programs() -> Iterator[Case]:
    """What a program of the user's may do."""
    commands = ("twins", "locate program", "audit program", "cost program")
    for place, (what, (text, twins, others)) in enumerate(SCRIPTS.items()):
        for name in commands if place < 6 else commands[:2]:
            yield Case("program", name, what, _script(START + text), codes=twins if name == "twins" else others)
    for what, text in INSIDE.items():
        codes = ENDED if what in ("closes its descriptors", "fills its weights with NaN") else FAILED | {0}
        for name in ("locate program", "audit program"):
            script = _script(GOOD.replace("pass  # HERE", text))
            yield Case("program", name, f"in a step it {what}", script, codes=codes)
    for what, text in METRICS.items():
        words = COMMANDS["twins"].with_words("--metric", "m.json:accuracy")
        yield Case("program", "twins", f"its metric is {what}", _script(START + text), words, frozenset({2, 3}))
    for name in commands:
        before = COMMANDS[name].words[: COMMANDS[name].before_program]
        for words in ([], *([word] for word in WORDS)):
            what = f"the program {' '.join(words)[:12]!r}"
            yield Case("program", name, what, words=(*before, "--", *words), harmless=False)


def _script(text: str) -> Fault:
    return lambda folder: (folder / "bad.py").write_text(text)
