"""Tables of results from elsewhere, read in pieces: CSV, Parquet, or the arrays of an npz file."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.artifacts import unreadable
from twinrun.collect.cells import EXACT
from twinrun.study.errors import InputError
from twinrun.study.files import DAMAGED_ARRAY, explain_os_error

FACTORS = ("task", "model", "seed", "arm", "run")  # what tells runs apart
ROLES = (*FACTORS, "example", "label", "prediction")
PROBABILITY = "p_"  # begins the name of a column of probabilities; the class follows
ROWS = 400_000  # of a piece
FORMATS = ".csv, .csv.gz, .parquet and .npz"
_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table play which role; a role that several columns share is their values joined."""

    names: Mapping[str, tuple[str, ...]]  # of the roles that the table has
    probabilities: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()  # metrics, of a table with a row a run
    unread: tuple[str, ...] = ()

    @property
    def text(self) -> list[str]:
        """The columns that hold names."""
        return [name for names in self.names.values() for name in names]


@dataclass(frozen=True)
class Piece:
    """Some rows: names as categories by column, and numbers (rows, columns)."""

    text: Mapping[str, pd.Categorical[Any]]
    numbers: NDArray[np.floating]  # probabilities, or metrics; no columns where classes are predicted
    place: str  # of the table in words, with the number of the first row's line filled in for {}
    line: int  # of its first row

    def at(self, row: int) -> str:
        """Where a row of this piece stands, for people."""
        return self.place.format(self.line + row)


def columns_of(path: Path, wanted: Mapping[str, tuple[str, ...]], metric: str | None) -> Columns:
    """Find the columns of a table; InputError says which is missing, and which the table has.

    `wanted` names columns of roles that are called otherwise; a table without examples has a row a run, with metrics.
    """
    header = _header(path)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r}", "give each column a name of its own")
    names = dict(wanted) | {role: (role,) for role in ROLES if role in header and role not in wanted}
    for role, columns in names.items():
        if absent := [name for name in columns if name not in header]:
            raise InputError(f"{path}: no column {absent[0]!r} for {role}", f"columns: {', '.join(header)}")
    used = {name for columns in names.values() for name in columns}
    probabilities = tuple(name for name in header if name.startswith(PROBABILITY) and name not in used)
    if not {"example", "label", "prediction"} & names.keys() and not probabilities:
        known = [name for name in ("accuracy", "f1", "auc", "loss") if name in header and name not in used]
        numbers = tuple(dict.fromkeys([metric, *known])) if metric else tuple(known)
        if not numbers or any(name not in header for name in numbers):
            raise InputError(
                f"{path}: no column {metric!r}" if metric else f"{path}: neither predictions nor a metric",
                f"columns: {', '.join(header)}; predictions are the columns example, label and prediction or "
                f"{PROBABILITY}<class>, a metric is accuracy, f1, auc, loss or that of --metric",
            )
        probabilities = ()
    else:
        numbers = ()
        if "label" not in names or not ("prediction" in names or probabilities):
            lacking = "label" if "label" not in names else f"prediction, and no {PROBABILITY}<class>"
            raise InputError(
                f"{path}: no column {lacking}", f"columns: {', '.join(header)}; --column ROLE=NAME names one"
            )
        if metric:
            raise InputError(f"--metric {metric} with predictions", "accuracy, F1, AUC and loss are computed from them")
        if probabilities:
            names.pop("prediction", None)
    read = {*probabilities, *numbers, *(name for columns in names.values() for name in columns)}
    return Columns(names, probabilities, numbers, tuple(name for name in header if name not in read))


