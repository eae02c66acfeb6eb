"""twinrun: train identical twins of an image classifier and say which differences are noise.

Each function imports what it needs when it is called: `import twinrun` and the command line stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

    from twinrun.api import Loaded
    from twinrun.inspect.audit import Audit
    from twinrun.inspect.controlled import Control

__version__ = "0.1.0"
__all__ = ["assert_same_bits", "audit", "controlled", "fingerprint", "load"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load(folder: str | Path = ".") -> Loaded:
    """Load a study as pandas frames, from its folder or from its collected/, runs/ or analysis/ folder.

    `load("study").runs` has one row a run, `.tables["churn"]` is a table of the report, `.model(run_id)` a trained
    network. Raises `twinrun.study.errors.TwinrunError` with a message of what is missing or damaged.
    """
    from twinrun.api import load as load_frames

    return load_frames(folder)


def controlled(seed: int | None = None, *, deterministic: bool | None = None) -> AbstractContextManager[Control]:
    """Seed Python, numpy and torch and choose deterministic mode for a `with` block; put all back at its end.

    `twinrun.inspect.controlled.controlled` says what is set and what it raises.
    """
    from twinrun.inspect.controlled import controlled as control

    return control(seed, deterministic=deterministic)


def fingerprint(model: nn.Module | Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over the names, types, shapes and bytes of a module's (or state_dict's) tensors."""
    from twinrun.training.fingerprint import fingerprint as digest

    return digest(model)


def assert_same_bits(first: Any, second: Any) -> None:
    """Raise AssertionError that names every place where two arrays, tensors, modules or nested values differ in a bit.

    Works without torch for anything but tensors and modules.
    """
    __tracebackhide__ = True
    from twinrun.twins.nested import assert_same_bits as check

    check(first, second)


def audit(model: Any, loss: Any, optimizer: Any, batch: tuple[Any, Any], *, repeats: int = 5) -> Audit:
    """Examine one training step on `batch` (inputs, targets) for operations that may give other bits.

    `audit(...).ok` is False when one may from run to run; `.findings` says which, where and what to use instead. The
    model and the optimizer are left as they are. Raises `twinrun.study.errors.InputError` when the step fails, its
    OutOfMemoryError when memory ran out.
    """
    from twinrun.inspect.audit import audit as examine
    from twinrun.training.torch_errors import named_torch_errors

    with named_torch_errors("audit"):
        return examine(model, loss, optimizer, batch, repeats=repeats)
