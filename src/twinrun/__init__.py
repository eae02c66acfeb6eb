"""twinrun: train identical twins of an image classifier and say which differences are noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from twinrun.analysis.api import Loaded

__version__ = "0.1.0"
__all__ = ["load"]


def load(folder: str | Path = ".") -> Loaded:
    """Load a study as pandas frames, from its folder or from its collected/, runs/ or analysis/ folder.

    `load("study").runs` has one row a run, `.tables["churn"]` is a table of the report. Raises
    `twinrun.study.errors.TwinrunError` with a message of what is missing or damaged.
    """
    # Imported here: `import twinrun` and the command line stay light.
    from twinrun.analysis.api import load as load_frames

    return load_frames(folder)
