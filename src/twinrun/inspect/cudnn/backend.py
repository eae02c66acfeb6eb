"""cuDNN's backend API by ctypes: engines, their numerical notes and plans for a convolution on a described card.

Since 9.8 cuDNN answers for a card that is described to it and need not be there ("Deviceless ahead-of-time
compilation" in NVIDIA's cuDNN documentation). Numbers are those of `cudnn_graph_v9.h`. `nvidia-cudnn-frontend` is not
used: its Python interface can filter engines by numerical note but does not show an engine's notes. Nothing here
touches a device, except `description_of_device`, which reads one.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from twinrun.study.errors import InputError

OLDEST = 90800  # the first version that takes a device description
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"
HEURISTICS, FALLBACK = 0, 2  # CUDNN_HEUR_MODE_INSTANT, which ATen asks for and which is mode A since cuDNN 8.2
FLOAT, BFLOAT16 = 0, 9  # CUDNN_DATA_*
NOTES = ("tensor cores", "converts inputs down", "reduced-precision reduction", "FFT", "nondeterministic",
         "Winograd", "Winograd 4x4", "Winograd 6x6", "Winograd 13x13", "propagates NaN")  # fmt: skip
TENSOR_CORE, DOWN_CONVERT, NONDETERMINISTIC = NOTES[0], NOTES[1], NOTES[4]

# Types of attributes (CUDNN_TYPE_*), each with the C type of its elements.
_DATA_TYPE, _INT64, _FLOAT, _MODE, _HEUR_MODE, _NOTE, _DESCRIPTOR, _INT32, _CHAR = 1, 3, 4, 7, 8, 11, 15, 23, 24
_C_TYPES: dict[int, Any] = {
    _DATA_TYPE: ctypes.c_int, _INT64: ctypes.c_int64, _FLOAT: ctypes.c_float, _MODE: ctypes.c_int,
    _HEUR_MODE: ctypes.c_int, _NOTE: ctypes.c_int, _DESCRIPTOR: ctypes.c_void_p, _INT32: ctypes.c_int32,
}  # fmt: skip
# Kinds of descriptors (CUDNN_BACKEND_*_DESCRIPTOR).
_CONVOLUTION, _ENGINE, _CONFIG, _HEURISTIC, _PLAN, _GRAPH, _TENSOR, _DEVICE = 1, 2, 3, 4, 5, 15, 17, 38
# Kind of the operation; its attributes alpha, beta, convolution; then those of w, x and y (or their gradients).
_OPERATIONS = {
    FORWARD: (10, (700, 701, 702), (703, 704, 705)),
    WEIGHT_GRADIENT: (11, (712, 713, 714), (715, 716, 717)),
    INPUT_GRADIENT: (12, (706, 707, 708), (709, 710, 711)),
}
_ALIGNMENT = 32  # bytes: the most that ATen's Conv_v8 states; PyTorch's allocator aligns to 512


class CudnnError(Exception):
    """A call that cuDNN refused, in its own words."""


@cache
def library() -> ctypes.CDLL:
    """The cuDNN that torch loads; InputError where there is none or one before 9.8."""
    needed = "torch's CUDA wheels bring one (`pip install torch`), or `pip install 'nvidia-cudnn-cu13>=9.8'`"
    places = [Path(torch.__file__).parents[1] / "nvidia/cudnn/lib/libcudnn.so.9", Path("libcudnn.so.9")]
    for place in places:
        try:
            loaded = ctypes.CDLL(str(place), ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        break
    else:
        raise InputError(f"a forecast needs cuDNN, and torch {torch.__version__} here has none", needed)
    version = loaded.cudnnGetVersion()
    if version < OLDEST:
        raise InputError(f"a forecast needs cuDNN 9.8 or newer, and this is {version_name(version)}", needed)
    loaded.cudnnGetErrorString.restype = ctypes.c_char_p
    return loaded


def version_name(number: int | None = None) -> str:
    """`9.19.0` of 91900, by default that of the loaded library."""
    number = library().cudnnGetVersion() if number is None else number
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


class Descriptor:
    """An object of the backend API, destroyed with its Python object; it keeps alive what was put into it."""

    def __init__(self, kind: int) -> None:
        self.pointer = ctypes.c_void_p()
        self.parts: list[Descriptor] = []
        _check(library().cudnnBackendCreateDescriptor(kind, ctypes.byref(self.pointer)))

    def __del__(self) -> None:
        if self.pointer:
            library().cudnnBackendDestroyDescriptor(self.pointer)

    def put(self, attribute: int, kind: int, *values: Any) -> Descriptor:
        """Set an attribute."""
        self.parts += [value for value in values if isinstance(value, Descriptor)]
        plain = [value.pointer if isinstance(value, Descriptor) else value for value in values]
        array = (_C_TYPES[kind] * len(plain))(*plain)
        _check(library().cudnnBackendSetAttribute(self.pointer, attribute, kind, ctypes.c_int64(len(plain)), array))
        return self

    def get(self, attribute: int, kind: int, most: int) -> list[Any]:
        """An attribute's elements, `most` at most."""
        array, count = (_C_TYPES[kind] * most)(), ctypes.c_int64()
        _check(
            library().cudnnBackendGetAttribute(
                self.pointer, attribute, kind, ctypes.c_int64(most), ctypes.byref(count), array
            )
        )
        return list(array)[: count.value]

    def fill(self, attribute: int, parts: Sequence[Descriptor]) -> int:
        """Let cuDNN write an attribute's descriptors into `parts`; how many there are."""
        array = (ctypes.c_void_p * len(parts))(*[part.pointer for part in parts])
        count = ctypes.c_int64()
        _check(
            library().cudnnBackendGetAttribute(
                self.pointer, attribute, _DESCRIPTOR, ctypes.c_int64(len(parts)), ctypes.byref(count),
                array if parts else None,
            )
        )  # fmt: skip
        return count.value

    def finish(self) -> Descriptor:
        """Finalize it, as cuDNN demands before it can be used."""
        _check(library().cudnnBackendFinalize(self.pointer))
        return self


