"""Records: written and read back, and every change after the writing shows."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from twinrun.study.errors import InputError, MismatchError, TwinrunError
from twinrun.study.files import sha256_file, write_json
from twinrun.study.layout import COMPUTED_FILES, MEASURED, RECORD
from twinrun.study.records import (
    Expected,
    Measured,
    Metrics,
    Noise,
    Record,
    read_manifest,
    read_measured,
    read_record,
    seal,
    state_of,
    write_record,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in COMPUTED_FILES:
        (tmp_path / name).write_text(name)
    record = Record(
        run="t/sgd/0/det_1", task="t", optimizer="sgd", seed=0, arm="det", replicate=1, status="complete",
        params_digest="a" * 64, code_digest="b" * 64, data_digest="c" * 64, device="cpu",
        noise=Noise(kind="none", entropy=None), flags={"cpu_threads": 1}, parameter_count=3,
        initial_fingerprint="d" * 64, fingerprints=["e" * 64, "f" * 64],
        metrics=Metrics(accuracy=0.5, f1=0.5, auc=None, loss=0.1), note=None,
        files={name: sha256_file(tmp_path / name) for name in COMPUTED_FILES},
    )  # fmt: skip
    measured = Measured(
        run="t/sgd/0/det_1", record_sha256="0" * 64, started="", finished="", train_seconds=1.5, eval_seconds=None,
        total_seconds=None, energy_joules=None, energy_note="why", resumed=False, attempts=1, shared=False, host={},
        versions={}, environment={},
    )  # fmt: skip
    write_record(tmp_path, record, measured)
    return tmp_path


def edit(file: Path, *, reseal: bool = False, **changes: object) -> None:
    body = json.loads(file.read_text()) | changes
    if reseal:
        body["seal"] = seal(body)
    write_json(file, body)


def test_round_trip(folder: Path) -> None:
    record = read_record(folder, check_files=True)
    assert record.final_fingerprint == "f" * 64
    assert read_measured(folder).train_seconds == 1.5


def test_edited_record_is_refused(folder: Path) -> None:
    edit(folder / RECORD, metrics={"accuracy": 0.99, "f1": 0.5, "auc": None, "loss": 0.1})
    with pytest.raises(MismatchError, match=r"record\.json: the record was changed after it was written"):
        read_record(folder)


def test_other_schema_is_refused(folder: Path) -> None:
    edit(folder / RECORD, reseal=True, schema=2)
    with pytest.raises(MismatchError, match="record schema 2, this version reads 1"):
        read_record(folder)


def test_foreign_key_is_refused(folder: Path) -> None:
    edit(folder / RECORD, reseal=True, extra=1)
    with pytest.raises(MismatchError, match="extra"):
        read_record(folder)


def test_record_that_is_no_mapping(folder: Path) -> None:
    (folder / RECORD).write_text("[1]")
    with pytest.raises(MismatchError, match="record schema 'list'"):
        read_record(folder)


@pytest.mark.parametrize("name", COMPUTED_FILES)
def test_changed_or_missing_sibling_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("changed")
    with pytest.raises(MismatchError, match=name):
        read_record(folder, check_files=True)
    (folder / name).unlink()
    with pytest.raises(MismatchError, match=name):
        read_record(folder, check_files=True)


def test_measurements_of_another_record_are_refused(folder: Path) -> None:
    edit(folder / RECORD, reseal=True, note="another")
    with pytest.raises(MismatchError, match=r"measured\.json: belongs to another record"):
        read_measured(folder)


def test_measurements_with_a_wrong_type_are_refused(folder: Path) -> None:
    edit(folder / MEASURED, attempts="many")
    with pytest.raises(MismatchError, match="attempts"):
        read_measured(folder)


def test_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"record\.json: no such file"):
        read_record(tmp_path)


def test_states(folder: Path) -> None:
    expected = Expected("t/sgd/0/det_1", "a" * 64, "b" * 64, "c" * 64, ("cpu",), 2)
    assert state_of(folder, expected) == "complete"
    assert state_of(folder / "none", expected) == "missing"
    for change, state in (
        ({"run": "t/sgd/0/nd_9"}, "other run"),
        ({"params_digest": "0" * 64}, "other params"),
        ({"code_digest": "0" * 64}, "other code"),
        ({"data_digest": "0" * 64}, "other data"),
        ({"data_digest": None}, "other data"),
        ({"devices": ("cuda",)}, "other device"),
        ({"epochs": 3}, "other length"),
    ):
        assert state_of(folder, dataclasses.replace(expected, **change)) == state
    (folder / COMPUTED_FILES[0]).unlink()
    assert state_of(folder, expected) == "damaged"


@pytest.mark.parametrize(
    ("name", "value"),
    [("train_seconds", -1.0), ("energy_joules", math.inf), ("total_seconds", math.nan), ("attempts", -1)],
)
def test_what_nobody_can_measure_is_refused(folder: Path, name: str, value: float) -> None:
    path = folder / MEASURED
    content = json.loads(path.read_text()) | {name: value}
    path.write_text(json.dumps(content))
    with pytest.raises(TwinrunError, match=f"{name} is wrong|is no JSON"):
        read_measured(folder)


def test_nan_in_a_record_is_named(folder: Path) -> None:
    path = folder / RECORD
    path.write_text(path.read_text().replace('"accuracy": ', '"accuracy": NaN, "was": ', 1))
    with pytest.raises(TwinrunError, match="NaN is no JSON"):
        read_record(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"digest": 3}', "7"])
def test_a_manifest_of_another_shape_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(MismatchError, match="not the manifest of a prepared task"):
        read_manifest(path)
