"""What twins left, compared: every output file against that of the first twin, every metric over all of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from twinrun.stats.intervals import mean_interval, sd_chi_square
from twinrun.study.errors import InputError, TwinrunError
from twinrun.study.files import read_json, sha256_file
from twinrun.twins.bits import Difference
from twinrun.twins.contents import read_contents, safetensors_metadata
from twinrun.twins.nested import differences, leaves
from twinrun.twins.running import Twin

SAME, PACKAGING, DIFFERENT, ABSENT = "same bytes", "same contents", "different", "missing"


@dataclass(frozen=True)
class FileResult:
    """One output file over all twins; `first` is the first difference from the first twin that has the file."""

    name: str
    verdict: str
    twins: int  # that have it
    versions: int  # different byte strings among them
    sha256: dict[str, str]  # by twin
    read_as: str
    what: str  # in words
    places: int = 0  # where the twin that is compared differs
    entries: int = 0
    against: str = ""  # "twin 1 against twin 2"
    first: Difference | None = None
    largest_ulps: int | None = None


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


def compare_files(twins: Sequence[Twin], patterns: Sequence[str]) -> list[FileResult]:
    """Every file that a pattern matches in any twin; InputError for a pattern that matches nothing in all of them."""
    names: dict[str, None] = {}
    for pattern in patterns:
        found = sorted({str(path.relative_to(one.folder)) for one in twins for path in _matching(one.folder, pattern)})
        if not found:
            wrote = sorted({str(p.relative_to(one.folder)) for one in twins for p in _matching(one.folder, "**/*")})
            hint = f"they wrote: {', '.join(wrote[:8])}{' ...' if len(wrote) > 8 else ''}" if wrote else (
                "they wrote no file at all into the folder that they ran in"
            )  # fmt: skip
            raise InputError(f"--outputs {pattern!r} matches nothing that the twins wrote", hint)
        names |= dict.fromkeys(found)
    return [_compare_file(twins, name) for name in names]


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if path.is_file()]


def _compare_file(twins: Sequence[Twin], name: str) -> FileResult:
    having = [one for one in twins if (one.folder / name).is_file()]
    digests = {one.name: sha256_file(one.folder / name) for one in having}
    versions = len(set(digests.values()))
    result: dict[str, Any] = {
        "name": name, "twins": len(having), "versions": versions, "sha256": digests, "read_as": "bytes",
    }  # fmt: skip
    if len(having) < len(twins):
        without = ", ".join(one.name for one in twins if one not in having)
        return FileResult(verdict=ABSENT, what=f"not written by {without}", **result)
    if versions == 1:
        return FileResult(verdict=SAME, what=f"the same bytes in all {len(having)}", **result)
    # Not before: contents may be large, and torch takes seconds to import.
    content, result["read_as"] = read_contents(having[0].folder / name)
    packaging = ""
    seen = {digests[having[0].name]}
    for one in having[1:]:
        if digests[one.name] in seen:
            continue
        seen.add(digests[one.name])
        found = _difference((having[0].folder / name, content, result["read_as"]), one.folder / name)
        if isinstance(found, str):
            packaging = packaging or found
            continue
        places, entries = found
        against = f"{having[0].name} against {one.name}"
        steps = [place.ulps for place in places if place.ulps is not None]
        among = f"{versions} versions among {len(having)}; " if len(having) > 2 else ""
        share = f"{len(places)} of {entries} entries differ, the first is " if entries > 1 else ""
        return FileResult(
            verdict=DIFFERENT, what=f"{among}{against}: {share}{places[0]}", places=len(places), entries=entries,
            against=against, first=places[0], largest_ulps=max(steps) if steps else None, **result,
        )  # fmt: skip
    return FileResult(verdict=PACKAGING, what=f"the same contents in all {len(having)}; {packaging}", **result)


def _difference(first: tuple[Path, Any, str], other: Path) -> tuple[list[Difference], int] | str:
    """The places where contents differ and how many were compared; or, when none does, why the bytes do.

    `first` is a file, its contents, and what they were read as.
    """
    (path, one, how), (two, how_other) = first, read_contents(other)
    if how != how_other:  # one of them is damaged: their bytes can still be compared
        one, two = path.read_bytes(), other.read_bytes()
    try:
        places, count = list(differences(one, two)), leaves(one)
    except (TypeError, RecursionError):  # what has no bits, or is nested too deep
        places, count = list(differences(path.read_bytes(), other.read_bytes())), 1
    return (places, count) if places else _packaging(path, other)


def _packaging(first: Path, second: Path) -> str:
    if is_zipfile(first) and is_zipfile(second):
        dates = [[entry.date_time for entry in ZipFile(path).infolist()] for path in (first, second)]
        what = "the dates of the members" if dates[0] != dates[1] else "how the members are packed"
        return f"the files differ in the zip container alone: {what}"
    if first.suffix == ".safetensors":
        metadata = safetensors_metadata(first), safetensors_metadata(second)
        keys = sorted(k for k in metadata[0].keys() | metadata[1].keys() if metadata[0].get(k) != metadata[1].get(k))
        return f"the files differ in their metadata alone: {', '.join(keys) or 'order of the tensors'}"
    return "the files differ in how it is written down alone"


def metric_parts(wanted: str) -> tuple[str, str]:
    """The file and the key that `FILE:KEY` names; InputError for another form."""
    name, _, key = wanted.rpartition(":")
    if not name or not key:
        raise InputError(f"--metric {wanted!r}: it is FILE:KEY, such as out/metrics.json:accuracy")
    return name, key


def read_metric(folder: Path, wanted: str) -> float:
    """The number that `FILE:KEY` names: a dotted key of a JSON file, or the last row of a column of a CSV file.

    Raises InputError for a file or key that is not there and for a value that is no finite number.
    """
    name, key = metric_parts(wanted)
    path = folder / name
    if not path.is_file():
        raise InputError(f"--metric {wanted!r}: {name} was not written")
    value = _csv_value(path, wanted, key) if path.suffix == ".csv" else _json_value(path, wanted, key)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError as error:
        raise InputError(f"--metric {wanted!r}: a whole number that no float64 holds") from error
    if not math.isfinite(number):
        raise InputError(f"--metric {wanted!r}: {value!r} is no finite number")
    return number


def _json_value(path: Path, wanted: str, key: str) -> Any:
    value = read_json(path)
    for part in [key] if isinstance(value, dict) and key in value else key.split("."):
        if not isinstance(value, dict) or part not in value:
            there = f"there is: {', '.join(map(str, value))}" if isinstance(value, dict) else "it is no mapping"
            raise InputError(f"--metric {wanted!r}: no key {part!r} in {path.name}", there)
        value = value[part]
    return value


def _csv_value(path: Path, wanted: str, key: str) -> Any:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--metric {wanted!r}: {path.name} is no CSV file in UTF-8 ({error})") from error
    if not rows or key not in columns:
        there = f"columns: {', '.join(columns)}" if rows else "it has no rows"
        raise InputError(f"--metric {wanted!r}: no column {key!r} in {path.name}", there)
    try:
        return float(rows[-1][key] or "")
    except ValueError:
        return rows[-1][key]


def compare_metric(twins: Sequence[Twin], wanted: str) -> tuple[MetricResult | None, list[str]]:
    """The metric over the twins that have it, and a sentence for each that has it not."""
    values, problems = {}, []
    for one in twins:
        try:
            values[one.name] = read_metric(one.folder, wanted)
        except TwinrunError as error:
            problems.append(f"{one.name}: {error}")
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
