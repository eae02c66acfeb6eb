"""twinrun: train identical twins of an image classifier and say which differences are noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from twinrun.analysis.api import Loaded
    from twinrun.training.audit import Audit

__version__ = "0.1.0"
__all__ = ["audit", "load"]


def load(folder: str | Path = ".") -> Loaded:
    """Load a study as pandas frames, from its folder or from its collected/, runs/ or analysis/ folder.

    `load("study").runs` has one row a run, `.tables["churn"]` is a table of the report. Raises
    `twinrun.study.errors.TwinrunError` with a message of what is missing or damaged.
    """
    # Imported here: `import twinrun` and the command line stay light.
    from twinrun.analysis.api import load as load_frames

    return load_frames(folder)


def audit(model: Any, loss: Any, optimizer: Any, batch: tuple[Any, Any], *, repeats: int = 5) -> Audit:
    """Examine one training step on `batch` (inputs, targets) for operations that may give other bits.

    `audit(...).ok` is False when one may from run to run; `.findings` says which, where and what to use instead. The
    model and the optimizer are left as they are. Raises `twinrun.study.errors.InputError` when the step fails.
    """
    from twinrun.training.audit import audit as examine

    return examine(model, loss, optimizer, batch, repeats=repeats)
