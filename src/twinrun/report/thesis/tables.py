"""The thesis's published tables, each number known to half a unit of its last printed digit."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from io import StringIO

import pandas as pd

from twinrun.collect.study import Study
from twinrun.stats.footprint import carbon_kg

TITLES = {"cifar10": "CIFAR-10", "sdnet2018": "SDNET2018", "cbis_ddsm": "CBIS-DDSM"}
TABLES = {"cifar10": "Table 5.1", "sdnet2018": "Table 5.2", "cbis_ddsm": "Table 5.3"}
DATA_SETS = {
    "cifar10": "CIFAR-10, PreActResNet",
    "sdnet2018": "SDNET2018, MobileNet",
    "cbis_ddsm": "CBIS-DDSM, ResNet fine-tuned from ImageNet weights",
}
RUNS = 5  # non-deterministic runs per cell, which the thesis states


@dataclass(frozen=True)
class Reported:
    """A printed number and the range that it was rounded from."""

    value: float
    low: float
    high: float

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit."""
        return (self.high - self.low) / 2

    @property
    def cut(self) -> Reported:
        """The same number, had its further digits been cut off as well as rounded."""
        if self.value < 0:
            return Reported(self.value, self.value - 2 * self.half_unit, self.high)
        return Reported(self.value, self.low, self.value + 2 * self.half_unit)


@dataclass(frozen=True)
class PublishedCell:
    """One (task, optimizer, seed) of Tables 5.1-5.3 and 5.5."""

    task: str
    metric: str  # as printed: accuracy_percent and so on in percent
    optimizer: str
    seed: str
    free_mean: Reported
    deterministic: Reported
    difference_percent: Reported
    p: Reported

    @property
    def name(self) -> str:
        """For a person."""
        return f"{TITLES[self.task]} {self.optimizer} {self.seed}"


def thesis_frame(name: str) -> pd.DataFrame:
    """One of the CSV files of `data`, as text, so that its digits can be counted.

    >>> list(thesis_frame("table_5_4").columns)
    ['task', 'metric', 'minimum', 'mean', 'maximum']
    """
    text = (resources.files("twinrun.report") / "thesis" / "data" / f"{name}.csv").read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)


def decimals(text: str) -> int:
    """Printed digits after the point.

    >>> decimals("0.0350")
    4
    """
    return len(text.partition(".")[2])


def reported(text: str, places: int | None = None) -> Reported:
    """The number of a table, known to half a unit of its last digit (or of `places` digits after the point).

    >>> result = reported("0.385")
    >>> print(f"{result.low:.4f} {result.high:.4f}")
    0.3845 0.3855
    """
    half = 0.5 * 10.0 ** -(decimals(text) if places is None else places)
    return Reported(float(text), float(text) - half, float(text) + half)


def column(frame: pd.DataFrame, name: str) -> list[Reported]:
    """A column of numbers, each known to the digits of its longest one: trailing zeros are lost in a CSV file."""
    texts = [str(text) for text in frame[name]]
    places = max(map(decimals, texts))
    return [reported(text, places) for text in texts]


def published_cells() -> list[PublishedCell]:
    """The 30 cells.

    >>> len(published_cells())
    30
    """
    frame = thesis_frame("tables_5_1_to_5_3_and_5_5")
    cells = []
    for task, rows in frame.groupby("task", sort=False):
        names = ("nondeterministic_mean", "deterministic", "difference_percent", "one_sample_t_p")
        numbers = zip(*(column(rows, name) for name in names), strict=True)
        for (_, row), values in zip(rows.iterrows(), numbers, strict=True):
            cells.append(PublishedCell(str(task), row["metric"], row["optimizer"], row["seed"], *values))
    return cells


def summary_notes(study: Study) -> tuple[str, ...]:
    """Table 5.4 as published, a note for each task that is read as one of the thesis's is."""
    published = thesis_frame("table_5_4").set_index("task")
    notes = []
    for task in study.tasks:
        reader = study.reader(task)
        if reader in published.index:
            row = published.loc[reader]
            notes.append(
                f"The thesis's Table 5.4 for {DATA_SETS[reader]}, {str(row['metric']).replace('_', ' ')}: smallest "
                f"{row['minimum']}, mean {row['mean']}, largest {row['maximum']}."
            )
    return tuple(notes)


def footprint_notes() -> tuple[str, ...]:
    """Table 6.1 as published, its kWh times its intensity beside the printed CO2."""
    notes = []
    for _, row in thesis_frame("table_6_1").iterrows():
        kwh, intensity, printed = (float(row[key]) for key in ("sum_kwh", "carbon_intensity_kg_per_kwh", "co2_kg"))
        right = carbon_kg(kwh, intensity)
        wrong = f"; {kwh:g} x {intensity:g} is {right:.2f} kg" if abs(right - printed) > 0.01 else ""
        notes.append(f"The thesis's Table 6.1, {row['runs']} runs: {kwh:g} kWh, {printed:g} kg CO2 as printed{wrong}.")
    return tuple(notes)
