"""`twinrun locate`: the first place where two runs differ: epoch, step, operation; and how the difference grows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from twinrun.collect.first_difference import DifferingOperation, FirstDifference, Growth
from twinrun.inspect.lockstep import Message, Pair, Processes, Traced, ensure_space
from twinrun.study.errors import IncompleteError, MismatchError
from twinrun.study.grid import Run
from twinrun.study.layout import RECORD, Layout
from twinrun.study.params import Params
from twinrun.study.records import Record, current_code_digest, read_manifest, read_record

PREDICT_EVERY = 10  # steps: to predict all test examples takes as long as many steps
TRIES = 10  # of a step whose difference does not come again, as native noise may do


@dataclass(frozen=True)
class Recorded:
    """A run with its record and the folder it is in."""

    run: Run
    record: Record
    folder: Path


def resolve(params: Params, layout: Layout, first: str, second: str) -> tuple[Recorded, Recorded]:
    """The two runs that ids, record folders or labels (`nd_1`: of the other's cell, else of the first cell) name.

    Raises InputError for a run that is not in the grid, IncompleteError for one that is not trained.
    """
    cells = [word.rpartition("/")[0] for word in (first, second) if "/" in word and not (Path(word) / RECORD).is_file()]
    cells += [
        read_record(Path(word)).run.rpartition("/")[0] for word in (first, second) if (Path(word) / RECORD).is_file()
    ]
    cell = cells[0] if cells else params.runs[0].cell

    def recorded(word: str) -> Recorded:
        if (Path(word) / RECORD).is_file():
            record = read_record(Path(word))
            return Recorded(params.find(record.run), record, Path(word))
        run = params.find(word if "/" in word else f"{cell}/{word}")
        if not (layout.run(run) / RECORD).is_file():
            raise IncompleteError(f"{run.id} is not trained yet", f"`twinrun train {run.id}` does it")
        return Recorded(run, read_record(layout.run(run)), layout.run(run))

    return recorded(first), recorded(second)


def first_pairs(params: Params) -> dict[str, tuple[str, str] | None]:
    """For each task the pair that the report shows: the first cell's first deterministic and first free run."""
    pairs: dict[str, tuple[str, str] | None] = {}
    for task in params.grid.tasks:
        runs = [run for run in params.runs if run.task == task]
        runs = [run for run in runs if run.cell == runs[0].cell]
        fixed = next((run.id for run in runs if run.arm == "det"), None)
        free = next((run.id for run in runs if run.arm == "nd"), None)
        pairs[task] = (fixed, free) if fixed and free else None
    return pairs


def check_pair(params: Params, layout: Layout, first: Recorded, second: Recorded) -> None:
    """Refuse runs that cannot be compared or trained again as they were: MismatchError naming all that differs."""
    a, b = first.record, second.record
    what = {
        "task": (a.task, b.task),
        "optimizer": (a.optimizer, b.optimizer),
        "params": (a.params_digest, b.params_digest),
        "code": (a.code_digest, b.code_digest),
        "data": (a.data_digest, b.data_digest),
        "device": (a.device, b.device),
    }
    differs = [f"{name} ({was[:12]} and {other[:12]})" for name, (was, other) in what.items() if was != other]
    if differs:
        raise MismatchError(
            f"{a.run} and {b.run} are of different {', '.join(differs)}: they part before the first step",
            "only runs of the same task, optimizer, params, code, data and device can be followed to where they part",
        )
    manifest = layout.prepared(a.task) / "manifest.json"
    if not manifest.is_file():
        raise IncompleteError(f"task {a.task} is not prepared", f"`twinrun prepare {a.task}` does it")
    now = {
        "params": (a.params_digest, params.run_digest(first.run)),
        "code": (a.code_digest, current_code_digest()),
        "data": (a.data_digest, read_manifest(manifest).digest),
    }
    changed = [f"{name} ({was[:12]}, now {other[:12]})" for name, (was, other) in now.items() if was != other]
    if changed:
        raise MismatchError(
            f"{a.run} and {b.run} were trained with other {', '.join(changed)}: they cannot be repeated",
            "go back to what they were trained with, or train both again",
        )


def differing_epoch(first: Record, second: Record) -> int | None:
    """The first epoch, from 1, after which the fingerprints differ; 0: before training; None: never."""
    if first.initial_fingerprint != second.initial_fingerprint:
        return 0
    pairs = zip_longest(first.fingerprints, second.fingerprints)
    return next((epoch for epoch, (a, b) in enumerate(pairs, 1) if a != b), None)


def locate(
    params: Params,
    layout: Layout,
    first: Recorded,
    second: Recorded,
    *,
    params_file: Path,
    follow: int,
    say: Callable[[str], None] = lambda text: None,
    begun: list[Processes] | None = None,
) -> FirstDifference:
    """Train both again in fresh processes, in lockstep, up to where they part and `follow` steps on.

    The processes are put into `begun`, for who wants to stop them.

    Raises what `check_pair` raises, before any work; DeviceError without the records' device, InputError
    when the disk has no room for what is handed over;
    MismatchError when a run trained again is not what its record says.
    """
    check_pair(params, layout, first, second)
    epoch = differing_epoch(first.record, second.record)
    if epoch is None:
        epochs = len(first.record.fingerprints)
        return _located(first, second, "none", [f"Their records agree before training and after all {epochs} epochs."])

    def command(index: int) -> list[str]:
        side = (first, second)[index]
        return [sys.executable, "-m", "twinrun", "follow-run", side.run.id, "--params", str(params_file),
                "--record", str(side.folder.resolve()), "--device", side.record.device]  # fmt: skip

    processes = Processes(command, layout.root, params.execution.cpu_bits)
    if begun is not None:
        begun.append(processes)
    with tempfile.TemporaryDirectory(prefix="twinrun-locate-") as folder, processes as sides:
        pair = Pair(sides[0], sides[1], Path(folder))
        return Search(first, second, pair, epoch, follow, say).run()


class Search:
    """One search over a pair of runs that stand before their first step."""

    def __init__(
        self, first: Recorded, second: Recorded, pair: Pair, epoch: int, follow: int, say: Callable[[str], None]
    ) -> None:
        self.runs, self.pair, self.follow, self.say = (first, second), pair, follow, say
        self.epoch = epoch  # the first whose end differs, by the records
        self.live = "native" in (first.record.noise.kind, second.record.noise.kind)
        self.how: list[str] = []
        self.before = 0

    def run(self) -> FirstDifference:
        """Epoch, step, operation, growth."""
        size = max(side["bytes"] for side in self.pair.hello)
        # Only digests pass between the runs, and then one tensor, or the weights, at a time.
        ensure_space(self.pair.folder, size, "a copy of the weights")
        for side, hello in zip(self.runs, self.pair.hello, strict=True):
            self._hold(side, "before training", side.record.initial_fingerprint, hello["initial"])
        if not self.live:  # native noise may part this pair in an epoch that ended equal in the records
            self._advance(max(self.epoch - 1, 0))
        step = self._differing_step()
        if step is None:
            self.how.append("No step of the repetition differed: the noise of these runs did not show again.")
            return _located(*self.runs, "none", self.how)
        self.say(f"epoch {step['epoch']} step {step['step']}")
        traced = self._operation()
        facts: dict[str, Any] = {"epoch": step["epoch"], "step": step["step"], "steps_before": self.before}
        facts |= {"parting": _placed(traced.first, self.before), "arithmetic": _placed(traced.arithmetic, self.before)}
        facts |= {"operations": traced.operations, "growth": self._grow(step)}
        return _located(*self.runs, "located" if traced.first else "step only", self.how, **facts)

    def _advance(self, epochs: int) -> None:
        """Train the epochs after which the records are equal, and hold them against the records."""
        if not epochs:
            return
        code = self.runs[0].record.code_digest
        own = [{"code": code, "fingerprints": side.record.fingerprints[:epochs]} for side in self.runs]
        for side, answer in zip(self.runs, self.pair.ask("advance", *own), strict=True):
            start = answer["start"]
            # A checkpoint is there by chance: what is located must not tell of it.
            self.say(
                f"{side.run.id} goes on from " + (f"its checkpoint after epoch {start}" if start else "its beginning")
            )
            self.how.append(f"{side.run.id} was trained again to the end of epoch {epochs}.")
            for epoch, reached in enumerate(answer["fingerprints"], start + 1):
                self._hold(side, f"after epoch {epoch}", side.record.fingerprints[epoch - 1], reached)
        self.before = epochs * self.pair.hello[0]["steps"]
        self.say(f"epochs 1 to {epochs} are equal")

    def _hold(self, side: Recorded, when: str, noted: str, reached: str) -> None:
        if noted != reached and side.record.noise.kind != "native":
            raise MismatchError(
                f"{side.run.id} trained again is {when} not what its record says",
                "`twinrun verify` says more; `twinrun doctor` what in this machine may change the bits",
            )

    def _differing_step(self) -> Message | None:
        while True:
            answers = self.pair.ask("step")
            if not all(answer["more"] for answer in answers):
                return None
            if answers[0]["digests"] != answers[1]["digests"]:
                return answers[0]
            self.before += 1
            if self.live and answers[0]["last"]:
                self.say(f"epoch {answers[0]['epoch']} is equal")

    def _operation(self) -> Traced:
        """The operation in which the step differs; native noise need not differ again at once."""
        wanted = [answer["digests"] for answer in self.pair.ask("digests")]
        for attempt in range(1, TRIES + 1):
            self.pair.ask("rewind")
            traced = self.pair.trace()
            if traced.first:
                again = [answer["digests"] for answer in self.pair.ask("digests")] == wanted
                if not again and not self.live:
                    raise MismatchError(
                        "the step done again gave other bits than at first", "`twinrun doctor` may say why"
                    )
                self.how.append(
                    "The step was done again with every operation looked at"
                    + (", and ended with the same bits." if again else f"; native noise showed in try {attempt}.")
                )
                return traced
            if not self.live:
                break
        self.how.append("No operation of the step differed when it was done again.")
        return traced

    def _grow(self, step: Message) -> list[Growth]:
        """How far they are apart after that step and the next; where an epoch ends, the records must say the same."""
        rows: list[Growth] = []
        answers, ended = [step, step], 0
        while True:
            predict = len(rows) % PREDICT_EVERY == 0 or len(rows) == self.follow or answers[0]["last"]
            rows.append(self._distance(len(rows), answers[0]["epoch"], predict))
            if answers[0]["last"]:
                if any(answers[0]["epoch"] > len(side.record.fingerprints) for side in self.runs):
                    break  # a record ends before: the run diverged or was stopped
                ended = answers[0]["epoch"]
                for side, answer in zip(self.runs, self.pair.ask("fingerprint"), strict=True):
                    self._hold(side, f"after epoch {ended}", side.record.fingerprints[ended - 1], answer["fingerprint"])
            if len(rows) > self.follow:
                break
            answers = self.pair.ask("step")
            if not all(answer["more"] for answer in answers):
                break
        if ended and not self.live:
            self.how.append(f"Both repetitions had the fingerprints of their records up to the end of epoch {ended}.")
        return rows

    def _distance(self, number: int, epoch: int, predict: bool) -> Growth:
        path = self.pair.folder / "weights.safetensors"
        loss = self.pair.only(0, "export", path=str(path), predict=predict)["loss"]
        answer = self.pair.only(1, "distance", path=str(path))
        return Growth(step=number, epoch=epoch, loss_first=loss, loss_second=answer.pop("loss"), **answer)


def _placed(parting: DifferingOperation | None, before: int) -> DifferingOperation | None:
    """A difference that is there when the step begins is none of an operation's phase."""
    if parting is None or parting.operation != "(state)":
        return parting
    of_weights = parting.tensor.startswith(("parameter ", "buffer "))
    phase = "initialization" if not before and of_weights else "between steps" if of_weights else "optimizer"
    return parting.model_copy(update={"phase": phase, "opaque": False})


def _located(first: Recorded, second: Recorded, outcome: str, how: list[str], **facts: Any) -> FirstDifference:
    record = first.record
    return FirstDifference(
        first=record.run,
        second=second.record.run,
        task=record.task,
        params_digest=record.params_digest,
        code_digest=record.code_digest,
        data_digest=record.data_digest,
        device=record.device,
        fingerprints=[side.record.final_fingerprint for side in (first, second)],
        outcome=outcome,  # type: ignore[arg-type]
        how=how,
        **facts,
    )
