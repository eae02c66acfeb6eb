"""The examples in the docstrings of the statistics are right."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

from twinrun import stats

FILES = sorted(Path(stats.__file__).parent.glob("[a-z]*.py"))
MODULES = (
    *(f"stats.{path.stem}" for path in FILES if ">>>" in path.read_text()),
    "report.planning", "report.thesis.tables", "report.thesis.checks",
    "report.thesis.reanalysis",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    done = doctest.testmod(importlib.import_module(f"twinrun.{name}"), extraglobs={"np": np})
    assert done.attempted > 0
    assert done.failed == 0
