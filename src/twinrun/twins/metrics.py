"""One number over all twins: read from what each twin wrote or printed, with mean, SD and intervals."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinrun.stats.intervals import mean_interval, sd_chi_square
from twinrun.study.errors import InputError, TwinrunError
from twinrun.study.files import explain_os_error
from twinrun.twins.running import Twin

LOG = "log"  # in place of a file: what the program printed
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf\b|nan\b"


@dataclass(frozen=True)
class MetricResult:
    """One number over all twins, with intervals that suppose a normal distribution."""

    name: str
    values: dict[str, float]
    mean: float
    mean_low: float | None
    mean_high: float | None
    sd: float | None
    sd_low: float | None
    sd_high: float | None
    minimum: float
    maximum: float
    remark: str

    @property
    def same(self) -> bool:
        """Whether all twins have this number to the last bit."""
        return len({value.hex() for value in self.values.values()}) == 1


def compare_metric(twins: Sequence[Twin], wanted: str) -> tuple[MetricResult | None, list[str]]:
    """The metric over the twins that have it, and a sentence for each that has not."""
    values, problems = {}, []
    for twin in twins:
        try:
            values[twin.name] = read_metric(twin, wanted)
        except TwinrunError as error:
            problems.append(f"{twin.name}: {error}")
    if not values:
        return None, problems
    numbers = list(values.values())
    mean, sd = mean_interval(numbers), sd_chi_square(numbers)
    assert mean.value is not None
    return MetricResult(
        name=wanted,
        values=values,
        mean=mean.value,
        mean_low=mean.low,
        mean_high=mean.high,
        sd=sd.value,
        sd_low=sd.low,
        sd_high=sd.high,
        minimum=min(numbers),
        maximum=max(numbers),
        remark=sd.reason,
    ), problems


def metric_parts(wanted: str) -> tuple[str, str]:
    """The file and the key that `FILE:KEY` names; InputError for another form."""
    name, _, key = wanted.rpartition(":")
    if not name or not key:
        raise InputError(f"--metric {wanted!r}: it is FILE:KEY, such as out/metrics.json:accuracy")
    return name, key


def read_metric(twin: Twin, wanted: str) -> float:
    """The number that `FILE:KEY` names in what a twin wrote; FILE may be a pattern that matches one file.

    A JSON file: a dotted key, a list by index, or the last entry of a list that has the key. JSON lines and CSV: the
    last line with a value there. `log:WORD`: the number after the last WORD that the program printed.

    Raises InputError for a file or key that is not there and for a value that is no finite number.
    """
    name, key = metric_parts(wanted)
    path = _file(twin, name, wanted)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace" if path == twin.log else "strict")
    except UnicodeDecodeError as error:
        raise InputError(
            f"--metric {wanted!r}: {path.name} is no text in UTF-8 ({error})",
            "a metric stands in JSON, JSON lines or CSV, or in what is printed (log:WORD)",
        ) from error
    except OSError as error:
        raise explain_os_error(error, path) from error
    if path == twin.log:
        value = _printed(text, wanted, key)
    elif path.suffix.lower() in (".csv", ".tsv"):
        value = _csv_value(text, wanted, key, "\t" if path.suffix.lower() == ".tsv" else ",")
    else:
        value = _json_value(text, wanted, key, path.name)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError as error:
        raise InputError(f"--metric {wanted!r}: a whole number that no float64 holds") from error
    if not math.isfinite(number):
        raise InputError(f"--metric {wanted!r}: {_short(value)} is no finite number")
    return number


def _file(twin: Twin, name: str, wanted: str) -> Path:
    if (twin.folder / name).is_file():
        return twin.folder / name
    if name == LOG:
        return twin.log
    matches = sorted(path for path in twin.folder.glob(name) if path.is_file())
    if len(matches) > 1:
        names = ", ".join(str(path.relative_to(twin.folder)) for path in matches[:4])
        more = " ..." if len(matches) > 4 else ""
        raise InputError(f"--metric {wanted!r}: {name} matches {len(matches)} files", f"narrow it down: {names}{more}")
    if not matches:
        wrote = sorted(str(path.relative_to(twin.folder)) for path in twin.folder.rglob("*") if path.is_file())
        hint = f"it wrote: {', '.join(wrote[:8])}{' ...' if len(wrote) > 8 else ''}" if wrote else "it wrote no file"
        raise InputError(f"--metric {wanted!r}: {name} was not written", hint)
    return matches[0]


def _printed(text: str, wanted: str, word: str) -> float:
    after = rf"(?:\s*[:=]\s*|\s+)({_NUMBER})"
    matches = re.findall(rf"(?<![\w.]){re.escape(word)}{after}", text)
    if not matches:
        others = list(dict.fromkeys(match[1] for match in re.finditer(rf"(?<![\w.-])([^\W\d][\w.-]*){after}", text)))
        more = " ..." if len(others) > 8 else ""
        hint = f"it did after: {', '.join(others[:8])}{more}" if others else "such as `acc 0.93`"
        raise InputError(f"--metric {wanted!r}: the program printed no number after {word!r}", hint)
    return float(matches[-1])


def _csv_value(text: str, wanted: str, key: str, delimiter: str) -> Any:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise InputError(f"--metric {wanted!r}: this is no CSV file ({error})") from error
    header, rows = rows[0] if rows else [], [row for row in rows[1:] if row]
    if header.count(key) != 1 or not rows:
        there = f"columns: {', '.join(header)}" if rows else "it has no rows"
        count = f"{header.count(key)} columns" if header.count(key) > 1 else "no column"
        raise InputError(f"--metric {wanted!r}: {count} {key!r}", there)
    place = header.index(key)
    # Trainers write training and validation metrics in rows of their own: the last value, not the last row.
    cells = [row[place] for row in rows if place < len(row) and row[place]]
    if not cells:
        raise InputError(f"--metric {wanted!r}: no row has a value in column {key!r}")
    try:
        return float(cells[-1])
    except ValueError:
        return cells[-1]


def _json_value(text: str, wanted: str, key: str, name: str) -> Any:
    documents = list(_documents(text, wanted, name))
    problem: InputError | None = None
    for document in reversed(documents):  # of JSON lines, the last that has the key
        try:
            return _lookup(document, key, wanted, name)
        except InputError as error:
            problem = problem or error
    raise problem or InputError(f"--metric {wanted!r}: {name} is empty")


def _documents(text: str, wanted: str, name: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except (ValueError, RecursionError) as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            documents = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            documents = []
        if len(documents) < 2:
            raise InputError(f"--metric {wanted!r}: {name} is neither JSON nor JSON lines ({whole})") from whole
        yield from documents


def _lookup(value: Any, key: str, wanted: str, name: str) -> Any:
    for part in [key] if isinstance(value, dict) and key in value else key.split("."):
        if isinstance(value, list):
            value = _of_list(value, part, wanted, name)
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            there = f"there is: {', '.join(map(str, value))}" if isinstance(value, dict) else "it is no mapping"
            raise InputError(f"--metric {wanted!r}: no key {part!r} in {name}", there)
    return value


def _of_list(items: list[Any], part: str, wanted: str, name: str) -> Any:
    if re.fullmatch(r"-?\d{1,9}", part):
        try:
            return items[int(part)]
        except IndexError as error:
            there = f"the list has {len(items)} entries"
            raise InputError(f"--metric {wanted!r}: no entry {part} in {name}", there) from error
    for item in reversed(items):
        if isinstance(item, dict) and part in item:
            return item[part]
    raise InputError(f"--metric {wanted!r}: no entry of the list in {name} has the key {part!r}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
