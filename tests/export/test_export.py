"""Exports read back by each tracker's own reader; nothing twice, nothing half, what is missing is named."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.warm.start import REAL

from twinrun.cli.app import main
from twinrun.export import exporting
from twinrun.export.crate import METADATA, check_crate
from twinrun.export.exporting import TARGETS, TRACKERS, Summary, export, finished_runs, pack
from twinrun.study.errors import IncompleteError, InputError, MismatchError, ResourceError
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import read_measured, read_record, write_record

Finished = tuple[Params, Layout]
RUN = "digits/sgd/0/nd_2"


def run(finished: Finished, target: str, out: Path) -> Summary:
    return export(*finished, target, out, lambda name, place, total: None)


def curve(finished: Finished, run_id: str) -> list[dict[str, float]]:
    return [dict(values) for one in finished_runs(*finished)[0] if one.id == run_id for _, values in one.curve]


def test_tensorboard_reads_it_back(finished: Finished, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    summary = run(finished, "tensorboard", tmp_path / "out")
    assert (summary.added, summary.there, summary.left_out) == (4, 0, {})
    events = EventAccumulator(str(tmp_path / "out" / RUN), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    values = [(event.step, event.value) for event in events.Scalars("curve/accuracy")]
    assert values == [(i, pytest.approx(row["accuracy"])) for i, row in enumerate(curve(finished, RUN), 1)]
    metrics = read_record(finished[1].run(finished[0].find(RUN))).metrics
    assert metrics is not None
    assert events.Scalars("final/f1")[0].value == pytest.approx(metrics.f1)
    assert events.Scalars("train_seconds")[0].value == 1.25
    plugin = HParamsPluginData()
    plugin.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    given = plugin.session_start_info.hparams
    assert given["recipe.batch_size"].number_value == 8
    assert given["arm"].string_value == "nd"
    study = EventAccumulator(str(tmp_path / "out" / "study"), size_guidance={"images": 0, "tensors": 0})
    study.Reload()
    assert len(study.Tags()["images"]) == summary.figures
    assert study.Images("figures/churn_error")[0].encoded_image_string.startswith(b"\x89PNG")
    tables = [tag for tag in study.Tags()["tensors"] if tag.startswith("tables/")]
    assert len(tables) == summary.tables
    assert b"Churn" in study.Tensors("tables/churn")[0].tensor_proto.string_val[0]


@pytest.mark.slow
def test_wandb_reads_it_back(finished: Finished, tmp_path: Path) -> None:
    run(finished, "wandb", tmp_path / "out")
    found = {}
    for folder in (tmp_path / "out" / "wandb").glob("offline-run-*"):
        records = _wandb_records(folder)
        started = next(one["run"] for one in records if "run" in one)
        found[started["display_name"]] = records, started
    assert set(found) == {"study", *(one.id for one in finished[0].runs)}
    records, started = found[RUN]
    config = started["config"]["update"]
    assert config["recipe.batch_size"] == 8
    assert config["twinrun"]["twinrun.run"] == RUN
    rows = [one["history"]["item"] for one in records if "history" in one]
    assert [row["curve/accuracy"] for row in rows] == [row["accuracy"] for row in curve(finished, RUN)]
    assert [row["_step"] for row in rows] == [1, 2]
    summary: dict[str, Any] = {}
    for one in records:
        summary |= one.get("summary", {}).get("update", {})
    assert summary["train_seconds"] == 1.25
    records, _ = found["study"]
    logged = {key for one in records if "history" in one for key in one["history"]["item"]}
    assert {"tables/churn._type", "figures/churn_error._type"} <= logged


def _wandb_records(folder: Path) -> list[dict[str, Any]]:
    """The records of an offline run as the package's own reader prints them."""
    command = [str(Path(REAL).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_mlflow_reads_it_back(finished: Finished, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    summary = run(finished, "mlflow", tmp_path / "out")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("twinrun/synthetic")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"study", *(one.id for one in finished[0].runs)}
    one = runs[RUN]
    assert one.info.status == "FINISHED"
    assert one.data.params["recipe.batch_size"] == "8"
    assert one.data.tags["twinrun.status"] == "complete"
    assert runs["digits/sgd/0/nd_3"].data.tags["twinrun.status"] == "diverged"
    history = client.get_metric_history(one.info.run_id, "curve/accuracy")
    assert [(m.step, m.value) for m in history] == [
        (epoch, row["accuracy"]) for epoch, row in enumerate(curve(finished, RUN), 1)
    ]
    assert one.data.metrics["train_seconds"] == 1.25
    study = runs["study"].info.run_id
    assert len(client.list_artifacts(study, "tables")) == summary.tables
    assert "figures/churn_error.png" in [file.path for file in client.list_artifacts(study, "figures")]


def _count(target: str, out: Path) -> int:
    if target == "tensorboard":
        return len(list(out.rglob("events.out.*")))
    if target == "wandb":
        return len(list((out / "wandb").glob("offline-run-*")))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    return len(client.search_runs([client.get_experiment_by_name("twinrun/synthetic").experiment_id]))


@pytest.mark.slow
@pytest.mark.parametrize("target", TRACKERS)
def test_again_adds_nothing_and_an_interrupted_run_is_replaced(
    target: str, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stopped(path: Path, name: str, noted: dict[str, str]) -> None:
        if len(noted) == 2:
            raise KeyboardInterrupt
        write(path, name, noted)

    write = exporting._write_note
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "_write_note", stopped)
        with pytest.raises(KeyboardInterrupt):  # the second run is written, but not noted
            run(finished, target, out)
    assert run(finished, target, out).added == 3
    assert _count(target, out) == 5
    again = run(finished, target, out)
    assert (again.added, again.there) == (0, 4)
    assert _count(target, out) == 5


def packed(finished: Finished, out: Path) -> Summary:
    params, layout = finished
    file = layout.root / "params.yaml"
    file.write_text(yaml.safe_dump(params.model_dump(by_alias=True, exclude_none=True), sort_keys=False))
    return pack(params, file, layout, out)


def test_a_crate_is_read_back_and_the_same_study_makes_the_same_one(finished: Finished, tmp_path: Path) -> None:
    from rocrate.rocrate import ROCrate

    out = tmp_path / "out"
    (finished[1].root / "LICENSE").write_text("MIT")
    summary = packed(finished, out)
    crate = ROCrate(out)
    assert crate.name == "twinrun study synthetic"
    assert crate.root_dataset["license"].id == "LICENSE"
    record = read_record(finished[1].run(finished[0].find(RUN)))
    entity = crate.dereference(f"runs/{RUN}/record.json")
    assert entity["description"] == f"{RUN}, complete, fingerprint {record.final_fingerprint}"
    stack = json.loads((out / "stack.json").read_text())
    assert sorted(name for item in stack for name in item["runs"]) == [one.id for one in finished[0].runs]
    files = [file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file() and file.name != METADATA]
    assert sorted(files) == sorted(e.id for e in crate.get_entities() if e.type == "File" and e.id != METADATA)
    assert {"params.yaml", "analysis/analysis.json", "collected/results.csv"} <= set(files)
    assert check_crate(out) == len(files)
    assert (summary.added, summary.left_out) == (4, {})
    first = (out / METADATA).read_bytes()
    packed(finished, out)
    assert (out / METADATA).read_bytes() == first
    assert check_crate(tmp_path) == 0


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("byte", "curve.csv was changed"),
        ("gone", "curve.csv is missing"),
        ("outside", "is no path in the crate"),
        ("shape", "not the metadata of an RO-Crate"),
    ],
)
def test_a_crate_that_is_not_as_it_was_packed(harm: str, words: str, finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(finished, out)
    file, metadata = out / "runs" / RUN / "curve.csv", out / METADATA
    match harm:
        case "byte":
            content = bytearray(file.read_bytes())
            content[-2] ^= 1
            file.write_bytes(content)
        case "gone":
            file.unlink()
        case "outside":
            metadata.write_text(metadata.read_text().replace('"stack.json"', '"../stack.json"'))
        case "shape":
            metadata.write_text("[]")
    with pytest.raises(MismatchError, match=words):
        check_crate(out)


def test_a_folder_of_something_else_is_no_place_for_a_crate(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"thesis.tex, which is not of what is to be written there"):
        packed(finished, tmp_path / "out")
    # Nor one whose folders have the names of a crate's, nor another tool's crate.
    file = tmp_path / "theirs" / "runs" / "1.csv"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(InputError, match=r"holds runs and no ro-crate-metadata\.json"):
        packed(finished, tmp_path / "theirs")
    (tmp_path / "theirs" / METADATA).write_text('{"@graph": []}')
    with pytest.raises(InputError, match=r"theirs: holds an RO-Crate that twinrun did not make"):
        packed(finished, tmp_path / "theirs")
    assert file.is_file()


def test_events_of_another_program_are_left_alone(finished: Finished, tmp_path: Path) -> None:
    theirs = tmp_path / "out" / RUN / "events.out.tfevents.1.host"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(
        InputError, match=r"holds events\.out\.tfevents\.1\.host, which is not of what is to be written"
    ):
        run(finished, "tensorboard", tmp_path / "out")
    assert theirs.read_text() == "theirs"


def test_other_records_of_the_same_runs_are_refused(finished: Finished, tmp_path: Path) -> None:
    run(finished, "tensorboard", tmp_path / "out")
    note = tmp_path / "out" / exporting.NOTE
    content = json.loads(note.read_text())
    content["exported"][RUN] = "0" * 64
    note.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"1 of the exports there are of other records, such as {RUN}"):
        run(finished, "tensorboard", tmp_path / "out")
    with pytest.raises(InputError, match="not of an export to mlflow"):
        run(finished, "mlflow", tmp_path / "out")


