"""Energy of a stretch of work in joules, from the processor's own counter; null with its reason where there is none."""

from __future__ import annotations

from pathlib import Path

RAPL = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads RAPL package counters (microjoules, which wrap around) before and after."""

    def __init__(self, root: Path = RAPL) -> None:
        self.zones = sorted(root.glob("intel-rapl:[0-9]*"))
        self.zones = [zone for zone in self.zones if zone.name.count(":") == 1]
        self.start = self._read()

    def _read(self) -> list[int] | None:
        try:
            return [int((zone / "energy_uj").read_text()) for zone in self.zones] or None
        except (OSError, ValueError):
            return None

    def joules(self) -> tuple[float | None, str]:
        """Energy since construction and where the number is from, or None and why there is none."""
        end = self._read()
        if self.start is None or end is None:
            reason = "not readable" if self.zones else "not there"
            return None, f"not measured: the processor's energy counter (RAPL) is {reason}"
        total = 0
        for zone, before, after in zip(self.zones, self.start, end, strict=True):
            if after < before:
                after += int((zone / "max_energy_range_uj").read_text())
            total += after - before
        return total / 1e6, "RAPL packages: the whole processor, other work on it included"
