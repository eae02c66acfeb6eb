"""The energy counter: differences, wrap-around, and null with a reason."""

from __future__ import annotations

from pathlib import Path

from twinrun.training.energy import EnergyMeter


def zone(root: Path, folder: str, value: int, name: str) -> Path:
    path = root / folder
    path.mkdir(exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{value}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")
    return path


def test_sums_packages_alone_and_wraps(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000, "package-0")
    zone(tmp_path, "intel-rapl:1", 999_000_000, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 0, "core")  # a part of package 0
    zone(tmp_path, "intel-rapl:2", 0, "psys")  # holds the packages once more
    meter = EnergyMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 7_500_000, "package-0")
    zone(tmp_path, "intel-rapl:1", 500_000, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 900_000, "core")
    zone(tmp_path, "intel-rapl:2", 9_000_000, "psys")
    joules, note = meter.joules(device="cpu", shared=False)
    assert joules == 2.5 + 1.5
    assert "RAPL" in note


def test_null_with_its_reason(tmp_path: Path) -> None:
    def reason(meter: EnergyMeter, device: str = "cpu", shared: bool = False) -> str:
        joules, note = meter.joules(device=device, shared=shared)
        assert joules is None
        return note

    assert "is not there" in reason(EnergyMeter(tmp_path))
    path = zone(tmp_path, "intel-rapl:0", 1, "package-0")
    meter = EnergyMeter(tmp_path)
    assert "other runs shared" in reason(meter, shared=True)
    assert "GPU's energy counter" in reason(meter, device="cuda")
    (path / "max_energy_range_uj").unlink()
    assert "not readable" in reason(meter)
