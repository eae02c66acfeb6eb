"""From free to deterministic execution, one flag at a time: the rungs that `twinrun cost` compares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from twinrun.study.flags import NumericFlags
from twinrun.study.pins import CUBLAS, CUBLAS_DETERMINISTIC, PINNED, clean_environment

# On a CPU: what each rung pins of the environment, beside what the rungs before it pin.
CPU_PINS = {
    "one_thread": ("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    "avx2": ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
    "mkl_compatible": ("MKL_CBWR",),
}
AGAIN = "_again"
AS_IT_IS, DETERMINISTIC = "as_it_is", "deterministic_algorithms"


@dataclass(frozen=True)
class Rung:
    """What a process runs under: torch's switches, on a CPU the `pins` of the environment, and fingerprints or not."""

    flags: NumericFlags
    pins: tuple[str, ...] = tuple(PINNED)
    fingerprints: bool = False

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """A copy of `base` (default: this process's environment) with these pins and none of the other numeric ones."""
        free = {name for pins in CPU_PINS.values() for name in pins} - {*self.pins}
        return {name: value for name, value in clean_environment(base).items() if name not in free}

    def in_force(self) -> bool:
        """Whether this process has that environment; libraries read it when they are loaded."""
        return dict(os.environ) == self.environment()


@dataclass(frozen=True)
class ProgramRung:
    """What a foreign program runs under: switches as `injected/twinrun_switches.py` names them, and variables."""

    switches: Mapping[str, bool | int] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, more: ProgramRung) -> ProgramRung:
        """This and more; what both say is as `more` says."""
        return ProgramRung({**self.switches, **more.switches}, {**self.variables, **more.variables})

    def in_force(self, switches: Mapping[str, bool | int], variables: Mapping[str, str]) -> bool:
        """Whether a program that has these is on it already."""
        return self.switches.items() <= switches.items() and self.variables.items() <= variables.items()


AnyRung = TypeVar("AnyRung", Rung, ProgramRung)


@dataclass(frozen=True)
class Ladder(Generic[AnyRung]):
    """Rungs by name, each with all that those before it have.

    `lean` is the one that the answer is about: a study's runs of the arm det are on it, and of a program it is
    deterministic mode, or the last rung below it that the program lacks; where it lacks none, the first of the others.
    """

    rungs: Mapping[str, AnyRung]
    base: str
    lean: str
    below: Mapping[str, str] = field(default_factory=dict)  # what a rung is added to, where not to the one before it

    @property
    def control(self) -> str:
        """The same as the base: its ratio must not differ from 1, or the measurement is worth nothing."""
        return self.base + AGAIN

    def rung_before(self) -> dict[str, str]:
        """The rung that each one adds a single thing to; the control adds none to the first.

        >>> list(cuda_ladder(tf32=False).rung_before().items())[0]
        ('benchmark_off', 'free')
        """
        steps = [name for name in self.rungs if name != self.control]
        return dict(zip(steps[1:], steps, strict=False)) | dict(self.below)


def ladder_for(device: str, *, tf32: bool) -> Ladder[Rung]:
    """The ladder of a device, cpu or cuda: what makes no difference there is not measured."""
    return cpu_ladder() if device == "cpu" else cuda_ladder(tf32=tf32)


def cuda_ladder(*, tf32: bool) -> Ladder[Rung]:
    """From what ordinary training has to deterministic mode; the last rung turns TF32 off, where it is on."""
    flags = NumericFlags(tf32=tf32)
    rungs = {"free": Rung(flags), "free" + AGAIN: Rung(flags)}
    lean = DETERMINISTIC  # the first rung whose bits are promised to be the same each time
    steps: list[tuple[str, dict[str, bool]]] = [
        ("benchmark_off", {"cudnn_benchmark": False}),
        ("cudnn_deterministic", {"cudnn_deterministic": True}),
        ("cublas_workspace", {"cublas_workspace": True}),
        (lean, {"deterministic_algorithms": True}),
        ("memory_fill", {"fill_uninitialized_memory": True}),
    ]
    if tf32:
        # Without the memory fill again, whose cost would hide that of the precision.
        steps.append(("tf32_off", {"fill_uninitialized_memory": False, "tf32": False}))
    for name, change in steps:
        flags = replace(flags, **change)  # type: ignore[arg-type]  # of switches alone
        rungs[name] = Rung(flags)
    return Ladder(rungs, "free", lean, {"tf32_off": lean} if tf32 else {})


