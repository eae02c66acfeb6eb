"""What a program's data is augmented by: the generators at the first batch of each DataLoader's worker and epoch.

A worker is no process that trains, so it opens no channel: each writes lines of JSON into one file beside the socket.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from twinrun_imports import after_import
from twinrun_looking import bytes_of

MOST_OBJECTS, MOST_ITEMS = 2000, 32  # of a dataset and of a list in it: more hold examples, not transforms
_SEEN = "_twinrun_seen"
_LIBRARIES = ("torch", "torchvision", "numpy", "random", "builtins")  # whose global generators are known already


def attach(plan: dict[str, Any]) -> None:
    """Look at the first batch that a worker, or the process itself, fetches from a map-style dataset in each epoch."""
    path = Path(plan["socket"]).with_name(f"draws-{plan['twin']}")
    after_import("torch.utils.data.dataloader", functools.partial(_attach, path))


def _attach(path: Path) -> None:
    loading = sys.modules["torch.utils.data.dataloader"]
    fetcher, iterator = loading._utils.fetch._MapDatasetFetcher, loading._BaseDataLoaderIter
    plain_fetch, plain_next = fetcher.fetch, iterator.__next__
    plain_init, plain_reset = iterator.__init__, iterator._reset
    numbers, trainings = itertools.count(), itertools.count()
    of_optimizer: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
    served: list[dict[str, Any]] = []  # the epoch that gave the last batch, until a step follows

    def fetch(self: Any, index: Any) -> Any:
        if hasattr(self, _SEEN):
            return plain_fetch(self, index)
        setattr(self, _SEEN, True)
        before = _states(self.dataset)
        batch = plain_fetch(self, index)
        with suppress(Exception):  # the program goes on, whatever its dataset is
            after = _states(self.dataset)
            moved = {name: [state, after[name]] for name, state in before.items() if after.get(name, state) != state}
            worker = torch.utils.data.get_worker_info()
            _tell(path, {"dataset": named(self.dataset), "worker": worker and worker.id, "drawn": moved})
        return batch

    def begin(self: Any, dataset: Any) -> None:
        with suppress(Exception):
            self._twinrun_epoch = {"dataset": named(dataset), "begins": next(numbers)}
            _tell(path, self._twinrun_epoch)

    def init(self: Any, loader: Any) -> None:
        begin(self, loader.dataset)
        plain_init(self, loader)

    def reset(self: Any, loader: Any, first_iter: bool = False) -> None:
        begin(self, loader.dataset)  # workers that persist begin an epoch, too
        plain_reset(self, loader, first_iter)

    def following(self: Any) -> Any:
        batch = plain_next(self)
        served[:] = [self._twinrun_epoch] if hasattr(self, "_twinrun_epoch") else []
        return batch

    def stepped(optimizer: Any, args: Any, kwargs: Any) -> None:
        # Of an evaluation it is no fault that it sees the same each time: no step follows its batches.
        if torch.compiler.is_compiling() or not served:
            return
        with suppress(Exception):
            epoch = served.pop()
            if "training" not in epoch:
                if optimizer not in of_optimizer:
                    of_optimizer[optimizer] = next(trainings)
                epoch["training"] = of_optimizer[optimizer]
                _tell(path, epoch)

    fetcher.fetch, iterator.__next__, iterator.__init__, iterator._reset = fetch, following, init, reset
    register_optimizer_step_post_hook(stepped)


def _tell(path: Path, facts: dict[str, Any]) -> None:
    parent = multiprocessing.parent_process() if torch.utils.data.get_worker_info() else None
    line = json.dumps({"process": parent.pid if parent else os.getpid(), **facts}) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())  # at once, or lines of two workers would mix
    finally:
        os.close(file)


def named(dataset: Any) -> str:
    """What tells a program's datasets apart, in whichever process."""
    words, inner = type(dataset).__name__, getattr(dataset, "dataset", None)
    if type(dataset).__module__.startswith("torch.") and inner is not None:
        words += f" of {type(inner).__name__}"
    with suppress(Exception):
        words += f" ({len(dataset)} examples)"
    return words


