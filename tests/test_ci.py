""".ci/steps.sh: steps beside each other, their times, and that none outlives the script, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tests.conftest import REPOSITORY

STEPS = f"set -euo pipefail; . {REPOSITORY}/.ci/steps.sh\n"


def started(folder: Path, script: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(
        ["bash", "-c", STEPS + script],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until_written(*files: Path) -> list[int]:
    end = time.monotonic() + 30
    while not all(file.exists() and file.read_text().strip() for file in files):
        assert time.monotonic() < end, files
        time.sleep(0.02)
    return [int(file.read_text()) for file in files]


def assert_over(pids: list[int]) -> None:
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_every_step_with_its_children(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    script = """
        start beside bash -c 'sleep 300 & echo $! >beside; wait'
        step 'in front' bash -c 'sleep 300 & echo $! >front; wait'
    """
    process = started(tmp_path, script)
    pids = until_written(tmp_path / "beside", tmp_path / "front")
    process.send_signal(sent)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert_over(pids)
    assert not list(tmp_path.glob("twinrun-steps-*"))


def test_a_step_that_fails_ends_the_one_beside_it(tmp_path: Path) -> None:
    script = """
        fails() { false; echo 'went on'; }
        start beside bash -c 'sleep 300 & echo $! >beside; wait'
        until [ -s beside ]; do sleep 0.02; done
        step 'in front' fails
        echo 'went on'
    """
    process = started(tmp_path, script)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "== failed (1): in front" in said
    assert "went on" not in said
    assert_over(until_written(tmp_path / "beside"))


def test_a_step_beside_others_is_shown_at_its_end_and_fails_the_script(tmp_path: Path) -> None:
    script = """
        start beside bash -c 'echo said; exit 7'
        step 'in front' echo first
        finished beside
        echo 'went on'
    """
    process = started(tmp_path, script)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 7
    assert said.splitlines() == [
        "== begun: beside", "== in front", "first", "== beside, begun before", "said", "== failed (7): beside",
    ]  # fmt: skip


def test_times_of_all_steps(tmp_path: Path) -> None:
    script = """
        start beside sleep 2
        step quick true
        finished beside
        printf '%s\\n' "${times[@]}"
    """
    process = started(tmp_path, script)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    quick, beside = said.splitlines()[-2:]
    assert quick == "    0 s  quick" or quick == "    1 s  quick"
    assert beside.split()[1:] == ["s", "beside"]
    assert 2 <= int(beside.split()[0]) < 20


@pytest.mark.xdist_group("alone")
def test_groups_of_tests_are_groups(request: pytest.FixtureRequest) -> None:
    """Under pytest 9.2 pytest-xdist 3.8 makes none: each process then makes what the tests of a module share."""
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@alone")
