"""`twinrun doctor`: what this machine can do, in plain words, and what would spoil a study."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from twinrun.study.checkout import CODE_PARTS, REPORT_PARTS, image_revision, require_same_code
from twinrun.study.errors import TwinrunError
from twinrun.study.layout import Layout
from twinrun.study.pins import leaks

# CUDA 13.0 needs this branch of the Linux driver or a newer one (CUDA 13.0 release notes, table of minimum versions).
MINIMUM_DRIVER = (580, 0)
# And no longer compiles for older cards: Maxwell, Pascal and Volta (same notes, deprecated architectures).
MINIMUM_CAPABILITY = (7, 5)
NEEDED_BYTES = 2 * 1024**3
NEEDED_TEMPORARY_BYTES = 64 * 1024**2  # caches of DVC and matplotlib; what `twinrun verify` trains


@dataclass(frozen=True)
class Finding:
    """One fact; `level` is `good`, `note` (nothing to do) or `bad` (a study would fail or differ)."""

    level: str
    text: str


def examine(root: Path) -> list[Finding]:
    """Every finding about this machine and about the study folder `root`."""
    gpu = _gpu()
    machine, study = [*_processor(), *gpu], [*_study(root, gpu), *_code(root), *_folders(root), *_remote(root)]
    return [*machine, *study, *_variables(), *_packages()]


def _processor() -> list[Finding]:
    try:
        return [judge_processor(Path("/proc/cpuinfo").read_text())]
    except OSError:
        return [Finding("note", "processor: its features cannot be read here")]


def judge_processor(cpuinfo: str) -> Finding:
    """Whether the processor has the instructions that the pinned numerics use."""
    flags = set(next((line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), []))
    lacking = ", ".join(sorted({"avx2", "fma"} - flags)).upper()
    if lacking:
        return Finding("bad", f"processor: without {lacking}: fingerprints will differ from those in expected/")
    cores = len(os.sched_getaffinity(0))
    return Finding("good", f"processor: {cores} cores, AVX2 and FMA: the fingerprints in expected/ hold here")


def _gpu() -> list[Finding]:
    if not shutil.which("nvidia-smi"):
        passed = ""
        if image_revision() is not None:
            passed = " (a machine's GPU is passed into a container by `docker run --gpus all` or `apptainer run --nv`)"
        text = f"GPU: no NVIDIA driver here{passed}; runs use the CPU, whose implementation noise is emulated"
        return [Finding("note", text)]
    fields = "name,driver_version,memory.total"
    try:
        done = _query(f"{fields},compute_cap")
        if "compute_cap" in done.stdout + done.stderr:  # a driver so old that it does not know this field
            done = _query(fields)
    except (OSError, subprocess.TimeoutExpired):
        return [Finding("bad", "GPU: nvidia-smi does not answer within a minute")]
    if done.returncode or not done.stdout.strip():
        return [Finding("bad", f"GPU: nvidia-smi fails: {' '.join((done.stderr or done.stdout).split())[:200]}")]
    findings = []
    for line in done.stdout.strip().splitlines():
        findings.append(judge_gpu(*(part.strip() for part in line.split(","))))
    return findings


def _query(fields: str) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _study(root: Path, gpu: list[Finding]) -> list[Finding]:
    if not (root / "params.yaml").is_file():
        return []
    from twinrun.study.params import read_params

    try:
        execution = read_params(root / "params.yaml").execution
    except TwinrunError as error:
        return [Finding("bad", error.message)]
    device = execution.device
    if device == "cuda" and not any(finding.level == "good" for finding in gpu):
        return [Finding("bad", "study: execution.device is cuda, and there is no usable GPU here")]
    if execution.cpu_bits == "this_cpu":
        text = "study: execution.cpu_bits is this_cpu: its bits are those of this kind of processor alone"
        return [Finding("note", text)]
    return [Finding("good", f"study: execution.device is {device}")]


def _code(root: Path) -> list[Finding]:
    revision = image_revision()
    findings = [Finding("note", f"container: an image of commit {revision}")] if revision is not None else []
    source, running = Layout(root).source, Path(__file__).parents[1]
    try:
        require_same_code(Layout(root), (*CODE_PARTS, *REPORT_PARTS))
    except TwinrunError as error:
        return [*findings, Finding("bad", f"code: {error.message}; {error.hint}")]
    if source.is_dir() and not source.samefile(running):
        findings.append(Finding("note", f"code: that of {running} runs, which equals this folder's: edits here do not"))
    return findings


def judge_gpu(name: str, driver: str, memory: str, capability: str = "") -> Finding:
    """Whether a GPU and its driver are new enough for the CUDA that torch brings; an unknown capability passes."""
    if _numbers(driver) < MINIMUM_DRIVER:
        wanted = ".".join(map(str, MINIMUM_DRIVER))
        return Finding("bad", f"GPU: {name}, driver {driver} is too old for CUDA 13.0, which needs {wanted} or newer")
    if _numbers(capability) and _numbers(capability) < MINIMUM_CAPABILITY:
        wanted = ".".join(map(str, MINIMUM_CAPABILITY))
        return Finding(
            "bad",
            f"GPU: {name} (compute capability {capability}) is too old for CUDA 13.0, which needs {wanted} (Turing) or "
            "newer: nothing can be trained on it",
        )
    return Finding("good", f"GPU: {name}, {memory}, driver {driver}: new enough for CUDA 13.0")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _folders(root: Path) -> list[Finding]:
    findings = []
    free = shutil.disk_usage(root).free
    level = "good" if free >= NEEDED_BYTES else "bad"
    findings.append(Finding(level, f"disk: {free / 1e9:.1f} GB free in the study folder, the sample study needs 2"))
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    if temporary.is_dir() and (free := shutil.disk_usage(temporary).free) < NEEDED_TEMPORARY_BYTES:
        needed = f"{NEEDED_TEMPORARY_BYTES / 1e6:.0f} MB"
        findings.append(Finding("bad", f"folder {temporary}: {free / 1e6:.0f} MB free, {needed} are needed"))
    for folder in (root, temporary):
        probe = folder / f".twinrun-doctor-{os.getpid()}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            findings.append(Finding("bad", f"folder {folder}: cannot be written ({error.strerror})"))
    if shutil.which("git") and (root / ".git").exists() and root.stat().st_uid != os.getuid():
        owner = f"folder {root.resolve()}: belongs to user {root.stat().st_uid}, you are {os.getuid()}"
        findings.append(
            Finding("note", f"{owner}: git, `dvc diff` and `dvc exp` refuse it; running and recording a study work")
        )
    if not (root / "params.yaml").is_file():
        findings.append(Finding("bad", f"folder {root.resolve()}: no params.yaml: this is not a study folder"))
    if not os.environ.get("HOME"):
        findings.append(Finding("note", "HOME is not set: nothing here needs it"))
    return findings


def _remote(root: Path) -> list[Finding]:
    """Where DVC's default remote is a folder that is not there: DVC itself names neither when it can bring nothing."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, OSError, UnicodeError):
        return []  # DVC says so in any command
    name = config.get("core", "remote", fallback="")
    address = config.get(f"'remote \"{name}\"'", "url", fallback="")
    folder = Path(os.path.normpath(root.resolve() / ".dvc" / address))
    if not address or "://" in address or folder.is_dir():
        return []
    text = (
        f"DVC's remote {name}: no folder {folder}; is its disk mounted? `dvc pull` finds nothing, `dvc push` makes it"
    )
    return [Finding("note", text)]


def _variables() -> list[Finding]:
    leaked = {name: value for name, value in leaks(os.environ).items() if value is not None}
    findings = [
        Finding("note", f"variable {name}={value} would change results; runs ignore it and set their own")
        for name, value in sorted(leaked.items())
    ]
    if os.environ.get("PYTHONPATH"):
        findings.append(
            Finding("note", f"variable PYTHONPATH={os.environ['PYTHONPATH']}: packages from there come first")
        )
    if os.environ.get("LD_PRELOAD"):
        findings.append(
            Finding("bad", f"variable LD_PRELOAD={os.environ['LD_PRELOAD']}: may replace numerical libraries")
        )
    return findings or [Finding("good", "variables: none that would change results")]


def _packages() -> list[Finding]:
    from importlib import metadata

    wanted = {"torch": "2.11.0", "torchvision": "0.26.0"}
    findings = []
    for name, version in wanted.items():
        try:
            installed = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            installed = "not installed"
        level = "good" if installed == version else "bad"
        findings.append(
            Finding(level, f"{name}: {installed}" + ("" if level == "good" else f", the study needs {version}"))
        )
    return findings
