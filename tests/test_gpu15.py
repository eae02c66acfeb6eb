"""benchmarks/gpu15.sh without a card: limits kept, results within what comes back, a second call that goes on."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu15.sh"


@pytest.fixture(scope="module")
def gpu15() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu15", REPOSITORY / "benchmarks" / "gpu15.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu15"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def unpacked(out: Path) -> dict[str, bytes]:
    """What came back, by its path in the archive."""
    volumes = sorted(out.glob("results.tar.gz.*"))
    with tarfile.open(fileobj=io.BytesIO(b"".join(volume.read_bytes() for volume in volumes))) as tar:
        assert len(set(tar.getnames())) == len(tar.getnames())
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def test_each_part_ends_by_its_limit_and_the_next_one_begins(gpu15: ModuleType, tmp_path: Path) -> None:
    gpu15.GRACE = 1.0
    state, out = tmp_path / "state", tmp_path / "out"
    listed = [
        gpu15.Part(
            "stubborn", 3, [shell(f"trap '' TERM; echo y > {state}/begun; sleep 60 & wait; sleep 60")], keeps=("beg*",)
        ),
        gpu15.Part("wrong", 3, [shell("echo no such thing; exit 5"), shell(f"touch {state}/after")]),
        gpu15.Part("right", 3, [shell(f"echo 12 of 12 agree; echo x > {state}/out/right/made.txt")], keeps=("beg*",)),
    ]
    begin = time.monotonic()
    gpu15.Session(state, out, 100, "abc").run(listed, listed)
    assert time.monotonic() - begin < 20
    assert unpacked(out)["begun"] == b"y\n"
    assert not (state / "after").exists()
    rows = {line.split()[0]: line for line in (out / "table.txt").read_text().splitlines()}
    assert rows["commit"] == "commit abc"
    assert "stopped at its limit" in rows["stubborn"]
    assert "failed with exit code 5" in rows["wrong"]
    assert rows["right"].endswith("done                   12 of 12 agree")
    assert unpacked(out)["out/right/made.txt"] == b"x\n"


def test_what_fails_holds_up_nothing_and_a_second_call_does_what_is_missing(gpu15: ModuleType, tmp_path: Path) -> None:
    gpu15.GRACE = 1.0
    state, out = tmp_path / "state", tmp_path / "out"
    listed = [
        gpu15.Part("first", 5, [shell(f"echo run >> {state}/first")]),
        gpu15.Part("second", 5, [shell(f"echo run >> {state}/second; test -e {state}/mended")]),
        gpu15.Part("extra", 5, [shell(f"echo run >> {state}/extra")]),
    ]
    for _ in range(2):
        gpu15.Session(state, out, 100, "abc").run(listed, listed)
        (state / "mended").touch()
    assert [(state / name).read_text().split() for name in ("first", "second", "extra")] == [
        ["run"], ["run", "run"], ["run"],
    ]  # fmt: skip
    seen = json.loads((state / "parts.json").read_text())
    assert {name: part["state"] for name, part in seen.items()} == dict.fromkeys(("first", "second", "extra"), "done")


def test_no_part_begins_when_the_time_is_over(gpu15: ModuleType, tmp_path: Path) -> None:
    gpu15.GRACE = 1.0
    listed = [gpu15.Part("long", 50, [shell("sleep 50")]), gpu15.Part("next", 5, [shell("echo")])]
    begin = time.monotonic()
    gpu15.Session(tmp_path / "state", tmp_path / "out", 3, "abc").run(listed, listed)
    assert time.monotonic() - begin < 10
    assert "not begun" in (tmp_path / "out" / "table.txt").read_text().splitlines()[2]


@pytest.mark.parametrize(("together", "left"), [(60 << 20, {"c"}), (3 << 20, {"b", "c"})])
def test_what_comes_back_keeps_within_the_limits_and_names_what_does_not(
    together: int, left: set[str], gpu15: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (gpu15.FILES, gpu15.FILE_BYTES, gpu15.ALL_BYTES) == (8, 15 << 20, 60 << 20)
    monkeypatch.setattr(gpu15, "FILE_BYTES", 1 << 20)
    monkeypatch.setattr(gpu15, "ALL_BYTES", together)
    state, out = tmp_path / "state", tmp_path / "out"
    fill = "head -c {} /dev/urandom > {}/out/big/{}"
    listed = [gpu15.Part("big", 20, [shell(fill.format(size, state, name)) for name, size in
                                     (("a", 900_000), ("b", 2_500_000), ("c", 9_000_000))])]  # fmt: skip
    gpu15.Session(state, out, 100, "abc").run(listed, listed)
    files = list(out.iterdir())
    assert len(files) <= gpu15.FILES
    assert all(file.stat().st_size <= 1 << 20 for file in files)
    assert {f"out/big/{name}" for name in {"a", "b", "c"} - left} | {"logs/big.txt"} <= set(unpacked(out))
    named = ", ".join(f"out/big/{name}" for name in sorted(left))
    assert f"left out, for want of room: {named}" in (out / "table.txt").read_text()


def test_background_work_is_waited_for_by_the_part_that_needs_it(gpu15: ModuleType, tmp_path: Path) -> None:
    gpu15.GRACE = 1.0
    state, out = tmp_path / "state", tmp_path / "out"
    listed = [
        gpu15.Part("prepare", 5, [["&", *shell(f"sleep 1; touch {state}/prepared")]]),
        gpu15.Part("train", 10, [shell(f"test -e {state}/prepared")], waits=True),
    ]
    gpu15.Session(state, out, 100, "abc").run(listed, listed)
    assert "done" in (out / "table.txt").read_text().splitlines()[2]


def test_the_parts_fit_into_the_time(gpu15: ModuleType, tmp_path: Path) -> None:
    parts = gpu15.Parts("cuda", tmp_path, tmp_path)
    listed = parts.short()
    first = [
        "machine", "prepare", "determinism", "resume", "throughput", "ladder_preactresnet18", "energy", "cifar10",
    ]  # fmt: skip
    assert [part.name for part in listed] == [
        *first, "ladder_mobilenet_v3_large", "locate", "engines", "audit", "seeds",
    ]  # fmt: skip
    assert sum(part.seconds for part in listed[: len(first)]) == 470
    commands = [command for part in (*parts.short(), *parts.long()) for command in part.commands]
    scripts = {Path(command[1]) for command in commands if command[0] == sys.executable and command[1].endswith(".py")}
    assert {script.name for script in scripts} == {
        "evidence.py", "gpu15_checks.py", "gpu_study.py", "sweeping.py", "throughput.py",
    }  # fmt: skip
    assert all(script.is_file() for script in scripts)
    checks = {command[2] for command in commands if command[1].endswith("gpu15_checks.py")}
    assert checks == {"machine", "determinism", "resume", "energy", "engines"}
    without = gpu15.Parts("cuda", None, tmp_path)
    assert not [p for p in (*without.short(), *without.long()) if "cifar10" in repr(p) or "evidence" in repr(p)]


def test_an_interrupt_ends_what_is_running_and_packs_what_there_is(
    gpu15: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    listed = [gpu15.Part("before", 5, [shell("echo 3 of 3")]),
              gpu15.Part("long", 50, [shell(f"echo $$ > {state}/pid; exec sleep 60")])]  # fmt: skip
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout and timeout > 20:
            while not (state / "pid").exists() or not (state / "pid").read_text():
                time.sleep(0.01)
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu15.Session(state, out, 100, "abc").run(listed, listed)
    assert not Path("/proc", (state / "pid").read_text().strip()).exists()
    rows = (out / "table.txt").read_text().splitlines()
    assert rows[1].endswith("3 of 3")
    assert "not begun" in rows[2]


def test_a_difference_that_is_found_is_an_answer(gpu15: ModuleType, tmp_path: Path) -> None:
    listed = [gpu15.Part("locate", 5, [shell("echo they part; exit 4")], answers=gpu15.DIFFERS),
              gpu15.Part("check", 5, [shell("echo they part; exit 4")])]  # fmt: skip
    gpu15.Session(tmp_path / "state", tmp_path / "out", 100, "abc").run(listed, listed)
    rows = (tmp_path / "out" / "table.txt").read_text().splitlines()
    assert " done " in rows[1]
    assert "failed with exit code 4" in rows[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_part_on_the_cpu(tmp_path: Path) -> None:
    """Shell, runner, check and a process of twinrun; the forecast is still that of the committed predictions."""
    environment = {"DEVICE": "cpu", "PYTHON": sys.executable, "OUT": str(tmp_path / "out"), "COMMIT": "0123abc",
                   "STATE": str(tmp_path / "state"), "LIMIT": "1000"}  # fmt: skip
    command = [SCRIPT, "machine"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "commit 0123abc"
    assert re.search(r"^machine .* s  done .* 0 of 192 convolutions differ from the predictions$", done.stdout, re.M)
    found = unpacked(tmp_path / "out")
    assert json.loads(found["out/machine/forecast_against_predictions.json"]) == {"choices": 192, "differ": 0}
    assert json.loads(found["out/machine/card.json"])["deviceName"] == "NVIDIA H100 80GB HBM3"
    wrong = subprocess.run([SCRIPT, "speed"], env=os.environ | environment, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "no part speed; parts: machine determinism" in wrong.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_real_images_at_length(tmp_path: Path, real_data: Path) -> None:
    environment = {"DEVICE": "cpu", "PYTHON": sys.executable, "OUT": str(tmp_path / "out"), "LONG": "1",
                   "STATE": str(tmp_path / "state"), "DATA": str(real_data)}  # fmt: skip
    done = subprocess.run(
        [SCRIPT, "evidence_breast"], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    log = (tmp_path / "state" / "logs" / "evidence_breast.txt").read_text()
    assert re.search(r"^evidence_breast .* s  done ", done.stdout, re.M), log
    assert "one run after the other on this" in log  # the estimate
    assert "part in epoch 1, step 1" in log
    returned = unpacked(tmp_path / "out")
    report = returned["evidence_breast/report/report.md"].decode()
    assert "Yes: in the one cell the deterministic runs agree to the last bit." in report
    assert b"BreastMNIST" in returned["evidence_breast/params.yaml"]
