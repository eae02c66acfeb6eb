"""Verification: fresh processes, every epoch compared, the first difference named."""

from __future__ import annotations

import json

import pytest
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.launch.verify import read_expected, select
from twinrun.study.files import read_json, write_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params

RUN = "shapes/sgd/0/det_1"


def test_selection(params: Params) -> None:
    assert len(select(params, [], first=False, replay=False)) == 16
    assert len(select(params, [], first=False, replay=True)) == 32
    assert [run.id for run in select(params, [], first=True, replay=False)] == [
        "shapes/adam/0/det_1", "shapes/sgd/0/det_1", "cuts/adam/0/det_1", "cuts/sgd/0/det_1",
    ]  # fmt: skip
    assert [run.id for run in select(params, [RUN], first=True, replay=False)] == [RUN]


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
    expected["runs"][RUN]["epochs"][2] = "0" * 64
    write_json(study.expected, expected)
    code, out, err = cli("verify")
    assert code == 4
    assert f"{RUN}\texpected\t4 epochs\tdiffers first at epoch 3" in out
    assert f"{RUN} against expected at epoch 3" in err
    code, out, _ = cli("verify", "--epochs", "2")
    assert code == 0
    assert f"{RUN}\texpected\t2 epochs\tequal" in out

    # Fingerprints of other params are not compared with.
    expected["runs"][RUN]["params"] = "0" * 64
    write_json(study.expected, expected)
    code, out, _ = cli("verify")
    assert code == 0
    assert "expected" not in out

    # A record that was edited is said to be so, not compared with.
    record = study.root / "runs" / RUN / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 3}))
    code, _, err = cli("verify")
    assert code == 4
    assert "changed after it was written" in err


def test_a_runner_that_fails_is_reported(study: Layout, cli: Cli) -> None:  # noqa: F811
    code, _, err = cli("verify", RUN, "--prefix", "false")
    assert code == 3
    assert f"{RUN} (exit 1)" in err


def test_expected_of_another_schema(study: Layout) -> None:
    write_json(study.expected, {"schema": 9, "runs": {}})
    with pytest.raises(Exception, match="schema 9"):
        read_expected(study)
