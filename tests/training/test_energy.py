"""The energy counter: differences, wrap-around, and null with a reason."""

from __future__ import annotations

from pathlib import Path

from twinrun.training.energy import EnergyMeter


def zone(root: Path, name: str, value: int) -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    return folder


def test_sums_packages_and_wraps(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", 999_000_000)
    zone(tmp_path, "intel-rapl:0:0", 0)  # a part of package 0, already in it
    meter = EnergyMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 7_500_000)
    zone(tmp_path, "intel-rapl:1", 500_000)
    zone(tmp_path, "intel-rapl:0:0", 900_000)
    joules, note = meter.joules()
    assert joules == 2.5 + 1.5
    assert "RAPL" in note


def test_null_where_there_is_none(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() == (
        None, "not measured: the processor's energy counter (RAPL) is not there",
    )  # fmt: skip


def test_null_where_it_cannot_be_read(tmp_path: Path) -> None:
    (zone(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()
    joules, note = EnergyMeter(tmp_path).joules()
    assert joules is None
    assert "not readable" in note
