"""Tables as text: Markdown for pages, booktabs LaTeX for papers; every special character escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from twinrun.collect.collect import write_csv
from twinrun.report.table import COLUMNS, Column, Table, missing, shown
from twinrun.study.files import write_text

COMMAND = "twinrun analyze"  # makes every table and figure
FORMS = ("csv", "tex", "md")

LINE_LETTERS = 32  # of a line of text in a LaTeX table: longer text is set in several
PORTRAIT_POINTS, SIDEWAYS_POINTS = 345.0, 550.0  # text width of the standard article, and of its page on its side


class LatexForm(NamedTuple):
    """A way to set a table: size, points of room, points of a letter, points beside a column, whether with remarks."""

    size: str
    room: float
    letter: float
    gap: float
    remarks: bool


# The first in which a table fits is taken, else the last.
LATEX_FORMS = (
    LatexForm("scriptsize", PORTRAIT_POINTS, 3.9, 3, True),
    LatexForm("scriptsize", SIDEWAYS_POINTS, 3.9, 3, True),
    LatexForm("tiny", SIDEWAYS_POINTS, 3.4, 2, True),
    LatexForm("tiny", SIDEWAYS_POINTS, 3.4, 1, False),
)

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#])")
_CODE = re.compile(r"`([^`]*)`")


def column(name: str) -> Column:
    """How a column reads; one that is not listed is text under its own name."""
    return COLUMNS.get(name, Column(name, "", ""))


def columns_shown(frame: pd.DataFrame) -> list[str]:
    """All columns but an empty remark."""
    return [name for name in frame.columns if name != "remark" or any(map(_told, frame[name]))]


def _told(remark: object) -> bool:
    return not missing(remark) and remark != ""


def cells(frame: pd.DataFrame) -> list[list[str]]:
    """The body of the table as a person reads it."""
    names = columns_shown(frame)
    return [[shown(name, row[name]) for name in names] for row in frame.to_dict("records")]


def latex_text(text: str) -> str:
    r"""Text that LaTeX sets as it stands.

    >>> latex_text("50 % of `nd_1` & more")
    '50 \\% of \\texttt{nd\\_1} \\& more'
    """
    plain = "".join(_LATEX.get(letter, letter) for letter in text)
    return _CODE.sub(r"\\texttt{\1}", plain)


def markdown_text(text: str) -> str:
    r"""Text that Markdown sets as it stands, also in a table's cell; line ends become spaces.

    >>> markdown_text("a|b *c*")
    'a\\|b \\*c\\*'
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def markdown_table(frame: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table; one line that says so where there is no row."""
    if frame.empty:
        return ["Not available: no rows."]
    names = columns_shown(frame)
    head = [column(name).label for name in names]
    rule = ["---:" if column(name).form else "---" for name in names]
    rows = [[markdown_text(cell) for cell in row] for row in [head, *cells(frame)]]
    return [f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]]]


def full_title(table: Table) -> str:
    """`Table 5.4. Smallest, mean and largest result per task.`"""
    name = f"{table.thesis_name[0].upper()}{table.thesis_name[1:]}. " if table.thesis_name else ""
    return f"{name}{table.title}{'' if table.title.endswith('?') else '.'}"


def markdown(table: Table) -> str:
    """A Markdown page of one table with its caption, notes and the command that makes it."""
    lines = [f"### {full_title(table)}", "", *markdown_table(table.frame), "", table.caption]
    lines += [line for note in table.notes for line in ("", note)]
    return "\n".join([*lines, "", f"Made by `{COMMAND}`."]) + "\n"


def _latex_cell(cell: str, number: bool) -> str:
    if number and cell.startswith("-"):
        return f"$-${cell[1:]}"  # a minus, not a hyphen
    # A cell that begins with [ would be read as the argument of the line end before it.
    return ("{}" if cell.startswith("[") else "") + latex_text(cell)


def _latex_head(name: str) -> str:
    """The heading, a word a line: headings would otherwise be what makes a table wide."""
    words = r"\\".join(latex_text(word) for word in column(name).label.split())
    return rf"\shortstack[{'r' if column(name).form else 'l'}]{{{words}}}"


def _letters(frame: pd.DataFrame) -> list[int]:
    """The widest word of a heading or cell of each column, in letters; that of a line where text is set in lines."""
    names, body, found = columns_shown(frame), cells(frame), []
    for place, name in enumerate(names):
        width = max([*map(len, column(name).label.split()), *(len(row[place]) for row in body)], default=1)
        found.append(min(width, LINE_LETTERS) if _in_lines(name, width) else width)
    return found


def _in_lines(name: str, width: int) -> bool:
    return not column(name).form and (width >= LINE_LETTERS or name == "remark")


def _latex_width(frame: pd.DataFrame, form: LatexForm) -> float:
    kept = frame if form.remarks else frame.drop(columns="remark", errors="ignore")
    widths = _letters(kept)
    return sum(widths) * form.letter + 2 * form.gap * len(widths)


def latex(table: Table) -> str:
    """A longtable with booktabs rules, small and, where it is wide, on its side; it may be longer than a page.

    Needs the packages of its first line.
    """
    frame, words = table.frame, [table.caption, *table.notes]
    form = next((form for form in LATEX_FORMS if _latex_width(frame, form) <= form.room), LATEX_FORMS[-1])
    if not form.remarks and "remark" in columns_shown(frame):
        frame = frame.drop(columns="remark")
        words.append(f"Remarks on single rows are in {table.name}.csv.")
    names, body, widths = columns_shown(frame), cells(frame), _letters(frame)
    kinds = [
        "r" if column(name).form else rf"p{{{0.5 * width:.1f}em}}" if _in_lines(name, width) else "l"
        for name, width in zip(names, widths, strict=True)
    ]
    head = " & ".join(map(_latex_head, names)) + r" \\"
    numeric = [bool(column(name).form) for name in names]
    lines = [
        " & ".join(_latex_cell(cell, number) for cell, number in zip(row, numeric, strict=True)) + r" \\"
        for row in body
    ]
    if table.frame.empty:
        lines = [rf"\multicolumn{{{max(len(names), 1)}}}{{l}}{{Not available: no rows.}} \\"]
    wide = form.room > PORTRAIT_POINTS
    begin, end = (r"\begin{landscape}", r"\end{landscape}") if wide else (r"\begingroup", r"\endgroup")
    text = [
        rf"% \usepackage[T1]{{fontenc}}, \usepackage{{booktabs, longtable, lscape}}; made by {COMMAND}",
        begin, rf"\{form.size}\setlength{{\tabcolsep}}{{{form.gap:g}pt}}\setlength{{\LTcapwidth}}{{\linewidth}}",
        rf"\begin{{longtable}}{{{''.join(kinds) or 'l'}}}",
        rf"\caption[{{{latex_text(table.title)}}}]{{{latex_text(full_title(table))} {latex_text(' '.join(words))}}}"
        rf"\label{{tab:twinrun-{table.name.replace('_', '-')}}} \\",
        r"\toprule", head, r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead",
        r"\bottomrule", r"\endlastfoot", *lines, r"\end{longtable}", end,
    ]  # fmt: skip
    return "\n".join(text) + "\n"


def write_table(table: Table, folder: Path) -> list[str]:
    """Write the table as CSV (full precision), LaTeX and Markdown; returns the file names."""
    write_csv(folder / f"{table.name}.csv", table.frame)
    if table.for_programs:
        return [f"{table.name}.csv"]
    write_text(folder / f"{table.name}.tex", latex(table))
    write_text(folder / f"{table.name}.md", markdown(table))
    return [f"{table.name}.{form}" for form in FORMS]
