"""Energy of a stretch of work in joules, from the processor's own counter; null with its reason where there is none."""

from __future__ import annotations

from pathlib import Path

RAPL = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads RAPL package counters (microjoules, which wrap around) before and after."""

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

    def joules(self, *, device: str, shared: bool) -> tuple[float | None, str]:
        """Energy since construction and where the number is from, or None and why there is none."""
        if device != "cpu":
            return None, "not measured: the GPU's energy counter is not read by this version"
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


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""
