"""Run by Python when a traced program's process starts: puts the tracer in as soon as the program imports torch.

Python runs the first module of this name that it finds; the program's own is found and run after this one.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _attach() -> None:
    sys.path.insert(0, str(_HERE))
    try:
        import twinrun_tracer
    finally:
        sys.path.remove(str(_HERE))
    twinrun_tracer.attach()


def _run_the_programs_own() -> None:
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec and spec.loader:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


from twinrun_imports import after_import  # noqa: E402 - while the path leads to it

# The program sees the path that it would have without this.
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]
after_import("torch", _attach)
_run_the_programs_own()
