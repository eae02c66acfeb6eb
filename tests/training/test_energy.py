"""Energy counters: differences, wrap-around, and null with a reason, on the CPU and on a GPU that is played here."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from twinrun.training import energy
from twinrun.training.energy import CpuMeter, GpuMeter, energy_meter
from twinrun.training.gpu import Gpu


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
    meter = CpuMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 7_500_000, "package-0")
    zone(tmp_path, "intel-rapl:1", 500_000, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 900_000, "core")
    zone(tmp_path, "intel-rapl:2", 9_000_000, "psys")
    joules, note = meter.joules(shared=False)
    assert joules == 2.5 + 1.5
    assert "RAPL" in note


def reason(meter: energy.EnergyMeter, shared: bool = False) -> str:
    joules, note = meter.joules(shared=shared)
    assert joules is None
    assert note.startswith("not measured: ")
    return note


def test_a_processor_without_counter_gives_null_with_its_reason(tmp_path: Path) -> None:
    assert isinstance(energy_meter(torch.device("cpu")), CpuMeter)
    assert "is not there" in reason(CpuMeter(tmp_path))
    path = zone(tmp_path, "intel-rapl:0", 1, "package-0")
    meter = CpuMeter(tmp_path)
    assert "other runs shared" in reason(meter, shared=True)
    (path / "max_energy_range_uj").unlink()
    assert "not readable" in reason(meter)


class Driver:
    """Plays NVML: a GPU whose readings a test sets; a reading of None is one that the card does not give."""

    NVMLError, NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = pynvml.NVMLError, pynvml.NVML_TEMPERATURE_GPU, pynvml.NVML_CLOCK_SM

    def __init__(self, **readings: Any) -> None:
        self.readings = {"energy": 1_000_000, "power": 80_000, "celsius": 40, "clock": 1980, "processes": []} | readings

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1-2":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def _give(self, name: str) -> Any:
        if self.readings[name] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.readings[name]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> Any:  # noqa: N802
        return self._give("energy")

    def nvmlDeviceGetPowerUsage(self, handle: str) -> Any:  # noqa: N802
        return self._give("power")

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> Any:  # noqa: N802
        return self._give("celsius")

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> Any:  # noqa: N802
        return self._give("clock")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:  # noqa: N802
        return self._give("processes")

    def nvmlSystemGetDriverVersion(self) -> Any:  # noqa: N802
        return "580.65.06"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "IDLE_INTERVAL_SECONDS", 0.0)


def test_the_played_driver_has_the_real_ones_calls() -> None:
    for name, member in inspect.getmembers(Driver, inspect.isfunction):
        if name.startswith("nvml"):
            real = inspect.signature(getattr(pynvml, name)).parameters
            needed = [p for p in real.values() if p.default is inspect.Parameter.empty]
            ours = len(inspect.signature(member).parameters) - 1
            assert len(needed) <= ours <= max(len(real), ours if "args" in real else 0), name


def test_a_gpu_is_read_in_the_units_that_the_names_say() -> None:
    gpu = Gpu("1-2", Driver())  # as torch gives the UUID
    assert gpu.fault is None
    assert (gpu.energy_millijoules(), gpu.power_watts()) == (1_000_000, 80.0)
    assert (gpu.temperature_celsius(), gpu.clock_mhz(), gpu.process_count()) == (40, 1980, 0)
    assert gpu.driver_version() == "580.65.06"


def test_energy_of_a_gpu_is_the_difference_of_its_counter() -> None:
    driver = Driver()
    meter = GpuMeter(Gpu("GPU-1-2", driver))
    driver.readings |= {"energy": 1_250_500, "processes": [SimpleNamespace(pid=77)]}  # this run's own process
    assert meter.joules(shared=False) == (250.5, "NVML energy counter: the whole GPU")
    assert meter.idle_watts == 80.0


def test_a_gpu_gives_null_with_its_reason() -> None:
    assert "MIG" in reason(GpuMeter(Gpu("1-2", Driver(energy=None))))
    assert "does not answer for 9" in reason(GpuMeter(Gpu("9", Driver())))
    busy = GpuMeter(Gpu("1-2", Driver(processes=[SimpleNamespace(pid=5)])))
    assert "1 other processes" in reason(busy)
    assert busy.idle_watts is None  # it was not idle
    driver = Driver()
    meter = GpuMeter(Gpu("1-2", driver))
    driver.readings["processes"] = [SimpleNamespace(pid=1), SimpleNamespace(pid=2), SimpleNamespace(pid=3)]
    assert "2 other processes" in reason(meter)


def test_other_runs_on_the_machine_are_not_other_runs_on_the_gpu() -> None:
    driver = Driver()
    meter = GpuMeter(Gpu("1-2", driver))
    driver.readings |= {"energy": 1_002_000, "processes": [SimpleNamespace(pid=77)]}
    assert meter.joules(shared=True) == (2.0, "NVML energy counter: the whole GPU")
    for unknown in (None, []):  # this process is not counted: nobody is
        driver.readings["processes"] = unknown
        assert "does not count who is on the GPU" in reason(meter, shared=True)
        assert meter.joules(shared=False)[0] == 2.0


def test_this_process_is_not_another_one_when_it_was_on_the_gpu_before(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(processes=[SimpleNamespace(pid=77)])
    for context, others in ((True, 0), (False, 1)):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
        monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda index, there=context: there)
        monkeypatch.setattr(energy, "Gpu", lambda uuid: Gpu(uuid, driver))
        meter = energy_meter(torch.device("cuda"))
        assert isinstance(meter, GpuMeter)
        assert meter.others_before == others
        assert (meter.joules(shared=False)[0] is None) == bool(others)


def test_a_machine_without_driver_says_so() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert "NVML does not answer" in reason(GpuMeter(Gpu("1-2")))
    else:
        assert "NVML does not answer" in reason(GpuMeter(Gpu("no such card")))
