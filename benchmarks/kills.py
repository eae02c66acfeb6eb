"""Commands killed with -9 at random moments and given again: the same fingerprints, and nothing lost?

python benchmarks/kills.py [COMMAND ...] [--kills 20] [--seed 0] [--out benchmarks/kills.csv]

Each of `prepare`, `train`, `sweep`, `collect`, `repro` (`dvc repro`) and `repro_train` (`dvc repro train`, killed in
the second after a run was finished: it is not in dvc.lock yet) works on a tiny study of the sample data in a folder of
its own. Half of the kills end the command's process alone, half its children, too. Then the same command is given until
it ends well (one that finds a run held by a child of the killed one ends with 5, and is given again). A kill is passed
when every file that is a pure function of code, data and params has the bytes that it has without a kill, nothing
temporary is left, DVC has nothing more to do (after `sweep` and `repro`), and no run that was finished before the kill
was trained again, which shows in what it measured (but by `train`, which trains what it is told). The column `again`
counts those that were, among them, of DVC's commands, those that were not in dvc.lock yet: DVC removes and trains them
again, which is no fault here. In `train` every epoch leaves a checkpoint. Rows are appended to the file of results;
exit 1 where a kill was not passed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twinrun.study.pins import clean_environment

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "command", "seed", "number", "whole_group", "killed_after_s", "of_s", "tries", "runs_before", "again", "verdict",
)  # fmt: skip
RUN = "digits/sgd/0/det_1"
STUDY = """
schema: 1
study: kills
grid: {tasks: [digits], optimizers: [sgd], seeds: [0], runs: [det_1, det_2, init_1]}
execution: {device: cpu, noise: auto, precision: fp32, fill_uninitialized_memory: false}
tasks:
  digits:
    title: Digits
    data: {reader: cifar10, source: data/sample/digits.tar.gz, image_size: 8}
    model: {name: preactresnet18, width: 0.0625}
    recipe: {epochs: 4, batch_size: 128, heads_every: 1, metric: accuracy}
    optimizers:
      sgd: {lr: 0.05, momentum: 0.9, schedule: {kind: cosine, t_max_epochs: 4}}
