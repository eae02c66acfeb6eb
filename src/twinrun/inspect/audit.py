"""Which operations of a training step may give other bits: by PyTorch's word, and by trying on the device at hand.

Of a foreign program the operations that its own first steps called are held against PyTorch's word alone.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from twinrun.inspect.cudnn.operations import Convolution, OtherCall, Step, convolutions_of
from twinrun.inspect.injected.twinrun_operations import SEEN_THROUGH, UNINITIALIZED, named_arguments, tensors_in
from twinrun.inspect.nondeterministic_ops import ATTENTION_NOTES, DOCUMENTED, Hazard, documented
from twinrun.inspect.repeat import call_digests, repeat_elsewhere, save_call
from twinrun.inspect.same_draws import SameDraws
from twinrun.inspect.trace import Tracer
from twinrun.study.errors import InputError, plural
from twinrun.study.files import read_json
from twinrun.training.numerics import flags_kept, set_flags
from twinrun.training.own_models import blame
from twinrun.training.torch_errors import NOT_DETERMINISTIC

Loss = Callable[[Any, Any], torch.Tensor]
BAD, NOTE = "bad", "note"
THREADS = (1, 2, 3)
OPAQUE = "is no operation of PyTorch's own (compiled, Triton's or an extension's): what it does inside is not seen"


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


@dataclass(frozen=True)
class ProgramAudit(Audit):
    """As `Audit`, of operations that were seen and not repeated; `torch` is the program's version.

    `convolutions` are those of one step.
    """

    torch: str
    steps: int
    ranks: int
    convolutions: list[Convolution]

    def facts(self) -> dict[str, Any]:
        """For JSON; `twinrun forecast FILE.json` reads the convolutions."""
        return asdict(self) | {"ok": self.ok}

    def scope(self) -> str:
        """What the findings are about."""
        who = f" of rank 0 (of {self.ranks})" if self.ranks > 1 else ""
        words = (
            f"{self.operations} kinds of calls in {plural(self.steps, 'optimizer step')}{who} on {self.device} with "
            f"torch {self.torch}, held against what {DOCUMENTED} documents of CUDA"
        )
        if self.torch.split("+")[0] != DOCUMENTED.split()[1]:
            words += " (another version: its own documentation may say more)"
        elif "cuda" not in self.device:
            words += "; a GPU may be given other operations than this"
        return words


def audit_calls(seen: Mapping[str, Any], version: str, draws: Sequence[SameDraws] = ()) -> ProgramAudit:
    """Judge the calls that the tracer wrote down, each kind once, and what the DataLoaders draw from."""
    calls, steps = seen["operations"], seen["steps"]
    findings: dict[Finding, None] = {}
    convolutions: list[Convolution] = []
    devices: set[str] = set()
    for call in calls:
        given = {key: _rebuilt(value, devices) for key, value in call["arguments"].items()}
        result = _rebuilt(call["result"], devices)
        place = (call["phase"], call["operation"], call["module"])
        a_step = max(1, call["count"] // max(1, steps))  # one more, as where lazy layers get their shape, is in no step
        convolutions += convolutions_of(call["name"], call["module"], given, result) * a_step
        operation = call["name"].rpartition("::")[2]
        if hazard := documented(call["name"], given):
            findings[Finding(BAD, "documented", *place, f"{hazard.what} ({hazard.source})", hazard.instead)] = None
        elif call["opaque"]:
            findings[Finding(NOTE, "opaque", *place, OPAQUE, "look at its source for atomic additions")] = None
        elif operation in ATTENTION_NOTES:
            findings[Finding(NOTE, "backend", *place, *ATTENTION_NOTES[operation])] = None
    for same in draws:
        words = "same augmentation: it " + same.what()
        findings[Finding(NOTE, "augmentation", "data", f"DataLoader of {same.dataset}", "", words, same.instead())] = (
            None
        )
    ordered = sorted(findings, key=lambda finding: finding.level != BAD)
    return ProgramAudit(
        ordered, len(calls), ", ".join(sorted(devices)) or "cpu", 0, version, steps, seen["ranks"], convolutions
    )


def step_of_audit(path: Path) -> Step:
    """The convolutions of a file that `twinrun audit --json FILE -- CMD` wrote; InputError for another file."""
    facts = read_json(path)
    try:
        calls = [_convolution(row) for row in facts["convolutions"]]
        others = [OtherCall(row["phase"], row["operation"], row["module"], Hazard(row["what"], row["instead"]))
                  for row in facts["findings"] if row["level"] == BAD]  # fmt: skip
        return Step(calls, others, facts["device"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not written by an audit of a program", "twinrun audit --json FILE.json -- python train.py"
        ) from error


def _convolution(row: dict[str, Any]) -> Convolution:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Convolution(**plain)


def _rebuilt(value: Any, devices: set[str]) -> Any:
    """An argument as it was, a tensor without its values."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "device"}:
        devices.add(value["device"])
        return torch.empty(value["shape"], dtype=getattr(torch, value["dtype"].removeprefix("torch.")), device="meta")
    if isinstance(value, list):
        return [_rebuilt(item, devices) for item in value]
    return value
