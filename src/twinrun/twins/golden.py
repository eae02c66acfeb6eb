"""Golden fingerprints: recorded once for each platform, in a file beside the tests, and compared from then on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from twinrun.study.errors import InputError
from twinrun.study.files import read_json, write_json
from twinrun.study.lock import hold
from twinrun.study.pins import leaks
from twinrun.twins.nested import digest

UPDATE = "--twinrun-update"
PATIENCE_SECONDS = 60.0  # other processes of a parallel test run write their own


def this_platform() -> str:
    """All that decides about bits here: system, library, instruction set, processor or GPU.

    With the variables of `study/pins.py` set, the processor does not count: the bits are the same on every one.
    """
    names = [f"{platform.system()} {platform.machine()}"]
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:
        names += [f"torch {torch.__version__.split('+')[0]}", torch.backends.cpu.get_cpu_capability()]
        if torch.cuda.is_initialized():
            names += [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
    elif numpy is not None:
        names += [f"numpy {numpy.__version__}"]
    pinned = not {name for name, value in leaks(os.environ).items()} - {"PYTHONNOUSERSITE", "PYTHONSAFEPATH"}
    return ", ".join([*names, "pinned" if pinned else processor()])


def processor() -> str:
    """The name of the processor here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def check(file: Path, name: str, value: Any, *, update: bool) -> None:
    """Raise AssertionError unless the value has the fingerprint that `file` holds under `name` for this platform.

    A text is a fingerprint itself, of anything else `nested.digest` is taken. With `update` it is recorded instead.
    """
    __tracebackhide__ = True
    here, fingerprint = this_platform(), value if isinstance(value, str) else digest(value)
    if update:
        with hold(file.with_suffix(".lock"), f"{file} is being written", patience=PATIENCE_SECONDS):
            golden = _read(file)
            golden.setdefault(name, {})[here] = fingerprint
            write_json(file, golden)
            file.with_suffix(".lock").unlink(missing_ok=True)
        return
    known = _read(file).get(name, {})
    if here not in known:
        there = "; ".join(known) or "none"
        raise AssertionError(
            f"{name}: no golden fingerprint of this platform ({here}; there is: {there}); {UPDATE} records it"
        )
    if known[here] != fingerprint:
        raise AssertionError(
            f"{name}: fingerprint {fingerprint[:16]}... instead of {known[here][:16]}... on {here}; if that is "
            f"meant: {UPDATE}"
        )


def _read(file: Path) -> dict[str, dict[str, str]]:
    if not file.exists():
        return {}
    content = read_json(file)
    for entry in content.values() if isinstance(content, dict) else [content]:
        if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
            raise InputError(f"{file}: no golden fingerprints", f"remove it and record them again with {UPDATE}")
    return content
