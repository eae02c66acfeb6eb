"""The cases of benchmarks/hostile.py: kinds of hostile input times the commands that meet them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RUN = "digits/sgd/0/det_1"
REFUSED = frozenset({2, 3, 4})


@dataclass(frozen=True)
class Command:
    """A command that ends well: where, its words, and what it may write."""

    world: str
    words: tuple[str, ...]
    makes: tuple[str, ...]
    goes_on: bool = False  # it keeps what it finished when it fails
    varies: bool = False  # it prints other words each time

    @property
    def before_program(self) -> int:
        """Where options go."""
        return self.words.index("--") if "--" in self.words else len(self.words)

    def with_words(self, *more: str) -> tuple[str, ...]:
        """Its words with some more."""
        return (*self.words[: self.before_program], *more, *self.words[self.before_program :])


def _command(world: str, words: str, *makes: str, goes_on: bool = False, varies: bool = False) -> Command:
    return Command(world, tuple(words.split()), makes, goes_on, varies)


FOLDERS = ("collected/", "located/", "analysis/", "report/")
COMMANDS = {
    "plan": _command("study", "plan"),
    "plan --estimate": _command("study", "plan --estimate", varies=True),
    "prepare": _command("study", "prepare", "prepared/"),
    "train": _command("study", f"train {RUN} --out mine", "mine/", goes_on=True),
    "train-chunk": _command("study", f"train-chunk {RUN}", "runs/", goes_on=True, varies=True),
    "sweep": _command("study", "sweep --jobs 1", "runs/", goes_on=True, varies=True),
    "slurm": _command("study", "slurm", "slurm/", varies=True),
    "status": _command("study", "status"),
    "verify": _command("study", "verify --epochs 1 --jobs 1"),
    "collect": _command("study", "collect", "collected/"),
    "locate": _command("study", f"locate {RUN} nd_1 --follow 1"),
    "locate --all": _command("study", "locate --all --follow 1", "located/"),
    "analyze": _command("study", "analyze", "analysis/"),
    "report": _command("study", "report", "report/"),
    "statement": _command("study", "report --statement neurips"),
    "power": _command("study", "power"),
    "export": _command("study", "export --to tensorboard", "export/", goes_on=True),
    "crate": _command("study", "export --to ro-crate", "export/"),
    "audit": _command("study", "audit digits"),
    "forecast": _command("study", "forecast digits --gpu B200"),
    "cost": _command("study", "cost digits --blocks 1 --seconds 0 --warmup 0", "cost/", goes_on=True, varies=True),
    "probe": _command("study", f"probe {RUN} --seconds 0 --warmup 0", varies=True),
    "doctor": _command("study", "doctor", varies=True),
    "finish": _command("pipeline", "finish", "dvc.lock", *FOLDERS, goes_on=True, varies=True),
    "sweep in DVC": _command("pipeline", "sweep --jobs 1", "runs/", "dvc.lock", goes_on=True, varies=True),
    "compare": _command("tables", "compare runs.csv a b --by model --metric accuracy"),
    "compare tables": _command("tables", "compare a.csv b.csv --metric accuracy --pair seed"),
    "compare page": _command("tables", "compare a.csv b.csv --metric accuracy --out page", "page/"),
    "compare numbers": _command("tables", "compare 0.91 0.92 --images 2000"),
    "compare twins": _command("tables", "compare first second"),
    "import": _command("tables", "import runs.csv --out imported", "imported/"),
    "import predictions": _command("tables", "import predictions.csv --out imported", "imported/"),
    "import npz": _command("tables", "import predictions.npz --out imported", "imported/"),
    "import gz": _command("tables", "import predictions.csv.gz --out imported", "imported/"),
    "import twins": _command("tables", "import first --predictions out.csv --out imported", "imported/"),
    "power twins": _command("tables", "power first --n 4"),
    "power sd": _command("tables", "power --sd 0.01 --difference 0.02"),
    "forecast audit": _command("tables", "forecast audit.json --gpu B200"),
    "reanalyze": _command("tables", "reanalyze thesis --out again", "again/"),
    "fetch": _command("tables", "data fetch sdnet2018 --from archive.zip", "data/"),
    "twins": _command("program", "twins -n 2 --seconds 20 -- python bad.py", "twins/", goes_on=True, varies=True),
    "locate program": _command("program", "locate --seconds 20 -- python bad.py", varies=True),
    "audit program": _command("program", "audit --seconds 20 -- python bad.py", varies=True),
    "cost program": _command("program", "cost --blocks 1 --seconds 0.1 --warmup 0 -- python bad.py", varies=True),
}
# With them all kinds of faults would take too long: they get a few.
TOO_SLOW = {"finish", "sweep in DVC", "plan --estimate", "cost", "locate --all", "cost program", "twins", "doctor"}
SLOW = {"analyze", "verify", "locate", "crate"} | TOO_SLOW

Fault = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One hostile command, and what is expected of it."""

    kind: str
    command: str
    what: str
    fault: Fault = lambda folder: None
    words: tuple[str, ...] = ()  # in place of the command's
    codes: frozenset[int] = REFUSED
    harmless: bool = True  # exit 0 is right where all is as without the fault
    shell: str = 'exec "$@"'
    cold: bool = False  # a real interpreter, not a fork of the warm one
    seconds: float = 240.0  # on a busy machine

    def __str__(self) -> str:
        return f"{self.kind}: {self.command}: {self.what}"