def global_generators() -> Iterator[tuple[str, bytes]]:
    """The states of those that every program shares, but for CUDA's."""
    yield "Python's", repr(random.getstate()).encode()
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        state = numpy.random.get_state()
        yield "numpy's", state[1].tobytes() + repr(state[2:]).encode()
    yield "torch's (cpu)", bytes_of(torch.get_rng_state())


def short(data: bytes) -> str:
    """A digest to be compared."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _states(dataset: Any) -> dict[str, str]:
    with suppress(Exception):
        return {name: short(state) for name, state in (*global_generators(), *_own_generators(dataset))}
    return {}


def _own_generators(dataset: Any) -> Iterator[tuple[str, bytes]]:
    """Generators that the dataset, its transforms, their classes and their modules hold, by where they are."""
    numpy = sys.modules.get("numpy")
    shared = {id(getattr(random, "_inst", None)), id(getattr(getattr(numpy, "random", None), "_rand", None))}
    shared.add(id(getattr(getattr(getattr(numpy, "random", None), "mtrand", None), "_rand", None)))
    seen = {id(None), *shared}
    waiting: list[tuple[str, Any]] = [("", dataset)]
    for place, item in waiting:
        if id(item) in seen or len(seen) > MOST_OBJECTS or isinstance(item, str | bytes | int | float | torch.Tensor):
            continue
        seen.add(id(item))
        if (state := _state(item)) is not None:
            yield f"its own {place}", state
            continue
        for name, part in _parts(item):
            waiting.append((f"{place}.{name}".lstrip(".") if not name.startswith("[") else place + name, part))
        for name, part in _surroundings(item):
            if id(part) not in seen and (state := _state(part)) is not None:
                seen.add(id(part))
                yield f"its own {name}", state


def _state(item: Any) -> bytes | None:
    """The state of a generator; None for anything else."""
    numpy = getattr(sys.modules.get("numpy"), "random", None)
    with suppress(Exception):
        if isinstance(item, random.Random):
            return repr(item.getstate()).encode()
        if isinstance(item, torch.Generator):
            return bytes_of(item.get_state()) if item.device.type == "cpu" else None
        if numpy is not None and isinstance(item, numpy.Generator):
            return repr(item.bit_generator.state).encode()
        if numpy is not None and isinstance(item, numpy.RandomState):
            return repr(item.get_state()).encode()
    return None


def _parts(item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, dict):
        return [(f"[{key!r}]", value) for key, value in list(item.items())[:MOST_ITEMS]]
    if isinstance(item, list | tuple | set):
        return [(f"[{index}]", value) for index, value in enumerate(list(item)[:MOST_ITEMS])]
    if isinstance(item, functools.partial):
        return [("func", item.func), ("args", item.args), ("keywords", item.keywords)]
    if isinstance(item, FunctionType):
        cells = zip(item.__code__.co_freevars, item.__closure__ or (), strict=False)
        with suppress(ValueError):  # a cell that nothing is in yet
            return [(name, cell.cell_contents) for name, cell in cells]
        return []
    if isinstance(item, type | ModuleType) or not hasattr(item, "__dict__"):
        return []
    return list(vars(item).items())


def _surroundings(item: Any) -> Iterator[tuple[str, Any]]:
    """What its class and the module of that, or of a function, hold."""
    if not isinstance(item, FunctionType):
        for kind in type(item).__mro__:
            yield from ((f"{kind.__name__}.{name}", value) for name, value in list(vars(kind).items()))
    where = item.__module__ if isinstance(item, FunctionType) else type(item).__module__
    if where and where.split(".")[0] not in _LIBRARIES:
        holder = sys.modules.get(where)
        yield from ((f"{where}.{name}", value) for name, value in list(vars(holder).items()) if holder)
