"""Do something as soon as the program has imported a module."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any


class After(importlib.abc.MetaPathFinder):
    """Lets others find and execute the module `name`, once, and then calls `then`."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """What the other finders find, with `then` behind it."""
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_and_then(module: Any) -> None:
            execute(module)
            self.then()

        setattr(spec.loader, "exec_module", exec_and_then)  # noqa: B010 - of this one loader
        return spec


def after_import(name: str, then: Callable[[], None]) -> None:
    """Call `then` when the module is there: now, or as soon as it has been imported."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, After(name, then))
