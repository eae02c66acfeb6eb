"""Measuring in blocks: the order is a palindrome, whole blocks survive a fault, other settings are refused."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.inspect import probe as probing
from twinrun.inspect.cost import Block, Served, bits, measure_blocks, palindrome, times
from twinrun.inspect.ladder import CPU_PINS, Ladder, Rung, cpu_ladder, cuda_ladder, ladder_for
from twinrun.study.errors import IncompleteError, InputError, MismatchError, OutOfMemoryError
from twinrun.study.flags import NumericFlags
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.pins import PINNED, clean_environment
from twinrun.training.models import build_model

RUNGS = ["free", "free_again", "fill"]
LADDER = Ladder({name: Rung(NumericFlags()) for name in RUNGS}, "free", "fill")


def test_a_block_is_a_palindrome_and_blocks_differ() -> None:
    orders = [palindrome(RUNGS, number) for number in range(6)]
    for order in orders:
        assert order == order[::-1]
        assert sorted(order) == sorted(2 * RUNGS)
    assert len({tuple(order) for order in orders}) > 1
    assert orders[0] == palindrome(RUNGS, 0)


def test_each_rung_on_a_gpu_changes_one_flag_and_the_lean_one_is_deterministic() -> None:
    ladder = cuda_ladder(tf32=True)
    rungs = {name: rung.flags for name, rung in ladder.rungs.items()}
    assert rungs[ladder.base] == rungs[ladder.control]
    names = [name for name in rungs if name != ladder.control]
    for before, after in pairwise(names):
        changed = {k for k, v in vars(rungs[after]).items() if v != vars(rungs[before])[k]}
        # The last one leaves the memory fill again, whose cost would hide its own.
        assert len(changed) == (2 if after == "tf32_off" else 1), (before, after)
    lean = rungs[ladder.lean]
    assert (lean.cudnn_benchmark, lean.cudnn_deterministic, lean.cublas_workspace) == (False, True, True)
    assert lean.deterministic_algorithms
    assert not lean.fill_uninitialized_memory
    assert ladder.rung_before()["tf32_off"] == ladder.lean
    assert "tf32_off" not in cuda_ladder(tf32=False).rungs
    assert all(rung.pins == tuple(PINNED) for rung in ladder.rungs.values())


def test_the_ladder_on_a_cpu_ends_with_the_environment_of_a_run() -> None:
    ladder = ladder_for("cpu", tf32=True)
    base = os.environ | {"MKL_DYNAMIC": "TRUE", "OMP_NUM_THREADS": "5"}
    environments = {name: rung.environment(base) for name, rung in ladder.rungs.items()}
    assert environments[ladder.lean] == environments["deterministic_algorithms"] == clean_environment(base)
    assert environments[ladder.base] == environments[ladder.control]
    names = [name for name in ladder.rungs if name != ladder.control]
    for before, after in pairwise(names):
        added = environments[after].keys() - environments[before].keys()
        assert added == {*CPU_PINS.get(after, ())}
        assert environments[before].items() <= environments[after].items()
    assert not {"OMP_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR"} & environments["ordinary"].keys()
    assert [name for name, rung in ladder.rungs.items() if rung.flags.deterministic_algorithms] == names[-2:]


def probed(rung: str, gpu: str = "A100", clock: str = "CUDA events", **changed: str) -> dict[str, Any]:
    """What `twinrun probe` would print."""
    return {
        "rung": rung, "step_seconds": [0.3, 0.1, 0.2], "clock": clock, "host": {"gpu": gpu, "cpu": "EPYC"},
        "data": "0" * 64, "versions": {"torch": "2.11.0", "cuda": "13.0"}, "fingerprint": rung[:1],
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
    measure_blocks(path, {}, LADDER, 1, lambda: nullcontext(probed))
    before = path.read_bytes()
    with pytest.raises(MismatchError, match=words) as refused:
        measure_blocks(path, {}, LADDER, 2, lambda: nullcontext(lambda rung: probed(rung, **other)))
    assert "move it away" in refused.value.hint
    assert path.read_bytes() == before
    assert len(measure_blocks(path, {}, LADDER, 2, lambda: nullcontext(probed))) == 2


def test_whole_blocks_survive_a_fault_and_the_rest_goes_on(tmp_path: Path) -> None:
    path, calls = tmp_path / "cost.json", []

    def measure(rung: str, fail_at: int | None = None) -> dict[str, Any]:
        calls.append(rung)
        if len(calls) == fail_at:
            raise IncompleteError("the GPU is gone")
        return probed(rung)

    def block(fail_at: int | None = None) -> Block:
        return nullcontext(lambda rung: measure(rung, fail_at))

    with pytest.raises(IncompleteError, match="the GPU is gone"):
        measure_blocks(path, {"a": 1}, LADDER, 3, lambda: block(fail_at=9))
    assert len(json.loads(path.read_text())["blocks"]) == 1
    calls.clear()
    blocks = measure_blocks(path, {"a": 1}, LADDER, 3, block)
    assert len(blocks) == 3
    assert len(calls) == 2 * 6  # the first block was not measured again
    assert times(blocks)[2] == [(rung, 0.2) for rung in palindrome(RUNGS, 2)]
    with pytest.raises(InputError, match="measured with other settings"):
        measure_blocks(path, {"a": 2}, LADDER, 3, block)
    assert bits(blocks) == {"free": ["f"] * 3, "free_again": ["f"] * 3, "fill": ["f"] * 3}


def test_a_served_process_answers_until_the_block_ends(tmp_path: Path) -> None:
    answering = "import sys; print('{}', flush=True); [print('{\"n\": 1}', flush=True) for _ in sys.stdin]"
    with Served("free", [sys.executable, "-c", answering], tmp_path, os.environ) as served:
        assert served.measured() == {}
        for _ in range(2):
            served.ask("measure")
            assert served.measured() == {"n": 1}
    assert served.process.returncode == 0


@pytest.mark.parametrize(("code", "kind"), [(3, IncompleteError), (6, OutOfMemoryError)])
def test_a_served_process_that_ends_is_named_with_what_it_said(
    code: int, kind: type[Exception], tmp_path: Path
) -> None:
    failing = f"import sys; print('twinrun: no such thing', file=sys.stderr); sys.exit({code})"
    with Served("fill", [sys.executable, "-c", failing], tmp_path, os.environ) as served:
        served.process.wait()
        served.ask("measure")
        with pytest.raises(kind, match=f"measurement of fill ended with exit {code}: no such thing"):
            served.measured()


@pytest.mark.slow
def test_the_command_measures_a_task_in_fresh_processes(
    cli: Cli,  # noqa: F811
    study: Layout,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Three rungs of the CPU's ladder, on one processor; the first two are in another environment than the suite's."""
    processors = os.sched_getaffinity(0)
    request.addfinalizer(lambda: os.sched_setaffinity(0, processors))
    os.sched_setaffinity(0, {min(processors)})  # threads that wait for each other on a busy machine take minutes
    whole = cpu_ladder()
    chosen = {name: whole.rungs[name] for name in ("ordinary", "ordinary_again", "fingerprints")}
    monkeypatch.setattr("twinrun.inspect.ladder.cpu_ladder", lambda: Ladder(chosen, whole.base, whole.lean))
    code, out, err = cli("cost", "shapes", "--blocks", "1", "--seconds", "0", "--warmup", "0")
    assert code == 0
    assert "each block starts a process for each and measures each twice" in err
    lines = out.splitlines()
    assert lines[-1].startswith("a step with fingerprints takes ")
    assert lines[-1].endswith(": 1 of the 6 blocks that a 95 % interval needs")
    content = json.loads(next((study.root / "cost").glob("shapes_*_cpu.json")).read_text())
    assert content["ladder"] == {"base": "ordinary", "control": "ordinary_again", "deterministic": "fingerprints"}
    [block] = content["blocks"]
    assert len(block) == 6
    assert all(len(item["step_seconds"]) >= 3 and min(item["step_seconds"]) > 0 for item in block)
    assert {item["clock"] for item in block} == {"wall time"}
    flags = {item["rung"]: item["flags"] for item in block}
    assert flags["fingerprints"]["deterministic_algorithms"] is True
    assert (flags["fingerprints"]["cpu_threads"], flags["fingerprints"]["cpu_capability"]) == (1, "AVX2")
    native = "AVX512" if torch.cpu._is_avx512_supported() else "AVX2"
    assert flags["ordinary"]["cpu_capability"] == native
    prints = bits(content["blocks"])
    assert prints["ordinary"] == prints["ordinary_again"]


