"""Shared by the data tests: the sample archives, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrun.data.sample import build_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three sample archives."""
    folder = tmp_path_factory.mktemp("sample")
    build_sample(folder)
    return folder
