"""Verification: fresh processes, every epoch compared, the first difference named."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace
from typing import cast

import pytest
from tests.conftest import REPOSITORY
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.launch.verify import compare, read_expected, select, write_expected
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import read_json, write_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import Noise, Record, seal

RUN = "shapes/sgd/0/det_1"


def test_selection(params: Params, study: Layout) -> None:
    assert len(select(params, study, [], first=False, replay=False)) == 8  # one of each cell
    assert len(select(params, study, [], first=False, replay=True)) == 8  # no noise is recorded yet
    assert [run.id for run in select(params, study, [], first=True, replay=False)] == [
        "shapes/adam/0/det_1", "shapes/sgd/0/det_1", "cuts/adam/0/det_1", "cuts/sgd/0/det_1",
    ]  # fmt: skip
    assert [run.id for run in select(params, study, [RUN], first=True, replay=False)] == [RUN]


@pytest.mark.slow
def test_verify_against_record_and_expected(study: Layout, cli: Cli) -> None:  # noqa: F811
    code, _, err = cli("verify", RUN)
    assert code == 3
    assert f"nothing to compare with for {RUN}" in err
    text = (study.root / "params.yaml").read_text()
    (study.root / "params.yaml").write_text(
        text.replace("[det_1, det_2, nd_1, nd_2]", "[det_1, nd_1]").replace("tasks: [shapes, cuts]", "tasks: [shapes]")
        .replace("optimizers: [adam, sgd]", "optimizers: [sgd]").replace("seeds: [0, 7]", "seeds: [0]")
    )  # fmt: skip
    assert cli("sweep", "--jobs", "2")[:2] == (0, "2 runs trained, 0 were there already\n")
    assert cli("sweep")[:2] == (0, "0 runs trained, 2 were there already\n")
    assert cli("verify", "--write-expected")[0] == 0
    code, out, _ = cli("verify", "--replay")
    assert code == 0
    assert f"{RUN}\texpected\t4 epochs\tequal" in out
    assert f"{RUN}\trecord\t4 epochs\tequal" in out
    assert "shapes/sgd/0/nd_1\trecord\t4 epochs\tequal" in out
    assert "3 comparisons, all equal to the last bit" in out

    # A fingerprint that is not reached any more is named with its epoch; a shorter look does not see it.
    expected = read_json(study.expected)
    good = list(expected["runs"][RUN]["epochs"])
    expected["runs"][RUN]["epochs"][2] = "0" * 64
    write_json(study.expected, expected)
    code, out, err = cli("verify")
    assert code == 4
    assert f"{RUN}\texpected\t4 epochs\tdiffers first at epoch 3" in out
    assert f"{RUN} against expected at epoch 3" in err
    code, out, _ = cli("verify", "--epochs", "2")
    assert code == 0
    assert f"{RUN}\texpected\t2 epochs\tequal" in out

    # A list that ends early, or goes on longer, is a difference too.
    for epochs in (good[:3], [*good, "0" * 64]):
        expected["runs"][RUN]["epochs"] = epochs
        write_json(study.expected, expected)
        code, out, _ = cli("verify")
        assert code == 4
        assert f"differs first at epoch {min(len(epochs), 4) + 1}" in out

    # Fingerprints that were noted with other params or data are refused: nothing would be compared.
    for key in ("params", "data"):
        write_json(study.expected, {**expected, "runs": {RUN: expected["runs"][RUN] | {key: "0" * 64}}})
        code, _, err = cli("verify")
        assert code == 4
        assert f"{RUN} was noted with other {key} than it has now" in err
    study.expected.unlink()

    # A record that was edited is said to be so, not compared with.
    record = study.root / "runs" / RUN / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 3}))
    code, _, err = cli("verify")
    assert code == 4
    assert "changed after it was written" in err


def test_a_record_of_another_instruction_set_is_not_compared(study: Layout, params: Params) -> None:
    """`cpu_bits: this_cpu` promises its bits on its like alone; and expected/ is for every machine."""

    def record(instructions: str | None) -> Record:
        return Record(
            run=RUN, task="shapes", optimizer="sgd", seed=0, arm="det", replicate=1, status="complete",
            params_digest="1" * 64, code_digest="2" * 64, data_digest="3" * 64, device="cpu",
            flags={"instruction_set": instructions} if instructions else {}, noise=Noise(kind="none", entropy=None),
            parameter_count=1, initial_fingerprint="4" * 64, fingerprints=["5" * 64], metrics=None, note=None, files={},
        )  # fmt: skip

    run, body = params.find(RUN), record("AVX512 Intel").model_dump(by_alias=True)
    write_json(study.run(run) / "record.json", body | {"seal": seal(body)})
    write_expected(study, {RUN: record(None)})
    compared = compare(study, [run], {RUN: record("AVX512 Intel")}, None)
    assert [item.against for item in compared] == ["record"]
    with pytest.raises(MismatchError, match=r"another processor: AVX512 Intel; here it is AVX2 AMD"):
        compare(study, [run], {RUN: record("AVX2 AMD")}, None)


def test_a_runner_that_fails_is_reported(study: Layout, cli: Cli) -> None:  # noqa: F811
    code, _, err = cli("verify", RUN, "--prefix", "false")
    assert code == 3
    assert f"{RUN} (exit 1)" in err
    code, _, err = cli("verify", RUN, "--prefix", "'a")
    assert (code, err) == (2, 'twinrun: --prefix "\'a": no command (No closing quotation)\n')


def test_data_that_are_not_prepared_are_one_sentence(study: Layout, cli: Cli) -> None:  # noqa: F811
    shutil.rmtree(study.prepared("cuts"))
    code, _, err = cli("verify", "--first")
    assert code == 3
    assert err == "twinrun: not prepared yet: cuts\n  `twinrun prepare` does it\n"
    code, _, err = cli("verify", RUN, "--prefix", "false")
    assert f"{RUN} (exit 1)" in err  # of a task that is


def test_expected_of_another_schema(study: Layout) -> None:
    for content, words in (
        ({"schema": 9, "runs": {}}, "schema 9"), ({"schema": 1}, "runs is missing"), ([], "it holds a list"),
        ({"schema": 1, "runs": {RUN: 7}}, f"runs.{RUN} is wrong"),
    ):  # fmt: skip
        write_json(study.expected, content)
        with pytest.raises(MismatchError, match=words):
            read_expected(study)


def test_a_pipe_in_the_place_of_the_expected_is_not_taken_for_none(study: Layout) -> None:
    study.expected.parent.mkdir(exist_ok=True)
    study.expected.unlink(missing_ok=True)
    os.mkfifo(study.expected)
    with pytest.raises(InputError, match="a pipe or a device"):
        read_expected(study)


def test_expected_is_that_of_the_sample_study() -> None:
    """Else verification would have nothing to compare with; and its runs end between chance and perfect."""
    params, noted = read_params(REPOSITORY / "params.yaml"), read_expected(Layout(REPOSITORY))
    deterministic = [run for run in params.runs if run.label == "det_1"]
    assert set(noted) == {run.id for run in deterministic}
    # Chance: 0.1 for digits; F1 of a coin 0.45 at 40 % positives; AUC 0.5.
    bounds = {"digits": (0.8, 0.999), "cracks": (0.55, 0.95), "mammograms": (0.6, 0.95)}
    for run in deterministic:
        entry = noted[run.id]
        assert entry["params"] == params.run_digest(run), run.id
        assert len(entry["epochs"]) == params.tasks[run.task].recipe.epochs
        low, high = bounds[run.task]
        assert low < entry["metrics"][params.tasks[run.task].recipe.metric] < high, run.id


def test_a_record_that_is_damaged_or_cannot_be_read_is_not_passed_over(study: Layout, params: Params) -> None:
    """Only one that is not there is; else a damaged one would be taken for a run that nobody trained."""
    run = params.find(RUN)
    expected = {RUN: cast("Record", SimpleNamespace(device="cpu", flags={}))}
    assert compare(study, [run], expected, None) == []
    path = study.run(run) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(MismatchError, match=f"{RUN}: its record cannot be compared: .*not valid JSON"):
        compare(study, [run], expected, None)