def test_events_that_do_not_fit_on_the_disk_are_one_error_and_nothing_is_left(
    finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(InputError, match="larger than is allowed"):
            run(finished, "tensorboard", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr().err == ""
    assert not list((tmp_path / "out").rglob(".*"))
    assert not (tmp_path / "out" / "study").exists()


def test_incomplete_and_damaged_records_are_left_out_by_name(finished: Finished, tmp_path: Path) -> None:
    params, layout = finished
    shutil.rmtree(layout.run(params.find(RUN)))
    (layout.run(params.find("digits/sgd/0/nd_1")) / "curve.csv").write_text("changed")
    summary = run(finished, "tensorboard", tmp_path / "out")
    assert summary.added == 2
    assert summary.left_out[RUN] == "not trained yet"
    assert "curve.csv: missing, or not the file" in summary.left_out["digits/sgd/0/nd_1"]
    shutil.rmtree(layout.root / "runs")
    with pytest.raises(IncompleteError, match=r"no run is finished, such as digits/sgd/0/det_1: not trained yet"):
        run(finished, "tensorboard", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_record_that_cannot_be_read_is_not_left_out_but_an_error(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = finished
    real = Path.read_text

    def failing(path: Path, *args: Any, **keys: Any) -> str:
        if path == layout.run(params.find(RUN)) / "record.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *args, **keys)

    monkeypatch.setattr(Path, "read_text", failing)
    with pytest.raises(ResourceError, match=r"record\.json: Input/output error"):
        run(finished, "tensorboard", tmp_path / "out")


def test_a_record_whose_metrics_are_not_those_of_its_predictions_is_left_out(
    finished: Finished, tmp_path: Path
) -> None:
    """Sealed again, as only somebody who means it writes it: what `collect` refuses is not exported either."""
    params, layout = finished
    folder = layout.run(params.find(RUN))
    record, measured = read_record(folder), read_measured(folder)
    assert record.metrics
    metrics = record.metrics.model_copy(update={"accuracy": 0.125})
    write_record(folder, record.model_copy(update={"metrics": metrics}), measured)
    summary = run(finished, "tensorboard", tmp_path / "out")
    assert "its record's accuracy is 0.125, that of its predictions" in summary.left_out[RUN]
    assert list(summary.left_out) == [RUN]


def test_records_and_folders_of_the_user_are_never_replaced(finished: Finished) -> None:
    _, layout = finished
    before = {path: path.read_bytes() for path in (layout.root / "runs").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"holds curve\.csv, which is not of what is to be written there"):
        run(finished, "tensorboard", layout.root / "runs")
    (layout.root / RUN).mkdir(parents=True)
    (layout.root / RUN / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        run(finished, "tensorboard", layout.root)
    assert (layout.root / RUN / "thesis.tex").read_text() == "years of work"
    assert before == {path: path.read_bytes() for path in (layout.root / "runs").rglob("*") if path.is_file()}


def test_a_record_of_other_params_is_left_out(finished: Finished, tmp_path: Path) -> None:
    params, layout = finished
    content = params.model_dump(by_alias=True)
    content["tasks"]["digits"]["recipe"]["batch_size"] = 9
    with pytest.raises(IncompleteError, match="made with other params"):
        run((Params.model_validate(content), layout), "tensorboard", tmp_path / "out")


def test_a_record_of_other_code_or_data_is_left_out(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    params, layout = finished
    monkeypatch.setattr("twinrun.export.exporting.current_code_digest", lambda: "d" * 64)
    with pytest.raises(IncompleteError, match="made with other code"):
        finished_runs(params, layout)
    monkeypatch.undo()
    monkeypatch.setattr("twinrun.export.exporting.current_code_digest", lambda: "c" * 64)
    manifest = layout.prepared("digits") / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"digest": "e" * 64}))
    with pytest.raises(IncompleteError, match="made with other data"):
        finished_runs(params, layout)


@pytest.mark.parametrize("target", TARGETS)
def test_a_missing_extra_is_one_sentence(
    target: str, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"ro-crate": "rocrate"}.get(target, target)
    for name in list(sys.modules):
        if name.split(".")[0] == package or name.startswith("twinrun.export.to_"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(package), *sys.meta_path])
    with pytest.raises(InputError) as caught:
        (packed(finished, tmp_path) if target == "ro-crate" else run(finished, target, tmp_path / "out"))
    assert f"--to {target} needs the package {package}" in str(caught.value)
    assert f"in a checkout of twinrun: pip install --editable '.[{target}]'" in str(caught.value)
    assert "'twinrun[" not in str(caught.value)  # it is on no index: a stranger's package of that name could come


class _Hidden:
    """An import system in which one package does not exist."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.package)


def test_the_command(finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    params, layout = finished
    monkeypatch.chdir(layout.root)
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(by_alias=True, exclude_none=True), sort_keys=False))
    cli: Callable[..., tuple[int, str, str]] = lambda *arguments: _cli(monkeypatch, capsys, *arguments)  # noqa: E731
    code, out, _ = cli("export", "--to", "tensorboard")
    assert code == 0
    assert "export/tensorboard: 4 runs added, 0 were there already, " in out
    shutil.rmtree(layout.run(params.find(RUN)))
    shutil.rmtree(layout.analysis)
    code, out, err = cli("export", "--to", "tensorboard", "--out", "other")
    assert code == 3
    assert "other: 3 runs added" in out
    assert "there is no analysis/ yet" in out
    assert f"1 of 4 runs were left out:\n  {RUN}: not trained yet" in err
    code, _, err = cli("export", "--to", "excel")
    assert code == 2
    assert "--to excel is not known\n  targets: tensorboard, wandb, mlflow, ro-crate" in err


def _cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["twinrun", *arguments])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
