"""The examples in the docstrings of the statistics are right."""

import doctest
import importlib

import numpy as np
import pytest

MODULES = (
    "statistics", "samples", "intervals", "multiplicity", "effects", "comparisons", "groups", "equivalence", "variance",
    "normality", "power", "planning", "resampled", "reported", "thesis_tables", "thesis_checks", "reanalysis",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    done = doctest.testmod(importlib.import_module(f"twinrun.analysis.{name}"), extraglobs={"np": np})
    assert done.attempted > 0
    assert done.failed == 0