def _check(status: int) -> None:
    if status:
        text = ctypes.create_string_buffer(1000)
        library().cudnnGetLastErrorString(text, ctypes.c_size_t(len(text)))
        name = library().cudnnGetErrorString(status).decode()
        raise CudnnError(f"{name} {text.value.decode(errors='replace').strip()}".strip())


def described_device(description: dict[str, Any]) -> Descriptor:
    """A card by its description (the JSON of CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION)."""
    device, text = Descriptor(_DEVICE), json.dumps(description).encode()
    _check(library().cudnnBackendSetAttribute(device.pointer, 2702, _CHAR, ctypes.c_int64(len(text) + 1), text))
    return device.finish()


def description_of_device(index: int = 0) -> dict[str, Any]:
    """What cuDNN itself says about CUDA device `index` of this machine; CudnnError where there is none."""
    device = Descriptor(_DEVICE).put(2700, _INT32, index).finish()
    size = ctypes.c_int64()
    get = library().cudnnBackendGetAttribute
    _check(get(device.pointer, 2702, _CHAR, ctypes.c_int64(0), ctypes.byref(size), None))
    text = ctypes.create_string_buffer(size.value + 1)
    _check(get(device.pointer, 2702, _CHAR, ctypes.c_int64(size.value), ctypes.byref(size), text))
    description: dict[str, Any] = json.loads(text.value.decode())
    return description


@dataclass(frozen=True)
class Problem:
    """What cuDNN is asked: an operation on x (n, c, ...), w (k, c / groups, ...) and y (n, k, ...)."""

    operation: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """An engine configuration that cuDNN proposes: the engine's number and its numerical notes."""

    number: int
    notes: frozenset[str]
    config: Descriptor

    def workspace(self, device: Descriptor) -> int | None:
        """Bytes of workspace that its execution plan needs; None where the plan cannot be built."""
        try:
            plan = Descriptor(_PLAN).put(407, _DESCRIPTOR, device).put(401, _DESCRIPTOR, self.config).finish()
            return int(plan.get(402, _INT64, 1)[0])
        except CudnnError:
            return None


def build_graph(problem: Problem, data_type: int, *, channels_last: bool) -> Descriptor:
    """The operation graph of one convolution; CudnnError where cuDNN does not take it."""
    axes = len(problem.x) - 2
    convolution = Descriptor(_CONVOLUTION).put(100, _DATA_TYPE, FLOAT).put(101, _MODE, 1)  # cross-correlation
    convolution.put(102, _INT64, *problem.dilation).put(103, _INT64, *problem.stride)
    convolution.put(104, _INT64, *problem.padding).put(105, _INT64, *problem.padding)
    convolution.put(106, _INT64, axes).finish()
    kind, (alpha, beta, settings), tensors = _OPERATIONS[problem.operation]
    operation = Descriptor(kind).put(alpha, _FLOAT, 1.0).put(beta, _FLOAT, 0.0).put(settings, _DESCRIPTOR, convolution)
    for attribute, shape, name in zip(tensors, (problem.w, problem.x, problem.y), "wxy", strict=True):
        tensor = Descriptor(_TENSOR).put(900, _INT64, _ALIGNMENT).put(901, _DATA_TYPE, data_type)
        tensor.put(902, _INT64, *shape).put(903, _INT64, *strides(shape, channels_last=channels_last))
        operation.put(attribute, _DESCRIPTOR, tensor.put(906, _INT64, ord(name)).finish())
    return Descriptor(_GRAPH).put(801, _DESCRIPTOR, operation.finish()).finish()


def strides(shape: Sequence[int], *, channels_last: bool) -> tuple[int, ...]:
    """Strides of a dense tensor (n, c, ...) in elements."""
    order = [0, *range(2, len(shape)), 1] if channels_last else list(range(len(shape)))
    step, by_axis = 1, [0] * len(shape)
    for axis in reversed(order):
        by_axis[axis] = step
        step *= shape[axis]
    return tuple(by_axis)


def proposals(graph: Descriptor, device: Descriptor) -> Iterator[Engine]:
    """The engines that cuDNN proposes, best first: of its heuristics, then of its fallback list."""
    for mode in (HEURISTICS, FALLBACK):
        try:
            query = Descriptor(_HEURISTIC).put(200, _HEUR_MODE, mode).put(201, _DESCRIPTOR, graph)
            query.put(204, _DESCRIPTOR, device).finish()
            configs = [Descriptor(_CONFIG) for _ in range(query.fill(202, []))]
            count = query.fill(202, configs)
        except CudnnError:
            continue  # this source has nothing to propose
        for config in configs[:count]:
            config.parts.append(query)
            engine = Descriptor(_ENGINE)
            config.fill(300, [engine])
            notes = frozenset(_note(number) for number in engine.get(1303, _NOTE, 2 * len(NOTES)))
            yield Engine(engine.get(1301, _INT64, 1)[0], notes, config)


def _note(number: int) -> str:
    return NOTES[number] if number < len(NOTES) else f"note {number}"  # of a newer cuDNN
