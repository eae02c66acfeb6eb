"""Both container recipes say the same: base, lock, script, files, version; the entry point's sentences."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from container import bom
from packaging.utils import canonicalize_name
from tests.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
DEFINITION = (REPOSITORY / "apptainer.def").read_text()
ENTRYPOINT = (REPOSITORY / "container" / "entrypoint.sh").read_text()
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()


def section(name: str) -> list[str]:
    """The lines of one section of apptainer.def."""
    found = re.search(rf"^%{name}\n((?:(?!%).*\n)*)", DEFINITION, re.MULTILINE)
    assert found, name
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def single(pattern: str, text: str) -> str:
    found = set(re.findall(pattern, text, re.MULTILINE))
    assert len(found) == 1, (pattern, found)
    return str(found.pop())


def test_the_same_base_by_digest() -> None:
    base = single(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE)
    assert re.fullmatch(r"debian:bookworm-slim@sha256:[0-9a-f]{64}", base)
    assert f"BASE_IMAGE={base}" in section("arguments")
    assert "FROM ${BASE_IMAGE}" in DOCKERFILE
    assert "From: {{ BASE_IMAGE }}" in DEFINITION


def test_the_same_script_in_the_same_steps() -> None:
    steps = re.findall(r"^RUN (.*)$", DOCKERFILE, re.MULTILINE)
    assert steps == [line for line in section("post") if not line.startswith("export ")]
    assert [step.split()[-1] for step in steps] == ["packages", "project"]
    script = (REPOSITORY / "container" / "install.sh").read_text()
    assert "--require-hashes -r $home/study/requirements.lock" in script
    assert "-r $home/study/requirements-uv.lock" in script
    handed_over = set(re.findall(r"(\w+)='\{\{ \w+ \}\}'", "\n".join(section("post"))))
    assert (
        handed_over
        == {"BASE_IMAGE", "COMMIT", "SOURCE_DATE_EPOCH"}
        <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    )


def test_the_locks_hold_hashes_and_name_no_index() -> None:
    for lock in REPOSITORY.glob("requirements*.lock"):
        text = lock.read_text()
        assert "://" not in text, lock.name
        assert not re.search(r"^(-i|-f|--index|--extra|--find)", text, re.MULTILINE), lock.name
        for package in re.split(r"\n(?=\S)", text):
            assert package.startswith("#") or ("==" in package and "--hash=sha256:" in package), package


def test_the_bill_of_materials_is_the_lock() -> None:
    """And what is installed here is what the lock says."""
    lock = bom.locked((REPOSITORY / "requirements.lock").read_text())
    document = bom.bom(lock, {"libc6": "2.36-9+deb12u10"}, "0.1.0", "2026-11-28T00:00:00Z")
    references = [component["bom-ref"] for component in document["components"]]
    assert len(set(references)) == len(references) == len(lock) + 1
    torch = next(component for component in document["components"] if component["name"] == "torch")
    assert torch["purl"] == "pkg:pypi/torch@2.11.0"
    assert all(re.fullmatch("[0-9a-f]{64}", item["value"]) for item in torch["properties"])
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10" in references
    installed = {canonicalize_name(item.metadata["Name"]): item.version for item in metadata.distributions()}
    assert bom.differences(lock, {name: installed[name] for name in lock} | {"pip": "26.0"}) == []


def test_what_is_not_as_locked_is_named() -> None:
    lock = bom.locked(
        "a==1 \\\n    --hash=sha256:" + "0" * 64 + "\nb==2 ; sys_platform == 'win32' \\\n    --hash=sha256:1\n"
    )
    assert lock == {"a": ("1", ["0" * 64])}
    assert bom.differences(lock, {"a": "2", "c": "3", "twinrun": "0.1.0"}) == [
        "a: the lock has 1, installed is 2",
        "c: the lock has none, installed is 3",
    ]
    assert bom.differences(lock, {}) == ["a: the lock has 1, installed is none"]


def test_the_same_files() -> None:
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = dict(line.split() for line in section("files"))
    assert sorted(copied) == sorted(kept)
    for name, target in copied.items():
        assert target == f"/opt/twinrun/study/{Path(name).parent}/".replace("/./", "/")
        assert (REPOSITORY / name).exists(), name


def test_the_images_own_study_has_all_that_its_pipeline_reads() -> None:
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].values()
    made = {"data"} | {Path(out).parts[0] for stage in stages for out in stage["outs"]}
    read = {Path(dependency).parts[0] for stage in stages for dependency in stage["deps"]}
    assert read <= kept | made


def test_the_same_labels_and_the_packages_version() -> None:
    docker = dict(re.findall(r'(org\.opencontainers\.\S+?)="(.*?)"', DOCKERFILE))
    apptainer = dict(line.split(" ", 1) for line in section("labels"))
    assert {name: re.sub(r"\$\{(\w+)\}", r"{{ \1 }}", text) for name, text in docker.items()} == apptainer
    version = single(r'^version = "(.*)"$', PYPROJECT)
    assert docker["org.opencontainers.image.version"] == version


def test_no_variable_of_a_study_is_fixed_in_an_image() -> None:
    """Apptainer could not override it from outside, and twinrun sets each run's own."""
    environment = (REPOSITORY / "container" / "environment.sh").read_text()
    from twinrun.study.pins import PINNED, REMOVED

    for name in {*PINNED, *REMOVED} - {"PYTHONNOUSERSITE"}:
        for text in (DOCKERFILE, "\n".join(section("environment")), environment, ENTRYPOINT):
            assert name not in text


