"""The examples in the docstrings of the statistics are right."""

import doctest
import importlib

import numpy as np
import pytest

MODULES = (
    "stats.describe", "stats.samples", "stats.intervals", "stats.multiplicity", "stats.effects", "stats.comparisons",
    "stats.groups", "stats.equivalence", "stats.variance", "stats.normality", "stats.power", "stats.resampled",
    "report.planning", "report.thesis.reported", "report.thesis.tables", "report.thesis.checks",
    "report.thesis.reanalysis",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    done = doctest.testmod(importlib.import_module(f"twinrun.{name}"), extraglobs={"np": np})
    assert done.attempted > 0
    assert done.failed == 0
