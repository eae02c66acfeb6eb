"""benchmarks/gpu.sh where there is no GPU: its parts on the CPU, on a small scale."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu.sh"


def part(name: str, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one part as on a GPU, but for DEVICE."""
    return subprocess.run(
        [SCRIPT, name, out],
        env=os.environ | {"DEVICE": "cpu", "PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_nothing_is_measured_unless_asked(tmp_path: Path) -> None:
    done = part("throughput", tmp_path / "out", DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "gpu.sh: torch sees no CUDA device here; DEVICE=cpu tries the script without one",
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_part_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    done = part("speed", tmp_path)
    assert done.returncode == 2
    assert "no part speed; parts: check_preactresnet18 " in done.stderr


def test_each_test_on_a_gpu_is_in_exactly_one_part() -> None:
    """`--noconftest`, for conftest.py leaves these tests out where there is no GPU."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--noconftest", "-m", "cuda"]
    listed = subprocess.run(
        [*command, "tests/training/test_cuda.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = [line.partition("::")[2] for line in listed.stdout.splitlines() if "::" in line]
    assert len(names) > 40
    text = SCRIPT.read_text()
    parts = [word for word in re.search(r"parts=\((.*?)\)", text, re.S)[1].split() if re.match("check|resume", word)]  # type: ignore[index]
    function = re.search(r"^chosen\(\) \{.*?^\}", text, re.S | re.M)[0]  # type: ignore[index]
    chosen: list[str] = []
    for name in parts:
        words = subprocess.check_output(["bash", "-c", f'{function}; chosen "$1"', "-", name], text=True)
        rule = re.sub(r"\w+", lambda word: word[0] if word[0] in ("and", "not") else f"({word[0]!r} in test)", words)
        found = [test for test in names if eval(rule, {"test": test})]
        assert found, f"{name} chooses no test"
        chosen += found
    assert sorted(chosen) == sorted(names)


@pytest.mark.slow
def test_throughput_and_sweeps_leave_their_ratios(tmp_path: Path) -> None:
    for name in ("throughput", "sweeping"):
        done = part(name, tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"machine_{name}.txt").stat().st_size > 0
    rates = json.loads((tmp_path / "throughput_tf32.json").read_text())["images_per_second"]
    assert {"constant batch", "classic, 2 workers", "classic, 8 workers"} < set(rates)
    report = json.loads((tmp_path / "sweeping.json").read_text())
    assert report["same_bits"] is True
    [seconds] = report["seconds"]
    assert report["jobs_2"]["to_one"] == [seconds["1"] / seconds["2"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_real_images_stops_at_the_limit_and_goes_on(tmp_path: Path, real_data: Path) -> None:
    begun = part("evidence_breast", tmp_path, DATA=str(real_data), LIMIT="1")
    assert begun.returncode == 3, begun.stderr
    assert f"call `DATA={real_data} benchmarks/gpu.sh evidence_breast {tmp_path}` again for the rest" in begun.stderr
    done = part("evidence_breast", tmp_path, DATA=str(real_data))
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "evidence_breast" / "report" / "report.md").read_text()
    assert "Yes: in all 2 cells the deterministic runs agree to the last bit." in report
    assert "part in epoch 1, step 1" in (tmp_path / "evidence_breast_locate.txt").read_text()
    assert "BreastMNIST" in (tmp_path / "evidence_breast" / "params.yaml").read_text()
    assert "hours" in (tmp_path / "evidence_breast_estimate.txt").read_text()
    # What is there is kept, and a study that is begun keeps its length.
    records = sorted((tmp_path / "evidence_breast_study" / "runs").rglob("record.json"))
    shutil.rmtree(records[0].parent)
    before = [(record, record.stat().st_mtime_ns) for record in records[1:]]
    done = part("evidence_breast", tmp_path, DATA=str(real_data), EPOCHS="2")
    assert done.returncode == 1
    assert "holds a study with epochs: 1; ask for these, or remove it" in done.stderr
    done = part("evidence_breast", tmp_path, DATA=str(real_data))
    assert done.returncode == 0, done.stderr
    assert "1 run trained, 7 were there already" in done.stdout
    assert [(record, record.stat().st_mtime_ns) for record in records[1:]] == before


def test_a_study_of_real_images_needs_them(tmp_path: Path) -> None:
    done = part("evidence_cracks", tmp_path / "out")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "gpu.sh: evidence needs DATA, the folder with the real images",
    )
    done = part("evidence_cracks", tmp_path / "out", DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"evidence.py: {tmp_path} holds no cracks.tar.xz"
