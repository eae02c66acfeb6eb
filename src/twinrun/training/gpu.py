"""What the NVIDIA driver measures of one GPU: energy, power, temperature, clocks, and who else is on it (NVML)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml


class Gpu:
    """One GPU of the driver by its UUID; each reading is a number, or None where the driver does not give it.

    `fault` says why there are no readings at all. A MIG slice has a UUID of its own; its energy is not metered.
    """

    def __init__(self, uuid: str, driver: Any = pynvml) -> None:
        self._driver, self._handle = driver, None
        self.fault: str | None = None
        try:
            driver.nvmlInit()
            # torch gives UUIDs without the prefix that NVML wants.
            name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            self._handle = driver.nvmlDeviceGetHandleByUUID(name)
        except driver.NVMLError as error:
            self.fault = f"the NVIDIA driver's NVML does not answer for {uuid} ({error})"

    def _read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        if self._handle is None:
            return None
        try:
            return query(self._handle, *arguments)
        except self._driver.NVMLError:
            return None

    def energy_millijoules(self) -> int | None:
        """Energy since the driver was loaded; Volta and newer."""
        return self._read(self._driver.nvmlDeviceGetTotalEnergyConsumption)

    def power_watts(self) -> float | None:
        """Power now, watts; on most cards an average over the last second."""
        milliwatts = self._read(self._driver.nvmlDeviceGetPowerUsage)
        return None if milliwatts is None else milliwatts / 1000

    def temperature_celsius(self) -> int | None:
        """Temperature of the chip."""
        return self._read(self._driver.nvmlDeviceGetTemperature, self._driver.NVML_TEMPERATURE_GPU)

    def clock_mhz(self) -> int | None:
        """Clock of the multiprocessors now, MHz."""
        return self._read(self._driver.nvmlDeviceGetClockInfo, self._driver.NVML_CLOCK_SM)

    def process_count(self) -> int | None:
        """Processes that compute on it. Counted and not named: in a container the numbers are the host's."""
        processes = self._read(self._driver.nvmlDeviceGetComputeRunningProcesses)
        return None if processes is None else len(processes)

    def driver_version(self) -> str | None:
        """The version of the driver, such as 580.65.06."""
        return self._read(lambda handle: self._driver.nvmlSystemGetDriverVersion())
