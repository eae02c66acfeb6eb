"""`collect`: what it writes, what it refuses, and that it leaves nothing half-done."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.collect.synthetic import CODE, Synthetic, snapshot, write_manifest, write_run, write_study

from twinrun.collect.checks import SHOWN
from twinrun.collect.collect import collect
from twinrun.report.build import analyze
from twinrun.study.errors import IncompleteError, InputError, MismatchError, ResourceError
from twinrun.study.files import digest, read_json, write_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import Metrics, Noise, prepared_digest

SMALL = Synthetic(tasks=("digits", "cracks"), optimizers=("adam",), seeds=(0, 42), n_test=20, epochs=2)
VICTIM = "cracks/adam/42/nd_2"


@pytest.fixture
def small(tmp_path: Path) -> tuple[Params, Layout]:
    return write_study(tmp_path, SMALL)


def test_what_it_writes(small: tuple[Params, Layout]) -> None:
    params, layout = small
    summary = collect(params, layout, code_digest=CODE)
    assert (summary.runs, summary.diverged, summary.folder) == (16, (), layout.collected)
    assert summary.resumed == ("digits/adam/42/det_1", "cracks/adam/42/det_1")
    ids = [run.id for run in params.runs]
    for name in ("results", "measured"):
        assert pd.read_csv(layout.collected / f"{name}.csv")["id"].tolist() == ids
    curves = pd.read_csv(layout.collected / "curves.csv")
    assert curves["epoch"].tolist() == [1, 2] * 16
    probabilities = np.load(layout.collected / "cracks/probabilities.npy", mmap_mode="r", allow_pickle=False)
    heads = np.load(layout.collected / "cracks/heads.npy", allow_pickle=False)
    assert (probabilities.shape, heads.shape) == ((8, 20, 2), (8, 3, 18))
    with np.load(layout.run(params.find(VICTIM)) / "predictions.npz", allow_pickle=False) as one:
        row = [run.id for run in params.runs if run.task == "cracks"].index(VICTIM)
        np.testing.assert_array_equal(probabilities[row], one["probabilities"])
    results = pd.read_csv(layout.collected / "results.csv").set_index("id")
    record = json.loads((layout.run(params.find(VICTIM)) / "record.json").read_text())
    assert results.loc[VICTIM, "accuracy"] == record["metrics"]["accuracy"]


def test_same_bytes_again_and_with_other_measurements(small: tuple[Params, Layout], tmp_path: Path) -> None:
    params, layout = small
    collect(params, layout, code_digest=CODE)
    before = snapshot(layout.collected)
    collect(params, layout, code_digest=CODE)
    assert snapshot(layout.collected) == before
    # Another machine: other seconds, other host; only measured.csv may tell.
    path = layout.run(params.find(VICTIM)) / "measured.json"
    body = json.loads(path.read_text())
    write_json(path, body | {"train_seconds": 99.5, "host": {"cpu": "another"}})
    collect(params, layout, code_digest=CODE)
    after = snapshot(layout.collected)
    assert {name for name in before if before[name] != after[name]} == {"measured.csv", "digests.json"}
    assert not list(tmp_path.glob(".*"))


def test_check_only_writes_nothing(small: tuple[Params, Layout]) -> None:
    params, layout = small
    assert collect(params, layout, code_digest=CODE, check_only=True).folder is None
    assert not layout.collected.exists()


def test_missing_runs_are_named(small: tuple[Params, Layout]) -> None:
    params, layout = small
    (layout.run(params.find(VICTIM)) / "record.json").unlink()
    (layout.run(params.find("digits/adam/0/nd_1")) / "record.json").unlink()
    with pytest.raises(IncompleteError, match="2 of 16 runs are missing") as caught:
        collect(params, layout, code_digest=CODE)
    assert caught.value.exit_code == 3
    assert VICTIM in str(caught.value)
    assert "digits/adam/0/nd_1" in str(caught.value)
    assert "twinrun sweep" in caught.value.hint


def test_long_lists_are_cut(tmp_path: Path) -> None:
    spec = Synthetic(tasks=("digits",), n_test=5, epochs=1)
    params, layout = write_study(tmp_path, spec)
    for run in params.runs:
        (layout.run(run) / "record.json").unlink()
    with pytest.raises(IncompleteError, match="and 4 more"):
        collect(params, layout, code_digest=CODE)
    for run in params.runs[:4]:
        write_run(params, layout, spec, run)
    with pytest.raises(IncompleteError, match=f"^{SHOWN} of 24 runs are missing") as whole:
        collect(params, layout, code_digest=CODE)
    assert "more" not in str(whole.value)


def test_ids_of_other_images_are_refused(small: tuple[Params, Layout]) -> None:
    params, layout = small
    (layout.prepared("digits") / "ids.csv").write_text("id,split\nx,test\n")
    with pytest.raises(MismatchError, match=r"ids\.csv: not the ids of 20 test images"):
        collect(params, layout, code_digest=CODE)
    manifest = layout.prepared("digits") / "manifest.json"
    write_json(manifest, read_json(manifest) | {"files": {"ids.csv": "0" * 64}})
    with pytest.raises(MismatchError, match=r"ids\.csv: missing, or not the file that was prepared"):
        collect(params, layout, code_digest=CODE)
    (layout.prepared("digits") / "ids.csv").unlink()
    with pytest.raises(MismatchError, match=r"ids\.csv: missing, or not"):
        collect(params, layout, code_digest=CODE)


def test_unprepared_task_is_named(small: tuple[Params, Layout]) -> None:
    params, layout = small
    (layout.prepared("cracks") / "manifest.json").unlink()
    with pytest.raises(IncompleteError, match="cracks"):
        collect(params, layout, code_digest=CODE)


Spoil = Callable[[Params, Layout], None]


def _rewritten(**changes: object) -> Spoil:
    def spoil(params: Params, layout: Layout) -> None:
        write_run(params, layout, SMALL, params.find(VICTIM), **changes)

    return spoil


def _edited(name: str, old: str, new: str) -> Spoil:
    def spoil(params: Params, layout: Layout) -> None:
        path = layout.run(params.find(VICTIM)) / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return spoil


def _measured(old: str, new: str) -> Spoil:
    return _edited("measured.json", old, new)


def _entropy(run_id: str) -> str:
    return digest(run_id)[:32]


def _foreign(params: Params, layout: Layout) -> None:
    source, target = layout.run(params.find("cracks/adam/42/nd_1")), layout.run(params.find(VICTIM))
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def _other_labels(params: Params, layout: Layout) -> None:
    spec = Synthetic(**{**SMALL.__dict__, "n_test": 21})
    write_run(params, layout, spec, params.find(VICTIM))


def _truncated(params: Params, layout: Layout) -> None:
    path = layout.run(params.find(VICTIM)) / "record.json"
    path.write_bytes(path.read_bytes()[:100])


def _unmeasured(params: Params, layout: Layout) -> None:
    (layout.run(params.find(VICTIM)) / "measured.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_rewritten(params_digest="1" * 64), "params digest"),
        (_rewritten(code_digest="1" * 64), "code digest"),
        (_rewritten(data_digest="1" * 64), "data digest"),
        (_rewritten(device="cuda"), "device cuda, while execution.device is cpu"),
        (_rewritten(noise=Noise(kind="reorder", entropy=_entropy("cracks/adam/42/nd_1"))), "has the very noise of"),
        (_measured('"gpu": null', '"gpu": "Another"'), "GPU Another, while most runs of its cell have None"),
        (_rewritten(flags={"instruction_set": "AVX512 Intel"}), "instruction set AVX512 Intel, while most runs of its"),
        (_measured('"torch": "2.11.0"', '"torch": "2.10.0"'), "torch 2.10.0, while most runs of its cell have 2.11.0"),
        (_rewritten(arm="det"), "another cell, arm"),
        (_rewritten(metrics=None), "without metrics"),
        (
            _rewritten(metrics=Metrics(accuracy=0.5, f1=0.5, auc=0.5, loss=1.0)),
            "accuracy is 0.5, that of its predictions 0.95",
        ),
        (_edited("record.json", '"seed": 42', '"seed": 43'), "seal"),
        (_edited("record.json", '"schema": 1', '"schema": 2'), "schema 2"),
        (_edited("curve.csv", "0.001", "0.002"), "curve.csv"),
        (_edited("measured.json", '"record_sha256": "', '"record_sha256": "0'), "measure"),
        (_foreign, "its record is that of cracks/adam/42/nd_1"),
        (_other_labels, "shape"),
        (_truncated, "not valid JSON"),
    ],
)
def test_refusals_name_the_run_and_the_reason(small: tuple[Params, Layout], spoil: Spoil, why: str) -> None:
    params, layout = small
    collect(params, layout, code_digest=CODE)
    before = snapshot(layout.collected)
    spoil(params, layout)
    with pytest.raises(MismatchError) as caught:
        collect(params, layout, code_digest=CODE)
    assert caught.value.exit_code == 4
    assert "1 of 16 runs" in str(caught.value)
    assert f"{VICTIM}: " in str(caught.value)
    assert why in str(caught.value)
    assert snapshot(layout.collected) == before


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (_rewritten(params_digest="1" * 64), "other params"),
        (_rewritten(code_digest="1" * 64), "other code"),
        (_rewritten(data_digest="1" * 64), "other data"),
        (_rewritten(device="cuda"), "other device"),
        (_rewritten(arm="det"), "other run"),
        (_rewritten(fingerprints=["1" * 64]), "other length"),
        (_edited("record.json", '"seed": 42', '"seed": 43'), "damaged"),
        (_edited("curve.csv", "0.001", "0.002"), "damaged"),
        (_measured('"record_sha256": "', '"record_sha256": "0'), "damaged"),
        (_measured('"train_seconds": ', '"train_seconds": -'), "damaged"),
        (_foreign, "other run"),
        (_truncated, "damaged"),
        (_unmeasured, "damaged"),
    ],
)
def test_collect_refuses_what_a_sweep_would_train_again(small: tuple[Params, Layout], spoil: Spoil, state: str) -> None:
    params, layout = small
    run = params.find(VICTIM)
    data = prepared_digest(layout, run.task)
    assert params.state_of(run, layout, data, CODE) == "complete"
    spoil(params, layout)
    assert params.state_of(run, layout, data, CODE) == state
    with pytest.raises(MismatchError, match=VICTIM):
        collect(params, layout, code_digest=CODE)


def test_a_record_that_the_machine_cannot_read_is_no_damaged_one(
    small: tuple[Params, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a sweep would train it again, and `collect` would say to remove its folder."""
    params, layout = small
    run = params.find(VICTIM)
    real = Path.read_text

    def failing(path: Path, *args: Any, **keys: Any) -> str:
        if path == layout.run(run) / "record.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *args, **keys)

    monkeypatch.setattr(Path, "read_text", failing)
    with pytest.raises(ResourceError, match="record"):
        params.state_of(run, layout, None, CODE)
    with pytest.raises(ResourceError, match="record"):
        collect(params, layout, code_digest=CODE)


