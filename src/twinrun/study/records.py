"""The record of a run: what was computed, apart from what was measured; sealed, so that an edit shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from twinrun.study.checkout import CODE_PARTS
from twinrun.study.documents import Fraction, NotNegative, checked, read_document
from twinrun.study.errors import InputError, MismatchError, ResourceError
from twinrun.study.files import code_digest, digest, read_json, sha256_file, write_json
from twinrun.study.layout import COMPUTED_FILES, MEASURED, MODEL, RECORD, Layout

RECORD_SCHEMA = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Noise(_Block):
    """The implementation noise of a run."""

    kind: Literal["none", "native", "reorder", "ulp"]
    entropy: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None  # replays emulated noise bit for bit


class Metrics(_Block):
    """Test-set metrics of the last epoch; shares in [0, 1], the loss in nats."""

    accuracy: Fraction
    f1: Fraction | None  # binary: of class 1, null without one; else mean over the classes that the test set has
    auc: Fraction | None  # binary: of class 1; else macro one-versus-rest; null when the test set lacks a class
    loss: float


class Record(_Block):
    """What a run computed: a pure function of code, data, params, device and noise."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    run: str
    task: str
    optimizer: str
    seed: int
    arm: str
    replicate: int
    status: Literal["complete", "diverged"]
    params_digest: Sha256
    code_digest: Sha256
    data_digest: Sha256
    device: Literal["cpu", "cuda"]
    noise: Noise
    flags: dict[str, bool | int | str | None]  # numerics in force, read back from torch
    parameter_count: int
    initial_fingerprint: Sha256
    fingerprints: list[Sha256]  # after each epoch
    metrics: Metrics | None  # null when the run diverged
    note: str | None  # why and where it diverged
    files: dict[str, Sha256]  # the other computed files beside this one

    @property
    def named(self) -> str:
        """The id of the run that its cell, arm and replicate name."""
        return f"{self.task}/{self.optimizer}/{self.seed}/{self.arm}_{self.replicate}"

    @property
    def final_fingerprint(self) -> str:
        """The fingerprint after the last epoch that ran."""
        return self.fingerprints[-1] if self.fingerprints else self.initial_fingerprint


class Measured(_Block):
    """What a run measured: never the same twice. `null` means not measured."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    run: str
    record_sha256: Sha256  # ties this file to its record
    started: str  # UTC, ISO 8601
    finished: str
    train_seconds: NotNegative | None  # all epochs, synchronized; null when the run was resumed
    eval_seconds: NotNegative | None
    total_seconds: NotNegative | None
    energy_joules: NotNegative | None
    energy_note: str | None  # why it was not measured, or from what
    idle_watts: NotNegative | None = None  # power of the GPU before the run began
    resumed: bool
    attempts: Annotated[int, Field(ge=0)]
    shared: bool  # other runs were running on the machine at the same time
    host: dict[str, str | int | float | None]
    versions: dict[str, str]
    environment: dict[str, str]


def seal(body: dict[str, Any]) -> str:
    """The digest of a record without its own seal."""
    return digest({key: value for key, value in body.items() if key != "seal"})


def write_record(folder: Path, record: Record, measured: Measured) -> None:
    """Write record.json (sealed) and measured.json into `folder`."""
    body = record.model_dump(by_alias=True)
    write_json(folder / RECORD, body | {"seal": seal(body)})
    bound = measured.model_copy(update={"record_sha256": sha256_file(folder / RECORD)})
    write_json(folder / MEASURED, bound.model_dump(by_alias=True))


def read_record(folder: Path, *, check_files: bool = False) -> Record:
    """Read the record in `folder`.

    Raises MismatchError when it was edited (its seal is broken), is of another schema, or, with `check_files`,
    when a file beside it is missing or is not the one that was written.
    """
    path = folder / RECORD
    body = read_json(path)
    again = "remove the folder and train the run again"
    if not isinstance(body, dict) or body.get("schema") != RECORD_SCHEMA:
        version = body.get("schema") if isinstance(body, dict) else type(body).__name__
        raise MismatchError(f"{path}: record schema {version!r}, this version reads {RECORD_SCHEMA}", again)
    if body.pop("seal", None) != seal(body):
        raise MismatchError(f"{path}: the record was changed after it was written (its seal does not fit)", again)
    record = checked(body, path, Record, "a record of this version", again)
    if check_files:
        for name in (*COMPUTED_FILES, *({MODEL} & record.files.keys())):
            file = folder / name
            if not file.is_file() or sha256_file(file) != record.files.get(name):
                raise MismatchError(f"{file}: missing, or not the file that the record names", again)
    return record


def read_measured(folder: Path) -> Measured:
    """Read what was measured beside the record in `folder`, and check that it belongs to that record."""
    path = folder / MEASURED
    again = "remove the folder and train the run again"
    measured = read_document(path, Measured, "measurements of this version", again)
    if measured.record_sha256 != sha256_file(folder / RECORD):
        raise MismatchError(f"{path}: belongs to another record", again)
    return measured


class AttemptNote(BaseModel):
    """attempt.json in the work folder of a run that was begun."""

    model_config = ConfigDict(frozen=True)

    identity: str
    entropy: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    number: Annotated[int, Field(ge=1)]


class Manifest(BaseModel):
    """What describes a prepared task, as far as others than training read it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    classes: list[str]
    n_test: Annotated[int, Field(ge=0)]
    params_digest: Sha256
    digest: Sha256
    remarks: list[str]


