"""Under a limit of memory (`ulimit -v` or `-d`), libraries that hang or end where there is no memory get it at once.

OpenBLAS, of which numpy and SciPy bring one each, takes a buffer at its first product of matrices, and one for each of
its threads. Where there is none, the older of the two asks for it for ever, and the newer ends the process with a code
of its own: neither is an error that Python could catch. So each is loaded where there is room, with one thread, and
multiplies at once; what it took is kept.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

THREADS = "OPENBLAS_NUM_THREADS"


def make_sure_of_room() -> None:
    """In a process with such a limit, have an import of numpy or SciPy raise MemoryError where it has no room."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        sys.meta_path.insert(0, _Careful())


def _multiply_with_numpy() -> None:
    import numpy

    numpy.ones((300, 300)) @ numpy.ones((300, 300))


def _multiply_with_scipy() -> None:
    import numpy
    import scipy.linalg

    scipy.linalg.blas.dgemm(1.0, numpy.ones((300, 300)), numpy.ones((300, 300)))


class _Careful(MetaPathFinder):
    """Loads them as the text above says."""

    def __init__(self) -> None:
        # MiB of address space and of data that each takes on x86-64 (116 and 136, 75 and 86; measured), and some more.
        self._ahead: dict[str, tuple[int, int, Callable[[], None]]] = {
            "numpy": (130, 90, _multiply_with_numpy),
            "scipy": (160, 105, _multiply_with_scipy),
        }

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """That of the module, with a loader that multiplies; None for all others."""
        if name not in self._ahead:
            return None
        size, data, multiply = self._ahead.pop(name)
        try:
            mmap.mmap(-1, size << 20).close()  # shared, which is no data
            mmap.mmap(-1, data << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except OSError as error:
            raise MemoryError(f"{name} needs {size} MiB of address space, {data} of them for data") from error
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_multiply(module: ModuleType) -> None:
            before = os.environ.get(THREADS)
            os.environ[THREADS] = "1"  # read while it is loaded; a user's program does not inherit it
            try:
                load(module)
                multiply()
            finally:
                os.environ.pop(THREADS) if before is None else os.environ.update({THREADS: before})

        spec.loader.exec_module = load_and_multiply  # type: ignore[method-assign]
        return spec
