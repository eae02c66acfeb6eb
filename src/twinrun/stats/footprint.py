"""Energy and carbon by formula, and what a study will take, from a short probe of each kind of run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JOULES_PER_KWH = 3.6e6
# Board power limits in watts, from the manufacturers' data sheets; names as the driver gives them.
BOARD_POWER = {
    "NVIDIA RTX A6000": 300.0,
    "NVIDIA A100-SXM4-40GB": 400.0,
    "NVIDIA A100-SXM4-80GB": 400.0,
    "NVIDIA H100 80GB HBM3": 700.0,
    "NVIDIA H200": 700.0,
    "Tesla V100-SXM2-32GB": 300.0,
    "Tesla T4": 70.0,
}
# What nobody measured either; stated beside each result.
KG_PER_KWH = 0.385  # carbon intensity, as in the thesis's Table 6.1
PUE = 1.0  # power usage effectiveness; the thesis's formula has none. Surveyed data centres: about 1.6


def inputs_words() -> str:
    """These for a caption."""
    return f"{KG_PER_KWH:g} kg CO2 per kWh (as in the thesis), PUE {PUE:g}"


def kwh(joules: float) -> float:
    """Energy of a whole data centre from that of the machine; power x time by the formula of Lacoste et al. (2019).

    >>> kwh(300 * 3600)
    0.3
    """
    return joules * PUE / JOULES_PER_KWH


def carbon_kg(kwh: float, kg_per_kwh: float = KG_PER_KWH) -> float:
    """Carbon dioxide equivalent of an energy; 233.14 kWh at 0.385 are 89.76 kg, not the thesis's 89.86.

    >>> round(carbon_kg(233.14, 0.385), 2)
    89.76
    """
    return kwh * kg_per_kwh


@dataclass(frozen=True)
class RunEstimate:
    """What one run of a kind takes; `watts` None: the device's power could not be read."""

    seconds: float
    peak_memory_bytes: int
    watts: float | None


def estimate_run(probe: Mapping[str, Any], epochs: int) -> RunEstimate:
    """Seconds of a whole run from what `twinrun probe` measured: start, then per epoch its steps and one evaluation.

    >>> probe = {"startup_seconds": 4.0, "step_seconds": [0.1, 0.3, 0.1], "train_images": 100, "batch_size": 30,
    ...          "evaluation_seconds": 0.5, "peak_memory_bytes": 10, "watts": None}
    >>> round(estimate_run(probe, epochs=10).seconds, 6)
    13.0
    """
    steps = math.ceil(probe["train_images"] / probe["batch_size"])
    epoch = steps * statistics.median(probe["step_seconds"]) + probe["evaluation_seconds"]
    seconds = probe["startup_seconds"] + epochs * epoch
    return RunEstimate(seconds, probe["peak_memory_bytes"], probe["watts"])


def duration(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> duration(0.4), duration(16.2), duration(240), duration(5000), duration(400000)
    ('0.4 s', '16 s', '4 min', '83 min', '4.6 days')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def study_lines(kinds: Mapping[str, tuple[RunEstimate, int]], device: str, models: Sequence[int] = ()) -> list[str]:
    """Table and sums as lines of text; `kinds` has for each kind of run its estimate and how many there are.

    `models` are the sizes in bytes of the networks that will be kept.
    """
    rows = [("kind", "runs", "each", "all of them", "peak memory")]
    for kind, (run, count) in kinds.items():
        memory = f"{run.peak_memory_bytes / 1e9:.2f} GB"
        rows.append((kind, str(count), duration(run.seconds), duration(count * run.seconds), memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = duration(sum(count * run.seconds for run, count in kinds.values()))
    lines.append(f"one run after the other on this {device}: {total}; preparation and report are not counted")
    if models:
        lines.append(f"trained networks kept, of {len(models)} runs: {sum(models) / 1e6:.3g} MB")
    known = [(run, count) for run, count in kinds.values() if run.watts is not None]
    if len(known) == len(kinds):
        energy = sum(kwh((run.watts or 0.0) * (count * run.seconds)) for run, count in known)
        lines.append(f"energy: {energy:.3g} kWh, {carbon_kg(energy):.3g} kg CO2 with {inputs_words()}")
    else:
        lines.append(f"energy: not known: the power of this {device} cannot be read")
    return lines
