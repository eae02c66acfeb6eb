"""A task of a SLURM array: one worker server for its runs, and what becomes of runs that fail or are elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import TINY

from twinrun.launch import slurm
from twinrun.launch.slurm import train_chunk
from twinrun.launch.workers import Ended
from twinrun.study.params import Params, read_params

FIRST, SECOND = "shapes/sgd/0/det_1", "shapes/sgd/0/nd_1"


class Played:
    """Plays `Workers`: the exit codes of the calls are given, and what was asked for is noted."""

    codes: list[int]
    asked: list[str]
    modules: Sequence[str]

    def __init__(self, root: Path, modules: Sequence[str], cpu_bits: str) -> None:
        type(self).modules = modules

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, arguments: Sequence[str], *, shown: bool) -> Ended:
        assert shown
        self.asked.append(" ".join(arguments))
        return Ended(self.codes.pop(0), "", "")


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setattr(slurm, "Workers", Played)
    monkeypatch.setattr(Played, "asked", [], raising=False)
    return read_params(TINY)


def call(params: Params, names: list[str], codes: list[int], *, restarted: bool = False) -> int:
    """What the task ends with, its calls ending with `codes`."""
    Played.codes = codes
    return train_chunk(params, [params.find(name) for name in names], Path(), ["--shared"], restarted=restarted)


def test_several_runs_share_a_server_and_one_that_fails_stops_no_other(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(params, [FIRST, SECOND], [-9, 0]) == 137
    assert Played.asked == [f"train {FIRST} --shared", f"train {SECOND} --shared"]
    assert "twinrun.training.loop" in Played.modules
    assert capsys.readouterr().err == f"twinrun: {FIRST} failed with exit code 137\n"


def test_a_run_that_another_process_has_is_left_to_it(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(params, [FIRST, SECOND], [5, 0]) == 0
    assert capsys.readouterr().out == f"{FIRST} is left to the process that is training it\n"


@pytest.mark.parametrize(("codes", "pauses"), [([5, 5, 0], 2), ([5, 5, 5, 5], 3), ([1], 0)])
def test_a_task_that_began_again_waits_for_the_locks_of_a_dead_node(
    codes: list[int], pauses: int, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(slurm.time, "sleep", slept.append)
    assert call(params, [FIRST], list(codes), restarted=True) == codes[-1] % 5
    assert slept == [40] * pauses
    assert Played.modules == (), "one run alone has nothing to share"


def test_after_other_params_nothing_more_is_tried(params: Params) -> None:
    assert call(params, [FIRST, SECOND], [4]) == 4
    assert len(Played.asked) == 1