"""
TRAIN = f"""
from pathlib import Path
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.records import current_code_digest
from twinrun.training.loop import Options, train_run
params = read_params(Path("params.yaml"), Path())
train_run(params, params.find("{RUN}"), Layout(Path()), current_code_digest(), Options(checkpoint_seconds=0.0))
"""
TWINRUN = [sys.executable, "-m", "twinrun"]
BUSY = 5


@dataclass(frozen=True)
class Command:
    """What is killed, what it begins with, and which files it makes."""

    words: list[str]
    makes: tuple[str, ...]
    needs: tuple[str, ...] = ()  # commands that have run before
    exact: tuple[str, ...] = field(default=())  # patterns of files that must have the same bytes
    at_record: bool = False  # killed within a second after a run was finished, and not at any moment


RECORDS = ("runs/*/*/*/*/record.json", "runs/*/*/*/*/*.csv", "runs/*/*/*/*/*.npz", "runs/*/*/*/*/*.safetensors")
PREPARED = ("prepared/*/*",)
COLLECTED = ("collected/study.json", "collected/results.csv", "collected/curves.csv", "collected/*/*")
COMMANDS = {
    "prepare": Command([*TWINRUN, "prepare"], ("prepared",), exact=PREPARED),
    "train": Command([sys.executable, "-c", TRAIN], ("runs", "work"), ("prepare",), (f"runs/{RUN}/[!m]*",)),
    "sweep": Command([*TWINRUN, "sweep", "--jobs", "2"], ("runs", "work", "dvc.lock"), ("prepare",), RECORDS),
    "collect": Command([*TWINRUN, "collect"], ("collected",), ("prepare", "sweep"), COLLECTED),
    "repro": Command(
        [sys.executable, "-m", "dvc", "repro"],
        ("prepared", "runs", "work", "collected", "located", "analysis", "report", "dvc.lock", ".dvc/cache"),
        exact=(*PREPARED, *RECORDS, *COLLECTED),
    ),
    "repro_train": Command(
        [sys.executable, "-m", "dvc", "repro", "train"],
        ("runs", "work", "dvc.lock", ".dvc/cache"),
        ("prepare",),
        RECORDS,
        at_record=True,
    ),
}  # fmt: skip


def environment(study: Path) -> dict[str, str]:
    return clean_environment() | {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(study / "src"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(study / ".dvc/tmp/site"),
        "GIT_CEILING_DIRECTORIES": str(study.parent),
    }


def make_study(study: Path) -> None:
    for name in ("src", "datastore", ".dvc", "dvc.yaml", "data.dvc", "models", ".dvcignore", ".gitignore"):
        ignore = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, study / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, study / name)
    (study / "params.yaml").write_text(STUDY)
    subprocess.run(["git", "init", "--quiet"], cwd=study, check=True)
    give(study, [sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"])


def give(study: Path, words: list[str]) -> int:
    """Run a command to its end, again while a child of a killed one holds something; how often it was given."""
    for number in range(1, 61):
        done = subprocess.run(words, cwd=study, env=environment(study), capture_output=True, text=True, check=False)
        busy = "Unable to acquire lock" in done.stderr or "being blocked" in done.stderr
        if not done.returncode:
            return number
        if done.returncode != BUSY and not busy:
            sys.exit(f"{words}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        time.sleep(0.5)
    sys.exit(f"{words}: busy for half a minute after the kill")


def clear(study: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = study / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def contents(study: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    files = [path for pattern in patterns for path in study.glob(pattern) if path.is_file()]
    return {str(path.relative_to(study)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def left_behind(study: Path) -> list[str]:
    names = ("**/.*.tmp", "**/.*.old", "**/*.part", "work/**/checkpoint*")
    found = {path for name in names for path in study.glob(name) if not path.is_relative_to(study / ".dvc")}
    return sorted(str(path.relative_to(study)) for path in found)


def finished(study: Path) -> dict[str, str]:
    """What tells each finished run from one that was trained again: the times that it measured."""
    stats = {}
    for path in study.glob("runs/*/*/*/*/record.json"):
        stats["/".join(path.parent.parts[-4:])] = (path.parent / "measured.json").read_text()
    return stats


def await_record(study: Path, chance: random.Random) -> float:
    """Wait until some run is finished; seconds from then to the kill."""
    number = chance.randint(1, 3)
    while len(list(study.glob("runs/*/*/*/*/record.json"))) < number:
        time.sleep(0.005)
    return chance.uniform(0, 1)


def locked(study: Path) -> str:
    """What DVC knows."""
    return (study / "dvc.lock").read_text() if (study / "dvc.lock").is_file() else ""


def verdict(study: Path, name: str, reference: Mapping[str, str], lost: Sequence[str]) -> str:
    now = contents(study, COMMANDS[name].exact)
    if other := sorted(file for file in {*reference, *now} if reference.get(file) != now.get(file)):
        return f"other bytes: {' '.join(other)}"
    if lost:
        return f"trained again: {' '.join(lost)}"
    if left := left_behind(study):
        return f"left behind: {' '.join(left)}"
    if name in ("sweep", "repro", "repro_train"):
        words = [sys.executable, "-m", "dvc", "status", *([] if name == "repro" else ["train"])]
        done = subprocess.run(words, cwd=study, env=environment(study), capture_output=True, text=True, check=True)
        if "up to date" not in done.stdout:
            return f"DVC has more to do: {' '.join(done.stdout.split())[:200]}"
    return "same"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], help="default: all")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="a CSV to append to")
    arguments = parser.parse_args()
    passed = True
    for name in arguments.commands or COMMANDS:
        with tempfile.TemporaryDirectory(prefix="twinrun-kills-") as folder:
            study, command = Path(folder), COMMANDS[name]
            make_study(study)
            for step in command.needs:
                give(study, COMMANDS[step].words)
            give(study, command.words)  # the first loads what the later ones find
            clear(study, command.makes)
            begin = time.perf_counter()
            give(study, command.words)
            duration = time.perf_counter() - begin
            reference = contents(study, command.exact)
            assert reference, f"{name} made nothing of {command.exact}"
            chance = random.Random(f"{name} {arguments.seed}")
            for number in range(1, arguments.kills + 1):
                clear(study, command.makes)
                moment, group = chance.uniform(0, 1.05) * duration, number % 2 == 0
                child = subprocess.Popen(
                    command.words, cwd=study, env=environment(study), start_new_session=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                if command.at_record:
                    moment = await_record(study, chance)
                time.sleep(moment)
                if group:
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    child.kill()
                child.wait()
                before, lock = finished(study), locked(study)
                tries = give(study, command.words)
                after = finished(study)
                # `train` trains the run that it is told, whether it is there or not.
                again = [run for run, times in before.items() if name != "train" and after.get(run) != times]
                unknown = [
                    run for run in again if name.startswith("repro") and f"train@{run.replace('/', '-')}:" not in lock
                ]
                said = verdict(study, name, reference, [run for run in again if run not in unknown])
                passed &= said == "same"
                seconds = (f"{moment:.2f}", f"{duration:.2f}")
                row = (name, arguments.seed, number, group, *seconds, tries, len(before), len(again), said)
                print(*row, flush=True)
                if arguments.out:  # each at once, so that a campaign may be broken off
                    fresh = not arguments.out.exists()
                    with arguments.out.open("a", newline="") as stream:
                        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, row] if fresh else [row])
    sys.exit(not passed)


if __name__ == "__main__":
    main()
