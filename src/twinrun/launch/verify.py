"""`twinrun verify`: train deterministic runs again in fresh processes and compare every epoch's fingerprint."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.progress import Progress
from twinrun.study.documents import read_document
from twinrun.study.errors import IncompleteError, MismatchError, ResourceError, TwinrunError, plural
from twinrun.study.files import write_json
from twinrun.study.flags import INSTRUCTION_SET
from twinrun.study.grid import Run
from twinrun.study.layout import RECORD, Layout
from twinrun.study.params import Params
from twinrun.study.records import Record, Sha256, read_record

EXPECTED_SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """One retrained run against one source of fingerprints (`expected` or `record`)."""

    run: str
    against: str
    epochs: int
    first_difference: str | None  # "initialization", "epoch 3" or None: equal

    @property
    def line(self) -> str:
        """For people and for scripts: run, source, epochs compared, outcome, separated by tabs."""
        outcome = f"differs first at {self.first_difference}" if self.first_difference else "equal"
        return f"{self.run}\t{self.against}\t{plural(self.epochs, 'epoch')}\t{outcome}"


def select(params: Params, layout: Layout, ids: Sequence[str], *, first: bool, replay: bool) -> list[Run]:
    """The named runs, else every deterministic one; with `replay` also every one whose emulated noise is recorded.

    Of the arm `det` the first of each cell: the report holds the others against it. With `first`, one run per task,
    optimizer and arm.
    """
    if ids:
        return [params.find(run_id) for run_id in ids]
    alike = {run.cell: run for run in reversed(params.runs) if run.arm == "det"}
    wanted = [
        run
        for run in params.runs
        if (alike[run.cell] == run if run.arm == "det" else not run.free_noise)
        or (replay and _has_emulated_noise(layout.run(run)))
    ]
    if not first:
        return wanted
    chosen: dict[tuple[str, str, str], Run] = {}
    for run in wanted:
        chosen.setdefault((run.task, run.optimizer, run.arm), run)
    return list(chosen.values())


def _has_emulated_noise(folder: Path) -> bool:
    try:
        return read_record(folder).noise.entropy is not None
    except ResourceError:
        raise
    except TwinrunError:
        return False


def retrain(
    params: Params,
    root: Path,
    runs: list[Run],
    *,
    params_file: Path,
    jobs: int,
    epochs: int | None,
    device: str | None,
    prefix: Sequence[str] = (),
    gpus: Sequence[str] = (),
) -> dict[str, Record]:
    """Train `runs` again, outside the study folder, and return their records by id.

    Each process starts from nothing, never from a worker server: that the bits do not depend on what a process did
    before is part of what is verified. With `gpus`, the processes take turns on them.

    Raises IncompleteError when one cannot be trained.
    """
    layout = Layout(root)
    with tempfile.TemporaryDirectory(prefix="twinrun-verify-") as folder:
        out = Path(folder)
        options = ["--params", str(params_file), "--out", str(out)]
        options += ["--device", device] if device else []
        options += ["--stop-after", str(epochs)] if epochs else []

        def arguments(run: Run) -> list[str]:
            return [*options, "--replay", str(layout.run(run))] if run.free_noise else options

        with Progress("verify", len(runs)) as progress:

            def note(finished: Finished) -> None:
                progress.advance(finished.run.id + (" failed" if finished.code else ""))

            finished = train_processes(
                runs, root=root, jobs=jobs, arguments=arguments, done=note, prefix=prefix, gpus=gpus,
                cpu_bits=params.execution.cpu_bits,
            )  # fmt: skip
        failed = [item for item in finished if item.code]
        if failed:
            lines = "\n".join(f"  {item.run.id} (exit {item.code}): {item.message}" for item in failed)
            raise IncompleteError(f"{len(failed)} of {len(runs)} runs could not be trained again:\n{lines}")
        return {run.id: read_record(Layout(root, out).run(run)) for run in runs}


def compare(layout: Layout, runs: list[Run], again: dict[str, Record], epochs: int | None) -> list[Comparison]:
    """Hold retrained records against expected/ and against the study's own records.

    The caller decides what a difference means. Raises MismatchError when there is a source for a run, but one that was
    made for something else or was tampered with.
    """
    expected = read_expected(layout)
    comparisons = []
    for run in runs:
        new = again[run.id]
        entry = expected.get(run.id)
        here = new.flags.get(INSTRUCTION_SET)
        if entry and entry["device"] == new.device and here is None:
            for key, digest in (("params", new.params_digest), ("data", new.data_digest)):
                if entry[key] != digest:
                    raise MismatchError(
                        f"{layout.expected}: {run.id} was noted with other {key} than it has now",
                        "go back to them, or note the new fingerprints with `twinrun verify --write-expected`",
                    )
            comparisons.append(_compare(new, "expected", entry["initial"], entry["epochs"], epochs))
        if not os.path.lexists(layout.run(run) / RECORD):
            continue  # not trained in this folder
        try:
            old = read_record(layout.run(run))
        except ResourceError:
            raise
        except TwinrunError as error:
            raise MismatchError(f"{run.id}: its record cannot be compared: {error.message}", error.hint) from error
        if here is not None and (there := old.flags.get(INSTRUCTION_SET, here)) != here:
            raise MismatchError(
                f"{run.id}: cpu_bits: this_cpu, and its record is of another processor: {there}; here it is {here}",
                "verify it where it was trained; only `cpu_bits: anywhere` promises the same bits on both",
            )
        if (old.params_digest, old.data_digest, old.device) == (new.params_digest, new.data_digest, new.device):
            comparisons.append(_compare(new, "record", old.initial_fingerprint, old.fingerprints, epochs))
    return comparisons


def _compare(new: Record, against: str, initial: str, noted: list[str], epochs: int | None) -> Comparison:
    wanted = noted[:epochs]
    first = None
    if new.initial_fingerprint != initial:
        first = "initialization"
    elif new.fingerprints != wanted:
        pairs = zip_longest(new.fingerprints, wanted)
        first = f"epoch {next(epoch for epoch, (a, b) in enumerate(pairs, 1) if a != b)}"
    return Comparison(new.run, against, len(wanted), first)


def judge(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> str:
    """The sentence of success.

    Raises IncompleteError when a run has nothing to be compared with, MismatchError when a comparison differs.
    """
    compared = {comparison.run for comparison in comparisons}
    alone = [run.id for run in runs if run.id not in compared]
    if alone:
        raise IncompleteError(
            f"nothing to compare with for {', '.join(alone)}",
            "expected/ is for other params, data or device, and the runs are not in runs/: train them first",
        )
    different = [comparison for comparison in comparisons if comparison.first_difference]
    if different:
        raise MismatchError(
            f"{len(different)} of {len(comparisons)} comparisons differ, the first: {different[0].run} against "
            f"{different[0].against} at {different[0].first_difference}",
            "`twinrun doctor` says what in this machine may change the bits",
        )
    return f"{len(comparisons)} comparison{',' if len(comparisons) == 1 else 's, all'} equal to the last bit"


class ExpectedRun(BaseModel):
    """What a deterministic run is expected to give."""

    params: Sha256
    data: Sha256
    device: str
    initial: Sha256
    epochs: list[Sha256]
    metrics: dict[str, float | None] | None = None


class ExpectedFile(BaseModel):
    """expected/fingerprints.json."""

    schema_version: Literal[1] = Field(alias="schema")
    runs: dict[str, ExpectedRun]


def read_expected(layout: Layout) -> dict[str, dict[str, Any]]:
    """The committed fingerprints by run id; empty when there are none."""
    if not os.path.lexists(layout.expected):
        return {}
    again = "restore the committed file, or write it with `twinrun verify --write-expected`"
    content = read_document(layout.expected, ExpectedFile, "the fingerprints that `twinrun verify` expects", again)
    return {run_id: run.model_dump() for run_id, run in content.runs.items()}


def write_expected(layout: Layout, records: dict[str, Record]) -> None:
    """Note the fingerprints of deterministic `records` as those to expect from now on."""
    runs = {
        run_id: {
            "params": record.params_digest,
            "data": record.data_digest,
            "device": record.device,
            "initial": record.initial_fingerprint,
            "epochs": record.fingerprints,
            "metrics": record.metrics.model_dump() if record.metrics else None,
        }
        for run_id, record in records.items()
    }
    write_json(layout.expected, {"schema": EXPECTED_SCHEMA, "machine": platform.machine(), "runs": runs})
