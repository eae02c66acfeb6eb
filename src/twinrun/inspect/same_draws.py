"""The same augmentation in several workers or epochs: what the tracer wrote of a program's DataLoaders, judged."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

Place = tuple[int | None, int, int]  # worker (None: the process itself), training, and epoch of that from 1
Draws = dict[Place, tuple[str, str]]  # the states of a generator before and after the first batch


@dataclass(frozen=True)
class SameDraws:
    """A generator from which a DataLoader draws the same numbers more than once."""

    dataset: str
    generator: str
    workers: tuple[int, ...]
    epochs: tuple[int, ...]
    within: bool  # it is set to the same state as the examples are made; else it begins in it

    def what(self) -> str:
        """The finding in words."""
        places = [f"{kind} {_listed(numbers)}" for kind, numbers in
                  (("workers", self.workers), ("epochs", self.epochs)) if numbers]  # fmt: skip
        begins = "is set to the same state as the examples are made" if self.within else "begins in the same state"
        return f"draws the same random numbers in {' and in '.join(places)}: the generator {self.generator} {begins}"

    def instead(self) -> str:
        """What to do about it."""
        if not self.workers:
            return (
                "seed it once, before the first epoch, or by worker and epoch (torch.initial_seed() in worker_init_fn)"
            )
        return "seed it in worker_init_fn by torch.initial_seed(), which is another in each worker and epoch"

    def sentence(self) -> str:
        """All of it."""
        return f"Same augmentation: the DataLoader of {self.dataset} {self.what()}; {self.instead()}."


def same_draws(path: Path) -> tuple[SameDraws, ...]:
    """What a tracer wrote into `path` says of the datasets that are trained on; nothing, where it wrote nothing."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    trainings: dict[Any, tuple[int, int]] = {}  # of what began in a process: the training, and its epoch in that
    epochs: dict[Any, int] = defaultdict(int)
    for line in lines:
        if "training" in line:
            epochs[line["process"], line["dataset"], line["training"]] += 1
            epoch = epochs[line["process"], line["dataset"], line["training"]]
            trainings[line["process"], line["begins"]] = (line["training"], epoch)
    begun: dict[Any, int] = {}
    drawn: dict[tuple[int, str, str], Draws] = defaultdict(dict)
    for line in lines:
        who = (line["process"], line["dataset"])
        if "begins" in line and "training" not in line:
            begun[who] = line["begins"]
        elif "drawn" in line and (training := trainings.get((line["process"], begun.get(who)))):
            for generator, (before, after) in line["drawn"].items():
                drawn[*who, generator][line["worker"], *training] = (before, after)
    results = (_judged(dataset, generator, draws) for (_, dataset, generator), draws in drawn.items())
    return tuple(dict.fromkeys(result for result in results if result))


def _judged(dataset: str, generator: str, draws: Draws) -> SameDraws | None:
    # One of the dataset's own may be set anew for each example: what it began in says nothing then.
    own = generator.startswith("its own ")
    for within in (False,) if own else (False, True):
        states = {place: pair if own else pair[within : within + 1] for place, pair in draws.items()}
        workers = _alike(states, by=lambda place: place[1:], of=lambda place: place[0])
        epochs = _alike(states, by=lambda place: place[:2], of=lambda place: place[2], consecutive=True)
        if workers or epochs:
            return SameDraws(dataset, generator, workers, epochs, within)
    return None


def _alike(
    states: dict[Place, tuple[str, ...]],
    by: Callable[[Place], Any],
    of: Callable[[Place], Any],
    *,
    consecutive: bool = False,
) -> tuple[int, ...]:
    """The workers of one epoch, or the epochs of one worker, in which the state was the same; the first such lot."""
    lots: dict[tuple[Any, tuple[str, ...]], list[int]] = defaultdict(list)
    for place, state in states.items():
        lots[by(place), state].append(of(place))
    for lot in map(sorted, lots.values()):
        if len(lot) > 1 and (not consecutive or any(b - a == 1 for a, b in pairwise(lot))):
            return tuple(lot)
    return ()


def _listed(numbers: Iterable[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others[:6])}{', ...' if len(others) > 6 else ''} and {last}"