def test_mixed_noise_is_refused(small: tuple[Params, Layout]) -> None:
    params, layout = small
    write_run(params, layout, Synthetic(**{**SMALL.__dict__, "noise": "ulp"}), params.find(VICTIM))
    with pytest.raises(MismatchError, match="noise ulp, while most runs of its arm have reorder"):
        collect(params, layout, code_digest=CODE)


def test_data_prepared_for_other_params_are_refused(small: tuple[Params, Layout]) -> None:
    params, layout = small
    path = layout.prepared("cracks") / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"params_digest": "2" * 64})
    with pytest.raises(MismatchError, match=r"prepared for other params of tasks\.cracks\.data"):
        collect(params, layout, code_digest=CODE)


def test_changed_data_is_refused(small: tuple[Params, Layout]) -> None:
    params, layout = small
    path = layout.prepared("cracks") / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"digest": "2" * 64})
    with pytest.raises(MismatchError, match="8 of 16 runs"):
        collect(params, layout, code_digest=CODE)
    write_manifest(layout, SMALL, "cracks")
    collect(params, layout, code_digest=CODE)


def test_extra_folders_are_not_read(small: tuple[Params, Layout]) -> None:
    params, layout = small
    (layout.root / "runs/digits/adam/7/nd_9").mkdir(parents=True)
    assert collect(params, layout, code_digest=CODE).runs == 16


