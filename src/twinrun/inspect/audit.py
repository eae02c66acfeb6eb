"""Which operations of a training step may give other bits: by PyTorch's word, and by trying on the device at hand."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from twinrun.inspect.injected.twinrun_operations import SEEN_THROUGH, UNINITIALIZED, named_arguments, tensors_in
from twinrun.inspect.nondeterministic_ops import documented
from twinrun.inspect.repeat import call_digests, repeat_elsewhere, save_call
from twinrun.inspect.trace import Tracer
from twinrun.training.numerics import flags_kept, set_flags
from twinrun.training.own_models import blame
from twinrun.training.torch_errors import NOT_DETERMINISTIC

Loss = Callable[[Any, Any], torch.Tensor]
BAD, NOTE = "bad", "note"
THREADS = (1, 2, 3)


@dataclass(frozen=True)
class Finding:
    """`level` is `bad` (other bits from run to run) or `note` (held by fixing threads, instructions).

    `kind`: documented, warned, repeated, threads, instructions, opaque; of a program also backend, augmentation.
    """

    level: str
    kind: str
    phase: str
    operation: str
    module: str
    what: str
    instead: str


@dataclass(frozen=True)
class Audit:
    """The findings of one training step; `operations` is how many calls were looked at."""

    findings: list[Finding]
    operations: int
    device: str
    repeats: int

    @property
    def ok(self) -> bool:
        """Whether nothing bad was found."""
        return not any(finding.level == BAD for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"ok": self.ok, "torch": torch.__version__}


def audit(model: nn.Module, loss: Loss, optimizer: Optimizer, batch: tuple[Any, Any], *, repeats: int = 5) -> Audit:
    """Examine one training step of `model` on `batch` (inputs, targets); model and optimizer are left as they are.

    `loss(model(inputs), targets)` is differentiated. Raises InputError when the step itself fails.
    """
    with blame("the model and its optimizer cannot be copied", Path()):
        model, loss, optimizer = copy.deepcopy((model, loss, optimizer))
    with tempfile.TemporaryDirectory(prefix="twinrun-audit-") as folder:
        examiner = Examiner(model, optimizer, repeats, Path(folder))
        inputs, targets = batch
        model.train()
        with blame("the training step to be audited fails", Path()), flags_kept(), examiner:
            value = loss(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
        examiner.compare_instruction_sets()
    device = next((str(t.device.type) for t in model.parameters()), "cpu")
    order = {BAD: 0, NOTE: 1}
    findings = sorted(dict.fromkeys(examiner.findings), key=lambda finding: order[finding.level])
    return Audit(findings, examiner.count, device, repeats)


class Examiner(Tracer):
    """Does every operation of the step several times over, on copies of its inputs."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, repeats: int, folder: Path) -> None:
        super().__init__(model, optimizer, 0, lambda event: None)
        self.repeats, self.folder = repeats, folder
        self.findings: list[Finding] = []
        self.count = 0
        self.saved: dict[str, list[tuple[str, str, str]]] = {}  # where each saved call stands in the step
        self.known: dict[str, str] = {}  # number of the saved call, by what makes two calls alike

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        module, _ = self.place()
        if name.startswith("profiler::") or name in UNINITIALIZED or func.is_view:
            return func(*args, **kwargs)
        place = (self.phase, str(func), module)
        self.count += 1
        given = named_arguments(func, args, kwargs)
        self._by_word(place, name, given)
        if any(True for _ in tensors_in((args, kwargs))):
            self._by_trying(place, func, args, kwargs)
        return func(*args, **kwargs)

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.stack:
            self.stack.pop()

    def _by_word(self, place: tuple[str, str, str], name: str, given: dict[str, Any]) -> None:
        hazard = documented(name, given)
        if hazard:
            self._find(BAD, "documented", place, f"{hazard.what} ({hazard.source})", hazard.instead)
        if name.split("::")[0] not in SEEN_THROUGH:
            words = "is no operation of PyTorch: what it does inside cannot be judged, only tried"
            self._find(NOTE, "opaque", place, words, "look at its source for atomic additions")

    def _by_trying(self, place: tuple[str, str, str], func: Any, args: Any, kwargs: Any) -> None:
        state = torch.get_rng_state()
        on_cpu = all(tensor.device.type == "cpu" for _, tensor in tensors_in((args, kwargs)))
        cuda = None if on_cpu else torch.cuda.get_rng_state()

        def again() -> list[str]:
            torch.set_rng_state(state)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda)
            return call_digests(func, args, kwargs)

        self._by_alert(place, again)
        first = again()
        other = sum(again() != first for _ in range(self.repeats - 1))
        if other:
            words = f"gave other bits in {other} of {self.repeats - 1} repetitions on the same inputs"
            self._find(BAD, "repeated", place, words, "torch.use_deterministic_algorithms(True), or another operation")
        elif on_cpu:
            self._by_threads(place, again)
            if torch.Tag.nondeterministic_seeded not in func.tags:
                self._save(place, func, args, kwargs)
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    def _by_alert(self, place: tuple[str, str, str], again: Callable[[], list[str]]) -> None:
        """In deterministic mode PyTorch refuses what has no deterministic implementation.

        Its mere warning would be of no use: it is given only after this mode's code for the operation has returned.
        """
        with flags_kept():
            set_flags({"deterministic_algorithms": True})
            try:
                again()
            except RuntimeError as error:  # others, such as of cuBLAS without its workspace, are about this mode alone
                if NOT_DETERMINISTIC in str(error):
                    words = "PyTorch says that it has no deterministic implementation on this device"
                    hint = "see the documentation of torch.use_deterministic_algorithms"
                    self._find(BAD, "warned", place, words, hint)

    def _by_threads(self, place: tuple[str, str, str], again: Callable[[], list[str]]) -> None:
        seen = []
        with flags_kept():
            for threads in THREADS:
                set_flags({"cpu_threads": threads})
                seen.append(again())
        if any(digests != seen[0] for digests in seen):
            words = f"gives other bits with another number of threads (tried: {', '.join(map(str, THREADS))})"
            self._find(NOTE, "threads", place, words, "fix the number of threads; twinrun's runs use one")

    def _save(self, place: tuple[str, str, str], func: Any, args: Any, kwargs: Any) -> None:
        shapes = [(str(t.dtype), tuple(t.shape), t.stride()) for _, t in tensors_in((args, kwargs))]
        alike = f"{func} {shapes} {[value for value in args if not isinstance(value, (torch.Tensor, list))]}"
        if alike not in self.known:
            number = str(len(self.saved))
            if not save_call(self.folder, int(number), func, args, kwargs):
                return
            self.known[alike], self.saved[number] = number, []
        self.saved[self.known[alike]].append(place)

    def compare_instruction_sets(self) -> None:
        """Note which of the saved calls give other bits with other instructions of the processor."""
        if not self.saved:
            return
        results = repeat_elsewhere(self.folder)
        for number, places in self.saved.items():
            seen = {name: digests[number] for name, digests in results.items()}
            if len({tuple(digests) for digests in seen.values()}) > 1:
                words = f"gives other bits with another instruction set (tried: {', '.join(seen)})"
                for place in places:
                    self._find(NOTE, "instructions", place, words, "fix ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA")

    def _find(self, level: str, kind: str, place: tuple[str, str, str], what: str, instead: str) -> None:
        self.findings.append(Finding(level, kind, *place, what, instead))
