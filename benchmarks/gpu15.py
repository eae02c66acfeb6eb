"""Runs the parts of benchmarks/gpu15.sh in order: each with its own limit and log, packed after each, resumable.

Its state is in a folder that a second call finds again: what each part leaves, and which parts are done. After each
part everything that the parts left is packed into at most eight files of at most 15 MiB, 60 together, so that nothing
is lost when the machine goes. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

FILES, FILE_BYTES, ALL_BYTES = 8, 15 << 20, 60 << 20  # that may come back from the machine; one file is the table
GRACE = 5.0  # seconds that a command has to end by itself before it is killed; part of its limit
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """`commands` one after the other, within `seconds` together.

    A command that starts with & goes on in the background; `waits`: for it. `keeps`: patterns of files in the state
    that are packed, too, whether the part is done or not. `answers`: exit codes that are no failure.
    """

    name: str
    seconds: float
    commands: list[list[str]]
    waits: bool = False
    keeps: tuple[str, ...] = ()
    answers: tuple[int, ...] = (0,)


DIFFERS = (0, 4)  # what finds a difference exits with 4
HOUR = 3600.0


class Parts:
    """The parts of one call; with device `cpu` the same on a small scale, for trying the script."""

    def __init__(self, device: str, data: Path | None, state: Path) -> None:
        self.device, self.data, self.state, self.out = device, data, state, state / "out"
        self.small = device == "cpu"

    def short(self) -> list[Part]:
        """A quarter of an hour: what must be known, within 470 seconds, then what there is still time for."""
        cifar, jobs, prepare = self.state / "cifar10", "2" if self.small else "4", []
        if self.data:
            # What was packed before the last call's end costs a moment.
            prepare = [Part("prepare", 5, [self.cifar10("0", "42", "314"), ["&", *twinrun(cifar, "prepare")]])]
        listed = [
            Part("machine", 25, [self.check("machine")]),
            *prepare,
            Part("determinism", 95, [self.check("determinism")]),
            Part("resume", 25, [self.check("resume")]),
            Part("throughput", 45, self.throughput("--seconds", "1", "--rounds", "3")),
            # Half a second each, so that six blocks have room; a block that is whole is kept when the part is stopped.
            self.ladder("preactresnet18", 140, "--seconds", "0.5", "--warmup", "0.5"),
            Part("energy", 25, [self.check("energy")]),
        ]
        sweep = [twinrun(cifar, "sweep", "--no-record", "--jobs", jobs), twinrun(cifar, "collect")]
        keeps = kept("cifar10")
        if self.data:
            listed.append(Part("cifar10", 110, [twinrun(cifar, "prepare"), *sweep], waits=True, keeps=keeps))
        mobilenet = self.ladder("mobilenet_v3_large", 140, "--seconds", "0.5", "--warmup", "0.5")
        rest = [mobilenet, Part("engines", 90, [self.check("engines")]), self.audit(60)]
        if self.data:
            pair = twinrun(cifar, "locate", "cifar10/sgd/0/nd_1", "nd_2")
            seeds = self.cifar10("0", "42", "314", "3407", "180698")
            rest.insert(1, Part("locate", 60, [pair], answers=DIFFERS, keeps=keeps))
            rest.append(Part("seeds", 120, [seeds, twinrun(cifar, "prepare"), *sweep], keeps=keeps))
        listed += rest
        # A machine without a card is slow, and its limits are not what is tried.
        return [replace(part, seconds=8 * part.seconds) for part in listed] if self.small else listed

    def long(self) -> list[Part]:
        """The same at length, and studies of 70 runs on real images, from packing to report."""
        tests = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-m",
            "cuda",
            "-n",
            "0",
            str(HERE.parent / "tests/training/test_cuda.py"),
        ]
        sweeping = bench("sweeping.py", "--device", self.device, "--out", str(self.out / "sweeping" / "sweeping.json"))
        sweeping += ["--jobs", "2", "--runs", "2", "--epochs", "1", "--rounds", "1"] if self.small else []
        listed = [
            Part("machine", 60, [self.check("machine")]),
            *([] if self.small else [Part("tests", HOUR, [tests])]),
            Part("throughput", HOUR, self.throughput("--seconds", "5", "--rounds", "5")),
            Part("sweeping", HOUR, [sweeping]),
            *(self.ladder(model, HOUR) for model in ("preactresnet18", "mobilenet_v3_large", "resnet18")),
            Part("energy", 120, [self.check("energy")]),
            Part("engines", 300, [self.check("engines")]),
            self.audit(300),
        ]
        for task, jobs in {"breast": "1", "cracks": "4", "cifar10": "4"}.items() if self.data else ():
            name = f"evidence_{task}"  # breast alone on the card, so that its energy is known
            study = self.state / name
            words = [["prepare"], ["plan", "--estimate"], ["sweep", "--no-record", "--jobs", jobs], ["collect"],
                     ["locate", "--all"], ["analyze"], ["report"]]  # fmt: skip
            make = bench("evidence.py", task, str(self.data), str(study), "--device", self.device)
            commands = [make, *(twinrun(study, *some) for some in words)]
            listed.append(Part(name, 6 * HOUR, commands, keeps=(*kept(name), f"{name}/report/**/*")))
        return listed

    def check(self, name: str) -> list[str]:
        """One of gpu15_checks.py; what it works on is in the state, what it leaves in `out`."""
        folder, out = str(self.state / name), str(self.out / name)
        return bench("gpu15_checks.py", name, folder, "--device", self.device, "--out", out)

    def cifar10(self, *seeds: str) -> list[str]:
        """Makes the study of CIFAR-10 with these seeds."""
        runs = ["--optimizers", "sgd", "--runs", "det_1", "det_2", "nd_1", "nd_2", "nd_3", "--seeds", *seeds]
        epochs = ["--device", self.device, "--epochs", "1" if self.small else "5"]
        return bench("evidence.py", "cifar10", str(self.data), str(self.state / "cifar10"), *epochs, *runs)

    def throughput(self, *sizes: str) -> list[list[str]]:
        """In both precisions, as cards are used."""
        if self.small:
            sizes = ("--seconds", "0.1", "--rounds", "1", "--width", "0.0625", "--images", "256")
        layout = [] if self.small else ["--channels-last"]
        return [
            bench("throughput.py", "--device", self.device, "--precision", precision, *layout, *sizes,
                  "--out", str(self.out / "throughput" / f"{precision}.json"))
            for precision in (["tf32"] if self.small else ["tf32", "bf16"])
        ]  # fmt: skip

    def ladder(self, model: str, seconds: float, *options: str) -> Part:
        """`twinrun cost`, in two steps, so that a part that is stopped has printed a table."""
        study = self.state / f"ladder_{model}"
        options = ("--seconds", "0", "--warmup", "0") if self.small else options
        blocks = [
            twinrun(study, "cost", model, *options, "--blocks", n) for n in (("1",) if self.small else ("3", "6"))
        ]
        make = bench("gpu_study.py", str(study), "--device", self.device, "--task", model)
        return Part(f"ladder_{model}", seconds, [make, *blocks], keeps=(f"ladder_{model}/cost/*",))

    def audit(self, seconds: float) -> Part:
        """Of the study that its ladder has made."""
        file = str(self.out / "audit" / "audit.json")
        command = twinrun(self.state / "ladder_preactresnet18", "audit", "preactresnet18", "--json", file)
        return Part("audit", seconds, [command], answers=DIFFERS)


def bench(name: str, *options: str) -> list[str]:
    """A script of this folder."""
    return [sys.executable, str(HERE / name), *options]


def twinrun(study: Path, *words: str) -> list[str]:
    """A command of twinrun's in a study."""
    return ["env", "-C", str(study), sys.executable, "-m", "twinrun", *words]


