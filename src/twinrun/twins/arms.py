"""What each arm sets in a twin's environment; nothing else of the program is touched."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from twinrun.study.errors import InputError
from twinrun.study.pins import ARM, CUBLAS, CUBLAS_DETERMINISTIC, NCCL, PINNED, SEED, clean_environment

ARMS = {
    "det": "the same seed, and the environment in which libraries compute the same each time",
    "nd": "the same seed, the environment as it is",
    "all": "another seed for each twin, the environment as it is",
}
SEEDS = 2**32  # numpy's legacy generator takes no larger one
# These two change which packages and modules a program finds: right for a study's runs, wrong for a foreign program.
_FOREIGN = ("PYTHONNOUSERSITE", "PYTHONSAFEPATH")


def environment(arm: str, seed: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of one twin, made of `base`: the seed in TWINRUN_SEED, the arm in TWINRUN_ARM, and for

    det the variables of `study/pins.py` but the two that choose packages, CUBLAS_WORKSPACE_CONFIG=:4096:8, and NCCL's
    where `base` has none.
    """
    variables = dict(base)
    if arm == "det":
        variables = clean_environment(base)
        for name in _FOREIGN:
            variables.pop(name)
            variables |= {name: base[name]} if name in base else {}
        variables = NCCL | variables | {CUBLAS: CUBLAS_DETERMINISTIC}
    return variables | {SEED: str(seed), ARM: arm}


def seeds(arm: str, seed: int, count: int) -> list[int]:
    """The seed of each twin: `seed` for all of them, or in the arm `all` fresh ones, no two alike."""
    if arm not in ARMS:
        raise InputError(f"--arm {arm} is not known", f"arms: {', '.join(ARMS)}")
    if not 0 <= seed < SEEDS:
        raise InputError(f"--seed {seed}: a seed is a whole number from 0 to {SEEDS - 1}")
    if arm != "all":
        return [seed] * count
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[secrets.randbelow(SEEDS)] = None
    return list(drawn)


def described(arm: str) -> str:
    """In words what the arm sets."""
    if arm == "det":
        pins = " ".join(f"{name}={value}" for name, value in PINNED.items() if name not in _FOREIGN)
        return f"{ARMS[arm]}: {pins} {CUBLAS}={CUBLAS_DETERMINISTIC}; NCCL's ring, protocol and channels"
    return ARMS[arm]