def pieces(path: Path, columns: Columns) -> Iterator[Piece]:
    """The rows of a table; InputError names the line of a cell that is empty, and what is no number."""
    numbers = [*columns.probabilities, *columns.numbers]
    line, place = 1 if path.suffix == ".parquet" else 2, "row {}" if path.suffix == ".parquet" else "line {}"
    text: dict[str, pd.Categorical[Any]] = {}
    for frame in (_parquet if path.suffix == ".parquet" else _csv)(path, columns):
        if frame.empty:
            continue
        text = {name: _names(frame[name], text.get(name)) for name in columns.text}
        try:
            values = frame[numbers].to_numpy(np.float32 if columns.probabilities else np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: {' or '.join(numbers[:3])} holds something that is no number") from error
        piece = Piece(text, values, f"{path}, {place}", line)
        for name, cells in text.items():
            if (empty := np.flatnonzero(cells.codes < 0)).size:
                raise InputError(f"{piece.at(int(empty[0]))}: {name} is empty")
        if (bad := np.argwhere(~np.isfinite(values))).size:
            row, column = bad[0]
            what = f"{numbers[column]} is empty or not finite"
            raise InputError(f"{piece.at(int(row))}: {what}", "leave out a run that has no result, and say so")
        line += len(frame)
        yield piece


def _header(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return [str(name) for name in _parquet_file(path).schema_arrow.names]
    try:
        with _opened(path) as stream:
            first = next(csv.reader(stream, skipinitialspace=True), [])
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: no CSV table in UTF-8 ({error})") from error
    if not first:
        raise InputError(f"{path}: empty", "the first line names the columns")
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(first) == 1 and separator in first[0]:
            raise InputError(
                f"{path}: its columns are parted by {word}", "save it with commas, and decimals with a point"
            )
    return first


def _opened(path: Path) -> Any:
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        return opened(path, "rt", encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"{path}: no such file") if not path.exists() else explain_os_error(error, path) from error


def _csv(path: Path, columns: Columns) -> Iterator[pd.DataFrame]:
    kinds = dict.fromkeys(columns.text, "category") | dict.fromkeys(columns.probabilities, "float32")
    # Also what is not read: with `usecols` a row longer than the header would lose its end without a word.
    kinds |= dict.fromkeys(columns.numbers, "float64") | dict.fromkeys(columns.unread, "str")
    try:
        # Where all rows are longer than the header there is no more than a warning.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield from pd.read_csv(
                path, dtype=kinds, chunksize=ROWS, index_col=False, encoding="utf-8-sig",
                keep_default_na=False, na_values=[""], skipinitialspace=True, skip_blank_lines=False,
                low_memory=False,  # else each piece is put together of many, whose categories are united each time
                **({} if columns.probabilities else EXACT),
            )  # fmt: skip
    except (ValueError, pd.errors.ParserWarning, OSError, EOFError) as error:
        said = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
        damaged = InputError(f"{path}: cannot be read ({said})", "decimals have a point, a text with a comma is quoted")
        if "EOF inside string" in said:
            damaged = InputError(f"{path}: a quote that is never closed: it would take all rows after it", "close it")
        raise unreadable(path, error, damaged) from error


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        hint = "`pip install pyarrow` (the extra `parquet`), or save the table as .csv or .npz"
        raise InputError(f"{path}: reading Parquet takes the package pyarrow, which is not installed", hint) from error
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ArrowException, OSError) as error:
        damaged = InputError(f"{path}: no Parquet file ({' '.join(str(error).split())[:120]})")
        raise unreadable(path, error, damaged) from error


def _parquet(path: Path, columns: Columns) -> Iterator[pd.DataFrame]:
    wanted = [*columns.text, *columns.probabilities, *columns.numbers]
    for batch in _parquet_file(path).iter_batches(ROWS, columns=wanted):
        yield batch.to_pandas()


def _names(cells: Any, before: pd.Categorical[Any] | None = None) -> pd.Categorical[Any]:
    """Cells as text: whole numbers without a decimal point; with the categories of `before` where they are the same."""
    column = pd.Categorical(cells)
    codes, categories = column.codes, column.categories
    used = np.zeros(len(categories) + 1, bool)  # the last one: of what is empty
    used[codes] = True
    if not used[:-1].all():
        column = column.remove_unused_categories()
        codes, categories = column.codes, column.categories
    if before is not None and len(categories) == len(before.categories) and categories.equals(before.categories):
        return pd.Categorical.from_codes(codes, dtype=before.dtype)
    names = [plain_name(value) for value in categories]
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    codes = np.array([*(order[name] for name in names), -1])[codes]  # `1` and `1.0` are one name
    return pd.Categorical.from_codes(codes, pd.Index(list(order), dtype=object))


