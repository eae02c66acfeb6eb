"""The grid: which runs a study has, their labels, ids and order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from twinrun.study.errors import InputError

ARMS = {
    "det": "nothing is free: deterministic mode",
    "nd": "the implementation noise is free",
    "init": "the initialization is free",
    "shuffle": "the order of the data is free",
    "augment": "the augmentation is free",
    "dropout": "the dropout masks are free",
    "ulp": "one weight, drawn by the run, starts one unit in the last place higher; nothing else is free",
    "all": "every stream and the implementation noise are free",
}
STREAMS = ("init", "shuffle", "augment", "dropout")

_LABEL = re.compile(r"([a-z]+)_([1-9][0-9]*)")


@dataclass(frozen=True)
class Run:
    """One run: a cell (task, optimizer, seed) with an arm and a replicate number."""

    task: str
    optimizer: str
    seed: int
    arm: str
    replicate: int

    @property
    def label(self) -> str:
        """Arm and replicate number, such as `nd_3`."""
        return f"{self.arm}_{self.replicate}"

    @property
    def cell(self) -> str:
        """The identity shared by all replicates: `<task>/<optimizer>/<seed>`."""
        return f"{self.task}/{self.optimizer}/{self.seed}"

    @property
    def id(self) -> str:
        """`<task>/<optimizer>/<seed>/<label>`: also the path of the record."""
        return f"{self.cell}/{self.label}"

    @property
    def stage(self) -> str:
        """The DVC stage that makes this run."""
        return f"train@{self.task}-{self.optimizer}-{self.seed}-{self.label}"

    @property
    def free_streams(self) -> tuple[str, ...]:
        """The algorithmic streams that this run does not share with its replicates."""
        if self.arm == "all":
            return STREAMS
        return (self.arm,) if self.arm in STREAMS else ()

    @property
    def free_noise(self) -> bool:
        """Whether implementation noise is free, or one ulp of a weight in its place."""
        return self.arm in ("nd", "ulp", "all")


def parse_label(label: str) -> tuple[str, int]:
    """`nd_3` -> ("nd", 3); InputError says what a label looks like."""
    match = _LABEL.fullmatch(label)
    if not match or match[1] not in ARMS:
        raise InputError(
            f"run label {label!r} is not known",
            f"a label is an arm and a number, such as det_1 or nd_3; arms: {', '.join(ARMS)}",
        )
    return match[1], int(match[2])


def expand(tasks: Iterable[str], optimizers: Iterable[str], seeds: Iterable[int], labels: Iterable[str]) -> list[Run]:
    """Every run of the grid in its stable order: tasks, then optimizers, then seeds, then labels, each as listed."""
    tasks, optimizers, seeds = list(tasks), list(optimizers), list(seeds)
    parsed = [parse_label(label) for label in labels]
    return [
        Run(task, optimizer, seed, arm, replicate)
        for task in tasks
        for optimizer in optimizers
        for seed in seeds
        for arm, replicate in parsed
    ]


def find(runs: list[Run], run_id: str) -> Run:
    """The run of that id; InputError names the nearest id of the grid."""
    by_id = {run.id: run for run in runs}
    if run_id in by_id:
        return by_id[run_id]
    near = get_close_matches(run_id, by_id, n=1)
    hint = f"the nearest is {near[0]}; " if near else ""
    raise InputError(
        f"run {run_id!r} is not in the grid of this study", f"{hint}`twinrun plan --ids` lists all {len(runs)}"
    )
