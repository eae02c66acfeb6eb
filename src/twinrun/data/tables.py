"""CSV tables from outside: read whole, and refused where columns and cells do not fit each other."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection

from twinrun.study.errors import InputError


def read_table(
    content: bytes, where: str, needed: Collection[str], hint: str, optional: Collection[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Number and cells (stripped, by column in small letters, in Unicode's form NFC) of each row that is not empty.

    Raises InputError naming `where` and the row: for what is no CSV in UTF-8, a column of `needed` that is missing, one
    of `needed` or `optional` that is there twice, and a row whose cells are not as many as the columns.
    """
    try:
        # newline="" keeps line feeds inside quoted cells for the CSV parser.
        text = io.StringIO(unicodedata.normalize("NFC", content.decode("utf-8-sig")), newline="")
        lines = [[cell.strip() for cell in row] for row in csv.reader(text, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: not a table in CSV and UTF-8: {error}", hint) from error
    header = [cell.lower() for cell in lines[0]] if lines else []
    if missing := [column for column in needed if column.lower() not in header]:
        raise InputError(f"{where}: no column {' and '.join(missing)}", hint)
    if twice := [column for column in (*needed, *optional) if header.count(column.lower()) > 1]:
        raise InputError(f"{where}: the column {', '.join(twice)} is there twice", "keep one of them")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cells):
            continue
        if len(cells) < len(header) or any(cells[len(header) :]):
            what = f"{where}: row {number}: {len(cells)} cells, but there are {len(header)} columns"
            raise InputError(what, "a row needs a cell for each; a comma inside a cell needs quotes around it")
        rows.append((number, dict(zip(header, cells, strict=False))))
    return rows
