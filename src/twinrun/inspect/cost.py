"""`twinrun cost`: step times of every rung in palindromic blocks of fresh processes, kept as they come."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twinrun.study.errors import IncompleteError, InputError, MismatchError
from twinrun.study.files import digest, read_json, write_json
from twinrun.study.pins import clean_environment

SCHEMA = 2
Measure = Callable[[str], dict[str, Any]]  # rung -> what `twinrun probe` prints


def palindrome(rungs: Sequence[str], block: int) -> list[str]:
    """The order of one block: the rungs in an order drawn for that block, then the same backwards."""
    order = list(rungs)
    random.Random(block).shuffle(order)  # other neighbours in every block
    return order + order[::-1]


def measure_blocks(
    path: Path,
    settings: dict[str, Any],
    rungs: Sequence[str],
    blocks: int,
    measure: Measure,
    say: Callable[[str], None] = lambda message: None,
) -> list[Any]:
    """Measure until `path` holds so many blocks, and return them: lists of what `measure` gave, in their order.

    A block is written when it is whole; what is there already is kept. Raises InputError when it is of other settings,
    MismatchError when it is of another device, other data or other versions: their times have no common ratio.
    """
    identity = digest([SCHEMA, settings, list(rungs)])
    content: dict[str, Any] = {"schema": SCHEMA, "settings": settings, "identity": identity, "blocks": []}
    if path.is_file():
        content = read_json(path)
        if content.get("identity") != identity:
            raise InputError(f"{path}: measured with other settings or by other code", "move it away to measure anew")
    done: list[Any] = content["blocks"]
    while len(done) < blocks:
        block = []
        for rung in palindrome(rungs, len(done)):
            block.append(measure(rung))
            check_same_machine(path, (done or [block])[0][0], block[-1])
            say(f"block {len(done) + 1} {rung}")
        done.append(block)
        write_json(path, content)
    return done[:blocks]


def check_same_machine(path: Path, first: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to put `now` into one file with `first`: MismatchError says in what they differ."""
    was, here = (
        {
            "clock": item["clock"],
            "GPU" if item["host"]["gpu"] else "processor": item["host"]["gpu"] or item["host"]["cpu"],
            "data": item["data"][:12],
            **item["versions"],
        }
        for item in (first, now)
    )
    differs = [
        f"{name} ({was.get(name, 'none')}, now {here.get(name, 'none')})"
        for name in was | here
        if was.get(name) != here.get(name)
    ]
    if differs:
        raise MismatchError(
            f"{path}: its blocks were measured with other {', '.join(differs)}",
            "go on where it was begun, or move it away to measure anew here",
        )


def times(blocks: Sequence[Sequence[dict[str, Any]]]) -> list[list[tuple[str, float]]]:
    """(rung, median seconds of a step) of every process of every block, in the order measured."""
    return [[(item["rung"], statistics.median(item["step_seconds"])) for item in block] for block in blocks]


def probe_process(root: Path, run_id: str, options: Sequence[str]) -> Callable[[str | None], dict[str, Any]]:
    """A measure that starts `twinrun probe` from nothing for each rung; None: with the run's own flags.

    Never from a worker server: processes that share their loaded libraries would not be independent measurements.
    """

    def measure(rung: str | None) -> dict[str, Any]:
        command = [sys.executable, "-m", "twinrun", "probe", run_id, *(["--rung", rung] if rung else []), *options]
        done = subprocess.run(command, cwd=root, env=clean_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip()[-2000:].removeprefix("twinrun: ")
            raise IncompleteError(
                f"the measurement of {rung or run_id} ended with exit {done.returncode}: {said}",
                "whole blocks are kept: mend the cause, and the same command goes on",
            )
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return measure
