"""What a study will take, from a short probe of each kind of run: hours, memory, energy, carbon."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twinrun.report.sections.footprint import Inputs, carbon_kg, formula_kwh


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


def study_lines(kinds: Mapping[str, tuple[RunEstimate, int]], device: str) -> list[str]:
    """Table and sums as lines of text; `kinds` has for each kind of run its estimate and how many there are."""
    lines = ["kind\truns\tseconds each\tpeak memory, GB\thours"]
    for kind, (item, count) in kinds.items():
        memory, hours = item.peak_memory_bytes / 1e9, count * item.seconds / 3600
        lines.append(f"{kind}\t{count}\t{item.seconds:.3g}\t{memory:.2f}\t{hours:.3g}")
    total = sum(count * item.seconds for item, count in kinds.values())
    lines.append(
        f"one run after the other on this {device}: {total / 3600:.3g} hours, preparation and report not counted"
    )
    inputs = Inputs()
    if all(item.watts is not None for item, _ in kinds.values()):
        kwh = sum(
            formula_kwh(item.watts, count * item.seconds, inputs.pue) for item, count in kinds.values() if item.watts
        )
        lines.append(f"energy: {kwh:.3g} kWh, {carbon_kg(kwh, inputs.kg_per_kwh):.3g} kg CO2 with {inputs.sentence}")
    else:
        lines.append(f"energy: not known: the power of this {device} cannot be read")
    return lines
