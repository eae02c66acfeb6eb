"""Run by Python when a traced program's process starts: puts the tracer in as soon as the program imports torch.

Python runs the first module of this name that it finds; the program's own is found and run after this one.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
OLDEST = (2, 6)


def _attach() -> None:
    if "TWINRUN_TRACE" not in os.environ:
        return
    plan = json.loads(os.environ["TWINRUN_TRACE"])
    note = Path(plan["socket"]).with_name(f"attached-{os.getpid()}")
    sys.path.insert(0, str(_HERE))
    try:
        version = sys.modules["torch"].__version__
        if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < OLDEST:
            raise RuntimeError(f"torch {version} is older than 2.6, the oldest that can be traced")
        import twinrun_tracer

        twinrun_tracer.attach(plan)
        note.touch()
    except Exception as error:  # the program goes on without, and whoever started it is told
        note.with_name(f"failed-{os.getpid()}").write_text(str(error))
    finally:
        sys.path.remove(str(_HERE))


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
