"""A table: rows with a caption that stands alone and columns that say how they read; as CSV, LaTeX and Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from twinrun.collect.cells import write_csv
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS
from twinrun.stats.digits import p_value, to_the_place, two_digits, width_of
from twinrun.study.files import write_text


def missing(value: Any) -> bool:
    """Whether a cell holds no value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


class Column(NamedTuple):
    """How a column reads: its heading, the format of its numbers, what it holds."""

    name: str  # in the CSV file
    label: str
    form: str  # a format specification; empty for text, TWO_DIGITS for two that count, as an SD has, or P_VALUE
    meaning: str
    factor: float = 1.0  # of the numbers: 100 for shares that are shown in points
    words: Mapping[str, str] = {}  # what a person reads instead of a value
    digits_of: str = ""  # the column whose interval or SD says how many digits it carries; default: its own
    neutral: float = 0.0  # on which side of it an end of the interval lies is the verdict
    margin: str = ""  # the column whose value, with either sign, is so, too

    def shown(self, value: Any, width: float = 0.0) -> str:
        """A cell as a person reads it; `n/a` for a value that does not exist (its row's remark says why).

        With a `width`, half an interval or an SD, it ends at the second digit of that.
        """
        if missing(value):
            return "" if self.name == "remark" else "n/a"
        if self.form == "d":
            return format(int(value), "d")
        if self.form == TWO_DIGITS:
            return two_digits(float(value))
        if self.form == P_VALUE:
            return p_value(float(value))
        if self.form.endswith("f") and width > 0:
            return to_the_place(float(value), width, "+" if self.form.startswith("+") else "")
        return format(float(value), self.form) if self.form else self.words.get(str(value), str(value))

    def width(self, row: Mapping[Any, Any], factors: Mapping[str, float]) -> float:
        """`width_of` the interval that stands in the row, or the SD, in the unit of this column; 0 where there is none.

        Of `churn` that is `churn_low` and `churn_high`, of `recall` it is `recall_sd`.
        """
        name = self.digits_of or self.name.removesuffix("_low").removesuffix("_high")
        sets = ((f"{name}_low", f"{name}_high"), (f"{name}_se",), (f"{name}_sd",), (self.digits_of,))
        ends = next((ends for ends in sets if set(ends) <= set(row)), ())
        values = [row[end] * self.factor / factors[end] for end in ends if not missing(row[end])]
        if not values or len(values) < len(ends):
            return 0.0
        if len(values) == 1:
            return float(values[0])
        low, high = map(float, values)
        margins = [row[self.margin] * self.factor / factors[self.margin]] if self.margin else []
        return width_of(low, high, (self.neutral, *margins, *(-margin for margin in margins)))


TWO_DIGITS, P_VALUE = "2", "p"  # in place of a format specification
TASK = Column("task", "Task", "", "data set, model and recipe")
OPTIMIZER = Column("optimizer", "Optimizer", "", "adam, adamw or sgd", words=OPTIMIZER_LABELS)
SEED = Column("seed", "Seed", "", "of every algorithmic stream")
ARM = Column("arm", "Arm", "", "what is left free")
METRIC = Column("metric", "Metric", "", "on the test set after the last epoch, in [0, 1]", words=METRIC_LABELS)
COMPARISON = Column("comparison", "Comparison", "", "which pairs of runs are compared")
CELLS = Column("cells", "Cells", "d", "(task, optimizer, seed) combinations")
RUNS = Column("runs", "Runs", "d", "runs")
PAIRS = Column("pairs", "Pairs", "d", "pairs of runs")
EPOCH = Column("epoch", "Epoch", "d", "of the checkpoint; 0 is the initialization")
N = Column("n", "n", "d", "runs")
N_ND = Column("n_nd", "n nd", "d", "complete nd runs")
N_DET = Column("n_det", "n det", "d", "complete deterministic runs")
REMARK = Column("remark", "Remark", "", "why a value is not available")
SETTING = (TASK, OPTIMIZER)
CELL = (TASK, OPTIMIZER, SEED)
GROUP = (TASK, OPTIMIZER, SEED, ARM)
COMMAND = "twinrun analyze"  # makes every table and figure
FORMS = ("csv", "tex", "md")


def ends(name: str, label: str, form: str, of: str, **rest: Any) -> tuple[Column, Column]:
    """The columns of both ends of an interval: `ends("churn", "Churn", ".4f", "95 % interval")`."""
    heads = [f"{label} {word}" if label else word.capitalize() for word in ("from", "to")]
    return (
        Column(f"{name}_low", heads[0], form, f"lower end of {of}", **rest),
        Column(f"{name}_high", heads[1], form, f"upper end of {of}", **rest),
    )


@dataclass(frozen=True)
class Table:
    """A table of the report; `name` is the stem of its files."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]  # None and NaN are values that are not defined
    thesis_name: str = ""  # what the thesis calls it
    notes: tuple[str, ...] = field(default=())
    filled_by: str = ""  # what would fill it, said where it holds no value
    main: bool = False  # in the short report, too
    for_programs: bool = False  # too long for a reader: CSV alone, and not on the page

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as the CSV file holds them: whole numbers stay whole, what is not defined is missing."""
        # As objects first: beside a missing value pandas would take a large whole number for a float.
        frame = pd.DataFrame(list(self.rows), columns=[column.name for column in self.columns], dtype=object)
        for column in self.columns:
            if column.form == "d":
                numbers = frame[column.name]
                frame[column.name] = numbers.astype("Int64") if numbers.isna().any() else numbers.astype("int64")
            elif column.form:
                frame[column.name] = column.factor * frame[column.name].astype(float)
        return frame

    @property
    def filled(self) -> bool:
        """Whether it says anything: of its measured columns at least one has a value."""
        measured = [column.name for column in self.columns if column.form not in ("", "d") or column.name == "found"]
        return not self.frame.empty and (not measured or bool(self.frame[measured].notna().to_numpy().any()))


