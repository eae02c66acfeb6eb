"""Cards as cuDNN wants them described: the known ones with sources, a file of one's own, or the card that is here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import torch

from twinrun.inspect.cudnn.backend import CudnnError, description_of_device
from twinrun.study.errors import DeviceError, InputError
from twinrun.study.files import read_json

TABLE = Path(__file__).with_suffix(".json")
HERE = "here"  # the name of the card in this machine
AMPERE = 800  # compute capability from which a card has TF32 and bfloat16 in its tensor cores
_LISTS = {"maxGridSize": 3, "maxBlockSize": 3}
_FLAGS = ("isTccDriver", "supportCoopLaunch")
_MAY_BE_ZERO = (*_FLAGS, "pciDeviceId", "cudaDeviceId", "reservedSharedMemoryPerBlock")


@dataclass(frozen=True)
class Card:
    """A card by a short name and its description, with the keys of cuDNN's JSON."""

    name: str
    description: dict[str, Any]

    @property
    def compute_capability(self) -> int:
        """900 for 9.0."""
        return int(self.description["deviceVer"])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text())
    return table


def known_cards() -> list[str]:
    """The names in the table, oldest card first."""
    return list(_table()["cards"])


def sourced(name: str) -> dict[str, tuple[Any, str]]:
    """Value and source of every key of a known card."""
    table = _table()
    own = table["cards"][name]
    values = table["every_card"] | table["compute_capability"][str(own["deviceVer"][0])] | own
    return {key: (value, table["sources"][source]) for key, (value, source) in values.items()}


def find_card(name: str) -> Card:
    """A known card, `here`, or a JSON file with a description; InputError names the nearest cards."""
    if name.lower() == HERE:
        return card_here()
    if name.endswith(".json"):
        description = read_json(Path(name))
        check_description(description, name)
        return Card(str(description["deviceName"]), description)
    plain = {_plain(known): known for known in known_cards()}
    parts = [known for key, known in plain.items() if _plain(name) and _plain(name) in key]
    if _plain(name) in plain or len(parts) == 1:  # "A6000" is one card, "A100" is two
        known = plain.get(_plain(name), parts[0])
        return Card(known, {key: value for key, (value, _) in sourced(known).items()})
    parts = parts or [known for key, known in plain.items() if key in _plain(name)]
    near = parts or [plain[key] for key in get_close_matches(_plain(name), plain, n=3, cutoff=0.4)]
    start = f"nearest: {', '.join(near)}; " if near else ""
    hint = f"{start}known: {', '.join(known_cards())}; or {HERE}, or a .json file with cuDNN's description of a card"
    raise InputError(f"--gpu {name}: no such card is known", hint)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum()).removeprefix("nvidia").removeprefix("geforce")


def card_here() -> Card:
    """The first CUDA device of this machine, as cuDNN itself describes it; DeviceError where there is none."""
    try:
        description = description_of_device(0)
    except CudnnError as error:
        hint = f"name a card instead: {', '.join(known_cards())}"
        raise DeviceError(f"--gpu {HERE}: cuDNN finds no CUDA device here ({error})", hint) from error
    check_description(description, HERE)
    return Card(str(description["deviceName"]), description)


def check_description(description: Any, where: str) -> None:
    """InputError for a description with missing, foreign or impossible values."""
    wanted = set(sourced(known_cards()[0]))
    if not isinstance(description, dict) or (missing := sorted(wanted - set(description))):
        lack = ", ".join(missing) if isinstance(description, dict) else "everything"
        raise InputError(f"{where}: the description of the card lacks {lack}", "`--gpu here --save FILE` writes one")
    for key in sorted(wanted):
        value, low = description[key], 0 if key in _MAY_BE_ZERO else 1
        if key == "deviceName":
            fits = isinstance(value, str) and bool(value)
            allowed = "a name"
        elif key in _LISTS:
            fits = isinstance(value, list) and len(value) == _LISTS[key] and all(_whole(item, 1) for item in value)
            allowed = f"{_LISTS[key]} whole numbers from 1"
        else:
            fits, allowed = _whole(value, low) and not (key in _FLAGS and value > 1), f"a whole number from {low}"
        if not fits:
            raise InputError(f"{where}: {key} of the card is {value!r}", f"it must be {allowed}")
    flags = (torch._C._cuda_getArchFlags() or "").split()  # none in a torch without CUDA
    served = [int(flag.removeprefix("sm_")) for flag in flags if flag.startswith("sm_")]
    version = description["deviceVer"]
    if served and not any(10 * number <= version < 100 * (number // 10 + 1) for number in served):
        numbers = ", ".join(f"{number // 10}.{number % 10}" for number in served)
        raise InputError(
            f"{where}: deviceVer of the card is {version}",
            "it is the compute capability times 100, such as 860 for 8.6; "
            f"torch {torch.__version__} has kernels for {numbers} and later ones with the same first number",
        )


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