def test_an_unknown_task_is_named(cli: Cli) -> None:  # noqa: F811
    code, _, said = cli("cost", "nothing")
    assert code == 2
    assert "task 'nothing' is not in the grid" in said


@pytest.mark.slow
def test_a_plan_with_an_estimate_probes_each_kind_once(cli: Cli, study: Layout) -> None:  # noqa: F811
    file = study.root / "params.yaml"
    text = file.read_text().replace("optimizers: [adam, sgd]", "optimizers: [sgd]")
    file.write_text(text.replace("title: Shapes", "title: Shapes\n    keep_model: {det: final}"))
    code, out, _ = cli("plan", "--estimate")
    assert code == 0
    (kept,) = re.findall(r"^trained networks kept, of 4 runs: ([\d.]+) MB$", out, re.MULTILINE)
    params = read_params(file)
    network = build_model(params.tasks["shapes"].model, 10, study.root, 8)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    assert float(kept) == pytest.approx(4 * size / 1e6, abs=0.02)  # and the names in the files
    rows = [re.split(r"  +", line) for line in out.splitlines()[1:5]]
    counts = {row[0]: int(row[1]) for row in rows}
    assert sum(counts.values()) == 16
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
    code, _, err = cli("probe", "shapes/sgd/0/det_1", "--batch-size", "8", "--device", "cpu")
    assert code == OutOfMemoryError.exit_code
    assert "probe of shapes/sgd/0/det_1: out of memory" in err
    assert "batch_size (8)" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--rung", "free", "--device", "cpu"],
            "--rung free: not on the ladder of cpu\n  there are: ordinary, ordinary_again",
        ),
        (["--rung", "ordinary", "--device", "auto"], "add --device cpu or --device cuda"),
    ],
)
def test_a_rung_is_of_a_devices_ladder(words: list[str], said: str, cli: Cli, study: Layout) -> None:  # noqa: F811
    code, _, err = cli("probe", "shapes/sgd/0/det_1", *words)
    assert code == 2
    assert said in err
