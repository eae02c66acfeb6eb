"""The rows of imported tables gathered by task and run, whatever order they come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.tables import FACTORS, PROBABILITY, Columns, Piece
from twinrun.study.errors import InputError

TOLERANCE = 0.01  # by which probabilities may miss a sum of 1: they may have been rounded
Codes = NDArray[np.int64]


class Key(NamedTuple):
    """What tells a run from the others; empty where the table does not say it."""

    task: str = ""
    model: str = ""
    seed: str = ""
    arm: str = ""
    run: str = ""

    def __str__(self) -> str:
        named = [f"{role} {value}" for role, value in zip(FACTORS, self, strict=True) if value]
        return ", ".join(named) or "the only run"


class Names:
    """Names numbered in the order of their appearance."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._last: tuple[Any, Codes] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, cells: pd.Categorical[Any], rows: NDArray[np.intp]) -> Codes:
        """The numbers of the cells in these rows."""
        categories = cells.categories
        if self._last is None or self._last[0] is not categories:  # many runs share their categories
            self._last = (categories, np.full(len(categories), -1))
        numbers: Codes = self._last[1]
        codes = cells.codes[rows]
        fresh = np.zeros(len(categories), bool)
        fresh[codes] = True
        places = np.flatnonzero(fresh & (numbers < 0))
        names = categories.to_numpy()[places].tolist()
        numbers[places] = [self.codes.setdefault(name, len(self.codes)) for name in names]
        places_of: Codes = numbers[codes]
        return places_of


@dataclass
class Gathered:
    """The test set of a task and what its runs predict, as far as it was read."""

    examples: Names = field(default_factory=Names)
    names: Names = field(default_factory=Names)  # of labels, and of predicted classes
    labels: Codes = field(default_factory=lambda: np.empty(0, np.int64))
    runs: dict[Key, list[tuple[Codes, NDArray[Any]]]] = field(default_factory=dict)  # examples, and what is predicted

    def add(self, piece: Piece, rows: NDArray[np.intp], key: Key, columns: Columns) -> None:
        """Take these rows of a piece, all of one run."""

        def cells(role: str) -> pd.Categorical[Any]:
            return piece.text[columns.names[role][0]]

        places, labels = self.examples.of(cells("example"), rows), self.names.of(cells("label"), rows)
        grown = len(self.examples) - len(self.labels)
        self.labels = np.append(self.labels, np.full(grown, -1)) if grown else self.labels
        fresh = self.labels[places] < 0
        self.labels[places[fresh]] = labels[fresh]
        if (other := np.flatnonzero(self.labels[places] != labels)).size:
            known, row = {code: name for name, code in self.names.codes.items()}, int(rows[other[0]])
            raise InputError(
                f"{piece.at(row)}: example {cells('example')[row]} has the label {cells('label')[row]}, and "
                f"{known[int(self.labels[places[other[0]]])]} in another row",
                "an example has one label; test sets that are not the same are told apart by a column task",
            )
        values = piece.numbers[rows] if columns.probabilities else self.names.of(cells("prediction"), rows)
        self.runs.setdefault(key, []).append((places, values))


def checked_probabilities(piece: Piece) -> Piece:
    """The piece; InputError names the first row whose probabilities are none, or do not sum to 1."""
    values = piece.numbers
    outside = (values < 0) | (values > 1 + 1e-6)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        hint = "a softmax makes probabilities of logits"
        raise InputError(f"{piece.at(int(row))}: {values[row, column]:g} is no probability", hint)
    if values.shape[1] == 1:  # of two classes, that of one
        return Piece(piece.text, np.hstack([1 - values, values]), piece.place, piece.line)
    sums = values.sum(axis=1)
    if (off := np.flatnonzero(np.abs(sums - 1) > TOLERANCE)).size:
        row = int(off[0])
        more = f" ({len(off):,} such rows in this part of the table)" if len(off) > 1 else ""
        raise InputError(f"{piece.at(row)}: the probabilities sum to {sums[row]:.4g}, not to 1{more}")
    return piece


def keys_of(piece: Piece, columns: Columns, fixed: Mapping[str, str]) -> Iterator[tuple[Key, NDArray[np.intp]]]:
    """The runs of a piece, each with its rows."""
    roles = [role for role in FACTORS if role in columns.names]
    cells = [(role, piece.text[name]) for role in roles for name in columns.names[role]]
    length = len(next(iter(piece.text.values())))
    code = np.zeros(length, np.int64)
    for _, column in cells:
        code = code * max(len(column.categories), 1) + column.codes
    kinds, inverse = np.unique(code, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(kinds)))
    for rows in np.split(order, ends[:-1]):
        first, values = int(rows[0]), dict[str, list[str]]()
        for role, column in cells:
            values.setdefault(role, []).append(str(column[first]))
        yield Key(**(dict(fixed) | {role: " ".join(parts) for role, parts in values.items()})), rows


def require_each_once(key: Key, places: Codes, examples: Names) -> None:
    times = np.bincount(places, minlength=len(examples))
    for wrong, words in ((times > 1, "more than one row"), (times == 0, "no row")):
        if wrong.any():
            first = list(examples.codes)[int(np.flatnonzero(wrong)[0])]
            more = f", as for {int(wrong.sum()) - 1:,} others" if wrong.sum() > 1 else ""
            hint = (
                "runs are told apart by a column run, or by model, seed and arm; tables of one run each need it, too"
                if words != "no row"
                else "every run needs every example of its test set; test sets are told apart by a column task"
            )
            raise InputError(f"{key}: {words} for example {first}{more}", hint)


def classes_of(gathered: Gathered, columns: Columns, wanted: Sequence[str]) -> tuple[list[str], Codes]:
    """The classes in their order, and the place of each name of `gathered.names` among them, -1 for none."""
    names = list(gathered.names.codes)
    if not columns.probabilities:
        whole = all(name.isdecimal() for name in names)
        classes = list(wanted) or (sorted(names, key=int) if whole else sorted(names))
        if absent := [name for name in names if name not in classes]:
            raise InputError(f"--classes lacks {absent[0]!r}", f"there are: {', '.join(sorted(names))}")
        if whole and not wanted and int(classes[0]) in (0, 1):  # a class may be neither there nor predicted
            classes = [str(n) for n in range(int(classes[0]), int(classes[-1]) + 1)]
    else:
        if wanted:
            raise InputError("--classes with probabilities", f"their columns name the classes: {PROBABILITY}<class>")
        classes = [name.removeprefix(PROBABILITY) for name in columns.probabilities]
        if len(classes) == 1:
            others = sorted(set(names) - set(classes)) or ["0" if classes == ["1"] else f"not {classes[0]}"]
            classes = [*others, *classes]
            if len(classes) > 2:
                raise InputError(f"one column of probabilities for {len(classes)} classes: {', '.join(classes)}")
    places = {name: place for place, name in enumerate(classes)}
    if not set(names) <= set(classes) and not any(map(str.isdecimal, classes)):  # labels may be numbers of classes
        places = {str(place): place for place in range(len(classes))}
    if len(classes) < 2:
        classes = [*classes, f"not {classes[0]}"]
    return classes, np.array([places.get(name, -1) for name in names], np.int64)
