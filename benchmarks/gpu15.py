"""Runs the parts of benchmarks/gpu15.sh in order: each with its own limit and log, packed after each, resumable.

Its state is in a folder that a second call finds again: what each part leaves, and which parts are done. After each
part everything that the parts left is packed into at most eight files of at most 15 MiB, so that nothing is lost when
the machine goes. Standard library only.
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

FILES, FILE_BYTES = 8, 15 << 20  # that may come back from the machine; one of them is the table
GRACE = 5.0  # seconds that a command has to end by itself before it is killed; part of its limit
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """`commands` one after the other, within `seconds` together; `then`: only when all before are done.

    A command that starts with & goes on in the background; `waits`: for it. `keeps`: patterns of files in the state
    that are packed, too, whether the part is done or not.
    """

    name: str
    seconds: float
    commands: list[list[str]]
    then: bool = False
    waits: bool = False
    keeps: tuple[str, ...] = ()


def parts(device: str, data: Path | None, state: Path) -> list[Part]:
    """The parts; with `cpu` the same on a small scale, for trying the script."""
    python, small = sys.executable, device == "cpu"
    out = state / "out"

    def bench(name: str, *options: str) -> list[str]:
        return [python, str(HERE / name), *options]

    def twinrun(study: Path, *words: str) -> list[str]:
        return ["env", "-C", str(study), python, "-m", "twinrun", *words]

    def throughput(precision: str) -> list[str]:
        sizes = ["--seconds", "1", "--rounds", "3"] if not small else [
            "--seconds", "0.1", "--rounds", "1", "--width", "0.0625", "--images", "256"]  # fmt: skip
        layout = [] if small else ["--channels-last"]
        file = out / "throughput" / f"{precision}.json"
        return bench("throughput.py", "--device", device, "--precision", precision, *layout, *sizes, "--out", str(file))

    def ladder(model: str) -> list[list[str]]:
        study = state / f"ladder_{model}"
        steps = ["--steps", "40", "--warmup", "20"] if not small else ["--steps", "1", "--warmup", "1"]
        blocks = range(1, 3 if small else 7)  # a block that is there costs a second
        return [
            bench("gpu_study.py", str(study), "--device", device, "--task", model),
            *(twinrun(study, "cost", model, *steps, "--blocks", str(count)) for count in blocks),
        ]

    cifar = state / "cifar10"
    grid = ["--optimizers", "sgd", "--seeds", "0", "42", "314", "--runs", "det_1", "det_2", "nd_1", "nd_2", "nd_3"]
    listed = [Part("machine", 30, [bench("gpu15_checks.py", "machine", str(out / "machine"), "--device", device)])]
    if data:
        study = bench("evidence.py", "cifar10", str(data), str(cifar), "--device", device, "--epochs", "5", *grid)
        listed.append(Part("prepare", 5, [study, ["&", *twinrun(cifar, "prepare")]]))

    def check(name: str) -> list[str]:
        return bench("gpu15_checks.py", name, str(state / name), "--device", device, "--out", str(out / name))

    listed += [
        Part("determinism", 95, [check("determinism")]),
        Part("resume", 25, [check("resume")]),
        Part("throughput", 45, [throughput("tf32"), *([] if small else [throughput("bf16")])]),
        Part("ladder", 130, ladder("preactresnet18"), keeps=("ladder_preactresnet18/cost/*",)),
        Part("energy", 20, [check("energy")]),
    ]
    if data:
        jobs = "2" if small else "4"
        # Packing that the last call's end has stopped goes on; what is packed costs a moment.
        sweep = twinrun(cifar, "sweep", "--no-record", "--jobs", jobs)
        commands = [twinrun(cifar, "prepare"), sweep, twinrun(cifar, "collect")]
        keeps = tuple(f"cifar10/{name}" for name in ("params.yaml", "collected/**/*", "runs/**/*.json", "located/**/*"))
        listed.append(Part("cifar10", 120, commands, waits=True, keeps=keeps))
    keeps = ("ladder_mobilenet_v3_large/cost/*",)
    listed.append(Part("ladder_mobilenet", 150, ladder("mobilenet_v3_large"), then=True, keeps=keeps))
    if data:
        listed.append(Part("locate", 60, [twinrun(cifar, "locate", "cifar10/sgd/0/nd_1", "nd_2")], then=True))
    subject = state / "ladder_preactresnet18"
    listed.append(Part("audit", 60, [twinrun(subject, "audit", "preactresnet18", "--json",
                                             str(out / "audit" / "audit.json"))], then=True))  # fmt: skip
    # A machine without a card is slow, and its limits are not what is tried.
    return [replace(part, seconds=8 * part.seconds) for part in listed] if small else listed


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
        """Do what is chosen of all that is listed and not done; what `then` says waits for the rest of the chosen."""
        for part in chosen:
            waiting = [p.name for p in chosen if not p.then and not self.done(p.name)] if part.then else []
            if self.done(part.name) or waiting or self.left() < 2 * GRACE:
                continue
            self.do(part)
            self.pack(listed)
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
                if (state := self.command(command, log.fileno(), end)) != "done":
                    break
            log.write(f"== {state} after {time.monotonic() - begin:.1f} s\n".encode())
        self.seen[part.name] = {"state": state, "seconds": round(time.monotonic() - begin, 1)}
        write(self.file, json.dumps(self.seen, indent=1).encode())

    def command(self, command: list[str], log: int, end: float) -> str:
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
            stop(process)
            return "stopped at its limit"
        stop(process)  # children that it left
        return "done" if code == 0 else f"failed with exit code {code}"

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
        for pattern in (pattern for part in listed for pattern in part.keeps):
            whole += sorted(self.state.glob(pattern))
        files = sorted((path for path in whole if path.is_file()), key=lambda path: path.stat().st_size)
        room, left_out = (FILES - 1) * FILE_BYTES - (1 << 20), []
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
                f"{part.name:18} {seen['seconds']:>6} s  {seen['state']:22} {self.last_line(part.name)}".rstrip()
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
    parser.add_argument("--limit", type=float, default=470.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--commit", default="")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    commit = arguments.commit or git.stdout.strip() or "unknown: set COMMIT"
    listed = parts(arguments.device, arguments.data, arguments.state)
    if unknown := set(arguments.part) - {part.name for part in listed}:
        sys.exit(f"gpu15.sh: no part {', '.join(sorted(unknown))}; parts: {' '.join(part.name for part in listed)}")
    chosen = [part for part in listed if not arguments.part or part.name in arguments.part]
    session = Session(arguments.state, arguments.out, arguments.limit, commit)
    session.run(chosen, listed)
    print((arguments.out / "table.txt").read_text(), end="")


if __name__ == "__main__":
    main()