def columns_shown(columns: Sequence[Column], frame: pd.DataFrame) -> list[Column]:
    """All columns but a remark that is empty in every row."""
    told = "remark" in frame and any(not missing(remark) and remark != "" for remark in frame["remark"])
    return [column for column in columns if column.name != "remark" or told]


def cells(columns: Sequence[Column], frame: pd.DataFrame) -> list[list[str]]:
    """The body of the table as a person reads it."""
    factors = {column.name: column.factor for column in columns}
    return [
        [column.shown(row[column.name], column.width(row, factors)) for column in columns]
        for row in frame.to_dict("records")
    ]


def span(values: pd.Series, form: str, factor: float = 1.0) -> str:
    """`0.12 to 0.80`, one number where both would read the same."""
    known = values.dropna() * factor
    if known.empty:
        return "not available"
    low, high = f"{known.min():{form}}", f"{known.max():{form}}"
    return low if low == high else f"{low} to {high}"


def in_points(share: float | None) -> str:
    """A share, without its sign, in points of 100 with two digits that count.

    >>> in_points(0.123), in_points(-0.0213), in_points(0.0035)
    ('12', '2.1', '0.35')
    """
    return two_digits(100 * abs(share or 0.0))


def counts(values: pd.Series) -> str:
    """`n = 3`, or `n = 2 to 3` where cells differ."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


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


def markdown_prose(text: str) -> str:
    r"""A sentence whose code stays code, and in which nothing is HTML.

    >>> markdown_prose("`<task>` of <b>")
    '`<task>` of \\<b>'
    """
    return "`".join(part if n % 2 else part.replace("<", r"\<") for n, part in enumerate(text.split("`")))


def markdown_table(columns: Sequence[Column], frame: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table; one line that says so where there is no row."""
    if frame.empty:
        return ["Not available: no rows."]
    columns = columns_shown(columns, frame)
    rows = [[column.label for column in columns], *cells(columns, frame)]
    rule = " | ".join("---:" if column.form else "---" for column in columns)
    head, *body = [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]
    return [head, f"| {rule} |", *body]


def full_title(table: Table) -> str:
    """`Table 5.4. Smallest, mean and largest result per task.`"""
    name = f"{table.thesis_name[0].upper()}{table.thesis_name[1:]}. " if table.thesis_name else ""
    return f"{name}{table.title}{'' if table.title.endswith('?') else '.'}"


def markdown(table: Table) -> str:
    """A Markdown page of one table with its caption, notes and the command that makes it."""
    prose = [markdown_prose(text) for text in (full_title(table), table.caption, *table.notes)]
    lines = [f"### {prose[0]}", "", *markdown_table(table.columns, table.frame)]
    lines += [line for text in prose[1:] for line in ("", text)]
    return "\n".join([*lines, "", f"Made by `{COMMAND}`."]) + "\n"


def _latex_cell(cell: str, number: bool) -> str:
    if number and cell.startswith("-"):
        return f"$-${cell[1:]}"  # a minus, not a hyphen
    # A cell that begins with [ would be read as the argument of the line end before it.
    return ("{}" if cell.startswith("[") else "") + latex_text(cell)


def _latex_head(column: Column) -> str:
    """The heading, a word a line: headings would otherwise be what makes a table wide."""
    words = r"\\".join(latex_text(word) for word in column.label.split())
    return rf"\shortstack[{'r' if column.form else 'l'}]{{{words}}}"


def _letters(columns: Sequence[Column], body: list[list[str]]) -> list[int]:
    """The widest word of a heading or cell of each column, in letters; that of a line where text is set in lines."""
    widths = []
    for place, column in enumerate(columns):
        width = max([*map(len, column.label.split()), *(len(row[place]) for row in body)], default=1)
        widths.append(min(width, LINE_LETTERS) if _in_lines(column, width) else width)
    return widths


def _in_lines(column: Column, width: int) -> bool:
    return not column.form and (width >= LINE_LETTERS or column.name == "remark")


def latex(table: Table) -> str:
    """A longtable with booktabs rules, small and, where it is wide, on its side; it may be longer than a page.

    Needs the packages of its first line.
    """
    every = columns_shown(table.columns, table.frame)
    for form in LATEX_FORMS:
        columns = [column for column in every if form.remarks or column.name != "remark"]
        body = cells(columns, table.frame)
        widths = _letters(columns, body)
        if sum(widths) * form.letter + 2 * form.gap * len(widths) <= form.room:
            break
    words = [table.caption, *table.notes]
    if len(columns) < len(every):
        words.append(f"Remarks on single rows are in {table.name}.csv.")
    kinds = [
        "r" if column.form else rf"p{{{0.5 * width:.1f}em}}" if _in_lines(column, width) else "l"
        for column, width in zip(columns, widths, strict=True)
    ]
    head = " & ".join(map(_latex_head, columns)) + r" \\"
    lines = [
        " & ".join(_latex_cell(cell, bool(column.form)) for cell, column in zip(row, columns, strict=True)) + r" \\"
        for row in body
    ]
    if table.frame.empty:
        lines = [rf"\multicolumn{{{max(len(columns), 1)}}}{{l}}{{Not available: no rows.}} \\"]
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
