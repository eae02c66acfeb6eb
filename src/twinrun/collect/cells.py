"""CSV files whose cells are data to every program: a text that a spreadsheet would run as a formula is quoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from twinrun.study.files import write_text

FORMULA = tuple("=+-@\t\r")  # begin a formula in a spreadsheet
QUOTE = "'"
# What a CSV's numbers are read with: before version 3, pandas' own parser misses the last bit of every third number.
EXACT: dict[str, Any] = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV whose numbers read back as the same numbers; an empty cell is a value that does not exist."""
    texts = {name: frame[name].map(quoted) for name in _text_columns(frame)}
    write_text(path, frame.assign(**texts).to_csv(index=False, lineterminator="\n"))


def unquote(frame: pd.DataFrame) -> pd.DataFrame:
    """What `write_csv` wrote, as it was."""
    return frame.assign(**{name: frame[name].map(unquoted) for name in _text_columns(frame)})


def _text_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]


def quoted(cell: Any) -> Any:
    """A text with a quotation mark before it where it would be a formula; a number stays one.

    >>> quoted("=1+1"), quoted("-0.5"), quoted("resnet")
    ("'=1+1", '-0.5', 'resnet')
    """
    if not isinstance(cell, str) or not cell.lstrip(QUOTE).startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return QUOTE + cell
    return cell


def unquoted(cell: Any) -> Any:
    """The text that `quoted` was given.

    >>> unquoted("'=1+1"), unquoted("'tis")
    ('=1+1', "'tis")
    """
    marked = isinstance(cell, str) and cell.startswith(QUOTE) and cell.lstrip(QUOTE).startswith(FORMULA)
    return cell[1:] if marked else cell
