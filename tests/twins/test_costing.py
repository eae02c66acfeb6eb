"""What determinism costs any program: its rungs are measured as they are named, and what cannot be is said."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture
from tests.twins.test_tracing import HEAD, START

from twinrun.cli.cost import table_lines
from twinrun.inspect.ladder import Ladder, ProgramRung, program_ladder
from twinrun.study.errors import IncompleteError
from twinrun.study.files import read_json, write_json
from twinrun.study.pins import CUBLAS, CUBLAS_DETERMINISTIC, PINNED
from twinrun.twins import costing
from twinrun.twins.costing import look, measuring
from twinrun.twins.tracing import Program, alone

TRAINING = (
    HEAD
    + """
BEFORE
net = nn.TransformerEncoderLayer(6, 2, 8, 0.0)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(STEPS):
    optimizer.zero_grad()
    net(x[:, None]).square().mean().backward()
    WITHIN
    optimizer.step()
"""
)
PLAN = {"mode": "times", "warmup": 0, "seconds": 0}
DETERMINISTIC = {"deterministic_algorithms": True, "fill_uninitialized_memory": False}


def write(folder: Path, before: str = "", within: str = "", steps: int = 10_000) -> Program:
    text = TRAINING.replace("BEFORE", before).replace("WITHIN", within).replace("STEPS", str(steps))
    (folder / "train.py").write_text(text)
    return Program((sys.executable, "-c", START), folder, limit_seconds=60)


def measured(program: Program, warmup: float = 0, **switches: bool) -> dict[str, object]:
    ladder = Ladder({"rung": ProgramRung(switches)}, "rung", "rung")
    with alone(program) as run, measuring(run, program, ladder, PLAN | {"warmup": warmup}) as measure:
        return measure("rung")


def test_a_program_is_measured_from_how_it_is(
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "torch.use_deterministic_algorithms(True)")
    short = ["--blocks", "1", "--seconds", "0", "--warmup", "0", "--json", "cost.json"]
    code, out, err = cli("cost", *short, "--", sys.executable, "-c", START)
    assert code == 0, err
    assert "left out: deterministic_algorithms: in force already" in err
    assert "left out: compile_off: nothing was compiled" in err
    rows = [re.split(" {2,}", line) for line in out.splitlines()]
    assert [row[0] for row in rows if len(row) > 1] == ["flags", "as_it_is", "as_it_is_again", "attention_math"]
    assert rows[2][-1] == rows[3][-1] != rows[4][-1]  # the bits of other kernels
    assert rows[-1][0].startswith("a step with attention_math takes")
    block = read_json(tmp_path / "cost.json")["blocks"][0]
    assert len(block) == 6
    assert all(seconds > 0 for process in block for seconds in process["step_seconds"])
    # All is measured: it goes on from there, as from what an earlier version wrote, and refuses another program.
    kept = read_json(tmp_path / "cost.json")
    for item in kept["blocks"][0][1:]:
        del item["ended_after"]
    kept["blocks"][0][0]["ended_after"] = 12
    write_json(tmp_path / "cost.json", kept)
    code, out, err = cli("cost", *short, "--", sys.executable, "-c", START)
    assert code == 0, err
    assert "it ends after 12 steps, within the warm-up of 0 s or too soon after it: the second half" in out
    write(tmp_path, "torch.use_deterministic_algorithms(True)", "pass")
    code, out, err = cli("cost", *short, "--", sys.executable, "-c", START)
    assert (code, "measured with other settings or by other code" in err) == (2, True)


def test_a_look_at_the_program_sees_what_there_are_rungs_for(tmp_path: Path) -> None:
    program = write(tmp_path, "torch.backends.cudnn.benchmark = True")
    with alone(program) as run:
        seen = look(run, program)
    assert (seen.device, seen.attention, seen.compiled) == ("cpu", True, False)
    assert seen.switches["cudnn_benchmark"]
    assert not seen.switches["deterministic_algorithms"]
    assert not seen.switches["attention_math"]


@pytest.mark.parametrize(
    ("before", "within", "said"),
    [
        ("", "x.put_(torch.tensor([0]), torch.tensor([1.0]))", "put_ does not have a deterministic implementation"),
        ("", "torch.use_deterministic_algorithms(False)",
         "rung rung: after its steps deterministic_algorithms is False: the program sets that itself"),
    ],
)  # fmt: skip
def test_a_rung_that_fails_is_named(before: str, within: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError) as error:
        measured(write(tmp_path, before, within), **DETERMINISTIC)
    assert said in str(error.value)
    assert str(error.value).startswith("rung rung: ")


def test_what_a_short_program_sets_before_its_first_step_does_not_undo_a_rung(tmp_path: Path) -> None:
    program = write(tmp_path, "torch.use_deterministic_algorithms(False)", steps=12)
    report = measured(program, warmup=600, **DETERMINISTIC)
    # It ends in its warm-up, after 8 steps that could be measured: the second half of them is.
    assert (report["ended_after"], len(report["step_seconds"])) == (12, 4)  # type: ignore[arg-type]


RANKS = "import time; rank = int(os.fork() > 0); os.environ.update(RANK=str(1 - rank), WORLD_SIZE='2')"


def test_of_ranks_the_first_is_timed(tmp_path: Path) -> None:
    report = measured(write(tmp_path, RANKS, "time.sleep(0.03 * rank)"))  # the other is there sooner
    assert report["ranks"] == 2
    assert len(report["step_seconds"]) >= 3  # type: ignore[arg-type]
    assert min(report["step_seconds"]) > 0.03  # type: ignore[call-overload]


def test_a_program_that_hangs_before_its_first_steps_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costing, "FIRST_STEPS_SECONDS", 0.5)
    program = replace(write(tmp_path, "import time; time.sleep(60)"), limit_seconds=None)
    with alone(program) as run, pytest.raises(IncompleteError, match=r"stopped after 0\.5 s, with all of its"):
        look(run, program)


@pytest.mark.parametrize(
    ("steps", "said"), [(4, "ended after 4 optimizer steps, too few"), (0, "no torch.optim optimizer made a step")]
)
def test_too_few_steps_are_said(steps: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=said):
        measured(write(tmp_path, steps=steps))


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["--optimizer", "sgd", "--", "python", "train.py"], 2, "--optimizer and a program"),
        (["--params", "other.yaml", "--", "python", "train.py"], 2, "--params and a program"),
        (["--", sys.executable, "-c", "print(1)"], 3, "no process of it imported torch with the tracer in it"),
        (["--json", "x.json", "digits"], 2, "--json and a task"),
        ([], 2, "what is to be measured?"),
    ],
)
def test_calls_that_make_no_sense(
    words: list[str],
    exit_code: int,
    said: str,
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("cost", *words)
    assert code == exit_code
    assert said in err


def test_where_the_control_differs_neither_column_has_a_verdict() -> None:
    ladder, _ = program_ladder("cpu", {"cpu_threads": 1}, PINNED, attention=False, compiled=False)
    seconds = {rung: 1.0 + number / 10 for number, rung in enumerate(ladder.rungs)}
    order = [*seconds, *reversed(seconds)]

    def verdicts(control: float) -> list[tuple[str, str]]:
        taken = seconds | {ladder.control: control}
        block = [{"rung": rung, "step_seconds": [taken[rung]], "fingerprint": "0"} for rung in order]
        rows = [line.split("\t") for line in table_lines(ladder, [block] * 6)]
        return [(row[3], row[6]) for row in rows if row[0] in ladder.rung_before()]

    assert verdicts(1.0) == [("dearer", "dearer")] * 2
    assert verdicts(1.1) == [("inconclusive: the control differs from the base",) * 2] * 2


def test_the_ladder_of_a_program_changes_one_thing_a_rung() -> None:
    off = {"cpu_threads": 2, "cudnn_benchmark": True, "cudnn_deterministic": False, "attention_math": False,
           "deterministic_algorithms": False, "fill_uninitialized_memory": False}  # fmt: skip
    ladder, left_out = program_ladder("cuda", off, {}, attention=True, compiled=True)
    assert left_out == {}
    assert list(ladder.rungs) == [
        "as_it_is", "as_it_is_again", "benchmark_off", "cudnn_deterministic", "cublas_workspace",
        "deterministic_algorithms", "memory_fill", "attention_math", "compile_off", "launch_blocking",
        "compile_max_autotune",
    ]  # fmt: skip
    assert ladder.rungs[ladder.base] == ladder.rungs[ladder.control] == ProgramRung()
    for rung, lower in ladder.rung_before().items():
        upper, below = ladder.rungs[rung], ladder.rungs[lower]
        assert upper.variables.items() >= below.variables.items()
        changed = {key for key, value in upper.switches.items() if below.switches.get(key) != value}
        changed -= {"fill_uninitialized_memory"} if rung == "deterministic_algorithms" else set()
        added = upper.variables.keys() - below.variables.keys()
        assert len(changed) == 1 or {name.split("_")[0] for name in added} <= {"CUBLAS", "CUDA", "TORCHDYNAMO", "TORCH",
                                                                               "TORCHINDUCTOR"}  # fmt: skip
        assert bool(changed) != bool(added)
    assert ladder.lean == "deterministic_algorithms"
    assert (ladder.below["launch_blocking"], ladder.below["compile_off"]) == (ladder.lean, "as_it_is")


def test_of_a_deterministic_program_the_answer_is_about_a_switch_of_determinism() -> None:
    on = {"cudnn_benchmark": False, "cudnn_deterministic": True, "deterministic_algorithms": True,
          "fill_uninitialized_memory": True, "attention_math": False}  # fmt: skip
    ladder, _ = program_ladder("cuda", on, {CUBLAS: CUBLAS_DETERMINISTIC}, attention=False, compiled=True)
    assert [*ladder.rungs][2:] == ["compile_off", "launch_blocking", "compile_max_autotune"]
    assert ladder.lean == "compile_off"
    nothing, _ = program_ladder("cpu", on | {"cpu_threads": 1}, PINNED, attention=False, compiled=False)
    assert [*nothing.rungs] == ["as_it_is", "as_it_is_again"]


def test_what_is_in_force_or_does_not_apply_is_left_out_with_its_reason() -> None:
    on = {"cpu_threads": 1, "deterministic_algorithms": False, "fill_uninitialized_memory": False}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ladder, left_out = program_ladder("cpu", on, threads, attention=False, compiled=False)
    assert left_out == {
        "one_thread": "in force already",
        "attention_math": "no fused attention was called",
        "compile_off": "nothing was compiled by torch.compile",
    }
    assert [*ladder.rungs][2:] == ["avx2", "mkl_compatible", "deterministic_algorithms", "memory_fill"]
    assert "cpu_threads" not in ladder.rungs["avx2"].switches
