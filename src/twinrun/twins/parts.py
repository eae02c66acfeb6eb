"""What a place in a checkpoint belongs to: data position, generator, data order, scheduler, optimizer or weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# In the order in which one makes the next differ: what stands further left is not changed by what stands right of it.
POSITION, GENERATOR, ORDER, SCHEDULER, OPTIMIZER, WEIGHTS, RESULTS = PARTS = (
    "data position", "generator", "data order", "scheduler", "optimizer", "weights", "results",
)  # fmt: skip
_ORDER = ("order", "permutation", "perm", "indices")
_WORDS = {
    RESULTS: r"hist|history|log|logs|loss|losses|acc|accuracy|metrics?|best|score|callbacks?",
    GENERATOR: r"rng|rngs|generators?|random|prng|mt19937",
    POSITION: r"epochs?|steps?|iters?|iteration|sampler|loaders?|dataloaders?|loops?|position|cursor|batch|batches|"
    r"samples?|consumed|progress|trainer",
    WEIGHTS: r"model|models|module|net|network|weights?|bias|params?|parameters?|ema|backbone|encoder|decoder|"
    r"discriminator",
}  # fmt: skip
_PARAMETER = re.compile(r"(^|\.)(weight|bias|running_mean|running_var|num_batches_tracked)$|^state_dict$")


def part_of(file: str, path: str) -> str | None:
    """The part that the names say: keys first, from the outermost, then the file's; None where they say nothing.

    >>> part_of("last.pt", "['optimizer']['param_groups'][0]['lr']"), part_of("rng_state.pth", "['cpu']")
    ('scheduler', 'generator')
    """
    # `epoch_3.pt` says when it was written, not what is in it.
    stem = re.sub(r"(epoch|step|iter|batch|sample)s?(?![a-z])", "", Path(file).stem)
    names = [*re.findall(r"'([^']*)'", path), stem]
    words = [_split(name) for name in names]
    everywhere = [word for name in words for word in name]
    if any(word.startswith("sched") for word in everywhere) or "lr" in everywhere:
        return SCHEDULER
    if any(word.startswith("optim") or word == "scaler" for word in everywhere):
        return OPTIMIZER
    if any(word in _ORDER for word in everywhere):
        return ORDER
    if any(_PARAMETER.search(name) for name in names):
        return WEIGHTS
    for name in words:
        for part, known in _WORDS.items():
            if any(re.fullmatch(known, word) for word in name):
                return part
    return None


def _split(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]


def explained(differing: Iterable[str], present: Iterable[str]) -> str:
    """Which part is the first to differ, what follows from it, and what the checkpoints do not hold."""
    apart = [part for part in PARTS if part in set(differing)]
    held = [part for part in PARTS if part in set(present) | set(apart)]
    if not apart:
        return ""
    first, later = apart[0], apart[1:]
    said = first
    if first == OPTIMIZER and WEIGHTS in later:
        said = "optimizer or weights, each of which makes the other differ"
        later.remove(WEIGHTS)
    elif first == GENERATOR:
        said = "generator, which was not restored or was drawn from another number of times"
    sentence = f"the first to differ: {said}"
    sentence += f"; and so does what follows from it: {', '.join(later)}" if later else ""
    equal = [part for part in held if part not in apart]
    sentence += f"; equal: {', '.join(equal)}" if equal else ""
    lacking = [part for part in (POSITION, GENERATOR, SCHEDULER, OPTIMIZER) if part not in held]
    return sentence + (f"; what is compared holds no state of: {', '.join(lacking)}" if lacking else "")
