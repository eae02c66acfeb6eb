"""Which convolutions of a training step would be nondeterministic on which card, asked of cuDNN without the card.

Each convolution is put to cuDNN as ATen of PyTorch 2.11 does (`Conv_v8.cpp`, `Convolution.cpp`): which of them are
PyTorch's own kernels; heuristics first, then the fallback list; without engines that convert inputs down, without
tensor cores for float32 unless TF32 is on, without nondeterministic ones in deterministic mode; the first whose plan
builds and whose workspace fits. Autotuning times the first ten (`torch.backends.cudnn.benchmark_limit`) and takes the
fastest, which no forecast can know: it says whether a nondeterministic one is among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from twinrun.inspect.cudnn.backend import (
    BFLOAT16,
    DOWN_CONVERT,
    FLOAT,
    FORWARD,
    INPUT_GRADIENT,
    NONDETERMINISTIC,
    TENSOR_CORE,
    WEIGHT_GRADIENT,
    CudnnError,
    Descriptor,
    Engine,
    Problem,
    build_graph,
    described_device,
    proposals,
    version_name,
)
from twinrun.inspect.cudnn.devices import AMPERE, Card
from twinrun.inspect.cudnn.operations import Convolution, Step
from twinrun.study.errors import InputError, plural

PRECISIONS, LAYOUTS = ("fp32", "tf32", "bf16"), ("NCHW", "NHWC")
TIMED = 10  # torch.backends.cudnn.benchmark_limit
PYTORCH, CUDNN, REFUSED = "PyTorch", "cuDNN", "refused"
FREE_OF_ATOMICS = "bit-reproducible without deterministic mode, apart from autotuning"


@dataclass(frozen=True)
class Setting:
    """`precision` of convolutions (fp32, tf32; bf16 by autocast) and memory `layout` of images."""

    precision: str
    layout: str

    def __str__(self) -> str:
        return f"{self.precision} {self.layout}"


SETTINGS = [Setting(*pair) for pair in product(PRECISIONS, LAYOUTS)]


@dataclass(frozen=True)
class Choice:
    """An engine by its number in cuDNN, its numerical notes and the bytes of its workspace."""

    engine: int
    notes: tuple[str, ...]
    workspace_bytes: int

    @property
    def nondeterministic(self) -> bool:
        """Whether cuDNN says so of the engine."""
        return NONDETERMINISTIC in self.notes


@dataclass(frozen=True)
class Answer:
    """Who computes a convolution (`kernel`: PyTorch, cuDNN, refused), and with which engine in either mode.

    `autotuned`: one of the engines that autotuning times is nondeterministic. `reason`: why it is refused.
    """

    kernel: str
    free: Choice | None = None
    deterministic: Choice | None = None
    autotuned: bool = False
    reason: str = ""

    @property
    def nondeterministic(self) -> bool:
        """Whether free mode without autotuning takes a nondeterministic engine."""
        return self.free is not None and self.free.nondeterministic

    @property
    def refused(self) -> bool:
        """Whether cuDNN does not take it."""
        return self.kernel == REFUSED


@dataclass(frozen=True)
class Row:
    """A convolution of the model, the layers in which it is called, and what is forecast for it."""

    convolution: Convolution
    layers: tuple[str, ...]
    answer: Answer


@dataclass(frozen=True)
class Forecast:
    """All convolutions of a step on one card in one setting; `unsupported` says why there is none."""

    card: str
    setting: Setting
    rows: tuple[Row, ...]
    unsupported: str = ""

    def count(self, kind: str) -> int:
        """Distinct convolutions that are `nondeterministic`, `autotuned` or `refused`."""
        return sum(getattr(row.answer, kind) for row in self.rows)

    def nondeterministic_calls(self) -> int:
        """Calls of nondeterministic convolutions in a step."""
        return sum(len(row.layers) for row in self.rows if row.answer.nondeterministic)

    def workspace_bytes(self, mode: str) -> int:
        """The largest workspace of any convolution; `mode` is free or deterministic."""
        choices = [getattr(row.answer, mode) for row in self.rows]
        return max((choice.workspace_bytes for choice in choices if choice), default=0)

    def without_deterministic_engine(self) -> int:
        """Distinct convolutions that deterministic mode could not run."""
        return sum(row.answer.kernel == CUDNN and row.answer.deterministic is None for row in self.rows)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "card": self.card, "precision": self.setting.precision, "layout": self.setting.layout,
            "unsupported": self.unsupported, "convolutions": len(self.rows),
            "nondeterministic": self.count("nondeterministic"),
            "calls_nondeterministic": self.nondeterministic_calls(),
            "autotuned": self.count("autotuned"), "refused": self.count("refused"),
            "without_deterministic_engine": self.without_deterministic_engine(),
            "workspace_bytes": {mode: self.workspace_bytes(mode) for mode in ("free", "deterministic")},
            "rows": [
                {
                    **asdict(row.convolution), "layers": list(row.layers), "kernel": row.answer.kernel,
                    "free": asdict(row.answer.free) if row.answer.free else None,
                    "deterministic": asdict(row.answer.deterministic) if row.answer.deterministic else None,
                    "autotuning_may_be_nondeterministic": row.answer.autotuned, "reason": row.answer.reason,
                } for row in self.rows
            ],
        }  # fmt: skip


def forecast(step: Step, card: Card, setting: Setting) -> Forecast:
    """What cuDNN would do with the step's convolutions on `card`; InputError for a card that it does not know."""
    if lack := _lacks(card, setting):
        return Forecast(card.name, setting, (), lack)
    try:
        device = described_device(card.description)
    except CudnnError as error:
        hint = "the compute capability (deviceVer) may be one that this cuDNN does not serve"
        raise InputError(f"cuDNN {version_name()} refuses the description of {card.name}: {error}", hint) from error
    memory = int(card.description["totalGlobalMem"])
    rows = [
        Row(convolution, layers, _answer(convolution, setting, device, memory))
        for convolution, layers in distinct(step.convolutions)
    ]
    return Forecast(card.name, setting, tuple(rows))


