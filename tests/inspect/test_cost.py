"""Measuring in blocks: the order is a palindrome, whole blocks survive a fault, other settings are refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.inspect import probe as probing
from twinrun.inspect.cost import measure_blocks, palindrome, times
from twinrun.inspect.ladder import BASE, CONTROL, LEAN, ladder
from twinrun.study.errors import IncompleteError, InputError, MismatchError, OutOfMemoryError
from twinrun.study.layout import Layout

RUNGS = ["free", "free_again", "fill"]


def test_a_block_is_a_palindrome_and_blocks_differ() -> None:
    orders = [palindrome(RUNGS, number) for number in range(6)]
    for order in orders:
        assert order == order[::-1]
        assert sorted(order) == sorted(2 * RUNGS)
    assert len({tuple(order) for order in orders}) > 1
    assert orders[0] == palindrome(RUNGS, 0)


def test_each_rung_changes_one_flag_and_the_lean_one_is_deterministic() -> None:
    rungs = ladder(tf32=True)
    assert rungs[BASE] == rungs[CONTROL]
    names = [name for name in rungs if name != CONTROL]
    for before, after in pairwise(names):
        changed = {k for k, v in vars(rungs[after]).items() if v != vars(rungs[before])[k]}
        # The last one leaves the memory fill again, whose cost would hide its own.
        assert len(changed) == (2 if after == "tf32_off" else 1), (before, after)
    lean = rungs[LEAN]
    assert (lean.cudnn_benchmark, lean.cudnn_deterministic, lean.cublas_workspace) == (False, True, True)
    assert lean.deterministic_algorithms
    assert not lean.fill_uninitialized_memory
    assert "tf32_off" not in ladder(tf32=False)


def probed(rung: str, gpu: str = "A100", clock: str = "CUDA events", **changed: str) -> dict[str, Any]:
    """What `twinrun probe` would print."""
    return {
        "rung": rung, "step_seconds": [0.3, 0.1, 0.2], "clock": clock, "host": {"gpu": gpu, "cpu": "EPYC"},
        "data": "0" * 64, "versions": {"torch": "2.11.0", "cuda": "13.0"},
    } | changed  # fmt: skip


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"gpu": "H100"}, r"other GPU \(A100, now H100\)"),
        (
            {"gpu": None, "clock": "processor time"},
            r"clock \(CUDA events, now processor time\), GPU \(A100, now none\)",
        ),
        ({"versions": {"torch": "2.11.0", "cuda": "13.1"}}, r"other cuda \(13.0, now 13.1\)"),
        ({"data": "1" * 64}, "other data "),
    ],
)
def test_blocks_of_two_machines_are_not_joined(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    measure_blocks(path, {}, RUNGS, 1, probed)
    before = path.read_bytes()
    with pytest.raises(MismatchError, match=words) as refused:
        measure_blocks(path, {}, RUNGS, 2, lambda rung: probed(rung, **other))
    assert "move it away" in refused.value.hint
    assert path.read_bytes() == before
    assert len(measure_blocks(path, {}, RUNGS, 2, probed)) == 2


def test_whole_blocks_survive_a_fault_and_the_rest_goes_on(tmp_path: Path) -> None:
    path, calls = tmp_path / "cost.json", []

    def measure(rung: str, fail_at: int | None = None) -> dict[str, Any]:
        calls.append(rung)
        if len(calls) == fail_at:
            raise IncompleteError("the GPU is gone")
        return probed(rung)

    with pytest.raises(IncompleteError, match="the GPU is gone"):
        measure_blocks(path, {"a": 1}, RUNGS, 3, lambda rung: measure(rung, fail_at=9))
    assert len(json.loads(path.read_text())["blocks"]) == 1
    calls.clear()
    blocks = measure_blocks(path, {"a": 1}, RUNGS, 3, measure)
    assert len(blocks) == 3
    assert len(calls) == 2 * 6  # the first block was not measured again
    assert times(blocks)[2] == [(rung, 0.2) for rung in palindrome(RUNGS, 2)]
    with pytest.raises(InputError, match="measured with other settings"):
        measure_blocks(path, {"a": 2}, RUNGS, 3, measure)


@pytest.mark.slow
def test_the_command_measures_a_task_in_fresh_processes(cli: Cli, study: Layout) -> None:  # noqa: F811
    code, out, _ = cli("cost", "shapes", "--blocks", "1", "--steps", "2", "--warmup", "0")
    assert code == 0
    assert "not defined: 1 of the 6 blocks" in out
    content = json.loads(next((study.root / "cost").glob("shapes_*.json")).read_text())
    first = content["blocks"][0][0]
    assert len(first["step_seconds"]) == 2
    assert all(seconds > 0 for seconds in first["step_seconds"])
    assert first["clock"] == "processor time"
    lean = next(item for item in content["blocks"][0] if item["rung"] == LEAN)
    assert lean["flags"]["deterministic_algorithms"] is True


def test_an_unknown_task_is_named(cli: Cli) -> None:  # noqa: F811
    code, _, said = cli("cost", "nothing")
    assert code == 2
    assert "task 'nothing' is not in the grid" in said


@pytest.mark.slow
def test_a_plan_with_an_estimate_probes_each_kind_once(cli: Cli, study: Layout) -> None:  # noqa: F811
    code, out, _ = cli("plan", "--estimate")
    assert code == 0
    counts = {line.split("\t")[0]: int(line.split("\t")[1]) for line in out.splitlines()[1:9]}
    assert sum(counts.values()) == 32
    assert set(counts.values()) == {4}
    assert "one run after the other on this" in out
    assert not (study.root / "runs").exists()


def test_a_probe_without_memory_ends_in_one_sentence(
    cli: Cli,  # noqa: F811
    study: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def greedy(*_: object) -> None:
        torch.empty(10**14)

    monkeypatch.setattr(probing, "assemble", greedy)
    code, _, err = cli("probe", "shapes/sgd/0/det_1", "--rung", "free", "--batch-size", "8", "--device", "cpu")
    assert code == OutOfMemoryError.exit_code
    assert "probe of shapes/sgd/0/det_1: out of memory" in err
    assert "batch_size (8)" in err
