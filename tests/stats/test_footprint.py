"""What a study will take: sums over kinds of runs, energy only where the power is known."""

from __future__ import annotations

import re

from twinrun.stats.footprint import RunEstimate, estimate_run, study_lines


def test_a_run_is_its_start_its_steps_and_its_evaluations() -> None:
    probe = {
        "startup_seconds": 3.0, "step_seconds": [0.5, 0.5, 9.0], "train_images": 65, "batch_size": 32,
        "evaluation_seconds": 0.25, "peak_memory_bytes": 7, "watts": 100.0,
    }  # fmt: skip
    assert estimate_run(probe, epochs=4) == RunEstimate(3.0 + 4 * (3 * 0.5 + 0.25), 7, 100.0)


def test_a_study_is_the_sum_of_its_runs() -> None:
    kinds = {"a": (RunEstimate(1800, 2_000_000_000, 300.0), 4), "b": (RunEstimate(3600, 10, 200.0), 1)}
    lines = study_lines(kinds, "card")
    assert re.split(r"  +", lines[1]) == ["a", "4", "30 min", "2.0 h", "2.00 GB"]
    assert lines[3].startswith("one run after the other on this card: 3.0 h;")
    assert study_lines(kinds, "card", [700_000, 300_000])[4] == "trained networks kept, of 2 runs: 1 MB"
    # 2 h at 300 W and 1 h at 200 W, at 0.385 kg/kWh.
    assert lines[4].startswith("energy: 0.8 kWh, 0.308 kg CO2")


def test_energy_is_not_known_where_a_power_is_not() -> None:
    lines = study_lines({"a": (RunEstimate(1, 1, None), 1), "b": (RunEstimate(1, 1, 5.0), 1)}, "processor")
    assert lines[-1] == "energy: not known: the power of this processor cannot be read"