def kept(study: str) -> tuple[str, ...]:
    """What comes back of a study."""
    names = ("params.yaml", "collected/**/*", "runs/**/*.json", "located/**/*", "work/located/**/*")
    return tuple(f"{study}/{name}" for name in names)


class Session:
    """One call: a budget of seconds, the state that calls share, and the folder for what comes back."""

    def __init__(self, state: Path, out: Path, limit: float, commit: str) -> None:
        self.state, self.out, self.end, self.commit = state, out, time.monotonic() + limit, commit
        self.background: list[subprocess.Popen[bytes]] = []
        for folder in (state / "out", state / "logs", out):
            folder.mkdir(parents=True, exist_ok=True)
        self.file = state / "parts.json"
        self.seen: dict[str, dict[str, float | str]] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def left(self) -> float:
        """Seconds of the budget."""
        return self.end - time.monotonic()

    def run(self, chosen: Sequence[Part], listed: Sequence[Part]) -> None:
        """Do what is chosen of all that is listed and not done, as long as there is time.

        What fails or is stopped does not hold up what follows: the next call tries it again.
        """
        try:
            for part in chosen:
                if self.done(part.name) or self.left() < 2 * GRACE:
                    continue
                self.do(part)
                self.pack(listed)
        finally:  # an interrupt, too
            for process in self.background:
                stop(process)
            self.pack(listed)

    def done(self, name: str) -> bool:
        """Whether the part has ended well, in this call or before."""
        return self.seen.get(name, {}).get("state") == "done"

    def do(self, part: Part) -> None:
        """Run the part's commands within its limit and what is left of the budget."""
        begin = time.monotonic()
        end = begin + min(part.seconds, self.left())
        (self.state / "out" / part.name).mkdir(exist_ok=True)
        state = "done"
        with (self.state / "logs" / f"{part.name}.txt").open("ab") as log:
            log.write(f"== {part.name}, {time.strftime('%H:%M:%S')}, commit {self.commit}\n".encode())
            log.flush()
            if part.waits:
                state = self.wait_for_background(end)
            for command in part.commands if state == "done" else []:
                if (state := self.command(command, log.fileno(), end, part.answers)) != "done":
                    break
            log.write(f"== {state} after {time.monotonic() - begin:.1f} s\n".encode())
        self.seen[part.name] = {"state": state, "seconds": round(time.monotonic() - begin, 1)}
        write(self.file, json.dumps(self.seen, indent=1).encode())

    def command(self, command: list[str], log: int, end: float, answers: Sequence[int]) -> str:
        """`done`, `stopped at its limit`, or `failed` with the exit code."""
        background = command[0] == "&"
        try:
            process = subprocess.Popen(command[background:], stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            os.write(log, f"{command[0]}: {error}\n".encode())
            return "failed: it cannot be started"
        if background:
            self.background.append(process)
            return "done"
        try:
            code = process.wait(max(0.1, end - GRACE - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "stopped at its limit"
        finally:
            stop(process)  # and the children that it left
        return "done" if code in answers else f"failed with exit code {code}"

    def wait_for_background(self, end: float) -> str:
        for process in self.background:
            try:
                if process.wait(max(0.1, end - GRACE - time.monotonic())):
                    return "failed: what it waits for has failed"
            except subprocess.TimeoutExpired:
                return "stopped at its limit"
        return "done"

    def pack(self, listed: Sequence[Part]) -> None:
        """Write everything that the parts left, and the table, into the folder that comes back."""
        table = self.table(listed)
        write(self.state / "out" / "table.txt", table.encode())
        archive = self.state / "results.tar.gz"
        whole = [*sorted((self.state / "logs").rglob("*")), *sorted((self.state / "out").rglob("*"))]
        for pattern in dict.fromkeys(pattern for part in listed for pattern in part.keeps):  # parts may share a study
            whole += sorted(self.state.glob(pattern))
        files = sorted((path for path in whole if path.is_file()), key=lambda path: path.stat().st_size)
        room, left_out = min((FILES - 1) * FILE_BYTES, ALL_BYTES) - (1 << 20), []
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for path in files:  # small ones first: what does not fit is large, and is named
                if archive.stat().st_size + path.stat().st_size > room:
                    left_out.append(str(path.relative_to(self.state)))
                    continue
                tar.add(path, path.relative_to(self.state))
        if left_out:
            table += f"left out, for want of room: {', '.join(left_out)}\n"
        content = archive.read_bytes()
        volumes = [content[at : at + FILE_BYTES] for at in range(0, len(content), FILE_BYTES)]
        for old in self.out.glob("results.tar.gz.*"):
            if int(old.suffix[1:]) >= len(volumes):
                old.unlink()
        for number, volume in enumerate(volumes):
            write(self.out / f"results.tar.gz.{number}", volume)
        write(self.out / "table.txt", table.encode())

    def table(self, listed: Sequence[Part]) -> str:
        """What each part came to: state, seconds, and the last line that it printed."""
        lines = [f"commit {self.commit}"]
        for part in listed:
            seen = self.seen.get(part.name, {"state": "not begun", "seconds": 0.0})
            lines.append(
                f"{part.name:25} {seen['seconds']:>6} s  {seen['state']:22} {self.last_line(part.name)}".rstrip()
            )
        return "\n".join(lines) + "\n"

    def last_line(self, name: str) -> str:
        log = self.state / "logs" / f"{name}.txt"
        text = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = [line.strip() for line in text if line.strip() and not line.startswith("== ")]
        return said[-1][:110] if said else ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and its children: asked first, killed after the grace."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE - 1)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def write(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help="Default: all, in order.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--long", action="store_true", help="The parts at length, without a limit.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--commit", default="")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    commit = arguments.commit or git.stdout.strip() or "unknown: set COMMIT"
    parts = Parts(arguments.device, arguments.data, arguments.state)
    listed = parts.long() if arguments.long else parts.short()
    if unknown := set(arguments.part) - {part.name for part in listed}:
        sys.exit(f"gpu15.sh: no part {', '.join(sorted(unknown))}; parts: {' '.join(part.name for part in listed)}")
    chosen = [part for part in listed if not arguments.part or part.name in arguments.part]
    limit = arguments.limit or (24 * HOUR if arguments.long else 470)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Session(arguments.state, arguments.out, limit, commit).run(chosen, listed)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        print((arguments.out / "table.txt").read_text(), end="")


if __name__ == "__main__":
    main()