def cpu_ladder() -> Ladder[Rung]:
    """From ordinary torch, on all threads with the processor's own instructions, to the same bits on every x86-64.

    The optimizers are the project's, fused, on every rung.
    """
    kept = {name for pins in CPU_PINS.values() for name in pins}
    pins = tuple(name for name in PINNED if name not in kept)
    rungs = {name: Rung(NumericFlags(), pins) for name in ("ordinary", "ordinary" + AGAIN)}
    for name, more in CPU_PINS.items():
        pins += more
        rungs[name] = Rung(NumericFlags(), pins)
    deterministic = NumericFlags(cudnn_benchmark=False, cudnn_deterministic=True, deterministic_algorithms=True)
    rungs["deterministic_algorithms"] = Rung(deterministic, pins)
    rungs["fingerprints"] = Rung(deterministic, pins, fingerprints=True)
    return Ladder(rungs, "ordinary", "fingerprints")


def program_ladder(
    device: str, switches: Mapping[str, bool | int], variables: Mapping[str, str], *, attention: bool, compiled: bool
) -> tuple[Ladder[ProgramRung], dict[str, str]]:
    """The ladder of a foreign program, and which rungs are left out of it for which reason.

    The program was seen with these switches on, in an environment of these variables; `attention`: it calls a fused
    kernel of attention, `compiled`: code that torch.compile has made. It stays as it is on the lowest rung.
    """
    steps = _cuda_steps() if device == "cuda" else _cpu_steps()
    off = {"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1"}  # the second since torch 2.6
    branches = {
        "attention_math": (attention, "no fused attention was called", ProgramRung({"attention_math": True})),
        "compile_off": (compiled, "nothing was compiled by torch.compile", ProgramRung({}, off)),
    }
    if device == "cuda":
        # Both by name in what frameworks call full determinism, or in how they are made fast.
        blocking, fast = {"CUDA_LAUNCH_BLOCKING": "1"}, {"TORCHINDUCTOR_MAX_AUTOTUNE": "1"}
        branches["launch_blocking"] = (True, "", ProgramRung({}, blocking))
        branches["compile_max_autotune"] = (compiled, branches["compile_off"][1], ProgramRung({}, fast))
    rungs = {AS_IT_IS: ProgramRung(), AS_IT_IS + AGAIN: ProgramRung()}
    left_out: dict[str, str] = {}
    whole = ProgramRung()
    for name, more in steps.items():
        if more.in_force(switches, variables):
            left_out[name] = "in force already"
            continue
        # What deterministic mode does beside its purpose is a rung of its own.
        apart = {"fill_uninitialized_memory": False} if name == DETERMINISTIC else {}
        whole |= more | ProgramRung(apart)
        rungs[name] = whole
    main = [name for name in rungs if name in steps and name != "memory_fill"]
    lean = main[-1] if main else AS_IT_IS
    below = {}
    for name, (applies, why, more) in branches.items():
        if not applies or more.in_force(switches, variables):
            left_out[name] = "in force already" if applies else why
            continue
        below[name] = AS_IT_IS if name.startswith("compile") else lean
        rungs[name] = rungs[below[name]] | more
    answer = lean if main else next(iter([*rungs][2:]), lean)  # not the last: that one makes a program fast
    return Ladder(rungs, AS_IT_IS, answer, below), left_out


def _cpu_steps() -> dict[str, ProgramRung]:
    pinned = {name: ProgramRung({}, {pin: PINNED[pin] for pin in pins}) for name, pins in CPU_PINS.items()}
    pinned["one_thread"] |= ProgramRung({"cpu_threads": 1})
    return pinned | _deterministic()


def _cuda_steps() -> dict[str, ProgramRung]:
    return {
        "benchmark_off": ProgramRung({"cudnn_benchmark": False}),
        "cudnn_deterministic": ProgramRung({"cudnn_deterministic": True}),
        "cublas_workspace": ProgramRung({}, {CUBLAS: CUBLAS_DETERMINISTIC}),
        **_deterministic(),
    }


def _deterministic() -> dict[str, ProgramRung]:
    return {
        DETERMINISTIC: ProgramRung({"deterministic_algorithms": True}),
        "memory_fill": ProgramRung({"fill_uninitialized_memory": True}),
    }