def _lacks(card: Card, setting: Setting) -> str:
    if card.compute_capability >= AMPERE or setting.precision == "fp32":
        return ""
    return f"{card.name} has no {'TF32: as fp32' if setting.precision == 'tf32' else 'bfloat16 in cuDNN'}"


def distinct(calls: Sequence[Convolution]) -> Iterator[tuple[Convolution, tuple[str, ...]]]:
    """Convolutions that differ in more than their layer, with the layers of each, in the order of the step."""
    layers: dict[tuple[Any, ...], list[Convolution]] = {}
    for call in calls:
        layers.setdefault((call.operation, problem_of(call), call.groups, call.transposed), []).append(call)
    for alike in layers.values():
        yield alike[0], tuple(call.module for call in alike)


def problem_of(call: Convolution) -> Problem:
    """What ATen asks cuDNN for a call: one axis becomes two, and a transposed convolution is another one's gradient."""
    x, w, y = call.x, call.w, call.y
    stride, padding, dilation = call.stride, call.padding, call.dilation
    if len(x) == 3:
        x, w, y = ((*shape[:2], 1, *shape[2:]) for shape in (x, w, y))
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    operation = call.operation
    if call.transposed:
        x, y = y, x
        operation = {FORWARD: INPUT_GRADIENT, INPUT_GRADIENT: FORWARD, WEIGHT_GRADIENT: WEIGHT_GRADIENT}[operation]
    return Problem(operation, x, w, y, stride, padding, dilation)


def is_pytorchs_own(call: Convolution, *, channels_last: bool) -> bool:
    """Whether ATen uses a kernel of its own: depthwise in NCHW, or output padding that cuDNN does not do.

    Its depthwise kernels have no atomics: one block sums each weight's gradient, one thread each pixel's
    (`DepthwiseConv2d.cu`, `DepthwiseConv3d.cu`).
    """
    steps = zip(call.output_padding, call.stride, strict=True)
    if call.transposed:
        return any(extra >= step for extra, step in steps)
    depthwise = 1 < call.groups == call.x[1] and call.w[0] % call.x[1] == 0 and len(call.x) > 3
    return depthwise and not channels_last


