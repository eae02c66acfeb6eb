"""What the doctor finds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from tests.conftest import TINY

from twinrun.launch import doctor
from twinrun.launch.doctor import Finding, examine, judge_gpu, judge_processor


def texts(findings: list[Finding], level: str) -> str:
    return "\n".join(finding.text for finding in findings if finding.level == level)


def test_a_good_machine(tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "params.yaml")
    findings = examine(tmp_path)
    assert texts(findings, "bad") == ""
    good = texts(findings, "good")
    assert "AVX2" in good
    assert "torch: 2.11.0" in good
    assert "torchvision: 0.26.0" in good


@pytest.mark.parametrize(
    ("address", "named"), [("../lab", True), ("../there", False), ("s3://bucket/study", False), ("", False)]
)
def test_a_remote_whose_disk_is_not_mounted(address: str, named: bool, tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "params.yaml")
    for folder in (".dvc", "there"):
        (tmp_path / folder).mkdir()
    text = "[core]\n    analytics = false\n    remote = lab\n['remote \"lab\"']\n    verify = true\n"
    (tmp_path / ".dvc" / "config").write_text(text)
    if address:  # what a machine adds stands in a file of its own
        (tmp_path / ".dvc" / "config.local").write_text(f"['remote \"lab\"']\n    url = {address}\n")
    said = f"DVC's remote lab: no folder {tmp_path}/lab; is its disk mounted?" in texts(examine(tmp_path), "note")
    assert said is named


@pytest.mark.parametrize(("driver", "level"), [("580.65.06", "good"), ("591.1", "good"), ("575.57.08", "bad")])
def test_driver(driver: str, level: str) -> None:
    finding = judge_gpu("H200", driver, "143771 MiB", "9.0")
    assert finding.level == level
    assert driver in finding.text
    assert "CUDA 13.0" in finding.text


@pytest.mark.parametrize(
    ("capability", "level"), [("7.0", "bad"), ("6.1", "bad"), ("7.5", "good"), ("12.0", "good"), ("[N/A]", "good")]
)
def test_a_card_that_cuda_has_dropped(capability: str, level: str) -> None:
    finding = judge_gpu("card", "580.65.06", "16384 MiB", capability)
    assert finding.level == level
    assert ("compute capability" in finding.text) == (level == "bad")


def play_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process in place of nvidia-smi."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_cards_are_judged_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = "printf 'Tesla V100, 580.65.06, 16384 MiB, 7.0\\nNVIDIA T4, 580.65.06, 15360 MiB, 7.5\\n'"
    play_nvidia_smi(tmp_path, cards, monkeypatch)
    findings = examine(tmp_path)
    assert "Tesla V100 (compute capability 7.0) is too old for CUDA 13.0, which needs 7.5" in texts(findings, "bad")
    assert "GPU: NVIDIA T4" in texts(findings, "good")


def test_a_driver_that_does_not_know_the_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """case $* in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac
echo 'Tesla K80, 470.82.01, 11441 MiB'"""
    play_nvidia_smi(tmp_path, script, monkeypatch)
    assert "driver 470.82.01 is too old for CUDA 13.0" in texts(examine(tmp_path), "bad")


def test_variables_that_leak_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("LD_PRELOAD", "/nothing.so")
    monkeypatch.delenv("HOME")
    findings = examine(tmp_path)
    assert "NVIDIA_TF32_OVERRIDE=1" in texts(findings, "note")
    assert "OMP_NUM_THREADS=8" in texts(findings, "note")
    assert "HOME is not set" in texts(findings, "note")
    assert "LD_PRELOAD=/nothing.so" in texts(findings, "bad")


def test_an_old_processor() -> None:
    finding = judge_processor("processor : 0\nflags : fpu sse4_2 avx\n")
    assert finding.level == "bad"
    assert "without AVX2, FMA" in finding.text


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    bad = texts(examine(tmp_path), "bad")
    assert "1.0 GB free" in bad
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10**7))
    assert f"folder {tempfile.gettempdir()}: 10 MB free, 67 MB are needed" in texts(examine(tmp_path), "bad")


def test_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails as nvidia-smi does without a kernel module."""
    script = "echo 'NVIDIA-SMI has failed because it could not communicate' >&2; exit 9"
    play_nvidia_smi(tmp_path, script, monkeypatch)
    assert "GPU: nvidia-smi fails: NVIDIA-SMI has failed" in texts(examine(tmp_path), "bad")


def test_a_study_for_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    (tmp_path / "params.yaml").write_text(TINY.read_text().replace("device: cpu", "device: cuda"))
    assert "execution.device is cuda, and there is no usable GPU" in texts(examine(tmp_path), "bad")
    (tmp_path / "params.yaml").write_text("schema: 9")
    assert "schema" in texts(examine(tmp_path), "bad")


def test_a_checkout_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    assert "belongs to user" not in texts(examine(tmp_path), "note")
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(doctor.os, "getuid", lambda: owner + 1)
    assert f"belongs to user {owner}, you are {owner + 1}: git, `dvc diff`" in texts(examine(tmp_path), "note")


def test_other_code_than_the_checkouts(tmp_path: Path) -> None:
    (tmp_path / "src" / "twinrun" / "training").mkdir(parents=True)
    assert "code: the code that runs, in " in texts(examine(tmp_path), "bad")


def test_in_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "image_revision", lambda: "0123abc")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    notes = texts(examine(tmp_path), "note")
    assert "container: an image of commit 0123abc" in notes
    assert "docker run --gpus all" in notes
