"""Energy of a stretch of work in joules, from the hardware's own counter; null with its reason where there is none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import torch

from twinrun.training.gpu import Gpu

RAPL = Path("/sys/class/powercap")
IDLE_SAMPLES, IDLE_INTERVAL_SECONDS = 5, 0.1


class EnergyMeter(Protocol):
    """Counts from its construction on."""

    idle_watts: float | None  # power before the work began

    def joules(self, *, shared: bool) -> tuple[float | None, str]:
        """Energy since construction and where the number is from, or None and why there is none.

        `shared`: other runs were on the machine, though not necessarily on this device.
        """


def energy_meter(device: torch.device) -> EnergyMeter:
    """The meter of that device; make it before anything runs there."""
    if device.type == "cpu":
        return CpuMeter()
    gpu = Gpu(str(torch.cuda.get_device_properties(device).uuid))
    # A process that has computed there before, as when it trains a second run, is counted by NVML already.
    return GpuMeter(gpu, ours=int(torch._C._cuda_hasPrimaryContext(device.index or 0)))  # type: ignore[attr-defined]


class CpuMeter:
    """Reads RAPL package counters (microjoules, which wrap around) before and after."""

    idle_watts: float | None = None

    def __init__(self, root: Path = RAPL) -> None:
        # Not `psys`, which holds the packages once more.
        self.zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _name(zone).startswith("package-")]
        self.start = self._read()

    def _read(self) -> list[tuple[int, int]] | None:
        try:
            return [
                (int((zone / "energy_uj").read_text()), int((zone / "max_energy_range_uj").read_text()))
                for zone in self.zones
            ] or None
        except (OSError, ValueError):
            return None

    def joules(self, *, shared: bool) -> tuple[float | None, str]:
        """Energy of all packages."""
        if shared:
            return None, "not measured: other runs shared the processor"
        end = self._read()
        if self.start is None or end is None:
            reason = "not readable" if self.zones else "not there"
            return None, f"not measured: the processor's energy counter (RAPL) is {reason}"
        total = sum(
            after - before + (span if after < before else 0)
            for (before, span), (after, _) in zip(self.start, end, strict=True)
        )
        return total / 1e6, "RAPL packages: the whole processor, other work on it included"


class GpuMeter:
    """Reads the energy counter of one GPU before and after; the caller waits for the device before each.

    `ours` is 1 when this process has a context on the device already, so that NVML counts it, else 0.
    """

    def __init__(self, gpu: Gpu, ours: int = 0) -> None:
        self.gpu = gpu
        self.others_before = max(0, (gpu.process_count() or 0) - ours)
        samples = []
        for _ in range(IDLE_SAMPLES if gpu.fault is None else 0):
            samples.append(gpu.power_watts())
            time.sleep(IDLE_INTERVAL_SECONDS)
        known = [watts for watts in samples if watts is not None]
        self.idle_watts = sum(known) / len(known) if known and not self.others_before else None
        self.start = gpu.energy_millijoules()

    def joules(self, *, shared: bool) -> tuple[float | None, str]:
        """Energy of the whole card, where nobody else computed on it: before the work began, or now."""
        if self.gpu.fault:
            return None, f"not measured: {self.gpu.fault}"
        now = self.gpu.process_count()
        if shared and not now:  # this process is there: one that NVML does not count hides others, too
            return None, "not measured: other runs shared the machine, and NVML does not count who is on the GPU"
        others = max(self.others_before, (now or 1) - 1)
        if others:
            return None, f"not measured: {others} other processes computed on the GPU"
        end = self.gpu.energy_millijoules()
        if self.start is None or end is None:
            return None, "not measured: this GPU has no energy counter (older than Volta, or a MIG slice)"
        return (end - self.start) / 1000, "NVML energy counter: the whole GPU"


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""
