"""The audit of a foreign program: the operations that its own first steps called, held against what is documented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from twinrun.inspect.audit import BAD, NOTE, Audit, Finding
from twinrun.inspect.cudnn.operations import Convolution, OtherCall, Step, convolutions_of
from twinrun.inspect.nondeterministic_ops import ATTENTION_NOTES, DOCUMENTED, Hazard, documented
from twinrun.inspect.same_draws import SameDraws
from twinrun.study.errors import InputError, plural
from twinrun.study.files import read_json

OPAQUE = "is no operation of PyTorch's own (compiled, Triton's or an extension's): what it does inside is not seen"


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