def test_diverged_runs_are_kept_and_named(tmp_path: Path) -> None:
    spec = Synthetic(**{**SMALL.__dict__, "epochs": 3, "diverged": frozenset({VICTIM})})
    params, layout = write_study(tmp_path, spec)
    assert collect(params, layout, code_digest=CODE).diverged == (VICTIM,)
    info = json.loads((layout.collected / "study.json").read_text())
    assert "nan" in info["diverged"][VICTIM]
    heads = np.load(layout.collected / "cracks/heads.npy", allow_pickle=False)
    row = [run.id for run in params.runs if run.task == "cracks"].index(VICTIM)
    assert np.isnan(heads[row]).all(axis=1).tolist() == [False, False, False, True]


def test_a_folder_that_cannot_be_written_is_named(small: tuple[Params, Layout]) -> None:
    params, layout = small
    blocked = layout.root / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="a file stands where a folder should be"):
        collect_into(params, layout, blocked / "below")


def collect_into(params: Params, layout: Layout, target: Path) -> None:
    class Elsewhere(Layout):
        @property
        def collected(self) -> Path:
            return target

    collect(params, Elsewhere(layout.root), code_digest=CODE)


def test_progress_counts_the_runs(tmp_path: Path) -> None:
    params, layout = write_study(tmp_path, Synthetic(tasks=("digits",), seeds=(0,), n_test=20, epochs=1))
    steps: list[tuple[int, int]] = []
    collect(params, layout, code_digest=CODE, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 8) for done in range(9)]
    steps.clear()
    analyze(layout.collected, layout.analysis, lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][0] == steps[-1][1]