def read_manifest(path: Path) -> Manifest:
    """The manifest of a prepared task; MismatchError names what is wrong with it."""
    again = f"run `twinrun prepare {path.parent.name}` again"
    return read_document(path, Manifest, "the manifest of a prepared task", again)


FINISHED = ("complete", "diverged")
WITHOUT_MODEL = "without its network, which keep_model asks for"


@dataclass(frozen=True)
class Expected:
    """What a record must be to count as the run of this study, here and now."""

    run: str
    params_digest: str
    code_digest: str
    data_digest: str | None  # None: the task is not prepared
    devices: tuple[str, ...]
    epochs: int
    model: bool = False  # whether it has to hold the trained network


def current_code_digest() -> str:
    """The digest of the imported package's code, as far as it can change a run's bits."""
    return code_digest(Path(__file__).parents[1], CODE_PARTS)


def prepared_digest(layout: Layout, task: str) -> str | None:
    """The digest of the task's data as they are prepared now; None: not prepared."""
    path = layout.prepared(task) / "manifest.json"
    return read_manifest(path).digest if path.is_file() else None


def agreed(folder: Path, expected: Expected) -> tuple[Record, Measured, dict[str, str]] | None:
    """The record in `folder`, and in what it is not as expected: the state that it then has, with the fault in words.

    None where there is no record. Raises MismatchError or InputError when it, or a file beside it, is damaged, and
    ResourceError when it cannot be read: that says nothing of the run. The one check of a record against its folder
    and its study, for `collect` as for what decides whether a run is to be trained.
    """
    if not (folder / RECORD).is_file():
        return None
    record, measured = read_record(folder, check_files=True), read_measured(folder)
    ids = {
        "its record is that of": record.run,
        "its measurements are those of": measured.run,
        "its record names another cell, arm or replicate than its id:": record.named,
    }
    faults: dict[str, list[str]] = {
        "other run": [f"{what} {run}" for what, run in ids.items() if run != expected.run][:1]
    }
    for what, theirs, ours in (
        ("params", record.params_digest, expected.params_digest),
        ("code", record.code_digest, expected.code_digest),
        ("data", record.data_digest, expected.data_digest),
    ):
        faults[f"other {what}"] = [] if theirs == ours else [f"made with other {what} ({what} digest)"]
    if record.device not in expected.devices:
        allowed = " or ".join(expected.devices)
        faults["other device"] = [f"trained on the device {record.device}, while execution.device is {allowed}"]
    if record.status == "complete" and len(record.fingerprints) != expected.epochs:
        faults["other length"] = [f"{len(record.fingerprints)} fingerprints in its record for {expected.epochs} epochs"]
    if expected.model and MODEL not in record.files:
        faults["without its model"] = [WITHOUT_MODEL]
    return record, measured, {state: "; ".join(words) for state, words in faults.items() if words}


def state_of(folder: Path, expected: Expected) -> str:
    """`complete`, `diverged`, `missing`, `damaged`, or in what the record is not as expected, such as `other data`."""
    try:
        there = agreed(folder, expected)
    except ResourceError:
        raise
    except (MismatchError, InputError):
        return "damaged"
    if there is None:
        return "missing"
    record, _, faults = there
    return next(iter(faults), record.status)