# ---- kinds: a file that is read


def _instead(make: Fault) -> Fault:
    def put(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return put


def _bytes(change: Callable[[bytes], bytes]) -> Fault:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _number(text: bytes) -> Fault:
    return _bytes(lambda data: re.sub(rb"(?<=[:,\n ])-?\d+(\.\d+)?(?=[,\n }\r])", text, data, count=1))


def _cut(data: bytes) -> bytes:
    half = len(data) // 2
    return data[: data.rfind(b",", 0, half) + 1 or half] if b"\0" not in data else data[:half]


def _flip(data: bytes) -> bytes:
    at = next(place for place in range(len(data) // 2, len(data)) if not chr(data[place]).isspace())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _foreign(path: Path) -> None:
    """A good file of the same kind with other content."""
    if path.suffix == ".npy":
        np.save(path, np.zeros((2, 2)))
    elif path.suffix == ".npz":
        np.savez(path, x=np.zeros(2))
    else:
        path.write_text("x,y\n1,2\n" if path.suffix == ".csv" else "{}\n")


FAULTS: dict[str, Fault] = {
    "missing": _instead(lambda path: None),
    "a folder": _instead(Path.mkdir),
    "a FIFO": _instead(os.mkfifo),
    "cut": _bytes(_cut),
    "foreign": _foreign,
    "one bit": _bytes(_flip),
    "empty": _bytes(lambda data: b""),
    "a link to /dev/zero": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a dangling link": _instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "HTML": _bytes(lambda data: b"<!DOCTYPE html><html>404</html>"),
    "no UTF-8": _bytes(lambda data: b"\xff\xfe\x00" + data),
}
TEXT_FAULTS: dict[str, Fault] = {
    "a list": _bytes(lambda data: b"[]\n"),
    "NaN": _number(b"NaN"),
    "a huge float": _number(b"1e400"),
    "a number of 5,000 digits": _number(b"1" + b"0" * 5000),
    "a negative number": _number(b"-7"),
    "deep": _bytes(lambda data: b"[" * 100_000),
    "twice": _bytes(lambda data: data + data),
    "a cell of 200,000": _number(b"x" * 200_000),
}
# What a table of the user's is not damaged by: it is another table then.
NUMBERS = ("one bit", "twice", "a negative number", "a number of 5,000 digits")
READS = {  # by pattern: all faults with the first command, a few with the others
    "params.yaml": "plan, prepare, train, sweep, slurm, status, verify, collect, locate, export, crate, audit, "
    "forecast, cost, probe, doctor, locate --all, plan --estimate, finish",
    "data/sample/digits.tar.gz": "prepare, train",
    "prepared/digits/manifest.json": "collect, status, train, verify, plan, sweep, audit",
    "prepared/digits/images.npy": "train, collect, audit",
    "prepared/digits/labels.npy": "train, collect",
    "prepared/digits/ids.csv": "collect, train",
    f"runs/{RUN}/record.json": "collect, status, sweep, locate, export, crate",
    f"runs/{RUN}/measured.json": "collect, status, export, locate",
    f"runs/{RUN}/curve.csv": "collect, status, export",
    f"runs/{RUN}/predictions.npz": "collect, status, export",
    f"runs/{RUN}/weights.safetensors": "collect, status, crate",
    "expected/fingerprints.json": "verify",
    "collected/study.json": "statement, power, analyze, report",
    "collected/digests.json": "statement, power, analyze, report",
    "collected/results.csv": "statement, power, analyze",
    "collected/curves.csv": "statement, analyze",
    "collected/measured.csv": "statement, analyze",
    "collected/unfinished.csv": "statement",
    "collected/digits/labels.npy": "statement, analyze",
    "collected/digits/[ph]r*.npy": "statement, analyze",
    "collected/digits/heads.npy": "statement",
    "located/digits.json": "analyze",
    "analysis/analysis.json": "report",
    "analysis/statistics.json": "report",
    "analysis/tables/*.csv": "report",
    "runs.csv": "compare, import",
    "a.csv": "compare tables",
    "predictions.csv": "import predictions",
    "predictions.npz": "import npz",
    "predictions.csv.gz": "import gz",
    "first/twins.json": "compare twins, power twins, import twins",
    "first/twin_1/out.csv": "import twins",
    "audit.json": "forecast audit",
    "archive.zip": "fetch",
    "dvc.lock": "finish, sweep in DVC",
    "dvc.yaml": "finish",
}


# What says in its answer that there is none, or that it is of no use, and goes on without it.
SAYS = {
    "located/digits.json": ("analyze",),
    "prepared/digits/manifest.json": ("plan",),
    "expected/fingerprints.json": ("verify",),
    "dvc.lock": ("sweep in DVC",),
    "a.csv": ("compare tables",),  # a seed that only one of them has
}


def files() -> Iterator[Case]:
    """Every file that is read, with every fault."""
    few = {what: FAULTS[what] for what in ("missing", "a folder", "a FIFO", "cut", "foreign", "one bit")}
    fewest = {what: FAULTS[what] for what in ("missing", "cut")}
    for pattern, reading in READS.items():
        text = pattern.endswith((".json", ".yaml", ".csv", ".lock"))
        for place, name in enumerate(reading.split(", ")):
            every = FAULTS | TEXT_FAULTS if text else FAULTS
            for what, change in (fewest if name in TOO_SLOW else few if place or name in SLOW else every).items():
                if COMMANDS[name].world == "tables" and pattern.endswith(".csv") and what in NUMBERS:
                    continue

                def fault(folder: Path, pattern: str = pattern, change: Fault = change) -> None:
                    change(min(folder.glob(pattern)))
                    if pattern.startswith("data/"):
                        shutil.rmtree(folder / "prepared")

                codes = REFUSED | ({0} if name in SAYS.get(pattern, ()) else set())
                yield Case("file", name, f"{pattern} {what}", fault, codes=codes)


def mixed() -> Iterator[Case]:
    """Whole files and folders at another's place, rows and columns twice."""

    def swap(first: str, second: str) -> Fault:
        def fault(folder: Path) -> None:
            (folder / first).rename(folder / "aside")
            (folder / second).rename(folder / first)
            (folder / "aside").rename(folder / second)

        return fault

    other = RUN.replace("det_1", "nd_1")
    for name in ("status", "sweep", "collect", "export", "crate", "locate"):
        codes = REFUSED | ({0} if name == "sweep" else set())  # it says so, and trains both again
        yield Case("mixed", name, "two runs swapped", swap(f"runs/{RUN}", f"runs/{other}"), codes=codes)
        for file in ("record.json", "measured.json", "predictions.npz"):
            fault = swap(f"runs/{RUN}/{file}", f"runs/{other}/{file}")
            yield Case("mixed", name, f"{file} of two runs swapped", fault, codes=codes)
    for name in ("statement", "analyze"):
        for file in ("results.csv", "curves.csv"):
            yield Case("mixed", name, f"{file}: a row less", _rows(f"collected/{file}", lambda rows: rows[:-1]))
            yield Case(
                "mixed", name, f"{file}: a row twice", _rows(f"collected/{file}", lambda rows: [*rows, rows[-1]])
            )
    columns: dict[str, Callable[[list[str]], list[str]]] = {
        "a column twice": lambda rows: [f"{row},{row.split(',')[-1]}" for row in rows],
        "a row too long": lambda rows: [*rows, rows[-1] + ",1"],
        "a row too short": lambda rows: [*rows, rows[-1].rpartition(",")[0]],
        "an open quote": lambda rows: [*rows, '"' + rows[-1]],
        "a row twice": lambda rows: [*rows, rows[-1]],
        "a NUL": lambda rows: [*rows, rows[-1] + "\0"],
        "the header alone": lambda rows: rows[:1],
        "a word for a number": lambda rows: [*rows, rows[-1].rpartition(",")[0] + ",much"],
    }
    tables = {"runs.csv": "compare", "a.csv": "compare tables", "predictions.csv": "import predictions"}
    for file, name in tables.items():
        for what, change in columns.items():
            if (what, name) != ("a row twice", "compare"):  # a run that has the numbers of another
                yield Case("mixed", name, f"{file}: {what}", _rows(file, change), harmless=False)


def _rows(file: str, change: Callable[[list[str]], list[str]]) -> Fault:
    def fault(folder: Path) -> None:
        path = folder / file
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return fault


# ---- kinds: what is said on the command line

WHOLE = ("-1", "1" + "0" * 400, "")
SHARE = ("-1", "nan", "inf", "1e400", "")
TEXT = ("", "x" * 5000, "no/such", "\udcff")
# Options that take some of these in good faith.
FAIR: dict[str, tuple[str, ...]] = {
    "--seed": WHOLE[:2],
    "--true-difference": ("-1",),
    "--correlation": ("-1",),
    "--follow": WHOLE[1:2],
    "--image": TEXT,
}


def options() -> Iterator[Case]:
    """Every option of every command with values that it cannot have."""
    import typer

    from twinrun.cli.app import app

    seen = set()
    for name, command in COMMANDS.items():
        parser: Any = typer.main.get_command(app)
        for word in command.words:
            parser = getattr(parser, "commands", {}).get(word, parser)
        for option in parser.params:
            long, at = max(option.opts, key=len), command.before_program
            key = (long, option.help or parser.name, at == len(command.words))
            if key in seen or option.param_type_name != "option" or option.is_flag or not long.startswith("--"):
                continue
            seen.add(key)
            annotation = option.type_descriptor.annotation
            values = WHOLE if annotation is int else SHARE if annotation in (float, list[float]) else TEXT
            for value in values:
                if value in FAIR.get(long, ()):
                    continue
                makes = long in ("--out", "--json", "--save") and value in ("\udcff", "no/such")  # a good place
                makes |= long == "--image"  # as the nodes see it, which nobody else can
                codes = REFUSED | {0} if makes else REFUSED if values is TEXT else frozenset({2})
                words = command.with_words(f"{long}={value}")
                yield Case("option", name, f"{long} {value[:12]!r}", words=words, codes=codes, harmless=values is TEXT)


# Where in the words of a command a name stands.
NAMED = {"train": 1, "train-chunk": 1, "locate": 2, "audit": 1, "forecast": 1, "cost": 1, "probe": 1, "compare": 1,
         "compare twins": 2, "power twins": 1, "import": 1, "fetch": 2, "reanalyze": 1}  # fmt: skip
MADE = {"collect": "collected", "analyze": "analysis", "report": "report", "crate": "export/ro-crate", "train": "mine",
        "export": "export/tensorboard", "compare page": "page", "import": "imported/collected", "reanalyze": "again",
        "twins": "twins", "prepare": "prepared/digits", "slurm": "slurm"}  # fmt: skip
PLACES = {"export": "--out", "crate": "--out", "train": "--out", "compare page": "--out", "import": "--out",
          "twins": "--out", "reanalyze": "--out", "audit": "--json", "forecast": "--json",
          "locate program": "--json"}  # fmt: skip


def names() -> Iterator[Case]:
    """Names of runs, tasks and files that are not there; the user's own folders and files as places of output."""
    for name, at in NAMED.items():
        words = COMMANDS[name].words
        for value in ("", "digit", "a/b/0/det_9", "\udcff", "x" * 5000, "../..", "/dev/zero", "-", "a\nb", "\x1b[31m"):
            given = (*words[:at], value, *words[at + 1 :])
            yield Case("name", name, repr(value[:12]), words=given, harmless=False)
    for name, out in MADE.items():
        for what, change in {"holds": _holds_file, "is": _is_file, "dangles": _dangles}.items():
            yield Case("output", name, f"{out} {what}", _at(out, change), codes=REFUSED | {0})
    for name, option in PLACES.items():
        # `train --out runs` is what `train` does.
        for value in (".", "params.yaml", "params.yaml/x", *(["runs"] * (name != "train")), "/proc/x", "pipe"):
            words = COMMANDS[name].with_words(option, value)
            yield Case("output", name, f"{option} {value}", _params_and_pipe, words, REFUSED | {0})


def _params_and_pipe(folder: Path) -> None:
    (folder / "params.yaml").write_text("study: mine\n")
    os.mkfifo(folder / "pipe")


def _at(place: str, change: Fault) -> Fault:
    return lambda folder: change(folder / place)


def _holds_file(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "mine.txt").write_text("mine")


def _is_file(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def _dangles(path: Path) -> None:
    _is_file(path)
    path.unlink()
    path.symlink_to("nowhere")