def test_the_command_that_an_installation_makes_is_there() -> None:
    for name, target in tomllib.loads(PYPROJECT)["project"]["scripts"].items():
        assert callable(EntryPoint(name, target, "console_scripts").load())


def test_both_enter_by_the_same_script() -> None:
    path = "/opt/twinrun/study/container/entrypoint.sh"
    assert f'ENTRYPOINT ["{path}"]' in DOCKERFILE
    assert section("runscript") == [f'exec {path} "$@"']
    assert section("test")[-1] == f"{path} doctor"


def test_the_small_study_is_the_sample_study_in_few_runs() -> None:
    sample = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    small = yaml.safe_load((REPOSITORY / "studies" / "small.yaml").read_text())
    for key in ("tasks", "execution", "analysis"):
        assert small[key] == sample[key]
    for key, values in small["grid"].items():
        assert set(values) <= set(sample["grid"][key])
    assert "det_1" in small["grid"]["runs"]


@pytest.fixture
def enter(tmp_path: Path):
    """Runs the entry point in a folder, with a stand-in for what it starts; only the image's paths are replaced."""
    image = tmp_path / "image"
    (image / "study" / "container").mkdir(parents=True)
    (image / "venv" / "bin").mkdir(parents=True)
    (image / "image.json").write_text("{}")
    (image / "study" / "params.yaml").write_text("")
    for name in ("dvc", "twinrun"):
        program = image / "venv" / "bin" / name
        program.write_text(f'#!/bin/bash\necho {name} "$@" in "$PWD"; env\n')
        program.chmod(0o755)
    for name in ("entrypoint.sh", "environment.sh"):
        text = (REPOSITORY / "container" / name).read_text().replace("/opt/twinrun", str(image))
        script = image / "study" / "container" / name
        script.touch(0o755)
        script.write_text(
            text.replace("/study/.nothing", f"{tmp_path}/unmounted/.nothing").replace(
                "= /study ]", f"= {tmp_path}/unmounted ]"
            )
        )
    (tmp_path / "unmounted").mkdir()
    (tmp_path / "unmounted" / ".nothing-is-mounted-here").touch()
    (tmp_path / "scratch").mkdir()

    def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")} | variables
        command = [str(image / "study" / "container" / "entrypoint.sh"), *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


def checkout(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).touch()
    return folder


def test_what_the_entry_point_starts(enter, tmp_path: Path) -> None:
    study = checkout(tmp_path / "a study")
    for arguments, started in [
        ([], f"twinrun --help in {study}"),
        (["dvc", "repro"], f"dvc repro in {study}"),
        (["train", "--index", "3"], f"twinrun train --index 3 in {study}"),
        (["bash", "-c", "echo $PWD"], str(study)),
    ]:
        done = enter(*arguments, folder=study)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == started


def test_nothing_of_the_user_leaks_in(enter, tmp_path: Path) -> None:
    trap = tmp_path / "mine"
    trap.write_text("echo /mine; exit 1")
    mine = {"PYTHONPATH": "/mine", "PYTHONUSERBASE": "/mine", "BASH_ENV": str(trap), "LD_LIBRARY_PATH": "/mine",
            "VIRTUAL_ENV": "/mine", "DVC_GLOBAL_CONFIG_DIR": "/mine", "HOME": "/mine", "MPLCONFIGDIR": "/mine",
            "MPLBACKEND": "/mine", "DVC_SITE_CACHE_DIR": "/mine", "SHELL": "/mine"}  # fmt: skip
    done = enter("plan", folder=checkout(tmp_path / "study"), **mine)
    assert "/mine" not in done.stdout
    assert f"HOME={tmp_path}/scratch/twinrun-{os.getuid()}" in done.stdout.splitlines()


def test_without_a_mount_the_images_own_study_runs(enter, tmp_path: Path) -> None:
    for _ in range(2):  # the second finds the copy of the first
        done = enter("plan", folder=tmp_path / "unmounted")
        assert done.stdout.startswith(f"twinrun plan in {tmp_path}/scratch/twinrun-{os.getuid()}/study-"), done.stderr


def test_somebody_elses_scratch_folder_is_left_alone(enter, tmp_path: Path) -> None:
    taken = tmp_path / "scratch" / f"twinrun-{os.getuid()}"
    taken.touch()
    done = enter("plan", folder=checkout(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    home = next(line for line in done.stdout.splitlines() if line.startswith("HOME="))
    assert home.startswith(f"HOME={tmp_path}/scratch/twinrun-")
    assert home != f"HOME={taken}"


def test_a_folder_that_is_no_checkout(enter, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = enter("dvc", "repro", folder=tmp_path / "empty")
    assert done.returncode == 2
    assert f"{tmp_path}/empty is not a checkout of the study" in done.stderr
    assert '-v "$PWD:/study"' in done.stderr


def test_a_study_that_cannot_be_written(enter, tmp_path: Path) -> None:
    """Read-only, as by `-v ...:ro`: root may write anywhere else."""
    study = checkout(tmp_path / "study")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && exec "$2" dvc repro'
    entry = tmp_path / "image" / "study" / "container" / "entrypoint.sh"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-ec", script, "-", str(study), str(entry)],
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{study} cannot be written by user" in done.stderr


def test_a_scratch_folder_that_is_full(enter, tmp_path: Path) -> None:
    checkout(tmp_path / "study")
    entry = tmp_path / "image" / "study" / "container" / "entrypoint.sh"
    full = "mount -t tmpfs -o size=64k tmpfs $TMPDIR; head -c 1M /dev/zero >$TMPDIR/filler || true"
    script = f'{full}; cd "$1"; exec "$2" dvc repro'
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-ec", script, "-", str(tmp_path / "study"), str(entry)],
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be written, or is full" in done.stderr
    assert "--tmpfs /tmp" in done.stderr


def test_an_empty_build_date_is_none() -> None:
    text = (REPOSITORY / "container" / "install.sh").read_text().partition("# Byte code")[0]
    command = ["bash", "-c", f'{text}\necho "${{SOURCE_DATE_EPOCH-none}}"']
    for date, seen in (("", "none"), ("7", "7")):
        done = subprocess.run(
            command,
            env={"SOURCE_DATE_EPOCH": date, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{seen}\n"
