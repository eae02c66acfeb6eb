"""The first difference of two runs: the file that `twinrun locate` writes, and how it is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from twinrun.study.documents import read_document
from twinrun.study.errors import plural
from twinrun.study.files import write_json, write_text
from twinrun.study.records import Sha256

AGAIN = "run `twinrun locate` again"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DifferingOperation(_Block):
    """One operation, or one boundary before it, at which two runs differ, and by how much."""

    phase: str  # initialization, between steps, batch, augmentation, forward, backward, optimizer
    operation: str  # its name in PyTorch, such as aten.mm.default; (state), (draw) or (module) where none is looked at
    other_operation: str | None = None  # of the second run, where it does something else
    module: str  # path in the model; empty: the model itself or none
    module_type: str | None = None
    side: Literal["input", "output"]
    tensor: str  # what it is: a parameter's name, a gradient, or the operation's own word for it
    shape: list[int] = []
    dtype: str = ""
    opaque: bool = False  # made by something that PyTorch's dispatcher does not show
    kind: str = ""  # shape, rows in another order, elements in another order, sign, values, other operation
    elements: int | None = None
    differ: int | None = None
    not_finite: int | None = None
    ulps_max: int | None = None
    ulps_median: float | None = None
    first_index: int | None = None


class Growth(_Block):
    """How far the runs are apart after a step; step 0 is the one in which they part."""

    step: int
    epoch: int
    weights_differ: int  # elements
    weights: int
    ulps_max: int | None
    ulps_median: float | None  # over the elements that differ
    relative_l2: float | None  # |b - a| / |a| over all parameters; null when not finite
    flipped: int | None  # test examples with another predicted class; null: not predicted after this step
    examples: int | None
    loss_first: float | None
    loss_second: float | None


class FirstDifference(_Block):
    """The answer for two runs."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    first: str
    second: str
    task: str
    params_digest: Sha256
    code_digest: Sha256
    data_digest: Sha256
    device: str
    fingerprints: list[Sha256]  # the final ones of both records
    outcome: Literal["none", "located", "step only"]
    how: list[str]  # what was done, for people
    epoch: int | None = None  # counted from 1
    step: int | None = None  # in the epoch, counted from 1
    steps_before: int | None = None  # updates that were equal to the last bit
    parting: DifferingOperation | None = None
    arithmetic: DifferingOperation | None = None  # the first that is more than another order of the same examples
    operations: int | None = None  # looked at in both runs
    growth: list[Growth] = []


def write_first_difference(path: Path, located: FirstDifference) -> None:
    """Write `path` (.json) and the growth beside it as .csv."""
    write_json(path, located.model_dump(by_alias=True))
    names = list(Growth.model_fields)
    rows = [",".join("" if (v := getattr(row, n)) is None else repr(v) for n in names) for row in located.growth]
    write_text(path.with_suffix(".csv"), "\n".join([",".join(names), *rows]) + "\n")


def read_first_difference(path: Path) -> FirstDifference:
    """Read what `write_first_difference` wrote; MismatchError when it is something else."""
    return read_document(path, FirstDifference, "a located pair of this version", AGAIN)


def sentences(difference: FirstDifference) -> list[str]:
    """The answer in words."""
    pair = f"{difference.first} and {difference.second}"
    if difference.outcome == "none":
        return [f"{pair}: none: no difference was found.", *difference.how]
    lines = [
        f"{pair} part in epoch {difference.epoch}, step {difference.step}, "
        f"after {plural(difference.steps_before or 0, 'equal step')}."
    ]
    if difference.parting:
        lines.append(f"First difference: {described(difference.parting)}.")
    if difference.arithmetic and difference.arithmetic != difference.parting:
        lines.append(f"First that is more than another order of the same examples: {described(difference.arithmetic)}.")
    if difference.growth:
        last = difference.growth[-1]
        apart = "not finite" if last.relative_l2 is None else f"{last.relative_l2:.3g} of their length"
        lines.append(
            f"{plural(last.step, 'step')} later {last.weights_differ} of {last.weights} weights differ "
            f"(distance {apart}), and {last.flipped} of {last.examples} test examples are predicted otherwise."
        )
    return lines + difference.how


def described(parting: DifferingOperation) -> str:
    """Phase, operation, module, tensor and size of one difference, in words."""
    words = f"phase {parting.phase}, "
    if parting.operation in ("(state)", "(draw)"):
        words += parting.tensor or "the first run goes on to its model"
    elif parting.operation == "(module)":
        words += f"output of {place(parting)}, made by an operation that PyTorch's dispatcher does not show (opaque)"
    elif parting.other_operation:
        words += f"{parting.operation} in {place(parting)}"
    else:
        words += f"{parting.operation} in {place(parting)}, {parting.side} {parting.tensor}".replace(
            "output output", "output"
        )
        if parting.opaque and parting.side == "input":
            words += ", which came from outside of what PyTorch's dispatcher shows (opaque)"
        elif parting.opaque:
            words += " (opaque: what this operation does inside is not seen)"
    if parting.other_operation:
        words += f"; the second run does {parting.other_operation} instead"
    if parting.elements is not None:
        words += f": {parting.differ} of {parting.elements} elements differ ({parting.kind}"
        if parting.ulps_max is not None:
            median = parting.ulps_median or 0.0
            words += f", at most {parting.ulps_max} ulps, median {median:{'g' if median < 1e5 else '.0f'}}"
        words += ")"
    return words


def place(parting: DifferingOperation) -> str:
    """The module in words."""
    if parting.module.startswith("("):
        return parting.module
    kind = f" ({parting.module_type})" if parting.module_type else ""
    return f"{parting.module or 'the model itself'}{kind}"