def plain_name(value: Any) -> str:
    """A cell as a name: `3` for 3.0, text without blanks around it.

    >>> plain_name(3.0), plain_name(" cat "), plain_name(b"cat")
    ('3', 'cat', 'cat')
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def npz_pieces(path: Path, wanted: Mapping[str, tuple[str, ...]]) -> tuple[Columns, list[str] | None, Iterator[Piece]]:
    """The runs of an npz file, a piece each, with the columns that they would have and the names of the classes.

    Arrays: `probabilities` (runs, examples, classes) or `predictions` (runs, examples), without the first axis for one
    run; `labels` (examples,); by choice `example` (examples,), `classes` (classes,), and `task`, `model`, `seed`,
    `arm`, `run` (runs,). InputError names the array that is missing or has another shape.
    """
    arrays = _arrays(path)
    names = {role: (wanted.get(role) or (role,))[0] for role in (*FACTORS, "example")}
    made = next((name for name in ("probabilities", "predictions") if name in arrays), None)
    if made is None or "labels" not in arrays:
        lacking = "labels" if made else "probabilities, and no predictions"
        raise InputError(
            f"{path}: no array {lacking}",
            f"arrays: {', '.join(arrays)}; name them so: np.savez(file, predictions=y_pred, labels=y_true)",
        )
    values, labels, inner = arrays[made], arrays["labels"], 2 if made == "probabilities" else 1
    if labels.ndim != 1 or values.ndim not in (inner, inner + 1) or values.shape[-inner] != len(labels):
        shapes = f"{made} have the shape {values.shape}, labels {labels.shape}"
        raise InputError(
            f"{path}: {shapes}", f"{made} are (runs, examples{', classes' * (inner - 1)}), labels (examples,)"
        )
    values = values if values.ndim > inner else values[None]
    factors = {role: arrays[name] for role, name in names.items() if name in arrays and role != "example"}
    for role, array in factors.items():
        if array.shape != (len(values),):
            raise InputError(
                f"{path}: {names[role]} has the shape {array.shape}", f"one value for each of {len(values)} runs"
            )
    classes = [plain_name(name) for name in arrays["classes"]] if "classes" in arrays else None
    if inner == 2:
        if values.dtype.kind != "f":
            raise InputError(f"{path}: probabilities are of type {values.dtype}", "they are floating-point numbers")
        classes = classes or [str(place) for place in range(values.shape[-1])]
        if len(classes) != values.shape[-1]:
            raise InputError(f"{path}: {len(classes)} classes for probabilities of {values.shape[-1]}")
    example = arrays.get(names["example"], np.arange(len(labels)))
    if example.shape != labels.shape:
        raise InputError(f"{path}: {len(example)} examples for {len(labels)} labels")
    probabilities = tuple(f"{PROBABILITY}{name}" for name in classes or ()) if inner == 2 else ()
    roles = (*factors, "example", "label", *(() if probabilities else ("prediction",)))
    shared = {"example": _names(pd.Series(example)), "label": _names(pd.Series(labels))}

    def runs() -> Iterator[Piece]:
        for place, run in enumerate(values):
            text = {
                role: _names(pd.Series([array[place]])).take(np.zeros(len(labels), int))
                for role, array in factors.items()
            }
            text |= shared if probabilities else shared | {"prediction": _names(pd.Series(run))}
            numbers = run.astype(np.float32, copy=False) if probabilities else np.empty((len(labels), 0))
            if not np.isfinite(numbers).all():
                raise InputError(f"{path}: run {place} has probabilities that are not finite")
            yield Piece(text, numbers, f"{path}, run {place}, example {{}}", 0)

    return Columns({role: (role,) for role in roles}, probabilities), classes, runs()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, *DAMAGED_ARRAY) as error:
        hint = "such as np.savez(file, predictions=y_pred, labels=y_true) makes"
        damaged = InputError(f"{path}: no npz file of plain arrays", hint)
        raise unreadable(path, error, damaged) from error


def parse_columns(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`model=arch,width` for each role; InputError names a role that is not known.

    >>> parse_columns(["model=arch,width"])
    {'model': ('arch', 'width')}
    """
    named = {}
    for text in texts:
        role, equals, names = text.partition("=")
        if role not in ROLES or not equals or not all(name.strip() for name in names.split(",")):
            raise InputError(f"--column {text!r}", f"ROLE=NAME, such as model=arch; roles: {', '.join(ROLES)}")
        named[role] = tuple(name.strip() for name in names.split(","))
        if len(named[role]) > 1 and role not in FACTORS:
            raise InputError(f"--column {text!r}: {role} is one column")
    return named
