"""What twins left, compared: every output file, and what they printed, against those of the first twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from twinrun.inspect.bits import Bits, bits_of
from twinrun.study.errors import InputError
from twinrun.study.files import sha256_file
from twinrun.twins.contents import read_contents, safetensors_metadata
from twinrun.twins.nested import Difference, differences, leaves
from twinrun.twins.parts import part_of
from twinrun.twins.running import Twin

SAME, PACKAGING, DIFFERENT, ABSENT = "same bytes", "same contents", "different", "missing"
PRINTED = "what it printed"
Elements = NDArray[np.uint8]  # (elements, bytes of each), little-endian
Change = Callable[[Elements], Elements | None]  # None: there is nothing to change
_DIGITS = re.compile(r"\d+")
_CLOCK_WORD = r"(time|date|timestamp|elapsed|duration|runtime|seconds|per_second|speed)s?"
# Dates, times of day, the head of a log line (level, day, time, process), durations and speeds.
_CLOCKS = re.compile(
    r"\b[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+|\b\d{4}-\d\d-\d\d\b|\b\d{1,2}:\d\d(:\d\d)?([.,]\d+)?"
    r"|\b\d+(\.\d+)? ?(ns|us|ms|s|sec|secs|seconds|min|minutes|it/s|s/it|img/s|samples/s)\b"
    rf"|(?<![A-Za-z]){_CLOCK_WORD}['\"]?[:=] ?['\"]?\d+(\.\d+)?(e[+-]?\d+)?"
)
_CLOCK_KEY = re.compile(rf"(^|[^a-z]){_CLOCK_WORD}([^a-z]|$)")


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
    parts: dict[str, str] = field(default_factory=dict)  # of a checkpoint (`parts.PARTS`): the first that differs in it
    present: tuple[str, ...] = ()  # parts that the file holds


def compare_files(twins: Sequence[Twin], patterns: Sequence[str], *, log: bool = False) -> list[FileResult]:
    """Every file that a pattern matches in any twin, and with `log` what each twin printed.

    Files are compared that have the same name; of the others, those whose names are alike but for their digits (a date,
    a time, a process number), and the only match of a pattern in each twin. Raises InputError for a pattern that
    matches nothing in all of them.
    """
    files: dict[str, dict[str, Path]] = {}  # label -> twin -> file
    for pattern in patterns:
        matches = {twin.name: _matching(twin.folder, pattern) for twin in twins}
        if not any(matches.values()):
            wrote = sorted({name for twin in twins for name in _matching(twin.folder, "**/*")})
            hint = f"they wrote: {', '.join(wrote[:8])}{' ...' if len(wrote) > 8 else ''}" if wrote else (
                "they wrote no file at all into the folder that they ran in"
            )  # fmt: skip
            raise InputError(f"--outputs {pattern!r} matches nothing that the twins wrote", hint)
        files |= {label: paths for label, paths in _pairs(matches, pattern).items() if label not in files}
    results = [_compare(twins, label, paths) for label, paths in files.items()]
    if log:
        results.append(_compare(twins, PRINTED, {twin.name: twin.log for twin in twins}))
    return results


def _matching(folder: Path, pattern: str) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.glob(pattern)) if path.is_file()}


def _pairs(matches: dict[str, dict[str, Path]], pattern: str) -> dict[str, dict[str, Path]]:
    """The files that belong together, by the label under which they are reported: label -> twin -> file."""
    everywhere = set.intersection(*(set(names) for names in matches.values()))
    labels = dict.fromkeys(name for names in matches.values() for name in names)
    pairs = {name: {twin: names[name] for twin, names in matches.items()} for name in labels if name in everywhere}
    rest = {twin: [name for name in names if name not in everywhere] for twin, names in matches.items()}
    for key in (lambda name: _DIGITS.sub("*", name), lambda name: pattern):
        groups: dict[str, dict[str, list[str]]] = {}  # label -> twin -> names
        for twin, names in rest.items():
            for name in names:
                groups.setdefault(key(name), {}).setdefault(twin, []).append(name)
        alike = {label: twins for label, twins in groups.items()
                 if len(twins) == len(matches) and all(len(names) == 1 for names in twins.values())}  # fmt: skip
        for label, twins in alike.items():
            pairs[label] = {twin: matches[twin][name] for twin, (name,) in twins.items()}
        rest = {twin: [name for name in names if key(name) not in alike] for twin, names in rest.items()}
    for twin, names in rest.items():
        for name in names:
            pairs.setdefault(name, {})[twin] = matches[twin][name]
    return pairs


def _compare(twins: Sequence[Twin], label: str, files: dict[str, Path]) -> FileResult:
    having = [twin for twin in twins if twin.name in files]
    digests = {twin.name: sha256_file(files[twin.name]) for twin in having}
    versions = len(set(digests.values()))
    result: dict[str, Any] = {
        "name": label, "twins": len(having), "versions": versions, "sha256": digests, "read_as": "bytes",
    }  # fmt: skip
    if len(having) < len(twins):
        without = ", ".join(twin.name for twin in twins if twin not in having)
        return FileResult(verdict=ABSENT, what=f"not written by {without}", **result)
    if versions == 1:
        what = f"the same bytes in all {len(having)}"
        return FileResult(verdict=SAME, what=what, present=_held(label), **result)
    # Not before: contents may be large, and torch takes seconds to import.
    reference = files[having[0].name]
    content, result["read_as"] = _read(label, reference)
    packaging = ""
    seen = {digests[having[0].name]}
    for twin in having[1:]:
        if digests[twin.name] in seen:
            continue
        seen.add(digests[twin.name])
        difference = _difference(label, (reference, content, result["read_as"]), files[twin.name])
        if isinstance(difference, str):
            packaging = packaging or difference
            continue
        places, names = difference
        if label == PRINTED and _same_but_clocks(content, files[twin.name]):
            packaging = packaging or "they differ in dates, times, durations and speeds alone"
            continue
        entries = len(names)
        parts: dict[str, str] = {}
        for place in places:
            part = part_of(label, place.path)
            if part:
                parts.setdefault(part, str(place))
        against = f"{having[0].name} against {twin.name}"
        steps = [place.ulps for place in places if place.ulps is not None]
        among = f"{versions} versions among {len(having)}; " if len(having) > 2 else ""
        share = f"{len(places)} of {entries} entries differ, the first is " if entries > 1 else ""
        keys = [re.findall(r"'([^']*)'", place.path)[-1:] for place in places]
        clock = all(key and _CLOCK_KEY.search(key[0].lower()) for key in keys)
        share += "a clock: " if clock else ""
        unread = f" ({result['read_as']})" if result["read_as"].startswith("bytes,") else ""
        unread += "; --metric FILE:KEY or --outputs compares what is no clock" if clock else ""
        return FileResult(
            verdict=DIFFERENT, what=f"{among}{against}: {share}{places[0]}{unread}", places=len(places),
            entries=entries, against=against, first=places[0], largest_ulps=max(steps) if steps else None,
            parts=parts, present=_held(label, names), **result,
        )  # fmt: skip
    return FileResult(verdict=PACKAGING, what=f"the same contents in all {len(having)}; {packaging}", **result)


def _read(label: str, path: Path) -> tuple[Any, str]:
    if label != PRINTED:
        return read_contents(path)
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    return {f"line {number}": line for number, line in enumerate(lines, 1)}, "lines"


def _same_but_clocks(lines: dict[str, str], other: Path) -> bool:
    printed, _ = _read(PRINTED, other)
    return [_CLOCKS.sub("*", line) for line in lines.values()] == [_CLOCKS.sub("*", line) for line in printed.values()]


def _held(label: str, paths: Sequence[str] = ("",)) -> tuple[str, ...]:
    return tuple(sorted({part for path in paths if (part := part_of(label, path))}))


def _difference(label: str, first: tuple[Path, Any, str], other: Path) -> tuple[list[Difference], list[str]] | str:
    """The places where contents differ and the paths of all that were compared; or, when none does, why the bytes do.

    `first` is a file, its contents, and what they were read as.
    """
    (path, content, how), (content_other, how_other) = first, _read(label, other)
    if how != how_other:  # one of them is damaged: their bytes can still be compared
        content, content_other = path.read_bytes(), other.read_bytes()
    try:
        places, names = list(differences(content, content_other)), [path for path, _ in leaves(content)]
    except (TypeError, RecursionError):  # what has no bits, or is nested too deep
        places, names = list(differences(path.read_bytes(), other.read_bytes())), [""]
    return (places, names) if places else _packaging(path, other)


def _packaging(first: Path, second: Path) -> str:
    if is_zipfile(first) and is_zipfile(second):
        dates = [[entry.date_time for entry in ZipFile(path).infolist()] for path in (first, second)]
        what = "the dates of the members" if dates[0] != dates[1] else "how the members are packed"
        return f"the files differ only in the zip container: {what}"
    if first.suffix == ".safetensors":
        metadata = safetensors_metadata(first), safetensors_metadata(second)
        keys = sorted(k for k in metadata[0].keys() | metadata[1].keys() if metadata[0].get(k) != metadata[1].get(k))
        return f"the files differ only in their metadata: {', '.join(keys) or 'order of the tensors'}"
    return "the files differ only in how they are written"


def self_test(twins: Sequence[Twin], results: Sequence[FileResult]) -> list[str]:
    """Plant a change of one bit, and two swapped elements, into what the first twin wrote, and say what was seen.

    A comparison that cannot fail proves nothing: this is its control.
    """
    seen: dict[str, list[bool]] = {"one changed bit": [], "two swapped elements": []}
    for result in results:
        if result.name == PRINTED or not (twins[0].folder / result.name).is_file():
            continue
        content, _ = read_contents(twins[0].folder / result.name)
        for what, change in zip(seen, (flip_lowest_bit, swap_two), strict=True):
            planted = plant(content, change)
            if planted is not None:
                with suppress(TypeError, RecursionError):  # holds what has no bits, as when it is compared
                    seen[what].append(any(differences(content, planted)))
    return [f"self-test: {what} seen in {sum(outcomes)} of {len(outcomes)} files" for what, outcomes in seen.items()]


def flip_lowest_bit(elements: Elements) -> Elements | None:
    """The first element moved by its last bit: of a number, one unit in the last place."""
    if not elements.size:
        return None
    changed = elements.copy()
    changed[0, 0] ^= 1
    return changed


def swap_two(elements: Elements) -> Elements | None:
    """The first element swapped with the first one that differs from it."""
    different = np.flatnonzero((elements != elements[:1]).any(axis=1)) if elements.size else np.empty(0, np.intp)
    if not different.size:
        return None
    changed = elements.copy()
    changed[[0, different[0]]] = changed[[different[0], 0]]
    return changed


def plant(value: Any, change: Change) -> Any | None:
    """A copy of nested contents with `change` made in the first place that takes it; None where none does."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            planted = plant(inner, change)
            if planted is not None:
                return {**value, key: planted}
        return None
    if isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            planted = plant(inner, change)
            if planted is not None:
                return type(value)([*value[:index], planted, *value[index + 1 :]])
        return None
    return _leaf(value, change)


def _leaf(value: Any, change: Change) -> Any | None:
    if isinstance(value, bytes):
        changed = change(np.frombuffer(value, np.uint8)[:, None])
        return None if changed is None else changed.tobytes()
    if isinstance(value, float):
        changed = change(np.array([value], np.float64).view(np.uint8).reshape(1, 8))
        return None if changed is None else float(changed.view(np.float64)[0, 0])
    array = bits_of(value)
    if array is None:
        return None
    count = int(np.prod(array.shape))
    changed = change(array.data.reshape(count, -1)) if count else None
    return None if changed is None else Bits(array.dtype, array.shape, changed.reshape(-1))