def _answer(call: Convolution, setting: Setting, device: Descriptor, memory: int) -> Answer:
    channels_last = setting.layout == "NHWC" and len(call.x) > 3
    if is_pytorchs_own(call, channels_last=channels_last):
        return Answer(PYTORCH)
    try:
        data_type = BFLOAT16 if setting.precision == "bf16" else FLOAT
        graph = build_graph(problem_of(call), data_type, channels_last=channels_last)
        engines = [engine for engine in proposals(graph, device) if _allowed(engine, setting)]
    except CudnnError as error:
        return Answer(REFUSED, reason=str(error))
    free = _first(engines, device, memory)
    if free is None:
        return Answer(REFUSED, reason="cuDNN has no engine for it" if not engines else "no plan of cuDNN's builds")
    deterministic = [engine for engine in engines if NONDETERMINISTIC not in engine.notes]
    return Answer(
        CUDNN,
        free,
        _first(deterministic, device, memory),
        any(NONDETERMINISTIC in engine.notes for engine in _timed(engines, device, memory)),
    )


def _allowed(engine: Engine, setting: Setting) -> bool:
    return DOWN_CONVERT not in engine.notes and not (setting.precision == "fp32" and TENSOR_CORE in engine.notes)


def _first(engines: Sequence[Engine], device: Descriptor, memory: int) -> Choice | None:
    for engine in engines:
        workspace = engine.workspace(device)
        if workspace is not None and workspace <= memory:
            return Choice(engine.number, tuple(sorted(engine.notes)), workspace)
    return None


def _timed(engines: Sequence[Engine], device: Descriptor, memory: int) -> list[Engine]:
    """Those that autotuning times: the first ten that can run. Plans are built only where that can matter."""
    if not any(NONDETERMINISTIC in engine.notes for engine in engines[TIMED:]):
        return list(engines[:TIMED])
    runnable: list[Engine] = []
    for engine in engines:
        if len(runnable) == TIMED:
            break
        workspace = engine.workspace(device)
        if workspace is not None and workspace <= memory:
            runnable.append(engine)
    return runnable


def verdict(step: Step, result: Forecast) -> str:
    """One sentence: whether identical runs without deterministic mode have the same bits in this setting."""
    if result.unsupported:
        return result.unsupported
    refused = (
        f"; {plural(result.count('refused'), 'convolution')} that cuDNN refuses" if result.count("refused") else ""
    )
    operations = result.nondeterministic_calls() + len(step.others)
    return (f"{plural(operations, 'operation')} by atomics" if operations else FREE_OF_ATOMICS) + refused


def advice(step: Step, results: Sequence[Forecast]) -> list[str]:
    """What to change so that free runs have the same bits, for the card of `results`, all of one card."""
    lines = []
    asked = [result for result in results if not result.unsupported]
    if any(result.count("nondeterministic") for result in asked):
        lines.append("torch.backends.cudnn.deterministic = True takes the deterministic engine for every convolution")
        quiet = [result for result in asked if not result.count("nondeterministic") and not result.count("refused")]
        surely = [str(result.setting) for result in quiet if not result.count("autotuned")]
        if surely:
            lines.append(f"in {', '.join(surely)} no convolution has a nondeterministic engine to choose")
        if untuned := [str(result.setting) for result in quiet if result.count("autotuned")]:
            lines.append(f"in {', '.join(untuned)} without autotuning (torch.backends.cudnn.benchmark = False)")
    if any(result.without_deterministic_engine() for result in asked):
        lines.append("deterministic mode would fail: some convolutions have no deterministic engine")
    if asked:
        lines.append(
            "autotuning takes the fastest engine of each process, so that bits may differ between processes even "
            "among deterministic engines: torch.backends.cudnn.benchmark = False"
        )
    for (operation, instead), count in Counter((call.operation, call.hazard.instead) for call in step.others).items():
        lines.append(f"{operation} ({plural(count, 'call')}): {instead}")
    return lines


def facts(target: str, step: Step, results: Sequence[Forecast]) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "target": target, "torch": torch.__version__, "cudnn": version_name(), "shapes_from": step.device,
        "convolution_calls": len(step.convolutions),
        "others": [
            {"phase": o.phase, "operation": o.operation, "module": o.module, "what": o.hazard.what,
             "source": o.hazard.source, "instead": o.hazard.instead} for o in step.others
        ],
        "forecasts": [result.facts() | {"verdict": verdict(step, result)} for result in results],
    }  # fmt: skip
