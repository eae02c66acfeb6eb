"""Shared by the data tests: the sample archives, built once, and the folder of real data where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twinrun.data.sample import build_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three sample archives."""
    folder = tmp_path_factory.mktemp("sample")
    build_sample(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that the environment names."""
    folder = os.environ.get("TWINRUN_REAL_DATA")
    if not folder:
        pytest.skip("TWINRUN_REAL_DATA names no folder with real data")
    return Path(folder)
